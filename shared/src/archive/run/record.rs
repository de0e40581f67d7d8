//! Record: the hot tier learns what is archived. Only now may anything leave it.

use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use super::{Archiver, LogHead, RunError, damaged, staging};
use crate::ids::TenantId;
use crate::log::header::{BatchHeader, Run};
use crate::segment::SegmentMeta;
use crate::store::{Conflict, Pointer, SessionRecord, StoreError};
use crate::time::Micros;

/// Writes that are under way at once. On one machine those that meet share a transaction and its fsync.
const AT_ONCE: usize = 64;
/// Staged objects that are looked at for deletion.
const STAGED: usize = 100;

impl Archiver {
    /// Writes the catalogue, the pointers and the segments' marks, deletes what was staged, then says that all this is
    /// done.
    pub(super) async fn record(
        &self,
        tenant: &TenantId,
        head: &LogHead,
        own: Option<Vec<Vec<SegmentMeta>>>,
    ) -> Result<(), RunError> {
        let header = &head.header;
        self.catalogue(tenant, head).await?;
        let expires_at = self.settings.hot_retention_ms.map(|ms| header.claimed_at.plus_ms(ms));
        let own = own.map(|metas| metas.into_iter().map(Some).collect::<Vec<_>>());
        let metas = own.unwrap_or_else(|| vec![None; header.runs.len()]);
        let mut writes: Vec<BoxFuture<'_, Result<(), RunError>>> = Vec::with_capacity(header.runs.len());
        for (run, metas) in header.runs.iter().zip(metas) {
            writes.push(Box::pin(self.record_run(tenant, header, run, metas, expires_at)));
        }
        stream::iter(writes).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        // Before the last word, so that whatever is left staged by a crash is swept by who finishes the batch.
        self.sweep(tenant, header.batch).await?;
        Ok(self.store().mark_recorded(tenant, header.batch).await?)
    }

    async fn catalogue(&self, tenant: &TenantId, head: &LogHead) -> Result<(), RunError> {
        let record = head.header.record(head.hash);
        match self.store().put_batch(tenant, &record).await {
            Ok(()) => return Ok(()),
            Err(StoreError::Conflict(Conflict::Exists) | StoreError::Unknown { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let number = head.header.batch;
        let found =
            self.store().batches(tenant, number - 1, 1).await?.into_iter().find(|b| b.batch == number);
        match found {
            Some(found) if found.header_hash == head.hash => Ok(()),
            Some(_) => Err(damaged(tenant, number, "the catalogue has another batch of this number")),
            None => {
                let why = "the batch was not written into the catalogue".to_owned();
                Err(StoreError::Unavailable { why }.into())
            }
        }
    }

    async fn record_run(
        &self,
        tenant: &TenantId,
        header: &BatchHeader,
        run: &Run,
        metas: Option<Vec<SegmentMeta>>,
        expires_at: Option<Micros>,
    ) -> Result<(), RunError> {
        let session = &run.session_id;
        let metas = match metas {
            Some(metas) => metas,
            None => self.of_run(tenant, run).await?,
        };
        loop {
            let pointer = self.store().pointer(tenant, session).await?;
            if pointer.as_ref().is_some_and(|pointer| pointer.archived.head.sequence >= run.last) {
                break;
            }
            let pointer = advanced(pointer, header.batch, run, &metas)
                .map_err(|why| damaged(tenant, header.batch, format!("session {session}: {why}")))?;
            match self.store().advance_pointer(tenant, &pointer).await {
                Ok(()) => break,
                // An erasure took something out of the pointer that this one was made from.
                Err(StoreError::Conflict(Conflict::Changed)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // What follows is a hint for nobody before the pointer stands.
        let mut marks: Vec<BoxFuture<'_, Result<(), RunError>>> = Vec::with_capacity(metas.len());
        for meta in &metas {
            let mark = self.store().mark_archived(tenant, session, meta, header.batch, expires_at);
            marks.push(Box::pin(async move { Ok(mark.await?) }));
        }
        stream::iter(marks).buffer_unordered(AT_ONCE).try_collect::<()>().await
    }

    /// The segments of a run that are still hot.
    async fn of_run(&self, tenant: &TenantId, run: &Run) -> Result<Vec<SegmentMeta>, RunError> {
        let mut metas: Vec<SegmentMeta> = Vec::new();
        let mut next = Some(run.first);
        while let Some(from) = next
            && from <= run.last
        {
            let page =
                self.store().segments(tenant, &run.session_id, from, crate::store::Order::Asc, 256).await?;
            if page.is_empty() {
                break;
            }
            next = None;
            for meta in page {
                if meta.last > run.last {
                    return Ok(metas);
                }
                next = meta.last.checked_add(1);
                metas.push(meta);
            }
        }
        Ok(metas)
    }

    /// Deletes what was staged for this batch and those before it: it is published and read back.
    pub(super) async fn sweep(&self, tenant: &TenantId, batch: u64) -> Result<(), RunError> {
        let staged = self.staging.list(&staging::of(tenant), None, STAGED).await?;
        for object in staged {
            if staging::batch(tenant, &object.key).is_some_and(|number| number <= batch) {
                self.staging.delete(&object.key).await?;
            }
        }
        Ok(())
    }
}

/// A session's pointer once a run is archived.
fn advanced(
    before: Option<Pointer>,
    batch: u64,
    run: &Run,
    metas: &[SegmentMeta],
) -> Result<Pointer, &'static str> {
    let follows = match &before {
        None => run.first.get() == 0,
        Some(before) => before.archived.head.sequence.checked_add(1) == Some(run.first),
    };
    if !follows {
        return Err("its pointer does not reach the run");
    }
    let whole = metas.first().is_some_and(|first| first.first == run.first)
        && metas.last().is_some_and(|last| last.last == run.last && last.last_hash == run.hash)
        && metas.windows(2).all(|pair| pair[0].last.checked_add(1) == Some(pair[1].first));
    if !whole {
        return Err("the hot tier has not all of the run, and it is not recorded");
    }
    let first_batch = before.as_ref().map_or(batch, |before| before.first_batch);
    let scrubbed = before.as_ref().map_or(0, |before| before.scrubbed);
    let mut record: Option<SessionRecord> = before.map(|before| before.archived);
    for meta in metas {
        record = Some(SessionRecord::after(record, &run.session_id, meta));
    }
    let archived = record.ok_or("a run without segments")?;
    Ok(Pointer { archived, first_batch, last_batch: batch, scrubbed })
}
