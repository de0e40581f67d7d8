//! Which calls of AWS each route makes, counted on the wire: what a request costs and how long it must wait is a
//! matter of the number of calls. A route of the table without a row fails.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::http::Method;
use quipu_core::auth::{AuthMode, Gate};
use quipu_core::clock::SystemClock;
use quipu_core::config::AwsConfig;
use quipu_core::http::{App, Routes, finish};
use quipu_tests::emulator::{fresh_table, kms_keys};
use quipu_tests::{Answer, Emulator, FaultProxy, Service, connection, event, ledger_on, store_at, token_of};
use serde_json::{Value, json};

/// Calls by operation, those that were not made left out.
type Calls = BTreeMap<String, u64>;

fn calls(expected: &[(&str, u64)]) -> Calls {
    expected.iter().map(|(operation, count)| ((*operation).to_owned(), *count)).collect()
}

/// A service before a table with some sessions in it, its wire counted.
struct Counted {
    proxy: FaultProxy,
    service: Service,
    /// Another process on the same table.
    other: Service,
    /// Of the tenant `default`, warm.
    admin: String,
    other_admin: String,
    /// Ids of what is there.
    event: String,
    token: String,
}

impl Counted {
    async fn start() -> Self {
        let url = Emulator::dynoxide().url();
        let table = fresh_table(url);
        let proxy = FaultProxy::start(url);
        let ledger = |url| ledger_on(store_at(url, &table), Arc::new(SystemClock));
        let service = Service::of(ledger(proxy.url()), AuthMode::Required).await;
        let other = Service::of(ledger(url), AuthMode::Required).await;
        let star = json!({ "scopes": ["*"] });
        let admin = token_of(&service.post("/v1/auth/tokens", &star).await);
        let other_admin = token_of(&service.post_as(&admin, "/v1/auth/tokens", &star).await);
        let spare = service.post_as(&admin, "/v1/auth/tokens", &json!({ "scopes": ["events:read"] })).await;
        let token = spare.expect(201)["id"].as_str().unwrap().to_owned();
        let mut id = String::new();
        for (session, batches) in [("one", 3), ("two", 1)] {
            for batch in 0..batches {
                let events: Vec<_> = (0..2).map(|i| event(session, json!([batch, i]))).collect();
                let answer = service.post_as(&admin, "/v1/events", &json!({ "events": events })).await;
                id = answer.expect(201)["events"][0]["event_id"].as_str().unwrap().to_owned();
            }
        }
        Self { proxy, service, other, admin, other_admin, event: id, token }
    }

    /// A request and the calls that it made, by a caller whose token was read before.
    async fn count(&self, method: Method, path: &str, key: Option<&str>, body: &Value) -> (Answer, Calls) {
        self.service.get_as(&self.admin, "/v1/log/key").await.expect(200);
        self.count_as(Some(&self.admin), method, path, key, body).await
    }

    async fn count_as(
        &self,
        token: Option<&str>,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: &Value,
    ) -> (Answer, Calls) {
        self.proxy.reset();
        let bearer = token.map(|token| format!("Bearer {token}"));
        let mut headers = vec![("content-type", "application/json")];
        headers.extend(bearer.as_deref().map(|bearer| ("authorization", bearer)));
        headers.extend(key.map(|key| ("idempotency-key", key)));
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = self.service.send(method, path, &headers, body).await;
        (answer, self.proxy.all_calls())
    }
}

fn batch(sessions: &[&str]) -> Value {
    json!({ "events": sessions.iter().map(|s| event(s, json!({}))).collect::<Vec<_>>() })
}

/// A request to a route, and the calls it may make.
struct Row {
    route: (Method, &'static str),
    path: String,
    body: Value,
    calls: &'static [(&'static str, u64)],
}

