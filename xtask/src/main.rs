//! Every chore of the repository: `cargo xtask NAME`.

mod bench;
mod docs;
mod fuzz;
mod sample;
mod shell;
mod test;

use clap::Parser as _;

/// Chores of the Quipu repository.
#[derive(clap::Parser)]
#[command(name = "cargo xtask")]
enum Chore {
    /// Set up what the tests need and run all of them.
    Test(test::TestArgs),
    /// Measure the server on this machine, with the machine's own limits beside it.
    Bench(bench::BenchArgs),
    /// Make a seeded, varied, realistic data set (NDJSON).
    Sample(sample::SampleArgs),
    /// Search for inputs that break a parser (libFuzzer).
    Fuzz(fuzz::FuzzArgs),
    /// Write the pages that are generated from code; with --check, fail if they differ.
    Docs(docs::DocsArgs),
}

fn main() -> anyhow::Result<()> {
    match Chore::parse() {
        Chore::Test(args) => test::run(&args),
        Chore::Bench(args) => bench::run(&args),
        Chore::Sample(args) => sample::run(args),
        Chore::Fuzz(args) => fuzz::run(&args),
        Chore::Docs(args) => docs::run(&args),
    }
}
