//! `/v1/auth/tokens`, `/v1/tenants`.

use axum::http::Method;
use quipu_core::auth::AuthMode;
use quipu_tests::{Service, token_of};
use serde_json::json;

#[tokio::test]
async fn a_token_is_shown_once_and_lists_without_its_text() {
    let service = Service::start(AuthMode::Loopback).await;
    let body = json!({ "name": "ci", "scopes": ["events:write", "events:read"], "expires_at": "2999-01-01T00:00:00Z" });
    let made = service.post("/v1/auth/tokens", &body).await;
    let (shown, text) = (made.expect(201), token_of(&made));
    assert!(text.starts_with("qp_") && text.len() == 46, "{text}");
    assert_eq!(shown["name"], "ci");
    assert_eq!(shown["tenant"], "default");
    assert_eq!(shown["scopes"], json!(["events:read", "events:write"]));
    assert_eq!(shown["expires_at"], "2999-01-01T00:00:00.000000Z");
    assert!(shown["created_at"].is_string() && shown["id"].is_string());
    let listed = service.get("/v1/auth/tokens").await;
    assert!(!listed.text.contains(&text) && !listed.text.contains("hash"), "{}", listed.text);
    assert_eq!(listed.expect(200)[0]["id"], shown["id"]);

    // Its use is noted.
    service.get_as(&text, "/v1/events").await.expect(200);
    assert!(service.get("/v1/auth/tokens").await.expect(200)[0]["last_used_at"].is_string());

    let path = format!("/v1/auth/tokens/{}", shown["id"].as_str().unwrap());
    for _ in 0..2 {
        assert_eq!(service.send(Method::DELETE, &path, &[], "").await.status, 204, "revoking twice is once");
    }
    service.get_as(&text, "/v1/events").await.expect(401);
    assert!(service.get("/v1/auth/tokens").await.expect(200)[0]["revoked_at"].is_string());
    service.send(Method::DELETE, "/v1/auth/tokens/nothing", &[], "").await.expect(404);
}

#[tokio::test]
async fn what_is_wrong_with_a_token_is_named() {
    let service = Service::start(AuthMode::Loopback).await;
    for (body, path) in [
        (json!({}), "scopes"),
        (json!({ "scopes": [] }), "scopes"),
        (json!({ "scopes": "*" }), "scopes"),
        (json!({ "scopes": ["events:reed"] }), "scopes.0"),
        (json!({ "scopes": ["*"], "expires_at": "2001-01-01T00:00:00Z" }), "expires_at"),
        (json!({ "scopes": ["*"], "expires_at": "soon" }), "expires_at"),
        (json!({ "scopes": ["*"], "name": "" }), "name"),
        (json!({ "scopes": ["*"], "colour": "red" }), "colour"),
        (json!({ "scopes": ["*"], "tenant": "A" }), "tenant"),
    ] {
        let error = service.post("/v1/auth/tokens", &body).await.expect(400);
        assert_eq!(error["details"][0]["path"], path, "{body}: {error}");
    }
    service.post("/v1/auth/tokens", &json!({ "scopes": ["*"], "tenant": "nobody" })).await.expect(404);
    service.send(Method::POST, "/v1/auth/tokens", &[], "{").await.expect(400);
}

#[tokio::test]
async fn tenants_are_made_once_and_listed() {
    let service = Service::start(AuthMode::Loopback).await;
    service.post("/v1/tenants", &json!({ "tenant": "acme" })).await.expect(201);
    service.post("/v1/tenants", &json!({ "tenant": "acme" })).await.expect(409);
    service.post("/v1/tenants", &json!({ "tenant": "default" })).await.expect(409);
    for bad in
        [json!({}), json!({ "tenant": "A" }), json!({ "tenant": "a".repeat(64) }), json!({ "name": "x" })]
    {
        service.post("/v1/tenants", &bad).await.expect(400);
    }
    let listed = service.get("/v1/tenants").await.expect(200);
    let names: Vec<_> = listed.as_array().unwrap().iter().map(|t| t["tenant"].as_str().unwrap()).collect();
    assert_eq!(names, ["acme", "default"]);
}
