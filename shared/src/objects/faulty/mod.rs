//! A decorator that does to an archive's calls what networks, timeouts and crashes do: loses them, applies them and
//! loses the answer, applies them late or in part, refuses them, dies.
//!
//! The twin of [`crate::store::faulty`], and in its words: scripted ([`Faulty::on`], call by call) or drawn at random
//! from a seed ([`Faulty::random`]), by the seed, the operation and the number of the call alone, so that a run can be
//! repeated however its tasks interleave.
//!
//! Reads have nothing to apply: a fault that loses a write makes a read `Unavailable`, which is all that a read's
//! contract allows.

#[cfg(test)]
#[cfg(feature = "embedded")]
mod tests;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::sleep;

use super::{Condition, Listed, Object, ObjectError, ObjectStore, Purged, Tag};
use crate::store::faulty::Gate;

/// The calls of an [`ObjectStore`], by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(usize)]
#[expect(missing_docs, reason = "each is the method of the same name")]
pub enum Op {
    Get,
    GetRange,
    Size,
    Put,
    PutAbsent,
    List,
    Delete,
    Purge,
}

impl Op {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Get,
        Self::GetRange,
        Self::Size,
        Self::Put,
        Self::PutAbsent,
        Self::List,
        Self::Delete,
        Self::Purge,
    ];

    /// Those that change something.
    pub const WRITES: [Self; 4] = [Self::Put, Self::PutAbsent, Self::Delete, Self::Purge];
}

/// What happens to one call.
#[derive(Debug, Clone)]
pub enum Fault {
    /// It is not applied; the answer is `Unknown`.
    Lose,
    /// It is applied (if its condition holds); the answer is `Unknown`.
    ApplyThenError,
    /// The answer is `Unknown` at once; it is applied this much later. Needs a runtime.
    ApplyLate(Duration),
    /// Of a `put_absent`, this many objects are written, any of them; the answer is `Unknown`. Another write is applied
    /// unless this is 0.
    ApplyPart(usize),
    /// It is not applied; this is the answer.
    Refuse(ObjectError),
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
    /// The process dies, with the call applied as [`Fault::ApplyPart`] has it.
    CrashPart(usize),
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
    /// [`Fault::ApplyPart`], of up to `part_max` objects.
    pub apply_part: f64,
    /// [`Fault::Refuse`] with [`ObjectError::Unavailable`].
    pub unavailable: f64,
    /// [`Fault::Delay`], by up to `duration_max`.
    pub delay: f64,
    /// Longest lateness or delay.
    pub duration_max: Duration,
    /// Most objects of a part.
    pub part_max: usize,
}

/// A store of objects whose calls fail as planned.
pub struct Faulty {
    inner: Arc<dyn ObjectStore>,
    plan: Mutex<HashMap<(Op, usize), Fault>>,
    random: Option<(u64, Chances)>,
    counts: [AtomicUsize; Op::ALL.len()],
    crashed: AtomicBool,
    late: Mutex<Vec<tokio::task::JoinHandle<()>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// splitmix64 (Steele, Lea, Flood 2014): one step.
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A number in 0..1 from a hash.
fn unit(hash: u64) -> f64 {
    (hash >> 11) as f64 / (1u64 << 53) as f64
}

fn lost(op: Op) -> ObjectError {
    ObjectError::Unknown { why: format!("a planned fault lost the answer of {op:?}") }
}

fn unavailable(op: Op) -> ObjectError {
    ObjectError::Unavailable { why: format!("a planned fault kept {op:?} from the objects") }
}

fn dead(op: Op) -> ObjectError {
    ObjectError::Unavailable { why: format!("{op:?} after the planned crash") }
}

/// A write on its way: everything it needs, so that it can be applied whenever it is due.
#[derive(Clone)]
enum Write {
    Put(String, Bytes, Condition),
    PutAbsent(Vec<(String, Bytes)>),
    Delete(String),
    Purge(String),
}

/// What a write answers: the tag of a put, the keys of a `put_absent`, what a purge left.
type Answer = (Option<Tag>, Vec<String>, Purged);

impl Write {
    fn op(&self) -> Op {
        match self {
            Self::Put(..) => Op::Put,
            Self::PutAbsent(_) => Op::PutAbsent,
            Self::Delete(_) => Op::Delete,
            Self::Purge(_) => Op::Purge,
        }
    }

    async fn apply(self, inner: &dyn ObjectStore) -> Result<Answer, ObjectError> {
        match self {
            Self::Put(key, bytes, condition) => {
                inner.put(&key, bytes, condition).await.map(|tag| (Some(tag), Vec::new(), Purged::default()))
            }
            Self::PutAbsent(objects) => {
                inner.put_absent(objects).await.map(|existing| (None, existing, Purged::default()))
            }
            Self::Delete(key) => inner.delete(&key).await.map(|()| (None, Vec::new(), Purged::default())),
            Self::Purge(key) => inner.purge(&key).await.map(|purged| (None, Vec::new(), purged)),
        }
    }

