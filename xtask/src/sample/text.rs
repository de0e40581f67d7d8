//! Values and text: the templates, filled in.

use super::author::Author;
use super::json::{Json, Nanos, put, put_decimal, put_hex};
use super::rng::{base32, hex32, uuid};
use super::sessions::Session;
use super::templates::{BENCH_KINDS, Kind};
use super::vocabulary::{
    EMOJI, EXTENSIONS, KEYS, NUMBERS, SCRIPTS, TOPIC_MASK, TOPIC_OCTAVE_MIN, WORD_OCTAVES,
};

impl Author {
    /// How much text an event carries, bytes: most a few hundred, a rare one hundreds of kilobytes.
    pub(super) fn size(&mut self) -> usize {
        let (low, high) = match self.rng.below(100_000) {
            0..50_000 => (40, 240),
            50_000..80_000 => (240, 800),
            80_000..95_000 => (800, 3_600),
            95_000..99_300 => (3_600, 12_000),
            99_300..99_950 => (12_000, 60_000),
            99_950..99_985 => (60_000, 200_000),
            _ => (200_000, 790_000),
        };
        self.rng.octave(low, high) as usize
    }

    pub(super) fn text_member(&mut self, json: &mut Json, session: &Session, key: &str, template: &str) {
        self.expand(template, session);
        json.text(key, &self.raw);
    }

    /// A string member of about `size` bytes.
    pub(super) fn text_lines(
        &mut self,
        json: &mut Json,
        session: &Session,
        key: &str,
        kind: Kind,
        size: usize,
    ) {
        json.key(key);
        json.out.push('"');
        let end = json.out.len() + size;
        self.fill(json, session, kind, end);
        json.out.push('"');
    }

    /// Lines until the JSON is `end` bytes long or a little longer.
    pub(super) fn fill(&mut self, json: &mut Json, session: &Session, kind: Kind, end: usize) {
        loop {
            let template = self.rng.pick(&self.templates[kind as usize]);
            self.expand(template, session);
            json.escape(&self.raw);
            if json.out.len() >= end {
                return;
            }
            json.escape("\n");
        }
    }

    /// Like `fill`, but cut at `end`, between two characters and never inside an escape.
    pub(super) fn fill_exactly(&mut self, json: &mut Json, session: &Session, end: usize) {
        let kind = self.rng.pick(BENCH_KINDS);
        while json.out.len() < end {
            let from = json.out.len();
            let template = self.rng.pick(&self.templates[kind as usize]);
            self.expand(template, session);
            self.raw.push('\n');
            json.escape(&self.raw);
            let mut kept = self.raw.len().min(end - from);
            while json.out.len() > end {
                kept = self.raw.floor_char_boundary(kept);
                json.out.truncate(from);
                json.escape(&self.raw[..kept]);
                kept = kept.saturating_sub(1);
            }
            // What is missing would have split a character: one line more would only be cut to nothing.
            if kept < self.raw.len() && json.out.len() + 12 > end {
                return;
            }
        }
    }

    pub(super) fn object(&mut self, json: &mut Json, session: &Session, depth: usize) {
        json.open('{');
        let count = self.rng.range(2, 6) as usize;
        self.members(json, session, depth, count);
        json.close('}');
    }

    /// Members with different keys in no order: a stride that shares no factor with the table's length.
    pub(super) fn members(&mut self, json: &mut Json, session: &Session, depth: usize, count: usize) {
        let first = self.rng.index(KEYS.len());
        for index in 0..count {
            json.key(KEYS[(first + index * 7) % KEYS.len()]);
            self.value(json, session, depth - 1);
        }
    }

    fn value(&mut self, json: &mut Json, session: &Session, depth: usize) {
        match self.rng.below(10) {
            0..3 if depth > 0 => self.object(json, session, depth),
            3 if depth > 0 => {
                json.open('[');
                for _ in 0..self.rng.below(5) {
                    json.comma();
                    self.value(json, session, depth - 1);
                }
                json.close(']');
            }
            _ => self.scalar(json, session),
        }
    }

    pub(super) fn scalar(&mut self, json: &mut Json, session: &Session) {
        match self.rng.below(20) {
            0 => json.out.push_str("null"),
            1 => json.out.push_str(self.rng.pick(&["true", "false"])),
            2 => json.out.push_str(self.rng.pick(NUMBERS)),
            3..7 => put(&mut json.out, self.rng.octave(1, 1 << 34)),
            7 | 8 => put(&mut json.out, Nanos(self.rng.octave(1, 1 << 45))),
            _ => {
                let template = self.rng.pick(&self.templates[Kind::Scalar as usize]);
                self.expand(template, session);
                json.string(&self.raw);
            }
        }
    }

    pub(super) fn expand(&mut self, template: &str, session: &Session) {
        self.raw.clear();
        self.expand_more(template, session);
    }

