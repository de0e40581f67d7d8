//! The native API, `/v1`: its names for an event's members.

use super::intake::Names;

/// `run_id` is the same thing as `session_id`, under the name that Moxxy gives it.
pub const NAMES: Names = Names {
    session: ["session_id", "run_id"],
    agent: "agent_id",
    event_type: "event_type",
    source: "source_id",
    tag: "compliance_tag",
    refuse_unknown: true,
    known_types_only: false,
};

#[cfg(test)]
mod tests {
    use super::super::intake::{IntakeError, read_batch, read_lines};
    use super::*;
    use crate::limits;

    fn paths(text: &str) -> Vec<String> {
        match read_batch(text, &NAMES).unwrap_err() {
            IntakeError::Invalid(issues) => issues.into_iter().map(|i| i.path).collect(),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn p7_payload_bytes_are_kept() {
        let text = r#"{"events":[{"session_id":"s","agent_id":"a","event_type":"x.y",
            "payload" : { "n" : 9007199254740993 , "z":-0, "a":1.0e5, "u":"\u00e9 é" , "b":[ ] } }]}"#;
        let events = read_batch(text, &NAMES).unwrap();
        assert_eq!(events[0].payload, r#"{"n":9007199254740993,"z":-0,"a":1.0e5,"u":"\u00e9 é","b":[]}"#);
        assert_eq!(events[0].metadata, "{}");
    }

    #[test]
    fn everything_wrong_is_named_with_its_path() {
        let text = r#"{"events":[
            {"session_id":"s","agent_id":"a","event_type":"tool_call","payload":{"callId":"c","arguments":{}}},
            {"session_id":"","agent_id":7,"event_type":"Bad","payload":1,"severity":"loud","extra":1},
            {"session_id":"_x","agent_id":"a","event_type":"quipu.forged","payload":{}},
            {"session_id":"s","run_id":"t","agent_id":"a","event_type":"e","payload":{},"metadata":[]},
            5
        ],"more":1}"#;
        assert_eq!(
            paths(text),
            [
                "events.0.payload.toolName",
                "events.1.session_id",
                "events.1.agent_id",
                "events.1.event_type",
                "events.1.severity",
                "events.1.extra",
                "events.2.session_id",
                "events.2.event_type",
                "events.3.run_id",
                "events.3.metadata",
                "events.4",
                "more",
            ]
        );
        assert_eq!(paths("{}"), ["events"]);
        assert_eq!(paths(r#"{"events":[]}"#), ["events"]);
        assert_eq!(paths(r#"{"events":{}}"#), ["events"]);
        assert_eq!(
            paths(r#"{"events":[{}]}"#),
            ["events.0.session_id", "events.0.agent_id", "events.0.event_type", "events.0.payload"]
        );
    }

    #[test]
    fn faults_of_the_document_stop_it() {
        for (text, path) in [
            (r#"{"events":[{"payload":{"a":1,"a":2}}]}"#, "events.0.payload.a"),
            (r#"{"events":[{"payload":{"a":"\ud800"}}]}"#, "events.0.payload.a"),
            (r#"{"events":[{"payload":tru}]}"#, "events.0.payload"),
            ("[]", ""),
        ] {
            match read_batch(text, &NAMES).unwrap_err() {
                IntakeError::Json(error) => assert_eq!(error.path, path, "{text}"),
                other => panic!("{other}"),
            }
        }
    }

    #[test]
    fn limits_are_named() {
        let event = r#"{"session_id":"s","agent_id":"a","event_type":"e","payload":{}}"#;
        let many = format!(r#"{{"events":[{}]}}"#, vec![event; limits::BATCH_EVENTS_MAX + 1].join(","));
        assert_eq!(
            read_batch(&many, &NAMES).unwrap_err().to_string(),
            "events: more events than batch_events_max 1000"
        );
        let big = format!(
            r#"{{"events":[{{"session_id":"s","agent_id":"a","event_type":"e","payload":"{}"}}]}}"#,
            "x".repeat(limits::PAYLOAD_BYTES_MAX)
        );
        let error = read_batch(&big, &NAMES).unwrap_err().to_string();
        assert!(
            error.contains("events.0.payload") && error.contains("payload_bytes_max 1048576")
                || error.contains("payload_bytes_max is 1048576"),
            "{error}"
        );
    }

    #[test]
    fn lines_are_events() {
        let event = r#"{"session_id":"s","agent_id":"a","event_type":"e","payload":{}}"#;
        assert_eq!(read_lines(&format!("{event}\r\n\n{event}\n"), &NAMES).unwrap().len(), 2);
        match read_lines(&format!("{event}\n{{\"session_id\":1}}\n"), &NAMES).unwrap_err() {
            IntakeError::Invalid(issues) => assert_eq!(issues[0].path, "1.session_id"),
            other => panic!("{other}"),
        }
        assert!(read_lines(&format!("{event} {event}"), &NAMES).is_err());
    }
}
