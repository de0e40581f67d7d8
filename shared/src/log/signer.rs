//! What signs for the log: a key at hand, or one in KMS.

use async_trait::async_trait;

use crate::note::{NoteError, NoteSigner, VerifierKey};
use crate::store::StoreError;

/// The log key, wherever its private half is. One key signs under several names: under its own, and under the origin
/// of each log (docs/format.md, section 8).
#[async_trait]
pub trait LogSigner: Send + Sync + 'static {
    /// The key, under its own name.
    ///
    /// # Errors
    /// If it cannot be reached.
    async fn verifier(&self) -> Result<VerifierKey, StoreError>;

    /// The note that the key makes of a text under a name. The text ends in a newline.
    ///
    /// # Errors
    /// If the key cannot be reached, or the name cannot stand in a note.
    async fn sign(&self, name: &str, text: &str) -> Result<String, StoreError>;
}

/// A log key that is at hand.
#[derive(Debug)]
pub struct LocalSigner(NoteSigner);

impl LocalSigner {
    /// Signs with this key.
    pub fn new(key: NoteSigner) -> Self {
        Self(key)
    }
}

/// A name that cannot stand in a note is the store's: it named the deployment.
fn damaged(error: &NoteError) -> StoreError {
    StoreError::Corrupt { key: "the name of a log".into(), why: error.to_string() }
}

#[async_trait]
impl LogSigner for LocalSigner {
    async fn verifier(&self) -> Result<VerifierKey, StoreError> {
        Ok(self.0.verifier().clone())
    }

    async fn sign(&self, name: &str, text: &str) -> Result<String, StoreError> {
        if name == self.0.verifier().name() {
            return Ok(self.0.sign(text));
        }
        Ok(self.0.renamed(name).map_err(|e| damaged(&e))?.sign(text))
    }
}
