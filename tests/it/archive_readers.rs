//! Batches are read by programs that are not ours: pyarrow and DuckDB see every row and every value that was written.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::process::Command;

use quipu_core::archive::{BatchReader, BatchWriter, Row};
use quipu_core::chain::Hasher;
use quipu_core::event::{Event, OwnedContent, Redactions};
use quipu_core::ids::{self, CommitId, EventHash, Seq, SessionId, Severity, TenantId};
use quipu_core::time::Micros;
use quipu_tests::{python, repository};
use serde_json::{Value, json};

/// Events of all shapes, in two sessions, erased ones among them.
fn events(tenant: &TenantId) -> Vec<(CommitId, Event)> {
    let payloads = [
        r#"{"toolName":"search","callId":"c-1","arguments":{"q":"é🪢"}}"#,
        r#"{"usage":{"inputTokens":12,"outputTokens":7,"totalTokens":19},"costUsd":0.00384,"model":"m"}"#,
        r#"{"durationMs":0.1,"success":false,"trace_id":"t","spanId":"s","provider":"p"}"#,
        r#"{"costUsd":-1e12,"durationMs":1e308,"input_tokens":9223372036854775807}"#,
        r#"{"costUsd":0.000000000001,"text":"tab \t, nul \u0000, quote \""}"#,
        "18446744073709551616",
    ];
    let mut out = Vec::new();
    for session in 0..2u64 {
        let session_id = SessionId::parse(format!("sessión {session}")).unwrap();
        let mut hasher = Hasher::new(tenant, &session_id);
        let mut prev_hash = EventHash::ZERO;
        for at in 0..3000u64 {
            let commit = CommitId::mint(1_770_000_000_000 + at / 10, [session as u8; 10]);
            let content = if at % 11 == 10 {
                OwnedContent::Erased { digest: [at as u8; 32] }
            } else {
                let payload = payloads[at as usize % payloads.len()].to_owned();
                let metadata = if at % 3 == 0 { r#"{"k":[1.0,-0]}"# } else { "{}" };
                OwnedContent::Kept { salt: [at as u8; 16], payload, metadata: metadata.to_owned() }
            };
            let times =
                [Micros::MIN, Micros::MAX, Micros::from_unix_ms(-1), Micros::from_unix_ms(1_770_000_000_001)];
            let mut event = Event {
                tenant: tenant.clone(),
                session_id: session_id.clone(),
                sequence: Seq::new(at).unwrap(),
                event_id: commit.event((at % 10) as u16 + 1),
                timestamp: times[at as usize % 4],
                received_at: Micros::new(1_770_000_000_123_456 + at as i64).unwrap(),
                agent_id: format!("agent-{}", at % 3),
                event_type: ["tool_call", "tool_response", "tool_error"][at as usize % 3].to_owned(),
                severity: Severity::from_number((at % 5) as u8).unwrap(),
                source_id: (at % 2 == 0).then(|| format!("source {at}")),
                compliance_tag: "none".to_owned(),
                pii_types: if at % 4 == 0 { "email,phone".to_owned() } else { String::new() },
                redactions: Redactions {
                    count: if at % 6 == 0 { u32::MAX } else { 0 },
                    policy: (at % 6 == 0).then_some([0xab; 32]),
                },
                content,
                prev_hash,
                hash: EventHash::ZERO,
            };
            event.hash = hasher.hash(&event.as_ref());
            prev_hash = event.hash;
            out.push((commit, event));
        }
    }
    out
}

fn hex(bytes: Option<&[u8]>) -> Option<String> {
    bytes.map(ids::hex)
}

/// 10⁻¹² dollars as DECIMAL(38, 12) is written.
fn dollars(units: i128) -> String {
    let (sign, units) = (if units < 0 { "-" } else { "" }, units.unsigned_abs());
    format!("{sign}{}.{:012}", units / 10u128.pow(12), units % 10u128.pow(12))
}

/// A row as the script prints it; doubles are compared as doubles.
fn as_json(row: &Row<'_>) -> BTreeMap<String, Value> {
    let derived = &row.derived;
    let value = json!({
        "session_id": row.session_id,
        "sequence": row.sequence,
        "event_id": row.event_id,
        "commit_id": row.commit_id,
        "timestamp": row.timestamp,
        "timestamp_us": row.timestamp_us,
        "received_at": row.received_at,
        "received_at_us": row.received_at_us,
        "agent_id": row.agent_id,
        "event_type": row.event_type,
        "severity": row.severity,
        "source_id": row.source_id,
        "compliance_tag": row.compliance_tag,
        "pii_types": row.pii_types,
        "redaction_count": row.redaction_count,
        "redaction_policy": hex(row.redaction_policy),
        "payload": row.payload,
        "metadata": row.metadata,
        "salt": hex(row.salt),
        "content_digest": hex(row.content_digest),
        "prev_hash": hex(row.prev_hash),
        "hash": hex(Some(row.hash)),
        "tool_name": derived.tool_name,
        "call_id": derived.call_id,
        "provider": derived.provider,
        "model": derived.model,
        "input_tokens": derived.input_tokens,
        "output_tokens": derived.output_tokens,
        "total_tokens": derived.total_tokens,
        "cost_usd": derived.cost_usd.map(dollars),
        "duration_ms": derived.duration_ms,
        "success": derived.success,
        "trace_id": derived.trace_id,
        "span_id": derived.span_id,
    });
    serde_json::from_value(value).unwrap()
}

#[test]
fn pyarrow_and_duckdb_see_every_value() {
    let tenant = TenantId::parse("acme").unwrap();
    let events = events(&tenant);
    let mut writer = BatchWriter::new(&tenant);
    for (commit, event) in &events {
        let first = event.sequence == Seq::ZERO;
        writer.push(&event.session_id, *commit, &event.as_ref(), first).unwrap();
    }
    let file = writer.finish().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("batch.parquet");
    std::fs::write(&path, &file).unwrap();

    let mut expected = Vec::new();
    let read = BatchReader::open(file).unwrap().rows::<()>(|row| {
        // What our own reader gives is what was written: then the others are held against it.
        let (_, event) = &events[expected.len()];
        assert_eq!(row.hash, event.hash.0);
        assert_eq!((row.timestamp_us, row.sequence), (event.timestamp.get(), event.sequence.get() as i64));
        expected.push(as_json(row));
        ControlFlow::Continue(())
    });
    assert_eq!((read, expected.len()), (Ok(None), events.len()));

    let wanted = events[4321].1.event_id.to_string();
    let absent = "0198b9a0-0000-7000-8000-000000000001";
    let script = repository().join("tests/clients/read_batch.py");
    let output = Command::new(python()).arg(script).arg(&path).args([&wanted, absent]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let mut found: BTreeMap<String, Vec<BTreeMap<String, Value>>> = BTreeMap::new();
    let mut counts = Vec::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let mut line: Value = serde_json::from_str(line).unwrap();
        let reader = line["reader"].as_str().unwrap().to_owned();
        if line["row"].is_object() {
            let mut row: BTreeMap<String, Value> = serde_json::from_value(line["row"].take()).unwrap();
            if let Some(Value::String(double)) = row.get("duration_ms") {
                row.insert("duration_ms".to_owned(), json!(double.parse::<f64>().unwrap()));
            }
            found.entry(reader).or_default().push(row);
        } else {
            counts.push((
                reader,
                line["event_id"].as_str().map(str::to_owned),
                line["count"].as_u64().unwrap(),
            ));
        }
    }
    let count = events.len() as u64;
    assert_eq!(
        counts,
        [
            ("pyarrow".to_owned(), None, count),
            ("duckdb".to_owned(), None, count),
            ("duckdb".to_owned(), Some(wanted), 1),
            ("duckdb".to_owned(), Some(absent.to_owned()), 0),
        ]
    );
    for reader in ["pyarrow", "duckdb"] {
        let rows = &found[reader];
        assert_eq!(rows.len(), expected.len(), "{reader}");
        for (index, (theirs, ours)) in rows.iter().zip(&expected).enumerate() {
            assert_eq!(theirs, ours, "{reader}, row {index}");
        }
    }
}
