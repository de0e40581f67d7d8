//! The archive: how fast segments become a batch, and what the batch takes.
//!
//! In this process and on one thread, as the archiver does it: decode the bodies, check the chain, write the rows,
//! make the tiles. Time is the thread's own CPU time, so that what else runs on the machine counts little. Reading
//! from a store and writing to a bucket are not in it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use quipu_core::archive::{BatchReader, BatchWriter};
use quipu_core::chain::ChainCheck;
use quipu_core::dialect::{intake, native};
use quipu_core::event::NewEvent;
use quipu_core::ids::{CommitId, SessionId, TenantId};
use quipu_core::log::tiles::TileWriter;
use quipu_core::segment::{self, Head, Numbered, Segment, SegmentReader};
use quipu_core::time::Micros;
use sha2::{Digest as _, Sha256};

use super::{Report, child};
use crate::sample::{Mode, SampleConfig, generate};

/// A batch closes at 64 MB of events; those of the bench are 700 bytes each.
const BATCH_BYTES: usize = quipu_core::limits::ARCHIVE_MAX_BYTES as usize;

/// Events of one append.
const APPEND_EVENTS: usize = 100;

/// Sessions that append by turns, as in a ledger that many agents write to.
const SESSIONS: usize = 20;

/// How often each is measured; the best counts.
const ROUNDS: usize = 3;

/// First event's time; a fixed day, so that runs are alike.
const START_US: i64 = 1_767_600_000_000_000;

/// Salts and commit ids need 26 bytes that do not compress, and the same in each run.
struct Noise(u64);

impl Noise {
    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        self.0 += 1;
        let digest = Sha256::digest(self.0.to_be_bytes());
        std::array::from_fn(|at| digest[at])
    }
}

/// A session's segments, oldest first.
struct Run {
    session: SessionId,
    segments: Vec<(CommitId, Segment)>,
}

/// What the hot tier would hold.
struct Hot {
    tenant: TenantId,
    runs: Vec<Run>,
    events: usize,
    /// The events as they were sent, in the order of the runs, a line each.
    sent: String,
}

impl Hot {
    /// 64 MB of the bench's events in sessions of agents, by appends that take turns.
    fn fill() -> anyhow::Result<Self> {
        let tenant = TenantId::default_tenant();
        let mut noise = Noise(0);
        let mut runs: BTreeMap<SessionId, (Run, Option<Head>, String)> = BTreeMap::new();
        let (mut events, mut bytes) = (0, 0);
        for source in 0..SESSIONS {
            let config = SampleConfig {
                seed: source as u64 + 1,
                events: BATCH_BYTES / SESSIONS / 690,
                mode: Mode::Bench,
                start_us: START_US + source as i64 * 1_000_003,
            };
            let mut lines: Vec<String> = Vec::with_capacity(APPEND_EVENTS);
            let mut sample = generate(&config).map(|event| event.json).peekable();
            while sample.peek().is_some() {
                lines.clear();
                lines.extend(sample.by_ref().take(APPEND_EVENTS));
                let text = lines.join("\n");
                let batch = intake::read_lines(&text, &native::NAMES)
                    .map_err(|e| anyhow::anyhow!("the sample: {e}"))?;
                events += batch.len();
                bytes += text.len() - (lines.len() - 1);
                append(&tenant, &mut runs, &mut noise, batch, &lines)?;
            }
        }
        anyhow::ensure!(bytes.abs_diff(BATCH_BYTES) < BATCH_BYTES / 20, "{bytes} bytes of events");
        let mut sent = String::with_capacity(bytes + events);
        let runs = runs.into_values().map(|(run, _, lines)| {
            sent.push_str(&lines);
            run
        });
        let runs = runs.collect();
        Ok(Self { tenant, runs, events, sent })
    }

    fn sent_bytes(&self) -> usize {
        self.sent.len() - self.events
    }

