//! The keys that a deployment's statements are checked with.

use crate::ids::TenantId;
use crate::log::checkpoint::Checkpoint;
use crate::log::keys::{KeyChain, Rotation};
use crate::note::{NoteError, VerifierKey};
use crate::statement::{self, Says, Standing, StatementError};

/// Rotations of a log key, read one after the other.
#[derive(Debug, Clone)]
pub(super) struct Rotations {
    deployment: String,
    /// The key before each rotation, and the one after the last; empty without rotations.
    keys: Vec<VerifierKey>,
    notes: Vec<String>,
}

impl Rotations {
    /// None yet.
    pub(super) fn new(deployment: &str) -> Self {
        Self { deployment: deployment.to_owned(), keys: Vec::new(), notes: Vec::new() }
    }

    /// The next one.
    ///
    /// # Errors
    /// If it is not signed by both its keys, or does not follow the one before: code `key`.
    pub(super) fn push(&mut self, note: &str) -> Result<(), String> {
        let rotation = Rotation::open(note).map_err(|e| format!("the rotation: {e}"))?;
        // With the one before it alone: what the whole chain costs, it costs once.
        let before = self.notes.last().map(String::as_str);
        KeyChain::new(&self.deployment, rotation.new.clone(), before.into_iter().chain([note]))
            .map_err(|e| e.to_string())?;
        if self.keys.contains(&rotation.new) {
            return Err(format!("the rotation's new key was a log key before: {}", rotation.new));
        }
        if self.keys.is_empty() {
            self.keys.push(rotation.old);
        }
        self.keys.push(rotation.new);
        self.notes.push(note.to_owned());
        Ok(())
    }
}

/// Checks the name of a deployment's log key.
///
/// # Errors
/// What is wrong: code `key`.
pub(super) fn check_name(deployment: &str, log: &VerifierKey) -> Result<(), String> {
    let name = statement::log_key_name(deployment);
    if log.name() == name {
        return Ok(());
    }
    Err(format!("expected a log key named {name}, found {}", log.name()))
}

/// The log keys, and the receipt keys that they certified.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    chain: KeyChain,
    receipt: Vec<VerifierKey>,
}

impl Keys {
    /// Checks the log key's name, that its key chain holds and has the pinned one, and the certificates.
    ///
    /// # Errors
    /// What is wrong: code `key`.
    pub(super) fn certified<'c>(
        log: &VerifierKey,
        rotations: &Rotations,
        pinned: Option<&VerifierKey>,
        certificates: impl IntoIterator<Item = &'c str>,
    ) -> Result<Self, String> {
        check_name(&rotations.deployment, log)?;
        let notes = rotations.notes.iter().map(String::as_str);
        let chain = KeyChain::new(&rotations.deployment, log.clone(), notes).map_err(|e| e.to_string())?;
        if let Some(pinned) = pinned
            && !chain.contains(pinned)
        {
            return Err(match chain.keys() {
                [only] => format!("expected the log key that was given, {pinned}, found {only}"),
                keys => format!("expected a chain with the log key that was given, {pinned}, found {keys:?}"),
            });
        }
        let mut receipt = Vec::new();
        for (index, note) in certificates.into_iter().enumerate() {
            let key = chain.open_certificate(note).map_err(|e| format!("certificate {}: {e}", index + 1))?;
            if !receipt.contains(&key) {
                receipt.push(key);
            }
        }
        Ok(Self { chain, receipt })
    }

    /// The log keys.
    pub(super) fn chain(&self) -> &KeyChain {
        &self.chain
    }

    /// Reads a checkpoint of a tenant, signed by the log key that holds for its size.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn checkpoint(&self, tenant: &TenantId, note: &str) -> Result<Checkpoint, String> {
        self.chain.open_checkpoint(tenant, note).map_err(|e| e.to_string())
    }

    /// Reads a checkpoint that was kept outside: of any tenant, signed by any key of the chain.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn kept_checkpoint(&self, note: &str) -> Result<(TenantId, Checkpoint), String> {
        self.chain.open_kept_checkpoint(note).map_err(|e| e.to_string())
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
