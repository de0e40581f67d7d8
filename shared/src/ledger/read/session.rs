//! One session's events, in the order of their sequence.

use crate::event::{Event, EventRef};
use crate::ids::{Seq, SessionId, TenantId};
use crate::ledger::Ledger;
use crate::limits;
use crate::segment::SegmentMeta;
use crate::store::{Order, Pointer};

use super::{Place, READ_AHEAD, ReadError, ReadStats, event_count, open};

/// A run of one session's events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionEvents {
    /// The events, in order.
    pub events: Vec<Event>,
    /// The sequence to go on from; `None` if there is nothing more.
    pub next: Option<Seq>,
}

impl Ledger {
    /// Up to `limit` events of a session from a sequence on (upwards or downwards, that sequence among them). The
    /// page ends early rather than pass [`limits::PAGE_BYTES_MAX`] of payload and metadata, but holds at least one
    /// event.
    ///
    /// # Errors
    /// `Corrupt`; `Store`.
    pub async fn session_events(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        from: Seq,
        order: Order,
        limit: usize,
    ) -> Result<SessionEvents, ReadError> {
        let mut stats = ReadStats::default();
        self.session_events_with_stats(tenant, session, (from, order), limit, &mut stats).await
    }

    /// The same, and what it cost.
    ///
    /// # Errors
    /// `Corrupt`; `Store`.
    pub async fn session_events_with_stats(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        (from, order): (Seq, Order),
        limit: usize,
        stats: &mut ReadStats,
    ) -> Result<SessionEvents, ReadError> {
        let mut run = Run { tenant, session, order, limit, events: Vec::new(), bytes: 0, next: Some(from) };
        while let Some(next) = run.next {
            // One segment more than are needed at most, each of at least one event, to know if there is more.
            let size = (limit - run.events.len()).saturating_add(1).min(READ_AHEAD);
            let metas = self.store.segments(tenant, session, next, order, size).await?;
            let gap = !metas.first().is_some_and(|meta| run.continues_at(meta));
            let archived = if gap { self.archived_before(&run, next, metas.first()).await? } else { None };
            if run.events.len() >= limit {
                run.next = run.next.filter(|_| archived.is_some() || !metas.is_empty());
                break;
            }
            if let Some((pointer, at)) = archived {
                let room = (limit - run.events.len(), limits::PAGE_BYTES_MAX.saturating_sub(run.bytes));
                let page = self.archived_events(tenant, &pointer, (at, order), room, stats).await?;
                if run.take_archived(page) {
                    break;
                }
                continue;
            }
            let whole = metas.len() < size;
            let needed = run.needed(&metas);
            let places: Vec<Place<'_>> = needed.iter().map(|meta| run.place(meta)).collect();
            let bodies = self.bodies(&places).await?;
            let (mut full, mut broken_off) = (false, false);
            for (nth, (meta, body)) in needed.iter().zip(bodies).enumerate() {
                // What expired between two that have not is archived.
                broken_off = nth > 0 && !run.continues_at(meta);
                // One that expired since its attributes were read is archived too.
                let (false, Some(body)) = (broken_off, body) else {
                    broken_off = true;
                    break;
                };
                stats.segments_read += 1;
                stats.bytes_read += body.len() as u64;
                stats.events_scanned += event_count(meta);
                full = run.take(meta, &body)?;
                if full {
                    break;
                }
            }
            if full {
                break;
            }
            if whole && !broken_off && needed.len() == metas.len() {
                // What is hot ends here. What has expired may lie above it as well: segments go in any order.
                let goes_on = match run.next {
                    Some(next) if !metas.is_empty() => {
                        self.archived_before(&run, next, None).await?.is_some()
                    }
                    _ => false,
                };
                run.next = run.next.filter(|_| goes_on);
            }
        }
        Ok(SessionEvents { events: run.events, next: run.next })
    }

