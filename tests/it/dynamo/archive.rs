//! What the archive makes of a session's items: how they expire, before the table deletes them and after, what is
//! listed of what has gone, and what that costs.

use std::sync::Arc;

use quipu_core::clock::{Clock as _, ManualClock};
use quipu_core::ids::{AgentId, Seq, SessionId, TenantId};
use quipu_core::segment::{Head, SegmentMeta};
use quipu_core::store::conformance::{
    Batch, agent, fresh_session, fresh_tenant, noise, now, sample_event, session, session_of,
};
use quipu_core::store::dynamo::DynamoStore;
use quipu_core::store::keys::dynamo as keys;
use quipu_core::store::{FeedPosition, Order, Pointer, SessionRecord, Store, StoreError};
use quipu_core::time::Micros;
use quipu_tests::emulator::{call, fresh_table};
use quipu_tests::{Emulator, FaultProxy, ledger_on, store_with_clock};
use serde_json::{Value, json};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// A table, a store whose clock stands where it is put, and a session of it.
struct Ground {
    table: String,
    clock: Arc<ManualClock>,
    store: Arc<DynamoStore>,
    tenant: TenantId,
}

impl Ground {
    fn new() -> Self {
        let table = fresh_table(Emulator::dynoxide().url());
        let clock = Arc::new(ManualClock::new(now()));
        let store = store_with_clock(Emulator::dynoxide().url(), &table, clock.clone());
        Self { table, clock, store, tenant: fresh_tenant() }
    }

    /// Writes a segment for each list of agents, an event each.
    async fn write(&self, session: &SessionId, segments: &[&[&str]]) -> Vec<SegmentMeta> {
        let mut metas: Vec<SegmentMeta> = Vec::new();
        let mut head: Option<Head> = None;
        for agents in segments {
            let events = agents.iter().map(|name| sample_event(session, name, None, "1".into()));
            let commit = Batch::new(&self.tenant).events(session, head, events.collect()).done();
            self.store.commit(commit.clone()).await.unwrap();
            let meta = commit.segments[0].meta.clone();
            head = Some(meta.head());
            metas.push(meta);
        }
        metas
    }

    /// Moves the pointer over these segments and marks them, as the archiver does.
    async fn archive(&self, session: &SessionId, metas: &[SegmentMeta], expires_at: Option<Micros>) {
        let archived = session_of(session, metas).unwrap();
        let pointer = Pointer { archived, first_batch: 1, last_batch: 1, scrubbed: 0 };
        self.store.advance_pointer(&self.tenant, &pointer).await.unwrap();
        for meta in metas {
            self.store.mark_archived(&self.tenant, session, meta, 1, expires_at).await.unwrap();
        }
    }

    fn item(&self, session: &SessionId, sk: &str) -> Value {
        json!({ "TableName": self.table, "Key": { "pk": { "S": keys::session(&self.tenant, session) }, "sk": { "S": sk } } })
    }

    async fn call(&self, operation: &str, input: Value) -> Value {
        let target = format!("DynamoDB_20120810.{operation}");
        let url = Emulator::dynoxide().url();
        tokio::task::spawn_blocking(move || call(url, &target, &input)).await.unwrap()
    }

    /// The `ttl` of an item, s.
    async fn ttl(&self, session: &SessionId, sk: &str) -> Option<i64> {
        let item = self.call("GetItem", self.item(session, sk)).await["Item"].take();
        assert!(item.is_object(), "no item {sk}");
        item["ttl"]["N"].as_str().map(|digits| digits.parse().unwrap())
    }

    /// Deletes an item, as the table does when its time has come.
    async fn delete(&self, session: &SessionId, sk: &str) {
        let mut request = self.item(session, sk);
        request["ReturnValues"] = json!("ALL_OLD");
        let old = self.call("DeleteItem", request).await;
        assert!(old["Attributes"].is_object(), "there was nothing to delete: {old}");
    }

    async fn agent(&self, name: &str) -> Option<(u64, u64)> {
        let record = self.store.agent(&self.tenant, &agent(name)).await.unwrap();
        record.map(|record| (record.session_count, record.event_count))
    }
}

