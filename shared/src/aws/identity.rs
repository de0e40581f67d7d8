//! A deployment's identity on AWS: the log key lives in KMS and never leaves it; the receipt key is made once, sealed
//! with another KMS key, and stands in the table with the log key's certificate for it.
//!
//! Who may only unseal ([`KmsIdentity::new`]) cannot sign with the log key: ingestion that is broken into cannot
//! speak for the log.

use async_trait::async_trait;
use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{MessageType, SigningAlgorithmSpec};

use super::{Again, CallError, Connection, retried};
use crate::clock::Clock;
use crate::ids::TenantId;
use crate::ledger::{Identity, IdentitySource};
use crate::log::identity::IdentityFile;
use crate::log::keys::{KeyChain, Rotation};
use crate::log::signer::LogSigner;
use crate::note::{NoteSigner, VerifierKey};
use crate::random;
use crate::statement::{self, log_key_name, receipt_key_name};
use crate::store::StoreError;
use crate::store::dynamo::DynamoStore;
use crate::time::Micros;

use std::sync::Arc;

/// What a sealed receipt key is bound to: it cannot be unsealed as anything else.
const CONTEXT: (&str, &str) = ("quipu", "receipt-key");

/// An Ed25519 public key as KMS gives it: these bytes, then the key (RFC 8410).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Fetches the identity, or makes it if it may.
pub struct KmsIdentity {
    store: DynamoStore,
    kms: aws_sdk_kms::Client,
    seal_key: String,
    maker: Option<Maker>,
}

struct Maker {
    log_key: String,
    clock: Arc<dyn Clock>,
}

/// The log key, asked to sign where it lives.
#[derive(Clone)]
pub struct KmsSigner {
    kms: aws_sdk_kms::Client,
    log_key: String,
    public: Arc<tokio::sync::OnceCell<[u8; 32]>>,
    /// The name of the key itself, which the deployment's identity says.
    identity: Arc<KmsIdentity>,
}

impl KmsSigner {
    /// Signs with this key for the deployment of this identity. `log_key`: id, ARN or alias of an Ed25519 KMS key.
    pub fn new(connection: &Connection, identity: Arc<KmsIdentity>, log_key: &str) -> Self {
        let public = Arc::new(tokio::sync::OnceCell::new());
        Self { kms: connection.kms(), log_key: log_key.to_owned(), public, identity }
    }

    async fn public(&self) -> Result<&[u8; 32], StoreError> {
        self.public.get_or_try_init(|| public_key(&self.kms, &self.log_key)).await
    }
}

#[async_trait]
impl LogSigner for KmsSigner {
    async fn verifier(&self) -> Result<VerifierKey, StoreError> {
        let deployment = self.identity.identity().await?.deployment;
        VerifierKey::from_public(&log_key_name(&deployment), self.public().await?).map_err(damaged)
    }

    async fn sign(&self, name: &str, text: &str) -> Result<String, StoreError> {
        let key = VerifierKey::from_public(name, self.public().await?).map_err(damaged)?;
        let signature = sign(&self.kms, &self.log_key, text).await?;
        // Checked against the public half before anybody sees it.
        key.attach(text, &signature).map_err(damaged)
    }
}

/// The public half of an Ed25519 key in KMS.
async fn public_key(kms: &aws_sdk_kms::Client, log_key: &str) -> Result<[u8; 32], StoreError> {
    let public = retried(Again::IfUnknown, || {
        let request = kms.get_public_key().key_id(log_key);
        async { request.send().await.map_err(CallError::from) }
    });
    let public = public.await.map_err(CallError::into_store)?.public_key;
    let public = public.as_ref().and_then(|blob| blob.as_ref().strip_prefix(&SPKI_PREFIX));
    public.and_then(|key| <[u8; 32]>::try_from(key).ok()).ok_or_else(|| StoreError::Unavailable {
        why: "QUIPU_LOG_KEY is not an Ed25519 key (ECC_NIST_EDWARDS25519)".into(),
    })
}

/// The signature of a key in KMS over a text.
async fn sign(kms: &aws_sdk_kms::Client, log_key: &str, text: &str) -> Result<Vec<u8>, StoreError> {
    let signed = retried(Again::IfUnknown, || {
        let request = kms.sign().key_id(log_key).message(Blob::new(text.as_bytes()));
        let request = request.message_type(MessageType::Raw);
        let request = request.signing_algorithm(SigningAlgorithmSpec::Ed25519Sha512);
        async { request.send().await.map_err(CallError::from) }
    });
    let signature = signed.await.map_err(CallError::into_store)?.signature;
    signature.map(Blob::into_inner).ok_or_else(|| damaged("KMS gave no signature"))
}

/// The identity as it stands in the table.
struct Record {
    deployment: String,
    log_key: String,
    certificates: Vec<String>,
    rotations: Vec<String>,
    sealed: Vec<u8>,
}

fn damaged(why: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt { key: "the deployment's identity".into(), why: why.to_string() }
}

