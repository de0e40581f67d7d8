//! The check of an evidence bundle, as a stream (docs/format.md, section 5).
//!
//! What is kept grows with the number of sessions and receipts; of events nothing is kept, but if the bundle has a
//! checkpoint the hashes of the session that is being read, which its proofs are over.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};
use std::path::Path;

use crate::bundle::{self, BundleRecord, EventRecord, ProofRecord, Record};
use crate::chain::{ChainCheck, ChainError};
use crate::erasure;
use crate::ids::{Seq, SessionId, TenantId};
use crate::json::{Kind, Reader};
use crate::limits;
use crate::log::checkpoint::Checkpoint;
use crate::log::merkle::{self, Hash};
use crate::note::VerifierKey;
use crate::statement::{Says, Standing};

use super::checkpoints::GivenCheckpoint;
use super::erased::Erasures;
use super::keys::{Keys, Rotations};
use super::receipts::{Wanted, hold};
use super::{Bad, Code, Finding, HashedBytes, Options, Report, Verdict};

/// Checks a bundle. `progress` is told how many bytes were read, at least once for each megabyte.
pub fn verify_bundle(mut reader: impl BufRead, options: &Options, progress: &dyn Fn(u64)) -> Report {
    let mut check = Check::new(options);
    let mut line = Vec::new();
    let (mut read, mut told) = (0, 0);
    let end = loop {
        line.clear();
        // One byte more than a line may have, newline and all, so that a longer one is seen to be.
        match (&mut reader).take(limits::BUNDLE_LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line) {
            Ok(0) => break check.finish(),
            Ok(count) => read += count as u64,
            Err(e) => break Ok(Some((Code::Unreadable, e.to_string()))),
        }
        if let Err(bad) = check.take_line(&line) {
            break Err(bad);
        }
        if read - told >= 1 << 20 {
            told = read;
            progress(read);
        }
    };
    progress(read);
    check.report(end)
}

/// Checks a bundle in a file. One that cannot be opened is INCOMPLETE.
pub fn verify_bundle_file(path: &Path, options: &Options, progress: &dyn Fn(u64)) -> Report {
    match File::open(path) {
        Ok(file) => verify_bundle(BufReader::with_capacity(1 << 18, file), options, progress),
        Err(e) => Report::unreadable(format!("{}: {e}", path.display())),
    }
}

/// Which records may come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The first line.
    Start,
    /// A rotation. Anything else ends them.
    Rotations,
    /// The checkpoint, a session, or the end.
    Checkpoint,
    /// A session, or the end.
    Between,
    /// A session's first event.
    Session,
    /// An event, a proof, or the session's head.
    Events,
    /// A proof, or the session's head.
    Proofs,
    /// Nothing.
    Ended,
}

/// What the lines before the first session gave.
struct Opened {
    tenant: TenantId,
    log_key: VerifierKey,
    certificates: Vec<String>,
    rotations: Rotations,
    /// Once the rotations are read.
    keys: Option<Keys>,
    checkpoint: Option<Checkpoint>,
}

impl Opened {
    fn keys(&self) -> &Keys {
        self.keys.as_ref().expect("the keys were settled after the rotations")
    }
}

/// The session that is being read.
struct Current {
    session: SessionId,
    chain: ChainCheck,
    hashed: HashedBytes,
    /// The leaves of its events, if there is a checkpoint.
    leaves: Vec<Hash>,
    /// Events below this sequence are proved.
    proved: u64,
}

struct Check<'o> {
    options: &'o Options,
    state: State,
    opened: Option<Opened>,
    current: Option<Current>,
    wanted: Wanted,
    seen: HashSet<SessionId>,
    erasures: Erasures,
    events: u64,
    /// Events that proofs found in the log.
    proved: u64,
    bytes_hashed: u64,
    /// The place, for a finding.
    line: Option<u64>,
    session: Option<SessionId>,
    sequence: Option<Seq>,
}

