//! The programs of others that the chores run, at pinned versions, installed under `target/` on first use.
//!
//! A marker, written last, names what is installed: one that differs or is missing means that the installation
//! is old or was cut short, and it is made again. A lock keeps two chores from installing at once.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::shell::{self, cargo, target};

/// The client that the AgentLens tests drive, exactly as published, the readers of Parquet that are not ours, what puts
/// Athena's SQL into DuckDB's words, and Trino's own grammar.
const CLIENT: &[&str] = &[
    "agentlensai==0.12.0",
    "pyarrow==26.0.1",
    "duckdb==2.0.0",
    "sqlglot==30.30.0",
    "trino-query-parser==0.422.7",
];
/// The stand-in for AWS. It and the SAM command line pin different botocores: two environments.
const AWS: &[&str] = &["ministack[full]==1.5.33"];
const SAM: &[&str] = &["aws-sam-cli==1.170.0", "cfn-lint==1.58.0", "cargo-lambda==1.9.2", "ziglang==0.17.1"];
/// A DynamoDB that counts capacity as AWS does.
const DYNOXIDE: (&str, &str) = ("dynoxide-rs", "3.2.0");
const DYNOXIDE_FEATURES: &str = "native-sqlite,http-server,cli";

#[derive(clap::Args)]
pub(crate) struct ToolsArgs {
    /// Which; all if none is named.
    tools: Vec<Tool>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Tool {
    Python,
    Ministack,
    Dynoxide,
    Sam,
    CfnLint,
    CargoLambda,
}

/// Installs what is missing and prints where each is, one a line.
pub(crate) fn run(args: &ToolsArgs) -> anyhow::Result<()> {
    let tools = if args.tools.is_empty() { <Tool as clap::ValueEnum>::value_variants() } else { &args.tools };
    for tool in tools {
        let path = match tool {
            Tool::Python => python(),
            Tool::Ministack => ministack(),
            Tool::Dynoxide => dynoxide(),
            Tool::Sam => sam(),
            Tool::CfnLint => cfn_lint(),
            Tool::CargoLambda => cargo_lambda(),
        }?;
        println!("{}", path.display());
    }
    Ok(())
}

/// A Python with the published client, the readers of Parquet and sqlglot.
pub(crate) fn python() -> anyhow::Result<PathBuf> {
    environment("venv", CLIENT, "python")
}

/// The AWS stand-in.
pub(crate) fn ministack() -> anyhow::Result<PathBuf> {
    environment("venv-aws", AWS, "ministack")
}

/// The SAM command line.
pub(crate) fn sam() -> anyhow::Result<PathBuf> {
    environment("venv-sam", SAM, "sam")
}

/// The linter of CloudFormation templates.
pub(crate) fn cfn_lint() -> anyhow::Result<PathBuf> {
    environment("venv-sam", SAM, "cfn-lint")
}

/// cargo-lambda. It finds zig only through the `python3` beside it: see [`with_path`].
pub(crate) fn cargo_lambda() -> anyhow::Result<PathBuf> {
    environment("venv-sam", SAM, "cargo-lambda")
}

/// The DynamoDB stand-in.
pub(crate) fn dynoxide() -> anyhow::Result<PathBuf> {
    let (name, version) = DYNOXIDE;
    let root = target().join("tools");
    let program = root.join("bin/dynoxide");
    let pins = format!("{name} {version} {DYNOXIDE_FEATURES}\n");
    once(&root.join("dynoxide.installed"), &program, &pins, || {
        let mut install = cargo();
        install.args(["install", name, "--version", version, "--locked", "--force", "--quiet"]);
        install.args(["--no-default-features", "--features", DYNOXIDE_FEATURES, "--root"]).arg(&root);
        shell::run("build dynoxide (some minutes, once)", to_stderr(&mut install)?)
    })
}

/// Puts a tool's own directory first on the path of a command.
pub(crate) fn with_path<'a>(command: &'a mut Command, tool: &Path) -> anyhow::Result<&'a mut Command> {
    let own = tool.parent().context("a tool stands in a directory")?;
    let old = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(own.to_owned()).chain(std::env::split_paths(&old)))?;
    Ok(command.env("PATH", path))
}

fn environment(name: &str, packages: &[&str], program: &str) -> anyhow::Result<PathBuf> {
    let venv = target().join(name);
    let program = venv.join("bin").join(program);
    let pins = format!("{}\n", packages.join("\n"));
    once(&venv.join("installed"), &program, &pins, || {
        if venv.exists() {
            fs::remove_dir_all(&venv).with_context(|| format!("remove {}", venv.display()))?;
        }
        let mut make = Command::new("python3");
        make.args(["-m", "venv"]).arg(&venv);
        shell::run("make a Python environment", to_stderr(&mut make)?)?;
        let mut install = Command::new(venv.join("bin/python"));
        install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(packages);
        shell::run(&format!("install {}", packages.join(" ")), to_stderr(&mut install)?)
    })
}

/// Installs unless the marker holds these pins; gives the program.
fn once(
    marker: &Path,
    program: &Path,
    pins: &str,
    install: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<PathBuf> {
    let installed = || program.exists() && fs::read_to_string(marker).is_ok_and(|held| held == pins);
    if !installed() {
        fs::create_dir_all(target())?;
        let lock = File::create(target().join("tools.lock"))?;
        lock.lock().context("wait for another installation")?;
        // Another chore may have installed it while this one waited.
        if !installed() {
            let _ = fs::remove_file(marker);
            install()?;
            if !program.exists() {
                bail!("{} is missing after its installation", program.display());
            }
            fs::write(marker, pins)?;
        }
    }
    Ok(program.to_owned())
}

/// What an installation says goes to the error output: the output belongs to the chore.
fn to_stderr(command: &mut Command) -> anyhow::Result<&mut Command> {
    use std::os::fd::AsFd as _;
    let own = std::io::stderr().as_fd().try_clone_to_owned()?;
    Ok(command.stdout(own))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn what_is_cut_short_or_old_is_installed_again() {
        let dir = tempfile::tempdir().unwrap();
        let (marker, program) = (dir.path().join("installed"), dir.path().join("program"));
        let installations = Cell::new(0);
        let install = |pins: &str, succeeds: bool| {
            once(&marker, &program, pins, || {
                installations.set(installations.get() + 1);
                fs::write(&program, pins)?;
                if succeeds { Ok(()) } else { bail!("the network") }
            })
        };
        assert!(install("a==1", false).is_err());
        assert!(!marker.exists(), "the program is there, and may be half of it");
        assert_eq!(install("a==1", true).unwrap(), program);
        install("a==1", true).unwrap();
        assert_eq!(installations.get(), 2, "once it is there it is left alone");
        install("a==2", true).unwrap();
        assert_eq!(fs::read_to_string(&program).unwrap(), "a==2");
        assert!(install("a==3", false).is_err());
        assert!(!marker.exists(), "a failed change leaves nothing that looks installed");
        install("a==3", true).unwrap();
        fs::remove_file(&program).unwrap();
        install("a==3", true).unwrap();
        assert_eq!(installations.get(), 6);
    }
}
