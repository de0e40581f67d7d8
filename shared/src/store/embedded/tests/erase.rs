//! What was replaced or has expired is in no byte of the file.
#![cfg(feature = "testing")]

use super::*;
use crate::segment;
use crate::store::conformance as suite;
use crate::store::{Order, Store};
use crate::time::Micros;

/// Text that does not compress, and is in nothing else.
fn planted() -> String {
    crate::ids::hex(&crate::random::bytes::<64>())
}

fn holds(file: &[u8], needle: &[u8]) -> bool {
    file.windows(needle.len()).any(|window| window == needle)
}

/// Bytes of a run of what was erased, and of a part of one that is in what stays.
const RUN: usize = 24;
const PART: usize = 8;

/// No run of a body that was replaced is in the file, but those that reach into what stays: the bodies that are there
/// now, and the hashes of their events, which stand in attributes too.
fn assert_gone(file: &[u8], bodies: &[(Vec<u8>, Vec<u8>)]) {
    use std::collections::HashSet;
    let mut stays: HashSet<&[u8]> = HashSet::new();
    let mut reader = segment::SegmentReader::new().unwrap();
    let mut hashes = Vec::new();
    for (_, new) in bodies {
        stays.extend(new.windows(PART));
        hashes.extend(reader.open(new).unwrap().events().map(|event| event.unwrap().hash));
    }
    stays.extend(hashes.iter().flat_map(|hash| hash.0.windows(PART)));
    let mut runs: HashSet<&[u8]> = HashSet::new();
    for (old, _) in bodies {
        let before = runs.len();
        runs.extend(old.windows(RUN).filter(|run| !run.windows(PART).any(|part| stays.contains(part))));
        assert!(runs.len() > before + 100, "the bodies are nearly the same: this shows nothing");
    }
    if let Some(at) = file.windows(RUN).position(|window| runs.contains(window)) {
        let around = &file[at.saturating_sub(2 * RUN)..file.len().min(at + 3 * RUN)];
        panic!("a run of what was erased is in the file at {at}, amid {}", around.escape_ascii());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_replaced_is_in_no_byte_of_the_file() {
    let (dir, store) = store();
    let path = dir.path().join("ledger.redb");
    let (tenant, name) = (tenant(), session("s"));
    let mut head = None;
    let mut commits = Vec::new();
    let secrets: Vec<String> = (0..40).map(|_| planted()).collect();
    for (n, secret) in secrets.iter().enumerate() {
        let big = if n % 8 == 0 { planted().repeat(200) } else { String::new() };
        let events = (0..5)
            .map(|e| {
                let text = if e == 2 { secret.clone() } else { planted() };
                suite::sample_event(&name, "a", None, format!(r#"{{"text":"{text}","more":"{big}"}}"#))
            })
            .collect();
        let commit = suite::Batch::new(&tenant).events(&name, head, events).done();
        head = suite::head_of(&commit);
        store.commit(commit.clone()).await.unwrap();
        commits.push(commit);
    }
    let mut bodies = Vec::new();
    for commit in &commits {
        let first = commit.segments[0].meta.first;
        let before = store.stored_body(&tenant, &name, first).await.unwrap().unwrap();
        let (meta, body) =
            segment::erase(&before.meta, &before.body, |id| id.number() == 3).unwrap().unwrap();
        store.replace_body(&tenant, &name, &before, &meta, body.clone().into()).await.unwrap();
        bodies.push((before.body.to_vec(), body));
    }
    let there = std::fs::read(&path).unwrap();
    assert!(
        bodies.iter().any(|(old, _)| holds(&there, &old[old.len() - 64..])),
        "nothing was left to write over"
    );
    // Commits go on meanwhile, and one reader looks at what was before.
    let other = {
        let store = store.clone();
        tokio::spawn(async move {
            let tenant = tenant2();
            let mut head = None;
            for _ in 0..50 {
                let commit = suite::sample_commit(&tenant, &session("other"), head, 3);
                head = suite::head_of(&commit);
                store.commit(commit).await.unwrap();
            }
        })
    };
    store.scrub(&tenant, &name, commits[0].segments[0].meta.first).await.unwrap();
    other.await.unwrap();
    let file = std::fs::read(&path).unwrap();
    assert!(secrets.iter().all(|secret| !holds(&file, secret.as_bytes())));
    assert_gone(&file, &bodies);
    // Nothing that stays was written over.
    suite::check_line(&*store, &tenant, &name, 7).await;
    drop(store);
    let file = std::fs::read(&path).unwrap();
    assert_gone(&file, &bodies);
    let inspector = super::super::Inspector::open(&path).unwrap();
    assert!(inspector.checksums().unwrap());
    let mut misfits = Vec::new();
    inspector.check_derived(&mut |misfit| misfits.push(misfit)).unwrap();
    assert_eq!(misfits, []);
}

fn tenant2() -> TenantId {
    TenantId::parse("another").unwrap()
}

/// A name that a start gave, in the attributes, the session, the agent and the pointer; and a body that has expired.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_and_expired_bodies_are_in_no_byte_of_the_file() {
    let (dir, store) = store();
    let path = dir.path().join("ledger.redb");
    let (tenant, name) = (tenant(), session("s"));
    let (agent_name, tag, late) = (planted(), planted(), planted());
    let payload = format!(r#"{{"agentName":"{agent_name}","tags":["{tag}"]}}"#);
    let event_type = crate::ids::EventType::parse("session_started").unwrap();
    let start = crate::event::NewEvent { event_type, ..suite::sample_event(&name, "a", None, payload) };
    let first = suite::Batch::new(&tenant).events(&name, None, vec![start]).done();
    store.commit(first.clone()).await.unwrap();
    let text = suite::sample_event(&name, "a", None, format!(r#"{{"text":"{late}"}}"#));
    let second = suite::Batch::new(&tenant).events(&name, suite::head_of(&first), vec![text]).done();
    store.commit(second.clone()).await.unwrap();
    let metas: Vec<_> = [&first, &second].map(|commit| commit.segments[0].meta.clone()).into();
    store.advance_pointer(&tenant, &suite::pointer_over(&name, &metas, 1)).await.unwrap();
    let at = Micros::from_unix_ms(1000);
    store.mark_archived(&tenant, &name, &metas[1], 1, Some(at)).await.unwrap();
    assert_eq!(store.expire(at.plus_ms(1), 9).await.unwrap(), 1);

    let before = store.stored_body(&tenant, &name, metas[0].first).await.unwrap().unwrap();
    let (meta, body) = segment::erase(&before.meta, &before.body, |_| true).unwrap().unwrap();
    store.replace_body(&tenant, &name, &before, &meta, body.into()).await.unwrap();
    store.scrub(&tenant, &name, metas[0].first).await.unwrap();
    let file = std::fs::read(&path).unwrap();
    for gone in [&agent_name, &tag, &late] {
        assert!(!holds(&file, gone.as_bytes()), "{gone}");
    }
    let pointer = store.pointer(&tenant, &name).await.unwrap().unwrap();
    assert_eq!((pointer.archived.summary.agent_name, pointer.scrubbed), (None, 1));
    let left = store.segments(&tenant, &name, metas[0].first, Order::Asc, 9).await.unwrap();
    assert_eq!(left, [meta]);
    drop(store);
    let mut misfits = Vec::new();
    let inspector = super::super::Inspector::open(&path).unwrap();
    inspector.check_derived(&mut |misfit| misfits.push(misfit)).unwrap();
    assert_eq!(misfits, []);
}
