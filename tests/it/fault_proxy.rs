//! The proxy that other tests break the wire with does what each fault says, seen by a plain HTTP client.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use quipu_tests::emulator::{call, fresh_table, try_call};
use quipu_tests::{Emulator, FaultProxy, WireFault};
use serde_json::{Value, json};

const PUT: &str = "DynamoDB_20120810.PutItem";
const GET: &str = "DynamoDB_20120810.GetItem";
const TRANSACT: &str = "DynamoDB_20120810.TransactWriteItems";

/// A table of its own, and the proxy before it.
struct Bench {
    proxy: FaultProxy,
    upstream: &'static str,
    table: String,
}

impl Bench {
    fn new() -> Self {
        let upstream = Emulator::dynoxide().url();
        Self { proxy: FaultProxy::start(upstream), upstream, table: fresh_table(upstream) }
    }

    fn item(&self, key: &str) -> Value {
        json!({"TableName": self.table, "Item": {"pk": {"S": key}, "sk": {"S": "a"}}})
    }

    /// Through the proxy: nothing if no answer came.
    fn put(&self, key: &str) -> Option<(u16, Value)> {
        try_call(self.proxy.url(), PUT, &self.item(key)).ok()
    }

    /// Past the proxy.
    fn holds(&self, key: &str) -> bool {
        let key = json!({"TableName": self.table, "ConsistentRead": true, "Key": {"pk": {"S": key}, "sk": {"S": "a"}}});
        call(self.upstream, GET, &key)["Item"].is_object()
    }

    fn soon_holds(&self, key: &str) -> bool {
        soon(|| self.holds(key))
    }

    /// Until the planned one has met its call.
    fn wait_for_fault(&self) {
        assert!(soon(|| self.proxy.pending() == 0), "no call meets the fault");
    }
}

