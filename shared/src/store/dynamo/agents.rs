//! Agents: counted over the feed whenever somebody asks.

use std::collections::{BTreeMap, HashSet};

use super::{DynamoStore, time};
use crate::ids::{AgentId, SessionId, TenantId};
use crate::store::derived::{self, AgentRow};
use crate::store::{AgentRecord, StoreError};

/// Agents that `wanted` picks, by id.
async fn count(
    store: &DynamoStore,
    tenant: &TenantId,
    wanted: impl Fn(&AgentId) -> bool,
) -> Result<BTreeMap<AgentId, AgentRow>, StoreError> {
    let mut rows: BTreeMap<AgentId, AgentRow> = BTreeMap::new();
    let mut seen: HashSet<(AgentId, SessionId)> = HashSet::new();
    time::walk(store, tenant, |entry| {
        let agents = derived::agents(&entry.meta)
            .map_err(|e| StoreError::Corrupt { key: entry.session_id.to_string(), why: e.to_string() })?;
        for (agent, count) in agents.into_iter().filter(|(agent, _)| wanted(agent)) {
            let new = seen.insert((agent.clone(), entry.session_id.clone()));
            let row = derived::agent_after(rows.remove(&agent), &agent, &entry.meta, count, new);
            rows.insert(agent, row);
        }
        Ok(())
    })
    .await?;
    Ok(rows)
}

/// See [`crate::store::Store::agent`].
pub(super) async fn one(
    store: &DynamoStore,
    tenant: &TenantId,
    agent: &AgentId,
) -> Result<Option<AgentRecord>, StoreError> {
    Ok(count(store, tenant, |other| other == agent).await?.remove(agent).map(|row| row.record))
}

/// See [`crate::store::Store::agents`].
pub(super) async fn list(
    store: &DynamoStore,
    tenant: &TenantId,
    after: Option<&AgentId>,
    limit: usize,
) -> Result<Vec<AgentRecord>, StoreError> {
    let rows = count(store, tenant, |agent| after.is_none_or(|after| agent > after)).await?;
    Ok(rows.into_values().take(limit).map(|row| row.record).collect())
}
