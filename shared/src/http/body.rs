//! Reading a request's body within its limits, gzip undone.

use std::io::Read as _;
use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use super::ApiError;
use crate::error::{ErrorCode, OverLimit};
use crate::limits;

/// How long a client may take to send its body: 4 MiB over a slow line.
const READ_DEADLINE: Duration = Duration::from_secs(60);

/// A body as text.
#[derive(Debug)]
pub struct Payload {
    /// Bytes as received, for what must see exactly those (idempotency).
    pub received: Bytes,
    /// The text, unpacked.
    pub text: String,
    /// True if its content type says one JSON document a line.
    pub is_lines: bool,
}

/// Reads a JSON or NDJSON body.
///
/// # Errors
/// 413 over a limit, 415 for a type or encoding that is not spoken, 400 for what is not gzip or not UTF-8.
pub async fn read_body(headers: &HeaderMap, body: Body) -> Result<Payload, ApiError> {
    let is_lines = check_type(headers)?;
    let length = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
    if let Some(length) = length.filter(|length: &usize| *length > limits::BODY_BYTES_MAX) {
        return Err(OverLimit::body(length).into());
    }
    let read = Limited::new(body, limits::BODY_BYTES_MAX).collect();
    let received = match tokio::time::timeout(READ_DEADLINE, read).await {
        Ok(Ok(collected)) => collected.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            return Err(OverLimit::body(limits::BODY_BYTES_MAX + 1).into());
        }
        Ok(Err(_)) => return Err(ApiError::because(ErrorCode::InvalidBody, "the body ended early")),
        Err(_) => return Err(ApiError::because(ErrorCode::InvalidBody, "the body took longer than 60 s")),
    };
    let not_utf8 =
        |at: usize| ApiError::because(ErrorCode::InvalidBody, format!("the body is not UTF-8 (byte {at})"));
    let text = match headers.get(CONTENT_ENCODING).map(|v| v.as_bytes()) {
        None | Some(b"identity" | b"") => match std::str::from_utf8(&received) {
            Ok(text) => text.to_owned(),
            Err(error) => return Err(not_utf8(error.valid_up_to())),
        },
        Some(b"gzip" | b"x-gzip") => {
            let unpacked = gunzip(&received)?;
            String::from_utf8(unpacked).map_err(|e| not_utf8(e.utf8_error().valid_up_to()))?
        }
        Some(_) => {
            let why = "Content-Encoding must be gzip or identity";
            return Err(ApiError::because(ErrorCode::UnsupportedMediaType, why));
        }
    };
    // A byte order mark is no part of a JSON text (RFC 8259, section 8.1), but writers send one.
    let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
    Ok(Payload { received, text, is_lines })
}

/// True for NDJSON. No content type at all counts as JSON.
fn check_type(headers: &HeaderMap) -> Result<bool, ApiError> {
    let Some(value) = headers.get(CONTENT_TYPE) else { return Ok(false) };
    let text = value.to_str().unwrap_or_default();
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "application/json" | "" => Ok(false),
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" | "application/x-jsonlines" => {
            Ok(true)
        }
        _ => Err(ApiError::because(
            ErrorCode::UnsupportedMediaType,
            "Content-Type must be application/json or application/x-ndjson",
        )),
    }
}

fn gunzip(packed: &[u8]) -> Result<Vec<u8>, ApiError> {
    let limit = limits::BODY_UNPACKED_BYTES_MAX;
    let mut unpacked = Vec::new();
    let mut decoder = flate2::bufread::MultiGzDecoder::new(packed).take(limit as u64 + 1);
    decoder
        .read_to_end(&mut unpacked)
        .map_err(|_| ApiError::because(ErrorCode::InvalidBody, "the body is not the gzip it says it is"))?;
    if unpacked.len() > limit {
        let what = "the unpacked body, in bytes,";
        let name = "body_unpacked_bytes_max";
        return Err(OverLimit { what, name, limit, actual: unpacked.len() }.into());
    }
    Ok(unpacked)
}
