//! The data directory of a one-machine deployment.
//!
//! | file | what |
//! |---|---|
//! | `format` | `quipu data directory, version 1`; written last, so a directory without it was never used |
//! | `lock` | locked (flock) while a process has the directory open |
//! | `deployment` | the deployment's name |
//! | `ledger.redb` | the store |
//! | `keys/` | private keys, the log's public key, certificates, rotations |
//! | `archive/` | the archive (docs/format.md, section 8), unless it is elsewhere |
//! | `server.json` | what the running server says of itself |
//!
//! Making one is safe to interrupt: every file appears complete or not at all, and what is missing is made by the
//! next attempt. A directory that holds anything else is left alone.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use super::archived_logs::{self, ArchivedLog};
use super::key_files::PublicKeys;
use super::{close_database, key_files, open_database, rotation};
use crate::ids::TenantId;
use crate::ledger::Identity;
use crate::log::keys::Rotation;
use crate::note::{NoteSigner, VerifierKey};
use crate::statement;
use crate::time::Micros;
use crate::{ids, random};

const FORMAT: &str = "format";
const FORMAT_TEXT: &str = "quipu data directory, version 1\n";
const FORMAT_PREFIX: &str = "quipu data directory, version ";
const LOCK: &str = "lock";
/// How long a lock that is held is waited for: a process that ends, or a child that was forked and has not yet
/// replaced itself, holds it for moments more.
const LOCK_PATIENCE: Duration = Duration::from_millis(200);
/// Between two tries.
const LOCK_POLL: Duration = Duration::from_millis(5);
/// What the lock file says: by it an interrupted creation is told from a stranger's directory.
const LOCK_TEXT: &str = "quipu lock\n";
const DEPLOYMENT: &str = "deployment";
const LEDGER: &str = "ledger.redb";
const KEYS: &str = "keys";
const ARCHIVE: &str = "archive";
const STAGING: &str = "staging";
const SERVER: &str = "server.json";
/// Ending of a file that is being written.
const NEW: &str = ".new";
/// Memory for the database while it is made, bytes.
const CREATION_CACHE_BYTES: usize = 1024 * 1024;

/// Why a data directory cannot be used, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process has it open.
    #[error("{} is in use by another process; stop it first, or give another directory", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// What that process wrote to `server.json`, if it did. It holds a credential: show nothing of it but what
        /// is known to be none.
        server: Option<String>,
    },
    /// There is no such directory, or nothing of Quipu's in it.
    #[error("{} holds no ledger; `quipu serve` makes one there", path.display())]
    Absent {
        /// The directory.
        path: PathBuf,
    },
    /// It holds something else.
    #[error("{} is not a Quipu data directory: it holds {found:?}; give an empty or a new directory", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// A file in it that is not ours.
        found: String,
    },
    /// Written by another version.
    #[error("{} was written by another version of Quipu ({found:?}); use that version", path.display())]
    Version {
        /// The directory.
        path: PathBuf,
        /// What its `format` says.
        found: String,
    },
    /// A part is gone.
    #[error("{} is missing; restore it from a backup: a ledger does not start again empty", path.display())]
    Missing {
        /// The part.
        path: PathBuf,
    },
    /// A file of its own that cannot be what was written.
    #[error("{} is damaged: {why}; restore it from a backup", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A private key that others may read.
    #[error("{} may be read or written by others (mode {mode:03o}); run: chmod 600 '{}'", path.display(), path.display())]
    KeyMode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A key or certificate that is not good.
    #[error("{}: {why}; restore the keys directory from a backup", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Its reason.
        source: std::io::Error,
    },
}

/// Why the log key is not replaced.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// The directory, or its archive.
    #[error(transparent)]
    Dir(#[from] DataDirError),
    /// A batch of the archive has a header and not yet its checkpoint: only the present key can finish it.
    #[error("batch {batch} of the log of {tenant} is not finished")]
    Unfinished {
        /// Whose log.
        tenant: TenantId,
        /// The batch.
        batch: u64,
    },
}

impl DataDirError {
    pub(super) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }
}

