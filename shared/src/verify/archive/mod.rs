//! The check of a whole archive, as a stream (docs/format.md, section 8, "Verdict on an archive").
//!
//! Memory is bounded whatever the size: one batch for each thread, the right edge of one tree, and runs that go to
//! temporary files past a cap. Batches may be checked side by side; their verdicts are taken in order, so the first
//! bad place wins whoever finds it.

mod batch;
mod facts;
mod read;
mod rows;
mod runs;
mod tenant;
mod tiles;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use futures_util::stream::{self, TryStreamExt as _};

use crate::ids::{EventHash, Seq, SessionId, TenantId};
use crate::limits;
use crate::log::header::BatchHeader;
use crate::log::identity::IdentityFile;
use crate::log::merkle::Hash;
use crate::log::paths::{self, Named};
use crate::objects::ObjectStore;
use crate::statement::Says;
use crate::store::BatchRecord;
use crate::time::Micros;

pub(super) use facts::Facts;
pub(super) use read::Stop;

use super::erased::Erasures;
use super::keys::{Keys, Rotations};
use super::receipts::Wanted;
use super::report::freshness;
use super::{Bad, Code, Finding, LogReport, Options, Report, Verdict};

/// How long ingestion may take to be archived before a missing event counts as gone, µs: 24 hours.
const LAG_MAX: i64 = 24 * 60 * 60 * 1_000_000;

/// Checks an archive. Runs on a Tokio runtime; `progress` is told how many bytes were hashed.
pub async fn verify_archive(
    objects: &dyn ObjectStore,
    options: &Options,
    progress: &(dyn Fn(u64) + Sync),
) -> Report {
    let mut check = Check::new(objects, options, progress, None);
    let mut finding = check.run().await.err();
    if finding.is_none() {
        finding = check.incomplete().err();
    }
    let mut report = check.report;
    report.verdict = verdict(finding.as_ref().map(|stop| stop.0.code));
    report.finding = finding.map(|stop| *stop.0);
    let is_unreadable = report.finding.as_ref().is_some_and(|f| f.code == Code::Unreadable);
    if report.verdict == Verdict::Invalid || (is_unreadable && options.unreadable.is_none()) {
        // What is known of a log that is not right, or not read, is nothing to keep.
        report.logs.clear();
    }
    report.notes.extend(report.logs.iter().map(LogReport::to_string));
    if report.verdict != Verdict::Invalid {
        report.notes.push(freshness(options));
    }
    report
}

pub(super) fn verdict(code: Option<Code>) -> Verdict {
    match code {
        None => Verdict::Valid,
        Some(Code::Unreadable | Code::NoKey | Code::ReceiptNotCovered | Code::Unfinished | Code::Empty) => {
            Verdict::Incomplete
        }
        Some(_) => Verdict::Invalid,
    }
}

/// A session as far as a tenant's log holds it.
#[derive(Debug)]
pub(super) struct ArchivedSession {
    pub(super) session: SessionId,
    pub(super) first_batch: u64,
    pub(super) last_batch: u64,
    pub(super) last: Seq,
    pub(super) hash: EventHash,
    pub(super) facts: Facts,
    pub(super) scrubbed: Scrubbed,
}

/// Which of the objects that a batch may have is there.
#[derive(Debug)]
pub(super) struct Object {
    /// The number of the record that names it; 0: the header does.
    pub(super) revision: u64,
    /// Lengths of the objects that header and records name, by that number.
    pub(super) bytes: Vec<u64>,
}

impl Object {
    /// What a catalogue keeps of a batch with this object.
    pub(super) fn record(&self, header: &BatchHeader, hash: [u8; 32]) -> BatchRecord {
        let bytes = usize::try_from(self.revision).ok().and_then(|at| self.bytes.get(at));
        let bytes = bytes.copied().unwrap_or(header.bytes);
        BatchRecord { revision: self.revision, bytes, ..header.record(hash) }
    }
}

/// What erasures left of a session in the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Scrubbed {
    /// A tombstone in the log is about an event of it.
    pub(super) named: bool,
    /// One is about an event whose row still has its content.
    pub(super) pending: bool,
}

/// Somebody who holds what an archive says against something else.
pub(super) trait Listener {
    /// A batch, in order, once it is found right.
    ///
    /// # Errors
    /// What is wrong with what it was held against.
    fn batch(&mut self, header: &BatchHeader, hash: [u8; 32], object: &Object) -> Result<(), Box<Finding>>;

    /// A session, in the order of bytes, once it is found right; and what the whole log has of erasures.
    ///
    /// # Errors
    /// What is wrong with what it was held against.
    fn session(
        &mut self,
        tenant: &TenantId,
        archived: ArchivedSession,
        erasures: &Erasures,
    ) -> Result<(), Box<Finding>>;

    /// The end of a tenant's log: its finished batches.
    ///
    /// # Errors
    /// What is wrong with what it was held against.
    fn end(&mut self, tenant: &TenantId, batches: u64, unfinished: bool) -> Result<(), Box<Finding>>;
}

