//! A whole ledger in this process, asked through its routers without a port.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use quipu_core::auth::{AuthMode, Gate};
use quipu_core::clock::{Clock, SystemClock};
use quipu_core::http::{App, Route, Routes, SharedApp, finish};
use quipu_core::ledger::{Identity, Ledger};
use quipu_core::note::NoteSigner;
use quipu_core::statement::{certify, log_key_name, receipt_key_name};
use quipu_core::store::Store;
use quipu_core::store::embedded::{DataDir, EmbeddedOptions, EmbeddedStore};
use quipu_core::time::Micros;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::{Emulator, fresh_store};

/// A store that tests run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// The embedded one.
    Embedded,
    /// DynamoDB: a table of its own on the shared dynoxide.
    DynamoDb,
}

/// A ledger and its routers.
pub struct Service {
    /// What the handlers are given.
    pub app: SharedApp,
    /// All routes, as the server has them.
    pub router: Router,
    /// Their table.
    pub table: Vec<Route>,
    // Of the embedded store: held for its lock, then removed.
    _data: Option<(DataDir, tempfile::TempDir)>,
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
        let identity = data.identity().expect("keys");
        let ledger = Ledger::new(store, clock, identity);
        Self { _data: Some((data, dir)), ..Self::of(ledger, mode).await }
    }

    /// On either backend, a fresh one.
    pub async fn on(backend: Backend, mode: AuthMode) -> Self {
        Self::on_with_clock(backend, mode, Arc::new(SystemClock)).await
    }

    /// With another clock as well.
    pub async fn on_with_clock(backend: Backend, mode: AuthMode, clock: Arc<dyn Clock>) -> Self {
        match backend {
            Backend::Embedded => Self::with_clock(mode, clock, |store| store).await,
            Backend::DynamoDb => Self::of(ledger_on(fresh_store(Emulator::dynoxide()), clock), mode).await,
        }
    }

    /// Of a ledger: one process of several, where they share a store.
    pub async fn of(ledger: Ledger, mode: AuthMode) -> Self {
        ledger.ensure_default_tenant().await.expect("a tenant");
        let gate = Gate::new(ledger.store().clone(), ledger.clock().clone(), mode);
        let app: SharedApp =
            Arc::new(App { ledger: Arc::new(ledger), gate, bootstrap_secret: None, objects: None });
        let routes = Routes::new(app.clone())
            .merge(quipu_erase::routes(app.clone()))
            .merge(quipu_ingest::routes(app.clone()))
            .merge(quipu_query::routes(app.clone()))
            .merge(quipu_tokens::routes(app.clone()));
        let (router, table) = routes.into_parts();
        Self { app, router: finish(router), table, _data: None }
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

/// A ledger whose keys everybody knows: several of them on one store are as several processes.
pub fn ledger_on(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Ledger {
    let signer = |name: &str, seed| NoteSigner::from_seed(name, &[seed; 32]).expect("a key");
    let (log_key, receipt_key) = (signer(&log_key_name("test"), 1), signer(&receipt_key_name("test"), 2));
    let certificates = vec![certify(&log_key, "test", receipt_key.verifier(), Micros::MIN)];
    let log_key = log_key.verifier().clone();
    let (deployment, rotations) = ("test".into(), Vec::new());
    Ledger::new(store, clock, Identity { deployment, log_key, certificates, rotations, receipt_key })
}

/// An event of the native API with a payload of an unknown type.
pub fn event(session: &str, payload: Value) -> Value {
    json!({ "session_id": session, "agent_id": "tester", "event_type": "test.happened", "payload": payload })
}

/// The token's text in the answer that made it.
pub fn token_of(answer: &Answer) -> String {
    answer.expect(201)["token"].as_str().expect("a token").to_owned()
}
