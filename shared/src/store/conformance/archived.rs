//! What a store keeps of the archive, and what stays when archived segments go (P1, P2, P8).
//!
//! Writers and archivers follow the protocol of the ledger: a pointer moves before its segments are marked, and after an
//! unknown outcome a call is repeated.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::concurrency::{check_same_commits, run_writers};
use super::{
    Batch, HeadCheck, PATIENCE, check_line, entries_of, eventually, fresh_session, fresh_tenant, head_of,
    insist, now, ok, refused_for, same, sample_commit, session, session_of,
};
use crate::ids::{Seq, SessionId, TenantId};
use crate::limits;
use crate::segment::{Head, SegmentMeta, unpacked_bytes};
use crate::store::{
    BatchRecord, Commit, Conflict, FeedPosition, OpenEntry, Order, Pointer, Store, StoreError,
};
use crate::time::Micros;

/// How the time of archived segments comes, on a backend.
#[async_trait]
pub trait Passage: Send + Sync {
    /// What time it is for the store.
    fn now(&self) -> Micros {
        now()
    }

    /// Lets one segment go, whose time is `expires_at`. Others whose time is before may go with it, and no others.
    ///
    /// # Panics
    /// If the segment is not there, or its time is another.
    async fn pass(&self, tenant: &TenantId, session: &SessionId, meta: &SegmentMeta, expires_at: Micros);
}

/// A store that deletes by [`Store::expire`].
pub struct Swept(pub Arc<dyn Store>);

#[async_trait]
impl Passage for Swept {
    async fn pass(&self, tenant: &TenantId, session: &SessionId, meta: &SegmentMeta, expires_at: Micros) {
        let store = &*self.0;
        ok(store.expire(expires_at, usize::MAX).await, "expire");
        let at = ok(store.commit_at(tenant, session, meta.first).await, "commit_at");
        assert_eq!(at, Some(meta.commit_id), "{session}: it went before its time, or was not there");
        let gone = ok(store.expire(expires_at.plus_ms(1), usize::MAX).await, "expire");
        assert_eq!(gone, 1, "segments whose time was {expires_at:?}");
    }
}

/// Repeats a call until its outcome is known, as an archiver does.
async fn surely<T, F>(mut call: impl FnMut() -> F, what: &str) -> T
where
    F: Future<Output = Result<T, StoreError>>,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        match call().await {
            Err(
                StoreError::Unknown { .. } | StoreError::Throttled { .. } | StoreError::Unavailable { .. },
            ) if Instant::now() < deadline => sleep(Duration::from_millis(1)).await,
            result => return ok(result, what),
        }
    }
}

/// The pointer of a session of which these segments are archived, the first ones.
///
/// # Panics
/// If there is none.
pub fn pointer_over(session: &SessionId, metas: &[SegmentMeta], batch: u64) -> Pointer {
    let archived = session_of(session, metas).expect("some segments");
    Pointer { archived, first_batch: 1, last_batch: batch, scrubbed: 0 }
}

/// A batch of the catalogue, made up.
pub fn sample_batch(batch: u64, seed: u8) -> BatchRecord {
    let at = now();
    BatchRecord {
        batch,
        header_hash: [seed; 32],
        first_leaf: batch * 100,
        count: 100,
        root: [seed ^ 0xff; 32],
        claimed_at: at,
        commits: (super::commit_id(at), super::commit_id(at.plus_ms(5))),
        times: (at.plus_ms(-1000), at),
        key: format!("events/batch-{batch}-{seed}"),
        bytes: 1 << 40,
        revision: 0,
        blooms: [vec![seed; 8], vec![1, 2, 3], vec![0xff; 4000]],
        recorded: false,
    }
}

/// A session that grows, is archived and goes.
struct Line {
    tenant: TenantId,
    session: SessionId,
    commits: Vec<Arc<Commit>>,
    /// How many segments are archived, and when each expires.
    times: Vec<Option<Micros>>,
    /// The numbers of those that have gone.
    gone: Vec<usize>,
}

impl Line {
    async fn begin(store: &dyn Store, tenant: &TenantId, session: SessionId, count: usize) -> Self {
        let (commits, times, gone) = (Vec::new(), Vec::new(), Vec::new());
        let mut line = Self { tenant: tenant.clone(), session, commits, times, gone };
        for _ in 0..count {
            line.append(store).await;
        }
        line
    }

