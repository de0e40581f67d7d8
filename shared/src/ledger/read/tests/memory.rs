//! A store in memory that keeps every promise of [`Store`] in the least convenient way: pages are smaller than asked
//! for, within a page nothing is in order, bounds are loose. And it can lose and spoil what it holds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::auth::TokenRecord;
use crate::ids::{AgentId, CommitId, EventId, Seq, SessionId, TenantId};
use crate::segment::{Head, SegmentMeta};
use crate::store::{
    AgentRecord, BatchRecord, Commit, ErasureRecord, FeedEntry, FeedPosition, Idempotency, OpenEntry, Order,
    Pointer, SessionRecord, Store, StoreError, StoredBody, TenantRecord, TimePage,
};
use crate::time::Micros;

type Key = (SessionId, Seq);

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) metas: BTreeMap<Key, SegmentMeta>,
    pub(super) bodies: BTreeMap<Key, Bytes>,
    pub(super) sessions: BTreeMap<SessionId, SessionRecord>,
    /// Commits that the feed does not show yet.
    pub(super) hidden: BTreeSet<CommitId>,
    /// Segments that indexes still name but that have expired.
    pub(super) expired: BTreeSet<Key>,
}

/// The store. One tenant is enough here.
#[derive(Debug)]
pub(super) struct MemoryStore {
    pub(super) state: Mutex<State>,
    pub(super) bodies_read: AtomicU64,
    page_max: usize,
}

impl MemoryStore {
    pub(super) fn new(page_max: usize) -> Self {
        Self { state: Mutex::default(), bodies_read: AtomicU64::new(0), page_max }
    }

    fn segments_of(&self, session: &SessionId) -> Vec<SegmentMeta> {
        let state = self.state.lock().unwrap();
        let all = state.metas.iter().filter(|(key, _)| key.0 == *session && !state.expired.contains(*key));
        all.map(|(_, meta)| meta.clone()).collect()
    }
}

fn unavailable<T>() -> Result<T, StoreError> {
    Err(StoreError::Unavailable { why: "not for this test".to_owned() })
}

