//! The AWS stand-ins as child processes on free loopback ports: dynoxide is DynamoDB alone and counts capacity as
//! AWS does; ministack has KMS too, and raises real transaction conflicts.
//!
//! One shared process of each kind serves a whole test process: a test makes its own table. They end with the test
//! process, however it ends: a static is never dropped and a killed process runs nothing, so a watchdog (a shell
//! that reads from a pipe whose other end only this process holds) kills the stand-in when the pipe closes.

use std::fs::{self, File};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::process::repository;

/// From spawn to healthy: about a second alone, far more beside a build.
const START_MAX: Duration = Duration::from_secs(60);
/// A free port may be taken between its choice and its use.
const PORT_ATTEMPTS: usize = 5;
/// Logs are kept for who looks into a failure, not for ever.
const LOG_AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// What the stand-ins are told; they check neither signature nor account.
const AUTHORIZATION: &str = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/dynamodb/aws4_request, \
    SignedHeaders=host;x-amz-date, Signature=0000000000000000000000000000000000000000000000000000000000000000";

/// The table and the keys, as `localstack/start` makes them.
const RESOURCES: &str = include_str!("../../localstack/resources.json");

/// Which stand-in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// DynamoDB alone.
    Dynoxide,
    /// Most of AWS.
    Ministack,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Dynoxide => "dynoxide",
            Self::Ministack => "ministack",
        }
    }

    fn health(self) -> &'static str {
        match self {
            Self::Dynoxide => "/",
            Self::Ministack => "/_ministack/health",
        }
    }

    fn command(self, port: u16, dir: &Path) -> Command {
        let variable = format!("QUIPU_TEST_{}", self.name().to_uppercase());
        let program =
            std::env::var_os(&variable).unwrap_or_else(|| panic!("{variable}: run cargo xtask test"));
        let mut command = Command::new(program);
        match self {
            Self::Dynoxide => {
                command.args(["serve", "--host", "127.0.0.1", "--log", "quiet", "--port", &port.to_string()]);
            }
            Self::Ministack => {
                command
                    .env("GATEWAY_PORT", port.to_string())
                    .env("BIND_HOST", "127.0.0.1")
                    .env("TMPDIR", dir);
                // Listeners on fixed ports: several of these run at once.
                command.env("IOT_MTLS_ENABLED", "0").env("SFTP_ENABLED", "0");
                // It removes containers that it takes for its own: there shall be no engine.
                command.env("DOCKER_HOST", format!("unix://{}", dir.join("no-docker").display()));
                command.env_remove("PERSIST_STATE").env_remove("SERVICES").env_remove("AUTH");
            }
        }
        command
    }
}

/// A running stand-in. One that is dropped is killed.
pub struct Emulator {
    kind: Kind,
    url: String,
    child: Child,
    watchdog: Child,
    log: PathBuf,
}

