//! Sessions as a whole: the pointer and what came after it. Nothing of them is written by an append; the list is
//! found in the feed, where every session's first segment stands until it is archived.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use super::feed::{From, Reader};
use super::item::{self, get_text};
use super::{DynamoStore, Pointer, segments, time};
use crate::ids::{AgentId, CommitId, Seq, SessionId, TenantId};
use crate::store::derived::session_after;
use crate::store::keys::dynamo as keys;
use crate::store::{FeedPosition, Order, SessionRecord, StoreError};

/// Sessions of a page that are read at once.
const AT_ONCE: usize = 16;

/// See [`crate::store::Store::session`].
pub(super) async fn one(
    store: &DynamoStore,
    tenant: &TenantId,
    session: &SessionId,
) -> Result<Option<SessionRecord>, StoreError> {
    let query = segments::between(store, tenant, session, keys::SEGMENT_FIRST, keys::POINTER, Order::Asc);
    let items = store.items(query.projection_expression("pk, sk, m, q, p"), usize::MAX).await?;
    let mut record = None;
    for item in &items {
        if get_text(item, "sk")? == keys::POINTER {
            record = Some(Pointer::read(session, item)?.archived);
        }
    }
    for item in &items {
        if get_text(item, "sk")? == keys::POINTER {
            continue;
        }
        let meta = item::segment(item)?;
        // What is archived is counted in the pointer, whether it has expired yet or not.
        if record.as_ref().is_none_or(|record: &SessionRecord| meta.first > record.head.sequence) {
            record = Some(session_after(record, session, &meta));
        }
    }
    Ok(record)
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
    let records = stream::iter(found).map(async |session| one(store, tenant, &session).await);
    // One that is gone meanwhile was not lost: nothing deletes sessions; the index was ahead of nothing.
    records.buffered(AT_ONCE).try_filter_map(async |record| Ok(record)).try_collect().await
}

/// Sessions by their first segments, newest first.
async fn all(
    store: &DynamoStore,
    tenant: &TenantId,
    after: Option<&FeedPosition>,
    limit: usize,
) -> Result<Vec<SessionId>, StoreError> {
    let from = after.map_or(From::End, |at| From::Beyond(keys::feed(at.commit_id, &at.session_id)));
    // Most segments are not their session's first: a few times as many as are wanted, from each shard.
    let page = limit.saturating_mul(4).max(100);
    let mut reader = Reader::new(store, tenant, 0..=keys::STRAY_SHARD, Order::Desc, &from, page);
    let mut found = Vec::new();
    while found.len() < limit
        && let Some(entry) = reader.next().await?
    {
        if entry.meta.first == Seq::ZERO {
            found.push(entry.session_id);
        }
    }
    Ok(found)
}

/// Sessions that hold an event of an agent, in whichever segment: the whole feed tells.
async fn of_agent(
    store: &DynamoStore,
    tenant: &TenantId,
    agent: &AgentId,
    after: Option<&FeedPosition>,
    limit: usize,
) -> Result<Vec<SessionId>, StoreError> {
    let mut begun: HashMap<SessionId, CommitId> = HashMap::new();
    let mut holding: BTreeSet<SessionId> = BTreeSet::new();
    time::walk(store, tenant, |entry| {
        if entry.meta.first == Seq::ZERO {
            begun.insert(entry.session_id.clone(), entry.meta.commit_id);
        }
        if entry.meta.summary.agents.count(agent.as_str()).is_some_and(|count| count > 0) {
            holding.insert(entry.session_id.clone());
        }
        Ok(())
    })
    .await?;
    let mut places = BTreeMap::new();
    for session_id in holding {
        let commit_id = match begun.get(&session_id) {
            Some(commit) => *commit,
            // Its first segment is archived: the pointer knows.
            None => match one(store, tenant, &session_id).await? {
                Some(record) => record.first_commit,
                None => continue,
            },
        };
        let place = FeedPosition { commit_id, session_id };
        if after.is_none_or(|after| place < *after) {
            places.insert(place, ());
        }
    }
    Ok(places.into_keys().rev().take(limit).map(|place| place.session_id).collect())
}
