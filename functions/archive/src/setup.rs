//! The function on AWS, put together. Calls nothing.

use std::sync::Arc;

use quipu_core::aws::Connection;
use quipu_core::config::{ArchiveConfig, ArchiverConfig, AwsConfig, ConfigError};

use crate::Worker;
use crate::queue::SqsQueue;

impl Worker {
    /// A worker as the environment says.
    ///
    /// # Errors
    /// If a variable is missing or does not fit.
    pub fn from_env() -> Result<Self, ConfigError> {
        let variable = |name: &str| std::env::var(name).ok();
        let config = AwsConfig::read(variable)?;
        let settings = ArchiveConfig::read(variable)?.settings;
        let connection = Connection::from_env()?;
        let archiver = ArchiverConfig::read(variable)?.archiver(&config, &connection, settings)?;
        let (name, why) = ("QUIPU_ARCHIVE_QUEUE", "the URL of the queue of tenants");
        let queue = variable(name).filter(|url| !url.is_empty());
        let queue = SqsQueue::new(&connection, &queue.ok_or(ConfigError::Missing { name, why })?);
        Ok(Self::new(Arc::new(archiver), Arc::new(queue)))
    }
}
