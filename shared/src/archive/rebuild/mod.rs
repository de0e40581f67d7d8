//! Rebuild: a store's tenants, catalogue, pointers and session list, made again from the archive alone (DESIGN section
//! 5: the archive is the truth wherever it and the store differ).
//!
//! The archive is checked whole before anything of it is believed ([`Survey`]). Then what the store still has is held
//! against it, and nothing is written if they are of two histories: that is for somebody to look at. Then what is
//! missing is written:
//!
//! | step | what | condition |
//! |---|---|---|
//! | 1 | tenants, and the catalogue's batches | absent |
//! | 2 | pointers, and with them the list of sessions | a higher sequence |
//! | 3 | marks of the segments that are still hot | this commit |
//! | 4 | each batch is recorded | |
//!
//! Every write is conditional and a no-op the second time, so a rebuild that was cut off anywhere is begun again. The
//! ledger is closed meanwhile ([`crate::store::Store::set_closed`]): a session that is begun anew while its pointer is
//! missing would have two lines of history. Segments above a pointer stay, and are archived once the ledger is open.
//!
//! A store of an earlier time may hold the beginning of a session and lack what was archived since. Where a store
//! expires in order ([`RebuildOptions::without_gaps`]), what is hot of a session has no gap, and its verifier says so:
//! such a beginning is let go, for the archive has it.
//!
//! Not made again, for the archive does not hold it: tokens, idempotency keys, and events that were never archived.

mod compare;
mod write;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use crate::ids::{Seq, SessionId, TenantId};
use crate::objects::ObjectStore;
use crate::store::{Store, StoreError};
use crate::time::Micros;
use crate::verify::Survey;

/// Why a store was not made again, or not to the end.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The store. What was written stays; a repeated rebuild goes on from there.
    #[error("the store: {0}")]
    Store(#[from] StoreError),
    /// What was read of the archive could not be read again.
    #[error("a temporary file: {0}")]
    Spool(#[from] io::Error),
    /// The archive could not be read again.
    #[error("the archive: {0}")]
    Log(#[from] crate::log::LogError),
    /// The store has another history than the archive. Nothing was written.
    #[error("{}: {why}", place(tenant, *batch, session.as_ref(), *sequence))]
    Differs {
        /// Whose.
        tenant: TenantId,
        /// The batch, if it is about one.
        batch: Option<u64>,
        /// The session, if it is about one.
        session: Option<SessionId>,
        /// The place in the session, if it is known.
        sequence: Option<Seq>,
        /// What differs.
        why: String,
    },
}

fn place(
    tenant: &TenantId,
    batch: Option<u64>,
    session: Option<&SessionId>,
    sequence: Option<Seq>,
) -> String {
    let mut place = format!("tenant {tenant}");
    if let Some(batch) = batch {
        place.push_str(&format!(", batch {batch}"));
    }
    if let Some(session) = session {
        place.push_str(&format!(", session {:?}", session.as_str()));
    }
    if let Some(sequence) = sequence {
        place.push_str(&format!(", sequence {sequence}"));
    }
    place
}

/// What a store has now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rebuilt {
    /// Tenants with a log.
    pub tenants: u64,
    /// Batches in the catalogue.
    pub batches: u64,
    /// Sessions with a pointer.
    pub sessions: u64,
    /// Segments of them that are still hot.
    pub hot_segments: u64,
    /// Segments of them that were, with a gap behind them.
    pub let_go: u64,
}

/// How a store is made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RebuildOptions {
    /// How long what is archived stays hot after its batch was claimed, ms; for ever, if `None`.
    pub hot_retention_ms: Option<i64>,
    /// What of a session is archived and hot must reach to its pointer without a gap.
    pub without_gaps: bool,
    /// What time it is.
    pub now: Micros,
}

/// Sessions of which something archived is still hot, and from where on it reaches to the pointer without a gap, if it
/// does.
type Hot = HashMap<(TenantId, SessionId), Option<Seq>>;

/// Expired segments that are deleted at once.
const EXPIRED_AT_ONCE: usize = 256;

/// Makes what an archive says of a store again. The ledger must be closed, and the survey made since.
///
/// # Errors
/// See [`RebuildError`].
pub async fn rebuild(
    store: &dyn Store,
    objects: &Arc<dyn ObjectStore>,
    survey: &Survey,
    options: RebuildOptions,
) -> Result<Rebuilt, RebuildError> {
    let hot = compare::sessions(store, survey).await?;
    compare::batches(store, objects, survey, &hot).await?;
    write::batches(store, survey).await?;
    let mut rebuilt = write::pointers(store, survey).await?;
    write::records(store, survey, &hot, options, &mut rebuilt).await?;
    while options.without_gaps && store.expire(options.now, EXPIRED_AT_ONCE).await? >= EXPIRED_AT_ONCE {}
    rebuilt.tenants = survey.report.tenants;
    Ok(rebuilt)
}
