//! Commits and the reads that must see them at once.

use std::time::Duration;

use super::{
    Batch, HeadCheck, check_line, commit_id, entries_of, eventually, fresh_session, fresh_tenant, head_of,
    noise, noisy_text, now, ok, refused_for, same, sample_commit, sample_event, session,
};
use crate::ids::{Seq, SessionId};
use crate::limits;
use crate::segment::SegmentMeta;
use crate::store::{Order, Store, StoreError};

fn seq(value: u64) -> Seq {
    Seq::new(value).expect("a small sequence")
}

/// A session that was never written to has no head, no segments, no commits, no body.
///
/// # Panics
/// If the store breaks it.
pub async fn empty_session_is_empty(store: &dyn Store) {
    let (tenant, session) = (fresh_tenant(), fresh_session());
    assert_eq!(ok(store.head(&tenant, &session).await, "head"), None);
    assert_eq!(ok(store.commit_at(&tenant, &session, Seq::ZERO).await, "commit_at"), None);
    for order in [Order::Asc, Order::Desc] {
        for from in [Seq::ZERO, seq(7), Seq::MAX] {
            let metas = ok(store.segments(&tenant, &session, from, order, 10).await, "segments");
            assert_eq!(metas, [], "segments of an empty session from {from}, {order:?}");
        }
    }
    let body = store.body(&tenant, &session, Seq::ZERO).await;
    assert!(matches!(body, Err(StoreError::NotFound)), "body of an empty session: {body:?}");
    assert_eq!(ok(store.session(&tenant, &session).await, "session"), None);
}

/// What was committed is seen at once by `head`, `commit_at`, `segments` and `body`, byte for byte, after each of
/// many commits whose sequences cross the places where keys grow (10, 100, 256, 1000).
///
/// # Panics
/// If the store breaks it.
pub async fn commits_are_read_back_at_once(store: &dyn Store) {
    let (tenant, session) = (fresh_tenant(), fresh_session());
    let mut head = None;
    let mut written: Vec<SegmentMeta> = Vec::new();
    for count in [1, 1, 7, 1, 1, 89, 1, 155, 1, 743, 1, 24, 1000] {
        let commit = sample_commit(&tenant, &session, head, count);
        let segment = &commit.segments[0];
        ok(store.commit(commit.clone()).await, "commit");
        head = head_of(&commit);
        assert_eq!(ok(store.head(&tenant, &session).await, "head"), head, "right after a commit");
        let first = segment.meta.first;
        assert_eq!(ok(store.commit_at(&tenant, &session, first).await, "commit_at"), Some(commit.id));
        assert_eq!(ok(store.body(&tenant, &session, first).await, "body"), segment.body);
        let last = ok(store.segments(&tenant, &session, Seq::MAX, Order::Desc, 1).await, "segments");
        assert_eq!(last, std::slice::from_ref(&segment.meta), "the last segment right after its commit");
        written.push(segment.meta.clone());
    }
    for page in [1, 2, 5, 100] {
        assert_eq!(check_line(store, &tenant, &session, page).await, written, "in pages of {page}");
    }
}

/// `segments` from every kind of place (a first sequence, inside a segment, a last sequence, past the head), both
/// ways, with limits, against a plain model. `commit_at` and `body` know first sequences only.
///
/// # Panics
/// If the store breaks it.
pub async fn segments_from_anywhere(store: &dyn Store) {
    let (tenant, session) = (fresh_tenant(), fresh_session());
    let mut head = None;
    let mut written: Vec<SegmentMeta> = Vec::new();
    for count in [3, 1, 5, 250, 1, 2] {
        let commit = sample_commit(&tenant, &session, head, count);
        ok(store.commit(commit.clone()).await, "commit");
        head = head_of(&commit);
        written.push(commit.segments[0].meta.clone());
    }
    for from in [0, 1, 2, 3, 4, 6, 8, 9, 200, 255, 256, 258, 259, 260, 261, 262, 5000, i64::MAX as u64] {
        let from = seq(from);
        let up: Vec<_> = written.iter().filter(|m| m.last >= from).cloned().collect();
        let down: Vec<_> = written.iter().rev().filter(|m| m.first <= from).cloned().collect();
        for limit in [1, 2, 3, 1000] {
            for (order, model) in [(Order::Asc, &up), (Order::Desc, &down)] {
                let metas = ok(store.segments(&tenant, &session, from, order, limit).await, "segments");
                let expected = &model[..limit.min(model.len())];
                assert_eq!(metas, expected, "segments from {from}, {order:?}, at most {limit}");
            }
        }
        let starts = written.iter().find(|m| m.first == from);
        let at = ok(store.commit_at(&tenant, &session, from).await, "commit_at");
        assert_eq!(at, starts.map(|m| m.commit_id), "commit_at {from}");
        let body = store.body(&tenant, &session, from).await;
        match starts {
            Some(_) => drop(ok(body, "body")),
            None => assert!(matches!(body, Err(StoreError::NotFound)), "body at {from}: {body:?}"),
        }
    }
}

