//! `cargo xtask coldstart`: what a function costs before and while it answers its first request.
//!
//! Each run is a new process under a runtime API of ours, with DynamoDB and KMS stand-ins behind relays on loopback;
//! there is no Lambda, no TLS and no network in the figures. The page says so.

mod aws;
mod function;
mod runtime_api;

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::bench::machine;
use crate::shell::{self, cargo, root, target};
use aws::Aws;
use function::Function;

#[derive(clap::Args)]
pub(crate) struct ColdstartArgs {
    /// Cold starts of each function.
    #[arg(long, default_value_t = 50)]
    runs: usize,
    /// The cargo profile to build and measure; what is deployed is `function`.
    #[arg(long, default_value = "function")]
    profile: String,
    /// Write docs/coldstart.md.
    #[arg(long)]
    write: bool,
}

/// From spawn to the first `GET …/next`, median, ms.
const INIT_MS_AIM: f64 = 10.0;

/// The stripped `ingest` binary, MB: a cold start has to load it.
const INGEST_MB_AIM: f64 = 8.0;

/// Requests after the first, in each process.
const WARM_REQUESTS: usize = 10;

const SECRET: &str = "coldstart-bootstrap-secret";

/// What each function is asked, first and warm, and the status that it gives.
struct Subject {
    name: &'static str,
    asked: &'static str,
    event: Value,
    status: u64,
}

pub(crate) fn run(args: &ColdstartArgs) -> anyhow::Result<()> {
    let mut build = cargo();
    build.args(["build", "--profile", &args.profile]);
    build.args(["--package", "quipu-ingest", "--package", "quipu-query", "--package", "quipu-tokens"]);
    shell::run("build the functions", &mut build)?;
    let binaries = target().join(if args.profile == "dev" { "debug" } else { &args.profile });
    let scratch = target().join("coldstart");
    let _ = std::fs::remove_dir_all(&scratch);
    std::fs::create_dir_all(&scratch)?;

    let aws = Aws::start(&scratch)?;
    let token = bootstrap(&binaries, &aws, &scratch)?;
    let mut measured = Vec::new();
    for subject in subjects(&token)? {
        eprintln!("--- {}, {} times", subject.name, args.runs);
        measured.push(measure(&subject, &binaries, &aws, &scratch, args.runs)?);
    }
    let page = page(&measured, args);
    println!("{page}");
    if args.write {
        std::fs::write(root().join("docs/coldstart.md"), &page)?;
    }
    std::fs::remove_dir_all(&scratch)?;
    Ok(())
}

/// The settings of one function: `tokens` alone has the secret and the log key.
fn settings(name: &str, aws: &Aws) -> Vec<(String, String)> {
    let mut settings = aws.settings.clone();
    if name == "tokens" {
        settings.push(("QUIPU_BOOTSTRAP_SECRET".to_owned(), SECRET.to_owned()));
    } else {
        settings.retain(|(name, _)| name != "QUIPU_LOG_KEY");
    }
    settings.push(("AWS_LAMBDA_HTTP_IGNORE_STAGE_IN_PATH".to_owned(), "true".to_owned()));
    settings
}

fn start(name: &str, binaries: &Path, aws: &Aws, scratch: &Path) -> anyhow::Result<Function> {
    let binary = binaries.join(format!("quipu-{name}"));
    Function::start(&binary, &settings(name, aws), &scratch.join("function.log"))
}

/// Makes the deployment's identity and its first token, as its user would.
fn bootstrap(binaries: &Path, aws: &Aws, scratch: &Path) -> anyhow::Result<String> {
    let event = recorded(include_str!("../../../tests/events/tokens/rest.json"), SECRET)?;
    let (_, answer) = start("tokens", binaries, aws, scratch)?.invoke(&event)?;
    let body = answer["body"].as_str().unwrap_or_default();
    ensure!(answer["statusCode"] == 201, "the first token: {answer}");
    let made: Value = serde_json::from_str(body)?;
    Ok(made["token"].as_str().context("a token")?.to_owned())
}

fn subjects(token: &str) -> anyhow::Result<[Subject; 3]> {
    let mut append = recorded(include_str!("../../../tests/events/ingest/rest.json"), token)?;
    for headers in ["headers", "multiValueHeaders"] {
        // Every run appends.
        append[headers].as_object_mut().context("headers")?.remove("Idempotency-Key");
    }
    let list = recorded(include_str!("../../../tests/events/query/rest.json"), token)?;
    let mut tokens = recorded(include_str!("../../../tests/events/tokens/rest.json"), token)?;
    tokens["httpMethod"] = json!("GET");
    tokens["requestContext"]["httpMethod"] = json!("GET");
    tokens["body"] = Value::Null;
    Ok([
        Subject { name: "ingest", asked: "append one event", event: append, status: 201 },
        Subject { name: "query", asked: "list 5 events of an agent by search", event: list, status: 200 },
        Subject { name: "tokens", asked: "list tokens", event: tokens, status: 200 },
    ])
}

