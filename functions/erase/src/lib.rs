//! Erases the content of events: `DELETE /v1/events/{id}/content`, and how far it has come.
//!
//! A function of its own on AWS, because nothing else that a client can reach may change what is stored.

use axum::Extension;
use axum::extract::{Path, Request, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use quipu_core::auth::{Principal, Scope};
use quipu_core::dialect::intake::IntakeError;
use quipu_core::erasure::{self, EraseError};
use quipu_core::error::ErrorCode;
use quipu_core::http::{Access, ApiError, Params, Routes, SharedApp, json_response, read_body};
use quipu_core::ids::{EventId, hex};
use quipu_core::json::{Problem, Reader};
use quipu_core::limits;
use quipu_core::store::ErasureRecord;
use serde_json::{Value, json};

/// The routes of this function.
pub fn routes(app: SharedApp) -> Routes {
    let erase = Access::Scope(Scope::EventsErase);
    Routes::new(app)
        .add(Method::DELETE, "/v1/events/{id}/content", erase, erase_content)
        .add(Method::GET, "/v1/erasures", erase, list_erasures)
        .add(Method::GET, "/v1/erasures/{id}", erase, get_erasure)
}

fn not_found(what: &str) -> ApiError {
    ApiError::because(ErrorCode::NotFound, format!("{what} not found"))
}

/// `DELETE /v1/events/{id}/content`, perhaps with `{"reason":"..."}`. The same event again gives the same erasure.
///
/// 1. 400, 413: the body
/// 2. 404: no such event; 403: one of the ledger's own
/// 3. 503: nothing is begun
/// 4. 202: something is left; 200: nothing is but backups
async fn erase_content(
    State(app): State<SharedApp>,
    Extension(principal): Extension<Principal>,
    Path(event): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let event = EventId::parse(&event).map_err(|_| not_found("Event"))?;
    let (parts, body) = request.into_parts();
    let reason = reason(&read_body(&parts.headers, body).await?.text)?;
    let request = erasure::Request { token_id: principal.token_id.clone(), reason };
    let record = app.ledger.erase(&principal.tenant, event, &request).await.map_err(refused)?;
    Ok(shown(&app, &record))
}

/// What a body asks for; none at all is no reason.
fn reason(text: &str) -> Result<Option<String>, ApiError> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    let mut reader = Reader::new(text);
    let mut reason = None;
    let walked = reader.object(|reader, member| {
        if member != "reason" {
            return Err(reader.refuse("unknown field"));
        }
        if !reader.null()? {
            reason = Some(reader.string()?.into_owned());
        }
        Ok(())
    });
    match walked.and_then(|()| reader.end()) {
        Ok(()) => Ok(reason),
        Err(error) if matches!(error.problem, Problem::Refused(_) | Problem::Type { .. }) => {
            Err(ApiError::invalid(error.path.clone(), error.problem.to_string()))
        }
        Err(error) => Err(IntakeError::Json(error).into()),
    }
}

fn refused(error: EraseError) -> ApiError {
    match error {
        EraseError::NotFound => not_found("Event"),
        EraseError::Reserved => ApiError::because(ErrorCode::Forbidden, error.to_string()),
        EraseError::TooLarge(over) => over.into(),
        EraseError::Read(error) => error.into(),
        EraseError::Append(error) => error.into(),
        EraseError::Store(error) => error.into(),
    }
}

/// `GET /v1/erasures/{id}`, by the event's id.
async fn get_erasure(
    State(app): State<SharedApp>,
    Extension(principal): Extension<Principal>,
    Path(event): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    Params::read(request.uri())?.end()?;
    let event = EventId::parse(&event).map_err(|_| not_found("Erasure"))?;
    let record = app.ledger.erasure(&principal.tenant, event).await?;
    let record = record.ok_or_else(|| not_found("Erasure"))?;
    Ok(json_response(StatusCode::OK, view(&app, &record).to_string()))
}

/// `GET /v1/erasures?state=pending|done&limit=&after=`: by event id; those that are pending, unless it says otherwise.
async fn list_erasures(
    State(app): State<SharedApp>,
    Extension(principal): Extension<Principal>,
    request: Request,
) -> Result<Response, ApiError> {
    let mut params = Params::read(request.uri())?;
    let done = match params.text("state")?.as_deref() {
        None | Some("pending") => false,
        Some("done") => true,
        Some(_) => return Err(ApiError::parameter("state", "must be pending or done")),
    };
    let after = params.parsed("after", |text| EventId::parse(&text))?;
    let limit = params.limit(limits::PAGE_EVENTS_DEFAULT, limits::PAGE_EVENTS_MAX)?;
    params.end()?;
    let records = app.ledger.erasures(&principal.tenant, done, after, limit).await?;
    let views: Vec<Value> = records.iter().map(|record| view(&app, record)).collect();
    let next = records.last().filter(|_| records.len() == limit).map(|record| record.event_id.to_string());
    Ok(json_response(StatusCode::OK, json!({ "erasures": views, "next_after": next }).to_string()))
}

fn shown(app: &SharedApp, record: &ErasureRecord) -> Response {
    let status = if record.is_done() { StatusCode::OK } else { StatusCode::ACCEPTED };
    json_response(status, view(app, record).to_string())
}

fn view(app: &SharedApp, record: &ErasureRecord) -> Value {
    let progress = &record.progress;
    let keeps_backups = app.ledger.store().keeps_backups();
    let left: Vec<Value> = erasure::left(record, app.ledger.clock().now(), keeps_backups)
        .iter()
        .map(|left| json!({ "where": left.place, "until": left.until, "note": left.note }))
        .collect();
    json!({
        "id": record.event_id,
        "event_id": record.event_id,
        "session_id": record.session_id,
        "sequence": record.sequence,
        "hash": record.hash,
        "content_digest": hex(&record.content_digest),
        "state": if record.is_done() { "done" } else { "pending" },
        "tombstone_event_id": progress.tombstone,
        "token_id": record.token_id,
        "reason": record.reason,
        "asked_at": record.asked_at,
        "steps": {
            "tombstone": progress.tombstone.is_some(),
            "hot_at": progress.hot_at,
            "batch": progress.batch,
            "archive_at": progress.object_at,
            "done_at": progress.done_at,
        },
        "left": left,
    })
}
