//! How a call to AWS ended: refused and so without effect, or unknown. And trying again, where that is safe.

use std::time::Duration;

use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_runtime_api::http::Response;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use tokio::time::Instant;

use crate::limits;
use crate::random;
use crate::store::StoreError;

/// How a call ended, if not well.
#[derive(Debug)]
pub enum CallError<E> {
    /// A condition of the request does not hold. Nothing was written.
    Condition(E),
    /// Several conditions of a transaction do not hold, or it met another one. Nothing was written.
    Canceled(E),
    /// Asked to come again: a throttle, or another write of the same item under way. Nothing was written.
    Busy,
    /// It never left, or it was refused. Nothing was written. Says what to mend.
    Refused(String),
    /// Sent, and no answer, or an answer that says neither.
    Unknown(String),
}

impl<E> CallError<E> {
    /// For a call of which no condition can fail, and which changes nothing if it is repeated.
    pub fn into_store(self) -> StoreError {
        match self {
            Self::Busy => StoreError::Throttled { retry_after: RETRY_AFTER },
            Self::Refused(why) | Self::Unknown(why) => StoreError::Unavailable { why },
            Self::Condition(_) | Self::Canceled(_) => {
                StoreError::Unavailable { why: "a condition failed where none was set".into() }
            }
        }
    }
}

/// What a client is told to wait once the deadline has passed.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The codes that say "come again": <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html>
/// and the common errors of the AWS APIs.
const BUSY: [&str; 7] = [
    "ProvisionedThroughputExceededException",
    "ThrottlingException",
    "Throttling",
    "RequestLimitExceeded",
    "TransactionConflictException",
    "TransactionInProgressException",
    "LimitExceededException",
];

impl<E: ProvideErrorMetadata + std::error::Error + 'static> From<SdkError<E, Response>> for CallError<E> {
    fn from(error: SdkError<E, Response>) -> Self {
        match error {
            SdkError::ConstructionFailure(_) => {
                Self::Refused(mend("", &describe(&error)).unwrap_or_else(|| describe(&error)))
            }
            SdkError::TimeoutError(_) => {
                let hint = "no answer in time: check AWS_ENDPOINT_URL, and the network's way to AWS";
                Self::Unknown(format!("{hint} ({})", describe(&error)))
            }
            SdkError::ResponseError(_) => Self::Unknown(describe(&error)),
            SdkError::DispatchFailure(ref failure) => {
                let what = describe(&error);
                // Credentials are fetched, and connections made, before a byte is sent.
                match mend("", &what) {
                    Some(why) => Self::Refused(why),
                    None if failure.is_user() => Self::Refused(what),
                    None => Self::Unknown(what),
                }
            }
            SdkError::ServiceError(context) => {
                let status = context.raw().status().as_u16();
                let error = context.into_err();
                let code = error.code().unwrap_or_default().to_owned();
                let message = error.message().unwrap_or_default();
                match code.as_str() {
                    "ConditionalCheckFailedException" => Self::Condition(error),
                    "TransactionCanceledException" => Self::Canceled(error),
                    code if BUSY.contains(&code) => Self::Busy,
                    // An answer that cannot be read is not a refusal, whatever it was.
                    _ if !(400..500).contains(&status) => {
                        Self::Unknown(format!("{status} {code}: {message} ({})", describe(&error)))
                    }
                    _ => Self::Refused(
                        mend(&code, message).unwrap_or_else(|| format!("{status} {code}: {message}")),
                    ),
                }
            }
            other => Self::Unknown(format!("{other:?}")),
        }
    }
}

