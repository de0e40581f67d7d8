//! The body: columns under zstd, hashes and salts beside them (they do not compress).

use std::cell::RefCell;

use crate::chain::{Hasher, content_digest, content_digests};
use crate::codec::{Cursor, Malformed, put_bytes, put_signed, put_varint};
use crate::event::{Content, EventRef, Redactions};
use crate::ids::{CommitId, EventHash, EventId, Seq, SessionId, Severity, TenantId};
use crate::limits;
use crate::summary::Summary;
use crate::time::Micros;

use super::{Head, Numbered, Placed, Segment, SegmentError, SegmentMeta};

const VERSION: u8 = 0x01;

/// zstd level of a body. Measured on the bench's events, batches of 100: see docs/adr/0003-segment-encoding.md.
const ZSTD_LEVEL: i32 = 3;

const FLAG_ERASED: u8 = 1 << 3;
const FLAG_SOURCE: u8 = 1 << 4;
const FLAG_PII: u8 = 1 << 5;
const FLAG_REDACTIONS: u8 = 1 << 6;

const COLUMNS: usize = 14;
const NUMBERS: usize = 0;
const FLAGS: usize = 1;
const TIMES: usize = 2;
const AGENTS: usize = 3;
const TYPES: usize = 4;
const TAGS: usize = 5;
const SOURCES: usize = 6;
const PII: usize = 7;
const REDACTED: usize = 8;
const METADATA_LENGTHS: usize = 9;
const PAYLOAD_LENGTHS: usize = 10;
const METADATA: usize = 11;
const PAYLOADS: usize = 12;
const DIGESTS: usize = 13;

thread_local! {
    /// A compression context costs a megabyte to set up; one is kept for each thread.
    static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
}

fn compress(columns: &[u8]) -> Result<Vec<u8>, SegmentError> {
    COMPRESSOR.with_borrow_mut(|slot| {
        let fail = |e: std::io::Error| SegmentError::Zstd(e.to_string());
        let compressor = match slot {
            Some(compressor) => compressor,
            None => slot.insert(zstd::bulk::Compressor::new(ZSTD_LEVEL).map_err(fail)?),
        };
        compressor.compress(columns).map_err(fail)
    })
}

/// What a body says once, before its columns.
#[derive(Debug, Clone, Copy)]
struct Preamble {
    commit_id: CommitId,
    received_at: Micros,
    first: Seq,
    prev_hash: EventHash,
}

/// The columns while they are filled.
struct Columns {
    parts: [Vec<u8>; COLUMNS],
    salts: Vec<u8>,
    hashes: Vec<u8>,
    count: usize,
    last_time: i64,
    last_agent: String,
    last_type: String,
    last_tag: String,
}

/// Writes a text, or nothing if it is that of the event before.
fn put_repeated(column: &mut Vec<u8>, last: &mut String, text: &str) {
    if last == text {
        column.push(0);
    } else {
        put_bytes(column, text.as_bytes());
        text.clone_into(last);
    }
}

impl Columns {
    fn new(preamble: &Preamble) -> Self {
        Self {
            parts: Default::default(),
            salts: Vec::new(),
            hashes: Vec::new(),
            count: 0,
            last_time: preamble.received_at.get(),
            last_agent: String::new(),
            last_type: String::new(),
            last_tag: String::new(),
        }
    }

