//! Times on the command line.

use anyhow::{Context as _, bail};
use quipu_core::clock::{Clock as _, SystemClock};
use quipu_core::time::Micros;

/// Now, by the system's clock.
pub(crate) fn now() -> Micros {
    SystemClock.now()
}

/// When something ends: `30d`, `12h`, `45m`, `90s`, `2w` from now on, or an RFC 3339 time.
pub(crate) fn expiry(text: &str, now: Micros) -> anyhow::Result<Micros> {
    let Some((amount, unit)) = text.char_indices().next_back().map(|(at, unit)| (&text[..at], unit)) else {
        bail!("an expiry cannot be empty");
    };
    if amount.is_empty() || !amount.bytes().all(|b| b.is_ascii_digit()) {
        return Micros::parse(text)
            .with_context(|| format!("{text:?} is neither a duration such as 30d nor an RFC 3339 time"));
    }
    let unit_ms: i64 = match unit {
        's' => 1000,
        'm' => 60 * 1000,
        'h' => 60 * 60 * 1000,
        'd' => 24 * 60 * 60 * 1000,
        'w' => 7 * 24 * 60 * 60 * 1000,
        _ => bail!("{text:?}: the unit must be s, m, h, d or w"),
    };
    let amount: i64 = amount.parse().with_context(|| format!("{text:?} is too long"))?;
    let ms = amount.checked_mul(unit_ms).with_context(|| format!("{text:?} is too long"))?;
    if ms == 0 {
        bail!("{text:?} would expire at once");
    }
    Ok(now.plus_ms(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_times() {
        let now = Micros::parse("2026-02-08T10:00:00Z").unwrap();
        let show = |text: &str| expiry(text, now).map(|t| t.to_string()).map_err(|e| e.to_string());
        assert_eq!(show("30d").unwrap(), "2026-03-10T10:00:00.000000Z");
        assert_eq!(show("90s").unwrap(), "2026-02-08T10:01:30.000000Z");
        assert_eq!(show("2w").unwrap(), "2026-02-22T10:00:00.000000Z");
        assert_eq!(show("2027-01-01T00:00:00+01:00").unwrap(), "2026-12-31T23:00:00.000000Z");
        for bad in ["", "d", "30", "30y", "0d", "99999999999999999999d", "9223372036854775807w", "é", "-1d"]
        {
            assert!(show(bad).is_err(), "{bad}");
        }
    }
}
