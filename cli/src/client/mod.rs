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
use crate::local::{ServerInfo, directory_error};
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

/// Commands log to standard error, and only what is wrong, unless told otherwise.
fn init_log() {
    let filter = settings::environment("QUIPU_LOG").unwrap_or_else(|| "warn".to_owned());
    crate::serve::init_log(&filter);
}
