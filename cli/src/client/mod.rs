//! One way to ask a ledger, whether it is a server elsewhere, the server that runs on a data directory, or a data
//! directory opened in this process.

mod http;
mod in_process;
mod request;
mod retry;

#[cfg(test)]
pub(crate) use request::Issue;
pub(crate) use request::{ApiFailure, Reply, Request, SendError};
pub(crate) use retry::{Answer, Retry, send_patiently};

use std::path::{Path, PathBuf};
use std::time::Duration;

use quipu_core::store::embedded::{DataDir, DataDirError};

use self::http::Http;
use self::in_process::InProcess;
use crate::args::ConnectArgs;
use crate::failure::hinted;
use crate::local::{SERVER_FILE, ServerInfo, directory_error};
use crate::settings::{self, ConnectSettings, DEFAULT_DATA, DEFAULT_LISTEN, FileSettings, Place};

/// How long a command waits for another command to leave the data directory.
const DIRECTORY_PATIENCE: Duration = Duration::from_secs(5);
/// How often it looks.
const DIRECTORY_POLL: Duration = Duration::from_millis(50);

enum Backend {
    Http(Http),
    InProcess(Box<InProcess>),
}

/// A ledger to ask.
pub(crate) struct Client {
    backend: Backend,
    token: Option<String>,
}

impl Client {
    /// The ledger that flags, environment and settings file name.
    pub(crate) fn connect(args: &ConnectArgs) -> anyhow::Result<Self> {
        init_log();
        let file = FileSettings::read(args.config.as_deref())?;
        let settings = ConnectSettings::resolve(args, &settings::environment, file);
        let token = settings.token;
        match settings.place {
            Place::Url(url) => Self::http(&url, token),
            Place::Data(data) => Self::directory(&data, token),
            Place::Default => {
                let data = PathBuf::from(DEFAULT_DATA);
                if data.exists() { Self::directory(&data, token) } else { Self::default_server(token) }
            }
        }
    }

    fn http(url: &str, token: Option<String>) -> anyhow::Result<Self> {
        let http = Http::new(url)?;
        if token.is_some() && http.is_in_the_clear() {
            eprintln!("warning: {url} is not https: whoever is on the way can read the token and the events");
        }
        Ok(Self { backend: Backend::Http(http), token })
    }

    /// Nobody said where, and there is no directory: perhaps a server runs on the usual address.
    fn default_server(token: Option<String>) -> anyhow::Result<Self> {
        let url = format!("http://{DEFAULT_LISTEN}");
        let http = Http::new(&url)?;
        if http.answers() {
            return Ok(Self { backend: Backend::Http(http), token });
        }
        let hint = "start one with `quipu serve`, name a server with --url (QUIPU_URL), or a data directory with \
                    --data (QUIPU_DATA)";
        let message =
            format!("no ledger found: there is no directory ./{DEFAULT_DATA}, and nothing answers at {url}");
        Err(hinted(message, hint).into())
    }

    /// The server that runs on a directory, or else the directory itself.
    fn directory(path: &Path, token: Option<String>) -> anyhow::Result<Self> {
        let give_up = std::time::Instant::now() + DIRECTORY_PATIENCE;
        loop {
            let error = match DataDir::open(path) {
                Ok(dir) => {
                    let local = InProcess::new(dir)?;
                    return Ok(Self { backend: Backend::InProcess(Box::new(local)), token });
                }
                Err(error) => error,
            };
            if let DataDirError::Absent { .. } = &error
                && let Some(client) = Self::word_in(path, token.as_deref())?
            {
                return Ok(client);
            }
            let DataDirError::InUse { server, .. } = &error else {
                return Err(directory_error(path, error));
            };
            // A server that was killed leaves its words behind, and another command may hold the directory now: so
            // the server is believed if it answers.
            if let Some(info) = server.as_deref().and_then(ServerInfo::parse) {
                let http = Http::new(&info.url)?;
                if http.answers() {
                    let token = token.or(Some(info.credential));
                    return Ok(Self { backend: Backend::Http(http), token });
                }
            }
            if std::time::Instant::now() >= give_up {
                return Err(directory_error(path, error));
            }
            std::thread::sleep(DIRECTORY_POLL);
        }
    }

    /// The server that has left word in a directory which holds no ledger: one whose ledger is elsewhere.
    fn word_in(path: &Path, token: Option<&str>) -> anyhow::Result<Option<Self>> {
        let Some(info) = own_word(path) else { return Ok(None) };
        let http = Http::new(&info.url)?;
        if !http.answers() {
            let message =
                format!("{} holds no ledger, and the server that was known by it is gone", path.display());
            let hint = "start it again with the same --data, or name another with --url (QUIPU_URL)";
            return Err(hinted(message, hint).into());
        }
        let token = token.map_or(info.credential, str::to_owned);
        Ok(Some(Self { backend: Backend::Http(http), token: Some(token) }))
    }

    /// True if requests leave this process, and so can be lost.
    pub(crate) fn is_remote(&self) -> bool {
        matches!(self.backend, Backend::Http(_))
    }

    /// Sends one request. Every request of every command goes through here.
    pub(crate) fn send(&self, request: &Request<'_>) -> Result<Reply, SendError> {
        match &self.backend {
            Backend::Http(http) => http.send(request, self.token.as_deref()),
            Backend::InProcess(local) => local.send(request, self.token.as_deref()),
        }
    }

    /// Sends a request and reads the answer as text; an answer other than 2xx is an error.
    pub(crate) fn ask(&self, request: &Request<'_>) -> anyhow::Result<String> {
        self.send(request)?.accepted()?.text()
    }
}

/// What a server has left in a directory. Only from its own user, in a file that nobody else can read: another's
/// could send our token anywhere.
fn own_word(path: &Path) -> Option<ServerInfo> {
    use std::io::Read as _;
    use std::os::unix::fs::MetadataExt as _;
    let mut file = std::fs::File::open(path.join(SERVER_FILE)).ok()?;
    let metadata = file.metadata().ok()?;
    if metadata.uid() != rustix::process::geteuid().as_raw() || metadata.mode() & 0o077 != 0 {
        return None;
    }
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    ServerInfo::parse(&text)
}

/// True if a ledger answers at a URL.
#[cfg(feature = "aws")]
pub(crate) fn answers(url: &str) -> bool {
    Http::new(url).is_ok_and(|http| http.answers())
}

/// Commands log to standard error, and only what is wrong, unless told otherwise.
fn init_log() {
    let filter = settings::environment("QUIPU_LOG").unwrap_or_else(|| "warn".to_owned());
    crate::serve::init_log(&filter);
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_word_that_others_could_have_read_is_no_word() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(SERVER_FILE);
        // Nothing listens on the discard port.
        std::fs::write(&file, r#"{"pid":7,"url":"http://127.0.0.1:9","credential":"sesame"}"#).unwrap();
        let said = |mode| {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            Client::directory(dir.path(), None).err().unwrap().to_string()
        };
        let (open, own) = (said(0o640), said(0o600));
        assert!(open.contains("holds no ledger; `quipu serve` makes one"), "{open}");
        assert!(own.contains("the server that was known by it is gone") && !own.contains("sesame"), "{own}");
    }
}