    fn push(&mut self, number: u16, event: &EventRef<'_>) {
        let parts = &mut self.parts;
        let mut flags = event.severity as u8;
        put_varint(&mut parts[NUMBERS], u64::from(number));
        put_signed(&mut parts[TIMES], event.timestamp.get() - self.last_time);
        self.last_time = event.timestamp.get();
        put_repeated(&mut parts[AGENTS], &mut self.last_agent, event.agent_id);
        put_repeated(&mut parts[TYPES], &mut self.last_type, event.event_type);
        put_repeated(&mut parts[TAGS], &mut self.last_tag, event.compliance_tag);
        if let Some(source) = event.source_id {
            flags |= FLAG_SOURCE;
            put_bytes(&mut parts[SOURCES], source.as_bytes());
        }
        if !event.pii_types.is_empty() {
            flags |= FLAG_PII;
            put_bytes(&mut parts[PII], event.pii_types.as_bytes());
        }
        if event.redactions != Redactions::default() {
            flags |= FLAG_REDACTIONS;
            put_varint(&mut parts[REDACTED], u64::from(event.redactions.count));
            put_bytes(&mut parts[REDACTED], event.redactions.policy.as_ref().map_or(&[][..], |p| &p[..]));
        }
        let (salt, payload, metadata) = match event.content {
            Content::Kept { salt, payload, metadata } => (salt, payload, metadata),
            Content::Erased { digest } => {
                flags |= FLAG_ERASED;
                parts[DIGESTS].extend_from_slice(&digest);
                ([0; 16], "", "")
            }
        };
        put_varint(&mut parts[METADATA_LENGTHS], metadata.len() as u64);
        put_varint(&mut parts[PAYLOAD_LENGTHS], payload.len() as u64);
        parts[METADATA].extend_from_slice(metadata.as_bytes());
        parts[PAYLOADS].extend_from_slice(payload.as_bytes());
        parts[FLAGS].push(flags);
        self.salts.extend_from_slice(&salt);
        self.hashes.extend_from_slice(&event.hash.0);
        self.count += 1;
    }

    fn finish(&self, preamble: &Preamble) -> Result<Vec<u8>, SegmentError> {
        let mut columns = Vec::with_capacity(self.parts.iter().map(|p| p.len() + 4).sum());
        for part in &self.parts {
            put_bytes(&mut columns, part);
        }
        let frame = compress(&columns)?;
        let mut body = Vec::with_capacity(96 + self.salts.len() + self.hashes.len() + frame.len());
        body.push(VERSION);
        body.extend_from_slice(&preamble.commit_id.to_bytes());
        put_signed(&mut body, preamble.received_at.get());
        put_varint(&mut body, preamble.first.get());
        body.extend_from_slice(&preamble.prev_hash.0);
        put_varint(&mut body, self.count as u64);
        body.extend_from_slice(&self.salts);
        body.extend_from_slice(&self.hashes);
        put_varint(&mut body, columns.len() as u64);
        body.extend_from_slice(&frame);
        Ok(body)
    }
}

/// Chains new events on a session's head and encodes them. `salts` holds 16 random bytes for each event.
///
/// # Errors
/// If zstd fails.
///
/// # Panics
/// If there is no event, or not one salt for each, or the sequence would pass 2^63.
pub fn chain(
    tenant: &TenantId,
    session: &SessionId,
    head: Option<Head>,
    commit_id: CommitId,
    received_at: Micros,
    events: &[Numbered],
    salts: &[[u8; 16]],
) -> Result<(Segment, Vec<Placed>), SegmentError> {
    assert!(!events.is_empty() && events.len() == salts.len(), "one salt for each of some events");
    let first = head.map_or(Some(Seq::ZERO), |h| h.sequence.checked_add(1)).expect("sequences end at 2^63");
    let prev_hash = head.map_or(EventHash::ZERO, |h| h.hash);
    let preamble = Preamble { commit_id, received_at, first, prev_hash };
    let mut columns = Columns::new(&preamble);
    let mut hasher = Hasher::new(tenant, session);
    let mut placed = Vec::with_capacity(events.len());
    let mut summary: Option<Summary> = None;
    let mut prev = prev_hash;
    // The hashes wait for each other, the contents do not.
    let contents = events
        .iter()
        .zip(salts)
        .map(|(Numbered { event, .. }, salt)| (*salt, event.payload.as_str(), event.metadata.as_str()));
    let digests = content_digests(contents);
    for (index, ((Numbered { number, event }, salt), digest)) in
        events.iter().zip(salts).zip(&digests).enumerate()
    {
        let pii_types = event.pii_types.join(",");
        let mut chained = EventRef {
            sequence: first.checked_add(index as u64).expect("sequences end at 2^63"),
            event_id: commit_id.event(*number),
            timestamp: event.timestamp.unwrap_or(received_at),
            received_at,
            agent_id: event.agent_id.as_str(),
            event_type: event.event_type.as_str(),
            severity: event.severity,
            source_id: event.source_id.as_ref().map(|s| s.as_str()),
            compliance_tag: event.compliance_tag.as_str(),
            pii_types: &pii_types,
            redactions: event.redactions,
            content: Content::Kept { salt: *salt, payload: &event.payload, metadata: &event.metadata },
            prev_hash: prev,
            hash: EventHash::ZERO,
        };
        chained.hash = hasher.hash_with(&chained, digest);
        prev = chained.hash;
        columns.push(*number, &chained);
        match &mut summary {
            Some(summary) => summary.push(&chained),
            None => summary = Some(Summary::of(&chained)),
        }
        placed.push(Placed {
            number: *number,
            event_id: chained.event_id,
            sequence: chained.sequence,
            hash: prev,
        });
    }
    let body = columns.finish(&preamble)?;
    let meta = SegmentMeta {
        commit_id,
        received_at,
        first,
        last: first.checked_add(events.len() as u64 - 1).expect("sequences end at 2^63"),
        prev_hash,
        last_hash: prev,
        body_bytes: body.len() as u64,
        summary: summary.expect("at least one event"),
    };
    Ok((Segment { session_id: session.clone(), meta, body: body.into() }, placed))
}

