//! P1 and P3: the fault matrix. Every step of an append × lost, applied but errored, applied late, refused, crashed
//! before and after; then the store is looked at again without the faults: what was acknowledged is there once, what
//! was refused is not there, and what is unknown is there whole or not at all.

use std::sync::Arc;
use std::time::Duration;

use quipu_core::auth::AuthMode;
use quipu_core::clock::{Clock, ManualClock, SystemClock};
use quipu_core::event::{NewEvent, Redactions};
use quipu_core::ids::{AgentId, ComplianceTag, EventType, SessionId, Severity, TenantId};
use quipu_core::ledger::{AppendError, IdempotencyKey, Ledger};
use quipu_core::store::faulty::{Chances, Fault, Faulty, Op};
use quipu_core::store::{Store, StoreError};
use quipu_core::time::Micros;
use quipu_tests::{Backend, Service};
use tokio::sync::Semaphore;

use super::marks::{Told, check, marks};

fn ledger_on(store: Arc<dyn Store>) -> Ledger {
    quipu_tests::ledger_on(store, Arc::new(SystemClock))
}

fn new_event(session: &str, mark: &str) -> NewEvent {
    NewEvent {
        session_id: SessionId::parse(session).unwrap(),
        agent_id: AgentId::parse("a").unwrap(),
        timestamp: None,
        event_type: EventType::parse("test.mark").unwrap(),
        severity: Severity::Info,
        source_id: None,
        payload: format!("\"{mark}\""),
        metadata: "{}".into(),
        compliance_tag: ComplianceTag::default_tag(),
        pii_types: Vec::new(),
        redactions: Redactions::default(),
    }
}

/// Appends a batch that marks each session twice.
async fn append(ledger: &Ledger, tenant: &TenantId, mark: &str, sessions: &[&str], keyed: bool) -> Told {
    let events = sessions.iter().flat_map(|s| [new_event(s, mark), new_event(s, mark)]).collect();
    let key = keyed.then(|| IdempotencyKey::new("t", "/v1/events", mark, mark.as_bytes()));
    match ledger.append(tenant, events, key.as_ref()).await {
        Ok(done) => {
            let first = |i: usize| {
                done.events.iter().filter(|(s, _)| *s == i).map(|(_, p)| p.sequence).min().unwrap()
            };
            let places = done.standings.iter().enumerate();
            Told::Acknowledged(places.map(|(i, s)| (s.session_id.to_string(), first(i))).collect())
        }
        Err(AppendError::Unknown { .. }) => Told::Unknown,
        Err(_) => Told::Refused,
    }
}

fn faults() -> Vec<(&'static str, Fault)> {
    vec![
        ("lost", Fault::Lose),
        ("applied, then errored", Fault::ApplyThenError),
        ("applied late", Fault::ApplyLate(Duration::from_millis(30))),
        ("throttled", Fault::Refuse(StoreError::Throttled { retry_after: Duration::from_millis(2) })),
        ("unavailable", Fault::Refuse(StoreError::Unavailable { why: "test".into() })),
        ("slow", Fault::Delay(Duration::from_millis(10))),
        ("crashed before", Fault::Crash { applied: false }),
        ("crashed after", Fault::Crash { applied: true }),
    ]
}

const SESSIONS: [&str; 2] = ["s1", "s2"];

