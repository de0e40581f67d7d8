//! What a user does with a fresh deployment, over HTTP only.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use ureq::Agent;
use ureq::http::{HeaderMap, Request};

use super::archive;
use super::emulator::{Emulator, Stack, agent};

/// A token may be cached this long (limits::TOKEN_CACHE_MS), and an answer takes a moment.
const REVOCATION_PATIENCE: Duration = Duration::from_secs(32);

/// The API of the stack.
pub(super) struct Api<'s> {
    pub(super) stack: &'s Stack,
    agent: Agent,
}

/// What it answered.
pub(super) struct Reply {
    asked: String,
    pub(super) status: u16,
    headers: HeaderMap,
    pub(super) bytes: Vec<u8>,
    pub(super) text: String,
}

impl Reply {
    pub(super) fn expect(&self, status: u16) -> anyhow::Result<Value> {
        ensure!(self.status == status, "{}: {} (not {status}) {}", self.asked, self.status, self.text);
        if self.text.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&self.text).with_context(|| format!("{}: no JSON: {}", self.asked, self.text))
    }

    /// An error in our shape.
    pub(super) fn problem(&self, status: u16, code: &str) -> anyhow::Result<()> {
        let body = self.expect(status)?;
        let is_problem = self.header("content-type") == "application/problem+json";
        let says = body["code"] == code && body["status"] == status && body["error"].is_string();
        ensure!(is_problem && says, "{}: no problem {code}: {:?} {}", self.asked, self.headers, self.text);
        Ok(())
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

impl Api<'_> {
    fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> anyhow::Result<Reply> {
        let asked = format!("{method} {path}");
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.stack.url));
        request = request.header("host", &self.stack.host);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = match (method, body) {
            ("GET" | "DELETE", []) => self.agent.run(request.body(())?),
            _ => self.agent.run(request.body(body.to_vec())?),
        };
        let mut answer = answer.with_context(|| asked.clone())?;
        let bytes = answer.body_mut().read_to_vec().with_context(|| asked.clone())?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Ok(Reply { asked, status, headers, text: String::from_utf8_lossy(&bytes).into_owned(), bytes })
    }

    pub(super) fn get(&self, token: &str, path: &str) -> anyhow::Result<Reply> {
        self.send("GET", path, &[("authorization", &format!("Bearer {token}"))], &[])
    }

    pub(super) fn post(&self, token: &str, path: &str, body: &Value) -> anyhow::Result<Reply> {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        self.send("POST", path, &headers, body.to_string().as_bytes())
    }

    fn token(&self, from: &str, body: &Value) -> anyhow::Result<(String, String)> {
        let made = self.post(from, "/v1/auth/tokens", body)?.expect(201)?;
        let text =
            |name: &str| made[name].as_str().map(str::to_owned).with_context(|| format!("{name}: {made}"));
        Ok((text("token")?, text("id")?))
    }
}

pub(super) fn event(session: &str, number: i64) -> Value {
    let payload = json!({ "number": number, "large": 9_007_199_254_740_993_i64 });
    json!({ "session_id": session, "agent_id": "driver", "event_type": "test.happened", "payload": payload })
}

pub(super) fn run(stack: &Stack, emulator: &Emulator, place: &Path, secret: &str) -> anyhow::Result<()> {
    ensure!(
        stack.output_url.starts_with("https://") && stack.output_url.ends_with("/live"),
        "{}",
        stack.output_url
    );
    let api = Api { stack, agent: agent() };
    let health = api.send("GET", "/v1/health", &[], &[])?.expect(200)?;
    ensure!(health["status"] == "ok", "{health}");
    strangers(&api)?;
    let admin = first_token(&api, secret)?;
    let (reader, reader_id) = api.token(&admin, &json!({ "name": "reader", "scopes": ["events:read"] }))?;
    let reply = append(&api, &admin)?;
    api.get(&reader, "/v1/events?limit=1")?.expect(200)?;
    api.post(&reader, "/v1/events", &json!({ "events": [event("main", 0)] }))?.problem(403, "forbidden")?;

    // Revoked now, refused by every function by the end at the latest.
    let bearer = format!("Bearer {admin}");
    let path = format!("/v1/auth/tokens/{reader_id}");
    let revoked = api.send("DELETE", &path, &[("authorization", &bearer)], &[])?;
    revoked.expect(204)?;
    ensure!(!revoked.header("quipu-effective-at").is_empty(), "{:?}", revoked.headers);
    let since = Instant::now();

    archive::now(&api, emulator, &admin, &reply, place)?;
    read(&api, &admin, &reply)?;
    export(&api, &admin, &reply, place)?;
    let acme = other_tenant(&api, &admin)?;
    archive::verify(&api, emulator, &admin, place)?;
    loop {
        let answer = api.get(&reader, "/v1/events?limit=1")?;
        if answer.status != 200 {
            answer.problem(401, "unauthorized")?;
            break;
        }
        ensure!(since.elapsed() < REVOCATION_PATIENCE, "a revoked token reads on: {}", answer.text);
        sleep(Duration::from_millis(500));
    }
    eprintln!("a revoked token is refused after {:.1} s", since.elapsed().as_secs_f64());
    archive::by_schedule(&api, &acme)
}

