//! An archive as a deployment has it: events of all shapes sent over HTTP to the real server, in two tenants, several
//! sessions and several batches, each archived by the server's archiver. What the API answers about them is asked for
//! by whoever compares; the hot tier keeps everything.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use quipu_tests::Server;
use serde_json::Value;
use serde_json::value::RawValue;

/// The sessions of tenant `default`.
pub(crate) const SESSIONS: [&str; 3] = ["sessión 🪢", "it's \"quoted\", 100%", "s3"];
/// The tenants that have an archive.
pub(crate) const TENANTS: [&str; 2] = ["default", "acme"];

/// Payloads of no known type, as hard to keep as JSON gets: what comes back must be these bytes.
const ODD: [&str; 8] = [
    r#"{"n":9007199254740993,"big":18446744073709551616,"tiny":-0,"minus":-0.0,"e":1.0e5,"one":1.0}"#,
    r#"{"é":"🪢","escaped":"\u0041\u00e9\ud83e\udea2","nul":"\u0000","line":"a\nb","quote":"\"'\\"}"#,
    r#"{"z":1,"a":{"y":[[],{}],"b":null},"":"an empty name"}"#,
    "-0",
    "\"just text\"",
    "null",
    r#"{"toolName":"","callId":7,"durationMs":"12","success":"yes","costUsd":null}"#,
    r#"{"durationMs":0.1,"cost_usd":-0.000000000001,"input_tokens":9223372036854775807,"trace_id":"t-1"}"#,
];
/// Moments as clients write them.
const TIMES: [&str; 7] = [
    "2026-02-08T10:00:00.000001Z",
    "2026-02-08T23:59:59.999999Z",
    "2026-02-09T05:29:59.5+05:30",
    "1969-12-31T23:59:59.999999Z",
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999999Z",
    "2026-02-08T10:00:00-08:00",
];

/// An event of the API's answer or of a bundle, each value as its text.
pub(crate) type Raw = BTreeMap<String, Box<RawValue>>;

/// A running server whose events are all in its archive.
pub(crate) struct RealArchive {
    dir: tempfile::TempDir,
    server: Server,
    acme: String,
    /// How many events of each tenant were acknowledged.
    pub(crate) sent: BTreeMap<&'static str, u64>,
}