    /// The session's pointer, and the first sequence that is archived and not hot, if the run goes on with one: `hot` is
    /// the first segment that is hot.
    async fn archived_before(
        &self,
        run: &Run<'_>,
        next: Seq,
        hot: Option<&SegmentMeta>,
    ) -> Result<Option<(Pointer, Seq)>, ReadError> {
        let Some(pointer) = self.store.pointer(run.tenant, run.session).await? else { return Ok(None) };
        let last = pointer.archived.head.sequence;
        let at = match run.order {
            Order::Asc => (next <= last).then_some(next),
            // Whoever begins above the end begins at the end.
            Order::Desc => Some(next.min(last)).filter(|at| hot.is_none_or(|hot| *at > hot.last)),
        };
        Ok(at.map(|at| (pointer, at)))
    }
}

/// A run in the making.
struct Run<'a> {
    tenant: &'a TenantId,
    session: &'a SessionId,
    order: Order,
    limit: usize,
    events: Vec<Event>,
    bytes: usize,
    next: Option<Seq>,
}

impl<'a> Run<'a> {
    fn place(&self, meta: &SegmentMeta) -> Place<'a> {
        Place::new(self.tenant, self.session, meta)
    }

    /// True if the run goes on in this segment.
    fn continues_at(&self, meta: &SegmentMeta) -> bool {
        self.next.is_some_and(|next| match self.order {
            Order::Asc => meta.first <= next,
            Order::Desc => meta.last >= next,
        })
    }

    /// Takes events of the archive. True if the run is full.
    fn take_archived(&mut self, page: SessionEvents) -> bool {
        for event in page.events {
            let bytes = event.as_ref().content.bytes();
            if !self.events.is_empty() && self.bytes + bytes > limits::PAGE_BYTES_MAX {
                self.next = Some(event.sequence);
                return true;
            }
            self.bytes += bytes;
            self.events.push(event);
        }
        self.next = page.next;
        false
    }

    /// The segments whose events fill the run, as far as their attributes say.
    fn needed<'m>(&self, metas: &'m [SegmentMeta]) -> &'m [SegmentMeta] {
        let mut count = self.events.len() as u64;
        let mut taken = 0;
        for meta in metas {
            if taken > 0 && count >= self.limit as u64 {
                break;
            }
            // The first may be cut by `next`; then the loop comes again.
            count = count.saturating_add(event_count(meta));
            taken += 1;
        }
        &metas[..taken]
    }

    /// The sequence that follows a segment in this order.
    fn beyond(&self, meta: &SegmentMeta) -> Option<Seq> {
        match self.order {
            Order::Asc => meta.last.checked_add(1),
            Order::Desc => meta.first.get().checked_sub(1).and_then(Seq::new),
        }
    }

    /// Takes what fits from a segment. True if something is left that does not fit.
    fn take(&mut self, meta: &SegmentMeta, body: &[u8]) -> Result<bool, ReadError> {
        let Some(next) = self.next else { return Ok(true) };
        let room = (self.limit - self.events.len()) as u64;
        if room == 0 {
            return Ok(true);
        }
        // The sequences that can be taken, both ends in.
        let (low, high) = match self.order {
            Order::Asc => {
                let low = next.max(meta.first).get();
                (low, low.saturating_add(room - 1))
            }
            Order::Desc => {
                let high = next.min(meta.last).get();
                ((high + 1).saturating_sub(room), high)
            }
        };
        open(self.place(meta), body, |view| {
            let mut window: Vec<EventRef<'_>> = Vec::new();
            for event in view.events() {
                let event = event?;
                if (low..=high).contains(&event.sequence.get()) {
                    window.push(event);
                }
            }
            if self.order == Order::Desc {
                window.reverse();
            }
            for event in window {
                let bytes = event.content.bytes();
                if !self.events.is_empty() && self.bytes + bytes > limits::PAGE_BYTES_MAX {
                    self.next = Some(event.sequence);
                    return Ok(true);
                }
                self.bytes += bytes;
                self.events.push(event.to_event(self.tenant, self.session));
            }
            let (reached, cut) = match self.order {
                Order::Asc => (high.checked_add(1).and_then(Seq::new), high < meta.last.get()),
                Order::Desc => (low.checked_sub(1).and_then(Seq::new), low > meta.first.get()),
            };
            self.next = if cut { reached } else { self.beyond(meta) };
            Ok(cut)
        })
    }
}
