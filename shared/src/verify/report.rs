//! The verdict, in words and as JSON.

use std::fmt;

use serde::ser::{Serialize, SerializeMap as _, Serializer};

use crate::ids::{SessionId, TenantId};

use super::Options;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Everything was checked and is right.
    Valid,
    /// Something is wrong; the finding says what and where.
    Invalid,
    /// Nothing wrong was found, but not everything could be checked; the finding says what is missing.
    Incomplete,
}

impl Verdict {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Valid => "VALID",
            Self::Invalid => "INVALID",
            Self::Incomplete => "INCOMPLETE",
        }
    }

    /// 0, 1 or 2.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Valid => 0,
            Self::Invalid => 1,
            Self::Incomplete => 2,
        }
    }
}

/// What a finding is about: the codes of docs/format.md, section 5, and those of a data directory and
/// of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// A line, a field or the order of the records.
    Syntax,
    /// The log key or a certificate.
    Key,
    /// A gap, or an event out of order.
    Sequence,
    /// A link of the chain.
    PrevHash,
    /// The bytes of an event.
    Hash,
    /// The signed end of a session.
    Head,
    /// The bundle does not end where it should.
    Truncated,
    /// The counts at the end.
    Count,
    /// Nothing where something must be.
    Empty,
    /// A receipt is not genuine, or what it promises is not there.
    Receipt,
    /// No key was given from outside.
    NoKey,
    /// The session of a receipt is not among those checked.
    ReceiptNotCovered,
    /// Something cannot be opened or read.
    Unreadable,
    /// A checkpoint is missing, not genuine, or says something else than the tree.
    Checkpoint,
    /// A proof does not verify.
    Proof,
    /// A checkpoint that was given is not one of this log, or the log is shorter or another.
    Rollback,
    /// A checkpoint was given that what was checked cannot be compared with.
    CheckpointNotCovered,
    /// An archive's objects and its headers do not fit together, or an object is not what its header says.
    Object,
    /// An archive's headers do not follow each other, or end before the hot tier knows they do.
    Log,
    /// A batch's header.
    Header,
    /// The log key's word for a header.
    Signature,
    /// A tile or an entry bundle is not what the leaves give.
    Tile,
    /// A crash left the last batch unfinished.
    Unfinished,
    /// An event's content is gone, and no true tombstone says that it was erased.
    Erased,
    /// The tombstone of an erased event is not among what was checked.
    TombstoneNotCovered,
    /// A directory's segment does not decode, or stands in the wrong place.
    Segment,
    /// A directory's segment attributes do not say what its events say.
    Attributes,
    /// A directory's derived table does not say what its segments say.
    Derived,
    /// A directory's database does not say what it should at its lowest level.
    Store,
}

impl Code {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Syntax => "syntax",
            Self::Key => "key",
            Self::Sequence => "sequence",
            Self::PrevHash => "prev_hash",
            Self::Hash => "hash",
            Self::Head => "head",
            Self::Truncated => "truncated",
            Self::Count => "count",
            Self::Empty => "empty",
            Self::Receipt => "receipt",
            Self::NoKey => "no_key",
            Self::ReceiptNotCovered => "receipt_not_covered",
            Self::Unreadable => "unreadable",
            Self::Checkpoint => "checkpoint",
            Self::Proof => "proof",
            Self::Rollback => "rollback",
            Self::CheckpointNotCovered => "checkpoint_not_covered",
            Self::Object => "object",
            Self::Log => "log",
            Self::Header => "header",
            Self::Signature => "signature",
            Self::Tile => "tile",
            Self::Unfinished => "unfinished",
            Self::Erased => "erased",
            Self::TombstoneNotCovered => "tombstone_not_covered",
            Self::Segment => "segment",
            Self::Attributes => "attributes",
            Self::Derived => "derived",
            Self::Store => "store",
        }
    }
}

/// What is wrong or missing, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it is about.
    pub code: Code,
    /// The tenant, where that is known.
    pub tenant: Option<TenantId>,
    /// The batch of an archive, where it is about one.
    pub batch: Option<u64>,
    /// The session, where it is about one.
    pub session_id: Option<SessionId>,
    /// The event, where it is about one whose syntax is right.
    pub sequence: Option<u64>,
    /// The line of a bundle, from 1.
    pub line: Option<u64>,
    /// What was expected and what was found.
    pub message: String,
}

impl Finding {
    /// Without a place.
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, tenant: None, batch: None, session_id: None, sequence: None, line: None, message }
    }
}

/// Up to where a tenant's log was checked and is right: to be kept outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogReport {
    /// Whose log.
    pub tenant: TenantId,
    /// Its batches.
    pub batches: u64,
    /// Leaves of its tree, which are its events.
    pub tree_size: u64,
    /// Root of its tree.
    pub root: [u8; 32],
}

