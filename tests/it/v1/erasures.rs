//! `DELETE /v1/events/{id}/content` and `/v1/erasures`.

use axum::body::Body;
use axum::http::Method;
use quipu_core::auth::AuthMode;
use quipu_core::limits;
use quipu_tests::{Answer, Service, event, token_of};
use serde_json::{Value, json};

async fn erase(service: &Service, id: &str, body: &Value) -> Answer {
    let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
    let headers = [("content-type", "application/json")];
    service.send(Method::DELETE, &format!("/v1/events/{id}/content"), &headers, body).await
}

async fn appended(service: &Service, session: &str, payload: Value) -> String {
    let batch = json!({ "events": [event(session, payload)] });
    let answer = service.post("/v1/events", &batch).await.expect(201);
    answer["events"][0]["event_id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn content_goes_and_the_event_stays() {
    let service = Service::start(AuthMode::Loopback).await;
    let id = appended(&service, "s", json!({ "secret": "xyzzy" })).await;
    let after = appended(&service, "s", json!({ "other": 1 })).await;
    let before = service.get(&format!("/v1/events/{id}?include=proof")).await.expect(200);
    service.get(&format!("/v1/erasures/{id}")).await.expect(404);

    let said = erase(&service, &id, &json!({ "reason": "asked for" })).await.expect(202);
    assert_eq!((&said["id"], &said["event_id"], &said["state"]), (&json!(id), &json!(id), &json!("pending")));
    assert_eq!((&said["reason"], &said["token_id"]), (&json!("asked for"), &Value::Null));
    assert_eq!((&said["session_id"], &said["sequence"]), (&json!("s"), &json!(0)));
    assert_eq!(said["hash"], before["hash"]);
    assert_eq!(said["left"].as_array().unwrap().len(), 1, "{said}");
    assert_eq!(said["left"][0]["where"], "archive");
    // Again, and without a body: the same.
    assert_eq!(erase(&service, &id, &Value::Null).await.expect(202), said);
    assert_eq!(service.get(&format!("/v1/erasures/{id}")).await.expect(200), said);
    let list = service.get("/v1/erasures").await.expect(200);
    assert_eq!(list, json!({ "erasures": [said], "next_after": null }));
    let done = service.get("/v1/erasures?state=done").await.expect(200);
    assert_eq!(done["erasures"], json!([]));

    let shown = service.get(&format!("/v1/events/{id}")).await.expect(200);
    assert!(!shown.to_string().contains("xyzzy"), "{shown}");
    assert_eq!(shown["hash"], before["hash"]);
    let verdict = service.get("/v1/sessions/s/verify").await.expect(200);
    assert!(verdict.to_string().contains("VALID") || verdict["valid"] == json!(true), "{verdict}");
    let next = service.get(&format!("/v1/events/{after}")).await.expect(200);
    assert!(next.to_string().contains("other"));
    // The tombstone is an event like any other, and cannot be erased itself.
    let tombstone = said["tombstone_event_id"].as_str().unwrap();
    let event = service.get(&format!("/v1/events/{tombstone}")).await.expect(200);
    assert_eq!((&event["event_type"], &event["payload"]["event_id"]), (&json!("quipu.erased"), &json!(id)));
    assert_eq!(event["session_id"], json!(format!("_erased/{id}")));
    erase(&service, tombstone, &Value::Null).await.expect(403);
}

#[tokio::test]
async fn what_is_refused() {
    let service = Service::start(AuthMode::Loopback).await;
    let id = appended(&service, "s", json!({ "secret": "xyzzy" })).await;
    for (id, body, status) in [
        ("x", Value::Null, 404),
        ("019c3c1e-0000-7000-8000-0000000000ff", Value::Null, 404),
        (id.as_str(), json!([]), 400),
        (id.as_str(), json!({ "why": "x" }), 400),
        (id.as_str(), json!({ "reason": 1 }), 400),
        (id.as_str(), json!({ "reason": "x".repeat(limits::ERASURE_REASON_BYTES_MAX + 1) }), 413),
    ] {
        erase(&service, id, &body).await.expect(status);
    }
    assert_eq!(service.get("/v1/erasures").await.expect(200)["erasures"], json!([]));
    service.get("/v1/erasures?state=x").await.expect(400);
    service.get("/v1/erasures/x").await.expect(404);
    // Nobody writes a tombstone, nor into the session of one.
    let forged = json!({ "events": [{ "session_id": format!("_erased/{id}"), "agent_id": "a",
        "event_type": "note.made", "payload": {} }] });
    service.post("/v1/events", &forged).await.expect(400);
    let forged = json!({ "events": [{ "session_id": "s", "agent_id": "a", "event_type": "quipu.erased",
        "payload": {} }] });
    service.post("/v1/events", &forged).await.expect(400);
    let forged = json!({ "events": [{ "sessionId": format!("_erased/{id}"), "agentId": "a",
        "eventType": "custom", "payload": { "type": "t", "data": {} } }] });
    service.post("/api/events", &forged).await.expect(400);
    let kept = service.get(&format!("/v1/events/{id}")).await.expect(200);
    assert!(kept.to_string().contains("xyzzy"));
}

#[tokio::test]
async fn p10_another_tenant_neither_erases_nor_sees() {
    let service = Service::start(AuthMode::Required).await;
    let admin = token_of(&service.post("/v1/auth/tokens", &json!({ "scopes": ["*"] })).await);
    service.post_as(&admin, "/v1/tenants", &json!({ "tenant": "other" })).await.expect(201);
    let body = json!({ "scopes": ["*"], "tenant": "other" });
    let other = token_of(&service.post_as(&admin, "/v1/auth/tokens", &body).await);
    let batch = json!({ "events": [event("s", json!({ "secret": "xyzzy" }))] });
    let answer = service.post_as(&admin, "/v1/events", &batch).await.expect(201);
    let id = answer["events"][0]["event_id"].as_str().unwrap();
    let delete = async |token: &str| {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str())];
        service.send(Method::DELETE, &format!("/v1/events/{id}/content"), &headers, Body::empty()).await
    };
    delete(&other).await.expect(404);
    let said = delete(&admin).await.expect(202);
    assert!(said["token_id"].is_string(), "{said}");
    service.get_as(&other, &format!("/v1/erasures/{id}")).await.expect(404);
    assert_eq!(service.get_as(&other, "/v1/erasures").await.expect(200)["erasures"], json!([]));
}
