//! Copying a value without its white space, and checking that a text has none.

use super::{JsonError, Kind, Problem, Reader};

/// The members of the object that was just copied, at its top level only: byte ranges in the output of each
/// name (between its quotes, escapes not undone) and of each value. Empty for anything but an object.
#[derive(Debug, Default, Clone)]
pub struct Members {
    spans: Vec<[u32; 4]>,
}

impl Members {
    /// Forgets the last object.
    pub fn clear(&mut self) {
        self.spans.clear();
    }

    /// Names and values, in order, out of the text they were copied to.
    pub fn iter<'t>(&self, text: &'t str) -> impl Iterator<Item = (&'t str, &'t str)> + use<'t, '_> {
        self.spans
            .iter()
            .map(|[a, b, c, d]| (&text[*a as usize..*b as usize], &text[*c as usize..*d as usize]))
    }
}

/// What is done with the white space between tokens.
trait Gaps {
    /// Bytes `from..to` of the input are white space between two tokens.
    fn gap(&mut self, reader: &Reader<'_>, from: usize) -> Result<(), JsonError>;
    /// Where byte `pos` of the input lands in the output, counted from this value's start.
    fn offset(&self, pos: usize) -> u32;
}

/// Leaves it out of a copy: whole runs at a time, since most writers send compact JSON already.
struct Copy<'o> {
    out: &'o mut String,
    /// First byte of the input that is not copied yet.
    from: usize,
    /// Length of `out` before this value.
    base: usize,
}

impl Gaps for Copy<'_> {
    fn gap(&mut self, reader: &Reader<'_>, from: usize) -> Result<(), JsonError> {
        self.out.push_str(&reader.input[self.from..from]);
        self.from = reader.pos;
        Ok(())
    }

    fn offset(&self, pos: usize) -> u32 {
        // Never saturates: a document is at most 16 MiB (BODY_UNPACKED_BYTES_MAX).
        u32::try_from(self.out.len() - self.base + pos - self.from).unwrap_or(u32::MAX)
    }
}

/// Refuses it.
struct Strict;

impl Gaps for Strict {
    fn gap(&mut self, reader: &Reader<'_>, _: usize) -> Result<(), JsonError> {
        Err(reader.syntax("no white space between tokens: the text must be compact"))
    }

    fn offset(&self, _: usize) -> u32 {
        0
    }
}

impl<'a> Reader<'a> {
    /// Reads any value and appends it to `out` byte for byte, less the white space between its tokens.
    /// `members` is filled if it is an object; its ranges count from where the value starts in `out`.
    ///
    /// # Errors
    /// Of the document.
    pub fn compact(&mut self, out: &mut String, members: &mut Members) -> Result<(), JsonError> {
        members.clear();
        self.skip_space();
        let base = out.len();
        let mut copy = Copy { from: self.pos, base, out };
        self.walk(&mut copy, Some(members))?;
        copy.out.push_str(&self.input[copy.from..self.pos]);
        Ok(())
    }

    fn walk(&mut self, gaps: &mut impl Gaps, members: Option<&mut Members>) -> Result<(), JsonError> {
        match self.kind()? {
            Kind::Object => self.walk_object(gaps, members),
            Kind::Array => self.walk_array(gaps),
            Kind::String => self.scan_string().map(drop),
            Kind::Number => self.scan_number(),
            Kind::Bool => self.scan_bool(),
            Kind::Null => self.scan_word("null"),
        }
    }

    fn pass_gap(&mut self, gaps: &mut impl Gaps) -> Result<(), JsonError> {
        let from = self.pos;
        self.skip_space();
        if self.pos > from { gaps.gap(self, from) } else { Ok(()) }
    }

