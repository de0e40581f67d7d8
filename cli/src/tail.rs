//! `quipu tail`: the newest events, and with `--follow` what comes in after them.
//!
//! Following asks once a second for the newest events by timestamp and shows what was not shown before. An event
//! whose timestamp lies below everything that was looked at (a late one) is found by `quipu query`, not here.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use serde_json::value::RawValue;

use crate::args::ConnectArgs;
use crate::client::{Answer, Client, Request, Retry, send_patiently};
use crate::event_view::{EventView, Page, line_width};
use crate::output::Out;
use crate::query::FilterArgs;

/// How often the server is asked.
const POLL: Duration = Duration::from_secs(1);
/// Events asked for at a time.
const PAGE: usize = 200;
/// Events that are remembered as shown.
const SHOWN_MAX: usize = 100_000;
/// How long a server may be away before following ends.
const PATIENCE: Duration = Duration::from_secs(10 * 60);

/// Arguments of `quipu tail`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quipu tail
  quipu tail -f --severity error,critical
  quipu tail -f --json --session s1 | jq .payload")]
pub(crate) struct TailArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// Show this many events first
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(0..=1000))]
    lines: u64,
    /// Go on showing what comes in
    #[arg(short, long)]
    follow: bool,
    /// One JSON object a line, as the server gave it
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Runs it.
pub(crate) fn run(args: &TailArgs) -> anyhow::Result<ExitCode> {
    let client = Client::connect(&args.connect)?;
    let tail = Tail { client, args, width: line_width() };
    let mut out = Out::new();
    let mut shown = Shown::default();
    let lines = usize::try_from(args.lines).unwrap_or(usize::MAX);
    let text = tail.page(lines.max(if args.follow { PAGE } else { 1 }), None)?;
    let page = read(&text)?;
    let mut first = Vec::new();
    for raw in &page.events {
        let view = EventView::read(raw)?;
        shown.insert(Place::of(&view));
        first.push((view, *raw));
    }
    if page.next_cursor.is_some() {
        shown.raise_floor();
    }
    first.truncate(lines);
    for (view, raw) in first.iter().rev() {
        tail.show(&mut out, view, raw)?;
    }
    out.flush()?;
    if !args.follow {
        return Ok(ExitCode::SUCCESS);
    }
    loop {
        std::thread::sleep(POLL);
        tail.poll(&mut out, &mut shown)?;
    }
}

fn read(text: &str) -> anyhow::Result<Page<'_>> {
    serde_json::from_str(text).context("the answer is no page of events")
}

struct Tail<'a> {
    client: Client,
    args: &'a TailArgs,
    width: Option<usize>,
}

impl Tail<'_> {
    /// Newest events first.
    fn page(&self, limit: usize, cursor: Option<&str>) -> anyhow::Result<String> {
        let request = self
            .args
            .filter
            .apply(Request::get(&["v1", "events"]))
            .parameter("order", Some("desc"))
            .parameter("limit", Some(&limit.to_string()))
            .parameter("cursor", cursor);
        if !self.args.follow {
            return self.client.ask(&request);
        }
        let tell = |line: &str| eprintln!("warning: {line}");
        match send_patiently(&self.client, &request, Retry { patience: PATIENCE }, &tell)? {
            Answer::Accepted(reply) => reply.text(),
            Answer::Refused(failure) => Err(failure.into()),
        }
    }

    /// Reads down from the newest event until a page holds nothing new, and shows what is new in the order in which
    /// it was taken in.
    fn poll(&self, out: &mut Out, shown: &mut Shown) -> anyhow::Result<()> {
        let mut fresh: Vec<(String, String, Box<RawValue>)> = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let text = self.page(PAGE, cursor.as_deref())?;
            let page = read(&text)?;
            let mut found = false;
            for raw in &page.events {
                let view = EventView::read(raw)?;
                if shown.insert(Place::of(&view)) {
                    found = true;
                    fresh.push((view.received_at, view.event_id, (*raw).to_owned()));
                }
            }
            cursor = page.next_cursor;
            if !found || cursor.is_none() {
                break;
            }
        }
        fresh.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
        for (_, _, raw) in &fresh {
            self.show(out, &EventView::read(raw)?, raw)?;
        }
        out.flush()
    }

    fn show(&self, out: &mut Out, view: &EventView<'_>, raw: &RawValue) -> anyhow::Result<()> {
        if self.args.json { out.line(raw.get()) } else { out.line(&view.line(self.width)) }
    }
}

/// Where an event stands in the server's order: by time, then by id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place(String, String);

impl Place {
    fn of(view: &EventView<'_>) -> Self {
        Self(view.timestamp.clone(), view.event_id.clone())
    }
}

/// What was shown. Below the floor everything counts as shown.
#[derive(Debug, Default)]
struct Shown {
    places: BTreeSet<Place>,
    floor: Option<Place>,
}

impl Shown {
    /// True if it was not shown before.
    fn insert(&mut self, place: Place) -> bool {
        if self.floor.as_ref().is_some_and(|floor| place < *floor) {
            return false;
        }
        let is_new = self.places.insert(place);
        if self.places.len() > SHOWN_MAX {
            // The lowest go, not the oldest: an event dated in the future must not hide what comes after it.
            self.places.pop_first();
            self.raise_floor();
        }
        is_new
    }

    /// There are events below what was looked at: they are old, not new.
    fn raise_floor(&mut self) {
        self.floor = self.places.first().cloned();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_shown_twice_and_nothing_old_at_all() {
        let place = |at: &str, id: &str| Place(at.into(), id.into());
        let mut shown = Shown::default();
        assert!(shown.insert(place("2", "a")));
        assert!(shown.insert(place("9", "from the future")));
        shown.raise_floor();
        assert!(!shown.insert(place("1", "z")), "below the floor");
        assert!(!shown.insert(place("2", "a")), "shown");
        assert!(shown.insert(place("2", "b")), "same time, another event");
        assert!(shown.insert(place("5", "c")), "below an event of the future");
    }
}
