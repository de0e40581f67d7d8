//! Are the derived tables what follows from the segments' attributes? (Whether those follow from the bodies, and a pointer
//! from the archive, is the verifier's to say.)
//!
//! A pointer moves before its segments are marked archived, so one at or below it may still be open.

mod agents;

use super::inspect::{InspectTable, Inspector};
use super::tables::{self, SegmentRow, corrupt, guarded};
use super::{derived, reads, records};
use crate::ids::{Seq, SessionId, TenantId};
use crate::segment::SegmentMeta;
use crate::store::{Pointer, StoreError, keys};

/// A derived row that is not what it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// Its table.
    pub table: InspectTable,
    /// Its key, printable.
    pub key: String,
    /// Its tenant and session, if it belongs to one.
    pub session: Option<(TenantId, SessionId)>,
    /// What is wrong.
    pub why: &'static str,
}

/// What the segments and pointers make necessary, gathered while walking over them.
#[derive(Default)]
struct Expected {
    segments: u64,
    open: u64,
    expiring: u64,
    sessions: u64,
    parts: u64,
    agents: agents::Expected,
}

/// One session while it is walked over.
struct Walk<'a> {
    tenant: &'a TenantId,
    session: &'a SessionId,
    found: &'a mut dyn FnMut(Misfit),
}

impl Walk<'_> {
    fn misfit(&mut self, table: InspectTable, key: &[u8], why: &'static str) {
        let session = Some((self.tenant.clone(), self.session.clone()));
        (self.found)(Misfit { table, key: key.escape_ascii().to_string(), session, why });
    }
}

impl Inspector {
    /// Compares the feed, the time index, open segments, pointers, and the records and lists of sessions and agents with
    /// what follows from the segments' attributes, and of sessions of which something has expired, from their pointers
    /// and the attributes above them. Each misfit is told as it is found; the walk goes on after it.
    ///
    /// # Errors
    /// `Corrupt` where a segment's row cannot be read: then nothing can be said about the rest.
    pub fn check_derived(&self, found: &mut dyn FnMut(Misfit)) -> Result<(), StoreError> {
        guarded(|| {
            let mut expected = Expected::default();
            for session in self.sessions()? {
                let (tenant, session) = session?;
                let walk = Walk { tenant: &tenant, session: &session, found: &mut *found };
                self.check_session(walk, &mut expected)?;
            }
            self.check_agents(&expected.agents, found)?;
            self.check_batches(found)?;
            self.check_counts(&expected, found)
        })
    }

    fn check_session(&self, mut walk: Walk<'_>, expected: &mut Expected) -> Result<(), StoreError> {
        let (tenant, session) = (walk.tenant, walk.session);
        let prefix = keys::session(tenant, session);
        let pointer = match self.pointer(tenant, session) {
            Err(StoreError::Corrupt { .. }) => {
                walk.misfit(InspectTable::Pointers, &prefix, "the pointer does not decode");
                None
            }
            pointer => pointer?,
        };
        // If something of what is archived has gone, what there was of it is taken from the pointer.
        let archived = match &pointer {
            Some(pointer) if self.has_gone(&prefix, pointer)? => Some(&pointer.archived),
            _ => None,
        };
        let mut record = archived.cloned();
        if let Some(archived) = archived {
            expected
                .agents
                .add_archived(tenant, archived)
                .map_err(|e| corrupt(tables::POINTERS, &prefix, e))?;
        }
        for row in self.rows(InspectTable::Segments, &prefix)? {
            let (key, value) = row?;
            let (row, meta) = reads::decode_row(&key, &value)?;
            expected.segments += 1;
            expected.parts = expected.parts.saturating_add(row.parts);
            for (table, (key, value)) in [
                (InspectTable::Feed, derived::feed_row(tenant, session, &meta)),
                (InspectTable::Times, derived::time_row(tenant, session, &meta)),
            ] {
                if self.get(table, &key)? != Some(value) {
                    walk.misfit(table, &key, "a segment's row is missing or says something else");
                }
            }
            self.check_standing(&mut walk, expected, &key, &row, &meta, pointer.as_ref())?;
            // What is counted in the pointer is not counted twice.
            if archived.is_some_and(|archived| meta.last <= archived.head.sequence) {
                continue;
            }
            let after = derived::session_after(record.take(), session, &meta);
            let named = expected.agents.add(tenant, session, after.first_commit, &meta);
            named.map_err(|e| corrupt(tables::SEGMENTS, &key, e))?;
            if let Some(pointer) = &pointer
                && pointer.archived.head.sequence == meta.last
                && pointer.archived != after
            {
                walk.misfit(InspectTable::Pointers, &prefix, "the pointer does not follow from its segments");
            }
            record = Some(after);
        }
        let Some(record) = record else {
            walk.misfit(InspectTable::Segments, &prefix, "a session of which no segment is left");
            return Ok(());
        };
        expected.sessions += 1;
        if self.get(InspectTable::Sessions, &prefix)? != Some(records::encode_session(&record)) {
            walk.misfit(InspectTable::Sessions, &prefix, "the session's record does not follow from it");
        }
        let key = keys::session_order(tenant, record.first_commit, session);
        if self.get(InspectTable::SessionOrder, &key)?.is_none_or(|value| !value.is_empty()) {
            walk.misfit(InspectTable::SessionOrder, &key, "the session is not in the list");
        }
        Ok(())
    }

