use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::*;
use crate::ids::Seq;
use crate::store::conformance::{
    Batch, Swept, batch_number_is_taken_once, check_line, feed_holds_every_segment_in_order, fresh_session,
    fresh_tenant, fresh_token, head_of, head_outlives_its_segments, many_writers_many_sessions,
    many_writers_one_session, now, open_lists_what_is_not_archived, pointer_only_rises, pointer_over,
    sample_batch, sample_commit, sessions_are_listed_newest_first, sessions_outlive_their_segments,
    writers_and_an_archiver,
};
use crate::store::embedded::{EmbeddedOptions, EmbeddedStore};

/// A store on a directory that goes when it is dropped.
fn embedded() -> (tempfile::TempDir, Arc<dyn Store>) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store =
        EmbeddedStore::open(&dir.path().join("store.redb"), &EmbeddedOptions::default()).expect("a store");
    (dir, Arc::new(store))
}

fn is_unknown<T>(result: &Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::Unknown { .. }))
}

fn is_unavailable<T>(result: &Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::Unavailable { .. }))
}

#[tokio::test]
async fn each_fault_does_to_a_commit_what_it_says() {
    let (_dir, inner) = embedded();
    let (tenant, session) = (fresh_tenant(), fresh_session());
    let throttled = StoreError::Throttled { retry_after: Duration::from_secs(1) };
    let store = Faulty::new(inner.clone())
        .on(Op::Commit, 1, Fault::Lose)
        .on(Op::Commit, 2, Fault::ApplyThenError)
        .on(Op::Commit, 4, Fault::Refuse(throttled))
        .on(Op::Commit, 5, Fault::Delay(Duration::from_millis(20)))
        .on(Op::Commit, 6, Fault::ApplyLate(Duration::from_millis(20)));
    let one = sample_commit(&tenant, &session, None, 1);
    assert!(is_unknown(&store.commit(one.clone()).await));
    assert_eq!(inner.head(&tenant, &session).await.unwrap(), None, "lost, and yet applied");
    assert!(is_unknown(&store.commit(one.clone()).await));
    assert_eq!(inner.head(&tenant, &session).await.unwrap(), head_of(&one), "applied, then an error");
    let two = sample_commit(&tenant, &session, head_of(&one), 1);
    store.commit(two.clone()).await.unwrap();
    let three = sample_commit(&tenant, &session, head_of(&two), 1);
    assert!(matches!(store.commit(three.clone()).await, Err(StoreError::Throttled { .. })));
    assert_eq!(inner.head(&tenant, &session).await.unwrap(), head_of(&two), "refused, and yet applied");
    let began = Instant::now();
    store.commit(three.clone()).await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(20));
    let four = sample_commit(&tenant, &session, head_of(&three), 1);
    assert!(is_unknown(&store.commit(four.clone()).await));
    assert_eq!(inner.head(&tenant, &session).await.unwrap(), head_of(&three), "late, and yet at once");
    store.settle().await;
    assert_eq!(inner.head(&tenant, &session).await.unwrap(), head_of(&four), "never applied");
    assert_eq!(store.calls(Op::Commit), 6);
    assert_eq!(store.calls(Op::Head), 0, "the tests asked the inner store");
    assert!(store.is_plan_done());
}

#[tokio::test]
async fn after_a_crash_nothing_answers() {
    for applied in [false, true] {
        let (_dir, inner) = embedded();
        let (tenant, session) = (fresh_tenant(), fresh_session());
        let store = Faulty::new(inner.clone()).on(Op::Commit, 2, Fault::Crash { applied });
        let one = sample_commit(&tenant, &session, None, 1);
        store.commit(one.clone()).await.unwrap();
        let two = sample_commit(&tenant, &session, head_of(&one), 1);
        assert!(is_unknown(&store.commit(two.clone()).await));
        assert!(store.has_crashed());
        assert!(is_unavailable(&store.head(&tenant, &session).await));
        assert!(is_unavailable(&store.commit(two.clone()).await));
        assert!(is_unavailable(&store.create_token(&fresh_token(&tenant), false).await));
        assert_eq!(store.calls(Op::Commit), 3, "calls of the dead count");
        let head = if applied { head_of(&two) } else { head_of(&one) };
        assert_eq!(inner.head(&tenant, &session).await.unwrap(), head);
    }
}

#[tokio::test]
async fn a_crash_silences_what_is_under_way() {
    let (_dir, inner) = embedded();
    let (tenant, session) = (fresh_tenant(), fresh_session());
    let store = Faulty::new(inner.clone()).on(Op::Commit, 1, Fault::Delay(Duration::from_millis(20))).on(
        Op::Head,
        1,
        Fault::Crash { applied: false },
    );
    let commit = sample_commit(&tenant, &session, None, 1);
    let under_way = store.commit(commit.clone());
    assert!(is_unavailable(&store.head(&tenant, &session).await));
    assert!(is_unknown(&under_way.await), "a dead process heard an answer");
    assert_eq!(inner.head(&tenant, &session).await.unwrap(), head_of(&commit), "it had been handed over");
}

