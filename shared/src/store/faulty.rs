//! A decorator that does to a store's calls what networks, timeouts and crashes do: loses them, applies them and
//! loses the answer, applies them late, refuses them, dies.
//!
//! What happens is scripted ([`Faulty::on`], call by call) or drawn at random from a seed ([`Faulty::random`]). A
//! draw depends on the seed, the operation and the number of the call alone, so that a run can be repeated however
//! its tasks interleave. [`Faulty::hide_feed`] makes everything that may lag do so.
//!
//! Reads have nothing to apply: a fault that loses a write makes a read `Unavailable`, which is all that a read's
//! contract allows.

mod lag;
#[cfg(all(test, feature = "embedded"))]
mod tests;

mod gate;

pub use gate::Gate;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::time::sleep;

use self::lag::Sightings;
use super::{
    AgentRecord, BatchRecord, Commit, ErasureRecord, FeedEntry, FeedPosition, Idempotency, OpenEntry, Order,
    Pointer, SessionRecord, Store, StoreError, StoredBody, TenantRecord, TimePage,
};
use crate::auth::TokenRecord;
use crate::ids::{AgentId, CommitId, EventId, Seq, SessionId, TenantId};
use crate::segment::{Head, SegmentMeta};
use crate::time::Micros;

/// The calls of a [`Store`], by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(usize)]
#[expect(missing_docs, reason = "each is the method of the same name")]
pub enum Op {
    Commit,
    Head,
    CommitAt,
    Segments,
    Body,
    Feed,
    FeedCommit,
    ByTime,
    Session,
    Sessions,
    Agent,
    Agents,
    Idempotency,
    CreateToken,
    Bootstrapped,
    TokenByHash,
    Tokens,
    RevokeToken,
    TouchToken,
    CreateTenant,
    Tenant,
    Tenants,
    OpenSegments,
    Pointer,
    AdvancePointer,
    MarkArchived,
    MarkBroken,
    PutBatch,
    MarkRecorded,
    LastBatch,
    Batches,
    Closed,
    SetClosed,
    Expire,
    PutErasure,
    Erasure,
    UpdateErasure,
    Erasures,
    StoredBody,
    ReplaceBody,
    ReplacePointer,
    ResizeBatch,
    Scrub,
}

impl Op {
    /// All of them.
    pub const ALL: [Self; 43] = [
        Self::Commit,
        Self::Head,
        Self::CommitAt,
        Self::Segments,
        Self::Body,
        Self::Feed,
        Self::FeedCommit,
        Self::ByTime,
        Self::Session,
        Self::Sessions,
        Self::Agent,
        Self::Agents,
        Self::Idempotency,
        Self::CreateToken,
        Self::Bootstrapped,
        Self::TokenByHash,
        Self::Tokens,
        Self::RevokeToken,
        Self::TouchToken,
        Self::CreateTenant,
        Self::Tenant,
        Self::Tenants,
        Self::OpenSegments,
        Self::Pointer,
        Self::AdvancePointer,
        Self::MarkArchived,
        Self::MarkBroken,
        Self::PutBatch,
        Self::MarkRecorded,
        Self::LastBatch,
        Self::Batches,
        Self::Closed,
        Self::SetClosed,
        Self::Expire,
        Self::PutErasure,
        Self::Erasure,
        Self::UpdateErasure,
        Self::Erasures,
        Self::StoredBody,
        Self::ReplaceBody,
        Self::ReplacePointer,
        Self::ResizeBatch,
        Self::Scrub,
    ];
}

