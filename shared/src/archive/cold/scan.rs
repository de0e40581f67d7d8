//! What a filter asks of a batch, as places in a list: no event is read whole for them.

use std::ops::RangeInclusive;

use super::events::runs;
use super::index::{AGENT_ID, EVENT_ID, EVENT_TYPE, Group, PAYLOAD, SESSION_ID, SEVERITY, TIMESTAMP, both};
use super::{ColdError, ColdFile, Cost};
use crate::archive::ArchiveError;
use crate::ids::{EventId, Severity};
use crate::ledger::{EventFilter, EventPosition};
use crate::store::Order;
use crate::time::Micros;

/// An event that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Its place in the list.
    pub position: EventPosition,
    /// Its row in the batch: for [`ColdFile::events`].
    pub row: u64,
}

/// What a batch has for a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// The first of it, in order.
    pub candidates: Vec<Candidate>,
    /// True if there is more.
    pub more: bool,
}

/// The best candidates so far, and where the list begins.
struct Best {
    order: Order,
    after: Option<EventPosition>,
    limit: usize,
    found: Vec<Candidate>,
}

impl Best {
    fn before(&self, a: EventPosition, b: EventPosition) -> bool {
        match self.order {
            Order::Asc => a < b,
            Order::Desc => a > b,
        }
    }

    fn sort(&mut self) {
        self.found.sort_unstable_by_key(|candidate| candidate.position);
        if self.order == Order::Desc {
            self.found.reverse();
        }
        // One more than wanted, to know of more.
        self.found.truncate(self.limit.saturating_add(1));
    }

    fn push(&mut self, candidate: Candidate) {
        self.found.push(candidate);
        if self.found.len() / 2 > self.limit {
            self.sort();
        }
    }

    /// The times that a candidate may have.
    fn times(&mut self, filter: &EventFilter) -> RangeInclusive<i64> {
        self.sort();
        let mut low = filter.from.map_or(i64::MIN, Micros::get);
        let mut high = filter.to.map_or(i64::MAX, Micros::get);
        let first = self.after.map(|after| after.timestamp.get());
        let last = self.found.get(self.limit).map(|worst| worst.position.timestamp.get());
        let (first, last) = if self.order == Order::Asc { (first, last) } else { (last, first) };
        low = low.max(first.unwrap_or(i64::MIN));
        high = high.min(last.unwrap_or(i64::MAX));
        low..=high
    }
}

impl ColdFile {
    /// Up to `limit` of the events that a filter asks for, after a place.
    ///
    /// # Errors
    /// `Corrupt`; `Budget`; `Object`.
    pub async fn scan(
        &self,
        filter: &EventFilter,
        (order, after, limit): (Order, Option<EventPosition>, usize),
        cost: &mut Cost<'_>,
    ) -> Result<Scan, ColdError> {
        let mut best = Best { order, after, limit, found: Vec::new() };
        for index in 0..self.groups.len() {
            self.scan_group(filter, index, &mut best, cost).await?;
        }
        best.sort();
        let more = best.found.len() > limit;
        best.found.truncate(limit);
        Ok(Scan { candidates: best.found, more })
    }

    async fn scan_group(
        &self,
        filter: &EventFilter,
        index: usize,
        best: &mut Best,
        cost: &mut Cost<'_>,
    ) -> Result<(), ColdError> {
        let group = &self.groups[index];
        let times = best.times(filter);
        let rows = prune(group, filter, &times);
        if rows.is_empty() {
            cost.stats.row_groups_skipped += 1;
            return Ok(());
        }
        let session = filter.session.as_ref().map(|session| session.as_str().as_bytes());
        let mut columns = vec![EVENT_ID, TIMESTAMP];
        columns.extend(session.map(|_| SESSION_ID));
        columns.extend((!filter.agents.is_empty()).then_some(AGENT_ID));
        columns.extend((!filter.event_types.is_empty()).then_some(EVENT_TYPE));
        columns.extend((!filter.severities.is_empty()).then_some(SEVERITY));
        let search = filter.search.as_ref().is_some_and(|text| !text.is_empty());
        let mut hits: Vec<Candidate> = Vec::new();
        self.narrow(index, &rows, &columns, cost, |row, slab, at| {
            let timestamp = Micros::new(slab.number(TIMESTAMP, at)?).ok_or_else(|| bad("timestamp"))?;
            if !times.contains(&timestamp.get())
                || session.is_some_and(|s| slab.bytes(SESSION_ID, at) != Some(s))
            {
                return Ok(());
            }
            if !filter.agents.is_empty() && !filter.matches_agent(slab.text(AGENT_ID, at)?)
                || !filter.event_types.is_empty() && !filter.matches_type(slab.text(EVENT_TYPE, at)?)
            {
                return Ok(());
            }
            if !filter.severities.is_empty() {
                let severity = Severity::parse(slab.text(SEVERITY, at)?).map_err(|_| bad("severity"))?;
                if !filter.matches_severity(severity) {
                    return Ok(());
                }
            }
            let event_id = EventId::parse(slab.text(EVENT_ID, at)?).map_err(|_| bad("event_id"))?;
            let candidate = Candidate { position: EventPosition { timestamp, event_id }, row };
            if best.after.is_some_and(|after| !best.before(after, candidate.position)) {
                return Ok(());
            }
            if search {
                hits.push(candidate)
            } else {
                best.push(candidate)
            }
            Ok(())
        })
        .await?;
        self.search(filter, &hits, best, cost).await
    }

    /// Of the candidates, keeps those with the text in their payload.
    async fn search(
        &self,
        filter: &EventFilter,
        hits: &[Candidate],
        best: &mut Best,
        cost: &mut Cost<'_>,
    ) -> Result<(), ColdError> {
        let rows: Vec<u64> = hits.iter().map(|hit| hit.row).collect();
        let mut at = 0;
        while at < hits.len() {
            let count = self.step(&rows[at..]);
            let (group, first) = self.place(rows[at]);
            let of_group: Vec<u64> = rows[at..at + count].iter().map(|row| row - rows[at] + first).collect();
            let mut step = hits[at..at + count].iter();
            self.narrow(group, &runs(&of_group), &[PAYLOAD], cost, |row, slab, at| {
                if let Some(hit) = step.find(|hit| hit.row == row)
                    && filter.matches_payload(slab.text_or_null(PAYLOAD, at)?)
                {
                    best.push(*hit);
                }
                Ok(())
            })
            .await?;
            at += count;
        }
        Ok(())
    }
}

/// The rows of a group whose pages may hold what is asked for.
fn prune(group: &Group, filter: &EventFilter, times: &RangeInclusive<i64>) -> Vec<std::ops::Range<u64>> {
    let mut rows = both(&group.all(), &group.with_number(TIMESTAMP, times));
    if let Some(session) = &filter.session {
        rows = both(&rows, &group.with_text(SESSION_ID, &[session.as_str()]));
    }
    if !filter.agents.is_empty() {
        rows = both(&rows, &group.with_text(AGENT_ID, &filter.agents));
    }
    if !filter.event_types.is_empty() {
        rows = both(&rows, &group.with_text(EVENT_TYPE, &filter.event_types));
    }
    if !filter.severities.is_empty() {
        let severities: Vec<&str> = filter.severities.iter().map(|s| s.as_str()).collect();
        rows = both(&rows, &group.with_text(SEVERITY, &severities));
    }
    rows
}

fn bad(column: &str) -> ArchiveError {
    ArchiveError::Parquet(format!("{column} is against its syntax"))
}
