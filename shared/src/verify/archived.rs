//! The archive of a data directory, and the hot tier held against it: pointers are what the archive's runs give, the
//! catalogue what its headers give.
//!
//! The hot tier may be behind by what a crash cut off: a batch that is published and not recorded yet. It is never
//! ahead: a hot tier that knows of more than the archive has shows that something of the archive is gone.

use std::collections::{BTreeMap, HashMap};
use std::iter::Peekable;

use crate::ids::{EventHash, EventId, SessionId, TenantId};
use crate::log::header::BatchHeader;
use crate::objects::{Directory, ObjectStore};
use crate::statement::Standing;
use crate::store::embedded::{DataDir, InspectTable, Inspector};
use crate::store::{BatchRecord, Pointer, StoreError, keys as rows};

use super::archive::{ArchivedSession, Check, Listener, Object, Stop};
use super::data_dir::Done;
use super::erased::Erasures;
use super::keys::Keys;
use super::receipts::{GivenReceipt, Wanted};
use super::session::{store_error, tolerate};
use super::{Bad, Code, Finding, Options, Report};

type Finished = Result<(), Box<Finding>>;
type Pointers<'i> = Box<dyn Iterator<Item = Result<(TenantId, Pointer), StoreError>> + 'i>;
type Batches<'i> = Box<dyn Iterator<Item = Result<BatchRecord, StoreError>> + 'i>;

fn finding(code: Code, why: impl Into<String>) -> Box<Finding> {
    Box::new(Finding::new(code, why))
}

fn stored(error: &StoreError) -> Box<Finding> {
    let Bad { code, message } = store_error(error);
    finding(code, message)
}

/// Checks the archive of a directory and what the hot tier says of it. `keys` are the directory's; without them, for
/// they cannot be read, the archive's own are taken. Gives what is not finished. Notes what was seen of receipts.
///
/// # Errors
/// The first thing that is wrong, or cannot be read.
pub(super) fn check(
    dir: &DataDir,
    inspector: &Inspector,
    keys: Option<&Keys>,
    options: &Options,
    done: &mut Done,
    report: &mut Report,
) -> Result<Option<Box<Finding>>, Box<Finding>> {
    let hot = &done.erasures;
    let work = || {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime = runtime.map_err(|e| finding(Code::Unreadable, e.to_string()))?;
        runtime.block_on(read(dir, inspector, keys, options, hot))
    };
    // Whoever calls may stand in a runtime already, which must not be blocked: this has a thread and a runtime of its own.
    let read = std::thread::scope(|scope| {
        let running = std::thread::Builder::new().spawn_scoped(scope, work);
        let running = running.map_err(|e| finding(Code::Unreadable, e.to_string()))?;
        let panicked = |_| Err(finding(Code::Store, "the archive made the verifier fail (it panicked)"));
        running.join().unwrap_or_else(panicked)
    });
    let Some(Archived { logs, found, unfinished, erasures }) = read? else { return Ok(None) };
    for (tenant, archived) in erasures {
        done.erasures.entry(tenant).or_default().beside(archived);
    }
    let wanted = &mut done.wanted;
    for said in options.receipts.iter().filter_map(GivenReceipt::standing) {
        note_found(wanted, &found, said);
    }
    report.logs = logs.logs;
    report.bytes_hashed += logs.bytes_hashed;
    Ok(unfinished)
}

/// What an archive gave.
struct Archived {
    logs: Report,
    found: Wanted,
    unfinished: Option<Box<Finding>>,
    erasures: BTreeMap<TenantId, Erasures>,
}

/// Reads the archive, if there is one.
async fn read(
    dir: &DataDir,
    inspector: &Inspector,
    keys: Option<&Keys>,
    options: &Options,
    erasures: &BTreeMap<TenantId, Erasures>,
) -> Result<Option<Archived>, Box<Finding>> {
    let path = dir.archive_path();
    let unreadable = |e: std::io::Error| finding(Code::Unreadable, format!("{}: {e}", path.display()));
    let mut hot = Hot::new(inspector, erasures)?;
    if !path.try_exists().map_err(unreadable)? {
        return hot.without_archive(options);
    }
    let objects = Directory::open_to_read(&path).map_err(unreadable)?;
    // One that nothing was ever written to has no identity yet.
    if objects.list("", None, 1).await.map_err(|e| Stop::from(e).0)?.is_empty() {
        return hot.without_archive(options);
    }
    let mut check = Check::new(&objects, options, &|_| (), Some(&mut hot));
    let own = check.identity().await.map_err(|stop| stop.0)?;
    let keys = agree(keys, own)?;
    check.logs(&keys).await.map_err(|stop| stop.0)?;
    check.rollback(&keys).map_err(|stop| stop.0)?;
    let unfinished = check.unfinished().map(|stop| stop.0);
    let Check { found, erasures, report: logs, .. } = check;
    hot.finish()?;
    Ok(Some(Archived { logs, found, unfinished, erasures }))
}

