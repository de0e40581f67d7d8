//! The AgentLens dialect's reads: facts from its events page and its published clients.
//!
//! That product never refuses a list for a parameter that does not fit: sizes are clamped, and a filter that nothing
//! can match gives an empty list. Only what is no time is refused here: it would widen the answer in silence.

use axum::Extension;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use quipu_core::auth::Principal;
use quipu_core::dialect::{agentlens, render};
use quipu_core::event::{Event, OwnedContent};
use quipu_core::http::{ApiError, Params, SharedApp, json_response};
use quipu_core::ids::{AgentId, EventId, Seq, SessionId, Severity};
use quipu_core::ledger::{EventFilter, ListQuery, ReadError, SessionQuery, SessionVerdict};
use quipu_core::limits;
use quipu_core::store::Order;
use quipu_core::summary::Status;
use serde_json::json;

use crate::native::{id, not_found};

/// Page: default 50, at most 500.
const PAGE_DEFAULT: usize = 50;
const PAGE_MAX: usize = 500;

/// The page's `limit` and `offset`, clamped as that product does.
fn window(params: &mut Params) -> Result<(usize, u64), ApiError> {
    let limit = params.text("limit")?.and_then(|t| t.parse::<f64>().ok()).filter(|n| *n != 0.0);
    let limit = limit.map_or(PAGE_DEFAULT, |n| (n as i64).clamp(1, PAGE_MAX as i64) as usize);
    let offset = params.text("offset")?.and_then(|t| t.parse::<u64>().ok()).unwrap_or(0);
    Ok((limit, offset))
}

fn push_events(out: &mut String, events: &[Event], asked: &[String]) {
    out.push('[');
    render::push_joined(out, events, |out, event| agentlens::push_event(out, event, asked));
    out.push(']');
}

fn content_bytes(event: &Event) -> usize {
    match &event.content {
        OwnedContent::Kept { payload, metadata, .. } => payload.len() + metadata.len(),
        OwnedContent::Erased { .. } => 0,
    }
}