/// Reads a small text of ours.
pub(super) fn read_text(path: &Path) -> Result<String, DataDirError> {
    fs::read_to_string(path).map_err(|e| match e.kind() {
        ErrorKind::NotFound => DataDirError::Missing { path: path.to_owned() },
        ErrorKind::InvalidData => DataDirError::Damaged { path: path.to_owned(), why: "not UTF-8".into() },
        _ => DataDirError::io(path, e),
    })
}

/// Between two changes of files. In tests it is where a crash can be played: see [`cut_after`].
pub(super) fn may_go_on() -> std::io::Result<()> {
    #[cfg(test)]
    if CHANGES_LEFT.with(|left| left.replace(left.get().saturating_sub(1))) == 0 {
        return Err(std::io::Error::other("cut off here"));
    }
    Ok(())
}

#[cfg(test)]
thread_local! {
    static CHANGES_LEFT: std::cell::Cell<u32> = const { std::cell::Cell::new(u32::MAX) };
}

/// Lets this thread change files so many times more, and then none.
#[cfg(test)]
pub(super) fn cut_after(changes: u32) {
    CHANGES_LEFT.set(changes);
}

/// Makes what was done to a directory's entries durable.
pub(super) fn sync_dir(path: &Path) -> Result<(), DataDirError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(|e| DataDirError::io(path, e))
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(NEW);
    PathBuf::from(name)
}

/// Writes a file so that it is there complete and durable, or not at all. Its mode is right from its first byte on.
pub(super) fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), DataDirError> {
    let new = beside(path);
    let write = || {
        may_go_on()?;
        // A leftover may have another mode.
        match fs::remove_file(&new) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
        // The umask may have taken bits away that others need (log.pub), never added one.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        may_go_on()?;
        fs::rename(&new, path)
    };
    write().map_err(|e| DataDirError::io(path, e))?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// An open data directory. It is locked until this is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    deployment: String,
    /// Whether `server.json` is ours to remove.
    said: AtomicBool,
    /// The lock lives as long as the file is open.
    _lock: File,
}

