//! The lazy merge behind a list: segments and batches wait in a heap by the first event they could hold, and one is
//! read only once nothing known is sure to come before it.
//!
//! Of the events found, only the best that the page can still use are kept, as small keys; events are copied out at the
//! end, when it is known which ones the page holds. An event that is hot and archived is found twice, under one key.

mod cold;
mod events;
mod pending;

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::sync::Arc;

use bytes::Bytes;

use self::pending::{Of, Pending, Segment};
use crate::archive::ColdFile;
use crate::ids::TenantId;
use crate::ledger::Ledger;
use crate::limits;

use super::cold::View;
use super::list::{ListQuery, ReadStats};
use super::position::Rank;
use super::source::Source;
use super::{Budget, EventPosition, Place, READ_AHEAD, RECORD_BYTES, ReadError, open};

/// What was read.
#[derive(Debug)]
struct Loaded {
    of: LoadedOf,
    /// How many candidates and picks point here; a body is let go with the last.
    uses: usize,
}

#[derive(Debug)]
enum LoadedOf {
    Body(Segment, Bytes),
    Batch(Arc<ColdFile>),
}

/// An event that is asked for. Ordered along the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    rank: Rank,
    loaded: usize,
    /// Of the events of a body, or of the rows of a batch.
    index: u64,
    /// Bytes of payload and metadata; 0 for a row of a batch, of which they are not known yet.
    bytes: usize,
}

/// How a page came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// There is nothing more.
    Complete,
    /// It is full; there may be more.
    Full,
    /// The read budget ran out.
    Budget,
}

/// One page in the making.
pub(super) struct Merge<'a> {
    ledger: &'a Ledger,
    tenant: &'a TenantId,
    query: &'a ListQuery,
    after: Option<Rank>,
    /// Events still to be passed over.
    skip: u64,
    source: Source<'a>,
    pending: BinaryHeap<Reverse<Pending>>,
    /// How many batches are read at once when the next one is due.
    batches_ahead: usize,
    loaded: Vec<Loaded>,
    candidates: BTreeSet<Candidate>,
    picks: Vec<Candidate>,
    picked_bytes: usize,
    pub(super) stats: ReadStats,
}

impl<'a> Merge<'a> {
    pub(super) fn new(ledger: &'a Ledger, tenant: &'a TenantId, query: &'a ListQuery, view: &View) -> Self {
        let mut this = Self {
            ledger,
            tenant,
            query,
            after: query.after.map(|position| Rank::of(position, query.order)),
            skip: query.skip,
            source: Source::new(&query.filter, query.order, query.after),
            pending: BinaryHeap::new(),
            batches_ahead: 1,
            loaded: Vec::new(),
            candidates: BTreeSet::new(),
            picks: Vec::new(),
            picked_bytes: 0,
            stats: ReadStats::default(),
        };
        for batch in view.cold() {
            this.stats.archive_bytes += batch.record.bytes;
            let pending = Pending::batch(batch, &query.filter, query.order);
            this.wait(pending, |stats| stats.batches_skipped += 1);
        }
        this
    }

    /// Lets it wait, unless nothing of it is asked for after the place where the page begins.
    fn wait(&mut self, pending: Option<Pending>, skipped: impl FnOnce(&mut ReadStats)) {
        match pending.filter(|pending| self.after.is_none_or(|after| pending.end > after)) {
            Some(pending) => self.pending.push(Reverse(pending)),
            None => skipped(&mut self.stats),
        }
    }

    /// Fills the page.
    pub(super) async fn run(&mut self, budget: &Budget) -> Result<End, ReadError> {
        loop {
            let frontier = self.frontier();
            if self.pick(frontier) {
                // One page of attributes more, if no segment waits, so that the last page usually knows that it is.
                if self.candidates.is_empty() && self.pending.is_empty() && self.source.bound().is_some() {
                    self.fetch(budget).await?;
                }
                let more = !self.candidates.is_empty() || self.frontier().is_some();
                return Ok(if more { End::Full } else { End::Complete });
            }
            let Some(frontier) = frontier else { return Ok(End::Complete) };
            if self.source.bound().is_some_and(|bound| bound <= frontier) {
                if !budget.allows(RECORD_BYTES) {
                    return Ok(End::Budget);
                }
                self.fetch(budget).await?;
            } else if !self.pass_over() && !self.load(budget).await? {
                return Ok(End::Budget);
            }
        }
    }

