//! What a function calls: DynamoDB and KMS stand-ins, each behind a relay that counts connections. A function that
//! asked AWS anything before its first event would be seen here.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use crate::tools;

/// The table and the keys that a deployment has.
const RESOURCES: &str = include_str!("../../../localstack/resources.json");

/// From spawn to the first answer.
const START_MAX: Duration = Duration::from_secs(60);

/// The stand-ins, with a table and keys made.
pub(crate) struct Aws {
    dynamodb: Relay,
    kms: Relay,
    /// What a function's environment says of them.
    pub(crate) settings: Vec<(String, String)>,
    // Killed when dropped.
    _children: [Killed; 2],
}

impl Aws {
    pub(crate) fn start(scratch: &Path) -> anyhow::Result<Self> {
        let (port, kms_port) = (free_port()?, free_port()?);
        let mut dynoxide = Command::new(tools::dynoxide()?);
        dynoxide.args(["serve", "--host", "127.0.0.1", "--log", "quiet", "--port", &port.to_string()]);
        let mut ministack = Command::new(tools::ministack()?);
        ministack.env("GATEWAY_PORT", kms_port.to_string()).env("BIND_HOST", "127.0.0.1");
        ministack.env("IOT_MTLS_ENABLED", "0").env("SFTP_ENABLED", "0").env("TMPDIR", scratch);
        ministack.env("DOCKER_HOST", format!("unix://{}", scratch.join("no-docker").display()));
        let children = [
            Killed::spawn(&mut dynoxide, &scratch.join("dynoxide.log"))?,
            Killed::spawn(&mut ministack, &scratch.join("ministack.log"))?,
        ];
        let resources: Value = serde_json::from_str(RESOURCES)?;
        let name = "quipu";
        let mut table = resources["table"].clone();
        table["TableName"] = json!(name);
        call(port, "DynamoDB_20120810.CreateTable", &table)?;
        let key = |alias: &str| -> anyhow::Result<String> {
            let made = call(kms_port, "TrentService.CreateKey", &resources["keys"][alias])?;
            Ok(made["KeyMetadata"]["Arn"].as_str().context("a key's ARN")?.to_owned())
        };
        let (dynamodb, kms) = (Relay::start(port)?, Relay::start(kms_port)?);
        let settings = [
            ("AWS_ENDPOINT_URL_DYNAMODB", format!("http://127.0.0.1:{}", dynamodb.port)),
            ("AWS_ENDPOINT_URL_KMS", format!("http://127.0.0.1:{}", kms.port)),
            ("QUIPU_TABLE", name.to_owned()),
            ("QUIPU_SEAL_KEY", key("alias/quipu-seal")?),
            ("QUIPU_LOG_KEY", key("alias/quipu-log")?),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value)).to_vec();
        Ok(Self { dynamodb, kms, settings, _children: children })
    }

    /// Connections so far, to DynamoDB and to KMS.
    pub(crate) fn connections(&self) -> (usize, usize) {
        (self.dynamodb.count.load(Ordering::SeqCst), self.kms.count.load(Ordering::SeqCst))
    }
}

struct Killed(Child);

impl Killed {
    fn spawn(command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let file = File::create(log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        Ok(Self(command.spawn().with_context(|| format!("start {:?}", command.get_program()))?))
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Passes bytes on, both ways, and counts who came.
struct Relay {
    port: u16,
    count: Arc<AtomicUsize>,
}

impl Relay {
    fn start(to: u16) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let count = Arc::new(AtomicUsize::new(0));
        let counter = count.clone();
        // It ends with this process.
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                counter.fetch_add(1, Ordering::SeqCst);
                if let Ok(server) = TcpStream::connect(("127.0.0.1", to)) {
                    let _ = join(&client, &server);
                }
            }
        });
        Ok(Self { port, count })
    }
}

fn join(client: &TcpStream, server: &TcpStream) -> std::io::Result<()> {
    for (from, to) in [(client, server), (server, client)] {
        from.set_nodelay(true)?;
        let (mut from, mut to) = (from.try_clone()?, to.try_clone()?);
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(std::net::Shutdown::Write);
        });
    }
    Ok(())
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// One call of AWS's JSON protocol, tried until somebody listens. The stand-ins check no signature.
fn call(port: u16, target: &str, input: &Value) -> anyhow::Result<Value> {
    let started = Instant::now();
    let mut stream = loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => break stream,
            Err(error) if started.elapsed() > START_MAX => return Err(error).context(target.to_owned()),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    let body = input.to_string();
    let (service, operation) = target.split_once('.').context("a target")?;
    let service = if service == "TrentService" { "kms" } else { "dynamodb" };
    write!(
        stream,
        "POST / HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\ncontent-length: {}\r\n\
         content-type: application/x-amz-json-1.0\r\nx-amz-target: {target}\r\nx-amz-date: 20260101T000000Z\r\n\
         authorization: AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/{service}/aws4_request, \
         SignedHeaders=host;x-amz-date, Signature=00\r\n\r\n{body}",
        body.len()
    )?;
    let mut reader = BufReader::new(stream);
    let (mut status, mut line, mut length) = (String::new(), String::new(), None);
    reader.read_line(&mut status)?;
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 || line.trim_ascii().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().ok();
        }
    }
    let mut answer = vec![0; length.with_context(|| format!("{operation}: an answer without a length"))?];
    reader.read_exact(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    if !status.contains(" 200") {
        bail!("{operation}: {}: {answer}", status.trim());
    }
    serde_json::from_str(&answer).with_context(|| format!("{operation}: {answer}"))
}
