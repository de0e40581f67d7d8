//! What a store has, held against its archive. Reads only.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use super::{Hot, RebuildError};
use crate::ids::{Seq, SessionId, TenantId};
use crate::log::LogReader;
use crate::log::header::Run;
use crate::log::tiles::{Level, Tile, WIDTH};
use crate::objects::ObjectStore;
use crate::segment::SegmentMeta;
use crate::store::{BatchRecord, Order, Pointer, Store};
use crate::verify::{Found, Survey};

/// Reads that are under way at once.
pub(super) const AT_ONCE: usize = 64;
/// Segments of a session that are asked for at once.
const PAGE: usize = 256;

/// What differs, in a session.
struct Place<'a> {
    tenant: &'a TenantId,
    session: &'a SessionId,
}

impl Place<'_> {
    fn differs(&self, batch: Option<u64>, sequence: Option<Seq>, why: impl Into<String>) -> RebuildError {
        RebuildError::Differs {
            tenant: self.tenant.clone(),
            batch,
            session: Some(self.session.clone()),
            sequence,
            why: why.into(),
        }
    }
}

/// Pointers and segments of every session that is archived. Gives those of which something archived is still hot.
pub(super) async fn sessions(store: &dyn Store, survey: &Survey) -> Result<Hot, RebuildError> {
    let sessions = survey.found()?.filter_map(|found| match found {
        Ok((tenant, Found::Session(pointer, erased))) => Some(Ok((tenant, pointer, erased))),
        Ok(_) => None,
        Err(error) => Some(Err(RebuildError::from(error))),
    });
    let compared = stream::iter(sessions).map(|found| async move {
        let (tenant, pointer, erased) = found?;
        let below = session(store, &tenant, &pointer, erased).await?;
        Ok::<_, RebuildError>(below.map(|whole_from| ((tenant, pointer.archived.session_id), whole_from)))
    });
    compared.buffered(AT_ONCE).try_filter_map(async |hot| Ok(hot)).try_collect().await
}

/// One session: if something of what is archived is still hot, from where on it reaches to the pointer without a gap.
async fn session(
    store: &dyn Store,
    tenant: &TenantId,
    archived: &Pointer,
    erased: u64,
) -> Result<Option<Option<Seq>>, RebuildError> {
    let head = archived.archived.head;
    let place = Place { tenant, session: &archived.archived.session_id };
    if let Some(known) = store.pointer(tenant, place.session).await? {
        let reached = known.archived.head.sequence;
        if reached > head.sequence {
            let why =
                format!("the store says it is archived to here, the archive holds it to {}", head.sequence);
            return Err(place.differs(None, Some(reached), why));
        }
        // What is erased was counted when it was written; its tally cannot be made again.
        let mut expected = archived.clone();
        if erased > 0 {
            expected.archived.summary = known.archived.summary.clone();
        }
        // And text of it leaves the store before it leaves the archive.
        if known.scrubbed > 0 {
            let summary = &mut expected.archived.summary;
            summary.agent_name.clone_from(&known.archived.summary.agent_name);
            summary.tags.clone_from(&known.archived.summary.tags);
            expected.scrubbed = known.scrubbed;
        }
        if reached == head.sequence && known != expected {
            return Err(place.differs(
                None,
                Some(reached),
                "the store's pointer is not what the archive gives",
            ));
        }
    }
    // Where the segments that follow each other up to the last one seen begin.
    let mut run_from = None;
    let mut before: Option<SegmentMeta> = None;
    let mut from = Some(Seq::ZERO);
    while let Some(next) = from {
        let page = store.segments(tenant, place.session, next, Order::Asc, PAGE).await?;
        from = page.last().filter(|_| page.len() == PAGE).and_then(|last| last.last.checked_add(1));
        for meta in page {
            let is_next = before.as_ref().is_some_and(|last| last.last.checked_add(1) == Some(meta.first));
            if is_next && before.as_ref().is_some_and(|last| last.last_hash != meta.prev_hash) {
                let why = "the store's segments do not follow each other";
                return Err(place.differs(None, Some(meta.first), why));
            }
            if meta.first > head.sequence {
                if head.sequence.checked_add(1) != Some(meta.first) {
                    let why =
                        format!("neither store nor archive has what is between {} and here", head.sequence);
                    return Err(place.differs(None, Some(meta.first), why));
                }
                if meta.prev_hash != head.hash {
                    let why = "the store goes on from another event than the archive ends with";
                    return Err(place.differs(None, Some(meta.first), why));
                }
                return Ok(reached(before.as_ref(), run_from, head.sequence));
            }
            run_from = run_from.filter(|_| is_next).or(Some(meta.first));
            if meta.last > head.sequence {
                let why = format!(
                    "the archive ends with {}, in the middle of a segment of the store",
                    head.sequence
                );
                return Err(place.differs(None, Some(meta.first), why));
            }
            before = Some(meta);
        }
    }
    Ok(reached(before.as_ref(), run_from, head.sequence))
}

