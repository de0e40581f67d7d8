//! Which events a query asks for, and what can be said of a run of them from its counts alone.

use sha2::{Digest, Sha256};

use crate::codec::{put_bytes, put_signed, put_varint};
use crate::event::{Content, EventRef};
use crate::ids::{SessionId, Severity};
use crate::segment::SegmentMeta;
use crate::summary::{Summary, Tally};
use crate::time::Micros;

/// What an event must be to be listed. The default asks for everything. An event must meet every field.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventFilter {
    /// In this session.
    pub session: Option<SessionId>,
    /// Of one of these agents; of any, if empty.
    pub agents: Vec<String>,
    /// Of one of these types, as stored; of any, if empty.
    pub event_types: Vec<String>,
    /// Of one of these severities; of any, if empty.
    pub severities: Vec<Severity>,
    /// At this time or later.
    pub from: Option<Micros>,
    /// At this time or earlier.
    pub to: Option<Micros>,
    /// With this text somewhere in the JSON text of its payload, as stored. Case does not matter: for a text of
    /// ASCII alone that of A to Z, else that of Unicode's simple lower case. An erased event has no text.
    pub search: Option<String>,
}

impl EventFilter {
    /// True if the event is asked for. Its session is not looked at: an [`EventRef`] does not know it.
    pub fn matches(&self, event: &EventRef<'_>) -> bool {
        self.matches_time(event.timestamp)
            && self.matches_severity(event.severity)
            && self.matches_type(event.event_type)
            && self.matches_agent(event.agent_id)
            && self.matches_payload(match event.content {
                Content::Kept { payload, .. } => Some(payload),
                Content::Erased { .. } => None,
            })
    }

    pub(crate) fn matches_time(&self, time: Micros) -> bool {
        self.from.is_none_or(|from| time >= from) && self.to.is_none_or(|to| time <= to)
    }

    pub(crate) fn matches_severity(&self, severity: Severity) -> bool {
        self.severities.is_empty() || self.severities.contains(&severity)
    }

    pub(crate) fn matches_type(&self, event_type: &str) -> bool {
        self.event_types.is_empty() || self.event_types.iter().any(|t| t == event_type)
    }

    pub(crate) fn matches_agent(&self, agent: &str) -> bool {
        self.agents.is_empty() || self.agents.iter().any(|a| a == agent)
    }

    /// `None` is the payload of an erased event.
    pub(crate) fn matches_payload(&self, payload: Option<&str>) -> bool {
        self.search.as_deref().is_none_or(|text| payload.map_or(text.is_empty(), |p| contains(p, text)))
    }

    /// True if all times from `low` to `high` are asked for.
    pub(crate) fn covers(&self, low: Micros, high: Micros) -> bool {
        self.matches_time(low) && self.matches_time(high)
    }

    /// True if only the payload can say whether an event is asked for.
    pub(crate) fn asks_for_text(&self) -> bool {
        self.search.as_ref().is_some_and(|text| !text.is_empty())
    }

    /// True if only the time says whether an event is asked for.
    pub(crate) fn asks_for_all_of_a_time(&self) -> bool {
        self.session.is_none()
            && self.agents.is_empty()
            && self.event_types.is_empty()
            && self.severities.is_empty()
            && !self.asks_for_text()
    }

    /// False if no event of the segment is asked for. Its session is not looked at.
    pub fn may_match(&self, meta: &SegmentMeta) -> bool {
        self.may_match_run(&meta.summary)
    }

    /// How many events of the segment are asked for, if its attributes can say. Its session is not looked at.
    pub fn exact_count(&self, meta: &SegmentMeta) -> Option<u64> {
        self.exact_count_of_run(&meta.summary)
    }

    pub(super) fn may_match_run(&self, run: &Summary) -> bool {
        self.from.is_none_or(|from| run.time_max >= from)
            && self.to.is_none_or(|to| run.time_min <= to)
            && self.counts(run).into_iter().all(|count| count != Known::Exactly(0))
    }

    pub(super) fn exact_count_of_run(&self, run: &Summary) -> Option<u64> {
        if !self.may_match_run(run) {
            return Some(0);
        }
        if !self.covers(run.time_min, run.time_max) || self.asks_for_text() {
            return None;
        }
        // Counts of two dimensions say nothing of both at once, unless one of them lets every event through.
        let mut exact = run.events;
        let mut narrowed = false;
        for count in self.counts(run) {
            match count {
                Known::All => {}
                Known::Exactly(count) if count == run.events => {}
                Known::Exactly(count) if !narrowed => {
                    exact = count;
                    narrowed = true;
                }
                Known::Exactly(_) | Known::Not => return None,
            }
        }
        Some(exact)
    }

    /// How many events each of the three counted dimensions lets through.
    fn counts(&self, run: &Summary) -> [Known; 3] {
        let severities = if self.severities.is_empty() {
            Known::All
        } else {
            let asked = |s: &&Severity| self.severities.contains(*s);
            Known::Exactly(Severity::ALL.iter().filter(asked).map(|s| run.severities[*s as usize]).sum())
        };
        [named(&self.event_types, &run.types), named(&self.agents, &run.agents), severities]
    }

