//! Lists: order, pages, filters, totals, budgets.

use proptest::prelude::*;

use super::fixture::{Fixture, Spec, batches, filter, run, session, spec};
use super::in_memory;
use crate::event::Event;
use crate::ids::{EventId, Seq};
use crate::ledger::{EventFilter, EventPosition, ListQuery, ReadError};
use crate::limits;
use crate::store::Order;
use crate::time::Micros;

pub(super) fn query(filter: &EventFilter, order: Order, limit: usize) -> ListQuery {
    ListQuery { filter: filter.clone(), order, after: None, skip: 0, limit, count_total: false }
}

pub(super) fn order() -> impl Strategy<Value = Order> {
    prop_oneof![Just(Order::Asc), Just(Order::Desc)]
}

fn directed(mut events: Vec<Event>, order: Order) -> Vec<Event> {
    if order == Order::Desc {
        events.reverse();
    }
    events
}

pub(super) fn ids(events: &[Event]) -> Vec<EventId> {
    events.iter().map(|e| e.event_id).collect()
}

async fn write_all(fixture: &mut Fixture, batches: &[Vec<Spec>]) {
    for batch in batches {
        fixture.append(batch).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn pages_of_any_size_give_what_a_plain_filter_gives(
        batches in batches(), filter in filter(), order in order(), limit in 1usize..9, page_max in 1usize..5,
    ) {
        let (mut fixture, _) = in_memory(page_max);
        run(every_page(&mut fixture, &batches, &filter, order, limit))?;
    }

    #[test]
    fn a_skip_passes_over_exactly_so_many(
        batches in batches(), filter in filter(), order in order(), skip in 0u64..60, start in 0usize..20,
    ) {
        let (mut fixture, _) = in_memory(3);
        run(skipped(&mut fixture, &batches, &filter, order, skip, start))?;
    }

    #[test]
    fn appends_between_pages_neither_repeat_nor_hide_an_event(
        batches in batches(), more in prop::collection::vec(prop::collection::vec(spec(), 1..4), 30),
        filter in filter(), order in order(), limit in 1usize..6,
    ) {
        let (mut fixture, _) = in_memory(2);
        run(pages_while_others_write(&mut fixture, &batches, &more, &filter, order, limit))?;
    }

    #[test]
    fn a_small_budget_gives_the_same_in_smaller_steps_or_says_so(
        batches in batches(), filter in filter(), order in order(), budget in 1u64..4000,
    ) {
        let (mut fixture, _) = in_memory(4);
        run(within_budget(&mut fixture, &batches, &filter, order, budget))?;
    }
}

pub(super) async fn every_page(
    fixture: &mut Fixture,
    batches: &[Vec<Spec>],
    filter: &EventFilter,
    order: Order,
    limit: usize,
) -> Result<(), TestCaseError> {
    write_all(fixture, batches).await;
    let expected = directed(fixture.expected(filter), order);
    let mut query = ListQuery { count_total: true, ..query(filter, order, limit) };
    let mut seen = Vec::new();
    loop {
        let page = fixture.ledger.list(&fixture.tenant, &query).await.unwrap();
        prop_assert_eq!(page.total, Some(expected.len() as u64));
        prop_assert!(!page.partial && page.events.len() <= limit);
        let ended = page.next.is_none();
        prop_assert!(ended || page.events.len() == limit, "a page is full or the last");
        seen.extend(page.events);
        if ended {
            break;
        }
        let text = page.next.unwrap().encode(order, filter);
        query.after = Some(EventPosition::decode(&text, order, filter).unwrap());
    }
    prop_assert_eq!(seen, expected);
    Ok(())
}

pub(super) async fn skipped(
    fixture: &mut Fixture,
    batches: &[Vec<Spec>],
    filter: &EventFilter,
    order: Order,
    skip: u64,
    start: usize,
) -> Result<(), TestCaseError> {
    write_all(fixture, batches).await;
    let expected = directed(fixture.expected(filter), order);
    let after = expected.get(start).map(|e| EventPosition { timestamp: e.timestamp, event_id: e.event_id });
    let begin = if after.is_some() { start + 1 } else { 0 };
    let query = ListQuery { after, skip, count_total: true, ..query(filter, order, 5) };
    let page = fixture.ledger.list(&fixture.tenant, &query).await.unwrap();
    let rest = expected.iter().skip(begin).skip(skip as usize).take(5).cloned().collect::<Vec<_>>();
    prop_assert_eq!(page.events, rest);
    prop_assert_eq!(page.total, Some(expected.len() as u64));
    Ok(())
}

pub(super) async fn pages_while_others_write(
    fixture: &mut Fixture,
    batches: &[Vec<Spec>],
    more: &[Vec<Spec>],
    filter: &EventFilter,
    order: Order,
    limit: usize,
) -> Result<(), TestCaseError> {
    write_all(fixture, batches).await;
    let old = ids(&fixture.expected(filter));
    let mut query = query(filter, order, limit);
    let mut seen = Vec::new();
    let mut more = more.iter();
    loop {
        let page = fixture.ledger.list(&fixture.tenant, &query).await.unwrap();
        seen.extend(page.events);
        let Some(next) = page.next else { break };
        query.after = Some(next);
        if let Some(batch) = more.next() {
            fixture.append(batch).await;
        }
    }
    let mut sorted = seen.clone();
    sorted.sort_by_key(|e| (e.timestamp, e.event_id));
    sorted.dedup_by_key(|e| e.event_id);
    prop_assert_eq!(directed(sorted, order), seen.clone(), "in order, none twice");
    let seen = ids(&seen);
    prop_assert!(old.iter().all(|id| seen.contains(id)), "none of the old is missing");
    let all = ids(&fixture.expected(filter));
    prop_assert!(seen.iter().all(|id| all.contains(id)), "none that was not asked for");
    Ok(())
}

pub(super) async fn within_budget(
    fixture: &mut Fixture,
    batches: &[Vec<Spec>],
    filter: &EventFilter,
    order: Order,
    budget: u64,
) -> Result<(), TestCaseError> {
    write_all(fixture, batches).await;
    let expected = directed(fixture.expected(filter), order);
    let mut query = query(filter, order, 7);
    let mut seen = Vec::new();
    loop {
        match fixture.ledger.list_within(&fixture.tenant, &query, budget).await {
            Ok(page) => {
                prop_assert!(page.events.len() <= 7);
                prop_assert!(!page.partial || page.next.is_some());
                seen.extend(page.events);
                let Some(next) = page.next else { break };
                prop_assert!(query.after != Some(next), "every page gets further");
                query.after = Some(next);
            }
            Err(ReadError::TooBroad { limit }) => {
                prop_assert_eq!(limit, budget);
                prop_assert_eq!(&seen[..], &expected[..seen.len()], "what was given until then is right");
                return Ok(());
            }
            Err(other) => return Err(TestCaseError::fail(other.to_string())),
        }
    }
    prop_assert_eq!(seen, expected);
    let total = ListQuery { count_total: true, skip: 1, after: None, ..query };
    match fixture.ledger.list_within(&fixture.tenant, &total, budget).await {
        Ok(page) => prop_assert_eq!(page.total, Some(fixture.expected(filter).len() as u64)),
        Err(error) => prop_assert!(matches!(error, ReadError::TooBroad { .. }), "never a wrong total"),
    }
    Ok(())
}

/// Segments of 100 events of four sessions by turns, each a little later than the one before.
pub(super) async fn a_hundred_segments(fixture: &mut Fixture) {
    for batch in 0..100i64 {
        let spec = |index: i64| Spec {
            session: (batch % 4) as u8,
            agent: (batch % 3) as u8,
            kind: (index % 3) as u8,
            severity: 1,
            micros: batch * 1000 + index * 11,
            text: format!("{batch} {index}"),
        };
        let batch: Vec<Spec> = (0..100).map(spec).collect();
        fixture.append(&batch).await;
    }
}

#[test]
fn a_page_reads_few_bodies_wherever_it_begins() {
    run(async {
        let (mut fixture, _) = in_memory(usize::MAX);
        a_hundred_segments(&mut fixture).await;
        let all = EventFilter::default();
        let expected = fixture.expected(&all);
        for order in [Order::Asc, Order::Desc] {
            let expected = directed(expected.clone(), order);
            for skip in [0, 250, 9000] {
                let query = ListQuery { skip, count_total: true, ..query(&all, order, 100) };
                let page = fixture.ledger.list(&fixture.tenant, &query).await.unwrap();
                assert_eq!(ids(&page.events), ids(&expected[skip as usize..][..100]));
                assert_eq!(page.total, Some(10_000));
                // The segments overlap a little: a skip that lands between two reads what it lands in.
                let most = if skip == 0 { 3 } else { skip / 100 + 3 };
                assert!(page.stats.segments_read <= most, "{order:?} {skip}: {:?}", page.stats);
            }
            let after =
                expected.get(4949).map(|e| EventPosition { timestamp: e.timestamp, event_id: e.event_id });
            let query = ListQuery { after, ..query(&all, order, 100) };
            let page = fixture.ledger.list(&fixture.tenant, &query).await.unwrap();
            assert_eq!(ids(&page.events), ids(&expected[4950..5050]));
            assert!(page.stats.segments_read <= 4, "{order:?}: {:?}", page.stats);
        }
    });
}

#[test]
fn a_large_offset_over_segments_apart_reads_next_to_nothing() {
    run(async {
        let (mut fixture, _) = in_memory(usize::MAX);
        for batch in 0..100i64 {
            let spec = |index: i64| Spec {
                session: (batch % 4) as u8,
                agent: 0,
                kind: 0,
                severity: 1,
                micros: batch * 1000 + index,
                text: String::new(),
            };
            let batch: Vec<Spec> = (0..20).map(spec).collect();
            fixture.append(&batch).await;
        }
        let query = ListQuery { skip: 1930, ..query(&EventFilter::default(), Order::Desc, 20) };
        let page = fixture.ledger.list(&fixture.tenant, &query).await.unwrap();
        let expected = directed(fixture.expected(&query.filter), Order::Desc);
        assert_eq!(page.events, expected[1930..1950]);
        assert!(page.stats.segments_read <= 3, "{:?}", page.stats);
    });
}

#[test]
fn counts_come_from_attributes_where_they_can() {
    run(async {
        let (mut fixture, store) = in_memory(usize::MAX);
        a_hundred_segments(&mut fixture).await;
        let kind = EventFilter { event_types: vec!["error".to_owned()], ..EventFilter::default() };
        let early = EventFilter { to: Micros::new(50_500), ..EventFilter::default() };
        let late = EventFilter { from: Micros::new(50_500), ..EventFilter::default() };
        let both = EventFilter { from: Micros::new(10_000), to: Micros::new(90_000), ..kind.clone() };
        let of_session = EventFilter { session: Some(session(1)), ..kind.clone() };
        for filter in [kind, early, late, both, of_session] {
            let before = store.bodies_read.load(std::sync::atomic::Ordering::Relaxed);
            let query = ListQuery { limit: 0, count_total: true, ..query(&filter, Order::Desc, 0) };
            let page = fixture.ledger.list(&fixture.tenant, &query).await.unwrap();
            assert_eq!(page.total, Some(fixture.expected(&filter).len() as u64), "{filter:?}");
            let read = store.bodies_read.load(std::sync::atomic::Ordering::Relaxed) - before;
            assert!(read <= 4, "{filter:?} read {read} bodies");
        }
    });
}

#[test]
fn a_page_ends_before_it_is_too_long_to_send() {
    run(async {
        let (mut fixture, _) = in_memory(usize::MAX);
        let big = |micros| Spec {
            session: 0,
            agent: 0,
            kind: 0,
            severity: 1,
            micros,
            text: "x".repeat(limits::PAYLOAD_BYTES_MAX - 2),
        };
        for micros in 0..4 {
            fixture.append(&[big(micros)]).await;
        }
        let mut query = query(&EventFilter::default(), Order::Asc, 100);
        let first = fixture.ledger.list(&fixture.tenant, &query).await.unwrap();
        assert_eq!(first.events.len(), 2, "three payloads and their metadata are more than 2.5 MiB");
        assert!(!first.partial);
        query.after = first.next;
        let rest = fixture.ledger.list(&fixture.tenant, &query).await.unwrap();
        assert_eq!(rest.events.len(), 2);
        assert_eq!(rest.next, None);
        let (tenant, session) = (&fixture.tenant, session(0));
        let run = fixture.ledger.session_events(tenant, &session, Seq::MAX, Order::Desc, 100).await.unwrap();
        assert_eq!(run.events.iter().map(|e| e.sequence.get()).collect::<Vec<_>>(), [3, 2]);
        assert_eq!(run.next.map(|s| s.get()), Some(1));
    });
}

#[test]
fn what_has_expired_is_left_out_and_what_is_damaged_is_named() {
    run(async {
        let (mut fixture, store) = in_memory(usize::MAX);
        a_hundred_segments(&mut fixture).await;
        let all = query(&EventFilter::default(), Order::Asc, 1000);
        let first = (session(0), Seq::ZERO);
        store.state.lock().unwrap().expired.insert(first.clone());
        let page = fixture.ledger.list(&fixture.tenant, &all).await.unwrap();
        let mut left = fixture.expected(&all.filter);
        left.retain(|event| (&event.session_id, event.sequence.get() / 100) != (&first.0, 0));
        assert!(page.events == left[..1000], "all but the first segment");
        store.state.lock().unwrap().expired.clear();
        let whole = store.state.lock().unwrap().bodies.remove(&first).unwrap();
        let error = fixture.ledger.list(&fixture.tenant, &all).await.unwrap_err();
        assert!(matches!(&error, ReadError::Corrupt { why, .. } if why.contains("missing")), "{error}");
        for cut in [0, 1, 60, whole.len() - 1] {
            store.state.lock().unwrap().bodies.insert(first.clone(), whole.slice(..cut));
            let error = fixture.ledger.list(&fixture.tenant, &all).await.unwrap_err();
            let place = "tenant default session session-0 sequence 0";
            assert!(matches!(&error, ReadError::Corrupt { key, .. } if key == place), "{error}");
        }
        let other = store.state.lock().unwrap().bodies[&(session(1), Seq::ZERO)].clone();
        store.state.lock().unwrap().bodies.insert(first, other);
        let error = fixture.ledger.list(&fixture.tenant, &all).await.unwrap_err();
        assert!(matches!(error, ReadError::Corrupt { .. }), "a body of another commit: {error}");
    });
}
