//! The keys that a deployment's statements are checked with.

use crate::note::{NoteError, VerifierKey};
use crate::statement::{self, Says, Standing, StatementError};

/// A log key, and the receipt keys that it certified.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    receipt: Vec<VerifierKey>,
}

impl Keys {
    /// Checks the log key's name, that it is the pinned one, and its certificates.
    ///
    /// # Errors
    /// What is wrong: code `key`.
    pub(super) fn certified<'c>(
        deployment: &str,
        log: &VerifierKey,
        pinned: Option<&VerifierKey>,
        certificates: impl IntoIterator<Item = &'c str>,
    ) -> Result<Self, String> {
        let name = statement::log_key_name(deployment);
        if log.name() != name {
            return Err(format!("expected a log key named {name}, found {}", log.name()));
        }
        if let Some(pinned) = pinned
            && pinned != log
        {
            return Err(format!("expected the log key that was given, {pinned}, found {log}"));
        }
        let mut receipt = Vec::new();
        for (index, note) in certificates.into_iter().enumerate() {
            let key = statement::open_certificate(log, deployment, note)
                .map_err(|e| format!("certificate {}: {e}", index + 1))?;
            if !receipt.contains(&key) {
                receipt.push(key);
            }
        }
        Ok(Self { receipt })
    }

    /// Reads a statement that a certified key signed. A signature of any certified key that does not verify makes it
    /// bad; signatures of others are passed over.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn open(&self, says: Says, note: &str) -> Result<Standing, StatementError> {
        let mut text = Err(StatementError::Syntax("no certified key to check it with"));
        for key in &self.receipt {
            match key.open(note) {
                Ok(signed) => text = Ok(signed),
                Err(e @ NoteError::NotSigned(_)) => {
                    if text.is_err() {
                        text = Err(e.into());
                    }
                }
                Err(e) => return Err(e.into()),
            }
        }
        Standing::parse(says, text?)
    }
}
