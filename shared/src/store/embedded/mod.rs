//! The embedded store: redb, one file, one process, one thread that writes.
//!
//! Invariants:
//! - A batch and everything derived from it are written in one transaction, and answered after its fsync.
//! - Batches take effect in the order in which [`Store::commit`] was called.
//! - What is stored is never trusted: bytes that cannot be what was written are [`StoreError::Corrupt`], not a
//!   panic.
//!
//! It is strongly consistent throughout: the feed, the time index, open segments and the records of sessions and agents
//! do not lag.
//!
//! What has expired is not seen from a minute before its time on ([`limits::EXPIRY_MARGIN_MS`]), by the store's clock;
//! [`Store::expire`] deletes it, by the clock of its caller. Sessions and agents stay.

mod apply;
mod archive;
mod archived_logs;
mod bodies;
mod check;
mod data_dir;
mod derived;
mod erase;
mod inspect;
mod key_files;
mod overlay;
mod reads;
mod records;
mod rotation;
mod scrub;
mod tables;
#[cfg(test)]
mod tests;
mod time_index;
mod tokens;
mod upgrade;
mod writer;

pub use archived_logs::ArchivedLog;
pub use check::Misfit;
pub use data_dir::{DataDir, DataDirError, RotationError};
pub use inspect::{InspectTable, Inspector, RawRow, RawRows, Sessions, StoredSegment};
pub use tables::Archived;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use redb::Database;

use self::archive::{Archive, Mark};
use self::bodies::BodyLog;
use self::erase::{Erase, Replacement};
use self::scrub::Readers;
use self::tables::{Snapshot, fail, guarded};
use self::tokens::Admin;
use self::writer::{ScrubStep, Work, Writer};
use super::{
    AgentRecord, BatchRecord, Commit, ErasureRecord, FeedEntry, FeedPosition, Idempotency, OpenEntry, Order,
    Pointer, SessionRecord, Store, StoreError, StoredBody, TenantRecord, TimePage,
};
use crate::auth::TokenRecord;
use crate::clock::{Clock, SystemClock};
use crate::ids::{AgentId, CommitId, EventId, Seq, SessionId, TenantId};
use crate::limits;
use crate::segment::{Head, SegmentMeta};
use crate::time::Micros;

/// How an [`EmbeddedStore`] is opened.
#[derive(Debug, Clone, Copy)]
pub struct EmbeddedOptions {
    /// Memory for cached pages, bytes.
    pub cache_bytes: usize,
    /// Record the allocator's state with every commit, not only when idle: opens at once even after a kill under
    /// load, at the price of a second fsync in each commit. See the writer's header for the numbers.
    pub quick_repair: bool,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self { cache_bytes: 64 * 1024 * 1024, quick_repair: false }
    }
}

/// How much was written since a store was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteCounts {
    /// Batches and other writes.
    pub requests: u64,
    /// Transactions that they shared, each with an fsync.
    pub transactions: u64,
}

/// The store in one file.
pub struct EmbeddedStore {
    // Before `db`: the thread is joined first, so that closing the database happens here, when nothing uses it.
    writer: Writer,
    db: Arc<Database>,
    clock: Arc<dyn Clock>,
    path: PathBuf,
    readers: Readers,
    /// How many removals had been when free pages were last written over; `u64::MAX`: not since the store was opened.
    scrubbed_at: tokio::sync::Mutex<u64>,
}

impl std::fmt::Debug for EmbeddedStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EmbeddedStore")
    }
}

/// Opens the file, which is made if it is not there, and brings its tables into being.
fn open_database(path: &Path, cache_bytes: usize) -> Result<(Database, BodyLog), StoreError> {
    guarded(|| {
        let db = Database::builder()
            .set_cache_size(cache_bytes)
            .set_repair_callback(|repair| match repair.progress() {
                0.0 => tracing::info!("the store was not closed; checking it"),
                // See `inspect::open` for what this number means.
                0.2..0.4 => tracing::warn!("the store's last commit was incomplete and was taken back"),
                _ => {}
            })
            .create(path)
            .map_err(fail)?;
        tables::prepare(&db)?;
        let log = BodyLog::open(&Snapshot::new(&db)?.bodies()?)?;
        Ok((db, log))
    })
}

/// Notes in a database that the ledger is closed.
fn close_database(db: &Database, since: Option<Micros>) -> Result<(), StoreError> {
    guarded(|| {
        let txn = db.begin_write().map_err(fail)?;
        tables::set_closed(&txn, since)?;
        txn.commit().map_err(fail)
    })
}

