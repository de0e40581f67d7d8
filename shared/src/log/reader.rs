//! A tenant's log, read from its archive: checkpoints, headers, and any proof, from tiles.
//!
//! What is read is not believed: a proof that is made here holds only if it verifies against a checkpoint that a log key
//! signed, and whoever hands one out checks that first. Tiles never change, so those read are kept, up to
//! [`limits::LOG_TILES_KEPT`].

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use super::merkle::{self, Hash, consistency_ranges, inclusion_ranges, range_ranges};
use super::paths;
use super::tiles::{Level, RightEdge, Tile, WIDTH, right_edge};
use crate::ids::TenantId;
use crate::limits;
use crate::objects::{Object, ObjectError, ObjectStore};

/// Why something of a log cannot be had.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LogError {
    /// The archive cannot be reached, or lacks an object that its log needs.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// An object that is not what it must be.
    #[error("{key} is damaged: {why}")]
    Damaged {
        /// Its key.
        key: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A leaf or a size that the tree does not have.
    #[error("the log has no such leaf or size")]
    OutOfRange,
}

/// Reads one tenant's log.
pub struct LogReader {
    objects: Arc<dyn ObjectStore>,
    tenant: TenantId,
    kept: Mutex<Kept>,
}

/// The tiles read last, and the order in which they came.
#[derive(Default)]
struct Kept {
    tiles: HashMap<Tile, Arc<[Hash]>>,
    order: VecDeque<Tile>,
}

/// Hashes at one level of tiles: the root of the perfect subtree over 2^(8 level + height) leaves is that over 2^height
/// hashes of one tile.
#[derive(Debug, Clone, Copy)]
struct Subtree {
    tile: Tile,
    from: usize,
    width: usize,
}

impl LogReader {
    /// Of a tenant whose log may not exist yet.
    pub fn new(objects: Arc<dyn ObjectStore>, tenant: TenantId) -> Self {
        Self { objects, tenant, kept: Mutex::default() }
    }

    /// Whose log.
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// The newest checkpoint, with its tag: a note; `None` if there is no log yet.
    ///
    /// # Errors
    /// If the archive cannot be reached, or it is not text.
    pub async fn checkpoint(&self) -> Result<Option<(String, crate::objects::Tag)>, LogError> {
        self.note(paths::checkpoint(&self.tenant)).await
    }

    /// The checkpoint after a batch: a note; `None` if there is none.
    ///
    /// # Errors
    /// If the archive cannot be reached, or it is not text.
    pub async fn checkpoint_at(&self, batch: u64) -> Result<Option<String>, LogError> {
        Ok(self.note(paths::checkpoint_at(&self.tenant, batch)).await?.map(|(note, _)| note))
    }

    /// The log key's word for a header: a note; `None` if there is none.
    ///
    /// # Errors
    /// If the archive cannot be reached, or it is not text.
    pub async fn header_signature(&self, batch: u64) -> Result<Option<String>, LogError> {
        Ok(self.note(paths::header_signature(&self.tenant, batch)).await?.map(|(note, _)| note))
    }

    async fn note(&self, key: String) -> Result<Option<(String, crate::objects::Tag)>, LogError> {
        let Some(Object { bytes, tag }) = self.find(&key).await? else { return Ok(None) };
        if bytes.len() > limits::NOTE_BYTES_MAX {
            return Err(LogError::Damaged { key, why: "longer than a note" });
        }
        match String::from_utf8(bytes.into()) {
            Ok(note) => Ok(Some((note, tag))),
            Err(_) => Err(LogError::Damaged { key, why: "not UTF-8" }),
        }
    }

    /// The bytes of a batch's header; `None` if there is none.
    ///
    /// # Errors
    /// If the archive cannot be reached.
    pub async fn header(&self, batch: u64) -> Result<Option<Bytes>, LogError> {
        Ok(self.find(&paths::header(&self.tenant, batch)).await?.map(|object| object.bytes))
    }

