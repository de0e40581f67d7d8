//! Sessions and agents as wholes.

use crate::ids::{AgentId, SessionId, TenantId};
use crate::ledger::Ledger;
use crate::limits;
use crate::store::{AgentRecord, FeedPosition, SessionRecord};
use crate::summary::Status;
use crate::time::Micros;

use super::{Budget, RECORD_BYTES, ReadError};

/// Records in one page of the store's.
const PAGE_RECORDS: usize = 256;

/// Which page of which list of sessions. A session must meet every condition.
#[derive(Debug, Clone, Default)]
pub struct SessionQuery {
    /// Holds an event of this agent.
    pub agent: Option<AgentId>,
    /// Stands in one of these ways; in any, if empty. A session that neither started nor ended is active.
    pub statuses: Vec<Status>,
    /// Bears one of these tags; any, if empty.
    pub tags: Vec<String>,
    /// Its first event is of this time or later.
    pub from: Option<Micros>,
    /// Its first event is of this time or earlier.
    pub to: Option<Micros>,
    /// Begin after this place: first commit and id of a session.
    pub after: Option<FeedPosition>,
    /// Then pass over so many.
    pub skip: u64,
    /// Give at most so many.
    pub limit: usize,
    /// Count all that are asked for, wherever the page begins.
    pub count_total: bool,
}

/// A page of sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionPage {
    /// The sessions, newest first by their first commit.
    pub sessions: Vec<SessionRecord>,
    /// Where the next page begins; `None` if there is nothing more.
    pub next: Option<FeedPosition>,
    /// How many sessions are asked for, if that was wanted.
    pub total: Option<u64>,
    /// True if the page ended early at [`limits::QUERY_READ_BYTES_MAX`]; `next` goes on from there.
    pub partial: bool,
}

impl SessionQuery {
    /// True if the session is asked for. Its agent is not looked at: the store's list is of that agent alone.
    fn matches(&self, record: &SessionRecord) -> bool {
        let run = &record.summary;
        self.from.is_none_or(|from| run.started_at >= from)
            && self.to.is_none_or(|to| run.started_at <= to)
            && (self.statuses.is_empty() || self.statuses.contains(&run.status.unwrap_or_default()))
            && (self.tags.is_empty() || run.tags.iter().any(|tag| self.tags.contains(tag)))
    }
}

fn position(record: &SessionRecord) -> FeedPosition {
    FeedPosition { commit_id: record.first_commit, session_id: record.session_id.clone() }
}

impl Ledger {
    /// What is known of a session, if it has events.
    ///
    /// # Errors
    /// `Corrupt`; `Store`.
    pub async fn session(
        &self,
        tenant: &TenantId,
        session: &SessionId,
    ) -> Result<Option<SessionRecord>, ReadError> {
        Ok(self.store.session(tenant, session).await?)
    }

    /// A page of a tenant's sessions, newest first by their first commit.
    ///
    /// # Errors
    /// `TooBroad` if [`limits::QUERY_READ_BYTES_MAX`] did not do for the total or for what is to be skipped;
    /// `Corrupt`; `Store`.
    pub async fn sessions(&self, tenant: &TenantId, query: &SessionQuery) -> Result<SessionPage, ReadError> {
        self.sessions_within(tenant, query, limits::QUERY_READ_BYTES_MAX).await
    }

    pub(super) async fn sessions_within(
        &self,
        tenant: &TenantId,
        query: &SessionQuery,
        read_bytes_max: u64,
    ) -> Result<SessionPage, ReadError> {
        let budget = Budget::new(read_bytes_max);
        let mut page = SessionPage { sessions: Vec::new(), next: None, total: None, partial: false };
        // A total counts from the beginning, and the page begins on the way.
        let mut reached = if query.count_total { None } else { query.after.clone() };
        let start = query.after.as_ref().filter(|_| query.count_total);
        let mut begun = start.is_none();
        let (mut total, mut skip) = (0, query.skip);
        'read: loop {
            if !budget.allows(RECORD_BYTES) {
                if query.count_total || skip > 0 {
                    return Err(budget.too_broad());
                }
                page.next = reached;
                page.partial = true;
                break;
            }
            let (agent, after) = (query.agent.as_ref(), reached.as_ref());
            let records = self.store.sessions(tenant, agent, after, PAGE_RECORDS).await?;
            budget.spend(RECORD_BYTES * records.len().max(1) as u64);
            let last = records.len() < PAGE_RECORDS;
            for record in records {
                let at = position(&record);
                // Newest first. How sessions of one commit are ordered is the store's matter.
                let begins = begun || start.is_some_and(|start| at.commit_id < start.commit_id);
                begun = begins || start == Some(&at);
                reached = Some(at);
                if !query.matches(&record) {
                    continue;
                }
                total += 1;
                if !begins {
                    continue;
                }
                if skip > 0 {
                    skip -= 1;
                } else if page.sessions.len() < query.limit {
                    page.sessions.push(record);
                } else {
                    page.next = page.sessions.last().map(position).or_else(|| query.after.clone());
                    if !query.count_total {
                        break 'read;
                    }
                }
            }
            if last {
                break;
            }
        }
        page.total = query.count_total.then_some(total);
        Ok(page)
    }

    /// What is known of an agent, if it has events.
    ///
    /// # Errors
    /// `Corrupt`; `Store`.
    pub async fn agent(&self, tenant: &TenantId, agent: &AgentId) -> Result<Option<AgentRecord>, ReadError> {
        Ok(self.store.agent(tenant, agent).await?)
    }

    /// Up to `limit` agents by id, after the one given.
    ///
    /// # Errors
    /// `Corrupt`; `Store`.
    pub async fn agents(
        &self,
        tenant: &TenantId,
        after: Option<&AgentId>,
        limit: usize,
    ) -> Result<Vec<AgentRecord>, ReadError> {
        Ok(self.store.agents(tenant, after, limit).await?)
    }
}
