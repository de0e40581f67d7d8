//! Asking over HTTP.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::Context as _;
use axum::http;
use axum::http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use ureq::Agent;

use super::{Reply, Request, SendError};
use crate::failure::hinted;

/// How long a connection may take to stand.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// How long the next bytes of an answer may take: a server that reads a large session does not send steadily.
const READ_PATIENCE: Duration = Duration::from_secs(120);
/// How long it may take to learn whether anything answers.
const HEALTH_PATIENCE: Duration = Duration::from_secs(2);

/// A server.
pub(super) struct Http {
    base: String,
    is_loopback: bool,
    agent: Agent,
}

impl Http {
    /// The server at a URL.
    pub(super) fn new(url: &str) -> anyhow::Result<Self> {
        let base = url.trim_end_matches('/').to_owned();
        let wrong =
            || hinted(format!("{url:?} is no URL of a server"), "it looks like http://127.0.0.1:3400");
        let uri: http::Uri = base.parse().with_context(wrong)?;
        let known = matches!(uri.scheme_str(), Some("http" | "https")) && uri.query().is_none();
        let host = uri.host().filter(|_| known).with_context(wrong)?;
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let is_loopback = bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            // A redirect could carry the events elsewhere; it is shown as the refusal that it is.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("quipu/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(CONNECT_PATIENCE))
            .timeout_per_read(Some(READ_PATIENCE));
        if is_loopback {
            // What HTTP_PROXY names cannot reach our loopback, and need not see this.
            config = config.proxy(None);
        }
        Ok(Self { base, is_loopback, agent: config.build().into() })
    }

    /// True if a token would go over the network unencrypted.
    pub(super) fn is_in_the_clear(&self) -> bool {
        self.base.starts_with("http://") && !self.is_loopback
    }

    /// True if a ledger answers there.
    pub(super) fn answers(&self) -> bool {
        let request = Request::get(&["v1", "health"]).patient(HEALTH_PATIENCE);
        self.send(&request, None).is_ok_and(|reply| {
            reply.status == 200 && reply.text().is_ok_and(|text| text.contains("\"status\":\"ok\""))
        })
    }

    /// Sends one request.
    pub(super) fn send(&self, request: &Request<'_>, token: Option<&str>) -> Result<Reply, SendError> {
        let mut builder = http::Request::builder()
            .method(request.method.clone())
            .uri(format!("{}{}", self.base, request.target))
            .header(ACCEPT, "application/json, application/x-ndjson, application/problem+json");
        if let Some(token) = token {
            builder = builder.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(key) = &request.idempotency_key {
            builder = builder.header("idempotency-key", key);
        }
        let unsendable =
            |e: http::Error| SendError::Unsendable(anyhow::Error::new(e).context("cannot make the request"));
        let answered = match request.body {
            Some((content_type, body)) => {
                let made = builder.header(CONTENT_TYPE, content_type).body(body).map_err(unsendable)?;
                let made =
                    self.agent.configure_request(made).timeout_recv_response(Some(request.patience)).build();
                self.agent.run(made)
            }
            None => {
                let made = builder.body(()).map_err(unsendable)?;
                let made =
                    self.agent.configure_request(made).timeout_recv_response(Some(request.patience)).build();
                self.agent.run(made)
            }
        };
        let (head, body) = answered.map_err(|e| self.lost(e))?.into_parts();
        let body = body.into_with_config().limit(u64::MAX).reader();
        Ok(Reply { status: head.status.as_u16(), headers: head.headers, body: Box::new(body) })
    }

    fn lost(&self, error: ureq::Error) -> SendError {
        use ureq::Error as E;
        let is_final =
            matches!(error, E::Http(_) | E::BadUri(_) | E::InvalidProxyUrl | E::Tls(_) | E::Rustls(_));
        let refused = matches!(&error, E::Io(e) if e.kind() == std::io::ErrorKind::ConnectionRefused);
        let message = format!("no answer from {}", self.base);
        let error = anyhow::Error::new(error);
        let error = if refused {
            error.context(hinted(message, "is the server running? `quipu serve` starts one"))
        } else {
            error.context(message)
        };
        if is_final { SendError::Unsendable(error) } else { SendError::Lost(error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_checked_and_tokens_kept_from_the_clear() {
        let clear = |url: &str| Http::new(url).map(|http| http.is_in_the_clear());
        assert!(!clear("http://127.0.0.1:3400/").unwrap());
        assert!(!clear("http://[::1]:3400").unwrap());
        assert!(!clear("https://ledger.example/prod").unwrap());
        assert!(clear("http://ledger.example").unwrap());
        for bad in ["", "127.0.0.1:3400", "ftp://x", "http://", "http://x/?a=b"] {
            assert!(clear(bad).is_err(), "{bad}");
        }
    }
}
