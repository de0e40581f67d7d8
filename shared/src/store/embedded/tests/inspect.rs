//! Reading a file that nobody trusts: it stays as it is, and whatever was done to it is named or at least survived.

use std::fs;

use redb::{Database, ReadableTable, TableHandle};

use super::super::{InspectTable, Inspector, Misfit, tables};
use super::*;
use crate::store::{Store, StoreError, keys};

/// A file with ten sessions of three segments each.
async fn filled() -> (tempfile::TempDir, std::path::PathBuf) {
    let (dir, store) = store();
    for n in 0..10 {
        let name = session(&format!("s-{n}"));
        let mut head = None;
        for round in 0..3 {
            let commit = batch(n * 10 + round, &[(&name, head)], 6000);
            head = Some(commit.segments[0].meta.head());
            store.commit(commit).await.unwrap();
        }
    }
    let path = dir.path().join("ledger.redb");
    (dir, path)
}

fn misfits(path: &Path) -> Result<Vec<Misfit>, StoreError> {
    let mut found = Vec::new();
    Inspector::open(path)?.check_derived(&mut |misfit| found.push(misfit))?;
    Ok(found)
}

/// Reads everything there is. Errors are fine, panics and hangs are not.
fn read_all(path: &Path) -> Result<u64, StoreError> {
    let inspector = Inspector::open(path)?;
    let mut segments = 0;
    inspector.tenants()?;
    for session in inspector.sessions()? {
        let (tenant, session) = session?;
        inspector.session_record(&tenant, &session)?;
        for segment in inspector.segments(&tenant, &session)? {
            segment?.body?;
            segments += 1;
        }
    }
    inspector.check_derived(&mut |_| ())?;
    inspector.checksums()?;
    Ok(segments)
}

#[tokio::test]
async fn a_sound_file_is_read_and_left_alone() {
    let (_dir, path) = filled().await;
    let before = fs::read(&path).unwrap();
    assert_eq!(read_all(&path).unwrap(), 30);
    assert_eq!(misfits(&path).unwrap(), []);
    let inspector = Inspector::open(&path).unwrap();
    assert!(inspector.checksums().unwrap());
    assert!(!inspector.was_rolled_back());
    assert_eq!(inspector.sessions().unwrap().count(), 10);
    assert_eq!(inspector.count(InspectTable::Feed).unwrap(), 30);
    drop(inspector);
    assert!(fs::read(&path).unwrap() == before, "the file was modified");
}

#[tokio::test]
async fn a_file_that_was_not_closed_is_read_and_left_alone() {
    let (_dir, store) = store();
    let name = session("s");
    let first = batch(1, &[(&name, None)], 9000);
    let head = Some(first.segments[0].meta.head());
    store.commit(first).await.unwrap();
    store.commit(batch(2, &[(&name, head)], 9000)).await.unwrap();
    // A copy of the open file is what a kill leaves.
    let path = _dir.path().join("copy.redb");
    fs::copy(_dir.path().join("ledger.redb"), &path).unwrap();
    let before = fs::read(&path).unwrap();
    assert_eq!(read_all(&path).unwrap(), 2);
    assert_eq!(misfits(&path).unwrap(), []);
    assert!(!Inspector::open(&path).unwrap().was_rolled_back());
    assert!(fs::read(&path).unwrap() == before, "the file was modified");

    // A last commit that fails its checksums is taken back, and that is told.
    let mut torn = before;
    let body = store.body(&tenant(), &name, Seq::new(10).unwrap()).await.unwrap();
    let at = torn.windows(64).position(|window| window == &body[body.len() - 64..]).unwrap();
    torn[at] ^= 1;
    fs::write(&path, &torn).unwrap();
    assert!(Inspector::open(&path).unwrap().was_rolled_back());
    assert_eq!(read_all(&path).unwrap(), 1);
    assert!(!Inspector::open(&path).unwrap().checksums().unwrap());
}

#[tokio::test]
async fn every_derived_row_is_checked() {
    let (_dir, path) = filled().await;
    every_row_is_checked(&path, &[tables::OPEN]);
}

#[tokio::test]
async fn every_derived_row_is_checked_after_expiry() {
    let (_dir, path) = super::archive::partly_expired().await;
    assert_eq!(misfits(&path).unwrap(), []);
    every_row_is_checked(&path, &[tables::OPEN, tables::POINTERS, tables::EXPIRY]);
}

