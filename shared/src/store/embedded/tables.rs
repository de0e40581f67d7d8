//! The tables, and how redb's errors become ours. Keys are built by [`crate::store::keys`], records by
//! [`super::records`].

use std::panic::{AssertUnwindSafe, catch_unwind};

use redb::{ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition};

use crate::codec::{Cursor, Malformed, put_varint};
use crate::store::StoreError;

/// A table of bytes to bytes.
pub(super) type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;
/// Such a table, open for reading.
pub(super) type Reader = ReadOnlyTable<&'static [u8], &'static [u8]>;
/// Such a table, open for writing.
pub(super) type Writer<'t> = redb::Table<'t, &'static [u8], &'static [u8]>;

/// Segments: where the body lies, and the attributes.
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
/// Two facts about the database as a whole.
pub(super) const STATE: Definition = TableDefinition::new("state");

/// All tables of bytes to bytes.
pub(super) const ALL: [Definition; 13] = [
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
    STATE,
];

/// Key in [`STATE`]: the layout's version.
const FORMAT: &[u8] = b"format";
/// The version that this code writes and reads.
const FORMAT_VERSION: &[u8] = &[1];
/// Key in [`STATE`]: there once the first token was written.
pub(super) const BOOTSTRAPPED: &[u8] = b"bootstrapped";

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

/// Makes every table and the format's mark in a new database, checks them in another.
pub(super) fn prepare(db: &redb::Database) -> Result<(), StoreError> {
    let found = db.begin_read().map_err(fail)?.list_tables().map_err(fail)?.count();
    if found == 0 {
        // One transaction: after a crash there are all tables or none.
        let txn = db.begin_write().map_err(fail)?;
        for definition in ALL {
            txn.open_table(definition).map_err(fail)?;
        }
        txn.open_table(BODIES).map_err(fail)?;
        txn.open_table(STATE).map_err(fail)?.insert(FORMAT, FORMAT_VERSION).map_err(fail)?;
        txn.commit().map_err(fail)?;
    }
    check(db)
}

/// Checks the format's mark, and that no table is missing.
pub(super) fn check(db: &redb::Database) -> Result<(), StoreError> {
    let unfit = |why: &str| StoreError::Corrupt { key: "database".into(), why: why.into() };
    let view = Snapshot::new(db)?;
    match get(&view.table(STATE)?, FORMAT)?.as_deref() {
        Some(FORMAT_VERSION) => {}
        Some(_) => return Err(unfit("written by another version of Quipu")),
        None => return Err(unfit("it does not say its format")),
    }
    // One that is missing must be told, not made: it held something.
    for definition in ALL {
        view.table(definition)?;
    }
    view.bodies()?;
    Ok(())
}

/// One consistent view of the database.
pub(super) struct Snapshot(ReadTransaction);

impl Snapshot {
    /// The database as of now.
    pub(super) fn new(db: &redb::Database) -> Result<Self, StoreError> {
        db.begin_read().map(Self).map_err(fail)
    }

    /// One of its tables.
    pub(super) fn table(&self, definition: Definition) -> Result<Reader, StoreError> {
        self.0.open_table(definition).map_err(fail)
    }

    /// The log of body parts.
    pub(super) fn bodies(&self) -> Result<ReadOnlyTable<u64, &'static [u8]>, StoreError> {
        self.0.open_table(BODIES).map_err(fail)
    }
}

/// A copy of one value.
pub(super) fn get(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    key: &[u8],
) -> Result<Option<Vec<u8>>, StoreError> {
    Ok(table.get(key).map_err(fail)?.map(|value| value.value().to_vec()))
}

/// A row of [`SEGMENTS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentRow<'r> {
    /// Number of the body's first part.
    pub(super) place: u64,
    /// How many parts.
    pub(super) parts: u64,
    /// The encoded attributes.
    pub(super) attributes: &'r [u8],
}

const SEGMENT_ROW_VERSION: u8 = 0x01;

impl<'r> SegmentRow<'r> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.attributes.len() + 12);
        out.push(SEGMENT_ROW_VERSION);
        put_varint(&mut out, self.place);
        put_varint(&mut out, self.parts);
        out.extend_from_slice(self.attributes);
        out
    }

    pub(super) fn decode(bytes: &'r [u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor(bytes);
        if cursor.byte()? != SEGMENT_ROW_VERSION {
            return Err(Malformed("an unknown version of the row"));
        }
        Ok(Self { place: cursor.varint()?, parts: cursor.varint()?, attributes: cursor.0 })
    }
}
