//! The stores, at the level of the ledger: append segments, find heads, follow the feed. Not keys and values: each
//! implementation lays its keys out as `keys` says.
//!
//! Two implementations stand under one conformance suite: [`embedded`] (redb, one machine) and DynamoDB. Outcomes are
//! named ([`StoreError`]); an unknown outcome is neither success nor failure, and its caller reads before it retries.
//!
//! Guarantees that hold for every method: what a commit made durable is seen by every later [`Store::head`],
//! [`Store::commit_at`], [`Store::segments`], [`Store::body`] (strongly consistent). The feed, the time index, sessions
//! and agents may lag behind by up to [`FEED_LAG_MS_MAX`] and are hints for finding, never for deciding.

#[cfg(feature = "testing")]
pub mod conformance;
#[cfg(any(feature = "aws", feature = "embedded"))]
mod derived;
#[cfg(feature = "aws")]
pub mod dynamo;
#[cfg(feature = "embedded")]
pub mod embedded;
#[cfg(feature = "testing")]
pub mod faulty;
pub mod keys;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::auth::TokenRecord;
use crate::ids::{AgentId, CommitId, Seq, SessionId, TenantId};
use crate::segment::{Head, Segment, SegmentMeta};
use crate::summary::Summary;
use crate::time::Micros;

/// How far the feed and what is derived from it may lag, ms.
pub const FEED_LAG_MS_MAX: i64 = 60 * 1000;

/// How a store call ended, if not well.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// What was named is not there.
    #[error("not found")]
    NotFound,
    /// A condition failed; nothing was written.
    #[error("conflict: {0}")]
    Conflict(Conflict),
    /// The store asks for patience; nothing was written.
    #[error("throttled, retry after {retry_after:?}")]
    Throttled {
        /// How long to wait.
        retry_after: Duration,
    },
    /// More than the store takes; nothing was written.
    #[error("too large: {actual} bytes, limit {limit}")]
    TooLarge {
        /// The limit, bytes.
        limit: usize,
        /// What was given, bytes.
        actual: usize,
    },
    /// Stored bytes that cannot be what was written.
    #[error("corrupt at {key}: {why}")]
    Corrupt {
        /// Where.
        key: String,
        /// What is wrong.
        why: String,
    },
    /// The store cannot be reached or has failed before anything was written. Nothing was written.
    #[error("unavailable: {why}")]
    Unavailable {
        /// What happened, for the log; never for a client.
        why: String,
    },
    /// The outcome is not known: it may have been applied. Read before you retry.
    #[error("unknown outcome: {why}")]
    Unknown {
        /// What happened, for the log; never for a client.
        why: String,
    },
}

/// Which condition failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// Something stands where a segment of this session was to go, or it does not follow the head.
    #[error("session {0} has another head")]
    Session(SessionId),
    /// The idempotency key is taken and has not expired.
    #[error("idempotency key is taken")]
    Idempotency,
    /// The thing to create exists already (a tenant, the first token).
    #[error("exists already")]
    Exists,
}

/// One batch of one tenant: all of it is written, or nothing.
#[derive(Debug, Clone)]
pub struct Commit {
    /// Whose.
    pub tenant: TenantId,
    /// Its id; every segment bears it.
    pub id: CommitId,
    /// One for each session, no session twice, at least one.
    pub segments: Vec<Segment>,
    /// Written in the same transaction, if there is one.
    pub idempotency: Option<Idempotency>,
}

/// What an idempotency key stands for, so that its first answer can be given again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// HMAC of token, route and key.
    pub key: [u8; 32],
    /// HMAC of the body that came with it.
    pub body: [u8; 32],
    /// The commit that it made.
    pub commit_id: CommitId,
    /// Its segments: session and first sequence.
    pub segments: Vec<(SessionId, Seq)>,
    /// When it was made.
    pub created_at: Micros,
    /// From when on it counts as absent.
    pub expires_at: Micros,
}

/// A segment's place and attributes, without its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedEntry {
    /// Its session.
    pub session_id: SessionId,
    /// Its attributes; `meta.commit_id` gives its order in the feed.
    pub meta: SegmentMeta,
}

/// A place in the feed: everything up to and including it was read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FeedPosition {
    /// The commit.
    pub commit_id: CommitId,
    /// The session within it.
    pub session_id: SessionId,
}

/// Up or down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Lowest first.
    Asc,
    /// Highest first.
    Desc,
}

