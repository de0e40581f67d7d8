//! The hashes of many events at once.
//!
//! An event names the hash before it, so none waits for another's to be computed: all of them are checked together,
//! in lanes ([`crate::sha256`]). If each one gives the hash that it bears, and names the one that the event before it
//! bears, the chain is right.

use super::{CONTENT_DOMAIN, ChainError, Hasher, push_hex, push_lines};
use crate::event::{Content, EventRef};
use crate::ids::{EventHash, encode_hex};
use crate::sha256::{self, Message};

/// Bytes of a content before its payload: the domain and the salt.
const HEAD_BYTES: usize = CONTENT_DOMAIN.len() + 16;
/// Bytes of the last line.
const DIGEST_BYTES: usize = 64;

/// Contents whose digests are computed together. Payloads are borrowed.
#[derive(Debug, Default)]
struct Contents<'e> {
    /// Of each, what is hashed before the payload.
    heads: Vec<u8>,
    /// Of each, what is hashed after it.
    tails: Vec<u8>,
    /// Each payload, and where its part of `tails` ends.
    payloads: Vec<(&'e str, usize)>,
}

impl<'e> Contents<'e> {
    fn push(&mut self, salt: &[u8; 16], payload: &'e str, metadata: &str) {
        self.heads.extend_from_slice(CONTENT_DOMAIN);
        self.heads.extend_from_slice(salt);
        self.tails.push(b'\n');
        self.tails.extend_from_slice(metadata.as_bytes());
        self.payloads.push((payload, self.tails.len()));
    }

    fn digests(&self) -> Vec<[u8; 32]> {
        let mut from = 0;
        let messages =
            self.heads.chunks_exact(HEAD_BYTES).zip(&self.payloads).map(|(prefix, (body, end))| {
                let tail = &self.tails[from..*end];
                from = *end;
                Message { prefix, body: body.as_bytes(), tail }
            });
        sha256::each(&messages.collect::<Vec<_>>())
    }
}

/// [`super::content_digest`] of many contents at once: salt, payload, metadata of each, in their order.
pub fn content_digests<'c>(contents: impl Iterator<Item = ([u8; 16], &'c str, &'c str)>) -> Vec<[u8; 32]> {
    let mut together = Contents::default();
    for (salt, payload, metadata) in contents {
        together.push(&salt, payload, metadata);
    }
    together.digests()
}

/// Events whose hashes are computed together. Payloads are borrowed, the rest of what is hashed is copied: some 500
/// bytes an event, and its metadata.
#[derive(Debug, Default)]
pub struct Hashes<'e> {
    contents: Contents<'e>,
    /// The 17 lines of each event.
    lines: Vec<u8>,
    events: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    /// Whether its lines still lack the digest of its content. Those of an erased event have it.
    lacks_digest: bool,
    /// Where its part of `lines` ends.
    end: usize,
    /// The hash that it bears.
    hash: EventHash,
}

impl<'e> Hashes<'e> {
    /// Adds an event of the hasher's session.
    pub(super) fn push(&mut self, hasher: &Hasher, event: &EventRef<'e>) {
        push_lines(&mut self.lines, &hasher.place, event);
        let lacks_digest = match event.content {
            Content::Kept { salt, payload, metadata } => {
                self.contents.push(&salt, payload, metadata);
                self.lines.resize(self.lines.len() + DIGEST_BYTES, 0);
                true
            }
            Content::Erased { digest } => {
                push_hex(&mut self.lines, &digest);
                false
            }
        };
        self.events.push(Entry { lacks_digest, end: self.lines.len(), hash: event.hash });
    }

    /// The first event whose bytes do not give the hash that it bears, counted from 0, and what is wrong.
    pub fn first_wrong(mut self) -> Option<(usize, ChainError)> {
        let kept = self.events.iter().filter(|event| event.lacks_digest);
        for (event, digest) in kept.zip(self.contents.digests()) {
            encode_hex(&digest, &mut self.lines[event.end - DIGEST_BYTES..event.end]);
        }
        let mut from = 0;
        let messages = self.events.iter().map(|event| {
            let lines = &self.lines[from..event.end];
            from = event.end;
            Message::new(lines)
        });
        let computed = sha256::each(&messages.collect::<Vec<_>>());
        let mut both = self.events.iter().zip(computed).enumerate();
        both.find_map(|(index, (event, computed))| {
            let (computed, found) = (EventHash(computed), event.hash);
            (computed != found).then_some((index, ChainError::Hash { computed, found }))
        })
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
