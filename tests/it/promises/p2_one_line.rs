//! P2: a session has one line of history, whoever writes at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use quipu_core::auth::AuthMode;
use quipu_tests::{Service, event};
use serde_json::json;

const WRITERS: usize = 50;
const BATCHES: usize = 8;

/// Fifty writers on one session, through the routers: every acknowledged event stands at the place it was told,
/// with the hash it was told, and the line has no gap and no fork.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn p2_fifty_writers_on_one_session() {
    let service = Arc::new(Service::start(AuthMode::Loopback).await);
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let service = service.clone();
        writers.push(tokio::spawn(async move {
            let mut told = Vec::new();
            for batch in 0..BATCHES {
                let events: Vec<_> = (0..3).map(|i| event("one", json!([writer, batch, i]))).collect();
                let answer = service.post("/v1/events", &json!({ "events": events })).await.expect(201);
                for (index, placed) in answer["events"].as_array().unwrap().iter().enumerate() {
                    let sequence = placed["sequence"].as_u64().unwrap();
                    told.push((
                        sequence,
                        placed["hash"].as_str().unwrap().to_owned(),
                        json!([writer, batch, index]),
                    ));
                }
            }
            told
        }));
    }
    let mut told = BTreeMap::new();
    for writer in writers {
        for (sequence, hash, payload) in writer.await.unwrap() {
            assert!(told.insert(sequence, (hash, payload)).is_none(), "sequence {sequence} was given twice");
        }
    }
    let total = WRITERS * BATCHES * 3;
    assert_eq!(told.keys().copied().collect::<Vec<_>>(), (0..total as u64).collect::<Vec<_>>());

    let mut from = json!(0);
    let mut prev = "0".repeat(64);
    let mut seen = 0;
    while !from.is_null() {
        let page =
            service.get(&format!("/v1/sessions/one/events?limit=500&from_sequence={from}")).await.expect(200);
        for event in page["events"].as_array().unwrap() {
            let (hash, payload) = &told[&event["sequence"].as_u64().unwrap()];
            assert_eq!((&event["hash"], &event["payload"]), (&json!(hash), payload));
            assert_eq!(event["prev_hash"], json!(prev));
            prev.clone_from(hash);
            seen += 1;
        }
        from = page["next_sequence"].clone();
    }
    assert_eq!(seen, total);
    assert_eq!(service.get("/v1/sessions/one/verify").await.expect(200)["verdict"], "VALID");
}

/// Batches over several sessions, each in another order: no writer waits for another in a circle.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn p2_batches_over_several_sessions_at_once() {
    let service = Arc::new(Service::start(AuthMode::Loopback).await);
    let mut writers = Vec::new();
    for writer in 0..20usize {
        let service = service.clone();
        writers.push(tokio::spawn(async move {
            for batch in 0..5 {
                let events: Vec<_> = (0..6)
                    .map(|i| event(&format!("s{}", (i * (writer + 1) + batch) % 6), json!(i)))
                    .collect();
                service.post("/v1/events", &json!({ "events": events })).await.expect(201);
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let verdict = service.get("/v1/verify").await.expect(200);
    assert_eq!((&verdict["verdict"], &verdict["events"]), (&json!("VALID"), &json!(600)), "{verdict}");
}
