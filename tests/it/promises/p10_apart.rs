//! P10 in the keys: tenants whose names begin with each other's, and sessions whose names hold what keys are joined
//! with, never meet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::http::Method;
use quipu_core::auth::AuthMode;
use quipu_core::clock::SystemClock;
use quipu_core::ids::TenantId;
use quipu_core::store::Store as _;
use quipu_core::store::conformance::{fresh_session, sample_commit};
use quipu_tests::emulator::{call, fresh_table};
use quipu_tests::{Emulator, Service, event, ledger_on, store_at, token_of};
use serde_json::{Value, json};

const TENANTS: [&str; 6] = ["a", "a-", "a-b", "ab", "first", "t"];

const SESSIONS: [&str; 10] =
    ["s", "s#", "#s", "#", "a#s", "a-b#s", "s#E#00000000000000000000", "Z", "E#00000000000000000000", "s#Z"];

/// All partition keys of a table.
fn partitions(table: &str) -> BTreeSet<String> {
    let all = call(Emulator::dynoxide().url(), "DynamoDB_20120810.Scan", &json!({ "TableName": table }));
    assert!(all["LastEvaluatedKey"].is_null(), "one page holds it");
    let items = all["Items"].as_array().unwrap();
    items.iter().map(|item| item["pk"]["S"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn p10_tenants_and_sessions_of_similar_names_never_meet() {
    let url = Emulator::dynoxide().url();
    let table = fresh_table(url);
    let ledger = ledger_on(store_at(url, &table), Arc::new(SystemClock));
    let service = Service::of(ledger, AuthMode::Required).await;
    let admin = token_of(&service.post("/v1/auth/tokens", &json!({ "scopes": ["*"] })).await);
    let mut tokens = BTreeMap::new();
    for tenant in TENANTS {
        service.post_as(&admin, "/v1/tenants", &json!({ "tenant": tenant })).await.expect(201);
        let wanted = json!({ "scopes": ["*"], "tenant": tenant });
        tokens.insert(tenant, token_of(&service.post_as(&admin, "/v1/auth/tokens", &wanted).await));
    }
    for (tenant, token) in &tokens {
        // All sessions in one batch, under the same Idempotency-Key for everybody; then one by one.
        let events: Vec<_> = SESSIONS.iter().map(|s| event(s, json!([tenant, s, 0]))).collect();
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", &*bearer), ("idempotency-key", "same")];
        let body = json!({ "events": events }).to_string();
        let answer = service.send(Method::POST, "/v1/events", &headers, body).await;
        assert!(!answer.headers.contains_key("idempotent-replayed"), "{tenant}");
        answer.expect(201);
        for session in SESSIONS {
            let one = json!({ "events": [event(session, json!([tenant, session, 1]))] });
            let placed = service.post_as(token, "/v1/events", &one).await.expect(201);
            assert_eq!(placed["events"][0]["sequence"], 1, "{tenant} {session}");
        }
    }
    for (tenant, token) in &tokens {
        let mut expected: BTreeSet<String> = BTreeSet::new();
        for session in SESSIONS {
            let path = format!("/v1/sessions/{}", session.replace('#', "%23"));
            let events = service.get_as(token, &format!("{path}/events")).await.expect(200);
            let payloads: Vec<_> =
                events["events"].as_array().unwrap().iter().map(|e| &e["payload"]).collect();
            assert_eq!(payloads, [&json!([tenant, session, 0]), &json!([tenant, session, 1])]);
            assert_eq!(
                service.get_as(token, &format!("{path}/verify")).await.expect(200)["verdict"],
                "VALID"
            );
            assert_eq!(
                service.get_as(token, &path).await.expect(200)["event_count"],
                2,
                "{tenant} {session}"
            );
            expected.extend([0, 1].map(|n| json!([tenant, session, n]).to_string()));
        }
        let all = service.get_as(token, "/v1/events?limit=1000").await.expect(200);
        let listed = all["events"].as_array().unwrap().iter().map(|e| e["payload"].to_string());
        assert_eq!(listed.collect::<BTreeSet<_>>(), expected, "{tenant} lists its own");
        let sessions = service.get_as(token, "/v1/sessions?limit=100").await.expect(200);
        let named = |s: &Value| s["session_id"].as_str().unwrap().to_owned();
        let sessions: BTreeSet<_> = sessions["sessions"].as_array().unwrap().iter().map(named).collect();
        assert_eq!(sessions, SESSIONS.map(str::to_owned).into(), "{tenant}");
        let agent = service.get_as(token, "/v1/agents/tester").await.expect(200);
        assert_eq!(agent["event_count"], 2 * SESSIONS.len(), "{tenant}");
        let held = service.get_as(token, "/v1/auth/tokens").await.expect(200);
        assert_eq!(held.as_array().unwrap().len(), 1, "{tenant} sees its own token");
    }
    let partitions = partitions(&table);
    let of = |prefix: &str| partitions.iter().filter(|pk| pk.starts_with(prefix)).count();
    assert_eq!(of("S#"), TENANTS.len() * SESSIONS.len(), "a partition for each session of each tenant");
    assert_eq!(of("I#"), TENANTS.len(), "an idempotency key of each tenant");
    assert_eq!(of("T#t#"), TENANTS.len() + 1, "the tokens of each tenant and of the first");
}

/// The same key's HMAC in two tenants: each has its own.
#[tokio::test]
async fn p10_an_idempotency_key_is_its_tenants() {
    let url = Emulator::dynoxide().url();
    let store = store_at(url, &fresh_table(url));
    let session = fresh_session();
    let mut ids = Vec::new();
    for tenant in TENANTS {
        let tenant = TenantId::parse(tenant).unwrap();
        let mut commit = Arc::unwrap_or_clone(sample_commit(&tenant, &session, None, 1));
        let created_at = commit.segments[0].meta.received_at;
        commit.idempotency = Some(quipu_core::store::Idempotency {
            key: [7; 32],
            body: [1; 32],
            commit_id: commit.id,
            segments: vec![(session.clone(), quipu_core::ids::Seq::ZERO)],
            created_at,
            expires_at: created_at.plus_ms(60_000),
        });
        ids.push((tenant, commit.id));
        store.commit(Arc::new(commit)).await.unwrap();
    }
    for (tenant, id) in ids {
        let known = store.idempotency(&tenant, &[7; 32]).await.unwrap().unwrap();
        assert_eq!(known.commit_id, id, "{tenant}");
    }
}