/// `GET /api/events`.
pub(crate) async fn list_events(
    State(app): State<SharedApp>,
    Extension(principal): Extension<Principal>,
    request: Request,
) -> Result<Response, ApiError> {
    let mut params = Params::read(request.uri())?;
    let (limit, skip) = window(&mut params)?;
    let order = if params.text("order")?.as_deref() == Some("asc") { Order::Asc } else { Order::Desc };
    let types = params.list("eventType")?;
    let words = params.list("severity")?;
    let severities: Vec<Severity> = words.iter().filter_map(|word| Severity::parse(word).ok()).collect();
    let session = params.text("sessionId")?.map(SessionId::parse);
    let filter = EventFilter {
        session: session.clone().and_then(Result::ok),
        agents: params.list("agentId")?,
        event_types: types.clone(),
        severities,
        from: params.time("from", false)?,
        to: params.time("to", true)?,
        search: params.search()?,
    };
    // A filter that nothing can match.
    let nothing = session.is_some_and(|s| s.is_err()) || (!words.is_empty() && filter.severities.is_empty());
    if nothing {
        return Ok(json_response(StatusCode::OK, r#"{"events":[],"total":0,"hasMore":false}"#.into()));
    }
    let query = ListQuery { filter, order, after: None, skip, limit, count_total: true };
    let page = app.ledger.list(&principal.tenant, &query).await?;
    let total = page.total.unwrap_or(0);
    let mut out = String::from(r#"{"events":"#);
    push_events(&mut out, &page.events, &types);
    let has_more = skip + (page.events.len() as u64) < total;
    out.push_str(&format!(r#","total":{total},"hasMore":{has_more}}}"#));
    Ok(json_response(StatusCode::OK, out))
}

/// `GET /api/events/{id}`.
pub(crate) async fn get_event(
    State(app): State<SharedApp>,
    Extension(principal): Extension<Principal>,
    Path(event): Path<String>,
) -> Result<Response, ApiError> {
    let event = id("Event", EventId::parse(&event))?;
    let event = app.ledger.event(&principal.tenant, event).await?.ok_or_else(|| not_found("Event"))?;
    let mut out = String::new();
    agentlens::push_event(&mut out, &event, &[]);
    Ok(json_response(StatusCode::OK, out))
}

/// `GET /api/sessions`.
pub(crate) async fn list_sessions(
    State(app): State<SharedApp>,
    Extension(principal): Extension<Principal>,
    request: Request,
) -> Result<Response, ApiError> {
    let mut params = Params::read(request.uri())?;
    let (limit, skip) = window(&mut params)?;
    let words = params.list("status")?;
    let statuses: Vec<Status> = words.iter().filter_map(|word| Status::parse(word)).collect();
    let agent = params.text("agentId")?.map(AgentId::parse);
    let nothing = agent.as_ref().is_some_and(Result::is_err) || (!words.is_empty() && statuses.is_empty());
    if nothing {
        return Ok(json_response(StatusCode::OK, r#"{"sessions":[],"total":0,"hasMore":false}"#.into()));
    }
    let query = SessionQuery {
        agent: agent.and_then(Result::ok),
        statuses,
        tags: params.list("tags")?,
        from: params.time("from", false)?,
        to: params.time("to", true)?,
        after: None,
        skip,
        limit,
        count_total: true,
    };
    let page = app.ledger.sessions(&principal.tenant, &query).await?;
    let total = page.total.unwrap_or(0);
    let mut out = String::from(r#"{"sessions":["#);
    render::push_joined(&mut out, &page.sessions, |out, session| {
        agentlens::push_session(out, principal.tenant.as_str(), session)
    });
    let has_more = skip + (page.sessions.len() as u64) < total;
    out.push_str(&format!(r#"],"total":{total},"hasMore":{has_more}}}"#));
    Ok(json_response(StatusCode::OK, out))
}

/// `GET /api/sessions/{id}`.
pub(crate) async fn get_session(
    State(app): State<SharedApp>,
    Extension(principal): Extension<Principal>,
    Path(session): Path<String>,
) -> Result<Response, ApiError> {
    let session = id("Session", SessionId::parse(session))?;
    let record =
        app.ledger.session(&principal.tenant, &session).await?.ok_or_else(|| not_found("Session"))?;
    let mut out = String::new();
    agentlens::push_session(&mut out, principal.tenant.as_str(), &record);
    Ok(json_response(StatusCode::OK, out))
}

/// `GET /api/sessions/{id}/timeline`: the whole session by timestamp, and whether its chain holds. One that is larger
/// than [`limits::WHOLE_ANSWER_BYTES_MAX`] is a 503: the native API pages through it.
pub(crate) async fn timeline(
    State(app): State<SharedApp>,
    Extension(principal): Extension<Principal>,
    Path(session): Path<String>,
) -> Result<Response, ApiError> {
    let session = id("Session", SessionId::parse(session))?;
    let verdict = app.ledger.verify_session(&principal.tenant, &session).await?;
    if matches!(verdict, SessionVerdict::Empty) {
        return Err(not_found("Session"));
    }
    let chain_valid = matches!(verdict, SessionVerdict::Verified { .. });
    let (mut events, mut bytes) = (Vec::new(), 0);
    let mut from = Some(Seq::ZERO);
    while let Some(at) = from {
        let page = app
            .ledger
            .session_events(&principal.tenant, &session, at, Order::Asc, limits::PAGE_EVENTS_MAX)
            .await?;
        bytes += page.events.iter().map(content_bytes).sum::<usize>();
        if bytes > limits::WHOLE_ANSWER_BYTES_MAX {
            return Err(ReadError::TooBroad { limit: limits::WHOLE_ANSWER_BYTES_MAX as u64 }.into());
        }
        events.extend(page.events);
        from = page.next;
    }
    events.sort_by_key(|event| (event.timestamp, event.sequence));
    let mut out = String::from(r#"{"events":"#);
    push_events(&mut out, &events, &[]);
    out.push_str(&format!(r#","chainValid":{chain_valid},"chained":true}}"#));
    Ok(json_response(StatusCode::OK, out))
}

/// `GET /api/agents`: last seen first.
pub(crate) async fn list_agents(
    State(app): State<SharedApp>,
    Extension(principal): Extension<Principal>,
) -> Result<Response, ApiError> {
    let mut agents = Vec::new();
    loop {
        let after = agents.last().map(|a: &quipu_core::store::AgentRecord| a.agent_id.clone());
        let page = app.ledger.agents(&principal.tenant, after.as_ref(), limits::PAGE_EVENTS_MAX).await?;
        let last = page.len() < limits::PAGE_EVENTS_MAX;
        agents.extend(page);
        if last {
            break;
        }
    }
    agents.sort_by_key(|agent| std::cmp::Reverse(agent.last_seen_at));
    let mut out = String::from(r#"{"agents":["#);
    render::push_joined(&mut out, &agents, |out, agent| {
        agentlens::push_agent(out, principal.tenant.as_str(), agent)
    });
    out.push_str("]}");
    Ok(json_response(StatusCode::OK, out))
}

/// `GET /api/agents/{id}`.
pub(crate) async fn get_agent(
    State(app): State<SharedApp>,
    Extension(principal): Extension<Principal>,
    Path(agent): Path<String>,
) -> Result<Response, ApiError> {
    let agent = id("Agent", AgentId::parse(agent))?;
    let record = app.ledger.agent(&principal.tenant, &agent).await?.ok_or_else(|| not_found("Agent"))?;
    let mut out = String::new();
    agentlens::push_agent(&mut out, principal.tenant.as_str(), &record);
    Ok(json_response(StatusCode::OK, out))
}

/// `GET /api/audit/verify`: one session, or every session with an event in a range (each verified whole).
pub(crate) async fn audit_verify(
    State(app): State<SharedApp>,
    Extension(principal): Extension<Principal>,
    request: Request,
) -> Result<Response, ApiError> {
    const YEAR_US: i64 = 366 * 24 * 3600 * 1_000_000;
    let mut params = Params::read(request.uri())?;
    let session = params.text("sessionId")?;
    let (from, to) = (params.time("from", false)?, params.time("to", true)?);
    let (sessions, range) = match (&session, from, to) {
        (Some(session), ..) => {
            (vec![id("Session", SessionId::parse(session.as_str()))?], serde_json::Value::Null)
        }
        (None, Some(from), Some(to)) => {
            if to.get() - from.get() > YEAR_US {
                return Err(ApiError::parameter("to", "Range must not exceed 1 year"));
            }
            let sessions = app.ledger.sessions_between(&principal.tenant, from, to).await?;
            (sessions, json!({ "from": from.to_iso(), "to": to.to_iso() }))
        }
        _ => return Err(ApiError::parameter("sessionId", "Provide from/to or sessionId")),
    };
    let (mut total, mut broken) = (0, Vec::new());
    let (mut first, mut last) = (None, None);
    for session_id in &sessions {
        match app.ledger.verify_session(&principal.tenant, session_id).await? {
            // An unknown session proves nothing: silence is never valid.
            SessionVerdict::Empty => broken.push(json!({
                "sessionId": session_id, "failedAtIndex": 0, "failedEventId": null, "reason": "no such session",
            })),
            SessionVerdict::Verified { events, head, first_hash } => {
                total += events;
                first.get_or_insert(first_hash);
                last = Some(head.hash);
            }
            SessionVerdict::Broken { sequence, event_id, reason, .. } => {
                total += sequence.get();
                broken.push(json!({
                    "sessionId": session_id, "failedAtIndex": sequence, "failedEventId": event_id, "reason": reason,
                }));
            }
        }
    }
    let mut body = json!({
        "verified": broken.is_empty(),
        "verifiedAt": app.ledger.clock().now().to_iso(),
        "range": range,
        "sessionsVerified": sessions.len(),
        "totalEvents": total,
        "firstHash": first,
        "lastHash": last,
        "brokenChains": broken,
        // A signature over this answer would prove no more than the server's word: see the evidence bundle.
        "signature": null,
    });
    if let Some(session) = session {
        body["sessionId"] = session.into();
    }
    Ok(json_response(StatusCode::OK, body.to_string()))
}
