//! Where a list's segments come from: the time index of the tenant, or all segments of one session.

use crate::ids::{Seq, TenantId};
use crate::store::{FeedEntry, Order, Store, StoreError};
use crate::time::Micros;

use super::position::Rank;
use super::{EventFilter, EventPosition};

/// Segments in the first page of attributes, and in the largest: a page of events usually needs few, a deep one many.
const PAGE_SEGMENTS_MIN: usize = 32;
const PAGE_SEGMENTS_MAX: usize = 512;

/// Gives the attributes of segments, a page at a time, and says how far the rest is.
#[derive(Debug)]
pub(super) struct Source<'a> {
    filter: &'a EventFilter,
    order: Order,
    /// Where the time index is entered.
    start: Option<Micros>,
    token: Option<Vec<u8>>,
    next: Seq,
    size: usize,
    /// No event still to come is before it; `None` at the end.
    bound: Option<Rank>,
}

impl<'a> Source<'a> {
    /// The segments that may hold what the filter asks for, after a position.
    pub(super) fn new(filter: &'a EventFilter, order: Order, after: Option<EventPosition>) -> Self {
        let after = after.map(|position| position.timestamp);
        let start = match order {
            Order::Asc => after.max(filter.from),
            Order::Desc => match (after, filter.to) {
                (Some(after), Some(to)) => Some(after.min(to)),
                (after, to) => after.or(to),
            },
        };
        let (token, next, size) = (None, Seq::ZERO, PAGE_SEGMENTS_MIN);
        Self { filter, order, start, token, next, size, bound: Some(Rank::FIRST) }
    }

    /// No event of a later page is before this; `None` if there is no later page.
    pub(super) fn bound(&self) -> Option<Rank> {
        self.bound
    }

    /// The next page.
    pub(super) async fn fetch(
        &mut self,
        store: &dyn Store,
        tenant: &TenantId,
    ) -> Result<Vec<FeedEntry>, StoreError> {
        let size = self.size;
        self.size = (size * 2).min(PAGE_SEGMENTS_MAX);
        if let Some(session) = &self.filter.session {
            // In the order of sequence, which promises nothing of time: the bound stays at the front to the end.
            let metas = store.segments(tenant, session, self.next, Order::Asc, size).await?;
            let next = metas.last().and_then(|meta| meta.last.checked_add(1));
            match next {
                Some(next) if metas.len() >= size => self.next = next,
                _ => self.bound = None,
            }
            let entry = |meta| FeedEntry { session_id: session.clone(), meta };
            return Ok(metas.into_iter().map(entry).collect());
        }
        let page = store.by_time(tenant, self.order, self.start, self.token.as_deref(), size).await?;
        let past = |bound: Micros| match self.order {
            Order::Asc => self.filter.to.is_some_and(|to| bound > to),
            Order::Desc => self.filter.from.is_some_and(|from| bound < from),
        };
        self.token = page.next;
        self.bound = match page.bound {
            Some(bound) if self.token.is_some() && !past(bound) => Some(Rank::before(bound, self.order)),
            _ => None,
        };
        Ok(page.entries)
    }
}
