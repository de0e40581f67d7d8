//! `cargo xtask test`: everything that must hold, on a fresh machine with a Rust toolchain and Python 3.

use std::path::PathBuf;
use std::process::Command;

use crate::docs;
use crate::shell::{self, cargo, root, target};

/// The client that the AgentLens tests drive, exactly as published.
const AGENTLENS_CLIENT: &str = "agentlensai==0.12.0";

#[derive(clap::Args)]
pub(crate) struct TestArgs {
    /// Only tests whose name contains this.
    filter: Option<String>,
}

fn python() -> anyhow::Result<PathBuf> {
    let venv = target().join("venv");
    let python = venv.join("bin/python");
    let marker = venv.join(format!("installed-{AGENTLENS_CLIENT}"));
    if !marker.exists() {
        shell::run("make a Python environment", Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        shell::run(
            "install the published client",
            Command::new(&python).args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                AGENTLENS_CLIENT,
            ]),
        )?;
        std::fs::write(marker, "")?;
    }
    Ok(python)
}

pub(crate) fn run(args: &TestArgs) -> anyhow::Result<()> {
    let python = python()?;
    docs::run(&docs::DocsArgs { check: true })?;
    // The tests drive the real binary; both builds share their dependencies.
    shell::run(
        "build the server",
        cargo().args(["build", "--workspace", "--all-features", "--bin", "quipu"]),
    )?;
    let mut tests = cargo();
    tests.args(["test", "--workspace", "--all-features", "--no-fail-fast"]).env("QUIPU_TEST_PYTHON", &python);
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
    }
    Ok(())
}
