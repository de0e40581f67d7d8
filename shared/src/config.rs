//! Settings of a function on AWS: `from_env`, then checked, then opened. Opening calls nothing.
//!
//! The one-process server has flags and a file as well; see `cli/src/settings.rs`.

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
        Ok(Self { table, seal_key, log_key: find("QUIPU_LOG_KEY"), bootstrap_secret })
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
        let store = crate::store::dynamo::DynamoStore::new(connection, &self.table);
        let mut identity = crate::aws::KmsIdentity::new(connection, store.clone(), &self.seal_key);
        if let Some(log_key) = &self.log_key {
            identity = identity.or_make(log_key, clock.clone());
        }
        crate::ledger::Ledger::with_source(std::sync::Arc::new(store), clock, std::sync::Arc::new(identity))
    }

    /// What a function's handlers are given: no token, no request.
    ///
    /// # Errors
    /// If region or credentials are missing.
    pub fn open(self) -> Result<crate::http::SharedApp, ConfigError> {
        use std::sync::Arc;

        let connection = crate::aws::Connection::from_env()?;
        let clock = Arc::new(crate::clock::SystemClock);
        let ledger = Arc::new(self.ledger(&connection, clock.clone()));
        let gate = crate::auth::Gate::new(ledger.store().clone(), clock, crate::auth::AuthMode::Required);
        // Never without one: a secret that nobody knows, where none is set.
        let nobodys = || crate::ids::hex(&crate::random::bytes::<32>());
        let bootstrap_secret = Some(self.bootstrap_secret.unwrap_or_else(nobodys));
        Ok(Arc::new(crate::http::App { ledger, gate, bootstrap_secret }))
    }
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
}