/// A recorded event with its credential.
fn recorded(text: &str, credential: &str) -> anyhow::Result<Value> {
    Ok(serde_json::from_str(&text.replace("{credential}", credential))?)
}

/// What was seen of one function. Times are sorted, ms; memory is the most of any run, MiB.
struct Measured {
    name: &'static str,
    asked: &'static str,
    megabytes: f64,
    init: Vec<f64>,
    first: Vec<f64>,
    warm: Vec<f64>,
    init_mib: f64,
    first_mib: f64,
    /// Connections opened for the first request: to DynamoDB, to KMS.
    connections: (usize, usize),
}

fn measure(
    subject: &Subject,
    binaries: &Path,
    aws: &Aws,
    scratch: &Path,
    runs: usize,
) -> anyhow::Result<Measured> {
    let binary = binaries.join(format!("quipu-{}", subject.name));
    let mut this = Measured {
        name: subject.name,
        asked: subject.asked,
        megabytes: std::fs::metadata(&binary)?.len() as f64 / 1e6,
        init: Vec::new(),
        first: Vec::new(),
        warm: Vec::new(),
        init_mib: 0.0,
        first_mib: 0.0,
        connections: (0, 0),
    };
    for _ in 0..runs {
        let before = aws.connections();
        let function = start(subject.name, binaries, aws, scratch)?;
        this.init_mib = this.init_mib.max(function.peak_kib()? as f64 / 1024.0);
        ensure!(aws.connections() == before, "{} called AWS before its first event", subject.name);
        this.init.push(function.init.as_secs_f64() * 1e3);
        for request in 0..=WARM_REQUESTS {
            let (took, answer) = function.invoke(&subject.event)?;
            ensure!(answer["statusCode"] == subject.status, "{}: {answer}", subject.name);
            let times = if request == 0 { &mut this.first } else { &mut this.warm };
            times.push(took.as_secs_f64() * 1e3);
            if request == 0 {
                let after = aws.connections();
                this.connections = (after.0 - before.0, after.1 - before.1);
                this.first_mib = this.first_mib.max(function.peak_kib()? as f64 / 1024.0);
            }
        }
    }
    for times in [&mut this.init, &mut this.first, &mut this.warm] {
        times.sort_by(f64::total_cmp);
    }
    Ok(this)
}

/// The value below which `percent` of the sorted values lie.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    sorted
        .get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or(f64::NAN)
}

fn page(measured: &[Measured], args: &ColdstartArgs) -> String {
    let mut out = String::from("# Cold starts\n\n");
    let _ = writeln!(
        out,
        "The last run of `cargo xtask coldstart --write`: {} processes of each function (cargo profile `{}`), one at a \
         time, on {}. DynamoDB and KMS are stand-ins on loopback, without TLS; Lambda's own share (sandbox, download, \
         network) is not in here.\n",
        args.runs,
        args.profile,
        machine::processor(),
    );
    out.push_str("| function | stripped, MB | init ms: least | median | p90 | first answer ms: least | median | p90 | warm ms: median | resident MiB: after init | after the first request |\n");
    out.push_str("|---|---|---|---|---|---|---|---|---|---|---|\n");
    for m in measured {
        let three = |times: &[f64]| {
            format!(
                "{:.2} | {:.2} | {:.2}",
                percentile(times, 0),
                percentile(times, 50),
                percentile(times, 90)
            )
        };
        let _ = writeln!(
            out,
            "| {} | {:.2} | {} | {} | {:.2} | {:.1} | {:.1} |",
            m.name,
            m.megabytes,
            three(&m.init),
            three(&m.first),
            percentile(&m.warm, 50),
            m.init_mib,
            m.first_mib,
        );
    }
    out.push_str(
        "\nInit is from spawn to the first `GET …/invocation/next`; an answer is from an event handed out to its \
         response posted; resident is the most of any run (VmHWM). No function opened a connection to DynamoDB or KMS \
         before its first event: the run fails if one does. Asked, first and warm:\n\n",
    );
    for m in measured {
        let (dynamodb, kms) = m.connections;
        let _ = writeln!(
            out,
            "- {}: {}. Connections for the first: {dynamodb} to DynamoDB, {kms} to KMS.",
            m.name, m.asked
        );
    }
    out.push_str("\n| aim | measured | |\n|---|---|---|\n");
    let mut aim = |what: String, value: f64, most: f64, unit: &str| {
        let mark = if value <= most { "met" } else { "**missed**" };
        let _ = writeln!(out, "| {what} at most {most} {unit} | {value:.2} {unit} | {mark} |");
    };
    for m in measured {
        aim(format!("{} init, median,", m.name), percentile(&m.init, 50), INIT_MS_AIM, "ms");
        if m.name == "ingest" {
            aim("ingest, stripped,".to_owned(), m.megabytes, INGEST_MB_AIM, "MB");
        }
    }
    out
}
