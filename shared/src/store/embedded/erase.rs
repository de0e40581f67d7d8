//! What an erasure writes: its own record, another body for a segment, pointers without an agent's name, the new length
//! of a batch. See the methods of [`crate::store::Store`].
//!
//! Invariant: whatever follows from a segment's attributes (session, agents, the pointer of a session that is all
//! there) is made again in the transaction that changes them, so that no moment shows the one without the other.

use bytes::Bytes;
use redb::ReadableTable as _;

use super::apply::{Group, blot, put};
use super::tables::{self, SegmentRow, Snapshot, corrupt, fail, get};
use super::{bodies, derived, reads};
use crate::ids::{AgentId, EventId, Seq, SessionId, TenantId};
use crate::segment::SegmentMeta;
use crate::store::{
    BatchRecord, Conflict, ErasureRecord, Pointer, SessionRecord, StoreError, StoredBody, keys,
};

/// A write of the writer's thread that an erasure asks for.
pub(super) enum Erase {
    Put { tenant: TenantId, record: Box<ErasureRecord> },
    Update { tenant: TenantId, before: Box<ErasureRecord>, after: Box<ErasureRecord> },
    Body(Box<Replacement>),
    Pointer { tenant: TenantId, before: Box<Pointer>, after: Box<Pointer> },
    Resize { tenant: TenantId, batch: u64, revision: u64, bytes: u64 },
}

/// See [`crate::store::Store::replace_body`].
pub(super) struct Replacement {
    pub(super) tenant: TenantId,
    pub(super) session: SessionId,
    /// The body that must be there.
    pub(super) revision: u64,
    pub(super) before: SegmentMeta,
    pub(super) meta: SegmentMeta,
    pub(super) body: Bytes,
}

/// How many rows it changed. The inner error refuses this request alone and comes before its first write; after the outer
/// one the transaction must be given up.
type Applied = Result<Result<usize, StoreError>, StoreError>;

const CHANGED: StoreError = StoreError::Conflict(Conflict::Changed);

