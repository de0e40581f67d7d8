//! The check of one session of a data directory: its segments, their attributes, its chain.

use std::collections::HashMap;

use crate::chain::{ChainCheck, ChainError, Hashes};
use crate::event::Content;
use crate::ids::{EventHash, Seq, SessionId, TenantId};
use crate::segment::{Head, SegmentMeta, SegmentReader, SegmentView};
use crate::store::StoreError;
use crate::store::embedded::{Inspector, StoredSegment};
use crate::summary::Summary;

use super::erased::Erasures;
use super::{Bad, Code, HashedBytes};

/// How much of a session was right.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) events: u64,
    pub(super) erased: u64,
    pub(super) bytes: u64,
}

/// The first thing that is wrong with a session.
#[derive(Debug)]
pub(super) struct BadSession {
    pub(super) bad: Bad,
    pub(super) sequence: Option<Seq>,
}

/// What a store's error says about the file: damage, or that it cannot be read.
pub(super) fn store_error(error: &StoreError) -> Bad {
    match error {
        StoreError::Corrupt { .. } => Bad::new(Code::Store, error.to_string()),
        other => Bad::new(Code::Unreadable, other.to_string()),
    }
}

/// One session while it is checked.
pub(super) struct Check<'a> {
    pub(super) tenant: &'a TenantId,
    pub(super) session: &'a SessionId,
    /// Sequences that a receipt names.
    pub(super) wanted: Option<&'a HashMap<u64, Option<EventHash>>>,
    pub(super) found: Vec<(u64, EventHash)>,
    pub(super) counts: Counts,
    /// The last event that is archived, by the session's pointer.
    pub(super) pointer: Option<Head>,
    pub(super) erasures: Erasures,
}

