//! The heads of sessions that this process wrote to, so that a warm append reads nothing.
//!
//! A head is kept for at most [`limits::HEAD_CACHE_MS`] by the wall clock. It is a guess: the store's condition
//! decides, and whoever loses a race forgets the guess. Each session has a lock, so that writers in one process
//! queue up instead of racing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::ids::{SessionId, TenantId};
use crate::limits;
use crate::segment::Head;
use crate::time::Micros;

/// What is believed of one session. Locked while a writer chains on it.
#[derive(Debug, Default)]
pub(super) struct Slot {
    known: Option<(Option<Head>, Micros)>,
}

impl Slot {
    /// The head, if it is fresh; the inner `None` is an empty session.
    pub(super) fn fresh(&self, now: Micros) -> Option<Option<Head>> {
        let (head, at) = self.known?;
        let age_ms = now.unix_ms() - at.unix_ms();
        // A clock that went backwards makes nothing fresh.
        (0..limits::HEAD_CACHE_MS).contains(&age_ms).then_some(head)
    }

    pub(super) fn set(&mut self, head: Option<Head>, now: Micros) {
        self.known = Some((head, now));
    }

    pub(super) fn forget(&mut self) {
        self.known = None;
    }
}

type Slots = HashMap<(TenantId, SessionId), Arc<tokio::sync::Mutex<Slot>>>;

/// The slots of all sessions.
#[derive(Debug, Default)]
pub(super) struct Heads(Mutex<Slots>);

impl Heads {
    /// The slot of a session.
    pub(super) fn slot(&self, tenant: &TenantId, session: &SessionId) -> Arc<tokio::sync::Mutex<Slot>> {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= limits::HEAD_CACHE_SESSIONS_MAX {
            // Keep what a writer holds: its queue must not fall apart.
            slots.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        slots.entry((tenant.clone(), session.clone())).or_default().clone()
    }
}
