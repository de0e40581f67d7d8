//! What expires: what is deleted, what must not be, and the check of what is left.

use std::path::PathBuf;

use super::super::{Inspector, Misfit, derived};
use super::*;
use crate::store::{FeedPosition, Order, Pointer, Store, StoreError};

/// A day, as far as expiry goes.
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

fn later(days: i64) -> Micros {
    crate::clock::Clock::now(&crate::clock::SystemClock).plus_ms(days * DAY_MS)
}

/// Appends a segment of ten events of this agent, and a body of this many bytes.
async fn append(store: &EmbeddedStore, ms: u64, name: &SessionId, agent: &str, body: usize) -> SegmentMeta {
    let head = store.head(&tenant(), name).await.unwrap();
    let mut commit = Arc::unwrap_or_clone(batch(ms, &[(name, head)], body));
    let at = Micros::from_unix_ms(ms as i64);
    let mut meta = meta(commit.id, head, 10, (at, at), agent);
    meta.body_bytes = body as u64;
    commit.segments[0].meta = meta.clone();
    store.commit(Arc::new(commit)).await.unwrap();
    meta
}

fn pointer_over(name: &SessionId, metas: &[SegmentMeta]) -> Pointer {
    let record = metas.iter().fold(None, |before, meta| Some(derived::session_after(before, name, meta)));
    Pointer { archived: record.unwrap(), first_batch: 1, last_batch: 1, scrubbed: 0 }
}

async fn mark(store: &EmbeddedStore, name: &SessionId, meta: &SegmentMeta, at: Option<Micros>) {
    store.mark_archived(&tenant(), name, meta, 1, at).await.unwrap();
}

fn misfits(path: &Path) -> Vec<Misfit> {
    let mut found = Vec::new();
    Inspector::open(path).unwrap().check_derived(&mut |misfit| found.push(misfit)).unwrap();
    found
}

/// Looks at a copy of the open file.
fn check(dir: &tempfile::TempDir, what: &str) {
    let copy = dir.path().join("copy.redb");
    std::fs::copy(dir.path().join("ledger.redb"), &copy).unwrap();
    assert_eq!(misfits(&copy), [], "{what}");
    assert!(Inspector::open(&copy).unwrap().checksums().unwrap(), "{what}");
}

/// A file in which of three sessions one is open, one archived whole, and one has gone in part. Its agents are two.
pub(super) async fn partly_expired() -> (tempfile::TempDir, PathBuf) {
    let (dir, store) = store();
    for (n, name) in ["open", "whole", "part"].into_iter().enumerate() {
        let name = session(name);
        let mut metas = Vec::new();
        for round in 0..4u64 {
            let agent = if round == 1 { "other" } else { "bot" };
            metas.push(append(&store, n as u64 * 10 + round, &name, agent, 6000).await);
        }
        if n == 0 {
            continue;
        }
        store.advance_pointer(&tenant(), &pointer_over(&name, &metas[..3])).await.unwrap();
        for (at, meta) in metas[..3].iter().enumerate() {
            mark(&store, &name, meta, Some(later(if n == 1 || at == 0 { 9 } else { 2 }))).await;
        }
    }
    assert_eq!(store.expire(later(3), 100).await.unwrap(), 2);
    let path = dir.path().join("ledger.redb");
    (dir, path)
}

#[tokio::test]
async fn p8_nothing_above_the_pointer_goes() {
    let (dir, store) = store();
    let name = session("s");
    let metas = [append(&store, 1, &name, "bot", 900).await, append(&store, 2, &name, "bot", 900).await];
    store.advance_pointer(&tenant(), &pointer_over(&name, &metas[..1])).await.unwrap();
    for meta in &metas {
        mark(&store, &name, meta, Some(later(2))).await;
    }
    // Of another session nothing is archived at all.
    let other = session("t");
    let lost = append(&store, 3, &other, "bot", 900).await;
    mark(&store, &other, &lost, Some(later(2))).await;
    assert_eq!(store.expire(later(3), 100).await.unwrap(), 1);
    assert_eq!(store.expire(later(300), 100).await.unwrap(), 0);
    assert_eq!(store.head(&tenant(), &name).await.unwrap(), Some(metas[1].head()));
    assert_eq!(store.body(&tenant(), &name, metas[1].first).await.unwrap().len(), 900);
    assert_eq!(store.body(&tenant(), &other, lost.first).await.unwrap().len(), 900);
    drop(store);
    let found = misfits(&dir.path().join("ledger.redb"));
    let told: Vec<_> = found.iter().filter_map(|m| m.session.as_ref().map(|s| s.1.clone())).collect();
    assert_eq!(told, [name, other], "{found:?}");
}

#[tokio::test]
async fn expiry_goes_on_in_steps() {
    let (dir, store) = store();
    let name = session("s");
    let mut metas = Vec::new();
    for n in 0..10 {
        metas.push(append(&store, n, &name, "bot", 20_000).await);
    }
    store.advance_pointer(&tenant(), &pointer_over(&name, &metas)).await.unwrap();
    let base = later(2);
    let at = |n: i64| base.plus_ms(n * 1000);
    for (n, meta) in metas.iter().enumerate() {
        mark(&store, &name, meta, Some(at(n as i64))).await;
    }
    assert_eq!(store.expire(base, 100).await.unwrap(), 0, "not before its time");
    assert_eq!(store.expire(at(5), 3).await.unwrap(), 3);
    let left = store.segments(&tenant(), &name, Seq::ZERO, Order::Asc, 100).await.unwrap();
    assert_eq!(left, metas[3..], "the earliest go first");
    assert_eq!(store.expire(at(5), 3).await.unwrap(), 2);
    assert_eq!(store.expire(at(5), 3).await.unwrap(), 0);
    check(&dir, "half of it has gone");
    assert_eq!(store.expire(at(100), 100).await.unwrap(), 5);
    check(&dir, "all of it has gone");
    let inspector = Inspector::open(&dir.path().join("copy.redb")).unwrap();
    assert_eq!(inspector.body_part_count().unwrap(), 0);
    assert_eq!(inspector.pointers().unwrap().count(), 1);
}