/// An expired segment is not seen from a minute before its time on, whether the table has deleted it or not; the
/// session's head and record go on counting it.
#[tokio::test]
async fn an_expired_segment_is_not_seen_before_it_is_deleted() {
    let ground = Ground::new();
    let (store, tenant, session) = (&*ground.store, &ground.tenant, &fresh_session());
    let metas = ground.write(session, &[&["a"], &["a"], &["a"]]).await;
    let expires_at = ground.clock.now().plus_ms(DAY_MS);
    ground.archive(session, &metas[..2], Some(expires_at)).await;
    let ledger = ledger_on(ground.store.clone(), ground.clock.clone());
    let id = metas[0].commit_id.event(1);
    let sees = async |left: &[SegmentMeta], what: &str| {
        for meta in &metas {
            let there = left.contains(meta);
            let at = store.commit_at(tenant, session, meta.first).await.unwrap();
            assert_eq!(at, there.then_some(meta.commit_id), "{what}: commit at {}", meta.first);
            let body = store.body(tenant, session, meta.first).await;
            match body {
                Ok(_) => assert!(there, "{what}: the body at {}", meta.first),
                Err(StoreError::NotFound) => assert!(!there, "{what}: no body at {}", meta.first),
                Err(error) => panic!("{what}: {error}"),
            }
        }
        for from in 0..3 {
            let from = Seq::new(from).unwrap();
            let up = store.segments(tenant, session, from, Order::Asc, 10).await.unwrap();
            let expected: Vec<_> = left.iter().filter(|meta| meta.last >= from).cloned().collect();
            assert_eq!(up, expected, "{what}: up from {from}");
            let mut down = store.segments(tenant, session, from, Order::Desc, 10).await.unwrap();
            down.reverse();
            let expected: Vec<_> = left.iter().filter(|meta| meta.first <= from).cloned().collect();
            assert_eq!(down, expected, "{what}: down from {from}");
        }
        // The index leads to it; the segment says that it has gone.
        let found = ledger.event(tenant, id).await.unwrap();
        assert_eq!(found.is_some(), left.contains(&metas[0]), "{what}: by its id");
        assert_eq!(store.head(tenant, session).await.unwrap(), Some(metas[2].head()), "{what}: head");
        assert_eq!(store.session(tenant, session).await.unwrap(), session_of(session, &metas), "{what}");
        assert_eq!(ground.agent("a").await, Some((1, 3)), "{what}: the agent");
    };
    sees(&metas, "archived").await;
    // The `ttl` is cut to the second.
    ground.clock.advance_ms(DAY_MS - 61_000);
    sees(&metas, "more than a minute before").await;
    ground.clock.advance_ms(1_000);
    sees(&metas[2..], "a minute before").await;
    ground.clock.advance_ms(10 * DAY_MS);
    sees(&metas[2..], "long expired").await;
    ground.delete(session, &keys::segment(metas[1].first)).await;
    sees(&metas[2..], "one deleted").await;
    ground.delete(session, &keys::segment(metas[0].first)).await;
    sees(&metas[2..], "both deleted").await;
}

/// A run that comes again never moves an expiry, and one that never expires takes none away.
#[tokio::test]
async fn an_expiry_is_set_once() {
    let ground = Ground::new();
    let session = fresh_session();
    let metas = ground.write(&session, &[&["a"]]).await;
    let (store, tenant, meta) = (&ground.store, &ground.tenant, &metas[0]);
    let sk = keys::segment(meta.first);
    let at = |days: i64| now().plus_ms(days * DAY_MS);
    let seconds = |time: Micros| time.unix_ms() / 1000;
    let mark = async |meta: &SegmentMeta, expires_at| {
        store.mark_archived(tenant, &session, meta, 1, expires_at).await.unwrap();
    };
    // Another commit's: nothing happens.
    let mut other = meta.clone();
    other.commit_id = quipu_core::store::conformance::commit_id(now());
    mark(&other, Some(at(1))).await;
    assert_eq!(ground.ttl(&session, &sk).await, None);
    assert_eq!(store.open_segments(tenant, None, 10).await.unwrap().len(), 1);

    mark(meta, None).await;
    assert_eq!(ground.ttl(&session, &sk).await, None, "kept for ever");
    assert!(store.open_segments(tenant, None, 10).await.unwrap().is_empty());
    let first = at(3);
    mark(meta, Some(first)).await;
    for again in [Some(at(2)), Some(at(9)), None] {
        mark(meta, again).await;
        assert_eq!(ground.ttl(&session, &sk).await, Some(seconds(first)));
    }
    // One that has gone does not come back.
    ground.delete(&session, &sk).await;
    mark(meta, Some(at(1))).await;
    let item = ground.call("GetItem", ground.item(&session, &sk)).await;
    assert!(item["Item"].is_null(), "{item}");
}

