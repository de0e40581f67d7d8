//! The file that is imported.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use flate2::read::MultiGzDecoder;
use quipu_core::ids::hex;
use quipu_core::random;

use super::lines::Lines;
use super::state::{FIRST_LINE_BYTES_MAX, StateFile, file_identity};
use crate::failure::hinted;

const BUFFER_BYTES: usize = 256 * 1024;

/// Where events come from.
pub(super) struct Source {
    /// `None` for standard input.
    path: Option<PathBuf>,
    is_packed: bool,
    /// What tells it from others.
    pub(super) identity: String,
    /// Where it is kept how far the import has come.
    pub(super) state_file: StateFile,
    /// Its length as it lies on disk, bytes.
    pub(super) length: Option<u64>,
    position: Arc<AtomicU64>,
}

impl Source {
    /// A file, or standard input for `-`.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let position = Arc::default();
        if path == Path::new("-") {
            // Nobody can say whether two inputs are the same; keys still make retries within this run safe.
            let identity = hex(&random::bytes::<16>());
            let state_file = StateFile::none();
            return Ok(Self { path: None, is_packed: false, identity, state_file, length: None, position });
        }
        let cannot = || format!("cannot read {}", path.display());
        let length = std::fs::metadata(path).with_context(cannot)?.len();
        let is_packed = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gz"));
        let mut this = Self {
            path: Some(path.to_owned()),
            is_packed,
            identity: String::new(),
            state_file: StateFile::beside(path),
            length: Some(length),
            position,
        };
        let mut first = Vec::new();
        let limit = FIRST_LINE_BYTES_MAX as u64;
        this.input()?.take(limit).read_until(b'\n', &mut first).with_context(cannot)?;
        this.identity = file_identity(path, &first)?;
        Ok(this)
    }

    /// How much of it was read, as it lies on disk, bytes.
    pub(super) fn position(&self) -> u64 {
        self.position.load(Ordering::Relaxed)
    }

    /// The whole of it, unpacked.
    fn input(&self) -> anyhow::Result<Box<dyn BufRead>> {
        self.position.store(0, Ordering::Relaxed);
        let Some(path) = &self.path else { return Ok(Box::new(BufReader::new(io::stdin()))) };
        let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        let counted = Counted { inner: file, position: self.position.clone() };
        Ok(if self.is_packed {
            let unpacked = MultiGzDecoder::new(BufReader::with_capacity(BUFFER_BYTES, counted));
            Box::new(BufReader::with_capacity(BUFFER_BYTES, unpacked))
        } else {
            Box::new(BufReader::with_capacity(BUFFER_BYTES, counted))
        })
    }

    /// Its lines from an offset on, where the line with this number begins.
    pub(super) fn lines(&self, offset: u64, number: u64) -> anyhow::Result<Lines> {
        let (Some(path), false) = (&self.path, offset == 0) else {
            return Ok(Lines::new(self.input()?, offset, number));
        };
        let changed = || {
            let hint = format!("remove {0}.quipu-import to import {0} from its beginning", path.display());
            hinted(
                format!("{} has changed before line {number}, where it was left off", path.display()),
                hint,
            )
        };
        let cannot = || format!("cannot read {}", path.display());
        let mut input = if self.is_packed {
            let mut input = self.input()?;
            let passed =
                io::copy(&mut (&mut input).take(offset - 1), &mut io::sink()).with_context(cannot)?;
            anyhow::ensure!(passed == offset - 1, changed());
            input
        } else {
            let mut file = File::open(path).with_context(cannot)?;
            file.seek(SeekFrom::Start(offset - 1)).with_context(cannot)?;
            self.position.store(offset - 1, Ordering::Relaxed);
            Box::new(BufReader::with_capacity(
                BUFFER_BYTES,
                Counted { inner: file, position: self.position.clone() },
            ))
        };
        // What was done ended in a line feed, or was all there was.
        let mut last = [0];
        input.read_exact(&mut last).with_context(changed)?;
        let next = input.fill_buf().with_context(cannot)?.first().copied();
        anyhow::ensure!(last[0] == b'\n' || matches!(next, None | Some(b'\n' | b'\r')), changed());
        Ok(Lines::new(input, offset, number))
    }
}

/// Counts what is read.
struct Counted<R> {
    inner: R,
    position: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.position.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::lines::Cut;
    use std::io::Write as _;

    #[test]
    fn a_file_goes_on_where_it_was_left_packed_or_not() {
        let dir = tempfile::tempdir().unwrap();
        let plain = dir.path().join("e.ndjson");
        let packed = dir.path().join("e.ndjson.gz");
        let text = b"{\"a\":1}\n{\"a\":2}\n{\"a\":3}";
        std::fs::write(&plain, text).unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(text).unwrap();
        std::fs::write(&packed, gzip.finish().unwrap()).unwrap();
        for path in [&plain, &packed] {
            let source = Source::open(path).unwrap();
            let rest = source.lines(8, 2).unwrap().take(&Cut::default()).unwrap();
            let found: Vec<_> = rest.iter().map(|l| (l.number, l.start)).collect();
            assert_eq!(found, [(2, 8), (3, 16)], "{}", path.display());
            assert!(source.lines(23, 4).unwrap().take(&Cut::default()).unwrap().is_empty());
            assert!(source.lines(5, 2).is_err(), "in the middle of a line");
            assert!(source.lines(99, 2).is_err(), "past the end");
        }
    }
}
