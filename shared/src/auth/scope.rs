//! What a token may do.

use std::fmt;

use serde::de::Error as _;

/// One permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Scope {
    /// Everything in its tenant; in the tenant `default`, the tenants too.
    All,
    /// Read events, sessions, agents, proofs.
    EventsRead,
    /// Append events.
    EventsWrite,
    /// Erase content.
    EventsErase,
    /// Create, list and revoke tokens.
    TokensAdmin,
    /// Create and list tenants; held in the tenant `default` only.
    TenantsAdmin,
    /// List webhooks.
    WebhooksRead,
    /// Change webhooks.
    WebhooksWrite,
    /// List secret references.
    VaultRead,
    /// Change secrets.
    VaultWrite,
    /// Read agents.
    AgentsRead,
    /// Change agents.
    AgentsWrite,
    /// Start and stop runs.
    RunsWrite,
    /// List channels.
    ChannelsRead,
    /// Change channels.
    ChannelsWrite,
}

impl Scope {
    /// All of them.
    pub const EVERY: [Self; 15] = [
        Self::All,
        Self::EventsRead,
        Self::EventsWrite,
        Self::EventsErase,
        Self::TokensAdmin,
        Self::TenantsAdmin,
        Self::WebhooksRead,
        Self::WebhooksWrite,
        Self::VaultRead,
        Self::VaultWrite,
        Self::AgentsRead,
        Self::AgentsWrite,
        Self::RunsWrite,
        Self::ChannelsRead,
        Self::ChannelsWrite,
    ];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::All => "*",
            Self::EventsRead => "events:read",
            Self::EventsWrite => "events:write",
            Self::EventsErase => "events:erase",
            Self::TokensAdmin => "tokens:admin",
            Self::TenantsAdmin => "tenants:admin",
            Self::WebhooksRead => "webhooks:read",
            Self::WebhooksWrite => "webhooks:write",
            Self::VaultRead => "vault:read",
            Self::VaultWrite => "vault:write",
            Self::AgentsRead => "agents:read",
            Self::AgentsWrite => "agents:write",
            Self::RunsWrite => "runs:write",
            Self::ChannelsRead => "channels:read",
            Self::ChannelsWrite => "channels:write",
        }
    }

    /// Reads the word.
    pub fn parse(text: &str) -> Option<Self> {
        Self::EVERY.into_iter().find(|s| s.as_str() == text)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of permissions.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Scopes(u16);

impl Scopes {
    /// None.
    pub const NONE: Self = Self(0);

    /// This set and one more.
    #[must_use]
    pub const fn with(self, scope: Scope) -> Self {
        Self(self.0 | 1 << scope as u16)
    }

    /// The permissions by name.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::EVERY.into_iter().filter(move |s| self.0 & 1 << *s as u16 != 0)
    }

    /// True if it names no permission.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// True if the set allows `scope`, in a tenant that is (`operator`) or is not the deployment's own. `*` is
    /// everything in its tenant, so only the operator's covers tenants.
    pub const fn allows(self, scope: Scope, operator: bool) -> bool {
        if matches!(scope, Scope::TenantsAdmin) && !operator {
            return false;
        }
        self.0 & (1 << scope as u16 | 1 << Scope::All as u16) != 0
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<T: IntoIterator<Item = Scope>>(scopes: T) -> Self {
        scopes.into_iter().fold(Self::NONE, Self::with)
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(Scope::as_str)).finish()
    }
}

impl serde::Serialize for Scopes {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(self.iter().map(Scope::as_str))
    }
}

impl<'de> serde::Deserialize<'de> for Scopes {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let words = <Vec<String> as serde::Deserialize>::deserialize(d)?;
        words
            .iter()
            .map(|word| Scope::parse(word).ok_or_else(|| D::Error::custom(format!("unknown scope {word:?}"))))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p10_a_star_covers_its_tenant_and_no_other() {
        let star = Scopes::NONE.with(Scope::All);
        for scope in Scope::EVERY {
            assert_eq!(star.allows(scope, false), scope != Scope::TenantsAdmin, "{scope}");
            assert!(star.allows(scope, true), "{scope}");
            assert!(!Scopes::NONE.allows(scope, true), "{scope}");
        }
        let read = Scopes::NONE.with(Scope::EventsRead);
        assert!(read.allows(Scope::EventsRead, false) && !read.allows(Scope::All, false));
        assert!(!Scopes::NONE.with(Scope::TenantsAdmin).allows(Scope::TenantsAdmin, false));
    }

    #[test]
    fn sets_are_lists_of_words() {
        let text = r#"["*","events:read"]"#;
        let scopes: Scopes = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&scopes).unwrap(), text);
        assert!(serde_json::from_str::<Scopes>(r#"["events:reed"]"#).is_err());
    }
}
