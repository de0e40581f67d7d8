//! What fuzzing starts from: small valid inputs and the words of each format. The same on every machine.

use anyhow::Context as _;
use quipu_core::bundle::{self, Header};
use quipu_core::chain::Hasher;
use quipu_core::codec::Cursor;
use quipu_core::dialect::intake::read_lines;
use quipu_core::dialect::native;
use quipu_core::ids::{CommitId, Seq, SessionId, TenantId};
use quipu_core::limits;
use quipu_core::note::NoteSigner;
use quipu_core::segment::{Numbered, Segment, SegmentReader, chain};
use quipu_core::statement::{Says, Standing, certify, log_key_name, receipt_key_name};
use quipu_core::time::Micros;

use super::{INPUT_BYTES_MAX, Target, logs};
use crate::sample::{Mode, SampleConfig, generate};
use crate::shell::root;

/// The deployment and the session that the seeds are of, as `fuzz/src/note.rs` knows them.
const DEPLOYMENT: &str = "fuzz";

/// Longest event that goes into a seed, bytes: a fuzzer is the faster the shorter its inputs are.
const SEED_EVENT_BYTES_MAX: usize = 700;

/// 2026-02-02T02:40:00Z.
const TIME: i64 = 1_770_000_000_000_000;

/// Inputs that the target takes, or nearly.
pub(super) fn seeds(target: Target) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut seeds = match target {
        Target::Request => requests(),
        Target::Segment => segments()?,
        Target::Bundle => bundles()?,
        Target::Note => notes()?,
        Target::Log => logs::seeds()?,
        Target::Time => TIMES.iter().map(|time| time.as_bytes().to_vec()).collect(),
        Target::Json => documents(),
    };
    seeds.extend(vectors(target)?);
    seeds.retain(|seed| seed.len() <= INPUT_BYTES_MAX);
    Ok(seeds)
}

/// Words that mutations put in, replace and tear apart.
pub(super) fn tokens(target: Target) -> &'static [&'static str] {
    match target {
        Target::Request => REQUEST_TOKENS,
        Target::Segment => SEGMENT_TOKENS,
        Target::Bundle => BUNDLE_TOKENS,
        Target::Note => NOTE_TOKENS,
        Target::Log => logs::TOKENS,
        Target::Time => TIME_TOKENS,
        Target::Json => JSON_TOKENS,
    }
}

/// The same for libFuzzer.
pub(super) fn dictionary(target: Target) -> String {
    let quote = |token: &&str| {
        let bytes = token.bytes().map(|byte| format!("\\x{byte:02x}"));
        format!("\"{}\"\n", bytes.collect::<String>())
    };
    tokens(target).iter().map(quote).collect()
}

const TIMES: &[&str] = &[
    "2026-02-08T10:00:00Z",
    "2026-02-08t10:00:00.5z",
    "2026-02-08 10:00:00.123456+05:45",
    "1969-12-31T23:59:59.999999-23:59",
    "2024-02-29T00:00:00.120000000Z",
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999999Z",
    "2016-12-31T23:59:60Z",
    "1900-02-29T00:00:00Z",
];

const TIME_TOKENS: &[&str] = &[
    "T",
    "t",
    " ",
    "Z",
    "z",
    ".",
    "-",
    ":",
    "+00:00",
    "-00:00",
    "0000",
    "9999",
    "02-29",
    "24:00",
    ".000000000",
    "٣",
];

const JSON_TOKENS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\"a\":",
    "\"\\u0061\":",
    "{}",
    "[]",
    "null",
    "true",
    "false",
    "-0",
    "0",
    "1.0",
    "1e-7",
    "1E+400",
    "18446744073709551616",
    "\\ud83d\\ude00",
    "\\ud800",
    "\\udc00",
    "\\u0000",
    "\\\"",
    "\\\\",
    "\\/",
    "\\n",
    " ",
    "\n",
    "\t",
    "\u{feff}",
    "\u{0}",
    "\u{7f}",
    "é",
    "😀",
    "[[[[[[[[[[[[[[[[",
    "{\"a\":{\"a\":{\"a\":",
];