impl Check<'_> {
    /// Checks all segments, in order. `told` is called with the bytes hashed of each.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub(super) fn run(
        &mut self,
        inspector: &Inspector,
        reader: &mut SegmentReader,
        told: &dyn Fn(u64),
    ) -> Result<(), BadSession> {
        let hashed = HashedBytes::new(self.tenant, self.session);
        let nowhere = |bad| BadSession { bad, sequence: None };
        let pointer = inspector.pointer(self.tenant, self.session).map_err(|e| nowhere(store_error(&e)))?;
        self.pointer = pointer.map(|pointer| pointer.archived.head);
        let mut chain = None;
        let segments = inspector.segments(self.tenant, self.session).map_err(|e| nowhere(store_error(&e)))?;
        for segment in segments {
            let before = self.counts.bytes;
            let segment = segment.map_err(|e| nowhere(store_error(&e)))?;
            let chain = match &mut chain {
                Some(chain) => chain,
                none => none.insert(self.start(&segment)?),
            };
            self.segment(&segment, reader, chain, hashed)?;
            told(self.counts.bytes - before);
        }
        match (chain, self.pointer) {
            (None, None) => {
                let why = "expected at least one segment, found none: the session was deleted";
                Err(nowhere(Bad::new(Code::Empty, why)))
            }
            (None, Some(archived)) => {
                self.counts.events += archived.sequence.get() + 1;
                Ok(())
            }
            (Some(chain), Some(archived)) if chain.count() <= archived.sequence.get() => {
                let why = format!(
                    "expected segments up to sequence {} at least, which is archived, found an end before {}",
                    archived.sequence,
                    chain.count()
                );
                Err(BadSession { bad: Bad::new(Code::Sequence, why), sequence: Seq::new(chain.count()) })
            }
            (Some(_), _) => Ok(()),
        }
    }

    /// Where the chain goes on: at the session's beginning, or where what expired of it ends. That is at most the end of
    /// what is archived, and the chain is held against its hash.
    fn start(&mut self, first: &StoredSegment) -> Result<ChainCheck, BadSession> {
        let at = first.first;
        let begins = match self.pointer {
            _ if at == Seq::ZERO => return Ok(ChainCheck::new(self.tenant, self.session)),
            Some(archived) if at.get() <= archived.sequence.get() => {
                // The events before are gone from here; that the hash named is theirs is seen at the pointer.
                let meta = SegmentMeta::decode(&first.attributes);
                Some(meta.map_or(EventHash::ZERO, |meta| meta.prev_hash))
            }
            Some(archived) if at.get() == archived.sequence.get() + 1 => Some(archived.hash),
            _ => None,
        };
        let Some(prev_hash) = begins else {
            let expected = self.pointer.map_or(0, |archived| archived.sequence.get() + 1);
            let why = format!("expected a segment that begins with sequence {expected} at most, found {at}");
            let sequence = Seq::new(if self.pointer.is_some() { expected } else { 0 });
            return Err(BadSession { bad: Bad::new(Code::Sequence, why), sequence });
        };
        // What is gone is counted as archived.
        self.counts.events += at.get();
        Ok(ChainCheck::resume(self.tenant, self.session, at, prev_hash))
    }

    fn segment(
        &mut self,
        stored: &StoredSegment,
        reader: &mut SegmentReader,
        chain: &mut ChainCheck,
        hashed: HashedBytes,
    ) -> Result<(), BadSession> {
        let at = |code, why: String| BadSession { bad: Bad::new(code, why), sequence: Some(stored.first) };
        if stored.first.get() != chain.count() {
            let why = format!(
                "expected a segment that begins with sequence {}, found {}",
                chain.count(),
                stored.first
            );
            return Err(BadSession { bad: Bad::new(Code::Sequence, why), sequence: Seq::new(chain.count()) });
        }
        let stored_meta = SegmentMeta::decode(&stored.attributes)
            .map_err(|e| at(Code::Attributes, format!("the segment's attributes: {e}")))?;
        let body = stored
            .body
            .as_ref()
            .map_err(|e| BadSession { bad: store_error(e), sequence: Some(stored.first) })?;
        let view = reader.open(body).map_err(|e| at(Code::Segment, e.to_string()))?;
        let mut erased = 0;
        // The chain holds the first event's prev_hash to this.
        let prev_hash = chain.head();
        let summary = self.events(stored, &view, chain, hashed, &mut erased)?;
        self.counts.erased += erased;
        let first = stored.first;
        let last = first
            .checked_add(view.count() as u64 - 1)
            .ok_or_else(|| at(Code::Segment, "past 2^63".into()))?;
        let mut expected = SegmentMeta {
            commit_id: view.commit_id(),
            received_at: view.received_at(),
            first,
            last,
            prev_hash,
            last_hash: chain.head(),
            body_bytes: body.len() as u64,
            summary,
        };
        if erased > 0 {
            tolerate(&mut expected.summary, &stored_meta.summary, erased);
        }
        // Compared as bytes, which have one spelling for everything that decodes.
        if expected.encode() == stored.attributes {
            return Ok(());
        }
        Err(at(Code::Attributes, difference(&expected, &stored_meta)))
    }

    fn events(
        &mut self,
        stored: &StoredSegment,
        view: &SegmentView<'_>,
        chain: &mut ChainCheck,
        hashed: HashedBytes,
        erased: &mut u64,
    ) -> Result<Summary, BadSession> {
        let (first, events) = (chain.count(), self.counts.events);
        let mut hashes = Hashes::default();
        let end = self.unhashed(stored, view, chain, hashed, erased, &mut hashes);
        // A wrong hash comes before whatever else is wrong with its event or a later one.
        if let Some((index, error)) = hashes.first_wrong() {
            let index = index as u64;
            self.counts.events = events + index;
            return Err(BadSession { bad: error.into(), sequence: Seq::new(first + index) });
        }
        end
    }

    /// Everything but the hashes themselves.
    fn unhashed<'e>(
        &mut self,
        stored: &StoredSegment,
        view: &'e SegmentView<'_>,
        chain: &mut ChainCheck,
        hashed: HashedBytes,
        erased: &mut u64,
        hashes: &mut Hashes<'e>,
    ) -> Result<Summary, BadSession> {
        let mut summary: Option<Summary> = None;
        for event in view.events() {
            let place = Seq::new(chain.count());
            let event = event.map_err(|e| BadSession {
                bad: Bad::new(Code::Segment, format!("segment {e}")),
                sequence: place,
            })?;
            if summary.is_none() && event.sequence != stored.first {
                let why = format!(
                    "expected a body that begins with sequence {}, found {}",
                    stored.first, event.sequence
                );
                return Err(BadSession { bad: Bad::new(Code::Segment, why), sequence: Some(stored.first) });
            }
            chain.push_unhashed(&event, hashes).map_err(|e| {
                // The place is where it stands, whatever it says of itself.
                let sequence =
                    if matches!(e, ChainError::Sequence { .. }) { Some(event.sequence) } else { place };
                BadSession { bad: e.into(), sequence }
            })?;
            if let Some(archived) = self.pointer
                && archived.sequence == event.sequence
                && archived.hash != event.hash
            {
                let why = format!(
                    "the pointer says that the event archived last has hash {}, found {}",
                    archived.hash, event.hash
                );
                return Err(BadSession { bad: Bad::new(Code::Derived, why), sequence: Some(event.sequence) });
            }
            self.counts.events += 1;
            self.counts.bytes += hashed.of(&event);
            *erased += u64::from(matches!(event.content, Content::Erased { .. }));
            self.erasures.see(self.session, &event);
            if let Some(wanted) = self.wanted
                && wanted.contains_key(&event.sequence.get())
            {
                self.found.push((event.sequence.get(), event.hash));
            }
            match &mut summary {
                Some(summary) => summary.push(&event),
                None => summary = Some(Summary::of(&event)),
            }
        }
        summary.ok_or_else(|| BadSession {
            bad: Bad::new(Code::Segment, "a segment without events"),
            sequence: Some(stored.first),
        })
    }
}

