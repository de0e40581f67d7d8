//! The derived columns of a row: what people filter on and sum up, out of payload and metadata (docs/format.md,
//! section 8). One walk over the payload; the verifier does the same and compares.
//!
//! The rules are exact, so that a second implementation gives the same values: no guess, no conversion but those
//! that the table there names.

use std::borrow::Cow;

use crate::event::Content;
use crate::ids;
use crate::json::{Kind, Reader};
use crate::kinds::picodollars;

/// Longest derived text, bytes.
const TEXT_BYTES_MAX: usize = 256;

/// The derived columns of one row.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Derived<'a> {
    /// The tool that was called.
    pub tool_name: Option<Cow<'a, str>>,
    /// Ties a call to its answer.
    pub call_id: Option<Cow<'a, str>>,
    /// Who runs the model.
    pub provider: Option<Cow<'a, str>>,
    /// The model.
    pub model: Option<Cow<'a, str>>,
    /// Tokens in.
    pub input_tokens: Option<i64>,
    /// Tokens out.
    pub output_tokens: Option<i64>,
    /// Tokens in all.
    pub total_tokens: Option<i64>,
    /// Cost in 10⁻¹² US dollars.
    pub cost_usd: Option<i128>,
    /// How long it took, ms.
    pub duration_ms: Option<f64>,
    /// Whether it worked.
    pub success: Option<bool>,
    /// Trace of a tracer.
    pub trace_id: Option<Cow<'a, str>>,
    /// Span of a tracer.
    pub span_id: Option<Cow<'a, str>>,
}

/// A member's value: its kind and its text.
type Value<'a> = (Kind, &'a str);

/// The members of one object that any column looks for.
#[derive(Default)]
struct Found<'a> {
    values: [Option<Value<'a>>; NAMES.len()],
}

/// Every name that is looked up; of a pair the first decides.
const NAMES: [&str; 22] = [
    "toolName",
    "tool_name",
    "callId",
    "call_id",
    "provider",
    "model",
    "usage",
    "inputTokens",
    "input_tokens",
    "outputTokens",
    "output_tokens",
    "totalTokens",
    "total_tokens",
    "costUsd",
    "cost_usd",
    "durationMs",
    "duration_ms",
    "success",
    "traceId",
    "trace_id",
    "spanId",
    "span_id",
];

impl<'a> Found<'a> {
    /// Of a text that is no object, nothing.
    fn of(object: &'a str) -> Self {
        let mut found = Self::default();
        // What is no JSON has no members, whatever came before the mistake.
        match found.walk(object) {
            Some(()) => found,
            None => Self::default(),
        }
    }

    /// Payload and metadata were checked before they came here, by the writer's chain check or the verifier's: this
    /// walk only finds where members begin and end. `None` if the text is not compact JSON of an object.
    fn walk(&mut self, object: &'a str) -> Option<()> {
        let bytes = object.as_bytes();
        if bytes.first() != Some(&b'{') || bytes.len() <= 2 {
            return None;
        }
        let mut at = 1;
        loop {
            let name_end = string_end(bytes, at)?;
            let name = object.get(at + 1..name_end - 1)?;
            if bytes.get(name_end) != Some(&b':') {
                return None;
            }
            let (from, end) = (name_end + 1, value_end(bytes, name_end + 1)?);
            let decoded = if name.contains('\\') {
                Reader::new(object.get(at..name_end)?).string().ok()?
            } else {
                Cow::Borrowed(name)
            };
            if let Some(index) = NAMES.iter().position(|n| *n == decoded) {
                self.values[index] = Some((kind(bytes[from]), object.get(from..end)?));
            }
            match bytes.get(end) {
                Some(b',') => at = end + 1,
                Some(b'}') if end + 1 == bytes.len() => return Some(()),
                _ => return None,
            }
        }
    }

    fn get(&self, names: &[&str]) -> Option<Value<'a>> {
        names.iter().find_map(|name| self.values[NAMES.iter().position(|n| n == name)?])
    }
}

/// The kind of a value that begins with this byte.
fn kind(first: u8) -> Kind {
    match first {
        b'{' => Kind::Object,
        b'[' => Kind::Array,
        b'"' => Kind::String,
        b't' | b'f' => Kind::Bool,
        b'n' => Kind::Null,
        _ => Kind::Number,
    }
}

