//! A DynamoDB stand-in that counts capacity as AWS does, and two ways to it: calls of our own, and a proxy for the
//! store, which asks for no figures itself. Both ask for them, and add up what is answered.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::ops::{Add, AddAssign};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use crate::shell::target;
use crate::tools;

/// The table, as `localstack/start` makes it and the template describes it.
const RESOURCES: &str = include_str!("../../../localstack/resources.json");

/// From spawn to the first answer.
const START_MAX: Duration = Duration::from_secs(60);

/// The stand-in checks no signature.
const AUTHORIZATION: &str = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/dynamodb/aws4_request, \
    SignedHeaders=host;x-amz-date, Signature=00";

/// Request units: of the table and of its index.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Units {
    pub(super) table_write: f64,
    pub(super) index_write: f64,
    pub(super) read: f64,
}

impl Units {
    pub(super) fn write(self) -> f64 {
        self.table_write + self.index_write
    }

    /// A share of it.
    pub(super) fn by(self, count: usize) -> Self {
        let count = count as f64;
        Self {
            table_write: self.table_write / count,
            index_write: self.index_write / count,
            read: self.read / count,
        }
    }

    /// Adds what an answer says was consumed.
    fn push(&mut self, operation: &str, consumed: &Value) -> anyhow::Result<()> {
        let units = |value: &Value| value["CapacityUnits"].as_f64();
        if let Some(tables) = consumed.as_array() {
            return tables.iter().try_for_each(|table| self.push(operation, table));
        }
        if matches!(operation, "Query" | "GetItem" | "BatchGetItem") {
            self.read += units(consumed).context("no units of the call")?;
            return Ok(());
        }
        self.table_write += units(&consumed["Table"]).context("no units of the table")?;
        for index in consumed["GlobalSecondaryIndexes"].as_object().into_iter().flat_map(|map| map.values()) {
            self.index_write += units(index).context("no units of the index")?;
        }
        Ok(())
    }
}

impl Add for Units {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            table_write: self.table_write + other.table_write,
            index_write: self.index_write + other.index_write,
            read: self.read + other.read,
        }
    }
}

impl AddAssign for Units {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

/// The stand-in, running until it is dropped.
pub(super) struct Dynamo {
    child: Child,
    port: u16,
    proxy: u16,
    agent: ureq::Agent,
    consumed: Arc<Mutex<Units>>,
}

impl Dynamo {
    /// Starts one in memory, and a proxy before it.
    pub(super) fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        drop(listener);
        std::fs::create_dir_all(target().join("tmp"))?;
        let log = File::create(target().join("tmp/cost-dynoxide.log"))?;
        let mut command = Command::new(tools::dynoxide()?);
        command.args(["serve", "--host", "127.0.0.1", "--log", "quiet", "--port", &port.to_string()]);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("start {:?}", command.get_program()))?;
        let config = ureq::Agent::config_builder().http_status_as_error(false).proxy(None);
        let agent: ureq::Agent = config.build().into();
        let consumed = Arc::new(Mutex::new(Units::default()));
        let mut this = Self { child, port, proxy: 0, agent, consumed };
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if started.elapsed() > START_MAX || this.child.try_wait()?.is_some() {
                bail!("dynoxide does not answer: see target/tmp/cost-dynoxide.log");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        this.proxy = this.listen()?;
        Ok(this)
    }

    /// What the store is told to be DynamoDB's address.
    pub(super) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.proxy)
    }

    /// Makes an empty table.
    pub(super) fn table(&self, name: &str) -> anyhow::Result<()> {
        let mut table = serde_json::from_str::<Value>(RESOURCES)?["table"].take();
        table["TableName"] = json!(name);
        self.call("CreateTable", table)?;
        Ok(())
    }

    /// What was consumed since this was last asked.
    pub(super) fn consumed(&self) -> Units {
        std::mem::take(&mut *self.consumed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// One call; anything but success is an error.
    pub(super) fn call(&self, operation: &str, input: Value) -> anyhow::Result<Value> {
        let (status, answer) = self.forward(operation, input.to_string().into_bytes())?;
        let answer: Value = serde_json::from_slice(&answer)?;
        if status != 200 {
            bail!("{operation}: {status} {answer}");
        }
        Ok(answer)
    }

    fn forward(&self, operation: &str, body: Vec<u8>) -> anyhow::Result<(u16, Vec<u8>)> {
        forward(&self.agent, self.port, operation, body, &self.consumed)
    }

    /// Takes what an SDK sends, on threads that end with this process.
    fn listen(&self) -> anyhow::Result<u16> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let proxy = listener.local_addr()?.port();
        let (agent, port, consumed) = (self.agent.clone(), self.port, self.consumed.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (agent, consumed) = (agent.clone(), consumed.clone());
                std::thread::spawn(move || {
                    // The end of the connection is an error too; a call that fails is one for who called.
                    let _ =
                        serve(client, |operation, body| forward(&agent, port, operation, body, &consumed));
                });
            }
        });
        Ok(proxy)
    }
}

impl Drop for Dynamo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a call on with the question what it consumes.
fn forward(
    agent: &ureq::Agent,
    port: u16,
    operation: &str,
    mut body: Vec<u8>,
    consumed: &Mutex<Units>,
) -> anyhow::Result<(u16, Vec<u8>)> {
    let counts = !matches!(operation, "CreateTable" | "DescribeTable");
    if counts {
        let question = br#""ReturnConsumedCapacity":"INDEXES","#;
        anyhow::ensure!(body.first() == Some(&b'{') && body.len() > 2, "{operation}: not an input");
        body.splice(1..1, question.iter().copied());
    }
    let mut answer = agent
        .post(format!("http://127.0.0.1:{port}/"))
        .header("content-type", "application/x-amz-json-1.0")
        .header("x-amz-target", format!("DynamoDB_20120810.{operation}"))
        .header("x-amz-date", "20260101T000000Z")
        .header("authorization", AUTHORIZATION)
        .send(&body)?;
    let status = answer.status().as_u16();
    let bytes = answer.body_mut().with_config().limit(64 << 20).read_to_vec()?;
    if counts && status == 200 {
        let read: Value = serde_json::from_slice(&bytes)?;
        let mut total = consumed.lock().unwrap_or_else(PoisonError::into_inner);
        total.push(operation, &read["ConsumedCapacity"]).with_context(|| operation.to_owned())?;
    }
    Ok((status, bytes))
}

/// HTTP/1.1 with keep-alive, as far as an SDK speaks it. The answer bears no `x-amz-crc32`.
fn serve(
    stream: TcpStream,
    mut answer: impl FnMut(&str, Vec<u8>) -> anyhow::Result<(u16, Vec<u8>)>,
) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::with_capacity(1 << 16, stream);
    loop {
        let (mut operation, mut length, mut line) = (String::new(), 0, String::new());
        loop {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let Some((name, value)) = line.split_once(':') else {
                if line.trim_ascii().is_empty() {
                    break;
                }
                continue;
            };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse()?;
            } else if name.eq_ignore_ascii_case("x-amz-target") {
                operation = value.trim().rsplit('.').next().unwrap_or_default().to_owned();
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let (status, bytes) = answer(&operation, body).inspect_err(|e| eprintln!("the proxy: {e:#}"))?;
        let head = format!(
            "HTTP/1.1 {status} _\r\ncontent-type: application/x-amz-json-1.0\r\ncontent-length: {}\r\n\r\n",
            bytes.len()
        );
        reader.get_mut().write_all(&[head.as_bytes(), &bytes].concat())?;
    }
}
