//! Segments and their attributes, as storage gives them back.

use quipu_core::chain::{Hasher, check_syntax};
use quipu_core::codec::{Cursor, put_varint};
use quipu_core::ids::{SessionId, TenantId};
use quipu_core::segment::{SegmentMeta, SegmentReader};
use quipu_core::summary::Summary;

use super::meaning;

/// A body (0), attributes (1), or a body whose zstd frame is undone (2): a fuzzer does not get through zstd.
///
/// The third is the length of what stands before the columns, as two bytes of which the low one comes first; that
/// many bytes; and the columns, whose length and frame are put in.
pub fn segment(data: &[u8]) -> bool {
    match meaning(data, 3) {
        Some((0, data)) => body(data),
        Some((1, data)) => attributes(data),
        Some((_, data)) => unpacked(data).is_some_and(|data| body(&data)),
        None => false,
    }
}

fn attributes(data: &[u8]) -> bool {
    let Ok(meta) = SegmentMeta::decode(data) else { return false };
    // One spelling: who compares records compares bytes.
    assert_eq!(meta.encode(), data);
    true
}

fn body(data: &[u8]) -> bool {
    let mut reader = SegmentReader::new().expect("zstd works");
    let Ok(view) = reader.open(data) else { return false };
    let session = SessionId::parse("fuzz").expect("a session id");
    let mut hasher = Hasher::new(&TenantId::default_tenant(), &session);
    let mut summary: Option<Summary> = None;
    let mut count = 0;
    let mut failed = false;
    for event in view.events() {
        assert!(!failed, "an event after an error");
        let Ok(event) = event else {
            failed = true;
            continue;
        };
        count += 1;
        // What a verifier does with whatever it reads.
        let _ = check_syntax(&event);
        hasher.hash(&event);
        match &mut summary {
            Some(summary) => summary.push(&event),
            None => summary = Some(Summary::of(&event)),
        }
    }
    assert!(failed || count == view.count(), "{count} events of {}", view.count());
    if let Some(summary) = summary {
        let mut record = Vec::new();
        summary.encode(&mut record);
        assert_eq!(Summary::decode(&mut Cursor(&record)), Ok(summary));
    }
    !failed
}

/// Puts columns back into a body.
fn unpacked(data: &[u8]) -> Option<Vec<u8>> {
    let (length, rest) = data.split_first_chunk()?;
    let (before, columns) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    let mut body = before.to_vec();
    put_varint(&mut body, columns.len() as u64);
    push_frame(&mut body, columns);
    Some(body)
}

/// Appends a zstd frame of raw blocks (RFC 8878, section 3.1.1): a single segment, its size in four bytes.
fn push_frame(out: &mut Vec<u8>, content: &[u8]) {
    const BLOCK_BYTES_MAX: usize = 128 * 1024;
    out.extend_from_slice(&[0x28, 0xb5, 0x2f, 0xfd, 0xa0]);
    out.extend_from_slice(&(content.len() as u32).to_le_bytes());
    let mut rest = content;
    loop {
        let (block, after) = rest.split_at(rest.len().min(BLOCK_BYTES_MAX));
        let header = (block.len() as u32) << 3 | u32::from(after.is_empty());
        out.extend_from_slice(&header.to_le_bytes()[..3]);
        out.extend_from_slice(block);
        rest = after;
        if rest.is_empty() {
            return;
        }
    }
}
