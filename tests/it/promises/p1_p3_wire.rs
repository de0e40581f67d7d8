//! P1 and P3 on DynamoDB with faults on the wire: the whole service before a proxy that drops, delays and refuses
//! calls as a network or DynamoDB does. Afterwards the table is read without the proxy, and everything a client was
//! told holds (see [`super::marks`]).

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::http::Method;
use quipu_core::auth::AuthMode;
use quipu_core::clock::{Clock, SystemClock};
use quipu_core::ids::{Seq, TenantId};
use quipu_core::limits;
use quipu_core::time::Micros;
use quipu_tests::emulator::fresh_table;
use quipu_tests::{Answer, Emulator, FaultProxy, Service, WireFault, event, ledger_on, store_at};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::marks::{Told, check, marks};

/// Past the time after which a call counts as lost.
const SLOW: Duration = Duration::from_millis(limits::REMOTE_CALL_MS + 500);

/// Cases at once: so many that the slow ones wait together, so few that no other call waits as long.
const AT_ONCE: usize = 24;

/// A process whose wire can be broken.
struct Process {
    proxy: FaultProxy,
    service: Service,
}

impl Process {
    async fn start(table: &str) -> Self {
        Self::with_clock(table, Arc::new(SystemClock)).await
    }

    async fn with_clock(table: &str, clock: Arc<dyn Clock>) -> Self {
        let proxy = FaultProxy::start(Emulator::dynoxide().url());
        let service = service_at(proxy.url(), table, clock).await;
        proxy.reset();
        Self { proxy, service }
    }

    /// Until nothing is under way any more that could still be applied.
    async fn settle(&self) {
        while self.proxy.under_way() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn service_at(url: &str, table: &str, clock: Arc<dyn Clock>) -> Service {
    Service::of(ledger_on(store_at(url, table), clock), AuthMode::Loopback).await
}

fn body(mark: &str, sessions: &[String]) -> String {
    let twice = |s: &String| [event(s, json!(mark)), event(s, json!(mark))];
    json!({ "events": sessions.iter().flat_map(twice).collect::<Vec<_>>() }).to_string()
}

/// Posts a batch that marks each session twice; with a key, the mark is the key.
async fn post(service: &Service, mark: &str, sessions: &[String], keyed: bool) -> Answer {
    let mut headers = vec![("content-type", "application/json")];
    if keyed {
        headers.push(("idempotency-key", mark));
    }
    service.send(Method::POST, "/v1/events", &headers, body(mark, sessions)).await
}

/// What an answer says; one that no client could act upon fails the test.
fn told(answer: &Answer, what: &str) -> Told {
    if answer.status == 201 {
        let answer = answer.json();
        let mut first = BTreeMap::new();
        for event in answer["events"].as_array().unwrap() {
            let session = event["session_id"].as_str().unwrap().to_owned();
            let sequence = Seq::new(event["sequence"].as_u64().unwrap()).unwrap();
            first.entry(session).or_insert(sequence);
        }
        assert_eq!(answer["receipts"].as_array().unwrap().len(), first.len(), "{what}: {answer}");
        return Told::Acknowledged(first);
    }
    let error = answer.expect(503);
    assert_eq!(error["retryable"], true, "{what}: {error}");
    let wait: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=5).contains(&wait), "{what}: Retry-After: {wait}");
    match error["code"].as_str().unwrap() {
        "outcome_unknown" => Told::Unknown,
        "busy" | "unavailable" => Told::Refused,
        other => panic!("{what}: {other}"),
    }
}

fn faults() -> [WireFault; 8] {
    [
        WireFault::DropReply,
        WireFault::DropRequest,
        WireFault::Status500,
        WireFault::Status500AfterApply,
        WireFault::Throttle,
        WireFault::TransactionConflict,
        WireFault::Slow(SLOW),
        WireFault::SlowAfterApply(SLOW),
    ]
}

/// One run: three batches, before the last of which another process takes the places, with these calls failing.
#[derive(Debug, Clone)]
struct Case {
    failing: Vec<(&'static str, u64, WireFault)>,
    session_count: usize,
    keyed: bool,
}

impl Case {
    /// The call that writes a batch.
    fn write(&self) -> &'static str {
        if self.session_count == 1 && !self.keyed { "PutItem" } else { "TransactWriteItems" }
    }

