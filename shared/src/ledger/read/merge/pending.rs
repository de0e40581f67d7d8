//! What waits in the merge: segments whose bodies are not read yet, and batches of the archive.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::archive::Batch;
use crate::ids::{CommitId, Seq, SessionId, TenantId};
use crate::ledger::read::position::Rank;
use crate::ledger::read::{EventFilter, Place, event_count};
use crate::store::{FeedEntry, Order};

/// Ordered by the first event that it could hold.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) begin: Rank,
    pub(super) end: Rank,
    /// How many of its events are asked for, if that is known; wherever the page begins.
    pub(super) exact: Option<u64>,
    pub(super) of: Of,
}

/// What is waiting.
#[derive(Debug)]
pub(super) enum Of {
    Segment(Segment),
    Batch(Arc<Batch>),
}

#[derive(Debug)]
pub(super) struct Segment {
    commit: CommitId,
    pub(super) session: SessionId,
    first: Seq,
    events: u64,
    pub(super) bytes: u64,
}

impl Segment {
    pub(super) fn place<'a>(&'a self, tenant: &'a TenantId) -> Place<'a> {
        Place { tenant, session: &self.session, first: self.first, events: self.events, commit: self.commit }
    }
}

impl Pending {
    /// `None` if a segment has nothing that is asked for.
    pub(super) fn segment(entry: FeedEntry, filter: &EventFilter, order: Order) -> Option<Self> {
        let FeedEntry { session_id, meta } = entry;
        if !filter.may_match(&meta) {
            return None;
        }
        let (begin, end) = Rank::ends(&meta, order);
        let segment = Segment {
            commit: meta.commit_id,
            session: session_id,
            first: meta.first,
            events: event_count(&meta),
            bytes: meta.body_bytes,
        };
        Some(Self { begin, end, exact: filter.exact_count(&meta), of: Of::Segment(segment) })
    }

    /// `None` if a batch has nothing that is asked for.
    pub(super) fn batch(batch: &Arc<Batch>, filter: &EventFilter, order: Order) -> Option<Self> {
        if !batch.may_match(filter) {
            return None;
        }
        let (begin, end) = Rank::ends_of(batch.record.times, batch.record.commits, order);
        let exact = batch.exact_count(filter);
        Some(Self { begin, end, exact, of: Of::Batch(batch.clone()) })
    }
}

impl Ord for Pending {
    fn cmp(&self, other: &Self) -> Ordering {
        self.begin.cmp(&other.begin)
    }
}

impl PartialOrd for Pending {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Pending {
    fn eq(&self, other: &Self) -> bool {
        self.begin == other.begin
    }
}

impl Eq for Pending {}
