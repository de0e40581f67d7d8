//! The keys of a log: the chain of log keys through rotations, and what each may sign (docs/format.md, section 8).
//!
//! A key chain that exists holds: every rotation is signed by both its keys, each begins where the one before ended,
//! no key comes twice, and no log gets smaller from one rotation to the next. What holds for a tree size is then a
//! matter of counting. Of a note that one certain key must sign, signatures by all other keys are passed over.

use super::checkpoint::{Checkpoint, CheckpointError, origin, parse_size};
use crate::ids::{self, TenantId};
use crate::note::{NoteError, VerifierKey};
use crate::statement::{self, StatementError, is_deployment_name, log_key_name};
use crate::time::Micros;

/// Why keys, or what they are said to have signed, are not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A note or a key.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// A signed statement.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// The text of a checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The text of a rotation.
    #[error("not a rotation: {0}")]
    Rotation(&'static str),
    /// A rotation, by its number from 1, that does not continue the chain.
    #[error("rotation {0}: {1}")]
    Chain(usize, String),
    /// A log key of another name.
    #[error("expected a log key named {expected}, found {found}")]
    Name {
        /// Its name, if it were.
        expected: String,
        /// Its name.
        found: String,
    },
    /// The deployment has no name that a deployment can have.
    #[error("not the name of a deployment")]
    Deployment,
    /// The note is good and says something else.
    #[error("the note is about something else: {0}")]
    Other(&'static str),
}

/// That one log key follows another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotation {
    /// The deployment's name.
    pub deployment: String,
    /// The key that signs nothing more.
    pub old: VerifierKey,
    /// The key that signs from now on.
    pub new: VerifierKey,
    /// When.
    pub time: Micros,
    /// Size of each log there is, sorted by the tenant's bytes.
    pub sizes: Vec<(TenantId, u64)>,
}

/// First line of a rotation.
const ROTATION_DOMAIN: &str = "quipu.rotation.v1";

/// First line of what the log key says of a header.
const HEADER_DOMAIN: &str = "quipu.header.v1";

impl Rotation {
    /// The text that both keys sign.
    pub fn text(&self) -> String {
        let Self { deployment, old, new, time, sizes } = self;
        let mut text = format!("{ROTATION_DOMAIN}\n{deployment}\n{old}\n{new}\n{}\n", time.get());
        for (tenant, size) in sizes {
            text.push_str(&format!("{tenant} {size}\n"));
        }
        text
    }

    /// The note that the same text signed by each key makes: `by_old` and `by_new` are such notes.
    ///
    /// # Errors
    /// If one of them is not what its key makes of this rotation.
    pub fn join(&self, by_old: &str, by_new: &str) -> Result<String, KeyError> {
        let text = self.text();
        for (key, note) in [(&self.old, by_old), (&self.new, by_new)] {
            if key.open(note)? != text {
                return Err(KeyError::Rotation("a signature under another text"));
            }
        }
        // Both notes are this text, an empty line, and signature lines.
        let note = format!("{by_old}{}", &by_new[text.len() + 1..]);
        Self::open(&note)?;
        Ok(note)
    }

    /// Reads a rotation that both its keys signed.
    ///
    /// # Errors
    /// If it is not one, or not signed by both.
    pub fn open(note: &str) -> Result<Self, KeyError> {
        // The keys are in the text, so it is read before it is believed.
        let text = crate::note::unverified_text(note)?;
        let rotation = Self::parse(text)?;
        rotation.old.open(note)?;
        rotation.new.open(note)?;
        Ok(rotation)
    }

    /// Reads the text of a rotation.
    ///
    /// # Errors
    /// If it is anything but what [`Rotation::text`] writes.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let body = text.strip_suffix('\n').ok_or(KeyError::Rotation("no newline at its end"))?;
        let mut lines = body.split('\n');
        let mut next = || lines.next().ok_or(KeyError::Rotation("expected at least five lines"));
        let (domain, deployment, old, new, time) = (next()?, next()?, next()?, next()?, next()?);
        if domain != ROTATION_DOMAIN {
            return Err(KeyError::Rotation("another kind of statement"));
        }
        if !is_deployment_name(deployment) {
            return Err(KeyError::Deployment);
        }
        let (old, new) = (log_key(deployment, old)?, log_key(deployment, new)?);
        let time = statement::parse_time(time)?;
        let mut sizes: Vec<(TenantId, u64)> = Vec::new();
        for line in lines {
            let (tenant, size) =
                line.split_once(' ').ok_or(KeyError::Rotation("expected a tenant and a size"))?;
            let tenant = TenantId::parse(tenant).map_err(|_| KeyError::Rotation("a tenant"))?;
            let size = parse_size(size).filter(|size| *size > 0);
            let size = size.ok_or(KeyError::Rotation("the size of a log that has leaves"))?;
            if sizes.last().is_some_and(|(before, _)| *before >= tenant) {
                return Err(KeyError::Rotation("tenants are sorted, none twice"));
            }
            sizes.push((tenant, size));
        }
        Ok(Self { deployment: deployment.to_owned(), old, new, time, sizes })
    }

    /// Size of a tenant's log when the keys changed; 0 if it had none.
    pub fn size_of(&self, tenant: &TenantId) -> u64 {
        self.sizes.binary_search_by(|(name, _)| name.cmp(tenant)).map_or(0, |at| self.sizes[at].1)
    }
}

