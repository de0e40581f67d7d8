use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use quipu_core::limits;
use quipu_tests::event;
use serde_json::{Value, json};

use super::{ANSWER_BYTES_MAX, Answer, Event, Functions, Kind};

/// Events of which the recorded list asks for one.
async fn with_events() -> (Functions, String, String) {
    let (functions, token) = Functions::bootstrapped().await;
    let searched = json!({ "toolName": "search", "callId": "c-1", "arguments": { "q": "café & crème" } });
    let batch = [
        json!({ "session_id": "run/1 of 2", "agent_id": "planner", "event_type": "tool_call", "payload": searched }),
        json!({ "session_id": "run/1 of 2", "agent_id": "critic", "event_type": "tool_call", "payload": searched }),
        json!({ "session_id": "café 1 of 2", "agent_id": "planner", "event_type": "step", "payload": {} }),
    ];
    let appended = functions.append(&token, &batch).await;
    let first = appended["events"][0]["event_id"].as_str().unwrap().to_owned();
    (functions, token, first)
}

fn events(body: &Value) -> &Vec<Value> {
    body["events"].as_array().expect("events")
}

#[tokio::test]
async fn parameters_are_decoded_once() {
    let (functions, token, first) = with_events().await;
    for kind in Kind::EVERY {
        let body = Event::recorded("query", kind, "").bearer(&token).run(&functions.query).await.expect(200);
        assert_eq!(events(&body).len(), 1, "{kind:?}: {body}");
        assert_eq!(events(&body)[0]["event_id"], first, "{kind:?}");
        assert_eq!(events(&body)[0]["payload"]["arguments"]["q"], "café & crème");
    }
}

/// REST APIs give all values, the others the query as it was sent; none may widen the question by losing one.
#[tokio::test]
async fn a_repeated_parameter_is_refused() {
    let (functions, token, _) = with_events().await;
    for kind in Kind::EVERY {
        let answer = Event::recorded("query", kind, "-repeated").bearer(&token).run(&functions.query).await;
        assert_eq!(answer.refusal(400), "invalid_parameter", "{kind:?}");
        assert_eq!(answer.expect(400)["details"], json!([{ "path": "agent_id", "message": "given twice" }]));
    }
}

/// REST APIs and function URLs pass the path as it was sent, HTTP APIs undo its encoding: there, a session with a
/// slash in its name is out of reach.
#[tokio::test]
async fn a_path_is_decoded_once() {
    let (functions, token, _) = with_events().await;
    for kind in Kind::EVERY {
        let recorded = Event::recorded("query", kind, "-encoded").bearer(&token);
        let body = recorded.run(&functions.query).await.expect(200);
        let session = if kind == Kind::Http { "café 1 of 2" } else { "run/1 of 2" };
        assert_eq!(events(&body)[0]["session_id"], session);
    }
}

#[tokio::test]
async fn an_event_by_its_id() {
    let (functions, token, first) = with_events().await;
    for kind in Kind::EVERY {
        let path = format!("/v1/events/{first}");
        let recorded = Event::recorded("query", kind, "").bearer(&token).to("GET", &path);
        assert_eq!(recorded.run(&functions.query).await.expect(200)["event_id"], first);
        let recorded = Event::recorded("query", kind, "").bearer(&token).to("GET", "/v1/events/nothing");
        assert_eq!(recorded.run(&functions.query).await.refusal(404), "not_found");
        let recorded = Event::recorded("query", kind, "").bearer(&token).to("DELETE", "/v1/events");
        assert_eq!(recorded.run(&functions.query).await.refusal(405), "method_not_allowed");
    }
}

/// A REST API's stage is in `requestContext.path` alone. An HTTP API puts one that has a name before the path, so ours
/// must be `$default`; docs/deploy.md says so.
#[tokio::test]
async fn the_stage_is_no_part_of_the_path() {
    let (functions, _, _) = with_events().await;
    let recorded = Event::recorded("query", Kind::Rest, "").to("GET", "/v1/health");
    assert_eq!(recorded.json["requestContext"]["path"], "/prod/v1/health");
    assert_eq!(recorded.run(&functions.query).await.expect(200)["status"], "ok");
    let named = Event::recorded("query", Kind::Http, "-stage").run(&functions.query).await;
    assert_eq!(named.refusal(404), "not_found");
}

/// An evidence bundle is not JSON: it goes in base64, and comes out as the bytes that verify.
#[tokio::test]
async fn a_bundle_goes_in_base64() {
    let (functions, token, _) = with_events().await;
    let direct = functions.service.get_as(&token, "/v1/sessions/caf%C3%A9%201%20of%202/export").await;
    let events = |text: &str| -> Vec<String> {
        text.lines().filter(|line| line.contains("event_id")).map(str::to_owned).collect()
    };
    assert_eq!(events(&direct.text).len(), 1, "{}", direct.text);
    for kind in Kind::EVERY {
        let path = "/v1/sessions/caf%C3%A9%201%20of%202/export";
        let answer: Answer =
            Event::recorded("query", kind, "").bearer(&token).to("GET", path).run(&functions.query).await;
        assert_eq!((answer.status(), answer.header("content-type")), (200, Some("application/x-ndjson")));
        assert_eq!(answer.json["isBase64Encoded"], true);
        let bytes = BASE64.decode(answer.json["body"].as_str().unwrap()).unwrap();
        assert_eq!(events(&String::from_utf8(bytes).unwrap()), events(&direct.text), "{kind:?}");
    }
}

/// The largest pages, of what grows most on its way: a quote or a backslash of a payload is two bytes in the answer,
/// whose body is a string in JSON.
#[tokio::test]
async fn a_full_page_fits_into_an_answer() {
    let few_and_large = json!("\\".repeat(limits::PAYLOAD_BYTES_MAX / 2 - 16));
    let many_and_small = json!(["\"\\".repeat(650)]);
    for (payload, batches, batch) in [(few_and_large, 6, 1), (many_and_small, 10, 110)] {
        let (functions, token) = Functions::bootstrapped().await;
        for _ in 0..batches {
            functions.append(&token, &vec![event("large", payload.clone()); batch]).await;
        }
        // Function URLs are answered as HTTP APIs are.
        for kind in [Kind::Rest, Kind::Http] {
            let recorded = Event::recorded("query", kind, "").bearer(&token).to("GET", "/v1/events");
            let answer = recorded.limit(limits::PAGE_EVENTS_MAX).run(&functions.query).await;
            let body = answer.expect(200);
            let shown = events(&body).len();
            assert!(answer.bytes <= ANSWER_BYTES_MAX, "{kind:?}: {} bytes for {shown} events", answer.bytes);
            // It is the limit that ended it, not the events.
            assert!(answer.bytes > ANSWER_BYTES_MAX / 2 && body["next_cursor"].is_string(), "{shown} events");
        }
    }
}
