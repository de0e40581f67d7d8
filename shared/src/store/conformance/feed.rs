//! The feed: every segment of a tenant, in the order of commit and session.

use std::time::Duration;

use super::{Batch, entries_of, eventually, fresh_tenant, head_of, now, ok, position_of, same, session};
use crate::ids::{CommitId, TenantId};
use crate::store::{FeedEntry, FeedPosition, Store};

/// Reads the feed to its end in pages.
async fn read_all(
    store: &dyn Store,
    tenant: &TenantId,
    after: Option<&FeedPosition>,
    limit: usize,
) -> Result<Vec<FeedEntry>, String> {
    let mut entries: Vec<FeedEntry> = Vec::new();
    let mut after = after.cloned();
    loop {
        let page = ok(store.feed(tenant, after.as_ref(), limit).await, "feed");
        if page.len() > limit {
            return Err(format!("{} entries in a page of {limit}", page.len()));
        }
        let Some(last) = page.last() else { return Ok(entries) };
        let position = position_of(last);
        if after.is_some_and(|after| position <= after) {
            return Err(format!("a page that ends at {position:?} does not go on"));
        }
        after = Some(position);
        entries.extend(page);
    }
}

/// Every segment comes to the feed, once, with its attributes, in the order of commit and session, whatever the page
/// size; and after any position exactly what is above it, be something at that position or not. `feed_commit` gives
/// the entries of one commit. All of it within `lag` of the commit.
///
/// # Panics
/// If the store breaks it.
pub async fn feed_holds_every_segment_in_order(store: &dyn Store, lag: Duration) {
    let (tenant, other) = (fresh_tenant(), fresh_tenant());
    let names = ["b", "a b", "z", "é", "a", "a/", "ab"].map(session);
    let start = now();
    let mut heads = vec![None; names.len()];
    let mut expected = Vec::new();
    let mut commits = Vec::new();
    for round in 0..12usize {
        // The clocks of two writers: every third batch comes from one that is 40 ms behind.
        let shift = if round % 3 == 2 { -40 } else { 0 };
        let mut batch = Batch::at(&tenant, start.plus_ms(round as i64 * 10 + shift));
        let chosen: Vec<_> = (0..names.len()).filter(|n| (n + round) % 3 != 0).collect();
        for n in &chosen {
            batch = batch.sample(&names[*n], heads[*n], 1 + round as u64);
        }
        let commit = batch.done();
        ok(store.commit(commit.clone()).await, "commit");
        for (n, segment) in chosen.iter().zip(&commit.segments) {
            heads[*n] = Some(segment.meta.head());
        }
        expected.extend(entries_of(&commit));
        commits.push(commit);
    }
    let noise = Batch::at(&other, start.plus_ms(35)).sample(&names[0], None, 1).done();
    ok(store.commit(noise.clone()).await, "commit");
    expected.sort_by_key(position_of);
    for limit in [1, 2, 3, 7, 1000] {
        eventually(lag, "the whole feed in pages", || async {
            same("feed", &read_all(store, &tenant, None, limit).await?, &expected)
        })
        .await;
    }
    let mut positions: Vec<_> = expected.iter().map(position_of).collect();
    for commit in &commits {
        for name in ["!", "a ", "zzz", "\u{10ffff}"] {
            positions.push(FeedPosition { commit_id: commit.id, session_id: session(name) });
        }
    }
    for ms in [-100, 5, 55, 1000] {
        let unix_ms = u64::try_from(start.plus_ms(ms).unix_ms()).expect("after 1970");
        positions.push(FeedPosition { commit_id: CommitId::floor_of_ms(unix_ms), session_id: session("b") });
    }
    for position in positions {
        let rest: Vec<_> = expected.iter().filter(|e| position_of(e) > position).cloned().collect();
        eventually(lag, "the feed after a position", || async {
            let page = ok(store.feed(&tenant, Some(&position), 4).await, "feed");
            same("a page after a position", &page, &rest[..rest.len().min(4)].to_vec())
        })
        .await;
    }
    for commit in &commits {
        let mut entries = entries_of(commit);
        entries.sort_by_key(position_of);
        eventually(lag, "the feed of a commit", || async {
            let mut found = ok(store.feed_commit(&tenant, commit.id).await, "feed_commit");
            found.sort_by_key(position_of);
            same("feed_commit", &found, &entries)
        })
        .await;
        let foreign = ok(store.feed_commit(&other, commit.id).await, "feed_commit");
        assert_eq!(foreign, [], "a commit in another tenant's feed");
    }
    eventually(lag, "another tenant's feed", || async {
        same("feed", &read_all(store, &other, None, 3).await?, &entries_of(&noise))
    })
    .await;
}

/// A reader that follows the feed, looking back over what is not settled, gets every segment although commits come
/// while it reads.
///
/// # Panics
/// If the store breaks it.
pub async fn feed_followed_while_it_grows(store: &dyn Store, lag: Duration) {
    let tenant = fresh_tenant();
    let name = session("followed");
    let mut head = None;
    let mut after: Option<FeedPosition> = None;
    let mut found: Vec<FeedEntry> = Vec::new();
    let mut written = Vec::new();
    let start = now();
    for round in 0..30 {
        let commit = Batch::at(&tenant, start.plus_ms(round)).sample(&name, head, 1).done();
        ok(store.commit(commit.clone()).await, "commit");
        head = head_of(&commit);
        written.extend(entries_of(&commit));
        if lag.is_zero() {
            let page = ok(store.feed(&tenant, after.as_ref(), 10).await, "feed");
            after = page.last().map(position_of).or(after);
            found.extend(page);
        }
    }
    if !lag.is_zero() {
        found = eventually(lag, "a feed that lags", || async {
            let entries = read_all(store, &tenant, None, 10).await?;
            same("entries", &entries.len(), &written.len()).map(|()| entries)
        })
        .await;
    }
    assert_eq!(found, written, "what a follower found");
}
