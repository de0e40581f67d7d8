//! Parquet files with single values changed, as somebody would who has a Parquet library at hand.

use std::sync::Arc;

use arrow_array::{
    Array as _, ArrayRef, BinaryArray, BooleanArray, Decimal128Array, Float64Array, Int64Array, RecordBatch,
    StringArray, TimestampMicrosecondArray,
};
use arrow_schema::{DataType, Field, Schema};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::arrow_writer::ArrowWriterOptions;

/// What is done to a file.
#[derive(Debug, Clone)]
pub enum Change {
    /// Another text in a row of a column; `None` is null.
    Text(&'static str, usize, Option<&'static str>),
    /// Other bytes.
    Bytes(&'static str, usize, Option<Vec<u8>>),
    /// So much more, in a column of numbers, times or costs.
    Add(&'static str, usize, i64),
    /// The other truth, or another double.
    Flip(&'static str, usize),
    /// Null, in a column of numbers.
    Null(&'static str, usize),
    /// Rows by their numbers: dropped, doubled, in another order.
    Rows(Vec<usize>),
    /// A column that may hold nulls, although it must not.
    Optional(&'static str),
    /// A column more.
    More,
    /// A column under another name.
    Renamed(&'static str, &'static str),
    /// The columns in another order.
    Swapped,
}

/// Makes a changed copy of a file.
pub fn changed(file: &Bytes, changes: &[Change]) -> Bytes {
    let reader = ParquetRecordBatchReaderBuilder::try_new(file.clone()).expect("a Parquet file");
    let reader = reader.with_batch_size(1 << 20).build().expect("a Parquet file");
    let batches: Vec<RecordBatch> = reader.map(|batch| batch.expect("rows")).collect();
    let [batch] = &batches[..] else { panic!("a sample's batch is read at once") };
    let mut fields: Vec<Field> = batch.schema().fields().iter().map(|field| field.as_ref().clone()).collect();
    let mut columns = batch.columns().to_vec();
    let mut order: Vec<usize> = (0..batch.num_rows()).collect();
    for change in changes {
        let at = |name: &str| fields.iter().position(|f| f.name() == name).expect("a column");
        match change {
            Change::Text(name, row, value) => {
                let column = &mut columns[at(name)];
                *column = text(column, *row, *value);
            }
            Change::Bytes(name, row, value) => {
                let column = &mut columns[at(name)];
                *column = bytes(column, *row, value.as_deref());
            }
            Change::Add(name, row, more) => {
                let column = &mut columns[at(name)];
                *column = number(column, *row, |n| Some(n + i128::from(*more)));
            }
            Change::Null(name, row) => {
                let column = &mut columns[at(name)];
                *column = number(column, *row, |_| None);
            }
            Change::Flip(name, row) => {
                let column = &mut columns[at(name)];
                *column = flipped(column, *row);
            }
            Change::Rows(rows) => order.clone_from(rows),
            Change::Optional(name) => {
                let index = at(name);
                fields[index] = fields[index].clone().with_nullable(true);
            }
            Change::More => {
                fields.push(Field::new("more", DataType::Int64, true));
                columns.push(Arc::new(Int64Array::from(vec![None; batch.num_rows()])));
            }
            Change::Renamed(name, other) => {
                let index = at(name);
                fields[index] = fields[index].clone().with_name(*other);
            }
            Change::Swapped => {
                fields.swap(8, 9);
                columns.swap(8, 9);
            }
        }
    }
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns).expect("columns of one length");
    let options =
        ArrowWriterOptions::new().with_skip_arrow_metadata(true).with_schema_root("quipu_events".to_owned());
    let mut writer = ArrowWriter::try_new_with_options(Vec::new(), schema, options).expect("a writer");
    for row in order {
        writer.write(&batch.slice(row, 1)).expect("a row");
    }
    writer.into_inner().expect("a file").into()
}

fn text(column: &ArrayRef, row: usize, value: Option<&str>) -> ArrayRef {
    let column: &StringArray = column.as_any().downcast_ref().expect("texts");
    let values = column.iter().enumerate().map(|(at, old)| if at == row { value } else { old });
    Arc::new(values.collect::<StringArray>())
}

fn bytes(column: &ArrayRef, row: usize, value: Option<&[u8]>) -> ArrayRef {
    let column: &BinaryArray = column.as_any().downcast_ref().expect("bytes");
    let values = column.iter().enumerate().map(|(at, old)| if at == row { value } else { old });
    Arc::new(values.collect::<BinaryArray>())
}

fn number(column: &ArrayRef, row: usize, change: impl Fn(i128) -> Option<i128>) -> ArrayRef {
    if let Some(column) = column.as_any().downcast_ref::<Int64Array>() {
        let values = column.iter().enumerate();
        let value = |n: Option<i64>| change(i128::from(n.unwrap_or_default())).map(|n| n as i64);
        let values = values.map(|(at, old)| if at == row { value(old) } else { old });
        return Arc::new(values.collect::<Int64Array>());
    }
    if let Some(column) = column.as_any().downcast_ref::<Decimal128Array>() {
        let kind = column.data_type().clone();
        let values = column.iter().enumerate();
        let values = values.map(|(at, old)| if at == row { change(old.unwrap_or_default()) } else { old });
        return Arc::new(values.collect::<Decimal128Array>().with_data_type(kind));
    }
    let column: &TimestampMicrosecondArray = column.as_any().downcast_ref().expect("numbers");
    let values = column.iter().enumerate();
    let value = |n: Option<i64>| change(i128::from(n.unwrap_or_default())).map(|n| n as i64);
    let values = values.map(|(at, old)| if at == row { value(old) } else { old });
    Arc::new(values.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
}

fn flipped(column: &ArrayRef, row: usize) -> ArrayRef {
    if let Some(column) = column.as_any().downcast_ref::<BooleanArray>() {
        let values = column.iter().enumerate();
        let values = values.map(|(at, old)| if at == row { Some(!old.unwrap_or_default()) } else { old });
        return Arc::new(values.collect::<BooleanArray>());
    }
    let column: &Float64Array = column.as_any().downcast_ref().expect("doubles");
    let values = column.iter().enumerate();
    let values = values.map(|(at, old)| if at == row { Some(old.unwrap_or_default() + 0.5) } else { old });
    Arc::new(values.collect::<Float64Array>())
}
