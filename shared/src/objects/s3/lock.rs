//! How long, and how firmly, S3 shall keep what is written (Object Lock).
//!
//! An object that is locked cannot be overwritten away: a version that is there stays, and a later write is a version
//! beside it. So the identity file, which is rewritten when a key changes, is locked like the rest of the log: every
//! version of it stays. The newest checkpoint (`log/<tenant>/checkpoint`) is not: it is rewritten with every batch,
//! and each of its states is in `checkpoints/` under a name of its own, which is locked.

use aws_sdk_s3::types::ObjectLockMode;

/// How firmly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Not at all; or as the bucket's own default says.
    #[default]
    None,
    /// Whoever is allowed to may still delete it (`s3:BypassGovernanceRetention`).
    Governance,
    /// Nobody can, the account's root neither.
    Compliance,
}

impl Mode {
    pub(super) fn on_wire(self) -> Option<ObjectLockMode> {
        match self {
            Self::None => None,
            Self::Governance => Some(ObjectLockMode::Governance),
            Self::Compliance => Some(ObjectLockMode::Compliance),
        }
    }
}

/// What is kept, and for how long. The bucket must have been made for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lock {
    /// From the moment of writing, days.
    pub days: u32,
    /// Headers, checkpoints, tiles, the identity file: all under `log/`.
    pub log: Mode,
    /// Events, under `events/`. They may have to be erased: compliance mode would stand against it.
    pub events: Mode,
}

impl Lock {
    /// How firmly an object is locked.
    pub(super) fn of(&self, key: &str) -> Mode {
        let mut parts = key.split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some("log"), Some(_), Some("checkpoint"), None) => Mode::None,
            (Some("log"), Some(_), ..) => self.log,
            (Some("events"), Some(_), ..) => self.events,
            _ => Mode::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_locked() {
        let lock = Lock { days: 1, log: Mode::Compliance, events: Mode::Governance };
        for key in [
            "log/_identity.json",
            "log/a/batch/1.json",
            "log/a/checkpoints/1",
            "log/a/tile/0/000.p/5",
            "log/a/checkpoint/1",
        ] {
            assert_eq!(lock.of(key), Mode::Compliance, "{key}");
        }
        assert_eq!(lock.of("events/tenant=a/dt=2026-01-01/batch-1.parquet"), Mode::Governance);
        for key in ["log/a/checkpoint", "staging/a/1", "logs/a", "events.json", "log"] {
            assert_eq!(lock.of(key), Mode::None, "{key}");
        }
    }
}
