//! A ledger all of whose events are archived, and not hot any more.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::future::try_join_all;
use quipu_core::archive::{ArchiveSettings, Archiver, Close};
use quipu_core::clock::{Clock as _, ManualClock};
use quipu_core::dialect::{intake, native};
use quipu_core::event::NewEvent;
use quipu_core::ids::{AgentId, EventId, SessionId, TenantId};
use quipu_core::ledger::{Identity, Ledger};
use quipu_core::log::signer::LocalSigner;
use quipu_core::note::NoteSigner;
use quipu_core::objects::{Directory, ObjectStore};
use quipu_core::store::Store;
use quipu_core::store::embedded::{EmbeddedOptions, EmbeddedStore};
use quipu_core::time::Micros;
use sha2::{Digest as _, Sha256};

use super::distant::Distant;
use crate::sample::{Mode, SampleConfig, generate};

/// Sessions that are open at the same time.
const LIVE: usize = 50;
/// Agents, each of which has one session in four.
const AGENTS: usize = 200;
/// Events of one append, all of one session.
const APPEND_EVENTS: usize = 50;
/// Appends of one session.
const SESSION_APPENDS: usize = 10;
/// Appends that are under way at once.
const AT_ONCE: usize = 25;
/// What the ledger's clock passes while it is filled, ms: three days.
const SPAN_MS: i64 = 3 * 24 * 60 * 60 * 1000;
/// First event's time; a fixed day, so that runs are alike.
const START_MS: i64 = 1_767_600_000_000;

/// Expired segments that are deleted together.
const EXPIRE: usize = 10_000;

pub(super) fn describe() -> String {
    format!(
        "Events of 700 bytes (the bench mode of `cargo xtask sample`), spread over three days: {LIVE} sessions at a time append {APPEND_EVENTS} events each by turns; a session ends after {}, and {AGENTS} agents take turns with them. Then everything hot has expired.",
        APPEND_EVENTS * SESSION_APPENDS
    )
}

/// A ledger whose events are all archived.
pub(super) struct Filled {
    pub(super) tenant: TenantId,
    store: Arc<dyn Store>,
    clock: Arc<ManualClock>,
    archive: Directory,
    pub(super) events: usize,
    pub(super) batches: usize,
    /// Of all batches.
    pub(super) object_bytes: u64,
    /// How long it took.
    pub(super) seconds: f64,
    /// Some of the events, from the first to the last.
    pub(super) ids: Vec<EventId>,
    /// Some of the sessions that are whole.
    pub(super) sessions: Vec<SessionId>,
    /// Texts that are in the payloads of few events, and about when.
    pub(super) texts: Vec<(String, Micros)>,
    /// Events of each of these.
    pub(super) session_events: usize,
}

impl Filled {
    pub(super) fn agent(number: usize) -> String {
        format!("agent-{:03}", number % AGENTS)
    }

    /// First and last time.
    pub(super) fn times(&self) -> (Micros, Micros) {
        let start = Micros::from_unix_ms(START_MS);
        (start, start.plus_ms(SPAN_MS))
    }

    /// A process that has read nothing yet, of an archive whose ranged reads take so much longer.
    pub(super) fn ledger(&self, distance: Duration) -> anyhow::Result<Ledger> {
        let objects: Arc<dyn ObjectStore> = Arc::new(Distant { inner: self.archive.clone(), by: distance });
        ledger(&self.store, &self.clock, objects)
    }
}

fn ledger(
    store: &Arc<dyn Store>,
    clock: &Arc<ManualClock>,
    objects: Arc<dyn ObjectStore>,
) -> anyhow::Result<Ledger> {
    let identity = Identity {
        deployment: "bench".to_owned(),
        log_key: log_key()?.verifier().clone(),
        certificates: Vec::new(),
        rotations: Vec::new(),
        receipt_key: NoteSigner::from_seed("bench/_receipt", &[1; 32])?,
    };
    Ok(Ledger::new(store.clone(), clock.clone(), identity).with_archive(Some(objects)))
}

fn log_key() -> anyhow::Result<NoteSigner> {
    Ok(NoteSigner::from_seed("bench/_log", &[2; 32])?)
}