impl Serialize for LogReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(4))?;
        map.serialize_entry("tenant", &self.tenant)?;
        map.serialize_entry("batches", &self.batches)?;
        map.serialize_entry("tree_size", &self.tree_size)?;
        map.serialize_entry("root", &crate::ids::hex(&self.root))?;
        map.end()
    }
}

impl fmt::Display for LogReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (events, batches) = (count(self.tree_size, "event"), count(self.batches, "batch"));
        let batches = if self.batches == 1 { batches } else { batches.replace("batchs", "batches") };
        write!(
            f,
            "Log of {}: valid up to checkpoint {} ({events} in {batches}, root {}).",
            self.tenant,
            self.tree_size,
            crate::ids::hex(&self.root)
        )
    }
}

/// How a check ended, and how much was checked until then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The verdict.
    pub verdict: Verdict,
    /// None if it is VALID.
    pub finding: Option<Finding>,
    /// Tenants seen.
    pub tenants: u64,
    /// Sessions seen.
    pub sessions: u64,
    /// Events whose chain is right.
    pub events: u64,
    /// Bytes that their hashes are over.
    pub bytes_hashed: u64,
    /// The logs of an archive, in the order of their tenants, as far as they were checked.
    pub logs: Vec<LogReport>,
    /// What a reader of the verdict should know besides.
    pub notes: Vec<String>,
}

impl Report {
    /// Of a check that has not begun.
    pub(super) fn nothing() -> Self {
        Self {
            verdict: Verdict::Incomplete,
            finding: None,
            tenants: 0,
            sessions: 0,
            events: 0,
            bytes_hashed: 0,
            logs: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Of something that cannot be opened.
    pub(super) fn unreadable(message: String) -> Self {
        Self { finding: Some(Finding::new(Code::Unreadable, message)), ..Self::nothing() }
    }
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let finding = self.finding.as_ref();
        let mut map = serializer.serialize_map(Some(14))?;
        map.serialize_entry("verdict", self.verdict.as_str())?;
        map.serialize_entry("code", &finding.map(|f| f.code.as_str()))?;
        map.serialize_entry("session_id", &finding.and_then(|f| f.session_id.as_ref()))?;
        map.serialize_entry("sequence", &finding.and_then(|f| f.sequence))?;
        map.serialize_entry("line", &finding.and_then(|f| f.line))?;
        map.serialize_entry("message", &finding.map(|f| &f.message))?;
        map.serialize_entry("sessions", &self.sessions)?;
        map.serialize_entry("events", &self.events)?;
        map.serialize_entry("tenant", &finding.and_then(|f| f.tenant.as_ref()))?;
        map.serialize_entry("tenants", &self.tenants)?;
        map.serialize_entry("bytes_hashed", &self.bytes_hashed)?;
        map.serialize_entry("notes", &self.notes)?;
        map.serialize_entry("batch", &finding.and_then(|f| f.batch))?;
        map.serialize_entry("logs", &self.logs)?;
        map.end()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.verdict.as_str())?;
        f.write_str("  ")?;
        let counts = format!("{}, {}", count(self.sessions, "session"), count(self.events, "event"));
        match &self.finding {
            None => write!(f, "{counts}.")?,
            Some(finding) => write!(f, "{finding} ({counts} checked before.)")?,
        }
        for note in &self.notes {
            write!(f, " {note}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "code {}", self.code.as_str())?;
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        if let Some(tenant) = &self.tenant {
            write!(f, ", tenant {tenant}")?;
        }
        if let Some(batch) = self.batch {
            write!(f, ", batch {batch}")?;
        }
        if let Some(session) = &self.session_id {
            write!(f, ", session {:?}", session.as_str())?;
        }
        if let Some(sequence) = self.sequence {
            write!(f, ", sequence {sequence}")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// `5,310 events`.
fn count(number: u64, what: &str) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    format!("{text} {what}{}", if number == 1 { "" } else { "s" })
}

/// What a verdict says, and what only something kept outside could say.
pub(super) fn freshness(options: &Options) -> String {
    let held: Vec<String> = [(options.receipts.len(), "receipt"), (options.checkpoints.len(), "checkpoint")]
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, what)| count(number as u64, what))
        .collect();
    if held.is_empty() {
        return "Freshness not proved: no receipt or checkpoint was given.".to_owned();
    }
    format!("Held against {}.", held.join(" and "))
}

/// How much of a bundle its proofs cover.
pub(super) fn proved(proved: u64, events: u64, tree_size: u64) -> String {
    format!(
        "{} of {} in the log up to checkpoint {tree_size}.",
        count(proved, "event"),
        count(events, "event")
    )
}
