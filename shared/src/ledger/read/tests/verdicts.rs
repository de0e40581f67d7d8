//! What the check of a session finds.

use std::sync::Arc;

use super::fixture::{Fixture, Spec, run, session};
use super::in_memory;
use super::memory::{MemoryStore, State};
use crate::event::Event;
use crate::ids::{EventHash, Seq, TenantId};
use crate::ledger::read::SessionVerdict;
use crate::segment::SegmentReader;

async fn three_segments() -> (Fixture, Arc<MemoryStore>) {
    let (mut fixture, store) = in_memory(4);
    for batch in 0..3i64 {
        let spec = |index| Spec {
            session: 0,
            agent: 0,
            kind: 0,
            severity: 1,
            micros: batch * 10 + index,
            text: "knot".to_owned(),
        };
        let batch: Vec<Spec> = (0..4).map(spec).collect();
        fixture.append(&batch).await;
    }
    (fixture, store)
}

/// The first bad place after something was done to the store.
async fn broken_at(spoil: impl FnOnce(&mut State)) -> Option<u64> {
    let (fixture, store) = three_segments().await;
    spoil(&mut store.state.lock().unwrap());
    match fixture.ledger.verify_session(&fixture.tenant, &session(0)).await.unwrap() {
        SessionVerdict::Broken { sequence, reason, .. } => {
            assert!(!reason.is_empty());
            Some(sequence.get())
        }
        _ => None,
    }
}

fn key(first: u64) -> (crate::ids::SessionId, Seq) {
    (session(0), Seq::new(first).unwrap())
}

#[test]
fn a_whole_session_is_verified_and_an_empty_one_is_not() {
    run(async {
        let (fixture, _) = three_segments().await;
        let verdict = fixture.ledger.verify_session(&fixture.tenant, &session(0)).await.unwrap();
        let SessionVerdict::Verified { events, head, first_hash } = verdict else { panic!("{verdict:?}") };
        assert_eq!((events, head.sequence.get(), head.hash), (12, 11, fixture.written[11].hash));
        assert_eq!(first_hash, fixture.written[0].hash);
        let verdict = fixture.ledger.verify_session(&fixture.tenant, &session(1)).await.unwrap();
        assert_eq!(verdict, SessionVerdict::Empty);
    });
}

#[test]
fn whatever_is_done_to_a_session_is_found_where_it_was_done() {
    run(async {
        assert_eq!(broken_at(|_| {}).await, None);
        let gone = |first: u64| {
            move |state: &mut State| {
                state.metas.remove(&key(first));
                state.bodies.remove(&key(first));
            }
        };
        assert_eq!(broken_at(gone(0)).await, Some(0), "the beginning");
        assert_eq!(broken_at(gone(4)).await, Some(4), "the middle");
        assert_eq!(broken_at(gone(8)).await, Some(8), "the end");
        let missing = |state: &mut State| drop(state.bodies.remove(&key(4)));
        assert_eq!(broken_at(missing).await, Some(4), "a body");
        let swapped = |state: &mut State| {
            let other = state.bodies[&key(8)].clone();
            state.bodies.insert(key(4), other);
        };
        assert_eq!(broken_at(swapped).await, Some(4), "a body in place of another");
        let all_gone = |state: &mut State| {
            state.metas.clear();
            state.bodies.clear();
        };
        assert_eq!(broken_at(all_gone).await, Some(0), "everything but the session's record");
    });
}

#[test]
fn tampered_attributes_are_found() {
    run(async {
        let change = |change: fn(&mut crate::segment::SegmentMeta)| {
            move |state: &mut State| change(state.metas.get_mut(&key(4)).unwrap())
        };
        assert_eq!(broken_at(change(|meta| meta.summary.tool_calls += 1)).await, Some(4));
        assert_eq!(broken_at(change(|meta| meta.summary.severities = [0; 5])).await, Some(4));
        assert_eq!(broken_at(change(|meta| meta.prev_hash = EventHash([1; 32]))).await, Some(4));
        assert_eq!(broken_at(change(|meta| meta.last_hash = EventHash([1; 32]))).await, Some(4));
        assert_eq!(broken_at(change(|meta| meta.body_bytes += 1)).await, Some(4));
        let head = |state: &mut State| {
            state.sessions.get_mut(&session(0)).unwrap().head.hash = EventHash([1; 32]);
        };
        assert_eq!(broken_at(head).await, Some(11));
    });
}

#[test]
fn any_flipped_byte_of_a_body_is_found_unless_it_says_the_same() {
    run(async {
        let (fixture, store) = three_segments().await;
        let whole = store.state.lock().unwrap().bodies[&key(4)].to_vec();
        let mut reader = SegmentReader::new().unwrap();
        let mut told = |body: &[u8]| -> Option<Vec<Event>> {
            let (tenant, session) = (TenantId::default_tenant(), session(0));
            let view = reader.open(body).ok()?;
            view.events().map(|event| Some(event.ok()?.to_event(&tenant, &session))).collect()
        };
        let true_events = told(&whole).unwrap();
        let mut alike = 0;
        for (at, bit) in (0..whole.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut body = whole.clone();
            body[at] ^= 1 << bit;
            store.state.lock().unwrap().bodies.insert(key(4), body.clone().into());
            match fixture.ledger.verify_session(&fixture.tenant, &session(0)).await.unwrap() {
                SessionVerdict::Broken { sequence, .. } => {
                    assert!((4..8).contains(&sequence.get()), "byte {at}: {sequence}");
                }
                verdict => {
                    // zstd has a bit that decoders ignore (RFC 8878, section 3.1.1.1.1.3).
                    assert_eq!(told(&body).as_ref(), Some(&true_events), "byte {at} bit {bit}: {verdict:?}");
                    alike += 1;
                }
            }
        }
        assert!(alike <= 8, "{alike} flips say the same");
    });
}