/// Makes it: about `events` events in `batches` batches.
pub(super) async fn fill(directory: &Path, events: usize, batches: usize) -> anyhow::Result<Filled> {
    let started = Instant::now();
    std::fs::create_dir_all(directory)?;
    let clock = Arc::new(ManualClock::new(Micros::from_unix_ms(START_MS)));
    let path = directory.join("ledger.redb");
    let store = EmbeddedStore::with_clock(&path, &EmbeddedOptions::default(), clock.clone())?;
    let store: Arc<dyn Store> = Arc::new(store);
    let [archive, staging] = ["archive", "staging"].map(|name| Directory::open(&directory.join(name)));
    let (archive, staging) = (archive?, Arc::new(staging?));
    let tenant = TenantId::default_tenant();
    let ledger = Arc::new(ledger(&store, &clock, Arc::new(archive.clone()))?);
    ledger.ensure_default_tenant().await?;
    let signer = Arc::new(LocalSigner::new(log_key()?));
    // This says when a batch is closed; the archiver need not.
    let settings =
        ArchiveSettings { max_bytes: u64::MAX, hot_retention_ms: Some(1), ..ArchiveSettings::default() };
    let archiver = Archiver::new(ledger.clone(), Arc::new(archive.clone()), staging, signer, settings);

    let rounds = events.div_ceil(LIVE * APPEND_EVENTS);
    let mut filled = Filled {
        tenant,
        store,
        clock: clock.clone(),
        archive,
        events: 0,
        batches: 0,
        object_bytes: 0,
        seconds: 0.0,
        ids: Vec::new(),
        sessions: Vec::new(),
        texts: Vec::new(),
        session_events: APPEND_EVENTS * SESSION_APPENDS,
    };
    for (round, appends) in write(rounds).into_iter().enumerate() {
        let mut appends = appends?;
        let (session, text) = (&appends[round % LIVE][0], &appends[(round + 1) % LIVE]);
        // One that began in the first rounds or does not end before the last is shorter.
        if (SESSION_APPENDS..rounds.saturating_sub(SESSION_APPENDS)).contains(&round) {
            filled.sessions.push(session.session_id.clone());
        }
        filled.texts.extend(text.iter().find_map(|event| Some((call(event)?, event.timestamp?))));
        while !appends.is_empty() {
            clock.advance_ms(step_ms(rounds) / (LIVE / AT_ONCE) as i64);
            let some = appends.drain(..AT_ONCE.min(appends.len()));
            let some = some.map(|events| ledger.append(&filled.tenant, events, None));
            for (nth, appended) in try_join_all(some).await?.into_iter().enumerate() {
                filled.events += appended.events.len();
                let (_, one) = appended.events.get((round + nth) % APPEND_EVENTS).context("an event")?;
                filled.ids.push(one.event_id);
            }
        }
        if (round + 1) * batches / rounds > round * batches / rounds {
            let done = archiver.run(&filled.tenant, Close::Now, Micros::MAX).await?;
            anyhow::ensure!(done.batches.len() == 1 && done.broken.is_empty(), "one batch: {done:?}");
            filled.batches += 1;
            filled.object_bytes += done.batches[0].bytes;
            filled.store.expire(clock.now(), EXPIRE).await?;
        }
    }
    // Longer than any margin.
    clock.advance_ms(60 * 60 * 1000);
    while filled.store.expire(clock.now(), EXPIRE).await? > 0 {}
    filled.seconds = started.elapsed().as_secs_f64();
    Ok(filled)
}

/// How long a round takes by the ledger's clock, ms.
fn step_ms(rounds: usize) -> i64 {
    SPAN_MS / rounds as i64
}

/// Makes events on a thread of their own: of each round an append of each live session.
fn write(rounds: usize) -> Receiver<anyhow::Result<Vec<Vec<NewEvent>>>> {
    let (sender, receiver) = sync_channel(2);
    std::thread::spawn(move || {
        let source = |slot: usize| SampleConfig {
            seed: slot as u64 + 1,
            events: rounds * APPEND_EVENTS,
            mode: Mode::Bench,
            start_us: START_MS * 1000,
        };
        let mut sources: Vec<_> = (0..LIVE).map(|slot| generate(&source(slot))).collect();
        for round in 0..rounds {
            let appends = sources.iter_mut().enumerate().map(|(slot, source)| {
                let lines: Vec<String> = source.take(APPEND_EVENTS).map(|event| event.json).collect();
                append(&lines.join("\n"), slot, round, step_ms(rounds))
            });
            // Nobody takes it any more: the filling failed.
            if sender.send(appends.collect()).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Events of one session, in the time since its last append.
fn append(lines: &str, slot: usize, round: usize, step_ms: i64) -> anyhow::Result<Vec<NewEvent>> {
    let mut events =
        intake::read_lines(lines, &native::NAMES).map_err(|e| anyhow::anyhow!("the sample: {e}"))?;
    // Sessions do not all end at once.
    let turn = (round + slot) / SESSION_APPENDS;
    let digest = Sha256::digest(format!("{slot} {turn}"));
    let word = u64::from_be_bytes(std::array::from_fn(|at| digest[at]));
    let session = SessionId::parse(format!("sess_{word:016x}"))?;
    let agent = AgentId::parse(Filled::agent(slot + turn * LIVE))?;
    // By the clock at which its turn comes.
    let (groups, group) = ((LIVE / AT_ONCE) as i64, (slot / AT_ONCE) as i64);
    let now_ms = START_MS + round as i64 * step_ms + step_ms / groups * (group + 1);
    for (at, event) in events.iter_mut().enumerate() {
        let before_ms = (APPEND_EVENTS - at) as i64 * step_ms / APPEND_EVENTS as i64;
        let us = (now_ms - before_ms) * 1000 + (word % 1000) as i64;
        event.timestamp = Some(Micros::new(us).context("a time")?);
        (event.session_id, event.agent_id) = (session.clone(), agent.clone());
    }
    Ok(events)
}

/// The id of a tool call: its answer has it too, and no other event.
fn call(event: &NewEvent) -> Option<String> {
    let (_, rest) = event.payload.split_once("\"callId\":\"")?;
    rest.split_once('"').map(|(id, _)| id.to_owned())
}
