//! A session's pointer: how far it is archived, and what was archived of it. It never expires, so that the head and
//! the session list outlive everything hot.

use aws_sdk_dynamodb::types::AttributeValue;

use super::DynamoStore;
use super::commit::refused;
use super::item::{Item, binary, corrupt, get_binary, get_number, key, number};
use crate::aws::{Again, CallError, retried};
use crate::codec::{Cursor, Malformed, put_signed, put_varint};
use crate::ids::{CommitId, EventHash, Seq, SessionId, TenantId};
use crate::segment::{Head, SegmentMeta};
use crate::store::keys::dynamo as keys;
use crate::store::{SessionRecord, StoreError};
use crate::summary::Summary;
use crate::time::Micros;

const VERSION: u8 = 0x01;

/// What a session's pointer holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer {
    /// The session as far as it is archived: its head there, and the counts over what is archived.
    pub archived: SessionRecord,
    /// The batch that holds its first event.
    pub first_batch: u64,
    /// The batch that holds the last one archived.
    pub last_batch: u64,
}

impl Pointer {
    fn encode(&self) -> Vec<u8> {
        let record = &self.archived;
        let mut out = vec![VERSION];
        out.extend_from_slice(&record.head.hash.0);
        out.extend_from_slice(&record.first_commit.to_bytes());
        out.extend_from_slice(&record.last_commit.to_bytes());
        put_signed(&mut out, record.updated_at.get());
        put_varint(&mut out, self.first_batch);
        put_varint(&mut out, self.last_batch);
        record.summary.encode(&mut out);
        out
    }

    fn decode(session: &SessionId, sequence: Seq, bytes: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor(bytes);
        if cursor.byte()? != VERSION {
            return Err(Malformed("an unknown version of the pointer"));
        }
        let commit = |cursor: &mut Cursor<'_>| {
            CommitId::from_bytes(cursor.array()?).ok_or(Malformed("a commit id that is none"))
        };
        let hash = EventHash(cursor.array()?);
        let (first_commit, last_commit) = (commit(&mut cursor)?, commit(&mut cursor)?);
        let updated_at = Micros::new(cursor.signed()?).ok_or(Malformed("a time out of range"))?;
        let (first_batch, last_batch) = (cursor.varint()?, cursor.varint()?);
        let summary = Summary::decode(&mut cursor)?;
        cursor.end()?;
        let head = Head { sequence, hash };
        let session_id = session.clone();
        let archived = SessionRecord { session_id, first_commit, last_commit, updated_at, head, summary };
        Ok(Self { archived, first_batch, last_batch })
    }

    /// From its item.
    pub(super) fn read(session: &SessionId, item: &Item) -> Result<Self, StoreError> {
        let sequence = u64::try_from(get_number(item, "q")?).ok().and_then(Seq::new);
        let sequence = sequence.ok_or_else(|| corrupt(item, "q is no sequence"))?;
        Self::decode(session, sequence, get_binary(item, "p")?).map_err(|e| corrupt(item, e))
    }
}

impl DynamoStore {
    /// Moves a session's pointer, if that raises its sequence; otherwise does nothing.
    ///
    /// # Errors
    /// `Throttled`, `Unavailable`, `Unknown`; may be repeated after any of them.
    pub async fn advance_pointer(&self, tenant: &TenantId, pointer: &Pointer) -> Result<(), StoreError> {
        let record = &pointer.archived;
        let mut item = key(keys::session(tenant, &record.session_id), keys::POINTER);
        item.insert("q".into(), number(record.head.sequence.get()));
        item.insert("p".into(), binary(pointer.encode()));
        let done = retried(Again::IfUnknown, || {
            let request = self.client.put_item().table_name(&self.table).set_item(Some(item.clone()));
            let request = request
                .condition_expression("attribute_not_exists(pk) OR q < :q")
                .expression_attribute_values(":q", number(record.head.sequence.get()));
            async { request.send().await.map_err(CallError::from) }
        });
        match done.await {
            Ok(_) | Err(CallError::Condition(_)) => Ok(()),
            Err(error) => Err(refused(error)),
        }
    }

    /// Notes that a segment is archived: its batch, when it expires (s since 1970), and that it is out of the feed.
    /// Does nothing if the segment is not there any more or is another commit's.
    ///
    /// # Errors
    /// `Throttled`, `Unavailable`, `Unknown`; may be repeated after any of them.
    pub async fn mark_archived(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        meta: &SegmentMeta,
        batch: u64,
        expires_at: i64,
    ) -> Result<(), StoreError> {
        let pk = keys::session(tenant, session);
        let values: [(&str, AttributeValue); 3] =
            [(":m", binary(meta.encode())), (":a", number(batch)), (":ttl", number(expires_at))];
        // The parts first: once the commit item is out of the feed nobody would come back for them.
        let parts = (meta.body_bytes as usize).div_ceil(crate::limits::ITEM_BODY_BYTES_MAX);
        for part in 1..parts {
            let at = key(&pk, keys::part(meta.first, meta.commit_id, part));
            self.update_if_there(at, "SET #ttl = :ttl", "attribute_exists(pk)", &values[2..]).await?;
        }
        let at = key(&pk, keys::segment(meta.first));
        self.update_if_there(at, "SET a = :a, #ttl = :ttl REMOVE f, c", "m = :m", &values).await
    }

    async fn update_if_there(
        &self,
        at: Item,
        update: &str,
        condition: &str,
        values: &[(&str, AttributeValue)],
    ) -> Result<(), StoreError> {
        let done = retried(Again::IfUnknown, || {
            let mut request = self.client.update_item().table_name(&self.table).set_key(Some(at.clone()));
            request = request.update_expression(update).condition_expression(condition);
            request = request.expression_attribute_names("#ttl", "ttl");
            for (name, value) in values {
                request = request.expression_attribute_values(*name, value.clone());
            }
            async { request.send().await.map_err(CallError::from) }
        });
        match done.await {
            Ok(_) | Err(CallError::Condition(_)) => Ok(()),
            Err(error) => Err(refused(error)),
        }
    }
}