/// What reading a batch needs.
struct Reading<'a> {
    objects: &'a dyn ObjectStore,
    wanted: Arc<Wanted>,
    with_facts: bool,
    threads: usize,
}

pub(super) struct Check<'a> {
    reading: Reading<'a>,
    options: &'a Options,
    progress: &'a (dyn Fn(u64) + Sync),
    listener: Option<&'a mut dyn Listener>,
    /// Sizes that given checkpoints name, and the roots there.
    sizes: HashMap<TenantId, BTreeMap<u64, Option<Hash>>>,
    /// What of the receipts' events was seen.
    pub(super) found: Wanted,
    /// When each tenant's last batch was claimed.
    claimed: HashMap<TenantId, Micros>,
    unfinished: Option<(TenantId, u64)>,
    uncovered: Option<String>,
    erased: u64,
    /// Objects that are not the newest that was recorded.
    unrevised: u64,
    /// By tenant.
    pub(super) erasures: BTreeMap<TenantId, Erasures>,
    pub(super) report: Report,
}

impl<'a> Check<'a> {
    pub(super) fn new(
        objects: &'a dyn ObjectStore,
        options: &'a Options,
        progress: &'a (dyn Fn(u64) + Sync),
        listener: Option<&'a mut dyn Listener>,
    ) -> Self {
        let mut sizes = HashMap::<_, BTreeMap<_, _>>::new();
        for (tenant, size) in options.checkpoints.iter().filter_map(super::GivenCheckpoint::claim) {
            sizes.entry(tenant).or_default().insert(size, None);
        }
        let reading = Reading {
            objects,
            wanted: Arc::new(Wanted::new(&options.receipts)),
            with_facts: listener.is_some(),
            threads: options.threads.max(1),
        };
        Self {
            reading,
            options,
            progress,
            listener,
            sizes,
            found: Wanted::new(&options.receipts),
            claimed: HashMap::new(),
            unfinished: None,
            uncovered: None,
            erased: 0,
            unrevised: 0,
            erasures: BTreeMap::new(),
            report: Report::nothing(),
        }
    }

    /// Everything that can be INVALID.
    async fn run(&mut self) -> Result<(), Stop> {
        let keys = self.identity().await?;
        self.logs(&keys).await?;
        self.rollback(&keys)?;
        self.receipts(&keys)
    }

    /// The logs by themselves: everything but what was given from outside.
    pub(super) async fn logs(&mut self, keys: &Keys) -> Result<(), Stop> {
        let tenants = self.tenants().await?;
        self.objects(&tenants).await?;
        for tenant in &tenants {
            self.tenant(keys, tenant).await.map_err(|stop| stop.of(tenant))?;
            self.report.tenants += 1;
        }
        if self.erased > 0 {
            let note = format!("The content of {} events is erased; their hashes still hold.", self.erased);
            self.report.notes.push(note);
        }
        for erasures in self.erasures.values() {
            self.report.notes.extend(erasures.notes());
        }
        if self.unrevised > 0 {
            let note = format!(
                "{} of the objects are to be written anew, and were not yet: the archiver's next run does that.",
                self.unrevised
            );
            self.report.notes.push(note);
        }
        (self.progress)(self.report.bytes_hashed);
        Ok(())
    }

    /// The keys that `_identity.json` gives.
    pub(super) async fn identity(&self) -> Result<Keys, Stop> {
        let bad = |why: String| Stop::bad(Bad::new(Code::Key, format!("{}: {why}", paths::IDENTITY)));
        let found = read::bounded(self.reading.objects, paths::IDENTITY, limits::IDENTITY_BYTES_MAX).await?;
        let bytes = found.ok_or_else(|| bad("it is not there".to_owned()))?;
        let identity = IdentityFile::parse(&bytes).map_err(|e| bad(e.to_string()))?;
        let mut rotations = Rotations::new(&identity.deployment);
        for note in &identity.rotations {
            rotations.push(note).map_err(bad)?;
        }
        let certificates = identity.certificates.iter().map(String::as_str);
        let pinned = self.options.pinned_key.as_ref();
        Keys::certified(&identity.log_key, &rotations, pinned, certificates).map_err(bad)
    }

    /// Every tenant that anything lies under in `log/`. Their order is that of their bytes, which is not that of keys.
    async fn tenants(&self) -> Result<BTreeSet<TenantId>, Stop> {
        let mut tenants = BTreeSet::new();
        let mut list = read::List::new(self.reading.objects, paths::LOG.to_owned());
        while let Some(listed) = list.next().await? {
            let name = listed.key[paths::LOG.len()..].split_once('/').map(|(name, _)| name);
            let Some(name) = name else { continue };
            // All that begins with the name and a slash is passed over: `0` comes after `/`.
            list.skip_to(format!("{}{name}0", paths::LOG));
            if let Ok(tenant) = TenantId::parse(name) {
                tenants.insert(tenant);
            }
        }
        Ok(tenants)
    }

