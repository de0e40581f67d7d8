//! Answers questions: events, sessions, agents, verification and exports, in the native API and in the AgentLens
//! dialect.

mod agentlens;
mod explain;
mod export;
mod log;
mod native;

use axum::http::{Method, StatusCode};
use axum::response::Response;
use quipu_core::auth::Scope;
use quipu_core::http::{Access, Routes, SharedApp, VERSION, json_response};

/// The routes of this function.
pub fn routes(app: SharedApp) -> Routes {
    let read = Access::Scope(Scope::EventsRead);
    Routes::new(app.clone())
        .merge(log::routes(app))
        .add(Method::GET, "/v1/health", Access::Open, health)
        .add(Method::GET, "/v1/events", read, native::list_events)
        .add(Method::GET, "/v1/events/{id}", read, native::get_event)
        .add(Method::GET, "/v1/sessions", read, native::list_sessions)
        .add(Method::GET, "/v1/sessions/{id}", read, native::get_session)
        .add(Method::GET, "/v1/sessions/{id}/events", read, native::session_events)
        .add(Method::GET, "/v1/sessions/{id}/verify", read, native::verify_session)
        .add(Method::GET, "/v1/sessions/{id}/export", read, export::session)
        .add(Method::GET, "/v1/agents", read, native::list_agents)
        .add(Method::GET, "/v1/agents/{id}", read, native::get_agent)
        .add(Method::GET, "/v1/verify", read, native::verify_all)
        .add(Method::GET, "/v1/export", read, export::plan)
        .add(Method::GET, "/v1/log/key", Access::Any, native::log_key)
        .add(Method::GET, "/api/health", Access::Open, health)
        .add(Method::GET, "/api/events", read, agentlens::list_events)
        .add(Method::GET, "/api/events/{id}", read, agentlens::get_event)
        .add(Method::GET, "/api/sessions", read, agentlens::list_sessions)
        .add(Method::GET, "/api/sessions/{id}", read, agentlens::get_session)
        .add(Method::GET, "/api/sessions/{id}/timeline", read, agentlens::timeline)
        .add(Method::GET, "/api/agents", read, agentlens::list_agents)
        .add(Method::GET, "/api/agents/{id}", read, agentlens::get_agent)
        .add(Method::GET, "/api/audit/verify", read, agentlens::audit_verify)
}

/// `GET /v1/health`, `GET /api/health`: no credential, no store.
async fn health() -> Response {
    json_response(StatusCode::OK, format!(r#"{{"status":"ok","version":"{VERSION}"}}"#))
}
