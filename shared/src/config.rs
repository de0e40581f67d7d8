//! Settings of a function on AWS: `from_env`, then checked, then opened. Opening calls nothing.
//!
//! The one-process server has flags and a file as well; see `cli/src/settings.rs`.

use crate::limits;

/// What is wrong with the settings, in words that say how to mend it.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A variable that must be set.
    #[error("{name} is not set: {why}")]
    Missing {
        /// The variable.
        name: &'static str,
        /// What it is for.
        why: &'static str,
    },
    /// A variable with a value that does not fit.
    #[error("{name}={value} does not fit: {why}")]
    Invalid {
        /// The variable.
        name: &'static str,
        /// Its value; of a secret, not.
        value: String,
        /// What would.
        why: &'static str,
    },
}

/// Shortest bootstrap secret, characters: 16 of base64 are 96 bits.
pub const BOOTSTRAP_SECRET_MIN: usize = 16;

/// Settings of a ledger on AWS.
#[derive(Clone)]
pub struct AwsConfig {
    /// `QUIPU_TABLE`: the DynamoDB table.
    pub table: String,
    /// `QUIPU_SEAL_KEY`: id, ARN or alias of the symmetric KMS key that seals the receipt key.
    pub seal_key: String,
    /// `QUIPU_LOG_KEY`: id, ARN or alias of the Ed25519 KMS key that is the root of trust. Without it the process
    /// cannot make a deployment's identity, only use it.
    pub log_key: Option<String>,
    /// `QUIPU_BOOTSTRAP_SECRET`: who presents it may make the first token. Without it, nobody may.
    pub bootstrap_secret: Option<String>,
    /// `QUIPU_ARCHIVE_BUCKET`: the bucket of the archive. Without it, nothing is known of the logs.
    pub archive_bucket: Option<String>,
}

impl AwsConfig {
    /// Reads the environment.
    ///
    /// # Errors
    /// If a variable is missing or does not fit.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::read(|name| std::env::var(name).ok())
    }

    /// Reads variables from anywhere.
    ///
    /// # Errors
    /// If one is missing or does not fit.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let find = |name| variable(name).filter(|value| !value.is_empty());
        let need = |name, why| find(name).ok_or(ConfigError::Missing { name, why });
        let table = need("QUIPU_TABLE", "the name of the DynamoDB table")?;
        let fits = |c: char| c.is_ascii_alphanumeric() || "_.-:/".contains(c);
        if !table.chars().all(fits) {
            let why = "a table's name or ARN";
            return Err(ConfigError::Invalid { name: "QUIPU_TABLE", value: table, why });
        }
        let seal_key = need("QUIPU_SEAL_KEY", "the KMS key that seals the receipt key")?;
        let bootstrap_secret = find("QUIPU_BOOTSTRAP_SECRET");
        if bootstrap_secret.as_ref().is_some_and(|secret| secret.len() < BOOTSTRAP_SECRET_MIN) {
            let why = "at least 16 characters";
            return Err(ConfigError::Invalid { name: "QUIPU_BOOTSTRAP_SECRET", value: "…".into(), why });
        }
        let (log_key, archive_bucket) = (find("QUIPU_LOG_KEY"), find("QUIPU_ARCHIVE_BUCKET"));
        Ok(Self { table, seal_key, log_key, bootstrap_secret, archive_bucket })
    }
}

#[cfg(feature = "aws")]
impl AwsConfig {
    /// The ledger on AWS's stores. Calls nothing: a cold start waits for no more than its first request needs.
    pub fn ledger(
        &self,
        connection: &crate::aws::Connection,
        clock: std::sync::Arc<dyn crate::clock::Clock>,
    ) -> crate::ledger::Ledger {
        let store = crate::store::dynamo::DynamoStore::new(connection, &self.table).with_clock(clock.clone());
        let mut identity = crate::aws::KmsIdentity::new(connection, store.clone(), &self.seal_key);
        if let Some(log_key) = &self.log_key {
            identity = identity.or_make(log_key, clock.clone());
        }
        crate::ledger::Ledger::with_source(std::sync::Arc::new(store), clock, std::sync::Arc::new(identity))
    }

