//! Lines out.

use super::ProofRecord;
use crate::event::{Content, EventRef};
use crate::ids::{self, SessionId, TenantId};
use crate::note::VerifierKey;
use crate::time::Micros;

/// What the first line says.
#[derive(Debug, Clone, Copy)]
pub struct Header<'a> {
    /// The deployment's name.
    pub deployment: &'a str,
    /// Whose sessions these are.
    pub tenant: &'a TenantId,
    /// When the bundle was made.
    pub created_at: Micros,
    /// The deployment's log key.
    pub log_key: &'a VerifierKey,
    /// Its word for the receipt keys; at least one.
    pub certificates: &'a [String],
}

/// Appends the first line.
pub fn push_header(out: &mut String, header: &Header<'_>) {
    out.push_str(r#"{"kind":"bundle","format":"quipu.bundle.v1","deployment":"#);
    push_string(out, header.deployment);
    out.push_str(r#","tenant":"#);
    push_string(out, header.tenant.as_str());
    push_time(out, r#","created_at":""#, header.created_at);
    out.push_str(r#"","log_key":"#);
    push_string(out, &header.log_key.to_string());
    out.push_str(r#","certificates":"#);
    push_list(out, header.certificates.iter().map(String::as_str));
    out.push_str("}\n");
}

/// Appends the line that begins a session.
pub fn push_session(out: &mut String, session: &SessionId) {
    out.push_str(r#"{"kind":"session","session_id":"#);
    push_string(out, session.as_str());
    out.push_str("}\n");
}

/// Appends the line of an event.
pub fn push_event(out: &mut String, event: &EventRef<'_>) {
    out.push_str(r#"{"kind":"event","sequence":"#);
    push_number(out, event.sequence.get());
    out.push_str(r#","event_id":""#);
    out.push_str(event.event_id.encode(&mut [0; 36]));
    push_time(out, r#"","timestamp":""#, event.timestamp);
    push_time(out, r#"","received_at":""#, event.received_at);
    out.push_str(r#"","agent_id":"#);
    push_string(out, event.agent_id);
    out.push_str(r#","event_type":"#);
    push_string(out, event.event_type);
    out.push_str(r#","severity":""#);
    out.push_str(event.severity.as_str());
    out.push_str(r#"","source_id":"#);
    push_optional(out, event.source_id);
    out.push_str(r#","compliance_tag":"#);
    push_string(out, event.compliance_tag);
    out.push_str(r#","pii_types":"#);
    push_list(out, event.pii_types.split(',').filter(|name| !name.is_empty()));
    out.push_str(r#","redaction_count":"#);
    push_number(out, u64::from(event.redactions.count));
    out.push_str(r#","redaction_policy":"#);
    push_optional_hex(out, event.redactions.policy.as_ref().map(|p| &p[..]));
    let (salt, payload, metadata, digest) = match &event.content {
        Content::Kept { salt, payload, metadata } => (Some(&salt[..]), Some(*payload), Some(*metadata), None),
        Content::Erased { digest } => (None, None, None, Some(&digest[..])),
    };
    out.push_str(r#","salt":"#);
    push_optional_hex(out, salt);
    out.push_str(r#","payload":"#);
    push_optional(out, payload);
    out.push_str(r#","metadata":"#);
    push_optional(out, metadata);
    out.push_str(r#","content_digest":"#);
    push_optional_hex(out, digest);
    out.push_str(r#","prev_hash":"#);
    push_optional_hex(out, Some(&event.prev_hash.0));
    out.push_str(r#","hash":"#);
    push_optional_hex(out, Some(&event.hash.0));
    out.push_str("}\n");
}

/// Appends the line of a rotation of the log key. They follow the first line, oldest first.
pub fn push_rotation(out: &mut String, note: &str) {
    push_note(out, "rotation", note);
}

/// Appends the line of the checkpoint that the proofs are held against. It stands before the first session.
pub fn push_checkpoint(out: &mut String, note: &str) {
    push_note(out, "checkpoint", note);
}

/// Appends the line that says where events are in the log. It stands after the session's last event.
pub fn push_proof(out: &mut String, proof: &ProofRecord) {
    out.push_str(r#"{"kind":"proof","first":"#);
    push_number(out, proof.first.get());
    out.push_str(r#","count":"#);
    push_number(out, proof.count);
    out.push_str(r#","leaf":"#);
    push_number(out, proof.leaf);
    out.push_str(r#","hashes":["#);
    for (index, hash) in proof.hashes.iter().enumerate() {
        out.push_str(if index > 0 { ",\"" } else { "\"" });
        push_hex(out, hash);
        out.push('"');
    }
    out.push_str("]}\n");
}

/// Appends the line that ends a session: its signed head.
pub fn push_head(out: &mut String, note: &str) {
    push_note(out, "head", note);
}

fn push_note(out: &mut String, kind: &str, note: &str) {
    out.push_str(r#"{"kind":""#);
    out.push_str(kind);
    out.push_str(r#"","note":"#);
    push_string(out, note);
    out.push_str("}\n");
}

/// Appends the last line.
pub fn push_end(out: &mut String, sessions: u64, events: u64) {
    out.push_str(r#"{"kind":"end","sessions":"#);
    push_number(out, sessions);
    out.push_str(r#","events":"#);
    push_number(out, events);
    out.push_str("}\n");
}

/// Appends a JSON string: only what RFC 8259 says must be escaped is.
fn push_string(out: &mut String, text: &str) {
    out.push('"');
    let mut rest = text;
    while let Some(at) = rest.bytes().position(|b| b < 0x20 || b == b'"' || b == b'\\') {
        out.push_str(&rest[..at]);
        match rest.as_bytes()[at] {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            control => {
                out.push_str("\\u00");
                push_hex(out, &[control]);
            }
        }
        rest = &rest[at + 1..];
    }
    out.push_str(rest);
    out.push('"');
}

fn push_optional(out: &mut String, text: Option<&str>) {
    match text {
        Some(text) => push_string(out, text),
        None => out.push_str("null"),
    }
}

fn push_optional_hex(out: &mut String, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            out.push('"');
            push_hex(out, bytes);
            out.push('"');
        }
        None => out.push_str("null"),
    }
}

/// Appends the hex of at most 32 bytes.
fn push_hex(out: &mut String, bytes: &[u8]) {
    let mut buffer = [0; 64];
    let hex = &mut buffer[..bytes.len() * 2];
    ids::encode_hex(bytes, hex);
    out.push_str(std::str::from_utf8(hex).unwrap_or_default());
}

fn push_time(out: &mut String, before: &str, time: Micros) {
    out.push_str(before);
    out.push_str(time.encode(&mut [0; 27]));
}

fn push_number(out: &mut String, value: u64) {
    use std::fmt::Write as _;
    // Writing to a text does not fail.
    let _ = write!(out, "{value}");
}

fn push_list<'t>(out: &mut String, items: impl Iterator<Item = &'t str>) {
    out.push('[');
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.push(',');
        }
        push_string(out, item);
    }
    out.push(']');
}
