//! Batches are read by programs that are not ours: pyarrow and DuckDB see every row and every value that was written,
//! and in a real archive what the API answers.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;

use quipu_core::archive::{BatchReader, BatchWriter, Row};
use quipu_core::chain::Hasher;
use quipu_core::event::{Event, OwnedContent, Redactions};
use quipu_core::ids::{self, CommitId, EventHash, EventId, Seq, SessionId, Severity, TenantId};
use quipu_core::time::Micros;
use quipu_tests::{python, repository};
use serde_json::{Value, json};

use crate::real_archive::{Raw, RealArchive, SESSIONS, TENANTS, escape, text};

/// The programs that are not ours.
const READERS: [&str; 2] = ["pyarrow", "duckdb"];

type Columns = BTreeMap<String, Value>;

/// What they found in a batch.
struct Found {
    /// Of each reader.
    rows: BTreeMap<String, Vec<Columns>>,
    /// Reader, the event id that was looked for, how many rows.
    counts: Vec<(String, Option<String>, u64)>,
}

/// Has a batch read by both of them; DuckDB looks for these event ids as well.
fn read_by_others(path: &Path, wanted: &[&str]) -> Found {
    let script = repository().join("tests/clients/read_batch.py");
    let output = Command::new(python()).arg(script).arg(path).args(wanted).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut found = Found { rows: BTreeMap::new(), counts: Vec::new() };
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let mut line: Value = serde_json::from_str(line).unwrap();
        let reader = line["reader"].as_str().unwrap().to_owned();
        if line["row"].is_object() {
            let mut row: Columns = serde_json::from_value(line["row"].take()).unwrap();
            if let Some(Value::String(double)) = row.get("duration_ms") {
                row.insert("duration_ms".to_owned(), json!(double.parse::<f64>().unwrap()));
            }
            found.rows.entry(reader).or_default().push(row);
        } else {
            let event_id = line["event_id"].as_str().map(str::to_owned);
            found.counts.push((reader, event_id, line["count"].as_u64().unwrap()));
        }
    }
    found
}

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
fn as_json(row: &Row<'_>) -> Columns {
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
    let Found { rows, counts } = read_by_others(&path, &[&wanted, absent]);
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
    for reader in READERS {
        let rows = &rows[reader];
        assert_eq!(rows.len(), expected.len(), "{reader}");
        for (index, (theirs, ours)) in rows.iter().zip(&expected).enumerate() {
            assert_eq!(theirs, ours, "{reader}, row {index}");
        }
    }
}

/// An event of the API's answer as a batch has it, without what it does not answer: the commit and the derived columns.
fn as_answered(event: &Raw) -> Columns {
    let json = |name: &str| serde_json::from_str::<Value>(event[name].get()).unwrap();
    let micros = |name: &str| json!(Micros::parse(&text(event, name).unwrap()).unwrap().get());
    let (redactions, pii_types) = (json("redactions"), json("pii_types"));
    let pii_types: Vec<_> = pii_types.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    let value = json!({
        "session_id": json("session_id"),
        "sequence": json("sequence"),
        "event_id": json("event_id"),
        "timestamp": micros("timestamp"),
        "timestamp_us": micros("timestamp"),
        "received_at": micros("received_at"),
        "received_at_us": micros("received_at"),
        "agent_id": json("agent_id"),
        "event_type": json("event_type"),
        "severity": json("severity"),
        "source_id": json("source_id"),
        "compliance_tag": json("compliance_tag"),
        "pii_types": pii_types.join(","),
        "redaction_count": redactions["count"],
        "redaction_policy": redactions["policy"],
        // As they stand in the answer, byte for byte.
        "payload": event["payload"].get(),
        "metadata": event["metadata"].get(),
        "salt": json("salt"),
        "content_digest": null,
        "prev_hash": json("prev_hash"),
        "hash": json("hash"),
    });
    serde_json::from_value(value).unwrap()
}