    /// The archive, for reading.
    #[cfg(feature = "s3")]
    pub fn objects(
        &self,
        connection: &crate::aws::Connection,
    ) -> Option<std::sync::Arc<dyn crate::objects::ObjectStore>> {
        let bucket = self.archive_bucket.as_ref()?;
        Some(std::sync::Arc::new(crate::objects::S3Bucket::new(connection, bucket)))
    }

    /// The archive, for reading: this build knows no S3.
    #[cfg(not(feature = "s3"))]
    pub fn objects(
        &self,
        _: &crate::aws::Connection,
    ) -> Option<std::sync::Arc<dyn crate::objects::ObjectStore>> {
        None
    }

    /// What a function's handlers are given: no token, no request.
    ///
    /// # Errors
    /// If region or credentials are missing.
    pub fn open(self) -> Result<crate::http::SharedApp, ConfigError> {
        use std::sync::Arc;

        let connection = crate::aws::Connection::from_env()?;
        let clock = Arc::new(crate::clock::SystemClock);
        let objects = self.objects(&connection);
        let ledger = Arc::new(self.ledger(&connection, clock.clone()).with_archive(objects.clone()));
        let gate = crate::auth::Gate::new(ledger.store().clone(), clock, crate::auth::AuthMode::Required);
        // Never without one: a secret that nobody knows, where none is set.
        let nobodys = || crate::ids::hex(&crate::random::bytes::<32>());
        let bootstrap_secret = Some(self.bootstrap_secret.clone().unwrap_or_else(nobodys));
        Ok(Arc::new(crate::http::App { ledger, gate, bootstrap_secret, objects }))
    }
}

/// When the archiver runs, and what it does then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchiveConfig {
    /// `QUIPU_ARCHIVE_INTERVAL`: how often to look for work, ms; `None` (`off`): only when asked. Default 60 s.
    pub interval_ms: Option<i64>,
    /// `QUIPU_ARCHIVE_MAX_AGE` (default 15 min), `QUIPU_ARCHIVE_MAX_BYTES` (default 64 MB), `QUIPU_HOT_RETENTION`
    /// (default `off`: what is archived stays hot as well).
    pub settings: crate::archive::ArchiveSettings,
}

impl ArchiveConfig {
    /// Reads variables from anywhere.
    ///
    /// # Errors
    /// If one does not fit.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let find = |name| variable(name).filter(|value: &String| !value.is_empty());
        let duration = |name, default: Option<i64>| match find(name) {
            None => Ok(default),
            Some(text) if text == "off" => Ok(None),
            Some(text) => parse_duration_ms(&text).map(Some).ok_or_else(|| {
                let why = "a whole number and a unit, such as 90s, 15m, 12h or 7d; or off";
                ConfigError::Invalid { name, value: text, why }
            }),
        };
        let mut settings = crate::archive::ArchiveSettings::default();
        let interval_ms = duration("QUIPU_ARCHIVE_INTERVAL", Some(ARCHIVE_INTERVAL_MS))?;
        // Without a greatest age, a batch closes by its size alone.
        settings.max_age_ms =
            duration("QUIPU_ARCHIVE_MAX_AGE", Some(settings.max_age_ms))?.unwrap_or(i64::MAX);
        if let Some(text) = find("QUIPU_ARCHIVE_MAX_BYTES") {
            settings.max_bytes = parse_bytes(&text).ok_or_else(|| {
                let why = "a whole number of bytes from 1 to 1GB, such as 64MB";
                ConfigError::Invalid { name: "QUIPU_ARCHIVE_MAX_BYTES", value: text, why }
            })?;
        }
        settings.hot_retention_ms = duration("QUIPU_HOT_RETENTION", None)?;
        if settings.hot_retention_ms.is_some_and(|ms| ms < limits::HOT_RETENTION_MS_MIN) {
            let value = find("QUIPU_HOT_RETENTION").unwrap_or_default();
            return Err(ConfigError::Invalid {
                name: "QUIPU_HOT_RETENTION",
                value,
                why: "at least 1d, or off",
            });
        }
        Ok(Self { interval_ms, settings })
    }
}

