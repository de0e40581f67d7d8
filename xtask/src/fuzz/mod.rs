//! `cargo xtask fuzz`: libFuzzer on every parser of outside bytes, with the stable toolchain.
//!
//! What cargo-fuzz does with a nightly compiler, without its address sanitizer: the code has no `unsafe` for it to
//! look into. The targets are in `fuzz/`; corpora, dictionaries and what crashed are under `target/fuzz/`, so that a
//! second run goes on where the first ended.
//!
//! No part of `cargo xtask test`: a first build, with every dependency instrumented, takes about five minutes of two
//! cores. The same targets run there under a fixed sequence of mutations (`tests.rs`), without libFuzzer.

mod logs;
mod seeds;
#[cfg(test)]
mod tests;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use crate::shell::{self, cargo, root, target};

/// How long all targets run together if nothing else is asked for.
const SECONDS_TOTAL: u64 = 600;

/// Longest input that is tried, bytes: the parsers' own limits are tried by their tests.
const INPUT_BYTES_MAX: usize = 64 * 1024;

/// An input that takes longer is reported as a hang, seconds.
const INPUT_SECONDS_MAX: u64 = 10;

/// Counters at every edge and a table of their places, as libFuzzer wants them.
const COVERAGE_FLAGS: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "--cfg=fuzzing",
];

#[derive(clap::Args)]
pub(crate) struct FuzzArgs {
    /// Only this parser; all of them otherwise.
    target: Option<Target>,
    /// Seconds for each parser [default: 600 shared among them].
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
}

/// The parsers of outside bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Target {
    /// Batches of events, both dialects, JSON and NDJSON.
    Request,
    /// Segments and their attributes.
    Segment,
    /// Evidence bundles.
    Bundle,
    /// Signed notes, keys, statements.
    Note,
    /// Headers, checkpoints, proofs, identities and keys of a log.
    Log,
    /// RFC 3339 times.
    Time,
    /// The JSON reader, against serde_json.
    Json,
}

impl Target {
    const ALL: [Self; 7] =
        [Self::Request, Self::Segment, Self::Bundle, Self::Note, Self::Log, Self::Time, Self::Json];

    /// Name of its binary, and of the function in `fuzz/src`.
    const fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Segment => "segment",
            Self::Bundle => "bundle",
            Self::Note => "note",
            Self::Log => "log",
            Self::Time => "time",
            Self::Json => "json",
        }
    }
}

pub(crate) fn run(args: &FuzzArgs) -> anyhow::Result<()> {
    let targets = args.target.map_or_else(|| Target::ALL.to_vec(), |target| vec![target]);
    let seconds = args.seconds.unwrap_or(SECONDS_TOTAL / targets.len() as u64).max(1);
    let binaries = build(&targets)?;
    for target in targets {
        fuzz(target, &binaries, seconds)?;
    }
    Ok(())
}

/// Builds the targets; gives the directory of their binaries.
fn build(targets: &[Target]) -> anyhow::Result<PathBuf> {
    // With a target named, cargo keeps the flags from build scripts and macros, which run without libFuzzer.
    let host = host()?;
    let directory = target().join("fuzz/build");
    let mut build = cargo();
    build
        .args(["build", "--release", "--target", &host, "--manifest-path"])
        .arg(root().join("fuzz/Cargo.toml"))
        .env("CARGO_TARGET_DIR", &directory)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env("RUSTFLAGS", COVERAGE_FLAGS.join(" "));
    for target in targets {
        build.args(["--bin", target.name()]);
    }
    shell::run("build the fuzz targets", &mut build)?;
    Ok(directory.join(host).join("release"))
}

/// The platform that the compiler runs on.
fn host() -> anyhow::Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output =
        Command::new(rustc).arg("-vV").current_dir(root()).output().context("could not start rustc")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc -vV names no host")
}

/// Runs one target; fails if it finds something.
fn fuzz(target: Target, binaries: &Path, seconds: u64) -> anyhow::Result<()> {
    let name = target.name();
    let directory = shell::target().join("fuzz");
    let (corpus, artifacts) = (directory.join("corpus").join(name), directory.join("artifacts").join(name));
    std::fs::create_dir_all(&artifacts)?;
    plant(target, &corpus)?;
    let dictionary = directory.join(format!("{name}.dict"));
    std::fs::write(&dictionary, seeds::dictionary(target))?;
    eprintln!("--- fuzz {name} for {seconds} s");
    let mut child = Command::new(binaries.join(name))
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={INPUT_BYTES_MAX}"))
        .arg(format!("-timeout={INPUT_SECONDS_MAX}"))
        .arg(format!("-dict={}", dictionary.display()))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .args(["-print_final_stats=1", "-use_value_profile=1"])
        .arg(&corpus)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("could not start the target {name}"))?;
    let told = child.stderr.take().context("no standard error")?;
    let mut report = Report::default();
    for line in BufReader::new(told).split(b'\n') {
        report.take(&String::from_utf8_lossy(&line?));
    }
    let status = child.wait()?;
    println!("{name}: {} inputs tried, {}", report.tried, report.coverage);
    if status.success() {
        return Ok(());
    }
    let reproducer = report.reproducer.as_deref().unwrap_or("no reproducer was written");
    bail!("{name}: {status}\n{}\nreproducer: {reproducer}", report.last.join("\n"))
}

/// Writes the seeds into a corpus. Their names say that they are ours; what a run finds stands beside them.
fn plant(target: Target, corpus: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(corpus)?;
    for (index, seed) in seeds::seeds(target)?.iter().enumerate() {
        std::fs::write(corpus.join(format!("seed-{index:04}")), seed)?;
    }
    Ok(())
}

/// What a run said of itself.
#[derive(Default)]
struct Report {
    tried: String,
    coverage: String,
    reproducer: Option<String>,
    /// The last lines that are not statistics: a panic's message among them.
    last: Vec<String>,
}

impl Report {
    /// Lines kept of what a target says.
    const LINES_MAX: usize = 30;

    fn take(&mut self, line: &str) {
        if let Some(count) = line.strip_prefix("stat::number_of_executed_units:") {
            self.tried = count.trim().to_owned();
        } else if let Some((_, path)) = line.split_once("Test unit written to ") {
            self.reproducer = Some(path.trim().to_owned());
        } else if let Some((_, rest)) = line.split_once("cov: ").filter(|_| line.starts_with('#')) {
            let mut words = rest.split_whitespace();
            let edges = words.next().unwrap_or_default();
            let corpus = rest.split_once("corp: ").map_or("?", |(_, c)| c.split('/').next().unwrap_or(c));
            self.coverage = format!("{edges} edges covered by a corpus of {corpus}");
        } else if !line.starts_with("stat::") {
            if self.last.len() == Self::LINES_MAX {
                self.last.remove(0);
            }
            self.last.push(line.to_owned());
        }
    }
}
