//! Settings: flags, then `QUIPU_…` variables, then `quipu.toml`. Resolved in one place, against an environment that
//! is handed in, so that the order can be tested.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use quipu_core::auth::AuthMode;
use quipu_core::config::ArchiveConfig;
#[cfg(feature = "aws")]
use quipu_core::config::{ArchiverConfig, AwsConfig, ConfigError};
use serde::Deserialize;

use crate::args::ConnectArgs;
use crate::failure::hinted;
use crate::serve::ServeArgs;

/// Where the server listens unless told otherwise.
pub(crate) const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 3400);
/// Where the data is unless told otherwise.
pub(crate) const DEFAULT_DATA: &str = "quipu-data";
/// The settings file that is looked for in the current directory.
const DEFAULT_FILE: &str = "quipu.toml";
/// What the server logs unless told otherwise. Where credentials were looked for in vain is said at the end, once.
const DEFAULT_LOG: &str = "warn,quipu=info,aws_config=error";
/// Shortest bootstrap secret, characters: what the functions on AWS ask for too.
const BOOTSTRAP_SECRET_CHARS_MIN: usize = 16;

/// Looks a variable up.
pub(crate) type Environment<'e> = &'e dyn Fn(&str) -> Option<String>;

/// The process's environment; an empty variable counts as absent.
pub(crate) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// What `quipu.toml` may hold.
#[derive(Debug, Default, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileSettings {
    listen: Option<String>,
    data: Option<PathBuf>,
    auth: Option<String>,
    store: Option<String>,
    table: Option<String>,
    seal_key: Option<String>,
    log_key: Option<String>,
    archive_bucket: Option<String>,
    staging_bucket: Option<String>,
    lock_days: Option<String>,
    lock_log: Option<String>,
    log: Option<String>,
    url: Option<String>,
    archive_interval: Option<String>,
    archive_max_age: Option<String>,
    archive_max_bytes: Option<String>,
    hot_retention: Option<String>,
}

impl FileSettings {
    /// Reads the file that was named, or `quipu.toml` if it is there.
    pub(crate) fn read(named: Option<&Path>) -> anyhow::Result<Self> {
        let path = named.unwrap_or(Path::new(DEFAULT_FILE));
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let mut this = Self::parse(&text, path)?;
        // A relative directory is meant from where the file stands.
        if let (Some(data), Some(base)) = (&this.data, path.parent()) {
            this.data = Some(base.join(data));
        }
        Ok(this)
    }

    fn parse(text: &str, path: &Path) -> anyhow::Result<Self> {
        toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start.min(text.len()));
            let line = 1 + text.as_bytes()[..at].iter().filter(|b| **b == b'\n').count();
            let message = format!("{}:{line}: {}", path.display(), error.message());
            let hint = "known settings are listen, data, auth, store, table, seal_key, log_key, archive_bucket, \
                        staging_bucket, lock_days, lock_log, log, url, archive_interval, archive_max_age, \
                        archive_max_bytes and hot_retention";
            anyhow::Error::new(hinted(message, hint))
        })
    }
}

/// What the server runs with.
pub(crate) struct ServeSettings {
    /// The address.
    pub(crate) listen: SocketAddr,
    /// Where the ledger is.
    pub(crate) store: StoreSettings,
    /// Whether requests without a credential pass.
    pub(crate) auth: AuthMode,
    /// Who presents it makes the first token; without one, on the embedded store, whoever comes first.
    pub(crate) bootstrap_secret: Option<String>,
    /// The filter of the log.
    pub(crate) log: String,
    /// When and how the archiver runs.
    pub(crate) archive: ArchiveConfig,
}

/// When and how the archiver runs: from the environment, then the file.
pub(crate) fn archive(env: Environment<'_>, file: &FileSettings) -> anyhow::Result<ArchiveConfig> {
    let find = |name: &str| {
        let file = match name {
            "QUIPU_ARCHIVE_INTERVAL" => &file.archive_interval,
            "QUIPU_ARCHIVE_MAX_AGE" => &file.archive_max_age,
            "QUIPU_ARCHIVE_MAX_BYTES" => &file.archive_max_bytes,
            "QUIPU_HOT_RETENTION" => &file.hot_retention,
            _ => &None,
        };
        env(name).or_else(|| file.clone())
    };
    Ok(ArchiveConfig::read(find)?)
}