    fn walk_object(
        &mut self,
        gaps: &mut impl Gaps,
        mut members: Option<&mut Members>,
    ) -> Result<(), JsonError> {
        self.deeper()?;
        self.pos += 1;
        let mut names = self.key_set();
        self.pass_gap(gaps)?;
        if self.byte() == Some(b'}') {
            self.pos += 1;
            return Ok(());
        }
        loop {
            self.pass_gap(gaps)?;
            let (from, to) = self.member_name(&mut names)?;
            let name = [gaps.offset(from), gaps.offset(to)];
            self.pass_gap(gaps)?;
            self.colon()?;
            self.pass_gap(gaps)?;
            let value = gaps.offset(self.pos);
            self.walk(gaps, None)?;
            if let Some(members) = members.as_deref_mut() {
                members.spans.push([name[0], name[1], value, gaps.offset(self.pos)]);
            }
            self.path.pop();
            self.pass_gap(gaps)?;
            match self.byte() {
                Some(b',') => self.pos += 1,
                Some(b'}') => break,
                _ => return Err(self.syntax("',' or '}'")),
            }
        }
        self.pos += 1;
        self.drop_keys(names);
        Ok(())
    }

    fn walk_array(&mut self, gaps: &mut impl Gaps) -> Result<(), JsonError> {
        self.deeper()?;
        self.pos += 1;
        self.pass_gap(gaps)?;
        if self.byte() == Some(b']') {
            self.pos += 1;
            return Ok(());
        }
        for index in 0.. {
            self.path.push(super::reader::Step::Index(index));
            self.pass_gap(gaps)?;
            self.walk(gaps, None)?;
            self.path.pop();
            self.pass_gap(gaps)?;
            match self.byte() {
                Some(b',') => self.pos += 1,
                Some(b']') => break,
                _ => return Err(self.syntax("',' or ']'")),
            }
        }
        self.pos += 1;
        Ok(())
    }
}

