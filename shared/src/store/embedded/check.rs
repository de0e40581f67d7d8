//! Are the derived tables what follows from the segments' attributes? (Whether those follow from the bodies is the
//! verifier's to say.)

use std::collections::{BTreeMap, BTreeSet};

use super::derived;
use super::inspect::{InspectTable, Inspector};
use super::records::{self, AgentRow};
use super::tables::{corrupt, guarded};
use crate::ids::{SessionId, TenantId};
use crate::segment::SegmentMeta;
use crate::store::{StoreError, keys};

/// A derived row that is not what it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// Its table.
    pub table: InspectTable,
    /// Its key, printable.
    pub key: String,
    /// Its tenant and session, if it belongs to one.
    pub session: Option<(TenantId, SessionId)>,
    /// What is wrong.
    pub why: &'static str,
}

/// What the segments make necessary, gathered while walking over them.
#[derive(Default)]
struct Expected {
    segments: u64,
    sessions: u64,
    parts: u64,
    agent_sessions: BTreeSet<Vec<u8>>,
    agents: BTreeMap<Vec<u8>, AgentRow>,
}

impl Inspector {
    /// Compares the feed, the time index, and the records and lists of sessions and agents with what follows from
    /// the segments' attributes. Each misfit is told as it is found; the walk goes on after it.
    ///
    /// # Errors
    /// `Corrupt` where a segment's row cannot be read: then nothing can be said about the rest.
    pub fn check_derived(&self, found: &mut dyn FnMut(Misfit)) -> Result<(), StoreError> {
        guarded(|| {
            let mut expected = Expected::default();
            for session in self.sessions()? {
                let (tenant, session) = session?;
                self.check_session(&tenant, &session, &mut expected, found)?;
            }
            self.check_agents(&expected, found)?;
            self.check_counts(&expected, found)
        })
    }

    fn check_session(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        expected: &mut Expected,
        found: &mut dyn FnMut(Misfit),
    ) -> Result<(), StoreError> {
        let prefix = keys::session(tenant, session);
        let mut misfit = |table: InspectTable, key: &[u8], why| {
            let session = Some((tenant.clone(), session.clone()));
            found(Misfit { table, key: key.escape_ascii().to_string(), session, why });
        };
        let mut record = None;
        for row in self.rows(InspectTable::Segments, &prefix)? {
            let (key, value) = row?;
            let damaged = |e| corrupt(InspectTable::Segments.definition(), &key, e);
            let row = super::tables::SegmentRow::decode(&value).map_err(damaged)?;
            let meta = SegmentMeta::decode(row.attributes).map_err(damaged)?;
            expected.segments += 1;
            expected.parts = expected.parts.saturating_add(row.parts);
            for (table, (key, value)) in [
                (InspectTable::Feed, derived::feed_row(tenant, session, &meta)),
                (InspectTable::Times, derived::time_row(tenant, session, &meta)),
            ] {
                if self.get(table, &key)? != Some(value) {
                    misfit(table, &key, "a segment's row is missing or says something else");
                }
            }
            let after = derived::session_after(record.take(), session, &meta);
            for (agent, count) in derived::agents(&meta).map_err(damaged)? {
                let link = keys::agent_session(tenant, &agent, after.first_commit, session);
                let new_session = expected.agent_sessions.insert(link);
                let key = keys::agent(tenant, &agent);
                let before = expected.agents.remove(&key);
                let row = derived::agent_after(before, &agent, &meta, count, new_session);
                expected.agents.insert(key, row);
            }
            record = Some(after);
        }
        match record {
            None => misfit(InspectTable::Segments, &prefix, "a session of which no segment is left"),
            Some(record) => {
                expected.sessions += 1;
                if self.get(InspectTable::Sessions, &prefix)? != Some(records::encode_session(&record)) {
                    misfit(InspectTable::Sessions, &prefix, "the session's record does not follow from it");
                }
                let key = keys::session_order(tenant, record.first_commit, session);
                if self.get(InspectTable::SessionOrder, &key)?.is_none_or(|value| !value.is_empty()) {
                    misfit(InspectTable::SessionOrder, &key, "the session is not in the list");
                }
            }
        }
        Ok(())
    }

    fn check_agents(&self, expected: &Expected, found: &mut dyn FnMut(Misfit)) -> Result<(), StoreError> {
        let mut misfit = |table: InspectTable, key: &[u8], why| {
            found(Misfit { table, key: key.escape_ascii().to_string(), session: None, why });
        };
        for (key, row) in &expected.agents {
            if self.get(InspectTable::Agents, key)? != Some(records::encode_agent(row)) {
                misfit(InspectTable::Agents, key, "the agent's record does not follow from its events");
            }
        }
        for key in &expected.agent_sessions {
            if self.get(InspectTable::AgentSessions, key)?.is_none_or(|value| !value.is_empty()) {
                misfit(InspectTable::AgentSessions, key, "a session of the agent is not in its list");
            }
        }
        for row in self.rows(InspectTable::Agents, &[])? {
            let (key, _) = row?;
            if !expected.agents.contains_key(&key) {
                misfit(InspectTable::Agents, &key, "an agent without an event");
            }
        }
        for row in self.rows(InspectTable::AgentSessions, &[])? {
            let (key, _) = row?;
            if !expected.agent_sessions.contains(&key) {
                misfit(InspectTable::AgentSessions, &key, "a session that holds no event of the agent");
            }
        }
        Ok(())
    }

    /// All that must be there is there; is there more?
    fn check_counts(&self, expected: &Expected, found: &mut dyn FnMut(Misfit)) -> Result<(), StoreError> {
        let mut misfit = |table: InspectTable, key: &[u8], why| {
            found(Misfit { table, key: key.escape_ascii().to_string(), session: None, why });
        };
        for (table, count) in [
            (InspectTable::Feed, expected.segments),
            (InspectTable::Times, expected.segments),
            (InspectTable::Sessions, expected.sessions),
            (InspectTable::SessionOrder, expected.sessions),
        ] {
            // A table's own count is not covered by what was looked up: count.
            let mut rows = 0;
            for row in self.rows(table, &[])? {
                row?;
                rows += 1;
            }
            if rows != count {
                misfit(table, &[], "it holds more or fewer rows than there are segments or sessions");
            }
        }
        if self.body_part_count()? != expected.parts {
            misfit(InspectTable::Segments, &[], "there are body parts that belong to no segment");
        }
        Ok(())
    }
}