/// The keys that hold for the archive: its own, which must be of one chain with the directory's. A rotation that was cut
/// off may have come to one of them only.
fn agree(directory: Option<&Keys>, archive: Keys) -> Result<Keys, Box<Finding>> {
    let Some(directory) = directory else { return Ok(archive) };
    let (mine, its) = (directory.chain(), archive.chain());
    if mine.deployment() != its.deployment() {
        let why =
            format!("expected the archive of {}, found that of {}", mine.deployment(), its.deployment());
        return Err(finding(Code::Key, why));
    }
    if mine.contains(its.newest()) {
        return Ok(directory.clone());
    }
    if its.contains(mine.newest()) {
        return Ok(archive);
    }
    let why = format!(
        "the archive's log key {} is not of one chain with the directory's {}",
        its.newest(),
        mine.newest()
    );
    Err(finding(Code::Key, why))
}

fn note_found(wanted: &mut Wanted, found: &Wanted, said: &Standing) {
    let (Some(hash), Some(events)) = (found.found(said), wanted.of(&said.tenant, &said.session_id)) else {
        return;
    };
    let seen: &mut Option<EventHash> = events.entry(said.sequence.get()).or_default();
    seen.get_or_insert(hash);
}

/// What the hot tier says of the archive, walked over in step with it.
struct Hot<'i> {
    inspector: &'i Inspector,
    /// By session, the events that tombstones of the hot tier are about.
    buried: HashMap<(TenantId, SessionId), Vec<EventId>>,
    pointers: Peekable<Pointers<'i>>,
    /// The catalogue of the tenant that is read.
    catalogue: Option<(TenantId, Peekable<Batches<'i>>)>,
    /// The last batch of that tenant that is recorded, by the catalogue.
    recorded: u64,
    /// Rows of the catalogue that were seen.
    batches: u64,
    /// A batch of that tenant that the catalogue lacks, or has not as recorded.
    lacking: Option<u64>,
}

impl<'i> Hot<'i> {
    fn new(inspector: &'i Inspector, erasures: &BTreeMap<TenantId, Erasures>) -> Result<Self, Box<Finding>> {
        let mut buried: HashMap<_, Vec<EventId>> = HashMap::new();
        for (tenant, erasures) in erasures {
            for (event, session) in erasures.about() {
                buried.entry((tenant.clone(), session.clone())).or_default().push(event);
            }
        }
        let pointers: Pointers<'i> = Box::new(inspector.pointers().map_err(|e| stored(&e))?);
        Ok(Self {
            inspector,
            buried,
            pointers: pointers.peekable(),
            catalogue: None,
            recorded: 0,
            batches: 0,
            lacking: None,
        })
    }

    /// There is no archive: then nobody may have archived anything.
    fn without_archive(&mut self, options: &Options) -> Result<Option<Archived>, Box<Finding>> {
        if !options.checkpoints.is_empty() {
            return Err(finding(Code::Rollback, "a checkpoint was given, and there is no archive"));
        }
        self.finish().map(|()| None)
    }

    fn catalogue(&mut self, tenant: &TenantId) -> Result<&mut Peekable<Batches<'i>>, Box<Finding>> {
        if self.catalogue.as_ref().is_none_or(|(of, _)| of != tenant) {
            let batches: Batches<'i> = Box::new(self.inspector.batches(tenant).map_err(|e| stored(&e))?);
            self.catalogue = Some((tenant.clone(), batches.peekable()));
            (self.recorded, self.lacking) = (0, None);
        }
        let (_, batches) = self.catalogue.as_mut().expect("it was just made");
        Ok(batches)
    }

    /// After all logs: nothing may be left.
    fn finish(&mut self) -> Finished {
        if let Some(row) = self.pointers.next() {
            let (tenant, pointer) = row.map_err(|e| stored(&e))?;
            return Err(missing(&tenant, &pointer));
        }
        let mut rows_left = self.inspector.rows(InspectTable::Batches, &[]).map_err(|e| stored(&e))?;
        let total =
            rows_left.by_ref().try_fold(0u64, |sum, row| row.map(|_| sum + 1)).map_err(|e| stored(&e))?;
        if total != self.batches {
            let why = format!(
                "the catalogue has {total} batches, the archive {}: it was cut or deleted",
                self.batches
            );
            return Err(finding(Code::Log, why));
        }
        Ok(())
    }
}

/// A pointer of a session that the archive does not hold.
fn missing(tenant: &TenantId, pointer: &Pointer) -> Box<Finding> {
    let why = format!(
        "the session is archived up to sequence {}, and the archive does not hold it: it was cut or deleted",
        pointer.archived.head.sequence
    );
    let mut finding = finding(Code::Log, why);
    finding.tenant = Some(tenant.clone());
    finding.session_id = Some(pointer.archived.session_id.clone());
    finding
}

