//! From a request's body to events: one reader for every dialect that sends batches.
//!
//! Everything wrong with the values of a batch is reported together, each with its path; a document that is not JSON
//! stops at the first fault. Nothing is dropped or shortened: what cannot be kept is refused.

use crate::event::{NewEvent, Redactions};
use crate::ids::{AgentId, ComplianceTag, EventType, SessionId, Severity, SourceId};
use crate::json::{JsonError, Kind, Members, Problem, Reader};
use crate::kinds::{self, Misfit};
use crate::limits;
use crate::time::Micros;

/// How a dialect names an event's members, and what it does with others.
#[derive(Debug)]
pub struct Names {
    /// The session. The second name is accepted too.
    pub session: [&'static str; 2],
    /// The agent.
    pub agent: &'static str,
    /// The type.
    pub event_type: &'static str,
    /// The client's own id.
    pub source: &'static str,
    /// The policy label.
    pub tag: &'static str,
    /// True if members that are not known are refused; else they are passed over, as that product does.
    pub refuse_unknown: bool,
    /// True if only the known types are taken.
    pub known_types_only: bool,
}

/// One thing that is wrong with a value.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Issue {
    /// Where: members and indexes joined by dots.
    pub path: String,
    /// What is wrong, and the limit if it is one.
    pub message: String,
}

/// Why a body is not a batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IntakeError {
    /// Not a JSON document as docs/format.md wants it.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// JSON, but with values that do not fit.
    #[error("{} values do not fit", .0.len())]
    Invalid(Vec<Issue>),
    /// Over a size limit: a 413, not a 400.
    #[error("{}: {}", .0.path, .0.message)]
    TooLarge(Issue),
}

/// Past this many, further issues of a batch are not listed.
const ISSUES_MAX: usize = 100;

/// What is gathered while a batch is read.
struct Batch<'n> {
    names: &'n Names,
    events: Vec<NewEvent>,
    issues: Vec<Issue>,
    too_large: Option<Issue>,
    members: Members,
}

/// Reads `{"events":[…]}`.
///
/// # Errors
/// See [`IntakeError`].
pub fn read_batch(text: &str, names: &Names) -> Result<Vec<NewEvent>, IntakeError> {
    let mut batch = Batch::new(names);
    let mut reader = Reader::new(text);
    let mut found = false;
    let kind = reader.kind()?;
    if kind != Kind::Object {
        return Err(reader
            .error(Problem::Type { expected: "an object with events", found: kind.name() })
            .into());
    }
    reader.object(|reader, name| {
        if name != "events" {
            if names.refuse_unknown {
                batch.issue(reader.path_text(), "unknown field".into());
            }
            return reader.skip();
        }
        found = true;
        if reader.kind()? != Kind::Array {
            batch.issue(reader.path_text(), "expected an array of events".into());
            return reader.skip();
        }
        reader.array(|reader, index| batch.read_event(reader, index))
    })?;
    reader.end()?;
    if !found {
        batch.issue("events".into(), "required: an array of 1 to 1000 events".into());
    }
    batch.finish("events")
}

/// Reads one event a line (NDJSON). Empty lines are passed over.
///
/// # Errors
/// See [`IntakeError`]; paths begin with the event's index.
pub fn read_lines(text: &str, names: &Names) -> Result<Vec<NewEvent>, IntakeError> {
    let mut batch = Batch::new(names);
    let lines = text.split('\n').filter(|line| !line.trim_ascii().is_empty());
    for (index, line) in lines.enumerate() {
        let mut reader = Reader::new(line);
        reader.enter_index(index);
        batch.read_event(&mut reader, index)?;
        reader.leave();
        reader.end()?;
    }
    batch.finish("")
}

impl<'n> Batch<'n> {
    fn new(names: &'n Names) -> Self {
        Self { names, events: Vec::new(), issues: Vec::new(), too_large: None, members: Members::default() }
    }

    fn issue(&mut self, path: String, message: String) {
        if self.issues.len() < ISSUES_MAX {
            self.issues.push(Issue { path, message });
        }
    }

