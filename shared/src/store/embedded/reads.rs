//! Reads of segments, the feed, sessions, agents and of what is kept of the archive. Each sees one consistent view.

use std::ops::Bound;

use bytes::Bytes;
use redb::ReadableTable;

use super::tables::{self, Reader, SegmentRow, Snapshot, corrupt, fail, get};
use super::{bodies, records};
use crate::ids::{AgentId, CommitId, Seq, SessionId, TenantId};
use crate::segment::{Head, SegmentMeta};
use crate::store::{
    AgentRecord, BatchRecord, FeedEntry, FeedPosition, Idempotency, OpenEntry, Order, Pointer, SessionRecord,
    StoreError, keys,
};

pub(super) fn decode_row<'r>(
    key: &[u8],
    value: &'r [u8],
) -> Result<(SegmentRow<'r>, SegmentMeta), StoreError> {
    let damaged = |why| corrupt(tables::SEGMENTS, key, why);
    let row = SegmentRow::decode(value).map_err(damaged)?;
    let meta = SegmentMeta::decode(row.attributes).map_err(damaged)?;
    if key.ends_with(&meta.first.get().to_be_bytes()) {
        Ok((row, meta))
    } else {
        Err(corrupt(tables::SEGMENTS, key, "its attributes name another first sequence"))
    }
}

/// How far a session is archived.
pub(super) fn pointer(
    pointers: &impl ReadableTable<&'static [u8], &'static [u8]>,
    tenant: &TenantId,
    session: &SessionId,
) -> Result<Option<Pointer>, StoreError> {
    let key = keys::session(tenant, session);
    let Some(value) = pointers.get(key.as_slice()).map_err(fail)? else { return Ok(None) };
    let pointer = Pointer::decode(session, value.value());
    pointer.map(Some).map_err(|e| corrupt(tables::POINTERS, &key, e))
}

/// The end of a session: the higher of the pointer and the last segment. What is archived may have gone, in any
/// order, so neither alone is enough.
pub(super) fn head(
    segments: &impl ReadableTable<&'static [u8], &'static [u8]>,
    pointers: &impl ReadableTable<&'static [u8], &'static [u8]>,
    tenant: &TenantId,
    session: &SessionId,
) -> Result<Option<Head>, StoreError> {
    let prefix = keys::session(tenant, session);
    let end = keys::after_prefix(&prefix);
    let mut range = segments.range(prefix.as_slice()..end.as_slice()).map_err(fail)?;
    let last = match range.next_back() {
        None => None,
        Some(row) => {
            let (key, value) = row.map_err(fail)?;
            Some(decode_row(key.value(), value.value())?.1.head())
        }
    };
    let archived = pointer(pointers, tenant, session)?.map(|pointer| pointer.archived.head);
    Ok(match (last, archived) {
        (Some(last), Some(archived)) if archived.sequence > last.sequence => Some(archived),
        (last, archived) => last.or(archived),
    })
}

