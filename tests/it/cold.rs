//! Reads of what is hot, of what is archived only, and of both, over HTTP in both dialects, on either backend.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use quipu_core::archive::{ArchiveSettings, Close};
use quipu_core::auth::AuthMode;
use quipu_core::clock::{Clock, ManualClock, SystemClock};
use quipu_core::ids::TenantId;
use quipu_core::time::Micros;
use quipu_tests::Service;
use quipu_tests::archiving::{Ground, note};
use serde_json::{Value, json};

const DAY_MS: i64 = 24 * 3600 * 1000;

/// One day hot.
fn settings() -> ArchiveSettings {
    ArchiveSettings { hot_retention_ms: Some(DAY_MS), ..ArchiveSettings::default() }
}

async fn archive(ground: &Ground) {
    let run = ground.archiver(settings()).run(&TenantId::default_tenant(), Close::Now, Micros::MAX).await;
    assert!(!run.expect("a run").batches.is_empty(), "there was something to archive");
}

/// Events of five sessions and three agents, in batches of ten.
async fn write(service: &Service, round: usize) {
    for batch in 0..6 {
        let events: Vec<Value> = (0..10)
            .map(|n| {
                let at = round * 60 + batch * 10 + n;
                json!({
                    "session_id": format!("session-{}", at % 5),
                    "agent_id": format!("agent-{}", at % 3),
                    "event_type": if at.is_multiple_of(4) { "note.taken" } else { "note.given" },
                    "severity": if at.is_multiple_of(7) { "error" } else { "info" },
                    "timestamp": format!("2026-0{}-01T10:{:02}:00Z", round + 1, (batch * 10 + n) % 60),
                    "payload": { "text": format!("text {at} of {}", if at.is_multiple_of(11) { "Gold" } else { "tin" }) },
                })
            })
            .collect();
        service.post("/v1/events", &json!({ "events": events })).await.expect(201);
    }
}

/// Every event of a list, page by page.
async fn all(service: &Service, uri: &str) -> Vec<Value> {
    let mut events = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = service.get(&format!("{uri}{cursor}")).await.expect(200);
        events.extend(page["events"].as_array().unwrap().iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return events,
        }
    }
}

/// What everybody who asks is told; the same before and after anything is archived or expires.
async fn told(service: &Service) -> BTreeMap<String, Value> {
    let mut told = BTreeMap::new();
    for filter in [
        "",
        "&agent_id=agent-1",
        "&event_type=note.taken&severity=error",
        "&session_id=session-2",
        "&from=2026-01-01T10:20:00Z&to=2026-02-01T10:10:00Z",
        "&search=gold",
        "&agent_id=agent-0&search=TIN&from=2026-02-01T00:00:00Z",
    ] {
        for order in ["asc", "desc"] {
            let uri = format!("/v1/events?limit=7&order={order}{filter}");
            told.insert(uri.clone(), all(service, &uri).await.into());
        }
    }
    for uri in [
        "/v1/sessions",
        "/v1/agents",
        "/v1/sessions/session-1",
        "/v1/sessions/session-1/events?limit=1000",
        "/v1/sessions/session-3/events?order=desc&limit=5",
        "/v1/sessions/session-3/events?from_sequence=7&limit=9",
        "/v1/sessions/session-4/verify",
        "/v1/verify?from=2026-01-01T00:00:00Z&to=2026-01-01T10:30:00Z",
        "/v1/verify",
        "/api/events?limit=9&offset=25",
        "/api/events?agentId=agent-2&limit=3",
        "/api/events?search=gold&eventType=note.taken&limit=3",
        "/api/events?from=2026-01-01T10:20:00Z&severity=error&limit=2",
        "/api/sessions",
        "/api/sessions/session-0/timeline",
        "/api/agents",
    ] {
        let mut answer = service.get(uri).await.expect(200);
        // When it was asked is no part of the answer.
        if let Some(answer) = answer.as_object_mut() {
            answer.remove("verified_at");
        }
        told.insert(uri.to_owned(), answer);
    }
    for event in told["/v1/events?limit=7&order=asc"].as_array().unwrap().clone().iter().step_by(7) {
        let uri = format!("/v1/events/{}", event["event_id"].as_str().unwrap());
        let found = service.get(&uri).await.expect(200);
        assert_eq!(found, *event);
        told.insert(uri, found);
    }
    told
}

