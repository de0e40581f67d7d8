//! Signed notes and their keys (c2sp.org/signed-note; docs/format.md, section 4). Ed25519 only.
//!
//! The one signed form of the ledger: certificates, receipts, heads, checkpoints. Text from outside is bounded
//! before it is looked at; a signature of a known key that does not verify makes the whole note bad.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::{Signature, Signer as _, SigningKey as DalekSigningKey, VerifyingKey};
use sha2::{Digest, Sha256};

use crate::{limits, random};

/// Signature type byte of Ed25519 (c2sp.org/signed-note).
const ED25519: u8 = 0x01;

/// What the text of a private key begins with.
const PRIVATE: &str = "PRIVATE+KEY+";

/// Why a note or a key is not good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Longer than [`limits::NOTE_BYTES_MAX`] or with more signatures than [`limits::NOTE_SIGNATURES_MAX`].
    #[error(
        "note is over its limits ({} bytes, {} signatures)",
        limits::NOTE_BYTES_MAX,
        limits::NOTE_SIGNATURES_MAX
    )]
    TooLarge,
    /// Not a signed note.
    #[error("malformed note: {0}")]
    Malformed(&'static str),
    /// Not a verifier key, or not a private one.
    #[error("malformed key: {0}")]
    Key(&'static str),
    /// No signature of the key that was asked for.
    #[error("note is not signed by {0}")]
    NotSigned(String),
    /// A signature of the right key that does not verify.
    #[error("signature of {0} does not verify")]
    BadSignature(String),
}

/// A public key with its name: what verifies notes.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    id: [u8; 4],
    key: VerifyingKey,
}

impl VerifierKey {
    fn new(name: &str, key: VerifyingKey) -> Result<Self, NoteError> {
        let bad = name.is_empty()
            || name.len() > 256
            || name.chars().any(|c| c.is_whitespace() || c.is_control() || c == '+');
        if bad {
            return Err(NoteError::Key("the name is empty, too long, or has white space or a +"));
        }
        if key.is_weak() {
            return Err(NoteError::Key("the key is of small order"));
        }
        // The library takes a second spelling of some points; the format does not.
        if key.to_edwards().compress().as_bytes() != key.as_bytes() {
            return Err(NoteError::Key("the key is not in its canonical form"));
        }
        let mut sha = Sha256::new();
        sha.update(name.as_bytes());
        sha.update(b"\n");
        sha.update([ED25519]);
        sha.update(key.as_bytes());
        let digest = sha.finalize();
        Ok(Self { name: name.to_owned(), id: [digest[0], digest[1], digest[2], digest[3]], key })
    }