/// The attributes of the segment with this first sequence, if it has not expired.
pub(super) fn segment_at(
    view: &Snapshot,
    table: &Reader,
    tenant: &TenantId,
    session: &SessionId,
    first: Seq,
) -> Result<Option<SegmentMeta>, StoreError> {
    let key = keys::segment(tenant, session, first);
    let Some(value) = table.get(key.as_slice()).map_err(fail)? else { return Ok(None) };
    let (row, meta) = decode_row(&key, value.value())?;
    Ok(view.shows(&row).then_some(meta))
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
                let (row, meta) = decode_row(key.value(), value.value())?;
                if view.shows(&row) {
                    found.push(meta);
                }
            }
        }
        Order::Asc => {
            if let Some(row) = down.next_back() {
                let (key, value) = row.map_err(fail)?;
                let (row, meta) = decode_row(key.value(), value.value())?;
                if meta.last >= from && view.shows(&row) {
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
                let (row, meta) = decode_row(key.value(), value.value())?;
                if view.shows(&row) {
                    found.push(meta);
                }
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
    if !view.shows(&row) {
        return Err(StoreError::NotFound);
    }
    let body = bodies::read(&view.bodies()?, row.place, row.parts)?;
    body.map(Bytes::from).map_err(|why| corrupt(tables::SEGMENTS, &key, why))
}

/// A segment as the feed and the time index show it; `None` if it has expired.
pub(super) fn entry(
    view: &Snapshot,
    segments: &Reader,
    tenant: &TenantId,
    (commit, session_id): (CommitId, SessionId),
    first: Seq,
    place: impl Fn(&str) -> StoreError,
) -> Result<Option<FeedEntry>, StoreError> {
    let key = keys::segment(tenant, &session_id, first);
    let value = segments.get(key.as_slice()).map_err(fail)?.ok_or_else(|| place("no such segment"))?;
    let (row, meta) = decode_row(&key, value.value())?;
    if meta.commit_id != commit {
        return Err(place("the segment is of another commit"));
    }
    Ok(view.shows(&row).then_some(FeedEntry { session_id, meta }))
}

fn feed_range(
    view: &Snapshot,
    tenant: &TenantId,
    range: (Bound<&[u8]>, Bound<&[u8]>),
    limit: usize,
) -> Result<Vec<FeedEntry>, StoreError> {
    let segments = view.table(tables::SEGMENTS)?;
    let mut rows = view.table(tables::FEED)?.range::<&[u8]>(range).map_err(fail)?;
    let mut entries = Vec::new();
    while entries.len() < limit
        && let Some(row) = rows.next()
    {
        let (key, value) = row.map_err(fail)?;
        let place = |why: &str| corrupt(tables::FEED, key.value(), why);
        let (_, commit, session) = keys::read_feed(key.value()).ok_or_else(|| place("not a feed's key"))?;
        let first = records::decode_feed(value.value()).map_err(|e| place(e.0))?;
        entries.extend(entry(view, &segments, tenant, (commit, session), first, place)?);
    }
    Ok(entries)
}

/// The rows of a tenant after a position, in a table whose keys are those of the feed.
pub(super) fn after_position<'k>(
    prefix: &'k [u8],
    end: &'k [u8],
    at: Option<&'k [u8]>,
) -> (Bound<&'k [u8]>, Bound<&'k [u8]>) {
    (at.map_or(Bound::Included(prefix), Bound::Excluded), Bound::Excluded(end))
}

/// See [`crate::store::Store::open_segments`].
pub(super) fn open_segments(
    view: &Snapshot,
    tenant: &TenantId,
    after: Option<&FeedPosition>,
    limit: usize,
) -> Result<Vec<OpenEntry>, StoreError> {
    let prefix = keys::tenant(tenant);
    let end = keys::after_prefix(&prefix);
    let at = after.map(|at| keys::open(tenant, at.commit_id, &at.session_id));
    let range = after_position(&prefix, &end, at.as_deref());
    let mut entries = Vec::new();
    for row in view.table(tables::OPEN)?.range::<&[u8]>(range).map_err(fail)?.take(limit) {
        let (key, value) = row.map_err(fail)?;
        let place = |why: &str| corrupt(tables::OPEN, key.value(), why);
        let (_, commit_id, session_id) =
            keys::read_feed(key.value()).ok_or_else(|| place("not a key of this table"))?;
        let (bytes, _) = records::decode_open(value.value()).map_err(|e| place(e.0))?;
        entries.push(OpenEntry { position: FeedPosition { commit_id, session_id }, bytes });
    }
    Ok(entries)
}

/// A row of the catalogue.
pub(super) fn decode_batch(key: &[u8], value: &[u8]) -> Result<BatchRecord, StoreError> {
    let damaged = |why: &str| corrupt(tables::BATCHES, key, why);
    let (_, number) = keys::read_batch(key).ok_or_else(|| damaged("not a batch's key"))?;
    let (recorded, record) = match value {
        [flag @ (0 | 1), record @ ..] => (*flag == 1, record),
        _ => return Err(damaged("it does not say whether it is recorded")),
    };
    BatchRecord::decode(number, recorded, record).map_err(|e| damaged(e.0))
}

/// See [`crate::store::Store::last_batch`].
pub(super) fn last_batch(view: &Snapshot, tenant: &TenantId) -> Result<Option<BatchRecord>, StoreError> {
    let prefix = keys::tenant(tenant);
    let end = keys::after_prefix(&prefix);
    let table = view.table(tables::BATCHES)?;
    let mut rows = table.range(prefix.as_slice()..end.as_slice()).map_err(fail)?;
    let Some(row) = rows.next_back() else { return Ok(None) };
    let (key, value) = row.map_err(fail)?;
    decode_batch(key.value(), value.value()).map(Some)
}

/// See [`crate::store::Store::batches`].
pub(super) fn batches(
    view: &Snapshot,
    tenant: &TenantId,
    after: u64,
    limit: usize,
) -> Result<Vec<BatchRecord>, StoreError> {
    let (at, end) = (keys::batch(tenant, after), keys::after_prefix(&keys::tenant(tenant)));
    let range = (Bound::Excluded(at.as_slice()), Bound::Excluded(end.as_slice()));
    let mut found = Vec::new();
    for row in view.table(tables::BATCHES)?.range::<&[u8]>(range).map_err(fail)?.take(limit) {
        let (key, value) = row.map_err(fail)?;
        found.push(decode_batch(key.value(), value.value())?);
    }
    Ok(found)
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
    feed_range(view, tenant, after_position(&prefix, &end, at.as_deref()), limit)
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
    let range = after_position(&prefix, &end, at.as_deref());
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
