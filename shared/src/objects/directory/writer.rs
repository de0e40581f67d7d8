//! What writing needs beside the objects: a place for what is half written, and a lock.
//!
//! | file | what |
//! |---|---|
//! | `.lock` | locked (flock) by whoever compares and swaps, deletes, or sweeps |
//! | `.tmp/<id>.lock` | locked by the one writer with that id, as long as it lives |
//! | `.tmp/<id>.<n>` | an object that it is writing |
//!
//! A writer that died left its lock free: the next one sweeps what it had begun, without asking what time it is.
//! A writer takes its own lock while it holds the first one, and sweeping is done under that: nobody alive is swept.

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Dir, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::folder::{FILE_MODE, make_below};
use crate::{ids, random};

const LOCK: &str = ".lock";
const TEMPORARY: &str = ".tmp";
/// How long the lock is waited for: it is held for the writing of one object.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
/// Between two tries.
const LOCK_POLL: Duration = Duration::from_millis(2);

/// One writer to a directory.
pub(super) struct Writer {
    temporary: OwnedFd,
    id: String,
    count: AtomicU64,
    /// The lock of the directory. The mutex holds off the threads of this process, to whom a lock that the process
    /// has is no hindrance.
    lock: Mutex<File>,
    /// Locked as long as it is open.
    _own: File,
}

fn open_lock(folder: impl AsFd, name: &str) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::openat(folder, name, flags, FILE_MODE)?))
}

/// Waits for the lock. It is given back when the guard is dropped.
fn hold(lock: &File) -> io::Result<Held<'_>> {
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match rustix::fs::flock(lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Held(lock)),
            Err(Errno::INTR) => {}
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => sleep(LOCK_POLL),
            Err(Errno::WOULDBLOCK) => return Err(io::Error::other("another process keeps it locked")),
            Err(e) => return Err(e.into()),
        }
    }
}

struct Held<'a>(&'a File);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let _ = rustix::fs::flock(self.0, FlockOperation::Unlock);
    }
}

impl Writer {
    /// Joins the writers of a directory, and sweeps what dead ones left.
    pub(super) fn new(root: impl AsFd) -> io::Result<Self> {
        let lock = open_lock(&root, LOCK)?;
        let temporary = make_below(&root, TEMPORARY)?;
        let id = ids::hex(&random::bytes::<8>());
        let held = hold(&lock)?;
        let own = open_lock(&temporary, &format!("{id}.lock"))?;
        rustix::fs::flock(&own, FlockOperation::NonBlockingLockExclusive)?;
        sweep(&temporary, &id)?;
        drop(held);
        Ok(Self { temporary, id, count: AtomicU64::new(0), lock: Mutex::new(lock), _own: own })
    }

    /// Does something that no other process and no other thread does meanwhile.
    ///
    /// # Errors
    /// The lock cannot be had; nothing was done.
    pub(super) fn alone<T>(&self, work: impl FnOnce() -> T) -> io::Result<T> {
        let lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let _held = hold(&lock)?;
        Ok(work())
    }

    /// Writes bytes where no list shows them; durably, if so asked.
    pub(super) fn write(&self, bytes: &[u8], durably: bool) -> io::Result<Temporary<'_>> {
        let name = format!("{}.{}", self.id, self.count.fetch_add(1, Ordering::Relaxed));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(&self.temporary, &name, flags, FILE_MODE)?);
        let temporary = Temporary { folder: self.temporary.as_fd(), name, is_placed: false };
        file.write_all(bytes)?;
        if durably {
            file.sync_all()?;
        }
        Ok(temporary)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // What stays behind is swept by the next one.
        let _ = rustix::fs::unlinkat(&self.temporary, format!("{}.lock", self.id), AtFlags::empty());
    }
}

/// A file that is not an object yet; removed when it is dropped, unless it has become one.
pub(super) struct Temporary<'a> {
    folder: BorrowedFd<'a>,
    name: String,
    is_placed: bool,
}

impl Temporary<'_> {
    /// Makes durable what is in it.
    pub(super) fn sync(&self) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        File::from(rustix::fs::openat(self.folder, &self.name, flags, Mode::empty())?).sync_all()
    }

    /// Gives it its name, if nothing has it. Says whether it did.
    pub(super) fn place(mut self, folder: impl AsFd, name: &str) -> io::Result<bool> {
        #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
        {
            let flags = rustix::fs::RenameFlags::NOREPLACE;
            match rustix::fs::renameat_with(self.folder, &self.name, &folder, name, flags) {
                Ok(()) => {
                    self.is_placed = true;
                    return Ok(true);
                }
                Err(Errno::EXIST) => return Ok(false),
                // Not every file system can.
                Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
                Err(e) => return Err(e.into()),
            }
        }
        match rustix::fs::linkat(self.folder, &self.name, folder, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// Gives it its name, in place of what has it.
    pub(super) fn replace(mut self, folder: impl AsFd, name: &str) -> io::Result<()> {
        rustix::fs::renameat(self.folder, &self.name, folder, name)?;
        self.is_placed = true;
        Ok(())
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if !self.is_placed {
            let _ = rustix::fs::unlinkat(self.folder, &self.name, AtFlags::empty());
        }
    }
}

/// Removes the files of writers that do not live. The directory's lock is held.
fn sweep(temporary: &OwnedFd, own: &str) -> io::Result<()> {
    let mut names = BTreeSet::new();
    for entry in Dir::read_from(temporary)? {
        names.extend(parse(entry?.file_name()));
    }
    // `lock` sorts after every number: what is left of an interrupted sweep still has its lock, or is none's.
    for (id, rest) in &names {
        if id == own || lives(temporary, id)? {
            continue;
        }
        match rustix::fs::unlinkat(temporary, format!("{id}.{rest}"), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Id and rest of a writer's file. Anything else is not ours to remove.
fn parse(name: &CStr) -> Option<(String, String)> {
    let (id, rest) = name.to_str().ok()?.split_once('.')?;
    let is_id = id.len() == 16 && id.bytes().all(|b| b.is_ascii_hexdigit());
    let is_rest = rest == "lock" || (!rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()));
    (is_id && is_rest).then(|| (id.to_owned(), rest.to_owned()))
}

fn lives(temporary: &OwnedFd, id: &str) -> io::Result<bool> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let lock = match rustix::fs::openat(temporary, format!("{id}.lock"), flags, Mode::empty()) {
        Ok(lock) => lock,
        Err(Errno::NOENT) => return Ok(false),
        Err(e) => return Err(e.into()),
    };
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(false),
        Err(Errno::WOULDBLOCK) => Ok(true),
        Err(e) => Err(e.into()),
    }
}