/// Reads a verifier key that must have the name of the deployment's log key.
fn log_key(deployment: &str, text: &str) -> Result<VerifierKey, KeyError> {
    let key = VerifierKey::parse(text)?;
    check_name(deployment, &key)?;
    Ok(key)
}

fn check_name(deployment: &str, key: &VerifierKey) -> Result<(), KeyError> {
    let expected = log_key_name(deployment);
    if key.name() == expected {
        Ok(())
    } else {
        Err(KeyError::Name { expected, found: key.name().to_owned() })
    }
}

/// The log keys of a deployment, the oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyChain {
    deployment: String,
    /// The key before each rotation, and the one after the last.
    keys: Vec<VerifierKey>,
    rotations: Vec<Rotation>,
}

impl KeyChain {
    /// From the newest key and the notes of all rotations, the oldest first.
    ///
    /// # Errors
    /// If they make no chain: a key of another name, a rotation that is not signed by both its keys, does not follow the
    /// one before, names a key again or a log that got smaller, or a last key that is not `log_key`.
    pub fn new<'n>(
        deployment: &str,
        log_key: VerifierKey,
        rotations: impl IntoIterator<Item = &'n str>,
    ) -> Result<Self, KeyError> {
        if !is_deployment_name(deployment) {
            return Err(KeyError::Deployment);
        }
        check_name(deployment, &log_key)?;
        let mut chain = Self { deployment: deployment.to_owned(), keys: Vec::new(), rotations: Vec::new() };
        for note in rotations {
            let number = chain.rotations.len() + 1;
            chain.extend(note).map_err(|error| match error {
                KeyError::Chain(..) => error,
                other => KeyError::Chain(number, other.to_string()),
            })?;
        }
        match chain.keys.last() {
            None => chain.keys.push(log_key),
            Some(last) if *last != log_key => {
                let why = format!("the log key is {log_key}, the chain ends with {last}");
                return Err(KeyError::Chain(chain.rotations.len(), why));
            }
            Some(_) => {}
        }
        Ok(chain)
    }

    /// A chain of one key.
    ///
    /// # Errors
    /// If the key has another name.
    pub fn of(deployment: &str, log_key: VerifierKey) -> Result<Self, KeyError> {
        Self::new(deployment, log_key, [])
    }

    fn extend(&mut self, note: &str) -> Result<(), KeyError> {
        let rotation = Rotation::open(note)?;
        let wrong = |why: &str| Err(KeyError::Chain(self.rotations.len() + 1, why.to_owned()));
        if rotation.deployment != self.deployment {
            return wrong("it is of another deployment");
        }
        if self.keys.is_empty() {
            self.keys.push(rotation.old.clone());
        } else if self.keys.last() != Some(&rotation.old) {
            return wrong("its old key is not the new key of the one before");
        }
        if self.keys.contains(&rotation.new) {
            return wrong("its new key was a log key before");
        }
        if let Some(before) = self.rotations.last()
            && before.sizes.iter().any(|(tenant, size)| rotation.size_of(tenant) < *size)
        {
            return wrong("a log is smaller than in the one before");
        }
        self.keys.push(rotation.new.clone());
        self.rotations.push(rotation);
        Ok(())
    }

    /// The deployment's name.
    pub fn deployment(&self) -> &str {
        &self.deployment
    }

    /// All keys, the oldest first; at least one.
    pub fn keys(&self) -> &[VerifierKey] {
        &self.keys
    }

    /// The rotations between them.
    pub fn rotations(&self) -> &[Rotation] {
        &self.rotations
    }

    /// The key that signs now.
    pub fn newest(&self) -> &VerifierKey {
        self.keys.last().expect("a chain has a key")
    }

    /// True if the key is one of them.
    pub fn contains(&self, key: &VerifierKey) -> bool {
        self.keys.contains(key)
    }

    /// The key that signs headers and checkpoints of a tenant at a tree size.
    pub fn holds_for(&self, tenant: &TenantId, tree_size: u64) -> &VerifierKey {
        // Sizes rise from one rotation to the next, so those that are below come first.
        let passed = self.rotations.partition_point(|rotation| rotation.size_of(tenant) < tree_size);
        &self.keys[passed]
    }

    /// Reads a certificate that a key of the chain signed: the receipt key.
    ///
    /// # Errors
    /// If none did, one's signature does not verify, or it is not a certificate of this deployment.
    pub fn open_certificate(&self, note: &str) -> Result<VerifierKey, KeyError> {
        open_any(&self.keys, note)?;
        let signed = |key: &&VerifierKey| key.open(note).is_ok();
        let key = self.keys.iter().find(signed).unwrap_or(self.newest());
        Ok(statement::open_certificate(key, &self.deployment, note)?)
    }

    /// Reads a checkpoint of a tenant that the key signed which holds for its size.
    ///
    /// # Errors
    /// If it is not one.
    pub fn open_checkpoint(&self, tenant: &TenantId, note: &str) -> Result<Checkpoint, KeyError> {
        let claimed = self.claimed(tenant, note)?;
        let key = self.holds_for(tenant, claimed.tree_size).renamed(&claimed.origin)?;
        key.open(note)?;
        Ok(claimed)
    }

    /// Reads a checkpoint of any tenant that any key of the chain signed: one that was kept outside.
    ///
    /// # Errors
    /// If it is not one.
    pub fn open_kept_checkpoint(&self, note: &str) -> Result<(TenantId, Checkpoint), KeyError> {
        let claimed = Checkpoint::parse(crate::note::unverified_text(note)?)?;
        let tenant = claimed.origin.strip_prefix(&self.deployment).and_then(|rest| rest.strip_prefix('/'));
        let tenant = tenant.and_then(|name| TenantId::parse(name).ok());
        let tenant = tenant.ok_or(KeyError::Other("the origin of a log of another deployment"))?;
        let keys: Result<Vec<_>, _> = self.keys.iter().map(|key| key.renamed(&claimed.origin)).collect();
        open_any(&keys?, note)?;
        Ok((tenant, claimed))
    }

    /// What a note says about a log of this tenant, before it is believed.
    fn claimed(&self, tenant: &TenantId, note: &str) -> Result<Checkpoint, KeyError> {
        let claimed = Checkpoint::parse(crate::note::unverified_text(note)?)?;
        if claimed.origin == origin(&self.deployment, tenant) {
            Ok(claimed)
        } else {
            Err(KeyError::Other("the origin of another log"))
        }
    }

    /// Checks the log key's word for a header: signed by the key that holds for the header's tree size.
    ///
    /// # Errors
    /// If it is not signed so, or says another header.
    pub fn open_header(&self, header: &HeaderStatement<'_>, note: &str) -> Result<(), KeyError> {
        let text = self.holds_for(header.tenant, header.tree_size).open(note)?;
        if text == header.text(&self.deployment) {
            Ok(())
        } else {
            Err(KeyError::Other("it names another header"))
        }
    }

    /// The text of an object record that any key of the chain signed.
    ///
    /// # Errors
    /// If none did, or one's signature does not verify.
    pub fn open_object_record<'n>(&self, note: &'n str) -> Result<&'n str, KeyError> {
        Ok(open_any(&self.keys, note)?)
    }
}

/// The text of a note that one of the keys signed, and no other of them badly.
fn open_any<'n>(keys: &[VerifierKey], note: &'n str) -> Result<&'n str, NoteError> {
    let mut opened = Err(NoteError::NotSigned("a log key of this deployment".to_owned()));
    for key in keys {
        match key.open(note) {
            Ok(text) => opened = Ok(text),
            Err(NoteError::NotSigned(_)) => {}
            Err(error) => return Err(error),
        }
    }
    opened
}

/// What the log key says of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderStatement<'a> {
    /// Whose.
    pub tenant: &'a TenantId,
    /// Number of the batch.
    pub batch: u64,
    /// SHA-256 of the header's bytes.
    pub hash: &'a [u8; 32],
    /// Size of the tree after it. Not in the text: it says which key signs.
    pub tree_size: u64,
}

impl HeaderStatement<'_> {
    /// The text that is signed.
    pub fn text(&self, deployment: &str) -> String {
        format!("{HEADER_DOMAIN}\n{deployment}\n{}\n{}\n{}\n", self.tenant, self.batch, ids::hex(self.hash))
    }
}
