//! The pages of one column of one row group, from bytes that may be anybody's.
//!
//! The Parquet library believes what a page says of itself: it takes memory for as many values and bytes as a header
//! claims. So this module stands between: it reads the headers, bounds every size before it is used, undoes the
//! compression, and looks at the counts inside delta encodings. Only what our writer writes is read: data pages of
//! version 1 and dictionaries, plain or zstd.

use std::collections::VecDeque;

use bytes::Bytes;
use parquet::basic::{Compression, Encoding};
use parquet::column::page::{Page, PageIterator, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::page_index::index_reader::decode_offset_index;
use parquet::file::page_index::offset_index::OffsetIndexMetaData;

use super::schema::Kind;
use crate::limits;

fn bad(why: impl std::fmt::Display) -> ParquetError {
    ParquetError::General(why.to_string())
}

/// What a page's header says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub(super) dictionary: bool,
    /// Bytes after decompression.
    pub(super) unpacked: usize,
    /// Bytes in the file.
    packed: usize,
    values: u64,
    encoding: Encoding,
}

impl Header {
    /// Bytes that one of its values may take, once it is read; nothing for a dictionary.
    pub(super) fn value_bytes(&self, kind: Kind) -> usize {
        let values = match (kind, self.encoding) {
            _ if self.dictionary => return 0,
            // A value may repeat all of the page that stands before it.
            (Kind::Text | Kind::Bytes, Encoding::DELTA_BYTE_ARRAY) => 1,
            _ => self.values as usize,
        };
        self.unpacked.div_ceil(values)
    }
}

/// Walks the headers of a column chunk.
#[derive(Debug, Clone)]
pub(super) struct Headers {
    chunk: Bytes,
    at: usize,
    /// Values that are still to come.
    left: u64,
    begun: bool,
}

impl Headers {
    /// The pages of a chunk of `rows` rows.
    pub(super) fn of(file: &Bytes, chunk: &ColumnChunkMetaData, rows: u64) -> Result<Self> {
        let start = match chunk.dictionary_page_offset() {
            // Some writers set it to 0 where there is none.
            Some(offset) if offset > 0 => offset.min(chunk.data_page_offset()),
            _ => chunk.data_page_offset(),
        };
        let range = usize::try_from(start).ok().zip(usize::try_from(chunk.compressed_size()).ok());
        let range = range.and_then(|(start, length)| Some(start..start.checked_add(length)?));
        match range {
            Some(range) if range.end <= file.len() => {
                Ok(Self { chunk: file.slice(range), at: 0, left: rows, begun: false })
            }
            _ => Err(bad("a column lies outside the file")),
        }
    }

    /// The next header and the bytes of its page; `None` at the end of the chunk.
    pub(super) fn next(&mut self) -> Result<Option<(Header, Bytes)>> {
        if self.at == self.chunk.len() {
            return if self.left == 0 { Ok(None) } else { Err(bad("a column has fewer values than rows")) };
        }
        let mut thrift = Thrift { bytes: &self.chunk, at: self.at };
        let header = thrift.page_header()?;
        let end = thrift.at.checked_add(header.packed).filter(|end| *end <= self.chunk.len());
        let end = end.ok_or_else(|| bad("a page is cut off"))?;
        if header.dictionary {
            // The shortest value of a dictionary is an empty text: its length of four bytes.
            if self.begun || header.values > header.unpacked as u64 / 4 {
                return Err(bad("a dictionary is out of place or claims more values than it has bytes for"));
            }
        } else {
            let left = self.left.checked_sub(header.values).filter(|_| header.values > 0);
            self.left = left.ok_or_else(|| bad("a page is empty, or a column has more values than rows"))?;
        }
        let page = self.chunk.slice(thrift.at..end);
        (self.at, self.begun) = (end, true);
        Ok(Some((header, page)))
    }
}

/// Makes pages of what stands behind their headers.
struct Codec {
    /// Undoes zstd; none if the column is not compressed.
    zstd: Option<zstd::bulk::Decompressor<'static>>,
    /// Whether definition levels stand before the values.
    optional: bool,
}

