//! Every chore of the repository: `cargo xtask NAME`.

mod athena;
mod bench;
mod coldstart;
mod cost;
mod docs;
mod e2e;
mod fuzz;
mod sample;
mod shell;
mod soak;
mod test;
mod tools;

use clap::Parser as _;

/// Chores of the Quipu repository.
#[derive(clap::Parser)]
#[command(name = "cargo xtask")]
enum Chore {
    /// Set up what the tests need and run all of them.
    Test(test::TestArgs),
    /// Measure the server on this machine, with the machine's own limits beside it.
    Bench(bench::BenchArgs),
    /// Measure how the functions start: time, size, memory.
    Coldstart(coldstart::ColdstartArgs),
    /// Count what a million events cost on DynamoDB.
    Cost(cost::CostArgs),
    /// Make a seeded, varied, realistic data set (NDJSON).
    Sample(sample::SampleArgs),
    /// Search for inputs that break a parser (libFuzzer).
    Fuzz(fuzz::FuzzArgs),
    /// Write the pages that are generated from code; with --check, fail if they differ.
    Docs(docs::DocsArgs),
    /// Write what is generated from the SQL in infra/athena; with --check, fail if something differs.
    Athena(athena::AthenaArgs),
    /// Deploy the template to the emulator, with the functions built for this machine, and drive it over HTTP.
    E2e(e2e::E2eArgs),
    /// Write and read for minutes with servers that are killed and wires that fail, then verify everything.
    Soak(soak::SoakArgs),
    /// Install the programs that the chores run, and print where they are.
    Tools(tools::ToolsArgs),
}

fn main() -> anyhow::Result<()> {
    match Chore::parse() {
        Chore::Test(args) => test::run(&args),
        Chore::Bench(args) => bench::run(&args),
        Chore::Coldstart(args) => coldstart::run(&args),
        Chore::Cost(args) => cost::run(&args),
        Chore::Sample(args) => sample::run(args),
        Chore::Fuzz(args) => fuzz::run(&args),
        Chore::Docs(args) => docs::run(&args),
        Chore::Athena(args) => athena::run(&args),
        Chore::E2e(args) => e2e::run(&args),
        Chore::Soak(args) => soak::run(&args),
        Chore::Tools(args) => tools::run(&args),
    }
}