    /// Every event before it is known; `None` once all are.
    fn frontier(&self) -> Option<Rank> {
        let pending = self.pending.peek().map(|Reverse(pending)| pending.begin);
        match (pending, self.source.bound()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Where the next page goes on after the budget ran out: all before the frontier was given. `None` if that is
    /// no further than where this page began.
    pub(super) fn resume(&self) -> Option<EventPosition> {
        let frontier = self.frontier().filter(|frontier| self.after.is_none_or(|after| *frontier > after))?;
        // What is left to pass over cannot be told by a position.
        if self.skip > 0 { None } else { frontier.position(self.query.order) }
    }

    /// The place of the last event of the page.
    pub(super) fn last(&self) -> Option<EventPosition> {
        self.picks.last().and_then(|pick| pick.rank.position(self.query.order))
    }

    /// Moves candidates into the page that nothing unread can precede. True once the page is full.
    fn pick(&mut self, frontier: Option<Rank>) -> bool {
        while self.picks.len() < self.query.limit {
            let Some(best) = self.candidates.first().copied() else { return false };
            if frontier.is_some_and(|frontier| best.rank > frontier) {
                return false;
            }
            if self.skip > 0 {
                self.skip -= 1;
                self.candidates.pop_first();
                release(&mut self.loaded, best.loaded);
                continue;
            }
            if !self.picks.is_empty() && self.picked_bytes + best.bytes > limits::PAGE_BYTES_MAX {
                return true;
            }
            self.candidates.pop_first();
            self.picked_bytes += best.bytes;
            self.picks.push(best);
        }
        true
    }

    /// How many candidates the page could still use: those passed over, those shown, and one to know of more.
    fn wanted(&self) -> usize {
        let skip = usize::try_from(self.skip).unwrap_or(usize::MAX);
        skip.saturating_add(self.query.limit - self.picks.len()).saturating_add(1)
    }

    async fn fetch(&mut self, budget: &Budget) -> Result<(), ReadError> {
        let entries = self.source.fetch(&*self.ledger.store, self.tenant).await?;
        // A page costs something even if it is empty, so that no store can keep a query alive for ever.
        budget.spend(RECORD_BYTES * entries.len().max(1) as u64);
        for entry in entries {
            let pending = Pending::segment(entry, &self.query.filter, self.query.order);
            self.wait(pending, |stats| stats.segments_skipped += 1);
        }
        Ok(())
    }

    /// Passes over the first that waits as a whole, unread, if all that it holds is to be passed over and no other event
    /// lies among its own. This is what makes a large offset cheap.
    fn pass_over(&mut self) -> bool {
        if self.skip == 0 {
            return false;
        }
        let Some(Reverse(first)) = self.pending.pop() else { return false };
        let alone = self.after.is_none_or(|after| first.begin > after)
            && self.frontier().is_none_or(|next| next > first.end)
            && self.candidates.first().is_none_or(|next| next.rank > first.end);
        match first.exact {
            Some(count) if alone && count <= self.skip => {
                self.skip -= count;
                match first.of {
                    Of::Segment(_) => self.stats.segments_skipped += 1,
                    Of::Batch(_) => self.stats.batches_skipped += 1,
                }
                true
            }
            _ => {
                self.pending.push(Reverse(first));
                false
            }
        }
    }

    /// Reads the first that waits, and those after it that the page is likely to need. False if the budget does not
    /// allow even the first.
    async fn load(&mut self, budget: &Budget) -> Result<bool, ReadError> {
        match self.pending.peek() {
            Some(Reverse(Pending { of: Of::Batch(_), .. })) => self.load_batches(budget).await,
            _ => self.load_segments(budget).await,
        }
    }

    async fn load_segments(&mut self, budget: &Budget) -> Result<bool, ReadError> {
        let wanted = self.wanted() as u64;
        let mut expected = self.candidates.len() as u64;
        let mut batch: Vec<Segment> = Vec::new();
        while batch.len() < READ_AHEAD {
            let Some(Reverse(Pending { begin, of: Of::Segment(next), .. })) = self.pending.peek() else {
                break;
            };
            let beyond = self.source.bound().is_some_and(|bound| bound < *begin);
            if !batch.is_empty() && (beyond || expected + 1 >= wanted) {
                break;
            }
            // The first body is always read: a budget must not stop what has not begun.
            let very_first = batch.is_empty() && self.loaded.is_empty();
            if !very_first && !budget.allows(next.bytes) {
                break;
            }
            budget.spend(next.bytes);
            if let Some(Reverse(Pending { exact, of: Of::Segment(segment), .. })) = self.pending.pop() {
                expected += exact.unwrap_or(0);
                batch.push(segment);
            }
        }
        if batch.is_empty() {
            return Ok(false);
        }
        let places: Vec<Place<'_>> = batch.iter().map(|segment| segment.place(self.tenant)).collect();
        let bodies = self.ledger.bodies(&places).await?;
        for (segment, body) in batch.into_iter().zip(bodies) {
            match body {
                Some(body) => self.scan(segment, body)?,
                None => self.stats.segments_skipped += 1,
            }
        }
        // Decoding is work without a pause; let others have the thread in between.
        tokio::task::yield_now().await;
        Ok(true)
    }

    /// Looks for candidates in a body.
    fn scan(&mut self, segment: Segment, body: Bytes) -> Result<(), ReadError> {
        self.stats.segments_read += 1;
        self.stats.bytes_read += body.len() as u64;
        let this = self.loaded.len();
        self.loaded.push(Loaded { of: LoadedOf::Body(segment, body.clone()), uses: 0 });
        let LoadedOf::Body(segment, _) = &self.loaded[this].of else { return Ok(()) };
        let mut found = Vec::new();
        open(segment.place(self.tenant), &body, |view| {
            self.stats.events_scanned += view.count() as u64;
            for (index, event) in view.events().enumerate() {
                let event = event?;
                let position = EventPosition { timestamp: event.timestamp, event_id: event.event_id };
                let rank = Rank::of(position, self.query.order);
                if self.after.is_none_or(|after| rank > after) && self.query.filter.matches(&event) {
                    let (index, bytes) = (index as u64, event.content.bytes());
                    found.push(Candidate { rank, loaded: this, index, bytes });
                }
            }
            Ok(())
        })?;
        self.keep(this, found);
        Ok(())
    }

    /// Takes those of the candidates that the page can use, all of one source. One whose event is known from the other
    /// tier is left out here: either is read before the frontier passes the other.
    fn keep(&mut self, this: usize, found: impl IntoIterator<Item = Candidate>) {
        let wanted = self.wanted();
        // Held until all were looked at.
        self.loaded[this].uses += 1;
        for candidate in found {
            let full = self.candidates.len() >= wanted;
            let rank = candidate.rank;
            let lowest = Candidate { rank, loaded: 0, index: 0, bytes: 0 };
            if full && self.candidates.last().is_some_and(|last| rank > last.rank)
                || self.candidates.range(lowest..).next().is_some_and(|known| known.rank == rank)
            {
                continue;
            }
            self.loaded[this].uses += 1;
            self.candidates.insert(candidate);
            if full && let Some(last) = self.candidates.pop_last() {
                release(&mut self.loaded, last.loaded);
            }
        }
        release(&mut self.loaded, this);
    }
}

/// Lets go of one use of what was read.
fn release(loaded: &mut [Loaded], index: usize) {
    let loaded = &mut loaded[index];
    loaded.uses -= 1;
    if loaded.uses == 0
        && let LoadedOf::Body(_, body) = &mut loaded.of
    {
        *body = Bytes::new();
    }
}
