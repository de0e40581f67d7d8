//! Tokens and tenants.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::{fresh_tenant, now, ok};
use crate::auth::{Scope, Scopes, TokenRecord};
use crate::ids::{TenantId, hex};
use crate::random;
use crate::store::{Conflict, Store, StoreError, TenantRecord};

/// A token that nobody else has.
pub fn fresh_token(tenant: &TenantId) -> TokenRecord {
    TokenRecord {
        id: uuid::Builder::from_random_bytes(random::bytes()).into_uuid().to_string(),
        tenant: tenant.clone(),
        name: "a token: ünïcode \"and\" quotes".to_owned(),
        scopes: Scopes::NONE.with(Scope::EventsRead).with(Scope::TokensAdmin),
        hash: random::bytes(),
        created_at: now(),
        expires_at: Some(now().plus_ms(60_000)),
        revoked_at: None,
        last_used_at: None,
    }
}

/// A token is found by its hash and in the list of its tenant, ordered by id, every field as it was written, at once.
/// Another tenant does not see it; an unknown hash finds nothing.
///
/// # Panics
/// If the store breaks it.
pub async fn tokens_are_found(store: &dyn Store) {
    let (tenant, other) = (fresh_tenant(), fresh_tenant());
    assert_eq!(ok(store.tokens(&tenant).await, "tokens"), []);
    let mut tokens: Vec<_> = (0..12).map(|_| fresh_token(&tenant)).collect();
    tokens[1].expires_at = None;
    tokens[2].scopes = Scopes::NONE.with(Scope::All);
    tokens[3].name = String::new();
    for token in &tokens {
        assert_eq!(ok(store.token_by_hash(&token.hash).await, "token_by_hash"), None);
        ok(store.create_token(token, false).await, "create_token");
        assert_eq!(ok(store.token_by_hash(&token.hash).await, "token_by_hash").as_ref(), Some(token));
    }
    let foreign = fresh_token(&other);
    ok(store.create_token(&foreign, false).await, "create_token");
    tokens.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(ok(store.tokens(&tenant).await, "tokens"), tokens, "the tokens of a tenant, by id");
    assert_eq!(ok(store.tokens(&other).await, "tokens"), [foreign], "the tokens of another tenant");
    let mut close = tokens[0].hash;
    close[31] ^= 1;
    assert_eq!(ok(store.token_by_hash(&close).await, "token_by_hash"), None, "a hash that is nearly right");
}

/// Revoking is seen by hash and in the list, may be done again, and keeps the earlier time. A token of another
/// tenant, or none, is `NotFound` and stays as it is.
///
/// # Panics
/// If the store breaks it.
pub async fn token_revocation(store: &dyn Store) {
    let (tenant, other) = (fresh_tenant(), fresh_tenant());
    let (token, bystander) = (fresh_token(&tenant), fresh_token(&tenant));
    ok(store.create_token(&token, false).await, "create_token");
    ok(store.create_token(&bystander, false).await, "create_token");
    let at = now().plus_ms(1000);
    for (whose, id) in [(&other, token.id.as_str()), (&tenant, "no-such-token"), (&tenant, "")] {
        let result = store.revoke_token(whose, id, at).await;
        assert!(matches!(result, Err(StoreError::NotFound)), "revoking {id:?} of {whose}: {result:?}");
    }
    assert_eq!(ok(store.token_by_hash(&token.hash).await, "token_by_hash"), Some(token.clone()));
    for later_ms in [0, 0, 5000] {
        ok(store.revoke_token(&tenant, &token.id, at.plus_ms(later_ms)).await, "revoke_token");
        let revoked = TokenRecord { revoked_at: Some(at), ..token.clone() };
        let found = ok(store.token_by_hash(&token.hash).await, "token_by_hash");
        assert_eq!(found.as_ref(), Some(&revoked), "by hash, revoked {later_ms} ms later again");
        let listed = ok(store.tokens(&tenant).await, "tokens");
        assert!(listed.contains(&revoked), "the list does not say revoked at {at:?}: {listed:?}");
        assert!(listed.contains(&bystander), "another token was revoked too");
    }
    // An earlier time never makes a token live longer than it would have.
    ok(store.revoke_token(&tenant, &token.id, at.plus_ms(-500)).await, "revoke_token");
    let found = ok(store.token_by_hash(&token.hash).await, "token_by_hash");
    let revoked_at = found.and_then(|t| t.revoked_at);
    assert!(revoked_at.is_some_and(|r| r <= at), "a revocation moved to {revoked_at:?}");
}

