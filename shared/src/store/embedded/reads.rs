//! Reads of segments, the feed, sessions and agents. Each sees one consistent view.

use std::ops::Bound;

use bytes::Bytes;
use redb::ReadableTable;

use super::tables::{self, Reader, SegmentRow, Snapshot, corrupt, fail, get};
use super::{bodies, records};
use crate::ids::{AgentId, CommitId, Seq, SessionId, TenantId};
use crate::segment::SegmentMeta;
use crate::store::{
    AgentRecord, FeedEntry, FeedPosition, Idempotency, Order, SessionRecord, StoreError, keys,
};

fn decode_meta(key: &[u8], value: &[u8]) -> Result<SegmentMeta, StoreError> {
    let meta = SegmentRow::decode(value).and_then(|row| SegmentMeta::decode(row.attributes));
    let meta = meta.map_err(|e| corrupt(tables::SEGMENTS, key, e))?;
    if key.ends_with(&meta.first.get().to_be_bytes()) {
        Ok(meta)
    } else {
        Err(corrupt(tables::SEGMENTS, key, "its attributes name another first sequence"))
    }
}

/// The attributes of a session's last segment.
pub(super) fn last_segment(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    tenant: &TenantId,
    session: &SessionId,
) -> Result<Option<SegmentMeta>, StoreError> {
    let prefix = keys::session(tenant, session);
    let end = keys::after_prefix(&prefix);
    let mut range = table.range(prefix.as_slice()..end.as_slice()).map_err(fail)?;
    let Some(row) = range.next_back() else { return Ok(None) };
    let (key, value) = row.map_err(fail)?;
    decode_meta(key.value(), value.value()).map(Some)
}

/// The attributes of the segment with this first sequence.
pub(super) fn segment_at(
    table: &Reader,
    tenant: &TenantId,
    session: &SessionId,
    first: Seq,
) -> Result<Option<SegmentMeta>, StoreError> {
    let key = keys::segment(tenant, session, first);
    let Some(value) = table.get(key.as_slice()).map_err(fail)? else { return Ok(None) };
    decode_meta(&key, value.value()).map(Some)
}

/// See [`crate::store::Store::segments`].
pub(super) fn segments(
    view: &Snapshot,
    tenant: &TenantId,
    session: &SessionId,
    from: Seq,
    order: Order,
    limit: usize,
) -> Result<Vec<SegmentMeta>, StoreError> {
    let table = view.table(tables::SEGMENTS)?;
    let prefix = keys::session(tenant, session);
    let at = keys::segment(tenant, session, from);
    let mut found = Vec::new();
    if limit == 0 {
        return Ok(found);
    }
    // The segment that holds `from` begins at or below it.
    let mut down = table.range(prefix.as_slice()..=at.as_slice()).map_err(fail)?;
    match order {
        Order::Desc => {
            while found.len() < limit
                && let Some(row) = down.next_back()
            {
                let (key, value) = row.map_err(fail)?;
                found.push(decode_meta(key.value(), value.value())?);
            }
        }
        Order::Asc => {
            if let Some(row) = down.next_back() {
                let (key, value) = row.map_err(fail)?;
                let meta = decode_meta(key.value(), value.value())?;
                if meta.last >= from {
                    found.push(meta);
                }
            }
            let end = keys::after_prefix(&prefix);
            let up = (Bound::Excluded(at.as_slice()), Bound::Excluded(end.as_slice()));
            for row in table.range::<&[u8]>(up).map_err(fail)? {
                if found.len() == limit {
                    break;
                }
                let (key, value) = row.map_err(fail)?;
                found.push(decode_meta(key.value(), value.value())?);
            }
        }
    }
    Ok(found)
}

/// See [`crate::store::Store::body`].
pub(super) fn body(
    view: &Snapshot,
    tenant: &TenantId,
    session: &SessionId,
    first: Seq,
) -> Result<Bytes, StoreError> {
    let key = keys::segment(tenant, session, first);
    let table = view.table(tables::SEGMENTS)?;
    let row = table.get(key.as_slice()).map_err(fail)?.ok_or(StoreError::NotFound)?;
    let row = SegmentRow::decode(row.value()).map_err(|e| corrupt(tables::SEGMENTS, &key, e))?;
    let body = bodies::read(&view.bodies()?, row.place, row.parts)?;
    body.map(Bytes::from).map_err(|why| corrupt(tables::SEGMENTS, &key, why))
}

/// A segment as the feed and the time index show it.
pub(super) fn entry(
    segments: &Reader,
    tenant: &TenantId,
    (commit, session_id): (CommitId, SessionId),
    first: Seq,
    place: impl Fn(&str) -> StoreError,
) -> Result<FeedEntry, StoreError> {
    let meta = segment_at(segments, tenant, &session_id, first)?.ok_or_else(|| place("no such segment"))?;
    if meta.commit_id != commit {
        return Err(place("the segment is of another commit"));
    }
    Ok(FeedEntry { session_id, meta })
}

fn feed_range(
    view: &Snapshot,
    tenant: &TenantId,
    range: (Bound<&[u8]>, Bound<&[u8]>),
    limit: usize,
) -> Result<Vec<FeedEntry>, StoreError> {
    let segments = view.table(tables::SEGMENTS)?;
    let mut entries = Vec::new();
    for row in view.table(tables::FEED)?.range::<&[u8]>(range).map_err(fail)?.take(limit) {
        let (key, value) = row.map_err(fail)?;
        let place = |why: &str| corrupt(tables::FEED, key.value(), why);
        let (_, commit, session) = keys::read_feed(key.value()).ok_or_else(|| place("not a feed's key"))?;
        let first = records::decode_feed(value.value()).map_err(|e| place(e.0))?;
        entries.push(entry(&segments, tenant, (commit, session), first, place)?);
    }
    Ok(entries)
}