impl Codec {
    fn of(chunk: &ColumnChunkMetaData) -> Result<Self> {
        let zstd = match chunk.compression() {
            Compression::UNCOMPRESSED => None,
            Compression::ZSTD(_) => Some(zstd::bulk::Decompressor::new().map_err(bad)?),
            other => return Err(bad(format!("compression {other} is not read"))),
        };
        Ok(Self { zstd, optional: chunk.column_descr().max_def_level() > 0 })
    }

    fn page(&mut self, header: &Header, page: Bytes) -> Result<Page> {
        let buf = self.unpack(header, page)?;
        let num_values = u32::try_from(header.values).map_err(bad)?;
        let encoding = header.encoding;
        if header.dictionary {
            return Ok(Page::DictionaryPage { buf, num_values, encoding, is_sorted: false });
        }
        self.check_values(header, &buf)?;
        Ok(Page::DataPage {
            buf,
            num_values,
            encoding,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        })
    }

    fn unpack(&mut self, header: &Header, page: Bytes) -> Result<Bytes> {
        let Some(zstd) = &mut self.zstd else {
            return if page.len() == header.unpacked { Ok(page) } else { Err(bad("a page has two lengths")) };
        };
        let mut out = Vec::with_capacity(header.unpacked);
        if header.unpacked > 0 {
            zstd.decompress_to_buffer(&page, &mut out).map_err(bad)?;
        }
        if out.len() == header.unpacked { Ok(out.into()) } else { Err(bad("a page has two lengths")) }
    }

    /// Bounds what the library will take memory for.
    fn check_values(&self, header: &Header, page: &[u8]) -> Result<()> {
        let levels = if self.optional {
            let length = page.first_chunk::<4>().map_or(usize::MAX, |b| u32::from_le_bytes(*b) as usize);
            length.saturating_add(4)
        } else {
            0
        };
        let values = page.get(levels..).ok_or_else(|| bad("definition levels are cut off"))?;
        // Of values that are all null, nothing is written.
        if values.is_empty() {
            return Ok(());
        }
        match header.encoding {
            Encoding::DELTA_BINARY_PACKED | Encoding::DELTA_LENGTH_BYTE_ARRAY => {
                delta_end(values, header.values).map(drop)
            }
            Encoding::DELTA_BYTE_ARRAY => {
                let lengths = delta_end(values, header.values)?;
                delta_end(&values[lengths..], header.values).map(drop)
            }
            Encoding::PLAIN | Encoding::RLE | Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY => Ok(()),
            other => Err(bad(format!("encoding {other} is not read"))),
        }
    }
}

/// Gives the pages of a whole column chunk to the Parquet library.
pub(super) struct Pages {
    headers: Headers,
    codec: Codec,
}

impl Pages {
    pub(super) fn of(file: &Bytes, chunk: &ColumnChunkMetaData, rows: u64) -> Result<Self> {
        Ok(Self { codec: Codec::of(chunk)?, headers: Headers::of(file, chunk, rows)? })
    }
}

impl PageReader for Pages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        let Some((header, page)) = self.headers.next()? else { return Ok(None) };
        self.codec.page(&header, page).map(Some)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        let next = self.headers.clone().next()?;
        Ok(next.map(|(header, _)| PageMetadata {
            num_rows: None,
            num_levels: (!header.dictionary).then_some(header.values as usize),
            is_dict: header.dictionary,
        }))
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.headers.next().map(drop)
    }

    /// No column repeats, so that every page begins with a row.
    fn at_record_boundary(&mut self) -> Result<bool> {
        Ok(true)
    }
}

impl Iterator for Pages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

/// One page of a column chunk, with its header, where it is at hand.
#[derive(Debug, Clone)]
pub(super) struct Part {
    /// Its rows; 0 of a dictionary.
    pub(super) rows: u64,
    /// Its bytes, if they were fetched.
    pub(super) bytes: Option<Bytes>,
}

impl Part {
    /// Its header and what stands behind it; `None` if it was not fetched.
    fn open(&self) -> Result<Option<(Header, Bytes)>> {
        let Some(bytes) = &self.bytes else { return Ok(None) };
        let mut headers = Headers { chunk: bytes.clone(), at: 0, left: self.rows, begun: false };
        let first = headers.next()?;
        if headers.next()?.is_some() || first.as_ref().is_some_and(|(h, _)| h.dictionary != (self.rows == 0))
        {
            return Err(bad("a page is not what the index says"));
        }
        Ok(first)
    }

