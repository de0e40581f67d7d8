//! The tombstone of an erased event (docs/format.md, section 3): what tells an erasure from a deletion.

use std::borrow::Cow;

use crate::event::{Content, EventRef, NewEvent, Redactions};
use crate::ids::{
    self, AgentId, ComplianceTag, EventHash, EventId, EventType, Seq, SessionId, Severity, decode_hex,
};
use crate::json::{JsonError, Kind, Reader};
use crate::limits;

/// The type of tombstones.
pub const EVENT_TYPE: &str = "quipu.erased";

/// What the sessions of tombstones begin with; the erased event's id follows.
const SESSION: &str = "_erased/";

/// Who writes them.
const AGENT: &str = "quipu";

/// What a tombstone says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tombstone {
    /// The erased event.
    pub event_id: EventId,
    /// Its session.
    pub session_id: SessionId,
    /// Its place there.
    pub sequence: Seq,
    /// Its hash.
    pub hash: EventHash,
    /// The digest of what it held.
    pub content_digest: [u8; 32],
    /// The token that asked; none in loopback mode.
    pub token_id: Option<String>,
    /// Why.
    pub reason: Option<String>,
}

/// The session that holds the tombstone of an event, at sequence 0.
pub fn session_of(event: EventId) -> SessionId {
    SessionId::parse(format!("{SESSION}{event}")).expect("a session id")
}

/// The event whose tombstone a session holds, if it is such a session.
pub fn erased_by(session: &SessionId) -> Option<EventId> {
    let id = session.as_str().strip_prefix(SESSION)?;
    EventId::parse(id).ok().filter(|event| event.encode(&mut [0; 36]) == id)
}

/// Writes a JSON string.
fn push_string(out: &mut String, text: &str) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