    /// Writes a template to `self.raw`; a dollar sign and a letter stand for something random.
    pub(super) fn expand_more(&mut self, template: &str, session: &Session) {
        let mut rest = template;
        // By bytes: between two marks stand a few of them, where a search through memory does not pay.
        while let Some(at) = rest.bytes().position(|byte| byte == b'$') {
            self.raw.push_str(&rest[..at]);
            let mut after = rest[at + 1..].chars();
            if let Some(mark) = after.next() {
                self.expand_mark(mark, session);
            }
            rest = after.as_str();
        }
        self.raw.push_str(rest);
    }

    fn expand_mark(&mut self, mark: char, session: &Session) {
        match mark {
            'w' => self.push_word(false, session),
            'W' => self.push_word(true, session),
            's' | 'S' => {
                for index in 0..self.rng.range(4, 11) {
                    if index > 0 {
                        self.raw.push(' ');
                    }
                    self.push_word(mark == 'S' && index == 0, session);
                }
                if mark == 'S' {
                    self.raw.push('.');
                }
            }
            'k' => self
                .raw
                .push_str(self.rng.pick(&["build", "retry", "trace", "batch", "cache", "queue", "lease"])),
            'i' => {
                let ident = self.rng.choose(&session.idents);
                self.raw.push_str(ident);
            }
            'I' => {
                self.push_word(true, session);
                self.push_word(true, session);
            }
            'p' if self.rng.one_in(4) => self.expand_mark('q', session),
            'p' => {
                let path = self.rng.choose(&session.paths);
                self.raw.push_str(path);
            }
            'q' => {
                self.raw.push_str(self.rng.pick(&["src/", "lib/", "app/", "tests/", "docs/"]));
                self.expand_more("$w/$w_$w", session);
                self.raw.push_str(self.rng.pick(EXTENSIONS));
            }
            'x' => put_decimal(&mut self.raw, self.rng.below(10)),
            'n' => put_decimal(&mut self.raw, self.rng.octave(1, 10_000)),
            'N' => put(&mut self.raw, self.rng.octave(10_000, 1 << 40)),
            'h' => put_hex(&mut self.raw, self.rng.next(), 8),
            'H' => {
                put(&mut self.raw, format_args!("{}{:08x}", hex32(self.rng.next()), self.rng.next() >> 32))
            }
            'u' => {
                let id = uuid(&mut self.rng);
                self.raw.push_str(&id);
            }
            't' => {
                let (minute, milli) = (self.rng.below(60), self.rng.below(60_000));
                put(
                    &mut self.raw,
                    format_args!("2026-01-05T08:{minute:02}:{:02}.{:03}Z", milli / 1_000, milli % 1_000),
                );
            }
            'a' => put(&mut self.raw, format_args!("203.0.113.{}", self.rng.below(255))),
            'm' => {
                self.push_word(false, session);
                self.raw.push('.');
                self.push_word(false, session);
                self.raw.push_str("@example.com");
            }
            'b' => {
                for _ in 0..6 {
                    self.raw.push_str(&base32(self.rng.next(), 12));
                }
            }
            'e' => self.raw.push_str(self.rng.pick(EMOJI)),
            '/' => self.raw.push('\n'),
            '>' => self.raw.push('\t'),
            '^' => self.raw.push('\u{1b}'),
            'f' => match session.script {
                Some(script) => self.push_phrase(script),
                None => self.push_word(false, session),
            },
            // The rest of a text in the session's other language, if it has one.
            'l' if session.script.is_some() => self.expand_mark('f', session),
            'l' => {}
            other => {
                self.raw.push('$');
                self.raw.push(other);
            }
        }
    }

    fn push_word(&mut self, capital: bool, session: &Session) {
        let at = self.raw.len();
        let random = self.rng.next();
        let octave = ((random >> 32) * u64::from(WORD_OCTAVES)) >> 32;
        let mut rank = random & ((1 << octave) - 1);
        if octave >= TOPIC_OCTAVE_MIN {
            // Rare words belong to a subject, and a session keeps to its own.
            rank = (rank & !TOPIC_MASK) | (session.topic & TOPIC_MASK);
        }
        let word = &self.words[(1 << octave) + rank as usize - 1];
        self.raw.push_str(&self.vocabulary[word.start as usize..word.end as usize]);
        if capital && let Some(first) = self.raw.get_mut(at..at + 1) {
            first.make_ascii_uppercase();
        }
    }

    fn push_phrase(&mut self, script: usize) {
        let joiner = SCRIPTS[script].0;
        for index in 0..self.rng.range(3, 8) {
            if index > 0 {
                self.raw.push_str(joiner);
            }
            let word = self.rng.pick(&self.scripts[script]);
            self.raw.push_str(word);
        }
    }
}
