//! The suite over DynamoDB: it may lag, calls are not ordered, and of the head only the slot is checked.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use quipu_core::ids::{SessionId, TenantId};
use quipu_core::limits;
use quipu_core::segment::SegmentMeta;
use quipu_core::store::Store;
use quipu_core::store::conformance as suite;
use quipu_core::store::dynamo::DynamoStore;
use quipu_core::store::keys::dynamo as keys;
use quipu_core::time::Micros;
use quipu_tests::emulator::{call, fresh_table};
use quipu_tests::{Emulator, fresh_store, store_at};
use serde_json::json;

/// The index is eventually consistent; an emulator's is so within moments.
const LAG: Duration = Duration::from_secs(5);

async fn appends(store: Arc<DynamoStore>) {
    let store = &*store;
    suite::empty_session_is_empty(store).await;
    suite::commits_are_read_back_at_once(store).await;
    suite::segments_from_anywhere(store).await;
    suite::commit_must_follow_the_head(store, suite::HeadCheck::Slot).await;
    suite::batch_is_all_or_nothing(store, LAG).await;
    suite::batch_over_many_sessions(store).await;
    suite::commits_take_effect_in_call_order(store, false).await;
    suite::commit_ids_need_not_rise(store).await;
}

/// Not on ministack: it measures a transaction by the JSON of its request, where DynamoDB measures the items.
async fn large_bodies(store: Arc<DynamoStore>) {
    suite::large_bodies(&*store).await;
}

async fn writers_at_once(store: Arc<DynamoStore>) {
    suite::many_writers_one_session(store.clone(), 16, 10).await;
    suite::many_writers_many_sessions(store.clone(), 16, 10).await;
    suite::crossed_batches_do_not_split(store).await;
}

/// Fewer, where a write takes milliseconds; it tells transactions that meet (`TransactionConflict`), as AWS does.
async fn some_writers_at_once(store: Arc<DynamoStore>) {
    suite::many_writers_one_session(store.clone(), 8, 3).await;
    suite::many_writers_many_sessions(store.clone(), 4, 3).await;
}

async fn feed(store: Arc<DynamoStore>) {
    suite::feed_holds_every_segment_in_order(&*store, LAG).await;
    suite::feed_followed_while_it_grows(&*store, LAG).await;
}

async fn idempotency(store: Arc<DynamoStore>) {
    suite::idempotency_key_is_taken_until_it_expires(&*store).await;
    suite::idempotency_key_falls_with_its_batch(&*store).await;
    suite::idempotency_key_is_won_once(store).await;
}

async fn isolation(store: Arc<DynamoStore>) {
    suite::tenants_and_sessions_are_apart(&*store, LAG).await;
}

async fn sessions_and_agents(store: Arc<DynamoStore>) {
    suite::session_is_its_segments_merged(&*store, LAG).await;
    suite::sessions_are_listed_newest_first(&*store, LAG).await;
    suite::sessions_of_one_commit_are_listed(&*store, LAG).await;
    suite::agents_are_counted(&*store, LAG).await;
    suite::agents_that_share_segments(&*store, LAG).await;
}

async fn by_time(store: Arc<DynamoStore>) {
    suite::segments_by_time(&*store, LAG, 1).await;
    suite::no_segments_by_time(&*store).await;
}

async fn tokens_and_tenants(store: Arc<DynamoStore>) {
    suite::first_token_only_once(store.clone()).await;
    suite::tokens_are_found(&*store).await;
    suite::token_revocation(&*store).await;
    suite::token_use(&*store).await;
    suite::token_use_does_not_undo_revocation(store.clone()).await;
    suite::tenants_are_made_once(store).await;
}

/// The table's own expiry, which no emulator has: it deletes the items of one segment.
struct Ttl {
    url: &'static str,
    table: String,
}