/// Parts never expire before their commit item, whichever run set which time; once all are in their last minute, a
/// part that has gone makes nothing corrupt.
#[tokio::test]
async fn a_commit_item_does_not_outlive_its_parts() {
    let ground = Ground::new();
    let (store, tenant, session) = (&*ground.store, &ground.tenant, &fresh_session());
    let body = noise(7, 2 * quipu_core::limits::ITEM_BODY_BYTES_MAX + 1);
    let commit = Batch::new(tenant).opaque(session, None, body.clone()).done();
    store.commit(commit.clone()).await.unwrap();
    let meta = &commit.segments[0].meta;
    let sk = |part| match part {
        0 => keys::segment(meta.first),
        part => keys::part(meta.first, meta.commit_id, part),
    };
    let expires_at = ground.clock.now().plus_ms(DAY_MS);
    // A run that came no further than the first part.
    let mut partly = ground.item(session, &sk(1));
    partly["UpdateExpression"] = json!("SET #ttl = :ttl");
    partly["ExpressionAttributeNames"] = json!({ "#ttl": "ttl" });
    partly["ExpressionAttributeValues"] =
        json!({ ":ttl": { "N": (expires_at.unix_ms() / 1000).to_string() } });
    ground.call("UpdateItem", partly).await;
    ground.archive(session, std::slice::from_ref(meta), Some(expires_at.plus_ms(DAY_MS))).await;
    let seconds = expires_at.unix_ms() / 1000;
    assert_eq!(ground.ttl(session, &sk(0)).await, Some(seconds));
    assert_eq!(ground.ttl(session, &sk(1)).await, Some(seconds));
    assert_eq!(ground.ttl(session, &sk(2)).await, Some(seconds + DAY_MS / 1000));

    assert_eq!(store.body(tenant, session, meta.first).await.unwrap(), body);
    ground.clock.advance_ms(DAY_MS - 60_000);
    let gone = async |what: &str| {
        let read = store.body(tenant, session, meta.first).await;
        assert!(matches!(read, Err(StoreError::NotFound)), "{what}: {:?}", read.map(|b| b.len()));
    };
    gone("in its last minute").await;
    ground.clock.advance_ms(60_001);
    ground.delete(session, &sk(1)).await;
    gone("a part has gone").await;
    ground.delete(session, &sk(0)).await;
    gone("and then the segment").await;
    assert_eq!(store.head(tenant, session).await.unwrap(), Some(meta.head()));
}

/// What has expired and is not deleted yet is passed over in few calls, however much it is.
#[tokio::test]
async fn a_run_of_expired_segments_is_passed_over_quickly() {
    let ground = Ground::new();
    let session = fresh_session();
    let metas = ground.write(&session, &[&["a"][..]; 100]).await;
    ground.archive(&session, &metas[..99], Some(ground.clock.now())).await;
    let proxy = FaultProxy::start(Emulator::dynoxide().url());
    let store = store_with_clock(proxy.url(), &ground.table, ground.clock.clone());
    for (limit, most) in [(1, 7), (100, 2)] {
        proxy.reset();
        let found = store.segments(&ground.tenant, &session, Seq::ZERO, Order::Asc, limit).await.unwrap();
        assert_eq!(found, metas[99..]);
        assert!(proxy.calls("Query") <= most, "{} queries for a page of {limit}", proxy.calls("Query"));
    }
    // The record is the pointer and what is above it: what lies below is not read, let alone all of it.
    proxy.reset();
    let record = store.session(&ground.tenant, &session).await.unwrap();
    assert_eq!((record, proxy.calls("Query")), (session_of(&session, &metas), 1));
}

