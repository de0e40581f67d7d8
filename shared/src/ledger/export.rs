//! Export: sessions as an evidence bundle (docs/format.md, section 5), a piece at a time.
//!
//! A bundle holds each session up to the head that it had when its export began, whatever is appended meanwhile, and
//! ends it with that head, signed. Nothing is held longer than a piece needs: memory is bounded by one segment and the
//! list of sessions.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use crate::bundle;
use crate::erasure;
use crate::event::Content;
use crate::ids::{Seq, SessionId, TenantId};
use crate::log::checkpoint::Checkpoint;
use crate::log::header::BatchHeader;
use crate::log::{LogError, LogReader};
use crate::note::unverified_text;
use crate::segment::{Head, SegmentMeta, SegmentReader};
use crate::statement::{Says, Standing};
use crate::store::{Order, StoreError};
use crate::time::Micros;

use super::{Ledger, ReadError};

/// Attributes read at a time.
const SEGMENTS_AHEAD: usize = 64;

/// A piece is at least this long, bytes, unless it is the last: sessions of many small appends go out in few pieces.
const PIECE_BYTES_MIN: usize = 64 * 1024;

/// A bundle while it is written. Dropping it is fine at any time.
pub struct Export {
    ledger: Arc<Ledger>,
    tenant: TenantId,
    created_at: Micros,
    /// Sessions to come, each with its head.
    sessions: VecDeque<Standing>,
    /// Sessions that are or were among them.
    named: HashSet<SessionId>,
    current: Option<Run>,
    reader: SegmentReader,
    stage: Stage,
    session_count: u64,
    event_count: u64,
    /// The log, for proofs.
    log: Option<LogReader>,
    /// Leaves of the log in the bundle's checkpoint.
    tree_size: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Header,
    Sessions,
    Ended,
}

/// A session while its events are written.
struct Run {
    standing: Standing,
    /// Attributes that are read and whose bodies are not.
    metas: VecDeque<SegmentMeta>,
    /// The next sequence.
    next: Seq,
}

impl std::fmt::Debug for Export {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Export({}, {:?}, {} events so far)", self.tenant, self.stage, self.event_count)
    }
}

impl Ledger {
    /// Begins the export of sessions of a tenant into one bundle, in the order given. One that is named twice is
    /// exported once.
    ///
    /// # Errors
    /// `Store(NotFound)` if one of them does not exist or there is none; other failures of the store.
    pub async fn export(
        self: &Arc<Self>,
        tenant: &TenantId,
        sessions: &[SessionId],
    ) -> Result<Export, ReadError> {
        let mut standings = VecDeque::with_capacity(sessions.len());
        let mut seen = HashSet::new();
        for session in sessions.iter().filter(|s| seen.insert(*s)) {
            let head = self.store.head(tenant, session).await?;
            let Head { sequence, hash } = head.ok_or(ReadError::Store(StoreError::NotFound))?;
            // Of the moment at which it was the head: by the time the export is done, it may not be any more.
            let time = self.clock.now();
            let (tenant, session_id) = (tenant.clone(), session.clone());
            standings.push_back(Standing { tenant, session_id, sequence, hash, time });
        }
        if standings.is_empty() {
            return Err(ReadError::Store(StoreError::NotFound));
        }
        // Fetched now, if they have to be: a bundle that has begun should not fail for want of keys.
        self.identity().await.map_err(ReadError::Store)?;
        let reader = SegmentReader::new()
            .map_err(|e| ReadError::Store(StoreError::Unavailable { why: e.to_string() }))?;
        Ok(Export {
            ledger: Arc::clone(self),
            tenant: tenant.clone(),
            created_at: self.clock.now(),
            named: standings.iter().map(|standing| standing.session_id.clone()).collect(),
            sessions: standings,
            current: None,
            reader,
            stage: Stage::Header,
            session_count: 0,
            event_count: 0,
            log: None,
            tree_size: 0,
        })
    }
}

/// A log that cannot give a proof is unreachable or damaged; either way the bundle would say less than it should.
fn log_error(error: LogError) -> ReadError {
    match error {
        LogError::Object(error) => ReadError::Store(StoreError::Unavailable { why: error.to_string() }),
        other => ReadError::Corrupt { key: "the log".into(), why: other.to_string() },
    }
}

impl Export {
    /// The same with the newest checkpoint of the tenant's log, and with proofs for all events that are in it. Before
    /// the first piece.
    #[must_use]
    pub fn with_log(mut self, log: LogReader) -> Self {
        self.log = Some(log);
        self
    }

    /// Appends the checkpoint, if the log has one.
    async fn checkpoint(&mut self, out: &mut String) -> Result<(), ReadError> {
        let Some(log) = &self.log else { return Ok(()) };
        let Some((note, _)) = log.checkpoint().await.map_err(log_error)? else { return Ok(()) };
        let checkpoint = unverified_text(&note).ok().and_then(|text| Checkpoint::parse(text).ok());
        let checkpoint = checkpoint.ok_or_else(|| ReadError::Corrupt {
            key: "the newest checkpoint".into(),
            why: "it is none".into(),
        })?;
        self.tree_size = checkpoint.tree_size;
        bundle::push_checkpoint(out, &note);
        Ok(())
    }

