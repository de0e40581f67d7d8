//! P10: every route × every scope × no, wrong, expired, revoked and another tenant's credential, on every backend.
//!
//! The matrix walks the table that the routers are built from. Each row of [`PROBES`] says how to ask a route so
//! that a caller who may gets past authorization; a route without a row fails the test.

use std::sync::Arc;

use axum::http::Method;
use quipu_core::auth::{AuthMode, Scope};
use quipu_core::clock::{Clock, ManualClock, SystemClock};
use quipu_core::http::{Access, Route};
use quipu_core::time::Micros;
use quipu_tests::{Answer, Backend, Service, event, token_of};
use serde_json::{Value, json};

/// How to ask a route: its method and path, a path that can be asked, and a body.
struct Probe {
    method: Method,
    route: &'static str,
    path: String,
    body: Value,
}

/// Ids that exist in the tenant that is asked.
struct Known {
    event: String,
    token: String,
}

fn probes(known: &Known) -> Vec<Probe> {
    let batch = json!({ "events": [event("probe", json!({}))] });
    let agentlens = json!({ "events": [{
        "sessionId": "probe", "agentId": "a", "eventType": "custom", "payload": { "type": "t", "data": {} },
    }] });
    let get = |route: &'static str, path: &str| Probe {
        method: Method::GET,
        route,
        path: path.to_owned(),
        body: Value::Null,
    };
    let post = |route: &'static str, body: Value| Probe {
        method: Method::POST,
        route,
        path: route.to_owned(),
        body,
    };
    vec![
        post("/v1/events", batch),
        post("/api/events", agentlens),
        get("/v1/health", "/v1/health"),
        get("/v1/events", "/v1/events"),
        get("/v1/events/{id}", &format!("/v1/events/{}", known.event)),
        get("/v1/sessions", "/v1/sessions"),
        get("/v1/sessions/{id}", "/v1/sessions/secret-session"),
        get("/v1/sessions/{id}/events", "/v1/sessions/secret-session/events"),
        get("/v1/sessions/{id}/verify", "/v1/sessions/secret-session/verify"),
        get("/v1/sessions/{id}/export", "/v1/sessions/secret-session/export"),
        get("/v1/agents", "/v1/agents"),
        get("/v1/agents/{id}", "/v1/agents/tester"),
        get("/v1/log/key", "/v1/log/key"),
        get("/v1/log/checkpoint", "/v1/log/checkpoint"),
        get("/v1/log/tile/{*path}", "/v1/log/tile/0/000"),
        get("/v1/log/batches/{n}", "/v1/log/batches/1"),
        get("/v1/log/consistency", "/v1/log/consistency?from=1"),
        get("/v1/events/{id}/proof", &format!("/v1/events/{}/proof", known.event)),
        get("/v1/verify", "/v1/verify"),
        get("/v1/export", "/v1/export"),
        get("/api/health", "/api/health"),
        get("/api/events", "/api/events"),
        get("/api/events/{id}", &format!("/api/events/{}", known.event)),
        get("/api/sessions", "/api/sessions"),
        get("/api/sessions/{id}", "/api/sessions/secret-session"),
        get("/api/sessions/{id}/timeline", "/api/sessions/secret-session/timeline"),
        get("/api/agents", "/api/agents"),
        get("/api/agents/{id}", "/api/agents/tester"),
        get("/api/audit/verify", "/api/audit/verify?sessionId=secret-session"),
        post("/v1/auth/tokens", json!({ "scopes": ["channels:read"] })),
        get("/v1/auth/tokens", "/v1/auth/tokens"),
        Probe {
            method: Method::DELETE,
            route: "/v1/auth/tokens/{id}",
            path: format!("/v1/auth/tokens/{}", known.token),
            body: Value::Null,
        },
        post("/v1/tenants", json!({ "tenant": "acme" })),
        get("/v1/tenants", "/v1/tenants"),
        Probe {
            method: Method::DELETE,
            route: "/v1/events/{id}/content",
            path: format!("/v1/events/{}/content", known.event),
            body: json!({ "reason": "probe" }),
        },
        get("/v1/erasures", "/v1/erasures"),
        get("/v1/erasures/{id}", &format!("/v1/erasures/{}", known.event)),
    ]
}