impl<'o> Check<'o> {
    fn new(options: &'o Options) -> Self {
        Self {
            options,
            state: State::Start,
            opened: None,
            current: None,
            wanted: Wanted::new(&options.receipts),
            seen: HashSet::new(),
            erasures: Erasures::default(),
            events: 0,
            proved: 0,
            bytes_hashed: 0,
            line: Some(0),
            session: None,
            sequence: None,
        }
    }

    fn take_line(&mut self, data: &[u8]) -> Result<(), Bad> {
        self.line = self.line.map(|line| line + 1);
        self.sequence = None;
        if self.state == State::Ended {
            return Err(Bad::new(Code::Truncated, "expected nothing after the end record"));
        }
        let record = match read_line(data) {
            Ok(record) => record,
            Err(bad) => {
                // What is no rotation ends them, whatever is wrong with it.
                if self.state == State::Rotations && !is_rotation(data) {
                    self.settle_keys()?;
                }
                return Err(bad);
            }
        };
        if self.state == State::Rotations && !matches!(record, Record::Rotation(_)) {
            self.settle_keys()?;
        }
        let expected = match (&record, self.state) {
            (Record::Bundle(_), State::Start)
            | (Record::Rotation(_), State::Rotations)
            | (Record::Checkpoint(_), State::Checkpoint)
            | (
                Record::Session(_) | Record::End { .. },
                State::Checkpoint | State::Between | State::Session,
            )
            | (Record::Event(_), State::Session | State::Events)
            | (Record::Proof(_), State::Events | State::Proofs)
            | (Record::Head(_), State::Session | State::Events | State::Proofs) => None,
            (_, State::Start) => Some("the bundle record"),
            (_, State::Rotations) => Some("a rotation"),
            (_, State::Checkpoint) => Some("the checkpoint, a session or the end"),
            (_, State::Between) => Some("a session or the end"),
            (_, State::Session) => Some("an event"),
            (_, State::Events) => Some("an event, a proof or the head of the session"),
            (_, State::Proofs) => Some("a proof or the head of the session"),
            (_, State::Ended) => Some("nothing"),
        };
        if let Some(expected) = expected {
            let found = record.kind();
            return Err(Bad::new(
                Code::Syntax,
                format!("expected {expected}, found a record of kind {found}"),
            ));
        }
        match record {
            Record::Bundle(record) => self.take_bundle(&record),
            Record::Rotation(note) => self.take_rotation(&note),
            Record::Checkpoint(note) => self.take_checkpoint(&note),
            Record::Session(session) => self.take_session(session),
            Record::Event(event) => self.take_event(&event),
            Record::Proof(proof) => self.take_proof(&proof),
            Record::Head(_) if self.state == State::Session => Err(no_events()),
            Record::Head(note) => self.take_head(&note),
            Record::End { sessions, events } => self.take_end(sessions, events),
        }
    }

    fn take_bundle(&mut self, record: &BundleRecord<'_>) -> Result<(), Bad> {
        let bad = |why: String| Bad::new(Code::Key, why);
        let log_key = VerifierKey::parse(&record.log_key).map_err(|e| bad(format!("log_key: {e}")))?;
        super::keys::check_name(&record.deployment, &log_key).map_err(bad)?;
        self.opened = Some(Opened {
            tenant: record.tenant.clone(),
            log_key,
            certificates: record.certificates.iter().map(|note| note.clone().into_owned()).collect(),
            rotations: Rotations::new(&record.deployment),
            keys: None,
            checkpoint: None,
        });
        self.state = State::Rotations;
        Ok(())
    }

    fn take_rotation(&mut self, note: &str) -> Result<(), Bad> {
        let opened = self.opened.as_mut().expect("the bundle record was read before any other");
        opened.rotations.push(note).map_err(|why| Bad::new(Code::Key, why))
    }

    /// Once all rotations are read: what the first line says of keys.
    fn settle_keys(&mut self) -> Result<(), Bad> {
        let opened = self.opened.as_mut().expect("the bundle record was read before any other");
        let pinned = self.options.pinned_key.as_ref();
        let certificates = opened.certificates.iter().map(String::as_str);
        let keys = Keys::certified(&opened.log_key, &opened.rotations, pinned, certificates);
        opened.keys = Some(keys.map_err(|why| {
            self.line = Some(1);
            Bad::new(Code::Key, why)
        })?);
        self.state = State::Checkpoint;
        Ok(())
    }