fn soon(mut is_so: impl FnMut() -> bool) -> bool {
    let started = Instant::now();
    while !is_so() {
        if started.elapsed() > Duration::from_secs(20) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

fn kind(answer: &Value) -> &str {
    answer["__type"].as_str().unwrap().rsplit('#').next().unwrap()
}

#[test]
fn a_dropped_reply_is_applied_and_a_dropped_request_is_not() {
    let bench = Bench::new();
    bench.proxy.fail("PutItem", 1, WireFault::DropReply);
    bench.proxy.fail("PutItem", 2, WireFault::DropRequest);
    assert_eq!(bench.put("reply"), None);
    assert_eq!(bench.put("request"), None);
    assert!(bench.holds("reply"));
    assert!(!bench.holds("request"));
    assert_eq!(bench.proxy.calls("PutItem"), 2, "nobody asked twice");
}

#[test]
fn an_internal_error_is_applied_only_if_it_says_so() {
    let bench = Bench::new();
    bench.proxy.fail("PutItem", 1, WireFault::Status500);
    bench.proxy.fail("PutItem", 2, WireFault::Status500AfterApply);
    for (key, is_applied) in [("before", false), ("after", true)] {
        let (status, answer) = bench.put(key).unwrap();
        assert_eq!((status, kind(&answer)), (500, "InternalServerError"));
        assert_eq!(bench.holds(key), is_applied, "{key}");
    }
}

#[test]
fn a_throttle_and_a_conflict_are_refusals() {
    let bench = Bench::new();
    bench.proxy.fail("PutItem", 1, WireFault::Throttle);
    bench.proxy.fail("PutItem", 2, WireFault::TransactionConflict);
    for expected in ["ProvisionedThroughputExceededException", "TransactionConflictException"] {
        let (status, answer) = bench.put("a").unwrap();
        assert_eq!((status, kind(&answer)), (400, expected));
    }
    assert!(!bench.holds("a"));

    bench.proxy.fail("TransactWriteItems", 1, WireFault::TransactionConflict);
    let items = ["b", "c"].map(|key| json!({"Put": bench.item(key)}));
    let input = json!({"TransactItems": items});
    let (status, answer) = try_call(bench.proxy.url(), TRANSACT, &input).unwrap();
    assert_eq!((status, kind(&answer)), (400, "TransactionCanceledException"));
    let codes: Vec<_> =
        answer["CancellationReasons"].as_array().unwrap().iter().map(|r| &r["Code"]).collect();
    assert_eq!(codes, ["None", "TransactionConflict"]);
    assert!(answer["Message"].as_str().unwrap().ends_with("[None, TransactionConflict]"), "{answer}");
    assert!(!bench.holds("b") && !bench.holds("c"));
    call(bench.proxy.url(), TRANSACT, &input);
    assert!(bench.holds("b") && bench.holds("c"), "the next one goes through");
}

#[test]
#[should_panic(expected = "DynamoDB never answers Query")]
fn a_fault_that_cannot_be_is_not_planned() {
    FaultProxy::start("http://127.0.0.1:1").fail("Query", 1, WireFault::TransactionConflict);
}

#[test]
fn slow_is_before_or_after_the_write() {
    let bench = Bench::new();
    let wait = Duration::from_millis(1500);
    for (key, fault, is_applied_meanwhile) in
        [("before", WireFault::Slow(wait), false), ("after", WireFault::SlowAfterApply(wait), true)]
    {
        bench.proxy.fail("PutItem", 1, fault);
        let started = Instant::now();
        std::thread::scope(|scope| {
            let put = scope.spawn(|| bench.put(key));
            bench.wait_for_fault();
            if is_applied_meanwhile {
                assert!(bench.soon_holds(key));
                assert!(!put.is_finished(), "applied, and not answered yet");
            } else {
                assert!(!bench.holds(key));
            }
            assert_eq!(put.join().unwrap().unwrap().0, 200);
        });
        assert!(started.elapsed() >= wait);
        assert!(bench.holds(key));
    }
}

#[test]
fn a_slow_write_is_applied_though_the_writer_has_gone() {
    let bench = Bench::new();
    bench.proxy.fail("PutItem", 1, WireFault::Slow(Duration::from_millis(1500)));
    let mut stream = connect(bench.proxy.url());
    let body = bench.item("late").to_string();
    write!(stream, "{}Content-Length: {}\r\n\r\n{body}", head(PUT), body.len()).unwrap();
    bench.wait_for_fault();
    drop(stream);
    assert!(!bench.holds("late"));
    assert!(bench.soon_holds("late"));
}

#[test]
fn only_the_planned_call_fails_and_all_are_counted() {
    let bench = Bench::new();
    assert_eq!(bench.put("0").unwrap().0, 200);
    bench.proxy.fail("PutItem", 2, WireFault::Status500);
    let statuses = ["1", "2", "3"].map(|key| bench.put(key).unwrap().0);
    assert_eq!(statuses, [200, 500, 200], "counted from the plan on");
    assert_eq!((bench.proxy.calls("PutItem"), bench.proxy.faults(), bench.proxy.pending()), (4, 1, 0));
    let get = json!({"TableName": bench.table, "Key": {"pk": {"S": "0"}, "sk": {"S": "a"}}});
    call(bench.proxy.url(), GET, &get);
    assert_eq!(bench.proxy.all_calls(), [("GetItem".to_owned(), 1), ("PutItem".to_owned(), 4)].into());
    bench.proxy.fail("PutItem", 1, WireFault::Status500);
    bench.proxy.reset();
    assert_eq!(bench.put("4").unwrap().0, 200);
    assert_eq!((bench.proxy.calls("PutItem"), bench.proxy.calls("GetItem"), bench.proxy.faults()), (1, 0, 0));
}

#[test]
fn chances_repeat_with_their_seed() {
    let bench = Bench::new();
    let statuses = |seed| -> Vec<u16> {
        bench.proxy.reset();
        bench.proxy.fail_randomly(seed, &[(0.2, WireFault::Throttle), (0.2, WireFault::Status500)]);
        (0..60).map(|_| bench.put("a").unwrap().0).collect()
    };
    let first = statuses(7);
    let faults = usize::try_from(bench.proxy.faults()).unwrap();
    assert_eq!(faults, first.iter().filter(|status| **status != 200).count());
    assert!(first.contains(&200) && first.contains(&400) && first.contains(&500), "{first:?}");
    assert_eq!(first, statuses(7));
    assert_ne!(first, statuses(8));

    // What cannot happen to a read does not.
    bench.proxy.reset();
    bench.proxy.fail_randomly(7, &[(1.0, WireFault::TransactionConflict)]);
    let get = json!({"TableName": bench.table, "Key": {"pk": {"S": "z"}, "sk": {"S": "a"}}});
    call(bench.proxy.url(), GET, &get);
    assert_eq!(bench.put("a").unwrap().0, 400);
}

#[test]
fn a_connection_is_kept_and_bodies_and_checksums_come_through() {
    let bench = Bench::new();
    let mut stream = connect(bench.proxy.url());
    let mut answers = BufReader::new(stream.try_clone().unwrap());
    let body = bench.item("whole").to_string();
    write!(stream, "{}Content-Length: {}\r\n\r\n{body}", head(PUT), body.len()).unwrap();
    assert_eq!(read_answer(&mut answers).0, 200);

    // The same connection, the body in two chunks.
    let body = bench.item("chunks").to_string();
    let (a, b) = body.split_at(7);
    write!(stream, "{}Transfer-Encoding: chunked\r\n\r\n", head(PUT)).unwrap();
    write!(stream, "{:x}\r\n{a}\r\n{:x}\r\n{b}\r\n0\r\n\r\n", a.len(), b.len()).unwrap();
    assert_eq!(read_answer(&mut answers).0, 200);
    assert!(bench.holds("whole") && bench.holds("chunks"));

    // An answer of the service, and one that the proxy has made up.
    for fault in [None, Some(WireFault::Throttle)] {
        if let Some(fault) = fault {
            bench.proxy.fail("GetItem", 1, fault);
        }
        let body =
            json!({"TableName": bench.table, "Key": {"pk": {"S": "whole"}, "sk": {"S": "a"}}}).to_string();
        write!(stream, "{}Content-Length: {}\r\n\r\n{body}", head(GET), body.len()).unwrap();
        let (status, crc, answer) = read_answer(&mut answers);
        assert_eq!(status, if fault.is_some() { 400 } else { 200 });
        let mut own = flate2::Crc::new();
        own.update(&answer);
        assert_eq!(crc, Some(own.sum()), "{fault:?}");
    }

    // A dropped reply ends the connection without a byte.
    bench.proxy.fail("PutItem", 1, WireFault::DropReply);
    let body = bench.item("dropped").to_string();
    write!(stream, "{}Content-Length: {}\r\n\r\n{body}", head(PUT), body.len()).unwrap();
    let mut rest = Vec::new();
    let _ = answers.read_to_end(&mut rest);
    assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
}

fn connect(url: &str) -> TcpStream {
    let stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

fn head(target: &str) -> String {
    format!(
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-amz-json-1.0\r\nX-Amz-Target: {target}\r\n\
         X-Amz-Date: 20260101T000000Z\r\nAuthorization: AWS4-HMAC-SHA256 \
         Credential=test/20260101/us-east-1/dynamodb/aws4_request, SignedHeaders=host, Signature=0\r\n"
    )
}

/// The status, `x-amz-crc32` and the body.
fn read_answer(answers: &mut BufReader<TcpStream>) -> (u16, Option<u32>, Vec<u8>) {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        assert!(answers.read_line(&mut line).unwrap() > 0, "the connection ended within the head");
        if line == "\r\n" {
            break;
        }
        lines.push(line.trim_end().to_lowercase());
    }
    let find = |name: &str| lines.iter().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let status = lines[0].split(' ').nth(1).unwrap().parse().unwrap();
    let mut body = vec![0; find("content-length:").unwrap().parse().unwrap()];
    answers.read_exact(&mut body).unwrap();
    (status, find("x-amz-crc32:").map(|crc| crc.parse().unwrap()), body)
}
