//! A ledger with an archive, taken apart and put together again: what the tests of the archiver run on.

use std::path::PathBuf;
use std::sync::Arc;

use quipu_core::archive::{ArchiveSettings, Archiver, Close, RunError, RunReport};
use quipu_core::clock::{Clock, SystemClock};
use quipu_core::event::{NewEvent, Redactions};
use quipu_core::ids::{AgentId, ComplianceTag, EventType, SessionId, Severity, TenantId};
use quipu_core::ledger::{Appended, Ledger};
use quipu_core::log::signer::LocalSigner;
use quipu_core::note::NoteSigner;
use quipu_core::objects::{Directory, ObjectStore};
use quipu_core::statement::log_key_name;
use quipu_core::store::Store;
use quipu_core::store::embedded::{DataDir, EmbeddedOptions, EmbeddedStore};
use quipu_core::time::Micros;

/// The stores that a ledger and its archive lie in.
#[derive(Clone)]
pub struct Ground {
    /// The hot tier.
    pub store: Arc<dyn Store>,
    /// The archive.
    pub objects: Arc<dyn ObjectStore>,
    /// Where batches are staged.
    pub staging: Arc<dyn ObjectStore>,
    /// Keys: of the data directory, or everybody's.
    pub keys: Keys,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
}

/// Whose keys a ledger has.
#[derive(Clone)]
pub enum Keys {
    /// A data directory's.
    Of(Arc<DataDir>),
    /// The ones that everybody knows ([`crate::ledger_on`]).
    Test,
}

impl Ground {
    /// A data directory, made or opened.
    pub fn directory(path: &std::path::Path) -> Self {
        let data = DataDir::create_or_open(path, SystemClock.now()).expect("a data directory");
        let store = EmbeddedStore::open(&data.ledger_path(), &EmbeddedOptions::default()).expect("a store");
        let objects =
            |name: &str| Arc::new(Directory::open(&path.join(name)).expect("a directory of objects"));
        Self {
            store: Arc::new(store),
            objects: objects("archive"),
            staging: objects("staging"),
            keys: Keys::Of(Arc::new(data)),
            clock: Arc::new(SystemClock),
        }
    }

    /// A ledger: one process of several.
    pub fn ledger(&self) -> Arc<Ledger> {
        let (store, clock) = (self.store.clone(), self.clock.clone());
        Arc::new(match &self.keys {
            Keys::Of(data) => Ledger::new(store, clock, data.identity().expect("keys")),
            Keys::Test => crate::ledger_on(store, clock),
        })
    }

    /// An archiver: one process of several.
    pub fn archiver(&self, settings: ArchiveSettings) -> Archiver {
        let key = match &self.keys {
            Keys::Of(data) => data.log_signer().expect("the log key"),
            Keys::Test => NoteSigner::from_seed(&log_key_name("test"), &[1; 32]).expect("a key"),
        };
        let signer = Arc::new(LocalSigner::new(key));
        Archiver::new(self.ledger(), self.objects.clone(), self.staging.clone(), signer, settings)
    }

    /// Archives everything there is, as a process of its own.
    pub async fn archive(&self, tenant: &TenantId) -> Result<RunReport, RunError> {
        self.archiver(ArchiveSettings::default()).run(tenant, Close::Now, Micros::MAX).await
    }
}

/// An event of a session with a text in it.
pub fn note(session: &str, text: &str) -> NewEvent {
    NewEvent {
        session_id: SessionId::parse(session).expect("a session"),
        agent_id: AgentId::parse("tester").expect("an agent"),
        timestamp: None,
        event_type: EventType::parse("test.happened").expect("a type"),
        severity: Severity::Info,
        source_id: None,
        payload: serde_json::json!({ "text": text, "model": "m-1", "durationMs": 1.5 }).to_string(),
        metadata: "{}".to_owned(),
        compliance_tag: ComplianceTag::default_tag(),
        pii_types: Vec::new(),
        redactions: Redactions::default(),
    }
}

/// Appends `count` events to a session, in one batch.
pub async fn append(ledger: &Ledger, tenant: &TenantId, session: &str, text: &str, count: usize) -> Appended {
    let events = (0..count).map(|index| note(session, &format!("{text} {index}"))).collect();
    ledger.append(tenant, events, None).await.expect("an append")
}

/// The archive of a data directory.
pub fn archive_of(path: &std::path::Path) -> PathBuf {
    path.join("archive")
}
