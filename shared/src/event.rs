//! The event: what a client sends ([`NewEvent`]), and what the ledger keeps ([`EventRef`], borrowed, for the hot
//! paths; [`Event`], owned).
//!
//! Field rules are in docs/format.md, section 2. This module does no I/O and mints nothing.

use crate::ids::{
    AgentId, ComplianceTag, EventHash, EventId, EventType, Seq, SessionId, Severity, SourceId, TenantId,
};
use crate::time::Micros;

/// An event as a client sent it, checked but not yet chained. `payload` and `metadata` are compact JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// The chain that it hangs on.
    pub session_id: SessionId,
    /// Who did it.
    pub agent_id: AgentId,
    /// When, by the client; the ledger's clock if it did not say.
    pub timestamp: Option<Micros>,
    /// What it is.
    pub event_type: EventType,
    /// How loud.
    pub severity: Severity,
    /// The client's own id.
    pub source_id: Option<SourceId>,
    /// Compact JSON, any value.
    pub payload: String,
    /// Compact JSON, an object.
    pub metadata: String,
    /// Policy label.
    pub compliance_tag: ComplianceTag,
    /// Kinds of personal data found, sorted.
    pub pii_types: Vec<String>,
    /// Secrets taken out.
    pub redactions: Redactions,
}

/// How many secrets were taken out of an event, under which policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Redactions {
    /// How many.
    pub count: u32,
    /// SHA-256 of the policy that was in force, if one was.
    pub policy: Option<[u8; 32]>,
}

/// The bytes that may be erased, or what is left of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content<'a> {
    /// Salt, payload and metadata, as hashed.
    Kept {
        /// 16 random bytes that keep the digest from being guessed once the rest is erased.
        salt: [u8; 16],
        /// Compact JSON, any value.
        payload: &'a str,
        /// Compact JSON, an object.
        metadata: &'a str,
    },
    /// Erased: only the digest is left.
    Erased {
        /// The content digest of docs/format.md, section 3.
        digest: [u8; 32],
    },
}

/// One event of a chain, borrowed from wherever its bytes are. Tenant and session stand outside it: many events
/// share them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventRef<'a> {
    /// Place in the session.
    pub sequence: Seq,
    /// Id minted at commit.
    pub event_id: EventId,
    /// When it happened, by the client or the ledger.
    pub timestamp: Micros,
    /// When the ledger committed it.
    pub received_at: Micros,
    /// Who did it.
    pub agent_id: &'a str,
    /// What it is.
    pub event_type: &'a str,
    /// How loud.
    pub severity: Severity,
    /// The client's own id.
    pub source_id: Option<&'a str>,
    /// Policy label.
    pub compliance_tag: &'a str,
    /// Kinds of personal data found, sorted, joined by commas.
    pub pii_types: &'a str,
    /// Secrets taken out.
    pub redactions: Redactions,
    /// Payload, metadata and salt, or their digest.
    pub content: Content<'a>,
    /// Hash of the event before it; zeros for the first.
    pub prev_hash: EventHash,
    /// Its own hash.
    pub hash: EventHash,
}

/// An event with everything it needs to be shown or proved by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Whose it is.
    pub tenant: TenantId,
    /// The chain that it hangs on.
    pub session_id: SessionId,
    /// Place in the session.
    pub sequence: Seq,
    /// Id minted at commit.
    pub event_id: EventId,
    /// When it happened, by the client or the ledger.
    pub timestamp: Micros,
    /// When the ledger committed it.
    pub received_at: Micros,
    /// Who did it.
    pub agent_id: String,
    /// What it is.
    pub event_type: String,
    /// How loud.
    pub severity: Severity,
    /// The client's own id.
    pub source_id: Option<String>,
    /// Policy label.
    pub compliance_tag: String,
    /// Kinds of personal data found, sorted, joined by commas.
    pub pii_types: String,
    /// Secrets taken out.
    pub redactions: Redactions,
    /// Payload, metadata and salt, or their digest.
    pub content: OwnedContent,
    /// Hash of the event before it; zeros for the first.
    pub prev_hash: EventHash,
    /// Its own hash.
    pub hash: EventHash,
}

/// The owned form of [`Content`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnedContent {
    /// Salt, payload and metadata, as hashed.
    Kept {
        /// 16 random bytes.
        salt: [u8; 16],
        /// Compact JSON, any value.
        payload: String,
        /// Compact JSON, an object.
        metadata: String,
    },
    /// Erased: only the digest is left.
    Erased {
        /// The content digest.
        digest: [u8; 32],
    },
}

impl Content<'_> {
    /// Bytes of payload and metadata: what an event weighs in a page.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Kept { payload, metadata, .. } => payload.len() + metadata.len(),
            Self::Erased { .. } => 0,
        }
    }
}

impl EventRef<'_> {
    /// Copies it, with the tenant and session that it stands under.
    pub fn to_event(&self, tenant: &TenantId, session_id: &SessionId) -> Event {
        let content = match self.content {
            Content::Kept { salt, payload, metadata } => {
                OwnedContent::Kept { salt, payload: payload.to_owned(), metadata: metadata.to_owned() }
            }
            Content::Erased { digest } => OwnedContent::Erased { digest },
        };
        Event {
            tenant: tenant.clone(),
            session_id: session_id.clone(),
            sequence: self.sequence,
            event_id: self.event_id,
            timestamp: self.timestamp,
            received_at: self.received_at,
            agent_id: self.agent_id.to_owned(),
            event_type: self.event_type.to_owned(),
            severity: self.severity,
            source_id: self.source_id.map(str::to_owned),
            compliance_tag: self.compliance_tag.to_owned(),
            pii_types: self.pii_types.to_owned(),
            redactions: self.redactions,
            content,
            prev_hash: self.prev_hash,
            hash: self.hash,
        }
    }
}

impl Event {
    /// Borrows it.
    pub fn as_ref(&self) -> EventRef<'_> {
        let content = match &self.content {
            OwnedContent::Kept { salt, payload, metadata } => {
                Content::Kept { salt: *salt, payload, metadata }
            }
            OwnedContent::Erased { digest } => Content::Erased { digest: *digest },
        };
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
            content,
            prev_hash: self.prev_hash,
            hash: self.hash,
        }
    }
}
