//! The files in `keys/`: what they hold and how they are made.
//!
//! Private keys are in the form of Go's note signers (golang.org/x/mod/sumdb/note), mode 600; one that others may
//! read is refused, as ssh does.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::data_dir::{DataDirError, read_text, write_new};
use crate::ledger::Identity;
use crate::note::{NoteSigner, VerifierKey};
use crate::random;
use crate::statement;
use crate::time::Micros;

const LOG_KEY: &str = "log.key";
const LOG_PUB: &str = "log.pub";
const RECEIPT_KEY: &str = "receipt.key";
const CERTIFICATES: &str = "certificates.json";

/// Signature type byte of Ed25519 (c2sp.org/signed-note).
const ED25519: u8 = 0x01;

fn bad(path: &Path, why: impl ToString) -> DataDirError {
    DataDirError::Key { path: path.to_owned(), why: why.to_string() }
}

/// `PRIVATE+KEY+<name>+<key id>+<base64(0x01 || seed)>` and a newline.
fn encode_private(signer: &NoteSigner, seed: &[u8; 32]) -> String {
    let verifier = signer.verifier().to_string();
    // A key's name holds no +, so the first two parts are name and id; the third may hold one.
    let mut parts = verifier.splitn(3, '+');
    let (name, id) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let mut key = vec![ED25519];
    key.extend_from_slice(seed);
    format!("PRIVATE+KEY+{name}+{id}+{}\n", BASE64.encode(key))
}

fn decode_private(text: &str) -> Result<NoteSigner, &'static str> {
    let line = text.strip_suffix('\n').unwrap_or(text);
    let rest = line.strip_prefix("PRIVATE+KEY+").ok_or("it does not begin with PRIVATE+KEY+")?;
    let mut parts = rest.splitn(3, '+');
    let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
        return Err("expected PRIVATE+KEY+name+id+base64");
    };
    let bytes = BASE64.decode(key).map_err(|_| "its last part is not base64")?;
    let seed: [u8; 32] = match bytes.split_first() {
        Some((&ED25519, seed)) => seed.try_into().map_err(|_| "its seed is not 32 bytes")?,
        _ => return Err("it is not an Ed25519 key"),
    };
    let signer = NoteSigner::from_seed(name, &seed).map_err(|_| "its name cannot stand in a note")?;
    if signer.verifier().to_string().starts_with(&format!("{name}+{id}+")) {
        Ok(signer)
    } else {
        Err("its key id does not belong to this name and key")
    }
}

fn read_private(path: &Path, name: &str) -> Result<NoteSigner, DataDirError> {
    let mode = fs::metadata(path).map_err(|e| DataDirError::io(path, e))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(DataDirError::KeyMode { path: path.to_owned(), mode: mode & 0o777 });
    }
    let signer = decode_private(&read_text(path)?).map_err(|why| bad(path, why))?;
    if signer.verifier().name() == name {
        Ok(signer)
    } else {
        Err(bad(path, format_args!("it is named {}, not {name}", signer.verifier().name())))
    }
}

/// Reads a private key, or makes one where there is none.
fn private(path: &Path, name: &str) -> Result<NoteSigner, DataDirError> {
    if !path.try_exists().map_err(|e| DataDirError::io(path, e))? {
        let seed: [u8; 32] = random::bytes();
        let signer = NoteSigner::from_seed(name, &seed).map_err(|e| bad(path, e))?;
        write_new(path, encode_private(&signer, &seed).as_bytes(), 0o600)?;
    }
    read_private(path, name)
}

/// Makes whatever is not there yet. What is there stays as it is.
pub(super) fn complete(keys: &Path, deployment: &str, now: Micros) -> Result<(), DataDirError> {
    let log = private(&keys.join(LOG_KEY), &statement::log_key_name(deployment))?;
    write_new(&keys.join(LOG_PUB), format!("{}\n", log.verifier()).as_bytes(), 0o644)?;
    let receipt = private(&keys.join(RECEIPT_KEY), &statement::receipt_key_name(deployment))?;
    let certificates = keys.join(CERTIFICATES);
    if !certificates.try_exists().map_err(|e| DataDirError::io(&certificates, e))? {
        let certificate = statement::certify(&log, deployment, receipt.verifier(), now);
        let list = serde_json::to_string_pretty(&[certificate]).map_err(|e| bad(&certificates, e))?;
        write_new(&certificates, format!("{list}\n").as_bytes(), 0o644)?;
    }
    Ok(())
}

/// Reads the public key that a directory's own statements are checked with.
pub(super) fn read_log_key(keys: &Path, deployment: &str) -> Result<VerifierKey, DataDirError> {
    let path = keys.join(LOG_PUB);
    let key = VerifierKey::parse(read_text(&path)?.trim_end()).map_err(|e| bad(&path, e))?;
    let name = statement::log_key_name(deployment);
    if key.name() == name { Ok(key) } else { Err(bad(&path, format_args!("it is not named {name}"))) }
}

/// Reads the certificates, the newest last; each is good.
pub(super) fn read_certificates(
    keys: &Path,
    deployment: &str,
    log_key: &VerifierKey,
) -> Result<(Vec<String>, VerifierKey), DataDirError> {
    let path = keys.join(CERTIFICATES);
    let certificates: Vec<String> = serde_json::from_str(&read_text(&path)?).map_err(|e| bad(&path, e))?;
    let mut newest = None;
    for certificate in &certificates {
        let key = statement::open_certificate(log_key, deployment, certificate).map_err(|e| bad(&path, e))?;
        newest = Some(key);
    }
    newest.map(|key| (certificates, key)).ok_or_else(|| bad(&path, "it holds no certificate"))
}

/// Reads all keys, and checks that they belong together.
pub(super) fn identity(keys: &Path, deployment: &str) -> Result<Identity, DataDirError> {
    let log_path = keys.join(LOG_KEY);
    let log_key = read_log_key(keys, deployment)?;
    if read_private(&log_path, log_key.name())?.verifier() != &log_key {
        return Err(bad(
            &keys.join(LOG_PUB),
            format_args!("it is not the public half of {}", log_path.display()),
        ));
    }
    let (certificates, newest) = read_certificates(keys, deployment, &log_key)?;
    let receipt_path = keys.join(RECEIPT_KEY);
    let receipt_key = read_private(&receipt_path, &statement::receipt_key_name(deployment))?;
    if receipt_key.verifier() != &newest {
        return Err(bad(&receipt_path, "the newest certificate is for another key"));
    }
    Ok(Identity { deployment: deployment.to_owned(), log_key, certificates, receipt_key })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of Go's golang.org/x/mod/sumdb/note.
    const GO_PRIVATE: &str = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
    const GO_PUBLIC: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";

    #[test]
    fn gos_example_reads() {
        let signer = decode_private(GO_PRIVATE).unwrap();
        assert_eq!(signer.verifier().to_string(), GO_PUBLIC);
        for bad in ["", "PRIVATE+KEY+a", &GO_PRIVATE.replace("c7", "c8"), &GO_PRIVATE[..70], GO_PUBLIC] {
            assert!(decode_private(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn private_keys_read_back() {
        // Enough seeds for base64 to hold a + on either side.
        for seed in 0..64 {
            let signer = NoteSigner::from_seed("local-1/_log", &[seed; 32]).unwrap();
            let text = encode_private(&signer, &[seed; 32]);
            assert_eq!(decode_private(&text).unwrap().verifier(), signer.verifier());
        }
    }
}
