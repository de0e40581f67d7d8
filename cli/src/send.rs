//! `quipu send`: one event from flags, or events from standard input.

use std::io::{BufReader, Read as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use quipu_core::dialect::render::quote;
use quipu_core::ids::hex;
use quipu_core::{limits, random};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::args::ConnectArgs;
use crate::client::{Answer, Client, Request, Retry, send_patiently};
use crate::failure::hinted;
use crate::import::lines::{Cut, Lines};
use crate::output::{Out, harmless};
use crate::receipts::LineFile;

/// How long a server that is busy or away is tried.
const PATIENCE: Duration = Duration::from_secs(20);

/// Arguments of `quipu send`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quipu send --session s1 --agent me --type note.made --payload '{\"text\":\"hello\"}'
  quipu send --session s1 --agent me --type report.filed --payload @report.json --severity warn
  echo hello | jq -R '{text:.}' | quipu send --session s1 --agent me --type note.made --payload -
  quipu send - < events.ndjson          one event a line, as POST /v1/events takes them")]
pub(crate) struct SendArgs {
    /// `-`: read events from standard input, one JSON object a line
    #[arg(value_name = "-", value_parser = ["-"])]
    input: Option<String>,
    #[command(flatten)]
    event: EventArgs,
    /// Sending again with the same key within 24 h stores nothing twice
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Add the server's replies, with their receipts, to this file
    #[arg(long, value_name = "FILE")]
    receipt: Option<PathBuf>,
    /// The server's reply as it came
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "The event")]
struct EventArgs {
    /// Its session
    #[arg(long, value_name = "ID", required_unless_present = "input", conflicts_with = "input")]
    session: Option<String>,
    /// Its agent
    #[arg(long, value_name = "ID", required_unless_present = "input", conflicts_with = "input")]
    agent: Option<String>,
    /// Its type, such as tool_call or note.made
    #[arg(long = "type", value_name = "TYPE", required_unless_present = "input", conflicts_with = "input")]
    event_type: Option<String>,
    /// Its payload: JSON, @FILE, or - for standard input
    #[arg(long, value_name = "JSON|@FILE|-", required_unless_present = "input", conflicts_with = "input")]
    payload: Option<String>,
    /// debug, info, warn, error or critical
    #[arg(long, value_name = "SEVERITY", conflicts_with = "input")]
    severity: Option<String>,
    /// A JSON object, or @FILE
    #[arg(long, value_name = "JSON|@FILE", conflicts_with = "input")]
    metadata: Option<String>,
    /// Your own id for it
    #[arg(long, value_name = "ID", conflicts_with = "input")]
    source_id: Option<String>,
    /// When it happened, RFC 3339 [default: when the server takes it in]
    #[arg(long, value_name = "TIME", conflicts_with = "input")]
    timestamp: Option<String>,
    /// Its compliance tag
    #[arg(long, value_name = "TAG", conflicts_with = "input")]
    tag: Option<String>,
}

impl EventArgs {
    /// The event as one line of JSON.
    fn line(&self) -> anyhow::Result<String> {
        let mut out = String::from("{");
        let texts = [
            ("session_id", &self.session),
            ("agent_id", &self.agent),
            ("event_type", &self.event_type),
            ("severity", &self.severity),
            ("source_id", &self.source_id),
            ("timestamp", &self.timestamp),
            ("compliance_tag", &self.tag),
        ];
        let mut push = |name: &str, value: &str| {
            let comma = if out.len() > 1 { "," } else { "" };
            out.push_str(&format!("{comma}\"{name}\":{value}"));
        };
        for (name, value) in texts {
            if let Some(value) = value {
                push(name, &quote(value));
            }
        }
        for (name, value) in [("payload", &self.payload), ("metadata", &self.metadata)] {
            if let Some(value) = value {
                push(name, &json_argument(name, value)?);
            }
        }
        out.push('}');
        Ok(out)
    }
}

/// JSON from the command line, a file or standard input; kept as written, on one line.
fn json_argument(name: &str, value: &str) -> anyhow::Result<String> {
    let text = match value {
        "-" => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
            text
        }
        _ => match value.strip_prefix('@') {
            Some(file) => std::fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?,
            None => value.to_owned(),
        },
    };
    serde_json::from_str::<&RawValue>(&text).with_context(|| {
        hinted(
            format!("--{name} is not JSON"),
            "a text is JSON in double quotes: '\"hello\"'; @FILE reads a file",
        )
    })?;
    // A line feed inside a string is not JSON, so these stand between tokens.
    Ok(text.trim().replace(['\n', '\r'], " "))
}

