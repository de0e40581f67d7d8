//! Tokens and tenants. A token is two items: by the hash of its text, where the record is, and by its tenant, for
//! the list. What changes later (revocation, last use) has attributes of its own, so that no write undoes another.

use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes, ReturnValuesOnConditionCheckFailure};

use super::DynamoStore;
use super::commit::{failed, put_absent, put_once, refused, write_all};
use super::item::{Item, binary, corrupt, find_time, get_binary, get_text, get_time, key, number, text};
use crate::auth::TokenRecord;
use crate::aws::{Again, CallError, retried};
use crate::ids::TenantId;
use crate::store::keys::dynamo as keys;
use crate::store::{Conflict, StoreError, TenantRecord};
use crate::time::Micros;

/// Keys in one `BatchGetItem` (service quota).
const BATCH: usize = 100;

/// See [`crate::store::Store::create_token`].
pub(super) async fn create(store: &DynamoStore, token: &TokenRecord, first: bool) -> Result<(), StoreError> {
    let json = serde_json::to_string(token).expect("a token record has only strings, numbers and lists");
    let mut by_hash = key(keys::token(&token.hash), keys::TOKEN);
    by_hash.insert("j".into(), text(json));
    let mut by_tenant = key(keys::tokens(&token.tenant), &token.id);
    by_tenant.insert("h".into(), binary(token.hash));
    let mut puts = vec![put_absent(store, by_hash), put_absent(store, by_tenant)];
    if first {
        puts.push(put_absent(store, key(keys::FIRST_TOKEN.0, keys::FIRST_TOKEN.1)));
    }
    // A token's id is minted for it: the same one again is the same request.
    write_all(store, puts, &token.id).await.map_err(|error| match error {
        CallError::Canceled(error) if failed(&error).next().is_some() => {
            StoreError::Conflict(Conflict::Exists)
        }
        error => refused(error),
    })
}

/// See [`crate::store::Store::bootstrapped`].
pub(super) async fn bootstrapped(store: &DynamoStore) -> Result<bool, StoreError> {
    let (pk, sk) = keys::FIRST_TOKEN;
    Ok(store.get(key(pk, sk), Some("pk")).await?.is_some())
}

fn read(item: &Item) -> Result<TokenRecord, StoreError> {
    let mut token: TokenRecord = serde_json::from_str(get_text(item, "j")?).map_err(|e| corrupt(item, e))?;
    if get_text(item, "pk")? != keys::token(&token.hash) {
        return Err(corrupt(item, "it is another token's"));
    }
    token.revoked_at = find_time(item, "r")?.or(token.revoked_at);
    token.last_used_at = find_time(item, "u")?.or(token.last_used_at);
    Ok(token)
}

/// See [`crate::store::Store::token_by_hash`].
pub(super) async fn by_hash(store: &DynamoStore, hash: &[u8; 32]) -> Result<Option<TokenRecord>, StoreError> {
    let item = store.get(key(keys::token(hash), keys::TOKEN), None).await?;
    item.as_ref().map(read).transpose()
}

fn hash_of(item: &Item) -> Result<[u8; 32], StoreError> {
    get_binary(item, "h")?.try_into().map_err(|_| corrupt(item, "h is no hash"))
}

/// See [`crate::store::Store::tokens`].
pub(super) async fn of_tenant(
    store: &DynamoStore,
    tenant: &TenantId,
) -> Result<Vec<TokenRecord>, StoreError> {
    let query = store.query().consistent_read(true).key_condition_expression("pk = :pk");
    let query = query.expression_attribute_values(":pk", text(keys::tokens(tenant)));
    let listed = store.items(query, usize::MAX).await?;
    let mut wanted = Vec::with_capacity(listed.len());
    for item in &listed {
        wanted.push(key(keys::token(&hash_of(item)?), keys::TOKEN));
    }
    let mut tokens = Vec::with_capacity(wanted.len());
    for batch in wanted.chunks(BATCH) {
        let mut left = batch.to_vec();
        // What does not fit in 1 MB, or is throttled, is handed back.
        while !left.is_empty() {
            let ask = KeysAndAttributes::builder().set_keys(Some(left)).consistent_read(true).build();
            let ask = ask.expect("there are keys to ask for");
            let output = retried(Again::IfUnknown, || {
                let request = store.client.batch_get_item().request_items(&store.table, ask.clone());
                async { request.send().await.map_err(CallError::from) }
            });
            let mut output = output.await.map_err(CallError::into_store)?;
            for item in output.responses.take().and_then(|mut r| r.remove(&store.table)).unwrap_or_default() {
                tokens.push(read(&item)?);
            }
            let unprocessed = output.unprocessed_keys.and_then(|mut keys| keys.remove(&store.table));
            left = unprocessed.map(|keys| keys.keys).unwrap_or_default();
        }
    }
    if tokens.len() != listed.len() {
        let why = format!("{} tokens are listed and {} are there", listed.len(), tokens.len());
        return Err(StoreError::Corrupt { key: keys::tokens(tenant), why });
    }
    tokens.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(tokens)
}

