//! Keys on one machine, as their holder sees them: made, replaced, and what was signed before goes on verifying.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use quipu_core::note::{NoteSigner, VerifierKey};
use quipu_tests::{Server, binary};
use serde_json::{Value, json};

fn run(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.args(args).current_dir(dir).stdin(Stdio::null());
    for name in ["QUIPU_URL", "QUIPU_TOKEN", "QUIPU_DATA"] {
        command.env_remove(name);
    }
    command.output().unwrap()
}

fn ok(dir: &Path, args: &[&str]) -> String {
    let output = run(dir, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn refused(dir: &Path, args: &[&str]) -> String {
    let output = run(dir, args);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
    assert!(output.stdout.is_empty(), "{args:?}");
    said
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// Sends an event; the reply, which holds a receipt, goes to a file.
fn send(dir: &Path, session: &str, reply: &str) {
    let args =
        ["send", "--session", session, "--agent", "a", "--type", "note.made", "--payload", "{}", "--json"];
    std::fs::write(dir.join(reply), ok(dir, &args)).unwrap();
}

fn verdict(dir: &Path, args: &[&str]) -> Value {
    let output = run(dir, &[&["verify", "--json", "--quiet"], args].concat());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    report["verdict"]
        .as_str()
        .map_or_else(|| panic!("{report}"), |verdict| json!([verdict, report["message"]]))
}

#[test]
fn a_key_is_made_once_and_for_its_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let made = ok(dir, &["key", "new", "--name", "example.com/witness-1"]);
    let key = VerifierKey::parse(made.trim_end()).unwrap();
    assert_eq!(key.name(), "example.com/witness-1");
    let path = dir.join("example.com-witness-1.key");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let private = read(&path);
    assert_eq!(NoteSigner::parse_private(&private).unwrap().verifier(), &key);
    let said = refused(dir, &["key", "new", "--name", "example.com/witness-1"]);
    assert!(said.contains("example.com-witness-1.key is there already") && said.contains("--out"), "{said}");
    assert_eq!(read(&path), private, "nothing is overwritten");
    let other = ok(dir, &["key", "new", "--name", "example.com/witness-1", "--out", "other.key"]);
    assert_ne!(other, made, "every key is new");
    let said = refused(dir, &["key", "new", "--name", "two words", "--out", "bad.key"]);
    assert!(said.contains("two words") && !dir.join("bad.key").exists(), "{said}");
}

#[test]
fn keys_are_not_replaced_while_a_server_uses_them() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("quipu-data"), &[]);
    let dir = dir.path();
    let before = ok(dir, &["key", "show", "--json"]);
    for which in ["log", "receipt"] {
        let said = refused(dir, &["key", "rotate", which]);
        assert!(said.contains("in use by process") && said.contains("stop that process"), "{said}");
    }
    assert_eq!(ok(dir, &["key", "show", "--json"]), before);
    server.terminate();
    let said = refused(dir, &["key", "rotate", "log", "--data", "nowhere"]);
    assert!(said.contains("nowhere"), "{said}");
    assert!(!dir.join("nowhere").exists());
}

/// Receipts, bundles and the directory of before, of between and of after, with the first log key and with the last.
#[test]
fn what_was_signed_before_a_rotation_verifies_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("quipu-data");
    let keys = data.join("keys");
    Server::start(&data, &[]).terminate();
    let dir = dir.path();
    send(dir, "s", "0.json");
    ok(dir, &["export", "--session", "s", "--out", "0.ndjson"]);
    std::fs::write(dir.join("first.pub"), ok(dir, &["key", "show"])).unwrap();
    let (log_secret, receipt_secret) = (read(keys.join("log.key")), read(keys.join("receipt.key")));

    let receipt = ok(dir, &["key", "rotate", "receipt"]);
    assert_eq!(VerifierKey::parse(receipt.trim_end()).unwrap().to_string(), receipt.trim_end());
    assert_ne!(read(keys.join("receipt.key")), receipt_secret);
    send(dir, "s", "1.json");
    let rotated: Value = serde_json::from_str(&ok(dir, &["key", "rotate", "log", "--json"])).unwrap();
    assert_eq!(rotated["old"], read(dir.join("first.pub")).trim_end());
    assert_eq!(rotated["new"], read(keys.join("log.pub")).trim_end());
    assert_ne!(read(keys.join("log.key")), log_secret);
    send(dir, "s", "2.json");
    // With the new log key, a receipt key again.
    ok(dir, &["key", "rotate", "receipt"]);
    let last = ok(dir, &["key", "rotate", "log"]);
    std::fs::write(dir.join("last.pub"), &last).unwrap();

    let server = Server::start(&data, &[]);
    send(dir, "s", "3.json");
    ok(dir, &["export", "--session", "s", "--out", "3.ndjson"]);
    let shown: Value = serde_json::from_str(&ok(dir, &["key", "show", "--json"])).unwrap();
    assert_eq!(shown["log_key"], last.trim_end());
    assert_eq!(shown["rotations"].as_array().map(Vec::len), Some(2));
    let certificates: Value = serde_json::from_str(&ok(dir, &["key", "certificates", "--json"])).unwrap();
    assert_eq!(certificates.as_array().map(Vec::len), Some(3));
    server.terminate();

    let valid = json!(["VALID", null]);
    let receipts =
        ["--receipt", "0.json", "--receipt", "1.json", "--receipt", "2.json", "--receipt", "3.json"];
    for key in ["first.pub", "last.pub"] {
        let key = ["--key", key];
        assert_eq!(verdict(dir, &[&["3.ndjson"], &key[..], &receipts].concat()), valid, "{key:?}");
        assert_eq!(verdict(dir, &[&["quipu-data"], &key[..], &receipts].concat()), valid, "{key:?}");
    }
    assert_eq!(verdict(dir, &["quipu-data"]), valid);
    assert_eq!(verdict(dir, &["0.ndjson", "--key", "first.pub"]), valid, "made before there was another key");
    assert_eq!(
        verdict(dir, &["0.ndjson", "--key", "last.pub"])[0],
        "INVALID",
        "nothing in it names that key"
    );
    std::fs::write(dir.join("stranger.pub"), ok(dir, &["key", "new", "--name", "local-0/_log"])).unwrap();
    assert_eq!(verdict(dir, &["3.ndjson", "--key", "stranger.pub"])[0], "INVALID");
    for (name, file) in [("log.key", &log_secret), ("receipt.key", &receipt_secret)] {
        let left = std::fs::read_dir(&keys).unwrap().map(|e| read(e.unwrap().path()));
        assert!(left.into_iter().all(|text| !text.contains(file.trim_end())), "the first {name} is gone");
    }
}

/// A batch whose header the old key may have signed is the old key's to finish.
#[test]
fn the_log_key_is_not_replaced_in_the_middle_of_a_batch() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("quipu-data");
    Server::start(&data, &[]).terminate();
    let dir = dir.path();
    let batches = data.join("archive/log/acme/batch");
    std::fs::create_dir_all(&batches).unwrap();
    std::fs::write(batches.join("00000000000000000007.json"), "{}").unwrap();
    let before = read(data.join("keys/log.key"));
    let said = refused(dir, &["key", "rotate", "log"]);
    assert!(said.contains("batch 7 of the log of acme") && said.contains("start the server"), "{said}");
    assert_eq!(read(data.join("keys/log.key")), before);
    ok(dir, &["key", "rotate", "receipt"]);
}
