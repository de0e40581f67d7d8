//! The records and lists of agents.
//!
//! Of what has expired only the session's pointer tells: how many events of each agent there were, if it names them, and
//! when the first and last event of the whole was. So agents of such sessions are held to what can still be known.

use std::collections::{BTreeMap, BTreeSet};

use super::super::derived;
use super::super::inspect::{InspectTable, Inspector};
use super::super::records::{self, AgentRow};
use super::Misfit;
use crate::codec::Malformed;
use crate::ids::{AgentId, CommitId, SessionId, TenantId};
use crate::segment::SegmentMeta;
use crate::store::{SessionRecord, StoreError, keys};
use crate::time::Micros;

/// What there was of an agent in sessions of which something has expired.
#[derive(Debug, Clone, Copy)]
struct Gone {
    events: u64,
    /// Nothing was before or after.
    times: (Micros, Micros),
}

#[derive(Debug, Default)]
struct Agent {
    /// From segments that are there.
    row: Option<AgentRow>,
    gone: Option<Gone>,
}

/// What must be there.
#[derive(Debug, Default)]
pub(super) struct Expected {
    /// Keys of the lists of sessions.
    links: BTreeSet<Vec<u8>>,
    /// By key.
    agents: BTreeMap<Vec<u8>, Agent>,
    /// Sessions that may be in any agent's list: they were of too many to name.
    unnamed: BTreeMap<TenantId, BTreeSet<(CommitId, SessionId)>>,
}

impl Expected {
    /// Counts a segment.
    pub(super) fn add(
        &mut self,
        tenant: &TenantId,
        session: &SessionId,
        first_commit: CommitId,
        meta: &SegmentMeta,
    ) -> Result<(), Malformed> {
        for (name, count) in derived::agents(meta)? {
            let new_session = self.links.insert(keys::agent_session(tenant, &name, first_commit, session));
            let agent = self.agents.entry(keys::agent(tenant, &name)).or_default();
            agent.row = Some(derived::agent_after(agent.row.take(), &name, meta, count, new_session));
        }
        Ok(())
    }

    /// Counts what is archived of a session, of which something has expired.
    pub(super) fn add_archived(
        &mut self,
        tenant: &TenantId,
        archived: &SessionRecord,
    ) -> Result<(), Malformed> {
        let (session, first_commit) = (&archived.session_id, archived.first_commit);
        let summary = &archived.summary;
        let Some(names) = summary.agents.names() else {
            let unnamed = self.unnamed.entry(tenant.clone()).or_default();
            unnamed.insert((first_commit, session.clone()));
            return Ok(());
        };
        for (name, count) in names {
            let name = AgentId::parse(name).map_err(|_| Malformed("an agent's name"))?;
            self.links.insert(keys::agent_session(tenant, &name, first_commit, session));
            let agent = self.agents.entry(keys::agent(tenant, &name)).or_default();
            let gone =
                agent.gone.get_or_insert(Gone { events: 0, times: (summary.time_min, summary.time_max) });
            gone.events = gone.events.saturating_add(count);
            gone.times.0 = gone.times.0.min(summary.time_min);
            gone.times.1 = gone.times.1.max(summary.time_max);
        }
        Ok(())
    }
}

impl Agent {
    /// Does a stored record fit? `listed`: sessions in the agent's list. `vague`: there were others, of which nothing
    /// is known.
    fn fits(&self, stored: &[u8], agent: AgentId, listed: u64, vague: bool) -> bool {
        if let (Some(row), None, false) = (&self.row, self.gone, vague) {
            return stored == records::encode_agent(row);
        }
        let Ok(AgentRow { record, named_by }) = records::decode_agent(agent, stored) else { return false };
        let seen = self.row.as_ref();
        let events = seen.map_or(0, |row| row.record.event_count);
        let events = events.saturating_add(self.gone.map_or(0, |gone| gone.events));
        let counted = if vague { record.event_count >= events } else { record.event_count == events };
        // No later than what is seen, and no earlier than anything that is gone can have been.
        let (first, last) = (record.first_seen_at, record.last_seen_at);
        let covers = first <= last
            && seen.is_none_or(|row| first <= row.record.first_seen_at && last >= row.record.last_seen_at);
        let within = vague || {
            let bounds =
                [seen.map(|r| (r.record.first_seen_at, r.record.last_seen_at)), self.gone.map(|g| g.times)];
            let (low, high) =
                (bounds.iter().flatten().map(|b| b.0).min(), bounds.iter().flatten().map(|b| b.1).max());
            low.is_some_and(|low| first >= low) && high.is_some_and(|high| last <= high)
        };
        // The highest commit that gives a name decides.
        let named = match seen.and_then(|row| Some((row.named_by?, &row.record.name))) {
            None => true,
            Some((by, name)) => named_by > Some(by) || named_by == Some(by) && record.name == *name,
        };
        record.session_count == listed && counted && covers && within && named
    }
}

impl Inspector {
    pub(super) fn check_agents(
        &self,
        expected: &Expected,
        found: &mut dyn FnMut(Misfit),
    ) -> Result<(), StoreError> {
        let mut misfit = |table: InspectTable, key: &[u8], why| {
            found(Misfit { table, key: key.escape_ascii().to_string(), session: None, why });
        };
        let unexpected = Agent::default();
        let mut there = BTreeSet::new();
        for row in self.rows(InspectTable::Agents, &[])? {
            let (key, value) = row?;
            let Some((tenant, name)) = keys::read_agent(&key) else {
                misfit(InspectTable::Agents, &key, "not an agent's key");
                continue;
            };
            let vague = expected.unnamed.contains_key(&tenant);
            let listed = self.rows(InspectTable::AgentSessions, &key)?.count() as u64;
            let agent = expected.agents.get(&key).unwrap_or(&unexpected);
            if agent.row.is_none() && agent.gone.is_none() && !(vague && listed > 0) {
                misfit(InspectTable::Agents, &key, "an agent without an event");
            } else if !agent.fits(&value, name, listed, vague) {
                misfit(InspectTable::Agents, &key, "the agent's record does not follow from its events");
            }
            there.insert(key);
        }
        for key in expected.agents.keys().filter(|key| !there.contains(*key)) {
            misfit(InspectTable::Agents, key, "an agent's record is missing");
        }
        for key in &expected.links {
            if self.get(InspectTable::AgentSessions, key)?.is_none_or(|value| !value.is_empty()) {
                misfit(InspectTable::AgentSessions, key, "a session of the agent is not in its list");
            }
        }
        for row in self.rows(InspectTable::AgentSessions, &[])? {
            let (key, _) = row?;
            if expected.links.contains(&key) {
                continue;
            }
            let read = keys::read_agent_session(&key);
            let may_be = read.is_some_and(|(tenant, _, first_commit, session)| {
                let unnamed = expected.unnamed.get(&tenant);
                unnamed.is_some_and(|places| places.contains(&(first_commit, session)))
            });
            if !may_be {
                misfit(InspectTable::AgentSessions, &key, "a session that holds no event of the agent");
            }
        }
        Ok(())
    }
}
