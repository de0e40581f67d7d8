//! Signed notes, their keys, and what they state.

use quipu_core::note::{NoteSigner, VerifierKey};
use quipu_core::statement::{Says, Standing, log_key_name, open_certificate};
use quipu_core::verify::read_receipts;

use super::meaning;

/// The deployment whose log key the seeds are signed with.
pub(super) fn deployment() -> &'static str {
    "fuzz"
}

/// That log key.
pub(super) fn log() -> NoteSigner {
    NoteSigner::from_seed(&log_key_name(deployment()), &[1; 32]).expect("a key name")
}

/// A verifier key (0), a note (1), the text of a statement (2), any text to sign (3), or a file of receipts (4).
pub fn note(data: &[u8]) -> bool {
    let Some((how, data)) = meaning(data, 5) else { return false };
    if how == 4 {
        return read_receipts(data).iter().any(|receipt| receipt.standing().is_some());
    }
    let Ok(text) = std::str::from_utf8(data) else { return false };
    match how {
        0 => key(text),
        1 => signed(text),
        2 => statement(text),
        _ => sign(text),
    }
}

/// A key has one spelling.
fn key(text: &str) -> bool {
    let Ok(key) = VerifierKey::parse(text) else { return false };
    assert_eq!(key.to_string(), text);
    true
}

/// Nothing opens but what the key signed, and a signature has one spelling.
fn signed(text: &str) -> bool {
    let log = log();
    let _ = open_certificate(log.verifier(), deployment(), text);
    let _ = Standing::open(Says::Receipt, std::slice::from_ref(log.verifier()), text);
    let Ok(opened) = log.verifier().open(text) else { return false };
    let ours = log.sign(opened);
    let line = &ours[opened.len() + 1..];
    assert!(text.starts_with(opened) && text[opened.len() + 1..].contains(line), "forged: {text:?}");
    true
}

/// A statement that is read is the one that would be signed.
fn statement(text: &str) -> bool {
    let log = log();
    for says in [Says::Receipt, Says::Head] {
        if let Ok(standing) = Standing::parse(says, text) {
            let note = standing.sign(says, &log);
            assert_eq!(log.verifier().open(&note), Ok(text));
            return true;
        }
    }
    false
}

/// What is signed opens as it was, unless it holds what no note may.
fn sign(text: &str) -> bool {
    let log = log();
    let text = format!("{text}\n");
    let note = log.sign(&text);
    let fits = !text.bytes().any(|b| b < 0x20 && b != b'\n');
    match log.verifier().open(&note) {
        Ok(opened) => assert_eq!(opened, text),
        Err(error) => assert!(!fits, "{error}: {text:?}"),
    }
    fits
}
