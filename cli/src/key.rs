//! `quipu key`: the public keys, for whoever wants to verify without trusting the server.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::json;

use crate::args::ConnectArgs;
use crate::client::{Client, Request};
use crate::output::print;

/// Arguments of `quipu key`.
#[derive(Debug, Args)]
pub(crate) struct KeyArgs {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// The log's verifier key, the root of trust: what `quipu verify --key` takes
    #[command(after_help = "\
Example:
  quipu key show > log.pub       fetch it once, keep it elsewhere, and verify with it")]
    Show(ShowArgs),
    /// The log key's certificates of the keys that sign receipts
    Certificates(ShowArgs),
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Deserialize)]
struct Keys {
    deployment: String,
    log_key: String,
    certificates: Vec<String>,
}

/// Runs it.
pub(crate) fn run(args: &KeyArgs) -> anyhow::Result<ExitCode> {
    let (KeyCommand::Show(show) | KeyCommand::Certificates(show)) = &args.command;
    let reply = Client::connect(&show.connect)?.ask(&Request::get(&["v1", "log", "key"]))?;
    let keys: Keys = serde_json::from_str(&reply).context("the answer holds no keys")?;
    let text = match (&args.command, show.json) {
        (KeyCommand::Show(_), false) => keys.log_key,
        (KeyCommand::Show(_), true) => {
            json!({ "deployment": keys.deployment, "log_key": keys.log_key }).to_string()
        }
        // Each ends in a line feed; an empty line stands between them.
        (KeyCommand::Certificates(_), false) => keys.certificates.join("\n"),
        (KeyCommand::Certificates(_), true) => json!(keys.certificates).to_string(),
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}
