//! What is left of a content, where, and until when.

use crate::limits;
use crate::store::ErasureRecord;
use crate::time::Micros;

/// A place that may still hold a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// Where: a word that does not change.
    pub place: &'static str,
    /// Until when at most, if that is known.
    pub until: Option<Micros>,
    /// What will take it away, for people.
    pub note: &'static str,
}

/// What is left of an erasure at a time. `table_backups`: the store is a table with point-in-time backups.
pub fn left(record: &ErasureRecord, now: Micros, table_backups: bool) -> Vec<Left> {
    let progress = &record.progress;
    let mut left = Vec::new();
    if progress.hot_at.is_none() {
        let note = "asking again, or the archiver's next run, goes on with it";
        left.push(Left { place: "hot", until: None, note });
    }
    if progress.object_at.is_none() {
        let note = match progress.batch {
            Some(_) => "the archiver's next run writes the object of its batch anew",
            None => {
                "looked at once the event and its tombstone are archived: a batch may have been under way"
            }
        };
        left.push(Left { place: "archive", until: None, note });
    } else if let Some(until) = progress.kept_until.filter(|_| !record.is_done()) {
        let note = "a lock keeps older versions of the object; the first run after that deletes them";
        left.push(Left { place: "archive_versions", until: Some(until), note });
    } else if !record.is_done() {
        let note = "the archiver's next run looks at the hot tier once more";
        left.push(Left { place: "hot", until: None, note });
    }
    if table_backups {
        // Counted from when it was gone for good, or from now.
        let until = progress.done_at.or(progress.hot_at).unwrap_or(now).plus_ms(limits::TABLE_BACKUP_MS);
        if until > now {
            let note = "point-in-time backups of the table, if they are on";
            left.push(Left { place: "table_backups", until: Some(until), note });
        }
    }
    left
}
