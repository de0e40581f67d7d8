//! Reads of a batch where it lies: by ranges, and as few of them as will do.
//!
//! The end of the object says where each page is and what it may hold. A question is asked in two steps: the columns
//! that it is about, of the pages that may match; then all columns, of the pages with the rows that do.
//!
//! A range cannot be held against the SHA-256 of its object. What is shown instead: the hash of every event is computed
//! from what was read of it, and one that differs is [`ColdError::Corrupt`], never an event. That nothing was left out
//! is not shown (statistics may lie), nor that an event is in the log: that is the verifier's work. The bytes may be
//! anybody's, and the limits of [`super::pages`] hold here too.

mod catalogue;
mod columns;
mod events;
mod fetch;
mod index;
mod scan;
#[cfg(test)]
mod tests;

pub use catalogue::{Batch, Batches, Catalogue};
pub use scan::{Candidate, HotRanges, Scan};

use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use bytes::Bytes;
use parquet::bloom_filter::Sbbf;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

use self::columns::{Columns, Slab};
use self::fetch::Fetched;
use self::index::{EVENT_ID, Group, PAYLOAD, SEQUENCE, SESSION_ID};
use super::ArchiveError;
use super::reader::{TAIL_BYTES, check, guard};
use crate::event::Event;
use crate::ids::{EventId, Seq, SessionId, TenantId};
use crate::ledger::Budget;
use crate::limits;
use crate::objects::{ObjectError, ObjectStore};
use crate::store::Order;

/// How a read of a batch ended, if not well.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ColdError {
    /// The answer needs more bytes than the budget has left.
    #[error("the budget of bytes to read is spent")]
    Budget,
    /// Bytes that cannot be what was written.
    #[error("corrupt at {key}: {why}")]
    Corrupt {
        /// Key of the object.
        key: String,
        /// What is wrong.
        why: String,
    },
    /// The object cannot be read.
    #[error(transparent)]
    Object(#[from] ObjectError),
}

/// What reads of batches did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ColdStats {
    /// Ranges asked for.
    pub requests: u64,
    /// Bytes of them.
    pub bytes_read: u64,
    /// Row groups that could not hold an answer.
    pub row_groups_skipped: u64,
    /// Pages that could not hold an answer, of the columns that a question is about.
    pub pages_skipped: u64,
    /// Rows that were looked at.
    pub rows_scanned: u64,
    /// Rows that were read whole.
    pub rows_returned: u64,
}

impl ColdStats {
    /// Adds what other reads did.
    pub fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.bytes_read += other.bytes_read;
        self.row_groups_skipped += other.row_groups_skipped;
        self.pages_skipped += other.pages_skipped;
        self.rows_scanned += other.rows_scanned;
        self.rows_returned += other.rows_returned;
    }
}

/// What a read may cost, and what it did.
#[derive(Debug)]
pub struct Cost<'b> {
    /// Asked before each read.
    pub budget: &'b Budget,
    /// Added to by each read.
    pub stats: &'b mut ColdStats,
}

/// What a batch has of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColdSession {
    /// The events that were asked for, in order.
    pub events: Vec<Event>,
    /// Where this batch goes on; `None` if it has no more in that direction.
    pub next: Option<Seq>,
    /// First and last of all its sequences, if it has any.
    pub held: Option<RangeInclusive<Seq>>,
}

/// A batch in an archive.
#[derive(Clone)]
pub struct ColdFile {
    objects: Arc<dyn ObjectStore>,
    tenant: TenantId,
    key: String,
    metadata: Arc<ParquetMetaData>,
    groups: Arc<[Group]>,
    /// The end of the object. Of a small batch it is all of it.
    tail: Fetched,
}

impl std::fmt::Debug for ColdFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ColdFile").field("key", &self.key).finish_non_exhaustive()
    }
}

