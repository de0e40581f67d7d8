//! What may lag does: entries are hidden for a while after their commit went by.

use std::collections::HashMap;

use tokio::time::Instant;

use super::{Faulty, lock, mix, unit};
use crate::ids::{AgentId, CommitId, Seq, SessionId, TenantId};
use crate::store::{
    AgentRecord, Commit, FeedEntry, FeedPosition, OpenEntry, Order, SessionRecord, StoreError,
};

/// Least entries asked of the inner store at once while hidden ones are skipped.
const FEED_STEP_MIN: usize = 64;

/// What went by, and when: the age of what may be hidden.
#[derive(Default)]
pub(super) struct Sightings {
    commits: HashMap<CommitId, Instant>,
    /// The first commit that named an agent, and one session of it.
    agents: HashMap<(TenantId, String), FeedPosition>,
}

impl Faulty {
    /// Notes what a batch will make visible, from now on.
    pub(super) fn sight(&self, commit: &Commit) {
        if self.hidden.is_none() {
            return;
        }
        let mut sightings = lock(&self.sightings);
        sightings.commits.entry(commit.id).or_insert_with(Instant::now);
        for segment in &commit.segments {
            for (agent, _) in segment.meta.summary.agents.names().into_iter().flatten() {
                let position = FeedPosition { commit_id: commit.id, session_id: segment.session_id.clone() };
                sightings.agents.entry((commit.tenant.clone(), agent.to_owned())).or_insert(position);
            }
        }
    }

    pub(super) fn is_hidden(&self, commit: CommitId, session: &SessionId) -> bool {
        let Some(lag_max) = self.hidden else { return false };
        // What this decorator did not see is older than it.
        let Some(seen_at) = lock(&self.sightings).commits.get(&commit).copied() else { return false };
        let seed = self.random.map_or(0, |(seed, _)| seed);
        let id = commit.to_bytes();
        let hash =
            id.iter().chain(session.as_str().as_bytes()).fold(mix(seed), |h, b| mix(h ^ u64::from(*b)));
        seen_at.elapsed() < lag_max.mul_f64(unit(hash))
    }

    pub(super) fn is_agent_hidden(&self, tenant: &TenantId, agent: &AgentId) -> bool {
        let key = (tenant.clone(), agent.as_str().to_owned());
        let first = lock(&self.sightings).agents.get(&key).cloned();
        first.is_some_and(|p| self.is_hidden(p.commit_id, &p.session_id))
    }

    /// The session as it was before its first hidden commit.
    pub(super) async fn before_hidden(
        &self,
        tenant: &TenantId,
        record: SessionRecord,
    ) -> Result<Option<SessionRecord>, StoreError> {
        if self.hidden.is_none() {
            return Ok(Some(record));
        }
        // What is archived may have gone; it is known from the pointer.
        let pointer = self.inner.pointer(tenant, &record.session_id).await?;
        let mut shown: Option<SessionRecord> = pointer.map(|pointer| pointer.archived);
        let mut from = shown.as_ref().map_or(Some(Seq::ZERO), |s| s.head.sequence.checked_add(1));
        loop {
            let Some(first) = from else { return Ok(shown) };
            let metas =
                self.inner.segments(tenant, &record.session_id, first, Order::Asc, FEED_STEP_MIN).await?;
            let more = metas.len() == FEED_STEP_MIN;
            for meta in metas {
                if self.is_hidden(meta.commit_id, &record.session_id) {
                    return Ok(shown);
                }
                from = meta.last.checked_add(1);
                shown = Some(SessionRecord::after(shown, &record.session_id, &meta));
            }
            if !more {
                return Ok(shown);
            }
        }
    }

    /// Reads on past what is hidden: an index that lags still fills its pages.
    pub(super) async fn visible_feed(
        &self,
        tenant: &TenantId,
        after: Option<&FeedPosition>,
        limit: usize,
    ) -> Result<Vec<FeedEntry>, StoreError> {
        if self.hidden.is_none() {
            return self.inner.feed(tenant, after, limit).await;
        }
        let (mut visible, mut after) = (Vec::new(), after.cloned());
        loop {
            let step = limit.max(FEED_STEP_MIN);
            let page = self.inner.feed(tenant, after.as_ref(), step).await?;
            let more = page.len() == step;
            after = page.last().map(position).or(after);
            visible.extend(page.into_iter().filter(|e| !self.is_hidden(e.meta.commit_id, &e.session_id)));
            if visible.len() >= limit || !more {
                visible.truncate(limit);
                return Ok(visible);
            }
        }
    }

    pub(super) async fn visible_open(
        &self,
        tenant: &TenantId,
        after: Option<&FeedPosition>,
        limit: usize,
    ) -> Result<Vec<OpenEntry>, StoreError> {
        if self.hidden.is_none() {
            return self.inner.open_segments(tenant, after, limit).await;
        }
        let (mut visible, mut after) = (Vec::new(), after.cloned());
        loop {
            let step = limit.max(FEED_STEP_MIN);
            let page = self.inner.open_segments(tenant, after.as_ref(), step).await?;
            let more = page.len() == step;
            after = page.last().map(|entry| entry.position.clone()).or(after);
            let shown = |e: &OpenEntry| !self.is_hidden(e.position.commit_id, &e.position.session_id);
            visible.extend(page.into_iter().filter(shown));
            if visible.len() >= limit || !more {
                visible.truncate(limit);
                return Ok(visible);
            }
        }
    }

    pub(super) async fn visible_sessions(
        &self,
        tenant: &TenantId,
        agent: Option<&AgentId>,
        after: Option<&FeedPosition>,
        limit: usize,
    ) -> Result<Vec<SessionRecord>, StoreError> {
        let (mut visible, mut after) = (Vec::new(), after.cloned());
        loop {
            let page = self.inner.sessions(tenant, agent, after.as_ref(), limit).await?;
            let more = page.len() == limit && limit > 0;
            after = page
                .last()
                .map(|s| FeedPosition { commit_id: s.first_commit, session_id: s.session_id.clone() })
                .or(after);
            for record in page {
                let Some(record) = self.before_hidden(tenant, record).await? else { continue };
                // The commit that brought the agent in may be hidden while the session is not.
                let holds = |a: &AgentId| record.summary.agents.count(a.as_str()) != Some(0);
                if agent.is_none_or(holds) {
                    visible.push(record);
                }
            }
            if visible.len() >= limit || !more {
                visible.truncate(limit);
                return Ok(visible);
            }
        }
    }

    pub(super) async fn visible_agents(
        &self,
        tenant: &TenantId,
        after: Option<&AgentId>,
        limit: usize,
    ) -> Result<Vec<AgentRecord>, StoreError> {
        let (mut visible, mut after) = (Vec::new(), after.cloned());
        loop {
            let page = self.inner.agents(tenant, after.as_ref(), limit).await?;
            let more = page.len() == limit && limit > 0;
            after = page.last().map(|a| a.agent_id.clone()).or(after);
            visible.extend(page.into_iter().filter(|a| !self.is_agent_hidden(tenant, &a.agent_id)));
            if visible.len() >= limit || !more {
                visible.truncate(limit);
                return Ok(visible);
            }
        }
    }
}

fn position(entry: &FeedEntry) -> FeedPosition {
    FeedPosition { commit_id: entry.meta.commit_id, session_id: entry.session_id.clone() }
}
