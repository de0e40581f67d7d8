//! One row of a batch, as it stands in the file.

use std::borrow::Cow;

use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::{
    Array as _, ArrayRef, BinaryViewArray, BooleanArray, Decimal128Array, Float64Array, Int64Array,
    RecordBatch, TimestampMicrosecondArray,
};

use super::ArchiveError;
use super::derived::Derived;
use crate::chain::ChainError;
use crate::event::{Content, EventRef, Redactions};
use crate::ids::{EventHash, EventId, Seq, Severity};
use crate::time::Micros;

/// One row, borrowed from the file. Nothing of it is checked but the types of its columns.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "each is the column of its name in docs/format.md, section 8")]
pub struct Row<'a> {
    pub session_id: &'a str,
    pub sequence: i64,
    pub event_id: &'a str,
    pub commit_id: &'a str,
    pub timestamp: i64,
    pub timestamp_us: i64,
    pub received_at: i64,
    pub received_at_us: i64,
    pub agent_id: &'a str,
    pub event_type: &'a str,
    pub severity: &'a str,
    pub source_id: Option<&'a str>,
    pub compliance_tag: &'a str,
    pub pii_types: &'a str,
    pub redaction_count: i64,
    pub redaction_policy: Option<&'a [u8]>,
    pub payload: Option<&'a str>,
    pub metadata: Option<&'a str>,
    pub salt: Option<&'a [u8]>,
    pub content_digest: Option<&'a [u8]>,
    pub prev_hash: Option<&'a [u8]>,
    pub hash: &'a [u8],
    pub derived: Derived<'a>,
}

fn wrong(field: &'static str, why: impl std::fmt::Display) -> ChainError {
    ChainError::Syntax { field, why: why.to_string() }
}

fn exact<const N: usize>(field: &'static str, bytes: &[u8]) -> Result<[u8; N], ChainError> {
    bytes.try_into().map_err(|_| wrong(field, format!("is {} bytes long, not {N}", bytes.len())))
}

/// A UUID in its one canonical spelling.
fn uuid(field: &'static str, text: &str) -> Result<EventId, ChainError> {
    let id = EventId::parse(text).map_err(|e| wrong(field, e))?;
    if id.encode(&mut [0; 36]) == text { Ok(id) } else { Err(wrong(field, "is not in lower case")) }
}

impl<'a> Row<'a> {
    /// The event of this row. `before` is the hash of the row before it if that is of the same run; `None` for the
    /// first row of a run, which has `prev_hash` itself.
    ///
    /// Checks what the types of an event say; the rest of its syntax is [`crate::chain::check_syntax`], which
    /// [`crate::chain::ChainCheck`] runs.
    ///
    /// # Errors
    /// The first field that is against its syntax, a null where none may be among them.
    pub fn event(&self, before: Option<EventHash>) -> Result<EventRef<'a>, ChainError> {
        let sequence = u64::try_from(self.sequence).ok().and_then(Seq::new);
        let event_id = uuid("event_id", self.event_id)?;
        if u128::from_be_bytes(event_id.commit().to_bytes()) != uuid("commit_id", self.commit_id)?.as_u128() {
            return Err(wrong("commit_id", "is not that of the event_id"));
        }
        let time = |field, stamp: i64, micros: i64| {
            if stamp != micros {
                return Err(wrong(field, "has two spellings that differ"));
            }
            Micros::new(stamp).ok_or_else(|| wrong(field, "is outside the years 0001 to 9999 (UTC)"))
        };
        let policy = self.redaction_policy.map(|p| exact("redaction_policy", p)).transpose()?;
        let count = u32::try_from(self.redaction_count);
        let prev_hash = match (before, self.prev_hash) {
            (Some(before), None) => before,
            (None, Some(own)) => EventHash(exact("prev_hash", own)?),
            (Some(_), Some(_)) => {
                return Err(wrong("prev_hash", "stands in a row that is not a run's first"));
            }
            (None, None) => return Err(wrong("prev_hash", "is null in the first row of a run")),
        };
        Ok(EventRef {
            sequence: sequence.ok_or_else(|| wrong("sequence", "is not from 0 to 2^63 - 1"))?,
            event_id,
            timestamp: time("timestamp", self.timestamp, self.timestamp_us)?,
            received_at: time("received_at", self.received_at, self.received_at_us)?,
            agent_id: self.agent_id,
            event_type: self.event_type,
            severity: Severity::parse(self.severity).map_err(|e| wrong("severity", e))?,
            source_id: self.source_id,
            compliance_tag: self.compliance_tag,
            pii_types: self.pii_types,
            redactions: Redactions {
                count: count.map_err(|_| wrong("redaction_count", "is not from 0 to 2^32 - 1"))?,
                policy,
            },
            content: self.content()?,
            prev_hash,
            hash: EventHash(exact("hash", self.hash)?),
        })
    }

    fn content(&self) -> Result<Content<'a>, ChainError> {
        match (self.salt, self.payload, self.metadata, self.content_digest) {
            (Some(salt), Some(payload), Some(metadata), None) => {
                Ok(Content::Kept { salt: exact("salt", salt)?, payload, metadata })
            }
            (None, None, None, Some(digest)) => {
                Ok(Content::Erased { digest: exact("content_digest", digest)? })
            }
            (Some(_), Some(_), Some(_), Some(_)) => {
                Err(wrong("content_digest", "stands beside the content itself"))
            }
            (_, _, _, Some(_)) => Err(wrong("content_digest", "stands beside a part of the content")),
            (_, None, _, None) => Err(wrong("payload", "is null, and nothing says that it was erased")),
            (_, _, None, None) => Err(wrong("metadata", "is null, and nothing says that it was erased")),
            (None, _, _, None) => Err(wrong("salt", "is null, and nothing says that it was erased")),
        }
    }
}

