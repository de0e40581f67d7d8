//! A whole ledger in this process, asked through its routers without a port.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use quipu_core::auth::{AuthMode, Gate};
use quipu_core::clock::{Clock, SystemClock};
use quipu_core::http::{App, Route, Routes, SharedApp, finish};
use quipu_core::ledger::Ledger;
use quipu_core::store::Store;
use quipu_core::store::embedded::{DataDir, EmbeddedOptions, EmbeddedStore};
use serde_json::{Value, json};
use tower::ServiceExt as _;

/// A ledger and its routers.
pub struct Service {
    /// What the handlers are given.
    pub app: SharedApp,
    /// All routes, as the server has them.
    pub router: Router,
    /// Their table.
    pub table: Vec<Route>,
    // Held for its lock, then removed.
    _data: DataDir,
    /// The data directory.
    pub dir: tempfile::TempDir,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: axum::http::HeaderMap,
    /// Its body.
    pub text: String,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    /// The body as JSON, once the status is as expected.
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        if self.text.is_empty() { Value::Null } else { self.json() }
    }
}

impl Service {
    /// On the embedded store, with the wall clock.
    pub async fn start(mode: AuthMode) -> Self {
        Self::with(mode, |store| store).await
    }

    /// With a store around the embedded one.
    pub async fn with(mode: AuthMode, wrap: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>) -> Self {
        Self::with_clock(mode, Arc::new(SystemClock), wrap).await
    }

    /// With another clock as well.
    pub async fn with_clock(
        mode: AuthMode,
        clock: Arc<dyn Clock>,
        wrap: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>,
    ) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let data = DataDir::create_or_open(&dir.path().join("data"), clock.now()).expect("a data directory");
        let store = EmbeddedStore::open(&data.ledger_path(), &EmbeddedOptions::default()).expect("a store");
        let store = wrap(Arc::new(store));
        let ledger = Arc::new(Ledger::new(store.clone(), clock.clone(), data.identity().expect("keys")));
        ledger.ensure_default_tenant().await.expect("a tenant");
        let gate = Gate::new(store, clock, mode);
        let app: SharedApp = Arc::new(App { ledger, gate, bootstrap_secret: None });
        let routes = Routes::new(app.clone())
            .merge(quipu_ingest::routes(app.clone()))
            .merge(quipu_query::routes(app.clone()))
            .merge(quipu_tokens::routes(app.clone()));
        let (router, table) = routes.into_parts();
        Self { app, router: finish(router), table, _data: data, dir }
    }

    /// Sends a request with these headers.
    pub async fn send(
        &self,
        method: Method,
        uri: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(uri).header("host", "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body.into()).expect("a request");
        let response = self.router.clone().oneshot(request).await.expect("routers do not fail");
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        let text = String::from_utf8(bytes.to_vec()).expect("UTF-8");
        Answer { status: parts.status, headers: parts.headers, text }
    }

    /// `GET` without a credential.
    pub async fn get(&self, uri: &str) -> Answer {
        self.send(Method::GET, uri, &[], Body::empty()).await
    }

    /// `POST` of JSON without a credential.
    pub async fn post(&self, uri: &str, body: &Value) -> Answer {
        self.send(Method::POST, uri, &[("content-type", "application/json")], body.to_string()).await
    }

    /// `GET` with a token.
    pub async fn get_as(&self, token: &str, uri: &str) -> Answer {
        self.send(Method::GET, uri, &[("authorization", &format!("Bearer {token}"))], Body::empty()).await
    }

    /// `POST` of JSON with a token.
    pub async fn post_as(&self, token: &str, uri: &str, body: &Value) -> Answer {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        self.send(Method::POST, uri, &headers, body.to_string()).await
    }
}

/// An event of the native API with a payload of an unknown type.
pub fn event(session: &str, payload: Value) -> Value {
    json!({ "session_id": session, "agent_id": "tester", "event_type": "test.happened", "payload": payload })
}

/// The token's text in the answer that made it.
pub fn token_of(answer: &Answer) -> String {
    answer.expect(201)["token"].as_str().expect("a token").to_owned()
}
