//! Proofs made from an archive, by the definition, and by others.

use std::sync::Arc;

use ct_merkle::{ConsistencyProof, InclusionProof, RootHash, mem_backed_tree::MemoryBackedTree};
use proptest::prelude::*;
use sha2::Sha256;

use super::super::checkpoint::{Checkpoint, origin};
use super::super::keys::KeyChain;
use super::super::merkle::*;
use super::super::paths;
use super::super::proof::{LogProof, ProofError};
use super::super::reader::{LogError, LogReader};
use super::super::tiles::{Tile, TileWriter};
use super::double::Memory;
use super::reference::{self, entries, leaves, mth};
use crate::ids::{EventHash, TenantId};
use crate::note::NoteSigner;
use crate::statement::log_key_name;

fn tenant() -> TenantId {
    TenantId::parse("acme").unwrap()
}

/// An archive that holds a log of that size; with `steps`, also as it was at those sizes.
fn archive(size: u64, steps: &[u64]) -> (LogReader, Arc<Memory>) {
    let (memory, events) = (Arc::new(Memory::default()), entries(size));
    for to in steps.iter().copied().chain([size]) {
        let mut writer = TileWriter::new();
        events[..to as usize].iter().for_each(|event| writer.push(event));
        let mut objects = memory.0.lock().unwrap();
        for (tile, bytes) in writer.finish().0 {
            objects.insert(paths::tile(&tenant(), &tile), bytes);
        }
    }
    (LogReader::new(memory.clone(), tenant()), memory)
}

/// The hashes that stand for subtrees, by the definition.
fn roots(ranges: &[std::ops::Range<u64>], leaves: &[Hash]) -> Vec<Hash> {
    ranges.iter().map(|range| mth(&leaves[range.start as usize..range.end as usize])).collect()
}

#[test]
fn every_small_proof_is_that_of_the_definition() {
    for size in 1..=40u64 {
        let leaves = leaves(size);
        let root = mth(&leaves);
        for index in 0..size {
            let proof = roots(&inclusion_ranges(index, size), &leaves);
            assert_eq!(proof, reference::path(index as usize, &leaves), "{index} of {size}");
            assert!(verify_inclusion(&leaves[index as usize], index, size, &proof, &root));
        }
        for old in 1..=size {
            let proof = roots(&consistency_ranges(old, size), &leaves);
            assert_eq!(proof, reference::proof(old as usize, &leaves), "{old} to {size}");
            assert!(verify_consistency(old, &mth(&leaves[..old as usize]), size, &root, &proof));
        }
        assert!(verify_consistency(0, &empty_root(), size, &root, &[]));
        for first in 0..size {
            for count in 1..=size - first {
                let proof = roots(&range_ranges(first, count, size), &leaves);
                let wanted =
                    reference::range_hashes(0, size as usize, first as usize, count as usize, &leaves);
                assert_eq!(proof, wanted, "{count} from {first} of {size}");
                let some = &leaves[first as usize..(first + count) as usize];
                assert!(verify_range(first, some, size, &proof, &root));
            }
        }
    }
}

#[tokio::test]
async fn every_leaf_and_size_is_proven_from_tiles() {
    for size in (1..=20).chain([255, 256, 257, 513]) {
        let (reader, _) = archive(size, &[]);
        let leaves = leaves(size);
        let root = mth(&leaves);
        assert_eq!(reader.root(size).await.unwrap(), root);
        for index in 0..size {
            let proof = reader.inclusion_proof(index, size).await.unwrap();
            assert!(
                verify_inclusion(&leaves[index as usize], index, size, &proof, &root),
                "{index} of {size}"
            );
        }
        let mut old = Frontier::new();
        for leaf in &leaves {
            old.push(*leaf);
            let proof = reader.consistency_proof(old.size(), size).await.unwrap();
            assert!(verify_consistency(old.size(), &old.root(), size, &root, &proof), "{}", old.size());
        }
    }
}

