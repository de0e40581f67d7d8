//! A ledger, and beside it a plain list of everything that was written to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use crate::archive::{Archiver, Close};
use crate::clock::{Clock, ManualClock};
use crate::event::{Event, NewEvent, OwnedContent, Redactions};
use crate::ids::{AgentId, CommitId, ComplianceTag, EventType, SessionId, Severity, TenantId};
use crate::ledger::{EventFilter, Identity, Ledger};
use crate::note::NoteSigner;
use crate::objects::ObjectStore;
use crate::segment::{Numbered, SegmentReader, chain};
use crate::store::{Commit, Store};
use crate::time::Micros;

/// An event by few numbers, so that many events are alike.
#[derive(Debug, Clone)]
pub(super) struct Spec {
    pub(super) session: u8,
    pub(super) agent: u8,
    pub(super) kind: u8,
    pub(super) severity: u8,
    pub(super) micros: i64,
    pub(super) text: String,
}

pub(super) fn spec() -> impl Strategy<Value = Spec> {
    let micros = prop_oneof![4 => 0i64..30, 1 => -1000i64..1000];
    (0u8..4, 0u8..3, 0u8..3, 0u8..5, micros, "[abÄä]{0,3}").prop_map(
        |(session, agent, kind, severity, micros, text)| Spec {
            session,
            agent,
            kind,
            severity,
            micros,
            text,
        },
    )
}

pub(super) fn batches() -> impl Strategy<Value = Vec<Vec<Spec>>> {
    prop::collection::vec(prop::collection::vec(spec(), 1..8), 1..25)
}

pub(super) fn session(number: u8) -> SessionId {
    SessionId::parse(format!("session-{number}")).unwrap()
}

pub(super) fn agent(number: u8) -> String {
    format!("agent-{number}")
}

pub(super) fn kind(number: u8) -> String {
    ["tool_call", "error", "custom"][usize::from(number)].to_owned()
}

pub(super) fn filter() -> impl Strategy<Value = EventFilter> {
    let some = |strategy| prop::collection::vec(strategy, 0..3);
    let sometimes = prop::option::weighted(0.3, -20i64..40);
    (
        prop::option::weighted(0.3, 0u8..5),
        some(0u8..4),
        some(0u8..3),
        some(0u8..5),
        (sometimes.clone(), sometimes),
        prop::option::weighted(0.3, "[aABäÄ]{0,2}"),
    )
        .prop_map(|(session_number, agents, kinds, severities, (from, to), search)| EventFilter {
            session: session_number.map(session),
            agents: agents.into_iter().map(agent).collect(),
            event_types: kinds.into_iter().map(kind).collect(),
            severities: severities.into_iter().filter_map(Severity::from_number).collect(),
            from: from.and_then(Micros::new),
            to: to.and_then(Micros::new),
            search,
        })
}

/// What a filter says, as plainly as it can be put.
pub(super) fn asked(filter: &EventFilter, event: &Event) -> bool {
    let OwnedContent::Kept { payload, .. } = &event.content else { return false };
    let found = |text: &String| payload.to_lowercase().contains(&text.to_lowercase());
    filter.session.iter().all(|session| *session == event.session_id)
        && (filter.agents.is_empty() || filter.agents.contains(&event.agent_id))
        && (filter.event_types.is_empty() || filter.event_types.contains(&event.event_type))
        && (filter.severities.is_empty() || filter.severities.contains(&event.severity))
        && filter.from.iter().all(|from| event.timestamp >= *from)
        && filter.to.iter().all(|to| event.timestamp <= *to)
        && filter.search.iter().all(found)
}

pub(super) struct Fixture {
    pub(super) ledger: Arc<Ledger>,
    pub(super) clock: Arc<ManualClock>,
    pub(super) tenant: TenantId,
    /// In the order written.
    pub(super) written: Vec<Event>,
    /// What happens after each batch.
    pub(super) age: Option<Age>,
}

/// What happens to what was written.
pub(super) struct Age {
    pub(super) archiver: Archiver,
    /// Says what happens next.
    pub(super) dice: u64,
}

impl Age {
    /// How long what is archived stays hot, ms.
    pub(super) const RETENTION_MS: i64 = 600_000;

