//! One event, by its id: the id says which commit, the feed says which segments, one body is read.

use std::time::Duration;

use crate::archive::Cost;
use crate::event::Event;
use crate::ids::{EventId, TenantId};
use crate::ledger::Ledger;
use crate::limits;
use crate::store::FeedEntry;

use super::cold::{Reading, View};
use super::{Budget, Place, ReadError, ReadStats, open};

/// First and longest wait between two looks for an event that may have been written just now, ms.
const WAIT_MS_MIN: i64 = 50;
const WAIT_MS_MAX: i64 = 200;

impl Ledger {
    /// The event with this id, if there is one, hot or archived. The index that leads to what is hot may lag, so an id
    /// minted in the last [`limits::BY_ID_RETRY_MS`] by the ledger's clock is looked for until it is older than that.
    ///
    /// # Errors
    /// `Corrupt`; `Store`.
    pub async fn event(&self, tenant: &TenantId, id: EventId) -> Result<Option<Event>, ReadError> {
        self.event_with_stats(tenant, id, &mut ReadStats::default()).await
    }

    /// The same, and what it cost.
    ///
    /// # Errors
    /// `Corrupt`; `Store`.
    pub async fn event_with_stats(
        &self,
        tenant: &TenantId,
        id: EventId,
        stats: &mut ReadStats,
    ) -> Result<Option<Event>, ReadError> {
        if !(1..=limits::BATCH_EVENTS_MAX).contains(&usize::from(id.number())) {
            return Ok(None);
        }
        let commit = id.commit();
        let minted_ms = i64::try_from(commit.unix_ms()).unwrap_or(i64::MAX);
        let mut searched: Vec<FeedEntry> = Vec::new();
        let mut waited_ms = 0;
        let mut wait_ms = WAIT_MS_MIN;
        loop {
            let mut entries = self.store.feed_commit(tenant, commit).await?;
            entries.retain(|entry| entry.meta.commit_id == commit && !searched.contains(entry));
            // Attributes do not say which numbers of the batch a segment holds. The longest is the likeliest, and
            // nearly every batch is of one session.
            entries.sort_by_key(|entry| std::cmp::Reverse(entry.meta.summary.events));
            for entry in entries {
                if let Some(event) = self.event_in(tenant, &entry, id, stats).await? {
                    return Ok(Some(event));
                }
                searched.push(entry);
            }
            // What expired was archived, and stays.
            if waited_ms == 0
                && let Some(event) = self.archived_event(tenant, id, stats).await?
            {
                return Ok(Some(event));
            }
            // Clocks differ, so an id may be a little ahead of ours; one far ahead was never minted.
            let age_ms = self.clock.now().unix_ms().saturating_sub(minted_ms);
            // What was waited counts by itself: the ledger's clock may stand still or go back.
            let left_ms = limits::BY_ID_RETRY_MS - waited_ms.max(age_ms);
            if left_ms <= 0 || age_ms < -limits::BY_ID_RETRY_MS {
                return Ok(None);
            }
            let pause_ms = wait_ms.min(left_ms);
            tokio::time::sleep(Duration::from_millis(pause_ms.unsigned_abs())).await;
            waited_ms += pause_ms;
            wait_ms = (wait_ms * 2).min(WAIT_MS_MAX);
        }
    }

    async fn archived_event(
        &self,
        tenant: &TenantId,
        id: EventId,
        stats: &mut ReadStats,
    ) -> Result<Option<Event>, ReadError> {
        let mut reading = Reading::begin(self, tenant).await?;
        loop {
            let found = self.event_of(&reading.view, tenant, id, stats).await;
            if let Some(found) = reading.settle(found, |batch| batch.may_hold_commit(id.commit())).await? {
                return Ok(found);
            }
        }
    }

    async fn event_of(
        &self,
        view: &View,
        tenant: &TenantId,
        id: EventId,
        stats: &mut ReadStats,
    ) -> Result<Option<Event>, ReadError> {
        let budget = Budget::new(limits::QUERY_READ_BYTES_MAX);
        let (may_hold, others): (Vec<_>, Vec<_>) =
            view.cold().partition(|batch| batch.may_hold_commit(id.commit()));
        stats.archive_bytes = may_hold.iter().chain(&others).map(|batch| batch.record.bytes).sum();
        stats.batches_skipped = others.len() as u64;
        for batch in may_hold {
            stats.batches_read += 1;
            let mut cost = Cost { budget: &budget, stats: &mut stats.cold };
            let file = self.cold.open(tenant, batch, &mut cost).await?;
            if let Some(event) = file.by_id(id, &mut cost).await? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    async fn event_in(
        &self,
        tenant: &TenantId,
        entry: &FeedEntry,
        id: EventId,
        stats: &mut ReadStats,
    ) -> Result<Option<Event>, ReadError> {
        let session = &entry.session_id;
        let place = Place::new(tenant, session, &entry.meta);
        let Some(body) = self.body(place).await? else { return Ok(None) };
        stats.segments_read += 1;
        stats.bytes_read += body.len() as u64;
        open(place, &body, |view| {
            for event in view.events() {
                let event = event?;
                // Numbers rise along a segment.
                if event.event_id >= id {
                    return Ok((event.event_id == id).then(|| event.to_event(tenant, session)));
                }
            }
            Ok(None)
        })
    }
}
