//! Sending a window of lines: dealt out by session, batch by batch, and around lines that are refused.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use quipu_core::limits;
use serde::Deserialize;

use super::lines::{self, Line};
use super::state::batch_key;
use crate::client::{Answer, ApiFailure, Client, Request, Retry, send_patiently};
use crate::receipts;

/// How long a server that is busy or away is tried before an import gives up: a restart, or a short outage.
const PATIENCE: Duration = Duration::from_secs(10 * 60);

/// A line that the server refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    /// Its number.
    pub(super) line: u64,
    /// The server's words.
    pub(super) message: String,
    /// Its bytes.
    pub(super) bytes: Vec<u8>,
}

/// What became of a window.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// Numbers of lines that are done: stored, or left out.
    pub(super) stored: BTreeSet<u64>,
    /// Lines that were left out.
    pub(super) skipped: Vec<Refused>,
    /// The first line that was refused and may not be left out.
    pub(super) stopped: Option<Refused>,
    /// Receipts as the server wrote them.
    pub(super) receipts: Vec<String>,
    /// Requests that were stored.
    pub(super) batches: u64,
    /// Of these, how many had been stored before.
    pub(super) replayed: u64,
}

impl Sent {
    fn add(&mut self, other: Self) {
        self.stored.extend(other.stored);
        self.skipped.extend(other.skipped);
        self.skipped.sort_by_key(|refused| refused.line);
        self.receipts.extend(other.receipts);
        self.batches += other.batches;
        self.replayed += other.replayed;
        let first = self.stopped.take().into_iter().chain(other.stopped).min_by_key(|refused| refused.line);
        self.stopped = first;
    }
}

/// Sends windows.
pub(super) struct Sender<'a> {
    /// To whom.
    pub(super) client: &'a Client,
    /// Under which path.
    pub(super) path: &'static [&'static str],
    /// Which file the lines are of, for the keys.
    pub(super) file: &'a str,
    /// Whether lines that are refused are left out.
    pub(super) skip: bool,
}

impl Sender<'_> {
    /// Sends lines in batches over so many connections.
    ///
    /// # Errors
    /// If an answer did not come or was about something else than lines: then what was stored is not known, and the
    /// whole window is to be sent again.
    pub(super) fn send(
        &self,
        window: &[&Line],
        batch: usize,
        connections: usize,
        tell: &(dyn Fn(&str) + Sync),
    ) -> anyhow::Result<Sent> {
        let stop = AtomicBool::new(false);
        let lanes = deal(window, connections);
        let Some((last, others)) = lanes.split_last() else { return Ok(Sent::default()) };
        let run = |lane: &[&Line]| {
            let sent = self.send_lane(lane, batch, &stop, tell);
            if !matches!(&sent, Ok(Sent { stopped: None, .. })) {
                stop.store(true, Ordering::Relaxed);
            }
            sent
        };
        let results: Vec<anyhow::Result<Sent>> = std::thread::scope(|scope| {
            let run = &run;
            let handles: Vec<_> = others.iter().map(|lane| scope.spawn(move || run(lane))).collect();
            let mut results = vec![run(last)];
            let panicked = || Err(anyhow::anyhow!("a connection's thread ended badly"));
            results.extend(handles.into_iter().map(|handle| handle.join().unwrap_or_else(|_| panicked())));
            results
        });
        let mut all = Sent::default();
        for sent in results {
            all.add(sent?);
        }
        Ok(all)
    }

    fn send_lane(
        &self,
        lane: &[&Line],
        batch: usize,
        stop: &AtomicBool,
        tell: &dyn Fn(&str),
    ) -> anyhow::Result<Sent> {
        let mut sent = Sent::default();
        for batch in lines::batches(lane, batch) {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            self.send_batch(batch, &mut sent, tell)?;
            if sent.stopped.is_some() {
                break;
            }
        }
        Ok(sent)
    }

    fn send_batch(&self, batch: &[&Line], sent: &mut Sent, tell: &dyn Fn(&str)) -> anyhow::Result<()> {
        let Some(first) = batch.first() else { return Ok(()) };
        let too_long = batch.iter().position(|line| line.bytes.len() >= limits::BODY_BYTES_MAX);
        if let Some(index) = too_long {
            // The server would close the connection before it has read that much, and could not say why.
            let (limit, length) = (limits::BODY_BYTES_MAX, batch[index].bytes.len());
            let message = format!("the line is {length} bytes long, body_bytes_max is {limit}");
            return self.around(batch, BTreeMap::from([(index, message)]), sent, tell);
        }
        let body = lines::join(batch.iter().copied());
        let key = batch_key(self.file, first.number, &body);
        let request = Request::post_lines(self.path, &body).keyed(Some(&key));
        match send_patiently(self.client, &request, Retry { patience: PATIENCE }, tell)? {
            Answer::Accepted(reply) => {
                sent.replayed += u64::from(reply.headers.contains_key("idempotent-replayed"));
                sent.receipts.extend(receipts::of_reply(&reply.text()?)?);
                sent.batches += 1;
                sent.stored.extend(batch.iter().map(|line| line.number));
                Ok(())
            }
            Answer::Refused(failure) if matches!(failure.status, 400 | 413) => {
                let mut faults = faults(&failure, batch.len());
                if faults.is_empty() && batch.len() > 1 {
                    // Too much together, or not said which: smaller batches tell.
                    let (one, other) = batch.split_at(batch.len() / 2);
                    self.send_batch(one, sent, tell)?;
                    return if sent.stopped.is_none() { self.send_batch(other, sent, tell) } else { Ok(()) };
                }
                if faults.is_empty() {
                    faults.insert(0, failure.message);
                }
                self.around(batch, faults, sent, tell)
            }
            Answer::Refused(failure) => Err(failure.into()),
        }
    }

    /// Sends a batch without the lines that are refused; or, if they may not be left out, what is before the first.
    fn around(
        &self,
        batch: &[&Line],
        faults: BTreeMap<usize, String>,
        sent: &mut Sent,
        tell: &dyn Fn(&str),
    ) -> anyhow::Result<()> {
        let refused = |index: usize, message: String| Refused {
            line: batch[index].number,
            message,
            bytes: batch[index].bytes.clone(),
        };
        if !self.skip {
            let Some((index, message)) = faults.into_iter().next() else { return Ok(()) };
            self.send_batch(&batch[..index], sent, tell)?;
            // A line before it may have been refused too, once it was looked at alone.
            if sent.stopped.is_none() {
                sent.stopped = Some(refused(index, message));
            }
            return Ok(());
        }
        let rest: Vec<&Line> = batch
            .iter()
            .enumerate()
            .filter(|(at, _)| !faults.contains_key(at))
            .map(|(_, line)| *line)
            .collect();
        for (index, message) in faults {
            sent.stored.insert(batch[index].number);
            sent.skipped.push(refused(index, message));
        }
        self.send_batch(&rest, sent, tell)
    }
}

