//! What the archiver writes: pointers, what is archived and when it expires, the catalogue; and expiry itself.
//!
//! Invariants:
//! - A segment is open until it is marked archived, in the same transaction.
//! - A row of `expiry` stands for every segment that has a time in its row, and no other.
//! - Nothing is deleted that is above its session's pointer, whatever its row says.

use redb::{ReadableTable as _, Table};

use super::apply::{Group, put};
use super::tables::{self, Archived, SegmentRow, corrupt, fail, get};
use super::{bodies, derived, reads, records};
use crate::ids::{Seq, SessionId, TenantId};
use crate::segment::SegmentMeta;
use crate::store::{BatchRecord, Conflict, Pointer, StoreError, keys};
use crate::time::Micros;

/// A write of the writer's thread that the archiver asks for. See the methods of [`crate::store::Store`].
pub(super) enum Archive {
    Advance { tenant: TenantId, pointer: Pointer },
    Mark(Mark),
    Broken { tenant: TenantId, session: SessionId, first: Seq, at: Micros },
    PutBatch { tenant: TenantId, batch: BatchRecord },
    Recorded { tenant: TenantId, batch: u64 },
    Close { since: Option<Micros> },
    Expire { now: Micros, limit: usize },
}

/// See [`crate::store::Store::mark_archived`].
pub(super) struct Mark {
    pub(super) tenant: TenantId,
    pub(super) session: SessionId,
    pub(super) meta: SegmentMeta,
    pub(super) archived: Archived,
}

/// How many rows a request is about, where that is asked for. The inner error refuses this request alone and comes
/// before its first write; the outer one says that the transaction must be given up.
type Applied = Result<Result<usize, StoreError>, StoreError>;

