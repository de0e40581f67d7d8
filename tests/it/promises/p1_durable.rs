//! P1: what was acknowledged survives `kill -9` at any moment.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quipu_tests::{Server, binary};
use serde_json::{Value, json};

const ROUNDS: u64 = 20;
const WRITERS: usize = 6;

/// What a writer was told: id, session, sequence, hash.
type Told = (String, String, u64, String);

fn write_until(
    stop: &AtomicBool,
    url: &str,
    writer: usize,
    round: u64,
    told: &Mutex<Vec<Told>>,
    receipts: &Mutex<Vec<Value>>,
) {
    let agent = ureq::agent();
    for batch in 0.. {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        // Some share a session, some batches span two.
        let sessions = [format!("shared-{}", writer % 2), format!("own-{writer}-{round}")];
        let events: Vec<_> = (0..5)
            .map(|i| {
                json!({ "session_id": sessions[i % (1 + batch % 2)], "agent_id": "a", "event_type": "t",
                        "payload": { "at": [round, writer, batch, i], "text": "x".repeat(200 * i) } })
            })
            .collect();
        let sent = agent
            .post(format!("{url}/v1/events"))
            .header("content-type", "application/json")
            .send(json!({ "events": events }).to_string());
        // A connection that breaks is an unknown outcome, and nothing is claimed of it.
        let Ok(mut answer) = sent else { return };
        let Ok(text) = answer.body_mut().read_to_string() else { return };
        let answer: Value = serde_json::from_str(&text).unwrap();
        let mut told = told.lock().unwrap();
        for event in answer["events"].as_array().unwrap() {
            let text = |name: &str| event[name].as_str().unwrap().to_owned();
            told.push((
                text("event_id"),
                text("session_id"),
                event["sequence"].as_u64().unwrap(),
                text("hash"),
            ));
        }
        receipts.lock().unwrap().extend(answer["receipts"].as_array().unwrap().iter().cloned());
    }
}

#[test]
fn p1_kill_nine_twenty_times_under_load() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let told = Arc::new(Mutex::new(Vec::new()));
    let receipts = Arc::new(Mutex::new(Vec::new()));
    for round in 0..ROUNDS {
        let server = Server::start(&data, &[]);
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (stop, url, told, receipts) =
                    (stop.clone(), server.url.clone(), told.clone(), receipts.clone());
                std::thread::spawn(move || write_until(&stop, &url, writer, round, &told, &receipts))
            })
            .collect();
        // At another moment in each round.
        std::thread::sleep(Duration::from_millis(60 + (round * 137) % 240));
        server.kill();
        stop.store(true, Ordering::SeqCst);
        for writer in writers {
            writer.join().unwrap();
        }
    }
    let told = told.lock().unwrap();
    assert!(told.len() > 200, "the rounds were long enough to write: {}", told.len());

    let file = dir.path().join("receipts.json");
    let receipts = receipts.lock().unwrap();
    std::fs::write(&file, Value::from(receipts.clone()).to_string()).unwrap();
    let verify = || -> Value {
        let mut command = Command::new(binary());
        command.arg("verify").arg(&data).arg("--receipt").arg(&file).arg("--json");
        let output = command.output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
    };
    // As the last kill left it. A kill between the writes of one commit leaves a commit that does not verify, and so
    // was never acknowledged; that cannot be told from damage, and is INCOMPLETE until a server has settled it
    // (docs/format.md, section 7). Held against every receipt, it is never INVALID.
    let report = verify();
    let torn = report["verdict"] == "INCOMPLETE"
        && report["code"] == "unreadable"
        && report["message"].as_str().unwrap().starts_with("the last commit");
    assert!(report["verdict"] == "VALID" || torn, "{report}");
    // Reopened, it is VALID against every receipt: nothing that was acknowledged is missing.
    Server::start(&data, &[]).terminate();
    let report = verify();
    assert_eq!(report["verdict"], "VALID", "{report}");

    // And one by one, as a user would ask.
    let server = Server::start(&data, &[]);
    let agent = ureq::agent();
    for (id, session, sequence, hash) in told.iter() {
        let mut answer = agent.get(format!("{}/v1/events/{id}", server.url)).call().unwrap_or_else(|e| {
            panic!("{id} of {session}#{sequence} was acknowledged and is gone: {e}");
        });
        let event: Value = serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap();
        assert_eq!(
            (&event["session_id"], &event["sequence"], &event["hash"]),
            (&json!(session), &json!(sequence), &json!(hash))
        );
    }
    let (took, well) = server.terminate();
    assert!(well && took < Duration::from_secs(10), "SIGTERM ends it cleanly: {took:?}");
}

/// A second process on the same directory is told who has it.
#[test]
fn a_directory_is_for_one_process() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(&data, &[]);
    let mut second = Command::new(binary());
    second.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(&data);
    let output = second.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("in use") && said.contains(&server.id().to_string()), "{said}");
}