    /// Its header; `None` if it was not fetched.
    pub(super) fn header(&self) -> Result<Option<Header>> {
        Ok(self.open()?.map(|(header, _)| header))
    }
}

/// Gives those pages of a column chunk that are at hand to the Parquet library. The others can only be skipped.
pub(super) struct Sparse {
    parts: VecDeque<Part>,
    codec: Codec,
}

impl Sparse {
    /// `parts` are all pages of the chunk, in order, the dictionary first if there is one.
    pub(super) fn of(chunk: &ColumnChunkMetaData, parts: Vec<Part>) -> Result<Self> {
        Ok(Self { parts: parts.into(), codec: Codec::of(chunk)? })
    }
}

impl PageReader for Sparse {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        let Some(part) = self.parts.pop_front() else { return Ok(None) };
        let (header, page) = part.open()?.ok_or_else(|| bad("a page that was not fetched"))?;
        self.codec.page(&header, page).map(Some)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        Ok(self.parts.front().map(|part| PageMetadata {
            num_rows: (part.rows > 0).then_some(part.rows as usize),
            num_levels: None,
            is_dict: part.rows == 0,
        }))
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.parts.pop_front();
        Ok(())
    }

    /// No column repeats, so that every page begins with a row.
    fn at_record_boundary(&mut self) -> Result<bool> {
        Ok(true)
    }
}

impl Iterator for Sparse {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

/// Reads an offset index. The library would take memory for as many pages as it claims.
pub(super) fn offset_index(bytes: &[u8]) -> Result<OffsetIndexMetaData> {
    /// Three numbers with their headers, and the end.
    const PAGE_BYTES_MIN: u64 = 7;
    /// The first field, a list.
    const FIELD: u8 = 0x19;
    let mut thrift = Thrift { bytes, at: 0 };
    let (field, list) = (thrift.byte()?, thrift.byte()?);
    let count = if list >> 4 == 15 { thrift.varint()? } else { u64::from(list >> 4) };
    if field != FIELD || count > bytes.len() as u64 / PAGE_BYTES_MIN {
        return Err(bad("an offset index claims more pages than it has bytes for"));
    }
    decode_offset_index(bytes)
}

/// The one chunk of a column.
pub(super) struct Chunk(pub(super) Option<Pages>);

impl Iterator for Chunk {
    type Item = Result<Box<dyn PageReader>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.take().map(|pages| Ok(Box::new(pages) as Box<dyn PageReader>))
    }
}

impl PageIterator for Chunk {}

/// Where a DELTA_BINARY_PACKED sequence ends (Parquet's Encodings.md), if it has no more than `values_max` values.
fn delta_end(bytes: &[u8], values_max: u64) -> Result<usize> {
    const BLOCK_VALUES_MAX: u64 = 4096;
    let cut = || bad("a delta encoding is cut off");
    let mut thrift = Thrift { bytes, at: 0 };
    let (block, parts, count) = (thrift.varint()?, thrift.varint()?, thrift.varint()?);
    thrift.varint()?;
    if count > values_max || block == 0 || block > BLOCK_VALUES_MAX || parts == 0 || block % (parts * 32) != 0
    {
        return Err(bad("a delta encoding claims more than its page may hold"));
    }
    let part_values = block / parts;
    let mut left = count.saturating_sub(1);
    while left > 0 {
        thrift.varint()?;
        let widths = thrift.take(parts as usize).ok_or_else(cut)?;
        for width in widths {
            if left == 0 {
                break;
            }
            if *width > 64 {
                return Err(bad("a delta encoding of more than 64 bits"));
            }
            // The last part may be cut short by writers other than ours, but never begins past the end.
            thrift.take((part_values * u64::from(*width) / 8) as usize).ok_or_else(cut)?;
            left = left.saturating_sub(part_values);
        }
    }
    Ok(thrift.at)
}

/// Thrift's compact protocol, as far as page headers go (parquet.thrift, PageHeader).
struct Thrift<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// Wire types of the compact protocol.
const TRUE: u8 = 1;
const FALSE: u8 = 2;
const I8: u8 = 3;
const I32: u8 = 5;
const I64: u8 = 6;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const STRUCT: u8 = 12;

