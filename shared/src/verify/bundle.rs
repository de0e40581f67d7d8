//! The check of an evidence bundle, as a stream (docs/format.md, section 5).
//!
//! What is kept grows with the number of sessions and receipts, never with the number of events.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};
use std::path::Path;

use crate::bundle::{self, BundleRecord, EventRecord, Record};
use crate::chain::{ChainCheck, ChainError};
use crate::ids::{Seq, SessionId, TenantId};
use crate::limits;
use crate::note::VerifierKey;
use crate::statement::{Says, Standing};

use super::keys::Keys;
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
    /// A session, or the end.
    Between,
    /// A session's first event.
    Session,
    /// An event, or the session's head.
    Events,
    /// Nothing.
    Ended,
}

/// What the first line gave.
struct Opened {
    tenant: TenantId,
    keys: Keys,
}

/// The session that is being read.
struct Current {
    session: SessionId,
    chain: ChainCheck,
    hashed: HashedBytes,
}

struct Check<'o> {
    options: &'o Options,
    state: State,
    opened: Option<Opened>,
    current: Option<Current>,
    wanted: Wanted,
    seen: HashSet<SessionId>,
    events: u64,
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
            events: 0,
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
        if data.len() > limits::BUNDLE_LINE_BYTES_MAX {
            let message =
                format!("expected at most {} bytes, found a longer line", limits::BUNDLE_LINE_BYTES_MAX);
            return Err(Bad::new(Code::Syntax, message));
        }
        let Some(line) = data.strip_suffix(b"\n") else {
            return Err(Bad::new(Code::Truncated, "expected a newline at the end of the last line"));
        };
        let line = std::str::from_utf8(line).map_err(|e| Bad::new(Code::Syntax, e.to_string()))?;
        let record = bundle::parse(line).map_err(|e| Bad::new(Code::Syntax, e.to_string()))?;
        match (record, self.state) {
            (Record::Bundle(record), State::Start) => self.take_bundle(&record),
            (Record::Session(session), State::Between | State::Session) => self.take_session(session),
            (Record::Event(event), State::Session | State::Events) => self.take_event(&event),
            (Record::Head(_), State::Session) => Err(no_events()),
            (Record::Head(note), State::Events) => self.take_head(&note),
            (Record::End { sessions, events }, State::Between | State::Session) => {
                self.take_end(sessions, events)
            }
            (record, state) => {
                let expected = match state {
                    State::Start => "the bundle record",
                    State::Between => "a session or the end",
                    State::Session => "an event",
                    State::Events => "an event or the head of the session",
                    State::Ended => "nothing",
                };
                Err(Bad::new(
                    Code::Syntax,
                    format!("expected {expected}, found a record of kind {}", record.kind()),
                ))
            }
        }
    }

    fn take_bundle(&mut self, record: &BundleRecord<'_>) -> Result<(), Bad> {
        let bad = |why: String| Bad::new(Code::Key, why);
        let log = VerifierKey::parse(&record.log_key).map_err(|e| bad(format!("log_key: {e}")))?;
        let pinned = self.options.pinned_key.as_ref();
        let certificates = record.certificates.iter().map(|note| &**note);
        let keys = Keys::certified(&record.deployment, &log, pinned, certificates).map_err(bad)?;
        self.opened = Some(Opened { tenant: record.tenant.clone(), keys });
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
        self.current = Some(Current { session: session.clone(), chain, hashed });
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
        self.events += 1;
        self.bytes_hashed += current.hashed.of(&event);
        self.state = State::Events;
        let tenant = &self.opened.as_ref().expect("the bundle record was read").tenant;
        if let Some(events) = self.wanted.of(tenant, &current.session)
            && let Some(found) = events.get_mut(&event.sequence.get())
        {
            *found = Some(event.hash);
        }
        Ok(())
    }

    fn take_head(&mut self, note: &str) -> Result<(), Bad> {
        let bad = |why: String| Bad::new(Code::Head, why);
        let opened = self.opened();
        let current = self.current.as_ref().expect("a session record was read");
        let said = opened.keys.open(Says::Head, note).map_err(|e| bad(format!("the head: {e}")))?;
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
        let opened = self.opened.as_ref().expect("an ended bundle has begun");
        let is_covered =
            |said: &Standing| said.tenant == opened.tenant && self.seen.contains(&said.session_id);
        let uncovered =
            hold(&self.options.receipts, &opened.keys, &self.wanted, is_covered).map_err(|failed| {
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
        Ok(uncovered.map(|said| {
            let why = format!(
                "the session of a receipt, {:?} of tenant {}, is not in the bundle",
                said.session_id.as_str(),
                said.tenant
            );
            (Code::ReceiptNotCovered, why)
        }))
    }

    fn report(self, end: Result<Option<(Code, String)>, Bad>) -> Report {
        let tenant = self.opened.map(|opened| opened.tenant);
        let tenants = u64::from(tenant.is_some());
        let mut notes = Vec::new();
        let (verdict, finding) = match end {
            Ok(None) => (Verdict::Valid, None),
            Ok(Some((code, message))) => {
                let finding = Finding { code, tenant, session_id: None, sequence: None, line: None, message };
                (Verdict::Incomplete, Some(finding))
            }
            Err(Bad { code, message }) => {
                let sequence = self.sequence.map(Seq::get);
                let (session_id, line) = (self.session, self.line);
                (Verdict::Invalid, Some(Finding { code, tenant, session_id, sequence, line, message }))
            }
        };
        if verdict != Verdict::Invalid {
            notes.push(super::report::freshness(self.options.receipts.len()));
        }
        let (sessions, events) = (self.seen.len() as u64, self.events);
        Report { verdict, finding, tenants, sessions, events, bytes_hashed: self.bytes_hashed, notes }
    }
}

fn no_events() -> Bad {
    Bad::new(Code::Empty, "expected at least one event in the session")
}
