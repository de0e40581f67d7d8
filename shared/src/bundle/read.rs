//! Lines in.

use std::borrow::Cow;

use super::FORMAT;
use super::values::{event_id, hex, optional, optional_hex, sequence, text, time};
use crate::event::{Content, EventRef, Redactions};
use crate::ids::{self, EventHash, EventId, Seq, SessionId, Severity, TenantId};
use crate::json::{JsonError, Reader};
use crate::limits;
use crate::statement::is_deployment_name;
use crate::time::Micros;

/// Why a line is no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RecordError(String);

impl From<JsonError> for RecordError {
    fn from(error: JsonError) -> Self {
        Self(error.to_string())
    }
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record<'a> {
    /// The first one.
    Bundle(BundleRecord<'a>),
    /// Begins a session.
    Session(SessionId),
    /// An event.
    Event(Box<EventRecord<'a>>),
    /// Says where events of the session are in the log.
    Proof(ProofRecord),
    /// Ends a session: its signed head.
    Head(Cow<'a, str>),
    /// The log key that comes after the ones before: a note.
    Rotation(Cow<'a, str>),
    /// What the proofs are held against: a note.
    Checkpoint(Cow<'a, str>),
    /// The last one.
    End {
        /// How many sessions the bundle holds.
        sessions: u64,
        /// How many events.
        events: u64,
    },
}

impl Record<'_> {
    /// The word that says which it is.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Bundle(_) => "bundle",
            Self::Session(_) => "session",
            Self::Event(_) => "event",
            Self::Proof(_) => "proof",
            Self::Head(_) => "head",
            Self::Rotation(_) => "rotation",
            Self::Checkpoint(_) => "checkpoint",
            Self::End { .. } => "end",
        }
    }
}

/// What the first line says; keys and notes are not looked into yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleRecord<'a> {
    /// The deployment's name.
    pub deployment: Cow<'a, str>,
    /// Whose sessions these are.
    pub tenant: TenantId,
    /// When the bundle was made.
    pub created_at: Micros,
    /// The log key, as text.
    pub log_key: Cow<'a, str>,
    /// Notes; at least one.
    pub certificates: Vec<Cow<'a, str>>,
}

/// That the `count` events from sequence `first` on are the leaves from index `leaf` on in the tree of the bundle's
/// checkpoint. Nothing of it is checked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProofRecord {
    /// Sequence of the first event.
    pub first: Seq,
    /// How many events.
    pub count: u64,
    /// Index of the first event's leaf.
    pub leaf: u64,
    /// Roots of what stands beside them, in the order in which they are needed.
    pub hashes: Vec<[u8; 32]>,
}

/// An event as it stands on its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRecord<'a> {
    sequence: Seq,
    event_id: EventId,
    timestamp: Micros,
    received_at: Micros,
    agent_id: Cow<'a, str>,
    event_type: Cow<'a, str>,
    severity: Severity,
    source_id: Option<Cow<'a, str>>,
    compliance_tag: Cow<'a, str>,
    pii_types: String,
    redactions: Redactions,
    content: RecordContent<'a>,
    prev_hash: EventHash,
    hash: EventHash,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum RecordContent<'a> {
    Kept { salt: [u8; 16], payload: Cow<'a, str>, metadata: Cow<'a, str> },
    Erased { digest: [u8; 32] },
}

impl EventRecord<'_> {
    /// Borrows the event. Its texts may still be against their syntax.
    pub fn event(&self) -> EventRef<'_> {
        EventRef {
            sequence: self.sequence,
            event_id: self.event_id,
            timestamp: self.timestamp,
            received_at: self.received_at,
            agent_id: &self.agent_id,
            event_type: &self.event_type,
            severity: self.severity,
            source_id: self.source_id.as_deref(),
            compliance_tag: &self.compliance_tag,
            pii_types: &self.pii_types,
            redactions: self.redactions,
            content: match &self.content {
                RecordContent::Kept { salt, payload, metadata } => {
                    Content::Kept { salt: *salt, payload, metadata }
                }
                RecordContent::Erased { digest } => Content::Erased { digest: *digest },
            },
            prev_hash: self.prev_hash,
            hash: self.hash,
        }
    }
}

