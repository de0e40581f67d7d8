//! The servers as processes, each behind a wire of its own, and what kills them.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use quipu_core::store::conformance::Dice;
use quipu_tests::{FaultProxy, WireFault};

use crate::shell::target;

/// Between two kills, of whichever server.
const KILL_EVERY_MS: (u64, u64) = (1_500, 5_000);

/// How long a server stays dead.
const DEAD_MS_MAX: u64 = 1_500;

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One server; between a kill and a start there is no process.
struct Server {
    proxy: FaultProxy,
    env: Vec<(String, String)>,
    log: PathBuf,
    running: Mutex<Option<(Child, String)>>,
}

impl Server {
    fn start(&self) -> anyhow::Result<()> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(target().join("debug/quipu"));
        command.args(["serve", "--store", "aws", "--listen", "127.0.0.1:0"]).envs(self.env.iter().cloned());
        command.env_remove("QUIPU_TOKEN").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().context("start a server")?;
        let mut lines = BufReader::new(child.stdout.take().context("its output")?).lines();
        let url = loop {
            let line = lines.next().with_context(|| format!("no server: see {}", self.log.display()))??;
            if let Some(at) = line.find("listening on ") {
                break line[at + "listening on ".len()..].trim().to_owned();
            }
        };
        thread::spawn(move || lines.for_each(drop));
        *lock(&self.running) = Some((child, url));
        Ok(())
    }

    fn kill(&self) {
        if let Some((mut child, _)) = lock(&self.running).take() {
            // SIGKILL; it may have ended by itself, which its clients would have noticed.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// All of them.
pub(super) struct Servers {
    all: Vec<Server>,
    kills: AtomicU64,
    restarts: AtomicU64,
    restart_ms_max: AtomicU64,
}

impl Servers {
    pub(super) fn start(
        count: usize,
        dynamodb: &str,
        environment: &dyn Fn(&str) -> Vec<(String, String)>,
        place: &Path,
    ) -> anyhow::Result<Self> {
        let mut all = Vec::with_capacity(count);
        for number in 0..count {
            let proxy = FaultProxy::start(dynamodb);
            let env = environment(proxy.url());
            let log = place.join(format!("server-{number}.log"));
            let server = Server { proxy, env, log, running: Mutex::default() };
            server.start()?;
            all.push(server);
        }
        let (kills, restarts, restart_ms_max) = Default::default();
        Ok(Self { all, kills, restarts, restart_ms_max })
    }

    pub(super) fn fail_randomly(&self, seed: u64, chances: &[(f64, WireFault)]) {
        for (number, server) in (0..).zip(&self.all) {
            server.proxy.fail_randomly(seed + number, chances);
        }
    }

    /// Where a server listens, if it runs.
    pub(super) fn url(&self, number: usize) -> Option<String> {
        lock(&self.all[number].running).as_ref().map(|(_, url)| url.clone())
    }

    /// No faults from now on; those that were met stay counted.
    pub(super) fn mend(&self) {
        for server in &self.all {
            server.proxy.fail_randomly(0, &[]);
        }
    }

    pub(super) fn faults(&self) -> u64 {
        self.all.iter().map(|server| server.proxy.faults()).sum()
    }

    pub(super) fn calls(&self) -> u64 {
        self.all.iter().flat_map(|server| server.proxy.all_calls().into_values()).sum()
    }

    /// Waits until nothing is under way any more that could still be applied.
    pub(super) fn settle(&self) {
        while self.all.iter().any(|server| server.proxy.under_way() > 0) {
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills, restarts, and the longest from spawn to ready.
    pub(super) fn deaths(&self) -> (u64, u64, u64) {
        let get = |count: &AtomicU64| count.load(Ordering::SeqCst);
        (get(&self.kills), get(&self.restarts), get(&self.restart_ms_max))
    }
}

/// Until it is told to stop; then all servers run.
pub(super) fn kill_at_random(servers: &Servers, seed: u64, stop: &AtomicBool) -> anyhow::Result<()> {
    let mut dice = Dice::new(seed ^ 0x6b69_6c6c);
    while !stop.load(Ordering::SeqCst) {
        thread::sleep(Duration::from_millis(KILL_EVERY_MS.0 + dice.below(KILL_EVERY_MS.1 - KILL_EVERY_MS.0)));
        let server = &servers.all[dice.below(servers.all.len() as u64) as usize];
        server.kill();
        servers.kills.fetch_add(1, Ordering::SeqCst);
        thread::sleep(Duration::from_millis(dice.below(DEAD_MS_MAX)));
        let started = Instant::now();
        // A fault on the wire may keep it from starting, as it may anywhere: whoever runs it tries again.
        let mut tries = 1;
        while let Err(error) = server.start() {
            tries += 1;
            if tries > 10 {
                return Err(error);
            }
        }
        servers.restarts.fetch_add(1, Ordering::SeqCst);
        servers.restart_ms_max.fetch_max(started.elapsed().as_millis() as u64, Ordering::SeqCst);
    }
    Ok(())
}
