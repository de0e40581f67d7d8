//! The tamper matrix of an archive: whatever is done to it, the offline verifier finds and names it, or only what was
//! kept outside does.

use std::collections::HashSet;

use crate::note::VerifierKey;
use crate::objects::Directory;
use crate::verify::samples::{TamperedArchive, tampered_archives};
use crate::verify::*;

fn options(case: &TamperedArchive, threads: usize) -> Options {
    Options {
        pinned_key: case.key.as_deref().map(|key| VerifierKey::parse(key.trim()).unwrap()),
        receipts: case.receipts.iter().flat_map(|text| read_receipts(text.as_bytes())).collect(),
        checkpoints: case.checkpoints.iter().map(|text| read_checkpoint(text.as_bytes())).collect(),
        unreadable: None,
        now: None,
        threads,
    }
}

async fn check(case: &TamperedArchive, threads: usize) -> Report {
    let objects = Directory::open_to_read(&case.path).unwrap();
    verify_archive(&objects, &options(case, threads), &|_| ()).await
}

#[tokio::test]
async fn p4_every_way_to_tamper_with_an_archive_is_found_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let cases = tampered_archives(dir.path()).unwrap();
    assert!(cases.len() >= 250, "{} cases", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        let report = check(case, 1).await;
        let code = report.finding.as_ref().map(|f| f.code);
        if (report.verdict, code) != (case.verdict, case.code) {
            wrong.push(format!("{}: expected {:?} {:?}, found {report}", case.name, case.verdict, case.code));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    let names: HashSet<_> = cases.iter().map(|c| &c.name).collect();
    assert_eq!(names.len(), cases.len(), "every case has a name of its own");
    // The same whoever comes first.
    for case in cases.iter().step_by(7) {
        let report = check(case, 1).await;
        assert_eq!(check(case, 3).await, report, "{}", case.name);
    }
}

#[tokio::test]
async fn p5_what_is_valid_names_its_checkpoints() {
    let dir = tempfile::tempdir().unwrap();
    let cases = tampered_archives(dir.path()).unwrap();
    let report = check(&cases[0], 2).await;
    let root = |at: usize| ids_hex(&report.logs[at].root);
    assert_eq!(
        report.to_string(),
        format!(
            "VALID  6 sessions, 328 events. Log of acme: valid up to checkpoint 318 (318 events in 3 batches, root {}). \
             Log of beta: valid up to checkpoint 10 (10 events in 2 batches, root {}). Freshness not proved: no receipt \
             or checkpoint was given.",
            root(0),
            root(1)
        )
    );
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!((&json["logs"][1]["tenant"], &json["logs"][1]["batches"]), (&"beta".into(), &2.into()));
    assert_eq!((&json["logs"][0]["tree_size"], &json["batch"]), (&318.into(), &().into()));
    let damaged = cases.iter().find(|c| c.name.ends_with("a payload changed, signed again")).unwrap();
    let finding = check(damaged, 1).await.finding.unwrap();
    let place = (finding.tenant.unwrap(), finding.batch, finding.session_id.unwrap(), finding.sequence);
    assert_eq!((place.0.as_str(), place.1, place.2.as_str(), place.3), ("acme", Some(2), "long", Some(7)));
}

fn ids_hex(bytes: &[u8]) -> String {
    crate::ids::hex(bytes)
}

/// Every object damaged in many places, and cut: a verdict, never a panic, and never VALID.
#[tokio::test]
async fn p5_no_damage_goes_unseen() {
    let dir = tempfile::tempdir().unwrap();
    let cases = tampered_archives(dir.path()).unwrap();
    let good = &cases[0];
    let mut files = Vec::new();
    let mut folders = vec![good.path.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    assert!(files.len() > 20, "{files:?}");
    for file in &files {
        let sound = std::fs::read(file).unwrap();
        for step in 0..6usize {
            let mut damaged = sound.clone();
            let at = step * (sound.len() - 1) / 5;
            if step % 3 == 2 {
                damaged.truncate(at)
            } else {
                damaged[at] ^= 1 << step
            }
            std::fs::write(file, &damaged).unwrap();
            let report = check(good, 1).await;
            assert!(damaged == sound || report.verdict == Verdict::Invalid, "{file:?} at {at}: {report}");
        }
        std::fs::write(file, &sound).unwrap();
    }
    assert_eq!(check(good, 1).await.verdict, Verdict::Valid);
}
