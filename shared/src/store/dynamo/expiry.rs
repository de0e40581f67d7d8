//! When a segment counts as absent. The table deletes an item some time after its `ttl`, hours or days: until then
//! it is there and must not be seen, and from a minute before on it is not seen either.

use super::item::{Item, find_number};
use crate::limits;
use crate::store::StoreError;
use crate::time::Micros;

/// The `ttl` of what expires at a time: whole seconds, cut, so that no fraction is left in which it is seen longer.
pub(super) fn seconds(expires_at: Micros) -> i64 {
    expires_at.unix_ms().div_euclid(1000)
}

/// True unless it expires within [`limits::EXPIRY_MARGIN_MS`], or has.
pub(super) fn is_alive(item: &Item, now: Micros) -> Result<bool, StoreError> {
    let ttl = find_number(item, "ttl")?;
    Ok(ttl.is_none_or(|at| at.saturating_mul(1000).saturating_sub(limits::EXPIRY_MARGIN_MS) > now.unix_ms()))
}

#[cfg(test)]
mod tests {
    use super::super::item::{number, text};
    use super::*;

    fn at(ms: i64) -> Micros {
        Micros::from_unix_ms(ms)
    }

    #[test]
    fn it_counts_as_absent_a_minute_before_its_time() {
        let item = |ttl: i64| Item::from([("ttl".into(), number(ttl))]);
        for (ttl, now_ms, alive) in [
            (1_000, 939_999, true),
            (1_000, 940_000, false),
            (1_000, 1_000_000, false),
            (1_000, 9_000_000, false),
            (-1, 0, false),
            (i64::MAX, 0, true),
            (i64::MIN, 0, false),
        ] {
            assert_eq!(is_alive(&item(ttl), at(now_ms)).unwrap(), alive, "{ttl} at {now_ms}");
        }
        assert!(is_alive(&Item::new(), at(i64::MAX / 1000)).unwrap(), "what has no ttl never expires");
        let odd = Item::from([("ttl".into(), text("soon"))]);
        assert!(matches!(is_alive(&odd, at(0)), Err(StoreError::Corrupt { .. })));
    }

    #[test]
    fn its_second_is_the_one_that_has_begun() {
        assert_eq!(seconds(at(1_999)), 1);
        assert_eq!(seconds(at(2_000)), 2);
        assert_eq!(seconds(at(-1)), -1);
    }
}
