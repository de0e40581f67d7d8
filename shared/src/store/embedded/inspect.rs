//! The store's rows as they lie in the file, for a verifier that trusts none of them.
//!
//! The file is never modified ([`super::overlay`]), and a panic of redb over damaged pages is told as
//! [`StoreError::Corrupt`]. Works on a copy, on a directory that no server has open, and on what a kill left.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::{Database, ReadableTableMetadata as _};

use super::overlay::Overlay;
use super::tables::{
    self, Archived, Definition, Reader, SegmentRow, Snapshot, Version, corrupt, fail, guarded,
};
use super::{bodies, reads, records};
use crate::ids::{CommitId, Seq, SessionId, TenantId};
use crate::store::{BatchRecord, Pointer, SessionRecord, StoreError, TenantRecord, keys};
use crate::time::Micros;

/// Memory for pages while inspecting, bytes.
const CACHE_BYTES: usize = 64 * 1024 * 1024;

/// Key and value, as stored.
pub type RawRow = (Vec<u8>, Vec<u8>);

/// A table that [`Inspector::rows`] can walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InspectTable {
    /// Segments (place of the body and attributes) by tenant, session, first sequence.
    Segments,
    /// The feed: first sequence by tenant, commit, session.
    Feed,
    /// The time index.
    Times,
    /// Session records by tenant and session.
    Sessions,
    /// Sessions by tenant and first commit.
    SessionOrder,
    /// Agent records by tenant and agent.
    Agents,
    /// Sessions of agents.
    AgentSessions,
    /// Idempotency records.
    Idempotency,
    /// Token records.
    Tokens,
    /// Tenant records.
    Tenants,
    /// Segments that are not archived, by tenant, commit, session: bytes before compression, first sequence.
    Open,
    /// Pointers by tenant and session.
    Pointers,
    /// The catalogue: by tenant and number.
    Batches,
    /// Archived segments by the time at which they expire.
    Expiry,
    /// Segments at which a chain is broken, by tenant, session, first sequence.
    Broken,
    /// Erasures by tenant, whether they are done, and event.
    Erasures,
}

impl InspectTable {
    /// Its table.
    pub(super) const fn definition(self) -> Definition {
        match self {
            Self::Segments => tables::SEGMENTS,
            Self::Feed => tables::FEED,
            Self::Times => tables::TIMES,
            Self::Sessions => tables::SESSIONS,
            Self::SessionOrder => tables::SESSION_ORDER,
            Self::Agents => tables::AGENTS,
            Self::AgentSessions => tables::AGENT_SESSIONS,
            Self::Idempotency => tables::IDEMPOTENCY,
            Self::Tokens => tables::TOKENS,
            Self::Tenants => tables::TENANTS,
            Self::Open => tables::OPEN,
            Self::Pointers => tables::POINTERS,
            Self::Batches => tables::BATCHES,
            Self::Expiry => tables::EXPIRY,
            Self::Broken => tables::BROKEN,
            Self::Erasures => tables::ERASURES,
        }
    }
}

/// One segment as stored. The body may be damaged while the rest is not.
#[derive(Debug, Clone)]
pub struct StoredSegment {
    /// First sequence, from the key.
    pub first: Seq,
    /// The encoded attributes.
    pub attributes: Vec<u8>,
    /// The body.
    pub body: Result<Vec<u8>, StoreError>,
    /// How many parts the body lies in.
    pub body_parts: u64,
    /// There if it is archived.
    pub archived: Option<Archived>,
}

/// An open file.
pub struct Inspector {
    path: PathBuf,
    // Dropped in this order, by hand: see `drop`.
    view: Option<Snapshot>,
    db: Option<Database>,
    rolled_back: bool,
    version: Version,
}

impl std::fmt::Debug for Inspector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Inspector({})", self.path.display())
    }
}

/// Opens the file under an overlay. The second is true if its last commit did not verify and was taken back.
fn open(path: &Path) -> Result<(Database, bool), StoreError> {
    let unreadable = |e| StoreError::Unavailable { why: format!("{}: {e}", path.display()) };
    let overlay = Overlay::open(path).map_err(unreadable)?;
    // redb would make a new database of an empty file.
    if redb::StorageBackend::len(&overlay).map_err(unreadable)? == 0 {
        return Err(StoreError::Corrupt { key: "database".into(), why: "the file is empty".into() });
    }
    let rolled_back = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&rolled_back);
    let db = guarded(|| {
        redb::Database::builder()
            .set_cache_size(CACHE_BYTES)
            .set_repair_callback(move |repair| {
                // redb reports 0.3 exactly if the last commit failed its checksums, before it falls back to the
                // one before it (the tests hold it to that).
                if repair.progress() > 0.2 && repair.progress() < 0.4 {
                    flag.store(true, Ordering::Relaxed);
                }
            })
            .create_with_backend(overlay)
            .map_err(|e| match fail(e) {
                // Whatever redb cannot make sense of in a file that can be read is damage.
                StoreError::Unavailable { why } => StoreError::Corrupt { key: "database".into(), why },
                other => other,
            })
    })?;
    let rolled_back = rolled_back.load(Ordering::Relaxed);
    Ok((db, rolled_back))
}