/// Where the ledger is.
pub(crate) enum StoreSettings {
    /// In a data directory.
    Embedded(PathBuf),
    /// In a DynamoDB table.
    #[cfg(feature = "aws")]
    Aws {
        /// Table and keys.
        config: AwsConfig,
        /// Where this server archives; not at all, if nowhere.
        archiver: Option<ArchiverConfig>,
        /// Where the operator's credential is left for the command line, if somewhere.
        operator_dir: Option<PathBuf>,
    },
}

impl ServeSettings {
    /// Puts flags, environment and file together.
    pub(crate) fn resolve(
        flags: &ServeArgs,
        env: Environment<'_>,
        file: FileSettings,
    ) -> anyhow::Result<Self> {
        let listen = match flags.listen.clone().or_else(|| env("QUIPU_LISTEN")).or(file.listen.clone()) {
            None => DEFAULT_LISTEN,
            Some(text) => parse_listen(&text)?,
        };
        let auth = flags.auth.clone().or_else(|| env("QUIPU_AUTH")).or(file.auth.clone());
        let auth = resolve_auth(auth.as_deref(), listen)?;
        let bootstrap_secret = env("QUIPU_BOOTSTRAP_SECRET");
        if bootstrap_secret.as_ref().is_some_and(|s| s.chars().count() < BOOTSTRAP_SECRET_CHARS_MIN) {
            bail!("QUIPU_BOOTSTRAP_SECRET is too short: at least {BOOTSTRAP_SECRET_CHARS_MIN} characters");
        }
        let log = env("QUIPU_LOG").or(file.log.clone()).unwrap_or_else(|| DEFAULT_LOG.to_owned());
        let archive = archive(env, &file)?;
        let store = resolve_store(flags, env, file)?;
        Ok(Self { listen, store, auth, bootstrap_secret, log, archive })
    }
}

/// Where the ledger is.
pub(crate) fn resolve_store(
    flags: &ServeArgs,
    env: Environment<'_>,
    file: FileSettings,
) -> anyhow::Result<StoreSettings> {
    let data = flags.data.clone().or_else(|| env("QUIPU_DATA").map(PathBuf::from)).or(file.data);
    let aws = [
        ("QUIPU_TABLE", flags.table.clone(), file.table),
        ("QUIPU_SEAL_KEY", flags.seal_key.clone(), file.seal_key),
        ("QUIPU_LOG_KEY", flags.log_key.clone(), file.log_key),
        ("QUIPU_ARCHIVE_BUCKET", flags.archive_bucket.clone(), file.archive_bucket),
        ("QUIPU_STAGING_BUCKET", flags.staging_bucket.clone(), file.staging_bucket),
        ("QUIPU_LOCK_DAYS", None, file.lock_days),
        ("QUIPU_LOCK_LOG", None, file.lock_log),
    ];
    match flags.store.clone().or_else(|| env("QUIPU_STORE")).or(file.store).as_deref() {
        None | Some("embedded") => {
            if let Some((name, _, _)) = aws.iter().find(|(_, flag, _)| flag.is_some()) {
                let message = format!("{} is for the AWS store, and this is the embedded one", flag_of(name));
                return Err(hinted(message, "add --store aws").into());
            }
            Ok(StoreSettings::Embedded(data.unwrap_or_else(|| PathBuf::from(DEFAULT_DATA))))
        }
        #[cfg(not(feature = "aws"))]
        Some("aws") => {
            let hint = "build one that has: cargo build --release --package quipu --features aws; or leave --store \
                        out, for a data directory on this machine";
            Err(hinted("this build of quipu has no AWS store", hint).into())
        }
        #[cfg(feature = "aws")]
        Some("aws") => {
            let find = |name: &str| {
                let set = aws.iter().find(|(known, _, _)| *known == name);
                let (flag, file) = set.map_or((None, None), |(_, flag, file)| (flag.clone(), file.clone()));
                flag.or_else(|| env(name)).or(file)
            };
            let config = AwsConfig::read(find).map_err(config_error)?;
            // Who only reads the archive has no place to stage in, and signs nothing.
            let archives = find("QUIPU_STAGING_BUCKET").is_some_and(|bucket| !bucket.is_empty());
            let archiver = match archives {
                true => Some(ArchiverConfig::read(find).map_err(config_error)?),
                false => None,
            };
            if archiver.is_some() && config.log_key.is_none() {
                let why = "the KMS key that signs the log, which a server with a staging bucket does";
                return Err(config_error(ConfigError::Missing { name: "QUIPU_LOG_KEY", why }));
            }
            Ok(StoreSettings::Aws { config, archiver, operator_dir: data })
        }
        Some(other) => bail!("the store {other:?} is not known: it must be embedded or aws"),
    }
}

