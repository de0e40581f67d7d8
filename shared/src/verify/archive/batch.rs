//! One batch: what is read of it, which may happen for several at once, and what is said of it, which happens in order.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future;
use sha2::{Digest as _, Sha256};

use super::read::{self, Stop};
use super::rows::{self, BadRow, Rows};
use super::{Check, Object, Reading};
use crate::ids::{self, EventId, TenantId};
use crate::limits;
use crate::log::header::{self, BatchHeader, HeaderError};
use crate::log::keys::HeaderStatement;
use crate::log::paths;
use crate::log::record::ObjectRecord;
use crate::note;
use crate::verify::keys::Keys;
use crate::verify::{Bad, Code};

use super::tenant::{Log, Records};

/// What lies in the archive of a batch.
pub(super) struct Read {
    header: Result<Arc<BatchHeader>, HeaderError>,
    /// SHA-256 of the header's bytes.
    hash: [u8; 32],
    signature: Option<String>,
    checkpoint: Option<String>,
    /// Its object records: the notes, and what they say before they are believed.
    records: Vec<(String, Result<ObjectRecord, String>)>,
    records_gap: bool,
    /// The number of the record whose object is there; 0: the header's.
    revision: u64,
    /// What its rows gave, or are wrong about. Looked at only if the header is right.
    rows: Result<Rows, BadRow>,
}

/// Reads a batch, and checks its rows against its header.
///
/// # Errors
/// If an object cannot be read.
pub(super) async fn read(
    reading: &Reading<'_>,
    tenant: &TenantId,
    batch: u64,
    listed: Records,
) -> Result<Read, Stop> {
    let objects = reading.objects;
    let keys = [
        paths::header(tenant, batch),
        paths::header_signature(tenant, batch),
        paths::checkpoint_at(tenant, batch),
    ];
    let (found, signature, checkpoint) = future::try_join3(
        read::bounded(objects, &keys[0], limits::HEADER_BYTES_MAX),
        read::text(objects, &keys[1], limits::NOTE_BYTES_MAX),
        read::text(objects, &keys[2], limits::NOTE_BYTES_MAX),
    )
    .await?;
    let bytes = found.unwrap_or_default();
    let hash = header::hash_of(&bytes);
    let header = BatchHeader::parse(&bytes).map(Arc::new);
    drop(bytes);
    let mut records = Vec::new();
    for revision in 1..=if listed.gap { 0 } else { listed.count } {
        let at = paths::object_record(tenant, batch, revision);
        let note = read::text(objects, &at, limits::NOTE_BYTES_MAX).await?.unwrap_or_default();
        let said = note::unverified_text(&note).map_err(|e| e.to_string());
        let said = said.and_then(|text| ObjectRecord::parse(text).map_err(|e| e.to_string()));
        records.push((note, said));
    }
    let (revision, rows) = match &header {
        // A key that is not that of its place is told before the rows are looked at.
        Ok(header) if header.key == key_of(header, tenant, batch) => {
            rows_of(reading, header, &records).await?
        }
        _ => (0, Err(Bad::new(Code::Header, "the header does not name its object").into())),
    };
    Ok(Read { header, hash, signature, checkpoint, records, records_gap: listed.gap, revision, rows })
}

/// The key that the object of a batch must have.
fn key_of(header: &BatchHeader, tenant: &TenantId, batch: u64) -> String {
    paths::object(tenant, &paths::day(header.commits.1), batch)
}

