//! `quipu archive`: close the open batch now.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde::Deserialize;

use crate::args::ConnectArgs;
use crate::client::{Client, Request};
use crate::output::{count, harmless, print};

/// How long a server may take: as long as it goes on with one request, and a little.
const PATIENCE: Duration = Duration::from_secs(11 * 60);

/// Arguments of `quipu archive`.
#[derive(Debug, Args)]
pub(crate) struct ArchiveArgs {
    #[command(subcommand)]
    command: ArchiveCommand,
}

#[derive(Debug, Subcommand)]
enum ArchiveCommand {
    /// Move everything that is not archived into the archive, without waiting for the batch to fill
    #[command(after_help = "\
Examples:
  quipu archive now
  quipu archive now --tenant acme --json

Asks the server that runs on the data directory, or does it itself. Exit code 0 only if everything was archived.")]
    Now(NowArgs),
}

#[derive(Debug, Args)]
struct NowArgs {
    /// One tenant [default: all]
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// The reply as it came
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Deserialize)]
struct Done {
    tenants: Vec<Tenant>,
}

#[derive(Deserialize)]
struct Tenant {
    tenant: String,
    batches: Vec<Batch>,
    broken: Vec<Broken>,
}

#[derive(Deserialize)]
struct Batch {
    batch: u64,
    events: u64,
    bytes: u64,
    tree_size: u64,
}

#[derive(Deserialize)]
struct Broken {
    session_id: String,
    sequence: u64,
    why: String,
}

/// Runs it.
pub(crate) fn run(args: &ArchiveArgs) -> anyhow::Result<ExitCode> {
    let ArchiveCommand::Now(now) = &args.command;
    let client = Client::connect(&now.connect)?;
    let request = Request::post(&["v1", "archive"], "").parameter("tenant", now.tenant.as_deref());
    let request = request.patient(PATIENCE);
    let reply = client.ask(&request)?;
    let done: Done = serde_json::from_str(&reply).context("the answer does not say what was archived")?;
    let mut sound = true;
    let mut lines = Vec::new();
    for tenant in &done.tenants {
        for batch in &tenant.batches {
            let (events, leaves) = (count(batch.events, "event"), batch.tree_size);
            let bytes = batch.bytes;
            lines.push(format!(
                "{}: batch {} closed: {events}, {bytes} bytes of Parquet, the log has {leaves} leaves",
                tenant.tenant, batch.batch
            ));
        }
        for broken in &tenant.broken {
            sound = false;
            let session = harmless(&broken.session_id);
            eprintln!(
                "error: {}: session {session:?} is broken at sequence {}: {}",
                tenant.tenant,
                broken.sequence,
                harmless(&broken.why)
            );
        }
    }
    if lines.is_empty() {
        lines.push("nothing to archive".to_owned());
    }
    print(&if now.json { reply.trim_end().to_owned() } else { lines.join("\n") })?;
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
