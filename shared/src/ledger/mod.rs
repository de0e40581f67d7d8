//! The operations themselves: append and read. Pure of HTTP and of any one store.

mod append;
mod export;
mod heads;
mod range;
mod read;

pub use append::{AppendError, Appended, IdempotencyKey};
pub use export::Export;
pub use read::{
    EventFilter, EventPage, EventPosition, ListQuery, ReadError, ReadStats, SessionEvents, SessionPage,
    SessionQuery, SessionVerdict,
};

use std::sync::Arc;

use crate::clock::Clock;
use crate::ids::TenantId;
use crate::note::{NoteSigner, VerifierKey};
use crate::store::{Conflict, Store, StoreError, TenantRecord};

/// The public half of a deployment's keys, and what signs its promises.
#[derive(Debug)]
pub struct Identity {
    /// The deployment's name.
    pub deployment: String,
    /// The root of trust.
    pub log_key: VerifierKey,
    /// The log key's word for every receipt key there was, the newest last.
    pub certificates: Vec<String>,
    /// Signs receipts and heads.
    pub receipt_key: NoteSigner,
}

/// A ledger: one store, one clock, one identity.
pub struct Ledger {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) identity: Identity,
    heads: heads::Heads,
}

impl Ledger {
    /// A ledger on a store.
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, identity: Identity) -> Self {
        Self { store, clock, identity, heads: heads::Heads::default() }
    }

    /// Writes the tenant `default` if it is not there: every ledger has one.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn ensure_default_tenant(&self) -> Result<(), StoreError> {
        let record = TenantRecord { tenant: TenantId::default_tenant(), created_at: self.clock.now() };
        match self.store.create_tenant(&record).await {
            Ok(()) | Err(StoreError::Conflict(Conflict::Exists)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The store beneath.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Its clock.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Its keys.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }
}