impl DataDir {
    /// Opens a data directory; makes one where there is nothing, or an empty directory. `now` is when the receipt
    /// key's certificate begins.
    ///
    /// # Errors
    /// See [`DataDirError`].
    pub fn create_or_open(path: &Path, now: Micros) -> Result<Self, DataDirError> {
        if !path.try_exists().map_err(|e| DataDirError::io(path, e))? {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
                .map_err(|e| DataDirError::io(path, e))?;
            if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                sync_dir(parent)?;
            }
        }
        if read_format(path)?.is_none() {
            refuse_foreign(path)?;
            let lock = take_lock(path, true)?;
            // Whoever held the lock before may have done it meanwhile.
            if read_format(path)?.is_none() {
                create(path, now)?;
            }
            // Held from here on: nobody comes between.
            return Self::open_with(path, Some(lock));
        }
        Self::open(path)
    }

    /// Opens a data directory that is there.
    ///
    /// # Errors
    /// See [`DataDirError`].
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        Self::open_with(path, None)
    }

    /// Opens a data directory whose ledger is to be made again from its archive: one that has lost its store, or a new
    /// one that holds no more than an archive, what was staged, and keys. A store that is made here is a closed ledger
    /// from its first byte on, `since` then. Gives whether one was made.
    ///
    /// # Errors
    /// See [`DataDirError`]: `Missing` for keys that are not there, which nothing can make again.
    pub fn open_to_rebuild(
        path: &Path,
        deployment: &str,
        since: Micros,
    ) -> Result<(Self, bool), DataDirError> {
        let begun = match read_format(path)? {
            Some(found) => found == FORMAT_TEXT,
            None => {
                refuse_strangers(path)?;
                true
            }
        };
        if !begun {
            return Self::open(path).map(|dir| (dir, false));
        }
        let lock = take_lock(path, true)?;
        let name = path.join(DEPLOYMENT);
        if !name.try_exists().map_err(|e| DataDirError::io(&name, e))? {
            write_new(&name, format!("{deployment}\n").as_bytes(), 0o644)?;
        }
        // Before anything that cannot be undone.
        let name = read_deployment(path)?;
        PublicKeys::read(&path.join(KEYS), &name)?;
        let made = make_ledger(path, Some(since))?;
        if read_format(path)?.is_none() {
            write_new(&path.join(FORMAT), FORMAT_TEXT.as_bytes(), 0o644)?;
        }
        Ok((Self::open_with(path, Some(lock))?, made))
    }

    fn open_with(path: &Path, lock: Option<File>) -> Result<Self, DataDirError> {
        let found = match read_format(path) {
            Ok(Some(found)) => found,
            Ok(None) | Err(DataDirError::Absent { .. }) => {
                return Err(DataDirError::Absent { path: path.to_owned() });
            }
            Err(e) => return Err(e),
        };
        if found != FORMAT_TEXT {
            let path = path.to_owned();
            return Err(if found.starts_with(FORMAT_PREFIX) {
                DataDirError::Version { path, found: found.trim_end().to_owned() }
            } else {
                DataDirError::Foreign { path, found: FORMAT.to_owned() }
            });
        }
        let lock = lock.map_or_else(|| take_lock(path, false), Ok)?;
        let deployment = read_deployment(path)?;
        let ledger = path.join(LEDGER);
        match fs::metadata(&ledger) {
            Ok(metadata) if metadata.len() > 0 => {}
            Ok(_) => return Err(DataDirError::Damaged { path: ledger, why: "it is empty".into() }),
            Err(e) if e.kind() == ErrorKind::NotFound => return Err(DataDirError::Missing { path: ledger }),
            Err(e) => return Err(DataDirError::io(&ledger, e)),
        }
        Ok(Self { path: path.to_owned(), deployment, said: AtomicBool::new(false), _lock: lock })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file of the store.
    pub fn ledger_path(&self) -> PathBuf {
        Self::ledger_in(&self.path)
    }

    /// Where the store is in a data directory.
    pub fn ledger_in(path: &Path) -> PathBuf {
        path.join(LEDGER)
    }

    /// Where the archive is in a data directory.
    pub fn archive_in(path: &Path) -> PathBuf {
        path.join(ARCHIVE)
    }

    /// The deployment's name.
    pub fn deployment(&self) -> &str {
        &self.deployment
    }

    /// Where the archive is.
    pub fn archive_path(&self) -> PathBuf {
        Self::archive_in(&self.path)
    }

    /// Where batches are staged.
    pub fn staging_path(&self) -> PathBuf {
        self.path.join(STAGING)
    }

    fn keys(&self) -> PathBuf {
        self.path.join(KEYS)
    }

    /// All keys, checked to belong together. A rotation that was interrupted is brought to its end first.
    ///
    /// # Errors
    /// See [`DataDirError`]; private keys that others may read are refused.
    pub fn identity(&self) -> Result<Identity, DataDirError> {
        key_files::identity(&self.keys(), &self.deployment)
    }

    /// The public keys alone, for checking: the newest log key and the certificates. Nothing is written.
    ///
    /// # Errors
    /// See [`DataDirError`].
    pub fn public_keys(&self) -> Result<(VerifierKey, Vec<String>), DataDirError> {
        let public = PublicKeys::read(&self.keys(), &self.deployment)?;
        Ok((public.chain.newest().clone(), public.certificates))
    }

    /// How each log key was replaced by the next, oldest first, checked. Nothing is written.
    ///
    /// # Errors
    /// See [`DataDirError`].
    pub fn rotations(&self) -> Result<Vec<String>, DataDirError> {
        Ok(PublicKeys::read(&self.keys(), &self.deployment)?.rotations)
    }

    /// The private log key, for whoever signs headers and checkpoints. It is read now, and kept by the caller alone.
    ///
    /// # Errors
    /// See [`DataDirError`]; a key that others may read is refused.
    pub fn log_signer(&self) -> Result<NoteSigner, DataDirError> {
        key_files::log_signer(&self.keys(), &self.deployment)
    }

    /// The logs in this directory's archive, sorted by tenant.
    ///
    /// # Errors
    /// If they cannot be read, or are not signed by the keys of this directory; `Unfinished` if a batch is.
    pub fn archived_logs(&self) -> Result<Vec<ArchivedLog>, RotationError> {
        let chain = PublicKeys::read(&self.keys(), &self.deployment)?.chain;
        archived_logs::read(&self.archive_path(), &chain)
    }

    /// Replaces the log key from the present sizes of the logs in this directory's archive on. The old private key is
    /// removed. A crash leaves either key in force, and a directory that opens.
    ///
    /// # Errors
    /// As [`Self::archived_logs`], and then nothing was changed; or if the keys cannot be read or written.
    pub fn rotate_log_key(&self, now: Micros) -> Result<Rotation, RotationError> {
        let sizes = self.archived_logs()?.into_iter().map(|log| (log.tenant, log.tree_size)).collect();
        Ok(rotation::rotate_log(&self.keys(), &self.deployment, sizes, now)?)
    }

    /// Replaces the receipt key by a new one that the log key certifies. The old private key is removed. A crash
    /// leaves either key in force, and a directory that opens.
    ///
    /// # Errors
    /// See [`DataDirError`].
    pub fn rotate_receipt_key(&self, now: Micros) -> Result<VerifierKey, DataDirError> {
        rotation::rotate_receipt(&self.keys(), &self.deployment, now)
    }

    /// Says to other processes what this one is: `server.json`, mode 600, until this is dropped.
    ///
    /// # Errors
    /// See [`DataDirError`].
    pub fn write_server_info(&self, json: &str) -> Result<(), DataDirError> {
        self.said.store(true, Ordering::Relaxed);
        write_new(&self.path.join(SERVER), json.as_bytes(), 0o600)
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        if self.said.load(Ordering::Relaxed) {
            // What is left behind is overwritten by the next server, and the lock tells that it is stale.
            let _ = fs::remove_file(self.path.join(SERVER));
        }
    }
}

