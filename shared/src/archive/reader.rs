//! Reads the rows of a batch back, from bytes that may be anybody's.
//!
//! The columns must be ours to the letter; what stands in them is handed over as it is, for the caller to judge:
//! [`Row`] has raw values, [`Row::event`] makes an event of them or says which field is against its syntax. Memory is
//! bounded whatever the file claims: pages are read through [`super::pages`], rows come a thousand at a time or fewer.
//! The Parquet library is not trusted to survive every input: a panic inside it is caught and becomes an error
//! (where panics unwind; the functions abort, and read only what they wrote).

use std::iter;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, RowGroups};
use parquet::arrow::{ProjectionMask, parquet_to_arrow_field_levels};
use parquet::column::page::PageIterator;
use parquet::file::metadata::{
    ColumnChunkMetaData, PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData,
};

use super::pages::{Chunk, Headers, Pages};
use super::row::{self, Row, Table};
use super::schema::{self, COLUMNS, Column, READ};
use super::{ArchiveError, FORMAT_KEY, FORMAT_VALUE, TENANT_KEY};
use crate::limits;

/// Last eight bytes of a Parquet file: the footer's length, then `PAR1`.
pub(super) const TAIL_BYTES: usize = 8;

/// A batch to be read.
pub struct BatchReader {
    file: Bytes,
    metadata: Arc<ParquetMetaData>,
    /// Number of rows of each row group.
    groups: Vec<u64>,
}

impl std::fmt::Debug for BatchReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BatchReader").field("groups", &self.groups).finish_non_exhaustive()
    }
}

