//! Batches of events, as both dialects send them.

use quipu_core::chain::{Hasher, check_syntax};
use quipu_core::dialect::intake::{Names, read_batch, read_lines};
use quipu_core::dialect::render::quote;
use quipu_core::dialect::{agentlens, native};
use quipu_core::event::{Content, NewEvent};
use quipu_core::ids::{CommitId, SessionId, TenantId};
use quipu_core::json::{self, Kind};
use quipu_core::segment::{Numbered, SegmentMeta, SegmentReader, chain};
use quipu_core::summary::Summary;
use quipu_core::time::Micros;

use super::meaning;

/// A batch (0 native, 2 AgentLens) or lines (1, 3). What is taken is compact, is read the same when it is written
/// again, and comes back from a segment as it went in.
pub fn request(data: &[u8]) -> bool {
    let Some((how, data)) = meaning(data, 4) else { return false };
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let names = if how < 2 { &native::NAMES } else { &agentlens::NAMES };
    let is_lines = how % 2 == 1;
    let read = if is_lines { read_lines } else { read_batch };
    let Ok(events) = read(text, names) else { return false };
    assert!(!events.is_empty(), "an empty batch was taken");
    for event in &events {
        assert_eq!(json::check_compact(&event.payload, None), Ok(()));
        assert_eq!(json::check_compact(&event.metadata, Some(Kind::Object)), Ok(()));
    }
    let again: Vec<_> = events.iter().map(|event| write(event, names)).collect();
    let again = if is_lines { again.join("\n") } else { format!("{{\"events\":[{}]}}", again.join(",")) };
    assert_eq!(read(&again, names).as_ref(), Ok(&events), "{again}");
    store(&events);
    true
}

fn write(event: &NewEvent, names: &Names) -> String {
    let mut text = format!(
        r#"{{"{}":{},"{}":{},"{}":{},"severity":"{}","{}":{},"payload":{},"metadata":{}"#,
        names.session[0],
        quote(event.session_id.as_str()),
        names.agent,
        quote(event.agent_id.as_str()),
        names.event_type,
        quote(event.event_type.as_str()),
        event.severity.as_str(),
        names.tag,
        quote(event.compliance_tag.as_str()),
        event.payload,
        event.metadata,
    );
    if let Some(source) = &event.source_id {
        text.push_str(&format!(r#","{}":{}"#, names.source, quote(source.as_str())));
    }
    if let Some(time) = event.timestamp {
        text.push_str(&format!(r#","timestamp":"{time}""#));
    }
    text.push('}');
    text
}

/// Chains the events as one session and reads them back.
fn store(events: &[NewEvent]) {
    let tenant = TenantId::default_tenant();
    let session = SessionId::parse("fuzz").expect("a session id");
    let received_at = Micros::new(1_770_000_000_000_000).expect("a time");
    let numbered: Vec<_> =
        (1..).zip(events).map(|(number, event)| Numbered { number, event: event.clone() }).collect();
    let commit = CommitId::mint(1_770_000_000_000, [7; 10]);
    let salts = vec![[9; 16]; events.len()];
    let (segment, placed) =
        chain(&tenant, &session, None, commit, received_at, &numbered, &salts).expect("zstd works");
    assert_eq!(SegmentMeta::decode(&segment.meta.encode()).as_ref(), Ok(&segment.meta));
    let mut reader = SegmentReader::new().expect("zstd works");
    let view = reader.open(&segment.body).expect("what was written opens");
    assert_eq!(view.count(), events.len());
    let mut hasher = Hasher::new(&tenant, &session);
    let mut summary: Option<Summary> = None;
    for ((read, sent), place) in view.events().zip(events).zip(placed) {
        let read = read.expect("what was written decodes");
        assert_eq!(check_syntax(&read), Ok(()));
        assert_eq!((read.sequence, read.hash, read.event_id), (place.sequence, place.hash, place.event_id));
        assert_eq!(hasher.hash(&read), read.hash);
        assert_eq!(read.timestamp, sent.timestamp.unwrap_or(received_at));
        assert_eq!(read.agent_id, sent.agent_id.as_str());
        assert_eq!(read.event_type, sent.event_type.as_str());
        assert_eq!(read.severity, sent.severity);
        assert_eq!(read.source_id, sent.source_id.as_ref().map(|id| id.as_str()));
        assert_eq!(read.compliance_tag, sent.compliance_tag.as_str());
        let content = Content::Kept { salt: [9; 16], payload: &sent.payload, metadata: &sent.metadata };
        assert_eq!(read.content, content);
        // Two runs merged count what one run over both counts.
        match &mut summary {
            Some(summary) => summary.merge(&Summary::of(&read)),
            None => summary = Some(Summary::of(&read)),
        }
    }
    assert_eq!(summary.as_ref(), Some(&segment.meta.summary));
}
