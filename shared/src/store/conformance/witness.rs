//! What must outlive the store object: a restart, a crash, a copy of its files.

use std::sync::Arc;
use std::time::Duration;

use super::{
    Batch, check_line, entries_of, eventually, fresh_session, fresh_tenant, fresh_token, head_of, now, ok,
    same, session_of,
};
use crate::auth::TokenRecord;
use crate::store::{Commit, Store, TenantRecord};

/// One of everything that a store keeps, to be looked for later in the store as it was opened again.
pub struct Witness {
    tenant: TenantRecord,
    token: TokenRecord,
    commits: Vec<Arc<Commit>>,
}

impl Witness {
    /// Writes commits, a key, a token (used and revoked) and a tenant.
    ///
    /// # Panics
    /// If the store does not take them.
    pub async fn leave(store: &dyn Store) -> Self {
        let tenant = TenantRecord { tenant: fresh_tenant(), created_at: now() };
        ok(store.create_tenant(&tenant).await, "create_tenant");
        let mut token = fresh_token(&tenant.tenant);
        ok(store.create_token(&token, false).await, "create_token");
        token.last_used_at = Some(token.created_at.plus_ms(1000));
        ok(store.touch_token(&token.hash, token.created_at.plus_ms(1000)).await, "touch_token");
        token.revoked_at = Some(token.created_at.plus_ms(60_000));
        ok(
            store.revoke_token(&tenant.tenant, &token.id, token.created_at.plus_ms(60_000)).await,
            "revoke_token",
        );
        let (one, two) = (fresh_session(), fresh_session());
        let start = now();
        let mut head = None;
        let mut commits = Vec::new();
        for round in 0..5u8 {
            let at = start.plus_ms(i64::from(round));
            let mut batch = Batch::at(&tenant.tenant, at).sample(&one, head, 3);
            if round == 3 {
                batch = batch.sample(&two, None, 400);
            }
            let commit = batch.key([round; 32].map(|b| b ^ 0x5a), 60_000).done();
            ok(store.commit(commit.clone()).await, "commit");
            head = head_of(&commit);
            commits.push(commit);
        }
        Self { tenant, token, commits }
    }

    /// Looks for all of it: what must be there at once, at once; the rest within `lag`.
    ///
    /// # Panics
    /// If anything is missing or changed.
    pub async fn check(&self, store: &dyn Store, lag: Duration) {
        let tenant = &self.tenant.tenant;
        assert_eq!(ok(store.tenant(tenant).await, "tenant").as_ref(), Some(&self.tenant));
        let token = ok(store.token_by_hash(&self.token.hash).await, "token_by_hash");
        assert_eq!(token.as_ref(), Some(&self.token));
        assert_eq!(ok(store.tokens(tenant).await, "tokens"), std::slice::from_ref(&self.token));
        for commit in &self.commits {
            if let Some(key) = &commit.idempotency {
                let found = ok(store.idempotency(tenant, &key.key).await, "idempotency");
                assert_eq!(found.as_ref(), Some(key));
            }
            for segment in &commit.segments {
                let body = ok(store.body(tenant, &segment.session_id, segment.meta.first).await, "body");
                assert!(body == segment.body, "a body changed at {:?}", segment.meta);
            }
        }
        let one = &self.commits[0].segments[0].session_id;
        let line = check_line(store, tenant, one, 2).await;
        assert_eq!(line.len(), self.commits.len());
        let expected: Vec<_> = self.commits.iter().flat_map(|c| entries_of(c)).collect();
        eventually(lag, "what was left", || async {
            let mut feed = ok(store.feed(tenant, None, 100).await, "feed");
            feed.sort_by_key(|e| (e.meta.commit_id, e.meta.summary.events));
            same("feed", &feed, &expected)?;
            same("session", &ok(store.session(tenant, one).await, "session"), &session_of(one, &line))
        })
        .await;
    }
}
