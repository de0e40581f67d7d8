//! The rows that follow from segments: in the feed, the time index and among the open ones. What they count is in
//! [`crate::store::derived`].

use super::records;
use super::time_index;
use crate::ids::{SessionId, TenantId};
use crate::segment::SegmentMeta;
use crate::store::keys;

pub(super) use crate::store::derived::{agent_after, agent_archived, agents, named, session_after};

/// A row to be: key and value.
pub(super) type Row = (Vec<u8>, Vec<u8>);

/// A segment's row in the feed.
pub(super) fn feed_row(tenant: &TenantId, session: &SessionId, meta: &SegmentMeta) -> Row {
    (keys::feed(tenant, meta.commit_id, session), records::encode_feed(meta.first))
}

/// A segment's row among those that are not archived. `bytes`: of its events before compression.
pub(super) fn open_row(tenant: &TenantId, session: &SessionId, meta: &SegmentMeta, bytes: u64) -> Row {
    (keys::open(tenant, meta.commit_id, session), records::encode_open(bytes, meta.first))
}

/// A segment's row in the time index.
pub(super) fn time_row(tenant: &TenantId, session: &SessionId, meta: &SegmentMeta) -> Row {
    let (min, max) = (meta.summary.time_min, meta.summary.time_max);
    let key = keys::time_index(tenant, time_index::class(min, max), max, meta.commit_id, session);
    (key, records::encode_time(min, meta.first))
}
