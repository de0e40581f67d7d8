//! The package-installed emulator, with its IAM on, and the stack that is deployed to it.
//!
//! What it drops of this template while it imports the API is handed to it by its own API, as the deployed template
//! has it: binary media types and gateway responses. What it drops of the table (time to live, point-in-time
//! recovery, encryption) and of the buckets (Object Lock, lifecycle, encryption) is held by `tests/it/deploy.rs`.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use ureq::Agent;
use ureq::http::Request;

use super::{REGION, sign};

/// How long it may take to start: it loads a hundred services, on a machine that may be busy.
const START_PATIENCE: Duration = Duration::from_secs(90);
/// How long it may take to end before it is killed.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// A running emulator. Ended, with the functions that it runs, when it goes out of scope.
pub(super) struct Emulator {
    child: Child,
    port: u16,
    agent: Agent,
}

/// What was deployed.
pub(super) struct Stack {
    /// Where its API answers here.
    pub(super) url: String,
    /// The host that the emulator knows the API by.
    pub(super) host: String,
    /// The output `Url`, with AWS's own host name.
    pub(super) output_url: String,
    /// The output `ArchiveBucketName`.
    pub(super) bucket: String,
    /// The output `ArchiveNow`.
    pub(super) archive_now: String,
    /// The output `SqlWorkgroupName`.
    pub(super) workgroup: String,
    /// The template after SAM's transform.
    pub(super) template: Value,
}

/// An agent that takes every status for an answer.
pub(super) fn agent() -> Agent {
    Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .timeout_global(Some(Duration::from_secs(60)))
        .build()
        .into()
}