    /// Makes the batch as the archiver does.
    fn batch(&self) -> anyhow::Result<Batch> {
        let spent = cpu_seconds()?;
        let (mut writer, mut tiles) = (BatchWriter::new(&self.tenant), TileWriter::new());
        let mut reader = SegmentReader::new()?;
        for run in &self.runs {
            let mut check = ChainCheck::new(&self.tenant, &run.session);
            for (commit, segment) in &run.segments {
                let view = reader.open(&segment.body)?;
                let events = view.events().collect::<Result<Vec<_>, _>>()?;
                let first_of_run = check.count() == 0;
                check.push_all(&events)?;
                for (index, event) in events.iter().enumerate() {
                    writer.push(&run.session, *commit, event, first_of_run && index == 0)?;
                }
                tiles.push_all(events.iter().map(|event| &event.hash.0));
            }
        }
        let file = writer.finish()?;
        std::hint::black_box((tiles.finish(), Sha256::digest(&file)));
        Ok(Batch { seconds: cpu_seconds()? - spent, file })
    }
}

struct Batch {
    seconds: f64,
    file: bytes::Bytes,
}

fn append(
    tenant: &TenantId,
    runs: &mut BTreeMap<SessionId, (Run, Option<Head>, String)>,
    noise: &mut Noise,
    batch: Vec<NewEvent>,
    lines: &[String],
) -> anyhow::Result<()> {
    let last = batch.iter().filter_map(|event| event.timestamp).max().context("the sample has times")?;
    let received_at = last.plus_ms(40);
    let commit = CommitId::mint(u64::try_from(received_at.unix_ms())?, noise.bytes());
    let mut sessions: BTreeMap<SessionId, (Vec<Numbered>, Vec<&String>)> = BTreeMap::new();
    for (number, (event, line)) in (1..).zip(batch.into_iter().zip(lines)) {
        let (events, own) = sessions.entry(event.session_id.clone()).or_default();
        events.push(Numbered { number, event });
        own.push(line);
    }
    for (session, (events, own)) in sessions {
        let salts: Vec<[u8; 16]> = events.iter().map(|_| noise.bytes()).collect();
        let new = || (Run { session: session.clone(), segments: Vec::new() }, None, String::new());
        let (run, head, sent) = runs.entry(session.clone()).or_insert_with(new);
        let received_at = Micros::new(received_at.get()).context("a time")?;
        let (segment, _) = segment::chain(tenant, &session, *head, commit, received_at, &events, &salts)?;
        *head = Some(segment.meta.head());
        run.segments.push((commit, segment));
        for line in own {
            sent.push_str(line);
            sent.push('\n');
        }
    }
    Ok(())
}

/// Seconds of CPU that this thread has had (proc(5): schedstat, in ns).
fn cpu_seconds() -> anyhow::Result<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").context("schedstat")?;
    let spent = text.split_whitespace().next().and_then(|t| t.parse::<f64>().ok()).context("schedstat")?;
    Ok(spent / 1e9)
}

/// A line of /proc/self/status, in bytes.
fn memory_bytes(name: &str) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/self/status").context("status")?;
    let line = text.lines().find(|l| l.starts_with(name)).context("a line of status")?;
    let kib = line.split_whitespace().nth(1).and_then(|t| t.parse::<u64>().ok()).context("a size")?;
    Ok(kib * 1024)
}

