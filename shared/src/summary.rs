//! What is counted about a run of events: a segment's, or a whole session's. Summaries of neighbouring runs merge.
//!
//! Derived from the events alone, so a verifier recomputes it. The rules are those of the AgentLens session
//! (docs/events.md): errors are events of severity `error` or `critical` and tool errors, `session_started` never;
//! model calls and tokens come from responses; cost from responses and cost events.

use std::collections::BTreeMap;

use crate::codec::{Cursor, Malformed, put_bytes, put_signed, put_varint};
use crate::event::{Content, EventRef};
use crate::ids::Severity;
use crate::kinds::{self, Role};
use crate::limits;
use crate::time::Micros;

/// How often each name occurs, for at most [`limits::SUMMARY_NAMES_MAX`] names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tally {
    counts: BTreeMap<String, u64>,
    many: bool,
}

impl Tally {
    fn add(&mut self, name: &str, count: u64) {
        if let Some(known) = self.counts.get_mut(name) {
            // What is decoded may be hostile: sums stop at the top instead of wrapping.
            *known = known.saturating_add(count);
        } else if self.many || self.counts.len() == limits::SUMMARY_NAMES_MAX {
            // Too many to name: forget them all, so that two orders of the same events agree.
            self.many = true;
            self.counts.clear();
        } else {
            self.counts.insert(name.to_owned(), count);
        }
    }

    fn merge(&mut self, other: &Self) {
        if other.many {
            self.many = true;
            self.counts.clear();
        }
        for (name, count) in &other.counts {
            if self.many {
                return;
            }
            self.add(name, *count);
        }
    }

    /// How many events bear this name; `None` if there were too many names to say.
    pub fn count(&self, name: &str) -> Option<u64> {
        if self.many { None } else { Some(self.counts.get(name).copied().unwrap_or(0)) }
    }

    /// The names, if they were few enough.
    pub fn names(&self) -> Option<impl Iterator<Item = (&str, u64)>> {
        (!self.many).then(|| self.counts.iter().map(|(name, count)| (name.as_str(), *count)))
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, if self.many { u64::MAX } else { self.counts.len() as u64 });
        for (name, count) in &self.counts {
            put_bytes(out, name.as_bytes());
            put_varint(out, *count);
        }
    }

    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, Malformed> {
        let count = cursor.varint()?;
        if count == u64::MAX {
            return Ok(Self { counts: BTreeMap::new(), many: true });
        }
        if count > limits::SUMMARY_NAMES_MAX as u64 {
            return Err(Malformed("more names than a tally holds"));
        }
        let mut counts = BTreeMap::new();
        let mut last: Option<&str> = None;
        for _ in 0..count {
            let name = cursor.text()?;
            if last.is_some_and(|last| name <= last) {
                return Err(Malformed("names that do not rise"));
            }
            last = Some(name);
            counts.insert(name.to_owned(), cursor.varint()?);
        }
        Ok(Self { counts, many: false })
    }
}

/// How a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Status {
    /// Not ended, or started again.
    #[default]
    Active,
    /// Ended, other than by an error.
    Completed,
    /// Ended by an error.
    Error,
}

impl Status {
    /// Reads the word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Active, Self::Completed, Self::Error].into_iter().find(|status| status.as_str() == word)
    }

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Completed => "completed",
            Self::Error => "error",
        }
    }
}

