//! Clients that write, and what they remember.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use quipu_core::store::conformance::Dice;
use serde_json::{Value, json};

use super::servers::{Servers, lock};

/// Sessions that everybody writes to.
const SHARED: u64 = 4;

/// Batches that a client puts in a session of its own before it begins another.
const OWN_BATCHES: u64 = 300;

/// A batch that never gets through is a violation after this long.
const PATIENCE: Duration = Duration::from_secs(120);

/// Recent acknowledgements that readers look for.
const RECENT_MAX: usize = 500;

/// Where an event was said to stand.
pub(super) struct Told {
    pub(super) session: String,
    pub(super) sequence: u64,
    pub(super) hash: String,
}

/// How a batch ended for its client. Sessions are those that it was for.
pub(super) enum End {
    Acknowledged(Vec<Told>),
    /// Sessions, and how many events.
    Refused(usize),
    Unknown(usize),
}

/// An event that is there, for a reader to look for.
#[derive(Clone)]
pub(super) struct Recent {
    pub(super) id: String,
    pub(super) session: String,
    pub(super) sequence: u64,
    pub(super) hash: String,
}

#[derive(Default)]
struct Memory {
    batches: BTreeMap<String, End>,
    sessions: BTreeSet<String>,
    /// By session.
    receipts: BTreeMap<String, Vec<Value>>,
    recent: Vec<Recent>,
    latency_us: Vec<u32>,
    violations: Vec<String>,
}

/// What all clients together know.
#[derive(Default)]
pub(super) struct Ledger {
    memory: Mutex<Memory>,
    events: AtomicU64,
    retries: AtomicU64,
    replays: AtomicU64,
    broken: AtomicU64,
    pub(super) reads: AtomicU64,
    pub(super) reads_failed: AtomicU64,
}

impl Ledger {
    pub(super) fn violation(&self, what: String) {
        eprintln!("VIOLATION: {what}");
        lock(&self.memory).violations.push(what);
    }

    pub(super) fn violations(&self) -> Vec<String> {
        lock(&self.memory).violations.clone()
    }

    /// Every batch that was sent, by its mark.
    pub(super) fn with_batches<T>(&self, see: impl FnOnce(&BTreeMap<String, End>) -> T) -> T {
        see(&lock(&self.memory).batches)
    }

    pub(super) fn sessions(&self) -> Vec<String> {
        lock(&self.memory).sessions.iter().cloned().collect()
    }

    pub(super) fn receipts(&self, session: &str) -> Vec<Value> {
        lock(&self.memory).receipts.get(session).cloned().unwrap_or_default()
    }

    /// One of the events that were acknowledged lately.
    pub(super) fn recent(&self, dice: &mut Dice) -> Option<Recent> {
        let memory = lock(&self.memory);
        let count = memory.recent.len() as u64;
        (count > 0).then(|| memory.recent[dice.below(count) as usize].clone())
    }

    /// Where it stands, in a line.
    pub(super) fn line(&self, servers: &Servers) -> String {
        let batches = lock(&self.memory).batches.len();
        let get = |count: &AtomicU64| count.load(Ordering::SeqCst);
        format!(
            "{batches} batches, {} events acknowledged, {} retries, {} reads, {} faults, {} kills",
            get(&self.events),
            get(&self.retries),
            get(&self.reads),
            servers.faults(),
            servers.deaths().0
        )
    }