    fn take_checkpoint(&mut self, note: &str) -> Result<(), Bad> {
        let opened = self.opened.as_mut().expect("the bundle record was read before any other");
        let checkpoint = opened.keys().checkpoint(&opened.tenant, note);
        let checkpoint =
            checkpoint.map_err(|why| Bad::new(Code::Checkpoint, format!("the checkpoint: {why}")))?;
        opened.checkpoint = Some(checkpoint);
        self.state = State::Between;
        Ok(())
    }

    fn opened(&self) -> &Opened {
        self.opened.as_ref().expect("the bundle record was read before any other")
    }

    fn take_session(&mut self, session: SessionId) -> Result<(), Bad> {
        if self.seen.contains(&session) {
            return Err(Bad::new(Code::Syntax, format!("session {:?} stands here twice", session.as_str())));
        }
        if self.state == State::Session {
            return Err(no_events());
        }
        self.seen.insert(session.clone());
        let tenant = &self.opened().tenant;
        let (chain, hashed) = (ChainCheck::new(tenant, &session), HashedBytes::new(tenant, &session));
        let leaves = Vec::new();
        self.current = Some(Current { session: session.clone(), chain, hashed, leaves, proved: 0 });
        self.session = Some(session);
        self.state = State::Session;
        Ok(())
    }

    fn take_event(&mut self, record: &EventRecord<'_>) -> Result<(), Bad> {
        let event = record.event();
        let current = self.current.as_mut().expect("a session record was read");
        if let Err(error) = current.chain.push(&event) {
            // What an event says of itself is its place only if it could say it.
            if !matches!(error, ChainError::Syntax { .. }) {
                self.sequence = Some(event.sequence);
            }
            return Err(error.into());
        }
        self.erasures.see(&current.session, &event);
        self.events += 1;
        self.bytes_hashed += current.hashed.of(&event);
        self.state = State::Events;
        let opened = self.opened.as_ref().expect("the bundle record was read");
        if opened.checkpoint.is_some() {
            current.leaves.push(merkle::leaf_hash(&event.hash.0));
        }
        if let Some(events) = self.wanted.of(&opened.tenant, &current.session)
            && let Some(found) = events.get_mut(&event.sequence.get())
        {
            *found = Some(event.hash);
        }
        Ok(())
    }

    fn take_proof(&mut self, proof: &ProofRecord) -> Result<(), Bad> {
        let bad = |why: String| Bad::new(Code::Proof, why);
        let checkpoint = self.opened.as_ref().and_then(|opened| opened.checkpoint.as_ref());
        let checkpoint =
            checkpoint.ok_or_else(|| bad("expected a checkpoint before the first proof".to_owned()))?;
        let current = self.current.as_mut().expect("a session record was read");
        let (first, count) = (proof.first.get(), proof.count);
        if first < current.proved {
            return Err(bad(format!(
                "expected a proof of events from sequence {} on, found {first}",
                current.proved
            )));
        }
        let events = first.checked_add(count).filter(|_| count > 0).and_then(|end| {
            let (first, end) = (usize::try_from(first).ok()?, usize::try_from(end).ok()?);
            current.leaves.get(first..end)
        });
        let events = events.ok_or_else(|| {
            bad(format!(
                "expected a proof of events of the session, which has {}, found one of {count} from sequence {first} on",
                current.leaves.len()
            ))
        })?;
        if !merkle::verify_range(proof.leaf, events, checkpoint.tree_size, &proof.hashes, &checkpoint.root) {
            return Err(bad(format!(
                "the {count} events from sequence {first} on are not the leaves from {} on of the checkpoint's tree",
                proof.leaf
            )));
        }
        current.proved = first + count;
        self.proved += count;
        self.state = State::Proofs;
        Ok(())
    }