impl KmsIdentity {
    /// Of the deployment whose table this is. `seal_key`: id, ARN or alias of a symmetric KMS key.
    pub fn new(connection: &Connection, store: DynamoStore, seal_key: &str) -> Self {
        Self { store, kms: connection.kms(), seal_key: seal_key.to_owned(), maker: None }
    }

    /// Makes the identity where there is none. `log_key`: id, ARN or alias of an Ed25519 KMS key.
    #[must_use]
    pub fn or_make(mut self, log_key: &str, clock: Arc<dyn Clock>) -> Self {
        self.maker = Some(Maker { log_key: log_key.to_owned(), clock });
        self
    }

    async fn find(&self) -> Result<Option<Record>, StoreError> {
        let Some(item) = self.store.identity().await? else { return Ok(None) };
        let text = |name: &str| item.get(name).and_then(|v| v.as_s().ok()).cloned();
        let notes = |name: &str| {
            let note = |value: &AttributeValue| value.as_s().ok().cloned();
            item.get(name).map(|list| list.as_l().ok()?.iter().map(note).collect::<Option<Vec<_>>>())
        };
        let certificates = notes("certificates").flatten();
        // Not there until the log key is first replaced.
        let rotations = notes("rotations").unwrap_or_else(|| Some(Vec::new()));
        let sealed = item.get("sealed").and_then(|v| v.as_b().ok()).map(|blob| blob.as_ref().to_vec());
        match (text("deployment"), text("log_key"), certificates, rotations, sealed) {
            (Some(deployment), Some(log_key), Some(certificates), Some(rotations), Some(sealed)) => {
                Ok(Some(Record { deployment, log_key, certificates, rotations, sealed }))
            }
            _ => Err(damaged("a part of it is missing")),
        }
    }

    async fn unseal(&self, record: Record) -> Result<Identity, StoreError> {
        let Record { deployment, log_key, certificates, rotations, sealed } = record;
        let log_key = VerifierKey::parse(&log_key).map_err(damaged)?;
        // Certificates stay good, whichever log key signed them.
        let notes = rotations.iter().map(String::as_str);
        let chain = KeyChain::new(&deployment, log_key.clone(), notes).map_err(damaged)?;
        let mut newest = None;
        for certificate in &certificates {
            newest = Some(chain.open_certificate(certificate).map_err(damaged)?);
        }
        let opened = retried(Again::IfUnknown, || {
            let request =
                self.kms.decrypt().key_id(&self.seal_key).ciphertext_blob(Blob::new(sealed.clone()));
            let request = request.encryption_context(CONTEXT.0, CONTEXT.1);
            async { request.send().await.map_err(CallError::from) }
        });
        let opened = opened.await.map_err(CallError::into_store)?.plaintext;
        let seed = opened.as_ref().and_then(|blob| <[u8; 32]>::try_from(blob.as_ref()).ok());
        let seed = seed.ok_or_else(|| damaged("what was sealed is no key"))?;
        let name = receipt_key_name(&deployment);
        let receipt_key = NoteSigner::from_seed(&name, &seed).map_err(damaged)?;
        if newest.as_ref() != Some(receipt_key.verifier()) {
            return Err(damaged("the newest certificate is for another key"));
        }
        Ok(Identity { deployment, log_key, certificates, rotations, receipt_key })
    }

    /// Makes one. Of several who do this at once, the first to write it wins, and all take that.
    async fn make(&self, maker: &Maker) -> Result<(), StoreError> {
        let deployment = format!("aws-{}", crate::ids::hex(&random::bytes::<8>()));
        let public = public_key(&self.kms, &maker.log_key).await?;
        let log_key = VerifierKey::from_public(&log_key_name(&deployment), &public).map_err(damaged)?;
        self.put(IdentityFile { deployment, log_key, certificates: Vec::new(), rotations: Vec::new() }, maker)
            .await
    }

    /// Gives a table without an identity the one that an archive was made with, and a new receipt key: the old one went
    /// with the table. One that is there stays. `log_key`: id, ARN or alias of the deployment's log key in KMS.
    ///
    /// # Errors
    /// `Unavailable` if that is another key; those of store and KMS.
    pub async fn restore(
        &self,
        file: IdentityFile,
        log_key: &str,
        clock: Arc<dyn Clock>,
    ) -> Result<(), StoreError> {
        let public = public_key(&self.kms, log_key).await?;
        let at_hand = VerifierKey::from_public(&log_key_name(&file.deployment), &public).map_err(damaged)?;
        if at_hand != file.log_key {
            let why = format!("QUIPU_LOG_KEY is {at_hand}, the archive's log key is {}", file.log_key);
            return Err(StoreError::Unavailable { why });
        }
        self.put(file, &Maker { log_key: log_key.to_owned(), clock }).await
    }

