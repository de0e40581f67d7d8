//! Who is asking: from a request's headers to a [`Principal`].

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::{HeaderMap, Uri};
use subtle::ConstantTimeEq as _;

use super::{Scope, Scopes, TokenRecord, token};
use crate::clock::Clock;
use crate::ids::TenantId;
use crate::limits;
use crate::store::{Store, StoreError};
use crate::time::Micros;

/// Whether a request without a credential may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMode {
    /// It passes as `*` of `default`, if it comes from this machine. The local server's default on 127.0.0.1.
    Loopback,
    /// It does not.
    Required,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// Their tenant.
    pub tenant: TenantId,
    /// Their token's id; `None` in loopback mode and for the operator's own command line.
    pub token_id: Option<String>,
    /// What they may do.
    pub scopes: Scopes,
}

impl Principal {
    /// True if they may.
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.allows(scope, self.is_operator())
    }

    /// True if their tenant is the deployment's own.
    pub fn is_operator(&self) -> bool {
        self.tenant.as_str() == TenantId::DEFAULT
    }

    fn local() -> Self {
        Self { tenant: TenantId::default_tenant(), token_id: None, scopes: Scopes::NONE.with(Scope::All) }
    }
}

/// Why a request does not pass.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// No credential where one is needed.
    #[error("a bearer token is required")]
    Missing,
    /// A credential that is malformed, unknown, expired or revoked: which, a stranger does not learn.
    #[error("the bearer token is not valid")]
    Invalid,
    /// In loopback mode: the request was made for another host, or by a page of another origin.
    #[error("{0}")]
    Foreign(&'static str),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

struct Cached {
    token: Option<TokenRecord>,
    read_at: Micros,
}

/// Most tokens (and unknown texts) kept; past it the cache starts anew.
const CACHE_MAX: usize = 10_000;

/// Turns credentials into principals. Tokens are cached for at most [`limits::TOKEN_CACHE_MS`]; in one process, a
/// revocation takes effect at once.
pub struct Gate {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    mode: AuthMode,
    /// SHA-256 of a credential that the local command line uses; see `quipu serve`.
    operator: Option<[u8; 32]>,
    cache: Mutex<HashMap<[u8; 32], Cached>>,
}

impl Gate {
    /// A gate over the tokens of a store.
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, mode: AuthMode) -> Self {
        Self { store, clock, mode, operator: None, cache: Mutex::default() }
    }

    /// Lets a further credential pass as `*` of `default`: the one that a server leaves for the command line, in a
    /// file that only the operator can read.
    #[must_use]
    pub fn with_operator(mut self, credential: &str) -> Self {
        self.operator = Some(token::hash(credential));
        self
    }

    /// Whether requests without a credential may pass.
    pub fn mode(&self) -> AuthMode {
        self.mode
    }

    /// Who sends these headers.
    ///
    /// # Errors
    /// If nobody who may pass.
    pub async fn admit(&self, headers: &HeaderMap, uri: &Uri) -> Result<Principal, AuthError> {
        if self.mode == AuthMode::Loopback {
            check_local(headers, uri)?;
        }
        let Some(header) = headers.get(AUTHORIZATION) else {
            return match self.mode {
                AuthMode::Loopback => Ok(Principal::local()),
                AuthMode::Required => Err(AuthError::Missing),
            };
        };
        let text = header.to_str().map_err(|_| AuthError::Invalid)?;
        let (scheme, credential) = text.split_once(' ').ok_or(AuthError::Invalid)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(AuthError::Invalid);
        }
        let hash = token::hash(credential.trim());
        if let Some(operator) = &self.operator
            && bool::from(operator.ct_eq(&hash))
        {
            return Ok(Principal::local());
        }
        let now = self.clock.now();
        let record = self.lookup(hash, now).await?.ok_or(AuthError::Invalid)?;
        if !record.is_live(now) {
            return Err(AuthError::Invalid);
        }
        self.note_use(&record, now).await;
        Ok(Principal { tenant: record.tenant, token_id: Some(record.id), scopes: record.scopes })
    }

    async fn lookup(&self, hash: [u8; 32], now: Micros) -> Result<Option<TokenRecord>, StoreError> {
        let fresh = |c: &&Cached| now.get() - c.read_at.get() < limits::TOKEN_CACHE_MS * 1000;
        if let Some(cached) = self.cache().get(&hash).filter(fresh) {
            return Ok(cached.token.clone());
        }
        let token = self.store.token_by_hash(&hash).await?;
        let mut cache = self.cache();
        if cache.len() >= CACHE_MAX {
            cache.clear();
        }
        cache.insert(hash, Cached { token: token.clone(), read_at: now });
        Ok(token)
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, HashMap<[u8; 32], Cached>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets what is cached, after tokens were changed in this process.
    pub fn forget(&self) {
        self.cache().clear();
    }

    /// From when on a change of tokens holds everywhere.
    pub fn effective_at(&self) -> Micros {
        self.clock.now().plus_ms(limits::TOKEN_CACHE_MS)
    }

    /// Writes the last use of a token, at most hourly. Its failure is nobody's: the request goes on.
    async fn note_use(&self, record: &TokenRecord, now: Micros) {
        let due =
            record.last_used_at.is_none_or(|at| now.get() - at.get() >= limits::TOKEN_LAST_USE_MS * 1000);
        if !due {
            return;
        }
        if let Err(error) = self.store.touch_token(&record.hash, now).await {
            tracing::warn!(%error, token = record.id, "could not note a token's use");
        }
        if let Some(cached) = self.cache().get_mut(&record.hash)
            && let Some(token) = &mut cached.token
        {
            token.last_used_at = Some(now);
        }
    }
}

