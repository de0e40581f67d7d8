//! `quipu serve`: the whole ledger in one process.

mod archiver;
#[cfg(feature = "aws")]
mod aws;
mod banner;
mod listener;
#[cfg(feature = "aws")]
mod operator_file;

#[cfg(feature = "aws")]
pub(crate) use aws::{connect, why};

use std::io::{ErrorKind, IsTerminal as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf, absolute};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use clap::Args;
use quipu_core::archive::ArchiveSettings;
use quipu_core::auth::AuthMode;
use quipu_core::random;
use quipu_core::store::embedded::DataDir;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::failure::hinted;
use crate::local::{self, Admission, ServerInfo, directory_error};
use crate::settings::{self, FileSettings, ServeSettings, StoreSettings};
use crate::time_arg::now;

/// How long tasks that were cut off may take to notice. With [`listener::DRAIN`] it stays below the ten seconds in
/// which the process must have ended.
const CUT_OFF: Duration = Duration::from_millis(500);
/// Open files that 10,000 connections and the store need, if the system lets us.
const FILES_WANTED: u64 = 16_384;

/// Arguments of `quipu serve`.
#[derive(Debug, Default, Clone, Args)]
#[command(after_help = "\
Examples:
  quipu serve
  quipu serve --listen 0.0.0.0:3400 --data /var/lib/quipu     tokens are required there
  quipu serve --store aws --table quipu --seal-key alias/quipu-seal --log-key alias/quipu-log
  QUIPU_LOG=debug quipu serve

Stops cleanly on SIGTERM and ctrl-c; may be killed at any time without losing what it acknowledged.")]
pub(crate) struct ServeArgs {
    /// Address and port [env: QUIPU_LISTEN] [default: 127.0.0.1:3400]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<String>,
    /// The data directory; made if it is not there [env: QUIPU_DATA] [default: ./quipu-data]. With --store aws none is
    /// needed: if one is given, it holds no more than what lets this machine's commands in without a token
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// loopback: this machine needs no token; required: everybody does [env: QUIPU_AUTH] [default: loopback on a
    /// loopback address, else required]
    #[arg(long, value_name = "MODE", value_parser = ["loopback", "required"])]
    pub(crate) auth: Option<String>,
    /// embedded: a data directory on this machine; aws: a DynamoDB table, with region and credentials from AWS's own
    /// variables and files [env: QUIPU_STORE] [default: embedded]
    #[arg(long, value_name = "STORE", value_parser = ["embedded", "aws"])]
    pub(crate) store: Option<String>,
    /// With --store aws: the DynamoDB table [env: QUIPU_TABLE]
    #[arg(long, value_name = "NAME")]
    pub(crate) table: Option<String>,
    /// With --store aws: the KMS key (id, ARN or alias) that seals the receipt key [env: QUIPU_SEAL_KEY]
    #[arg(long, value_name = "KEY")]
    pub(crate) seal_key: Option<String>,
    /// With --store aws: the KMS key (id, ARN or alias) that is the log key; needed by the first server on a table, and
    /// by one that archives [env: QUIPU_LOG_KEY]
    #[arg(long, value_name = "KEY")]
    pub(crate) log_key: Option<String>,
    /// With --store aws: the bucket of the archive [env: QUIPU_ARCHIVE_BUCKET]
    #[arg(long, value_name = "BUCKET")]
    pub(crate) archive_bucket: Option<String>,
    /// With --store aws: the bucket in which batches are staged; with it, this server archives
    /// [env: QUIPU_STAGING_BUCKET]
    #[arg(long, value_name = "BUCKET")]
    pub(crate) staging_bucket: Option<String>,
    /// The settings file [default: ./quipu.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// Runs the server until it is told to stop.
pub(crate) fn run(args: ServeArgs) -> anyhow::Result<ExitCode> {
    let file = FileSettings::read(args.config.as_deref())?;
    let settings = ServeSettings::resolve(&args, &settings::environment, file)?;
    init_log(&settings.log);
    raise_file_limit();
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    let served = match &settings.store {
        StoreSettings::Embedded(data) => {
            let dir = DataDir::create_or_open(data, now()).map_err(|e| directory_error(data, e))?;
            let served = runtime.block_on(serve(
                &settings,
                &Embedded { dir: &dir, asked: data, archive: settings.archive.settings },
            ));
            // The store is closed before the lock on the directory is given up.
            runtime.shutdown_timeout(CUT_OFF);
            served
        }
        #[cfg(feature = "aws")]
        StoreSettings::Aws { config, archiver, operator_dir } => {
            let archive = archiver.as_ref().map(|archiver| (archiver, settings.archive.settings));
            let ground = aws::Aws::new(config, archive, operator_dir.as_deref());
            let served = runtime.block_on(serve(&settings, &ground));
            runtime.shutdown_timeout(CUT_OFF);
            served
        }
    };
    served.map(|()| ExitCode::SUCCESS)
}

/// What a server stands on: how its ledger is opened, and what its operator is told of it.
trait Ground {
    /// Opens the ledger. What would fail later for want of a setting or a permission fails here.
    async fn open(&self, admission: Admission<'_>) -> anyhow::Result<Opened>;

    /// Leaves word for the command line on this machine.
    fn leave_word(&self, info: &ServerInfo) -> anyhow::Result<()>;

    /// How other commands name this server, given its address: an option with a space before it, or nothing.
    fn option(&self, url: &str) -> String;

    /// Who can make a token where every request needs one.
    fn first_token(&self, settings: &ServeSettings) -> FirstToken;
}

/// Who can make a token where every request needs one.
#[cfg_attr(not(feature = "aws"), allow(dead_code, reason = "a data directory always knows its operator"))]
enum FirstToken {
    /// The command line on this machine, by the word that the server has left.
    Operator,
    /// Who knows the bootstrap secret, once.
    Secret,
    /// Who has a token already.
    Nobody,
}

/// An open ledger, and what the banner says of it: names and values.
struct Opened {
    ledger: local::Open,
    facts: Vec<(&'static str, String)>,
}

/// A data directory.
struct Embedded<'d> {
    dir: &'d DataDir,
    asked: &'d Path,
    archive: ArchiveSettings,
}

impl Ground for Embedded<'_> {
    async fn open(&self, admission: Admission<'_>) -> anyhow::Result<Opened> {
        let ledger = local::open(self.dir, admission, self.archive).await?;
        let data = absolute(self.dir.path()).unwrap_or_else(|_| self.dir.path().to_owned());
        let facts =
            vec![("data", data.display().to_string()), ("deployment", self.dir.deployment().to_owned())];
        Ok(Opened { ledger, facts })
    }

