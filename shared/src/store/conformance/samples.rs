//! What the suite writes: real segments with contents that depend on their place alone, under random names.

use std::sync::Arc;

use crate::clock::{Clock as _, SystemClock};
use crate::event::{NewEvent, Redactions};
use crate::ids::{AgentId, CommitId, ComplianceTag, EventType, SessionId, Severity, TenantId, hex};
use crate::random;
use crate::segment::{Head, Numbered, Segment, SegmentMeta, chain};
use crate::store::faulty::mix;
use crate::store::{Commit, FeedEntry, FeedPosition, Idempotency, SessionRecord};
use crate::time::Micros;

/// A tenant that nobody else has.
pub fn fresh_tenant() -> TenantId {
    TenantId::parse(format!("t-{}", hex(&random::bytes::<8>()))).expect("a tenant's name")
}

/// A session that nobody else has.
pub fn fresh_session() -> SessionId {
    session(&format!("s-{}", hex(&random::bytes::<8>())))
}

/// A session of this name.
pub fn session(name: &str) -> SessionId {
    SessionId::parse(name).expect("a session's name")
}

/// An agent of this name.
pub fn agent(name: &str) -> AgentId {
    AgentId::parse(name).expect("an agent's name")
}

/// The wall clock, to the millisecond: commit ids, `received_at` and idempotency agree on it.
pub fn now() -> Micros {
    Micros::from_unix_ms(SystemClock.now().unix_ms())
}

/// A commit id of this time.
pub fn commit_id(at: Micros) -> CommitId {
    let unix_ms = u64::try_from(at.unix_ms()).expect("after 1970");
    CommitId::mint(unix_ms, random::bytes())
}

/// An event: `session`, `agent`, and when it happened (`None`: when it is committed).
pub fn sample_event(session: &SessionId, agent_id: &str, at: Option<Micros>, payload: String) -> NewEvent {
    NewEvent {
        session_id: session.clone(),
        agent_id: agent(agent_id),
        timestamp: at,
        event_type: EventType::parse("conformance.sample").expect("an event type"),
        severity: Severity::Info,
        source_id: None,
        payload,
        metadata: "{}".to_owned(),
        compliance_tag: ComplianceTag::default_tag(),
        pii_types: Vec::new(),
        redactions: Redactions::default(),
    }
}

/// `count` events of one agent whose payloads count from `head`.
pub fn sample_events(session: &SessionId, head: Option<Head>, agent: &str, count: u64) -> Vec<NewEvent> {
    let first = head.map_or(0, |h| h.sequence.get() + 1);
    (first..first + count).map(|n| sample_event(session, agent, None, format!("{{\"n\":{n}}}"))).collect()
}

/// A batch while it is put together.
pub struct Batch {
    tenant: TenantId,
    id: CommitId,
    at: Micros,
    number: u16,
    segments: Vec<Segment>,
    idempotency: Option<Idempotency>,
}

impl Batch {
    /// A batch of now.
    pub fn new(tenant: &TenantId) -> Self {
        Self::at(tenant, now())
    }

    /// A batch of this time.
    pub fn at(tenant: &TenantId, at: Micros) -> Self {
        let (tenant, id) = (tenant.clone(), commit_id(at));
        Self { tenant, id, at, number: 0, segments: Vec::new(), idempotency: None }
    }

    /// Adds a segment of these events, chained on this head.
    #[must_use]
    pub fn events(mut self, session: &SessionId, head: Option<Head>, events: Vec<NewEvent>) -> Self {
        let mut numbered = Vec::with_capacity(events.len());
        for event in events {
            self.number += 1;
            numbered.push(Numbered { number: self.number, event });
        }
        // Salts need not be secret here; that they differ is enough.
        let salts: Vec<[u8; 16]> = numbered.iter().map(|n| u128::from(n.number).to_be_bytes()).collect();
        let (segment, _) = chain(&self.tenant, session, head, self.id, self.at, &numbered, &salts)
            .expect("sample events encode");
        self.segments.push(segment);
        self
    }

    /// Adds a segment of `count` sample events of the agent `sampler`.
    #[must_use]
    pub fn sample(self, session: &SessionId, head: Option<Head>, count: u64) -> Self {
        self.events(session, head, sample_events(session, head, "sampler", count))
    }

