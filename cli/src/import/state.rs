//! What an import remembers beside its file, so that it can go on where it stopped and store nothing twice.
//!
//! Before a window of lines is sent, its end is written down. If the process ends before the answer is written down
//! too, the next run cuts the same window into the same batches, whose idempotency keys are the same: the server
//! gives its first answer again instead of storing them again. That holds for 24 hours, as long as the server
//! remembers a key. Keys depend on the file, the line and the bytes alone, so that losing the state file doubles
//! nothing either within that time.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use quipu_core::ids::hex;
use quipu_core::limits;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::lines::Line;
use crate::failure::hinted;
use crate::time_arg::now;

/// What the state file says it is.
const FORMAT: &str = "quipu.import.v1";
/// The ending of the state file's name.
const ENDING: &str = ".quipu-import";
/// Of a file's first line, this much tells it from others, bytes.
pub(super) const FIRST_LINE_BYTES_MAX: usize = 64 * 1024;
/// How far past its window a line that was stored ahead of others is looked for, in lines: the file may have been
/// mended meanwhile.
const AHEAD_LINES: u64 = 1000;

/// A window whose outcome is not known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pending {
    /// Where it ends, bytes.
    pub(super) end: u64,
    /// Most events of a batch in it.
    pub(super) batch: usize,
    /// Over how many connections it was spread.
    pub(super) connections: usize,
    /// When it was sent, µs since 1970.
    pub(super) sent_at: i64,
}

/// Lines past the offset that are stored already, because other connections were ahead when one had to stop.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ahead {
    /// From this line on they are no longer looked for.
    until_line: u64,
    /// How often which line, by digest.
    digests: HashMap<String, u32>,
}

impl Ahead {
    /// These lines.
    pub(super) fn of<'l>(lines: impl Iterator<Item = &'l Line>) -> Self {
        let mut this = Self::default();
        for line in lines {
            this.until_line = this.until_line.max(line.number + AHEAD_LINES);
            *this.digests.entry(digest(&line.bytes)).or_default() += 1;
        }
        this
    }

    /// Takes a line out; true if it was in.
    pub(super) fn remove(&mut self, line: &Line) -> bool {
        if line.number >= self.until_line {
            self.digests.clear();
        }
        if self.digests.is_empty() {
            return false;
        }
        let key = digest(&line.bytes);
        let Some(count) = self.digests.get_mut(&key) else { return false };
        *count -= 1;
        if *count == 0 {
            self.digests.remove(&key);
        }
        true
    }
}

fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes)[..16])
}

/// How far an import has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    format: String,
    /// Which file.
    file: String,
    /// Into which ledger: its log key.
    ledger: String,
    /// In which dialect.
    dialect: String,
    /// Everything before this offset (of the unpacked file) is done.
    pub(super) offset: u64,
    /// The number of the line there.
    pub(super) line: u64,
    /// Events stored, over all runs.
    pub(super) imported: u64,
    /// Lines left out, over all runs.
    pub(super) skipped: u64,
    /// What was sent and not answered.
    pub(super) pending: Option<Pending>,
    /// What is stored already past the offset.
    #[serde(default)]
    pub(super) ahead: Ahead,
}

impl State {
    /// A new import.
    pub(super) fn new(file: &str, ledger: &str, dialect: &str) -> Self {
        Self {
            format: FORMAT.to_owned(),
            file: file.to_owned(),
            ledger: ledger.to_owned(),
            dialect: dialect.to_owned(),
            offset: 0,
            line: 1,
            imported: 0,
            skipped: 0,
            pending: None,
            ahead: Ahead::default(),
        }
    }

    /// True if it is of this file, into this ledger, in this dialect; else why not.
    fn check(&self, other: &Self) -> Result<(), &'static str> {
        if self.format != other.format {
            return Err("another version of quipu wrote it");
        }
        if self.file != other.file {
            return Err("it is of another file: the path or the first line has changed");
        }
        if self.ledger != other.ledger {
            return Err("it is of an import into another ledger");
        }
        if self.dialect != other.dialect {
            return Err("it is of an import in the other dialect");
        }
        Ok(())
    }

    /// True if the server may have forgotten the keys of what is pending.
    pub(super) fn is_pending_too_old(&self) -> bool {
        let life = limits::IDEMPOTENCY_LIFE_MS * 1000;
        self.pending.as_ref().is_some_and(|pending| now().get() - pending.sent_at >= life)
    }
}

/// Where the state is kept; nowhere, if the input is standard input.
pub(super) struct StateFile(Option<PathBuf>);

impl StateFile {
    /// Beside the file.
    pub(super) fn beside(file: &Path) -> Self {
        let mut name = file.as_os_str().to_owned();
        name.push(ENDING);
        Self(Some(PathBuf::from(name)))
    }

    /// Nowhere.
    pub(super) fn none() -> Self {
        Self(None)
    }

