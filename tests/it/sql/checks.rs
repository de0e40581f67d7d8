//! The checks in SQL, on copies of an archive that were changed: what they find, and what they say that they do not see.

use std::path::{Path, PathBuf};
use std::process::Command;

use quipu_core::time::Micros;
use serde_json::{Value, json};

use super::{
    ALWAYS, Engine, Event, Row, ask_duckdb, athena_answer, database_over, events, of, on, run, saved, script,
};
use crate::real_archive::{RealArchive, SESSIONS, batches, text};

/// The session that is tampered with: sixteen events in each of three batches.
const VICTIM: &str = SESSIONS[2];

/// A change of one row, and the rows of `verify_chain` that it makes: their codes and sequences.
struct Tampering {
    name: &'static str,
    /// The batch, and what `tamper_batch.py` does there.
    batch: usize,
    change: Value,
    found: Vec<(&'static str, u64)>,
}

fn tampering(name: &'static str, sequence: u64, what: Value, found: &[(&'static str, u64)]) -> Tampering {
    let mut change = json!({ "session_id": VICTIM, "sequence": sequence });
    change.as_object_mut().unwrap().append(&mut what.as_object().unwrap().clone());
    Tampering { name, batch: sequence as usize / 16, change, found: found.to_vec() }
}

fn set(sequence: u64, column: &'static str, value: Value, found: &[(&'static str, u64)]) -> Tampering {
    tampering(column, sequence, json!({ "set": { column: value } }), found)
}

