//! `/v1/events`.

use std::io::Write as _;

use axum::body::Body;
use axum::http::Method;
use quipu_core::auth::AuthMode;
use quipu_core::limits;
use quipu_tests::{Service, event};
use serde_json::{Value, json};

fn batch(events: Vec<Value>) -> Value {
    json!({ "events": events })
}

#[tokio::test]
async fn an_append_tells_where_each_event_stands_in_the_order_sent() {
    let service = Service::start(AuthMode::Loopback).await;
    let sent =
        batch(vec![event("b", json!(0)), event("a", json!(1)), event("b", json!(2)), event("a", json!(3))]);
    let answer = service.post("/v1/events", &sent).await.expect(201);
    assert_eq!(answer["ingested"], 4);
    let events = answer["events"].as_array().unwrap();
    let places: Vec<_> =
        events.iter().map(|e| (e["session_id"].as_str().unwrap(), e["sequence"].as_u64().unwrap())).collect();
    assert_eq!(places, [("b", 0), ("a", 0), ("b", 1), ("a", 1)]);
    let ids: Vec<_> = events.iter().map(|e| e["event_id"].as_str().unwrap()).collect();
    assert!(
        ids.windows(2).all(|pair| pair[0] < pair[1] && pair[0][..13] == pair[1][..13]),
        "one millisecond, rising"
    );
    let receipts = answer["receipts"].as_array().unwrap();
    assert_eq!(receipts.iter().map(|r| &r["session_id"]).collect::<Vec<_>>(), ["a", "b"]);
    assert!(receipts.iter().all(|r| r["note"].as_str().unwrap().starts_with("quipu.receipt.v1\ndefault\n")));

    let got = service.get(&format!("/v1/events/{}?include=proof", ids[2])).await.expect(200);
    assert_eq!((&got["payload"], &got["sequence"], &got["run_id"]), (&json!(2), &json!(1), &json!("b")));
    assert_eq!(got["hash"], events[2]["hash"]);
    assert_eq!(got["salt"].as_str().map(str::len), Some(32));
    assert_eq!(got["compliance_tag"], "default");
    assert_eq!((&got["pii_types"], &got["pii_detected"]), (&json!([]), &json!(false)));
    for form in [ids[2].to_uppercase(), format!("evt_{}", ids[2]), format!("inference-{}", ids[2])] {
        service.get(&format!("/v1/events/{form}")).await.expect(200);
    }
}

