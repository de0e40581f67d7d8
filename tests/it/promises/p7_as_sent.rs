//! P7: what the client sent comes back as sent, on every backend.

use axum::body::Body;
use axum::http::Method;
use proptest::prelude::*;
use quipu_core::auth::AuthMode;
use quipu_core::store::conformance::noisy_text;
use quipu_tests::{Answer, Backend, Service};

/// The text of a member's value in a JSON object, byte for byte: read with our eyes closed to its meaning.
fn raw_member<'a>(text: &'a str, name: &str) -> &'a str {
    let events: std::collections::BTreeMap<&str, &serde_json::value::RawValue> =
        serde_json::from_str(text).unwrap();
    events[name].get()
}

async fn round_trip(service: &Service, payload: &str, metadata: &str) -> Answer {
    let body = format!(
        r#"{{"events":[{{"session_id":"s","agent_id":"a","event_type":"t","payload":{payload},"metadata":{metadata}}}]}}"#
    );
    let sent = service.send(Method::POST, "/v1/events", &[], body).await.expect(201);
    let id = sent["events"][0]["event_id"].as_str().unwrap().to_owned();
    service.get(&format!("/v1/events/{id}")).await
}

/// Compact JSON of any kind, written in every way that JSON allows.
fn json() -> impl Strategy<Value = String> {
    let text = prop_oneof![
        "\\PC{0,12}".prop_map(|s| serde_json::to_string(&s).unwrap()),
        Just(r#""\u00e9\u0041\/\ud83e\udea2""#.to_owned()),
        Just("\"\u{2028}\u{7f}é结び🪢\"".to_owned()),
    ];
    let number = prop_oneof![
        any::<i64>().prop_map(|n| n.to_string()),
        Just("9007199254740993".to_owned()),
        Just("123456789012345678901234567890".to_owned()),
        Just("-0".to_owned()),
        Just("-0.0".to_owned()),
        Just("1.0".to_owned()),
        Just("1E400".to_owned()),
        Just("1e-7".to_owned()),
        Just("0.1000".to_owned()),
    ];
    let leaf = prop_oneof![text, number, Just("null".to_owned()), Just("true".to_owned())];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(|v| format!("[{}]", v.join(","))),
            proptest::collection::btree_map("[a-z \u{e9}]{0,5}", inner, 0..5).prop_map(|m| {
                // Not in the order of their names.
                let members: Vec<_> = m.into_iter().rev().map(|(k, v)| format!("{k:?}:{v}")).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

fn payload_and_metadata_come_back_byte_for_byte(backend: Backend, cases: u32) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let service = runtime.block_on(Service::on(backend, AuthMode::Loopback));
    proptest!(ProptestConfig::with_cases(cases), |(payload in json(), metadata in json())| {
        let metadata = if metadata.starts_with('{') { metadata } else { format!(r#"{{"m":{metadata}}}"#) };
        let answer = runtime.block_on(round_trip(&service, &payload, &metadata));
        prop_assert_eq!(raw_member(&answer.text, "payload"), payload.as_str());
        prop_assert_eq!(raw_member(&answer.text, "metadata"), metadata.as_str());
    });
}

#[test]
fn p7_payload_and_metadata_come_back_byte_for_byte() {
    payload_and_metadata_come_back_byte_for_byte(Backend::Embedded, 200);
}

#[test]
fn p7_payload_and_metadata_come_back_byte_for_byte_on_dynamodb() {
    payload_and_metadata_come_back_byte_for_byte(Backend::DynamoDb, 100);
}

async fn times_keep_their_microseconds_and_others_are_refused(backend: Backend) {
    let service = Service::on(backend, AuthMode::Loopback).await;
    let send = |time: &str| {
        let body = format!(
            r#"{{"events":[{{"session_id":"s","agent_id":"a","event_type":"t","payload":1,"timestamp":"{time}"}}]}}"#
        );
        service.send(Method::POST, "/v1/events", &[], body)
    };
    for (sent, kept) in [
        ("2026-02-08T10:00:00.000001Z", "2026-02-08T10:00:00.000001Z"),
        ("2026-02-08T12:30:00+02:30", "2026-02-08T10:00:00.000000Z"),
        ("1969-12-31T23:59:59.999999Z", "1969-12-31T23:59:59.999999Z"),
        ("2999-01-01T00:00:00-23:59", "2999-01-01T23:59:00.000000Z"),
    ] {
        let id = send(sent).await.expect(201)["events"][0]["event_id"].as_str().unwrap().to_owned();
        assert_eq!(service.get(&format!("/v1/events/{id}")).await.expect(200)["timestamp"], kept);
    }
    for bad in ["2026-02-08T10:00:00.0000001Z", "2026-02-30T10:00:00Z", "yesterday", "2026-02-08T10:00:00"] {
        let error = send(bad).await.expect(400);
        assert_eq!(error["details"][0]["path"], "events.0.timestamp", "{bad}");
    }
}

#[tokio::test]
async fn p7_times_keep_their_microseconds_and_others_are_refused() {
    times_keep_their_microseconds_and_others_are_refused(Backend::Embedded).await;
}

#[tokio::test]
async fn p7_times_keep_their_microseconds_and_others_are_refused_on_dynamodb() {
    times_keep_their_microseconds_and_others_are_refused(Backend::DynamoDb).await;
}

/// The largest that is allowed comes back whole, of what compresses and of what does not and so takes several items;
/// a byte more is a 413 that names the limit.
async fn nothing_is_shortened(backend: Backend) {
    let service = Service::on(backend, AuthMode::Loopback).await;
    let limit = quipu_core::limits::PAYLOAD_BYTES_MAX;
    let payload = format!("\"{}\"", "é".repeat((limit - 2) / 2));
    let noise = noisy_text(7, limit - 2);
    for payload in [payload, noise] {
        assert_eq!(payload.len(), limit);
        let answer = round_trip(&service, &payload, "{}").await;
        assert!(raw_member(&answer.text, "payload") == payload, "a payload of the largest size");
    }

    let body = |payload: &str| {
        format!(r#"{{"events":[{{"session_id":"s2","agent_id":"a","event_type":"t","payload":{payload}}}]}}"#)
    };
    let over = body(&format!("\"{}\"", "x".repeat(limit - 1)));
    let answer = service.send(Method::POST, "/v1/events", &[], Body::from(over)).await;
    let error = answer.expect(413);
    assert_eq!(error["details"][0]["path"], "events.0.payload");
    assert!(error["error"].as_str().unwrap().contains("payload_bytes_max is 1048576"), "{error}");
    assert_eq!(service.get("/v1/sessions/s2").await.status, 404, "nothing of it is stored");
}

#[tokio::test]
async fn p7_nothing_is_shortened() {
    nothing_is_shortened(Backend::Embedded).await;
}

#[tokio::test]
async fn p7_nothing_is_shortened_on_dynamodb() {
    nothing_is_shortened(Backend::DynamoDb).await;
}