    /// Adds a segment whose body is these bytes and nothing readable: to a store, a body is opaque.
    #[must_use]
    pub fn opaque(mut self, session: &SessionId, head: Option<Head>, body: Vec<u8>) -> Self {
        self = self.sample(session, head, 1);
        let segment = self.segments.last_mut().expect("one was just added");
        segment.meta.body_bytes = body.len() as u64;
        segment.body = body.into();
        self
    }

    /// Adds an idempotency key that lives for `life_ms`.
    #[must_use]
    pub fn key(mut self, key: [u8; 32], life_ms: i64) -> Self {
        self.idempotency = Some(Idempotency {
            key,
            body: [mix(u64::from(key[0])) as u8; 32],
            commit_id: self.id,
            segments: self.segments.iter().map(|s| (s.session_id.clone(), s.meta.first)).collect(),
            created_at: self.at,
            expires_at: self.at.plus_ms(life_ms),
        });
        self
    }

    /// The batch.
    pub fn done(self) -> Arc<Commit> {
        assert!(!self.segments.is_empty(), "a batch holds something");
        Arc::new(Commit {
            tenant: self.tenant,
            id: self.id,
            segments: self.segments,
            idempotency: self.idempotency,
        })
    }
}

/// A batch of `count` sample events for one session, chained on this head.
pub fn sample_commit(tenant: &TenantId, session: &SessionId, head: Option<Head>, count: u64) -> Arc<Commit> {
    Batch::new(tenant).sample(session, head, count).done()
}

/// The head that a batch gives the first of its sessions.
pub fn head_of(commit: &Commit) -> Option<Head> {
    commit.segments.first().map(|s| s.meta.head())
}

/// What the feed is to say of a batch.
pub fn entries_of(commit: &Commit) -> Vec<FeedEntry> {
    commit
        .segments
        .iter()
        .map(|s| FeedEntry { session_id: s.session_id.clone(), meta: s.meta.clone() })
        .collect()
}

/// The place of an entry.
pub fn position_of(entry: &FeedEntry) -> FeedPosition {
    FeedPosition { commit_id: entry.meta.commit_id, session_id: entry.session_id.clone() }
}

/// What is known of a session after one more segment.
pub fn session_after(
    before: Option<SessionRecord>,
    session_id: &SessionId,
    meta: &SegmentMeta,
) -> SessionRecord {
    match before {
        Some(mut record) => {
            record.last_commit = meta.commit_id;
            record.updated_at = meta.received_at;
            record.head = meta.head();
            record.summary.merge(&meta.summary);
            record
        }
        None => SessionRecord {
            session_id: session_id.clone(),
            first_commit: meta.commit_id,
            last_commit: meta.commit_id,
            updated_at: meta.received_at,
            head: meta.head(),
            summary: meta.summary.clone(),
        },
    }
}

/// What is to be known of a session that has these segments.
pub fn session_of(session_id: &SessionId, metas: &[SegmentMeta]) -> Option<SessionRecord> {
    metas.iter().fold(None, |before, meta| Some(session_after(before, session_id, meta)))
}

/// Bytes that no compressor makes smaller, the same for the same seed.
pub fn noise(seed: u64, count: usize) -> Vec<u8> {
    (0..count.div_ceil(8)).flat_map(|i| mix(mix(seed) ^ i as u64).to_le_bytes()).take(count).collect()
}

/// A JSON string of `count` characters that compresses to about four fifths of it.
pub fn noisy_text(seed: u64, count: usize) -> String {
    let mut text = String::with_capacity(count + 2);
    text.push('"');
    // From '#' to '[' and from ']' to '~': every printable ASCII character that JSON does not escape.
    text.extend(noise(seed, count).into_iter().map(|byte| match byte % 91 {
        low @ 0..57 => char::from(b'#' + low),
        high => char::from(b']' + high - 57),
    }));
    text.push('"');
    text
}

/// A small stream of numbers from a seed, for random tests that can be repeated.
pub struct Dice(u64);

impl Dice {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(mix(seed))
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = mix(self.0);
        self.0 % bound
    }
}
