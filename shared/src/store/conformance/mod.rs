//! The suite that every [`Store`] must pass: plain functions, each of which checks the guarantees that its
//! documentation names and panics where one is broken. A backend's test is a list of calls.
//!
//! Every function makes tenants and sessions of its own with random names, so all may share one store, at once too
//! (but for the one that needs a store in which nobody was first). What a backend cannot do, or how far it lags, is
//! an argument and so stands in its list. Writers follow the ledger's protocol for unknown outcomes, so the
//! functions with writers pass over a [`super::faulty::Faulty`] store as well, and show that the protocol is enough.

mod append;
mod archived;
mod concurrency;
mod erasures;
mod feed;
mod idempotency;
mod isolation;
mod samples;
mod sessions;
mod time;
mod tokens;
mod witness;

pub use append::*;
pub use archived::*;
pub use concurrency::*;
pub use erasures::*;
pub use feed::*;
pub use idempotency::*;
pub use isolation::*;
pub use samples::*;
pub use sessions::*;
pub use time::*;
pub use tokens::*;
pub use witness::Witness;

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::chain::ChainCheck;
use crate::ids::{Seq, SessionId, TenantId};
use crate::segment::{SegmentMeta, SegmentReader};
use crate::store::{Conflict, Order, Store, StoreError};

/// How much of "the segment follows its session's head" a store itself checks. Whatever it leaves out, its writers
/// must never do: each of them starts at some committed end + 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HeadCheck {
    /// Nothing stands at the first sequence. The least that makes one line of cooperating writers.
    Slot,
    /// Also: the segment before it ends right below.
    Sequence,
    /// Also: that segment ends in the hash on which this one is chained.
    Hash,
}

/// Between two looks at something that may lag.
const POLL: Duration = Duration::from_millis(10);

/// How long one commit or read may try. Whoever loses for longer shows a store that makes no progress.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the suite expects to go well, did; or the test ends here.
#[track_caller]
pub(super) fn ok<T>(result: Result<T, StoreError>, what: &str) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{what}: {error}"),
    }
}

/// The commit was refused because of the head of one of these sessions.
#[track_caller]
pub(super) fn refused_for(result: Result<(), StoreError>, sessions: &[&SessionId], what: &str) {
    match result {
        Err(StoreError::Conflict(Conflict::Session(named))) => {
            assert!(
                sessions.contains(&&named),
                "{what}: the conflict names {named}, expected one of {sessions:?}"
            );
        }
        other => panic!("{what}: expected a conflict of {sessions:?}, got {other:?}"),
    }
}

/// Looks again and again until `look` is satisfied, for at most `lag`. With no lag, once.
pub(super) async fn eventually<T, F>(lag: Duration, what: &str, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, String>>,
{
    let deadline = Instant::now() + lag;
    loop {
        match look().await {
            Ok(value) => return value,
            Err(why) if Instant::now() >= deadline => panic!("{what}: after {lag:?} still: {why}"),
            Err(_) => sleep(POLL).await,
        }
    }
}

/// A read that a throttle or a fault may disturb is asked again, for at most [`PATIENCE`].
pub(super) async fn insist<T, F>(mut call: impl FnMut() -> F, what: &str) -> T
where
    F: Future<Output = Result<T, StoreError>>,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        match call().await {
            Err(StoreError::Throttled { .. } | StoreError::Unavailable { .. })
                if Instant::now() < deadline =>
            {
                sleep(Duration::from_millis(1)).await;
            }
            result => return ok(result, what),
        }
    }
}

/// `Ok` if two things are alike, or what differs.
pub(super) fn same<T: PartialEq + std::fmt::Debug>(
    what: &str,
    actual: &T,
    expected: &T,
) -> Result<(), String> {
    if actual == expected { Ok(()) } else { Err(format!("{what} is {actual:#?}, expected {expected:#?}")) }
}

/// Reads a whole session, ascending, `page` segments at a time, and checks it from the first event to the last:
/// segments without gap or overlap, each chained on the one before; attributes that agree with the bodies; every
/// hash; the head; `commit_at`. Returns its segments.
///
/// # Panics
/// If anything is wrong, or the store does not answer.
pub async fn check_line(
    store: &dyn Store,
    tenant: &TenantId,
    session: &SessionId,
    page: usize,
) -> Vec<SegmentMeta> {
    let mut line: Vec<SegmentMeta> = Vec::new();
    let mut check = ChainCheck::new(tenant, session);
    let mut reader = SegmentReader::new().expect("zstd makes a context");
    loop {
        let from = Seq::new(check.count()).expect("sequences end at 2^63");
        let metas = insist(|| store.segments(tenant, session, from, Order::Asc, page), "segments").await;
        assert!(metas.len() <= page, "{session}: {} segments in a page of {page}", metas.len());
        let last_page = metas.len() < page;
        for meta in metas {
            assert_eq!(meta.first.get(), check.count(), "{session}: a gap or an overlap before {meta:?}");
            assert_eq!(meta.prev_hash, check.head(), "{session}: {meta:?} is chained on something else");
            let at = insist(|| store.commit_at(tenant, session, meta.first), "commit_at").await;
            assert_eq!(at, Some(meta.commit_id), "{session}: commit at {}", meta.first);
            let body = insist(|| store.body(tenant, session, meta.first), "body").await;
            assert_eq!(body.len() as u64, meta.body_bytes, "{session}: bytes of the body at {}", meta.first);
            let view = reader.open(&body).expect("the body opens");
            assert_eq!(view.commit_id(), meta.commit_id, "{session}: commit in the body at {}", meta.first);
            for event in view.events() {
                check.push(&event.expect("the event decodes")).expect("the event follows the one before");
            }
            assert_eq!(check.count(), meta.last.get() + 1, "{session}: events of the body at {}", meta.first);
            assert_eq!(check.head(), meta.last_hash, "{session}: last hash of the body at {}", meta.first);
            line.push(meta);
        }
        if last_page {
            break;
        }
    }
    let head = insist(|| store.head(tenant, session), "head").await;
    assert_eq!(head, line.last().map(SegmentMeta::head), "{session}: the head is not the end of its line");
    line
}