    /// Reads `<name>+<key id>+<base64(0x01 || public key)>`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NoteError::Key("expected name+id+base64"));
        };
        let bytes = BASE64.decode(key).map_err(|_| NoteError::Key("the key is not base64"))?;
        let key: [u8; 32] = match bytes.split_first() {
            Some((&ED25519, rest)) => {
                rest.try_into().map_err(|_| NoteError::Key("the key is not 32 bytes"))?
            }
            _ => return Err(NoteError::Key("not an Ed25519 key")),
        };
        let key = VerifyingKey::from_bytes(&key).map_err(|_| NoteError::Key("not a point of the curve"))?;
        let this = Self::new(name, key)?;
        if crate::ids::decode_hex(id) != Some(this.id) {
            return Err(NoteError::Key("the key id does not belong to this name and key"));
        }
        Ok(this)
    }

    /// From a name and the 32 bytes of a public key (RFC 8032).
    ///
    /// # Errors
    /// If the name cannot stand in a note, or the bytes are no key.
    pub fn from_public(name: &str, key: &[u8; 32]) -> Result<Self, NoteError> {
        let key = VerifyingKey::from_bytes(key).map_err(|_| NoteError::Key("not a point of the curve"))?;
        Self::new(name, key)
    }

    /// The same key under another name.
    ///
    /// # Errors
    /// If the name cannot stand in a note.
    pub fn renamed(&self, name: &str) -> Result<Self, NoteError> {
        Self::new(name, self.key)
    }

    /// The note that a text (which must end in a newline) and its signature by this key make: for keys whose
    /// private half is elsewhere.
    ///
    /// # Errors
    /// If the signature is not this key's.
    pub fn attach(&self, text: &str, signature: &[u8]) -> Result<String, NoteError> {
        assert!(text.ends_with('\n'), "the text of a note ends in a newline");
        let note = self.note(text, signature);
        self.open(&note).map(|_| ())?;
        Ok(note)
    }

    fn note(&self, text: &str, signature: &[u8]) -> String {
        let mut blob = self.id.to_vec();
        blob.extend_from_slice(signature);
        format!("{text}\n— {} {}\n", self.name, BASE64.encode(blob))
    }

    /// The name it signs under.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Checks that `note` is signed by this key and gives its text (with its last newline).
    ///
    /// # Errors
    /// If it is not a note, or not signed by this key, or the signature does not verify.
    pub fn open<'n>(&self, note: &'n str) -> Result<&'n str, NoteError> {
        let (text, signatures) = split(note)?;
        let mut signed = false;
        for line in signatures.lines() {
            let (name, id, signature) = parse_signature(line)?;
            if name != self.name || id != self.id {
                continue;
            }
            let signature =
                Signature::from_slice(&signature).map_err(|_| NoteError::BadSignature(self.name.clone()))?;
            self.key
                .verify_strict(text.as_bytes(), &signature)
                .map_err(|_| NoteError::BadSignature(self.name.clone()))?;
            signed = true;
        }
        if signed { Ok(text) } else { Err(NoteError::NotSigned(self.name.clone())) }
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut key = vec![ED25519];
        key.extend_from_slice(self.key.as_bytes());
        write!(f, "{}+{}+{}", self.name, crate::ids::hex(&self.id), BASE64.encode(key))
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text of a note (with its last newline), unverified: to find out which key must have signed it.
///
/// # Errors
/// If it is not a note.
pub fn unverified_text(note: &str) -> Result<&str, NoteError> {
    split(note).map(|(text, _)| text)
}

/// Splits a note into its text (with its last newline) and its signature lines.
fn split(note: &str) -> Result<(&str, &str), NoteError> {
    if note.len() > limits::NOTE_BYTES_MAX {
        return Err(NoteError::TooLarge);
    }
    if note.bytes().any(|b| b < 0x20 && b != b'\n') {
        return Err(NoteError::Malformed("a control character other than newline"));
    }
    let blank = note.rfind("\n\n").ok_or(NoteError::Malformed("no empty line before the signatures"))?;
    let (text, signatures) = (&note[..=blank], &note[blank + 2..]);
    if signatures.is_empty() || !signatures.ends_with('\n') {
        return Err(NoteError::Malformed("no signature line, or no newline after the last"));
    }
    if signatures.lines().count() > limits::NOTE_SIGNATURES_MAX {
        return Err(NoteError::TooLarge);
    }
    Ok((text, signatures))
}

/// `— <name> <base64(id || signature)>` to its three parts.
fn parse_signature(line: &str) -> Result<(&str, [u8; 4], Vec<u8>), NoteError> {
    let rest = line.strip_prefix("— ").ok_or(NoteError::Malformed("a signature line without its dash"))?;
    let (name, blob) = rest.split_once(' ').ok_or(NoteError::Malformed("a signature line without a name"))?;
    if name.is_empty() || name.chars().any(|c| c.is_whitespace() || c == '+') {
        return Err(NoteError::Malformed("a key name with white space or a +"));
    }
    let bytes = BASE64.decode(blob).map_err(|_| NoteError::Malformed("a signature that is not base64"))?;
    match bytes.split_first_chunk::<4>() {
        Some((id, signature)) if !signature.is_empty() => Ok((name, *id, signature.to_vec())),
        _ => Err(NoteError::Malformed("a signature too short for its key id")),
    }
}

