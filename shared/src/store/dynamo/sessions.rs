//! Sessions as a whole: the pointer and what came after it. Nothing of them is written by an append; the list is
//! found in the feed, where every session's first segment stands until it has expired, and among the pointers, where
//! every session stands that is archived in part.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use super::feed::{self, From, Reader};
use super::item::{self, get_text};
use super::pointer::{self, Listed};
use super::{DynamoStore, segments, time};
use crate::ids::{AgentId, CommitId, Seq, SessionId, TenantId};
use crate::segment::SegmentMeta;
use crate::store::derived::session_after;
use crate::store::keys::dynamo as keys;
use crate::store::{FeedPosition, Order, Pointer, SessionRecord, StoreError};
use crate::summary::Summary;

/// Sessions of a page that are read at once.
const AT_ONCE: usize = 16;

/// See [`crate::store::Store::session`].
pub(super) async fn one(
    store: &DynamoStore,
    tenant: &TenantId,
    session: &SessionId,
) -> Result<Option<SessionRecord>, StoreError> {
    from(store, tenant, session, Seq::ZERO).await
}

/// A session whose pointer is known to cover everything below `first`.
async fn from(
    store: &DynamoStore,
    tenant: &TenantId,
    session: &SessionId,
    first: Seq,
) -> Result<Option<SessionRecord>, StoreError> {
    let lowest = keys::segment(first);
    let query = segments::between(store, tenant, session, &lowest, keys::POINTER, Order::Desc);
    let query = query.projection_expression("pk, sk, m, q");
    let mut record: Option<SessionRecord> = None;
    let mut above: Vec<SegmentMeta> = Vec::new();
    let mut from = None;
    'pages: loop {
        let (items, next) = store.page(&query.clone().set_exclusive_start_key(from)).await?;
        for item in &items {
            if get_text(item, "sk")? == keys::POINTER {
                record = Some(pointer::read(session, item)?.archived);
                continue;
            }
            let meta = item::segment(item)?;
            // What is archived is counted in the pointer, whether it has expired yet or not: no need to read on.
            if record.as_ref().is_some_and(|record| meta.first <= record.head.sequence) {
                break 'pages;
            }
            above.push(meta);
        }
        if next.is_none() {
            break;
        }
        from = next;
    }
    Ok(above.iter().rev().fold(record, |record, meta| Some(session_after(record, session, meta))))
}

/// See [`crate::store::Store::sessions`].
pub(super) async fn list(
    store: &DynamoStore,
    tenant: &TenantId,
    agent: Option<&AgentId>,
    after: Option<&FeedPosition>,
    limit: usize,
) -> Result<Vec<SessionRecord>, StoreError> {
    let found = match agent {
        None => all(store, tenant, after, limit).await?,
        Some(agent) => of_agent(store, tenant, agent, after, limit).await?,
    };
    let records =
        stream::iter(found).map(async |(session, first)| from(store, tenant, &session, first).await);
    // One that is gone meanwhile was not lost: nothing deletes sessions; the index was ahead of nothing.
    records.buffered(AT_ONCE).try_filter_map(async |record| Ok(record)).try_collect().await
}

/// A session, and the first sequence that its pointer may not cover.
type Found = (SessionId, Seq);

fn above(pointer: &Pointer) -> Seq {
    pointer.archived.head.sequence.checked_add(1).unwrap_or(Seq::MAX)
}

/// Sessions by their first segments, newest first; each stands in the feed, among the pointers, or in both.
async fn all(
    store: &DynamoStore,
    tenant: &TenantId,
    after: Option<&FeedPosition>,
    limit: usize,
) -> Result<Vec<Found>, StoreError> {
    let from = after.map_or(From::End, |at| From::Beyond(keys::feed(at.commit_id, &at.session_id)));
    // Most segments are not their session's first: a few times as many as are wanted, from each shard.
    let page = limit.saturating_mul(4).max(100);
    let mut segments = Reader::new(store, tenant, 0..=keys::STRAY_SHARD, Order::Desc, &from, page);
    let mut pointers = Listed::new(store, tenant, Order::Desc, from, limit);
    let mut begun: Option<FeedPosition> = None;
    let mut found: Vec<Found> = Vec::new();
    while found.len() < limit {
        while begun.is_none()
            && let Some(entry) = segments.next().await?
        {
            if entry.meta.first == Seq::ZERO {
                begun = Some(feed::position(&entry));
            }
        }
        let archived = pointers.peek().await?.map(|pointer| pointer::position(&pointer.archived));
        // `None` is below every place.
        let order = archived.cmp(&begun);
        let first = match order {
            Ordering::Less => Seq::ZERO,
            Ordering::Equal | Ordering::Greater => pointers.next().await?.as_ref().map_or(Seq::ZERO, above),
        };
        let next = if order == Ordering::Greater { archived } else { begun.take() };
        let Some(next) = next else { break };
        found.push((next.session_id, first));
    }
    Ok(found)
}

/// Sessions that hold an event of an agent, in whichever segment: the whole feed tells, and the pointers what has
/// expired. A session whose archived part names too many agents is found as long as a segment is there that names
/// this one.
async fn of_agent(
    store: &DynamoStore,
    tenant: &TenantId,
    agent: &AgentId,
    after: Option<&FeedPosition>,
    limit: usize,
) -> Result<Vec<Found>, StoreError> {
    let mut begun: HashMap<SessionId, (CommitId, Seq)> = HashMap::new();
    let mut holding: BTreeSet<SessionId> = BTreeSet::new();
    let names = |summary: &Summary| summary.agents.count(agent.as_str()).is_some_and(|count| count > 0);
    let mut pointers = Listed::new(store, tenant, Order::Asc, From::End, usize::MAX);
    while let Some(pointer) = pointers.next().await? {
        let first = above(&pointer);
        let SessionRecord { session_id, first_commit, summary, .. } = pointer.archived;
        if names(&summary) {
            holding.insert(session_id.clone());
        }
        begun.insert(session_id, (first_commit, first));
    }
    time::walk(store, tenant, |entry| {
        if entry.meta.first == Seq::ZERO {
            let place = (entry.meta.commit_id, Seq::ZERO);
            begun.entry(entry.session_id.clone()).or_insert(place);
        }
        if names(&entry.meta.summary) {
            holding.insert(entry.session_id.clone());
        }
        Ok(())
    })
    .await?;
    let mut places = BTreeMap::new();
    for session_id in holding {
        let (commit_id, first) = match begun.get(&session_id) {
            Some(place) => *place,
            // Its first segment has not come to the index yet.
            None => match one(store, tenant, &session_id).await? {
                Some(record) => (record.first_commit, Seq::ZERO),
                None => continue,
            },
        };
        let place = FeedPosition { commit_id, session_id };
        if after.is_none_or(|after| place < *after) {
            places.insert(place, first);
        }
    }
    let newest = places.into_iter().rev().take(limit);
    Ok(newest.map(|(place, first)| (place.session_id, first)).collect())
}
