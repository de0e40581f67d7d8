//! One group of batches inside one redb transaction: check, then write.
//!
//! A batch is checked in full before its first row is written, so that a refused one leaves no trace and a batch is
//! all or nothing. Session and agent records are kept in memory while the group goes on and written once.

use std::collections::HashMap;

use redb::{ReadableTable, Table, WriteTransaction};

use super::bodies::BodyLog;
use super::records::{self, AgentRow};
use super::tables::{self, SegmentRow, Writer, corrupt, fail, get};
use super::{derived, reads};
use crate::ids::{AgentId, CommitId, SessionId, TenantId};
use crate::segment::unpacked_bytes;
use crate::store::{Commit, Conflict, Idempotency, SessionRecord, StoreError, keys};
use crate::time::Micros;

/// How long an expired idempotency key is kept, ms: an hour, so that clocks that disagree do not matter.
const EXPIRED_KEPT_MS: i64 = 60 * 60 * 1000;

/// Most expired idempotency keys that one new one sweeps away: more than one, so that they cannot pile up.
const SWEPT_MAX: usize = 4;

/// The tables of the ledger, open in a transaction.
pub(super) struct Group<'t> {
    /// For the tables that only a few requests need.
    pub(super) txn: &'t WriteTransaction,
    pub(super) segments: Writer<'t>,
    pub(super) bodies: Table<'t, u64, &'static [u8]>,
    pub(super) feed: Writer<'t>,
    pub(super) open: Writer<'t>,
    pub(super) times: Writer<'t>,
    sessions: Writer<'t>,
    session_order: Writer<'t>,
    pub(super) pointers: Writer<'t>,
    agents: Writer<'t>,
    agent_sessions: Writer<'t>,
    idempotency: Writer<'t>,
    idempotency_expiry: Writer<'t>,
    pub(super) log: BodyLog,
    session_records: HashMap<Vec<u8>, SessionRecord>,
    agent_rows: HashMap<Vec<u8>, AgentRow>,
}

/// A batch that may be written.
pub(super) struct Checked<'c> {
    commit: &'c Commit,
    /// For each segment: its agents, with their events.
    agents: Vec<Vec<(AgentId, u64)>>,
    /// The expiry of the record that the idempotency key replaces.
    replaces: Option<Micros>,
}

impl<'t> Group<'t> {
    pub(super) fn open(txn: &'t WriteTransaction, log: BodyLog) -> Result<Self, StoreError> {
        let open = |definition| txn.open_table(definition).map_err(fail);
        Ok(Self {
            txn,
            segments: open(tables::SEGMENTS)?,
            bodies: txn.open_table(tables::BODIES).map_err(fail)?,
            feed: open(tables::FEED)?,
            open: open(tables::OPEN)?,
            times: open(tables::TIMES)?,
            sessions: open(tables::SESSIONS)?,
            session_order: open(tables::SESSION_ORDER)?,
            pointers: open(tables::POINTERS)?,
            agents: open(tables::AGENTS)?,
            agent_sessions: open(tables::AGENT_SESSIONS)?,
            idempotency: open(tables::IDEMPOTENCY)?,
            idempotency_expiry: open(tables::IDEMPOTENCY_EXPIRY)?,
            log,
            session_records: HashMap::new(),
            agent_rows: HashMap::new(),
        })
    }

