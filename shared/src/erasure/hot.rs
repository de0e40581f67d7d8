//! The tombstone, and the hot tier without the content.

use super::{EraseError, Tombstone, session_of};
use crate::event::Event;
use crate::ids::{EventId, Seq, TenantId};
use crate::ledger::Ledger;
use crate::segment::{self, SegmentReader};
use crate::store::{Conflict, ErasureRecord, Order, Pointer, SessionRecord, StoreError};

/// How often a step begins again because another was quicker, or an answer was lost.
const TRIES: usize = 16;

/// Segments that are asked for at once.
const PAGE: usize = 256;

fn corrupt(tenant: &TenantId, record: &ErasureRecord, why: impl Into<String>) -> EraseError {
    let key = format!("tenant {tenant} session {} sequence {}", record.session_id, record.sequence);
    EraseError::Store(StoreError::Corrupt { key, why: why.into() })
}

fn busy(what: &str) -> EraseError {
    let why = format!("{what}: others were quicker {TRIES} times in a row");
    EraseError::Store(StoreError::Unavailable { why })
}

impl Ledger {
    /// Brings an erasure as far as it can come in the hot tier: the tombstone is durable, and nothing there has the
    /// content. All of it is looked at again, however far it has come.
    ///
    /// # Errors
    /// See [`EraseError`]; may be repeated after any of them.
    pub(crate) async fn erase_hot(
        &self,
        tenant: &TenantId,
        record: &ErasureRecord,
    ) -> Result<ErasureRecord, EraseError> {
        if record.is_done() {
            return Ok(record.clone());
        }
        let tombstone = match record.progress.tombstone {
            Some(tombstone) => tombstone,
            None => self.bury(tenant, record).await?,
        };
        let record = self.note(tenant, record, |progress| progress.tombstone = Some(tombstone)).await?;
        self.without_content(tenant, &record).await?;
        if record.is_start {
            self.without_names(tenant, &record).await?;
        }
        self.scrub(tenant, &record).await?;
        let now = self.clock.now();
        self.note(tenant, &record, |progress| {
            progress.hot_at.get_or_insert(now);
        })
        .await
    }