/// What happens to one call.
#[derive(Debug, Clone)]
pub enum Fault {
    /// It is not applied; the answer is `Unknown`.
    Lose,
    /// It is applied (if its conditions hold); the answer is `Unknown`.
    ApplyThenError,
    /// The answer is `Unknown` at once; it is applied this much later. Needs a runtime.
    ApplyLate(Duration),
    /// It is not applied; this is the answer.
    Refuse(StoreError),
    /// It takes effect at once; its answer comes this much later. The answer of a read is stale by then.
    Delay(Duration),
    /// The process sleeps before the call until the gate opens; then all goes on as if nothing had been.
    Hold(Gate),
    /// The process dies: this call is applied or not, its answer is `Unknown`, every later call is `Unavailable`,
    /// and no call that was under way is heard of. What is to be applied late still is: it was sent.
    Crash {
        /// Whether this call is applied.
        applied: bool,
    },
}

/// How often each fault happens in the random mode: probabilities from 0 to 1, of which at most one comes true.
#[derive(Debug, Clone, Copy, Default)]
pub struct Chances {
    /// [`Fault::Lose`]
    pub lose: f64,
    /// [`Fault::ApplyThenError`]
    pub apply_then_error: f64,
    /// [`Fault::ApplyLate`], by up to `duration_max`.
    pub apply_late: f64,
    /// [`Fault::Refuse`] with [`StoreError::Throttled`].
    pub throttle: f64,
    /// [`Fault::Refuse`] with [`StoreError::Unavailable`].
    pub unavailable: f64,
    /// [`Fault::Delay`], by up to `duration_max`.
    pub delay: f64,
    /// Longest lateness or delay.
    pub duration_max: Duration,
}

/// What a throttled call is asked to wait, in the random mode.
const THROTTLED_FOR: Duration = Duration::from_millis(5);

/// A store whose calls fail as planned.
pub struct Faulty {
    inner: Arc<dyn Store>,
    plan: Mutex<HashMap<(Op, usize), Fault>>,
    random: Option<(u64, Chances)>,
    counts: [AtomicUsize; Op::ALL.len()],
    crashed: AtomicBool,
    /// Set for good once a batch may be applied late: see [`Store::orders_commits`].
    unordered: AtomicBool,
    hidden: Option<Duration>,
    sightings: Mutex<Sightings>,
    late: Mutex<Vec<tokio::task::JoinHandle<()>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// splitmix64 (Steele, Lea, Flood 2014): one step.
pub(super) fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A number in 0..1 from a hash.
fn unit(hash: u64) -> f64 {
    (hash >> 11) as f64 / (1u64 << 53) as f64
}

fn lost(op: Op) -> StoreError {
    StoreError::Unknown { why: format!("a planned fault lost the answer of {op:?}") }
}

fn unavailable(op: Op) -> StoreError {
    StoreError::Unavailable { why: format!("a planned fault kept {op:?} from the store") }
}

fn dead(op: Op) -> StoreError {
    StoreError::Unavailable { why: format!("{op:?} after the planned crash") }
}

impl Faulty {
    /// A store without a fault, until one is planned.
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self {
            inner,
            plan: Mutex::default(),
            random: None,
            counts: std::array::from_fn(|_| AtomicUsize::new(0)),
            crashed: AtomicBool::new(false),
            unordered: AtomicBool::new(false),
            hidden: None,
            sightings: Mutex::default(),
            late: Mutex::default(),
        }
    }

    /// Plans a fault for the `nth` call of an operation, counted from 1.
    #[must_use]
    pub fn on(self, op: Op, nth: usize, fault: Fault) -> Self {
        self.plan(op, nth, fault);
        self
    }

    /// Lets calls that are not planned fail at random.
    #[must_use]
    pub fn random(mut self, seed: u64, chances: Chances) -> Self {
        if chances.apply_late > 0.0 {
            self.unordered.store(true, Ordering::SeqCst);
        }
        self.random = Some((seed, chances));
        self
    }

    /// Hides each entry of the feed, of the time index, of open segments, of sessions and agents for its own pseudo-random while of up
    /// to `lag_max` after this decorator saw its commit. So a later entry may be seen before an earlier one. A session
    /// shows what it was before the first commit that is hidden (at least what is archived); an agent is hidden until the first commit (through
    /// this decorator) that named it is not.
    #[must_use]
    pub fn hide_feed(mut self, lag_max: Duration) -> Self {
        self.hidden = Some(lag_max);
        self
    }

