//! The bytes that are hashed, and the chain of a session (docs/format.md, sections 2 and 3).
//!
//! [`Hasher`] computes, [`ChainCheck`] checks one event after the other, or many at once. No canonical JSON: the chain
//! is over the bytes that are stored, so any language, and plain SQL, can recompute it.

mod hashes;

pub use hashes::{Hashes, content_digests};

use sha2::{Digest, Sha256};

use crate::event::{Content, EventRef};
use crate::ids::{self, EventHash, Seq, SessionId, TenantId, encode_hex};
use crate::json::{self, Kind};
use crate::limits;

/// First line of the hashed lines; a new layout gets a new name.
const EVENT_DOMAIN: &[u8] = b"quipu.event.v1\n";
const CONTENT_DOMAIN: &[u8] = b"quipu.content.v1\n";

/// The digest that stands for salt, payload and metadata, and outlives them.
pub fn content_digest(salt: &[u8; 16], payload: &str, metadata: &str) -> [u8; 32] {
    let mut sha = Sha256::new();
    sha.update(CONTENT_DOMAIN);
    sha.update(salt);
    sha.update(payload.as_bytes());
    sha.update(b"\n");
    sha.update(metadata.as_bytes());
    sha.finalize().into()
}

/// Hashes the events of one session. Keeps its buffer between events.
#[derive(Debug)]
pub struct Hasher {
    /// The line buffer; begins with nothing between events.
    lines: Vec<u8>,
    /// Lines 3 and 4 with the newlines around them: `\n` tenant `\n` session `\n`.
    place: Vec<u8>,
}

impl Hasher {
    /// A hasher for one session.
    pub fn new(tenant: &TenantId, session: &SessionId) -> Self {
        let place = [b"\n", tenant.as_str().as_bytes(), b"\n", session.as_str().as_bytes(), b"\n"].concat();
        Self { lines: Vec::with_capacity(1024), place }
    }

    /// The 17 lines of an event, joined by newlines.
    pub fn lines(&mut self, event: &EventRef<'_>) -> &[u8] {
        let digest = match event.content {
            Content::Kept { salt, payload, metadata } => content_digest(&salt, payload, metadata),
            Content::Erased { digest } => digest,
        };
        self.lines_with(event, &digest)
    }

    fn lines_with(&mut self, event: &EventRef<'_>, digest: &[u8; 32]) -> &[u8] {
        self.lines.clear();
        push_lines(&mut self.lines, &self.place, event);
        push_hex(&mut self.lines, digest);
        &self.lines
    }

    /// The hash of an event, from everything in it but its own `hash`.
    pub fn hash(&mut self, event: &EventRef<'_>) -> EventHash {
        EventHash(Sha256::digest(self.lines(event)).into())
    }

    /// The same, with the digest of its content at hand ([`content_digests`]).
    pub fn hash_with(&mut self, event: &EventRef<'_>, content_digest: &[u8; 32]) -> EventHash {
        EventHash(Sha256::digest(self.lines_with(event, content_digest)).into())
    }
}

/// Appends the first 16 lines of an event and their newlines: all but the digest of its content.
fn push_lines(out: &mut Vec<u8>, place: &[u8], event: &EventRef<'_>) {
    out.extend_from_slice(EVENT_DOMAIN);
    push_hex(out, &event.prev_hash.0);
    out.extend_from_slice(place);
    push_number(out, event.sequence.get(), false);
    out.push(b'\n');
    out.extend_from_slice(event.event_id.encode(&mut [0; 36]).as_bytes());
    out.push(b'\n');
    for time in [event.timestamp, event.received_at] {
        push_number(out, time.get().unsigned_abs(), time.get() < 0);
        out.push(b'\n');
    }
    let severity = event.severity.as_str();
    let source = event.source_id.unwrap_or_default();
    for text in [event.agent_id, event.event_type, severity, source, event.compliance_tag, event.pii_types] {
        out.extend_from_slice(text.as_bytes());
        out.push(b'\n');
    }
    push_number(out, u64::from(event.redactions.count), false);
    out.push(b'\n');
    if let Some(policy) = event.redactions.policy {
        push_hex(out, &policy);
    }
    out.push(b'\n');
}

fn push_hex(out: &mut Vec<u8>, bytes: &[u8; 32]) {
    let at = out.len();
    out.resize(at + 64, 0);
    encode_hex(bytes, &mut out[at..]);
}

fn push_number(out: &mut Vec<u8>, mut value: u64, negative: bool) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    if negative {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[at..]);
}

/// What is wrong with an event in its chain. The order of the checks is that of docs/format.md, section 5.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// A field is against its syntax.
    #[error("{field} {why}")]
    Syntax {
        /// Name of the field.
        field: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// Not the next sequence.
    #[error("sequence: expected {expected}, found {found}")]
    Sequence {
        /// The next one.
        expected: u64,
        /// The one that stands there.
        found: u64,
    },
    /// Does not name the hash of the event before.
    #[error("prev_hash: expected {expected}, found {found}")]
    PrevHash {
        /// Hash of the event before.
        expected: EventHash,
        /// What stands there.
        found: EventHash,
    },
    /// Its bytes do not give its hash.
    #[error("hash: the event's bytes give {computed}, found {found}")]
    Hash {
        /// From its bytes.
        computed: EventHash,
        /// What stands there.
        found: EventHash,
    },
}