impl ColdFile {
    /// Reads what the end of an object of `bytes` bytes says of the rest: one range, unless it is uncommonly long.
    ///
    /// # Errors
    /// `Corrupt` if it is no batch, or has no page index; `Budget`; `Object`.
    pub async fn open(
        objects: Arc<dyn ObjectStore>,
        tenant: &TenantId,
        key: &str,
        bytes: u64,
        cost: &mut Cost<'_>,
    ) -> Result<Self, ColdError> {
        let from = bytes.saturating_sub(limits::COLD_TAIL_BYTES);
        Self::open_from(objects, tenant, key, from..bytes, cost).await
    }

    /// The same; `have` is what is read of its end at first.
    async fn open_from(
        objects: Arc<dyn ObjectStore>,
        tenant: &TenantId,
        key: &str,
        mut have: Range<u64>,
        cost: &mut Cost<'_>,
    ) -> Result<Self, ColdError> {
        let corrupt = |error: ArchiveError| corrupt(key, error);
        let bytes = have.end;
        let mut tail = Fetched::default();
        fetch::fetch(&*objects, key, vec![have.clone()], &mut tail, cost).await?;
        let footer = footer(&tail, bytes).map_err(corrupt)?;
        if footer.start < have.start {
            fetch::fetch(&*objects, key, vec![footer.start..have.start], &mut tail, cost).await?;
            have.start = footer.start;
        }
        let text = tail.join(&footer).ok_or_else(|| corrupt(cut_off()))?;
        let (metadata, rows, indexes) = guard(|| {
            let metadata = ParquetMetaDataReader::decode_metadata(&text)?;
            let rows = check(&metadata)?;
            let indexes = index::place(&metadata, footer.start)?;
            Ok((metadata, rows, indexes))
        })
        .map_err(corrupt)?;
        if indexes.start < have.start {
            fetch::fetch(&*objects, key, vec![indexes.start..have.start], &mut tail, cost).await?;
            have.start = indexes.start;
        }
        // One piece, so that whatever lies in it is found.
        let whole = tail.join(&have).ok_or_else(|| corrupt(cut_off()))?;
        let tail = Fetched::of(have.start, whole);
        let groups = guard(|| index::groups(&metadata, &rows, &tail, footer.start)).map_err(corrupt)?;
        let (tenant, key) = (tenant.clone(), key.to_owned());
        Ok(Self { objects, tenant, key, metadata: Arc::new(metadata), groups: groups.into(), tail })
    }

    /// The same to be kept: it knows where things are, and nothing of what they are. Content that is erased from the object
    /// must not come out of a memory of it.
    pub(super) fn place_only(&self) -> Self {
        Self { tail: Fetched::default(), ..self.clone() }
    }

    /// About how many bytes it takes in memory.
    pub(super) fn weight(&self) -> usize {
        size_of::<Self>() + self.metadata.memory_size() + index::weight(&self.groups)
    }

    /// How many rows it says it has.
    pub fn row_count(&self) -> u64 {
        self.groups.last().map_or(0, |group| group.first_row + group.rows)
    }

    /// The event with this id, if it is here.
    ///
    /// # Errors
    /// `Corrupt`; `Budget`; `Object`.
    pub async fn by_id(&self, id: EventId, cost: &mut Cost<'_>) -> Result<Option<Event>, ColdError> {
        let mut buffer = [0; 36];
        let text = id.encode(&mut buffer);
        let rows = self.groups.iter().map(|group| group.with_text(EVENT_ID, &[text])).collect();
        let (mut found, mut fetched) = (None, self.tail.clone());
        for (group, rows) in self.may_hold(EVENT_ID, text, rows, &mut fetched, cost).await? {
            self.fetch_short(group, &rows, &mut fetched, cost).await?;
            self.narrow(group, &rows, &[EVENT_ID], &mut fetched, cost, |row, slab, at| {
                if slab.bytes(EVENT_ID, at) == Some(text.as_bytes()) {
                    found = found.or(Some(row));
                }
                Ok(())
            })
            .await?;
            if let Some(row) = found {
                return Ok(self.events_with(&[row], usize::MAX, &mut fetched, cost).await?.pop());
            }
        }
        Ok(None)
    }

