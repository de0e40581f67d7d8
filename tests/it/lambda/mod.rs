//! The functions as Lambda runs them: recorded events of each kind in (`tests/events`), the answer as it goes back
//! to the runtime API out. `lambda_http` parses and serialises as its `run` does; only the polling is left out.

mod ingest;
mod query;
mod tokens;

use std::sync::Arc;

use axum::Router;
use lambda_http::lambda_runtime::LambdaEvent;
use lambda_http::request::LambdaRequest;
use lambda_http::{Adapter, Context, Service as _};
use quipu_core::auth::{AuthMode, Gate};
use quipu_core::http::{App, Routes, SharedApp, finish};
use quipu_tests::{Service, repository};
use serde_json::{Value, json};

/// What a synchronous answer may measure, bytes (Lambda quota: 6 MB; the service's own error message has this figure).
const ANSWER_BYTES_MAX: usize = 6_291_556;

/// Who calls a function, and so what its events look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// API Gateway, REST API: payload format 1.0.
    Rest,
    /// API Gateway, HTTP API: payload format 2.0.
    Http,
    /// A function URL: payload format 2.0, too.
    Url,
}

impl Kind {
    const EVERY: [Self; 3] = [Self::Rest, Self::Http, Self::Url];

    fn name(self) -> &'static str {
        match self {
            Self::Rest => "rest",
            Self::Http => "http",
            Self::Url => "url",
        }
    }
}

/// An event on its way into a function.
struct Event {
    kind: Kind,
    json: Value,
}

impl Event {
    /// The recording `tests/events/FUNCTION/KIND.json`; `variant` goes between kind and `.json`.
    fn recorded(function: &str, kind: Kind, variant: &str) -> Self {
        let path = repository().join(format!("tests/events/{function}/{}{variant}.json", kind.name()));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Self { kind, json: serde_json::from_str(&text).unwrap() }
    }

    /// With a bearer credential in the place that the recording leaves for it.
    fn bearer(mut self, credential: &str) -> Self {
        let text = self.json.to_string();
        assert!(text.contains("{credential}"), "the recording has a place for it");
        self.json = serde_json::from_str(&text.replace("{credential}", credential)).unwrap();
        self
    }

    /// For another route, without a query.
    fn to(mut self, method: &str, path: &str) -> Self {
        let event = &mut self.json;
        match self.kind {
            Kind::Rest => {
                event["httpMethod"] = json!(method);
                event["path"] = json!(path);
                event["resource"] = json!(path);
                event["queryStringParameters"] = Value::Null;
                event["multiValueQueryStringParameters"] = Value::Null;
                event["requestContext"]["httpMethod"] = json!(method);
                event["requestContext"]["path"] = json!(format!("/prod{path}"));
                event["requestContext"]["resourcePath"] = json!(path);
            }
            Kind::Http | Kind::Url => {
                event["rawPath"] = json!(path);
                event["rawQueryString"] = json!("");
                event.as_object_mut().unwrap().remove("queryStringParameters");
                event["requestContext"]["http"]["method"] = json!(method);
                event["requestContext"]["http"]["path"] = json!(path);
            }
        }
        self
    }

    /// With this many events asked for.
    fn limit(mut self, limit: usize) -> Self {
        let event = &mut self.json;
        let limit = limit.to_string();
        match self.kind {
            Kind::Rest => {
                event["queryStringParameters"] = json!({ "limit": limit });
                event["multiValueQueryStringParameters"] = json!({ "limit": [limit] });
            }
            Kind::Http | Kind::Url => {
                event["rawQueryString"] = json!(format!("limit={limit}"));
                event["queryStringParameters"] = json!({ "limit": limit });
            }
        }
        self
    }

    /// With another text as its body.
    fn body(mut self, text: &str) -> Self {
        self.json["body"] = json!(text);
        self.json["isBase64Encoded"] = json!(false);
        self.header("content-length", &text.len().to_string())
    }

    /// With a header set. REST events have their names as they were sent.
    fn header(mut self, name: &str, value: &str) -> Self {
        for (member, value) in [("headers", json!(value)), ("multiValueHeaders", json!([value]))] {
            if let Some(headers) = self.json.get_mut(member).and_then(Value::as_object_mut) {
                headers.retain(|n, _| !n.eq_ignore_ascii_case(name));
                headers.insert(name.to_owned(), value);
            }
        }
        self
    }