    /// Plans a fault for the `nth` call of an operation, counted from 1 and from the making of this decorator.
    pub fn plan(&self, op: Op, nth: usize, fault: Fault) {
        assert!(nth > 0, "calls are counted from 1");
        if op == Op::Commit && matches!(fault, Fault::ApplyLate(_) | Fault::Hold(_)) {
            self.unordered.store(true, Ordering::SeqCst);
        }
        lock(&self.plan).insert((op, nth), fault);
    }

    /// Plans a fault for the next call of an operation.
    pub fn plan_next(&self, op: Op, fault: Fault) {
        self.plan(op, self.calls(op) + 1, fault);
    }

    /// How often an operation was called, whatever came of it.
    pub fn calls(&self, op: Op) -> usize {
        self.counts[op as usize].load(Ordering::SeqCst)
    }

    /// True after a [`Fault::Crash`].
    pub fn has_crashed(&self) -> bool {
        self.crashed.load(Ordering::SeqCst)
    }

    /// True if every planned fault has happened: a plan that was never reached tests nothing.
    pub fn is_plan_done(&self) -> bool {
        lock(&self.plan).is_empty()
    }

    /// Waits until everything that was to be applied late is.
    ///
    /// # Panics
    /// If the inner store panicked.
    pub async fn settle(&self) {
        loop {
            let Some(task) = lock(&self.late).pop() else { return };
            task.await.expect("a late call ends");
        }
    }

    /// Counts a call and says what is to happen to it.
    fn enter(&self, op: Op) -> Result<Option<Fault>, StoreError> {
        let nth = self.counts[op as usize].fetch_add(1, Ordering::SeqCst) + 1;
        if self.has_crashed() {
            return Err(dead(op));
        }
        let planned = lock(&self.plan).remove(&(op, nth));
        Ok(planned.or_else(|| self.draw(op, nth)))
    }

    fn draw(&self, op: Op, nth: usize) -> Option<Fault> {
        let (seed, chances) = self.random?;
        let hash = mix(mix(seed ^ op as u64) ^ nth as u64);
        let duration = chances.duration_max.mul_f64(unit(mix(hash)));
        let mut left = unit(hash);
        let mut hit = |chance: f64| {
            left -= chance;
            left < 0.0
        };
        if hit(chances.lose) {
            Some(Fault::Lose)
        } else if hit(chances.apply_then_error) {
            Some(Fault::ApplyThenError)
        } else if hit(chances.apply_late) {
            Some(Fault::ApplyLate(duration))
        } else if hit(chances.throttle) {
            Some(Fault::Refuse(StoreError::Throttled { retry_after: THROTTLED_FOR }))
        } else if hit(chances.unavailable) {
            Some(Fault::Refuse(unavailable(op)))
        } else if hit(chances.delay) {
            Some(Fault::Delay(duration))
        } else {
            None
        }
    }

    fn crash(&self) {
        self.crashed.store(true, Ordering::SeqCst);
    }

