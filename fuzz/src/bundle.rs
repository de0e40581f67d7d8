//! Evidence bundles.

use quipu_core::bundle::{
    Header, Record, parse, push_checkpoint, push_end, push_event, push_head, push_header, push_proof,
    push_rotation, push_session,
};
use quipu_core::note::VerifierKey;
use quipu_core::verify::{Options, Verdict, verify_bundle};

use super::note::{deployment, log};

/// A bundle. Each line that is a record is written and read again as the same; the check of the whole ends in a
/// verdict, which is never VALID for who has no key.
pub fn bundle(data: &[u8]) -> bool {
    for line in data.split(|byte| *byte == b'\n') {
        if let Ok(line) = std::str::from_utf8(line)
            && let Ok(record) = parse(line)
        {
            check_record(&record);
        }
    }
    let without = verify_bundle(data, &Options::default(), &|_| ());
    assert_ne!(without.verdict, Verdict::Valid, "VALID without a key");
    let options = Options { pinned_key: Some(log().verifier().clone()), ..Options::default() };
    let report = verify_bundle(data, &options, &|_| ());
    if report.verdict != Verdict::Valid {
        return false;
    }
    let text = std::str::from_utf8(data).expect("a VALID bundle is UTF-8");
    let lines: Vec<_> = text.strip_suffix('\n').unwrap_or(text).split('\n').map(parse).collect();
    assert!(lines.iter().all(Result::is_ok), "a line of a VALID bundle is no record");
    let of_ours = matches!(&lines[0], Ok(Record::Bundle(first)) if first.deployment == deployment());
    assert!(of_ours, "VALID under a key that certified nothing for it");
    true
}

fn check_record(record: &Record<'_>) {
    let mut line = String::new();
    match record {
        Record::Bundle(first) => {
            let Ok(log_key) = VerifierKey::parse(&first.log_key) else { return };
            let certificates: Vec<_> = first.certificates.iter().map(|note| note.to_string()).collect();
            push_header(
                &mut line,
                &Header {
                    deployment: &first.deployment,
                    tenant: &first.tenant,
                    created_at: first.created_at,
                    log_key: &log_key,
                    certificates: &certificates,
                },
            );
        }
        Record::Session(session) => push_session(&mut line, session),
        Record::Event(event) => push_event(&mut line, &event.event()),
        Record::Proof(proof) => push_proof(&mut line, proof),
        Record::Head(note) => push_head(&mut line, note),
        Record::Rotation(note) => push_rotation(&mut line, note),
        Record::Checkpoint(note) => push_checkpoint(&mut line, note),
        Record::End { sessions, events } => push_end(&mut line, *sessions, *events),
    }
    assert_eq!(line.pop(), Some('\n'));
    assert_eq!(parse(&line).as_ref(), Ok(record), "{line}");
}
