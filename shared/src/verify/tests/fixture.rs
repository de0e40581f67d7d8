//! A data directory with a ledger in it.

use std::path::PathBuf;
use std::sync::Arc;

use crate::clock::ManualClock;
use crate::event::{NewEvent, Redactions};
use crate::ids::{AgentId, ComplianceTag, EventType, SessionId, Severity, TenantId};
use crate::ledger::{Appended, Ledger};
use crate::note::VerifierKey;
use crate::store::embedded::{DataDir, EmbeddedOptions, EmbeddedStore};
use crate::time::Micros;
use crate::verify::samples::{receipt, time};

pub(super) struct Fixture {
    pub(super) dir: tempfile::TempDir,
    pub(super) ledger: Arc<Ledger>,
    clock: Arc<ManualClock>,
    _data: DataDir,
}

pub(super) fn tenant() -> TenantId {
    TenantId::default_tenant()
}

pub(super) fn session(name: &str) -> SessionId {
    SessionId::parse(name).unwrap()
}

pub(super) fn event(session: &SessionId, agent: &str, kind: &str, payload: String) -> NewEvent {
    NewEvent {
        session_id: session.clone(),
        agent_id: AgentId::parse(agent).unwrap(),
        timestamp: None,
        event_type: EventType::parse(kind).unwrap(),
        severity: Severity::Info,
        source_id: None,
        payload,
        metadata: "{}".to_owned(),
        compliance_tag: ComplianceTag::default_tag(),
        pii_types: Vec::new(),
        redactions: Redactions::default(),
    }
}

impl Fixture {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::create_or_open(&dir.path().join("data"), time(0)).unwrap();
        let options = EmbeddedOptions { cache_bytes: 1 << 20, ..EmbeddedOptions::default() };
        let store = EmbeddedStore::open(&data.ledger_path(), &options).unwrap();
        let clock = Arc::new(ManualClock::new(Micros::from_unix_ms(time(0).unix_ms())));
        let ledger = Ledger::new(Arc::new(store), Arc::clone(&clock) as _, data.identity().unwrap());
        Self { dir, ledger: Arc::new(ledger), clock, _data: data }
    }

    pub(super) async fn append(&self, events: Vec<NewEvent>) -> Appended {
        self.clock.advance_ms(7);
        self.ledger.append(&tenant(), events, None).await.unwrap()
    }

    /// Appends so many events to a session, of three kinds.
    pub(super) async fn fill(&self, name: &str, count: u64) -> Appended {
        let session = session(name);
        let kinds = ["session_started", "tool_call", "llm_response"];
        let events = (0..count).map(|n| {
            let payload = format!(
                r#"{{"toolName":"grep","n":{n},"agentName":"A","inputTokens":5,"text":"{name} {n}"}}"#
            );
            event(&session, &format!("agent-{}", n % 2), kinds[n as usize % 3], payload)
        });
        self.append(events.collect()).await
    }

    /// Three sessions of three segments each.
    pub(super) async fn filled() -> Self {
        let this = Self::new();
        for count in [4, 2, 3] {
            for name in ["a", "b", "c"] {
                this.fill(name, count).await;
            }
        }
        this
    }

    /// Archives everything; what is archived expires after so many ms.
    pub(super) async fn archive(&self, hot_retention_ms: Option<i64>) {
        use crate::archive::{ArchiveSettings, Archiver, Close};
        use crate::log::signer::LocalSigner;
        use crate::objects::{Directory, ObjectStore};

        let objects: Arc<dyn ObjectStore> = Arc::new(Directory::open(&self._data.archive_path()).unwrap());
        let signer = Arc::new(LocalSigner::new(self._data.log_signer().unwrap()));
        let settings = ArchiveSettings { hot_retention_ms, ..ArchiveSettings::default() };
        let ledger = Arc::clone(&self.ledger);
        let archiver = Archiver::new(ledger, Arc::clone(&objects), objects, signer, settings);
        self.clock.advance_ms(1000);
        archiver.run(&tenant(), Close::Now, Micros::MAX).await.unwrap();
    }

    /// Lets an hour pass, and sweeps what has expired. Says how many segments that were.
    pub(super) async fn expire(&self) -> usize {
        use crate::clock::Clock as _;
        self.clock.advance_ms(3_600_000);
        self.ledger.store().expire(self.clock.now(), 1000).await.unwrap()
    }

    pub(super) fn receipts(&self, appended: &Appended) -> Vec<String> {
        appended
            .standings
            .iter()
            .map(|standing| receipt(standing, &self.ledger.identity.get().unwrap().receipt_key))
            .collect()
    }

    pub(super) fn key(&self) -> VerifierKey {
        self.ledger.identity.get().unwrap().log_key.clone()
    }

    /// Closes the ledger; the directory stays until the first is dropped.
    pub(super) fn close(self) -> (tempfile::TempDir, PathBuf) {
        let path = self.dir.path().join("data");
        drop(self.ledger);
        (self.dir, path)
    }
}
