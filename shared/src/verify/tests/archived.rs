//! A data directory with its archive: what the hot tier says of it, and what is left when something has expired.

use std::fs;
use std::path::{Path, PathBuf};

use crate::log::paths;
use crate::verify::*;

use super::directories::{edit, expect, put, row, take};
use super::fixture::{Fixture, tenant};

fn check(path: &Path) -> Report {
    verify_data_dir(path, &Options { threads: 2, ..Options::default() }, &|_| ())
}

/// Two batches, and something that is not archived yet.
async fn archived() -> Fixture {
    let fixture = Fixture::filled().await;
    fixture.archive(None).await;
    fixture.fill("a", 3).await;
    fixture.fill("d", 2).await;
    fixture.archive(None).await;
    fixture.fill("b", 2).await;
    fixture
}

fn at(path: &Path, key: &str) -> PathBuf {
    path.join("archive").join(key)
}

fn object(path: &Path, batch: u64) -> PathBuf {
    let header = fs::read(at(path, &paths::header(&tenant(), batch))).unwrap();
    at(path, &crate::log::header::BatchHeader::parse(&header).unwrap().key)
}

#[tokio::test]
async fn p4_hot_and_archive_are_checked_together() {
    let fixture = archived().await;
    let late = fixture.fill("c", 1).await;
    let receipts = fixture.receipts(&late);
    let (_dir, path) = fixture.close();
    let report = check(&path);
    assert_eq!(report.verdict, Verdict::Valid, "{report}");
    assert_eq!((report.sessions, report.events), (4, 35), "{report}");
    assert_eq!((report.logs[0].batches, report.logs[0].tree_size), (2, 32), "{report}");
    let kept = fs::read(at(&path, &paths::checkpoint_at(&tenant(), 1))).unwrap();
    let options = Options {
        receipts: receipts.iter().flat_map(|text| read_receipts(text.as_bytes())).collect(),
        checkpoints: vec![read_checkpoint(&kept)],
        ..Options::default()
    };
    let report = verify_data_dir(&path, &options, &|_| ());
    assert!(report.to_string().ends_with("Held against 1 receipt and 1 checkpoint."), "{report}");
}

#[tokio::test]
async fn p4_what_has_expired_is_known_by_its_pointer() {
    let fixture = Fixture::filled().await;
    let early = fixture.fill("a", 1).await;
    let receipts = fixture.receipts(&early);
    fixture.archive(Some(1000)).await;
    assert!(fixture.expire().await >= 9);
    fixture.fill("a", 2).await;
    fixture.fill("d", 2).await;
    let (dir, path) = fixture.close();
    let report = check(&path);
    assert_eq!(report.verdict, Verdict::Valid, "{report}");
    assert_eq!((report.sessions, report.events), (4, 32), "{report}");
    let options = Options {
        receipts: receipts.iter().flat_map(|text| read_receipts(text.as_bytes())).collect(),
        ..Options::default()
    };
    let held = verify_data_dir(&path, &options, &|_| ());
    assert_eq!(held.verdict, Verdict::Valid, "{held}");
    // The first that is left does not follow from the pointer any more.
    let file = path.join("ledger.redb");
    let sound = fs::read(&file).unwrap();
    edit(&path, "segments", |table| {
        let first = row(table, 0).0;
        take(table, &first);
    });
    expect(&check(&path), &[Code::Derived]);
    fs::write(&file, &sound).unwrap();
    // Without its archive nothing is left of it.
    fs::rename(path.join("archive"), dir.path().join("gone")).unwrap();
    expect(&check(&path), &[Code::Log]);
}