struct World {
    service: Service,
    admin: String,
    other_admin: String,
    known: Known,
}

async fn world(backend: Backend) -> World {
    world_at(backend, Arc::new(SystemClock)).await
}

async fn world_at(backend: Backend, clock: Arc<dyn Clock>) -> World {
    let service = Service::on_with_clock(backend, AuthMode::Required, clock).await;
    let admin =
        token_of(&service.post("/v1/auth/tokens", &json!({ "scopes": ["*"], "name": "first" })).await);
    service.post_as(&admin, "/v1/tenants", &json!({ "tenant": "other" })).await.expect(201);
    let body = json!({ "scopes": ["*"], "tenant": "other" });
    let other_admin = token_of(&service.post_as(&admin, "/v1/auth/tokens", &body).await);
    let batch = json!({ "events": [event("secret-session", json!({ "word": "xyzzy" }))] });
    let answer = service.post_as(&admin, "/v1/events", &batch).await.expect(201);
    let spare =
        service.post_as(&admin, "/v1/auth/tokens", &json!({ "scopes": ["events:read"] })).await.expect(201);
    let known = Known {
        event: answer["events"][0]["event_id"].as_str().unwrap().to_owned(),
        token: spare["id"].as_str().unwrap().to_owned(),
    };
    World { service, admin, other_admin, known }
}

impl World {
    async fn ask(&self, probe: &Probe, credential: Option<&str>) -> Answer {
        let bearer = credential.map(|token| format!("Bearer {token}"));
        let mut headers = vec![("content-type", "application/json")];
        if let Some(bearer) = &bearer {
            headers.push(("authorization", bearer));
        }
        let body = if probe.body.is_null() { String::new() } else { probe.body.to_string() };
        self.service.send(probe.method.clone(), &probe.path, &headers, body).await
    }

    async fn token(&self, by: &str, scope: Scope) -> String {
        let body = json!({ "scopes": [scope.as_str()] });
        token_of(&self.service.post_as(by, "/v1/auth/tokens", &body).await)
    }

    fn access(&self, probe: &Probe) -> Access {
        let row = |r: &&Route| r.method == probe.method && r.path == probe.route;
        self.service
            .table
            .iter()
            .find(row)
            .unwrap_or_else(|| panic!("{} {} is gone", probe.method, probe.route))
            .access
    }
}

async fn p10_every_route_has_a_row(backend: Backend) {
    let world = world(backend).await;
    let probes = probes(&world.known);
    for route in &world.service.table {
        let has = probes.iter().any(|p| p.method == route.method && p.route == route.path);
        assert!(has, "{} {} has no row in the authorization matrix", route.method, route.path);
    }
    for probe in &probes {
        world.access(probe);
    }
}

async fn p10_no_token_does_more_than_its_scopes(backend: Backend) {
    let world = world(backend).await;
    for scope in Scope::EVERY {
        let token = world.token(&world.admin, scope).await;
        for probe in probes(&world.known) {
            let answer = world.ask(&probe, Some(&token)).await;
            let may = match world.access(&probe) {
                Access::Open | Access::Any => true,
                Access::Scope(needed) | Access::Bootstrap(needed) => scope == needed || scope == Scope::All,
            };
            let what =
                format!("{} {} with {scope}: {} {}", probe.method, probe.path, answer.status, answer.text);
            if may {
                // A token for scopes that its maker lacks is refused by the handler, in words of its own.
                let minting = probe.route == "/v1/auth/tokens" && probe.method == Method::POST;
                let lacks = answer.text.contains("nobody can mint a scope that they lack");
                assert!(answer.status != 401 && (answer.status != 403 || (minting && lacks)), "{what}");
            } else {
                assert_eq!(answer.status, 403, "{what}");
                assert!(!answer.text.contains("xyzzy") && !answer.text.contains("secret-session"), "{what}");
            }
        }
    }
}

