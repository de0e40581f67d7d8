use tokio::time::Instant;

use super::*;
use crate::objects::{Directory, conformance};

/// A directory that goes when it is dropped.
fn directory() -> (tempfile::TempDir, Arc<dyn ObjectStore>) {
    let dir = tempfile::tempdir().unwrap();
    let objects = Directory::open(dir.path()).unwrap();
    (dir, Arc::new(objects))
}

fn is_unknown<T>(result: &Result<T, ObjectError>) -> bool {
    matches!(result, Err(ObjectError::Unknown { .. }))
}

fn is_unavailable<T>(result: &Result<T, ObjectError>) -> bool {
    matches!(result, Err(ObjectError::Unavailable { .. }))
}

async fn keys(store: &dyn ObjectStore) -> Vec<String> {
    store.list("", None, 100).await.unwrap().into_iter().map(|listed| listed.key).collect()
}

#[tokio::test]
async fn each_fault_does_to_a_put_what_it_says() {
    let (_dir, inner) = directory();
    let conflict = ObjectError::Conflict { key: "d".into() };
    let store = Faulty::new(Arc::clone(&inner))
        .on(Op::Put, 1, Fault::Lose)
        .on(Op::Put, 2, Fault::ApplyThenError)
        .on(Op::Put, 4, Fault::Refuse(conflict))
        .on(Op::Put, 5, Fault::Delay(Duration::from_millis(20)))
        .on(Op::Put, 6, Fault::ApplyLate(Duration::from_millis(20)))
        .on(Op::Put, 7, Fault::ApplyPart(0))
        .on(Op::Put, 8, Fault::ApplyPart(1));
    let put = |key: &'static str| store.put(key, key.into(), Condition::Absent);
    assert!(is_unknown(&put("a").await));
    assert!(keys(&*inner).await.is_empty(), "lost, and yet applied");
    assert!(is_unknown(&put("b").await));
    assert_eq!(keys(&*inner).await, ["b"], "applied, then an error");
    let tag = put("c").await.unwrap();
    assert_eq!(inner.get("c").await.unwrap().tag, tag);
    assert!(matches!(put("d").await, Err(ObjectError::Conflict { key }) if key == "d"));
    let began = Instant::now();
    put("e").await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(20));
    assert!(is_unknown(&put("f").await));
    assert_eq!(keys(&*inner).await, ["b", "c", "e"], "refused or late, and yet there");
    store.settle().await;
    assert_eq!(keys(&*inner).await, ["b", "c", "e", "f"], "never applied");
    assert!(is_unknown(&put("g").await) && is_unknown(&put("h").await));
    assert_eq!(keys(&*inner).await, ["b", "c", "e", "f", "h"]);
    assert_eq!((store.calls(Op::Put), store.calls(Op::List)), (8, 0));
    assert!(store.is_plan_done());
}

#[tokio::test]
async fn a_condition_holds_under_faults_too() {
    let (_dir, inner) = directory();
    let tag = inner.put("a", "1".into(), Condition::Absent).await.unwrap();
    let store = Faulty::new(Arc::clone(&inner)).on(Op::Put, 1, Fault::ApplyThenError).on(
        Op::Put,
        2,
        Fault::ApplyLate(Duration::from_millis(10)),
    );
    assert!(is_unknown(&store.put("a", "2".into(), Condition::Absent).await));
    assert!(is_unknown(&store.put("a", "3".into(), Condition::Matches(tag.clone())).await));
    inner.put("a", "4".into(), Condition::Matches(tag)).await.unwrap();
    store.settle().await;
    assert_eq!(inner.get("a").await.unwrap().bytes, "4");
}

#[tokio::test]
async fn part_of_several_is_written() {
    for crash in [false, true] {
        let mut sets = std::collections::BTreeSet::new();
        for count in [0, 3, 3, 20, 99] {
            let (_dir, inner) = directory();
            let fault = if crash { Fault::CrashPart(count) } else { Fault::ApplyPart(count) };
            let store = Faulty::new(Arc::clone(&inner)).on(Op::PutAbsent, 1, fault);
            let objects: Vec<_> = (0..20).map(|i| (format!("{i:02}"), Bytes::from_static(b"x"))).collect();
            assert!(is_unknown(&store.put_absent(objects).await));
            assert_eq!(store.has_crashed(), crash);
            let written = keys(&*inner).await;
            assert_eq!(written.len(), count.min(20));
            sets.insert(written);
        }
        assert_eq!(sets.len(), 3, "a plan does the same each time: {sets:?}");
        let first_three: Vec<String> = (0..3).map(|i| format!("{i:02}")).collect();
        assert!(!sets.contains(&first_three), "any of them, not only the first");
    }
}

