//! Many writers at once (P1, P2, P3). They follow the ledger's protocol, so that unknown outcomes are allowed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::{Batch, Dice, PATIENCE, check_line, fresh_session, fresh_tenant, insist, session};
use crate::ids::{CommitId, SessionId, TenantId};
use crate::segment::SegmentMeta;
use crate::store::{Commit, Conflict, Store, StoreError};

/// How one batch ended for sure.
enum Outcome {
    Written,
    LostRace,
}

/// Commits one batch until it is known how that ended. After an unknown outcome it reads what stands at the batch's
/// place: the batch itself (written), another's (lost), or nothing, and then sends the same batch again.
async fn commit_surely(store: &dyn Store, commit: &Arc<Commit>) -> Outcome {
    let deadline = Instant::now() + PATIENCE;
    let place = &commit.segments[0].session_id;
    let mut was_unknown = false;
    while Instant::now() < deadline {
        match store.commit(commit.clone()).await {
            Ok(()) => return Outcome::Written,
            Err(StoreError::Conflict(Conflict::Session(_))) if !was_unknown => return Outcome::LostRace,
            Err(StoreError::Conflict(Conflict::Session(_)) | StoreError::Unknown { .. }) => {
                was_unknown = true;
                // All or nothing: any place that is taken speaks for the whole batch.
                for segment in &commit.segments {
                    let (session, first) = (&segment.session_id, segment.meta.first);
                    let at = insist(|| store.commit_at(&commit.tenant, session, first), "commit_at").await;
                    match at {
                        Some(id) if id == commit.id => return Outcome::Written,
                        Some(_) => return Outcome::LostRace,
                        None => {}
                    }
                }
            }
            Err(StoreError::Throttled { .. } | StoreError::Unavailable { .. }) => {}
            Err(error) => panic!("a commit of {place}: {error}"),
        }
        sleep(Duration::from_millis(1)).await;
    }
    panic!("a commit of {place} made no progress for {PATIENCE:?}");
}

/// Reads the heads of these sessions, chains on them, commits, and starts again when a race was lost.
async fn append(
    store: &dyn Store,
    tenant: &TenantId,
    sessions: &[&SessionId],
    dice: &mut Dice,
) -> Arc<Commit> {
    let deadline = Instant::now() + PATIENCE;
    let mut losses = 0;
    while Instant::now() < deadline {
        let mut batch = Batch::new(tenant);
        for session in sessions {
            let head = insist(|| store.head(tenant, session), "head").await;
            batch = batch.sample(session, head, 1 + dice.below(3));
        }
        let commit = batch.done();
        match commit_surely(store, &commit).await {
            Outcome::Written => return commit,
            Outcome::LostRace => losses = (losses + 1).min(8),
        }
        // Full jitter: fifty losers that come back together would lose together again.
        sleep(Duration::from_micros(dice.below(500 << losses))).await;
    }
    panic!("a writer of {sessions:?} lost every race for {PATIENCE:?}");
}

/// The acknowledged commits of a session, and no others, stand in its line, each once and with its own segment.
async fn check_acknowledged(
    store: &dyn Store,
    tenant: &TenantId,
    session: &SessionId,
    commits: &[Arc<Commit>],
) {
    check_same_commits(session, &check_line(store, tenant, session, 100).await, commits);
}

/// These segments are those of the acknowledged commits, each once.
pub(super) fn check_same_commits(session: &SessionId, line: &[SegmentMeta], commits: &[Arc<Commit>]) {
    let mut expected: HashMap<CommitId, _> = HashMap::new();
    for commit in commits {
        for segment in commit.segments.iter().filter(|s| s.session_id == *session) {
            assert!(expected.insert(commit.id, &segment.meta).is_none(), "two commits of one id");
        }
    }
    for meta in line {
        let Some(acknowledged) = expected.remove(&meta.commit_id) else {
            panic!(
                "{session}: {meta:?} stands in the line, but nobody was told so, or it stands there twice"
            );
        };
        assert_eq!(meta, acknowledged, "{session}: another segment than was acknowledged");
    }
    assert!(expected.is_empty(), "{session}: acknowledged and lost: {:?}", expected.keys());
}