impl Group<'_> {
    /// Applies one.
    pub(super) fn erase(&mut self, work: &Erase) -> Applied {
        match work {
            Erase::Put { tenant, record } => {
                let mut table = self.txn.open_table(tables::ERASURES).map_err(fail)?;
                for done in [true, false] {
                    let key = keys::erasure(tenant, done, record.event_id);
                    if table.get(key.as_slice()).map_err(fail)?.is_some() {
                        return Ok(Err(StoreError::Conflict(Conflict::Exists)));
                    }
                }
                put(&mut table, &keys::erasure(tenant, false, record.event_id), &record.encode())?;
                Ok(Ok(1))
            }
            Erase::Update { tenant, before, after } => self.update_erasure(tenant, before, after),
            Erase::Body(replacement) => self.replace_body(replacement),
            Erase::Pointer { tenant, before, after } => {
                let key = keys::session(tenant, &before.archived.session_id);
                if get(&self.pointers, &key)?.is_none_or(|stored| stored != before.encode()) {
                    return Ok(Err(CHANGED));
                }
                blot(&mut self.pointers, &key)?;
                put(&mut self.pointers, &key, &after.encode())?;
                self.remake(tenant, &before.archived.session_id)?;
                self.rename(
                    tenant,
                    before.archived.summary.agent_name.as_deref(),
                    &before.archived.summary.first_agent,
                )?;
                Ok(Ok(1))
            }
            Erase::Resize { tenant, batch, revision, bytes } => {
                let mut table = self.txn.open_table(tables::BATCHES).map_err(fail)?;
                let key = keys::batch(tenant, *batch);
                let Some(value) = get(&table, &key)? else { return Ok(Ok(0)) };
                let record = match reads::decode_batch(&key, &value) {
                    Ok(record) => record,
                    Err(damaged) => return Ok(Err(damaged)),
                };
                if record.revision >= *revision {
                    return Ok(Ok(0));
                }
                let recorded = u8::from(record.recorded);
                let record = BatchRecord { revision: *revision, bytes: *bytes, ..record };
                put(&mut table, &key, &[&[recorded], record.encode().as_slice()].concat())?;
                Ok(Ok(1))
            }
        }
    }

    fn update_erasure(
        &mut self,
        tenant: &TenantId,
        before: &ErasureRecord,
        after: &ErasureRecord,
    ) -> Applied {
        let mut table = self.txn.open_table(tables::ERASURES).map_err(fail)?;
        let [pending, done] = [false, true].map(|done| keys::erasure(tenant, done, before.event_id));
        if table.get(done.as_slice()).map_err(fail)?.is_some() {
            let left = table.remove(pending.as_slice()).map_err(fail)?.is_some();
            return Ok(if before.is_done() { Ok(usize::from(left)) } else { Err(CHANGED) });
        }
        if get(&table, &pending)?.is_none_or(|stored| stored != before.encode()) {
            return Ok(Err(CHANGED));
        }
        if after.is_done() {
            table.remove(pending.as_slice()).map_err(fail)?;
        }
        put(&mut table, if after.is_done() { &done } else { &pending }, &after.encode())?;
        Ok(Ok(1))
    }

    fn replace_body(&mut self, replacement: &Replacement) -> Applied {
        let Replacement { tenant, session, revision, before, meta, body } = replacement;
        let key = keys::segment(tenant, session, before.first);
        let Some(value) = get(&self.segments, &key)? else { return Ok(Err(CHANGED)) };
        let row = match SegmentRow::decode(&value) {
            Ok(row) => row,
            Err(why) => return Ok(Err(corrupt(tables::SEGMENTS, &key, why))),
        };
        if row.place != *revision || row.attributes != before.encode() {
            return Ok(Err(CHANGED));
        }
        // What is damaged is told before the first write: others share the transaction.
        let there = match bodies::read(&self.bodies, row.place, row.parts)? {
            Ok(there) if there.len() as u64 == before.body_bytes => self.metas(tenant, session).map(drop),
            Ok(_) => Err(corrupt(tables::SEGMENTS, &key, "its body is of another length")),
            Err(why) => Err(corrupt(tables::SEGMENTS, &key, why)),
        };
        if let Err(damaged) = there {
            return Ok(Err(damaged));
        }
        // The new one is appended before the old one goes: no two bodies of a segment ever have one place.
        let (place, parts) = self.log.append(&mut self.bodies, body)?;
        bodies::remove(&mut self.bodies, row.place, row.parts, before.body_bytes)?
            .map_err(|why| corrupt(tables::SEGMENTS, &key, why))?;
        let attributes = &meta.encode();
        blot(&mut self.segments, &key)?;
        put(&mut self.segments, &key, &SegmentRow { place, parts, attributes, ..row }.encode())?;
        self.scrub_pointer(tenant, session, before, meta)?;
        self.remake(tenant, session)?;
        if before.summary.agent_name != meta.summary.agent_name {
            self.rename(tenant, before.summary.agent_name.as_deref(), &before.summary.first_agent)?;
        }
        Ok(Ok(1))
    }

    /// Takes out of a session's pointer what a segment's attributes do not say any more.
    fn scrub_pointer(
        &mut self,
        tenant: &TenantId,
        session: &SessionId,
        before: &SegmentMeta,
        meta: &SegmentMeta,
    ) -> Result<(), StoreError> {
        let same =
            before.summary.agent_name == meta.summary.agent_name && before.summary.tags == meta.summary.tags;
        let Some(pointer) = reads::pointer(&self.pointers, tenant, session)? else { return Ok(()) };
        if same || pointer.archived.head.sequence < meta.last {
            return Ok(());
        }
        let mut after = pointer.clone();
        match self.folded(tenant, session, Some(pointer.archived.head.sequence))? {
            Some(whole) => after.archived = whole,
            // The segments that would say what is left have gone.
            None => {
                after.archived.summary.agent_name = None;
                after.archived.summary.tags.clear();
            }
        }
        if after != pointer {
            after.scrubbed += 1;
            blot(&mut self.pointers, &keys::session(tenant, session))?;
            put(&mut self.pointers, &keys::session(tenant, session), &after.encode())?;
        }
        Ok(())
    }

    /// A pointer that is about to be written, without what was erased since its writer read the segments that it is made
    /// of. Only where something of the tenant was erased.
    pub(super) fn without_erased(
        &self,
        tenant: &TenantId,
        pointer: &Pointer,
    ) -> Result<Result<Pointer, StoreError>, StoreError> {
        let mut pointer = pointer.clone();
        let prefix = keys::tenant(tenant);
        let end = keys::after_prefix(&prefix);
        let erasures = self.txn.open_table(tables::ERASURES).map_err(fail)?;
        if erasures.range(prefix.as_slice()..end.as_slice()).map_err(fail)?.next().is_none() {
            return Ok(Ok(pointer));
        }
        let session = &pointer.archived.session_id;
        match self.folded(tenant, session, Some(pointer.archived.head.sequence)) {
            Ok(Some(whole)) => {
                let summary = &mut pointer.archived.summary;
                summary.agent_name = whole.summary.agent_name;
                summary.tags = whole.summary.tags;
                Ok(Ok(pointer))
            }
            Ok(None) => Ok(Ok(pointer)),
            Err(damaged) => Ok(Err(damaged)),
        }
    }

    /// What a session's segments give from the first event on, up to the segment that ends with `last`; `None` unless
    /// they are all there.
    fn folded(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        last: Option<Seq>,
    ) -> Result<Option<SessionRecord>, StoreError> {
        let mut record: Option<SessionRecord> = None;
        for meta in self.metas(tenant, session)? {
            let next = record.as_ref().map_or(Some(Seq::ZERO), |record| record.head.sequence.checked_add(1));
            if next != Some(meta.first) {
                return Ok(None);
            }
            record = Some(derived::session_after(record, session, &meta));
            if last == Some(meta.last) {
                return Ok(record);
            }
        }
        Ok(record.filter(|_| last.is_none()))
    }

    fn metas(&self, tenant: &TenantId, session: &SessionId) -> Result<Vec<SegmentMeta>, StoreError> {
        let prefix = keys::session(tenant, session);
        let end = keys::after_prefix(&prefix);
        let mut metas = Vec::new();
        for row in self.segments.range(prefix.as_slice()..end.as_slice()).map_err(fail)? {
            let (key, value) = row.map_err(fail)?;
            metas.push(reads::decode_row(key.value(), value.value())?.1);
        }
        Ok(metas)
    }

    /// Makes a session's record again from its segments, or from its pointer and the segments above it.
    fn remake(&mut self, tenant: &TenantId, session: &SessionId) -> Result<(), StoreError> {
        let pointer = reads::pointer(&self.pointers, tenant, session)?;
        let archived = pointer.as_ref().map(|pointer| pointer.archived.head.sequence);
        let record = match self.folded(tenant, session, None)? {
            Some(record) if archived.is_none_or(|archived| archived <= record.head.sequence) => Some(record),
            _ => {
                let mut record = pointer.map(|pointer| pointer.archived);
                for meta in self.metas(tenant, session)? {
                    if record.as_ref().is_none_or(|record| record.head.sequence < meta.first) {
                        record = Some(derived::session_after(record, session, &meta));
                    }
                }
                record
            }
        };
        if let Some(record) = record {
            self.keep_session(keys::session(tenant, session), record)?;
        }
        Ok(())
    }

    /// Names an agent again by what its sessions say, if it has the name that has gone.
    fn rename(&mut self, tenant: &TenantId, gone: Option<&str>, agent: &str) -> Result<(), StoreError> {
        let (Some(gone), Ok(agent)) = (gone, AgentId::parse(agent)) else { return Ok(()) };
        let key = keys::agent(tenant, &agent);
        let Some(row) = self.agent_row(&key, &agent)? else { return Ok(()) };
        if row.record.name.as_deref() != Some(gone) {
            return Ok(());
        }
        let mut named = None;
        let end = keys::after_prefix(&key);
        let mut sessions = Vec::new();
        for link in self.agent_links().range(key.as_slice()..end.as_slice()).map_err(fail)? {
            let (link, _) = link.map_err(fail)?;
            sessions.extend(keys::read_agent_session(link.value()).map(|(.., session)| session));
        }
        for session in sessions {
            for SegmentMeta { commit_id, summary, .. } in self.metas(tenant, &session)? {
                let names = summary.agent_name.is_some() && summary.first_agent == agent.as_str();
                if names && named.as_ref().is_none_or(|(by, _)| *by <= commit_id) {
                    named = Some((commit_id, summary.agent_name));
                }
            }
        }
        let mut row = row;
        let (by, name) = named.unzip();
        (row.named_by, row.record.name) = (by, name.flatten());
        self.keep_agent(key, row)
    }
}