/// The last use is noted by hash and changes nothing else; a hash that nobody has is `NotFound` and makes no token.
///
/// # Panics
/// If the store breaks it.
pub async fn token_use(store: &dyn Store) {
    let tenant = fresh_tenant();
    let token = fresh_token(&tenant);
    let result = store.touch_token(&token.hash, now()).await;
    assert!(matches!(result, Err(StoreError::NotFound)), "touching no token: {result:?}");
    assert_eq!(ok(store.token_by_hash(&token.hash).await, "token_by_hash"), None);
    ok(store.create_token(&token, false).await, "create_token");
    for later_ms in [0, 3_600_000] {
        let at = now().plus_ms(later_ms);
        ok(store.touch_token(&token.hash, at).await, "touch_token");
        let used = TokenRecord { last_used_at: Some(at), ..token.clone() };
        assert_eq!(ok(store.token_by_hash(&token.hash).await, "token_by_hash"), Some(used.clone()));
        assert_eq!(ok(store.tokens(&tenant).await, "tokens"), [used]);
    }
}

/// A use that is noted while a token is revoked does not undo the revocation, nor the other way round.
///
/// # Panics
/// If the store breaks it.
pub async fn token_use_does_not_undo_revocation(store: Arc<dyn Store>) {
    let tenant = fresh_tenant();
    for _ in 0..20 {
        let token = fresh_token(&tenant);
        ok(store.create_token(&token, false).await, "create_token");
        let at = now();
        let mut tasks = JoinSet::new();
        for n in 0..4 {
            let (store, tenant, token) = (store.clone(), tenant.clone(), token.clone());
            tasks.spawn(async move {
                if n == 2 {
                    ok(store.revoke_token(&tenant, &token.id, at).await, "revoke_token");
                } else {
                    ok(store.touch_token(&token.hash, at).await, "touch_token");
                }
            });
        }
        tasks.join_all().await;
        let expected = TokenRecord { revoked_at: Some(at), last_used_at: Some(at), ..token.clone() };
        let found = ok(store.token_by_hash(&token.hash).await, "token_by_hash");
        assert_eq!(found, Some(expected), "after a use and a revocation at once");
    }
}

