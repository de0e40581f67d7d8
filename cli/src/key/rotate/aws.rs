//! The log key of a table: both keys are in KMS, and sign there.
//!
//! The ledger is closed meanwhile, for the sake of the archivers: one that looks after its claim, and before it signs,
//! finds it closed or finds the new key. So of the batches that are not there when the sizes are read none is signed by
//! the old key, however late its archiver wakes.

use anyhow::{Context as _, anyhow};
use quipu_core::archive::{UnsettledError, settled_sizes};
use quipu_core::aws::KmsIdentity;
use quipu_core::config::AwsConfig;
use quipu_core::log::keys::{KeyChain, Rotation};
use quipu_core::store::dynamo::{DynamoStore, check_table};
use quipu_core::store::{Store as _, StoreError};
use tokio::runtime::Runtime;

use super::{RotateArgs, Which, replace_identity, tell_log, warn_untold};
use crate::failure::hinted;
use crate::serve::{connect, why};
use crate::time_arg::now;

/// Runs it.
pub(super) fn rotate(args: &RotateArgs, config: &AwsConfig) -> anyhow::Result<()> {
    if matches!(args.which, Which::Receipt) {
        let hint = "of a table only the log key is: quipu key rotate log --store aws";
        return Err(hinted("the receipt key of a table is not replaced by this version", hint).into());
    }
    let need = |setting: &Option<String>, message: &str, hint: &str| {
        setting.clone().ok_or_else(|| anyhow::Error::new(hinted(message, hint)))
    };
    let new = need(&args.new_log_key, "no new log key is named", "name a KMS key: --new-log-key alias/NAME")?;
    let old =
        need(&config.log_key, "the present log key is not named", "set QUIPU_LOG_KEY, or give --log-key")?;
    let runtime = Runtime::new().context("cannot start the runtime")?;
    let rotation = runtime.block_on(replace(config, &old, &new))?;
    let old_key = format!(
        "Give the archivers {new} as QUIPU_LOG_KEY now: with the old key they archive nothing more. Then disable {old} \
         in KMS."
    );
    tell_log(args, rotation, &old_key)
}

/// 1. close the ledger; 2. how far has each log come; 3. both keys sign; 4. tell the archive; 5. open the ledger.
async fn replace(config: &AwsConfig, old: &str, new: &str) -> anyhow::Result<Rotation> {
    let connection = connect().await?;
    let store = DynamoStore::new(&connection, &config.table);
    check_table(&store).await.map_err(why).with_context(|| format!("cannot use {}", config.table))?;
    let Some(objects) = config.objects(&connection) else {
        let hint = "set QUIPU_ARCHIVE_BUCKET, or give --archive-bucket: its logs say from where on the new key holds";
        return Err(hinted("no archive is named", hint).into());
    };
    let identity = KmsIdentity::new(&connection, store.clone(), &config.seal_key);
    let known = identity.public().await.map_err(why)?;
    let known = known.ok_or_else(|| anyhow!("the table holds no keys yet"))?;
    let notes = known.rotations.iter().map(String::as_str);
    let chain = KeyChain::new(&known.deployment, known.log_key.clone(), notes);
    let chain = chain.context("the keys in the table")?;
    // 1
    if let Some(since) = store.closed().await.map_err(why)? {
        let message = format!("the ledger is closed since {since}: a rebuild or a rotation was not finished");
        return Err(hinted(message, "run quipu rebuild to its end, which opens it, and try again").into());
    }
    store.set_closed(Some(now())).await.map_err(why)?;
    let open =
        async || store.set_closed(None).await.map_err(why).context("the ledger could not be opened again");
    // 2
    let sizes = match settled_sizes(&store, &objects, &chain).await {
        Ok(sizes) => sizes,
        Err(error) => {
            open().await?;
            return Err(unsettled(error));
        }
    };
    // 3
    let rotation = match identity.rotate(old, new, sizes, now()).await {
        Ok(rotation) => rotation,
        Err(error @ StoreError::Unknown { .. }) => {
            // It may be applied yet: in an open ledger the old key could sign on.
            let hint = "the ledger stays closed: run quipu rebuild, which opens it; then quipu key show says which key \
                        holds";
            return Err(anyhow::Error::new(error).context(hinted("the outcome is not known", hint)));
        }
        Err(error) => {
            open().await?;
            return Err(why(error).context("the log key stays as it is"));
        }
    };
    // 4
    if !rotation.sizes.is_empty() {
        let told = match identity.public().await {
            Ok(Some(present)) => replace_identity(objects.as_ref(), &present).await,
            Ok(None) => Err(anyhow!("the table's keys are gone")),
            Err(error) => Err(why(error)),
        };
        if let Err(error) = told {
            warn_untold(&objects.describe(), &error);
        }
    }
    // 5
    open().await?;
    Ok(rotation)
}

fn unsettled(error: UnsettledError) -> anyhow::Error {
    let hint = match &error {
        UnsettledError::Unfinished { .. } => {
            "only the present key can finish it: let an archiver run (quipu archive now), and try again"
        }
        UnsettledError::Differs { .. } => "restore the archive, or run quipu rebuild, first",
        _ => return error.into(),
    };
    hinted(error.to_string(), hint).into()
}
