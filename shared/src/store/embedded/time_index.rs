//! Segments by the time of their events: an interval index of five ordered lists.
//!
//! A segment covers a span of time, and a query wants those that reach past a moment, nearest first. Ordered by its
//! highest timestamp alone, a segment that began long before could hide far away; so each stands in the list of its
//! span class, within which no segment begins earlier than its end minus the class's width. A page starts near the
//! moment in every list, takes from whichever list may hold the nearest event, and knows how near the rest can come.
//! The last class has no width; descending it is read from the top, ascending it is read first.

use std::ops::Bound;

use super::tables::{self, Snapshot, corrupt, fail};
use super::{reads, records};
use crate::codec::{Cursor, Malformed, put_bytes, put_signed};
use crate::ids::TenantId;
use crate::store::{Order, StoreError, TimePage, keys};
use crate::time::Micros;

const SECOND: i64 = 1_000_000;
/// Widths of the bounded classes, µs: a second, a minute, an hour, a day.
const WIDTHS: [i64; 4] = [SECOND, 60 * SECOND, 3600 * SECOND, 24 * 3600 * SECOND];
/// The class of the longer ones.
const UNBOUNDED: u8 = WIDTHS.len() as u8;
const CLASSES: usize = WIDTHS.len() + 1;

/// The class of a span.
pub(super) fn class(min: Micros, max: Micros) -> u8 {
    let span = max.get() - min.get();
    WIDTHS.iter().position(|width| span <= *width).map_or(UNBOUNDED, |class| class as u8)
}

fn width(class: u8) -> Option<i64> {
    WIDTHS.get(usize::from(class)).copied()
}

/// `time` moved by microseconds, clamped to the scale.
fn moved(time: Micros, by: i64) -> Micros {
    let moved = time.get().saturating_add(by).clamp(Micros::MIN.get(), Micros::MAX.get());
    Micros::new(moved).unwrap_or(time)
}

/// Where a page ended: what the next one needs to go on. Opaque to callers.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Token {
    order: Order,
    from: Option<Micros>,
    /// For each class, the last key that was read, less the class's prefix; empty, if none was.
    read: [Vec<u8>; CLASSES],
}

const TOKEN_VERSION: u8 = 0x01;

impl Token {
    fn encode(&self) -> Vec<u8> {
        let mut out = vec![TOKEN_VERSION, u8::from(self.order == Order::Desc), u8::from(self.from.is_some())];
        put_signed(&mut out, self.from.map_or(0, Micros::get));
        for read in &self.read {
            put_bytes(&mut out, read);
        }
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor(bytes);
        if cursor.byte()? != TOKEN_VERSION {
            return Err(Malformed("an unknown version of the page token"));
        }
        let order = if cursor.byte()? == 0 { Order::Asc } else { Order::Desc };
        let bounded = cursor.byte()? != 0;
        let from = Micros::new(cursor.signed()?).ok_or(Malformed("a time out of range"))?;
        let mut read: [Vec<u8>; CLASSES] = Default::default();
        for read in &mut read {
            *read = cursor.bytes()?.to_vec();
        }
        cursor.end()?;
        Ok(Self { order, from: bounded.then_some(from), read })
    }
}

type Rows = redb::Range<'static, &'static [u8], &'static [u8]>;

/// One class, being read in order.
struct List {
    class: u8,
    prefix_len: usize,
    rows: Rows,
    /// The next row's key and value, and its highest timestamp.
    next: Option<(Vec<u8>, Vec<u8>, Micros)>,
}

