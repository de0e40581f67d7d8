//! The one thread that writes: group commit.
//!
//! Requests are handed over by [`Writer::send`] at once and take effect in that order. All that have come while one
//! transaction was being made durable share the next one, and its one fsync. A batch is answered only after that.
//!
//! Commits are redb's one-phase commits: one fsync. redb can also record its allocator's state with each commit
//! ("quick repair"), so that after a kill the database opens at once instead of reading itself through; but that
//! takes two fsyncs and grows with the file. Measured at 250 MB: 1.45 ms for a commit instead of 0.90 ms, against
//! 0.5 s for a repair (1.4 s at 1 GB, 1 ms with the record). So the state is recorded by an empty commit whenever
//! the writer has had nothing to do for [`IDLE_BEFORE_RECORD`]: only a kill under load costs a repair.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use redb::{Database, Durability, WriteTransaction};
use tokio::sync::oneshot;

use super::apply::Group;
use super::archive::Archive;
use super::bodies::BodyLog;
use super::erase::Erase;
use super::scrub;
use super::tables::{fail, guarded};
use super::tokens::{self, Admin};
use crate::store::{Commit, StoreError};

/// Most requests in one transaction: bounds how long the first one waits for the last.
const GROUP_REQUESTS_MAX: usize = 256;
/// Most bytes of bodies in one transaction, as many as redb's write buffer should hold: 32 MiB.
const GROUP_BYTES_MAX: usize = 32 * 1024 * 1024;
/// How long nothing must have come before the allocator's state is recorded.
const IDLE_BEFORE_RECORD: Duration = Duration::from_millis(200);

/// How many rows a request was about, for those that are asked.
type Outcome = Result<usize, StoreError>;

/// What the thread is asked to do.
pub(super) enum Work {
    /// Write a batch.
    Commit(Arc<Commit>),
    /// Write a token or a tenant.
    Admin(Admin),
    /// Write what the archiver found out.
    Archive(Box<Archive>),
    /// Write what an erasure asks for.
    Erase(Erase),
    /// Write over pages that are free, a piece of them: 1 once none is left. The first time (`from_start`) what is freed
    /// becomes free before that; the last time what fills them goes.
    Scrub { path: PathBuf, step: ScrubStep },
}

/// A step of [`Work::Scrub`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ScrubStep {
    /// What fills the pages goes, and what was freed becomes free.
    Settle,
    /// Free pages are filled.
    Fill,
}

struct Request {
    work: Work,
    reply: oneshot::Sender<Outcome>,
}

/// How much was written since the store was opened.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) requests: AtomicU64,
    pub(super) transactions: AtomicU64,
    /// Requests that may have freed pages with what nobody shall read any more.
    pub(super) removals: AtomicU64,
}

/// The handle of the thread. Dropping it lets the thread finish what it has, and waits.
pub(super) struct Writer {
    sender: Mutex<Option<mpsc::Sender<Request>>>,
    thread: Option<JoinHandle<()>>,
    pub(super) counters: Arc<Counters>,
}

impl Writer {
    pub(super) fn start(db: Arc<Database>, log: BodyLog, quick_repair: bool) -> std::io::Result<Self> {
        let (sender, receiver) = mpsc::channel();
        let counters = Arc::new(Counters::default());
        let mut thread =
            Thread { db, log, quick_repair, counters: Arc::clone(&counters), broken: None, unrecorded: true };
        let thread =
            std::thread::Builder::new().name("quipu-writer".into()).spawn(move || thread.run(&receiver))?;
        Ok(Self { sender: Mutex::new(Some(sender)), thread: Some(thread), counters })
    }

