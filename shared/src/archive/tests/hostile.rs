//! Files that nobody of ours wrote: each gives an error or rows, never a panic, never memory without bounds.

use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use bytes::Bytes;
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::{BatchReader, read, samples, write};
use crate::archive::ArchiveError;
use crate::archive::schema::WRITTEN;

#[test]
fn a_cut_file_is_no_batch() {
    let file = write(&samples(2, 30));
    for length in 0..file.len() {
        assert!(read(file.slice(..length)).is_err(), "cut at {length}");
    }
}

#[test]
fn no_flipped_bit_brings_the_reader_down() {
    let file = write(&samples(2, 30));
    let rows = read(file.clone()).unwrap();
    let (mut refused, mut changed, mut same) = (0, 0, 0);
    // Every byte with optimization; without it that takes minutes, so every seventh.
    let step = if cfg!(debug_assertions) { 7 } else { 1 };
    for at in (0..file.len()).step_by(step) {
        let mut bytes = file.to_vec();
        bytes[at] ^= 1 << (at % 8);
        match read(bytes.into()) {
            Err(_) => refused += 1,
            Ok(found) if found != rows => {
                assert_eq!(found.len(), rows.len(), "byte {at}");
                changed += 1;
            }
            // What nobody reads back: statistics, indexes, bloom filters.
            Ok(_) => same += 1,
        }
    }
    let least = |count: usize| count / step;
    let seen = refused > least(1000) && changed > least(1000) && same > least(100);
    assert!(seen, "{refused} {changed} {same}");
}

#[test]
fn no_replaced_stretch_brings_the_reader_down() {
    let file = write(&samples(1, 40));
    for at in (0..file.len() - 8).step_by(if cfg!(debug_assertions) { 17 } else { 3 }) {
        for stretch in [[0xff; 8], [0x00; 8], [0xff, 0xff, 0xff, 0xff, 0x0f, 0xff, 0xff, 0x7f]] {
            let mut bytes = file.to_vec();
            bytes[at..at + 8].copy_from_slice(&stretch);
            if let Ok(rows) = read(bytes.into()) {
                assert_eq!(rows.len(), 40, "byte {at}");
            }
        }
    }
}

/// A file of our columns but for what `change` does to them, without rows.
fn with_columns(change: impl FnOnce(&mut Vec<Field>)) -> Result<BatchReader, ArchiveError> {
    let mut fields: Vec<Field> = WRITTEN.fields().iter().map(|f| f.as_ref().clone()).collect();
    change(&mut fields);
    let writer = ArrowWriter::try_new(Vec::new(), Arc::new(Schema::new(fields)), None).unwrap();
    BatchReader::open(Bytes::from(writer.into_inner().unwrap()))
}

#[test]
fn other_columns_are_refused() {
    assert!(with_columns(|_| ()).is_ok());
    let refused = |change: fn(&mut Vec<Field>)| {
        let error = with_columns(change).unwrap_err();
        assert!(matches!(error, ArchiveError::Columns(_)), "{error}");
        error.to_string()
    };
    assert!(refused(|f| f.swap(0, 2)).contains("session_id"));
    assert!(refused(|f| drop(f.pop())).contains("33 columns"));
    assert!(refused(|f| f.push(Field::new("more", DataType::Utf8, true))).contains("35 columns"));
    refused(|f| f[16] = Field::new("payload", DataType::Utf8, false));
    refused(|f| f[21] = Field::new("hash", DataType::Binary, true));
    refused(|f| f[21] = Field::new("hash", DataType::FixedSizeBinary(32), false));
    refused(|f| f[16] = Field::new("payload", DataType::Binary, true));
    refused(|f| f[5] = Field::new("timestamp_us", DataType::UInt64, false));
    refused(|f| f[5] = Field::new("timestamp_us", DataType::Int32, false));
    refused(|f| f[4] = f[4].clone().with_data_type(DataType::Int64));
    let local = DataType::Timestamp(arrow_schema::TimeUnit::Microsecond, None);
    assert!(with_columns(|f| f[4] = Field::new("timestamp", local, false)).is_err());
    refused(|f| f[29] = Field::new("cost_usd", DataType::Decimal128(38, 11), true));
    refused(|f| f[0] = Field::new_list("session_id", Field::new("item", DataType::Utf8, false), false));
}

/// A file of our columns with one row but for `payload`, written as somebody else would.
fn foreign(payload: &str, rows: usize, properties: WriterProperties) -> Bytes {
    let columns = WRITTEN.fields().iter().map(|field| -> ArrayRef {
        if field.name() == "payload" {
            return Arc::new(StringArray::from_iter_values(std::iter::repeat_n(payload, rows)));
        }
        match field.data_type() {
            _ if field.is_nullable() => arrow_array::new_null_array(field.data_type(), rows),
            DataType::Utf8 => Arc::new(StringArray::from_iter_values(std::iter::repeat_n("x", rows))),
            DataType::Int64 => Arc::new(Int64Array::from(vec![7; rows])),
            DataType::Binary => Arc::new(arrow_array::BinaryArray::from_iter_values(vec![[1u8; 32]; rows])),
            _ => Arc::new(arrow_array::TimestampMicrosecondArray::from(vec![7; rows]).with_timezone("UTC")),
        }
    });
    let batch = RecordBatch::try_new(Arc::clone(&WRITTEN), columns.collect()).unwrap();
    let mut writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&WRITTEN), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap().into()
}

#[test]
fn another_writers_file_of_our_columns_is_read() {
    let file = foreign("{}", 30_000, WriterProperties::builder().build());
    assert_eq!(read(file).unwrap().len(), 30_000);
}

#[test]
fn a_page_that_unpacks_to_much_is_refused() {
    let zstd = Compression::ZSTD(ZstdLevel::try_new(3).unwrap());
    let properties = WriterProperties::builder()
        .set_compression(zstd)
        .set_dictionary_enabled(false)
        .set_data_page_size_limit(1 << 30)
        .build();
    let file = foreign(&"0".repeat(1 << 20), 64, properties);
    assert!(file.len() < 1 << 20, "64 MiB in {} bytes", file.len());
    let error = read(file).unwrap_err().to_string();
    assert!(error.contains("a page of"), "{error}");
}

/// A delta encoding lets each value repeat the one before: a small page becomes a gigabyte, unless few rows are read at
/// once.
#[test]
fn values_that_repeat_what_stands_before_are_read_a_few_at_a_time() {
    let properties = WriterProperties::builder()
        .set_dictionary_enabled(false)
        .set_data_page_size_limit(1 << 30)
        .set_column_encoding("payload".into(), Encoding::DELTA_BYTE_ARRAY)
        .build();
    let file = foreign(&"0".repeat(256 << 10), 200, properties);
    assert!(file.len() < 1 << 20, "50 MiB in {} bytes", file.len());
    let reader = BatchReader::open(file.clone()).unwrap();
    assert_eq!(reader.rows_at_once(0, &ProjectionMask::all()), Ok(63), "16 MiB of values of 256 KiB");
    assert_eq!(read(file).unwrap().len(), 200);
    let ours = BatchReader::open(write(&samples(4, 1000))).unwrap();
    assert_eq!(ours.rows_at_once(0, &ProjectionMask::all()), Ok(1024));
}
