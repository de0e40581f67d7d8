//! What goes over the wire and what its answers mean, against a server that answers as it is told. The suite over a
//! bucket is in `tests/it/objects.rs`.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, Method, Response};
use http_body_util::BodyExt as _;
use tokio::net::TcpListener;

use super::*;
use crate::clock::ManualClock;
use crate::time::Micros;

/// A request as it arrived.
#[derive(Debug)]
struct Seen {
    method: Method,
    path: String,
    query: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// An answer: status, headers, body.
type Answer = (u16, &'static [(&'static str, &'static str)], &'static str);

const OK: Answer = (200, &[("etag", "\"tag\"")], "");
const SLOW_DOWN: Answer =
    (503, &[], "<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>");

/// A server that gives these answers, one each, and 500 when it has no more.
struct Service {
    bucket: S3Bucket,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Service {
    async fn answering(answers: impl IntoIterator<Item = Answer>) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let answers = Arc::new(Mutex::new(answers.into_iter().collect::<VecDeque<Answer>>()));
        let shared = Arc::clone(&seen);
        let answer = move |request: Request| {
            let (answers, seen) = (Arc::clone(&answers), Arc::clone(&shared));
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let (path, query) = (parts.uri.path().to_owned(), parts.uri.query().unwrap_or("").to_owned());
                let one = Seen { method: parts.method, path, query, headers: parts.headers, body };
                seen.lock().unwrap().push(one);
                let answer = answers.lock().unwrap().pop_front();
                let (status, headers, body) = answer.unwrap_or((500, &[], "no answer is left"));
                let mut response = Response::builder().status(status);
                for (name, value) in headers {
                    response = response.header(*name, *value);
                }
                response.body(Body::from(body)).unwrap()
            }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let server = axum::serve(listener, axum::Router::new().fallback(answer));
        let task = tokio::spawn(async move { server.await.unwrap() });
        Self { bucket: S3Bucket::new(&connection(&endpoint), "archive"), seen, task }
    }

    fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn connection(endpoint: &str) -> Connection {
    let credentials = SharedCredentialsProvider::new(Credentials::new("k", "s", None, None, "test"));
    let nowhere = Some("http://127.0.0.1:9".to_owned());
    Connection::at("us-east-1".into(), credentials, nowhere.clone(), nowhere).at_s3(Some(endpoint.into()))
}

fn error(code: &'static str, status: u16) -> Answer {
    (status, &[], format!("<Error><Code>{code}</Code><Message>m</Message></Error>").leak())
}

#[tokio::test]
async fn a_put_says_its_condition_its_checksum_and_how_long_it_is_kept() {
    let service = Service::answering([OK, OK, OK]).await;
    let lock = Lock { days: 30, log: Mode::Compliance, events: Mode::Governance };
    // 2026-11-22T00:00:00.5Z
    let clock = Arc::new(ManualClock::new(Micros::new(1_795_305_600_500_000).unwrap()));
    let bucket = service.bucket.clone().with_lock(lock, clock);
    let tag = bucket.put("log/a/batch/1.json", "{}".into(), Condition::Absent).await.unwrap();
    assert_eq!(tag, Tag("\"tag\"".into()));
    bucket.put("log/a/checkpoint", "c".into(), Condition::Matches(tag)).await.unwrap();
    bucket.put_absent(vec![("events/tenant=a/x".into(), "e".into())]).await.unwrap();
    let seen = service.seen();
    for (request, (path, body)) in seen.iter().zip([
        ("/archive/log/a/batch/1.json", "{}"),
        ("/archive/log/a/checkpoint", "c"),
        ("/archive/events/tenant%3Da/x", "e"),
    ]) {
        assert_eq!((&request.method, &*request.path, &*request.body), (&Method::PUT, path, body.as_bytes()));
        // In one piece, as every service that speaks S3 takes it.
        assert_eq!(request.header("content-length"), Some(&*body.len().to_string()));
        assert!(!request.header("content-encoding").unwrap_or("").contains("aws-chunked"));
        assert!(request.header("x-amz-checksum-crc32").is_some(), "{request:?}");
        assert_eq!(request.header("x-amz-content-sha256").unwrap().len(), 64);
    }
    let conditions: Vec<_> = seen.iter().map(|r| (r.header("if-none-match"), r.header("if-match"))).collect();
    assert_eq!(conditions, [(Some("*"), None), (None, Some("\"tag\"")), (Some("*"), None)]);
    let locks: Vec<_> = seen
        .iter()
        .map(|r| (r.header("x-amz-object-lock-mode"), r.header("x-amz-object-lock-retain-until-date")))
        .collect();
    let until = Some("2026-12-22T00:00:01Z");
    assert_eq!(locks, [(Some("COMPLIANCE"), until), (None, None), (Some("GOVERNANCE"), until)]);
}

#[tokio::test]
async fn a_put_is_sent_again_only_if_it_surely_did_nothing() {
    let busy = [
        SLOW_DOWN,
        error("ConditionalRequestConflict", 409),
        error("OperationAborted", 409),
        error("RequestTimeout", 400),
        error("BadDigest", 400),
    ];
    for answer in busy {
        let service = Service::answering([answer, OK]).await;
        service.bucket.put("a", "1".into(), Condition::Absent).await.unwrap();
        assert_eq!(service.seen().len(), 2, "{answer:?}");
    }
    let unknown = [
        error("InternalError", 500),
        error("ServiceUnavailable", 503),
        (503, &[][..], ""),
        (200, &[][..], ""),
        (502, &[][..], "<html>"),
    ];
    for answer in unknown {
        let service = Service::answering([answer, OK]).await;
        let outcome = service.bucket.put("a", "1".into(), Condition::Absent).await;
        assert!(matches!(outcome, Err(ObjectError::Unknown { .. })), "{answer:?}: {outcome:?}");
        assert_eq!(service.seen().len(), 1, "{answer:?}");
    }
    for answer in [error("PreconditionFailed", 412), error("NoSuchKey", 404)] {
        let service = Service::answering([answer, OK]).await;
        let outcome = service.bucket.put("a", "1".into(), Condition::Matches(Tag("t".into()))).await;
        assert!(matches!(outcome, Err(ObjectError::Conflict { ref key }) if key == "a"), "{outcome:?}");
        assert_eq!(service.seen().len(), 1);
    }
}

#[tokio::test]
async fn a_refusal_says_what_to_mend() {
    let cases = [
        (error("NoSuchBucket", 404), "check its name"),
        (error("AccessDenied", 403), "the credentials lack"),
        (error("InvalidAccessKeyId", 403), "not known to AWS"),
        (error("RequestTimeTooSkewed", 403), "the clock"),
        (error("PermanentRedirect", 301), "AWS_REGION"),
    ];
    for (answer, says) in cases {
        let service = Service::answering([answer, answer]).await;
        let put = service.bucket.put("a", "1".into(), Condition::Absent).await.unwrap_err();
        let get = service.bucket.get("a").await.unwrap_err();
        for outcome in [put, get] {
            let is_unavailable = matches!(&outcome, ObjectError::Unavailable { why } if why.contains(says));
            assert!(is_unavailable, "{answer:?}: {outcome:?}");
        }
        assert_eq!(service.seen().len(), 2, "a refusal is not asked again");
    }
}

#[tokio::test]
async fn several_are_sent_again_when_the_answer_was_lost() {
    let lost = error("InternalError", 500);
    let service = Service::answering([lost, error("PreconditionFailed", 412)]).await;
    let existing = service.bucket.put_absent(vec![("a".into(), "1".into())]).await.unwrap();
    assert_eq!(existing, ["a"], "there by now, for the caller to compare");
    assert_eq!(service.seen().len(), 2);
}

#[tokio::test]
async fn reads_are_asked_again_and_what_is_cut_or_moved_is_no_answer() {
    const WHOLE: &[(&str, &str)] = &[("etag", "\"t\""), ("content-range", "bytes 0-2/3")];
    const CUT: &[(&str, &str)] = &[("etag", "\"t\""), ("content-range", "bytes 0-2/4")];
    const MOVED: &[(&str, &str)] = &[("etag", "\"t\""), ("content-range", "bytes 1-3/3")];
    const TAGLESS: &[(&str, &str)] = &[("content-range", "bytes 0-2/3")];
    let answers = [
        SLOW_DOWN,
        error("InternalError", 500),
        (206, CUT, "abc"),
        (206, MOVED, "abc"),
        (206, TAGLESS, "abc"),
        (200, &[("etag", "\"t\"")], "abc"),
        (206, WHOLE, "abc"),
    ];
    let service = Service::answering(answers).await;
    let object = service.bucket.get("a").await.unwrap();
    assert_eq!((&object.bytes[..], object.tag), (&b"abc"[..], Tag("\"t\"".into())));
    let seen = service.seen();
    assert_eq!(seen.len(), answers.len());
    assert_eq!(seen[0].header("range"), Some(&*format!("bytes=0-{}", OBJECT_PART_BYTES - 1)));
    let service = Service::answering([(404, &[][..], ""), error("NoSuchKey", 404)]).await;
    assert!(matches!(service.bucket.size("a").await, Err(ObjectError::NotFound { .. })));
    assert!(matches!(service.bucket.get("a").await, Err(ObjectError::NotFound { .. })));
}

#[tokio::test]
async fn an_object_that_is_replaced_between_its_parts_is_read_anew() {
    let total = OBJECT_PART_BYTES + 3;
    let part: &'static str = "x".repeat(OBJECT_PART_BYTES as usize).leak();
    let range =
        |from: u64, to: u64, total: u64| -> &'static str { format!("bytes {from}-{to}/{total}").leak() };
    let headers = |tag: &'static str, range: &'static str| -> &'static [(&'static str, &'static str)] {
        vec![("etag", tag), ("content-range", range)].leak()
    };
    let first = (206, headers("\"old\"", range(0, OBJECT_PART_BYTES - 1, total)), part);
    let new = (206, headers("\"new\"", range(0, 2, 3)), "new");
    let service = Service::answering([first, error("PreconditionFailed", 412), new]).await;
    let object = service.bucket.get("a").await.unwrap();
    assert_eq!((&object.bytes[..], object.tag), (&b"new"[..], Tag("\"new\"".into())));
    let seen = service.seen();
    assert_eq!(seen[1].header("if-match"), Some("\"old\""));
    assert_eq!(seen[1].header("range"), Some(&*format!("bytes={OBJECT_PART_BYTES}-{}", total - 1)));
    let rest = (206, headers("\"old\"", range(OBJECT_PART_BYTES, total - 1, total)), "end");
    let service = Service::answering([first, rest]).await;
    let object = service.bucket.get("a").await.unwrap();
    assert!(object.bytes.len() as u64 == total && object.bytes.ends_with(b"xend"));
}

#[tokio::test]
async fn a_list_goes_on_until_it_has_what_was_asked() {
    const PAGE: &str = "<ListBucketResult><IsTruncated>true</IsTruncated>\
        <Contents><Key>p/a</Key><Size>1</Size></Contents>\
        <Contents><Key>p/b</Key><Size>2</Size></Contents></ListBucketResult>";
    const LAST: &str = "<ListBucketResult><IsTruncated>false</IsTruncated>\
        <Contents><Key>p/c&amp;</Key><Size>3</Size></Contents></ListBucketResult>";
    const NOTHING: &str = "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>";
    let service = Service::answering([(200, &[][..], PAGE), (200, &[][..], LAST)]).await;
    let listed = service.bucket.list("p/", Some("p/0"), 1500).await.unwrap();
    let found: Vec<(&str, u64)> = listed.iter().map(|l| (&*l.key, l.bytes)).collect();
    assert_eq!(found, [("p/a", 1), ("p/b", 2), ("p/c&", 3)]);
    let seen = service.seen();
    assert!(seen[0].query.contains("start-after=p%2F0") && seen[0].query.contains("max-keys=1000"));
    assert!(seen[1].query.contains("start-after=p%2Fb") && seen[1].query.contains("prefix=p%2F"), "{seen:?}");
    // More, and nothing of it: an end that is none would hide what is there.
    let service = Service::answering([(200, &[][..], PAGE), (200, &[][..], NOTHING)]).await;
    assert!(matches!(service.bucket.list("p/", None, 10).await, Err(ObjectError::Unavailable { .. })));
}

#[tokio::test]
async fn a_service_that_is_mute_or_gone_is_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let bucket = S3Bucket::new(&connection(&format!("http://{address}")), "archive");
    // It accepts, and never says a word.
    let began = Instant::now();
    let mute = bucket.put("a", vec![0; 1_000_000].into(), Condition::Absent).await;
    assert!(matches!(mute, Err(ObjectError::Unknown { .. })), "{mute:?}");
    let waited = began.elapsed();
    let least = Duration::from_millis(crate::limits::REMOTE_CALL_MS + 1000);
    assert!(waited >= least && waited < least * 2, "a megabyte has a second more: {waited:?}");
    drop(listener);
    let gone = bucket.put("a", "1".into(), Condition::Absent).await;
    assert!(matches!(gone, Err(ObjectError::Unavailable { .. })), "it never left: {gone:?}");
}
