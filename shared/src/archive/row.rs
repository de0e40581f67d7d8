//! One row of a batch, as it stands in the file.

use std::borrow::Cow;

use arrow_array::{
    Array as _, BinaryViewArray, BooleanArray, Decimal128Array, Float64Array, Int64Array, RecordBatch,
    StringViewArray, TimestampMicrosecondArray,
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
    session_id: &'b StringViewArray,
    sequence: &'b Int64Array,
    event_id: &'b StringViewArray,
    commit_id: &'b StringViewArray,
    timestamp: &'b TimestampMicrosecondArray,
    timestamp_us: &'b Int64Array,
    received_at: &'b TimestampMicrosecondArray,
    received_at_us: &'b Int64Array,
    agent_id: &'b StringViewArray,
    event_type: &'b StringViewArray,
    severity: &'b StringViewArray,
    source_id: &'b StringViewArray,
    compliance_tag: &'b StringViewArray,
    pii_types: &'b StringViewArray,
    redaction_count: &'b Int64Array,
    redaction_policy: &'b BinaryViewArray,
    payload: &'b StringViewArray,
    metadata: &'b StringViewArray,
    salt: &'b BinaryViewArray,
    content_digest: &'b BinaryViewArray,
    prev_hash: &'b BinaryViewArray,
    hash: &'b BinaryViewArray,
    tool_name: &'b StringViewArray,
    call_id: &'b StringViewArray,
    provider: &'b StringViewArray,
    model: &'b StringViewArray,
    input_tokens: &'b Int64Array,
    output_tokens: &'b Int64Array,
    total_tokens: &'b Int64Array,
    cost_usd: &'b Decimal128Array,
    duration_ms: &'b Float64Array,
    success: &'b BooleanArray,
    trace_id: &'b StringViewArray,
    span_id: &'b StringViewArray,
}

fn column<A: 'static>(batch: &RecordBatch, index: usize) -> Result<&A, ArchiveError> {
    let column = batch.columns().get(index).and_then(|c| c.as_any().downcast_ref());
    column.ok_or_else(|| ArchiveError::Columns(format!("column {index} came back as another type")))
}

/// A column of bytes.
pub(super) fn bytes(batch: &RecordBatch, index: usize) -> Result<&BinaryViewArray, ArchiveError> {
    column(batch, index)
}

macro_rules! value {
    ($self:ident, $at:ident, $column:ident) => {
        (!$self.$column.is_null($at)).then(|| $self.$column.value($at))
    };
}

impl<'b> Table<'b> {
    pub(super) fn of(batch: &'b RecordBatch) -> Result<Self, ArchiveError> {
        Ok(Self {
            session_id: column(batch, 0)?,
            sequence: column(batch, 1)?,
            event_id: column(batch, 2)?,
            commit_id: column(batch, 3)?,
            timestamp: column(batch, 4)?,
            timestamp_us: column(batch, 5)?,
            received_at: column(batch, 6)?,
            received_at_us: column(batch, 7)?,
            agent_id: column(batch, 8)?,
            event_type: column(batch, 9)?,
            severity: column(batch, 10)?,
            source_id: column(batch, 11)?,
            compliance_tag: column(batch, 12)?,
            pii_types: column(batch, 13)?,
            redaction_count: column(batch, 14)?,
            redaction_policy: column(batch, 15)?,
            payload: column(batch, 16)?,
            metadata: column(batch, 17)?,
            salt: column(batch, 18)?,
            content_digest: column(batch, 19)?,
            prev_hash: column(batch, 20)?,
            hash: column(batch, 21)?,
            tool_name: column(batch, 22)?,
            call_id: column(batch, 23)?,
            provider: column(batch, 24)?,
            model: column(batch, 25)?,
            input_tokens: column(batch, 26)?,
            output_tokens: column(batch, 27)?,
            total_tokens: column(batch, 28)?,
            cost_usd: column(batch, 29)?,
            duration_ms: column(batch, 30)?,
            success: column(batch, 31)?,
            trace_id: column(batch, 32)?,
            span_id: column(batch, 33)?,
        })
    }

    pub(super) fn row(&self, at: usize) -> Row<'b> {
        Row {
            session_id: self.session_id.value(at),
            sequence: self.sequence.value(at),
            event_id: self.event_id.value(at),
            commit_id: self.commit_id.value(at),
            timestamp: self.timestamp.value(at),
            timestamp_us: self.timestamp_us.value(at),
            received_at: self.received_at.value(at),
            received_at_us: self.received_at_us.value(at),
            agent_id: self.agent_id.value(at),
            event_type: self.event_type.value(at),
            severity: self.severity.value(at),
            source_id: value!(self, at, source_id),
            compliance_tag: self.compliance_tag.value(at),
            pii_types: self.pii_types.value(at),
            redaction_count: self.redaction_count.value(at),
            redaction_policy: value!(self, at, redaction_policy),
            payload: value!(self, at, payload),
            metadata: value!(self, at, metadata),
            salt: value!(self, at, salt),
            content_digest: value!(self, at, content_digest),
            prev_hash: value!(self, at, prev_hash),
            hash: self.hash.value(at),
            derived: Derived {
                tool_name: value!(self, at, tool_name).map(Cow::Borrowed),
                call_id: value!(self, at, call_id).map(Cow::Borrowed),
                provider: value!(self, at, provider).map(Cow::Borrowed),
                model: value!(self, at, model).map(Cow::Borrowed),
                input_tokens: value!(self, at, input_tokens),
                output_tokens: value!(self, at, output_tokens),
                total_tokens: value!(self, at, total_tokens),
                cost_usd: value!(self, at, cost_usd),
                duration_ms: value!(self, at, duration_ms),
                success: value!(self, at, success),
                trace_id: value!(self, at, trace_id).map(Cow::Borrowed),
                span_id: value!(self, at, span_id).map(Cow::Borrowed),
            },
        }
    }
}
