//! The function on AWS, put together. Calls nothing.

use std::sync::Arc;

use quipu_core::archive::Archiver;
use quipu_core::aws::{Connection, KmsIdentity, KmsSigner};
use quipu_core::clock::SystemClock;
use quipu_core::config::{ArchiveConfig, ArchiverConfig, AwsConfig, ConfigError};
use quipu_core::objects::S3Bucket;
use quipu_core::store::dynamo::DynamoStore;

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
        let archiver = ArchiverConfig::read(variable)?;
        let settings = ArchiveConfig::read(variable)?.settings;
        let why = "the KMS key that signs the log";
        let log_key = config.log_key.clone().ok_or(ConfigError::Missing { name: "QUIPU_LOG_KEY", why })?;
        let connection = Connection::from_env()?;
        let clock = Arc::new(SystemClock);
        // Without the log key: this function uses the deployment's identity, and never makes one.
        let ledger = AwsConfig { log_key: None, ..config.clone() }.ledger(&connection, clock.clone());
        let ledger = Arc::new(ledger);
        let mut objects = S3Bucket::new(&connection, &archiver.archive_bucket);
        if let Some(lock) = archiver.lock {
            objects = objects.with_lock(lock, clock);
        }
        let staging = S3Bucket::new(&connection, &archiver.staging_bucket);
        let store = DynamoStore::new(&connection, &config.table);
        let identity = Arc::new(KmsIdentity::new(&connection, store, &config.seal_key));
        let signer = KmsSigner::new(&connection, identity, &log_key);
        let queue = Arc::new(SqsQueue::new(&connection, &archiver.queue));
        let made =
            Archiver::new(ledger.clone(), Arc::new(objects), Arc::new(staging), Arc::new(signer), settings);
        Ok(Self::new(ledger, Arc::new(made), queue))
    }
}
