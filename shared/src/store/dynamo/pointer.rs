//! A session's pointer, in its partition and in the list of pointers; and how a segment is marked archived.

use std::collections::VecDeque;

use aws_sdk_dynamodb::types::{AttributeValue, ReturnValue};

use super::commit::refused;
use super::feed::{self, From};
use super::item::{
    self, Item, binary, corrupt, find_number, get_binary, get_number, get_text, key, number, text,
};
use super::{DynamoStore, erasures, expiry};
use crate::aws::{Again, CallError, retried};
use crate::ids::{SessionId, TenantId};
use crate::segment::SegmentMeta;
use crate::store::keys::dynamo as keys;
use crate::store::{Conflict, FeedPosition, Order, Pointer, SessionRecord, StoreError};
use crate::time::Micros;

/// How often a body may be replaced while its segment is marked.
const REPLACED_MEANWHILE_MAX: usize = 16;

/// A session's place in the lists: that of its first segment.
pub(super) fn position(record: &SessionRecord) -> FeedPosition {
    FeedPosition { commit_id: record.first_commit, session_id: record.session_id.clone() }
}

/// From its item.
pub(super) fn read(session: &SessionId, item: &Item) -> Result<Pointer, StoreError> {
    let pointer = Pointer::decode(session, get_binary(item, "m")?).map_err(|e| corrupt(item, e))?;
    // What the condition compares must be what is told.
    if u64::try_from(get_number(item, "q")?).ok() != Some(pointer.archived.head.sequence.get()) {
        return Err(corrupt(item, "q is another sequence than its record's"));
    }
    Ok(pointer)
}

/// From the index.
fn listed(tenant: &TenantId, item: &Item) -> Result<Pointer, StoreError> {
    let place =
        keys::read_feed(get_binary(item, "c")?).ok_or_else(|| corrupt(item, "no place in the feed"))?;
    let pointer = Pointer::decode(&place.session_id, get_binary(item, "m")?).map_err(|e| corrupt(item, e))?;
    let own = get_text(item, "pk")? == keys::session(tenant, &place.session_id);
    if own && position(&pointer.archived) == place {
        Ok(pointer)
    } else {
        Err(corrupt(item, "its place in the list is another session's"))
    }
}

/// See [`crate::store::Store::pointer`].
pub(super) async fn get(
    store: &DynamoStore,
    tenant: &TenantId,
    session: &SessionId,
) -> Result<Option<Pointer>, StoreError> {
    let item = store.get(key(keys::session(tenant, session), keys::POINTER), Some("pk, sk, m, q")).await?;
    item.map(|item| read(session, &item)).transpose()
}

/// See [`crate::store::Store::advance_pointer`].
pub(super) async fn advance(
    store: &DynamoStore,
    tenant: &TenantId,
    pointer: &Pointer,
) -> Result<(), StoreError> {
    let record = &pointer.archived;
    let mut item = key(keys::session(tenant, &record.session_id), keys::POINTER);
    item.insert("q".into(), number(record.head.sequence.get()));
    item.insert("m".into(), binary(pointer.encode()));
    if pointer.scrubbed > 0 {
        item.insert("e".into(), number(pointer.scrubbed));
    }
    item.insert("f".into(), text(keys::pointers(tenant)));
    item.insert("c".into(), binary(keys::feed(record.first_commit, &record.session_id)));
    let done = retried(Again::IfUnknown, || {
        let request = store.client.put_item().table_name(&store.table).set_item(Some(item.clone()));
        let request = request
            .condition_expression(
                "attribute_not_exists(pk) OR q < :q AND (attribute_not_exists(e) OR e <= :e)",
            )
            .expression_attribute_values(":q", number(record.head.sequence.get()))
            .expression_attribute_values(":e", number(pointer.scrubbed));
        async { request.send().await.map_err(CallError::from) }
    });
    match done.await {
        Ok(_) => Ok(()),
        Err(CallError::Condition(_)) => match get(store, tenant, &record.session_id).await? {
            // It was made from one that still had what was erased.
            Some(there)
                if there.archived.head.sequence < record.head.sequence
                    && there.scrubbed > pointer.scrubbed =>
            {
                Err(StoreError::Conflict(Conflict::Changed))
            }
            _ => Ok(()),
        },
        Err(error) => Err(refused(error)),
    }
}

/// All pointers of a tenant, in the order of their sessions' first segments, read as far as they are asked for.
pub(super) struct Listed<'s> {
    store: &'s DynamoStore,
    tenant: &'s TenantId,
    order: Order,
    page: usize,
    /// Where to go on; `None` at the end.
    from: Option<From>,
    read: VecDeque<Pointer>,
}

impl<'s> Listed<'s> {
    /// From a place on, pages of `page`.
    pub(super) fn new(
        store: &'s DynamoStore,
        tenant: &'s TenantId,
        order: Order,
        from: From,
        page: usize,
    ) -> Self {
        let page = page.clamp(1, feed::PAGE);
        Self { store, tenant, order, page, from: Some(from), read: VecDeque::new() }
    }