    fn leave_word(&self, info: &ServerInfo) -> anyhow::Result<()> {
        let text = serde_json::to_string(info).context("cannot describe the server")?;
        self.dir.write_server_info(&text).map_err(|e| directory_error(self.dir.path(), e))
    }

    fn option(&self, _: &str) -> String {
        banner::directory_option(self.asked)
    }

    fn first_token(&self, _: &ServeSettings) -> FirstToken {
        FirstToken::Operator
    }
}

/// 1. take the port; 2. open the ledger; 3. leave word for the command line; 4. say so; 5. serve until told to stop.
async fn serve(settings: &ServeSettings, ground: &impl Ground) -> anyhow::Result<()> {
    // Before anything else, so that a signal at any later moment ends it cleanly.
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    tokio::pin!(stop);
    // 1
    let listener = TcpListener::bind(settings.listen).await.map_err(|e| bind_error(settings.listen, e))?;
    let address = listener.local_addr().context("cannot learn the address")?;
    // 2
    let credential = BASE64URL.encode(random::bytes::<32>());
    let bootstrap_secret = settings.bootstrap_secret.clone();
    let admission = Admission { mode: settings.auth, operator: Some(&credential), bootstrap_secret };
    let opened = tokio::select! {
        opened = ground.open(admission) => opened?,
        // Services elsewhere may take seconds to answer.
        () = &mut stop => return Ok(()),
    };
    // 3
    let url = format!("http://{}", reachable(address));
    ground.leave_word(&ServerInfo { pid: std::process::id(), url, credential })?;
    // 4
    banner::print(settings, ground, &opened, address);
    // 5
    let schedule = match (&opened.ledger.archiver, settings.archive.interval_ms) {
        (Some(archiver), Some(every)) => {
            let every = Duration::from_millis(every.unsigned_abs());
            Some(archiver::Schedule::start(archiver.clone(), every)?)
        }
        _ => None,
    };
    listener::serve(listener, local::router(&opened.ledger), stop).await;
    drop(schedule);
    tracing::info!("stopped");
    Ok(())
}

/// An address under which this machine reaches the server.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn bind_error(listen: SocketAddr, error: std::io::Error) -> anyhow::Error {
    let hint = match error.kind() {
        ErrorKind::AddrInUse => {
            let other = listen.port().checked_add(1).unwrap_or(3400);
            format!(
                "another program listens there, perhaps a quipu on another data directory; stop it, or use --listen {}",
                SocketAddr::new(listen.ip(), other)
            )
        }
        ErrorKind::PermissionDenied => "ports below 1024 are the system's: use a higher one".to_owned(),
        ErrorKind::AddrNotAvailable => {
            "this machine has no such address; 127.0.0.1 is always there".to_owned()
        }
        _ => "give another address with --listen".to_owned(),
    };
    anyhow::Error::new(error).context(hinted(format!("cannot listen on {listen}"), hint))
}

/// Logs to standard error. Never tokens, never payloads: nothing hands them to the log.
pub(crate) fn init_log(filter: &str) {
    let parsed = EnvFilter::try_new(filter).unwrap_or_else(|error| {
        eprintln!("warning: the log filter {filter:?} is not understood ({error}); using warn");
        EnvFilter::new("warn")
    });
    let is_terminal = std::io::stderr().is_terminal();
    let log =
        tracing_subscriber::fmt().with_env_filter(parsed).with_writer(std::io::stderr).with_ansi(is_terminal);
    // Fails only if there is a log already.
    let _ = log.try_init();
}

/// Each connection is an open file, and many systems start processes with 1024.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(FILES_WANTED, |most| most.min(FILES_WANTED));
    if limit.current.is_some_and(|current| current < wanted)
        && let Err(error) =
            setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum })
    {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

/// The auth mode in words.
fn describe(mode: AuthMode) -> &'static str {
    match mode {
        AuthMode::Loopback => "loopback: requests from this machine need no token",
        AuthMode::Required => "required: every request needs a token",
    }
}
