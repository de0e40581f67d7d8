//! What an erasure writes: its own record, another body for a segment, a pointer without a name (P1, P2, P4).

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::{
    Batch, Passage, check_line, eventually, fresh_session, fresh_tenant, head_of, insist, now, ok,
    pointer_over, same, sample_batch, sample_commit, sample_event,
};
use crate::event::{Content, NewEvent};
use crate::ids::{CommitId, EventHash, EventId, EventType, Seq, SessionId, TenantId};
use crate::limits;
use crate::segment::{self, SegmentMeta, SegmentReader};
use crate::store::{
    BatchRecord, Commit, Conflict, ErasureProgress, ErasureRecord, Order, Pointer, Store, StoreError,
    StoredBody,
};
use crate::time::Micros;

/// An erasure of an event, made up.
pub fn sample_erasure(event_id: EventId, session: &SessionId) -> ErasureRecord {
    ErasureRecord {
        event_id,
        session_id: session.clone(),
        sequence: Seq::ZERO,
        hash: EventHash([7; 32]),
        content_digest: [8; 32],
        is_start: false,
        token_id: Some("tok_1".to_owned()),
        reason: None,
        asked_at: now(),
        progress: ErasureProgress::default(),
    }
}

fn with(record: &ErasureRecord, set: impl FnOnce(&mut ErasureProgress)) -> ErasureRecord {
    let mut record = record.clone();
    set(&mut record.progress);
    record
}

#[track_caller]
fn changed<T: std::fmt::Debug>(result: Result<T, StoreError>, what: &str) {
    assert!(matches!(result, Err(StoreError::Conflict(Conflict::Changed))), "{what}: {result:?}");
}

#[track_caller]
fn exists(result: Result<(), StoreError>, what: &str) {
    assert!(matches!(result, Err(StoreError::Conflict(Conflict::Exists))), "{what}: {result:?}");
}

/// An erasure is written once, replaced only by what follows from what is there, and moves to those that are done once.
///
/// # Panics
/// If the store breaks a promise.
pub async fn erasures_are_written_once_and_come_to_an_end(store: &dyn Store) {
    let (tenant, other, session) = (fresh_tenant(), fresh_tenant(), fresh_session());
    let commit = CommitId::mint(now().unix_ms().unsigned_abs(), [5; 10]);
    let records: Vec<_> = (1..=5).map(|n| sample_erasure(commit.event(n), &session)).collect();
    for record in &records {
        assert_eq!(ok(store.erasure(&tenant, record.event_id).await, "erasure"), None);
        ok(store.put_erasure(&tenant, record).await, "put_erasure");
        exists(store.put_erasure(&tenant, &with(record, |p| p.batch = Some(1))).await, "a second erasure");
        assert_eq!(ok(store.erasure(&tenant, record.event_id).await, "erasure").as_ref(), Some(record));
        assert_eq!(ok(store.erasure(&other, record.event_id).await, "another tenant's"), None);
    }
    let all = ok(store.erasures(&tenant, false, None, 9).await, "erasures");
    assert_eq!(all, records);
    let page = ok(store.erasures(&tenant, false, Some(records[1].event_id), 2).await, "a page");
    assert_eq!(page, records[2..4]);
    assert_eq!(ok(store.erasures(&tenant, false, None, 0).await, "none asked for"), []);
    assert_eq!(ok(store.erasures(&tenant, true, None, 9).await, "none is done"), []);
    assert_eq!(ok(store.erasures(&other, false, None, 9).await, "another tenant's"), []);

    let first = &records[0];
    let second = with(first, |p| p.tombstone = Some(commit.event(9)));
    ok(store.update_erasure(&tenant, first, &second).await, "update_erasure");
    changed(store.update_erasure(&tenant, first, &with(first, |p| p.batch = Some(3))).await, "a late update");
    assert_eq!(ok(store.erasure(&tenant, first.event_id).await, "erasure").as_ref(), Some(&second));
    let done = with(&second, |p| p.done_at = Some(Micros::from_unix_ms(5)));
    changed(store.update_erasure(&tenant, first, &done).await, "a late end");
    ok(store.update_erasure(&tenant, &second, &done).await, "the end");
    assert_eq!(ok(store.erasure(&tenant, first.event_id).await, "erasure").as_ref(), Some(&done));
    assert_eq!(ok(store.erasures(&tenant, false, None, 9).await, "erasures"), records[1..]);
    assert_eq!(ok(store.erasures(&tenant, true, None, 9).await, "done"), std::slice::from_ref(&done));
    changed(store.update_erasure(&tenant, &second, &done).await, "an update of what is done");
    ok(store.update_erasure(&tenant, &done, &done).await, "the end again");
    exists(store.put_erasure(&tenant, first).await, "an erasure of what is erased");
    let gone = sample_erasure(commit.event(77), &session);
    changed(store.update_erasure(&tenant, &gone, &with(&gone, |p| p.batch = Some(1))).await, "of none");
}

