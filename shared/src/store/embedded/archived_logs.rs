//! How far the logs in a data directory's archive have come, as their newest checkpoints say.
//!
//! For the rotation of the log key, and so without a store or a runtime: it is asked while nothing else runs. Which
//! batch is the newest is decided by the headers: a header without its checkpoint is a batch that the old key has to
//! finish.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use super::data_dir::{DataDirError, RotationError};
use crate::ids::TenantId;
use crate::log::keys::KeyChain;
use crate::log::paths::{self, Named};

/// The log of a tenant, in the archive of a data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchivedLog {
    /// Whose.
    pub tenant: TenantId,
    /// Number of its last batch.
    pub batch: u64,
    /// Its leaves.
    pub tree_size: u64,
}

/// The names in a folder; none if it is not there.
fn names(folder: &Path) -> Result<Vec<String>, DataDirError> {
    let io = |e| DataDirError::io(folder, e);
    let entries = match fs::read_dir(folder) {
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(Vec::new()),
        entries => entries.map_err(io)?,
    };
    let name = |entry: std::io::Result<fs::DirEntry>| {
        entry.map(|entry| entry.file_name().to_string_lossy().into_owned()).map_err(io)
    };
    entries.map(name).collect()
}

fn find(path: &Path) -> Result<Option<String>, DataDirError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) if e.kind() == ErrorKind::InvalidData => Err(damaged(path, "not UTF-8")),
        Err(e) => Err(DataDirError::io(path, e)),
    }
}

fn damaged(path: &Path, why: impl ToString) -> DataDirError {
    DataDirError::Damaged { path: path.to_owned(), why: why.to_string() }
}

/// The logs below an archive, sorted by tenant. Their checkpoints must be of the chain.
///
/// # Errors
/// `Unfinished` if a log has a batch that its newest checkpoint is not of.
pub(super) fn read(archive: &Path, chain: &KeyChain) -> Result<Vec<ArchivedLog>, RotationError> {
    let mut logs = Vec::new();
    for name in names(&archive.join(paths::LOG))? {
        // What is no tenant's, such as the identity, is no log.
        let Ok(tenant) = TenantId::parse(name) else { continue };
        let folder = format!("{}batch/", paths::log(&tenant));
        let number = |name: String| match Named::parse(&format!("{folder}{name}")) {
            Some(Named::Header(_, batch)) => Some(batch),
            _ => None,
        };
        let newest = names(&archive.join(&folder))?.into_iter().filter_map(number).max();
        let path = archive.join(paths::checkpoint(&tenant));
        let checkpoint = find(&path)?;
        let Some(batch) = newest else {
            if checkpoint.is_some() {
                return Err(damaged(&path, "there is no header of a batch beside it").into());
            }
            continue;
        };
        let of_batch = find(&archive.join(paths::checkpoint_at(&tenant, batch)))?;
        let Some(note) = checkpoint.filter(|newest| of_batch.as_ref() == Some(newest)) else {
            return Err(RotationError::Unfinished { tenant, batch });
        };
        let opened = chain.open_checkpoint(&tenant, &note).map_err(|e| damaged(&path, e))?;
        logs.push(ArchivedLog { tenant, batch, tree_size: opened.tree_size });
    }
    logs.sort_unstable_by(|a, b| a.tenant.cmp(&b.tenant));
    Ok(logs)
}
