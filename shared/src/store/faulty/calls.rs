//! The calls themselves: each goes to the store behind by way of what was planned for it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::time::sleep;

use super::{Fault, Faulty, Op, lost};
use crate::auth::TokenRecord;
use crate::ids::{AgentId, CommitId, EventId, Seq, SessionId, TenantId};
use crate::segment::{Head, SegmentMeta};
use crate::store::{
    AgentRecord, BatchRecord, Commit, ErasureRecord, FeedEntry, FeedPosition, Idempotency, OpenEntry, Order,
    Pointer, SessionRecord, Store, StoreError, StoredBody, TenantRecord, TimePage,
};
use crate::time::Micros;

#[async_trait]
impl Store for Faulty {
    fn commit(&self, commit: Arc<Commit>) -> BoxFuture<'_, Result<(), StoreError>> {
        const OP: Op = Op::Commit;
        let fault = match self.enter(OP) {
            Ok(fault) => fault,
            Err(error) => return Box::pin(async { Err(error) }),
        };
        if !matches!(fault, Some(Fault::Lose | Fault::Refuse(_) | Fault::Crash { applied: false })) {
            self.sight(&commit);
        }
        // What is to be applied is handed over right here, not when the answer is awaited.
        match fault {
            None => {
                let call = self.inner.commit(commit);
                Box::pin(async move { self.heard(call.await, lost(OP)) })
            }
            Some(Fault::Lose) => Box::pin(async { Err(lost(OP)) }),
            Some(Fault::ApplyThenError) => {
                let call = self.inner.commit(commit);
                Box::pin(async move {
                    let _ = call.await;
                    Err(lost(OP))
                })
            }
            Some(Fault::ApplyLate(after)) => {
                let inner = self.inner.clone();
                self.apply_late(async move { inner.commit(commit).await }, after);
                Box::pin(async { Err(lost(OP)) })
            }
            Some(Fault::Refuse(error)) => Box::pin(async { Err(error) }),
            Some(Fault::Delay(duration)) => {
                let call = self.inner.commit(commit);
                Box::pin(async move {
                    let answer = call.await;
                    sleep(duration).await;
                    self.heard(answer, lost(OP))
                })
            }
            Some(Fault::Hold(gate)) => Box::pin(async move {
                gate.pass().await;
                self.heard(self.inner.commit(commit).await, lost(OP))
            }),
            Some(Fault::Crash { applied }) => {
                self.crash();
                let call = applied.then(|| self.inner.commit(commit));
                Box::pin(async move {
                    if let Some(call) = call {
                        let _ = call.await;
                    }
                    Err(lost(OP))
                })
            }
        }
    }

    /// As the inner store, but false once a batch may be applied late: that breaks any order.
    fn orders_commits(&self) -> bool {
        self.inner.orders_commits() && !self.unordered.load(Ordering::SeqCst)
    }

    async fn head(&self, tenant: &TenantId, session: &SessionId) -> Result<Option<Head>, StoreError> {
        self.read(Op::Head, self.inner.head(tenant, session)).await
    }

    async fn commit_at(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        first: Seq,
    ) -> Result<Option<CommitId>, StoreError> {
        self.read(Op::CommitAt, self.inner.commit_at(tenant, session, first)).await
    }

    async fn segments(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        from: Seq,
        order: Order,
        limit: usize,
    ) -> Result<Vec<SegmentMeta>, StoreError> {
        self.read(Op::Segments, self.inner.segments(tenant, session, from, order, limit)).await
    }

    async fn body(&self, tenant: &TenantId, session: &SessionId, first: Seq) -> Result<Bytes, StoreError> {
        self.read(Op::Body, self.inner.body(tenant, session, first)).await
    }

    async fn feed(
        &self,
        tenant: &TenantId,
        after: Option<&FeedPosition>,
        limit: usize,
    ) -> Result<Vec<FeedEntry>, StoreError> {
        self.read(Op::Feed, self.visible_feed(tenant, after, limit)).await
    }

    async fn feed_commit(&self, tenant: &TenantId, commit: CommitId) -> Result<Vec<FeedEntry>, StoreError> {
        let mut entries = self.read(Op::FeedCommit, self.inner.feed_commit(tenant, commit)).await?;
        entries.retain(|e| !self.is_hidden(e.meta.commit_id, &e.session_id));
        Ok(entries)
    }

    async fn by_time(
        &self,
        tenant: &TenantId,
        order: Order,
        from: Option<Micros>,
        page: Option<&[u8]>,
        limit: usize,
    ) -> Result<TimePage, StoreError> {
        let call = self.inner.by_time(tenant, order, from, page, limit);
        let mut page = self.read(Op::ByTime, call).await?;
        page.entries.retain(|e| !self.is_hidden(e.meta.commit_id, &e.session_id));
        Ok(page)
    }

    async fn session(
        &self,
        tenant: &TenantId,
        session: &SessionId,
    ) -> Result<Option<SessionRecord>, StoreError> {
        match self.read(Op::Session, self.inner.session(tenant, session)).await? {
            Some(record) => self.before_hidden(tenant, record).await,
            None => Ok(None),
        }
    }

    async fn sessions(
        &self,
        tenant: &TenantId,
        agent: Option<&AgentId>,
        after: Option<&FeedPosition>,
        limit: usize,
    ) -> Result<Vec<SessionRecord>, StoreError> {
        self.read(Op::Sessions, self.visible_sessions(tenant, agent, after, limit)).await
    }

    async fn agent(&self, tenant: &TenantId, agent: &AgentId) -> Result<Option<AgentRecord>, StoreError> {
        let record = self.read(Op::Agent, self.inner.agent(tenant, agent)).await?;
        Ok(record.filter(|_| !self.is_agent_hidden(tenant, agent)))
    }

    async fn agents(
        &self,
        tenant: &TenantId,
        after: Option<&AgentId>,
        limit: usize,
    ) -> Result<Vec<AgentRecord>, StoreError> {
        self.read(Op::Agents, self.visible_agents(tenant, after, limit)).await
    }

    async fn idempotency(
        &self,
        tenant: &TenantId,
        key: &[u8; 32],
    ) -> Result<Option<Idempotency>, StoreError> {
        self.read(Op::Idempotency, self.inner.idempotency(tenant, key)).await
    }

    async fn create_token(&self, token: &TokenRecord, first: bool) -> Result<(), StoreError> {
        let (inner, token) = (self.inner.clone(), token.clone());
        self.write(Op::CreateToken, async move { inner.create_token(&token, first).await }).await
    }

    async fn bootstrapped(&self) -> Result<bool, StoreError> {
        self.read(Op::Bootstrapped, self.inner.bootstrapped()).await
    }

    async fn token_by_hash(&self, hash: &[u8; 32]) -> Result<Option<TokenRecord>, StoreError> {
        self.read(Op::TokenByHash, self.inner.token_by_hash(hash)).await
    }

    async fn tokens(&self, tenant: &TenantId) -> Result<Vec<TokenRecord>, StoreError> {
        self.read(Op::Tokens, self.inner.tokens(tenant)).await
    }

    async fn revoke_token(&self, tenant: &TenantId, id: &str, at: Micros) -> Result<(), StoreError> {
        let (inner, tenant, id) = (self.inner.clone(), tenant.clone(), id.to_owned());
        self.write(Op::RevokeToken, async move { inner.revoke_token(&tenant, &id, at).await }).await
    }

    async fn touch_token(&self, hash: &[u8; 32], at: Micros) -> Result<(), StoreError> {
        let (inner, hash) = (self.inner.clone(), *hash);
        self.write(Op::TouchToken, async move { inner.touch_token(&hash, at).await }).await
    }

    async fn create_tenant(&self, tenant: &TenantRecord) -> Result<(), StoreError> {
        let (inner, tenant) = (self.inner.clone(), tenant.clone());
        self.write(Op::CreateTenant, async move { inner.create_tenant(&tenant).await }).await
    }

    async fn tenant(&self, tenant: &TenantId) -> Result<Option<TenantRecord>, StoreError> {
        self.read(Op::Tenant, self.inner.tenant(tenant)).await
    }

    async fn tenants(&self) -> Result<Vec<TenantRecord>, StoreError> {
        self.read(Op::Tenants, self.inner.tenants()).await
    }

    async fn open_segments(
        &self,
        tenant: &TenantId,
        after: Option<&FeedPosition>,
        limit: usize,
    ) -> Result<Vec<OpenEntry>, StoreError> {
        self.read(Op::OpenSegments, self.visible_open(tenant, after, limit)).await
    }

    async fn pointer(&self, tenant: &TenantId, session: &SessionId) -> Result<Option<Pointer>, StoreError> {
        self.read(Op::Pointer, self.inner.pointer(tenant, session)).await
    }

    async fn advance_pointer(&self, tenant: &TenantId, pointer: &Pointer) -> Result<(), StoreError> {
        let (inner, tenant, pointer) = (self.inner.clone(), tenant.clone(), pointer.clone());
        self.write(Op::AdvancePointer, async move { inner.advance_pointer(&tenant, &pointer).await }).await
    }

    async fn mark_archived(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        meta: &SegmentMeta,
        batch: u64,
        expires_at: Option<Micros>,
    ) -> Result<(), StoreError> {
        let inner = self.inner.clone();
        let (tenant, session, meta) = (tenant.clone(), session.clone(), meta.clone());
        let call = async move { inner.mark_archived(&tenant, &session, &meta, batch, expires_at).await };
        self.write(Op::MarkArchived, call).await
    }

    async fn mark_broken(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        first: Seq,
        at: Micros,
    ) -> Result<bool, StoreError> {
        let (inner, tenant, session) = (self.inner.clone(), tenant.clone(), session.clone());
        let call = async move { inner.mark_broken(&tenant, &session, first, at).await };
        self.write(Op::MarkBroken, call).await
    }

    async fn put_batch(&self, tenant: &TenantId, batch: &BatchRecord) -> Result<(), StoreError> {
        let (inner, tenant, batch) = (self.inner.clone(), tenant.clone(), batch.clone());
        self.write(Op::PutBatch, async move { inner.put_batch(&tenant, &batch).await }).await
    }

    async fn mark_recorded(&self, tenant: &TenantId, batch: u64) -> Result<(), StoreError> {
        let (inner, tenant) = (self.inner.clone(), tenant.clone());
        self.write(Op::MarkRecorded, async move { inner.mark_recorded(&tenant, batch).await }).await
    }

    async fn mark_cold(&self, tenant: &TenantId, batch: u64) -> Result<(), StoreError> {
        let (inner, tenant) = (self.inner.clone(), tenant.clone());
        self.write(Op::MarkCold, async move { inner.mark_cold(&tenant, batch).await }).await
    }

    async fn last_batch(&self, tenant: &TenantId) -> Result<Option<BatchRecord>, StoreError> {
        self.read(Op::LastBatch, self.inner.last_batch(tenant)).await
    }

    async fn batches(
        &self,
        tenant: &TenantId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<BatchRecord>, StoreError> {
        self.read(Op::Batches, self.inner.batches(tenant, after, limit)).await
    }

    async fn closed(&self) -> Result<Option<Micros>, StoreError> {
        self.read(Op::Closed, self.inner.closed()).await
    }

    async fn set_closed(&self, since: Option<Micros>) -> Result<(), StoreError> {
        let inner = self.inner.clone();
        self.write(Op::SetClosed, async move { inner.set_closed(since).await }).await
    }

    fn keeps_backups(&self) -> bool {
        self.inner.keeps_backups()
    }

    async fn put_erasure(&self, tenant: &TenantId, erasure: &ErasureRecord) -> Result<(), StoreError> {
        let (inner, tenant, erasure) = (self.inner.clone(), tenant.clone(), erasure.clone());
        self.write(Op::PutErasure, async move { inner.put_erasure(&tenant, &erasure).await }).await
    }

    async fn erasure(&self, tenant: &TenantId, event: EventId) -> Result<Option<ErasureRecord>, StoreError> {
        self.read(Op::Erasure, self.inner.erasure(tenant, event)).await
    }

    async fn update_erasure(
        &self,
        tenant: &TenantId,
        before: &ErasureRecord,
        after: &ErasureRecord,
    ) -> Result<(), StoreError> {
        let inner = self.inner.clone();
        let (tenant, before, after) = (tenant.clone(), before.clone(), after.clone());
        let call = async move { inner.update_erasure(&tenant, &before, &after).await };
        self.write(Op::UpdateErasure, call).await
    }

    async fn erasures(
        &self,
        tenant: &TenantId,
        done: bool,
        after: Option<EventId>,
        limit: usize,
    ) -> Result<Vec<ErasureRecord>, StoreError> {
        self.read(Op::Erasures, self.inner.erasures(tenant, done, after, limit)).await
    }

    async fn stored_body(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        first: Seq,
    ) -> Result<Option<StoredBody>, StoreError> {
        self.read(Op::StoredBody, self.inner.stored_body(tenant, session, first)).await
    }

    async fn replace_body(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        before: &StoredBody,
        meta: &SegmentMeta,
        body: Bytes,
    ) -> Result<(), StoreError> {
        let (inner, tenant, session) = (self.inner.clone(), tenant.clone(), session.clone());
        let (before, meta) = (before.clone(), meta.clone());
        let call = async move { inner.replace_body(&tenant, &session, &before, &meta, body).await };
        self.write(Op::ReplaceBody, call).await
    }

    async fn replace_pointer(
        &self,
        tenant: &TenantId,
        before: &Pointer,
        after: &Pointer,
    ) -> Result<(), StoreError> {
        let inner = self.inner.clone();
        let (tenant, before, after) = (tenant.clone(), before.clone(), after.clone());
        let call = async move { inner.replace_pointer(&tenant, &before, &after).await };
        self.write(Op::ReplacePointer, call).await
    }

    async fn resize_batch(
        &self,
        tenant: &TenantId,
        batch: u64,
        revision: u64,
        bytes: u64,
    ) -> Result<(), StoreError> {
        let (inner, tenant) = (self.inner.clone(), tenant.clone());
        let call = async move { inner.resize_batch(&tenant, batch, revision, bytes).await };
        self.write(Op::ResizeBatch, call).await
    }

    async fn scrub(&self, tenant: &TenantId, session: &SessionId, sequence: Seq) -> Result<(), StoreError> {
        let (inner, tenant, session) = (self.inner.clone(), tenant.clone(), session.clone());
        self.write(Op::Scrub, async move { inner.scrub(&tenant, &session, sequence).await }).await
    }

    async fn expire(&self, now: Micros, limit: usize) -> Result<usize, StoreError> {
        let inner = self.inner.clone();
        self.write(Op::Expire, async move { inner.expire(now, limit).await }).await
    }
}