/// `last`: the last segment that is archived and hot, if there is one; those before it without a gap begin at `from`.
fn reached(last: Option<&SegmentMeta>, from: Option<Seq>, pointer: Seq) -> Option<Option<Seq>> {
    last.map(|last| from.filter(|_| last.last == pointer))
}

/// The catalogue, and the segments of archived runs that are still hot: each must end with the event that the log has
/// there, and so, by the chain, hold the same events.
pub(super) async fn batches(
    store: &dyn Store,
    objects: &Arc<dyn ObjectStore>,
    survey: &Survey,
    hot: &Hot,
) -> Result<(), RebuildError> {
    let mut log: Option<(LogReader, u64)> = None;
    for found in survey.found()? {
        let (tenant, found) = found?;
        let differs = |batch, why: String| {
            Err(RebuildError::Differs {
                tenant: tenant.clone(),
                batch: Some(batch),
                session: None,
                sequence: None,
                why,
            })
        };
        match found {
            Found::Batch(record, runs) => {
                if log.as_ref().is_none_or(|(log, _)| *log.tenant() != tenant) {
                    let size = survey.report.logs.iter().find(|log| log.tenant == tenant);
                    let reader = LogReader::new(objects.clone(), tenant.clone());
                    log = Some((reader, size.map_or(0, |log| log.tree_size)));
                }
                let known = store.batches(&tenant, record.batch - 1, 1).await?.into_iter().next();
                if let Some(known) = known.filter(|known| known.batch == record.batch)
                    && !is_known_as(&known, &record)
                {
                    return differs(
                        record.batch,
                        "the store's catalogue has another batch of this number".into(),
                    );
                }
                if let Some((log, size)) = &log {
                    runs_of(store, log, *size, &record, &runs, hot).await?;
                }
            }
            Found::Session(..) => {}
            Found::End { batches, .. } => {
                if let Some(last) = store.last_batch(&tenant).await?.filter(|last| last.batch > batches) {
                    let why = format!("the store knows of this batch, the archive ends with batch {batches}");
                    return differs(last.batch, why);
                }
            }
        }
    }
    Ok(())
}

/// True if a catalogue's batch is what the archive says, or was before its object was written anew.
fn is_known_as(known: &BatchRecord, record: &BatchRecord) -> bool {
    let (recorded, hot_until) = (known.recorded, known.hot_until);
    let mut expected = BatchRecord { recorded, hot_until, ..record.clone() };
    if known.revision < record.revision {
        (expected.revision, expected.bytes) = (known.revision, known.bytes);
    }
    *known == expected
}

async fn runs_of(
    store: &dyn Store,
    log: &LogReader,
    tree_size: u64,
    record: &BatchRecord,
    runs: &[Run],
    hot: &Hot,
) -> Result<(), RebuildError> {
    let tenant = log.tenant();
    let mut first_leaf = record.first_leaf;
    for run in runs {
        let leaf_of = |sequence: Seq| first_leaf + (sequence.get() - run.first.get());
        let place = Place { tenant, session: &run.session_id };
        if hot.contains_key(&(tenant.clone(), run.session_id.clone())) {
            for meta in of_run(store, tenant, run).await? {
                let bad = |why| place.differs(Some(record.batch), Some(meta.first), why);
                if meta.first < run.first || meta.last > run.last {
                    return Err(bad("a segment of the store is archived in part"));
                }
                let leaf = leaf_of(meta.last);
                let tile = Tile::at(Level::Entries, leaf / WIDTH, tree_size);
                let Some(tile) = tile else { return Err(bad("the log does not hold it")) };
                let entries = log.tile(tile).await?;
                if entries.get((leaf % WIDTH) as usize) != Some(&meta.last_hash.0) {
                    return Err(bad("the store has other events here than the archive"));
                }
            }
        }
        first_leaf = leaf_of(run.last) + 1;
    }
    Ok(())
}

/// The segments that hold an event of a run and are still hot.
pub(super) async fn of_run(
    store: &dyn Store,
    tenant: &TenantId,
    run: &Run,
) -> Result<Vec<SegmentMeta>, RebuildError> {
    let mut metas: Vec<SegmentMeta> = Vec::new();
    let mut from = Some(run.first);
    while let Some(next) = from.filter(|next| *next <= run.last) {
        let page = store.segments(tenant, &run.session_id, next, Order::Asc, PAGE).await?;
        from = page.last().filter(|_| page.len() == PAGE).and_then(|last| last.last.checked_add(1));
        metas.extend(page.into_iter().filter(|meta| meta.first <= run.last));
    }
    Ok(metas)
}
