//! `quipu erase`: take the content of an event away.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use serde::Deserialize;
use serde_json::json;

use crate::args::ConnectArgs;
use crate::client::{Client, Request};
use crate::output::{harmless, print};

/// Arguments of `quipu erase`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quipu erase 0198f3c2-… --reason 'a name, asked for by its owner'
  quipu archive now && quipu erase 0198f3c2-…     # again, to see what is left

The event stays in its chain, with a tombstone that says who asked and why. Payload and metadata go: at once from the
hot tier, with the archiver's next run from the archive. Backups of the directory are yours to delete.")]
pub(crate) struct EraseArgs {
    /// The event
    #[arg(value_name = "EVENT_ID")]
    event: String,
    /// Why; it stands in the tombstone for ever
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// The server's reply as it came
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Deserialize)]
struct Erasure {
    event_id: String,
    state: String,
    tombstone_event_id: Option<String>,
    left: Vec<Left>,
}

#[derive(Deserialize)]
struct Left {
    r#where: String,
    until: Option<String>,
    note: String,
}

/// Runs it.
pub(crate) fn run(args: &EraseArgs) -> anyhow::Result<ExitCode> {
    let client = Client::connect(&args.connect)?;
    let body = json!({ "reason": args.reason }).to_string();
    let reply = client.ask(&Request::delete(&["v1", "events", &args.event, "content"]).json(&body))?;
    if args.json {
        print(&reply)?;
        return Ok(ExitCode::SUCCESS);
    }
    let erasure: Erasure = serde_json::from_str(&reply).context("the answer is no erasure")?;
    let tombstone =
        erasure.tombstone_event_id.as_deref().map_or(String::new(), |id| format!(", by event {id}"));
    let done = if erasure.state == "done" { "erased" } else { "being erased" };
    print(&harmless(&format!("{}  {done}{tombstone}", erasure.event_id)))?;
    for left in &erasure.left {
        let until = left.until.as_deref().map_or(String::new(), |until| format!(" until {until}"));
        print(&harmless(&format!("  left: {}{until} ({})", left.r#where, left.note)))?;
    }
    Ok(ExitCode::SUCCESS)
}