/// Where the string that begins at `at` ends, its quotes included.
fn string_end(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes.get(at) != Some(&b'"') {
        return None;
    }
    let special = |b: u8| b == b'"' || b == b'\\';
    let mut at = at + 1;
    loop {
        // Sixteen at a time, in a form that compilers turn into vector code.
        while bytes
            .get(at..at + 16)
            .is_some_and(|chunk| !chunk.iter().fold(false, |any, b| any | special(*b)))
        {
            at += 16;
        }
        at += bytes[at..].iter().position(|b| special(*b))?;
        if bytes[at] == b'"' {
            return Some(at + 1);
        }
        // A backslash and what it escapes.
        at += 2;
        if at > bytes.len() {
            return None;
        }
    }
}

/// Where the value that begins at `at` ends.
fn value_end(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes.get(at)? {
        b'"' => string_end(bytes, at),
        b'{' | b'[' => {
            let mut depth = 0usize;
            let mut at = at;
            loop {
                match bytes.get(at)? {
                    b'"' => at = string_end(bytes, at)?,
                    b'{' | b'[' => (depth, at) = (depth + 1, at + 1),
                    b'}' | b']' => {
                        (depth, at) = (depth - 1, at + 1);
                        if depth == 0 {
                            return Some(at);
                        }
                    }
                    _ => at += 1,
                }
            }
        }
        b'-' | b'0'..=b'9' | b't' | b'f' | b'n' => {
            let length = bytes[at..].iter().position(|b| matches!(b, b',' | b'}' | b']'))?;
            Some(at + length)
        }
        _ => None,
    }
}

impl<'a> Derived<'a> {
    /// What payload and metadata give. Texts of no JSON give nothing.
    pub fn of(event_type: &str, content: &Content<'a>) -> Self {
        let Content::Kept { payload, metadata, .. } = *content else { return Self::default() };
        let found = Found::of(payload);
        let usage = match found.get(&["usage"]) {
            Some((Kind::Object, text)) => Found::of(text),
            _ => Found::default(),
        };
        let tokens = |names: &[&str]| usage.get(names).or_else(|| found.get(names)).and_then(whole);
        let mut other = None;
        let mut traced = |names: &[&str]| {
            let in_metadata = || other.get_or_insert_with(|| Found::of(metadata)).get(names);
            found.get(names).or_else(in_metadata).and_then(text)
        };
        Self {
            trace_id: traced(&["traceId", "trace_id"]),
            span_id: traced(&["spanId", "span_id"]),
            tool_name: found.get(&["toolName", "tool_name"]).and_then(text),
            call_id: found.get(&["callId", "call_id"]).and_then(text),
            provider: found.get(&["provider"]).and_then(text),
            model: found.get(&["model"]).and_then(text),
            input_tokens: tokens(&["inputTokens", "input_tokens"]),
            output_tokens: tokens(&["outputTokens", "output_tokens"]),
            total_tokens: tokens(&["totalTokens", "total_tokens"]),
            cost_usd: found.get(&["costUsd", "cost_usd"]).and_then(cost),
            duration_ms: found.get(&["durationMs", "duration_ms"]).and_then(double),
            success: match found.get(&["success"]) {
                Some((Kind::Bool, word)) => Some(word == "true"),
                Some(_) => None,
                None => match event_type {
                    "tool_response" => Some(true),
                    "tool_error" => Some(false),
                    _ => None,
                },
            },
        }
    }
}

/// A short text.
fn text((kind, text): Value<'_>) -> Option<Cow<'_, str>> {
    if kind != Kind::String {
        return None;
    }
    let text = Reader::new(text).string().ok()?;
    ids::check_text(&text, "text", TEXT_BYTES_MAX).ok().map(|()| text)
}

/// A whole number.
fn whole((kind, text): Value<'_>) -> Option<i64> {
    // A number that does not begin with `-` and has no point or exponent is digits alone.
    if kind == Kind::Number && text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

fn double((kind, text): Value<'_>) -> Option<f64> {
    if kind == Kind::Number { text.parse().ok().filter(|d: &f64| d.is_finite()) } else { None }
}

fn cost((kind, text): Value<'_>) -> Option<i128> {
    (kind == Kind::Number).then(|| picodollars(text))
}
