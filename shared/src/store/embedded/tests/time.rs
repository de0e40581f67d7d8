//! The time index against a list that is searched from end to end.

use proptest::prelude::*;
use redb::{Database, backends::InMemoryBackend};

use super::super::tables::{self, SegmentRow, Snapshot};
use super::super::{derived, time_index};
use super::*;
use crate::store::{Order, keys};

const SECOND: i64 = 1_000_000;

/// Spans of every class, and right at their ends.
fn a_span() -> impl Strategy<Value = i64> {
    let widths = prop::sample::select(vec![0, SECOND, 60 * SECOND, 3600 * SECOND, 86_400 * SECOND]);
    prop_oneof![
        (widths, -2i64..=2).prop_map(|(width, by)| (width + by).max(0)),
        0..2 * SECOND,
        0..2 * 3600 * SECOND,
        0..3 * 86_400 * SECOND,
    ]
}

fn a_time() -> impl Strategy<Value = i64> {
    prop_oneof![
        -5 * SECOND..5 * SECOND,
        -4000 * SECOND..4000 * SECOND,
        -100 * 3600 * SECOND..100 * 3600 * SECOND,
        Just(Micros::MIN.get()),
        Just(Micros::MAX.get()),
    ]
}

fn at(micros: i64) -> Micros {
    Micros::new(micros.clamp(Micros::MIN.get(), Micros::MAX.get())).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn pages_are_complete_and_keep_their_promise(
        segments in prop::collection::vec((a_time(), a_span()), 0..60),
        from in prop::option::of(a_time()),
        limit in 1usize..8,
    ) {
        let db = Database::builder().create_with_backend(InMemoryBackend::new()).unwrap();
        tables::prepare(&db).unwrap();
        let txn = db.begin_write().unwrap();
        let mut spans = Vec::new();
        {
            let mut rows = txn.open_table(tables::SEGMENTS).unwrap();
            let mut times = txn.open_table(tables::TIMES).unwrap();
            for (n, (start, span)) in segments.iter().enumerate() {
                let session = session(&format!("s-{n}"));
                let (min, max) = (at(*start), at(start.saturating_add(*span)));
                let meta = meta(CommitId::mint(n as u64, [7; 10]), None, 1, (min, max), "bot");
                // A neighbour whose name begins alike must stay out of it.
                for tenant in [tenant(), TenantId::parse("default-").unwrap()] {
                    let (key, value) = derived::time_row(&tenant, &session, &meta);
                    times.insert(key.as_slice(), value.as_slice()).unwrap();
                    let row = SegmentRow { place: 0, parts: 0, archived: None, attributes: &meta.encode() }.encode();
                    rows.insert(keys::segment(&tenant, &session, meta.first).as_slice(), row.as_slice()).unwrap();
                }
                spans.push((session, min, max));
            }
        }
        txn.commit().unwrap();
        let view = Snapshot::new(&db).unwrap();
        let from = from.map(at);
        for order in [Order::Asc, Order::Desc] {
            let mut expected: Vec<_> = spans
                .iter()
                .filter(|(_, min, max)| match (order, from) {
                    (_, None) => true,
                    (Order::Asc, Some(from)) => *max >= from,
                    (Order::Desc, Some(from)) => *min <= from,
                })
                .map(|(session, ..)| session.clone())
                .collect();
            expected.sort();
            let mut found = Vec::new();
            let mut bounds: Vec<(usize, Micros)> = Vec::new();
            let mut token: Option<Vec<u8>> = None;
            loop {
                let page = time_index::page(&view, &tenant(), order, from, token.as_deref(), limit).unwrap();
                prop_assert!(page.entries.len() <= limit);
                prop_assert_eq!(page.bound.is_some(), page.next.is_some());
                found.extend(page.entries);
                let (Some(bound), Some(next)) = (page.bound, page.next) else { break };
                bounds.push((found.len(), bound));
                token = Some(next);
                prop_assert!(bounds.len() <= spans.len() + 1);
            }
            for (count, bound) in bounds {
                for later in &found[count..] {
                    match order {
                        Order::Asc => prop_assert!(later.meta.summary.time_min >= bound),
                        Order::Desc => prop_assert!(later.meta.summary.time_max <= bound),
                    }
                }
            }
            let mut found: Vec<_> = found.into_iter().map(|entry| entry.session_id).collect();
            found.sort();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn no_token_panics(bytes: Vec<u8>) {
        let db = Database::builder().create_with_backend(InMemoryBackend::new()).unwrap();
        tables::prepare(&db).unwrap();
        let view = Snapshot::new(&db).unwrap();
        let _ = time_index::page(&view, &tenant(), Order::Asc, None, Some(&bytes), 1);
    }
}