impl<'a> Thrift<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(count)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn byte(&mut self) -> Result<u8> {
        self.take(1).map(|b| b[0]).ok_or_else(|| bad("a header is cut off"))
    }

    fn varint(&mut self) -> Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(bad("a number of more than 64 bits"))
    }

    fn size(&mut self) -> Result<u64> {
        let zigzag = self.varint()?;
        if zigzag & 1 == 0 { Ok(zigzag >> 1) } else { Err(bad("a size below zero")) }
    }

    /// The next field of a struct: its id and wire type; `None` at the struct's end.
    fn field(&mut self, last: &mut u64) -> Result<Option<(u64, u8)>> {
        let byte = self.byte()?;
        if byte == 0 {
            return Ok(None);
        }
        *last = match byte >> 4 {
            0 => self.size()?,
            delta => last.saturating_add(u64::from(delta)),
        };
        Ok(Some((*last, byte & 0xf)))
    }

    fn skip(&mut self, wire: u8, depth: u8) -> Result<()> {
        let fixed = match wire {
            TRUE | FALSE => 0,
            I8 => 1,
            4..=I64 => return self.varint().map(drop),
            DOUBLE => 8,
            BINARY => usize::try_from(self.varint()?).map_err(bad)?,
            STRUCT if depth > 0 => {
                let mut last = 0;
                while let Some((_, wire)) = self.field(&mut last)? {
                    self.skip(wire, depth - 1)?;
                }
                0
            }
            _ => return Err(bad("a header with something that no header has")),
        };
        self.take(fixed).map(drop).ok_or_else(|| bad("a header is cut off"))
    }

    /// The numbers of fields 1 and 2 of a struct of the header: count of values, encoding.
    fn values(&mut self) -> Result<(Option<u64>, Option<u64>)> {
        let (mut values, mut encoding, mut last) = (None, None, 0);
        while let Some((id, wire)) = self.field(&mut last)? {
            match (id, wire) {
                (1, I32) => values = Some(self.size()?),
                (2, I32) => encoding = Some(self.size()?),
                _ => self.skip(wire, 2)?,
            }
        }
        Ok((values, encoding))
    }

    fn page_header(&mut self) -> Result<Header> {
        let (mut kind, mut unpacked, mut packed, mut data, mut dictionary) = (None, None, None, None, None);
        let mut last = 0;
        while let Some((id, wire)) = self.field(&mut last)? {
            match (id, wire) {
                (1, I32) => kind = Some(self.size()?),
                (2, I32) => unpacked = Some(self.size()?),
                (3, I32) => packed = Some(self.size()?),
                (5, STRUCT) => data = Some(self.values()?),
                (7, STRUCT) => dictionary = Some(self.values()?),
                _ => self.skip(wire, 3)?,
            }
        }
        let (Some(kind), Some(unpacked), Some(packed)) = (kind, unpacked, packed) else {
            return Err(bad("a page's header lacks its sizes"));
        };
        let limit = limits::ARCHIVE_PAGE_READ_BYTES_MAX as u64;
        if unpacked > limit || packed > limit {
            return Err(bad(format!("a page of {} bytes, at most {limit}", unpacked.max(packed))));
        }
        // PageType: 0 is a data page of version 1, 2 a dictionary.
        let dictionary = match (kind, data, dictionary) {
            (0, Some(data), None) => Ok((false, data)),
            (2, None, Some(dictionary)) => Ok((true, dictionary)),
            _ => Err(bad("a page of a kind that is not read")),
        };
        let (dictionary, (Some(values), Some(encoding))) = dictionary? else {
            return Err(bad("a page's header lacks its values"));
        };
        let values_max = limits::ARCHIVE_PAGE_VALUES_MAX;
        if values > values_max {
            return Err(bad(format!("a page of {values} values, at most {values_max}")));
        }
        let encoding = match encoding {
            0 => Encoding::PLAIN,
            2 => Encoding::PLAIN_DICTIONARY,
            3 => Encoding::RLE,
            5 => Encoding::DELTA_BINARY_PACKED,
            6 => Encoding::DELTA_LENGTH_BYTE_ARRAY,
            7 => Encoding::DELTA_BYTE_ARRAY,
            8 => Encoding::RLE_DICTIONARY,
            other => return Err(bad(format!("encoding {other} is not read"))),
        };
        // The limit is far below 32 bits.
        Ok(Header { dictionary, unpacked: unpacked as usize, packed: packed as usize, values, encoding })
    }
}
