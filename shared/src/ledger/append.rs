//! Append: chain a batch on the heads of its sessions and commit it (DESIGN section 4).
//!
//! The conditional commit decides; everything before it is a guess. An unknown outcome is read before it is retried,
//! and a batch is chained again only once its place is surely another's: so that nothing is lost or written twice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::BoxFuture;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use tokio::sync::OwnedMutexGuard;

use super::Ledger;
use super::heads::Slot;
use crate::error::OverLimit;
use crate::event::NewEvent;
use crate::ids::{CommitId, SessionId, TenantId};
use crate::limits;
use crate::random;
use crate::segment::{self, Head, Numbered, Placed, Segment, SegmentError, SegmentReader};
use crate::statement::Standing;
use crate::store::{Commit, Conflict, Idempotency, StoreError};
use crate::time::Micros;

/// Why a batch was not appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Over a limit. Nothing was stored.
    #[error(transparent)]
    TooLarge(#[from] OverLimit),
    /// The idempotency key came with another body before. Nothing was stored.
    #[error("this Idempotency-Key was used with another body")]
    IdempotencyMismatch,
    /// Too many writers, or a store that asks for patience. Nothing was stored.
    #[error("busy")]
    Busy {
        /// How long to wait.
        retry_after: Duration,
    },
    /// The store cannot be reached. Nothing was stored.
    #[error("unavailable: {why}")]
    Unavailable {
        /// For the log.
        why: String,
    },
    /// It may have been stored: the store did not say, to the end of the deadline.
    #[error("unknown outcome: {why}")]
    Unknown {
        /// For the log.
        why: String,
    },
    /// Stored bytes are damaged.
    #[error("corrupt at {key}: {why}")]
    Corrupt {
        /// Where.
        key: String,
        /// What is wrong.
        why: String,
    },
    /// A segment could not be encoded. Nothing was stored.
    #[error(transparent)]
    Segment(#[from] SegmentError),
}

/// What a retry is known by: HMACs, so that the table holds neither token, key nor body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    key: [u8; 32],
    body: [u8; 32],
}

impl IdempotencyKey {
    /// From what identifies the caller (their token's id, or nothing), the route, the header's value and the body.
    pub fn new(caller: &str, route: &str, key: &str, body: &[u8]) -> Self {
        let mac = |parts: &[&[u8]]| {
            let mut mac =
                Hmac::<Sha256>::new_from_slice(caller.as_bytes()).expect("HMAC takes a key of any length");
            for part in parts {
                mac.update(&(part.len() as u64).to_be_bytes());
                mac.update(part);
            }
            mac.finalize().into_bytes().into()
        };
        Self { key: mac(&[b"key", route.as_bytes(), key.as_bytes()]), body: mac(&[b"body", body]) }
    }
}

/// A batch that is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// Where each event came to stand, in the order sent, with the index of its session in `standings`.
    pub events: Vec<(usize, Placed)>,
    /// The new end of each session, by session id.
    pub standings: Vec<Standing>,
    /// True if this is the first answer to an earlier request with the same idempotency key, given again.
    pub replayed: bool,
}

/// One try: what was handed to the store.
struct Attempt {
    commit: Arc<Commit>,
    placed: Vec<Vec<Placed>>,
    minted_at: Micros,
}

/// What is to be appended, by session.
struct Batch<'a> {
    tenant: &'a TenantId,
    sessions: Vec<(SessionId, Vec<Numbered>)>,
    salts: Vec<Vec<[u8; 16]>>,
    idempotency: Option<&'a IdempotencyKey>,
}

/// What is known after a try.
enum Outcome {
    /// It is durable (this try or the earlier one with this index).
    Committed(usize),
    /// None of the tries can ever be applied: somebody else has the place.
    Lost,
    /// Nothing was written, and the store asks for patience.
    Refused(Duration),
    /// The idempotency key is another's.
    Taken,
}

