//! Idempotency keys: part of the batch's own transaction.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::{Batch, check_line, fresh_session, fresh_tenant, head_of, now, ok};
use crate::limits;
use crate::random;
use crate::store::{Conflict, Store, StoreError};

#[track_caller]
fn taken(result: Result<(), StoreError>, what: &str) {
    assert!(
        matches!(result, Err(StoreError::Conflict(Conflict::Idempotency))),
        "{what}: expected a conflict of the idempotency key, got {result:?}"
    );
}

/// A key is written with its batch and read back as it was. While it lives, a batch with the same key is a
/// `Conflict(Idempotency)` and writes nothing. A batch whose own time is its expiry or later replaces it. Another
/// tenant's key of the same bytes is another key.
///
/// # Panics
/// If the store breaks it.
pub async fn idempotency_key_is_taken_until_it_expires(store: &dyn Store) {
    let (tenant, other) = (fresh_tenant(), fresh_tenant());
    let (one, two) = (fresh_session(), fresh_session());
    let key: [u8; 32] = random::bytes();
    let life = limits::IDEMPOTENCY_LIFE_MS;
    let start = now();
    assert_eq!(ok(store.idempotency(&tenant, &key).await, "idempotency"), None);
    let first = Batch::at(&tenant, start).sample(&one, None, 2).sample(&two, None, 1).key(key, life).done();
    ok(store.commit(first.clone()).await, "commit with a key");
    assert_eq!(ok(store.idempotency(&tenant, &key).await, "idempotency"), first.idempotency);
    assert_eq!(ok(store.idempotency(&other, &key).await, "idempotency"), None, "another tenant's key");

    for late_ms in [0, 1, life / 2, life - 1] {
        let at = start.plus_ms(late_ms);
        let fresh = fresh_session();
        let again = Batch::at(&tenant, at).sample(&one, head_of(&first), 1).sample(&fresh, None, 1);
        taken(store.commit(again.key(key, life).done()).await, "a key that lives");
        assert_eq!(ok(store.head(&tenant, &one).await, "head"), head_of(&first), "after a taken key");
        assert_eq!(ok(store.head(&tenant, &fresh).await, "head"), None, "after a taken key");
        assert_eq!(ok(store.idempotency(&tenant, &key).await, "idempotency"), first.idempotency);
    }
    let elsewhere = Batch::at(&other, start).sample(&one, None, 1).key(key, life).done();
    ok(store.commit(elsewhere.clone()).await, "the same key of another tenant");
    assert_eq!(ok(store.idempotency(&other, &key).await, "idempotency"), elsewhere.idempotency);

    let mut head = head_of(&first);
    for late_ms in [life, 2 * life + 1] {
        let next = Batch::at(&tenant, start.plus_ms(late_ms)).sample(&one, head, 1).key(key, life).done();
        ok(store.commit(next.clone()).await, "a key that has expired at the batch's time");
        assert_eq!(ok(store.idempotency(&tenant, &key).await, "idempotency"), next.idempotency);
        head = head_of(&next);
    }
    assert_eq!(check_line(store, &tenant, &one, 10).await.len(), 3);
    assert_eq!(check_line(store, &tenant, &two, 10).await.len(), 1);
    let mut neighbour = key;
    neighbour[31] ^= 1;
    assert_eq!(ok(store.idempotency(&tenant, &neighbour).await, "idempotency"), None);
}

/// A key whose batch conflicts is not written, and one that has expired is not replaced by such a batch.
///
/// # Panics
/// If the store breaks it.
pub async fn idempotency_key_falls_with_its_batch(store: &dyn Store) {
    let (tenant, session) = (fresh_tenant(), fresh_session());
    let key: [u8; 32] = random::bytes();
    let start = now();
    let plain = Batch::at(&tenant, start).sample(&session, None, 1).done();
    ok(store.commit(plain.clone()).await, "commit");
    let conflict = Batch::at(&tenant, start).sample(&session, None, 1).key(key, 1000).done();
    let refused = store.commit(conflict).await;
    assert!(matches!(refused, Err(StoreError::Conflict(Conflict::Session(_)))), "got {refused:?}");
    assert_eq!(ok(store.idempotency(&tenant, &key).await, "idempotency"), None, "the key of a refused batch");
    let good = Batch::at(&tenant, start).sample(&session, head_of(&plain), 1).key(key, 1000).done();
    ok(store.commit(good.clone()).await, "the key of a refused batch is free");

    let at = start.plus_ms(1000);
    let late = Batch::at(&tenant, at).sample(&session, None, 1).key(key, 1000).done();
    let refused = store.commit(late).await;
    assert!(matches!(refused, Err(StoreError::Conflict(Conflict::Session(_)))), "got {refused:?}");
    assert_eq!(ok(store.idempotency(&tenant, &key).await, "idempotency"), good.idempotency, "an expired key");

    let both = Batch::at(&tenant, start).sample(&session, None, 1).key(key, 1000).done();
    let refused = store.commit(both).await;
    assert!(matches!(refused, Err(StoreError::Conflict(_))), "both conditions fail: got {refused:?}");
}

/// Of twenty batches at once with one key, each on a session of its own, one is written.
///
/// # Panics
/// If the store breaks it.
pub async fn idempotency_key_is_won_once(store: Arc<dyn Store>) {
    let tenant = fresh_tenant();
    let key: [u8; 32] = random::bytes();
    let mut racers = JoinSet::new();
    for _ in 0..20 {
        let (store, tenant) = (store.clone(), tenant.clone());
        racers.spawn(async move {
            let session = fresh_session();
            let commit = Batch::new(&tenant).sample(&session, None, 1).key(key, 60_000).done();
            loop {
                match store.commit(commit.clone()).await {
                    Ok(()) => return (session, Some(commit)),
                    Err(StoreError::Conflict(Conflict::Idempotency)) => return (session, None),
                    Err(StoreError::Throttled { retry_after }) => tokio::time::sleep(retry_after).await,
                    Err(error) => panic!("a race for a key: {error}"),
                }
            }
        });
    }
    let mut winners = 0;
    for (session, won) in racers.join_all().await {
        let head = ok(store.head(&tenant, &session).await, "head");
        match won {
            Some(commit) => {
                winners += 1;
                assert_eq!(head, head_of(&commit));
                assert_eq!(ok(store.idempotency(&tenant, &key).await, "idempotency"), commit.idempotency);
            }
            None => assert_eq!(head, None, "a loser wrote its segment"),
        }
    }
    assert_eq!(winners, 1, "one batch wins a key");
}
