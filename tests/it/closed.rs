//! A ledger that is closed takes no events and archives nothing, whoever asks, until it is opened.

use std::sync::Arc;

use quipu_core::archive::RunError;
use quipu_core::clock::{Clock as _, ManualClock, SystemClock};
use quipu_core::ids::TenantId;
use quipu_core::ledger::AppendError;
use quipu_core::limits::OPEN_SEEN_MS;
use quipu_tests::archiving::{Ground, append, note};

async fn closed(mut ground: Ground) {
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    ground.clock = clock.clone();
    let tenant = TenantId::default_tenant();
    let (warm, store) = (ground.ledger(), ground.store.clone());
    warm.ensure_default_tenant().await.unwrap();
    append(&warm, &tenant, "s", "before", 2).await;
    store.set_closed(Some(clock.now())).await.unwrap();

    let refused = async |ledger: &quipu_core::ledger::Ledger| {
        let error = ledger.append(&tenant, vec![note("s", "late")], None).await.unwrap_err();
        assert!(matches!(&error, AppendError::Unavailable { why } if why.contains("closed")), "{error}");
    };
    refused(&ground.ledger()).await;
    // One that has just looked may go on for as long as whoever closes it waits.
    clock.advance_ms(OPEN_SEEN_MS - 1);
    append(&warm, &tenant, "s", "while it is believed open", 1).await;
    clock.advance_ms(1);
    refused(&warm).await;
    assert!(matches!(ground.archive(&tenant).await, Err(RunError::Closed(_))));
    assert!(ground.objects.list("", None, 10).await.unwrap().is_empty());

    store.set_closed(None).await.unwrap();
    let appended = append(&warm, &tenant, "s", "after", 1).await;
    assert_eq!(appended.standings[0].sequence.get(), 3);
    assert_eq!(ground.archive(&tenant).await.unwrap().batches[0].events, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_directory_takes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    closed(Ground::directory(dir.path())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_table_takes_nothing() {
    closed(Ground::aws().await).await;
}
