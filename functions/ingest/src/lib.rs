//! Takes batches of events: `POST /v1/events` and, in the AgentLens dialect, `POST /api/events`.

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use quipu_core::auth::{Principal, Scope};
use quipu_core::dialect::intake::{self, Names};
use quipu_core::dialect::render::{push_joined, push_string, quote};
use quipu_core::dialect::{agentlens, native};
use quipu_core::error::ErrorCode;
use quipu_core::http::{Access, ApiError, Routes, SharedApp, json_response, read_body};
use quipu_core::ledger::{Appended, IdempotencyKey};
use quipu_core::limits;
use quipu_core::statement::Says;

/// The routes of this function.
pub fn routes(app: SharedApp) -> Routes {
    let write = Access::Scope(Scope::EventsWrite);
    Routes::new(app).add(Method::POST, "/v1/events", write, append_native).add(
        Method::POST,
        "/api/events",
        write,
        append_agentlens,
    )
}

/// `POST /v1/events`: a batch of 1 to 1000 events, JSON or NDJSON, perhaps gzipped.
///
/// 1. 413, 415, 400: the body, within its limits
/// 2. 400, 413: the events in it
/// 3. 422, 503: chained and durable
/// 4. 201
async fn append_native(
    State(app): State<SharedApp>,
    Extension(principal): Extension<Principal>,
    request: Request,
) -> Result<Response, ApiError> {
    let done = append(&app, &principal, request, &native::NAMES, "/v1/events").await?;
    let receipts = receipts(&app, &done).await?;
    let sessions: Vec<String> = done.standings.iter().map(|s| quote(s.session_id.as_str())).collect();
    let mut out = String::with_capacity(200 * done.events.len() + receipts.len());
    out.push_str(&format!(r#"{{"ingested":{},"events":["#, done.events.len()));
    push_joined(&mut out, &done.events, |out, (session, placed)| {
        out.push_str(r#"{"event_id":""#);
        out.push_str(placed.event_id.encode(&mut [0; 36]));
        out.push_str(r#"","session_id":"#);
        out.push_str(&sessions[*session]);
        out.push_str(&format!(r#","sequence":{},"hash":"{}"}}"#, placed.sequence, placed.hash));
    });
    out.push_str(r#"],"receipts":"#);
    out.push_str(&receipts);
    out.push('}');
    Ok(created(&done, out))
}

/// `POST /api/events`: the same, as the AgentLens page has it.
async fn append_agentlens(
    State(app): State<SharedApp>,
    Extension(principal): Extension<Principal>,
    request: Request,
) -> Result<Response, ApiError> {
    let done = append(&app, &principal, request, &agentlens::NAMES, "/api/events").await?;
    let mut out = String::with_capacity(130 * done.events.len() + 400);
    out.push_str(&format!(r#"{{"ingested":{},"events":["#, done.events.len()));
    push_joined(&mut out, &done.events, |out, (_, placed)| {
        out.push_str(r#"{"id":""#);
        out.push_str(placed.event_id.encode(&mut [0; 36]));
        out.push_str(&format!(r#"","hash":"{}"}}"#, placed.hash));
    });
    // Receipts are ours: a client of that product passes over what it does not know.
    out.push_str(r#"],"receipts":"#);
    out.push_str(&receipts(&app, &done).await?);
    out.push('}');
    Ok(created(&done, out))
}

async fn append(
    app: &SharedApp,
    principal: &Principal,
    request: Request,
    names: &Names,
    route: &str,
) -> Result<Appended, ApiError> {
    let (parts, body): (_, Body) = request.into_parts();
    let key = idempotency_key(&parts.headers)?;
    // 1
    let payload = read_body(&parts.headers, body).await?;
    let caller = principal.token_id.as_deref().unwrap_or_default();
    let key = key.map(|key| IdempotencyKey::new(caller, route, key, &payload.received));
    // 2
    let events = if payload.is_lines {
        intake::read_lines(&payload.text, names)?
    } else {
        intake::read_batch(&payload.text, names)?
    };
    // 3. The receipts' key is fetched, where it has to be, before anything is written.
    app.ledger.identity().await?;
    Ok(app.ledger.append(&principal.tenant, events, key.as_ref()).await?)
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    let limit = limits::IDEMPOTENCY_KEY_BYTES_MAX;
    if values.next().is_some() || text.is_empty() || text.len() > limit {
        let why = format!("Idempotency-Key must be one value of 1 to {limit} visible ASCII characters");
        return Err(ApiError::because(ErrorCode::InvalidParameter, why));
    }
    Ok(Some(text))
}

async fn receipts(app: &SharedApp, done: &Appended) -> Result<String, ApiError> {
    let key = &app.ledger.identity().await?.receipt_key;
    let mut out = String::from("[");
    push_joined(&mut out, &done.standings, |out, standing| {
        out.push_str(r#"{"session_id":"#);
        push_string(out, standing.session_id.as_str());
        out.push_str(&format!(
            r#","sequence":{},"hash":"{}","time":"{}","note":"#,
            standing.sequence, standing.hash, standing.time
        ));
        push_string(out, &standing.sign(Says::Receipt, key));
        out.push('}');
    });
    out.push(']');
    Ok(out)
}

/// 4. A replay says so: `Idempotent-Replayed`, as others who keep the draft do.
fn created(done: &Appended, body: String) -> Response {
    let mut response = json_response(StatusCode::CREATED, body);
    if done.replayed {
        response.headers_mut().insert("idempotent-replayed", axum::http::HeaderValue::from_static("true"));
    }
    response
}
