//! Places in the order of a list, and the opaque text that carries one to a client and back.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::codec::Cursor;
use crate::ids::{CommitId, EVENT_NUMBER_BITS, EventId};
use crate::segment::SegmentMeta;
use crate::store::Order;
use crate::time::Micros;

use super::{EventFilter, ReadError};

const VERSION: u8 = 0x01;

/// A place in the stable order of a tenant's events: by timestamp, then by id. An event's own place, or one between
/// events (then no event has its id).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EventPosition {
    /// The event's timestamp.
    pub timestamp: Micros,
    /// The event's id.
    pub event_id: EventId,
}

impl EventPosition {
    /// Opaque text for a URL. It goes with this order and this filter only.
    pub fn encode(&self, order: Order, filter: &EventFilter) -> String {
        let mut bytes = Vec::with_capacity(34);
        bytes.extend_from_slice(&[VERSION, order as u8]);
        bytes.extend_from_slice(&self.timestamp.get().to_be_bytes());
        bytes.extend_from_slice(&self.event_id.as_u128().to_be_bytes());
        bytes.extend_from_slice(&filter.digest());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads the text back.
    ///
    /// # Errors
    /// [`ReadError::Cursor`] if it is none of ours, or was given for another order or filter.
    pub fn decode(text: &str, order: Order, filter: &EventFilter) -> Result<Self, ReadError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| ReadError::Cursor)?;
        let mut cursor = Cursor(&bytes);
        let mut read = || {
            let head: [u8; 2] = cursor.array().ok()?;
            let timestamp = Micros::new(i64::from_be_bytes(cursor.array().ok()?))?;
            let event_id = EventId::from_u128(u128::from_be_bytes(cursor.array().ok()?))?;
            let digest: [u8; 8] = cursor.array().ok()?;
            cursor.end().ok()?;
            let ours = head == [VERSION, order as u8] && digest == filter.digest();
            ours.then_some(Self { timestamp, event_id })
        };
        read().ok_or(ReadError::Cursor)
    }
}

/// A position as a number that rises along a list, in either order: bitwise not turns both parts around.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank(i64, u128);

/// Below and above every id: the least and the greatest UUID v7. Both have numbers that no event has.
const ID_MIN: u128 = 0x0000_0000_0000_7000_8000_0000_0000_0000;
const ID_MAX: u128 = 0xffff_ffff_ffff_7fff_bfff_ffff_ffff_ffff;

impl Rank {
    /// Before everything.
    pub(super) const FIRST: Self = Self(i64::MIN, 0);

    const fn new(timestamp: Micros, id: u128, order: Order) -> Self {
        match order {
            Order::Asc => Self(timestamp.get(), id),
            Order::Desc => Self(!timestamp.get(), !id),
        }
    }

    /// Of an event, or of a cursor.
    pub(super) const fn of(position: EventPosition, order: Order) -> Self {
        Self::new(position.timestamp, position.event_id.as_u128(), order)
    }

    /// Before every event of this time.
    pub(super) const fn before(timestamp: Micros, order: Order) -> Self {
        match order {
            Order::Asc => Self::new(timestamp, ID_MIN, order),
            Order::Desc => Self::new(timestamp, ID_MAX, order),
        }
    }

    /// Just before and just after the events of a segment. The ids of a commit are known without its body, so many
    /// segments of one time are still told apart.
    pub(super) fn ends(meta: &SegmentMeta, order: Order) -> (Self, Self) {
        let (commit, summary) = (meta.commit_id, &meta.summary);
        Self::ends_of((summary.time_min, summary.time_max), (commit, commit), order)
    }

    /// The same of events between two times and two commits.
    pub(super) fn ends_of(
        times: (Micros, Micros),
        commits: (CommitId, CommitId),
        order: Order,
    ) -> (Self, Self) {
        let oldest = Self::new(times.0, commit_ids(commits.0).0, order);
        let newest = Self::new(times.1, commit_ids(commits.1).1, order);
        match order {
            Order::Asc => (oldest, newest),
            Order::Desc => (newest, oldest),
        }
    }

    /// The position. `None` for [`Rank::FIRST`] alone.
    pub(super) fn position(self, order: Order) -> Option<EventPosition> {
        let (timestamp, id) = match order {
            Order::Asc => (self.0, self.1),
            Order::Desc => (!self.0, !self.1),
        };
        Some(EventPosition { timestamp: Micros::new(timestamp)?, event_id: EventId::from_u128(id)? })
    }
}

/// The numbers 0 and 1023 under a commit's id: no event has either.
fn commit_ids(commit: CommitId) -> (u128, u128) {
    let low = u128::from_be_bytes(commit.to_bytes());
    (low, low | ((1 << EVENT_NUMBER_BITS) - 1))
}

const _: () =
    assert!(crate::limits::BATCH_EVENTS_MAX < (1 << EVENT_NUMBER_BITS) - 1, "number 1023 must stay free");

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn position(micros: i64, ms: u64, random: [u8; 10], number: u16) -> EventPosition {
        let event_id = CommitId::mint(ms, random).event(number);
        EventPosition { timestamp: Micros::new(micros).unwrap(), event_id }
    }

    proptest! {
        #[test]
        fn a_cursor_comes_back_for_its_own_query_alone(
            micros in -10i64..10, ms in 0u64..1 << 48, random: [u8; 10], number in 1u16..=1000, cut in 0usize..46,
        ) {
            let filter = EventFilter::default();
            let other = EventFilter { event_types: vec!["a".to_owned()], ..EventFilter::default() };
            let at = position(micros, ms, random, number);
            for order in [Order::Asc, Order::Desc] {
                let text = at.encode(order, &filter);
                prop_assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
                prop_assert_eq!(EventPosition::decode(&text, order, &filter).unwrap(), at);
                prop_assert!(matches!(EventPosition::decode(&text, order, &other), Err(ReadError::Cursor)));
                let turned = if order == Order::Asc { Order::Desc } else { Order::Asc };
                prop_assert!(matches!(EventPosition::decode(&text, turned, &filter), Err(ReadError::Cursor)));
                prop_assert!(EventPosition::decode(&text[..cut], order, &filter).is_err());
                prop_assert!(EventPosition::decode(&(text + "AA"), order, &filter).is_err());
            }
        }

        #[test]
        fn ranks_rise_along_either_order(a in (-3i64..3, 0u64..3, 1u16..3), b in (-3i64..3, 0u64..3, 1u16..3)) {
            let [a, b] = [a, b].map(|(micros, ms, number)| position(micros, ms, [0; 10], number));
            let rank = Rank::of;
            prop_assert_eq!(rank(a, Order::Asc).cmp(&rank(b, Order::Asc)), a.cmp(&b));
            prop_assert_eq!(rank(a, Order::Desc).cmp(&rank(b, Order::Desc)), b.cmp(&a));
            for order in [Order::Asc, Order::Desc] {
                prop_assert_eq!(rank(a, order).position(order), Some(a));
                prop_assert!(Rank::before(a.timestamp, order) < rank(a, order));
                prop_assert!(Rank::before(a.timestamp, order).position(order).is_some());
            }
        }
    }

    #[test]
    fn no_text_is_a_cursor_by_chance() {
        for text in ["", "x", "====", "AQ", "é", &"A".repeat(46), &"A".repeat(10_000)] {
            assert!(EventPosition::decode(text, Order::Asc, &EventFilter::default()).is_err(), "{text}");
        }
    }
}