    /// Checks a batch's conditions and reads all that writing it needs. Writes nothing.
    pub(super) fn check<'c>(&mut self, commit: &'c Commit) -> Result<Checked<'c>, StoreError> {
        let replaces = match &commit.idempotency {
            None => None,
            Some(new) => match self.idempotency_record(commit, new)? {
                Some(old) if old.expires_at > batch_time(commit) => {
                    return Err(StoreError::Conflict(Conflict::Idempotency));
                }
                old => old.map(|old| old.expires_at),
            },
        };
        for segment in &commit.segments {
            let head = reads::head(&self.segments, &self.pointers, &commit.tenant, &segment.session_id)?;
            let meta = &segment.meta;
            let follows = match head {
                None => meta.first.get() == 0,
                Some(head) => head.sequence.checked_add(1) == Some(meta.first) && head.hash == meta.prev_hash,
            };
            if !follows {
                return Err(StoreError::Conflict(Conflict::Session(segment.session_id.clone())));
            }
        }
        let mut agents = Vec::with_capacity(commit.segments.len());
        for segment in &commit.segments {
            self.load_session(&commit.tenant, &segment.session_id)?;
            let named = derived::agents(&segment.meta)
                .map_err(|e| corrupt(tables::SEGMENTS, segment.session_id.as_str().as_bytes(), e))?;
            for (agent, _) in &named {
                self.load_agent(keys::agent(&commit.tenant, agent), agent)?;
            }
            agents.push(named);
        }
        Ok(Checked { commit, agents, replaces })
    }

    fn idempotency_record(
        &self,
        commit: &Commit,
        new: &Idempotency,
    ) -> Result<Option<Idempotency>, StoreError> {
        let key = keys::idempotency(&commit.tenant, &new.key);
        let Some(bytes) = get(&self.idempotency, &key)? else { return Ok(None) };
        let record = records::decode_idempotency(new.key, &bytes);
        record.map(Some).map_err(|e| corrupt(tables::IDEMPOTENCY, &key, e))
    }

    fn load_session(&mut self, tenant: &TenantId, session: &SessionId) -> Result<(), StoreError> {
        let key = keys::session(tenant, session);
        if !self.session_records.contains_key(&key)
            && let Some(bytes) = get(&self.sessions, &key)?
        {
            let record = records::decode_session(session.clone(), &bytes)
                .map_err(|e| corrupt(tables::SESSIONS, &key, e))?;
            self.session_records.insert(key, record);
        }
        Ok(())
    }

    /// Sees to it that a session's record, its place in the list and its agents say at least what is archived. They do, unless
    /// the session is known from the archive alone: its segments were lost, and the pointer is made again.
    ///
    /// The inner error comes before the first write; after the outer one the transaction must be given up.
    pub(super) fn keep_archived(
        &mut self,
        tenant: &TenantId,
        archived: &SessionRecord,
    ) -> Result<Result<(), StoreError>, StoreError> {
        if let Err(damaged) = self.load_session(tenant, &archived.session_id) {
            return Ok(Err(damaged));
        }
        let session = &archived.session_id;
        let key = keys::session(tenant, session);
        let before = self.session_records.get(&key).cloned();
        if before.as_ref().is_some_and(|before| before.head.sequence >= archived.head.sequence) {
            return Ok(Ok(()));
        }
        let agents = match self.uncounted(tenant, before.as_ref(), archived) {
            Ok(agents) => agents,
            Err(damaged) => return Ok(Err(damaged)),
        };
        if before.is_none() {
            put(&mut self.session_order, &keys::session_order(tenant, archived.first_commit, session), &[])?;
        }
        for (agent, count) in agents {
            let link = keys::agent_session(tenant, &agent, archived.first_commit, session);
            let new_session = self.agent_sessions.get(link.as_slice()).map_err(fail)?.is_none();
            if new_session {
                put(&mut self.agent_sessions, &link, &[])?;
            }
            let key = keys::agent(tenant, &agent);
            let known = self.agent_rows.remove(&key);
            let row = derived::agent_archived(known, &agent, archived, count, new_session);
            self.agent_rows.insert(key, row);
        }
        self.session_records.insert(key, archived.clone());
        Ok(Ok(()))
    }

    /// The agents of what is archived of a session, each with its events that `before` does not count.
    fn uncounted(
        &mut self,
        tenant: &TenantId,
        before: Option<&SessionRecord>,
        archived: &SessionRecord,
    ) -> Result<Vec<(AgentId, u64)>, StoreError> {
        let misnamed = |e| corrupt(tables::POINTERS, archived.session_id.as_str().as_bytes(), e);
        let known = before.map_or(Ok(Vec::new()), |before| derived::named(&before.summary));
        let known: HashMap<AgentId, u64> = known.map_err(misnamed)?.into_iter().collect();
        let mut agents = derived::named(&archived.summary).map_err(misnamed)?;
        for (agent, count) in &mut agents {
            *count = count.saturating_sub(known.get(agent).copied().unwrap_or_default());
            self.load_agent(keys::agent(tenant, agent), agent)?;
        }
        Ok(agents)
    }

    fn load_agent(&mut self, key: Vec<u8>, agent: &AgentId) -> Result<(), StoreError> {
        if !self.agent_rows.contains_key(&key)
            && let Some(bytes) = get(&self.agents, &key)?
        {
            let row =
                records::decode_agent(agent.clone(), &bytes).map_err(|e| corrupt(tables::AGENTS, &key, e))?;
            self.agent_rows.insert(key, row);
        }
        Ok(())
    }

    /// Has a session's record written with the group, and what was there written over (see [`blot`]).
    pub(super) fn keep_session(&mut self, key: Vec<u8>, record: SessionRecord) -> Result<(), StoreError> {
        blot(&mut self.sessions, &key)?;
        self.session_records.insert(key, record);
        Ok(())
    }

    /// An agent's record as the group leaves it so far.
    pub(super) fn agent_row(&mut self, key: &[u8], agent: &AgentId) -> Result<Option<AgentRow>, StoreError> {
        self.load_agent(key.to_vec(), agent)?;
        Ok(self.agent_rows.get(key).cloned())
    }

    /// Has an agent's record written with the group, and what was there written over (see [`blot`]).
    pub(super) fn keep_agent(&mut self, key: Vec<u8>, row: AgentRow) -> Result<(), StoreError> {
        blot(&mut self.agents, &key)?;
        self.agent_rows.insert(key, row);
        Ok(())
    }

    /// The lists of agents' sessions.
    pub(super) fn agent_links(&self) -> &Writer<'t> {
        &self.agent_sessions
    }

    /// Writes a checked batch. After an error the transaction must be given up.
    pub(super) fn write(&mut self, checked: &Checked<'_>) -> Result<(), StoreError> {
        let commit = checked.commit;
        let tenant = &commit.tenant;
        let mut order: Vec<usize> = (0..commit.segments.len()).collect();
        order.sort_by_key(|index| &commit.segments[*index].session_id);
        for index in order {
            let segment = &commit.segments[index];
            let (session, meta) = (&segment.session_id, &segment.meta);
            let (place, parts) = self.log.append(&mut self.bodies, &segment.body)?;
            let row = SegmentRow { place, parts, archived: None, attributes: &meta.encode() }.encode();
            put(&mut self.segments, &keys::segment(tenant, session, meta.first), &row)?;
            put_row(&mut self.feed, derived::feed_row(tenant, session, meta))?;
            let bytes = unpacked_bytes(&segment.body);
            put_row(&mut self.open, derived::open_row(tenant, session, meta, bytes))?;
            put_row(&mut self.times, derived::time_row(tenant, session, meta))?;

            let key = keys::session(tenant, session);
            let before = self.session_records.remove(&key);
            if before.is_none() {
                put(&mut self.session_order, &keys::session_order(tenant, meta.commit_id, session), &[])?;
            }
            let record = derived::session_after(before, session, meta);
            let first_commit = record.first_commit;
            self.session_records.insert(key, record);

            for (agent, count) in &checked.agents[index] {
                let link = keys::agent_session(tenant, agent, first_commit, session);
                let new_session = self.agent_sessions.get(link.as_slice()).map_err(fail)?.is_none();
                if new_session {
                    put(&mut self.agent_sessions, &link, &[])?;
                }
                let key = keys::agent(tenant, agent);
                let before = self.agent_rows.remove(&key);
                let row = derived::agent_after(before, agent, meta, *count, new_session);
                self.agent_rows.insert(key, row);
            }
        }
        if let Some(new) = &commit.idempotency {
            self.write_idempotency(commit, new, checked.replaces)?;
        }
        Ok(())
    }

    fn write_idempotency(
        &mut self,
        commit: &Commit,
        new: &Idempotency,
        replaces: Option<Micros>,
    ) -> Result<(), StoreError> {
        let key = keys::idempotency(&commit.tenant, &new.key);
        if let Some(at) = replaces {
            let old = keys::idempotency_expiry(at, &key);
            self.idempotency_expiry.remove(old.as_slice()).map_err(fail)?;
        }
        put(&mut self.idempotency, &key, &records::encode_idempotency(new))?;
        put(&mut self.idempotency_expiry, &keys::idempotency_expiry(new.expires_at, &key), &[])?;

        let end = keys::time(batch_time(commit).plus_ms(-EXPIRED_KEPT_MS));
        let mut long_expired = Vec::new();
        for row in self.idempotency_expiry.range(..end.as_slice()).map_err(fail)?.take(SWEPT_MAX) {
            long_expired.push(row.map_err(fail)?.0.value().to_vec());
        }
        for expiry in long_expired {
            self.idempotency_expiry.remove(expiry.as_slice()).map_err(fail)?;
            if let Some((_, key)) = expiry.split_first_chunk::<8>() {
                self.idempotency.remove(key).map_err(fail)?;
            }
        }
        Ok(())
    }

    /// Writes the records that the group has changed. Gives the end of the log of bodies.
    pub(super) fn finish(mut self) -> Result<BodyLog, StoreError> {
        for (key, record) in &self.session_records {
            put(&mut self.sessions, key, &records::encode_session(record))?;
        }
        for (key, row) in &self.agent_rows {
            put(&mut self.agents, key, &records::encode_agent(row))?;
        }
        Ok(self.log)
    }
}