/// A commit that does not follow the head of its session is a `Conflict` that names the session, and leaves nothing:
/// the same again, another at a taken place, a longer one over the line's beginning; and, as far as `check` says that
/// the store looks, a gap, a start inside a segment, an empty session that does not begin at 0, and another hash.
///
/// # Panics
/// If the store breaks it.
pub async fn commit_must_follow_the_head(store: &dyn Store, check: HeadCheck) {
    let (tenant, session) = (fresh_tenant(), fresh_session());
    let one = sample_commit(&tenant, &session, None, 5);
    ok(store.commit(one.clone()).await, "commit");
    let two = sample_commit(&tenant, &session, head_of(&one), 5);
    ok(store.commit(two.clone()).await, "commit");
    let foreign = sample_commit(&tenant, &session, None, 10);
    let mut wrong = vec![
        ("the same commit again", one.clone()),
        ("the last commit again", two.clone()),
        ("another first commit", sample_commit(&tenant, &session, None, 5)),
        ("one that covers the whole line", foreign.clone()),
        ("another second commit", sample_commit(&tenant, &session, head_of(&one), 1)),
        ("a longer second commit", sample_commit(&tenant, &session, head_of(&one), 50)),
    ];
    if check >= HeadCheck::Sequence {
        let mut gap = head_of(&two).expect("it has events");
        gap.sequence = seq(gap.sequence.get() + 1);
        wrong.push(("a gap after the head", sample_commit(&tenant, &session, Some(gap), 1)));
        let mut inside = head_of(&one).expect("it has events");
        inside.sequence = seq(inside.sequence.get() - 2);
        wrong.push(("a start inside a segment", sample_commit(&tenant, &session, Some(inside), 1)));
        inside.sequence = seq(inside.sequence.get() + 4);
        wrong.push(("a start inside the last segment", sample_commit(&tenant, &session, Some(inside), 9)));
    }
    if check >= HeadCheck::Hash {
        let mut forked = head_of(&two).expect("it has events");
        forked.hash = head_of(&foreign).expect("it has events").hash;
        wrong.push(("the right place on another hash", sample_commit(&tenant, &session, Some(forked), 1)));
    }
    for (what, commit) in wrong {
        refused_for(store.commit(commit).await, &[&session], what);
        assert_eq!(ok(store.head(&tenant, &session).await, "head"), head_of(&two), "after {what}");
        assert_eq!(check_line(store, &tenant, &session, 10).await.len(), 2, "after {what}");
    }
    if check >= HeadCheck::Sequence {
        let empty = fresh_session();
        let commit = sample_commit(&tenant, &empty, head_of(&one), 1);
        refused_for(store.commit(commit).await, &[&empty], "an empty session that begins past 0");
        assert_eq!(ok(store.head(&tenant, &empty).await, "head"), None);
    }
    let three = sample_commit(&tenant, &session, head_of(&two), 1);
    ok(store.commit(three).await, "a right commit after wrong ones");
    assert_eq!(check_line(store, &tenant, &session, 10).await.len(), 3);
}

