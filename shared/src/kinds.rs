//! The known event types: the shape of each payload, and what the ledger reads out of it.
//!
//! Facts are those of the AgentLens events page; `docs/events.md` is generated from this table. Unknown types are
//! the native API's business: they are accepted as they come. A member that the table does not name is kept, never
//! refused: payloads belong to their writers. `null` stands for an absent optional member, as published clients
//! send it.

use crate::json::{JsonError, Kind as JsonKind, Members, Reader};
use crate::limits;

/// What the ledger does with an event of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Starts (or restarts) a session.
    SessionStart,
    /// Ends it.
    SessionEnd,
    /// Counts as a tool call.
    ToolCall,
    /// Counts as an error, however loud it is.
    ToolError,
    /// Counts as a model call, with tokens and cost.
    LlmResponse,
    /// Adds cost.
    Cost,
    /// Is kept, and no more.
    Other,
}

/// What a member's value must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A string of at least one character.
    Name,
    /// Any string.
    Text,
    /// A string or `null`.
    TextOrNull,
    /// Any number.
    Number,
    /// `true` or `false`.
    Flag,
    /// An object.
    Object,
    /// An array.
    Array,
    /// Anything at all, `null` too.
    Any,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// An object with the numbers `inputTokens`, `outputTokens` and `totalTokens`.
    Usage,
}

impl Shape {
    /// Words for it, for errors and for docs/events.md.
    pub fn describe(self) -> String {
        match self {
            Self::Name => "non-empty string".into(),
            Self::Text => "string".into(),
            Self::TextOrNull => "string or null".into(),
            Self::Number => "number".into(),
            Self::Flag => "boolean".into(),
            Self::Object => "object".into(),
            Self::Array => "array".into(),
            Self::Any => "any value".into(),
            Self::OneOf(words) => format!("one of {}", words.join(", ")),
            Self::Usage => "object with the numbers inputTokens, outputTokens, totalTokens".into(),
        }
    }

    /// Whether `value` (compact JSON) has this shape.
    fn fits(self, value: &str) -> bool {
        let first = value.as_bytes().first().copied().unwrap_or(0);
        match self {
            Self::Name => first == b'"' && value.len() > 2,
            Self::Text => first == b'"',
            Self::TextOrNull => first == b'"' || first == b'n',
            Self::Number => matches!(first, b'-' | b'0'..=b'9'),
            Self::Flag => matches!(first, b't' | b'f'),
            Self::Object => first == b'{',
            Self::Array => first == b'[',
            Self::Any => true,
            Self::OneOf(words) => words.iter().any(|word| value[1..].strip_suffix('"') == Some(word)),
            Self::Usage => {
                let mut found = 0;
                first == b'{'
                    && each_member(value, |name, kind, _| {
                        let wanted = matches!(name, "inputTokens" | "outputTokens" | "totalTokens");
                        found += u8::from(wanted && kind == JsonKind::Number);
                    })
                    && found == 3
            }
        }
    }
}

/// One member of a payload.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Its shape.
    pub shape: Shape,
    /// Whether it must be there.
    pub required: bool,
}

/// One known event type.
#[derive(Debug, Clone, Copy)]
pub struct KnownType {
    /// The type, as sent.
    pub name: &'static str,
    /// What the ledger does with it.
    pub role: Role,
    /// True for the 18 types of the AgentLens page, false for the 3 that came later.
    pub on_page: bool,
    /// Members of its payload.
    pub fields: &'static [Field],
}

const fn req(name: &'static str, shape: Shape) -> Field {
    Field { name, shape, required: true }
}

const fn opt(name: &'static str, shape: Shape) -> Field {
    Field { name, shape, required: false }
}

const fn page(name: &'static str, role: Role, fields: &'static [Field]) -> KnownType {
    KnownType { name, role, on_page: true, fields }
}

const fn later(name: &'static str, fields: &'static [Field]) -> KnownType {
    KnownType { name, role: Role::Other, on_page: false, fields }
}

use Shape::{Any, Array, Flag, Name, Number, Object, OneOf, Text, TextOrNull, Usage as UsageShape};

const APPROVAL: &[Field] =
    &[req("requestId", Name), req("action", Name), req("decidedBy", Name), opt("reason", Text)];