/// The same of an event in an evidence bundle, which names the session once for all of its events.
fn as_exported(session: &str, event: &Raw) -> Columns {
    let mut columns: Columns = event
        .iter()
        .map(|(name, value)| (name.clone(), serde_json::from_str(value.get()).unwrap()))
        .filter(|(name, _)| name != "kind")
        .collect();
    for name in ["timestamp", "received_at"] {
        let micros = json!(Micros::parse(columns[name].as_str().unwrap()).unwrap().get());
        columns.insert(format!("{name}_us"), micros.clone());
        columns.insert(name.to_owned(), micros);
    }
    let pii_types = columns["pii_types"].as_array().unwrap();
    let joined = pii_types.iter().map(|name| name.as_str().unwrap()).collect::<Vec<_>>().join(",");
    columns.insert("pii_types".to_owned(), json!(joined));
    columns.insert("session_id".to_owned(), json!(session));
    columns
}

#[test]
fn pyarrow_and_duckdb_see_in_a_real_archive_what_the_api_answers() {
    let archive = RealArchive::make();
    for tenant in TENANTS {
        let answered: BTreeMap<_, _> = archive
            .events(tenant)
            .iter()
            .map(|event| (text(event, "event_id").unwrap(), as_answered(event)))
            .collect();
        assert_eq!(answered.len() as u64, archive.sent[tenant]);
        let mut exported = 0;
        for session in SESSIONS {
            for event in archive.bundle(tenant, session) {
                let id = text(&event, "event_id").unwrap();
                assert_eq!(as_exported(session, &event), answered[&id], "two answers of the API about {id}");
                exported += 1;
            }
        }
        assert_eq!(exported, archive.sent[tenant]);

        let batches = archive.batches(tenant);
        assert_eq!(batches.len(), if tenant == "default" { 3 } else { 1 });
        let mut rows: BTreeMap<&str, Vec<Columns>> = BTreeMap::new();
        for path in &batches {
            let mut found = read_by_others(path, &[]);
            for reader in READERS {
                let mut of_batch = found.rows.remove(reader).unwrap();
                assert!(found.counts.contains(&(reader.to_owned(), None, of_batch.len() as u64)));
                // Only the first row of a run says what it hangs on; the others hang on the row before.
                let mut last: BTreeMap<String, Value> = BTreeMap::new();
                for row in &mut of_batch {
                    let session = row["session_id"].as_str().unwrap().to_owned();
                    if let Some(before) = last.insert(session, row["hash"].clone()) {
                        assert_eq!(row.insert("prev_hash".to_owned(), before), Some(Value::Null));
                    }
                }
                rows.entry(reader).or_default().extend(of_batch);
            }
        }
        for reader in READERS {
            let rows = &rows[reader];
            let ids: BTreeSet<_> = rows.iter().map(|row| row["event_id"].as_str().unwrap()).collect();
            assert_eq!(
                (rows.len(), ids.len()),
                (answered.len(), answered.len()),
                "{reader}: each event once"
            );
            for row in rows {
                let id = row["event_id"].as_str().unwrap();
                let commit = EventId::parse(id).unwrap().commit().to_string();
                assert_eq!(row["commit_id"], commit, "{reader}");
                for (name, value) in &answered[id] {
                    assert_eq!(&row[name], value, "{reader}: {name} of {id}");
                }
            }
            for session in SESSIONS {
                let path = format!("/v1/sessions/{}", escape(session));
                let session_says: Value = serde_json::from_str(&archive.get(tenant, &path)).unwrap();
                let of_session = || rows.iter().filter(|row| row["session_id"] == session);
                let count = of_session().count() as u64;
                assert_eq!(session_says["event_count"], count, "{reader}: {session}");
                // What a session adds up, it adds up of its models' replies.
                let replies = || of_session().filter(|row| row["event_type"] == "llm_response");
                for name in ["input_tokens", "output_tokens"] {
                    let sum: i64 = replies().map(|row| row[name].as_i64().unwrap()).sum();
                    assert_eq!(session_says[name], sum, "{reader}: {name} of {session}");
                }
                let cost: f64 =
                    replies().map(|r| r["cost_usd"].as_str().unwrap().parse::<f64>().unwrap()).sum();
                let says = session_says["cost_usd"].as_f64().unwrap();
                assert!(cost > 0.0 && (cost - says).abs() < 1e-9, "{reader}: {cost} is not {says}");
            }
        }
    }
}