/// The feed has five shards, each a query of its own; they are asked at once. Sessions and agents are looked for among
/// the pointers as well, a sixth.
fn rows(counted: &Counted) -> Vec<Row> {
    let get = |route, path: &str, calls| Row {
        route: (Method::GET, route),
        path: path.to_owned(),
        body: Value::Null,
        calls,
    };
    let post = |route: &'static str, body, calls| Row {
        route: (Method::POST, route),
        path: route.to_owned(),
        body,
        calls,
    };
    let (event, token) = (&counted.event, &counted.token);
    let agentlens = json!({ "events": [{
        "sessionId": "two", "agentId": "a", "eventType": "custom", "payload": { "type": "t", "data": {} },
    }] });
    let mut rows = vec![
        get("/v1/health", "/v1/health", &[]),
        get("/api/health", "/api/health", &[]),
        get("/v1/log/key", "/v1/log/key", &[]),
        get("/v1/log/checkpoint", "/v1/log/checkpoint", &[]),
        get("/v1/log/tile/{*path}", "/v1/log/tile/0/000", &[]),
        get("/v1/log/batches/{n}", "/v1/log/batches/1", &[]),
        get("/v1/log/consistency", "/v1/log/consistency?from=1", &[]),
        get("/v1/events/{id}/proof", &format!("/v1/events/{event}/proof"), &[]),
        // Reads come first: what later rows write would change their numbers.
        // A list looks at the catalogue of batches when it begins and when it ends.
        get("/v1/events", "/v1/events?limit=2", &[("Query", 7), ("GetItem", 1)]),
        get("/v1/events/{id}", &format!("/v1/events/{event}"), &[("Query", 5), ("GetItem", 1)]),
        get("/v1/sessions", "/v1/sessions", &[("Query", 8)]),
        get("/v1/sessions/{id}", "/v1/sessions/one", &[("Query", 1)]),
        // The last: how far it is archived, for what has expired may lie above what is hot.
        get("/v1/sessions/{id}/events", "/v1/sessions/one/events", &[("Query", 1), ("GetItem", 4)]),
        get("/v1/sessions/{id}/verify", "/v1/sessions/one/verify", &[("Query", 3), ("GetItem", 3)]),
        get("/v1/sessions/{id}/export", "/v1/sessions/one/export", &[("Query", 2), ("GetItem", 3)]),
        get("/v1/agents", "/v1/agents", &[("Query", 6)]),
        get("/v1/agents/{id}", "/v1/agents/tester", &[("Query", 6)]),
        get("/v1/verify", "/v1/verify", &[("Query", 13), ("GetItem", 4)]),
        get("/v1/export", "/v1/export", &[("Query", 7)]),
        // An exact total: the feed is read to its end.
        get("/api/events", "/api/events?limit=2", &[("Query", 15), ("GetItem", 1)]),
        get("/api/events/{id}", &format!("/api/events/{event}"), &[("Query", 5), ("GetItem", 1)]),
        get("/api/sessions", "/api/sessions", &[("Query", 8)]),
        get("/api/sessions/{id}", "/api/sessions/one", &[("Query", 1)]),
        // With its verdict: read twice.
        get("/api/sessions/{id}/timeline", "/api/sessions/one/timeline", &[("Query", 4), ("GetItem", 7)]),
        get("/api/agents", "/api/agents", &[("Query", 6)]),
        get("/api/agents/{id}", "/api/agents/tester", &[("Query", 6)]),
        get("/api/audit/verify", "/api/audit/verify?sessionId=one", &[("Query", 3), ("GetItem", 3)]),
    ];
    rows.extend([
        // The point of the design: one session, its head and the token known, is one write and no read.
        post("/v1/events", batch(&["one"]), &[("PutItem", 1)]),
        post("/api/events", agentlens, &[("PutItem", 1)]),
        post(
            "/v1/auth/tokens",
            json!({ "scopes": ["events:read"] }),
            &[("GetItem", 2), ("Query", 1), ("BatchGetItem", 1), ("TransactWriteItems", 1)],
        ),
        get("/v1/auth/tokens", "/v1/auth/tokens", &[("Query", 1), ("BatchGetItem", 1)]),
        Row {
            route: (Method::DELETE, "/v1/auth/tokens/{id}"),
            path: format!("/v1/auth/tokens/{token}"),
            body: Value::Null,
            calls: &[("GetItem", 1), ("UpdateItem", 1)],
        },
        post("/v1/tenants", json!({ "tenant": "acme" }), &[("PutItem", 1)]),
        get("/v1/tenants", "/v1/tenants", &[("Query", 1)]),
        Row {
            route: (Method::DELETE, "/v1/events/{id}/content"),
            path: format!("/v1/events/{event}/content"),
            body: Value::Null,
            // Pending, tombstone, body, done: each is looked at before it is written.
            calls: &[("Query", 9), ("GetItem", 12), ("PutItem", 4), ("TransactWriteItems", 1)],
        },
        get("/v1/erasures", "/v1/erasures", &[("Query", 1)]),
        get("/v1/erasures/{id}", &format!("/v1/erasures/{event}"), &[("GetItem", 2)]),
    ]);
    rows
}

