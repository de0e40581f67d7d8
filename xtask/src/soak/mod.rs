//! `cargo xtask soak`: four ingesters and two readers as processes of their own on one emulated table, killed and
//! started again at random, behind wires that fail at random; clients that remember what they were told. At the end
//! every acknowledged event is there exactly once, where it was said to be; what was refused is not there; what is
//! unknown is there whole or not at all; and the export of every session is VALID against every receipt.
//!
//! Not part of the tests: it takes minutes, and its value lies in them.

#[cfg(feature = "soak")]
mod check;
#[cfg(feature = "soak")]
mod clients;
#[cfg(feature = "soak")]
mod readers;
#[cfg(feature = "soak")]
mod servers;

#[derive(clap::Args)]
pub(crate) struct SoakArgs {
    /// How long clients write.
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Whose DynamoDB; the keys are always ministack's.
    #[arg(long, value_enum, default_value_t = Table::Dynoxide)]
    emulator: Table,
    /// Of everything that is drawn by chance; without it, another each time.
    #[arg(long)]
    seed: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
enum Table {
    Dynoxide,
    Ministack,
}

/// Builds the server and this chore with the tests' tools in it, and runs that: the others do without them.
#[cfg(not(feature = "soak"))]
pub(crate) fn run(args: &SoakArgs) -> anyhow::Result<()> {
    use std::process::Command;

    use crate::shell::{self, cargo, target};
    use crate::tools;

    let build = ["build", "--quiet", "--workspace", "--all-features", "--bin", "quipu", "--bin", "xtask"];
    shell::run("build the server, and the tests' tools into this chore", cargo().args(build))?;
    let mut again = Command::new(target().join("debug/xtask"));
    again.env("QUIPU_TEST_MINISTACK", tools::ministack()?).env("QUIPU_TEST_DYNOXIDE", tools::dynoxide()?);
    again.args(["soak", "--minutes", &args.minutes.to_string()]);
    again.args(["--emulator", if args.emulator == Table::Dynoxide { "dynoxide" } else { "ministack" }]);
    if let Some(seed) = args.seed {
        again.args(["--seed", &seed.to_string()]);
    }
    shell::run("soak", &mut again)
}

#[cfg(feature = "soak")]
pub(crate) use soaked::run;

#[cfg(feature = "soak")]
mod soaked {
    use std::fs;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;
    use std::time::{Duration, Instant};

    use anyhow::{Context as _, bail};
    use quipu_core::random;
    use quipu_tests::emulator::{aws_env, fresh_table, kms_keys};
    use quipu_tests::{Emulator, WireFault};

    use super::clients::{self, Ledger};
    use super::servers::{self, Servers};
    use super::{SoakArgs, Table, check, readers};
    use crate::shell::target;

    const INGESTERS: usize = 4;
    const READERS: usize = 2;
    const CLIENTS: usize = 16;
    const READING_CLIENTS: usize = 4;

    /// What the wire between each server and the table does: one call in twenty meets a fault.
    const CHANCES: [(f64, WireFault); 8] = [
        (0.008, WireFault::DropReply),
        (0.008, WireFault::DropRequest),
        (0.005, WireFault::Status500),
        (0.008, WireFault::Status500AfterApply),
        (0.008, WireFault::Throttle),
        (0.008, WireFault::TransactionConflict),
        (0.004, WireFault::Slow(Duration::from_millis(2_500))),
        (0.001, WireFault::SlowAfterApply(Duration::from_millis(2_500))),
    ];

    pub(crate) fn run(args: &SoakArgs) -> anyhow::Result<()> {
        let seed = args.seed.unwrap_or_else(|| u64::from_le_bytes(random::bytes()) >> 32);
        let place = target().join("soak");
        if place.exists() {
            fs::remove_dir_all(&place).with_context(|| format!("remove {}", place.display()))?;
        }
        fs::create_dir_all(&place)?;
        let kms = Emulator::ministack().url();
        let dynamodb = match args.emulator {
            Table::Dynoxide => Emulator::dynoxide().url(),
            Table::Ministack => kms,
        };
        let (seal_key, log_key) = kms_keys(kms);
        let table = fresh_table(dynamodb);
        let environment = |dynamodb: &str| {
            let mut env = aws_env(dynamodb, Some(kms));
            for (name, value) in
                [("QUIPU_TABLE", &table), ("QUIPU_SEAL_KEY", &seal_key), ("QUIPU_LOG_KEY", &log_key)]
            {
                env.push((name.to_owned(), value.clone()));
            }
            env
        };
        let servers = Arc::new(Servers::start(INGESTERS + READERS, dynamodb, &environment, &place)?);
        println!("seed {seed}; {INGESTERS} ingesters and {READERS} readers on {dynamodb}, table {table}");
        let ledger = Arc::new(Ledger::default());
        let stop = Arc::new(AtomicBool::new(false));
        servers.fail_randomly(seed, &CHANCES);

        let started = Instant::now();
        let mut threads = Vec::new();
        for number in 0..CLIENTS {
            let (servers, ledger, stop) = (servers.clone(), ledger.clone(), stop.clone());
            threads.push(thread::spawn(move || {
                clients::write(number, seed, &servers, 0..INGESTERS, &ledger, &stop)
            }));
        }
        for number in 0..READING_CLIENTS {
            let (servers, ledger, stop) = (servers.clone(), ledger.clone(), stop.clone());
            threads.push(thread::spawn(move || {
                readers::read(number, seed, &servers, INGESTERS..INGESTERS + READERS, &ledger, &stop)
            }));
        }
        {
            let (servers, stop) = (servers.clone(), stop.clone());
            threads.push(thread::spawn(move || servers::kill_at_random(&servers, seed, &stop)));
        }
        let wanted = Duration::from_secs_f64(args.minutes * 60.0);
        let mut said = Instant::now();
        while started.elapsed() < wanted
            && ledger.violations().is_empty()
            && !threads.iter().any(|t| t.is_finished())
        {
            thread::sleep(Duration::from_millis(200));
            if said.elapsed() > Duration::from_secs(30) {
                said = Instant::now();
                println!("{:4.0} s: {}", started.elapsed().as_secs_f64(), ledger.line(&servers));
            }
        }
        stop.store(true, Ordering::SeqCst);
        let ran = started.elapsed();
        for thread in threads {
            match thread.join() {
                Ok(result) => result?,
                Err(_) => bail!("a client panicked"),
            }
        }
        servers.mend();
        println!("{}", ledger.summary(ran, &servers));
        let checked = check::check(&ledger, &servers, &place)?;
        println!("{checked}");
        let violations = ledger.violations();
        if violations.is_empty() {
            println!("soak: VALID");
            Ok(())
        } else {
            bail!("{} violations, the first: {}", violations.len(), violations[0])
        }
    }
}
