//! Events as the server gave them, and one line of each for people.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::output::{harmless, shorten};

/// A page of events; each event's text is kept as it came.
#[derive(Deserialize)]
pub(crate) struct Page<'t> {
    /// The events.
    #[serde(borrow)]
    pub(crate) events: Vec<&'t RawValue>,
    /// Where the next page begins.
    pub(crate) next_cursor: Option<String>,
    /// True if the server stopped before the page was full.
    #[serde(default)]
    pub(crate) partial: bool,
    /// What the page cost, if that was asked.
    #[serde(default)]
    pub(crate) explain: Explain,
}

/// What reads cost: see `explain=true` of the API.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(crate) struct Explain {
    hot: BTreeMap<String, u64>,
    archive: BTreeMap<String, u64>,
}

impl Explain {
    /// Adds what another page cost.
    pub(crate) fn add(&mut self, other: Self) {
        for (mine, other) in [(&mut self.hot, other.hot), (&mut self.archive, other.archive)] {
            for (name, count) in other {
                let sum = mine.entry(name).or_default();
                *sum = sum.saturating_add(count);
            }
        }
    }

    /// Two lines for people.
    pub(crate) fn lines(&self) -> String {
        let line = |of: &BTreeMap<String, u64>| {
            let parts = of.iter().map(|(name, count)| format!("{count} {}", name.replace('_', " ")));
            parts.collect::<Vec<_>>().join(", ")
        };
        format!("hot:     {}\narchive: {}", line(&self.hot), line(&self.archive))
    }
}

/// What a line shows of an event.
#[derive(Deserialize)]
pub(crate) struct EventView<'t> {
    /// Its id.
    pub(crate) event_id: String,
    /// Its time.
    pub(crate) timestamp: String,
    /// When it was taken in.
    pub(crate) received_at: String,
    session_id: String,
    agent_id: String,
    event_type: String,
    severity: String,
    #[serde(borrow)]
    payload: &'t RawValue,
}

impl<'t> EventView<'t> {
    /// Reads one event.
    pub(crate) fn read(raw: &'t RawValue) -> anyhow::Result<Self> {
        use anyhow::Context as _;
        serde_json::from_str(raw.get()).context("the answer holds an event of an unknown shape")
    }

    /// Time, severity, session, agent, type, payload. On a terminal the payload is cut to what fits the width.
    pub(crate) fn line(&self, width: Option<usize>) -> String {
        let head = format!(
            "{}  {:<8}  {}  {}  {}  ",
            self.timestamp,
            self.severity,
            harmless(&self.session_id),
            harmless(&self.agent_id),
            self.event_type,
        );
        let payload = self.payload.get();
        let Some(width) = width else { return head + payload };
        let room = width.saturating_sub(head.chars().count() + 1).max(PAYLOAD_CHARS_MIN);
        // Cut first: most of a large payload is never looked at.
        head + &shorten(&harmless(&shorten(payload, room)), room)
    }
}

/// Of a payload at least this much is shown, characters, even if the line then wraps.
const PAYLOAD_CHARS_MIN: usize = 40;
/// Width of a terminal that does not say, characters.
const WIDTH_DEFAULT: usize = 120;

/// How wide a line may be: unbounded, unless standard output is a terminal.
pub(crate) fn line_width() -> Option<usize> {
    if !crate::output::is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
    Some(size.map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0).unwrap_or(WIDTH_DEFAULT))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = r#"{"events":[{"event_id":"e","timestamp":"2026-02-08T10:00:00.000000Z","received_at":"r",
        "session_id":"s","agent_id":"a","event_type":"t","severity":"info","sequence":9007199254740993,
        "payload":{"n":9007199254740993,"z":-0,"t":"0123456789012345678901234567890123456789"}}],"next_cursor":null}"#;

    #[test]
    fn p7_a_payload_is_shown_as_it_came() {
        let page: Page<'_> = serde_json::from_str(PAGE).unwrap();
        assert!(page.events[0].get().contains(r#""n":9007199254740993,"z":-0"#));
        let view = EventView::read(page.events[0]).unwrap();
        assert!(
            view.line(None).ends_with(
                r#"  {"n":9007199254740993,"z":-0,"t":"0123456789012345678901234567890123456789"}"#
            )
        );
        let short = view.line(Some(80));
        assert!(
            short.ends_with('…')
                && short.starts_with("2026-02-08T10:00:00.000000Z  info      s  a  t  {\"n\""),
            "{short}"
        );
    }
}
