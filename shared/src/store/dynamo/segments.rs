//! Reads of one session's partition, strongly consistent.

use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use bytes::{Bytes, BytesMut};

use super::item::{self, Item, corrupt, find_number, get_binary, get_text, key, text};
use super::{DynamoStore, erasures, expiry, pointer};
use crate::ids::{CommitId, Seq, SessionId, TenantId};
use crate::limits;
use crate::segment::{Head, SegmentMeta};
use crate::store::keys::dynamo as keys;
use crate::store::{Order, StoreError};

/// A query of a session's items whose sort keys lie between two, both included.
pub(super) fn between(
    store: &DynamoStore,
    tenant: &TenantId,
    session: &SessionId,
    from: &str,
    to: &str,
    order: Order,
) -> QueryFluentBuilder {
    store
        .query()
        .consistent_read(true)
        .key_condition_expression("pk = :pk AND sk BETWEEN :from AND :to")
        .expression_attribute_values(":pk", text(keys::session(tenant, session)))
        .expression_attribute_values(":from", text(from))
        .expression_attribute_values(":to", text(to))
        .scan_index_forward(order == Order::Asc)
}

/// The higher of the pointer and the last segment: the one may be of last week, and the other may have expired. While
/// it is there it counts, expired or not: what it says of the end of the session is true, and no end goes back.
pub(super) async fn head(
    store: &DynamoStore,
    tenant: &TenantId,
    session: &SessionId,
) -> Result<Option<Head>, StoreError> {
    let query = between(store, tenant, session, keys::SEGMENT_FIRST, keys::POINTER, Order::Desc);
    let mut head: Option<Head> = None;
    for item in store.items(query.projection_expression("pk, sk, m, q"), 2).await? {
        let found = if get_text(&item, "sk")? == keys::POINTER {
            pointer::read(session, &item)?.archived.head
        } else {
            item::segment(&item)?.head()
        };
        if head.is_none_or(|head| head.sequence < found.sequence) {
            head = Some(found);
        }
    }
    Ok(head)
}

/// See [`crate::store::Store::commit_at`].
pub(super) async fn commit_at(
    store: &DynamoStore,
    tenant: &TenantId,
    session: &SessionId,
    first: Seq,
) -> Result<Option<CommitId>, StoreError> {
    let key = key(keys::session(tenant, session), keys::segment(first));
    let Some(item) = store.get(key, Some("pk, sk, m, #ttl")).await? else { return Ok(None) };
    let meta = item::segment(&item)?;
    Ok(expiry::is_alive(&item, store.clock.now())?.then_some(meta.commit_id))
}

/// Attributes of the first `limit` segments of a query that have not expired.
async fn alive(
    store: &DynamoStore,
    query: QueryFluentBuilder,
    limit: usize,
) -> Result<Vec<SegmentMeta>, StoreError> {
    let query = query.projection_expression("pk, sk, m, #ttl").expression_attribute_names("#ttl", "ttl");
    let now = store.clock.now();
    let (mut found, mut from, mut page) = (Vec::new(), None, limit);
    while found.len() < limit {
        // The service takes limits up to 2^31.
        let asked = query.clone().set_limit(i32::try_from(page).ok()).set_exclusive_start_key(from.take());
        let (items, next) = store.page(&asked).await?;
        let before = found.len();
        for item in &items {
            if expiry::is_alive(item, now)? {
                found.push(item::segment(item)?);
            }
        }
        if next.is_none() {
            break;
        }
        from = next;
        // Days of expired ones may stand in a row: twice as many at a time, until one is found that has not.
        page = if found.len() == before { page.saturating_mul(2) } else { limit.saturating_sub(found.len()) };
    }
    found.truncate(limit);
    Ok(found)
}

/// See [`crate::store::Store::segments`].
pub(super) async fn segments(
    store: &DynamoStore,
    tenant: &TenantId,
    session: &SessionId,
    from: Seq,
    order: Order,
    limit: usize,
) -> Result<Vec<SegmentMeta>, StoreError> {
    if limit == 0 {
        return Ok(Vec::new());
    }
    let query = |low: &str, high: &str, order| between(store, tenant, session, low, high, order);
    let (lowest, at) = (keys::segment(Seq::ZERO), keys::segment(from));
    let highest = keys::segment(Seq::MAX);
    match order {
        Order::Desc => alive(store, query(&lowest, &at, Order::Desc), limit).await,
        Order::Asc if from == Seq::ZERO => alive(store, query(&lowest, &highest, Order::Asc), limit).await,
        Order::Asc => {
            // The segment that holds `from` begins at or below it, nearest; no other is looked for if it has expired.
            let at = query(&lowest, &at, Order::Desc).projection_expression("pk, sk, m, #ttl");
            let at = store.items(at.expression_attribute_names("#ttl", "ttl"), 1).await?;
            let mut found = Vec::new();
            if let Some(item) = at.first() {
                let meta = item::segment(item)?;
                if meta.last >= from && expiry::is_alive(item, store.clock.now())? {
                    found.push(meta);
                }
            }
            if let Some(next) = from.checked_add(1)
                && found.len() < limit
            {
                let rest = query(&keys::segment(next), &highest, Order::Asc);
                let more = alive(store, rest, limit - found.len()).await?;
                found.extend(more);
            }
            Ok(found)
        }
    }
}

