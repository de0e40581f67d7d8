//! `cargo xtask sample`: a seeded data set of agent events, one `POST /v1/events` object a line (NDJSON).
//!
//! Two modes. [`Mode::Varied`] is for trying the ledger out: twenty sessions at a time, every known event type
//! in a sensible order, sizes from a hundred bytes to hundreds of kilobytes, and the JSON that breaks careless
//! code (integers past 2^53, -0, escaped surrogate pairs, late clocks, other offsets). [`Mode::Bench`] is for
//! measuring: one steady mix whose lines average 700 bytes, so that events/s and bytes/s can be converted.
//!
//! Invariants:
//! - The same configuration gives the same bytes on any machine: integer arithmetic only, no clock, no map
//!   whose order is random, nothing from the environment.
//! - Every line is one compact JSON object without duplicate keys, shorter than 900 KB.
//! - Memory stays bounded whatever the number of events: a few live sessions and one line.
//! - The text compresses like real traces do (about 4 to 1 under zstd -3), neither noise nor one repeated line:
//!   a measured size or speed would mean nothing otherwise.
//!
//! What it deliberately does not do: send anything, make broken or hostile input (the tests do that), or
//! contain anything shaped like a real secret. Addresses are in reserved names and ranges (RFC 2606, RFC 5737).

mod author;
mod events;
mod json;
mod payloads;
mod rng;
mod sessions;
mod templates;
#[cfg(test)]
mod tests;
mod text;
mod vocabulary;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use anyhow::Context as _;

use author::Author;
#[cfg(test)]
pub(crate) use rng::Rng;
use sessions::Generator;

/// 2026-01-05T08:00:00Z, a Monday morning, in microseconds since 1970.
const START_US: i64 = 1_767_600_000 * SECOND_US;
const SECOND_US: i64 = 1_000_000;
/// Sessions that are open at the same time in [`Mode::Varied`].
const LIVE_SESSIONS: usize = 20;
/// Shortest and longest session of [`Mode::Varied`], events.
const VARIED_SESSION_EVENTS: (u64, u64) = (5, 5_000);
/// Length of every session of [`Mode::Bench`], events.
const BENCH_SESSION_EVENTS: u64 = 10_000;
/// Shortest and longest line that [`Mode::Bench`] aims at, bytes; one may need more than the shortest.
const BENCH_LINE_BYTES_MIN: i64 = 300;
const BENCH_LINE_BYTES_MAX: i64 = 1_480;

/// What to generate.
#[derive(Clone, Debug)]
pub(crate) struct SampleConfig {
    /// Same seed, same bytes.
    pub(crate) seed: u64,
    /// How many events to make.
    pub(crate) events: usize,
    /// Variety for trying out, or uniformity for measuring.
    pub(crate) mode: Mode,
    /// Time of the first event, microseconds since 1970.
    pub(crate) start_us: i64,
}

/// The kind of data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mode {
    /// Interleaved sessions, all 18 types, heavy-tailed sizes.
    Varied,
    /// One session after the other, 10,000 events each, 700 bytes a line on average.
    Bench,
}

/// One generated event.
#[derive(Clone, Debug)]
pub(crate) struct SampleEvent {
    /// As in `json`, unescaped.
    pub(crate) session_id: String,
    /// As in `json`, unescaped.
    pub(crate) agent_id: String,
    /// As in `json`.
    pub(crate) event_type: &'static str,
    /// The event object, compact, without a line end.
    pub(crate) json: String,
}

/// Make a seeded, realistic data set: one event object a line, as `POST /v1/events` takes it.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct SampleArgs {
    /// How many events to make.
    #[arg(long)]
    events: usize,
    /// Same seed, same bytes.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// What the data set is for.
    #[arg(long, value_enum, default_value_t = Mode::Varied)]
    mode: Mode,
    /// Write only the events of the first N sessions to appear; fewer lines than --events come out.
    #[arg(long, value_name = "N")]
    sessions: Option<usize>,
    /// Time of the first event, microseconds since 1970 [default: 2026-01-05T08:00:00Z].
    #[arg(long, default_value_t = START_US, hide_default_value = true)]
    start_us: i64,
    /// Write here instead of standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Writes the data set, then a summary on standard error.
///
/// # Errors
/// The file cannot be created or written. A reader that closes the pipe early (`| head`) is not an error.
pub(crate) fn run(args: SampleArgs) -> anyhow::Result<()> {
    let config =
        SampleConfig { seed: args.seed, events: args.events, mode: args.mode, start_us: args.start_us };
    let mut summary = Summary::default();
    let events = generate(&config);
    let written = match &args.out {
        Some(path) => {
            let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
            write_lines(events, args.sessions, &mut summary, BufWriter::with_capacity(1 << 20, file))
        }
        None => write_lines(events, args.sessions, &mut summary, BufWriter::new(io::stdout().lock())),
    };
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
        other => other.context("cannot write the data set")?,
    }
    eprint!("{summary}");
    Ok(())
}

fn write_lines(
    events: impl Iterator<Item = SampleEvent>,
    sessions_max: Option<usize>,
    summary: &mut Summary,
    mut to: impl Write,
) -> io::Result<()> {
    for event in events {
        let is_new = !summary.sessions.contains(&event.session_id);
        if is_new && sessions_max.is_some_and(|max| summary.sessions.len() >= max) {
            continue;
        }
        to.write_all(event.json.as_bytes())?;
        to.write_all(b"\n")?;
        summary.bytes += event.json.len() + 1;
        *summary.types.entry(event.event_type).or_default() += 1;
        summary.agents.insert(event.agent_id);
        if is_new {
            summary.sessions.insert(event.session_id);
        }
    }
    to.flush()
}

/// What was written. Sessions average hundreds of events, so keeping their names is small beside the data.
#[derive(Default)]
struct Summary {
    bytes: usize,
    sessions: BTreeSet<String>,
    agents: BTreeSet<String>,
    types: BTreeMap<&'static str, usize>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let events: usize = self.types.values().sum();
        let (sessions, agents) = (self.sessions.len(), self.agents.len());
        writeln!(f, "{events} events, {} bytes, {sessions} sessions, {agents} agents", self.bytes)?;
        self.types.iter().try_for_each(|(name, count)| writeln!(f, "{count:>10} {name}"))
    }
}

/// The events of a configuration, one at a time.
pub(crate) fn generate(config: &SampleConfig) -> impl Iterator<Item = SampleEvent> + use<> {
    Generator {
        author: Author::new(config.seed),
        mode: config.mode,
        left: config.events,
        now_us: config.start_us,
        live: Vec::new(),
        current: 0,
        burst: 0,
        owed: 0,
    }
}
