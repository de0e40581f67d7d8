//! Erasure where it has to wait for the archiver: the object of a batch written anew, older versions of it, and a last look
//! at the hot tier (docs/adr/0013; [`crate::erasure`] has the steps).
//!
//! Record first, object second: between the two the object is still one that the header or an older record names, and
//! whoever comes by finishes it. Both writes are conditional; a run that comes late finds nothing to do.

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::encode::Encoded;
use super::{Archiver, LogHead, RunError, RunReport, damaged};
use crate::archive::{ArchiveError, BatchReader, BatchWriter};
use crate::chain::content_digest;
use crate::erasure::{EraseError, Tombstone, session_of};
use crate::event::Content;
use crate::ids::{EventHash, EventId, Seq, SessionId, TenantId};
use crate::limits;
use crate::log::header::BatchHeader;
use crate::log::paths;
use crate::log::record::ObjectRecord;
use crate::note;
use crate::objects::{Condition, ObjectError};
use crate::statement::log_key_name;
use crate::store::{ErasureRecord, StoreError};
use crate::time::Micros;

/// How often a rewrite begins again because another was quicker, or an answer was lost.
const TRIES: usize = 16;

/// Batches of the catalogue that are asked for at once.
const PAGE: usize = 256;

/// The object of a batch as it was found or made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Revised {
    revision: u64,
    bytes: u64,
}

fn failed(error: EraseError) -> RunError {
    match error {
        EraseError::Store(error) => error.into(),
        other => StoreError::Unavailable { why: other.to_string() }.into(),
    }
}

impl Archiver {
    /// Erasures of a tenant that are not done.
    async fn pending(&self, tenant: &TenantId) -> Result<Vec<ErasureRecord>, RunError> {
        Ok(self.store().erasures(tenant, false, None, limits::ERASURES_AT_ONCE).await?)
    }

    /// Brings what is pending through the hot tier, so that batches that are planned next are without it. What fails is
    /// told and left for the next run: it must not keep events from being archived.
    pub(super) async fn erase_hot(&self, tenant: &TenantId) -> Result<(), RunError> {
        for record in self.pending(tenant).await? {
            if record.progress.hot_at.is_some() {
                continue;
            }
            let done = async {
                let record = self.find_tombstone(tenant, &record).await?;
                self.ledger.erase_hot(tenant, &record).await.map_err(failed)
            };
            if let Err(error) = done.await {
                tracing::error!(%tenant, event = %record.event_id, %error, "an erasure is not done in the hot tier");
            }
        }
        Ok(())
    }

    /// An erasure whose tombstone is known only to the archive: its item was lost, or its process, before it was noted,
    /// and the tombstone has expired since.
    async fn find_tombstone(
        &self,
        tenant: &TenantId,
        record: &ErasureRecord,
    ) -> Result<ErasureRecord, RunError> {
        let session = session_of(record.event_id);
        if record.progress.tombstone.is_some()
            || self.store().stored_body(tenant, &session, Seq::ZERO).await?.is_some()
        {
            return Ok(record.clone());
        }
        let Some(pointer) = self.store().pointer(tenant, &session).await? else { return Ok(record.clone()) };
        let batch = pointer.first_batch;
        let head = self.read_header(tenant, batch).await?;
        let head = head.ok_or_else(|| damaged(tenant, batch, "its header is gone"))?;
        let object = self.objects.get(&head.header.key).await?.bytes;
        let found = BatchReader::open(object)?.rows(|row| {
            if row.session_id != session.as_str() || row.sequence != 0 {
                return ControlFlow::Continue(());
            }
            let event = row.event(None).ok();
            let said = event.and_then(|event| Some((event.event_id, Tombstone::of_event(&session, &event)?)));
            ControlFlow::Break(said)
        })?;
        let said = found.flatten().filter(|(_, said)| {
            let said = (&said.session_id, said.sequence, said.hash, said.content_digest);
            said == (&record.session_id, record.sequence, record.hash, record.content_digest)
        });
        let Some((id, _)) = said else {
            let why = format!("the tombstone of event {} is of something else", record.event_id);
            return Err(damaged(tenant, batch, why));
        };
        self.ledger.note(tenant, record, |progress| progress.tombstone = Some(id)).await.map_err(failed)
    }

