//! Tokens.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use sha2::{Digest, Sha256};

use super::Scopes;
use crate::ids::TenantId;
use crate::time::Micros;

/// What every token begins with.
const PREFIX: &str = "qp_";

/// A token's text. Shown once, to the one who asked for it; its Debug hides it.
pub struct Secret(String);

impl Secret {
    /// From 32 random bytes.
    pub fn from_random(random: &[u8; 32]) -> Self {
        Self(format!("{PREFIX}{}", BASE64URL.encode(random)))
    }

    /// The text, to be shown once.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What is stored of it.
    pub fn hash(&self) -> [u8; 32] {
        hash(&self.0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// SHA-256 of a presented text. 32 random bytes need no slow hash.
pub(super) fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// A token as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TokenRecord {
    /// A UUID, for listing and revoking.
    pub id: String,
    /// Whose it is.
    pub tenant: TenantId,
    /// What its maker called it.
    pub name: String,
    /// What it may do.
    pub scopes: Scopes,
    /// SHA-256 of its text.
    pub hash: [u8; 32],
    /// When it was made.
    pub created_at: Micros,
    /// From when on it is no good, if ever.
    pub expires_at: Option<Micros>,
    /// From when on it was revoked, if it was.
    pub revoked_at: Option<Micros>,
    /// When it was last used, to the hour.
    pub last_used_at: Option<Micros>,
}

impl TokenRecord {
    /// True if it is neither expired nor revoked at a time.
    pub fn is_live(&self, now: Micros) -> bool {
        self.expires_at.is_none_or(|at| now < at) && self.revoked_at.is_none_or(|at| now < at)
    }
}