    /// Notes how far an erasure has come, whoever else does so meanwhile.
    pub(crate) async fn note(
        &self,
        tenant: &TenantId,
        record: &ErasureRecord,
        set: impl Fn(&mut crate::store::ErasureProgress),
    ) -> Result<ErasureRecord, EraseError> {
        let mut before = record.clone();
        for _ in 0..TRIES {
            let mut after = before.clone();
            set(&mut after.progress);
            if after == before || before.is_done() {
                return Ok(before);
            }
            match self.store.update_erasure(tenant, &before, &after).await {
                Ok(()) => return Ok(after),
                Err(StoreError::Conflict(Conflict::Changed) | StoreError::Unknown { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            let there = self.store.erasure(tenant, record.event_id).await?;
            before = there.ok_or_else(|| corrupt(tenant, record, "its erasure is gone"))?;
        }
        Err(busy("the erasure's item"))
    }

    /// True if an erased event has its true tombstone.
    pub(super) async fn is_buried(&self, tenant: &TenantId, event: &Event) -> Result<bool, EraseError> {
        let crate::event::OwnedContent::Erased { digest } = event.content else { return Ok(false) };
        let found = self.tombstone(tenant, event.event_id).await?;
        Ok(found
            .is_some_and(|(_, tombstone)| tombstone.is_true_of(&event.session_id, &event.as_ref(), &digest)))
    }

    /// The tombstone of an event, if it has one in the hot tier: its id and what it says.
    async fn tombstone(
        &self,
        tenant: &TenantId,
        erased: EventId,
    ) -> Result<Option<(EventId, Tombstone)>, EraseError> {
        let session = session_of(erased);
        let Some(stored) = self.store.stored_body(tenant, &session, Seq::ZERO).await? else {
            return Ok(None);
        };
        let damaged = |why: String| {
            EraseError::Store(StoreError::Corrupt { key: format!("tenant {tenant} session {session}"), why })
        };
        let mut reader = SegmentReader::new().map_err(|e| damaged(e.to_string()))?;
        let view = reader.open(&stored.body).map_err(|e| damaged(e.to_string()))?;
        let first = view.events().next().ok_or_else(|| damaged("no events".into()))?;
        let first = first.map_err(|e| damaged(e.to_string()))?;
        let tombstone = Tombstone::of_event(&session, &first);
        let tombstone = tombstone.ok_or_else(|| damaged("its first event is no tombstone".into()))?;
        Ok(Some((first.event_id, tombstone)))
    }

    /// Appends the tombstone, or finds it appended.
    async fn bury(&self, tenant: &TenantId, record: &ErasureRecord) -> Result<EventId, EraseError> {
        let tombstone = Tombstone {
            event_id: record.event_id,
            session_id: record.session_id.clone(),
            sequence: record.sequence,
            hash: record.hash,
            content_digest: record.content_digest,
            token_id: record.token_id.clone(),
            reason: record.reason.clone(),
        };
        if let Some(appended) = self.append_first(tenant, vec![tombstone.event()]).await? {
            let placed = appended.events.first().map(|(_, placed)| placed.event_id);
            return placed.ok_or_else(|| corrupt(tenant, record, "its tombstone was appended nowhere"));
        }
        let Some((id, there)) = self.tombstone(tenant, record.event_id).await? else {
            // It has expired, and was archived before: the archive's verifier holds it to what it must be.
            return Err(corrupt(
                tenant,
                record,
                "its tombstone is not hot any more, and its item does not name it",
            ));
        };
        let same = (there.session_id, there.sequence, there.hash, there.content_digest);
        let wanted = (record.session_id.clone(), record.sequence, record.hash, record.content_digest);
        if same == wanted {
            Ok(id)
        } else {
            Err(corrupt(tenant, record, "its tombstone is of something else"))
        }
    }

    /// Takes the content out of the segment, if it is there.
    async fn without_content(&self, tenant: &TenantId, record: &ErasureRecord) -> Result<(), EraseError> {
        let session = &record.session_id;
        for _ in 0..TRIES {
            let Some(stored) = self.store.stored_body(tenant, session, record.sequence).await? else {
                return Ok(());
            };
            let erased = segment::erase(&stored.meta, &stored.body, |id| id == record.event_id)
                .map_err(|e| corrupt(tenant, record, e.to_string()))?;
            let Some((meta, body)) = erased else {
                return Ok(());
            };
            // What the tombstone says is what stays.
            if !self.stays(&body, record) {
                return Err(corrupt(tenant, record, "its content is not what was hashed"));
            }
            match self.store.replace_body(tenant, session, &stored, &meta, body.into()).await {
                Ok(()) | Err(StoreError::Conflict(Conflict::Changed) | StoreError::Unknown { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(busy("the segment"))
    }

    /// True if a body has the event erased, with the hash and the digest that its tombstone names.
    fn stays(&self, body: &[u8], record: &ErasureRecord) -> bool {
        let Ok(mut reader) = SegmentReader::new() else { return false };
        let Ok(view) = reader.open(body) else { return false };
        view.events().filter_map(Result::ok).any(|event| {
            event.event_id == record.event_id
                && (event.sequence, event.hash) == (record.sequence, record.hash)
                && event.content == crate::event::Content::Erased { digest: record.content_digest }
        })
    }

    /// Takes the agent's name and tags out of the session's pointer that only an erased start may have given.
    async fn without_names(&self, tenant: &TenantId, record: &ErasureRecord) -> Result<(), EraseError> {
        for _ in 0..TRIES {
            let Some(pointer) = self.store.pointer(tenant, &record.session_id).await? else { return Ok(()) };
            let summary = &pointer.archived.summary;
            let silent = summary.agent_name.is_none() && summary.tags.is_empty();
            if silent || pointer.archived.head.sequence < record.sequence {
                return Ok(());
            }
            let after = self.scrubbed(tenant, &pointer).await?;
            if after == pointer {
                return Ok(());
            }
            match self.store.replace_pointer(tenant, &pointer, &after).await {
                Ok(()) | Err(StoreError::Conflict(Conflict::Changed) | StoreError::Unknown { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(busy("the session's pointer"))
    }

    /// A pointer with the name and tags that its session's segments give; with none, if they are not all there.
    async fn scrubbed(&self, tenant: &TenantId, pointer: &Pointer) -> Result<Pointer, EraseError> {
        let session = &pointer.archived.session_id;
        let end = pointer.archived.head.sequence;
        let mut folded: Option<SessionRecord> = None;
        let mut next = Some(Seq::ZERO);
        'all: while let Some(from) = next.filter(|from| *from <= end) {
            let page = self.store.segments(tenant, session, from, Order::Asc, PAGE).await?;
            if page.is_empty() {
                break;
            }
            for meta in page {
                if Some(meta.first) != next || meta.last > end {
                    break 'all;
                }
                next = meta.last.checked_add(1);
                folded = Some(SessionRecord::after(folded, session, &meta));
            }
        }
        let whole = folded.filter(|folded| folded.head.sequence == end).map(|folded| folded.summary);
        let (agent_name, tags) = whole.map_or((None, Vec::new()), |s| (s.agent_name, s.tags));
        let mut after = pointer.clone();
        let summary = &mut after.archived.summary;
        if (&summary.agent_name, &summary.tags) != (&agent_name, &tags) {
            (summary.agent_name, summary.tags) = (agent_name, tags);
            after.scrubbed += 1;
        }
        Ok(after)
    }

    async fn scrub(&self, tenant: &TenantId, record: &ErasureRecord) -> Result<(), EraseError> {
        for _ in 0..TRIES {
            match self.store.scrub(tenant, &record.session_id, record.sequence).await {
                Ok(()) => return Ok(()),
                Err(StoreError::Unknown { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(busy("what is freed"))
    }
}
