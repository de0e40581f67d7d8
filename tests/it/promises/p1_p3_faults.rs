//! P1 and P3: the fault matrix. Every step of an append × lost, applied but errored, applied late, refused, crashed
//! before and after; then the store is looked at again without the faults: what was acknowledged is there once, what
//! was refused is not there, and what is unknown is there whole or not at all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use quipu_core::auth::AuthMode;
use quipu_core::clock::SystemClock;
use quipu_core::event::{NewEvent, OwnedContent, Redactions};
use quipu_core::ids::{AgentId, ComplianceTag, EventType, Seq, SessionId, Severity, TenantId};
use quipu_core::ledger::{AppendError, IdempotencyKey, Identity, Ledger, SessionVerdict};
use quipu_core::note::NoteSigner;
use quipu_core::statement::{certify, log_key_name, receipt_key_name};
use quipu_core::store::faulty::{Chances, Fault, Faulty, Op};
use quipu_core::store::{Order, Store, StoreError};
use quipu_core::time::Micros;
use quipu_tests::Service;

/// How a batch ended, for its writer.
#[derive(Debug, Clone, PartialEq)]
enum Told {
    Acknowledged(BTreeMap<String, Seq>),
    Refused,
    Unknown,
}

fn ledger_on(store: Arc<dyn Store>) -> Ledger {
    let log_key = NoteSigner::from_seed(&log_key_name("test"), &[1; 32]).unwrap();
    let receipt_key = NoteSigner::from_seed(&receipt_key_name("test"), &[2; 32]).unwrap();
    let certificates = vec![certify(&log_key, "test", receipt_key.verifier(), Micros::MIN)];
    let identity = Identity {
        deployment: "test".into(),
        log_key: log_key.verifier().clone(),
        certificates,
        receipt_key,
    };
    Ledger::new(store, Arc::new(SystemClock), identity)
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

/// Looks at the store without faults: every mark, where it stands.
async fn marks(
    store: Arc<dyn Store>,
    tenant: &TenantId,
    sessions: &[&str],
) -> BTreeMap<(String, String), Vec<Seq>> {
    let ledger = ledger_on(store);
    let mut found: BTreeMap<(String, String), Vec<Seq>> = BTreeMap::new();
    for session in sessions {
        let id = SessionId::parse(*session).unwrap();
        match ledger.verify_session(tenant, &id).await.unwrap() {
            SessionVerdict::Broken { sequence, reason, .. } => panic!("{session}#{sequence}: {reason}"),
            SessionVerdict::Empty | SessionVerdict::Verified { .. } => {}
        }
        let mut from = Some(Seq::ZERO);
        while let Some(at) = from {
            let page = ledger.session_events(tenant, &id, at, Order::Asc, 1000).await.unwrap();
            for event in page.events {
                let OwnedContent::Kept { payload, .. } = event.content else { panic!("erased") };
                let mark = payload.trim_matches('"').to_owned();
                found.entry((session.to_string(), mark)).or_default().push(event.sequence);
            }
            from = page.next;
        }
    }
    found
}

async fn check(
    store: Arc<dyn Store>,
    tenant: &TenantId,
    sessions: &[&str],
    told: &[(String, Told)],
    what: &str,
) {
    let found = marks(store, tenant, sessions).await;
    for (mark, told) in told {
        let at = |session: &str| found.get(&(session.to_owned(), mark.clone())).cloned().unwrap_or_default();
        let counts: Vec<usize> = sessions.iter().map(|s| at(s).len()).collect();
        match told {
            Told::Acknowledged(places) => {
                for (session, first) in places {
                    let next = first.checked_add(1).unwrap();
                    assert_eq!(at(session), [*first, next], "{what}: {mark} was acknowledged");
                }
            }
            Told::Refused => {
                assert!(counts.iter().all(|n| *n == 0), "{what}: {mark} was refused, but {counts:?}")
            }
            Told::Unknown => {
                let whole = counts.iter().all(|n| *n == 2) || counts.iter().all(|n| *n == 0);
                assert!(whole, "{what}: half of {mark}: {counts:?}");
            }
        }
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

/// Each step that an append can take, first, second and third time, with each fault.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn p1_p3_every_step_with_every_fault() {
    let service = Service::start(AuthMode::Loopback).await;
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
    for (index, (op, nth, name, fault, keyed)) in cases.into_iter().enumerate() {
        let inner = inner.clone();
        running.spawn(async move {
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
            tokio::time::sleep(Duration::from_millis(60)).await;
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

/// Many writers, every call of the store failing at random: the same holds.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn p1_p2_p3_random_faults_under_concurrent_writers() {
    let service = Service::start(AuthMode::Loopback).await;
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
    for seed in 0..6u64 {
        let tenant = TenantId::parse(format!("random-{seed}")).unwrap();
        let mut running = tokio::task::JoinSet::new();
        // Two processes, each with its own idea of the heads.
        for process in 0..2 {
            let faulty = Arc::new(Faulty::new(inner.clone()).random(seed * 2 + process, chances));
            let ledger = Arc::new(ledger_on(faulty));
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
        tokio::time::sleep(Duration::from_millis(60)).await;
        for count in 1..=SESSIONS.len() {
            let these: Vec<_> =
                told.iter().filter(|(.., n)| *n == count).map(|(m, t, _)| (m.clone(), t.clone())).collect();
            check(inner.clone(), &tenant, &SESSIONS[..count], &these, &format!("seed {seed}")).await;
        }
        let acknowledged = told.iter().filter(|(_, t, _)| matches!(t, Told::Acknowledged(_))).count();
        assert!(acknowledged > told.len() / 2, "most batches get through: {acknowledged} of {}", told.len());
    }
}

/// A warm append reads nothing and writes once; a lost race costs one read more.
#[tokio::test]
async fn a_warm_append_is_one_write_and_no_read() {
    let service = Service::start(AuthMode::Loopback).await;
    let faulty = Arc::new(Faulty::new(service.app.ledger.store().clone()));
    let ledger = ledger_on(faulty.clone());
    let tenant = TenantId::default_tenant();
    append(&ledger, &tenant, "first", &["s1"], false).await;
    let before: Vec<_> = Op::ALL.iter().map(|op| faulty.calls(*op)).collect();
    append(&ledger, &tenant, "second", &["s1"], false).await;
    for (op, before) in Op::ALL.iter().zip(before) {
        assert_eq!(faulty.calls(*op) - before, usize::from(*op == Op::Commit), "{op:?}");
    }
    // Another process takes the place.
    append(&ledger_on(service.app.ledger.store().clone()), &tenant, "other", &["s1"], false).await;
    append(&ledger, &tenant, "third", &["s1"], false).await;
    let heads = faulty.calls(Op::Head) + faulty.calls(Op::CommitAt);
    assert!(heads <= 3, "the first head, the place that was lost, the new head: {heads}");
}