#[tokio::test]
async fn p4_a_cut_archive_is_found() {
    let (dir, path) = archived().await.close();
    let gone = dir.path().join("gone");
    fs::rename(path.join("archive"), &gone).unwrap();
    expect(&check(&path), &[Code::Log]);
    fs::create_dir(path.join("archive")).unwrap();
    expect(&check(&path), &[Code::Log]);
    fs::remove_dir(path.join("archive")).unwrap();
    fs::rename(&gone, path.join("archive")).unwrap();
    assert_eq!(check(&path).verdict, Verdict::Valid);

    // The last batch, as if it had never been.
    let tenant = tenant();
    let object = object(&path, 2);
    for gone in [
        object,
        at(&path, &paths::header(&tenant, 2)),
        at(&path, &paths::header_signature(&tenant, 2)),
        at(&path, &paths::checkpoint_at(&tenant, 2)),
    ] {
        fs::remove_file(gone).unwrap();
    }
    fs::copy(at(&path, &paths::checkpoint_at(&tenant, 1)), at(&path, &paths::checkpoint(&tenant))).unwrap();
    for name in ["tile/0/000.p/32", "tile/entries/000.p/32"] {
        fs::remove_file(at(&path, &format!("{}{name}", paths::log(&tenant)))).unwrap();
    }
    let finding = expect(&check(&path), &[Code::Log]);
    assert_eq!(finding.tenant, Some(tenant));
}

#[tokio::test]
async fn p4_pointers_and_catalogue_are_what_the_archive_gives() {
    let (_dir, path) = archived().await.close();
    let file = path.join("ledger.redb");
    let sound = fs::read(&file).unwrap();
    for table in ["pointers", "batches"] {
        for index in 0..2 {
            let mut length = 0;
            edit(&path, table, |t| length = row(t, index).1.len());
            for step in 0..8 {
                if table == "batches" {
                    // Until when it is hot: the eight bytes behind the first.
                    for index in 0..2 {
                        for at in 1..9 {
                            edit(&path, table, |t| {
                                let (key, mut value) = row(t, index);
                                value[at] ^= 1;
                                put(t, &key, &value);
                            });
                            expect(&check(&path), &[Code::Derived, Code::Store]);
                            fs::write(&file, &sound).unwrap();
                        }
                    }
                }
                edit(&path, table, |t| {
                    let (key, mut value) = row(t, index);
                    // The first byte of a batch's row says whether it is recorded: of the last it may say no.
                    let from = usize::from(table == "batches" && index == 1);
                    let at = from + step * (length - 1 - from) / 7;
                    value[at] ^= 1;
                    put(t, &key, &value);
                });
                let codes = [Code::Derived, Code::Log, Code::Store, Code::Sequence, Code::PrevHash];
                let report = check(&path);
                assert_eq!(report.verdict, Verdict::Invalid, "{table} {index} {step}: {report}");
                expect(&report, &codes);
                fs::write(&file, &sound).unwrap();
            }
        }
        edit(&path, table, |t| {
            let first = row(t, 0).0;
            take(t, &first);
        });
        expect(&check(&path), &[Code::Derived]);
        fs::write(&file, &sound).unwrap();
    }
}

#[tokio::test]
async fn p5_a_batch_that_a_crash_cut_off_is_incomplete() {
    let fixture = Fixture::filled().await;
    fixture.archive(None).await;
    fixture.fill("a", 3).await;
    let path = fixture.dir.path().join("data");
    let before = fs::read(path.join("ledger.redb")).unwrap();
    fixture.archive(None).await;
    let (_dir, path) = fixture.close();
    assert_eq!(check(&path).verdict, Verdict::Valid);
    // As if the machine had stopped once the batch was published, and before anything of it was recorded.
    fs::write(path.join("ledger.redb"), before).unwrap();
    let report = check(&path);
    assert!(report.verdict != Verdict::Invalid, "{report}");
    let tenant = tenant();
    fs::copy(at(&path, &paths::checkpoint_at(&tenant, 1)), at(&path, &paths::checkpoint(&tenant))).unwrap();
    let report = check(&path);
    assert_eq!((report.verdict, report.finding.unwrap().code), (Verdict::Incomplete, Code::Unfinished));
    assert_eq!(report.logs[0].batches, 1);
}