/// Sessions that have gone, that have gone in part, that are archived and there, and that are not archived: each is
/// listed once, newest first, in pages of any size.
#[tokio::test]
async fn sessions_are_listed_whatever_has_gone() {
    let ground = Ground::new();
    let (store, tenant) = (&*ground.store, &ground.tenant);
    let mut expected = Vec::new();
    for number in 0..12_usize {
        let name = session(&format!("s {number}"));
        let mine: &[&str] = if number % 3 == 0 { &["all", "third"] } else { &["all"] };
        let metas = ground.write(&name, &[mine, &["all"], &["all"]]).await;
        // Archived so far, and gone so far.
        let (archived, gone) = [(0, 0), (2, 0), (2, 1), (3, 3)][number % 4];
        if archived > 0 {
            ground.archive(&name, &metas[..archived], Some(now().plus_ms(DAY_MS))).await;
        }
        for meta in &metas[..gone] {
            ground.delete(&name, &keys::segment(meta.first)).await;
        }
        expected.push(session_of(&name, &metas).unwrap());
        assert_eq!(store.session(tenant, &name).await.unwrap().as_ref(), expected.last());
    }
    let place = |record: &SessionRecord| FeedPosition {
        commit_id: record.first_commit,
        session_id: record.session_id.clone(),
    };
    expected.sort_by_key(|record| std::cmp::Reverse(place(record)));
    let filters: [(Option<AgentId>, usize); 3] =
        [(None, 12), (Some(agent("all")), 12), (Some(agent("third")), 4)];
    for (filter, count) in filters {
        let mut expected = expected.clone();
        expected.retain(|record| {
            let held = |agent: &AgentId| record.summary.agents.count(agent.as_str()) > Some(0);
            filter.as_ref().is_none_or(held)
        });
        assert_eq!(expected.len(), count);
        for limit in [1, 2, 5, 12, 100] {
            let mut found: Vec<SessionRecord> = Vec::new();
            loop {
                let after = found.last().map(place);
                let page = store.sessions(tenant, filter.as_ref(), after.as_ref(), limit).await.unwrap();
                assert!(page.len() <= limit && found.len() <= expected.len());
                if page.is_empty() {
                    break;
                }
                found.extend(page);
            }
            assert_eq!(found, expected, "sessions of {filter:?} in pages of {limit}");
        }
    }
    assert_eq!(ground.agent("all").await, Some((12, 36)), "each event once, whatever has gone");
    assert_eq!(ground.agent("third").await, Some((4, 4)));
}

/// An archived part that names too many agents tells of none of them: only its segments do, while they are there.
#[tokio::test]
async fn agents_of_a_session_of_too_many_are_known_while_its_segments_are() {
    let ground = Ground::new();
    let session = fresh_session();
    let names: Vec<String> = (0..40).map(|n| format!("agent-{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let metas = ground.write(&session, &[&names[..20], &names[20..], &["agent-0", "last"]]).await;
    ground.archive(&session, &metas[..2], Some(now().plus_ms(DAY_MS))).await;
    assert_eq!(ground.agent("agent-0").await, Some((1, 2)));
    assert_eq!(ground.agent("agent-39").await, Some((1, 1)));
    ground.delete(&session, &keys::segment(metas[1].first)).await;
    assert_eq!(ground.agent("agent-0").await, Some((1, 2)), "its segments are there");
    assert_eq!(ground.agent("agent-39").await, None, "the one that named it has gone");
    assert_eq!(ground.agent("last").await, Some((1, 1)));
    let all = ground.store.agents(&ground.tenant, None, 100).await.unwrap();
    assert_eq!(all.len(), 21);
}

/// Marking what is archived changes nothing that the feed's index holds, or it would be written again.
#[tokio::test]
async fn archiving_writes_to_one_index_only() {
    let ground = Ground::new();
    let session = fresh_session();
    let metas = ground.write(&session, &[&["a"]]).await;
    let before = ground.store.feed(&ground.tenant, None, 10).await.unwrap();
    let sk = keys::segment(metas[0].first);
    let projected = ["pk", "sk", "f", "c", "m"];
    let item = async || {
        let item = ground.call("GetItem", ground.item(&session, &sk)).await["Item"].take();
        projected.map(|name| item[name].clone())
    };
    let was = item().await;
    assert!(was.iter().all(|value| !value.is_null()), "{was:?}");
    ground.archive(&session, &metas, Some(now().plus_ms(DAY_MS))).await;
    assert_eq!(item().await, was);
    assert_eq!(ground.store.feed(&ground.tenant, None, 10).await.unwrap(), before);
    assert!(ground.store.open_segments(&ground.tenant, None, 10).await.unwrap().is_empty());
}
