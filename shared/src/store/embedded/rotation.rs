//! Replacing a key: the log key by a rotation (docs/format.md, section 8), the receipt key by a new certificate.
//!
//! Either is four changes of files, each of which happens whole and durably or not at all:
//!
//! | | log key | receipt key |
//! |---|---|---|
//! | 1 | `log.key.next`: the new private key | `receipt.key.next`: the new private key |
//! | 2 | `rotations.json`: with the note that both keys signed | `certificates.json`: with the new certificate |
//! | 3 | `log.key.next` is renamed to `log.key`, over the old one | `receipt.key.next` to `receipt.key`, likewise |
//! | 4 | `log.pub`: the new verifier key | |
//!
//! The second change decides, and what it wrote says which key is the newest. A crash before it leaves a key that
//! nothing names: the next to look removes it, and the old key holds. A crash after it leaves the new private key in
//! one place or the other: the next to look does what is left to do ([`settle`], before any private key is used).
//! Those who only verify never write: to them the second change alone counts. At no moment is the newest private key
//! without a name, and once the third is done the old one is in no file (what the medium keeps of it is not
//! overwritten).
//!
//! The directory must be locked. How far each log has come is for the caller to say ([`super::archived_logs`]).

use std::fs;
use std::path::{Path, PathBuf};

use super::data_dir::{DataDirError, may_go_on, sync_dir};
use super::key_files::{
    CERTIFICATES, LOG_KEY, LOG_PUB, PublicKeys, RECEIPT_KEY, ROTATIONS, bad, exists, make_private,
    read_private, write_notes, write_verifier,
};
use crate::ids::TenantId;
use crate::log::keys::{KeyChain, Rotation};
use crate::note::VerifierKey;
use crate::statement;
use crate::time::Micros;

/// Ending of a private key that is to be the next.
const NEXT: &str = ".next";

fn next(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(NEXT);
    PathBuf::from(name)
}

/// Sees to it that `path` holds the private half of `newest`, and that no other waits beside it.
fn settle_private(path: &Path, newest: &VerifierKey) -> Result<(), DataDirError> {
    let waiting = next(path);
    let io = |e| DataDirError::io(&waiting, e);
    let dir = path.parent().unwrap_or(path);
    if read_private(path, newest.name())?.verifier() == newest {
        if exists(&waiting)? {
            // Of a rotation that was cut off before it was decided.
            may_go_on().and_then(|()| fs::remove_file(&waiting)).map_err(io)?;
            sync_dir(dir)?;
        }
        return Ok(());
    }
    if !exists(&waiting)? || read_private(&waiting, newest.name())?.verifier() != newest {
        return Err(bad(path, format_args!("it is not the private half of {newest}")));
    }
    may_go_on().and_then(|()| fs::rename(&waiting, path)).map_err(io)?;
    sync_dir(dir)
}

/// Brings a rotation that was interrupted to its end, or to nothing. Without one, nothing is written.
pub(super) fn settle(keys: &Path, deployment: &str) -> Result<PublicKeys, DataDirError> {
    let public = PublicKeys::read(keys, deployment)?;
    settle_private(&keys.join(LOG_KEY), public.chain.newest())?;
    let log_pub = keys.join(LOG_PUB);
    let text = fs::read_to_string(&log_pub).map_err(|e| DataDirError::io(&log_pub, e))?;
    if text.trim_end() != public.chain.newest().to_string() {
        write_verifier(&log_pub, public.chain.newest())?;
    }
    settle_private(&keys.join(RECEIPT_KEY), &public.receipt_key)?;
    Ok(public)
}