    /// One more segment, chained on the head that the store gives.
    async fn append(&mut self, store: &dyn Store) {
        let head = ok(store.head(&self.tenant, &self.session).await, "head");
        assert_eq!(head, self.head(), "{}: the head", self.session);
        let commit = sample_commit(&self.tenant, &self.session, head, 1 + self.commits.len() as u64 % 3);
        ok(store.commit(commit.clone()).await, "commit");
        self.commits.push(commit);
    }

    fn head(&self) -> Option<Head> {
        self.commits.last().and_then(|commit| head_of(commit))
    }

    fn metas(&self) -> Vec<SegmentMeta> {
        self.commits.iter().map(|commit| commit.segments[0].meta.clone()).collect()
    }

    /// Archives more segments, each with its time: the pointer, and then the segments.
    async fn archive(&mut self, store: &dyn Store, times: &[Option<Micros>]) {
        let from = self.times.len();
        self.times.extend(times);
        let metas = self.metas();
        let pointer = pointer_over(&self.session, &metas[..self.times.len()], 1 + from as u64);
        ok(store.advance_pointer(&self.tenant, &pointer).await, "advance_pointer");
        for (meta, at) in metas[from..].iter().zip(times) {
            let marked = store.mark_archived(&self.tenant, &self.session, meta, 1 + from as u64, *at);
            ok(marked.await, "mark_archived");
        }
    }

    async fn pass(&mut self, passage: &dyn Passage, number: usize) {
        let meta = &self.commits[number].segments[0].meta;
        let at = self.times[number].expect("it has a time");
        passage.pass(&self.tenant, &self.session, meta, at).await;
        self.gone.push(number);
    }

    /// Everything that can be asked of the session. Of the feed and the like only its own entries.
    async fn check(&self, store: &dyn Store, lag: Duration) {
        let (tenant, session, all) = (&self.tenant, &self.session, self.metas());
        let what = format!("{session}: of {}, gone are {:?}", all.len(), self.gone);
        assert_eq!(ok(store.head(tenant, session).await, "head"), self.head(), "{what}: head");
        let left: Vec<SegmentMeta> =
            all.iter().enumerate().filter(|(n, _)| !self.gone.contains(n)).map(|(_, m)| m.clone()).collect();
        for (order, from) in [(Order::Asc, Seq::ZERO), (Order::Desc, Seq::MAX)] {
            let mut found = ok(store.segments(tenant, session, from, order, 1000).await, "segments");
            if order == Order::Desc {
                found.reverse();
            }
            assert_eq!(found, left, "{what}: segments {order:?}");
        }
        for (number, commit) in self.commits.iter().enumerate() {
            let (meta, body) = (&commit.segments[0].meta, &commit.segments[0].body);
            let is_gone = self.gone.contains(&number);
            let at = ok(store.commit_at(tenant, session, meta.first).await, "commit_at");
            assert_eq!(at, (!is_gone).then_some(meta.commit_id), "{what}: commit at {}", meta.first);
            match store.body(tenant, session, meta.first).await {
                Ok(found) => assert!(!is_gone && found == *body, "{what}: body at {}", meta.first),
                Err(StoreError::NotFound) => assert!(is_gone, "{what}: no body at {}", meta.first),
                Err(error) => panic!("{what}: body at {}: {error}", meta.first),
            }
        }
        let record = session_of(session, &all);
        let pointer = session_of(session, &all[..self.times.len()]);
        let found = ok(store.pointer(tenant, session).await, "pointer");
        assert_eq!(found.map(|pointer| pointer.archived), pointer, "{what}: pointer");
        let open: Vec<_> = all[self.times.len()..].iter().map(|meta| meta.commit_id).collect();
        eventually(lag, &what, || async {
            same("session", &ok(store.session(tenant, session).await, "session"), &record)?;
            let listed = ok(store.sessions(tenant, None, None, 1000).await, "sessions");
            same("listed", &listed.into_iter().find(|r| r.session_id == *session), &record)?;
            let feed = ok(store.feed(tenant, None, 1000).await, "feed").into_iter();
            let mut feed: Vec<_> = feed.filter(|e| e.session_id == *session).map(|e| e.meta).collect();
            feed.sort_by_key(|meta| meta.first);
            same("feed", &feed, &left)?;
            let found = ok(store.open_segments(tenant, None, 1000).await, "open_segments").into_iter();
            let mut found: Vec<_> =
                found.filter(|e| e.position.session_id == *session).map(|e| e.position.commit_id).collect();
            found.sort_by_key(|id| all.iter().position(|meta| meta.commit_id == *id));
            same("open", &found, &open)?;
            let page = ok(store.by_time(tenant, Order::Asc, None, None, 1000).await, "by_time");
            let count = page.entries.iter().filter(|e| e.session_id == *session).count();
            same("segments by time", &count, &left.len())
        })
        .await;
    }
}