#[tokio::test]
async fn reads_and_other_writes_fail_as_planned() {
    let (_dir, inner) = embedded();
    let tenant = fresh_tenant();
    let store = Faulty::new(inner.clone())
        .on(Op::Tokens, 2, Fault::Lose)
        .on(Op::CreateToken, 1, Fault::ApplyThenError)
        .on(Op::CreateToken, 2, Fault::Lose);
    let (kept, lost) = (fresh_token(&tenant), fresh_token(&tenant));
    assert!(is_unknown(&store.create_token(&kept, false).await));
    assert!(is_unknown(&store.create_token(&lost, false).await));
    assert_eq!(store.tokens(&tenant).await.unwrap(), std::slice::from_ref(&kept));
    assert!(is_unavailable(&store.tokens(&tenant).await), "a read that is lost is not unknown");
    store.plan_next(Op::RevokeToken, Fault::ApplyLate(Duration::from_millis(5)));
    assert!(is_unknown(&store.revoke_token(&tenant, &kept.id, now()).await));
    store.settle().await;
    assert!(inner.token_by_hash(&kept.hash).await.unwrap().unwrap().revoked_at.is_some());
}

#[tokio::test]
async fn order_is_promised_only_while_nothing_comes_late() {
    let (_dir, inner) = embedded();
    let ordered = inner.orders_commits();
    let store = Faulty::new(inner.clone()).on(Op::Commit, 1, Fault::Lose);
    assert_eq!(store.orders_commits(), ordered);
    store.plan_next(Op::CreateToken, Fault::ApplyLate(Duration::ZERO));
    assert_eq!(store.orders_commits(), ordered);
    store.plan(Op::Commit, 9, Fault::ApplyLate(Duration::ZERO));
    assert!(!store.orders_commits());
    let late = Chances { apply_late: 0.1, ..Chances::default() };
    assert!(!Faulty::new(inner).random(1, late).orders_commits());
}

#[tokio::test]
async fn random_faults_can_be_repeated() {
    let (_dir, inner) = embedded();
    let chances = Chances { lose: 0.3, unavailable: 0.3, ..Chances::default() };
    let mut runs = Vec::new();
    for seed in [7, 7, 8] {
        let store = Faulty::new(inner.clone()).random(seed, chances);
        let mut outcomes = Vec::new();
        for _ in 0..200 {
            let tenant = fresh_tenant();
            let commit = Batch::new(&tenant).sample(&fresh_session(), None, 1).done();
            outcomes.push(match store.commit(commit).await {
                Ok(()) => 'o',
                Err(StoreError::Unknown { .. }) => 'l',
                Err(_) => 'u',
            });
        }
        for outcome in ['o', 'l', 'u'] {
            let count = outcomes.iter().filter(|o| **o == outcome).count();
            assert!((40..=120).contains(&count), "{count} of 200 ended in {outcome}");
        }
        runs.push(outcomes);
    }
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0], runs[2]);
}

