//! Batches written and read back, what comes back of broken and hostile ones, and the golden schema.

mod derived;
mod hostile;
mod rows;

use std::ops::ControlFlow;

use bytes::Bytes;

use super::{ArchiveError, BatchReader, BatchWriter};
use crate::chain::Hasher;
use crate::event::{Event, OwnedContent, Redactions};
use crate::ids::{CommitId, EventHash, Seq, SessionId, Severity, TenantId};
use crate::time::Micros;

/// A row to be written.
#[derive(Debug, Clone)]
struct Sample {
    commit: CommitId,
    first_of_run: bool,
    event: Event,
}

fn tenant() -> TenantId {
    TenantId::parse("acme").unwrap()
}

/// Runs of events of all shapes: kept and erased, with and without what may be missing, at the ends of the scales.
fn samples(runs: u64, each: u64) -> Vec<Sample> {
    let payloads = [
        r#"{"toolName":"search","callId":"c-1","arguments":{"q":"é🪢"}}"#,
        r#"{"usage":{"inputTokens":12,"outputTokens":7,"totalTokens":19},"costUsd":0.00384,"model":"m"}"#,
        r#"{"callId":"c-1","durationMs":12.5,"success":false,"trace_id":"t","spanId":"s","provider":"p"}"#,
        r#""just text""#,
        r#"{"tool\u004eame":"a\"b","input_tokens":9223372036854775807,"cost_usd":-1e12,"durationMs":1e308}"#,
        "null",
    ];
    let mut out = Vec::new();
    for run in 0..runs {
        let session_id = SessionId::parse(format!("session {run} é")).unwrap();
        let mut hasher = Hasher::new(&tenant(), &session_id);
        let mut prev_hash = if run % 2 == 0 { EventHash::ZERO } else { EventHash([run as u8; 32]) };
        for at in 0..each {
            let number = run * each + at;
            let commit = CommitId::mint(1_770_000_000_000 + number / 5, [run as u8; 10]);
            let timestamp = match number % 7 {
                0 => Micros::MIN,
                1 => Micros::MAX,
                n => Micros::new(1_770_000_000_000_000 + (n * number) as i64).unwrap(),
            };
            let content = if number % 5 == 4 {
                OwnedContent::Erased { digest: [number as u8; 32] }
            } else {
                let payload = payloads[number as usize % payloads.len()].to_owned();
                let metadata = if number.is_multiple_of(3) { r#"{"traceId":"of metadata"}"# } else { "{}" };
                OwnedContent::Kept { salt: [number as u8; 16], payload, metadata: metadata.to_owned() }
            };
            let mut event = Event {
                tenant: tenant(),
                session_id: session_id.clone(),
                sequence: Seq::new(if run == 1 { (1 << 62) + at } else { at }).unwrap(),
                event_id: commit.event((number % 5) as u16 + 1),
                timestamp,
                received_at: Micros::new(1_770_000_000_123_456 + number as i64).unwrap(),
                agent_id: format!("agent-{}", run % 3),
                event_type: ["tool_call", "tool_response", "tool_error", "llm.call"][at as usize % 4]
                    .to_owned(),
                severity: Severity::from_number((number % 5) as u8).unwrap(),
                source_id: number.is_multiple_of(2).then(|| format!("source {number}")),
                compliance_tag: "none".to_owned(),
                pii_types: if number.is_multiple_of(4) { "email,phone".to_owned() } else { String::new() },
                redactions: Redactions {
                    count: if number.is_multiple_of(6) { u32::MAX } else { 0 },
                    policy: number.is_multiple_of(6).then_some([0xab; 32]),
                },
                content,
                prev_hash,
                hash: EventHash::ZERO,
            };
            event.hash = hasher.hash(&event.as_ref());
            prev_hash = event.hash;
            out.push(Sample { commit, first_of_run: at == 0, event });
        }
    }
    out
}

fn write(samples: &[Sample]) -> Bytes {
    let mut writer = BatchWriter::new(&tenant());
    for Sample { commit, first_of_run, event } in samples {
        writer.push(&event.session_id, *commit, &event.as_ref(), *first_of_run).unwrap();
    }
    assert_eq!(writer.row_count(), samples.len() as u64);
    writer.finish().unwrap()
}

/// Every row as text; two files that say the same give the same.
fn read(file: Bytes) -> Result<Vec<String>, ArchiveError> {
    let mut rows = Vec::new();
    BatchReader::open(file)?.rows::<()>(|row| {
        rows.push(format!("{row:?}"));
        ControlFlow::Continue(())
    })?;
    Ok(rows)
}