    /// Step 2: no object without a header that names it.
    async fn objects(&self, tenants: &BTreeSet<TenantId>) -> Result<(), Stop> {
        let objects = self.reading.objects;
        let list = read::List::new(objects, paths::EVENTS.to_owned());
        let keys = stream::try_unfold(list, |mut list| async move {
            Ok::<_, Stop>(list.next().await?.map(|listed| (listed.key, list)))
        });
        let named = keys.map_ok(|key| async move {
            let Some(Named::Object { tenant, batch, .. }) = Named::parse(&key) else {
                return Ok(Some((key, None)));
            };
            let header = match tenants.contains(&tenant) {
                true => {
                    let at = paths::header(&tenant, batch);
                    read::bounded(objects, &at, limits::HEADER_BYTES_MAX).await?
                }
                false => None,
            };
            // What is wrong with a header that cannot be read is told in its turn.
            let is_named = header
                .is_some_and(|bytes| BatchHeader::parse(&bytes).map_or(true, |header| header.key == key));
            Ok((!is_named).then_some((key, Some((tenant, batch)))))
        });
        let mut named = std::pin::pin!(named.try_buffered(limits::VERIFY_READS_AT_ONCE));
        while let Some(unnamed) = named.try_next().await? {
            if let Some((key, place)) = unnamed {
                let mut stop = Stop::bad(Bad::new(Code::Object, format!("no header names {key}")));
                (stop.0.tenant, stop.0.batch) = place.unzip();
                return Err(stop);
            }
        }
        Ok(())
    }

    /// Step 16: the checkpoints that were given.
    pub(super) fn rollback(&self, keys: &Keys) -> Result<(), Stop> {
        for given in &self.options.checkpoints {
            let bad = |why: String| Stop::bad(Bad::new(Code::Rollback, why));
            let said = given.open(keys).map_err(bad)?;
            let bad = |why: String| bad(why).of(&said.tenant);
            let log = self.report.logs.iter().find(|log| log.tenant == said.tenant);
            let size = said.checkpoint.tree_size;
            let found = log.map_or(0, |log| log.tree_size);
            if log.is_none() || found < size {
                return Err(bad(format!(
                    "the checkpoint that was given is of {size} leaves, the log has {found}"
                )));
            }
            let root = self.sizes.get(&said.tenant).and_then(|sizes| *sizes.get(&size)?);
            if root != Some(said.checkpoint.root) {
                return Err(bad(format!(
                    "the checkpoint that was given, of {size} leaves, has another root than the log had then"
                )));
            }
        }
        Ok(())
    }

    /// Step 17: the receipts that were given.
    fn receipts(&mut self, keys: &Keys) -> Result<(), Stop> {
        for receipt in &self.options.receipts {
            let bad = |why: String| {
                let mut finding = Finding::new(Code::Receipt, why);
                if let Some(said) = receipt.standing() {
                    finding.tenant = Some(said.tenant.clone());
                    finding.session_id = Some(said.session_id.clone());
                    finding.sequence = Some(said.sequence.get());
                }
                Stop(Box::new(finding))
            };
            if let Some(why) = receipt.problem() {
                return Err(bad(why.to_owned()));
            }
            let said =
                keys.open(Says::Receipt, receipt.note()).map_err(|e| bad(format!("the receipt: {e}")))?;
            if let Some(hash) = self.found.found(&said) {
                if hash != said.hash {
                    return Err(bad(format!("the receipt promises hash {}, found {hash}", said.hash)));
                }
                continue;
            }
            let claimed = self.claimed.get(&said.tenant);
            if claimed.is_some_and(|claimed| claimed.get() - said.time.get() > LAG_MAX) {
                return Err(bad("the event of a receipt was not archived within 24 hours".to_owned()));
            }
            self.uncovered.get_or_insert_with(|| {
                format!(
                    "the log of {} does not hold session {:?} up to sequence {} of a receipt yet",
                    said.tenant,
                    said.session_id.as_str(),
                    said.sequence
                )
            });
        }
        Ok(())
    }

    /// What could not be checked, once nothing is wrong.
    fn incomplete(&self) -> Result<(), Stop> {
        let missing = |code, why: String| Err(Stop::bad(Bad::new(code, why)));
        if let Some(why) = &self.options.unreadable {
            return missing(Code::Unreadable, why.clone());
        }
        if self.options.pinned_key.is_none() {
            let why = "no key was given: keys found only in the archive prove nothing about who made it";
            return missing(Code::NoKey, why.to_owned());
        }
        if self.report.tenants == 0 {
            return missing(Code::Empty, "no tenant has a log".to_owned());
        }
        if let Some(stop) = self.unfinished() {
            return Err(stop);
        }
        self.uncovered.clone().map_or(Ok(()), |why| missing(Code::ReceiptNotCovered, why))
    }

    /// The first log whose last batch is not finished.
    pub(super) fn unfinished(&self) -> Option<Stop> {
        let (tenant, batch) = self.unfinished.as_ref()?;
        let why = "the last batch is not finished: the archiver's next run does that";
        Some(Stop::bad(Bad::new(Code::Unfinished, why)).of(tenant).at(*batch))
    }
}
