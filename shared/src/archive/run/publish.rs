//! Claim, publish, sign: what makes a batch part of the log.

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::encode::Encoded;
use super::plan::PlannedRun;
use super::{Archiver, ClosedBatch, LogHead, RunError, damaged, staging};
use crate::archive::BatchReader;
use crate::ids::{EventHash, Seq, TenantId};
use crate::log::checkpoint::{self, Checkpoint};
use crate::log::header::{self, BatchHeader};
use crate::log::identity::IdentityFile;
use crate::log::keys::HeaderStatement;
use crate::log::paths;
use crate::log::tiles::{Level, RightEdge, Tile, TileWriter, right_edge};
use crate::objects::{Condition, ObjectError, Tag};
use crate::statement::log_key_name;

/// Times that a write whose outcome is unknown is looked up and sent again.
const TRIES: usize = 5;

impl Archiver {
    /// The right edge of a tenant's tree of `size` leaves, as it was left by `batch`.
    pub(super) async fn tile_writer_at(
        &self,
        tenant: &TenantId,
        batch: u64,
        size: u64,
    ) -> Result<TileWriter, RunError> {
        let mut edge = RightEdge::default();
        for tile in right_edge(size) {
            let bytes = self.objects.get(&paths::tile(tenant, &tile)).await?.bytes;
            let hashes = tile.decode(&bytes);
            let hashes = hashes.ok_or_else(|| damaged(tenant, batch, format!("{tile} has another width")))?;
            match tile.level {
                Level::Entries => edge.entries = hashes,
                Level::Hashes(level) => {
                    edge.hashes.resize(usize::from(level) + 1, Vec::new());
                    edge.hashes[usize::from(level)] = hashes;
                }
            }
        }
        TileWriter::resume(size, edge).map_err(|e| damaged(tenant, batch, e.to_string()))
    }

