//! What of a tenant is not archived, as far as the store's hints say.

use std::collections::HashMap;

use super::{ArchiveSettings, Archiver, RunError};
use crate::ids::{CommitId, SessionId, TenantId};
use crate::limits;
use crate::time::Micros;

/// Open segments that are asked for at once.
const PAGE: usize = 1000;

/// The oldest open segments, enough for a batch.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// Their sessions, each once, in the order of their oldest open segments.
    pub(super) sessions: Vec<SessionId>,
    /// Bytes of each segment before compression.
    pub(super) bytes: HashMap<(SessionId, CommitId), u64>,
    /// Commit time of the oldest.
    pub(super) oldest: Option<Micros>,
    /// Bytes of all that are not of a broken session.
    sound_bytes: u64,
    /// Commit time of the oldest that is not of a broken session.
    oldest_sound: Option<Micros>,
}

impl Backlog {
    /// True if a batch should be closed now. What cannot be archived makes none due.
    pub(super) fn due(&self, settings: &ArchiveSettings, now: Micros) -> bool {
        self.sound_bytes >= settings.max_bytes
            || self.oldest_sound.is_some_and(|oldest| oldest.plus_ms(settings.max_age_ms) <= now)
    }
}

impl Archiver {
    /// Reads the open segments, oldest first, until there are enough for a batch.
    pub(super) async fn backlog(&self, tenant: &TenantId) -> Result<Backlog, RunError> {
        let mut backlog = Backlog::default();
        let mut known: HashMap<SessionId, bool> = HashMap::new();
        let mut after = None;
        loop {
            let page = self.store().open_segments(tenant, after.as_ref(), PAGE).await?;
            let last = page.len() < PAGE;
            for entry in page {
                let position = entry.position;
                let committed = Micros::from_unix_ms(position.commit_id.unix_ms() as i64);
                let session = &position.session_id;
                let broken = *known.entry(session.clone()).or_insert_with(|| {
                    backlog.sessions.push(session.clone());
                    self.known_broken().contains(&(tenant.clone(), session.clone()))
                });
                backlog.oldest.get_or_insert(committed);
                if !broken {
                    backlog.oldest_sound.get_or_insert(committed);
                    backlog.sound_bytes = backlog.sound_bytes.saturating_add(entry.bytes);
                }
                backlog.bytes.insert((session.clone(), position.commit_id), entry.bytes);
                after = Some(position);
            }
            let enough = backlog.sound_bytes >= self.settings.max_bytes
                || backlog.bytes.len() >= limits::ARCHIVE_SEGMENTS_MAX;
            // Broken sessions must not fill the window for good: with nothing sound in it, look further.
            if last || (enough && backlog.oldest_sound.is_some()) {
                return Ok(backlog);
            }
        }
    }
}
