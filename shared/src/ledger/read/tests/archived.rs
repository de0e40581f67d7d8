//! The same while events go from hot to archived to archived only, at any moment between two batches.

use std::sync::Arc;

use proptest::prelude::*;

use super::fixture::{Age, Fixture, Spec, batches, filter, run, session, spec};
use super::lists::{every_page, ids, order, pages_while_others_write, query, skipped, within_budget};
use crate::archive::{ArchiveSettings, Archiver, Close};
use crate::event::Event;
use crate::ids::Seq;
use crate::ledger::read::SessionVerdict;
use crate::ledger::{EventFilter, ListQuery, ReadError};
use crate::log::signer::LocalSigner;
use crate::note::NoteSigner;
use crate::objects::{Directory, ObjectStore};
use crate::store::embedded::{EmbeddedOptions, EmbeddedStore};
use crate::store::{Order, StoreError};
use crate::time::Micros;

/// A ledger with an archive in a directory that goes with it. `dice` says when what happens.
fn aging(dice: u64) -> (Fixture, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let clock = Fixture::clock();
    let options = EmbeddedOptions { cache_bytes: 1 << 20, ..EmbeddedOptions::default() };
    let store = EmbeddedStore::with_clock(&dir.path().join("store.redb"), &options, clock.clone()).unwrap();
    let objects = |name: &str| -> Arc<dyn ObjectStore> {
        let path = dir.path().join(name);
        std::fs::create_dir(&path).unwrap();
        Arc::new(Directory::open(&path).unwrap())
    };
    let (archive, staging) = (objects("archive"), objects("staging"));
    let mut fixture = Fixture::with(Arc::new(store), clock, Some(archive.clone()));
    let signer = Arc::new(LocalSigner::new(NoteSigner::from_seed("test/log", &[2; 32]).unwrap()));
    let settings =
        ArchiveSettings { hot_retention_ms: Some(Age::RETENTION_MS), ..ArchiveSettings::default() };
    let archiver = Archiver::new(fixture.ledger.clone(), archive, staging, signer, settings);
    fixture.age = Some(Age { archiver, dice });
    (fixture, dir)
}

proptest! {
    // Few: every batch is an fsync or several.
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 16 } else { 200 }))]

    #[test]
    fn pages_of_any_size_give_what_a_plain_filter_gives(
        dice: u64, batches in batches(), filter in filter(), order in order(), limit in 1usize..9,
    ) {
        let (mut fixture, _dir) = aging(dice);
        run(every_page(&mut fixture, &batches, &filter, order, limit))?;
    }

    #[test]
    fn a_skip_passes_over_exactly_so_many(
        dice: u64, batches in batches(), filter in filter(), order in order(), skip in 0u64..60,
        start in 0usize..20,
    ) {
        let (mut fixture, _dir) = aging(dice);
        run(skipped(&mut fixture, &batches, &filter, order, skip, start))?;
    }

    #[test]
    fn appends_between_pages_neither_repeat_nor_hide_an_event(
        dice: u64, batches in batches(), more in prop::collection::vec(prop::collection::vec(spec(), 1..4), 30),
        filter in filter(), order in order(), limit in 1usize..6,
    ) {
        let (mut fixture, _dir) = aging(dice);
        run(pages_while_others_write(&mut fixture, &batches, &more, &filter, order, limit))?;
    }

    #[test]
    fn a_small_budget_gives_the_same_in_smaller_steps_or_says_so(
        dice: u64, batches in batches(), filter in filter(), order in order(), budget in 1u64..100_000,
    ) {
        let (mut fixture, _dir) = aging(dice);
        run(within_budget(&mut fixture, &batches, &filter, order, budget))?;
    }

    #[test]
    fn every_session_verifies_and_every_event_is_found_by_its_id(
        dice: u64, batches in batches(), limit in 1usize..9, from in 0u64..12,
    ) {
        let (mut fixture, _dir) = aging(dice);
        run(async {
            for batch in &batches {
                fixture.append(batch).await;
            }
            let (ledger, tenant) = (&fixture.ledger, &fixture.tenant);
            for event in &fixture.written {
                let found = ledger.event(tenant, event.event_id).await.unwrap();
                prop_assert_eq!(found.as_ref(), Some(event));
            }
            for number in 0..4 {
                let session = session(number);
                let verdict = ledger.verify_session(tenant, &session).await.unwrap();
                let expected: Vec<&Event> =
                    fixture.written.iter().filter(|event| event.session_id == session).collect();
                match verdict {
                    SessionVerdict::Verified { events, .. } => prop_assert_eq!(events, expected.len() as u64),
                    SessionVerdict::Empty => prop_assert!(expected.is_empty()),
                    broken => prop_assert!(false, "{:?}", broken),
                }
                for order in [Order::Asc, Order::Desc] {
                    let mut expected: Vec<&Event> = expected.iter().copied().filter(|event| match order {
                        Order::Asc => event.sequence.get() >= from,
                        Order::Desc => event.sequence.get() <= from,
                    }).collect();
                    if order == Order::Desc {
                        expected.reverse();
                    }
                    let mut seen: Vec<Event> = Vec::new();
                    let mut next = Seq::new(from);
                    while let Some(at) = next {
                        let page = ledger.session_events(tenant, &session, at, order, limit).await.unwrap();
                        prop_assert!(page.events.len() == limit || page.next.is_none(), "a full page or the last");
                        seen.extend(page.events);
                        next = page.next;
                    }
                    prop_assert_eq!(seen.iter().collect::<Vec<_>>(), expected);
                }
            }
            let between = ledger.sessions_between(tenant, Micros::MIN, Micros::MAX).await.unwrap();
            let mut sessions: Vec<_> = fixture.written.iter().map(|event| event.session_id.clone()).collect();
            sessions.sort_unstable();
            sessions.dedup();
            prop_assert_eq!(between, sessions);
            Ok(())
        })?;
    }
}

