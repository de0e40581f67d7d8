//! Records of the derived tables: a version byte, then [`crate::codec`]. What the key says is not said again.

use crate::codec::{Cursor, Malformed, put_bytes, put_signed, put_varint};
use crate::ids::{AgentId, CommitId, EventHash, Seq, SessionId, TenantId};
use crate::limits;
use crate::segment::Head;
pub(super) use crate::store::derived::AgentRow;
use crate::store::{AgentRecord, BatchRecord, Idempotency, SessionRecord, TenantRecord};
use crate::summary::Summary;
use crate::time::Micros;

const VERSION: u8 = 0x01;

fn start(bytes: &[u8]) -> Result<Cursor<'_>, Malformed> {
    let mut cursor = Cursor(bytes);
    if cursor.byte()? == VERSION { Ok(cursor) } else { Err(Malformed("an unknown version of the record")) }
}

fn time(cursor: &mut Cursor<'_>) -> Result<Micros, Malformed> {
    Micros::new(cursor.signed()?).ok_or(Malformed("a time out of range"))
}

fn seq(cursor: &mut Cursor<'_>) -> Result<Seq, Malformed> {
    Seq::new(cursor.varint()?).ok_or(Malformed("a sequence out of range"))
}

fn commit(cursor: &mut Cursor<'_>) -> Result<CommitId, Malformed> {
    CommitId::from_bytes(cursor.array()?).ok_or(Malformed("a commit id that is none"))
}

/// A session's record.
pub(super) fn encode_session(record: &SessionRecord) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.push(VERSION);
    out.extend_from_slice(&record.first_commit.to_bytes());
    out.extend_from_slice(&record.last_commit.to_bytes());
    put_signed(&mut out, record.updated_at.get());
    put_varint(&mut out, record.head.sequence.get());
    out.extend_from_slice(&record.head.hash.0);
    record.summary.encode(&mut out);
    out
}

/// Reads a session's record.
pub(super) fn decode_session(session_id: SessionId, bytes: &[u8]) -> Result<SessionRecord, Malformed> {
    let mut cursor = start(bytes)?;
    let record = SessionRecord {
        session_id,
        first_commit: commit(&mut cursor)?,
        last_commit: commit(&mut cursor)?,
        updated_at: time(&mut cursor)?,
        head: Head { sequence: seq(&mut cursor)?, hash: EventHash(cursor.array()?) },
        summary: Summary::decode(&mut cursor)?,
    };
    cursor.end()?;
    Ok(record)
}

/// Of a batch's first byte: everything that follows from it is written.
const RECORDED: u8 = 1;
/// Of a batch's first byte: until when it is hot stands behind it.
const HOT_UNTIL: u8 = 2;

/// A row of the catalogue.
pub(super) fn encode_batch(batch: &BatchRecord) -> Vec<u8> {
    let mut out = vec![if batch.recorded { HOT_UNTIL | RECORDED } else { HOT_UNTIL }];
    out.extend_from_slice(&batch.hot_until.get().to_be_bytes());
    out.extend_from_slice(&batch.encode());
    out
}

/// Reads a row of the catalogue.
pub(super) fn decode_batch(number: u64, bytes: &[u8]) -> Result<BatchRecord, Malformed> {
    let mut cursor = Cursor(bytes);
    let flags = cursor.byte()?;
    if flags & !(RECORDED | HOT_UNTIL) != 0 {
        return Err(Malformed("unknown flags of a batch"));
    }
    let mut hot_until = Micros::MIN;
    if flags & HOT_UNTIL != 0 {
        let at = Micros::new(i64::from_be_bytes(cursor.array()?));
        hot_until = at.ok_or(Malformed("a time out of range"))?;
    }
    BatchRecord::decode(number, (hot_until, flags & RECORDED != 0), cursor.0)
}

/// An agent's record.
pub(super) fn encode_agent(row: &AgentRow) -> Vec<u8> {
    let record = &row.record;
    let mut out = Vec::with_capacity(64);
    out.push(VERSION);
    put_signed(&mut out, record.first_seen_at.get());
    put_signed(&mut out, record.last_seen_at.get());
    put_varint(&mut out, record.session_count);
    put_varint(&mut out, record.event_count);
    if let (Some(name), Some(by)) = (&record.name, row.named_by) {
        out.extend_from_slice(&by.to_bytes());
        put_bytes(&mut out, name.as_bytes());
    }
    out
}