/// A page of segments in the order of their timestamps.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TimePage {
    /// Segments that may hold what is asked for.
    pub entries: Vec<FeedEntry>,
    /// Every event of every later page is at or below this time (descending) or at or above it (ascending). `None`
    /// says there is no later page.
    pub bound: Option<Micros>,
    /// Hand this back for the next page.
    pub next: Option<Vec<u8>>,
}

/// What is known of a session as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRecord {
    /// The session.
    pub session_id: SessionId,
    /// The commit of its first event: the order of the session list.
    pub first_commit: CommitId,
    /// The commit of its last event.
    pub last_commit: CommitId,
    /// When the last event was committed.
    pub updated_at: Micros,
    /// Its last event.
    pub head: Head,
    /// Counts over all its events.
    pub summary: Summary,
}

/// What is known of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentRecord {
    /// The agent.
    pub agent_id: AgentId,
    /// Lowest timestamp of its events.
    pub first_seen_at: Micros,
    /// Highest timestamp of its events.
    pub last_seen_at: Micros,
    /// Sessions that hold an event of it.
    pub session_count: u64,
    /// Its events. Counted where a segment names its agents (at most 32); sessions of more agents count 0 here.
    pub event_count: u64,
    /// The name that the last start of one of its sessions gave.
    pub name: Option<String>,
}

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantRecord {
    /// Its name.
    pub tenant: TenantId,
    /// When it was made.
    pub created_at: Micros,
}