async fn p10_without_a_good_credential_there_is_nothing(backend: Backend) {
    let clock = Arc::new(ManualClock::new(Micros::parse("2026-03-01T10:00:00Z").unwrap()));
    let world = world_at(backend, clock.clone()).await;
    let service = &world.service;
    let soon = clock.now().plus_ms(10_000).to_string();
    let body = json!({ "scopes": ["*"], "expires_at": soon });
    let expired = token_of(&service.post_as(&world.admin, "/v1/auth/tokens", &body).await);
    let revoked = service.post_as(&world.admin, "/v1/auth/tokens", &json!({ "scopes": ["*"] })).await;
    let id = revoked.expect(201)["id"].as_str().unwrap().to_owned();
    let revoked = token_of(&revoked);
    // Both worked once, so that what is cached of them must not let them in later.
    for token in [&expired, &revoked] {
        assert_eq!(service.get_as(token, "/v1/events").await.status, 200);
    }
    let bearer = format!("Bearer {}", world.admin);
    let path = format!("/v1/auth/tokens/{id}");
    let answer = service.send(Method::DELETE, &path, &[("authorization", &bearer)], "").await;
    assert_eq!(answer.status, 204);
    assert!(answer.headers.contains_key("quipu-effective-at"));
    // Within the time that tokens are cached.
    clock.advance_ms(10_001);

    let wrong = format!("qp_{}", "A".repeat(43));
    let credentials = [None, Some(wrong.as_str()), Some(""), Some("als_x"), Some(&expired), Some(&revoked)];
    for probe in probes(&world.known) {
        let mut texts = Vec::new();
        for credential in credentials {
            let answer = world.ask(&probe, credential).await;
            let what = format!("{} {} with {credential:?}: {}", probe.method, probe.path, answer.text);
            if world.access(&probe) == Access::Open {
                assert_eq!(answer.status, 200, "{what}");
                continue;
            }
            assert_eq!(answer.status, 401, "{what}");
            assert_eq!(answer.headers["www-authenticate"], "Bearer", "{what}");
            if credential.is_some() {
                texts.push(answer.text);
            }
        }
        // Wrong, malformed, expired and revoked look the same to a stranger.
        assert!(texts.windows(2).all(|pair| pair[0] == pair[1]), "{texts:?}");
    }
    for scheme in ["Basic eHg6eQ==", "Bearer", "bearer", &format!("Token {}", world.admin)] {
        let answer = service.send(Method::GET, "/v1/events", &[("authorization", scheme)], "").await;
        assert_eq!(answer.status, 401, "{scheme}");
    }
}

async fn p10_another_tenant_sees_and_guesses_nothing(backend: Backend) {
    let world = world(backend).await;
    for probe in probes(&world.known) {
        if probe.method == Method::POST || world.access(&probe) == Access::Open {
            continue;
        }
        let answer = world.ask(&probe, Some(&world.other_admin)).await;
        let what = format!("{} {}: {} {}", probe.method, probe.path, answer.status, answer.text);
        assert!(!answer.text.contains("xyzzy"), "{what}");
        if probe.route.contains("{id}") {
            assert_eq!(answer.status, 404, "{what}");
            // What is another's and what is not there are one.
            let absent = Probe {
                path: probe
                    .path
                    .replace("secret-session", "no-such-session")
                    .replace("tester", "nobody")
                    .replace(&world.known.event, "0198b9a0-0000-7000-8000-000000000001")
                    .replace(&world.known.token, "0198b9a0-0000-7000-8000-000000000001"),
                ..probe
            };
            let nothing = world.ask(&absent, Some(&world.other_admin)).await;
            assert_eq!((nothing.status, nothing.text), (answer.status, answer.text), "{what}");
        } else if matches!(probe.route, "/v1/tenants") {
            assert_eq!(answer.status, 403, "a star covers its tenant alone: {what}");
        }
    }
    let listed = world.service.get_as(&world.other_admin, "/v1/auth/tokens").await.expect(200);
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "its own token alone: {listed}");
}

async fn p10_a_session_of_the_same_name_is_another_session(backend: Backend) {
    let world = world(backend).await;
    let batch = json!({ "events": [event("secret-session", json!({ "mine": true }))] });
    let answer = world.service.post_as(&world.other_admin, "/v1/events", &batch).await.expect(201);
    assert_eq!(answer["events"][0]["sequence"], 0);
    let seen = world.service.get_as(&world.other_admin, "/v1/events").await.expect(200);
    assert_eq!(seen["events"].as_array().map(Vec::len), Some(1), "{seen}");
}

