//! The time index, against a plain model.

use std::time::Duration;

use super::{
    Batch, Dice, entries_of, eventually, fresh_tenant, head_of, now, ok, position_of, same, sample_event,
    session,
};
use crate::ids::TenantId;
use crate::store::{FeedEntry, Order, Store};
use crate::time::Micros;

/// Walks all pages and checks their promises: the page size; `bound` and `next` both there or both not; and every
/// event of every later page at or beyond each page's bound. Returns the entries of all pages.
async fn walk(
    store: &dyn Store,
    tenant: &TenantId,
    order: Order,
    from: Option<Micros>,
    limit: usize,
) -> Result<Vec<FeedEntry>, String> {
    let mut entries: Vec<FeedEntry> = Vec::new();
    let mut bounds: Vec<Micros> = Vec::new();
    let mut next: Option<Vec<u8>> = None;
    // Pages may be empty where a backend has nothing to say of a stretch of time, but not without end.
    for _ in 0..10_000 {
        let page = ok(store.by_time(tenant, order, from, next.as_deref(), limit).await, "by_time");
        if page.entries.len() > limit {
            return Err(format!("{} entries in a page of {limit}", page.entries.len()));
        }
        for entry in &page.entries {
            let summary = &entry.meta.summary;
            let broken = bounds.iter().find(|bound| match order {
                Order::Asc => summary.time_min < **bound,
                Order::Desc => summary.time_max > **bound,
            });
            if let Some(bound) = broken {
                let times = (summary.time_min, summary.time_max);
                return Err(format!("a segment of {times:?} comes after the bound {bound:?}, {order:?}"));
            }
        }
        entries.extend(page.entries);
        match (page.bound, page.next) {
            (Some(bound), Some(token)) => {
                if next.as_ref() == Some(&token) {
                    return Err("a page that is its own next".to_owned());
                }
                bounds.push(bound);
                next = Some(token);
            }
            (None, None) => return Ok(entries),
            (bound, next) => return Err(format!("the bound is {bound:?} and the next page {next:?}")),
        }
    }
    Err("pages without end".to_owned())
}

/// Compares with the model: the segments with an event at or after `from` (ascending) or at or before it
/// (descending), each once.
async fn compare(
    store: &dyn Store,
    tenant: &TenantId,
    written: &[FeedEntry],
    order: Order,
    from: Option<Micros>,
    limit: usize,
) -> Result<(), String> {
    let holds = |entry: &&FeedEntry| match (order, from) {
        (_, None) => true,
        (Order::Asc, Some(from)) => entry.meta.summary.time_max >= from,
        (Order::Desc, Some(from)) => entry.meta.summary.time_min <= from,
    };
    let mut expected: Vec<_> = written.iter().filter(holds).cloned().collect();
    expected.sort_by_key(position_of);
    let mut found = walk(store, tenant, order, from, limit).await?;
    found.sort_by_key(position_of);
    // The positions first: a list of them can be read.
    let positions = |entries: &[FeedEntry]| entries.iter().map(position_of).collect::<Vec<_>>();
    let what = format!("by time, {order:?} from {from:?} in pages of {limit}");
    same(&what, &positions(&found), &positions(&expected))?;
    same(&what, &found, &expected)
}

/// Segments are found by the times of their events, both ways, from anywhere, in pages of any size, whatever their
/// overlap: short ones, long ones, one over everything, equal ones, from before 1970, at both ends of the scale. The
/// bound of each page holds. Within `lag`.
///
/// # Panics
/// If the store breaks it.
pub async fn segments_by_time(store: &dyn Store, lag: Duration, seed: u64) {
    let (tenant, other) = (fresh_tenant(), fresh_tenant());
    let names = ["t", "t ", "u", "é"].map(session);
    let mut heads = [None; 4];
    let mut dice = Dice::new(seed);
    let start = now();
    let at = |ms: i64| start.plus_ms(ms);
    let mut ranges: Vec<(Micros, Micros)> = vec![
        (at(-1000), at(2000)),
        (at(500), at(500)),
        (at(500), at(500)),
        (at(500), at(501)),
        (Micros::from_unix_ms(-5_000_000), Micros::from_unix_ms(-4_000_000)),
        (Micros::from_unix_ms(-1), Micros::from_unix_ms(1)),
        (Micros::MIN, Micros::MIN),
        (Micros::MAX, Micros::MAX),
    ];
    for _ in 0..32 {
        let from = dice.below(1000) as i64;
        let long = if dice.below(4) == 0 { 800 } else { 30 };
        ranges.push((at(from), at(from + dice.below(long) as i64)));
    }
    let mut written = Vec::new();
    for (n, (low, high)) in ranges.iter().enumerate() {
        let which = n % names.len();
        let name = &names[which];
        // Within a segment the times stand in any order; the first is not the lowest.
        let middle = Micros::new(low.get().midpoint(high.get())).unwrap_or(*low);
        let times = if n % 2 == 0 { vec![*high, *low, middle] } else { vec![middle, *low, *high] };
        let events = times.into_iter().map(|t| sample_event(name, "timer", Some(t), "1".into())).collect();
        let commit = Batch::at(&tenant, at(n as i64)).events(name, heads[which], events).done();
        ok(store.commit(commit.clone()).await, "commit");
        heads[which] = head_of(&commit);
        written.extend(entries_of(&commit));
    }
    let foreign = Batch::new(&other).sample(&names[0], None, 1).done();
    ok(store.commit(foreign).await, "commit");
    let mut places = vec![None, Some(Micros::MIN), Some(Micros::MAX), Some(Micros::from_unix_ms(0))];
    places.extend([-1001, -1000, -999, 0, 499, 500, 501, 750, 1999, 2000, 2001].map(|ms| Some(at(ms))));
    places.extend((0..6).map(|_| Some(at(dice.below(1100) as i64))));
    places.extend(ranges.iter().step_by(7).flat_map(|(low, high)| [Some(*low), Some(*high)]));
    for order in [Order::Asc, Order::Desc] {
        for from in &places {
            for limit in [1, 3, 1000] {
                eventually(lag, "segments by time", || async {
                    compare(store, &tenant, &written, order, *from, limit).await
                })
                .await;
            }
        }
    }
}

/// A tenant without events has an empty page and no later one.
///
/// # Panics
/// If the store breaks it.
pub async fn no_segments_by_time(store: &dyn Store) {
    let tenant = fresh_tenant();
    for order in [Order::Asc, Order::Desc] {
        for from in [None, Some(now()), Some(Micros::MIN), Some(Micros::MAX)] {
            let entries = walk(store, &tenant, order, from, 5).await;
            assert_eq!(entries, Ok(Vec::new()), "{order:?} from {from:?}");
        }
    }
}