    /// Hands work over; what is returned waits for its outcome.
    pub(super) fn send(&self, work: Work) -> impl Future<Output = Outcome> + Send + use<> {
        let (reply, outcome) = oneshot::channel();
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = sender.as_ref().is_some_and(|sender| sender.send(Request { work, reply }).is_ok());
        async move {
            if !sent {
                return Err(StoreError::Unavailable { why: "the writer has stopped".into() });
            }
            // The thread answers everything it takes, unless it dies with it.
            outcome.await.unwrap_or_else(|_| Err(StoreError::Unknown { why: "the writer died".into() }))
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = self.thread.take() {
            // It catches its panics; there is nothing to learn from one here.
            let _ = thread.join();
        }
    }
}

struct Thread {
    db: Arc<Database>,
    log: BodyLog,
    quick_repair: bool,
    counters: Arc<Counters>,
    /// Why nothing more is written. After a failed commit the state on disk is not known, and an fsync that failed
    /// once may "succeed" the next time without having written (fsync errors are reported once on Linux).
    broken: Option<String>,
    /// True if the last commit did not record the allocator's state.
    unrecorded: bool,
}

/// How a group ended that was not made durable.
enum Failure {
    /// Nothing was written.
    Before(StoreError),
    /// It may have been.
    During(String),
}

impl Thread {
    fn run(&mut self, receiver: &mpsc::Receiver<Request>) {
        loop {
            let first = if self.unrecorded && self.broken.is_none() {
                match receiver.recv_timeout(IDLE_BEFORE_RECORD) {
                    Ok(request) => request,
                    Err(mpsc::RecvTimeoutError::Timeout) => {
                        self.record_allocator();
                        continue;
                    }
                    Err(mpsc::RecvTimeoutError::Disconnected) => return,
                }
            } else {
                match receiver.recv() {
                    Ok(request) => request,
                    Err(mpsc::RecvError) => return,
                }
            };
            let mut group = vec![first];
            let mut bytes = group[0].work.bytes();
            let mut alone = None;
            if !group[0].work.is_alone() {
                while group.len() < GROUP_REQUESTS_MAX && bytes < GROUP_BYTES_MAX {
                    let Ok(request) = receiver.try_recv() else { break };
                    if request.work.is_alone() {
                        alone = Some(request);
                        break;
                    }
                    bytes += request.work.bytes();
                    group.push(request);
                }
            }
            self.serve(group);
            if let Some(request) = alone {
                self.serve(vec![request]);
            }
        }
    }

    fn serve(&mut self, group: Vec<Request>) {
        let outcomes = if let Some(why) = &self.broken {
            Err(Failure::Before(StoreError::Unavailable {
                why: format!("the store must be reopened after a failed write: {why}"),
            }))
        } else if let [Request { work: Work::Scrub { path, step }, .. }] = group.as_slice() {
            self.scrub(path, *step)
        } else {
            self.write(&group)
        };
        match outcomes {
            Ok(outcomes) => {
                for (request, outcome) in group.into_iter().zip(outcomes) {
                    // Whoever no longer waits does not want to know.
                    let _ = request.reply.send(outcome);
                }
            }
            Err(failure) => {
                let error = match failure {
                    Failure::Before(error) => error,
                    Failure::During(why) => {
                        tracing::error!(%why, "a commit failed; the store refuses writes until it is reopened");
                        self.broken = Some(why.clone());
                        StoreError::Unknown { why }
                    }
                };
                for request in group {
                    let _ = request.reply.send(Err(error.clone()));
                }
            }
        }
    }

    fn write(&mut self, group: &[Request]) -> Result<Vec<Outcome>, Failure> {
        let txn = self.begin().map_err(Failure::Before)?;
        let log = self.log;
        // A panic here (damaged pages) unwinds past the open tables and leaves the transaction to be aborted.
        let applied = guarded(|| apply(&txn, log, group));
        let (outcomes, log) = match applied {
            Ok(applied) => applied,
            Err(error) => {
                let _ = guarded(|| txn.abort().map_err(fail));
                return Err(Failure::Before(error));
            }
        };
        self.counters.requests.fetch_add(group.len() as u64, Ordering::Relaxed);
        let removals = group.iter().filter(|request| request.work.removes()).count();
        self.counters.removals.fetch_add(removals as u64, Ordering::Relaxed);
        if outcomes.iter().all(Result::is_err) {
            let _ = guarded(|| txn.abort().map_err(fail));
            return Ok(outcomes);
        }
        self.commit(txn).map_err(Failure::During)?;
        self.log = log;
        self.unrecorded = !self.quick_repair;
        Ok(outcomes)
    }

