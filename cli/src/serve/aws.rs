//! The ledger in a DynamoDB table: what must be there for it, looked at before the first client does.
//!
//! Nothing is kept on this machine, and any number of servers may stand on one table.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, anyhow};
use aws_config::{BehaviorVersion, SdkConfig};
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials as _, SharedCredentialsProvider};
use quipu_core::archive::{ArchiveSettings, Archiver};
use quipu_core::aws::{Connection, http_client};
use quipu_core::clock::SystemClock;
use quipu_core::config::{ArchiverConfig, AwsConfig};
use quipu_core::ids::hex;
use quipu_core::random;
use quipu_core::store::StoreError;
use quipu_core::store::dynamo::{DynamoStore, check_table};

use super::operator_file::OperatorFile;
use super::{FirstToken, Ground, Opened, banner};
use crate::failure::hinted;
use crate::local::{self, Admission, ServerInfo};
use crate::settings::{self, ServeSettings};

/// A table and its keys.
pub(super) struct Aws<'s> {
    config: &'s AwsConfig,
    /// Where and how this server archives, if it does.
    archive: Option<(&'s ArchiverConfig, ArchiveSettings)>,
    /// Where the operator's credential is left, if somewhere.
    operator_dir: Option<&'s Path>,
    /// It is removed when the server ends.
    word: Mutex<Option<OperatorFile>>,
}

impl<'s> Aws<'s> {
    pub(super) fn new(
        config: &'s AwsConfig,
        archive: Option<(&'s ArchiverConfig, ArchiveSettings)>,
        operator_dir: Option<&'s Path>,
    ) -> Self {
        Self { config, archive, operator_dir, word: Mutex::default() }
    }
}

impl Ground for Aws<'_> {
    /// 1. the region; 2. credentials; 3. the table; 4. the keys; 5. the archive.
    async fn open(&self, mut admission: Admission<'_>) -> anyhow::Result<Opened> {
        if let Some(dir) = self.operator_dir {
            OperatorFile::check(dir)?;
        }
        let connection = connect().await?;
        // 3
        let table = &self.config.table;
        let place = match connection.endpoint() {
            Some(endpoint) => format!("in {} at {endpoint}", connection.region()),
            None => format!("in {}", connection.region()),
        };
        let store = DynamoStore::new(&connection, table);
        check_table(&store)
            .await
            .map_err(why)
            .with_context(|| format!("cannot use the table {table} {place}"))?;
        // 4
        let ledger = self.config.ledger(&connection, Arc::new(SystemClock));
        let deployment = match ledger.identity().await {
            Ok(identity) => identity.deployment.clone(),
            Err(error) => return Err(self.identity_error(error)),
        };
        // Whoever comes first shall not own a table that others can reach: without a secret, one that nobody knows.
        admission.bootstrap_secret.get_or_insert_with(|| hex(&random::bytes::<32>()));
        let app = local::app(ledger, self.config.objects(&connection), admission).await?;
        // 5
        let archiver = self.archiver().await?;
        let mut facts = vec![("table", table.clone()), ("region", connection.region().to_owned())];
        facts.extend(connection.endpoint().map(|endpoint| ("endpoint", endpoint.to_owned())));
        facts.push(("deployment", deployment));
        facts.extend(self.config.archive_bucket.as_ref().map(|bucket| match archiver {
            Some(_) => ("archive", bucket.clone()),
            None => ("archive", format!("{bucket}, which another archiver fills")),
        }));
        Ok(Opened { ledger: local::Open { app, archiver }, facts })
    }

    fn leave_word(&self, info: &ServerInfo) -> anyhow::Result<()> {
        if let Some(dir) = self.operator_dir {
            let word = OperatorFile::leave(dir, info)?;
            *self.word.lock().unwrap_or_else(PoisonError::into_inner) = Some(word);
        }
        Ok(())
    }

    fn option(&self, url: &str) -> String {
        self.operator_dir.map_or_else(|| format!(" --url {url}"), banner::directory_option)
    }

    fn first_token(&self, settings: &ServeSettings) -> FirstToken {
        match (self.operator_dir, &settings.bootstrap_secret) {
            (Some(_), _) => FirstToken::Operator,
            (None, Some(_)) => FirstToken::Secret,
            (None, None) => FirstToken::Nobody,
        }
    }
}

