//! Amazon Web Services: how they are reached, and what to say when they cannot be.
//!
//! One connection pool for all clients. The SDK's own retries are off: which call may be repeated is for its caller
//! to know (DESIGN section 4, unknown outcomes). Nothing here calls AWS; the first request does.

mod call;
mod identity;
mod log;

pub use call::{Again, CallError, RETRY_AFTER, retried};
pub use identity::{KmsIdentity, KmsSigner};
pub use log::init_log;

use std::time::Duration;

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_runtime_api::client::behavior_version::BehaviorVersion;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use aws_types::SdkConfig;
use aws_types::region::Region;

use crate::config::ConfigError;
use crate::limits;

/// How long it may take to reach a service, before anything is sent.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Where AWS is and who asks.
#[derive(Debug, Clone)]
pub struct Connection {
    config: SdkConfig,
    dynamodb: Option<String>,
    kms: Option<String>,
    #[cfg_attr(not(feature = "s3"), expect(dead_code, reason = "the client of S3 alone asks"))]
    s3: Option<String>,
}

fn endpoint(service: &str) -> Option<String> {
    variable(service).or_else(|| variable("AWS_ENDPOINT_URL"))
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl Connection {
    /// As a Lambda function finds it: region and credentials in `AWS_…` variables.
    ///
    /// # Errors
    /// If one of them is missing.
    pub fn from_env() -> Result<Self, ConfigError> {
        let need = |name, why| variable(name).ok_or(ConfigError::Missing { name, why });
        let id = need("AWS_ACCESS_KEY_ID", "Lambda sets it; elsewhere, export credentials")?;
        let secret = need("AWS_SECRET_ACCESS_KEY", "Lambda sets it; elsewhere, export credentials")?;
        let region = variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION"));
        let why = "the region of the table, such as eu-central-1";
        let region = region.ok_or(ConfigError::Missing { name: "AWS_REGION", why })?;
        let credentials = Credentials::new(id, secret, variable("AWS_SESSION_TOKEN"), None, "environment");
        let credentials = SharedCredentialsProvider::new(credentials);
        let (dynamodb, kms) = (endpoint("AWS_ENDPOINT_URL_DYNAMODB"), endpoint("AWS_ENDPOINT_URL_KMS"));
        let s3 = endpoint("AWS_ENDPOINT_URL_S3");
        let endpoints = [dynamodb.as_deref(), kms.as_deref(), s3.as_deref()];
        let system = needs_system_roots(&endpoints, variable("SSL_CERT_FILE").is_some());
        let client = if system { http_client() } else { https(amazon_roots()) };
        Ok(Self::with(region, credentials, dynamodb, kms, client).at_s3(s3))
    }

    /// In a region, with credentials from anywhere. `AWS_ENDPOINT_URL…` variables are honoured.
    pub fn new(region: String, credentials: SharedCredentialsProvider) -> Self {
        let (dynamodb, kms) = (endpoint("AWS_ENDPOINT_URL_DYNAMODB"), endpoint("AWS_ENDPOINT_URL_KMS"));
        Self::at(region, credentials, dynamodb, kms).at_s3(endpoint("AWS_ENDPOINT_URL_S3"))
    }

    /// With endpoints other than AWS's own, whatever the environment says.
    pub fn at(
        region: String,
        credentials: SharedCredentialsProvider,
        dynamodb: Option<String>,
        kms: Option<String>,
    ) -> Self {
        Self::with(region, credentials, dynamodb, kms, http_client())
    }

    fn with(
        region: String,
        credentials: SharedCredentialsProvider,
        dynamodb: Option<String>,
        kms: Option<String>,
        client: SharedHttpClient,
    ) -> Self {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .operation_attempt_timeout(Duration::from_millis(limits::REMOTE_CALL_MS))
            .build();
        let config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(region))
            .credentials_provider(credentials)
            .http_client(client)
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts)
            .build();
        Self { config, dynamodb, kms, s3: None }
    }

    /// The same with this endpoint for S3 (`None`: AWS's own), whatever the environment says.
    #[must_use]
    pub fn at_s3(mut self, s3: Option<String>) -> Self {
        self.s3 = s3;
        self
    }

    /// The region's name.
    pub fn region(&self) -> &str {
        self.config.region().map_or("", Region::as_ref)
    }

    /// Where DynamoDB is, if not where AWS has it.
    pub fn endpoint(&self) -> Option<&str> {
        self.dynamodb.as_deref()
    }

    /// Settings for a client of another service; `endpoint_variable` is the one that may name its endpoint.
    pub fn for_service(&self, endpoint_variable: &str) -> SdkConfig {
        let builder = self.config.to_builder();
        match endpoint(endpoint_variable) {
            Some(endpoint) => builder.endpoint_url(endpoint).build(),
            None => builder.build(),
        }
    }

    /// A client of DynamoDB.
    pub fn dynamodb(&self) -> aws_sdk_dynamodb::Client {
        let mut builder = aws_sdk_dynamodb::config::Builder::from(&self.config);
        builder.set_endpoint_url(self.dynamodb.clone());
        aws_sdk_dynamodb::Client::from_conf(builder.build())
    }

    /// A client of KMS.
    pub fn kms(&self) -> aws_sdk_kms::Client {
        let mut builder = aws_sdk_kms::config::Builder::from(&self.config);
        builder.set_endpoint_url(self.kms.clone());
        aws_sdk_kms::Client::from_conf(builder.build())
    }

    /// A client of S3. At an endpoint of one's own, buckets are named in the path: few of them have a host name for
    /// each bucket. It has no deadline but for connecting, and no guard against slow streams: how long a call may take
    /// depends on how much it carries, which its caller knows.
    #[cfg(feature = "s3")]
    pub fn s3(&self) -> aws_sdk_s3::Client {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            // Said, since what is left out is taken from the settings that all clients share.
            .disable_operation_attempt_timeout()
            .build();
        let mut builder = aws_sdk_s3::config::Builder::from(&self.config)
            .timeout_config(timeouts)
            .stalled_stream_protection(aws_sdk_s3::config::StalledStreamProtectionConfig::disabled())
            .force_path_style(self.s3.is_some());
        builder.set_endpoint_url(self.s3.clone());
        aws_sdk_s3::Client::from_conf(builder.build())
    }
}

