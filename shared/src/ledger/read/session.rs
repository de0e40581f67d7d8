//! One session's events, in the order of their sequence.

use crate::event::{Event, EventRef};
use crate::ids::{Seq, SessionId, TenantId};
use crate::ledger::Ledger;
use crate::limits;
use crate::segment::SegmentMeta;
use crate::store::Order;

use super::{Place, READ_AHEAD, ReadError, event_count, open};

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
        let mut run = Run { tenant, session, order, limit, events: Vec::new(), bytes: 0, next: Some(from) };
        while let Some(next) = run.next {
            // One segment more than are needed at most, each of at least one event, to know if there is more.
            let size = (limit - run.events.len()).saturating_add(1).min(READ_AHEAD);
            let metas = self.store.segments(tenant, session, next, order, size).await?;
            if run.events.len() >= limit {
                run.next = run.next.filter(|_| !metas.is_empty());
                break;
            }
            let whole = metas.len() < size;
            let needed = run.needed(&metas);
            let places: Vec<Place<'_>> = needed.iter().map(|meta| run.place(meta)).collect();
            let bodies = self.bodies(&places).await?;
            let mut full = false;
            for (meta, body) in needed.iter().zip(bodies) {
                full = match body {
                    Some(body) => run.take(meta, &body)?,
                    None => {
                        run.next = run.beyond(meta);
                        false
                    }
                };
                if full {
                    break;
                }
            }
            if full {
                break;
            }
            if whole && needed.len() == metas.len() {
                run.next = None;
            }
        }
        Ok(SessionEvents { events: run.events, next: run.next })
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