/// The columns of some rows.
pub(super) struct Table<'b> {
    session_id: Text<'b>,
    sequence: &'b Int64Array,
    event_id: Text<'b>,
    commit_id: Text<'b>,
    timestamp: &'b TimestampMicrosecondArray,
    timestamp_us: &'b Int64Array,
    received_at: &'b TimestampMicrosecondArray,
    received_at_us: &'b Int64Array,
    agent_id: Text<'b>,
    event_type: Text<'b>,
    severity: Text<'b>,
    source_id: Text<'b>,
    compliance_tag: Text<'b>,
    pii_types: Text<'b>,
    redaction_count: &'b Int64Array,
    redaction_policy: &'b BinaryViewArray,
    payload: Text<'b>,
    metadata: Text<'b>,
    salt: &'b BinaryViewArray,
    content_digest: &'b BinaryViewArray,
    prev_hash: &'b BinaryViewArray,
    hash: &'b BinaryViewArray,
    tool_name: Text<'b>,
    call_id: Text<'b>,
    provider: Text<'b>,
    model: Text<'b>,
    input_tokens: &'b Int64Array,
    output_tokens: &'b Int64Array,
    total_tokens: &'b Int64Array,
    cost_usd: &'b Decimal128Array,
    duration_ms: &'b Float64Array,
    success: &'b BooleanArray,
    trace_id: Text<'b>,
    span_id: Text<'b>,
}

/// The columns of a batch of rows, text as the bytes that it is: that it is UTF-8 the Parquet library checks of a page
/// as a whole, not of each value, and a length that was tampered with ends in the middle of a character.
pub(super) fn columns(batch: &RecordBatch) -> Vec<ArrayRef> {
    let as_bytes = |column: &ArrayRef| match column.as_string_view_opt() {
        Some(text) => Arc::new(text.clone().to_binary_view()),
        None => Arc::clone(column),
    };
    batch.columns().iter().map(as_bytes).collect()
}

/// A column of text.
struct Text<'b>(&'b BinaryViewArray);

impl<'b> Text<'b> {
    fn value(&self, at: usize) -> Result<&'b str, ArchiveError> {
        let text = std::str::from_utf8(self.0.value(at));
        text.map_err(|e| ArchiveError::Parquet(format!("a text is not UTF-8: {e}")))
    }

    fn optional(&self, at: usize) -> Result<Option<&'b str>, ArchiveError> {
        if self.0.is_null(at) { Ok(None) } else { self.value(at).map(Some) }
    }
}

