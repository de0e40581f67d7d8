//! Clients that read while others write: what is acknowledged is found at once through another process, and whatever
//! part of a session is read is a line.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use quipu_core::store::conformance::Dice;
use serde_json::Value;

use super::clients::{Ledger, agent};
use super::servers::Servers;

/// Reads until it is told to stop.
pub(super) fn read(
    client: usize,
    seed: u64,
    servers: &Servers,
    readers: Range<usize>,
    ledger: &Ledger,
    stop: &AtomicBool,
) -> anyhow::Result<()> {
    let mut dice = Dice::new(seed.wrapping_mul(2000) + client as u64);
    let agent = agent();
    while !stop.load(Ordering::SeqCst) {
        thread::sleep(Duration::from_millis(20 + dice.below(80)));
        let server = readers.start + dice.below(readers.len() as u64) as usize;
        let (Some(url), Some(recent)) = (servers.url(server), ledger.recent(&mut dice)) else { continue };
        let get = |path: &str| get(&agent, &format!("{url}{path}"), ledger);
        match dice.below(8) {
            0..=3 => {
                let Some(event) = get(&format!("/v1/events/{}", recent.id)) else { continue };
                let right = event["session_id"] == recent.session.as_str()
                    && event["sequence"] == recent.sequence
                    && event["hash"] == recent.hash.as_str();
                if !right {
                    ledger.violation(format!("{} was acknowledged otherwise: {event}", recent.id));
                }
            }
            4..=6 => {
                // The page ends with the acknowledged event, or holds it.
                let from = recent.sequence.saturating_sub(dice.below(20));
                let path = format!("/v1/sessions/{}/events?from_sequence={from}&limit=50", recent.session);
                let Some(page) = get(&path) else { continue };
                line(&page, from, &recent.hash, recent.sequence, ledger);
            }
            _ => {
                let path = ["/v1/sessions?limit=10", "/v1/events?limit=20"][dice.below(2) as usize];
                if let Some(page) = get(path)
                    && page
                        .as_object()
                        .is_none_or(|page| page.values().all(|v| v.as_array().is_none_or(Vec::is_empty)))
                {
                    ledger.violation(format!("{path} is empty: {page}"));
                }
            }
        }
    }
    Ok(())
}

/// A run of a session without a gap, each event chained on the one before, the acknowledged one among them.
fn line(page: &Value, from: u64, hash: &str, sequence: u64, ledger: &Ledger) {
    let mut next = from;
    let mut prev: Option<&Value> = None;
    let mut found = false;
    for event in page["events"].as_array().into_iter().flatten() {
        if event["sequence"] != next || prev.is_some_and(|prev| *prev != event["prev_hash"]) {
            ledger.violation(format!("not one line at {next}: {event}"));
            return;
        }
        found |= event["sequence"] == sequence && event["hash"] == hash;
        prev = Some(&event["hash"]);
        next += 1;
    }
    // A page may end early for its size.
    if !found && next > sequence {
        ledger.violation(format!("sequence {sequence} is not {hash} any more: {page}"));
    }
    if next == from {
        ledger.violation(format!("nothing at {from}, though {sequence} was acknowledged"));
    }
}

/// Nothing if the server was busy or dead; anything else than 200 is a violation.
fn get(agent: &ureq::Agent, url: &str, ledger: &Ledger) -> Option<Value> {
    ledger.reads.fetch_add(1, Ordering::SeqCst);
    let failed = || {
        ledger.reads_failed.fetch_add(1, Ordering::SeqCst);
        None
    };
    let Ok(mut answer) = agent.get(url).call() else { return failed() };
    let Ok(text) = answer.body_mut().read_to_string() else { return failed() };
    match answer.status().as_u16() {
        200 => serde_json::from_str(&text).ok(),
        503 => failed(),
        status => {
            ledger.violation(format!("{url} was answered with {status}: {text}"));
            None
        }
    }
}
