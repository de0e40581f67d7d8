//! Random numbers, and the ids and words that follow from them.

use super::json::put_hex;

/// SplitMix64 (Steele, Lea, Flood, 2014): small, fast, the same everywhere. Not for secrets.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// 0 to `bound` - 1, by multiplication; the bias of 2^-64 × bound does not matter here.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// `low` to `high`, both included.
    pub(crate) fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// `low` to `high`, each doubling as likely as the next: log-uniform without logarithms, whose last digit
    /// differs between machines.
    pub(crate) fn octave(&mut self, low: u64, high: u64) -> u64 {
        let octaves = u64::from((high / low).ilog2()) + 1;
        loop {
            let base = low << self.below(octaves);
            let value = base + self.below(base);
            if value <= high {
                return value;
            }
        }
    }

    pub(crate) fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    pub(crate) fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.index(from.len())]
    }

    pub(crate) fn choose<'a>(&mut self, from: &'a [String]) -> &'a str {
        &from[self.index(from.len())]
    }
}

fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Up to 26 characters of Crockford's base 32 that follow from the number.
pub(super) fn base32(value: u64, len: usize) -> String {
    const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let bits = u128::from(value) << 64 | u128::from(mix(value));
    (0..len).map(|index| char::from(DIGITS[(bits >> (index * 5) & 31) as usize])).collect()
}

/// 32 hexadecimal digits that follow from the number.
pub(super) fn hex32(value: u64) -> String {
    let mut out = String::with_capacity(32);
    put_hex(&mut out, value, 16);
    put_hex(&mut out, mix(value), 16);
    out
}

/// UUID version 4 (RFC 9562).
pub(super) fn uuid(rng: &mut Rng) -> String {
    let (high, low) = (rng.next(), rng.next());
    let (third, fourth) = (high & 0xfff, 0x8000 | (low >> 48 & 0x3fff));
    format!(
        "{:08x}-{:04x}-4{third:03x}-{fourth:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        low & 0xffff_ffff_ffff
    )
}

/// A word that looks like English and is not.
pub(super) fn invented_word(rng: &mut Rng) -> String {
    const ONSETS: &[&str] = &[
        "b", "br", "c", "ch", "cl", "cr", "d", "dr", "f", "fl", "g", "gr", "h", "j", "k", "l", "m", "n", "p",
        "pl", "pr", "qu", "r", "s", "sh", "st", "str", "t", "th", "tr", "v", "w", "",
    ];
    const VOWELS: &[&str] = &["a", "e", "i", "o", "u", "ai", "ea", "ee", "io", "ou", "oo"];
    const CODAS: &[&str] =
        &["", "", "", "b", "ck", "ct", "d", "ft", "l", "ll", "m", "n", "nd", "nt", "r", "rt", "s", "t"];
    const ENDINGS: &[&str] =
        &["", "", "", "s", "ed", "er", "ing", "ly", "tion", "ment", "able", "ness", "al", "ive"];
    let mut word = String::new();
    for _ in 0..rng.range(1, 3) {
        word.push_str(rng.pick(ONSETS));
        word.push_str(rng.pick(VOWELS));
        word.push_str(rng.pick(CODAS));
    }
    word.push_str(rng.pick(ENDINGS));
    word
}
