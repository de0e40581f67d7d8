//! P2 with real processes: several `quipu serve --store aws` on one table, fifty writers on one session.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use quipu_tests::emulator::{aws_env, fresh_table, kms_keys};
use quipu_tests::{Emulator, FaultProxy, Server, WireFault, binary, event};
use serde_json::{Value, json};

const SERVERS: usize = 5;
const CONNECTIONS: usize = 10;
const BATCHES: usize = 4;
const EVENTS: usize = 3;

/// What was acknowledged: by sequence, the hash and what was sent.
#[derive(Default)]
struct Told {
    events: BTreeMap<u64, (String, Value)>,
    receipts: Vec<Value>,
}

/// A client that keeps its connection, and asks again where it may.
struct Client<'t> {
    agent: ureq::Agent,
    url: &'t str,
    told: &'t Mutex<Told>,
    unknown: &'t AtomicUsize,
}

impl Client<'_> {
    fn post(&self, body: &str, key: Option<&str>) -> (u16, Value, bool) {
        let mut request = self.agent.post(format!("{}/v1/events", self.url));
        request = request.header("content-type", "application/json");
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let mut answer = request.send(body).unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        let replayed = answer.headers().contains_key("idempotent-replayed");
        (answer.status().as_u16(), serde_json::from_str(&text).unwrap(), replayed)
    }

    fn write(&self, mark: &str, key: Option<&str>) {
        let payload = |i| json!([mark, i]);
        let events: Vec<_> = (0..EVENTS).map(|i| event("one", payload(i))).collect();
        let body = json!({ "events": events }).to_string();
        for _ in 0..20 {
            let (status, answer, _) = self.post(&body, key);
            match (status, answer["code"].as_str()) {
                (201, _) => {
                    let mut told = self.told.lock().unwrap();
                    for (i, placed) in answer["events"].as_array().unwrap().iter().enumerate() {
                        let hash = placed["hash"].as_str().unwrap().to_owned();
                        let sequence = placed["sequence"].as_u64().unwrap();
                        let old = told.events.insert(sequence, (hash, payload(i)));
                        assert!(old.is_none(), "sequence {sequence} was given twice");
                    }
                    told.receipts.extend(answer["receipts"].as_array().unwrap().iter().cloned());
                    drop(told);
                    if let Some(key) = key {
                        let (status, again, replayed) = self.post(&body, Some(key));
                        assert_eq!(
                            (status, again, replayed),
                            (201, answer, true),
                            "{mark}: the first answer"
                        );
                    }
                    return;
                }
                // It may stand there: only a key can tell, and without one nobody may ask again.
                (503, Some("outcome_unknown")) if key.is_none() => {
                    self.unknown.fetch_add(1, Ordering::SeqCst);
                    return;
                }
                (503, Some("outcome_unknown" | "busy" | "unavailable")) => {}
                other => panic!("{mark}: {other:?}: {answer}"),
            }
        }
        panic!("{mark} never gets through");
    }
}

fn get(url: &str) -> String {
    ureq::get(url).call().unwrap().body_mut().read_to_string().unwrap()
}

/// Everything between processes: servers, table and keys. Some calls of the table fail on the wire.
#[test]
fn p2_fifty_writers_in_five_processes_on_one_session() {
    let (dynamodb, kms) = (Emulator::dynoxide().url(), Emulator::ministack().url());
    let (seal_key, log_key) = kms_keys(kms);
    let table = fresh_table(dynamodb);
    let proxy = FaultProxy::start(dynamodb);
    let mut env = aws_env(proxy.url(), Some(kms));
    for (name, value) in [("QUIPU_TABLE", &table), ("QUIPU_SEAL_KEY", &seal_key), ("QUIPU_LOG_KEY", &log_key)]
    {
        env.push((name.to_owned(), value.clone()));
    }
    // At once: one of them makes the keys, and all have the same.
    let servers: Vec<Server> = std::thread::scope(|scope| {
        let starting: Vec<_> = (0..SERVERS).map(|_| scope.spawn(|| Server::start_aws(env.clone()))).collect();
        starting.into_iter().map(|server| server.join().unwrap()).collect()
    });
    let keys: Vec<String> = servers.iter().map(|server| get(&format!("{}/v1/log/key", server.url))).collect();
    assert!(keys.windows(2).all(|pair| pair[0] == pair[1]), "one deployment: {keys:?}");
    proxy.reset();
    proxy.fail_randomly(
        2,
        &[
            (0.02, WireFault::DropReply),
            (0.02, WireFault::DropRequest),
            (0.02, WireFault::Status500AfterApply),
            (0.02, WireFault::Throttle),
            (0.02, WireFault::TransactionConflict),
        ],
    );

    let (told, unknown) = (Mutex::new(Told::default()), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for writer in 0..SERVERS * CONNECTIONS {
            let config = ureq::Agent::config_builder().http_status_as_error(false);
            let agent = config.build().into();
            let url = &*servers[writer % SERVERS].url;
            let client = Client { agent, url, told: &told, unknown: &unknown };
            scope.spawn(move || {
                for batch in 0..BATCHES {
                    let mark = format!("w{writer}b{batch}");
                    let keyed = writer % 3 == 0;
                    client.write(&mark, keyed.then_some(&mark));
                }
            });
        }
    });
    let faults = proxy.faults();
    assert!(faults > 10, "{faults} faults");
    proxy.reset();

    let told = told.into_inner().unwrap();
    let unknown = unknown.into_inner();
    let batches = SERVERS * CONNECTIONS * BATCHES;
    assert_eq!(told.events.len(), (batches - unknown) * EVENTS, "{unknown} of unknown outcome");

    // One line from 0 on without gap or fork, read through another process than wrote most of it.
    let url = &servers[0].url;
    let mut from = json!(0);
    let (mut next, mut prev) = (0, "0".repeat(64));
    while !from.is_null() {
        let page = get(&format!("{url}/v1/sessions/one/events?limit=500&from_sequence={from}"));
        let page: Value = serde_json::from_str(&page).unwrap();
        for event in page["events"].as_array().unwrap() {
            assert_eq!((&event["sequence"], &event["prev_hash"]), (&json!(next), &json!(prev)));
            if let Some((hash, payload)) = told.events.get(&next) {
                assert_eq!((&event["hash"], &event["payload"]), (&json!(hash), payload), "sequence {next}");
            }
            prev = event["hash"].as_str().unwrap().to_owned();
            next += 1;
        }
        from = page["next_sequence"].clone();
    }
    let most = (batches * EVENTS) as u64;
    assert!((told.events.len() as u64..=most).contains(&next), "{next} events of {most} sent");

    // Offline, against every receipt.
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let bundle = write("one.ndjson", &get(&format!("{url}/v1/sessions/one/export")));
    let key: Value = serde_json::from_str(&keys[0]).unwrap();
    let key = write("log.pub", key["log_key"].as_str().unwrap());
    let receipts = write("receipts.json", &Value::from(told.receipts.clone()).to_string());
    let mut verify = Command::new(binary());
    verify.arg("verify").arg(bundle).arg("--key").arg(key).arg("--receipt").arg(receipts).arg("--json");
    let output = verify.output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    assert_eq!(report["verdict"], "VALID", "{report}");
}
