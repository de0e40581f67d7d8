//! Requests and replies, and how a refusal reads.

use std::io::Read;
use std::time::Duration;

use anyhow::Context as _;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderMap, Method};
use serde::Deserialize;

use crate::failure::hinted;

/// Most bytes of an answer that is read as a whole: a page of events is at most 4 MiB of payload and metadata.
const TEXT_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// How long an answer may take to begin, unless the request says otherwise.
const PATIENCE: Duration = Duration::from_secs(120);

/// The content type of a JSON body.
pub(crate) const JSON: &str = "application/json";
/// The content type of a body with one JSON object a line.
pub(crate) const LINES: &str = "application/x-ndjson";

/// A request to a ledger.
#[derive(Debug, Clone)]
pub(crate) struct Request<'b> {
    /// Its method.
    pub(crate) method: Method,
    /// Its path and query, encoded.
    pub(crate) target: String,
    /// Its body, with the content type.
    pub(crate) body: Option<(&'static str, &'b [u8])>,
    /// Its `Idempotency-Key`.
    pub(crate) idempotency_key: Option<String>,
    /// How long the answer may take to begin.
    pub(crate) patience: Duration,
}

impl<'b> Request<'b> {
    fn new(method: Method, path: &[&str]) -> Self {
        let mut target = String::new();
        for segment in path {
            target.push('/');
            push_encoded(&mut target, segment);
        }
        Self { method, target, body: None, idempotency_key: None, patience: PATIENCE }
    }

    /// A GET of the path made of these segments, each encoded.
    pub(crate) fn get(path: &[&str]) -> Self {
        Self::new(Method::GET, path)
    }

    /// A DELETE.
    pub(crate) fn delete(path: &[&str]) -> Self {
        Self::new(Method::DELETE, path)
    }

    /// The same with a JSON document.
    #[must_use]
    pub(crate) fn json(mut self, body: &'b str) -> Self {
        self.body = Some((JSON, body.as_bytes()));
        self
    }

    /// A POST of one JSON document.
    pub(crate) fn post(path: &[&str], body: &'b str) -> Self {
        Self { body: Some((JSON, body.as_bytes())), ..Self::new(Method::POST, path) }
    }

    /// A POST of one JSON document a line.
    pub(crate) fn post_lines(path: &[&str], body: &'b [u8]) -> Self {
        Self { body: Some((LINES, body)), ..Self::new(Method::POST, path) }
    }

    /// Adds a parameter, if there is a value for it.
    #[must_use]
    pub(crate) fn parameter(mut self, name: &str, value: Option<&str>) -> Self {
        if let Some(value) = value {
            self.target.push(if self.target.contains('?') { '&' } else { '?' });
            push_encoded(&mut self.target, name);
            self.target.push('=');
            push_encoded(&mut self.target, value);
        }
        self
    }

    /// Names the request, so that sending it again does nothing twice.
    #[must_use]
    pub(crate) fn keyed(mut self, key: Option<&str>) -> Self {
        self.idempotency_key = key.map(str::to_owned);
        self
    }

    /// Waits this long for the answer to begin.
    #[must_use]
    pub(crate) fn patient(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }
}

/// Percent-encodes everything but RFC 3986's unreserved characters. Of a segment that is only dots, those too: some
/// clients and proxies would take it for a step up.
fn push_encoded(out: &mut String, text: &str) {
    let dots = !text.is_empty() && text.bytes().all(|b| b == b'.');
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~') || (byte == b'.' && !dots) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

/// Why there is no reply.
#[derive(Debug)]
pub(crate) enum SendError {
    /// The connection failed before, while or after the request was sent: whether it was applied is not known.
    Lost(anyhow::Error),
    /// The request could not be made at all.
    Unsendable(anyhow::Error),
}

impl From<SendError> for anyhow::Error {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Lost(error) | SendError::Unsendable(error) => error,
        }
    }
}

/// A reply: its head, and a body to read.
pub(crate) struct Reply {
    /// Its status.
    pub(crate) status: u16,
    /// Its headers.
    pub(crate) headers: HeaderMap,
    /// Its body, as it comes.
    pub(crate) body: Box<dyn Read + Send>,
}

impl Reply {
    /// The reply, if it is a 2xx.
    pub(crate) fn accepted(self) -> anyhow::Result<Self> {
        if (200..300).contains(&self.status) { Ok(self) } else { Err(self.failure().into()) }
    }

    /// The whole body as text.
    pub(crate) fn text(self) -> anyhow::Result<String> {
        let mut text = String::new();
        let read = self.body.take(TEXT_BYTES_MAX + 1).read_to_string(&mut text);
        read.context("the answer broke off")?;
        anyhow::ensure!(
            text.len() as u64 <= TEXT_BYTES_MAX,
            "the answer is longer than {TEXT_BYTES_MAX} bytes"
        );
        Ok(text)
    }

