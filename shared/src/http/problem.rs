//! Errors on the wire: RFC 9457 problem details that also carry what published clients read (`error`, `details`).

use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::auth::AuthError;
use crate::dialect::intake::{IntakeError, Issue};
use crate::error::{ErrorCode, OverLimit};
use crate::ledger::{AppendError, ReadError};
use crate::random;
use crate::store::StoreError;

/// An error as a client sees it. A fault of ours shows a code and a request id, never a source.
#[derive(Debug)]
pub struct ApiError {
    code: ErrorCode,
    detail: Option<String>,
    issues: Vec<Issue>,
    retry_after: Option<Duration>,
    /// For the log only.
    source: Option<String>,
}

impl ApiError {
    /// An error with a code and nothing more to say.
    pub fn new(code: ErrorCode) -> Self {
        Self { code, detail: None, issues: Vec::new(), retry_after: None, source: None }
    }

    /// An error that says what is wrong.
    pub fn because(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self { detail: Some(detail.into()), ..Self::new(code) }
    }

    /// A value that does not fit, by its path.
    pub fn invalid(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self::issues(vec![Issue { path: path.into(), message: message.into() }])
    }

    /// Values that do not fit.
    pub fn issues(issues: Vec<Issue>) -> Self {
        let mut this = Self::new(ErrorCode::ValidationFailed);
        this.detail = issues.first().map(|i| format!("{}: {}", i.path, i.message));
        this.issues = issues;
        this
    }

    /// A parameter of the URL that does not fit.
    pub fn parameter(name: &str, message: impl std::fmt::Display) -> Self {
        let message = message.to_string();
        let mut this = Self::because(ErrorCode::InvalidParameter, format!("{name}: {message}"));
        this.issues = vec![Issue { path: name.to_owned(), message }];
        this
    }

    /// A fault of ours, or of the store: the log learns why, the client does not.
    pub fn fault(code: ErrorCode, source: impl Into<String>) -> Self {
        Self { source: Some(source.into()), ..Self::new(code) }
    }

    fn after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.code.status();
        let request_id = uuid::Builder::from_random_bytes(random::bytes()).into_uuid().to_string();
        if let Some(source) = &self.source {
            tracing::error!(request_id, code = self.code.as_str(), source, "request failed");
        }
        let title = self.code.title();
        // Published clients read `error`: the title where it is a fixed phrase of theirs, else what is wrong.
        let error = match (self.code, &self.detail) {
            (ErrorCode::ValidationFailed | ErrorCode::InvalidBody, _) | (_, None) => title,
            (_, Some(detail)) => detail,
        };
        let mut body = serde_json::json!({
            "type": "about:blank",
            "title": title,
            "status": status,
            "code": self.code.as_str(),
            "error": error,
            "retryable": self.code.is_retryable(),
        });
        if let Some(detail) = &self.detail {
            body["detail"] = detail.as_str().into();
        }
        if !self.issues.is_empty() {
            body["details"] = serde_json::json!(self.issues);
        }
        if status >= 500 {
            body["request_id"] = request_id.as_str().into();
        }
        let mut response = (
            StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            [(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"))],
            body.to_string(),
        )
            .into_response();
        let wait = self.retry_after.or(match self.code {
            // The archiver comes by every minute.
            ErrorCode::NotInLogYet => Some(Duration::from_secs(60)),
            _ => (status == 503).then_some(Duration::from_secs(1)),
        });
        if let Some(wait) = wait {
            // Whole seconds (RFC 9110), rounded up: published clients sleep exactly that long.
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        if status == 401 {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let source = error.to_string();
        match error {
            StoreError::NotFound => Self::new(ErrorCode::NotFound),
            StoreError::Conflict(_) => Self::new(ErrorCode::Conflict),
            StoreError::Throttled { retry_after } => Self::fault(ErrorCode::Busy, source).after(retry_after),
            StoreError::TooLarge { .. } => Self::fault(ErrorCode::TooLarge, source),
            StoreError::Corrupt { .. } => Self::fault(ErrorCode::Corrupt, source),
            StoreError::Unavailable { .. } => Self::fault(ErrorCode::Unavailable, source),
            StoreError::Unknown { .. } => Self::fault(ErrorCode::OutcomeUnknown, source),
        }
    }
}

impl From<OverLimit> for ApiError {
    fn from(over: OverLimit) -> Self {
        Self::because(ErrorCode::TooLarge, over.to_string())
    }
}

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Missing | AuthError::Invalid => {
                Self::because(ErrorCode::Unauthorized, error.to_string())
            }
            AuthError::Foreign(why) => Self::because(ErrorCode::Forbidden, why),
            AuthError::Store(error) => error.into(),
        }
    }
}

impl From<IntakeError> for ApiError {
    fn from(error: IntakeError) -> Self {
        match error {
            IntakeError::Json(error) => {
                let issue = Issue { path: error.path.clone(), message: error.problem.to_string() };
                let mut this = Self::because(ErrorCode::InvalidBody, error.to_string());
                this.issues = vec![issue];
                this
            }
            IntakeError::Invalid(issues) => Self::issues(issues),
            IntakeError::TooLarge(issue) => {
                let mut this =
                    Self::because(ErrorCode::TooLarge, format!("{}: {}", issue.path, issue.message));
                this.issues = vec![issue];
                this
            }
        }
    }
}

impl From<AppendError> for ApiError {
    fn from(error: AppendError) -> Self {
        let source = error.to_string();
        match error {
            AppendError::TooLarge(over) => over.into(),
            AppendError::IdempotencyMismatch => Self::new(ErrorCode::IdempotencyMismatch),
            AppendError::Busy { retry_after } => Self::new(ErrorCode::Busy).after(retry_after),
            AppendError::Unavailable { .. } => Self::fault(ErrorCode::Unavailable, source),
            AppendError::Unknown { .. } => Self::fault(ErrorCode::OutcomeUnknown, source),
            AppendError::Corrupt { .. } => Self::fault(ErrorCode::Corrupt, source),
            AppendError::Segment(_) => Self::fault(ErrorCode::Internal, source),
        }
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Cursor => Self::parameter("cursor", "not a cursor of this query"),
            ReadError::TooBroad { .. } => Self::because(
                ErrorCode::QueryTooBroad,
                "the whole answer would read too much: narrow the query, or page with the native API",
            ),
            ReadError::Corrupt { .. } => Self::fault(ErrorCode::Corrupt, error.to_string()),
            ReadError::Store(error) => error.into(),
        }
    }
}

/// A JSON answer out of text that is JSON already.
pub fn json_response(status: StatusCode, body: String) -> Response {
    let headers = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    (status, headers, Body::from(body)).into_response()
}
