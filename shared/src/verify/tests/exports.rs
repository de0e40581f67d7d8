//! An export verifies, by itself and against receipts.

use crate::ledger::{Export, ReadError};
use crate::store::StoreError;
use crate::verify::*;

use super::fixture::{Fixture, event, session, tenant};

async fn whole(export: &mut Export) -> String {
    let mut text = String::new();
    while let Some(chunk) = export.next_chunk().await.unwrap() {
        assert!(chunk.ends_with('\n'), "chunks are whole lines");
        text.push_str(&chunk);
    }
    assert_eq!(export.next_chunk().await.unwrap(), None);
    text
}

#[tokio::test]
async fn p5_an_export_is_valid_under_the_key_and_the_receipts() {
    let fixture = Fixture::filled().await;
    let appended = fixture.fill("b", 5).await;
    let mut export =
        fixture.ledger.export(&tenant(), &[session("b"), session("a"), session("b")]).await.unwrap();
    let text = whole(&mut export).await;
    let mut options = Options { pinned_key: Some(fixture.key()), ..Options::default() };
    for receipt in fixture.receipts(&appended) {
        options.receipts.extend(read_receipts(receipt.as_bytes()));
    }
    let report = verify_bundle(text.as_bytes(), &options, &|_| ());
    assert_eq!(report.to_string(), "VALID  2 sessions, 23 events. Held against 1 receipt.");
    options.pinned_key = None;
    let report = verify_bundle(text.as_bytes(), &options, &|_| ());
    assert_eq!((report.verdict, report.finding.unwrap().code), (Verdict::Incomplete, Code::NoKey));
}

#[tokio::test]
async fn an_export_ends_where_it_began_whatever_is_appended_meanwhile() {
    let fixture = Fixture::new();
    let long = format!("\"{}\"", "x".repeat(40_000));
    for _ in 0..5 {
        fixture.append((0..2).map(|_| event(&session("s"), "a", "tool_call", long.clone())).collect()).await;
    }
    let mut export = fixture.ledger.export(&tenant(), &[session("s")]).await.unwrap();
    let mut text = export.next_chunk().await.unwrap().unwrap();
    fixture.append(vec![event(&session("s"), "a", "late", long)]).await;
    text.push_str(&whole(&mut export).await);
    let options = Options { pinned_key: Some(fixture.key()), ..Options::default() };
    let report = verify_bundle(text.as_bytes(), &options, &|_| ());
    assert_eq!((report.verdict, report.events), (Verdict::Valid, 10), "{report}");
}

#[tokio::test]
async fn an_unknown_session_is_refused_before_anything_is_written() {
    let fixture = Fixture::filled().await;
    for names in [&["a", "nobody"][..], &[]] {
        let sessions: Vec<_> = names.iter().map(|name| session(name)).collect();
        let refused = fixture.ledger.export(&tenant(), &sessions).await;
        assert!(matches!(refused, Err(ReadError::Store(StoreError::NotFound))), "{refused:?}");
    }
}