    /// So much of it; `nth` says which of its objects.
    fn part(self, count: usize, nth: usize) -> Option<Self> {
        match self {
            Self::PutAbsent(objects) => {
                let mut objects: Vec<_> = objects.into_iter().enumerate().collect();
                // Requests that are under way together end in any order.
                objects.sort_by_key(|(i, _)| mix(mix(nth as u64) ^ *i as u64));
                objects.truncate(count);
                Some(Self::PutAbsent(objects.into_iter().map(|(_, object)| object).collect()))
            }
            other => (count > 0).then_some(other),
        }
    }
}

impl Faulty {
    /// Objects without a fault, until one is planned.
    pub fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self {
            inner,
            plan: Mutex::default(),
            random: None,
            counts: std::array::from_fn(|_| AtomicUsize::new(0)),
            crashed: AtomicBool::new(false),
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
        self.random = Some((seed, chances));
        self
    }

    /// Plans a fault for the `nth` call of an operation, counted from 1 and from the making of this decorator.
    pub fn plan(&self, op: Op, nth: usize, fault: Fault) {
        assert!(nth > 0, "calls are counted from 1");
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

    /// True after a crash.
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

    /// Counts a call, and says which it is and what is to happen to it.
    fn enter(&self, op: Op) -> Result<(usize, Option<Fault>), ObjectError> {
        let nth = self.counts[op as usize].fetch_add(1, Ordering::SeqCst) + 1;
        if self.has_crashed() {
            return Err(dead(op));
        }
        let planned = lock(&self.plan).remove(&(op, nth));
        Ok((nth, planned.or_else(|| self.draw(op, nth))))
    }

    fn draw(&self, op: Op, nth: usize) -> Option<Fault> {
        let (seed, chances) = self.random?;
        let hash = mix(mix(seed ^ op as u64) ^ nth as u64);
        let fraction = unit(mix(hash));
        let duration = chances.duration_max.mul_f64(fraction);
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
        } else if hit(chances.apply_part) {
            Some(Fault::ApplyPart((fraction * (chances.part_max + 1) as f64) as usize))
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

    /// An answer is heard only by a process that lives: after a crash a write's is not known, a read's does not come.
    fn heard<T>(&self, answer: Result<T, ObjectError>, silence: ObjectError) -> Result<T, ObjectError> {
        if self.has_crashed() { Err(silence) } else { answer }
    }

    async fn read<T>(
        &self,
        op: Op,
        call: impl Future<Output = Result<T, ObjectError>> + Send,
    ) -> Result<T, ObjectError> {
        match self.enter(op)?.1 {
            None => self.heard(call.await, dead(op)),
            Some(Fault::Lose | Fault::ApplyThenError | Fault::ApplyLate(_) | Fault::ApplyPart(_)) => {
                Err(unavailable(op))
            }
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
            Some(Fault::Crash { .. } | Fault::CrashPart(_)) => {
                self.crash();
                Err(dead(op))
            }
        }
    }

    async fn write(&self, write: Write) -> Result<Answer, ObjectError> {
        let op = write.op();
        let (nth, fault) = self.enter(op)?;
        let applied = match fault {
            None => return self.heard(write.apply(&*self.inner).await, lost(op)),
            Some(Fault::Refuse(error)) => return Err(error),
            Some(Fault::Delay(duration)) => {
                let answer = write.apply(&*self.inner).await;
                sleep(duration).await;
                return self.heard(answer, lost(op));
            }
            Some(Fault::Hold(gate)) => {
                gate.pass().await;
                return self.heard(write.apply(&*self.inner).await, lost(op));
            }
            Some(Fault::ApplyLate(after)) => {
                let inner = Arc::clone(&self.inner);
                let task = tokio::spawn(async move {
                    sleep(after).await;
                    // Nobody is there any more to be told how it ended.
                    let _ = write.apply(&*inner).await;
                });
                lock(&self.late).push(task);
                None
            }
            Some(Fault::Lose) => None,
            Some(Fault::ApplyThenError) => Some(write),
            Some(Fault::ApplyPart(count)) => write.part(count, nth),
            Some(Fault::Crash { applied }) => {
                self.crash();
                applied.then_some(write)
            }
            Some(Fault::CrashPart(count)) => {
                self.crash();
                write.part(count, nth)
            }
        };
        if let Some(write) = applied {
            let _ = write.apply(&*self.inner).await;
        }
        Err(lost(op))
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn get(&self, key: &str) -> Result<Object, ObjectError> {
        self.read(Op::Get, self.inner.get(key)).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, ObjectError> {
        self.read(Op::GetRange, self.inner.get_range(key, range)).await
    }

    async fn size(&self, key: &str) -> Result<u64, ObjectError> {
        self.read(Op::Size, self.inner.size(key)).await
    }

    async fn put(&self, key: &str, bytes: Bytes, condition: Condition) -> Result<Tag, ObjectError> {
        let (tag, ..) = self.write(Write::Put(key.to_owned(), bytes, condition)).await?;
        Ok(tag.expect("a put that succeeds has a tag"))
    }

    async fn put_absent(&self, objects: Vec<(String, Bytes)>) -> Result<Vec<String>, ObjectError> {
        Ok(self.write(Write::PutAbsent(objects)).await?.1)
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Listed>, ObjectError> {
        self.read(Op::List, self.inner.list(prefix, after, limit)).await
    }

    async fn delete(&self, key: &str) -> Result<(), ObjectError> {
        self.write(Write::Delete(key.to_owned())).await.map(|_| ())
    }

    async fn purge(&self, key: &str) -> Result<Purged, ObjectError> {
        Ok(self.write(Write::Purge(key.to_owned())).await?.2)
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}