pub(super) async fn run_writers(
    store: &Arc<dyn Store>,
    tenant: &TenantId,
    sessions: &[SessionId],
    writers: usize,
    commits_each: usize,
    sessions_each: usize,
) -> Vec<Arc<Commit>> {
    let mut tasks = JoinSet::new();
    for writer in 0..writers {
        let (store, tenant, sessions) = (store.clone(), tenant.clone(), sessions.to_vec());
        tasks.spawn(async move {
            let mut dice = Dice::new(writer as u64);
            let mut written = Vec::new();
            for _ in 0..commits_each {
                let mut chosen: Vec<&SessionId> = sessions.iter().collect();
                while chosen.len() > sessions_each {
                    chosen.swap_remove(dice.below(chosen.len() as u64) as usize);
                }
                written.push(append(&*store, &tenant, &chosen, &mut dice).await);
            }
            written
        });
    }
    let written: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    assert_eq!(written.len(), writers * commits_each, "each writer wrote its share");
    written
}

/// P1, P2: many writers at once on one session, each reading the head, chaining and committing until it wrote its
/// share: one line without gap or fork, each acknowledged commit in it exactly once, and nothing else.
///
/// # Panics
/// If the store breaks it.
pub async fn many_writers_one_session(store: Arc<dyn Store>, writers: usize, commits_each: usize) {
    let (tenant, session) = (fresh_tenant(), fresh_session());
    let sessions = [session];
    let written = run_writers(&store, &tenant, &sessions, writers, commits_each, 1).await;
    check_acknowledged(&*store, &tenant, &sessions[0], &written).await;
}

/// P2, P3: many writers at once, each batch over three of eight sessions: every session is one line, each batch is
/// in all of its sessions or in none.
///
/// # Panics
/// If the store breaks it.
pub async fn many_writers_many_sessions(store: Arc<dyn Store>, writers: usize, commits_each: usize) {
    let tenant = fresh_tenant();
    let sessions: Vec<_> = (0..8).map(|_| fresh_session()).collect();
    let written = run_writers(&store, &tenant, &sessions, writers, commits_each, 3).await;
    for session in &sessions {
        check_acknowledged(&*store, &tenant, session, &written).await;
    }
}

/// P3: two batches over the same two sessions, named in opposite order, at once: they neither split nor block each
/// other for good; at most one is written where both chain on the same heads, and it is written in both sessions.
///
/// # Panics
/// If the store breaks it.
pub async fn crossed_batches_do_not_split(store: Arc<dyn Store>) {
    for _ in 0..20 {
        let tenant = fresh_tenant();
        let (x, y) = (session("x"), session("y"));
        let one = Batch::new(&tenant).sample(&x, None, 1).sample(&y, None, 1).done();
        let two = Batch::new(&tenant).sample(&y, None, 1).sample(&x, None, 1).done();
        let mut tasks = JoinSet::new();
        for commit in [one, two] {
            let store = store.clone();
            tasks.spawn(async move {
                let outcome = commit_surely(&*store, &commit).await;
                (commit.id, matches!(outcome, Outcome::Written))
            });
        }
        let outcomes = tasks.join_all().await;
        let winners: Vec<_> = outcomes.iter().filter(|(_, written)| *written).map(|(id, _)| *id).collect();
        // A backend may refuse both of two transactions that meet; it may not let both in.
        assert!(winners.len() <= 1, "both of two crossed batches were written");
        for session in [&x, &y] {
            let line = check_line(&*store, &tenant, session, 10).await;
            assert_eq!(line.iter().map(|m| m.commit_id).collect::<Vec<_>>(), winners, "{session}");
        }
    }
}
