//! Tiles and entry bundles (c2sp.org/tlog-tiles): the tree as static files, 256 hashes wide.
//!
//! [`TileWriter`] grows a log from one size to another and gives the files that are new. It hashes each node once;
//! the root falls out of the right edge.

use std::fmt;

use bytes::Bytes;

use super::merkle::{self, Frontier, Hash, leaf_hash};
use crate::limits;

/// Hashes in a full tile, entries in a full bundle.
pub const WIDTH: u64 = 256;

/// Levels of tiles that a tree of [`limits::TREE_SIZE_MAX`] leaves can have: ⌈63 / 8⌉.
pub const LEVELS: u8 = 8;

/// Bytes of an entry in a bundle: its length as 16 bits, big-endian, and an event's hash.
const ENTRY_BYTES: usize = 2 + 32;

/// What is in a tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// Roots of subtrees of 256^level leaves, level from 0 to 7.
    Hashes(u8),
    /// Entries themselves: then it is an entry bundle.
    Entries,
}

/// The name of a tile or of an entry bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tile {
    /// What is in it.
    pub level: Level,
    /// Its place in its level, from 0.
    pub index: u64,
    /// How many hashes or entries: 1 to 256. Below 256 it is partial.
    pub width: u16,
}

impl Tile {
    /// The tile of that level and place in a tree of `size` leaves, full or partial; `None` if there is none.
    pub fn at(level: Level, index: u64, size: u64) -> Option<Self> {
        let start = index.checked_mul(WIDTH)?;
        let width = hashes_of(level, size).checked_sub(start).filter(|width| *width > 0)?;
        Some(Self { level, index, width: width.min(WIDTH) as u16 })
    }

    /// True if it can grow no more.
    pub fn is_full(&self) -> bool {
        u64::from(self.width) == WIDTH
    }

    /// The same place, full.
    #[must_use]
    pub fn full(self) -> Self {
        Self { width: WIDTH as u16, ..self }
    }

    /// Its length, bytes.
    pub fn bytes(&self) -> usize {
        usize::from(self.width)
            * match self.level {
                Level::Hashes(_) => 32,
                Level::Entries => ENTRY_BYTES,
            }
    }

    /// Its path, relative to the log: `tile/0/x001/234.p/5`.
    pub fn path(&self) -> String {
        self.to_string()
    }

    /// Reads a path in its one spelling, of a tile that a log can have.
    pub fn parse(path: &str) -> Option<Self> {
        // Longest: tile/entries/x036/x028/x797/x018/x963/967.p/255.
        if path.len() > 64 {
            return None;
        }
        let rest = path.strip_prefix("tile/")?;
        let (level, rest) = rest.split_once('/')?;
        let level = match (level, level.as_bytes()) {
            ("entries", _) => Level::Entries,
            (_, [digit @ b'0'..=b'7']) => Level::Hashes(digit - b'0'),
            _ => return None,
        };
        let (place, width) = match rest.split_once(".p/") {
            Some((place, width)) => (place, width.parse().ok().filter(|w| (1..WIDTH as u16).contains(w))?),
            None => (rest, WIDTH as u16),
        };
        let mut index = 0u64;
        for part in place.split('/') {
            let digits = part.strip_prefix('x').unwrap_or(part);
            if digits.len() != 3 || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            index = index.checked_mul(1000)?.checked_add(digits.parse().ok()?)?;
        }
        let tile = Self { level, index, width };
        // Whatever is not written this way (plus signs, spare zeros, misplaced x) is not a tile.
        (tile.possible() && tile.path() == path).then_some(tile)
    }

    /// True if a tree of at most [`limits::TREE_SIZE_MAX`] leaves can have it.
    fn possible(&self) -> bool {
        let end = self.index.checked_mul(WIDTH).and_then(|start| start.checked_add(u64::from(self.width)));
        end.is_some_and(|end| end <= hashes_of(self.level, limits::TREE_SIZE_MAX))
    }

