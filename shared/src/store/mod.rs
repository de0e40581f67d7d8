//! The stores, at the level of the ledger: append segments, find heads, follow the feed. Not keys and values: each
//! implementation lays its keys out as `keys` says.
//!
//! Two implementations stand under one conformance suite: [`embedded`] (redb, one machine) and DynamoDB. Outcomes are
//! named ([`StoreError`]); an unknown outcome is neither success nor failure, and its caller reads before it retries.
//!
//! Guarantees that hold for every method: what a commit made durable is seen by every later [`Store::head`],
//! [`Store::commit_at`], [`Store::segments`], [`Store::body`] (strongly consistent). The feed, the time index, open
//! segments, sessions and agents may lag behind by up to [`FEED_LAG_MS_MAX`] and are hints for finding, never for deciding.

mod archived;
#[cfg(feature = "testing")]
pub mod conformance;
#[cfg(any(feature = "aws", feature = "embedded"))]
mod derived;
#[cfg(feature = "aws")]
pub mod dynamo;
#[cfg(feature = "embedded")]
pub mod embedded;
mod erasures;
#[cfg(feature = "testing")]
pub mod faulty;
pub mod keys;

pub use archived::{BatchRecord, OpenEntry, Pointer};
pub use erasures::{ErasureProgress, ErasureRecord, StoredBody};

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::auth::TokenRecord;
use crate::ids::{AgentId, CommitId, EventId, Seq, SessionId, TenantId};
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
    /// What was to be replaced is another than the one that was read.
    #[error("changed since it was read")]
    Changed,
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

impl SessionRecord {
    /// A session's record once `meta` is its last segment.
    pub fn after(before: Option<Self>, session: &SessionId, meta: &SegmentMeta) -> Self {
        match before {
            None => Self {
                session_id: session.clone(),
                first_commit: meta.commit_id,
                last_commit: meta.commit_id,
                updated_at: meta.received_at,
                head: meta.head(),
                summary: meta.summary.clone(),
            },
            Some(mut record) => {
                record.last_commit = meta.commit_id;
                record.updated_at = meta.received_at;
                record.head = meta.head();
                record.summary.merge(&meta.summary);
                record
            }
        }
    }
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

    /// The last event of a session, strongly consistent; `None` if the session is empty. What has expired was archived, so
    /// it is the higher of the last segment that is there and the pointer.
    ///
    /// # Errors
    /// `Throttled`, `Unavailable`, `Corrupt`.
    async fn head(&self, tenant: &TenantId, session: &SessionId) -> Result<Option<Head>, StoreError>;

    /// Which commit stands at this first sequence of a session, strongly consistent; `None` if nothing does, or what did has
    /// expired.
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
    /// `NotFound` if there is none, or it has expired; `Throttled`, `Unavailable`, `Corrupt`.
    async fn body(&self, tenant: &TenantId, session: &SessionId, first: Seq) -> Result<Bytes, StoreError>;

    /// Up to `limit` entries of the tenant's feed after a position, in the order of commit and session: every segment that
    /// has not expired, archived or not.
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

    /// Up to `limit` segments of a tenant that are not archived, after a position, in the order of commit and
    /// session. Says where the archiver has work; may lag as the feed does, and may name what is archived already.
    ///
    /// # Errors
    /// `Throttled`, `Unavailable`, `Corrupt`.
    async fn open_segments(
        &self,
        tenant: &TenantId,
        after: Option<&FeedPosition>,
        limit: usize,
    ) -> Result<Vec<OpenEntry>, StoreError>;

    /// How far a session is archived, strongly consistent; `None` if nothing of it is.
    ///
    /// # Errors
    /// `Throttled`, `Unavailable`, `Corrupt`.
    async fn pointer(&self, tenant: &TenantId, session: &SessionId) -> Result<Option<Pointer>, StoreError>;

    /// Moves a session's pointer, if that raises its sequence; otherwise does nothing.
    ///
    /// # Errors
    /// `Conflict(Changed)` if it would, and the pointer was scrubbed more often than the given one: what was erased must
    /// not come back. `Throttled`, `Unavailable`, `Unknown`; may be repeated after any of them.
    async fn advance_pointer(&self, tenant: &TenantId, pointer: &Pointer) -> Result<(), StoreError>;

    /// Notes that a segment is archived: its batch, when it expires (never, if `None`), and that it is open no more.
    /// Does nothing if the segment is not there any more or is another commit's; once a time is set it stays, whatever a
    /// repeated call says. An expired segment counts as absent from a minute before its time on
    /// ([`crate::limits::EXPIRY_MARGIN_MS`]), and [`Store::expire`] or the store itself deletes it some time after: only
    /// a segment at or below its session's pointer may be given a time.
    ///
    /// # Errors
    /// `Throttled`, `Unavailable`, `Unknown`; may be repeated after any of them.
    async fn mark_archived(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        meta: &SegmentMeta,
        batch: u64,
        expires_at: Option<Micros>,
    ) -> Result<(), StoreError>;

    /// Notes that a session's chain is broken at a segment. True if that was not known before.
    ///
    /// # Errors
    /// `Throttled`, `Unavailable`, `Unknown`; may be repeated after any of them.
    async fn mark_broken(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        first: Seq,
        at: Micros,
    ) -> Result<bool, StoreError>;

    /// Writes a batch into the catalogue (not recorded yet, whatever the record says), if there is none of its number.
    ///
    /// # Errors
    /// `Conflict(Exists)`; `Throttled`, `Unavailable`, `Unknown`.
    async fn put_batch(&self, tenant: &TenantId, batch: &BatchRecord) -> Result<(), StoreError>;

