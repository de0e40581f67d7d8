//! Writes the rows of a batch.
//!
//! Bytes are a function of the rows alone: no clock, no random, no version of a library in them. Memory is one chunk
//! of rows, the pages of one row group, and what is finished.

use std::mem;
use std::sync::Arc;

use arrow_array::builder::{
    BinaryBuilder, BooleanBuilder, Decimal128Builder, Float64Builder, Int64Builder, StringBuilder,
    TimestampMicrosecondBuilder,
};
use arrow_array::{ArrayRef, RecordBatch};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{BloomFilterPosition, EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use super::derived::Derived;
use super::schema::{COST_DIGITS, ROOT, WRITTEN};
use super::{ArchiveError, FORMAT_KEY, FORMAT_VALUE, TENANT_KEY};
use crate::event::{Content, EventRef};
use crate::ids::{CommitId, EventId, SessionId, TenantId};
use crate::limits;

/// Written into every file. Fixed: the bytes of a batch must not change with a library's version.
const CREATED_BY: &str = "quipu version 1";

/// zstd level. On the bench's payloads (438 bytes each, pages of 2 MiB): level 1 leaves 131 bytes, 2 leaves 120, 3
/// leaves 115, 4 leaves 114, 5 leaves 111, 6 leaves 108, at 1, 1.5, 1.7, 2, 4.8 and 6 times the work of level 1.
const ZSTD_LEVEL: i32 = 4;

/// zstd level of columns that are mostly random digits: there level 3 finds chance matches that cost more than they
/// save (`source_id`: 8.1 bytes an event at level 1, 8.2 at level 3; `metadata`: 4.5 and 5.3).
const ZSTD_LEVEL_OF_NOISE: i32 = 1;

/// Share of values that a bloom filter wrongly says are there: one more row group read in ten lookups of a batch that
/// was chosen by its times already, for 0.75 bytes an event less than at 0.05.
const BLOOM_FALSE: f64 = 0.1;

/// Where chunks, pages and row groups end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) chunk_rows: usize,
    /// Bytes of rows before encoding.
    pub(super) group_bytes: usize,
    pub(super) page_bytes: usize,
}

const SIZES: Sizes = Sizes {
    chunk_rows: limits::ARCHIVE_CHUNK_ROWS,
    group_bytes: limits::ARCHIVE_GROUP_BYTES,
    page_bytes: limits::ARCHIVE_PAGE_BYTES,
};

/// A batch while it is filled.
pub struct BatchWriter {
    tenant: TenantId,
    sizes: Sizes,
    /// Begun with the first rows.
    writer: Option<ArrowWriter<Vec<u8>>>,
    columns: Columns,
    /// Bytes of the rows since the last row group, as in memory.
    group_bytes: usize,
    row_count: u64,
}

impl std::fmt::Debug for BatchWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BatchWriter").field("row_count", &self.row_count).finish_non_exhaustive()
    }
}

impl BatchWriter {
    /// An empty batch of a tenant.
    pub fn new(tenant: &TenantId) -> Self {
        Self::with(tenant, SIZES)
    }

    /// As [`Self::new`], with sizes that a test has chosen.
    #[cfg(test)]
    pub(super) fn with_sizes(tenant: &TenantId, sizes: Sizes) -> Self {
        Self::with(tenant, sizes)
    }

    fn with(tenant: &TenantId, sizes: Sizes) -> Self {
        let (tenant, columns) = (tenant.clone(), Columns::new());
        Self { tenant, sizes, writer: None, columns, group_bytes: 0, row_count: 0 }
    }

    /// Adds the next row. `first_of_run` says that the row before it is of another session, or none.
    ///
    /// # Errors
    /// Of the Parquet library.
    pub fn push(
        &mut self,
        session: &SessionId,
        commit: CommitId,
        event: &EventRef<'_>,
        first_of_run: bool,
    ) -> Result<(), ArchiveError> {
        self.columns.push(session, commit, event, first_of_run);
        self.row_count += 1;
        if self.columns.rows >= self.sizes.chunk_rows || self.columns.bytes >= limits::ARCHIVE_CHUNK_BYTES {
            self.writer = Some(self.write_chunk()?);
        }
        Ok(())
    }