/// A segment without the contents of some of its events: its attributes and its body, of the same bytes whenever it is
/// made. Numbers that the attributes count stay; an agent's name and tags, which are text, are what is left gives. `None`
/// if none of the events is there with its content.
///
/// # Errors
/// If the body is not one.
pub fn erase(
    meta: &SegmentMeta,
    body: &[u8],
    erased: impl Fn(EventId) -> bool,
) -> Result<Option<(SegmentMeta, Vec<u8>)>, SegmentError> {
    let mut reader = SegmentReader::new()?;
    let view = reader.open(body)?;
    let mut columns = Columns::new(&view.preamble);
    let mut summary: Option<Summary> = None;
    let mut count = 0;
    for event in view.events() {
        let mut event = event?;
        if let Content::Kept { salt, payload, metadata } = event.content
            && erased(event.event_id)
        {
            event.content = Content::Erased { digest: content_digest(&salt, payload, metadata) };
            count += 1;
        }
        columns.push(event.event_id.number(), &event);
        match &mut summary {
            Some(summary) => summary.push(&event),
            None => summary = Some(Summary::of(&event)),
        }
    }
    let Some(left) = summary.filter(|_| count > 0) else { return Ok(None) };
    let body = columns.finish(&view.preamble)?;
    let mut meta = SegmentMeta { body_bytes: body.len() as u64, ..meta.clone() };
    (meta.summary.agent_name, meta.summary.tags) = (left.agent_name, left.tags);
    Ok(Some((meta, body)))
}

/// Most bytes at the front of a body that [`unpacked_bytes`] looks at: all that stands before the columns.
#[cfg(feature = "embedded")]
pub(crate) const FRONT_BYTES_MAX: usize =
    1 + 16 + 10 + 10 + 32 + 10 + limits::BATCH_EVENTS_MAX * (16 + 32) + 10;

/// Length of a body's columns before compression, bytes: as its preamble says, nothing is decompressed. Of bytes that
/// are no body, their own length: it is for planning, and whoever reads the body will find out.
pub fn unpacked_bytes(body: &[u8]) -> u64 {
    columns_length(body).unwrap_or(body.len() as u64)
}

fn columns_length(body: &[u8]) -> Result<u64, Malformed> {
    let mut cursor = Cursor(body);
    if cursor.byte()? != VERSION {
        return Err(Malformed("an unknown version of the body"));
    }
    cursor.take(16)?;
    cursor.signed()?;
    cursor.varint()?;
    cursor.take(32)?;
    let count = cursor.length(limits::BATCH_EVENTS_MAX)?;
    cursor.take(count * (16 + 32))?;
    Ok(cursor.length(limits::SEGMENT_COLUMNS_BYTES_MAX)? as u64)
}

