//! That the data set is what it says: reproducible, complete, of the sizes it names.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::json::{Nanos, write_time};
use super::sessions::UTC;
use super::vocabulary::{SCRIPTS, offset};
use super::{LIVE_SESSIONS, Mode, SECOND_US, START_US, SampleConfig, SampleEvent, generate};

fn config(mode: Mode, events: usize) -> SampleConfig {
    SampleConfig { seed: 7, events, mode, start_us: START_US }
}

/// Every line is an event that the API takes, and says what its columns say.
fn assert_is_event(event: &SampleEvent) -> Value {
    assert!(event.json.len() < 900_000, "{} bytes", event.json.len());
    assert!(!event.json.contains('\n'));
    let value: Value = serde_json::from_str(&event.json).unwrap();
    assert_eq!(value["session_id"], event.session_id);
    assert_eq!(value["agent_id"], event.agent_id);
    assert_eq!(value["event_type"], event.event_type);
    assert!(value["payload"].is_object());
    for (key, member) in value.as_object().unwrap() {
        match key.as_str() {
            "session_id" | "agent_id" | "event_type" | "source_id" | "timestamp" | "compliance_tag" => {
                let text = member.as_str().unwrap();
                assert!(!text.is_empty() && text.len() <= 256 && !text.contains(char::is_control), "{text}");
            }
            "severity" => {
                let names = ["debug", "info", "warn", "error", "critical"];
                assert!(names.contains(&member.as_str().unwrap()), "{member}");
            }
            "payload" | "metadata" => assert!(member.is_object()),
            other => panic!("{other} is not a member of an event"),
        }
    }
    value
}

#[test]
fn same_seed_same_bytes() {
    for mode in [Mode::Varied, Mode::Bench] {
        let lines = |seed| -> Vec<String> {
            generate(&SampleConfig { seed, ..config(mode, 3_000) }).map(|event| event.json).collect()
        };
        let first = lines(7);
        assert_eq!(first.len(), 3_000);
        assert_eq!(first, lines(7));
        assert_ne!(first, lines(8));
        // A longer data set begins with the shorter one.
        let prefix: Vec<String> = generate(&config(mode, 100)).map(|event| event.json).collect();
        assert_eq!(prefix, first[..100]);
    }
}

#[test]
fn varied_events_are_complete_and_in_order() {
    let mut types = BTreeSet::new();
    let mut open_calls = BTreeSet::new();
    let mut seen_sessions = BTreeSet::new();
    let mut sizes = Vec::new();
    for event in generate(&config(Mode::Varied, 20_000)) {
        let value = assert_is_event(&event);
        let payload = &value["payload"];
        let call = (event.session_id.clone(), payload["callId"].to_string());
        assert_eq!(seen_sessions.insert(event.session_id.clone()), event.event_type == "session_started");
        match event.event_type {
            "tool_call" | "llm_call" => assert!(open_calls.insert(call)),
            "tool_response" | "tool_error" | "llm_response" => assert!(open_calls.remove(&call)),
            "session_ended" => {
                assert!(open_calls.iter().all(|(session, _)| *session != event.session_id))
            }
            _ => {}
        }
        if event.event_type == "llm_response" {
            let usage = &payload["usage"];
            let sum = usage["inputTokens"].as_u64().unwrap() + usage["outputTokens"].as_u64().unwrap();
            assert_eq!(usage["totalTokens"], sum);
        }
        types.insert(event.event_type);
        sizes.push(event.json.len());
    }
    assert_eq!(types.len(), 18, "{types:?}");
    assert!(seen_sessions.len() > LIVE_SESSIONS);

    sizes.sort_unstable();
    let mean = sizes.iter().sum::<usize>() / sizes.len();
    assert!((1_000..2_200).contains(&mean), "mean {mean}");
    assert!((500..900).contains(&sizes[sizes.len() / 2]), "median {}", sizes[sizes.len() / 2]);
    assert!(sizes[0] < 260 && sizes[sizes.len() - 1] > 60_000, "{} to {}", sizes[0], sizes[sizes.len() - 1]);
}

#[test]
fn varied_events_hold_what_breaks_careless_code() {
    let all: String = generate(&config(Mode::Varied, 40_000)).map(|event| event.json + "\n").collect();
    let awkward = [
        "9007199254740993",
        ":-0,",
        "1e-7",
        "\\u00e9",
        "\\u00E9",
        "\\ud83",
        "\\/",
        "+02:00\"",
        "+00:00\"",
        "😀",
        "\\u001b",
        "[{\"next\":[{\"next\":[",
    ];
    for text in awkward {
        assert!(all.contains(text), "{text}");
    }
    let spoken = SCRIPTS.iter().filter(|(_, words)| all.contains(words.split(' ').next().unwrap()));
    assert!(spoken.count() >= 6);
}

#[test]
fn bench_lines_average_700_bytes() {
    let mut total = 0;
    let mut sessions = BTreeMap::<String, usize>::new();
    let mut types = BTreeMap::<&str, usize>::new();
    for event in generate(&config(Mode::Bench, 25_000)) {
        assert_is_event(&event);
        assert!((300..=1_500).contains(&event.json.len()), "{} bytes", event.json.len());
        total += event.json.len();
        *sessions.entry(event.session_id).or_default() += 1;
        *types.entry(event.event_type).or_default() += 1;
    }
    assert!((679..=721).contains(&(total / 25_000)), "{}", total / 25_000);
    let mut counts: Vec<usize> = sessions.into_values().collect();
    counts.sort_unstable();
    assert_eq!(counts, [5_000, 10_000, 10_000]);
    let names: Vec<&str> = types.into_keys().collect();
    assert_eq!(names, ["llm_call", "llm_response", "tool_call", "tool_error", "tool_response"]);
}

#[test]
fn times_are_rfc_3339() {
    let text = |at_us, style| {
        let mut out = String::new();
        write_time(&mut out, at_us, style);
        out
    };
    assert_eq!(text(START_US, UTC), "\"2026-01-05T08:00:00.000000Z\"");
    assert_eq!(text(START_US + 1_500, offset(3, "+02:00", 120)), "\"2026-01-05T10:00:00.001+02:00\"");
    assert_eq!(text(951_782_400 * SECOND_US, offset(0, "Z", 0)), "\"2000-02-29T00:00:00Z\"");
    assert_eq!(text(-1, UTC), "\"1969-12-31T23:59:59.999999Z\"");
}

#[test]
fn decimals_are_exact() {
    let shown: Vec<String> =
        [0, 100, 125, 1_000, 1_500_000_000, 3_000_000_000].map(|nanos| Nanos(nanos).to_string()).into();
    assert_eq!(shown, ["0", "1e-7", "1.25e-7", "0.000001", "1.5", "3"]);
}
