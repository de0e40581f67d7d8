//! Group commit, and what happens to batches that share a transaction.

use redb::{Database, ReadableTable};

use super::super::tables;
use super::*;
use crate::store::{BatchRecord, Conflict, Idempotency, Order, Pointer, Store, StoreError};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_share_transactions() {
    let (_dir, store) = store();
    let names: Vec<_> = (0..200).map(|n| session(&format!("s-{n}"))).collect();
    let pending: Vec<_> =
        names.iter().map(|name| store.commit(batch(1_770_000_000_000, &[(name, None)], 22_000))).collect();
    for outcome in futures_util::future::join_all(pending).await {
        outcome.unwrap();
    }
    let counts = store.write_counts();
    assert_eq!(counts.requests, 200);
    assert!(counts.transactions <= 100, "{counts:?}");
    for name in &names {
        assert_eq!(store.body(&tenant(), name, Seq::ZERO).await.unwrap().len(), 22_000);
    }
}

#[tokio::test]
async fn batches_take_effect_when_they_are_handed_over() {
    let (_dir, store) = store();
    let name = session("line");
    let mut head = None;
    let mut pending = Vec::new();
    for ms in 0..50 {
        let next = batch(ms, &[(&name, head)], 100);
        head = Some(next.segments[0].meta.head());
        pending.push(store.commit(next));
    }
    // Never polled, and yet written: only the last is awaited.
    pending.pop().unwrap().await.unwrap();
    assert_eq!(store.head(&tenant(), &name).await.unwrap(), head);
    drop(pending);
    assert_eq!(store.segments(&tenant(), &name, Seq::ZERO, Order::Asc, 100).await.unwrap().len(), 50);
}

#[tokio::test]
async fn a_refused_batch_leaves_its_neighbours_alone() {
    let (_dir, store) = store();
    let (a, b, c) = (session("a"), session("b"), session("c"));
    let first = batch(1, &[(&a, None)], 500);
    let late = batch(2, &[(&b, None), (&a, None)], 500);
    let last = batch(3, &[(&c, None)], 500);
    let pending = [store.commit(first), store.commit(late), store.commit(last)];
    let outcomes = futures_util::future::join_all(pending).await;
    assert!(outcomes[0].is_ok() && outcomes[2].is_ok(), "{outcomes:?}");
    match &outcomes[1] {
        Err(StoreError::Conflict(Conflict::Session(session))) => assert_eq!(session, &a),
        other => panic!("{other:?}"),
    }
    assert_eq!(store.head(&tenant(), &b).await.unwrap(), None);
    assert_eq!(store.feed(&tenant(), None, 10).await.unwrap().len(), 2);
    assert_eq!(store.sessions(&tenant(), None, None, 10).await.unwrap().len(), 2);
}

#[tokio::test]
async fn long_expired_idempotency_keys_are_swept_away() {
    let (dir, store) = store();
    let hour = 60 * 60 * 1000;
    for n in 0..40u64 {
        let name = session(&format!("s-{n}"));
        let mut commit = Arc::unwrap_or_clone(batch(n * hour, &[(&name, None)], 10));
        let at = commit.segments[0].meta.received_at;
        commit.idempotency = Some(Idempotency {
            key: [n as u8; 32],
            body: [0; 32],
            commit_id: commit.id,
            segments: vec![(name, Seq::ZERO)],
            created_at: at,
            expires_at: at.plus_ms(hour as i64),
        });
        store.commit(Arc::new(commit)).await.unwrap();
    }
    assert!(store.idempotency(&tenant(), &[39; 32]).await.unwrap().is_some());
    assert!(store.idempotency(&tenant(), &[38; 32]).await.unwrap().is_some(), "expired, but not for long");
    assert_eq!(store.idempotency(&tenant(), &[30; 32]).await.unwrap(), None);
    drop(store);
    let db = Database::open(dir.path().join("ledger.redb")).unwrap();
    let view = tables::Snapshot::new(&db).unwrap();
    let count = |table| view.table(table).unwrap().iter().unwrap().count();
    assert_eq!(count(tables::IDEMPOTENCY), count(tables::IDEMPOTENCY_EXPIRY));
    assert!(count(tables::IDEMPOTENCY) <= 4);
}