/// The rows of the object that is there, and the number of the record that names it.
async fn rows_of(
    reading: &Reading<'_>,
    header: &Arc<BatchHeader>,
    records: &[(String, Result<ObjectRecord, String>)],
) -> Result<(u64, Result<Rows, BadRow>), Stop> {
    let bad = |why: String| Ok((0, Err(Bad::new(Code::Object, why).into())));
    let mut named = vec![(0, header.bytes, header.sha256)];
    for (revision, (_, said)) in (1..).zip(records) {
        named.extend(said.as_ref().ok().map(|said| (revision, said.bytes, said.sha256)));
    }
    if let Some((_, bytes, _)) = named.iter().find(|(_, bytes, _)| *bytes > limits::VERIFY_OBJECT_BYTES_MAX) {
        let most = limits::VERIFY_OBJECT_BYTES_MAX;
        return bad(format!("{} has {bytes} bytes, which is longer than {most} bytes", header.key));
    }
    let longest = named.iter().map(|(_, bytes, _)| *bytes).max().unwrap_or(0);
    let found = read::bounded(reading.objects, &header.key, longest as usize).await?;
    let Some(object) = found else { return bad(format!("{} is missing", header.key)) };
    if named.iter().all(|(_, bytes, _)| *bytes != object.len() as u64) {
        let whose = if records.is_empty() { "" } else { ", and than its records say" };
        return bad(format!("{} has another length than {} bytes{whose}", header.key, header.bytes));
    }
    let digest = object.clone();
    let digest = tokio::task::spawn_blocking(move || <[u8; 32]>::from(Sha256::digest(&digest)));
    let digest = digest.await.map_err(Stop::unreadable)?;
    // The newest, should two be the same.
    let Some((revision, ..)) = named.iter().rev().find(|(.., sha256)| *sha256 == digest).copied() else {
        return bad(format!("{} has another SHA-256 than its header says", header.key));
    };
    let (batch, wanted, with_facts) = (Arc::clone(header), Arc::clone(&reading.wanted), reading.with_facts);
    let checked = tokio::task::spawn_blocking(move || rows::check(&batch, object, &wanted, with_facts)).await;
    match checked {
        Ok(rows) => Ok((revision, rows)),
        Err(e) if e.is_panic() => bad(format!("{} made the verifier fail (it panicked)", header.key)),
        Err(e) => Err(Stop::unreadable(e)),
    }
}