/// Times far enough ahead, an hour between them.
fn times(passage: &dyn Passage, order: &[usize]) -> Vec<Option<Micros>> {
    let start = passage.now().plus_ms(2 * limits::HOT_RETENTION_MS_MIN);
    let hour = |place: usize| start.plus_ms(place as i64 * 3_600_000);
    (0..order.len()).map(|n| order.iter().position(|o| *o == n).map(hour)).collect()
}

/// The first `count` numbers in every order.
fn orders(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let insert = |shorter: Vec<usize>| {
        (0..count).map(move |at| [&shorter[..at], &[count - 1], &shorter[at..]].concat())
    };
    orders(count - 1).into_iter().flat_map(insert).collect()
}

/// Twenty writers at once move a session's pointer, each to its own place: nobody ever sees it move back, it ends at the
/// highest, and what is not higher changes nothing.
///
/// # Panics
/// If the store breaks it.
pub async fn pointer_only_rises(store: Arc<dyn Store>) {
    let (tenant, session) = (fresh_tenant(), fresh_session());
    assert_eq!(insist(|| store.pointer(&tenant, &session), "pointer").await, None);
    let written = run_writers(&store, &tenant, std::slice::from_ref(&session), 1, 20, 1).await;
    let metas: Vec<SegmentMeta> = written.iter().map(|commit| commit.segments[0].meta.clone()).collect();
    let mut tasks = JoinSet::new();
    for writer in 0..20 {
        let (store, tenant) = (store.clone(), tenant.clone());
        // Neither upwards nor downwards.
        let place = (writer * 7) % 20;
        let pointer = pointer_over(&session, &metas[..=place], place as u64 + 1);
        tasks.spawn(async move {
            surely(|| store.advance_pointer(&tenant, &pointer), "advance_pointer").await;
            let seen = insist(|| store.pointer(&tenant, &pointer.archived.session_id), "pointer").await;
            let sequence = seen.map(|seen| seen.archived.head.sequence);
            assert!(sequence >= Some(pointer.archived.head.sequence), "{sequence:?} after {pointer:?}");
        });
    }
    let mut last = None;
    while !tasks.is_empty() {
        let seen = insist(|| store.pointer(&tenant, &session), "pointer").await;
        let sequence = seen.map(|seen| seen.archived.head.sequence);
        assert!(sequence >= last, "the pointer moved from {last:?} to {sequence:?}");
        last = sequence;
        while let Some(done) = tasks.try_join_next() {
            done.expect("a writer of pointers");
        }
        tokio::task::yield_now().await;
    }
    let highest = pointer_over(&session, &metas, 20);
    let lower = pointer_over(&session, &metas[..5], 99);
    let equal = Pointer { last_batch: 99, ..highest.clone() };
    for pointer in [&lower, &equal, &highest] {
        surely(|| store.advance_pointer(&tenant, pointer), "advance_pointer").await;
        let found = insist(|| store.pointer(&tenant, &session), "pointer").await;
        assert_eq!(found.as_ref(), Some(&highest), "what is not higher changes nothing");
    }
}

