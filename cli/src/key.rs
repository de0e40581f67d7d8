//! `quipu key`: the public keys, for whoever wants to verify without trusting the server; and making and replacing
//! private ones.

mod new;
mod rotate;

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
    /// The log keys' certificates of the keys that sign receipts
    Certificates(ShowArgs),
    /// Make a private key, such as a witness's
    New(new::NewArgs),
    /// Replace a private key of a data directory that no server runs on
    Rotate(rotate::RotateArgs),
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
    /// A server of before rotations says nothing of them.
    #[serde(default)]
    rotations: Vec<String>,
}

/// Runs it.
pub(crate) fn run(args: &KeyArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        KeyCommand::Show(show) => {
            let keys = fetch(show)?;
            let (deployment, log_key) = (keys.deployment, keys.log_key);
            print(&match show.json {
                false => log_key,
                true => json!({ "deployment": deployment, "log_key": log_key, "rotations": keys.rotations })
                    .to_string(),
            })?;
        }
        KeyCommand::Certificates(show) => {
            let certificates = fetch(show)?.certificates;
            print(&match show.json {
                // Each ends in a line feed; an empty line stands between them.
                false => certificates.join("\n"),
                true => json!(certificates).to_string(),
            })?;
        }
        KeyCommand::New(args) => new::run(args)?,
        KeyCommand::Rotate(args) => rotate::run(args)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn fetch(show: &ShowArgs) -> anyhow::Result<Keys> {
    let reply = Client::connect(&show.connect)?.ask(&Request::get(&["v1", "log", "key"]))?;
    serde_json::from_str(&reply).context("the answer holds no keys")
}
