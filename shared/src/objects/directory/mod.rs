//! Objects as files below a directory.
//!
//! An object is written under another name, made durable, and given its name in one step that fails if the name is
//! taken: it is there whole or not at all, and one of many wins. Compare-and-swap and deletion hold the directory's
//! lock, against other processes too. A write that returns has made durable the folders on its way as well; so has one
//! that finds its object there, as whoever wrote it may not have come so far.
//!
//! The tag of an object is the SHA-256 of its bytes. Symbolic links below the root are not followed: they are listed,
//! and cannot be read.

mod folder;
mod list;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::BTreeSet;
use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use rustix::fs::AtFlags;
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use self::writer::{Temporary, Writer};
use super::{Condition, Listed, Object, ObjectError, ObjectStore, Purged, Tag, checked};
use crate::ids;

/// Least number of objects for which one call that makes a whole file system durable is taken to be cheaper than one
/// for each of them: the call also waits for what others have written there.
const SYNC_ALL_OBJECTS_MIN: usize = 8;

/// A directory of objects.
#[derive(Clone)]
pub struct Directory(Arc<Inner>);

struct Inner {
    path: PathBuf,
    root: OwnedFd,
    /// Nobody, if it is only read.
    writer: Option<Writer>,
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Directory").field(&self.0.path).finish()
    }
}

impl Directory {
    /// Opens a directory to read and write; makes it where there is nothing. Several processes may have it open. What
    /// is there is durable afterwards, and what writers that died had begun is removed.
    ///
    /// # Errors
    /// The file system's; or another process keeps it locked.
    pub fn open(root: &Path) -> io::Result<Self> {
        if !root.try_exists()? {
            DirBuilder::new().recursive(true).mode(folder::FOLDER_MODE.as_raw_mode()).create(root)?;
            if let Some(parent) = root.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                File::open(parent)?.sync_all()?;
            }
        }
        let opened = folder::root(root)?;
        // A process that died may have named an object and not made the name durable. Whoever reads it shall be able
        // to rely on it.
        folder::sync_all(&opened)?;
        let writer = Some(Writer::new(&opened)?);
        Ok(Self(Arc::new(Inner { path: root.to_owned(), root: opened, writer })))
    }

    /// Opens a directory that is there, only to read: nothing in it is changed, not even by opening.
    ///
    /// # Errors
    /// The file system's.
    pub fn open_to_read(root: &Path) -> io::Result<Self> {
        let opened = folder::root(root)?;
        Ok(Self(Arc::new(Inner { path: root.to_owned(), root: opened, writer: None })))
    }

    /// Files are slow, and block.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, ObjectError> + Send + 'static,
    ) -> Result<T, ObjectError> {
        let inner = Arc::clone(&self.0);
        match tokio::task::spawn_blocking(move || work(&inner)).await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime ends.
                Err(error) => Err(ObjectError::Unknown { why: error.to_string() }),
            },
        }
    }
}

fn tag(bytes: &[u8]) -> Tag {
    Tag(ids::hex(&Sha256::digest(bytes)))
}

impl Inner {
    /// A call that changed nothing.
    fn unavailable(&self, key: &str, error: &io::Error) -> ObjectError {
        ObjectError::Unavailable { why: format!("{}: {error}", self.path.join(key).display()) }
    }

    /// A write that may have done its work.
    fn unknown(&self, key: &str, error: &io::Error) -> ObjectError {
        ObjectError::Unknown { why: format!("{}: {error}", self.path.join(key).display()) }
    }

    fn open(&self, key: &str) -> Result<(File, u64), ObjectError> {
        folder::open(&self.root, key).map_err(|error| match error.kind() {
            ErrorKind::NotFound => ObjectError::NotFound { key: key.to_owned() },
            _ => self.unavailable(key, &error),
        })
    }

    fn get(&self, key: &str) -> Result<Object, ObjectError> {
        let (file, length) = self.open(key)?;
        let bytes = folder::read(file, length).map_err(|e| self.unavailable(key, &e))?;
        let tag = tag(&bytes);
        Ok(Object { bytes: bytes.into(), tag })
    }

    fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, ObjectError> {
        let (file, length) = self.open(key)?;
        let end = range.end.min(length);
        let Some(wanted) = end.checked_sub(range.start).filter(|wanted| *wanted > 0) else {
            return Ok(Bytes::new());
        };
        let read = || {
            let mut bytes = vec![0; usize::try_from(wanted).map_err(io::Error::other)?];
            file.read_exact_at(&mut bytes, range.start)?;
            Ok(bytes)
        };
        read().map(Bytes::from).map_err(|e| self.unavailable(key, &e))
    }

    fn writer(&self) -> Result<&Writer, ObjectError> {
        let why = || format!("{} is open only to be read", self.path.display());
        self.writer.as_ref().ok_or_else(|| ObjectError::Unavailable { why: why() })
    }

    fn put_if_absent(&self, key: &str, bytes: &[u8]) -> Result<(), ObjectError> {
        let (path, name) = folder::split(key);
        let written = self.writer()?.write(bytes, true).map_err(|e| self.unavailable(key, &e))?;
        let folder = folder::make_below(&self.root, path).map_err(|e| self.unavailable(key, &e))?;
        let is_placed = written.place(&folder, name).map_err(|e| self.unavailable(key, &e))?;
        folder::sync(&self.root, path).map_err(|e| self.unknown(key, &e))?;
        if is_placed { Ok(()) } else { Err(ObjectError::Conflict { key: key.to_owned() }) }
    }

    fn put_if_matches(&self, key: &str, bytes: &[u8], expected: &Tag) -> Result<(), ObjectError> {
        let (path, name) = folder::split(key);
        let writer = self.writer()?;
        let written = writer.write(bytes, true).map_err(|e| self.unavailable(key, &e))?;
        let conflict = || ObjectError::Conflict { key: key.to_owned() };
        let swap = || {
            match self.get(key) {
                Ok(found) if found.tag == *expected => {}
                Ok(_) | Err(ObjectError::NotFound { .. }) => return Err(conflict()),
                Err(error) => return Err(error),
            }
            let folder = folder::below(&self.root, path).map_err(|e| self.unavailable(key, &e))?;
            written.replace(&folder, name).map_err(|e| self.unavailable(key, &e))
        };
        writer.alone(swap).map_err(|e| self.unavailable(key, &e))??;
        folder::sync(&self.root, path).map_err(|e| self.unknown(key, &e))
    }