/// Checks that `text` is compact JSON (docs/format.md, section 1) and of the given kind, if one is given.
///
/// # Errors
/// What is wrong, and where.
pub fn check_compact(text: &str, kind: Option<Kind>) -> Result<(), JsonError> {
    let mut reader = Reader::new(text);
    reader.pass_gap(&mut Strict)?;
    let found = reader.kind()?;
    if let Some(expected) = kind
        && found != expected
    {
        return Err(reader.error(Problem::Type { expected: expected.name(), found: found.name() }));
    }
    reader.walk(&mut Strict, None)?;
    reader.pass_gap(&mut Strict)?;
    reader.end()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn compact(text: &str) -> Result<String, JsonError> {
        let (mut out, mut members) = (String::from("before"), Members::default());
        let mut reader = Reader::new(text);
        reader.compact(&mut out, &mut members)?;
        reader.end()?;
        Ok(out["before".len()..].to_owned())
    }

    /// Any JSON value with white space strewn between its tokens, and the same without.
    fn json() -> impl Strategy<Value = (String, String)> {
        let space = || "[ \\n\\t\\r]{0,2}";
        let leaf = prop_oneof![
            Just("null".to_owned()),
            Just("true".to_owned()),
            Just("-0".to_owned()),
            Just("12345678901234567890123456789".to_owned()),
            Just("1.0e+05".to_owned()),
            Just(r#""\ud83e\udea2 \u0041\/""#.to_owned()),
            any::<f64>()
                .prop_filter("JSON has no such number", |f| f.is_finite())
                .prop_map(|f| f.to_string()),
            ".{0,20}".prop_map(|s| serde_json::to_string(&s).unwrap()),
        ];
        leaf.prop_map(|s| (s.clone(), s)).prop_recursive(5, 40, 6, move |inner| {
            let items = || proptest::collection::vec((inner.clone(), space(), space()), 0..6);
            prop_oneof![
                items().prop_map(|v| {
                    let spaced: Vec<_> = v.iter().map(|((s, _), a, b)| format!("{a}{s}{b}")).collect();
                    let tight: Vec<_> = v.iter().map(|((_, t), ..)| t.clone()).collect();
                    (format!("[{}]", spaced.join(",")), format!("[{}]", tight.join(",")))
                }),
                items().prop_map(|v| {
                    let spaced: Vec<_> = v
                        .iter()
                        .enumerate()
                        .map(|(i, ((s, _), a, b))| format!("{a}\"k {i}\"{b}:{a}{s}{b}"))
                        .collect();
                    let tight: Vec<_> =
                        v.iter().enumerate().map(|(i, ((_, t), ..))| format!("\"k {i}\":{t}")).collect();
                    (format!("{{{}}}", spaced.join(",")), format!("{{{}}}", tight.join(",")))
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn p7_only_white_space_between_tokens_is_lost((spaced, tight) in json()) {
            prop_assert_eq!(compact(&format!(" {spaced}\n")).unwrap(), tight.clone());
            prop_assert_eq!(check_compact(&tight, None), Ok(()));
            prop_assert_eq!(check_compact(&spaced, None).is_ok(), spaced == tight);
        }

        #[test]
        fn what_serde_json_refuses_is_refused(text in r#"[\[\]{},:"0-9eE+\-.\\u d8ntf]{0,24}"#) {
            let ours = compact(&text);
            if serde_json::from_str::<serde_json::Value>(&text).is_err_and(|e| {
                // The one thing that serde_json refuses and we keep: a number beyond f64.
                !e.to_string().starts_with("number out of range")
            }) {
                prop_assert!(ours.is_err(), "{text:?} -> {ours:?}");
            }
            if let Ok(ours) = ours {
                prop_assert!(!ours.contains([' ', '\n']) || ours.contains('"'));
            }
        }
    }

    #[test]
    fn members_of_the_top_level_are_found() {
        let (mut out, mut members) = (String::from("x"), Members::default());
        Reader::new(r#" { "a" : [1, {"b": 2}] , "c":"d e" } "#).compact(&mut out, &mut members).unwrap();
        let found: Vec<_> = members.iter(&out[1..]).collect();
        assert_eq!(found, [("a", r#"[1,{"b":2}]"#), ("c", r#""d e""#)]);
    }

    #[test]
    fn every_refusal_names_its_place() {
        let cases = [
            (r#"{"a":{"b":1,"b":2}}"#, "a.b", "duplicate key \"b\""),
            (r#"{"a":1,"\u0061":2}"#, "\\u0061", "duplicate key \"a\""),
            (r#"{"\u0061":1,"a":2}"#, "a", "duplicate key \"a\""),
            (r#"[1,"\ud800"]"#, "1", "lone surrogate"),
            (r#"["\udc00\ud800"]"#, "0", "lone surrogate"),
            (r#"["\ud800\u0041"]"#, "0", "lone surrogate"),
            ("[\"a\nb\"]", "0", "control character"),
            ("{\"a\":01}", "a", "end of a number"),
            ("{\"a\":1,}", "", "member name"),
            ("[1,]", "1", "a value"),
            ("", "", "a value"),
            ("[1] x", "", "end of the document"),
            ("{\"a\" 1}", "a", "':'"),
            ("nul", "", "a value"),
        ];
        for (text, path, problem) in cases {
            let error = compact(text).unwrap_err();
            assert_eq!(error.path, path, "{text}: {error}");
            assert!(error.to_string().contains(problem), "{text}: {error}");
        }
    }

    #[test]
    fn many_members_are_checked_for_duplicates_too() {
        let many = |extra: &str| {
            let keys: Vec<_> = (0..1000).map(|i| format!("\"k{i}\":0")).collect();
            format!("{{{}{extra}}}", keys.join(","))
        };
        assert!(compact(&many("")).is_ok());
        for extra in [",\"k3\":1", ",\"k999\":1", ",\"\\u006b17\":1"] {
            assert!(
                matches!(compact(&many(extra)).unwrap_err().problem, Problem::DuplicateKey(_)),
                "{extra}"
            );
        }
        // The same names in sibling and nested objects are fine.
        assert!(compact(r#"{"a":{"a":{"a":1}},"b":[{"a":1},{"a":2}]}"#).is_ok());
    }

    #[test]
    fn nesting_ends_at_the_limit() {
        let nest = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(compact(&nest(crate::limits::JSON_DEPTH_MAX)).is_ok());
        let error = compact(&nest(crate::limits::JSON_DEPTH_MAX + 1)).unwrap_err();
        assert_eq!(error.problem, Problem::TooDeep);
        assert!(compact(&"[".repeat(1_000_000)).is_err());
    }
}
