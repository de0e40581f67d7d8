//! A real erasure: both engines, the API and the verifier say the same of it.

use quipu_core::erasure::Request;
use quipu_core::event::OwnedContent;
use quipu_core::ids::TenantId;
use quipu_core::verify::{Options, Verdict, verify_archive};
use quipu_tests::archiving::{Ground, append, note};
use tokio::runtime::Handle;

use super::{ALWAYS, Engine, of, query, saved};

const SQL: &str = "SELECT event_id, event_type, payload IS NULL AS silent, tool_name IS NULL AS nameless, \
                   lower(to_hex(content_digest)) AS digest, lower(to_hex(hash)) AS hash FROM events \
                   WHERE tenant = ? AND dt BETWEEN ? AND ? ORDER BY session_id, sequence";

#[tokio::test(flavor = "multi_thread")]
async fn p4_sql_and_the_api_agree_on_what_was_erased() {
    let dir = tempfile::tempdir().unwrap();
    let ground = Ground::directory(dir.path());
    let (tenant, ledger) = (TenantId::default_tenant(), ground.ledger());
    ledger.ensure_default_tenant().await.unwrap();
    let mut call = note("s1", "");
    call.event_type = quipu_core::ids::EventType::parse("tool_call").unwrap();
    call.payload = r#"{"toolName":"search","callId":"c1","arguments":{"q":"planted words"}}"#.to_owned();
    let appended = ledger.append(&tenant, vec![note("s1", "stays"), call, note("s1", "stays")], None).await;
    let erased = appended.unwrap().events[1].1.event_id;
    append(&ledger, &tenant, "s2", "stays", 2).await;
    ground.archive(&tenant).await.unwrap();
    let request = Request { token_id: None, reason: Some("asked for".into()) };
    ledger.erase(&tenant, erased, &request).await.unwrap();
    ground.archive(&tenant).await.unwrap();
    let event = ledger.event(&tenant, erased).await.unwrap().unwrap();
    let OwnedContent::Erased { digest } = event.content else { panic!("{event:?}") };

    let archive = dir.path().join("archive");
    for engine in Engine::both(&archive).await {
        let who = engine.name();
        let rows = engine.ask_one(query(SQL, tenant.as_str(), ALWAYS));
        assert_eq!(rows.len(), 6, "{who}: five events and a tombstone: {rows:?}");
        for row in &rows {
            let is_it = of(row, "event_id") == erased.to_string();
            assert_eq!(of(row, "silent"), is_it.to_string(), "{who}: {row:?}");
            assert_eq!(row["digest"].is_some(), is_it, "{who}: {row:?}");
            if is_it {
                assert_eq!(of(row, "nameless"), "true", "{who}: what is derived goes too");
                assert_eq!(of(row, "digest"), quipu_core::ids::hex(&digest), "{who}");
                assert_eq!(of(row, "hash"), event.hash.to_string(), "{who}: the hash stays");
            }
        }
        let tombstones = rows.iter().filter(|row| of(row, "event_type") == "quipu.erased").count();
        assert_eq!(tombstones, 1, "{who}");
        assert_eq!(
            engine.ask_one(saved("verify_chain", tenant.as_str(), ALWAYS)),
            [],
            "{who}: nothing is wrong"
        );
        let counts = engine.ask_one(saved("verify_counts", tenant.as_str(), ALWAYS));
        assert!(counts.len() == 2 && counts.iter().all(|row| of(row, "ok") == "true"), "{who}: {counts:?}");
    }
    let options = Options { pinned_key: Some(ground.log_key()), ..Options::default() };
    let report = tokio::task::block_in_place(|| {
        Handle::current().block_on(verify_archive(&*ground.objects, &options, &|_| {}))
    });
    assert_eq!((report.verdict, report.events), (Verdict::Valid, 6), "{report}");
    assert!(report.notes.iter().any(|note| note.contains("erased, by event")), "{report}");
}
