//! JSON by hand: members keep their order, numbers their spelling, and each session its way of escaping.

use std::fmt::{self, Write as _};

use super::SECOND_US;
use super::sessions::ClockStyle;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Escapes {
    /// What JSON requires and no more (JavaScript, Rust, Go).
    Minimal,
    /// Everything beyond ASCII as `\u00e9`, pairs of surrogates included (Python's default).
    Ascii,
    /// The same in capitals, and `/` as `\/` (PHP, old Java).
    AsciiAndSlash,
}

pub(super) const ESCAPE_STYLES: [Escapes; 5] =
    [Escapes::Minimal, Escapes::Minimal, Escapes::Minimal, Escapes::Ascii, Escapes::AsciiAndSlash];

/// By [`Escapes`] and byte of UTF-8: whether it may stand in a string as it is.
const PLAIN_BYTES: [[bool; 256]; 3] =
    [plain_bytes(Escapes::Minimal), plain_bytes(Escapes::Ascii), plain_bytes(Escapes::AsciiAndSlash)];

const fn plain_bytes(escapes: Escapes) -> [bool; 256] {
    let mut plain = [false; 256];
    let mut byte = 0x20;
    while byte < 256 {
        plain[byte] = match byte as u8 {
            b'"' | b'\\' => false,
            b'/' => !matches!(escapes, Escapes::AsciiAndSlash),
            0x80.. => matches!(escapes, Escapes::Minimal),
            _ => true,
        };
        byte += 1;
    }
    plain
}

pub(super) struct Json {
    pub(super) out: String,
    pub(super) escapes: Escapes,
}

impl Json {
    pub(super) fn new(mut out: String, escapes: Escapes) -> Self {
        out.clear();
        Json { out, escapes }
    }

    /// A value's last byte is never an opening bracket, so the last byte tells whether a comma is due.
    pub(super) fn comma(&mut self) {
        if !matches!(self.out.as_bytes().last(), Some(b'{' | b'[') | None) {
            self.out.push(',');
        }
    }

    pub(super) fn open(&mut self, bracket: char) {
        self.out.push(bracket);
    }

    pub(super) fn close(&mut self, bracket: char) {
        self.out.push(bracket);
    }

    /// Keys are ours, without anything to escape. An empty key stands for an element of an array.
    pub(super) fn key(&mut self, key: &str) {
        self.comma();
        if !key.is_empty() {
            self.out.push('"');
            self.out.push_str(key);
            self.out.push_str("\":");
        }
    }

    pub(super) fn member(&mut self, key: &str, bracket: char) {
        self.key(key);
        self.open(bracket);
    }

    /// A member whose value is JSON as it stands.
    pub(super) fn raw(&mut self, key: &str, value: impl fmt::Display) {
        self.key(key);
        put(&mut self.out, value);
    }

    pub(super) fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        self.string(value);
    }

    pub(super) fn item(&mut self, value: &str) {
        self.comma();
        self.string(value);
    }

    pub(super) fn string(&mut self, value: &str) {
        self.out.push('"');
        self.escape(value);
        self.out.push('"');
    }

    pub(super) fn nest(&mut self, depth: usize) {
        (0..depth).for_each(|_| self.out.push_str("{\"next\":["));
    }

    pub(super) fn unnest(&mut self, depth: usize) {
        (0..depth).for_each(|_| self.out.push_str("]}"));
    }

    pub(super) fn escape(&mut self, value: &str) {
        let mut rest = value;
        while let Some(at) = self.first_escaped(rest.as_bytes()) {
            self.out.push_str(&rest[..at]);
            let mut chars = rest[at..].chars();
            if let Some(c) = chars.next() {
                self.escape_char(c);
            }
            rest = chars.as_str();
        }
        self.out.push_str(rest);
    }

    fn first_escaped(&self, text: &[u8]) -> Option<usize> {
        // Whole blocks of letters and spaces first, which the compiler compares all at once.
        let is_letters = |block: &[u8; 16]| {
            block.iter().fold(true, |all, byte| {
                all & (*byte >= b' ') & (*byte < 0x80) & !matches!(byte, b'"' | b'\\' | b'/')
            })
        };
        let from = text.as_chunks().0.iter().take_while(|block| is_letters(block)).count() * 16;
        let is_plain = &PLAIN_BYTES[self.escapes as usize];
        text[from..].iter().position(|byte| !is_plain[usize::from(*byte)]).map(|at| from + at)
    }

    fn escape_char(&mut self, c: char) {
        match c {
            '"' | '\\' | '/' => {
                self.out.push('\\');
                self.out.push(c);
            }
            '\n' => self.out.push_str("\\n"),
            '\r' => self.out.push_str("\\r"),
            '\t' => self.out.push_str("\\t"),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    match self.escapes {
                        Escapes::AsciiAndSlash => put(&mut self.out, format_args!("\\u{unit:04X}")),
                        _ => put(&mut self.out, format_args!("\\u{unit:04x}")),
                    }
                }
            }
        }
    }
}

pub(super) fn put(out: &mut String, value: impl fmt::Display) {
    // Writing to a String cannot fail.
    let _ = write!(out, "{value}");
}

/// A number in decimals. By hand, like [`put_hex`]: a bench line holds a dozen of them, and formatting them
/// was a seventh of the work.
pub(super) fn put_decimal(out: &mut String, number: u64) {
    let mut digits = [0; 20]; // u64::MAX has 20 digits
    let (mut rest, mut from) = (number, digits.len());
    loop {
        from -= 1;
        digits[from] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend(digits[from..].iter().map(|&digit| char::from(digit)));
}

/// The last `len` of a number's 16 hexadecimal digits.
pub(super) fn put_hex(out: &mut String, number: u64, len: u32) {
    let digits =
        (0..len).rev().map(|place| char::from(b"0123456789abcdef"[(number >> (place * 4) & 15) as usize]));
    out.extend(digits);
}

/// A quotient by 10^9 in the shortest decimals, or with an exponent when it is tiny, as languages print it.
pub(super) struct Nanos(pub(super) u64);

impl fmt::Display for Nanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Nanos(nanos) = *self;
        if (1..1_000).contains(&nanos) {
            let power = nanos.ilog10();
            let unit = 10_u64.pow(power);
            return match nanos % unit {
                0 => write!(f, "{}e-{}", nanos / unit, 9 - power),
                tail => write!(f, "{}.{tail:0width$}e-{}", nanos / unit, 9 - power, width = power as usize),
            };
        }
        let fraction = format!("{:09}", nanos % 1_000_000_000);
        match fraction.trim_end_matches('0') {
            "" => write!(f, "{}", nanos / 1_000_000_000),
            digits => write!(f, "{}.{digits}", nanos / 1_000_000_000),
        }
    }
}

/// RFC 3339, with quotes.
pub(super) fn write_time(out: &mut String, at_us: i64, style: ClockStyle) {
    let local_us = at_us + style.offset_minutes * 60 * SECOND_US;
    let (seconds, micros) = (local_us.div_euclid(SECOND_US), local_us.rem_euclid(SECOND_US));
    let (year, month, day) = civil_date(seconds.div_euclid(86_400));
    let second = seconds.rem_euclid(86_400);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    put(out, format_args!("\"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"));
    match style.fraction_digits {
        0 => {}
        3 => put(out, format_args!(".{:03}", micros / 1_000)),
        _ => put(out, format_args!(".{micros:06}")),
    }
    put(out, format_args!("{}\"", style.offset));
}

/// Year, month and day of a day counted from 1970-01-01 (H. Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms", `civil_from_days`).
fn civil_date(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}
