//! What the ledger signs: certificates, receipts, heads (docs/format.md, section 4).
//!
//! Two keys, so that a breached ingest cannot speak for the log: the log key is the root of trust and certifies
//! the receipt key; the receipt key signs what ingestion and exports promise.

use crate::ids::{EventHash, Seq, SessionId, TenantId};
use crate::note::{NoteError, NoteSigner, VerifierKey};
use crate::time::Micros;

/// Why a statement is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// The note around it.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The note is good, but its text is not this statement.
    #[error("not a statement of this kind: {0}")]
    Syntax(&'static str),
}

/// Name of a deployment's log key.
pub fn log_key_name(deployment: &str) -> String {
    format!("{deployment}/_log")
}

/// Name of a deployment's receipt key.
pub fn receipt_key_name(deployment: &str) -> String {
    format!("{deployment}/_receipt")
}

/// Checks the name of a deployment: 1 to 100 of `a-z`, `0-9`, `.`, `-`.
pub fn is_deployment_name(name: &str) -> bool {
    (1..=100).contains(&name.len())
        && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-'))
}

/// What the log key signs to say that a key signs receipts for a deployment.
pub fn certificate(deployment: &str, receipt: &VerifierKey, from: Micros) -> String {
    format!("quipu.key.v1\n{deployment}\nreceipt\n{receipt}\n{}\n", from.get())
}

/// The log key's word that a key signs receipts for a deployment.
pub fn certify(log: &NoteSigner, deployment: &str, receipt: &VerifierKey, from: Micros) -> String {
    log.sign(&certificate(deployment, receipt, from))
}

/// Reads a certificate: the receipt key it certifies.
///
/// # Errors
/// If it is not signed by `log`, not a certificate, or not of this deployment.
pub fn open_certificate(
    log: &VerifierKey,
    deployment: &str,
    note: &str,
) -> Result<VerifierKey, StatementError> {
    let lines: Vec<&str> = log.open(note)?.lines().collect();
    let [domain, of, role, key, from] = lines[..] else {
        return Err(StatementError::Syntax("a certificate has five lines"));
    };
    if domain != "quipu.key.v1" || role != "receipt" {
        return Err(StatementError::Syntax("expected quipu.key.v1 and receipt"));
    }
    if of != deployment {
        return Err(StatementError::Syntax("the certificate is of another deployment"));
    }
    parse_time(from)?;
    let key = VerifierKey::parse(key)?;
    if key.name() != receipt_key_name(deployment) {
        return Err(StatementError::Syntax("the certified key has another name"));
    }
    Ok(key)
}

/// That a session holds an event of this sequence with this hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Whose session.
    pub tenant: TenantId,
    /// The session.
    pub session_id: SessionId,
    /// The event's place.
    pub sequence: Seq,
    /// The event's hash.
    pub hash: EventHash,
    /// When it was said.
    pub time: Micros,
}

/// The two statements that a [`Standing`] can make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Says {
    /// An acknowledgement: the session holds it, and always will.
    Receipt,
    /// An export: the session ends with it.
    Head,
}

impl Says {
    const fn domain(self) -> &'static str {
        match self {
            Self::Receipt => "quipu.receipt.v1",
            Self::Head => "quipu.head.v1",
        }
    }
}

impl Standing {
    /// Signs it.
    pub fn sign(&self, says: Says, key: &NoteSigner) -> String {
        key.sign(&format!(
            "{}\n{}\n{}\n{}\n{}\n{}\n",
            says.domain(),
            self.tenant,
            self.session_id,
            self.sequence,
            self.hash,
            self.time.get()
        ))
    }