    /// Makes a receipt key, certifies it, and writes the identity with it.
    async fn put(&self, file: IdentityFile, maker: &Maker) -> Result<(), StoreError> {
        let IdentityFile { deployment, log_key, mut certificates, rotations } = file;
        let seed = random::bytes::<32>();
        let receipt_key = NoteSigner::from_seed(&receipt_key_name(&deployment), &seed).map_err(damaged)?;
        let text = statement::certificate(&deployment, receipt_key.verifier(), maker.clock.now());
        let signature = sign(&self.kms, &maker.log_key, &text).await?;
        certificates.push(log_key.attach(&text, &signature).map_err(damaged)?);
        let sealed = retried(Again::IfUnknown, || {
            let request = self.kms.encrypt().key_id(&self.seal_key).plaintext(Blob::new(seed));
            let request = request.encryption_context(CONTEXT.0, CONTEXT.1);
            async { request.send().await.map_err(CallError::from) }
        });
        let sealed = sealed.await.map_err(CallError::into_store)?.ciphertext_blob;
        let sealed = sealed.ok_or_else(|| damaged("KMS sealed nothing"))?;
        let notes =
            |notes: Vec<String>| AttributeValue::L(notes.into_iter().map(AttributeValue::S).collect());
        let mut attributes = vec![
            ("deployment", AttributeValue::S(deployment)),
            ("log_key", AttributeValue::S(log_key.to_string())),
            ("certificates", notes(certificates)),
            ("sealed", AttributeValue::B(aws_sdk_dynamodb::primitives::Blob::new(sealed.into_inner()))),
        ];
        if !rotations.is_empty() {
            attributes.push(("rotations", notes(rotations)));
        }
        self.store.put_identity(attributes).await
    }

    /// The public half of the identity, if there is one.
    ///
    /// # Errors
    /// Those of the store; `Corrupt`.
    pub async fn public(&self) -> Result<Option<IdentityFile>, StoreError> {
        let Some(record) = self.find().await? else { return Ok(None) };
        let Record { deployment, log_key, certificates, rotations, .. } = record;
        let log_key = VerifierKey::parse(&log_key).map_err(damaged)?;
        Ok(Some(IdentityFile { deployment, log_key, certificates, rotations }))
    }

    /// Replaces the log key: both keys sign a note of it, which decides. `old`, `new`: ids, ARNs or aliases of Ed25519
    /// KMS keys. `sizes` says how far the log of each tenant has come, sorted by tenant; nothing may be archived
    /// meanwhile. Done already is done.
    ///
    /// # Errors
    /// `Unavailable` if `old` is not the deployment's log key, or `new` was one before; those of store and KMS.
    pub async fn rotate(
        &self,
        old: &str,
        new: &str,
        sizes: Vec<(TenantId, u64)>,
        now: Micros,
    ) -> Result<Rotation, StoreError> {
        let unfit = |why: String| StoreError::Unavailable { why };
        let Some(IdentityFile { deployment, log_key, rotations, .. }) = self.public().await? else {
            return Err(unfit("the table holds no keys yet".into()));
        };
        let key = async |at: &str| {
            let public = public_key(&self.kms, at).await?;
            VerifierKey::from_public(&log_key_name(&deployment), &public).map_err(damaged)
        };
        let rotation = Rotation {
            deployment: deployment.clone(),
            old: key(old).await?,
            new: key(new).await?,
            time: now,
            sizes,
        };
        if rotation.old != log_key {
            return Err(unfit(format!("{old} is {}, the deployment's log key is {log_key}", rotation.old)));
        }
        let text = rotation.text();
        let signed = async |at: &str, key: &VerifierKey| {
            key.attach(&text, &sign(&self.kms, at, &text).await?).map_err(damaged)
        };
        let (by_old, by_new) = (signed(old, &rotation.old).await?, signed(new, &rotation.new).await?);
        let note = rotation.join(&by_old, &by_new).map_err(damaged)?;
        // What is written must be a chain, or nobody could read the identity any more.
        let notes = rotations.iter().chain([&note]).map(String::as_str);
        KeyChain::new(&deployment, rotation.new.clone(), notes).map_err(|e| unfit(e.to_string()))?;
        match self.store.replace_log_key(&log_key.to_string(), &rotation.new.to_string(), &note).await {
            Ok(()) => Ok(rotation),
            // Applied, perhaps: what stands there says.
            Err(error) => match self.public().await? {
                Some(now) if now.rotations.last() == Some(&note) => Ok(rotation),
                _ => Err(error),
            },
        }
    }
}

#[async_trait]
impl IdentitySource for KmsIdentity {
    async fn identity(&self) -> Result<Identity, StoreError> {
        if let Some(record) = self.find().await? {
            return self.unseal(record).await;
        }
        let Some(maker) = &self.maker else {
            let why = "the table holds no keys yet: they are made with the deployment's first token, or by the first \
                       server on the table that has QUIPU_LOG_KEY";
            return Err(StoreError::Unavailable { why: why.into() });
        };
        self.make(maker).await?;
        match self.find().await? {
            Some(record) => self.unseal(record).await,
            None => Err(damaged("it was written and is not there")),
        }
    }
}
