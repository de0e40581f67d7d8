//! The AgentLens dialect.

use std::process::Command;

use quipu_tests::{Server, python, repository};
use serde_json::Value;

/// The published client, unmodified, against the real server.
#[test]
fn the_published_python_client_works() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"), &["--auth", "required"]);
    let made: Value = ureq::post(format!("{}/v1/auth/tokens", server.url))
        .header("content-type", "application/json")
        .send(r#"{"scopes":["*"]}"#)
        .unwrap()
        .body_mut()
        .read_to_string()
        .map(|text| serde_json::from_str(&text).unwrap())
        .unwrap();
    let script = repository().join("tests/clients/agentlens_client.py");
    let output = Command::new(python())
        .arg(script)
        .args([&server.url, made["token"].as_str().unwrap()])
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    assert!(out.contains("passed, 0 failed"), "{out}");
}