/// Which record a member belongs to. Only `kind` belongs to all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Bundle,
    Session,
    Event,
    Proof,
    End,
    // Their one member is the same, so they count as one; see `Of::counted`.
    Head,
    Rotation,
    Checkpoint,
}

impl Of {
    fn parse(kind: &str) -> Option<Self> {
        Some(match kind {
            "bundle" => Self::Bundle,
            "session" => Self::Session,
            "event" => Self::Event,
            "proof" => Self::Proof,
            "head" => Self::Head,
            "rotation" => Self::Rotation,
            "checkpoint" => Self::Checkpoint,
            "end" => Self::End,
            _ => return None,
        })
    }

    /// Under which its members are counted.
    const fn counted(self) -> Self {
        match self {
            Self::Rotation | Self::Checkpoint => Self::Head,
            other => other,
        }
    }

    /// Its members, `kind` aside.
    const fn members(self) -> &'static [&'static str] {
        match self {
            Self::Bundle => &["format", "deployment", "tenant", "created_at", "log_key", "certificates"],
            Self::Session => &["session_id"],
            Self::Event => &[
                "sequence",
                "event_id",
                "timestamp",
                "received_at",
                "agent_id",
                "event_type",
                "severity",
                "source_id",
                "compliance_tag",
                "pii_types",
                "redaction_count",
                "redaction_policy",
                "salt",
                "payload",
                "metadata",
                "content_digest",
                "prev_hash",
                "hash",
            ],
            Self::Proof => &["first", "count", "leaf", "hashes"],
            Self::Head | Self::Rotation | Self::Checkpoint => &["note"],
            Self::End => &["sessions", "events"],
        }
    }
}

/// The values of a line while it is read: `kind` may come last.
#[derive(Default)]
struct Slots<'a> {
    kind: Option<Cow<'a, str>>,
    /// Members seen, by [`Of`]. None comes twice, so the number says whether all are there.
    counts: [usize; 6],
    format: Cow<'a, str>,
    deployment: Cow<'a, str>,
    tenant: Option<TenantId>,
    created_at: Option<Micros>,
    log_key: Cow<'a, str>,
    certificates: Vec<Cow<'a, str>>,
    session_id: Option<SessionId>,
    sequence: Option<Seq>,
    event_id: Option<EventId>,
    timestamp: Option<Micros>,
    received_at: Option<Micros>,
    agent_id: Cow<'a, str>,
    event_type: Cow<'a, str>,
    severity: Severity,
    source_id: Option<Cow<'a, str>>,
    compliance_tag: Cow<'a, str>,
    pii_types: String,
    redactions: Redactions,
    salt: Option<[u8; 16]>,
    payload: Option<Cow<'a, str>>,
    metadata: Option<Cow<'a, str>>,
    content_digest: Option<[u8; 32]>,
    prev_hash: Option<[u8; 32]>,
    hash: Option<[u8; 32]>,
    first: Option<Seq>,
    count: u64,
    leaf: u64,
    hashes: Vec<[u8; 32]>,
    note: Cow<'a, str>,
    sessions: u64,
    events: u64,
}

/// Reads one line, without its newline.
///
/// # Errors
/// What it is, if it is no record: `syntax` in the words of docs/format.md.
pub fn parse(line: &str) -> Result<Record<'_>, RecordError> {
    if !line.starts_with('{') || !line.ends_with('}') {
        return Err(RecordError("expected one JSON object and nothing around it".to_owned()));
    }
    let mut slots = Slots::default();
    let mut reader = Reader::new(line);
    reader.object(|r, name| slots.read(r, name))?;
    reader.end()?;
    let kind = slots.kind.take().ok_or_else(|| RecordError("expected a member \"kind\"".to_owned()))?;
    let of = Of::parse(&kind).ok_or_else(|| RecordError(format!("unknown kind {kind:?}")))?;
    let all: usize = slots.counts.iter().sum();
    if slots.counts[of.counted() as usize] != of.members().len() || all != of.members().len() {
        return Err(wrong_members(line, &kind, of));
    }
    slots.finish(of).ok_or_else(|| RecordError(format!("a member of the {kind} record is missing")))?
}

