//! Writing a batch.

use std::sync::Arc;

use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{Put, TransactWriteItem};

use super::item::{Item, binary, key, number, text};
use super::{DynamoStore, idempotency};
use crate::aws::{Again, CallError, RETRY_AFTER, retried};
use crate::ids::TenantId;
use crate::limits;
use crate::segment::{Segment, unpacked_bytes};
use crate::store::keys::dynamo as keys;
use crate::store::{Commit, Conflict, StoreError};

/// The condition of everything that is made once.
pub(super) const ABSENT: &str = "attribute_not_exists(pk)";

/// See [`crate::store::Store::commit`].
pub(super) async fn commit(store: &DynamoStore, commit: Arc<Commit>) -> Result<(), StoreError> {
    let actual = commit.segments.iter().map(|segment| segment.body.len()).sum();
    if actual > limits::COMMIT_BYTES_MAX {
        return Err(StoreError::TooLarge { limit: limits::COMMIT_BYTES_MAX, actual });
    }
    let mut items = Vec::with_capacity(commit.segments.len());
    for segment in &commit.segments {
        push_segment(&mut items, &commit.tenant, segment);
    }
    match (&mut items[..], &commit.idempotency) {
        ([(item, Some(taken))], None) => put_once(store, std::mem::take(item), taken.clone()).await,
        _ => transact(store, &commit, items).await,
    }
}

/// A segment's items, each with the conflict that it means if its place is taken.
fn push_segment(items: &mut Vec<(Item, Option<Conflict>)>, tenant: &TenantId, segment: &Segment) {
    let Segment { session_id, meta, body } = segment;
    let pk = keys::session(tenant, session_id);
    let mut parts = body.chunks(limits::ITEM_BODY_BYTES_MAX);
    let mut item = key(&pk, keys::segment(meta.first));
    item.insert("m".into(), binary(meta.encode()));
    item.insert("b".into(), binary(parts.next().unwrap_or_default()));
    item.insert("f".into(), text(keys::feed_shard(tenant, keys::shard(session_id, meta))));
    item.insert("c".into(), binary(keys::feed(meta.commit_id, session_id)));
    item.insert("o".into(), text(keys::open(tenant, keys::open_shard(session_id))));
    item.insert("z".into(), number(unpacked_bytes(body)));
    if parts.len() > 0 {
        item.insert("n".into(), number(parts.len()));
    }
    items.push((item, Some(Conflict::Session(session_id.clone()))));
    for (number, part) in (1..).zip(parts) {
        let mut item = key(&pk, keys::part(meta.first, meta.commit_id, number));
        item.insert("b".into(), binary(part));
        items.push((item, None));
    }
}

/// Writes one item on condition that nothing is there: half the price of a transaction. `taken`: what it means if
/// something is.
pub(super) async fn put_once(store: &DynamoStore, item: Item, taken: Conflict) -> Result<(), StoreError> {
    let done = retried(Again::IfBusy, || {
        let request = store.client.put_item().table_name(&store.table).set_item(Some(item.clone()));
        let request = request.condition_expression(ABSENT);
        async { request.send().await.map_err(CallError::from) }
    });
    match done.await {
        Ok(_) => Ok(()),
        Err(CallError::Condition(_)) => Err(StoreError::Conflict(taken)),
        Err(error) => Err(refused(error)),
    }
}

/// All items or none.
async fn transact(
    store: &DynamoStore,
    commit: &Commit,
    items: Vec<(Item, Option<Conflict>)>,
) -> Result<(), StoreError> {
    let mut conflicts: Vec<Option<Conflict>> = Vec::with_capacity(items.len() + 1);
    let mut puts: Vec<Put> = Vec::with_capacity(items.len() + 1);
    // First, so that of several conditions that fail the one that answers the client is named.
    if let Some(record) = &commit.idempotency {
        puts.push(idempotency::put(store, &commit.tenant, record));
        conflicts.push(Some(Conflict::Idempotency));
    }
    for (item, conflict) in items {
        puts.push(put_absent(store, item));
        conflicts.push(conflict);
    }
    if puts.len() > limits::COMMIT_ACTIONS_MAX {
        return Err(StoreError::TooLarge { limit: limits::COMMIT_ACTIONS_MAX, actual: puts.len() });
    }
    let done = write_all(store, puts, &commit.id.to_string()).await;
    done.map_err(|error| match error {
        CallError::Canceled(error) => match failed(&error).find_map(|index| conflicts.get(index)) {
            Some(Some(conflict)) => StoreError::Conflict(conflict.clone()),
            _ => StoreError::Unavailable { why: format!("the transaction was cancelled: {error}") },
        },
        error => refused(error),
    })
}

/// A put on condition that nothing is there.
pub(super) fn put_absent(store: &DynamoStore, item: Item) -> Put {
    let put = Put::builder().table_name(&store.table).set_item(Some(item)).condition_expression(ABSENT);
    put.build().expect("a put has a table and an item")
}

/// Writes all of it or nothing. The token makes a repetition within ten minutes harmless.
pub(super) async fn write_all(
    store: &DynamoStore,
    puts: Vec<Put>,
    token: &str,
) -> Result<(), CallError<TransactWriteItemsError>> {
    let actions = puts.into_iter().map(|put| TransactWriteItem::builder().put(put).build()).collect();
    transact_all(store, actions, Some(token)).await
}

/// Does all of it or nothing.
pub(super) async fn transact_all(
    store: &DynamoStore,
    actions: Vec<TransactWriteItem>,
    token: Option<&str>,
) -> Result<(), CallError<TransactWriteItemsError>> {
    let done = retried(Again::IfBusy, || {
        let request = store.client.transact_write_items();
        let request = request.set_client_request_token(token.map(str::to_owned));
        let request = request.set_transact_items(Some(actions.clone()));
        async {
            match request.send().await.map_err(CallError::from) {
                // It met another write of one of its items, or a throttle: nothing was decided.
                Err(CallError::Canceled(error)) if failed(&error).next().is_none() && is_busy(&error) => {
                    Err(CallError::Busy)
                }
                result => result,
            }
        }
    });
    done.await.map(|_| ())
}

fn reasons(error: &TransactWriteItemsError) -> impl Iterator<Item = &str> {
    let canceled = match error {
        TransactWriteItemsError::TransactionCanceledException(canceled) => Some(canceled),
        _ => None,
    };
    canceled.into_iter().flat_map(|c| c.cancellation_reasons()).map(|reason| reason.code().unwrap_or("None"))
}

/// The actions whose condition failed.
pub(super) fn failed(error: &TransactWriteItemsError) -> impl Iterator<Item = usize> {
    reasons(error).enumerate().filter(|(_, code)| *code == "ConditionalCheckFailed").map(|(index, _)| index)
}

fn is_busy(error: &TransactWriteItemsError) -> bool {
    let busy = ["TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"];
    reasons(error).any(|code| busy.contains(&code))
        && reasons(error).all(|code| code == "None" || busy.contains(&code))
}

/// A write that has no condition, or none that failed.
pub(super) fn refused<E: std::fmt::Debug>(error: CallError<E>) -> StoreError {
    match error {
        CallError::Busy => StoreError::Throttled { retry_after: RETRY_AFTER },
        CallError::Unknown(why) => StoreError::Unknown { why },
        CallError::Refused(why) => StoreError::Unavailable { why },
        CallError::Condition(error) | CallError::Canceled(error) => {
            StoreError::Unavailable { why: format!("a condition failed where none was set: {error:?}") }
        }
    }
}