impl EmbeddedStore {
    /// Opens a store, or makes one where there is no file.
    ///
    /// # Errors
    /// `Unavailable` if the file cannot be opened or is open elsewhere; `Corrupt` if it is not a store.
    pub fn open(path: &Path, options: &EmbeddedOptions) -> Result<Self, StoreError> {
        Self::with_clock(path, options, Arc::new(SystemClock))
    }

    /// As [`EmbeddedStore::open`]; what has expired is what has by this clock.
    ///
    /// # Errors
    /// As [`EmbeddedStore::open`].
    pub fn with_clock(
        path: &Path,
        options: &EmbeddedOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StoreError> {
        let (db, log) = open_database(path, options.cache_bytes)?;
        let db = Arc::new(db);
        let writer = Writer::start(Arc::clone(&db), log, options.quick_repair)
            .map_err(|e| StoreError::Unavailable { why: format!("no thread to write with: {e}") })?;
        let (path, scrubbed_at) = (path.to_owned(), tokio::sync::Mutex::new(u64::MAX));
        Ok(Self { writer, db, clock, path, readers: Readers::default(), scrubbed_at })
    }

    /// How much was written, and in how many transactions.
    pub fn write_counts(&self) -> WriteCounts {
        WriteCounts {
            requests: self.writer.counters.requests.load(Ordering::Relaxed),
            transactions: self.writer.counters.transactions.load(Ordering::Relaxed),
        }
    }

    /// Reads from one view. Reads are short (a page of a list, a few hundred microseconds at most), so they run
    /// where they are polled.
    fn read<T>(&self, work: impl FnOnce(&Snapshot) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let _reader = self.readers.begin();
        guarded(|| work(&Snapshot::at(&self.db, self.clock.now())?))
    }

    async fn administer(&self, admin: Admin) -> Result<(), StoreError> {
        self.writer.send(Work::Admin(admin)).await.map(drop)
    }

    async fn erase(&self, work: Erase) -> Result<(), StoreError> {
        self.writer.send(Work::Erase(work)).await.map(drop)
    }

    async fn scrub_step(&self, step: ScrubStep) -> Result<bool, StoreError> {
        Ok(self.writer.send(Work::Scrub { path: self.path.clone(), step }).await? > 0)
    }

    async fn archive(&self, work: Archive) -> Result<usize, StoreError> {
        self.writer.send(Work::Archive(Box::new(work))).await
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    fn commit(&self, commit: Arc<Commit>) -> BoxFuture<'_, Result<(), StoreError>> {
        assert!(apply::is_consistent(&commit), "a batch has some segments, no session twice, one commit id");
        let actual = commit.segments.iter().map(|segment| segment.body.len()).sum();
        if actual > limits::COMMIT_BYTES_MAX {
            let limit = limits::COMMIT_BYTES_MAX;
            return Box::pin(std::future::ready(Err(StoreError::TooLarge { limit, actual })));
        }
        let sent = self.writer.send(Work::Commit(commit));
        Box::pin(async move { sent.await.map(drop) })
    }

    fn orders_commits(&self) -> bool {
        true
    }

    async fn head(&self, tenant: &TenantId, session: &SessionId) -> Result<Option<Head>, StoreError> {
        self.read(|view| {
            reads::head(&view.table(tables::SEGMENTS)?, &view.table(tables::POINTERS)?, tenant, session)
        })
    }

    async fn commit_at(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        first: Seq,
    ) -> Result<Option<CommitId>, StoreError> {
        self.read(|view| {
            let segment = reads::segment_at(view, &view.table(tables::SEGMENTS)?, tenant, session, first)?;
            Ok(segment.map(|meta| meta.commit_id))
        })
    }

    async fn segments(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        from: Seq,
        order: Order,
        limit: usize,
    ) -> Result<Vec<SegmentMeta>, StoreError> {
        self.read(|view| reads::segments(view, tenant, session, from, order, limit))
    }

    async fn body(&self, tenant: &TenantId, session: &SessionId, first: Seq) -> Result<Bytes, StoreError> {
        self.read(|view| reads::body(view, tenant, session, first))
    }

    async fn feed(
        &self,
        tenant: &TenantId,
        after: Option<&FeedPosition>,
        limit: usize,
    ) -> Result<Vec<FeedEntry>, StoreError> {
        self.read(|view| reads::feed(view, tenant, after, limit))
    }

    async fn feed_commit(&self, tenant: &TenantId, commit: CommitId) -> Result<Vec<FeedEntry>, StoreError> {
        self.read(|view| reads::feed_commit(view, tenant, commit))
    }

    async fn by_time(
        &self,
        tenant: &TenantId,
        order: Order,
        from: Option<Micros>,
        page: Option<&[u8]>,
        limit: usize,
    ) -> Result<TimePage, StoreError> {
        self.read(|view| time_index::page(view, tenant, order, from, page, limit))
    }

    async fn session(
        &self,
        tenant: &TenantId,
        session: &SessionId,
    ) -> Result<Option<SessionRecord>, StoreError> {
        self.read(|view| reads::session(view, tenant, session))
    }

    async fn sessions(
        &self,
        tenant: &TenantId,
        agent: Option<&AgentId>,
        after: Option<&FeedPosition>,
        limit: usize,
    ) -> Result<Vec<SessionRecord>, StoreError> {
        self.read(|view| reads::sessions(view, tenant, agent, after, limit))
    }

    async fn agent(&self, tenant: &TenantId, agent: &AgentId) -> Result<Option<AgentRecord>, StoreError> {
        self.read(|view| reads::agent(view, tenant, agent))
    }

    async fn agents(
        &self,
        tenant: &TenantId,
        after: Option<&AgentId>,
        limit: usize,
    ) -> Result<Vec<AgentRecord>, StoreError> {
        self.read(|view| reads::agents(view, tenant, after, limit))
    }

    async fn idempotency(
        &self,
        tenant: &TenantId,
        key: &[u8; 32],
    ) -> Result<Option<Idempotency>, StoreError> {
        self.read(|view| reads::idempotency(view, tenant, key))
    }

    async fn create_token(&self, token: &TokenRecord, first: bool) -> Result<(), StoreError> {
        self.administer(Admin::CreateToken { token: token.clone(), first }).await
    }

    async fn bootstrapped(&self) -> Result<bool, StoreError> {
        self.read(tokens::bootstrapped)
    }

    async fn token_by_hash(&self, hash: &[u8; 32]) -> Result<Option<TokenRecord>, StoreError> {
        self.read(|view| tokens::by_hash(view, hash))
    }

    async fn tokens(&self, tenant: &TenantId) -> Result<Vec<TokenRecord>, StoreError> {
        self.read(|view| tokens::of_tenant(view, tenant))
    }

    async fn revoke_token(&self, tenant: &TenantId, id: &str, at: Micros) -> Result<(), StoreError> {
        self.administer(Admin::RevokeToken { tenant: tenant.clone(), id: id.to_owned(), at }).await
    }

    async fn touch_token(&self, hash: &[u8; 32], at: Micros) -> Result<(), StoreError> {
        self.administer(Admin::TouchToken { hash: *hash, at }).await
    }

    async fn create_tenant(&self, tenant: &TenantRecord) -> Result<(), StoreError> {
        self.administer(Admin::CreateTenant(tenant.clone())).await
    }

    async fn tenant(&self, tenant: &TenantId) -> Result<Option<TenantRecord>, StoreError> {
        self.read(|view| tokens::tenant(view, tenant))
    }

    async fn tenants(&self) -> Result<Vec<TenantRecord>, StoreError> {
        self.read(tokens::tenants)
    }

    async fn open_segments(
        &self,
        tenant: &TenantId,
        after: Option<&FeedPosition>,
        limit: usize,
    ) -> Result<Vec<OpenEntry>, StoreError> {
        self.read(|view| reads::open_segments(view, tenant, after, limit))
    }

    async fn pointer(&self, tenant: &TenantId, session: &SessionId) -> Result<Option<Pointer>, StoreError> {
        self.read(|view| reads::pointer(&view.table(tables::POINTERS)?, tenant, session))
    }

    async fn advance_pointer(&self, tenant: &TenantId, pointer: &Pointer) -> Result<(), StoreError> {
        let (tenant, pointer) = (tenant.clone(), pointer.clone());
        self.archive(Archive::Advance { tenant, pointer }).await.map(drop)
    }

    async fn mark_archived(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        meta: &SegmentMeta,
        batch: u64,
        expires_at: Option<Micros>,
    ) -> Result<(), StoreError> {
        let (tenant, session, meta) = (tenant.clone(), session.clone(), meta.clone());
        let archived = Archived { batch, expires_at };
        self.archive(Archive::Mark(Mark { tenant, session, meta, archived })).await.map(drop)
    }

    async fn mark_broken(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        first: Seq,
        at: Micros,
    ) -> Result<bool, StoreError> {
        let (tenant, session) = (tenant.clone(), session.clone());
        Ok(self.archive(Archive::Broken { tenant, session, first, at }).await? > 0)
    }

    async fn put_batch(&self, tenant: &TenantId, batch: &BatchRecord) -> Result<(), StoreError> {
        let (tenant, batch) = (tenant.clone(), batch.clone());
        self.archive(Archive::PutBatch { tenant, batch }).await.map(drop)
    }

    async fn mark_recorded(&self, tenant: &TenantId, batch: u64) -> Result<(), StoreError> {
        self.archive(Archive::Recorded { tenant: tenant.clone(), batch }).await.map(drop)
    }

    async fn mark_cold(&self, tenant: &TenantId, batch: u64) -> Result<(), StoreError> {
        self.archive(Archive::Cold { tenant: tenant.clone(), batch }).await.map(drop)
    }

    async fn last_batch(&self, tenant: &TenantId) -> Result<Option<BatchRecord>, StoreError> {
        self.read(|view| reads::last_batch(view, tenant))
    }

    async fn batches(
        &self,
        tenant: &TenantId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<BatchRecord>, StoreError> {
        self.read(|view| reads::batches(view, tenant, after, limit))
    }

    async fn closed(&self) -> Result<Option<Micros>, StoreError> {
        self.read(tables::closed)
    }

    async fn set_closed(&self, since: Option<Micros>) -> Result<(), StoreError> {
        self.archive(Archive::Close { since }).await.map(drop)
    }

    fn keeps_backups(&self) -> bool {
        false
    }

    async fn put_erasure(&self, tenant: &TenantId, erasure: &ErasureRecord) -> Result<(), StoreError> {
        self.erase(Erase::Put { tenant: tenant.clone(), record: Box::new(erasure.clone()) }).await
    }

    async fn erasure(&self, tenant: &TenantId, event: EventId) -> Result<Option<ErasureRecord>, StoreError> {
        self.read(|view| erase::erasure(view, tenant, event))
    }

    async fn update_erasure(
        &self,
        tenant: &TenantId,
        before: &ErasureRecord,
        after: &ErasureRecord,
    ) -> Result<(), StoreError> {
        let (before, after) = (Box::new(before.clone()), Box::new(after.clone()));
        self.erase(Erase::Update { tenant: tenant.clone(), before, after }).await
    }

    async fn erasures(
        &self,
        tenant: &TenantId,
        done: bool,
        after: Option<EventId>,
        limit: usize,
    ) -> Result<Vec<ErasureRecord>, StoreError> {
        self.read(|view| erase::erasures(view, tenant, done, after, limit))
    }

    async fn stored_body(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        first: Seq,
    ) -> Result<Option<StoredBody>, StoreError> {
        self.read(|view| erase::stored_body(view, tenant, session, first))
    }

    async fn replace_body(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        before: &StoredBody,
        meta: &SegmentMeta,
        body: Bytes,
    ) -> Result<(), StoreError> {
        if body.len() > limits::COMMIT_BYTES_MAX {
            return Err(StoreError::TooLarge { limit: limits::COMMIT_BYTES_MAX, actual: body.len() });
        }
        let (tenant, session, revision) = (tenant.clone(), session.clone(), before.revision);
        let (before, meta) = (before.meta.clone(), meta.clone());
        let replacement = Replacement { tenant, session, revision, before, meta, body };
        self.erase(Erase::Body(Box::new(replacement))).await
    }

    async fn replace_pointer(
        &self,
        tenant: &TenantId,
        before: &Pointer,
        after: &Pointer,
    ) -> Result<(), StoreError> {
        let (before, after) = (Box::new(before.clone()), Box::new(after.clone()));
        self.erase(Erase::Pointer { tenant: tenant.clone(), before, after }).await
    }

    async fn resize_batch(
        &self,
        tenant: &TenantId,
        batch: u64,
        revision: u64,
        bytes: u64,
    ) -> Result<(), StoreError> {
        self.erase(Erase::Resize { tenant: tenant.clone(), batch, revision, bytes }).await
    }

    /// All free pages, wherever the place is, unless nothing was taken away since the last time.
    async fn scrub(&self, _: &TenantId, _: &SessionId, _: Seq) -> Result<(), StoreError> {
        let mut scrubbed_at = self.scrubbed_at.lock().await;
        let removals = self.writer.counters.removals.load(Ordering::SeqCst);
        if *scrubbed_at == removals {
            return Ok(());
        }
        self.readers.older_are_gone().await;
        self.scrub_step(ScrubStep::Settle).await?;
        while !self.scrub_step(ScrubStep::Fill).await? {}
        self.scrub_step(ScrubStep::Settle).await?;
        *scrubbed_at = removals;
        Ok(())
    }

    async fn expire(&self, now: Micros, limit: usize) -> Result<usize, StoreError> {
        self.archive(Archive::Expire { now, limit }).await
    }
}