#[async_trait]
impl Store for MemoryStore {
    fn commit(&self, commit: Arc<Commit>) -> BoxFuture<'_, Result<(), StoreError>> {
        let mut state = self.state.lock().unwrap();
        for segment in &commit.segments {
            let (session_id, meta) = (segment.session_id.clone(), segment.meta.clone());
            let fresh = || SessionRecord {
                session_id: session_id.clone(),
                first_commit: meta.commit_id,
                last_commit: meta.commit_id,
                updated_at: meta.received_at,
                head: meta.head(),
                summary: meta.summary.clone(),
            };
            let record = state.sessions.entry(session_id.clone());
            record
                .and_modify(|record| {
                    record.last_commit = meta.commit_id;
                    record.updated_at = meta.received_at;
                    record.head = meta.head();
                    record.summary.merge(&meta.summary);
                })
                .or_insert_with(fresh);
            state.bodies.insert((session_id.clone(), meta.first), segment.body.clone());
            let taken = state.metas.insert((session_id, meta.first), meta);
            assert!(taken.is_none(), "tests write in order");
        }
        Box::pin(async { Ok(()) })
    }

    fn orders_commits(&self) -> bool {
        true
    }

    async fn head(&self, _: &TenantId, session: &SessionId) -> Result<Option<Head>, StoreError> {
        Ok(self.segments_of(session).last().map(SegmentMeta::head))
    }

    async fn commit_at(
        &self,
        _: &TenantId,
        session: &SessionId,
        first: Seq,
    ) -> Result<Option<CommitId>, StoreError> {
        Ok(self.segments_of(session).iter().find(|meta| meta.first == first).map(|meta| meta.commit_id))
    }

    async fn segments(
        &self,
        _: &TenantId,
        session: &SessionId,
        from: Seq,
        order: Order,
        limit: usize,
    ) -> Result<Vec<SegmentMeta>, StoreError> {
        let mut metas = self.segments_of(session);
        match order {
            Order::Asc => metas.retain(|meta| meta.last >= from),
            Order::Desc => {
                metas.retain(|meta| meta.first <= from);
                metas.reverse();
            }
        }
        metas.truncate(limit);
        Ok(metas)
    }

    async fn body(&self, _: &TenantId, session: &SessionId, first: Seq) -> Result<Bytes, StoreError> {
        self.bodies_read.fetch_add(1, Ordering::Relaxed);
        let state = self.state.lock().unwrap();
        let key = (session.clone(), first);
        if state.expired.contains(&key) {
            return Err(StoreError::NotFound);
        }
        state.bodies.get(&key).cloned().ok_or(StoreError::NotFound)
    }

    async fn feed(
        &self,
        _: &TenantId,
        _: Option<&FeedPosition>,
        _: usize,
    ) -> Result<Vec<FeedEntry>, StoreError> {
        unavailable()
    }

    async fn feed_commit(&self, _: &TenantId, commit: CommitId) -> Result<Vec<FeedEntry>, StoreError> {
        let state = self.state.lock().unwrap();
        let shown = state.metas.iter().filter(|(_, meta)| meta.commit_id == commit);
        let entry =
            |(key, meta): (&Key, &SegmentMeta)| FeedEntry { session_id: key.0.clone(), meta: meta.clone() };
        Ok(if state.hidden.contains(&commit) { Vec::new() } else { shown.map(entry).collect() })
    }

    async fn by_time(
        &self,
        _: &TenantId,
        order: Order,
        from: Option<Micros>,
        page: Option<&[u8]>,
        limit: usize,
    ) -> Result<TimePage, StoreError> {
        let state = self.state.lock().unwrap();
        let mut all: Vec<(i64, CommitId, FeedEntry)> = Vec::new();
        for ((session_id, _), meta) in &state.metas {
            let (min, max) = (meta.summary.time_min, meta.summary.time_max);
            let (key, within) = match order {
                Order::Asc => (min.get(), from.is_none_or(|from| max >= from)),
                Order::Desc => (-max.get(), from.is_none_or(|from| min <= from)),
            };
            if within {
                let entry = FeedEntry { session_id: session_id.clone(), meta: meta.clone() };
                all.push((key, meta.commit_id, entry));
            }
        }
        all.sort_by(|a, b| (a.0, a.1, &a.2.session_id).cmp(&(b.0, b.1, &b.2.session_id)));
        // The token is the key of the last segment given, so that what is appended moves nothing.
        if let Some(token) = page {
            let token = String::from_utf8(token.to_vec()).unwrap();
            let at = all.iter().position(|(key, commit, entry)| token == name(*key, *commit, entry)).unwrap();
            all.drain(..=at);
        }
        let size = limit.min(self.page_max);
        let rest = all.len() > size;
        all.truncate(size);
        let last = all.last().filter(|_| rest).cloned();
        let mut entries: Vec<FeedEntry> = all.into_iter().map(|(_, _, entry)| entry).collect();
        entries.reverse();
        Ok(TimePage {
            entries,
            bound: last.as_ref().map(|(key, _, _)| match order {
                Order::Asc => Micros::new(key - 2).unwrap(),
                Order::Desc => Micros::new(-key + 2).unwrap(),
            }),
            next: last.map(|(key, commit, entry)| name(key, commit, &entry).into_bytes()),
        })
    }

    async fn session(&self, _: &TenantId, session: &SessionId) -> Result<Option<SessionRecord>, StoreError> {
        Ok(self.state.lock().unwrap().sessions.get(session).cloned())
    }

    async fn sessions(
        &self,
        _: &TenantId,
        agent: Option<&AgentId>,
        after: Option<&FeedPosition>,
        limit: usize,
    ) -> Result<Vec<SessionRecord>, StoreError> {
        let state = self.state.lock().unwrap();
        let mut all: Vec<SessionRecord> = state.sessions.values().cloned().collect();
        all.retain(|record| {
            let position = (record.first_commit, &record.session_id);
            agent.is_none_or(|agent| record.summary.agents.count(agent.as_str()).is_none_or(|n| n > 0))
                && after.is_none_or(|after| position < (after.commit_id, &after.session_id))
        });
        all.sort_by(|a, b| (b.first_commit, &b.session_id).cmp(&(a.first_commit, &a.session_id)));
        all.truncate(limit);
        Ok(all)
    }

    async fn agent(&self, _: &TenantId, _: &AgentId) -> Result<Option<AgentRecord>, StoreError> {
        unavailable()
    }

    async fn agents(
        &self,
        _: &TenantId,
        _: Option<&AgentId>,
        _: usize,
    ) -> Result<Vec<AgentRecord>, StoreError> {
        unavailable()
    }

    async fn idempotency(&self, _: &TenantId, _: &[u8; 32]) -> Result<Option<Idempotency>, StoreError> {
        unavailable()
    }

    async fn create_token(&self, _: &TokenRecord, _: bool) -> Result<(), StoreError> {
        unavailable()
    }

    async fn bootstrapped(&self) -> Result<bool, StoreError> {
        unavailable()
    }

    async fn token_by_hash(&self, _: &[u8; 32]) -> Result<Option<TokenRecord>, StoreError> {
        unavailable()
    }

    async fn tokens(&self, _: &TenantId) -> Result<Vec<TokenRecord>, StoreError> {
        unavailable()
    }

    async fn revoke_token(&self, _: &TenantId, _: &str, _: Micros) -> Result<(), StoreError> {
        unavailable()
    }

    async fn touch_token(&self, _: &[u8; 32], _: Micros) -> Result<(), StoreError> {
        unavailable()
    }

    async fn create_tenant(&self, _: &TenantRecord) -> Result<(), StoreError> {
        unavailable()
    }

    async fn tenant(&self, _: &TenantId) -> Result<Option<TenantRecord>, StoreError> {
        unavailable()
    }

    async fn tenants(&self) -> Result<Vec<TenantRecord>, StoreError> {
        unavailable()
    }

    async fn open_segments(
        &self,
        _: &TenantId,
        _: Option<&FeedPosition>,
        _: usize,
    ) -> Result<Vec<OpenEntry>, StoreError> {
        unavailable()
    }

    async fn pointer(&self, _: &TenantId, _: &SessionId) -> Result<Option<Pointer>, StoreError> {
        Ok(None)
    }

    async fn advance_pointer(&self, _: &TenantId, _: &Pointer) -> Result<(), StoreError> {
        unavailable()
    }

    async fn mark_archived(
        &self,
        _: &TenantId,
        _: &SessionId,
        _: &SegmentMeta,
        _: u64,
        _: Option<Micros>,
    ) -> Result<(), StoreError> {
        unavailable()
    }

    async fn mark_broken(&self, _: &TenantId, _: &SessionId, _: Seq, _: Micros) -> Result<bool, StoreError> {
        unavailable()
    }

    async fn closed(&self) -> Result<Option<Micros>, StoreError> {
        Ok(None)
    }

    async fn set_closed(&self, _: Option<Micros>) -> Result<(), StoreError> {
        unavailable()
    }

    async fn put_batch(&self, _: &TenantId, _: &BatchRecord) -> Result<(), StoreError> {
        unavailable()
    }

    async fn mark_recorded(&self, _: &TenantId, _: u64) -> Result<(), StoreError> {
        unavailable()
    }

    async fn last_batch(&self, _: &TenantId) -> Result<Option<BatchRecord>, StoreError> {
        Ok(None)
    }

    async fn batches(&self, _: &TenantId, _: u64, _: usize) -> Result<Vec<BatchRecord>, StoreError> {
        Ok(Vec::new())
    }

    fn keeps_backups(&self) -> bool {
        false
    }

    async fn put_erasure(&self, _: &TenantId, _: &ErasureRecord) -> Result<(), StoreError> {
        unavailable()
    }

    async fn erasure(&self, _: &TenantId, _: EventId) -> Result<Option<ErasureRecord>, StoreError> {
        unavailable()
    }

    async fn update_erasure(
        &self,
        _: &TenantId,
        _: &ErasureRecord,
        _: &ErasureRecord,
    ) -> Result<(), StoreError> {
        unavailable()
    }

    async fn erasures(
        &self,
        _: &TenantId,
        _: bool,
        _: Option<EventId>,
        _: usize,
    ) -> Result<Vec<ErasureRecord>, StoreError> {
        unavailable()
    }

    async fn stored_body(
        &self,
        _: &TenantId,
        _: &SessionId,
        _: Seq,
    ) -> Result<Option<StoredBody>, StoreError> {
        unavailable()
    }

    async fn replace_body(
        &self,
        _: &TenantId,
        _: &SessionId,
        _: &StoredBody,
        _: &SegmentMeta,
        _: Bytes,
    ) -> Result<(), StoreError> {
        unavailable()
    }

    async fn replace_pointer(&self, _: &TenantId, _: &Pointer, _: &Pointer) -> Result<(), StoreError> {
        unavailable()
    }

    async fn resize_batch(&self, _: &TenantId, _: u64, _: u64, _: u64) -> Result<(), StoreError> {
        unavailable()
    }

    async fn scrub(&self, _: &TenantId, _: &SessionId, _: Seq) -> Result<(), StoreError> {
        unavailable()
    }

    async fn expire(&self, _: Micros, _: usize) -> Result<usize, StoreError> {
        unavailable()
    }
}

fn name(key: i64, commit: CommitId, entry: &FeedEntry) -> String {
    format!("{key} {commit} {}", entry.session_id)
}
