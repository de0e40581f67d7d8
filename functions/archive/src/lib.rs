//! The archiver: by schedule, by message, and at once.
//!
//! On AWS a schedule wakes it; it sends itself one message for each tenant that has something to archive, and each
//! message is a run of its own, retried and in the end put aside by the queue ([`work`]). In the one-process server the
//! same runs are asked for by the clock and by `POST /v1/archive` ([`routes`]).

pub mod metrics;
#[cfg(feature = "lambda")]
pub mod queue;
#[cfg(feature = "lambda")]
mod setup;
mod work;

pub use work::{Dispatch, Event, Outcome, TenantRun, Worker};

use std::sync::Arc;

use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::response::Response;
use quipu_core::archive::{Archiver, Close};
use quipu_core::auth::Scope;
use quipu_core::error::ErrorCode;
use quipu_core::http::{Access, ApiError, Params, Routes, SharedApp, json_response};
use quipu_core::ids::TenantId;
use serde_json::json;

/// How long one request may go on closing batches, ms: 10 min.
const REQUEST_MS: i64 = 10 * 60 * 1000;

/// The routes of this function: for whoever administers the whole ledger.
pub fn routes(app: SharedApp, archiver: Arc<Archiver>) -> Routes {
    let now = move |State(app): State<SharedApp>, uri: Uri| {
        let archiver = archiver.clone();
        async move { archive_now(&app, &archiver, &uri).await }
    };
    Routes::new(app).add(Method::POST, "/v1/archive", Access::Scope(Scope::TenantsAdmin), now)
}

/// `POST /v1/archive`: closes the open batch of every tenant, or of `tenant`.
///
/// 1. 400: parameters; 404: no such tenant
/// 2. 503: a tenant's run failed; the others' are done all the same
/// 3. 200: what was archived
async fn archive_now(app: &SharedApp, archiver: &Archiver, uri: &Uri) -> Result<Response, ApiError> {
    // 1
    let mut params = Params::read(uri)?;
    let store = app.ledger.store();
    let tenants = match params.parsed("tenant", TenantId::parse)? {
        Some(tenant) => {
            if store.tenant(&tenant).await?.is_none() {
                return Err(ApiError::because(ErrorCode::NotFound, "no such tenant"));
            }
            vec![tenant]
        }
        None => store.tenants().await?.into_iter().map(|record| record.tenant).collect(),
    };
    let until = app.ledger.clock().now().plus_ms(REQUEST_MS);
    let mut done = Vec::with_capacity(tenants.len());
    let mut failed = Vec::new();
    for tenant in tenants {
        match archiver.run(&tenant, Close::Now, until).await {
            Ok(report) => done.push(TenantRun { tenant, report }),
            Err(error) => {
                tracing::error!(%tenant, %error, "archiving failed");
                failed.push(tenant.to_string());
            }
        }
    }
    // 2
    if !failed.is_empty() {
        let why = format!("could not archive {}; the server's log says why", failed.join(", "));
        return Err(ApiError::because(ErrorCode::Unavailable, why));
    }
    // 3
    let tenants: Vec<_> = done.iter().map(TenantRun::to_json).collect();
    Ok(json_response(StatusCode::OK, json!({ "tenants": tenants }).to_string()))
}
