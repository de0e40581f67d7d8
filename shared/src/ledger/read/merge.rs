//! The lazy merge behind a list: segments wait in a heap by the first event they could hold, and a body is read
//! only once nothing known is sure to come before it.
//!
//! Of the events found, only the best that the page can still use are kept, as small keys; events are copied out of
//! the bodies at the end, when it is known which ones the page holds.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use bytes::Bytes;

use crate::event::Event;
use crate::ids::{CommitId, Seq, SessionId, TenantId};
use crate::ledger::Ledger;
use crate::limits;
use crate::store::FeedEntry;

use super::list::{ListQuery, ReadStats};
use super::position::Rank;
use super::source::Source;
use super::{Budget, EventPosition, Place, READ_AHEAD, RECORD_BYTES, ReadError, event_count, open};

/// A segment whose body is not read yet. Ordered by the first event that it could hold.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Pending {
    begin: Rank,
    end: Rank,
    commit: CommitId,
    session: SessionId,
    first: Seq,
    events: u64,
    bytes: u64,
    /// How many of its events are asked for, if that is known; wherever the page begins.
    exact: Option<u64>,
}

impl Pending {
    fn place<'a>(&'a self, tenant: &'a TenantId) -> Place<'a> {
        Place { tenant, session: &self.session, first: self.first, events: self.events, commit: self.commit }
    }
}

/// A segment whose body was read.
#[derive(Debug)]
struct Loaded {
    segment: Pending,
    body: Bytes,
    /// How many candidates and picks point here; the body is let go with the last.
    uses: usize,
}

/// An event that is asked for. Ordered along the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    rank: Rank,
    loaded: usize,
    index: usize,
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
    loaded: Vec<Loaded>,
    candidates: BTreeSet<Candidate>,
    picks: Vec<Candidate>,
    picked_bytes: usize,
    pub(super) stats: ReadStats,
}

impl<'a> Merge<'a> {
    pub(super) fn new(ledger: &'a Ledger, tenant: &'a TenantId, query: &'a ListQuery) -> Self {
        Self {
            ledger,
            tenant,
            query,
            after: query.after.map(|position| Rank::of(position, query.order)),
            skip: query.skip,
            source: Source::new(&query.filter, query.order, query.after),
            pending: BinaryHeap::new(),
            loaded: Vec::new(),
            candidates: BTreeSet::new(),
            picks: Vec::new(),
            picked_bytes: 0,
            stats: ReadStats::default(),
        }
    }

