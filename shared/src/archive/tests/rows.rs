//! What is written comes back.

use std::ops::ControlFlow;

use parquet::file::reader::{FileReader as _, SerializedFileReader};

use super::{BatchReader, BatchWriter, read, samples, tenant, write};
use crate::archive::{ArchiveError, Derived, message_type};
use crate::chain::ChainError;
use crate::event::OwnedContent;

#[test]
fn every_value_comes_back() {
    let samples = samples(7, 400);
    let reader = BatchReader::open(write(&samples)).unwrap();
    assert_eq!(reader.row_count(), 2800);
    assert_eq!(reader.tenant(), Some("acme"));
    assert!(reader.is_ours());
    let mut left = samples.iter();
    let mut before = None;
    let broke = reader.rows::<()>(|row| {
        let sample = left.next().unwrap();
        let expected = sample.event.as_ref();
        assert_eq!(row.session_id, sample.event.session_id.as_str());
        assert_eq!(row.commit_id, sample.commit.to_string());
        assert_eq!(row.event(before.filter(|_| !sample.first_of_run)), Ok(expected));
        assert_eq!(row.derived, Derived::of(expected.event_type, &expected.content));
        before = Some(expected.hash);
        ControlFlow::Continue(())
    });
    assert_eq!(broke, Ok(None));
    assert_eq!(left.count(), 0);

    let mut hashes = Vec::new();
    reader.hashes(|hash| hashes.push(*hash)).unwrap();
    assert_eq!(hashes, samples.iter().map(|s| s.event.hash.0).collect::<Vec<_>>());
}

#[test]
fn equal_rows_give_equal_bytes_and_name_no_library() {
    let samples = samples(3, 50);
    let file = write(&samples);
    assert_eq!(file, write(&samples));
    let metadata = SerializedFileReader::new(file).unwrap();
    let metadata = metadata.metadata().file_metadata();
    assert_eq!(metadata.created_by(), Some("quipu version 1"));
    let words = metadata.key_value_metadata().unwrap();
    let words: Vec<_> = words.iter().map(|w| (w.key.as_str(), w.value.as_deref())).collect();
    assert_eq!(words, [("quipu.format", Some("quipu.events.v1")), ("quipu.tenant", Some("acme"))]);
}

#[test]
fn the_schema_is_the_golden_one() {
    let golden = include_str!("../../../../docs/vectors/batch.schema");
    assert_eq!(message_type().unwrap(), golden, "a change of the schema is a change of the format");
}

#[test]
fn no_rows_make_a_file_of_no_rows() {
    let file = BatchWriter::new(&tenant()).finish().unwrap();
    assert_eq!(BatchReader::open(file.clone()).unwrap().row_count(), 0);
    assert_eq!(read(file), Ok(Vec::new()));
}

#[test]
fn large_payloads_fill_several_row_groups_and_come_back() {
    let mut samples = samples(1, 45);
    for (number, sample) in samples.iter_mut().enumerate() {
        let text = format!("{number:04}{}", "0".repeat((1 << 20) - 6));
        let (payload, metadata) = (format!("\"{text}\""), "{}".to_owned());
        sample.event.content = OwnedContent::Kept { salt: [1; 16], payload, metadata };
    }
    let file = write(&samples);
    assert!(file.len() < 1 << 20, "{} bytes", file.len());
    let groups = SerializedFileReader::new(file.clone()).unwrap().metadata().num_row_groups();
    assert_eq!(groups, 2);
    let mut left = samples.iter();
    let read = BatchReader::open(file).unwrap().rows::<()>(|row| {
        let OwnedContent::Kept { payload, .. } = &left.next().unwrap().event.content else { panic!() };
        assert!(row.payload == Some(payload));
        ControlFlow::Continue(())
    });
    assert_eq!((read, left.count()), (Ok(None), 0));
}

#[test]
fn a_walk_ends_where_it_is_told_to() {
    let reader = BatchReader::open(write(&samples(1, 10))).unwrap();
    let mut seen = 0;
    let broke = reader.rows(|row| {
        seen += 1;
        if row.sequence == 3 { ControlFlow::Break("here") } else { ControlFlow::Continue(()) }
    });
    assert_eq!((broke, seen), (Ok(Some("here")), 4));
}

/// Each row of a file is a row of the format, or its first wrong field is named.
#[test]
fn a_row_names_the_field_that_is_wrong() {
    fn field(change: impl Fn(&mut crate::archive::Row<'_>)) -> &'static str {
        let reader = BatchReader::open(write(&samples(1, 1))).unwrap();
        let named = reader.rows(|row| {
            let mut row = row.clone();
            change(&mut row);
            ControlFlow::Break(match row.event(None) {
                Err(ChainError::Syntax { field, .. }) => field,
                _ => "",
            })
        });
        named.unwrap().unwrap()
    }
    assert_eq!(field(|_| ()), "");
    assert_eq!(field(|r| r.sequence = -1), "sequence");
    assert_eq!(field(|r| r.event_id = "0198B9A0-0000-7000-8000-000000000001"), "event_id");
    assert_eq!(field(|r| r.event_id = "evt_0198b9a0-0000-7000-8000-000000000001"), "event_id");
    assert_eq!(field(|r| r.commit_id = "0198b9a0-0000-7000-8000-000000000000"), "commit_id");
    assert_eq!(field(|r| r.timestamp_us += 1), "timestamp");
    assert_eq!(field(|r| r.received_at += 1), "received_at");
    assert_eq!(field(|r| (r.timestamp, r.timestamp_us) = (i64::MAX, i64::MAX)), "timestamp");
    assert_eq!(field(|r| r.severity = "loud"), "severity");
    assert_eq!(field(|r| r.redaction_count = -1), "redaction_count");
    assert_eq!(field(|r| r.redaction_policy = Some(&[1; 31])), "redaction_policy");
    assert_eq!(field(|r| r.payload = None), "payload");
    assert_eq!(field(|r| r.metadata = None), "metadata");
    assert_eq!(field(|r| r.salt = None), "salt");
    assert_eq!(field(|r| r.salt = Some(&[1; 15])), "salt");
    assert_eq!(field(|r| r.content_digest = Some(&[1; 32])), "content_digest");
    assert_eq!(field(|r| r.prev_hash = None), "prev_hash");
    assert_eq!(field(|r| r.prev_hash = Some(&[1; 33])), "prev_hash");
    assert_eq!(field(|r| r.hash = &[]), "hash");
}

#[test]
fn only_the_first_row_of_a_run_has_prev_hash() {
    let reader = BatchReader::open(write(&samples(1, 2))).unwrap();
    let mut wrong = Vec::new();
    reader
        .rows::<()>(|row| {
            let before = (row.sequence == 0).then_some(crate::ids::EventHash::ZERO);
            wrong.push(row.event(before).map(drop).unwrap_err().to_string());
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(
        wrong,
        [
            "prev_hash stands in a row that is not a run's first",
            "prev_hash is null in the first row of a run"
        ]
    );
}

#[test]
fn errors_say_what_is_wrong() {
    assert!(matches!(read(bytes::Bytes::new()), Err(ArchiveError::Parquet(_))));
}
