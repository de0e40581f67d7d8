//! `quipu key rotate`: replaces the log key or the receipt key of a data directory, or the log key of a table.

#[cfg(feature = "aws")]
mod aws;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use quipu_core::ledger::Identity;
use quipu_core::log::identity::IdentityFile;
use quipu_core::log::keys::Rotation;
use quipu_core::log::paths;
use quipu_core::objects::{Condition, Directory, ObjectStore};
use quipu_core::store::Store;
use quipu_core::store::embedded::{DataDir, EmbeddedOptions, EmbeddedStore, RotationError};
use serde_json::{Map, json};
use tokio::runtime::Runtime;

use crate::args::{ConnectArgs, StoreArgs};
use crate::failure::hinted;
use crate::local::directory_error;
use crate::output::print;
use crate::settings::{self, ConnectSettings, DEFAULT_DATA, FileSettings, Place, StoreSettings};
use crate::time_arg::now;

/// Arguments of `quipu key rotate`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quipu key rotate receipt
  quipu key rotate log --data DIR > log.pub      the new key: pin it in place of the old one
  quipu key rotate log --store aws --new-log-key alias/quipu-log-2 > log.pub

No server may run on the directory. On AWS servers and functions may go on, but for the archivers, which stop until they
are given the new key (QUIPU_LOG_KEY); the old one stays in KMS, to be disabled by you. The old private key is removed. What it signed stays good: the log key's successor
is named in a note that both sign, and receipts carry on under the certificates of all receipt keys there were.")]
pub(super) struct RotateArgs {
    /// Which key
    #[arg(value_enum)]
    which: Which,
    #[command(flatten)]
    store: StoreArgs,
    /// With --store aws: the KMS key (id, ARN or alias) that is to be the log key
    #[arg(long, value_name = "KEY")]
    new_log_key: Option<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Which {
    /// The root of trust: signs the log, and certifies receipt keys
    Log,
    /// Signs receipts and the heads of exports
    Receipt,
}

/// Runs it.
pub(super) fn run(args: &RotateArgs) -> anyhow::Result<()> {
    let file = FileSettings::read(args.store.config.as_deref())?;
    let path = match args.store.resolve(file.clone())? {
        StoreSettings::Embedded(_) => directory(args, file)?,
        #[cfg(feature = "aws")]
        StoreSettings::Aws { config, .. } => return aws::rotate(args, &config),
    };
    let dir = DataDir::open(&path).map_err(|error| directory_error(&path, error))?;
    match args.which {
        Which::Log => rotate_log(args, &dir),
        Which::Receipt => rotate_receipt(args, &dir),
    }
}

fn directory(args: &RotateArgs, file: FileSettings) -> anyhow::Result<PathBuf> {
    if args.new_log_key.is_some() {
        let hint = "add --store aws; in a data directory the new key is made in place";
        return Err(hinted("--new-log-key names a key in KMS, and this is the embedded store", hint).into());
    }
    let flags = ConnectArgs { data: args.store.data.clone(), ..ConnectArgs::default() };
    match ConnectSettings::resolve(&flags, &settings::environment, file).place {
        Place::Data(path) => Ok(path),
        Place::Default => Ok(PathBuf::from(DEFAULT_DATA)),
        Place::Url(url) => {
            let message = format!("the keys of {url} are replaced where they are, in its data directory");
            Err(hinted(message, "name the directory with --data").into())
        }
    }
}

fn rotate_receipt(args: &RotateArgs, dir: &DataDir) -> anyhow::Result<()> {
    let new = dir.rotate_receipt_key(now()).map_err(|error| directory_error(dir.path(), error))?;
    tell_archive(dir);
    eprintln!(
        "{} has a new receipt key, certified by its log key. Nothing has to be pinned anew: receipts of the old key \
         stay good, and new ones verify with the same log key. The old private key is gone.",
        dir.deployment()
    );
    let shown = new.to_string();
    print(&if args.json {
        json!({ "deployment": dir.deployment(), "new": shown }).to_string()
    } else {
        shown
    })
}

fn rotate_log(args: &RotateArgs, dir: &DataDir) -> anyhow::Result<()> {
    check_archive(dir)?;
    let rotation = dir.rotate_log_key(now()).map_err(|error| rotation_error(dir.path(), error))?;
    tell_archive(dir);
    tell_log(args, rotation, "The old private key is gone.")
}

/// Says which key is the new one, and what became of the old one.
fn tell_log(args: &RotateArgs, rotation: Rotation, old_key: &str) -> anyhow::Result<()> {
    let Rotation { deployment, old, new, time, sizes } = rotation;
    eprintln!(
        "{deployment} has a new log key, on standard output. Pin it wherever the old one is pinned:\n  {old}\n\
         Whoever still has that one can verify all the same: a note that both keys signed links them, and goes with \
         every bundle and with the archive. Keep it beside the bundles and checkpoints of before: those that lack the \
         note verify with it alone. {old_key}"
    );
    if !args.json {
        return print(&new.to_string());
    }
    let sizes: Map<_, _> =
        sizes.into_iter().map(|(tenant, size)| (tenant.to_string(), json!(size))).collect();
    let (old, new) = (old.to_string(), new.to_string());
    print(
        &json!({ "deployment": deployment, "old": old, "new": new, "time": time.to_string(), "tree_sizes": sizes })
            .to_string(),
    )
}

fn rotation_error(path: &Path, error: RotationError) -> anyhow::Error {
    match error {
        RotationError::Dir(error) => directory_error(path, error),
        error @ RotationError::Unfinished { .. } => {
            let hint =
                "only the present key can finish it: start the server, let it archive, stop it and try again";
            hinted(error.to_string(), hint).into()
        }
    }
}

/// Refuses an archive that lacks what this ledger has archived: a new key would be said to hold for trees that the
/// old one signed.
fn check_archive(dir: &DataDir) -> anyhow::Result<()> {
    let logs = dir.archived_logs().map_err(|error| rotation_error(dir.path(), error))?;
    let path = dir.ledger_path();
    let store = EmbeddedStore::open(&path, &EmbeddedOptions::default())
        .with_context(|| format!("cannot open {}", path.display()))?;
    let runtime = Runtime::new().context("cannot start the runtime")?;
    runtime.block_on(async {
        for record in store.tenants().await.context("cannot read the tenants")? {
            let tenant = record.tenant;
            let last = store.last_batch(&tenant).await.context("cannot read the catalogue of batches")?;
            let Some(last) = last else { continue };
            let log = logs.iter().find(|log| log.tenant == tenant);
            if log.is_none_or(|log| log.tree_size < last.tree_size()) {
                let message = format!(
                    "{} does not hold batch {} of the tenant {tenant}, which this ledger has archived",
                    dir.archive_path().display(),
                    last.batch
                );
                let hint =
                    "restore the archive first: which key signs from where on is decided by its checkpoints";
                return Err(anyhow::Error::new(hinted(message, hint)));
            }
        }
        Ok(())
    })
}

/// Says the keys in the archive too, if it says any. The next batch would as well; until then an archive that lacks
/// the new key could not be verified with it.
fn tell_archive(dir: &DataDir) {
    let path = dir.archive_path();
    let tell = || -> anyhow::Result<()> {
        if !path.join(paths::IDENTITY).try_exists()? {
            return Ok(());
        }
        let Identity { deployment, log_key, certificates, rotations, .. } = dir.identity()?;
        let file = IdentityFile { deployment, log_key, certificates, rotations };
        Runtime::new()?.block_on(replace_identity(&Directory::open(&path)?, &file))
    };
    if let Err(error) = tell() {
        warn_untold(&path.display().to_string(), &error);
    }
}

async fn replace_identity(archive: &dyn ObjectStore, file: &IdentityFile) -> anyhow::Result<()> {
    let there = archive.get(paths::IDENTITY).await?;
    archive.put(paths::IDENTITY, file.to_bytes().into(), Condition::Matches(there.tag)).await?;
    Ok(())
}

fn warn_untold(archive: &str, error: &anyhow::Error) {
    eprintln!(
        "warning: the keys were replaced, but {archive} could not be told: {error:#}. The archiver does it with its next \
         batch."
    );
}
