//! AgentLens: `/api`. Facts from its events page; where its clients differ from the page, both are taken.
//!
//! Its published Python client refuses a whole response that holds a type outside the page's 18, so every other type
//! is shown as `custom`, whose payload is `{"type": <the type>, "data": <the payload>}` (an object; anything else
//! stands in `data` as `value`). Unless the caller asks for a type by its own name.

use super::intake::Names;
use super::render::{push_joined, push_string, quote};
use crate::event::{Event, OwnedContent};
use crate::ids::EventHash;
use crate::kinds;
use crate::store::{AgentRecord, SessionRecord};
use crate::summary::Status;

/// Unknown members are passed over, as that product does.
pub const NAMES: Names = Names {
    session: ["sessionId", "session_id"],
    agent: "agentId",
    event_type: "eventType",
    source: "sourceId",
    tag: "complianceTag",
    refuse_unknown: false,
    known_types_only: true,
};

/// The type under which an event is shown; the types that the caller asked for are shown as they are.
pub fn shown_type<'e>(event_type: &'e str, asked: &[String]) -> &'e str {
    let on_page = kinds::find(event_type).is_some_and(|known| known.on_page);
    if on_page || asked.iter().any(|a| a == event_type) { event_type } else { "custom" }
}

/// Appends an event as AgentLens shows it.
pub fn push_event(out: &mut String, event: &Event, asked: &[String]) {
    let shown = shown_type(&event.event_type, asked);
    let erased = r#"{"erased":true}"#;
    let (payload, metadata) = match &event.content {
        OwnedContent::Kept { payload, metadata, .. } => (payload.as_str(), metadata.as_str()),
        OwnedContent::Erased { .. } => (erased, "{}"),
    };
    out.push_str(r#"{"id":""#);
    out.push_str(event.event_id.encode(&mut [0; 36]));
    out.push_str(r#"","timestamp":""#);
    out.push_str(&event.timestamp.to_iso());
    out.push_str(r#"","sessionId":"#);
    push_string(out, event.session_id.as_str());
    out.push_str(r#","agentId":"#);
    push_string(out, &event.agent_id);
    out.push_str(r#","eventType":"#);
    push_string(out, shown);
    out.push_str(r#","severity":""#);
    out.push_str(event.severity.as_str());
    out.push_str(r#"","payload":"#);
    let is_object = payload.starts_with('{');
    if shown != event.event_type || !is_object {
        out.push_str(r#"{"type":"#);
        push_string(out, &event.event_type);
        out.push_str(r#","data":"#);
        if is_object {
            out.push_str(payload);
        } else {
            out.push_str(r#"{"value":"#);
            out.push_str(payload);
            out.push('}');
        }
        out.push('}');
    } else {
        out.push_str(payload);
    }
    out.push_str(r#","metadata":"#);
    out.push_str(metadata);
    out.push_str(r#","prevHash":"#);
    if event.prev_hash == EventHash::ZERO {
        out.push_str("null");
    } else {
        push_string(out, &event.prev_hash.to_string());
    }
    out.push_str(r#","hash":""#);
    out.push_str(&event.hash.to_string());
    out.push_str(r#"","tenantId":"#);
    push_string(out, event.tenant.as_str());
    out.push('}');
}

/// Appends a session as AgentLens shows it.
pub fn push_session(out: &mut String, tenant: &str, session: &SessionRecord) {
    let summary = &session.summary;
    out.push_str(r#"{"id":"#);
    push_string(out, session.session_id.as_str());
    out.push_str(r#","agentId":"#);
    push_string(out, &summary.first_agent);
    if let Some(name) = &summary.agent_name {
        out.push_str(r#","agentName":"#);
        push_string(out, name);
    }
    let iso = |time: crate::time::Micros| quote(&time.to_iso());
    out.push_str(&format!(r#","startedAt":{}"#, iso(summary.started_at)));
    if let Some(ended) = summary.ended_at {
        out.push_str(&format!(r#","endedAt":{}"#, iso(ended)));
    }
    let status = summary.status.unwrap_or(Status::Active).as_str();
    out.push_str(&format!(
        r#","status":"{status}","eventCount":{},"toolCallCount":{},"errorCount":{},"totalCostUsd":{},"#,
        summary.events,
        summary.tool_calls,
        summary.errors,
        summary.cost_usd(),
    ));
    out.push_str(&format!(
        r#""llmCallCount":{},"totalInputTokens":{},"totalOutputTokens":{},"tags":["#,
        summary.llm_calls, summary.input_tokens, summary.output_tokens,
    ));
    push_joined(out, &summary.tags, |out, tag| push_string(out, tag));
    out.push_str(r#"],"tenantId":"#);
    push_string(out, tenant);
    out.push('}');
}

/// Appends an agent as AgentLens shows it.
pub fn push_agent(out: &mut String, tenant: &str, agent: &AgentRecord) {
    let id = agent.agent_id.as_str();
    out.push_str(&format!(
        r#"{{"id":{},"name":{},"firstSeenAt":{},"lastSeenAt":{},"sessionCount":{},"tenantId":{}}}"#,
        quote(id),
        quote(agent.name.as_deref().unwrap_or(id)),
        quote(&agent.first_seen_at.to_iso()),
        quote(&agent.last_seen_at.to_iso()),
        agent.session_count,
        quote(tenant),
    ));
}
