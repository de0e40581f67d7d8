//! `localstack/start` and `localstack/stop`, as a user runs them.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

use quipu_tests::emulator::{call, try_call};
use quipu_tests::repository;
use serde_json::json;

fn run(script: &str, target: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(repository().join("localstack").join(script));
    // What it writes goes to a directory of this test's.
    command.args(arguments).env("CARGO_TARGET_DIR", target).env_remove("LOCALSTACK_AUTH_TOKEN");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Stops it also when an assertion fails.
struct Running<'a> {
    port: &'a str,
    target: &'a Path,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let stop = repository().join("localstack/stop");
        let _ = Command::new(stop).args(["--port", self.port]).env("CARGO_TARGET_DIR", self.target).output();
    }
}

fn exports(output: &Output) -> BTreeMap<String, String> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let export = |line: &str| {
        let (name, value) =
            line.strip_prefix("export ").and_then(|rest| rest.split_once('=')).expect("an export");
        (name.to_owned(), value.to_owned())
    };
    text.lines().map(export).collect()
}

#[test]
fn start_makes_what_serve_needs_again_changes_nothing_and_stop_ends_it() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let target = tempfile::tempdir().unwrap();
    let ministack =
        std::env::var("QUIPU_TEST_MINISTACK").expect("QUIPU_TEST_MINISTACK: run cargo xtask test");
    let start = || run("start", target.path(), &["--port", &port, "--ministack", &ministack]);
    let running = Running { port: &port, target: target.path() };

    let first = exports(&start());
    let url = first["AWS_ENDPOINT_URL"].clone();
    assert_eq!(url, format!("http://127.0.0.1:{port}"));
    for name in ["AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
        assert!(!first[name].is_empty(), "{name}");
    }

    let name = json!({"TableName": first["QUIPU_TABLE"]});
    let table = call(&url, "DynamoDB_20120810.DescribeTable", &name)["Table"].clone();
    let key = |hash: &str, range: &str| json!([{"AttributeName": hash, "KeyType": "HASH"}, {"AttributeName": range, "KeyType": "RANGE"}]);
    assert_eq!(table["KeySchema"], key("pk", "sk"));
    let indexes = table["GlobalSecondaryIndexes"].as_array().unwrap();
    assert_eq!(indexes.len(), 2);
    for (index, (name, hash, projects)) in indexes.iter().zip([("feed", "f", "m"), ("open", "o", "z")]) {
        assert_eq!((&index["IndexName"], &index["KeySchema"]), (&json!(name), &key(hash, "c")));
        let projection = json!({"ProjectionType": "INCLUDE", "NonKeyAttributes": [projects]});
        assert_eq!(index["Projection"], projection);
    }
    let expiry = call(&url, "DynamoDB_20120810.DescribeTimeToLive", &name);
    assert_eq!(expiry["TimeToLiveDescription"]["AttributeName"], "ttl");
    assert_eq!(expiry["TimeToLiveDescription"]["TimeToLiveStatus"], "ENABLED");

    let key_of = |variable: &str| {
        let id = json!({"KeyId": first[variable]});
        call(&url, "TrentService.DescribeKey", &id)["KeyMetadata"].clone()
    };
    let (seal, log) = (key_of("QUIPU_SEAL_KEY"), key_of("QUIPU_LOG_KEY"));
    assert_eq!(
        (&seal["KeySpec"], &seal["KeyUsage"]),
        (&json!("SYMMETRIC_DEFAULT"), &json!("ENCRYPT_DECRYPT"))
    );
    assert_eq!((&log["KeySpec"], &log["KeyUsage"]), (&json!("ECC_NIST_EDWARDS25519"), &json!("SIGN_VERIFY")));

    // Again: the same answer, the same keys, and what was written is still there.
    let item = json!({"TableName": first["QUIPU_TABLE"], "Item": {"pk": {"S": "a"}, "sk": {"S": "b"}}});
    call(&url, "DynamoDB_20120810.PutItem", &item);
    assert_eq!(exports(&start()), first);
    assert_eq!(key_of("QUIPU_LOG_KEY")["KeyId"], log["KeyId"]);
    let get = json!({"TableName": first["QUIPU_TABLE"], "Key": item["Item"]});
    assert_eq!(call(&url, "DynamoDB_20120810.GetItem", &get)["Item"], item["Item"]);

    run("stop", target.path(), &["--port", &port]);
    assert!(try_call(&url, "DynamoDB_20120810.ListTables", &json!({})).is_err(), "it still answers");
    run("stop", target.path(), &["--port", &port]);
    drop(running);
}
