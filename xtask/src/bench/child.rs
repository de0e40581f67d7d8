//! A command run to its end, and what it took.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;

/// How often the kernel is asked for a command's use of memory and CPU.
const POLL: Duration = Duration::from_millis(5);

pub(super) struct Done {
    pub(super) output: Output,
    pub(super) seconds: f64,
    /// Of all threads, user and system, up to 10 ms before its end or so.
    pub(super) cpu_seconds: f64,
    /// Most memory that was resident at once, bytes (proc(5): VmHWM).
    pub(super) peak_bytes: u64,
}

/// Runs a command; fails if it does.
pub(super) fn run(command: &mut Command) -> anyhow::Result<Done> {
    let started = Instant::now();
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("start it")?;
    let process = Path::new("/proc").join(child.id().to_string());
    let (mut cpu_seconds, mut peak_bytes) = (0.0, 0);
    // Its output is a few lines: no pipe fills before it ends.
    while child.try_wait()?.is_none() {
        let read = |name: &str| std::fs::read_to_string(process.join(name)).unwrap_or_default();
        peak_bytes = peak(&read("status")).unwrap_or(peak_bytes);
        cpu_seconds = super::server::cpu_of(&read("stat")).unwrap_or(cpu_seconds);
        std::thread::sleep(POLL);
    }
    let seconds = started.elapsed().as_secs_f64();
    let output = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{command:?}: {text}");
    Ok(Done { output, seconds, cpu_seconds, peak_bytes })
}

fn peak(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}
