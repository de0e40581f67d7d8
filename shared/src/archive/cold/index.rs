//! Where the pages of a batch are and what they may hold, by its footer and its page index.
//!
//! Nothing here is believed beyond what it is good for: places lie inside the file, in order, without overlap, and
//! pages cover the rows of their group. Whether a page is what its place says is checked where it is opened.

use std::ops::{Range, RangeInclusive};

use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::page_index::index_reader::decode_column_index;

use super::cut_off;
use super::fetch::Fetched;
use crate::archive::ArchiveError;
use crate::archive::pages::{self, Part};
use crate::limits;

/// Places of columns in [`crate::archive::schema::COLUMNS`].
pub(super) const SESSION_ID: usize = 0;
pub(super) const SEQUENCE: usize = 1;
pub(super) const EVENT_ID: usize = 2;
pub(super) const TIMESTAMP: usize = 4;
pub(super) const AGENT_ID: usize = 8;
pub(super) const EVENT_TYPE: usize = 9;
pub(super) const SEVERITY: usize = 10;
pub(super) const PAYLOAD: usize = 16;
pub(super) const METADATA: usize = 17;
pub(super) const HASH: usize = 21;

/// How many columns make an event; those after them are derived from it.
pub(super) const EVENT_COLUMNS: usize = 22;

/// A row group.
pub(super) struct Group {
    /// Number of its first row in the file.
    pub(super) first_row: u64,
    /// How many rows.
    pub(super) rows: u64,
    /// The columns of an event.
    pub(super) columns: Vec<Column>,
}

/// A column of a row group.
pub(super) struct Column {
    dictionary: Option<Range<u64>>,
    pages: Vec<Page>,
    bounds: Option<ColumnIndexMetaData>,
    /// Where its bloom filter is.
    pub(super) bloom: Option<Range<u64>>,
}

struct Page {
    rows: Range<u64>,
    bytes: Range<u64>,
}

fn bad(why: &str) -> ArchiveError {
    ArchiveError::Parquet(why.to_owned())
}

/// A range by two numbers of a footer, if they make one that ends by `end`.
fn range(start: Option<i64>, length: Option<i64>, end: u64) -> Result<Range<u64>, ArchiveError> {
    let place = || {
        let start = u64::try_from(start?).ok()?;
        let range = start..start.checked_add(u64::try_from(length?).ok()?)?;
        (range.end <= end).then_some(range)
    };
    place().ok_or_else(|| bad("a part of it lies outside the file, or is not named"))
}

/// A chunk's offset index and, if it has one, its column index.
fn indexes(chunk: &ColumnChunkMetaData, end: u64) -> Result<(Range<u64>, Option<Range<u64>>), ArchiveError> {
    let offsets = range(chunk.offset_index_offset(), chunk.offset_index_length().map(i64::from), end)?;
    let bounds = chunk
        .column_index_offset()
        .map(|start| range(Some(start), chunk.column_index_length().map(i64::from), end));
    Ok((offsets, bounds.transpose()?))
}

/// Where the indexes of an event's columns are; they end by `end`.
pub(super) fn place(metadata: &ParquetMetaData, end: u64) -> Result<Range<u64>, ArchiveError> {
    let mut start = end;
    for group in metadata.row_groups() {
        for chunk in &group.columns()[..EVENT_COLUMNS] {
            let (offsets, bounds) = indexes(chunk, end)?;
            start = start.min(offsets.start).min(bounds.map_or(end, |bounds| bounds.start));
        }
    }
    let limit = limits::COLD_INDEX_BYTES_MAX;
    if end - start > limit {
        return Err(ArchiveError::TooLarge { what: "page index", limit, actual: end - start });
    }
    Ok(start..end)
}

/// The row groups; `rows` are their numbers of rows. No page ends after `end`.
pub(super) fn groups(
    metadata: &ParquetMetaData,
    rows: &[u64],
    tail: &Fetched,
    end: u64,
) -> Result<Vec<Group>, ArchiveError> {
    let mut first_row = 0;
    let mut groups = Vec::with_capacity(rows.len());
    for (group, rows) in metadata.row_groups().iter().zip(rows) {
        let columns = group.columns()[..EVENT_COLUMNS].iter().map(|chunk| column(chunk, *rows, tail, end));
        groups.push(Group { first_row, rows: *rows, columns: columns.collect::<Result<_, _>>()? });
        first_row += rows;
    }
    Ok(groups)
}