impl RealArchive {
    /// Three batches of `default`, one of `acme`.
    pub(crate) fn make() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(&dir.path().join("data"), &[]);
        let mut this = Self { dir, server, acme: String::new(), sent: BTreeMap::new() };
        this.post("default", "/v1/tenants", r#"{"tenant":"acme"}"#, 201);
        let made = this.post("default", "/v1/auth/tokens", r#"{"tenant":"acme","scopes":["*"]}"#, 201);
        this.acme = serde_json::from_str::<Value>(&made).unwrap()["token"].as_str().unwrap().to_owned();
        for batch in 0..3 {
            let events: Vec<_> = (0..3).flat_map(|round| round_of(batch, round)).collect();
            this.send("default", &events);
            // A second commit in the same batch: sessions go on.
            this.send("default", &round_of(batch, 3));
            this.archive("default");
        }
        this.send("acme", &round_of(0, 0));
        this.archive("acme");
        this
    }

    fn send(&mut self, tenant: &'static str, events: &[String]) {
        let body = format!(r#"{{"events":[{}]}}"#, events.join(","));
        let answer: Value = serde_json::from_str(&self.post(tenant, "/v1/events", &body, 201)).unwrap();
        assert_eq!(answer["ingested"], events.len());
        *self.sent.entry(tenant).or_default() += events.len() as u64;
    }

    fn archive(&self, tenant: &str) {
        let done = self.post("default", &format!("/v1/archive?tenant={tenant}"), "", 200);
        let done: Value = serde_json::from_str(&done).unwrap();
        assert_eq!(done["tenants"][0]["batches"].as_array().unwrap().len(), 1, "{done}");
    }

    fn post(&self, tenant: &str, path: &str, body: &str, status: u16) -> String {
        let mut request = agent().post(format!("{}{path}", self.server.url));
        request = request.header("content-type", "application/json");
        if tenant != "default" {
            request = request.header("authorization", format!("Bearer {}", self.acme));
        }
        let mut answer = request.send(body).unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        assert_eq!(answer.status().as_u16(), status, "{path}: {text}");
        text
    }

    /// What the API answers a tenant.
    pub(crate) fn get(&self, tenant: &str, path: &str) -> String {
        let mut request = agent().get(format!("{}{path}", self.server.url));
        if tenant != "default" {
            request = request.header("authorization", format!("Bearer {}", self.acme));
        }
        let mut answer = request.call().unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        assert_eq!(answer.status().as_u16(), 200, "{path}: {text}");
        text
    }

    /// All events of a tenant, by `GET /v1/events`, page by page.
    pub(crate) fn events(&self, tenant: &str) -> Vec<Raw> {
        let (mut events, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = self.get(tenant, &format!("/v1/events?include=proof&order=asc&limit=20{cursor}"));
            let mut page: Raw = serde_json::from_str(&page).unwrap();
            let more: Vec<Raw> = serde_json::from_str(page["events"].get()).unwrap();
            events.extend(more);
            match serde_json::from_str::<Option<String>>(page.remove("next_cursor").unwrap().get()).unwrap() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return events,
            }
        }
    }

    /// A session's events, in an evidence bundle.
    pub(crate) fn bundle(&self, tenant: &str, session: &str) -> Vec<Raw> {
        let text = self.get(tenant, &format!("/v1/sessions/{}/export", escape(session)));
        let records = text.lines().map(|line| serde_json::from_str::<Raw>(line).unwrap());
        records.filter(|record| record["kind"].get() == r#""event""#).collect()
    }

    /// The archive's directory.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("data/archive")
    }

    /// The batches of a tenant, in order.
    pub(crate) fn batches(&self, tenant: &str) -> Vec<PathBuf> {
        batches(&self.path(), tenant)
    }
}

/// The batches of a tenant in an archive, in order.
pub(crate) fn batches(archive: &Path, tenant: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for day in std::fs::read_dir(archive.join(format!("events/tenant={tenant}"))).unwrap() {
        for file in std::fs::read_dir(day.unwrap().path()).unwrap() {
            found.push(file.unwrap().path());
        }
    }
    // The day may have changed between two of them: the number decides.
    found.sort_by_key(|path| path.file_name().map(ToOwned::to_owned));
    found
}

/// Text out of a member.
pub(crate) fn text(raw: &Raw, name: &str) -> Option<String> {
    serde_json::from_str(raw[name].get()).unwrap()
}

/// A path segment.
pub(crate) fn escape(segment: &str) -> String {
    segment
        .bytes()
        .map(|b| if b.is_ascii_alphanumeric() { (b as char).into() } else { format!("%{b:02X}") })
        .collect()
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build().into()
}

/// What an agent does in a round, in every session: calls of tools and models, and oddities in between.
fn round_of(batch: usize, round: usize) -> Vec<String> {
    let mut out = Vec::new();
    for (place, session) in SESSIONS.iter().enumerate() {
        let at = batch * 4 + round;
        let mut push = |kind: &str, payload: &str, more: &str| {
            let session = serde_json::to_string(session).unwrap();
            let agent = ["ägent", "agent-2"][(at + place) % 2];
            out.push(format!(
                r#"{{"session_id":{session},"agent_id":"{agent}","event_type":"{kind}","payload":{payload}{more}}}"#
            ));
        };
        let tool = ["search", "fetch", "exec"][(at + place) % 3];
        let day = 8 + at % 3;
        let time = |second: usize| {
            format!(r#","timestamp":"2026-03-{day:02}T1{place}:{at:02}:{second:02}.000250Z""#)
        };
        let call = format!("c-{at}-{place}");
        push(
            "tool_call",
            &format!(r#"{{"toolName":"{tool}","callId":"{call}","arguments":{{"q":"{}"}}}}"#, "é".repeat(at)),
            &time(1),
        );
        // No two take as long.
        let took = format!("{}.{}", 10 * at + 1, place * 25 + 1);
        if (at + place) % 4 == 3 {
            push(
                "tool_error",
                &format!(
                    r#"{{"toolName":"{tool}","callId":"{call}","error":"no: {at}","errorCode":"E{place}","durationMs":{took}}}"#
                ),
                &format!(r#"{},"severity":"error""#, time(2)),
            );
        } else {
            push(
                "tool_response",
                &format!(r#"{{"toolName":"{tool}","callId":"{call}","result":[{at}],"durationMs":{took}}}"#),
                &time(2),
            );
        }
        let (model, provider) = [("m-large", "p"), ("m-small", "p"), ("m-small", "q")][(at + 2 * place) % 3];
        let usage = format!(
            r#"{{"inputTokens":{},"outputTokens":{place},"totalTokens":{}}}"#,
            at * 7,
            at * 7 + place
        );
        push(
            "llm_response",
            &format!(
                r#"{{"callId":"{call}","provider":"{provider}","model":"{model}","completion":"ok","finishReason":"stop","usage":{usage},"costUsd":0.01{at:02}{place},"latencyMs":12.5}}"#
            ),
            &time(3),
        );
        let odd = ODD[(at * 3 + place) % ODD.len()];
        let more = match (at + place) % 3 {
            0 => format!(
                r#","timestamp":"{}","source_id":"span ☃","severity":"debug""#,
                TIMES[at % TIMES.len()]
            ),
            1 => format!(
                r#","timestamp":"{}","metadata":{{"k":[1.0,-0,12345678901234567890],"spanId":"s"}},"compliance_tag":"höchst""#,
                TIMES[(at + 3) % TIMES.len()]
            ),
            _ => String::new(),
        };
        push("note.made", odd, &more);
    }
    out
}