    async fn run(self, index: usize, table: &str, others: &Service) {
        let what = format!("{index}: {self:?}");
        let sessions: Vec<String> = (0..self.session_count).map(|i| format!("c{index}#{i}")).collect();
        let process = Process::start(table).await;
        for (operation, nth, fault) in &self.failing {
            process.proxy.fail(operation, *nth, *fault);
        }
        let mut answers = Vec::new();
        for batch in 0..3 {
            if batch == 2 {
                post(others, "other", &sessions, false).await.expect(201);
            }
            let mark = format!("c{index}m{batch}");
            answers.push((mark.clone(), post(&process.service, &mark, &sessions, self.keyed).await));
        }
        assert_eq!(process.proxy.pending(), 0, "{what}: a fault that no call met tests nothing");
        process.settle().await;
        let told: Vec<_> = answers.iter().map(|(mark, a)| (mark.clone(), told(a, &what))).collect();
        // One fault, or two, and all the time of the deadline: every batch gets through.
        assert!(told.iter().all(|(_, told)| matches!(told, Told::Acknowledged(_))), "{what}: {told:?}");
        if self.keyed {
            // Asked again, of another process: the first answer, and nothing more is written.
            for (mark, first) in &answers {
                let again = post(others, mark, &sessions, true).await;
                assert_eq!(again.expect(201), first.json(), "{what}: {mark} again");
                assert_eq!(again.headers["idempotent-replayed"], "true", "{what}: {mark}");
            }
        }
        let (store, tenant) = (others.app.ledger.store().clone(), TenantId::default_tenant());
        check(store, &tenant, &sessions, &told, &what).await;
    }
}

/// Runs cases, many at once, each on sessions of its own in one table.
async fn run(cases: Vec<Case>) {
    let url = Emulator::dynoxide().url();
    let table = fresh_table(url);
    let others = Arc::new(service_at(url, &table, Arc::new(SystemClock)).await);
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut running = JoinSet::new();
    for (index, case) in cases.into_iter().enumerate() {
        let (places, others, table) = (places.clone(), others.clone(), table.clone());
        running.spawn(async move {
            let _place = places.acquire().await.unwrap();
            case.run(index, &table, &others).await;
        });
    }
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
}

/// With one session and with three, with a key and without.
fn shapes() -> impl Iterator<Item = Case> {
    let shape = |session_count| [false, true].map(|keyed| Case { failing: vec![], session_count, keyed });
    [1, 3].into_iter().flat_map(shape)
}

/// The first try of a cold batch, of a warm one, and of one that loses its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p3_every_write_with_every_fault_on_the_wire() {
    let mut cases = Vec::new();
    for shape in shapes() {
        for fault in faults() {
            for nth in 1..=3 {
                cases.push(Case { failing: vec![(shape.write(), nth, fault)], ..shape.clone() });
            }
        }
    }
    run(cases).await;
}

/// The read of a cold head and of one that was lost; of an idempotency key; of the place whose write got no answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p3_every_read_with_every_fault_on_the_wire() {
    let mut cases = Vec::new();
    let reads = faults().into_iter().filter(|fault| *fault != WireFault::TransactionConflict);
    for fault in reads {
        for shape in shapes() {
            for nth in [1, 1 + shape.session_count as u64] {
                cases.push(Case { failing: vec![("Query", nth, fault)], ..shape.clone() });
            }
            if shape.keyed {
                for nth in 1..=2 {
                    cases.push(Case { failing: vec![("GetItem", nth, fault)], ..shape.clone() });
                }
            }
            for lost in [WireFault::DropReply, WireFault::DropRequest] {
                let read = ("GetItem", 1 + u64::from(shape.keyed), fault);
                cases.push(Case { failing: vec![(shape.write(), 1, lost), read], ..shape.clone() });
            }
        }
    }
    run(cases).await;
}

