//! `quipu import`: a file of events, one JSON object a line, in windows of batches.
//!
//! A window is sent as a whole: its lines are dealt out to the connections by session, so that each session's events
//! stay in order, and the next window begins when every batch of this one is answered. With one connection a window
//! is one batch.

pub(crate) mod lines;
mod progress;
mod source;
mod state;
mod window;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use quipu_core::limits;
use serde::Deserialize;

use self::lines::{BATCH_BYTES_MAX, Cut, Line};
use self::progress::Progress;
use self::source::Source;
use self::state::{Pending, State};
use self::window::{Refused, Sender};
use crate::args::ConnectArgs;
use crate::client::{Client, Request};
use crate::failure::hinted;
use crate::output::{count, harmless, print};
use crate::receipts::{LineFile, ReceiptList};
use crate::time_arg::now;

/// Batches of each connection in one window, if there are several: enough that none waits long for the others.
const WINDOW_BATCHES: usize = 4;

/// How the lines of a file are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Dialect {
    /// As `POST /v1/events` takes them: session_id, agent_id, event_type, …
    Native,
    /// As AgentLens has them: sessionId, agentId, eventType, …
    Agentlens,
}

impl Dialect {
    fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Agentlens => "agentlens",
        }
    }

    fn path(self) -> &'static [&'static str] {
        match self {
            Self::Native => &["v1", "events"],
            Self::Agentlens => &["api", "events"],
        }
    }
}

/// Arguments of `quipu import`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quipu import events.ndjson
  quipu import events.ndjson.gz --connections 4 --batch 500
  quipu import agentlens.ndjson --dialect agentlens --skip-invalid refused.ndjson
  zcat *.gz | quipu import - --receipts receipts.json

How far it has come is kept in FILE.quipu-import. Run it again after whatever stopped it, and it goes on there; what
was sent and not answered is sent again under the same key, so nothing is stored twice within 24 hours. A file that
has grown is imported from where it ended.")]
pub(crate) struct ImportArgs {
    /// The file, unpacked on the way if its name ends in .gz; `-` is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// How its lines are written
    #[arg(long, value_enum, default_value_t = Dialect::Native)]
    dialect: Dialect,
    /// Most events in one request; 3 MB of them at most
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=limits::BATCH_EVENTS_MAX as i64))]
    batch: u16,
    /// Requests under way at once; each session's events stay in order
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16))]
    connections: u8,
    /// Add lines that the server refuses to this file, and go on
    #[arg(long, value_name = "FILE")]
    skip_invalid: Option<PathBuf>,
    /// Add receipts to this file (a JSON list), for `quipu verify --receipt`
    #[arg(long, value_name = "FILE")]
    receipts: Option<PathBuf>,
    /// No progress bar
    #[arg(long, short)]
    quiet: bool,
    /// The summary as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Deserialize)]
struct LogKey {
    log_key: String,
}

/// What one run did.
#[derive(Debug, Default)]
struct Done {
    events: u64,
    skipped: u64,
    batches: u64,
    replayed: u64,
}

/// Runs it.
pub(crate) fn run(args: &ImportArgs) -> anyhow::Result<ExitCode> {
    let client = Client::connect(&args.connect)?;
    let ledger = client.ask(&Request::get(&["v1", "log", "key"]))?;
    let ledger: LogKey =
        serde_json::from_str(&ledger).context("the server does not say which ledger it is")?;
    let source = Source::open(&args.file)?;
    let fresh = State::new(&source.identity, &ledger.log_key, args.dialect.name());
    let state = source.state_file.load(fresh)?;
    let mut import = Import {
        args,
        sender: Sender {
            client: &client,
            path: args.dialect.path(),
            file: &source.identity,
            skip: args.skip_invalid.is_some(),
        },
        receipts: args.receipts.as_deref().map(ReceiptList::open).transpose()?,
        skipped: args.skip_invalid.as_deref().map(LineFile::open).transpose()?,
        progress: Progress::new(&source, args.quiet || args.json),
        done: Done::default(),
        state,
    };
    let started_at_line = import.state.line;
    let ended = import.run(&source);
    import.progress.finish();
    let stopped = ended?;
    import.summary(started_at_line)?;
    match stopped {
        None => Ok(ExitCode::SUCCESS),
        Some(refused) => {
            let file = args.file.display();
            let message = format!("{file}, line {}: {}", refused.line, harmless(&refused.message));
            let hint = "mend the line and run the same command again: everything before it is stored. \
                        --skip-invalid FILE puts such lines aside and goes on";
            Err(hinted(message, hint).into())
        }
    }
}

struct Import<'a> {
    args: &'a ImportArgs,
    sender: Sender<'a>,
    receipts: Option<ReceiptList>,
    skipped: Option<LineFile>,
    progress: Progress,
    done: Done,
    state: State,
}

