//! What a store keeps of the archive: how far each session is archived, and a catalogue of batches.
//!
//! The archive itself is the truth (docs/format.md, section 8); all of this can be made again from it.

use super::{FeedPosition, SessionRecord};
use crate::codec::{Cursor, Malformed, put_bytes, put_signed, put_varint};
use crate::ids::{CommitId, EventHash, Seq, SessionId};
use crate::segment::Head;
use crate::summary::Summary;
use crate::time::Micros;

/// Of a pointer that was never scrubbed.
const POINTER_VERSION: u8 = 0x02;
/// Of one that was: how often comes last.
const SCRUBBED_POINTER_VERSION: u8 = 0x03;
/// Of a batch whose object is that of its header.
const BATCH_VERSION: u8 = 0x01;
/// Of one whose object was written anew: the revision comes last.
const REVISED_BATCH_VERSION: u8 = 0x02;

/// A segment that is not archived yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenEntry {
    /// Its commit and its session.
    pub position: FeedPosition,
    /// Bytes of its events before compression ([`crate::segment::unpacked_bytes`]).
    pub bytes: u64,
}

/// How far a session is archived. Never expires, so that head and session list outlive everything hot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer {
    /// The session as far as it is archived: its head there, and the counts over what is archived.
    pub archived: SessionRecord,
    /// The batch that holds its first event.
    pub first_batch: u64,
    /// The batch that holds the last one archived.
    pub last_batch: u64,
    /// How often text of an erased event was taken out of its summary. It moves on with the pointer, so that one that was
    /// made from an older one does not bring the text back.
    pub scrubbed: u64,
}

impl Pointer {
    /// Its record, without the session's name.
    pub fn encode(&self) -> Vec<u8> {
        let record = &self.archived;
        let mut out = vec![if self.scrubbed == 0 { POINTER_VERSION } else { SCRUBBED_POINTER_VERSION }];
        put_varint(&mut out, record.head.sequence.get());
        out.extend_from_slice(&record.head.hash.0);
        out.extend_from_slice(&record.first_commit.to_bytes());
        out.extend_from_slice(&record.last_commit.to_bytes());
        put_signed(&mut out, record.updated_at.get());
        put_varint(&mut out, self.first_batch);
        put_varint(&mut out, self.last_batch);
        record.summary.encode(&mut out);
        if self.scrubbed > 0 {
            put_varint(&mut out, self.scrubbed);
        }
        out
    }

    /// Reads the record of a session.
    ///
    /// # Errors
    /// If it is not one.
    pub fn decode(session: &SessionId, bytes: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor(bytes);
        let version = cursor.byte()?;
        if ![POINTER_VERSION, SCRUBBED_POINTER_VERSION].contains(&version) {
            return Err(Malformed("an unknown version of the pointer"));
        }
        let sequence = Seq::new(cursor.varint()?).ok_or(Malformed("a sequence out of range"))?;
        let hash = EventHash(cursor.array()?);
        let (first_commit, last_commit) = (commit(&mut cursor)?, commit(&mut cursor)?);
        let updated_at = time(&mut cursor)?;
        let (first_batch, last_batch) = (cursor.varint()?, cursor.varint()?);
        let summary = Summary::decode(&mut cursor)?;
        let scrubbed = if version == POINTER_VERSION { 0 } else { cursor.varint()? };
        if version == SCRUBBED_POINTER_VERSION && scrubbed == 0 {
            return Err(Malformed("a pointer with two spellings"));
        }
        cursor.end()?;
        let head = Head { sequence, hash };
        let session_id = session.clone();
        let archived = SessionRecord { session_id, first_commit, last_commit, updated_at, head, summary };
        Ok(Self { archived, first_batch, last_batch, scrubbed })
    }
}

/// A batch, as the catalogue knows it: what a reader wants to know before it reads the header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchRecord {
    /// Its number, from 1.
    pub batch: u64,
    /// SHA-256 of its header's bytes.
    pub header_hash: [u8; 32],
    /// Index of its first leaf.
    pub first_leaf: u64,
    /// Its events.
    pub count: u64,
    /// Root of the tree after it, of `first_leaf + count` leaves.
    pub root: [u8; 32],
    /// When it was claimed.
    pub claimed_at: Micros,
    /// Lowest and highest commit of its events.
    pub commits: (CommitId, CommitId),
    /// Lowest and highest timestamp of its events.
    pub times: (Micros, Micros),
    /// Key of its object.
    pub key: String,
    /// Length of its object, bytes.
    pub bytes: u64,
    /// How often its object was written anew: the object record of this number names it; 0, the header.
    pub revision: u64,
    /// Bloom filters over sessions, agents and types (docs/format.md, section 8).
    pub blooms: [Vec<u8>; 3],
    /// True once everything that follows from it is written. Stands beside the record, not in it.
    pub recorded: bool,
}

impl BatchRecord {
    /// Size of the tree after it.
    pub fn tree_size(&self) -> u64 {
        self.first_leaf.saturating_add(self.count)
    }