/// In loopback mode a request must be addressed to this machine by name, and must not come from a page of another
/// origin: otherwise any web page that the user opens could speak to the server (DNS rebinding, cross-site
/// requests). Proxy headers are never looked at.
fn check_local(headers: &HeaderMap, uri: &Uri) -> Result<(), AuthError> {
    const FOREIGN_HOST: AuthError = AuthError::Foreign("in loopback mode the Host must be this machine");
    let host = match headers.get(HOST) {
        Some(value) => Some(value.to_str().map_err(|_| FOREIGN_HOST)?),
        None => uri.authority().map(|a| a.as_str()),
    };
    if !host.is_some_and(is_loopback_authority) {
        return Err(FOREIGN_HOST);
    }
    let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
    let local = origin.to_str().ok().and_then(|o| o.split_once("://")).is_some_and(|(scheme, authority)| {
        matches!(scheme, "http" | "https") && is_loopback_authority(authority)
    });
    if local {
        Ok(())
    } else {
        Err(AuthError::Foreign("in loopback mode a page of another origin is refused"))
    }
}

/// `localhost`, `127.…` or `[::1]`, with or without a port.
fn is_loopback_authority(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => authority.rsplit_once(':').map_or(authority, |(host, _)| host),
    };
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p10_loopback_mode_takes_only_local_names() {
        for good in
            ["localhost", "localhost:3400", "127.0.0.1:1", "127.9.9.9", "[::1]:80", "[::1]", "LOCALHOST"]
        {
            assert!(is_loopback_authority(good), "{good}");
        }
        for bad in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "[::2]",
            "0.0.0.0",
            "evil.example:3400@localhost",
        ] {
            assert!(!is_loopback_authority(bad), "{bad}");
        }
        let mut headers = HeaderMap::new();
        let uri = Uri::from_static("/v1/events");
        assert!(check_local(&headers, &uri).is_err());
        headers.insert(HOST, "localhost:3400".parse().unwrap());
        assert!(check_local(&headers, &uri).is_ok());
        headers.insert(ORIGIN, "http://127.0.0.1:5173".parse().unwrap());
        assert!(check_local(&headers, &uri).is_ok());
        for foreign in ["https://evil.example", "null", "file://"] {
            headers.insert(ORIGIN, foreign.parse().unwrap());
            assert!(check_local(&headers, &uri).is_err(), "{foreign}");
        }
    }
}
