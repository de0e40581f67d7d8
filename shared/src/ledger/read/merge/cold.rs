//! Batches of the archive in the merge: their candidates, several batches at once.

use std::cmp::Reverse;

use futures_util::future::join_all;

use super::{Candidate, Loaded, LoadedOf, Merge, Of, Pending, Rank};
use crate::archive::{ColdError, ColdStats, Cost};
use crate::ledger::read::{Budget, ReadError};

/// Most batches that are read at once. A list that finds its page in the first should not pay for more, so they double
/// from one on: over a network this hides the round trips of a search through a day of them.
const BATCHES_AT_ONCE: usize = 8;

impl Merge<'_> {
    /// Looks for candidates in the first batch that waits, and in those after it.
    pub(super) async fn load_batches(&mut self, budget: &Budget) -> Result<bool, ReadError> {
        let (wanted, order) = (self.wanted(), self.query.order);
        let due = self.due(wanted as u64);
        // The first read is always made: a budget must not stop what has not begun.
        let unlimited = Budget::new(u64::MAX);
        let begun = !self.loaded.is_empty();
        let scans = due.iter().enumerate().map(|(nth, (begin, pending))| {
            let budget = if nth == 0 && !begun { &unlimited } else { budget };
            let (ledger, tenant, filter) = (self.ledger, self.tenant, &self.query.filter);
            let after = begin.max(&self.after.unwrap_or(Rank::FIRST)).position(order);
            async move {
                let mut stats = ColdStats::default();
                let mut cost = Cost { budget, stats: &mut stats };
                let scan = async {
                    let file = ledger.cold.open(tenant, pending, &mut cost).await?;
                    let scan = file.scan(filter, (order, after, wanted), &mut cost).await?;
                    Ok::<_, ColdError>((file, scan))
                };
                (scan.await, stats)
            }
        });
        let scans = join_all(scans).await;
        budget.spend(unlimited.spent());
        let mut stopped = false;
        for (nth, ((begin, batch), (scan, stats))) in due.iter().zip(scans).enumerate() {
            self.stats.cold.add(&stats);
            let (_, end) = Rank::ends_of(batch.record.times, batch.record.commits, order);
            let wait = |begin| Reverse(Pending { begin, end, exact: None, of: Of::Batch(batch.clone()) });
            match scan {
                Ok((file, scan)) => {
                    self.stats.batches_read += 1;
                    let this = self.loaded.len();
                    self.loaded.push(Loaded { of: LoadedOf::Batch(file), uses: 0 });
                    let found = scan.candidates.iter().map(|candidate| Candidate {
                        rank: Rank::of(candidate.position, order),
                        loaded: this,
                        index: candidate.row,
                        bytes: 0,
                    });
                    let last = scan.candidates.last().map(|last| Rank::of(last.position, order));
                    self.keep(this, found);
                    if scan.more {
                        self.pending.push(wait(last.unwrap_or(*begin)));
                    }
                }
                Err(ColdError::Budget) => {
                    stopped |= nth == 0;
                    self.pending.push(wait(*begin));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(!stopped)
    }

    /// The batches to read now.
    fn due(&mut self, wanted: u64) -> Vec<(Rank, std::sync::Arc<crate::archive::Batch>)> {
        let mut expected = self.candidates.len() as u64;
        let mut due = Vec::new();
        while due.len() < self.batches_ahead {
            let Some(Reverse(Pending { begin, of: Of::Batch(_), .. })) = self.pending.peek() else { break };
            let beyond = self.source.bound().is_some_and(|bound| bound < *begin);
            if !due.is_empty() && (beyond || expected + 1 >= wanted) {
                break;
            }
            if let Some(Reverse(Pending { begin, exact, of: Of::Batch(batch), .. })) = self.pending.pop() {
                expected += exact.unwrap_or(0);
                due.push((begin, batch));
            }
        }
        self.batches_ahead = (self.batches_ahead * 2).min(BATCHES_AT_ONCE);
        due
    }
}
