//! How far the log of each tenant has come, for the rotation of a log key on AWS: the sizes that a rotation says. (On a
//! data directory [`crate::store::embedded::DataDir`] says it, without a store.)

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::ids::TenantId;
use crate::log::keys::{KeyChain, KeyError};
use crate::log::{LogError, LogReader, paths};
use crate::objects::{ObjectError, ObjectStore};
use crate::store::{Store, StoreError};

/// Why a log key is not replaced yet.
#[derive(Debug, thiserror::Error)]
pub enum UnsettledError {
    /// The store.
    #[error("the store: {0}")]
    Store(#[from] StoreError),
    /// The archive.
    #[error("the archive: {0}")]
    Log(#[from] LogError),
    /// A checkpoint that no key of the deployment signed.
    #[error("the checkpoint of {tenant}: {error}")]
    Checkpoint {
        /// Whose.
        tenant: TenantId,
        /// What is wrong with it.
        error: KeyError,
    },
    /// A batch has a header and is not recorded: only the present key can finish it.
    #[error("batch {batch} of the log of {tenant} is not finished")]
    Unfinished {
        /// Whose log.
        tenant: TenantId,
        /// The batch.
        batch: u64,
    },
    /// Store and archive differ: a new key would be said to hold for trees that the old one signed.
    #[error("the archive does not hold the log of {tenant} as the store knows it: {why}")]
    Differs {
        /// Whose log.
        tenant: TenantId,
        /// What differs.
        why: String,
    },
}

impl From<ObjectError> for UnsettledError {
    fn from(error: ObjectError) -> Self {
        Self::Log(error.into())
    }
}

/// The size of each log there is, sorted by tenant. The ledger must be closed: then no batch that is not found here is
/// signed by the present key any more (an archiver looks whether it is closed after its claim and before it signs).
///
/// # Errors
/// See [`UnsettledError`].
pub async fn settled_sizes(
    store: &dyn Store,
    objects: &Arc<dyn ObjectStore>,
    chain: &KeyChain,
) -> Result<Vec<(TenantId, u64)>, UnsettledError> {
    let known = store.tenants().await?.into_iter().map(|record| record.tenant);
    let mut tenants: BTreeSet<TenantId> = known.collect();
    tenants.extend(with_log(objects.as_ref()).await?);
    let mut sizes = Vec::new();
    for tenant in tenants {
        let log = LogReader::new(objects.clone(), tenant.clone());
        let last = store.last_batch(&tenant).await?;
        let batch = last.as_ref().map_or(0, |last| last.batch);
        if last.as_ref().is_some_and(|last| !last.recorded) {
            return Err(UnsettledError::Unfinished { tenant, batch });
        }
        if log.header(batch + 1).await?.is_some() {
            return Err(UnsettledError::Unfinished { tenant, batch: batch + 1 });
        }
        let size = match log.checkpoint().await? {
            None => 0,
            Some((note, _)) => match chain.open_checkpoint(&tenant, &note) {
                Ok(checkpoint) => checkpoint.tree_size,
                Err(error) => return Err(UnsettledError::Checkpoint { tenant, error }),
            },
        };
        let expected = last.as_ref().map_or(0, |last| last.tree_size());
        if size != expected {
            let why = format!("its newest checkpoint is of {size} leaves, the store knows of {expected}");
            return Err(UnsettledError::Differs { tenant, why });
        }
        if size > 0 {
            sizes.push((tenant, size));
        }
    }
    Ok(sizes)
}

/// The tenants that anything lies under in `log/`.
async fn with_log(objects: &dyn ObjectStore) -> Result<Vec<TenantId>, ObjectError> {
    let mut tenants = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let listed = objects.list(paths::LOG, after.as_deref(), 1).await?;
        let Some(object) = listed.into_iter().next() else { return Ok(tenants) };
        match object.key[paths::LOG.len()..].split_once('/') {
            None => after = Some(object.key),
            Some((name, _)) => {
                // All that begins with the name and a slash is passed over: `0` comes after `/`.
                after = Some(format!("{}{name}0", paths::LOG));
                tenants.extend(TenantId::parse(name).ok());
            }
        }
    }
}
