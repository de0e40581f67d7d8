//! The derived columns against a second implementation, which builds trees, and the ends of each rule.

use std::borrow::Cow;
use std::collections::BTreeMap;

use proptest::collection::btree_map;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::value::RawValue;

use crate::archive::Derived;
use crate::event::Content;

fn of<'a>(event_type: &str, payload: &'a str, metadata: &'a str) -> Derived<'a> {
    Derived::of(event_type, &Content::Kept { salt: [0; 16], payload, metadata })
}

type Members = BTreeMap<String, Box<RawValue>>;

fn members(text: &str) -> Members {
    serde_json::from_str(text).unwrap_or_default()
}

fn first<'m>(sources: &[&'m Members], names: &[&str]) -> Option<&'m str> {
    sources.iter().find_map(|source| names.iter().find_map(|name| source.get(*name))).map(|raw| raw.get())
}

fn naive_text(raw: &str) -> Option<Cow<'static, str>> {
    let text: String = serde_json::from_str(raw).ok()?;
    let control = text.chars().any(|c| matches!(c as u32, 0..=0x1f | 0x7f..=0x9f));
    (!text.is_empty() && text.len() <= 256 && !control).then_some(Cow::Owned(text))
}

fn naive_whole(raw: &str) -> Option<i64> {
    if raw.chars().all(|c| c.is_ascii_digit()) { raw.parse().ok() } else { None }
}

fn is_number(raw: &str) -> bool {
    raw.starts_with(|c: char| c == '-' || c.is_ascii_digit())
}

/// Schoolbook: writes the number out with all its zeros, then cuts and rounds.
fn naive_cost(raw: &str) -> Option<i128> {
    if !is_number(raw) {
        return None;
    }
    let unsigned = raw.trim_start_matches('-').to_lowercase();
    let (mantissa, exponent) = unsigned.split_once('e').unwrap_or((&unsigned, "0"));
    let exponent: i32 = exponent.parse().unwrap();
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let zeros = "0".repeat(60);
    // The point stands after the whole part and 60 zeros before it; it moves by the exponent and 12 places.
    let digits = format!("{zeros}{whole}{fraction}{zeros}");
    let point = (60 + whole.len() as i32 + exponent + 12) as usize;
    let kept = digits[..point].trim_start_matches('0');
    let up = digits.as_bytes()[point] >= b'5';
    let value = if kept.len() > 30 { i128::MAX / 2 } else { format!("0{kept}").parse::<i128>().unwrap() };
    let value = (value + i128::from(up)).min(10i128.pow(24));
    Some(if raw.starts_with('-') { -value } else { value })
}

fn naive(event_type: &str, payload: &str, metadata: &str) -> Derived<'static> {
    let (payload, metadata) = (members(payload), members(metadata));
    let usage = payload.get("usage").map(|raw| members(raw.get())).unwrap_or_default();
    let own = [&payload];
    let tokens = [&usage, &payload];
    let traced = [&payload, &metadata];
    Derived {
        tool_name: first(&own, &["toolName", "tool_name"]).and_then(naive_text),
        call_id: first(&own, &["callId", "call_id"]).and_then(naive_text),
        provider: first(&own, &["provider"]).and_then(naive_text),
        model: first(&own, &["model"]).and_then(naive_text),
        input_tokens: first(&tokens, &["inputTokens", "input_tokens"]).and_then(naive_whole),
        output_tokens: first(&tokens, &["outputTokens", "output_tokens"]).and_then(naive_whole),
        total_tokens: first(&tokens, &["totalTokens", "total_tokens"]).and_then(naive_whole),
        cost_usd: first(&own, &["costUsd", "cost_usd"]).and_then(naive_cost),
        duration_ms: first(&own, &["durationMs", "duration_ms"])
            .filter(|raw| is_number(raw))
            .and_then(|raw| raw.parse().ok().filter(|d: &f64| d.is_finite())),
        success: match (first(&own, &["success"]), event_type) {
            (Some("true"), _) | (None, "tool_response") => Some(true),
            (Some("false"), _) | (None, "tool_error") => Some(false),
            _ => None,
        },
        trace_id: first(&traced, &["traceId", "trace_id"]).and_then(naive_text),
        span_id: first(&traced, &["spanId", "span_id"]).and_then(naive_text),
    }
}

const NAMES: [&str; 24] = [
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
    "other",
    "ToolName",
];

/// A JSON string of any text, in one of its spellings.
fn spelled(text: &str, escape_all: bool) -> String {
    if !escape_all {
        return serde_json::to_string(text).unwrap();
    }
    let units: String = text.encode_utf16().map(|u| format!("\\u{u:04x}")).collect();
    format!("\"{units}\"")
}

fn number() -> impl Strategy<Value = String> {
    let digits = "(-?)(0|[1-9][0-9]{0,20})(\\.[0-9]{1,16})?([eE][+-]?[0-9]{1,2})?";
    digits.prop_filter("within the schoolbook's zeros", |text| {
        text.to_lowercase().split_once('e').is_none_or(|(_, e)| e.parse::<i32>().unwrap().abs() <= 45)
    })
}

