//! Round trips, the golden segment, and what must be refused.

use proptest::prelude::*;

use super::*;
use crate::chain::ChainCheck;
use crate::event::{Content, EventRef, Redactions};
use crate::ids::{AgentId, CommitId, ComplianceTag, EventType, Severity, SourceId, TenantId};
use crate::summary::Summary;
use crate::time::Micros;

fn tenant() -> TenantId {
    TenantId::parse("acme").unwrap()
}

fn session() -> SessionId {
    SessionId::parse("s 1/é").unwrap()
}

fn time(micros: i64) -> Micros {
    Micros::new(micros).unwrap()
}

fn new_event() -> impl Strategy<Value = NewEvent> {
    let kind = prop_oneof![
        Just(("custom", r#"{"type":"t","data":{}}"#)),
        Just(("session_started", r#"{"tags":["a","b"],"agentName":"A"}"#)),
        Just(("session_ended", r#"{"reason":"error"}"#)),
        Just(("cost_tracked", r#"{"inputTokens":1,"outputTokens":2,"totalTokens":3,"costUsd":0.001}"#)),
        Just(("tool_error", r#"{"error":"é 🪢 \\ud83e\\udea2"}"#)),
        Just(("x.y", "-0")),
        Just(("x.z", r#""""#)),
    ];
    let agent = prop_oneof![Just("a".to_owned()), "[a-z]{1,3}", Just("é".repeat(128))];
    let pii = proptest::collection::btree_set("[a-z]{1,4}", 0..3);
    let policy = proptest::option::of(any::<[u8; 32]>());
    (
        (kind, agent, proptest::option::of(Micros::MIN.get()..=Micros::MAX.get()), 0u8..5),
        (proptest::option::of("[ -~]{1,20}"), pii, 0u32..3, policy, any::<bool>()),
    )
        .prop_map(|((kind, agent, at, severity), (source, pii, count, policy, meta))| NewEvent {
            session_id: session(),
            agent_id: AgentId::parse(agent).unwrap(),
            timestamp: at.map(time),
            event_type: EventType::parse(kind.0).unwrap(),
            severity: Severity::from_number(severity).unwrap(),
            source_id: source.map(|s| SourceId::parse(s).unwrap()),
            payload: kind.1.to_owned(),
            metadata: if meta { r#"{"k":[1,null]}"#.to_owned() } else { "{}".to_owned() },
            compliance_tag: ComplianceTag::parse(if meta { "gdpr" } else { "default" }).unwrap(),
            pii_types: pii.into_iter().collect(),
            redactions: Redactions { count, policy },
        })
}

fn batch() -> impl Strategy<Value = Vec<Numbered>> {
    proptest::collection::vec((1u16..20, new_event()), 1..40).prop_map(|list| {
        let mut number = 0;
        let numbered = list.into_iter().map(|(step, event)| {
            number += step;
            Numbered { number, event }
        });
        numbered.collect()
    })
}

fn commit(n: u64) -> CommitId {
    CommitId::mint(1_770_000_000_000 + n, [n as u8; 10])
}

fn salts(count: usize) -> Vec<[u8; 16]> {
    (0..count).map(|i| [i as u8; 16]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What is chained is read back, holds as a chain, and its attributes are what its events count.
    #[test]
    fn segments_round_trip_and_chain(first in batch(), second in batch()) {
        let mut head = None;
        let mut check = ChainCheck::new(&tenant(), &session());
        let mut whole: Option<Summary> = None;
        let mut merged: Option<Summary> = None;
        for (n, events) in (1u64..).zip([first, second]) {
            let now = time(1_770_000_000_000_000 + n as i64);
            let (segment, placed) =
                chain(&tenant(), &session(), head, commit(n), now, &events, &salts(events.len())).unwrap();
            prop_assert_eq!(SegmentMeta::decode(&segment.meta.encode()), Ok(segment.meta.clone()));
            let mut reader = SegmentReader::new().unwrap();
            // The frame begins with zstd's magic number (RFC 8878, section 3.1.1).
            let frame = segment.body.windows(4).position(|bytes| bytes == [0x28, 0xb5, 0x2f, 0xfd]).unwrap();
            let columns = zstd::stream::decode_all(&segment.body[frame..]).unwrap();
            prop_assert_eq!(unpacked_bytes(&segment.body), columns.len() as u64);
            prop_assert_eq!(unpacked_bytes(&segment.body[..frame]), columns.len() as u64);
            prop_assert_eq!(unpacked_bytes(&segment.body[..frame - 1]), frame as u64 - 1, "it is no body");
            let view = reader.open(&segment.body).unwrap();
            prop_assert_eq!(view.count(), events.len());
            for ((read, sent), placed) in view.events().zip(&events).zip(&placed) {
                let read = read.unwrap();
                prop_assert!(check.push(&read).is_ok());
                prop_assert_eq!(
                    (read.sequence, read.event_id, read.hash),
                    (placed.sequence, placed.event_id, placed.hash)
                );
                prop_assert_eq!(read.event_id.number(), sent.number);
                let Content::Kept { payload, metadata, .. } = read.content else { panic!("nothing is erased") };
                prop_assert_eq!((payload, metadata), (sent.event.payload.as_str(), sent.event.metadata.as_str()));
                prop_assert_eq!(read.timestamp, sent.event.timestamp.unwrap_or(now));
                prop_assert_eq!(read.agent_id, sent.event.agent_id.as_str());
                prop_assert_eq!(read.source_id, sent.event.source_id.as_ref().map(|s| s.as_str()));
                prop_assert_eq!(read.pii_types, sent.event.pii_types.join(","));
                prop_assert_eq!(read.redactions, sent.event.redactions);
                match &mut whole {
                    Some(whole) => whole.push(&read),
                    None => whole = Some(Summary::of(&read)),
                }
            }
            match &mut merged {
                Some(merged) => merged.merge(&segment.meta.summary),
                None => merged = Some(segment.meta.summary.clone()),
            }
            head = Some(segment.meta.head());
            prop_assert_eq!(check.head(), segment.meta.last_hash);
        }
        prop_assert_eq!(merged, whole, "summaries of neighbouring runs merge to that of the whole");
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>, at: prop::sample::Index, flip in 1u8..) {
        let mut reader = SegmentReader::new().unwrap();
        let mut read = |bytes: &[u8]| {
            if let Ok(view) = reader.open(bytes) {
                view.events().for_each(drop);
            }
        };
        read(&bytes);
        let mut golden = golden().body.to_vec();
        let at = at.index(golden.len());
        golden[at] ^= flip;
        read(&golden);
        read(&golden[..at]);
        let _ = SegmentMeta::decode(&bytes);
    }
}

/// Three events that use every column.
fn golden() -> Segment {
    let event = |kind: &str, payload: &str, more: bool| NewEvent {
        session_id: session(),
        agent_id: AgentId::parse("agent").unwrap(),
        timestamp: more.then(|| time(-1)),
        event_type: EventType::parse(kind).unwrap(),
        severity: if more { Severity::Critical } else { Severity::Info },
        source_id: more.then(|| SourceId::parse("span-1").unwrap()),
        payload: payload.to_owned(),
        metadata: if more { r#"{"k":1}"# } else { "{}" }.to_owned(),
        compliance_tag: ComplianceTag::default_tag(),
        pii_types: if more { vec!["email".into(), "phone".into()] } else { Vec::new() },
        redactions: if more { Redactions { count: 2, policy: Some([9; 32]) } } else { Redactions::default() },
    };
    let events = [
        event("session_started", r#"{"tags":["x"]}"#, false),
        event("custom", r#"{"type":"t","data":{"n":9007199254740993}}"#, true),
        event("custom", r#"{"type":"t","data":{}}"#, false),
    ];
    let numbered: Vec<_> = (1..).zip(events).map(|(number, event)| Numbered { number, event }).collect();
    let now = time(1_770_000_000_123_456);
    chain(&tenant(), &session(), None, commit(1), now, &numbered, &salts(3)).unwrap().0
}

/// The bytes of a segment, as they were written by the first version of this code. They change with an ADR only.
/// The zstd frame may be packed otherwise by another version of zstd, so the body is held to what it reads as.
#[test]
fn the_golden_segment_is_what_it_was() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/vectors/segment-v1.json");
    let segment = golden();
    let hex = crate::ids::hex;
    if std::env::var_os("UPDATE_VECTORS").is_some() {
        let value = serde_json::json!({
            "attributes": hex(&segment.meta.encode()), "body": hex(&segment.body),
            "hashes": events_of(&segment.body).iter().map(|e| e.hash.to_string()).collect::<Vec<_>>(),
        });
        std::fs::write(&path, format!("{value:#}\n")).unwrap();
    }
    let kept: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let text = |name: &str| kept[name].as_str().unwrap().to_owned();
    assert_eq!(hex(&segment.meta.encode()), text("attributes"));
    let body: Vec<u8> = text("body")
        .as_bytes()
        .chunks_exact(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect();
    assert_eq!(events_of(&body), events_of(&segment.body));
    let hashes: Vec<_> = events_of(&body).iter().map(|e| serde_json::json!(e.hash.to_string())).collect();
    assert_eq!(kept["hashes"], serde_json::json!(hashes));
}

fn events_of(body: &[u8]) -> Vec<crate::event::Event> {
    let mut reader = SegmentReader::new().unwrap();
    let view = reader.open(body).unwrap();
    view.events().map(|e: Result<EventRef<'_>, _>| e.unwrap().to_event(&tenant(), &session())).collect()
}
