//! What a sound archive says of its ledger: its batches, and its sessions as far as they are archived. For whoever makes
//! a store again from it ([`crate::archive::rebuild`]).
//!
//! The whole archive is checked as [`super::verify_archive`] checks it before any of this is handed out. What was found
//! waits in a temporary file, so that memory is bounded whatever the size.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, ErrorKind, Read as _, Seek as _, Write as _};

use super::archive::{ArchivedSession, Check, Listener, Object, Stop};
use super::erased::Erasures;
use super::{Code, Finding, Options, Report, Verdict};
use crate::codec::{Cursor, Malformed, put_bytes, put_varint};
use crate::ids::{EventHash, Seq, SessionId, TenantId};
use crate::log::header::{BatchHeader, Run};
use crate::objects::ObjectStore;
use crate::segment::Head;
use crate::store::{BatchRecord, Pointer, SessionRecord};

/// One thing that an archive says. Tenants come in the order of their bytes; of a tenant first its batches, by number,
/// then its sessions, in the order of theirs, then its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A batch and its runs, in the order of rows.
    Batch(BatchRecord, Vec<Run>),
    /// A session, and of how many of its events the content is erased: these cannot be counted again.
    Session(Pointer, u64),
    /// The last of a tenant.
    End {
        /// Its last finished batch.
        batches: u64,
        /// Whether another one was begun.
        unfinished: bool,
    },
}

/// What a sound archive says, to be read as often as it takes.
pub struct Survey {
    /// What the check says: VALID, or INCOMPLETE for a last batch that is not finished.
    pub report: Report,
    frames: File,
}

impl std::fmt::Debug for Survey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Survey").field("report", &self.report).finish_non_exhaustive()
    }
}

impl Survey {
    /// Checks an archive and notes what it says. A key must be pinned; checkpoints that are given must be in it.
    ///
    /// # Errors
    /// What is wrong with the archive, or could not be checked, with its place.
    pub async fn read(
        objects: &dyn ObjectStore,
        options: &Options,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Self, Box<Finding>> {
        if let Some(why) = &options.unreadable {
            return Err(Box::new(Finding::new(Code::Unreadable, why.clone())));
        }
        if options.pinned_key.is_none() {
            let why = "no key was given: keys found only in the archive prove nothing about who made it";
            return Err(Box::new(Finding::new(Code::NoKey, why)));
        }
        let frames = tempfile::tempfile().map_err(|e| unreadable(&e))?;
        let mut spool = Spool { out: BufWriter::new(frames), scratch: Vec::new() };
        let mut check = Check::new(objects, options, progress, Some(&mut spool));
        let done = async {
            let keys = check.identity().await?;
            check.logs(&keys).await?;
            check.rollback(&keys)
        };
        done.await.map_err(|stop: Stop| stop.0)?;
        let finding = check.unfinished().map(|stop| *stop.0);
        let mut report = check.report;
        if report.tenants == 0 {
            return Err(Box::new(Finding::new(Code::Empty, "no tenant has a log")));
        }
        report.verdict = if finding.is_some() { Verdict::Incomplete } else { Verdict::Valid };
        report.finding = finding;
        let frames = spool.out.into_inner().map_err(|e| unreadable(e.error()))?;
        Ok(Self { report, frames })
    }

    /// Everything, from the beginning.
    ///
    /// # Errors
    /// The file system's.
    pub fn found(&self) -> io::Result<impl Iterator<Item = io::Result<(TenantId, Found)>> + '_> {
        let mut frames = &self.frames;
        frames.rewind()?;
        let mut frames = BufReader::new(frames);
        Ok(std::iter::from_fn(move || next(&mut frames).transpose()))
    }
}

fn unreadable(error: &io::Error) -> Box<Finding> {
    Box::new(Finding::new(Code::Unreadable, format!("a temporary file: {error}")))
}

/// Notes what it is told.
struct Spool {
    out: BufWriter<File>,
    scratch: Vec<u8>,
}

const BATCH: u8 = 1;
const SESSION: u8 = 2;
const END: u8 = 3;

