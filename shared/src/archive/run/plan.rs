//! Which segments go into the next batch. The hints name sessions only; what is read here is strongly consistent.

use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use super::backlog::Backlog;
use super::{Archiver, RunError};
use crate::ids::{EventHash, Seq, SessionId, TenantId};
use crate::limits;
use crate::segment::SegmentMeta;
use crate::store::Order;

/// Sessions that are read at once.
const AT_ONCE: usize = 16;
/// Segments of a session that are asked for at once.
const PAGE: usize = 256;
/// A segment that the hints do not name yet counts for this many times its body.
const UNPACKED_GUESS: u64 = 5;

/// The segments of a batch, by session, in the order of its rows.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) runs: Vec<PlannedRun>,
}

/// Consecutive segments of a session.
#[derive(Debug, Clone)]
pub(super) struct PlannedRun {
    pub(super) session: SessionId,
    /// Sequence of its first event.
    pub(super) next: Seq,
    /// Hash of the event before it; zeros at the beginning of a session.
    pub(super) prev: EventHash,
    /// At least one.
    pub(super) metas: Vec<SegmentMeta>,
}

impl Archiver {
    /// Takes from each session what follows its pointer without a gap, the sessions that waited longest first, until
    /// the batch is full.
    pub(super) async fn plan(&self, tenant: &TenantId, backlog: &Backlog) -> Result<Plan, RunError> {
        let mut runs = Vec::new();
        let (mut bytes, mut segments) = (0u64, 0);
        let mut reads: Vec<BoxFuture<'_, _>> = Vec::with_capacity(backlog.sessions.len());
        for session in &backlog.sessions {
            reads.push(Box::pin(self.unarchived(tenant, session)));
        }
        let mut found = stream::iter(reads).buffered(AT_ONCE);
        while let Some(run) = found.try_next().await? {
            let Some(mut run) = run else { continue };
            let mut taken = 0;
            for meta in &run.metas {
                if bytes >= self.settings.max_bytes || segments == limits::ARCHIVE_SEGMENTS_MAX {
                    break;
                }
                let named = backlog.bytes.get(&(run.session.clone(), meta.commit_id)).copied();
                let guess = || meta.body_bytes.saturating_mul(UNPACKED_GUESS);
                bytes = bytes.saturating_add(named.unwrap_or_else(guess).max(1));
                segments += 1;
                taken += 1;
            }
            run.metas.truncate(taken);
            if taken == 0 {
                break;
            }
            runs.push(run);
        }
        runs.sort_unstable_by(|a, b| a.session.cmp(&b.session));
        Ok(Plan { runs })
    }

    /// What follows a session's pointer without a gap; a gap waits.
    async fn unarchived(
        &self,
        tenant: &TenantId,
        session: &SessionId,
    ) -> Result<Option<PlannedRun>, RunError> {
        let pointer = self.store().pointer(tenant, session).await?;
        let (next, prev) = match &pointer {
            None => (Some(Seq::ZERO), EventHash::ZERO),
            Some(pointer) => (pointer.archived.head.sequence.checked_add(1), pointer.archived.head.hash),
        };
        let Some(next) = next else { return Ok(None) };
        let metas = self.contiguous(tenant, session, next, None).await?;
        let run = PlannedRun { session: session.clone(), next, prev, metas };
        Ok((!run.metas.is_empty()).then_some(run))
    }

    /// The segments from `next` on that follow each other without a gap; up to the one that ends with `last`, if given.
    pub(super) async fn contiguous(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        next: Seq,
        last: Option<Seq>,
    ) -> Result<Vec<SegmentMeta>, RunError> {
        let mut metas: Vec<SegmentMeta> = Vec::new();
        let mut next = Some(next);
        while let Some(from) = next
            && metas.len() < limits::ARCHIVE_SEGMENTS_MAX
            && last.is_none_or(|last| from <= last)
        {
            let page = self.store().segments(tenant, session, from, Order::Asc, PAGE).await?;
            let whole = page.len() < PAGE;
            for meta in page {
                if Some(meta.first) != next || last.is_some_and(|last| meta.first > last) {
                    return Ok(metas);
                }
                next = meta.last.checked_add(1);
                metas.push(meta);
            }
            if whole {
                break;
            }
        }
        Ok(metas)
    }
}
