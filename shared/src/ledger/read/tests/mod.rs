//! Reads against a plain list of what was written. Every test runs on the store in memory; what holds of any store
//! runs on the embedded one too.

#[cfg(feature = "embedded")]
mod archived;
mod by_id;
#[cfg(feature = "embedded")]
mod embedded;
mod fixture;
mod lists;
mod memory;
mod sessions;
mod verdicts;

use std::sync::Arc;

use fixture::Fixture;
use memory::MemoryStore;

/// A ledger on the store in memory, whose pages hold at most so many segments.
fn in_memory(page_max: usize) -> (Fixture, Arc<MemoryStore>) {
    let store = Arc::new(MemoryStore::new(page_max));
    (Fixture::new(store.clone()), store)
}