impl Tombstone {
    /// Its payload.
    pub fn payload(&self) -> String {
        let mut out = format!(r#"{{"event_id":"{}","session_id":"#, self.event_id);
        push_string(&mut out, self.session_id.as_str());
        let digest = ids::hex(&self.content_digest);
        out.push_str(&format!(
            r#","sequence":{},"hash":"{}","content_digest":"{digest}","token_id":"#,
            self.sequence, self.hash
        ));
        for (text, end) in [(&self.token_id, r#","reason":"#), (&self.reason, "}")] {
            match text {
                Some(text) => push_string(&mut out, text),
                None => out.push_str("null"),
            }
            out.push_str(end);
        }
        out
    }

    /// The event that is appended.
    pub fn event(&self) -> NewEvent {
        NewEvent {
            session_id: session_of(self.event_id),
            agent_id: AgentId::parse(AGENT).expect("an agent id"),
            timestamp: None,
            event_type: EventType::parse(EVENT_TYPE).expect("an event type"),
            severity: Severity::Warn,
            source_id: None,
            payload: self.payload(),
            metadata: "{}".to_owned(),
            compliance_tag: ComplianceTag::default_tag(),
            pii_types: Vec::new(),
            redactions: Redactions::default(),
        }
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// If it is not one of a tombstone.
    pub fn parse(payload: &str) -> Result<Self, JsonError> {
        let mut reader = Reader::new(payload);
        let (mut event_id, mut session_id, mut sequence) = (None, None, None);
        let (mut hash, mut content_digest) = (None, None);
        let (mut token_id, mut reason) = (None, None);
        reader.object(|r, name| {
            match name {
                "event_id" => {
                    let text = r.string()?;
                    let id = EventId::parse(&text).map_err(|e| r.refuse(e))?;
                    if id.encode(&mut [0; 36]) != text {
                        return Err(r.refuse("not in lower case"));
                    }
                    event_id = Some(id);
                }
                "session_id" => {
                    session_id = Some(SessionId::parse(r.string()?).map_err(|e| r.refuse(e))?);
                }
                "sequence" => {
                    sequence = Some(Seq::new(r.unsigned()?).ok_or_else(|| r.refuse("past 2^63"))?);
                }
                "hash" => {
                    hash = Some(EventHash::from_hex(&r.string()?).ok_or_else(|| r.refuse("not a hash"))?);
                }
                "content_digest" => {
                    let digest = decode_hex(&r.string()?).ok_or_else(|| r.refuse("not a digest"))?;
                    content_digest = Some(digest);
                }
                "token_id" => token_id = Some(optional(r, usize::MAX)?),
                "reason" => reason = Some(optional(r, limits::ERASURE_REASON_BYTES_MAX)?),
                _ => return Err(r.refuse("an unknown member")),
            }
            Ok(())
        })?;
        let missing = |name: &str| reader.refuse(format!("{name} is missing"));
        let this = Self {
            event_id: event_id.ok_or_else(|| missing("event_id"))?,
            session_id: session_id.ok_or_else(|| missing("session_id"))?,
            sequence: sequence.ok_or_else(|| missing("sequence"))?,
            hash: hash.ok_or_else(|| missing("hash"))?,
            content_digest: content_digest.ok_or_else(|| missing("content_digest"))?,
            token_id: token_id.ok_or_else(|| missing("token_id"))?,
            reason: reason.ok_or_else(|| missing("reason"))?,
        };
        reader.end()?;
        Ok(this)
    }

    /// The tombstone that an event is, if it is one: the first of its session, of the type, with its content, about the
    /// event that the session is named after.
    pub fn of_event(session: &SessionId, event: &EventRef<'_>) -> Option<Self> {
        let erased = erased_by(session)?;
        let Content::Kept { payload, .. } = event.content else { return None };
        if event.sequence != Seq::ZERO || event.event_type != EVENT_TYPE {
            return None;
        }
        Self::parse(payload).ok().filter(|tombstone| tombstone.event_id == erased)
    }

    /// True if it is the tombstone of this event, which is erased and has this digest.
    pub fn is_true_of(&self, session: &SessionId, event: &EventRef<'_>, digest: &[u8; 32]) -> bool {
        self.event_id == event.event_id
            && self.session_id == *session
            && self.sequence == event.sequence
            && self.hash == event.hash
            && self.content_digest == *digest
            && event.event_type != EVENT_TYPE
    }
}

fn optional(reader: &mut Reader<'_>, bytes_max: usize) -> Result<Option<String>, JsonError> {
    if reader.kind()? == Kind::Null {
        reader.null()?;
        return Ok(None);
    }
    let text: Cow<'_, str> = reader.string()?;
    if text.len() > bytes_max {
        return Err(reader.refuse(format!("longer than {bytes_max} bytes")));
    }
    Ok(Some(text.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::CommitId;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn payloads(
            session in "[ -~é]{1,40}", sequence in 0..=Seq::MAX.get(), hashes: ([u8; 32], [u8; 32]),
            token in proptest::option::of("[ -~é\n]{0,20}"), reason in proptest::option::of("[ -~é\n]{0,20}"),
        ) {
            let event_id = CommitId::mint(9, [7; 10]).event(3);
            let tombstone = Tombstone {
                event_id,
                session_id: SessionId::parse(session).unwrap(),
                sequence: Seq::new(sequence).unwrap(),
                hash: EventHash(hashes.0),
                content_digest: hashes.1,
                token_id: token,
                reason,
            };
            let payload = tombstone.payload();
            prop_assert_eq!(crate::json::check_compact(&payload, Some(Kind::Object)), Ok(()));
            for end in 0..payload.len() {
                if payload.is_char_boundary(end) {
                    prop_assert!(Tombstone::parse(&payload[..end]).is_err());
                }
            }
            prop_assert_eq!(Tombstone::parse(&payload), Ok(tombstone));
            prop_assert_eq!(erased_by(&session_of(event_id)), Some(event_id));
        }
    }

    #[test]
    fn other_sessions_hold_no_tombstones() {
        let id = CommitId::mint(9, [7; 10]).event(3);
        for name in [
            format!("_erased/{id}x"),
            format!("erased/{id}"),
            format!("_erased/{}", id.to_string().to_uppercase()),
        ] {
            let session = SessionId::parse(name).unwrap();
            // A number has no upper case.
            assert!(erased_by(&session).is_none() || id.to_string() == id.to_string().to_uppercase());
        }
    }
}