#[async_trait]
impl suite::Passage for Ttl {
    async fn pass(&self, tenant: &TenantId, session: &SessionId, meta: &SegmentMeta, expires_at: Micros) {
        let parts = (meta.body_bytes as usize).div_ceil(limits::ITEM_BODY_BYTES_MAX);
        for part in 0..parts.max(1) {
            let sk = match part {
                0 => keys::segment(meta.first),
                part => keys::part(meta.first, meta.commit_id, part),
            };
            let key = json!({ "pk": { "S": keys::session(tenant, session) }, "sk": { "S": sk } });
            let request = json!({ "TableName": self.table, "Key": key, "ReturnValues": "ALL_OLD" });
            let url = self.url;
            let done =
                tokio::task::spawn_blocking(move || call(url, "DynamoDB_20120810.DeleteItem", &request));
            let ttl = done.await.unwrap()["Attributes"]["ttl"]["N"].take();
            let expected = (expires_at.unix_ms() / 1000).to_string();
            assert_eq!(ttl, expected, "{session}: the time of the segment at {}", meta.first);
        }
    }
}

fn expiring(emulator: &'static Emulator) -> (Arc<DynamoStore>, Ttl) {
    let (url, table) = (emulator.url(), fresh_table(emulator.url()));
    (store_at(url, &table), Ttl { url, table })
}

/// What goes, goes; what stays, stays.
async fn expiry(emulator: &'static Emulator) {
    let (store, ttl) = expiring(emulator);
    suite::mark_archived_can_be_repeated(&*store, &ttl, LAG).await;
    suite::head_outlives_its_segments(&*store, &ttl, suite::HeadCheck::Slot, LAG).await;
    suite::sessions_outlive_their_segments(&*store, &ttl, LAG).await;
    suite::only_what_has_a_time_goes(&*store, &ttl, LAG).await;
    suite::archives_are_apart(&*store, &ttl, LAG).await;
}

/// Many times over.
async fn expiry_in_every_order(emulator: &'static Emulator) {
    let (store, ttl) = expiring(emulator);
    suite::segments_go_in_any_order(&*store, &ttl, LAG).await;
    suite::writers_and_an_archiver(store, &ttl, 8, 5).await;
}

async fn archive(store: Arc<DynamoStore>) {
    suite::open_lists_what_is_not_archived(&*store, LAG).await;
    suite::pointer_only_rises(store.clone()).await;
    suite::batch_number_is_taken_once(store.clone()).await;
    suite::batches_are_listed_in_order(&*store).await;
    suite::closed_until_opened(&*store).await;
    suite::broken_is_news_once(store).await;
}

async fn erasures(store: Arc<DynamoStore>) {
    suite::erasures_are_written_once_and_come_to_an_end(&*store).await;
    suite::a_body_is_replaced_in_its_place(&*store, LAG).await;
    suite::a_batch_is_resized(&*store).await;
}

async fn large_erasures(store: Arc<DynamoStore>) {
    suite::large_bodies_are_replaced_whole(store).await;
}

async fn replaced_and_expired(emulator: &'static Emulator) {
    let (store, ttl) = expiring(emulator);
    suite::what_was_replaced_expires(&*store, &ttl).await;
}

async fn another_client(emulator: &Emulator) {
    let table = fresh_table(emulator.url());
    let witness = suite::Witness::leave(&*store_at(emulator.url(), &table)).await;
    let again = store_at(emulator.url(), &table);
    witness.check(&*again, LAG).await;
    assert!(!again.orders_commits());
}

/// One test for each part of the suite; those after the semicolon delete what has expired themselves.
macro_rules! on {
    ($name:ident, $emulator:ident, $($part:ident),*; $($expiring:ident),*) => {
        mod $name {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $part() {
                super::$part(super::fresh_store(super::Emulator::$emulator())).await;
            })*

            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $expiring() {
                super::$expiring(super::Emulator::$emulator()).await;
            })*

            #[tokio::test]
            async fn what_was_written_is_there_for_another_client() {
                super::another_client(super::Emulator::$emulator()).await;
            }
        }
    };
}

on!(
    on_dynoxide,
    dynoxide,
    appends,
    large_bodies,
    writers_at_once,
    feed,
    idempotency,
    isolation,
    sessions_and_agents,
    by_time,
    tokens_and_tenants,
    archive,
    erasures,
    large_erasures;
    expiry,
    expiry_in_every_order,
    replaced_and_expired
);

// Ten times slower: what it does differently from the other, and the rest there.
on!(on_ministack, ministack, appends, some_writers_at_once, idempotency, tokens_and_tenants, archive, erasures; expiry);
