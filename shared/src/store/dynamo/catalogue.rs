//! The catalogue of batches, and the sessions whose chain is broken.

use super::DynamoStore;
use super::commit::{put_once, refused};
use super::item::{Item, binary, corrupt, get_binary, get_text, get_time, key, number, text};
use crate::aws::{Again, CallError, retried};
use crate::ids::{Seq, SessionId, TenantId};
use crate::store::keys::dynamo as keys;
use crate::store::{BatchRecord, Conflict, StoreError};
use crate::time::Micros;

/// See [`crate::store::Store::put_batch`].
pub(super) async fn put(
    store: &DynamoStore,
    tenant: &TenantId,
    batch: &BatchRecord,
) -> Result<(), StoreError> {
    let mut item = key(keys::batches(tenant), keys::batch(batch.batch));
    item.insert("p".into(), binary(batch.encode()));
    item.insert("h".into(), number(batch.hot_until.get()));
    put_once(store, item, Conflict::Exists).await
}

/// See [`crate::store::Store::mark_recorded`].
pub(super) async fn mark_recorded(
    store: &DynamoStore,
    tenant: &TenantId,
    batch: u64,
) -> Result<(), StoreError> {
    update(store, tenant, batch, "SET r = :n", 1).await
}

/// See [`crate::store::Store::mark_cold`].
pub(super) async fn mark_cold(store: &DynamoStore, tenant: &TenantId, batch: u64) -> Result<(), StoreError> {
    update(store, tenant, batch, "SET h = :n", Micros::MIN.get()).await
}

async fn update(
    store: &DynamoStore,
    tenant: &TenantId,
    batch: u64,
    expression: &str,
    value: i64,
) -> Result<(), StoreError> {
    let at = key(keys::batches(tenant), keys::batch(batch));
    let done = retried(Again::IfUnknown, || {
        let request = store.client.update_item().table_name(&store.table).set_key(Some(at.clone()));
        let request = request
            .update_expression(expression)
            .condition_expression("attribute_exists(pk)")
            .expression_attribute_values(":n", number(value));
        async { request.send().await.map_err(CallError::from) }
    });
    match done.await {
        Ok(_) => Ok(()),
        Err(CallError::Condition(_)) => Err(StoreError::NotFound),
        Err(error) => Err(refused(error)),
    }
}

fn read(item: &Item) -> Result<BatchRecord, StoreError> {
    let number = keys::read_batch(get_text(item, "sk")?).ok_or_else(|| corrupt(item, "no batch's number"))?;
    let hot_until = match item.contains_key("h") {
        true => get_time(item, "h")?,
        // Of before it was written down.
        false => Micros::MIN,
    };
    let recorded = item.contains_key("r");
    BatchRecord::decode(number, (hot_until, recorded), get_binary(item, "p")?).map_err(|e| corrupt(item, e))
}

/// See [`crate::store::Store::last_batch`].
pub(super) async fn last(store: &DynamoStore, tenant: &TenantId) -> Result<Option<BatchRecord>, StoreError> {
    let query = store
        .query()
        .consistent_read(true)
        .key_condition_expression("pk = :pk")
        .expression_attribute_values(":pk", text(keys::batches(tenant)))
        .scan_index_forward(false);
    store.items(query, 1).await?.first().map(read).transpose()
}

/// See [`crate::store::Store::batches`].
pub(super) async fn after(
    store: &DynamoStore,
    tenant: &TenantId,
    after: u64,
    limit: usize,
) -> Result<Vec<BatchRecord>, StoreError> {
    let query = store
        .query()
        .consistent_read(true)
        .key_condition_expression("pk = :pk AND sk > :after")
        .expression_attribute_values(":pk", text(keys::batches(tenant)))
        .expression_attribute_values(":after", text(keys::batch(after)));
    store.items(query, limit).await?.iter().map(read).collect()
}

/// See [`crate::store::Store::mark_broken`].
pub(super) async fn mark_broken(
    store: &DynamoStore,
    tenant: &TenantId,
    session: &SessionId,
    first: Seq,
    at: Micros,
) -> Result<bool, StoreError> {
    let (pk, sk) = keys::broken(tenant, session, first);
    let mut item = key(pk, sk);
    item.insert("t".into(), number(at.get()));
    match put_once(store, item, Conflict::Exists).await {
        Ok(()) => Ok(true),
        Err(StoreError::Conflict(Conflict::Exists)) => Ok(false),
        Err(error) => Err(error),
    }
}
