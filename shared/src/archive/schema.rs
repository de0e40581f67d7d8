//! The columns of a batch (docs/format.md, section 8): one table that writer and reader share.
//!
//! Held by the golden text `docs/vectors/batch.schema`: a change of it is a change of the format.

use std::sync::{Arc, LazyLock};

use arrow_schema::{DataType, Field, Fields, Schema, TimeUnit};
use parquet::arrow::ArrowSchemaConverter;
use parquet::basic::Repetition;
use parquet::schema::types::{SchemaDescriptor, Type};

use super::ArchiveError;

/// Root name of the Parquet schema; readers ignore it.
pub(super) const ROOT: &str = "quipu_events";

/// Digits of `cost_usd`, and how many of them stand behind the point.
pub(super) const COST_DIGITS: (u8, i8) = (38, 12);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Bytes,
    Number,
    Time,
    Cost,
    Double,
    Bool,
}

/// A column: its name, what is in it, whether it has no nulls.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) required: bool,
}

const fn required(name: &'static str, kind: Kind) -> Column {
    Column { name, kind, required: true }
}

const fn optional(name: &'static str, kind: Kind) -> Column {
    Column { name, kind, required: false }
}

/// All columns, in the order of the file.
pub(super) const COLUMNS: [Column; 34] = [
    required("session_id", Kind::Text),
    required("sequence", Kind::Number),
    required("event_id", Kind::Text),
    required("commit_id", Kind::Text),
    required("timestamp", Kind::Time),
    required("timestamp_us", Kind::Number),
    required("received_at", Kind::Time),
    required("received_at_us", Kind::Number),
    required("agent_id", Kind::Text),
    required("event_type", Kind::Text),
    required("severity", Kind::Text),
    optional("source_id", Kind::Text),
    required("compliance_tag", Kind::Text),
    required("pii_types", Kind::Text),
    required("redaction_count", Kind::Number),
    optional("redaction_policy", Kind::Bytes),
    optional("payload", Kind::Text),
    optional("metadata", Kind::Text),
    optional("salt", Kind::Bytes),
    optional("content_digest", Kind::Bytes),
    optional("prev_hash", Kind::Bytes),
    required("hash", Kind::Bytes),
    optional("tool_name", Kind::Text),
    optional("call_id", Kind::Text),
    optional("provider", Kind::Text),
    optional("model", Kind::Text),
    optional("input_tokens", Kind::Number),
    optional("output_tokens", Kind::Number),
    optional("total_tokens", Kind::Number),
    optional("cost_usd", Kind::Cost),
    optional("duration_ms", Kind::Double),
    optional("success", Kind::Bool),
    optional("trace_id", Kind::Text),
    optional("span_id", Kind::Text),
];

fn fields(data_type: impl Fn(Kind) -> DataType) -> Fields {
    COLUMNS.iter().map(|c| Field::new(c.name, data_type(c.kind), !c.required)).collect()
}

fn plain(kind: Kind) -> DataType {
    match kind {
        Kind::Text => DataType::Utf8,
        Kind::Bytes => DataType::Binary,
        Kind::Number => DataType::Int64,
        Kind::Time => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        Kind::Cost => DataType::Decimal128(COST_DIGITS.0, COST_DIGITS.1),
        Kind::Double => DataType::Float64,
        Kind::Bool => DataType::Boolean,
    }
}

/// What the writer hands over.
pub(super) static WRITTEN: LazyLock<Arc<Schema>> = LazyLock::new(|| Arc::new(Schema::new(fields(plain))));

/// What the reader asks for: views, so that text is not copied out of its page, and a value that a dictionary
/// repeats is there once.
pub(super) static READ: LazyLock<Fields> = LazyLock::new(|| {
    fields(|kind| match kind {
        Kind::Text => DataType::Utf8View,
        Kind::Bytes => DataType::BinaryView,
        other => plain(other),
    })
});

/// The Parquet schema of every batch.
///
/// # Errors
/// If the library does not know one of our types: never, and a test says so.
pub(super) fn parquet_schema() -> Result<SchemaDescriptor, ArchiveError> {
    Ok(ArrowSchemaConverter::new().schema_root(ROOT).convert(&WRITTEN)?)
}

/// The Parquet schema of every batch, as Parquet's tools print it.
///
/// # Errors
/// As [`parquet_schema`].
pub fn message_type() -> Result<String, ArchiveError> {
    let mut text = Vec::new();
    parquet::schema::printer::print_schema(&mut text, parquet_schema()?.root_schema());
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The columns of every batch with their types as Hive names them: what a table in Glue's catalogue says.
pub fn hive_columns() -> impl Iterator<Item = (&'static str, String)> {
    COLUMNS.iter().map(|column| {
        let hive = match column.kind {
            Kind::Text => "string",
            Kind::Bytes => "binary",
            Kind::Number => "bigint",
            Kind::Time => "timestamp",
            Kind::Cost => return (column.name, format!("decimal({},{})", COST_DIGITS.0, COST_DIGITS.1)),
            Kind::Double => "double",
            Kind::Bool => "boolean",
        };
        (column.name, hive.to_owned())
    })
}

/// Refuses a file whose columns are not ours: names, order, physical and logical types, nulls.
///
/// # Errors
/// The first column that differs.
pub(super) fn check(found: &SchemaDescriptor) -> Result<(), ArchiveError> {
    let expected = parquet_schema()?;
    let (expected, found) = (expected.root_schema().get_fields(), found.root_schema().get_fields());
    for (ours, theirs) in expected.iter().zip(found) {
        if !same(ours, theirs) {
            return Err(ArchiveError::Columns(format!("{} is {}", ours.name(), describe(theirs))));
        }
    }
    if found.len() != expected.len() {
        return Err(ArchiveError::Columns(format!("{} columns, not {}", found.len(), expected.len())));
    }
    Ok(())
}

/// Field ids and the old converted types say nothing more, and other writers set them otherwise.
fn same(ours: &Type, theirs: &Type) -> bool {
    let (a, b) = (ours.get_basic_info(), theirs.get_basic_info());
    let (Type::PrimitiveType { .. }, Type::PrimitiveType { .. }) = (ours, theirs) else { return false };
    let length = |t: &Type| match t {
        Type::PrimitiveType { physical_type, type_length, precision, scale, .. } => {
            Some((*physical_type, *type_length, *precision, *scale))
        }
        Type::GroupType { .. } => None,
    };
    let repetition = |i: &parquet::schema::types::BasicTypeInfo| {
        if i.has_repetition() { i.repetition() } else { Repetition::REPEATED }
    };
    a.name() == b.name()
        && repetition(a) == repetition(b)
        && a.logical_type_ref() == b.logical_type_ref()
        && length(ours).map(|l| (l.0, l.2, l.3)) == length(theirs).map(|l| (l.0, l.2, l.3))
        && (ours.get_physical_type() != parquet::basic::Type::FIXED_LEN_BYTE_ARRAY
            || length(ours) == length(theirs))
}

fn describe(found: &Type) -> String {
    let mut text = Vec::new();
    parquet::schema::printer::print_schema(&mut text, found);
    String::from_utf8_lossy(&text).trim().chars().take(200).collect()
}