/// Counts over a run of events of one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// How many events.
    pub events: u64,
    /// Lowest timestamp.
    pub time_min: Micros,
    /// Highest timestamp.
    pub time_max: Micros,
    /// Timestamp of the first event by sequence.
    pub started_at: Micros,
    /// Agent of the first event by sequence.
    pub first_agent: String,
    /// By severity, `debug` first.
    pub severities: [u64; 5],
    /// By event type, as sent.
    pub types: Tally,
    /// By agent.
    pub agents: Tally,
    /// Tool calls.
    pub tool_calls: u64,
    /// Errors.
    pub errors: u64,
    /// Model calls answered.
    pub llm_calls: u64,
    /// Tokens given to models.
    pub input_tokens: u64,
    /// Tokens that models gave.
    pub output_tokens: u64,
    /// Cost in 10⁻¹² US dollars.
    pub cost_picodollars: i128,
    /// What the last start or end said, if one came.
    pub status: Option<Status>,
    /// Timestamp of the last end, if one came.
    pub ended_at: Option<Micros>,
    /// The agent's name, from the last start that gave one of at most 256 bytes.
    pub agent_name: Option<String>,
    /// Tags of the last start that gave any: at most 32, of at most 128 bytes each; others stay in the payload.
    pub tags: Vec<String>,
}

impl Summary {
    /// Of one event.
    pub fn of(event: &EventRef<'_>) -> Self {
        let mut severities = [0; 5];
        severities[event.severity as usize] = 1;
        let mut this = Self {
            events: 1,
            time_min: event.timestamp,
            time_max: event.timestamp,
            started_at: event.timestamp,
            first_agent: event.agent_id.to_owned(),
            severities,
            types: Tally::default(),
            agents: Tally::default(),
            tool_calls: 0,
            errors: 0,
            llm_calls: 0,
            input_tokens: 0,
            output_tokens: 0,
            cost_picodollars: 0,
            status: None,
            ended_at: None,
            agent_name: None,
            tags: Vec::new(),
        };
        this.types.add(event.event_type, 1);
        this.agents.add(event.agent_id, 1);
        this.count_content(event);
        this
    }

    /// Adds the next event.
    pub fn push(&mut self, event: &EventRef<'_>) {
        self.events += 1;
        self.time_min = self.time_min.min(event.timestamp);
        self.time_max = self.time_max.max(event.timestamp);
        self.severities[event.severity as usize] += 1;
        self.types.add(event.event_type, 1);
        self.agents.add(event.agent_id, 1);
        self.count_content(event);
    }

    fn count_content(&mut self, event: &EventRef<'_>) {
        let role = kinds::find(event.event_type).map(|k| k.role);
        let loud = event.severity >= Severity::Error;
        if (loud && role != Some(Role::SessionStart)) || role == Some(Role::ToolError) {
            self.errors += 1;
        }
        let payload = match event.content {
            Content::Kept { payload, .. } => payload,
            // What was erased was counted when it was written; its tally cannot be made again.
            Content::Erased { .. } => return,
        };
        match role {
            Some(Role::ToolCall) => self.tool_calls += 1,
            Some(Role::LlmResponse) => {
                let usage = kinds::Usage::read(payload);
                self.llm_calls += 1;
                self.input_tokens = self.input_tokens.saturating_add(usage.input_tokens);
                self.output_tokens = self.output_tokens.saturating_add(usage.output_tokens);
                self.add_cost(usage.cost_picodollars);
            }
            Some(Role::Cost) => self.add_cost(kinds::Usage::read(payload).cost_picodollars),
            Some(Role::SessionStart) => {
                self.status = Some(Status::Active);
                let start = kinds::Start::read(payload);
                if start.agent_name.is_some() {
                    self.agent_name = start.agent_name;
                }
                if !start.tags.is_empty() {
                    self.tags = start.tags;
                }
            }
            Some(Role::SessionEnd) => {
                let failed = kinds::end_reason(payload).as_deref() == Some("error");
                self.status = Some(if failed { Status::Error } else { Status::Completed });
                self.ended_at = Some(event.timestamp);
            }
            Some(Role::ToolError | Role::Other) | None => {}
        }
    }

    fn add_cost(&mut self, picodollars: i128) {
        self.cost_picodollars = self.cost_picodollars.saturating_add(picodollars);
    }

