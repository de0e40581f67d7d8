//! The tamper matrix of a data directory: whatever is done to the database, the offline verifier finds and names it.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use redb::{Database, ReadableTable as _, TableDefinition};

use crate::verify::*;

use super::fixture::Fixture;

type Bytes = &'static [u8];
pub(super) type Table<'t> = redb::Table<'t, Bytes, Bytes>;

fn check(path: &Path) -> Report {
    verify_data_dir(path, &Options { threads: 2, ..Options::default() }, &|_| ())
}

/// Changes one table of a closed directory.
pub(super) fn edit(path: &Path, table: &'static str, change: impl FnOnce(&mut Table<'_>)) {
    let db = Database::open(path.join("ledger.redb")).unwrap();
    let txn = db.begin_write().unwrap();
    change(&mut txn.open_table(TableDefinition::<Bytes, Bytes>::new(table)).unwrap());
    txn.commit().unwrap();
}

/// The row at this index, from the end if it is negative.
pub(super) fn row(table: &Table<'_>, index: isize) -> (Vec<u8>, Vec<u8>) {
    let rows: Vec<_> = table
        .iter()
        .unwrap()
        .map(|row| {
            let (key, value) = row.unwrap();
            (key.value().to_vec(), value.value().to_vec())
        })
        .collect();
    rows[index.rem_euclid(rows.len() as isize) as usize].clone()
}

pub(super) fn put(table: &mut Table<'_>, key: &[u8], value: &[u8]) {
    table.insert(key, value).unwrap();
}

pub(super) fn take(table: &mut Table<'_>, key: &[u8]) {
    table.remove(key).unwrap();
}

#[track_caller]
pub(super) fn expect(report: &Report, codes: &[Code]) -> Finding {
    assert_eq!(report.verdict, Verdict::Invalid, "{report}");
    let finding = report.finding.clone().unwrap();
    assert!(codes.contains(&finding.code), "expected {codes:?}: {report}");
    finding
}

#[tokio::test]
async fn p4_a_sound_directory_is_valid_and_left_alone() {
    let (_dir, path) = Fixture::filled().await.close();
    let before = fs::read(path.join("ledger.redb")).unwrap();
    let report = check(&path);
    assert_eq!(
        report.to_string(),
        "VALID  3 sessions, 27 events. Freshness not proved: no receipt or checkpoint was given."
    );
    assert_eq!(report.tenants, 1);
    for threads in 0..5 {
        assert_eq!(verify_data_dir(&path, &Options { threads, ..Options::default() }, &|_| ()), report);
    }
    assert!(fs::read(path.join("ledger.redb")).unwrap() == before, "the file was modified");
}

#[tokio::test]
async fn p4_every_derived_table_is_recomputed() {
    let (_dir, path) = Fixture::filled().await.close();
    let file = path.join("ledger.redb");
    let sound = fs::read(&file).unwrap();
    for table in ["feed", "times", "sessions", "session_order", "agents", "agent_sessions"] {
        for what in 0..3 {
            fs::write(&file, &sound).unwrap();
            edit(&path, table, |table| {
                let (mut key, mut value) = row(table, 1);
                match what {
                    0 => take(table, &key),
                    1 => {
                        match value.last_mut() {
                            Some(last) => *last ^= 1,
                            None => value.push(0),
                        }
                        put(table, &key, &value);
                    }
                    _ => {
                        // A session, an agent or a commit that is not there.
                        let at = key.len() - 2;
                        key[at] ^= 2;
                        put(table, &key, &value);
                    }
                }
            });
            let finding = expect(&check(&path), &[Code::Derived, Code::Empty, Code::Store]);
            assert!(!finding.message.is_empty(), "{table} {what}");
        }
    }
}