/// Reads an agent's record.
pub(super) fn decode_agent(agent_id: AgentId, bytes: &[u8]) -> Result<AgentRow, Malformed> {
    let mut cursor = start(bytes)?;
    let mut record = AgentRecord {
        agent_id,
        first_seen_at: time(&mut cursor)?,
        last_seen_at: time(&mut cursor)?,
        session_count: cursor.varint()?,
        event_count: cursor.varint()?,
        name: None,
    };
    let mut named_by = None;
    if cursor.end().is_err() {
        named_by = Some(commit(&mut cursor)?);
        record.name = Some(cursor.text()?.to_owned());
        cursor.end()?;
    }
    Ok(AgentRow { record, named_by })
}

/// What stands for an idempotency key.
pub(super) fn encode_idempotency(record: &Idempotency) -> Vec<u8> {
    let mut out = Vec::with_capacity(96);
    out.push(VERSION);
    out.extend_from_slice(&record.body);
    out.extend_from_slice(&record.commit_id.to_bytes());
    put_signed(&mut out, record.created_at.get());
    put_signed(&mut out, record.expires_at.get());
    put_varint(&mut out, record.segments.len() as u64);
    for (session, first) in &record.segments {
        put_bytes(&mut out, session.as_str().as_bytes());
        put_varint(&mut out, first.get());
    }
    out
}

/// Reads what stands for an idempotency key.
pub(super) fn decode_idempotency(key: [u8; 32], bytes: &[u8]) -> Result<Idempotency, Malformed> {
    let mut cursor = start(bytes)?;
    let record = Idempotency {
        key,
        body: cursor.array()?,
        commit_id: commit(&mut cursor)?,
        created_at: time(&mut cursor)?,
        expires_at: time(&mut cursor)?,
        segments: {
            let count = cursor.length(limits::BATCH_EVENTS_MAX)?;
            let mut segments = Vec::new();
            for _ in 0..count {
                let session = SessionId::parse(cursor.text()?).map_err(|_| Malformed("a session id"))?;
                segments.push((session, seq(&mut cursor)?));
            }
            segments
        },
    };
    cursor.end()?;
    Ok(record)
}

/// A tenant's record.
pub(super) fn encode_tenant(record: &TenantRecord) -> Vec<u8> {
    let mut out = vec![VERSION];
    put_signed(&mut out, record.created_at.get());
    out
}

/// Reads a tenant's record.
pub(super) fn decode_tenant(tenant: TenantId, bytes: &[u8]) -> Result<TenantRecord, Malformed> {
    let mut cursor = start(bytes)?;
    let record = TenantRecord { tenant, created_at: time(&mut cursor)? };
    cursor.end()?;
    Ok(record)
}

/// A row of the time index: lowest timestamp, first sequence.
pub(super) fn encode_time(time_min: Micros, first: Seq) -> Vec<u8> {
    let mut out = vec![VERSION];
    put_signed(&mut out, time_min.get());
    put_varint(&mut out, first.get());
    out
}

/// Reads a row of the time index.
pub(super) fn decode_time(bytes: &[u8]) -> Result<(Micros, Seq), Malformed> {
    let mut cursor = start(bytes)?;
    let row = (time(&mut cursor)?, seq(&mut cursor)?);
    cursor.end()?;
    Ok(row)
}

/// A row of the feed: first sequence.
pub(super) fn encode_feed(first: Seq) -> Vec<u8> {
    let mut out = vec![VERSION];
    put_varint(&mut out, first.get());
    out
}

/// Reads a row of the feed.
pub(super) fn decode_feed(bytes: &[u8]) -> Result<Seq, Malformed> {
    let mut cursor = start(bytes)?;
    let first = seq(&mut cursor)?;
    cursor.end()?;
    Ok(first)
}

/// A row of the open segments: bytes of its events before compression, first sequence.
pub(super) fn encode_open(bytes: u64, first: Seq) -> Vec<u8> {
    let mut out = vec![VERSION];
    put_varint(&mut out, bytes);
    put_varint(&mut out, first.get());
    out
}

/// Reads a row of the open segments.
pub(super) fn decode_open(bytes: &[u8]) -> Result<(u64, Seq), Malformed> {
    let mut cursor = start(bytes)?;
    let row = (cursor.varint()?, seq(&mut cursor)?);
    cursor.end()?;
    Ok(row)
}

