//! A data directory opened in this process: by the server, and by commands on a directory that no server runs on.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use quipu_core::auth::{AuthMode, Gate};
use quipu_core::clock::SystemClock;
use quipu_core::http::{App, Routes, SharedApp, finish};
use quipu_core::ids::TenantId;
use quipu_core::ledger::Ledger;
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

/// Opens the ledger of a directory. The directory must outlive it.
pub(crate) async fn open_app(dir: &DataDir, admission: Admission<'_>) -> anyhow::Result<SharedApp> {
    let path = dir.ledger_path();
    let store = EmbeddedStore::open(&path, &EmbeddedOptions::default())
        .with_context(|| format!("cannot open {}", path.display()))?;
    let identity = dir.identity().map_err(|error| directory_error(dir.path(), error))?;
    app(Ledger::new(Arc::new(store), Arc::new(SystemClock), identity), admission).await
}

/// A ledger behind its gate, with the tenant that every ledger has.
pub(crate) async fn app(ledger: Ledger, admission: Admission<'_>) -> anyhow::Result<SharedApp> {
    let mut gate = Gate::new(ledger.store().clone(), ledger.clock().clone(), admission.mode);
    if let Some(credential) = admission.operator {
        gate = gate.with_operator(credential);
    }
    // Looked for first: it is there but once, and looking writes nothing.
    let default = ledger.store().tenant(&TenantId::default_tenant()).await;
    if default.context("cannot read the tenants")?.is_none() {
        ledger.ensure_default_tenant().await.context("cannot make the tenant default")?;
    }
    Ok(Arc::new(App { ledger: Arc::new(ledger), gate, bootstrap_secret: admission.bootstrap_secret }))
}

/// Every route of the ledger.
pub(crate) fn router(app: &SharedApp) -> Router {
    let routes = Routes::new(app.clone())
        .merge(quipu_ingest::routes(app.clone()))
        .merge(quipu_query::routes(app.clone()))
        .merge(quipu_tokens::routes(app.clone()));
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