impl Ledger {
    /// Appends a batch of 1 to 1000 events: all of it, or nothing. Returns once it is durable.
    ///
    /// # Errors
    /// See [`AppendError`]; only `Unknown` leaves open whether it was stored.
    ///
    /// # Panics
    /// If `events` is empty or has more than [`limits::BATCH_EVENTS_MAX`]; callers check.
    pub async fn append(
        &self,
        tenant: &TenantId,
        events: Vec<NewEvent>,
        idempotency: Option<&IdempotencyKey>,
    ) -> Result<Appended, AppendError> {
        let appended = self.append_if(tenant, events, idempotency, false).await?;
        Ok(appended.expect("only what must begin its sessions may find them begun"))
    }

    /// Appends a batch whose sessions it begins; `None` if one of them has begun already, by whomever.
    ///
    /// # Errors
    /// See [`AppendError`]; only `Unknown` leaves open whether it was stored.
    pub(crate) async fn append_first(
        &self,
        tenant: &TenantId,
        events: Vec<NewEvent>,
    ) -> Result<Option<Appended>, AppendError> {
        self.append_if(tenant, events, None, true).await
    }

    async fn append_if(
        &self,
        tenant: &TenantId,
        events: Vec<NewEvent>,
        idempotency: Option<&IdempotencyKey>,
        only_first: bool,
    ) -> Result<Option<Appended>, AppendError> {
        assert!(!events.is_empty() && events.len() <= limits::BATCH_EVENTS_MAX, "1 to 1000 events");
        let deadline = self.clock.now().plus_ms(limits::APPEND_DEADLINE_MS);
        if let Some(key) = idempotency
            && let Some(known) = self.known(tenant, key, deadline).await?
            && self.clock.now() < known.expires_at
        {
            return self.replay(tenant, key, &known, deadline).await.map(Some);
        }
        self.ensure_open(deadline).await?;
        let sessions = group(events)?;
        let salts = sessions.iter().map(|(_, events)| salts(events.len())).collect();
        let batch = Batch { tenant, sessions, salts, idempotency };
        let mut attempts: Vec<Attempt> = Vec::new();
        let mut backoff = Backoff::default();
        let slots: Vec<_> =
            batch.sessions.iter().map(|(session, _)| self.heads.slot(tenant, session)).collect();
        loop {
            // Sessions are in order of their ids, so two batches never wait for each other in a circle.
            let Some(mut guards) = self.lock(&slots, deadline).await else {
                return Err(AppendError::Busy { retry_after: Duration::from_secs(1) });
            };
            let heads = self.heads(&batch, &mut guards, deadline).await?;
            if only_first && heads.iter().any(Option::is_some) {
                return Ok(None);
            }
            match self.commit(&batch, &heads, &mut attempts, guards, deadline).await? {
                Outcome::Committed(index) => {
                    let attempt = attempts.swap_remove(index);
                    return Ok(Some(appended(tenant, &attempt.commit, attempt.placed)));
                }
                Outcome::Lost => {}
                Outcome::Refused(retry_after) => backoff.at_least(retry_after),
                Outcome::Taken => {
                    if let Some(key) = idempotency
                        && let Some(known) = self.known(tenant, key, deadline).await?
                    {
                        return self.replay(tenant, key, &known, deadline).await.map(Some);
                    }
                }
            }
            let wait = backoff.next();
            if self.clock.now().plus_ms(wait.as_millis() as i64) >= deadline {
                return Err(AppendError::Busy { retry_after: Duration::from_secs(1) });
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// Locks the batch's sessions, or gives up at the deadline: behind a store that makes everybody wait, the last of
    /// a queue would otherwise be answered long after its client has gone.
    async fn lock(
        &self,
        slots: &[Arc<tokio::sync::Mutex<Slot>>],
        deadline: Micros,
    ) -> Option<Vec<OwnedMutexGuard<Slot>>> {
        let left_ms = deadline.unix_ms() - self.clock.now().unix_ms();
        let all = async {
            let mut guards = Vec::with_capacity(slots.len());
            for slot in slots {
                guards.push(slot.clone().lock_owned().await);
            }
            guards
        };
        let left = Duration::from_millis(u64::try_from(left_ms).unwrap_or(0));
        let guards = tokio::time::timeout(left, all).await.ok()?;
        (self.clock.now() < deadline).then_some(guards)
    }

    /// Reads, and reads again while the store cannot be reached or asks for patience, until the deadline: a read
    /// changes nothing, so that a batch need not fail with it. An append reads only while none of its own tries can
    /// have been written, or to repeat an earlier answer; what follows an unknown outcome is [`Self::ours`].
    async fn read<'s, T>(
        &self,
        deadline: Micros,
        ask: impl Fn() -> BoxFuture<'s, Result<T, StoreError>>,
    ) -> Result<T, AppendError> {
        let mut backoff = Backoff::default();
        loop {
            let error = match ask().await {
                Ok(found) => return Ok(found),
                Err(error) => error,
            };
            match &error {
                StoreError::Throttled { retry_after } => backoff.at_least(*retry_after),
                StoreError::Unavailable { .. } | StoreError::Unknown { .. } => {}
                StoreError::NotFound
                | StoreError::Conflict(_)
                | StoreError::TooLarge { .. }
                | StoreError::Corrupt { .. } => return Err(refused(error)),
            }
            let wait = backoff.next();
            if self.clock.now().plus_ms(wait.as_millis() as i64) >= deadline {
                return Err(refused(error));
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// Refuses while the ledger is closed. One that was open is believed to be so for a while, which whoever closes it
    /// waits for ([`limits::CLOSING_MS`]): an append pays nothing for this.
    async fn ensure_open(&self, deadline: Micros) -> Result<(), AppendError> {
        let now_ms = self.clock.now().unix_ms();
        let age_ms = now_ms - self.seen_open.load(Ordering::Relaxed);
        // A clock that went backwards makes nothing fresh.
        if (0..limits::OPEN_SEEN_MS).contains(&age_ms) {
            return Ok(());
        }
        match self.read(deadline, || self.store.closed()).await? {
            None => {
                self.seen_open.store(now_ms, Ordering::Relaxed);
                Ok(())
            }
            Some(since) => {
                let why =
                    format!("the ledger is closed since {since}: it takes events again once it is opened");
                Err(AppendError::Unavailable { why })
            }
        }
    }

    /// What an idempotency key stands for, if it was used.
    async fn known(
        &self,
        tenant: &TenantId,
        key: &IdempotencyKey,
        deadline: Micros,
    ) -> Result<Option<Idempotency>, AppendError> {
        self.read(deadline, || self.store.idempotency(tenant, &key.key)).await
    }

    /// The heads of the batch's sessions: those that are known, and the rest from the store. Whoever waits for one of
    /// these sessions needs the same heads, so the sessions stay locked while a read is tried again.
    async fn heads(
        &self,
        batch: &Batch<'_>,
        guards: &mut [OwnedMutexGuard<Slot>],
        deadline: Micros,
    ) -> Result<Vec<Option<Head>>, AppendError> {
        let mut heads = Vec::with_capacity(guards.len());
        for ((session, _), slot) in batch.sessions.iter().zip(guards) {
            let now = self.clock.now();
            heads.push(match slot.fresh(now) {
                Some(head) => head,
                None => {
                    let head = self.read(deadline, || self.store.head(batch.tenant, session)).await?;
                    slot.set(head, now);
                    head
                }
            });
        }
        Ok(heads)
    }

    /// Mints a commit and chains the batch on the heads given.
    fn chain(&self, batch: &Batch<'_>, heads: &[Option<Head>]) -> Result<Attempt, AppendError> {
        let now = self.clock.now();
        let id = CommitId::mint(u64::try_from(now.unix_ms()).unwrap_or(0), random::bytes());
        let mut segments = Vec::with_capacity(heads.len());
        let mut placed = Vec::with_capacity(heads.len());
        for (((session, events), salts), head) in batch.sessions.iter().zip(&batch.salts).zip(heads) {
            let (segment, places) = segment::chain(batch.tenant, session, *head, id, now, events, salts)?;
            segments.push(segment);
            placed.push(places);
        }
        let idempotency = batch.idempotency.map(|key| Idempotency {
            key: key.key,
            body: key.body,
            commit_id: id,
            segments: segments.iter().map(|s| (s.session_id.clone(), s.meta.first)).collect(),
            created_at: now,
            expires_at: now.plus_ms(limits::IDEMPOTENCY_LIFE_MS),
        });
        let commit = Commit { tenant: batch.tenant.clone(), id, segments, idempotency };
        check_size(&commit)?;
        Ok(Attempt { commit: Arc::new(commit), placed, minted_at: now })
    }

    /// Hands the batch to the store, chained on these heads, until it is known what came of it.
    async fn commit(
        &self,
        batch: &Batch<'_>,
        heads: &[Option<Head>],
        attempts: &mut Vec<Attempt>,
        guards: Vec<OwnedMutexGuard<Slot>>,
        deadline: Micros,
    ) -> Result<Outcome, AppendError> {
        let attempt = self.chain(batch, heads)?;
        let mut commit = attempt.commit.clone();
        let mut minted_at = attempt.minted_at;
        attempts.push(attempt);
        let pending = self.store.commit(commit.clone());
        // The next writer of these sessions may chain on this batch before it is durable, if the store keeps the
        // order: should this batch fail, so does the one on top of it, by its own condition.
        let mut held = Some(guards);
        if self.store.orders_commits() {
            self.believe(held.take(), &commit);
        }
        let mut result = pending.await;
        let mut backoff = Backoff::default();
        let mut unknown = None;
        loop {
            let outcome = match (result, &unknown) {
                (Ok(()), _) => Ok(Outcome::Committed(attempts.len() - 1)),
                // A conflict says that this try wrote nothing, and no other try of these heads can have written:
                // those of earlier rounds were refused or had lost for good, and this one is the first of its round,
                // or an unknown outcome would stand before it. So the place is not ours, and whose it is need not be
                // read: a lost race costs the read of the new head and no more.
                (Err(StoreError::Conflict(conflict)), None) => Ok(lost_to(&conflict)),
                (Err(StoreError::Conflict(conflict)), Some(_)) => {
                    self.after_conflict(&commit, attempts, &conflict).await
                }
                // Once an outcome is unknown, a refusal of the next try says nothing about the one before.
                (Err(StoreError::Throttled { retry_after }), None) => Ok(Outcome::Refused(retry_after)),
                (Err(StoreError::Unknown { why }), _) => Err(StoreError::Unknown { why }),
                (Err(error), None) => Err(error),
                (Err(_), Some(why)) => Err(StoreError::Unknown { why: String::clone(why) }),
            };
            let why = match outcome {
                Ok(outcome) => {
                    match outcome {
                        // If an earlier try has the place, its segments stand on the same heads and end alike only
                        // in number: forget rather than guess.
                        Outcome::Committed(index) if index + 1 == attempts.len() => {
                            self.believe(held, &commit)
                        }
                        _ => self.forget(held, &commit).await,
                    }
                    return Ok(outcome);
                }
                Err(StoreError::Unknown { why }) => why,
                Err(error) => {
                    self.forget(held, &commit).await;
                    return Err(refused(error));
                }
            };
            // An unknown outcome is not a failure: read before trying again.
            if let Ok(Some(outcome)) = self.ours(&commit, attempts).await {
                self.forget(held, &commit).await;
                return Ok(outcome);
            }
            if self.clock.now() >= deadline {
                self.forget(held, &commit).await;
                return Err(AppendError::Unknown { why });
            }
            unknown = Some(why);
            tokio::time::sleep(backoff.next()).await;
            // Not there (yet): the same item again, on the same heads and so under the same keys. Only one of all
            // tries can take them. An id that has grown old is minted anew, so that the feed's order stays close.
            if self.clock.now() >= minted_at.plus_ms(limits::COMMIT_DEADLINE_MS) {
                let attempt = self.chain(batch, heads)?;
                commit = attempt.commit.clone();
                minted_at = attempt.minted_at;
                attempts.push(attempt);
            }
            result = self.store.commit(commit.clone()).await;
        }
    }

    /// Takes what the batch says for the heads of its sessions.
    fn believe(&self, held: Option<Vec<OwnedMutexGuard<Slot>>>, commit: &Commit) {
        let now = self.clock.now();
        for (mut slot, segment) in held.into_iter().flatten().zip(&commit.segments) {
            slot.set(Some(segment.meta.head()), now);
        }
    }

    /// Forgets the heads of the batch's sessions: the next writer reads them.
    async fn forget(&self, held: Option<Vec<OwnedMutexGuard<Slot>>>, commit: &Commit) {
        match held {
            Some(guards) => guards.into_iter().for_each(|mut slot| slot.forget()),
            None => {
                for segment in &commit.segments {
                    self.heads.slot(&commit.tenant, &segment.session_id).lock().await.forget();
                }
            }
        }
    }

    /// A condition failed after an outcome that is not known. Was it an earlier try of this very batch that took the
    /// place?
    async fn after_conflict(
        &self,
        commit: &Commit,
        attempts: &[Attempt],
        conflict: &Conflict,
    ) -> Result<Outcome, StoreError> {
        match self.ours(commit, attempts).await {
            Ok(Some(outcome)) => Ok(outcome),
            Ok(None) => Ok(lost_to(conflict)),
            // Whose the place is could not be read, and it may be an earlier try's.
            Err(error) => Err(StoreError::Unknown { why: error.to_string() }),
        }
    }

    /// Looks at the place that a batch was to take: `Committed` if one of its tries has it, `Lost` if somebody else
    /// does, `None` if nobody does.
    async fn ours(&self, commit: &Commit, attempts: &[Attempt]) -> Result<Option<Outcome>, StoreError> {
        for segment in &commit.segments {
            let at = self.store.commit_at(&commit.tenant, &segment.session_id, segment.meta.first).await?;
            if let Some(id) = at {
                let index = attempts.iter().position(|a| a.commit.id == id);
                return Ok(Some(index.map_or(Outcome::Lost, Outcome::Committed)));
            }
        }
        Ok(None)
    }

    /// Gives the first answer to an idempotency key again.
    async fn replay(
        &self,
        tenant: &TenantId,
        key: &IdempotencyKey,
        known: &Idempotency,
        deadline: Micros,
    ) -> Result<Appended, AppendError> {
        if key.body != known.body {
            return Err(AppendError::IdempotencyMismatch);
        }
        let mut reader = SegmentReader::new()?;
        let mut placed = Vec::with_capacity(known.segments.len());
        let mut standings = Vec::with_capacity(known.segments.len());
        for (session, first) in &known.segments {
            let body = self.read(deadline, || self.store.body(tenant, session, *first)).await?;
            let corrupt =
                |why: String| AppendError::Corrupt { key: format!("{tenant}/{session}#{first}"), why };
            let view = reader.open(&body).map_err(|e| corrupt(e.to_string()))?;
            let mut places = Vec::with_capacity(view.count());
            for event in view.events() {
                let event = event.map_err(|e| corrupt(e.to_string()))?;
                let (event_id, sequence, hash) = (event.event_id, event.sequence, event.hash);
                places.push(Placed { number: event_id.number(), event_id, sequence, hash });
            }
            let last = places.last().ok_or_else(|| corrupt("no events".into()))?;
            standings.push(Standing {
                tenant: tenant.clone(),
                session_id: session.clone(),
                sequence: last.sequence,
                hash: last.hash,
                time: known.created_at,
            });
            placed.push(places);
        }
        Ok(Appended { events: in_order_sent(placed), standings, replayed: true })
    }
}

/// What a failed condition means for a batch of which no try can have been written.
fn lost_to(conflict: &Conflict) -> Outcome {
    if *conflict == Conflict::Idempotency { Outcome::Taken } else { Outcome::Lost }
}

/// Sorts a batch's events by session, keeping the order sent within each.
fn group(events: Vec<NewEvent>) -> Result<Vec<(SessionId, Vec<Numbered>)>, OverLimit> {
    let mut sessions: BTreeMap<SessionId, Vec<Numbered>> = BTreeMap::new();
    for (number, event) in (1u16..).zip(events) {
        let numbered = Numbered { number, event };
        match sessions.get_mut(&numbered.event.session_id) {
            Some(list) => list.push(numbered),
            None => {
                sessions.insert(numbered.event.session_id.clone(), vec![numbered]);
            }
        }
    }
    // One action for each session, and one may be needed for an idempotency key.
    let most = limits::COMMIT_ACTIONS_MAX - 1;
    if sessions.len() > most {
        return Err(OverLimit {
            what: "the number of sessions in the batch",
            name: "commit_actions_max - 1",
            limit: most,
            actual: sessions.len(),
        });
    }
    Ok(sessions.into_iter().collect())
}

/// Random salts, drawn at once: one call to the operating system for a session's events.
fn salts(count: usize) -> Vec<[u8; 16]> {
    let mut salts = vec![[0; 16]; count];
    random::fill(salts.as_flattened_mut());
    salts
}

/// Refuses what the other backend could not take either: the limits are the same on both.
fn check_size(commit: &Commit) -> Result<(), OverLimit> {
    let bodies = commit.segments.iter().map(|s| s.body.len());
    // The attributes stand beside the bodies, and a hundred segments of many names each have a megabyte of them.
    let actual = commit.segments.iter().map(|s| s.body.len() + s.meta.encode().len()).sum();
    if actual > limits::COMMIT_BYTES_MAX {
        let what = "the encoded batch, in bytes,";
        return Err(OverLimit { what, name: "commit_bytes_max", limit: limits::COMMIT_BYTES_MAX, actual });
    }
    let actual = bodies.map(|b| b.div_ceil(limits::ITEM_BODY_BYTES_MAX)).sum::<usize>() + 1;
    if actual > limits::COMMIT_ACTIONS_MAX {
        let what = "the number of store actions of the batch";
        return Err(OverLimit {
            what,
            name: "commit_actions_max",
            limit: limits::COMMIT_ACTIONS_MAX,
            actual,
        });
    }
    Ok(())
}

fn in_order_sent(placed: Vec<Vec<Placed>>) -> Vec<(usize, Placed)> {
    let mut events: Vec<_> =
        placed.into_iter().enumerate().flat_map(|(i, list)| list.into_iter().map(move |p| (i, p))).collect();
    events.sort_unstable_by_key(|(_, placed)| placed.number);
    events
}

fn appended(tenant: &TenantId, commit: &Commit, placed: Vec<Vec<Placed>>) -> Appended {
    let standing = |segment: &Segment| {
        let Head { sequence, hash } = segment.meta.head();
        let (session_id, time) = (segment.session_id.clone(), segment.meta.received_at);
        Standing { tenant: tenant.clone(), session_id, sequence, hash, time }
    };
    let standings = commit.segments.iter().map(standing).collect();
    Appended { events: in_order_sent(placed), standings, replayed: false }
}

fn refused(error: StoreError) -> AppendError {
    match error {
        StoreError::Throttled { retry_after } => AppendError::Busy { retry_after },
        StoreError::Unknown { why } => AppendError::Unknown { why },
        StoreError::Corrupt { key, why } => AppendError::Corrupt { key, why },
        StoreError::TooLarge { limit, actual } => {
            OverLimit { what: "the encoded batch, in bytes,", name: "the store's limit", limit, actual }
                .into()
        }
        StoreError::NotFound | StoreError::Conflict(_) | StoreError::Unavailable { .. } => {
            AppendError::Unavailable { why: error.to_string() }
        }
    }
}

/// Waits between tries: doubling from 2 ms to 200 ms, with full jitter so that losers do not meet again.
#[derive(Debug)]
struct Backoff {
    ceiling_ms: u64,
    floor: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { ceiling_ms: 2, floor: Duration::ZERO }
    }
}

impl Backoff {
    const CEILING_MS_MAX: u64 = 200;

    fn at_least(&mut self, wait: Duration) {
        self.floor = wait;
    }

    fn next(&mut self) -> Duration {
        let random = u64::from_le_bytes(random::bytes());
        let wait = Duration::from_micros(random % (self.ceiling_ms * 1000));
        self.ceiling_ms = (self.ceiling_ms * 2).min(Self::CEILING_MS_MAX);
        std::mem::take(&mut self.floor) + wait
    }
}