/// Replaces the log key. `sizes` says how far the log of each tenant has come, sorted by tenant.
pub(super) fn rotate_log(
    keys: &Path,
    deployment: &str,
    sizes: Vec<(TenantId, u64)>,
    now: Micros,
) -> Result<Rotation, DataDirError> {
    let PublicKeys { mut rotations, .. } = settle(keys, deployment)?;
    let (path, name) = (keys.join(LOG_KEY), statement::log_key_name(deployment));
    let old = read_private(&path, &name)?;
    let new = make_private(&next(&path), &name)?;
    let rotation = Rotation {
        deployment: deployment.to_owned(),
        old: old.verifier().clone(),
        new: new.verifier().clone(),
        time: now,
        sizes,
    };
    let path = keys.join(ROTATIONS);
    let text = rotation.text();
    let note = rotation.join(&old.sign(&text), &new.sign(&text)).map_err(|e| bad(&path, e))?;
    rotations.push(note);
    // What is written must be a chain, or nobody could read the directory any more.
    let notes = rotations.iter().map(String::as_str);
    KeyChain::new(deployment, rotation.new.clone(), notes).map_err(|e| bad(&path, e))?;
    write_notes(&path, &rotations)?;
    settle(keys, deployment)?;
    Ok(rotation)
}

/// Replaces the receipt key: the new one.
pub(super) fn rotate_receipt(
    keys: &Path,
    deployment: &str,
    now: Micros,
) -> Result<VerifierKey, DataDirError> {
    let PublicKeys { mut certificates, .. } = settle(keys, deployment)?;
    let log = read_private(&keys.join(LOG_KEY), &statement::log_key_name(deployment))?;
    let new = make_private(&next(&keys.join(RECEIPT_KEY)), &statement::receipt_key_name(deployment))?;
    certificates.push(statement::certify(&log, deployment, new.verifier(), now));
    write_notes(&keys.join(CERTIFICATES), &certificates)?;
    settle(keys, deployment)?;
    Ok(new.verifier().clone())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tempfile::TempDir;

    use super::super::data_dir::cut_after;
    use super::super::{ArchivedLog, DataDir, RotationError};
    use super::*;
    use crate::log::checkpoint::{Checkpoint, origin};
    use crate::log::paths;

    fn now() -> Micros {
        Micros::from_unix_ms(1_770_000_000_000)
    }

    fn tenant(name: &str) -> TenantId {
        TenantId::parse(name).unwrap()
    }

    fn made() -> (TempDir, DataDir) {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::create_or_open(&dir.path().join("d"), now()).unwrap();
        (dir, data)
    }

    /// The files in `keys/`, by name.
    fn files(data: &DataDir) -> BTreeMap<String, String> {
        let entries = fs::read_dir(data.path().join("keys")).unwrap().map(Result::unwrap);
        let read =
            |e: fs::DirEntry| (e.file_name().into_string().unwrap(), fs::read_to_string(e.path()).unwrap());
        entries.map(read).collect()
    }

    fn restore(data: &DataDir, before: &BTreeMap<String, String>) {
        let keys = data.path().join("keys");
        for name in files(data).keys() {
            fs::remove_file(keys.join(name)).unwrap();
        }
        for (name, text) in before {
            super::super::data_dir::write_new(&keys.join(name), text.as_bytes(), 0o600).unwrap();
        }
    }

    fn holds(data: &DataDir, secret: &str) -> bool {
        files(data).values().any(|text| text.contains(secret.trim()))
    }

    #[test]
    fn a_log_key_is_replaced_and_what_it_certified_stays_good() {
        let (_dir, data) = made();
        let (before, secret) = (data.identity().unwrap(), data.log_signer().unwrap().private_text());
        let names: Vec<_> = files(&data).into_keys().chain([ROTATIONS.to_owned()]).collect();
        for round in 1..=2 {
            let rotation = data.rotate_log_key(now()).unwrap();
            let after = data.identity().unwrap();
            assert_eq!(after.log_key, rotation.new);
            assert_eq!(after.rotations.len(), round);
            assert_eq!(Rotation::open(after.rotations.last().unwrap()), Ok(rotation));
            assert_eq!(after.certificates, before.certificates);
            assert_eq!(after.receipt_key.verifier(), before.receipt_key.verifier());
            assert_eq!(data.log_signer().unwrap().verifier(), &after.log_key);
            assert_eq!(data.public_keys().unwrap(), (after.log_key.clone(), after.certificates.clone()));
            assert_eq!(data.rotations().unwrap(), after.rotations);
            assert_eq!(files(&data)[LOG_PUB], format!("{}\n", after.log_key));
            assert!(!holds(&data, &secret));
            assert_eq!(
                files(&data).into_keys().collect::<std::collections::BTreeSet<_>>(),
                names.iter().cloned().collect()
            );
        }
        // The first key of the chain certified one receipt key, the last certifies another.
        let first = data.identity().unwrap().receipt_key.private_text();
        let receipt = data.rotate_receipt_key(now()).unwrap();
        let after = data.identity().unwrap();
        assert_eq!((after.certificates.len(), after.rotations.len()), (2, 2));
        assert_eq!(after.certificates[0], before.certificates[0]);
        assert_eq!(after.receipt_key.verifier(), &receipt);
        assert!(!holds(&data, &first));
        assert!(data.log_signer().unwrap().verifier().open(&after.certificates[1]).is_ok());
    }

    /// A rotation is cut at every change of a file, and what looks at it next as well.
    fn cut_everywhere(
        rotate: impl Fn(&DataDir) -> Result<(), RotationError>,
        known: impl Fn(&DataDir) -> usize,
    ) {
        let (_dir, data) = made();
        let (before, old) = (files(&data), data.identity().unwrap());
        let secrets = [data.log_signer().unwrap().private_text(), old.receipt_key.private_text()];
        let count = known(&data);
        let mut outcomes = BTreeMap::new();
        for cut in 0.. {
            let mut is_whole = false;
            for cut_again in 0.. {
                restore(&data, &before);
                cut_after(cut);
                is_whole = rotate(&data).is_ok();
                cut_after(u32::MAX);
                let left = files(&data);
                // Who only verifies can, and writes nothing.
                let public = data.public_keys().unwrap();
                assert_eq!(files(&data), left);
                cut_after(cut_again);
                let is_settled = data.identity().is_ok();
                cut_after(u32::MAX);
                let identity = data.identity().unwrap();
                assert_eq!(
                    (&identity.log_key, &identity.certificates),
                    (&public.0, &public.1),
                    "{cut} {cut_again}"
                );
                assert_eq!(data.log_signer().unwrap().verifier(), &public.0);
                let decided = known(&data) - count;
                *outcomes.entry(decided).or_insert(0) += 1;
                // One of the two private keys that there were is gone if its successor is known, and none otherwise.
                assert_eq!(secrets.iter().filter(|secret| holds(&data, secret)).count(), 2 - decided);
                let waiting: Vec<_> = files(&data).into_keys().filter(|name| name.ends_with(NEXT)).collect();
                assert!(waiting.is_empty(), "{cut} {cut_again}: {waiting:?}");
                rotate(&data).unwrap();
                assert_eq!(known(&data), count + decided + 1);
                data.identity().unwrap();
                if is_settled {
                    break;
                }
            }
            if is_whole {
                break;
            }
        }
        assert!(outcomes[&0] >= 3 && outcomes[&1] >= 3, "{outcomes:?}");
    }

    #[test]
    fn a_rotation_of_the_log_key_can_be_cut_anywhere() {
        cut_everywhere(|data| data.rotate_log_key(now()).map(|_| ()), |data| data.rotations().unwrap().len());
    }

    #[test]
    fn a_rotation_of_the_receipt_key_can_be_cut_anywhere() {
        let certificates = |data: &DataDir| data.public_keys().unwrap().1.len();
        cut_everywhere(|data| Ok(data.rotate_receipt_key(now()).map(|_| ())?), certificates);
    }

    /// Writes an object of the archive.
    fn write(data: &DataDir, key: &str, text: &str) {
        let path = data.archive_path().join(key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn checkpoint(data: &DataDir, tenant: &TenantId, tree_size: u64) -> String {
        let origin = origin(data.deployment(), tenant);
        let signer = data.log_signer().unwrap().renamed(&origin).unwrap();
        signer.sign(&Checkpoint { origin, tree_size, root: [7; 32] }.text())
    }

    /// A finished batch, as far as a rotation looks at it.
    fn publish(data: &DataDir, tenant: &TenantId, batch: u64, tree_size: u64) {
        let note = checkpoint(data, tenant, tree_size);
        write(data, &paths::header(tenant, batch), "{}");
        write(data, &paths::checkpoint_at(tenant, batch), &note);
        write(data, &paths::checkpoint(tenant), &note);
    }

    #[test]
    fn a_rotation_names_the_size_of_every_log() {
        let (_dir, data) = made();
        let (acme, zeta) = (tenant("acme"), tenant("zeta"));
        write(&data, paths::IDENTITY, "{}");
        publish(&data, &zeta, 1, 5);
        publish(&data, &zeta, 2, 9);
        publish(&data, &acme, 1, 1000);
        // Nothing of a batch is there yet.
        fs::create_dir_all(data.archive_path().join("log/empty/batch")).unwrap();
        let log =
            |tenant: &TenantId, batch, tree_size| ArchivedLog { tenant: tenant.clone(), batch, tree_size };
        assert_eq!(data.archived_logs().unwrap(), [log(&acme, 1, 1000), log(&zeta, 2, 9)]);
        let first = data.rotate_log_key(now()).unwrap();
        assert_eq!(first.sizes, [(acme.clone(), 1000), (zeta.clone(), 9)]);
        // What the old key signed stays good, and what the new one signs of larger trees.
        publish(&data, &zeta, 3, 10);
        let second = data.rotate_log_key(now()).unwrap();
        assert_eq!(second.sizes, [(acme, 1000), (zeta.clone(), 10)]);
        // A checkpoint of a size whose key is another's.
        publish(&data, &zeta, 4, 10);
        assert!(matches!(data.rotate_log_key(now()), Err(RotationError::Dir(DataDirError::Damaged { .. }))));
    }

    #[test]
    fn no_log_key_is_replaced_in_the_middle_of_a_batch() {
        let (_dir, data) = made();
        let acme = tenant("acme");
        publish(&data, &acme, 1, 5);
        let before = files(&data);
        let refused = |what: &str, batch| {
            match data.rotate_log_key(now()) {
                Err(RotationError::Unfinished { tenant, batch: at }) => {
                    assert_eq!((tenant, at), (acme.clone(), batch), "{what}");
                }
                other => panic!("{what}: {other:?}"),
            }
            assert_eq!(files(&data), before, "{what}");
        };
        write(&data, &paths::header(&acme, 2), "{}");
        refused("a header", 2);
        write(&data, &paths::header_signature(&acme, 2), "");
        refused("its signature", 2);
        write(&data, &paths::checkpoint_at(&acme, 2), &checkpoint(&data, &acme, 6));
        refused("its checkpoint is not the newest", 2);
        publish(&data, &acme, 2, 6);
        assert_eq!(data.rotate_log_key(now()).unwrap().sizes, [(acme.clone(), 6)]);

        let (_dir, data) = made();
        write(&data, &paths::checkpoint(&acme), &checkpoint(&data, &acme, 6));
        assert!(
            matches!(data.rotate_log_key(now()), Err(RotationError::Dir(DataDirError::Damaged { .. }))),
            "no batch beside it"
        );
    }

    #[test]
    fn rotations_that_are_not_good_are_refused() {
        let (_dir, data) = made();
        let before = files(&data);
        data.rotate_log_key(now()).unwrap();
        let after = files(&data);
        let (_other_dir, other) = made();
        other.rotate_log_key(now()).unwrap();
        let cases = [
            ("garbage", after[ROTATIONS].replace("quipu.rotation", "quipu.rotten")),
            ("another's", files(&other)[ROTATIONS].clone()),
            ("a signature less", after[ROTATIONS].replacen("\\n\"", "\"", 1)),
        ];
        for (what, text) in cases {
            fs::write(data.path().join("keys").join(ROTATIONS), text).unwrap();
            assert!(matches!(data.identity(), Err(DataDirError::Key { .. })), "{what}");
            assert!(data.public_keys().is_err(), "{what}");
        }
        // An old backup of one file among newer ones.
        for name in [LOG_KEY, LOG_PUB] {
            restore(&data, &after);
            fs::write(data.path().join("keys").join(name), &before[name]).unwrap();
            if name == LOG_PUB {
                assert_eq!(
                    data.identity().unwrap().rotations.len(),
                    1,
                    "what says which is newest is the rotations"
                );
            } else {
                assert!(matches!(data.identity(), Err(DataDirError::Key { .. })));
            }
        }
    }
}