/// At every step of an archiver and of expiry, and after a restart, what is left is sound.
#[tokio::test]
async fn what_is_left_is_sound_and_goes_on() {
    let (dir, mut store) = store();
    let names = ["a", "b", "crowd", "untouched"].map(session);
    let mut metas: [Vec<SegmentMeta>; 4] = Default::default();
    for n in 0..40u64 {
        for (name, metas) in names.iter().zip(&mut metas) {
            let crowd = format!("agent-{n}");
            match name.as_str() {
                // More agents than a session names.
                "crowd" => metas.push(append(&store, n * 7, name, &crowd, 300).await),
                _ if n < 5 => metas.push(append(&store, n * 5, name, "bot", 30_000).await),
                _ => {}
            }
        }
    }
    check(&dir, "nothing is archived");
    for (name, metas) in names[..3].iter().zip(&metas) {
        let until = metas.len() - 1;
        store.advance_pointer(&tenant(), &pointer_over(name, &metas[..until])).await.unwrap();
        check(&dir, "the pointer has moved, and no segment is marked");
        for (n, meta) in metas[..until].iter().enumerate() {
            // In one session the end goes first, in another the middle.
            let days = match name.as_str() {
                "a" => 10 - n as i64,
                "b" => 2 + (n as i64 * 3) % 5,
                _ => 2 + n as i64 % 9,
            };
            mark(&store, name, meta, Some(later(days))).await;
        }
        check(&dir, "the segments are marked");
    }
    for days in 2..12 {
        store.expire(later(days).plus_ms(60_000), 1000).await.unwrap();
        check(&dir, &format!("after {days} days"));
        for (name, metas) in names.iter().zip(&mut metas) {
            metas.push(append(&store, 1000 + days as u64, name, "late", 5000).await);
            let last = metas.last().unwrap();
            assert_eq!(last.prev_hash, metas[metas.len() - 2].last_hash);
        }
        check(&dir, &format!("after {days} days and appends"));
        if days % 4 == 0 {
            drop(store);
            store = open(dir.path());
        }
    }
    for (name, metas) in names.iter().zip(&metas) {
        let left = store.segments(&tenant(), name, Seq::ZERO, Order::Asc, 1000).await.unwrap();
        let kept = if name.as_str() == "untouched" { 0 } else { metas.len() - 11 };
        assert_eq!(left, metas[kept..], "{name}");
        for meta in left {
            let body = store.body(&tenant(), name, meta.first).await.unwrap();
            assert_eq!(body.len() as u64, meta.body_bytes);
        }
        let record = store.session(&tenant(), name).await.unwrap();
        assert_eq!(record, metas.iter().fold(None, |b, m| Some(derived::session_after(b, name, m))));
    }
}

/// A session that only its pointer knows (its segments were lost, and the pointer was made again from the archive).
#[tokio::test]
async fn a_pointer_brings_its_session_back() {
    let (_dir, store) = store();
    let (name, elsewhere) = (session("s"), super::store());
    let mut metas = Vec::new();
    for n in 0..3 {
        metas.push(append(&elsewhere.1, n, &name, "bot", 100).await);
    }
    let pointer = pointer_over(&name, &metas);
    store.advance_pointer(&tenant(), &pointer).await.unwrap();
    assert_eq!(store.head(&tenant(), &name).await.unwrap(), Some(metas[2].head()));
    let listed = store.sessions(&tenant(), None, None, 10).await.unwrap();
    assert_eq!(listed, std::slice::from_ref(&pointer.archived));
    metas.push(append(&store, 9, &name, "bot", 100).await);
    let record = store.session(&tenant(), &name).await.unwrap();
    assert_eq!(record, metas.iter().fold(None, |b, m| Some(derived::session_after(b, &name, m))));
}

#[tokio::test]
async fn what_the_archiver_wrote_is_there_after_reopening() {
    let (dir, first) = store();
    let name = session("s");
    let metas = [append(&first, 1, &name, "bot", 900).await, append(&first, 2, &name, "bot", 700).await];
    let pointer = pointer_over(&name, &metas[..1]);
    first.advance_pointer(&tenant(), &pointer).await.unwrap();
    mark(&first, &name, &metas[0], Some(later(2))).await;
    assert!(first.mark_broken(&tenant(), &name, metas[1].first, later(0)).await.unwrap());
    drop(first);
    let store = open(dir.path());
    assert_eq!(store.pointer(&tenant(), &name).await.unwrap(), Some(pointer));
    let open = store.open_segments(&tenant(), None, 9).await.unwrap();
    assert_eq!(open.len(), 1);
    let position = FeedPosition { commit_id: metas[1].commit_id, session_id: name.clone() };
    assert_eq!(open[0].position, position);
    assert!(!store.mark_broken(&tenant(), &name, metas[1].first, later(0)).await.unwrap());
    assert_eq!(store.expire(later(3), 9).await.unwrap(), 1);
    let body = store.body(&tenant(), &name, metas[0].first).await;
    assert!(matches!(body, Err(StoreError::NotFound)), "{body:?}");
}
