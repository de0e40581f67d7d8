//! The command line, as its user sees it: real processes, pipes, files.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use quipu_tests::{Server, binary};
use serde_json::{Value, json};

fn quipu(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command
        .args(args)
        .current_dir(dir)
        .env_remove("QUIPU_URL")
        .env_remove("QUIPU_TOKEN")
        .env_remove("QUIPU_DATA");
    command
}

fn run(dir: &Path, args: &[&str]) -> Output {
    quipu(dir, args).stdin(Stdio::null()).output().unwrap()
}

fn ok(dir: &Path, args: &[&str]) -> String {
    let output = run(dir, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn piped(dir: &Path, args: &[&str], input: &[u8]) -> Output {
    let mut child =
        quipu(dir, args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

fn lines(count: usize) -> String {
    (0..count)
        .map(|i| {
            let event = json!({ "session_id": format!("s{}", i % 7), "agent_id": "a", "event_type": "t", "payload": i });
            format!("{event}\n")
        })
        .collect()
}

/// What a command prints with `--json`, one document a line.
fn documents(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// The same commands, on a directory that no server runs on and then through the server that does: no port, address
/// or token has to be given for either.
#[test]
fn commands_work_on_a_directory_and_through_the_server_that_runs_on_it() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("quipu-data");
    // Made by a server; then it ends.
    Server::start(&data, &[]).terminate();
    for (round, server) in [(1, None), (2, Some(Server::start(&data, &["--auth", "required"])))] {
        let dir = dir.path();
        let send = ["send", "--session", "demo", "--agent", "me", "--type", "note.made", "--payload"];
        let reply = ok(dir, &[&send[..], &[r#"{"z":-0,"n":9007199254740993}"#, "--json"]].concat());
        let reply: Value = serde_json::from_str(&reply).unwrap();
        assert_eq!(reply["events"][0]["sequence"], round - 1);
        let found = ok(dir, &["query", "--session", "demo", "--json"]);
        assert!(found.contains(r#""payload":{"z":-0,"n":9007199254740993}"#), "byte for byte: {found}");
        assert_eq!(documents(&found).len(), round);
        assert_eq!(documents(&ok(dir, &["tail", "--json"])).len(), round);

        let token: Value =
            serde_json::from_str(&ok(dir, &["token", "create", "--scope", "events:read", "--json"])).unwrap();
        let listed: Value = serde_json::from_str(&ok(dir, &["token", "list", "--json"])).unwrap();
        assert_eq!(listed.as_array().map(Vec::len), Some(round));
        if let Some(server) = &server {
            let text = token["token"].as_str().unwrap();
            ok(dir, &["query", "--url", &server.url, "--token", text]);
            let refused = run(dir, &["token", "list", "--url", &server.url, "--token", text]);
            assert_eq!(refused.status.code(), Some(1));
            assert!(String::from_utf8_lossy(&refused.stderr).contains("tokens:admin"));
            let refused = run(dir, &["query", "--url", &server.url]);
            assert_eq!(refused.status.code(), Some(1), "no token, and not this machine's operator");
        }
        ok(dir, &["token", "revoke", token["id"].as_str().unwrap()]);
        ok(dir, &["tenant", "create", &format!("acme-{round}")]);
        assert!(ok(dir, &["tenant", "list"]).contains(&format!("acme-{round}")));
        assert!(ok(dir, &["key", "show"]).contains("/_log+"));
    }
}

/// Events through a pipe in, a bundle through a pipe out and into the verifier.
#[test]
fn commands_work_in_pipes() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    Server::start(&dir.join("quipu-data"), &[]).terminate();
    let sent = piped(dir, &["send", "-"], lines(20).as_bytes());
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    assert_eq!(String::from_utf8_lossy(&sent.stdout).lines().count(), 20);
    let bundle = ok(dir, &["export", "--session", "s3", "--out", "-"]);
    std::fs::write(dir.join("log.pub"), ok(dir, &["key", "show"])).unwrap();
    let verdict = piped(dir, &["verify", "-", "--key", "log.pub"], bundle.as_bytes());
    assert_eq!(verdict.status.code(), Some(0), "{}", String::from_utf8_lossy(&verdict.stdout));
    assert!(String::from_utf8_lossy(&verdict.stdout).starts_with("VALID"));
    // Whoever reads only the first line ends the pipe; that is no error.
    let cut = Command::new("sh")
        .arg("-c")
        .arg(format!("{} query --all | head -n 1", binary().display()))
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(cut.stderr.is_empty(), "{}", String::from_utf8_lossy(&cut.stderr));
}

/// The sessions that have something in a range become one bundle, whole, with the log's checkpoint and proofs; and it
/// says so where there is none.
#[test]
fn a_range_of_time_is_one_bundle() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let server = Server::start(&dir.join("quipu-data"), &[]);
    let at = |session: &str, day: u32| {
        let time = format!("2026-02-{day:02}T10:00:00Z");
        let event = json!({ "session_id": session, "agent_id": "a", "event_type": "t", "timestamp": time, "payload": day });
        format!("{event}\n")
    };
    let early = [at("before", 1), at("across", 2), at("across", 10), at("inside", 11)].concat();
    assert!(piped(dir, &["send", "-"], early.as_bytes()).status.success());
    ok(dir, &["archive", "now"]);
    let late = [at("inside", 12), at("after", 21)].concat();
    assert!(piped(dir, &["send", "-"], late.as_bytes()).status.success());
    let summary = ok(
        dir,
        &["export", "--since", "2026-02-09", "--until", "2026-02-12", "--out", "range.ndjson", "--json"],
    );
    let summary: Value = serde_json::from_str(&summary).unwrap();
    assert_eq!((&summary["sessions"], &summary["events"]), (&json!(2), &json!(4)), "{summary}");
    std::fs::write(dir.join("log.pub"), ok(dir, &["key", "show"])).unwrap();
    let verdict = ok(dir, &["verify", "range.ndjson", "--key", "log.pub"]);
    assert!(verdict.starts_with("VALID") && verdict.contains("checkpoint 4"), "{verdict}");
    let bundle = std::fs::read_to_string(dir.join("range.ndjson")).unwrap();
    assert_eq!(bundle.matches(r#""kind":"proof""#).count(), 2, "both sessions are in the log");
    ok(dir, &["export", "--until", "2026-02-01", "--out", "one.ndjson"]);
    let none = run(dir, &["export", "--since", "2027-01-01", "--out", "none.ndjson"]);
    assert_eq!(none.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&none.stderr).contains("no session has an event in this range"));
    assert!(!dir.join("none.ndjson").exists());
    let explained = run(dir, &["query", "--session", "inside", "--explain"]);
    assert!(String::from_utf8_lossy(&explained.stderr).contains("2 segments read"), "{explained:?}");
    drop(server);
}

/// An import that is killed again and again goes on where it was, and writes nothing twice.
#[test]
fn an_import_is_resumable() {
    const EVENTS: usize = 3000;
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let server = Server::start(&dir.join("quipu-data"), &[]);
    std::fs::write(dir.join("events.ndjson"), lines(EVENTS)).unwrap();
    let args = ["import", "events.ndjson", "--batch", "10", "--quiet", "--receipts", "receipts.json"];
    for pause_ms in [60, 90, 120] {
        let mut child = quipu(dir, &args).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(pause_ms));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    ok(dir, &args);
    server.terminate();
    let report = run(dir, &["verify", "quipu-data", "--receipt", "receipts.json", "--json"]);
    let report: Value = serde_json::from_slice(&report.stdout).unwrap();
    assert_eq!((&report["verdict"], &report["events"]), (&json!("VALID"), &json!(EVENTS)), "{report}");
    let all = ok(dir, &["query", "--all", "--order", "asc", "--json"]);
    let mut payloads: Vec<u64> = documents(&all).iter().map(|e| e["payload"].as_u64().unwrap()).collect();
    payloads.sort_unstable();
    assert_eq!(payloads, (0..EVENTS as u64).collect::<Vec<_>>(), "every line once");
}

/// A line that is refused is named by its number in the file; what came before it is in.
#[test]
fn an_import_names_the_line_that_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    Server::start(&dir.join("quipu-data"), &[]).terminate();
    let bad = json!({ "session_id": "s", "agent_id": "a", "event_type": "tool_call", "payload": {} });
    std::fs::write(dir.join("events.ndjson"), format!("{}{bad}\n{}", lines(12), lines(3))).unwrap();
    let stopped = run(dir, &["import", "events.ndjson", "--quiet"]);
    assert_eq!(stopped.status.code(), Some(1));
    let said = String::from_utf8_lossy(&stopped.stderr).into_owned();
    assert!(said.contains("13") && said.contains("toolName"), "{said}");
    ok(dir, &["import", "events.ndjson", "--quiet", "--skip-invalid", "refused.ndjson"]);
    assert_eq!(std::fs::read_to_string(dir.join("refused.ndjson")).unwrap(), format!("{bad}\n"));
    assert_eq!(documents(&ok(dir, &["query", "--all", "--json"])).len(), 15);
}

/// What goes wrong first for a newcomer says how to mend it.
#[test]
fn first_errors_say_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let busy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = busy.local_addr().unwrap().to_string();
    std::fs::create_dir(dir.join("photos")).unwrap();
    std::fs::write(dir.join("photos/cat.png"), "").unwrap();
    for (args, says) in [
        (vec!["serve", "--listen", &address, "--data", "d1"], "--listen"),
        (vec!["serve", "--listen", "127.0.0.1:0", "--data", "photos"], "photos"),
        (vec!["serve", "--listen", "0.0.0.0:0", "--auth", "loopback", "--data", "d2"], "--auth required"),
        (vec!["serve", "--listen", "127.0.0.1:0", "--store", "aws"], "QUIPU_TABLE"),
        (vec!["query", "--data", "nowhere"], "quipu serve"),
        (vec!["query", "--url", "http://127.0.0.1:9"], "127.0.0.1:9"),
    ] {
        let output = run(dir, &args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
        assert!(said.starts_with("error: ") && said.contains(says), "{args:?}: {said}");
    }
    assert_eq!(std::fs::read_dir(dir.join("photos")).unwrap().count(), 1, "nothing is littered there");
}
