//! Batches that mark sessions, and what must hold of the marks whatever went wrong on their way: acknowledged is
//! there exactly once, refused is not there, unknown is there whole or not at all; every chain verifies.

use std::collections::BTreeMap;
use std::sync::Arc;

use quipu_core::clock::SystemClock;
use quipu_core::event::OwnedContent;
use quipu_core::ids::{Seq, SessionId, TenantId};
use quipu_core::ledger::SessionVerdict;
use quipu_core::store::{Order, Store};
use quipu_tests::ledger_on;

/// How a batch that marks each of its sessions twice ended, for its writer.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Told {
    /// With the first sequence in each session.
    Acknowledged(BTreeMap<String, Seq>),
    Refused,
    Unknown,
}

/// Looks at the store without faults: every mark, where it stands.
pub(super) async fn marks(
    store: Arc<dyn Store>,
    tenant: &TenantId,
    sessions: &[impl AsRef<str>],
) -> BTreeMap<(String, String), Vec<Seq>> {
    let ledger = ledger_on(store, Arc::new(SystemClock));
    let mut found: BTreeMap<(String, String), Vec<Seq>> = BTreeMap::new();
    for session in sessions {
        let session = session.as_ref();
        let id = SessionId::parse(session).unwrap();
        match ledger.verify_session(tenant, &id).await.unwrap() {
            SessionVerdict::Broken { sequence, reason, .. } => panic!("{session}#{sequence}: {reason}"),
            SessionVerdict::Empty | SessionVerdict::Verified { .. } => {}
        }
        let mut from = Some(Seq::ZERO);
        while let Some(at) = from {
            let page = ledger.session_events(tenant, &id, at, Order::Asc, 1000).await.unwrap();
            for event in page.events {
                let OwnedContent::Kept { payload, .. } = event.content else { panic!("erased") };
                let mark = payload.trim_matches('"').to_owned();
                found.entry((session.to_owned(), mark)).or_default().push(event.sequence);
            }
            from = page.next;
        }
    }
    found
}

/// Holds what stands in the store to what its writers were told.
pub(super) async fn check(
    store: Arc<dyn Store>,
    tenant: &TenantId,
    sessions: &[impl AsRef<str>],
    told: &[(String, Told)],
    what: &str,
) {
    let found = marks(store, tenant, sessions).await;
    for (mark, told) in told {
        let at = |session: &str| found.get(&(session.to_owned(), mark.clone())).cloned().unwrap_or_default();
        let counts: Vec<usize> = sessions.iter().map(|s| at(s.as_ref()).len()).collect();
        match told {
            Told::Acknowledged(places) => {
                for (session, first) in places {
                    let next = first.checked_add(1).unwrap();
                    assert_eq!(at(session), [*first, next], "{what}: {mark} was acknowledged");
                }
            }
            Told::Refused => {
                assert!(counts.iter().all(|n| *n == 0), "{what}: {mark} was refused, but {counts:?}")
            }
            Told::Unknown => {
                let whole = counts.iter().all(|n| *n == 2) || counts.iter().all(|n| *n == 0);
                assert!(whole, "{what}: half of {mark}: {counts:?}");
            }
        }
    }
}

/// The check itself finds what it is for: a batch that was lost, one that is there twice or elsewhere, one that is
/// there though it was refused, and half of one.
#[tokio::test]
async fn the_check_of_marks_finds_what_is_wrong() {
    use quipu_core::auth::AuthMode;
    use quipu_tests::{Backend, Service, event};
    use serde_json::json;

    let service = Service::on(Backend::Embedded, AuthMode::Loopback).await;
    let twice = |session: &str, mark: &str| [event(session, json!(mark)), event(session, json!(mark))];
    for (mark, sessions) in
        [("both", &["s1", "s2"][..]), ("double", &["s1", "s2"]), ("double", &["s1", "s2"]), ("half", &["s1"])]
    {
        let events: Vec<_> = sessions.iter().flat_map(|session| twice(session, mark)).collect();
        service.post("/v1/events", &json!({ "events": events })).await.expect(201);
    }
    let at =
        |first| Told::Acknowledged(["s1", "s2"].map(|s| (s.to_owned(), Seq::new(first).unwrap())).into());
    for (mark, told, is_right) in [
        ("both", at(0), true),
        ("both", Told::Unknown, true),
        ("absent", Told::Refused, true),
        ("absent", Told::Unknown, true),
        ("both", at(2), false),
        ("both", Told::Refused, false),
        ("double", at(2), false),
        ("double", Told::Unknown, false),
        ("half", at(6), false),
        ("half", Told::Unknown, false),
        ("half", Told::Refused, false),
        ("absent", at(8), false),
    ] {
        let store = service.app.ledger.store().clone();
        let what = format!("{mark} {told:?}");
        let told = [(mark.to_owned(), told)];
        let checking = tokio::spawn(async move {
            check(store, &TenantId::default_tenant(), &["s1", "s2"], &told, "a check of the check").await;
        });
        assert_eq!(checking.await.is_ok(), is_right, "{what}");
    }
}
