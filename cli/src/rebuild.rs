//! `quipu rebuild`: a store's tenants, catalogue, pointers and session list, made again from the archive.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use clap::Args;
use quipu_core::archive::{Archiver, RebuildError, RebuildOptions, Rebuilt, rebuild};
use quipu_core::clock::SystemClock;
use quipu_core::ids::TenantId;
use quipu_core::ledger::Ledger;
use quipu_core::log::LocalSigner;
use quipu_core::log::identity::IdentityFile;
use quipu_core::log::paths;
use quipu_core::objects::{Directory, ObjectError, ObjectStore};
use quipu_core::store::Store;
use quipu_core::store::embedded::{DataDir, DataDirError, EmbeddedOptions, EmbeddedStore};
use quipu_core::verify::{Finding, Found, Options, Survey};
use serde_json::json;

use crate::args::StoreArgs;
use crate::failure::hinted;
use crate::local::directory_error;
use crate::output::{count, print};
use crate::settings::{self, FileSettings, StoreSettings};
use crate::time_arg::now;

/// Arguments of `quipu rebuild`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quipu rebuild --data DIR                      DIR/ledger.redb is lost; DIR/archive and DIR/keys are there
  mkdir NEW; cp -r OLD/archive OLD/keys NEW; quipu rebuild --data NEW
  quipu rebuild --store aws --key log.pub       a new table, in place of one that is lost

Checks the whole archive first and builds on nothing that is not right. The ledger is closed until it is done; killed at
any moment, it is run again. Segments that are not archived stay. Not in the archive, and so not made again: tokens, and
events that were not archived. Exit code 0 only if the ledger is whole and open.")]
pub(crate) struct RebuildArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// The log's verifier key, kept outside; needed where the store has lost its own
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Checkpoints kept outside, a file each: the archive must still hold what they say; may be given again
    #[arg(long, value_name = "FILE")]
    checkpoint: Vec<PathBuf>,
    /// With --store aws: nothing else runs on the table, so do not wait until all have noticed that it is closed
    #[arg(long)]
    idle: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// What is worked on. The ledger is closed.
struct Work<'a> {
    store: &'a dyn Store,
    objects: &'a Arc<dyn ObjectStore>,
    options: &'a Options,
    rebuild: RebuildOptions,
}

/// Runs it.
pub(crate) fn run(args: &RebuildArgs) -> anyhow::Result<ExitCode> {
    let file = FileSettings::read(args.store.config.as_deref())?;
    let hot_retention_ms = settings::archive(&settings::environment, &file)?.settings.hot_retention_ms;
    crate::serve::init_log("warn,quipu=info");
    let mut options = Options::read(args.key.as_deref(), &[]);
    options.read_checkpoints(&args.checkpoint);
    options.threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    let (rebuilt, survey) = match args.store.resolve(file)? {
        StoreSettings::Embedded(path) => runtime.block_on(directory(&path, options, hot_retention_ms))?,
        #[cfg(feature = "aws")]
        StoreSettings::Aws { config, archiver, .. } => {
            runtime.block_on(aws::table(args, &config, archiver.as_ref(), options, hot_retention_ms))?
        }
    };
    tell(args, &rebuilt, &survey)?;
    Ok(ExitCode::SUCCESS)
}

fn tell(args: &RebuildArgs, rebuilt: &Rebuilt, survey: &Survey) -> anyhow::Result<()> {
    let Rebuilt { tenants, batches, sessions, hot_segments, let_go } = *rebuilt;
    let events = survey.report.events;
    if args.json {
        let text = json!({
            "tenants": tenants, "batches": batches, "sessions": sessions, "events": events,
            "hot_segments": hot_segments, "let_go": let_go,
        });
        return print(&text.to_string());
    }
    if let_go > 0 {
        eprintln!(
            "{} of an earlier time, of sessions of which later ones are missing, were let go: the archive has them.",
            count(let_go, "hot segment")
        );
    }
    eprintln!(
        "What was not in the archive is not back: events that were not archived (their sequence numbers are given again: \
         check against the receipts that clients hold), tokens, and keys of idempotency."
    );
    print(&format!(
        "rebuilt: {}, {}, {}, {}; {} of them still hot. The ledger is open.",
        count(tenants, "tenant"),
        match batches {
            1 => "1 batch".to_owned(),
            n => format!("{n} batches"),
        },
        count(sessions, "session"),
        count(events, "event"),
        count(hot_segments, "segment"),
    ))
}

