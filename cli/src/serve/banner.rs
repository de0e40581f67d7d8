//! What the server says once it is ready.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, absolute};

use quipu_core::auth::AuthMode;
use quipu_core::http::VERSION;
use quipu_core::store::embedded::DataDir;

use super::{describe, reachable};
use crate::settings::{DEFAULT_DATA, ServeSettings};

/// Prints it. A closed standard output is no reason not to serve.
pub(super) fn print(settings: &ServeSettings, dir: &DataDir, address: SocketAddr) {
    let text = text(settings, dir, address);
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn text(settings: &ServeSettings, dir: &DataDir, address: SocketAddr) -> String {
    let data = absolute(dir.path()).unwrap_or_else(|_| dir.path().to_owned());
    let url = format!("http://{}", reachable(address));
    let option = directory_option(&settings.data, &data);
    // As it was called itself: `cargo run` leaves nothing on the path.
    let program = std::env::args().next().map_or_else(|| "quipu".to_owned(), |name| quoted(&name));
    let mut out = format!(
        "quipu {VERSION}\n\
         data        {}\n\
         deployment  {}\n\
         auth        {}\n\
         listening on http://{address}\n\n",
        data.display(),
        dir.deployment(),
        describe(settings.auth),
    );
    let header = match settings.auth {
        AuthMode::Loopback => "",
        AuthMode::Required => {
            out.push_str(&format!(
                "Make a token (it is shown once):\n  \
                 export QUIPU_TOKEN=\"$({program} token create --scope '*' --only-token{option})\"\n"
            ));
            " -H \"authorization: Bearer $QUIPU_TOKEN\""
        }
    };
    out.push_str(&format!(
        "Send an event:\n  \
         curl -sS {url}/v1/events -H 'content-type: application/json'{header} -d '{EXAMPLE}'\n\
         See it:\n  \
         {program} tail{option}\n"
    ));
    out
}

/// An event that the native API takes.
const EXAMPLE: &str = r#"{"events":[{"session_id":"demo","agent_id":"me","event_type":"note.made","payload":{"text":"hello"}}]}"#;

/// How another command is told of the directory; nothing, if it would find it by itself.
fn directory_option(data: &Path, absolute: &Path) -> String {
    if data == Path::new(DEFAULT_DATA) {
        return String::new();
    }
    format!(" --data {}", quoted(&absolute.display().to_string()))
}

/// A word for the shell, in quotes if it needs them.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use quipu_core::dialect::{intake, native};

    #[test]
    fn the_example_is_a_good_batch() {
        assert_eq!(intake::read_batch(EXAMPLE, &native::NAMES).unwrap().len(), 1);
        assert!(!EXAMPLE.contains('\''), "it stands in single quotes");
    }

    #[test]
    fn another_directory_is_named_for_the_shell() {
        assert_eq!(directory_option(Path::new(DEFAULT_DATA), Path::new("/a/quipu-data")), "");
        assert_eq!(directory_option(Path::new("it's"), Path::new("/a/it's")), r" --data '/a/it'\''s'");
    }
}
