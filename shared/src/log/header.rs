//! The header of a batch (docs/format.md, section 8): one link of a tenant's log, and its codec.
//!
//! A header that is read has the syntax of the format and agrees with itself; whether it is true of its rows, its
//! place and its neighbours is for the verifier.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};

use super::bloom::Bloom;
use super::merkle::Hash;
use crate::bundle::values::{hex, sequence, text, time};
use crate::ids::{self, CommitId, EventHash, EventId, Seq, SessionId, TenantId};
use crate::json::{JsonError, Reader};
use crate::limits;
use crate::statement::is_deployment_name;
use crate::store::BatchRecord;
use crate::time::Micros;

/// The only format there is.
pub const FORMAT: &str = "quipu.batch.v1";

/// The only schema of rows there is.
const SCHEMA: u64 = 1;

/// Longest key of an object, bytes (S3's limit).
const KEY_BYTES_MAX: usize = 1024;

/// What a batch is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchHeader {
    /// The deployment's name.
    pub deployment: String,
    /// Whose.
    pub tenant: TenantId,
    /// Its number, from 1.
    pub batch: u64,
    /// SHA-256 of the bytes of the header before it; zeros for batch 1.
    pub prev: [u8; 32],
    /// Index of its first leaf.
    pub first_leaf: u64,
    /// Its events, at least 1.
    pub count: u64,
    /// Size of the tree after it: `first_leaf + count`.
    pub tree_size: u64,
    /// Root of that tree.
    pub root: Hash,
    /// When it was claimed.
    pub claimed_at: Micros,
    /// Lowest and highest commit of its rows.
    pub commits: (CommitId, CommitId),
    /// Lowest and highest timestamp of its rows.
    pub times: (Micros, Micros),
    /// Key of its object.
    pub key: String,
    /// Length of its object, bytes.
    pub bytes: u64,
    /// SHA-256 of its object.
    pub sha256: [u8; 32],
    /// Where its writer staged the object.
    pub staging: String,
    /// What it holds of each session, in the order of rows; at least one.
    pub runs: Vec<Run>,
    /// What it surely lacks.
    pub blooms: Blooms,
}

/// Consecutive events of one session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Run {
    /// The session.
    pub session_id: SessionId,
    /// Sequence of the first event.
    #[serde(serialize_with = "as_number")]
    pub first: Seq,
    /// Sequence of the last event.
    #[serde(serialize_with = "as_number")]
    pub last: Seq,
    /// Hash of the last event.
    pub hash: EventHash,
}

impl Run {
    /// How many events.
    pub fn count(&self) -> u64 {
        self.last.get().saturating_sub(self.first.get()).saturating_add(1)
    }
}

/// Filters over the distinct names in a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Blooms {
    /// Session ids.
    #[serde(serialize_with = "as_base64")]
    pub sessions: Bloom,
    /// Agent ids.
    #[serde(serialize_with = "as_base64")]
    pub agents: Bloom,
    /// Event types.
    #[serde(serialize_with = "as_base64")]
    pub types: Bloom,
}