/// Three processes, six clients each, every call of the table failing by chance. Half of the clients send a key and
/// ask until they know.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p2_p3_random_faults_on_the_wire() {
    let url = Emulator::dynoxide().url();
    let table = fresh_table(url);
    let short = Duration::from_millis(30);
    let chances = [
        (0.06, WireFault::DropReply),
        (0.06, WireFault::DropRequest),
        (0.04, WireFault::Status500),
        (0.06, WireFault::Status500AfterApply),
        (0.05, WireFault::Throttle),
        (0.05, WireFault::TransactionConflict),
        (0.05, WireFault::Slow(short)),
        (0.05, WireFault::SlowAfterApply(short)),
    ];
    let sessions: Vec<String> = (0..3).map(|i| format!("s#{i}")).collect();
    let mut running = JoinSet::new();
    let mut processes = Vec::new();
    for number in 0..3u64 {
        let process = Arc::new(Process::start(&table).await);
        process.proxy.fail_randomly(number, &chances);
        processes.push(process.clone());
        for client in 0..6 {
            let (process, sessions) = (process.clone(), sessions.clone());
            running.spawn(async move {
                let mut results = Vec::new();
                for batch in 0..6 {
                    let mark = format!("p{number}c{client}b{batch}");
                    let count = [1, 3][batch % 2];
                    let keyed = client % 2 == 0;
                    let mut answer =
                        told(&post(&process.service, &mark, &sessions[..count], keyed).await, &mark);
                    let mut tries = 1;
                    while keyed && !matches!(answer, Told::Acknowledged(_)) {
                        answer = told(&post(&process.service, &mark, &sessions[..count], keyed).await, &mark);
                        tries += 1;
                        assert!(tries < 20, "{mark} never gets through");
                    }
                    results.push((count, (mark, answer)));
                }
                results
            });
        }
    }
    let mut results = Vec::new();
    while let Some(done) = running.join_next().await {
        results.extend(done.unwrap());
    }
    for process in &processes {
        assert!(process.proxy.faults() > 20, "{} faults", process.proxy.faults());
        process.settle().await;
    }
    for count in [1, 3] {
        let these = results.iter().filter(|(n, _)| *n == count).map(|(_, told)| told.clone());
        let these: Vec<_> = these.collect();
        let got_through = these.iter().filter(|(_, told)| matches!(told, Told::Acknowledged(_))).count();
        assert!(got_through > these.len() / 2, "{got_through} of {}", these.len());
        let tenant = TenantId::default_tenant();
        check(store_at(url, &table), &tenant, &sessions[..count], &these, "random").await;
    }
}

/// A clock by which deadlines come eight times sooner, from when it is told to.
struct Hasty {
    started: Instant,
    at: Micros,
    hurried: OnceLock<Instant>,
}

impl Hasty {
    fn start() -> Arc<Self> {
        Arc::new(Self { started: Instant::now(), at: SystemClock.now(), hurried: OnceLock::new() })
    }

    fn hurry(&self) {
        self.hurried.get_or_init(Instant::now);
    }
}

impl Clock for Hasty {
    fn now(&self) -> Micros {
        let ms = |since: &Instant| i64::try_from(since.elapsed().as_millis()).unwrap();
        self.at.plus_ms(ms(&self.started) + 7 * self.hurried.get().map_or(0, ms))
    }
}

/// Calls that fail, more than any deadline has time for.
const ALL: u64 = 1000;