/// Runs it.
pub(crate) fn run(args: &SendArgs) -> anyhow::Result<ExitCode> {
    let client = Client::connect(&args.connect)?;
    let mut receipts = args.receipt.as_deref().map(LineFile::open).transpose()?;
    let mut out = Out::new();
    if args.input.is_none() {
        let line = args.event.line()?;
        let key = args.idempotency_key.clone().unwrap_or_else(random_key);
        let reply = append(&client, line.as_bytes(), &key)?;
        show(&mut out, &reply, args.json, receipts.as_mut())?;
        return Ok(ExitCode::SUCCESS);
    }
    let run_key = args.idempotency_key.clone().unwrap_or_else(random_key);
    let mut lines = Lines::new(Box::new(BufReader::new(std::io::stdin())), 0, 1);
    let cut = Cut { events_max: limits::BATCH_EVENTS_MAX, ..Cut::default() };
    let mut number = 0u32;
    loop {
        let batch = lines.take(&cut)?;
        let (Some(first), Some(last)) = (batch.first(), batch.last()) else { break };
        let body = crate::import::lines::join(batch.iter());
        // One key names one request: further batches get a key of their own.
        let key = if number == 0 { run_key.clone() } else { format!("{run_key}.{number}") };
        let place = || format!("lines {} to {} of standard input were not stored", first.number, last.number);
        let reply = append(&client, &body, &key).with_context(place)?;
        show(&mut out, &reply, args.json, receipts.as_mut())?;
        number += 1;
    }
    anyhow::ensure!(number > 0, "standard input holds no events");
    Ok(ExitCode::SUCCESS)
}

fn random_key() -> String {
    format!("send-{}", hex(&random::bytes::<16>()))
}

fn append(client: &Client, body: &[u8], key: &str) -> anyhow::Result<String> {
    let request = Request::post_lines(&["v1", "events"], body);
    // In this process an answer cannot be lost, and a key would only cost room in the ledger.
    let key = (client.is_remote() || !key.starts_with("send-")).then_some(key);
    let tell = |line: &str| eprintln!("warning: {line}");
    match send_patiently(client, &request.keyed(key), Retry { patience: PATIENCE }, &tell)? {
        Answer::Accepted(reply) => reply.text(),
        Answer::Refused(failure) => Err(failure.into()),
    }
}

#[derive(Deserialize)]
struct Reply {
    events: Vec<Placed>,
}

#[derive(Deserialize)]
struct Placed {
    event_id: String,
    session_id: String,
    sequence: u64,
    hash: String,
}

fn show(out: &mut Out, reply: &str, json: bool, receipts: Option<&mut LineFile>) -> anyhow::Result<()> {
    // The receipt first: what is shown can be asked for again, a receipt cannot.
    if let Some(file) = receipts {
        file.add(reply.as_bytes())?;
    }
    if json {
        out.line(reply)?;
    } else {
        let read: Reply =
            serde_json::from_str(reply).context("the reply to an append is of an unknown shape")?;
        for event in read.events {
            let session = harmless(&event.session_id);
            out.line(&format!("{}  {session}  {}  {}", event.event_id, event.sequence, event.hash))?;
        }
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use quipu_core::dialect::{intake, native};

    #[test]
    fn p7_an_event_from_flags_keeps_its_payload() {
        let event = EventArgs {
            session: Some("s \"1\"".into()),
            agent: Some("a".into()),
            event_type: Some("note.made".into()),
            payload: Some("{\n\"n\": 9007199254740993}".into()),
            severity: Some("warn".into()),
            metadata: None,
            source_id: None,
            timestamp: None,
            tag: Some("t".into()),
        };
        let line = event.line().unwrap();
        let read = intake::read_lines(&line, &native::NAMES).unwrap();
        assert_eq!(read.len(), 1);
        assert_eq!(read[0].payload, r#"{"n":9007199254740993}"#);
        let broken = EventArgs { payload: Some("1},{\"x\":1".into()), ..event };
        assert!(broken.line().unwrap_err().to_string().contains("--payload is not JSON"));
    }
}
