//! The bloom filters of a batch header (docs/format.md, section 8): they say of a session, an agent or a type that a
//! batch surely lacks it, so that a query leaves the batch alone.

use sha2::{Digest, Sha256};

/// Bits for each distinct value: with seven hashes, about one in a hundred answers is a false yes.
const BITS_PER_VALUE: usize = 10;

/// Bits that a value sets: the 32-bit words of SHA-256, but the last.
const HASHES: usize = 7;

/// Smallest filter, bytes.
const BYTES_MIN: usize = 8;

/// A filter, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bloom(Vec<u8>);

impl Bloom {
    /// A filter over values that are all different from each other.
    pub fn of<'v>(values: impl ExactSizeIterator<Item = &'v str>) -> Self {
        let bytes = (values.len() * BITS_PER_VALUE).div_ceil(8).max(BYTES_MIN);
        let mut filter = vec![0; bytes];
        for value in values {
            for bit in bits(value, bytes) {
                filter[bit / 8] |= 1 << (bit % 8);
            }
        }
        Self(filter)
    }

    /// From its bytes, if there are enough of them to be one.
    pub fn from_bytes(bytes: Vec<u8>) -> Option<Self> {
        (bytes.len() >= BYTES_MIN).then_some(Self(bytes))
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// False if the value is not among those it was made of; true if it may be.
    pub fn contains(&self, value: &str) -> bool {
        bits(value, self.0.len()).all(|bit| self.0[bit / 8] & 1 << (bit % 8) != 0)
    }
}

/// The bits of a value in a filter of that many bytes.
fn bits(value: &str, bytes: usize) -> impl Iterator<Item = usize> {
    let digest: [u8; 32] = Sha256::digest(value.as_bytes()).into();
    (0..HASHES).map(move |word| {
        let at = word * 4;
        let number = u32::from_be_bytes([digest[at], digest[at + 1], digest[at + 2], digest[at + 3]]);
        (u64::from(number) % (bytes as u64 * 8)) as usize
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_the_formats() {
        // Made with Python's hashlib from the format's text alone.
        let filter = Bloom::of(["a"].into_iter());
        assert_eq!(crate::ids::hex(filter.as_bytes()), "2024040000000c01");
        assert_eq!(Bloom::of([].into_iter()).as_bytes(), [0; 8]);
        for (values, bytes) in [(1, 8), (6, 8), (7, 9), (8, 10), (1000, 1250)] {
            let names: Vec<String> = (0..values).map(|n| n.to_string()).collect();
            assert_eq!(Bloom::of(names.iter().map(String::as_str)).as_bytes().len(), bytes, "{values}");
        }
    }

    #[test]
    fn what_is_in_is_found_and_little_else() {
        let names: Vec<String> = (0..1000).map(|n| format!("session {n}")).collect();
        let filter = Bloom::of(names.iter().map(String::as_str));
        assert!(names.iter().all(|name| filter.contains(name)));
        let wrong = (0..10_000).filter(|n| filter.contains(&format!("other {n}"))).count();
        assert!((20..300).contains(&wrong), "{wrong} of 10000");
        assert_eq!(Bloom::from_bytes(filter.as_bytes().to_vec()), Some(filter));
        assert_eq!(Bloom::from_bytes(vec![0xff; 7]), None);
    }
}
