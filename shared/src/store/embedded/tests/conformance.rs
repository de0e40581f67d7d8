//! The suite over this backend: nothing lags, calls are ordered, the whole head is checked.
#![cfg(feature = "testing")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{EmbeddedOptions, EmbeddedStore, open, store};
use crate::clock::{Clock as _, ManualClock};
use crate::ids::{SessionId, TenantId};
use crate::limits;
use crate::segment::SegmentMeta;
use crate::store::Store;
use crate::store::conformance::{self as suite, Passage, Swept};
use crate::time::Micros;

const NO_LAG: Duration = Duration::ZERO;

#[tokio::test]
async fn appends() {
    let (_dir, store) = store();
    let store = &*store;
    suite::empty_session_is_empty(store).await;
    suite::commits_are_read_back_at_once(store).await;
    suite::segments_from_anywhere(store).await;
    suite::commit_must_follow_the_head(store, suite::HeadCheck::Hash).await;
    suite::batch_is_all_or_nothing(store, NO_LAG).await;
    suite::batch_over_many_sessions(store).await;
    suite::large_bodies(store).await;
    suite::commits_take_effect_in_call_order(store, true).await;
    suite::commit_ids_need_not_rise(store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_at_once() {
    let (_dir, store) = store();
    suite::many_writers_one_session(store.clone(), 16, 10).await;
    suite::many_writers_many_sessions(store.clone(), 16, 10).await;
    suite::crossed_batches_do_not_split(store).await;
}

#[tokio::test]
async fn feed() {
    let (_dir, store) = store();
    suite::feed_holds_every_segment_in_order(&*store, NO_LAG).await;
    suite::feed_followed_while_it_grows(&*store, NO_LAG).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idempotency() {
    let (_dir, store) = store();
    suite::idempotency_key_is_taken_until_it_expires(&*store).await;
    suite::idempotency_key_falls_with_its_batch(&*store).await;
    suite::idempotency_key_is_won_once(store).await;
}

#[tokio::test]
async fn isolation() {
    let (_dir, store) = store();
    suite::tenants_and_sessions_are_apart(&*store, NO_LAG).await;
}

#[tokio::test]
async fn sessions_and_agents() {
    let (_dir, store) = store();
    suite::session_is_its_segments_merged(&*store, NO_LAG).await;
    suite::sessions_are_listed_newest_first(&*store, NO_LAG).await;
    suite::sessions_of_one_commit_are_listed(&*store, NO_LAG).await;
    suite::agents_are_counted(&*store, NO_LAG).await;
    suite::agents_that_share_segments(&*store, NO_LAG).await;
}

#[tokio::test]
async fn by_time() {
    let (_dir, store) = store();
    suite::segments_by_time(&*store, NO_LAG, 1).await;
    suite::no_segments_by_time(&*store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_and_tenants() {
    let (_dir, store) = store();
    suite::first_token_only_once(store.clone()).await;
    suite::tokens_are_found(&*store).await;
    suite::token_revocation(&*store).await;
    suite::token_use(&*store).await;
    suite::token_use_does_not_undo_revocation(store.clone()).await;
    suite::tenants_are_made_once(store).await;
}

/// A store whose clock is moved: what has expired counts as absent, and is never deleted.
struct Clocked {
    store: EmbeddedStore,
    clock: Arc<ManualClock>,
}

#[async_trait]
impl Passage for Clocked {
    fn now(&self) -> Micros {
        self.clock.now()
    }

    async fn pass(&self, tenant: &TenantId, session: &SessionId, meta: &SegmentMeta, expires_at: Micros) {
        let ms = (expires_at.get() - self.clock.now().get()) / 1000 - limits::EXPIRY_MARGIN_MS;
        self.clock.advance_ms(ms - 1);
        let at = self.store.commit_at(tenant, session, meta.first).await.unwrap();
        assert_eq!(at, Some(meta.commit_id), "{session}: it went before its time");
        self.clock.advance_ms(1);
        assert_eq!(self.store.commit_at(tenant, session, meta.first).await.unwrap(), None);
    }
}

fn clocked() -> (tempfile::TempDir, Clocked) {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(suite::now()));
    let options = EmbeddedOptions { cache_bytes: 4 << 20, ..EmbeddedOptions::default() };
    let store = EmbeddedStore::with_clock(&dir.path().join("ledger.redb"), &options, clock.clone()).unwrap();
    (dir, Clocked { store, clock })
}

async fn what_is_archived_goes(store: &dyn Store, passage: &dyn Passage) {
    suite::mark_archived_can_be_repeated(store, passage, NO_LAG).await;
    suite::head_outlives_its_segments(store, passage, suite::HeadCheck::Hash, NO_LAG).await;
    suite::sessions_outlive_their_segments(store, passage, NO_LAG).await;
    suite::archives_are_apart(store, passage, NO_LAG).await;
    suite::only_what_has_a_time_goes(store, passage, NO_LAG).await;
}

#[tokio::test]
async fn archived_segments_are_deleted() {
    let (_dir, store) = store();
    what_is_archived_goes(&*store, &Swept(store.clone())).await;
}

#[tokio::test]
async fn expired_segments_count_as_absent() {
    let (_dir, clocked) = clocked();
    what_is_archived_goes(&clocked.store, &clocked).await;
}

#[tokio::test]
async fn p2_segments_go_in_any_order() {
    let (_dir, store) = store();
    suite::segments_go_in_any_order(&*store, &Swept(store.clone()), NO_LAG).await;
    let (_dir, clocked) = clocked();
    suite::segments_go_in_any_order(&clocked.store, &clocked, NO_LAG).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_archive() {
    let (_dir, store) = store();
    suite::pointer_only_rises(store.clone()).await;
    suite::open_lists_what_is_not_archived(&*store, NO_LAG).await;
    suite::batch_number_is_taken_once(store.clone()).await;
    suite::batches_are_listed_in_order(&*store).await;
    suite::closed_until_opened(&*store).await;
    suite::broken_is_news_once(store.clone()).await;
    suite::writers_and_an_archiver(store.clone(), &Swept(store.clone()), 8, 6).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn erasures() {
    let (_dir, store) = store();
    suite::erasures_are_written_once_and_come_to_an_end(&*store).await;
    suite::a_body_is_replaced_in_its_place(&*store, NO_LAG).await;
    suite::large_bodies_are_replaced_whole(store.clone()).await;
    suite::what_was_replaced_expires(&*store, &Swept(store.clone())).await;
    suite::a_batch_is_resized(&*store).await;
    let (_dir, clocked) = clocked();
    suite::what_was_replaced_expires(&clocked.store, &clocked).await;
}

#[tokio::test]
async fn what_was_written_is_there_after_reopening() {
    let (dir, first) = store();
    let witness = suite::Witness::leave(&*first).await;
    drop(first);
    let again = open(dir.path());
    witness.check(&*again, NO_LAG).await;
    assert!(again.orders_commits());
}
