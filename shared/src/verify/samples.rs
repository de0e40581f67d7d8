//! Bundles and archives for tests: a good one, the same for the same seed, and many that somebody has tampered with.
//!
//! Keys, salts and ids come from the seed alone, so that a bundle can be kept in a file and compared.

pub mod archived;
mod logged;
pub mod parquet;
mod tamper;
mod tamper_archive;

pub use logged::{Logged, logged, tampered_logged_bundles};
pub use tamper::{Tampered, tampered_bundles};
pub use tamper_archive::{TamperedArchive, tampered_archives};

use crate::bundle;
use crate::chain::{self, Hasher};
use crate::erasure::{self, Tombstone};
use crate::event::{Content, EventRef, Redactions};
use crate::ids::{CommitId, EventHash, Seq, SessionId, Severity, TenantId};
use crate::log::keys::Rotation;
use crate::note::{NoteSigner, VerifierKey};
use crate::statement::{Says, Standing, certify, log_key_name, receipt_key_name};
use crate::time::Micros;

/// The deployment of every sample.
pub const DEPLOYMENT: &str = "ledger.example";

/// 2026-02-08T10:00:00Z, µs: when every sample begins.
const BEGIN: i64 = 1_770_544_800_000_000;

/// The sessions of a sample and how many events each has.
pub const SESSIONS: [(&str, u64); 2] = [("run 1", 4), ("lauf ü 🪢", 2)];

/// The keys of a deployment.
#[derive(Debug)]
pub struct Signers {
    /// The root of trust.
    pub log: NoteSigner,
    /// The log key after a rotation.
    pub next_log: NoteSigner,
    /// Signs receipts and heads.
    pub receipt: NoteSigner,
}

impl Signers {
    /// Keys of the sample deployment. Not secret at all.
    pub fn new(seed: u8) -> Self {
        let signer =
            |name: &str, salt| NoteSigner::from_seed(name, &[seed ^ salt; 32]).expect("a key's name");
        let (log, receipt) = (log_key_name(DEPLOYMENT), receipt_key_name(DEPLOYMENT));
        Self { log: signer(&log, 0x11), next_log: signer(&log, 0x33), receipt: signer(&receipt, 0x22) }
    }

    /// Both log keys' word that the second follows the first.
    pub fn rotate(&self, sizes: Vec<(TenantId, u64)>) -> String {
        let (old, new) = (self.log.verifier().clone(), self.next_log.verifier().clone());
        let rotation = Rotation { deployment: DEPLOYMENT.to_owned(), old, new, time: time(3_000_000), sizes };
        let text = rotation.text();
        rotation.join(&self.log.sign(&text), &self.next_log.sign(&text)).expect("both keys signed it")
    }

    /// The log key's word for the receipt key.
    pub fn certificate(&self) -> String {
        certify(&self.log, DEPLOYMENT, self.receipt.verifier(), time(0))
    }
}

/// So many µs after the beginning.
pub fn time(micros: i64) -> Micros {
    Micros::new(BEGIN + micros).expect("a time of this century")
}

/// The tenant of every sample.
pub fn tenant() -> TenantId {
    TenantId::parse("acme").expect("a tenant's name")
}

fn session(name: &str) -> SessionId {
    SessionId::parse(name).expect("a session's name")
}

/// A good bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Its lines, each with its newline: bundle, then for each of [`SESSIONS`] session, events and head, the same of the
    /// tombstone of the event that is erased, then end.
    pub lines: Vec<String>,
    /// The log key's line.
    pub key: String,
    /// A receipt for each event, as the reply to an append shows it.
    pub receipts: Vec<String>,
}

/// A good bundle of a tenant and a seed.
pub fn sample(seed: u8, tenant: &TenantId) -> Sample {
    let signers = Signers::new(seed);
    let mut lines = Vec::new();
    let mut receipts = Vec::new();
    let mut line = |push: &dyn Fn(&mut String)| {
        let mut line = String::new();
        push(&mut line);
        lines.push(line);
    };
    let certificates = [signers.certificate()];
    let mut tombstone = None;
    let header = bundle::Header {
        deployment: DEPLOYMENT,
        tenant,
        created_at: time(10_000_000),
        log_key: signers.log.verifier(),
        certificates: &certificates,
    };
    line(&|out| bundle::push_header(out, &header));
    for (index, (name, count)) in SESSIONS.iter().enumerate() {
        let session_id = session(name);
        line(&|out| bundle::push_session(out, &session_id));
        let commit = commit(seed, index as u64);
        let mut prev_hash = EventHash::ZERO;
        for sequence in 0..*count {
            let text = Texts::of(sequence);
            let event =
                text.event(tenant, &session_id, commit, Seq::new(sequence).expect("small"), prev_hash);
            line(&|out| bundle::push_event(out, &event));
            if let Content::Erased { digest } = event.content {
                tombstone = Some(tombstone_of(&session_id, &event, digest));
            }
            prev_hash = event.hash;
            let standing = Standing {
                tenant: tenant.clone(),
                session_id: session_id.clone(),
                sequence: event.sequence,
                hash: event.hash,
                time: time(2_000_000),
            };
            receipts.push(receipt(&standing, &signers.receipt));
            if sequence + 1 == *count {
                line(&|out| bundle::push_head(out, &standing.sign(Says::Head, &signers.receipt)));
            }
        }
    }
    let tombstone = tombstone.expect("one of the events is erased");
    let (buried, standing) = bury(seed, tenant, &tombstone);
    receipts.push(receipt(&standing, &signers.receipt));
    lines.extend(buried);
    let events = SESSIONS.iter().map(|(_, count)| count).sum::<u64>();
    let mut end = String::new();
    bundle::push_end(&mut end, SESSIONS.len() as u64 + 1, events + 1);
    lines.push(end);
    Sample { lines, key: format!("{}\n", signers.log.verifier()), receipts }
}