#[tokio::test]
async fn p4_segments_deleted_changed_moved() {
    let (_dir, path) = Fixture::filled().await.close();
    let file = path.join("ledger.redb");
    let sound = fs::read(&file).unwrap();
    let tampered = |change: &dyn Fn(&mut Table<'_>)| {
        fs::write(&file, &sound).unwrap();
        edit(&path, "segments", change);
        let report = check(&path);
        // The same whoever comes first.
        for threads in 1..4 {
            assert_eq!(verify_data_dir(&path, &Options { threads, ..Options::default() }, &|_| ()), report);
        }
        report
    };
    // Rows 0 to 2 are of session a, 3 to 5 of b, 6 to 8 of c.
    let finding = expect(&tampered(&|t| take(t, &row(t, 3).0)), &[Code::Sequence]);
    assert_eq!((finding.session_id.unwrap().as_str(), finding.sequence), ("b", Some(0)));
    let finding = expect(&tampered(&|t| take(t, &row(t, 4).0)), &[Code::Sequence]);
    assert_eq!((finding.session_id.unwrap().as_str(), finding.sequence), ("b", Some(4)));
    let report = tampered(&|t| take(t, &row(t, 5).0));
    let finding = expect(&report, &[Code::Derived]);
    assert_eq!(finding.session_id.unwrap().as_str(), "b", "the tail");
    let finding = expect(
        &tampered(&|t| {
            for index in [5, 4, 3] {
                take(t, &row(t, index).0);
            }
        }),
        &[Code::Empty],
    );
    assert_eq!(finding.session_id.unwrap().as_str(), "b", "the whole session");

    // Every byte of a row: where the body lies, and every attribute.
    fs::write(&file, &sound).unwrap();
    let mut length = 0;
    edit(&path, "segments", |t| length = row(t, 4).1.len());
    for at in 0..length {
        let report = tampered(&|t| {
            let (key, mut value) = row(t, 4);
            value[at] ^= 1;
            put(t, &key, &value);
        });
        let codes = [
            Code::Attributes,
            Code::Store,
            Code::Segment,
            Code::Sequence,
            Code::PrevHash,
            Code::Hash,
            Code::Derived,
        ];
        assert_eq!(expect(&report, &codes).session_id.unwrap().as_str(), "b", "byte {at}: {report}");
    }
    // Swapped between sessions and within one.
    for (one, other) in [(0, 3), (1, 4), (3, 4)] {
        let report = tampered(&|t| {
            let (a, b) = (row(t, one), row(t, other));
            put(t, &a.0, &b.1);
            put(t, &b.0, &a.1);
        });
        expect(&report, &[Code::Segment, Code::Hash, Code::PrevHash, Code::Sequence]);
    }
    // A session that was renamed, or moved to another tenant.
    for (from, to, codes) in [
        (&b"default\0b\0"[..], &b"default\0d\0"[..], &[Code::Hash, Code::Empty][..]),
        (b"default\0b\0", b"other\0b\0", &[Code::Store, Code::Empty]),
    ] {
        let report = tampered(&|t| {
            let rows: Vec<_> = (3..6).map(|index| row(t, index)).collect();
            for (key, value) in rows {
                take(t, &key);
                put(t, &[to, &key[from.len()..]].concat(), &value);
            }
        });
        expect(&report, codes);
    }
}

#[tokio::test]
async fn p4_bodies_changed() {
    let (_dir, path) = Fixture::filled().await.close();
    let file = path.join("ledger.redb");
    let sound = fs::read(&file).unwrap();
    let bodies = TableDefinition::<u64, Bytes>::new("bodies");
    let mut seen = Vec::new();
    for step in 0..60 {
        fs::write(&file, &sound).unwrap();
        let db = Database::open(&file).unwrap();
        let txn = db.begin_write().unwrap();
        {
            let mut table = txn.open_table(bodies).unwrap();
            let mut value = table.get(0).unwrap().unwrap().value().to_vec();
            let at = step * (value.len() - 1) / 59;
            value[at] ^= 1 << (step % 8);
            table.insert(0, &value[..]).unwrap();
        }
        txn.commit().unwrap();
        drop(db);
        let report = check(&path);
        assert_eq!(report.verdict, Verdict::Invalid, "step {step}: {report}");
        seen.push(report.finding.unwrap().code);
    }
    assert!(seen.contains(&Code::Hash) || seen.contains(&Code::Segment), "{seen:?}");
}