/// An error with all its causes, on one line.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// What an operator should do about it, if that is known. Codes are those of the services' common errors, of DynamoDB
/// (link above) of KMS: <https://docs.aws.amazon.com/kms/latest/APIReference/CommonErrors.html> and of S3:
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>. Without a code it is about a request that
/// never left.
fn mend(code: &str, message: &str) -> Option<String> {
    let hint = match code.strip_suffix("Exception").unwrap_or(code) {
        "ResourceNotFound" => {
            "the table is not in this region and account: check QUIPU_TABLE and AWS_REGION, or deploy infra/template.yaml"
        }
        "Validation" if message.contains("specified index") => {
            "the table has not the index that Quipu needs: deploy infra/template.yaml, which adds it"
        }
        "NotFound" => {
            "the KMS key is not in this region and account: check QUIPU_SEAL_KEY, QUIPU_LOG_KEY and AWS_REGION"
        }
        "AccessDenied" => {
            let what = denied_action(message).unwrap_or("this permission");
            return Some(format!(
                "the credentials lack {what}: allow it (infra/template.yaml shows the policies) ({code}: {message})"
            ));
        }
        "NoSuchBucket" => {
            "the bucket is not there: check its name and AWS_REGION, or deploy infra/template.yaml"
        }
        "UnrecognizedClient"
        | "InvalidAccessKeyId"
        | "InvalidClientTokenId"
        | "MissingAuthenticationToken"
        | "IncompleteSignature" => {
            "these credentials are not known to AWS: check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, and that the endpoint is the right one"
        }
        "ExpiredToken" | "RequestExpired" => "the credentials have expired: get new ones",
        "InvalidSignature" | "SignatureDoesNotMatch" if message.starts_with("Signature ") => {
            "the clock of this machine is wrong: set it"
        }
        "RequestTimeTooSkewed" => "the clock of this machine is wrong: set it",
        "InvalidSignature" | "SignatureDoesNotMatch" => {
            "AWS_SECRET_ACCESS_KEY does not belong to AWS_ACCESS_KEY_ID: export both anew"
        }
        "OptInRequired" => "the account is not signed up for this service or region: check AWS_REGION",
        "Disabled" => "the KMS key is disabled: enable it, or what it sealed cannot be read",
        "KMSInvalidState" => {
            "the KMS key cannot be used in its state: cancel its deletion, or what it sealed is lost for ever"
        }
        "InvalidKeyUsage" | "UnsupportedOperation" => {
            "the KMS key is of another kind: QUIPU_SEAL_KEY must be SYMMETRIC_DEFAULT for ENCRYPT_DECRYPT, QUIPU_LOG_KEY ECC_NIST_EDWARDS25519 for SIGN_VERIFY"
        }
        "IncorrectKey" | "InvalidCiphertext" => {
            "the receipt key was sealed with another KMS key: set QUIPU_SEAL_KEY to the one that this table began with"
        }
        "" if message.contains("credential") => {
            "no AWS credentials were found: export AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        }
        "" if message.contains("dns error") => {
            "the service's host name could not be resolved: check AWS_REGION, AWS_ENDPOINT_URL and the network"
        }
        "" if message.contains("tcp connect") || message.contains("Connection refused") => {
            "nothing answers at the endpoint: check AWS_ENDPOINT_URL and the network"
        }
        _ => return None,
    };
    let detail = match (code, message) {
        ("", message) => message.to_owned(),
        (code, "") => code.to_owned(),
        (code, message) => format!("{code}: {message}"),
    };
    Some(format!("{hint} ({detail})"))
}

/// Of "… is not authorized to perform: dynamodb:Query on resource: …": the action.
fn denied_action(message: &str) -> Option<&str> {
    let (_, action) = message.split_once("not authorized to perform: ")?;
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == ':';
    let end = action.find(|c| !is_part(c)).unwrap_or(action.len());
    Some(&action[..end]).filter(|action| action.contains(':'))
}

/// Waits between tries: doubling from 10 ms to 640 ms, with full jitter so that losers do not meet again.
#[derive(Debug)]
struct Backoff {
    ceiling_ms: u64,
}

impl Backoff {
    const CEILING_MS_MAX: u64 = 640;

    fn next(&mut self) -> Duration {
        let random = u64::from_le_bytes(random::bytes());
        let wait = Duration::from_micros(random % (self.ceiling_ms * 1000));
        self.ceiling_ms = (self.ceiling_ms * 2).min(Self::CEILING_MS_MAX);
        wait
    }
}

/// Which failures of a call may be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// Only those that surely had no effect.
    IfBusy,
    /// Unknown outcomes too: the call reads, or has the same effect once and twice.
    IfUnknown,
}

