//! The conformance suite, and what is the embedded store's own.

mod archive;
mod conformance;
mod data_dir;
mod erase;
mod failing;
mod group;
mod inspect;
mod time;
mod upgrade;

use std::path::Path;
use std::sync::Arc;

use super::{EmbeddedOptions, EmbeddedStore};
use crate::event::{Content, EventRef, Redactions};
use crate::ids::{CommitId, EventHash, Seq, SessionId, Severity, TenantId};
use crate::segment::{Head, Segment, SegmentMeta};
use crate::store::Commit;
use crate::summary::Summary;
use crate::time::Micros;

/// A store in a directory that goes with it.
fn store() -> (tempfile::TempDir, Arc<EmbeddedStore>) {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    (dir, store)
}

fn open(dir: &Path) -> Arc<EmbeddedStore> {
    let options = EmbeddedOptions { cache_bytes: 4 << 20, ..EmbeddedOptions::default() };
    Arc::new(EmbeddedStore::open(&dir.join("ledger.redb"), &options).unwrap())
}

fn tenant() -> TenantId {
    TenantId::default_tenant()
}

fn session(name: &str) -> SessionId {
    SessionId::parse(name).unwrap()
}

/// Attributes of a segment of `count` events; the hashes are made up.
fn meta(
    id: CommitId,
    head: Option<Head>,
    count: u64,
    (min, max): (Micros, Micros),
    agent: &str,
) -> SegmentMeta {
    let first = head.map_or(Seq::ZERO, |h| h.sequence.checked_add(1).unwrap());
    let event = |timestamp| EventRef {
        sequence: first,
        event_id: id.event(1),
        timestamp,
        received_at: max,
        agent_id: agent,
        event_type: "x.y",
        severity: Severity::Info,
        source_id: None,
        compliance_tag: "default",
        pii_types: "",
        redactions: Redactions::default(),
        content: Content::Kept { salt: [0; 16], payload: "1", metadata: "{}" },
        prev_hash: EventHash::ZERO,
        hash: EventHash::ZERO,
    };
    let mut summary = Summary::of(&event(min));
    summary.push(&event(max));
    summary.events = count;
    let last = first.checked_add(count - 1).unwrap();
    let mut hash = [0; 32];
    hash[..16].copy_from_slice(&id.to_bytes());
    hash[16..24].copy_from_slice(&last.get().to_be_bytes());
    SegmentMeta {
        commit_id: id,
        received_at: max,
        first,
        last,
        prev_hash: head.map_or(EventHash::ZERO, |h| h.hash),
        last_hash: EventHash(hash),
        body_bytes: 0,
        summary,
    }
}

/// A batch of one segment for each session, with a body of this many bytes.
fn batch(ms: u64, sessions: &[(&SessionId, Option<Head>)], body: usize) -> Arc<Commit> {
    let id = CommitId::mint(ms, crate::random::bytes());
    let at = Micros::from_unix_ms(ms as i64);
    let segments = sessions
        .iter()
        .map(|(session, head)| {
            let mut meta = meta(id, *head, 10, (at, at), "bot");
            meta.body_bytes = body as u64;
            let mut bytes = vec![0; body];
            crate::random::fill(&mut bytes);
            Segment { session_id: (*session).clone(), meta, body: bytes.into() }
        })
        .collect();
    Arc::new(Commit { tenant: tenant(), id, segments, idempotency: None })
}
