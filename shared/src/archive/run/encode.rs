//! From hot segments to a batch: every link is checked, every event becomes a row and a leaf.

use std::collections::{BTreeSet, HashSet};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt as _};
use sha2::{Digest as _, Sha256};

use super::plan::PlannedRun;
use super::{Archiver, BrokenChain, LogHead, RunError};
use crate::archive::BatchWriter;
use crate::chain::ChainCheck;
use crate::event::{Content, EventRef};
use crate::ids::{CommitId, EventId, TenantId};
use crate::log::bloom::Bloom;
use crate::log::header::{Blooms, Run};
use crate::log::merkle::Hash;
use crate::log::tiles::{Tile, TileWriter};
use crate::segment::{SegmentMeta, SegmentReader};
use crate::store::StoreError;
use crate::time::Micros;

/// Bodies that are read ahead.
const AT_ONCE: usize = 16;

/// A batch that is ready to be claimed or published.
pub(super) struct Encoded {
    /// The Parquet file.
    pub(super) object: Bytes,
    /// Its SHA-256.
    pub(super) sha256: [u8; 32],
    pub(super) runs: Vec<Run>,
    /// The segments of each run.
    pub(super) metas: Vec<Vec<SegmentMeta>>,
    pub(super) first_leaf: u64,
    pub(super) count: u64,
    pub(super) root: Hash,
    pub(super) commits: (CommitId, CommitId),
    pub(super) times: (Micros, Micros),
    pub(super) blooms: Blooms,
    pub(super) tiles: Vec<(Tile, Bytes)>,
    /// Events whose content was erased before.
    pub(super) erased: HashSet<EventId>,
    /// Where a run had to end.
    pub(super) broken: Vec<BrokenChain>,
}

/// A batch while it grows.
struct Encoder {
    reader: SegmentReader,
    writer: BatchWriter,
    tiles: TileWriter,
    runs: Vec<Run>,
    metas: Vec<Vec<SegmentMeta>>,
    agents: BTreeSet<String>,
    types: BTreeSet<String>,
    count: u64,
    commits: Option<(CommitId, CommitId)>,
    times: Option<(Micros, Micros)>,
    erased: HashSet<EventId>,
}

/// A run while it grows.
struct OpenRun<'p> {
    plan: &'p PlannedRun,
    check: ChainCheck,
    metas: Vec<SegmentMeta>,
    /// Nothing more of it is taken.
    ended: bool,
}

impl<'p> OpenRun<'p> {
    fn new(tenant: &TenantId, plan: &'p PlannedRun) -> Self {
        let check = ChainCheck::resume(tenant, &plan.session, plan.next, plan.prev);
        Self { plan, check, metas: Vec::new(), ended: false }
    }
}

impl Encoder {
    fn new(tenant: &TenantId, tiles: TileWriter) -> Result<Self, RunError> {
        let reader =
            SegmentReader::new().map_err(|e| StoreError::Unavailable { why: format!("no reader: {e}") })?;
        Ok(Self {
            reader,
            writer: BatchWriter::new(tenant),
            tiles,
            runs: Vec::new(),
            metas: Vec::new(),
            agents: BTreeSet::new(),
            types: BTreeSet::new(),
            count: 0,
            commits: None,
            times: None,
            erased: HashSet::new(),
        })
    }

    /// Takes a segment, all of it or nothing. The inner error says why it does not fit its session.
    fn segment(
        &mut self,
        run: &mut OpenRun<'_>,
        meta: &SegmentMeta,
        body: &[u8],
    ) -> Result<Result<(), String>, RunError> {
        let view = match self.reader.open(body) {
            Ok(view) => view,
            Err(error) => return Ok(Err(error.to_string())),
        };
        if view.commit_id() != meta.commit_id {
            let (found, named) = (view.commit_id(), meta.commit_id);
            return Ok(Err(format!("the body is of commit {found}, its attributes are of {named}")));
        }
        let mut events: Vec<EventRef<'_>> = Vec::with_capacity(view.count());
        for event in view.events() {
            match event {
                Ok(event) => events.push(event),
                Err(error) => return Ok(Err(format!("segment {error}"))),
            }
        }
        if let Err(error) = run.check.push_all(&events) {
            return Ok(Err(error.to_string()));
        }
        let end = (meta.last.get() + 1, meta.last_hash);
        if (run.check.count(), run.check.head()) != end {
            return Ok(Err("its attributes name another end than its events have".to_owned()));
        }
        for (index, event) in events.iter().enumerate() {
            let first_of_run = run.metas.is_empty() && index == 0;
            self.writer.push(&run.plan.session, meta.commit_id, event, first_of_run)?;
            // Most events have the agent and the type of the one before: looked up without a copy.
            if !self.agents.contains(event.agent_id) {
                self.agents.insert(event.agent_id.to_owned());
            }
            if !self.types.contains(event.event_type) {
                self.types.insert(event.event_type.to_owned());
            }
            self.times = span(self.times, event.timestamp);
            if matches!(event.content, Content::Erased { .. }) {
                self.erased.insert(event.event_id);
            }
        }
        self.tiles.push_all(events.iter().map(|event| &event.hash.0));
        self.commits = span(self.commits, meta.commit_id);
        self.count += events.len() as u64;
        Ok(Ok(()))
    }

