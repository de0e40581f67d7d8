//! P4 and P5: the offline verifiers, Rust and Python, on tampered copies. Every tampering is found and named; the
//! verdicts, codes and exit codes of both agree; silence is never VALID.

use std::path::Path;
use std::process::{Command, Output};

use quipu_core::verify::samples::{Tampered, tampered_bundles};
use quipu_tests::{Server, binary, python, repository};
use serde_json::{Value, json};

fn ours(args: &[&str]) -> Output {
    Command::new(binary()).arg("verify").args(args).arg("--json").output().unwrap()
}

fn theirs(args: &[&str]) -> Output {
    let script = repository().join("tests/verifier/quipu_verify.py");
    Command::new(python()).arg(script).args(args).arg("--json").output().unwrap()
}

fn verdict(output: &Output) -> (String, Value, Value, Value, Option<i32>) {
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| {
        panic!("{e}: {} {}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    });
    let verdict = report["verdict"].as_str().unwrap().to_owned();
    (
        verdict,
        report["code"].clone(),
        report["session_id"].clone(),
        report["sequence"].clone(),
        output.status.code(),
    )
}

fn write(dir: &Path, name: &str, text: &[u8]) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// The second verifier agrees on every vector.
#[test]
fn the_second_verifier_agrees_on_the_vectors() {
    let vectors = repository().join("docs/vectors/vectors.json");
    let script = repository().join("tests/verifier/quipu_verify.py");
    let output = Command::new(python()).arg(script).arg("--vectors").arg(vectors).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// A real session, exported by a real server, under both verifiers.
#[test]
fn p5_a_real_export_is_valid_under_both() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"), &[]);
    let events: Vec<_> = (0..40)
        .map(|i| {
            json!({ "session_id": "a/b ü 🪢", "agent_id": "a", "event_type": "t",
                                "payload": { "n": i, "big": 9007199254740993u64, "t": "é\"\\ \u{2028}" } })
        })
        .collect();
    let body = json!({ "events": events }).to_string();
    let mut reply = ureq::post(format!("{}/v1/events", server.url)).send(body).unwrap();
    let reply = write(dir.path(), "reply.json", reply.body_mut().read_to_string().unwrap().as_bytes());
    let out = dir.path().join("bundle.ndjson");
    let run = |args: &[&str]| {
        let output = Command::new(binary()).args(args).args(["--url", &server.url]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    run(&["export", "--session", "a/b ü 🪢", "--out", out.to_str().unwrap()]);
    let key = write(dir.path(), "log.pub", &run(&["key", "show"]));
    let bundle = out.to_str().unwrap();

    let valid = ("VALID".to_owned(), Value::Null, Value::Null, Value::Null, Some(0));
    let with_key = [bundle, "--key", &key, "--receipt", &reply];
    assert_eq!((verdict(&ours(&with_key)), verdict(&theirs(&with_key))), (valid.clone(), valid));
    let incomplete = ("INCOMPLETE".to_owned(), json!("no_key"), Value::Null, Value::Null, Some(2));
    assert_eq!((verdict(&ours(&[bundle])), verdict(&theirs(&[bundle]))), (incomplete.clone(), incomplete));

    // The session grows; a bundle of before does not hold what was promised since.
    let more =
        json!({ "events": [{ "session_id": "a/b ü 🪢", "agent_id": "a", "event_type": "t", "payload": 1 }] });
    let mut later = ureq::post(format!("{}/v1/events", server.url)).send(more.to_string()).unwrap();
    let later = write(dir.path(), "later.json", later.body_mut().read_to_string().unwrap().as_bytes());
    let cut = [bundle, "--key", &key, "--receipt", &later];
    for output in [ours(&cut), theirs(&cut)] {
        let (verdict, code, .., exit) = verdict(&output);
        assert_eq!((verdict.as_str(), &code, exit), ("INVALID", &json!("receipt"), Some(1)));
    }
}

/// The tamper matrix: one bundle for each way to cheat, both verifiers.
#[test]
fn p4_p5_both_verifiers_name_every_tampering() {
    let dir = tempfile::tempdir().unwrap();
    let samples = tampered_bundles(1);
    assert!(samples.len() >= 60, "{}", samples.len());
    // A process for each verdict: two at a time.
    let half = samples.len().div_ceil(2);
    let differing: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = samples
            .chunks(half)
            .enumerate()
            .map(|(worker, chunk)| {
                let dir = dir.path().join(worker.to_string());
                scope.spawn(move || {
                    chunk.iter().filter_map(|sample| differs(&dir, sample)).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

/// Holds both verifiers to what must be said of a sample.
fn differs(dir: &Path, sample: &Tampered) -> Option<String> {
    std::fs::create_dir_all(dir).unwrap();
    let mut args = vec![write(dir, "bundle.ndjson", &sample.bundle)];
    if let Some(key) = &sample.key {
        args.extend(["--key".into(), write(dir, "log.pub", key.as_bytes())]);
    }
    for (index, receipt) in sample.receipts.iter().enumerate() {
        args.extend(["--receipt".into(), write(dir, &format!("receipt{index}"), receipt.as_bytes())]);
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let (ours, theirs) = (verdict(&ours(&args)), verdict(&theirs(&args)));
    let expected = (sample.verdict.as_str(), sample.code.map(|code| code.as_str()));
    let right = ours == theirs && (ours.0.as_str(), ours.1.as_str()) == expected;
    (!right).then(|| format!("{}: expected {expected:?}, ours {ours:?}, theirs {theirs:?}", sample.name))
}

/// What is not there, or cannot be read, is INCOMPLETE; what is empty is INVALID; nothing of it is VALID.
#[test]
fn p5_silence_is_never_valid() {
    let dir = tempfile::tempdir().unwrap();
    let absent = dir.path().join("absent");
    let empty = write(dir.path(), "empty", b"");
    let (v, code, .., exit) = verdict(&ours(&[absent.to_str().unwrap()]));
    assert_eq!((v.as_str(), code, exit), ("INCOMPLETE", json!("unreadable"), Some(2)));
    for output in [ours(&[&empty]), theirs(&[&empty])] {
        let (v, code, .., exit) = verdict(&output);
        assert_eq!((v.as_str(), code, exit), ("INVALID", json!("truncated"), Some(1)));
    }
    let (v, .., exit) = verdict(&ours(&[dir.path().to_str().unwrap()]));
    assert_eq!((v.as_str(), exit), ("INCOMPLETE", Some(2)), "a directory that is no data directory");

    // A ledger without a single session proves nothing.
    let data = dir.path().join("data");
    let server = Server::start(&data, &[]);
    server.terminate();
    let (v, code, .., exit) = verdict(&ours(&[data.to_str().unwrap()]));
    assert_eq!((v.as_str(), code, exit), ("INCOMPLETE", json!("empty"), Some(2)));
}
