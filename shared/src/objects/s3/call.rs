//! What S3's answers mean: <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>.

use std::time::Duration;

use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_runtime_api::http::Response;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use crate::aws::CallError;
use crate::limits;
use crate::objects::ObjectError;

/// Which condition of a request does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unmet {
    /// There is no such object.
    Exists,
    /// `If-Match` or `If-None-Match` (412).
    Precondition,
    /// The object ends before the range begins (416).
    Range,
}

/// How a request ended, if not well.
pub(super) type Failure = CallError<Unmet>;

/// Codes of a request of which S3 says that it did nothing, and that it may come again.
const AGAIN: [&str; 8] = [
    "SlowDown",
    // 409: another conditional write of this key was under way.
    "ConditionalRequestConflict",
    "OperationAborted",
    // 400: the body did not come in time, or not as it was sent.
    "RequestTimeout",
    "IncompleteBody",
    "BadDigest",
    "XAmzContentSHA256Mismatch",
    "XAmzContentChecksumMismatch",
];

/// Judges a failure. Answers to HEAD have no body, and so no code.
pub(super) fn failure<E>(error: SdkError<E, Response>) -> Failure
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    if let SdkError::ServiceError(context) = &error {
        let status = context.raw().status().as_u16();
        let code = context.err().code().unwrap_or_default();
        match (status, code) {
            (_, code) if AGAIN.contains(&code) => return CallError::Busy,
            (404, "" | "NoSuchKey" | "NotFound") => return CallError::Condition(Unmet::Exists),
            (409, "" | "Conflict") => return CallError::Busy,
            (412, _) => return CallError::Condition(Unmet::Precondition),
            (416, _) => return CallError::Condition(Unmet::Range),
            (301 | 307, _) => {
                let message = context.err().message().unwrap_or_default();
                let hint = "the bucket is in another region: check AWS_REGION";
                return CallError::Refused(format!("{hint} ({status} {code}: {message})"));
            }
            _ => {}
        }
    }
    match CallError::from(error) {
        CallError::Busy => CallError::Busy,
        CallError::Refused(why) => CallError::Refused(why),
        CallError::Unknown(why) => CallError::Unknown(why),
        // Codes of DynamoDB.
        CallError::Condition(error) | CallError::Canceled(error) => CallError::Unknown(error.to_string()),
    }
}

/// Ends a request that carries this many bytes if it takes too long. Whether it was applied is not known then.
pub(super) async fn in_time<T>(
    bytes: u64,
    call: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let limit = Duration::from_millis(limits::REMOTE_CALL_MS + bytes / limits::OBJECT_BYTES_PER_MS_MIN);
    tokio::time::timeout(limit, call).await.unwrap_or_else(|_| {
        let hint = "check AWS_ENDPOINT_URL, and the network's way to AWS";
        Err(CallError::Unknown(format!("no answer in {limit:?}: {hint}")))
    })
}

/// Of a read.
pub(super) fn read_error(key: &str, failure: Failure) -> ObjectError {
    match write_error(key, failure) {
        ObjectError::Unknown { why } => ObjectError::Unavailable { why },
        other => other,
    }
}

/// Of a write.
pub(super) fn write_error(key: &str, failure: Failure) -> ObjectError {
    let key = key.to_owned();
    match failure {
        CallError::Condition(Unmet::Exists) => ObjectError::NotFound { key },
        CallError::Condition(Unmet::Precondition) => ObjectError::Conflict { key },
        CallError::Condition(Unmet::Range) | CallError::Canceled(_) => {
            ObjectError::Unavailable { why: format!("{key}: S3 refused a range where none was asked for") }
        }
        CallError::Busy => ObjectError::Unavailable { why: format!("{key}: S3 asks to come again later") },
        CallError::Refused(why) => ObjectError::Unavailable { why: format!("{key}: {why}") },
        CallError::Unknown(why) => ObjectError::Unknown { why: format!("{key}: {why}") },
    }
}