const REQUEST_TOKENS: &[&str] = &[
    "{\"events\":[",
    "]}",
    "\"session_id\":",
    "\"run_id\":",
    "\"sessionId\":",
    "\"agent_id\":",
    "\"agentId\":",
    "\"event_type\":",
    "\"eventType\":",
    "\"payload\":",
    "\"metadata\":",
    "\"severity\":",
    "\"source_id\":",
    "\"timestamp\":",
    "\"compliance_tag\":",
    "\"s\"",
    "\"tool_call\"",
    "\"tool_error\"",
    "\"llm_response\"",
    "\"cost_tracked\"",
    "\"session_started\"",
    "\"session_ended\"",
    "\"custom\"",
    "\"quipu.x\"",
    "\"critical\"",
    "\"usage\":{",
    "\"inputTokens\":",
    "\"outputTokens\":",
    "\"costUsd\":",
    "\"tags\":[",
    "\"agentName\":",
    "\"callId\":",
    "\"toolName\":",
    "\"arguments\":",
    "\"reason\":\"error\"",
    "null",
    "{}",
    "[]",
    "\"\"",
    "-1",
    "1e308",
    "18446744073709551615",
    "9007199254740993",
    "0.1",
    "\\ud83d\\ude00",
    "\\u0000",
    ",",
    "\n",
    "\"2026-02-08T10:00:00Z\"",
];

const SEGMENT_TOKENS: &[&str] = &[
    "\u{0}",
    "\u{1}",
    "\u{7f}",
    "\u{8}",
    "\u{10}",
    "\u{20}",
    "\u{40}",
    "\u{60}",
    "llm_response",
    "tool_call",
    "session_started",
    "cost_tracked",
    "{\"costUsd\":1e300}",
    "{\"usage\":{\"inputTokens\":18446744073709551615}}",
    "email,phone",
    "default",
];

const BUNDLE_TOKENS: &[&str] = &[
    "{\"kind\":\"bundle\",",
    "{\"kind\":\"session\",",
    "{\"kind\":\"event\",",
    "{\"kind\":\"head\",\"note\":",
    "{\"kind\":\"end\",",
    "\"sequence\":",
    "\"event_id\":",
    "\"session_id\":",
    "\"payload\":",
    "\"metadata\":",
    "\"salt\":",
    "\"content_digest\":",
    "\"redaction_count\":",
    "\"pii_types\":[\"email\"]",
    "\"prev_hash\":",
    "\"hash\":",
    "\"sessions\":",
    "\"events\":",
    "\"certificates\":[",
    "null",
    "\n",
    "\r\n",
    "0",
    "18446744073709551615",
    "9223372036854775807",
    "\\u0000",
    "\\n",
    "\"",
    "1970-01-01T00:00:00.000000Z",
];

const NOTE_TOKENS: &[&str] = &[
    "\n",
    "\n\n",
    "\n\n— ",
    "— ",
    "+",
    "=",
    "fuzz/_log",
    "fuzz/_receipt",
    "quipu.key.v1\n",
    "quipu.receipt.v1\n",
    "quipu.head.v1\n",
    "receipt\n",
    "default\n",
    "-1\n",
    "-0\n",
    "00\n",
    "9223372036854775807\n",
    "\r",
    "\u{2028}",
    "{\"receipts\":[",
    "{\"receipt\":",
    "[\"",
    "\\n",
    "AQ==",
];

/// Sample events as lines, the short ones of every type.
fn lines() -> Vec<String> {
    let mut counts = std::collections::BTreeMap::new();
    let config = SampleConfig { seed: 11, events: 6_000, mode: Mode::Varied, start_us: TIME };
    generate(&config)
        .filter(|event| event.json.len() <= SEED_EVENT_BYTES_MAX)
        .filter(|event| {
            let count: &mut usize = counts.entry(event.event_type).or_default();
            *count += 1;
            *count <= 3
        })
        .map(|event| event.json)
        .collect()
}

