//! Pages of events, over a tenant or one session, in the order of their timestamps.

use crate::archive::ColdStats;
use crate::event::Event;
use crate::ids::TenantId;
use crate::ledger::Ledger;
use crate::limits;
use crate::store::Order;

use super::cold::{Reading, View};
use super::merge::{End, Merge};
use super::{Budget, EventFilter, EventPosition, ReadError};

/// Which page of which list.
#[derive(Debug, Clone)]
pub struct ListQuery {
    /// What is asked for.
    pub filter: EventFilter,
    /// From the earliest or from the latest.
    pub order: Order,
    /// Begin after this place; at the beginning, if `None`.
    pub after: Option<EventPosition>,
    /// Then pass over so many events.
    pub skip: u64,
    /// Give at most so many.
    pub limit: usize,
    /// Count all that the filter asks for, wherever the page begins.
    pub count_total: bool,
}

/// What a query cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReadStats {
    /// Bodies read.
    pub segments_read: u64,
    /// Segments that were looked at and whose bodies were not needed.
    pub segments_skipped: u64,
    /// Bytes of the bodies read.
    pub bytes_read: u64,
    /// Events decoded.
    pub events_scanned: u64,
    /// Batches of the archive that were read.
    pub batches_read: u64,
    /// Batches that could have lost an event that is asked for, but surely hold none.
    pub batches_skipped: u64,
    /// Bytes of all batches whose events may not be hot any more.
    pub archive_bytes: u64,
    /// What the reads of batches did.
    pub cold: ColdStats,
}

impl ReadStats {
    /// Bytes of the archive that could have been asked for, but were not read.
    pub fn archive_bytes_skipped(&self) -> u64 {
        self.archive_bytes.saturating_sub(self.cold.bytes_read)
    }
}

/// A page of events.
#[derive(Debug, Clone)]
pub struct EventPage {
    /// The events, in order.
    pub events: Vec<Event>,
    /// Where the next page begins; `None` if there is nothing more. Where the filter cannot be answered from
    /// counts, what follows may turn out to be empty.
    pub next: Option<EventPosition>,
    /// How many events the filter asks for, if that was wanted.
    pub total: Option<u64>,
    /// True if the page ended early at [`limits::QUERY_READ_BYTES_MAX`]; `next` goes on from there.
    pub partial: bool,
    /// What it cost.
    pub stats: ReadStats,
}

impl Ledger {
    /// A page of a tenant's events. It ends early rather than pass [`limits::PAGE_BYTES_MAX`] of payload and
    /// metadata, but holds at least one event.
    ///
    /// # Errors
    /// `TooBroad` if [`limits::QUERY_READ_BYTES_MAX`] did not do for the total, for what is to be skipped, or to
    /// get any further; `Corrupt`; `Store`.
    pub async fn list(&self, tenant: &TenantId, query: &ListQuery) -> Result<EventPage, ReadError> {
        self.list_within(tenant, query, limits::QUERY_READ_BYTES_MAX).await
    }

    pub(super) async fn list_within(
        &self,
        tenant: &TenantId,
        query: &ListQuery,
        read_bytes_max: u64,
    ) -> Result<EventPage, ReadError> {
        let mut reading = Reading::begin(self, tenant).await?;
        loop {
            let page = self.list_once(tenant, query, read_bytes_max, &reading.view).await;
            if let Some(page) = reading.settle(page, |batch| batch.may_match(&query.filter)).await? {
                return Ok(page);
            }
        }
    }

    async fn list_once(
        &self,
        tenant: &TenantId,
        query: &ListQuery,
        read_bytes_max: u64,
        view: &View,
    ) -> Result<EventPage, ReadError> {
        let budget = Budget::new(read_bytes_max);
        let mut merge = Merge::new(self, tenant, query, view);
        let mut end = if query.limit == 0 { End::Full } else { merge.run(&budget).await? };
        let (events, cut) = merge.events().await?;
        if cut {
            end = End::Full;
        }
        let next = match end {
            End::Complete => None,
            End::Full => merge.last().or(query.after),
            End::Budget if query.count_total => return Err(budget.too_broad()),
            End::Budget => Some(merge.resume().ok_or_else(|| budget.too_broad())?),
        };
        let mut stats = merge.stats;
        // A page that holds everything has counted it.
        let whole = end == End::Complete && query.after.is_none() && query.skip == 0;
        let total = match (query.count_total, whole) {
            (false, _) => None,
            (true, true) => Some(events.len() as u64),
            (true, false) => Some(self.count(tenant, &query.filter, view, &budget, &mut stats).await?),
        };
        Ok(EventPage { events, next, total, partial: end == End::Budget, stats })
    }
}