fn tamperings(events: &[Event]) -> Vec<Tampering> {
    let of_victim = |sequence: u64| {
        let is =
            |event: &&Event| event.session == VICTIM && event.raw["sequence"].get() == sequence.to_string();
        &events.iter().find(is).unwrap().raw
    };
    let (payload, salt) = (of_victim(20)["payload"].get(), text(of_victim(20), "salt").unwrap());
    let timestamp = Micros::parse(&text(of_victim(20), "timestamp").unwrap()).unwrap().get();
    let other = "11".repeat(32);
    let (hash, syntax, next) = (&[("hash", 20)][..], &[("syntax", 20)][..], &[("hash", 21)][..]);
    vec![
        set(20, "payload", json!(payload.replacen("c-5", "c-6", 1)), hash),
        set(20, "payload", json!(format!("{payload} ")), hash),
        set(20, "metadata", json!(r#"{"a":1}"#), hash),
        set(20, "salt", json!("22".repeat(16)), hash),
        set(20, "agent_id", json!("somebody else"), hash),
        set(20, "event_type", json!("tool_calls"), hash),
        set(20, "severity", json!("debug"), hash),
        set(20, "source_id", json!("a source"), hash),
        set(20, "compliance_tag", json!("none"), hash),
        set(20, "pii_types", json!("email"), hash),
        set(20, "redaction_count", json!(1), hash),
        set(20, "redaction_policy", json!(other), hash),
        set(20, "timestamp_us", json!(timestamp + 1), hash),
        set(20, "event_id", json!("01a202e2-6f9f-7042-8299-dd0b72791c01"), syntax),
        set(20, "timestamp_us", json!(timestamp + 2_000_000), syntax),
        set(20, "commit_id", json!("01a202e2-6f9f-7042-8299-dd0b72791c00"), syntax),
        // The same bytes hashed, cut elsewhere.
        tampering(
            "a byte from the payload to the salt",
            20,
            json!({ "set": { "salt": format!("{salt}7b"), "payload": payload.strip_prefix('{') } }),
            syntax,
        ),
        // Nothing that is absent and nothing that is empty hash alike.
        set(20, "source_id", json!(""), syntax),
        set(20, "redaction_policy", json!(""), syntax),
        set(20, "agent_id", json!("a\nb"), syntax),
        set(20, "payload", json!(null), syntax),
        set(20, "content_digest", json!(other), syntax),
        set(20, "hash", json!(other), &[("hash", 20), ("hash", 21)]),
        set(20, "prev_hash", json!(other), syntax),
        set(16, "prev_hash", json!(null), &[("syntax", 16)]),
        set(16, "prev_hash", json!(other), &[("prev_hash", 16)]),
        set(0, "prev_hash", json!(other), &[("prev_hash", 0)]),
        set(20, "sequence", json!(99), &[("sequence", 21), ("syntax", 99)]),
        // Whose own hash is made right again is found by what follows, in the same batch or the next.
        tampering("rehashed", 20, json!({ "set": { "payload": "{}" }, "rehash": true }), next),
        tampering(
            "the last of a run, rehashed",
            31,
            json!({ "set": { "payload": "{}" }, "rehash": true }),
            &[("prev_hash", 32)],
        ),
        tampering("dropped", 20, json!({ "drop": true }), &[("sequence", 21)]),
        tampering("the first of a run, dropped", 16, json!({ "drop": true }), &[("syntax", 17)]),
        tampering("repeated", 20, json!({ "repeat": true }), &[("sequence", 20)]),
        tampering(
            "erased, with another digest",
            20,
            json!({ "erase": true, "set": { "metadata": r#"{"a":1}"# } }),
            hash,
        ),
        // An erasure is no tampering.
        tampering("erased", 20, json!({ "erase": true }), &[]),
        // What it does not see, and says so: `quipu verify` does.
        tampering(
            "the last of all, rehashed",
            47,
            json!({ "set": { "payload": "{}" }, "rehash": true }),
            &[],
        ),
        tampering("the last of all, dropped", 47, json!({ "drop": true }), &[]),
        set(20, "tool_name", json!("another tool"), &[]),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_chain_finds_what_was_changed() {
    let archive = RealArchive::make();
    let cases = tamperings(&events(&archive, "default"));
    let scratch = tempfile::tempdir().unwrap();
    let copies: Vec<_> = (0..cases.len()).map(|index| copy(&archive.path(), scratch.path(), index)).collect();
    let changes: Vec<_> = cases
        .iter()
        .zip(&copies)
        .map(|(case, copy)| {
            let mut change = case.change.clone();
            change["file"] = json!(batches(copy, "default")[case.batch]);
            change
        })
        .collect();
    run(&["tamper_batch.py"], &changes.into());
    let query = saved("verify_chain", "default", ALWAYS);
    let by_duckdb = ask_duckdb(&copies.iter().map(|copy| on(copy, &query)).collect::<Vec<_>>());
    let for_athena = script("athena", &json!([query]))[0].as_str().unwrap().to_owned();
    for ((case, copy), by_duckdb) in cases.iter().zip(&copies).zip(by_duckdb) {
        let database = database_over(copy).await;
        for (who, found) in [("DuckDB", by_duckdb), ("Athena", athena_answer(&database, &for_athena))] {
            let places: Vec<_> = found
                .iter()
                .map(|row| {
                    assert_eq!(of(row, "session_id"), VICTIM);
                    (of(row, "code"), of(row, "sequence").parse::<u64>().unwrap())
                })
                .collect();
            assert_eq!(places, case.found, "{who}: {}: {}", case.name, case.change);
        }
    }
}

/// A file among another tenant's is nobody's history there.
#[tokio::test(flavor = "multi_thread")]
async fn verify_chain_finds_a_file_of_another_tenant() {
    let archive = RealArchive::make();
    let scratch = tempfile::tempdir().unwrap();
    let copy = copy(&archive.path(), scratch.path(), 0);
    let events = copy.join("events");
    std::fs::rename(events.join("tenant=acme"), events.join("tenant=other")).unwrap();
    for engine in Engine::both(&copy).await {
        let found = engine.ask_one(saved("verify_chain", "other", ALWAYS));
        assert_eq!(found.len() as u64, archive.sent["acme"], "{}", engine.name());
        assert!(found.iter().all(|row| of(row, "code") == "hash"), "{}: {found:?}", engine.name());
    }
}

/// A copy of an archive.
fn copy(archive: &Path, place: &Path, index: usize) -> PathBuf {
    let copy = place.join(index.to_string());
    assert!(Command::new("cp").arg("-r").args([archive, &copy]).status().unwrap().success());
    copy
}

/// Files that are missing, twice there, or in another day's folder; and days that do not begin with a session.
#[tokio::test(flavor = "multi_thread")]
async fn verify_counts_finds_files_out_of_place() {
    let archive = RealArchive::make();
    let scratch = tempfile::tempdir().unwrap();
    let make = |index| {
        let copy = copy(&archive.path(), scratch.path(), index);
        let files = batches(&copy, "default");
        (copy, files)
    };
    let elsewhere = |file: &Path| {
        let folder = file.parent().unwrap().with_file_name("dt=2026-01-02");
        std::fs::create_dir_all(&folder).unwrap();
        folder.join(file.file_name().unwrap())
    };
    let missing = make(0);
    std::fs::remove_file(&missing.1[1]).unwrap();
    let twice = make(1);
    std::fs::copy(&twice.1[1], elsewhere(&twice.1[1])).unwrap();
    let moved = make(2);
    std::fs::rename(&moved.1[0], elsewhere(&moved.1[0])).unwrap();

    // Batch, its rows that were there before, whether in another's place, how many files and numbers left out; whether
    // that is right.
    let judged = |rows: &[Row]| -> Vec<_> {
        let of_row = |row: &Row| {
            [
                "batch",
                "repeated_events",
                "repeated_sequences",
                "missing_sequences",
                "files_of_batch",
                "missing_batches",
                "misplaced",
                "ok",
            ]
            .map(|name| of(row, name).to_owned())
            .join(" ")
        };
        rows.iter().map(of_row).collect()
    };
    for (which, expected) in [
        (&missing, &["1 0 0 0 1 0 false true", "3 0 0 3 1 1 false false"][..]),
        (
            &twice,
            &[
                "1 0 0 0 1 0 false true",
                "2 0 0 0 2 0 true false",
                "2 48 48 0 2 -1 false false",
                "3 0 0 0 1 0 false true",
            ],
        ),
        (&moved, &["1 0 0 0 1 0 true false", "2 0 0 0 1 0 false true", "3 0 0 0 1 0 false true"]),
    ] {
        for engine in Engine::both(&which.0).await {
            let found = engine.ask_one(saved("verify_counts", "default", ALWAYS));
            assert_eq!(judged(&found), expected, "{}", engine.name());
        }
    }
    // A session that began before the first day asked for hangs on what its first row says; the days together hold.
    for engine in Engine::both(&moved.0).await {
        for days in [ALWAYS, ["2026-01-03", "9999-12-31"], ["2026-01-02", "2026-01-02"]] {
            let [chain, counts] = engine
                .ask(&[saved("verify_chain", "default", days), saved("verify_counts", "default", days)])
                .try_into()
                .unwrap();
            assert_eq!(chain, [], "{}: {days:?}", engine.name());
            let batches = if days == ALWAYS {
                3
            } else if days[0] == days[1] {
                1
            } else {
                2
            };
            assert_eq!(counts.len(), batches, "{}: {days:?}", engine.name());
        }
    }
}
