//! The pull reader.

use std::borrow::Cow;
use std::collections::HashSet;

use super::{JsonError, Problem};
use crate::limits::JSON_DEPTH_MAX;

/// What kind of value stands next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `{`
    Object,
    /// `[`
    Array,
    /// `"`
    String,
    /// A number.
    Number,
    /// `true` or `false`
    Bool,
    /// `null`
    Null,
}

impl Kind {
    /// The word for it in an error.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Object => "an object",
            Self::Array => "an array",
            Self::String => "a string",
            Self::Number => "a number",
            Self::Bool => "a boolean",
            Self::Null => "null",
        }
    }
}

/// One step of the path to the value being read.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    /// Byte range of a member name in the input, between its quotes.
    Member(usize, usize),
    Index(usize),
}

/// A strict reader over one document (or one line of many).
#[derive(Debug)]
pub struct Reader<'a> {
    pub(super) input: &'a str,
    pub(super) pos: usize,
    pub(super) path: Vec<Step>,
    /// Member names seen in the objects that are open, innermost last; see [`Reader::note_key`].
    pub(super) keys: Vec<(usize, usize)>,
}

/// Up to this many members, a linear search for duplicates is the fastest.
const KEYS_LINEAR_MAX: usize = 32;

/// How an object's member names are checked for duplicates.
#[derive(Debug)]
pub(super) struct KeySet<'a> {
    first: usize,
    many: Option<HashSet<Cow<'a, str>>>,
}

impl<'a> Reader<'a> {
    /// Starts at the beginning of `input`.
    pub fn new(input: &'a str) -> Self {
        Self { input, pos: 0, path: Vec::with_capacity(8), keys: Vec::with_capacity(32) }
    }

    /// An error at the current place.
    pub fn error(&self, problem: Problem) -> JsonError {
        JsonError { path: self.path_text(), at: self.pos, problem }
    }

    /// Begins the path with the index of a document among many; see [`Reader::leave`].
    pub fn enter_index(&mut self, index: usize) {
        self.path.push(Step::Index(index));
    }

    /// Takes back [`Reader::enter_index`].
    pub fn leave(&mut self) {
        self.path.pop();
    }

    /// Byte offset of the next byte.
    pub fn position(&self) -> usize {
        self.pos
    }

    /// An error of the caller's, at the current place.
    pub fn refuse(&self, why: impl std::fmt::Display) -> JsonError {
        self.error(Problem::Refused(why.to_string()))
    }

    /// The path as text.
    pub fn path_text(&self) -> String {
        let mut text = String::new();
        for step in &self.path {
            if !text.is_empty() {
                text.push('.');
            }
            match step {
                Step::Member(from, to) => text.push_str(&self.input[*from..*to]),
                Step::Index(index) => text.push_str(&index.to_string()),
            }
        }
        text
    }

    pub(super) fn syntax(&self, expected: &'static str) -> JsonError {
        self.error(Problem::Syntax(expected))
    }

    pub(super) fn byte(&self) -> Option<u8> {
        self.input.as_bytes().get(self.pos).copied()
    }

    pub(super) fn skip_space(&mut self) {
        let bytes = self.input.as_bytes();
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = bytes.get(self.pos) {
            self.pos += 1;
        }
    }

    /// What kind of value stands next.
    ///
    /// # Errors
    /// If none does.
    pub fn kind(&mut self) -> Result<Kind, JsonError> {
        self.skip_space();
        match self.byte() {
            Some(b'{') => Ok(Kind::Object),
            Some(b'[') => Ok(Kind::Array),
            Some(b'"') => Ok(Kind::String),
            Some(b'-' | b'0'..=b'9') => Ok(Kind::Number),
            Some(b't' | b'f') => Ok(Kind::Bool),
            Some(b'n') => Ok(Kind::Null),
            _ => Err(self.syntax("a value")),
        }
    }

