//! Newtypes, parsed once at the edge and trusted inside.
//!
//! Each holds its syntax (docs/format.md, section 2) as an invariant: a value that exists is well formed.

use std::fmt;

use crate::limits;

/// How a text failed its syntax. Displayed to the caller after the name of the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Nothing where something must be.
    #[error("must not be empty")]
    Empty,
    /// Longer than the limit of its field, both in bytes.
    #[error("is {actual} bytes long, {name} is {limit}")]
    TooLong {
        /// Name of the limit.
        name: &'static str,
        /// The limit, bytes.
        limit: usize,
        /// The length found, bytes.
        actual: usize,
    },
    /// A control character, at this byte offset.
    #[error("holds a control character at byte {at}")]
    Control {
        /// Byte offset.
        at: usize,
    },
    /// Against the syntax; the text says what is expected.
    #[error("must be {expected}")]
    Syntax {
        /// What would have been right.
        expected: &'static str,
    },
}

/// True for U+0000–001F, U+007F and U+0080–009F (docs/format.md, section 1).
fn first_control(text: &str) -> Option<usize> {
    // The common case first: no byte that could start a control character.
    if text.bytes().all(|b| b >= 0x20 && b != 0x7f && b != 0xc2) {
        return None;
    }
    text.char_indices().find(|(_, c)| c.is_control()).map(|(at, _)| at)
}

/// Checks a free text of 1 to `limit` bytes without control characters.
///
/// # Errors
/// What is wrong with it.
pub fn check_text(text: &str, name: &'static str, limit: usize) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() > limit {
        return Err(IdError::TooLong { name, limit, actual: text.len() });
    }
    match first_control(text) {
        Some(at) => Err(IdError::Control { at }),
        None => Ok(()),
    }
}

/// Checks a tenant name: `[a-z0-9-]{1,63}`.
///
/// # Errors
/// What is wrong with it.
pub fn check_tenant(text: &str) -> Result<(), IdError> {
    check_text(text, "tenant_bytes_max", limits::TENANT_BYTES_MAX)?;
    if text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-')) {
        Ok(())
    } else {
        Err(IdError::Syntax { expected: "of a-z, 0-9 and -" })
    }
}

/// Checks a session id.
///
/// # Errors
/// What is wrong with it.
pub fn check_session(text: &str) -> Result<(), IdError> {
    check_text(text, "session_id_bytes_max", limits::SESSION_ID_BYTES_MAX)
}

/// Checks an agent id.
///
/// # Errors
/// What is wrong with it.
pub fn check_agent(text: &str) -> Result<(), IdError> {
    check_text(text, "agent_id_bytes_max", limits::AGENT_ID_BYTES_MAX)
}

/// Checks a source id.
///
/// # Errors
/// What is wrong with it.
pub fn check_source(text: &str) -> Result<(), IdError> {
    check_text(text, "source_id_bytes_max", limits::SOURCE_ID_BYTES_MAX)
}

/// Checks a compliance tag.
///
/// # Errors
/// What is wrong with it.
pub fn check_tag(text: &str) -> Result<(), IdError> {
    check_text(text, "compliance_tag_bytes_max", limits::COMPLIANCE_TAG_BYTES_MAX)
}

/// Checks an event type: `[a-z][a-z0-9_]*([._][a-z0-9_]+)*`, at most 128 bytes.
///
/// # Errors
/// What is wrong with it.
pub fn check_event_type(text: &str) -> Result<(), IdError> {
    check_text(text, "event_type_bytes_max", limits::EVENT_TYPE_BYTES_MAX)?;
    // `_` is also a word character, so the grammar only forbids: a first byte that is not a letter, a dot
    // that is last, and a dot after a dot.
    let bytes = text.as_bytes();
    let fits = bytes[0].is_ascii_lowercase()
        && bytes[bytes.len() - 1] != b'.'
        && bytes.iter().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.'))
        && !bytes.windows(2).any(|w| w == b"..");
    if fits {
        Ok(())
    } else {
        Err(IdError::Syntax { expected: "lower-case words of a-z, 0-9 and _ joined by dots, a letter first" })
    }
}

/// Checks the name of a PII kind.
///
/// # Errors
/// What is wrong with it.
pub fn check_pii_type(text: &str) -> Result<(), IdError> {
    check_text(text, "pii_type_bytes_max", limits::PII_TYPE_BYTES_MAX)?;
    if text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_')) {
        Ok(())
    } else {
        Err(IdError::Syntax { expected: "of a-z, 0-9 and _" })
    }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
        #[serde(transparent)]
        pub struct $name(Box<str>);

        impl $name {
            /// Parses the text.
            ///
            /// # Errors
            /// What is wrong with it.
            pub fn parse(text: impl Into<Box<str>>) -> Result<Self, IdError> {
                let text = text.into();
                $check(&text)?;
                Ok(Self(text))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <Box<str> as serde::Deserialize>::deserialize(d)?;
                Self::parse(text).map_err(serde::de::Error::custom)
            }
        }
    };
}