/// Every known type, in the order of the page.
pub const KNOWN: &[KnownType] = &[
    page(
        "session_started",
        Role::SessionStart,
        &[
            opt("agentName", Text),
            opt("agentVersion", Text),
            opt("mcpClientInfo", Object),
            opt("tags", Array),
        ],
    ),
    page(
        "session_ended",
        Role::SessionEnd,
        &[
            req("reason", OneOf(&["completed", "error", "timeout", "manual"])),
            opt("summary", Text),
            opt("totalToolCalls", Number),
            opt("totalDurationMs", Number),
        ],
    ),
    page(
        "tool_call",
        Role::ToolCall,
        &[req("toolName", Name), req("callId", Name), req("arguments", Object), opt("serverName", Text)],
    ),
    page(
        "tool_response",
        Role::Other,
        &[req("callId", Name), req("toolName", Name), req("result", Any), req("durationMs", Number)],
    ),
    page(
        "tool_error",
        Role::ToolError,
        &[
            req("callId", Name),
            req("toolName", Name),
            req("error", Any),
            opt("errorCode", Text),
            req("durationMs", Number),
        ],
    ),
    page(
        "approval_requested",
        Role::Other,
        &[req("requestId", Name), req("action", Name), req("params", Object), req("urgency", Text)],
    ),
    page("approval_granted", Role::Other, APPROVAL),
    page("approval_denied", Role::Other, APPROVAL),
    page("approval_expired", Role::Other, APPROVAL),
    page(
        "form_submitted",
        Role::Other,
        &[req("submissionId", Name), req("formId", Name), opt("formName", Text), req("fieldCount", Number)],
    ),
    page(
        "form_completed",
        Role::Other,
        &[
            req("submissionId", Name),
            req("formId", Name),
            req("completedBy", Name),
            req("durationMs", Number),
        ],
    ),
    page(
        "form_expired",
        Role::Other,
        &[req("submissionId", Name), req("formId", Name), req("expiredAfterMs", Number)],
    ),
    page(
        "llm_call",
        Role::Other,
        &[
            req("callId", Name),
            req("provider", Text),
            req("model", Text),
            req("messages", Array),
            opt("systemPrompt", Text),
            opt("parameters", Object),
            opt("tools", Array),
            opt("redacted", Flag),
        ],
    ),
    page(
        "llm_response",
        Role::LlmResponse,
        &[
            req("callId", Name),
            req("provider", Text),
            req("model", Text),
            req("completion", TextOrNull),
            opt("toolCalls", Array),
            req("finishReason", Text),
            req("usage", UsageShape),
            req("costUsd", Number),
            req("latencyMs", Number),
            opt("redacted", Flag),
        ],
    ),
    page(
        "cost_tracked",
        Role::Cost,
        &[
            req("provider", Text),
            req("model", Text),
            req("inputTokens", Number),
            req("outputTokens", Number),
            req("totalTokens", Number),
            req("costUsd", Number),
            opt("trigger", Text),
        ],
    ),
    page(
        "alert_triggered",
        Role::Other,
        &[
            req("alertRuleId", Name),
            req("alertName", Name),
            req("condition", Text),
            req("currentValue", Number),
            req("threshold", Number),
            req("message", Text),
        ],
    ),
    page(
        "alert_resolved",
        Role::Other,
        &[req("alertRuleId", Name), req("alertName", Name), opt("resolvedBy", Text)],
    ),
    page("custom", Role::Other, &[req("type", Text), req("data", Object)]),
    later(
        "retrieval",
        &[
            req("query", Text),
            opt("retrieverName", Text),
            opt("topK", Number),
            opt("resultCount", Number),
            opt("durationMs", Number),
        ],
    ),
    later(
        "embedding",
        &[
            req("model", Text),
            req("inputCount", Number),
            opt("dimensions", Number),
            opt("durationMs", Number),
        ],
    ),
    later("chain_step", &[req("name", Text), opt("stepType", Text), opt("durationMs", Number)]),
];

/// Looks a type up.
pub fn find(event_type: &str) -> Option<&'static KnownType> {
    KNOWN.iter().find(|known| known.name == event_type)
}

/// A member that does not fit its type's table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// Name of the member; empty for the payload itself.
    pub member: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