/// Of twenty first tokens at once one is written, the others are `Conflict(Exists)` and leave nothing, and so is
/// every later one. Tokens that are not first neither count nor are stopped. Needs a store in which no first token was
/// written: the one function that cannot be called twice on a store.
///
/// # Panics
/// If the store breaks it.
pub async fn first_token_only_once(store: Arc<dyn Store>) {
    let tenant = fresh_tenant();
    assert!(!ok(store.bootstrapped().await, "bootstrapped"), "the store had a first token already");
    let plain = fresh_token(&tenant);
    ok(store.create_token(&plain, false).await, "create_token");
    assert!(!ok(store.bootstrapped().await, "bootstrapped"), "a plain token counted as the first");
    let mut racers = JoinSet::new();
    for _ in 0..20 {
        let (store, token) = (store.clone(), fresh_token(&tenant));
        racers.spawn(async move {
            let result = store.create_token(&token, true).await;
            (token, result)
        });
    }
    let mut expected = vec![plain];
    for (token, result) in racers.join_all().await {
        let found = ok(store.token_by_hash(&token.hash).await, "token_by_hash");
        match result {
            Ok(()) => {
                assert_eq!(found.as_ref(), Some(&token));
                expected.push(token);
            }
            Err(StoreError::Conflict(Conflict::Exists)) => assert_eq!(found, None, "a loser left its token"),
            Err(error) => panic!("a first token: {error}"),
        }
    }
    assert_eq!(expected.len(), 2, "one of twenty first tokens is written");
    assert!(ok(store.bootstrapped().await, "bootstrapped"), "not bootstrapped after the first token");
    let late = store.create_token(&fresh_token(&fresh_tenant()), true).await;
    assert!(matches!(late, Err(StoreError::Conflict(Conflict::Exists))), "a late first token: {late:?}");
    // Revoking it does not open the door again.
    ok(store.revoke_token(&tenant, &expected[1].id, now()).await, "revoke_token");
    let late = store.create_token(&fresh_token(&tenant), true).await;
    assert!(matches!(late, Err(StoreError::Conflict(Conflict::Exists))), "after a revocation: {late:?}");
    let after = fresh_token(&tenant);
    ok(store.create_token(&after, false).await, "a plain token after the first");
    assert_eq!(ok(store.tokens(&tenant).await, "tokens").len(), 3);
}

/// A tenant is made once, also by twenty at once, is found by its name and in the list, which is ordered by name.
/// Making it again is `Conflict(Exists)` and changes nothing.
///
/// # Panics
/// If the store breaks it.
pub async fn tenants_are_made_once(store: Arc<dyn Store>) {
    let stem = hex(&random::bytes::<6>());
    let longest = format!("{stem}-{}", "x".repeat(63 - 13));
    let names = [stem.clone(), format!("{stem}-"), format!("{stem}0"), format!("{stem}a"), longest];
    let mut made = Vec::new();
    for name in names.iter().rev() {
        let tenant = TenantId::parse(name.as_str()).expect("a tenant's name");
        assert_eq!(ok(store.tenant(&tenant).await, "tenant"), None);
        let record = TenantRecord { tenant: tenant.clone(), created_at: now() };
        ok(store.create_tenant(&record).await, "create_tenant");
        let again = TenantRecord { created_at: now().plus_ms(99), ..record.clone() };
        let result = store.create_tenant(&again).await;
        assert!(matches!(result, Err(StoreError::Conflict(Conflict::Exists))), "made twice: {result:?}");
        assert_eq!(
            ok(store.tenant(&tenant).await, "tenant").as_ref(),
            Some(&record),
            "after a second making"
        );
        made.push(record);
    }
    let raced = TenantId::parse(format!("{stem}-race")).expect("a tenant's name");
    let mut racers = JoinSet::new();
    for n in 0..20 {
        let (store, tenant) = (store.clone(), raced.clone());
        racers.spawn(async move {
            let record = TenantRecord { tenant, created_at: now().plus_ms(n) };
            let result = store.create_tenant(&record).await;
            (record, result)
        });
    }
    let mut winners = Vec::new();
    for (record, result) in racers.join_all().await {
        match result {
            Ok(()) => winners.push(record),
            Err(StoreError::Conflict(Conflict::Exists)) => {}
            Err(error) => panic!("a tenant made by twenty: {error}"),
        }
    }
    assert_eq!(winners.len(), 1, "one of twenty makes a tenant");
    assert_eq!(ok(store.tenant(&raced).await, "tenant"), Some(winners[0].clone()));
    made.extend(winners);
    made.sort_by(|a, b| a.tenant.cmp(&b.tenant));
    let all = ok(store.tenants().await, "tenants");
    assert!(all.is_sorted_by(|a, b| a.tenant < b.tenant), "tenants are not listed by name: {all:?}");
    let ours: Vec<_> = all.into_iter().filter(|t| t.tenant.as_str().starts_with(&stem)).collect();
    assert_eq!(ours, made, "the tenants that were made");
}
