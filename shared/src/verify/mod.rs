//! The full offline check: an evidence bundle ([`verify_bundle`]), a whole archive ([`verify_archive`], feature
//! `archive`), or a whole data directory ([`verify_data_dir`], feature `embedded`).
//!
//! A verdict is VALID, INVALID (naming the first bad place) or INCOMPLETE (what could not be checked). Silence is never
//! VALID. The rules are those of docs/format.md, sections 5 and 8, which the verifier in tests/verifier follows too. Nothing
//! here writes, and nothing trusts what it reads: bytes from outside end in a verdict, never in a panic.

#[cfg(feature = "archive")]
mod archive;
#[cfg(all(feature = "archive", feature = "embedded"))]
mod archived;
mod bundle;
mod checkpoints;
#[cfg(feature = "embedded")]
mod data_dir;
mod erased;
mod keys;
mod receipts;
mod report;
#[cfg(any(test, feature = "testing"))]
pub mod samples;
#[cfg(feature = "embedded")]
mod session;
#[cfg(feature = "archive")]
mod survey;
#[cfg(test)]
mod tests;

#[cfg(feature = "archive")]
pub use archive::verify_archive;
pub use bundle::{verify_bundle, verify_bundle_file};
pub use checkpoints::{GivenCheckpoint, read_checkpoint};
#[cfg(feature = "embedded")]
pub use data_dir::verify_data_dir;
pub use receipts::{GivenReceipt, read_receipts};
pub use report::{Code, Finding, LogReport, Report, Verdict};
#[cfg(feature = "archive")]
pub use survey::{Found, Survey};

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::chain::ChainError;
use crate::event::{Content, EventRef};
use crate::ids::{SessionId, TenantId};
use crate::note::VerifierKey;

/// What was given beside the thing to check.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The log key, known from outside.
    pub pinned_key: Option<VerifierKey>,
    /// Receipts kept outside.
    pub receipts: Vec<GivenReceipt>,
    /// Checkpoints kept outside.
    pub checkpoints: Vec<GivenCheckpoint>,
    /// Why something that was given could not be used. The verdict is then at best INCOMPLETE.
    pub unreadable: Option<String>,
    /// Threads that check a data directory or an archive; 0 is 1. A bundle is a stream and takes one.
    pub threads: usize,
}

/// Longest key file, bytes: a key is about 160.
const KEY_FILE_BYTES_MAX: u64 = 4096;

impl Options {
    /// Reads the files of a key and of receipts. What cannot be read is kept in `unreadable`: the check goes on, since
    /// it may still find something INVALID.
    pub fn read(key: Option<&Path>, receipts: &[PathBuf]) -> Self {
        let mut options = Self::default();
        if let Some(path) = key {
            match read_file(path, KEY_FILE_BYTES_MAX).and_then(|data| parse_key_file(&data)) {
                Ok(key) => options.pinned_key = Some(key),
                Err(why) => options.unreadable = Some(format!("the key file {}: {why}", path.display())),
            }
        }
        for path in receipts {
            match read_file(path, receipts::FILE_BYTES_MAX as u64) {
                Ok(data) => options.receipts.extend(read_receipts(&data)),
                Err(why) => {
                    let why = format!("the receipts file {}: {why}", path.display());
                    options.unreadable.get_or_insert(why);
                }
            }
        }
        options
    }

    /// Reads files of checkpoints too, each of one. What cannot be read is kept as in [`Options::read`].
    pub fn read_checkpoints(&mut self, paths: &[PathBuf]) {
        for path in paths {
            match read_file(path, checkpoints::FILE_BYTES_MAX as u64) {
                Ok(data) => self.checkpoints.push(read_checkpoint(&data)),
                Err(why) => {
                    let why = format!("the checkpoint file {}: {why}", path.display());
                    self.unreadable.get_or_insert(why);
                }
            }
        }
    }
}

/// Reads a file up to one byte past `limit`, so that whoever looks at it sees that it is too long.
fn read_file(path: &Path, limit: u64) -> Result<Vec<u8>, String> {
    let mut data = Vec::new();
    let file = File::open(path).map_err(|e| e.to_string())?;
    file.take(limit + 1).read_to_end(&mut data).map_err(|e| e.to_string())?;
    Ok(data)
}

/// Reads the content of a key file: one verifier key; spaces, tabs and line ends around it do not count.
///
/// # Errors
/// What is wrong with it.
fn parse_key_file(data: &[u8]) -> Result<VerifierKey, String> {
    if data.len() as u64 > KEY_FILE_BYTES_MAX {
        return Err(format!("longer than {KEY_FILE_BYTES_MAX} bytes"));
    }
    let text = std::str::from_utf8(data).map_err(|_| "not UTF-8".to_owned())?;
    VerifierKey::parse(text.trim_matches([' ', '\t', '\r', '\n'])).map_err(|e| e.to_string())
}

/// What makes a verdict INVALID, before its place is known.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Bad {
    code: Code,
    message: String,
}

impl Bad {
    fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl From<ChainError> for Bad {
    fn from(error: ChainError) -> Self {
        let code = match error {
            ChainError::Syntax { .. } => Code::Syntax,
            ChainError::Sequence { .. } => Code::Sequence,
            ChainError::PrevHash { .. } => Code::PrevHash,
            ChainError::Hash { .. } => Code::Hash,
        };
        Self::new(code, error.to_string())
    }
}

/// How many bytes the hashes of a session's events are over.
#[derive(Debug, Clone, Copy)]
struct HashedBytes {
    /// What every event has: domain, hashes, separators, tenant and session.
    fixed: u64,
}

impl HashedBytes {
    fn new(tenant: &TenantId, session: &SessionId) -> Self {
        // quipu.event.v1, prev_hash, event id, content digest; 16 newlines.
        let fixed = 14 + 64 + 36 + 64 + 16 + tenant.as_str().len() + session.as_str().len();
        Self { fixed: fixed as u64 }
    }

    fn of(&self, event: &EventRef<'_>) -> u64 {
        let digits = |n: u64| n.checked_ilog10().unwrap_or(0) as usize + 1;
        let time = |t: i64| usize::from(t < 0) + digits(t.unsigned_abs());
        let content = match event.content {
            // quipu.content.v1, salt, two newlines.
            Content::Kept { payload, metadata, .. } => 16 + 16 + 2 + payload.len() + metadata.len(),
            Content::Erased { .. } => 0,
        };
        let lines = digits(event.sequence.get())
            + time(event.timestamp.get())
            + time(event.received_at.get())
            + event.agent_id.len()
            + event.event_type.len()
            + event.severity.as_str().len()
            + event.source_id.map_or(0, str::len)
            + event.compliance_tag.len()
            + event.pii_types.len()
            + digits(u64::from(event.redactions.count))
            + event.redactions.policy.map_or(0, |_| 64);
        self.fixed + (content + lines) as u64
    }
}
