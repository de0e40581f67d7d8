//! The operations themselves: append and read. Pure of HTTP and of any one store.

mod append;
mod export;
mod heads;
mod range;
mod read;

pub use append::{AppendError, Appended, IdempotencyKey};
pub use export::Export;
pub use read::{
    Budget, EventFilter, EventPage, EventPosition, ListQuery, ReadError, ReadStats, SessionEvents,
    SessionPage, SessionQuery, SessionVerdict,
};

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use async_trait::async_trait;
use tokio::sync::OnceCell;

use crate::archive::Catalogue;
use crate::clock::Clock;
use crate::ids::TenantId;
use crate::log::identity::IdentityFile;
use crate::note::{NoteSigner, VerifierKey};
use crate::objects::ObjectStore;
use crate::store::{Conflict, Store, StoreError, TenantRecord};

/// The public half of a deployment's keys, and what signs its promises.
#[derive(Debug)]
pub struct Identity {
    /// The deployment's name.
    pub deployment: String,
    /// The root of trust: the newest log key.
    pub log_key: VerifierKey,
    /// The log keys' word for every receipt key there was, the newest last.
    pub certificates: Vec<String>,
    /// How each log key was replaced by the next, oldest first (docs/format.md, section 8).
    pub rotations: Vec<String>,
    /// Signs receipts and heads.
    pub receipt_key: NoteSigner,
}

/// Where an identity comes from that is not at hand when a process starts.
#[async_trait]
pub trait IdentitySource: Send + Sync + 'static {
    /// Fetches it.
    ///
    /// # Errors
    /// If it cannot be fetched.
    async fn identity(&self) -> Result<Identity, StoreError>;
}

/// A ledger: one store, one clock, one identity.
pub struct Ledger {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) identity: OnceCell<Identity>,
    source: Option<Arc<dyn IdentitySource>>,
    heads: heads::Heads,
    /// Its archive, for what is not hot any more.
    cold: Catalogue,
    /// When it was last seen that the ledger is open, ms since 1970; 0: not yet.
    seen_open: AtomicI64,
}

impl Ledger {
    /// A ledger on a store.
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, identity: Identity) -> Self {
        let identity = OnceCell::new_with(Some(identity));
        Self::with(store, clock, identity, None)
    }

    /// A ledger on a store, whose keys are fetched when they are first needed.
    pub fn with_source(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        source: Arc<dyn IdentitySource>,
    ) -> Self {
        Self::with(store, clock, OnceCell::new(), Some(source))
    }

    fn with(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        identity: OnceCell<Identity>,
        source: Option<Arc<dyn IdentitySource>>,
    ) -> Self {
        let (heads, cold) = (heads::Heads::default(), Catalogue::new(None));
        Self { store, clock, identity, source, heads, cold, seen_open: AtomicI64::new(0) }
    }

    /// The same with its archive, which has what is not hot any more. Without one, a read that would need it fails.
    #[must_use]
    pub fn with_archive(mut self, objects: Option<Arc<dyn ObjectStore>>) -> Self {
        self.cold = Catalogue::new(objects);
        self
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

    /// Its keys. Whoever will sign what an append did asks before the append.
    ///
    /// # Errors
    /// If they had to be fetched and could not be.
    pub async fn identity(&self) -> Result<&Identity, StoreError> {
        let fetch = async || match &self.source {
            Some(source) => source.identity().await,
            None => Err(StoreError::Unavailable { why: "this ledger has no keys".into() }),
        };
        self.identity.get_or_try_init(fetch).await
    }

    /// The public half of its keys as it is now, where they may be replaced while this process runs.
    ///
    /// # Errors
    /// If they had to be fetched and could not be.
    pub async fn present_identity(&self) -> Result<IdentityFile, StoreError> {
        let public = |identity: &Identity| IdentityFile {
            deployment: identity.deployment.clone(),
            log_key: identity.log_key.clone(),
            certificates: identity.certificates.clone(),
            rotations: identity.rotations.clone(),
        };
        match &self.source {
            Some(source) => Ok(public(&source.identity().await?)),
            None => Ok(public(self.identity().await?)),
        }
    }
}
