//! Lists of keys, from folders that may hold any number of names.
//!
//! The order of keys is not that of names: `a.b` comes before `a/b`. So a folder counts as its name with `/`. Nothing
//! is kept between two pages, as others may write meanwhile: each page reads the names of the folders that it needs,
//! keeps no more of them than it has to fill, and asks for the lengths of those that it returns.

use std::collections::BinaryHeap;
use std::ffi::{CStr, CString};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType};
use rustix::io::Errno;

use super::folder;
use crate::objects::{KEY_BYTES_MAX, Listed, is_key};

/// See [`super::super::ObjectStore::list`].
pub(super) fn list(
    root: impl AsFd,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
) -> io::Result<Vec<Listed>> {
    let (path, _) = folder::split(prefix);
    let path = if prefix.contains('/') { path } else { "" };
    if limit == 0 || (prefix.contains('/') && !is_key(path)) {
        return Ok(Vec::new());
    }
    let folder = match folder::below(root, path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let base = if path.is_empty() { String::new() } else { format!("{path}/") };
    let mut list = List { prefix, after: after.unwrap_or(""), limit, found: Vec::new() };
    list.folder(&folder, &base)?;
    Ok(list.found)
}

struct List<'a> {
    prefix: &'a str,
    after: &'a str,
    limit: usize,
    found: Vec<Listed>,
}

/// A name in a folder, in the order of keys.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Child {
    /// Its name, with `/` if it is a folder. Text: what is not is replaced.
    key: String,
    name: CString,
}

impl Child {
    fn order(&self) -> (&str, &CStr) {
        (&self.key, &self.name)
    }
}

impl List<'_> {
    /// Finds what is below a folder, whose keys begin with `base`.
    fn folder(&mut self, folder: &OwnedFd, base: &str) -> io::Result<()> {
        if base.len() > KEY_BYTES_MAX {
            return Err(io::Error::other("a folder lies deeper than any key"));
        }
        let mut done = None;
        loop {
            let wanted = self.limit - self.found.len();
            let children = self.children(folder, base, done.as_ref(), wanted)?;
            // Folders may turn out to be empty: then there is room for more of this one.
            let may_be_more = children.len() == wanted;
            for child in children {
                let key = format!("{base}{}", child.key);
                if key.ends_with('/') {
                    match folder::child(folder, &*child.name) {
                        Ok(below) => self.folder(&below, &key)?,
                        Err(e) if e.kind() == ErrorKind::NotFound => {}
                        Err(e) => return Err(e),
                    }
                } else {
                    match rustix::fs::statat(folder, &child.name, AtFlags::SYMLINK_NOFOLLOW) {
                        Ok(stat) => {
                            self.found.push(Listed { key, bytes: u64::try_from(stat.st_size).unwrap_or(0) });
                        }
                        // Deleted meanwhile.
                        Err(Errno::NOENT) => {}
                        Err(e) => return Err(e.into()),
                    }
                }
                if self.found.len() == self.limit {
                    return Ok(());
                }
                done = Some(child);
            }
            if !may_be_more {
                return Ok(());
            }
        }
    }

    /// The first `wanted` names of a folder that can lead to keys asked for, after those that are done.
    fn children(
        &self,
        folder: &OwnedFd,
        base: &str,
        done: Option<&Child>,
        wanted: usize,
    ) -> io::Result<Vec<Child>> {
        // What is asked of the keys, asked of the names: there may be very many.
        let after = self.after.strip_prefix(base);
        if after.is_none() && base < self.after {
            return Ok(Vec::new());
        }
        let prefix = self.prefix.strip_prefix(base).unwrap_or("");
        let mut first: BinaryHeap<Child> = BinaryHeap::new();
        for entry in Dir::read_from(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let bytes = name.to_bytes();
            if bytes == b"." || bytes == b".." || (base.is_empty() && bytes.starts_with(b".")) {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Unknown => match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                    Err(Errno::NOENT) => continue,
                    Err(e) => return Err(e.into()),
                },
                kind => kind,
            };
            let is_folder = kind == FileType::Directory;
            let mut key = name.to_string_lossy();
            if is_folder {
                key.to_mut().push('/');
            }
            let comes_after = |after: &str| &*key > after || (is_folder && after.starts_with(&*key));
            if !key.starts_with(prefix) || !after.is_none_or(comes_after) {
                continue;
            }
            let own = (&*key, name);
            if done.is_some_and(|done| own <= done.order()) {
                continue;
            }
            if first.len() == wanted {
                match first.peek() {
                    Some(last) if own < last.order() => first.pop(),
                    _ => continue,
                };
            }
            first.push(Child { key: key.into_owned(), name: name.to_owned() });
        }
        Ok(first.into_sorted_vec())
    }
}
