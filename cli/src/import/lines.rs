//! Lines of a file with their places, and how they are cut into batches.

use std::io::{BufRead, Read as _};

use anyhow::Context as _;

/// Most bytes of one batch: below the server's `body_bytes_max` of 4 MiB, and so that what it encodes to stays below
/// `commit_bytes_max`.
pub(crate) const BATCH_BYTES_MAX: usize = 3_000_000;
/// Longest line that is read at all, bytes: no event comes near.
const LINE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// One line that is not empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// Its bytes, without the line feed.
    pub(crate) bytes: Vec<u8>,
    /// Its number in the file, from 1.
    pub(crate) number: u64,
    /// Where it begins, bytes.
    pub(crate) start: u64,
    /// Where the next line begins.
    pub(crate) end: u64,
}

/// How much to take at a time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut {
    /// Most lines.
    pub(crate) events_max: usize,
    /// Most bytes, unless one line alone is longer.
    pub(crate) bytes_max: usize,
    /// Nothing at or past this offset.
    pub(crate) before: u64,
}

impl Default for Cut {
    fn default() -> Self {
        Self { events_max: usize::MAX, bytes_max: BATCH_BYTES_MAX, before: u64::MAX }
    }
}

/// Reads lines.
pub(crate) struct Lines {
    input: Box<dyn BufRead>,
    offset: u64,
    number: u64,
    /// Read, and not taken yet.
    waiting: Option<Line>,
}

impl Lines {
    /// Lines of an input that stands at an offset, where the line with this number begins.
    pub(crate) fn new(input: Box<dyn BufRead>, offset: u64, number: u64) -> Self {
        Self { input, offset, number, waiting: None }
    }

    /// The next lines, in order; none at the end, or if not even one is allowed.
    pub(crate) fn take(&mut self, cut: &Cut) -> anyhow::Result<Vec<Line>> {
        let mut taken = Vec::new();
        let mut bytes = 0;
        while taken.len() < cut.events_max {
            let line = match self.waiting.take() {
                Some(line) => Some(line),
                None => self.read()?,
            };
            let Some(line) = line else { break };
            bytes += line.bytes.len() + 1;
            if line.start >= cut.before || (!taken.is_empty() && bytes > cut.bytes_max) {
                self.waiting = Some(line);
                break;
            }
            taken.push(line);
        }
        Ok(taken)
    }

    fn read(&mut self) -> anyhow::Result<Option<Line>> {
        loop {
            let (start, number) = (self.offset, self.number);
            let mut bytes = Vec::new();
            let limit = LINE_BYTES_MAX as u64 + 1;
            let read = (&mut self.input).take(limit).read_until(b'\n', &mut bytes);
            let count = read.with_context(|| format!("cannot read line {number}"))?;
            if count == 0 {
                return Ok(None);
            }
            anyhow::ensure!(count <= LINE_BYTES_MAX, "line {number} is longer than {LINE_BYTES_MAX} bytes");
            self.offset += count as u64;
            self.number += 1;
            if bytes.last() == Some(&b'\n') {
                bytes.pop();
            }
            if start == 0 && bytes.starts_with(b"\xef\xbb\xbf") {
                // A byte order mark is no part of the first event.
                bytes.drain(..3);
            }
            if !bytes.trim_ascii().is_empty() {
                return Ok(Some(Line { bytes, number, start, end: self.offset }));
            }
        }
    }
}

/// The body of a request that holds these lines.
pub(crate) fn join<'l>(lines: impl Iterator<Item = &'l Line>) -> Vec<u8> {
    let mut body = Vec::new();
    for line in lines {
        body.extend_from_slice(&line.bytes);
        body.push(b'\n');
    }
    body
}

/// Cuts lines that are held already into batches.
pub(crate) fn batches<'s, 'l>(mut lines: &'s [&'l Line], events_max: usize) -> Vec<&'s [&'l Line]> {
    let mut batches = Vec::new();
    while !lines.is_empty() {
        let mut bytes = 0;
        let fits = lines.iter().take(events_max).take_while(|line| {
            bytes += line.bytes.len() + 1;
            bytes <= BATCH_BYTES_MAX
        });
        let (batch, rest) = lines.split_at(fits.count().max(1));
        batches.push(batch);
        lines = rest;
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &'static str) -> Lines {
        Lines::new(Box::new(text.as_bytes()), 0, 1)
    }

    #[test]
    fn lines_know_where_they_stand() {
        let all = lines("\u{feff}{}\n\n  \r\n{\"a\":1}\r\nlast").take(&Cut::default()).unwrap();
        let places: Vec<_> = all.iter().map(|l| (l.number, l.start, l.end, l.bytes.len())).collect();
        assert_eq!(places, [(1, 0, 6, 2), (4, 11, 20, 8), (5, 20, 24, 4)]);
        assert_eq!(join(all.iter()), b"{}\n{\"a\":1}\r\nlast\n");
    }

    #[test]
    fn what_is_not_taken_waits() {
        let mut some = lines("1\n2\n3\n4\n5\n");
        let numbers = |lines: Vec<Line>| lines.iter().map(|l| l.number).collect::<Vec<_>>();
        assert_eq!(numbers(some.take(&Cut { events_max: 2, ..Cut::default() }).unwrap()), [1, 2]);
        assert_eq!(numbers(some.take(&Cut { bytes_max: 3, ..Cut::default() }).unwrap()), [3]);
        assert_eq!(numbers(some.take(&Cut { before: 8, ..Cut::default() }).unwrap()), [4]);
        assert_eq!(
            numbers(some.take(&Cut { bytes_max: 1, ..Cut::default() }).unwrap()),
            [5],
            "one line always"
        );
        assert!(some.take(&Cut::default()).unwrap().is_empty());
    }

    #[test]
    fn batches_keep_order_and_limits() {
        let held = lines("1\n2\n3\n4\n5\n").take(&Cut::default()).unwrap();
        let mut held: Vec<Line> = held;
        held[3].bytes = vec![b'4'; BATCH_BYTES_MAX];
        let refs: Vec<&Line> = held.iter().collect();
        let cut: Vec<Vec<u64>> =
            batches(&refs, 2).iter().map(|b| b.iter().map(|l| l.number).collect()).collect();
        assert_eq!(cut, [vec![1, 2], vec![3], vec![4], vec![5]]);
    }
}