/// `--seal-key`, of `QUIPU_SEAL_KEY`.
fn flag_of(variable: &str) -> String {
    format!("--{}", variable.trim_start_matches("QUIPU_").to_lowercase().replace('_', "-"))
}

#[cfg(feature = "aws")]
fn config_error(error: ConfigError) -> anyhow::Error {
    match error {
        ConfigError::Missing { name, why } => {
            let message = format!("the AWS store needs {name}: {why}");
            let (flag, setting) = (flag_of(name), name.trim_start_matches("QUIPU_").to_lowercase());
            let hint = format!("set {name}, or give {flag}, or {setting} in quipu.toml");
            hinted(message, hint).into()
        }
        error @ ConfigError::Invalid { .. } => error.into(),
    }
}
fn parse_listen(text: &str) -> anyhow::Result<SocketAddr> {
    let numeric = match text.strip_prefix("localhost:") {
        Some(port) => format!("{}:{port}", Ipv4Addr::LOCALHOST),
        None => text.to_owned(),
    };
    numeric.parse().map_err(|_| {
        let hint = "it is an IP address and a port, such as 127.0.0.1:3400, 0.0.0.0:3400 or [::1]:3400";
        anyhow::Error::new(hinted(format!("{text:?} is no address to listen on"), hint))
    })
}

/// Loopback mode lets requests pass without a credential, so it is for addresses that only this machine reaches.
fn resolve_auth(asked: Option<&str>, listen: SocketAddr) -> anyhow::Result<AuthMode> {
    match asked {
        None if listen.ip().is_loopback() => Ok(AuthMode::Loopback),
        None | Some("required") => Ok(AuthMode::Required),
        Some("loopback") if listen.ip().is_loopback() => Ok(AuthMode::Loopback),
        Some("loopback") => {
            let message = format!(
                "auth loopback does not go with the address {listen}: other machines reach it, and loopback mode \
                 lets requests pass without a token"
            );
            Err(hinted(message, "listen on 127.0.0.1, or use --auth required and `quipu token create`")
                .into())
        }
        Some(other) => bail!("the auth mode {other:?} is not known: it must be loopback or required"),
    }
}

/// Which ledger a command is meant for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Place {
    /// A server.
    Url(String),
    /// A data directory.
    Data(PathBuf),
    /// Nobody said: `./quipu-data`, or what listens on the default address.
    Default,
}

/// What a command that speaks to a ledger runs with.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ConnectSettings {
    /// Where.
    pub(crate) place: Place,
    /// The bearer token.
    pub(crate) token: Option<String>,
}