/// Every kind of bad body: a 4xx that names the place and the limit, and nothing of the batch is stored.
#[tokio::test]
async fn bad_input_is_named_and_nothing_of_it_is_stored() {
    let service = Service::start(AuthMode::Loopback).await;
    let good = event("bad", json!({})).to_string();
    let with = |more: &str| format!(r#"{{"events":[{good},{more}]}}"#).into_bytes();
    let member = |name: &str, value: &str| {
        let mut text = event("bad", json!({})).to_string();
        text.truncate(text.len() - 1);
        with(&format!("{text},\"{name}\":{value}}}"))
    };
    let payload = |value: &str| {
        with(&format!(r#"{{"session_id":"bad","agent_id":"a","event_type":"t","payload":{value}}}"#))
    };
    let typed = |kind: &str, value: &str| {
        with(&format!(r#"{{"session_id":"bad","agent_id":"a","event_type":"{kind}","payload":{value}}}"#))
    };
    let many =
        |count: usize| format!(r#"{{"events":[{}]}}"#, vec![good.as_str(); count].join(",")).into_bytes();
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let mut not_utf8 = payload("\"x\"");
    let at = not_utf8.iter().rposition(|b| *b == b'x').unwrap();
    not_utf8[at] = 0xff;
    let cases: Vec<(&str, Vec<u8>, u16, &str, &str)> = vec![
        ("not JSON", b"{\"events\":[".to_vec(), 400, "events.0", "expected"),
        ("empty", b"".to_vec(), 400, "", "expected a value"),
        ("another shape", b"[1]".to_vec(), 400, "", "an object with events"),
        ("no events", b"{\"events\":[]}".to_vec(), 400, "events", "1 to 1000"),
        ("too many", many(1001), 413, "events", "batch_events_max 1000"),
        ("unknown field", member("colour", "1"), 400, "events.1.colour", "unknown field"),
        (
            "unknown field at the top",
            format!(r#"{{"events":[{good}],"x":1}}"#).into_bytes(),
            400,
            "x",
            "unknown field",
        ),
        ("duplicate key", payload(r#"{"a":{"b":1,"b":2}}"#), 400, "events.1.payload.a.b", "duplicate key"),
        (
            "duplicate key, escaped",
            payload(r#"{"a":1,"\u0061":2}"#),
            400,
            "events.1.payload.\\u0061",
            "duplicate key",
        ),
        ("duplicate field", member("payload", "1"), 400, "events.1.payload", "duplicate key"),
        ("lone surrogate", payload(r#"{"t":"\ud800x"}"#), 400, "events.1.payload.t", "lone surrogate"),
        ("nesting", payload(&deep), 400, "events.1.payload.", "json_depth_max 128"),
        ("control character", payload("\"a\tb\""), 400, "events.1.payload", "control character"),
        (
            "control in an id",
            member("source_id", r#""a\u0007""#),
            400,
            "events.1.source_id",
            "control character",
        ),
        (
            "id too long",
            member("source_id", &format!("\"{}\"", "x".repeat(257))),
            400,
            "events.1.source_id",
            "source_id_bytes_max is 256",
        ),
        (
            "wrong type",
            member("severity", "3"),
            400,
            "events.1.severity",
            "expected a string, found a number",
        ),
        ("wrong word", member("severity", "\"loud\""), 400, "events.1.severity", "debug, info, warn"),
        ("metadata", member("metadata", "[]"), 400, "events.1.metadata", "expected an object"),
        ("time", member("timestamp", "\"2026-13-01T00:00:00Z\""), 400, "events.1.timestamp", "moment"),
        ("our own type", typed("quipu.erased", "{}"), 400, "events.1.event_type", "ledger's own"),
        ("type syntax", typed("Tool Call", "{}"), 400, "events.1.event_type", "lower-case words"),
        (
            "payload of a known type",
            typed("tool_call", r#"{"callId":"c","arguments":{}}"#),
            400,
            "events.1.payload.toolName",
            "required",
        ),
        (
            "metadata too large",
            member("metadata", &format!(r#"{{"x":"{}"}}"#, "x".repeat(65536))),
            413,
            "events.1.metadata",
            "metadata_bytes_max is 65536",
        ),
        ("not UTF-8", not_utf8, 400, "", "not UTF-8"),
    ];
    for (name, body, status, path, says) in cases {
        let answer = service.send(Method::POST, "/v1/events", &[], Body::from(body)).await;
        assert_eq!(answer.headers["content-type"], "application/problem+json", "{name}");
        let error = answer.expect(status);
        assert_eq!(error["status"], status, "{name}");
        let place = error["details"][0]["path"].as_str().unwrap_or_default();
        assert!(if path.ends_with('.') { place.starts_with(path) } else { place == path }, "{name}: {error}");
        assert!(error.to_string().contains(says), "{name}: {error}");
    }
    assert_eq!(service.get("/v1/sessions/bad").await.status, 404, "nothing of any refused batch is stored");
    service.send(Method::POST, "/v1/events", &[], many(1000)).await.expect(201);
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn bodies_may_be_lines_and_gzip_but_no_bombs() {
    let service = Service::start(AuthMode::Loopback).await;
    let lines = format!("{}\n{}\n", event("lines", json!(1)), event("lines", json!(2)));
    let ndjson = ("content-type", "application/x-ndjson");
    let packed = ("content-encoding", "gzip");
    let send = |headers: Vec<(&'static str, &'static str)>, body: Vec<u8>| {
        let service = &service;
        async move { service.send(Method::POST, "/v1/events", &headers, Body::from(body)).await }
    };
    assert_eq!(send(vec![ndjson], lines.clone().into_bytes()).await.expect(201)["ingested"], 2);
    assert_eq!(send(vec![ndjson, packed], gzip(lines.as_bytes())).await.expect(201)["ingested"], 2);
    let one = batch(vec![event("lines", json!(3))]).to_string();
    assert_eq!(send(vec![packed], gzip(one.as_bytes())).await.expect(201)["ingested"], 1);
    assert_eq!(service.get("/v1/sessions/lines").await.expect(200)["event_count"], 5);

    let error = send(vec![ndjson], format!("{lines}{{\"session_id\":1}}").into_bytes()).await.expect(400);
    assert_eq!(error["details"][0]["path"], "2.session_id");

    let bomb = gzip(&vec![b' '; limits::BODY_UNPACKED_BYTES_MAX + 1]);
    assert!(bomb.len() < 200_000);
    let error = send(vec![packed], bomb).await.expect(413);
    assert!(error["detail"].as_str().unwrap().contains("body_unpacked_bytes_max is 16777216"), "{error}");
    let error = send(vec![], vec![b' '; limits::BODY_BYTES_MAX + 1]).await.expect(413);
    assert!(error["detail"].as_str().unwrap().contains("body_bytes_max is 4194304"), "{error}");
    send(vec![packed], b"not gzip".to_vec()).await.expect(400);
    send(vec![("content-encoding", "br")], b"x".to_vec()).await.expect(415);
    send(vec![("content-type", "text/xml")], b"<x/>".to_vec()).await.expect(415);
    let mut cut = gzip(one.as_bytes());
    cut.truncate(cut.len() - 4);
    send(vec![packed], cut).await.expect(400);
}

/// What the other backend's transaction could not take is refused by this one too, by name.
#[tokio::test]
async fn the_limits_of_a_commit_are_the_same_on_both_backends() {
    let service = Service::start(AuthMode::Loopback).await;
    let sessions = |count: usize| batch((0..count).map(|i| event(&format!("s{i}"), json!(i))).collect());
    service.post("/v1/events", &sessions(99)).await.expect(201);
    let error = service.post("/v1/events", &sessions(100)).await.expect(413);
    assert!(error["detail"].as_str().unwrap().contains("commit_actions_max"), "{error}");

    // Noise hardly compresses: 5.1 MB of it encode to more than 3.5 MB, and travel in less than 4 MiB of gzip.
    let mut state = 1u64;
    let mut noise = |length: usize| -> String {
        (0..length)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                // Two bytes of UTF-8 with 11 bits of noise each.
                char::from_u32(0x80 + (state >> 40) as u32 % 0x780).unwrap()
            })
            .collect()
    };
    let events: Vec<_> = (0..6).map(|_| event("noise", json!(noise(425_000)))).collect();
    let packed = gzip(batch(events).to_string().as_bytes());
    assert!(packed.len() < limits::BODY_BYTES_MAX, "{}", packed.len());
    let headers = [("content-encoding", "gzip")];
    let answer = service.send(Method::POST, "/v1/events", &headers, Body::from(packed)).await;
    match answer.status.as_u16() {
        413 => assert!(answer.text.contains("commit_bytes_max"), "{}", answer.text),
        201 => panic!("more than the store takes was taken"),
        other => panic!("{other}: {}", answer.text),
    }
}

#[tokio::test]
async fn an_idempotency_key_is_one_append() {
    let service = Service::start(AuthMode::Loopback).await;
    let body = batch(vec![event("b", json!(1)), event("a", json!(2)), event("b", json!(3))]).to_string();
    let send = |key: &'static str, body: String| {
        let service = &service;
        async move { service.send(Method::POST, "/v1/events", &[("idempotency-key", key)], body).await }
    };
    let first = send("k1", body.clone()).await;
    let again = send("k1", body.clone()).await;
    assert!(!first.headers.contains_key("idempotent-replayed"));
    assert_eq!(again.headers["idempotent-replayed"], "true");
    assert_eq!(again.expect(201), first.expect(201), "the first answer, receipts and all");
    assert_eq!(service.get("/v1/sessions/b").await.expect(200)["event_count"], 2);

    let other = batch(vec![event("b", json!(9))]).to_string();
    let error = send("k1", other).await.expect(422);
    assert_eq!(error["code"], "idempotency_mismatch");
    assert_eq!(
        send("k2", body).await.expect(201)["events"][0]["sequence"],
        2,
        "another key is another append"
    );
    let long: &'static str = "k".repeat(257).leak();
    send(long, "{}".into()).await.expect(400);
}

/// Twenty at once with the same key: one append, and every answer that came is the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_idempotency_key_is_one_append_even_in_a_race() {
    let service = std::sync::Arc::new(Service::start(AuthMode::Loopback).await);
    let body = batch(vec![event("raced", json!(1))]).to_string();
    let mut racers = Vec::new();
    for _ in 0..20 {
        let (service, body) = (service.clone(), body.clone());
        racers.push(tokio::spawn(async move {
            service.send(Method::POST, "/v1/events", &[("idempotency-key", "k")], body).await.expect(201)
        }));
    }
    let mut answers = Vec::new();
    for racer in racers {
        answers.push(racer.await.unwrap());
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(service.get("/v1/sessions/raced").await.expect(200)["event_count"], 1);
}

#[tokio::test]
async fn lists_filter_order_and_page() {
    let service = Service::start(AuthMode::Loopback).await;
    let severities = ["debug", "info", "warn", "error", "critical"];
    let make = |i: u64| {
        json!({
            "session_id": format!("s{}", i % 3), "agent_id": format!("a{}", i % 2), "event_type": format!("t.k{}", i % 4),
            "severity": severities.get(i as usize % 5),
            // Late and equal timestamps too.
            "timestamp": format!("2026-01-01T00:00:{:02}Z", (i * 7) % 30),
            "payload": { "i": i, "text": if i.is_multiple_of(10) { "Needle Größe" } else { "hay" } },
        })
    };
    let all: Vec<Value> = (0..120).map(make).collect();
    for chunk in all.chunks(7) {
        service.post("/v1/events", &batch(chunk.to_vec())).await.expect(201);
    }
    let page_through = |query: &'static str, limit: usize| {
        let service = &service;
        async move {
            let (mut seen, mut cursor) = (Vec::new(), String::new());
            loop {
                let page =
                    service.get(&format!("/v1/events?limit={limit}&{query}{cursor}")).await.expect(200);
                seen.extend(page["events"].as_array().unwrap().iter().cloned());
                match page["next_cursor"].as_str() {
                    Some(next) => cursor = format!("&cursor={next}"),
                    None => return seen,
                }
            }
        }
    };
    for (query, keep) in [
        ("", Box::new(|_: &Value| true) as Box<dyn Fn(&Value) -> bool>),
        ("session_id=s1", Box::new(|e| e["session_id"] == "s1")),
        ("run_id=s1&agent_id=a0", Box::new(|e| e["session_id"] == "s1" && e["agent_id"] == "a0")),
        ("event_type=t.k1,t.k2", Box::new(|e| e["event_type"] == "t.k1" || e["event_type"] == "t.k2")),
        ("severity=error,critical", Box::new(|e| e["severity"] == "error" || e["severity"] == "critical")),
        ("search=nEEdle%20gr%C3%B6", Box::new(|e| e["payload"]["text"] != "hay")),
        (
            "from=2026-01-01T00:00:05Z&to=2026-01-01T00:00:20Z",
            Box::new(|e| {
                let t = e["timestamp"].as_str().unwrap();
                ("2026-01-01T00:00:05"..="2026-01-01T00:00:20Z").contains(&t)
            }),
        ),
        (
            "from=2026-01-01T01:00:05%2B01:00&to=2026-01-01T00:00:05Z",
            Box::new(|e| e["timestamp"].as_str().unwrap().starts_with("2026-01-01T00:00:05")),
        ),
    ] {
        let mut expected: Vec<u64> =
            all.iter().filter(|e| keep(e)).map(|e| e["payload"]["i"].as_u64().unwrap()).collect();
        expected.sort_unstable();
        assert!(!expected.is_empty(), "{query}");
        for limit in [1, 7, 1000] {
            let seen = page_through(query, limit).await;
            let keys: Vec<_> =
                seen.iter().map(|e| (e["timestamp"].to_string(), e["event_id"].to_string())).collect();
            assert!(keys.windows(2).all(|pair| pair[0] > pair[1]), "{query}: newest first");
            let mut found: Vec<u64> = seen.iter().map(|e| e["payload"]["i"].as_u64().unwrap()).collect();
            found.sort_unstable();
            assert_eq!(found, expected, "{query} by {limit}");
        }
    }
    let mut up = page_through("order=asc", 11).await;
    up.reverse();
    assert_eq!(up, page_through("", 13).await);

    for bad in [
        "limit=0",
        "limit=1001",
        "limit=x",
        "order=up",
        "severity=loud",
        "from=yesterday",
        "cursor=zzz",
        "sesion_id=s",
    ] {
        let error = service.get(&format!("/v1/events?{bad}")).await.expect(400);
        assert_eq!(error["details"][0]["path"], bad.split('=').next().unwrap(), "{bad}");
    }
    let first = service.get("/v1/events?limit=1&session_id=s1").await.expect(200);
    let cursor = first["next_cursor"].as_str().unwrap();
    service.get(&format!("/v1/events?limit=1&session_id=s2&cursor={cursor}")).await.expect(400);
}

#[tokio::test]
async fn what_is_not_there_is_404_and_other_methods_are_405() {
    let service = Service::start(AuthMode::Loopback).await;
    for path in
        ["/v1/events/x", "/v1/events/0198b9a0-0000-7000-8000-000000000001", "/v1/nothing", "/nothing", "/"]
    {
        let error = service.get(path).await.expect(404);
        assert_eq!(error["code"], "not_found", "{path}");
    }
    let error = service.send(Method::PUT, "/v1/events", &[], "").await.expect(405);
    assert_eq!(error["code"], "method_not_allowed");
    assert_eq!(service.get("/v1/health").await.expect(200)["status"], "ok");
}