    /// Reads the hashes of a tile, or the entries of a bundle; `None` if the bytes are not as many as its width says,
    /// or an entry is not 32 bytes long.
    pub fn decode(&self, bytes: &[u8]) -> Option<Vec<Hash>> {
        if bytes.len() != self.bytes() {
            return None;
        }
        match self.level {
            Level::Hashes(_) => {
                let (hashes, _) = bytes.as_chunks::<32>();
                Some(hashes.to_vec())
            }
            Level::Entries => {
                let (entries, _) = bytes.as_chunks::<ENTRY_BYTES>();
                entries.iter().map(|entry| entry.strip_prefix(&[0, 32])?.try_into().ok()).collect()
            }
        }
    }

    /// The bytes of a tile or bundle: as many hashes as its width says.
    pub fn encode(&self, hashes: &[Hash]) -> Bytes {
        assert_eq!(hashes.len(), usize::from(self.width), "a tile is as wide as it says");
        match self.level {
            Level::Hashes(_) => Bytes::copy_from_slice(hashes.as_flattened()),
            Level::Entries => {
                let mut bytes = Vec::with_capacity(self.bytes());
                for entry in hashes {
                    bytes.extend_from_slice(&[0, 32]);
                    bytes.extend_from_slice(entry);
                }
                bytes.into()
            }
        }
    }
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.level {
            Level::Hashes(level) => write!(f, "tile/{level}/")?,
            Level::Entries => f.write_str("tile/entries/")?,
        }
        let mut unit = 1;
        while self.index / unit >= 1000 {
            unit *= 1000;
        }
        while unit > 1 {
            write!(f, "x{:03}/", self.index / unit % 1000)?;
            unit /= 1000;
        }
        write!(f, "{:03}", self.index % 1000)?;
        if self.is_full() { Ok(()) } else { write!(f, ".p/{}", self.width) }
    }
}

/// How many hashes a level has in a tree of `size` leaves.
fn hashes_of(level: Level, size: u64) -> u64 {
    match level {
        Level::Entries | Level::Hashes(0) => size,
        Level::Hashes(level) if level < LEVELS => size >> (8 * u32::from(level)),
        Level::Hashes(_) => 0,
    }
}

/// The levels of a tree of `size` leaves, entries first.
fn levels(size: u64) -> impl Iterator<Item = Level> {
    let hashes = (0..LEVELS).map(Level::Hashes);
    std::iter::once(Level::Entries).chain(hashes).filter(move |level| hashes_of(*level, size) > 0)
}

/// The partial tiles of a tree of `size` leaves: the entry bundle first, then level by level.
pub fn right_edge(size: u64) -> Vec<Tile> {
    let partial = |level| Tile::at(level, hashes_of(level, size) / WIDTH, size);
    levels(size).filter_map(partial).collect()
}

/// All tiles and bundles that a tree of `size` leaves has when nothing is left out: every full one, and the partial
/// ones of that size.
pub fn all_tiles(size: u64) -> impl Iterator<Item = Tile> {
    levels(size).flat_map(move |level| {
        let count = hashes_of(level, size).div_ceil(WIDTH);
        (0..count).filter_map(move |index| Tile::at(level, index, size))
    })
}

/// The right edge of a tree, read: what [`TileWriter::resume`] goes on from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RightEdge {
    /// Entries of the partial bundle.
    pub entries: Vec<[u8; 32]>,
    /// Hashes of the partial tile of each level, from 0; empty where there is none.
    pub hashes: Vec<Vec<Hash>>,
}

/// Why a right edge is not that of its tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the right edge of a tree of {size} leaves: {why}")]
pub struct EdgeError {
    /// Size of the tree.
    pub size: u64,
    /// What does not fit.
    pub why: &'static str,
}

/// Grows a log: takes the hashes of new events and gives the tiles and bundles that are new.
#[derive(Debug, Clone)]
pub struct TileWriter {
    old_size: u64,
    size: u64,
    entries: Vec<[u8; 32]>,
    /// The partial tile of each level, never full.
    levels: Vec<Vec<Hash>>,
    done: Vec<(Tile, Bytes)>,
}

impl TileWriter {
    /// A log without entries.
    pub fn new() -> Self {
        Self { old_size: 0, size: 0, entries: Vec::new(), levels: Vec::new(), done: Vec::new() }
    }