/// Reads bodies. Keeps its buffer and its zstd context from one to the next.
pub struct SegmentReader {
    zstd: zstd::bulk::Decompressor<'static>,
    columns: Vec<u8>,
}

impl std::fmt::Debug for SegmentReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SegmentReader")
    }
}

impl SegmentReader {
    /// A reader.
    ///
    /// # Errors
    /// If zstd cannot make a context.
    pub fn new() -> Result<Self, SegmentError> {
        let zstd = zstd::bulk::Decompressor::new().map_err(|e| SegmentError::Zstd(e.to_string()))?;
        Ok(Self { zstd, columns: Vec::new() })
    }

    /// Opens a body.
    ///
    /// # Errors
    /// If it is not one. Events are decoded, and may still be found malformed, one by one.
    pub fn open<'s>(&'s mut self, body: &'s [u8]) -> Result<SegmentView<'s>, SegmentError> {
        let mut cursor = Cursor(body);
        if cursor.byte()? != VERSION {
            return Err(Malformed("an unknown version of the body").into());
        }
        let preamble = Preamble {
            commit_id: CommitId::from_bytes(cursor.array()?).ok_or(Malformed("a commit id that is none"))?,
            received_at: Micros::new(cursor.signed()?).ok_or(Malformed("received_at out of range"))?,
            first: Seq::new(cursor.varint()?).ok_or(Malformed("a sequence out of range"))?,
            prev_hash: EventHash(cursor.array()?),
        };
        let count = cursor.length(limits::BATCH_EVENTS_MAX)?;
        if count == 0 || preamble.first.checked_add(count as u64).is_none() {
            return Err(Malformed("no events, or sequences past 2^63").into());
        }
        let salts = cursor.take(count * 16)?;
        let hashes = cursor.take(count * 32)?;
        let length = cursor.length(limits::SEGMENT_COLUMNS_BYTES_MAX)?;
        self.columns.clear();
        self.columns.reserve(length);
        let written = self
            .zstd
            .decompress_to_buffer(cursor.0, &mut self.columns)
            .map_err(|e| SegmentError::Zstd(e.to_string()))?;
        if written != length {
            return Err(Malformed("columns of another length than it says").into());
        }
        let mut cursor = Cursor(&self.columns);
        let mut parts = [Cursor(&[]); COLUMNS];
        for part in &mut parts {
            *part = Cursor(cursor.bytes()?);
        }
        cursor.end()?;
        let text = |part: usize| {
            std::str::from_utf8(parts[part].0).map_err(|_| Malformed("content that is not UTF-8"))
        };
        Ok(SegmentView {
            preamble,
            count,
            salts,
            hashes,
            metadata: text(METADATA)?,
            payloads: text(PAYLOADS)?,
            parts,
        })
    }
}

/// An open body.
#[derive(Debug, Clone, Copy)]
pub struct SegmentView<'s> {
    preamble: Preamble,
    count: usize,
    salts: &'s [u8],
    hashes: &'s [u8],
    metadata: &'s str,
    payloads: &'s str,
    parts: [Cursor<'s>; COLUMNS],
}

impl<'s> SegmentView<'s> {
    /// The commit that wrote it.
    pub fn commit_id(&self) -> CommitId {
        self.preamble.commit_id
    }

    /// When, by the ledger's clock.
    pub fn received_at(&self) -> Micros {
        self.preamble.received_at
    }

    /// How many events it holds.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Its events, in order. After an error there is no more.
    pub fn events(&self) -> Events<'s> {
        Events {
            view: *self,
            index: 0,
            prev: self.preamble.prev_hash,
            time: self.preamble.received_at.get(),
            number: 0,
            agent: "",
            event_type: "",
            tag: "",
        }
    }
}

/// The events of an open body; see [`SegmentView::events`].
#[derive(Debug)]
pub struct Events<'s> {
    /// Its cursors and texts are eaten from the front.
    view: SegmentView<'s>,
    index: usize,
    prev: EventHash,
    time: i64,
    number: u64,
    agent: &'s str,
    event_type: &'s str,
    tag: &'s str,
}

