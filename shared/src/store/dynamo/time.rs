//! Segments by the time of their events, from a feed that is in the order of commits.
//!
//! Two lists. In the ordinary shards no timestamp is further than [`keys::TIME_BEFORE_MS`] before and
//! [`keys::TIME_AFTER_MS`] after its commit, so that the order of commits is nearly that of time, and a place in it
//! says how near the rest can come. The strays are few (an import of old logs, a clock that is wrong): each page reads
//! them all and keeps the nearest. A page takes from whichever list may hold the nearest event.

use std::collections::BTreeMap;

use super::DynamoStore;
use super::feed::{self, From, Reader};
use crate::codec::{Cursor, Malformed, put_bytes, put_signed};
use crate::ids::{CommitId, TenantId};
use crate::store::keys::dynamo as keys;
use crate::store::{FeedEntry, Order, StoreError, TimePage};
use crate::time::Micros;

/// Where a page ended: what the next one needs to go on. Opaque to callers.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Token {
    order: Order,
    from: Option<Micros>,
    /// The last key of the ordinary shards that was taken; empty, if none was.
    taken: Vec<u8>,
    /// The last stray that was taken.
    stray: Option<(Micros, Vec<u8>)>,
}

const TOKEN_VERSION: u8 = 0x02;

impl Token {
    fn encode(&self) -> Vec<u8> {
        let mut out = vec![TOKEN_VERSION, u8::from(self.order == Order::Desc), u8::from(self.from.is_some())];
        put_signed(&mut out, self.from.map_or(0, Micros::get));
        put_bytes(&mut out, &self.taken);
        let (time, key) = self.stray.as_ref().map_or((0, &[][..]), |(time, key)| (time.get(), key));
        put_signed(&mut out, time);
        put_bytes(&mut out, key);
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let time =
            |cursor: &mut Cursor<'_>| Micros::new(cursor.signed()?).ok_or(Malformed("a time out of range"));
        let mut cursor = Cursor(bytes);
        if cursor.byte()? != TOKEN_VERSION {
            return Err(Malformed("an unknown version of the page token"));
        }
        let order = if cursor.byte()? == 0 { Order::Asc } else { Order::Desc };
        let bounded = cursor.byte()? != 0;
        let from = time(&mut cursor)?;
        let taken = cursor.bytes()?.to_vec();
        let (at, key) = (time(&mut cursor)?, cursor.bytes()?.to_vec());
        cursor.end()?;
        Ok(Self {
            order,
            from: bounded.then_some(from),
            taken,
            stray: (!key.is_empty()).then_some((at, key)),
        })
    }
}

fn committed(entry: &FeedEntry) -> Micros {
    Micros::from_unix_ms(entry.meta.commit_id.unix_ms() as i64)
}

fn key(entry: &FeedEntry) -> Vec<u8> {
    keys::feed(entry.meta.commit_id, &entry.session_id)
}

/// The event of a segment that comes first in this order.
fn nearest(entry: &FeedEntry, order: Order) -> Micros {
    match order {
        Order::Asc => entry.meta.summary.time_min,
        Order::Desc => entry.meta.summary.time_max,
    }
}

/// True if it holds an event on the side of `from` that is asked for.
fn holds(entry: &FeedEntry, order: Order, from: Option<Micros>) -> bool {
    from.is_none_or(|from| match order {
        Order::Asc => entry.meta.summary.time_max >= from,
        Order::Desc => entry.meta.summary.time_min <= from,
    })
}

/// Where the ordinary shards are taken up: no segment before it can hold what is asked for.
fn start(token: &Token) -> From {
    if !token.taken.is_empty() {
        return From::Beyond(token.taken.clone());
    }
    let commit = |time: Micros| CommitId::floor_of_ms(u64::try_from(time.unix_ms()).unwrap_or(0));
    match (token.order, token.from) {
        (_, None) => From::End,
        // A millisecond more on either side: a commit's id is cut to it.
        (Order::Asc, Some(from)) => {
            From::Beyond(commit(from.plus_ms(-keys::TIME_AFTER_MS - 1)).to_bytes().to_vec())
        }
        (Order::Desc, Some(from)) => {
            From::Beyond(commit(from.plus_ms(keys::TIME_BEFORE_MS + 2)).to_bytes().to_vec())
        }
    }
}