fn requests() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for pair in lines().chunks(2) {
        let (batch, lines) = (format!("{{\"events\":[{}]}}", pair.join(",")), pair.join("\n"));
        for (how, text) in [("0", &batch), ("1", &lines), ("2", &batch), ("3", &lines)] {
            let text = if how < "2" {
                text.clone()
            } else {
                text.replace("\"session_id\":", "\"sessionId\":")
                    .replace("\"agent_id\":", "\"agentId\":")
                    .replace("\"event_type\":", "\"eventType\":")
            };
            seeds.push(format!("{how}{text}").into_bytes());
        }
    }
    let bare = r#"0{"events":[{"run_id":"s","agent_id":"a","event_type":"e","payload":1}]}"#;
    seeds.push(bare.as_bytes().to_vec());
    seeds
}

/// Segments of three sessions' worth of sample events, each chained on nothing.
fn sample_segments() -> anyhow::Result<Vec<Segment>> {
    let mut segments = Vec::new();
    for (index, lines) in lines().chunks(8).enumerate() {
        let events = read_lines(&lines.join("\n"), &native::NAMES)?;
        let numbered: Vec<_> = (1..).zip(events).map(|(number, event)| Numbered { number, event }).collect();
        let salts = vec![[index as u8; 16]; numbered.len()];
        let commit = CommitId::mint(TIME as u64 / 1000, [index as u8; 10]);
        let session = SessionId::parse(format!("session {index}"))?;
        let tenant = TenantId::default_tenant();
        segments.push(chain(&tenant, &session, None, commit, time()?, &numbered, &salts)?.0);
    }
    Ok(segments)
}

fn time() -> anyhow::Result<Micros> {
    Micros::new(TIME).context("a time")
}

fn segments() -> anyhow::Result<Vec<Vec<u8>>> {
    let mut seeds = Vec::new();
    for segment in sample_segments()? {
        seeds.push([b"0", &segment.body[..]].concat());
        seeds.push([b"1", &segment.meta.encode()[..]].concat());
        // Where the columns' length begins: docs/format.md, section 6.
        let mut cursor = Cursor(&segment.body);
        cursor.take(1 + 16)?;
        cursor.signed()?;
        cursor.varint()?;
        cursor.take(32)?;
        let count = cursor.length(limits::BATCH_EVENTS_MAX)?;
        cursor.take(count * (16 + 32))?;
        let before = &segment.body[..segment.body.len() - cursor.0.len()];
        let length = cursor.length(limits::SEGMENT_COLUMNS_BYTES_MAX)?;
        let columns = zstd::bulk::decompress(cursor.0, length)?;
        let split = u16::try_from(before.len())?.to_le_bytes();
        seeds.push([b"2", &split[..], before, &columns].concat());
    }
    Ok(seeds)
}

/// Its log key, and its receipt key.
fn keys() -> anyhow::Result<(NoteSigner, NoteSigner)> {
    let log = NoteSigner::from_seed(&log_key_name(DEPLOYMENT), &[1; 32])?;
    Ok((log, NoteSigner::from_seed(&receipt_key_name(DEPLOYMENT), &[2; 32])?))
}

