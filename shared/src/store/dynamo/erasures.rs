//! What an erasure writes: its own item, other bodies for segments, pointers without an agent's name.
//!
//! A commit item counts how often its body was replaced (`v`); parts of a body that replaced another bear that number in
//! their keys, so that a reader finds all parts of one body or knows that it must look again. The commit item, the new
//! parts and the deletion of the old ones are one transaction.

use aws_sdk_dynamodb::types::{Delete, Put, TransactWriteItem, Update};
use bytes::Bytes;

use super::DynamoStore;
use super::commit::{failed, put_once, refused, transact_all};
use super::item::{Item, binary, corrupt, find_number, get_binary, get_text, key, number, text};
use super::segments::Lying;
use crate::aws::{Again, CallError, retried};
use crate::ids::{CommitId, EventId, Seq, SessionId, TenantId};
use crate::limits;
use crate::segment::SegmentMeta;
use crate::store::keys::dynamo as keys;
use crate::store::{BatchRecord, Conflict, ErasureRecord, Order, Pointer, StoreError, StoredBody};

const CHANGED: StoreError = StoreError::Conflict(Conflict::Changed);

fn item_of(tenant: &TenantId, done: bool, record: &ErasureRecord) -> Item {
    let mut item = key(keys::erasures(tenant), keys::erasure(done, record.event_id));
    item.insert("p".into(), binary(record.encode()));
    item
}

fn read(item: &Item) -> Result<ErasureRecord, StoreError> {
    let event = keys::read_erasure(get_text(item, "sk")?).ok_or_else(|| corrupt(item, "no event's id"))?;
    ErasureRecord::decode(event, get_binary(item, "p")?).map_err(|e| corrupt(item, e))
}

/// See [`crate::store::Store::put_erasure`]. One that is done meanwhile is left beside its own first item, which
/// [`update`] then takes away.
pub(super) async fn put(
    store: &DynamoStore,
    tenant: &TenantId,
    record: &ErasureRecord,
) -> Result<(), StoreError> {
    if get(store, tenant, record.event_id).await?.is_some() {
        return Err(StoreError::Conflict(Conflict::Exists));
    }
    put_once(store, item_of(tenant, false, record), Conflict::Exists).await
}

/// See [`crate::store::Store::erasure`].
pub(super) async fn get(
    store: &DynamoStore,
    tenant: &TenantId,
    event: EventId,
) -> Result<Option<ErasureRecord>, StoreError> {
    // It is done before it is taken from the others: looked at in the other order it could be missed.
    for done in [false, true, false] {
        let found = store.get(key(keys::erasures(tenant), keys::erasure(done, event)), None).await?;
        let found = found.as_ref().map(read).transpose()?;
        match (found, done) {
            (Some(found), true) => return Ok(Some(found)),
            (Some(found), false) => {
                let twin = store.get(key(keys::erasures(tenant), keys::erasure(true, event)), None).await?;
                return twin.as_ref().map_or(Ok(Some(found)), |twin| read(twin).map(Some));
            }
            (None, _) => {}
        }
    }
    Ok(None)
}

/// See [`crate::store::Store::update_erasure`].
pub(super) async fn update(
    store: &DynamoStore,
    tenant: &TenantId,
    before: &ErasureRecord,
    after: &ErasureRecord,
) -> Result<(), StoreError> {
    let event = before.event_id;
    let done = store.get(key(keys::erasures(tenant), keys::erasure(true, event)), None).await?;
    if done.is_some() || after.is_done() {
        if done.is_none() {
            // Only on what was read: whoever has gone on from there knows more.
            let pending = store.get(key(keys::erasures(tenant), keys::erasure(false, event)), None).await?;
            if pending.as_ref().map(read).transpose()?.as_ref() != Some(before) {
                return Err(CHANGED);
            }
            match put_once(store, item_of(tenant, true, after), Conflict::Exists).await {
                Ok(()) | Err(StoreError::Conflict(_)) => {}
                Err(error) => return Err(error),
            }
        }
        store.remove(key(keys::erasures(tenant), keys::erasure(false, event))).await?;
        return if done.is_some() && !before.is_done() { Err(CHANGED) } else { Ok(()) };
    }
    let item = item_of(tenant, false, after);
    let sent = retried(Again::IfBusy, || {
        let request = store.client.put_item().table_name(&store.table).set_item(Some(item.clone()));
        let request = request
            .condition_expression("p = :before")
            .expression_attribute_values(":before", binary(before.encode()));
        async { request.send().await.map_err(CallError::from) }
    });
    match sent.await {
        Ok(_) => Ok(()),
        Err(CallError::Condition(_)) => Err(CHANGED),
        Err(error) => Err(refused(error)),
    }
}