/// When a batch was received: by one clock, the same for all its segments.
fn batch_time(commit: &Commit) -> Micros {
    commit.segments.first().map_or(Micros::MIN, |segment| segment.meta.received_at)
}

pub(super) fn put(table: &mut Writer<'_>, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
    table.insert(key, value).map_err(fail)?;
    Ok(())
}

/// Writes over a value that another is about to replace: redb changes a page in its place if this transaction has
/// written it already, and what the new value does not reach would stay behind it.
pub(super) fn blot(table: &mut Writer<'_>, key: &[u8]) -> Result<(), StoreError> {
    let length = table.get(key).map_err(fail)?.map(|value| value.value().len());
    length.map_or(Ok(()), |length| put(table, key, &vec![0; length]))
}

fn put_row(table: &mut Writer<'_>, (key, value): derived::Row) -> Result<(), StoreError> {
    put(table, &key, &value)
}

/// The id of the commit whose segments a batch writes.
pub(super) fn is_consistent(commit: &Commit) -> bool {
    let id: CommitId = commit.id;
    let mut sessions: Vec<_> = commit.segments.iter().map(|s| &s.session_id).collect();
    sessions.sort_unstable();
    !sessions.is_empty()
        && sessions.windows(2).all(|pair| pair[0] != pair[1])
        && commit.segments.iter().all(|s| s.meta.commit_id == id)
}