/// Says which member is missing or too many.
fn wrong_members(line: &str, kind: &str, of: Of) -> RecordError {
    let mut missing = of.members().to_vec();
    let mut extra = None;
    let mut reader = Reader::new(line);
    // It was read once already, so it reads again.
    let _ = reader.object(|r, name| {
        if missing.contains(&name) {
            missing.retain(|m| *m != name);
        } else if name != "kind" {
            extra = Some(name.to_owned());
        }
        r.skip()
    });
    match (missing.first(), extra) {
        (_, Some(name)) => RecordError(format!("a member that no {kind} record has: {name:?}")),
        (name, None) => RecordError(format!("a {kind} record without {:?}", name.unwrap_or(&"kind"))),
    }
}

impl<'a> Slots<'a> {
    fn read(&mut self, r: &mut Reader<'a>, name: &str) -> Result<(), JsonError> {
        let of = match name {
            "kind" => {
                self.kind = Some(r.string()?);
                return Ok(());
            }
            "format" | "deployment" | "tenant" | "created_at" | "log_key" | "certificates" => {
                self.read_bundle(r, name)?;
                Of::Bundle
            }
            "session_id" => {
                self.session_id = Some(text(r, SessionId::parse)?);
                Of::Session
            }
            "first" | "count" | "leaf" | "hashes" => {
                self.read_proof(r, name)?;
                Of::Proof
            }
            "note" => {
                self.note = r.string()?;
                Of::Head
            }
            "sessions" => {
                self.sessions = sequence(r)?.get();
                Of::End
            }
            "events" => {
                self.events = sequence(r)?.get();
                Of::End
            }
            _ => {
                self.read_event(r, name)?;
                Of::Event
            }
        };
        self.counts[of as usize] += 1;
        Ok(())
    }

    fn read_bundle(&mut self, r: &mut Reader<'a>, name: &str) -> Result<(), JsonError> {
        match name {
            "format" => self.format = r.string()?,
            "deployment" => self.deployment = r.string()?,
            "tenant" => self.tenant = Some(text(r, TenantId::parse)?),
            "created_at" => self.created_at = Some(time(r)?),
            "log_key" => self.log_key = r.string()?,
            _ => r.array(|r, _| {
                self.certificates.push(r.string()?);
                Ok(())
            })?,
        }
        Ok(())
    }

    fn read_proof(&mut self, r: &mut Reader<'a>, name: &str) -> Result<(), JsonError> {
        match name {
            "first" => self.first = Some(sequence(r)?),
            "count" => self.count = sequence(r)?.get(),
            "leaf" => self.leaf = sequence(r)?.get(),
            _ => r.array(|r, _| {
                self.hashes.push(hex(r)?);
                Ok(())
            })?,
        }
        Ok(())
    }

    fn read_event(&mut self, r: &mut Reader<'a>, name: &str) -> Result<(), JsonError> {
        match name {
            "sequence" => self.sequence = Some(sequence(r)?),
            "event_id" => self.event_id = Some(event_id(r)?),
            "timestamp" => self.timestamp = Some(time(r)?),
            "received_at" => self.received_at = Some(time(r)?),
            "agent_id" => self.agent_id = r.string()?,
            "event_type" => self.event_type = r.string()?,
            "severity" => self.severity = text(r, |t| Severity::parse(&t))?,
            "source_id" => self.source_id = optional(r)?,
            "compliance_tag" => self.compliance_tag = r.string()?,
            "pii_types" => self.read_pii_types(r)?,
            "redaction_count" => {
                self.redactions.count =
                    u32::try_from(r.unsigned()?).map_err(|_| r.refuse("expected at most 4294967295"))?;
            }
            "redaction_policy" => self.redactions.policy = optional_hex(r)?,
            "salt" => self.salt = optional_hex(r)?,
            "payload" => self.payload = optional(r)?,
            "metadata" => self.metadata = optional(r)?,
            "content_digest" => self.content_digest = optional_hex(r)?,
            "prev_hash" => self.prev_hash = Some(hex(r)?),
            "hash" => self.hash = Some(hex(r)?),
            _ => return Err(r.refuse("a member that no record has")),
        }
        Ok(())
    }

