//! Whole events of a batch, each checked against its hash.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use super::columns::Columns;
use super::fetch::Fetched;
use super::index::{EVENT_COLUMNS, HASH, METADATA, PAYLOAD};
use super::{ColdError, ColdFile, Cost};
use crate::archive::ArchiveError;
use crate::archive::reader::guard;
use crate::chain::{ChainCheck, ChainError, Hashes};
use crate::event::Event;
use crate::ids::{EventHash, SessionId};
use crate::limits;

/// All columns of an event.
const COLUMNS: [usize; EVENT_COLUMNS] = {
    let mut all = [0; EVENT_COLUMNS];
    let mut at = 0;
    while at < EVENT_COLUMNS {
        all[at] = at;
        at += 1;
    }
    all
};

/// Rows of a group that are wanted, and rows whose hash the row after them needs; by their numbers in the group.
#[derive(Default)]
struct Wanted {
    rows: Vec<u64>,
    before: Vec<u64>,
}

impl ColdFile {
    /// The events of some rows, by their numbers in the file and in the order given: of the first rows, if all have
    /// more than `bytes_max` of payload and metadata, but at least one.
    ///
    /// # Errors
    /// `Corrupt`, if an event's bytes do not give its hash too; `Budget`; `Object`.
    ///
    /// # Panics
    /// If there is no row of a number.
    pub async fn events(
        &self,
        rows: &[u64],
        bytes_max: usize,
        cost: &mut Cost<'_>,
    ) -> Result<Vec<Event>, ColdError> {
        self.events_with(rows, bytes_max, &mut self.tail.clone(), cost).await
    }

    /// The same, by one who has read something of the batch already.
    pub(super) async fn events_with(
        &self,
        rows: &[u64],
        bytes_max: usize,
        fetched: &mut Fetched,
        cost: &mut Cost<'_>,
    ) -> Result<Vec<Event>, ColdError> {
        let (mut events, mut bytes): (Vec<Event>, usize) = (Vec::new(), 0);
        let mut rest = rows;
        while !rest.is_empty() {
            let (step, later) = rest.split_at(self.step(rest));
            // The steps have the short columns in common; but a file that is not ours may be long.
            if fetched.bytes() > limits::COLD_KEPT_BYTES_MAX {
                *fetched = self.tail.clone();
            }
            for event in self.events_at(step, fetched, cost).await? {
                let size = event.as_ref().content.bytes();
                if !events.is_empty() && bytes.saturating_add(size) > bytes_max {
                    return Ok(events);
                }
                bytes += size;
                events.push(event);
            }
            rest = later;
        }
        Ok(events)
    }

    /// The row group of a row of the file, and the row's number in it.
    pub(super) fn place(&self, row: u64) -> (usize, u64) {
        let group = self.groups.partition_point(|group| group.first_row + group.rows <= row);
        assert!(group < self.groups.len(), "a row that the batch does not have");
        (group, row - self.groups[group].first_row)
    }

    /// How many of the rows to read together: so many that their payloads are in few pages.
    pub(super) fn step(&self, rows: &[u64]) -> usize {
        let mut pages = Vec::new();
        for (count, row) in rows.iter().enumerate() {
            let (group, row) = self.place(*row);
            for column in [PAYLOAD, METADATA] {
                let page = (group, column, self.groups[group].columns[column].page_of(row));
                if !pages.contains(&page) {
                    pages.push(page);
                }
            }
            if count > 0 && (count >= limits::ARCHIVE_READ_ROWS || pages.len() > limits::COLD_STEP_PAGES) {
                return count;
            }
        }
        rows.len()
    }