fn every_row_is_checked(path: &Path, of_the_archive: &[tables::Definition]) {
    let sound = fs::read(path).unwrap();
    let derived = [
        tables::FEED,
        tables::TIMES,
        tables::SESSIONS,
        tables::SESSION_ORDER,
        tables::AGENTS,
        tables::AGENT_SESSIONS,
    ];
    let derived = derived.iter().chain(of_the_archive).copied();
    type Change = fn(&mut redb::Table<'_, &'static [u8], &'static [u8]>, Vec<u8>, Vec<u8>);
    let changes: [(&str, Change); 3] = [
        ("gone", |table, key, _| drop(table.remove(key.as_slice()).unwrap())),
        ("changed", |table, key, mut value| {
            match value.last_mut() {
                Some(last) => *last ^= 1,
                None => value.push(0),
            }
            table.insert(key.as_slice(), value.as_slice()).unwrap();
        }),
        ("added", |table, mut key, value| {
            let at = key.len() - 2;
            key[at] ^= 1;
            table.insert(key.as_slice(), value.as_slice()).unwrap();
        }),
    ];
    for definition in derived {
        for (what, change) in &changes {
            fs::write(path, &sound).unwrap();
            let db = Database::open(path).unwrap();
            let txn = db.begin_write().unwrap();
            {
                let mut table = txn.open_table(definition).unwrap();
                let row = table.iter().unwrap().next().unwrap().unwrap();
                let (key, value) = (row.0.value().to_vec(), row.1.value().to_vec());
                drop(row);
                change(&mut table, key, value);
            }
            txn.commit().unwrap();
            drop(db);
            let found = misfits(path);
            assert!(!matches!(&found, Ok(found) if found.is_empty()), "{what} in {}", definition.name());
        }
    }
}

#[tokio::test]
async fn a_session_that_only_a_derived_row_knows_is_listed() {
    let (_dir, path) = filled().await;
    let ghost = session("ghost");
    for definition in [
        tables::FEED,
        tables::SESSION_ORDER,
        tables::SESSIONS,
        tables::OPEN,
        tables::POINTERS,
        tables::BROKEN,
    ] {
        let db = Database::open(&path).unwrap();
        let txn = db.begin_write().unwrap();
        let key = match definition.name() {
            "sessions" | "pointers" => keys::session(&tenant(), &ghost),
            "broken" => keys::segment(&tenant(), &ghost, Seq::ZERO),
            _ => keys::feed(&tenant(), CommitId::mint(5, [5; 10]), &ghost),
        };
        txn.open_table(definition).unwrap().insert(key.as_slice(), &[1u8, 0][..]).unwrap();
        txn.commit().unwrap();
        drop(db);
        let inspector = Inspector::open(&path).unwrap();
        let listed: Vec<_> = inspector.sessions().unwrap().map(Result::unwrap).collect();
        assert_eq!(listed.len(), 11);
        assert!(listed.contains(&(tenant(), ghost.clone())));
        drop(inspector);
        assert!(misfits(&path).unwrap().iter().any(|m| m.session.as_ref().is_some_and(|s| s.1 == ghost)));
        let db = Database::open(&path).unwrap();
        let txn = db.begin_write().unwrap();
        txn.open_table(definition).unwrap().remove(key.as_slice()).unwrap();
        txn.commit().unwrap();
    }
}

#[tokio::test]
async fn damage_anywhere_is_survived() {
    let (_dir, path) = filled().await;
    let sound = fs::read(&path).unwrap();
    let used = sound.iter().rposition(|b| *b != 0).unwrap();
    for n in 0..60u64 {
        let mut damaged = sound.clone();
        let random: [u8; 8] = crate::random::bytes();
        let at = u64::from_le_bytes(random) as usize % used;
        match n % 3 {
            0 => damaged[at] ^= 1 << (n % 8),
            1 => damaged[at % 4096..][..4].fill(0xff),
            _ => damaged.truncate(at),
        }
        fs::write(&path, &damaged).unwrap();
        let _ = read_all(&path);
        assert!(fs::read(&path).unwrap() == damaged, "the file was modified");
    }
    fs::write(&path, "").unwrap();
    assert!(matches!(Inspector::open(&path), Err(StoreError::Corrupt { .. })));
    fs::write(&path, "text").unwrap();
    assert!(matches!(Inspector::open(&path), Err(StoreError::Corrupt { .. })));
    fs::remove_file(&path).unwrap();
    assert!(matches!(Inspector::open(&path), Err(StoreError::Unavailable { .. })));
}