    fn apply_late<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>> + Send + 'static,
        after: Duration,
    ) {
        let task = tokio::spawn(async move {
            sleep(after).await;
            // Nobody is there any more to be told how it ended.
            let _ = call.await;
        });
        lock(&self.late).push(task);
    }

    /// An answer is heard only by a process that lives: after a crash a write's is not known, a read's does not come.
    fn heard<T>(&self, answer: Result<T, StoreError>, silence: StoreError) -> Result<T, StoreError> {
        if self.has_crashed() { Err(silence) } else { answer }
    }

    async fn read<T>(
        &self,
        op: Op,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        match self.enter(op)? {
            None => self.heard(call.await, dead(op)),
            Some(Fault::Lose | Fault::ApplyThenError | Fault::ApplyLate(_)) => Err(unavailable(op)),
            Some(Fault::Refuse(error)) => Err(error),
            Some(Fault::Delay(duration)) => {
                let answer = call.await;
                sleep(duration).await;
                self.heard(answer, dead(op))
            }
            Some(Fault::Hold(gate)) => {
                gate.pass().await;
                self.heard(call.await, dead(op))
            }
            Some(Fault::Crash { .. }) => {
                self.crash();
                Err(dead(op))
            }
        }
    }

    async fn write<T>(
        &self,
        op: Op,
        call: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        match self.enter(op)? {
            None => self.heard(call.await, lost(op)),
            Some(Fault::Lose) => Err(lost(op)),
            Some(Fault::ApplyThenError) => {
                let _ = call.await;
                Err(lost(op))
            }
            Some(Fault::ApplyLate(after)) => {
                self.apply_late(call, after);
                Err(lost(op))
            }
            Some(Fault::Refuse(error)) => Err(error),
            Some(Fault::Delay(duration)) => {
                let answer = call.await;
                sleep(duration).await;
                self.heard(answer, lost(op))
            }
            Some(Fault::Hold(gate)) => {
                gate.pass().await;
                self.heard(call.await, lost(op))
            }
            Some(Fault::Crash { applied }) => {
                self.crash();
                if applied {
                    let _ = call.await;
                }
                Err(lost(op))
            }
        }
    }
}

