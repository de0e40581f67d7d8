//! What a store keeps of an erasure: what is to be erased, and how far it has come. No content.

use crate::codec::{Cursor, Malformed, put_bytes, put_signed, put_varint};
use crate::ids::{EventHash, EventId, Seq, SessionId};
use crate::limits;
use crate::segment::SegmentMeta;
use crate::time::Micros;

const VERSION: u8 = 0x01;

/// How far an erasure has come. Nothing here goes back: a step that is done once is done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ErasureProgress {
    /// The tombstone, once it is durable.
    pub tombstone: Option<EventId>,
    /// When the hot tier was found without the content.
    pub hot_at: Option<Micros>,
    /// The batch that holds the event, once it is archived and its object is without the content.
    pub batch: Option<u64>,
    /// When that object was found so.
    pub object_at: Option<Micros>,
    /// Until when a lock keeps older versions of the object; looked at again after that.
    pub kept_until: Option<Micros>,
    /// When nothing was left but backups.
    pub done_at: Option<Micros>,
}

/// An erasure that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErasureRecord {
    /// The event whose content goes.
    pub event_id: EventId,
    /// Its session.
    pub session_id: SessionId,
    /// Its place there.
    pub sequence: Seq,
    /// Its hash.
    pub hash: EventHash,
    /// The digest that outlives its content.
    pub content_digest: [u8; 32],
    /// True if it starts a session: then summaries may hold an agent's name and tags of it.
    pub is_start: bool,
    /// The token that asked; none in loopback mode.
    pub token_id: Option<String>,
    /// Why, by who asked.
    pub reason: Option<String>,
    /// When it was asked for.
    pub asked_at: Micros,
    /// How far it has come.
    pub progress: ErasureProgress,
}

/// A body as it lies in the store, to be replaced by another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredBody {
    /// The segment's attributes.
    pub meta: SegmentMeta,
    /// Its body.
    pub body: bytes::Bytes,
    /// Which of the segment's bodies this is. Only the store knows what the number means; it changes with the body.
    pub revision: u64,
}

fn put_flag<T>(out: &mut Vec<u8>, value: &Option<T>, put: impl FnOnce(&mut Vec<u8>, &T)) {
    out.push(u8::from(value.is_some()));
    if let Some(value) = value {
        put(out, value);
    }
}

fn flag<'c, T>(
    cursor: &mut Cursor<'c>,
    read: impl FnOnce(&mut Cursor<'c>) -> Result<T, Malformed>,
) -> Result<Option<T>, Malformed> {
    match cursor.byte()? {
        0 => Ok(None),
        1 => read(cursor).map(Some),
        _ => Err(Malformed("a flag that is neither 0 nor 1")),
    }
}

fn time(cursor: &mut Cursor<'_>) -> Result<Micros, Malformed> {
    Micros::new(cursor.signed()?).ok_or(Malformed("a time out of range"))
}

fn event(cursor: &mut Cursor<'_>) -> Result<EventId, Malformed> {
    EventId::from_u128(u128::from_be_bytes(cursor.array()?)).ok_or(Malformed("an event id that is none"))
}

fn short(cursor: &mut Cursor<'_>) -> Result<String, Malformed> {
    let text = cursor.text()?;
    if text.len() <= limits::ERASURE_REASON_BYTES_MAX {
        Ok(text.to_owned())
    } else {
        Err(Malformed("a text that is too long"))
    }
}

impl ErasureRecord {
    /// True once nothing is left but backups.
    pub fn is_done(&self) -> bool {
        self.progress.done_at.is_some()
    }

    /// Its record, without the event's id.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        put_bytes(&mut out, self.session_id.as_str().as_bytes());
        put_varint(&mut out, self.sequence.get());
        out.extend_from_slice(&self.hash.0);
        out.extend_from_slice(&self.content_digest);
        out.push(u8::from(self.is_start));
        for text in [&self.token_id, &self.reason] {
            put_flag(&mut out, text, |out, text| put_bytes(out, text.as_bytes()));
        }
        put_signed(&mut out, self.asked_at.get());
        let ErasureProgress { tombstone, hot_at, batch, object_at, kept_until, done_at } = &self.progress;
        put_flag(&mut out, tombstone, |out, id| out.extend_from_slice(&id.as_u128().to_be_bytes()));
        put_flag(&mut out, batch, |out, batch| put_varint(out, *batch));
        for at in [hot_at, object_at, kept_until, done_at] {
            put_flag(&mut out, at, |out, at| put_signed(out, at.get()));
        }
        out
    }

    /// Reads the record of an event's erasure.
    ///
    /// # Errors
    /// If it is not one.
    pub fn decode(event_id: EventId, bytes: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor(bytes);
        if cursor.byte()? != VERSION {
            return Err(Malformed("an unknown version of the erasure"));
        }
        let session_id = SessionId::parse(cursor.text()?).map_err(|_| Malformed("a session's id"))?;
        let this = Self {
            event_id,
            session_id,
            sequence: Seq::new(cursor.varint()?).ok_or(Malformed("a sequence out of range"))?,
            hash: EventHash(cursor.array()?),
            content_digest: cursor.array()?,
            is_start: match cursor.byte()? {
                0 => false,
                1 => true,
                _ => return Err(Malformed("a flag that is neither 0 nor 1")),
            },
            token_id: flag(&mut cursor, short)?,
            reason: flag(&mut cursor, short)?,
            asked_at: time(&mut cursor)?,
            progress: ErasureProgress {
                tombstone: flag(&mut cursor, event)?,
                batch: flag(&mut cursor, Cursor::varint)?,
                hot_at: flag(&mut cursor, time)?,
                object_at: flag(&mut cursor, time)?,
                kept_until: flag(&mut cursor, time)?,
                done_at: flag(&mut cursor, time)?,
            },
        };
        cursor.end()?;
        Ok(this)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::CommitId;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn records(
            sequence in 0..=Seq::MAX.get(), hashes: ([u8; 32], [u8; 32]), is_start: bool,
            texts in (proptest::option::of("[a-zé ]{0,40}"), proptest::option::of("[a-zé ]{0,40}")),
            times in prop::collection::vec(proptest::option::of(-9i64..9), 4),
            batch: Option<u64>, number in proptest::option::of(1u16..1000),
        ) {
            let commit = CommitId::mint(7, [3; 10]);
            let at = |index: usize| times[index].and_then(Micros::new);
            let record = ErasureRecord {
                event_id: commit.event(1),
                session_id: SessionId::parse("s / é").unwrap(),
                sequence: Seq::new(sequence).unwrap(),
                hash: EventHash(hashes.0),
                content_digest: hashes.1,
                is_start,
                token_id: texts.0,
                reason: texts.1,
                asked_at: Micros::new(-5).unwrap(),
                progress: ErasureProgress {
                    tombstone: number.map(|number| commit.event(number)),
                    hot_at: at(0),
                    batch,
                    object_at: at(1),
                    kept_until: at(2),
                    done_at: at(3),
                },
            };
            let bytes = record.encode();
            for end in 0..bytes.len() {
                prop_assert!(ErasureRecord::decode(record.event_id, &bytes[..end]).is_err());
            }
            prop_assert!(ErasureRecord::decode(record.event_id, &[&bytes[..], &[0]].concat()).is_err());
            prop_assert_eq!(ErasureRecord::decode(record.event_id, &bytes), Ok(record));
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = ErasureRecord::decode(CommitId::mint(7, [3; 10]).event(1), &bytes);
        }
    }
}