    /// Its record, without its number and `recorded`.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![if self.revision == 0 { BATCH_VERSION } else { REVISED_BATCH_VERSION }];
        out.extend_from_slice(&self.header_hash);
        put_varint(&mut out, self.first_leaf);
        put_varint(&mut out, self.count);
        out.extend_from_slice(&self.root);
        put_signed(&mut out, self.claimed_at.get());
        out.extend_from_slice(&self.commits.0.to_bytes());
        out.extend_from_slice(&self.commits.1.to_bytes());
        put_signed(&mut out, self.times.0.get());
        put_signed(&mut out, self.times.1.get());
        put_bytes(&mut out, self.key.as_bytes());
        put_varint(&mut out, self.bytes);
        for bloom in &self.blooms {
            put_bytes(&mut out, bloom);
        }
        if self.revision > 0 {
            put_varint(&mut out, self.revision);
        }
        out
    }

    /// Reads the record of a batch.
    ///
    /// # Errors
    /// If it is not one.
    pub fn decode(batch: u64, recorded: bool, bytes: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor(bytes);
        let version = cursor.byte()?;
        if ![BATCH_VERSION, REVISED_BATCH_VERSION].contains(&version) {
            return Err(Malformed("an unknown version of the batch"));
        }
        let this = Self {
            batch,
            header_hash: cursor.array()?,
            first_leaf: cursor.varint()?,
            count: cursor.varint()?,
            root: cursor.array()?,
            claimed_at: time(&mut cursor)?,
            commits: (commit(&mut cursor)?, commit(&mut cursor)?),
            times: (time(&mut cursor)?, time(&mut cursor)?),
            key: cursor.text()?.to_owned(),
            bytes: cursor.varint()?,
            blooms: [cursor.bytes()?.to_vec(), cursor.bytes()?.to_vec(), cursor.bytes()?.to_vec()],
            revision: if version == BATCH_VERSION { 0 } else { cursor.varint()? },
            recorded,
        };
        if version == REVISED_BATCH_VERSION && this.revision == 0 {
            return Err(Malformed("a batch with two spellings"));
        }
        cursor.end()?;
        Ok(this)
    }
}

fn commit(cursor: &mut Cursor<'_>) -> Result<CommitId, Malformed> {
    CommitId::from_bytes(cursor.array()?).ok_or(Malformed("a commit id that is none"))
}

fn time(cursor: &mut Cursor<'_>) -> Result<Micros, Malformed> {
    Micros::new(cursor.signed()?).ok_or(Malformed("a time out of range"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Content, EventRef, Redactions};
    use crate::ids::Severity;
    use proptest::prelude::*;

    fn a_time() -> impl Strategy<Value = Micros> {
        (Micros::MIN.get()..=Micros::MAX.get()).prop_map(|t| Micros::new(t).unwrap())
    }

    fn a_commit() -> impl Strategy<Value = CommitId> {
        (0u64..1 << 48, any::<[u8; 10]>()).prop_map(|(ms, random)| CommitId::mint(ms, random))
    }

    fn a_summary(timestamp: Micros, agent_id: &str) -> Summary {
        Summary::of(&EventRef {
            sequence: Seq::ZERO,
            event_id: CommitId::mint(1, [1; 10]).event(1),
            timestamp,
            received_at: timestamp,
            agent_id,
            event_type: "tool_call",
            severity: Severity::Warn,
            source_id: None,
            compliance_tag: "default",
            pii_types: "",
            redactions: Redactions::default(),
            content: Content::Kept { salt: [0; 16], payload: "{}", metadata: "{}" },
            prev_hash: EventHash::ZERO,
            hash: EventHash::ZERO,
        })
    }

    proptest! {
        #[test]
        fn pointers(
            commits in (a_commit(), a_commit()), times in (a_time(), a_time()), agent in "[a-z]{1,9}",
            sequence in 0..=Seq::MAX.get(), hash: [u8; 32], batches: (u64, u64), scrubbed in 0u64..300,
        ) {
            let session_id = SessionId::parse("s / é").unwrap();
            let archived = SessionRecord {
                session_id: session_id.clone(),
                first_commit: commits.0,
                last_commit: commits.1,
                updated_at: times.0,
                head: Head { sequence: Seq::new(sequence).unwrap(), hash: EventHash(hash) },
                summary: a_summary(times.1, &agent),
            };
            let pointer = Pointer { archived, first_batch: batches.0, last_batch: batches.1, scrubbed };
            let bytes = pointer.encode();
            prop_assert_eq!(Pointer::decode(&session_id, &bytes), Ok(pointer));
            for end in 0..bytes.len() {
                prop_assert!(Pointer::decode(&session_id, &bytes[..end]).is_err());
            }
            prop_assert!(Pointer::decode(&session_id, &[&bytes[..], &[0]].concat()).is_err());
        }

        #[test]
        fn batches(
            (batch, first_leaf, count, bytes, revision) in any::<(u64, u64, u64, u64, u64)>(),
            hashes: ([u8; 32], [u8; 32]),
            times in (a_time(), a_time(), a_time()), commits in (a_commit(), a_commit()),
            key in "[a-z/=é]{0,40}", blooms: [Vec<u8>; 3], recorded: bool,
        ) {
            let record = BatchRecord {
                batch,
                header_hash: hashes.0,
                first_leaf,
                count,
                root: hashes.1,
                claimed_at: times.0,
                commits,
                times: (times.1, times.2),
                key,
                bytes,
                revision: revision % 3,
                blooms,
                recorded,
            };
            let encoded = record.encode();
            prop_assert_eq!(BatchRecord::decode(batch, recorded, &encoded), Ok(record));
            for end in 0..encoded.len() {
                prop_assert!(BatchRecord::decode(batch, recorded, &encoded[..end]).is_err());
            }
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = Pointer::decode(&SessionId::parse("s").unwrap(), &bytes);
            let _ = BatchRecord::decode(1, true, &bytes);
        }
    }
}