    async fn find(&self, key: &str) -> Result<Option<Object>, LogError> {
        match self.objects.get(key).await {
            Ok(object) => Ok(Some(object)),
            Err(ObjectError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The hashes of a tile, or the entries of a bundle, as many as its width says. Where a partial one is gone, the
    /// full one that took its place serves as well (c2sp.org/tlog-tiles).
    ///
    /// # Errors
    /// If the archive cannot be reached or lacks it, or it is damaged.
    pub async fn tile(&self, tile: Tile) -> Result<Arc<[Hash]>, LogError> {
        if let Some(hashes) = self.kept(tile) {
            return Ok(hashes);
        }
        match self.fetch(tile).await {
            Err(error @ LogError::Object(ObjectError::NotFound { .. })) if !tile.is_full() => {
                match self.fetch(tile.full()).await {
                    Ok(hashes) => Ok(hashes[..usize::from(tile.width)].into()),
                    // The partial one is what was asked for.
                    Err(LogError::Object(ObjectError::NotFound { .. })) => Err(error),
                    Err(other) => Err(other),
                }
            }
            fetched => fetched,
        }
    }

    /// The bytes of a tile or bundle, as they are stored: no fall back to a full one.
    ///
    /// # Errors
    /// If the archive cannot be reached; `None` if it lacks it.
    pub async fn tile_bytes(&self, tile: Tile) -> Result<Option<Bytes>, LogError> {
        Ok(self.find(&paths::tile(&self.tenant, &tile)).await?.map(|object| object.bytes))
    }

    fn kept(&self, tile: Tile) -> Option<Arc<[Hash]>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(hashes) = kept.tiles.get(&tile) {
            return Some(hashes.clone());
        }
        let full = kept.tiles.get(&tile.full())?;
        Some(full[..usize::from(tile.width)].into())
    }

    async fn fetch(&self, tile: Tile) -> Result<Arc<[Hash]>, LogError> {
        let key = paths::tile(&self.tenant, &tile);
        let object = self.objects.get(&key).await?;
        let hashes =
            tile.decode(&object.bytes).ok_or(LogError::Damaged { key, why: "not that many hashes" })?;
        let hashes: Arc<[Hash]> = hashes.into();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.tiles.insert(tile, hashes.clone()).is_none() {
            kept.order.push_back(tile);
            if kept.order.len() > limits::LOG_TILES_KEPT
                && let Some(oldest) = kept.order.pop_front()
            {
                kept.tiles.remove(&oldest);
            }
        }
        Ok(hashes)
    }

    /// The right edge of the tree of `size` leaves, for [`super::tiles::TileWriter::resume`].
    ///
    /// # Errors
    /// If the archive cannot be reached or lacks a part of it, or a part is damaged.
    pub async fn right_edge(&self, size: u64) -> Result<RightEdge, LogError> {
        let tiles = right_edge(size);
        let mut edge = RightEdge::default();
        for (tile, hashes) in tiles.iter().zip(self.tiles(&tiles).await?) {
            match tile.level {
                Level::Entries => edge.entries = hashes.to_vec(),
                Level::Hashes(level) => {
                    edge.hashes.resize_with(usize::from(level) + 1, Vec::new);
                    edge.hashes[usize::from(level)] = hashes.to_vec();
                }
            }
        }
        Ok(edge)
    }

    /// Several tiles, in their order, fetched side by side.
    async fn tiles(&self, tiles: &[Tile]) -> Result<Vec<Arc<[Hash]>>, LogError> {
        let fetches: Vec<_> = tiles.iter().map(|tile| self.tile(*tile)).collect();
        stream::iter(fetches).buffered(limits::LOG_READS_AT_ONCE).try_collect().await
    }

    /// The roots of subtrees of the tree of `size` leaves. Each range begins at a multiple of the smallest power of two
    /// that is not below its length, as those of a proof do; a whole tree does too.
    ///
    /// # Errors
    /// As [`LogReader::tile`]; `OutOfRange` for a range that is no subtree.
    pub async fn roots(&self, ranges: &[Range<u64>], size: u64) -> Result<Vec<Hash>, LogError> {
        let mut parts = Vec::with_capacity(ranges.len());
        for range in ranges {
            parts.push(subtrees(range, size).ok_or(LogError::OutOfRange)?);
        }
        let mut tiles: Vec<Tile> = parts.iter().flatten().map(|subtree| subtree.tile).collect();
        tiles.sort_unstable();
        tiles.dedup();
        let found: HashMap<Tile, Arc<[Hash]>> =
            tiles.iter().copied().zip(self.tiles(&tiles).await?).collect();
        let root = |subtrees: &Vec<Subtree>| {
            let roots: Vec<Hash> = subtrees
                .iter()
                .map(|Subtree { tile, from, width }| {
                    let mut hashes = found[tile][*from..from + width].to_vec();
                    merkle::perfect_root(&mut hashes)
                })
                .collect();
            merkle::join(&roots).unwrap_or_else(merkle::empty_root)
        };
        Ok(parts.iter().map(root).collect())
    }

    /// The root of the tree of `size` leaves.
    ///
    /// # Errors
    /// As [`LogReader::tile`].
    pub async fn root(&self, size: u64) -> Result<Hash, LogError> {
        if size == 0 {
            return Ok(merkle::empty_root());
        }
        let whole = 0..size;
        let roots = self.roots(std::slice::from_ref(&whole), size).await?;
        roots.first().copied().ok_or(LogError::OutOfRange)
    }

    /// The proof that a leaf is in the tree of `size` leaves ([`merkle::verify_inclusion`]).
    ///
    /// # Errors
    /// As [`LogReader::tile`]; `OutOfRange`.
    pub async fn inclusion_proof(&self, index: u64, size: u64) -> Result<Vec<Hash>, LogError> {
        if index >= size || size > limits::TREE_SIZE_MAX {
            return Err(LogError::OutOfRange);
        }
        self.roots(&inclusion_ranges(index, size), size).await
    }

    /// The proof that the tree of `new` leaves begins with that of `old` ([`merkle::verify_consistency`]).
    ///
    /// # Errors
    /// As [`LogReader::tile`]; `OutOfRange`.
    pub async fn consistency_proof(&self, old: u64, new: u64) -> Result<Vec<Hash>, LogError> {
        if old > new || new > limits::TREE_SIZE_MAX {
            return Err(LogError::OutOfRange);
        }
        self.roots(&consistency_ranges(old, new), new).await
    }

    /// The proof that `count` leaves from `first` on are in the tree of `size` leaves ([`merkle::verify_range`]).
    ///
    /// # Errors
    /// As [`LogReader::tile`]; `OutOfRange`, also for no leaves.
    pub async fn range_proof(&self, first: u64, count: u64, size: u64) -> Result<Vec<Hash>, LogError> {
        let end = first.checked_add(count);
        if count == 0 || size > limits::TREE_SIZE_MAX || end.is_none_or(|end| end > size) {
            return Err(LogError::OutOfRange);
        }
        self.roots(&range_ranges(first, count, size), size).await
    }
}

/// Where the perfect subtrees are that make up the leaves of a range in the tree of `size` leaves, largest first.
fn subtrees(range: &Range<u64>, size: u64) -> Option<Vec<Subtree>> {
    let length = range.end.checked_sub(range.start).filter(|length| *length > 0)?;
    let aligned = length.checked_next_power_of_two().is_some_and(|unit| range.start.is_multiple_of(unit));
    if !aligned || range.end > size || size > limits::TREE_SIZE_MAX {
        return None;
    }
    let mut parts = Vec::new();
    let mut start = range.start;
    while start < range.end {
        let height = (range.end - start).ilog2();
        // The tile whose hashes are the nearest below.
        let (level, width) = ((height / 8) as u8, 1u64 << (height % 8));
        let first = start >> (8 * u32::from(level));
        let tile = Tile::at(Level::Hashes(level), first / WIDTH, size)?;
        parts.push(Subtree { tile, from: (first % WIDTH) as usize, width: width as usize });
        start += 1 << height;
    }
    Some(parts)
}