/// See [`crate::store::Store::feed`].
pub(super) fn feed(
    view: &Snapshot,
    tenant: &TenantId,
    after: Option<&FeedPosition>,
    limit: usize,
) -> Result<Vec<FeedEntry>, StoreError> {
    let prefix = keys::tenant(tenant);
    let end = keys::after_prefix(&prefix);
    let at = after.map(|at| keys::feed(tenant, at.commit_id, &at.session_id));
    let start = at.as_deref().map_or(Bound::Included(prefix.as_slice()), Bound::Excluded);
    feed_range(view, tenant, (start, Bound::Excluded(&end)), limit)
}

/// See [`crate::store::Store::feed_commit`].
pub(super) fn feed_commit(
    view: &Snapshot,
    tenant: &TenantId,
    commit: CommitId,
) -> Result<Vec<FeedEntry>, StoreError> {
    let prefix = keys::feed_commit(tenant, commit);
    let end = keys::after_prefix(&prefix);
    feed_range(view, tenant, (Bound::Included(&prefix), Bound::Excluded(&end)), usize::MAX)
}

/// See [`crate::store::Store::session`].
pub(super) fn session(
    view: &Snapshot,
    tenant: &TenantId,
    session: &SessionId,
) -> Result<Option<SessionRecord>, StoreError> {
    let key = keys::session(tenant, session);
    let Some(bytes) = get(&view.table(tables::SESSIONS)?, &key)? else { return Ok(None) };
    let record = records::decode_session(session.clone(), &bytes);
    record.map(Some).map_err(|e| corrupt(tables::SESSIONS, &key, e))
}

/// See [`crate::store::Store::sessions`].
pub(super) fn sessions(
    view: &Snapshot,
    tenant: &TenantId,
    agent: Option<&AgentId>,
    after: Option<&FeedPosition>,
    limit: usize,
) -> Result<Vec<SessionRecord>, StoreError> {
    let (definition, prefix) = match agent {
        None => (tables::SESSION_ORDER, keys::tenant(tenant)),
        Some(agent) => (tables::AGENT_SESSIONS, keys::agent(tenant, agent)),
    };
    let end = match (after, agent) {
        (None, _) => keys::after_prefix(&prefix),
        (Some(at), None) => keys::session_order(tenant, at.commit_id, &at.session_id),
        (Some(at), Some(agent)) => keys::agent_session(tenant, agent, at.commit_id, &at.session_id),
    };
    let table = view.table(definition)?;
    let mut found = Vec::new();
    for row in table.range(prefix.as_slice()..end.as_slice()).map_err(fail)?.rev().take(limit) {
        let (key, _) = row.map_err(fail)?;
        let place = |why: &str| corrupt(definition, key.value(), why);
        let id = key.value().get(prefix.len() + 16..).and_then(|id| std::str::from_utf8(id).ok());
        let id = id.and_then(|id| SessionId::parse(id).ok()).ok_or_else(|| place("no session's id"))?;
        found.push(session(view, tenant, &id)?.ok_or_else(|| place("no such session"))?);
    }
    Ok(found)
}

fn decode_agent(key: &[u8], value: &[u8]) -> Result<AgentRecord, StoreError> {
    let (_, agent) =
        keys::read_agent(key).ok_or_else(|| corrupt(tables::AGENTS, key, "not an agent's key"))?;
    let row = records::decode_agent(agent, value).map_err(|e| corrupt(tables::AGENTS, key, e))?;
    Ok(row.record)
}

/// See [`crate::store::Store::agent`].
pub(super) fn agent(
    view: &Snapshot,
    tenant: &TenantId,
    agent: &AgentId,
) -> Result<Option<AgentRecord>, StoreError> {
    let key = keys::agent(tenant, agent);
    get(&view.table(tables::AGENTS)?, &key)?.map(|value| decode_agent(&key, &value)).transpose()
}

/// See [`crate::store::Store::agents`].
pub(super) fn agents(
    view: &Snapshot,
    tenant: &TenantId,
    after: Option<&AgentId>,
    limit: usize,
) -> Result<Vec<AgentRecord>, StoreError> {
    let prefix = keys::tenant(tenant);
    let end = keys::after_prefix(&prefix);
    let at = after.map(|agent| keys::agent(tenant, agent));
    let start = at.as_deref().map_or(Bound::Included(prefix.as_slice()), Bound::Excluded);
    let range = (start, Bound::Excluded(end.as_slice()));
    let mut found = Vec::new();
    for row in view.table(tables::AGENTS)?.range::<&[u8]>(range).map_err(fail)?.take(limit) {
        let (key, value) = row.map_err(fail)?;
        found.push(decode_agent(key.value(), value.value())?);
    }
    Ok(found)
}

/// See [`crate::store::Store::idempotency`].
pub(super) fn idempotency(
    view: &Snapshot,
    tenant: &TenantId,
    hmac: &[u8; 32],
) -> Result<Option<Idempotency>, StoreError> {
    let key = keys::idempotency(tenant, hmac);
    let Some(bytes) = get(&view.table(tables::IDEMPOTENCY)?, &key)? else { return Ok(None) };
    let record = records::decode_idempotency(*hmac, &bytes);
    record.map(Some).map_err(|e| corrupt(tables::IDEMPOTENCY, &key, e))
}
