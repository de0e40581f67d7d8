//! Checkpoints (c2sp.org/tlog-checkpoint): what a log says of itself, three lines in a signed note.
//!
//! Ours have no extension lines. Who may sign one is said in [`super::keys`].

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::merkle::Hash;
use crate::ids::TenantId;
use crate::limits;

/// The origin of a tenant's log, which is also the name that it is signed under.
pub fn origin(deployment: &str, tenant: &TenantId) -> String {
    format!("{deployment}/{tenant}")
}

/// A tree, named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Whose: see [`origin`].
    pub origin: String,
    /// How many leaves, at most [`limits::TREE_SIZE_MAX`].
    pub tree_size: u64,
    /// The root of the tree of that size.
    pub root: Hash,
}

/// Why a text is no checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a checkpoint: {0}")]
pub struct CheckpointError(pub &'static str);

impl Checkpoint {
    /// The text that is signed.
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.tree_size, BASE64.encode(self.root))
    }

    /// Reads the text of a note.
    ///
    /// # Errors
    /// If it is anything but what [`Checkpoint::text`] writes.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let body = text.strip_suffix('\n').ok_or(CheckpointError("no newline at its end"))?;
        let mut lines = body.split('\n');
        let (Some(origin), Some(size), Some(root), None) =
            (lines.next(), lines.next(), lines.next(), lines.next())
        else {
            return Err(CheckpointError("expected three lines"));
        };
        if origin.is_empty() {
            return Err(CheckpointError("an empty origin"));
        }
        let tree_size = parse_size(size).ok_or(CheckpointError("the tree size"))?;
        let root = parse_hash(root).ok_or(CheckpointError("the root"))?;
        Ok(Self { origin: origin.to_owned(), tree_size, root })
    }
}

/// A number of leaves, or the index of one, in its one spelling.
pub(super) fn parse_size(text: &str) -> Option<u64> {
    let canonical = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    let size = if canonical { text.parse().ok()? } else { return None };
    (size <= limits::TREE_SIZE_MAX).then_some(size)
}

/// A hash in base64, in its one spelling.
pub(super) fn parse_hash(text: &str) -> Option<Hash> {
    // The engine takes no missing padding and no spare bits.
    if text.len() == 44 { BASE64.decode(text).ok()?.try_into().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of c2sp.org/tlog-checkpoint.
    const EXAMPLE: &str =
        "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";

    #[test]
    fn the_published_example_is_read_and_written() {
        let checkpoint = Checkpoint::parse(EXAMPLE).unwrap();
        assert_eq!(checkpoint.tree_size, 20_852_163);
        assert_eq!(checkpoint.text(), EXAMPLE);
        let theirs = tlog_tiles::Checkpoint::from_bytes(EXAMPLE.as_bytes()).unwrap();
        assert_eq!(theirs.origin(), checkpoint.origin);
        assert_eq!(theirs.size(), checkpoint.tree_size);
        assert_eq!(theirs.hash().0, checkpoint.root);
    }

    #[test]
    fn a_checkpoint_has_one_spelling() {
        let swap = |from: &str, to: &str| EXAMPLE.replacen(from, to, 1);
        for bad in [
            String::new(),
            "\n".to_owned(),
            swap("example.com/behind-the-sofa", ""),
            swap("\n2", "\n02"),
            swap("\n2", "\n+2"),
            swap("\n2", "\n 2"),
            swap("20852163", ""),
            swap("20852163", "9223372036854775808"),
            swap("20852163", "18446744073709551616"),
            swap("2I=", "2J="),
            swap("2I=", "2I"),
            swap("2I=\n", "2I="),
            swap("2I=\n", "2I=\r\n"),
            swap("2I=\n", "2I==\n"),
            format!("{EXAMPLE}extension\n"),
            format!("{EXAMPLE}\n"),
        ] {
            assert!(Checkpoint::parse(&bad).is_err(), "{bad:?}");
        }
        assert_eq!(
            Checkpoint::parse(&swap("20852163", "9223372036854775807")).unwrap().tree_size,
            i64::MAX as u64
        );
        assert_eq!(Checkpoint::parse(&swap("20852163", "0")).unwrap().tree_size, 0);
    }
}