    /// Two steps, each made durable at once for all: what is in the objects, then their names.
    fn put_absent(&self, objects: &[(String, Bytes)]) -> Result<Vec<String>, ObjectError> {
        let writer = self.writer()?;
        let at_once = objects.len() >= SYNC_ALL_OBJECTS_MIN;
        let mut folders = Folders { root: &self.root, last: None };
        let mut written: Vec<(&str, Option<Temporary<'_>>)> = Vec::with_capacity(objects.len());
        for (key, bytes) in objects {
            let mut one = || {
                let (path, name) = folder::split(key);
                match rustix::fs::statat(folders.make(path)?, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(_) => Ok(None),
                    Err(Errno::NOENT) => writer.write(bytes, !at_once).map(Some),
                    Err(e) => Err(e.into()),
                }
            };
            written.push((key, one().map_err(|e| self.unavailable(key, &e))?));
        }
        if at_once && written.iter().any(|(_, temporary)| temporary.is_some()) {
            self.sync_all_or(|| written.iter().filter_map(|(_, t)| t.as_ref()).try_for_each(Temporary::sync))
                .map_err(|e| self.unavailable("", &e))?;
        }
        let mut existing = Vec::new();
        for (key, temporary) in written {
            let (path, name) = folder::split(key);
            let is_placed = match temporary {
                Some(temporary) => folders
                    .make(path)
                    .and_then(|folder| temporary.place(folder, name))
                    .map_err(|e| self.unknown(key, &e))?,
                None => false,
            };
            if !is_placed {
                existing.push(key.to_owned());
            }
        }
        let paths: BTreeSet<&str> = objects.iter().map(|(key, _)| folder::split(key).0).collect();
        let each = || paths.iter().try_for_each(|path| folder::sync(&self.root, path));
        let synced = if at_once { self.sync_all_or(each) } else { each() };
        synced.map_err(|e| self.unknown("", &e))?;
        Ok(existing)
    }

    /// The whole file system, or else one by one.
    fn sync_all_or(&self, each: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        if folder::sync_all(&self.root)? { Ok(()) } else { each() }
    }

    fn delete(&self, key: &str) -> Result<(), ObjectError> {
        let (path, name) = folder::split(key);
        let unlink = || {
            let folder = match folder::below(&self.root, path) {
                Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
                other => other?,
            };
            match rustix::fs::unlinkat(&folder, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => Ok(true),
                // A folder is no object. Which of the two is said depends on the system.
                Err(Errno::ISDIR | Errno::PERM) if folder::child(&folder, name).is_ok() => Ok(false),
                Err(e) => Err(io::Error::from(e)),
            }
        };
        let unlinked = self.writer()?.alone(unlink).map_err(|e| self.unavailable(key, &e))?;
        match unlinked {
            Ok(true) => folder::sync(&self.root, path).map_err(|e| self.unknown(key, &e)),
            Ok(false) => Ok(()),
            Err(e) => Err(self.unavailable(key, &e)),
        }
    }
}

/// The folder that was used last: objects that are written together mostly lie together.
struct Folders<'a> {
    root: &'a OwnedFd,
    last: Option<(String, OwnedFd)>,
}

impl Folders<'_> {
    fn make(&mut self, path: &str) -> io::Result<&OwnedFd> {
        let last = match self.last.take() {
            Some(last) if last.0 == path => last,
            _ => (path.to_owned(), folder::make_below(self.root, path)?),
        };
        Ok(&self.last.insert(last).1)
    }
}

#[async_trait]
impl ObjectStore for Directory {
    async fn get(&self, key: &str) -> Result<Object, ObjectError> {
        let key = checked(key).to_owned();
        self.blocking(move |inner| inner.get(&key)).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, ObjectError> {
        let key = checked(key).to_owned();
        self.blocking(move |inner| inner.get_range(&key, range)).await
    }

    async fn size(&self, key: &str) -> Result<u64, ObjectError> {
        let key = checked(key).to_owned();
        self.blocking(move |inner| Ok(inner.open(&key)?.1)).await
    }

    async fn put(&self, key: &str, bytes: Bytes, condition: Condition) -> Result<Tag, ObjectError> {
        let key = checked(key).to_owned();
        self.blocking(move |inner| {
            match condition {
                Condition::Absent => inner.put_if_absent(&key, &bytes)?,
                Condition::Matches(expected) => inner.put_if_matches(&key, &bytes, &expected)?,
            }
            Ok(tag(&bytes))
        })
        .await
    }

    async fn put_absent(&self, objects: Vec<(String, Bytes)>) -> Result<Vec<String>, ObjectError> {
        for (key, _) in &objects {
            checked(key);
        }
        self.blocking(move |inner| inner.put_absent(&objects)).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Listed>, ObjectError> {
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        self.blocking(move |inner| {
            let listed = list::list(&inner.root, &prefix, after.as_deref(), limit);
            listed.map_err(|e| inner.unavailable(&prefix, &e))
        })
        .await
    }

    async fn delete(&self, key: &str) -> Result<(), ObjectError> {
        let key = checked(key).to_owned();
        self.blocking(move |inner| inner.delete(&key)).await
    }

    /// A file has one state.
    async fn purge(&self, key: &str) -> Result<Purged, ObjectError> {
        checked(key);
        Ok(Purged::default())
    }

    fn describe(&self) -> String {
        self.0.path.display().to_string()
    }
}
