//! What a read sees of the archive: the batches whose events may not be hot any more.
//!
//! A batch is in the catalogue before anything of it expires, and the catalogue says until when all of it is hot. So a
//! read takes the batches that may have lost something, reads hot and cold, and looks at the catalogue once more: if
//! another batch may have lost something meanwhile, it reads again. What is hot and cold at once is told by its place
//! (timestamp and id; session and sequence) and counts once.

use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::archive::{Batch, Batches, ColdError, Cost};
use crate::ids::{Seq, SessionId, TenantId};
use crate::ledger::Ledger;
use crate::limits;
use crate::objects::ObjectError;
use crate::store::{Order, Pointer, StoreError};
use crate::time::Micros;

use super::{Budget, ReadError, ReadStats, SessionEvents};

/// How long before a batch may lose its first segment it is read from the archive too, ms: a segment counts as expired
/// a while before its time, and the clock that says so may differ from ours.
const AHEAD_MS: i64 = 2 * limits::EXPIRY_MARGIN_MS;

/// The same when a read begins: one that takes less than the difference need not be made again for its length.
const AHEAD_AT_FIRST_MS: i64 = AHEAD_MS + limits::EXPIRY_MARGIN_MS;

/// How often a read is begun again because something was archived and expired meanwhile. Retention is a day at least
/// ([`limits::HOT_RETENTION_MS_MIN`]), so once is uncommon.
const AGAIN_MAX: usize = 16;

impl From<ColdError> for ReadError {
    fn from(error: ColdError) -> Self {
        match error {
            // Who reads within a budget looks for this first.
            ColdError::Budget => Self::TooBroad { limit: limits::QUERY_READ_BYTES_MAX },
            ColdError::Corrupt { key, why } => Self::Corrupt { key, why },
            ColdError::Object(ObjectError::NotFound { key }) => {
                Self::Corrupt { key, why: "it is gone".into() }
            }
            ColdError::Object(other) => Self::Store(StoreError::Unavailable { why: other.to_string() }),
        }
    }
}

/// How often it is guessed in which batch a sequence of a session is.
const GUESSES: usize = 2;

/// Which of so many batches should have a sequence, if they have those from `low` to `high`, about as many each.
fn guess(sequence: u64, (low, high): (u64, u64), batches: usize) -> usize {
    let (into, all) = (sequence.clamp(low, high.max(low)) - low, high.saturating_sub(low) + 1);
    let at = u128::from(into) * batches as u128 / u128::from(all);
    usize::try_from(at).unwrap_or(usize::MAX).min(batches - 1)
}

/// The archive at a moment.
#[derive(Debug)]
pub(in crate::ledger) struct View {
    all: Batches,
    /// Batches that are hot only until this time may have lost something.
    until: Micros,
}

impl View {
    /// The batches that may have lost something, in the order of their numbers.
    pub(in crate::ledger) fn cold(&self) -> impl Iterator<Item = &Arc<Batch>> {
        self.all.iter().filter(|batch| batch.record.hot_until <= self.until)
    }

    /// Batches by number, both ends in, whether hot or not.
    pub(in crate::ledger) fn numbered(
        &self,
        numbers: RangeInclusive<u64>,
    ) -> impl DoubleEndedIterator<Item = &Arc<Batch>> {
        self.all.iter().filter(move |batch| numbers.contains(&batch.record.batch))
    }

    fn covers(&self, batch: &Batch) -> bool {
        let known = self.all.binary_search_by_key(&batch.record.batch, |known| known.record.batch);
        known.is_ok() && batch.record.hot_until <= self.until
    }
}

/// A read that is made again if the archive went on meanwhile.
pub(in crate::ledger) struct Reading<'a> {
    ledger: &'a Ledger,
    tenant: &'a TenantId,
    pub(in crate::ledger) view: View,
    attempts: usize,
    forgotten: bool,
}

impl<'a> Reading<'a> {
    pub(in crate::ledger) async fn begin(
        ledger: &'a Ledger,
        tenant: &'a TenantId,
    ) -> Result<Self, ReadError> {
        let view = ledger.view(tenant).await?;
        Ok(Self { ledger, tenant, view, attempts: 0, forgotten: false })
    }

    /// What an attempt gave, if it holds; `None` if there is a new view and another attempt is due. `may` says whether a
    /// batch that went cold meanwhile would have mattered.
    pub(in crate::ledger) async fn settle<T>(
        &mut self,
        outcome: Result<T, ReadError>,
        may: impl Fn(&Batch) -> bool,
    ) -> Result<Option<T>, ReadError> {
        let Self { ledger, tenant, .. } = *self;
        self.attempts += 1;
        match outcome {
            Ok(found) => {
                let now = ledger.view_until(tenant, AHEAD_MS).await?;
                let missed = |batch: &&Arc<Batch>| !self.view.covers(batch) && may(batch);
                if now.cold().find(missed).is_none() {
                    return Ok(Some(found));
                }
            }
            // It may be what this process remembers that does not fit any more.
            Err(ReadError::Corrupt { .. }) if !self.forgotten && self.view.cold().next().is_some() => {
                self.forgotten = true;
                ledger.cold.forget(tenant);
            }
            Err(error) => return Err(error),
        }
        if self.attempts == AGAIN_MAX {
            let why = format!("{AGAIN_MAX} times, events went from hot to cold while they were read");
            return Err(ReadError::Store(StoreError::Unavailable { why }));
        }
        self.view = ledger.view(tenant).await?;
        Ok(None)
    }
}