    /// What the function posts to the runtime API.
    async fn run(&self, function: &Router) -> Answer {
        let payload: LambdaRequest =
            serde_json::from_str(&self.json.to_string()).expect("an event of its kind");
        let mut adapter = Adapter::from(function.clone());
        let response =
            adapter.call(LambdaEvent::new(payload, Context::default())).await.expect("routers do not fail");
        let text = serde_json::to_string(&response).unwrap();
        Answer { kind: self.kind, bytes: text.len(), json: serde_json::from_str(&text).unwrap() }
    }
}

/// An answer as Lambda takes it.
#[derive(Debug)]
struct Answer {
    kind: Kind,
    /// Its size on its way to the runtime API.
    bytes: usize,
    json: Value,
}

impl Answer {
    /// Its status.
    fn status(&self) -> u64 {
        self.json["statusCode"].as_u64().expect("a status")
    }

    /// The header, from the one place where this kind of caller looks for it.
    fn header(&self, name: &str) -> Option<&str> {
        let (used, value) = match self.kind {
            Kind::Rest => ("headers", &self.json["multiValueHeaders"][name][0]),
            Kind::Http | Kind::Url => ("multiValueHeaders", &self.json["headers"][name]),
        };
        // In both places, API Gateway would send it twice.
        assert_eq!(self.json[used].get(name), None, "{name} in {used} as well");
        value.as_str()
    }

    /// The body as JSON, once status and form are as expected.
    fn expect(&self, status: u64) -> Value {
        assert_eq!(self.status(), status, "{:?}: {}", self.kind, self.json);
        assert_eq!(self.json["isBase64Encoded"], false, "JSON goes back as text");
        let wanted = if status < 400 { "application/json" } else { "application/problem+json" };
        assert_eq!(self.header("content-type"), Some(wanted));
        assert_eq!(self.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(self.header("cache-control"), Some("no-store"));
        serde_json::from_str(self.json["body"].as_str().expect("a text")).expect("JSON")
    }

    /// The code of a refusal, once it has this status.
    fn refusal(&self, status: u64) -> String {
        let body = self.expect(status);
        assert_eq!(body["status"], status);
        assert!(body["error"].is_string(), "{body}");
        body["code"].as_str().expect("a code").to_owned()
    }
}

/// The bootstrap secret of the stack.
const SECRET: &str = "a-secret-of-the-stack";

/// The three functions over one ledger, as they are deployed.
struct Functions {
    // Holds the ledger's directory.
    service: Service,
    ingest: Router,
    query: Router,
    tokens: Router,
}

impl Functions {
    async fn start() -> Self {
        let ignored = std::env::var("AWS_LAMBDA_HTTP_IGNORE_STAGE_IN_PATH");
        assert!(
            ignored.is_ok(),
            "cargo sets it for tests as the template does for the functions: .cargo/config.toml"
        );
        let service = Service::start(AuthMode::Required).await;
        let app = || -> SharedApp {
            let ledger = service.app.ledger.clone();
            let gate = Gate::new(ledger.store().clone(), ledger.clock().clone(), AuthMode::Required);
            Arc::new(App { ledger, gate, bootstrap_secret: Some(SECRET.to_owned()), objects: None })
        };
        let router = |routes: Routes| finish(routes.into_parts().0);
        let ingest = router(quipu_ingest::routes(app()));
        let query = router(quipu_query::routes(app()));
        let tokens = router(quipu_tokens::routes(app()));
        Self { service, ingest, query, tokens }
    }

    /// With a first token, which may do everything.
    async fn bootstrapped() -> (Self, String) {
        let this = Self::start().await;
        let answer = Event::recorded("tokens", Kind::Rest, "").bearer(SECRET).run(&this.tokens).await;
        let token = answer.expect(201)["token"].as_str().expect("a token").to_owned();
        (this, token)
    }

    /// Appends these events, past the events' envelopes.
    async fn append(&self, token: &str, events: &[Value]) -> Value {
        self.service.post_as(token, "/v1/events", &json!({ "events": events })).await.expect(201)
    }
}
