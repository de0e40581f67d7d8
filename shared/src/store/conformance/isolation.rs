//! P10: tenants and sessions never bleed into each other, whatever their names.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{
    Batch, agent, check_line, entries_of, eventually, fresh_token, now, ok, same, sample_event, session,
};
use crate::ids::{SessionId, TenantId, hex};
use crate::limits;
use crate::random;
use crate::segment::SegmentMeta;
use crate::store::{FeedEntry, Order, Store, StoreError};

/// Session names that a careless key would confuse: prefixes of each other, separators of any backend, numbers as a
/// sort key pads them, names of other kinds of items, composed and decomposed letters, the first and the last
/// characters allowed, and the longest names.
fn tricky_names() -> Vec<SessionId> {
    let long = "x".repeat(limits::SESSION_ID_BYTES_MAX);
    let wide = "é".repeat(limits::SESSION_ID_BYTES_MAX / 2);
    let mut names: Vec<String> = [
        "a",
        "aa",
        "ab",
        "a ",
        " a",
        " ",
        "  ",
        "a/",
        "a//b",
        "a/b",
        "/",
        "a#",
        "#a",
        "a#b",
        "a#E#00000000000000000000",
        "a#Z",
        "Z",
        "E#",
        "B#",
        "E#00000000000000000000",
        "00000000000000000000",
        "0",
        "a\\0",
        "%00",
        "a%2Fb",
        "a:b",
        "a|b",
        "a\u{a0}",
        "a\u{ad}",
        "a\u{200b}",
        "\u{feff}a",
        "é",
        "e\u{301}",
        "A",
        "日本",
        "日",
        "🪢",
        "a\u{ffff}",
        "a\u{10ffff}",
        "\u{10ffff}",
        "_a",
        "_system/a",
        "..",
        ".",
        "~",
        "*",
        "a\"b",
        "a'b",
        "null",
        "-1",
    ]
    .map(str::to_owned)
    .into();
    names.extend([&long[..254], &long[..255], &long[..], &wide[..], &wide[..254]].map(str::to_owned));
    names.push(format!("{}y", &long[..255]));
    names.iter().map(|name| session(name)).collect()
}

