//! The native API's reads.

use axum::Extension;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use quipu_core::auth::Principal;
use quipu_core::dialect::render::{self, Include, quote};
use quipu_core::error::ErrorCode;
use quipu_core::http::{ApiError, Params, SharedApp, json_response};
use quipu_core::ids::{AgentId, EventId, IdError, Seq, SessionId};
use quipu_core::ledger::{EventFilter, EventPosition, ListQuery, ReadStats, SessionQuery, SessionVerdict};
use quipu_core::limits;
use quipu_core::log::checkpoint::origin;
use quipu_core::note::NoteError;
use quipu_core::store::Order;
use quipu_core::time::Micros;
use serde_json::json;

use crate::explain;

pub(crate) fn not_found(what: &str) -> ApiError {
    ApiError::because(ErrorCode::NotFound, format!("{what} not found"))
}

/// An id out of a path. One that could not be ours is simply not there.
pub(crate) fn id<T>(what: &str, parsed: Result<T, IdError>) -> Result<T, ApiError> {
    parsed.map_err(|_| not_found(what))
}

fn include(params: &mut Params) -> Result<Include, ApiError> {
    match params.text("include")?.as_deref() {
        None => Ok(Include::default()),
        Some("proof") => Ok(Include { proof: true }),
        Some(_) => Err(ApiError::parameter("include", "must be proof")),
    }
}

fn order(params: &mut Params, default: Order) -> Result<Order, ApiError> {
    match params.text("order")?.as_deref() {
        None => Ok(default),
        Some("asc") => Ok(Order::Asc),
        Some("desc") => Ok(Order::Desc),
        Some(_) => Err(ApiError::parameter("order", "must be asc or desc")),
    }
}

fn session_param(params: &mut Params) -> Result<Option<SessionId>, ApiError> {
    let session = params.parsed("session_id", SessionId::parse)?;
    let run = params.parsed("run_id", SessionId::parse)?;
    if session.is_some() && run.is_some() {
        return Err(ApiError::parameter("run_id", "is session_id under another name: give one of them"));
    }
    Ok(session.or(run))
}

