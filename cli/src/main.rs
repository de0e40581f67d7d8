//! `quipu`: the ledger in one process, and the command line that speaks to it.
//!
//! Commands write what they were asked for to standard output, and everything else (progress, warnings, errors) to
//! standard error, so that they work in pipes. Exit codes: 0 done, 1 failed, 2 wrong usage (and for `verify`:
//! INCOMPLETE).

mod archive;
mod args;
mod client;
mod erase;
mod event_view;
mod export;
mod failure;
mod import;
mod key;
mod local;
mod output;
mod query;
mod rebuild;
mod receipts;
mod send;
mod serve;
mod settings;
mod tail;
mod tenant;
mod time_arg;
mod token;
mod verify;

use std::process::ExitCode;

use clap::Parser as _;

use args::{Cli, Command};

fn main() -> ExitCode {
    // clap prints its own help and usage errors, and exits with 2 for the latter.
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(error) => failure::report(&error),
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let command = cli.command.unwrap_or(Command::Serve(cli.serve));
    match command {
        Command::Serve(args) => serve::run(args),
        Command::Send(args) => send::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Tail(args) => tail::run(&args),
        Command::Query(args) => query::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Token(args) => token::run(&args),
        Command::Tenant(args) => tenant::run(&args),
        Command::Key(args) => key::run(&args),
        Command::Archive(args) => archive::run(&args),
        Command::Erase(args) => erase::run(&args),
        Command::Rebuild(args) => rebuild::run(&args),
    }
}