impl Ledger {
    async fn view(&self, tenant: &TenantId) -> Result<View, ReadError> {
        self.view_until(tenant, AHEAD_AT_FIRST_MS).await
    }

    async fn view_until(&self, tenant: &TenantId, ahead_ms: i64) -> Result<View, ReadError> {
        // The clock first: what expires after it was read is in the margin.
        let until = self.clock.now().plus_ms(ahead_ms);
        Ok(View { all: self.cold.batches(&*self.store, tenant).await?, until })
    }

    /// How far a session is archived, if a sequence is within that. What is not hot, and is within that, is cold.
    pub(in crate::ledger) async fn archived_at(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        sequence: Seq,
    ) -> Result<Option<Pointer>, ReadError> {
        let pointer = self.store.pointer(tenant, session).await?;
        Ok(pointer.filter(|pointer| sequence <= pointer.archived.head.sequence))
    }

    /// Events of a session out of its archive, from a sequence on that is archived ([`Ledger::archived_at`]): at least one,
    /// then up to `limit` and `bytes_max` of payload and metadata, and no further than a batch. `next` is where the session
    /// goes on; `None` at its beginning, downwards.
    pub(in crate::ledger) async fn archived_events(
        &self,
        tenant: &TenantId,
        pointer: &Pointer,
        (from, order): (Seq, Order),
        (limit, bytes_max): (usize, usize),
        stats: &mut ReadStats,
    ) -> Result<SessionEvents, ReadError> {
        let mut reading = Reading::begin(self, tenant).await?;
        loop {
            let page =
                self.archived_page(&reading.view, tenant, pointer, (from, order), (limit, bytes_max), stats);
            let page = page.await;
            // What is archived does not move: only what was remembered wrongly is read again.
            if let Some(page) = reading.settle(page, |_| false).await? {
                return Ok(page);
            }
        }
    }

    async fn archived_page(
        &self,
        view: &View,
        tenant: &TenantId,
        pointer: &Pointer,
        (from, order): (Seq, Order),
        (limit, bytes_max): (usize, usize),
        stats: &mut ReadStats,
    ) -> Result<SessionEvents, ReadError> {
        let session = &pointer.archived.session_id;
        // A session is read to its end, however long it is; a page of it is bounded by itself.
        let budget = Budget::new(u64::MAX);
        let (mut all, mut bytes, mut batches) = (0, 0, Vec::new());
        for batch in view.numbered(pointer.first_batch..=pointer.last_batch) {
            all += 1;
            bytes += batch.record.bytes;
            if batch.may_hold_session(session) {
                batches.push(batch);
            }
        }
        // Pages of one read are of the same batches.
        stats.archive_bytes = stats.archive_bytes.max(bytes);
        stats.batches_skipped = stats.batches_skipped.max(all - batches.len() as u64);
        stats.batches_read += 1;
        let mut cost = Cost { budget: &budget, stats: &mut stats.cold };
        // Sequences rise with the batches, most often evenly: where one should be is looked first, and if that misses, in
        // the middle of what is left.
        let (mut low, mut high, mut misses) = (0, pointer.archived.head.sequence.get(), 0);
        while !batches.is_empty() {
            let at = if misses < GUESSES {
                guess(from.get(), (low, high), batches.len())
            } else {
                batches.len() / 2
            };
            misses += 1;
            let file = self.cold.open(tenant, batches[at], &mut cost).await?;
            let page = file.session(session, (from, order), (limit, bytes_max), &mut cost).await?;
            match page.held {
                None => {
                    batches.remove(at);
                }
                Some(held) if from < *held.start() => {
                    batches.truncate(at);
                    high = held.start().get();
                }
                Some(held) if from > *held.end() => {
                    batches.drain(..=at);
                    low = held.end().get();
                }
                Some(held) if page.events.first().is_some_and(|first| first.sequence == from) => {
                    let next = page.next.or(match order {
                        Order::Asc => held.end().checked_add(1),
                        Order::Desc => held.start().get().checked_sub(1).and_then(Seq::new),
                    });
                    return Ok(SessionEvents { events: page.events, next });
                }
                Some(_) => break,
            }
        }
        let key = format!("tenant {tenant} session {session} sequence {from}");
        Err(ReadError::Corrupt { key, why: "it is archived, and no batch has it".into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guess_is_one_of_them() {
        for (sequence, ends, batches, expected) in [
            (0, (0, 499), 5, 0),
            (499, (0, 499), 5, 4),
            (250, (0, 499), 5, 2),
            (9, (0, 0), 1, 0),
            (0, (10, 20), 3, 0),
            (99, (10, 20), 3, 2),
            (7, (9, 3), 4, 0),
            (u64::MAX, (0, u64::MAX - 1), 2, 1),
        ] {
            assert_eq!(guess(sequence, ends, batches), expected, "{sequence} in {ends:?} of {batches}");
        }
    }
}