    /// Reads a signed one, with any of the keys given.
    ///
    /// # Errors
    /// If none of the keys signed it, or it says something else.
    pub fn open(says: Says, keys: &[VerifierKey], note: &str) -> Result<Self, StatementError> {
        let mut opened = None;
        let mut unsigned = StatementError::Syntax("no certified key to check it with");
        for key in keys {
            match key.open(note) {
                Ok(text) => opened = Some(text),
                Err(error @ NoteError::NotSigned(_)) => unsigned = error.into(),
                // A bad signature by any known key makes the note bad, whoever else signed it.
                Err(error) => return Err(error.into()),
            }
        }
        Self::parse(says, opened.ok_or(unsigned)?)
    }

    /// Reads the text of a statement whose signature is checked elsewhere.
    ///
    /// # Errors
    /// If it says something else.
    pub fn parse(says: Says, text: &str) -> Result<Self, StatementError> {
        let body = text.strip_suffix('\n').ok_or(StatementError::Syntax("no newline at its end"))?;
        let lines: Vec<&str> = body.split('\n').collect();
        let [domain, tenant, session, sequence, hash, time] = lines[..] else {
            return Err(StatementError::Syntax("expected six lines"));
        };
        if domain != says.domain() {
            return Err(StatementError::Syntax("another kind of statement"));
        }
        Ok(Self {
            tenant: TenantId::parse(tenant).map_err(|_| StatementError::Syntax("tenant"))?,
            session_id: SessionId::parse(session).map_err(|_| StatementError::Syntax("session"))?,
            sequence: parse_decimal(sequence)
                .and_then(|n| u64::try_from(n).ok())
                .and_then(Seq::new)
                .ok_or(StatementError::Syntax("sequence"))?,
            hash: EventHash::from_hex(hash).ok_or(StatementError::Syntax("hash"))?,
            time: parse_time(time)?,
        })
    }
}

pub(crate) fn parse_time(text: &str) -> Result<Micros, StatementError> {
    parse_decimal(text).and_then(Micros::new).ok_or(StatementError::Syntax("time"))
}

/// Decimal ASCII without leading zeros or a plus sign (docs/format.md, section 1).
fn parse_decimal(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let canonical = !digits.is_empty()
        && digits.bytes().all(|b| b.is_ascii_digit())
        && (digits == "0" || !digits.starts_with('0'))
        && text != "-0";
    canonical.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing() -> Standing {
        Standing {
            tenant: TenantId::default_tenant(),
            session_id: SessionId::parse("s 1 — x").unwrap(),
            sequence: Seq::new(41).unwrap(),
            hash: EventHash([0xab; 32]),
            time: Micros::new(-5).unwrap(),
        }
    }

    #[test]
    fn a_receipt_is_not_a_head_and_needs_a_certified_key() {
        let log = NoteSigner::from_seed(&log_key_name("d"), &[1; 32]).unwrap();
        let receipt = NoteSigner::from_seed(&receipt_key_name("d"), &[2; 32]).unwrap();
        let certificate = certify(&log, "d", receipt.verifier(), Micros::MIN);
        let key = open_certificate(log.verifier(), "d", &certificate).unwrap();
        let note = standing().sign(Says::Receipt, &receipt);
        assert_eq!(Standing::open(Says::Receipt, std::slice::from_ref(&key), &note), Ok(standing()));
        assert!(Standing::open(Says::Head, &[key], &note).is_err());
        assert!(Standing::open(Says::Receipt, &[log.verifier().clone()], &note).is_err());
        assert!(Standing::open(Says::Receipt, &[], &note).is_err());
        assert!(open_certificate(log.verifier(), "e", &certificate).is_err());
        assert!(open_certificate(receipt.verifier(), "d", &certificate).is_err());
    }

    #[test]
    fn numbers_have_one_spelling() {
        for bad in ["", "-", "-0", "01", "+1", "1 ", "1e3", "9223372036854775808", "٣"] {
            assert_eq!(parse_decimal(bad), None, "{bad:?}");
        }
        assert_eq!(parse_decimal("-10"), Some(-10));
        assert_eq!(parse_decimal("0"), Some(0));
    }
}
