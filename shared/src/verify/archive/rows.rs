//! The rows of one batch: held against its header, the chain, and what their payloads give (docs/format.md, section 8,
//! steps 7 to 11, but for the root).
//!
//! Pure and by itself, so that several batches can be checked at once. What it keeps is bounded by the batch: the
//! hashes of its events, and its distinct agents and types.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use bytes::Bytes;

use super::facts::Facts;
use crate::archive::{BatchReader, Derived, Row};
use crate::chain::{ChainCheck, Hashes};
use crate::ids::{CommitId, EventHash, Seq, SessionId, TenantId};
use crate::log::bloom::Bloom;
use crate::log::header::{BatchHeader, Blooms, Run};
use crate::time::Micros;
use crate::verify::erased::Erasures;
use crate::verify::receipts::Wanted;
use crate::verify::{Bad, Code, HashedBytes};

/// What the rows of a batch gave.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// Hashes of the events, in the order of rows.
    pub(super) hashes: Vec<EventHash>,
    /// For each run, the hash of the event before its first.
    pub(super) before: Vec<EventHash>,
    /// For each run, what a data directory wants to know; nothing if it was not asked for.
    pub(super) facts: Vec<Vec<u8>>,
    /// Events that receipts name: index of the run, sequence, hash.
    pub(super) found: Vec<(usize, u64, EventHash)>,
    /// Events whose content is erased, and tombstones.
    pub(super) erasures: Erasures,
    /// Bytes that the hashes are over.
    pub(super) bytes: u64,
}

/// The first thing that is wrong with a batch's rows.
#[derive(Debug)]
pub(super) struct BadRow {
    pub(super) bad: Bad,
    pub(super) session: Option<SessionId>,
    pub(super) sequence: Option<Seq>,
}

impl From<Bad> for BadRow {
    fn from(bad: Bad) -> Self {
        Self { bad, session: None, sequence: None }
    }
}

fn header(why: impl Into<String>) -> Bad {
    Bad::new(Code::Header, why)
}

/// Checks the object of a batch, whose bytes are those that its header or one of its records names.
///
/// # Errors
/// The first thing that is wrong.
pub(super) fn check(
    batch: &BatchHeader,
    object: Bytes,
    wanted: &Wanted,
    with_facts: bool,
) -> Result<Rows, BadRow> {
    let bad = |why: String| Bad::new(Code::Object, why);
    let reader = BatchReader::open(object).map_err(|e| bad(format!("{}: {e}", batch.key)))?;
    let mut check = Check::new(batch, wanted, with_facts);
    let end = reader
        .chunks(|rows| match check.rows(rows) {
            Ok(()) => ControlFlow::Continue(()),
            Err(bad) => ControlFlow::Break(bad),
        })
        .map_err(|e| bad(format!("{}: {e}", batch.key)))?;
    match end {
        Some(bad) => Err(bad),
        None => check.finish().map_err(BadRow::from),
    }
}

/// The run that is being read.
struct Current<'a> {
    run: &'a Run,
    /// Sequence of its next row.
    next: u64,
    chain: ChainCheck,
    hashed: HashedBytes,
    /// Sequences that receipts name.
    wanted: Option<&'a HashMap<u64, Option<EventHash>>>,
    facts: Option<Facts>,
}

struct Check<'a> {
    batch: &'a BatchHeader,
    wanted: &'a Wanted,
    with_facts: bool,
    /// Runs that are read, the current one included.
    runs: usize,
    current: Option<Current<'a>>,
    /// Last hash of each run that is read.
    ends: Vec<EventHash>,
    /// Distinct values, each looked up for a row only if it is another than the row's before.
    agents: HashSet<String>,
    types: HashSet<String>,
    last_agent: String,
    last_type: String,
    commits: Option<(CommitId, CommitId)>,
    times: Option<(Micros, Micros)>,
    rows: Rows,
}