/// What the archive says of its keys; believed by nobody yet.
async fn identity_file(objects: &dyn ObjectStore) -> anyhow::Result<IdentityFile> {
    let found = match objects.get(paths::IDENTITY).await {
        Err(ObjectError::NotFound { .. }) => {
            let message =
                format!("{} holds no archive: {} is not there", objects.describe(), paths::IDENTITY);
            let hint = "a store is made again from its archive alone: bring that back first";
            return Err(hinted(message, hint).into());
        }
        found => found.with_context(|| format!("cannot read {}", objects.describe()))?,
    };
    IdentityFile::parse(&found.bytes).with_context(|| format!("{}: {}", objects.describe(), paths::IDENTITY))
}

async fn directory(
    path: &Path,
    mut options: Options,
    hot_retention_ms: Option<i64>,
) -> anyhow::Result<(Rebuilt, Survey)> {
    let archive = DataDir::archive_in(path);
    if !archive.is_dir() {
        let hint = "put the archive there; it is what the store is made again from";
        return Err(hinted(format!("{} is not there", archive.display()), hint).into());
    }
    let file = identity_file(&Directory::open_to_read(&archive)?).await?;
    let opened = DataDir::open_to_rebuild(path, &file.deployment, now());
    let (dir, made) = opened.map_err(|error| keys_error(path, error))?;
    let objects = |path: PathBuf| -> anyhow::Result<Arc<dyn ObjectStore>> {
        let opened = Directory::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Arc::new(opened))
    };
    let (objects, staging) = (objects(dir.archive_path())?, objects(dir.staging_path())?);
    let ledger = dir.ledger_path();
    let store = EmbeddedStore::open(&ledger, &EmbeddedOptions::default())
        .with_context(|| format!("cannot open {}", ledger.display()))?;
    let store: Arc<dyn Store> = Arc::new(store);
    let (own, _) = dir.public_keys().map_err(|error| keys_error(path, error))?;
    options.pinned_key.get_or_insert(own);
    // Whoever has lost private keys can still read; who has them finishes what was begun.
    let archiver = match (dir.identity(), dir.log_signer()) {
        (Ok(identity), Ok(key)) => {
            let ledger = Arc::new(Ledger::new(store.clone(), Arc::new(SystemClock), identity));
            let signer = Arc::new(LocalSigner::new(key));
            Some(Archiver::new(ledger, objects.clone(), staging, signer, Default::default()))
        }
        (Err(error), _) | (_, Err(error)) => {
            eprintln!(
                "warning: {error}\nWithout its private keys the store can be made again, and the archive be read and \
                 verified; a server takes and archives events once both keys are back in {}.",
                path.join("keys").display()
            );
            None
        }
    };
    let rebuild = RebuildOptions { hot_retention_ms, without_gaps: true, now: now() };
    let work = Work { store: store.as_ref(), objects: &objects, options: &options, rebuild };
    let was_closed = close(work.store).await? || made;
    work.finish(was_closed, async { work.run(archiver.as_ref()).await }).await
}

/// Why the keys of a directory that is to be rebuilt cannot be had.
fn keys_error(path: &Path, error: DataDirError) -> anyhow::Error {
    let keys = path.join("keys");
    match error {
        error @ (DataDirError::Missing { .. } | DataDirError::Key { .. }) => {
            let hint = format!(
                "bring {} back from a backup. Without keys nothing can be appended or archived; the archive can still be \
                 verified (quipu verify '{}' --key log.pub) and read by any reader of Parquet",
                keys.display(),
                DataDir::archive_in(path).display(),
            );
            anyhow::Error::new(error).context(hinted("the ledger's keys are not whole", hint))
        }
        error => directory_error(path, error),
    }
}

