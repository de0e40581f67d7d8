//! Times: microseconds since 1970, RFC 3339 at the edge.
//!
//! Hand-written because these bytes are hashed: a library's idea of RFC 3339 may grow, ours may not. Checked
//! against one in the tests. Leap seconds have no place on this scale and are refused.

use std::fmt;

/// Microseconds since 1970-01-01T00:00:00Z, year 1 to 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Micros(i64);

/// Why a text is no time. Displayed after the name of the field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// Not RFC 3339.
    #[error("must be an RFC 3339 time with an offset, such as 2026-02-08T10:00:00.000000Z")]
    Syntax,
    /// Finer than a microsecond.
    #[error("is finer than a microsecond: at most 6 digits of a second are kept")]
    TooFine,
    /// A day, hour, minute, second or offset that does not exist (leap seconds among them).
    #[error("names a moment that does not exist on this scale (leap seconds are not kept)")]
    NoSuchMoment,
    /// Before year 1 or after year 9999, in UTC.
    #[error("is outside the years 0001 to 9999 (UTC)")]
    OutOfRange,
}

const MICROS_PER_SECOND: i64 = 1_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

impl Micros {
    /// 0001-01-01T00:00:00Z.
    pub const MIN: Self = Self(-62_135_596_800 * MICROS_PER_SECOND);
    /// 9999-12-31T23:59:59.999999Z.
    pub const MAX: Self = Self(253_402_300_800 * MICROS_PER_SECOND - 1);

    /// A time, if it is in range.
    pub const fn new(micros: i64) -> Option<Self> {
        if micros >= Self::MIN.0 && micros <= Self::MAX.0 { Some(Self(micros)) } else { None }
    }

    /// The number of microseconds.
    pub const fn get(self) -> i64 {
        self.0
    }

    /// Milliseconds since 1970, rounded down.
    pub const fn unix_ms(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// From milliseconds since 1970, clamped to the range.
    pub fn from_unix_ms(ms: i64) -> Self {
        Self(ms.saturating_mul(1000)).clamp(Self::MIN, Self::MAX)
    }

    /// `self` moved by milliseconds, clamped to the range.
    pub fn plus_ms(self, ms: i64) -> Self {
        Self(self.0.saturating_add(ms.saturating_mul(1000))).clamp(Self::MIN, Self::MAX)
    }

    /// Reads RFC 3339 with any offset, at most 6 digits of a second.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, TimeError> {
        let b = text.as_bytes();
        let number = |from: usize, count: usize| -> Result<i64, TimeError> {
            let digits = b.get(from..from + count).ok_or(TimeError::Syntax)?;
            digits.iter().try_fold(0i64, |sum, d| {
                d.is_ascii_digit().then(|| sum * 10 + i64::from(d - b'0')).ok_or(TimeError::Syntax)
            })
        };
        let expect = |at: usize, allowed: &[u8]| match b.get(at) {
            Some(byte) if allowed.contains(byte) => Ok(()),
            _ => Err(TimeError::Syntax),
        };
        let (year, month, day) = (number(0, 4)?, number(5, 2)?, number(8, 2)?);
        let (hour, minute, second) = (number(11, 2)?, number(14, 2)?, number(17, 2)?);
        // RFC 3339 section 5.6: T and Z may be lower case, and a space may stand for the T.
        for (at, allowed) in [(4, &b"-"[..]), (7, b"-"), (10, b"Tt "), (13, b":"), (16, b":")] {
            expect(at, allowed)?;
        }
        let mut at = 19;
        let mut fraction = 0;
        if b.get(at) == Some(&b'.') {
            let digits = b[at + 1..].iter().take_while(|d| d.is_ascii_digit()).count();
            if digits == 0 {
                return Err(TimeError::Syntax);
            }
            let kept = digits.min(6);
            // Zeros past the sixth digit say nothing finer, and nanosecond clocks write them.
            if b[at + 1 + kept..at + 1 + digits].iter().any(|d| *d != b'0') {
                return Err(TimeError::TooFine);
            }
            fraction = number(at + 1, kept)? * 10i64.pow(6 - kept as u32);
            at += 1 + digits;
        }
        let offset = match b.get(at) {
            Some(b'Z' | b'z') if b.len() == at + 1 => 0,
            Some(sign @ (b'+' | b'-')) if b.len() == at + 6 => {
                expect(at + 3, b":")?;
                let (hours, minutes) = (number(at + 1, 2)?, number(at + 4, 2)?);
                if hours > 23 || minutes > 59 {
                    return Err(TimeError::NoSuchMoment);
                }
                (hours * 3600 + minutes * 60) * if *sign == b'-' { -1 } else { 1 }
            }
            _ => return Err(TimeError::Syntax),
        };
        if !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
            return Err(TimeError::NoSuchMoment);
        }
        if hour > 23 || minute > 59 || second > 59 {
            return Err(TimeError::NoSuchMoment);
        }
        let days = days_from_civil(year, month, day);
        let seconds = days * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second - offset;
        Self::new(seconds * MICROS_PER_SECOND + fraction).ok_or(TimeError::OutOfRange)
    }

    /// Writes RFC 3339 in UTC with `digits` (3 or 6) digits of a second into a stack buffer.
    fn write(self, digits: usize, out: &mut [u8; 27]) -> &str {
        let (days, micros) = (
            self.0.div_euclid(SECONDS_PER_DAY * MICROS_PER_SECOND),
            self.0.rem_euclid(SECONDS_PER_DAY * MICROS_PER_SECOND),
        );
        let (year, month, day) = civil_from_days(days);
        let seconds = micros / MICROS_PER_SECOND;
        let mut put = |at: usize, count: usize, mut value: i64| {
            for slot in out[at..at + count].iter_mut().rev() {
                *slot = b'0' + (value % 10) as u8;
                value /= 10;
            }
        };
        put(0, 4, year);
        put(5, 2, month);
        put(8, 2, day);
        put(11, 2, seconds / 3600);
        put(14, 2, seconds / 60 % 60);
        put(17, 2, seconds % 60);
        put(20, digits, micros % MICROS_PER_SECOND / 10i64.pow(6 - digits as u32));
        for (at, byte) in [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'.')] {
            out[at] = byte;
        }
        out[20 + digits] = b'Z';
        std::str::from_utf8(&out[..21 + digits]).unwrap_or_default()
    }

    /// RFC 3339 in UTC with exactly six digits of a second, into a buffer.
    pub fn encode(self, buffer: &mut [u8; 27]) -> &str {
        self.write(6, buffer)
    }

    /// RFC 3339 in UTC with milliseconds where that loses nothing, else with microseconds: the form that
    /// JavaScript's `toISOString` gives.
    pub fn to_iso(self) -> String {
        let digits = if self.0 % 1000 == 0 { 3 } else { 6 };
        self.write(digits, &mut [0; 27]).to_owned()
    }
}