impl KnownType {
    /// Checks a payload: compact JSON, and the members of its top level as they were found while it was copied.
    /// Gives everything that does not fit.
    pub fn misfits(&self, payload: &str, members: &Members) -> Vec<Misfit> {
        if !payload.starts_with('{') {
            return vec![Misfit {
                member: "",
                problem: format!("the payload of {} must be an object", self.name),
            }];
        }
        let mut misfits = Vec::new();
        for field in self.fields {
            match members.iter(payload).find(|(name, _)| *name == field.name) {
                None if field.required => misfits.push(Misfit {
                    member: field.name,
                    problem: format!("required: {}", field.shape.describe()),
                }),
                Some((_, value)) if !field.shape.fits(value) && (field.required || value != "null") => {
                    misfits.push(Misfit {
                        member: field.name,
                        problem: format!("expected {}, found {}", field.shape.describe(), describe(value)),
                    });
                }
                _ => {}
            }
        }
        misfits
    }
}

fn describe(value: &str) -> String {
    match Reader::new(value).kind() {
        Ok(JsonKind::String) if value.len() <= 40 => value.to_owned(),
        Ok(kind) => kind.name().to_owned(),
        Err(_) => "nothing".to_owned(),
    }
}

/// Calls `member` with the name, kind and text of each member of an object; false if it is not one.
fn each_member(object: &str, mut member: impl FnMut(&str, JsonKind, &str)) -> bool {
    let walked: Result<(), JsonError> = Reader::new(object).object(|reader, name| {
        let kind = reader.kind()?;
        let from = reader.position();
        reader.skip()?;
        member(name, kind, &object[from..reader.position()]);
        Ok(())
    });
    walked.is_ok()
}

/// Tokens and cost in the payload of a model's response or a cost event; zero where they are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Tokens in, rounded to whole ones.
    pub input_tokens: u64,
    /// Tokens out, rounded to whole ones.
    pub output_tokens: u64,
    /// Cost in 10⁻¹² US dollars.
    pub cost_picodollars: i128,
}

impl Usage {
    /// Reads it out of a payload.
    pub fn read(payload: &str) -> Self {
        let mut this = Self::default();
        each_member(payload, |name, kind, value| match (name, kind) {
            ("usage", JsonKind::Object) => {
                each_member(value, |name, kind, value| this.tokens(name, kind, value));
            }
            ("costUsd", JsonKind::Number) => this.cost_picodollars = picodollars(value),
            _ => this.tokens(name, kind, value),
        });
        this
    }

    fn tokens(&mut self, name: &str, kind: JsonKind, value: &str) {
        let slot = match name {
            "inputTokens" => &mut self.input_tokens,
            "outputTokens" => &mut self.output_tokens,
            _ => return,
        };
        if kind == JsonKind::Number {
            // `as` saturates: below zero is zero.
            *slot = value.parse().unwrap_or_else(|_| value.parse::<f64>().unwrap_or(0.0).round() as u64);
        }
    }
}

/// Costs are clamped to ± 10¹² dollars, in units of 10⁻¹².
const COST_MAX: i128 = 10i128.pow(24);

/// A JSON number of dollars in units of 10⁻¹²: exact up to 12 decimals, then half away from zero; clamped.
pub(crate) fn picodollars(number: &str) -> i128 {
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (negative, digits) = match mantissa.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, mantissa),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    // An exponent past 64 bits moves the point out of sight, to the side that its sign says.
    let exponent =
        exponent.parse::<i64>().unwrap_or(if exponent.starts_with('-') { i64::MIN } else { i64::MAX });
    // How many of the digits stand before the point once it has moved 12 places to the right, and by the exponent.
    let point = exponent.saturating_add(whole.len() as i64).saturating_add(12);
    let mut value = 0i128;
    let mut length = 0i64;
    let digits = whole.bytes().chain(fraction.bytes());
    for digit in digits.map(|b| i128::from(b) - i128::from(b'0')) {
        if length < point {
            value = (value * 10 + digit).min(COST_MAX);
        } else {
            value += i128::from(length == point && digit >= 5);
            break;
        }
        length += 1;
    }
    // 25 zeros take anything but zero to the clamp.
    for _ in length..point.min(length.saturating_add(25)) {
        value = (value * 10).min(COST_MAX);
    }
    let value = value.min(COST_MAX);
    if negative { -value } else { value }
}

/// What a session's start says of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Start {
    /// The agent's name, if it is short enough to keep.
    pub agent_name: Option<String>,
    /// Tags that are short enough to keep, as many as are kept.
    pub tags: Vec<String>,
}