impl Inspector {
    /// Opens a store's file for reading.
    ///
    /// # Errors
    /// `Unavailable` if the file cannot be read; `Corrupt` if it is not a database or is damaged beyond reading.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let (db, rolled_back) = open(path)?;
        let version = Version::Three;
        let mut this = Self { path: path.to_owned(), view: None, db: Some(db), rolled_back, version };
        let (version, view) = guarded(|| {
            let db = this.db.as_ref().ok_or(StoreError::NotFound)?;
            Ok((tables::check(db)?, Snapshot::new(db)?))
        })?;
        this.version = version;
        this.view = Some(view);
        Ok(this)
    }

    /// True if the last commit failed its checksums and what is shown is the one before it: a commit that a crash of
    /// the machine cut off (which was never acknowledged), or damage.
    pub fn was_rolled_back(&self) -> bool {
        self.rolled_back
    }

    /// Runs redb's own check over a second view of the file: the checksum of every page. False says that it did not
    /// pass as it is.
    ///
    /// # Errors
    /// `Corrupt` if it did not pass at all.
    pub fn checksums(&self) -> Result<bool, StoreError> {
        let (mut db, rolled_back) = open(&self.path)?;
        let checked = guarded(|| db.check_integrity().map_err(fail));
        let _ = guarded(move || {
            drop(db);
            Ok(())
        });
        Ok(checked? && !rolled_back)
    }

    /// False for the tables of the archive in a file from before there was one: they read as empty.
    pub(super) fn has(&self, table: InspectTable) -> bool {
        self.version.has(table.definition())
    }

    pub(super) fn view(&self) -> Result<&Snapshot, StoreError> {
        self.view.as_ref().ok_or(StoreError::NotFound)
    }

    pub(super) fn table(&self, definition: Definition) -> Result<Reader, StoreError> {
        guarded(|| self.view()?.table(definition))
    }

    /// The rows of a table whose keys begin with `prefix`, in order.
    ///
    /// # Errors
    /// `Corrupt`, `Unavailable`.
    pub fn rows(&self, table: InspectTable, prefix: &[u8]) -> Result<RawRows<'_>, StoreError> {
        if !self.has(table) {
            return Ok(RawRows { rows: None, _inspector: self });
        }
        let reader = self.table(table.definition())?;
        let end = keys::after_prefix(prefix);
        let end = if end.is_empty() { Bound::Unbounded } else { Bound::Excluded(end.as_slice()) };
        let rows = guarded(|| reader.range::<&[u8]>((Bound::Included(prefix), end)).map_err(fail))?;
        Ok(RawRows { rows: Some(rows), _inspector: self })
    }

    /// One row's value.
    ///
    /// # Errors
    /// `Corrupt`, `Unavailable`.
    pub fn get(&self, table: InspectTable, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        if !self.has(table) {
            return Ok(None);
        }
        guarded(|| tables::get(&self.view()?.table(table.definition())?, key))
    }

    /// How many rows a table says it has.
    ///
    /// # Errors
    /// `Corrupt`, `Unavailable`.
    pub fn count(&self, table: InspectTable) -> Result<u64, StoreError> {
        if !self.has(table) {
            return Ok(0);
        }
        guarded(|| self.view()?.table(table.definition())?.len().map_err(fail))
    }

    /// How many body parts there are. Those of all segments together must be as many.
    ///
    /// # Errors
    /// `Corrupt`, `Unavailable`.
    pub fn body_part_count(&self) -> Result<u64, StoreError> {
        guarded(|| self.view()?.bodies()?.len().map_err(fail))
    }

    /// The tenants that were made (loopback's `default` need not have been).
    ///
    /// # Errors
    /// `Corrupt`, `Unavailable`.
    pub fn tenants(&self) -> Result<Vec<TenantRecord>, StoreError> {
        guarded(|| super::tokens::tenants(self.view()?))
    }

    /// Since when the ledger is closed, if it is.
    ///
    /// # Errors
    /// `Corrupt`, `Unavailable`.
    pub fn closed(&self) -> Result<Option<Micros>, StoreError> {
        guarded(|| tables::closed(self.view()?))
    }

    /// Every session of every tenant that any table knows, sorted by tenant and session bytes (with the zero bytes
    /// of [`keys::session`]).
    ///
    /// # Errors
    /// `Corrupt` if a key cannot be one.
    pub fn sessions(&self) -> Result<Sessions<'_>, StoreError> {
        let mut strays = BTreeSet::new();
        let mut stray = |tenant: &TenantId, session: &SessionId| -> Result<(), StoreError> {
            let key = keys::session(tenant, session);
            let known = self.get(InspectTable::Sessions, &key)?.is_some()
                || self.rows(InspectTable::Segments, &key)?.next().transpose()?.is_some();
            if !known {
                strays.insert(key);
            }
            Ok(())
        };
        for table in [InspectTable::Feed, InspectTable::SessionOrder, InspectTable::Open] {
            for row in self.rows(table, &[])? {
                let (key, _) = row?;
                let read = keys::read_feed(&key);
                let (tenant, _, session) = read.ok_or_else(|| bad_key(table, &key))?;
                stray(&tenant, &session)?;
            }
        }
        for row in self.rows(InspectTable::Times, &[])? {
            let (key, _) = row?;
            let at = keys::read_time_index(&key).ok_or_else(|| bad_key(InspectTable::Times, &key))?;
            stray(&at.tenant, &at.session_id)?;
        }
        for row in self.rows(InspectTable::AgentSessions, &[])? {
            let (key, _) = row?;
            let read = keys::read_agent_session(&key);
            let (tenant, _, _, session) = read.ok_or_else(|| bad_key(InspectTable::AgentSessions, &key))?;
            stray(&tenant, &session)?;
        }
        for row in self.rows(InspectTable::Pointers, &[])? {
            let (key, _) = row?;
            let (tenant, session) =
                keys::read_session(&key).ok_or_else(|| bad_key(InspectTable::Pointers, &key))?;
            stray(&tenant, &session)?;
        }
        for table in [InspectTable::Expiry, InspectTable::Broken] {
            for row in self.rows(table, &[])? {
                let (key, _) = row?;
                let segment = match table {
                    InspectTable::Expiry => keys::read_segment_expiry(&key).map(|(_, segment)| segment),
                    _ => Some(key.as_slice()),
                };
                let read = segment.and_then(keys::read_segment);
                let (tenant, session, _) = read.ok_or_else(|| bad_key(table, &key))?;
                stray(&tenant, &session)?;
            }
        }
        Ok(Sessions { inspector: self, after: Some(Vec::new()), strays })
    }

    /// A session's stored record; `None` if it has none.
    ///
    /// # Errors
    /// `Corrupt` if it does not decode.
    pub fn session_record(
        &self,
        tenant: &TenantId,
        session: &SessionId,
    ) -> Result<Option<SessionRecord>, StoreError> {
        let key = keys::session(tenant, session);
        let Some(bytes) = self.get(InspectTable::Sessions, &key)? else { return Ok(None) };
        let record = records::decode_session(session.clone(), &bytes);
        record.map(Some).map_err(|e| corrupt(tables::SESSIONS, &key, e))
    }

    /// How far a session is archived; `None` if nothing of it is.
    ///
    /// # Errors
    /// `Corrupt` if it does not decode.
    pub fn pointer(&self, tenant: &TenantId, session: &SessionId) -> Result<Option<Pointer>, StoreError> {
        let key = keys::session(tenant, session);
        let Some(bytes) = self.get(InspectTable::Pointers, &key)? else { return Ok(None) };
        let pointer = Pointer::decode(session, &bytes);
        pointer.map(Some).map_err(|e| corrupt(tables::POINTERS, &key, e))
    }

    /// All pointers of all tenants, in the order of their keys.
    ///
    /// # Errors
    /// `Corrupt`, `Unavailable`; an element is `Corrupt` if its row does not decode.
    pub fn pointers(
        &self,
    ) -> Result<impl Iterator<Item = Result<(TenantId, Pointer), StoreError>> + use<'_>, StoreError> {
        let rows = self.rows(InspectTable::Pointers, &[])?;
        Ok(rows.map(|row| {
            let (key, value) = row?;
            let read = keys::read_session(&key);
            let (tenant, session) = read.ok_or_else(|| bad_key(InspectTable::Pointers, &key))?;
            let pointer = Pointer::decode(&session, &value);
            pointer.map(|pointer| (tenant, pointer)).map_err(|e| corrupt(tables::POINTERS, &key, e))
        }))
    }

    /// A tenant's catalogue of batches, by number.
    ///
    /// # Errors
    /// `Corrupt`, `Unavailable`; an element is `Corrupt` if its row does not decode.
    pub fn batches(
        &self,
        tenant: &TenantId,
    ) -> Result<impl Iterator<Item = Result<BatchRecord, StoreError>> + use<'_>, StoreError> {
        let rows = self.rows(InspectTable::Batches, &keys::tenant(tenant))?;
        Ok(rows.map(|row| {
            let (key, value) = row?;
            reads::decode_batch(&key, &value)
        }))
    }

    /// What is noted of a segment that is not archived: bytes of its events before compression, and its first sequence.
    /// `None` if the commit has no open segment in this session.
    ///
    /// # Errors
    /// `Corrupt` if it does not decode.
    pub fn open_segment(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        commit: CommitId,
    ) -> Result<Option<(u64, Seq)>, StoreError> {
        let key = keys::open(tenant, commit, session);
        let Some(value) = self.get(InspectTable::Open, &key)? else { return Ok(None) };
        records::decode_open(&value).map(Some).map_err(|e| corrupt(tables::OPEN, &key, e))
    }

    /// A session's segments with their bodies, in the order of their keys.
    ///
    /// # Errors
    /// `Corrupt`, `Unavailable`.
    pub fn segments<'i>(
        &'i self,
        tenant: &TenantId,
        session: &SessionId,
    ) -> Result<impl Iterator<Item = Result<StoredSegment, StoreError>> + use<'i>, StoreError> {
        let rows = self.rows(InspectTable::Segments, &keys::session(tenant, session))?;
        let parts = guarded(|| self.view()?.bodies())?;
        Ok(rows.map(move |row| {
            let (key, value) = row?;
            let read = keys::read_segment(&key);
            let (_, _, first) = read.ok_or_else(|| bad_key(InspectTable::Segments, &key))?;
            let row = SegmentRow::decode(&value).map_err(|e| corrupt(tables::SEGMENTS, &key, e))?;
            let body = guarded(|| {
                bodies::read(&parts, row.place, row.parts)?
                    .map_err(|why| corrupt(tables::SEGMENTS, &key, why))
            });
            Ok(StoredSegment {
                first,
                attributes: row.attributes.to_vec(),
                body,
                body_parts: row.parts,
                archived: row.archived,
            })
        }))
    }
}

