//! Bodies: a log of numbered parts, cut so that they fill redb's pages.
//!
//! redb keeps a value that is larger than a page in a run of 2^n pages of its own, and splits a leaf that overflows in
//! the middle. Bodies of 22 KB keyed by session waste 17 % of the disk that way, whatever the part size. At the right edge
//! of a tree, though, redb leaves a full leaf as it is and starts another. So parts are numbered in the order in which they are
//! written, and the first part of a body fills what the last leaf has left, the middle ones fill whole runs
//! exactly, and the last one opens a leaf that the next body continues: 4 % over the body bytes, indexes included,
//! and one path of the tree to rewrite in a commit instead of one for each session.
//!
//! Bodies of expired segments leave holes. Numbers are never given to two bodies that are there at once; those behind
//! the last one that is left are given again after a restart, when nothing names them any more.

use redb::{ReadableTable, Table};

use super::tables::fail;
use crate::limits;
use crate::store::StoreError;

/// redb's page, bytes (redb design document: not configurable).
const PAGE_BYTES: usize = 4096;
/// What a leaf holds besides its pairs, bytes.
const LEAF_BYTES: usize = 4;
/// What a pair takes besides its value, bytes: the number, and where the value ends.
const PAIR_BYTES: usize = 8 + 4;
/// Pages of the longest run, as a power of two. Measured: 4 saves 1 % over 1, 8 saves nothing over 4.
const RUN_PAGES_MAX: usize = 4;
/// Room in the last leaf that is not worth a part of its own, bytes.
const ROOM_BYTES_MIN: usize = 128;

const fn run_capacity(pages: usize) -> usize {
    pages * PAGE_BYTES - LEAF_BYTES - PAIR_BYTES
}

/// The end of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BodyLog {
    /// Number of the next part.
    next: u64,
    /// Bytes that are free in the last leaf, as far as is known.
    room: usize,
}

impl BodyLog {
    /// Where the log ends. What the last leaf has left is not known, so it is taken to be full.
    pub(super) fn open(table: &impl ReadableTable<u64, &'static [u8]>) -> Result<Self, StoreError> {
        let last = table.last().map_err(fail)?.map(|(number, _)| number.value());
        Ok(Self { next: last.map_or(0, |n| n.saturating_add(1)), room: 0 })
    }

    /// Appends a body: the number of its first part, and how many there are.
    pub(super) fn append(
        &mut self,
        table: &mut Table<'_, u64, &'static [u8]>,
        body: &[u8],
    ) -> Result<(u64, u64), StoreError> {
        let place = self.next;
        let mut rest = body;
        while !rest.is_empty() {
            let mut count = rest.len().min(self.room.saturating_sub(PAIR_BYTES));
            if self.room >= ROOM_BYTES_MIN {
                self.room -= count + PAIR_BYTES;
            } else {
                let mut pages = RUN_PAGES_MAX;
                while pages > 1 && rest.len() < run_capacity(pages) {
                    pages /= 2;
                }
                count = rest.len().min(run_capacity(pages));
                self.room = run_capacity(pages) - count;
            }
            let (part, after) = rest.split_at(count);
            table.insert(self.next, part).map_err(fail)?;
            self.next += 1;
            rest = after;
        }
        Ok((place, self.next - place))
    }
}

/// Reads the front of a body, at least `count` bytes if it has so many.
pub(super) fn read_front(
    table: &impl ReadableTable<u64, &'static [u8]>,
    place: u64,
    parts: u64,
    count: usize,
) -> Result<Vec<u8>, StoreError> {
    let mut front = Vec::new();
    for part in table.range(place..place.saturating_add(parts)).map_err(fail)? {
        front.extend_from_slice(part.map_err(fail)?.1.value());
        if front.len() >= count {
            break;
        }
    }
    Ok(front)
}

/// Deletes a body, if it is there and has this length, bytes. The text of the error says what is wrong; then nothing
/// was deleted. Other bodies stay where they are: the log has a hole.
pub(super) fn remove(
    table: &mut Table<'_, u64, &'static [u8]>,
    place: u64,
    parts: u64,
    body_bytes: u64,
) -> Result<Result<(), &'static str>, StoreError> {
    match read(table, place, parts)? {
        Ok(body) if body.len() as u64 != body_bytes => return Ok(Err("its body is of another length")),
        Ok(_) => {}
        Err(why) => return Ok(Err(why)),
    }
    for number in place..place + parts {
        let length = table.get(number).map_err(fail)?.map_or(0, |part| part.value().len());
        // redb takes a pair out of a page that this transaction has written already by moving the others together: what
        // stood at the end stays there. So it is written over first.
        table.insert(number, vec![0; length].as_slice()).map_err(fail)?;
        table.remove(number).map_err(fail)?;
    }
    Ok(Ok(()))
}

/// Reads a body back. The text of the error says what is missing.
pub(super) fn read(
    table: &impl ReadableTable<u64, &'static [u8]>,
    place: u64,
    parts: u64,
) -> Result<Result<Vec<u8>, &'static str>, StoreError> {
    let Some(end) = place.checked_add(parts) else {
        return Ok(Err("its body would lie past the end of the log"));
    };
    let mut body = Vec::new();
    let mut next = place;
    for part in table.range(place..end).map_err(fail)? {
        let (number, bytes) = part.map_err(fail)?;
        if number.value() != next {
            break;
        }
        next += 1;
        body.extend_from_slice(bytes.value());
        if body.len() > limits::COMMIT_BYTES_MAX {
            return Ok(Err("its body is longer than any body can be"));
        }
    }
    Ok(if next == end { Ok(body) } else { Err("a part of its body is missing") })
}

#[cfg(test)]
mod tests {
    use super::super::tables::BODIES;
    use super::*;
    use proptest::prelude::*;
    use redb::{Database, ReadableDatabase, ReadableTableMetadata, backends::InMemoryBackend};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn bodies_read_back_and_fill_their_pages(sizes in proptest::collection::vec(0usize..60_000, 1..40), reopen: bool) {
            let db = Database::builder().create_with_backend(InMemoryBackend::new()).unwrap();
            let body = |i: usize, size: usize| (0..size).map(|at| (at * 31 + i) as u8).collect::<Vec<_>>();
            let mut places = Vec::new();
            let mut log = None;
            for (i, size) in sizes.iter().enumerate() {
                let txn = db.begin_write().unwrap();
                {
                    let mut table = txn.open_table(BODIES).unwrap();
                    let mut end = match log {
                        Some(end) if !reopen => end,
                        _ => BodyLog::open(&table).unwrap(),
                    };
                    places.push(end.append(&mut table, &body(i, *size)).unwrap());
                    log = Some(end);
                }
                txn.commit().unwrap();
            }
            let table = db.begin_read().unwrap().open_table(BODIES).unwrap();
            for (i, (size, (place, parts))) in sizes.iter().zip(&places).enumerate() {
                prop_assert_eq!(read(&table, *place, *parts).unwrap(), Ok(body(i, *size)));
            }
            prop_assert!(read(&table, log.unwrap().next, 1).unwrap().is_err());
            let stats = table.stats().unwrap();
            let total: usize = sizes.iter().sum();
            if !reopen && total > 500_000 {
                // If redb laid its leaves out in another way than is reckoned here, half-empty ones would show.
                prop_assert!(stats.fragmented_bytes() < total as u64 / 50, "{stats:?} for {total}");
            }
        }
    }
}