    fn expect(&mut self, wanted: Kind, expected: &'static str) -> Result<(), JsonError> {
        let found = self.kind()?;
        if found == wanted {
            Ok(())
        } else {
            Err(self.error(Problem::Type { expected, found: found.name() }))
        }
    }

    /// Ends the document.
    ///
    /// # Errors
    /// If anything but white space is left.
    pub fn end(&mut self) -> Result<(), JsonError> {
        self.skip_space();
        if self.pos == self.input.len() { Ok(()) } else { Err(self.syntax("the end of the document")) }
    }

    /// Reads an object. `member` is called with each decoded name and must read its value.
    ///
    /// # Errors
    /// Of the document, or of `member`.
    pub fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, &str) -> Result<(), JsonError>,
    ) -> Result<(), JsonError> {
        self.expect(Kind::Object, Kind::Object.name())?;
        self.deeper()?;
        self.pos += 1;
        let mut names = self.key_set();
        self.skip_space();
        if self.byte() == Some(b'}') {
            self.pos += 1;
            return Ok(());
        }
        loop {
            self.skip_space();
            let (from, to) = self.member_name(&mut names)?;
            self.skip_space();
            self.colon()?;
            let name = decode(&self.input[from..to], self.input[from..to].contains('\\'));
            member(self, &name)?;
            self.path.pop();
            self.skip_space();
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

    /// Reads an array. `element` is called with each index and must read the element.
    ///
    /// # Errors
    /// Of the document, or of `element`.
    pub fn array(
        &mut self,
        mut element: impl FnMut(&mut Self, usize) -> Result<(), JsonError>,
    ) -> Result<(), JsonError> {
        self.expect(Kind::Array, Kind::Array.name())?;
        self.deeper()?;
        self.pos += 1;
        self.skip_space();
        if self.byte() == Some(b']') {
            self.pos += 1;
            return Ok(());
        }
        for index in 0.. {
            self.path.push(Step::Index(index));
            self.skip_space();
            element(self, index)?;
            self.path.pop();
            self.skip_space();
            match self.byte() {
                Some(b',') => self.pos += 1,
                Some(b']') => break,
                _ => return Err(self.syntax("',' or ']'")),
            }
        }
        self.pos += 1;
        Ok(())
    }

    /// Reads a string and undoes its escapes.
    ///
    /// # Errors
    /// If something else stands there, or the string is not well formed.
    pub fn string(&mut self) -> Result<Cow<'a, str>, JsonError> {
        self.expect(Kind::String, Kind::String.name())?;
        let (from, to, escaped) = self.scan_string()?;
        Ok(decode(&self.input[from..to], escaped))
    }

    /// Reads a whole number from 0 to 2^64 - 1.
    ///
    /// # Errors
    /// If something else stands there.
    pub fn unsigned(&mut self) -> Result<u64, JsonError> {
        const EXPECTED: &str = "a whole number from 0";
        self.expect(Kind::Number, EXPECTED)?;
        let from = self.pos;
        self.scan_number()?;
        self.input[from..self.pos]
            .parse()
            .map_err(|_| self.error(Problem::Type { expected: EXPECTED, found: "another number" }))
    }

    /// Reads `null` if it stands next.
    ///
    /// # Errors
    /// If no value does.
    pub fn null(&mut self) -> Result<bool, JsonError> {
        if self.kind()? != Kind::Null {
            return Ok(false);
        }
        self.scan_word("null")?;
        Ok(true)
    }

    /// Reads any value and forgets it, with all checks.
    ///
    /// # Errors
    /// Of the document.
    pub fn skip(&mut self) -> Result<(), JsonError> {
        match self.kind()? {
            Kind::Object => self.object(|r, _| r.skip()),
            Kind::Array => self.array(|r, _| r.skip()),
            Kind::String => self.scan_string().map(drop),
            Kind::Number => self.scan_number(),
            Kind::Bool => self.scan_bool(),
            Kind::Null => self.scan_word("null"),
        }
    }

    pub(super) fn scan_bool(&mut self) -> Result<(), JsonError> {
        let word = if self.byte() == Some(b't') { "true" } else { "false" };
        self.scan_word(word)
    }

    pub(super) fn scan_word(&mut self, word: &'static str) -> Result<(), JsonError> {
        if self.input.as_bytes()[self.pos..].starts_with(word.as_bytes()) {
            self.pos += word.len();
            Ok(())
        } else {
            Err(self.syntax("a value"))
        }
    }

    /// Counts the containers around the next value. Members and elements push one path step each, so the path's
    /// length is the depth of nesting.
    pub(super) fn deeper(&self) -> Result<(), JsonError> {
        if self.path.len() >= JSON_DEPTH_MAX { Err(self.error(Problem::TooDeep)) } else { Ok(()) }
    }

    pub(super) fn key_set(&self) -> KeySet<'a> {
        KeySet { first: self.keys.len(), many: None }
    }

    pub(super) fn drop_keys(&mut self, names: KeySet<'a>) {
        self.keys.truncate(names.first);
    }

    /// Reads a member's name, pushes it on the path, and refuses it if it came before. Gives the range between
    /// the quotes.
    pub(super) fn member_name(&mut self, names: &mut KeySet<'a>) -> Result<(usize, usize), JsonError> {
        if self.byte() != Some(b'"') {
            return Err(self.syntax("a member name in quotes"));
        }
        let (from, to, escaped) = self.scan_string()?;
        self.path.push(Step::Member(from, to));
        self.note_key(names, from, to, decode(&self.input[from..to], escaped))?;
        Ok((from, to))
    }

    /// Reads the colon after a member's name.
    pub(super) fn colon(&mut self) -> Result<(), JsonError> {
        if self.byte() != Some(b':') {
            return Err(self.syntax("':'"));
        }
        self.pos += 1;
        Ok(())
    }

    fn note_key(
        &mut self,
        names: &mut KeySet<'a>,
        from: usize,
        to: usize,
        name: Cow<'a, str>,
    ) -> Result<(), JsonError> {
        let input: &'a str = self.input;
        let decoded = |(from, to): (usize, usize)| decode(&input[from..to], input[from..to].contains('\\'));
        let seen = &self.keys[names.first..];
        let twice = match &mut names.many {
            Some(set) => !set.insert(name.clone()),
            None if seen.len() < KEYS_LINEAR_MAX => seen.iter().any(|key| {
                // Escapes are rare: compare bytes unless one side has them.
                let bytes = &input[key.0..key.1];
                bytes == name.as_ref() || (bytes.contains('\\') && decoded(*key) == name)
            }),
            None => {
                let mut set: HashSet<Cow<'a, str>> = seen.iter().map(|key| decoded(*key)).collect();
                let twice = !set.insert(name.clone());
                names.many = Some(set);
                twice
            }
        };
        if twice {
            return Err(self.error(Problem::DuplicateKey(name.to_string())));
        }
        self.keys.push((from, to));
        Ok(())
    }

    /// Passes over a string; gives the range between the quotes and whether it has escapes.
    pub(super) fn scan_string(&mut self) -> Result<(usize, usize, bool), JsonError> {
        let bytes = self.input.as_bytes();
        let from = self.pos + 1;
        let mut escaped = false;
        let mut at = from;
        loop {
            at += plain_prefix(&bytes[at..]);
            match bytes.get(at) {
                Some(b'"') => {
                    self.pos = at + 1;
                    return Ok((from, at, escaped));
                }
                Some(b'\\') => {
                    escaped = true;
                    self.pos = at;
                    at = self.scan_escape(at)?;
                }
                Some(_) => {
                    self.pos = at;
                    return Err(self.syntax("no raw control character in a string: escape it"));
                }
                None => {
                    self.pos = at;
                    return Err(self.syntax("the end of a string"));
                }
            }
        }
    }

    /// Passes over one escape, or over both halves of a surrogate pair; gives where it ends.
    fn scan_escape(&self, at: usize) -> Result<usize, JsonError> {
        let bytes = self.input.as_bytes();
        match bytes.get(at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 2),
            Some(b'u') => {
                let unit = hex4(bytes, at + 2).ok_or_else(|| self.syntax("four hex digits after \\u"))?;
                match unit {
                    0xd800..=0xdbff => {
                        let low = (bytes.get(at + 6..at + 8) == Some(b"\\u"))
                            .then(|| hex4(bytes, at + 8))
                            .flatten()
                            .filter(|low| (0xdc00..=0xdfff).contains(low));
                        match low {
                            Some(_) => Ok(at + 12),
                            None => Err(self.error(Problem::LoneSurrogate)),
                        }
                    }
                    0xdc00..=0xdfff => Err(self.error(Problem::LoneSurrogate)),
                    _ => Ok(at + 6),
                }
            }
            _ => Err(self.syntax("an escape of JSON")),
        }
    }

    /// Passes over a number (RFC 8259, section 6).
    pub(super) fn scan_number(&mut self) -> Result<(), JsonError> {
        let bytes = self.input.as_bytes();
        let digits = |mut at: usize| {
            let from = at;
            while bytes.get(at).is_some_and(u8::is_ascii_digit) {
                at += 1;
            }
            (at > from).then_some(at)
        };
        let mut at = self.pos + usize::from(bytes[self.pos] == b'-');
        at = match bytes.get(at) {
            Some(b'0') => at + 1,
            _ => digits(at).ok_or_else(|| self.syntax("a digit"))?,
        };
        if bytes.get(at) == Some(&b'.') {
            at = digits(at + 1).ok_or_else(|| self.syntax("a digit after the decimal point"))?;
        }
        if let Some(b'e' | b'E') = bytes.get(at) {
            at += 1;
            if let Some(b'+' | b'-') = bytes.get(at) {
                at += 1;
            }
            at = digits(at).ok_or_else(|| self.syntax("a digit in the exponent"))?;
        }
        self.pos = at;
        if bytes.get(at).is_some_and(|b| b.is_ascii_alphanumeric()) {
            return Err(self.syntax("the end of a number"));
        }
        Ok(())
    }
}