fn column(chunk: &ColumnChunkMetaData, rows: u64, tail: &Fetched, end: u64) -> Result<Column, ArchiveError> {
    let (offsets, bounds) = indexes(chunk, end)?;
    let offsets = pages::offset_index(&tail.get(&offsets).ok_or_else(cut_off)?)?;
    let start = match chunk.dictionary_page_offset() {
        // Some writers set it to 0 where there is none.
        Some(offset) if offset > 0 => offset.min(chunk.data_page_offset()),
        _ => chunk.data_page_offset(),
    };
    let place = range(Some(start), Some(chunk.compressed_size()), end)?;
    let mut pages: Vec<Page> = Vec::with_capacity(offsets.page_locations().len());
    let mut from = place.start;
    let firsts = offsets.page_locations().iter().skip(1).map(|next| u64::try_from(next.first_row_index).ok());
    let ends = firsts.chain([Some(rows)]);
    let mut row = 0;
    for (page, next) in offsets.page_locations().iter().zip(ends) {
        let bytes = range(Some(page.offset), Some(i64::from(page.compressed_page_size)), place.end)?;
        let next = next.filter(|next| *next > row && *next <= rows);
        let (Some(next), true) = (next, bytes.start >= from && page.first_row_index == row as i64) else {
            return Err(bad("an offset index that contradicts itself"));
        };
        (from, row) = (bytes.end, next);
        pages.push(Page { rows: page.first_row_index as u64..next, bytes });
    }
    let Some(first) = pages.first().filter(|_| row == rows) else {
        return Err(bad("an offset index that lacks rows"));
    };
    let dictionary = Some(place.start..first.bytes.start).filter(|range| !range.is_empty());
    let bounds = bounds.map(|range| {
        let bytes = tail.get(&range).ok_or_else(cut_off)?;
        Ok::<_, ArchiveError>(decode_column_index(&bytes, chunk.column_type())?)
    });
    // Bounds of other pages say nothing of these.
    let bounds = bounds.transpose()?.filter(|bounds| bounds.num_pages() == pages.len() as u64);
    let bloom = chunk.bloom_filter_offset().zip(chunk.bloom_filter_length());
    let bloom = bloom.map(|(start, length)| range(Some(start), Some(i64::from(length)), end)).transpose()?;
    let limit = limits::COLD_BLOOM_BYTES_MAX;
    if let Some(actual) = bloom.as_ref().map(|b| b.end - b.start).filter(|actual| *actual > limit) {
        return Err(ArchiveError::TooLarge { what: "bloom filter", limit, actual });
    }
    Ok(Column { dictionary, pages, bounds, bloom })
}

impl Column {
    fn rows_where(&self, may: impl Fn(&ColumnIndexMetaData, usize) -> bool) -> Vec<Range<u64>> {
        let mut rows: Vec<Range<u64>> = Vec::new();
        for (at, page) in self.pages.iter().enumerate() {
            if self.bounds.as_ref().is_none_or(|bounds| may(bounds, at)) {
                match rows.last_mut() {
                    Some(last) if last.end == page.rows.start => last.end = page.rows.end,
                    _ => rows.push(page.rows.clone()),
                }
            }
        }
        rows
    }

    /// All its pages, with the bytes of those that were fetched.
    pub(super) fn parts(&self, fetched: &Fetched) -> Vec<Part> {
        let dictionary = self.dictionary.iter().map(|range| Part { rows: 0, bytes: fetched.get(range) });
        let pages = self.pages.iter().map(|page| {
            let rows = page.rows.end - page.rows.start;
            Part { rows, bytes: fetched.get(&page.bytes) }
        });
        dictionary.chain(pages).collect()
    }

    /// First rows of its pages.
    pub(super) fn first_rows(&self) -> Vec<u64> {
        self.pages.iter().map(|page| page.rows.start).collect()
    }

