//! The runs of a tenant's batches, brought into the order of sessions: what every session's chain is checked with
//! across batches.
//!
//! Memory stays bounded: past [`limits::VERIFY_RUNS_BYTES_MAX`] the runs gathered so far are sorted and written to a
//! temporary file, and in the end all files are merged.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek as _, Write as _};

use crate::codec::{Cursor, Malformed, put_bytes, put_varint};
use crate::ids::{EventHash, Seq, SessionId};
use crate::limits;

/// A run of consecutive events of a session in one batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::verify) struct RunRecord {
    pub(in crate::verify) session: SessionId,
    pub(in crate::verify) first: Seq,
    pub(in crate::verify) last: Seq,
    /// Hash of the event before the first.
    pub(in crate::verify) prev_hash: EventHash,
    /// Hash of the last event.
    pub(in crate::verify) hash: EventHash,
    pub(in crate::verify) batch: u64,
    /// What a data directory wants to know besides: a record of its own, or nothing.
    pub(in crate::verify) facts: Vec<u8>,
}

impl RunRecord {
    /// The sort key, and then the rest. No session holds a zero byte, so keys compare as (session, first, batch) do.
    fn encode(&self) -> Vec<u8> {
        let session = self.session.as_str().as_bytes();
        let mut out = Vec::with_capacity(session.len() + 96 + self.facts.len());
        out.extend_from_slice(session);
        out.push(0);
        out.extend_from_slice(&self.first.get().to_be_bytes());
        out.extend_from_slice(&self.batch.to_be_bytes());
        put_varint(&mut out, self.last.get());
        out.extend_from_slice(&self.prev_hash.0);
        out.extend_from_slice(&self.hash.0);
        put_bytes(&mut out, &self.facts);
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let end = bytes.iter().position(|b| *b == 0).ok_or(Malformed("a run without its session"))?;
        let session = std::str::from_utf8(&bytes[..end]).map_err(|_| Malformed("a run's session"))?;
        let mut cursor = Cursor(&bytes[end + 1..]);
        let sequence = |n| Seq::new(n).ok_or(Malformed("a run's sequence"));
        let this = Self {
            session: SessionId::parse(session).map_err(|_| Malformed("a run's session"))?,
            first: sequence(u64::from_be_bytes(cursor.array()?))?,
            batch: u64::from_be_bytes(cursor.array()?),
            last: sequence(cursor.varint()?)?,
            prev_hash: EventHash(cursor.array()?),
            hash: EventHash(cursor.array()?),
            facts: cursor.bytes()?.to_vec(),
        };
        cursor.end()?;
        Ok(this)
    }
}

/// Gathers runs in the order of batches, and gives them in the order of sessions.
#[derive(Debug)]
pub(in crate::verify) struct Runs {
    held: Vec<Vec<u8>>,
    held_bytes: usize,
    bytes_max: usize,
    spilled: Vec<File>,
}

impl Default for Runs {
    fn default() -> Self {
        Self::with_memory(limits::VERIFY_RUNS_BYTES_MAX)
    }
}

impl Runs {
    /// With so many bytes of memory before anything goes to a file.
    fn with_memory(bytes_max: usize) -> Self {
        Self { held: Vec::new(), held_bytes: 0, bytes_max, spilled: Vec::new() }
    }

    /// Adds a run.
    ///
    /// # Errors
    /// If the temporary file cannot be written.
    pub(in crate::verify) fn push(&mut self, run: &RunRecord) -> io::Result<()> {
        let record = run.encode();
        // 32: the vector's own place, and what an allocator takes.
        self.held_bytes += record.capacity() + 32;
        self.held.push(record);
        if self.held_bytes > self.bytes_max { self.spill() } else { Ok(()) }
    }

    fn spill(&mut self) -> io::Result<()> {
        self.held.sort_unstable();
        let mut out = BufWriter::with_capacity(1 << 18, tempfile::tempfile()?);
        for record in self.held.drain(..) {
            out.write_all(&(record.len() as u64).to_be_bytes())?;
            out.write_all(&record)?;
        }
        self.held_bytes = 0;
        let mut file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.rewind()?;
        self.spilled.push(file);
        if self.spilled.len() > limits::VERIFY_RUN_FILES_MAX { self.join() } else { Ok(()) }
    }