impl<'a> Check<'a> {
    fn new(batch: &'a BatchHeader, wanted: &'a Wanted, with_facts: bool) -> Self {
        Self {
            batch,
            wanted,
            with_facts,
            runs: 0,
            current: None,
            ends: Vec::new(),
            agents: HashSet::new(),
            types: HashSet::new(),
            last_agent: String::new(),
            last_type: String::new(),
            commits: None,
            times: None,
            rows: Rows::default(),
        }
    }

    /// Checks some rows, their hashes together.
    fn rows(&mut self, rows: &[Row<'_>]) -> Result<(), BadRow> {
        let mut hashes = Hashes::default();
        let end = rows.iter().try_for_each(|row| self.row(row, &mut hashes));
        // A wrong hash comes before whatever else is wrong with its row or a later one.
        if let Some((index, error)) = hashes.first_wrong() {
            let (session, sequence) = (rows[index].session_id, u64::try_from(rows[index].sequence));
            return Err(BadRow {
                bad: error.into(),
                session: SessionId::parse(session).ok(),
                sequence: sequence.ok().and_then(Seq::new),
            });
        }
        end
    }

    /// Checks a row, but for its hash.
    fn row<'r>(&mut self, row: &Row<'r>, hashes: &mut Hashes<'r>) -> Result<(), BadRow> {
        if self.current.is_none() {
            let run =
                self.batch.runs.get(self.runs).ok_or_else(|| header("more rows than the header has"))?;
            self.runs += 1;
            self.current = Some(Current {
                run,
                next: run.first.get(),
                // Started for good once the first row says what is before it.
                chain: ChainCheck::new(&self.batch.tenant, &run.session_id),
                hashed: HashedBytes::new(&self.batch.tenant, &run.session_id),
                wanted: self.wanted.get(&self.batch.tenant, &run.session_id),
                facts: None,
            });
        }
        let current = self.current.as_mut().expect("it was just made");
        let is_next = u64::try_from(row.sequence) == Ok(current.next);
        if !is_next || row.session_id != current.run.session_id.as_str() {
            return Err(header(format!(
                "expected the row of session {:?} and sequence {}, found {:?} and {}",
                current.run.session_id.as_str(),
                current.next,
                row.session_id,
                row.sequence
            ))
            .into());
        }
        let place = |bad: Bad| BadRow {
            bad,
            session: Some(current.run.session_id.clone()),
            sequence: Seq::new(current.next),
        };
        let is_first = current.next == current.run.first.get();
        let event = row.event((!is_first).then(|| current.chain.head())).map_err(|e| place(e.into()))?;
        if is_first && event.sequence > Seq::ZERO {
            let session = &current.run.session_id;
            current.chain = ChainCheck::resume(&self.batch.tenant, session, event.sequence, event.prev_hash);
        }
        current.chain.push_unhashed(&event, hashes).map_err(|e| BadRow {
            bad: e.into(),
            session: Some(current.run.session_id.clone()),
            sequence: Seq::new(current.next),
        })?;
        if let Some(column) = differing(&Derived::of(event.event_type, &event.content), &row.derived) {
            return Err(BadRow {
                bad: Bad::new(Code::Derived, format!("{column} is not what the payload gives")),
                session: Some(current.run.session_id.clone()),
                sequence: Seq::new(current.next),
            });
        }
        if is_first {
            self.rows.before.push(event.prev_hash);
        }
        self.rows.hashes.push(event.hash);
        self.rows.erasures.see(&current.run.session_id, &event);
        self.rows.bytes += current.hashed.of(&event);
        if current.wanted.is_some_and(|wanted| wanted.contains_key(&current.next)) {
            self.rows.found.push((self.runs - 1, current.next, event.hash));
        }
        if self.with_facts {
            match &mut current.facts {
                Some(facts) => facts.push(&event),
                none => *none = Some(Facts::of(&event)),
            }
        }
        if self.last_agent != row.agent_id {
            row.agent_id.clone_into(&mut self.last_agent);
            note(&mut self.agents, row.agent_id);
        }
        if self.last_type != row.event_type {
            row.event_type.clone_into(&mut self.last_type);
            note(&mut self.types, row.event_type);
        }
        self.commits = Some(widened(self.commits, event.event_id.commit()));
        self.times = Some(widened(self.times, event.timestamp));
        if current.next == current.run.last.get() {
            self.ends.push(event.hash);
            if let Some(facts) = current.facts.take() {
                self.rows.facts.push(facts.encode());
            }
            self.current = None;
        } else {
            current.next += 1;
        }
        Ok(())
    }

