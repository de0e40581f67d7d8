//! The DynamoDB store: one table, two sparse indexes, and no coordination but the table's own conditions.
//!
//! Invariants:
//! - **The conditional put of the commit item is the commit.** Its key is the session and the first sequence, and one
//!   key is taken once; a writer starts at some committed end + 1. The condition is that the slot is free and no more:
//!   what the segment is chained on is the writer's care ([`Store::commit`] says so), since a condition cannot look at
//!   a neighbouring item.
//! - One session is one `PutItem`. Several items are one `TransactWriteItems`, whose token is the commit's id.
//! - The head is the higher of the pointer and the last segment: expiry has no order.
//! - A segment is archived by its pointer first and marked afterwards, its parts before its commit item.
//! - A write that may have been applied is never repeated here; a refused one is, until the deadline.
//!
//! Sessions, agents and the order of time are derived from the feed, whose index lags by moments: nothing is written
//! for them, so that an append stays one item (docs/adr/0007). Of what has expired the pointers tell.

mod agents;
mod catalogue;
mod closed;
mod commit;
mod erasures;
mod expiry;
mod feed;
mod idempotency;
mod identity;
mod item;
mod open;
mod pointer;
mod segments;
mod sessions;
mod table;
mod time;
mod tokens;

pub use table::{check_table, create_table, describe_table};

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::{
    AgentRecord, BatchRecord, Commit, ErasureRecord, FeedEntry, FeedPosition, Idempotency, OpenEntry, Order,
    Pointer, SessionRecord, Store, StoreError, StoredBody, TenantRecord, TimePage,
};
use crate::auth::TokenRecord;
use crate::aws::Connection;
use crate::clock::{Clock, SystemClock};
use crate::ids::{AgentId, CommitId, EventId, Seq, SessionId, TenantId};
use crate::segment::{Head, SegmentMeta};
use crate::time::Micros;

/// The store in a DynamoDB table.
#[derive(Clone)]
pub struct DynamoStore {
    client: Client,
    table: String,
    /// Says what has expired.
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for DynamoStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DynamoStore").field("table", &self.table).finish_non_exhaustive()
    }
}

impl DynamoStore {
    /// On a table, with the system's clock. Calls nothing.
    pub fn new(connection: &Connection, table: &str) -> Self {
        let clock = Arc::new(SystemClock);
        Self { client: connection.dynamodb(), table: table.to_owned(), clock }
    }

    /// With another clock to say what has expired. The table deletes by AWS's own.
    #[must_use]
    pub fn with_clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }
}

#[async_trait]
impl Store for DynamoStore {
    fn commit(&self, commit: Arc<Commit>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(commit::commit(self, commit))
    }

    fn orders_commits(&self) -> bool {
        false
    }

    async fn head(&self, tenant: &TenantId, session: &SessionId) -> Result<Option<Head>, StoreError> {
        segments::head(self, tenant, session).await
    }

    async fn commit_at(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        first: Seq,
    ) -> Result<Option<CommitId>, StoreError> {
        segments::commit_at(self, tenant, session, first).await
    }

    async fn segments(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        from: Seq,
        order: Order,
        limit: usize,
    ) -> Result<Vec<SegmentMeta>, StoreError> {
        segments::segments(self, tenant, session, from, order, limit).await
    }

    async fn body(&self, tenant: &TenantId, session: &SessionId, first: Seq) -> Result<Bytes, StoreError> {
        segments::body(self, tenant, session, first).await
    }

    async fn feed(
        &self,
        tenant: &TenantId,
        after: Option<&FeedPosition>,
        limit: usize,
    ) -> Result<Vec<FeedEntry>, StoreError> {
        feed::after(self, tenant, after, limit).await
    }

    async fn feed_commit(&self, tenant: &TenantId, commit: CommitId) -> Result<Vec<FeedEntry>, StoreError> {
        feed::of_commit(self, tenant, commit).await
    }

    async fn by_time(
        &self,
        tenant: &TenantId,
        order: Order,
        from: Option<Micros>,
        page: Option<&[u8]>,
        limit: usize,
    ) -> Result<TimePage, StoreError> {
        time::page(self, tenant, order, from, page, limit).await
    }

    async fn session(
        &self,
        tenant: &TenantId,
        session: &SessionId,
    ) -> Result<Option<SessionRecord>, StoreError> {
        sessions::one(self, tenant, session).await
    }

    async fn sessions(
        &self,
        tenant: &TenantId,
        agent: Option<&AgentId>,
        after: Option<&FeedPosition>,
        limit: usize,
    ) -> Result<Vec<SessionRecord>, StoreError> {
        sessions::list(self, tenant, agent, after, limit).await
    }

    async fn agent(&self, tenant: &TenantId, agent: &AgentId) -> Result<Option<AgentRecord>, StoreError> {
        agents::one(self, tenant, agent).await
    }

    async fn agents(
        &self,
        tenant: &TenantId,
        after: Option<&AgentId>,
        limit: usize,
    ) -> Result<Vec<AgentRecord>, StoreError> {
        agents::list(self, tenant, after, limit).await
    }

    async fn idempotency(
        &self,
        tenant: &TenantId,
        key: &[u8; 32],
    ) -> Result<Option<Idempotency>, StoreError> {
        idempotency::get(self, tenant, key).await
    }

    async fn create_token(&self, token: &TokenRecord, first: bool) -> Result<(), StoreError> {
        tokens::create(self, token, first).await
    }

