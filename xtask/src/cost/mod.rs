//! `cargo xtask cost`: what a million events cost on DynamoDB, counted and not estimated.
//!
//! The ledger's own code writes to a stand-in that reports consumed capacity as AWS does (dynoxide), through a proxy
//! that asks it to; other layouts are written beside it. Sizes follow from the sample's seed, so the figures are
//! the same on every machine. Times, storage and Lambda are not in them.

#[cfg(feature = "aws")]
mod dynamo;
#[cfg(feature = "aws")]
mod layouts;
#[cfg(feature = "aws")]
mod ours;
#[cfg(feature = "aws")]
mod page;
#[cfg(feature = "aws")]
mod prices;
#[cfg(feature = "aws")]
mod reads;

#[derive(clap::Args)]
pub(crate) struct CostArgs {
    /// Write docs/cost.md.
    #[arg(long, conflicts_with = "check")]
    write: bool,
    /// Only fail if a batch of 100 costs more than docs/cost.md says. Seconds; part of the tests.
    #[arg(long)]
    check: bool,
}

/// Builds this chore with the store in it, as the tests have it, and runs that: the others do without the AWS SDK.
#[cfg(not(feature = "aws"))]
pub(crate) fn run(args: &CostArgs) -> anyhow::Result<()> {
    use std::process::Command;

    use crate::shell::{self, cargo, target};

    let build = ["build", "--quiet", "--workspace", "--all-features", "--bin", "xtask"];
    shell::run("build the store into this chore", cargo().args(build))?;
    let mut again = Command::new(target().join("debug/xtask"));
    again.arg("cost").args(args.write.then_some("--write")).args(args.check.then_some("--check"));
    shell::run("count", &mut again)
}

#[cfg(feature = "aws")]
pub(crate) use counted::run;

#[cfg(feature = "aws")]
mod counted {
    use anyhow::{Context as _, bail};

    use super::dynamo::Dynamo;
    use super::{CostArgs, layouts, ours, page, reads};
    use crate::shell::root;

    /// Batches, each with how many events are measured: ours, and of the naive design.
    const SIZES: [(usize, usize, usize); 4] =
        [(1, 3_000, 3_000), (10, 6_000, 3_000), (100, 10_000, 3_000), (1000, 20_000, 3_000)];

    /// Segments in the feed when it is read.
    const FEEDS: [usize; 2] = [1_000, 10_000];

    /// Events of the check.
    const GUARD_EVENTS: usize = 2_000;

    /// What the check allows for sums of fractions.
    const ROUNDING: f64 = 0.005;

    pub(crate) fn run(args: &CostArgs) -> anyhow::Result<()> {
        if args.check {
            return check();
        }
        let dynamo = Dynamo::start()?;
        let mut rows = Vec::new();
        for (batch, events, naive_events) in SIZES {
            eprintln!("--- batches of {batch}");
            let ours = block_on(ours::measure(&dynamo, batch, events))?;
            let extras = block_on(ours::extras(&dynamo, batch))?;
            let parts = layouts::parts(&dynamo, &ours)?;
            let bytes = layouts::bytes(&ours)?;
            let naive = layouts::naive(&dynamo, batch, naive_events)?;
            eprintln!("{:.2} write units a batch; naive {:.2}", ours.write(), naive.write());
            rows.push(page::Row { ours, extras, parts, bytes, naive });
        }
        eprintln!("--- reads");
        let reads = block_on(reads::measure(&dynamo, &FEEDS))?;
        let guard = guard(&dynamo)?;
        let text = page::write(&rows, &reads, guard, GUARD_EVENTS);
        println!("{text}");
        if args.write {
            std::fs::write(root().join("docs/cost.md"), &text)?;
        }
        Ok(())
    }

    /// Fails if a batch of 100 costs more than the page says.
    pub(super) fn check() -> anyhow::Result<()> {
        let text = std::fs::read_to_string(root().join("docs/cost.md")).context("docs/cost.md")?;
        let recorded = page::recorded(&text).context("docs/cost.md records no figure for the check")?;
        let now = guard(&Dynamo::start()?)?;
        if now > recorded + ROUNDING {
            bail!(
                "a batch of 100 costs {now:.2} write units, docs/cost.md says {recorded:.2}: \
                 find out why, or accept it with `cargo xtask cost --write`"
            );
        }
        println!("a batch of 100 costs {now:.2} write units; docs/cost.md allows {recorded:.2}");
        Ok(())
    }

    fn guard(dynamo: &Dynamo) -> anyhow::Result<f64> {
        Ok(block_on(ours::measure(dynamo, 100, GUARD_EVENTS))?.write())
    }

    fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
    }
}

#[cfg(all(test, feature = "aws"))]
mod tests {
    #[test]
    fn a_batch_of_100_costs_no_more_than_the_page_says() {
        super::counted::check().unwrap();
    }
}
