//! Headers of batches, there and back.

use super::super::bloom::Bloom;
use super::super::header::{BatchHeader, Blooms, HeaderError, Run, hash_of};
use crate::ids::{CommitId, EventHash, Seq, SessionId, TenantId};
use crate::limits;
use crate::time::Micros;

fn header() -> BatchHeader {
    let run = |name: &str, first, last| Run {
        session_id: SessionId::parse(name).unwrap(),
        first: Seq::new(first).unwrap(),
        last: Seq::new(last).unwrap(),
        hash: EventHash([5; 32]),
    };
    let time = |micros| Micros::new(micros).unwrap();
    BatchHeader {
        deployment: "d".into(),
        tenant: TenantId::parse("acme").unwrap(),
        batch: 2,
        prev: [1; 32],
        first_leaf: 100,
        count: 13,
        tree_size: 113,
        root: [2; 32],
        claimed_at: time(1_770_544_800_000_000),
        commits: (CommitId::mint(1, [0; 10]), CommitId::mint(2, [0xff; 10])),
        times: (time(-1), time(1)),
        key: "events/tenant=acme/dt=1970-01-01/batch-00000000000000000002.parquet".into(),
        bytes: 4096,
        sha256: [3; 32],
        staging: "a \"quoted\" — name".into(),
        runs: vec![run("one", 5, 9), run("two — \u{1f9a2}", 0, 7)],
        blooms: Blooms {
            sessions: Bloom::of(["one", "two"].into_iter()),
            agents: Bloom::of(["agent"].into_iter()),
            types: Bloom::of([].into_iter()),
        },
    }
}

#[test]
fn a_header_reads_back() {
    let header = header();
    let bytes = header.to_bytes();
    assert_eq!(BatchHeader::parse(&bytes), Ok(header.clone()));
    let text = String::from_utf8(bytes.clone()).unwrap();
    assert!(text.starts_with(
        r#"{"format":"quipu.batch.v1","deployment":"d","tenant":"acme","batch":2,"prev":"0101"#
    ));
    assert!(text.contains(r#""claimed_at":"2026-02-08T10:00:00.000000Z""#), "{text}");
    assert!(text.contains(r#""runs":[{"session_id":"one","first":5,"last":9,"hash":"0505"#), "{text}");
    let spaced = text.replace(",\"", " ,\n \"");
    assert_eq!(BatchHeader::parse(spaced.as_bytes()), Ok(header.clone()));
    let record = header.record(hash_of(&bytes));
    assert_eq!((record.batch, record.tree_size(), record.recorded), (2, 113, false));
    assert_eq!(record.blooms[0], header.blooms.sessions.as_bytes());
}

#[test]
fn a_run_leads_to_its_leaves() {
    let header = header();
    let leaf =
        |name: &str, sequence| header.leaf_of(&SessionId::parse(name).unwrap(), Seq::new(sequence).unwrap());
    assert_eq!((leaf("one", 5), leaf("one", 9)), (Some(100), Some(104)));
    assert_eq!((leaf("one", 4), leaf("one", 10)), (None, None));
    assert_eq!((leaf("two — \u{1f9a2}", 0), leaf("two — \u{1f9a2}", 7)), (Some(105), Some(112)));
    assert_eq!(leaf("three", 0), None);
}

#[test]
fn a_header_that_is_none_is_refused() {
    let good = String::from_utf8(header().to_bytes()).unwrap();
    for (from, to) in [
        ("quipu.batch.v1", "quipu.batch.v2"),
        ("\"deployment\":\"d\"", "\"deployment\":\"D\""),
        ("\"tenant\":\"acme\"", "\"tenant\":\"Acme\""),
        ("\"batch\":2", "\"batch\":2.0"),
        ("\"batch\":2", "\"batch\":0"),
        ("\"batch\":2", "\"batch\":9223372036854775808"),
        ("\"batch\":2", "\"batch\":2,\"batch\":2"),
        ("\"batch\":2,", ""),
        ("\"batch\":2", "\"batch\":2,\"more\":null"),
        ("\"prev\":\"01", "\"prev\":\"0A"),
        ("\"prev\":\"01", "\"prev\":\""),
        ("\"first_leaf\":100", "\"first_leaf\":101"),
        ("\"count\":13", "\"count\":14"),
        ("\"tree_size\":113", "\"tree_size\":112"),
        ("10:00:00.000000Z", "10:00:00Z"),
        ("10:00:00.000000Z", "10:00:00.000000+00:00"),
        ("\"schema\":1", "\"schema\":2"),
        ("\"staging\":\"a", "\"staging\":\"\\u0000a"),
        ("\"bytes\":4096", "\"bytes\":-1"),
        ("\"first\":5", "\"first\":6"),
        ("\"first\":5", "\"first\":10"),
        ("\"session_id\":\"one\"", "\"session_id\":\"\""),
        ("\"session_id\":\"one\",", ""),
        ("\"session_id\":\"one\"", "\"session_id\":\"one\",\"x\":1"),
        ("\"session_id\":\"one\"", "\"session_id\":\"two — \u{1f9a2}\""),
        ("\"types\":\"", "\"types\":\"=\","),
        ("\"types\":\"AAAAAAAAAAA=\"", "\"types\":\"AAAAAAAAAA==\""),
        ("\"types\":\"AAAAAAAAAAA=\"", "\"types\":\"AAAAAAAAAAB=\""),
        (",\"types\":\"AAAAAAAAAAA=\"", ""),
        ("\"commit_first\":\"0", "\"commit_first\":\"1-"),
        ("-7000-8000-000000000000", "-7000-8000-000000000001"),
        ("-7000-8000-000000000000", "-4000-8000-000000000000"),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good, "{from}");
        assert!(BatchHeader::parse(bad.as_bytes()).is_err(), "{to}");
    }
    // A member under another spelling of its name is that member, and so one too many.
    let twice = good.replacen("\"batch\":2", "\"batch\":2,\"b\\u0061tch\":2", 1);
    assert!(matches!(BatchHeader::parse(twice.as_bytes()), Err(HeaderError::Json(_))));
    assert!(BatchHeader::parse(format!("{good} x").as_bytes()).is_err());
    assert_eq!(BatchHeader::parse(&[0xff]), Err(HeaderError::NotText));
    assert_eq!(BatchHeader::parse(b"{}"), Err(HeaderError::Missing("format")));
    let none = BatchHeader { runs: Vec::new(), ..header() };
    assert!(matches!(BatchHeader::parse(&none.to_bytes()), Err(HeaderError::Contradiction(_))));
    let high = limits::TREE_SIZE_MAX;
    let past = BatchHeader { first_leaf: high - 12, tree_size: high + 1, ..header() };
    assert!(BatchHeader::parse(&past.to_bytes()).is_err());
}