text_id!(
    /// A tenant: the wall between customers. `[a-z0-9-]{1,63}`.
    TenantId,
    check_tenant
);
text_id!(
    /// A session: the chain that an event hangs on. 1 to 256 bytes, no control character.
    SessionId,
    check_session
);
text_id!(
    /// An agent. 1 to 256 bytes, no control character.
    AgentId,
    check_agent
);
text_id!(
    /// The client's own id of an event. 1 to 256 bytes, no control character.
    SourceId,
    check_source
);
text_id!(
    /// A policy label. 1 to 64 bytes, no control character.
    ComplianceTag,
    check_tag
);
text_id!(
    /// The type of an event, as sent.
    EventType,
    check_event_type
);

impl TenantId {
    /// The tenant of a deployment's operator, and of loopback mode.
    pub const DEFAULT: &'static str = "default";

    /// The tenant `default`.
    pub fn default_tenant() -> Self {
        Self(Self::DEFAULT.into())
    }
}

impl SessionId {
    /// True if clients may not write to it: a leading `_` is the ledger's own.
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with('_')
    }
}

impl EventType {
    /// True if clients may not send it: `quipu.` is the ledger's own.
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with("quipu.") || &*self.0 == "quipu"
    }
}

impl ComplianceTag {
    /// The tag of events that were sent without one.
    pub fn default_tag() -> Self {
        Self("default".into())
    }
}

/// How loud an event is. The order is that of loudness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum Severity {
    /// `debug`
    Debug = 0,
    /// `info`, the default
    #[default]
    Info = 1,
    /// `warn`
    Warn = 2,
    /// `error`
    Error = 3,
    /// `critical`
    Critical = 4,
}

impl Severity {
    /// All, in order.
    pub const ALL: [Self; 5] = [Self::Debug, Self::Info, Self::Warn, Self::Error, Self::Critical];

    /// The word that stands for it everywhere.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }

    /// Reads the word.
    ///
    /// # Errors
    /// The list of words, if it is none of them.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        Self::ALL
            .into_iter()
            .find(|s| s.as_str() == text)
            .ok_or(IdError::Syntax { expected: "one of debug, info, warn, error, critical" })
    }

    /// By its number in a segment (0 to 4).
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

/// Place of an event in its session: 0, 1, 2, … below 2^63.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(transparent)]
pub struct Seq(u64);

impl Seq {
    /// The first event of a session.
    pub const ZERO: Self = Self(0);
    /// The highest.
    pub const MAX: Self = Self(i64::MAX as u64);

