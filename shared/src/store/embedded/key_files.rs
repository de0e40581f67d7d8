//! The files in `keys/`: what they hold and how they are read. How a key is replaced is in [`super::rotation`].
//!
//! Private keys are in the form of Go's note signers (golang.org/x/mod/sumdb/note), mode 600; one that others may
//! read is refused, as ssh does. The newest log key is the one that the last rotation names; only without a rotation
//! is it what `log.pub` says, which a rotation that was interrupted leaves one key behind.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::data_dir::{DataDirError, read_text, write_new};
use super::rotation;
use crate::ledger::Identity;
use crate::log::keys::{KeyChain, Rotation};
use crate::note::{NoteSigner, VerifierKey};
use crate::statement;
use crate::time::Micros;

pub(super) const LOG_KEY: &str = "log.key";
pub(super) const LOG_PUB: &str = "log.pub";
pub(super) const RECEIPT_KEY: &str = "receipt.key";
pub(super) const CERTIFICATES: &str = "certificates.json";
pub(super) const ROTATIONS: &str = "rotations.json";

pub(super) fn bad(path: &Path, why: impl ToString) -> DataDirError {
    DataDirError::Key { path: path.to_owned(), why: why.to_string() }
}

pub(super) fn exists(path: &Path) -> Result<bool, DataDirError> {
    path.try_exists().map_err(|e| DataDirError::io(path, e))
}

/// Reads a private key of this name.
pub(super) fn read_private(path: &Path, name: &str) -> Result<NoteSigner, DataDirError> {
    let mode = fs::metadata(path).map_err(|e| DataDirError::io(path, e))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(DataDirError::KeyMode { path: path.to_owned(), mode: mode & 0o777 });
    }
    let signer = NoteSigner::parse_private(&read_text(path)?).map_err(|e| bad(path, e))?;
    if signer.verifier().name() == name {
        Ok(signer)
    } else {
        Err(bad(path, format_args!("it is named {}, not {name}", signer.verifier().name())))
    }
}

/// Makes a private key.
pub(super) fn make_private(path: &Path, name: &str) -> Result<NoteSigner, DataDirError> {
    let signer = NoteSigner::generate(name).map_err(|e| bad(path, e))?;
    write_new(path, signer.private_text().as_bytes(), 0o600)?;
    read_private(path, name)
}

pub(super) fn write_verifier(path: &Path, key: &VerifierKey) -> Result<(), DataDirError> {
    write_new(path, format!("{key}\n").as_bytes(), 0o644)
}

fn read_notes(path: &Path) -> Result<Vec<String>, DataDirError> {
    serde_json::from_str(&read_text(path)?).map_err(|e| bad(path, e))
}

pub(super) fn write_notes(path: &Path, notes: &[String]) -> Result<(), DataDirError> {
    let list = serde_json::to_string_pretty(notes).map_err(|e| bad(path, e))?;
    write_new(path, format!("{list}\n").as_bytes(), 0o644)
}

/// Makes whatever is not there yet. What is there stays as it is.
pub(super) fn complete(keys: &Path, deployment: &str, now: Micros) -> Result<(), DataDirError> {
    let private = |file: &str, name: &str| {
        let path = keys.join(file);
        if exists(&path)? { read_private(&path, name) } else { make_private(&path, name) }
    };
    let log = private(LOG_KEY, &statement::log_key_name(deployment))?;
    write_verifier(&keys.join(LOG_PUB), log.verifier())?;
    let receipt = private(RECEIPT_KEY, &statement::receipt_key_name(deployment))?;
    let certificates = keys.join(CERTIFICATES);
    if !exists(&certificates)? {
        let certificate = statement::certify(&log, deployment, receipt.verifier(), now);
        write_notes(&certificates, &[certificate])?;
    }
    Ok(())
}

/// The public half of a directory's keys, checked.
pub(super) struct PublicKeys {
    /// The log keys.
    pub(super) chain: KeyChain,
    /// How each was replaced by the next, oldest first.
    pub(super) rotations: Vec<String>,
    /// The certificates of all receipt keys, the newest last.
    pub(super) certificates: Vec<String>,
    /// The newest receipt key.
    pub(super) receipt_key: VerifierKey,
}

impl PublicKeys {
    /// Reads them; nothing is written, and no private key is looked at.
    pub(super) fn read(keys: &Path, deployment: &str) -> Result<Self, DataDirError> {
        let path = keys.join(LOG_PUB);
        let said = VerifierKey::parse(read_text(&path)?.trim_end()).map_err(|e| bad(&path, e))?;
        let name = statement::log_key_name(deployment);
        if said.name() != name {
            return Err(bad(&path, format_args!("it is not named {name}")));
        }
        let of_rotations = keys.join(ROTATIONS);
        let rotations = if exists(&of_rotations)? { read_notes(&of_rotations)? } else { Vec::new() };
        let newest = match rotations.last() {
            Some(note) => Rotation::open(note).map_err(|e| bad(&of_rotations, e))?.new,
            None => said.clone(),
        };
        let chain = KeyChain::new(deployment, newest, rotations.iter().map(String::as_str))
            .map_err(|e| bad(&of_rotations, e))?;
        // The newest, or the one before: a rotation that was interrupted.
        if !chain.keys().iter().rev().take(2).any(|key| *key == said) {
            return Err(bad(&path, "it is not the newest log key"));
        }
        let path = keys.join(CERTIFICATES);
        let certificates = read_notes(&path)?;
        let mut receipt_key = None;
        for certificate in &certificates {
            receipt_key = Some(chain.open_certificate(certificate).map_err(|e| bad(&path, e))?);
        }
        let receipt_key = receipt_key.ok_or_else(|| bad(&path, "it holds no certificate"))?;
        Ok(Self { chain, rotations, certificates, receipt_key })
    }
}

/// Reads all keys, and checks that they belong together. A rotation that was interrupted is brought to its end.
pub(super) fn identity(keys: &Path, deployment: &str) -> Result<Identity, DataDirError> {
    let public = rotation::settle(keys, deployment)?;
    let receipt_key = read_private(&keys.join(RECEIPT_KEY), &statement::receipt_key_name(deployment))?;
    let PublicKeys { chain, rotations, certificates, .. } = public;
    let log_key = chain.newest().clone();
    Ok(Identity { deployment: deployment.to_owned(), log_key, certificates, rotations, receipt_key })
}

/// Reads the private log key.
pub(super) fn log_signer(keys: &Path, deployment: &str) -> Result<NoteSigner, DataDirError> {
    rotation::settle(keys, deployment)?;
    read_private(&keys.join(LOG_KEY), &statement::log_key_name(deployment))
}