    /// True if a batch that is about to be claimed holds content that has gone from the hot tier meanwhile: made again, it
    /// is without it. What somebody has asked to erase since is erased first; what cannot be keeps no batch waiting.
    pub(super) async fn is_erased_meanwhile(
        &self,
        tenant: &TenantId,
        runs: &[crate::log::header::Run],
        erased: &HashSet<EventId>,
    ) -> Result<bool, RunError> {
        let holds = |record: &ErasureRecord| {
            let in_run = |run: &crate::log::header::Run| {
                run.session_id == record.session_id
                    && run.first <= record.sequence
                    && record.sequence <= run.last
            };
            !erased.contains(&record.event_id) && runs.iter().any(in_run)
        };
        if !self.pending(tenant).await?.iter().any(holds) {
            return Ok(false);
        }
        self.erase_hot(tenant).await?;
        let pending = self.pending(tenant).await?;
        Ok(pending.iter().any(|record| holds(record) && record.progress.hot_at.is_some()))
    }

    /// Brings what is pending through the archive, and what has come through to its end. Begins with no further batch
    /// after `until`.
    pub(super) async fn erase_archived(
        &self,
        tenant: &TenantId,
        until: Micros,
        report: &mut RunReport,
    ) -> Result<(), RunError> {
        let mut batches: BTreeMap<u64, Vec<ErasureRecord>> = BTreeMap::new();
        for record in self.pending(tenant).await? {
            if let Some(batch) = self.batch_of(tenant, &record).await? {
                batches.entry(batch).or_default().push(record);
            }
        }
        for (batch, records) in batches {
            if self.clock().now() >= until {
                break;
            }
            self.ensure_open().await?;
            let waits = |record: &ErasureRecord| {
                record.progress.kept_until.is_some_and(|kept| kept > self.clock().now())
            };
            if records.iter().all(waits) {
                continue;
            }
            for chunk in records.chunks(limits::OBJECT_RECORD_EVENTS_MAX) {
                report.erased += self.erase_in(tenant, batch, chunk).await?;
            }
        }
        Ok(())
    }

