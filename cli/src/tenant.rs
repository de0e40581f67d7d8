//! `quipu tenant`: make and list tenants.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::json;

use crate::args::ConnectArgs;
use crate::client::{Client, Request};
use crate::output::{print, table};

/// Arguments of `quipu tenant`.
#[derive(Debug, Args)]
pub(crate) struct TenantArgs {
    #[command(subcommand)]
    command: TenantCommand,
}

#[derive(Debug, Subcommand)]
enum TenantCommand {
    /// Make a tenant
    #[command(after_help = "\
Example:
  quipu tenant create acme && quipu token create --tenant acme --scope '*'")]
    Create {
        /// Its name: 1 to 63 of a-z, 0-9 and -
        #[arg(value_name = "NAME")]
        name: String,
        /// The server's reply as it came
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        connect: ConnectArgs,
    },
    /// List tenants
    List {
        /// The server's reply as it came
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        connect: ConnectArgs,
    },
}

#[derive(Deserialize)]
struct Tenant {
    tenant: String,
    created_at: String,
}

/// Runs it.
pub(crate) fn run(args: &TenantArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        TenantCommand::Create { name, json, connect } => {
            let body = json!({ "tenant": name }).to_string();
            let reply = Client::connect(connect)?.ask(&Request::post(&["v1", "tenants"], &body))?;
            if *json {
                print(&reply)?;
            } else {
                print(&format!(
                    "made the tenant {name}\nnext: quipu token create --tenant {name} --scope '*'"
                ))?;
            }
        }
        TenantCommand::List { json, connect } => {
            let reply = Client::connect(connect)?.ask(&Request::get(&["v1", "tenants"]))?;
            if *json {
                print(&reply)?;
            } else {
                let tenants: Vec<Tenant> =
                    serde_json::from_str(&reply).context("the answer is no list of tenants")?;
                let rows: Vec<_> = tenants.into_iter().map(|t| vec![t.tenant, t.created_at]).collect();
                print(&table(&["tenant", "created"], &rows))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
