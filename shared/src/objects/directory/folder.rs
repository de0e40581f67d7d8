//! Folders below a root, by descriptor: one name at a time, never through a symbolic link. So nothing outside the root
//! is reached, whatever was put below it.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

/// A folder, open.
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// A file, open for reading. Opening a pipe that nobody writes to must not wait.
const FILE: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);
/// Archives hold what people said: for their owner alone, like the data directory.
pub(super) const FOLDER_MODE: Mode = Mode::RWXU;
/// See [`FOLDER_MODE`].
pub(super) const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// A root, wherever its path leads.
pub(super) fn root(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, FOLDER, Mode::empty())?)
}

/// Folder and name of a key; the folder of a key without `/` is empty.
pub(super) fn split(key: &str) -> (&str, &str) {
    key.rsplit_once('/').unwrap_or(("", key))
}

/// A folder in another.
///
/// # Errors
/// `NotFound`, also if it is a file; any other if it is a link, or the file system's.
pub(super) fn child(folder: impl AsFd, name: impl rustix::path::Arg + Copy) -> io::Result<OwnedFd> {
    let opened = rustix::fs::openat(&folder, name, FOLDER | OFlags::NOFOLLOW, Mode::empty());
    match opened {
        // What it says of a link differs between systems; of a file it says the same.
        Err(e @ (Errno::NOTDIR | Errno::LOOP)) => {
            match rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => Err(link()),
                Ok(_) => Err(ErrorKind::NotFound.into()),
                Err(_) => Err(e.into()),
            }
        }
        other => Ok(other?),
    }
}

/// A folder below another, by its path of names; an empty path is that folder itself.
///
/// # Errors
/// As [`child`].
pub(super) fn below(folder: impl AsFd, path: &str) -> io::Result<OwnedFd> {
    let mut at = rustix::fs::openat(folder, ".", FOLDER, Mode::empty())?;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        at = child(at, name)?;
    }
    Ok(at)
}

/// The same, made where it is not there.
pub(super) fn make_below(folder: impl AsFd, path: &str) -> io::Result<OwnedFd> {
    let mut at = rustix::fs::openat(folder, ".", FOLDER, Mode::empty())?;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        at = match child(&at, name) {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                match rustix::fs::mkdirat(&at, name, FOLDER_MODE) {
                    Ok(()) => {}
                    // Another made it; or it is a file, which the next line finds.
                    Err(Errno::EXIST) => {}
                    Err(e) => return Err(e.into()),
                }
                child(&at, name)?
            }
            other => other?,
        };
    }
    Ok(at)
}

/// Makes the entries of a folder durable, and those of every folder on the way to it: any of them may have been made
/// moments ago, by another process too.
pub(super) fn sync(root: impl AsFd, path: &str) -> io::Result<()> {
    let mut at = rustix::fs::openat(root, ".", FOLDER, Mode::empty())?;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        let next = child(&at, name)?;
        File::from(at).sync_all()?;
        at = next;
    }
    File::from(at).sync_all()
}

/// Makes everything of this file system durable, in one call where the system has one. False if it has none.
pub(super) fn sync_all(root: impl AsFd) -> io::Result<bool> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        match rustix::fs::syncfs(root) {
            Ok(()) => Ok(true),
            Err(Errno::NOSYS) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let _ = root;
        Ok(false)
    }
}

/// A file by its key, open for reading, and its length in bytes.
///
/// # Errors
/// `NotFound`, also if there is a folder; any other if it is neither or the file system's.
pub(super) fn open(root: impl AsFd, key: &str) -> io::Result<(File, u64)> {
    let (folder, name) = split(key);
    let folder = below(root, folder)?;
    let file = match rustix::fs::openat(&folder, name, FILE, Mode::empty()) {
        Err(Errno::LOOP | Errno::MLINK) => return Err(link()),
        other => other?,
    };
    let stat = rustix::fs::fstat(&file)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok((File::from(file), u64::try_from(stat.st_size).unwrap_or(0))),
        FileType::Directory => Err(ErrorKind::NotFound.into()),
        _ => Err(io::Error::other("it is no regular file")),
    }
}

/// All bytes of a file that is not written any more.
pub(super) fn read(mut file: File, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(usize::try_from(length).map_err(io::Error::other)?);
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn link() -> io::Error {
    io::Error::other("it is, or is behind, a symbolic link: an archive has none")
}
