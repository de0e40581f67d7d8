//! What is in a log: headers, checkpoints, proofs, identities, rotations, and the keys of objects.

use quipu_core::ids::{EventHash, TenantId};
use quipu_core::log::checkpoint::Checkpoint;
use quipu_core::log::header::{BatchHeader, hash_of};
use quipu_core::log::identity::IdentityFile;
use quipu_core::log::keys::{KeyChain, Rotation};
use quipu_core::log::paths::{self, Named};
use quipu_core::log::proof::LogProof;
use quipu_core::log::tiles::Tile;

use super::meaning;
use super::note::{deployment, log as log_key};

/// A header (0), a checkpoint (1), a proof (2), an identity (3), a key or a path of a tile (4), or a rotation (5).
pub fn log(data: &[u8]) -> bool {
    let Some((how, data)) = meaning(data, 6) else { return false };
    match how {
        0 => return header(data),
        3 => return identity(data),
        _ => {}
    }
    let Ok(text) = std::str::from_utf8(data) else { return false };
    match how {
        1 => checkpoint(text),
        2 => proof(text),
        4 => key(text),
        _ => rotation(text),
    }
}

/// What is read is written and read again as the same, and its runs are its leaves.
fn header(data: &[u8]) -> bool {
    let Ok(header) = BatchHeader::parse(data) else { return false };
    let bytes = header.to_bytes();
    assert_eq!(BatchHeader::parse(&bytes).as_ref(), Ok(&header));
    let record = header.record(hash_of(&bytes));
    assert_eq!(record.tree_size(), header.tree_size);
    let mut leaf = header.first_leaf;
    for run in &header.runs {
        assert_eq!(header.leaf_of(&run.session_id, run.first), Some(leaf));
        leaf += run.count();
        assert_eq!(header.leaf_of(&run.session_id, run.last), Some(leaf - 1));
    }
    assert_eq!(leaf, header.tree_size);
    true
}

/// A checkpoint has one spelling.
fn checkpoint(text: &str) -> bool {
    let Ok(checkpoint) = Checkpoint::parse(text) else { return false };
    assert_eq!(checkpoint.text(), text);
    true
}

/// A proof has one spelling, and proves nothing of an event that is in no log.
fn proof(text: &str) -> bool {
    let Ok(proof) = LogProof::parse(text) else { return false };
    assert_eq!(proof.text(), text);
    let keys = KeyChain::of(deployment(), log_key().verifier().clone()).expect("a log key");
    let verified = proof.verify(&keys, &TenantId::default_tenant(), &EventHash([0xee; 32]));
    assert!(verified.is_err(), "forged: {text:?}");
    true
}

fn identity(data: &[u8]) -> bool {
    let Ok(identity) = IdentityFile::parse(data) else { return false };
    assert_eq!(IdentityFile::parse(&identity.to_bytes()).as_ref(), Ok(&identity));
    if let Ok(chain) = identity.chain() {
        assert!(chain.contains(&identity.log_key));
        assert_eq!(chain.keys().len(), chain.rotations().len() + 1);
        assert_eq!(chain.newest(), &identity.log_key);
    }
    true
}

/// A key, and a path, have one spelling.
fn key(text: &str) -> bool {
    if let Some(tile) = Tile::parse(text) {
        assert_eq!(tile.path(), text);
        return true;
    }
    let written = match Named::parse(text) {
        None => return false,
        Some(Named::Identity) => paths::IDENTITY.to_owned(),
        Some(Named::Header(tenant, batch)) => paths::header(&tenant, batch),
        Some(Named::HeaderSignature(tenant, batch)) => paths::header_signature(&tenant, batch),
        Some(Named::ObjectRecord(tenant, batch, revision)) => paths::object_record(&tenant, batch, revision),
        Some(Named::CheckpointAt(tenant, batch)) => paths::checkpoint_at(&tenant, batch),
        Some(Named::Checkpoint(tenant)) => paths::checkpoint(&tenant),
        Some(Named::Tile(tenant, tile)) => paths::tile(&tenant, &tile),
        Some(Named::Object { tenant, day, batch }) => paths::object(&tenant, &day, batch),
    };
    assert_eq!(written, text);
    true
}

/// A rotation has one spelling, and a log in it one size.
fn rotation(text: &str) -> bool {
    let Ok(rotation) = Rotation::parse(text) else { return false };
    assert_eq!(rotation.text(), text);
    for (tenant, size) in &rotation.sizes {
        assert_eq!(rotation.size_of(tenant), *size);
    }
    true
}
