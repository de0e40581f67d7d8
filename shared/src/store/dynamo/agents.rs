//! Agents: counted over the feed and the pointers whenever somebody asks.
//!
//! Nothing is counted twice. Of a session without a pointer its segments are counted, and of one with a pointer those
//! above it. What lies below is counted by its segments too, as long as the feed has all of them; once one has
//! expired, by the pointer alone. That is as exact as the segments in what an agent's events and sessions are, but:
//! - the agent was seen first and last when the archived part of the session was;
//! - a name counts as given by the session's first commit, whichever start gave it;
//! - an archived part of more than [`crate::limits::SUMMARY_NAMES_MAX`] agents names none of them, and counts only
//!   what its segments that are still there name.

use std::collections::{BTreeMap, HashSet};

use super::feed::From;
use super::pointer::Listed;
use super::{DynamoStore, time};
use crate::codec::Malformed;
use crate::ids::{AgentId, SessionId, TenantId};
use crate::store::derived::{self, AgentRow};
use crate::store::{AgentRecord, Order, Pointer, SessionRecord, StoreError};

/// What the feed has of the part of a session that is archived.
struct Archived {
    pointer: Pointer,
    /// Events of the segments that were found.
    events: u64,
    /// Their agents; each row is of this session alone.
    rows: BTreeMap<AgentId, AgentRow>,
}

impl Archived {
    /// The agents of this part: as its segments say, if all are there or the pointer cannot say; else as that does.
    fn count(self) -> Result<BTreeMap<AgentId, AgentRow>, Malformed> {
        let SessionRecord { first_commit, head, summary, .. } = self.pointer.archived;
        // Sequences begin at 0.
        let is_whole = self.events == head.sequence.get().saturating_add(1);
        let Some(names) = summary.agents.names().filter(|_| !is_whole) else { return Ok(self.rows) };
        let mut rows = BTreeMap::new();
        for (name, event_count) in names {
            let agent_id = AgentId::parse(name).map_err(|_| Malformed("an agent's name"))?;
            let named = summary.agent_name.clone().filter(|_| summary.first_agent == name);
            let named_by = named.as_ref().map(|_| first_commit);
            let record = AgentRecord {
                agent_id: agent_id.clone(),
                first_seen_at: summary.time_min,
                last_seen_at: summary.time_max,
                session_count: 1,
                event_count,
                name: named,
            };
            rows.insert(agent_id, AgentRow { record, named_by });
        }
        Ok(rows)
    }
}

#[derive(Default)]
struct Count {
    rows: BTreeMap<AgentId, AgentRow>,
    /// Whose sessions are counted.
    seen: HashSet<(AgentId, SessionId)>,
}

impl Count {
    /// Adds what a part of a session says of an agent.
    fn add(&mut self, session: &SessionId, part: AgentRow) {
        let agent = part.record.agent_id.clone();
        let is_new = self.seen.insert((agent.clone(), session.clone()));
        let Some(row) = self.rows.get_mut(&agent) else {
            let record = AgentRecord { session_count: u64::from(is_new), ..part.record };
            self.rows.insert(agent, AgentRow { record, named_by: part.named_by });
            return;
        };
        let record = &mut row.record;
        record.first_seen_at = record.first_seen_at.min(part.record.first_seen_at);
        record.last_seen_at = record.last_seen_at.max(part.record.last_seen_at);
        record.event_count = record.event_count.saturating_add(part.record.event_count);
        record.session_count += u64::from(is_new);
        if part.named_by.is_some() && row.named_by <= part.named_by {
            row.named_by = part.named_by;
            record.name = part.record.name;
        }
    }
}

fn corrupt(session: &SessionId, why: Malformed) -> StoreError {
    StoreError::Corrupt { key: session.to_string(), why: why.to_string() }
}

/// Agents that `wanted` picks, by id.
async fn count(
    store: &DynamoStore,
    tenant: &TenantId,
    wanted: impl Fn(&AgentId) -> bool,
) -> Result<BTreeMap<AgentId, AgentRow>, StoreError> {
    let mut archived: BTreeMap<SessionId, Archived> = BTreeMap::new();
    // Before the feed: a segment that goes meanwhile is then below a pointer that is known.
    let mut pointers = Listed::new(store, tenant, Order::Asc, From::End, usize::MAX);
    while let Some(pointer) = pointers.next().await? {
        let session = pointer.archived.session_id.clone();
        archived.insert(session, Archived { pointer, events: 0, rows: BTreeMap::new() });
    }
    let mut count = Count::default();
    time::walk(store, tenant, |entry| {
        let (session, meta) = (&entry.session_id, &entry.meta);
        let below = archived.get_mut(session);
        let mut below = below.filter(|archived| meta.first <= archived.pointer.archived.head.sequence);
        if let Some(archived) = &mut below {
            archived.events = archived.events.saturating_add(meta.summary.events);
        }
        let agents = derived::agents(meta).map_err(|e| corrupt(session, e))?;
        for (agent, events) in agents.into_iter().filter(|(agent, _)| wanted(agent)) {
            match &mut below {
                Some(archived) => {
                    let before = archived.rows.remove(&agent);
                    let is_new = before.is_none();
                    let row = derived::agent_after(before, &agent, meta, events, is_new);
                    archived.rows.insert(agent, row);
                }
                None => count.add(session, derived::agent_after(None, &agent, meta, events, true)),
            }
        }
        Ok(())
    })
    .await?;
    for (session, archived) in archived {
        let rows = archived.count().map_err(|e| corrupt(&session, e))?;
        for (_, row) in rows.into_iter().filter(|(agent, _)| wanted(agent)) {
            count.add(&session, row);
        }
    }
    Ok(count.rows)
}

/// See [`crate::store::Store::agent`].
pub(super) async fn one(
    store: &DynamoStore,
    tenant: &TenantId,
    agent: &AgentId,
) -> Result<Option<AgentRecord>, StoreError> {
    Ok(count(store, tenant, |other| other == agent).await?.remove(agent).map(|row| row.record))
}

/// See [`crate::store::Store::agents`].
pub(super) async fn list(
    store: &DynamoStore,
    tenant: &TenantId,
    after: Option<&AgentId>,
    limit: usize,
) -> Result<Vec<AgentRecord>, StoreError> {
    let rows = count(store, tenant, |agent| after.is_none_or(|after| agent > after)).await?;
    Ok(rows.into_values().take(limit).map(|row| row.record).collect())
}
