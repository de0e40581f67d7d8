//! `cargo xtask bench`: what the server does on this machine, with the machine's own limits beside it.
//!
//! The release binary as a child process, driven over HTTP on loopback by threads of this one; two cores are shared
//! by both sides, so absolute figures are of the pair. CPU time is the server's alone, from the kernel's accounting.

mod archive;
mod child;
mod cold;
mod load;
pub(crate) mod machine;
mod reads;
mod server;

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

use crate::shell::{self, cargo, root, target};
use load::Load;
use server::Server;

#[derive(clap::Args)]
pub(crate) struct BenchArgs {
    /// Events in the large data set.
    #[arg(long, default_value_t = 1_000_000)]
    events: usize,
    /// Seconds for each row of the append table.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Measure only how a batch is made and read back; nothing is written.
    #[arg(long, conflicts_with = "write")]
    only_batch: bool,
    /// Measure only reads of what is archived and not hot any more: many minutes and 4 GB of disk, so that the others
    /// leave this out, and leave its part of the page as it is.
    #[arg(long, conflicts_with = "only_batch")]
    only_cold: bool,
    /// Events for that.
    #[arg(long, default_value_t = 5_000_000, requires = "only_cold")]
    cold_events: usize,
    /// In how many batches, each in its turn.
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1000], requires = "only_cold")]
    cold_batches: Vec<usize>,
    /// Write docs/benchmarks.md: what was measured of it.
    #[arg(long)]
    write: bool,
}

/// The session that reads are measured in, events.
const SESSION_EVENTS: usize = 10_000;

pub(crate) fn run(args: &BenchArgs) -> anyhow::Result<()> {
    let mut build = cargo();
    build.args(["build", "--release", "--package", "xtask"]);
    if !args.only_cold {
        build.args(["--package", "quipu"]);
    }
    shell::run("build the release binaries", &mut build)?;
    if cfg!(debug_assertions) {
        // What is measured in this process is the release build as well.
        let mut bench = Command::new(target().join("release/xtask"));
        return shell::run("measure", bench.args(std::env::args_os().skip(1)));
    }
    if args.only_batch {
        return archive::measure(&mut Report::default());
    }
    let binary = target().join("release/quipu");
    let scratch = target().join("bench");
    let _ = std::fs::remove_dir_all(&scratch);
    std::fs::create_dir_all(&scratch)?;

    let page = root().join("docs/benchmarks.md");
    let mut report = Report::default();
    if args.only_cold {
        cold::measure(&mut report, &scratch, args.cold_events, &args.cold_batches)?;
        println!("{}", report.0);
        if args.write {
            let (rest, _) = parts(&std::fs::read_to_string(&page)?);
            std::fs::write(&page, rest + &report.0)?;
        }
        return Ok(std::fs::remove_dir_all(&scratch)?);
    }
    report.line("# Benchmarks\n");
    report
        .line("The last run of `cargo xtask bench --write`. Client and server share the machine's cores.\n");
    report.line("## The machine\n");
    report.line(&machine::describe(&scratch)?);

    report.line("## Appends over HTTP\n");
    report.line("Events of 700 bytes of JSON each (the bench mode of `cargo xtask sample`), acknowledged after fsync.\n");
    report.line(
        "| events in a batch | connections | appends/s | events/s | p50 ms | p99 ms | server CPU µs/event |",
    );
    report.line("|---|---|---|---|---|---|---|");
    for batch in [1, 10, 100, 1000] {
        for connections in [1, 16] {
            let data = scratch.join(format!("append-{batch}-{connections}"));
            let server = Server::start(&binary, &data)?;
            let load = Load { batch, connections, seconds: Some(args.seconds), events: None, seed: 7 };
            let done = load.run(&server)?;
            report.line(&format!(
                "| {batch} | {connections} | {:.0} | {:.0} | {:.2} | {:.2} | {:.1} |",
                done.appends as f64 / done.seconds,
                done.events as f64 / done.seconds,
                done.percentile(50.0),
                done.percentile(99.0),
                done.cpu_seconds * 1e6 / done.events as f64,
            ));
            server.stop()?;
            std::fs::remove_dir_all(&data)?;
        }
    }

    report.line("\n## Reads as the data grows\n");
    report.line("One connection, random places in a session of 10,000 events, batches of 100; beside it more and more other events.\n");
    report.line("| events in all | by id p50 ms | p99 ms | page of 100 by sequence p50 ms | p99 ms | page of 100 by time p50 ms | p99 ms |");
    report.line("|---|---|---|---|---|---|---|");
    let data = scratch.join("large");
    let server = Server::start(&binary, &data)?;
    let fill = |events: usize, seed: u64, connections: usize| {
        Load { batch: 100, connections, seconds: None, events: Some(events), seed }.run(&server)
    };
    let subject = fill(SESSION_EVENTS, 1, 1)?;
    let (mut sent_bytes, mut total) = (subject.sent_bytes, subject.events);
    let mut rate = None;
    for (seed, upto) in (2u64..).zip([SESSION_EVENTS, SESSION_EVENTS * 10, args.events]) {
        let more = upto.saturating_sub(total);
        if more > 0 {
            let done = fill(more, seed * 1000, 16)?;
            sent_bytes += done.sent_bytes;
            total += done.events;
            rate = Some(done.events as f64 / done.seconds);
        }
        let row = reads::measure(&server, &subject)?;
        report.line(&format!("| {total} | {row} |"));
    }
    server.stop()?;

    report.line(&format!("\n## On disk, after {total} events at batches of 100\n"));
    let disk = machine::disk_bytes(&data)?;
    report.line("| | bytes an event |\n|---|---|");
    report.line(&format!("| sent | {:.0} |", sent_bytes as f64 / total as f64));
    report.line(&format!(
        "| on disk (blocks in use, everything in the data directory) | {:.0} |",
        disk as f64 / total as f64
    ));
    report.line(&format!("| share | {:.3} |", disk as f64 / sent_bytes as f64));
    if let Some(rate) = rate {
        report.line(&format!("\nFilled at {rate:.0} events/s over 16 connections."));
    }

    report.line("\n## Verification of all of it\n");
    report.line(&verification(&binary, &data)?);
    archive::measure(&mut report)?;
    archive::whole(&mut report, &binary, &data, total)?;

    println!("{}", report.0);
    if args.write {
        let (_, cold) = parts(&std::fs::read_to_string(&page)?);
        std::fs::write(&page, report.0 + "\n" + &cold)?;
    }
    std::fs::remove_dir_all(&scratch)?;
    Ok(())
}