/// Open segments are those that are not archived, each once, in the order of commit and session, in pages of any size,
/// with the bytes of their events; the feed keeps what is archived and has not expired.
///
/// # Panics
/// If the store breaks it.
pub async fn open_lists_what_is_not_archived(store: &dyn Store, lag: Duration) {
    let tenant = fresh_tenant();
    let names = ["b", "a", "é", "a b"].map(session);
    let start = now();
    let mut heads = [None; 4];
    let mut expected: Vec<(OpenEntry, SegmentMeta)> = Vec::new();
    for round in 0..5usize {
        let mut batch = Batch::at(&tenant, start.plus_ms(round as i64 * 10));
        for (n, name) in names.iter().enumerate().filter(|(n, _)| (n + round) % 3 != 0) {
            batch = batch.sample(name, heads[n], 1 + (n + round) as u64 * 4);
        }
        let commit = batch.done();
        ok(store.commit(commit.clone()).await, "commit");
        for segment in &commit.segments {
            let n = names.iter().position(|name| *name == segment.session_id).expect("one of them");
            heads[n] = Some(segment.meta.head());
            let position = FeedPosition { commit_id: commit.id, session_id: segment.session_id.clone() };
            let bytes = unpacked_bytes(&segment.body);
            expected.push((OpenEntry { position, bytes }, segment.meta.clone()));
        }
    }
    expected.sort_by(|a, b| a.0.position.cmp(&b.0.position));
    let everything = expected.clone();
    let pages = async |limit: usize| {
        let mut found: Vec<OpenEntry> = Vec::new();
        loop {
            let after = found.last().map(|entry| entry.position.clone());
            let page = ok(store.open_segments(&tenant, after.as_ref(), limit).await, "open_segments");
            if page.len() > limit {
                return Err(format!("{} open segments in a page of {limit}", page.len()));
            }
            if page.is_empty() {
                return Ok(found);
            }
            if found.iter().any(|known| page.iter().any(|new| new.position == known.position)) {
                return Err(format!("an open segment comes again after {after:?}"));
            }
            found.extend(page);
        }
    };
    for name in std::iter::once(None).chain(names.iter().map(Some)) {
        if let Some(name) = name {
            let metas: Vec<SegmentMeta> = everything
                .iter()
                .filter(|(e, _)| e.position.session_id == *name)
                .map(|(_, m)| m.clone())
                .collect();
            ok(store.advance_pointer(&tenant, &pointer_over(name, &metas, 3)).await, "advance_pointer");
            for meta in &metas {
                ok(store.mark_archived(&tenant, name, meta, 3, None).await, "mark_archived");
            }
            expected.retain(|(entry, _)| entry.position.session_id != *name);
        }
        let open: Vec<OpenEntry> = expected.iter().map(|(entry, _)| entry.clone()).collect();
        for limit in [1, 2, 3, 100] {
            eventually(lag, "open segments", || async { same("open", &pages(limit).await?, &open) }).await;
        }
    }
    let feed = ok(store.feed(&tenant, None, 100).await, "feed");
    assert_eq!(feed.len(), everything.len(), "the feed keeps what is archived");
    for (entry, meta) in &everything {
        let session = &entry.position.session_id;
        let body = ok(store.body(&tenant, session, meta.first).await, "body of what is archived");
        assert_eq!(unpacked_bytes(&body), entry.bytes);
        assert_eq!(
            ok(store.commit_at(&tenant, session, meta.first).await, "commit_at"),
            Some(meta.commit_id)
        );
    }
}

/// Marking a segment again changes nothing about its time; marking another commit's segment, or one that is not there,
/// changes nothing at all.
///
/// # Panics
/// If the store breaks it.
pub async fn mark_archived_can_be_repeated(store: &dyn Store, passage: &dyn Passage, lag: Duration) {
    let tenant = fresh_tenant();
    let mut line = Line::begin(store, &tenant, fresh_session(), 3).await;
    let session = line.session.clone();
    let metas = line.metas();
    let mark = async |meta: &SegmentMeta, at| {
        ok(store.mark_archived(&tenant, &session, meta, 1, at).await, "mark_archived");
    };
    let at = times(passage, &[0, 1, 2]);
    // Another batch of one event, written by a writer that lost; and what was never there.
    let other = sample_commit(&tenant, &session, None, 1);
    let behind = sample_commit(&tenant, &session, line.head(), 1);
    for commit in [&other, &behind] {
        mark(&commit.segments[0].meta, at[0]).await;
    }
    line.check(store, lag).await;

    line.archive(store, &at[..2]).await;
    for time in [at[2], at[0].map(|at| at.plus_ms(-3_600_000)), None, at[1], at[0]] {
        mark(&metas[0], time).await;
    }
    line.check(store, lag).await;
    // The passage looks at the time.
    line.pass(passage, 0).await;
    line.check(store, lag).await;
    // Nothing rises from the dead.
    mark(&metas[0], at[2]).await;
    mark(&metas[1], at[1]).await;
    line.check(store, lag).await;
    line.pass(passage, 1).await;
    line.check(store, lag).await;
}