/// Most memory that `work` took beyond what was in use before it (proc(5): 5 to clear_refs starts VmHWM anew).
fn peak_bytes<T>(work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<(T, u64)> {
    std::fs::write("/proc/self/clear_refs", "5").context("clear_refs")?;
    let before = memory_bytes("VmRSS:")?;
    let done = work()?;
    Ok((done, memory_bytes("VmHWM:")?.saturating_sub(before)))
}

/// Columns that are there only for the proofs.
const PROOF: [&str; 4] = ["salt", "content_digest", "prev_hash", "hash"];

pub(super) fn measure(report: &mut Report) -> anyhow::Result<()> {
    let hot = Hot::fill()?;
    let (events, sent) = (hot.events as f64, hot.sent_bytes() as f64);
    report.line("\n## Archive\n");
    report.line(&format!(
        "One batch of {:.1} MB as sent ({} events, {} sessions, appended a hundred at a time), on one core.\n",
        sent / 1e6,
        hot.events,
        hot.runs.len()
    ));
    let (first, peak) = peak_bytes(|| hot.batch())?;
    let mut best = first.seconds;
    for _ in 1..ROUNDS {
        let again = hot.batch()?;
        anyhow::ensure!(again.file == first.file, "equal rows give equal bytes");
        best = best.min(again.seconds);
    }
    report.line("| | events/s | MB/s of events | peak memory, MB |\n|---|---|---|---|");
    report.line(&format!(
        "| segments to batch: decode, check the chain, write, make the tiles | {:.0} | {:.0} | {:.0} |",
        events / best,
        sent / 1e6 / best,
        peak as f64 / 1e6
    ));

    let file = first.file.len() as f64;
    let reader = BatchReader::open(first.file.clone())?;
    let columns = reader.column_bytes();
    let proof: u64 = columns.iter().filter(|(name, ..)| PROOF.contains(name)).map(|c| c.1).sum();
    report.line("\n| | bytes an event | of the bytes sent |\n|---|---|---|");
    let mut size = |name: &str, bytes: f64| {
        report.line(&format!("| {name} | {:.1} | {:.3} |", bytes / events, bytes / sent));
    };
    size("sent (JSON)", sent);
    for level in [3, 9] {
        let packed = zstd::bulk::compress(hot.sent.as_bytes(), level)?.len() as f64;
        size(&format!("the same as JSON lines under zstd -{level}, one frame"), packed);
    }
    size("batch, everything in it", file);
    size("batch without salts and hashes", file - proof as f64);

    report.line("\n| column | bytes an event | share of the file |\n|---|---|---|");
    let mut left = file;
    for (name, bytes, blooms) in columns {
        for (name, bytes) in [(name.to_owned(), bytes), (format!("{name}, bloom filter"), blooms)] {
            left -= bytes as f64;
            if bytes > 0 {
                let bytes = bytes as f64;
                report.line(&format!("| `{name}` | {:.2} | {:.3} |", bytes / events, bytes / file));
            }
        }
    }
    report.line(&format!("| indexes and footer | {:.2} | {:.3} |", left / events, left / file));
    Ok(())
}

/// Archives a ledger of `events` events with the command, then verifies a copy of its archive.
pub(super) fn whole(report: &mut Report, binary: &Path, data: &Path, events: usize) -> anyhow::Result<()> {
    let quipu = |arguments: &[&str]| {
        let mut command = Command::new(binary);
        command.args(arguments);
        command
    };
    report.line(&format!("\n## The archive of {events} events, with the commands\n"));
    report.line("| | seconds | events/s | CPU µs/event | peak memory, MB |\n|---|---|---|---|---|");
    let count = events as f64;
    let row = |name: &str, done: &child::Done| {
        format!(
            "| `{name}` | {:.1} | {:.0} | {:.1} | {:.0} |",
            done.seconds,
            count / done.seconds,
            done.cpu_seconds * 1e6 / count,
            done.peak_bytes as f64 / 1e6
        )
    };
    let archived = child::run(quipu(&["archive", "now", "--json", "--data"]).arg(data))?;
    report.line(&row("quipu archive now", &archived));
    let key = child::run(quipu(&["key", "show", "--data"]).arg(data))?;
    let (copy, log_key) = (data.with_extension("copy"), data.with_extension("pub"));
    std::fs::write(&log_key, key.output.stdout)?;
    let mut moved = Command::new("cp");
    child::run(moved.arg("-r").args([&data.join("archive"), &copy]))?;
    for threads in ["1", "2"] {
        let mut verify = quipu(&["verify", "--json", "--threads", threads, "--key"]);
        let done = child::run(verify.arg(&log_key).arg(&copy))?;
        let found: serde_json::Value = serde_json::from_slice(&done.output.stdout).context("a report")?;
        anyhow::ensure!(found["verdict"] == "VALID" && found["events"] == events, "{found}");
        report.line(&row(&format!("quipu verify --threads {threads} COPY --key log.pub"), &done));
    }
    let batches = disk_files(&copy.join("events"))?;
    report.line(&format!(
        "\n{} batches, {:.1} bytes of Parquet an event.",
        batches.len(),
        batches.iter().sum::<u64>() as f64 / count
    ));
    Ok(())
}

/// Lengths of all files under a directory, bytes.
fn disk_files(directory: &Path) -> anyhow::Result<Vec<u64>> {
    let mut lengths = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let (path, meta) = entry.and_then(|entry| Ok((entry.path(), entry.metadata()?)))?;
        if meta.is_dir() {
            lengths.extend(disk_files(&path)?);
        } else {
            lengths.push(meta.len());
        }
    }
    Ok(lengths)
}