/// What `format` says; `None` if the directory has none.
fn read_format(path: &Path) -> Result<Option<String>, DataDirError> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => return Err(DataDirError::io(path, ErrorKind::NotADirectory.into())),
        Err(e) if e.kind() == ErrorKind::NotFound => {
            return Err(DataDirError::Absent { path: path.to_owned() });
        }
        Err(e) => return Err(DataDirError::io(path, e)),
    }
    match read_text(&path.join(FORMAT)) {
        Ok(text) => Ok(Some(text)),
        Err(DataDirError::Missing { .. }) => Ok(None),
        Err(DataDirError::Damaged { .. }) => {
            Err(DataDirError::Foreign { path: path.to_owned(), found: FORMAT.to_owned() })
        }
        Err(e) => Err(e),
    }
}

/// Refuses a directory without `format` unless it is empty, or an interrupted creation.
fn refuse_foreign(path: &Path) -> Result<(), DataDirError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(|e| DataDirError::io(path, e))? {
        let entry = entry.map_err(|e| DataDirError::io(path, e))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    // A file system's own.
    names.retain(|name| name != "lost+found");
    names.sort_unstable();
    let begun = match fs::read_to_string(path.join(LOCK)) {
        Ok(text) => text == LOCK_TEXT || (text.is_empty() && names == [LOCK]),
        Err(_) => false,
    };
    match names.into_iter().find(|name| !begun || !is_of_creation(name)) {
        None => Ok(()),
        Some(found) => Err(DataDirError::Foreign { path: path.to_owned(), found }),
    }
}

/// True for the name of a file that a creation which was interrupted may leave.
fn is_of_creation(name: &str) -> bool {
    let name = name.strip_suffix(NEW).unwrap_or(name);
    [FORMAT, LOCK, DEPLOYMENT, LEDGER, KEYS].contains(&name)
}

