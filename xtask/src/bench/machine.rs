//! The machine's own limits: what no server on it could pass.

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Processor and cores.
pub(crate) fn processor() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|l| l.strip_prefix("model name")).unwrap_or(": unknown");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{} × {cores}", model.trim_start_matches(['\t', ' ', ':']))
}

/// Processor, cores, and how long it takes to make 4 KiB and 1 MiB durable.
pub(crate) fn describe(scratch: &Path) -> anyhow::Result<String> {
    let mut out = String::from("| | |\n|---|---|\n");
    let _ = writeln!(out, "| processor | {} |", processor());
    for (name, size) in [("4 KiB", 4096), ("1 MiB", 1 << 20)] {
        let _ = writeln!(out, "| write and fsync {name} | {:.2} ms |", fsync_ms(scratch, size)?);
    }
    if let Some(rate) = openssl_sha256(16384)? {
        let _ = writeln!(out, "| `openssl speed sha256`, blocks of 16 KiB | {:.0} MB/s |", rate / 1e6);
    }
    Ok(out)
}

/// Median time to append `size` bytes to a file and make them durable, ms.
fn fsync_ms(scratch: &Path, size: usize) -> anyhow::Result<f64> {
    let path = scratch.join("fsync");
    let mut file = std::fs::File::create(&path)?;
    let block = vec![0x5a; size];
    let mut times = Vec::new();
    let until = Instant::now() + Duration::from_secs(1);
    while Instant::now() < until {
        let started = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        times.push(started.elapsed().as_secs_f64() * 1e3);
    }
    std::fs::remove_file(path)?;
    times.sort_by(f64::total_cmp);
    Ok(super::load::percentile(&times, 50.0))
}

/// Bytes a second that OpenSSL hashes on one thread in blocks of this size; `None` if it is not installed.
pub(crate) fn openssl_sha256(block: u64) -> anyhow::Result<Option<f64>> {
    let bytes = block.to_string();
    let run =
        Command::new("openssl").args(["speed", "-seconds", "2", "-bytes", &bytes, "-evp", "sha256"]).output();
    let Ok(output) = run else { return Ok(None) };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // The last line ends in thousands of bytes a second: `sha256  1234567.89k`.
    let rate =
        text.lines().last().and_then(|l| l.split_whitespace().last()).and_then(|t| t.strip_suffix('k'));
    Ok(rate.and_then(|t| t.parse::<f64>().ok()).map(|thousands| thousands * 1000.0))
}

/// Bytes of blocks in use by everything under a directory.
pub(crate) fn disk_bytes(directory: &Path) -> anyhow::Result<u64> {
    let mut total = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        // st_blocks counts 512-byte units (stat(2)), so holes in a sparse file cost nothing.
        total += if meta.is_dir() { disk_bytes(&entry.path())? } else { meta.blocks() * 512 };
    }
    Ok(total)
}