/// The page without the part that is measured apart, and that part, which stands at its end.
fn parts(page: &str) -> (String, String) {
    let at = page.find(cold::HEADING).unwrap_or(page.len());
    let (rest, cold) = page.split_at(at);
    (rest.trim_end().to_owned() + "\n\n", cold.to_owned())
}

/// `quipu verify` on one thread and on all, against what OpenSSL does with blocks of the same size.
fn verification(binary: &Path, data: &Path) -> anyhow::Result<String> {
    let mut out = String::from(
        "| threads | events/s | MB/s into SHA-256 | share of `openssl speed sha256`, one thread |\n|---|---|---|---|\n",
    );
    for threads in [1, 2] {
        let started = std::time::Instant::now();
        let output = Command::new(binary)
            .args(["verify", "--json", "--threads", &threads.to_string()])
            .arg(data)
            .output()
            .context("quipu verify")?;
        let seconds = started.elapsed().as_secs_f64();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let report: serde_json::Value =
            serde_json::from_str(&text).with_context(|| format!("not a report: {text}"))?;
        anyhow::ensure!(report["verdict"] == "VALID", "{report}");
        let events = report["events"].as_f64().unwrap_or(0.0);
        let hashed = report["bytes_hashed"].as_f64().unwrap_or(0.0);
        // Two hashes an event: its content's, and its own.
        let block = (hashed / events / 2.0).round() as u64;
        let openssl = machine::openssl_sha256(block)?;
        let share = openssl.map_or("OpenSSL is not installed".to_owned(), |limit| {
            format!("{:.2} of {:.0} MB/s at {block} bytes", hashed / seconds / limit, limit / 1e6)
        });
        let _ = writeln!(
            out,
            "| {threads} | {:.0} | {:.0} | {share} |",
            events / seconds,
            hashed / seconds / 1e6
        );
    }
    Ok(out)
}

/// The page as it grows; progress goes to standard error.
#[derive(Default)]
struct Report(String);

impl Report {
    fn line(&mut self, text: &str) {
        eprintln!("{text}");
        self.0.push_str(text);
        self.0.push('\n');
    }
}