    /// Makes one file of all, so that never too many are open.
    fn join(&mut self) -> io::Result<()> {
        let mut merged = Merged::new(std::mem::take(&mut self.spilled), Vec::new())?;
        let mut out = BufWriter::with_capacity(1 << 18, tempfile::tempfile()?);
        while let Some(record) = merged.next_record()? {
            out.write_all(&(record.len() as u64).to_be_bytes())?;
            out.write_all(&record)?;
        }
        let mut file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.rewind()?;
        self.spilled.push(file);
        Ok(())
    }

    /// All of them, by session, first sequence and batch.
    ///
    /// # Errors
    /// If a temporary file cannot be read.
    pub(in crate::verify) fn sorted(mut self) -> io::Result<Merged> {
        self.held.sort_unstable();
        Merged::new(self.spilled, self.held)
    }
}

/// A sorted list of records, in a file or in memory.
enum Source {
    File(BufReader<File>),
    Memory(std::vec::IntoIter<Vec<u8>>),
}

impl Source {
    fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let file = match self {
            Self::Memory(records) => return Ok(records.next()),
            Self::File(file) => file,
        };
        let mut length = [0; 8];
        match file.read_exact(&mut length) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(e) => return Err(e),
        }
        let mut record = Vec::new();
        let length = u64::from_be_bytes(length);
        file.by_ref().take(length).read_to_end(&mut record)?;
        if record.len() as u64 == length {
            Ok(Some(record))
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }
}

/// See [`Runs::sorted`].
pub(in crate::verify) struct Merged {
    sources: Vec<Source>,
    heads: BinaryHeap<Reverse<(Vec<u8>, usize)>>,
}

impl Merged {
    fn new(files: Vec<File>, held: Vec<Vec<u8>>) -> io::Result<Self> {
        let files = files.into_iter().map(|file| Source::File(BufReader::with_capacity(1 << 16, file)));
        let mut this = Self {
            sources: files.chain([Source::Memory(held.into_iter())]).collect(),
            heads: BinaryHeap::new(),
        };
        for index in 0..this.sources.len() {
            this.refill(index)?;
        }
        Ok(this)
    }

    fn refill(&mut self, index: usize) -> io::Result<()> {
        if let Some(record) = self.sources[index].next()? {
            self.heads.push(Reverse((record, index)));
        }
        Ok(())
    }

    fn next_record(&mut self) -> io::Result<Option<Vec<u8>>> {
        let Some(Reverse((record, index))) = self.heads.pop() else { return Ok(None) };
        self.refill(index)?;
        Ok(Some(record))
    }

    /// The next run.
    ///
    /// # Errors
    /// If a temporary file cannot be read.
    pub(in crate::verify) fn next(&mut self) -> io::Result<Option<RunRecord>> {
        let Some(record) = self.next_record()? else { return Ok(None) };
        RunRecord::decode(&record).map(Some).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn runs_come_in_order_however_little_memory_there_is(
            runs in prop::collection::vec(("[a-c ü]{1,4}", 0u64..50, 0u64..9), 0..120),
            memory in 0usize..4000,
        ) {
            let mut gathered = Runs::with_memory(memory);
            let mut expected = Vec::new();
            for (session, first, batch) in runs {
                let run = RunRecord {
                    session: SessionId::parse(session).unwrap(),
                    first: Seq::new(first).unwrap(),
                    last: Seq::new(first + batch).unwrap(),
                    prev_hash: EventHash([1; 32]),
                    hash: EventHash([2; 32]),
                    batch,
                    facts: vec![7; batch as usize],
                };
                gathered.push(&run).unwrap();
                expected.push(run);
            }
            expected.sort_by(|a, b| {
                let key = |r: &RunRecord| (r.session.as_str().as_bytes().to_vec(), r.first, r.batch);
                key(a).cmp(&key(b))
            });
            let mut sorted = gathered.sorted().unwrap();
            for run in expected {
                prop_assert_eq!(sorted.next().unwrap(), Some(run));
            }
            prop_assert_eq!(sorted.next().unwrap(), None);
        }
    }
}
