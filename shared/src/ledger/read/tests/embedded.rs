//! The same on the embedded store, whose time index and records are its own.

use std::sync::Arc;

use proptest::prelude::*;

use super::fixture::{Fixture, batches, filter, run, spec};
use super::lists::{
    a_hundred_segments, every_page, ids, order, pages_while_others_write, query, skipped, within_budget,
};
use crate::ledger::read::SessionVerdict;
use crate::ledger::{EventFilter, ListQuery};
use crate::store::Order;
use crate::store::embedded::{EmbeddedOptions, EmbeddedStore};

/// A ledger in a directory that goes with it.
fn embedded() -> (Fixture, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let options = EmbeddedOptions { cache_bytes: 1 << 20, ..EmbeddedOptions::default() };
    let store = EmbeddedStore::open(&dir.path().join("store.redb"), &options).unwrap();
    (Fixture::new(Arc::new(store)), dir)
}

proptest! {
    // Few: every batch is an fsync.
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn pages_of_any_size_give_what_a_plain_filter_gives(
        batches in batches(), filter in filter(), order in order(), limit in 1usize..9,
    ) {
        let (mut fixture, _dir) = embedded();
        run(every_page(&mut fixture, &batches, &filter, order, limit))?;
    }

    #[test]
    fn a_skip_passes_over_exactly_so_many(
        batches in batches(), filter in filter(), order in order(), skip in 0u64..60, start in 0usize..20,
    ) {
        let (mut fixture, _dir) = embedded();
        run(skipped(&mut fixture, &batches, &filter, order, skip, start))?;
    }

    #[test]
    fn appends_between_pages_neither_repeat_nor_hide_an_event(
        batches in batches(), more in prop::collection::vec(prop::collection::vec(spec(), 1..4), 30),
        filter in filter(), order in order(), limit in 1usize..6,
    ) {
        let (mut fixture, _dir) = embedded();
        run(pages_while_others_write(&mut fixture, &batches, &more, &filter, order, limit))?;
    }

    #[test]
    fn a_small_budget_gives_the_same_in_smaller_steps_or_says_so(
        batches in batches(), filter in filter(), order in order(), budget in 1u64..4000,
    ) {
        let (mut fixture, _dir) = embedded();
        run(within_budget(&mut fixture, &batches, &filter, order, budget))?;
    }

    #[test]
    fn every_session_verifies_and_every_event_is_found_by_its_id(batches in batches()) {
        let (mut fixture, _dir) = embedded();
        run(async {
            for batch in &batches {
                fixture.append(batch).await;
            }
            for event in &fixture.written {
                let (tenant, session) = (&fixture.tenant, &event.session_id);
                let found = fixture.ledger.event(tenant, event.event_id).await.unwrap();
                prop_assert_eq!(found.as_ref(), Some(event));
                let verdict = fixture.ledger.verify_session(tenant, session).await.unwrap();
                prop_assert!(matches!(verdict, SessionVerdict::Verified { .. }), "{:?}", verdict);
            }
            Ok(())
        })?;
    }
}

#[test]
fn a_page_reads_few_bodies() {
    let (mut fixture, _dir) = embedded();
    run(async {
        a_hundred_segments(&mut fixture).await;
        let expected = fixture.expected(&EventFilter::default());
        for order in [Order::Asc, Order::Desc] {
            let page =
                ListQuery { skip: 30, count_total: true, ..query(&EventFilter::default(), order, 100) };
            let page = fixture.ledger.list(&fixture.tenant, &page).await.unwrap();
            let expected: Vec<_> = match order {
                Order::Asc => expected.iter().skip(30).take(100).cloned().collect(),
                Order::Desc => expected.iter().rev().skip(30).take(100).cloned().collect(),
            };
            assert!(ids(&page.events) == ids(&expected) && page.total == Some(10_000));
            assert!(page.stats.segments_read <= 4, "{order:?}: {:?}", page.stats);
        }
    });
}