#[tokio::test]
async fn proofs_around_a_full_tile_of_tiles() {
    for size in [65_535, 65_536, 65_793] {
        let (reader, _) = archive(size, &[]);
        let leaves = leaves(size);
        let root = mth(&leaves);
        assert_eq!(reader.root(size).await.unwrap(), root, "{size}");
        let mut old = Frontier::new();
        for index in [0, 255, 256, 32_768, 65_279, size - 1] {
            let proof = reader.inclusion_proof(index, size).await.unwrap();
            assert!(
                verify_inclusion(&leaves[index as usize], index, size, &proof, &root),
                "{index} of {size}"
            );
            leaves[old.size() as usize..=index as usize].iter().for_each(|leaf| old.push(*leaf));
            let proof = reader.consistency_proof(old.size(), size).await.unwrap();
            assert!(verify_consistency(old.size(), &old.root(), size, &root, &proof), "{index} of {size}");
            let count = (size - index).min(700);
            let proof = reader.range_proof(index, count, size).await.unwrap();
            let some = &leaves[index as usize..(index + count) as usize];
            assert!(verify_range(index, some, size, &proof, &root), "{index} of {size}");
        }
    }
}

/// A proof stays good for an older size, as long as its tiles are there, partial or full.
#[tokio::test]
async fn older_sizes_fall_back_to_full_tiles() {
    let (reader, memory) = archive(600, &[300]);
    let leaves = leaves(600);
    let gone = memory.0.lock().unwrap().remove("log/acme/tile/0/001.p/44");
    assert!(gone.is_some());
    for size in [256, 512] {
        let proof = reader.inclusion_proof(100, size).await.unwrap();
        assert!(verify_inclusion(&leaves[100], 100, size, &proof, &mth(&leaves[..size as usize])));
    }
    // Of 300 leaves, tile 1 of level 0 was partial; the full one holds the same.
    let proof = reader.range_proof(280, 10, 300).await.unwrap();
    assert!(verify_range(280, &leaves[280..290], 300, &proof, &mth(&leaves[..300])));
    let fresh = LogReader::new(memory.clone(), tenant());
    memory.0.lock().unwrap().retain(|key, _| !key.contains("tile/0/001"));
    assert!(matches!(fresh.inclusion_proof(280, 300).await, Err(LogError::Object(_))));
    assert!(matches!(fresh.inclusion_proof(600, 600).await, Err(LogError::OutOfRange)));
    assert!(matches!(fresh.consistency_proof(2, 1).await, Err(LogError::OutOfRange)));
    assert!(matches!(fresh.range_proof(0, 0, 600).await, Err(LogError::OutOfRange)));
    assert!(matches!(fresh.range_proof(u64::MAX, 2, 600).await, Err(LogError::OutOfRange)));
    // A tile that is cut short is damage, not a smaller tile.
    let key = paths::tile(&tenant(), &Tile::parse("tile/0/000").unwrap());
    memory.0.lock().unwrap().insert(key, vec![0; 8191].into());
    assert!(matches!(fresh.inclusion_proof(1, 600).await, Err(LogError::Damaged { .. })));
}

