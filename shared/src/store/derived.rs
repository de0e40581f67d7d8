//! What follows from segments: the records of sessions and agents.
//!
//! Everything here is a function of the segments alone, whatever the order in which different sessions were
//! written, so that a verifier can make it again and compare. Two things are as exact as a segment's attributes
//! are: a segment of several agents gives each of them its whole time range, and its start's name to the agent of
//! its first event.

use super::{AgentRecord, SessionRecord};
use crate::codec::Malformed;
use crate::ids::{AgentId, CommitId, SessionId};
use crate::segment::SegmentMeta;
use crate::summary::Summary;

/// An agent's record, and which commit its name comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct AgentRow {
    pub(in crate::store) record: AgentRecord,
    pub(in crate::store) named_by: Option<CommitId>,
}

/// A session's record once `meta` is its last segment.
pub(in crate::store) fn session_after(
    before: Option<SessionRecord>,
    session: &SessionId,
    meta: &SegmentMeta,
) -> SessionRecord {
    SessionRecord::after(before, session, meta)
}

/// The agents that a segment names, with their events; none if there were too many to name.
pub(in crate::store) fn agents(meta: &SegmentMeta) -> Result<Vec<(AgentId, u64)>, Malformed> {
    named(&meta.summary)
}

/// The agents that a summary names, with their events; none if there were too many to name.
pub(in crate::store) fn named(summary: &Summary) -> Result<Vec<(AgentId, u64)>, Malformed> {
    let names = summary.agents.names().into_iter().flatten();
    names
        .map(|(name, count)| {
            AgentId::parse(name).map(|agent| (agent, count)).map_err(|_| Malformed("an agent's name"))
        })
        .collect()
}

/// An agent's record with one more segment that holds `count` events of it.
pub(in crate::store) fn agent_after(
    before: Option<AgentRow>,
    agent: &AgentId,
    meta: &SegmentMeta,
    count: u64,
    new_session: bool,
) -> AgentRow {
    counted(before, agent, &meta.summary, meta.commit_id, count, new_session)
}

/// An agent's record with a session that is known from the archive alone and holds `count` events of it. A name counts
/// as given by the session's first commit, whichever start gave it.
#[cfg(feature = "embedded")]
pub(in crate::store) fn agent_archived(
    before: Option<AgentRow>,
    agent: &AgentId,
    archived: &SessionRecord,
    count: u64,
    new_session: bool,
) -> AgentRow {
    counted(before, agent, &archived.summary, archived.first_commit, count, new_session)
}

fn counted(
    before: Option<AgentRow>,
    agent: &AgentId,
    summary: &Summary,
    commit_id: CommitId,
    count: u64,
    new_session: bool,
) -> AgentRow {
    let mut row = before.unwrap_or_else(|| AgentRow {
        record: AgentRecord {
            agent_id: agent.clone(),
            first_seen_at: summary.time_min,
            last_seen_at: summary.time_max,
            session_count: 0,
            event_count: 0,
            name: None,
        },
        named_by: None,
    });
    let record = &mut row.record;
    record.first_seen_at = record.first_seen_at.min(summary.time_min);
    record.last_seen_at = record.last_seen_at.max(summary.time_max);
    record.event_count = record.event_count.saturating_add(count);
    record.session_count += u64::from(new_session);
    // Commits of one process need not come in the order of their ids: the highest id names, so that the outcome
    // does not depend on the order of writing. Within a commit the sessions come sorted.
    let names = summary.agent_name.is_some() && summary.first_agent == agent.as_str();
    if names && row.named_by.is_none_or(|by| by <= commit_id) {
        row.named_by = Some(commit_id);
        record.name.clone_from(&summary.agent_name);
    }
    row
}