    /// Up to `limit` events of a session from a sequence on, upwards or downwards, if that sequence is here; fewer rather
    /// than more than `bytes_max` of payload and metadata, but at least one.
    ///
    /// # Errors
    /// `Corrupt`; `Budget`; `Object`.
    pub async fn session(
        &self,
        session: &SessionId,
        (from, order): (Seq, Order),
        (limit, bytes_max): (usize, usize),
        cost: &mut Cost<'_>,
    ) -> Result<ColdSession, ColdError> {
        let (mut places, mut fetched): (Vec<(Seq, u64)>, _) = (Vec::new(), self.tail.clone());
        for (index, group) in self.groups.iter().enumerate() {
            // Rows are sorted by session: the page index says more than a bloom filter, and is at hand.
            let rows = group.with_text(SESSION_ID, &[session.as_str()]);
            if rows.is_empty() {
                cost.stats.row_groups_skipped += 1;
                continue;
            }
            self.fetch_short(index, &rows, &mut fetched, cost).await?;
            self.narrow(index, &rows, &[SESSION_ID, SEQUENCE], &mut fetched, cost, |row, slab, at| {
                if slab.bytes(SESSION_ID, at) == Some(session.as_str().as_bytes()) {
                    let sequence = u64::try_from(slab.number(SEQUENCE, at)?).ok().and_then(Seq::new);
                    let bad = || ArchiveError::Parquet("sequence is out of range".into());
                    places.push((sequence.ok_or_else(bad)?, row));
                }
                Ok(())
            })
            .await?;
        }
        places.sort_unstable();
        let ends = places.first().zip(places.last());
        let held = ends.map(|((first, _), (last, _))| *first..=*last);
        match order {
            Order::Asc => drop(places.drain(..places.partition_point(|(sequence, _)| *sequence < from))),
            Order::Desc => {
                places.truncate(places.partition_point(|(sequence, _)| *sequence <= from));
                places.reverse();
            }
        }
        if !held.as_ref().is_some_and(|held| held.contains(&from)) {
            return Ok(ColdSession { events: Vec::new(), next: None, held });
        }
        let rows: Vec<u64> = places.iter().take(limit).map(|(_, row)| *row).collect();
        let events = self.events_with(&rows, bytes_max, &mut fetched, cost).await?;
        let next = places.get(events.len()).map(|(sequence, _)| *sequence);
        Ok(ColdSession { events, next, held })
    }

    /// Those of the row groups whose bloom filter does not rule a value out, with the rows that may hold it.
    async fn may_hold(
        &self,
        column: usize,
        value: &str,
        rows: Vec<Vec<Range<u64>>>,
        fetched: &mut Fetched,
        cost: &mut Cost<'_>,
    ) -> Result<Vec<(usize, Vec<Range<u64>>)>, ColdError> {
        let mut left: Vec<_> = rows.into_iter().enumerate().filter(|(_, rows)| !rows.is_empty()).collect();
        let bloom = |group: usize| self.groups[group].columns[column].bloom.clone();
        let ranges = left.iter().filter_map(|(group, _)| bloom(*group)).collect();
        self.fetch(ranges, fetched, cost).await?;
        let absent = |group: usize| -> Result<bool, ArchiveError> {
            let Some(range) = bloom(group) else { return Ok(false) };
            let bytes = fetched.get(&range).ok_or_else(cut_off)?;
            Ok(!Sbbf::from_bytes(&bytes)?.check(value))
        };
        let mut kept = Vec::with_capacity(left.len());
        for (group, rows) in left.drain(..) {
            if !guard(|| absent(group)).map_err(|e| self.corrupt(e))? {
                kept.push((group, rows));
            }
        }
        cost.stats.row_groups_skipped += (self.groups.len() - kept.len()) as u64;
        Ok(kept)
    }

