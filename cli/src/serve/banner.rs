//! What the server says once it is ready.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, absolute};

use quipu_core::auth::AuthMode;
use quipu_core::http::VERSION;

use super::{FirstToken, Ground, Opened, describe, reachable};
use crate::settings::{DEFAULT_DATA, ServeSettings};

/// Prints it. A closed standard output is no reason not to serve.
pub(super) fn print(settings: &ServeSettings, ground: &impl Ground, opened: &Opened, address: SocketAddr) {
    let url = format!("http://{}", reachable(address));
    let mut out = format!("quipu {VERSION}\n");
    for (name, value) in &opened.facts {
        out.push_str(&format!("{name:<10}  {value}\n"));
    }
    out.push_str(&format!("auth        {}\nlistening on http://{address}\n\n", describe(settings.auth)));
    // As it was called itself: `cargo run` leaves nothing on the path.
    let program = std::env::args().next().map_or_else(|| "quipu".to_owned(), |name| quoted(&name));
    let first_token = (settings.auth == AuthMode::Required).then(|| ground.first_token(settings));
    out.push_str(&next_steps(&program, &url, &ground.option(&url), first_token));
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(out.as_bytes()).and_then(|()| stdout.flush());
}

/// What to do next. `first_token`: who can make one, if every request needs one.
fn next_steps(program: &str, url: &str, option: &str, first_token: Option<FirstToken>) -> String {
    let mut out = String::new();
    let header = if first_token.is_some() { " -H \"authorization: Bearer $QUIPU_TOKEN\"" } else { "" };
    let create = |option: &str| {
        format!("export QUIPU_TOKEN=\"$({program} token create --scope '*' --only-token{option})\"\n")
    };
    match first_token {
        None => {}
        Some(FirstToken::Operator) => {
            out.push_str(&format!("Make a token (it is shown once):\n  {}", create(option)));
        }
        Some(FirstToken::Secret) => {
            let option = format!("{option} --token \"$QUIPU_BOOTSTRAP_SECRET\"");
            out.push_str(&format!("Make the table's first token (works once, shown once):\n  {}", create(&option)));
        }
        Some(FirstToken::Nobody) => out.push_str(
            "Have a token in QUIPU_TOKEN. To make the table's first one, start this server with --data DIR (commands\n\
             with the same --data then need no token) or with QUIPU_BOOTSTRAP_SECRET set.\n",
        ),
    }
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

/// How another command is told of a directory; nothing, if it would find it by itself.
pub(super) fn directory_option(data: &Path) -> String {
    if data == Path::new(DEFAULT_DATA) {
        return String::new();
    }
    let absolute = absolute(data).unwrap_or_else(|_| data.to_owned());
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
    fn who_can_make_a_token_is_told_how() {
        let steps = |first| next_steps("quipu", "http://h:1", " --url http://h:1", first);
        let open = steps(None);
        assert!(!open.contains("token") && open.contains("quipu tail --url http://h:1"), "{open}");
        let secret = steps(Some(FirstToken::Secret));
        assert!(secret.contains(r#"--url http://h:1 --token "$QUIPU_BOOTSTRAP_SECRET")"#), "{secret}");
        let nobody = steps(Some(FirstToken::Nobody));
        assert!(nobody.contains("--data DIR") && !nobody.contains("token create"), "{nobody}");
        assert!([secret, nobody].iter().all(|text| text.contains("Bearer $QUIPU_TOKEN")));
    }

    #[test]
    fn another_directory_is_named_for_the_shell() {
        assert_eq!(directory_option(Path::new(DEFAULT_DATA)), "");
        assert_eq!(directory_option(Path::new("/a/it's")), r" --data '/a/it'\''s'");
    }
}