    fn finish(mut self, path: &str) -> Result<Vec<NewEvent>, IntakeError> {
        if let Some(issue) = self.too_large {
            return Err(IntakeError::TooLarge(issue));
        }
        if self.events.is_empty() && self.issues.is_empty() {
            self.issue(
                path.to_owned(),
                format!("expected 1 to {} events, found none", limits::BATCH_EVENTS_MAX),
            );
        }
        if self.issues.is_empty() { Ok(self.events) } else { Err(IntakeError::Invalid(self.issues)) }
    }

    fn read_event(&mut self, reader: &mut Reader<'_>, index: usize) -> Result<(), JsonError> {
        if index >= limits::BATCH_EVENTS_MAX {
            // The rest is not looked at: a client learns the limit, not what else is wrong.
            if self.too_large.is_none() {
                let message = format!("more events than batch_events_max {}", limits::BATCH_EVENTS_MAX);
                let path = reader.path_text();
                let path = path.rsplit_once('.').map_or(String::new(), |(parent, _)| parent.to_owned());
                self.too_large = Some(Issue { path, message });
            }
            return reader.skip();
        }
        if reader.kind()? != Kind::Object {
            let message = format!("expected an event, found {}", reader.kind()?.name());
            self.issue(reader.path_text(), message);
            return reader.skip();
        }
        let path = reader.path_text();
        let at = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        let mut parts = Parts::default();
        reader.object(|reader, name| self.read_member(reader, name, &mut parts))?;
        let names = self.names;
        for (missing, name, seen) in [
            (parts.session_id.is_none(), names.session[0], parts.seen.session),
            (parts.agent_id.is_none(), names.agent, parts.seen.agent),
            (parts.event_type.is_none(), names.event_type, parts.seen.event_type),
            (parts.payload.is_none(), "payload", parts.seen.payload),
        ] {
            // What was there and did not fit was reported already.
            if missing && !seen {
                self.issue(at(name), "required".into());
            }
        }
        if let (Some(event_type), Some(payload)) = (&parts.event_type, &parts.payload) {
            self.check_type(event_type, payload, &parts.payload_members, &at);
        }
        if let Some(event) = parts.into_event() {
            self.events.push(event);
        }
        Ok(())
    }

    /// Checks the payload of a known type; refuses unknown types where the dialect does, and our own everywhere.
    fn check_type(
        &mut self,
        event_type: &EventType,
        payload: &str,
        members: &Members,
        at: &dyn Fn(&str) -> String,
    ) {
        match kinds::find(event_type.as_str()) {
            Some(known) => {
                for Misfit { member, problem } in known.misfits(payload, members) {
                    let path =
                        if member.is_empty() { at("payload") } else { at(&format!("payload.{member}")) };
                    self.issue(path, problem);
                }
            }
            None if self.names.known_types_only => {
                let known: Vec<_> = kinds::KNOWN.iter().map(|k| k.name).collect();
                self.issue(at(self.names.event_type), format!("expected one of {}", known.join(", ")));
            }
            None if event_type.is_reserved() => {
                self.issue(
                    at(self.names.event_type),
                    "types that begin with quipu. are the ledger's own".into(),
                );
            }
            None => {}
        }
    }