    /// The next one, left where it is.
    pub(super) async fn peek(&mut self) -> Result<Option<&Pointer>, StoreError> {
        if self.read.is_empty()
            && let Some(from) = self.from.take()
        {
            let query = feed::partition(self.store, keys::pointers(self.tenant), self.order, &from);
            let items = self.store.items(query, self.page).await?;
            for item in &items {
                self.read.push_back(listed(self.tenant, item)?);
            }
            if items.len() == self.page
                && let Some(last) = self.read.back()
            {
                let at = position(&last.archived);
                self.from = Some(From::Beyond(keys::feed(at.commit_id, &at.session_id)));
            }
        }
        Ok(self.read.front())
    }

    /// The next one.
    pub(super) async fn next(&mut self) -> Result<Option<Pointer>, StoreError> {
        self.peek().await?;
        Ok(self.read.pop_front())
    }
}

/// See [`crate::store::Store::mark_archived`]. The feed is left as it is: nothing that it shows changes, and so
/// neither does the index, which would be paid for.
pub(super) async fn mark_archived(
    store: &DynamoStore,
    tenant: &TenantId,
    session: &SessionId,
    meta: &SegmentMeta,
    batch: u64,
    expires_at: Option<Micros>,
) -> Result<(), StoreError> {
    // As its writer left it, without a look; if its body was replaced since, as it is.
    let parts = (meta.body_bytes as usize).div_ceil(crate::limits::ITEM_BODY_BYTES_MAX);
    let mut body = (0, parts.saturating_sub(1));
    for _ in 0..REPLACED_MEANWHILE_MAX {
        if mark(store, tenant, session, meta, body, batch, expires_at).await? {
            return Ok(());
        }
        let at = key(keys::session(tenant, session), keys::segment(meta.first));
        let Some(item) = store.get(at, Some("pk, sk, m, v, n")).await? else { return Ok(()) };
        if item::segment(&item)?.commit_id != meta.commit_id {
            return Ok(());
        }
        let parts = usize::try_from(find_number(&item, "n")?.unwrap_or(0)).unwrap_or(0);
        body = (erasures::revision_of(&item)?, parts);
    }
    Err(StoreError::Unavailable {
        why: format!("the body was replaced {REPLACED_MEANWHILE_MAX} times meanwhile"),
    })
}

/// Marks a segment whose body is the one of this revision and has so many further parts. False if it is another one, or
/// the segment is not there.
async fn mark(
    store: &DynamoStore,
    tenant: &TenantId,
    session: &SessionId,
    meta: &SegmentMeta,
    (revision, parts): (u64, usize),
    batch: u64,
    expires_at: Option<Micros>,
) -> Result<bool, StoreError> {
    let pk = keys::session(tenant, session);
    let mut ttl = expires_at.map(expiry::seconds);
    // The parts first: once the commit item is open no more nobody would come back for them. One that an earlier run
    // has given its time keeps it, and then the commit item must not outlive it.
    if let Some(asked) = ttl {
        for part in 1..=parts {
            let at = key(&pk, keys::part_of(meta.first, meta.commit_id, revision, part));
            let values = [(":ttl", number(asked))];
            let set = "SET #ttl = if_not_exists(#ttl, :ttl)";
            let has = store.update_if(at, set, "attribute_exists(pk)", &values).await?;
            let has = has.map(|item| find_number(&item, "ttl")).transpose()?.flatten();
            ttl = ttl.min(has.or(ttl));
        }
    }
    let mut values = vec![(":a", number(batch)), (":c", binary(keys::feed(meta.commit_id, session)))];
    let update = match ttl {
        None => "SET a = :a REMOVE o, z",
        Some(ttl) => {
            values.push((":ttl", number(ttl)));
            "SET a = :a, #ttl = if_not_exists(#ttl, :ttl) REMOVE o, z"
        }
    };
    let condition = match revision {
        0 => "c = :c AND attribute_not_exists(v)",
        revision => {
            values.push((":v", number(revision)));
            "c = :c AND v = :v"
        }
    };
    let done = store.update_if(key(&pk, keys::segment(meta.first)), update, condition, &values).await?;
    Ok(done.is_some())
}

impl DynamoStore {
    /// Updates an item on a condition; gives what was set, or `None` if the condition does not hold.
    async fn update_if(
        &self,
        at: Item,
        update: &str,
        condition: &str,
        values: &[(&str, AttributeValue)],
    ) -> Result<Option<Item>, StoreError> {
        let done = retried(Again::IfUnknown, || {
            let mut request = self.client.update_item().table_name(&self.table).set_key(Some(at.clone()));
            request = request.update_expression(update).condition_expression(condition);
            request = request.return_values(ReturnValue::UpdatedNew);
            if update.contains("#ttl") {
                request = request.expression_attribute_names("#ttl", "ttl");
            }
            for (name, value) in values {
                request = request.expression_attribute_values(*name, value.clone());
            }
            async { request.send().await.map_err(CallError::from) }
        });
        match done.await {
            Ok(output) => Ok(Some(output.attributes.unwrap_or_default())),
            Err(CallError::Condition(_)) => Ok(None),
            Err(error) => Err(refused(error)),
        }
    }
}