impl Spool {
    fn frame(
        &mut self,
        tenant: &TenantId,
        kind: u8,
        fill: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), Box<Finding>> {
        self.scratch.clear();
        self.scratch.push(kind);
        put_bytes(&mut self.scratch, tenant.as_str().as_bytes());
        fill(&mut self.scratch);
        let length = (self.scratch.len() as u64).to_be_bytes();
        let written = self.out.write_all(&length).and_then(|()| self.out.write_all(&self.scratch));
        written.map_err(|e| unreadable(&e))
    }
}

impl Listener for Spool {
    fn batch(&mut self, header: &BatchHeader, hash: [u8; 32], object: &Object) -> Result<(), Box<Finding>> {
        let record = object.record(header, hash);
        self.frame(&header.tenant, BATCH, |out| {
            put_varint(out, header.batch);
            put_bytes(out, &record.encode());
            put_varint(out, header.runs.len() as u64);
            for run in &header.runs {
                put_bytes(out, run.session_id.as_str().as_bytes());
                put_varint(out, run.first.get());
                put_varint(out, run.last.get());
                out.extend_from_slice(&run.hash.0);
            }
        })
    }

    fn session(
        &mut self,
        tenant: &TenantId,
        archived: ArchivedSession,
        _: &Erasures,
    ) -> Result<(), Box<Finding>> {
        let ArchivedSession { session, first_batch, last_batch, last, hash, facts, .. } = archived;
        let archived = SessionRecord {
            session_id: session,
            first_commit: facts.first_commit,
            last_commit: facts.last_commit,
            updated_at: facts.updated_at,
            head: Head { sequence: last, hash },
            summary: facts.summary,
        };
        let pointer = Pointer { archived, first_batch, last_batch, scrubbed: 0 };
        self.frame(tenant, SESSION, |out| {
            put_bytes(out, pointer.archived.session_id.as_str().as_bytes());
            put_bytes(out, &pointer.encode());
            put_varint(out, facts.erased);
        })
    }

    fn end(&mut self, tenant: &TenantId, batches: u64, unfinished: bool) -> Result<(), Box<Finding>> {
        self.frame(tenant, END, |out| {
            put_varint(out, batches);
            out.push(u8::from(unfinished));
        })
    }
}

fn next(frames: &mut BufReader<&File>) -> io::Result<Option<(TenantId, Found)>> {
    let mut length = [0; 8];
    match frames.read_exact(&mut length) {
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let length = u64::from_be_bytes(length);
    let mut frame = Vec::new();
    frames.take(length).read_to_end(&mut frame)?;
    decode(&frame).map(Some).map_err(|e| io::Error::new(ErrorKind::InvalidData, e.to_string()))
}

fn decode(frame: &[u8]) -> Result<(TenantId, Found), Malformed> {
    let mut cursor = Cursor(frame);
    let kind = cursor.byte()?;
    let tenant = TenantId::parse(cursor.text()?).map_err(|_| Malformed("a tenant"))?;
    let session = |text: &str| SessionId::parse(text).map_err(|_| Malformed("a session"));
    let sequence = |number| Seq::new(number).ok_or(Malformed("a sequence"));
    let found = match kind {
        BATCH => {
            let number = cursor.varint()?;
            let record = BatchRecord::decode(number, false, cursor.bytes()?)?;
            let count = cursor.length(cursor.0.len())?;
            let mut runs = Vec::with_capacity(count);
            for _ in 0..count {
                runs.push(Run {
                    session_id: session(cursor.text()?)?,
                    first: sequence(cursor.varint()?)?,
                    last: sequence(cursor.varint()?)?,
                    hash: EventHash(cursor.array()?),
                });
            }
            Found::Batch(record, runs)
        }
        SESSION => {
            let session = session(cursor.text()?)?;
            let pointer = Pointer::decode(&session, cursor.bytes()?)?;
            Found::Session(pointer, cursor.varint()?)
        }
        END => Found::End { batches: cursor.varint()?, unfinished: cursor.byte()? != 0 },
        _ => return Err(Malformed("a frame of no kind")),
    };
    cursor.end()?;
    Ok((tenant, found))
}
