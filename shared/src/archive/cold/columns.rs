//! Values of single rows, out of the pages that were fetched.

use parquet::column::reader::{ColumnReader, ColumnReaderImpl, get_column_reader};
use parquet::data_type::{ByteArray, DataType};
use parquet::file::metadata::ParquetMetaData;

use super::fetch::Fetched;
use super::index::{EVENT_COLUMNS, Group};
use crate::archive::ArchiveError;
use crate::archive::derived::Derived;
use crate::archive::pages::Sparse;
use crate::archive::reader::rows_for;
use crate::archive::row::Row;
use crate::archive::schema::COLUMNS;
use crate::limits;

/// Some columns of a row group, to be read once from front to back.
pub(super) struct Columns {
    columns: Vec<Values>,
    rows_at_once: usize,
}

impl Columns {
    pub(super) fn of(
        metadata: &ParquetMetaData,
        index: usize,
        group: &Group,
        columns: &[usize],
        fetched: &Fetched,
    ) -> Result<Self, ArchiveError> {
        let (mut row_bytes, mut unpacked) = (0, 0);
        let mut readers = Vec::with_capacity(columns.len());
        for &column in columns {
            let chunk = metadata.row_group(index).column(column);
            let parts = group.columns[column].parts(fetched);
            let mut longest = 0;
            for part in &parts {
                if let Some(header) = part.header()? {
                    longest = longest.max(header.value_bytes(COLUMNS[column].kind));
                    unpacked += header.unpacked as u64;
                }
            }
            row_bytes += longest;
            let pages = Box::new(Sparse::of(chunk, parts)?);
            let reader = get_column_reader(chunk.column_descr_ptr(), pages);
            readers.push(Values { column, reader, at: 0, pages: group.columns[column].first_rows() });
        }
        let limit = limits::COLD_UNPACKED_BYTES_MAX;
        if unpacked > limit {
            return Err(ArchiveError::TooLarge { what: "pages of a row group", limit, actual: unpacked });
        }
        Ok(Self { columns: readers, rows_at_once: rows_for(row_bytes) })
    }

    /// How many rows may be taken at once.
    pub(super) fn rows_at_once(&self) -> usize {
        self.rows_at_once
    }

    /// Reads rows: numbers in the group, each higher than all before it.
    pub(super) fn take(&mut self, rows: &[u64]) -> Result<Slab, ArchiveError> {
        let mut slab = Slab(std::array::from_fn(|_| Cells::None));
        for values in &mut self.columns {
            slab.0[values.column] = values.take(rows, self.rows_at_once as u64)?;
        }
        Ok(slab)
    }
}

/// A column that is read.
struct Values {
    column: usize,
    reader: ColumnReader,
    /// The row that it stands before.
    at: u64,
    /// First rows of its pages.
    pages: Vec<u64>,
}

impl Values {
    fn take(&mut self, rows: &[u64], step: u64) -> Result<Cells, ArchiveError> {
        let Self { reader, at, pages, column } = self;
        match reader {
            ColumnReader::ByteArrayColumnReader(reader) => {
                Ok(Cells::Bytes(read(reader, at, pages, rows, step, COLUMNS[*column].required)?))
            }
            ColumnReader::Int64ColumnReader(reader) => {
                let values = read(reader, at, pages, rows, step, true)?;
                Ok(Cells::Numbers(values.into_iter().flatten().collect()))
            }
            _ => Err(ArchiveError::Columns(format!("column {column} came back as another type"))),
        }
    }
}

fn read<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    at: &mut u64,
    pages: &[u64],
    rows: &[u64],
    step: u64,
    required: bool,
) -> Result<Vec<Option<T::T>>, ArchiveError> {
    let short = || ArchiveError::Parquet("a column has fewer values than rows".into());
    let mut out = Vec::with_capacity(rows.len());
    let (mut values, mut levels) = (Vec::new(), Vec::new());
    for run in rows.chunk_by(|a, b| a + 1 == *b) {
        let start = run[0];
        // To the page first, as those between are not at hand. Then a few rows at a time: values that are skipped are
        // made too, and may be much longer than what they are made of.
        let page = pages[pages.partition_point(|first| *first <= start) - 1];
        while *at < start {
            let gap = if *at < page { page - *at } else { step.min(start - *at) };
            if reader.skip_records(gap as usize)? as u64 != gap {
                return Err(short());
            }
            *at += gap;
        }
        values.clear();
        levels.clear();
        let mut left = run.len();
        while left > 0 {
            let (records, _, _) = reader.read_records(left, Some(&mut levels), None, &mut values)?;
            if records == 0 {
                return Err(short());
            }
            left -= records;
        }
        *at += run.len() as u64;
        let mut found = values.drain(..);
        if required {
            out.extend(found.map(Some));
        } else {
            out.extend(levels.iter().map(|level| if *level > 0 { found.next() } else { None }));
        }
    }
    if out.len() == rows.len() { Ok(out) } else { Err(short()) }
}

/// Values of a column.
enum Cells {
    /// It was not asked for.
    None,
    Bytes(Vec<Option<ByteArray>>),
    Numbers(Vec<i64>),
}

/// Values of some rows, in their order.
pub(super) struct Slab([Cells; EVENT_COLUMNS]);

impl Slab {
    pub(super) fn bytes(&self, column: usize, at: usize) -> Option<&[u8]> {
        match &self.0[column] {
            Cells::Bytes(values) => values.get(at)?.as_ref().map(ByteArray::data),
            _ => None,
        }
    }

    pub(super) fn text_or_null(&self, column: usize, at: usize) -> Result<Option<&str>, ArchiveError> {
        let text = self.bytes(column, at).map(std::str::from_utf8).transpose();
        text.map_err(|_| ArchiveError::Parquet(format!("{} is not UTF-8", COLUMNS[column].name)))
    }

    pub(super) fn text(&self, column: usize, at: usize) -> Result<&str, ArchiveError> {
        self.text_or_null(column, at)?.ok_or_else(|| absent(column))
    }

    pub(super) fn number(&self, column: usize, at: usize) -> Result<i64, ArchiveError> {
        match &self.0[column] {
            Cells::Numbers(values) => values.get(at).copied().ok_or_else(|| absent(column)),
            _ => Err(absent(column)),
        }
    }

    /// A row whose columns were all read; what is derived is left out.
    pub(super) fn row(&self, at: usize) -> Result<Row<'_>, ArchiveError> {
        Ok(Row {
            session_id: self.text(0, at)?,
            sequence: self.number(1, at)?,
            event_id: self.text(2, at)?,
            commit_id: self.text(3, at)?,
            timestamp: self.number(4, at)?,
            timestamp_us: self.number(5, at)?,
            received_at: self.number(6, at)?,
            received_at_us: self.number(7, at)?,
            agent_id: self.text(8, at)?,
            event_type: self.text(9, at)?,
            severity: self.text(10, at)?,
            source_id: self.text_or_null(11, at)?,
            compliance_tag: self.text(12, at)?,
            pii_types: self.text(13, at)?,
            redaction_count: self.number(14, at)?,
            redaction_policy: self.bytes(15, at),
            payload: self.text_or_null(16, at)?,
            metadata: self.text_or_null(17, at)?,
            salt: self.bytes(18, at),
            content_digest: self.bytes(19, at),
            prev_hash: self.bytes(20, at),
            hash: self.bytes(21, at).ok_or_else(|| absent(21))?,
            derived: Derived::default(),
        })
    }
}

fn absent(column: usize) -> ArchiveError {
    ArchiveError::Parquet(format!("{} is null", COLUMNS[column].name))
}