/// Once everything hot has gone the pointer is the head, and the session goes on behind it in one line; as often as one
/// likes. What does not follow is still refused, as far as the store checks it.
///
/// # Panics
/// If the store breaks it.
pub async fn head_outlives_its_segments(
    store: &dyn Store,
    passage: &dyn Passage,
    check: HeadCheck,
    lag: Duration,
) {
    let tenant = fresh_tenant();
    let mut line = Line::begin(store, &tenant, session("goes / é"), 3).await;
    for round in 0..3 {
        let from = line.times.len();
        let order: Vec<usize> = (0..line.commits.len() - from).collect();
        line.archive(store, &times(passage, &order)).await;
        line.check(store, lag).await;
        for number in from..line.commits.len() {
            line.pass(passage, number).await;
        }
        line.check(store, lag).await;
        let name = line.session.clone();
        let head = line.head().expect("it has events");
        if check >= HeadCheck::Sequence {
            let again = sample_commit(&tenant, &name, None, 1);
            refused_for(store.commit(again).await, &[&name], "a second beginning");
            let sequence = head.sequence.checked_add(1).expect("far from the end");
            let gap = sample_commit(&tenant, &name, Some(Head { sequence, ..head }), 1);
            refused_for(store.commit(gap).await, &[&name], "a gap");
        }
        if check >= HeadCheck::Hash {
            let hash = crate::ids::EventHash([7; 32]);
            let fork = sample_commit(&tenant, &name, Some(Head { hash, ..head }), 1);
            refused_for(store.commit(fork).await, &[&name], "another hash");
        }
        for _ in 0..=round {
            line.append(store).await;
            let last = line.commits.last().expect("it has been appended").segments[0].meta.clone();
            assert_eq!(last.prev_hash, line.metas()[line.commits.len() - 2].last_hash, "one line");
        }
        line.check(store, lag).await;
    }
}

/// Four segments go in every order, with appends between them: at every step head, line, record, feed and list say what is
/// there.
///
/// # Panics
/// If the store breaks it.
pub async fn segments_go_in_any_order(store: &dyn Store, passage: &dyn Passage, lag: Duration) {
    for (index, order) in orders(4).into_iter().enumerate() {
        let mut line = Line::begin(store, &fresh_tenant(), fresh_session(), 4 + index % 2).await;
        line.archive(store, &times(passage, &order)).await;
        for (step, number) in order.into_iter().enumerate() {
            line.pass(passage, number).await;
            if step + 1 >= index % 5 {
                line.append(store).await;
            }
            line.check(store, lag).await;
        }
    }
}

/// The record of a session and its place in the list of sessions are the same before and after its segments have gone.
///
/// # Panics
/// If the store breaks it.
pub async fn sessions_outlive_their_segments(store: &dyn Store, passage: &dyn Passage, lag: Duration) {
    let tenant = fresh_tenant();
    let mut lines = Vec::new();
    for name in ["m", "a", "z", "é"] {
        lines.push(Line::begin(store, &tenant, session(name), 3).await);
    }
    let mut records: Vec<_> = lines.iter().filter_map(|l| session_of(&l.session, &l.metas())).collect();
    records.sort_by(|a, b| (b.first_commit, &b.session_id).cmp(&(a.first_commit, &a.session_id)));
    for keep in [3, 1, 0] {
        // One stays whole, of one something stays, two go.
        for line in lines.iter_mut().skip(keep) {
            if line.times.is_empty() {
                let order: Vec<usize> = if line.session.as_str() == "a" { vec![0, 1] } else { vec![0, 1, 2] };
                line.archive(store, &times(passage, &order)).await;
                for number in order {
                    line.pass(passage, number).await;
                }
            }
            line.check(store, lag).await;
        }
        for limit in [1, 2, 100] {
            eventually(lag, "the list of sessions", || async {
                let mut found = Vec::new();
                loop {
                    let after = found.last().map(|r: &crate::store::SessionRecord| FeedPosition {
                        commit_id: r.first_commit,
                        session_id: r.session_id.clone(),
                    });
                    let page = ok(store.sessions(&tenant, None, after.as_ref(), limit).await, "sessions");
                    if page.is_empty() || found.len() > records.len() {
                        break;
                    }
                    found.extend(page);
                }
                same("sessions", &found, &records)
            })
            .await;
        }
    }
}

