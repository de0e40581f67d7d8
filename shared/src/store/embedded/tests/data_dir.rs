//! The data directory: made whole, opened once at a time, never put into a stranger's place.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::super::{DataDir, DataDirError};
use super::*;

fn now() -> Micros {
    Micros::from_unix_ms(1_770_000_000_000)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_directory_is_made_and_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/er/data");
    assert!(matches!(DataDir::open(&path), Err(DataDirError::Absent { .. })));
    let made = DataDir::create_or_open(&path, now()).unwrap();
    let name = made.deployment().to_owned();
    assert!(name.starts_with("local-") && name.len() == 14, "{name}");
    let identity = made.identity().unwrap();
    assert_eq!(identity.log_key.name(), format!("{name}/_log"));
    assert_eq!(identity.certificates.len(), 1);
    let keys = path.join("keys");
    assert_eq!([mode(&path), mode(&keys)], [0o700; 2]);
    assert_eq!([mode(&keys.join("log.key")), mode(&keys.join("receipt.key"))], [0o600; 2]);
    assert_eq!(mode(&path.join("ledger.redb")), 0o600);
    assert_eq!(mode(&keys.join("log.pub")), 0o644);
    assert_eq!(fs::read_to_string(path.join("format")).unwrap(), "quipu data directory, version 1\n");
    drop(EmbeddedStore::open(&made.ledger_path(), &EmbeddedOptions::default()).unwrap());
    drop(made);
    let again = DataDir::create_or_open(&path, now()).unwrap();
    assert_eq!(again.deployment(), name);
    assert_eq!(again.public_keys().unwrap().0, identity.log_key);
    let mut names: Vec<_> =
        fs::read_dir(&path).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["deployment", "format", "keys", "ledger.redb", "lock"]);
}

#[test]
fn one_at_a_time_and_the_other_learns_who() {
    let dir = tempfile::tempdir().unwrap();
    let first = DataDir::create_or_open(dir.path(), now()).unwrap();
    match DataDir::open(dir.path()) {
        Err(DataDirError::InUse { server: None, .. }) => {}
        other => panic!("{other:?}"),
    }
    first.write_server_info("{\"url\":\"http://127.0.0.1:1\"}").unwrap();
    assert_eq!(mode(&dir.path().join("server.json")), 0o600);
    let error = DataDir::create_or_open(dir.path(), now()).unwrap_err();
    assert!(matches!(&error, DataDirError::InUse { server: Some(info), .. } if info.contains("127.0.0.1:1")));
    // There is a credential in it, so its words say nothing of it.
    assert!(!error.to_string().contains("127.0.0.1:1"), "{error}");
    drop(first);
    assert!(!dir.path().join("server.json").exists());
    // What a killed server leaves is overwritten.
    fs::write(dir.path().join("server.json"), "stale").unwrap();
    let next = DataDir::open(dir.path()).unwrap();
    next.write_server_info("{}").unwrap();
    assert_eq!(fs::read_to_string(dir.path().join("server.json")).unwrap(), "{}");
}

#[test]
fn a_strangers_directory_is_left_alone() {
    for names in [&["notes.txt"][..], &["keys"], &["lock", "deployment"], &["format"], &["ledger.redb"]] {
        let dir = tempfile::tempdir().unwrap();
        for name in names {
            fs::write(dir.path().join(name), "mine").unwrap();
        }
        for result in [DataDir::create_or_open(dir.path(), now()), DataDir::open(dir.path())] {
            match result {
                Err(DataDirError::Foreign { .. } | DataDirError::Absent { .. }) => {}
                other => panic!("{names:?}: {other:?}"),
            }
        }
        assert!(matches!(DataDir::create_or_open(dir.path(), now()), Err(DataDirError::Foreign { .. })));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), names.len(), "littered beside {names:?}");
    }
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("format"), "quipu data directory, version 2\n").unwrap();
    assert!(matches!(DataDir::create_or_open(dir.path(), now()), Err(DataDirError::Version { .. })));
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(matches!(DataDir::create_or_open(&file, now()), Err(DataDirError::Io { .. })));
}

/// A copy of a directory as a crash leaves it, having made only some files, in the order of making.
#[test]
fn an_interrupted_creation_is_completed() {
    let whole = tempfile::tempdir().unwrap();
    drop(DataDir::create_or_open(whole.path(), now()).unwrap());
    let order = [
        "lock",
        "deployment",
        "keys",
        "keys/log.key",
        "keys/log.pub",
        "keys/receipt.key",
        "keys/certificates.json",
        "ledger.redb",
    ];
    for count in 0..=order.len() {
        let dir = tempfile::tempdir().unwrap();
        for name in &order[..count] {
            if *name == "keys" {
                fs::create_dir(dir.path().join("keys")).unwrap();
            } else {
                fs::copy(whole.path().join(name), dir.path().join(name)).unwrap();
            }
        }
        if let Some(name) = order.get(count).filter(|name| count > 0 && **name != "keys") {
            fs::write(dir.path().join(format!("{name}.new")), "half").unwrap();
        }
        assert!(matches!(DataDir::open(dir.path()), Err(DataDirError::Absent { .. })), "{count}");
        let made = DataDir::create_or_open(dir.path(), now()).unwrap();
        let identity = made.identity().unwrap();
        if count > 1 {
            let name = fs::read_to_string(whole.path().join("deployment")).unwrap();
            assert_eq!(identity.deployment, name.trim(), "what was there is kept");
        }
        drop(EmbeddedStore::open(&made.ledger_path(), &EmbeddedOptions::default()).unwrap());
    }
    // The very first step, cut off.
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("lock"), "").unwrap();
    DataDir::create_or_open(dir.path(), now()).unwrap();
}

#[test]
fn a_ledger_never_starts_again_empty() {
    for name in ["ledger.redb", "deployment"] {
        let dir = tempfile::tempdir().unwrap();
        drop(DataDir::create_or_open(dir.path(), now()).unwrap());
        fs::remove_file(dir.path().join(name)).unwrap();
        match DataDir::create_or_open(dir.path(), now()) {
            Err(DataDirError::Missing { path }) => assert!(path.ends_with(name)),
            other => panic!("{other:?}"),
        }
        assert!(!dir.path().join(name).exists());
    }
}

#[test]
fn keys_that_are_not_good_are_refused() {
    let make = || {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::create_or_open(&dir.path().join("d"), now()).unwrap();
        let keys = data.path().join("keys");
        (dir, data, keys)
    };
    for name in ["log.key", "receipt.key"] {
        let (_dir, data, keys) = make();
        fs::set_permissions(keys.join(name), fs::Permissions::from_mode(0o640)).unwrap();
        let error = data.identity().unwrap_err();
        assert!(matches!(error, DataDirError::KeyMode { mode: 0o640, .. }));
        assert!(error.to_string().contains("chmod 600"), "{error}");
        assert!(data.public_keys().is_ok());
    }
    let (_other_dir, _other, other) = make();
    for name in ["log.key", "log.pub", "receipt.key", "certificates.json"] {
        let (_dir, data, keys) = make();
        fs::copy(other.join(name), keys.join(name)).unwrap();
        assert!(matches!(data.identity(), Err(DataDirError::Key { .. })), "another's {name}");
        fs::write(keys.join(name), "garbage").unwrap();
        assert!(matches!(data.identity(), Err(DataDirError::Key { .. })), "garbage in {name}");
        fs::remove_file(keys.join(name)).unwrap();
        assert!(data.identity().is_err(), "no {name}");
    }
}
