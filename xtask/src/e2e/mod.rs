//! `cargo xtask e2e`: deploys `infra/template.yaml` to the package-installed emulator as a user deploys it to AWS,
//! with the functions built for this machine, and asks it over HTTP only.
//!
//! The emulator runs with its IAM on: each function calls with its own role, and a call that the template does not
//! allow fails. Between the functions and the emulator stands a recorder for each function, for the conditions that
//! the emulator cannot judge. What else differs from AWS is in the table of `variant.rs` and in `emulator.rs`.

mod archive;
mod drive;
mod emulator;
mod policy;
mod recorder;
mod sign;
mod sql;
mod variant;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::Context as _;

use crate::shell::{self, cargo, root, target};
use crate::tools;
use emulator::{Emulator, Stack};
use recorder::Recorder;

/// The functions: folders of `functions/`, binaries with `quipu-` before them, resources with a capital.
pub(crate) const FUNCTIONS: [&str; 5] = ["ingest", "query", "tokens", "archive", "erase"];

/// The bootstrap secret of the stack.
const SECRET: &str = "end-to-end-bootstrap-secret";

/// Linters and the name resolution of the SDKs want a region; nothing is ever sent there.
const REGION: &str = "us-east-1";

#[derive(clap::Args, Default)]
pub(crate) struct E2eArgs {
    /// Leave out the linters.
    #[arg(long)]
    no_lint: bool,
    /// Deploy what was built last.
    #[arg(long)]
    no_build: bool,
}

pub(crate) fn run(args: &E2eArgs) -> anyhow::Result<()> {
    let started = Instant::now();
    let (sam, ministack) = (tools::sam()?, tools::ministack()?);
    if !args.no_lint {
        let mut validate = sam_command(&sam)?;
        let template = root().join("infra/template.yaml");
        shell::run(
            "sam validate --lint",
            validate.args(["validate", "--lint", "--template"]).arg(&template),
        )?;
        shell::run("cfn-lint", Command::new(tools::cfn_lint()?).current_dir(root()).arg(&template))?;
    }
    let place = target().join("e2e");
    if place.exists() {
        fs::remove_dir_all(&place).with_context(|| format!("remove {}", place.display()))?;
    }
    fs::create_dir_all(place.join("tmp"))?;
    if !args.no_build {
        build()?;
    }
    lay_out(&place)?;
    eprintln!("--- {:.0} s: deploy", started.elapsed().as_secs_f64());

    let recorders: Vec<Recorder> = FUNCTIONS.iter().map(|_| Recorder::bind()).collect::<Result<_, _>>()?;
    let ports: Vec<u16> = recorders.iter().map(Recorder::port).collect();
    let template = variant::write(&place, &ports)?;
    let emulator = Emulator::start(&ministack, &place)?;
    for recorder in &recorders {
        recorder.forward_to(emulator.port())?;
    }
    let stack = deploy(&sam, &emulator, &template, &place)?;
    eprintln!("--- {:.0} s: drive {}", started.elapsed().as_secs_f64(), stack.url);
    let driven = drive::run(&stack, &emulator, &place, SECRET).and_then(|()| {
        policy::check(&stack.template, &FUNCTIONS.into_iter().zip(&recorders).collect::<Vec<_>>())
    });
    if driven.is_err() {
        emulator.print_logs(&place);
    }
    driven?;
    drop(emulator);
    fs::remove_dir_all(&place)?;
    eprintln!("--- end to end in {:.0} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// Builds the functions for this machine, and what checks their exports and the archive.
fn build() -> anyhow::Result<()> {
    let mut command = cargo();
    // As the test command builds everything, so that nothing is built twice.
    command.args(["build", "--workspace", "--all-features", "--all-targets"]);
    shell::run("build the functions and the verifier", &mut command)
}

/// Lays each function where SAM packs it.
fn lay_out(place: &Path) -> anyhow::Result<()> {
    for function in FUNCTIONS {
        let directory = place.join(function);
        fs::create_dir_all(&directory)?;
        let built = target().join("debug").join(format!("quipu-{function}"));
        fs::copy(&built, directory.join("bootstrap")).with_context(|| format!("copy {}", built.display()))?;
        // Debug information is most of the file, and each cold start unpacks it.
        let mut strip = Command::new("strip");
        // Without the tool it is only slower.
        let _ = strip.arg(directory.join("bootstrap")).status();
    }
    Ok(())
}

fn deploy(sam: &Path, emulator: &Emulator, template: &Path, place: &Path) -> anyhow::Result<Stack> {
    let mut command = sam_command(sam)?;
    emulator.address(&mut command);
    command.args(["deploy", "--config-env", "local", "--config-file"]).arg(root().join("samconfig.toml"));
    command.arg("--template-file").arg(template).args(["--region", REGION, "--no-progressbar"]);
    command.arg("--parameter-overrides");
    command.arg(format!("BootstrapSecret={SECRET}"));
    command.args([variant::architecture(), "DeletionProtection=false".to_owned()]);
    command.env("__SAM_CLI_APP_DIR", place.join("sam"));
    let log = place.join("deploy.log");
    command.stdout(fs::File::create(&log)?);
    let deployed = shell::run("sam deploy", &mut command);
    if deployed.is_err() {
        eprintln!("{}", fs::read_to_string(&log).unwrap_or_default());
        emulator.print_logs(place);
    }
    deployed?;
    emulator.stack("quipu")
}

fn sam_command(sam: &Path) -> anyhow::Result<Command> {
    let mut command = Command::new(sam);
    tools::with_path(&mut command, sam)?;
    command.current_dir(root()).env("SAM_CLI_TELEMETRY", "0").env("AWS_DEFAULT_REGION", REGION);
    Ok(command)
}

/// The `quipu` that was built with the functions.
fn verifier() -> PathBuf {
    target().join("debug/quipu")
}