    /// True unless a session's segments are all there, from the first event to the last that is archived.
    fn has_gone(&self, prefix: &[u8], pointer: &Pointer) -> Result<bool, StoreError> {
        let mut next = Some(Seq::ZERO);
        for row in self.rows(InspectTable::Segments, prefix)? {
            let (key, value) = row?;
            let (_, meta) = reads::decode_row(&key, &value)?;
            if next != Some(meta.first) {
                break;
            }
            next = meta.last.checked_add(1);
        }
        Ok(next.is_some_and(|next| next <= pointer.archived.head.sequence))
    }

    /// Is a segment open or archived, and does everything say the same?
    fn check_standing(
        &self,
        walk: &mut Walk<'_>,
        expected: &mut Expected,
        key: &[u8],
        row: &SegmentRow<'_>,
        meta: &SegmentMeta,
        pointer: Option<&Pointer>,
    ) -> Result<(), StoreError> {
        if !self.has(InspectTable::Open) {
            return Ok(());
        }
        let reached = pointer.map(|pointer| pointer.archived.head.sequence);
        if reached.is_some_and(|reached| meta.first <= reached && reached < meta.last) {
            let key = keys::session(walk.tenant, walk.session);
            walk.misfit(InspectTable::Pointers, &key, "it points into the middle of a segment");
        }
        let open_key = keys::open(walk.tenant, meta.commit_id, walk.session);
        let open = self.get(InspectTable::Open, &open_key)?;
        match row.archived {
            None => {
                expected.open += 1;
                // How many bytes it says cannot be told from the attributes.
                let first = open.as_deref().and_then(|row| records::decode_open(row).ok());
                if first.map(|(_, first)| first) != Some(meta.first) {
                    let why = "a segment that is not archived is missing, or its row says something else";
                    walk.misfit(InspectTable::Open, &open_key, why);
                }
            }
            Some(archived) => {
                if open.is_some() {
                    walk.misfit(InspectTable::Open, &open_key, "the segment is archived");
                }
                if reached.is_none_or(|reached| reached < meta.last) {
                    let why = "it says that it is archived, and is above its session's pointer";
                    walk.misfit(InspectTable::Segments, key, why);
                }
                if let Some(at) = archived.expires_at {
                    expected.expiring += 1;
                    let expiry = keys::segment_expiry(at, key);
                    if self.get(InspectTable::Expiry, &expiry)?.is_none_or(|value| !value.is_empty()) {
                        walk.misfit(
                            InspectTable::Expiry,
                            &expiry,
                            "a segment that expires is not in the list",
                        );
                    }
                }
            }
        }
        Ok(())
    }

    fn check_batches(&self, found: &mut dyn FnMut(Misfit)) -> Result<(), StoreError> {
        for row in self.rows(InspectTable::Batches, &[])? {
            let (key, value) = row?;
            if reads::decode_batch(&key, &value).is_err() {
                let key = key.escape_ascii().to_string();
                let why = "a batch of the catalogue does not decode";
                found(Misfit { table: InspectTable::Batches, key, session: None, why });
            }
        }
        Ok(())
    }

    /// All that must be there is there; is there more?
    fn check_counts(&self, expected: &Expected, found: &mut dyn FnMut(Misfit)) -> Result<(), StoreError> {
        let mut misfit = |table: InspectTable, key: &[u8], why| {
            found(Misfit { table, key: key.escape_ascii().to_string(), session: None, why });
        };
        for (table, count) in [
            (InspectTable::Feed, expected.segments),
            (InspectTable::Times, expected.segments),
            (InspectTable::Open, expected.open),
            (InspectTable::Expiry, expected.expiring),
            (InspectTable::Sessions, expected.sessions),
            (InspectTable::SessionOrder, expected.sessions),
        ] {
            // A table's own count is not covered by what was looked up: count.
            let mut rows = 0;
            for row in self.rows(table, &[])? {
                row?;
                rows += 1;
            }
            if rows != count {
                misfit(table, &[], "it holds more or fewer rows than there are segments or sessions");
            }
        }
        if self.body_part_count()? != expected.parts {
            misfit(InspectTable::Segments, &[], "there are body parts that belong to no segment");
        }
        Ok(())
    }
}
