//! Erasure: the content of an event goes, its place in the chain stays (docs/adr/0013).
//!
//! | step | what | condition |
//! |---|---|---|
//! | ask | the erasure's item | absent |
//! | tombstone | an event at sequence 0 of a session of its own | absent |
//! | hot | the segment with another body; pointer without an agent's name | what was read is there |
//! | archived | object record, object, catalogue, older versions ([`crate::archive`]) | absent; what was read; a higher revision |
//! | again | hot once more: what was under way when the first look was taken has come to rest | as above |
//! | done | the item among those that are done | what was read |
//!
//! Every step looks at what is there and does what is missing. It may be repeated, raced, cut off, and come late.

mod hot;
mod left;
mod tombstone;

pub use left::{Left, left};
pub use tombstone::{EVENT_TYPE, Tombstone, erased_by, session_of};

use crate::chain::{Hasher, content_digest};
use crate::error::OverLimit;
use crate::event::OwnedContent;
use crate::ids::{EventId, EventType, TenantId};
use crate::kinds::{self, Role};
use crate::ledger::{AppendError, Ledger, ReadError};
use crate::limits;
use crate::store::{Conflict, ErasureProgress, ErasureRecord, StoreError};

/// Why something was not erased, or not all the way. What has been done stays; it may be asked for again.
#[derive(Debug, thiserror::Error)]
pub enum EraseError {
    /// There is no such event.
    #[error("no such event")]
    NotFound,
    /// It is one of the ledger's own.
    #[error("events of the ledger's own cannot be erased")]
    Reserved,
    /// The reason is too long.
    #[error(transparent)]
    TooLarge(#[from] OverLimit),
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The tombstone was not appended.
    #[error("the tombstone: {0}")]
    Append(#[from] AppendError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Who asks, and why. Both stand in the tombstone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// The token's id; none in loopback mode.
    pub token_id: Option<String>,
    /// At most [`limits::ERASURE_REASON_BYTES_MAX`] bytes.
    pub reason: Option<String>,
}

impl Ledger {
    /// Erases the content of an event: does what can be done at once, and leaves the rest to the archiver. The same event
    /// again gives the same erasure, as far as it has come.
    ///
    /// # Errors
    /// See [`EraseError`]. Once the erasure is written, a later step that fails is not an error: it is left.
    pub async fn erase(
        &self,
        tenant: &TenantId,
        event: EventId,
        request: &Request,
    ) -> Result<ErasureRecord, EraseError> {
        let actual = request.reason.as_ref().map_or(0, String::len);
        if actual > limits::ERASURE_REASON_BYTES_MAX {
            let (what, name) = ("the reason, in bytes,", "erasure_reason_bytes_max");
            return Err(OverLimit { what, name, limit: limits::ERASURE_REASON_BYTES_MAX, actual }.into());
        }
        // 1. The item. Whoever is first says who asked and why.
        let record = match self.store.erasure(tenant, event).await? {
            Some(record) => record,
            None => self.ask(tenant, event, request).await?,
        };
        // 2. What can be done here.
        match self.erase_hot(tenant, &record).await {
            Ok(record) => Ok(record),
            Err(error) => {
                tracing::warn!(%tenant, %event, %error, "an erasure is not done yet; the archiver's next run goes on");
                Ok(self.store.erasure(tenant, event).await?.unwrap_or(record))
            }
        }
    }

    /// Writes the item of an erasure.
    async fn ask(
        &self,
        tenant: &TenantId,
        event_id: EventId,
        request: &Request,
    ) -> Result<ErasureRecord, EraseError> {
        let event = self.event(tenant, event_id).await?.ok_or(EraseError::NotFound)?;
        // A type that does not parse is not one of ours.
        if event.session_id.is_reserved()
            || EventType::parse(&*event.event_type).is_ok_and(|t| t.is_reserved())
        {
            return Err(EraseError::Reserved);
        }
        let corrupt = |why: &str| {
            let key = format!("tenant {tenant} session {} sequence {}", event.session_id, event.sequence);
            EraseError::Store(StoreError::Corrupt { key, why: why.into() })
        };
        // A digest that the hash does not hold would prove nothing for ever.
        if Hasher::new(tenant, &event.session_id).hash(&event.as_ref()) != event.hash {
            return Err(corrupt("its content is not what was hashed"));
        }
        let content_digest = match &event.content {
            OwnedContent::Kept { salt, payload, metadata } => content_digest(salt, payload, metadata),
            // From before the store was made again from its archive; or somebody deleted it, whom a tombstone now would
            // cover.
            OwnedContent::Erased { digest } if self.is_buried(tenant, &event).await? => *digest,
            OwnedContent::Erased { .. } => {
                return Err(corrupt("its content is gone, and it has no tombstone"));
            }
        };
        let record = ErasureRecord {
            event_id,
            session_id: event.session_id.clone(),
            sequence: event.sequence,
            hash: event.hash,
            content_digest,
            is_start: kinds::find(&event.event_type).is_some_and(|kind| kind.role == Role::SessionStart),
            token_id: request.token_id.clone(),
            reason: request.reason.clone(),
            asked_at: self.clock.now(),
            progress: ErasureProgress::default(),
        };
        match self.store.put_erasure(tenant, &record).await {
            Ok(()) => Ok(record),
            // Another was quicker, or the answer is not known: what is there counts.
            Err(StoreError::Conflict(Conflict::Exists) | StoreError::Unknown { .. }) => {
                let there = self.store.erasure(tenant, event_id).await?;
                let why = "whether the erasure was written is not known".to_owned();
                there.ok_or(EraseError::Store(StoreError::Unknown { why }))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The erasure of an event, as far as it has come.
    ///
    /// # Errors
    /// Of the store.
    pub async fn erasure(
        &self,
        tenant: &TenantId,
        event: EventId,
    ) -> Result<Option<ErasureRecord>, StoreError> {
        self.store.erasure(tenant, event).await
    }

    /// Up to `limit` erasures of a tenant, those that are done or those that are not, by event id.
    ///
    /// # Errors
    /// Of the store.
    pub async fn erasures(
        &self,
        tenant: &TenantId,
        done: bool,
        after: Option<EventId>,
        limit: usize,
    ) -> Result<Vec<ErasureRecord>, StoreError> {
        self.store.erasures(tenant, done, after, limit).await
    }
}