    /// Nothing, or an archive run, or some time, or enough of it for what is archived to expire; then that may be swept.
    async fn step(&mut self, clock: &ManualClock, tenant: &TenantId) {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let throw = self.dice >> 59;
        if throw & 1 == 0 {
            self.archiver.run(tenant, Close::Now, Micros::MAX).await.unwrap();
        }
        match throw >> 1 & 3 {
            0 => {
                clock.advance_ms(Self::RETENTION_MS + 1);
            }
            1 => {
                clock.advance_ms(Self::RETENTION_MS / 3);
            }
            _ => {}
        }
        if throw >> 3 == 0 {
            self.archiver.ledger().store.expire(clock.now(), 1000).await.unwrap();
        }
    }
}

impl Fixture {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self::with(store, Self::clock(), None)
    }

    pub(super) fn clock() -> Arc<ManualClock> {
        Arc::new(ManualClock::new(Micros::from_unix_ms(1_770_000_000_000)))
    }

    pub(super) fn with(
        store: Arc<dyn Store>,
        clock: Arc<ManualClock>,
        archive: Option<Arc<dyn ObjectStore>>,
    ) -> Self {
        let receipt_key = NoteSigner::from_seed("test/receipts", &[1; 32]).unwrap();
        let identity = Identity {
            deployment: "test".to_owned(),
            log_key: NoteSigner::from_seed("test/log", &[2; 32]).unwrap().verifier().clone(),
            certificates: Vec::new(),
            rotations: Vec::new(),
            receipt_key,
        };
        let ledger = Arc::new(Ledger::new(store, clock.clone(), identity).with_archive(archive));
        Self { ledger, clock, tenant: TenantId::default_tenant(), written: Vec::new(), age: None }
    }

    /// Writes one batch as one commit.
    pub(super) async fn append(&mut self, batch: &[Spec]) -> CommitId {
        self.clock.advance_ms(1);
        let now = self.clock.now();
        let id = CommitId::mint(now.unix_ms().unsigned_abs(), crate::random::bytes());
        let mut runs: BTreeMap<SessionId, Vec<Numbered>> = BTreeMap::new();
        for (index, spec) in batch.iter().enumerate() {
            let event = NewEvent {
                session_id: session(spec.session),
                agent_id: AgentId::parse(agent(spec.agent)).unwrap(),
                timestamp: Micros::new(spec.micros),
                event_type: EventType::parse(kind(spec.kind)).unwrap(),
                severity: Severity::from_number(spec.severity).unwrap(),
                source_id: None,
                payload: format!("\"{}\"", spec.text),
                metadata: "{}".to_owned(),
                compliance_tag: ComplianceTag::default_tag(),
                pii_types: Vec::new(),
                redactions: Redactions::default(),
            };
            let run = runs.entry(event.session_id.clone()).or_default();
            run.push(Numbered { number: index as u16 + 1, event });
        }
        let mut segments = Vec::new();
        for (session, run) in runs {
            let head = self.ledger.store.head(&self.tenant, &session).await.unwrap();
            let salts = vec![[7; 16]; run.len()];
            let (segment, _) = chain(&self.tenant, &session, head, id, now, &run, &salts).unwrap();
            let mut reader = SegmentReader::new().unwrap();
            for event in reader.open(&segment.body).unwrap().events() {
                self.written.push(event.unwrap().to_event(&self.tenant, &session));
            }
            segments.push(segment);
        }
        let commit = Commit { tenant: self.tenant.clone(), id, segments, idempotency: None };
        self.ledger.store.commit(Arc::new(commit)).await.unwrap();
        if let Some(age) = &mut self.age {
            age.step(&self.clock, &self.tenant).await;
        }
        id
    }

    /// What a list of everything asked for must be, upwards.
    pub(super) fn expected(&self, filter: &EventFilter) -> Vec<Event> {
        let mut events: Vec<Event> = self.written.iter().filter(|e| asked(filter, e)).cloned().collect();
        events.sort_by_key(|e| (e.timestamp, e.event_id));
        events
    }
}

/// Runs a test's future to its end.
pub(super) fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}