/// The strays that come next, nearest first: one more than a page may take.
async fn strays(
    store: &DynamoStore,
    tenant: &TenantId,
    token: &Token,
    limit: usize,
) -> Result<Vec<FeedEntry>, StoreError> {
    let mut kept: BTreeMap<(Micros, Vec<u8>), FeedEntry> = BTreeMap::new();
    let mut reader = Reader::new(store, tenant, [keys::STRAY_SHARD], Order::Asc, &From::End, usize::MAX);
    while let Some(entry) = reader.next().await? {
        let place = (nearest(&entry, token.order), key(&entry));
        let beyond = token.stray.as_ref().is_none_or(|last| match token.order {
            Order::Asc => place > *last,
            Order::Desc => place < *last,
        });
        if beyond && holds(&entry, token.order, token.from) {
            kept.insert(place, entry);
            if kept.len() > limit + 1 {
                match token.order {
                    Order::Asc => kept.pop_last(),
                    Order::Desc => kept.pop_first(),
                };
            }
        }
    }
    Ok(match token.order {
        Order::Asc => kept.into_values().collect(),
        Order::Desc => kept.into_values().rev().collect(),
    })
}

/// See [`crate::store::Store::by_time`].
pub(super) async fn page(
    store: &DynamoStore,
    tenant: &TenantId,
    order: Order,
    from: Option<Micros>,
    page: Option<&[u8]>,
    limit: usize,
) -> Result<TimePage, StoreError> {
    let mut token = match page {
        None => Token { order, from, taken: Vec::new(), stray: None },
        Some(bytes) => Token::decode(bytes).ok().filter(|token| token.order == order).ok_or_else(|| {
            StoreError::Corrupt { key: "page".into(), why: "not a token of by_time".into() }
        })?,
    };
    // At least one, so that pages get on.
    let limit = limit.max(1);
    let mut strays = strays(store, tenant, &token, limit).await?.into_iter().peekable();
    // A shard's even part of the page, and a little: what is read and not taken is read again for the next page.
    let share = limit / keys::STRAY_SHARD + 4;
    let mut ordinary = Reader::new(store, tenant, 0..keys::STRAY_SHARD, order, &start(&token), share);
    let mut entries = Vec::new();
    let bound = loop {
        // The nearest event that each list may still hold.
        let next = ordinary.peek().await?.map(|entry| match order {
            Order::Asc => committed(entry).plus_ms(-keys::TIME_BEFORE_MS),
            Order::Desc => committed(entry).plus_ms(keys::TIME_AFTER_MS),
        });
        let stray = strays.peek().map(|entry| nearest(entry, order));
        let stray_first = match (next, stray) {
            (None, None) => break None,
            (None, Some(_)) => true,
            (Some(_), None) => false,
            (Some(next), Some(stray)) => match order {
                Order::Asc => stray < next,
                Order::Desc => stray > next,
            },
        };
        if entries.len() >= limit {
            break if stray_first { stray } else { next };
        }
        if stray_first {
            if let Some(entry) = strays.next() {
                token.stray = Some((nearest(&entry, order), key(&entry)));
                entries.push(entry);
            }
        } else if let Some(entry) = ordinary.next().await? {
            token.taken = key(&entry);
            if holds(&entry, order, token.from) {
                entries.push(entry);
            }
        }
    };
    Ok(TimePage { entries, bound, next: bound.map(|_| token.encode()) })
}

/// Every entry that is still in the feed, oldest first.
pub(super) async fn walk(
    store: &DynamoStore,
    tenant: &TenantId,
    mut see: impl FnMut(&FeedEntry) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut reader = feed::Reader::whole(store, tenant, Order::Asc, &From::End);
    while let Some(entry) = reader.next().await? {
        see(&entry)?;
    }
    Ok(())
}