impl List {
    fn open(table: &tables::Reader, tenant: &TenantId, class: u8, token: &Token) -> Result<Self, StoreError> {
        let prefix = keys::time_index_class(tenant, class);
        let read = &token.read[usize::from(class)];
        let at = [&prefix[..], read].concat();
        let end = keys::after_prefix(&prefix);
        let from = |moved: Micros| [&prefix[..], &keys::time(moved)].concat();
        let (start, end) = match (token.order, token.from) {
            (Order::Asc, _) if !read.is_empty() => (Bound::Excluded(at), Bound::Excluded(end)),
            (Order::Desc, _) if !read.is_empty() => (Bound::Included(prefix.clone()), Bound::Excluded(at)),
            (Order::Asc, Some(time)) => (Bound::Included(from(time)), Bound::Excluded(end)),
            (Order::Desc, Some(time)) => {
                // Whatever begins at or below `from` ends at most one width above it.
                let highest = width(class).map(|width| moved(time, width));
                let end = highest.map_or(end, |highest| keys::after_prefix(&from(highest)));
                (Bound::Included(prefix.clone()), Bound::Excluded(end))
            }
            (_, None) => (Bound::Included(prefix.clone()), Bound::Excluded(end)),
        };
        let range = (start.as_ref().map(Vec::as_slice), end.as_ref().map(Vec::as_slice));
        let rows = table.range::<&[u8]>(range).map_err(fail)?;
        let mut list = Self { class, prefix_len: prefix.len(), rows, next: None };
        list.advance(token.order)?;
        Ok(list)
    }

    fn advance(&mut self, order: Order) -> Result<(), StoreError> {
        let row = match order {
            Order::Asc => self.rows.next(),
            Order::Desc => self.rows.next_back(),
        };
        self.next = match row.transpose().map_err(fail)? {
            None => None,
            Some((key, value)) => {
                let time = key.value().get(self.prefix_len..).and_then(|rest| rest.first_chunk::<8>());
                let time = time.and_then(|bytes| keys::read_time(*bytes));
                let time = time.ok_or_else(|| corrupt(tables::TIMES, key.value(), "no time in its key"))?;
                Some((key.value().to_vec(), value.value().to_vec(), time))
            }
        };
        Ok(())
    }

    /// The nearest event that the rest of the list may hold.
    fn nearest(&self, order: Order) -> Option<Micros> {
        let (_, _, time_max) = self.next.as_ref()?;
        Some(match (order, width(self.class)) {
            (Order::Desc, _) => *time_max,
            (Order::Asc, Some(width)) => moved(*time_max, -width),
            (Order::Asc, None) => Micros::MIN,
        })
    }
}

/// See [`crate::store::Store::by_time`].
pub(super) fn page(
    view: &Snapshot,
    tenant: &TenantId,
    order: Order,
    from: Option<Micros>,
    page: Option<&[u8]>,
    limit: usize,
) -> Result<TimePage, StoreError> {
    let mut token = match page {
        None => Token { order, from, read: Default::default() },
        Some(bytes) => Token::decode(bytes).ok().filter(|token| token.order == order).ok_or_else(|| {
            StoreError::Corrupt { key: "page".into(), why: "not a token of by_time".into() }
        })?,
    };
    let table = view.table(tables::TIMES)?;
    let segments = view.table(tables::SEGMENTS)?;
    let mut lists = Vec::with_capacity(CLASSES);
    for class in 0..=UNBOUNDED {
        lists.push(List::open(&table, tenant, class, &token)?);
    }
    let mut entries = Vec::new();
    // At least one, so that pages get on.
    let limit = limit.max(1);
    let bound = loop {
        let open = lists.iter_mut().filter_map(|list| Some((list.nearest(order)?, list)));
        let nearest = match order {
            Order::Asc => open.min_by_key(|(time, _)| *time),
            Order::Desc => open.max_by_key(|(time, _)| *time),
        };
        let Some((bound, list)) = nearest else { break None };
        if entries.len() >= limit {
            break Some(bound);
        }
        let Some((key, value, _)) = list.next.take() else { break None };
        list.advance(order)?;
        let place = |why: &str| corrupt(tables::TIMES, &key, why);
        token.read[usize::from(list.class)] = key[list.prefix_len..].to_vec();
        let (time_min, first) = records::decode_time(&value).map_err(|e| place(e.0))?;
        if order == Order::Desc && token.from.is_some_and(|from| time_min > from) {
            continue;
        }
        let at = keys::read_time_index(&key).ok_or_else(|| place("not a key of the time index"))?;
        let found = reads::entry(view, &segments, tenant, (at.commit_id, at.session_id), first, place)?;
        entries.extend(found);
    };
    Ok(TimePage { entries, bound, next: bound.map(|_| token.encode()) })
}