/// P3: of a batch over several sessions of which one conflicts, whichever it is, nothing is written: no segment, no
/// idempotency key, and nothing in feed, time index, sessions or agents by the time a later batch shows up there.
///
/// # Panics
/// If the store breaks it.
pub async fn batch_is_all_or_nothing(store: &dyn Store, lag: Duration) {
    let tenant = fresh_tenant();
    let taken = session("m taken");
    let first = sample_commit(&tenant, &taken, None, 2);
    ok(store.commit(first.clone()).await, "commit");
    let others: Vec<SessionId> = ["a", "l", "n", "z"].into_iter().map(session).collect();
    for position in 0..=others.len() {
        let mut batch = Batch::new(&tenant);
        for (index, other) in others.iter().enumerate() {
            if index == position {
                batch = batch.sample(&taken, None, 1);
            }
            let events = vec![sample_event(other, "ghost", None, "1".into())];
            batch = batch.events(other, None, events);
        }
        if position == others.len() {
            batch = batch.sample(&taken, None, 1);
        }
        let key = [position as u8; 32];
        let commit = batch.key(key, 60_000).done();
        let what = format!("a batch whose segment {position} conflicts");
        refused_for(store.commit(commit.clone()).await, &[&taken], &what);
        for other in &others {
            assert_eq!(ok(store.head(&tenant, other).await, "head"), None, "{what}: left {other}");
            assert_eq!(ok(store.commit_at(&tenant, other, Seq::ZERO).await, "commit_at"), None, "{what}");
            let body = store.body(&tenant, other, Seq::ZERO).await;
            assert!(matches!(body, Err(StoreError::NotFound)), "{what}: left a body of {other}: {body:?}");
        }
        assert_eq!(ok(store.idempotency(&tenant, &key).await, "idempotency"), None, "{what}: left its key");
        assert_eq!(ok(store.feed_commit(&tenant, commit.id).await, "feed_commit"), [], "{what}");
    }
    assert_eq!(check_line(store, &tenant, &taken, 10).await.len(), 1);
    let late = fresh_session();
    let last = Batch::at(&tenant, now().plus_ms(5)).sample(&late, None, 1).done();
    ok(store.commit(last.clone()).await, "commit");
    let expected = [entries_of(&first), entries_of(&last)].concat();
    eventually(lag, "nothing of a refused batch is anywhere", || async {
        let feed = ok(store.feed(&tenant, None, 100).await, "feed");
        same("feed", &feed, &expected)?;
        let page = ok(store.by_time(&tenant, Order::Asc, None, None, 100).await, "by_time");
        same("count by time", &page.entries.len(), &2)?;
        let sessions = ok(store.sessions(&tenant, None, None, 100).await, "sessions");
        let names: Vec<_> = sessions.into_iter().map(|s| s.session_id).collect();
        same("sessions", &names, &vec![late.clone(), taken.clone()])?;
        let agents = ok(store.agents(&tenant, None, 100).await, "agents");
        same("agents", &agents.iter().map(|a| a.agent_id.as_str()).collect(), &vec!["sampler"])
    })
    .await;
}

/// A batch over several sessions is there as a whole at once, under one commit id.
///
/// # Panics
/// If the store breaks it.
pub async fn batch_over_many_sessions(store: &dyn Store) {
    let tenant = fresh_tenant();
    let sessions: Vec<_> = (0..90).map(|_| fresh_session()).collect();
    let mut heads = vec![None; sessions.len()];
    for round in 1..=2 {
        let mut batch = Batch::new(&tenant);
        for (session, head) in sessions.iter().zip(&heads) {
            batch = batch.sample(session, *head, round);
        }
        let commit = batch.key([round as u8; 32], 60_000).done();
        ok(store.commit(commit.clone()).await, "a commit over 90 sessions");
        heads = commit.segments.iter().map(|s| Some(s.meta.head())).collect();
        for (session, head) in sessions.iter().zip(&heads) {
            assert_eq!(ok(store.head(&tenant, session).await, "head"), *head);
        }
    }
    for session in &sessions {
        assert_eq!(check_line(store, &tenant, session, 10).await.len(), 2);
    }
}