    pub(super) fn summary(&self, ran: Duration, servers: &Servers) -> String {
        let get = |count: &AtomicU64| count.load(Ordering::SeqCst);
        let mut memory = lock(&self.memory);
        let ends = |is: fn(&End) -> bool| memory.batches.values().filter(|end| is(end)).count();
        let acknowledged = ends(|end| matches!(end, End::Acknowledged(_)));
        let (refused, unknown) =
            (ends(|e| matches!(e, End::Refused(_))), ends(|e| matches!(e, End::Unknown(_))));
        memory.latency_us.sort_unstable();
        let at = |share: f64| {
            let index =
                ((memory.latency_us.len() as f64 * share) as usize).min(memory.latency_us.len().max(1) - 1);
            memory.latency_us.get(index).map_or(0.0, |us| f64::from(*us) / 1000.0)
        };
        let (kills, restarts, restart_ms) = servers.deaths();
        format!(
            "{:.0} s of writing\n\
             batches: {acknowledged} acknowledged ({} events), {refused} refused, {unknown} of unknown outcome\n\
             retries: {} ({} answered from an Idempotency-Key, {} connections broken)\n\
             latency of what was acknowledged at once, ms: p50 {:.1}, p90 {:.1}, p99 {:.1}, most {:.1}\n\
             reads: {}, {} failed with 503 or a broken connection\n\
             kills: {kills}, restarts: {restarts} (at most {restart_ms} ms from spawn to ready)\n\
             calls of the table: {}, {} met a fault",
            ran.as_secs_f64(),
            get(&self.events),
            get(&self.retries),
            get(&self.replays),
            get(&self.broken),
            at(0.5),
            at(0.9),
            at(0.99),
            at(1.0),
            get(&self.reads),
            get(&self.reads_failed),
            servers.calls(),
            servers.faults(),
        )
    }
}

/// Keeps connections, takes every status for an answer, and waits for no answer longer than API Gateway would.
pub(super) fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false).proxy(None);
    config.timeout_global(Some(Duration::from_secs(30))).build().into()
}

/// What came of one request.
enum Answer {
    Created {
        body: Value,
        replayed: bool,
    },
    /// Nothing was written.
    NotNow,
    /// It may have been.
    Unknown,
    /// The connection could not be made: nothing was sent.
    Nobody,
}

struct Batch {
    mark: String,
    sessions: BTreeSet<String>,
    count: usize,
    body: String,
    keyed: bool,
}

/// Writes batches until it is told to stop.
pub(super) fn write(
    client: usize,
    seed: u64,
    servers: &Servers,
    ingesters: Range<usize>,
    ledger: &Ledger,
    stop: &AtomicBool,
) -> anyhow::Result<()> {
    let mut dice = Dice::new(seed.wrapping_mul(1000) + client as u64);
    let agent = agent();
    for number in 0.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let batch = make(client, number, &mut dice);
        lock(&ledger.memory).sessions.extend(batch.sessions.iter().cloned());
        let end = send(&batch, &agent, servers, &ingesters, ledger, &mut dice);
        lock(&ledger.memory).batches.insert(batch.mark, end);
        thread::sleep(Duration::from_millis(dice.below(60)));
    }
    Ok(())
}

fn make(client: usize, number: u64, dice: &mut Dice) -> Batch {
    let own = format!("own-{client}-{}", number / OWN_BATCHES);
    let shared = |dice: &mut Dice| format!("shared-{}", dice.below(SHARED));
    let sessions: BTreeSet<String> = match dice.below(10) {
        0..=4 => [own].into(),
        5..=7 => [shared(dice)].into(),
        _ => [own, shared(dice), shared(dice)].into(),
    };
    let count = sessions.len() + dice.below(8) as usize;
    // Now and then one that takes several items.
    let text = if dice.below(200) == 0 { 450_000 } else { dice.below(300) };
    let mark = format!("c{client}-{number}");
    let text = quipu_core::store::conformance::noisy_text(number, text as usize);
    let events: Vec<_> = sessions
        .iter()
        .cycle()
        .take(count)
        .enumerate()
        .map(|(i, session)| {
            json!({ "session_id": session, "agent_id": format!("agent-{client}"), "event_type": "soak.mark",
                    "payload": { "mark": mark, "i": i, "text": if i == 0 { text.as_str() } else { "" } } })
        })
        .collect();
    let body = json!({ "events": events }).to_string();
    Batch { mark, sessions, count, body, keyed: dice.below(2) == 0 }
}

