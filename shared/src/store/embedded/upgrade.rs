//! A database of version 1, from before there was an archive, becomes one of version 2: nothing of it is archived yet, so
//! every segment is open. One of version 2 becomes one of version 3: nothing of it is being erased.

use redb::{Database, ReadableTable as _};

use super::tables::{self, SINCE_VERSION_2, SINCE_VERSION_3, SegmentRow, Version, corrupt, fail, get};
use super::{bodies, records};
use crate::segment::{FRONT_BYTES_MAX, unpacked_bytes};
use crate::store::{StoreError, keys};

/// Makes the tables of the archive and fills them, in one transaction: after a crash the database is of the one version
/// or of the other.
pub(super) fn from_version_1(db: &Database) -> Result<(), StoreError> {
    tracing::info!("bringing the store to a new version");
    let txn = db.begin_write().map_err(fail)?;
    for definition in SINCE_VERSION_2 {
        txn.open_table(definition).map_err(fail)?;
    }
    {
        let feed = txn.open_table(tables::FEED).map_err(fail)?;
        let segments = txn.open_table(tables::SEGMENTS).map_err(fail)?;
        let parts = txn.open_table(tables::BODIES).map_err(fail)?;
        let mut open = txn.open_table(tables::OPEN).map_err(fail)?;
        for row in feed.iter().map_err(fail)? {
            let (key, value) = row.map_err(fail)?;
            let damaged = |why: &str| corrupt(tables::FEED, key.value(), why);
            let (tenant, commit, session) =
                keys::read_feed(key.value()).ok_or_else(|| damaged("not a feed's key"))?;
            let first = records::decode_feed(value.value()).map_err(|e| damaged(e.0))?;
            let segment = keys::segment(&tenant, &session, first);
            let row = get(&segments, &segment)?.ok_or_else(|| damaged("no such segment"))?;
            let row = SegmentRow::decode(&row).map_err(|e| corrupt(tables::SEGMENTS, &segment, e))?;
            let front = bodies::read_front(&parts, row.place, row.parts, FRONT_BYTES_MAX)?;
            let key = keys::open(&tenant, commit, &session);
            let value = records::encode_open(unpacked_bytes(&front), first);
            open.insert(key.as_slice(), value.as_slice()).map_err(fail)?;
        }
        let mut state = txn.open_table(tables::STATE).map_err(fail)?;
        state.insert(tables::FORMAT, Version::Two.mark()).map_err(fail)?;
    }
    txn.commit().map_err(fail)
}

/// Makes the table of erasures, in one transaction.
pub(super) fn from_version_2(db: &Database) -> Result<(), StoreError> {
    tracing::info!("bringing the store to a new version");
    let txn = db.begin_write().map_err(fail)?;
    for definition in SINCE_VERSION_3 {
        txn.open_table(definition).map_err(fail)?;
    }
    {
        let mut state = txn.open_table(tables::STATE).map_err(fail)?;
        state.insert(tables::FORMAT, Version::Three.mark()).map_err(fail)?;
    }
    txn.commit().map_err(fail)
}