    /// Eight bytes that stand for the filter in a cursor. Lists that say the same in another order give the same.
    pub(super) fn digest(&self) -> [u8; 8] {
        fn put_list<'a>(out: &mut Vec<u8>, list: impl Iterator<Item = &'a str>) {
            let mut sorted: Vec<&str> = list.collect();
            sorted.sort_unstable();
            sorted.dedup();
            put_varint(out, sorted.len() as u64);
            for text in sorted {
                put_bytes(out, text.as_bytes());
            }
        }
        let mut bytes = b"quipu.filter.v1\n".to_vec();
        put_list(&mut bytes, self.session.iter().map(SessionId::as_str));
        put_list(&mut bytes, self.agents.iter().map(String::as_str));
        put_list(&mut bytes, self.event_types.iter().map(String::as_str));
        put_list(&mut bytes, self.severities.iter().map(|s| s.as_str()));
        put_signed(&mut bytes, self.from.map_or(i64::MIN, Micros::get));
        put_signed(&mut bytes, self.to.map_or(i64::MAX, Micros::get));
        put_bytes(&mut bytes, self.search.as_deref().unwrap_or_default().as_bytes());
        let digest: [u8; 32] = Sha256::digest(&bytes).into();
        let mut short = [0; 8];
        short.copy_from_slice(&digest[..8]);
        short
    }
}

/// What a run's counts say of one dimension of a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// It is not asked about.
    All,
    /// So many pass.
    Exactly(u64),
    /// There were too many names to say.
    Not,
}

fn named(asked: &[String], tally: &Tally) -> Known {
    if asked.is_empty() {
        return Known::All;
    }
    let mut sum = 0;
    for (index, name) in asked.iter().enumerate() {
        match tally.count(name) {
            // A name asked for twice counts once.
            Some(count) if !asked[..index].contains(name) => sum += count,
            Some(_) => {}
            None => return Known::Not,
        }
    }
    Known::Exactly(sum)
}

/// True if `text` holds `part`, whatever the case. Allocates nothing.
fn contains(text: &str, part: &str) -> bool {
    let Some(first) = part.chars().next() else { return true };
    if part.is_ascii() {
        let (text, part) = (text.as_bytes(), part.as_bytes());
        let Some(starts) = text.len().checked_sub(part.len()) else { return false };
        let (low, high) = (part[0].to_ascii_lowercase(), part[0].to_ascii_uppercase());
        return text[..=starts].iter().enumerate().any(|(at, b)| {
            (*b == low || *b == high) && text[at..at + part.len()].eq_ignore_ascii_case(part)
        });
    }
    let first = lower(first);
    text.char_indices().any(|(at, c)| {
        lower(c) == first && {
            let mut rest = text[at..].chars().map(lower);
            part.chars().map(lower).all(|want| rest.next() == Some(want))
        }
    })
}

/// Unicode's simple lower case: where the full one is several characters (only İ), its first is the simple one.
fn lower(c: char) -> char {
    if c.is_ascii() { c.to_ascii_lowercase() } else { c.to_lowercase().next().unwrap_or(c) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn search_does_not_care_for_case() {
        for (text, part) in [
            (r#"{"a":"Hello"}"#, "hELLO"),
            (r#"{"a":"ÄRGER"}"#, "ärger"),
            (r#"{"a":"ärger"}"#, "ÄR"),
            (r#"{"city":"İZMİR, é"}"#, "izmir, É"),
            ("ab", ""),
            ("aab", "AB"),
        ] {
            assert!(contains(text, part), "{part} in {text}");
        }
        for (text, part) in [("", "a"), ("ab", "abc"), ("a", "ä"), ("äb", "äc"), ("x", "xé")] {
            assert!(!contains(text, part), "{part} in {text}");
        }
    }

    proptest! {
        #[test]
        fn search_in_ascii_agrees_with_lower_casing_both(text in "[a-cA-C]{0,12}", part in "[a-cA-C]{0,3}") {
            prop_assert_eq!(contains(&text, &part), text.to_lowercase().contains(&part.to_lowercase()));
        }

        #[test]
        fn search_in_letters_of_two_bytes_agrees_too(text in "[aAäÄжЖ]{0,12}", part in "[aAäÄжЖ]{0,3}") {
            prop_assert_eq!(contains(&text, &part), text.to_lowercase().contains(&part.to_lowercase()));
        }
    }

    #[test]
    fn a_digest_stands_for_what_is_asked() {
        let texts = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let one = EventFilter { event_types: texts(&["a", "b"]), ..EventFilter::default() };
        let same = EventFilter { event_types: texts(&["b", "a", "a"]), ..EventFilter::default() };
        let agents = EventFilter { agents: texts(&["a", "b"]), ..EventFilter::default() };
        let from = EventFilter { from: Some(Micros::MIN), ..one.clone() };
        assert_eq!(one.digest(), same.digest());
        for other in [&agents, &from, &EventFilter::default()] {
            assert_ne!(one.digest(), other.digest());
        }
    }
}