    /// Marks a batch recorded.
    ///
    /// # Errors
    /// `NotFound`; `Throttled`, `Unavailable`, `Unknown`; may be repeated after any of them.
    async fn mark_recorded(&self, tenant: &TenantId, batch: u64) -> Result<(), StoreError>;

    /// The catalogue's batch with the highest number, strongly consistent.
    ///
    /// # Errors
    /// `Throttled`, `Unavailable`, `Corrupt`.
    async fn last_batch(&self, tenant: &TenantId) -> Result<Option<BatchRecord>, StoreError>;

    /// Up to `limit` batches of the catalogue with numbers above `after`, lowest first, strongly consistent.
    ///
    /// # Errors
    /// `Throttled`, `Unavailable`, `Corrupt`.
    async fn batches(
        &self,
        tenant: &TenantId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<BatchRecord>, StoreError>;

    /// Since when the ledger is closed, strongly consistent; `None` if it is open. A ledger that is closed takes no
    /// events and archives nothing: its callers see to that, each of which may have looked up to
    /// [`crate::limits::OPEN_SEEN_MS`] ago.
    ///
    /// # Errors
    /// `Throttled`, `Unavailable`, `Corrupt`.
    async fn closed(&self) -> Result<Option<Micros>, StoreError>;

    /// Closes the ledger (one that is closed already stays so since it was), or opens it.
    ///
    /// # Errors
    /// `Throttled`, `Unavailable`, `Unknown`; may be repeated after any of them.
    async fn set_closed(&self, since: Option<Micros>) -> Result<(), StoreError>;

    /// True if the store keeps backups of what was there, for [`crate::limits::TABLE_BACKUP_MS`] at most.
    fn keeps_backups(&self) -> bool;

    /// Writes an erasure (one that is not done), if there is none of its event, done or not.
    ///
    /// # Errors
    /// `Conflict(Exists)`; `Throttled`, `Unavailable`, `Unknown`.
    async fn put_erasure(&self, tenant: &TenantId, erasure: &ErasureRecord) -> Result<(), StoreError>;

    /// The erasure of an event, strongly consistent.
    ///
    /// # Errors
    /// `Throttled`, `Unavailable`, `Corrupt`.
    async fn erasure(&self, tenant: &TenantId, event: EventId) -> Result<Option<ErasureRecord>, StoreError>;

    /// Replaces an erasure that is not done by what has become of it, if it is `before`. One that is done stays as it is,
    /// and whatever else is left of it is taken away.
    ///
    /// # Errors
    /// `Conflict(Changed)`; `Throttled`, `Unavailable`, `Unknown`; may be repeated after any of them.
    async fn update_erasure(
        &self,
        tenant: &TenantId,
        before: &ErasureRecord,
        after: &ErasureRecord,
    ) -> Result<(), StoreError>;

    /// Up to `limit` erasures of a tenant, those that are done or those that are not, by event id, after the one given;
    /// strongly consistent.
    ///
    /// # Errors
    /// `Throttled`, `Unavailable`, `Corrupt`.
    async fn erasures(
        &self,
        tenant: &TenantId,
        done: bool,
        after: Option<EventId>,
        limit: usize,
    ) -> Result<Vec<ErasureRecord>, StoreError>;

    /// The segment that holds this sequence as it lies there, expired or not, strongly consistent; `None` if none does.
    ///
    /// # Errors
    /// `Throttled`, `Unavailable`, `Corrupt`.
    async fn stored_body(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        sequence: Seq,
    ) -> Result<Option<StoredBody>, StoreError>;

    /// Gives a segment another body and the attributes that follow from it, in the same place, of the same commit, with
    /// what the archive knows of it; if it is `before`. Readers see the one or the other whole. What follows from
    /// segments follows from the new attributes. Of these only the length of the body and what is text of a payload may
    /// differ: an agent's name, tags.
    ///
    /// # Errors
    /// `Conflict(Changed)` if another body is there, or none; `TooLarge`, `Throttled`, `Unavailable`, `Unknown`.
    async fn replace_body(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        before: &StoredBody,
        meta: &SegmentMeta,
        body: Bytes,
    ) -> Result<(), StoreError>;

    /// Replaces a pointer by one that differs in its summary's agent name and tags, and that counts one scrubbing more;
    /// if it is `before`.
    ///
    /// # Errors
    /// `Conflict(Changed)`; `Throttled`, `Unavailable`, `Unknown`.
    async fn replace_pointer(
        &self,
        tenant: &TenantId,
        before: &Pointer,
        after: &Pointer,
    ) -> Result<(), StoreError>;

    /// Notes that the object of a batch was written anew, as the record of this revision says; does nothing if the
    /// catalogue knows of that or a later one, or has no such batch.
    ///
    /// # Errors
    /// `Throttled`, `Unavailable`, `Unknown`; may be repeated after any of them.
    async fn resize_batch(
        &self,
        tenant: &TenantId,
        batch: u64,
        revision: u64,
        bytes: u64,
    ) -> Result<(), StoreError>;

    /// Sees to it that of bodies that were replaced or have expired around this place nothing is left that the store
    /// does not show any more.
    ///
    /// # Errors
    /// `Throttled`, `Unavailable`, `Unknown`; may be repeated after any of them.
    async fn scrub(&self, tenant: &TenantId, session: &SessionId, sequence: Seq) -> Result<(), StoreError>;

    /// Deletes up to `limit` segments that expired before `now`, and says how many. A store that does it by itself
    /// does nothing here.
    ///
    /// # Errors
    /// `Unavailable`, `Unknown`, `Corrupt`; may be repeated after any of them.
    async fn expire(&self, now: Micros, limit: usize) -> Result<usize, StoreError>;
}