/// A private key with its name: what signs notes. Its secret is zeroed on drop.
pub struct NoteSigner {
    key: DalekSigningKey,
    verifier: VerifierKey,
}

impl NoteSigner {
    /// From a name and a 32-byte seed (RFC 8032).
    ///
    /// # Errors
    /// If the name cannot stand in a note.
    pub fn from_seed(name: &str, seed: &[u8; 32]) -> Result<Self, NoteError> {
        let key = DalekSigningKey::from_bytes(seed);
        let verifier = VerifierKey::new(name, key.verifying_key())?;
        Ok(Self { key, verifier })
    }

    /// The same key under another name: a checkpoint is signed under its log's origin (docs/format.md, section 8).
    ///
    /// # Errors
    /// If the name cannot stand in a note.
    pub fn renamed(&self, name: &str) -> Result<Self, NoteError> {
        let verifier = VerifierKey::new(name, self.key.verifying_key())?;
        Ok(Self { key: self.key.clone(), verifier })
    }

    /// A new key, from the operating system's randomness.
    ///
    /// # Errors
    /// If the name cannot stand in a note.
    pub fn generate(name: &str) -> Result<Self, NoteError> {
        Self::from_seed(name, &random::bytes())
    }

    /// Reads a private key: `PRIVATE+KEY+<name>+<key id>+<base64(0x01 || seed)>`, the form of Go's note signers
    /// (golang.org/x/mod/sumdb/note), with or without a newline at its end.
    ///
    /// # Errors
    /// What is wrong with it. The message holds nothing of the key.
    pub fn parse_private(text: &str) -> Result<Self, NoteError> {
        let line = text.strip_suffix('\n').unwrap_or(text);
        let rest = line.strip_prefix(PRIVATE).ok_or(NoteError::Key("it does not begin with PRIVATE+KEY+"))?;
        let mut parts = rest.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NoteError::Key("expected PRIVATE+KEY+name+id+base64"));
        };
        let bytes = BASE64.decode(key).map_err(|_| NoteError::Key("its last part is not base64"))?;
        let seed: [u8; 32] = match bytes.split_first() {
            Some((&ED25519, seed)) => {
                seed.try_into().map_err(|_| NoteError::Key("its seed is not 32 bytes"))?
            }
            _ => return Err(NoteError::Key("it is not an Ed25519 key")),
        };
        let signer = Self::from_seed(name, &seed)?;
        if crate::ids::decode_hex(id) != Some(signer.verifier.id) {
            return Err(NoteError::Key("its key id does not belong to this name and key"));
        }
        Ok(signer)
    }

    /// The private key as [`Self::parse_private`] reads it, with a newline at its end. Whoever has it can sign.
    pub fn private_text(&self) -> String {
        let mut key = vec![ED25519];
        key.extend_from_slice(self.key.as_bytes());
        let (name, id) = (&self.verifier.name, crate::ids::hex(&self.verifier.id));
        format!("{PRIVATE}{name}+{id}+{}\n", BASE64.encode(key))
    }

    /// The key that verifies what this one signs.
    pub fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    /// Signs a text, which must end in a newline.
    pub fn sign(&self, text: &str) -> String {
        assert!(text.ends_with('\n'), "the text of a note ends in a newline");
        self.verifier.note(text, &self.key.sign(text.as_bytes()).to_bytes())
    }
}