fn bundles() -> anyhow::Result<Vec<Vec<u8>>> {
    let (log, receipt) = keys()?;
    let tenant = TenantId::default_tenant();
    let certificate = certify(&log, DEPLOYMENT, receipt.verifier(), Micros::MIN);
    let mut seeds = Vec::new();
    for segments in sample_segments()?.chunks(2) {
        let mut text = String::new();
        let header = Header {
            deployment: DEPLOYMENT,
            tenant: &tenant,
            created_at: time()?,
            log_key: log.verifier(),
            certificates: std::slice::from_ref(&certificate),
        };
        bundle::push_header(&mut text, &header);
        let mut events = 0;
        for Segment { session_id, meta, body } in segments {
            bundle::push_session(&mut text, session_id);
            let mut reader = SegmentReader::new()?;
            for event in reader.open(body)?.events() {
                let event = event?;
                debug_assert_eq!(Hasher::new(&tenant, session_id).hash(&event), event.hash);
                bundle::push_event(&mut text, &event);
                events += 1;
            }
            let head = Standing {
                tenant: tenant.clone(),
                session_id: session_id.clone(),
                sequence: meta.last,
                hash: meta.last_hash,
                time: time()?,
            };
            bundle::push_head(&mut text, &head.sign(Says::Head, &receipt));
        }
        bundle::push_end(&mut text, segments.len() as u64, events);
        seeds.push(text.into_bytes());
    }
    Ok(seeds)
}

fn notes() -> anyhow::Result<Vec<Vec<u8>>> {
    let (log, receipt) = keys()?;
    let standing = Standing {
        tenant: TenantId::default_tenant(),
        session_id: SessionId::parse("a session — 1")?,
        sequence: Seq::new(41).context("a sequence")?,
        hash: quipu_core::ids::EventHash([0xab; 32]),
        time: time()?,
    };
    let said = standing.sign(Says::Receipt, &receipt);
    let text = |note: &str| note.rfind("\n\n").map(|at| note[..=at].to_owned()).unwrap_or_default();
    let certificate = certify(&log, DEPLOYMENT, receipt.verifier(), Micros::MIN);
    let two = format!("{}{}", log.sign("a\n\nb\n"), log.sign("a\n\nb\n").lines().last().unwrap_or_default());
    let as_json = serde_json::json!({ "receipts": [{ "receipt": said }, said] }).to_string();
    Ok([
        format!("0{}", log.verifier()),
        "0PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW".to_owned(),
        format!("1{certificate}"),
        format!("1{}", standing.sign(Says::Receipt, &log)),
        format!("1{two}\n"),
        format!("2{}", text(&said)),
        format!("2{}", text(&standing.sign(Says::Head, &receipt))),
        "3any text\n\n— of two lines".to_owned(),
        format!("4{said}"),
        format!("4{as_json}"),
    ]
    .map(String::into_bytes)
    .to_vec())
}

fn documents() -> Vec<Vec<u8>> {
    let mut seeds: Vec<_> = lines().into_iter().map(String::into_bytes).collect();
    let nest = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    seeds.extend([nest(127), nest(128), nest(129)].map(String::into_bytes));
    let odd = [
        " { \"a\" : [ 1 , -0.0e+5 ] } ",
        "\"\\ud83d\\ude00 \\u00e9 \\/ é\"",
        "18446744073709551615",
        "1e999",
        "{\"a\":1,\"\\u0061\":2}",
        "\"\\ud800\"",
        "null",
    ];
    seeds.extend(odd.map(|text| text.as_bytes().to_vec()));
    seeds
}

/// The published vectors, where the target reads such a file.
fn vectors(target: Target) -> anyhow::Result<Vec<Vec<u8>>> {
    let directory = root().join("docs/vectors");
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(&directory).with_context(|| directory.display().to_string())? {
        paths.push(entry?.path());
    }
    // A directory has no order of its own.
    paths.sort();
    let mut seeds = Vec::new();
    for path in paths {
        let how = match (target, path.extension().and_then(|name| name.to_str())) {
            (Target::Bundle, Some("ndjson")) | (Target::Json, Some("json")) => "",
            (Target::Note, Some("key")) => "0",
            (Target::Note, Some("json")) => "4",
            _ => continue,
        };
        let file = std::fs::read(&path).with_context(|| path.display().to_string())?;
        seeds.push([how.as_bytes(), file.trim_ascii_end()].concat());
    }
    Ok(seeds)
}