/// The store of a ledger.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Writes a batch, durably, on condition that nothing stands at the first sequence of any of its segments. A store
    /// may check more of "follows its session's head" (see `conformance::HeadCheck`), but a caller must not lean on
    /// it: whoever commits starts at some committed end + 1, and so there is one line. With an idempotency key, also
    /// on condition that the key is absent or expired at the batch's own time.
    ///
    /// The call itself (not its first poll) hands the batch over where [`Store::orders_commits`] is true.
    ///
    /// # Errors
    /// `Conflict`, `Throttled`, `TooLarge`, `Unavailable`: nothing was written. `Unknown`: it may have been.
    fn commit(&self, commit: Arc<Commit>) -> BoxFuture<'_, Result<(), StoreError>>;

    /// True if batches take effect in the order in which [`Store::commit`] was called in this process, so that a
    /// writer may chain on a batch that is handed over but not yet durable.
    fn orders_commits(&self) -> bool;

    /// The last event of a session, strongly consistent; `None` if the session is empty.
    ///
    /// # Errors
    /// `Throttled`, `Unavailable`, `Corrupt`.
    async fn head(&self, tenant: &TenantId, session: &SessionId) -> Result<Option<Head>, StoreError>;

    /// Which commit stands at this first sequence of a session, strongly consistent; `None` if nothing does.
    ///
    /// # Errors
    /// `Throttled`, `Unavailable`, `Corrupt`.
    async fn commit_at(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        first: Seq,
    ) -> Result<Option<CommitId>, StoreError>;

    /// Attributes of up to `limit` segments of a session that hold a sequence at or above `from` (ascending) or at
    /// or below it (descending), in order, strongly consistent.
    ///
    /// # Errors
    /// `Throttled`, `Unavailable`, `Corrupt`.
    async fn segments(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        from: Seq,
        order: Order,
        limit: usize,
    ) -> Result<Vec<SegmentMeta>, StoreError>;

    /// The body of the segment with this first sequence.
    ///
    /// # Errors
    /// `NotFound` if there is none; `Throttled`, `Unavailable`, `Corrupt`.
    async fn body(&self, tenant: &TenantId, session: &SessionId, first: Seq) -> Result<Bytes, StoreError>;

    /// Up to `limit` entries of the tenant's feed after a position, in the order of commit and session.
    ///
    /// # Errors
    /// `Throttled`, `Unavailable`, `Corrupt`.
    async fn feed(
        &self,
        tenant: &TenantId,
        after: Option<&FeedPosition>,
        limit: usize,
    ) -> Result<Vec<FeedEntry>, StoreError>;

    /// The feed's entries of one commit (empty if it has none, or not yet).
    ///
    /// # Errors
    /// `Throttled`, `Unavailable`, `Corrupt`.
    async fn feed_commit(&self, tenant: &TenantId, commit: CommitId) -> Result<Vec<FeedEntry>, StoreError>;

    /// Segments of a tenant in the order of their events' timestamps, from `from` on (all, if `None`), a page at a
    /// time. A segment that holds events on both sides of `from` is in.
    ///
    /// # Errors
    /// `Throttled`, `Unavailable`, `Corrupt`.
    async fn by_time(
        &self,
        tenant: &TenantId,
        order: Order,
        from: Option<Micros>,
        page: Option<&[u8]>,
        limit: usize,
    ) -> Result<TimePage, StoreError>;

    /// One session.
    ///
    /// # Errors
    /// `Throttled`, `Unavailable`, `Corrupt`.
    async fn session(
        &self,
        tenant: &TenantId,
        session: &SessionId,
    ) -> Result<Option<SessionRecord>, StoreError>;

    /// Up to `limit` sessions, newest first by first commit, after the one given; with an agent, only those that
    /// hold an event of it.
    ///
    /// # Errors
    /// `Throttled`, `Unavailable`, `Corrupt`.
    async fn sessions(
        &self,
        tenant: &TenantId,
        agent: Option<&AgentId>,
        after: Option<&FeedPosition>,
        limit: usize,
    ) -> Result<Vec<SessionRecord>, StoreError>;

    /// One agent.
    ///
    /// # Errors
    /// `Throttled`, `Unavailable`, `Corrupt`.
    async fn agent(&self, tenant: &TenantId, agent: &AgentId) -> Result<Option<AgentRecord>, StoreError>;

    /// Up to `limit` agents by id, after the one given.
    ///
    /// # Errors
    /// `Throttled`, `Unavailable`, `Corrupt`.
    async fn agents(
        &self,
        tenant: &TenantId,
        after: Option<&AgentId>,
        limit: usize,
    ) -> Result<Vec<AgentRecord>, StoreError>;

    /// What an idempotency key stands for, strongly consistent; expired ones too, which the caller compares.
    ///
    /// # Errors
    /// `Throttled`, `Unavailable`, `Corrupt`.
    async fn idempotency(&self, tenant: &TenantId, key: &[u8; 32])
    -> Result<Option<Idempotency>, StoreError>;

    /// Writes a token. With `first`, only if no token was ever written so before (atomically).
    ///
    /// # Errors
    /// `Conflict(Exists)` if there was a first token already; `Throttled`, `Unavailable`, `Unknown`.
    async fn create_token(&self, token: &TokenRecord, first: bool) -> Result<(), StoreError>;

    /// True once a first token was written.
    ///
    /// # Errors
    /// `Throttled`, `Unavailable`.
    async fn bootstrapped(&self) -> Result<bool, StoreError>;

    /// A token by the SHA-256 of its text.
    ///
    /// # Errors
    /// `Throttled`, `Unavailable`, `Corrupt`.
    async fn token_by_hash(&self, hash: &[u8; 32]) -> Result<Option<TokenRecord>, StoreError>;

    /// All tokens of a tenant, by id.
    ///
    /// # Errors
    /// `Throttled`, `Unavailable`, `Corrupt`.
    async fn tokens(&self, tenant: &TenantId) -> Result<Vec<TokenRecord>, StoreError>;

    /// Marks a token revoked from `at` on. Of a token that is revoked already, keeps the earlier time.
    ///
    /// # Errors
    /// `NotFound`; `Throttled`, `Unavailable`, `Unknown`.
    async fn revoke_token(&self, tenant: &TenantId, id: &str, at: Micros) -> Result<(), StoreError>;

    /// Notes when a token was last used.
    ///
    /// # Errors
    /// `NotFound`; `Throttled`, `Unavailable`, `Unknown`.
    async fn touch_token(&self, hash: &[u8; 32], at: Micros) -> Result<(), StoreError>;

    /// Writes a tenant.
    ///
    /// # Errors
    /// `Conflict(Exists)`; `Throttled`, `Unavailable`, `Unknown`.
    async fn create_tenant(&self, tenant: &TenantRecord) -> Result<(), StoreError>;

    /// One tenant.
    ///
    /// # Errors
    /// `Throttled`, `Unavailable`, `Corrupt`.
    async fn tenant(&self, tenant: &TenantId) -> Result<Option<TenantRecord>, StoreError>;

    /// All tenants, by name.
    ///
    /// # Errors
    /// `Throttled`, `Unavailable`, `Corrupt`.
    async fn tenants(&self) -> Result<Vec<TenantRecord>, StoreError>;
}