fn repeated<'s>(column: &mut Cursor<'s>, last: &mut &'s str) -> Result<&'s str, Malformed> {
    let text = column.text()?;
    if !text.is_empty() {
        *last = text;
    } else if last.is_empty() {
        return Err(Malformed("a repetition of nothing"));
    }
    Ok(*last)
}

fn eat<'s>(text: &mut &'s str, lengths: &mut Cursor<'s>) -> Result<&'s str, Malformed> {
    let count = lengths.length(text.len())?;
    let (taken, rest) = text.split_at_checked(count).ok_or(Malformed("content cut inside a character"))?;
    *text = rest;
    Ok(taken)
}

impl<'s> Events<'s> {
    fn read(&mut self) -> Result<EventRef<'s>, Malformed> {
        let index = self.index;
        let view = &mut self.view;
        let parts = &mut view.parts;
        let number = parts[NUMBERS].varint()?;
        if number <= self.number || number > limits::BATCH_EVENTS_MAX as u64 {
            return Err(Malformed("event numbers that do not rise to 1000"));
        }
        self.number = number;
        let flags = parts[FLAGS].byte()?;
        if flags >> 7 != 0 {
            return Err(Malformed("an unknown flag"));
        }
        let delta = parts[TIMES].signed()?;
        self.time = self.time.checked_add(delta).ok_or(Malformed("a timestamp out of range"))?;
        let metadata = eat(&mut view.metadata, &mut parts[METADATA_LENGTHS])?;
        let payload = eat(&mut view.payloads, &mut parts[PAYLOAD_LENGTHS])?;
        let salt: [u8; 16] = view.salts[index * 16..][..16].try_into().map_err(|_| Malformed("salts"))?;
        let content = if flags & FLAG_ERASED == 0 {
            Content::Kept { salt, payload, metadata }
        } else if salt == [0; 16] && payload.is_empty() && metadata.is_empty() {
            Content::Erased { digest: parts[DIGESTS].array()? }
        } else {
            return Err(Malformed("content of an erased event"));
        };
        let hash = EventHash(view.hashes[index * 32..][..32].try_into().map_err(|_| Malformed("hashes"))?);
        let redactions = if flags & FLAG_REDACTIONS == 0 {
            Redactions::default()
        } else {
            let count = u32::try_from(parts[REDACTED].varint()?).map_err(|_| Malformed("redaction count"))?;
            let policy = match parts[REDACTED].bytes()? {
                [] => None,
                bytes => Some(bytes.try_into().map_err(|_| Malformed("redaction policy"))?),
            };
            Redactions { count, policy }
        };
        let event = EventRef {
            sequence: view
                .preamble
                .first
                .checked_add(index as u64)
                .ok_or(Malformed("a sequence out of range"))?,
            event_id: view.preamble.commit_id.event(number as u16),
            timestamp: Micros::new(self.time).ok_or(Malformed("a timestamp out of range"))?,
            received_at: view.preamble.received_at,
            agent_id: repeated(&mut parts[AGENTS], &mut self.agent)?,
            event_type: repeated(&mut parts[TYPES], &mut self.event_type)?,
            severity: Severity::from_number(flags & 7).ok_or(Malformed("an unknown severity"))?,
            source_id: if flags & FLAG_SOURCE == 0 { None } else { Some(parts[SOURCES].text()?) },
            compliance_tag: repeated(&mut parts[TAGS], &mut self.tag)?,
            pii_types: if flags & FLAG_PII == 0 { "" } else { parts[PII].text()? },
            redactions,
            content,
            prev_hash: self.prev,
            hash,
        };
        self.prev = hash;
        self.index += 1;
        if self.index == view.count {
            for part in &parts[..METADATA] {
                part.end()?;
            }
            parts[DIGESTS].end()?;
            if !view.metadata.is_empty() || !view.payloads.is_empty() {
                return Err(Malformed("content past the last event"));
            }
        }
        Ok(event)
    }
}

impl<'s> Iterator for Events<'s> {
    type Item = Result<EventRef<'s>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.index >= self.view.count {
            return None;
        }
        let event = self.read();
        if event.is_err() {
            self.index = self.view.count;
        }
        Some(event)
    }
}
