//! `quipu verify`: the offline check of a bundle or a data directory, with a progress bar and an exit code.

use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use quipu_core::objects::{Directory, ObjectStore};
use quipu_core::store::embedded::{DataDir, DataDirError};
use quipu_core::verify::{
    Options, Report, verify_archive, verify_bundle, verify_bundle_file, verify_data_dir,
};
use serde::Deserialize;

use crate::args::ConnectArgs;
use crate::client::{Client, Request};
use crate::failure::hinted;
use crate::output::{count, harmless, print};
use crate::receipts;

/// How long a server may take to check itself.
const SERVER_PATIENCE: Duration = Duration::from_secs(60 * 60);
/// How often the bar moves by itself.
const TICK: Duration = Duration::from_millis(200);
/// Exit code of INCOMPLETE.
const INCOMPLETE: u8 = 2;

/// Arguments of `quipu verify`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quipu verify quipu-data                        a data directory that no server runs on
  quipu verify case-7.ndjson --key log.pub       an evidence bundle, with the ledger's key (quipu key show)
  quipu verify quipu-data --receipt receipts.json --checkpoint kept.checkpoint
  quipu verify copy-of-archive --key log.pub     an archive alone: a folder with log/ and events/
  quipu verify s3://my-archive --key log.pub     the same in a bucket (a build with --features aws)
  gunzip -c case-7.ndjson.gz | quipu verify - --key log.pub

Exit code 0: VALID. 1: INVALID, with the first bad place. 2: INCOMPLETE: nothing wrong was found, but not everything
could be checked (a bundle without --key, a receipt whose session is not there, a file that cannot be read).")]
pub(crate) struct VerifyArgs {
    /// A data directory, an archive (a folder, or s3://BUCKET), an evidence bundle, or `-` for a bundle on standard
    /// input
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// The log's verifier key, kept outside
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Receipts kept outside: a reply to an append, a list of receipts, or one receipt; may be given again
    #[arg(long, value_name = "FILE")]
    receipt: Vec<PathBuf>,
    /// Checkpoints kept outside, a file each: of these sizes the log must still be what it was; may be given again
    #[arg(long, value_name = "FILE")]
    checkpoint: Vec<PathBuf>,
    /// Threads that check a directory [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
    /// No progress bar
    #[arg(long, short)]
    quiet: bool,
    /// The report as JSON
    #[arg(long)]
    json: bool,
    /// The token for a server that runs on the directory [env: QUIPU_TOKEN]
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
}

/// Runs it.
pub(crate) fn run(args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let mut options = Options::read(args.key.as_deref(), &[]);
    for path in &args.receipt {
        match receipts::read_file(path) {
            Ok(receipts) => options.receipts.extend(receipts),
            // The check goes on: it may still find something INVALID.
            Err(error) => {
                options.unreadable.get_or_insert(format!("{error:#}"));
            }
        }
    }
    options.read_checkpoints(&args.checkpoint);
    options.now = Some(crate::time_arg::now());
    options.threads = args
        .threads
        .map_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get), usize::from);
    let bar = Bar::new(args);
    let report = if args.path == Path::new("-") {
        let input: Box<dyn Read> = Box::new(std::io::stdin().lock());
        verify_bundle(BufReader::with_capacity(256 * 1024, input), &options, &|read| bar.advance(read))
    } else if let Some(bucket) = bucket(&args.path) {
        check_bucket(bucket, &options, &bar)?
    } else if is_archive(&args.path) {
        let objects = Directory::open_to_read(&args.path)
            .with_context(|| format!("cannot read {}", args.path.display()))?;
        check_archive(&objects, &options, &bar)?
    } else if args.path.is_dir() {
        // Asked first, so that a directory in use is not taken for one that cannot be read.
        if let Err(DataDirError::InUse { .. }) = DataDir::open(&args.path) {
            bar.finish();
            if let Some(code) = ask_server(args, &options)? {
                return Ok(code);
            }
        }
        verify_data_dir(&args.path, &options, &|read| bar.advance(read))
    } else {
        verify_bundle_file(&args.path, &options, &|read| bar.advance(read))
    };
    bar.finish();
    show(args, &report)?;
    Ok(ExitCode::from(report.verdict.exit_code()))
}

/// The bucket that `s3://BUCKET` names.
fn bucket(path: &Path) -> Option<&str> {
    path.to_str()?.strip_prefix("s3://").map(|name| name.trim_end_matches('/'))
}

/// True of an archive by itself: it has a log, and is no data directory.
fn is_archive(path: &Path) -> bool {
    path.join("log").is_dir() && !path.join("ledger.redb").exists()
}

fn check_archive(objects: &dyn ObjectStore, options: &Options, bar: &Bar) -> anyhow::Result<Report> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    Ok(runtime.block_on(verify_archive(objects, options, &|read| bar.advance(read))))
}

#[cfg(feature = "aws")]
fn check_bucket(bucket: &str, options: &Options, bar: &Bar) -> anyhow::Result<Report> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    runtime.block_on(async {
        let objects = quipu_core::objects::S3Bucket::new(&crate::serve::connect().await?, bucket);
        Ok(verify_archive(&objects, options, &|read| bar.advance(read)).await)
    })
}

