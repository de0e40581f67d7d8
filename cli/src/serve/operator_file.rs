//! The word that a server without a data directory of its own leaves for commands on the same machine: `server.json`
//! in a directory that its operator names, readable by them alone. [`crate::client`] reads it.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::client;
use crate::failure::hinted;
use crate::local::{SERVER_FILE, ServerInfo};

/// The file while it is written.
const NEW: &str = "server.json.new";

/// The file. It is removed with this.
pub(super) struct OperatorFile {
    path: PathBuf,
    text: String,
}

impl OperatorFile {
    /// Refuses a directory that holds anything else, or the word of another server that still runs.
    pub(super) fn check(dir: &Path) -> anyhow::Result<()> {
        let shown = dir.display();
        let entries = match fs::read_dir(dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries.with_context(|| format!("cannot read {shown}"))?,
        };
        let mut word = None;
        for entry in entries {
            let name = entry.with_context(|| format!("cannot read {shown}"))?.file_name();
            match name.to_str() {
                Some(NEW | "lost+found") => continue,
                Some(SERVER_FILE) => word = Self::read(dir),
                _ => {}
            }
            if word.is_none() || name != SERVER_FILE {
                let message = format!("{shown} is in other use: it holds {}", name.display());
                let hint = "with --store aws the ledger is in the table: --data (QUIPU_DATA, or data in quipu.toml) \
                            names a new or an empty directory, or is left out";
                return Err(hinted(message, hint).into());
            }
        }
        match word {
            Some(info) if client::answers(&info.url) => {
                let message =
                    format!("commands on {shown} go to another server: process {}, {}", info.pid, info.url);
                Err(hinted(message, "stop it, or give this one another --data, or none").into())
            }
            _ => Ok(()),
        }
    }

    /// What a server has left in a directory.
    fn read(dir: &Path) -> Option<ServerInfo> {
        fs::read_to_string(dir.join(SERVER_FILE)).ok().as_deref().and_then(ServerInfo::parse)
    }

    /// Leaves it. The directory is made if it is not there.
    pub(super) fn leave(dir: &Path, info: &ServerInfo) -> anyhow::Result<Self> {
        let path = dir.join(SERVER_FILE);
        let text = serde_json::to_string(info).context("cannot describe the server")?;
        let write = || {
            DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
            // Complete or not at all, and its mode is right from its first byte on.
            let new = dir.join(NEW);
            match fs::remove_file(&new) {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
            file.set_permissions(Permissions::from_mode(0o600))?;
            file.write_all(text.as_bytes())?;
            fs::rename(&new, &path)
        };
        write().with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { path, text })
    }
}

impl Drop for OperatorFile {
    fn drop(&mut self) {
        // Another server may have taken its place.
        if fs::read_to_string(&self.path).is_ok_and(|text| text == self.text) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info() -> ServerInfo {
        // Nothing listens on the discard port.
        ServerInfo { pid: 7, url: "http://127.0.0.1:9".into(), credential: "sesame".into() }
    }

    #[test]
    fn the_word_is_its_operators_alone_and_goes_with_the_server() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("new");
        OperatorFile::check(&dir).unwrap();
        let word = OperatorFile::leave(&dir, &info()).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&dir), mode(&dir.join(SERVER_FILE))), (0o700, 0o600));
        assert_eq!(OperatorFile::read(&dir).unwrap().credential, "sesame");
        drop(word);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    }

    #[test]
    fn a_killed_servers_word_is_replaced_and_a_successors_left() {
        let dir = tempfile::tempdir().unwrap();
        let first = OperatorFile::leave(dir.path(), &info()).unwrap();
        OperatorFile::check(dir.path()).unwrap();
        let second = OperatorFile::leave(dir.path(), &ServerInfo { pid: 8, ..info() }).unwrap();
        drop(first);
        assert_eq!(OperatorFile::read(dir.path()).unwrap().pid, 8);
        drop(second);
        assert!(OperatorFile::read(dir.path()).is_none());
    }

    #[test]
    fn a_directory_in_other_use_is_left_alone() {
        for name in ["format", "cat.png", "server.json"] {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join(name), "mine").unwrap();
            let said = OperatorFile::check(dir.path()).unwrap_err().to_string();
            assert!(said.contains(name), "{said}");
        }
    }
}
