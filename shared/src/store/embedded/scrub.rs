//! Leaves no old bytes in the file.
//!
//! redb writes a changed page somewhere else and frees the old one, which keeps its bytes until something is written
//! over it. So free pages are filled: values of a page each, in one transaction, until the file has to grow, which says
//! that no page was free any more when the last one was asked for. Whatever was free when that transaction began is
//! written over. Then the values are dropped again; redb gives the grown end of the file back.
//!
//! Pages that a reader still sees are not free: the caller waits for readers that began before ([`Readers`]). A file
//! with much free space is filled a piece at a time, so that batches that wait get their turn; only the transaction
//! that makes the file grow counts.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redb::{Database, Durability, TableDefinition, WriteTransaction};

use super::tables::fail;
use crate::store::StoreError;

/// What fills the free pages. There only while that is under way, or after a crash until the next time.
const FILLER: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new("filler");

/// A value that leaves no room in a page of 4,096 bytes (see [`super::bodies`] for what a leaf takes besides).
const VALUE: [u8; 4096 - 4 - 12] = [0; 4096 - 4 - 12];

/// Values in one transaction: 64 MiB.
pub(super) const PIECE: u64 = 16 * 1024;

/// Values between two looks at the file's length.
const LOOK: u64 = 16;

/// Transactions after which a page that was freed before them is free: one that notes it, one that frees it, and one
/// for the older of the two roots that redb keeps.
const SETTLE: usize = 3;

/// Who reads: whoever writes over free pages waits for those that began before.
#[derive(Debug, Default)]
pub(super) struct Readers(Mutex<Arc<()>>);

impl Readers {
    fn lock(&self) -> MutexGuard<'_, Arc<()>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A reader that begins now, until this is dropped.
    pub(super) fn begin(&self) -> Arc<()> {
        Arc::clone(&self.lock())
    }

    /// Waits until every reader is gone that began before this call.
    pub(super) async fn older_are_gone(&self) {
        let older = std::mem::take(&mut *self.lock());
        while Arc::strong_count(&older) > 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

fn begin(db: &Database) -> Result<WriteTransaction, StoreError> {
    let mut txn = db.begin_write().map_err(fail)?;
    txn.set_durability(Durability::Immediate).map_err(fail)?;
    Ok(txn)
}

/// Takes away what fills the pages, and lets redb free what was freed before.
pub(super) fn settle(db: &Database) -> Result<(), StoreError> {
    let txn = begin(db)?;
    txn.delete_table(FILLER).map_err(fail)?;
    txn.commit().map_err(fail)?;
    for _ in 1..SETTLE {
        begin(db)?.commit().map_err(fail)?;
    }
    Ok(())
}

/// Writes over free pages, at most [`PIECE`] of them. True once none is left that was free before this call.
pub(super) fn fill(db: &Database, path: &Path) -> Result<bool, StoreError> {
    let length = || {
        let metadata = std::fs::metadata(path);
        metadata
            .map(|m| m.len())
            .map_err(|e| StoreError::Unavailable { why: format!("{}: {e}", path.display()) })
    };
    let txn = begin(db)?;
    let before = length()?;
    let mut grown = false;
    {
        use redb::ReadableTable as _;
        let mut table = txn.open_table(FILLER).map_err(fail)?;
        let first = table.last().map_err(fail)?.map_or(0, |(number, _)| number.value() + 1);
        for number in first..first + PIECE {
            table.insert(number, &VALUE[..]).map_err(fail)?;
            if number % LOOK == 0 && length()? > before {
                grown = true;
                break;
            }
        }
    }
    txn.commit().map_err(fail)?;
    Ok(grown)
}