    /// Index of the page that holds a row.
    pub(super) fn page_of(&self, row: u64) -> usize {
        self.pages.partition_point(|page| page.rows.end <= row)
    }
}

impl Group {
    /// All its rows.
    pub(super) fn all(&self) -> Vec<Range<u64>> {
        vec![0..self.rows]
    }

    /// The rows whose pages may hold one of these texts in a column.
    pub(super) fn with_text<T: AsRef<str>>(&self, column: usize, texts: &[T]) -> Vec<Range<u64>> {
        self.columns[column].rows_where(|bounds, page| {
            let ColumnIndexMetaData::BYTE_ARRAY(bounds) = bounds else { return true };
            let (Some(min), Some(max)) = (bounds.min_value(page), bounds.max_value(page)) else {
                return true;
            };
            texts.iter().any(|text| (min..=max).contains(&text.as_ref().as_bytes()))
        })
    }

    /// The rows whose pages may hold a number of this range in a column.
    pub(super) fn with_number(&self, column: usize, wanted: &RangeInclusive<i64>) -> Vec<Range<u64>> {
        self.columns[column].rows_where(|bounds, page| {
            let ColumnIndexMetaData::INT64(bounds) = bounds else { return true };
            let (Some(min), Some(max)) = (bounds.min_value(page), bounds.max_value(page)) else {
                return true;
            };
            min <= wanted.end() && max >= wanted.start()
        })
    }

    /// Where the pages are that hold some rows of some columns, and how many pages of these columns do not.
    pub(super) fn pages_of(&self, columns: &[usize], rows: &[Range<u64>]) -> (Vec<Range<u64>>, u64) {
        let (mut ranges, mut skipped) = (Vec::new(), 0);
        for column in columns.iter().map(|column| &self.columns[*column]) {
            let before = ranges.len();
            for page in &column.pages {
                let at = rows.partition_point(|range| range.end <= page.rows.start);
                if rows.get(at).is_some_and(|range| range.start < page.rows.end) {
                    ranges.push(page.bytes.clone());
                } else {
                    skipped += 1;
                }
            }
            if ranges.len() > before {
                ranges.extend(column.dictionary.clone());
            }
        }
        (ranges, skipped)
    }
}

/// About how many bytes the row groups take in memory: places and, of most columns, bounds of each page.
pub(super) fn weight(groups: &[Group]) -> usize {
    const BOUNDS: usize = 100;
    let pages = |column: &Column| {
        column.pages.len() * (size_of::<Page>() + column.bounds.as_ref().map_or(0, |_| BOUNDS))
    };
    groups.iter().flat_map(|group| &group.columns).map(|column| size_of::<Column>() + pages(column)).sum()
}

/// The rows that are in both, each in order.
pub(super) fn both(a: &[Range<u64>], b: &[Range<u64>]) -> Vec<Range<u64>> {
    let (mut i, mut j) = (0, 0);
    let mut out = Vec::new();
    while let (Some(x), Some(y)) = (a.get(i), b.get(j)) {
        let range = x.start.max(y.start)..x.end.min(y.end);
        if !range.is_empty() {
            out.push(range);
        }
        if x.end < y.end { i += 1 } else { j += 1 }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::schema::COLUMNS;

    #[test]
    fn columns_have_their_places() {
        let named = [
            (SESSION_ID, "session_id"),
            (SEQUENCE, "sequence"),
            (EVENT_ID, "event_id"),
            (TIMESTAMP, "timestamp"),
            (AGENT_ID, "agent_id"),
            (EVENT_TYPE, "event_type"),
            (SEVERITY, "severity"),
            (PAYLOAD, "payload"),
            (METADATA, "metadata"),
            (HASH, "hash"),
            (EVENT_COLUMNS, "tool_name"),
        ];
        for (place, name) in named {
            assert_eq!(COLUMNS[place].name, name);
        }
    }

    #[test]
    fn rows_in_both() {
        assert_eq!(both(&[0..4, 6..9], &[2..7, 8..20]), [2..4, 6..7, 8..9]);
        assert_eq!(both(&[0..4], &[4..6]), []);
    }
}