/// Where the archiver on AWS writes.
#[cfg(feature = "s3")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiverConfig {
    /// `QUIPU_ARCHIVE_BUCKET`: the bucket of the archive.
    pub archive_bucket: String,
    /// `QUIPU_STAGING_BUCKET`: the bucket in which batches are staged.
    pub staging_bucket: String,
    /// `QUIPU_LOCK_DAYS`: what is written is locked for so many days; without it, not at all. `QUIPU_LOCK_LOG`:
    /// `compliance` or `governance` (the default) for the log; events are locked in governance mode.
    pub lock: Option<crate::objects::Lock>,
}

#[cfg(feature = "s3")]
impl ArchiverConfig {
    /// Reads variables from anywhere.
    ///
    /// # Errors
    /// If one is missing or does not fit.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        use crate::objects::{Lock, Mode};

        let find = |name| variable(name).filter(|value: &String| !value.is_empty());
        let need = |name, why| find(name).ok_or(ConfigError::Missing { name, why });
        let log = match find("QUIPU_LOCK_LOG").as_deref() {
            None | Some("governance") => Mode::Governance,
            Some("compliance") => Mode::Compliance,
            Some(value) => {
                let (name, value) = ("QUIPU_LOCK_LOG", value.to_owned());
                return Err(ConfigError::Invalid { name, value, why: "governance or compliance" });
            }
        };
        let lock = match find("QUIPU_LOCK_DAYS") {
            None => None,
            Some(text) => {
                let days = text.parse().ok().filter(|days| (1..=36_500).contains(days));
                let why = "a whole number of days from 1 to 36500";
                let days = days.ok_or(ConfigError::Invalid { name: "QUIPU_LOCK_DAYS", value: text, why })?;
                Some(Lock { days, log, events: Mode::Governance })
            }
        };
        Ok(Self {
            archive_bucket: need("QUIPU_ARCHIVE_BUCKET", "the bucket of the archive")?,
            staging_bucket: need("QUIPU_STAGING_BUCKET", "the bucket in which batches are staged")?,
            lock,
        })
    }

    /// The archiver of a ledger on AWS, with a ledger of its own. Calls nothing.
    ///
    /// # Errors
    /// If no log key is set.
    pub fn archiver(
        &self,
        aws: &AwsConfig,
        connection: &crate::aws::Connection,
        settings: crate::archive::ArchiveSettings,
    ) -> Result<crate::archive::Archiver, ConfigError> {
        use std::sync::Arc;

        use crate::aws::{KmsIdentity, KmsSigner};
        use crate::objects::S3Bucket;

        let why = "the KMS key that signs the log";
        let log_key = aws.log_key.as_ref().ok_or(ConfigError::Missing { name: "QUIPU_LOG_KEY", why })?;
        let clock = Arc::new(crate::clock::SystemClock);
        // Without the log key: an archiver uses the deployment's identity, and never makes one.
        let ledger = AwsConfig { log_key: None, ..aws.clone() }.ledger(connection, clock.clone());
        let mut objects = S3Bucket::new(connection, &self.archive_bucket);
        if let Some(lock) = self.lock {
            objects = objects.with_lock(lock, clock);
        }
        let staging = S3Bucket::new(connection, &self.staging_bucket);
        let store = crate::store::dynamo::DynamoStore::new(connection, &aws.table);
        let identity = Arc::new(KmsIdentity::new(connection, store, &aws.seal_key));
        let signer = Arc::new(KmsSigner::new(connection, identity, log_key));
        let (objects, staging) = (Arc::new(objects), Arc::new(staging));
        Ok(crate::archive::Archiver::new(Arc::new(ledger), objects, staging, signer, settings))
    }
}

/// How often the archiver looks for work, ms: a minute.
const ARCHIVE_INTERVAL_MS: i64 = 60 * 1000;