impl Import<'_> {
    /// Sends window after window; gives the line at which it had to stop, if it had to.
    fn run(&mut self, source: &Source) -> anyhow::Result<Option<Refused>> {
        let mut lines = source.lines(self.state.offset, self.state.line)?;
        if self.state.is_pending_too_old() {
            self.progress.tell(&format!(
                "the last run ended more than 24 h ago without an answer to what it sent from line {} on: if that \
                 was stored, it is now stored twice",
                self.state.line
            ));
        }
        loop {
            // A window that was sent and not answered is cut as it was then.
            let pending = self.state.pending.take();
            let (batch, connections, before) = match &pending {
                Some(pending) => (pending.batch, pending.connections, pending.end),
                None => (usize::from(self.args.batch), usize::from(self.args.connections), u64::MAX),
            };
            let batches = if connections == 1 { 1 } else { connections * WINDOW_BATCHES };
            let cut = Cut { events_max: batch * batches, bytes_max: BATCH_BYTES_MAX * batches, before };
            let window = lines.take(&cut)?;
            let Some(last) = window.last() else {
                // Only a file that was changed since has nothing left before the end of its pending window.
                if pending.is_some() {
                    continue;
                } else {
                    return Ok(None);
                };
            };
            let (end, after) = (last.end, last.number + 1);
            let sent_at = pending.map_or_else(|| now().get(), |pending| pending.sent_at);
            self.state.pending = Some(Pending { end, batch, connections, sent_at });
            source.state_file.save(&self.state)?;
            let mut ahead = self.state.ahead.clone();
            let todo: Vec<&Line> = window.iter().filter(|line| !ahead.remove(line)).collect();
            let progress = &self.progress;
            let sent = self.sender.send(&todo, batch, connections, &|line| progress.tell(line))?;
            self.state.ahead = ahead;
            self.record(&sent)?;
            self.state.pending = None;
            let stopped = sent.stopped;
            match &stopped {
                None => (self.state.offset, self.state.line) = (end, after),
                Some(_) => {
                    let is_open = |line: &&&Line| !sent.stored.contains(&line.number);
                    if let Some(first) = todo.iter().find(is_open) {
                        (self.state.offset, self.state.line) = (first.start, first.number);
                        let past = todo.iter().filter(|line| line.number > first.number);
                        let stored = past.filter(|line| sent.stored.contains(&line.number));
                        // What was ahead before and lies behind the stop is behind it still.
                        let numbers: BTreeSet<u64> = todo.iter().map(|line| line.number).collect();
                        let known = window.iter().filter(|line| line.number > first.number);
                        let known = known.filter(|line| !numbers.contains(&line.number));
                        self.state.ahead = state::Ahead::of(stored.copied().chain(known));
                    }
                }
            }
            source.state_file.save(&self.state)?;
            self.progress.advance(source.position(), self.done.events);
            if stopped.is_some() {
                return Ok(stopped);
            }
        }
    }

    /// Keeps what the answers to a window say. Receipts and refused lines are written before the state: if the
    /// process ends in between, they may be there twice, and are never missing.
    fn record(&mut self, sent: &window::Sent) -> anyhow::Result<()> {
        if let Some(file) = &mut self.receipts {
            file.add(&sent.receipts)?;
        }
        if let Some(file) = &mut self.skipped {
            for refused in &sent.skipped {
                let message = harmless(&refused.message);
                self.progress.tell(&format!("line {} is left out: {message}", refused.line));
                file.add(&refused.bytes)?;
            }
        }
        let (events, skipped) =
            (sent.stored.len() as u64 - sent.skipped.len() as u64, sent.skipped.len() as u64);
        self.done.events += events;
        self.done.skipped += skipped;
        self.done.batches += sent.batches;
        self.done.replayed += sent.replayed;
        self.state.imported += events;
        self.state.skipped += skipped;
        Ok(())
    }

    fn summary(&self, started_at_line: u64) -> anyhow::Result<()> {
        let (done, file) = (&self.done, self.args.file.display().to_string());
        if self.args.json {
            let summary = serde_json::json!({
                "file": file,
                "events": done.events,
                "skipped": done.skipped,
                "batches": done.batches,
                "batches_stored_before": done.replayed,
                "started_at_line": started_at_line,
                "next_line": self.state.line,
                "events_of_all_runs": self.state.imported,
            });
            return print(&summary.to_string());
        }
        if done.batches == 0 && done.skipped == 0 && started_at_line > 1 {
            let before = count(self.state.imported, "event");
            return print(&format!("nothing new in {file}: {before} were imported before"));
        }
        let mut text = format!("imported {} from {file}", count(done.events, "event"));
        if started_at_line > 1 {
            text.push_str(&format!(", from line {started_at_line} on"));
        }
        if done.skipped > 0 {
            text.push_str(&format!("; {} left out", count(done.skipped, "line")));
        }
        if done.replayed > 0 {
            text.push_str(&format!("; of these, {} had been stored before", count(done.replayed, "request")));
        }
        print(&text)
    }
}