    /// Adds the run that follows this one.
    pub fn merge(&mut self, next: &Self) {
        self.events = self.events.saturating_add(next.events);
        self.time_min = self.time_min.min(next.time_min);
        self.time_max = self.time_max.max(next.time_max);
        for (mine, theirs) in self.severities.iter_mut().zip(next.severities) {
            *mine = mine.saturating_add(theirs);
        }
        self.types.merge(&next.types);
        self.agents.merge(&next.agents);
        self.tool_calls = self.tool_calls.saturating_add(next.tool_calls);
        self.errors = self.errors.saturating_add(next.errors);
        self.llm_calls = self.llm_calls.saturating_add(next.llm_calls);
        self.input_tokens = self.input_tokens.saturating_add(next.input_tokens);
        self.output_tokens = self.output_tokens.saturating_add(next.output_tokens);
        self.add_cost(next.cost_picodollars);
        self.status = next.status.or(self.status);
        self.ended_at = next.ended_at.or(self.ended_at);
        if next.agent_name.is_some() {
            self.agent_name.clone_from(&next.agent_name);
        }
        if !next.tags.is_empty() {
            self.tags.clone_from(&next.tags);
        }
    }

    /// The cost in US dollars.
    pub fn cost_usd(&self) -> f64 {
        self.cost_picodollars as f64 / 1e12
    }

    /// Appends its record.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.events);
        for time in [self.time_min, self.time_max, self.started_at] {
            put_signed(out, time.get());
        }
        put_bytes(out, self.first_agent.as_bytes());
        for count in self.severities {
            put_varint(out, count);
        }
        self.types.encode(out);
        self.agents.encode(out);
        for count in [self.tool_calls, self.errors, self.llm_calls, self.input_tokens, self.output_tokens] {
            put_varint(out, count);
        }
        put_signed(out, (self.cost_picodollars >> 64) as i64);
        put_varint(out, self.cost_picodollars as u64);
        out.push(self.status.map_or(0, |s| s as u8 + 1));
        match self.ended_at {
            Some(time) => {
                out.push(1);
                put_signed(out, time.get());
            }
            None => out.push(0),
        }
        put_bytes(out, self.agent_name.as_deref().unwrap_or_default().as_bytes());
        put_varint(out, self.tags.len() as u64);
        for tag in &self.tags {
            put_bytes(out, tag.as_bytes());
        }
    }

    /// Reads a record.
    ///
    /// # Errors
    /// If it is not one.
    pub fn decode(cursor: &mut Cursor<'_>) -> Result<Self, Malformed> {
        fn time(cursor: &mut Cursor<'_>) -> Result<Micros, Malformed> {
            Micros::new(cursor.signed()?).ok_or(Malformed("a time out of range"))
        }
        Ok(Self {
            events: cursor.varint()?,
            time_min: time(cursor)?,
            time_max: time(cursor)?,
            started_at: time(cursor)?,
            first_agent: cursor.text()?.to_owned(),
            severities: {
                let mut counts = [0; 5];
                for count in &mut counts {
                    *count = cursor.varint()?;
                }
                counts
            },
            types: Tally::decode(cursor)?,
            agents: Tally::decode(cursor)?,
            tool_calls: cursor.varint()?,
            errors: cursor.varint()?,
            llm_calls: cursor.varint()?,
            input_tokens: cursor.varint()?,
            output_tokens: cursor.varint()?,
            cost_picodollars: i128::from(cursor.signed()?) << 64 | i128::from(cursor.varint()?),
            status: match cursor.byte()? {
                0 => None,
                1 => Some(Status::Active),
                2 => Some(Status::Completed),
                3 => Some(Status::Error),
                _ => return Err(Malformed("an unknown status")),
            },
            ended_at: match cursor.byte()? {
                0 => None,
                1 => Some(time(cursor)?),
                _ => return Err(Malformed("a flag that is neither 0 nor 1")),
            },
            agent_name: Some(cursor.text()?).filter(|name| !name.is_empty()).map(str::to_owned),
            tags: {
                let count = cursor.length(limits::SUMMARY_TAGS_MAX)?;
                (0..count).map(|_| cursor.text().map(str::to_owned)).collect::<Result<_, _>>()?
            },
        })
    }
}