    /// Rows so far.
    pub fn row_count(&self) -> u64 {
        self.row_count
    }

    /// Bytes of memory in use, about: the finished row groups, the pages of the open one, the open chunk.
    pub fn memory_bytes(&self) -> usize {
        let written = self.writer.as_ref().map_or(0, |w| w.inner().capacity() + w.memory_size());
        written + self.columns.bytes
    }

    /// The file.
    ///
    /// # Errors
    /// Of the Parquet library.
    pub fn finish(mut self) -> Result<Bytes, ArchiveError> {
        Ok(Bytes::from(self.write_chunk()?.into_inner()?))
    }

    fn write_chunk(&mut self) -> Result<ArrowWriter<Vec<u8>>, ArchiveError> {
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => {
                let options = ArrowWriterOptions::new()
                    .with_properties(properties(&self.tenant, self.sizes)?)
                    .with_skip_arrow_metadata(true)
                    .with_schema_root(ROOT.to_owned());
                ArrowWriter::try_new_with_options(Vec::new(), Arc::clone(&WRITTEN), options)?
            }
        };
        self.group_bytes += mem::take(&mut self.columns.bytes);
        writer.write(&self.columns.finish()?)?;
        if self.group_bytes >= self.sizes.group_bytes {
            writer.flush()?;
            self.group_bytes = 0;
        }
        Ok(writer)
    }
}

fn properties(tenant: &TenantId, sizes: Sizes) -> Result<WriterProperties, ArchiveError> {
    let path = |name: &str| ColumnPath::from(name);
    let mut properties = WriterProperties::builder()
        .set_created_by(CREATED_BY.to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
        .set_key_value_metadata(Some(vec![
            KeyValue::new(FORMAT_KEY.to_owned(), FORMAT_VALUE.to_owned()),
            KeyValue::new(TENANT_KEY.to_owned(), tenant.as_str().to_owned()),
        ]))
        // Row groups end where this writer says.
        .set_max_row_group_row_count(None)
        .set_data_page_size_limit(sizes.page_bytes)
        .set_dictionary_page_size_limit(limits::ARCHIVE_DICTIONARY_BYTES)
        // Beside the page index, so that whoever reads the end of a file has them: a lookup by id is spared one round
        // trip, and one request for each row group.
        .set_bloom_filter_position(BloomFilterPosition::End)
        .set_statistics_truncate_length(Some(64));
    for name in ["sequence", "timestamp", "timestamp_us", "received_at", "received_at_us"] {
        properties = properties
            .set_column_dictionary_enabled(path(name), false)
            .set_column_encoding(path(name), Encoding::DELTA_BINARY_PACKED);
    }
    properties = properties
        .set_column_dictionary_enabled(path("event_id"), false)
        .set_column_encoding(path("event_id"), Encoding::DELTA_BYTE_ARRAY)
        // A reader must assume that each value of a page may be as long as the page (see the reader); and a lookup by
        // id unpacks one page.
        .set_column_data_page_row_count_limit(path("event_id"), sizes.chunk_rows);
    // Nobody prunes by these, and their bounds would be most of the index.
    for name in ["payload", "metadata", "hash", "salt", "prev_hash", "content_digest", "redaction_policy"] {
        properties = properties.set_column_statistics_enabled(path(name), EnabledStatistics::None);
    }
    for name in ["payload", "hash", "salt", "prev_hash", "content_digest"] {
        properties = properties
            .set_column_dictionary_enabled(path(name), false)
            .set_column_encoding(path(name), Encoding::DELTA_LENGTH_BYTE_ARRAY);
    }
    // Ids are all different: a dictionary of them would be given up halfway, and its first half wasted.
    let noise = Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL_OF_NOISE)?);
    for name in ["metadata", "source_id", "trace_id", "span_id"] {
        properties = properties
            .set_column_dictionary_enabled(path(name), false)
            .set_column_encoding(path(name), Encoding::DELTA_LENGTH_BYTE_ARRAY)
            .set_column_compression(path(name), noise);
    }
    for name in ["call_id", "input_tokens", "total_tokens", "cost_usd", "duration_ms"] {
        properties = properties
            .set_column_dictionary_enabled(path(name), false)
            .set_column_encoding(path(name), Encoding::PLAIN)
            .set_column_compression(path(name), noise);
    }
    // Random bytes do not compress: small pages cost nothing, and a lookup of one row reads one.
    for name in ["hash", "salt", "prev_hash", "content_digest"] {
        properties = properties
            .set_column_compression(path(name), Compression::UNCOMPRESSED)
            .set_column_data_page_row_count_limit(path(name), 2 * sizes.chunk_rows);
    }
    for name in ["event_id", "session_id"] {
        properties = properties
            .set_column_bloom_filter_enabled(path(name), true)
            .set_column_bloom_filter_fpp(path(name), BLOOM_FALSE)
            .set_column_bloom_filter_max_ndv(path(name), limits::ARCHIVE_BLOOM_VALUES_MAX);
    }
    Ok(properties.build())
}