    fn close(&mut self, run: OpenRun<'_>) {
        let (Some(first), Some(last)) = (run.metas.first(), run.metas.last()) else { return };
        let session_id = run.plan.session.clone();
        self.runs.push(Run { session_id, first: first.first, last: last.last, hash: last.last_hash });
        self.metas.push(run.metas);
    }

    fn finish(self, first_leaf: u64, broken: Vec<BrokenChain>) -> Result<Option<Encoded>, RunError> {
        let (Some(commits), Some(times)) = (self.commits, self.times) else {
            // Nothing fitted. Told to the caller as runs that are not there, for the sake of `broken`.
            return Ok((!broken.is_empty()).then(|| Encoded::nothing(broken)));
        };
        let object = self.writer.finish()?;
        let (tiles, frontier) = self.tiles.finish();
        let blooms = Blooms {
            sessions: Bloom::of(self.runs.iter().map(|run| run.session_id.as_str())),
            agents: Bloom::of(self.agents.iter().map(String::as_str)),
            types: Bloom::of(self.types.iter().map(String::as_str)),
        };
        Ok(Some(Encoded {
            sha256: Sha256::digest(&object).into(),
            object,
            runs: self.runs,
            metas: self.metas,
            first_leaf,
            count: self.count,
            root: frontier.root(),
            commits,
            times,
            blooms,
            tiles,
            erased: self.erased,
            broken,
        }))
    }
}

impl Encoded {
    fn nothing(broken: Vec<BrokenChain>) -> Self {
        let none = || Bloom::of(std::iter::empty());
        Self {
            object: Bytes::new(),
            sha256: [0; 32],
            runs: Vec::new(),
            metas: Vec::new(),
            first_leaf: 0,
            count: 0,
            root: [0; 32],
            commits: (CommitId::floor_of_ms(0), CommitId::floor_of_ms(0)),
            times: (Micros::MIN, Micros::MIN),
            blooms: Blooms { sessions: none(), agents: none(), types: none() },
            tiles: Vec::new(),
            erased: HashSet::new(),
            broken,
        }
    }
}

/// The lowest and the highest.
fn span<T: Ord + Copy>(known: Option<(T, T)>, next: T) -> Option<(T, T)> {
    Some(known.map_or((next, next), |(low, high)| (low.min(next), high.max(next))))
}

impl Archiver {
    /// Makes the batch of these runs, behind this head of the log. A segment that does not fit ends its session's run
    /// and is named; one that is gone ends it too.
    ///
    /// `None` if no segment is there any more.
    pub(super) async fn encode(
        &self,
        tenant: &TenantId,
        head: Option<&LogHead>,
        plan: &[PlannedRun],
    ) -> Result<Option<Encoded>, RunError> {
        let first_leaf = head.map_or(0, |head| head.header.tree_size);
        let mut encoder = Encoder::new(tenant, self.tile_writer(tenant, head).await?)?;
        let mut broken = Vec::new();
        let mut reads: Vec<BoxFuture<'_, _>> = Vec::new();
        for (index, run) in plan.iter().enumerate() {
            for meta in &run.metas {
                let read = self.store().body(tenant, &run.session, meta.first);
                reads.push(Box::pin(async move { (index, meta, read.await) }));
            }
        }
        let mut bodies = stream::iter(reads).buffered(AT_ONCE);
        let mut open: Option<(usize, OpenRun<'_>)> = None;
        while let Some((index, meta, body)) = bodies.next().await {
            if open.as_ref().is_none_or(|(of, _)| *of != index) {
                if let Some((_, run)) = open.take() {
                    encoder.close(run);
                }
                open = Some((index, OpenRun::new(tenant, &plan[index])));
            }
            let Some((_, run)) = &mut open else { continue };
            if run.ended {
                continue;
            }
            let fits = match body {
                Ok(body) => encoder.segment(run, meta, &body)?,
                Err(StoreError::NotFound) => {
                    run.ended = true;
                    continue;
                }
                Err(StoreError::Corrupt { why, .. }) => Err(why),
                Err(error) => return Err(error.into()),
            };
            match fits {
                Ok(()) => run.metas.push(meta.clone()),
                Err(why) => {
                    run.ended = true;
                    let session_id = run.plan.session.clone();
                    broken.push(BrokenChain { session_id, first: meta.first, why });
                }
            }
        }
        if let Some((_, run)) = open.take() {
            encoder.close(run);
        }
        encoder.finish(first_leaf, broken)
    }

    /// Goes on with the tree behind a head of the log. What is read is held against the header's root.
    async fn tile_writer(&self, tenant: &TenantId, head: Option<&LogHead>) -> Result<TileWriter, RunError> {
        let Some(head) = head else { return Ok(TileWriter::new()) };
        let header = &head.header;
        let writer = self.tile_writer_at(tenant, header.batch, header.tree_size).await?;
        if writer.root() != header.root {
            return Err(super::damaged(tenant, header.batch, "its tiles do not give its root"));
        }
        Ok(writer)
    }
}