/// The start of a session by this agent, with a name and a tag.
fn a_start(session: &SessionId, agent: &str, name: &str) -> NewEvent {
    let payload = format!(r#"{{"agentName":"{name}","tags":["{name}-tag"]}}"#);
    let event_type = EventType::parse("session_started").expect("an event type");
    NewEvent { event_type, ..sample_event(session, agent, None, payload) }
}

/// The body that is there without the content of all events whose numbers are these.
fn without(stored: &StoredBody, numbers: &[u16]) -> (SegmentMeta, Vec<u8>) {
    let erased = segment::erase(&stored.meta, &stored.body, |id| numbers.contains(&id.number()));
    erased.expect("the body opens").expect("something is erased")
}

async fn stored(store: &dyn Store, tenant: &TenantId, session: &SessionId, at: u64) -> StoredBody {
    let at = Seq::new(at).expect("a sequence");
    insist(|| store.stored_body(tenant, session, at), "stored_body").await.expect("a segment holds it")
}

/// A segment gets another body: in its place, with its commit, its standing in the archive, and all that follows from
/// its attributes.
///
/// # Panics
/// If the store breaks a promise.
pub async fn a_body_is_replaced_in_its_place(store: &dyn Store, lag: Duration) {
    let (tenant, session) = (fresh_tenant(), fresh_session());
    let agent = fresh_session();
    let agent = agent.as_str();
    let more = (0..3).map(|n| sample_event(&session, agent, None, format!(r#"{{"n":{n}}}"#)));
    let events = std::iter::once(a_start(&session, agent, "planted")).chain(more).collect();
    let first = Batch::new(&tenant).events(&session, None, events).done();
    ok(store.commit(first.clone()).await, "commit");
    let second = sample_commit(&tenant, &session, head_of(&first), 2);
    ok(store.commit(second.clone()).await, "commit");

    assert_eq!(ok(store.stored_body(&tenant, &session, Seq::new(6).expect("6")).await, "past the end"), None);
    assert_eq!(ok(store.stored_body(&tenant, &fresh_session(), Seq::ZERO).await, "of no session"), None);
    for (at, commit) in [(0, &first), (3, &first), (4, &second), (5, &second)] {
        let there = stored(store, &tenant, &session, at).await;
        assert_eq!(
            (&there.meta, &there.body),
            (&commit.segments[0].meta, &commit.segments[0].body),
            "at {at}"
        );
    }
    let before = stored(store, &tenant, &session, 2).await;
    let (meta, body) = without(&before, &[1, 3]);
    assert_ne!(body, before.body);
    ok(store.replace_body(&tenant, &session, &before, &meta, body.clone().into()).await, "replace_body");
    changed(store.replace_body(&tenant, &session, &before, &meta, body.clone().into()).await, "again");

    let line = check_line(store, &tenant, &session, 8).await;
    assert_eq!(line, [meta.clone(), second.segments[0].meta.clone()]);
    assert_eq!(ok(store.body(&tenant, &session, Seq::ZERO).await, "body"), body);
    let after = stored(store, &tenant, &session, 0).await;
    assert_ne!(after.revision, before.revision);
    let mut reader = SegmentReader::new().expect("zstd makes a context");
    let view = reader.open(&body).expect("the body opens");
    let kept: Vec<bool> =
        view.events().map(|e| matches!(e.expect("an event").content, Content::Kept { .. })).collect();
    assert_eq!(kept, [false, true, false, true]);
    eventually(lag, "what follows from the attributes", || async {
        let record = ok(store.session(&tenant, &session).await, "session").ok_or("no session")?;
        same("the session's summary", &record.summary.agent_name, &None)?;
        same("its tags", &record.summary.tags, &Vec::new())?;
        same("its events", &record.summary.events, &6)?;
        let entries = ok(store.feed_commit(&tenant, first.id).await, "feed_commit");
        same("the feed", &entries.into_iter().map(|e| e.meta).collect(), &vec![meta.clone()])?;
        let named = crate::ids::AgentId::parse(agent).expect("an agent");
        let record = ok(store.agent(&tenant, &named).await, "agent").ok_or("no agent")?;
        same("the agent's name", &record.name, &None)
    })
    .await;

    // Of two that read the same body one wins; the other reads again.
    let (meta, body) = without(&after, &[2]);
    let (other, lost) = without(&after, &[4]);
    ok(store.replace_body(&tenant, &session, &after, &meta, body.into()).await, "the first of two");
    changed(store.replace_body(&tenant, &session, &after, &other, lost.into()).await, "the second of two");
    let last = stored(store, &tenant, &session, 0).await;
    let (meta, body) = without(&last, &[4]);
    ok(store.replace_body(&tenant, &session, &last, &meta, body.into()).await, "after another look");
    check_line(store, &tenant, &session, 8).await;
    ok(store.scrub(&tenant, &session, Seq::ZERO).await, "scrub");
    ok(store.scrub(&tenant, &session, Seq::ZERO).await, "scrub again");
    check_line(store, &tenant, &session, 8).await;
    let next = sample_commit(&tenant, &session, head_of(&second), 1);
    ok(store.commit(next).await, "a commit afterwards");
    check_line(store, &tenant, &session, 8).await;
}

/// Bodies of several parts, larger and smaller than what they replace, read while they are replaced.
///
/// # Panics
/// If the store breaks a promise.
pub async fn large_bodies_are_replaced_whole(store: Arc<dyn Store>) {
    let (tenant, session) = (fresh_tenant(), fresh_session());
    let of = |bytes: usize, fill: u8| vec![fill; bytes];
    let large = limits::ITEM_BODY_BYTES_MAX * 3 + 7;
    let commit = Batch::new(&tenant).opaque(&session, None, of(large, 1)).done();
    ok(store.commit(commit.clone()).await, "commit");
    let mut fill = 1;
    for bytes in [large / 2, 10, large, large + limits::ITEM_BODY_BYTES_MAX, 10, large] {
        let before = stored(&*store, &tenant, &session, 0).await;
        assert_eq!(before.body[..], of(before.body.len(), fill)[..]);
        fill += 1;
        let meta = SegmentMeta { body_bytes: bytes as u64, ..before.meta.clone() };
        let mut readers = JoinSet::new();
        for _ in 0..3 {
            let (store, tenant, session) = (store.clone(), tenant.clone(), session.clone());
            readers.spawn(async move {
                for _ in 0..4 {
                    let body = insist(|| store.body(&tenant, &session, Seq::ZERO), "body meanwhile").await;
                    let first = body[0];
                    assert!(body.iter().all(|byte| *byte == first), "a body of two");
                }
            });
        }
        let body = of(bytes, fill);
        ok(store.replace_body(&tenant, &session, &before, &meta, body.clone().into()).await, "replace_body");
        while let Some(done) = readers.join_next().await {
            done.expect("no reader saw a mixture");
        }
        assert_eq!(ok(store.body(&tenant, &session, Seq::ZERO).await, "body"), body);
        let metas = ok(store.segments(&tenant, &session, Seq::ZERO, Order::Asc, 2).await, "segments");
        assert_eq!(metas, [meta]);
    }
}

/// What is archived and expires does so, whatever became of its body meanwhile; and a pointer that was made from one
/// with what was erased does not bring it back.
///
/// # Panics
/// If the store breaks a promise.
pub async fn what_was_replaced_expires(store: &dyn Store, passage: &dyn Passage) {
    let (tenant, session) = (fresh_tenant(), fresh_session());
    let mut commits: Vec<Arc<Commit>> = Vec::new();
    for n in 0..4u8 {
        let head = commits.last().and_then(|commit| head_of(commit));
        let commit = match n {
            0 => {
                Batch::new(&tenant).events(&session, head, vec![a_start(&session, "namer", "planted")]).done()
            }
            1 => Batch::new(&tenant)
                .opaque(&session, head, vec![n; limits::ITEM_BODY_BYTES_MAX * 2 + 1])
                .done(),
            _ => sample_commit(&tenant, &session, head, 1),
        };
        ok(store.commit(commit.clone()).await, "commit");
        commits.push(commit);
    }
    let metas: Vec<SegmentMeta> = commits.iter().map(|commit| commit.segments[0].meta.clone()).collect();
    // The archiver has read the attributes, and then a body is replaced: by one of fewer parts, of none, of more.
    let mut expected = metas.clone();
    let before = stored(store, &tenant, &session, 1).await;
    let body = vec![9; limits::ITEM_BODY_BYTES_MAX * 3];
    expected[1].body_bytes = body.len() as u64;
    ok(store.replace_body(&tenant, &session, &before, &expected[1], body.into()).await, "replace_body");
    let pointer = pointer_over(&session, &metas[..2], 3);
    ok(store.advance_pointer(&tenant, &pointer).await, "advance_pointer");
    let at = passage.now().plus_ms(limits::EXPIRY_MARGIN_MS + 60_000);
    for (meta, at) in metas.iter().zip([at, at.plus_ms(60_000)]) {
        ok(store.mark_archived(&tenant, &session, meta, 3, Some(at)).await, "mark_archived");
        ok(store.mark_archived(&tenant, &session, meta, 3, Some(at)).await, "mark_archived again");
    }
    // Erased after it was archived: the pointer is without the name, whoever takes it out.
    let before = stored(store, &tenant, &session, 0).await;
    let (meta, body) = without(&before, &[1]);
    expected[0] = meta.clone();
    ok(store.replace_body(&tenant, &session, &before, &meta, body.into()).await, "replace_body");
    let there = ok(store.pointer(&tenant, &session).await, "pointer").expect("a pointer");
    let mut silent = there.clone();
    silent.archived.summary.agent_name = None;
    silent.archived.summary.tags.clear();
    if there.archived.summary.agent_name.is_some() {
        silent.scrubbed += 1;
        changed(store.replace_pointer(&tenant, &silent, &silent).await, "of another than what is there");
        ok(store.replace_pointer(&tenant, &there, &silent).await, "replace_pointer");
    }
    assert_eq!(ok(store.pointer(&tenant, &session).await, "pointer"), Some(silent.clone()));
    assert_eq!(silent.scrubbed, 1);
    // One that was made before moves no further.
    let stale = Pointer { last_batch: 4, ..pointer_over(&session, &metas[..3], 4) };
    changed(store.advance_pointer(&tenant, &stale).await, "a pointer from before");
    ok(store.advance_pointer(&tenant, &pointer).await, "one that would not rise");
    let next = Pointer { scrubbed: 1, ..pointer_over(&session, &expected[..3], 4) };
    ok(store.advance_pointer(&tenant, &next).await, "advance_pointer");
    assert_eq!(ok(store.pointer(&tenant, &session).await, "pointer"), Some(next));
    passage.pass(&tenant, &session, &expected[0], at).await;
    let left = ok(store.segments(&tenant, &session, Seq::ZERO, Order::Asc, 9).await, "segments");
    assert_eq!(left, [expected[1].clone(), metas[2].clone(), metas[3].clone()]);
}

/// The catalogue learns of a rewrite, and forgets none.
///
/// # Panics
/// If the store breaks a promise.
pub async fn a_batch_is_resized(store: &dyn Store) {
    let tenant = fresh_tenant();
    ok(store.resize_batch(&tenant, 1, 1, 5).await, "of no batch");
    for number in 1..=3 {
        ok(store.put_batch(&tenant, &sample_batch(number, number as u8)).await, "put_batch");
    }
    ok(store.mark_recorded(&tenant, 2).await, "mark_recorded");
    let before = ok(store.batches(&tenant, 1, 1).await, "batches").remove(0);
    for (revision, bytes, seen) in [(1, 10, (1, 10)), (3, 30, (3, 30)), (2, 20, (3, 30)), (3, 99, (3, 30))] {
        ok(store.resize_batch(&tenant, 2, revision, bytes).await, "resize_batch");
        let there = ok(store.batches(&tenant, 1, 1).await, "batches").remove(0);
        assert_eq!(there, BatchRecord { revision: seen.0, bytes: seen.1, ..before.clone() });
    }
    assert_eq!(ok(store.batches(&tenant, 0, 9).await, "batches").len(), 3);
}
