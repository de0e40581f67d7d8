//! The tables, and how redb's errors become ours. Keys are built by [`crate::store::keys`], records by
//! [`super::records`].

use std::panic::{AssertUnwindSafe, catch_unwind};

use redb::{ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition};

use super::upgrade;
use crate::codec::{Cursor, Malformed, put_signed, put_varint};
use crate::limits;
use crate::store::{StoreError, keys};
use crate::time::Micros;

/// A table of bytes to bytes.
pub(super) type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;
/// Such a table, open for reading.
pub(super) type Reader = ReadOnlyTable<&'static [u8], &'static [u8]>;
/// Such a table, open for writing.
pub(super) type Writer<'t> = redb::Table<'t, &'static [u8], &'static [u8]>;

/// Segments: where the body lies, what became of it in the archive, and the attributes.
pub(super) const SEGMENTS: Definition = TableDefinition::new("segments");
/// The log of body parts, by number.
pub(super) const BODIES: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new("bodies");
/// Segments by commit: first sequence.
pub(super) const FEED: Definition = TableDefinition::new("feed");
/// Segments by span class and time: lowest time and first sequence.
pub(super) const TIMES: Definition = TableDefinition::new("times");
/// Session records.
pub(super) const SESSIONS: Definition = TableDefinition::new("sessions");
/// Sessions by first commit: nothing.
pub(super) const SESSION_ORDER: Definition = TableDefinition::new("session_order");
/// Agent records.
pub(super) const AGENTS: Definition = TableDefinition::new("agents");
/// Sessions of an agent by first commit: nothing.
pub(super) const AGENT_SESSIONS: Definition = TableDefinition::new("agent_sessions");
/// Idempotency records.
pub(super) const IDEMPOTENCY: Definition = TableDefinition::new("idempotency");
/// Idempotency keys by expiry: nothing.
pub(super) const IDEMPOTENCY_EXPIRY: Definition = TableDefinition::new("idempotency_expiry");
/// Token records (JSON) by hash.
pub(super) const TOKENS: Definition = TableDefinition::new("tokens");
/// Hashes of tokens by tenant and id.
pub(super) const TOKENS_BY_TENANT: Definition = TableDefinition::new("tokens_by_tenant");
/// Tenant records.
pub(super) const TENANTS: Definition = TableDefinition::new("tenants");
/// Segments that are not archived, by commit: bytes of their events, and first sequence.
pub(super) const OPEN: Definition = TableDefinition::new("open");
/// Pointers of sessions.
pub(super) const POINTERS: Definition = TableDefinition::new("pointers");
/// The catalogue of batches: whether it is recorded (a byte), and the record.
pub(super) const BATCHES: Definition = TableDefinition::new("batches");
/// Archived segments by the time at which they expire: nothing.
pub(super) const EXPIRY: Definition = TableDefinition::new("expiry");
/// Segments at which a session's chain is broken: when that was found.
pub(super) const BROKEN: Definition = TableDefinition::new("broken");
/// Erasures, those that are not done before those that are.
pub(super) const ERASURES: Definition = TableDefinition::new("erasures");
/// Facts about the database as a whole.
pub(super) const STATE: Definition = TableDefinition::new("state");

/// All tables of bytes to bytes.
pub(super) const ALL: [Definition; 19] = [
    SEGMENTS,
    FEED,
    TIMES,
    SESSIONS,
    SESSION_ORDER,
    AGENTS,
    AGENT_SESSIONS,
    IDEMPOTENCY,
    IDEMPOTENCY_EXPIRY,
    TOKENS,
    TOKENS_BY_TENANT,
    TENANTS,
    OPEN,
    POINTERS,
    BATCHES,
    EXPIRY,
    BROKEN,
    ERASURES,
    STATE,
];

/// Those that a database of version 1 lacks.
pub(super) const SINCE_VERSION_2: [Definition; 5] = [OPEN, POINTERS, BATCHES, EXPIRY, BROKEN];

/// Those that a database of version 2 lacks too.
pub(super) const SINCE_VERSION_3: [Definition; 1] = [ERASURES];

/// Key in [`STATE`]: the layout's version, one byte.
pub(super) const FORMAT: &[u8] = b"format";
/// Key in [`STATE`]: there once the first token was written.
pub(super) const BOOTSTRAPPED: &[u8] = b"bootstrapped";

/// Key in [`STATE`]: since when the ledger is closed ([`crate::store::keys::time`]), if it is.
pub(super) const CLOSED: &[u8] = b"closed";