impl ConnectSettings {
    /// Puts flags, environment and file together. A URL goes before a directory, and a flag before both variables.
    pub(crate) fn resolve(flags: &ConnectArgs, env: Environment<'_>, file: FileSettings) -> Self {
        let levels = [
            (flags.url.clone(), flags.data.clone()),
            (env("QUIPU_URL"), env("QUIPU_DATA").map(PathBuf::from)),
            (file.url, file.data),
        ];
        let place = levels.into_iter().find_map(|level| match level {
            (Some(url), _) => Some(Place::Url(url)),
            (None, Some(data)) => Some(Place::Data(data)),
            (None, None) => None,
        });
        let token = flags.token.clone().or_else(|| env("QUIPU_TOKEN"));
        Self { place: place.unwrap_or(Place::Default), token }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> FileSettings {
        FileSettings::parse(text, Path::new("quipu.toml")).unwrap()
    }

    fn env<'e>(pairs: &'e [(&'e str, &'e str)]) -> impl Fn(&str) -> Option<String> + 'e {
        move |name| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned())
    }

    fn data(settings: &ServeSettings) -> &Path {
        match &settings.store {
            StoreSettings::Embedded(data) => data,
            #[cfg(feature = "aws")]
            StoreSettings::Aws { .. } => panic!("the embedded store is the default"),
        }
    }

    #[test]
    fn flags_go_before_variables_and_variables_before_the_file() {
        let toml = "listen = '127.0.0.3:3'\ndata = 'c'\nauth = 'required'\nlog = 'error'\n";
        let bare = ServeSettings::resolve(&ServeArgs::default(), &env(&[]), FileSettings::default()).unwrap();
        assert_eq!(bare.listen, DEFAULT_LISTEN);
        assert_eq!((data(&bare), bare.auth), (Path::new(DEFAULT_DATA), AuthMode::Loopback));
        assert_eq!(bare.log, DEFAULT_LOG);
        let third = ServeSettings::resolve(&ServeArgs::default(), &env(&[]), file(toml)).unwrap();
        assert_eq!(third.listen.to_string(), "127.0.0.3:3");
        assert_eq!((data(&third), third.auth), (Path::new("c"), AuthMode::Required));
        assert_eq!(third.log, "error");
        let variables = [("QUIPU_LISTEN", "127.0.0.2:2"), ("QUIPU_DATA", "b"), ("QUIPU_AUTH", "loopback")];
        let second = ServeSettings::resolve(&ServeArgs::default(), &env(&variables), file(toml)).unwrap();
        assert_eq!(second.listen.to_string(), "127.0.0.2:2");
        assert_eq!((data(&second), second.auth), (Path::new("b"), AuthMode::Loopback));
        let flags = ServeArgs {
            listen: Some("localhost:1".into()),
            data: Some("a".into()),
            auth: Some("required".into()),
            ..ServeArgs::default()
        };
        let first = ServeSettings::resolve(&flags, &env(&variables), file(toml)).unwrap();
        assert_eq!(first.listen.to_string(), "127.0.0.1:1");
        assert_eq!((data(&first), first.auth), (Path::new("a"), AuthMode::Required));
    }

    #[test]
    fn an_address_that_others_reach_needs_tokens() {
        let resolve = |listen: &str, auth: Option<&str>| {
            let flags = ServeArgs {
                listen: Some(listen.into()),
                auth: auth.map(str::to_owned),
                ..ServeArgs::default()
            };
            ServeSettings::resolve(&flags, &env(&[]), FileSettings::default()).map(|s| s.auth)
        };
        assert_eq!(resolve("0.0.0.0:1", None).unwrap(), AuthMode::Required);
        assert_eq!(resolve("[::1]:1", None).unwrap(), AuthMode::Loopback);
        assert!(resolve("0.0.0.0:1", Some("loopback")).unwrap_err().to_string().contains("other machines"));
        assert!(resolve("127.0.0.1:1", Some("none")).is_err());
        assert!(resolve("nowhere", None).is_err());
    }

    #[test]
    fn a_short_secret_is_refused_and_not_shown() {
        let short = [("QUIPU_BOOTSTRAP_SECRET", "short")];
        let error = ServeSettings::resolve(&ServeArgs::default(), &env(&short), FileSettings::default());
        let text = error.err().unwrap().to_string();
        assert!(text.contains("QUIPU_BOOTSTRAP_SECRET") && !text.contains("\"short\""), "{text}");
    }

    #[cfg(not(feature = "aws"))]
    #[test]
    fn a_build_without_the_aws_store_says_how_to_get_one() {
        let flags = ServeArgs { store: Some("aws".into()), ..ServeArgs::default() };
        let error = ServeSettings::resolve(&flags, &env(&[]), FileSettings::default()).err().unwrap();
        let hint = error.downcast_ref::<crate::failure::Hinted>();
        assert!(format!("{error} {hint:?}").contains("--features aws"), "{hint:?}");
    }

    #[test]
    fn a_flag_of_the_aws_store_is_no_slip_on_the_embedded_one() {
        let flags = ServeArgs { seal_key: Some("alias/k".into()), ..ServeArgs::default() };
        let error = ServeSettings::resolve(&flags, &env(&[]), FileSettings::default()).err().unwrap();
        assert!(error.to_string().starts_with("--seal-key is for the AWS store"), "{error}");
        // A variable may be meant for another command.
        ServeSettings::resolve(&ServeArgs::default(), &env(&[("QUIPU_TABLE", "t")]), file("")).unwrap();
    }

    #[cfg(feature = "aws")]
    #[test]
    fn the_aws_store_is_found_in_the_same_order() {
        let toml = "store = 'aws'\ntable = 'c'\nseal_key = 'c'\nlog_key = 'c'\n";
        let set = |flags: &ServeArgs, pairs: &[(&str, &str)], toml: &str| match ServeSettings::resolve(
            flags,
            &env(pairs),
            file(toml),
        )?
        .store
        {
            StoreSettings::Aws { config, operator_dir, .. } => {
                let log_key = config.log_key.unwrap_or_default();
                anyhow::Ok((config.table, config.seal_key, log_key, operator_dir))
            }
            StoreSettings::Embedded(_) => panic!("it names the AWS store"),
        };
        let texts = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned(), None);
        let bare = ServeArgs::default();
        assert_eq!(set(&bare, &[], toml).unwrap(), texts("c", "c", "c"));
        let variables = [("QUIPU_TABLE", "b"), ("QUIPU_SEAL_KEY", "b")];
        assert_eq!(set(&bare, &variables, toml).unwrap(), texts("b", "b", "c"));
        let flags = ServeArgs { table: Some("a".into()), ..ServeArgs::default() };
        assert_eq!(set(&flags, &variables, toml).unwrap(), texts("a", "b", "c"));
        let dir = set(&bare, &[("QUIPU_DATA", "d")], toml).unwrap().3;
        assert_eq!(dir.as_deref(), Some(Path::new("d")), "only where one is named");
        let error = set(&bare, &[], "store = 'aws'\ntable = 't'\n").unwrap_err();
        let hint = error.downcast_ref::<crate::failure::Hinted>();
        assert!(error.to_string().starts_with("the AWS store needs QUIPU_SEAL_KEY"), "{error}");
        assert!(format!("{hint:?}").contains("--seal-key, or seal_key in quipu.toml"), "{hint:?}");
    }

    #[cfg(feature = "aws")]
    #[test]
    fn a_server_on_aws_archives_where_it_may_stage() {
        let toml = "store = 'aws'\ntable = 't'\nseal_key = 's'\narchive_bucket = 'a'\n";
        let archiver = |pairs: &[(&str, &str)], more: &str| {
            let file = file(&format!("{toml}{more}"));
            match ServeSettings::resolve(&ServeArgs::default(), &env(pairs), file)?.store {
                StoreSettings::Aws { archiver, .. } => anyhow::Ok(archiver),
                StoreSettings::Embedded(_) => panic!("it names the AWS store"),
            }
        };
        assert_eq!(archiver(&[], "log_key = 'l'").unwrap(), None, "it reads the archive");
        let staged = [("QUIPU_STAGING_BUCKET", "b")];
        let found = archiver(&staged, "log_key = 'l'\nlock_days = '30'").unwrap().unwrap();
        assert_eq!((&*found.archive_bucket, &*found.staging_bucket), ("a", "b"));
        assert_eq!(found.lock.map(|lock| lock.days), Some(30));
        let keyless = archiver(&staged, "").unwrap_err().to_string();
        assert!(keyless.starts_with("the AWS store needs QUIPU_LOG_KEY"), "{keyless}");
        let placeless = [staged[0], ("QUIPU_ARCHIVE_BUCKET", "")];
        let bare = "store = 'aws'\ntable = 't'\nseal_key = 's'\nlog_key = 'l'\n";
        let error =
            ServeSettings::resolve(&ServeArgs::default(), &env(&placeless), file(bare)).err().unwrap();
        assert!(error.to_string().starts_with("the AWS store needs QUIPU_ARCHIVE_BUCKET"), "{error}");
    }

    #[test]
    fn an_unknown_setting_is_refused_with_its_line() {
        let error = FileSettings::parse("data = 'x'\n\nlisen = 'y'\n", Path::new("quipu.toml")).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("quipu.toml:3: ") && text.contains("lisen"), "{text}");
    }

    #[test]
    fn a_url_goes_before_a_directory_of_the_same_level() {
        let none = ConnectArgs::default();
        let place = |flags: &ConnectArgs, pairs: &[(&str, &str)], toml: &str| {
            ConnectSettings::resolve(flags, &env(pairs), file(toml)).place
        };
        assert_eq!(place(&none, &[], ""), Place::Default);
        assert_eq!(place(&none, &[], "data = 'd'"), Place::Data("d".into()));
        let both = [("QUIPU_URL", "http://u"), ("QUIPU_DATA", "e")];
        assert_eq!(place(&none, &both, "data = 'd'"), Place::Url("http://u".into()));
        let flag = ConnectArgs { data: Some("f".into()), ..ConnectArgs::default() };
        assert_eq!(place(&flag, &both, ""), Place::Data("f".into()));
    }
}