/// See [`crate::store::Store::body`].
pub(super) async fn body(
    store: &DynamoStore,
    tenant: &TenantId,
    session: &SessionId,
    first: Seq,
) -> Result<Bytes, StoreError> {
    Ok(lying(store, tenant, session, first, true).await?.body)
}

/// A segment as it lies in the table.
pub(super) struct Lying {
    pub(super) meta: SegmentMeta,
    pub(super) body: Bytes,
    pub(super) revision: u64,
}

/// How often a body that is replaced while it is read is read from the start.
const READS_MAX: usize = 5;

/// A segment and its body; `alive`: only if it has not expired.
///
/// # Errors
/// `NotFound` if there is none; as [`crate::store::Store::body`].
pub(super) async fn lying(
    store: &DynamoStore,
    tenant: &TenantId,
    session: &SessionId,
    first: Seq,
    alive: bool,
) -> Result<Lying, StoreError> {
    let mut before = None;
    for _ in 0..READS_MAX {
        let (revision, read) = once(store, tenant, session, first, alive).await?;
        match read {
            // Parts of a body that was replaced meanwhile are gone: another look shows another body.
            Err(StoreError::Corrupt { .. }) if before != Some(revision) => before = Some(revision),
            read => return read,
        }
    }
    Err(StoreError::Unavailable { why: format!("a body was replaced while it was read, {READS_MAX} times") })
}

/// One look: which of the segment's bodies it saw, and that one.
async fn once(
    store: &DynamoStore,
    tenant: &TenantId,
    session: &SessionId,
    first: Seq,
    alive: bool,
) -> Result<(u64, Result<Lying, StoreError>), StoreError> {
    let pk = keys::session(tenant, session);
    let at = key(&pk, keys::segment(first));
    let item = store.get(at, Some("pk, sk, m, b, n, v, #ttl")).await?.ok_or(StoreError::NotFound)?;
    // Its parts may have gone already, and nothing is corrupt.
    if alive && !expiry::is_alive(&item, store.clock.now())? {
        return Err(StoreError::NotFound);
    }
    let revision = erasures::revision_of(&item)?;
    Ok((revision, whole(store, pk, item, revision).await))
}

/// The body of a commit item, with its further parts.
async fn whole(store: &DynamoStore, pk: String, mut item: Item, revision: u64) -> Result<Lying, StoreError> {
    let meta = item::segment(&item)?;
    let further = find_number(&item, "n")?.unwrap_or(0);
    get_binary(&item, "b")?;
    let head = match item.remove("b") {
        Some(aws_sdk_dynamodb::types::AttributeValue::B(blob)) => Bytes::from(blob.into_inner()),
        _ => return Err(corrupt(&item, "no body")),
    };
    let body = if further == 0 {
        head
    } else {
        let prefix = keys::parts_of(meta.first, meta.commit_id, revision);
        let query = store
            .query()
            .consistent_read(true)
            // Digits follow: those of a body that replaced this one have a letter there.
            .key_condition_expression("pk = :pk AND sk BETWEEN :low AND :high")
            .expression_attribute_values(":pk", text(pk))
            .expression_attribute_values(":low", text(format!("{prefix}0")))
            .expression_attribute_values(":high", text(format!("{prefix}:")));
        // No more than fit in the commit that wrote them.
        let parts = store.items(query, limits::COMMIT_ACTIONS_MAX).await?;
        if parts.len() as i64 != further {
            return Err(corrupt(&item, format_args!("{} of its {further} further parts", parts.len())));
        }
        let mut body = BytesMut::from(&head[..]);
        for part in &parts {
            body.extend_from_slice(get_binary(part, "b")?);
        }
        body.freeze()
    };
    if body.len() as u64 == meta.body_bytes {
        Ok(Lying { meta, body, revision })
    } else {
        Err(corrupt(&item, format_args!("a body of {} bytes, not {}", body.len(), meta.body_bytes)))
    }
}