    fn take_head(&mut self, note: &str) -> Result<(), Bad> {
        let bad = |why: String| Bad::new(Code::Head, why);
        let opened = self.opened();
        let current = self.current.as_ref().expect("a session record was read");
        let said = opened.keys().open(Says::Head, note).map_err(|e| bad(format!("the head: {e}")))?;
        if said.tenant != opened.tenant || said.session_id != current.session {
            return Err(bad(format!(
                "expected the head of tenant {} session {:?}, found that of tenant {} session {:?}",
                opened.tenant,
                current.session.as_str(),
                said.tenant,
                said.session_id.as_str()
            )));
        }
        let (last, hash) = (current.chain.count() - 1, current.chain.head());
        if said.sequence.get() != last || said.hash != hash {
            return Err(bad(format!(
                "the head says that the session ends with sequence {} and hash {}, found {last} and {hash}",
                said.sequence, said.hash
            )));
        }
        self.session = None;
        self.current = None;
        self.state = State::Between;
        Ok(())
    }

    fn take_end(&mut self, sessions: u64, events: u64) -> Result<(), Bad> {
        let seen = self.seen.len() as u64;
        if (sessions, events) != (seen, self.events) {
            let message = format!(
                "the end record counts {sessions} sessions and {events} events, found {seen} and {}",
                self.events
            );
            return Err(Bad::new(Code::Count, message));
        }
        if self.state == State::Session {
            return Err(no_events());
        }
        if self.seen.is_empty() {
            return Err(Bad::new(Code::Empty, "expected at least one session"));
        }
        self.state = State::Ended;
        Ok(())
    }

    /// After the last line: what is missing, if anything is.
    fn finish(&mut self) -> Result<Option<(Code, String)>, Bad> {
        self.sequence = None;
        if self.state != State::Ended {
            self.line = self.line.map(|line| line + 1);
            return Err(Bad::new(Code::Truncated, "the bundle ends without its end record"));
        }
        self.line = None;
        let unburied = self.erased()?;
        let opened = self.opened.as_ref().expect("an ended bundle has begun");
        let uncompared = compare(opened, &self.options.checkpoints)?;
        let is_covered =
            |said: &Standing| said.tenant == opened.tenant && self.seen.contains(&said.session_id);
        let uncovered =
            hold(&self.options.receipts, opened.keys(), &self.wanted, is_covered).map_err(|failed| {
                if let Some(said) = failed.standing {
                    self.session = Some(said.session_id);
                    self.sequence = Some(said.sequence);
                }
                failed.bad
            })?;
        if let Some(why) = &self.options.unreadable {
            return Ok(Some((Code::Unreadable, why.clone())));
        }
        if self.options.pinned_key.is_none() {
            let why = "no key was given: keys found only in the bundle prove nothing about who made it";
            return Ok(Some((Code::NoKey, why.to_owned())));
        }
        if let Some(why) = unburied {
            return Ok(Some((Code::TombstoneNotCovered, why)));
        }
        if let Some(why) = uncompared {
            return Ok(Some((Code::CheckpointNotCovered, why)));
        }
        Ok(uncovered.map(|said| {
            let why = format!(
                "the session of a receipt, {:?} of tenant {}, is not in the bundle",
                said.session_id.as_str(),
                said.tenant
            );
            (Code::ReceiptNotCovered, why)
        }))
    }

    /// Holds erased events against their tombstones. Gives the first whose tombstone's session is not in the bundle.
    fn erased(&mut self) -> Result<Option<String>, Bad> {
        let mut unburied = None;
        for erased in &self.erasures.erased {
            let session = erasure::session_of(erased.event_id);
            if !self.seen.contains(&session) && !erased.is_tombstone {
                unburied.get_or_insert_with(|| {
                    format!(
                        "the content of event {} is gone, and the session of its tombstone, {:?}, is not in the bundle",
                        erased.event_id,
                        session.as_str()
                    )
                });
            } else if let Some(why) = self.erasures.problem_of(erased) {
                (self.session, self.sequence) = (Some(erased.session.clone()), Some(erased.sequence));
                return Err(Bad::new(Code::Erased, why));
            }
        }
        Ok(unburied)
    }