/// What redb says, in our words.
pub(super) fn fail(error: impl Into<redb::Error>) -> StoreError {
    use redb::Error as E;
    match error.into() {
        E::Corrupted(why) => StoreError::Corrupt { key: "database".into(), why },
        error @ (E::TableDoesNotExist(_)
        | E::TableTypeMismatch { .. }
        | E::TableIsMultimap(_)
        | E::TableIsNotMultimap(_)
        | E::TypeDefinitionChanged { .. }
        | E::UpgradeRequired(_)
        | E::RepairAborted) => StoreError::Corrupt { key: "database".into(), why: error.to_string() },
        error => StoreError::Unavailable { why: error.to_string() },
    }
}

/// A row that cannot be what was written.
pub(super) fn corrupt(definition: Definition, key: &[u8], why: impl ToString) -> StoreError {
    use redb::TableHandle as _;
    StoreError::Corrupt { key: format!("{}/{}", definition.name(), key.escape_ascii()), why: why.to_string() }
}

/// Runs work that reads pages. redb trusts its pages once the file is open, and may panic over damaged ones.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(StoreError::Corrupt {
            key: "database".into(),
            why: "its pages do not fit together (redb panicked)".into(),
        })
    })
}

/// The layout of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    /// Without the tables of the archive.
    One,
    /// Without erasures.
    Two,
    /// What this code writes.
    Three,
}

impl Version {
    pub(super) fn mark(self) -> &'static [u8] {
        match self {
            Self::One => &[1],
            Self::Two => &[2],
            Self::Three => &[3],
        }
    }

    /// True if databases of this version have the table.
    pub(super) fn has(self, definition: Definition) -> bool {
        use redb::TableHandle as _;
        let is_in = |new: &[Definition]| new.iter().any(|new| new.name() == definition.name());
        !(self < Self::Two && is_in(&SINCE_VERSION_2) || self < Self::Three && is_in(&SINCE_VERSION_3))
    }
}

/// Makes every table and the format's mark in a new database, checks them in another, and brings an old one to this
/// version.
pub(super) fn prepare(db: &redb::Database) -> Result<(), StoreError> {
    let found = db.begin_read().map_err(fail)?.list_tables().map_err(fail)?.count();
    if found == 0 {
        // One transaction: after a crash there are all tables or none.
        let txn = db.begin_write().map_err(fail)?;
        for definition in ALL {
            txn.open_table(definition).map_err(fail)?;
        }
        txn.open_table(BODIES).map_err(fail)?;
        txn.open_table(STATE).map_err(fail)?.insert(FORMAT, Version::Three.mark()).map_err(fail)?;
        txn.commit().map_err(fail)?;
    }
    if check(db)? == Version::One {
        upgrade::from_version_1(db)?;
    }
    if check(db)? == Version::Two {
        upgrade::from_version_2(db)?;
        check(db)?;
    }
    Ok(())
}

/// Checks the format's mark, and that no table of that version is missing.
pub(super) fn check(db: &redb::Database) -> Result<Version, StoreError> {
    let unfit = |why: &str| StoreError::Corrupt { key: "database".into(), why: why.into() };
    let view = Snapshot::new(db)?;
    let version = match get(&view.table(STATE)?, FORMAT)?.as_deref() {
        Some([1]) => Version::One,
        Some([2]) => Version::Two,
        Some([3]) => Version::Three,
        Some(_) => return Err(unfit("written by another version of Quipu")),
        None => return Err(unfit("it does not say its format")),
    };
    // One that is missing must be told, not made: it held something.
    for definition in ALL {
        if version.has(definition) {
            view.table(definition)?;
        }
    }
    view.bodies()?;
    Ok(version)
}

/// See [`crate::store::Store::closed`].
pub(super) fn closed(view: &Snapshot) -> Result<Option<Micros>, StoreError> {
    let Some(value) = get(&view.table(STATE)?, CLOSED)? else { return Ok(None) };
    let since = <[u8; 8]>::try_from(value.as_slice()).ok().and_then(keys::read_time);
    since.map(Some).ok_or_else(|| corrupt(STATE, CLOSED, "not a time"))
}

/// See [`crate::store::Store::set_closed`].
pub(super) fn set_closed(txn: &redb::WriteTransaction, since: Option<Micros>) -> Result<(), StoreError> {
    let mut state = txn.open_table(STATE).map_err(fail)?;
    match since {
        None => drop(state.remove(CLOSED).map_err(fail)?),
        Some(_) if state.get(CLOSED).map_err(fail)?.is_some() => {}
        Some(since) => drop(state.insert(CLOSED, keys::time(since).as_slice()).map_err(fail)?),
    }
    Ok(())
}

/// One consistent view of the database.
pub(super) struct Snapshot {
    txn: ReadTransaction,
    /// What has expired by then is not shown; `None` shows all.
    now: Option<Micros>,
}

impl Snapshot {
    /// The database as it is, with all that has expired and is still there.
    pub(super) fn new(db: &redb::Database) -> Result<Self, StoreError> {
        Ok(Self { txn: db.begin_read().map_err(fail)?, now: None })
    }

