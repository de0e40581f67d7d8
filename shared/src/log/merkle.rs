//! The Merkle tree of RFC 6962, section 2.1: hashes, roots, and proofs checked.
//!
//! The tree itself is nowhere in memory: [`Frontier`] keeps the roots of its perfect subtrees, at most 64. Which
//! hashes make up a proof is said as ranges of leaves ([`inclusion_ranges`] and its kin); [`super::reader`] reads
//! them from tiles. No hash allocates. Sizes are at most [`limits::TREE_SIZE_MAX`].

use std::ops::Range;

use sha2::{Digest, Sha256};

use crate::limits;
use crate::sha256::{self, Message};

/// A hash of the tree.
pub type Hash = [u8; 32];

/// The hash of a leaf: SHA-256(0x00 || entry), where the entry is the hash of an event.
pub fn leaf_hash(entry: &[u8; 32]) -> Hash {
    let mut bytes = [0; 33];
    bytes[1..].copy_from_slice(entry);
    Sha256::digest(bytes).into()
}

/// [`leaf_hash`] of many entries, in their order.
pub(crate) fn leaf_hashes<'e>(entries: impl Iterator<Item = &'e [u8; 32]>) -> Vec<Hash> {
    let messages = entries.map(|entry| Message::prefixed(&[0], entry));
    sha256::each(&messages.collect::<Vec<_>>())
}

/// The hash of a node: SHA-256(0x01 || left || right).
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut bytes = [1; 65];
    bytes[1..33].copy_from_slice(left);
    bytes[33..].copy_from_slice(right);
    Sha256::digest(bytes).into()
}

/// The root of the tree without leaves: SHA-256 of nothing.
pub fn empty_root() -> Hash {
    Sha256::digest([]).into()
}

/// Where a tree of so many leaves splits: the largest power of two below `size`, which is at least 2.
fn split(size: u64) -> u64 {
    debug_assert!(size > 1, "a tree of one leaf has no parts");
    1 << (u64::BITS - 1 - (size - 1).leading_zeros())
}

/// The right edge of a growing tree: what is needed to grow it and to know its root.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    /// Roots of its perfect subtrees, largest first: one for each bit that is set in `size`.
    roots: Vec<Hash>,
}

impl Frontier {
    /// The tree without leaves.
    pub fn new() -> Self {
        Self::default()
    }

    /// From a size and the roots of the perfect subtrees, largest first; `None` if their number cannot be right.
    pub fn from_parts(size: u64, roots: Vec<Hash>) -> Option<Self> {
        let fits = size <= limits::TREE_SIZE_MAX && size.count_ones() as usize == roots.len();
        fits.then_some(Self { size, roots })
    }

    /// Roots of the perfect subtrees, largest first.
    pub fn parts(&self) -> Vec<Hash> {
        self.roots.clone()
    }

    /// How many leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends a leaf, by its hash ([`leaf_hash`]).
    pub fn push(&mut self, leaf: Hash) {
        assert!(self.size < limits::TREE_SIZE_MAX, "the tree is full");
        let mut hash = leaf;
        // Each bit that carries joins two subtrees of one size.
        for _ in 0..self.size.trailing_ones() {
            let left = self.roots.pop().expect("a root for each bit that is set");
            hash = node_hash(&left, &hash);
        }
        self.roots.push(hash);
        self.size += 1;
    }

    /// The root of the tree as it is.
    pub fn root(&self) -> Hash {
        join(&self.roots).unwrap_or_else(empty_root)
    }
}

/// The root over subtrees that stand side by side, each larger than all after it together.
pub(super) fn join(roots: &[Hash]) -> Option<Hash> {
    let (last, before) = roots.split_last()?;
    Some(before.iter().rfold(*last, |right, left| node_hash(left, &right)))
}

/// The root of a perfect tree over 1, 2, 4, … hashes. Uses `level` as its scratch.
pub(crate) fn perfect_root(level: &mut [Hash]) -> Hash {
    assert!(level.len().is_power_of_two(), "a perfect tree");
    let mut width = level.len();
    while width > 1 {
        width /= 2;
        if width < sha256::FEW {
            for at in 0..width {
                level[at] = node_hash(&level[2 * at], &level[2 * at + 1]);
            }
        } else {
            let pairs = level[..2 * width].as_chunks::<2>().0.iter();
            let nodes = pairs.map(|[left, right]| Message::pair(&[1], left, right));
            let nodes = sha256::each(&nodes.collect::<Vec<_>>());
            level[..width].copy_from_slice(&nodes);
        }
    }
    level[0]
}

/// True if `leaf` (its hash) is the leaf of that index in the tree of that size and root (RFC 9162, section 2.1.3.2).
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, proof: &[Hash], root: &Hash) -> bool {
    if index >= size || size > limits::TREE_SIZE_MAX {
        return false;
    }
    let (mut place, mut last, mut hash) = (index, size - 1, *leaf);
    for beside in proof {
        if last == 0 {
            return false;
        }
        if place & 1 == 1 || place == last {
            hash = node_hash(beside, &hash);
            // A lone right edge moves up without a sibling.
            while place & 1 == 0 && place != 0 {
                (place, last) = (place >> 1, last >> 1);
            }
        } else {
            hash = node_hash(&hash, beside);
        }
        (place, last) = (place >> 1, last >> 1);
    }
    last == 0 && hash == *root
}