/// Why bytes are no header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Longer than [`limits::HEADER_BYTES_MAX`].
    #[error("longer than header_bytes_max {}", limits::HEADER_BYTES_MAX)]
    TooLarge,
    /// Not UTF-8.
    #[error("not UTF-8")]
    NotText,
    /// Not the JSON it must be.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// A member is missing.
    #[error("no member {0:?}")]
    Missing(&'static str),
    /// Its parts do not agree.
    #[error("{0}")]
    Contradiction(&'static str),
}

/// SHA-256 of a header's bytes: what the next header and the log key's signature name.
pub fn hash_of(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

fn as_number<S: Serializer>(value: &Seq, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_u64(value.get())
}

fn as_base64<S: Serializer>(bloom: &Bloom, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(&BASE64.encode(bloom.as_bytes()))
}

/// The members, in the order of the format's table.
#[derive(Serialize)]
struct Members<'a> {
    format: &'a str,
    deployment: &'a str,
    tenant: &'a TenantId,
    batch: u64,
    prev: String,
    first_leaf: u64,
    count: u64,
    tree_size: u64,
    root: String,
    claimed_at: Micros,
    commit_first: CommitId,
    commit_last: CommitId,
    time_min: Micros,
    time_max: Micros,
    key: &'a str,
    bytes: u64,
    sha256: String,
    staging: &'a str,
    schema: u64,
    runs: &'a [Run],
    blooms: &'a Blooms,
}

impl BatchHeader {
    /// Its bytes: compact JSON.
    pub fn to_bytes(&self) -> Vec<u8> {
        let members = Members {
            format: FORMAT,
            deployment: &self.deployment,
            tenant: &self.tenant,
            batch: self.batch,
            prev: ids::hex(&self.prev),
            first_leaf: self.first_leaf,
            count: self.count,
            tree_size: self.tree_size,
            root: ids::hex(&self.root),
            claimed_at: self.claimed_at,
            commit_first: self.commits.0,
            commit_last: self.commits.1,
            time_min: self.times.0,
            time_max: self.times.1,
            key: &self.key,
            bytes: self.bytes,
            sha256: ids::hex(&self.sha256),
            staging: &self.staging,
            schema: SCHEMA,
            runs: &self.runs,
            blooms: &self.blooms,
        };
        serde_json::to_vec(&members).expect("texts and numbers are always JSON")
    }

    /// Reads a header.
    ///
    /// # Errors
    /// If it has not the syntax of the format: duplicate, unknown or missing members, values against their syntax; or
    /// does not agree with itself: no run, a session twice, counts and sizes that do not add up.
    pub fn parse(bytes: &[u8]) -> Result<Self, HeaderError> {
        if bytes.len() > limits::HEADER_BYTES_MAX {
            return Err(HeaderError::TooLarge);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| HeaderError::NotText)?;
        let mut reader = Reader::new(text);
        let mut slots = Slots::default();
        reader.object(|r, name| slots.read(r, name))?;
        reader.end()?;
        let header = slots.finish()?;
        header.check()?;
        Ok(header)
    }

    fn check(&self) -> Result<(), HeaderError> {
        let wrong = |why| Err(HeaderError::Contradiction(why));
        if self.batch == 0 || self.count == 0 {
            return wrong("batches and their events are counted from 1");
        }
        if self.first_leaf.checked_add(self.count) != Some(self.tree_size)
            || self.tree_size > limits::TREE_SIZE_MAX
        {
            return wrong("tree_size is not first_leaf + count");
        }
        if self.runs.is_empty() || self.runs.iter().any(|run| run.first > run.last) {
            return wrong("no run, or one that ends before it begins");
        }
        let mut seen = HashSet::with_capacity(self.runs.len());
        if !self.runs.iter().all(|run| seen.insert(&run.session_id)) {
            return wrong("a session twice");
        }
        let events = self.runs.iter().try_fold(0u64, |sum, run| sum.checked_add(run.count()));
        if events != Some(self.count) { wrong("count is not that of its runs") } else { Ok(()) }
    }

    /// What the catalogue keeps of it; `header_hash` is that of its bytes ([`hash_of`]). Not marked as recorded.
    pub fn record(&self, header_hash: [u8; 32]) -> BatchRecord {
        let bytes = |bloom: &Bloom| bloom.as_bytes().to_vec();
        let Blooms { sessions, agents, types } = &self.blooms;
        BatchRecord {
            batch: self.batch,
            header_hash,
            first_leaf: self.first_leaf,
            count: self.count,
            root: self.root,
            claimed_at: self.claimed_at,
            commits: self.commits,
            times: self.times,
            key: self.key.clone(),
            bytes: self.bytes,
            revision: 0,
            blooms: [bytes(sessions), bytes(agents), bytes(types)],
            recorded: false,
        }
    }

    /// The index of the leaf of an event, if the batch holds it.
    pub fn leaf_of(&self, session: &SessionId, sequence: Seq) -> Option<u64> {
        let mut leaf = self.first_leaf;
        for run in &self.runs {
            if run.session_id == *session {
                let inside = run.first <= sequence && sequence <= run.last;
                return inside.then(|| leaf + (sequence.get() - run.first.get()));
            }
            leaf += run.count();
        }
        None
    }
}

/// The members, as far as they are read.
#[derive(Default)]
struct Slots {
    format: bool,
    schema: bool,
    deployment: Option<String>,
    tenant: Option<TenantId>,
    batch: Option<u64>,
    prev: Option<[u8; 32]>,
    first_leaf: Option<u64>,
    count: Option<u64>,
    tree_size: Option<u64>,
    root: Option<Hash>,
    claimed_at: Option<Micros>,
    commit_first: Option<CommitId>,
    commit_last: Option<CommitId>,
    time_min: Option<Micros>,
    time_max: Option<Micros>,
    key: Option<String>,
    bytes: Option<u64>,
    sha256: Option<[u8; 32]>,
    staging: Option<String>,
    runs: Option<Vec<Run>>,
    blooms: Option<Blooms>,
}

impl Slots {
    fn read(&mut self, r: &mut Reader<'_>, name: &str) -> Result<(), JsonError> {
        match name {
            "format" => {
                self.format = r.string()? == FORMAT;
                if !self.format {
                    return Err(r.refuse(format_args!("expected {FORMAT}")));
                }
            }
            "schema" => {
                self.schema = number(r)? == SCHEMA;
                if !self.schema {
                    return Err(r.refuse(format_args!("expected {SCHEMA}")));
                }
            }
            "deployment" => {
                let name = r.string()?;
                if !is_deployment_name(&name) {
                    return Err(r.refuse("expected 1 to 100 of a-z, 0-9, . and -"));
                }
                self.deployment = Some(name.into_owned());
            }
            "tenant" => self.tenant = Some(text(r, TenantId::parse)?),
            "batch" => self.batch = Some(number(r)?),
            "prev" => self.prev = Some(hex(r)?),
            "first_leaf" => self.first_leaf = Some(number(r)?),
            "count" => self.count = Some(number(r)?),
            "tree_size" => self.tree_size = Some(number(r)?),
            "root" => self.root = Some(hex(r)?),
            "claimed_at" => self.claimed_at = Some(time(r)?),
            "commit_first" => self.commit_first = Some(commit(r)?),
            "commit_last" => self.commit_last = Some(commit(r)?),
            "time_min" => self.time_min = Some(time(r)?),
            "time_max" => self.time_max = Some(time(r)?),
            "key" => self.key = Some(key(r)?),
            "bytes" => self.bytes = Some(number(r)?),
            "sha256" => self.sha256 = Some(hex(r)?),
            "staging" => self.staging = Some(key(r)?),
            "runs" => self.runs = Some(runs(r)?),
            "blooms" => self.blooms = Some(blooms(r)?),
            _ => return Err(r.refuse("a member that no header has")),
        }
        Ok(())
    }

    fn finish(self) -> Result<BatchHeader, HeaderError> {
        fn need<T>(value: Option<T>, name: &'static str) -> Result<T, HeaderError> {
            value.ok_or(HeaderError::Missing(name))
        }
        need(self.format.then_some(()), "format")?;
        need(self.schema.then_some(()), "schema")?;
        Ok(BatchHeader {
            deployment: need(self.deployment, "deployment")?,
            tenant: need(self.tenant, "tenant")?,
            batch: need(self.batch, "batch")?,
            prev: need(self.prev, "prev")?,
            first_leaf: need(self.first_leaf, "first_leaf")?,
            count: need(self.count, "count")?,
            tree_size: need(self.tree_size, "tree_size")?,
            root: need(self.root, "root")?,
            claimed_at: need(self.claimed_at, "claimed_at")?,
            commits: (need(self.commit_first, "commit_first")?, need(self.commit_last, "commit_last")?),
            times: (need(self.time_min, "time_min")?, need(self.time_max, "time_max")?),
            key: need(self.key, "key")?,
            bytes: need(self.bytes, "bytes")?,
            sha256: need(self.sha256, "sha256")?,
            staging: need(self.staging, "staging")?,
            runs: need(self.runs, "runs")?,
            blooms: need(self.blooms, "blooms")?,
        })
    }
}

/// A whole number below 2^63.
fn number(r: &mut Reader<'_>) -> Result<u64, JsonError> {
    sequence(r).map(Seq::get)
}

/// A commit id in its one spelling.
fn commit(r: &mut Reader<'_>) -> Result<CommitId, JsonError> {
    const EXPECTED: &str = "expected a commit id: a UUID of version 7 that ends in ten zero bits, lower case";
    let text = r.string()?;
    let id = EventId::parse(&text).map_err(|_| r.refuse(EXPECTED))?;
    let commit = CommitId::from_bytes(id.as_u128().to_be_bytes()).ok_or_else(|| r.refuse(EXPECTED))?;
    if id.encode(&mut [0; 36]) == text { Ok(commit) } else { Err(r.refuse(EXPECTED)) }
}

fn key(r: &mut Reader<'_>) -> Result<String, JsonError> {
    let key = r.string()?;
    ids::check_text(&key, "object_key_bytes_max", KEY_BYTES_MAX).map_err(|e| r.refuse(e))?;
    Ok(key.into_owned())
}

fn runs(r: &mut Reader<'_>) -> Result<Vec<Run>, JsonError> {
    let mut runs = Vec::new();
    r.array(|r, _| {
        let (mut session, mut first, mut last, mut hash) = (None, None, None, None);
        r.object(|r, name| {
            match name {
                "session_id" => session = Some(text(r, SessionId::parse)?),
                "first" => first = Some(sequence(r)?),
                "last" => last = Some(sequence(r)?),
                "hash" => hash = Some(EventHash(hex(r)?)),
                _ => return Err(r.refuse("a member that no run has")),
            }
            Ok(())
        })?;
        let (Some(session_id), Some(first), Some(last), Some(hash)) = (session, first, last, hash) else {
            return Err(r.refuse("a run without one of its members"));
        };
        runs.push(Run { session_id, first, last, hash });
        Ok(())
    })?;
    Ok(runs)
}

fn blooms(r: &mut Reader<'_>) -> Result<Blooms, JsonError> {
    let (mut sessions, mut agents, mut types) = (None, None, None);
    r.object(|r, name| {
        let slot = match name {
            "sessions" => &mut sessions,
            "agents" => &mut agents,
            "types" => &mut types,
            _ => return Err(r.refuse("a member that no blooms have")),
        };
        let bytes = BASE64.decode(&*r.string()?).map_err(|_| r.refuse("expected base64"))?;
        *slot = Some(Bloom::from_bytes(bytes).ok_or_else(|| r.refuse("expected at least 8 bytes"))?);
        Ok(())
    })?;
    let (Some(sessions), Some(agents), Some(types)) = (sessions, agents, types) else {
        return Err(r.refuse("blooms without one of their members"));
    };
    Ok(Blooms { sessions, agents, types })
}