    fn finish(self) -> Result<Rows, Bad> {
        let batch = self.batch;
        if self.current.is_some() || self.runs < batch.runs.len() {
            return Err(header("rows of the header's runs are missing"));
        }
        for (run, end) in batch.runs.iter().zip(&self.ends) {
            if run.hash != *end {
                let session = run.session_id.as_str();
                return Err(header(format!(
                    "the run of session {session:?} ends with hash {end}, found {}",
                    run.hash
                )));
            }
        }
        if self.rows.hashes.len() as u64 != batch.count {
            return Err(header(format!("expected {} rows, found {}", batch.count, self.rows.hashes.len())));
        }
        if self.commits != Some(batch.commits) {
            return Err(header("commit_first and commit_last are not what the rows give"));
        }
        if self.times != Some(batch.times) {
            return Err(header("time_min and time_max are not what the rows give"));
        }
        let of = |values: &HashSet<String>| Bloom::of(values.iter().map(String::as_str));
        let blooms = Blooms {
            sessions: Bloom::of(batch.runs.iter().map(|run| run.session_id.as_str())),
            agents: of(&self.agents),
            types: of(&self.types),
        };
        if blooms != batch.blooms {
            return Err(header("a bloom filter is not what the rows give"));
        }
        Ok(self.rows)
    }
}

fn note(values: &mut HashSet<String>, value: &str) {
    if !values.contains(value) {
        values.insert(value.to_owned());
    }
}

fn widened<T: Ord + Copy>(range: Option<(T, T)>, value: T) -> (T, T) {
    range.map_or((value, value), |(low, high)| (low.min(value), high.max(value)))
}

/// The first derived column that is another than it must be.
fn differing(expected: &Derived<'_>, found: &Derived<'_>) -> Option<&'static str> {
    // A double is compared by its bits: -0.0 is not 0.0.
    let bits = |value: Option<f64>| value.map(f64::to_bits);
    let (e, f) = (expected, found);
    let columns = [
        ("tool_name", e.tool_name == f.tool_name),
        ("call_id", e.call_id == f.call_id),
        ("provider", e.provider == f.provider),
        ("model", e.model == f.model),
        ("input_tokens", e.input_tokens == f.input_tokens),
        ("output_tokens", e.output_tokens == f.output_tokens),
        ("total_tokens", e.total_tokens == f.total_tokens),
        ("cost_usd", e.cost_usd == f.cost_usd),
        ("duration_ms", bits(e.duration_ms) == bits(f.duration_ms)),
        ("success", e.success == f.success),
        ("trace_id", e.trace_id == f.trace_id),
        ("span_id", e.span_id == f.span_id),
    ];
    columns.into_iter().find(|(_, same)| !same).map(|(name, _)| name)
}

/// Makes a set of what receipts speak of a tenant's session; see [`Wanted`].
pub(super) fn found_in(
    wanted: &mut Wanted,
    tenant: &TenantId,
    runs: &[Run],
    found: &[(usize, u64, EventHash)],
) {
    for (run, sequence, hash) in found {
        if let Some(events) = wanted.of(tenant, &runs[*run].session_id) {
            events.entry(*sequence).and_modify(|seen| {
                seen.get_or_insert(*hash);
            });
        }
    }
}
