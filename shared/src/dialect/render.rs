//! Writing JSON around payloads that must come out as they went in.
//!
//! By hand, because payload and metadata are text already: parsing them to write them again could change them (P7).

use crate::event::{Event, OwnedContent};
use crate::ids::hex;
use crate::store::{AgentRecord, SessionRecord};
use crate::summary::{Status, Tally};

/// Appends a JSON string.
pub fn push_string(out: &mut String, text: &str) {
    out.push_str(&quote(text));
}

/// A JSON string.
pub fn quote(text: &str) -> String {
    // A string always serializes.
    serde_json::to_string(text).unwrap_or_default()
}

/// Appends items with commas between them.
pub fn push_joined<T>(
    out: &mut String,
    items: impl IntoIterator<Item = T>,
    mut push: impl FnMut(&mut String, T),
) {
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        push(out, item);
    }
}

/// What is shown beside an event's fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Include {
    /// The salt, so that the hash can be recomputed.
    pub proof: bool,
}

/// Appends an event as the native API shows it: the field names of DESIGN section 2, and `run_id` beside
/// `session_id`.
pub fn push_event(out: &mut String, event: &Event, include: Include) {
    let session = quote(event.session_id.as_str());
    out.push_str(r#"{"event_id":""#);
    out.push_str(event.event_id.encode(&mut [0; 36]));
    out.push_str(r#"","tenant":"#);
    push_string(out, event.tenant.as_str());
    out.push_str(r#","session_id":"#);
    out.push_str(&session);
    out.push_str(r#","run_id":"#);
    out.push_str(&session);
    out.push_str(&format!(r#","sequence":{},"timestamp":""#, event.sequence));
    out.push_str(event.timestamp.encode(&mut [0; 27]));
    out.push_str(r#"","received_at":""#);
    out.push_str(event.received_at.encode(&mut [0; 27]));
    out.push_str(r#"","agent_id":"#);
    push_string(out, &event.agent_id);
    out.push_str(r#","event_type":"#);
    push_string(out, &event.event_type);
    out.push_str(r#","severity":""#);
    out.push_str(event.severity.as_str());
    out.push_str(r#"","source_id":"#);
    match &event.source_id {
        Some(source) => push_string(out, source),
        None => out.push_str("null"),
    }
    out.push_str(r#","compliance_tag":"#);
    push_string(out, &event.compliance_tag);
    push_list(out, r#","pii_types":"#, event.pii_types.split(',').filter(|name| !name.is_empty()));
    out.push_str(&format!(r#","pii_detected":{}"#, !event.pii_types.is_empty()));
    let policy = event.redactions.policy.map_or("null".to_owned(), |p| quote(&hex(&p)));
    out.push_str(&format!(r#","redactions":{{"count":{},"policy":{policy}}}"#, event.redactions.count));
    match &event.content {
        OwnedContent::Kept { salt, payload, metadata } => {
            out.push_str(r#","payload":"#);
            out.push_str(payload);
            out.push_str(r#","metadata":"#);
            out.push_str(metadata);
            if include.proof {
                out.push_str(&format!(r#","salt":"{}""#, hex(salt)));
            }
        }
        OwnedContent::Erased { digest } => {
            out.push_str(&format!(
                r#","payload":null,"metadata":null,"erased":true,"content_digest":"{}""#,
                hex(digest)
            ));
        }
    }
    out.push_str(&format!(r#","prev_hash":"{}","hash":"{}"}}"#, event.prev_hash, event.hash));
}

fn push_list<'t>(out: &mut String, name: &str, items: impl Iterator<Item = &'t str>) {
    out.push_str(name);
    out.push('[');
    push_joined(out, items, push_string);
    out.push(']');
}

fn push_tally(out: &mut String, name: &str, tally: &Tally) {
    out.push_str(name);
    match tally.names() {
        Some(names) => {
            out.push('{');
            push_joined(out, names, |out, (name, count)| {
                push_string(out, name);
                out.push_str(&format!(":{count}"));
            });
            out.push('}');
        }
        // Too many to name.
        None => out.push_str("null"),
    }
}

/// Appends a session as the native API shows it.
pub fn push_session(out: &mut String, session: &SessionRecord) {
    let (summary, id) = (&session.summary, quote(session.session_id.as_str()));
    out.push_str(&format!(
        r#"{{"session_id":{id},"run_id":{id},"agent_id":{},"agent_name":{},"status":"{}""#,
        quote(&summary.first_agent),
        summary.agent_name.as_deref().map_or("null".to_owned(), quote),
        summary.status.unwrap_or(Status::Active).as_str(),
    ));
    out.push_str(&format!(
        r#","started_at":"{}","ended_at":{},"first_timestamp":"{}","last_timestamp":"{}","updated_at":"{}""#,
        summary.started_at,
        summary.ended_at.map_or("null".to_owned(), |t| quote(&t.to_string())),
        summary.time_min,
        summary.time_max,
        session.updated_at,
    ));
    out.push_str(&format!(
        r#","event_count":{},"tool_call_count":{},"error_count":{},"llm_call_count":{},"input_tokens":{},"output_tokens":{},"cost_usd":{}"#,
        summary.events,
        summary.tool_calls,
        summary.errors,
        summary.llm_calls,
        summary.input_tokens,
        summary.output_tokens,
        summary.cost_usd(),
    ));
    push_tally(out, r#","event_types":"#, &summary.types);
    push_tally(out, r#","agents":"#, &summary.agents);
    push_list(out, r#","tags":"#, summary.tags.iter().map(String::as_str));
    out.push_str(&format!(
        r#","last_sequence":{},"head_hash":"{}"}}"#,
        session.head.sequence, session.head.hash
    ));
}

/// Appends an agent as the native API shows it.
pub fn push_agent(out: &mut String, agent: &AgentRecord) {
    out.push_str(&format!(
        r#"{{"agent_id":{},"name":{},"first_seen_at":"{}","last_seen_at":"{}","session_count":{},"event_count":{}}}"#,
        quote(agent.agent_id.as_str()),
        agent.name.as_deref().map_or("null".to_owned(), quote),
        agent.first_seen_at,
        agent.last_seen_at,
        agent.session_count,
        agent.event_count,
    ));
}
