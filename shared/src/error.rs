//! The one list of errors that the wire sees.

use crate::limits;

/// What went wrong, for a client to match on. The word is stable; the message is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The body is not JSON, not UTF-8, or breaks the rules of docs/format.md.
    InvalidBody,
    /// The body is JSON, but a value in it does not fit.
    ValidationFailed,
    /// A parameter in the URL does not fit.
    InvalidParameter,
    /// A credential is needed, or this one is not valid.
    Unauthorized,
    /// The credential does not reach this far.
    Forbidden,
    /// No such thing, or not yours.
    NotFound,
    /// No such method here.
    MethodNotAllowed,
    /// It exists already.
    Conflict,
    /// The event is stored, and the log does not hold it yet. Try again.
    NotInLogYet,
    /// This `Idempotency-Key` came with another body.
    IdempotencyMismatch,
    /// Over a size limit, which the message names.
    TooLarge,
    /// A content type or encoding that is not spoken here.
    UnsupportedMediaType,
    /// The ledger is busy; nothing was stored. Try again.
    Busy,
    /// The store did not say whether the write was applied. Try again with the same `Idempotency-Key`.
    OutcomeUnknown,
    /// An answer that must be whole would read too much: narrow the query. A 503, and not retryable.
    QueryTooBroad,
    /// The store cannot be reached.
    Unavailable,
    /// Stored bytes are damaged.
    Corrupt,
    /// A fault of ours.
    Internal,
}

impl ErrorCode {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidBody => "invalid_body",
            Self::ValidationFailed => "validation_failed",
            Self::InvalidParameter => "invalid_parameter",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::Conflict => "conflict",
            Self::NotInLogYet => "not_in_log_yet",
            Self::IdempotencyMismatch => "idempotency_mismatch",
            Self::TooLarge => "too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::Busy => "busy",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::QueryTooBroad => "query_too_broad",
            Self::Unavailable => "unavailable",
            Self::Corrupt => "corrupt",
            Self::Internal => "internal",
        }
    }

    /// Its status (RFC 9110; 422 for idempotency as draft-ietf-httpapi-idempotency-key-header says).
    pub const fn status(self) -> u16 {
        match self {
            Self::InvalidBody | Self::ValidationFailed | Self::InvalidParameter => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::Conflict | Self::NotInLogYet => 409,
            Self::IdempotencyMismatch => 422,
            Self::TooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::Corrupt | Self::Internal => 500,
            Self::Busy | Self::OutcomeUnknown | Self::QueryTooBroad | Self::Unavailable => 503,
        }
    }

    /// A short title, the same for every error of this code (RFC 9457).
    pub const fn title(self) -> &'static str {
        match self {
            Self::InvalidBody => "Invalid JSON body",
            Self::ValidationFailed => "Validation failed",
            Self::InvalidParameter => "Invalid parameter",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "Not found",
            Self::MethodNotAllowed => "Method not allowed",
            Self::Conflict => "Conflict",
            Self::NotInLogYet => "Not in the log yet, try again",
            Self::IdempotencyMismatch => "Idempotency-Key was used with another body",
            Self::TooLarge => "Too large",
            Self::UnsupportedMediaType => "Unsupported media type",
            Self::Busy => "Busy, try again",
            Self::OutcomeUnknown => "Outcome unknown, try again with the same Idempotency-Key",
            Self::QueryTooBroad => "Query too broad",
            Self::Unavailable => "Unavailable",
            Self::Corrupt => "Stored data is damaged",
            Self::Internal => "Internal error",
        }
    }

    /// True if the same request may succeed later.
    pub const fn is_retryable(self) -> bool {
        match self {
            Self::NotInLogYet | Self::Busy | Self::OutcomeUnknown | Self::Unavailable => true,
            Self::InvalidBody
            | Self::ValidationFailed
            | Self::InvalidParameter
            | Self::Unauthorized
            | Self::Forbidden
            | Self::NotFound
            | Self::MethodNotAllowed
            | Self::Conflict
            | Self::IdempotencyMismatch
            | Self::TooLarge
            | Self::UnsupportedMediaType
            | Self::QueryTooBroad
            | Self::Corrupt
            | Self::Internal => false,
        }
    }
}

/// A size that is over its limit, in words that name both.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} is {actual}, {name} is {limit}")]
pub struct OverLimit {
    /// What was measured.
    pub what: &'static str,
    /// Name of the limit, as in `limits.rs`, in lower case.
    pub name: &'static str,
    /// The limit.
    pub limit: usize,
    /// What was found.
    pub actual: usize,
}

impl OverLimit {
    /// A request body that is too large as received.
    pub fn body(actual: usize) -> Self {
        Self { what: "the body", name: "body_bytes_max", limit: limits::BODY_BYTES_MAX, actual }
    }
}