/// Sets a time of a token that is there, unless `keep` says that the one it has is to stay.
async fn set_time(
    store: &DynamoStore,
    hash: &[u8; 32],
    name: &str,
    keep: &str,
    at: Micros,
) -> Result<(), StoreError> {
    let done = retried(Again::IfUnknown, || {
        let request = store
            .client
            .update_item()
            .table_name(&store.table)
            .set_key(Some(key(keys::token(hash), keys::TOKEN)))
            .update_expression(format!("SET {name} = :at"))
            .condition_expression(format!(
                "attribute_exists(pk) AND (attribute_not_exists({name}) OR {name} {keep} :at)"
            ))
            .expression_attribute_values(":at", number(at.get()))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        async { request.send().await.map_err(|error: SdkError<UpdateItemError, _>| CallError::from(error)) }
    });
    match done.await {
        Ok(_) => Ok(()),
        Err(CallError::Condition(UpdateItemError::ConditionalCheckFailedException(failed))) => {
            // Either it has a time that is to stay, or there is no such token.
            let is_there = failed.item().is_some_and(|item| item.contains_key("pk"));
            if is_there { Ok(()) } else { Err(StoreError::NotFound) }
        }
        Err(error) => Err(refused(error)),
    }
}

/// See [`crate::store::Store::revoke_token`].
pub(super) async fn revoke(
    store: &DynamoStore,
    tenant: &TenantId,
    id: &str,
    at: Micros,
) -> Result<(), StoreError> {
    // A sort key has 1 to 1024 bytes (service quota); what no key can be is not there.
    if !(1..=1024).contains(&id.len()) {
        return Err(StoreError::NotFound);
    }
    let item = store.get(key(keys::tokens(tenant), id), None).await?.ok_or(StoreError::NotFound)?;
    set_time(store, &hash_of(&item)?, "r", ">", at).await
}

/// See [`crate::store::Store::touch_token`].
pub(super) async fn touch(store: &DynamoStore, hash: &[u8; 32], at: Micros) -> Result<(), StoreError> {
    set_time(store, hash, "u", "<", at).await
}

/// See [`crate::store::Store::create_tenant`].
pub(super) async fn create_tenant(store: &DynamoStore, tenant: &TenantRecord) -> Result<(), StoreError> {
    let mut item = key(keys::TENANTS, tenant.tenant.as_str());
    item.insert("t".into(), number(tenant.created_at.get()));
    put_once(store, item, Conflict::Exists).await
}

fn read_tenant(item: &Item) -> Result<TenantRecord, StoreError> {
    let tenant = TenantId::parse(get_text(item, "sk")?).map_err(|_| corrupt(item, "not a tenant's name"))?;
    Ok(TenantRecord { tenant, created_at: get_time(item, "t")? })
}

/// See [`crate::store::Store::tenant`].
pub(super) async fn tenant(
    store: &DynamoStore,
    tenant: &TenantId,
) -> Result<Option<TenantRecord>, StoreError> {
    let item = store.get(key(keys::TENANTS, tenant.as_str()), None).await?;
    item.as_ref().map(read_tenant).transpose()
}

/// See [`crate::store::Store::tenants`].
pub(super) async fn tenants(store: &DynamoStore) -> Result<Vec<TenantRecord>, StoreError> {
    let query = store.query().consistent_read(true).key_condition_expression("pk = :pk");
    let query = query.expression_attribute_values(":pk", AttributeValue::S(keys::TENANTS.to_owned()));
    store.items(query, usize::MAX).await?.iter().map(read_tenant).collect()
}