impl Start {
    /// Reads it out of a payload.
    pub fn read(payload: &str) -> Self {
        let mut this = Self::default();
        each_member(payload, |name, kind, value| match (name, kind) {
            ("agentName", JsonKind::String) => {
                this.agent_name =
                    text(value).filter(|n| !n.is_empty() && n.len() <= limits::AGENT_ID_BYTES_MAX);
            }
            ("tags", JsonKind::Array) => {
                let tags = serde_json::from_str::<Vec<serde_json::Value>>(value).unwrap_or_default();
                this.tags = tags
                    .into_iter()
                    .filter_map(|tag| tag.as_str().map(str::to_owned))
                    .filter(|tag| tag.len() <= limits::SUMMARY_TAG_BYTES_MAX)
                    .take(limits::SUMMARY_TAGS_MAX)
                    .collect();
            }
            _ => {}
        });
        this
    }
}

/// The reason in the payload of a session's end.
pub fn end_reason(payload: &str) -> Option<String> {
    let mut reason = None;
    each_member(payload, |name, kind, value| {
        if name == "reason" && kind == JsonKind::String {
            reason = text(value);
        }
    });
    reason
}

fn text(value: &str) -> Option<String> {
    Reader::new(value).string().ok().map(std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_18_types_and_3_came_later() {
        assert_eq!(KNOWN.iter().filter(|k| k.on_page).count(), 18);
        assert_eq!(KNOWN.iter().filter(|k| !k.on_page).count(), 3);
    }

    #[test]
    fn dollars_are_counted_exactly() {
        let cases = [
            ("0", 0),
            ("0.00384", 3_840_000_000),
            ("1e-12", 1),
            ("1.5E-12", 2),
            ("4e-13", 0),
            ("-2.5", -2_500_000_000_000),
            ("12e3", 12_000_000_000_000_000),
            ("0.1", 100_000_000_000),
            ("1e999999999999", 10i128.pow(24)),
            ("1e-999", 0),
            ("0.000000000001", 1),
            ("0e5", 0),
            // The next digit decides, wherever the point has moved to.
            ("5e-13", 1),
            ("-0.0000000000005", -1),
            ("6e-14", 0),
            // Past the clamp by a rounding, or by an exponent of more than 32 bits, to either side.
            ("999999999999.9999999999995", 10i128.pow(24)),
            ("-1000000000000.0000000000005", -10i128.pow(24)),
            ("1e-99999999999", 0),
            ("-1e99999999999999999999", -10i128.pow(24)),
        ];
        for (text, pico) in cases {
            assert_eq!(picodollars(text), pico, "{text}");
        }
    }

    #[test]
    fn usage_is_found_nested_and_flat() {
        let nested = r#"{"usage":{"inputTokens":3,"outputTokens":4.0,"totalTokens":7},"costUsd":0.5}"#;
        let flat = r#"{"inputTokens":3,"outputTokens":4,"costUsd":5e-1}"#;
        let expected = Usage { input_tokens: 3, output_tokens: 4, cost_picodollars: 500_000_000_000 };
        assert_eq!(Usage::read(nested), expected);
        assert_eq!(Usage::read(flat), expected);
        assert_eq!(Usage::read("[1]"), Usage::default());
    }

    #[test]
    fn misfits_name_the_member() {
        let check = |kind: &str, payload: &str| {
            let (mut out, mut members) = (String::new(), Members::default());
            Reader::new(payload).compact(&mut out, &mut members).unwrap();
            let misfits = find(kind).unwrap().misfits(&out, &members);
            misfits.into_iter().map(|m| m.member).collect::<Vec<_>>()
        };
        assert_eq!(check("tool_call", r#"{"toolName":"x","callId":"c","arguments":{}}"#), [""; 0]);
        assert_eq!(
            check("tool_call", r#"{"toolName":"","arguments":[]}"#),
            ["toolName", "callId", "arguments"]
        );
        assert_eq!(
            check("tool_call", r#"{"toolName":"x","callId":"c","arguments":{},"serverName":null}"#),
            [""; 0]
        );
        assert_eq!(check("session_ended", r#"{"reason":"bored"}"#), ["reason"]);
        assert_eq!(check("session_ended", r#"{"reason":1}"#), ["reason"]);
        assert_eq!(check("custom", "[]"), [""]);
    }
}
