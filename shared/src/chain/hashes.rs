//! The hashes of many events at once.
//!
//! An event names the hash before it, so none waits for another's to be computed: all of them are checked together,
//! in lanes ([`crate::sha256`]). If each one gives the hash that it bears, and names the one that the event before it
//! bears, the chain is right.

use super::{CONTENT_DOMAIN, ChainError, Hasher, push_hex, push_lines};
use crate::event::{Content, EventRef};
use crate::ids::{EventHash, encode_hex};
use crate::sha256::{self, Message};

/// Events whose hashes are computed together. Payloads are borrowed, the rest of what is hashed is copied: some 500
/// bytes an event, and its metadata.
#[derive(Debug, Default)]
pub struct Hashes<'e> {
    /// Of each event that has its content: what is hashed before the payload.
    heads: Vec<u8>,
    /// Of each, what is hashed after it.
    tails: Vec<u8>,
    /// The 17 lines of each event.
    lines: Vec<u8>,
    events: Vec<Entry<'e>>,
}

#[derive(Debug)]
struct Entry<'e> {
    /// `None` if it is erased: then the lines have their digest.
    payload: Option<&'e str>,
    /// Where its part of `tails` ends.
    tail: usize,
    /// Where its part of `lines` ends.
    lines: usize,
    /// The hash that it bears.
    hash: EventHash,
}

/// [`super::content_digest`] of many contents at once: salt, payload, metadata of each, in their order.
pub fn content_digests<'c>(contents: impl Iterator<Item = ([u8; 16], &'c str, &'c str)>) -> Vec<[u8; 32]> {
    let (mut heads, mut tails, mut payloads) = (Vec::new(), Vec::new(), Vec::new());
    for (salt, payload, metadata) in contents {
        push_content(&mut heads, &mut tails, &salt, metadata);
        payloads.push((payload.as_bytes(), tails.len()));
    }
    let mut from = 0;
    let messages = heads.chunks_exact(HEAD_BYTES).zip(payloads).map(|(prefix, (body, end))| {
        let tail = &tails[from..end];
        from = end;
        Message { prefix, body, tail }
    });
    sha256::each(&messages.collect::<Vec<_>>())
}

/// What is hashed before a payload, and after it.
fn push_content(heads: &mut Vec<u8>, tails: &mut Vec<u8>, salt: &[u8; 16], metadata: &str) {
    heads.extend_from_slice(CONTENT_DOMAIN);
    heads.extend_from_slice(salt);
    tails.push(b'\n');
    tails.extend_from_slice(metadata.as_bytes());
}

/// Bytes of a content before its payload: the domain and the salt.
const HEAD_BYTES: usize = CONTENT_DOMAIN.len() + 16;
/// Bytes of the last line.
const DIGEST_BYTES: usize = 64;

impl<'e> Hashes<'e> {
    /// Adds an event of the hasher's session.
    pub(super) fn push(&mut self, hasher: &Hasher, event: &EventRef<'e>) {
        push_lines(&mut self.lines, &hasher.place, event);
        let payload = match event.content {
            Content::Kept { salt, payload, metadata } => {
                push_content(&mut self.heads, &mut self.tails, &salt, metadata);
                self.lines.resize(self.lines.len() + DIGEST_BYTES, 0);
                Some(payload)
            }
            Content::Erased { digest } => {
                push_hex(&mut self.lines, &digest);
                None
            }
        };
        let (tail, lines) = (self.tails.len(), self.lines.len());
        self.events.push(Entry { payload, tail, lines, hash: event.hash });
    }

    /// How many events.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The first event whose bytes do not give the hash that it bears, counted from 0, and what is wrong.
    pub fn first_wrong(mut self) -> Option<(usize, ChainError)> {
        self.digest_contents();
        let mut from = 0;
        let messages = self.events.iter().map(|event| {
            let lines = &self.lines[from..event.lines];
            from = event.lines;
            Message::new(lines)
        });
        let computed = sha256::each(&messages.collect::<Vec<_>>());
        let mut both = self.events.iter().zip(computed).enumerate();
        both.find_map(|(index, (event, computed))| {
            let (computed, found) = (EventHash(computed), event.hash);
            (computed != found).then_some((index, ChainError::Hash { computed, found }))
        })
    }

    /// Computes the contents' digests and writes them into the last lines.
    fn digest_contents(&mut self) {
        let (mut heads, mut from) = (self.heads.chunks_exact(HEAD_BYTES), 0);
        let contents = self.events.iter().filter_map(|event| {
            let tail = &self.tails[from..event.tail];
            from = event.tail;
            // An erased event has no head: its own question comes first.
            let body = event.payload?.as_bytes();
            Some(Message { prefix: heads.next()?, body, tail })
        });
        let digests = sha256::each(&contents.collect::<Vec<_>>());
        let kept = self.events.iter().filter(|event| event.payload.is_some());
        for (event, digest) in kept.zip(digests) {
            encode_hex(&digest, &mut self.lines[event.lines - DIGEST_BYTES..event.lines]);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::chain::{ChainCheck, ChainError, Hasher};
    use crate::event::{Content, EventRef, Redactions};
    use crate::ids::{CommitId, EventHash, Seq, SessionId, Severity, TenantId};
    use crate::time::Micros;

    /// Every pattern of kept and erased among six events that are checked together, each with its own salt.
    #[test]
    fn erased_events_may_stand_anywhere() {
        let (tenant, session) = (TenantId::parse("acme").unwrap(), SessionId::parse("s").unwrap());
        let payloads: Vec<String> = (0..6).map(|n| format!("\"{}\"", "p".repeat(n * 40))).collect();
        for erased in 0..1 << payloads.len() {
            let mut hasher = Hasher::new(&tenant, &session);
            let mut events: Vec<EventRef<'_>> = Vec::new();
            for (n, payload) in payloads.iter().enumerate() {
                let content = if erased & 1 << n == 0 {
                    Content::Kept { salt: [n as u8; 16], payload, metadata: "{}" }
                } else {
                    Content::Erased { digest: [n as u8; 32] }
                };
                let mut event = EventRef {
                    sequence: Seq::new(n as u64).unwrap(),
                    event_id: CommitId::mint(1, [1; 10]).event(n as u16 + 1),
                    timestamp: Micros::new(1).unwrap(),
                    received_at: Micros::new(2).unwrap(),
                    agent_id: "a",
                    event_type: "tool_call",
                    severity: Severity::Info,
                    source_id: None,
                    compliance_tag: "default",
                    pii_types: "",
                    redactions: Redactions::default(),
                    content,
                    prev_hash: events.last().map_or(EventHash::ZERO, |event| event.hash),
                    hash: EventHash::ZERO,
                };
                event.hash = hasher.hash(&event);
                events.push(event);
            }
            assert_eq!(ChainCheck::new(&tenant, &session).push_all(&events), Ok(()), "{erased:06b}");
            events[4].hash.0[0] ^= 1;
            let mut check = ChainCheck::new(&tenant, &session);
            assert!(matches!(check.push_all(&events), Err(ChainError::Hash { .. })), "{erased:06b}");
            assert_eq!(check.count(), 4);
        }
    }
}
