//! `quipu key new`: a private key in a file, its verifier key on standard output.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use quipu_core::note::NoteSigner;

use crate::failure::hinted;
use crate::output::print;

/// Arguments of `quipu key new`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  quipu key new --name example.com/witness-1 --out witness.key > witness.pub

The file is for its owner alone (mode 600) and in the form of Go's note signers. Standard output has the verifier key,
which is no secret.")]
pub(super) struct NewArgs {
    /// What the key signs as: no white space, no +
    #[arg(long, value_name = "NAME")]
    name: String,
    /// Where the private key goes; nothing that is there is overwritten [default: the name, with - for what does not
    /// belong in a file's name, and .key]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Where a key of this name goes if nobody says.
fn default_file(name: &str) -> PathBuf {
    let letter = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let file: String = name.chars().map(letter).collect();
    PathBuf::from(format!("{}.key", file.trim_start_matches(['.', '-'])))
}

/// Runs it.
pub(super) fn run(args: &NewArgs) -> anyhow::Result<()> {
    let signer = NoteSigner::generate(&args.name).with_context(|| format!("the name {:?}", args.name))?;
    let path = args.out.clone().unwrap_or_else(|| default_file(&args.name));
    let shown = path.display();
    let mut file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {
            let hint = "give another file with --out; a private key that is overwritten is lost";
            return Err(hinted(format!("{shown} is there already"), hint).into());
        }
        opened => opened.with_context(|| format!("cannot make {shown}"))?,
    };
    let written = file.write_all(signer.private_text().as_bytes()).and_then(|()| file.sync_all());
    written.with_context(|| format!("cannot write {shown}"))?;
    eprintln!("The private key is in {shown}: keep it to yourself. Standard output has its verifier key.");
    print(&signer.verifier().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_after_its_key() {
        for (name, file) in [
            ("example.com/witness-1", "example.com-witness-1.key"),
            ("../../etc", "etc.key"),
            ("ä/b", "b.key"),
            ("/", ".key"),
        ] {
            assert_eq!(default_file(name), PathBuf::from(file), "{name}");
        }
    }
}