/// What carries every request of a server: it trusts what this machine trusts.
pub fn http_client() -> SharedHttpClient {
    https(TrustStore::default())
}

/// ring rather than aws-lc: smaller, quicker to build, and no jitter entropy to gather at a cold start.
fn https(roots: TrustStore) -> SharedHttpClient {
    let context =
        TlsContext::builder().with_trust_store(roots).build().expect("a context of roots is complete");
    let provider = Provider::Rustls(CryptoMode::Ring);
    aws_smithy_http_client::Builder::new().tls_provider(provider).tls_context(context).build_https()
}

/// Whether the roots of the system must be read to reach these endpoints (`None`: AWS's own). Amazon's are enough for
/// AWS's own, unless roots were `given` by whoever runs this, and none is needed where TLS is not spoken.
fn needs_system_roots(endpoints: &[Option<&str>], given: bool) -> bool {
    endpoints.iter().any(|endpoint| match endpoint {
        None => given,
        Some(url) => !url.starts_with("http://"),
    })
}

/// What a function trusts: the roots of Amazon Trust Services (<https://www.amazontrust.com/repository/>), to which the
/// certificates of all AWS endpoints lead. Reading every root of the system costs a cold start milliseconds (ADR 9).
fn amazon_roots() -> TrustStore {
    TrustStore::empty().with_pem_certificate(include_bytes!("amazon-roots.pem").as_slice())
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD as BASE64;
    use sha2::{Digest as _, Sha256};

    use super::*;

    /// The SHA-256 fingerprints that <https://www.amazontrust.com/repository/> publishes: Amazon Root CA 1 to 4, and
    /// Starfield Services Root Certificate Authority - G2.
    const FINGERPRINTS: [&str; 5] = [
        "8ecde6884f3d87b1125ba31ac3fcb13d7016de7f57cc904fe1cb97c6ae98196e",
        "1ba5b2aa8c65401a82960118f80bec4f62304d83cec4713a19c39c011ea46db4",
        "18ce6cfe7bf14e60b2e347b8dfe868cb31d02ebb3ada271569f50343b46db3a4",
        "e35d28419ed02025cfa69038cd623962458da5c695fbdea3c22b0bfb25897092",
        "568d6905a2c88708a4b3025190edcfedb1974a606a13c6e5290fcb2ae63edab5",
    ];

    #[test]
    fn the_systems_roots_are_read_only_where_they_count() {
        let (plain, private) = (Some("http://127.0.0.1:4566"), Some("https://dynamodb.example"));
        for given in [false, true] {
            assert!(!needs_system_roots(&[plain, plain], given));
            assert!(needs_system_roots(&[private, plain], given));
            assert!(needs_system_roots(&[None, private], given));
            assert_eq!(needs_system_roots(&[None, None], given), given);
            assert_eq!(needs_system_roots(&[plain, None], given), given);
        }
    }

    #[test]
    fn the_roots_are_those_that_amazon_publishes() {
        let pem = include_str!("amazon-roots.pem");
        let found: Vec<_> = pem
            .split("-----BEGIN CERTIFICATE-----")
            .skip(1)
            .map(|rest| rest.split("-----END CERTIFICATE-----").next().unwrap())
            .map(|body| BASE64.decode(body.split_whitespace().collect::<String>()).unwrap())
            .map(|der| crate::ids::hex(&Sha256::digest(der)))
            .collect();
        assert_eq!(found, FINGERPRINTS);
        let _ = https(amazon_roots());
    }
}
