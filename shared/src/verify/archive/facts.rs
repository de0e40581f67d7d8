//! What a data directory keeps of a session as far as it is archived, made again from the rows of a run.

use crate::codec::{Cursor, Malformed, put_signed, put_varint};
use crate::event::{Content, EventRef};
use crate::ids::CommitId;
use crate::summary::Summary;
use crate::time::Micros;

/// Of a run of events, or of several that follow each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::verify) struct Facts {
    pub(in crate::verify) first_commit: CommitId,
    pub(in crate::verify) last_commit: CommitId,
    /// When the last of them was received.
    pub(in crate::verify) updated_at: Micros,
    pub(in crate::verify) erased: u64,
    pub(in crate::verify) summary: Summary,
}

impl Facts {
    /// Of one event.
    pub(super) fn of(event: &EventRef<'_>) -> Self {
        let commit = event.event_id.commit();
        Self {
            first_commit: commit,
            last_commit: commit,
            updated_at: event.received_at,
            erased: u64::from(matches!(event.content, Content::Erased { .. })),
            summary: Summary::of(event),
        }
    }

    /// Adds the next event.
    pub(super) fn push(&mut self, event: &EventRef<'_>) {
        self.last_commit = event.event_id.commit();
        self.updated_at = event.received_at;
        self.erased += u64::from(matches!(event.content, Content::Erased { .. }));
        self.summary.push(event);
    }

    /// Adds the run that follows.
    pub(in crate::verify) fn merge(&mut self, next: &Self) {
        self.last_commit = next.last_commit;
        self.updated_at = next.updated_at;
        self.erased += next.erased;
        self.summary.merge(&next.summary);
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&self.first_commit.to_bytes());
        out.extend_from_slice(&self.last_commit.to_bytes());
        put_signed(&mut out, self.updated_at.get());
        put_varint(&mut out, self.erased);
        self.summary.encode(&mut out);
        out
    }

    pub(in crate::verify) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor(bytes);
        let commit = |bytes| CommitId::from_bytes(bytes).ok_or(Malformed("a commit id"));
        let this = Self {
            first_commit: commit(cursor.array()?)?,
            last_commit: commit(cursor.array()?)?,
            updated_at: Micros::new(cursor.signed()?).ok_or(Malformed("a time"))?,
            erased: cursor.varint()?,
            summary: Summary::decode(&mut cursor)?,
        };
        cursor.end()?;
        Ok(this)
    }
}