fn scalar() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => ("\\PC{0,8}", any::<bool>()).prop_map(|(text, escaped)| spelled(&text, escaped)),
        1 => (254usize..260, any::<bool>()).prop_map(|(n, escaped)| spelled(&"a".repeat(n), escaped)),
        1 => select(vec!["\u{0}", "a\n", "\u{7f}", "\u{9f}", "\u{a0}", ""]).prop_map(|t| spelled(t, true)),
        3 => any::<u64>().prop_map(|n| n.to_string()),
        3 => number(),
        1 => select(vec!["true", "false", "null", "[]", "{}", "[1]"]).prop_map(str::to_owned),
    ]
}

fn object(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    btree_map(select(NAMES.to_vec()), (value, any::<bool>()), 0..12).prop_map(|members| {
        let members = members.iter().map(|(name, (value, escaped))| {
            format!("{}:{value}", spelled(name, *escaped && name.len() % 3 == 0))
        });
        format!("{{{}}}", members.collect::<Vec<_>>().join(","))
    })
}

fn payload() -> impl Strategy<Value = String> {
    let value = prop_oneof![4 => scalar(), 1 => object(scalar())];
    prop_oneof![8 => object(value), 1 => scalar()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn two_implementations_agree(
        event_type in select(vec!["tool_call", "tool_response", "tool_error"]),
        payload in payload(),
        metadata in object(scalar()),
    ) {
        prop_assert_eq!(of(event_type, &payload, &metadata), naive(event_type, &payload, &metadata));
    }

    /// Payloads are checked before they come here, but nothing leans on it.
    #[test]
    fn no_text_panics(payload in "[{}\\[\\],:\"\\\\a-u0-9.eE -]{0,60}", metadata in "\\PC{0,20}") {
        of("tool_call", &payload, &metadata);
        let cut = r#"{"toolName":"\ud83e\udea2","usage":{"inputTokens":1},"costUsd":1}"#;
        for end in 0..cut.len() {
            of("tool_call", &cut[..end], &metadata);
        }
    }
}

#[test]
fn of_several_names_the_first_decides_whatever_its_value() {
    assert_eq!(of("x", r#"{"tool_name":"b","toolName":null}"#, "{}").tool_name, None);
    assert_eq!(of("x", r#"{"tool_name":"b"}"#, "{}").tool_name.as_deref(), Some("b"));
    let nested = r#"{"inputTokens":5,"usage":{"input_tokens":-1}}"#;
    assert_eq!(of("x", nested, "{}").input_tokens, None);
    assert_eq!(of("x", r#"{"inputTokens":5,"usage":7}"#, "{}").input_tokens, Some(5));
    assert_eq!(of("x", r#"{"trace_id":7}"#, r#"{"traceId":"m"}"#).trace_id, None);
    assert_eq!(of("x", "[]", r#"{"trace_id":"m"}"#).trace_id.as_deref(), Some("m"));
    assert_eq!(of("tool_response", r#"{"success":"yes"}"#, "{}").success, None);
    assert_eq!(of("tool_response", "[]", "{}").success, Some(true));
    assert_eq!(of("tool_error", "{}", "{}").success, Some(false));
}

#[test]
fn nothing_is_derived_of_what_is_erased() {
    assert_eq!(Derived::of("tool_response", &Content::Erased { digest: [1; 32] }), Derived::default());
}

#[test]
fn whole_numbers_end_below_2_63() {
    let tokens = |text: &str| of("x", &format!(r#"{{"totalTokens":{text}}}"#), "{}").total_tokens;
    assert_eq!(tokens("9223372036854775807"), Some(i64::MAX));
    for other in ["9223372036854775808", "99999999999999999999999", "-0", "1.0", "1e3", "\"1\""] {
        assert_eq!(tokens(other), None, "{other}");
    }
}

#[test]
fn dollars_are_counted_exactly_and_clamped() {
    let cost = |text: &str| of("x", &format!(r#"{{"costUsd":{text}}}"#), "{}").cost_usd;
    let most = 10i128.pow(24);
    let cases = [
        ("0.00384", 3_840_000_000),
        ("1.5E-12", 2),
        ("-1.5e-12", -2),
        ("4.999999e-13", 0),
        ("5e-13", 1),
        ("5e-14", 0),
        ("1000000000000.0000000000005", most),
        ("999999999999.9999999999995", most),
        ("999999999999.9999999999994", most - 1),
        ("-1e999999999999999999999999", -most),
        ("1e-999999999999999999999999", 0),
        ("0e999999999999999999999999", 0),
        ("-0", 0),
    ];
    for (text, units) in cases {
        assert_eq!(cost(text), Some(units), "{text}");
    }
    assert_eq!(cost("\"1\""), None);
}

#[test]
fn a_duration_is_the_nearest_double_and_never_infinite() {
    let duration = |text: &str| of("x", &format!(r#"{{"durationMs":{text}}}"#), "{}").duration_ms;
    assert_eq!(duration("0.1"), Some(0.1));
    assert_eq!(duration("-2"), Some(-2.0));
    assert_eq!(duration("1e309"), None);
    assert_eq!(duration("1e-400"), Some(0.0));
    assert_eq!(duration("true"), None);
}
