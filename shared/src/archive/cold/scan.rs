//! What a filter asks of a batch, as places in a list: no event is read whole for them.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use super::columns::Slab;
use super::events::runs;
use super::index::{
    AGENT_ID, EVENT_ID, EVENT_TYPE, Group, PAYLOAD, SEQUENCE, SESSION_ID, SEVERITY, TIMESTAMP, both,
};
use super::{ColdError, ColdFile, Cost};
use crate::archive::ArchiveError;
use crate::ids::{EventId, Seq, SessionId, Severity};
use crate::ledger::{EventFilter, EventPosition};
use crate::limits;
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

/// Sequences of sessions that are found elsewhere.
#[derive(Debug, Default)]
pub struct HotRanges(HashMap<Box<[u8]>, Vec<RangeInclusive<i64>>>);

impl HotRanges {
    /// Adds those from `first` to `last`.
    pub fn add(&mut self, session: &SessionId, first: Seq, last: Seq) {
        let range = first.get() as i64..=last.get() as i64;
        self.0.entry(session.as_str().as_bytes().into()).or_default().push(range);
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn holds(&self, session: &[u8], sequence: i64) -> bool {
        self.0.get(session).is_some_and(|ranges| ranges.iter().any(|range| range.contains(&sequence)))
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
            let times = best.times(filter);
            let mut hits: Vec<Candidate> = Vec::new();
            self.matching((filter, &times), index, &[EVENT_ID], cost, |row, slab, at| {
                let timestamp = Micros::new(slab.number(TIMESTAMP, at)?).ok_or_else(|| bad("timestamp"))?;
                let event_id = EventId::parse(slab.text(EVENT_ID, at)?).map_err(|_| bad("event_id"))?;
                let candidate = Candidate { position: EventPosition { timestamp, event_id }, row };
                if best.after.is_none_or(|after| best.before(after, candidate.position)) {
                    hits.push(candidate);
                }
                Ok(())
            })
            .await?;
            if filter.asks_for_text() {
                let rows: Vec<u64> = hits.iter().map(|hit| hit.row).collect();
                let mut hits = hits.iter();
                self.search(filter, &rows, cost, |row| best.found.extend(hits.find(|hit| hit.row == row)))
                    .await?;
            } else {
                best.found.append(&mut hits);
            }
        }
        best.sort();
        let more = best.found.len() > limit;
        best.found.truncate(limit);
        Ok(Scan { candidates: best.found, more })
    }

    /// How many events a filter asks for, but for those that are found elsewhere.
    ///
    /// # Errors
    /// `Corrupt`; `Budget`; `Object`.
    pub async fn count(
        &self,
        filter: &EventFilter,
        elsewhere: &HotRanges,
        cost: &mut Cost<'_>,
    ) -> Result<u64, ColdError> {
        let times = filter.from.map_or(i64::MIN, Micros::get)..=filter.to.map_or(i64::MAX, Micros::get);
        let places: &[usize] = if elsewhere.is_empty() { &[] } else { &[SESSION_ID, SEQUENCE] };
        let mut total = 0;
        for index in 0..self.groups.len() {
            let mut rows: Vec<u64> = Vec::new();
            self.matching((filter, &times), index, places, cost, |row, slab, at| {
                let known = !elsewhere.is_empty()
                    && elsewhere.holds(slab.text(SESSION_ID, at)?.as_bytes(), slab.number(SEQUENCE, at)?);
                if !known {
                    rows.push(row);
                }
                Ok(())
            })
            .await?;
            if filter.asks_for_text() {
                self.search(filter, &rows, cost, |_| total += 1).await?;
            } else {
                total += rows.len() as u64;
            }
        }
        Ok(total)
    }

    /// Calls `each` with the rows of a group that a filter asks for, whatever their text, and that are of a time; with
    /// the columns that it was judged by, and some more.
    async fn matching(
        &self,
        (filter, times): (&EventFilter, &RangeInclusive<i64>),
        index: usize,
        more: &[usize],
        cost: &mut Cost<'_>,
        mut each: impl FnMut(u64, &Slab, usize) -> Result<(), ArchiveError>,
    ) -> Result<(), ColdError> {
        let rows = prune(&self.groups[index], filter, times);
        if rows.is_empty() {
            cost.stats.row_groups_skipped += 1;
            return Ok(());
        }
        let session = filter.session.as_ref().map(|session| session.as_str().as_bytes());
        let asked = [
            (SESSION_ID, session.is_some()),
            (AGENT_ID, !filter.agents.is_empty()),
            (EVENT_TYPE, !filter.event_types.is_empty()),
            (SEVERITY, !filter.severities.is_empty()),
        ];
        let asked = asked.into_iter().filter_map(|(column, asked)| asked.then_some(column));
        let mut columns: Vec<usize> = asked.chain([TIMESTAMP]).chain(more.iter().copied()).collect();
        columns.sort_unstable();
        columns.dedup();
        self.narrow(index, &rows, &columns, &mut self.tail.clone(), cost, |row, slab, at| {
            if !times.contains(&slab.number(TIMESTAMP, at)?)
                || session.is_some_and(|session| slab.bytes(SESSION_ID, at) != Some(session))
                || !filter.agents.is_empty() && !filter.matches_agent(slab.text(AGENT_ID, at)?)
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
            each(row, slab, at)
        })
        .await
    }

    /// Calls `each` with those of the rows, all of one group, that have the text in their payload.
    async fn search(
        &self,
        filter: &EventFilter,
        rows: &[u64],
        cost: &mut Cost<'_>,
        mut each: impl FnMut(u64),
    ) -> Result<(), ColdError> {
        // Steps end between two rows, not between two pages: what one has read the next one needs too.
        let (mut rest, mut fetched) = (rows, self.tail.clone());
        while let Some(&start) = rest.first() {
            let (step, later) = rest.split_at(self.step(rest));
            let (group, first) = self.place(start);
            let of_group: Vec<u64> = step.iter().map(|row| row - start + first).collect();
            if fetched.bytes() > limits::COLD_KEPT_BYTES_MAX {
                fetched = self.tail.clone();
            }
            self.narrow(group, &runs(&of_group), &[PAYLOAD], &mut fetched, cost, |row, slab, at| {
                if filter.matches_payload(slab.text_or_null(PAYLOAD, at)?) {
                    each(row);
                }
                Ok(())
            })
            .await?;
            rest = later;
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