    /// Reads the short columns of rows, of which some are looked for, in one request: they lie side by side before the
    /// payloads, and what is found needs them all. Nothing if they are many.
    async fn fetch_short(
        &self,
        group: usize,
        rows: &[Range<u64>],
        fetched: &mut Fetched,
        cost: &mut Cost<'_>,
    ) -> Result<(), ColdError> {
        let short: Vec<usize> = (0..PAYLOAD).collect();
        let (ranges, _) = self.groups[group].pages_of(&short, rows);
        let bytes: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        if bytes > limits::COLD_SHORT_BYTES {
            return Ok(());
        }
        self.fetch(ranges, fetched, cost).await
    }

    /// Reads some columns of some rows of a group: calls `each` with the row's number in the file, and where it stands.
    /// What is in `fetched` is not read again, and what is read is added to it.
    async fn narrow(
        &self,
        group: usize,
        rows: &[Range<u64>],
        columns: &[usize],
        fetched: &mut Fetched,
        cost: &mut Cost<'_>,
        mut each: impl FnMut(u64, &Slab, usize) -> Result<(), ArchiveError>,
    ) -> Result<(), ColdError> {
        let this = &self.groups[group];
        let (ranges, skipped) = this.pages_of(columns, rows);
        cost.stats.pages_skipped += skipped;
        self.fetch(ranges, fetched, cost).await?;
        let count = guard(|| {
            let mut reader = Columns::of(&self.metadata, group, this, columns, fetched)?;
            let mut numbers = rows.iter().cloned().flatten();
            let mut count = 0;
            loop {
                let together: Vec<u64> = numbers.by_ref().take(reader.rows_at_once()).collect();
                if together.is_empty() {
                    return Ok(count);
                }
                let slab = reader.take(&together)?;
                count += together.len() as u64;
                for (at, row) in together.iter().enumerate() {
                    each(this.first_row + row, &slab, at)?;
                }
            }
        });
        cost.stats.rows_scanned += count.map_err(|e| self.corrupt(e))?;
        // Decoding is work without a pause; let others have the thread in between.
        tokio::task::yield_now().await;
        Ok(())
    }

    async fn fetch(
        &self,
        ranges: Vec<Range<u64>>,
        fetched: &mut Fetched,
        cost: &mut Cost<'_>,
    ) -> Result<(), ColdError> {
        fetch::fetch(&*self.objects, &self.key, ranges, fetched, cost).await
    }

    fn corrupt(&self, error: impl std::fmt::Display) -> ColdError {
        corrupt(&self.key, error)
    }
}

fn corrupt(key: &str, error: impl std::fmt::Display) -> ColdError {
    ColdError::Corrupt { key: key.to_owned(), why: error.to_string() }
}

fn cut_off() -> ArchiveError {
    ArchiveError::Parquet("the object is shorter than it should be".into())
}

/// Where the footer is, by the last bytes of a file.
fn footer(tail: &Fetched, file_bytes: u64) -> Result<Range<u64>, ArchiveError> {
    const MAGIC: &[u8] = b"PAR1";
    let end = file_bytes.checked_sub(TAIL_BYTES as u64).ok_or_else(cut_off)?;
    let last: Bytes = tail.get(&(end..file_bytes)).ok_or_else(cut_off)?;
    let (Some(length), Some(MAGIC)) = (last.first_chunk(), last.get(4..)) else {
        return Err(ArchiveError::Parquet("its end is not a Parquet file's".into()));
    };
    let length = u64::from(u32::from_le_bytes(*length));
    let limit = limits::ARCHIVE_FOOTER_BYTES_MAX;
    if length > limit {
        return Err(ArchiveError::TooLarge { what: "footer", limit, actual: length });
    }
    Ok(end.checked_sub(length).ok_or_else(cut_off)?..end)
}
