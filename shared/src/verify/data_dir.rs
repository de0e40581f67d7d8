//! The check of a data directory: keys, every session, and then everything that was derived from them.
//!
//! The archive in it is checked as one anywhere, and the hot tier held against it besides: pointers and catalogue are what
//! its runs and headers give, and a hot tier that knows of more than the archive has is INVALID. What has expired of a
//! session is then known by its pointer.
//!
//! Nothing is modified. Sessions are checked by several threads, and the verdict is still the same every time: the
//! first bad place in the order of keys wins, and what comes after it is not counted. What is kept is bounded by one
//! segment for each thread (and, for the agents' lists, by the number of agents and their sessions).

use std::collections::{BTreeMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::ids::{Seq, SessionId, TenantId};
use crate::segment::SegmentReader;
use crate::statement::Standing;
use crate::store::StoreError;
use crate::store::embedded::{DataDir, DataDirError, Inspector, Misfit, Sessions};

use super::erased::Erasures;
use super::keys::{Keys, Rotations};
use super::receipts::{Wanted, hold};
use super::session::{BadSession, Check, Counts, store_error};
use super::{Bad, Code, Finding, Options, Report, Verdict};

/// Checks a data directory that no server has open, or a copy of one. `progress` is told how many bytes were hashed.
pub fn verify_data_dir(path: &Path, options: &Options, progress: &(dyn Fn(u64) + Sync)) -> Report {
    let mut report = Report::nothing();
    let checked = catch_unwind(AssertUnwindSafe(|| check(path, options, progress, &mut report)));
    let finding = checked.unwrap_or_else(|_| Err(panicked()));
    report.verdict = match &finding {
        Ok(()) => Verdict::Valid,
        Err(finding) if matches!(finding.code, Code::Unreadable | Code::Unfinished) => Verdict::Incomplete,
        Err(finding) if finding.code == Code::Empty && finding.session_id.is_none() => Verdict::Incomplete,
        Err(_) => Verdict::Invalid,
    };
    report.finding = finding.err().map(|finding| *finding);
    if report.verdict == Verdict::Invalid {
        report.logs.clear();
    } else {
        report.notes.extend(report.logs.iter().map(super::LogReport::to_string));
        report.notes.push(super::report::freshness(options));
    }
    report
}

fn panicked() -> Box<Finding> {
    Box::new(Finding::new(Code::Store, "what is stored made the verifier fail (it panicked)"))
}

fn failed(bad: Bad) -> Box<Finding> {
    Box::new(Finding::new(bad.code, bad.message))
}

fn check(
    path: &Path,
    options: &Options,
    progress: &(dyn Fn(u64) + Sync),
    report: &mut Report,
) -> Result<(), Box<Finding>> {
    let dir = DataDir::open(path).map_err(dir_error)?;
    // Keys that cannot be read leave the rest to be checked: it may still be INVALID.
    let keys = match read_keys(&dir, options) {
        Err(finding) if finding.code != Code::Unreadable => return Err(finding),
        keys => keys,
    };
    let inspector = Inspector::open(&dir.ledger_path()).map_err(|e| failed(store_error(&e)))?;
    let tenants = inspector.tenants().map_err(|e| failed(store_error(&e)))?;
    let mut known: HashSet<TenantId> = tenants.into_iter().map(|record| record.tenant).collect();
    // Loopback writes to it without making it.
    known.insert(TenantId::default_tenant());

    let sessions = inspector.sessions().map_err(|e| failed(store_error(&e)))?;
    let work = Work {
        inspector: &inspector,
        tenants: &known,
        wanted: Wanted::new(&options.receipts),
        queue: Mutex::new((0, Some(sessions))),
        done: Mutex::new(Done::new(&options.receipts)),
        hashed: AtomicU64::new(0),
        progress,
    };
    std::thread::scope(|scope| {
        for _ in 1..options.threads.max(1) {
            scope.spawn(|| work.run());
        }
        work.run();
    });
    #[cfg_attr(not(feature = "archive"), allow(unused_mut, reason = "only an archive adds to it"))]
    let mut done = work.done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.tell(report);
    if let Some((_, finding)) = done.failure {
        return Err(finding);
    }
    if let Some(since) = inspector.closed().map_err(|e| failed(store_error(&e)))? {
        let why = format!(
            "the ledger is closed since {since}: a rebuild was not finished, and what it is about is not checked; run \
             quipu rebuild to its end"
        );
        return Err(failed(Bad::new(Code::Unreadable, why)));
    }
    #[cfg(feature = "archive")]
    let unfinished =
        super::archived::check(&dir, &inspector, keys.as_ref().ok(), options, &mut done, report)?;
    #[cfg(not(feature = "archive"))]
    let unfinished = {
        report.notes.push("The archive was not checked: this program is built without it.".to_owned());
        None
    };

    done.erased(report)?;
    let mut misfit = None;
    inspector
        .check_derived(&mut |found| {
            misfit.get_or_insert(found);
        })
        .map_err(|e| failed(store_error(&e)))?;
    if let Some(misfit) = misfit {
        return Err(derived(misfit));
    }
    let sound = inspector.checksums().map_err(|e| failed(store_error(&e)))?;
    if !sound && !inspector.was_rolled_back() {
        return Err(failed(Bad::new(Code::Store, "the database's page checksums do not all hold")));
    }
    if let Ok(keys) = &keys {
        hold_receipts(options, keys, &done.wanted, &done.covered)?;
    }
    incomplete(options, keys.err(), &inspector, report)?;
    unfinished.map_or(Ok(()), Err)
}

/// What could not be checked, once nothing is wrong with the rest.
fn incomplete(
    options: &Options,
    keys: Option<Box<Finding>>,
    inspector: &Inspector,
    report: &Report,
) -> Result<(), Box<Finding>> {
    if let Some(why) = &options.unreadable {
        return Err(failed(Bad::new(Code::Unreadable, why.clone())));
    }
    if let Some(finding) = keys {
        return Err(finding);
    }
    if inspector.was_rolled_back() {
        let why = "the last commit does not verify and was taken back: the machine failed while it was written (then \
            it was never acknowledged), or it is damaged; starting the server once settles it";
        return Err(failed(Bad::new(Code::Unreadable, why)));
    }
    if report.sessions == 0 {
        return Err(failed(Bad::new(Code::Empty, "no sessions")));
    }
    Ok(())
}

fn dir_error(error: DataDirError) -> Box<Finding> {
    let code = match &error {
        DataDirError::Missing { .. } | DataDirError::Damaged { .. } => Code::Store,
        DataDirError::Key { .. } => Code::Key,
        DataDirError::InUse { .. }
        | DataDirError::Absent { .. }
        | DataDirError::Foreign { .. }
        | DataDirError::Version { .. }
        | DataDirError::KeyMode { .. }
        | DataDirError::Io { .. } => Code::Unreadable,
    };
    Box::new(Finding::new(code, error.to_string()))
}

fn read_keys(dir: &DataDir, options: &Options) -> Result<Keys, Box<Finding>> {
    let (log, certificates) = dir.public_keys().map_err(|e| match e {
        // For want of a key nothing is wrong yet.
        DataDirError::Missing { .. } => failed(Bad::new(Code::Unreadable, e.to_string())),
        other => dir_error(other),
    })?;
    let certificates = certificates.iter().map(String::as_str);
    let bad = |why| failed(Bad::new(Code::Key, why));
    let mut rotations = Rotations::new(dir.deployment());
    for note in dir.rotations().map_err(dir_error)? {
        rotations.push(&note).map_err(bad)?;
    }
    Keys::certified(&log, &rotations, options.pinned_key.as_ref(), certificates).map_err(bad)
}

fn derived(misfit: Misfit) -> Box<Finding> {
    let message = format!("table {:?}, key {}: {}", misfit.table, misfit.key, misfit.why);
    let mut finding = Finding::new(Code::Derived, message);
    (finding.tenant, finding.session_id) = misfit.session.unzip();
    Box::new(finding)
}

fn hold_receipts(
    options: &Options,
    keys: &Keys,
    wanted: &Wanted,
    covered: &HashSet<(TenantId, SessionId)>,
) -> Result<(), Box<Finding>> {
    let is_covered = |said: &Standing| covered.contains(&(said.tenant.clone(), said.session_id.clone()));
    let (bad, standing) = match hold(&options.receipts, keys, wanted, is_covered) {
        Ok(None) => return Ok(()),
        Ok(Some(said)) => (Bad::new(Code::Receipt, "the session of a receipt is missing"), Some(said)),
        Err(failed) => (failed.bad, failed.standing),
    };
    let mut finding = failed(bad);
    if let Some(said) = standing {
        finding.tenant = Some(said.tenant);
        finding.session_id = Some(said.session_id);
        finding.sequence = Some(said.sequence.get());
    }
    Err(finding)
}

/// What is done, in the order of sessions.
pub(super) struct Done {
    /// Sessions below this are all counted.
    next: u64,
    /// Sessions that were done before an earlier one was.
    ahead: BTreeMap<u64, (TenantId, Counts, Erasures)>,
    /// By tenant, in the order of sessions.
    pub(super) erasures: BTreeMap<TenantId, Erasures>,
    sessions: u64,
    tenants: HashSet<TenantId>,
    counts: Counts,
    failure: Option<(u64, Box<Finding>)>,
    pub(super) wanted: Wanted,
    covered: HashSet<(TenantId, SessionId)>,
}

impl Done {
    fn new(receipts: &[super::GivenReceipt]) -> Self {
        Self {
            next: 0,
            ahead: BTreeMap::new(),
            erasures: BTreeMap::new(),
            sessions: 0,
            tenants: HashSet::new(),
            counts: Counts::default(),
            failure: None,
            wanted: Wanted::new(receipts),
            covered: HashSet::new(),
        }
    }

    fn finished(&mut self, index: u64, tenant: TenantId, counts: Counts, erasures: Erasures) {
        self.ahead.insert(index, (tenant, counts, erasures));
        while let Some((tenant, counts, erasures)) = self.ahead.remove(&self.next) {
            self.next += 1;
            self.sessions += 1;
            self.erasures.entry(tenant.clone()).or_default().append(erasures);
            self.tenants.insert(tenant);
            self.counts.events += counts.events;
            self.counts.erased += counts.erased;
            self.counts.bytes += counts.bytes;
        }
    }

    /// Holds erased events against tombstones, wherever each was found.
    fn erased(&self, report: &mut Report) -> Result<(), Box<Finding>> {
        for (tenant, erasures) in &self.erasures {
            for erased in &erasures.erased {
                if let Some(why) = erasures.problem_of(erased) {
                    let mut finding = failed(Bad::new(Code::Erased, why));
                    finding.tenant = Some(tenant.clone());
                    finding.session_id = Some(erased.session.clone());
                    finding.sequence = Some(erased.sequence.get());
                    return Err(finding);
                }
            }
            report.notes.extend(erasures.notes());
        }
        Ok(())
    }

    fn failed(&mut self, index: u64, finding: Box<Finding>) {
        if self.failure.as_ref().is_none_or(|(earlier, _)| index < *earlier) {
            self.failure = Some((index, finding));
        }
    }

    fn tell(&self, report: &mut Report) {
        report.tenants = self.tenants.len() as u64;
        report.sessions = self.sessions;
        report.events = self.counts.events;
        report.bytes_hashed = self.counts.bytes;
        if self.counts.erased > 0 {
            let note =
                format!("The content of {} events is erased; their hashes still hold.", self.counts.erased);
            report.notes.push(note);
        }
    }
}

/// A session to check, or why it cannot be told which; and its place in the order of keys.
type Next = (u64, Result<(TenantId, SessionId), StoreError>);

/// What the threads share.
struct Work<'a> {
    inspector: &'a Inspector,
    tenants: &'a HashSet<TenantId>,
    /// The sequences that receipts name; what is found goes to `done`.
    wanted: Wanted,
    /// How many sessions were handed out, and the rest of them; `None` once nothing more is.
    queue: Mutex<(u64, Option<Sessions<'a>>)>,
    done: Mutex<Done>,
    hashed: AtomicU64,
    progress: &'a (dyn Fn(u64) + Sync),
}

impl Work<'_> {
    fn run(&self) {
        let worked = catch_unwind(AssertUnwindSafe(|| {
            let mut reader = match SegmentReader::new() {
                Ok(reader) => reader,
                Err(e) => {
                    let finding = Finding::new(Code::Unreadable, e.to_string());
                    return self.done().failed(u64::MAX, Box::new(finding));
                }
            };
            while let Some((index, next)) = self.next() {
                match next {
                    Ok((tenant, session)) => self.session(index, tenant, session, &mut reader),
                    Err(e) => self.fail(index, failed(store_error(&e))),
                }
            }
        }));
        if worked.is_err() {
            self.fail(u64::MAX, panicked());
        }
    }

    fn done(&self) -> MutexGuard<'_, Done> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next session. They are handed out in order, so once one has failed all before it are in somebody's hands.
    fn next(&self) -> Option<Next> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let next = queue.1.as_mut()?.next();
        if next.is_none() {
            queue.1 = None;
        }
        queue.0 += 1;
        next.map(|next| (queue.0 - 1, next))
    }

    fn fail(&self, index: u64, finding: Box<Finding>) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).1 = None;
        self.done().failed(index, finding);
    }

    fn session(&self, index: u64, tenant: TenantId, session: SessionId, reader: &mut SegmentReader) {
        let wanted = self.wanted.get(&tenant, &session);
        let (counts, found) = (Counts::default(), Vec::new());
        let erasures = Erasures::default();
        let mut check =
            Check { tenant: &tenant, session: &session, wanted, found, counts, pointer: None, erasures };
        let told = |bytes: u64| {
            let before = self.hashed.fetch_add(bytes, Ordering::Relaxed);
            if before >> 20 != (before + bytes) >> 20 {
                (self.progress)(before + bytes);
            }
        };
        let checked = if self.tenants.contains(&tenant) {
            check.run(self.inspector, reader, &told)
        } else {
            let why = format!("the session's tenant, {tenant}, is not among the tenants that were made");
            Err(BadSession { bad: Bad::new(Code::Store, why), sequence: None })
        };
        let (counts, found, erasures) = (check.counts, check.found, check.erasures);
        if let Err(BadSession { bad, sequence }) = checked {
            let finding = Finding {
                tenant: Some(tenant),
                session_id: Some(session),
                sequence: sequence.map(Seq::get),
                ..Finding::new(bad.code, bad.message)
            };
            return self.fail(index, Box::new(finding));
        }
        let mut done = self.done();
        if let Some(events) = done.wanted.of(&tenant, &session) {
            for (sequence, hash) in found {
                events.insert(sequence, Some(hash));
            }
            done.covered.insert((tenant.clone(), session));
        }
        done.finished(index, tenant, counts, erasures);
    }
}