/// True if the tree of the new size and root begins with that of the old (RFC 9162, section 2.1.4.2). Any tree begins
/// with the empty one and with itself; for both the proof is empty.
pub fn verify_consistency(
    old_size: u64,
    old_root: &Hash,
    new_size: u64,
    new_root: &Hash,
    proof: &[Hash],
) -> bool {
    if old_size > new_size || new_size > limits::TREE_SIZE_MAX {
        return false;
    }
    if old_size == new_size {
        let possible = new_size > 0 || *new_root == empty_root();
        return proof.is_empty() && old_root == new_root && possible;
    }
    if old_size == 0 {
        return proof.is_empty() && *old_root == empty_root();
    }
    let (mut place, mut last) = (old_size - 1, new_size - 1);
    while place & 1 == 1 {
        (place, last) = (place >> 1, last >> 1);
    }
    // An old tree that is perfect is a node of the new one: its root is where the proof begins, and goes unsaid.
    let mut hashes = proof.iter();
    let first = if old_size.is_power_of_two() { Some(old_root) } else { hashes.next() };
    let Some(first) = first else { return false };
    let (mut old, mut new) = (*first, *first);
    for beside in hashes {
        if last == 0 {
            return false;
        }
        if place & 1 == 1 || place == last {
            old = node_hash(beside, &old);
            new = node_hash(beside, &new);
            while place & 1 == 0 && place != 0 {
                (place, last) = (place >> 1, last >> 1);
            }
        } else {
            new = node_hash(&new, beside);
        }
        (place, last) = (place >> 1, last >> 1);
    }
    last == 0 && old == *old_root && new == *new_root
}

/// True if `leaves` (their hashes; at least one) are the leaves from index `first_leaf` on in the tree of that size
/// and root (docs/format.md, section 5). All of `hashes` must be needed.
pub fn verify_range(first_leaf: u64, leaves: &[Hash], size: u64, hashes: &[Hash], root: &Hash) -> bool {
    let end = first_leaf.checked_add(leaves.len() as u64);
    if leaves.is_empty() || size > limits::TREE_SIZE_MAX || end.is_none_or(|end| end > size) {
        return false;
    }
    let mut proof = RangeProof { first_leaf, leaves, hashes: hashes.iter() };
    let found = proof.root(0, size);
    found.as_ref() == Some(root) && proof.hashes.as_slice().is_empty()
}

struct RangeProof<'a> {
    first_leaf: u64,
    leaves: &'a [Hash],
    hashes: std::slice::Iter<'a, Hash>,
}

impl RangeProof<'_> {
    fn root(&mut self, low: u64, high: u64) -> Option<Hash> {
        if high <= self.first_leaf || low >= self.first_leaf + self.leaves.len() as u64 {
            return self.hashes.next().copied();
        }
        if high - low == 1 {
            return self.leaves.get((low - self.first_leaf) as usize).copied();
        }
        let middle = low + split(high - low);
        let left = self.root(low, middle)?;
        let right = self.root(middle, high)?;
        Some(node_hash(&left, &right))
    }
}

/// The subtrees whose roots prove that a leaf is in a tree, in the order of the proof: the leaf's sibling first
/// (RFC 6962, section 2.1.1). `index` is below `size`.
pub fn inclusion_ranges(index: u64, size: u64) -> Vec<Range<u64>> {
    assert!(index < size && size <= limits::TREE_SIZE_MAX, "the leaf is in the tree");
    let (mut low, mut high) = (0, size);
    let mut ranges = Vec::new();
    while high - low > 1 {
        let middle = low + split(high - low);
        if index < middle {
            ranges.push(middle..high);
            high = middle;
        } else {
            ranges.push(low..middle);
            low = middle;
        }
    }
    ranges.reverse();
    ranges
}

/// The subtrees whose roots prove that a tree begins with a smaller one, in the order of the proof (RFC 6962, section
/// 2.1.2). `old` is at most `new`; there are none if they are equal or `old` is 0.
pub fn consistency_ranges(old: u64, new: u64) -> Vec<Range<u64>> {
    assert!(old <= new && new <= limits::TREE_SIZE_MAX, "the tree has grown");
    let mut ranges = Vec::new();
    if old == 0 || old == new {
        return ranges;
    }
    let (mut low, mut high) = (0, new);
    while old != high {
        let middle = low + split(high - low);
        if old <= middle {
            ranges.push(middle..high);
            high = middle;
        } else {
            ranges.push(low..middle);
            low = middle;
        }
    }
    // What is left is a subtree of both; only the whole old tree goes unsaid.
    if low != 0 {
        ranges.push(low..high);
    }
    ranges.reverse();
    ranges
}

/// The subtrees whose roots prove that `count` leaves from `first` on are in a tree of `size`, in the order of the
/// proof: left to right (docs/format.md, section 5).
pub fn range_ranges(first: u64, count: u64, size: u64) -> Vec<Range<u64>> {
    let end = first.checked_add(count).filter(|end| count > 0 && *end <= size);
    let end = end.expect("the leaves are in the tree, and at least one");
    assert!(size <= limits::TREE_SIZE_MAX, "no such tree");
    fn walk(low: u64, high: u64, wanted: &Range<u64>, ranges: &mut Vec<Range<u64>>) {
        if high <= wanted.start || low >= wanted.end {
            ranges.push(low..high);
        } else if high - low > 1 && !(wanted.start <= low && high <= wanted.end) {
            let middle = low + split(high - low);
            walk(low, middle, wanted, ranges);
            walk(middle, high, wanted, ranges);
        }
    }
    let mut ranges = Vec::new();
    walk(0, size, &(first..end), &mut ranges);
    ranges
}
