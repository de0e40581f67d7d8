//! Published vectors: the reference tree of Certificate Transparency (google/certificate-transparency,
//! merkletree_test; transparency-dev/merkle, testonly), and paths of Go's sumdb (golang.org/x/mod/sumdb/tlog).

use sha2::{Digest, Sha256};

use super::super::merkle::{Frontier, Hash, node_hash, verify_consistency, verify_inclusion};
use super::super::tiles::{Level, Tile};
use crate::ids::decode_hex;

/// Entries of the reference tree, hex.
const LEAVES: [&str; 8] =
    ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];

/// Its roots, for 1 to 8 leaves.
const ROOTS: [&str; 8] = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

/// Inclusion: index, size, proof.
const INCLUSION: [(u64, u64, &[&str]); 4] = [
    (0, 1, &[]),
    (
        0,
        8,
        &[
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        5,
        8,
        &[
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (2, 3, &["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
];

/// Consistency: sizes, proof.
const CONSISTENCY: [(u64, u64, &[&str]); 4] = [
    (1, 1, &[]),
    (
        1,
        8,
        &[
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        6,
        8,
        &[
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (
        2,
        5,
        &[
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
];

fn unhex(text: &str) -> Hash {
    decode_hex(text).unwrap()
}

/// Leaf hashes of the reference tree, whose entries are not 32 bytes long.
fn leaves() -> Vec<Hash> {
    let bytes = |hex: &str| -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    };
    LEAVES.iter().map(|hex| Sha256::digest([&[0][..], &bytes(hex)].concat()).into()).collect()
}

#[test]
fn roots_of_the_reference_tree() {
    assert_eq!(
        Frontier::new().root(),
        unhex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
    );
    let mut frontier = Frontier::new();
    for (leaf, root) in leaves().into_iter().zip(ROOTS) {
        frontier.push(leaf);
        assert_eq!(frontier.root(), unhex(root), "{} leaves", frontier.size());
    }
    // The vector of a node: H(0x01 || "N123" || "N456") is of shorter children; ours are the first two leaves.
    assert_eq!(node_hash(&leaves()[0], &leaves()[1]), unhex(ROOTS[1]));
}

#[test]
fn published_proofs_verify() {
    let (leaves, root) = (leaves(), |size: u64| unhex(ROOTS[size as usize - 1]));
    for (index, size, proof) in INCLUSION {
        let proof: Vec<Hash> = proof.iter().map(|hash| unhex(hash)).collect();
        let leaf = leaves[index as usize];
        assert!(verify_inclusion(&leaf, index, size, &proof, &root(size)), "{index} of {size}");
        assert_eq!(super::reference::path(index as usize, &leaves[..size as usize]), proof);
    }
    for (old, new, proof) in CONSISTENCY {
        let proof: Vec<Hash> = proof.iter().map(|hash| unhex(hash)).collect();
        assert!(verify_consistency(old, &root(old), new, &root(new), &proof), "{old} to {new}");
        assert_eq!(super::reference::proof(old as usize, &leaves[..new as usize]), proof);
    }
}

#[test]
fn published_paths_of_tiles() {
    // c2sp.org/tlog-tiles: index 1234067, and the tiles of a tree of 70,000.
    let tile = Tile { level: Level::Hashes(0), index: 1_234_067, width: 256 };
    assert_eq!(tile.path(), "tile/0/x001/x234/067");
    let partial = |level, size: u64, index| Tile::at(level, index, size).map(|tile| tile.path());
    assert_eq!(partial(Level::Hashes(0), 70_000, 272).as_deref(), Some("tile/0/272"));
    assert_eq!(partial(Level::Hashes(0), 70_000, 273).as_deref(), Some("tile/0/273.p/112"));
    assert_eq!(partial(Level::Hashes(0), 70_000, 274), None);
    assert_eq!(partial(Level::Hashes(1), 70_000, 0).as_deref(), Some("tile/1/000"));
    assert_eq!(partial(Level::Hashes(1), 70_000, 1).as_deref(), Some("tile/1/001.p/17"));
    assert_eq!(partial(Level::Hashes(2), 70_000, 0).as_deref(), Some("tile/2/000.p/1"));
    assert_eq!(partial(Level::Hashes(3), 70_000, 0), None);
    assert_eq!(partial(Level::Hashes(1), 256, 0).as_deref(), Some("tile/1/000.p/1"));
    assert_eq!(partial(Level::Entries, 70_000, 273).as_deref(), Some("tile/entries/273.p/112"));
}
