//! Evidence bundles: of one session, and which sessions a range of time is about.

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use quipu_core::auth::Principal;
use quipu_core::dialect::render::{self, quote};
use quipu_core::http::{ApiError, Params, SharedApp, json_response};
use quipu_core::ids::SessionId;
use quipu_core::ledger::ReadError;
use quipu_core::limits;
use quipu_core::log::LogReader;
use quipu_core::store::StoreError;
use quipu_core::time::Micros;

use crate::native::{id, not_found};

/// `GET /v1/sessions/{id}/export`: an evidence bundle (docs/format.md, section 5). `log_size` asks for the checkpoint of
/// that many leaves instead of the newest, none for 0: so bundles of several sessions can be joined while the log grows.
pub(crate) async fn session(
    State(app): State<SharedApp>,
    Extension(principal): Extension<Principal>,
    Path(session): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let mut params = Params::read(request.uri())?;
    let log_size = params.number::<u64>("log_size")?;
    params.end()?;
    let session = id("Session", SessionId::parse(session))?;
    let export = match app.ledger.export(&principal.tenant, &[session]).await {
        Err(ReadError::Store(StoreError::NotFound)) => return Err(not_found("Session")),
        other => other?,
    };
    let export = match (&app.objects, log_size) {
        (None, None | Some(0)) | (Some(_), Some(0)) => export,
        (Some(objects), None) => export.with_log(LogReader::new(objects.clone(), principal.tenant.clone())),
        (objects, Some(size)) => {
            let batch = app.ledger.batch_of_size(&principal.tenant, size).await?;
            let (Some(objects), Some(batch)) = (objects, batch) else {
                return Err(ApiError::parameter("log_size", "the log never had a checkpoint of this size"));
            };
            export.with_log(LogReader::new(objects.clone(), principal.tenant.clone())).at_batch(batch)
        }
    };
    // Once the first piece is out, a failure can only cut the bundle off, and a bundle without its end is INVALID.
    let pieces = futures_util::stream::try_unfold(export, |mut export| async move {
        Ok::<_, ReadError>(export.next_chunk().await?.map(|piece| (piece, export)))
    });
    let body = Body::from_stream(pieces);
    Ok(([(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"))], body).into_response())
}

/// `GET /v1/export`: the sessions that an export of `?from&to` is about, by id, in pages; how many they are is in each.
pub(crate) async fn plan(
    State(app): State<SharedApp>,
    Extension(principal): Extension<Principal>,
    request: Request,
) -> Result<Response, ApiError> {
    let mut params = Params::read(request.uri())?;
    let from = params.time("from", false)?.unwrap_or(Micros::MIN);
    let to = params.time("to", true)?.unwrap_or(Micros::MAX);
    let after = params.parsed("cursor", SessionId::parse)?;
    let limit = params.limit(limits::PLAN_SESSIONS_MAX, limits::PLAN_SESSIONS_MAX)?;
    params.end()?;
    let sessions = app.ledger.sessions_between(&principal.tenant, from, to).await?;
    let start = after.map_or(0, |after| sessions.partition_point(|session| *session <= after));
    let rest = &sessions[start..];
    let page = &rest[..limit.min(rest.len())];
    let mut out = String::from(r#"{"sessions":["#);
    render::push_joined(&mut out, page, |out, session| out.push_str(&quote(session.as_str())));
    let next = page.last().filter(|_| page.len() < rest.len());
    let next = next.map_or("null".to_owned(), |last| quote(last.as_str()));
    out.push_str(&format!(r#"],"total":{},"next_cursor":{next}}}"#, sessions.len()));
    Ok(json_response(StatusCode::OK, out))
}