#[async_trait]
impl Store for Faulty {
    fn commit(&self, commit: Arc<Commit>) -> BoxFuture<'_, Result<(), StoreError>> {
        const OP: Op = Op::Commit;
        let fault = match self.enter(OP) {
            Ok(fault) => fault,
            Err(error) => return Box::pin(async { Err(error) }),
        };
        if !matches!(fault, Some(Fault::Lose | Fault::Refuse(_) | Fault::Crash { applied: false })) {
            self.sight(&commit);
        }
        // What is to be applied is handed over right here, not when the answer is awaited.
        match fault {
            None => {
                let call = self.inner.commit(commit);
                Box::pin(async move { self.heard(call.await, lost(OP)) })
            }
            Some(Fault::Lose) => Box::pin(async { Err(lost(OP)) }),
            Some(Fault::ApplyThenError) => {
                let call = self.inner.commit(commit);
                Box::pin(async move {
                    let _ = call.await;
                    Err(lost(OP))
                })
            }
            Some(Fault::ApplyLate(after)) => {
                let inner = self.inner.clone();
                self.apply_late(async move { inner.commit(commit).await }, after);
                Box::pin(async { Err(lost(OP)) })
            }
            Some(Fault::Refuse(error)) => Box::pin(async { Err(error) }),
            Some(Fault::Delay(duration)) => {
                let call = self.inner.commit(commit);
                Box::pin(async move {
                    let answer = call.await;
                    sleep(duration).await;
                    self.heard(answer, lost(OP))
                })
            }
            Some(Fault::Hold(gate)) => Box::pin(async move {
                gate.pass().await;
                self.heard(self.inner.commit(commit).await, lost(OP))
            }),
            Some(Fault::Crash { applied }) => {
                self.crash();
                let call = applied.then(|| self.inner.commit(commit));
                Box::pin(async move {
                    if let Some(call) = call {
                        let _ = call.await;
                    }
                    Err(lost(OP))
                })
            }
        }
    }

    /// As the inner store, but false once a batch may be applied late: that breaks any order.
    fn orders_commits(&self) -> bool {
        self.inner.orders_commits() && !self.unordered.load(Ordering::SeqCst)
    }

    async fn head(&self, tenant: &TenantId, session: &SessionId) -> Result<Option<Head>, StoreError> {
        self.read(Op::Head, self.inner.head(tenant, session)).await
    }

    async fn commit_at(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        first: Seq,
    ) -> Result<Option<CommitId>, StoreError> {
        self.read(Op::CommitAt, self.inner.commit_at(tenant, session, first)).await
    }

    async fn segments(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        from: Seq,
        order: Order,
        limit: usize,
    ) -> Result<Vec<SegmentMeta>, StoreError> {
        self.read(Op::Segments, self.inner.segments(tenant, session, from, order, limit)).await
    }

    async fn body(&self, tenant: &TenantId, session: &SessionId, first: Seq) -> Result<Bytes, StoreError> {
        self.read(Op::Body, self.inner.body(tenant, session, first)).await
    }

    async fn feed(
        &self,
        tenant: &TenantId,
        after: Option<&FeedPosition>,
        limit: usize,
    ) -> Result<Vec<FeedEntry>, StoreError> {
        self.read(Op::Feed, self.visible_feed(tenant, after, limit)).await
    }

    async fn feed_commit(&self, tenant: &TenantId, commit: CommitId) -> Result<Vec<FeedEntry>, StoreError> {
        let mut entries = self.read(Op::FeedCommit, self.inner.feed_commit(tenant, commit)).await?;
        entries.retain(|e| !self.is_hidden(e.meta.commit_id, &e.session_id));
        Ok(entries)
    }

    async fn by_time(
        &self,
        tenant: &TenantId,
        order: Order,
        from: Option<Micros>,
        page: Option<&[u8]>,
        limit: usize,
    ) -> Result<TimePage, StoreError> {
        let call = self.inner.by_time(tenant, order, from, page, limit);
        let mut page = self.read(Op::ByTime, call).await?;
        page.entries.retain(|e| !self.is_hidden(e.meta.commit_id, &e.session_id));
        Ok(page)
    }

    async fn session(
        &self,
        tenant: &TenantId,
        session: &SessionId,
    ) -> Result<Option<SessionRecord>, StoreError> {
        match self.read(Op::Session, self.inner.session(tenant, session)).await? {
            Some(record) => self.before_hidden(tenant, record).await,
            None => Ok(None),
        }
    }

    async fn sessions(
        &self,
        tenant: &TenantId,
        agent: Option<&AgentId>,
        after: Option<&FeedPosition>,
        limit: usize,
    ) -> Result<Vec<SessionRecord>, StoreError> {
        self.read(Op::Sessions, self.visible_sessions(tenant, agent, after, limit)).await
    }

    async fn agent(&self, tenant: &TenantId, agent: &AgentId) -> Result<Option<AgentRecord>, StoreError> {
        let record = self.read(Op::Agent, self.inner.agent(tenant, agent)).await?;
        Ok(record.filter(|_| !self.is_agent_hidden(tenant, agent)))
    }

    async fn agents(
        &self,
        tenant: &TenantId,
        after: Option<&AgentId>,
        limit: usize,
    ) -> Result<Vec<AgentRecord>, StoreError> {
        self.read(Op::Agents, self.visible_agents(tenant, after, limit)).await
    }

    async fn idempotency(
        &self,
        tenant: &TenantId,
        key: &[u8; 32],
    ) -> Result<Option<Idempotency>, StoreError> {
        self.read(Op::Idempotency, self.inner.idempotency(tenant, key)).await
    }

    async fn create_token(&self, token: &TokenRecord, first: bool) -> Result<(), StoreError> {
        let (inner, token) = (self.inner.clone(), token.clone());
        self.write(Op::CreateToken, async move { inner.create_token(&token, first).await }).await
    }

    async fn bootstrapped(&self) -> Result<bool, StoreError> {
        self.read(Op::Bootstrapped, self.inner.bootstrapped()).await
    }

    async fn token_by_hash(&self, hash: &[u8; 32]) -> Result<Option<TokenRecord>, StoreError> {
        self.read(Op::TokenByHash, self.inner.token_by_hash(hash)).await
    }

    async fn tokens(&self, tenant: &TenantId) -> Result<Vec<TokenRecord>, StoreError> {
        self.read(Op::Tokens, self.inner.tokens(tenant)).await
    }

    async fn revoke_token(&self, tenant: &TenantId, id: &str, at: Micros) -> Result<(), StoreError> {
        let (inner, tenant, id) = (self.inner.clone(), tenant.clone(), id.to_owned());
        self.write(Op::RevokeToken, async move { inner.revoke_token(&tenant, &id, at).await }).await
    }

    async fn touch_token(&self, hash: &[u8; 32], at: Micros) -> Result<(), StoreError> {
        let (inner, hash) = (self.inner.clone(), *hash);
        self.write(Op::TouchToken, async move { inner.touch_token(&hash, at).await }).await
    }

    async fn create_tenant(&self, tenant: &TenantRecord) -> Result<(), StoreError> {
        let (inner, tenant) = (self.inner.clone(), tenant.clone());
        self.write(Op::CreateTenant, async move { inner.create_tenant(&tenant).await }).await
    }

    async fn tenant(&self, tenant: &TenantId) -> Result<Option<TenantRecord>, StoreError> {
        self.read(Op::Tenant, self.inner.tenant(tenant)).await
    }

    async fn tenants(&self) -> Result<Vec<TenantRecord>, StoreError> {
        self.read(Op::Tenants, self.inner.tenants()).await
    }

    async fn open_segments(
        &self,
        tenant: &TenantId,
        after: Option<&FeedPosition>,
        limit: usize,
    ) -> Result<Vec<OpenEntry>, StoreError> {
        self.read(Op::OpenSegments, self.visible_open(tenant, after, limit)).await
    }

    async fn pointer(&self, tenant: &TenantId, session: &SessionId) -> Result<Option<Pointer>, StoreError> {
        self.read(Op::Pointer, self.inner.pointer(tenant, session)).await
    }

    async fn advance_pointer(&self, tenant: &TenantId, pointer: &Pointer) -> Result<(), StoreError> {
        let (inner, tenant, pointer) = (self.inner.clone(), tenant.clone(), pointer.clone());
        self.write(Op::AdvancePointer, async move { inner.advance_pointer(&tenant, &pointer).await }).await
    }

    async fn mark_archived(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        meta: &SegmentMeta,
        batch: u64,
        expires_at: Option<Micros>,
    ) -> Result<(), StoreError> {
        let inner = self.inner.clone();
        let (tenant, session, meta) = (tenant.clone(), session.clone(), meta.clone());
        let call = async move { inner.mark_archived(&tenant, &session, &meta, batch, expires_at).await };
        self.write(Op::MarkArchived, call).await
    }

    async fn mark_broken(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        first: Seq,
        at: Micros,
    ) -> Result<bool, StoreError> {
        let (inner, tenant, session) = (self.inner.clone(), tenant.clone(), session.clone());
        let call = async move { inner.mark_broken(&tenant, &session, first, at).await };
        self.write(Op::MarkBroken, call).await
    }

    async fn put_batch(&self, tenant: &TenantId, batch: &BatchRecord) -> Result<(), StoreError> {
        let (inner, tenant, batch) = (self.inner.clone(), tenant.clone(), batch.clone());
        self.write(Op::PutBatch, async move { inner.put_batch(&tenant, &batch).await }).await
    }

    async fn mark_recorded(&self, tenant: &TenantId, batch: u64) -> Result<(), StoreError> {
        let (inner, tenant) = (self.inner.clone(), tenant.clone());
        self.write(Op::MarkRecorded, async move { inner.mark_recorded(&tenant, batch).await }).await
    }

    async fn last_batch(&self, tenant: &TenantId) -> Result<Option<BatchRecord>, StoreError> {
        self.read(Op::LastBatch, self.inner.last_batch(tenant)).await
    }

    async fn batches(
        &self,
        tenant: &TenantId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<BatchRecord>, StoreError> {
        self.read(Op::Batches, self.inner.batches(tenant, after, limit)).await
    }

    async fn closed(&self) -> Result<Option<Micros>, StoreError> {
        self.read(Op::Closed, self.inner.closed()).await
    }

    async fn set_closed(&self, since: Option<Micros>) -> Result<(), StoreError> {
        let inner = self.inner.clone();
        self.write(Op::SetClosed, async move { inner.set_closed(since).await }).await
    }

    fn keeps_backups(&self) -> bool {
        self.inner.keeps_backups()
    }

    async fn put_erasure(&self, tenant: &TenantId, erasure: &ErasureRecord) -> Result<(), StoreError> {
        let (inner, tenant, erasure) = (self.inner.clone(), tenant.clone(), erasure.clone());
        self.write(Op::PutErasure, async move { inner.put_erasure(&tenant, &erasure).await }).await
    }

    async fn erasure(&self, tenant: &TenantId, event: EventId) -> Result<Option<ErasureRecord>, StoreError> {
        self.read(Op::Erasure, self.inner.erasure(tenant, event)).await
    }

    async fn update_erasure(
        &self,
        tenant: &TenantId,
        before: &ErasureRecord,
        after: &ErasureRecord,
    ) -> Result<(), StoreError> {
        let inner = self.inner.clone();
        let (tenant, before, after) = (tenant.clone(), before.clone(), after.clone());
        let call = async move { inner.update_erasure(&tenant, &before, &after).await };
        self.write(Op::UpdateErasure, call).await
    }

    async fn erasures(
        &self,
        tenant: &TenantId,
        done: bool,
        after: Option<EventId>,
        limit: usize,
    ) -> Result<Vec<ErasureRecord>, StoreError> {
        self.read(Op::Erasures, self.inner.erasures(tenant, done, after, limit)).await
    }

    async fn stored_body(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        first: Seq,
    ) -> Result<Option<StoredBody>, StoreError> {
        self.read(Op::StoredBody, self.inner.stored_body(tenant, session, first)).await
    }

    async fn replace_body(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        before: &StoredBody,
        meta: &SegmentMeta,
        body: Bytes,
    ) -> Result<(), StoreError> {
        let (inner, tenant, session) = (self.inner.clone(), tenant.clone(), session.clone());
        let (before, meta) = (before.clone(), meta.clone());
        let call = async move { inner.replace_body(&tenant, &session, &before, &meta, body).await };
        self.write(Op::ReplaceBody, call).await
    }

    async fn replace_pointer(
        &self,
        tenant: &TenantId,
        before: &Pointer,
        after: &Pointer,
    ) -> Result<(), StoreError> {
        let inner = self.inner.clone();
        let (tenant, before, after) = (tenant.clone(), before.clone(), after.clone());
        let call = async move { inner.replace_pointer(&tenant, &before, &after).await };
        self.write(Op::ReplacePointer, call).await
    }

    async fn resize_batch(
        &self,
        tenant: &TenantId,
        batch: u64,
        revision: u64,
        bytes: u64,
    ) -> Result<(), StoreError> {
        let (inner, tenant) = (self.inner.clone(), tenant.clone());
        let call = async move { inner.resize_batch(&tenant, batch, revision, bytes).await };
        self.write(Op::ResizeBatch, call).await
    }

    async fn scrub(&self, tenant: &TenantId, session: &SessionId, sequence: Seq) -> Result<(), StoreError> {
        let (inner, tenant, session) = (self.inner.clone(), tenant.clone(), session.clone());
        self.write(Op::Scrub, async move { inner.scrub(&tenant, &session, sequence).await }).await
    }

    async fn expire(&self, now: Micros, limit: usize) -> Result<usize, StoreError> {
        let inner = self.inner.clone();
        self.write(Op::Expire, async move { inner.expire(now, limit).await }).await
    }
}