    /// The batch that holds an event, once the event and its tombstone are archived and recorded.
    async fn batch_of(&self, tenant: &TenantId, record: &ErasureRecord) -> Result<Option<u64>, RunError> {
        if record.progress.tombstone.is_none()
            || self.store().pointer(tenant, &session_of(record.event_id)).await?.is_none()
        {
            return Ok(None);
        }
        if record.progress.batch.is_some() {
            return Ok(record.progress.batch);
        }
        let Some(pointer) = self.store().pointer(tenant, &record.session_id).await? else { return Ok(None) };
        if pointer.archived.head.sequence < record.sequence {
            return Ok(None);
        }
        let commit = record.event_id.commit();
        let mut after = pointer.first_batch.saturating_sub(1);
        while after < pointer.last_batch {
            let page = self.store().batches(tenant, after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = last.batch;
            for batch in page.iter().filter(|b| b.commits.0 <= commit && commit <= b.commits.1) {
                let head = self.read_header(tenant, batch.batch).await?;
                let head = head.ok_or_else(|| damaged(tenant, batch.batch, "its header is gone"))?;
                if head.header.leaf_of(&record.session_id, record.sequence).is_some() {
                    return Ok(Some(batch.batch));
                }
            }
        }
        Err(damaged(tenant, pointer.last_batch, format!("no batch holds event {}", record.event_id)))
    }

    /// Takes the contents of these events out of their batch, and brings their erasures to an end. Says how many.
    async fn erase_in(
        &self,
        tenant: &TenantId,
        batch: u64,
        records: &[ErasureRecord],
    ) -> Result<usize, RunError> {
        let head = self.read_header(tenant, batch).await?;
        let head = head.ok_or_else(|| damaged(tenant, batch, "its header is gone"))?;
        let Revised { revision, bytes } = self.revise(tenant, &head, records).await?;
        if revision > 0 {
            self.store().resize_batch(tenant, batch, revision, bytes).await?;
        }
        // What was staged for it, or before it, is published and recorded.
        self.sweep(tenant, batch).await?;
        let purged = self.objects.purge(&head.header.key).await?;
        let mut done = 0;
        for record in records {
            let now = self.clock().now();
            let note = self.ledger.note(tenant, record, |progress| {
                progress.batch = Some(batch);
                progress.object_at.get_or_insert(now);
                progress.kept_until = purged.until.filter(|_| purged.kept > 0);
            });
            let record = note.await.map_err(failed)?;
            // Once more: pointer and segment may have been under way when it was looked at before.
            let record = self.ledger.erase_hot(tenant, &record).await.map_err(failed)?;
            if purged.kept > 0 {
                continue;
            }
            let now = self.clock().now();
            let note = self.ledger.note(tenant, &record, |progress| {
                progress.done_at.get_or_insert(now);
            });
            note.await.map_err(failed)?;
            done += 1;
            tracing::info!(%tenant, event = %record.event_id, batch, "content erased");
        }
        Ok(done)
    }

    /// The object records of a batch, each of which follows the one before.
    pub(super) async fn object_records(
        &self,
        tenant: &TenantId,
        head: &LogHead,
    ) -> Result<Vec<ObjectRecord>, RunError> {
        let batch = head.header.batch;
        let mut records: Vec<ObjectRecord> = Vec::new();
        let mut prev = head.hash;
        loop {
            let revision = records.len() as u64 + 1;
            let bytes = match self.objects.get(&paths::object_record(tenant, batch, revision)).await {
                Ok(object) => object.bytes,
                Err(ObjectError::NotFound { .. }) => return Ok(records),
                Err(error) => return Err(error.into()),
            };
            let wrong = |why: &str| damaged(tenant, batch, format!("object record {revision}: {why}"));
            let text = std::str::from_utf8(&bytes).map_err(|_| wrong("not text"))?;
            let text = note::unverified_text(text).map_err(|e| wrong(&e.to_string()))?;
            let record = ObjectRecord::parse(text).map_err(|e| wrong(&e.to_string()))?;
            if record.prev != prev || (record.batch, record.revision) != (batch, revision) {
                return Err(wrong("it does not follow the one before"));
            }
            prev = record.hash();
            records.push(record);
        }
    }

    /// True if an object is one that the records of a batch name.
    pub(super) async fn is_recorded(
        &self,
        tenant: &TenantId,
        head: &LogHead,
        sha256: &[u8; 32],
    ) -> Result<bool, RunError> {
        Ok(self.object_records(tenant, head).await?.iter().any(|record| record.sha256 == *sha256))
    }

    /// Sees to it that the object of a batch has the content of none of these events, nor of any that its records name.
    async fn revise(
        &self,
        tenant: &TenantId,
        head: &LogHead,
        wanted: &[ErasureRecord],
    ) -> Result<Revised, RunError> {
        let BatchHeader { batch, key, .. } = &head.header;
        for _ in 0..TRIES {
            let records = self.object_records(tenant, head).await?;
            let object = self.objects.get(key).await?;
            let sha256: [u8; 32] = Sha256::digest(&object.bytes).into();
            let newest = records.last().map_or(head.header.sha256, |record| record.sha256);
            let known = head.header.sha256 == sha256 || records.iter().any(|record| record.sha256 == sha256);
            if !known {
                return Err(damaged(tenant, *batch, format!("{key} holds something else")));
            }
            let named = records.iter().flat_map(|record| record.erased.iter().map(|(event, _)| *event));
            let rewritten = rewrite(tenant, &head.header, &object.bytes, wanted, &named.collect())?;
            let revision = records.len() as u64;
            if rewritten.erased.is_empty() && sha256 == newest {
                return Ok(Revised { revision, bytes: object.bytes.len() as u64 });
            }
            let made: [u8; 32] = Sha256::digest(&rewritten.object).into();
            // What a newest record names and is not there yet is finished; anything else is recorded first.
            if made != newest {
                let tombstone = |event: &EventId| {
                    let asked = wanted.iter().find(|record| record.event_id == *event);
                    let known = records.iter().flat_map(|record| &record.erased);
                    let known = known.filter(|(named, _)| named == event).map(|(_, id)| *id).next();
                    asked.and_then(|record| record.progress.tombstone).or(known)
                };
                let erased = rewritten.erased.iter().filter_map(|event| Some((*event, tombstone(event)?)));
                let record = next_record(head, &records, &rewritten.object, made, erased.collect());
                if !self.write_record(&record).await? {
                    continue;
                }
            }
            match self.objects.put(key, rewritten.object, Condition::Matches(object.tag)).await {
                // Read back and looked at by the next round.
                Ok(_) | Err(ObjectError::Conflict { .. } | ObjectError::Unknown { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(RunError::Busy(TRIES))
    }

    /// Signs a record and writes it. False if one of its number is there, or may be: then it is looked at again.
    async fn write_record(&self, record: &ObjectRecord) -> Result<bool, RunError> {
        self.present_identity().await?;
        let text = record.text();
        let note = Bytes::from(self.signer.sign(&log_key_name(&record.deployment), &text).await?);
        let at = paths::object_record(&record.tenant, record.batch, record.revision);
        match self.objects.put(&at, note, Condition::Absent).await {
            Ok(_) => Ok(true),
            Err(ObjectError::Conflict { .. } | ObjectError::Unknown { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Records the object of a claimed batch that was made again from the hot tier, where something was erased since it
    /// was staged: it has the batch's rows and root, and other bytes than its header says.
    pub(super) async fn record_made_again(
        &self,
        tenant: &TenantId,
        head: &LogHead,
        made: &Encoded,
    ) -> Result<(), RunError> {
        let mut erased = Vec::new();
        for event in &made.erased {
            let record = self.store().erasure(tenant, *event).await?;
            erased.extend(record.and_then(|record| Some((*event, record.progress.tombstone?))));
        }
        for _ in 0..TRIES {
            let records = self.object_records(tenant, head).await?;
            if records.last().is_some_and(|record| record.sha256 == made.sha256) {
                return Ok(());
            }
            let record = next_record(head, &records, &made.object, made.sha256, erased.clone());
            self.write_record(&record).await?;
        }
        Err(RunError::Busy(TRIES))
    }
}

/// The record that follows others of a batch.
fn next_record(
    head: &LogHead,
    records: &[ObjectRecord],
    object: &Bytes,
    sha256: [u8; 32],
    mut erased: Vec<(EventId, EventId)>,
) -> ObjectRecord {
    let header = &head.header;
    erased.sort_unstable();
    erased.truncate(limits::OBJECT_RECORD_EVENTS_MAX);
    ObjectRecord {
        deployment: header.deployment.clone(),
        tenant: header.tenant.clone(),
        batch: header.batch,
        revision: records.len() as u64 + 1,
        prev: records.last().map_or(head.hash, ObjectRecord::hash),
        bytes: object.len() as u64,
        sha256,
        erased,
    }
}

/// An object without some contents.
struct Rewritten {
    object: Bytes,
    /// Whose content was there before.
    erased: Vec<EventId>,
}

/// Writes the rows of a batch again, without the contents of events that are to be erased: `wanted`, whose hashes and
/// digests are known, and those that older records name.
fn rewrite(
    tenant: &TenantId,
    header: &BatchHeader,
    object: &Bytes,
    wanted: &[ErasureRecord],
    named: &HashSet<EventId>,
) -> Result<Rewritten, RunError> {
    let mut writer = BatchWriter::new(tenant);
    let mut erased = Vec::new();
    let mut before: Option<EventHash> = None;
    let reader = BatchReader::open(object.clone())?;
    let mut row = |row: &crate::archive::Row<'_>| -> Result<(), Stop> {
        let is_first = row.prev_hash.is_some();
        let event = row.event(before.filter(|_| !is_first));
        let mut event = event.map_err(|e| Stop::Why(e.to_string()))?;
        before = Some(event.hash);
        let asked = wanted.iter().find(|record| record.event_id == event.event_id);
        if let Content::Kept { salt, payload, metadata } = event.content
            && (asked.is_some() || named.contains(&event.event_id))
        {
            let digest = content_digest(&salt, payload, metadata);
            let fits = asked.is_none_or(|record| {
                (record.sequence, record.hash, record.content_digest) == (event.sequence, event.hash, digest)
            });
            if !fits {
                return Err(Stop::Why(format!(
                    "event {} is not the one that is to be erased",
                    event.event_id
                )));
            }
            event.content = Content::Erased { digest };
            erased.push(event.event_id);
        }
        let session = SessionId::parse(row.session_id).map_err(|e| Stop::Why(e.to_string()))?;
        writer.push(&session, event.event_id.commit(), &event, is_first).map_err(Stop::Error)
    };
    let end = reader.rows(|found| match row(found) {
        Ok(()) => ControlFlow::Continue(()),
        Err(stop) => ControlFlow::Break(stop),
    })?;
    match end {
        None => {}
        Some(Stop::Why(why)) => return Err(damaged(tenant, header.batch, format!("{}: {why}", header.key))),
        Some(Stop::Error(error)) => return Err(error.into()),
    }
    Ok(Rewritten { object: writer.finish()?, erased })
}

/// Why rows are not written again.
enum Stop {
    Why(String),
    Error(ArchiveError),
}
