//! Proofs that an event is in a log, as text (c2sp.org/tlog-proof@v1).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::checkpoint::{Checkpoint, parse_hash, parse_size};
use super::keys::{KeyChain, KeyError};
use super::merkle::{Hash, leaf_hash, verify_inclusion};
use crate::ids::{EventHash, TenantId};
use crate::limits;

/// First line.
const DOMAIN: &str = "c2sp.org/tlog-proof@v1";

/// Most hashes of a proof: a tree of [`limits::TREE_SIZE_MAX`] leaves is 63 levels high.
const HASHES_MAX: usize = 63;

/// Longest of everything before the checkpoint, bytes: 63 lines of 45, an index, and extra data, which we do not write.
const FRONT_BYTES_MAX: usize = 64 * 1024;

/// That an entry is in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogProof {
    /// Data that nothing vouches for; ours have none.
    pub extra: Option<Vec<u8>>,
    /// Index of the entry's leaf.
    pub index: u64,
    /// The inclusion proof, the leaf's sibling first.
    pub hashes: Vec<Hash>,
    /// The checkpoint, with all its signatures: a note.
    pub checkpoint: String,
}

/// Why a proof does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// Not a proof; the text says what is wrong.
    #[error("not a proof: {0}")]
    Syntax(&'static str),
    /// The checkpoint in it.
    #[error(transparent)]
    Checkpoint(#[from] KeyError),
    /// The event is not that leaf of that tree.
    #[error("it does not prove that this event is in the log")]
    Wrong,
}

impl LogProof {
    /// Its text.
    pub fn text(&self) -> String {
        let mut text = format!("{DOMAIN}\n");
        if let Some(extra) = &self.extra {
            text.push_str(&format!("extra {}\n", BASE64.encode(extra)));
        }
        text.push_str(&format!("index {}\n", self.index));
        for hash in &self.hashes {
            text.push_str(&BASE64.encode(hash));
            text.push('\n');
        }
        text.push('\n');
        text.push_str(&self.checkpoint);
        text
    }

    /// Reads a proof. Whether its checkpoint is one is seen when it is verified.
    ///
    /// # Errors
    /// If it is anything but what [`LogProof::text`] writes, or longer than a proof can be.
    pub fn parse(text: &str) -> Result<Self, ProofError> {
        let error = ProofError::Syntax;
        if text.len() > FRONT_BYTES_MAX + limits::NOTE_BYTES_MAX {
            return Err(error("too long"));
        }
        let (front, checkpoint) =
            text.split_once("\n\n").ok_or(error("no empty line before the checkpoint"))?;
        if front.len() > FRONT_BYTES_MAX {
            return Err(error("too long"));
        }
        let mut lines = front.split('\n');
        if lines.next() != Some(DOMAIN) {
            return Err(error("expected c2sp.org/tlog-proof@v1"));
        }
        let mut line = lines.next().ok_or(error("no index"))?;
        let mut extra = None;
        if let Some(data) = line.strip_prefix("extra ") {
            extra = Some(BASE64.decode(data).map_err(|_| error("extra data that is not base64"))?);
            line = lines.next().ok_or(error("no index"))?;
        }
        let index = line.strip_prefix("index ").and_then(parse_size).ok_or(error("no index"))?;
        let hashes: Option<Vec<Hash>> = lines.map(parse_hash).collect();
        let hashes = hashes.filter(|hashes| hashes.len() <= HASHES_MAX).ok_or(error("a hash"))?;
        Ok(Self { extra, index, hashes, checkpoint: checkpoint.to_owned() })
    }

    /// Checks that the event of this hash is in the log of a tenant, as a checkpoint says that the key signed which
    /// holds for its size. Gives that checkpoint.
    ///
    /// # Errors
    /// If it does not prove that.
    pub fn verify(
        &self,
        keys: &KeyChain,
        tenant: &TenantId,
        event: &EventHash,
    ) -> Result<Checkpoint, ProofError> {
        let checkpoint = keys.open_checkpoint(tenant, &self.checkpoint)?;
        let leaf = leaf_hash(&event.0);
        let holds = verify_inclusion(&leaf, self.index, checkpoint.tree_size, &self.hashes, &checkpoint.root);
        if holds { Ok(checkpoint) } else { Err(ProofError::Wrong) }
    }
}