    /// A sequence, if it is below 2^63.
    pub const fn new(value: u64) -> Option<Self> {
        if value <= Self::MAX.0 { Some(Self(value)) } else { None }
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// `self + count`, if it is below 2^63.
    pub const fn checked_add(self, count: u64) -> Option<Self> {
        match self.0.checked_add(count) {
            Some(sum) => Self::new(sum),
            None => None,
        }
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// SHA-256 of an event's lines (docs/format.md, section 3). Displayed as 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventHash(pub [u8; 32]);

impl EventHash {
    /// What the first event of a session names as the hash before it.
    pub const ZERO: Self = Self([0; 32]);

    /// Reads 64 lower-case hex digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        decode_hex(text).map(Self)
    }

    /// 64 lower-case hex digits, as ASCII bytes.
    pub fn to_hex(self) -> [u8; 64] {
        let mut out = [0; 64];
        encode_hex(&self.0, &mut out);
        out
    }
}

impl fmt::Display for EventHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = self.to_hex();
        f.write_str(std::str::from_utf8(&hex).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for EventHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for EventHash {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// Writes lower-case hex; `out` must be twice as long as `bytes`.
pub fn encode_hex(bytes: &[u8], out: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    assert_eq!(out.len(), bytes.len() * 2, "two hex digits for each byte");
    for (pair, byte) in out.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

/// Lower-case hex as a string.
pub fn hex(bytes: &[u8]) -> String {
    let mut out = vec![0; bytes.len() * 2];
    encode_hex(bytes, &mut out);
    String::from_utf8(out).unwrap_or_default()
}

/// Reads exactly `N` bytes of lower-case hex.
pub fn decode_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    fn digit(byte: u8) -> Option<u8> {
        match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        }
    }
    if text.len() != N * 2 {
        return None;
    }
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(out)
}

/// How many low bits of an event's id count the events of its commit (docs/format.md, section 6).
pub const EVENT_NUMBER_BITS: u32 = 10;

const EVENT_NUMBER_MASK: u128 = (1 << EVENT_NUMBER_BITS) - 1;

/// Id of one commit: a UUID v7 (RFC 9562) whose low 10 bits are zero. The ids of its events are the 1000 that
/// follow, so an event's id leads straight to its commit. 64 random bits beside the millisecond.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommitId(u128);

/// Id of one event: a UUID v7 (RFC 9562), its commit's id plus its number in the batch, from 1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId(u128);

impl CommitId {
    /// Mints an id from the milliseconds since 1970 and random bytes.
    pub fn mint(unix_ms: u64, random: [u8; 10]) -> Self {
        let uuid = uuid::Builder::from_unix_timestamp_millis(unix_ms, &random).into_uuid();
        Self(uuid.as_u128() & !EVENT_NUMBER_MASK)
    }

    /// From its 16 bytes, if they are a UUID v7 with zero in the low bits.
    pub fn from_bytes(bytes: [u8; 16]) -> Option<Self> {
        let value = u128::from_be_bytes(bytes);
        (is_v7(value) && value & EVENT_NUMBER_MASK == 0).then_some(Self(value))
    }

    /// Its 16 bytes, big-endian: they sort as the ids do.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// The id of its event number 1 to 1000, in the order sent.
    pub fn event(self, number: u16) -> EventId {
        assert!(number > 0 && u128::from(number) <= EVENT_NUMBER_MASK, "events are numbered from 1 to 1000");
        EventId(self.0 | u128::from(number))
    }

    /// When it was minted, ms since 1970.
    pub const fn unix_ms(self) -> u64 {
        (self.0 >> 80) as u64
    }

    /// The lowest id of a millisecond, for ranges.
    pub const fn floor_of_ms(unix_ms: u64) -> Self {
        Self((unix_ms as u128) << 80 | 0x7 << 76 | 0b10 << 62)
    }
}

impl EventId {
    /// Reads a hyphenated UUID v7, any case, with or without a known prefix of another product's ids.
    ///
    /// # Errors
    /// If it is not one.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let expected = IdError::Syntax { expected: "a UUID v7" };
        let bare = text.strip_prefix("evt_").or_else(|| text.strip_prefix("inference-")).unwrap_or(text);
        if bare.len() != uuid::fmt::Hyphenated::LENGTH {
            return Err(expected);
        }
        let value = uuid::Uuid::try_parse(bare).map_err(|_| expected.clone())?.as_u128();
        if is_v7(value) { Ok(Self(value)) } else { Err(expected) }
    }

    /// From the 128-bit integer, if it is a UUID v7.
    pub fn from_u128(value: u128) -> Option<Self> {
        is_v7(value).then_some(Self(value))
    }

    /// The 128-bit integer.
    pub const fn as_u128(self) -> u128 {
        self.0
    }

    /// The commit it was minted in, if it is one of ours.
    pub const fn commit(self) -> CommitId {
        CommitId(self.0 & !EVENT_NUMBER_MASK)
    }

    /// Its number in the batch.
    pub const fn number(self) -> u16 {
        (self.0 & EVENT_NUMBER_MASK) as u16
    }

    /// Writes the 36 characters.
    pub fn encode(self, buffer: &mut [u8; 36]) -> &str {
        uuid::Uuid::from_u128(self.0).hyphenated().encode_lower(buffer)
    }
}

const fn is_v7(value: u128) -> bool {
    (value >> 76) & 0xf == 7 && (value >> 62) & 0b11 == 0b10
}

macro_rules! uuid_display {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&uuid::Uuid::from_u128(self.0), f)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
    };
}
uuid_display!(CommitId);
uuid_display!(EventId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_types_follow_the_grammar() {
        for good in ["a", "tool_call", "run.started", "a.b_c.d0", "x__y", "a._b", "a.0"] {
            assert!(EventType::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "A", "0a", "_a", ".a", "a.", "a..b", "a-b", "a b", "é", &"a".repeat(129)] {
            assert!(EventType::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn control_characters_are_refused_wherever_they_hide() {
        for bad in ["a\n", "\u{7f}", "\u{80}", "x\u{9f}", "\0", "tab\there"] {
            assert!(matches!(SessionId::parse(bad), Err(IdError::Control { .. })), "{bad:?}");
        }
        for good in ["é", "Â", "日本", "\u{a0}", "—", "🪢"] {
            assert!(SessionId::parse(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn event_ids_lead_to_their_commit() {
        let commit = CommitId::mint(1_770_000_000_123, [0xff; 10]);
        let event = commit.event(1000);
        assert_eq!(event.commit(), commit);
        assert_eq!(event.number(), 1000);
        assert_eq!(commit.unix_ms(), 1_770_000_000_123);
        assert_eq!(EventId::parse(&event.to_string()), Ok(event));
        assert_eq!(EventId::parse(&format!("evt_{event}")), Ok(event));
        assert_eq!(CommitId::from_bytes(commit.to_bytes()), Some(commit));
        assert!(CommitId::floor_of_ms(1_770_000_000_123) <= commit);
        assert!(CommitId::floor_of_ms(1_770_000_000_124) > event.commit());
    }

    #[test]
    fn only_version_7_is_an_event_id() {
        assert!(EventId::parse("550e8400-e29b-41d4-a716-446655440000").is_err());
        assert!(EventId::parse("0198b9a0-0000-7000-c000-000000000001").is_err());
        assert!(EventId::parse("0198b9a0-0000-7000-8000-000000000001").is_ok());
        assert!(EventId::parse("0198b9a0000070008000000000000001").is_err());
    }
}
