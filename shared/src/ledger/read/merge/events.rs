//! The events of a page, copied out of what was read.

use futures_util::future::try_join_all;

use super::{Loaded, LoadedOf, Merge};
use crate::archive::{ColdStats, Cost};
use crate::event::Event;
use crate::ledger::read::{Budget, ReadError, open};
use crate::limits;

/// Batches that events are copied out of at once: each gives at most a page.
const BATCHES_AT_ONCE: usize = 8;

impl Merge<'_> {
    /// The events of the page. How long those of the archive are is known only now: the page ends early rather than pass
    /// [`limits::PAGE_BYTES_MAX`], and then this is true.
    pub(in crate::ledger::read) async fn events(&mut self) -> Result<(Vec<Event>, bool), ReadError> {
        let mut slots: Vec<Option<Event>> = vec![None; self.picks.len()];
        self.copy_from_bodies(&mut slots)?;
        let cut = self.copy_from_batches(&mut slots).await?;
        if let Some(cut) = cut {
            slots.truncate(cut);
            self.picks.truncate(cut);
        }
        let events: Vec<Event> = slots.into_iter().flatten().collect();
        assert_eq!(events.len(), self.picks.len(), "every pick was found where it was seen before");
        Ok((events, cut.is_some()))
    }

    /// Each body is opened once.
    fn copy_from_bodies(&self, slots: &mut [Option<Event>]) -> Result<(), ReadError> {
        let mut by_body: Vec<usize> = (0..self.picks.len()).collect();
        by_body.sort_unstable_by_key(|slot| (self.picks[*slot].loaded, self.picks[*slot].index));
        for group in by_body.chunk_by(|a, b| self.picks[*a].loaded == self.picks[*b].loaded) {
            let Loaded { of: LoadedOf::Body(segment, body), .. } = &self.loaded[self.picks[group[0]].loaded]
            else {
                continue;
            };
            open(segment.place(self.tenant), body, |view| {
                let mut group = group.iter().copied().peekable();
                for (index, event) in view.events().enumerate() {
                    let event = event?;
                    if let Some(slot) = group.next_if(|slot| self.picks[*slot].index == index as u64) {
                        slots[slot] = Some(event.to_event(self.tenant, &segment.session));
                    }
                    if group.peek().is_none() {
                        break;
                    }
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Gives how many events fit the page, if not all do.
    async fn copy_from_batches(&mut self, slots: &mut [Option<Event>]) -> Result<Option<usize>, ReadError> {
        let mut by_batch: Vec<(usize, Vec<usize>)> = Vec::new();
        for (slot, pick) in self.picks.iter().enumerate() {
            if matches!(self.loaded[pick.loaded].of, LoadedOf::Batch(_)) {
                match by_batch.iter_mut().find(|(loaded, _)| *loaded == pick.loaded) {
                    Some((_, slots)) => slots.push(slot),
                    None => by_batch.push((pick.loaded, vec![slot])),
                }
            }
        }
        // A page is bounded by itself.
        let budget = &Budget::new(u64::MAX);
        let mut read: Vec<usize> = Vec::new();
        for some in by_batch.chunks(BATCHES_AT_ONCE) {
            let reads = some.iter().map(|(loaded, slots)| {
                let rows: Vec<u64> = slots.iter().map(|slot| self.picks[*slot].index).collect();
                let file = match &self.loaded[*loaded].of {
                    LoadedOf::Batch(file) => Some(file.clone()),
                    LoadedOf::Body(..) => None,
                };
                async move {
                    let mut stats = ColdStats::default();
                    let Some(file) = file else { return Ok((Vec::new(), stats)) };
                    let mut cost = Cost { budget, stats: &mut stats };
                    let events = file.events(&rows, limits::PAGE_BYTES_MAX, &mut cost).await?;
                    Ok::<_, ReadError>((events, stats))
                }
            });
            for ((_, places), (events, stats)) in some.iter().zip(try_join_all(reads).await?) {
                self.stats.cold.add(&stats);
                for (slot, event) in places.iter().zip(events) {
                    slots[*slot] = Some(event);
                }
            }
            read.extend(some.iter().map(|(loaded, _)| *loaded));
            if let Some(cut) = fits(slots, |slot| read.contains(&self.picks[slot].loaded)) {
                return Ok(Some(cut));
            }
        }
        Ok(None)
    }
}

/// How many of the events fit a page, if it is known that not all do. One that is not there, though its batch was read,
/// did not fit behind those of its batch that are.
fn fits(slots: &[Option<Event>], was_read: impl Fn(usize) -> bool) -> Option<usize> {
    let mut bytes = 0usize;
    for (index, slot) in slots.iter().enumerate() {
        let Some(event) = slot else { return was_read(index).then_some(index) };
        bytes = bytes.saturating_add(event.as_ref().content.bytes());
        if index > 0 && bytes > limits::PAGE_BYTES_MAX {
            return Some(index);
        }
    }
    None
}