/// Checks the events of one session, one after the other.
#[derive(Debug)]
pub struct ChainCheck {
    hasher: Hasher,
    next: u64,
    prev: EventHash,
}

impl ChainCheck {
    /// Starts at sequence 0.
    pub fn new(tenant: &TenantId, session: &SessionId) -> Self {
        Self { hasher: Hasher::new(tenant, session), next: 0, prev: EventHash::ZERO }
    }

    /// Goes on after the event before `next`, whose hash is `prev`.
    pub fn resume(tenant: &TenantId, session: &SessionId, next: Seq, prev: EventHash) -> Self {
        Self { hasher: Hasher::new(tenant, session), next: next.get(), prev }
    }

    /// The sequence that comes next; of a chain that began at 0, how many events were right so far.
    pub fn count(&self) -> u64 {
        self.next
    }

    /// Hash of the last right event; zeros before the first.
    pub fn head(&self) -> EventHash {
        self.prev
    }

    /// Checks the next event.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn push(&mut self, event: &EventRef<'_>) -> Result<(), ChainError> {
        self.check_place(event)?;
        let computed = self.hasher.hash(event);
        if computed != event.hash {
            return Err(ChainError::Hash { computed, found: event.hash });
        }
        self.step(event);
        Ok(())
    }

    /// Checks all of the next events, as [`Self::push`] would one after the other, and hashes them together. After an
    /// error [`Self::count`] is the sequence of the event that is wrong.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn push_all(&mut self, events: &[EventRef<'_>]) -> Result<(), ChainError> {
        let mut hashes = Hashes::default();
        let end = events.iter().try_for_each(|event| self.push_unhashed(event, &mut hashes));
        if let Some((index, error)) = hashes.first_wrong() {
            // Of those before it every link is right, its own too.
            (self.next, self.prev) = (events[index].sequence.get(), events[index].prev_hash);
            return Err(error);
        }
        end
    }

    /// Checks everything of the next event but that its bytes give its hash: that is left to `hashes`. What this
    /// check says from here on holds only if [`Hashes::first_wrong`] finds nothing.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn push_unhashed<'e>(
        &mut self,
        event: &EventRef<'e>,
        hashes: &mut Hashes<'e>,
    ) -> Result<(), ChainError> {
        self.check_place(event)?;
        hashes.push(&self.hasher, event);
        self.step(event);
        Ok(())
    }

    fn check_place(&self, event: &EventRef<'_>) -> Result<(), ChainError> {
        check_syntax(event)?;
        if event.sequence.get() != self.next {
            return Err(ChainError::Sequence { expected: self.next, found: event.sequence.get() });
        }
        if event.prev_hash != self.prev {
            return Err(ChainError::PrevHash { expected: self.prev, found: event.prev_hash });
        }
        Ok(())
    }

    fn step(&mut self, event: &EventRef<'_>) {
        self.prev = event.hash;
        self.next += 1;
    }
}

/// Checks the syntax of an event's fields (docs/format.md, section 2). What types already guarantee is not
/// checked again.
///
/// # Errors
/// The first field that is wrong.
pub fn check_syntax(event: &EventRef<'_>) -> Result<(), ChainError> {
    fn named<E: std::fmt::Display>(field: &'static str) -> impl Fn(E) -> ChainError {
        move |e| ChainError::Syntax { field, why: e.to_string() }
    }
    ids::check_agent(event.agent_id).map_err(named("agent_id"))?;
    ids::check_event_type(event.event_type).map_err(named("event_type"))?;
    ids::check_tag(event.compliance_tag).map_err(named("compliance_tag"))?;
    if let Some(source) = event.source_id {
        ids::check_source(source).map_err(named("source_id"))?;
    }
    check_pii_types(event.pii_types).map_err(named("pii_types"))?;
    if let Content::Kept { payload, metadata, .. } = event.content {
        check_size(payload, limits::PAYLOAD_BYTES_MAX).map_err(named("payload"))?;
        check_size(metadata, limits::METADATA_BYTES_MAX).map_err(named("metadata"))?;
        json::check_compact(payload, None).map_err(named("payload"))?;
        // Nearly every event has the empty one.
        if metadata != "{}" {
            json::check_compact(metadata, Some(Kind::Object)).map_err(named("metadata"))?;
        }
    }
    Ok(())
}

fn check_size(text: &str, limit: usize) -> Result<(), String> {
    if text.len() <= limit { Ok(()) } else { Err(format!("is {} bytes long, at most {limit}", text.len())) }
}

/// Checks a joined list of PII kinds: each well formed, sorted, none twice.
///
/// # Errors
/// What is wrong with it.
pub fn check_pii_types(joined: &str) -> Result<(), String> {
    if joined.is_empty() {
        return Ok(());
    }
    let mut last = "";
    let mut count = 0;
    for name in joined.split(',') {
        ids::check_pii_type(name).map_err(|e| e.to_string())?;
        count += 1;
        if name <= last || count > limits::PII_TYPES_MAX {
            return Err(format!("must be sorted, without repeats, at most {}", limits::PII_TYPES_MAX));
        }
        last = name;
    }
    Ok(())
}