    /// What a reply other than a 2xx says.
    pub(crate) fn failure(self) -> ApiFailure {
        let status = self.status;
        let seconds =
            self.headers.get(RETRY_AFTER).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
        let problem = self.text().ok().and_then(|text| serde_json::from_str::<Problem>(&text).ok());
        let problem = problem.unwrap_or_default();
        ApiFailure {
            status,
            code: problem.code.unwrap_or_default(),
            message: problem.detail.or(problem.error).unwrap_or_else(|| "no reason given".to_owned()),
            request_id: problem.request_id,
            issues: problem.details,
            retry_after: seconds.map(Duration::from_secs),
        }
    }
}

#[derive(Default, Deserialize)]
struct Problem {
    code: Option<String>,
    detail: Option<String>,
    error: Option<String>,
    request_id: Option<String>,
    #[serde(default)]
    details: Vec<Issue>,
}

/// One thing that the server finds wrong.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Issue {
    /// Where.
    pub(crate) path: String,
    /// What.
    pub(crate) message: String,
}

/// A refusal by the server.
#[derive(Debug, Clone)]
pub(crate) struct ApiFailure {
    /// Its status.
    pub(crate) status: u16,
    /// Its code; empty if what answered is no ledger.
    pub(crate) code: String,
    /// Its words.
    pub(crate) message: String,
    /// By which its log can be searched.
    pub(crate) request_id: Option<String>,
    /// What is wrong, one by one.
    pub(crate) issues: Vec<Issue>,
    /// How long it asks us to wait.
    pub(crate) retry_after: Option<Duration>,
}

impl ApiFailure {
    /// True if the same request may succeed later.
    pub(crate) fn is_retryable(&self) -> bool {
        matches!(self.status, 429 | 502 | 503 | 504) || self.code == "idempotency_in_progress"
    }
}

impl std::fmt::Display for ApiFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the server answers {}: {}", self.status, crate::output::harmless(&self.message))?;
        for issue in self.issues.iter().skip(1) {
            write!(f, "; {}: {}", issue.path, crate::output::harmless(&issue.message))?;
        }
        match &self.request_id {
            Some(id) => write!(f, " (request {id})"),
            None => Ok(()),
        }
    }
}

impl From<ApiFailure> for anyhow::Error {
    fn from(failure: ApiFailure) -> Self {
        let hint = match failure.status {
            401 => "give a token with --token or QUIPU_TOKEN; `quipu token create` makes one",
            403 => "the token lacks a scope; one with tokens:admin can make another",
            404 if failure.code.is_empty() => "is this the URL of a Quipu server?",
            429 | 503 => "try again in a moment",
            _ => return anyhow::anyhow!("{failure}"),
        };
        hinted(failure.to_string(), hint).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_segment_stays_one_segment() {
        let target = |path: &[&str]| Request::get(path).target;
        assert_eq!(target(&["v1", "events"]), "/v1/events");
        assert_eq!(
            target(&["v1", "sessions", "a/b c?#%é", "export"]),
            "/v1/sessions/a%2Fb%20c%3F%23%25%C3%A9/export"
        );
        assert_eq!(target(&["v1", "sessions", ".."]), "/v1/sessions/%2E%2E");
        assert_eq!(target(&["v1", "sessions", "a.b"]), "/v1/sessions/a.b");
    }

    #[test]
    fn parameters_are_encoded_and_absent_ones_left_out() {
        let request = Request::get(&["v1", "events"])
            .parameter("from", Some("2026-02-08T10:00:00+01:00"))
            .parameter("to", None)
            .parameter("search", Some("a&b=c"));
        assert_eq!(request.target, "/v1/events?from=2026-02-08T10%3A00%3A00%2B01%3A00&search=a%26b%3Dc");
    }

    #[test]
    fn a_refusal_is_told_in_the_servers_words() {
        let body = r#"{"code":"validation_failed","error":"Validation failed","detail":"0.x: bad",
            "details":[{"path":"0.x","message":"bad"},{"path":"1.y","message":"worse"}]}"#;
        let reply = Reply { status: 400, headers: HeaderMap::new(), body: Box::new(body.as_bytes()) };
        let failure = reply.failure();
        assert_eq!(failure.to_string(), "the server answers 400: 0.x: bad; 1.y: worse");
        assert!(!failure.is_retryable());
        let reply = Reply { status: 503, headers: HeaderMap::new(), body: Box::new(&b"<html>"[..]) };
        assert!(reply.failure().is_retryable());
    }
}