#[tokio::test]
async fn a_log_goes_on_from_its_archive() {
    let (reader, _) = archive(70_000, &[]);
    let events = entries(70_100);
    let mut writer = TileWriter::resume(70_000, reader.right_edge(70_000).await.unwrap()).unwrap();
    assert_eq!(writer.root(), mth(&leaves(70_000)));
    events[70_000..].iter().for_each(|event| writer.push(event));
    assert_eq!(writer.root(), mth(&leaves(70_100)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_flipped_bit_proves_nothing(size in 1u64..400, at in any::<prop::sample::Index>(), bit in any::<prop::sample::Index>()) {
        let leaves = leaves(size);
        let (root, index) = (mth(&leaves), at.index(size as usize));
        let leaf = leaves[index];
        let mut proof = reference::path(index, &leaves);
        prop_assert!(verify_inclusion(&leaf, index as u64, size, &proof, &root));
        for (other, size) in [(index as u64 + 1, size), (index as u64, 0), (size, size)] {
            prop_assert!(!verify_inclusion(&leaf, other, size, &proof, &root));
        }
        let mut longer = proof.clone();
        longer.push(root);
        prop_assert!(!verify_inclusion(&leaf, index as u64, size, &longer, &root));
        let mut bad_root = root;
        bad_root[bit.index(32)] ^= 1;
        prop_assert!(!verify_inclusion(&leaf, index as u64, size, &proof, &bad_root));
        if !proof.is_empty() {
            let place = bit.index(proof.len() * 256);
            proof[place / 256][place % 256 / 8] ^= 1 << (place % 8);
            prop_assert!(!verify_inclusion(&leaf, index as u64, size, &proof, &root));
            prop_assert!(!verify_inclusion(&leaf, index as u64, size, &proof[1..], &root));
        }
        let old = index as u64 + 1;
        let (old_root, mut proof) = (mth(&leaves[..old as usize]), reference::proof(old as usize, &leaves));
        prop_assert!(verify_consistency(old, &old_root, size, &root, &proof));
        prop_assert!(!verify_consistency(old, &bad_root, size, &root, &proof));
        prop_assert!(!verify_consistency(old, &old_root, size, &bad_root, &proof));
        if !proof.is_empty() {
            let place = bit.index(proof.len() * 256);
            proof[place / 256][place % 256 / 8] ^= 1 << (place % 8);
            prop_assert!(!verify_consistency(old, &old_root, size, &root, &proof));
        }
    }

    #[test]
    fn a_flipped_bit_proves_no_range(size in 1u64..400, from in any::<prop::sample::Index>(), to in any::<prop::sample::Index>(), bit in any::<prop::sample::Index>()) {
        let leaves = leaves(size);
        let (root, first) = (mth(&leaves), from.index(size as usize));
        let count = 1 + to.index(size as usize - first);
        let mut some = leaves[first..first + count].to_vec();
        let proof = reference::range_hashes(0, size as usize, first, count, &leaves);
        prop_assert_eq!(&proof, &roots(&range_ranges(first as u64, count as u64, size), &leaves));
        prop_assert!(verify_range(first as u64, &some, size, &proof, &root));
        prop_assert!(!verify_range(first as u64 + 1, &some, size, &proof, &root));
        prop_assert!(!verify_range(first as u64, &[], size, &proof, &root));
        let mut longer = proof.clone();
        longer.push(root);
        prop_assert!(!verify_range(first as u64, &some, size, &longer, &root));
        let place = bit.index((proof.len() + count) * 256);
        let (at, byte, mask) = (place / 256, place % 256 / 8, 1 << (place % 8));
        let mut bad = proof.clone();
        if at < proof.len() {
            bad[at][byte] ^= mask;
        } else {
            some[at - proof.len()][byte] ^= mask;
        }
        prop_assert!(!verify_range(first as u64, &some, size, &bad, &root));
    }

    #[test]
    fn others_verify_ours_and_we_theirs(size in 1usize..300, at in any::<prop::sample::Index>()) {
        let (events, leaves, index) = (entries(size as u64), leaves(size as u64), at.index(size));
        let root = mth(&leaves);
        let mut tree = MemoryBackedTree::<Sha256, Vec<u8>>::new();
        events.iter().for_each(|event| tree.push(event.to_vec()));
        let theirs = tree.root();
        prop_assert_eq!(&theirs.as_bytes()[..], &root[..]);
        let hashes = |bytes: &[u8]| bytes.as_chunks::<32>().0.to_vec();
        // Inclusion.
        let proof = hashes(tree.prove_inclusion(index).as_bytes());
        prop_assert!(verify_inclusion(&leaves[index], index as u64, size as u64, &proof, &root));
        let ours = roots(&inclusion_ranges(index as u64, size as u64), &leaves);
        let ours = InclusionProof::<Sha256>::from_bytes(ours.concat());
        prop_assert!(theirs.verify_inclusion(&events[index].to_vec(), index as u64, &ours).is_ok());
        let record = tlog_tiles::Hash(leaves[index]);
        let path = reference::path(index, &leaves).into_iter().map(tlog_tiles::Hash).collect();
        prop_assert!(tlog_tiles::check_record(&path, size as u64, tlog_tiles::Hash(root), index as u64, record).is_ok());
        // Consistency.
        let old = index + 1;
        let old_root = mth(&leaves[..old]);
        let proof = hashes(tree.prove_consistency(size - old).as_bytes());
        prop_assert!(verify_consistency(old as u64, &old_root, size as u64, &root, &proof));
        let ours = roots(&consistency_ranges(old as u64, size as u64), &leaves);
        let digest = sha2::digest::Output::<Sha256>::from(old_root);
        let old_theirs = RootHash::<Sha256>::new(digest, old as u64);
        let as_theirs = ConsistencyProof::<Sha256>::try_from_bytes(ours.concat()).unwrap();
        prop_assert!(theirs.verify_consistency(&old_theirs, &as_theirs).is_ok());
        let as_theirs = ours.into_iter().map(tlog_tiles::Hash).collect();
        let (new, old_hash) = (tlog_tiles::Hash(root), tlog_tiles::Hash(old_root));
        prop_assert!(tlog_tiles::check_tree(&as_theirs, size as u64, new, old as u64, old_hash).is_ok());
    }
}

/// A proof as text, with witnesses beside the log's signature.
#[tokio::test]
async fn a_proof_as_text_is_verified_alone() {
    let (reader, _) = archive(300, &[]);
    let log = NoteSigner::from_seed(&log_key_name("d"), &[1; 32]).unwrap();
    let keys = KeyChain::of("d", log.verifier().clone()).unwrap();
    let checkpoint =
        Checkpoint { origin: origin("d", &tenant()), tree_size: 300, root: reader.root(300).await.unwrap() };
    let mut note = log.renamed(&checkpoint.origin).unwrap().sign(&checkpoint.text());
    // The cosignature of c2sp.org/tlog-cosignature: of another type, over another text.
    note.push_str(
        "— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n",
    );
    let event = EventHash(entries(300)[290]);
    let hashes = reader.inclusion_proof(290, 300).await.unwrap();
    let proof = LogProof { extra: None, index: 290, hashes, checkpoint: note };
    let text = proof.text();
    assert_eq!(LogProof::parse(&text), Ok(proof.clone()));
    assert_eq!(proof.verify(&keys, &tenant(), &event), Ok(checkpoint));
    let other = TenantId::parse("other").unwrap();
    assert!(proof.verify(&keys, &other, &event).is_err());
    assert_eq!(proof.verify(&keys, &tenant(), &EventHash([0; 32])), Err(ProofError::Wrong));
    let with_extra = LogProof { extra: Some(b"more".to_vec()), ..proof };
    assert_eq!(LogProof::parse(&with_extra.text()), Ok(with_extra));
    // Every byte up to the end of the log's own signature counts.
    let signed = text.find("— witness").unwrap();
    for at in 0..signed {
        let mut bytes = text.clone().into_bytes();
        bytes[at] ^= 1;
        let good = String::from_utf8(bytes).ok().and_then(|text| LogProof::parse(&text).ok());
        assert!(good.is_none_or(|proof| proof.verify(&keys, &tenant(), &event).is_err()), "byte {at}");
    }
}

#[test]
fn a_proof_has_one_spelling() {
    let good = format!("c2sp.org/tlog-proof@v1\nextra AQ==\nindex 7\n{}=\n\nnote\n", "A".repeat(43));
    assert_eq!(LogProof::parse(&good).unwrap().text(), good);
    for (from, to) in [
        ("c2sp.org/tlog-proof@v1", "c2sp.org/tlog-proof@v2"),
        ("extra AQ==", "extra AQ"),
        ("extra AQ==", "extra AR=="),
        ("extra AQ==\n", "extra AQ==\nextra AQ==\n"),
        ("index 7", "index 07"),
        ("index 7", "index  7"),
        ("index 7\n", ""),
        ("index 7\n", "index 7\n\n"),
        ("index 7", "index 9223372036854775808"),
        ("A=\n", "A\n"),
        ("A=\n", "B=\n"),
        ("A=\n", "A=\r\n"),
        ("\n\nnote", "\nnote"),
        ("extra AQ==\nindex 7", "index 7\nextra AQ=="),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good, "{from}");
        // An empty line early leaves a shorter proof, which verifies nothing, and a note that is none.
        let read = LogProof::parse(&bad);
        assert!(read.is_err() || bad == read.unwrap().text() && to.ends_with("\n\n"), "{to}");
    }
    let hashes = format!("{}=\n", "A".repeat(43)).repeat(63);
    let tall = format!("c2sp.org/tlog-proof@v1\nindex 0\n{hashes}\nnote\n");
    assert_eq!(LogProof::parse(&tall).unwrap().hashes.len(), 63);
    assert!(
        LogProof::parse(&tall.replacen("index 0\n", &format!("index 0\n{}=\n", "A".repeat(43)), 1)).is_err()
    );
}
