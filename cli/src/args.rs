//! The command line as a whole. Each command's own arguments stand with the command.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::settings::{self, FileSettings, StoreSettings};
use crate::{archive, erase, export, import, key, query, rebuild, send, serve, tail, tenant, token, verify};

const EXAMPLES: &str = "\
Examples:
  quipu                                        start the ledger on 127.0.0.1:3400, data in ./quipu-data
  quipu send --session s1 --agent me --type note.made --payload '{\"text\":\"hello\"}'
  quipu import events.ndjson.gz                resumable: run it again and it goes on
  quipu tail -f                                watch what comes in
  quipu query --type tool_error --from 2026-02-07
  quipu export --session s1 --out s1.ndjson    an evidence bundle
  quipu verify s1.ndjson --key log.pub         exit 0 VALID, 1 INVALID, 2 INCOMPLETE

Settings come from flags, then QUIPU_... variables, then quipu.toml in the current directory.";

/// A tamper-evident ledger of what AI agents did.
///
/// Without a command, starts the server.
#[derive(Debug, Parser)]
#[command(name = "quipu", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) serve: serve::ServeArgs,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start the ledger: one process, HTTP, on a data directory or a DynamoDB table.
    Serve(serve::ServeArgs),
    /// Send one event from flags, or many from standard input.
    Send(send::SendArgs),
    /// Send a file of events, one JSON object a line; goes on where it stopped.
    Import(import::ImportArgs),
    /// Show the newest events.
    Tail(tail::TailArgs),
    /// Find events.
    Query(query::QueryArgs),
    /// Write sessions to an evidence bundle that verifies offline.
    Export(export::ExportArgs),
    /// Recompute every hash of a data directory or an evidence bundle.
    Verify(verify::VerifyArgs),
    /// Make, list and revoke tokens.
    Token(token::TokenArgs),
    /// Make and list tenants.
    Tenant(tenant::TenantArgs),
    /// Show the ledger's public keys.
    Key(key::KeyArgs),
    /// Move what is not archived yet into the archive.
    Archive(archive::ArchiveArgs),
    /// Take the content of an event away; its place in the chain stays.
    Erase(erase::EraseArgs),
    /// Make a store that was lost again from its archive.
    Rebuild(rebuild::RebuildArgs),
}

/// Which store a command works on while no server does.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Which store")]
pub(crate) struct StoreArgs {
    /// The data directory [env: QUIPU_DATA] [default: ./quipu-data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// embedded: a data directory; aws: a DynamoDB table [env: QUIPU_STORE] [default: embedded]
    #[arg(long, value_name = "STORE", value_parser = ["embedded", "aws"])]
    pub(crate) store: Option<String>,
    /// With --store aws: the DynamoDB table [env: QUIPU_TABLE]
    #[arg(long, value_name = "NAME")]
    pub(crate) table: Option<String>,
    /// With --store aws: the KMS key that seals the receipt key [env: QUIPU_SEAL_KEY]
    #[arg(long, value_name = "KEY")]
    pub(crate) seal_key: Option<String>,
    /// With --store aws: the KMS key that is the log key [env: QUIPU_LOG_KEY]
    #[arg(long, value_name = "KEY")]
    pub(crate) log_key: Option<String>,
    /// With --store aws: the bucket of the archive [env: QUIPU_ARCHIVE_BUCKET]
    #[arg(long, value_name = "BUCKET")]
    pub(crate) archive_bucket: Option<String>,
    /// With --store aws: the bucket in which batches are staged [env: QUIPU_STAGING_BUCKET]
    #[arg(long, value_name = "BUCKET")]
    pub(crate) staging_bucket: Option<String>,
    /// The settings file [default: ./quipu.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

impl StoreArgs {
    /// Flags, environment and file put together.
    pub(crate) fn resolve(&self, file: FileSettings) -> anyhow::Result<StoreSettings> {
        let flags = self.clone();
        let flags = serve::ServeArgs {
            data: flags.data,
            store: flags.store,
            table: flags.table,
            seal_key: flags.seal_key,
            log_key: flags.log_key,
            archive_bucket: flags.archive_bucket,
            staging_bucket: flags.staging_bucket,
            ..serve::ServeArgs::default()
        };
        settings::resolve_store(&flags, &settings::environment, file)
    }
}

/// Which ledger a command speaks to.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Which ledger")]
pub(crate) struct ConnectArgs {
    /// A server, such as http://127.0.0.1:3400 [env: QUIPU_URL]
    #[arg(long, value_name = "URL", conflicts_with = "data")]
    pub(crate) url: Option<String>,
    /// The bearer token [env: QUIPU_TOKEN]
    #[arg(long, value_name = "TOKEN")]
    pub(crate) token: Option<String>,
    /// A data directory: the server that runs on it is asked, or else it is opened [env: QUIPU_DATA] [default:
    /// ./quipu-data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// The settings file [default: ./quipu.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}
