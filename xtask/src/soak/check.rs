//! After all of it: every session is exported, verified offline against every receipt, and held to what the clients
//! were told.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use super::clients::{End, Ledger, Told};
use super::servers::Servers;
use crate::shell::target;

/// Sessions exported at once, each from a server of its own.
const AT_ONCE: usize = 4;

/// Where an event stands.
struct Found {
    session: String,
    sequence: u64,
    hash: String,
}

/// By mark and number in the batch: everywhere that it stands.
type Places = HashMap<(String, u64), Vec<Found>>;

/// The largest export may take some time to be written.
fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().proxy(None).timeout_global(Some(Duration::from_secs(300))).build().into()
}

/// Checks everything; what is wrong is told to the ledger. Gives a summary.
pub(super) fn check(ledger: &Ledger, servers: &Servers, place: &Path) -> anyhow::Result<String> {
    let started = Instant::now();
    servers.settle();
    let (url, agent) = (servers.url(0).context("a server that runs")?, agent());
    let key: Value =
        serde_json::from_str(&agent.get(format!("{url}/v1/log/key")).call()?.body_mut().read_to_string()?)?;
    let key_file = place.join("log.pub");
    fs::write(&key_file, key["log_key"].as_str().context("a log key")?)?;

    let sessions = ledger.sessions();
    let share = sessions.len().div_ceil(AT_ONCE).max(1);
    let checked: Vec<anyhow::Result<Checked>> = thread::scope(|scope| {
        let share_of = |(worker, sessions)| {
            let (url, key_file) = (servers.url(worker), &key_file);
            let place = place.join(format!("check-{worker}"));
            scope.spawn(move || some(sessions, &url.context("a server that runs")?, key_file, &place, ledger))
        };
        let workers: Vec<_> = sessions.chunks(share).enumerate().map(share_of).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|_| bail!("a check panicked")))
            .collect()
    });
    let mut all = Checked::default();
    for checked in checked {
        let Checked { sessions, events, receipts, places } = checked?;
        all.sessions += sessions;
        all.events += events;
        all.receipts += receipts;
        for (mark, found) in places {
            all.places.entry(mark).or_default().extend(found);
        }
    }
    let Checked { sessions, events, receipts, places } = all;
    let (mut there, mut unknown) = (0, 0);
    ledger
        .with_batches(|batches| {
            let mut wrong = Vec::new();
            for (mark, end) in batches {
                match end {
                    End::Acknowledged(told) => wrong.extend(acknowledged(mark, told, &places)),
                    End::Refused(count) | End::Unknown(count) => {
                        let counts: Vec<usize> = (0..*count as u64)
                            .map(|i| places.get(&(mark.clone(), i)).map_or(0, Vec::len))
                            .collect();
                        let whole = counts.iter().all(|n| *n == 1);
                        let absent = counts.iter().all(|n| *n == 0);
                        let may_be = matches!(end, End::Unknown(_));
                        unknown += usize::from(may_be);
                        there += usize::from(may_be && whole);
                        if !(absent || may_be && whole) {
                            wrong.push(format!(
                                "{mark} was not acknowledged, and its events are there so often: {counts:?}"
                            ));
                        }
                    }
                }
            }
            wrong
        })
        .into_iter()
        .for_each(|what| ledger.violation(what));
    // Nothing stands there that nobody sent.
    let known = ledger.with_batches(|batches| places.keys().all(|(mark, _)| batches.contains_key(mark)));
    ensure!(known, "an event of a batch that was never sent");
    Ok(format!(
        "checked in {:.0} s: {sessions} sessions and {events} events, each export verified against its receipts \
         ({receipts} in all); of {unknown} batches of unknown outcome {there} are there",
        started.elapsed().as_secs_f64()
    ))
}

/// What came of some of the sessions.
#[derive(Default)]
struct Checked {
    sessions: u64,
    events: u64,
    receipts: usize,
    places: Places,
}

/// Exports and verifies them one by one.
fn some(
    sessions: &[String],
    url: &str,
    key: &Path,
    place: &Path,
    ledger: &Ledger,
) -> anyhow::Result<Checked> {
    fs::create_dir_all(place)?;
    let (agent, mut checked) = (agent(), Checked::default());
    for session in sessions {
        let mut answer = match agent.get(format!("{url}/v1/sessions/{session}/export")).call() {
            Ok(answer) => answer,
            // Nothing of what was sent to it was acknowledged; otherwise the batches' own check says so.
            Err(ureq::Error::StatusCode(404)) => continue,
            Err(error) => return Err(error).with_context(|| format!("export {session}")),
        };
        let bundle = place.join("bundle.ndjson");
        std::io::copy(&mut answer.body_mut().as_reader(), &mut fs::File::create(&bundle)?)?;
        let receipts = ledger.receipts(session);
        let verdict = verify(&bundle, key, &receipts, place)?;
        if verdict["verdict"] != "VALID" {
            ledger.violation(format!("{session}: {verdict}"));
        }
        checked.sessions += 1;
        checked.receipts += receipts.len();
        checked.events += gather(&bundle, session, &mut checked.places)?;
    }
    Ok(checked)
}

fn verify(bundle: &Path, key: &Path, receipts: &[Value], place: &Path) -> anyhow::Result<Value> {
    let mut command = Command::new(target().join("debug/quipu"));
    command.arg("verify").arg(bundle).arg("--key").arg(key).arg("--json");
    if !receipts.is_empty() {
        let file = place.join("receipts.json");
        fs::write(&file, Value::from(receipts.to_vec()).to_string())?;
        command.arg("--receipt").arg(file);
    }
    let output = command.output().context("quipu verify")?;
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("quipu verify: {}", String::from_utf8_lossy(&output.stderr)))
}

/// Notes where each event of a bundle stands; gives how many there are.
fn gather(bundle: &Path, session: &str, places: &mut Places) -> anyhow::Result<u64> {
    let mut count = 0;
    for line in BufReader::new(fs::File::open(bundle)?).lines() {
        let line: Value = serde_json::from_str(&line?)?;
        if line["kind"] != "event" {
            continue;
        }
        count += 1;
        let payload: BTreeMap<String, Value> =
            serde_json::from_str(line["payload"].as_str().context("a payload")?)?;
        let mark = payload["mark"].as_str().context("a mark")?.to_owned();
        let number = payload["i"].as_u64().context("a number")?;
        let sequence = line["sequence"].as_u64().context("a sequence")?;
        let hash = line["hash"].as_str().context("a hash")?.to_owned();
        places.entry((mark, number)).or_default().push(Found { session: session.to_owned(), sequence, hash });
    }
    Ok(count)
}

/// Each event exactly once, and where it was said to be.
fn acknowledged(mark: &str, told: &[Told], places: &Places) -> Option<String> {
    for (number, told) in (0..).zip(told) {
        let found = places.get(&(mark.to_owned(), number)).map(Vec::as_slice).unwrap_or_default();
        let right =
            |at: &Found| (&at.session, at.sequence, &at.hash) == (&told.session, told.sequence, &told.hash);
        if found.len() != 1 || !found.iter().all(right) {
            let at: Vec<_> = found.iter().map(|at| format!("{}#{}", at.session, at.sequence)).collect();
            return Some(format!(
                "{mark}, event {number}, was acknowledged at {}#{} and is at {at:?}",
                told.session, told.sequence
            ));
        }
    }
    None
}