impl Aws<'_> {
    /// The archiver, with a connection pool of its own: it runs on a thread of its own, and a request must not wait
    /// for a connection that is driven there.
    async fn archiver(&self) -> anyhow::Result<Option<Arc<Archiver>>> {
        let Some((config, settings)) = self.archive else { return Ok(None) };
        let connection = connect().await?;
        let archiver = config.archiver(self.config, &connection, settings)?;
        match archiver.check().await {
            Ok(()) => Ok(Some(Arc::new(archiver))),
            Err(error) => {
                let (archive, staging) = (&config.archive_bucket, &config.staging_bucket);
                let buckets = format!("QUIPU_ARCHIVE_BUCKET={archive}, QUIPU_STAGING_BUCKET={staging}");
                let hint = "check both buckets, and that QUIPU_LOG_KEY is this table's log key; without a staging \
                            bucket the server does not archive";
                let message = format!("cannot archive ({buckets}): {error}");
                Err(hinted(message, hint).into())
            }
        }
    }

    fn identity_error(&self, error: StoreError) -> anyhow::Error {
        let keys = match &self.config.log_key {
            Some(log_key) => format!("QUIPU_SEAL_KEY={}, QUIPU_LOG_KEY={log_key}", self.config.seal_key),
            None => format!("QUIPU_SEAL_KEY={}, no QUIPU_LOG_KEY", self.config.seal_key),
        };
        why(error).context(format!("cannot get the deployment's keys ({keys})"))
    }
}

/// Region and credentials, found as every tool of AWS finds them.
pub(crate) async fn connect() -> anyhow::Result<Connection> {
    let found = aws_config::defaults(BehaviorVersion::latest()).http_client(http_client()).load().await;
    // 1
    let Some(region) = found.region() else {
        let hint = "export AWS_REGION (such as eu-central-1), or name a profile that has one in AWS_PROFILE";
        return Err(hinted("no AWS region is set", hint).into());
    };
    let region = region.to_string();
    // 2
    let credentials = credentials(&found).await?;
    Ok(Connection::new(region, credentials))
}

async fn credentials(found: &SdkConfig) -> anyhow::Result<SharedCredentialsProvider> {
    let provider = found.credentials_provider().context("no AWS credentials can be looked for")?;
    match provider.provide_credentials().await {
        Ok(_) => Ok(provider),
        Err(error) => Err(credentials_error(error, settings::environment("AWS_PROFILE").as_deref())),
    }
}

fn credentials_error(error: CredentialsError, profile: Option<&str>) -> anyhow::Error {
    match (error, profile) {
        (CredentialsError::CredentialsNotLoaded(_), Some(profile)) => {
            let hint = "run `aws configure --profile NAME` to make one, or unset AWS_PROFILE; with AWS SSO: \
                        eval \"$(aws configure export-credentials --format env)\"";
            hinted(format!("no AWS credentials were found: AWS_PROFILE={profile} has none"), hint).into()
        }
        (CredentialsError::CredentialsNotLoaded(_), None) => {
            let hint = "export AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; with AWS SSO: \
                        eval \"$(aws configure export-credentials --format env)\"";
            hinted("no AWS credentials were found", hint).into()
        }
        (error, _) => {
            let hint = "check the [profile] in ~/.aws/config, or export AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; \
                        with AWS SSO: eval \"$(aws configure export-credentials --format env)\"";
            anyhow::Error::new(error).context(hinted("AWS credentials could not be had", hint))
        }
    }
}

/// A store's error at the start, where all that matters is what it says.
pub(crate) fn why(error: StoreError) -> anyhow::Error {
    match error {
        StoreError::Unavailable { why } => anyhow!(why),
        error => anyhow!(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Hinted;

    #[test]
    fn credentials_that_are_not_there_and_those_that_fail_are_told_apart() {
        let said = |error, profile| {
            let error = credentials_error(error, profile);
            format!("{error:#} / {}", error.downcast_ref::<Hinted>().unwrap().hint())
        };
        let none = || CredentialsError::not_loaded("nowhere");
        let nothing = said(none(), None);
        assert!(nothing.contains("were found / export AWS_ACCESS_KEY_ID"), "{nothing}");
        let profile = said(none(), Some("work"));
        assert!(profile.contains("AWS_PROFILE=work has none"), "{profile}");
        let broken = said(CredentialsError::invalid_configuration("source_profile loops"), Some("work"));
        assert!(broken.contains("source_profile loops") && broken.contains("~/.aws/config"), "{broken}");
    }
}