    /// The database as it is at this time.
    pub(super) fn at(db: &redb::Database, now: Micros) -> Result<Self, StoreError> {
        Ok(Self { txn: db.begin_read().map_err(fail)?, now: Some(now) })
    }

    /// True unless the segment of this row has expired.
    pub(super) fn shows(&self, row: &SegmentRow<'_>) -> bool {
        let expires_at = row.archived.and_then(|archived| archived.expires_at);
        match (self.now, expires_at) {
            (Some(now), Some(at)) => now < at.plus_ms(-limits::EXPIRY_MARGIN_MS),
            _ => true,
        }
    }

    /// One of its tables.
    pub(super) fn table(&self, definition: Definition) -> Result<Reader, StoreError> {
        self.txn.open_table(definition).map_err(fail)
    }

    /// The log of body parts.
    pub(super) fn bodies(&self) -> Result<ReadOnlyTable<u64, &'static [u8]>, StoreError> {
        self.txn.open_table(BODIES).map_err(fail)
    }
}

/// A copy of one value.
pub(super) fn get(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    key: &[u8],
) -> Result<Option<Vec<u8>>, StoreError> {
    Ok(table.get(key).map_err(fail)?.map(|value| value.value().to_vec()))
}

/// What became of a segment in the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Archived {
    /// The batch that holds it.
    pub batch: u64,
    /// When it expires; `None`: never.
    pub expires_at: Option<Micros>,
}

/// A row of [`SEGMENTS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentRow<'r> {
    /// Number of the body's first part.
    pub(super) place: u64,
    /// How many parts.
    pub(super) parts: u64,
    /// There once it is archived.
    pub(super) archived: Option<Archived>,
    /// The encoded attributes.
    pub(super) attributes: &'r [u8],
}

/// Of a segment that is not archived.
const OPEN_ROW: u8 = 0x01;
/// Of one that is: the batch and the expiry stand between parts and attributes.
const ARCHIVED_ROW: u8 = 0x02;

impl<'r> SegmentRow<'r> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.attributes.len() + 32);
        out.push(if self.archived.is_some() { ARCHIVED_ROW } else { OPEN_ROW });
        put_varint(&mut out, self.place);
        put_varint(&mut out, self.parts);
        if let Some(Archived { batch, expires_at }) = self.archived {
            put_varint(&mut out, batch);
            out.push(u8::from(expires_at.is_some()));
            if let Some(at) = expires_at {
                put_signed(&mut out, at.get());
            }
        }
        out.extend_from_slice(self.attributes);
        out
    }

    pub(super) fn decode(bytes: &'r [u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor(bytes);
        let version = cursor.byte()?;
        let (place, parts) = (cursor.varint()?, cursor.varint()?);
        let archived = match version {
            OPEN_ROW => None,
            ARCHIVED_ROW => {
                let batch = cursor.varint()?;
                let expires_at = match cursor.byte()? {
                    0 => None,
                    1 => Some(Micros::new(cursor.signed()?).ok_or(Malformed("a time out of range"))?),
                    _ => return Err(Malformed("a flag that is neither 0 nor 1")),
                };
                Some(Archived { batch, expires_at })
            }
            _ => return Err(Malformed("an unknown version of the row")),
        };
        Ok(Self { place, parts, archived, attributes: cursor.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn segment_rows(
            place: u64, parts: u64, attributes: Vec<u8>,
            archived in proptest::option::of((any::<u64>(),
                proptest::option::of(Micros::MIN.get()..=Micros::MAX.get()))),
        ) {
            let archived = archived
                .map(|(batch, at)| Archived { batch, expires_at: at.map(|at| Micros::new(at).unwrap()) });
            let row = SegmentRow { place, parts, archived, attributes: &attributes };
            let bytes = row.encode();
            prop_assert_eq!(SegmentRow::decode(&bytes), Ok(row));
        }

        #[test]
        fn no_segment_row_panics(bytes: Vec<u8>) {
            let _ = SegmentRow::decode(&bytes);
        }
    }

    /// Rows of segments that are not archived are those of version 1.
    #[test]
    fn golden() {
        let mut row = SegmentRow { place: 300, parts: 2, archived: None, attributes: &[7, 8] };
        assert_eq!(row.encode(), [1, 0xac, 2, 2, 7, 8]);
        row.archived = Some(Archived { batch: 5, expires_at: None });
        assert_eq!(row.encode(), [2, 0xac, 2, 2, 5, 0, 7, 8]);
        row.archived = Some(Archived { batch: 5, expires_at: Micros::new(-1) });
        assert_eq!(row.encode(), [2, 0xac, 2, 2, 5, 1, 1, 7, 8]);
    }
}