/// What is not archived does not go, nor what is archived to stay, whatever goes around it and however late it is (P8).
///
/// # Panics
/// If the store breaks it.
pub async fn only_what_has_a_time_goes(store: &dyn Store, passage: &dyn Passage, lag: Duration) {
    let tenant = fresh_tenant();
    let untouched = Line::begin(store, &tenant, session("untouched"), 3).await;
    let mut kept = Line::begin(store, &tenant, session("kept"), 3).await;
    let mut partly = Line::begin(store, &tenant, session("partly"), 5).await;
    kept.archive(store, &[None, None, None]).await;
    let far = passage.now().plus_ms(100 * limits::HOT_RETENTION_MS_MIN);
    partly.archive(store, &[None, Some(far), None]).await;
    partly.pass(passage, 1).await;
    for line in [&untouched, &kept, &partly] {
        line.check(store, lag).await;
    }
    assert_eq!(check_line(store, &tenant, &untouched.session, 2).await, untouched.metas());
    assert_eq!(check_line(store, &tenant, &kept.session, 2).await, kept.metas());
}

/// Of twenty who write a batch of one number at once, one does, and its record is the one that stands.
///
/// # Panics
/// If the store breaks it.
pub async fn batch_number_is_taken_once(store: Arc<dyn Store>) {
    let tenant = fresh_tenant();
    for number in [1, 2] {
        let mut tasks = JoinSet::new();
        for writer in 0..20 {
            let (store, tenant) = (store.clone(), tenant.clone());
            tasks.spawn(async move {
                let record = sample_batch(number, writer);
                let mut was_unknown = false;
                loop {
                    match store.put_batch(&tenant, &record).await {
                        Ok(()) => return (record, true),
                        Err(StoreError::Unknown { .. }) => was_unknown = true,
                        Err(StoreError::Throttled { .. } | StoreError::Unavailable { .. }) => {}
                        Err(StoreError::Conflict(Conflict::Exists)) => {
                            // After an unknown outcome it may be its own.
                            let found = insist(|| store.batches(&tenant, number - 1, 1), "batches").await;
                            let is_own = was_unknown && found == std::slice::from_ref(&record);
                            return (record, is_own);
                        }
                        Err(error) => panic!("put_batch: {error}"),
                    }
                    sleep(Duration::from_millis(1)).await;
                }
            });
        }
        let outcomes = tasks.join_all().await;
        let winners: Vec<_> = outcomes.into_iter().filter(|(_, won)| *won).map(|(r, _)| r).collect();
        assert_eq!(winners.len(), 1, "batch {number} was taken by {winners:?}");
        assert_eq!(insist(|| store.batches(&tenant, number - 1, 5), "batches").await, winners);
        assert_eq!(insist(|| store.last_batch(&tenant), "last_batch").await.as_ref(), winners.last());
    }
}

/// Batches are listed by number, in pages of any size; the last is the highest; each is recorded once it was marked so.
///
/// # Panics
/// If the store breaks it.
pub async fn batches_are_listed_in_order(store: &dyn Store) {
    let tenant = fresh_tenant();
    assert_eq!(ok(store.last_batch(&tenant).await, "last_batch"), None);
    assert_eq!(ok(store.batches(&tenant, 0, 10).await, "batches"), []);
    let not_found = store.mark_recorded(&tenant, 1).await;
    assert!(matches!(not_found, Err(StoreError::NotFound)), "{not_found:?}");
    // Numbers whose digits and bytes do not sort alike.
    let numbers = [9, 1, 10, 2, 255, 256, 100, 65_536];
    for (n, number) in numbers.into_iter().enumerate() {
        let given = BatchRecord { recorded: true, ..sample_batch(number, n as u8) };
        ok(store.put_batch(&tenant, &given).await, "put_batch");
        let highest = numbers[..=n].iter().max().copied();
        let last = ok(store.last_batch(&tenant).await, "last_batch").expect("there is one");
        assert_eq!(Some(last.batch), highest);
        assert!(!last.recorded, "it says itself that it is recorded");
    }
    let mut expected: Vec<BatchRecord> = ok(store.batches(&tenant, 0, 100).await, "batches");
    let mut sorted = numbers;
    sorted.sort_unstable();
    assert_eq!(expected.iter().map(|b| b.batch).collect::<Vec<_>>(), sorted);
    for (n, number) in numbers.into_iter().enumerate() {
        let found = expected.iter().find(|b| b.batch == number).expect("listed");
        let made = sample_batch(number, n as u8);
        let (hash, key, blooms) = (&found.header_hash, &found.key, &found.blooms);
        assert_eq!((hash, key, blooms), (&made.header_hash, &made.key, &made.blooms));
        assert_eq!((found.first_leaf, found.count, found.bytes), (made.first_leaf, made.count, made.bytes));
        assert!(!found.recorded);
    }
    for number in [10, 10, 1, 65_536] {
        ok(store.mark_recorded(&tenant, number).await, "mark_recorded");
        for batch in &mut expected {
            batch.recorded |= batch.batch == number;
        }
        let again = store.put_batch(&tenant, &sample_batch(number, 77)).await;
        assert!(matches!(again, Err(StoreError::Conflict(Conflict::Exists))), "{again:?}");
        for limit in [1, 3, 100] {
            let mut found: Vec<BatchRecord> = Vec::new();
            loop {
                let after = found.last().map_or(0, |batch| batch.batch);
                let page = ok(store.batches(&tenant, after, limit).await, "batches");
                assert!(page.len() <= limit, "{} batches in a page of {limit}", page.len());
                if page.is_empty() {
                    break;
                }
                found.extend(page);
            }
            assert_eq!(found, expected, "in pages of {limit}");
        }
    }
    assert_eq!(ok(store.last_batch(&tenant).await, "last_batch").as_ref(), expected.last());
    let not_found = store.mark_recorded(&tenant, 3).await;
    assert!(matches!(not_found, Err(StoreError::NotFound)), "{not_found:?}");
}

