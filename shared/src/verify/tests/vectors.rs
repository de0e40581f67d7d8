//! docs/vectors: what every verifier must agree with. The files change only on purpose:
//! `UPDATE_VECTORS=1 cargo test -p quipu-core vectors`, and a note in the change that says why.

use std::path::PathBuf;

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::bundle::{self, Record};
use crate::chain::{self, Hasher};
use crate::event::{Content, EventRef, Redactions};
use crate::ids::{CommitId, EventHash, Seq, SessionId, Severity, TenantId};
use crate::json::check_compact;
use crate::note::{NoteSigner, VerifierKey};
use crate::time::Micros;
use crate::verify::samples::{Tampered, logged, sample, tampered_logged_bundles, tenant};
use crate::verify::{Code, Options, Report, Verdict, read_checkpoint, read_receipts, verify_bundle};

#[derive(Serialize)]
struct Vectors {
    format: &'static str,
    events: Vec<EventVector>,
    notes: Vec<NoteVector>,
    json: Vec<JsonVector>,
}

/// Bundles of which all but a few lines are the same.
#[derive(Serialize)]
struct BundleVectors {
    format: &'static str,
    /// The lines of the good one, each with its newline.
    lines: Vec<String>,
    /// What is done to it, and what must be said of that.
    cases: Vec<BundleVector>,
}