/// Closes the ledger. True if it was closed already.
async fn close(store: &dyn Store) -> anyhow::Result<bool> {
    let was_closed = store.closed().await.context("cannot read the store")?.is_some();
    store.set_closed(Some(now())).await.context("cannot close the ledger")?;
    Ok(was_closed)
}

impl Work<'_> {
    /// 1. check the archive; 2. finish the batches that were begun, and check again; 3. compare and write.
    async fn run(&self, archiver: Option<&Archiver>) -> Result<(Rebuilt, Survey), Stop> {
        // 1
        let mut survey = self.survey().await?;
        // 2
        let begun = begun(&survey).map_err(RebuildError::from)?;
        for (tenant, batch) in &begun {
            let Some(archiver) = archiver else {
                return Err(Stop::Unfinished(tenant.clone(), *batch, None));
            };
            let completed = archiver.complete(tenant, *batch).await;
            completed.map_err(|error| Stop::Unfinished(tenant.clone(), *batch, Some(error.to_string())))?;
        }
        if !begun.is_empty() {
            survey = self.survey().await?;
        }
        // 3
        let rebuilt = rebuild(self.store, self.objects, &survey, self.rebuild).await?;
        Ok((rebuilt, survey))
    }

    async fn survey(&self) -> Result<Survey, Stop> {
        Survey::read(self.objects.as_ref(), self.options, &|_| ()).await.map_err(Stop::Archive)
    }

    /// Opens the ledger once all is written; also if nothing was, and it had been open.
    async fn finish(
        &self,
        was_closed: bool,
        work: impl Future<Output = Result<(Rebuilt, Survey), Stop>>,
    ) -> anyhow::Result<(Rebuilt, Survey)> {
        let done = work.await;
        let untouched = done.as_ref().is_err_and(Stop::is_untouched);
        if done.is_ok() || (untouched && !was_closed) {
            self.store.set_closed(None).await.context("cannot open the ledger; run this again")?;
        }
        done.map_err(|stop| stop.told(untouched && !was_closed))
    }
}

/// The batches that were begun and not finished.
fn begun(survey: &Survey) -> std::io::Result<Vec<(TenantId, u64)>> {
    let mut begun = Vec::new();
    for found in survey.found()? {
        if let (tenant, Found::End { batches, unfinished: true }) = found? {
            begun.push((tenant, batches + 1));
        }
    }
    Ok(begun)
}

/// Why a rebuild ended early.
enum Stop {
    /// The archive is not right, or could not be read.
    Archive(Box<Finding>),
    /// A batch was begun and cannot be finished.
    Unfinished(TenantId, u64, Option<String>),
    Rebuild(RebuildError),
    /// Before anything was looked at.
    Other(anyhow::Error),
}

impl From<RebuildError> for Stop {
    fn from(error: RebuildError) -> Self {
        Self::Rebuild(error)
    }
}

impl From<anyhow::Error> for Stop {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

impl Stop {
    /// True if nothing of the store was written.
    fn is_untouched(&self) -> bool {
        !matches!(self, Self::Rebuild(RebuildError::Store(_) | RebuildError::Spool(_) | RebuildError::Log(_)))
    }

    fn told(self, opened: bool) -> anyhow::Error {
        let state = match opened {
            true => "nothing was written, and the ledger is open as it was",
            false => "the ledger stays closed until a rebuild is done",
        };
        match self {
            Self::Archive(finding) => {
                let hint = format!("bring the archive back as it was, from a copy; {state}");
                hinted(format!("nothing is built on this archive: {finding}"), hint).into()
            }
            Self::Unfinished(tenant, batch, why) => {
                let why = why.unwrap_or_else(|| "there is no log key to sign it with".to_owned());
                let message =
                    format!("batch {batch} of the log of {tenant} was begun and cannot be finished: {why}");
                let hint = format!("bring back the log key, and what was staged for it; {state}");
                hinted(message, hint).into()
            }
            Self::Rebuild(error @ RebuildError::Differs { .. }) => {
                let hint = format!(
                    "store and archive are of two histories: find out which one is the ledger's, and take the other away; \
                     {state}"
                );
                hinted(format!("store and archive differ: {error}"), hint).into()
            }
            Self::Rebuild(error) => {
                anyhow!(error).context(hinted("the rebuild was cut off", format!("run it again; {state}")))
            }
            Self::Other(error) => error,
        }
    }
}

#[cfg(feature = "aws")]
mod aws {
    use quipu_core::aws::KmsIdentity;
    use quipu_core::config::{ArchiverConfig, AwsConfig};
    use quipu_core::limits;
    use quipu_core::log::keys::KeyChain;
    use quipu_core::store::dynamo::{DynamoStore, check_table};