/// `GET /v1/events`: newest first by timestamp, in pages.
pub(crate) async fn list_events(
    State(app): State<SharedApp>,
    Extension(principal): Extension<Principal>,
    request: Request,
) -> Result<Response, ApiError> {
    let mut params = Params::read(request.uri())?;
    let include = include(&mut params)?;
    let filter = EventFilter {
        session: session_param(&mut params)?,
        agents: params.list("agent_id")?,
        event_types: params.list("event_type")?,
        severities: params.severities("severity")?,
        from: params.time("from", false)?,
        to: params.time("to", true)?,
        search: params.search()?,
    };
    let order = order(&mut params, Order::Desc)?;
    let cursor = params.text("cursor")?;
    let limit = params.limit(limits::PAGE_EVENTS_DEFAULT, limits::PAGE_EVENTS_MAX)?;
    let explain = explain::wanted(&mut params)?;
    params.end()?;
    let after = cursor.map(|text| EventPosition::decode(&text, order, &filter)).transpose()?;
    let query = ListQuery { filter, order, after, skip: 0, limit, count_total: false };
    let page = app.ledger.list(&principal.tenant, &query).await?;
    let mut out = String::from(r#"{"events":["#);
    render::push_joined(&mut out, &page.events, |out, event| render::push_event(out, event, include));
    let next = page.next.map_or("null".to_owned(), |next| quote(&next.encode(order, &query.filter)));
    out.push_str(&format!(r#"],"next_cursor":{next}"#));
    if page.partial {
        // The budget of bytes was spent before the page was full; the cursor goes on from here.
        let why = format!(
            "reading stopped at {} MiB: next_cursor goes on from here; a narrower range or a filter reads less, and SQL over \
             the archive (Athena, DuckDB) answers questions this wide",
            limits::QUERY_READ_BYTES_MAX >> 20
        );
        out.push_str(&format!(r#","partial":true,"partial_reason":{}"#, quote(&why)));
    }
    if explain {
        explain::push(&mut out, &page.stats);
    }
    out.push('}');
    Ok(json_response(StatusCode::OK, out))
}

/// `GET /v1/events/{id}`.
pub(crate) async fn get_event(
    State(app): State<SharedApp>,
    Extension(principal): Extension<Principal>,
    Path(event): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let mut params = Params::read(request.uri())?;
    let include = include(&mut params)?;
    let explain = explain::wanted(&mut params)?;
    params.end()?;
    let event = id("Event", EventId::parse(&event))?;
    let mut stats = ReadStats::default();
    let event = app.ledger.event_with_stats(&principal.tenant, event, &mut stats).await?;
    let event = event.ok_or_else(|| not_found("Event"))?;
    let mut out = String::new();
    render::push_event(&mut out, &event, include);
    if explain {
        let end = out.pop();
        explain::push(&mut out, &stats);
        out.extend(end);
    }
    Ok(json_response(StatusCode::OK, out))
}

/// `GET /v1/sessions`: newest first by their first event.
pub(crate) async fn list_sessions(
    State(app): State<SharedApp>,
    Extension(principal): Extension<Principal>,
    request: Request,
) -> Result<Response, ApiError> {
    let mut params = Params::read(request.uri())?;
    let query = SessionQuery {
        agent: params.parsed("agent_id", AgentId::parse)?,
        statuses: params.statuses("status")?,
        tags: params.list("tags")?,
        from: params.time("from", false)?,
        to: params.time("to", true)?,
        after: params.session_cursor("cursor")?,
        skip: 0,
        limit: params.limit(limits::PAGE_EVENTS_DEFAULT, limits::PAGE_EVENTS_MAX)?,
        count_total: false,
    };
    params.end()?;
    let page = app.ledger.sessions(&principal.tenant, &query).await?;
    let mut out = String::from(r#"{"sessions":["#);
    render::push_joined(&mut out, &page.sessions, render::push_session);
    let next = page.next.map_or("null".to_owned(), |next| quote(&Params::encode_session_cursor(&next)));
    out.push_str(&format!(r#"],"next_cursor":{next}"#));
    if page.partial {
        out.push_str(r#","partial":true"#);
    }
    out.push('}');
    Ok(json_response(StatusCode::OK, out))
}

/// `GET /v1/sessions/{id}`.
pub(crate) async fn get_session(
    State(app): State<SharedApp>,
    Extension(principal): Extension<Principal>,
    Path(session): Path<String>,
) -> Result<Response, ApiError> {
    let session = id("Session", SessionId::parse(session))?;
    let record =
        app.ledger.session(&principal.tenant, &session).await?.ok_or_else(|| not_found("Session"))?;
    let mut out = String::new();
    render::push_session(&mut out, &record);
    Ok(json_response(StatusCode::OK, out))
}

/// `GET /v1/sessions/{id}/events`: by sequence, from `?from=` on, in pages.
pub(crate) async fn session_events(
    State(app): State<SharedApp>,
    Extension(principal): Extension<Principal>,
    Path(session): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let mut params = Params::read(request.uri())?;
    let include = include(&mut params)?;
    let order = order(&mut params, Order::Asc)?;
    let default = if order == Order::Asc { Seq::ZERO } else { Seq::MAX };
    let from = match params.number::<u64>("from_sequence")? {
        None => default,
        Some(from) => {
            Seq::new(from).ok_or_else(|| ApiError::parameter("from_sequence", "must be below 2^63"))?
        }
    };
    let limit = params.limit(limits::PAGE_EVENTS_DEFAULT, limits::PAGE_EVENTS_MAX)?;
    let explain = explain::wanted(&mut params)?;
    params.end()?;
    let session = id("Session", SessionId::parse(session))?;
    let (tenant, mut stats) = (&principal.tenant, ReadStats::default());
    let page =
        app.ledger.session_events_with_stats(tenant, &session, (from, order), limit, &mut stats).await?;
    if page.events.is_empty() && app.ledger.session(&principal.tenant, &session).await?.is_none() {
        return Err(not_found("Session"));
    }
    let mut out = String::from(r#"{"events":["#);
    render::push_joined(&mut out, &page.events, |out, event| render::push_event(out, event, include));
    let next = page.next.map_or("null".to_owned(), |next| next.to_string());
    out.push_str(&format!(r#"],"next_sequence":{next}"#));
    if explain {
        explain::push(&mut out, &stats);
    }
    out.push('}');
    Ok(json_response(StatusCode::OK, out))
}

/// `GET /v1/sessions/{id}/verify`: the server's own word. Who does not believe it exports the session and verifies
/// offline.
pub(crate) async fn verify_session(
    State(app): State<SharedApp>,
    Extension(principal): Extension<Principal>,
    Path(session): Path<String>,
) -> Result<Response, ApiError> {
    let session = id("Session", SessionId::parse(session))?;
    let body = match app.ledger.verify_session(&principal.tenant, &session).await? {
        SessionVerdict::Empty => return Err(not_found("Session")),
        SessionVerdict::Verified { events, head, first_hash } => json!({
            "verdict": "VALID",
            "session_id": session,
            "events": events,
            "first_hash": first_hash,
            "last_sequence": head.sequence,
            "head_hash": head.hash,
            "note": "freshness not proved: hold the session against a receipt kept outside",
        }),
        SessionVerdict::Broken { sequence, event_id, reason, .. } => json!({
            "verdict": "INVALID",
            "session_id": session,
            "sequence": sequence,
            "event_id": event_id,
            "message": reason,
        }),
    };
    Ok(json_response(StatusCode::OK, body.to_string()))
}

/// `GET /v1/verify`: every session of the caller's tenant, or those active in `?from&to`. The server's own word, in
/// the shape of `quipu verify --json`.
pub(crate) async fn verify_all(
    State(app): State<SharedApp>,
    Extension(principal): Extension<Principal>,
    request: Request,
) -> Result<Response, ApiError> {
    let mut params = Params::read(request.uri())?;
    let from = params.time("from", false)?.unwrap_or(Micros::MIN);
    let to = params.time("to", true)?.unwrap_or(Micros::MAX);
    params.end()?;
    let sessions = app.ledger.sessions_between(&principal.tenant, from, to).await?;
    let (mut checked, mut events) = (0u64, 0);
    for session in &sessions {
        match app.ledger.verify_session(&principal.tenant, session).await? {
            SessionVerdict::Verified { events: more, .. } => events += more,
            broken => {
                let (sequence, message) = match broken {
                    SessionVerdict::Broken { sequence, reason, .. } => (Some(sequence), reason),
                    _ => (None, "the session has no events".to_owned()),
                };
                let body = json!({
                    "verdict": "INVALID", "code": "hash", "tenant": principal.tenant, "session_id": session,
                    "sequence": sequence, "message": message, "sessions": checked, "events": events,
                });
                return Ok(json_response(StatusCode::OK, body.to_string()));
            }
        }
        checked += 1;
    }
    // Silence is never valid (P5).
    let (verdict, code, message) = match checked {
        0 => ("INCOMPLETE", Some("empty"), "no sessions"),
        _ => ("VALID", None, "freshness not proved: hold the ledger against receipts kept outside"),
    };
    let body = json!({
        "verdict": verdict, "code": code, "tenant": principal.tenant, "session_id": null, "sequence": null,
        "message": message, "sessions": checked, "events": events,
    });
    Ok(json_response(StatusCode::OK, body.to_string()))
}

/// `GET /v1/agents`: by id, in pages.
pub(crate) async fn list_agents(
    State(app): State<SharedApp>,
    Extension(principal): Extension<Principal>,
    request: Request,
) -> Result<Response, ApiError> {
    let mut params = Params::read(request.uri())?;
    let after = params.parsed("cursor", AgentId::parse)?;
    let limit = params.limit(limits::PAGE_EVENTS_DEFAULT, limits::PAGE_EVENTS_MAX)?;
    params.end()?;
    let agents = app.ledger.agents(&principal.tenant, after.as_ref(), limit).await?;
    let mut out = String::from(r#"{"agents":["#);
    render::push_joined(&mut out, &agents, render::push_agent);
    let next = match agents.last() {
        Some(last) if agents.len() == limit => quote(last.agent_id.as_str()),
        _ => "null".to_owned(),
    };
    out.push_str(&format!(r#"],"next_cursor":{next}}}"#));
    Ok(json_response(StatusCode::OK, out))
}

/// `GET /v1/agents/{id}`.
pub(crate) async fn get_agent(
    State(app): State<SharedApp>,
    Extension(principal): Extension<Principal>,
    Path(agent): Path<String>,
) -> Result<Response, ApiError> {
    let agent = id("Agent", AgentId::parse(agent))?;
    let record = app.ledger.agent(&principal.tenant, &agent).await?.ok_or_else(|| not_found("Agent"))?;
    let mut out = String::new();
    render::push_agent(&mut out, &record);
    Ok(json_response(StatusCode::OK, out))
}

/// `GET /v1/log/key`: what a stranger pins, what it certifies, and under which key the tenant's checkpoints are signed.
pub(crate) async fn log_key(
    State(app): State<SharedApp>,
    Extension(principal): Extension<Principal>,
) -> Result<Response, ApiError> {
    let identity = app.ledger.identity().await?;
    let origin = origin(&identity.deployment, &principal.tenant);
    let fault = |error: NoteError| ApiError::fault(ErrorCode::Internal, error.to_string());
    let checkpoint_key = identity.log_key.renamed(&origin).map_err(fault)?;
    let body = json!({
        "deployment": identity.deployment,
        "log_key": identity.log_key.to_string(),
        "certificates": identity.certificates,
        "rotations": identity.rotations,
        "origin": origin,
        "checkpoint_key": checkpoint_key.to_string(),
    });
    Ok(json_response(StatusCode::OK, body.to_string()))
}