    /// A transaction of redb's that failed leaves the state on disk unknown, this one like any other.
    fn scrub(&mut self, path: &Path, step: ScrubStep) -> Result<Vec<Outcome>, Failure> {
        self.unrecorded = !self.quick_repair;
        let done = guarded(|| match step {
            ScrubStep::Settle => scrub::settle(&self.db).map(|()| true),
            ScrubStep::Fill => scrub::fill(&self.db, path),
        });
        done.map(|done| vec![Ok(usize::from(done))]).map_err(|e| Failure::During(e.to_string()))
    }

    fn begin(&self) -> Result<WriteTransaction, StoreError> {
        guarded(|| {
            let mut txn = self.db.begin_write().map_err(fail)?;
            txn.set_durability(Durability::Immediate).map_err(fail)?;
            txn.set_quick_repair(self.quick_repair);
            Ok(txn)
        })
    }

    fn commit(&self, txn: WriteTransaction) -> Result<(), String> {
        self.counters.transactions.fetch_add(1, Ordering::Relaxed);
        guarded(|| txn.commit().map_err(fail)).map_err(|e| e.to_string())
    }

    fn record_allocator(&mut self) {
        self.unrecorded = false;
        let Ok(mut txn) = self.begin() else { return };
        txn.set_quick_repair(true);
        if let Err(why) = self.commit(txn) {
            tracing::error!(%why, "a commit failed; the store refuses writes until it is reopened");
            self.broken = Some(why);
        }
    }
}

/// Applies a group to a transaction: an outcome for each request, to be told once the transaction is durable. An
/// error concerns the whole group.
fn apply(
    txn: &WriteTransaction,
    log: BodyLog,
    group: &[Request],
) -> Result<(Vec<Outcome>, BodyLog), StoreError> {
    let mut outcomes = Vec::with_capacity(group.len());
    let mut tables = Group::open(txn, log)?;
    for request in group {
        outcomes.push(match &request.work {
            Work::Commit(commit) => match tables.check(commit) {
                Ok(checked) => {
                    tables.write(&checked)?;
                    Ok(0)
                }
                Err(refused) => Err(refused),
            },
            Work::Admin(admin) => tokens::apply(txn, admin)?.map(|()| 0),
            Work::Archive(work) => tables.archive(work)?,
            Work::Erase(work) => tables.erase(work)?,
            Work::Scrub { .. } => Err(StoreError::Unavailable { why: "not in a group".into() }),
        });
    }
    Ok((outcomes, tables.finish()?))
}

impl Work {
    fn bytes(&self) -> usize {
        match self {
            Self::Commit(commit) => commit.segments.iter().map(|s| s.body.len()).sum(),
            Self::Erase(Erase::Body(replacement)) => replacement.body.len(),
            Self::Admin(_) | Self::Archive(_) | Self::Erase(_) | Self::Scrub { .. } => 0,
        }
    }

    /// True for what no other request may share a transaction with. What takes contents away is alone, so that the pages
    /// that it changes are those of the transactions before: redb then makes them new.
    fn is_alone(&self) -> bool {
        matches!(self, Self::Scrub { .. } | Self::Erase(Erase::Body(_) | Erase::Pointer { .. }))
    }

    /// True for what takes contents away, or text that comes from them.
    fn removes(&self) -> bool {
        match self {
            Self::Erase(Erase::Body(_) | Erase::Pointer { .. }) => true,
            Self::Archive(work) => matches!(**work, Archive::Expire { .. }),
            Self::Erase(_) | Self::Commit(_) | Self::Admin(_) | Self::Scrub { .. } => false,
        }
    }
}