    use super::*;
    use crate::serve::{connect, why};

    /// A table. The identity, if it is lost, is made again before anything else is written.
    pub(super) async fn table(
        args: &RebuildArgs,
        config: &AwsConfig,
        archiver: Option<&ArchiverConfig>,
        mut options: Options,
        hot_retention_ms: Option<i64>,
    ) -> anyhow::Result<(Rebuilt, Survey)> {
        let connection = connect().await?;
        let store = DynamoStore::new(&connection, &config.table);
        check_table(&store).await.map_err(why).with_context(|| format!("cannot use {}", config.table))?;
        let Some(objects) = config.objects(&connection) else {
            let hint = "set QUIPU_ARCHIVE_BUCKET, or give --archive-bucket";
            return Err(hinted("no archive is named", hint).into());
        };
        let file = identity_file(objects.as_ref()).await?;
        let identity = KmsIdentity::new(&connection, store.clone(), &config.seal_key);
        let known = identity.public().await.map_err(why)?;
        match &known {
            Some(known) => {
                let notes = known.rotations.iter().map(String::as_str);
                let chain = KeyChain::new(&known.deployment, known.log_key.clone(), notes);
                let chain = chain.context("the keys in the table")?;
                if !chain.contains(&file.log_key) {
                    let message = format!(
                        "the table is of the deployment {}, the archive of {}",
                        known.deployment, file.deployment
                    );
                    let hint = "a table that was made anew must be empty, and without a first token, for its ledger to \
                                be rebuilt in it";
                    return Err(hinted(message, hint).into());
                }
                // The archive may not have been told of the newest key yet.
                options.pinned_key.get_or_insert(file.log_key.clone());
            }
            None if options.pinned_key.is_none() => {
                let hint = "give the log key that was kept outside: --key log.pub";
                return Err(hinted("the table has no keys, and the archive's own prove nothing", hint).into());
            }
            None => {}
        }
        // A table expires in no order, and may have gaps.
        let rebuild = RebuildOptions { hot_retention_ms, without_gaps: false, now: now() };
        let work = Work { store: &store, objects: &objects, options: &options, rebuild };
        let was_closed = close(work.store).await?;
        // Without its keys a table takes no events; with them, and before its pointers are back, it must not.
        let stays_closed = was_closed || known.is_none();
        if !args.idle && !was_closed {
            let wait = std::time::Duration::from_millis(limits::CLOSING_MS.unsigned_abs());
            eprintln!("The ledger is closed. Waiting {} s until every function has noticed.", wait.as_secs());
            tokio::time::sleep(wait).await;
        }
        let run = async {
            if known.is_none() {
                // Checked before its keys are taken over.
                work.survey().await?;
                let log_key = config.log_key.as_deref().ok_or_else(|| {
                    anyhow!(hinted(
                        "the table has no keys",
                        "name the log key in KMS: QUIPU_LOG_KEY, or --log-key"
                    ))
                })?;
                let restored = identity.restore(file, log_key, Arc::new(SystemClock)).await;
                restored.map_err(|e| why(e).context("the deployment's keys could not be restored"))?;
            }
            let archiver = match archiver {
                Some(archiver) => {
                    Some(archiver.archiver(config, &connection, Default::default()).map_err(|e| anyhow!(e))?)
                }
                None => None,
            };
            work.run(archiver.as_ref()).await
        };
        work.finish(stays_closed, run).await
    }
}
