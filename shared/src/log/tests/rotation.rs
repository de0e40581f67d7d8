//! Which log key may sign what.

use super::super::checkpoint::{Checkpoint, origin};
use super::super::keys::{HeaderStatement, KeyChain, KeyError, Rotation};
use crate::ids::TenantId;
use crate::note::{NoteSigner, VerifierKey};
use crate::statement::{certify, log_key_name, receipt_key_name};
use crate::time::Micros;

fn key(seed: u8) -> NoteSigner {
    NoteSigner::from_seed(&log_key_name("d"), &[seed; 32]).unwrap()
}

fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).unwrap()
}

fn rotation(old: u8, new: u8, sizes: &[(&str, u64)]) -> Rotation {
    Rotation {
        deployment: "d".into(),
        old: key(old).verifier().clone(),
        new: key(new).verifier().clone(),
        time: Micros::new(5).unwrap(),
        sizes: sizes.iter().map(|(name, size)| (tenant(name), *size)).collect(),
    }
}

fn signed(rotation: &Rotation, old: u8, new: u8) -> String {
    rotation.join(&key(old).sign(&rotation.text()), &key(new).sign(&rotation.text())).unwrap()
}

/// Three keys; `a` rotates at 10 and at 20, `b` comes with the second.
fn chain() -> KeyChain {
    let first = signed(&rotation(1, 2, &[("a", 10)]), 1, 2);
    let second = signed(&rotation(2, 3, &[("a", 20), ("b", 5)]), 2, 3);
    KeyChain::new("d", key(3).verifier().clone(), [first.as_str(), second.as_str()]).unwrap()
}

fn checkpoint(tenant: &TenantId, tree_size: u64, by: &NoteSigner) -> String {
    let checkpoint = Checkpoint { origin: origin("d", tenant), tree_size, root: [9; 32] };
    by.renamed(&checkpoint.origin).unwrap().sign(&checkpoint.text())
}

#[test]
fn a_key_holds_from_one_rotation_to_the_next() {
    let chain = chain();
    for (name, size, holds) in [
        ("a", 0, 1),
        ("a", 1, 1),
        ("a", 10, 1),
        ("a", 11, 2),
        ("a", 20, 2),
        ("a", 21, 3),
        ("a", i64::MAX as u64, 3),
        ("b", 1, 2),
        ("b", 5, 2),
        ("b", 6, 3),
        ("c", 1, 3),
    ] {
        let tenant = tenant(name);
        assert_eq!(chain.holds_for(&tenant, size), key(holds).verifier(), "{name} at {size}");
        for seed in 1..=4 {
            let note = checkpoint(&tenant, size, &key(seed));
            assert_eq!(
                chain.open_checkpoint(&tenant, &note).is_ok(),
                seed == holds,
                "{seed}: {name} at {size}"
            );
            assert_eq!(chain.open_kept_checkpoint(&note).is_ok(), seed <= 3, "{seed}: {name} at {size}");
            let header = HeaderStatement { tenant: &tenant, batch: 7, hash: &[8; 32], tree_size: size };
            let note = key(seed).sign(&header.text("d"));
            assert_eq!(chain.open_header(&header, &note).is_ok(), seed == holds, "{seed}: {name} at {size}");
            for other in
                [HeaderStatement { batch: 8, ..header }, HeaderStatement { hash: &[7; 32], ..header }]
            {
                assert!(chain.open_header(&other, &note).is_err());
            }
        }
    }
    assert!(chain.contains(key(1).verifier()) && !chain.contains(key(4).verifier()));
    assert_eq!(chain.newest(), key(3).verifier());
    assert_eq!((chain.keys().len(), chain.rotations().len(), chain.deployment()), (3, 2, "d"));
}

#[test]
fn certificates_stay_good() {
    let receipt = NoteSigner::from_seed(&receipt_key_name("d"), &[9; 32]).unwrap();
    for seed in 1..=4 {
        let note = certify(&key(seed), "d", receipt.verifier(), Micros::MIN);
        assert_eq!(chain().open_certificate(&note).ok(), (seed <= 3).then(|| receipt.verifier().clone()));
    }
    // One good signature does not outweigh a bad one of another key of the chain.
    let good = certify(&key(1), "d", receipt.verifier(), Micros::MIN);
    let other = certify(&key(2), "d", receipt.verifier(), Micros::MAX);
    let mixed = format!("{good}{}\n", other.lines().last().unwrap());
    assert!(chain().open_certificate(&mixed).is_err());
}

