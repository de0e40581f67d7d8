//! Which sessions were active in a range of time.

use std::collections::BTreeSet;

use super::{Ledger, ReadError};
use crate::ids::{SessionId, TenantId};
use crate::store::Order;
use crate::time::Micros;

/// Segments asked for at a time.
const PAGE: usize = 1000;

impl Ledger {
    /// Sessions with a segment whose timestamps reach into the range (both ends in it), by id. A segment that spans
    /// the range without an event inside it counts too: for verification, one session more is no harm.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn sessions_between(
        &self,
        tenant: &TenantId,
        from: Micros,
        to: Micros,
    ) -> Result<Vec<SessionId>, ReadError> {
        let mut sessions = BTreeSet::new();
        let mut next = None;
        loop {
            let page = self.store.by_time(tenant, Order::Desc, Some(to), next.as_deref(), PAGE).await?;
            for entry in page.entries {
                if entry.meta.summary.time_max >= from {
                    sessions.insert(entry.session_id);
                }
            }
            next = page.next;
            if next.is_none() || page.bound.is_none_or(|bound| bound < from) {
                return Ok(sessions.into_iter().collect());
            }
        }
    }
}
