//! `quipu query`: events by filter, page by page.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use crate::args::ConnectArgs;
use crate::client::{Client, Request};
use crate::event_view::{EventView, Explain, Page, line_width};
use crate::output::Out;

/// Most events in one page of the server.
const PAGE_EVENTS_MAX: u64 = quipu_core::limits::PAGE_EVENTS_MAX as u64;

/// Which events.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct FilterArgs {
    /// Only this session
    #[arg(long, value_name = "ID")]
    pub(crate) session: Option<String>,
    /// Only these agents, joined by commas or given again
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    pub(crate) agent: Vec<String>,
    /// Only these types
    #[arg(long = "type", value_name = "TYPE", value_delimiter = ',')]
    pub(crate) event_type: Vec<String>,
    /// Only these severities: debug, info, warn, error, critical
    #[arg(long, value_name = "SEVERITY", value_delimiter = ',')]
    pub(crate) severity: Vec<String>,
}

impl FilterArgs {
    /// Adds the filters to a request for `/v1/events`.
    pub(crate) fn apply<'b>(&self, request: Request<'b>) -> Request<'b> {
        let joined = |list: &[String]| Some(list.join(",")).filter(|text| !text.is_empty());
        request
            .parameter("session_id", self.session.as_deref())
            .parameter("agent_id", joined(&self.agent).as_deref())
            .parameter("event_type", joined(&self.event_type).as_deref())
            .parameter("severity", joined(&self.severity).as_deref())
    }
}

/// Arguments of `quipu query`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quipu query --session s1 --order asc --all
  quipu query --type tool_error --severity error,critical --from 2026-02-07 --to 2026-02-08
  quipu query --search 'drop table' --explain
  quipu query --search 'drop table' --json --all | jq -r .session_id | sort | uniq -c")]
pub(crate) struct QueryArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// From this time on: RFC 3339, or a day
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Up to this time
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Only events whose payload holds this text
    #[arg(long, value_name = "TEXT")]
    search: Option<String>,
    /// desc: newest first; asc: oldest first
    #[arg(long, value_name = "ORDER", value_parser = ["asc", "desc"], default_value = "desc")]
    order: String,
    /// At most this many events
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// Every event there is, page by page
    #[arg(long, conflicts_with = "limit")]
    all: bool,
    /// Show salts too, so that hashes can be recomputed (with --json)
    #[arg(long)]
    proof: bool,
    /// Say at the end what was read for it, and what was left alone
    #[arg(long)]
    explain: bool,
    /// One JSON object a line, as the server gave it
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Runs it.
pub(crate) fn run(args: &QueryArgs) -> anyhow::Result<ExitCode> {
    let client = Client::connect(&args.connect)?;
    let width = line_width();
    let mut out = Out::new();
    let mut left = if args.all { u64::MAX } else { args.limit };
    let mut cursor: Option<String> = None;
    let mut shown = 0u64;
    let mut explained = Explain::default();
    let mut partial;
    loop {
        let limit = left.min(PAGE_EVENTS_MAX).to_string();
        let request = args
            .filter
            .apply(Request::get(&["v1", "events"]))
            .parameter("from", args.from.as_deref())
            .parameter("to", args.to.as_deref())
            .parameter("search", args.search.as_deref())
            .parameter("order", Some(&args.order))
            .parameter("include", args.proof.then_some("proof"))
            .parameter("explain", args.explain.then_some("true"))
            .parameter("limit", Some(&limit))
            .parameter("cursor", cursor.as_deref());
        let text = client.ask(&request)?;
        let page: Page<'_> = serde_json::from_str(&text).context("the answer is no page of events")?;
        for event in &page.events {
            if args.json {
                out.line(event.get())?;
            } else {
                out.line(&EventView::read(event)?.line(width))?;
            }
        }
        // What is there is shown before the next page is waited for.
        out.flush()?;
        let count = page.events.len() as u64;
        shown += count;
        left = left.saturating_sub(count);
        explained.add(page.explain);
        partial = page.partial;
        cursor = page.next_cursor;
        if cursor.is_none() || left == 0 {
            break;
        }
        anyhow::ensure!(count > 0 || page.partial, "the server gave an empty page and a cursor");
    }
    if !args.json {
        if shown == 0 {
            eprintln!("no events found");
        } else if cursor.is_some() {
            let why = if partial { "the server stopped reading early; " } else { "" };
            eprintln!("{why}there are more; --limit shows more of them, --all shows all");
        }
    }
    if args.explain && args.json {
        eprintln!("{}", serde_json::to_string(&explained)?);
    } else if args.explain {
        eprintln!("{}", explained.lines());
    }
    Ok(ExitCode::SUCCESS)
}
