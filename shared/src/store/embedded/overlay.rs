//! A redb storage that never writes: the file is opened read-only, and what redb writes (it repairs a database that
//! was not closed, and notes that it is open) stays in memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Error, ErrorKind};
use std::ops::Bound;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use redb::{BackendError, StorageBackend};

/// Bytes that are kept together when one of them is written.
const BLOCK_BYTES: u64 = 4096;

#[derive(Debug)]
struct Layer {
    /// Length that redb sees, bytes.
    len: u64,
    /// Up to here the file counts; what was cut off and grew again is zero.
    base: u64,
    /// Written blocks by number.
    blocks: BTreeMap<u64, Vec<u8>>,
}

/// The storage.
#[derive(Debug)]
pub(super) struct Overlay {
    file: File,
    layer: RwLock<Layer>,
}

impl Overlay {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        Ok(Self { file, layer: RwLock::new(Layer { len, base: len, blocks: BTreeMap::new() }) })
    }

    // A panic of redb while it held the lock leaves nothing half-done here.
    fn read_layer(&self) -> RwLockReadGuard<'_, Layer> {
        self.layer.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn write_layer(&self) -> RwLockWriteGuard<'_, Layer> {
        self.layer.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Reads the file itself; zeros behind its end.
    fn read_base(&self, base: u64, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        let there = base.saturating_sub(offset).min(out.len() as u64) as usize;
        let (from_file, rest) = out.split_at_mut(there);
        rest.fill(0);
        self.file.read_exact_at(from_file, offset)
    }
}

/// The parts of a range that lie in different blocks: block, offset within it, and range of the buffer.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0usize;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = offset + done as u64;
        let within = (at % BLOCK_BYTES) as usize;
        let count = (BLOCK_BYTES as usize - within).min(len - done);
        done += count;
        Some((at / BLOCK_BYTES, within, done - count..done))
    })
}

impl StorageBackend for Overlay {
    fn len(&self) -> Result<u64, Error> {
        Ok(self.read_layer().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        let layer = self.read_layer();
        let end = offset.checked_add(out.len() as u64);
        if end.is_none_or(|end| end > layer.len) {
            return Err(Error::new(ErrorKind::UnexpectedEof, "a read past the end"));
        }
        self.read_base(layer.base, offset, out)?;
        if !layer.blocks.is_empty() {
            for (block, within, range) in pieces(offset, out.len()) {
                if let Some(bytes) = layer.blocks.get(&block) {
                    let count = range.len();
                    out[range].copy_from_slice(&bytes[within..within + count]);
                }
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), Error> {
        let mut layer = self.write_layer();
        if len < layer.len {
            layer.base = layer.base.min(len);
            drop(layer.blocks.split_off(&len.div_ceil(BLOCK_BYTES)));
            let within = (len % BLOCK_BYTES) as usize;
            if within > 0
                && let Some(block) = layer.blocks.get_mut(&(len / BLOCK_BYTES))
            {
                block[within..].fill(0);
            }
        }
        layer.len = len;
        Ok(())
    }

    fn sync_data(&self) -> Result<(), Error> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), Error> {
        let mut layer = self.write_layer();
        for (block, within, range) in pieces(offset, data.len()) {
            let base = layer.base;
            let bytes = match layer.blocks.entry(block) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => {
                    let mut bytes = vec![0; BLOCK_BYTES as usize];
                    self.read_base(base, block * BLOCK_BYTES, &mut bytes)?;
                    entry.insert(bytes)
                }
            };
            let count = range.len();
            bytes[within..within + count].copy_from_slice(&data[range]);
        }
        layer.len = layer.len.max(offset + data.len() as u64);
        Ok(())
    }

    // Nobody else sees this storage: every lock is free.
    fn try_lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn try_lock_shared_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }

    fn lock_shared_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }

    fn unlock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }

    fn query_lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_behaves_as_a_file_and_leaves_the_file_alone(
            steps in prop::collection::vec((0u8..3, 0u64..20_000, 0usize..9_000), 1..30),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("f");
            let original: Vec<u8> = (0..10_000u32).map(|i| i as u8 | 1).collect();
            std::fs::write(&path, &original).unwrap();
            let overlay = Overlay::open(&path).unwrap();
            let mut model = original.clone();
            for (n, (step, offset, count)) in steps.into_iter().enumerate() {
                let end = offset as usize + count;
                match step {
                    0 => {
                        overlay.set_len(offset).unwrap();
                        model.resize(offset as usize, 0);
                    }
                    1 if end <= model.len() => {
                        let data = vec![n as u8; count];
                        overlay.write(offset, &data).unwrap();
                        model[offset as usize..end].copy_from_slice(&data);
                    }
                    _ => {
                        let mut out = vec![0xee; count];
                        prop_assert_eq!(overlay.read(offset, &mut out).is_ok(), end <= model.len());
                        if end <= model.len() {
                            prop_assert_eq!(&out[..], &model[offset as usize..end]);
                        }
                    }
                }
                prop_assert_eq!(overlay.len().unwrap(), model.len() as u64);
            }
            prop_assert_eq!(std::fs::read(&path).unwrap(), original);
        }
    }
}
