//! The archiver: moves what is settled of a tenant into the next batch of its log (DESIGN section 5).
//!
//! Stage, claim, publish, record. The claim decides: one header of each number can be written, once. Everything before
//! it may be thrown away; everything after it can be done by anybody, again and late, and is a no-op then. So a run
//! begins by finishing what another has claimed and not recorded, and only then claims a batch of its own.
//!
//! | step | what | condition |
//! |---|---|---|
//! | stage | the object, under a name of its own | absent |
//! | claim | the header | absent |
//! | publish | the object under its final name, the tiles; then read back | absent |
//! | sign | the header's signature, the checkpoint, the newest checkpoint | absent; a larger tree |
//! | record | catalogue, pointers, segments, `recorded` | absent; a higher sequence; this commit |
//!
//! Nothing leaves the hot tier before the read-back (P8): segments are marked, and so may expire, in the last step.

mod backlog;
mod encode;
mod erase;
mod plan;
mod publish;
mod record;
mod staging;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock::Clock;
use crate::event::{NewEvent, Redactions};
use crate::ids::{AgentId, ComplianceTag, EventType, Seq, SessionId, Severity, TenantId};
use crate::ledger::Ledger;
use crate::limits;
use crate::log::header::{self, BatchHeader};
use crate::log::identity::IdentityFile;
use crate::log::paths;
use crate::log::signer::LogSigner;
use crate::objects::{ObjectError, ObjectStore};
use crate::store::{Store, StoreError};
use crate::time::Micros;

use super::ArchiveError;

/// When a batch is closed, and how long what is archived stays hot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchiveSettings {
    /// Close a batch once its oldest segment is this old, ms.
    pub max_age_ms: i64,
    /// Close a batch at this many bytes of events before compression. A batch may pass it by one segment.
    pub max_bytes: u64,
    /// How long a segment stays hot after its batch was claimed, ms; for ever, if `None`.
    pub hot_retention_ms: Option<i64>,
}

impl Default for ArchiveSettings {
    fn default() -> Self {
        Self {
            max_age_ms: limits::ARCHIVE_MAX_AGE_MS,
            max_bytes: limits::ARCHIVE_MAX_BYTES,
            hot_retention_ms: None,
        }
    }
}

/// Whether to wait until a batch is worth closing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// Only what is old or large enough.
    WhenDue,
    /// Everything there is.
    Now,
}

/// A batch that a run has brought to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClosedBatch {
    /// Its number.
    pub batch: u64,
    /// Its events.
    pub events: u64,
    /// Length of its object, bytes.
    pub bytes: u64,
    /// The tree's size after it.
    pub tree_size: u64,
    /// True if another run had claimed it.
    pub taken_over: bool,
}

/// A session that cannot be archived past some place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokenChain {
    /// The session.
    pub session_id: SessionId,
    /// First sequence of the segment that does not fit.
    pub first: Seq,
    /// What is wrong with it.
    pub why: String,
}

/// What a run has done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunReport {
    /// Batches that are recorded now, in order.
    pub batches: Vec<ClosedBatch>,
    /// Sessions that this run was the first to find broken.
    pub broken: Vec<BrokenChain>,
    /// Commit time of the oldest segment that is still not archived, as far as the store's hints say.
    pub oldest_open: Option<Micros>,
    /// Erasures of which nothing is left now.
    pub erased: usize,
}