/// Of twenty who find a session broken at the same segment, one is told that this is news; each other place is news again.
///
/// # Panics
/// If the store breaks it.
pub async fn broken_is_news_once(store: Arc<dyn Store>) {
    let (tenant, session) = (fresh_tenant(), fresh_session());
    let commit = sample_commit(&tenant, &session, None, 3);
    ok(store.commit(commit).await, "commit");
    for place in [0, 3, 300] {
        let first = Seq::new(place).expect("a sequence");
        let mut tasks = JoinSet::new();
        for _ in 0..20 {
            let (store, tenant, session) = (store.clone(), tenant.clone(), session.clone());
            tasks.spawn(async move {
                ok(store.mark_broken(&tenant, &session, first, now()).await, "mark_broken")
            });
        }
        let news = tasks.join_all().await.into_iter().filter(|news| *news).count();
        assert_eq!(news, 1, "broken at {place}");
    }
    for (tenant, session) in [(fresh_tenant(), session.clone()), (tenant.clone(), fresh_session())] {
        assert!(ok(store.mark_broken(&tenant, &session, Seq::ZERO, now()).await, "mark_broken"));
    }
    assert_eq!(check_line(&*store, &tenant, &session, 10).await.len(), 1, "a mark changes no segment");
}

/// Two tenants with sessions and batches of the same names, one tenant's name beginning like the other's: what one
/// archives, marks and lets go is nothing to the other.
///
/// # Panics
/// If the store breaks it.
pub async fn archives_are_apart(store: &dyn Store, passage: &dyn Passage, lag: Duration) {
    let one = fresh_tenant();
    let two = TenantId::parse(format!("{one}-x")).expect("a tenant's name");
    let name = session("shared");
    let mut archived = Line::begin(store, &one, name.clone(), 3).await;
    let left = Line::begin(store, &two, name.clone(), 3).await;
    archived.archive(store, &times(passage, &[0, 1, 2])).await;
    ok(store.put_batch(&one, &sample_batch(1, 1)).await, "put_batch");
    ok(store.mark_recorded(&one, 1).await, "mark_recorded");
    left.check(store, lag).await;
    for number in 0..3 {
        archived.pass(passage, number).await;
    }
    archived.check(store, lag).await;
    left.check(store, lag).await;
    assert_eq!(ok(store.last_batch(&two).await, "last_batch"), None);
    assert_eq!(ok(store.batches(&two, 0, 10).await, "batches"), []);
    ok(store.put_batch(&two, &sample_batch(1, 2)).await, "a batch of the same number");
    assert!(!ok(store.last_batch(&two).await, "last_batch").expect("its own").recorded);
    let expected: Vec<_> = left.commits.iter().flat_map(|commit| entries_of(commit)).collect();
    eventually(lag, "the feed", || async {
        let mut feed = ok(store.feed(&two, None, 10).await, "feed");
        feed.sort_by_key(|entry| entry.meta.first);
        same("feed", &feed, &expected)
    })
    .await;
}