impl Emulator {
    /// The one dynoxide of this test process. Blocks until it answers.
    pub fn dynoxide() -> &'static Self {
        static SHARED: OnceLock<Emulator> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(Kind::Dynoxide))
    }

    /// The one ministack of this test process. Blocks until it answers.
    pub fn ministack() -> &'static Self {
        static SHARED: OnceLock<Emulator> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(Kind::Ministack))
    }

    /// One of the caller's own. Blocks until it answers.
    pub fn start(kind: Kind) -> Self {
        let dir = own_dir(kind);
        let mut last = String::new();
        for _ in 0..PORT_ATTEMPTS {
            match Self::try_start(kind, &dir) {
                Ok(running) => return running,
                Err(why) => last = why,
            }
        }
        panic!("{} did not start on any of {PORT_ATTEMPTS} ports; {last}", kind.name());
    }

    /// Fails if it ended by itself, as it does when another took the port.
    fn try_start(kind: Kind, dir: &Path) -> Result<Self, String> {
        let port = free_port();
        let log = dir.join("log");
        let file = File::create(&log).expect("the log is created");
        let mut command = kind.command(port, dir);
        command.stdin(Stdio::null()).stdout(file.try_clone().expect("a second handle")).stderr(file);
        // A group of its own, so that what it starts ends with it.
        command.process_group(0);
        let child = command.spawn().unwrap_or_else(|e| panic!("{:?}: {e}", command.get_program()));
        let watchdog = watchdog(child.id());
        let mut running = Self { kind, url: format!("http://127.0.0.1:{port}"), child, watchdog, log };
        let started = Instant::now();
        let health = format!("{}{}", running.url, kind.health());
        loop {
            if let Some(status) = running.child.try_wait().expect("its state") {
                return Err(format!("{} ended with {status}: see {}", kind.name(), running.log.display()));
            }
            if agent().get(&health).call().is_ok_and(|answer| answer.status() == 200) {
                return Ok(running);
            }
            let log = running.log.display();
            assert!(
                started.elapsed() < START_MAX,
                "{} is not healthy in {START_MAX:?}: see {log}",
                kind.name()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Where it listens: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What it has said so far.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The environment of a child process whose AWS is this. dynoxide has no KMS: see [`aws_env`].
    pub fn env(&self) -> Vec<(String, String)> {
        aws_env(&self.url, (self.kind == Kind::Ministack).then_some(&*self.url))
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // The closed pipe is the word; the watchdog ends once it has killed the whole group.
        drop(self.watchdog.stdin.take());
        let _ = self.watchdog.wait();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The environment of a child process whose DynamoDB is at one address (a stand-in or a proxy before it) and whose
/// KMS is at another. Every other service, and KMS if it has no address, is sent to the first: nothing goes to AWS.
pub fn aws_env(dynamodb: &str, kms: Option<&str>) -> Vec<(String, String)> {
    [
        ("AWS_ENDPOINT_URL", dynamodb),
        ("AWS_ENDPOINT_URL_DYNAMODB", dynamodb),
        ("AWS_ENDPOINT_URL_KMS", kms.unwrap_or(dynamodb)),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("AWS_CONFIG_FILE", "/dev/null"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

/// Makes an empty table of Quipu's shape under a random name. Its expiry is off: the stand-ins would delete what
/// a test with an old clock has just written. A test of expiry deletes items as DynamoDB would.
pub fn fresh_table(url: &str) -> String {
    let name = format!("quipu-{:016x}", RandomState::new().build_hasher().finish());
    let mut table = resources()["table"].clone();
    table["TableName"] = json!(name);
    call(url, "DynamoDB_20120810.CreateTable", &table);
    let started = Instant::now();
    loop {
        let seen = call(url, "DynamoDB_20120810.DescribeTable", &json!({"TableName": name}));
        if seen["Table"]["TableStatus"] == "ACTIVE" {
            return name;
        }
        assert!(started.elapsed() < START_MAX, "the table is not active: {seen}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Makes the key that seals the receipt key and the key that signs the log; gives their ARNs.
pub fn kms_keys(url: &str) -> (String, String) {
    let make = |alias: &str| {
        let key = call(url, "TrentService.CreateKey", &resources()["keys"][alias]);
        key["KeyMetadata"]["Arn"].as_str().expect("its ARN").to_owned()
    };
    (make("alias/quipu-seal"), make("alias/quipu-log"))
}

/// One call of AWS's JSON protocol; anything but 200 fails the test.
///
/// `target` is the service's name and the operation: `DynamoDB_20120810.PutItem`, `TrentService.Sign`.
pub fn call(url: &str, target: &str, input: &Value) -> Value {
    let (status, output) = try_call(url, target, input).unwrap_or_else(|e| panic!("{target} at {url}: {e}"));
    assert_eq!(status, 200, "{target} at {url}: {output}");
    output
}

/// One call of AWS's JSON protocol: the status and the body of whatever answer came.
///
/// # Errors
/// No answer came.
pub fn try_call(url: &str, target: &str, input: &Value) -> Result<(u16, Value), ureq::Error> {
    let mut answer = agent()
        .post(url)
        .header("content-type", "application/x-amz-json-1.0")
        .header("x-amz-target", target)
        .header("x-amz-date", "20260101T000000Z")
        .header("authorization", AUTHORIZATION)
        .send(input.to_string())?;
    let body = answer.body_mut().read_to_string()?;
    let output = serde_json::from_str(&body).unwrap_or_else(|e| panic!("{target}: {e}: {body}"));
    Ok((answer.status().as_u16(), output))
}

fn resources() -> Value {
    serde_json::from_str(RESOURCES).expect("localstack/resources.json is JSON")
}

/// A new connection for each call: one that was kept could have been closed by a fault.
fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(START_MAX));
    config.max_idle_connections(0).proxy(None).build().into()
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}

/// A shell that waits for the end of this process, then kills the group. It outlives a Ctrl-C.
fn watchdog(group: u32) -> Child {
    let mut command = Command::new("sh");
    command.args([
        "-c",
        r#"trap "" INT TERM HUP; read -r _; kill -s KILL -- "-$1""#,
        "sh",
        &group.to_string(),
    ]);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command.process_group(0).spawn().expect("a shell starts")
}

/// A new directory under `target/tmp` for the log and whatever the stand-in writes; old ones are removed.
fn own_dir(kind: Kind) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from);
    let all = target.join("tmp/emulators");
    fs::create_dir_all(&all).expect("target/tmp is writable");
    for entry in fs::read_dir(&all).expect("it can be listed").flatten() {
        let modified = entry.metadata().and_then(|m| m.modified()).ok();
        if modified.and_then(|at| at.elapsed().ok()).is_some_and(|age| age > LOG_AGE_MAX) {
            // Another test process may be removing it as well.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let own = all.join(format!("{}-{}-{count}", kind.name(), std::process::id()));
    fs::create_dir_all(&own).expect("target/tmp is writable");
    own
}