/// The write may have been applied and nobody says so, to the end of the deadline: 503 `outcome_unknown`, and the same
/// `Idempotency-Key` tells later what became of it, and writes it if nothing did.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p3_an_outcome_that_stays_unknown_is_said_and_settled_by_its_key() {
    let url = Emulator::dynoxide().url();
    let table = fresh_table(url);
    let others = Arc::new(service_at(url, &table, Arc::new(SystemClock)).await);
    let faults =
        [WireFault::DropReply, WireFault::DropRequest, WireFault::Status500, WireFault::Status500AfterApply];
    let mut running = JoinSet::new();
    for (index, shape) in shapes().enumerate() {
        for (number, fault) in faults.into_iter().enumerate() {
            let (table, others, shape) = (table.clone(), others.clone(), shape.clone());
            running.spawn(async move {
                let what = format!("{shape:?} {fault:?}");
                let sessions: Vec<String> =
                    (0..shape.session_count).map(|i| format!("u{index}-{number}-{i}")).collect();
                let clock = Hasty::start();
                let process = Process::with_clock(&table, clock.clone()).await;
                let warm =
                    post(&process.service, &format!("{index}-{number}-warm"), &sessions, shape.keyed).await;
                warm.expect(201);
                clock.hurry();
                process.proxy.reset();
                for nth in 1..=ALL {
                    process.proxy.fail(shape.write(), nth, fault);
                    // The first read with a key is the key's.
                    process.proxy.fail("GetItem", nth + u64::from(shape.keyed), WireFault::Status500);
                }
                let mark = format!("{index}-{number}-mark");
                let answer = post(&process.service, &mark, &sessions, shape.keyed).await;
                assert_eq!(told(&answer, &what), Told::Unknown, "{what}: {}", answer.text);
                // A request's id is random and may hold any digits.
                let said = answer.text.replace(answer.json()["request_id"].as_str().unwrap(), "");
                assert!(!said.contains("500") && !said.contains("dynamodb"), "{said}");
                process.settle().await;
                let (store, tenant) = (others.app.ledger.store().clone(), TenantId::default_tenant());
                let found = marks(store.clone(), &tenant, &sessions).await;
                let applied = matches!(fault, WireFault::DropReply | WireFault::Status500AfterApply);
                for session in &sessions {
                    let at = found.get(&(session.clone(), mark.clone())).map_or(0, Vec::len);
                    assert_eq!(at, if applied { 2 } else { 0 }, "{what}: {session}");
                }
                if shape.keyed {
                    let again = post(&others, &mark, &sessions, true).await;
                    assert_eq!(again.headers.contains_key("idempotent-replayed"), applied, "{what}");
                    let told = vec![(mark, told(&again, &what))];
                    check(store, &tenant, &sessions, &told, &what).await;
                }
            });
        }
    }
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
}

/// A table that throttles to the end of the deadline: 503 `busy` with `Retry-After`, for those too who waited for the
/// session behind others, and nothing is stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p3_throttled_to_the_deadline_is_busy_and_stores_nothing() {
    const CLIENTS: usize = 12;
    let table = fresh_table(Emulator::dynoxide().url());
    let mut running = JoinSet::new();
    for fault in [WireFault::Throttle, WireFault::TransactionConflict] {
        for session_count in [1, 3] {
            let table = table.clone();
            running.spawn(async move {
                let what = format!("{fault:?} of {session_count}");
                let sessions: Vec<String> =
                    (0..session_count).map(|i| format!("{fault:?}-{session_count}-{i}")).collect();
                let clock = Hasty::start();
                let process = Process::with_clock(&table, clock.clone()).await;
                post(&process.service, "warm", &sessions, false).await.expect(201);
                clock.hurry();
                let write = if session_count == 1 { "PutItem" } else { "TransactWriteItems" };
                for nth in 1..=ALL {
                    process.proxy.fail(write, nth, fault);
                }
                let started = Instant::now();
                let asked = (0..CLIENTS).map(async |client| {
                    let answer = post(&process.service, &format!("m{client}"), &sessions, false).await;
                    assert_eq!(answer.json()["code"], "busy", "{what}: {}", answer.text);
                    (format!("m{client}"), told(&answer, &what))
                });
                let told = futures_util::future::join_all(asked).await;
                // What one call of the store may take, 4 s, is past the deadline of a clock that hurries. In a queue
                // without a deadline it would be the twelvefold.
                assert!(started.elapsed() < Duration::from_secs(20), "{what}: {:?}", started.elapsed());
                assert!(told.iter().all(|(_, told)| *told == Told::Refused));
                let (tenant, store) =
                    (TenantId::default_tenant(), process.service.app.ledger.store().clone());
                check(store, &tenant, &sessions, &told, &what).await;
                process.proxy.reset();
                post(&process.service, "after", &sessions, false).await.expect(201);
            });
        }
    }
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
}

/// What a client is told of faults is JSON of our shape and no word of AWS's.
#[tokio::test]
async fn p1_an_error_names_no_source() {
    const FIELDS: [&str; 7] = ["code", "error", "request_id", "retryable", "status", "title", "type"];
    let table = fresh_table(Emulator::dynoxide().url());
    let clock = Hasty::start();
    clock.hurry();
    let process = Process::with_clock(&table, clock).await;
    process.proxy.fail_randomly(0, &[(1.0, WireFault::Throttle)]);
    let sessions = ["s".to_owned()];
    let error = post(&process.service, "m", &sessions, false).await;
    let names: Vec<_> = error.expect(503).as_object().unwrap().keys().cloned().collect();
    assert_eq!(names, FIELDS, "{}", error.text);
    assert_eq!(error.json()["code"], Value::from("busy"));
}
