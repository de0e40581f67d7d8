//! Idempotency keys.

use aws_sdk_dynamodb::types::Put;

use super::DynamoStore;
use super::item::{Item, binary, corrupt, get_binary, get_time, key, number};
use crate::codec::{Cursor, Malformed, put_bytes, put_varint};
use crate::ids::{CommitId, Seq, SessionId, TenantId};
use crate::limits;
use crate::store::keys::dynamo as keys;
use crate::store::{Idempotency, StoreError};

const VERSION: u8 = 0x01;

fn encode(record: &Idempotency) -> Vec<u8> {
    let mut out = vec![VERSION];
    out.extend_from_slice(&record.body);
    out.extend_from_slice(&record.commit_id.to_bytes());
    put_varint(&mut out, record.segments.len() as u64);
    for (session, first) in &record.segments {
        put_bytes(&mut out, session.as_str().as_bytes());
        put_varint(&mut out, first.get());
    }
    out
}

/// Body, commit and segments.
type Decoded = ([u8; 32], CommitId, Vec<(SessionId, Seq)>);

fn decode(bytes: &[u8]) -> Result<Decoded, Malformed> {
    let mut cursor = Cursor(bytes);
    if cursor.byte()? != VERSION {
        return Err(Malformed("an unknown version of the record"));
    }
    let body = cursor.array()?;
    let commit = CommitId::from_bytes(cursor.array()?).ok_or(Malformed("a commit id that is none"))?;
    let count = cursor.length(limits::COMMIT_ACTIONS_MAX)?;
    let mut segments = Vec::with_capacity(count);
    for _ in 0..count {
        let session = SessionId::parse(cursor.text()?).map_err(|_| Malformed("a session's id"))?;
        segments.push((session, Seq::new(cursor.varint()?).ok_or(Malformed("a sequence out of range"))?));
    }
    cursor.end()?;
    Ok((body, commit, segments))
}

/// The put of a key that is absent or has expired by the batch's own time.
pub(super) fn put(store: &DynamoStore, tenant: &TenantId, record: &Idempotency) -> Put {
    let mut item = key(keys::idempotency(tenant, &record.key), keys::IDEMPOTENCY);
    item.insert("p".into(), binary(encode(record)));
    item.insert("t".into(), number(record.created_at.get()));
    item.insert("x".into(), number(record.expires_at.get()));
    // Only for tidiness: whether a key still counts is compared, never left to the table's expiry.
    item.insert("ttl".into(), number(record.expires_at.unix_ms() / 1000 + 1));
    Put::builder()
        .table_name(&store.table)
        .set_item(Some(item))
        .condition_expression("attribute_not_exists(pk) OR x <= :now")
        .expression_attribute_values(":now", number(record.created_at.get()))
        .build()
        .expect("a put has a table and an item")
}

fn read(key: &[u8; 32], item: &Item) -> Result<Idempotency, StoreError> {
    let (body, commit_id, segments) = decode(get_binary(item, "p")?).map_err(|e| corrupt(item, e))?;
    let (created_at, expires_at) = (get_time(item, "t")?, get_time(item, "x")?);
    Ok(Idempotency { key: *key, body, commit_id, segments, created_at, expires_at })
}

/// See [`crate::store::Store::idempotency`].
pub(super) async fn get(
    store: &DynamoStore,
    tenant: &TenantId,
    hmac: &[u8; 32],
) -> Result<Option<Idempotency>, StoreError> {
    let item = store.get(key(keys::idempotency(tenant, hmac), keys::IDEMPOTENCY), None).await?;
    item.map(|item| read(hmac, &item)).transpose()
}
