//! Erased events and their tombstones (docs/format.md, section 3): content that is gone without a true tombstone was
//! deleted.
//!
//! Both are gathered while events are read, in whatever order they come, and held against each other at the end. What
//! is kept is one small record for each erased event and each tombstone.

use std::collections::{HashMap, HashSet};

use crate::erasure::{EVENT_TYPE, Tombstone};
use crate::event::{Content, EventRef};
use crate::ids::{EventHash, EventId, Seq, SessionId};

/// Erasures that a report names one by one.
const NAMED_MAX: usize = 20;

/// An event whose content is gone.
#[derive(Debug, Clone)]
pub(super) struct ErasedEvent {
    pub(super) event_id: EventId,
    pub(super) session: SessionId,
    pub(super) sequence: Seq,
    hash: EventHash,
    digest: [u8; 32],
    pub(super) is_tombstone: bool,
}

/// What was found of erasures, of one tenant.
#[derive(Debug, Clone, Default)]
pub(super) struct Erasures {
    /// In the order in which they were found, which is that of their places.
    pub(super) erased: Vec<ErasedEvent>,
    /// Erased in the archive, and not among those: checked there.
    elsewhere: Vec<ErasedEvent>,
    /// By the event that they are about: their own ids, and what they say.
    graves: HashMap<EventId, (EventId, Tombstone)>,
}

impl Erasures {
    /// Looks at an event whose hash is right.
    pub(super) fn see(&mut self, session: &SessionId, event: &EventRef<'_>) {
        match event.content {
            Content::Erased { digest } => self.erased.push(ErasedEvent {
                event_id: event.event_id,
                session: session.clone(),
                sequence: event.sequence,
                hash: event.hash,
                digest,
                is_tombstone: event.event_type == EVENT_TYPE,
            }),
            // Most events are neither: looked at no further.
            Content::Kept { .. } if event.event_type == EVENT_TYPE => {
                if let Some(tombstone) = Tombstone::of_event(session, event) {
                    self.graves.insert(tombstone.event_id, (event.event_id, tombstone));
                }
            }
            Content::Kept { .. } => {}
        }
    }

    /// Adds what was found after this.
    pub(super) fn append(&mut self, next: Self) {
        self.erased.extend(next.erased);
        self.graves.extend(next.graves);
    }

    /// Adds what the archive has of the same tenant, which was checked by itself.
    #[cfg(feature = "archive")]
    pub(super) fn beside(&mut self, archived: Self) {
        let known: HashSet<EventId> = self.erased.iter().map(|erased| erased.event_id).collect();
        self.elsewhere.extend(archived.erased.into_iter().filter(|e| !known.contains(&e.event_id)));
        self.graves.extend(archived.graves);
    }

    /// The tombstone of an event, if it is a true one: its own id.
    pub(super) fn tombstone_of(&self, erased: &ErasedEvent) -> Option<EventId> {
        let (id, tombstone) = self.graves.get(&erased.event_id)?;
        let said = (&tombstone.session_id, tombstone.sequence, tombstone.hash, tombstone.content_digest);
        let found = (&erased.session, erased.sequence, erased.hash, erased.digest);
        (said == found && !erased.is_tombstone).then_some(*id)
    }

    /// What is wrong with an erased event, if anything is.
    pub(super) fn problem_of(&self, erased: &ErasedEvent) -> Option<String> {
        if self.tombstone_of(erased).is_some() {
            return None;
        }
        let id = erased.event_id;
        Some(match (erased.is_tombstone, self.graves.get(&id)) {
            (true, _) => format!("the content of event {id} is gone, which is a tombstone itself"),
            (false, None) => format!("the content of event {id} is gone, and it has no tombstone"),
            (false, Some(_)) => {
                format!("the content of event {id} is gone, and its tombstone is of something else")
            }
        })
    }

    /// The tombstone's own id of an event that a tombstone is about.
    pub(super) fn grave(&self, event: EventId) -> Option<EventId> {
        self.graves.get(&event).map(|(id, _)| *id)
    }

    /// Whether the tombstone of an event was found.
    #[cfg(feature = "archive")]
    pub(super) fn has_grave(&self, event: EventId) -> bool {
        self.graves.contains_key(&event)
    }

    /// Sessions of events that tombstones are about: with true, of whose content something is still there.
    #[cfg(feature = "archive")]
    pub(super) fn sessions(&self) -> HashMap<SessionId, bool> {
        let gone: HashSet<EventId> = self.erased.iter().map(|erased| erased.event_id).collect();
        let mut sessions = HashMap::new();
        for (event, (_, tombstone)) in &self.graves {
            let pending = sessions.entry(tombstone.session_id.clone()).or_insert(false);
            *pending |= !gone.contains(event);
        }
        sessions
    }

    /// What tombstones are about: event and session.
    #[cfg(feature = "archive")]
    pub(super) fn about(&self) -> impl Iterator<Item = (EventId, &SessionId)> {
        self.graves.iter().map(|(event, (_, tombstone))| (*event, &tombstone.session_id))
    }

    /// What a reader of the verdict should know: what was erased, by which events.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let told = self.erased.iter().chain(&self.elsewhere);
        let told = told.filter_map(|erased| Some((erased, self.tombstone_of(erased)?)));
        for (erased, tombstone) in told.take(NAMED_MAX) {
            notes.push(format!(
                "Event {} (session {:?}, sequence {}): erased, by event {tombstone}.",
                erased.event_id,
                erased.session.as_str(),
                erased.sequence
            ));
        }
        let all = self.erased.len() + self.elsewhere.len();
        if let Some(more) = all.checked_sub(NAMED_MAX).filter(|more| *more > 0) {
            notes.push(format!("And {more} more."));
        }
        notes
    }
}
