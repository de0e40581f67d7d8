//! `/v1/sessions`, `/v1/agents`.

use quipu_core::auth::AuthMode;
use quipu_tests::{Service, event};
use serde_json::{Value, json};

#[tokio::test]
async fn a_session_counts_what_happened_in_it() {
    let service = Service::start(AuthMode::Loopback).await;
    let make = |kind: &str, severity: &str, second: u64, payload: Value| {
        json!({ "session_id": "s", "agent_id": "a", "event_type": kind, "severity": severity, "payload": payload,
                "timestamp": format!("2026-01-01T00:00:{second:02}Z") })
    };
    let response = json!({
        "callId": "c", "provider": "p", "model": "m", "completion": null, "finishReason": "stop",
        "usage": { "inputTokens": 10, "outputTokens": 5, "totalTokens": 15 }, "costUsd": 0.1, "latencyMs": 3,
    });
    let first = json!({ "events": [
        make("session_started", "error", 5, json!({ "agentName": "Ada", "tags": ["x", "y"] })),
        make("tool_call", "info", 6, json!({ "toolName": "t", "callId": "c", "arguments": {} })),
        make("tool_error", "error", 7, json!({ "toolName": "t", "callId": "c", "error": "e", "durationMs": 1 })),
    ]});
    let second = json!({ "events": [
        make("llm_response", "info", 8, response.clone()),
        make("llm_response", "info", 1, response),
        make("custom", "critical", 9, json!({ "type": "t", "data": {} })),
    ]});
    service.post("/v1/events", &first).await.expect(201);
    service.post("/v1/events", &second).await.expect(201);
    let s = service.get("/v1/sessions/s").await.expect(200);
    let expected = json!({
        "event_count": 6, "tool_call_count": 1, "error_count": 2, "llm_call_count": 2, "input_tokens": 20,
        "output_tokens": 10, "cost_usd": 0.2, "status": "active", "tags": ["x", "y"], "agent_name": "Ada",
        "started_at": "2026-01-01T00:00:05.000000Z", "first_timestamp": "2026-01-01T00:00:01.000000Z",
        "last_timestamp": "2026-01-01T00:00:09.000000Z", "ended_at": null, "last_sequence": 5, "agents": { "a": 6 },
    });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&s[name], value, "{name}");
    }
    let end = json!({ "events": [make("session_ended", "info", 30, json!({ "reason": "timeout" }))] });
    service.post("/v1/events", &end).await.expect(201);
    let s = service.get("/v1/sessions/s").await.expect(200);
    assert_eq!((&s["status"], &s["ended_at"]), (&json!("completed"), &json!("2026-01-01T00:00:30.000000Z")));

    let agent = service.get("/v1/agents/a").await.expect(200);
    assert_eq!(
        (&agent["name"], &agent["session_count"], &agent["event_count"]),
        (&json!("Ada"), &json!(1), &json!(7))
    );
}

#[tokio::test]
async fn sessions_list_newest_first_in_pages() {
    let service = Service::start(AuthMode::Loopback).await;
    for i in 0..25 {
        let mut one = event(&format!("s{i:02}"), json!(i));
        one["agent_id"] = json!(format!("a{}", i % 2));
        service.post("/v1/events", &json!({ "events": [one] })).await.expect(201);
        // Sessions are ordered by the millisecond of their first commit.
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    // A later event moves no session.
    service.post("/v1/events", &json!({ "events": [event("s03", json!(0))] })).await.expect(201);
    let list = |query: &'static str| {
        let service = &service;
        async move {
            let (mut seen, mut cursor) = (Vec::new(), String::new());
            loop {
                let page = service.get(&format!("/v1/sessions?limit=4{query}{cursor}")).await.expect(200);
                let ids = page["sessions"].as_array().unwrap().iter();
                seen.extend(ids.map(|s| s["session_id"].as_str().unwrap().to_owned()));
                match page["next_cursor"].as_str() {
                    Some(next) => cursor = format!("&cursor={next}"),
                    None => return seen,
                }
            }
        }
    };
    let down: Vec<_> = (0..25).rev().map(|i| format!("s{i:02}")).collect();
    assert_eq!(list("").await, down);
    let odd: Vec<_> = (0..25).rev().filter(|i| i % 2 == 1).map(|i| format!("s{i:02}")).collect();
    assert_eq!(list("&agent_id=a1").await, odd);
    assert_eq!(list("&status=completed").await, Vec::<String>::new());
    for bad in ["status=idle", "cursor=x", "agent=a"] {
        service.get(&format!("/v1/sessions?{bad}")).await.expect(400);
    }
}

#[tokio::test]
async fn the_server_gives_its_own_word_and_a_bundle_to_check_it_by() {
    let service = Service::start(AuthMode::Loopback).await;
    assert_eq!(
        service.get("/v1/verify").await.expect(200)["verdict"],
        "INCOMPLETE",
        "silence is never valid"
    );
    let events: Vec<_> = (0..10).map(|i| event("s é/ä", json!(i))).collect();
    service.post("/v1/events", &json!({ "events": events })).await.expect(201);
    let path = "/v1/sessions/s%20%C3%A9%2F%C3%A4";
    let verdict = service.get(&format!("{path}/verify")).await.expect(200);
    assert_eq!((&verdict["verdict"], &verdict["events"]), (&json!("VALID"), &json!(10)));
    let export = service.get(&format!("{path}/export")).await;
    assert_eq!(export.status, 200);
    let kinds: Vec<String> = export
        .text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["kind"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(kinds.len(), 14);
    assert_eq!((kinds[0].as_str(), kinds[1].as_str(), kinds[13].as_str()), ("bundle", "session", "end"));
    service.get("/v1/sessions/none/export").await.expect(404);
    service.get("/v1/sessions/none/verify").await.expect(404);
    let key = service.get("/v1/log/key").await.expect(200);
    assert!(key["log_key"].as_str().unwrap().contains("/_log+"));
}