/// Large bodies come back byte for byte: 1 MB in one segment; 3.4 MB in one batch of several sessions; and every
/// size around the ends of parts, where a backend cuts.
///
/// # Panics
/// If the store breaks it.
pub async fn large_bodies(store: &dyn Store) {
    let (tenant, session) = (fresh_tenant(), fresh_session());
    let events = (0..2).map(|n| sample_event(&session, "big", None, noisy_text(n, 640_000))).collect();
    let commit = Batch::new(&tenant).events(&session, None, events).done();
    assert!(commit.segments[0].meta.body_bytes > 1_000_000, "the sample is too small");
    ok(store.commit(commit.clone()).await, "a body of 1 MB");
    check_line(store, &tenant, &session, 10).await;
    let after = sample_commit(&tenant, &session, head_of(&commit), 1);
    ok(store.commit(after).await, "a small body after a large one");
    assert_eq!(check_line(store, &tenant, &session, 10).await.len(), 2);

    let sessions: Vec<_> = (0..4).map(|_| fresh_session()).collect();
    let mut batch = Batch::new(&tenant);
    for (n, session) in (10..).zip(&sessions) {
        let text = noisy_text(n, limits::PAYLOAD_BYTES_MAX - 8000);
        batch = batch.events(session, None, vec![sample_event(session, "big", None, text)]);
    }
    let commit = batch.done();
    let total: usize = commit.segments.iter().map(|s| s.body.len()).sum();
    assert!((3_350_000..=limits::COMMIT_BYTES_MAX).contains(&total), "the sample encodes to {total} bytes");
    ok(store.commit(commit.clone()).await, "a batch of 3.4 MB");
    for (session, segment) in sessions.iter().zip(&commit.segments) {
        assert!(
            ok(store.body(&tenant, session, Seq::ZERO).await, "body") == segment.body,
            "a large body changed"
        );
        check_line(store, &tenant, session, 10).await;
    }

    let part = limits::ITEM_BODY_BYTES_MAX;
    let session = fresh_session();
    let mut head = None;
    for size in [1, part - 1, part, part + 1, 2 * part - 1, 2 * part, 2 * part + 1, 3_400_000] {
        let body = noise(size as u64, size);
        let commit = Batch::new(&tenant).opaque(&session, head, body.clone()).done();
        ok(store.commit(commit.clone()).await, "a body around a part's end");
        let read = ok(store.body(&tenant, &session, commit.segments[0].meta.first).await, "body");
        assert!(read == body, "a body of {size} bytes came back as another of {} bytes", read.len());
        head = head_of(&commit);
    }
    assert_eq!(ok(store.head(&tenant, &session).await, "head"), head);
}

/// Where `orders_commits` is true (`ordered` says what the backend promises), the call itself hands a batch over:
/// batches chained one on the other without waiting all succeed whatever the order in which they are awaited, and
/// one whose answer is never awaited is written too.
///
/// # Panics
/// If the store breaks it, or promises something else than `ordered`.
pub async fn commits_take_effect_in_call_order(store: &dyn Store, ordered: bool) {
    assert_eq!(store.orders_commits(), ordered, "orders_commits");
    if !ordered {
        return;
    }
    let (tenant, session) = (fresh_tenant(), fresh_session());
    let mut head = None;
    let mut answers = Vec::new();
    for count in 1..=50 {
        let commit = sample_commit(&tenant, &session, head, count);
        head = head_of(&commit);
        answers.push(store.commit(commit));
    }
    while let Some(answer) = answers.pop() {
        ok(answer.await, "a commit chained on one that was handed over");
    }
    assert_eq!(check_line(store, &tenant, &session, 100).await.len(), 50);

    let dropped = sample_commit(&tenant, &session, head, 1);
    drop(store.commit(dropped.clone()));
    let next = sample_commit(&tenant, &session, head_of(&dropped), 1);
    ok(store.commit(next).await, "a commit chained on one whose answer nobody awaits");
    assert_eq!(check_line(store, &tenant, &session, 100).await.len(), 52);

    // A refused batch takes nothing of what is chained on it along, and stops nothing after it.
    let at = ok(store.head(&tenant, &session).await, "head");
    let refused = Batch::new(&tenant).sample(&session, None, 1).done();
    let good = sample_commit(&tenant, &session, at, 1);
    let orphan = sample_commit(&tenant, &session, at, 1);
    let (refused, good, orphan) = (store.commit(refused), store.commit(good.clone()), store.commit(orphan));
    refused_for(refused.await, &[&session], "a batch on an old head");
    ok(good.await, "a good batch behind a refused one");
    refused_for(orphan.await, &[&session], "a second batch on the same head");
    assert_eq!(check_line(store, &tenant, &session, 100).await.len(), 53);
}

/// A commit id's order has no say in a session: a batch whose clock was behind follows the head all the same.
///
/// # Panics
/// If the store breaks it.
pub async fn commit_ids_need_not_rise(store: &dyn Store) {
    let (tenant, session) = (fresh_tenant(), fresh_session());
    let mut head = None;
    let mut ids = Vec::new();
    for shift_ms in [0, -5000, 3000, -1] {
        let at = now().plus_ms(shift_ms);
        let commit = Batch::at(&tenant, at).sample(&session, head, 2).done();
        ok(store.commit(commit.clone()).await, "a commit of another clock");
        head = head_of(&commit);
        ids.push(commit.id);
    }
    let line = check_line(store, &tenant, &session, 3).await;
    assert_eq!(line.iter().map(|m| m.commit_id).collect::<Vec<_>>(), ids);
    let unknown = commit_id(now());
    assert_eq!(ok(store.feed_commit(&tenant, unknown).await, "feed_commit"), []);
}