    fn report(self, end: Result<Option<(Code, String)>, Bad>) -> Report {
        let (tenant, checkpoint) = self.opened.map(|opened| (opened.tenant, opened.checkpoint)).unzip();
        let tenants = u64::from(tenant.is_some());
        let mut notes = Vec::new();
        let (verdict, finding) = match end {
            Ok(None) => (Verdict::Valid, None),
            Ok(Some((code, message))) => {
                (Verdict::Incomplete, Some(Finding { tenant, ..Finding::new(code, message) }))
            }
            Err(Bad { code, message }) => {
                let sequence = self.sequence.map(Seq::get);
                let (session_id, line) = (self.session, self.line);
                let finding = Finding { tenant, session_id, sequence, line, ..Finding::new(code, message) };
                (Verdict::Invalid, Some(finding))
            }
        };
        if verdict != Verdict::Invalid {
            if let Some(checkpoint) = checkpoint.flatten() {
                notes.push(super::report::proved(self.proved, self.events, checkpoint.tree_size));
            }
            notes.extend(self.erasures.notes());
            notes.push(super::report::freshness(self.options));
        }
        let (sessions, events) = (self.seen.len() as u64, self.events);
        let bytes_hashed = self.bytes_hashed;
        Report { verdict, finding, tenants, sessions, events, bytes_hashed, notes, ..Report::nothing() }
    }
}

/// Holds the checkpoints that were given against the bundle's. Gives the first that cannot be compared with it.
fn compare(opened: &Opened, given: &[GivenCheckpoint]) -> Result<Option<String>, Bad> {
    let bad = |why: String| Bad::new(Code::Rollback, why);
    let mut uncompared = None;
    for given in given {
        let said = given.open(opened.keys()).map_err(bad)?;
        let mine = opened.checkpoint.as_ref();
        let mine =
            mine.filter(|mine| said.tenant == opened.tenant && said.checkpoint.tree_size == mine.tree_size);
        match mine {
            Some(mine) if mine.root != said.checkpoint.root => {
                return Err(bad(format!(
                    "the checkpoint that was given, of tenant {} and tree size {}, has another root than the bundle's",
                    said.tenant, mine.tree_size
                )));
            }
            Some(_) => {}
            None => {
                uncompared.get_or_insert_with(|| {
                    format!(
                        "the checkpoint that was given, of tenant {} and tree size {}, cannot be compared with the bundle",
                        said.tenant, said.checkpoint.tree_size
                    )
                });
            }
        }
    }
    Ok(uncompared)
}

/// Reads a line with its newline.
fn read_line(data: &[u8]) -> Result<Record<'_>, Bad> {
    if data.len() > limits::BUNDLE_LINE_BYTES_MAX {
        let message =
            format!("expected at most {} bytes, found a longer line", limits::BUNDLE_LINE_BYTES_MAX);
        return Err(Bad::new(Code::Syntax, message));
    }
    let Some(line) = data.strip_suffix(b"\n") else {
        return Err(Bad::new(Code::Truncated, "expected a newline at the end of the last line"));
    };
    let line = std::str::from_utf8(line).map_err(|e| Bad::new(Code::Syntax, e.to_string()))?;
    bundle::parse(line).map_err(|e| Bad::new(Code::Syntax, e.to_string()))
}

/// True if a line that is no record at least says that it is a rotation.
fn is_rotation(data: &[u8]) -> bool {
    let line = data.strip_suffix(b"\n").and_then(|line| std::str::from_utf8(line).ok());
    let Some(line) = line.filter(|line| line.len() < limits::BUNDLE_LINE_BYTES_MAX && line.starts_with('{'))
    else {
        return false;
    };
    let mut is_rotation = false;
    let mut reader = Reader::new(line);
    let read = reader.object(|r, name| {
        if name == "kind" && r.kind()? == Kind::String {
            is_rotation = r.string()? == "rotation";
            return Ok(());
        }
        r.skip()
    });
    read.and_then(|()| reader.end()).is_ok() && is_rotation
}

fn no_events() -> Bad {
    Bad::new(Code::Empty, "expected at least one event in the session")
}
