//! Which sessions were active in a range of time.

use std::collections::BTreeSet;

use futures_util::future::try_join_all;

use super::read::{Reading, View};
use super::{EventFilter, Ledger, ReadError};
use crate::ids::{SessionId, TenantId};
use crate::limits;
use crate::store::Order;
use crate::time::Micros;

/// Segments asked for at a time.
const PAGE: usize = 1000;

impl Ledger {
    /// Sessions with a segment, or in a batch, whose timestamps reach into the range (both ends in it), by id. One that spans
    /// the range without an event inside it counts too: for verification, one session more is no harm.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn sessions_between(
        &self,
        tenant: &TenantId,
        from: Micros,
        to: Micros,
    ) -> Result<Vec<SessionId>, ReadError> {
        let mut reading = Reading::begin(self, tenant).await?;
        let between = EventFilter { from: Some(from), to: Some(to), ..EventFilter::default() };
        loop {
            let sessions = self.sessions_of(&reading.view, tenant, &between).await;
            if let Some(sessions) = reading.settle(sessions, |batch| batch.may_match(&between)).await? {
                return Ok(sessions.into_iter().collect());
            }
        }
    }

    /// The batch after which a tenant's log had so many leaves, if there is one.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn batch_of_size(&self, tenant: &TenantId, size: u64) -> Result<Option<u64>, ReadError> {
        let batches = self.cold.batches(&*self.store, tenant).await?;
        let found = batches.binary_search_by_key(&size, |batch| batch.record.tree_size());
        Ok(found.ok().map(|at| batches[at].record.batch))
    }

    async fn sessions_of(
        &self,
        view: &View,
        tenant: &TenantId,
        between: &EventFilter,
    ) -> Result<BTreeSet<SessionId>, ReadError> {
        let mut sessions = BTreeSet::new();
        let mut next = None;
        loop {
            let page = self.store.by_time(tenant, Order::Desc, between.to, next.as_deref(), PAGE).await?;
            let hot = page.entries.into_iter().filter(|entry| between.may_match(&entry.meta));
            sessions.extend(hot.map(|entry| entry.session_id));
            next = page.next;
            if next.is_none() || page.bound.is_none_or(|bound| between.from.is_some_and(|from| bound < from))
            {
                break;
            }
        }
        let batches: Vec<_> = view.cold().filter(|batch| batch.may_match(between)).collect();
        for some in batches.chunks(limits::OBJECT_REQUESTS_MAX) {
            for header in try_join_all(some.iter().map(|batch| self.cold.header(tenant, batch))).await? {
                sessions.extend(header.runs.into_iter().map(|run| run.session_id));
            }
        }
        Ok(sessions)
    }
}