    /// Fills the page.
    pub(super) async fn run(&mut self, budget: &mut Budget) -> Result<End, ReadError> {
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
            } else if !self.pass_over_segment() && !self.load(budget).await? {
                return Ok(End::Budget);
            }
        }
    }

    /// Every event before it is known; `None` once all are.
    fn frontier(&self) -> Option<Rank> {
        let pending = self.pending.peek().map(|Reverse(segment)| segment.begin);
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

    async fn fetch(&mut self, budget: &mut Budget) -> Result<(), ReadError> {
        let entries = self.source.fetch(&*self.ledger.store, self.tenant).await?;
        // A page costs something even if it is empty, so that no store can keep a query alive for ever.
        budget.spend(RECORD_BYTES * entries.len().max(1) as u64);
        for FeedEntry { session_id, meta } in entries {
            let (begin, end) = Rank::ends(&meta, self.query.order);
            if self.after.is_some_and(|after| end <= after) || !self.query.filter.may_match(&meta) {
                self.stats.segments_skipped += 1;
                continue;
            }
            self.pending.push(Reverse(Pending {
                begin,
                end,
                commit: meta.commit_id,
                session: session_id,
                first: meta.first,
                events: event_count(&meta),
                bytes: meta.body_bytes,
                exact: self.query.filter.exact_count(&meta),
            }));
        }
        Ok(())
    }

    /// Passes over the first waiting segment as a whole, unread, if all that it holds is to be passed over and no
    /// other event lies among its own. This is what makes a large offset cheap.
    fn pass_over_segment(&mut self) -> bool {
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
                self.stats.segments_skipped += 1;
                true
            }
            _ => {
                self.pending.push(Reverse(first));
                false
            }
        }
    }

    /// Reads the first waiting segment, and those after it that the page is likely to need. False if the budget
    /// does not allow even the first.
    async fn load(&mut self, budget: &mut Budget) -> Result<bool, ReadError> {
        let wanted = self.wanted() as u64;
        let mut expected = self.candidates.len() as u64;
        let mut batch: Vec<Pending> = Vec::new();
        while batch.len() < READ_AHEAD {
            let Some(Reverse(next)) = self.pending.peek() else { break };
            let beyond = self.source.bound().is_some_and(|bound| bound < next.begin);
            if !batch.is_empty() && (beyond || expected + 1 >= wanted) {
                break;
            }
            // The first body is always read: a budget must not stop what has not begun.
            let very_first = batch.is_empty() && self.stats.segments_read == 0;
            if !very_first && !budget.allows(next.bytes) {
                break;
            }
            budget.spend(next.bytes);
            expected += next.exact.unwrap_or(0);
            batch.extend(self.pending.pop().map(|Reverse(segment)| segment));
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
    fn scan(&mut self, segment: Pending, body: Bytes) -> Result<(), ReadError> {
        self.stats.segments_read += 1;
        self.stats.bytes_read += body.len() as u64;
        let wanted = self.wanted();
        let this = self.loaded.len();
        let mut uses = 0;
        open(segment.place(self.tenant), &body, |view| {
            self.stats.events_scanned += view.count() as u64;
            for (index, event) in view.events().enumerate() {
                let event = event?;
                let position = EventPosition { timestamp: event.timestamp, event_id: event.event_id };
                let rank = Rank::of(position, self.query.order);
                let full = self.candidates.len() >= wanted;
                if self.after.is_some_and(|after| rank <= after)
                    || full && self.candidates.last().is_some_and(|last| rank > last.rank)
                    || !self.query.filter.matches(&event)
                {
                    continue;
                }
                self.candidates.insert(Candidate { rank, loaded: this, index, bytes: event.content.bytes() });
                uses += 1;
                if full && let Some(last) = self.candidates.pop_last() {
                    if last.loaded == this {
                        uses -= 1;
                    } else {
                        release(&mut self.loaded, last.loaded);
                    }
                }
            }
            Ok(())
        })?;
        let body = if uses == 0 { Bytes::new() } else { body };
        self.loaded.push(Loaded { segment, body, uses });
        Ok(())
    }

    /// Copies the events of the page out of their bodies, each body opened once.
    pub(super) fn events(&self) -> Result<Vec<Event>, ReadError> {
        let mut slots: Vec<Option<Event>> = vec![None; self.picks.len()];
        let mut by_body: Vec<usize> = (0..self.picks.len()).collect();
        by_body.sort_unstable_by_key(|slot| (self.picks[*slot].loaded, self.picks[*slot].index));
        for group in by_body.chunk_by(|a, b| self.picks[*a].loaded == self.picks[*b].loaded) {
            let Loaded { segment, body, .. } = &self.loaded[self.picks[group[0]].loaded];
            open(segment.place(self.tenant), body, |view| {
                let mut group = group.iter().copied().peekable();
                for (index, event) in view.events().enumerate() {
                    let event = event?;
                    if let Some(slot) = group.next_if(|slot| self.picks[*slot].index == index) {
                        slots[slot] = Some(event.to_event(self.tenant, &segment.session));
                    }
                    if group.peek().is_none() {
                        break;
                    }
                }
                Ok(())
            })?;
        }
        let events: Vec<Event> = slots.into_iter().flatten().collect();
        assert_eq!(events.len(), self.picks.len(), "every pick was found where it was seen before");
        Ok(events)
    }
}

/// Lets go of one use of a body.
fn release(loaded: &mut [Loaded], index: usize) {
    let loaded = &mut loaded[index];
    loaded.uses -= 1;
    if loaded.uses == 0 {
        loaded.body = Bytes::new();
    }
}