impl fmt::Display for Micros {
    /// RFC 3339 in UTC with exactly six digits of a second.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.encode(&mut [0; 27]))
    }
}

impl serde::Serialize for Micros {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.encode(&mut [0; 27]))
    }
}

impl<'de> serde::Deserialize<'de> for Micros {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'_, str> as serde::Deserialize>::deserialize(d)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days since 1970 of a day of the proleptic Gregorian calendar (Howard Hinnant, "chrono-Compatible
/// Low-Level Date Algorithms", days_from_civil).
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The inverse (same source, civil_from_days).
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn text_and_number_agree_with_jiff(micros in Micros::MIN.0 / 2..=Micros::MAX.0 / 2) {
            let time = Micros(micros);
            let theirs = jiff::Timestamp::from_microsecond(micros).unwrap();
            prop_assert_eq!(time.to_string(), format!("{theirs:.6}"));
            prop_assert_eq!(Micros::parse(&time.to_string()), Ok(time));
        }

        #[test]
        fn any_offset_is_read(micros in Micros::MIN.0 / 2..=Micros::MAX.0 / 2, minutes in -1439i64..=1439) {
            let local = Micros(micros).plus_ms(minutes * 60_000).to_string();
            let (sign, away) = if minutes < 0 { ('-', -minutes) } else { ('+', minutes) };
            let text = format!("{}{sign}{:02}:{:02}", &local[..26], away / 60, away % 60);
            prop_assert_eq!(Micros::parse(&text), Ok(Micros(micros)));
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = Micros::parse(&text);
        }
    }

    #[test]
    fn ends_of_the_scale() {
        assert_eq!(Micros::parse("0001-01-01T00:00:00Z"), Ok(Micros::MIN));
        assert_eq!(Micros::parse("9999-12-31T23:59:59.999999Z"), Ok(Micros::MAX));
        assert_eq!(Micros::MIN.to_string(), "0001-01-01T00:00:00.000000Z");
        assert_eq!(Micros::parse("0001-01-01T00:00:00+00:01"), Err(TimeError::OutOfRange));
        assert_eq!(Micros::parse("0000-06-01T00:00:00Z"), Err(TimeError::OutOfRange));
    }

    #[test]
    fn what_is_no_time_is_named() {
        assert_eq!(Micros::parse("2026-02-08T10:00:00.1234567Z"), Err(TimeError::TooFine));
        assert!(Micros::parse("2026-02-08T10:00:00.123456000Z").is_ok());
        assert_eq!(Micros::parse("2026-02-30T10:00:00Z"), Err(TimeError::NoSuchMoment));
        assert_eq!(Micros::parse("2016-12-31T23:59:60Z"), Err(TimeError::NoSuchMoment));
        for bad in ["", "2026", "2026-02-08", "2026-02-08T10:00:00", "2026-02-08T10:00:00.Z", "1e9", "x"] {
            assert_eq!(Micros::parse(bad), Err(TimeError::Syntax), "{bad}");
        }
        assert_eq!(
            Micros::parse("2026-02-08T10:00:00+00:00").map(|t| t.to_iso()).as_deref(),
            Ok("2026-02-08T10:00:00.000Z")
        );
    }
}