/// What API Gateway answers by itself, and the functions to who has no token.
fn strangers(api: &Api<'_>) -> anyhow::Result<()> {
    for (method, path) in
        [("GET", "/v1/nothing"), ("PUT", "/v1/events"), ("GET", "/"), ("POST", "/v1/events/a/b")]
    {
        api.send(method, path, &[], &[])?.problem(404, "not_found")?;
        // With a bearer token API Gateway takes another way to the same answer.
        api.send(method, path, &[("authorization", "Bearer qp_x")], &[])?.problem(404, "not_found")?;
    }
    for path in [
        "/v1/events",
        "/v1/auth/tokens",
        "/v1/log/key",
        "/v1/log/checkpoint",
        "/v1/log/tile/0/000",
        "/api/sessions/a%20b",
    ] {
        api.send("GET", path, &[], &[])?.problem(401, "unauthorized")?;
    }
    Ok(())
}

fn first_token(api: &Api<'_>, secret: &str) -> anyhow::Result<String> {
    let body = json!({ "name": "first", "scopes": ["*"] });
    api.send(
        "POST",
        "/v1/auth/tokens",
        &[("content-type", "application/json")],
        body.to_string().as_bytes(),
    )?
    .problem(401, "unauthorized")?;
    api.post("not-the-bootstrap-secret", "/v1/auth/tokens", &body)?.problem(401, "unauthorized")?;
    let (admin, _) = api.token(secret, &body)?;
    api.post(secret, "/v1/auth/tokens", &body)?.problem(401, "unauthorized")?;
    api.get(secret, "/v1/events")?.problem(401, "unauthorized")?;
    Ok(admin)
}

/// A batch, the same again as gzip, and one more: the reply to the last.
fn append(api: &Api<'_>, admin: &str) -> anyhow::Result<Reply> {
    let batch = json!({ "events": [event("main", 0), event("main", 1), event("side", 0)] });
    let reply = api.post(admin, "/v1/events", &batch)?.expect(201)?;
    ensure!(reply["ingested"] == 3 && reply["receipts"].as_array().is_some_and(|r| r.len() == 2), "{reply}");

    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    writeln!(packed, "{}\n{}", event("main", 2), event("main", 3))?;
    let bearer = format!("Bearer {admin}");
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/x-ndjson"),
        ("content-encoding", "gzip"),
        ("idempotency-key", "end-to-end"),
    ];
    let packed = packed.finish()?;
    let first = api.send("POST", "/v1/events", &headers, &packed)?;
    let events = first.expect(201)?;
    ensure!(events["events"][0]["sequence"] == 2 && events["events"][1]["sequence"] == 3, "{events}");
    let again = api.send("POST", "/v1/events", &headers, &packed)?;
    ensure!(again.expect(201)? == events && again.header("idempotent-replayed") == "true", "{}", again.text);

    let last = api.post(admin, "/v1/events", &json!({ "events": [event("main", 4)] }))?;
    ensure!(last.expect(201)?["events"][0]["sequence"] == 4, "{}", last.text);
    Ok(last)
}

