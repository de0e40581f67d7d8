//! Settings of a function on AWS: one struct for each concern, `from_env`, then checked.
//!
//! The one-process server has flags and a file as well; see `cli/src/settings.rs`.

use std::path::PathBuf;

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
        /// Its value.
        value: String,
        /// What would.
        why: &'static str,
    },
    /// The store could not be opened.
    #[error("the store could not be opened: {0}")]
    Store(String),
}

/// Settings of a function that serves HTTP.
#[derive(Debug, Clone)]
pub struct AppConfig {
    /// `QUIPU_DATA`: a data directory that the function shares with nobody (a mounted file system).
    pub data: PathBuf,
    /// `QUIPU_BOOTSTRAP_SECRET`: who presents it may make the first token.
    pub bootstrap_secret: String,
}

impl AppConfig {
    /// Reads the environment.
    ///
    /// # Errors
    /// If a variable is missing or does not fit.
    pub fn from_env() -> Result<Self, ConfigError> {
        let read = |name: &'static str, why: &'static str| {
            std::env::var(name)
                .ok()
                .filter(|value| !value.is_empty())
                .ok_or(ConfigError::Missing { name, why })
        };
        let data =
            read("QUIPU_DATA", "the data directory, on a file system mounted into the function")?.into();
        let bootstrap_secret = read("QUIPU_BOOTSTRAP_SECRET", "the secret that makes the first token")?;
        if bootstrap_secret.len() < 16 {
            return Err(ConfigError::Invalid {
                name: "QUIPU_BOOTSTRAP_SECRET",
                value: "…".into(),
                why: "at least 16 characters",
            });
        }
        Ok(Self { data, bootstrap_secret })
    }

    /// Opens the store: no token, no request.
    ///
    /// # Errors
    /// If the store cannot be opened.
    #[cfg(feature = "embedded")]
    pub fn open(self) -> Result<crate::http::SharedApp, ConfigError> {
        use std::sync::Arc;

        use crate::auth::{AuthMode, Gate};
        use crate::clock::{Clock as _, SystemClock};
        use crate::http::App;
        use crate::ledger::Ledger;
        use crate::store::embedded::{DataDir, EmbeddedOptions, EmbeddedStore};
        let clock = Arc::new(SystemClock);
        let fail = |e: &dyn std::fmt::Display| ConfigError::Store(e.to_string());
        let dir = DataDir::create_or_open(&self.data, clock.now()).map_err(|e| fail(&e))?;
        let store =
            EmbeddedStore::open(&dir.ledger_path(), &EmbeddedOptions::default()).map_err(|e| fail(&e))?;
        let identity = dir.identity().map_err(|e| fail(&e))?;
        let store = Arc::new(store);
        // The lock lives as long as the process.
        std::mem::forget(dir);
        let gate = Gate::new(store.clone(), clock.clone(), AuthMode::Required);
        let ledger = Arc::new(Ledger::new(store, clock, identity));
        Ok(Arc::new(App { ledger, gate, bootstrap_secret: Some(self.bootstrap_secret) }))
    }
}
