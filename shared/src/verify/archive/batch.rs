//! One batch: what is read of it, which may happen for several at once, and what is said of it, which happens in order.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future;

use super::read::{self, Stop};
use super::rows::{self, BadRow, Rows};
use super::{Check, Reading};
use crate::ids::{self, TenantId};
use crate::limits;
use crate::log::header::{self, BatchHeader, HeaderError};
use crate::log::keys::HeaderStatement;
use crate::log::paths;
use crate::verify::keys::Keys;
use crate::verify::{Bad, Code};

use super::tenant::Log;

/// What lies in the archive of a batch.
pub(super) struct Read {
    header: Result<Arc<BatchHeader>, HeaderError>,
    /// SHA-256 of the header's bytes.
    hash: [u8; 32],
    signature: Option<String>,
    checkpoint: Option<String>,
    /// What its rows gave, or are wrong about. Looked at only if the header is right.
    rows: Result<Rows, BadRow>,
}

/// Reads a batch, and checks its rows against its header.
///
/// # Errors
/// If an object cannot be read.
pub(super) async fn read(reading: &Reading<'_>, tenant: &TenantId, batch: u64) -> Result<Read, Stop> {
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
    let rows = match &header {
        // A key that is not that of its place is told before the rows are looked at.
        Ok(header) if header.key == key_of(header, tenant, batch) => rows_of(reading, header).await?,
        _ => Err(Bad::new(Code::Header, "the header does not name its object").into()),
    };
    Ok(Read { header, hash, signature, checkpoint, rows })
}

/// The key that the object of a batch must have.
fn key_of(header: &BatchHeader, tenant: &TenantId, batch: u64) -> String {
    paths::object(tenant, &paths::day(header.commits.1), batch)
}

async fn rows_of(reading: &Reading<'_>, header: &Arc<BatchHeader>) -> Result<Result<Rows, BadRow>, Stop> {
    let bad = |why: String| Ok(Err(Bad::new(Code::Object, why).into()));
    if header.bytes > limits::VERIFY_OBJECT_BYTES_MAX {
        return bad(format!("{} is longer than {} bytes", header.key, limits::VERIFY_OBJECT_BYTES_MAX));
    }
    let found = read::bounded(reading.objects, &header.key, header.bytes as usize).await?;
    let Some(object) = found else { return bad(format!("{} is missing", header.key)) };
    if object.len() as u64 != header.bytes {
        return bad(format!("{} has another length than {} bytes", header.key, header.bytes));
    }
    let (batch, wanted, with_facts) = (Arc::clone(header), Arc::clone(&reading.wanted), reading.with_facts);
    let checked = tokio::task::spawn_blocking(move || rows::check(&batch, object, &wanted, with_facts)).await;
    match checked {
        Ok(rows) => Ok(rows),
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
        // 12
        let note = read.checkpoint.ok_or_else(|| bad(Code::Checkpoint, "it is not there".to_owned()))?;
        let said = keys.checkpoint(tenant, &note).map_err(|e| bad(Code::Checkpoint, e))?;
        if (said.tree_size, said.root) != (header.tree_size, header.root) {
            return Err(bad(Code::Checkpoint, "it does not say what the header says".to_owned()));
        }
        self.take(log, &header, read.hash, rows)?;
        log.tiles.compare(self.reading.objects, tenant).await
    }

    /// Takes in a batch that is right.
    fn take(&mut self, log: &mut Log, header: &BatchHeader, hash: [u8; 32], rows: Rows) -> Result<(), Stop> {
        rows::found_in(&mut self.found, &header.tenant, &header.runs, &rows.found);
        log.push_runs(header, &rows).map_err(Stop::unreadable)?;
        self.claimed.insert(header.tenant.clone(), header.claimed_at);
        self.report.events += rows.hashes.len() as u64;
        self.report.bytes_hashed += rows.bytes;
        self.erased += rows.erased;
        (self.progress)(self.report.bytes_hashed);
        if let Some(listener) = &mut self.listener {
            listener.batch(header, hash).map_err(Stop)?;
        }
        Ok(())
    }
}

/// An object's bytes, or nothing: what two notes are compared by.
pub(super) async fn note(reading: &Reading<'_>, key: &str) -> Result<Option<Bytes>, Stop> {
    read::bounded(reading.objects, key, limits::NOTE_BYTES_MAX).await
}