impl Drop for Inspector {
    fn drop(&mut self) {
        let (view, db) = (self.view.take(), self.db.take());
        let _ = guarded(move || {
            drop(view);
            drop(db);
            Ok(())
        });
    }
}

fn bad_key(table: InspectTable, key: &[u8]) -> StoreError {
    corrupt(table.definition(), key, "not a key of this table")
}

/// See [`Inspector::rows`]. After an error there is no more.
pub struct RawRows<'i> {
    rows: Option<redb::Range<'static, &'static [u8], &'static [u8]>>,
    /// The rows' pages live as long as its view.
    _inspector: &'i Inspector,
}

impl std::fmt::Debug for RawRows<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RawRows")
    }
}

impl Iterator for RawRows<'_> {
    type Item = Result<RawRow, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rows = self.rows.as_mut()?;
        let row = guarded(|| {
            let row = rows.next().transpose().map_err(fail)?;
            Ok(row.map(|(key, value)| (key.value().to_vec(), value.value().to_vec())))
        });
        if !matches!(row, Ok(Some(_))) {
            self.rows = None;
        }
        row.transpose()
    }
}

/// See [`Inspector::sessions`]. After an error there is no more.
#[derive(Debug)]
pub struct Sessions<'i> {
    inspector: &'i Inspector,
    /// Keys below this were given; `None` at the end.
    after: Option<Vec<u8>>,
    strays: BTreeSet<Vec<u8>>,
}