/// Since when a session is known to be broken at a segment.
pub(super) fn encode_broken(at: Micros) -> Vec<u8> {
    let mut out = vec![VERSION];
    put_signed(&mut out, at.get());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Content, EventRef, Redactions};
    use crate::ids::Severity;
    use proptest::prelude::*;

    fn a_commit() -> impl Strategy<Value = CommitId> {
        (0u64..1 << 48, any::<[u8; 10]>()).prop_map(|(ms, random)| CommitId::mint(ms, random))
    }

    fn a_time() -> impl Strategy<Value = Micros> {
        (Micros::MIN.get()..=Micros::MAX.get()).prop_map(|t| Micros::new(t).unwrap())
    }

    fn a_seq() -> impl Strategy<Value = Seq> {
        (0..=Seq::MAX.get()).prop_map(|n| Seq::new(n).unwrap())
    }

    fn a_session() -> impl Strategy<Value = SessionId> {
        "[a-zé ]{1,40}".prop_map(|text| SessionId::parse(text).unwrap())
    }

    fn a_summary() -> impl Strategy<Value = Summary> {
        (a_time(), "[a-z]{1,9}").prop_map(|(timestamp, agent_id)| {
            Summary::of(&EventRef {
                sequence: Seq::ZERO,
                event_id: CommitId::mint(1, [1; 10]).event(1),
                timestamp,
                received_at: timestamp,
                agent_id: &agent_id,
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
        })
    }

    proptest! {
        #[test]
        fn sessions(session_id in a_session(), first_commit in a_commit(), last_commit in a_commit(),
            updated_at in a_time(), sequence in a_seq(), hash: [u8; 32], summary in a_summary()) {
            let head = Head { sequence, hash: EventHash(hash) };
            let record = SessionRecord { session_id, first_commit, last_commit, updated_at, head, summary };
            let bytes = encode_session(&record);
            prop_assert_eq!(decode_session(record.session_id.clone(), &bytes), Ok(record.clone()));
            prop_assert!(decode_session(record.session_id, &bytes[..bytes.len() - 1]).is_err());
        }

        #[test]
        fn agents(first_seen_at in a_time(), last_seen_at in a_time(), session_count: u64, event_count: u64,
            name in proptest::option::of(("[a-z]{0,20}", a_commit()))) {
            let (name, named_by) = name.unzip();
            let agent_id = AgentId::parse("bot").unwrap();
            let record = AgentRecord {
                agent_id: agent_id.clone(), first_seen_at, last_seen_at, session_count, event_count, name,
            };
            let row = AgentRow { record, named_by };
            prop_assert_eq!(decode_agent(agent_id, &encode_agent(&row)), Ok(row));
        }

        #[test]
        fn open_segments(bytes: u64, first in a_seq()) {
            prop_assert_eq!(decode_open(&encode_open(bytes, first)), Ok((bytes, first)));
        }

        #[test]
        fn idempotency(key: [u8; 32], body: [u8; 32], commit_id in a_commit(), created_at in a_time(),
            expires_at in a_time(), segments in proptest::collection::vec((a_session(), a_seq()), 0..5)) {
            let record = Idempotency { key, body, commit_id, segments, created_at, expires_at };
            prop_assert_eq!(decode_idempotency(key, &encode_idempotency(&record)), Ok(record));
        }

        #[test]
        fn small_ones(at in a_time(), first in a_seq()) {
            let tenant = TenantRecord { tenant: TenantId::default_tenant(), created_at: at };
            prop_assert_eq!(decode_tenant(tenant.tenant.clone(), &encode_tenant(&tenant)), Ok(tenant));
            prop_assert_eq!(decode_time(&encode_time(at, first)), Ok((at, first)));
            prop_assert_eq!(decode_feed(&encode_feed(first)), Ok(first));
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, version: bool) {
            let mut bytes = bytes;
            if version && !bytes.is_empty() {
                bytes[0] = VERSION;
            }
            let _ = decode_session(SessionId::parse("s").unwrap(), &bytes);
            let _ = decode_agent(AgentId::parse("a").unwrap(), &bytes);
            let _ = decode_idempotency([0; 32], &bytes);
            let _ = decode_tenant(TenantId::default_tenant(), &bytes);
            let _ = decode_time(&bytes);
            let _ = decode_feed(&bytes);
        }
    }
}
