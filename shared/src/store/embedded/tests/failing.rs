//! A disk that fails: what was not made durable is never acknowledged, and the store does not go on.

use std::sync::atomic::{AtomicBool, Ordering};

use redb::backends::InMemoryBackend;
use redb::{Database, StorageBackend};

use super::super::bodies::BodyLog;
use super::super::tables::{self, Snapshot};
use super::super::writer::Writer;
use super::*;
use crate::store::{Store, StoreError};

/// Memory whose syncs fail on demand.
#[derive(Debug)]
struct Failing(InMemoryBackend, Arc<AtomicBool>);

impl StorageBackend for Failing {
    fn len(&self) -> std::io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> std::io::Result<()> {
        if self.1.load(Ordering::SeqCst) { Err(std::io::Error::other("a bad disk")) } else { Ok(()) }
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.0.write(offset, data)
    }
}

#[tokio::test]
async fn after_a_failed_sync_the_outcome_is_unknown_and_nothing_more_is_written() {
    let fail = Arc::new(AtomicBool::new(false));
    let backend = Failing(InMemoryBackend::new(), Arc::clone(&fail));
    let db = Arc::new(Database::builder().create_with_backend(backend).unwrap());
    tables::prepare(&db).unwrap();
    let log = BodyLog::open(&Snapshot::new(&db).unwrap().bodies().unwrap()).unwrap();
    let writer = Writer::start(Arc::clone(&db), log, false).unwrap();
    let store = EmbeddedStore {
        writer,
        db,
        clock: Arc::new(crate::clock::SystemClock),
        path: std::path::PathBuf::new(),
        readers: Default::default(),
        scrubbed_at: tokio::sync::Mutex::new(0),
    };
    let (a, b) = (session("a"), session("b"));
    let first = batch(1, &[(&a, None)], 500);
    let head = Some(first.segments[0].meta.head());
    store.commit(first).await.unwrap();

    fail.store(true, Ordering::SeqCst);
    let pending = [store.commit(batch(2, &[(&a, head)], 500)), store.commit(batch(3, &[(&b, None)], 500))];
    let outcomes = futures_util::future::join_all(pending).await;
    assert!(matches!(outcomes[0], Err(StoreError::Unknown { .. })), "{outcomes:?}");
    // In the same group, or after it.
    assert!(
        matches!(outcomes[1], Err(StoreError::Unknown { .. } | StoreError::Unavailable { .. })),
        "{outcomes:?}"
    );

    // A later sync that succeeds proves nothing about the one that failed.
    fail.store(false, Ordering::SeqCst);
    for ms in [4, 5] {
        let outcome = store.commit(batch(ms, &[(&b, None)], 500)).await;
        assert!(matches!(outcome, Err(StoreError::Unavailable { .. })), "{outcome:?}");
    }
}
