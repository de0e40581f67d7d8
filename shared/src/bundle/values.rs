//! Values of members, each in its one spelling.

use std::borrow::Cow;

use crate::ids::{self, EventId, Seq};
use crate::json::{JsonError, Kind, Reader};
use crate::time::Micros;

pub(crate) fn text<'a, T, E: std::fmt::Display>(
    r: &mut Reader<'a>,
    parse: impl FnOnce(Cow<'a, str>) -> Result<T, E>,
) -> Result<T, JsonError> {
    let text = r.string()?;
    parse(text).map_err(|e| r.refuse(e))
}

pub(crate) fn sequence(r: &mut Reader<'_>) -> Result<Seq, JsonError> {
    Seq::new(r.unsigned()?).ok_or_else(|| r.refuse("expected at most 9223372036854775807"))
}

/// A time in its one spelling.
pub(crate) fn time(r: &mut Reader<'_>) -> Result<Micros, JsonError> {
    const EXPECTED: &str = "expected a time like 2026-02-08T10:00:00.000000Z";
    let text = r.string()?;
    let time = Micros::parse(&text).map_err(|_| r.refuse(EXPECTED))?;
    if time.encode(&mut [0; 27]) == text { Ok(time) } else { Err(r.refuse(EXPECTED)) }
}

/// A UUID v7 in its one spelling.
pub(crate) fn event_id(r: &mut Reader<'_>) -> Result<EventId, JsonError> {
    const EXPECTED: &str = "expected a UUID of version 7, hyphenated, lower case";
    let text = r.string()?;
    let id = EventId::parse(&text).map_err(|_| r.refuse(EXPECTED))?;
    if id.encode(&mut [0; 36]) == text { Ok(id) } else { Err(r.refuse(EXPECTED)) }
}

pub(crate) fn hex<const N: usize>(r: &mut Reader<'_>) -> Result<[u8; N], JsonError> {
    let text = r.string()?;
    ids::decode_hex(&text).ok_or_else(|| r.refuse(format_args!("expected {} lower-case hex digits", N * 2)))
}

pub(crate) fn optional<'a>(r: &mut Reader<'a>) -> Result<Option<Cow<'a, str>>, JsonError> {
    if r.kind()? == Kind::Null { r.skip().map(|()| None) } else { r.string().map(Some) }
}

pub(crate) fn optional_hex<const N: usize>(r: &mut Reader<'_>) -> Result<Option<[u8; N]>, JsonError> {
    if r.kind()? == Kind::Null { r.skip().map(|()| None) } else { hex(r).map(Some) }
}
