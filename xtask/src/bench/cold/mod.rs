//! Cold reads: what a query takes once everything that it is about has left the hot tier.
//!
//! In this process, on the embedded store and a directory: a ledger is filled by agents that append by turns for three
//! days of its clock, is archived in so many batches, and everything hot expires. Then the queries: each by a `Ledger`
//! that has read nothing yet, and again by one that has answered the same questions before. Then all of it with the
//! same events in ten times as many batches.
//!
//! Requests and bytes are those of batches. The catalogue is not in them: it is read from the store, once by a process.
//! They are what the library counts, and say the same of a bucket; times are of a directory whose files the kernel
//! has in memory, so of the work alone. A row with 20 ms added to each ranged read says what a bucket makes of them.

mod distant;
mod fill;
mod questions;

use std::path::Path;
use std::time::Duration;

use quipu_core::ledger::Ledger;
use quipu_core::limits;

use super::Report;
use super::load::percentile;
use super::machine;
use fill::Filled;
use questions::{Asked, Kind};

/// Where its part of the page begins.
pub(super) const HEADING: &str = "## Cold reads";

/// What a ranged read takes longer in the last rows: a bucket answers a small one after 15 to 30 ms.
const DISTANCE: Duration = Duration::from_millis(20);

/// Fills, asks, and writes the part of the page.
pub(super) fn measure(
    report: &mut Report,
    scratch: &Path,
    events: usize,
    batches: &[usize],
) -> anyhow::Result<()> {
    report.line(HEADING);
    report.line(&format!(
        "\n`cargo xtask bench --only-cold --cold-events {events}`, which writes this part alone; on {}.\n",
        machine::processor()
    ));
    report.line(&fill::describe());
    report.line(
        "\nRequests and bytes are ranged reads of batches, the one that opens a batch among them; the catalogue comes from the store and is not counted. *Fresh*: a process that has read nothing; *again*: one that was asked all these questions before. Files are in the page cache, so the times are work, not waiting. A full-text search may take several pages: the budget of a page is 256 MiB.",
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut aims = Vec::new();
    for &batches in batches {
        let directory = scratch.join(format!("cold-{batches}"));
        let filled = runtime.block_on(fill::fill(&directory, events, batches))?;
        report.line(&format!("\n### {} events in {} batches\n", filled.events, filled.batches));
        report.line(&format!(
            "{:.0} MB of Parquet; a batch has {} events and {:.2} MB. Filled and archived in {:.0} s.\n",
            filled.object_bytes as f64 / 1e6,
            filled.events / filled.batches,
            filled.object_bytes as f64 / 1e6 / filled.batches as f64,
            filled.seconds,
        ));
        report.line("| query | asked | answer | requests, median | most | MB, median | most | p50 ms | p99 ms | again: requests, median | p50 ms | p99 ms |");
        report.line("|---|---|---|---|---|---|---|---|---|---|---|---|");
        for kind in Kind::ALL {
            let row = runtime.block_on(ask(&filled, kind, Duration::ZERO))?;
            report.line(&row.line(kind.name()));
            aims.extend(kind.aim().map(|aim| {
                let most = row.most(|asked| asked.requests);
                let verdict = if most <= aim { "met" } else { "missed" };
                format!(
                    "- {} in at most {aim} ranged reads, {} batches: {verdict}, at most {most}",
                    kind.name(),
                    filled.batches
                )
            }));
        }
        let name = format!("{}, each ranged read {} ms later", Kind::ById.name(), DISTANCE.as_millis());
        report.line(&runtime.block_on(ask(&filled, Kind::ById, DISTANCE))?.line(&name));
        drop(filled);
        std::fs::remove_dir_all(&directory)?;
    }
    report.line("\n### Aims\n");
    aims.iter().for_each(|aim| report.line(aim));
    Ok(())
}

/// What came of one kind of question.
struct Row {
    /// By a process of its own each.
    fresh: Vec<Asked>,
    /// By one that was asked all of them before.
    again: Vec<Asked>,
}

async fn ask(filled: &Filled, kind: Kind, distance: Duration) -> anyhow::Result<Row> {
    let questions = kind.questions(filled)?;
    let (mut fresh, mut again) = (Vec::new(), Vec::new());
    for question in &questions {
        let ledger: Ledger = filled.ledger(distance)?;
        fresh.push(question.ask(&ledger).await?);
    }
    let ledger = filled.ledger(distance)?;
    for question in &questions {
        question.ask(&ledger).await?;
    }
    for question in &questions {
        again.push(question.ask(&ledger).await?);
    }
    Ok(Row { fresh, again })
}

impl Row {
    fn most(&self, of: fn(&Asked) -> u64) -> u64 {
        self.fresh.iter().map(of).max().unwrap_or(0)
    }

    fn line(&self, name: &str) -> String {
        let sorted = |asked: &[Asked], of: fn(&Asked) -> f64| {
            let mut values: Vec<f64> = asked.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            values
        };
        let requests = |asked: &Asked| asked.requests as f64;
        let ms = |asked: &Asked| asked.ms;
        let megabytes = sorted(&self.fresh, |asked| asked.bytes as f64 / 1e6);
        let answer = sorted(&self.fresh, |asked| asked.answer as f64);
        let [first, last] = [0.0, 100.0].map(|p| percentile(&answer, p));
        let answer = if first == last { format!("{first}") } else { format!("{first} to {last}") };
        let pages = self.most(|asked| asked.pages);
        let answer = if pages > 1 { format!("{answer}, in up to {pages} pages") } else { answer };
        let [often, seldom] = [&self.fresh, &self.again].map(|asked| {
            let ms = sorted(asked, ms);
            // Of few, the 99th percentile is the longest.
            format!("{:.1} | {:.1}", percentile(&ms, 50.0), percentile(&ms, 99.0))
        });
        format!(
            "| {name} | {} | {answer} | {:.0} | {} | {:.2} | {:.2} | {often} | {:.0} | {seldom} |",
            self.fresh.len(),
            percentile(&sorted(&self.fresh, requests), 50.0),
            self.most(|asked| asked.requests),
            percentile(&megabytes, 50.0),
            percentile(&megabytes, 100.0),
            percentile(&sorted(&self.again, requests), 50.0),
        )
    }
}

const _: () = assert!(limits::QUERY_READ_BYTES_MAX == 256 << 20, "the page says so");
