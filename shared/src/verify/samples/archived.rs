//! Archives for tests: made whole in memory, batch by batch, so that somebody who holds the keys can be played too.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::{DEPLOYMENT, Signers, commit, session, time};
use crate::archive::BatchWriter;
use crate::chain::Hasher;
use crate::erasure::{self, Tombstone};
use crate::event::{Content, EventRef, Redactions};
use crate::ids::{EventHash, Seq, Severity, TenantId};
use crate::log::bloom::Bloom;
use crate::log::checkpoint::{Checkpoint, origin};
use crate::log::header::{self, BatchHeader, Blooms, Run};
use crate::log::identity::IdentityFile;
use crate::log::keys::HeaderStatement;
use crate::log::merkle::Hash;
use crate::log::paths;
use crate::log::tiles::TileWriter;
use crate::note::NoteSigner;
use crate::statement::Standing;
use crate::time::Micros;

/// µs in a day: batches of a sample are a day and a bit apart.
const DAY: i64 = 24 * 60 * 60 * 1_000_000;

/// The objects of an archive by their keys.
pub type Objects = BTreeMap<String, Bytes>;

/// What an event says: its agent, type and payload.
type Said = (&'static str, &'static str, String);

/// A batch that can be laid into an archive.
#[derive(Debug, Clone)]
pub struct Batch {
    /// What its header says; what follows from its place is filled in when it is laid.
    pub header: BatchHeader,
    /// Its Parquet file.
    pub object: Bytes,
    /// Hashes of its events.
    pub entries: Vec<Hash>,
}

/// A tenant's sessions as they are appended to, one batch after the other.
#[derive(Debug)]
pub struct History {
    /// Whose.
    pub tenant: TenantId,
    /// Makes two histories differ.
    pub salt: u8,
    heads: BTreeMap<String, (u64, EventHash)>,
    /// For every event, what a receipt says of it.
    pub standings: Vec<Standing>,
    batches: u64,
}

impl History {
    /// Of a tenant.
    pub fn new(tenant: &str, salt: u8) -> Self {
        let tenant = TenantId::parse(tenant).expect("a tenant's name");
        Self { tenant, salt, heads: BTreeMap::new(), standings: Vec::new(), batches: 0 }
    }

