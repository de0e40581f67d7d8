//! A ledger with an archive, taken apart and put together again: what the tests of the archiver run on.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;

use quipu_core::archive::{ArchiveSettings, Archiver, Close, RunError, RunReport};
use quipu_core::clock::{Clock, SystemClock};
use quipu_core::event::{NewEvent, Redactions};
use quipu_core::ids::{AgentId, ComplianceTag, EventType, SessionId, Severity, TenantId};
use quipu_core::ledger::{Appended, Ledger};
use quipu_core::log::signer::LocalSigner;
use quipu_core::note::{NoteSigner, VerifierKey};
use quipu_core::objects::{Directory, ObjectStore, S3Bucket};
use quipu_core::statement::log_key_name;
use quipu_core::store::Store;
use quipu_core::store::embedded::{DataDir, EmbeddedOptions, EmbeddedStore};
use quipu_core::time::Micros;

use crate::Emulator;

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
        Self::directory_at(path, Arc::new(SystemClock))
    }

    /// The same by another clock.
    pub fn directory_at(path: &std::path::Path, clock: Arc<dyn Clock>) -> Self {
        let data = DataDir::create_or_open(path, clock.now()).expect("a data directory");
        let options = EmbeddedOptions::default();
        let store = EmbeddedStore::with_clock(&data.ledger_path(), &options, clock.clone()).expect("a store");
        let objects = |path| Arc::new(Directory::open(path).expect("a directory of objects"));
        Self {
            store: Arc::new(store),
            objects: objects(&data.archive_path()),
            staging: objects(&data.staging_path()),
            keys: Keys::Of(Arc::new(data)),
            clock,
        }
    }

    /// A table and two buckets, on the emulators.
    pub async fn aws() -> Self {
        Self::aws_at(Arc::new(SystemClock)).await
    }

    /// The same by another clock.
    pub async fn aws_at(clock: Arc<dyn Clock>) -> Self {
        let (url, table_url) = (Emulator::ministack().url(), Emulator::dynoxide().url());
        let client = crate::connection(url, None).s3();
        let bucket = async || {
            let name = format!("quipu-{:016x}", RandomState::new().build_hasher().finish());
            client.create_bucket().bucket(&name).send().await.expect("a bucket");
            Arc::new(S3Bucket::new(&crate::connection(url, None), &name))
        };
        Self {
            store: crate::store_with_clock(
                table_url,
                &crate::emulator::fresh_table(table_url),
                clock.clone(),
            ),
            objects: bucket().await,
            staging: bucket().await,
            keys: Keys::Test,
            clock,
        }
    }

    fn signer(&self) -> NoteSigner {
        match &self.keys {
            Keys::Of(data) => data.log_signer().expect("the log key"),
            Keys::Test => NoteSigner::from_seed(&log_key_name("test"), &[1; 32]).expect("a key"),
        }
    }

    /// What verifies its log.
    pub fn log_key(&self) -> VerifierKey {
        self.signer().verifier().clone()
    }

    /// A ledger: one process of several.
    pub fn ledger(&self) -> Arc<Ledger> {
        let (store, clock) = (self.store.clone(), self.clock.clone());
        let ledger = match &self.keys {
            Keys::Of(data) => Ledger::new(store, clock, data.identity().expect("keys")),
            Keys::Test => crate::ledger_on(store, clock),
        };
        Arc::new(ledger.with_archive(Some(self.objects.clone())))
    }

    /// An archiver: one process of several.
    pub fn archiver(&self, settings: ArchiveSettings) -> Archiver {
        let signer = Arc::new(LocalSigner::new(self.signer()));
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