#[tokio::test]
async fn p4_rollback_and_deletion_are_found_against_receipts() {
    let fixture = Fixture::filled().await;
    let early = fixture.fill("a", 1).await;
    let early = fixture.receipts(&early);
    let path = fixture.dir.path().join("data");
    let late = fixture.fill("a", 2).await;
    let late = fixture.receipts(&late);
    let other = fixture.fill("d", 1).await;
    let other = fixture.receipts(&other);
    let (_dir, _) = fixture.close();
    let options = |receipts: &[String]| Options {
        receipts: receipts.iter().flat_map(|text| read_receipts(text.as_bytes())).collect(),
        ..Options::default()
    };
    let all = [early.clone(), late.clone(), other.clone()].concat();
    let report = verify_data_dir(&path, &options(&all), &|_| ());
    assert_eq!(report.to_string(), "VALID  4 sessions, 31 events. Held against 3 receipts.");

    // An older state: another directory with the same keys.
    let fresh = Fixture::filled().await;
    fresh.fill("a", 1).await;
    let (_fresh_dir, fresh_path) = fresh.close();
    for name in ["log.pub", "log.key", "receipt.key", "certificates.json"] {
        fs::copy(path.join("keys").join(name), fresh_path.join("keys").join(name)).unwrap();
    }
    fs::copy(path.join("deployment"), fresh_path.join("deployment")).unwrap();
    assert_eq!(check(&fresh_path).verdict, Verdict::Valid);
    for receipts in [&early, &late] {
        let report = verify_data_dir(&fresh_path, &options(receipts), &|_| ());
        let finding = expect(&report, &[Code::Receipt]);
        assert_eq!(finding.session_id.unwrap().as_str(), "a");
    }
    let finding = expect(&verify_data_dir(&fresh_path, &options(&other), &|_| ()), &[Code::Receipt]);
    assert_eq!(finding.message, "the session of a receipt is missing");
    let forged = vec![late[0].replace("\"sequence\":11", "\"sequence\":10")];
    expect(&verify_data_dir(&path, &options(&forged), &|_| ()), &[Code::Receipt]);
}

#[tokio::test]
async fn p5_what_is_missing_is_not_valid() {
    let nothing = tempfile::tempdir().unwrap();
    for path in [nothing.path(), Path::new("/nonexistent/quipu")] {
        let report = check(path);
        assert_eq!((report.verdict, report.finding.unwrap().code), (Verdict::Incomplete, Code::Unreadable));
    }
    let empty = Fixture::new();
    let path = empty.dir.path().join("data");
    let in_use = check(&path);
    assert_eq!((in_use.verdict, in_use.finding.unwrap().code), (Verdict::Incomplete, Code::Unreadable));
    let (_dir, path) = empty.close();
    let report = check(&path);
    assert_eq!(report.verdict, Verdict::Incomplete);
    let finding = report.finding.unwrap();
    assert_eq!((finding.code, &*finding.message), (Code::Empty, "no sessions"));

    let (_dir, path) = Fixture::filled().await.close();
    fs::rename(path.join("keys/log.pub"), path.join("keys/x")).unwrap();
    let report = check(&path);
    assert_eq!((report.verdict, report.finding.unwrap().code), (Verdict::Incomplete, Code::Unreadable));
    fs::rename(path.join("keys/x"), path.join("keys/log.pub")).unwrap();
    fs::remove_file(path.join("ledger.redb")).unwrap();
    expect(&check(&path), &[Code::Store]);
}

#[tokio::test]
async fn p5_the_key_is_the_directorys_own_and_the_given_one() {
    let fixture = Fixture::filled().await;
    let key = fixture.key();
    let (_dir, path) = fixture.close();
    let stranger = samples::Signers::new(9).log.verifier().clone();
    let options = |key| Options { pinned_key: Some(key), ..Options::default() };
    assert_eq!(verify_data_dir(&path, &options(key), &|_| ()).verdict, Verdict::Valid);
    expect(&verify_data_dir(&path, &options(stranger.clone()), &|_| ()), &[Code::Key]);
    fs::write(path.join("keys/log.pub"), format!("{stranger}\n")).unwrap();
    expect(&check(&path), &[Code::Key]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn p4_damage_anywhere_in_the_file_ends_in_a_verdict(at: prop::sample::Index, what in 0u8..3, bit in 0u8..8) {
        thread_local! {
            static SOUND: (tempfile::TempDir, std::path::PathBuf) = {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async { Fixture::filled().await.close() })
            };
        }
        SOUND.with(|(_, path)| {
            let file = path.join("ledger.redb");
            let sound = fs::read(&file).unwrap();
            let used = sound.iter().rposition(|b| *b != 0).unwrap();
            let mut damaged = sound.clone();
            let at = at.index(used);
            match what {
                0 => damaged[at] ^= 1 << bit,
                1 => damaged[at % 4096..][..4].fill(0xff),
                _ => damaged.truncate(at),
            }
            fs::write(&file, &damaged).unwrap();
            let report = check(path);
            fs::write(&file, &sound).unwrap();
            // Pages that nothing uses may hold anything.
            prop_assert!(report.verdict != Verdict::Valid || report.events == 27, "{}", report);
            Ok(())
        })?;
    }
}