/// See [`crate::store::Store::erasures`].
pub(super) async fn list(
    store: &DynamoStore,
    tenant: &TenantId,
    done: bool,
    after: Option<EventId>,
    limit: usize,
) -> Result<Vec<ErasureRecord>, StoreError> {
    if limit == 0 {
        return Ok(Vec::new());
    }
    let first = format!("{}#", u8::from(done));
    let from = after.map_or(first.clone(), |event| keys::erasure(done, event));
    let query = store
        .query()
        .consistent_read(true)
        .key_condition_expression("pk = :pk AND sk BETWEEN :from AND :to")
        .expression_attribute_values(":pk", text(keys::erasures(tenant)))
        .expression_attribute_values(":from", text(&from))
        .expression_attribute_values(":to", text(format!("{first}~")));
    // What BETWEEN begins with may be what the caller has seen.
    let items = store.items(query, limit.saturating_add(1)).await?;
    let mut found = Vec::with_capacity(items.len());
    for item in &items {
        if after.is_none() || get_text(item, "sk")? != from {
            found.push(read(item)?);
        }
    }
    found.truncate(limit);
    Ok(found)
}

/// See [`crate::store::Store::stored_body`].
pub(super) async fn stored_body(
    store: &DynamoStore,
    tenant: &TenantId,
    session: &SessionId,
    sequence: Seq,
) -> Result<Option<StoredBody>, StoreError> {
    let (low, high) = (keys::segment(Seq::ZERO), keys::segment(sequence));
    let query = super::segments::between(store, tenant, session, &low, &high, Order::Desc);
    let found = store.items(query.projection_expression("pk, sk, m"), 1).await?;
    let Some(found) = found.first().map(super::item::segment).transpose()? else { return Ok(None) };
    if found.last < sequence {
        return Ok(None);
    }
    let first = found.first;
    match super::segments::lying(store, tenant, session, first, false).await {
        Ok(Lying { meta, body, revision }) => Ok(Some(StoredBody { meta, body, revision })),
        Err(StoreError::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

/// See [`crate::store::Store::replace_body`].
pub(super) async fn replace_body(
    store: &DynamoStore,
    tenant: &TenantId,
    session: &SessionId,
    before: &StoredBody,
    meta: &SegmentMeta,
    body: Bytes,
) -> Result<(), StoreError> {
    if body.len() > limits::COMMIT_BYTES_MAX {
        return Err(StoreError::TooLarge { limit: limits::COMMIT_BYTES_MAX, actual: body.len() });
    }
    let pk = keys::session(tenant, session);
    let at = key(&pk, keys::segment(before.meta.first));
    // Parts expire with their commit item: what it says of that is taken over, and must not change meanwhile.
    let there = store.get(at.clone(), Some("pk, sk, v, n, #ttl")).await?.ok_or(CHANGED)?;
    let ttl = find_number(&there, "ttl")?;
    if revision_of(&there)? != before.revision {
        return Err(CHANGED);
    }
    let old_parts = find_number(&there, "n")?.unwrap_or(0);
    let revision = before.revision + 1;
    let mut parts = body.chunks(limits::ITEM_BODY_BYTES_MAX);
    let head = parts.next().unwrap_or_default();
    let new_parts = parts.len();
    let mut values = vec![
        (":m", binary(meta.encode())),
        (":b", binary(head)),
        (":v", number(revision)),
        (":was", binary(before.meta.encode())),
    ];
    let mut set = "SET m = :m, b = :b, v = :v".to_owned();
    let mut condition = "m = :was".to_owned();
    match before.revision {
        0 => condition.push_str(" AND attribute_not_exists(v)"),
        was => {
            condition.push_str(" AND v = :vwas");
            values.push((":vwas", number(was)));
        }
    }
    match ttl {
        None => condition.push_str(" AND attribute_not_exists(#ttl)"),
        Some(ttl) => {
            condition.push_str(" AND #ttl = :ttl");
            values.push((":ttl", number(ttl)));
        }
    }
    if new_parts > 0 {
        set.push_str(", n = :n");
        values.push((":n", number(new_parts)));
    } else {
        set.push_str(" REMOVE n");
    }
    let mut update = Update::builder()
        .table_name(&store.table)
        .set_key(Some(at))
        .update_expression(set)
        .condition_expression(condition)
        .expression_attribute_names("#ttl", "ttl");
    for (name, value) in values {
        update = update.expression_attribute_values(name, value);
    }
    let update = update.build().expect("an update has a table, a key and an expression");
    let mut actions = vec![TransactWriteItem::builder().update(update).build()];
    let (first, commit) = (before.meta.first, before.meta.commit_id);
    for (number_, part) in (1..).zip(parts) {
        let mut item = key(&pk, keys::part_of(first, commit, revision, number_));
        item.insert("b".into(), binary(part));
        if let Some(ttl) = ttl {
            item.insert("ttl".into(), number(ttl));
        }
        let put = Put::builder().table_name(&store.table).set_item(Some(item)).build();
        actions.push(TransactWriteItem::builder().put(put.expect("a put has a table and an item")).build());
    }
    for part in 1..=usize::try_from(old_parts).unwrap_or(0) {
        let at = key(&pk, keys::part_of(first, commit, before.revision, part));
        let delete = Delete::builder().table_name(&store.table).set_key(Some(at)).build();
        actions.push(
            TransactWriteItem::builder().delete(delete.expect("a delete has a table and a key")).build(),
        );
    }
    if actions.len() > limits::COMMIT_ACTIONS_MAX {
        return Err(StoreError::TooLarge { limit: limits::COMMIT_ACTIONS_MAX, actual: actions.len() });
    }
    // No token: what it would make harmless, the condition does.
    match transact_all(store, actions, None).await {
        Ok(()) => Ok(()),
        Err(CallError::Canceled(error)) if failed(&error).next().is_some() => Err(CHANGED),
        Err(CallError::Canceled(error)) => {
            Err(StoreError::Unavailable { why: format!("the transaction was cancelled: {error}") })
        }
        Err(error) => Err(refused(error)),
    }
}

/// Which of a segment's bodies a commit item has.
pub(super) fn revision_of(item: &Item) -> Result<u64, StoreError> {
    let revision = find_number(item, "v")?.unwrap_or(0);
    u64::try_from(revision).map_err(|_| corrupt(item, "v is no number of a body"))
}

/// See [`crate::store::Store::replace_pointer`].
pub(super) async fn replace_pointer(
    store: &DynamoStore,
    tenant: &TenantId,
    before: &Pointer,
    after: &Pointer,
) -> Result<(), StoreError> {
    let at = key(keys::session(tenant, &before.archived.session_id), keys::POINTER);
    let sent = retried(Again::IfBusy, || {
        let request = store.client.update_item().table_name(&store.table).set_key(Some(at.clone()));
        let request = request
            .update_expression("SET m = :after, e = :e")
            .condition_expression("m = :before")
            .expression_attribute_values(":after", binary(after.encode()))
            .expression_attribute_values(":before", binary(before.encode()))
            .expression_attribute_values(":e", number(after.scrubbed));
        async { request.send().await.map_err(CallError::from) }
    });
    match sent.await {
        Ok(_) => Ok(()),
        Err(CallError::Condition(_)) => Err(CHANGED),
        Err(error) => Err(refused(error)),
    }
}

/// See [`crate::store::Store::resize_batch`].
pub(super) async fn resize_batch(
    store: &DynamoStore,
    tenant: &TenantId,
    batch: u64,
    revision: u64,
    bytes: u64,
) -> Result<(), StoreError> {
    let at = key(keys::batches(tenant), keys::batch(batch));
    loop {
        let Some(item) = store.get(at.clone(), None).await? else { return Ok(()) };
        let was = get_binary(&item, "p")?;
        let record = BatchRecord::decode(batch, false, was).map_err(|e| corrupt(&item, e))?;
        if record.revision >= revision {
            return Ok(());
        }
        let record = BatchRecord { revision, bytes, ..record };
        let sent = retried(Again::IfUnknown, || {
            let request = store.client.update_item().table_name(&store.table).set_key(Some(at.clone()));
            let request = request
                .update_expression("SET p = :after")
                .condition_expression("p = :before")
                .expression_attribute_values(":after", binary(record.encode()))
                .expression_attribute_values(":before", binary(was));
            async { request.send().await.map_err(CallError::from) }
        });
        match sent.await {
            Ok(_) => return Ok(()),
            // Another was quicker; it may have known of fewer revisions.
            Err(CallError::Condition(_)) => {}
            Err(error) => return Err(refused(error)),
        }
    }
}

/// See [`crate::store::Store::scrub`]. The table expires items in no order: of a segment whose commit item has gone,
/// parts may be left for days. They are deleted here.
pub(super) async fn scrub(
    store: &DynamoStore,
    tenant: &TenantId,
    session: &SessionId,
    sequence: Seq,
) -> Result<(), StoreError> {
    // A segment has at most so many events: it begins no earlier.
    let from = sequence.get().saturating_sub(limits::BATCH_EVENTS_MAX as u64 - 1);
    let from = Seq::new(from).unwrap_or(sequence);
    let pk = keys::session(tenant, session);
    let (low, high) = keys::parts_between(from, sequence);
    let query = store
        .query()
        .consistent_read(true)
        .key_condition_expression("pk = :pk AND sk BETWEEN :low AND :high")
        .expression_attribute_values(":pk", text(&pk))
        .expression_attribute_values(":low", text(low))
        .expression_attribute_values(":high", text(high))
        .projection_expression("pk, sk, #ttl")
        .expression_attribute_names("#ttl", "ttl");
    let now = store.clock.now().unix_ms().div_euclid(1000);
    let mut gone: Vec<((Seq, CommitId), bool)> = Vec::new();
    for item in store.items(query, usize::MAX).await? {
        let name = get_text(&item, "sk")?.to_owned();
        let of = keys::read_part(&name).ok_or_else(|| corrupt(&item, "not a part's key"))?;
        if find_number(&item, "ttl")?.is_none_or(|ttl| ttl > now) {
            continue;
        }
        let known = gone.iter().find(|(known, _)| *known == of).map(|(_, gone)| *gone);
        let is_gone = match known {
            Some(is_gone) => is_gone,
            None => {
                let commit = store.get(key(&pk, keys::segment(of.0)), Some("pk, sk, m")).await?;
                let commit = commit.as_ref().map(super::item::segment).transpose()?;
                let is_gone = commit.is_none_or(|meta| meta.commit_id != of.1);
                gone.push((of, is_gone));
                is_gone
            }
        };
        if is_gone {
            store.remove(key(&pk, name)).await?;
        }
    }
    Ok(())
}

impl DynamoStore {
    /// Deletes an item, if it is there.
    async fn remove(&self, at: Item) -> Result<(), StoreError> {
        let done = retried(Again::IfUnknown, || {
            let request = self.client.delete_item().table_name(&self.table).set_key(Some(at.clone()));
            async { request.send().await.map_err(CallError::from) }
        });
        done.await.map(drop).map_err(refused)
    }
}