/// How many bytes at the start need no attention inside a string: no quote, no backslash, no control character.
/// Sixteen at a time, in a form that compilers turn into vector code.
fn plain_prefix(bytes: &[u8]) -> usize {
    let special = |b: u8| b < 0x20 || b == b'"' || b == b'\\';
    let mut at = 0;
    while let Some(chunk) = bytes.get(at..at + 16) {
        if chunk.iter().fold(false, |any, b| any | special(*b)) {
            break;
        }
        at += 16;
    }
    at + bytes[at..].iter().take_while(|b| !special(**b)).count()
}

fn hex4(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.iter().try_fold(0, |sum, b| Some(sum * 16 + char::from(*b).to_digit(16)?))
}

/// Undoes the escapes of a string that [`Reader::scan_string`] has found well formed.
fn decode(raw: &str, escaped: bool) -> Cow<'_, str> {
    if !escaped {
        return Cow::Borrowed(raw);
    }
    let bytes = raw.as_bytes();
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(slash) = rest.find('\\') {
        out.push_str(&rest[..slash]);
        let at = raw.len() - rest.len() + slash;
        let mut length = 2;
        out.push(match bytes[at + 1] {
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let unit = hex4(bytes, at + 2).unwrap_or(0xfffd);
                length = 6;
                if let (0xd800..=0xdbff, Some(low)) = (unit, hex4(bytes, at + 8)) {
                    length = 12;
                    char::from_u32(0x10000 + ((unit - 0xd800) << 10) + (low.wrapping_sub(0xdc00) & 0x3ff))
                } else {
                    char::from_u32(unit)
                }
                .unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            other => char::from(other),
        });
        rest = &raw[at + length..];
    }
    out.push_str(rest);
    Cow::Owned(out)
}
