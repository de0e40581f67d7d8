//! A database of version 1 opens, and loses nothing.
#![cfg(feature = "testing")]

use redb::{Database, TableDefinition};

use super::super::Inspector;
use super::*;
use crate::segment::unpacked_bytes;
use crate::store::conformance as suite;
use crate::store::{Order, Store};

type Bytes = &'static [u8];

/// A file as it was before there was an archive: without its tables, and marked so.
async fn of_version_1() -> (tempfile::TempDir, Vec<Arc<Commit>>) {
    let (dir, store) = store();
    let mut commits = Vec::new();
    for tenant in [tenant(), TenantId::parse("default-").unwrap()] {
        for name in ["a", "b"].map(session) {
            let mut head = None;
            for count in [1, 30, 1000] {
                let commit = suite::sample_commit(&tenant, &name, head, count);
                head = suite::head_of(&commit);
                store.commit(commit.clone()).await.unwrap();
                commits.push(commit);
            }
        }
    }
    drop(store);
    let db = Database::open(dir.path().join("ledger.redb")).unwrap();
    let txn = db.begin_write().unwrap();
    for name in ["open", "pointers", "batches", "expiry", "broken", "erasures"] {
        assert!(txn.delete_table(TableDefinition::<Bytes, Bytes>::new(name)).unwrap(), "{name}");
    }
    let state = TableDefinition::<Bytes, Bytes>::new("state");
    txn.open_table(state).unwrap().insert(&b"format"[..], &[1u8][..]).unwrap();
    txn.commit().unwrap();
    (dir, commits)
}

fn check(path: &Path) -> Inspector {
    let inspector = Inspector::open(path).unwrap();
    let mut found = Vec::new();
    inspector.check_derived(&mut |misfit| found.push(misfit)).unwrap();
    assert_eq!(found, []);
    inspector
}

#[tokio::test]
async fn an_old_database_is_brought_to_this_version() {
    let (dir, commits) = of_version_1().await;
    let path = dir.path().join("ledger.redb");
    // A verifier reads it as it is.
    let before = std::fs::read(&path).unwrap();
    let inspector = check(&path);
    assert_eq!(inspector.sessions().unwrap().count(), 4);
    assert_eq!(inspector.pointers().unwrap().count(), 0);
    let one = &commits[0];
    let open = inspector.open_segment(&one.tenant, &one.segments[0].session_id, one.id).unwrap();
    assert_eq!(open, None);
    drop(inspector);
    assert!(std::fs::read(&path).unwrap() == before, "the file was modified");

    for _ in 0..2 {
        let store = super::open(dir.path());
        for name in ["default", "default-"] {
            let tenant = TenantId::parse(name).unwrap();
            let mut expected: Vec<_> = commits
                .iter()
                .filter(|commit| commit.tenant == tenant)
                .map(|c| (c.id, c.segments[0].session_id.clone(), unpacked_bytes(&c.segments[0].body)))
                .collect();
            expected.sort();
            let found = store.open_segments(&tenant, None, 100).await.unwrap();
            let found: Vec<_> =
                found.into_iter().map(|e| (e.position.commit_id, e.position.session_id, e.bytes)).collect();
            assert_eq!(found, expected);
            assert_eq!(store.last_batch(&tenant).await.unwrap(), None);
        }
        for commit in &commits {
            let segment = &commit.segments[0];
            let body = store.body(&commit.tenant, &segment.session_id, segment.meta.first).await.unwrap();
            assert_eq!(body, segment.body);
        }
        drop(store);
        check(&path);
    }
    let store = super::open(dir.path());
    let name = session("a");
    let head = store.head(&tenant(), &name).await.unwrap();
    store.commit(suite::sample_commit(&tenant(), &name, head, 1)).await.unwrap();
    assert_eq!(store.segments(&tenant(), &name, Seq::ZERO, Order::Asc, 10).await.unwrap().len(), 4);
    assert_eq!(store.open_segments(&tenant(), None, 100).await.unwrap().len(), 7);
}

#[tokio::test]
async fn damage_in_an_old_body_does_not_keep_the_rest_from_opening() {
    let (dir, commits) = of_version_1().await;
    let db = Database::open(dir.path().join("ledger.redb")).unwrap();
    let txn = db.begin_write().unwrap();
    let parts = TableDefinition::<u64, Bytes>::new("bodies");
    txn.open_table(parts).unwrap().insert(0, &b"no body"[..]).unwrap();
    txn.commit().unwrap();
    drop(db);
    let store = super::open(dir.path());
    assert_eq!(store.open_segments(&tenant(), None, 100).await.unwrap().len(), commits.len() / 2);
}

#[test]
fn other_versions_are_refused() {
    let (dir, first) = store();
    drop(first);
    for mark in [&[][..], &[0], &[4], &[1, 0], &[2, 2]] {
        let db = Database::open(dir.path().join("ledger.redb")).unwrap();
        let txn = db.begin_write().unwrap();
        let state = TableDefinition::<Bytes, Bytes>::new("state");
        txn.open_table(state).unwrap().insert(&b"format"[..], mark).unwrap();
        txn.commit().unwrap();
        drop(db);
        let refused = EmbeddedStore::open(&dir.path().join("ledger.redb"), &EmbeddedOptions::default());
        assert!(matches!(refused, Err(crate::store::StoreError::Corrupt { .. })), "{mark:?}");
        assert!(Inspector::open(&dir.path().join("ledger.redb")).is_err());
    }
}