async fn stays_the_same(ground: Ground, clock: Arc<ManualClock>) {
    let service =
        Service::with_archive(ground.ledger(), Some(ground.objects.clone()), AuthMode::Loopback).await;
    let same = async |before: &BTreeMap<String, Value>, what: &str| {
        let after = told(&service).await;
        for (uri, answer) in before {
            assert_eq!(after[uri], *answer, "{what}: {uri}");
        }
    };
    write(&service, 0).await;
    let hot = told(&service).await;
    archive(&ground).await;
    same(&hot, "archived and hot").await;
    clock.advance_ms(DAY_MS - 90_000);
    same(&hot, "about to expire").await;
    clock.advance_ms(120_000);
    same(&hot, "expired").await;
    while ground.store.expire(clock.now(), 100).await.unwrap() > 0 {}
    same(&hot, "swept").await;
    let explained = service.get("/v1/events?limit=1000&explain=true").await.expect(200);
    assert_eq!(explained["explain"]["hot"]["segments_read"], 0, "nothing is hot any more");
    assert_eq!(explained["explain"]["archive"]["rows_returned"], 60);
    // Another month, of which all is hot at first.
    write(&service, 1).await;
    let both = told(&service).await;
    assert_eq!(both["/v1/events?limit=7&order=asc"].as_array().unwrap().len(), 120);
    assert_eq!(both["/api/events?limit=9&offset=25"]["total"], 120);
    archive(&ground).await;
    same(&both, "two batches, one of them hot").await;
    clock.advance_ms(2 * DAY_MS);
    same(&both, "two batches").await;
    let id = both["/v1/events?limit=7&order=asc"][3]["event_id"].as_str().unwrap().to_owned();
    let explained = service.get(&format!("/v1/events/{id}?explain=true")).await.expect(200);
    let archive = &explained["explain"]["archive"];
    assert_eq!(
        (&archive["batches_read"], &archive["batches_skipped"]),
        (&json!(1), &json!(1)),
        "{explained}"
    );
}

/// What is erased from the archive is erased from every answer, also of a process that has read it before; and what is
/// left is as it was.
async fn erased_from_every_answer(ground: Ground, clock: Arc<ManualClock>) {
    let service =
        Service::with_archive(ground.ledger(), Some(ground.objects.clone()), AuthMode::Loopback).await;
    write(&service, 0).await;
    archive(&ground).await;
    clock.advance_ms(2 * DAY_MS);
    while ground.store.expire(clock.now(), 100).await.unwrap() > 0 {}
    let before = all(&service, "/v1/events?limit=100&order=asc").await;
    let event = &before[22];
    let (id, session) = (event["event_id"].as_str().unwrap(), event["session_id"].as_str().unwrap());
    assert!(event["payload"]["text"].as_str().unwrap().contains("Gold"));
    let uri = format!("/v1/events/{id}/content");
    let body = r#"{"reason":"asked for"}"#;
    let headers = [("content-type", "application/json")];
    let asked = service.send(axum::http::Method::DELETE, &uri, &headers, body).await;
    assert!(asked.status == 202 || asked.status == 200, "{} {}", asked.status, asked.text);
    let run = async || {
        let run = ground.archiver(settings()).run(&TenantId::default_tenant(), Close::Now, Micros::MAX).await;
        run.expect("a run");
    };
    for _ in 0..2 {
        run().await;
    }
    let erasure = service.get(&format!("/v1/erasures/{id}")).await.expect(200);
    assert_eq!(erasure["state"], "done", "{erasure}");
    let after = all(&service, "/v1/events?limit=100&order=asc").await;
    let (tombstones, after): (Vec<_>, Vec<_>) =
        after.into_iter().partition(|event| event["event_type"] == "quipu.erased");
    assert_eq!((tombstones.len(), after.len()), (1, before.len()));
    for (was, is) in before.iter().zip(&after) {
        if was["event_id"] == event["event_id"] {
            assert_eq!((&was["hash"], &was["sequence"]), (&is["hash"], &is["sequence"]));
            assert!(is["payload"].is_null() && !is.to_string().contains("Gold"), "{is}");
        } else {
            assert_eq!(was, is);
        }
    }
    let single = service.get(&format!("/v1/events/{id}")).await.expect(200);
    let of_session = all_of_session(&service, session).await;
    assert!(single["payload"].is_null() && of_session.contains(&single));
    assert_eq!(all(&service, "/v1/events?limit=100&search=gold").await.len(), 5, "of six one is gone");
    assert_eq!(service.get("/api/events?search=gold").await.expect(200)["total"], 5);
    let verified = service.get(&format!("/v1/sessions/{session}/verify")).await.expect(200);
    assert_eq!(verified["verdict"], "VALID", "{verified}");
}

async fn all_of_session(service: &Service, session: &str) -> Vec<Value> {
    let page = service.get(&format!("/v1/sessions/{session}/events?limit=1000")).await.expect(200);
    page["events"].as_array().unwrap().clone()
}

#[tokio::test]
async fn p4_what_is_erased_is_gone_from_cold_reads_on_a_directory() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), manual());
    erased_from_every_answer(Ground::directory_at(dir.path(), clock.clone()), clock).await;
}

#[tokio::test]
async fn p4_what_is_erased_is_gone_from_cold_reads_on_aws() {
    let clock = manual();
    erased_from_every_answer(Ground::aws_at(clock.clone()).await, clock).await;
}

fn manual() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(SystemClock.now()))
}

#[tokio::test]
async fn answers_stay_the_same_on_a_directory() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), manual());
    stays_the_same(Ground::directory_at(dir.path(), clock.clone()), clock).await;
}

