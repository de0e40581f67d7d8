//! The stand-ins for AWS answer, are ours alone, and end with the test process.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use quipu_tests::Emulator;
use quipu_tests::emulator::{Kind, aws_env, call, fresh_table, kms_keys, try_call};
use serde_json::json;

#[test]
fn each_takes_the_table_and_only_ministack_has_keys() {
    for emulator in [Emulator::dynoxide(), Emulator::ministack()] {
        let table = fresh_table(emulator.url());
        assert_ne!(table, fresh_table(emulator.url()));
        let feed = json!({
            "TableName": table, "IndexName": "feed", "KeyConditionExpression": "f = :f",
            "ExpressionAttributeValues": {":f": {"S": "F#acme#0"}},
        });
        let item = json!({
            "pk": {"S": "S#acme#s"}, "sk": {"S": "E#1"}, "f": {"S": "F#acme#0"}, "c": {"B": "AAE="},
            "m": {"S": "small"}, "body": {"B": "AAE="},
        });
        call(emulator.url(), "DynamoDB_20120810.PutItem", &json!({"TableName": table, "Item": item}));
        let found = call(emulator.url(), "DynamoDB_20120810.Query", &feed);
        assert_eq!(found["Items"][0]["m"]["S"], "small", "{found}");
        assert!(found["Items"][0]["body"].is_null(), "the index holds the small attributes only: {found}");
    }
    let (seal, log) = kms_keys(Emulator::ministack().url());
    let seal = call(Emulator::ministack().url(), "TrentService.DescribeKey", &json!({"KeyId": seal}));
    assert_eq!(seal["KeyMetadata"]["KeySpec"], "SYMMETRIC_DEFAULT");
    let sign =
        json!({"KeyId": log, "Message": "aGk=", "MessageType": "RAW", "SigningAlgorithm": "ED25519_SHA_512"});
    assert!(call(Emulator::ministack().url(), "TrentService.Sign", &sign)["Signature"].is_string());
}

#[test]
fn the_environment_names_no_address_but_theirs() {
    let [dynoxide, ministack] = [Emulator::dynoxide(), Emulator::ministack()];
    let endpoints = |env: Vec<(String, String)>| -> Vec<String> {
        env.into_iter()
            .filter(|(name, _)| name.starts_with("AWS_ENDPOINT_URL"))
            .map(|(_, value)| value)
            .collect()
    };
    assert_eq!(endpoints(dynoxide.env()), [dynoxide.url(); 3]);
    let both = endpoints(aws_env(dynoxide.url(), Some(ministack.url())));
    assert_eq!(both, [dynoxide.url(), dynoxide.url(), ministack.url()]);
}

#[test]
fn one_that_is_dropped_is_gone() {
    let own = Emulator::start(Kind::Dynoxide);
    let url = own.url().to_owned();
    assert_ne!(url, Emulator::dynoxide().url());
    call(&url, "DynamoDB_20120810.ListTables", &json!({}));
    drop(own);
    assert!(try_call(&url, "DynamoDB_20120810.ListTables", &json!({})).is_err());
}

/// The other half of the next test, in a process that it kills.
#[test]
#[ignore = "run by they_end_with_a_killed_test_process"]
fn starts_both_and_waits() {
    println!("urls {} {}", Emulator::dynoxide().url(), Emulator::ministack().url());
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn they_end_with_a_killed_test_process() {
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "emulator::starts_both_and_waits", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(process.stdout.take().unwrap()).lines().map(Result::unwrap);
    let line = lines.into_iter().find_map(|line| line.split_once("urls ").map(|(_, urls)| urls.to_owned()));
    process.kill().unwrap();
    process.wait().unwrap();
    let line = line.expect("both were running");
    for url in line.split(' ') {
        let started = Instant::now();
        while try_call(url, "DynamoDB_20120810.ListTables", &json!({})).is_ok() {
            assert!(started.elapsed() < Duration::from_secs(20), "{url} outlives its test process");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