/// A chunk of rows, column by column.
struct Columns {
    rows: usize,
    /// Bytes of the rows, about.
    bytes: usize,
    session_id: StringBuilder,
    sequence: Int64Builder,
    event_id: StringBuilder,
    commit_id: StringBuilder,
    timestamp: TimestampMicrosecondBuilder,
    timestamp_us: Int64Builder,
    received_at: TimestampMicrosecondBuilder,
    received_at_us: Int64Builder,
    agent_id: StringBuilder,
    event_type: StringBuilder,
    severity: StringBuilder,
    source_id: StringBuilder,
    compliance_tag: StringBuilder,
    pii_types: StringBuilder,
    redaction_count: Int64Builder,
    redaction_policy: BinaryBuilder,
    payload: StringBuilder,
    metadata: StringBuilder,
    salt: BinaryBuilder,
    content_digest: BinaryBuilder,
    prev_hash: BinaryBuilder,
    hash: BinaryBuilder,
    tool_name: StringBuilder,
    call_id: StringBuilder,
    provider: StringBuilder,
    model: StringBuilder,
    input_tokens: Int64Builder,
    output_tokens: Int64Builder,
    total_tokens: Int64Builder,
    cost_usd: Decimal128Builder,
    duration_ms: Float64Builder,
    success: BooleanBuilder,
    trace_id: StringBuilder,
    span_id: StringBuilder,
}

impl Columns {
    fn new() -> Self {
        let text = StringBuilder::new;
        let number = Int64Builder::new;
        let time = || TimestampMicrosecondBuilder::new().with_timezone("UTC");
        let bytes = BinaryBuilder::new;
        let cost = arrow_schema::DataType::Decimal128(COST_DIGITS.0, COST_DIGITS.1);
        Self {
            rows: 0,
            bytes: 0,
            session_id: text(),
            sequence: number(),
            event_id: text(),
            commit_id: text(),
            timestamp: time(),
            timestamp_us: number(),
            received_at: time(),
            received_at_us: number(),
            agent_id: text(),
            event_type: text(),
            severity: text(),
            source_id: text(),
            compliance_tag: text(),
            pii_types: text(),
            redaction_count: number(),
            redaction_policy: bytes(),
            payload: text(),
            metadata: text(),
            salt: bytes(),
            content_digest: bytes(),
            prev_hash: bytes(),
            hash: bytes(),
            tool_name: text(),
            call_id: text(),
            provider: text(),
            model: text(),
            input_tokens: number(),
            output_tokens: number(),
            total_tokens: number(),
            cost_usd: Decimal128Builder::new().with_data_type(cost),
            duration_ms: Float64Builder::new(),
            success: BooleanBuilder::new(),
            trace_id: text(),
            span_id: text(),
        }
    }

