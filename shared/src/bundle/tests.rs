use super::*;
use crate::event::{Content, EventRef, Redactions};
use crate::ids::{CommitId, EventHash, Seq, Severity};
use crate::time::Micros;
use proptest::prelude::*;

fn event<'a>(agent: &'a str, payload: &'a str, source: Option<&'a str>) -> EventRef<'a> {
    EventRef {
        sequence: Seq::new(7).unwrap(),
        event_id: CommitId::mint(1_770_000_000_123, [0xab; 10]).event(3),
        timestamp: Micros::new(-1).unwrap(),
        received_at: Micros::new(1_770_000_000_123_456).unwrap(),
        agent_id: agent,
        event_type: "tool_call",
        severity: Severity::Warn,
        source_id: source,
        compliance_tag: "default",
        pii_types: "email,phone",
        redactions: Redactions { count: 2, policy: Some([5; 32]) },
        content: Content::Kept { salt: [9; 16], payload, metadata: "{}" },
        prev_hash: EventHash([1; 32]),
        hash: EventHash([2; 32]),
    }
}

proptest! {
    #[test]
    fn an_event_comes_back(agent in ".{0,20}", payload in "\\PC{0,40}|[\"\\\\\u{0}-\u{20}]{0,20}", source in ".{0,9}") {
        for source in [None, Some(&source[..])] {
            let mut event = event(&agent, &payload, source);
            for _ in 0..2 {
                let mut line = String::new();
                push_event(&mut line, &event);
                prop_assert_eq!(line.pop(), Some('\n'));
                let Record::Event(read) = parse(&line).unwrap() else { panic!("no event") };
                prop_assert_eq!(read.event(), event);
                event.content = Content::Erased { digest: [3; 32] };
                event.pii_types = "";
                event.redactions = Redactions::default();
            }
        }
    }

    #[test]
    fn a_proof_comes_back(first in 0u64..1 << 63, count: u32, hashes: Vec<[u8; 32]>) {
        let proof = ProofRecord { first: Seq::new(first).unwrap(), count: count.into(), leaf: first / 2, hashes };
        let mut line = String::new();
        push_proof(&mut line, &proof);
        prop_assert_eq!(line.pop(), Some('\n'));
        prop_assert_eq!(parse(&line), Ok(Record::Proof(proof)));
    }

    #[test]
    fn a_note_comes_back(note in "(\\PC|\n){0,40}") {
        for push in [push_rotation, push_checkpoint, push_head] {
            let mut line = String::new();
            push(&mut line, &note);
            prop_assert_eq!(line.pop(), Some('\n'));
            let read = match parse(&line).unwrap() {
                Record::Rotation(read) | Record::Checkpoint(read) | Record::Head(read) => read.into_owned(),
                other => panic!("{other:?}"),
            };
            prop_assert_eq!(&read, &note);
        }
    }

    #[test]
    fn no_line_panics(line in "\\{(\"(kind|event|head|note|end|salt)\"|[:,\\[\\]0-9]|null){0,12}\\}") {
        let _ = parse(&line);
    }
}

#[test]
fn members_may_stand_in_any_order_with_space_between() {
    let line = r#"{ "sessions" : 2,"events":9223372036854775807 , "\u006bind":"end"}"#;
    assert_eq!(parse(line), Ok(Record::End { sessions: 2, events: 9_223_372_036_854_775_807 }));
}

#[test]
fn what_is_wrong_with_a_line_is_named() {
    let mut good = String::new();
    push_event(&mut good, &event("a", "1", None));
    let good = good.trim_end();
    let cases = [
        ("", "one JSON object"),
        ("{}", "\"kind\""),
        (r#" {"kind":"end","sessions":1,"events":1}"#, "one JSON object"),
        (r#"{"kind":"end","sessions":1,"events":1}{}"#, "end of the document"),
        (r#"{"kind":"end","sessions":1}"#, "without \"events\""),
        (r#"{"kind":"end","sessions":1,"events":1,"note":""}"#, "\"note\""),
        (r#"{"kind":"end","sessions":1,"events":1,"more":""}"#, "no record has"),
        (r#"{"kind":"end","sessions":1,"events":1,"events":1}"#, "duplicate"),
        (r#"{"kind":"end","sessions":1,"events":9223372036854775808}"#, "at most"),
        (r#"{"kind":"end","sessions":1,"events":1.0}"#, "whole number"),
        (r#"{"kind":"end","sessions":1,"events":-0}"#, "whole number"),
        (r#"{"kind":"End","sessions":1,"events":1}"#, "unknown kind"),
        (r#"{"kind":["end"],"sessions":1,"events":1}"#, "string"),
        (r#"{"kind":"session","session_id":"a\nb"}"#, "control"),
        (&good.replace("email", "email,name"), "a-z"),
        (&good.replace("000Z", "Z"), ""),
        (&good.replace("1970", "197O"), ""),
        (&good.replace("1969-12-31T23:59:59.999999Z", "1969-12-31T23:59:59.999999+00:00"), "a time like"),
        (&good.replace("0909", "0A09"), "32 lower-case"),
        (&good.replace("-7", "-4"), "version 7"),
        (&good.replace("\"payload\":\"1\"", "\"payload\":1"), "string"),
        (&good.replace("\"payload\":\"1\"", "\"payload\":null"), "or only a content_digest"),
        (&good.replace("\"redaction_count\":2", "\"redaction_count\":4294967296"), "at most"),
    ];
    for (line, why) in cases {
        if line == good {
            continue;
        }
        let error = parse(line).unwrap_err().to_string();
        assert!(error.contains(why), "{line}: {error}");
    }
    assert!(parse(good).is_ok());
}
