//! `explain=true`: what a read cost, and what it did not have to read.

use quipu_core::http::{ApiError, Params};
use quipu_core::ledger::ReadStats;
use serde_json::json;

/// Whether the caller asks for it.
pub(crate) fn wanted(params: &mut Params) -> Result<bool, ApiError> {
    match params.text("explain")?.as_deref() {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(ApiError::parameter("explain", "must be true or false")),
    }
}

/// Adds the member `explain` to an object that is written but for its end.
pub(crate) fn push(out: &mut String, stats: &ReadStats) {
    let cold = &stats.cold;
    let explain = json!({
        "hot": {
            "segments_read": stats.segments_read,
            "segments_skipped": stats.segments_skipped,
            "bytes_read": stats.bytes_read,
            "events_scanned": stats.events_scanned,
        },
        "archive": {
            "batches_read": stats.batches_read,
            "batches_skipped": stats.batches_skipped,
            "requests": cold.requests,
            "bytes_read": cold.bytes_read,
            "bytes_skipped": stats.archive_bytes_skipped(),
            "row_groups_skipped": cold.row_groups_skipped,
            "pages_skipped": cold.pages_skipped,
            "rows_scanned": cold.rows_scanned,
            "rows_returned": cold.rows_returned,
        },
    });
    out.push_str(&format!(r#","explain":{explain}"#));
}