impl Group<'_> {
    /// Applies one.
    pub(super) fn archive(&mut self, work: &Archive) -> Applied {
        match work {
            Archive::Advance { tenant, pointer } => self.advance(tenant, pointer),
            Archive::Mark(mark) => self.mark(mark),
            Archive::Broken { tenant, session, first, at } => {
                let mut table = self.txn.open_table(tables::BROKEN).map_err(fail)?;
                let key = keys::segment(tenant, session, *first);
                if table.get(key.as_slice()).map_err(fail)?.is_some() {
                    return Ok(Ok(0));
                }
                put(&mut table, &key, &records::encode_broken(*at))?;
                Ok(Ok(1))
            }
            Archive::PutBatch { tenant, batch } => {
                let mut table = self.txn.open_table(tables::BATCHES).map_err(fail)?;
                let key = keys::batch(tenant, batch.batch);
                if table.get(key.as_slice()).map_err(fail)?.is_some() {
                    return Ok(Err(StoreError::Conflict(Conflict::Exists)));
                }
                put(&mut table, &key, &[&[0], batch.encode().as_slice()].concat())?;
                Ok(Ok(1))
            }
            Archive::Recorded { tenant, batch } => {
                let mut table = self.txn.open_table(tables::BATCHES).map_err(fail)?;
                let key = keys::batch(tenant, *batch);
                let Some(mut value) = get(&table, &key)? else { return Ok(Err(StoreError::NotFound)) };
                match value.first_mut() {
                    Some(flag) => *flag = 1,
                    None => return Ok(Err(corrupt(tables::BATCHES, &key, "it is empty"))),
                }
                put(&mut table, &key, &value)?;
                Ok(Ok(1))
            }
            Archive::Close { since } => tables::set_closed(self.txn, *since).map(|()| Ok(1)),
            Archive::Expire { now, limit } => self.expire(*now, *limit),
        }
    }

    fn advance(&mut self, tenant: &TenantId, pointer: &Pointer) -> Applied {
        let session = &pointer.archived.session_id;
        match reads::pointer(&self.pointers, tenant, session) {
            Err(damaged) => return Ok(Err(damaged)),
            Ok(Some(before)) if before.archived.head.sequence >= pointer.archived.head.sequence => {
                return Ok(Ok(0));
            }
            // It was made from one that still had what was erased.
            Ok(Some(before)) if before.scrubbed > pointer.scrubbed => {
                return Ok(Err(StoreError::Conflict(Conflict::Changed)));
            }
            Ok(_) => {}
        }
        let pointer = match self.without_erased(tenant, pointer)? {
            Ok(pointer) => pointer,
            Err(damaged) => return Ok(Err(damaged)),
        };
        if let Err(damaged) = self.keep_archived(tenant, &pointer.archived)? {
            return Ok(Err(damaged));
        }
        put(&mut self.pointers, &keys::session(tenant, session), &pointer.encode())?;
        Ok(Ok(1))
    }

    fn mark(&mut self, mark: &Mark) -> Applied {
        let Mark { tenant, session, meta, archived } = mark;
        let key = keys::segment(tenant, session, meta.first);
        let Some(value) = get(&self.segments, &key)? else { return Ok(Ok(0)) };
        let (mut row, stored) = match reads::decode_row(&key, &value) {
            Ok(read) => read,
            Err(damaged) => return Ok(Err(damaged)),
        };
        if stored.commit_id != meta.commit_id {
            return Ok(Ok(0));
        }
        let known = row.archived.and_then(|before| before.expires_at);
        let archived = Archived { batch: archived.batch, expires_at: known.or(archived.expires_at) };
        if row.archived == Some(archived) {
            return Ok(Ok(0));
        }
        row.archived = Some(archived);
        put(&mut self.segments, &key, &row.encode())?;
        self.open.remove(keys::open(tenant, meta.commit_id, session).as_slice()).map_err(fail)?;
        if let (None, Some(at)) = (known, archived.expires_at) {
            let mut expiry = self.txn.open_table(tables::EXPIRY).map_err(fail)?;
            put(&mut expiry, &keys::segment_expiry(at, &key), &[])?;
        }
        Ok(Ok(1))
    }

    /// Deletes what has expired. A row that does not fit is left as it is and told: it is no reason to keep the others.
    fn expire(&mut self, now: Micros, limit: usize) -> Applied {
        let mut expiry = self.txn.open_table(tables::EXPIRY).map_err(fail)?;
        let end = keys::time(now);
        let mut found: Vec<Vec<u8>> = Vec::new();
        let mut misfits = 0u64;
        for row in expiry.range::<&[u8]>(..end.as_slice()).map_err(fail)? {
            if found.len() == limit {
                break;
            }
            let (key, _) = row.map_err(fail)?;
            match self.may_go(key.value()) {
                Ok(()) => found.push(key.value().to_vec()),
                Err(why) => {
                    misfits += 1;
                    if misfits == 1 {
                        tracing::error!(key = %key.value().escape_ascii(), %why, "an expired segment stays");
                    }
                }
            }
        }
        if misfits > 1 {
            tracing::error!(count = misfits, "expired segments that stay");
        }
        let mut done = 0;
        for key in &found {
            done += usize::from(self.delete(&mut expiry, key)?);
        }
        Ok(Ok(done))
    }

    /// Why the segment of a row of `expiry` must stay, if it must.
    fn may_go(&self, expiry: &[u8]) -> Result<(), StoreError> {
        let misfit = |why: &str| corrupt(tables::EXPIRY, expiry, why);
        let (at, key) = keys::read_segment_expiry(expiry).ok_or_else(|| misfit("not a key of this table"))?;
        let (tenant, session, _) = keys::read_segment(key).ok_or_else(|| misfit("not a segment's key"))?;
        let value = get(&self.segments, key)?.ok_or_else(|| misfit("no such segment"))?;
        let (row, meta) = reads::decode_row(key, &value)?;
        if row.archived.and_then(|archived| archived.expires_at) != Some(at) {
            return Err(misfit("the segment's row has another time"));
        }
        let pointer = reads::pointer(&self.pointers, &tenant, &session)?;
        if pointer.is_some_and(|pointer| pointer.archived.head.sequence >= meta.last) {
            Ok(())
        } else {
            Err(misfit("the segment is above its session's pointer: it is not archived"))
        }
    }

    /// Deletes a segment with all that names it. True if it is gone.
    fn delete(
        &mut self,
        table: &mut Table<'_, &'static [u8], &'static [u8]>,
        expiry: &[u8],
    ) -> Result<bool, StoreError> {
        let Some((_, key)) = keys::read_segment_expiry(expiry) else { return Ok(false) };
        let Some((tenant, session, _)) = keys::read_segment(key) else { return Ok(false) };
        let Some(value) = get(&self.segments, key)? else { return Ok(false) };
        let SegmentRow { place, parts, .. } =
            SegmentRow::decode(&value).map_err(|e| corrupt(tables::SEGMENTS, key, e))?;
        let (_, meta) = reads::decode_row(key, &value)?;
        if let Err(why) = bodies::remove(&mut self.bodies, place, parts, meta.body_bytes)? {
            tracing::error!(key = %key.escape_ascii(), %why, "an expired segment stays");
            return Ok(false);
        }
        self.segments.remove(key).map_err(fail)?;
        self.feed.remove(derived::feed_row(&tenant, &session, &meta).0.as_slice()).map_err(fail)?;
        self.times.remove(derived::time_row(&tenant, &session, &meta).0.as_slice()).map_err(fail)?;
        table.remove(expiry).map_err(fail)?;
        Ok(true)
    }
}