impl Check<'_> {
    /// Says what is wrong with the next batch, step by step, or takes it in.
    pub(super) async fn batch(
        &mut self,
        keys: &Keys,
        log: &mut Log,
        tenant: &TenantId,
        batch: u64,
        read: Read,
    ) -> Result<(), Stop> {
        let bad = |code, why: String| Stop::bad(Bad::new(code, why));
        // 4: the header by itself, and in its place.
        let header = read.header.map_err(|e| bad(Code::Header, e.to_string()))?;
        let expected = key_of(&header, tenant, batch);
        for (name, right) in [
            ("deployment", header.deployment == keys.chain().deployment()),
            ("tenant", header.tenant == *tenant),
            ("batch", header.batch == batch),
            ("key", header.key == expected),
            ("first_leaf", header.first_leaf == log.tiles.size()),
        ] {
            if !right {
                return Err(bad(Code::Header, format!("the header's {name} is not that of its place")));
            }
        }
        // 5
        if header.prev != log.header_hash {
            return Err(bad(
                Code::Log,
                format!(
                    "prev is {}, the header before has SHA-256 {}",
                    ids::hex(&header.prev),
                    ids::hex(&log.header_hash)
                ),
            ));
        }
        log.header_hash = read.hash;
        // 6
        let note = read.signature.ok_or_else(|| bad(Code::Signature, "it is not there".to_owned()))?;
        let (hash, tree_size) = (&read.hash, header.tree_size);
        keys.chain()
            .open_header(&HeaderStatement { tenant, batch, hash, tree_size }, &note)
            .map_err(|e| bad(Code::Signature, e.to_string()))?;
        // 7: the records, before the object that they may name.
        let records = records_of(keys, &header, &read.hash, read.records, read.records_gap)?;
        // 7 to 11
        let rows = read.rows.map_err(|BadRow { bad, session, sequence }| {
            let mut stop = Stop::bad(bad);
            stop.0.session_id = session;
            stop.0.sequence = sequence.map(|s| s.get());
            stop
        })?;
        log.push_leaves(&rows.hashes);
        if log.tiles.root() != header.root {
            return Err(bad(Code::Header, "root is not what the rows give".to_owned()));
        }
        // 11a
        let erased: HashSet<EventId> = rows.erasures.erased.iter().map(|erased| erased.event_id).collect();
        for (event, tombstone) in
            records.iter().take(read.revision as usize).flat_map(|record| &record.erased)
        {
            if !erased.contains(event) {
                let why = format!(
                    "a record says that event {event} was erased, and it is not an erased row of the batch"
                );
                return Err(bad(Code::Erased, why));
            }
            log.recorded.insert(*event, *tombstone);
        }
        // 12
        let note = read.checkpoint.ok_or_else(|| bad(Code::Checkpoint, "it is not there".to_owned()))?;
        let said = keys.checkpoint(tenant, &note).map_err(|e| bad(Code::Checkpoint, e))?;
        if (said.tree_size, said.root) != (header.tree_size, header.root) {
            return Err(bad(Code::Checkpoint, "it does not say what the header says".to_owned()));
        }
        let mut object = Object { revision: read.revision, bytes: vec![header.bytes] };
        object.bytes.extend(records.iter().map(|record| record.bytes));
        self.unrevised += u64::from(read.revision < records.len() as u64);
        self.take(log, &header, read.hash, rows, &object)?;
        log.tiles.compare(self.reading.objects, tenant).await
    }

    /// Takes in a batch that is right.
    fn take(
        &mut self,
        log: &mut Log,
        header: &BatchHeader,
        hash: [u8; 32],
        rows: Rows,
        object: &Object,
    ) -> Result<(), Stop> {
        rows::found_in(&mut self.found, &header.tenant, &header.runs, &rows.found);
        log.push_runs(header, &rows).map_err(Stop::unreadable)?;
        self.claimed.insert(header.tenant.clone(), header.claimed_at);
        self.report.events += rows.hashes.len() as u64;
        self.report.bytes_hashed += rows.bytes;
        self.erased += rows.erasures.erased.len() as u64;
        log.erased_in.resize(log.erased_in.len() + rows.erasures.erased.len(), header.batch);
        log.erasures.append(rows.erasures);
        (self.progress)(self.report.bytes_hashed);
        if let Some(listener) = &mut self.listener {
            listener.batch(header, hash, object).map_err(Stop)?;
        }
        Ok(())
    }
}

/// An object's bytes, or nothing: what two notes are compared by.
pub(super) async fn note(reading: &Reading<'_>, key: &str) -> Result<Option<Bytes>, Stop> {
    read::bounded(reading.objects, key, limits::NOTE_BYTES_MAX).await
}

/// The object records of a batch, if each is right and follows the one before.
fn records_of(
    keys: &Keys,
    header: &BatchHeader,
    hash: &[u8; 32],
    found: Vec<(String, Result<ObjectRecord, String>)>,
    gap: bool,
) -> Result<Vec<ObjectRecord>, Stop> {
    let bad = |why: String| Stop::bad(Bad::new(Code::Object, why));
    if gap {
        return Err(bad("its object records are not numbered from 1 without a gap".to_owned()));
    }
    let mut records = Vec::with_capacity(found.len());
    let mut prev = *hash;
    for (revision, (note, said)) in (1..).zip(found) {
        let wrong = |why: &str| bad(format!("object record {revision}: {why}"));
        let said = said.map_err(|why| wrong(&why))?;
        keys.chain().open_object_record(&note).map_err(|e| wrong(&e.to_string()))?;
        for (name, right) in [
            ("deployment", said.deployment == header.deployment),
            ("tenant", said.tenant == header.tenant),
            ("batch", said.batch == header.batch),
            ("number", said.revision == revision),
        ] {
            if !right {
                return Err(wrong(&format!("its {name} is not that of its place")));
            }
        }
        if said.prev != prev {
            return Err(wrong("it does not follow the one before"));
        }
        prev = said.hash();
        records.push(said);
    }
    Ok(records)
}