#[derive(Serialize)]
struct BundleVector {
    name: String,
    /// The lines that the case has, each by its index among the good ones or as a text.
    lines: Vec<LineVector>,
    /// Content of the key file, if one is given.
    key: Option<String>,
    /// Contents of files of receipts.
    receipts: Vec<String>,
    /// Contents of files of checkpoints.
    checkpoints: Vec<String>,
    verdict: &'static str,
    code: Option<&'static str>,
    line: Option<u64>,
    session_id: Option<SessionId>,
    sequence: Option<u64>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum LineVector {
    Good(usize),
    Other(String),
}

#[derive(Serialize)]
struct EventVector {
    name: String,
    valid: bool,
    tenant: String,
    session_id: String,
    event: Map<String, Value>,
    lines: Vec<String>,
    content_digest: String,
    hash: String,
}

#[derive(Serialize)]
struct NoteVector {
    name: &'static str,
    vkey: String,
    note: String,
    valid: bool,
}

#[derive(Serialize)]
struct JsonVector {
    name: String,
    text: String,
    compact: bool,
}

const AT: i64 = 1_770_544_800_123_456;

/// An event with nothing special about it.
fn plain() -> EventRef<'static> {
    EventRef {
        sequence: Seq::ZERO,
        event_id: CommitId::mint(AT as u64 / 1000, [0x5a; 10]).event(1),
        timestamp: Micros::new(AT).unwrap(),
        received_at: Micros::new(AT + 44).unwrap(),
        agent_id: "agent-7",
        event_type: "tool_call",
        severity: Severity::Info,
        source_id: None,
        compliance_tag: "default",
        pii_types: "",
        redactions: Redactions::default(),
        content: kept(r#"{"tool":"grep","args":["-n","x"]}"#, "{}"),
        prev_hash: EventHash::ZERO,
        hash: EventHash::ZERO,
    }
}

fn kept<'a>(payload: &'a str, metadata: &'a str) -> Content<'a> {
    Content::Kept { salt: *b"\x00salt of an even", payload, metadata }
}

fn event_vector(name: &str, tenant: &str, session: &str, mut event: EventRef<'_>) -> EventVector {
    let (tenant_id, session_id) = (TenantId::parse(tenant).unwrap(), SessionId::parse(session).unwrap());
    let mut hasher = Hasher::new(&tenant_id, &session_id);
    event.hash = hasher.hash(&event);
    let lines = String::from_utf8(hasher.lines(&event).to_vec()).unwrap();
    let lines: Vec<String> = lines.split('\n').map(str::to_owned).collect();
    let mut line = String::new();
    bundle::push_event(&mut line, &event);
    let mut object: Map<String, Value> = serde_json::from_str(&line).unwrap();
    object.remove("kind");
    EventVector {
        name: name.to_owned(),
        valid: true,
        tenant: tenant.to_owned(),
        session_id: session.to_owned(),
        event: object,
        content_digest: lines[16].clone(),
        lines,
        hash: event.hash.to_string(),
    }
}

fn events() -> Vec<EventVector> {
    let mut all = Vec::new();
    let mut add = |name: &str, event: EventRef<'_>| all.push(event_vector(name, "acme", "run-1", event));
    let seq = |n| Seq::new(n).unwrap();
    let at = |t| Micros::new(t).unwrap();
    let policy = Some([0xc3; 32]);
    let (wide, long) = ("é".repeat(128), format!("{}b", "a_.".repeat(42)));
    let (tag, source) = ("t".repeat(64), "s".repeat(256));
    let pii: Vec<String> = (0..31).map(|n| format!("n{n:02}")).chain(["z".repeat(32)]).collect();
    let pii = pii.join(",");
    let deep = "[".repeat(128) + &"]".repeat(128);
    let digest = chain::content_digest(&[7; 16], "{}", "{}");

    add("the first of a session", plain());
    add("a later one", EventRef { sequence: seq(41), prev_hash: EventHash([0xab; 32]), ..plain() });
    add(
        "the last sequence there can be",
        EventRef { sequence: Seq::MAX, prev_hash: EventHash([1; 32]), ..plain() },
    );
    add("the time before 1970", EventRef { timestamp: at(-1), ..plain() });
    add("1970", EventRef { timestamp: at(0), received_at: at(0), ..plain() });
    add("the first time there is", EventRef { timestamp: Micros::MIN, ..plain() });
    add("the last time there is", EventRef { timestamp: Micros::MAX, received_at: Micros::MAX, ..plain() });
    add("an agent with a dash, spaces and a knot", EventRef { agent_id: " — ü 🪢 ", ..plain() });
    add("an agent with a no-break space", EventRef { agent_id: "\u{a0}", ..plain() });
    add("a type of several words", EventRef { event_type: "a_.0._b__c", ..plain() });
    for severity in [Severity::Debug, Severity::Warn, Severity::Error, Severity::Critical] {
        add(&format!("severity {}", severity.as_str()), EventRef { severity, ..plain() });
    }
    add("a source id", EventRef { source_id: Some("span/1 \u{2028},\""), ..plain() });
    add("another tag", EventRef { compliance_tag: "eu ai act: high", ..plain() });
    add("one kind of personal data", EventRef { pii_types: "email", ..plain() });
    add("as many kinds as there can be", EventRef { pii_types: &pii, ..plain() });
    add(
        "redactions without a policy",
        EventRef { redactions: Redactions { count: 1, policy: None }, ..plain() },
    );
    add(
        "redactions under a policy",
        EventRef { redactions: Redactions { count: u32::MAX, policy }, ..plain() },
    );
    add("a policy and no redaction", EventRef { redactions: Redactions { count: 0, policy }, ..plain() });
    add("erased", EventRef { content: Content::Erased { digest }, ..plain() });
    add(
        "the same before it was erased",
        EventRef { content: Content::Kept { salt: [7; 16], payload: "{}", metadata: "{}" }, ..plain() },
    );
    add(
        "every field as long as it can be",
        EventRef {
            agent_id: &wide,
            event_type: &long,
            source_id: Some(&source),
            compliance_tag: &tag,
            ..plain()
        },
    );
    for (name, payload, metadata) in [
        (
            "numbers as they were written",
            r#"[9007199254740993,-0,1.0,1e400,1E+05,123456789012345678901234567890]"#,
            "{}",
        ),
        ("text with escapes and without", r#"{"a\u0062":"\u0041\/\n🪢","é":"\ud83e\udea2 é"}"#, "{}"),
        ("null", "null", "{}"),
        ("an empty text", r#""""#, "{}"),
        ("members in their own order", r#"{"b":1,"a":2,"":3,"B":4}"#, r#"{"z":{"y":[]},"a":null}"#),
        ("as deep as it can be", &deep, "{}"),
    ] {
        add(&format!("payload: {name}"), EventRef { content: kept(payload, metadata), ..plain() });
    }
    let (longest_tenant, longest_session) = ("a-0".repeat(21), "é".repeat(128));
    all.push(event_vector("the longest tenant and session", &longest_tenant, &longest_session, plain()));
    all.push(event_vector("a session with spaces", "default", " run — 1 ", plain()));

    for (name, member, value) in [
        ("another hash", "hash", json!("12".repeat(32))),
        ("another payload", "payload", json!("{}")),
        ("another salt", "salt", json!("00".repeat(16))),
        ("payload with space", "payload", json!("{\"a\": 1}")),
        ("agent with a newline", "agent_id", json!("agent\n7")),
        ("agent with a control of C1", "agent_id", json!("agent\u{85}")),
        ("pii types out of order", "pii_types", json!(["b", "a"])),
        ("type that ends in a dot", "event_type", json!("tool.")),
        ("sequence below zero", "sequence", json!(-1)),
        ("time to the nanosecond", "timestamp", json!("2026-02-08T10:00:00.123456000Z")),
        ("digest beside the content", "content_digest", json!("12".repeat(32))),
        ("metadata that is a list", "metadata", json!("[]")),
    ] {
        let mut vector = event_vector(&format!("not valid: {name}"), "acme", "run-1", plain());
        vector.valid = false;
        vector.event.insert(member.to_owned(), value);
        // Lines are compared only where the syntax is right.
        if let Some((lines, hash)) = recompute(&vector) {
            (vector.content_digest, vector.lines, vector.hash) = (lines[16].clone(), lines, hash.to_string());
        }
        all.push(vector);
    }
    all
}

/// The lines and the hash of a vector's event, from its JSON, if its syntax is right.
fn recompute(vector: &EventVector) -> Option<(Vec<String>, EventHash)> {
    let mut object = vector.event.clone();
    object.insert("kind".to_owned(), json!("event"));
    let line = Value::Object(object).to_string();
    let Ok(Record::Event(record)) = bundle::parse(&line) else { return None };
    let event = record.event();
    chain::check_syntax(&event).ok()?;
    let tenant = TenantId::parse(vector.tenant.as_str()).ok()?;
    let session = SessionId::parse(vector.session_id.as_str()).ok()?;
    let mut hasher = Hasher::new(&tenant, &session);
    let hash = hasher.hash(&event);
    let lines = std::str::from_utf8(hasher.lines(&event)).unwrap();
    Some((lines.split('\n').map(str::to_owned).collect(), hash))
}

fn notes() -> Vec<NoteVector> {
    // The example of Go's golang.org/x/mod/sumdb/note.
    const KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const TEXT: &str = "If you think cryptography is the answer to your problem,\n\
        then you don't know what your problem is.\n";
    const LINE: &str = "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
    let good = format!("{TEXT}\n{LINE}");
    let signer = NoteSigner::from_seed("local-1/_receipt", &[7; 32]).unwrap();
    let ours = signer.verifier().to_string();
    let stranger = "— other AAAAAAA=\n";
    let mut all = Vec::new();
    let mut add = |name, vkey: &str, note: String, valid| {
        all.push(NoteVector { name, vkey: vkey.to_owned(), note, valid });
    };
    add("Go's example", KEY, good.clone(), true);
    add("one of ours", &ours, signer.sign("quipu.head.v1\nacme\ns — 1\n"), true);
    add("a text with empty lines", &ours, signer.sign("a\n\n\nb\n\n"), true);
    add("a text of one newline", &ours, signer.sign("\n"), true);
    add("a stranger's signature before", KEY, format!("{TEXT}\n{stranger}{LINE}"), true);
    add("a stranger's signature after", KEY, format!("{good}{stranger}"), true);
    add("the same name, another key id", KEY, format!("{good}— PeterNeumann AAAAAAA=\n"), true);
    add("signed twice", KEY, format!("{good}{LINE}"), true);
    add("16 signatures", KEY, format!("{good}{}", stranger.repeat(15)), true);
    add("17 signatures", KEY, format!("{good}{}", stranger.repeat(16)), false);
    add("edited", KEY, good.replace("think", "thunk"), false);
    add("a second signature that is bad", KEY, format!("{good}{}", LINE.replace("/ZJ", "/ZK")), false);
    add("a first signature that is bad", KEY, format!("{TEXT}\n{}{LINE}", LINE.replace("/ZJ", "/ZK")), false);
    add("not signed by the key", &ours, good.clone(), false);
    add("no signature", KEY, format!("{TEXT}\n"), false);
    add("no empty line", KEY, format!("{TEXT}{LINE}"), false);
    add("no newline at the end", KEY, good.trim_end().to_owned(), false);
    add("an empty line at the end", KEY, format!("{good}\n"), false);
    add("another dash", KEY, good.replace('—', "-"), false);
    add("two spaces", KEY, good.replace(" x08", "  x08"), false);
    add("a space after", KEY, good.replace("AM=", "AM= "), false);
    add("base64 without padding", KEY, good.replace("AM=", "AM"), false);
    add("base64 with spare bits", KEY, good.replace("AM=", "AN="), false);
    add("a stranger's line that is malformed", KEY, format!("{good}— other AAAA\n"), false);
    add("a stranger's name with a plus", KEY, format!("{good}— ot+her AAAAAAA=\n"), false);
    add("a stranger's name with a no-break space", KEY, format!("{good}— ot\u{a0}her AAAAAAA=\n"), false);
    add("carriage returns", KEY, good.replace('\n', "\r\n"), false);
    add("a tab in the text", &ours, signer.sign("a\tb\n"), false);
    add("nothing", KEY, String::new(), false);
    add("a key id of another key", &KEY.replace("c74f", "c74e"), good.clone(), false);
    add("a key id in capitals", &KEY.replace("c74f20a3", "C74F20A3"), good.clone(), false);
    add("a key with a line end", &format!("{KEY}\n"), good.clone(), false);
    add("a key cut short", &KEY[..KEY.len() - 4], good.clone(), false);
    add("a key of another type", &KEY.replace("+ARpc", "+Ahpc"), good, false);
    all
}

fn json_cases() -> Vec<JsonVector> {
    let nest = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    let objects = |depth: usize| "{\"a\":".repeat(depth) + "[]" + &"}".repeat(depth);
    let many = |extra: &str| {
        let members: Vec<String> = (0..40).map(|n| format!("\"k{n}\":0")).collect();
        format!("{{{}{extra}}}", members.join(","))
    };
    let good = [
        "0",
        "-0",
        "-1",
        "1.0",
        "1e5",
        "1E+05",
        "-0.0e-0",
        "9007199254740993",
        "1e400",
        "true",
        "false",
        "null",
        r#""""#,
        r#""a b""#,
        r#""\"\\\/\b\f\n\r\t\u0000\uD83D\uDE00\uE000\ud7ff""#,
        "\"\u{7f}\u{80}\u{2028}\u{feff}😀\"",
        "[]",
        "{}",
        "[[],{},[1,2]]",
        r#"{"a":1,"b":{"a":1}}"#,
        r#"{"":1,"a":2,"A":3}"#,
        r#"[{"a":1},{"a":2}]"#,
        "{\"é\":1,\"e\u{301}\":2}",
        r#"{"a":" : , "}"#,
        &nest(128),
        &objects(127),
        &many(""),
    ]
    .map(|text| (text.to_owned(), true));
    let bad = [
        "",
        " ",
        " 1",
        "1 ",
        "1\n",
        "[1, 2]",
        r#"{"a": 1}"#,
        r#"{"a" :1}"#,
        r#"{ "a":1}"#,
        "[ ]",
        "{ }",
        "[1\t]",
        "\u{feff}1",
        "01",
        "-",
        "+1",
        "1.",
        ".5",
        "1e",
        "1e+",
        "-01",
        "0x1",
        "1_0",
        "NaN",
        "Infinity",
        "True",
        "nul",
        "nulll",
        "truefalse",
        "\"",
        "\"a",
        "a\"",
        "\"\n\"",
        "\"\t\"",
        "\"\u{0}\"",
        r#""\a""#,
        r#""\u12""#,
        r#""\u123g""#,
        r#""\u+123""#,
        r#""\ud800""#,
        r#""\ud800a""#,
        r#""\udc00""#,
        r#""\ud800\ud800""#,
        r#""\udc00\ud800""#,
        "[",
        "]",
        "{",
        "}",
        "[1",
        "[1,",
        "[1,]",
        "[,1]",
        "[1]]",
        "[}",
        r#"{"a""#,
        r#"{"a":"#,
        r#"{"a":1,}"#,
        r#"{"a"}"#,
        "{1:2}",
        "{a:1}",
        "1,2",
        r#"["a":1]"#,
        r#"{"a":1"b":2}"#,
        r#"{"a":1,"a":1}"#,
        r#"{"a":1,"\u0061":1}"#,
        r#"{"\ud83d\ude00":1,"😀":2}"#,
        r#"{"b":{"a":1,"a":2}}"#,
        "/**/1",
        "\u{661}",
        "1\u{a0}",
        &nest(129),
        &objects(128),
        &many(",\"k3\":1"),
        &many(",\"\\u006b39\":1"),
    ]
    .map(|text| (text.to_owned(), false));
    let name = |text: &str| {
        let short: String = text.chars().take(24).collect();
        if short.len() < text.len() { format!("{short} … ({} bytes)", text.len()) } else { short }
    };
    let all = good.into_iter().chain(bad);
    all.map(|(text, compact)| JsonVector { name: name(&text), text, compact }).collect()
}

fn check(case: &Tampered) -> Report {
    let mut options = Options {
        pinned_key: case.key.as_deref().map(|key| VerifierKey::parse(key.trim()).unwrap()),
        ..Options::default()
    };
    options.receipts.extend(case.receipts.iter().flat_map(|text| read_receipts(text.as_bytes())));
    options.checkpoints.extend(case.checkpoints.iter().map(|text| read_checkpoint(text.as_bytes())));
    verify_bundle(&case.bundle[..], &options, &|_| ())
}

fn bundles() -> BundleVectors {
    let good = logged(1).sample.lines;
    let cases = tampered_logged_bundles(1).into_iter().map(|case| {
        let finding = check(&case).finding;
        let text = String::from_utf8(case.bundle).unwrap();
        let lines = text.split_inclusive('\n').map(|line| {
            let index = good.iter().position(|good| good == line);
            index.map_or_else(|| LineVector::Other(line.to_owned()), LineVector::Good)
        });
        BundleVector {
            name: case.name,
            lines: lines.collect(),
            key: case.key,
            receipts: case.receipts,
            checkpoints: case.checkpoints,
            verdict: case.verdict.as_str(),
            code: case.code.map(Code::as_str),
            line: finding.as_ref().and_then(|f| f.line),
            session_id: finding.as_ref().and_then(|f| f.session_id.clone()),
            sequence: finding.as_ref().and_then(|f| f.sequence),
        }
    });
    BundleVectors { format: "quipu.bundle-vectors.v1", cases: cases.collect(), lines: good.clone() }
}

fn directory() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/vectors"))
}

/// Compares a file of docs/vectors with what it should be, or writes it.
fn hold(name: &str, content: &str) {
    let path = directory().join(name);
    if std::env::var_os("UPDATE_VECTORS").is_some() {
        std::fs::create_dir_all(directory()).unwrap();
        std::fs::write(&path, content).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == content, "{name} is not what the code gives; see the head of this file");
}

#[test]
fn the_vectors_are_what_they_were() {
    let vectors =
        Vectors { format: "quipu.vectors.v1", events: events(), notes: notes(), json: json_cases() };
    hold("vectors.json", &format!("{}\n", serde_json::to_string_pretty(&vectors).unwrap()));
}

#[test]
fn the_bundle_vectors_are_what_they_were() {
    hold("bundles.json", &format!("{}\n", serde_json::to_string_pretty(&bundles()).unwrap()));
}

#[test]
fn the_vectors_hold() {
    for vector in events() {
        let found = recompute(&vector);
        let valid = found.as_ref().is_some_and(|(_, hash)| vector.event["hash"] == hash.to_string());
        assert_eq!(valid, vector.valid, "{}", vector.name);
        if let Some((lines, hash)) = found {
            assert_eq!((lines, hash.to_string()), (vector.lines, vector.hash), "{}", vector.name);
        }
    }
    for vector in notes() {
        let opened = VerifierKey::parse(&vector.vkey).and_then(|key| key.open(&vector.note).map(drop));
        assert_eq!(opened.is_ok(), vector.valid, "{}: {opened:?}", vector.name);
    }
    for vector in json_cases() {
        let checked = check_compact(&vector.text, None);
        assert_eq!(checked.is_ok(), vector.compact, "{}: {checked:?}", vector.name);
    }
}

#[test]
fn the_golden_bundle_with_a_log_is_what_it_was_and_valid() {
    let sample = logged(0).sample;
    hold("bundle-log.ndjson", &sample.text());
    hold("bundle-log.key", &sample.key);
    let options = Options { pinned_key: Some(sample.verifier()), ..Options::default() };
    let report = verify_bundle(sample.text().as_bytes(), &options, &|_| ());
    let said = report.to_string();
    let begins = "VALID  3 sessions, 7 events. 5 events of 7 events in the log up to checkpoint 9. Event ";
    assert!(said.starts_with(begins) && said.contains("erased, by event "), "{said}");
    assert!(said.ends_with("Freshness not proved: no receipt or checkpoint was given."), "{said}");
}

#[test]
fn the_golden_bundle_is_what_it_was_and_valid() {
    let sample = sample(0, &tenant());
    let receipts = format!("{{\"receipts\":[{}]}}\n", sample.receipts.join(","));
    hold("bundle-valid.ndjson", &sample.text());
    hold("bundle-valid.key", &sample.key);
    hold("bundle-valid.receipts.json", &receipts);
    let options = Options {
        pinned_key: Some(sample.verifier()),
        receipts: read_receipts(receipts.as_bytes()),
        ..Options::default()
    };
    let report = verify_bundle(sample.text().as_bytes(), &options, &|_| ());
    assert_eq!(report.verdict, Verdict::Valid, "{report}");
    let said = report.to_string();
    assert!(said.starts_with("VALID  3 sessions, 7 events. Event "), "{said}");
    assert!(said.ends_with(" Held against 7 receipts."), "{said}");
}