#[test]
fn checkpoints_of_others_are_passed_by() {
    let (chain, a) = (chain(), tenant("a"));
    let good = checkpoint(&a, 15, &key(2));
    // Signed by a stranger besides: not known, so not looked at.
    let stranger = checkpoint(&a, 16, &key(4));
    let line = stranger.lines().last().unwrap();
    assert!(chain.open_checkpoint(&a, &format!("{good}{line}\n")).is_ok());
    assert!(chain.open_checkpoint(&tenant("b"), &good).is_err());
    // Under the log key's own name it is no checkpoint.
    let text = Checkpoint { origin: origin("d", &a), tree_size: 15, root: [9; 32] }.text();
    assert!(chain.open_checkpoint(&a, &key(2).sign(&text)).is_err());
    let foreign = key(2).renamed("e/a").unwrap().sign(&text.replace("d/a", "e/a"));
    assert!(chain.open_kept_checkpoint(&foreign).is_err());
    assert!(chain.open_checkpoint(&a, "").is_err());
}

#[test]
fn what_is_no_chain_is_refused() {
    let new = |log: u8, notes: &[String]| {
        KeyChain::new("d", key(log).verifier().clone(), notes.iter().map(String::as_str))
    };
    let first = signed(&rotation(1, 2, &[("a", 10)]), 1, 2);
    assert!(new(2, std::slice::from_ref(&first)).is_ok());
    assert!(new(1, std::slice::from_ref(&first)).is_err(), "it ends with another key");
    let skips = signed(&rotation(3, 4, &[("a", 10)]), 3, 4);
    assert!(matches!(new(4, &[first.clone(), skips]), Err(KeyError::Chain(2, _))));
    let back = signed(&rotation(2, 1, &[("a", 10)]), 2, 1);
    assert!(matches!(new(1, &[first.clone(), back]), Err(KeyError::Chain(2, _))));
    let same = rotation(1, 1, &[]);
    let note = key(1).sign(&same.text());
    assert!(new(1, &[note]).is_err(), "a key does not follow itself");
    for sizes in [&[("a", 9)][..], &[]] {
        let shrinks = signed(&rotation(2, 3, sizes), 2, 3);
        assert!(matches!(new(3, &[first.clone(), shrinks]), Err(KeyError::Chain(2, _))), "{sizes:?}");
    }
    let text = rotation(1, 2, &[("a", 10)]).text();
    for seed in [1, 2] {
        assert!(new(2, &[key(seed).sign(&text)]).is_err(), "only one of its keys signed");
    }
    let other = NoteSigner::from_seed("e/_log", &[1; 32]).unwrap();
    assert!(KeyChain::of("d", other.verifier().clone()).is_err());
    assert!(KeyChain::of("D", key(1).verifier().clone()).is_err());
    let own = KeyChain::of("d", key(1).verifier().clone()).unwrap();
    assert_eq!(own.holds_for(&tenant("a"), 99), key(1).verifier());
}

#[test]
fn a_rotation_has_one_spelling() {
    let good = rotation(1, 2, &[("a", 10), ("b", 2)]);
    let text = good.text();
    assert_eq!(Rotation::parse(&text), Ok(good));
    for (from, to) in [
        ("quipu.rotation.v1", "quipu.rotation.v2"),
        ("\nd\n", "\nD\n"),
        ("\nd\n", "\ne\n"),
        ("\n5\n", "\n05\n"),
        ("\n5\n", "\n\n"),
        ("a 10\nb 2\n", "b 2\na 10\n"),
        ("b 2\n", "a 10\n"),
        ("b 2\n", "b 2"),
        ("b 2\n", "b 2\n\n"),
        ("b 2\n", "b 0\n"),
        ("b 2\n", "b 02\n"),
        ("b 2\n", "b  2\n"),
        ("b 2\n", "B 2\n"),
        ("b 2\n", "b\n"),
    ] {
        let bad = text.replacen(from, to, 1);
        assert_ne!(bad, text, "{from}");
        assert!(Rotation::parse(&bad).is_err(), "{to:?}");
    }
    let receipt: VerifierKey = NoteSigner::from_seed("d/_receipt", &[1; 32]).unwrap().verifier().clone();
    assert!(
        Rotation::parse(&text.replacen(&key(1).verifier().to_string(), &receipt.to_string(), 1)).is_err()
    );
}