fn a_batch(id: CommitId) -> BatchRecord {
    BatchRecord {
        batch: 1,
        header_hash: [1; 32],
        first_leaf: 0,
        count: 10,
        root: [2; 32],
        claimed_at: Micros::from_unix_ms(9),
        commits: (id, id),
        times: (Micros::MIN, Micros::MAX),
        key: "events/batch".into(),
        bytes: 7,
        revision: 0,
        blooms: Default::default(),
        recorded: false,
    }
}

#[tokio::test]
async fn damaged_rows_are_corrupt_and_no_panic() {
    let (dir, first) = store();
    let name = session("s");
    let commit = batch(7, &[(&name, None)], 9000);
    let id = commit.id;
    let meta = commit.segments[0].meta.clone();
    first.commit(commit).await.unwrap();
    let archived = first.session(&tenant(), &name).await.unwrap().unwrap();
    let pointer = Pointer { archived, first_batch: 1, last_batch: 1, scrubbed: 0 };
    first.advance_pointer(&tenant(), &pointer).await.unwrap();
    first.put_batch(&tenant(), &a_batch(id)).await.unwrap();
    drop(first);
    let path = dir.path().join("ledger.redb");
    for bytes in [
        &[][..],
        &[1],
        &[2, 0, 0],
        &[1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 9],
        &[0xff; 300],
    ] {
        let db = Database::open(&path).unwrap();
        let txn = db.begin_write().unwrap();
        for definition in tables::ALL {
            if redb::TableHandle::name(&definition) == "state" {
                continue;
            }
            let mut table = txn.open_table(definition).unwrap();
            let keys: Vec<_> = table.iter().unwrap().map(|row| row.unwrap().0.value().to_vec()).collect();
            for key in keys {
                table.insert(key.as_slice(), bytes).unwrap();
            }
        }
        txn.commit().unwrap();
        drop(db);
        let store = open(dir.path());
        let corrupt = |result: Result<(), StoreError>| {
            assert!(matches!(result, Err(StoreError::Corrupt { .. })), "{bytes:?}: {result:?}");
        };
        let tenant = tenant();
        corrupt(store.head(&tenant, &name).await.map(drop));
        corrupt(store.body(&tenant, &name, Seq::ZERO).await.map(drop));
        corrupt(store.segments(&tenant, &name, Seq::ZERO, Order::Asc, 5).await.map(drop));
        corrupt(store.feed(&tenant, None, 5).await.map(drop));
        corrupt(store.feed_commit(&tenant, id).await.map(drop));
        corrupt(store.by_time(&tenant, Order::Desc, None, None, 5).await.map(drop));
        corrupt(store.session(&tenant, &name).await.map(drop));
        corrupt(store.sessions(&tenant, None, None, 5).await.map(drop));
        corrupt(store.agents(&tenant, None, 5).await.map(drop));
        corrupt(store.pointer(&tenant, &name).await.map(drop));
        corrupt(store.advance_pointer(&tenant, &pointer).await);
        corrupt(store.mark_archived(&tenant, &name, &meta, 1, None).await);
        corrupt(store.last_batch(&tenant).await.map(drop));
        corrupt(store.batches(&tenant, 0, 5).await.map(drop));
        corrupt(store.commit(batch(9, &[(&name, None)], 1)).await);
        // One damaged session does not stop the others.
        store.commit(batch(9, &[(&session(&format!("new {}", bytes.len())), None)], 1)).await.unwrap_err();
        drop(store);
    }
}

#[tokio::test]
async fn a_database_that_is_none_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.redb");
    std::fs::write(&path, "this is no database").unwrap();
    assert!(EmbeddedStore::open(&path, &EmbeddedOptions::default()).is_err());
    let other = dir.path().join("other.redb");
    let db = Database::create(&other).unwrap();
    let txn = db.begin_write().unwrap();
    txn.open_table(tables::FEED).unwrap();
    txn.commit().unwrap();
    drop(db);
    let error = EmbeddedStore::open(&other, &EmbeddedOptions::default()).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
}

#[tokio::test]
async fn a_second_store_on_the_same_file_is_refused() {
    let (dir, _first) = store();
    let error =
        EmbeddedStore::open(&dir.path().join("ledger.redb"), &EmbeddedOptions::default()).unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
}
