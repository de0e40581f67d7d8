//! One event by its id.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::fixture::{Spec, batches, run};
use super::in_memory;
use crate::ids::CommitId;
use crate::limits;

fn one() -> Vec<Spec> {
    vec![Spec { session: 0, agent: 0, kind: 0, severity: 1, micros: 5, text: String::new() }]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn every_event_is_found_by_its_id(batches in batches()) {
        run(async {
            let (mut fixture, _) = in_memory(4);
            for batch in &batches {
                fixture.append(batch).await;
            }
            for event in &fixture.written {
                let found = fixture.ledger.event(&fixture.tenant, event.event_id).await.unwrap();
                prop_assert_eq!(found.as_ref(), Some(event));
            }
            Ok(())
        })?;
    }
}

#[test]
fn one_body_is_read_and_an_old_id_is_not_waited_for() {
    run(async {
        let (mut fixture, store) = in_memory(4);
        let commit = fixture.append(&one()).await;
        assert!(fixture.ledger.event(&fixture.tenant, commit.event(1)).await.unwrap().is_some());
        assert_eq!(store.bodies_read.load(Ordering::Relaxed), 1);
        fixture.clock.advance_ms(limits::BY_ID_RETRY_MS + 1);
        let begun = Instant::now();
        let never = [commit.event(2), commit.event(1001), CommitId::mint(0, [9; 10]).event(1)];
        for id in never.into_iter().chain([CommitId::mint(u64::MAX >> 16, [9; 10]).event(1)]) {
            assert_eq!(fixture.ledger.event(&fixture.tenant, id).await.unwrap(), None);
        }
        assert!(begun.elapsed() < Duration::from_millis(500), "nothing was waited for");
    });
}

#[test]
fn an_event_just_written_is_found_though_the_feed_lags() {
    run(async {
        let (mut fixture, store) = in_memory(4);
        let commit = fixture.append(&one()).await;
        store.state.lock().unwrap().hidden.insert(commit);
        let shown = async {
            tokio::time::sleep(Duration::from_millis(120)).await;
            store.state.lock().unwrap().hidden.clear();
        };
        let read = fixture.ledger.event(&fixture.tenant, commit.event(1));
        let (found, ()) = tokio::join!(read, shown);
        assert!(found.unwrap().is_some());
    });
}

#[test]
fn the_wait_ends_even_if_the_clock_stands_still() {
    run(async {
        let (mut fixture, store) = in_memory(4);
        let commit = fixture.append(&one()).await;
        store.state.lock().unwrap().hidden.insert(commit);
        let begun = Instant::now();
        assert_eq!(fixture.ledger.event(&fixture.tenant, commit.event(1)).await.unwrap(), None);
        assert!(begun.elapsed() >= Duration::from_millis(limits::BY_ID_RETRY_MS.unsigned_abs()));
    });
}