    async fn bootstrapped(&self) -> Result<bool, StoreError> {
        tokens::bootstrapped(self).await
    }

    async fn token_by_hash(&self, hash: &[u8; 32]) -> Result<Option<TokenRecord>, StoreError> {
        tokens::by_hash(self, hash).await
    }

    async fn tokens(&self, tenant: &TenantId) -> Result<Vec<TokenRecord>, StoreError> {
        tokens::of_tenant(self, tenant).await
    }

    async fn revoke_token(&self, tenant: &TenantId, id: &str, at: Micros) -> Result<(), StoreError> {
        tokens::revoke(self, tenant, id, at).await
    }

    async fn touch_token(&self, hash: &[u8; 32], at: Micros) -> Result<(), StoreError> {
        tokens::touch(self, hash, at).await
    }

    async fn create_tenant(&self, tenant: &TenantRecord) -> Result<(), StoreError> {
        tokens::create_tenant(self, tenant).await
    }

    async fn tenant(&self, tenant: &TenantId) -> Result<Option<TenantRecord>, StoreError> {
        tokens::tenant(self, tenant).await
    }

    async fn tenants(&self) -> Result<Vec<TenantRecord>, StoreError> {
        tokens::tenants(self).await
    }

    async fn open_segments(
        &self,
        tenant: &TenantId,
        after: Option<&FeedPosition>,
        limit: usize,
    ) -> Result<Vec<OpenEntry>, StoreError> {
        open::after(self, tenant, after, limit).await
    }

    async fn pointer(&self, tenant: &TenantId, session: &SessionId) -> Result<Option<Pointer>, StoreError> {
        pointer::get(self, tenant, session).await
    }

    async fn advance_pointer(&self, tenant: &TenantId, pointer: &Pointer) -> Result<(), StoreError> {
        pointer::advance(self, tenant, pointer).await
    }

    async fn mark_archived(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        meta: &SegmentMeta,
        batch: u64,
        expires_at: Option<Micros>,
    ) -> Result<(), StoreError> {
        pointer::mark_archived(self, tenant, session, meta, batch, expires_at).await
    }

    async fn mark_broken(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        first: Seq,
        at: Micros,
    ) -> Result<bool, StoreError> {
        catalogue::mark_broken(self, tenant, session, first, at).await
    }

    async fn put_batch(&self, tenant: &TenantId, batch: &BatchRecord) -> Result<(), StoreError> {
        catalogue::put(self, tenant, batch).await
    }

    async fn mark_recorded(&self, tenant: &TenantId, batch: u64) -> Result<(), StoreError> {
        catalogue::mark_recorded(self, tenant, batch).await
    }

    async fn last_batch(&self, tenant: &TenantId) -> Result<Option<BatchRecord>, StoreError> {
        catalogue::last(self, tenant).await
    }

    async fn batches(
        &self,
        tenant: &TenantId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<BatchRecord>, StoreError> {
        catalogue::after(self, tenant, after, limit).await
    }

    async fn closed(&self) -> Result<Option<Micros>, StoreError> {
        closed::get(self).await
    }

    async fn set_closed(&self, since: Option<Micros>) -> Result<(), StoreError> {
        closed::set(self, since).await
    }

    /// Point-in-time recovery may be on: the template has it so.
    fn keeps_backups(&self) -> bool {
        true
    }

    async fn put_erasure(&self, tenant: &TenantId, erasure: &ErasureRecord) -> Result<(), StoreError> {
        erasures::put(self, tenant, erasure).await
    }

    async fn erasure(&self, tenant: &TenantId, event: EventId) -> Result<Option<ErasureRecord>, StoreError> {
        erasures::get(self, tenant, event).await
    }

    async fn update_erasure(
        &self,
        tenant: &TenantId,
        before: &ErasureRecord,
        after: &ErasureRecord,
    ) -> Result<(), StoreError> {
        erasures::update(self, tenant, before, after).await
    }

    async fn erasures(
        &self,
        tenant: &TenantId,
        done: bool,
        after: Option<EventId>,
        limit: usize,
    ) -> Result<Vec<ErasureRecord>, StoreError> {
        erasures::list(self, tenant, done, after, limit).await
    }

    async fn stored_body(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        first: Seq,
    ) -> Result<Option<StoredBody>, StoreError> {
        erasures::stored_body(self, tenant, session, first).await
    }

    async fn replace_body(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        before: &StoredBody,
        meta: &SegmentMeta,
        body: Bytes,
    ) -> Result<(), StoreError> {
        erasures::replace_body(self, tenant, session, before, meta, body).await
    }

    async fn replace_pointer(
        &self,
        tenant: &TenantId,
        before: &Pointer,
        after: &Pointer,
    ) -> Result<(), StoreError> {
        erasures::replace_pointer(self, tenant, before, after).await
    }

    async fn resize_batch(
        &self,
        tenant: &TenantId,
        batch: u64,
        revision: u64,
        bytes: u64,
    ) -> Result<(), StoreError> {
        erasures::resize_batch(self, tenant, batch, revision, bytes).await
    }

    async fn scrub(&self, tenant: &TenantId, session: &SessionId, sequence: Seq) -> Result<(), StoreError> {
        erasures::scrub(self, tenant, session, sequence).await
    }

    /// The table does it by itself.
    async fn expire(&self, _: Micros, _: usize) -> Result<usize, StoreError> {
        Ok(0)
    }
}