/// Asks until it is known what came of the batch; without a key, what is unknown stays so.
fn send(
    batch: &Batch,
    agent: &ureq::Agent,
    servers: &Servers,
    ingesters: &Range<usize>,
    ledger: &Ledger,
    dice: &mut Dice,
) -> End {
    let started = Instant::now();
    let mut is_first = true;
    while started.elapsed() < PATIENCE {
        if !is_first {
            ledger.retries.fetch_add(1, Ordering::SeqCst);
            thread::sleep(Duration::from_millis(20 + dice.below(200)));
        }
        let server = ingesters.start + dice.below(ingesters.len() as u64) as usize;
        let Some(url) = servers.url(server) else {
            is_first = false;
            continue;
        };
        let asked = Instant::now();
        match post(batch, agent, &url, ledger) {
            Answer::Created { body, replayed } => {
                let took = is_first.then(|| asked.elapsed());
                return acknowledged(batch, &body, replayed, took, ledger);
            }
            Answer::Unknown if !batch.keyed => return End::Unknown(batch.count),
            Answer::Unknown | Answer::NotNow | Answer::Nobody => is_first = false,
        }
    }
    ledger.violation(format!("{} does not get through in {PATIENCE:?}", batch.mark));
    if batch.keyed { End::Unknown(batch.count) } else { End::Refused(batch.count) }
}

fn post(batch: &Batch, agent: &ureq::Agent, url: &str, ledger: &Ledger) -> Answer {
    let mut request = agent.post(format!("{url}/v1/events")).header("content-type", "application/json");
    if batch.keyed {
        request = request.header("idempotency-key", &batch.mark);
    }
    let broken = || {
        ledger.broken.fetch_add(1, Ordering::SeqCst);
        Answer::Unknown
    };
    let mut answer = match request.send(&batch.body) {
        Ok(answer) => answer,
        Err(ureq::Error::Io(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            return Answer::Nobody;
        }
        Err(_) => return broken(),
    };
    let Ok(text) = answer.body_mut().read_to_string() else { return broken() };
    let Ok(body) = serde_json::from_str::<Value>(&text) else { return broken() };
    match (answer.status().as_u16(), body["code"].as_str()) {
        (201, _) => Answer::Created { body, replayed: answer.headers().contains_key("idempotent-replayed") },
        (503, Some("outcome_unknown")) => Answer::Unknown,
        (503, Some("busy" | "unavailable")) => Answer::NotNow,
        (status, _) => {
            ledger.violation(format!("{} was answered with {status}: {text}", batch.mark));
            Answer::Unknown
        }
    }
}

fn acknowledged(batch: &Batch, body: &Value, replayed: bool, took: Option<Duration>, ledger: &Ledger) -> End {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let events = body["events"].as_array().cloned().unwrap_or_default();
    if events.len() != batch.count {
        ledger.violation(format!("{}: {} events sent, {body}", batch.mark, batch.count));
    }
    let mut memory = lock(&ledger.memory);
    for receipt in body["receipts"].as_array().into_iter().flatten() {
        memory.receipts.entry(text(&receipt["session_id"])).or_default().push(receipt.clone());
    }
    let told: Vec<Told> = events
        .iter()
        .map(|event| Told {
            session: text(&event["session_id"]),
            sequence: event["sequence"].as_u64().unwrap_or(u64::MAX),
            hash: text(&event["hash"]),
        })
        .collect();
    if let (Some(event), Some(first)) = (events.first(), told.first()) {
        let (session, sequence, hash) = (first.session.clone(), first.sequence, first.hash.clone());
        let recent = Recent { id: text(&event["event_id"]), session, sequence, hash };
        if memory.recent.len() < RECENT_MAX {
            memory.recent.push(recent);
        } else {
            // In turn: the oldest gives way.
            let at = ledger.events.load(Ordering::SeqCst) as usize % RECENT_MAX;
            memory.recent[at] = recent;
        }
    }
    if let Some(took) = took {
        memory.latency_us.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
    }
    drop(memory);
    ledger.events.fetch_add(told.len() as u64, Ordering::SeqCst);
    ledger.replays.fetch_add(u64::from(replayed), Ordering::SeqCst);
    End::Acknowledged(told)
}