fn one(micros: i64) -> Vec<Spec> {
    vec![Spec { session: 1, agent: 1, kind: 0, severity: 1, micros, text: "a".to_owned() }]
}

/// Four batches of one event each, the last of them hot.
async fn four(fixture: &mut Fixture) {
    let mut age = fixture.age.take().unwrap();
    for micros in 0..4 {
        fixture.append(&one(micros)).await;
        if micros < 3 {
            age.archiver.run(&fixture.tenant, Close::Now, Micros::MAX).await.unwrap();
        }
    }
    age.dice = 0;
    fixture.age = Some(age);
}

#[test]
fn the_archive_is_left_alone_while_all_is_hot() {
    let (mut fixture, dir) = aging(1);
    run(async {
        four(&mut fixture).await;
        std::fs::remove_dir_all(dir.path().join("archive").join("events")).unwrap();
        let query = ListQuery { count_total: true, ..query(&EventFilter::default(), Order::Asc, 10) };
        let page = fixture.ledger.list(&fixture.tenant, &query).await.unwrap();
        assert_eq!(page.events, fixture.written);
        assert_eq!((page.stats.cold.requests, page.stats.archive_bytes), (0, 0), "{:?}", page.stats);
        // A little before the first segment may expire, it is asked: and is not there.
        fixture.clock.advance_ms(Age::RETENTION_MS - 170_000);
        let gone = fixture.ledger.list(&fixture.tenant, &query).await;
        assert!(matches!(gone, Err(ReadError::Corrupt { .. })), "{gone:?}");
    });
}

#[test]
fn without_an_archive_nothing_is_left_out_in_silence() {
    let (mut fixture, _dir) = aging(1);
    run(async {
        four(&mut fixture).await;
        fixture.clock.advance_ms(Age::RETENTION_MS);
        let without = Fixture::with(fixture.ledger.store.clone(), fixture.clock.clone(), None);
        let query = query(&EventFilter::default(), Order::Asc, 10);
        let unavailable =
            |error: ReadError| matches!(error, ReadError::Store(StoreError::Unavailable { .. }));
        let (ledger, tenant) = (&without.ledger, &fixture.tenant);
        assert!(unavailable(ledger.list(tenant, &query).await.unwrap_err()));
        assert!(unavailable(ledger.event(tenant, fixture.written[0].event_id).await.unwrap_err()));
        assert!(unavailable(
            ledger.session_events(tenant, &session(1), Seq::ZERO, Order::Asc, 9).await.unwrap_err()
        ));
        let hot = EventFilter { from: Micros::new(3), ..EventFilter::default() };
        let page = ledger.list(tenant, &super::lists::query(&hot, Order::Asc, 9)).await.unwrap();
        assert_eq!(ids(&page.events), [fixture.written[3].event_id], "no batch can have more of this");
    });
}