/// `90s`, `15m`, `12h`, `7d` in ms; at least a second, at most a hundred years.
fn parse_duration_ms(text: &str) -> Option<i64> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let unit_ms = match unit {
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        "d" => 24 * 60 * 60 * 1000,
        _ => return None,
    };
    let number = number.bytes().all(|b| b.is_ascii_digit()).then(|| number.parse::<i64>().ok()).flatten()?;
    number.checked_mul(unit_ms).filter(|ms| (1000..=100 * 366 * 24 * 60 * 60 * 1000).contains(ms))
}

/// `64MB`, `500kB` or bytes; at least 1, at most 1 GB: a batch is made in memory.
fn parse_bytes(text: &str) -> Option<u64> {
    let units = [("kB", 1000), ("MB", 1_000_000), ("GB", 1_000_000_000)];
    let (number, unit) = units
        .iter()
        .find_map(|(name, unit)| text.strip_suffix(name).map(|number| (number, *unit)))
        .unwrap_or((text, 1));
    let number = number.bytes().all(|b| b.is_ascii_digit()).then(|| number.parse::<u64>().ok()).flatten()?;
    number.checked_mul(unit).filter(|bytes| (1..=1_000_000_000).contains(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(set: &[(&str, &str)]) -> Result<AwsConfig, String> {
        let find = |name: &str| set.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        AwsConfig::read(find).map_err(|e| e.to_string())
    }

    #[test]
    fn what_is_missing_is_named_with_what_it_is_for() {
        assert!(read(&[]).err().unwrap().starts_with("QUIPU_TABLE is not set: the name"));
        assert!(read(&[("QUIPU_TABLE", "t")]).err().unwrap().starts_with("QUIPU_SEAL_KEY is not set"));
        let config = read(&[("QUIPU_TABLE", "t"), ("QUIPU_SEAL_KEY", "alias/k")]).unwrap();
        assert_eq!((config.log_key, config.bootstrap_secret), (None, None));
    }

    #[test]
    fn a_short_secret_is_refused_and_not_shown() {
        let set = [("QUIPU_TABLE", "t"), ("QUIPU_SEAL_KEY", "k"), ("QUIPU_BOOTSTRAP_SECRET", "sesame")];
        let why = read(&set).err().unwrap();
        assert!(why.contains("at least 16 characters") && !why.contains("sesame"), "{why}");
        assert!(read(&[("QUIPU_TABLE", "a b"), ("QUIPU_SEAL_KEY", "k")]).is_err());
    }

    #[test]
    fn the_archive_has_durations_and_sizes_with_units() {
        let read = |set: &[(&str, &str)]| {
            let find =
                |name: &str| set.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
            ArchiveConfig::read(find).map_err(|e| e.to_string())
        };
        let default = read(&[]).unwrap();
        assert_eq!((default.interval_ms, default.settings.max_age_ms), (Some(60_000), 900_000));
        assert_eq!((default.settings.max_bytes, default.settings.hot_retention_ms), (64_000_000, None));
        let set = [
            ("QUIPU_ARCHIVE_INTERVAL", "off"),
            ("QUIPU_ARCHIVE_MAX_AGE", "2h"),
            ("QUIPU_ARCHIVE_MAX_BYTES", "500kB"),
            ("QUIPU_HOT_RETENTION", "7d"),
        ];
        let config = read(&set).unwrap();
        assert_eq!((config.interval_ms, config.settings.max_age_ms), (None, 7_200_000));
        let kept = Some(7 * 24 * 60 * 60 * 1000);
        assert_eq!((config.settings.max_bytes, config.settings.hot_retention_ms), (500_000, kept));
        for (name, value) in [
            ("QUIPU_ARCHIVE_INTERVAL", "60"),
            ("QUIPU_ARCHIVE_INTERVAL", "+6s"),
            ("QUIPU_ARCHIVE_MAX_AGE", "é"),
            ("QUIPU_ARCHIVE_MAX_BYTES", "2GB"),
            ("QUIPU_HOT_RETENTION", "2h"),
        ] {
            let why = read(&[(name, value)]).unwrap_err();
            assert!(why.starts_with(&format!("{name}={value} does not fit")), "{why}");
        }
    }
}