    fn read_member(
        &mut self,
        reader: &mut Reader<'_>,
        name: &str,
        parts: &mut Parts,
    ) -> Result<(), JsonError> {
        let names = self.names;
        if name == "payload" {
            parts.seen.payload = true;
            let mut members = std::mem::take(&mut self.members);
            parts.payload =
                self.content(reader, "payload_bytes_max", limits::PAYLOAD_BYTES_MAX, &mut members)?;
            parts.payload_members = members;
        } else if name == "metadata" {
            if !self.absent(reader)? {
                if reader.kind()? == Kind::Object {
                    let mut members = Members::default();
                    let limit = limits::METADATA_BYTES_MAX;
                    parts.metadata = self.content(reader, "metadata_bytes_max", limit, &mut members)?;
                } else {
                    self.issue(
                        reader.path_text(),
                        format!("expected an object, found {}", reader.kind()?.name()),
                    );
                    reader.skip()?;
                }
            }
        } else if names.session.contains(&name) {
            if parts.seen.session {
                self.issue(reader.path_text(), "the session is given twice".into());
                return reader.skip();
            }
            parts.seen.session = true;
            parts.session_id = self.text(reader, SessionId::parse)?;
            if parts.session_id.as_ref().is_some_and(SessionId::is_reserved) {
                self.issue(reader.path_text(), "session ids that begin with _ are the ledger's own".into());
            }
        } else if name == names.agent {
            parts.seen.agent = true;
            parts.agent_id = self.text(reader, AgentId::parse)?;
        } else if name == names.event_type {
            parts.seen.event_type = true;
            parts.event_type = self.text(reader, EventType::parse)?;
        } else if name == "severity" {
            parts.severity = self.optional(reader, |t| Severity::parse(&t))?;
        } else if name == "timestamp" {
            parts.timestamp = self.optional(reader, |t| Micros::parse(&t))?;
        } else if name == names.source {
            parts.source_id = self.optional(reader, SourceId::parse)?;
        } else if name == names.tag {
            parts.compliance_tag = self.optional(reader, ComplianceTag::parse)?;
        } else {
            if names.refuse_unknown {
                self.issue(reader.path_text(), "unknown field".into());
            }
            reader.skip()?;
        }
        Ok(())
    }

    /// `null` stands for an absent optional member, as published clients send it.
    fn absent(&mut self, reader: &mut Reader<'_>) -> Result<bool, JsonError> {
        reader.null()
    }

    fn optional<T, E: std::fmt::Display>(
        &mut self,
        reader: &mut Reader<'_>,
        parse: impl FnOnce(String) -> Result<T, E>,
    ) -> Result<Option<T>, JsonError> {
        if self.absent(reader)? { Ok(None) } else { self.text(reader, parse) }
    }

    fn text<T, E: std::fmt::Display>(
        &mut self,
        reader: &mut Reader<'_>,
        parse: impl FnOnce(String) -> Result<T, E>,
    ) -> Result<Option<T>, JsonError> {
        let found = reader.kind()?;
        if found != Kind::String {
            self.issue(reader.path_text(), format!("expected a string, found {}", found.name()));
            reader.skip()?;
            return Ok(None);
        }
        let text = reader.string()?.into_owned();
        match parse(text) {
            Ok(value) => Ok(Some(value)),
            Err(why) => {
                self.issue(reader.path_text(), why.to_string());
                Ok(None)
            }
        }
    }

    fn content(
        &mut self,
        reader: &mut Reader<'_>,
        name: &str,
        limit: usize,
        members: &mut Members,
    ) -> Result<Option<String>, JsonError> {
        let mut out = String::new();
        reader.compact(&mut out, members)?;
        if out.len() > limit {
            let message = format!("is {} bytes of compact JSON, {name} is {limit}", out.len());
            self.too_large.get_or_insert(Issue { path: reader.path_text(), message });
            return Ok(None);
        }
        Ok(Some(out))
    }
}

/// Which required members were there, whether or not they fit.
#[derive(Default)]
struct Seen {
    session: bool,
    agent: bool,
    event_type: bool,
    payload: bool,
}

/// An event while its members are read.
#[derive(Default)]
struct Parts {
    seen: Seen,
    session_id: Option<SessionId>,
    agent_id: Option<AgentId>,
    timestamp: Option<Micros>,
    event_type: Option<EventType>,
    severity: Option<Severity>,
    source_id: Option<SourceId>,
    payload: Option<String>,
    payload_members: Members,
    metadata: Option<String>,
    compliance_tag: Option<ComplianceTag>,
}

impl Parts {
    fn into_event(self) -> Option<NewEvent> {
        Some(NewEvent {
            session_id: self.session_id?,
            agent_id: self.agent_id?,
            timestamp: self.timestamp,
            event_type: self.event_type?,
            severity: self.severity.unwrap_or_default(),
            source_id: self.source_id,
            payload: self.payload?,
            metadata: self.metadata.unwrap_or_else(|| "{}".to_owned()),
            compliance_tag: self.compliance_tag.unwrap_or_else(ComplianceTag::default_tag),
            pii_types: Vec::new(),
            redactions: Redactions::default(),
        })
    }
}
