//! What is tried on arbitrary bytes, one function for each parser that reads what others wrote.
//!
//! Each gives true if the parser took the input, so that a caller can tell whether its inputs reach past the first
//! check. A wrong answer of the parser is a panic. The libFuzzer targets call them with what libFuzzer thinks of;
//! `xtask/src/fuzz/tests.rs` includes this file, which therefore knows nothing of libFuzzer, and calls them with a
//! fixed sequence of mutations.
//!
//! An input may begin with a byte that says how the rest is meant: its distance from the digit 0, modulo the number of
//! meanings, so that any byte means something.

mod bundle;
mod json;
mod log;
mod note;
mod request;
mod segment;

pub use bundle::bundle;
pub use json::json;
pub use log::log;
pub use note::note;
pub use request::request;
pub use segment::segment;

use quipu_core::time::Micros;

/// Splits the byte that says how the rest is meant.
fn meaning(data: &[u8], count: u8) -> Option<(u8, &[u8])> {
    data.split_first().map(|(first, rest)| (first.wrapping_sub(b'0') % count, rest))
}

/// A time in RFC 3339: what is read is written in one way, and read again as the same.
pub fn time(data: &[u8]) -> bool {
    let Some(time) = std::str::from_utf8(data).ok().and_then(|text| Micros::parse(text).ok()) else {
        return false;
    };
    let shown = time.to_string();
    assert_eq!(Micros::parse(&shown), Ok(time), "{shown}");
    assert_eq!(Micros::parse(&time.to_iso()), Ok(time), "{shown}");
    assert_eq!(time.encode(&mut [0; 27]), shown);
    assert_eq!(Micros::new(time.get()), Some(time), "out of range: {shown}");
    true
}
