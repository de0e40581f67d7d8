//! What a store lacks, written. Each of these may be repeated.

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use super::compare::{AT_ONCE, of_run};
use super::{Hot, RebuildError, RebuildOptions, Rebuilt};
use crate::store::{Conflict, Pointer, Store, StoreError, TenantRecord};
use crate::time::Micros;
use crate::verify::{Found, Survey};

/// What is there already is as good as what was written.
fn once(done: Result<(), StoreError>) -> Result<(), StoreError> {
    match done {
        Ok(()) | Err(StoreError::Conflict(Conflict::Exists)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Step 1.
pub(super) async fn batches(store: &dyn Store, survey: &Survey) -> Result<(), RebuildError> {
    let writes = stream::iter(survey.found()?).map(|found| async move {
        let (tenant, Found::Batch(record, _)) = found? else { return Ok(()) };
        if record.batch == 1 && store.tenant(&tenant).await?.is_none() {
            // It was made no later than its first event was committed; when is not in the archive.
            let committed = i64::try_from(record.commits.0.unix_ms()).unwrap_or(i64::MAX);
            let created_at = Micros::from_unix_ms(committed);
            once(store.create_tenant(&TenantRecord { tenant: tenant.clone(), created_at }).await)?;
        }
        once(store.put_batch(&tenant, &record).await)?;
        if record.revision > 0 {
            // One that was there may be from before its object was written anew.
            store.resize_batch(&tenant, record.batch, record.revision, record.bytes).await?;
        }
        Ok::<_, RebuildError>(())
    });
    writes.buffer_unordered(AT_ONCE).try_collect::<()>().await
}

/// Step 2.
pub(super) async fn pointers(store: &dyn Store, survey: &Survey) -> Result<Rebuilt, RebuildError> {
    let writes = stream::iter(survey.found()?).map(|found| async move {
        let (tenant, Found::Session(pointer, _)) = found? else { return Ok(0) };
        match store.advance_pointer(&tenant, &pointer).await {
            // One that is there was scrubbed: what was taken out of it is not in the archive either, or its erasure is
            // under way and looks at the pointer once more.
            Err(StoreError::Conflict(Conflict::Changed)) => {
                let known = store.pointer(&tenant, &pointer.archived.session_id).await?;
                let scrubbed = known.map_or(0, |known| known.scrubbed);
                store.advance_pointer(&tenant, &Pointer { scrubbed, ..pointer }).await?;
            }
            advanced => advanced?,
        }
        Ok::<_, RebuildError>(1)
    });
    let count = |sessions, one: u64| std::future::ready(Ok(sessions + one));
    let sessions = writes.buffer_unordered(AT_ONCE).try_fold(0, count).await?;
    Ok(Rebuilt { sessions, ..Rebuilt::default() })
}

/// Steps 3 and 4, batch by batch. Counts batches and segments.
pub(super) async fn records(
    store: &dyn Store,
    survey: &Survey,
    hot: &Hot,
    options: RebuildOptions,
    rebuilt: &mut Rebuilt,
) -> Result<(), RebuildError> {
    for found in survey.found()? {
        let (tenant, Found::Batch(record, runs)) = found? else { continue };
        let stays_until = options.hot_retention_ms.map(|ms| record.claimed_at.plus_ms(ms));
        let goes_at = Some(record.claimed_at);
        let (tenant, batch) = (&tenant, record.batch);
        // Before anything is let go: readers must not take it for hot.
        store.mark_cold(tenant, batch).await?;
        let known = runs.iter().filter_map(|run| {
            hot.get(&(tenant.clone(), run.session_id.clone())).map(|whole_from| (run, *whole_from))
        });
        let marks = stream::iter(known).map(|(run, whole_from)| async move {
            let (mut kept, mut let_go) = (0, 0);
            for meta in &of_run(store, tenant, run).await? {
                let stays = !options.without_gaps || whole_from.is_some_and(|from| meta.first >= from);
                let expires_at = if stays { stays_until } else { goes_at };
                store.mark_archived(tenant, &run.session_id, meta, batch, expires_at).await?;
                *(if stays { &mut kept } else { &mut let_go }) += 1;
            }
            Ok::<_, RebuildError>((kept, let_go))
        });
        let counts: Vec<(u64, u64)> = marks.buffer_unordered(AT_ONCE).try_collect().await?;
        for (kept, let_go) in counts {
            rebuilt.hot_segments += kept;
            rebuilt.let_go += let_go;
        }
        store.mark_recorded(tenant, batch).await?;
        rebuilt.batches += 1;
    }
    Ok(())
}