fn column<A: 'static>(columns: &[ArrayRef], index: usize) -> Result<&A, ArchiveError> {
    let column = columns.get(index).and_then(|c| c.as_any().downcast_ref());
    column.ok_or_else(|| ArchiveError::Columns(format!("column {index} came back as another type")))
}

/// A column of bytes.
pub(super) fn bytes(batch: &RecordBatch, index: usize) -> Result<&BinaryViewArray, ArchiveError> {
    column(batch.columns(), index)
}

macro_rules! value {
    ($self:ident, $at:ident, $column:ident) => {
        (!$self.$column.is_null($at)).then(|| $self.$column.value($at))
    };
}

impl<'b> Table<'b> {
    pub(super) fn of(columns: &'b [ArrayRef]) -> Result<Self, ArchiveError> {
        Ok(Self {
            session_id: Text(column(columns, 0)?),
            sequence: column(columns, 1)?,
            event_id: Text(column(columns, 2)?),
            commit_id: Text(column(columns, 3)?),
            timestamp: column(columns, 4)?,
            timestamp_us: column(columns, 5)?,
            received_at: column(columns, 6)?,
            received_at_us: column(columns, 7)?,
            agent_id: Text(column(columns, 8)?),
            event_type: Text(column(columns, 9)?),
            severity: Text(column(columns, 10)?),
            source_id: Text(column(columns, 11)?),
            compliance_tag: Text(column(columns, 12)?),
            pii_types: Text(column(columns, 13)?),
            redaction_count: column(columns, 14)?,
            redaction_policy: column(columns, 15)?,
            payload: Text(column(columns, 16)?),
            metadata: Text(column(columns, 17)?),
            salt: column(columns, 18)?,
            content_digest: column(columns, 19)?,
            prev_hash: column(columns, 20)?,
            hash: column(columns, 21)?,
            tool_name: Text(column(columns, 22)?),
            call_id: Text(column(columns, 23)?),
            provider: Text(column(columns, 24)?),
            model: Text(column(columns, 25)?),
            input_tokens: column(columns, 26)?,
            output_tokens: column(columns, 27)?,
            total_tokens: column(columns, 28)?,
            cost_usd: column(columns, 29)?,
            duration_ms: column(columns, 30)?,
            success: column(columns, 31)?,
            trace_id: Text(column(columns, 32)?),
            span_id: Text(column(columns, 33)?),
        })
    }

    pub(super) fn row(&self, at: usize) -> Result<Row<'b>, ArchiveError> {
        Ok(Row {
            session_id: self.session_id.value(at)?,
            sequence: self.sequence.value(at),
            event_id: self.event_id.value(at)?,
            commit_id: self.commit_id.value(at)?,
            timestamp: self.timestamp.value(at),
            timestamp_us: self.timestamp_us.value(at),
            received_at: self.received_at.value(at),
            received_at_us: self.received_at_us.value(at),
            agent_id: self.agent_id.value(at)?,
            event_type: self.event_type.value(at)?,
            severity: self.severity.value(at)?,
            source_id: self.source_id.optional(at)?,
            compliance_tag: self.compliance_tag.value(at)?,
            pii_types: self.pii_types.value(at)?,
            redaction_count: self.redaction_count.value(at),
            redaction_policy: value!(self, at, redaction_policy),
            payload: self.payload.optional(at)?,
            metadata: self.metadata.optional(at)?,
            salt: value!(self, at, salt),
            content_digest: value!(self, at, content_digest),
            prev_hash: value!(self, at, prev_hash),
            hash: self.hash.value(at),
            derived: Derived {
                tool_name: self.tool_name.optional(at)?.map(Cow::Borrowed),
                call_id: self.call_id.optional(at)?.map(Cow::Borrowed),
                provider: self.provider.optional(at)?.map(Cow::Borrowed),
                model: self.model.optional(at)?.map(Cow::Borrowed),
                input_tokens: value!(self, at, input_tokens),
                output_tokens: value!(self, at, output_tokens),
                total_tokens: value!(self, at, total_tokens),
                cost_usd: value!(self, at, cost_usd),
                duration_ms: value!(self, at, duration_ms),
                success: value!(self, at, success),
                trace_id: self.trace_id.optional(at)?.map(Cow::Borrowed),
                span_id: self.span_id.optional(at)?.map(Cow::Borrowed),
            },
        })
    }
}