/// Calls until it is answered, refused, or [`limits::REMOTE_RETRY_MS`] have passed.
///
/// # Errors
/// The last failure.
pub async fn retried<T, E, F>(again: Again, mut call: impl FnMut() -> F) -> Result<T, CallError<E>>
where
    F: Future<Output = Result<T, CallError<E>>>,
    E: std::fmt::Debug,
{
    let deadline = Instant::now() + Duration::from_millis(limits::REMOTE_RETRY_MS);
    let mut backoff = Backoff { ceiling_ms: 10 };
    loop {
        let error = match call().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let may = match error {
            CallError::Busy => true,
            CallError::Unknown(_) => again == Again::IfUnknown,
            CallError::Condition(_) | CallError::Canceled(_) | CallError::Refused(_) => false,
        };
        let wait = backoff.next();
        if !may || Instant::now() + wait >= deadline {
            return Err(error);
        }
        tracing::debug!(?error, ?wait, "calling AWS again");
        tokio::time::sleep(wait).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use aws_credential_types::Credentials;
    use aws_credential_types::provider::SharedCredentialsProvider;
    use axum::http::{StatusCode, header};
    use tokio::net::TcpListener;

    use super::*;
    use crate::aws::Connection;

    fn at(endpoint: &str) -> Connection {
        let credentials = SharedCredentialsProvider::new(Credentials::new("k", "s", None, None, "test"));
        Connection::at("us-east-1".into(), credentials, Some(endpoint.into()), Some(endpoint.into()))
    }

    /// What a call says of a service that answers everything with this.
    async fn answered(status: u16, body: &str) -> (String, String) {
        let body: Arc<str> = body.into();
        let answer = move || {
            let status = StatusCode::from_u16(status).unwrap();
            let headers = [(header::CONTENT_TYPE, "application/x-amz-json-1.1")];
            let body = body.to_string();
            async move { (status, headers, body) }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let server = axum::serve(listener, axum::Router::new().fallback(answer));
        let server = tokio::spawn(server.into_future());
        let connection = at(&endpoint);
        let table = connection.dynamodb().describe_table().table_name("quipu").send().await;
        let key = connection.kms().get_public_key().key_id("alias/quipu-log").send().await;
        server.abort();
        let (table, key) = (CallError::from(table.unwrap_err()), CallError::from(key.unwrap_err()));
        (format!("{table:?}"), format!("{key:?}"))
    }

    /// The bodies are the services' own: DynamoDB qualifies its types, and some messages are capitalized.
    #[tokio::test]
    async fn a_refusal_says_what_to_mend() {
        let denied = |action: &str| {
            format!(
                "User: arn:aws:iam::123456789012:user/ann is not authorized to perform: {action} on resource: \
                 arn:aws:dynamodb:us-east-1:123456789012:table/quipu because no identity-based policy allows the \
                 {action} action"
            )
        };
        let coral = "com.amazon.coral.service#";
        let cases = [
            ("com.amazonaws.dynamodb.v20120810#ResourceNotFoundException", "message",
             "Requested resource not found: Table: quipu not found".to_owned(), "QUIPU_TABLE and AWS_REGION"),
            (&format!("{coral}AccessDeniedException"), "Message", denied("dynamodb:DescribeTable"),
             "the credentials lack dynamodb:DescribeTable:"),
            ("AccessDeniedException", "Message",
             "User: arn:aws:sts::123456789012:assumed-role/q/f is not authorized to perform: kms:Decrypt on this \
              resource because the resource does not exist in this Region, no resource-based policies allow access, \
              or a resource-based policy explicitly denies access".to_owned(), "the credentials lack kms:Decrypt:"),
            ("AccessDeniedException", "message",
             "The ciphertext refers to a customer master key that does not exist.".to_owned(),
             "the credentials lack this permission:"),
            (&format!("{coral}UnrecognizedClientException"), "message",
             "The security token included in the request is invalid.".to_owned(), "not known to AWS"),
            (&format!("{coral}MissingAuthenticationTokenException"), "message",
             "Request is missing Authentication Token".to_owned(), "not known to AWS"),
            (&format!("{coral}ExpiredTokenException"), "message",
             "The security token included in the request is expired".to_owned(), "expired: get new ones"),
            (&format!("{coral}InvalidSignatureException"), "message",
             "The request signature we calculated does not match the signature you provided.".to_owned(),
             "AWS_SECRET_ACCESS_KEY does not belong"),
            (&format!("{coral}InvalidSignatureException"), "message",
             "Signature expired: 20261122T000000Z is now earlier than 20261122T034500Z".to_owned(), "the clock"),
            (&format!("{coral}ValidationException"), "message",
             "The table does not have the specified index: feed".to_owned(), "deploy infra/template.yaml"),
            ("NotFoundException", "message",
             "Alias arn:aws:kms:us-east-1:123456789012:alias/quipu-log is not found.".to_owned(), "QUIPU_LOG_KEY"),
            ("DisabledException", "message",
             "arn:aws:kms:us-east-1:123456789012:key/1234 is disabled.".to_owned(), "enable it"),
            ("KMSInvalidStateException", "message",
             "arn:aws:kms:us-east-1:123456789012:key/1234 is pending deletion.".to_owned(), "cancel its deletion"),
            ("InvalidKeyUsageException", "message",
             "arn:aws:kms:us-east-1:123456789012:key/1234 key usage is SIGN_VERIFY which is not valid for Encrypt."
                .to_owned(), "SYMMETRIC_DEFAULT"),
            ("UnsupportedOperationException", "message", "".to_owned(), "ECC_NIST_EDWARDS25519"),
            ("IncorrectKeyException", "message",
             "The key ID in the request does not identify a CMK that can perform this operation.".to_owned(),
             "another KMS key"),
        ];
        for (code, field, message, says) in cases {
            let body = serde_json::json!({ "__type": code, field: message }).to_string();
            let (table, key) = answered(400, &body).await;
            assert!(table.starts_with("Refused(") && table.contains(says), "{table}");
            assert!(table.contains(&message), "what AWS said is kept: {table}");
            assert_eq!(table, key, "KMS and DynamoDB alike");
        }
    }

    #[tokio::test]
    async fn a_fault_of_the_service_is_no_refusal() {
        for (status, body) in [
            (500, r#"{"__type":"com.amazonaws.dynamodb.v20120810#InternalServerError","message":"m"}"#),
            (500, r#"{"__type":"KMSInternalException","message":"m"}"#),
            (503, ""),
            (200, "no JSON"),
        ] {
            let (table, key) = answered(status, body).await;
            assert!(
                table.starts_with("Unknown(") && key.starts_with("Unknown("),
                "{status} {body}: {table} {key}"
            );
        }
        let throttled =
            r#"{"__type":"com.amazon.coral.availability#ThrottlingException","message":"Rate exceeded"}"#;
        assert_eq!(answered(400, throttled).await, ("Busy".to_owned(), "Busy".to_owned()));
    }

    async fn asked(connection: &Connection) -> String {
        let answer = connection.dynamodb().describe_table().table_name("quipu").send().await;
        format!("{:?}", CallError::from(answer.unwrap_err()))
    }

    #[tokio::test]
    async fn what_cannot_be_reached_is_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // It accepts, and never says a word.
        let mute = asked(&at(&format!("http://{address}"))).await;
        assert!(mute.starts_with("Unknown(\"no answer in time: check AWS_ENDPOINT_URL"), "{mute}");
        drop(listener);
        let down = asked(&at(&format!("http://{address}"))).await;
        assert!(down.starts_with("Refused(\"nothing answers at the endpoint"), "{down}");
        let nameless = asked(&at("http://dynamodb.invalid")).await;
        assert!(
            nameless.starts_with("Refused(\"the service's host name could not be resolved"),
            "{nameless}"
        );
    }

    #[tokio::test]
    async fn no_credentials_are_no_unknown_outcome() {
        #[derive(Debug)]
        struct None;
        impl aws_credential_types::provider::ProvideCredentials for None {
            fn provide_credentials<'a>(
                &'a self,
            ) -> aws_credential_types::provider::future::ProvideCredentials<'a>
            where
                Self: 'a,
            {
                let error = aws_credential_types::provider::error::CredentialsError::not_loaded("nowhere");
                aws_credential_types::provider::future::ProvideCredentials::ready(Err(error))
            }
        }
        let endpoint = Some("http://127.0.0.1:9".to_owned());
        let provider = SharedCredentialsProvider::new(None);
        let connection = Connection::at("us-east-1".into(), provider, endpoint.clone(), endpoint);
        let said = asked(&connection).await;
        assert!(said.starts_with("Refused(\"no AWS credentials were found: export"), "{said}");
    }
}
