//! Totals: as much as possible from counts, bodies only where two conditions meet in one segment.

use std::sync::Arc;

use futures_util::future::join_all;

use crate::archive::{Batch, ColdError, ColdStats, Cost, HotRanges};
use crate::ids::{AgentId, CommitId, Seq, SessionId, TenantId};
use crate::ledger::Ledger;
use crate::segment::SegmentMeta;
use crate::store::{FeedPosition, Order};

use super::cold::View;
use super::list::ReadStats;
use super::source::Source;
use super::{Budget, EventFilter, Place, READ_AHEAD, RECORD_BYTES, ReadError, open};

/// Batches that are counted in at once.
const BATCHES_AT_ONCE: usize = 8;

/// Records in one page of sessions or segments.
const PAGE_RECORDS: usize = 512;

impl Ledger {
    /// How many events a filter asks for.
    pub(super) async fn count(
        &self,
        tenant: &TenantId,
        filter: &EventFilter,
        view: &View,
        budget: &Budget,
        stats: &mut ReadStats,
    ) -> Result<u64, ReadError> {
        let cold: Vec<&Arc<Batch>> = view.cold().filter(|batch| batch.may_match(filter)).collect();
        let mut counter =
            Counter { ledger: self, tenant, filter, cold, hot: Vec::new(), budget, stats, total: 0 };
        match &filter.session {
            Some(session) => counter.session(session).await?,
            // Most ranges have a beginning that is not long ago, and then the time index leads past the rest.
            // Otherwise nearly all sessions fall in, and one record counts a whole session, archived or not.
            None if filter.from.is_some() => counter.by_time().await?,
            None if counter.sessions().await? => return Ok(counter.total),
            None => {
                counter.total = 0;
                counter.by_time().await?;
            }
        }
        counter.archived().await?;
        Ok(counter.total)
    }
}

struct Counter<'a> {
    ledger: &'a Ledger,
    tenant: &'a TenantId,
    filter: &'a EventFilter,
    /// Batches to count in.
    cold: Vec<&'a Arc<Batch>>,
    /// Segments that are counted and may be in one of these batches too.
    hot: Vec<(CommitId, SessionId, Seq, Seq)>,
    budget: &'a Budget,
    stats: &'a mut ReadStats,
    total: u64,
}