    /// Writes an object if there is none. `Ok(None)`: it is there now as given; otherwise what is there instead.
    pub(super) async fn put_once(&self, key: &str, bytes: &Bytes) -> Result<Option<Bytes>, ObjectError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.objects.put(key, bytes.clone(), Condition::Absent).await {
                Ok(_) => return Ok(None),
                Err(ObjectError::Conflict { .. }) => {}
                Err(ObjectError::Unknown { .. }) if tries < TRIES => {}
                Err(error) => return Err(error),
            }
            // Taken, or unknown: whose is it?
            match self.objects.get(key).await {
                Ok(object) if object.bytes == *bytes => return Ok(None),
                Ok(object) => return Ok(Some(object.bytes)),
                Err(ObjectError::NotFound { .. }) if tries < TRIES => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Stages a batch and claims the next number for it. `None` if another was quicker.
    pub(super) async fn claim(
        &self,
        tenant: &TenantId,
        head: Option<&LogHead>,
        encoded: Encoded,
    ) -> Result<Option<(LogHead, Encoded)>, RunError> {
        let batch = head.map_or(1, |head| head.header.batch + 1);
        let staging = staging::fresh(tenant, batch);
        // 1. Stage. The name is ours alone: whatever became of it, nobody else wrote it.
        match self.staging.put(&staging, encoded.object.clone(), Condition::Absent).await {
            Ok(_) | Err(ObjectError::Unknown { .. } | ObjectError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let staged = self.staging.get(&staging).await?;
        if staged.bytes != encoded.object {
            let why = format!("{staging} reads back as something else");
            return Err(ObjectError::Unavailable { why }.into());
        }
        // 2. Claim.
        let header = BatchHeader {
            deployment: self.ledger.identity().await?.deployment.clone(),
            tenant: tenant.clone(),
            batch,
            prev: head.map_or([0; 32], |head| head.hash),
            first_leaf: encoded.first_leaf,
            count: encoded.count,
            tree_size: encoded.first_leaf + encoded.count,
            root: encoded.root,
            claimed_at: self.clock().now(),
            commits: encoded.commits,
            times: encoded.times,
            key: paths::object(tenant, &paths::day(encoded.commits.1), batch),
            bytes: encoded.object.len() as u64,
            sha256: encoded.sha256,
            staging: staging.clone(),
            runs: encoded.runs.clone(),
            blooms: encoded.blooms.clone(),
        };
        let bytes = Bytes::from(header.to_bytes());
        if self.put_once(&paths::header(tenant, batch), &bytes).await?.is_some() {
            self.staging.delete(&staging).await?;
            return Ok(None);
        }
        Ok(Some((LogHead { header, hash: header::hash_of(&bytes), recorded: false }, encoded)))
    }

    /// Brings a claimed batch to its end. May be repeated by anybody, at any time.
    pub(super) async fn finish(
        &self,
        tenant: &TenantId,
        head: &LogHead,
        own: Option<Encoded>,
    ) -> Result<ClosedBatch, RunError> {
        let taken_over = own.is_none();
        self.publish(tenant, head, own.as_ref()).await?;
        self.read_back(tenant, head).await?;
        // After the claim: whoever closes the ledger and then finds no claim unfinished knows that nothing of before is
        // signed any more.
        self.ensure_open().await?;
        self.sign(tenant, head).await?;
        self.record(tenant, head, own.map(|own| own.metas)).await?;
        let BatchHeader { batch, count: events, bytes, tree_size, .. } = head.header;
        tracing::info!(%tenant, batch, events, bytes, tree_size, taken_over, "batch archived");
        Ok(ClosedBatch { batch, events, bytes, tree_size, taken_over })
    }

    /// Publishes and signs the last batch of a tenant's log, which a run had claimed and was cut off before it was
    /// signed. Nothing is recorded: the ledger is closed, and who makes it again reads the archive.
    ///
    /// # Errors
    /// See [`RunError`]; it may be repeated.
    pub async fn complete(&self, tenant: &TenantId, batch: u64) -> Result<(), RunError> {
        let (before, head) = match batch.checked_sub(1).filter(|number| *number > 0) {
            None => (None, self.read_header(tenant, batch).await?),
            Some(number) => (self.read_header(tenant, number).await?, self.read_header(tenant, batch).await?),
        };
        let head = head.ok_or_else(|| damaged(tenant, batch, "its header is gone"))?;
        if !head.follows(before.as_ref()) {
            return Err(damaged(tenant, batch, "the header does not follow the one before it"));
        }
        self.publish(tenant, &head, None).await?;
        self.read_back(tenant, &head).await?;
        self.sign(tenant, &head).await
    }

    /// Writes the object under its final name, and the tiles.
    async fn publish(
        &self,
        tenant: &TenantId,
        head: &LogHead,
        own: Option<&Encoded>,
    ) -> Result<(), RunError> {
        let header = &head.header;
        let (object, tiles) = match own {
            Some(own) => (own.object.clone(), own.tiles.clone()),
            None => {
                let object = self.claimed_object(tenant, head).await?;
                let tiles = self.tiles_of(tenant, header, &object).await?;
                (object, tiles)
            }
        };
        if let Some(other) = self.put_once(&header.key, &object).await?
            && <[u8; 32]>::from(Sha256::digest(&other)) != header.sha256
            && !self.is_recorded(tenant, head, &Sha256::digest(&other).into()).await?
        {
            return Err(damaged(tenant, header.batch, format!("{} holds something else", header.key)));
        }
        let objects: Vec<_> =
            tiles.into_iter().map(|(tile, bytes)| (paths::tile(tenant, &tile), bytes)).collect();
        let mut tries = 0;
        let there = loop {
            tries += 1;
            match self.objects.put_absent(objects.clone()).await {
                Ok(there) => break there,
                Err(ObjectError::Unknown { .. }) if tries < TRIES => {}
                Err(error) => return Err(error.into()),
            }
        };
        for key in there {
            let wanted = objects.iter().find(|(of, _)| *of == key).map(|(_, bytes)| bytes);
            let found = self.objects.get(&key).await?.bytes;
            if wanted.is_some_and(|wanted| *wanted != found) {
                return Err(damaged(tenant, header.batch, format!("the tile {key} is not that of the tree")));
            }
        }
        Ok(())
    }

    /// The object that a header claims: under its final name, staged, or made again from the hot tier.
    async fn claimed_object(&self, tenant: &TenantId, head: &LogHead) -> Result<Bytes, RunError> {
        let header = &head.header;
        let places = [(&self.objects, &header.key), (&self.staging, &header.staging)];
        for (objects, key) in places {
            match objects.get(key).await {
                Ok(object) => {
                    let sha256 = Sha256::digest(&object.bytes).into();
                    // Another run may have come to its end meanwhile, and an erasure after it.
                    if header.sha256 == sha256 || self.is_recorded(tenant, head, &sha256).await? {
                        return Ok(object.bytes);
                    }
                }
                Err(ObjectError::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        tracing::warn!(%tenant, batch = header.batch, "the staged object is lost; made again from the hot tier");
        let mut plan = Vec::with_capacity(header.runs.len());
        for run in &header.runs {
            let prev = match run.first.get().checked_sub(1).and_then(Seq::new) {
                None => EventHash::ZERO,
                Some(_) => match self.store().pointer(tenant, &run.session_id).await? {
                    Some(pointer) if pointer.archived.head.sequence.checked_add(1) == Some(run.first) => {
                        pointer.archived.head.hash
                    }
                    _ => {
                        return Err(damaged(tenant, header.batch, "its object is lost, and it was recorded"));
                    }
                },
            };
            let session = run.session_id.clone();
            let metas = self.contiguous(tenant, &session, run.first, Some(run.last)).await?;
            plan.push(PlannedRun { session, next: run.first, prev, metas });
        }
        let before = match header.batch.checked_sub(1).filter(|number| *number > 0) {
            None => None,
            Some(number) => self.read_header(tenant, number).await?,
        };
        let made = self.encode(tenant, before.as_ref(), &plan).await?;
        match made {
            Some(made) if made.root == header.root && made.sha256 == header.sha256 => Ok(made.object),
            // Something of it was erased since it was staged.
            Some(made) if made.root == header.root && !made.erased.is_empty() => {
                self.record_made_again(tenant, head, &made).await?;
                Ok(made.object)
            }
            Some(made) if made.root == header.root => {
                let why =
                    "its object is lost; the one made again from the hot tier has its root but other bytes";
                Err(damaged(tenant, header.batch, why))
            }
            _ => {
                Err(damaged(tenant, header.batch, "its object is lost, and the hot tier gives another root"))
            }
        }
    }

    /// The tiles of a batch that another process encoded.
    async fn tiles_of(
        &self,
        tenant: &TenantId,
        header: &BatchHeader,
        object: &Bytes,
    ) -> Result<Vec<(Tile, Bytes)>, RunError> {
        let mut writer = self.tile_writer_at(tenant, header.batch, header.first_leaf).await?;
        BatchReader::open(object.clone())?.hashes(|hash| writer.push(hash))?;
        let (tiles, frontier) = writer.finish();
        if frontier.root() != header.root || frontier.size() != header.tree_size {
            return Err(damaged(tenant, header.batch, "its rows do not give its root"));
        }
        Ok(tiles)
    }

    /// Reads what was published as any reader would. Before this nothing may leave the hot tier.
    async fn read_back(&self, tenant: &TenantId, head: &LogHead) -> Result<(), RunError> {
        let header = &head.header;
        let object = self.objects.get(&header.key).await?;
        let sha256 = Sha256::digest(&object.bytes).into();
        if header.sha256 != sha256 && !self.is_recorded(tenant, head, &sha256).await? {
            return Err(damaged(
                tenant,
                header.batch,
                format!("{} reads back as something else", header.key),
            ));
        }
        let tree = self.tile_writer_at(tenant, header.batch, header.tree_size).await?;
        if tree.root() != header.root {
            return Err(damaged(tenant, header.batch, "the tiles read back do not give its root"));
        }
        Ok(())
    }

    /// Signs the header and the checkpoint, and makes it the newest.
    async fn sign(&self, tenant: &TenantId, head: &LogHead) -> Result<(), RunError> {
        let header = &head.header;
        let batch = header.batch;
        let deployment = &header.deployment;
        let identity = self.present_identity().await?;
        self.publish_identity(identity).await?;
        let statement = HeaderStatement { tenant, batch, hash: &head.hash, tree_size: header.tree_size };
        let statement = statement.text(deployment);
        self.put_note(
            tenant,
            batch,
            &paths::header_signature(tenant, batch),
            &log_key_name(deployment),
            &statement,
        )
        .await?;
        let origin = checkpoint::origin(deployment, tenant);
        let text =
            Checkpoint { origin: origin.clone(), tree_size: header.tree_size, root: header.root }.text();
        let note = self.put_note(tenant, batch, &paths::checkpoint_at(tenant, batch), &origin, &text).await?;
        self.advance_checkpoint(tenant, batch, header.tree_size, &note).await
    }

    /// Signs a text and writes the note, or finds it written: another run may have signed the same text, perhaps with
    /// more signatures beside it.
    async fn put_note(
        &self,
        tenant: &TenantId,
        batch: u64,
        key: &str,
        name: &str,
        text: &str,
    ) -> Result<Bytes, RunError> {
        let note = Bytes::from(self.signer.sign(name, text).await?);
        match self.put_once(key, &note).await? {
            None => Ok(note),
            Some(there) => {
                let same = there.starts_with(text.as_bytes()) && there.get(text.len()) == Some(&b'\n');
                if same {
                    Ok(there)
                } else {
                    Err(damaged(tenant, batch, format!("{key} says something else")))
                }
            }
        }
    }

    /// Replaces the newest checkpoint, only by a larger tree.
    async fn advance_checkpoint(
        &self,
        tenant: &TenantId,
        batch: u64,
        tree_size: u64,
        note: &Bytes,
    ) -> Result<(), RunError> {
        let key = paths::checkpoint(tenant);
        let stands = |bytes: &Bytes| -> Result<bool, RunError> {
            let there = std::str::from_utf8(bytes).ok().and_then(|note| note.split_once("\n\n"));
            let there = there.and_then(|(text, _)| Checkpoint::parse(&format!("{text}\n")).ok());
            let there = there.ok_or_else(|| damaged(tenant, batch, "the newest checkpoint is none"))?;
            Ok(there.tree_size >= tree_size)
        };
        self.replace(&key, note, stands).await
    }

    /// Writes an object anew unless `stands` says that what is there may stay; conditional on what was read.
    async fn replace(
        &self,
        key: &str,
        bytes: &Bytes,
        stands: impl Fn(&Bytes) -> Result<bool, RunError>,
    ) -> Result<(), RunError> {
        for _ in 0..super::LOST_CLAIMS_MAX {
            let condition = match self.objects.get(key).await {
                Ok(object) if stands(&object.bytes)? => return Ok(()),
                Ok(object) => Condition::Matches(Tag(object.tag.0)),
                Err(ObjectError::NotFound { .. }) => Condition::Absent,
                Err(error) => return Err(error.into()),
            };
            match self.objects.put(key, bytes.clone(), condition).await {
                Ok(_) => return Ok(()),
                Err(ObjectError::Conflict { .. } | ObjectError::Unknown { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(RunError::Busy(super::LOST_CLAIMS_MAX))
    }

    /// Writes the public keys beside the logs, so that a copy of the archive can be checked by itself.
    async fn publish_identity(&self, file: IdentityFile) -> Result<(), RunError> {
        let bytes = Bytes::from(file.to_bytes());
        // A process that has slept may know fewer keys than what is there.
        let newer = |there: &Bytes| {
            let known = (file.rotations.len(), file.certificates.len());
            Ok(*there == bytes
                || IdentityFile::parse(there)
                    .is_ok_and(|there| (there.rotations.len(), there.certificates.len()) > known))
        };
        self.replace(paths::IDENTITY, &bytes, newer).await
    }
}
