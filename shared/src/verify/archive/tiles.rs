//! Tiles and entry bundles, made again from the leaves and compared with what lies in the archive.
//!
//! Kept is the right edge of the tree: at most 256 hashes a level. What a batch completes is compared after it.

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use crate::ids::TenantId;
use crate::limits;
use crate::log::merkle::{self, Hash, empty_root, node_hash};
use crate::log::paths::{self, Named};
use crate::log::tiles::{Level, Tile, WIDTH};
use crate::objects::ObjectStore;

use super::read::{self, Stop};
use crate::verify::{Bad, Code};

/// A tenant's tree as it grows.
#[derive(Debug, Default)]
pub(super) struct Tiles {
    size: u64,
    entries: Vec<Hash>,
    /// The partial tile of each level.
    levels: Vec<Vec<Hash>>,
    complete: Vec<(Tile, Bytes)>,
    /// The first that is not what the leaves give.
    bad: Option<String>,
}

impl Tiles {
    /// How many leaves there are.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Adds the next leaf: an event's hash, and the leaf's own.
    pub(super) fn push(&mut self, entry: &Hash, leaf: Hash) {
        let index = self.size / WIDTH;
        self.size += 1;
        self.entries.push(*entry);
        if self.entries.len() as u64 == WIDTH {
            let tile = Tile { level: Level::Entries, index, width: WIDTH as u16 };
            self.complete.push((tile, tile.encode(&self.entries)));
            self.entries.clear();
        }
        let mut hash = leaf;
        for level in 0u8.. {
            let at = usize::from(level);
            if self.levels.len() == at {
                self.levels.push(Vec::new());
            }
            self.levels[at].push(hash);
            if (self.levels[at].len() as u64) < WIDTH {
                break;
            }
            // As many leaves as there are, without those of this tile, in tiles of this level.
            let index = (self.size >> (8 * u32::from(level))) / WIDTH - 1;
            let tile = Tile { level: Level::Hashes(level), index, width: WIDTH as u16 };
            self.complete.push((tile, tile.encode(&self.levels[at])));
            hash = perfect_root(&self.levels[at]);
            self.levels[at].clear();
        }
    }

    /// Root of the tree, which has at least one leaf.
    pub(super) fn root(&self) -> Hash {
        // From the right: what is left over at a level stands right of everything above it.
        let mut right: Option<Hash> = None;
        for level in &self.levels {
            let mut rest = &level[..];
            // Of a partial tile, the perfect subtrees from small to large.
            while !rest.is_empty() {
                let width = 1 << rest.len().trailing_zeros();
                let (before, subtree) = rest.split_at(rest.len() - width);
                let left = perfect_root(subtree);
                right = Some(right.map_or(left, |right| node_hash(&left, &right)));
                rest = before;
            }
        }
        right.unwrap_or_else(empty_root)
    }

    /// Compares what was completed since the last call. What is wrong is told by [`Tiles::finish`].
    ///
    /// # Errors
    /// If an object cannot be read.
    pub(super) async fn compare(&mut self, objects: &dyn ObjectStore, tenant: &TenantId) -> Result<(), Stop> {
        let complete = std::mem::take(&mut self.complete);
        if self.bad.is_none() {
            self.bad = differing(objects, tenant, complete).await?;
        }
        Ok(())
    }

    /// Compares the rest: the right edge, and partial tiles of smaller trees that were left. What lies beyond the end
    /// is right only if the last batch is unfinished.
    ///
    /// # Errors
    /// The first tile that is wrong.
    pub(super) async fn finish(
        mut self,
        objects: &dyn ObjectStore,
        tenant: &TenantId,
        unfinished: bool,
    ) -> Result<(), Stop> {
        self.compare(objects, tenant).await?;
        let mut edge = Vec::new();
        let entries = (Level::Entries, &self.entries);
        let hashes = self.levels.iter().zip(0u8..).map(|(hashes, level)| (Level::Hashes(level), hashes));
        for (level, hashes) in std::iter::once(entries).chain(hashes).filter(|(_, hashes)| !hashes.is_empty())
        {
            let of_level = match level {
                Level::Entries => self.size,
                Level::Hashes(level) => self.size >> (8 * u32::from(level)),
            };
            let tile = Tile { level, index: of_level / WIDTH, width: hashes.len() as u16 };
            edge.push((tile, tile.encode(hashes)));
        }
        if self.bad.is_none() {
            self.bad = differing(objects, tenant, edge).await?;
        }
        if self.bad.is_none() {
            self.bad = self.others(objects, tenant, unfinished).await?;
        }
        match self.bad {
            None => Ok(()),
            Some(why) => Err(Stop::bad(Bad::new(Code::Tile, why))),
        }
    }

    /// Looks at everything that stands among the tiles. Those of this tree were compared already.
    async fn others(
        &self,
        objects: &dyn ObjectStore,
        tenant: &TenantId,
        unfinished: bool,
    ) -> Result<Option<String>, Stop> {
        let mut list = read::List::new(objects, format!("{}tile/", paths::log(tenant)));
        // The tile of this tree that a partial one is the beginning of; neighbours in the list share it.
        let mut whole: Option<(Tile, Bytes)> = None;
        while let Some(listed) = list.next().await? {
            let Some(Named::Tile(_, tile)) = Named::parse(&listed.key) else { continue };
            let mine = Tile::at(tile.level, tile.index, self.size).filter(|mine| mine.width >= tile.width);
            let Some(mine) = mine else {
                if unfinished {
                    continue;
                }
                return Ok(Some(format!("{} lies beyond the end of the tree", listed.key)));
            };
            if mine == tile {
                continue;
            }
            let known = match whole.take() {
                Some((known, bytes)) if known == mine => bytes,
                _ => {
                    let found = read::bounded(objects, &paths::tile(tenant, &mine), mine.bytes()).await?;
                    found.unwrap_or_default()
                }
            };
            let found = read::bounded(objects, &listed.key, tile.bytes()).await?;
            if found.as_deref() != known.get(..tile.bytes()) {
                return Ok(Some(format!("{} is not what the leaves give", listed.key)));
            }
            whole = Some((mine, known));
        }
        Ok(None)
    }
}

/// The root over a power of two of hashes.
fn perfect_root(hashes: &[Hash]) -> Hash {
    merkle::perfect_root(&mut hashes.to_vec())
}

/// Names the first of these that is not there with these bytes.
async fn differing(
    objects: &dyn ObjectStore,
    tenant: &TenantId,
    tiles: Vec<(Tile, Bytes)>,
) -> Result<Option<String>, Stop> {
    let checks = stream::iter(tiles).map(|(tile, expected)| async move {
        let key = paths::tile(tenant, &tile);
        let found = read::bounded(objects, &key, expected.len()).await?;
        Ok::<_, Stop>(match found {
            Some(found) if found == expected => None,
            Some(_) => Some(format!("{key} is not what the leaves give")),
            None => Some(format!("{key} is missing")),
        })
    });
    let mut checks = checks.buffered(limits::VERIFY_READS_AT_ONCE);
    while let Some(bad) = checks.try_next().await? {
        if bad.is_some() {
            return Ok(bad);
        }
    }
    Ok(None)
}
