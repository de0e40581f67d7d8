//! A decorator that does to a store's calls what networks, timeouts and crashes do: loses them, applies them and
//! loses the answer, applies them late, refuses them, dies.
//!
//! What happens is scripted ([`Faulty::on`], call by call) or drawn at random from a seed ([`Faulty::random`]). A
//! draw depends on the seed, the operation and the number of the call alone, so that a run can be repeated however
//! its tasks interleave. [`Faulty::hide_feed`] makes everything that may lag do so.
//!
//! Reads have nothing to apply: a fault that loses a write makes a read `Unavailable`, which is all that a read's
//! contract allows.

mod calls;
mod gate;
mod lag;
mod op;
#[cfg(all(test, feature = "embedded"))]
mod tests;

pub use gate::Gate;
pub use op::Op;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::sleep;

use self::lag::Sightings;
use super::{Store, StoreError};

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