fn read(api: &Api<'_>, admin: &str, reply: &Reply) -> anyhow::Result<()> {
    let id = reply.expect(201)?["events"][0]["event_id"].as_str().context("an event id")?.to_owned();
    let found = api.get(admin, &format!("/v1/events/{id}"))?;
    let found_event = found.expect(200)?;
    ensure!(found_event["sequence"] == 4 && found.text.contains("9007199254740993"), "{}", found.text);
    api.get(admin, "/v1/events/0198b9a0-0000-7000-8000-000000000001")?.problem(404, "not_found")?;

    let page = api.get(admin, "/v1/events?session_id=main&order=asc&limit=3")?.expect(200)?;
    ensure!(page["events"].as_array().is_some_and(|events| events.len() == 3), "{page}");
    let agentlens = api.get(admin, "/api/events?sessionId=main")?.expect(200)?;
    ensure!(agentlens["total"] == 5, "{agentlens}");
    let sessions = api.get(admin, "/v1/sessions")?.expect(200)?;
    ensure!(sessions["sessions"].as_array().is_some_and(|sessions| sessions.len() == 2), "{sessions}");
    let session = api.get(admin, "/v1/sessions/main")?.expect(200)?;
    ensure!(session["session_id"] == "main", "{session}");
    let events = api.get(admin, "/v1/sessions/main/events")?.expect(200)?;
    ensure!(events["events"].as_array().is_some_and(|events| events.len() == 5), "{events}");
    let verdict = api.get(admin, "/v1/sessions/main/verify")?.expect(200)?;
    ensure!(verdict.to_string().contains("VALID") && !verdict.to_string().contains("INVALID"), "{verdict}");
    api.get(admin, "/v1/agents/driver")?.expect(200)?;
    Ok(())
}

/// An exported session, checked by who trusts nothing here but the key.
fn export(api: &Api<'_>, admin: &str, reply: &Reply, place: &Path) -> anyhow::Result<()> {
    let keys = api.get(admin, "/v1/log/key")?.expect(200)?;
    let bundle = api.get(admin, "/v1/sessions/main/export")?;
    ensure!(bundle.status == 200, "{}: {}", bundle.status, bundle.text);
    let path = |name: &str| place.join(name);
    fs::write(path("log.pub"), keys["log_key"].as_str().context("a log key")?)?;
    fs::write(path("receipt.json"), &reply.text)?;
    fs::write(path("bundle.ndjson"), &bundle.text)?;
    fs::write(path("tampered.ndjson"), bundle.text.replacen("9007199254740993", "9007199254740992", 1))?;
    for (name, code) in [("bundle.ndjson", 0), ("tampered.ndjson", 1)] {
        let mut verify = Command::new(super::verifier());
        verify.arg("verify").arg(path(name)).arg("--key").arg(path("log.pub"));
        let output = verify.arg("--receipt").arg(path("receipt.json")).output()?;
        let says =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if output.status.code() != Some(code) {
            bail!("quipu verify {name} ended with {}: {says}", output.status);
        }
        eprint!("{says}");
    }
    Ok(())
}

/// Gives the other tenant's token.
fn other_tenant(api: &Api<'_>, admin: &str) -> anyhow::Result<String> {
    api.post(admin, "/v1/tenants", &json!({ "tenant": "acme" }))?.expect(201)?;
    api.post(admin, "/v1/tenants", &json!({ "tenant": "acme" }))?.problem(409, "conflict")?;
    let (acme, _) = api.token(admin, &json!({ "tenant": "acme", "scopes": ["*"] }))?;
    let seen = api.get(&acme, "/v1/events")?.expect(200)?;
    ensure!(seen["events"] == json!([]), "{seen}");
    api.get(&acme, "/v1/sessions/main")?.problem(404, "not_found")?;
    api.get(&acme, "/v1/tenants")?.problem(403, "forbidden")?;
    let own = api.post(&acme, "/v1/events", &json!({ "events": [event("main", 0)] }))?.expect(201)?;
    ensure!(own["events"][0]["sequence"] == 0, "{own}");
    let listed = api.get(&acme, "/v1/auth/tokens")?.expect(200)?;
    ensure!(listed.as_array().is_some_and(|tokens| tokens.len() == 1), "{listed}");
    let tenants = api.get(admin, "/v1/tenants")?.expect(200)?;
    ensure!(tenants.as_array().is_some_and(|tenants| tenants.len() == 2), "{tenants}");
    Ok(acme)
}
