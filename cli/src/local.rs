//! A data directory opened in this process: by the server, and by commands on a directory that no server runs on.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use quipu_core::archive::{ArchiveSettings, Archiver};
use quipu_core::auth::{AuthMode, Gate};
use quipu_core::clock::SystemClock;
use quipu_core::http::{App, Routes, SharedApp, finish};
use quipu_core::ids::TenantId;
use quipu_core::ledger::Ledger;
use quipu_core::log::LocalSigner;
use quipu_core::objects::{Directory, ObjectStore};
use quipu_core::store::Store as _;
use quipu_core::store::embedded::{DataDir, DataDirError, EmbeddedOptions, EmbeddedStore};
use serde::{Deserialize, Serialize};

use crate::failure::hinted;

/// Where a running server leaves word for commands on the same directory.
pub(crate) const SERVER_FILE: &str = "server.json";

/// What a running server leaves in [`SERVER_FILE`] for commands on the same directory.
#[derive(Serialize, Deserialize)]
pub(crate) struct ServerInfo {
    /// Its process.
    pub(crate) pid: u32,
    /// Where it listens.
    pub(crate) url: String,
    /// Lets its reader in as the operator. Never printed.
    pub(crate) credential: String,
}

impl ServerInfo {
    /// Reads it; `None` if it is not one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

/// Who may ask what.
pub(crate) struct Admission<'a> {
    /// Whether requests without a credential pass.
    pub(crate) mode: AuthMode,
    /// A credential that passes as the operator.
    pub(crate) operator: Option<&'a str>,
    /// Who presents it makes the first token.
    pub(crate) bootstrap_secret: Option<String>,
}

/// An open ledger: what the routes are given, and what moves it into its archive, if that is done here.
pub(crate) struct Open {
    pub(crate) app: SharedApp,
    pub(crate) archiver: Option<Arc<Archiver>>,
}

/// Opens the ledger of a directory, and its archive. The directory must outlive it.
pub(crate) async fn open(
    dir: &DataDir,
    admission: Admission<'_>,
    settings: ArchiveSettings,
) -> anyhow::Result<Open> {
    let path = dir.ledger_path();
    let store = EmbeddedStore::open(&path, &EmbeddedOptions::default())
        .with_context(|| format!("cannot open {}", path.display()))?;
    if let Some(since) = store.closed().await.context("cannot read the ledger")? {
        let message =
            format!("{} is a closed ledger since {since}: a rebuild was not finished", dir.path().display());
        let hint = format!("run quipu rebuild --data '{}' to its end", dir.path().display());
        return Err(hinted(message, hint).into());
    }
    let identity = dir.identity().map_err(|error| directory_error(dir.path(), error))?;
    let objects = |path: PathBuf| -> anyhow::Result<Arc<dyn ObjectStore>> {
        let opened = Directory::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Arc::new(opened))
    };
    let (archive, staging) = (objects(dir.archive_path())?, objects(dir.staging_path())?);
    let log_key = dir.log_signer().map_err(|error| directory_error(dir.path(), error))?;
    let ledger = Ledger::new(Arc::new(store), Arc::new(SystemClock), identity);
    let app = app(ledger, Some(archive.clone()), admission).await?;
    let signer = Arc::new(LocalSigner::new(log_key));
    let archiver = Archiver::new(app.ledger.clone(), archive, staging, signer, settings);
    Ok(Open { app, archiver: Some(Arc::new(archiver)) })
}

/// A ledger behind its gate, with the tenant that every ledger has.
pub(crate) async fn app(
    ledger: Ledger,
    objects: Option<Arc<dyn ObjectStore>>,
    admission: Admission<'_>,
) -> anyhow::Result<SharedApp> {
    let mut gate = Gate::new(ledger.store().clone(), ledger.clock().clone(), admission.mode);
    if let Some(credential) = admission.operator {
        gate = gate.with_operator(credential);
    }
    // Looked for first: it is there but once, and looking writes nothing.
    let default = ledger.store().tenant(&TenantId::default_tenant()).await;
    if default.context("cannot read the tenants")?.is_none() {
        ledger.ensure_default_tenant().await.context("cannot make the tenant default")?;
    }
    let bootstrap_secret = admission.bootstrap_secret;
    Ok(Arc::new(App { ledger: Arc::new(ledger), gate, bootstrap_secret, objects }))
}

/// Every route of the ledger.
pub(crate) fn router(open: &Open) -> Router {
    let app = &open.app;
    let mut routes = Routes::new(app.clone())
        .merge(quipu_erase::routes(app.clone()))
        .merge(quipu_ingest::routes(app.clone()))
        .merge(quipu_query::routes(app.clone()))
        .merge(quipu_tokens::routes(app.clone()));
    if let Some(archiver) = &open.archiver {
        routes = routes.merge(quipu_archive::routes(app.clone(), archiver.clone()));
    }
    let (router, _) = routes.into_parts();
    finish(router)
}

/// Why a directory cannot be used, and how to mend it. Never shows what `server.json` holds: there is a credential
/// in it.
pub(crate) fn directory_error(path: &Path, error: DataDirError) -> anyhow::Error {
    let shown = path.display();
    match error {
        DataDirError::InUse { server, .. } => {
            let who = match server.as_deref().and_then(ServerInfo::parse) {
                Some(info) => format!("process {}, {}", info.pid, info.url),
                None => "another quipu process".to_owned(),
            };
            let hint = "stop that process, or give another directory with --data";
            hinted(format!("the data directory {shown} is in use by {who}"), hint).into()
        }
        error @ DataDirError::Foreign { .. } => {
            let hint = "give an empty or a new directory with --data; nothing in this one was touched";
            anyhow::Error::new(hinted(error.to_string(), hint))
        }
        error @ DataDirError::Absent { .. } => {
            let hint = "start a server with `quipu serve`, or give another directory with --data";
            anyhow::Error::new(hinted(error.to_string(), hint))
        }
        DataDirError::Missing { path: part } if part == DataDir::ledger_in(path) => {
            let hint = format!(
                "restore it from a backup, or make it again from the archive: quipu rebuild --data '{shown}'"
            );
            hinted(format!("{} is missing; a ledger does not start again empty", part.display()), hint).into()
        }
        error => anyhow::Error::new(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Hinted;

    #[test]
    fn a_directory_in_use_is_named_without_its_credential() {
        let server = Some(r#"{"pid":7,"url":"http://127.0.0.1:1","credential":"sesame"}"#.to_owned());
        let error = directory_error(Path::new("d"), DataDirError::InUse { path: "d".into(), server });
        let text = format!("{error:#} {:?}", error.downcast_ref::<Hinted>());
        assert!(text.contains("process 7") && text.contains("http://127.0.0.1:1"), "{text}");
        assert!(!text.contains("sesame"), "{text}");
    }
}
