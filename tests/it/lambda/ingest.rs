use quipu_core::limits;
use serde_json::json;

use super::{Event, Functions, Kind};

#[tokio::test]
async fn a_batch_is_taken_whoever_calls() {
    let (functions, token) = Functions::bootstrapped().await;
    let mut first = None;
    for kind in Kind::EVERY {
        let answer = Event::recorded("ingest", kind, "").bearer(&token).run(&functions.ingest).await;
        let body = answer.expect(201);
        assert_eq!(body["ingested"], 1);
        assert_eq!(body["events"][0]["session_id"], "run/1 of 2");
        assert_eq!(body["events"][0]["sequence"], 0);
        assert!(body["receipts"][0]["note"].as_str().unwrap().starts_with("quipu.receipt.v1\n"), "{body}");
        // The recordings share their Idempotency-Key and their body, so the callers share the outcome.
        let replayed = answer.header("idempotent-replayed");
        assert_eq!(replayed, first.is_some().then_some("true"), "{kind:?}");
        assert_eq!(first.get_or_insert_with(|| body["events"].clone()), &body["events"], "{kind:?}");
    }
}

#[tokio::test]
async fn a_packed_body_arrives_in_base64() {
    let (functions, token) = Functions::bootstrapped().await;
    for (first, kind) in (0..).step_by(3).zip(Kind::EVERY) {
        let recorded = Event::recorded("ingest", kind, "-gzip").bearer(&token);
        assert_eq!(recorded.json["isBase64Encoded"], true);
        let body = recorded.run(&functions.ingest).await.expect(201);
        assert_eq!(body["ingested"], 3);
        assert_eq!(body["events"][2]["sequence"], first + 2, "{kind:?}");
    }
    let stored = functions.service.get_as(&token, "/v1/sessions/packed/events").await;
    assert_eq!(stored.expect(200)["events"].as_array().unwrap().len(), 9);
    assert_eq!(
        stored.text.matches(r#""payload":{"step":2,"exact":9007199254740993}"#).count(),
        3,
        "{}",
        stored.text
    );
}

#[tokio::test]
async fn refusals_have_one_shape() {
    let (functions, token) = Functions::bootstrapped().await;
    for kind in Kind::EVERY {
        let recorded = || Event::recorded("ingest", kind, "").bearer(&token);
        let refused = async |event: Event, status| event.run(&functions.ingest).await.refusal(status);
        assert_eq!(refused(recorded().to("POST", "/v1/event"), 404).await, "not_found");
        assert_eq!(refused(recorded().to("GET", "/v1/events"), 405).await, "method_not_allowed");
        let large = "x".repeat(limits::BODY_BYTES_MAX + 1);
        assert_eq!(refused(recorded().body(&large), 413).await, "too_large");
        assert_eq!(
            refused(recorded().header("content-type", "text/csv"), 415).await,
            "unsupported_media_type"
        );
        assert_eq!(refused(recorded().body("{"), 400).await, "invalid_body");

        let stranger = Event::recorded("ingest", kind, "").bearer("qp_nobody").run(&functions.ingest).await;
        assert_eq!(stranger.refusal(401), "unauthorized");
        assert_eq!(stranger.header("www-authenticate"), Some("Bearer"));
    }
    // Nothing of all that was stored.
    let sessions = functions.service.get_as(&token, "/v1/sessions").await.expect(200);
    assert_eq!(sessions["sessions"], json!([]));
}
