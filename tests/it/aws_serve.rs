//! `quipu serve --store aws`: the real binary on an emulated AWS, as whoever starts it sees it.

use std::fs::File;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use quipu_tests::emulator::{aws_env, call, fresh_table, kms_keys};
use quipu_tests::{Emulator, binary};
use serde_json::{Value, json};

/// Variables to set; `None` takes one out.
type Change<'a> = &'a [(&'a str, Option<&'a str>)];

/// A table, its keys, and the environment that names them.
struct Deployment {
    env: Vec<(String, String)>,
    dir: tempfile::TempDir,
}

fn emulator() -> &'static str {
    Emulator::ministack().url()
}

impl Deployment {
    fn new() -> Self {
        let (seal_key, log_key) = kms_keys(emulator());
        let mut env = Emulator::ministack().env();
        let table = fresh_table(emulator());
        for (name, value) in
            [("QUIPU_TABLE", table), ("QUIPU_SEAL_KEY", seal_key), ("QUIPU_LOG_KEY", log_key)]
        {
            env.push((name.to_owned(), value));
        }
        Self { env, dir: tempfile::tempdir().unwrap() }
    }

    fn setting(&self, name: &str) -> &str {
        &self.env.iter().find(|(known, _)| known == name).unwrap().1
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A command with nothing of AWS or Quipu in its environment but this deployment.
    fn quipu(&self, args: &[&str], change: Change<'_>) -> Command {
        let mut command = Command::new(binary());
        for (name, _) in std::env::vars() {
            if name.starts_with("AWS_") || name.starts_with("QUIPU_") {
                command.env_remove(name);
            }
        }
        command.args(args).envs(self.env.iter().cloned()).current_dir(self.path()).stdin(Stdio::null());
        for (name, value) in change {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }

    fn ok(&self, args: &[&str]) -> String {
        let output = self.quipu(args, &[]).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn serve(&self, args: &[&str], change: Change<'_>) -> Running {
        let log = tempfile::NamedTempFile::new().unwrap();
        let all: Vec<&str> = ["serve", "--store", "aws", "--listen", "127.0.0.1:0"]
            .into_iter()
            .chain(args.iter().copied())
            .collect();
        let mut command = self.quipu(&all, change);
        command.stdout(Stdio::piped()).stderr(File::create(log.path()).unwrap());
        Running::ready(command.spawn().unwrap(), log)
    }
}

/// A running server: what it said, and what it logs.
struct Running {
    child: Child,
    url: String,
    banner: String,
    log: tempfile::NamedTempFile,
}

impl Running {
    fn ready(mut child: Child, log: tempfile::NamedTempFile) -> Self {
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut banner = String::new();
        // The last line names the command that shows events.
        while !banner.contains(" tail ") {
            let read = out.read_line(&mut banner).unwrap();
            assert!(read > 0, "{banner}{}", std::fs::read_to_string(log.path()).unwrap());
        }
        let url = banner.lines().find_map(|line| line.strip_prefix("listening on ")).unwrap().to_owned();
        Self { child, url, banner, log }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap()
    }

    fn fact(&self, name: &str) -> Option<&str> {
        let line = self.banner.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        line.filter(|line| !line.is_empty())
    }

    fn request(&self, method: &str, path: &str, token: Option<&str>, body: Option<&Value>) -> (u16, String) {
        let mut request = axum::http::Request::builder().method(method).uri(format!("{}{path}", self.url));
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let config = ureq::Agent::config_builder().http_status_as_error(false).proxy(None);
        let agent: ureq::Agent = config.build().into();
        let mut answer = match body {
            Some(body) => {
                let request = request.header("content-type", "application/json");
                agent.run(request.body(body.to_string()).unwrap())
            }
            None => agent.run(request.body(()).unwrap()),
        }
        .unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
    }

    fn get(&self, path: &str, token: &str) -> Value {
        let (status, text) = self.request("GET", path, Some(token), None);
        assert_eq!(status, 200, "{path}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// Ends it with SIGTERM.
    fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success(), "{}", self.log());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

fn event(session: &str, payload: u64) -> Value {
    json!({ "session_id": session, "agent_id": "a", "event_type": "test.happened", "payload": payload })
}

fn append(server: &Running, token: Option<&str>, session: &str, payload: u64) -> u64 {
    let body = json!({ "events": [event(session, payload)] });
    let (status, text) = server.request("POST", "/v1/events", token, Some(&body));
    assert_eq!(status, 201, "{text}");
    serde_json::from_str::<Value>(&text).unwrap()["events"][0]["sequence"].as_u64().unwrap()
}

/// Everything that the one-process server does, on a table, through two servers at once: what one writes, the other
/// shows.
#[test]
fn two_servers_are_one_ledger() {
    let here = Deployment::new();
    let operator = here.path().join("operator");
    let operator = operator.to_str().unwrap();
    let a = here.serve(&["--auth", "required", "--data", operator], &[]);
    let b = here.serve(&["--auth", "required"], &[("QUIPU_LOG_KEY", None)]);
    for server in [&a, &b] {
        assert_eq!(server.fact("table"), Some(here.setting("QUIPU_TABLE")), "{}", server.banner);
        assert_eq!(server.fact("region"), Some("us-east-1"), "{}", server.banner);
        assert_eq!(server.fact("endpoint"), Some(emulator()), "{}", server.banner);
    }
    assert!(a.fact("deployment").unwrap().starts_with("aws-"), "{}", a.banner);
    assert_eq!(a.fact("deployment"), b.fact("deployment"));

    // The operator is known by the word in the directory; elsewhere a token is needed.
    let token = here.ok(&["token", "create", "--scope", "*", "--only-token", "--data", operator]);
    let token = token.trim();
    let stranger = here.quipu(&["query", "--url", &b.url], &[]).output().unwrap();
    assert_eq!(stranger.status.code(), Some(1));
    let as_token = |server: &Running, args: &[&str]| {
        here.ok(&[args, &["--url", &server.url, "--token", token]].concat())
    };

    // One line of history, whichever server is written to, warm or not.
    for n in 0..6 {
        let server = if n % 2 == 0 { &a } else { &b };
        assert_eq!(append(server, Some(token), "shared", n), n);
    }
    as_token(&a, &["send", "--session", "own", "--agent", "me", "--type", "note.made", "--payload", "7"]);
    let found = lines(&as_token(&b, &["query", "--all", "--order", "asc", "--json"]));
    let payloads: Vec<u64> = found.iter().map(|event| event["payload"].as_u64().unwrap()).collect();
    assert_eq!(payloads, [0, 1, 2, 3, 4, 5, 7]);
    let sessions = b.get("/v1/sessions", token);
    assert_eq!(sessions["sessions"].as_array().unwrap().len(), 2, "{sessions}");
    assert_eq!(b.get("/v1/sessions/shared/verify", token)["verdict"], "VALID");

    // Evidence that holds without a server.
    let log_key = b.get("/v1/log/key", token)["log_key"].as_str().unwrap().to_owned();
    std::fs::write(here.path().join("log.pub"), log_key).unwrap();
    as_token(&a, &["export", "--session", "shared", "own", "--out", "case.ndjson"]);
    let verdict = here.ok(&["verify", "case.ndjson", "--key", "log.pub", "--json"]);
    let verdict: Value = serde_json::from_str(&verdict).unwrap();
    assert_eq!((&verdict["verdict"], &verdict["events"]), (&json!("VALID"), &json!(7)), "{verdict}");

    // A second tenant sees its own, and nobody else does.
    as_token(&a, &["tenant", "create", "acme"]);
    let acme = as_token(&b, &["token", "create", "--tenant", "acme", "--scope", "*", "--only-token"]);
    let acme = acme.trim();
    assert_eq!(append(&b, Some(acme), "shared", 100), 0);
    let theirs = lines(&here.ok(&["query", "--all", "--json", "--url", &a.url, "--token", acme]));
    assert_eq!(theirs.len(), 1, "{theirs:?}");
    assert_eq!(lines(&as_token(&a, &["query", "--all", "--json"])).len(), 7);

    // Revoked: refused at once where it was done, and where it had not been seen.
    let made = as_token(&a, &["token", "create", "--scope", "events:read", "--json"]);
    let made: Value = serde_json::from_str(&made).unwrap();
    let text = made["token"].as_str().unwrap();
    a.get("/v1/events", text);
    as_token(&a, &["token", "revoke", made["id"].as_str().unwrap()]);
    for server in [&a, &b] {
        assert_eq!(server.request("GET", "/v1/events", Some(text), None).0, 401);
    }

    a.stop();
    assert_eq!(std::fs::read_dir(operator).unwrap().count(), 0, "the credential goes with the server");
    b.stop();
}

/// A fresh bucket.
fn bucket(kind: &str) -> String {
    let random = RandomState::new().build_hasher().finish();
    let name = format!("quipu-{kind}-{random:016x}");
    let client = quipu_tests::connection(emulator(), None).s3();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(client.create_bucket().bucket(&name).send()).unwrap();
    name
}

/// Waits for what a server does by itself.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A server with buckets archives as the one on a data directory does: when asked, and by itself; another one shows
/// the log without being able to write it.
#[test]
fn a_server_with_a_staging_bucket_archives() {
    let here = Deployment::new();
    let (archive, staging) = (bucket("archive"), bucket("staging"));
    let reads = [("QUIPU_ARCHIVE_BUCKET", Some(&*archive)), ("QUIPU_ARCHIVE_INTERVAL", Some("off"))];
    let writes = [reads[0], reads[1], ("QUIPU_STAGING_BUCKET", Some(&*staging))];

    // Another key than the table's would spoil the log.
    here.serve(&[], &[]).stop();
    let (_, other) = kms_keys(emulator());
    let said = fails(&here, &[], &[&writes[..], &[("QUIPU_LOG_KEY", Some(&*other))]].concat());
    assert!(said.contains("the log key at hand is") && said.contains("QUIPU_LOG_KEY"), "{said}");
    let said = fails(&here, &["--staging-bucket", "no-such-bucket"], &reads);
    assert!(said.contains("no-such-bucket"), "{said}");

    let server = here.serve(&[], &writes);
    let reader = here.serve(&[], &[&reads[..], &[("QUIPU_LOG_KEY", None)]].concat());
    assert_eq!(server.fact("archive"), Some(&*archive));
    assert!(reader.fact("archive").unwrap().contains("another archiver"), "{}", reader.banner);
    for n in 0..3 {
        append(&server, None, "s", n);
    }
    let refused = here.quipu(&["archive", "now", "--url", &reader.url], &[]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1), "it has no archiver");
    here.ok(&["tenant", "create", "acme", "--url", &server.url]);
    let acme = here.ok(&[
        "token",
        "create",
        "--tenant",
        "acme",
        "--scope",
        "*",
        "--only-token",
        "--url",
        &server.url,
    ]);
    append(&server, Some(acme.trim()), "s", 7);
    let said = here.ok(&["archive", "now", "--url", &server.url]);
    assert!(said.contains("acme: batch 1 closed: 1 event,"), "{said}");
    assert!(said.contains("default: batch 1 closed: 3 events,"), "{said}");
    assert_eq!(here.ok(&["archive", "now", "--url", &server.url]).trim(), "nothing to archive");
    let checkpoint = |server: &Running| server.request("GET", "/v1/log/checkpoint", None, None).1;
    assert_eq!(checkpoint(&server).lines().nth(1), Some("3"));
    assert_eq!(checkpoint(&reader), checkpoint(&server));
    server.stop();

    // By itself, and what is there is what the verifier takes.
    let often = [("QUIPU_ARCHIVE_INTERVAL", Some("1s")), ("QUIPU_ARCHIVE_MAX_AGE", Some("1s"))];
    let server = here.serve(&[], &[&writes[2..], &reads[..1], &often].concat());
    append(&server, None, "s", 3);
    until("the batch is closed in time", || checkpoint(&server).lines().nth(1) == Some("4"));
    std::fs::write(here.path().join("log.pub"), here.ok(&["key", "show", "--url", &server.url])).unwrap();
    server.stop();
    let verdict = here.ok(&["verify", &format!("s3://{archive}"), "--key", "log.pub", "--json"]);
    let verdict: Value = serde_json::from_str(&verdict).unwrap();
    assert_eq!((&verdict["verdict"], &verdict["events"]), (&json!("VALID"), &json!(5)), "{verdict}");
}

/// A deployment with an archive, and what its servers are given for it.
struct Archived {
    here: Deployment,
    archive: String,
    staging: String,
}

impl Archived {
    fn new() -> Self {
        Self { here: Deployment::new(), archive: bucket("archive"), staging: bucket("staging") }
    }

    /// Settings of a server that archives when it is asked.
    fn settings<'a>(&'a self, more: Change<'a>) -> Vec<(&'a str, Option<&'a str>)> {
        let mut all = vec![
            ("QUIPU_ARCHIVE_BUCKET", Some(&*self.archive)),
            ("QUIPU_STAGING_BUCKET", Some(&*self.staging)),
            ("QUIPU_ARCHIVE_INTERVAL", Some("off")),
        ];
        all.extend(more);
        all
    }

    fn serve(&self, more: Change<'_>) -> Running {
        self.here.serve(&[], &self.settings(more))
    }

    /// A command on the table itself.
    fn command(&self, args: &[&str], more: Change<'_>) -> Output {
        self.here.quipu(&[args, &["--store", "aws"]].concat(), &self.settings(more)).output().unwrap()
    }

    fn done(&self, args: &[&str], more: Change<'_>) -> String {
        let output = self.command(args, more);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn refused(&self, args: &[&str], more: Change<'_>) -> String {
        let output = self.command(args, more);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
        said
    }

    /// The archive by itself, with a key that is kept in a file.
    fn is_valid(&self, key: &str, events: u64) {
        let verdict = self.here.ok(&["verify", &format!("s3://{}", self.archive), "--key", key, "--json"]);
        let verdict: Value = serde_json::from_str(&verdict).unwrap();
        assert_eq!((&verdict["verdict"], &verdict["events"]), (&json!("VALID"), &json!(events)), "{verdict}");
    }

    fn keep(&self, file: &str, text: &str) {
        std::fs::write(self.here.path().join(file), text).unwrap();
    }
}

/// The table is lost, its archive and the log key are not: a new table has what the archiver had written, and the keys.
#[test]
fn a_new_table_is_built_from_the_archive() {
    let all = Archived::new();
    let server = all.serve(&[]);
    for (session, n) in [("a", 0), ("a", 1), ("b", 0)] {
        append(&server, None, session, n);
    }
    all.here.ok(&["archive", "now", "--url", &server.url]);
    append(&server, None, "a", 2);
    all.here.ok(&["archive", "now", "--url", &server.url]);
    let log_key = all.here.ok(&["key", "show", "--url", &server.url]);
    all.keep("log.pub", &log_key);
    let sessions = server.request("GET", "/v1/sessions", None, None).1;
    server.stop();

    let table = fresh_table(emulator());
    let new = [("QUIPU_TABLE", Some(&*table))];
    let said = all.refused(&["rebuild", "--idle"], &new);
    assert!(said.contains("no keys") && said.contains("--key log.pub"), "{said}");
    let (_, other) = kms_keys(emulator());
    let said =
        all.refused(&["rebuild", "--idle", "--key", "log.pub"], &[new[0], ("QUIPU_LOG_KEY", Some(&*other))]);
    assert!(said.contains("the archive's log key is"), "{said}");
    let said = all.done(&["rebuild", "--idle", "--key", "log.pub"], &new);
    assert!(said.starts_with("rebuilt: 1 tenant, 2 batches, 2 sessions, 4 events"), "{said}");
    all.done(&["rebuild", "--idle"], &new);

    let server = all.serve(&new);
    assert_eq!(server.request("GET", "/v1/sessions", None, None).1, sessions);
    assert_eq!(all.here.ok(&["key", "show", "--url", &server.url]), log_key);
    assert_eq!(append(&server, None, "a", 3), 3);
    assert_eq!(append(&server, None, "b", 1), 1);
    assert_eq!(append(&server, None, "c", 0), 0);
    let said = all.here.ok(&["archive", "now", "--url", &server.url]);
    assert!(said.contains("batch 3 closed: 3 events"), "{said}");
    // Bundles and receipts go with the new receipt key.
    all.here.ok(&["export", "--session", "c", "--out", "c.ndjson", "--url", &server.url]);
    all.here.ok(&["verify", "c.ndjson", "--key", "log.pub"]);
    server.stop();
    all.is_valid("log.pub", 7);

    // A table with keys of its own is another ledger's.
    let stranger = fresh_table(emulator());
    let stranger = [("QUIPU_TABLE", Some(&*stranger))];
    all.here.serve(&[], &stranger).stop();
    let said = all.refused(&["rebuild", "--idle", "--key", "log.pub"], &stranger);
    assert!(said.contains("the table is of the deployment"), "{said}");
}

/// The log key in KMS is replaced: the old one signs nothing more, and whoever pinned it still verifies what is new.
#[test]
fn the_log_key_of_a_table_is_replaced() {
    let all = Archived::new();
    let server = all.serve(&[]);
    append(&server, None, "s", 0);
    all.here.ok(&["archive", "now", "--url", &server.url]);
    all.keep("old.pub", &all.here.ok(&["key", "show", "--url", &server.url]));
    let (_, next) = kms_keys(emulator());
    let rotate = ["key", "rotate", "log", "--new-log-key", &next];
    let said = all.refused(&["key", "rotate", "log"], &[]);
    assert!(said.contains("--new-log-key"), "{said}");
    let said = all.refused(&rotate, &[("QUIPU_LOG_KEY", Some(&*next))]);
    assert!(said.contains("the deployment's log key is"), "{said}");
    assert_eq!(append(&server, None, "s", 1), 1, "what is refused closes nothing");
    all.keep("new.pub", &all.done(&rotate, &[]));

    // The server that runs has the old key: events are taken, batches are not signed.
    assert_eq!(append(&server, None, "s", 2), 2);
    let refused = all.here.quipu(&["archive", "now", "--url", &server.url], &[]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(server.log().contains("the log key at hand is"), "{}", server.log());
    server.stop();
    let said = all.refused(&rotate, &[]);
    assert!(said.contains("is not finished") || said.contains("the deployment's log key is"), "{said}");

    let server = all.serve(&[("QUIPU_LOG_KEY", Some(&*next))]);
    let said = all.here.ok(&["archive", "now", "--url", &server.url]);
    assert!(said.contains("batch 2 closed: 2 events"), "{said}");
    append(&server, None, "s", 3);
    all.here.ok(&["archive", "now", "--url", &server.url]);
    all.keep("shown.pub", &all.here.ok(&["key", "show", "--url", &server.url]));
    all.here.ok(&["export", "--session", "s", "--out", "s.ndjson", "--url", &server.url]);
    server.stop();
    for key in ["old.pub", "new.pub", "shown.pub"] {
        all.is_valid(key, 4);
        all.here.ok(&["verify", "s.ndjson", "--key", key]);
    }
    let read = |file: &str| std::fs::read_to_string(all.here.path().join(file)).unwrap();
    assert_eq!(read("new.pub"), read("shown.pub"));
    assert_ne!(read("new.pub"), read("old.pub"));
}

/// The first servers on a table, at the same time: one of them makes the keys, and all have them.
#[test]
fn servers_that_start_at_once_have_the_same_keys() {
    let here = Deployment::new();
    let servers: Vec<Running> = std::thread::scope(|scope| {
        let starting: Vec<_> = (0..4).map(|_| scope.spawn(|| here.serve(&[], &[]))).collect();
        starting.into_iter().map(|server| server.join().unwrap()).collect()
    });
    for (n, server) in (0..).zip(&servers) {
        assert_eq!(server.fact("deployment"), servers[0].fact("deployment"));
        assert_eq!(append(server, None, "s", n), n);
    }
    assert_eq!(std::fs::read_dir(here.path()).unwrap().count(), 0, "nothing is kept on this machine");
}

/// Whoever comes first shall not own a table that others can reach.
#[test]
fn the_first_token_needs_the_secret() {
    let here = Deployment::new();
    let wanted = json!({ "scopes": ["*"] });
    let closed = here.serve(&["--auth", "required"], &[]);
    assert!(closed.banner.contains("QUIPU_BOOTSTRAP_SECRET"), "{}", closed.banner);
    assert_eq!(closed.request("POST", "/v1/auth/tokens", None, Some(&wanted)).0, 401);
    let secret = "correct horse battery";
    let open = here.serve(&["--auth", "required"], &[("QUIPU_BOOTSTRAP_SECRET", Some(secret))]);
    assert_eq!(open.request("POST", "/v1/auth/tokens", None, Some(&wanted)).0, 401);
    assert!(
        !open.banner.contains(secret) && open.banner.contains("$QUIPU_BOOTSTRAP_SECRET"),
        "{}",
        open.banner
    );
    let args = ["token", "create", "--scope", "*", "--only-token", "--url", &open.url, "--token", secret];
    let token = here.ok(&args);
    closed.get("/v1/events", token.trim());
    assert_eq!(here.quipu(&args, &[]).output().unwrap().status.code(), Some(1), "once");
}

fn fails(here: &Deployment, args: &[&str], change: Change<'_>) -> String {
    let all = [&["serve", "--store", "aws", "--listen", "127.0.0.1:0"], args].concat();
    let Output { status, stdout, stderr } = here.quipu(&all, change).output().unwrap();
    let said = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{change:?}: {said}{}", String::from_utf8_lossy(&stdout));
    assert!(said.starts_with("error: ") && said.lines().count() <= 2, "{change:?}: {said}");
    assert!(stdout.is_empty(), "{change:?}: nothing is announced that is not there");
    said
}

/// What is missing at the start is named, with what to do, before anything is served.
#[test]
fn start_errors_say_what_is_missing() {
    let here = Deployment::new();
    let other = |definition: Value| {
        call(emulator(), "DynamoDB_20120810.CreateTable", &definition);
        definition["TableName"].as_str().unwrap().to_owned()
    };
    let key = |names: &[(&str, &str)]| -> Vec<Value> {
        names.iter().map(|(name, kind)| json!({ "AttributeName": name, "KeyType": kind })).collect()
    };
    let attributes = |names: &[&str]| -> Vec<Value> {
        names.iter().map(|name| json!({ "AttributeName": name, "AttributeType": "S" })).collect()
    };
    let strange = other(json!({
        "TableName": format!("{}-strange", here.setting("QUIPU_TABLE")), "BillingMode": "PAY_PER_REQUEST",
        "KeySchema": key(&[("id", "HASH")]), "AttributeDefinitions": attributes(&["id"]),
    }));
    let plain = other(json!({
        "TableName": format!("{}-plain", here.setting("QUIPU_TABLE")), "BillingMode": "PAY_PER_REQUEST",
        "KeySchema": key(&[("pk", "HASH"), ("sk", "RANGE")]), "AttributeDefinitions": attributes(&["pk", "sk"]),
    }));
    let nobody = [("AWS_ACCESS_KEY_ID", None), ("AWS_SECRET_ACCESS_KEY", None)];
    let in_vain = [nobody[0], nobody[1], ("AWS_PROFILE", Some("nobody"))];
    // Nothing listens on the discard port.
    let down = aws_env("http://127.0.0.1:9", None);
    let down: Vec<_> = down.iter().map(|(name, value)| (name.as_str(), Some(value.as_str()))).collect();
    let nameless = aws_env("http://dynamodb.invalid", None);
    let nameless: Vec<_> =
        nameless.iter().map(|(name, value)| (name.as_str(), Some(value.as_str()))).collect();
    let (seal, log) = (here.setting("QUIPU_SEAL_KEY"), here.setting("QUIPU_LOG_KEY"));
    let unknown = Some("00000000-0000-4000-8000-000000000000");
    let cases: [(Change<'_>, &[&str]); 15] = [
        (&[("QUIPU_TABLE", None)], &["needs QUIPU_TABLE", "--table"]),
        (&[("QUIPU_SEAL_KEY", None)], &["needs QUIPU_SEAL_KEY", "--seal-key"]),
        (&[("AWS_REGION", None)], &["no AWS region", "hint: export AWS_REGION"]),
        (&nobody, &["no AWS credentials", "hint: export AWS_ACCESS_KEY_ID"]),
        (&in_vain, &["AWS_PROFILE=nobody", "hint: "]),
        (&down, &["127.0.0.1:9", "nothing answers", "AWS_ENDPOINT_URL"]),
        (&nameless, &["dynamodb.invalid", "could not be resolved", "AWS_REGION"]),
        (&[("QUIPU_TABLE", Some("no-such-table"))], &["no-such-table", "us-east-1", "infra/template.yaml"]),
        (&[("AWS_REGION", Some("eu-west-3"))], &["eu-west-3", "not in this region", "AWS_REGION"]),
        (&[("QUIPU_TABLE", Some(&strange))], &["not one of Quipu's", "pk (string)"]),
        (&[("QUIPU_TABLE", Some(&plain))], &["no index feed", "infra/template.yaml"]),
        (&[("QUIPU_LOG_KEY", None)], &["no keys yet", "QUIPU_LOG_KEY"]),
        (&[("QUIPU_SEAL_KEY", unknown)], &["KMS key is not in this region", "QUIPU_SEAL_KEY"]),
        (&[("QUIPU_LOG_KEY", Some(seal))], &["of another kind", "ECC_NIST_EDWARDS25519"]),
        (&[("QUIPU_SEAL_KEY", Some(log))], &["of another kind", "SYMMETRIC_DEFAULT"]),
    ];
    for (change, says) in cases {
        let said = fails(&here, &[], change);
        for part in says {
            assert!(said.contains(part), "{change:?} should say {part:?}: {said}");
        }
    }
    call(emulator(), "TrentService.DisableKey", &json!({ "KeyId": log }));
    let said = fails(&here, &[], &[]);
    assert!(said.contains("disabled") && said.contains("enable it"), "{said}");
    assert_eq!(std::fs::read_dir(here.path()).unwrap().count(), 0, "nothing was left behind");

    std::fs::write(here.path().join("cat.png"), "").unwrap();
    let said = fails(&here, &["--data", "."], &[]);
    assert!(said.contains("cat.png") && said.contains("--data"), "{said}");
}

/// P10: what is wrong with the table is for the log; a client learns a code and by what to ask for more.
#[test]
fn p10_a_table_that_goes_away_is_told_to_the_operator_alone() {
    let here = Deployment::new();
    let server = here.serve(&[], &[]);
    append(&server, None, "s", 0);
    call(emulator(), "DynamoDB_20120810.DeleteTable", &json!({ "TableName": here.setting("QUIPU_TABLE") }));
    let body = json!({ "events": [event("s", 1)] });
    for (method, path, token, body) in [
        ("POST", "/v1/events", None, Some(&body)),
        ("GET", "/v1/events", None, None),
        ("GET", "/v1/sessions/s/events", None, None),
        ("GET", "/v1/events", Some("qp_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"), None),
        ("GET", "/v1/auth/tokens", None, None),
    ] {
        let (status, text) = server.request(method, path, token, body);
        let answer: Value = serde_json::from_str(&text).unwrap();
        let request = format!("{method} {path}: {text}");
        assert_eq!((status, &answer["code"]), (503, &json!("unavailable")), "{request}");
        let lower = text.to_lowercase();
        for word in ["table", "dynamo", "aws", "resource", "region", here.setting("QUIPU_TABLE")] {
            assert!(!lower.contains(word), "{word:?} in {request}");
        }
        let id = answer["request_id"].as_str().unwrap();
        let log = server.log();
        let line = log.lines().find(|line| line.contains(id)).unwrap_or_else(|| panic!("{id} in {log}"));
        assert!(line.contains("check QUIPU_TABLE") && line.contains("ResourceNotFoundException"), "{line}");
    }
}
