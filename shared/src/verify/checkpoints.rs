//! Checkpoints kept outside: the files they come in.

use crate::ids::TenantId;
use crate::limits;
use crate::log::checkpoint::Checkpoint;

use super::keys::Keys;

/// Longest file of a checkpoint, bytes.
pub(super) const FILE_BYTES_MAX: usize = limits::NOTE_BYTES_MAX;

/// A checkpoint as it was given; whether it is genuine is seen once the keys are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenCheckpoint {
    /// The note, or what is wrong already. That counts only after what is checked is found right.
    note: Result<String, String>,
}

/// What a genuine one says.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) tenant: TenantId,
    pub(super) checkpoint: Checkpoint,
}

/// Reads a file of a checkpoint: a bare note and nothing else, as `/v1/log/checkpoint` answers. A file that is none
/// gives a checkpoint that is found bad.
pub fn read_checkpoint(data: &[u8]) -> GivenCheckpoint {
    if data.len() > FILE_BYTES_MAX {
        return GivenCheckpoint {
            note: Err(format!("a checkpoint file longer than {FILE_BYTES_MAX} bytes")),
        };
    }
    match std::str::from_utf8(data) {
        Ok(text) => GivenCheckpoint::from_note(text),
        Err(_) => GivenCheckpoint { note: Err("a checkpoint file that is not UTF-8".to_owned()) },
    }
}

impl GivenCheckpoint {
    /// From the bare note.
    pub fn from_note(note: &str) -> Self {
        Self { note: Ok(note.to_owned()) }
    }

    /// Tenant and tree size that it names, if it names any. Nothing is verified.
    pub(super) fn claim(&self) -> Option<(TenantId, u64)> {
        let note = self.note.as_ref().ok()?;
        let text = &note[..=note.rfind("\n\n")?];
        let checkpoint = Checkpoint::parse(text).ok()?;
        let (_, tenant) = checkpoint.origin.split_once('/')?;
        Some((TenantId::parse(tenant).ok()?, checkpoint.tree_size))
    }

    /// Checks that a key of the chain signed it for this deployment.
    ///
    /// # Errors
    /// What is wrong with it: code `rollback`.
    pub(super) fn open(&self, keys: &Keys) -> Result<Said, String> {
        let note = self.note.as_ref().map_err(Clone::clone)?;
        let opened = keys.kept_checkpoint(note);
        let (tenant, checkpoint) = opened.map_err(|e| format!("the checkpoint that was given: {e}"))?;
        Ok(Said { tenant, checkpoint })
    }
}
