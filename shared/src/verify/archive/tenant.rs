//! The log of one tenant: its batches one after the other, then its tiles, its newest checkpoint, and the chains of its
//! sessions across batches.

use std::collections::{BTreeMap, HashMap};
use std::io;

use futures_util::stream::{self, StreamExt as _};

use super::batch;
use super::facts::Facts;
use super::read::{self, Stop};
use super::rows::Rows;
use super::runs::{RunRecord, Runs};
use super::tiles::Tiles;
use super::{ArchivedSession, Check, Scrubbed};
use crate::ids::{EventHash, EventId, SessionId, TenantId};
use crate::log::header::BatchHeader;
use crate::log::merkle::{Hash, leaf_hashes};
use crate::log::paths::{self, Named};
use crate::verify::erased::Erasures;
use crate::verify::keys::Keys;
use crate::verify::report::LogReport;
use crate::verify::{Bad, Code};

/// A log while it is read.
#[derive(Default)]
pub(super) struct Log {
    /// SHA-256 of the last header; zeros before the first.
    pub(super) header_hash: [u8; 32],
    pub(super) tiles: Tiles,
    runs: Runs,
    /// Sizes at which somebody wants to know the root.
    sizes: BTreeMap<u64, Option<Hash>>,
    next_size: Option<u64>,
    pub(super) erasures: Erasures,
    /// The batch of each erased row.
    pub(super) erased_in: Vec<u64>,
    /// What records say: the tombstone of an event.
    pub(super) recorded: HashMap<EventId, EventId>,
}

/// The object records of a batch, by their keys.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Records {
    pub(super) count: u64,
    /// They are not numbered from 1 without a gap.
    pub(super) gap: bool,
}

impl Log {
    fn new(sizes: BTreeMap<u64, Option<Hash>>) -> Self {
        let next_size = sizes.keys().next().copied();
        let mut this = Self { sizes, next_size, ..Self::default() };
        this.note_root();
        this
    }

    /// Adds the events of a batch to the tree.
    pub(super) fn push_leaves(&mut self, hashes: &[EventHash]) {
        let leaves = leaf_hashes(hashes.iter().map(|hash| &hash.0));
        for (hash, leaf) in hashes.iter().zip(leaves) {
            self.tiles.push(&hash.0, leaf);
            self.note_root();
        }
    }

    /// Notes the root, if somebody wants to know it at this size.
    fn note_root(&mut self) {
        let size = self.tiles.size();
        if self.next_size == Some(size) {
            self.sizes.insert(size, Some(self.tiles.root()));
            self.next_size = self.sizes.range(size + 1..).next().map(|(size, _)| *size);
        }
    }

    /// Notes the runs of a batch.
    pub(super) fn push_runs(&mut self, header: &BatchHeader, rows: &Rows) -> io::Result<()> {
        for (index, (run, before)) in header.runs.iter().zip(&rows.before).enumerate() {
            self.runs.push(&RunRecord {
                session: run.session_id.clone(),
                first: run.first,
                last: run.last,
                prev_hash: *before,
                hash: run.hash,
                batch: header.batch,
                facts: rows.facts.get(index).cloned().unwrap_or_default(),
            })?;
        }
        Ok(())
    }
}

/// The numbers of a tenant's headers.
struct Headers {
    count: u64,
    unfinished: bool,
}

