//! A segment: what one append writes for one session (docs/format.md, section 6).
//!
//! [`chain`] makes one from new events; [`SegmentReader`] reads one back. The body holds everything that was hashed;
//! the attributes ([`SegmentMeta`]) are what a reader wants to know before it reads the body, all of it derived.

mod body;
mod meta;
#[cfg(test)]
mod tests;

#[cfg(feature = "embedded")]
pub(crate) use body::FRONT_BYTES_MAX;
pub use body::{SegmentReader, SegmentView, chain, erase, unpacked_bytes};
pub use meta::{Head, SegmentMeta};

use crate::codec::Malformed;
use crate::event::NewEvent;
use crate::ids::{EventHash, EventId, Seq, SessionId};

/// Why a segment cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    /// Not a segment.
    #[error("segment {0}")]
    Malformed(#[from] Malformed),
    /// Its zstd frame does not decompress to what it says.
    #[error("segment's zstd frame: {0}")]
    Zstd(String),
}

/// A new event with its number in the batch, from 1.
#[derive(Debug, Clone)]
pub struct Numbered {
    /// 1 to 1000.
    pub number: u16,
    /// The event.
    pub event: NewEvent,
}

/// Where an event came to stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// Its number in the batch.
    pub number: u16,
    /// Its id.
    pub event_id: EventId,
    /// Its place in the session.
    pub sequence: Seq,
    /// Its hash.
    pub hash: EventHash,
}

/// A segment ready to be written.
#[derive(Debug, Clone)]
pub struct Segment {
    /// The session it belongs to.
    pub session_id: SessionId,
    /// Its attributes.
    pub meta: SegmentMeta,
    /// Its body.
    pub body: bytes::Bytes,
}