/// What erased events were counted for cannot be counted again: takes the stored numbers over, where that many erased
/// events could make the difference. What is text of a payload does not outlive it, and is not taken over.
pub(super) fn tolerate(mine: &mut Summary, stored: &Summary, erased: u64) {
    for (mine, stored, most) in [
        (&mut mine.tool_calls, stored.tool_calls, erased),
        (&mut mine.llm_calls, stored.llm_calls, erased),
        (&mut mine.input_tokens, stored.input_tokens, u64::MAX),
        (&mut mine.output_tokens, stored.output_tokens, u64::MAX),
    ] {
        if stored >= *mine && stored - *mine <= most {
            *mine = stored;
        }
    }
    mine.cost_picodollars = stored.cost_picodollars;
    mine.status = stored.status;
    mine.ended_at = stored.ended_at;
}

/// Says which attribute is another than the body gives.
fn difference(expected: &SegmentMeta, found: &SegmentMeta) -> String {
    let (e, f) = (expected, found);
    let fields: [(&str, String, String); 8] = [
        ("commit id", e.commit_id.to_string(), f.commit_id.to_string()),
        ("received_at", e.received_at.to_string(), f.received_at.to_string()),
        ("first sequence", e.first.to_string(), f.first.to_string()),
        ("last sequence", e.last.to_string(), f.last.to_string()),
        ("prev_hash", e.prev_hash.to_string(), f.prev_hash.to_string()),
        ("last hash", e.last_hash.to_string(), f.last_hash.to_string()),
        ("body length", e.body_bytes.to_string(), f.body_bytes.to_string()),
        ("summary", format!("{:?}", e.summary), format!("{:?}", f.summary)),
    ];
    match fields.into_iter().find(|(_, expected, found)| expected != found) {
        Some((name, expected, found)) => {
            format!("the segment's attributes, {name}: the body gives {expected}, found {found}")
        }
        None => "the segment's attributes are not spelled as they are written".to_owned(),
    }
}