#[tokio::test]
async fn each_route_makes_these_calls() {
    let counted = Counted::start().await;
    let rows = rows(&counted);
    for route in &counted.service.table {
        let has = rows.iter().any(|row| row.route == (route.method.clone(), route.path));
        assert!(has, "{} {} has no row: how many calls of AWS does it make?", route.method, route.path);
    }
    let mut wrong = Vec::new();
    for row in rows {
        let (method, path) = row.route;
        let has = counted.service.table.iter().any(|r| (r.method.clone(), r.path) == (method.clone(), path));
        assert!(has, "{method} {path} is gone");
        let (answer, made) = counted.count(method.clone(), &row.path, None, &row.body).await;
        // This service keeps no archive, and says so before it asks anything.
        let archived = answer.status == 404 && answer.text.contains("keeps no archive");
        assert!(archived || answer.status.is_success(), "{method} {path}: {} {}", answer.status, answer.text);
        if made != calls(row.calls) {
            wrong.push(format!("{method} {}: {made:?}, expected {:?}", row.path, row.calls));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Appends of every kind.
#[tokio::test]
async fn an_append_makes_no_more_calls_than_it_must() {
    let counted = Counted::start().await;
    let append = async |sessions: &[&str], key: Option<&str>| {
        let (answer, made) = counted.count(Method::POST, "/v1/events", key, &batch(sessions)).await;
        answer.expect(201);
        made
    };
    assert_eq!(append(&["one"], None).await, calls(&[("PutItem", 1)]), "warm");
    assert_eq!(append(&["new"], None).await, calls(&[("Query", 1), ("PutItem", 1)]), "cold: the head");
    assert_eq!(append(&["new"], None).await, calls(&[("PutItem", 1)]), "and then warm");

    let three = ["x", "y", "z"];
    let cold = calls(&[("Query", 3), ("TransactWriteItems", 1)]);
    assert_eq!(append(&three, None).await, cold, "three heads, one transaction");
    assert_eq!(append(&three, None).await, calls(&[("TransactWriteItems", 1)]), "three sessions, warm");

    let keyed = calls(&[("GetItem", 1), ("TransactWriteItems", 1)]);
    assert_eq!(append(&["one"], Some("k1")).await, keyed, "is the key known? then both in one transaction");
    assert_eq!(append(&["one"], Some("k1")).await, calls(&[("GetItem", 2)]), "the key, and what it wrote");
    assert_eq!(append(&three, Some("k3")).await, keyed);
    assert_eq!(append(&three, Some("k3")).await, calls(&[("GetItem", 4)]));

    // Another process takes the place: the new head is read, and nothing else.
    counted.other.post_as(&counted.other_admin, "/v1/events", &batch(&["one"])).await.expect(201);
    assert_eq!(append(&["one"], None).await, calls(&[("PutItem", 2), ("Query", 1)]), "a conflict");
    counted.other.post_as(&counted.other_admin, "/v1/events", &batch(&["y"])).await.expect(201);
    let lost = calls(&[("TransactWriteItems", 2), ("Query", 3)]);
    assert_eq!(append(&three, None).await, lost, "a conflict of one of three");
    counted.other.post_as(&counted.other_admin, "/v1/events", &batch(&["one"])).await.expect(201);
    let lost = calls(&[("GetItem", 1), ("TransactWriteItems", 2), ("Query", 1)]);
    assert_eq!(append(&["one"], Some("k2")).await, lost, "a conflict with a key");

    // What is refused before it is written asks nothing.
    let (answer, made) = counted.count(Method::POST, "/v1/events", None, &json!({ "events": [] })).await;
    assert_eq!((answer.status.as_u16(), made), (400, calls(&[])));
}

/// A later page of each list asks no more than the first, but for the segment in which the one before ended.
#[tokio::test]
async fn pages_make_these_calls() {
    let counted = Counted::start().await;
    let page = async |path: &str| counted.count(Method::GET, path, None, &Value::Null).await;
    for (first, expected) in [
        ("/v1/events?limit=2", &[("Query", 7), ("GetItem", 1)][..]),
        // Totals are exact: both sessions are read, whatever the page shows of them.
        ("/v1/sessions?limit=1", &[("Query", 8)]),
        ("/v1/agents?limit=1", &[("Query", 6)]),
    ] {
        let (answer, made) = page(first).await;
        assert_eq!(made, calls(expected), "{first}");
        let cursor = answer.expect(200)["next_cursor"].as_str().expect("there is more").to_owned();
        let next = format!("{first}&cursor={cursor}");
        let (answer, made) = page(&next).await;
        answer.expect(200);
        let total: u64 = made.values().sum();
        assert!(total <= expected.iter().map(|(_, n)| n).sum::<u64>() + 1, "{next}: {made:?}");
    }
    // The segment that holds the first, those that follow, their bodies.
    let (answer, made) = page("/v1/sessions/one/events?from_sequence=3").await;
    assert_eq!(answer.expect(200)["events"].as_array().unwrap().len(), 3);
    assert_eq!(made, calls(&[("Query", 2), ("GetItem", 3)]));
    // Nothing there, nor in a batch: the place is looked at, and a fresh id's event could still come.
    let (answer, made) = page("/v1/events/0198b9a0-0000-7000-8000-000000000001").await;
    assert_eq!((answer.status.as_u16(), made), (404, calls(&[("Query", 7)])));
    let (answer, made) = page("/v1/sessions/nobody").await;
    assert_eq!((answer.status.as_u16(), made), (404, calls(&[("Query", 1)])));
}

/// Who has no token costs nothing, who has a wrong one a read, once.
#[tokio::test]
async fn a_stranger_costs_a_read_once() {
    let counted = Counted::start().await;
    let ask = async |token: Option<&str>| {
        counted.count_as(token, Method::POST, "/v1/events", None, &batch(&["one"])).await
    };
    let (answer, made) = ask(None).await;
    assert_eq!((answer.status.as_u16(), made), (401, calls(&[])));
    let wrong = format!("qp_{}", "A".repeat(43));
    let (answer, made) = ask(Some(&wrong)).await;
    assert_eq!((answer.status.as_u16(), made), (401, calls(&[("GetItem", 1)])));
    for _ in 0..3 {
        let (answer, made) = ask(Some(&wrong)).await;
        assert_eq!((answer.status.as_u16(), made), (401, calls(&[])), "while it is cached");
    }
    // A token's first use is read and noted, the next is free.
    let scopes = json!({ "scopes": ["events:read"] });
    let fresh = token_of(&counted.service.post_as(&counted.admin, "/v1/auth/tokens", &scopes).await);
    let key = async || counted.count_as(Some(&fresh), Method::GET, "/v1/log/key", None, &Value::Null).await.1;
    assert_eq!(key().await, calls(&[("GetItem", 1), ("UpdateItem", 1)]));
    assert_eq!(key().await, calls(&[]));
}

/// A function that has just started, with its keys in KMS: what its first requests ask, and that starting asks
/// nothing.
#[tokio::test]
async fn a_cold_function_makes_these_calls() {
    let url = Emulator::ministack().url();
    let (seal_key, log_key) = kms_keys(url);
    let table = fresh_table(url);
    let (dynamodb, kms) = (FaultProxy::start(url), FaultProxy::start(url));
    // Bootstrap is where the identity is made; ingestion has no log key.
    let function = |log_key: Option<&str>| {
        let config = AwsConfig {
            archive_bucket: None,
            table: table.clone(),
            seal_key: seal_key.clone(),
            log_key: log_key.map(str::to_owned),
            bootstrap_secret: None,
        };
        let connection = connection(dynamodb.url(), Some(kms.url()));
        let ledger = Arc::new(config.ledger(&connection, Arc::new(SystemClock)));
        let gate = Gate::new(ledger.store().clone(), Arc::new(SystemClock), AuthMode::Required);
        let secret = Some("a secret of the stack".to_owned());
        let app = Arc::new(App { ledger, gate, bootstrap_secret: secret, objects: None });
        let routes = Routes::new(app.clone())
            .merge(quipu_ingest::routes(app.clone()))
            .merge(quipu_query::routes(app.clone()))
            .merge(quipu_tokens::routes(app.clone()));
        finish(routes.into_parts().0)
    };
    let ask = async |router: &axum::Router, method: Method, path: &str, bearer: &str, body: &Value| {
        dynamodb.reset();
        kms.reset();
        let mut request = axum::http::Request::builder().method(method).uri(path).header("host", "localhost");
        request = request.header("authorization", format!("Bearer {bearer}"));
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer =
            tower::ServiceExt::oneshot(router.clone(), request.body(axum::body::Body::from(body)).unwrap());
        let answer = answer.await.unwrap();
        let status = answer.status().as_u16();
        let bytes = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        (status, text, dynamodb.all_calls(), kms.all_calls())
    };
    let tokens = function(Some(&log_key));
    assert_eq!((dynamodb.all_calls(), kms.all_calls()), (calls(&[]), calls(&[])), "a start asks nothing");
    let scopes = json!({ "scopes": ["*"] });
    let (status, text, table_calls, kms_calls) =
        ask(&tokens, Method::POST, "/v1/auth/tokens", "a secret of the stack", &scopes).await;
    assert_eq!(status, 201, "{text}");
    // Bootstrapped yet? The tenant, the identity (looked for, made, read), the token.
    assert_eq!(
        table_calls,
        calls(&[("GetItem", 6), ("PutItem", 2), ("Query", 1), ("TransactWriteItems", 1)])
    );
    assert_eq!(kms_calls, calls(&[("GetPublicKey", 1), ("Sign", 1), ("Encrypt", 1), ("Decrypt", 1)]));
    let made: Value = serde_json::from_str(&text).unwrap();
    let token = made["token"].as_str().unwrap();

    let ingest = function(None);
    let (status, text, table_calls, kms_calls) =
        ask(&ingest, Method::POST, "/v1/events", token, &batch(&["one"])).await;
    assert_eq!(status, 201, "{text}");
    // The token, its use noted; that the ledger is open; the identity; the head; the commit.
    assert_eq!(table_calls, calls(&[("GetItem", 3), ("UpdateItem", 1), ("Query", 1), ("PutItem", 1)]));
    assert_eq!(kms_calls, calls(&[("Decrypt", 1)]));
    let (status, _, table_calls, kms_calls) =
        ask(&ingest, Method::POST, "/v1/events", token, &batch(&["one"])).await;
    assert_eq!(
        (status, table_calls, kms_calls),
        (201, calls(&[("PutItem", 1)]), calls(&[])),
        "and then warm"
    );

    // Its last use was noted a moment ago, by another function.
    let query = function(None);
    let (status, _, table_calls, kms_calls) =
        ask(&query, Method::GET, "/v1/sessions/one", token, &Value::Null).await;
    assert_eq!((status, table_calls, kms_calls), (200, calls(&[("GetItem", 1), ("Query", 1)]), calls(&[])));
}