    /// Goes on from a size. That [`TileWriter::root`] is that of the checkpoint is the caller's to check: it says that
    /// all hashes of the edge are right, and so are the entries, whose leaf hashes are compared here.
    ///
    /// # Errors
    /// If the edge has another shape, or its entries are not its leaves.
    pub fn resume(old_size: u64, edge: RightEdge) -> Result<Self, EdgeError> {
        let error = |why| EdgeError { size: old_size, why };
        if old_size > limits::TREE_SIZE_MAX {
            return Err(error("no tree is that large"));
        }
        let RightEdge { entries, hashes: mut levels } = edge;
        while levels.last().is_some_and(Vec::is_empty) {
            levels.pop();
        }
        let shape = |level: u8| (hashes_of(Level::Hashes(level), old_size) % WIDTH) as usize;
        let found = |level: u8| levels.get(usize::from(level)).map_or(0, Vec::len);
        if levels.len() > usize::from(LEVELS) || (0..LEVELS).any(|level| found(level) != shape(level)) {
            return Err(error("a tile of another width"));
        }
        let leaves = levels.first().map_or(&[][..], Vec::as_slice);
        if entries.len() != leaves.len() || entries.iter().zip(leaves).any(|(e, leaf)| leaf_hash(e) != *leaf)
        {
            return Err(error("the entries are not the leaves"));
        }
        Ok(Self { old_size, size: old_size, entries, levels, done: Vec::new() })
    }

    /// How many leaves the log has now.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends the hash of an event.
    pub fn push(&mut self, event_hash: &[u8; 32]) {
        self.push_leaf(event_hash, leaf_hash(event_hash));
    }

    /// Appends the hashes of some events: faster than one by one.
    pub fn push_all<'h>(&mut self, event_hashes: impl Iterator<Item = &'h [u8; 32]> + Clone) {
        for (event_hash, leaf) in event_hashes.clone().zip(merkle::leaf_hashes(event_hashes)) {
            self.push_leaf(event_hash, leaf);
        }
    }

    fn push_leaf(&mut self, event_hash: &[u8; 32], leaf: Hash) {
        assert!(self.size < limits::TREE_SIZE_MAX, "the log is full");
        let index = self.size / WIDTH;
        self.entries.push(*event_hash);
        if self.entries.len() as u64 == WIDTH {
            self.emit(Level::Entries, index);
            self.entries.clear();
        }
        self.size += 1;
        self.push_hash(0, leaf);
    }

    fn push_hash(&mut self, level: u8, hash: Hash) {
        let at = usize::from(level);
        if self.levels.len() == at {
            self.levels.push(Vec::with_capacity(WIDTH as usize));
        }
        self.levels[at].push(hash);
        if self.levels[at].len() as u64 == WIDTH {
            // `size` counts this one already.
            self.emit(Level::Hashes(level), hashes_of(Level::Hashes(level), self.size) / WIDTH - 1);
            let root = merkle::perfect_root(&mut self.levels[at]);
            self.levels[at].clear();
            self.push_hash(level + 1, root);
        }
    }

    fn emit(&mut self, level: Level, index: u64) {
        let hashes = match level {
            Level::Entries => &self.entries,
            Level::Hashes(level) => &self.levels[usize::from(level)],
        };
        let tile = Tile { level, index, width: hashes.len() as u16 };
        self.done.push((tile, tile.encode(hashes)));
    }

    /// The right edge of the tree as it is.
    pub fn frontier(&self) -> Frontier {
        let mut roots = Vec::new();
        for hashes in self.levels.iter().rev() {
            let mut rest = &hashes[..];
            while !rest.is_empty() {
                let (subtree, after) = rest.split_at(1 << rest.len().ilog2());
                roots.push(merkle::perfect_root(&mut subtree.to_vec()));
                rest = after;
            }
        }
        Frontier::from_parts(self.size, roots).expect("a perfect subtree for each bit of the size")
    }

    /// The root of the tree as it is.
    pub fn root(&self) -> Hash {
        self.frontier().root()
    }

    /// The tiles and bundles that are new since the old size, and the tree that they are of. The partial ones come
    /// last; one that did not grow is not among them.
    pub fn finish(mut self) -> (Vec<(Tile, Bytes)>, Frontier) {
        let frontier = self.frontier();
        for tile in right_edge(self.size) {
            if hashes_of(tile.level, self.old_size) != hashes_of(tile.level, self.size) {
                self.emit(tile.level, tile.index);
            }
        }
        (self.done, frontier)
    }
}

impl Default for TileWriter {
    fn default() -> Self {
        Self::new()
    }
}