impl Sample {
    /// All lines.
    pub fn text(&self) -> String {
        self.lines.concat()
    }

    /// Its log key.
    pub fn verifier(&self) -> VerifierKey {
        VerifierKey::parse(self.key.trim_end()).expect("a key that was just written")
    }
}

/// What the tombstone of an erased event says.
fn tombstone_of(session: &SessionId, event: &EventRef<'_>, digest: [u8; 32]) -> Tombstone {
    Tombstone {
        event_id: event.event_id,
        session_id: session.clone(),
        sequence: event.sequence,
        hash: event.hash,
        content_digest: digest,
        token_id: Some("tok_1".to_owned()),
        reason: None,
    }
}

/// The lines of a tombstone's session, and where it stands.
fn bury(seed: u8, tenant: &TenantId, tombstone: &Tombstone) -> (Vec<String>, Standing) {
    let session = erasure::session_of(tombstone.event_id);
    bury_as(seed, tenant, &session, &[(erasure::EVENT_TYPE, tombstone.payload().as_str())])
}

/// The lines of a session of events of these types and payloads, and where it ends.
fn bury_as(
    seed: u8,
    tenant: &TenantId,
    session: &SessionId,
    events: &[(&str, &str)],
) -> (Vec<String>, Standing) {
    let mut lines = vec![String::new()];
    bundle::push_session(&mut lines[0], session);
    let commit = commit(seed, 9);
    let mut prev_hash = EventHash::ZERO;
    for (sequence, (event_type, payload)) in (0..).zip(events) {
        let mut event = EventRef {
            sequence: Seq::new(sequence).expect("small"),
            event_id: commit.event(sequence as u16 + 1),
            timestamp: time(5_000_000),
            received_at: time(5_000_000),
            agent_id: "quipu",
            event_type,
            severity: Severity::Warn,
            source_id: None,
            compliance_tag: "default",
            pii_types: "",
            redactions: Redactions::default(),
            content: Content::Kept { salt: [9; 16], payload, metadata: "{}" },
            prev_hash,
            hash: EventHash::ZERO,
        };
        event.hash = Hasher::new(tenant, session).hash(&event);
        prev_hash = event.hash;
        let mut line = String::new();
        bundle::push_event(&mut line, &event);
        lines.push(line);
    }
    let standing = Standing {
        tenant: tenant.clone(),
        session_id: session.clone(),
        sequence: Seq::new(events.len() as u64 - 1).expect("some events"),
        hash: prev_hash,
        time: time(5_000_000),
    };
    let mut head = String::new();
    bundle::push_head(&mut head, &standing.sign(Says::Head, &Signers::new(seed).receipt));
    lines.push(head);
    (lines, standing)
}

/// A receipt as the reply to an append shows it.
pub fn receipt(standing: &Standing, key: &NoteSigner) -> String {
    serde_json::json!({
        "session_id": standing.session_id,
        "sequence": standing.sequence,
        "hash": standing.hash,
        "time": standing.time,
        "note": standing.sign(Says::Receipt, key),
    })
    .to_string()
}

fn commit(seed: u8, index: u64) -> CommitId {
    CommitId::mint(BEGIN as u64 / 1000 + index, [seed; 10])
}

/// The texts of an event, which depend on its sequence alone.
struct Texts {
    payload: String,
    source: Option<&'static str>,
    pii_types: &'static str,
    redactions: Redactions,
    is_erased: bool,
}

impl Texts {
    fn of(sequence: u64) -> Self {
        let payload = format!(r#"{{"n":{sequence},"v":1.0,"big":123456789012345678901,"t":"\u0041é\n"}}"#);
        let mut this = Self {
            payload,
            source: None,
            pii_types: "",
            redactions: Redactions::default(),
            is_erased: sequence == 2,
        };
        if sequence == 1 {
            this.source = Some("source \u{2028} 1");
            this.pii_types = "email,name_2";
            this.redactions = Redactions { count: 3, policy: Some([0xab; 32]) };
        }
        this
    }

    fn event(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        commit: CommitId,
        sequence: Seq,
        prev_hash: EventHash,
    ) -> EventRef<'_> {
        let salt = (u128::from(sequence.get()) + 1).to_be_bytes();
        let content = Content::Kept { salt, payload: &self.payload, metadata: r#"{"k":[null,-0]}"# };
        let content = match content {
            Content::Kept { salt, payload, metadata } if self.is_erased => {
                Content::Erased { digest: chain::content_digest(&salt, payload, metadata) }
            }
            kept => kept,
        };
        let mut event = EventRef {
            sequence,
            event_id: commit.event(sequence.get() as u16 + 1),
            timestamp: time(sequence.get() as i64),
            received_at: time(1_000_000),
            agent_id: "agent/1",
            event_type: "tool.call_started",
            severity: Severity::Info,
            source_id: self.source,
            compliance_tag: "default",
            pii_types: self.pii_types,
            redactions: self.redactions,
            content,
            prev_hash,
            hash: EventHash::ZERO,
        };
        event.hash = Hasher::new(tenant, session).hash(&event);
        event
    }
}
