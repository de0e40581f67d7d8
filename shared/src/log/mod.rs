//! The log of a tenant: Merkle tree, tiles, checkpoints, proofs (docs/format.md, section 8).
//!
//! Pure but for [`reader`], which reads an archive. Written here and not taken from a crate: an ADR says why. The
//! tests hold it against other implementations and their published vectors.

pub mod bloom;
pub mod checkpoint;
pub mod header;
pub mod identity;
pub mod keys;
pub mod merkle;
pub mod paths;
pub mod proof;
pub mod reader;
pub mod record;
pub mod signer;
pub mod tiles;

pub use reader::{LogError, LogReader};
pub use signer::{LocalSigner, LogSigner};

#[cfg(test)]
mod tests;