    async fn events_at(
        &self,
        rows: &[u64],
        fetched: &mut Fetched,
        cost: &mut Cost<'_>,
    ) -> Result<Vec<Event>, ColdError> {
        let mut groups: BTreeMap<usize, Wanted> = BTreeMap::new();
        for &row in rows {
            let (group, at) = self.place(row);
            groups.entry(group).or_default().rows.push(at);
            if let Some(before) = row.checked_sub(1) {
                let (group, at) = self.place(before);
                groups.entry(group).or_default().before.push(at);
            }
        }
        let mut ranges = Vec::new();
        for (group, wanted) in &mut groups {
            let group = &self.groups[*group];
            for (columns, rows) in [(&COLUMNS[..], &mut wanted.rows), (&[HASH], &mut wanted.before)] {
                rows.sort_unstable();
                rows.dedup();
                ranges.extend(group.pages_of(columns, &runs(rows)).0);
            }
        }
        self.fetch(ranges, fetched, cost).await?;
        let found = guard(|| {
            let mut before: HashMap<u64, EventHash> = HashMap::new();
            for (index, wanted) in &groups {
                let group = &self.groups[*index];
                let mut reader = Columns::of(&self.metadata, *index, group, &[HASH], fetched)?;
                for rows in wanted.before.chunks(reader.rows_at_once()) {
                    let slab = reader.take(rows)?;
                    for (at, row) in rows.iter().enumerate() {
                        let hash = slab.bytes(HASH, at).and_then(|hash| hash.try_into().ok());
                        let hash = hash.ok_or_else(|| bad("a hash is not 32 bytes long"))?;
                        before.insert(group.first_row + row, EventHash(hash));
                    }
                }
            }
            let mut found: HashMap<u64, Event> = HashMap::with_capacity(rows.len());
            for (index, wanted) in &groups {
                let group = &self.groups[*index];
                let mut reader = Columns::of(&self.metadata, *index, group, &COLUMNS, fetched)?;
                for rows in wanted.rows.chunks(reader.rows_at_once()) {
                    let first = group.first_row;
                    self.check(&mut reader, first, rows, &before, &mut found)?;
                }
            }
            Ok(found)
        });
        let mut found = found.map_err(|e| self.corrupt(e))?;
        cost.stats.rows_returned += found.len() as u64;
        // Decoding is work without a pause; let others have the thread in between.
        tokio::task::yield_now().await;
        let events: Vec<Event> = rows.iter().filter_map(|row| found.remove(row)).collect();
        assert_eq!(events.len(), rows.len(), "each row was read, and none was asked for twice");
        Ok(events)
    }

    /// Reads rows whole, and computes their hashes.
    fn check(
        &self,
        reader: &mut Columns,
        first_row: u64,
        rows: &[u64],
        before: &HashMap<u64, EventHash>,
        found: &mut HashMap<u64, Event>,
    ) -> Result<(), ArchiveError> {
        let slab = reader.take(rows)?;
        let wrong = |at: usize, e: ChainError| bad(format!("row {}: {e}", first_row + rows[at]));
        let mut hashes = Hashes::default();
        let mut events = Vec::with_capacity(rows.len());
        for (at, row) in rows.iter().enumerate() {
            let row = first_row + row;
            let values = slab.row(at)?;
            let session = SessionId::parse(values.session_id).map_err(bad)?;
            // The first row of a run has the hash before it itself.
            let last = row.checked_sub(1).and_then(|row| before.get(&row).copied());
            let last = last.filter(|_| values.prev_hash.is_none());
            let event = values.event(last).map_err(|e| wrong(at, e))?;
            let mut chain = ChainCheck::resume(&self.tenant, &session, event.sequence, event.prev_hash);
            chain.push_unhashed(&event, &mut hashes).map_err(|e| wrong(at, e))?;
            events.push((row, session, event));
        }
        if let Some((at, error)) = hashes.first_wrong() {
            return Err(wrong(at, error));
        }
        let events =
            events.into_iter().map(|(row, session, event)| (row, event.to_event(&self.tenant, &session)));
        found.extend(events);
        Ok(())
    }
}

fn bad(why: impl std::fmt::Display) -> ArchiveError {
    ArchiveError::Parquet(why.to_string())
}

/// Rows in order, as ranges.
pub(super) fn runs(rows: &[u64]) -> Vec<Range<u64>> {
    rows.chunk_by(|a, b| a + 1 == *b).map(|run| run[0]..run[0] + run.len() as u64).collect()
}
