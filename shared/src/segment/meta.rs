//! A segment's attributes, and the head they give.

use crate::codec::{Cursor, Malformed, put_signed, put_varint};
use crate::ids::{CommitId, EventHash, Seq};
use crate::summary::Summary;
use crate::time::Micros;

const VERSION: u8 = 0x01;

/// The end of a session: what the next event is chained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Sequence of the last event.
    pub sequence: Seq,
    /// Its hash.
    pub hash: EventHash,
}

/// The small attributes that stand beside a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentMeta {
    /// The commit that wrote it.
    pub commit_id: CommitId,
    /// When, by the ledger's clock.
    pub received_at: Micros,
    /// Sequence of its first event.
    pub first: Seq,
    /// Sequence of its last event.
    pub last: Seq,
    /// Hash of the event before its first.
    pub prev_hash: EventHash,
    /// Hash of its last event.
    pub last_hash: EventHash,
    /// Bytes of the body.
    pub body_bytes: u64,
    /// What its events count.
    pub summary: Summary,
}

impl SegmentMeta {
    /// The head of the session once this segment is its last.
    pub fn head(&self) -> Head {
        Head { sequence: self.last, hash: self.last_hash }
    }

    /// Its record.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        out.push(VERSION);
        out.extend_from_slice(&self.commit_id.to_bytes());
        put_signed(&mut out, self.received_at.get());
        put_varint(&mut out, self.first.get());
        put_varint(&mut out, self.last.get());
        out.extend_from_slice(&self.prev_hash.0);
        out.extend_from_slice(&self.last_hash.0);
        put_varint(&mut out, self.body_bytes);
        self.summary.encode(&mut out);
        out
    }

    /// Reads a record.
    ///
    /// # Errors
    /// If it is not one.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor(bytes);
        if cursor.byte()? != VERSION {
            return Err(Malformed("an unknown version of the attributes"));
        }
        let this = Self {
            commit_id: CommitId::from_bytes(cursor.array()?).ok_or(Malformed("a commit id that is none"))?,
            received_at: Micros::new(cursor.signed()?).ok_or(Malformed("received_at out of range"))?,
            first: Seq::new(cursor.varint()?).ok_or(Malformed("a sequence out of range"))?,
            last: Seq::new(cursor.varint()?).ok_or(Malformed("a sequence out of range"))?,
            prev_hash: EventHash(cursor.array()?),
            last_hash: EventHash(cursor.array()?),
            body_bytes: cursor.varint()?,
            summary: Summary::decode(&mut cursor)?,
        };
        cursor.end()?;
        if this.first > this.last {
            return Err(Malformed("a run that ends before it begins"));
        }
        Ok(this)
    }
}