#[tokio::test]
async fn p9_hidden_entries_come_in_any_order_and_all_come() {
    let (_dir, inner) = embedded();
    let tenant = fresh_tenant();
    let lag = Duration::from_millis(300);
    let store = Faulty::new(inner.clone()).hide_feed(lag);
    let began = Instant::now();
    let mut written = Vec::new();
    for n in 0..30 {
        let session = fresh_session();
        let commit = Batch::at(&tenant, now().plus_ms(n)).sample(&session, None, 1).done();
        store.commit(commit.clone()).await.unwrap();
        assert!(store.head(&tenant, &session).await.unwrap().is_some(), "the head may not lag");
        written.push(commit.id);
    }
    let mut shuffled = false;
    loop {
        let feed = store.feed(&tenant, None, 100).await.unwrap();
        // A later entry is seen while an earlier one is not.
        shuffled |= feed
            .last()
            .is_some_and(|last| feed.len() <= written.iter().filter(|c| **c < last.meta.commit_id).count());
        if feed.len() == written.len() {
            break;
        }
        assert!(began.elapsed() < 10 * lag, "still hidden: {} of {}", feed.len(), written.len());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(shuffled, "what is hidden came in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_passes_over_a_store_that_lags() {
    let (_dir, inner) = embedded();
    let lag = Duration::from_millis(200);
    let store = Faulty::new(inner).hide_feed(lag);
    feed_holds_every_segment_in_order(&store, 20 * lag).await;
    sessions_are_listed_newest_first(&store, 20 * lag).await;
    open_lists_what_is_not_archived(&store, 20 * lag).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_archived_goes_from_a_store_that_lags() {
    let (_dir, inner) = embedded();
    let lag = Duration::from_millis(100);
    let passage = Swept(inner.clone());
    let store = Faulty::new(inner).hide_feed(lag);
    head_outlives_its_segments(&store, &passage, crate::store::conformance::HeadCheck::Hash, 20 * lag).await;
    sessions_outlive_their_segments(&store, &passage, 20 * lag).await;
}

#[tokio::test]
async fn what_the_archiver_writes_fails_as_planned() {
    let (_dir, inner) = embedded();
    let (tenant, session) = (fresh_tenant(), fresh_session());
    let commit = sample_commit(&tenant, &session, None, 2);
    let meta = commit.segments[0].meta.clone();
    inner.commit(commit).await.unwrap();
    let store = Faulty::new(inner.clone())
        .on(Op::AdvancePointer, 1, Fault::Lose)
        .on(Op::AdvancePointer, 2, Fault::ApplyThenError)
        .on(Op::MarkArchived, 1, Fault::ApplyLate(Duration::from_millis(5)))
        .on(Op::MarkBroken, 1, Fault::ApplyThenError)
        .on(Op::PutBatch, 1, Fault::ApplyThenError)
        .on(Op::MarkRecorded, 1, Fault::Lose)
        .on(Op::Expire, 1, Fault::Lose)
        .on(Op::OpenSegments, 1, Fault::Lose)
        .on(Op::Pointer, 1, Fault::Lose)
        .on(Op::LastBatch, 1, Fault::Lose)
        .on(Op::Batches, 1, Fault::Lose);
    let pointer = pointer_over(&session, std::slice::from_ref(&meta), 1);
    assert!(is_unavailable(&store.pointer(&tenant, &session).await), "a read that is lost is not unknown");
    assert!(is_unknown(&store.advance_pointer(&tenant, &pointer).await));
    assert_eq!(store.pointer(&tenant, &session).await.unwrap(), None);
    assert!(is_unknown(&store.advance_pointer(&tenant, &pointer).await));
    assert_eq!(store.pointer(&tenant, &session).await.unwrap(), Some(pointer));

    let at = now().plus_ms(1000);
    assert!(is_unknown(&store.mark_archived(&tenant, &session, &meta, 1, Some(at)).await));
    assert!(is_unavailable(&store.open_segments(&tenant, None, 9).await));
    assert_eq!(store.open_segments(&tenant, None, 9).await.unwrap().len(), 1, "late, and yet at once");
    store.settle().await;
    assert_eq!(store.open_segments(&tenant, None, 9).await.unwrap(), []);
    assert!(is_unknown(&store.expire(at.plus_ms(1), 9).await));
    assert_eq!(store.expire(at.plus_ms(1), 9).await.unwrap(), 1, "lost, and yet applied");

    assert!(is_unknown(&store.mark_broken(&tenant, &session, Seq::ZERO, at).await));
    assert!(!store.mark_broken(&tenant, &session, Seq::ZERO, at).await.unwrap(), "it is known already");

    let batch = sample_batch(1, 1);
    assert!(is_unknown(&store.put_batch(&tenant, &batch).await));
    assert!(is_unavailable(&store.last_batch(&tenant).await));
    assert_eq!(store.last_batch(&tenant).await.unwrap(), Some(batch));
    assert!(is_unknown(&store.mark_recorded(&tenant, 1).await));
    assert!(is_unavailable(&store.batches(&tenant, 0, 9).await));
    assert!(!store.batches(&tenant, 0, 9).await.unwrap()[0].recorded);
    store.mark_recorded(&tenant, 1).await.unwrap();
    assert!(store.batches(&tenant, 0, 9).await.unwrap()[0].recorded);
    assert!(store.is_plan_done());
}

#[tokio::test(flavor = "multi_thread")]
async fn p1_p2_p3_writers_make_one_line_under_every_fault() {
    let (_dir, inner) = embedded();
    let chances = Chances {
        lose: 0.05,
        apply_then_error: 0.05,
        apply_late: 0.05,
        throttle: 0.05,
        unavailable: 0.05,
        delay: 0.1,
        duration_max: Duration::from_millis(10),
    };
    let store = Arc::new(Faulty::new(inner.clone()).random(3, chances));
    many_writers_one_session(store.clone(), 20, 5).await;
    many_writers_many_sessions(store.clone(), 10, 5).await;
    pointer_only_rises(store.clone()).await;
    batch_number_is_taken_once(store.clone()).await;
    writers_and_an_archiver(store.clone(), &Swept(inner.clone()), 8, 5).await;
    store.settle().await;
    let (tenant, session) = (fresh_tenant(), fresh_session());
    inner.commit(sample_commit(&tenant, &session, None, 1)).await.unwrap();
    assert_eq!(check_line(&*inner, &tenant, &session, 10).await.len(), 1, "the store goes on");
}