impl fmt::Debug for NoteSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NoteSigner({})", self.verifier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use signed_note::Verifier as _;

    /// The example of Go's golang.org/x/mod/sumdb/note.
    const GO_PRIVATE: &str = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
    const GO_KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const GO_NOTE: &str = "If you think cryptography is the answer to your problem,\n\
        then you don't know what your problem is.\n\n\
        — PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

    #[test]
    fn the_published_vector_opens() {
        let key = VerifierKey::parse(GO_KEY).unwrap();
        assert!(key.open(GO_NOTE).unwrap().ends_with("your problem is.\n"));
        assert_eq!(key.to_string(), GO_KEY);
        assert_eq!(
            key.open(&GO_NOTE.replace("answer", "Answer")),
            Err(NoteError::BadSignature("PeterNeumann".into()))
        );
    }

    #[test]
    fn private_keys_read_back() {
        let signer = NoteSigner::parse_private(GO_PRIVATE).unwrap();
        assert_eq!(signer.verifier().to_string(), GO_KEY);
        assert_eq!(signer.private_text(), format!("{GO_PRIVATE}\n"));
        for bad in ["", "PRIVATE+KEY+a", &GO_PRIVATE.replace("c7", "c8"), &GO_PRIVATE[..70], GO_KEY] {
            assert!(NoteSigner::parse_private(bad).is_err(), "{bad}");
        }
        // Enough of them for base64 to hold a + on either side.
        for _ in 0..64 {
            let signer = NoteSigner::generate("local-1/_log").unwrap();
            let read = NoteSigner::parse_private(&signer.private_text()).unwrap();
            assert_eq!(read.verifier(), signer.verifier());
        }
    }

    #[test]
    fn another_implementation_agrees() {
        let signer = NoteSigner::from_seed("local-1/_receipt", &[7; 32]).unwrap();
        let note = signer.sign("quipu.receipt.v1\nacme\ns — 1\n0\nff\n1\n");
        let theirs = signed_note::StandardVerifier::new(&signer.verifier().to_string()).unwrap();
        assert_eq!(theirs.name(), "local-1/_receipt");
        let list = signed_note::VerifierList::new(vec![Box::new(theirs)]);
        let parsed = signed_note::Note::from_bytes(note.as_bytes()).unwrap();
        let (verified, unverified) = parsed.verify(&list).unwrap();
        assert_eq!((verified.len(), unverified.len()), (1, 0));
        assert_eq!(parsed.text(), signer.verifier().open(&note).unwrap().as_bytes());
    }

    #[test]
    fn a_key_signs_under_another_name() {
        let signer = NoteSigner::from_seed("d/_log", &[3; 32]).unwrap();
        let renamed = signer.renamed("d/acme").unwrap();
        let direct = NoteSigner::from_seed("d/acme", &[3; 32]).unwrap();
        assert_eq!(renamed.verifier(), direct.verifier());
        let note = renamed.sign("a\n");
        assert_eq!(direct.verifier().open(&note), Ok("a\n"));
        assert_eq!(signer.verifier().open(&note), Err(NoteError::NotSigned("d/_log".into())));
        assert!(signer.renamed("d acme").is_err());
    }

    #[test]
    fn what_is_not_a_note_is_refused() {
        let signer = NoteSigner::from_seed("k", &[1; 32]).unwrap();
        let other = NoteSigner::from_seed("k", &[2; 32]).unwrap();
        let good = signer.sign("a\n\nb\n");
        assert_eq!(signer.verifier().open(&good), Ok("a\n\nb\n"));
        assert_eq!(other.verifier().open(&good), Err(NoteError::NotSigned("k".into())));
        let line = good.lines().last().unwrap();
        let too_many = format!("a\n\n{}", format!("{line}\n").repeat(17));
        for bad in [
            "",
            "a",
            "a\n\n",
            "a\n\n— k\n",
            "a\n\n- k AAAA\n",
            "a\n\n— k AAAA\n",
            &good[..good.len() - 1],
            &too_many,
            &good.replace('a', "\t"),
        ] {
            assert!(signer.verifier().open(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "k", "k+00000000+AA==", "a b+1+2", &signer.verifier().to_string().replace("k+", "j+")]
        {
            assert!(VerifierKey::parse(bad).is_err(), "{bad:?}");
        }
    }
}
