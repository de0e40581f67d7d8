//! The identity of an archive, `log/_identity.json` (docs/format.md, section 8): its keys, as a stranger finds them.

use serde::Serialize;

use super::keys::{KeyChain, KeyError};
use crate::json::{JsonError, Reader};
use crate::limits;
use crate::note::VerifierKey;
use crate::statement::is_deployment_name;

/// The only format there is.
pub const FORMAT: &str = "quipu.identity.v1";

/// What the file says. Nothing of it is believed before [`IdentityFile::chain`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityFile {
    /// The deployment's name.
    pub deployment: String,
    /// The newest log key.
    pub log_key: VerifierKey,
    /// Word for each receipt key there was: notes.
    pub certificates: Vec<String>,
    /// Rotations of the log key, oldest first: notes.
    pub rotations: Vec<String>,
}

/// Why bytes are no identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Longer than [`limits::IDENTITY_BYTES_MAX`].
    #[error("longer than identity_bytes_max {}", limits::IDENTITY_BYTES_MAX)]
    TooLarge,
    /// Not UTF-8.
    #[error("not UTF-8")]
    NotText,
    /// Not the JSON it must be.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// A member is missing.
    #[error("no member {0:?}")]
    Missing(&'static str),
}

#[derive(Serialize)]
struct Members<'a> {
    format: &'a str,
    deployment: &'a str,
    log_key: String,
    certificates: &'a [String],
    rotations: &'a [String],
}

impl IdentityFile {
    /// Its bytes: compact JSON.
    pub fn to_bytes(&self) -> Vec<u8> {
        let members = Members {
            format: FORMAT,
            deployment: &self.deployment,
            log_key: self.log_key.to_string(),
            certificates: &self.certificates,
            rotations: &self.rotations,
        };
        serde_json::to_vec(&members).expect("texts are always JSON")
    }

    /// Reads the file.
    ///
    /// # Errors
    /// If it has not the syntax of the format.
    pub fn parse(bytes: &[u8]) -> Result<Self, IdentityError> {
        if bytes.len() > limits::IDENTITY_BYTES_MAX {
            return Err(IdentityError::TooLarge);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| IdentityError::NotText)?;
        let (mut format, mut deployment, mut log_key) = (None, None, None);
        let (mut certificates, mut rotations) = (None, None);
        let mut reader = Reader::new(text);
        reader.object(|r, name| {
            match name {
                "format" => {
                    if r.string()? != FORMAT {
                        return Err(r.refuse(format_args!("expected {FORMAT}")));
                    }
                    format = Some(());
                }
                "deployment" => {
                    let name = r.string()?;
                    if !is_deployment_name(&name) {
                        return Err(r.refuse("expected 1 to 100 of a-z, 0-9, . and -"));
                    }
                    deployment = Some(name.into_owned());
                }
                "log_key" => {
                    let key = r.string()?;
                    log_key = Some(VerifierKey::parse(&key).map_err(|e| r.refuse(e))?);
                }
                "certificates" => certificates = Some(notes(r)?),
                "rotations" => rotations = Some(notes(r)?),
                _ => return Err(r.refuse("a member that no identity has")),
            }
            Ok(())
        })?;
        reader.end()?;
        let need = IdentityError::Missing;
        format.ok_or(need("format"))?;
        Ok(Self {
            deployment: deployment.ok_or(need("deployment"))?,
            log_key: log_key.ok_or(need("log_key"))?,
            certificates: certificates.ok_or(need("certificates"))?,
            rotations: rotations.ok_or(need("rotations"))?,
        })
    }

    /// The log keys.
    ///
    /// # Errors
    /// If they make no chain.
    pub fn chain(&self) -> Result<KeyChain, KeyError> {
        KeyChain::new(&self.deployment, self.log_key.clone(), self.rotations.iter().map(String::as_str))
    }
}

fn notes(r: &mut Reader<'_>) -> Result<Vec<String>, JsonError> {
    let mut notes = Vec::new();
    r.array(|r, _| {
        notes.push(r.string()?.into_owned());
        Ok(())
    })?;
    Ok(notes)
}

#[cfg(test)]
mod tests {
    use super::super::keys::Rotation;
    use super::*;
    use crate::ids::TenantId;
    use crate::note::NoteSigner;
    use crate::statement::{certify, log_key_name, receipt_key_name};
    use crate::time::Micros;

    fn identity() -> IdentityFile {
        let [old, new] = [1, 2].map(|seed| NoteSigner::from_seed(&log_key_name("d"), &[seed; 32]).unwrap());
        let receipt = NoteSigner::from_seed(&receipt_key_name("d"), &[3; 32]).unwrap();
        let rotation = Rotation {
            deployment: "d".into(),
            old: old.verifier().clone(),
            new: new.verifier().clone(),
            time: Micros::MIN,
            sizes: vec![(TenantId::default_tenant(), 7)],
        };
        let note = rotation.join(&old.sign(&rotation.text()), &new.sign(&rotation.text())).unwrap();
        IdentityFile {
            deployment: "d".into(),
            log_key: new.verifier().clone(),
            certificates: vec![certify(&old, "d", receipt.verifier(), Micros::MIN)],
            rotations: vec![note],
        }
    }

    #[test]
    fn an_identity_reads_back_and_makes_a_chain() {
        let identity = identity();
        let bytes = identity.to_bytes();
        assert_eq!(IdentityFile::parse(&bytes), Ok(identity.clone()));
        let chain = identity.chain().unwrap();
        assert_eq!(chain.newest(), &identity.log_key);
        assert!(chain.open_certificate(&identity.certificates[0]).is_ok());
        let spaced = String::from_utf8(bytes).unwrap().replace("\":", "\" : ");
        assert_eq!(IdentityFile::parse(spaced.as_bytes()), Ok(identity));
    }

    #[test]
    fn exactly_its_members() {
        let good = String::from_utf8(identity().to_bytes()).unwrap();
        for (from, to) in [
            ("\"format\"", "\"Format\""),
            ("quipu.identity.v1", "quipu.identity.v2"),
            ("\"deployment\":\"d\"", "\"deployment\":\"D\""),
            ("\"deployment\":\"d\",", ""),
            ("\"deployment\":\"d\"", "\"deployment\":\"d\",\"deployment\":\"d\""),
            ("\"deployment\":\"d\"", "\"deployment\":\"d\",\"more\":1"),
            ("\"log_key\":\"d", "\"log_key\":\"e"),
            ("\"certificates\":[", "\"certificates\":[1,"),
            ("\"rotations\":[", "\"rotations\":[null,"),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good, "{from}");
            assert!(IdentityFile::parse(bad.as_bytes()).is_err(), "{to}");
        }
        assert!(IdentityFile::parse(format!("{good}x").as_bytes()).is_err());
        assert_eq!(IdentityFile::parse(b"\xff"), Err(IdentityError::NotText));
        let large = vec![b' '; limits::IDENTITY_BYTES_MAX + 1];
        assert_eq!(IdentityFile::parse(&large), Err(IdentityError::TooLarge));
    }
}