    /// Appends where the log has the events of a session, run by run.
    async fn proofs(&self, standing: &Standing, out: &mut String) -> Result<(), ReadError> {
        let Some(log) = self.log.as_ref().filter(|_| self.tree_size > 0) else { return Ok(()) };
        let session = &standing.session_id;
        let Some(pointer) = self.ledger.store.pointer(&self.tenant, session).await? else { return Ok(()) };
        for batch in pointer.first_batch..=pointer.last_batch {
            let corrupt =
                |why: String| ReadError::Corrupt { key: format!("the header of batch {batch}"), why };
            let header = log.header(batch).await.map_err(log_error)?;
            let header = header.ok_or_else(|| corrupt("it is gone".into()))?;
            let header = BatchHeader::parse(&header).map_err(|e| corrupt(e.to_string()))?;
            let Some(run) = header.runs.iter().find(|run| run.session_id == *session) else { continue };
            let Some(leaf) = header.leaf_of(session, run.first) else { continue };
            // What came after the checkpoint or after the head is in a later bundle.
            if header.tree_size > self.tree_size || run.first > standing.sequence {
                break;
            }
            let count = run.last.min(standing.sequence).get() - run.first.get() + 1;
            let hashes = log.range_proof(leaf, count, self.tree_size).await.map_err(log_error)?;
            bundle::push_proof(out, &bundle::ProofRecord { first: run.first, count, leaf, hashes });
        }
        Ok(())
    }

    /// The next piece of the bundle: whole lines. `None` at the end. After an error there is no more: what was written
    /// has no end record, and so verifies as truncated.
    ///
    /// # Errors
    /// `Corrupt` if what is stored cannot be exported; failures of the store.
    pub async fn next_chunk(&mut self) -> Result<Option<String>, ReadError> {
        let mut out = String::new();
        while out.len() < PIECE_BYTES_MIN && self.stage != Stage::Ended {
            if let Err(error) = self.step(&mut out).await {
                self.stage = Stage::Ended;
                return Err(error);
            }
        }
        Ok((!out.is_empty()).then_some(out))
    }

    /// Appends the next thing that is due.
    async fn step(&mut self, out: &mut String) -> Result<(), ReadError> {
        if self.stage == Stage::Header {
            let identity = self.ledger.identity().await.map_err(ReadError::Store)?;
            bundle::push_header(
                out,
                &bundle::Header {
                    deployment: &identity.deployment,
                    tenant: &self.tenant,
                    created_at: self.created_at,
                    log_key: &identity.log_key,
                    certificates: &identity.certificates,
                },
            );
            for note in &identity.rotations {
                bundle::push_rotation(out, note);
            }
            self.checkpoint(out).await?;
            self.stage = Stage::Sessions;
            return Ok(());
        }
        match self.current.take() {
            Some(run) if run.next > run.standing.sequence => {
                self.proofs(&run.standing, out).await?;
                let identity = self.ledger.identity().await.map_err(ReadError::Store)?;
                bundle::push_head(out, &run.standing.sign(Says::Head, &identity.receipt_key));
                self.session_count += 1;
            }
            Some(mut run) => {
                self.segment(&mut run, out).await?;
                self.current = Some(run);
            }
            None => match self.sessions.pop_front() {
                Some(standing) => {
                    bundle::push_session(out, &standing.session_id);
                    self.current = Some(Run { standing, metas: VecDeque::new(), next: Seq::ZERO });
                }
                None => {
                    bundle::push_end(out, self.session_count, self.event_count);
                    self.stage = Stage::Ended;
                }
            },
        }
        Ok(())
    }

    /// Adds the sessions of tombstones to those to come: without them, nobody could tell an erasure from a deletion. One
    /// that is not there is told by whoever verifies the bundle.
    async fn add_tombstones(&mut self, tombstones: Vec<SessionId>) -> Result<(), ReadError> {
        for session in tombstones {
            if !self.named.insert(session.clone()) {
                continue;
            }
            if let Some(Head { sequence, hash }) = self.ledger.store.head(&self.tenant, &session).await? {
                let (tenant, time) = (self.tenant.clone(), self.ledger.clock.now());
                self.sessions.push_back(Standing { tenant, session_id: session, sequence, hash, time });
            }
        }
        Ok(())
    }

    /// Appends the events of the run's next segment.
    async fn segment(&mut self, run: &mut Run, out: &mut String) -> Result<(), ReadError> {
        let (store, session) = (&self.ledger.store, &run.standing.session_id);
        let key = format!("tenant {} session {session} sequence {}", self.tenant, run.next);
        let corrupt =
            |why: &dyn std::fmt::Display| ReadError::Corrupt { key: key.clone(), why: why.to_string() };
        if run.metas.is_empty() {
            run.metas =
                store.segments(&self.tenant, session, run.next, Order::Asc, SEGMENTS_AHEAD).await?.into();
        }
        let meta = run.metas.pop_front().filter(|meta| meta.first == run.next);
        let meta = meta.ok_or_else(|| corrupt(&"no segment begins here, though the session goes on"))?;
        let body = store.body(&self.tenant, session, meta.first).await?;
        let mut tombstones = Vec::new();
        let view = self.reader.open(&body).map_err(|e| corrupt(&e))?;
        for event in view.events() {
            let event = event.map_err(|e| corrupt(&e))?;
            if event.sequence > run.standing.sequence {
                break;
            }
            if event.sequence != run.next {
                return Err(corrupt(&"the segment holds other sequences than it says"));
            }
            if event.sequence == run.standing.sequence && event.hash != run.standing.hash {
                return Err(corrupt(&"the session's head and its last event have different hashes"));
            }
            bundle::push_event(out, &event);
            self.event_count += 1;
            if let Content::Erased { .. } = event.content {
                tombstones.push(erasure::session_of(event.event_id));
            }
            run.next = event.sequence.checked_add(1).ok_or_else(|| corrupt(&"a sequence past 2^63"))?;
        }
        self.add_tombstones(tombstones).await
    }
}

#[cfg(test)]
const _: () = {
    /// An export may be moved between threads, so that a server can stream it.
    const fn is_send<T: Send>() {}
    is_send::<Export>();
};
