//! P4 and P5 on archives: every tampering is found on a copy, named alike by both verifiers; and a real archive, with a
//! bundle whose events are proved in its log, is VALID for both.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use quipu_core::verify::samples::tampered_archives;
use quipu_tests::{binary, python, repository};
use serde_json::{Value, json};

fn file(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn p4_every_tampering_of_an_archive_is_found_by_both_verifiers() {
    let dir = tempfile::tempdir().unwrap();
    let cases = tampered_archives(&dir.path().join("archives")).unwrap();
    assert!(cases.len() > 300, "{} cases", cases.len());
    let given = dir.path().join("given");
    std::fs::create_dir(&given).unwrap();
    let mut lines = String::new();
    for (index, case) in cases.iter().enumerate() {
        let name = |what: &str, at: usize| format!("{index}-{what}-{at}");
        let key = case.key.as_ref().map(|key| file(&given, &name("key", 0), key));
        let files = |what: &str, texts: &[String]| -> Vec<String> {
            texts.iter().enumerate().map(|(at, text)| file(&given, &name(what, at), text)).collect()
        };
        let (receipts, checkpoints) =
            (files("receipt", &case.receipts), files("checkpoint", &case.checkpoints));
        let case = json!({ "path": case.path, "key": key, "receipts": receipts, "checkpoints": checkpoints });
        lines.push_str(&format!("{case}\n"));
    }
    let script = repository().join("tests/clients/verify_archives.py");
    let mut child =
        Command::new(python()).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success());
    let theirs: Vec<Value> = output
        .stdout
        .split(|b| *b == b'\n')
        .filter(|l| !l.is_empty())
        .map(|l| serde_json::from_slice(l).unwrap())
        .collect();
    assert_eq!(theirs.len(), cases.len());
    // What the Rust verifier says of each is held by its own tests; the sample says what must be said.
    let mut wrong = Vec::new();
    for (case, theirs) in cases.iter().zip(&theirs) {
        let expected = json!({ "verdict": case.verdict.as_str(), "code": case.code.map(|c| c.as_str()) });
        if *theirs != expected {
            wrong.push(format!("{}: expected {expected}, found {theirs}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn quipu(args: &[&str]) -> Output {
    Command::new(binary()).args(args).output().unwrap()
}

fn done(args: &[&str]) -> String {
    let output = quipu(args);
    let says =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{args:?}: {says}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn p5_a_real_archive_is_valid_under_both() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let data = path("data");
    // Nothing runs: the command line makes the directory, archives and exports by itself.
    let server = quipu_tests::Server::start(Path::new(&data), &[]);
    for batch in 0..3 {
        for number in 0..4 {
            let (session, text) = (format!("s{}", number % 2), format!(r#"{{"n":{number},"model":"m"}}"#));
            let send = ["--agent", "a", "--type", "note.made", "--payload", &text, "--url", &server.url];
            done(&[&["send", "--session", &session][..], &send[..]].concat());
        }
        let says = done(&["archive", "now", "--url", &server.url]);
        assert!(says.contains(&format!("batch {} closed: 4 events", batch + 1)), "{says}");
    }
    assert_eq!(done(&["archive", "now", "--url", &server.url]).trim(), "nothing to archive");
    let key = file(dir.path(), "log.pub", &done(&["key", "show", "--url", &server.url]));
    let bundle = path("bundle.ndjson");
    done(&["export", "--session", "s0", "--session", "s1", "--out", &bundle, "--url", &server.url]);
    let text = std::fs::read_to_string(&bundle).unwrap();
    assert_eq!(
        (text.matches(r#""kind":"checkpoint""#).count(), text.matches(r#""kind":"proof""#).count()),
        (1, 6)
    );
    drop(server);

    let archive = path("data/archive");
    let kept = format!("{archive}/log/default/checkpoint");
    let script = repository().join("tests/verifier/quipu_verify.py");
    let script = script.to_str().unwrap();
    for what in [&archive, &bundle] {
        let with = ["--key", key.as_str(), "--checkpoint", kept.as_str()];
        let ours = quipu(&[&["verify", what.as_str(), "--json"][..], &with[..]].concat());
        let theirs =
            Command::new(python()).args([script, what.as_str(), "--json"]).args(with).output().unwrap();
        for (who, output) in [("ours", ours), ("theirs", theirs)] {
            let report: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(
                (&report["verdict"], &report["events"]),
                (&json!("VALID"), &json!(12)),
                "{who}: {report}"
            );
        }
    }
    let whole = done(&["verify", &data, "--key", &key, "--checkpoint", &kept]);
    assert!(whole.starts_with("VALID") && whole.contains("12 events"), "{whole}");

    // The newest batch goes, with every trace of it: only what was kept outside tells.
    let copy = path("copy");
    assert!(Command::new("cp").args(["-r", &archive, &copy]).status().unwrap().success());
    let number = format!("{:020}", 3);
    for name in
        [format!("batch/{number}.json"), format!("batch/{number}.sig"), format!("checkpoints/{number}")]
    {
        std::fs::remove_file(format!("{copy}/log/default/{name}")).unwrap();
    }
    let before = format!("{copy}/log/default/checkpoints/{:020}", 2);
    std::fs::copy(before, format!("{copy}/log/default/checkpoint")).unwrap();
    let events = format!("{copy}/events");
    let name = format!("batch-{number}.parquet");
    assert!(Command::new("find").args([&events, "-name", &name, "-delete"]).status().unwrap().success());
    let tiles = format!("{copy}/log/default/tile");
    // Partial tiles of twelve leaves; those of eight stay.
    assert!(Command::new("find").args([&tiles, "-name", "12", "-delete"]).status().unwrap().success());
    let shorter = done(&["verify", &copy, "--key", &key]);
    assert!(shorter.contains("8 events") && shorter.contains("Freshness not proved"), "{shorter}");
    let held = quipu(&["verify", &copy, "--key", &key, "--checkpoint", &kept]);
    assert_eq!(held.status.code(), Some(1), "{}", String::from_utf8_lossy(&held.stdout));
    assert!(String::from_utf8_lossy(&held.stdout).contains("rollback"));
}