impl BatchReader {
    /// Opens a file and checks its columns.
    ///
    /// # Errors
    /// If it is no Parquet file, or its columns are not those of docs/format.md, section 8.
    pub fn open(file: Bytes) -> Result<Self, ArchiveError> {
        let footer = file
            .last_chunk::<TAIL_BYTES>()
            .map_or(0, |tail| u64::from(u32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]])));
        if footer > limits::ARCHIVE_FOOTER_BYTES_MAX {
            let limit = limits::ARCHIVE_FOOTER_BYTES_MAX;
            return Err(ArchiveError::TooLarge { what: "footer", limit, actual: footer });
        }
        guard(|| {
            let metadata = ParquetMetaDataReader::new()
                .with_page_index_policy(PageIndexPolicy::Skip)
                .parse_and_finish(&file)?;
            let groups = check(&metadata)?;
            Ok(Self { file: file.clone(), metadata: Arc::new(metadata), groups })
        })
    }

    /// How many rows it says it has. A file that lies is found out by [`BatchReader::rows`], no later than at its end.
    pub fn row_count(&self) -> u64 {
        self.groups.iter().sum()
    }

    /// Whose it says it is.
    pub fn tenant(&self) -> Option<&str> {
        self.word(TENANT_KEY)
    }

    /// Whether it names our format.
    pub fn is_ours(&self) -> bool {
        self.word(FORMAT_KEY) == Some(FORMAT_VALUE)
    }

    fn word(&self, key: &str) -> Option<&str> {
        let words = self.metadata.file_metadata().key_value_metadata()?;
        words.iter().find(|word| word.key == key)?.value.as_deref()
    }

    /// The columns and what each takes of the file, bytes: its pages, and then its bloom filters.
    pub fn column_bytes(&self) -> Vec<(&'static str, u64, u64)> {
        let sum = |at: usize, of: fn(&ColumnChunkMetaData) -> i64| {
            let parts = self.metadata.row_groups().iter().map(|group| of(group.column(at)));
            parts.fold(0u64, |sum, bytes| sum.saturating_add(u64::try_from(bytes).unwrap_or(0)))
        };
        let bloom = |chunk: &ColumnChunkMetaData| chunk.bloom_filter_length().map_or(0, i64::from);
        let column =
            |(at, c): (usize, &Column)| (c.name, sum(at, |chunk| chunk.compressed_size()), sum(at, bloom));
        COLUMNS.iter().enumerate().map(column).collect()
    }

    /// Calls `each` with every row in order, until it breaks. Gives what it broke with.
    ///
    /// # Errors
    /// If the file is broken. Rows before the broken place may have been given already.
    pub fn rows<B>(
        &self,
        mut each: impl FnMut(&Row<'_>) -> ControlFlow<B>,
    ) -> Result<Option<B>, ArchiveError> {
        self.chunks(|rows| rows.iter().try_for_each(&mut each))
    }

    /// As [`Self::rows`], with some rows at a time: at least one, at most [`limits::ARCHIVE_ROWS_TOGETHER`].
    ///
    /// # Errors
    /// As [`Self::rows`].
    pub fn chunks<B>(
        &self,
        mut each: impl FnMut(&[Row<'_>]) -> ControlFlow<B>,
    ) -> Result<Option<B>, ArchiveError> {
        for index in 0..self.groups.len() {
            let mut reader = guard(|| self.group(index, ProjectionMask::all()))?;
            let mut left = self.groups[index];
            while let Some(batch) = guard(|| Ok(reader.next().transpose()?))? {
                let rows = batch.num_rows();
                left = left.checked_sub(rows as u64).ok_or_else(too_many)?;
                let columns = row::columns(&batch);
                let table = Table::of(&columns)?;
                let mut together = Vec::with_capacity(rows.min(limits::ARCHIVE_ROWS_TOGETHER));
                for from in (0..rows).step_by(limits::ARCHIVE_ROWS_TOGETHER) {
                    together.clear();
                    let to = rows.min(from + limits::ARCHIVE_ROWS_TOGETHER);
                    for at in from..to {
                        together.push(table.row(at)?);
                    }
                    if let ControlFlow::Break(end) = each(&together) {
                        return Ok(Some(end));
                    }
                }
            }
            if left != 0 {
                return Err(ArchiveError::Parquet(format!("row group {index} lacks {left} rows")));
            }
        }
        Ok(None)
    }

    /// Calls `each` with the hash of every row in order; no other column is read.
    ///
    /// # Errors
    /// If the file is broken, or a hash is not 32 bytes long.
    pub fn hashes(&self, mut each: impl FnMut(&[u8; 32])) -> Result<(), ArchiveError> {
        let column = COLUMNS.iter().position(|c| c.name == "hash").unwrap_or_default();
        for index in 0..self.groups.len() {
            let schema = self.metadata.file_metadata().schema_descr();
            let mut reader = guard(|| self.group(index, ProjectionMask::leaves(schema, [column])))?;
            let mut left = self.groups[index];
            while let Some(batch) = guard(|| Ok(reader.next().transpose()?))? {
                left = left.checked_sub(batch.num_rows() as u64).ok_or_else(too_many)?;
                for hash in row::bytes(&batch, 0)?.iter() {
                    let hash = hash.and_then(|h| h.try_into().ok());
                    each(hash.ok_or_else(|| ArchiveError::Parquet("a hash is not 32 bytes long".into()))?);
                }
            }
            if left != 0 {
                return Err(ArchiveError::Parquet(format!("row group {index} lacks {left} rows")));
            }
        }
        Ok(())
    }

    fn group(&self, index: usize, mask: ProjectionMask) -> Result<ParquetRecordBatchReader, ArchiveError> {
        let schema = self.metadata.file_metadata().schema_descr();
        let at_once = self.rows_at_once(index, &mask)?;
        let group = Group {
            file: self.file.clone(),
            metadata: Arc::clone(&self.metadata),
            index,
            rows: self.groups[index],
        };
        let levels = parquet_to_arrow_field_levels(schema, mask, Some(&READ))?;
        Ok(ParquetRecordBatchReader::try_new_with_row_groups(&levels, &group, at_once, None)?)
    }

    /// How many rows fit into memory at once: of each column the page with the longest values decides.
    pub(super) fn rows_at_once(&self, index: usize, mask: &ProjectionMask) -> Result<usize, ArchiveError> {
        let group = self.metadata.row_group(index);
        let mut row_bytes = 0;
        for (at, column) in COLUMNS.iter().enumerate().filter(|(at, _)| mask.leaf_included(*at)) {
            let mut headers = Headers::of(&self.file, group.column(at), self.groups[index])?;
            let mut longest = 0;
            while let Some((header, _)) = headers.next()? {
                longest = longest.max(header.value_bytes(column.kind));
            }
            row_bytes += longest;
        }
        Ok(rows_for(row_bytes))
    }
}

/// Checks the columns of a file, and what it says of its rows. Gives the number of rows of each row group.
pub(super) fn check(metadata: &ParquetMetaData) -> Result<Vec<u64>, ArchiveError> {
    schema::check(metadata.file_metadata().schema_descr())?;
    let mut groups = Vec::with_capacity(metadata.num_row_groups());
    for group in metadata.row_groups() {
        let rows = u64::try_from(group.num_rows()).ok();
        let rows = rows.filter(|r| *r > 0 && group.num_columns() == COLUMNS.len());
        groups.push(rows.ok_or_else(|| ArchiveError::Parquet("a row group without rows".into()))?);
    }
    let total = groups.iter().try_fold(0u64, |sum, rows| sum.checked_add(*rows));
    if total != u64::try_from(metadata.file_metadata().num_rows()).ok() {
        return Err(ArchiveError::Parquet("the row groups have other rows than the file".into()));
    }
    Ok(groups)
}

fn too_many() -> ArchiveError {
    ArchiveError::Parquet("a row group has more rows than it says".into())
}

/// How many rows are read at once that take so many bytes each.
pub(super) fn rows_for(row_bytes: usize) -> usize {
    (limits::ARCHIVE_READ_BYTES / row_bytes.max(1)).clamp(1, limits::ARCHIVE_READ_ROWS)
}

/// Runs what may panic on hostile bytes.
pub(super) fn guard<T>(work: impl FnOnce() -> Result<T, ArchiveError>) -> Result<T, ArchiveError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Err(ArchiveError::Parquet(format!("its reader gave up: {}", text.unwrap_or("no reason"))))
    })
}

/// One row group, to the Parquet library.
struct Group {
    file: Bytes,
    metadata: Arc<ParquetMetaData>,
    index: usize,
    rows: u64,
}

impl RowGroups for Group {
    fn num_rows(&self) -> usize {
        self.rows as usize
    }

    fn column_chunks(&self, i: usize) -> parquet::errors::Result<Box<dyn PageIterator>> {
        let chunk = self.metadata.row_group(self.index).column(i);
        Ok(Box::new(Chunk(Some(Pages::of(&self.file, chunk, self.rows)?))))
    }

    fn row_groups(&self) -> Box<dyn Iterator<Item = &RowGroupMetaData> + '_> {
        Box::new(iter::once(self.metadata.row_group(self.index)))
    }

    fn metadata(&self) -> &ParquetMetaData {
        &self.metadata
    }
}