/// See [`crate::store::Store::stored_body`].
pub(super) fn stored_body(
    view: &Snapshot,
    tenant: &TenantId,
    session: &SessionId,
    sequence: Seq,
) -> Result<Option<StoredBody>, StoreError> {
    let (low, high) = (keys::session(tenant, session), keys::segment(tenant, session, sequence));
    let table = view.table(tables::SEGMENTS)?;
    let Some(found) = table.range(low.as_slice()..=high.as_slice()).map_err(fail)?.next_back() else {
        return Ok(None);
    };
    let (key, value) = found.map_err(fail)?;
    let (key, value) = (key.value(), value.value());
    let (row, meta) = reads::decode_row(key, value)?;
    if meta.last < sequence {
        return Ok(None);
    }
    let body = bodies::read(&view.bodies()?, row.place, row.parts)?;
    let body = body.map(Bytes::from).map_err(|why| corrupt(tables::SEGMENTS, key, why))?;
    Ok(Some(StoredBody { revision: row.place, meta, body }))
}

/// See [`crate::store::Store::erasure`].
pub(super) fn erasure(
    view: &Snapshot,
    tenant: &TenantId,
    event: EventId,
) -> Result<Option<ErasureRecord>, StoreError> {
    let table = view.table(tables::ERASURES)?;
    for done in [true, false] {
        let key = keys::erasure(tenant, done, event);
        if let Some(value) = get(&table, &key)? {
            let record = ErasureRecord::decode(event, &value);
            return record.map(Some).map_err(|e| corrupt(tables::ERASURES, &key, e));
        }
    }
    Ok(None)
}

/// See [`crate::store::Store::erasures`].
pub(super) fn erasures(
    view: &Snapshot,
    tenant: &TenantId,
    done: bool,
    after: Option<EventId>,
    limit: usize,
) -> Result<Vec<ErasureRecord>, StoreError> {
    let prefix = keys::erasures(tenant, done);
    let end = keys::after_prefix(&prefix);
    let at = after.map(|event| keys::erasure(tenant, done, event));
    let range = reads::after_position(&prefix, &end, at.as_deref());
    let mut found = Vec::new();
    for row in view.table(tables::ERASURES)?.range::<&[u8]>(range).map_err(fail)?.take(limit) {
        let (key, value) = row.map_err(fail)?;
        let damaged = |why: &str| corrupt(tables::ERASURES, key.value(), why);
        let event = key.value().last_chunk::<16>().map(|id| u128::from_be_bytes(*id));
        let event = event.and_then(EventId::from_u128).ok_or_else(|| damaged("not an erasure's key"))?;
        found.push(ErasureRecord::decode(event, value.value()).map_err(|e| damaged(e.0))?);
    }
    Ok(found)
}
