use serde_json::Value;

use super::{Event, Functions, Kind, SECRET};

#[tokio::test]
async fn the_first_token_takes_the_secret_of_the_stack() {
    for kind in Kind::EVERY {
        let functions = Functions::start().await;
        let ask = async |credential: &str| {
            Event::recorded("tokens", kind, "").bearer(credential).run(&functions.tokens).await
        };
        let stranger = ask("not-the-secret-of-it").await;
        assert_eq!(stranger.refusal(401), "unauthorized", "{kind:?}");
        assert_eq!(stranger.header("www-authenticate"), Some("Bearer"));
        let made = ask(SECRET).await.expect(201);
        assert_eq!(made["name"], "first");
        assert_eq!(made["scopes"], serde_json::json!(["*", "tenants:admin"]));
        assert!(made["token"].as_str().unwrap().starts_with("qp_"), "{made}");
        assert_eq!(ask(SECRET).await.refusal(401), "unauthorized", "once only");
    }
}

#[tokio::test]
async fn a_token_is_listed_and_revoked() {
    let (functions, token) = Functions::bootstrapped().await;
    for kind in Kind::EVERY {
        let ask = async |event: Event| event.bearer(&token).run(&functions.tokens).await;
        let recorded = || Event::recorded("tokens", kind, "");
        let body = r#"{"name":"short-lived","scopes":["events:read"]}"#;
        let made = ask(recorded().body(body)).await.expect(201);
        let id = made["id"].as_str().unwrap();

        let shown = ask(recorded().to("GET", "/v1/auth/tokens")).await.expect(200);
        let listed = shown.as_array().unwrap().iter().find(|t| t["id"] == id).expect("the token just made");
        assert_eq!((&listed["revoked_at"], listed.get("token")), (&Value::Null, None));

        let path = format!("/v1/auth/tokens/{id}");
        let revoked = ask(recorded().to("DELETE", &path)).await;
        assert_eq!(revoked.status(), 204, "{revoked:?}");
        assert!(revoked.header("quipu-effective-at").is_some(), "{revoked:?}");
        // An empty body is an empty text, or none.
        assert!(matches!(revoked.json["body"].as_str(), None | Some("")), "{revoked:?}");

        let old = made["token"].as_str().unwrap();
        let listing = recorded().to("GET", "/v1/auth/tokens").bearer(old).run(&functions.tokens).await;
        assert_eq!(listing.refusal(401), "unauthorized");
        assert_eq!(ask(recorded().to("DELETE", "/v1/auth/tokens/none")).await.refusal(404), "not_found");
        assert_eq!(ask(recorded().to("PUT", "/v1/auth/tokens")).await.refusal(405), "method_not_allowed");
    }
}