impl Listener for Hot<'_> {
    fn batch(&mut self, header: &BatchHeader, hash: [u8; 32], object: &Object) -> Finished {
        let catalogue = self.catalogue(&header.tenant)?;
        let is_next = |row: &Result<BatchRecord, StoreError>| {
            row.as_ref().map_or(true, |row| row.batch <= header.batch)
        };
        let row = catalogue.next_if(is_next);
        // One that the catalogue has not yet may be the last: a crash left it unrecorded, and no other is begun before.
        if let Some(batch) = self.lacking {
            let mut finding = finding(
                Code::Derived,
                "the catalogue lacks, or has not as recorded, a batch that is not the last",
            );
            (finding.tenant, finding.batch) = (Some(header.tenant.clone()), Some(batch));
            return Err(finding);
        }
        let Some(row) = row else {
            self.lacking = Some(header.batch);
            return Ok(());
        };
        let row = row.map_err(|e| stored(&e))?;
        let recorded = row.recorded;
        // It learns of a rewrite last: it may be behind, and never ahead.
        let known = Object { revision: row.revision.min(object.revision), bytes: object.bytes.clone() };
        let expected = BatchRecord { recorded, ..known.record(header, hash) };
        if row != expected {
            let why = format!("the catalogue's batch {} is not what the archive's header says", row.batch);
            let mut finding = finding(Code::Derived, why);
            (finding.tenant, finding.batch) = (Some(header.tenant.clone()), Some(header.batch));
            return Err(finding);
        }
        self.batches += 1;
        match recorded {
            true => self.recorded = header.batch,
            false => self.lacking = Some(header.batch),
        }
        Ok(())
    }

    fn session(&mut self, tenant: &TenantId, archived: ArchivedSession, erasures: &Erasures) -> Finished {
        let at = rows::session(tenant, &archived.session);
        let key = |tenant: &TenantId, pointer: &Pointer| rows::session(tenant, &pointer.archived.session_id);
        let reached = |row: &Result<(TenantId, Pointer), StoreError>| {
            row.as_ref().map_or(true, |(tenant, pointer)| key(tenant, pointer) <= at)
        };
        let row = self.pointers.next_if(reached).transpose().map_err(|e| stored(&e))?;
        let bad = |code, why: String| {
            let mut finding = finding(code, why);
            finding.tenant = Some(tenant.clone());
            finding.session_id = Some(archived.session.clone());
            Err(finding)
        };
        // What is recorded was pointed to before it was recorded.
        let may_lag = archived.last_batch > self.recorded;
        let Some((of, pointer)) = row else {
            return match may_lag {
                true => Ok(()),
                false => {
                    bad(Code::Derived, "the archive holds the session, and no pointer says so".to_owned())
                }
            };
        };
        if key(&of, &pointer) != at {
            return Err(missing(&of, &pointer));
        }
        let (mine, theirs) = (&pointer.archived, &archived);
        if mine.head.sequence > theirs.last {
            return bad(
                Code::Log,
                format!(
                    "the session is archived up to sequence {}, the archive holds it up to {}: it was cut",
                    mine.head.sequence, theirs.last
                ),
            );
        }
        if mine.head.sequence < theirs.last {
            return match may_lag {
                true => Ok(()),
                false => bad(Code::Derived, "the pointer is behind what is archived and recorded".to_owned()),
            };
        }
        let mut summary = theirs.facts.summary.clone();
        if theirs.facts.erased > 0 {
            tolerate(&mut summary, &mine.summary, theirs.facts.erased);
        }
        // Names and tags leave the hot tier before they leave the archive, and a pointer whose segments have gone cannot
        // be told what is left of them.
        let mut scrubbed = theirs.scrubbed;
        for event in self.buried.get(&(tenant.clone(), archived.session.clone())).into_iter().flatten() {
            scrubbed.named = true;
            // No row is written anew before its tombstone is in the log.
            scrubbed.pending |= !erasures.has_grave(*event);
        }
        let silent = mine.summary.agent_name.is_none();
        if scrubbed.pending || scrubbed.named && silent {
            summary.agent_name.clone_from(&mine.summary.agent_name);
        }
        if scrubbed.pending || scrubbed.named && mine.summary.tags.is_empty() {
            summary.tags.clone_from(&mine.summary.tags);
        }
        for (name, right) in [
            ("hash", mine.head.hash == theirs.hash),
            ("first batch", pointer.first_batch == theirs.first_batch),
            ("last batch", pointer.last_batch == theirs.last_batch),
            ("first commit", mine.first_commit == theirs.facts.first_commit),
            ("last commit", mine.last_commit == theirs.facts.last_commit),
            ("time", mine.updated_at == theirs.facts.updated_at),
            ("summary", mine.summary == summary),
        ] {
            if !right {
                return bad(Code::Derived, format!("the pointer's {name} is not what the archive gives"));
            }
        }
        Ok(())
    }

    fn end(&mut self, tenant: &TenantId, batches: u64, unfinished: bool) -> Finished {
        // Nothing is recorded of a batch before it is finished.
        if let Some(row) = self.catalogue(tenant)?.next() {
            let row = row.map_err(|e| stored(&e))?;
            let left = if unfinished { "finished" } else { "there" };
            let why = format!(
                "the catalogue has batch {}, and only {batches} are {left}: the log was cut",
                row.batch
            );
            let mut finding = finding(Code::Log, why);
            (finding.tenant, finding.batch) = (Some(tenant.clone()), Some(row.batch));
            return Err(finding);
        }
        Ok(())
    }
}