#[tokio::test]
async fn after_a_crash_nothing_answers() {
    for applied in [false, true] {
        let (_dir, inner) = directory();
        let store = Faulty::new(Arc::clone(&inner)).on(Op::PutAbsent, 1, Fault::Crash { applied });
        let objects = vec![("a".to_owned(), Bytes::new()), ("b".to_owned(), Bytes::new())];
        assert!(is_unknown(&store.put_absent(objects).await));
        assert!(store.has_crashed());
        assert!(is_unavailable(&store.get("a").await));
        assert!(is_unavailable(&store.get_range("a", 0..1).await));
        assert!(is_unavailable(&store.size("a").await));
        assert!(is_unavailable(&store.list("", None, 1).await));
        assert!(is_unavailable(&store.put("c", Bytes::new(), Condition::Absent).await));
        assert!(is_unavailable(&store.put_absent(Vec::new()).await));
        assert!(is_unavailable(&store.delete("a").await));
        assert_eq!(keys(&*inner).await.len(), if applied { 2 } else { 0 });
    }
}

#[tokio::test]
async fn a_crash_silences_what_is_under_way() {
    let (_dir, inner) = directory();
    let store = Faulty::new(Arc::clone(&inner)).on(Op::Put, 1, Fault::Delay(Duration::from_millis(50))).on(
        Op::Get,
        1,
        Fault::Crash { applied: false },
    );
    let put = store.put("a", "1".into(), Condition::Absent);
    let crash = async {
        sleep(Duration::from_millis(10)).await;
        store.get("a").await
    };
    let (put, get) = tokio::join!(put, crash);
    assert!(is_unknown(&put), "a dead process heard an answer");
    assert!(is_unavailable(&get));
    assert_eq!(keys(&*inner).await, ["a"], "it had been sent");
}

#[tokio::test]
async fn reads_and_deletes_fail_as_planned() {
    let (_dir, inner) = directory();
    inner.put("a", "1".into(), Condition::Absent).await.unwrap();
    let store = Faulty::new(Arc::clone(&inner))
        .on(Op::Get, 2, Fault::Lose)
        .on(Op::GetRange, 1, Fault::ApplyThenError)
        .on(Op::Size, 1, Fault::ApplyPart(1))
        .on(Op::List, 1, Fault::Refuse(unavailable(Op::List)))
        .on(Op::Delete, 1, Fault::Lose)
        .on(Op::Delete, 2, Fault::ApplyThenError);
    assert_eq!(store.get("a").await.unwrap().bytes, "1");
    assert!(is_unavailable(&store.get("a").await), "a read that is lost is not unknown");
    assert!(is_unavailable(&store.get_range("a", 0..1).await));
    assert!(is_unavailable(&store.size("a").await));
    assert!(is_unavailable(&store.list("", None, 1).await));
    assert!(is_unknown(&store.delete("a").await));
    assert_eq!(keys(&*inner).await, ["a"]);
    assert!(is_unknown(&store.delete("a").await));
    assert!(keys(&*inner).await.is_empty() && store.is_plan_done());
}

#[tokio::test]
async fn chances_come_true_and_repeat() {
    let chances = Chances {
        lose: 0.1,
        apply_then_error: 0.1,
        apply_late: 0.1,
        apply_part: 0.1,
        unavailable: 0.1,
        delay: 0.1,
        duration_max: Duration::from_millis(2),
        part_max: 3,
    };
    let run = |seed: u64| async move {
        let (_dir, inner) = directory();
        let store = Faulty::new(Arc::clone(&inner)).random(seed, chances);
        let mut outcomes = String::new();
        for i in 0..100 {
            outcomes.push(match store.put(&format!("{i:03}"), Bytes::new(), Condition::Absent).await {
                Ok(_) => 'o',
                Err(ObjectError::Unknown { .. }) => 'u',
                Err(_) => 'e',
            });
        }
        store.settle().await;
        (outcomes, keys(&*inner).await)
    };
    let (once, twice, other) = (run(1).await, run(1).await, run(2).await);
    assert_eq!(once, twice, "the same seed, and not the same run");
    assert_ne!(once, other);
    for kind in ['o', 'u', 'e'] {
        assert!(once.0.contains(kind), "{kind} never happens: {}", once.0);
    }
    let is_there = |i: usize| once.1.contains(&format!("{i:03}"));
    let unknown: Vec<usize> = once.0.char_indices().filter(|(_, c)| *c == 'u').map(|(i, _)| i).collect();
    assert!(unknown.iter().any(|i| is_there(*i)) && unknown.iter().any(|i| !is_there(*i)));
    assert!(once.0.char_indices().all(|(i, c)| (c != 'o' || is_there(i)) && (c != 'e' || !is_there(i))));
}

#[tokio::test]
async fn without_a_fault_it_is_the_store_itself() {
    let (_dir, inner) = directory();
    let store = Faulty::new(Arc::clone(&inner));
    conformance::what_is_written_is_read(&store).await;
    conformance::conditions_hold(&store).await;
    conformance::several_at_once(&store).await;
    conformance::delete(&store).await;
    conformance::lists_by_prefix_and_after(&store).await;
    assert_eq!(store.describe(), inner.describe());
}
