//! Ranges of an object: few requests for many pages, several at once.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use futures_util::future::try_join_all;

use super::{ColdError, Cost, corrupt, cut_off};
use crate::limits;
use crate::objects::ObjectStore;

/// Pieces of an object, by where they begin.
#[derive(Debug, Clone, Default)]
pub(super) struct Fetched(BTreeMap<u64, Bytes>);

impl Fetched {
    /// One piece.
    pub(super) fn of(start: u64, bytes: Bytes) -> Self {
        Self(BTreeMap::from([(start, bytes)]))
    }

    /// Adds a piece. What lies inside it is let go, so that the piece before a place has all that is there of it.
    fn add(&mut self, start: u64, piece: Bytes) {
        let end = start + piece.len() as u64;
        let inside = |(at, old): (&u64, &Bytes)| (at + old.len() as u64 <= end).then_some(*at);
        let inside: Vec<u64> = self.0.range(start..end).filter_map(inside).collect();
        for at in inside {
            self.0.remove(&at);
        }
        self.0.insert(start, piece);
    }

    /// How many bytes.
    pub(super) fn bytes(&self) -> usize {
        self.0.values().map(Bytes::len).sum()
    }

    /// The bytes of a range, if one piece has them.
    pub(super) fn get(&self, range: &Range<u64>) -> Option<Bytes> {
        let (start, bytes) = self.0.range(..=range.start).next_back()?;
        let (from, to) = (range.start - start, range.end - start);
        (to <= bytes.len() as u64).then(|| bytes.slice(from as usize..to as usize))
    }

    /// The bytes of a range that pieces without a gap have.
    pub(super) fn join(&self, range: &Range<u64>) -> Option<Bytes> {
        if let Some(bytes) = self.get(range) {
            return Some(bytes);
        }
        let mut out = BytesMut::new();
        let mut at = range.start;
        while at < range.end {
            let (start, bytes) = self.0.range(..=at).next_back()?;
            let end = (start + bytes.len() as u64).min(range.end);
            if end <= at {
                return None;
            }
            out.extend_from_slice(&self.get(&(at..end))?);
            at = end;
        }
        Some(out.freeze())
    }
}

/// Adds the bytes of the ranges to what is there. What is there already is not asked for again.
pub(super) async fn fetch(
    objects: &dyn ObjectStore,
    key: &str,
    mut ranges: Vec<Range<u64>>,
    fetched: &mut Fetched,
    cost: &mut Cost<'_>,
) -> Result<(), ColdError> {
    ranges.retain(|range| range.start < range.end && fetched.get(range).is_none());
    let ranges = coalesce(ranges);
    let bytes = ranges.iter().map(|range| range.end - range.start).sum();
    if bytes == 0 {
        return Ok(());
    }
    if !cost.budget.allows(bytes) {
        return Err(ColdError::Budget);
    }
    cost.budget.spend(bytes);
    cost.stats.requests += ranges.len() as u64;
    cost.stats.bytes_read += bytes;
    for some in ranges.chunks(limits::OBJECT_REQUESTS_MAX) {
        let pieces = try_join_all(some.iter().map(|range| objects.get_range(key, range.clone()))).await?;
        for (range, piece) in some.iter().zip(pieces) {
            if piece.len() as u64 != range.end - range.start {
                return Err(corrupt(key, cut_off()));
            }
            fetched.add(range.start, piece);
        }
    }
    Ok(())
}

/// Joins ranges that overlap or are close.
fn coalesce(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut out: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match out.last_mut() {
            Some(last) if range.start <= last.end.saturating_add(limits::COLD_GAP_BYTES) => {
                last.end = last.end.max(range.end);
            }
            _ => out.push(range),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_close_is_one_request() {
        const GAP: u64 = limits::COLD_GAP_BYTES;
        let joined = coalesce(vec![GAP + 12..GAP + 20, 0..10, 5..12, 2 * GAP + 21..2 * GAP + 22]);
        assert_eq!(joined, [0..GAP + 20, 2 * GAP + 21..2 * GAP + 22]);
    }

    #[test]
    fn pieces_are_found_and_joined() {
        let mut fetched = Fetched::of(10, Bytes::from_static(b"0123456789"));
        fetched.add(20, Bytes::from_static(b"abc"));
        assert_eq!(fetched.get(&(12..14)).as_deref(), Some(&b"23"[..]));
        assert_eq!(fetched.get(&(18..21)), None);
        assert_eq!(fetched.get(&(9..11)), None);
        assert_eq!(fetched.join(&(18..22)).as_deref(), Some(&b"89ab"[..]));
        assert_eq!(fetched.join(&(18..24)), None);
        assert_eq!(fetched.join(&(30..31)), None);
    }

    #[test]
    fn a_piece_inside_another_hides_nothing_of_it() {
        let mut fetched = Fetched::of(12, Bytes::from_static(b"cd"));
        fetched.add(18, Bytes::from_static(b"ijkl"));
        fetched.add(10, Bytes::from_static(b"abcdefghij"));
        assert_eq!(fetched.get(&(11..19)).as_deref(), Some(&b"bcdefghi"[..]));
        assert_eq!(fetched.get(&(19..22)).as_deref(), Some(&b"jkl"[..]));
        assert_eq!(fetched.bytes(), 14);
    }
}