    fn push(&mut self, session: &SessionId, commit: CommitId, event: &EventRef<'_>, first_of_run: bool) {
        /// What the fixed fields of a row take, bytes, about.
        const FIXED_BYTES: usize = 300;
        self.rows += 1;
        self.bytes += FIXED_BYTES;
        self.session_id.append_value(session.as_str());
        self.sequence.append_value(event.sequence.get() as i64);
        let mut uuid = [0; 36];
        self.event_id.append_value(event.event_id.encode(&mut uuid));
        self.commit_id.append_value(encode_commit(commit, &mut uuid));
        self.timestamp.append_value(event.timestamp.get());
        self.timestamp_us.append_value(event.timestamp.get());
        self.received_at.append_value(event.received_at.get());
        self.received_at_us.append_value(event.received_at.get());
        self.agent_id.append_value(event.agent_id);
        self.event_type.append_value(event.event_type);
        self.severity.append_value(event.severity.as_str());
        self.source_id.append_option(event.source_id);
        self.compliance_tag.append_value(event.compliance_tag);
        self.pii_types.append_value(event.pii_types);
        self.redaction_count.append_value(i64::from(event.redactions.count));
        self.redaction_policy.append_option(event.redactions.policy);
        match event.content {
            Content::Kept { salt, payload, metadata } => {
                self.bytes += payload.len() + metadata.len();
                self.payload.append_value(payload);
                self.metadata.append_value(metadata);
                self.salt.append_value(salt);
                self.content_digest.append_null();
            }
            Content::Erased { digest } => {
                self.payload.append_null();
                self.metadata.append_null();
                self.salt.append_null();
                self.content_digest.append_value(digest);
            }
        }
        self.prev_hash.append_option(first_of_run.then_some(event.prev_hash.0));
        self.hash.append_value(event.hash.0);
        self.push_derived(&Derived::of(event.event_type, &event.content));
    }

    fn push_derived(&mut self, derived: &Derived<'_>) {
        self.tool_name.append_option(derived.tool_name.as_deref());
        self.call_id.append_option(derived.call_id.as_deref());
        self.provider.append_option(derived.provider.as_deref());
        self.model.append_option(derived.model.as_deref());
        self.input_tokens.append_option(derived.input_tokens);
        self.output_tokens.append_option(derived.output_tokens);
        self.total_tokens.append_option(derived.total_tokens);
        self.cost_usd.append_option(derived.cost_usd);
        self.duration_ms.append_option(derived.duration_ms);
        self.success.append_option(derived.success);
        self.trace_id.append_option(derived.trace_id.as_deref());
        self.span_id.append_option(derived.span_id.as_deref());
    }

    /// The rows so far; begins anew.
    fn finish(&mut self) -> Result<RecordBatch, ArchiveError> {
        self.rows = 0;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.session_id.finish()),
            Arc::new(self.sequence.finish()),
            Arc::new(self.event_id.finish()),
            Arc::new(self.commit_id.finish()),
            Arc::new(self.timestamp.finish()),
            Arc::new(self.timestamp_us.finish()),
            Arc::new(self.received_at.finish()),
            Arc::new(self.received_at_us.finish()),
            Arc::new(self.agent_id.finish()),
            Arc::new(self.event_type.finish()),
            Arc::new(self.severity.finish()),
            Arc::new(self.source_id.finish()),
            Arc::new(self.compliance_tag.finish()),
            Arc::new(self.pii_types.finish()),
            Arc::new(self.redaction_count.finish()),
            Arc::new(self.redaction_policy.finish()),
            Arc::new(self.payload.finish()),
            Arc::new(self.metadata.finish()),
            Arc::new(self.salt.finish()),
            Arc::new(self.content_digest.finish()),
            Arc::new(self.prev_hash.finish()),
            Arc::new(self.hash.finish()),
            Arc::new(self.tool_name.finish()),
            Arc::new(self.call_id.finish()),
            Arc::new(self.provider.finish()),
            Arc::new(self.model.finish()),
            Arc::new(self.input_tokens.finish()),
            Arc::new(self.output_tokens.finish()),
            Arc::new(self.total_tokens.finish()),
            Arc::new(self.cost_usd.finish()),
            Arc::new(self.duration_ms.finish()),
            Arc::new(self.success.finish()),
            Arc::new(self.trace_id.finish()),
            Arc::new(self.span_id.finish()),
        ];
        Ok(RecordBatch::try_new(Arc::clone(&WRITTEN), columns)?)
    }
}

/// The 36 characters of a commit's UUID: an event's of number 0.
fn encode_commit(commit: CommitId, buffer: &mut [u8; 36]) -> &str {
    EventId::from_u128(u128::from_be_bytes(commit.to_bytes())).map_or("", |id| id.encode(buffer))
}