async fn p10_nobody_mints_what_they_lack(backend: Backend) {
    let world = world(backend).await;
    let service = &world.service;
    let minter = world.token(&world.admin, Scope::TokensAdmin).await;
    for scope in Scope::EVERY {
        let answer =
            service.post_as(&minter, "/v1/auth/tokens", &json!({ "scopes": [scope.as_str()] })).await;
        assert_eq!(answer.status.as_u16(), if scope == Scope::TokensAdmin { 201 } else { 403 }, "{scope}");
    }
    let elsewhere = json!({ "scopes": ["events:read"], "tenant": "default" });
    assert_eq!(service.post_as(&world.other_admin, "/v1/auth/tokens", &elsewhere).await.status, 403);
    let tenants = json!({ "scopes": ["tenants:admin"], "tenant": "other" });
    assert_eq!(service.post_as(&world.admin, "/v1/auth/tokens", &tenants).await.status, 400);
    let tenants = json!({ "scopes": ["tenants:admin"] });
    assert_eq!(service.post_as(&world.other_admin, "/v1/auth/tokens", &tenants).await.status, 403);
}

async fn the_first_token_needs_no_authorization_once(backend: Backend) {
    let service = Service::on(backend, AuthMode::Required).await;
    let body = json!({ "scopes": ["*"] });
    assert_eq!(service.get("/v1/events").await.status, 401);
    let mut tries = Vec::new();
    for _ in 0..20 {
        tries.push(service.post("/v1/auth/tokens", &body));
    }
    let mut made = 0;
    for answer in futures(tries).await {
        match answer.status.as_u16() {
            201 => made += 1,
            401 => {}
            other => panic!("{other}: {}", answer.text),
        }
    }
    assert_eq!(made, 1);
    assert_eq!(service.post("/v1/auth/tokens", &body).await.status, 401);
}

async fn futures<F: Future>(list: Vec<F>) -> Vec<F::Output> {
    let mut out = Vec::new();
    let mut pending: Vec<_> = list.into_iter().map(Box::pin).collect();
    std::future::poll_fn(move |cx| {
        pending.retain_mut(|f| match f.as_mut().poll(cx) {
            std::task::Poll::Ready(value) => {
                out.push(value);
                false
            }
            std::task::Poll::Pending => true,
        });
        if pending.is_empty() {
            std::task::Poll::Ready(std::mem::take(&mut out))
        } else {
            std::task::Poll::Pending
        }
    })
    .await
}

async fn p10_loopback_mode_takes_no_bad_credential_and_no_foreign_page(backend: Backend) {
    let service = Service::on(backend, AuthMode::Loopback).await;
    assert_eq!(service.get("/v1/events").await.status, 200);
    let bad = [("authorization", "Bearer qp_wrong")];
    assert_eq!(service.send(Method::GET, "/v1/events", &bad, "").await.status, 401);
    let page = [("origin", "https://evil.example")];
    assert_eq!(service.send(Method::GET, "/v1/events", &page, "").await.status, 403);
    let forwarded = [("x-forwarded-for", "203.0.113.9"), ("x-forwarded-host", "evil.example")];
    assert_eq!(service.send(Method::GET, "/v1/events", &forwarded, "").await.status, 200);
    let mut request = axum::http::Request::builder().uri("/v1/events").header("host", "evil.example:3400");
    request = request.header("x-forwarded-host", "localhost");
    let request = request.body(axum::body::Body::empty()).unwrap();
    let answer = tower::ServiceExt::oneshot(service.router.clone(), request).await.unwrap();
    assert_eq!(answer.status(), 403);
}

macro_rules! on_every_backend {
    ($($name:ident),* $(,)?) => {
        mod on_embedded {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::Backend::Embedded).await;
            })*
        }
        mod on_dynamodb {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::Backend::DynamoDb).await;
            })*
        }
    };
}

on_every_backend!(
    p10_every_route_has_a_row,
    p10_no_token_does_more_than_its_scopes,
    p10_without_a_good_credential_there_is_nothing,
    p10_another_tenant_sees_and_guesses_nothing,
    p10_a_session_of_the_same_name_is_another_session,
    p10_nobody_mints_what_they_lack,
    the_first_token_needs_no_authorization_once,
    p10_loopback_mode_takes_no_bad_credential_and_no_foreign_page,
);