    /// The next batch: so many further events of each of these sessions.
    pub fn batch(&mut self, runs: &[(&'static str, u64)]) -> Batch {
        let runs = runs.iter().map(|(name, count)| {
            let next = self.heads.get(*name).map_or(0, |(next, _)| *next);
            let event = |n: u64| {
                let agent = if n.is_multiple_of(3) { "agent/1" } else { "agent/2" };
                let event_type = ["llm_response", "tool_call", "tool_response"][n as usize % 3];
                (agent, event_type, payload(next + n))
            };
            ((*name).to_owned(), (0..*count).map(event).collect())
        });
        let runs: Vec<_> = runs.collect();
        self.of(&runs)
    }

    /// The next batch: these tombstones, each in its session.
    pub fn bury(&mut self, tombstones: &[Tombstone]) -> Batch {
        let runs = tombstones.iter().map(|tombstone| {
            let session = erasure::session_of(tombstone.event_id).as_str().to_owned();
            (session, vec![("quipu", erasure::EVENT_TYPE, tombstone.payload())])
        });
        let mut runs: Vec<_> = runs.collect();
        runs.sort();
        self.of(&runs)
    }

    /// The next batch: further events of sessions, each with its agent, type and payload.
    fn of(&mut self, runs: &[(String, Vec<Said>)]) -> Batch {
        self.batches += 1;
        let received_at = time(self.batches as i64 * (DAY + 3_600_000_000));
        let mut writer = BatchWriter::new(&self.tenant);
        let (mut entries, mut said) = (Vec::new(), Vec::new());
        let (mut agents, mut types) = (BTreeSet::new(), BTreeSet::new());
        let (mut commits, mut times) = (Vec::new(), Vec::new());
        for (index, (name, events)) in runs.iter().enumerate() {
            let session_id = session(name);
            let count = events.len() as u64;
            let commit = commit(self.salt, self.batches * 100_000_000 + index as u64);
            let mut hasher = Hasher::new(&self.tenant, &session_id);
            let (next, mut prev_hash) = self.heads.get(name).copied().unwrap_or((0, EventHash::ZERO));
            for (n, (agent, event_type, payload)) in (0..).zip(events) {
                let sequence = Seq::new(next + n).expect("small");
                let salt = [self.salt ^ n as u8; 16];
                let mut event = EventRef {
                    sequence,
                    event_id: commit.event(n as u16 + 1),
                    timestamp: Micros::new(received_at.get() - 5 - n as i64).expect("this century"),
                    received_at,
                    agent_id: agent,
                    event_type,
                    severity: Severity::Info,
                    source_id: None,
                    compliance_tag: "default",
                    pii_types: "",
                    redactions: Redactions::default(),
                    content: Content::Kept { salt, payload, metadata: r#"{"traceId":"t1"}"# },
                    prev_hash,
                    hash: EventHash::ZERO,
                };
                event.hash = hasher.hash(&event);
                writer.push(&session_id, commit, &event, n == 0).expect("rows are written");
                prev_hash = event.hash;
                entries.push(event.hash.0);
                agents.insert(*agent);
                types.insert(*event_type);
                commits.push(commit);
                times.push(event.timestamp);
                self.standings.push(Standing {
                    tenant: self.tenant.clone(),
                    session_id: session_id.clone(),
                    sequence,
                    hash: event.hash,
                    time: received_at,
                });
            }
            let first = Seq::new(next).expect("small");
            let last = Seq::new(next + count - 1).expect("small");
            said.push(Run { session_id, first, last, hash: prev_hash });
            self.heads.insert(name.clone(), (next + count, prev_hash));
        }
        let bloom = |values: &BTreeSet<&str>| Bloom::of(values.iter().copied());
        let blooms = Blooms {
            sessions: bloom(&runs.iter().map(|(name, _)| name.as_str()).collect()),
            agents: bloom(&agents),
            types: bloom(&types),
        };
        let range = |list: &[Micros]| (*list.iter().min().expect("rows"), *list.iter().max().expect("rows"));
        let header = BatchHeader {
            deployment: DEPLOYMENT.to_owned(),
            tenant: self.tenant.clone(),
            batch: 0,
            prev: [0; 32],
            first_leaf: 0,
            count: entries.len() as u64,
            tree_size: 0,
            root: [0; 32],
            claimed_at: Micros::new(received_at.get() + 60_000_000).expect("this century"),
            commits: (*commits.iter().min().expect("rows"), *commits.iter().max().expect("rows")),
            times: range(&times),
            key: String::new(),
            bytes: 0,
            sha256: [0; 32],
            staging: format!("staging/{}", self.batches),
            runs: said,
            blooms,
        };
        Batch { header, object: writer.finish().expect("a file is written"), entries }
    }
}

/// What an event says, by its sequence.
fn payload(sequence: u64) -> String {
    match sequence % 3 {
        0 => format!(
            r#"{{"n":{sequence},"provider":"p","model":"m-1","usage":{{"inputTokens":12,"outputTokens":{sequence}}},"costUsd":0.00125,"durationMs":12.5}}"#
        ),
        1 => format!(r#"{{"n":{sequence},"toolName":"grep","callId":"c-{sequence}"}}"#),
        _ => format!(r#"{{"n":{sequence},"success":false,"spanId":"s"}}"#),
    }
}

/// Lays batches: what follows from their places is filled in, and everything signed.
#[derive(Debug)]
pub struct Archive<'k> {
    /// The deployment's keys.
    pub signers: &'k Signers,
    /// The objects so far.
    pub objects: Objects,
    /// Sizes of logs when the log key was replaced, if it was.
    pub rotation: Option<Vec<(TenantId, u64)>>,
}

/// What somebody changes in a header after everything in it was made right, and before it is signed.
pub type Edit<'e> = &'e dyn Fn(&mut BatchHeader);

impl<'k> Archive<'k> {
    /// With nothing in it but its identity.
    pub fn new(signers: &'k Signers, rotation: Option<Vec<(TenantId, u64)>>) -> Self {
        let mut this = Self { signers, objects: Objects::new(), rotation };
        let (log_key, rotations) = match &this.rotation {
            None => (&signers.log, Vec::new()),
            Some(sizes) => (&signers.next_log, vec![signers.rotate(sizes.clone())]),
        };
        let identity = IdentityFile {
            deployment: DEPLOYMENT.to_owned(),
            log_key: log_key.verifier().clone(),
            certificates: vec![signers.certificate()],
            rotations,
        };
        this.put(paths::IDENTITY, identity.to_bytes());
        this
    }

    /// Writes an object.
    pub fn put(&mut self, key: impl Into<String>, bytes: impl Into<Bytes>) {
        self.objects.insert(key.into(), bytes.into());
    }

    /// The log key that signs at a tree size.
    fn key(&self, tenant: &TenantId, size: u64) -> &'k NoteSigner {
        let Some(sizes) = &self.rotation else { return &self.signers.log };
        let at = sizes.iter().find(|(name, _)| name == tenant).map_or(0, |(_, size)| *size);
        if size > at { &self.signers.next_log } else { &self.signers.log }
    }

    /// Lays all batches of a tenant. `edit` is what somebody who signs changes in the header of each.
    pub fn lay(&mut self, tenant: &TenantId, batches: &[Batch], edit: Edit<'_>) {
        let mut tiles = TileWriter::new();
        let mut prev = [0; 32];
        for (number, batch) in (1..).zip(batches) {
            let mut header = batch.header.clone();
            header.tenant = tenant.clone();
            header.batch = number;
            header.prev = prev;
            header.first_leaf = tiles.size();
            for entry in &batch.entries {
                tiles.push(entry);
            }
            header.count = batch.entries.len() as u64;
            (header.tree_size, header.root) = (tiles.size(), tiles.root());
            header.key = paths::object(tenant, &paths::day(header.commits.1), number);
            (header.bytes, header.sha256) = (batch.object.len() as u64, Sha256::digest(&batch.object).into());
            edit(&mut header);
            prev = self.sign(&header);
            self.put(header.key.clone(), batch.object.clone());
            let note = self.checkpoint(tenant, header.tree_size, header.root);
            self.put(paths::checkpoint_at(tenant, number), note.clone());
            self.put(paths::checkpoint(tenant), note);
            // The partial tiles of every batch stay: nothing in a log is deleted.
            for (tile, bytes) in tiles.clone().finish().0 {
                self.put(paths::tile(tenant, &tile), bytes);
            }
        }
    }

    /// Writes a header and the log key's word for it; gives its hash.
    pub fn sign(&mut self, header: &BatchHeader) -> [u8; 32] {
        let bytes = header.to_bytes();
        let hash = header::hash_of(&bytes);
        let (tenant, batch, tree_size) = (&header.tenant, header.batch, header.tree_size);
        let said = HeaderStatement { tenant, batch, hash: &hash, tree_size };
        let note = self.key(tenant, tree_size).sign(&said.text(DEPLOYMENT));
        self.put(paths::header(tenant, batch), bytes);
        self.put(paths::header_signature(tenant, batch), note);
        hash
    }

    /// A checkpoint by the key that holds.
    pub fn checkpoint(&self, tenant: &TenantId, tree_size: u64, root: Hash) -> String {
        checkpoint(tenant, tree_size, root, self.key(tenant, tree_size))
    }

    /// The object of a key, as text.
    pub fn text(&self, key: &str) -> String {
        String::from_utf8(self.objects[key].to_vec()).expect("text")
    }
}

/// A checkpoint by a log key.
pub fn checkpoint(tenant: &TenantId, tree_size: u64, root: Hash, key: &NoteSigner) -> String {
    let checkpoint = Checkpoint { origin: origin(DEPLOYMENT, tenant), tree_size, root };
    key.renamed(&checkpoint.origin).expect("an origin is a key's name").sign(&checkpoint.text())
}

/// Writes objects as files below a directory.
///
/// # Errors
/// The file system's.
pub fn write(objects: &Objects, directory: &Path) -> std::io::Result<()> {
    for (key, bytes) in objects {
        let path = directory.join(key);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(path, bytes)?;
    }
    Ok(())
}