impl Sessions<'_> {
    /// The session of the first key at or above `from`.
    fn first_in(&self, table: InspectTable, from: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let reader = self.inspector.table(table.definition())?;
        let row = guarded(|| {
            let row = reader.range(from..).map_err(fail)?.next().transpose().map_err(fail)?;
            Ok(row.map(|(key, _)| key.value().to_vec()))
        })?;
        let Some(key) = row else { return Ok(None) };
        let read = match table {
            InspectTable::Segments => keys::read_segment(&key).map(|(tenant, session, _)| (tenant, session)),
            _ => keys::read_session(&key),
        };
        let (tenant, session) = read.ok_or_else(|| bad_key(table, &key))?;
        Ok(Some(keys::session(&tenant, &session)))
    }

    fn step(&mut self, from: &[u8]) -> Result<Option<(TenantId, SessionId)>, StoreError> {
        let found = [
            self.first_in(InspectTable::Segments, from)?,
            self.first_in(InspectTable::Sessions, from)?,
            self.strays.range(from.to_vec()..).next().cloned(),
        ];
        let Some(key) = found.into_iter().flatten().min() else { return Ok(None) };
        let session = keys::read_session(&key).ok_or_else(|| bad_key(InspectTable::Sessions, &key))?;
        self.after = Some(keys::after_prefix(&key));
        Ok(Some(session))
    }
}

impl Iterator for Sessions<'_> {
    type Item = Result<(TenantId, SessionId), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let from = self.after.take()?;
        self.step(&from).transpose()
    }
}
