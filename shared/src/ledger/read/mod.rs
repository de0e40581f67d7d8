//! Reading: lists of events in the order of their timestamps, one event by its id, one session in the order of its
//! sequence, sessions, agents; and the check of a session's chain.
//!
//! Invariants: a list in pages gives every event that stood there when it began exactly once, in a stable order
//! (timestamp, then id), whatever is appended meanwhile. What does not decode is [`ReadError::Corrupt`], naming
//! tenant, session and sequence; it is never left out silently. Lists and single reads do not recompute hashes:
//! that is what [`Ledger::verify_session`] does.

mod by_id;
mod cold;
mod count;
mod filter;
mod list;
mod merge;
mod overview;
mod position;
mod session;
mod source;
mod verify;

#[cfg(test)]
mod tests;

pub(super) use cold::{Reading, View};
pub use filter::EventFilter;
pub use list::{EventPage, ListQuery, ReadStats};
pub use overview::{SessionPage, SessionQuery};
pub use position::EventPosition;
pub use session::SessionEvents;
pub use verify::SessionVerdict;

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use futures_util::future::try_join_all;

use crate::codec::Malformed;
use crate::ids::{CommitId, Seq, SessionId, TenantId};
use crate::ledger::Ledger;
use crate::segment::{SegmentError, SegmentMeta, SegmentReader, SegmentView};
use crate::store::StoreError;

/// How a read ended, if not well.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// The cursor is none of ours, or was given for another order or filter.
    #[error("the cursor does not belong to this query")]
    Cursor,
    /// The answer would need more than the budget to read, and a part of it would not do.
    #[error("the query would read more than {limit} bytes")]
    TooBroad {
        /// The budget, bytes: [`crate::limits::QUERY_READ_BYTES_MAX`].
        limit: u64,
    },
    /// Stored bytes that cannot be what was written.
    #[error("corrupt at {key}: {why}")]
    Corrupt {
        /// Where: tenant, session, and first sequence of the segment.
        key: String,
        /// What is wrong.
        why: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(StoreError),
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Corrupt { key, why } => Self::Corrupt { key, why },
            other => Self::Store(other),
        }
    }
}

/// Most bodies that are asked for at once. On one machine it changes nothing; over a network it hides the round
/// trips of a page whose segments hold one event each.
const READ_AHEAD: usize = 16;

/// What one record of attributes counts for on the read budget, bytes: it takes as long to read and decode as about
/// this much of a body.
const RECORD_BYTES: u64 = 128;

/// Where a segment stands, and what its body must agree with.
#[derive(Debug, Clone, Copy)]
struct Place<'a> {
    tenant: &'a TenantId,
    session: &'a SessionId,
    first: Seq,
    events: u64,
    commit: CommitId,
}

impl<'a> Place<'a> {
    fn new(tenant: &'a TenantId, session: &'a SessionId, meta: &SegmentMeta) -> Self {
        Self { tenant, session, first: meta.first, events: event_count(meta), commit: meta.commit_id }
    }

    fn corrupt(&self, why: impl ToString) -> ReadError {
        let key = format!("tenant {} session {} sequence {}", self.tenant, self.session, self.first);
        ReadError::Corrupt { key, why: why.to_string() }
    }
}

/// How many events a segment holds, by its attributes.
fn event_count(meta: &SegmentMeta) -> u64 {
    meta.last.get() - meta.first.get() + 1
}

/// Bytes read so far, and how many may be. Reads that go on at once share it.
#[derive(Debug)]
pub struct Budget {
    spent: AtomicU64,
    limit: u64,
}

impl Budget {
    /// Nothing read yet.
    pub fn new(limit: u64) -> Self {
        Self { spent: AtomicU64::new(0), limit }
    }

    /// True if so many more may be read. The first read always may: a budget must not stop what has not begun.
    pub fn allows(&self, bytes: u64) -> bool {
        let spent = self.spent();
        spent == 0 || spent.saturating_add(bytes) <= self.limit
    }

    /// Counts what is read.
    pub fn spend(&self, bytes: u64) {
        self.spent.fetch_add(bytes, Relaxed);
    }

    fn spent(&self) -> u64 {
        self.spent.load(Relaxed)
    }

    fn too_broad(&self) -> ReadError {
        ReadError::TooBroad { limit: self.limit }
    }
}

thread_local! {
    /// A reader keeps a zstd context and a buffer; one for each thread.
    static READER: RefCell<Option<SegmentReader>> = const { RefCell::new(None) };
}

/// Opens a body and hands it to `read`, once it is known to be the one that its attributes speak of.
fn open<T>(
    place: Place<'_>,
    body: &[u8],
    read: impl FnOnce(SegmentView<'_>) -> Result<T, Malformed>,
) -> Result<T, ReadError> {
    READER.with_borrow_mut(|slot| {
        let reader = match slot {
            Some(reader) => reader,
            None => slot.insert(SegmentReader::new().map_err(|e| no_reader(&e))?),
        };
        let view = reader.open(body).map_err(|e| place.corrupt(e))?;
        if view.commit_id() != place.commit {
            let (found, named) = (view.commit_id(), place.commit);
            return Err(
                place.corrupt(format!("the body is of commit {found}, its attributes are of {named}"))
            );
        }
        if view.count() as u64 != place.events {
            let (found, named) = (view.count(), place.events);
            return Err(place.corrupt(format!("the body holds {found} events, its attributes name {named}")));
        }
        read(view).map_err(|e| place.corrupt(e))
    })
}

fn no_reader(error: &SegmentError) -> ReadError {
    ReadError::Store(StoreError::Unavailable { why: error.to_string() })
}

impl Ledger {
    /// The body of a segment whose attributes were just read; `None` if it has expired since.
    async fn body(&self, place: Place<'_>) -> Result<Option<Bytes>, ReadError> {
        match self.store.body(place.tenant, place.session, place.first).await {
            Ok(body) => Ok(Some(body)),
            Err(StoreError::NotFound) => {
                // Attributes come from an index that may lag; the segment itself says whether it is still there.
                let there = self.store.commit_at(place.tenant, place.session, place.first).await?;
                if there.is_none() { Ok(None) } else { Err(place.corrupt("its body is missing")) }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Bodies of several segments, at once, in their order.
    async fn bodies(&self, places: &[Place<'_>]) -> Result<Vec<Option<Bytes>>, ReadError> {
        match places {
            [one] => Ok(vec![self.body(*one).await?]),
            many => try_join_all(many.iter().map(|place| self.body(*place))).await,
        }
    }
}