    fn read_pii_types(&mut self, r: &mut Reader<'a>) -> Result<(), JsonError> {
        r.array(|r, index| {
            let name = r.string()?;
            // Here and not by the chain: joined, a name with a comma in it would look like two.
            ids::check_pii_type(&name).map_err(|e| r.refuse(e))?;
            if index >= limits::PII_TYPES_MAX {
                return Err(r.refuse(format_args!("more than {}", limits::PII_TYPES_MAX)));
            }
            if index > 0 {
                self.pii_types.push(',');
            }
            self.pii_types.push_str(&name);
            Ok(())
        })
    }

    /// The record, once all its members are there and no other; `None` would say that one is not.
    fn finish(self, of: Of) -> Option<Result<Record<'a>, RecordError>> {
        Some(match of {
            Of::Bundle => self.bundle_record()?,
            Of::Session => Ok(Record::Session(self.session_id?)),
            Of::Event => self.event_record()?,
            Of::Proof => Ok(Record::Proof(ProofRecord {
                first: self.first?,
                count: self.count,
                leaf: self.leaf,
                hashes: self.hashes,
            })),
            Of::Head => Ok(Record::Head(self.note)),
            Of::Rotation => Ok(Record::Rotation(self.note)),
            Of::Checkpoint => Ok(Record::Checkpoint(self.note)),
            Of::End => Ok(Record::End { sessions: self.sessions, events: self.events }),
        })
    }

    fn bundle_record(self) -> Option<Result<Record<'a>, RecordError>> {
        let refuse = |why: &str| Some(Err(RecordError(why.to_owned())));
        if self.format != FORMAT {
            return refuse(&format!("expected the format {FORMAT:?}, found {:?}", self.format));
        }
        if !is_deployment_name(&self.deployment) {
            return refuse("deployment: expected 1 to 100 of a-z, 0-9, . and -");
        }
        if self.certificates.is_empty() {
            return refuse("certificates: expected at least one");
        }
        Some(Ok(Record::Bundle(BundleRecord {
            deployment: self.deployment,
            tenant: self.tenant?,
            created_at: self.created_at?,
            log_key: self.log_key,
            certificates: self.certificates,
        })))
    }

    fn event_record(self) -> Option<Result<Record<'a>, RecordError>> {
        let content = match (self.content_digest, self.salt, self.payload, self.metadata) {
            (None, Some(salt), Some(payload), Some(metadata)) => {
                RecordContent::Kept { salt, payload, metadata }
            }
            (Some(digest), None, None, None) => RecordContent::Erased { digest },
            _ => {
                let why = "expected salt, payload and metadata, or only a content_digest";
                return Some(Err(RecordError(why.to_owned())));
            }
        };
        Some(Ok(Record::Event(Box::new(EventRecord {
            sequence: self.sequence?,
            event_id: self.event_id?,
            timestamp: self.timestamp?,
            received_at: self.received_at?,
            agent_id: self.agent_id,
            event_type: self.event_type,
            severity: self.severity,
            source_id: self.source_id,
            compliance_tag: self.compliance_tag,
            pii_types: self.pii_types,
            redactions: self.redactions,
            content,
            prev_hash: EventHash(self.prev_hash?),
            hash: EventHash(self.hash?),
        }))))
    }
}
