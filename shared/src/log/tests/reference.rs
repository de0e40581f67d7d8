//! The definitions of RFC 6962, section 2.1, as they stand there: slow, and of nobody's cleverness.

use sha2::{Digest, Sha256};

use super::super::merkle::{Hash, leaf_hash, node_hash};

/// Entries of a log that is not the same everywhere.
pub(super) fn entries(count: u64) -> Vec<[u8; 32]> {
    (0..count).map(|n| Sha256::digest(n.to_be_bytes()).into()).collect()
}

pub(super) fn leaves(count: u64) -> Vec<Hash> {
    entries(count).iter().map(leaf_hash).collect()
}

fn k(n: usize) -> usize {
    let mut k = 1;
    while k * 2 < n {
        k *= 2;
    }
    k
}

/// MTH(D\[n\])
pub(super) fn mth(d: &[Hash]) -> Hash {
    match d {
        [] => Sha256::digest([]).into(),
        [leaf] => *leaf,
        _ => {
            let (left, right) = d.split_at(k(d.len()));
            node_hash(&mth(left), &mth(right))
        }
    }
}

/// PATH(m, D\[n\])
pub(super) fn path(m: usize, d: &[Hash]) -> Vec<Hash> {
    if d.len() == 1 {
        return Vec::new();
    }
    let (left, right) = d.split_at(k(d.len()));
    let (mut proof, beside) =
        if m < left.len() { (path(m, left), right) } else { (path(m - left.len(), right), left) };
    proof.push(mth(beside));
    proof
}

/// PROOF(m, D\[n\])
pub(super) fn proof(m: usize, d: &[Hash]) -> Vec<Hash> {
    fn subproof(m: usize, d: &[Hash], whole: bool) -> Vec<Hash> {
        if m == d.len() {
            return if whole { Vec::new() } else { vec![mth(d)] };
        }
        let (left, right) = d.split_at(k(d.len()));
        let (mut proof, beside) = if m <= left.len() {
            (subproof(m, left, whole), right)
        } else {
            (subproof(m - left.len(), right, false), left)
        };
        proof.push(mth(beside));
        proof
    }
    subproof(m, d, true)
}

/// The hashes of docs/format.md, section 5, found by its own recursion.
pub(super) fn range_hashes(low: usize, high: usize, first: usize, count: usize, d: &[Hash]) -> Vec<Hash> {
    if high <= first || low >= first + count {
        return vec![mth(&d[low..high])];
    }
    if high - low == 1 {
        return Vec::new();
    }
    let middle = low + k(high - low);
    let mut hashes = range_hashes(low, middle, first, count, d);
    hashes.extend(range_hashes(middle, high, first, count, d));
    hashes
}
