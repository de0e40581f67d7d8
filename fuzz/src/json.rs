//! The JSON reader, held against serde_json.

use std::collections::BTreeSet;

use quipu_core::json::{JsonError, Kind, Members, Problem, Reader, check_compact};
use serde_json::Value;

/// A document. Ours takes what serde_json takes, apart from what docs/format.md, section 1, refuses; and what is
/// copied says the same.
pub fn json(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let ours = compact(text);
    let theirs = serde_json::from_str::<Value>(text);
    match (&ours, &theirs) {
        (Err(error), Ok(_)) => {
            let stricter = matches!(error.problem, Problem::DuplicateKey(_));
            assert!(stricter, "refused, and serde_json takes it: {error}");
        }
        (Ok(_), Err(error)) => {
            // Numbers are kept as text, so none is too large; its nesting ends one short of ours.
            let why = error.to_string();
            let laxer = why.starts_with("number out of range") || why.starts_with("recursion limit");
            assert!(laxer, "taken, and serde_json refuses it: {why}");
        }
        (Ok(copy), Ok(value)) => same_value(copy, value),
        (Err(_), Err(_)) => {}
    }
    assert_eq!(read(text, Reader::skip).is_ok(), ours.is_ok(), "skip and compact differ");
    let tight = ours.as_ref().is_ok_and(|copy| copy == text);
    assert_eq!(check_compact(text, None).is_ok(), tight, "check_compact and compact differ");
    let Ok(copy) = ours else { return false };
    assert_eq!(check_compact(&copy, None), Ok(()));
    assert_eq!(compact(&copy).as_ref(), Ok(&copy));
    true
}

fn read<'t, T>(
    text: &'t str,
    what: impl FnOnce(&mut Reader<'t>) -> Result<T, JsonError>,
) -> Result<T, JsonError> {
    let mut reader = Reader::new(text);
    let value = what(&mut reader)?;
    reader.end()?;
    Ok(value)
}

fn compact(text: &str) -> Result<String, JsonError> {
    read(text, |reader| {
        let (mut out, mut members) = (String::new(), Members::default());
        reader.compact(&mut out, &mut members)?;
        if out.starts_with('{') {
            let rebuilt: Vec<_> =
                members.iter(&out).map(|(name, value)| format!("\"{name}\":{value}")).collect();
            assert_eq!(format!("{{{}}}", rebuilt.join(",")), out, "the members do not make the object");
        }
        Ok(out)
    })
}

/// The copy parses to the same value, and so do the readers of single kinds.
fn same_value(copy: &str, value: &Value) {
    assert_eq!(serde_json::from_str::<Value>(copy).ok().as_ref(), Some(value), "{copy}");
    let kind = read(copy, |reader| {
        let kind = reader.kind()?;
        reader.skip()?;
        Ok(kind)
    });
    match (kind.expect("it was read before"), value) {
        (Kind::String, Value::String(theirs)) => {
            assert_eq!(read(copy, Reader::string).as_deref(), Ok(&theirs[..]));
        }
        (Kind::Number, Value::Number(theirs)) => {
            assert_eq!(read(copy, Reader::unsigned).ok(), theirs.as_u64(), "{copy}");
        }
        (Kind::Object, Value::Object(theirs)) => {
            let mut names = BTreeSet::new();
            let read = read(copy, |reader| {
                reader.object(|reader, name| {
                    names.insert(name.to_owned());
                    reader.skip()
                })
            });
            assert_eq!(read, Ok(()));
            assert!(names.iter().eq(theirs.keys()), "{copy}");
        }
        (Kind::Array, Value::Array(_)) | (Kind::Bool, Value::Bool(_)) | (Kind::Null, Value::Null) => {}
        (ours, _) => panic!("{ours:?} is something else to serde_json: {copy}"),
    }
}