/// Refuses a directory without `format` that holds anything but what a ledger is made again from.
fn refuse_strangers(path: &Path) -> Result<(), DataDirError> {
    let of_rebuild = |name: &str| is_of_creation(name) || [ARCHIVE, STAGING, "lost+found"].contains(&name);
    for entry in fs::read_dir(path).map_err(|e| DataDirError::io(path, e))? {
        let name = entry.map_err(|e| DataDirError::io(path, e))?.file_name();
        let name = name.to_string_lossy();
        if !of_rebuild(&name) {
            return Err(DataDirError::Foreign { path: path.to_owned(), found: name.into_owned() });
        }
    }
    Ok(())
}

fn take_lock(path: &Path, create: bool) -> Result<File, DataDirError> {
    let lock = path.join(LOCK);
    let open = if create {
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&lock)
    } else {
        // A lost lock file is no loss; but a copy on a read-only medium has one that cannot be written.
        File::open(&lock).or_else(|e| match e.kind() {
            ErrorKind::NotFound => OpenOptions::new().write(true).create(true).truncate(false).open(&lock),
            _ => Err(e),
        })
    };
    let mut file = open.map_err(|e| DataDirError::io(&lock, e))?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    let locked = loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => sleep(LOCK_POLL),
            result => break result,
        }
    };
    match locked {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let server = fs::read_to_string(path.join(SERVER)).ok();
            let server = server.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
            return Err(DataDirError::InUse { path: path.to_owned(), server });
        }
        Err(e) => return Err(DataDirError::io(&lock, e.into())),
    }
    if create && file.metadata().map_err(|e| DataDirError::io(&lock, e))?.len() == 0 {
        let write = |file: &mut File| {
            file.write_all(LOCK_TEXT.as_bytes())?;
            file.sync_all()
        };
        write(&mut file).map_err(|e| DataDirError::io(&lock, e))?;
        sync_dir(path)?;
    }
    Ok(file)
}

fn read_deployment(path: &Path) -> Result<String, DataDirError> {
    let file = path.join(DEPLOYMENT);
    let text = read_text(&file)?;
    let name = text.strip_suffix('\n').unwrap_or(&text);
    if statement::is_deployment_name(name) {
        Ok(name.to_owned())
    } else {
        Err(DataDirError::Damaged { path: file, why: "not the name of a deployment".into() })
    }
}

/// Makes what is missing, `format` last. The lock is held.
fn create(path: &Path, now: Micros) -> Result<(), DataDirError> {
    let exists = |part: &Path| part.try_exists().map_err(|e| DataDirError::io(part, e));
    let deployment = path.join(DEPLOYMENT);
    if !exists(&deployment)? {
        let name = format!("local-{}", ids::hex(&random::bytes::<4>()));
        write_new(&deployment, format!("{name}\n").as_bytes(), 0o644)?;
    }
    let name = read_deployment(path)?;

    let keys = path.join(KEYS);
    if !exists(&keys)? {
        DirBuilder::new().mode(0o700).create(&keys).map_err(|e| DataDirError::io(&keys, e))?;
        sync_dir(path)?;
    }
    key_files::complete(&keys, &name, now)?;

    make_ledger(path, None)?;
    write_new(&path.join(FORMAT), FORMAT_TEXT.as_bytes(), 0o644)
}

/// Makes the store if there is none, of a ledger that is closed since `closed`. True if it was made.
fn make_ledger(path: &Path, closed: Option<Micros>) -> Result<bool, DataDirError> {
    let ledger = path.join(LEDGER);
    if ledger.try_exists().map_err(|e| DataDirError::io(&ledger, e))? {
        return Ok(false);
    }
    let new = beside(&ledger);
    let make = || {
        match fs::remove_file(&new) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        let (db, _) = open_database(&new, CREATION_CACHE_BYTES).map_err(std::io::Error::other)?;
        if closed.is_some() {
            close_database(&db, closed).map_err(std::io::Error::other)?;
        }
        // Closing writes; only then is the file at rest.
        drop(db);
        File::open(&new)?.sync_all()?;
        fs::rename(&new, &ledger)
    };
    make().map_err(|e| DataDirError::io(&ledger, e))?;
    sync_dir(path)?;
    Ok(true)
}