impl Emulator {
    /// Starts it on a free port and waits until it answers.
    pub(super) fn start(ministack: &Path, place: &Path) -> anyhow::Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let log = fs::File::create(place.join("ministack.log"))?;
        let mut command = Command::new(ministack);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).current_dir(place);
        credentials(&mut command, port);
        command.env("AUTH", "true").env("BIND_HOST", "127.0.0.1").env("GATEWAY_PORT", port.to_string());
        // Servers on fixed ports that nothing here needs, and what it unpacks.
        command
            .env("IOT_MTLS_ENABLED", "false")
            .env("SFTP_ENABLED", "false")
            .env("TMPDIR", place.join("tmp"));
        command.env("STATE_DIR", place.join("state"));
        let child = command.spawn().with_context(|| format!("start {}", ministack.display()))?;
        let mut this = Self { child, port, agent: agent() };
        let started = Instant::now();
        while !this.answers() {
            if let Some(status) = this.child.try_wait()? {
                bail!("the emulator ended at its start: {status}\n{}", this.log(place));
            }
            if started.elapsed() > START_PATIENCE {
                bail!("the emulator does not answer\n{}", this.log(place));
            }
            sleep(Duration::from_millis(200));
        }
        Ok(this)
    }

    fn answers(&self) -> bool {
        let url = format!("http://127.0.0.1:{}/_ministack/health", self.port);
        self.agent.get(url).call().is_ok_and(|answer| answer.status() == 200)
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Makes a program speak to it and to nothing else.
    pub(super) fn address(&self, command: &mut Command) {
        credentials(command, self.port);
    }

    /// A stack whose deployment has ended, completed as this module's header says.
    pub(super) fn stack(&self, name: &str) -> anyhow::Result<Stack> {
        let answer = self.cloudformation(&format!("Action=DescribeStacks&StackName={name}"))?;
        let output = |name: &str| {
            between(&answer, &format!("<OutputKey>{name}</OutputKey>"), "</OutputValue>")
                .and_then(|rest| rest.rsplit_once("<OutputValue>"))
                .map(|(_, value)| unescape(value))
                .with_context(|| format!("no output {name}: {answer}"))
        };
        let (output_url, bucket, archive_now) =
            (output("Url")?, output("ArchiveBucketName")?, output("ArchiveNow")?);
        let workgroup = output("SqlWorkgroupName")?;
        let id = between(&output_url, "https://", ".").context("an API has an id")?.to_owned();
        let answer =
            self.cloudformation(&format!("Action=GetTemplate&TemplateStage=Processed&StackName={name}"))?;
        let template = between(&answer, "<TemplateBody>", "</TemplateBody>").context("no template")?;
        let template: Value = serde_json::from_str(&unescape(template)).context("a processed template")?;
        self.complete_api(&id, &template["Resources"]["Api"]["Properties"]["Body"])?;
        let host = format!("{id}.execute-api.localhost:{}", self.port);
        let url = format!("http://127.0.0.1:{}/live", self.port);
        Ok(Stack { url, host, output_url, bucket, archive_now, workgroup, template })
    }

    fn complete_api(&self, id: &str, body: &Value) -> anyhow::Result<()> {
        let types = &body["x-amazon-apigateway-binary-media-types"];
        ensure!(types.is_array(), "no binary media types: {body}");
        // AWS would take an `add` of `/binaryMediaTypes/*~1*`; the emulator takes the list.
        let replace = json!({ "op": "replace", "path": "/binaryMediaTypes", "value": types });
        let patch = json!({ "patchOperations": [replace] });
        self.api_gateway("PATCH", &format!("/restapis/{id}"), &patch)?;
        let responses = &body["x-amazon-apigateway-gateway-responses"];
        for (name, response) in responses.as_object().context("gateway responses")? {
            let mut response = response.clone();
            response["statusCode"] = response["statusCode"].to_string().trim_matches('"').into();
            self.api_gateway("PUT", &format!("/restapis/{id}/gatewayresponses/{name}"), &response)?;
        }
        self.api_gateway("POST", &format!("/restapis/{id}/deployments"), &json!({ "stageName": "live" }))
    }

    fn api_gateway(&self, method: &str, path: &str, body: &Value) -> anyhow::Result<()> {
        self.ask("apigateway", method, path, "application/json", None, &body.to_string()).map(drop)
    }

    fn cloudformation(&self, body: &str) -> anyhow::Result<String> {
        let body = format!("{body}&Version=2010-05-15");
        self.ask("cloudformation", "POST", "/", "application/x-www-form-urlencoded", None, &body)
    }

    /// Runs a function and waits for its answer.
    pub(super) fn invoke(&self, function: &str, event: &Value) -> anyhow::Result<Value> {
        let path = format!("/2015-03-31/functions/{function}/invocations");
        let text = self.ask("lambda", "POST", &path, "application/json", None, &event.to_string())?;
        let answer: Value = serde_json::from_str(&text).with_context(|| format!("{function}: {text}"))?;
        ensure!(answer["errorMessage"].is_null(), "{function}: {answer}");
        Ok(answer)
    }

    /// A call of AWS's JSON protocol, as the account's owner: `AWSGlue.GetTable`.
    pub(super) fn call(&self, service: &str, target: &str, input: &Value) -> anyhow::Result<Value> {
        let json = "application/x-amz-json-1.1";
        let text = self.ask(service, "POST", "/", json, Some(target), &input.to_string())?;
        serde_json::from_str(&text).with_context(|| format!("{target}: {text}"))
    }

    /// An object, as the account's owner reads it.
    pub(super) fn object(&self, bucket: &str, key: &str) -> anyhow::Result<Vec<u8>> {
        self.exchange("s3", "GET", &object_path(bucket, key), "application/octet-stream", None, &[])
    }

    /// Writes over an object, as the account's owner may.
    pub(super) fn put_object(&self, bucket: &str, key: &str, bytes: &[u8]) -> anyhow::Result<()> {
        self.exchange("s3", "PUT", &object_path(bucket, key), "application/octet-stream", None, bytes)
            .map(drop)
    }

    fn ask(
        &self,
        service: &str,
        method: &str,
        path: &str,
        content_type: &str,
        target: Option<&str>,
        body: &str,
    ) -> anyhow::Result<String> {
        let answer = self.exchange(service, method, path, content_type, target, body.as_bytes())?;
        String::from_utf8(answer).with_context(|| format!("{service} {method} {path}: no text"))
    }

    fn exchange(
        &self,
        service: &str,
        method: &str,
        path: &str,
        content_type: &str,
        target: Option<&str>,
        body: &[u8],
    ) -> anyhow::Result<Vec<u8>> {
        let host = format!("127.0.0.1:{}", self.port);
        let mut request = Request::builder().method(method).uri(format!("http://{host}{path}"));
        request = request.header("content-type", content_type);
        for (name, value) in sign::headers(service, method, &host, path, body) {
            request = request.header(name, value);
        }
        if let Some(target) = target {
            request = request.header("x-amz-target", target);
        }
        let answer = match method {
            "GET" => self.agent.run(request.body(())?),
            _ => self.agent.run(request.body(body.to_vec())?),
        };
        let mut answer = answer?;
        let bytes = answer.body_mut().read_to_vec()?;
        if !answer.status().is_success() {
            let text = String::from_utf8_lossy(&bytes);
            bail!("{service} {method} {path}: {} {text}", answer.status());
        }
        Ok(bytes)
    }

    /// What the functions logged, and the emulator's last words.
    pub(super) fn print_logs(&self, place: &Path) {
        for function in super::FUNCTIONS {
            let group = format!("/aws/lambda/quipu-{function}");
            let body = json!({ "logGroupName": group }).to_string();
            let target = Some("Logs_20140328.FilterLogEvents");
            match self.ask("logs", "POST", "/", "application/x-amz-json-1.1", target, &body) {
                Ok(text) => {
                    let answer: Value = serde_json::from_str(&text).unwrap_or_default();
                    eprintln!("--- log of {function}");
                    for event in answer["events"].as_array().into_iter().flatten() {
                        eprintln!("{}", event["message"].as_str().unwrap_or_default().trim_end());
                    }
                }
                Err(error) => eprintln!("--- no log of {function}: {error:#}"),
            }
        }
        eprintln!("--- log of the emulator\n{}", self.log(place));
    }

    fn log(&self, place: &Path) -> String {
        let text = fs::read_to_string(place.join("ministack.log")).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // SIGTERM lets it end the functions' processes; whatever is left after that is killed.
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let started = Instant::now();
        while started.elapsed() < END_PATIENCE {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            sleep(Duration::from_millis(50));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The emulator's address and owner, and none of the caller's own credentials.
fn credentials(command: &mut Command, port: u16) {
    for name in ["AWS_PROFILE", "AWS_SESSION_TOKEN"] {
        command.env_remove(name);
    }
    for service in ["DYNAMODB", "KMS", "S3", "SQS"] {
        command.env_remove(format!("AWS_ENDPOINT_URL_{service}"));
    }
    command
        .env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}"))
        .env("AWS_ACCESS_KEY_ID", sign::ACCESS_KEY)
        .env("AWS_SECRET_ACCESS_KEY", sign::SECRET_KEY)
        .env("AWS_REGION", REGION)
        .env("AWS_DEFAULT_REGION", REGION)
        .env("AWS_CONFIG_FILE", "/dev/null")
        .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
        .env("AWS_EC2_METADATA_DISABLED", "true");
}

/// An object's place in the request line: a key of the archive has `=` beside what needs no escape.
fn object_path(bucket: &str, key: &str) -> String {
    format!("/{bucket}/{}", key.replace('=', "%3D"))
}

fn between<'t>(text: &'t str, start: &str, end: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(start)?;
    rest.split_once(end).map(|(found, _)| found)
}

/// The entities that the emulator writes.
fn unescape(xml: &str) -> String {
    let quotes = [("&quot;", "\""), ("&#34;", "\""), ("&#x27;", "'"), ("&#39;", "'"), ("&apos;", "'")];
    let rest = [("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")];
    quotes.into_iter().chain(rest).fold(xml.to_owned(), |text, (entity, plain)| text.replace(entity, plain))
}