#[tokio::test]
async fn answers_stay_the_same_on_aws() {
    let clock = manual();
    stays_the_same(Ground::aws_at(clock.clone()).await, clock).await;
}

/// A clock that runs so many times as fast.
struct Fast {
    started: Instant,
    at: Micros,
    times: i64,
}

impl Clock for Fast {
    fn now(&self) -> Micros {
        let ms = i64::try_from(self.started.elapsed().as_millis()).unwrap();
        self.at.plus_ms(ms * self.times)
    }
}

/// Appends, archive runs and expiry of `minutes` go on while readers page through everything, over and over: no event twice,
/// none missed of those that were acknowledged when a reader began, always in order.
async fn pages_while_all_moves(ground: Ground, minutes: u64, times: u64) {
    let tenant = TenantId::default_tenant();
    let ledger = ground.ledger();
    ledger.ensure_default_tenant().await.unwrap();
    let (done, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
    let hour = Duration::from_secs(minutes * 60) / u32::try_from(times).unwrap();
    let writer = {
        let (ledger, tenant, acknowledged) = (ledger.clone(), tenant.clone(), acknowledged.clone());
        tokio::spawn(async move {
            let started = Instant::now();
            for number in 0usize.. {
                if started.elapsed() > hour {
                    break;
                }
                let events =
                    (0..3).map(|n| note(&format!("s{}", (number + n) % 7), &format!("{number} {n}")));
                let appended = ledger.append(&tenant, events.collect(), None).await.unwrap();
                acknowledged
                    .lock()
                    .unwrap()
                    .extend(appended.events.iter().map(|(_, placed)| placed.event_id));
                tokio::time::sleep(Duration::from_millis(15)).await;
            }
        })
    };
    let mover = {
        // Hot for ten minutes, by the clock that runs fast.
        let settings = ArchiveSettings { hot_retention_ms: Some(600_000), ..ArchiveSettings::default() };
        let (archiver, store, clock) =
            (ground.archiver(settings), ground.store.clone(), ground.clock.clone());
        let (tenant, done) = (tenant.clone(), done.clone());
        tokio::spawn(async move {
            let (mut batches, mut expired) = (0, 0);
            while !done.load(Relaxed) {
                batches += archiver.run(&tenant, Close::Now, Micros::MAX).await.unwrap().batches.len();
                expired += store.expire(clock.now(), 1000).await.unwrap();
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            (batches, expired)
        })
    };
    let service = Arc::new(
        Service::with_archive(ground.ledger(), Some(ground.objects.clone()), AuthMode::Loopback).await,
    );
    let readers: Vec<_> = ["asc", "desc"]
        .into_iter()
        .map(|order| {
            let (service, done, acknowledged) = (service.clone(), done.clone(), acknowledged.clone());
            tokio::spawn(async move {
                let mut walks = 0;
                while !done.load(Relaxed) || walks == 0 {
                    let before: Vec<String> = acknowledged
                        .lock()
                        .unwrap()
                        .iter()
                        .map(|id: &quipu_core::ids::EventId| id.to_string())
                        .collect();
                    let events = all(&service, &format!("/v1/events?limit=97&order={order}")).await;
                    let place = |event: &Value| {
                        (
                            event["timestamp"].as_str().unwrap().to_owned(),
                            event["event_id"].as_str().unwrap().to_owned(),
                        )
                    };
                    let places: Vec<_> = events.iter().map(place).collect();
                    let in_order = places
                        .windows(2)
                        .all(|pair| if order == "asc" { pair[0] < pair[1] } else { pair[0] > pair[1] });
                    assert!(in_order, "{order}: in order, and none twice");
                    let seen: HashSet<&String> = places.iter().map(|(_, id)| id).collect();
                    let missed: Vec<_> = before.iter().filter(|id| !seen.contains(id)).collect();
                    assert!(
                        missed.is_empty(),
                        "{order}, walk {walks}: {} of {} missed: {missed:?}",
                        missed.len(),
                        before.len()
                    );
                    walks += 1;
                }
                walks
            })
        })
        .collect();
    writer.await.unwrap();
    done.store(true, Relaxed);
    let (batches, expired) = mover.await.unwrap();
    let mut walks = 0;
    for reader in readers {
        walks += reader.await.unwrap();
    }
    println!(
        "{walks} walks, {batches} batches, {expired} segments expired, {} events",
        acknowledged.lock().unwrap().len()
    );
    assert!(walks > 4 && batches > 10, "{walks} walks, {batches} batches");
}

fn fast(times: i64) -> Arc<Fast> {
    Arc::new(Fast { started: Instant::now(), at: SystemClock.now(), times })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_misses_nothing_while_an_hour_goes_by_in_seconds() {
    let dir = tempfile::tempdir().unwrap();
    pages_while_all_moves(Ground::directory_at(dir.path(), fast(180)), 60, 180).await;
}