/// Every pair of tenant and session has its own line, body, record and feed entries, and its agent (of the same name)
/// its own record; no tenant sees an entry of another in any list, key or token. Tenant names are prefixes of each
/// other, sessions have tricky names, and tenants use the same ones.
///
/// # Panics
/// If the store breaks it.
pub async fn tenants_and_sessions_are_apart(store: &dyn Store, lag: Duration) {
    let stem = format!("i{}", hex(&random::bytes::<6>()));
    let tenants: Vec<TenantId> = ["", "-", "-a", "a", "ab", "0", "00"]
        .into_iter()
        .map(|end| TenantId::parse(format!("{stem}{end}")).expect("a tenant's name"))
        .collect();
    let names = tricky_names();
    let mut lines: BTreeMap<(&TenantId, &SessionId), SegmentMeta> = BTreeMap::new();
    let mut feeds: BTreeMap<&TenantId, Vec<FeedEntry>> = BTreeMap::new();
    let start = now();
    let key: [u8; 32] = random::bytes();
    for (t, tenant) in tenants.iter().enumerate() {
        let mut number = 0;
        for chunk in names.chunks(20) {
            number += 1;
            let mut batch = Batch::at(tenant, start.plus_ms(number));
            for (n, name) in chunk.iter().enumerate() {
                // As many events as nobody else with a name like it has.
                let events = (0..=(n + t) % 5)
                    .map(|e| sample_event(name, name.as_str(), None, format!("[{t},{number},{n},{e}]")))
                    .collect();
                batch = batch.events(name, None, events);
            }
            if number == 1 {
                batch = batch.key(key, 60_000);
            }
            let commit = batch.done();
            ok(store.commit(commit.clone()).await, "commit");
            for (name, segment) in chunk.iter().zip(&commit.segments) {
                lines.insert((tenant, name), segment.meta.clone());
            }
            feeds.entry(tenant).or_default().extend(entries_of(&commit));
            let found = ok(store.idempotency(tenant, &key).await, "idempotency");
            assert_eq!(found.map(|f| f.segments.len()), Some(20), "the key of {tenant}");
        }
    }
    for ((tenant, name), meta) in &lines {
        let line = check_line(store, tenant, name, 10).await;
        assert_eq!(line, std::slice::from_ref(meta), "the line of {name} of {tenant}");
    }
    for tenant in &tenants {
        let mut expected = feeds[tenant].clone();
        expected.sort_by_key(|e| (e.meta.commit_id, e.session_id.clone()));
        eventually(lag, "each tenant's own lists", || async {
            same("feed", &ok(store.feed(tenant, None, 1000).await, "feed"), &expected)?;
            let mut page = ok(store.by_time(tenant, Order::Asc, None, None, 1000).await, "by_time").entries;
            page.sort_by_key(|e| (e.meta.commit_id, e.session_id.clone()));
            same("by time", &page, &expected)?;
            let mut sessions = ok(store.sessions(tenant, None, None, 1000).await, "sessions");
            sessions.sort_by(|a, b| a.session_id.cmp(&b.session_id));
            let mut sorted = names.clone();
            sorted.sort();
            same("sessions", &sessions.iter().map(|s| s.session_id.clone()).collect(), &sorted)?;
            let agents = ok(store.agents(tenant, None, 1000).await, "agents");
            let ids: Vec<_> = agents.iter().map(|a| a.agent_id.as_str()).collect();
            same("agents, by id", &ids, &sorted.iter().map(SessionId::as_str).collect())?;
            for name in &names {
                let record = ok(store.session(tenant, name).await, "session");
                same("head", &record.map(|r| r.head), &Some(lines[&(tenant, name)].head()))?;
                let of_agent =
                    ok(store.sessions(tenant, Some(&agent(name.as_str())), None, 10).await, "sessions");
                same(
                    "its sessions",
                    &of_agent.into_iter().map(|r| r.session_id).collect(),
                    &vec![name.clone()],
                )?;
                let record = ok(store.agent(tenant, &agent(name.as_str())).await, "agent");
                let counts = record.map(|r| (r.session_count, r.event_count));
                same("its agent", &counts, &Some((1, lines[&(tenant, name)].summary.events)))?;
            }
            Ok(())
        })
        .await;
    }
    strangers_see_nothing(store, &stem, &names[0], &key).await;
    let tokens: Vec<_> = tenants.iter().map(fresh_token).collect();
    for token in &tokens {
        ok(store.create_token(token, false).await, "create_token");
    }
    for (tenant, token) in tenants.iter().zip(&tokens) {
        assert_eq!(
            ok(store.tokens(tenant).await, "tokens"),
            std::slice::from_ref(token),
            "tokens of {tenant}"
        );
        for other in tenants.iter().filter(|t| *t != tenant) {
            let result = store.revoke_token(other, &token.id, now()).await;
            assert!(
                matches!(result, Err(StoreError::NotFound)),
                "{other} revoked a token of {tenant}: {result:?}"
            );
        }
    }
}

/// A tenant whose name only begins or ends otherwise has nothing.
async fn strangers_see_nothing(store: &dyn Store, stem: &str, name: &SessionId, key: &[u8; 32]) {
    for stranger in [format!("{stem}b"), format!("{stem}aa"), stem[..stem.len() - 1].to_owned()] {
        let tenant = TenantId::parse(stranger).expect("a tenant's name");
        assert_eq!(ok(store.head(&tenant, name).await, "head"), None);
        assert_eq!(ok(store.feed(&tenant, None, 10).await, "feed"), []);
        assert_eq!(ok(store.sessions(&tenant, None, None, 10).await, "sessions"), []);
        assert_eq!(ok(store.session(&tenant, name).await, "session"), None);
        assert_eq!(ok(store.agents(&tenant, None, 10).await, "agents"), []);
        assert_eq!(ok(store.by_time(&tenant, Order::Desc, None, None, 10).await, "by_time").entries, []);
        assert_eq!(ok(store.tokens(&tenant).await, "tokens"), []);
        assert_eq!(ok(store.idempotency(&tenant, key).await, "idempotency"), None);
    }
}
