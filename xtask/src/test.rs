//! `cargo xtask test`: everything that must hold, on a fresh machine with a Rust toolchain and Python 3.

use std::process::Command;

use crate::shell::{self, cargo, root};
use crate::{athena, docs, e2e, tools};

#[derive(clap::Args)]
pub(crate) struct TestArgs {
    /// Only tests whose name contains this.
    filter: Option<String>,
}

pub(crate) fn run(args: &TestArgs) -> anyhow::Result<()> {
    let python = tools::python()?;
    let ministack = tools::ministack()?;
    let dynoxide = tools::dynoxide()?;
    docs::run(&docs::DocsArgs { check: true })?;
    athena::run(&athena::AthenaArgs { check: true })?;
    // The tests drive the real binary. All targets, so that the features of dependencies are those of the tests, and
    // nothing is built twice.
    shell::run(
        "build everything",
        cargo().args(["build", "--workspace", "--all-features", "--all-targets"]),
    )?;
    let mut tests = cargo();
    tests.args(["test", "--workspace", "--all-features", "--no-fail-fast"]);
    tests.env("QUIPU_TEST_PYTHON", &python);
    tests.env("QUIPU_TEST_MINISTACK", &ministack).env("QUIPU_TEST_DYNOXIDE", &dynoxide);
    if let Some(filter) = &args.filter {
        tests.arg(filter);
    }
    shell::run("test the workspace", &mut tests)?;
    if args.filter.is_none() {
        let verifier = root().join("tests/verifier");
        shell::run(
            "test the second verifier",
            Command::new(&python).args(["-m", "unittest", "discover", "--start-directory"]).arg(verifier),
        )?;
        e2e::run(&e2e::E2eArgs::default())?;
    }
    Ok(())
}