/// Why a run ended early. What it has done so far stays; the next run goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The ledger's store.
    #[error("the store: {0}")]
    Store(#[from] StoreError),
    /// Where the archive lies.
    #[error("the archive: {0}")]
    Objects(#[from] ObjectError),
    /// Parquet.
    #[error("a batch cannot be written or read: {0}")]
    Batch(#[from] ArchiveError),
    /// The log is not what this archiver or another one wrote. Nothing is added to it until somebody looks.
    #[error("the log of {tenant} is damaged at batch {batch}: {why}")]
    Damaged {
        /// Whose.
        tenant: TenantId,
        /// Which batch.
        batch: u64,
        /// What is wrong.
        why: String,
    },
    /// The log key at hand is not the deployment's: what it signed would make the log invalid.
    #[error("the log key at hand is {at_hand}, the deployment's is {log_key}")]
    AnotherKey {
        /// The key that would sign.
        at_hand: String,
        /// The deployment's.
        log_key: String,
    },
    /// The ledger is closed: nothing is archived until it is opened.
    #[error("the ledger is closed since {0}")]
    Closed(Micros),
    /// Another archiver was quicker, again and again.
    #[error("other archivers were quicker {0} times in a row")]
    Busy(usize),
}

/// Times that a run begins again after it has lost a claim.
const LOST_CLAIMS_MAX: usize = 16;

/// Session of the ledger's own events about an archive.
const OWN_SESSION: &str = "_system/archive";
/// Their agent.
const OWN_AGENT: &str = "quipu";

/// Moves segments from a ledger into its archive.
pub struct Archiver {
    ledger: Arc<Ledger>,
    objects: Arc<dyn ObjectStore>,
    staging: Arc<dyn ObjectStore>,
    signer: Arc<dyn LogSigner>,
    settings: ArchiveSettings,
    /// Sessions that this process has found broken: they do not make a batch due.
    broken: Mutex<HashSet<(TenantId, SessionId)>>,
}

/// The end of a tenant's log: the newest header.
#[derive(Debug, Clone)]
struct LogHead {
    header: BatchHeader,
    hash: [u8; 32],
    recorded: bool,
}

impl LogHead {
    /// Whether it continues the log behind this head, or begins one.
    fn follows(&self, before: Option<&Self>) -> bool {
        let end = before.map_or(([0; 32], 0), |before| (before.hash, before.header.tree_size));
        (self.header.prev, self.header.first_leaf) == end
    }
}

impl Archiver {
    /// An archiver of a ledger. Batches are staged in one store and published in another (they may be the same).
    pub fn new(
        ledger: Arc<Ledger>,
        objects: Arc<dyn ObjectStore>,
        staging: Arc<dyn ObjectStore>,
        signer: Arc<dyn LogSigner>,
        settings: ArchiveSettings,
    ) -> Self {
        Self { ledger, objects, staging, signer, settings, broken: Mutex::default() }
    }

    /// The ledger that it archives.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// Whether all that a run needs is there: the log key, the archive, the place where batches are staged.
    ///
    /// # Errors
    /// See [`RunError`].
    pub async fn check(&self) -> Result<(), RunError> {
        self.present_identity().await?;
        match self.objects.get(paths::IDENTITY).await {
            Ok(_) | Err(ObjectError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        self.staging.list("", None, 1).await?;
        Ok(())
    }

    async fn ensure_open(&self) -> Result<(), RunError> {
        self.store().closed().await?.map_or(Ok(()), |since| Err(RunError::Closed(since)))
    }

    /// The deployment's keys as they are now, of which the one at hand must be the newest: it may have been replaced
    /// since this process began.
    async fn present_identity(&self) -> Result<IdentityFile, RunError> {
        let (at_hand, identity) = (self.signer.verifier().await?, self.ledger.present_identity().await?);
        if at_hand == identity.log_key {
            return Ok(identity);
        }
        let (at_hand, log_key) = (at_hand.to_string(), identity.log_key.to_string());
        Err(RunError::AnotherKey { at_hand, log_key })
    }

    fn store(&self) -> &dyn Store {
        self.ledger.store().as_ref()
    }

    fn clock(&self) -> &dyn Clock {
        self.ledger.clock().as_ref()
    }

    fn known_broken(&self) -> MutexGuard<'_, HashSet<(TenantId, SessionId)>> {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Archives what a tenant has: finishes what was begun, then closes batches until nothing is left that should be.
    /// Begins no further batch after `until`.
    ///
    /// # Errors
    /// See [`RunError`]; the run can be repeated after any of them.
    pub async fn run(&self, tenant: &TenantId, close: Close, until: Micros) -> Result<RunReport, RunError> {
        // 0. What is to be erased is out of the hot tier before a batch is made of it.
        self.ensure_open().await?;
        self.erase_hot(tenant).await?;
        let mut report = self.close_batches(tenant, close, until).await?;
        // 5. What is archived of it.
        self.erase_archived(tenant, until, &mut report).await?;
        Ok(report)
    }

    async fn close_batches(
        &self,
        tenant: &TenantId,
        close: Close,
        until: Micros,
    ) -> Result<RunReport, RunError> {
        let mut report = RunReport::default();
        let mut lost_claims = 0;
        loop {
            // 1. What is there to do?
            self.ensure_open().await?;
            let backlog = self.backlog(tenant).await?;
            report.oldest_open = backlog.oldest;
            let due = match close {
                Close::Now => true,
                Close::WhenDue => backlog.due(&self.settings, self.clock().now()),
            };
            let known = self.store().last_batch(tenant).await?;
            if !due && known.as_ref().is_none_or(|batch| batch.recorded) {
                return Ok(report);
            }
            // 2. The log's head; whatever another run has left is finished first.
            let mut head = None;
            for unfinished in self.heads(tenant, known).await? {
                if !unfinished.recorded {
                    report.batches.push(self.finish(tenant, &unfinished, None).await?);
                }
                head = Some(unfinished);
            }
            // 3. A batch of our own.
            if !due || backlog.sessions.is_empty() || self.clock().now() >= until {
                return Ok(report);
            }
            let plan = self.plan(tenant, &backlog).await?;
            let encoded = match plan.runs.is_empty() {
                true => None,
                false => self.encode(tenant, head.as_ref(), &plan.runs).await?,
            };
            if let Some(encoded) = &encoded {
                self.tell_broken(tenant, &encoded.broken, &mut report).await?;
            }
            let Some(encoded) = encoded.filter(|encoded| !encoded.runs.is_empty()) else {
                // Nothing of what the hints named can be archived.
                return Ok(report);
            };
            // 4. Unless somebody asked meanwhile to erase what is in it: then it is made again.
            if self.is_erased_meanwhile(tenant, &encoded.runs, &encoded.erased).await? {
                lost_claims += 1;
                if lost_claims == LOST_CLAIMS_MAX {
                    return Err(RunError::Busy(lost_claims));
                }
                continue;
            }
            match self.claim(tenant, head.as_ref(), encoded).await? {
                Some((claimed, encoded)) => {
                    report.batches.push(self.finish(tenant, &claimed, Some(encoded)).await?);
                }
                None => {
                    lost_claims += 1;
                    if lost_claims == LOST_CLAIMS_MAX {
                        return Err(RunError::Busy(lost_claims));
                    }
                }
            }
        }
    }

    /// The newest header that the catalogue knows and every one after it, lowest first.
    async fn heads(
        &self,
        tenant: &TenantId,
        known: Option<crate::store::BatchRecord>,
    ) -> Result<Vec<LogHead>, RunError> {
        let mut heads: Vec<LogHead> = Vec::new();
        let mut number = 1;
        if let Some(known) = known {
            let Some(head) = self.read_header(tenant, known.batch).await? else {
                return Err(damaged(tenant, known.batch, "the catalogue has a batch whose header is gone"));
            };
            if head.hash != known.header_hash {
                return Err(damaged(tenant, known.batch, "the header is not the one in the catalogue"));
            }
            number = known.batch + 1;
            heads.push(LogHead { recorded: known.recorded, ..head });
        }
        while let Some(head) = self.read_header(tenant, number).await? {
            if !head.follows(heads.last()) {
                return Err(damaged(tenant, number, "the header does not follow the one before it"));
            }
            heads.push(head);
            number += 1;
        }
        Ok(heads)
    }

    async fn read_header(&self, tenant: &TenantId, number: u64) -> Result<Option<LogHead>, RunError> {
        let bytes = match self.objects.get(&paths::header(tenant, number)).await {
            Ok(object) => object.bytes,
            Err(ObjectError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let header =
            BatchHeader::parse(&bytes).map_err(|e| damaged(tenant, number, format!("the header: {e}")))?;
        if header.tenant != *tenant || header.batch != number {
            return Err(damaged(tenant, number, "the header is another's"));
        }
        Ok(Some(LogHead { header, hash: header::hash_of(&bytes), recorded: false }))
    }

    /// Tells everybody, once, that a session is broken: the log, an event of the tenant's, the caller.
    async fn tell_broken(
        &self,
        tenant: &TenantId,
        found: &[BrokenChain],
        report: &mut RunReport,
    ) -> Result<(), RunError> {
        for chain in found {
            self.known_broken().insert((tenant.clone(), chain.session_id.clone()));
            let now = self.clock().now();
            if !self.store().mark_broken(tenant, &chain.session_id, chain.first, now).await? {
                continue;
            }
            let session = chain.session_id.as_str();
            tracing::error!(%tenant, session, first = chain.first.get(), why = chain.why, "a chain is broken");
            let event = broken_event(chain);
            if let Err(error) = self.ledger.append(tenant, vec![event], None).await {
                tracing::error!(%tenant, session, %error, "the event quipu.chain_broken could not be appended");
            }
            report.broken.push(chain.clone());
        }
        Ok(())
    }
}

fn damaged(tenant: &TenantId, batch: u64, why: impl Into<String>) -> RunError {
    RunError::Damaged { tenant: tenant.clone(), batch, why: why.into() }
}

fn broken_event(chain: &BrokenChain) -> NewEvent {
    let payload = serde_json::json!({
        "session_id": chain.session_id.as_str(),
        "sequence": chain.first.get(),
        "why": chain.why,
    });
    NewEvent {
        session_id: SessionId::parse(OWN_SESSION).expect("a session id"),
        agent_id: AgentId::parse(OWN_AGENT).expect("an agent id"),
        timestamp: None,
        event_type: EventType::parse("quipu.chain_broken").expect("an event type"),
        severity: Severity::Critical,
        source_id: None,
        payload: payload.to_string(),
        metadata: "{}".to_owned(),
        compliance_tag: ComplianceTag::default_tag(),
        pii_types: Vec::new(),
        redactions: Redactions::default(),
    }
}