impl Check<'_> {
    /// Steps 3 to 15.
    pub(super) async fn tenant(&mut self, keys: &Keys, tenant: &TenantId) -> Result<(), Stop> {
        let Headers { count, unfinished } = self.headers(tenant).await?;
        let end = if unfinished { count - 1 } else { count };
        let records = self.records(tenant).await?;
        let mut log = Log::new(self.sizes.remove(tenant).unwrap_or_default());
        {
            // One after the other, or as many at once as there are threads; taken in order.
            let numbers = stream::iter(1..=end);
            let reading = super::Reading {
                objects: self.reading.objects,
                wanted: std::sync::Arc::clone(&self.reading.wanted),
                ..self.reading
            };
            let read = numbers.map(|n| {
                let records = records.get(&n).copied().unwrap_or_default();
                batch::read(&reading, tenant, n, records)
            });
            let read = read.buffered(reading.threads);
            let mut read = std::pin::pin!(read.enumerate());
            while let Some((index, read)) = read.next().await {
                let number = index as u64 + 1;
                let read = read.map_err(|stop| stop.at(number))?;
                self.batch(keys, &mut log, tenant, number, read).await.map_err(|stop| stop.at(number))?;
            }
        }
        let Log { tiles, runs, sizes, erasures, erased_in, recorded, .. } = log;
        let (tree_size, root) = (tiles.size(), tiles.root());
        tiles.finish(self.reading.objects, tenant, unfinished).await?;
        self.newest(tenant, count, end).await?;
        self.sessions(tenant, runs, &erasures)?;
        erased(&erasures, &erased_in, &recorded)?;
        if let Some((batch, _)) = records.range(count + 1..).next() {
            return Err(
                Stop::bad(Bad::new(Code::Object, "an object record of a batch that is not there")).at(*batch)
            );
        }
        self.erasures.insert(tenant.clone(), erasures);
        self.sizes.insert(tenant.clone(), sizes);
        self.report.logs.push(LogReport { tenant: tenant.clone(), batches: end, tree_size, root });
        if unfinished {
            self.unfinished.get_or_insert((tenant.clone(), count));
        }
        if let Some(listener) = &mut self.listener {
            listener.end(tenant, end, unfinished).map_err(Stop)?;
        }
        Ok(())
    }

    /// Step 3, and whether the last batch is as a crash leaves it: something that is written later is not there, and
    /// the newest checkpoint is that of the batch before.
    async fn headers(&self, tenant: &TenantId) -> Result<Headers, Stop> {
        let reading = &self.reading;
        let bad = |why: &str, batch| Stop::bad(Bad::new(Code::Log, why)).at(batch);
        let (mut count, mut signed) = (0, 0);
        let mut list = read::List::new(reading.objects, format!("{}batch/", paths::log(tenant)));
        while let Some(listed) = list.next().await? {
            match Named::parse(&listed.key) {
                Some(Named::Header(_, number)) if number == count + 1 => count = number,
                Some(Named::Header(..)) => {
                    return Err(bad("the headers are not numbered from 1 without a gap", count + 1));
                }
                Some(Named::HeaderSignature(_, number)) => signed = number,
                _ => {}
            }
        }
        if signed > count {
            return Err(bad("a signature of a header that is not there", signed));
        }
        if count == 0 {
            return Ok(Headers { count, unfinished: false });
        }
        let newest = batch::note(reading, &paths::checkpoint(tenant)).await?;
        let last = batch::note(reading, &paths::checkpoint_at(tenant, count)).await?;
        let before = match count {
            1 => None,
            _ => batch::note(reading, &paths::checkpoint_at(tenant, count - 1)).await?,
        };
        let is_before = newest == before && (newest.is_some() || count == 1);
        let unfinished = is_before && (signed == count || last.is_none());
        Ok(Headers { count, unfinished })
    }

    /// How many object records each batch has.
    async fn records(&self, tenant: &TenantId) -> Result<BTreeMap<u64, Records>, Stop> {
        let mut records: BTreeMap<u64, Records> = BTreeMap::new();
        let mut list = read::List::new(self.reading.objects, paths::object_records(tenant));
        while let Some(listed) = list.next().await? {
            if let Some(Named::ObjectRecord(_, batch, revision)) = Named::parse(&listed.key) {
                let known = records.entry(batch).or_default();
                known.count += 1;
                known.gap |= known.count != revision;
            }
        }
        Ok(records)
    }

    /// Step 14: `checkpoint` is that of the last finished batch, and none is of a batch that is not there.
    async fn newest(&self, tenant: &TenantId, count: u64, end: u64) -> Result<(), Stop> {
        let bad = |why: String| Stop::bad(Bad::new(Code::Checkpoint, why));
        let mut list = read::List::new(self.reading.objects, format!("{}checkpoints/", paths::log(tenant)));
        if count > 0 {
            list.skip_to(paths::checkpoint_at(tenant, count));
        }
        while let Some(listed) = list.next().await? {
            if let Some(Named::CheckpointAt(_, number)) = Named::parse(&listed.key) {
                return Err(bad("a checkpoint of a batch that is not there".to_owned()).at(number));
            }
        }
        let newest = batch::note(&self.reading, &paths::checkpoint(tenant)).await?;
        let last = match end {
            0 => None,
            _ => batch::note(&self.reading, &paths::checkpoint_at(tenant, end)).await?,
        };
        if newest == last { Ok(()) } else { Err(bad("`checkpoint` is not the newest checkpoint".to_owned())) }
    }

    /// Step 15: each session's runs follow each other.
    fn sessions(&mut self, tenant: &TenantId, runs: Runs, erasures: &Erasures) -> Result<(), Stop> {
        let scrubbed = &erasures.sessions();
        let mut sorted = runs.sorted().map_err(Stop::unreadable)?;
        let mut current: Option<(RunRecord, Option<Facts>, u64)> = None;
        while let Some(run) = sorted.next().map_err(Stop::unreadable)? {
            let continued = current.take_if(|(before, ..)| before.session == run.session);
            let (expected, prev_hash) = match &continued {
                Some((before, ..)) => (before.last.get() + 1, before.hash),
                None => (0, EventHash::ZERO),
            };
            let bad = |code, why: String| {
                let mut stop = Stop::bad(Bad::new(code, why));
                stop.0.session_id = Some(run.session.clone());
                stop.0.sequence = Some(run.first.get());
                stop
            };
            if run.first.get() != expected {
                return Err(bad(
                    Code::Sequence,
                    format!("sequence: expected {expected}, found {}", run.first),
                ));
            }
            if run.prev_hash != prev_hash {
                return Err(bad(
                    Code::PrevHash,
                    format!("prev_hash: expected {prev_hash}, found {}", run.prev_hash),
                ));
            }
            let facts = match run.facts.as_slice() {
                [] => None,
                bytes => Some(Facts::decode(bytes).map_err(Stop::unreadable)?),
            };
            let (facts, first_batch) = match continued {
                None => {
                    if let Some(whole) = current.take() {
                        self.archived(tenant, whole, scrubbed, erasures)?;
                    }
                    (facts, run.batch)
                }
                Some((_, before, first_batch)) => {
                    let merged = before.zip(facts).map(|(mut before, next)| {
                        before.merge(&next);
                        before
                    });
                    (merged, first_batch)
                }
            };
            current = Some((run, facts, first_batch));
        }
        current.map_or(Ok(()), |whole| self.archived(tenant, whole, scrubbed, erasures))
    }

    /// A session whose runs follow each other.
    fn archived(
        &mut self,
        tenant: &TenantId,
        (run, facts, first_batch): (RunRecord, Option<Facts>, u64),
        scrubbed: &HashMap<SessionId, bool>,
        erasures: &Erasures,
    ) -> Result<(), Stop> {
        self.report.sessions += 1;
        let (Some(listener), Some(facts)) = (&mut self.listener, facts) else { return Ok(()) };
        let RunRecord { session, last, hash, batch: last_batch, .. } = run;
        let pending = scrubbed.get(&session);
        let scrubbed = Scrubbed { named: pending.is_some(), pending: pending.copied().unwrap_or(false) };
        let archived = ArchivedSession { session, first_batch, last_batch, last, hash, facts, scrubbed };
        listener.session(tenant, archived, erasures).map_err(Stop)
    }
}

/// Step 15a: each erased row has its true tombstone, and the one that a record names.
fn erased(erasures: &Erasures, erased_in: &[u64], recorded: &HashMap<EventId, EventId>) -> Result<(), Stop> {
    for (erased, batch) in erasures.erased.iter().zip(erased_in) {
        let problem = erasures.problem_of(erased).or_else(|| {
            let named = recorded.get(&erased.event_id)?;
            (erasures.grave(erased.event_id) != Some(*named)).then(|| {
                format!(
                    "an object record says that event {} was erased by {named}, which is not its tombstone",
                    erased.event_id
                )
            })
        });
        if let Some(why) = problem {
            let mut stop = Stop::bad(Bad::new(Code::Erased, why)).at(*batch);
            stop.0.session_id = Some(erased.session.clone());
            stop.0.sequence = Some(erased.sequence.get());
            return Err(stop);
        }
    }
    Ok(())
}