    /// What it says, if it goes with `fresh`; `fresh` itself if there is none.
    pub(super) fn load(&self, fresh: State) -> anyhow::Result<State> {
        let Some(path) = &self.0 else { return Ok(fresh) };
        let shown = path.display();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(fresh),
            Err(error) => return Err(error).with_context(|| format!("cannot read {shown}")),
        };
        let hint = || format!("remove {shown} to import the file from its beginning");
        let found: State = serde_json::from_str(&text)
            .with_context(|| hinted(format!("{shown} is not what an import leaves"), hint()))?;
        match found.check(&fresh) {
            Ok(()) => Ok(found),
            Err(why) => Err(hinted(format!("{shown} does not go with this import: {why}"), hint()).into()),
        }
    }

    /// Writes it, whole or not at all. Not synced: what a power cut takes, the keys make up for.
    pub(super) fn save(&self, state: &State) -> anyhow::Result<()> {
        let Some(path) = &self.0 else { return Ok(()) };
        let mut new = path.as_os_str().to_owned();
        new.push(".new");
        let text = serde_json::to_string(state).context("cannot write down how far the import has come")?;
        std::fs::write(&new, text + "\n")
            .and_then(|()| std::fs::rename(&new, path))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

/// What tells a file from others: where it is, and how it begins. It may grow.
pub(super) fn file_identity(path: &Path, first_line: &[u8]) -> anyhow::Result<String> {
    let whole = path.canonicalize().with_context(|| format!("cannot find {}", path.display()))?;
    let mut sha = Sha256::new();
    sha.update(whole.as_os_str().as_encoded_bytes());
    sha.update([0]);
    sha.update(first_line);
    Ok(hex(&sha.finalize()))
}

/// The idempotency key of a batch that begins at a line.
pub(super) fn batch_key(file: &str, first_line: u64, body: &[u8]) -> String {
    let mut sha = Sha256::new();
    sha.update(format!("{file}\n{first_line}\n"));
    sha.update(body);
    format!("import-{}", hex(&sha.finalize()[..20]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: u64, text: &str) -> Line {
        Line { bytes: text.into(), number, start: 0, end: 0 }
    }

    #[test]
    fn the_state_comes_back_only_for_the_same_import() {
        let dir = tempfile::tempdir().unwrap();
        let file = StateFile::beside(&dir.path().join("e.ndjson"));
        let mut state = State::new("f", "l", "native");
        assert_eq!(file.load(state.clone()).unwrap(), state);
        state.offset = 7;
        state.pending = Some(Pending { end: 9, batch: 100, connections: 1, sent_at: now().get() });
        state.ahead = Ahead::of([line(3, "x")].iter());
        file.save(&state).unwrap();
        assert_eq!(file.load(State::new("f", "l", "native")).unwrap(), state);
        assert!(!state.is_pending_too_old());
        for other in [
            State::new("g", "l", "native"),
            State::new("f", "m", "native"),
            State::new("f", "l", "agentlens"),
        ] {
            assert!(file.load(other).unwrap_err().to_string().contains("does not go with this import"));
        }
        std::fs::write(dir.path().join("e.ndjson.quipu-import"), "{").unwrap();
        assert!(file.load(state.clone()).is_err());
        state.pending = Some(Pending { end: 9, batch: 100, connections: 1, sent_at: 0 });
        assert!(state.is_pending_too_old());
    }

    #[test]
    fn keys_depend_on_file_line_and_bytes() {
        let key = batch_key("f", 1, b"x");
        assert_eq!(key, batch_key("f", 1, b"x"));
        for other in [batch_key("g", 1, b"x"), batch_key("f", 2, b"x"), batch_key("f", 1, b"y")] {
            assert_ne!(key, other);
        }
        assert!(key.len() <= limits::IDEMPOTENCY_KEY_BYTES_MAX);
    }

    #[test]
    fn lines_stored_ahead_are_passed_over_as_often_as_they_were_stored() {
        let mut ahead = Ahead::of([line(2, "a"), line(3, "a"), line(4, "b")].iter());
        assert!(!ahead.remove(&line(1, "c")));
        assert!(ahead.remove(&line(5, "a")), "the file was mended: numbers may have moved");
        assert!(ahead.remove(&line(6, "a")));
        assert!(!ahead.remove(&line(7, "a")));
        assert!(!ahead.remove(&line(4 + AHEAD_LINES, "b")), "too far away to be the same");
    }

    #[test]
    fn a_file_that_moved_or_begins_otherwise_is_another() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        std::fs::write(&a, "x").unwrap();
        std::fs::write(&b, "x").unwrap();
        let identity = file_identity(&a, b"x").unwrap();
        assert_eq!(identity, file_identity(&a, b"x").unwrap());
        assert_ne!(identity, file_identity(&b, b"x").unwrap());
        assert_ne!(identity, file_identity(&a, b"y").unwrap());
    }
}
