//! Where archives lie: a bucket or a directory, of objects that are written whole.
//!
//! What it must do is little, so that both can do it alike: conditional writes, ranged reads, lists in order. Two
//! implementations stand under one suite ([`conformance`]): [`Directory`] and, with the feature `s3`, [`S3Bucket`].
//!
//! Guarantees: what a write made durable is seen by every later call, lists too (S3 is strongly consistent since
//! December 2020). A condition is decided atomically with the write. A reader sees an object whole or not at all.

#[cfg(feature = "testing")]
pub mod conformance;
#[cfg(feature = "embedded")]
mod directory;
#[cfg(feature = "testing")]
pub mod faulty;
#[cfg(feature = "s3")]
mod s3;

#[cfg(feature = "embedded")]
pub use directory::Directory;
#[cfg(feature = "s3")]
pub use s3::{Lock, Mode, S3Bucket};

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;

use crate::time::Micros;

/// How a call ended, if not well.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ObjectError {
    /// No such object.
    #[error("no object {key}")]
    NotFound {
        /// Its key.
        key: String,
    },
    /// The condition of a write failed; nothing was written.
    #[error("the condition for writing {key} failed")]
    Conflict {
        /// Its key.
        key: String,
    },
    /// It cannot be reached, refuses, or asks for patience. Nothing was written.
    #[error("unavailable: {why}")]
    Unavailable {
        /// What happened, for the log; never for a client.
        why: String,
    },
    /// The outcome of a write is not known. Read before you retry.
    #[error("unknown outcome: {why}")]
    Unknown {
        /// What happened, for the log; never for a client.
        why: String,
    },
}

/// A state of an object, as its store names it (on S3 its ETag). Changes whenever its bytes do; the same bytes
/// written again may have the tag that they had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag(pub String);

/// On which condition an object is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// There is none with this key.
    Absent,
    /// There is one, and it has this tag.
    Matches(Tag),
}

/// An object, read whole.
#[derive(Debug, Clone)]
pub struct Object {
    /// What is in it.
    pub bytes: Bytes,
    /// Its state.
    pub tag: Tag,
}

/// An object in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: String,
    /// Its length, bytes.
    pub bytes: u64,
}

/// What is left after [`ObjectStore::purge`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Purged {
    /// Older states that a lock keeps.
    pub kept: usize,
    /// Until when the last of them is locked, if that is known.
    pub until: Option<Micros>,
}

/// Longest key, bytes: S3's limit.
const KEY_BYTES_MAX: usize = 1024;

/// Longest part of a key, bytes: what file systems have room for (NAME_MAX).
const KEY_PART_BYTES_MAX: usize = 255;

/// True for what an [`ObjectStore`] takes as a key: parts joined by `/`, none of them empty, `.` or `..`, of visible
/// ASCII without `\`; a part has at most 255 bytes, all of it at most 1,024. It does not begin with `.`: a directory
/// keeps its own affairs under such names.
pub fn is_key(key: &str) -> bool {
    let is_part = |part: &str| {
        !["", ".", ".."].contains(&part)
            && part.len() <= KEY_PART_BYTES_MAX
            && part.bytes().all(|b| b.is_ascii_graphic() && b != b'\\')
    };
    key.len() <= KEY_BYTES_MAX && !key.starts_with('.') && key.split('/').all(is_part)
}

/// A key that is one, or the end: see [`ObjectStore`].
#[cfg(any(feature = "embedded", feature = "s3"))]
#[track_caller]
fn checked(key: &str) -> &str {
    assert!(is_key(key), "{key:?} is no key of an object");
    key
}

/// A store of objects. Keys are those that [`is_key`] allows; any other is a programmer's error and panics. No key may
/// be another one with `/` and more after it: in a directory, nothing is a file and a folder.
///
/// What others put there may have any name: a list names it too (as well as text can), but it cannot be read.
#[async_trait]
pub trait ObjectStore: Send + Sync + 'static {
    /// An object, whole.
    ///
    /// # Errors
    /// `NotFound`; `Unavailable`.
    async fn get(&self, key: &str) -> Result<Object, ObjectError>;

    /// Part of an object; shorter if the object ends before.
    ///
    /// # Errors
    /// `NotFound`; `Unavailable`.
    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, ObjectError>;

    /// Length of an object, bytes.
    ///
    /// # Errors
    /// `NotFound`; `Unavailable`.
    async fn size(&self, key: &str) -> Result<u64, ObjectError>;

    /// Writes an object, durably, if the condition holds.
    ///
    /// # Errors
    /// `Conflict`, `Unavailable`: nothing was written. `Unknown`: it may have been.
    async fn put(&self, key: &str, bytes: Bytes, condition: Condition) -> Result<Tag, ObjectError>;

    /// Writes several objects that are absent, all durable when it returns. Those that are there already are left as
    /// they are and named in the answer, for the caller to compare. Cheaper than one by one; not atomic.
    ///
    /// # Errors
    /// `Unavailable`, `Unknown`: any of them may have been written.
    async fn put_absent(&self, objects: Vec<(String, Bytes)>) -> Result<Vec<String>, ObjectError>;

    /// Up to `limit` objects whose keys begin with `prefix` and come after `after`, in the order of their keys' bytes.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize)
    -> Result<Vec<Listed>, ObjectError>;

    /// Deletes an object, if it is there.
    ///
    /// # Errors
    /// `Unavailable`; `Unknown`.
    async fn delete(&self, key: &str) -> Result<(), ObjectError>;

    /// Deletes every state of an object but the present one, where older ones are kept. Says what a lock keeps.
    ///
    /// # Errors
    /// `Unavailable`; `Unknown`. May be repeated.
    async fn purge(&self, key: &str) -> Result<Purged, ObjectError>;

    /// Where it is, for people: a path or `s3://bucket`.
    fn describe(&self) -> String;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        let long = format!("a/{}", "b".repeat(KEY_PART_BYTES_MAX));
        for key in
            ["a", "log/_identity.json", "tile/0/x001/234.p/5", "events/tenant=a/dt=2026-01-01/b", &long]
        {
            assert!(is_key(key), "{key}");
        }
        let longer = format!("a/{}", "b".repeat(KEY_PART_BYTES_MAX + 1));
        let longest = ["0123456"; KEY_BYTES_MAX / 8].join("/");
        assert!(is_key(&longest) && is_key(&format!("{longest}x")) && !is_key(&format!("{longest}xy")));
        for key in [
            "", "/", "/a", "a/", "a//b", ".", "..", "a/.", "a/../b", ".tmp/a", ".lock", "a b", "a\\b", "a\n",
            "ä", "a\0", "a\u{7f}", &longer,
        ] {
            assert!(!is_key(key), "{key:?}");
        }
    }
}
