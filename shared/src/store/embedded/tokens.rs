//! Tokens and tenants. Few and small: token records are JSON.

use redb::{ReadableTable, WriteTransaction};

use super::records;
use super::tables::{self, Snapshot, corrupt, fail, get};
use crate::auth::TokenRecord;
use crate::ids::TenantId;
use crate::store::{Conflict, StoreError, TenantRecord, keys};
use crate::time::Micros;

/// A write of the writer's thread that is no batch.
pub(super) enum Admin {
    /// See [`crate::store::Store::create_token`].
    CreateToken { token: TokenRecord, first: bool },
    /// See [`crate::store::Store::revoke_token`].
    RevokeToken { tenant: TenantId, id: String, at: Micros },
    /// See [`crate::store::Store::touch_token`].
    TouchToken { hash: [u8; 32], at: Micros },
    /// See [`crate::store::Store::create_tenant`].
    CreateTenant(TenantRecord),
}

/// Applies one. The inner error refuses this request alone and comes before its first write; the outer one says that
/// the transaction must be given up.
pub(super) fn apply(txn: &WriteTransaction, admin: &Admin) -> Result<Result<(), StoreError>, StoreError> {
    match admin {
        Admin::CreateToken { token, first } => create_token(txn, token, *first),
        Admin::RevokeToken { tenant, id, at } => {
            let by_tenant = txn.open_table(tables::TOKENS_BY_TENANT).map_err(fail)?;
            match get(&by_tenant, &keys::token(tenant, id))? {
                None => Ok(Err(StoreError::NotFound)),
                Some(hash) => change_token(txn, &hash, |token| {
                    token.revoked_at = Some(token.revoked_at.map_or(*at, |before| before.min(*at)));
                }),
            }
        }
        Admin::TouchToken { hash, at } => change_token(txn, hash, |token| {
            token.last_used_at = Some(token.last_used_at.map_or(*at, |before| before.max(*at)));
        }),
        Admin::CreateTenant(record) => {
            let mut table = txn.open_table(tables::TENANTS).map_err(fail)?;
            let key = record.tenant.as_str().as_bytes();
            if table.get(key).map_err(fail)?.is_some() {
                return Ok(Err(StoreError::Conflict(Conflict::Exists)));
            }
            table.insert(key, records::encode_tenant(record).as_slice()).map_err(fail)?;
            Ok(Ok(()))
        }
    }
}

fn create_token(
    txn: &WriteTransaction,
    token: &TokenRecord,
    first: bool,
) -> Result<Result<(), StoreError>, StoreError> {
    let mut by_hash = txn.open_table(tables::TOKENS).map_err(fail)?;
    let mut by_tenant = txn.open_table(tables::TOKENS_BY_TENANT).map_err(fail)?;
    let mut state = txn.open_table(tables::STATE).map_err(fail)?;
    let id = keys::token(&token.tenant, &token.id);
    let exists = first && state.get(tables::BOOTSTRAPPED).map_err(fail)?.is_some()
        || by_hash.get(token.hash.as_slice()).map_err(fail)?.is_some()
        || by_tenant.get(id.as_slice()).map_err(fail)?.is_some();
    if exists {
        return Ok(Err(StoreError::Conflict(Conflict::Exists)));
    }
    by_hash.insert(token.hash.as_slice(), encode(token).as_slice()).map_err(fail)?;
    by_tenant.insert(id.as_slice(), token.hash.as_slice()).map_err(fail)?;
    if first {
        state.insert(tables::BOOTSTRAPPED, &[1][..]).map_err(fail)?;
    }
    Ok(Ok(()))
}

fn change_token(
    txn: &WriteTransaction,
    hash: &[u8],
    change: impl FnOnce(&mut TokenRecord),
) -> Result<Result<(), StoreError>, StoreError> {
    let mut by_hash = txn.open_table(tables::TOKENS).map_err(fail)?;
    let Some(bytes) = get(&by_hash, hash)? else { return Ok(Err(StoreError::NotFound)) };
    let mut token = match decode(hash, &bytes) {
        Ok(token) => token,
        Err(damaged) => return Ok(Err(damaged)),
    };
    change(&mut token);
    by_hash.insert(hash, encode(&token).as_slice()).map_err(fail)?;
    Ok(Ok(()))
}

fn encode(token: &TokenRecord) -> Vec<u8> {
    serde_json::to_vec(token).expect("a token record has only strings, numbers and lists")
}

fn decode(hash: &[u8], bytes: &[u8]) -> Result<TokenRecord, StoreError> {
    let token: TokenRecord = serde_json::from_slice(bytes).map_err(|e| corrupt(tables::TOKENS, hash, e))?;
    if token.hash == hash { Ok(token) } else { Err(corrupt(tables::TOKENS, hash, "it is another token's")) }
}

/// See [`crate::store::Store::token_by_hash`].
pub(super) fn by_hash(view: &Snapshot, hash: &[u8]) -> Result<Option<TokenRecord>, StoreError> {
    let table = view.table(tables::TOKENS)?;
    get(&table, hash)?.map(|bytes| decode(hash, &bytes)).transpose()
}

/// See [`crate::store::Store::tokens`].
pub(super) fn of_tenant(view: &Snapshot, tenant: &TenantId) -> Result<Vec<TokenRecord>, StoreError> {
    let table = view.table(tables::TOKENS_BY_TENANT)?;
    let prefix = keys::tenant(tenant);
    let end = keys::after_prefix(&prefix);
    let mut tokens = Vec::new();
    for row in table.range(prefix.as_slice()..end.as_slice()).map_err(fail)? {
        let (key, hash) = row.map_err(fail)?;
        let missing = || corrupt(tables::TOKENS_BY_TENANT, key.value(), "no token has its hash");
        tokens.push(by_hash(view, hash.value())?.ok_or_else(missing)?);
    }
    Ok(tokens)
}

/// See [`crate::store::Store::bootstrapped`].
pub(super) fn bootstrapped(view: &Snapshot) -> Result<bool, StoreError> {
    Ok(get(&view.table(tables::STATE)?, tables::BOOTSTRAPPED)?.is_some())
}

/// See [`crate::store::Store::tenant`].
pub(super) fn tenant(view: &Snapshot, tenant: &TenantId) -> Result<Option<TenantRecord>, StoreError> {
    let key = tenant.as_str().as_bytes();
    let Some(bytes) = get(&view.table(tables::TENANTS)?, key)? else { return Ok(None) };
    let record = records::decode_tenant(tenant.clone(), &bytes);
    record.map(Some).map_err(|e| corrupt(tables::TENANTS, key, e))
}

/// See [`crate::store::Store::tenants`].
pub(super) fn tenants(view: &Snapshot) -> Result<Vec<TenantRecord>, StoreError> {
    let mut tenants = Vec::new();
    for row in view.table(tables::TENANTS)?.iter().map_err(fail)? {
        let (key, value) = row.map_err(fail)?;
        let name = std::str::from_utf8(key.value()).ok().and_then(|name| TenantId::parse(name).ok());
        let name = name.ok_or_else(|| corrupt(tables::TENANTS, key.value(), "not a tenant's name"))?;
        let record = records::decode_tenant(name, value.value());
        tenants.push(record.map_err(|e| corrupt(tables::TENANTS, key.value(), e))?);
    }
    Ok(tenants)
}