/// Which lines of a batch are refused, and why: the paths of the server's issues begin with the index.
fn faults(failure: &ApiFailure, count: usize) -> BTreeMap<usize, String> {
    let mut faults = BTreeMap::new();
    for issue in &failure.issues {
        let (index, rest) = issue.path.split_once('.').unwrap_or((&issue.path, ""));
        let Some(index) = index.parse().ok().filter(|index: &usize| *index < count) else { continue };
        let separator = if rest.is_empty() { "" } else { ": " };
        let text: &mut String = faults.entry(index).or_default();
        if !text.is_empty() {
            text.push_str("; ");
        }
        text.push_str(&format!("{rest}{separator}{}", issue.message));
    }
    faults
}

/// Deals lines out to lanes by session: one session's lines are all in one lane, in order.
fn deal<'l>(window: &[&'l Line], lanes: usize) -> Vec<Vec<&'l Line>> {
    let mut dealt = vec![Vec::new(); lanes.max(1)];
    let count = dealt.len() as u64;
    for line in window {
        // The remainder is below the number of lanes, which fits.
        let lane = if count == 1 { 0 } else { (session_hash(&line.bytes) % count) as usize };
        dealt[lane].push(*line);
    }
    dealt.retain(|lane| !lane.is_empty());
    dealt
}

#[derive(Deserialize)]
struct SessionOf<'l> {
    #[serde(borrow, alias = "run_id", alias = "sessionId")]
    session_id: Cow<'l, str>,
}

/// FNV-1a of the session's id: the same in every build, since a later run must deal as this one did. A line without
/// a session is refused by the server wherever it goes.
fn session_hash(line: &[u8]) -> u64 {
    let read: Option<SessionOf<'_>> = serde_json::from_slice(line).ok();
    let session = read.map(|read| read.session_id).unwrap_or_default();
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    session.bytes().fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Issue;

    fn line(number: u64, session: &str) -> Line {
        let bytes = format!("{{\"session_id\":\"{session}\",\"payload\":{{\"session_id\":1}}}}").into_bytes();
        Line { bytes, number, start: 0, end: 0 }
    }

    #[test]
    fn a_session_stays_in_one_lane_and_in_order() {
        let held: Vec<Line> = (0..100).map(|n| line(n, &format!("s{}", n % 7))).collect();
        let refs: Vec<&Line> = held.iter().collect();
        let lanes = deal(&refs, 4);
        assert!(lanes.len() > 1);
        assert_eq!(lanes.iter().map(Vec::len).sum::<usize>(), 100);
        for n in 0..7 {
            let with: Vec<_> = lanes.iter().filter(|lane| lane.iter().any(|l| l.number % 7 == n)).collect();
            assert_eq!(with.len(), 1);
        }
        assert!(lanes.iter().all(|lane| lane.is_sorted_by_key(|l| l.number)));
        assert_eq!(session_hash(br#"{"sessionId":"a\u0062"}"#), session_hash(br#"{"session_id":"ab"}"#));
    }

    #[test]
    fn faults_are_found_by_the_index_in_their_paths() {
        let issue = |path: &str, message: &str| Issue { path: path.into(), message: message.into() };
        let failure = ApiFailure {
            status: 400,
            code: "validation_failed".into(),
            message: "m".into(),
            request_id: None,
            issues: vec![
                issue("3.payload.x", "required"),
                issue("3.agent_id", "too long"),
                issue("0", "bad"),
                issue("99", "?"),
                issue("", "?"),
            ],
            retry_after: None,
        };
        let found = faults(&failure, 10);
        let expected = [(0, "bad".to_owned()), (3, "payload.x: required; agent_id: too long".to_owned())];
        assert_eq!(found, BTreeMap::from(expected));
    }
}