/// Writers and an archiver at once on one session, and then writers while what was archived goes: every acknowledged
/// commit stands in the line once, first in what was archived, then behind the pointer.
///
/// Over a store that checks no more than the slot ([`HeadCheck::Slot`]) no commit may be applied late here: it could come
/// when its slot is free again, which takes at least a day elsewhere.
///
/// # Panics
/// If the store breaks it.
pub async fn writers_and_an_archiver(
    store: Arc<dyn Store>,
    passage: &dyn Passage,
    writers: usize,
    commits_each: usize,
) {
    let (tenant, session) = (fresh_tenant(), fresh_session());
    let sessions = [session.clone()];
    let start = passage.now().plus_ms(2 * limits::HOT_RETENTION_MS_MIN);
    let time = |n: usize| start.plus_ms(n as i64 * 60_000);
    let mut archived: Vec<SegmentMeta> = Vec::new();
    let archive = async |archived: &mut Vec<SegmentMeta>| {
        let next = archived.last().map_or(Some(Seq::ZERO), |meta| meta.last.checked_add(1));
        let next = next.expect("far from the end");
        let found = insist(|| store.segments(&tenant, &session, next, Order::Asc, 7), "segments").await;
        let from = archived.len();
        for meta in found {
            let expected = archived.last().map_or(0, |before| before.last.get() + 1);
            assert_eq!(meta.first.get(), expected, "{session}: a gap or an overlap before {meta:?}");
            let prev = archived.last().map_or(crate::ids::EventHash::ZERO, |before| before.last_hash);
            assert_eq!(meta.prev_hash, prev, "{session}: one line");
            archived.push(meta);
        }
        if archived.len() > from {
            let pointer = pointer_over(&session, archived, from as u64 + 1);
            surely(|| store.advance_pointer(&tenant, &pointer), "advance_pointer").await;
            for (n, meta) in archived.iter().enumerate().skip(from) {
                let mark = || store.mark_archived(&tenant, &session, meta, from as u64 + 1, Some(time(n)));
                surely(mark, "mark_archived").await;
            }
        }
        archived.len() > from
    };
    let run = || {
        let (store, tenant, sessions) = (store.clone(), tenant.clone(), sessions.clone());
        tokio::spawn(async move { run_writers(&store, &tenant, &sessions, writers, commits_each, 1).await })
    };
    let writing = run();
    while !writing.is_finished() {
        if !archive(&mut archived).await {
            sleep(Duration::from_millis(1)).await;
        }
    }
    let mut written = writing.await.expect("the writers");
    while archive(&mut archived).await {}
    check_same_commits(&session, &archived, &written);

    let leave = async {
        for (n, meta) in archived.iter().enumerate() {
            passage.pass(&tenant, &session, meta, time(n)).await;
        }
    };
    let (more, ()) = tokio::join!(run(), leave);
    let more = more.expect("the writers");
    let left = insist(|| store.segments(&tenant, &session, Seq::ZERO, Order::Asc, 10_000), "segments").await;
    let mut head = archived.last().map(SegmentMeta::head).expect("they wrote something");
    for meta in &left {
        let follows = (meta.first.get(), meta.prev_hash) == (head.sequence.get() + 1, head.hash);
        assert!(follows, "{session}: {meta:?} does not follow {head:?}");
        head = meta.head();
    }
    assert_eq!(insist(|| store.head(&tenant, &session), "head").await, Some(head));
    written.extend(more);
    let line: Vec<SegmentMeta> = archived.into_iter().chain(left).collect();
    check_same_commits(&session, &line, &written);
}

/// A ledger is closed until it is opened, since the time at which it was closed first.
pub async fn closed_until_opened(store: &dyn Store) {
    let (first, second) = (Micros::from_unix_ms(1_000), Micros::from_unix_ms(2_000));
    assert_eq!(insist(|| store.closed(), "closed").await, None);
    surely(|| store.set_closed(None), "open what is open").await;
    for since in [first, second] {
        surely(|| store.set_closed(Some(since)), "close").await;
        assert_eq!(insist(|| store.closed(), "closed").await, Some(first));
    }
    for _ in 0..2 {
        surely(|| store.set_closed(None), "open").await;
        assert_eq!(insist(|| store.closed(), "closed").await, None);
    }
    surely(|| store.set_closed(Some(second)), "close again").await;
    assert_eq!(insist(|| store.closed(), "closed").await, Some(second));
    surely(|| store.set_closed(None), "open").await;
}