/// Each step that an append can take, first, second and third time, with each fault. Cases at once: as many as leave
/// no call waiting so long that it counts as lost.
async fn every_step_with_every_fault(backend: Backend, at_once: usize) {
    let service = Service::on(backend, AuthMode::Loopback).await;
    let mut cases = Vec::new();
    for op in [Op::Commit, Op::Head, Op::CommitAt, Op::Idempotency] {
        for nth in 1..=3 {
            for (name, fault) in faults() {
                for keyed in [false, true] {
                    cases.push((op, nth, name, fault.clone(), keyed));
                }
            }
        }
    }
    let inner = service.app.ledger.store().clone();
    let mut running = tokio::task::JoinSet::new();
    let places = Arc::new(Semaphore::new(at_once));
    for (index, (op, nth, name, fault, keyed)) in cases.into_iter().enumerate() {
        let (inner, places) = (inner.clone(), places.clone());
        running.spawn(async move {
            let _place = places.acquire().await.unwrap();
            let tenant = TenantId::parse(format!("t{index}")).unwrap();
            let what = format!("{op:?} {nth} {name}, key: {keyed}");
            // A lost answer makes the next step a read of the place; only then is CommitAt reached.
            let faulty = Faulty::new(inner.clone()).on(op, nth, fault);
            let faulty =
                if op == Op::CommitAt { faulty.on(Op::Commit, nth, Fault::ApplyThenError) } else { faulty };
            let faulty = Arc::new(faulty);
            let ledger = ledger_on(faulty.clone());
            let mut told = Vec::new();
            for batch in 0..4 {
                let mark = format!("m{batch}");
                let wait = Duration::from_secs(if faulty.has_crashed() { 1 } else { 30 });
                let asked = append(&ledger, &tenant, &mark, &SESSIONS, keyed);
                // A process that has crashed answers nobody: its client gives up, and knows nothing.
                let answer = tokio::time::timeout(wait, asked).await.unwrap_or(Told::Unknown);
                told.push((mark, answer));
                if faulty.has_crashed() {
                    break;
                }
            }
            faulty.settle().await;
            check(inner.clone(), &tenant, &SESSIONS, &told, &what).await;
            // With an idempotency key, asking again tells what became of it, and never writes twice.
            if keyed {
                let again = ledger_on(inner.clone());
                for (mark, before) in &told {
                    let now = append(&again, &tenant, mark, &SESSIONS, true).await;
                    assert!(matches!(now, Told::Acknowledged(_)), "{what}: {mark} again: {now:?}");
                    if let Told::Acknowledged(_) = before {
                        assert_eq!(&now, before, "{what}: the first answer is given again");
                    }
                }
                let all: Vec<_> = told.iter().map(|(m, _)| m.clone()).collect();
                let found = marks(inner, &tenant, &SESSIONS).await;
                for mark in all {
                    for session in SESSIONS {
                        assert_eq!(
                            found[&(session.to_owned(), mark.clone())].len(),
                            2,
                            "{what}: {mark} once"
                        );
                    }
                }
            }
        });
    }
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn p1_p3_every_step_with_every_fault() {
    every_step_with_every_fault(Backend::Embedded, 1000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p3_every_step_with_every_fault_on_dynamodb() {
    every_step_with_every_fault(Backend::DynamoDb, 16).await;
}

/// Many writers, every call of the store failing at random: the same holds.
async fn random_faults(backend: Backend, seeds: std::ops::Range<u64>) {
    let service = Service::on(backend, AuthMode::Loopback).await;
    let inner = service.app.ledger.store().clone();
    let chances = Chances {
        lose: 0.08,
        apply_then_error: 0.12,
        apply_late: 0.05,
        throttle: 0.05,
        unavailable: 0.02,
        delay: 0.05,
        duration_max: Duration::from_millis(20),
    };
    for seed in seeds {
        let tenant = TenantId::parse(format!("random-{seed}")).unwrap();
        let mut running = tokio::task::JoinSet::new();
        let mut processes = Vec::new();
        // Two processes, each with its own idea of the heads.
        for process in 0..2 {
            let faulty = Arc::new(Faulty::new(inner.clone()).random(seed * 2 + process, chances));
            let ledger = Arc::new(ledger_on(faulty.clone()));
            processes.push(faulty);
            for writer in 0..6 {
                let (ledger, tenant) = (ledger.clone(), tenant.clone());
                running.spawn(async move {
                    let mut told = Vec::new();
                    for batch in 0..8 {
                        let mark = format!("p{process}w{writer}b{batch}");
                        let sessions: &[&str] = if batch % 2 == 0 { &SESSIONS } else { &SESSIONS[..1] };
                        let answer = append(&ledger, &tenant, &mark, sessions, false).await;
                        told.push((mark, answer, sessions.len()));
                    }
                    told
                });
            }
        }
        let mut told = Vec::new();
        while let Some(done) = running.join_next().await {
            told.extend(done.unwrap());
        }
        for faulty in processes {
            faulty.settle().await;
        }
        for count in 1..=SESSIONS.len() {
            let these: Vec<_> =
                told.iter().filter(|(.., n)| *n == count).map(|(m, t, _)| (m.clone(), t.clone())).collect();
            check(inner.clone(), &tenant, &SESSIONS[..count], &these, &format!("seed {seed}")).await;
        }
        let acknowledged = told.iter().filter(|(_, t, _)| matches!(t, Told::Acknowledged(_))).count();
        assert!(
            acknowledged > told.len() * 3 / 4,
            "most batches get through: {acknowledged} of {}",
            told.len()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn p1_p2_p3_random_faults_under_concurrent_writers() {
    random_faults(Backend::Embedded, 0..6).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p2_p3_random_faults_under_concurrent_writers_on_dynamodb() {
    random_faults(Backend::DynamoDb, 6..9).await;
}

/// A warm append reads nothing and writes once; a lost race costs the read of the new head and no more.
async fn what_an_append_asks(backend: Backend) {
    let service = Service::on(backend, AuthMode::Loopback).await;
    let inner = service.app.ledger.store().clone();
    let faulty = Arc::new(Faulty::new(inner.clone()));
    let (ledger, another) = (ledger_on(faulty.clone()), ledger_on(inner));
    let tenant = TenantId::default_tenant();
    let calls = || Op::ALL.map(|op| faulty.calls(op));
    let asked = |before: [usize; Op::ALL.len()]| -> Vec<(Op, usize)> {
        let after = Op::ALL.into_iter().zip(calls()).zip(before);
        after.map(|((op, after), before)| (op, after - before)).filter(|(_, count)| *count > 0).collect()
    };
    for keyed in [false, true] {
        let mark = |name: &str| format!("{name} {keyed}");
        append(&ledger, &tenant, &mark("first"), &SESSIONS, keyed).await;
        let key = keyed.then_some((Op::Idempotency, 1));
        let before = calls();
        append(&ledger, &tenant, &mark("second"), &SESSIONS, keyed).await;
        assert_eq!(asked(before), [(Op::Commit, 1)].into_iter().chain(key).collect::<Vec<_>>());
        // Another process takes one of the places.
        append(&another, &tenant, &mark("other"), &SESSIONS[..1], keyed).await;
        let before = calls();
        append(&ledger, &tenant, &mark("third"), &SESSIONS[..1], keyed).await;
        let lost = [(Op::Commit, 2), (Op::Head, 1)].into_iter().chain(key);
        assert_eq!(asked(before), lost.collect::<Vec<_>>(), "key: {keyed}");
    }
}

#[tokio::test]
async fn a_warm_append_is_one_write_and_no_read() {
    what_an_append_asks(Backend::Embedded).await;
}

#[tokio::test]
async fn a_warm_append_is_one_write_and_no_read_on_dynamodb() {
    what_an_append_asks(Backend::DynamoDb).await;
}

/// What a read can answer that says nothing of the ledger.
fn failed_reads() -> [Fault; 3] {
    [
        Fault::Lose,
        Fault::Refuse(StoreError::Throttled { retry_after: Duration::from_millis(2) }),
        Fault::Refuse(StoreError::Unavailable { why: "test".into() }),
    ]
}

/// A batch does not fail with a read that fails: nothing was written, and there is time to ask again.
#[tokio::test]
async fn a_failed_read_is_asked_again() {
    let service = Service::on(Backend::Embedded, AuthMode::Loopback).await;
    let inner = service.app.ledger.store().clone();
    let tenant = TenantId::default_tenant();
    for (op, mark) in [(Op::Head, "head"), (Op::Idempotency, "key"), (Op::Body, "first answer")] {
        let faulty = Arc::new(Faulty::new(inner.clone()));
        for (nth, fault) in (1..).zip(failed_reads()) {
            faulty.plan(op, nth, fault);
        }
        // The first answer is read when the same request comes again.
        let first = if op == Op::Body {
            Some(append(&ledger_on(inner.clone()), &tenant, mark, &SESSIONS, true).await)
        } else {
            None
        };
        let told = append(&ledger_on(faulty.clone()), &tenant, mark, &SESSIONS, true).await;
        assert!(matches!(told, Told::Acknowledged(_)), "{op:?}: {told:?}");
        assert!(first.is_none_or(|first| first == told), "{op:?}");
        assert!(faulty.is_plan_done());
        check(inner.clone(), &tenant, &SESSIONS, &[(mark.to_owned(), told)], mark).await;
    }
}

/// A clock that goes on by a second whenever it is asked.
struct Hasty(ManualClock);

impl Clock for Hasty {
    fn now(&self) -> Micros {
        self.0.advance_ms(1000);
        self.0.now()
    }
}

/// Reads that fail to the end of the deadline refuse the batch, and nothing of it is there. After an outcome that is
/// not known they leave it unknown.
#[tokio::test]
async fn reads_that_fail_for_good_refuse_a_batch_or_leave_it_unknown() {
    let service = Service::on(Backend::Embedded, AuthMode::Loopback).await;
    let inner = service.app.ledger.store().clone();
    let hasty = || Arc::new(Hasty(ManualClock::new(SystemClock.now())));
    let dead = |op| {
        let faulty = Faulty::new(inner.clone());
        (1..1000).for_each(|nth| faulty.plan(op, nth, failed_reads()[2].clone()));
        faulty
    };
    let tenant = TenantId::parse("refused").unwrap();
    let faulty = Arc::new(dead(Op::Head));
    let ledger = quipu_tests::ledger_on(faulty.clone(), hasty());
    let event = || vec![new_event("s1", "m"), new_event("s1", "m")];
    let error = ledger.append(&tenant, event(), None).await.unwrap_err();
    assert!(matches!(error, AppendError::Unavailable { .. }), "{error}");
    assert!(faulty.calls(Op::Head) > 1 && faulty.calls(Op::Commit) == 0);
    check(inner.clone(), &tenant, &SESSIONS[..1], &[("m".into(), Told::Refused)], "refused").await;

    let tenant = TenantId::parse("unknown").unwrap();
    let faulty = Arc::new(dead(Op::CommitAt).on(Op::Commit, 1, Fault::ApplyThenError));
    let ledger = quipu_tests::ledger_on(faulty.clone(), hasty());
    let error = ledger.append(&tenant, event(), None).await.unwrap_err();
    assert!(matches!(error, AppendError::Unknown { .. }), "{error}");
    check(inner.clone(), &tenant, &SESSIONS[..1], &[("m".into(), Told::Unknown)], "unknown").await;
}