impl Counter<'_> {
    /// Counts by sessions, unless it comes to one whose events must be looked at while some of them may be archived only:
    /// then false.
    async fn sessions(&mut self) -> Result<bool, ReadError> {
        // A list of one agent's sessions is shorter than the list of all.
        let agent = match self.filter.agents.as_slice() {
            [one] => match AgentId::parse(one.as_str()) {
                Ok(agent) => Some(agent),
                // No event has an agent of such a name.
                Err(_) => return Ok(true),
            },
            _ => None,
        };
        let mut after: Option<FeedPosition> = None;
        loop {
            let store = &self.ledger.store;
            let page = store.sessions(self.tenant, agent.as_ref(), after.as_ref(), PAGE_RECORDS).await?;
            self.spend(page.len())?;
            for record in &page {
                match self.filter.exact_count_of_run(&record.summary) {
                    Some(count) => self.total += count,
                    None if !self.cold.is_empty() => return Ok(false),
                    None => self.session(&record.session_id).await?,
                }
            }
            let Some(last) = page.last().filter(|_| page.len() >= PAGE_RECORDS) else { return Ok(true) };
            after = Some(FeedPosition { commit_id: last.first_commit, session_id: last.session_id.clone() });
        }
    }

    async fn session(&mut self, session: &SessionId) -> Result<(), ReadError> {
        let mut from = Seq::ZERO;
        loop {
            let store = &self.ledger.store;
            let metas = store.segments(self.tenant, session, from, Order::Asc, PAGE_RECORDS).await?;
            self.spend(metas.len())?;
            self.segments(metas.iter().map(|meta| (session, meta))).await?;
            let next = metas.last().filter(|_| metas.len() >= PAGE_RECORDS);
            let Some(next) = next.and_then(|meta| meta.last.checked_add(1)) else { return Ok(()) };
            from = next;
        }
    }

    async fn by_time(&mut self) -> Result<(), ReadError> {
        let mut source = Source::new(self.filter, Order::Desc, None);
        while source.bound().is_some() {
            let entries = source.fetch(&*self.ledger.store, self.tenant).await?;
            self.spend(entries.len())?;
            self.segments(entries.iter().map(|entry| (&entry.session_id, &entry.meta))).await?;
        }
        Ok(())
    }

    async fn segments<'s>(
        &mut self,
        segments: impl Iterator<Item = (&'s SessionId, &'s SegmentMeta)>,
    ) -> Result<(), ReadError> {
        let mut batch = Vec::new();
        for (session, meta) in segments {
            if self.cold.iter().any(|batch| batch.may_hold_commit(meta.commit_id)) {
                self.hot.push((meta.commit_id, session.clone(), meta.first, meta.last));
            }
            match self.filter.exact_count(meta) {
                Some(count) => {
                    self.total += count;
                    self.stats.segments_skipped += 1;
                }
                None => {
                    if !self.budget.allows(meta.body_bytes) {
                        return Err(self.budget.too_broad());
                    }
                    self.budget.spend(meta.body_bytes);
                    batch.push(Place::new(self.tenant, session, meta));
                }
            }
            if batch.len() == READ_AHEAD {
                self.bodies(&batch).await?;
                batch.clear();
            }
        }
        if batch.is_empty() { Ok(()) } else { self.bodies(&batch).await }
    }

    /// Adds what is archived and was not counted yet.
    async fn archived(&mut self) -> Result<(), ReadError> {
        for some in std::mem::take(&mut self.cold).chunks(BATCHES_AT_ONCE) {
            let counts = some.iter().map(|batch| {
                let mut elsewhere = HotRanges::default();
                for (_, session, first, last) in self.hot.iter().filter(|hot| batch.may_hold_commit(hot.0)) {
                    elsewhere.add(session, *first, *last);
                }
                let (ledger, tenant, filter, budget) = (self.ledger, self.tenant, self.filter, self.budget);
                async move {
                    let mut stats = ColdStats::default();
                    if let Some(count) = batch.exact_count(filter).filter(|_| elsewhere.is_empty()) {
                        return (Ok(count), stats);
                    }
                    let mut cost = Cost { budget, stats: &mut stats };
                    let count = async {
                        let file = ledger.cold.open(tenant, batch, &mut cost).await?;
                        file.count(filter, &elsewhere, &mut cost).await
                    };
                    (count.await, stats)
                }
            });
            for (count, stats) in join_all(counts).await {
                self.stats.cold.add(&stats);
                self.total += count.map_err(|error| match error {
                    ColdError::Budget => self.budget.too_broad(),
                    other => other.into(),
                })?;
            }
        }
        Ok(())
    }

    async fn bodies(&mut self, places: &[Place<'_>]) -> Result<(), ReadError> {
        for (place, body) in places.iter().zip(self.ledger.bodies(places).await?) {
            let Some(body) = body else { continue };
            self.stats.segments_read += 1;
            self.stats.bytes_read += body.len() as u64;
            self.total += open(*place, &body, |view| {
                self.stats.events_scanned += view.count() as u64;
                let mut count = 0;
                for event in view.events() {
                    count += u64::from(self.filter.matches(&event?));
                }
                Ok(count)
            })?;
        }
        // Decoding is work without a pause; let others have the thread in between.
        tokio::task::yield_now().await;
        Ok(())
    }

    fn spend(&mut self, records: usize) -> Result<(), ReadError> {
        let bytes = RECORD_BYTES * records.max(1) as u64;
        if !self.budget.allows(bytes) {
            return Err(self.budget.too_broad());
        }
        self.budget.spend(bytes);
        Ok(())
    }
}