#[cfg(not(feature = "aws"))]
fn check_bucket(bucket: &str, _: &Options, _: &Bar) -> anyhow::Result<Report> {
    let hint = "build one that does: cargo build --release --package quipu --features aws; or copy the bucket \
                (aws s3 sync) and verify the copy";
    Err(hinted(format!("this build of quipu cannot read s3://{bucket}"), hint).into())
}

fn show(args: &VerifyArgs, report: &Report) -> anyhow::Result<()> {
    if args.json {
        print(&serde_json::to_string(report).context("cannot write the report")?)
    } else {
        print(&harmless(&report.to_string()))
    }
}

/// What a running server's report says, as far as it is looked at here.
#[derive(Deserialize)]
struct ServersReport {
    verdict: String,
    code: Option<String>,
    session_id: Option<String>,
    sequence: Option<u64>,
    message: Option<String>,
    sessions: u64,
    events: u64,
    #[serde(default)]
    notes: Vec<String>,
}

/// A directory that a server runs on changes while one looks at it, so its server is asked. It is believed no more
/// than a server is: what was kept outside cannot be held against it here.
///
/// `None`: it was another command that held the directory, and has left it.
fn ask_server(args: &VerifyArgs, options: &Options) -> anyhow::Result<Option<ExitCode>> {
    let shown = args.path.display();
    let connect =
        ConnectArgs { data: Some(args.path.clone()), token: args.token.clone(), ..ConnectArgs::default() };
    let client = Client::connect(&connect)?;
    if !client.is_remote() {
        return Ok(None);
    }
    eprintln!(
        "{shown} is in use by a running server, which is asked to check itself. To check without trusting it, stop \
         it, or verify a copy, or export the sessions and verify the bundle."
    );
    let reply = client.send(&Request::get(&["v1", "verify"]).patient(SERVER_PATIENCE))?;
    if reply.status == 404 {
        let hint = "stop the server and run this again, or verify a copy of the directory";
        return Err(hinted("the running server cannot check itself", hint).into());
    }
    let text = reply.accepted()?.text()?;
    let report: ServersReport = serde_json::from_str(&text).context("the answer is no report")?;
    if args.json {
        print(&text)?;
    } else {
        print(&harmless(&describe(&report)))?;
    }
    let code = match report.verdict.as_str() {
        "INVALID" => 1,
        "VALID" if holds_anything(args, options) => {
            eprintln!(
                "INCOMPLETE: --key, --receipt and --checkpoint were not looked at; they need the directory at rest, or \
                 a bundle"
            );
            INCOMPLETE
        }
        "VALID" => 0,
        _ => INCOMPLETE,
    };
    Ok(Some(ExitCode::from(code)))
}

/// True if something that was kept outside is to be held against the directory.
fn holds_anything(args: &VerifyArgs, options: &Options) -> bool {
    args.key.is_some()
        || !options.receipts.is_empty()
        || !args.checkpoint.is_empty()
        || options.unreadable.is_some()
}

fn describe(report: &ServersReport) -> String {
    let mut text = format!("{}, as told by the running server:", report.verdict);
    if let Some(code) = &report.code {
        text.push_str(&format!(" code {code},"));
    }
    if let Some(session) = &report.session_id {
        text.push_str(&format!(" session {session:?},"));
    }
    if let Some(sequence) = report.sequence {
        text.push_str(&format!(" sequence {sequence},"));
    }
    let counts = format!("{}, {}", count(report.sessions, "session"), count(report.events, "event"));
    text.push_str(&format!(" {counts}."));
    for note in report.message.iter().chain(&report.notes) {
        text.push_str(&format!(" {note}"));
    }
    text
}

/// The progress bar, on standard error if that is a terminal.
struct Bar(ProgressBar);

impl Bar {
    fn new(args: &VerifyArgs) -> Self {
        let length = std::fs::metadata(&args.path).ok().filter(|m| m.is_file()).map(|m| m.len());
        let (bar, template) = match length {
            Some(length) => {
                let template = "{bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  {elapsed}, {eta} left";
                (ProgressBar::new(length), template)
            }
            None => (ProgressBar::new_spinner(), "{spinner} {bytes} checked  {bytes_per_sec}  {elapsed}"),
        };
        if args.quiet || args.json {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        bar.set_style(
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        bar.enable_steady_tick(TICK);
        Self(bar)
    }

    fn advance(&self, read: u64) {
        self.0.set_position(read);
    }

    fn finish(&self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_word_is_marked_as_such() {
        let text = r#"{"verdict":"INVALID","code":"hash","session_id":"s","sequence":3,"line":null,"message":"m",
            "sessions":1,"events":3,"tenant":null,"tenants":1,"bytes_hashed":9,"notes":["N."]}"#;
        let report: ServersReport = serde_json::from_str(text).unwrap();
        let told = describe(&report);
        let place = "code hash, session \"s\", sequence 3, 1 session, 3 events.";
        assert_eq!(told, format!("INVALID, as told by the running server: {place} m N."));
    }
}
