//! P2 on DynamoDB while a session's items expire. What is archived is deleted as the table's own expiry would: in
//! every order of four segments, in random orders of more with parts among them, between appends and during them.
//! The head, the line of sequences and hashes, the session's record, the lists of sessions and agents, the feed, what
//! is open and every read of what is still there stay right.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use quipu_core::clock::{Clock as _, SystemClock};
use quipu_core::event::NewEvent;
use quipu_core::ids::{Seq, SessionId, TenantId};
use quipu_core::ledger::Ledger;
use quipu_core::segment::SegmentMeta;
use quipu_core::store::conformance::{
    Dice, agent, fresh_session, fresh_tenant, noisy_text, sample_event, session_of,
};
use quipu_core::store::dynamo::DynamoStore;
use quipu_core::store::keys::dynamo as keys;
use quipu_core::store::{Order, Pointer, SessionRecord, Store};
use quipu_tests::emulator::{call, fresh_table};
use quipu_tests::{Emulator, ledger_on, store_at};
use serde_json::json;
use tokio::task::JoinSet;

/// An item that expires.
#[derive(Debug, Clone, Copy)]
struct Item {
    /// The segment's number in the session.
    segment: usize,
    /// 0 for the commit item, or the number of a further part.
    part: usize,
}

/// A session on a table, and everything that was ever written to it.
struct Line {
    table: String,
    store: Arc<DynamoStore>,
    tenant: TenantId,
    session: SessionId,
    metas: Vec<SegmentMeta>,
    archived: usize,
    /// What has expired.
    gone: Vec<Item>,
    /// Writes and remembers the head.
    warm: Ledger,
}

fn ledger(store: &Arc<DynamoStore>) -> Ledger {
    ledger_on(store.clone(), Arc::new(SystemClock))
}

impl Line {
    fn begin(table: &str) -> Self {
        let store = store_at(Emulator::dynoxide().url(), table);
        let warm = ledger(&store);
        Self {
            table: table.to_owned(),
            store,
            tenant: fresh_tenant(),
            session: fresh_session(),
            metas: Vec::new(),
            archived: 0,
            gone: Vec::new(),
            warm,
        }
    }

    fn small(&self) -> Vec<NewEvent> {
        let at = self.metas.len();
        let event = |i: usize| sample_event(&self.session, "a", None, format!("[{at},{i}]"));
        (0..1 + at % 3).map(event).collect()
    }

    /// Appends by a writer that knows the head, or by one that has just started.
    async fn append(&mut self, is_warm: bool, events: Vec<NewEvent>) {
        let before = self.metas.last().cloned();
        let count = events.len() as u64;
        let cold = ledger(&self.store);
        let writer = if is_warm { &self.warm } else { &cold };
        let done = writer.append(&self.tenant, events, None).await.unwrap();
        let first = before.as_ref().map_or(0, |meta| meta.last.get() + 1);
        let placed: Vec<u64> = done.events.iter().map(|(_, placed)| placed.sequence.get()).collect();
        assert_eq!(placed, (first..first + count).collect::<Vec<_>>(), "the sequence goes on");
        let found = self.store.segments(&self.tenant, &self.session, Seq::MAX, Order::Desc, 1).await.unwrap();
        let meta = found[0].clone();
        assert_eq!((meta.first.get(), meta.last_hash), (first, done.standings[0].hash));
        assert_eq!(Some(meta.prev_hash), before.map(|b| b.last_hash).or(Some(meta.prev_hash)), "one line");
        self.metas.push(meta);
    }

    /// Moves the pointer over the first `count` segments and marks them, as the archiver does.
    async fn archive(&mut self, count: usize) {
        let archived = session_of(&self.session, &self.metas[..count]).unwrap();
        let pointer = Pointer { archived, first_batch: 1, last_batch: 7, scrubbed: 0 };
        self.store.advance_pointer(&self.tenant, &pointer).await.unwrap();
        let expires_at = Some(SystemClock.now().plus_ms(7 * 24 * 60 * 60 * 1000));
        for meta in &self.metas[..count] {
            self.store.mark_archived(&self.tenant, &self.session, meta, 7, expires_at).await.unwrap();
        }
        self.archived = self.archived.max(count);
    }

    /// The items of what is archived.
    fn items(&self) -> Vec<Item> {
        let parts =
            |meta: &SegmentMeta| (meta.body_bytes as usize).div_ceil(quipu_core::limits::ITEM_BODY_BYTES_MAX);
        let archived = self.metas[..self.archived].iter().enumerate();
        archived
            .flat_map(|(segment, meta)| (0..parts(meta)).map(move |part| Item { segment, part }))
            .collect()
    }

    fn delete_request(&self, item: Item) -> serde_json::Value {
        let meta = &self.metas[item.segment];
        let sk = match item.part {
            0 => keys::segment(meta.first),
            part => keys::part(meta.first, meta.commit_id, part),
        };
        let key = json!({ "pk": { "S": keys::session(&self.tenant, &self.session) }, "sk": { "S": sk } });
        json!({ "TableName": self.table, "Key": key, "ReturnValues": "ALL_OLD" })
    }

    /// Deletes an item as the table does when its time has come.
    async fn expire(&mut self, item: Item) {
        delete(self.delete_request(item)).await;
        self.gone.push(item);
    }

    fn is_there(&self, segment: usize) -> bool {
        !self.gone.iter().any(|gone| gone.segment == segment && gone.part == 0)
    }

    fn is_whole(&self, segment: usize) -> bool {
        !self.gone.iter().any(|gone| gone.segment == segment)
    }

    /// The head and the record, against everything that was written.
    async fn check_end(&self, what: &str) -> Option<SessionRecord> {
        let (store, tenant, session) = (&*self.store, &self.tenant, &self.session);
        let last = self.metas.last().unwrap();
        assert_eq!(store.head(tenant, session).await.unwrap(), Some(last.head()), "{what}: head");
        let record = store.session(tenant, session).await.unwrap();
        assert_eq!(record, session_of(session, &self.metas), "{what}: the record counts what is gone too");
        record
    }

    /// Everything that can be asked of the session.
    async fn check(&self, what: &str) {
        let (store, tenant, session) = (&*self.store, &self.tenant, &self.session);
        let record = self.check_end(what).await;

        let there: Vec<_> = (0..self.metas.len()).filter(|i| self.is_there(*i)).collect();
        let left: Vec<_> = there.iter().map(|i| self.metas[*i].clone()).collect();
        let all = store.segments(tenant, session, Seq::ZERO, Order::Asc, 1000).await.unwrap();
        assert_eq!(all, left, "{what}: segments");
        let mut down = store.segments(tenant, session, Seq::MAX, Order::Desc, 1000).await.unwrap();
        down.reverse();
        assert_eq!(down, left, "{what}: segments, downwards");
        for (index, meta) in self.metas.iter().enumerate() {
            let at = store.commit_at(tenant, session, meta.first).await.unwrap();
            assert_eq!(
                at,
                self.is_there(index).then_some(meta.commit_id),
                "{what}: commit at {}",
                meta.first
            );
        }

        // From where nothing is missing any more: what is there, in order. This reader has no archive: what is only there is
        // not passed over in silence.
        let reader = ledger(&self.store);
        let kept = (0..self.metas.len()).rev().take_while(|i| self.is_there(*i) && self.is_whole(*i));
        let kept = kept.last().unwrap_or(self.metas.len());
        let from = self.metas.get(kept).map_or(Seq::MAX, |meta| meta.first);
        if (0..kept).any(|i| !self.is_there(i)) {
            let cut = reader.session_events(tenant, session, Seq::ZERO, Order::Asc, 1000).await;
            assert!(cut.is_err(), "{what}: {cut:?}");
        }
        let page = reader.session_events(tenant, session, from, Order::Asc, 1000).await.unwrap();
        let read: Vec<u64> = page.events.iter().map(|event| event.sequence.get()).collect();
        let expected = left.iter().filter(|meta| meta.first >= from);
        let expected: Vec<u64> = expected.flat_map(|m| m.first.get()..=m.last.get()).collect();
        assert_eq!(read, expected, "{what}: events");

        // The feed: what is there; what is open: what is not archived.
        let mut feed = store.feed(tenant, None, 1000).await.unwrap();
        // Writers at once draw their ids in any order.
        feed.sort_by_key(|entry| entry.meta.first);
        assert_eq!(feed.iter().map(|entry| entry.meta.clone()).collect::<Vec<_>>(), left, "{what}: feed");
        let by_time = store.by_time(tenant, Order::Asc, None, None, 1000).await.unwrap();
        assert_eq!(by_time.entries.len(), left.len(), "{what}: by time");
        let open = store.open_segments(tenant, None, 1000).await.unwrap();
        let mut open: Vec<_> = open.iter().map(|entry| entry.position.commit_id).collect();
        let mut expected: Vec<_> = self.metas[self.archived..].iter().map(|meta| meta.commit_id).collect();
        open.sort_unstable();
        expected.sort_unstable();
        assert_eq!(open, expected, "{what}: open");
        // Whatever has gone: the session is listed and the agent's events are counted.
        let record = record.unwrap();
        for agent in [None, Some(&agent("a"))] {
            let listed = store.sessions(tenant, agent, None, 10).await.unwrap();
            assert_eq!(listed, std::slice::from_ref(&record), "{what}: sessions of {agent:?}");
        }
        let known = store.agent(tenant, &agent("a")).await.unwrap().unwrap();
        assert_eq!((known.event_count, known.session_count), (record.summary.events, 1), "{what}: the agent");
    }
}

/// Deletes an item, which must be there.
async fn delete(request: serde_json::Value) {
    let url = Emulator::dynoxide().url();
    let done = tokio::task::spawn_blocking(move || call(url, "DynamoDB_20120810.DeleteItem", &request));
    let old = done.await.unwrap();
    assert!(old["Attributes"].is_object(), "there was nothing to delete: {old}");
}

fn permutations(items: &[usize]) -> Vec<Vec<usize>> {
    if items.is_empty() {
        return vec![Vec::new()];
    }
    let with_first = |i: usize| {
        let mut rest = items.to_vec();
        let first = rest.remove(i);
        permutations(&rest).into_iter().map(move |tail| [vec![first], tail].concat())
    };
    (0..items.len()).flat_map(with_first).collect()
}

/// Four archived segments and perhaps one that is not; they go in this order; from a point on, somebody appends after
/// each. The pointer begins at the last segment or behind it, is ahead of it once that has gone, and behind again
/// after the first append.
async fn one_order(table: &str, order: &[usize], open: usize, quiet: usize) {
    let what = |step: usize| format!("{order:?}, {open} open, quiet for {quiet}, after {step}");
    let mut line = Line::begin(table);
    for _ in 0..4 + open {
        line.append(true, line.small()).await;
    }
    line.archive(4).await;
    line.check_end(&what(0)).await;
    for (step, segment) in (1..).zip(order) {
        line.expire(Item { segment: *segment, part: 0 }).await;
        if step > quiet {
            // Warm, cold, warm again though another has written since.
            line.append(step % 2 == 0, line.small()).await;
        }
        if step == 2 {
            line.check(&what(step)).await;
        } else {
            line.check_end(&what(step)).await;
        }
    }
    line.append(true, line.small()).await;
    line.append(false, line.small()).await;
    // An archiver that comes a second time, late: nothing rises from the dead, and the pointer does not move back.
    line.archive(2).await;
    line.archive(4).await;
    line.check(&what(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_items_expire_in_every_order_between_appends() {
    let table = fresh_table(Emulator::dynoxide().url());
    let orders = permutations(&[0, 1, 2, 3]);
    assert_eq!(orders.len(), 24);
    let mut running = JoinSet::new();
    for worker in 0..8 {
        let (table, orders) = (table.clone(), orders.clone());
        running.spawn(async move {
            for (index, order) in orders.iter().enumerate().filter(|(index, _)| index % 8 == worker) {
                one_order(&table, order, 0, index % 5).await;
                one_order(&table, order, 1, 4 - index % 5).await;
            }
        });
    }
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
}

/// Ten archived segments, two of which have parts, go item by item in a random order while three writers append.
async fn random_order(table: &str, seed: u64) {
    let mut line = Line::begin(table);
    let mut dice = Dice::new(seed);
    let large = [dice.below(10) as usize, dice.below(10) as usize];
    for number in 0..10 {
        let events = if large.contains(&number) {
            // Of one large event and of two: two items and three.
            let text = |i| noisy_text(seed * 100 + i, 520_000);
            (0..1 + seed % 2).map(|i| sample_event(&line.session, "a", None, text(i))).collect()
        } else {
            line.small()
        };
        line.append(number % 2 == 0, events).await;
    }
    line.archive(10).await;
    let mut items = line.items();
    assert!(items.iter().any(|item| item.part > 0), "{items:?}");
    for last in (1..items.len()).rev() {
        items.swap(last, dice.below(last as u64 + 1) as usize);
    }
    let what = format!("seed {seed}, {items:?}");

    let mut running = JoinSet::new();
    let deleting: Vec<_> = items.iter().map(|item| line.delete_request(*item)).collect();
    let done_deleting = Arc::new(AtomicUsize::new(0));
    let (count, counter) = (deleting.len(), done_deleting.clone());
    running.spawn(async move {
        for request in deleting {
            delete(request).await;
            counter.fetch_add(1, Ordering::SeqCst);
        }
        Vec::new()
    });
    for writer in 0..3 {
        let (store, tenant, session) = (line.store.clone(), line.tenant.clone(), line.session.clone());
        let (deleted, mut own) = (done_deleting.clone(), ledger(&line.store));
        running.spawn(async move {
            let mut told = Vec::new();
            let mut number = 0;
            // To the end of the deletions and one more.
            loop {
                let is_last = deleted.load(Ordering::SeqCst) == count;
                // The third has always just started.
                if writer == 2 {
                    own = ledger(&store);
                }
                let event = sample_event(&session, "a", None, format!("[\"w\",{writer},{number}]"));
                let done = own.append(&tenant, vec![event], None).await.unwrap();
                told.push((done.events[0].1.sequence.get(), done.events[0].1.hash));
                number += 1;
                if is_last {
                    return told;
                }
            }
        });
    }
    let mut told = Vec::new();
    while let Some(done) = running.join_next().await {
        told.extend(done.unwrap());
    }
    told.sort_by_key(|(sequence, _)| *sequence);
    line.gone = items;
    let archived = line.metas[9].clone();
    let next = archived.last.checked_add(1).unwrap();
    let more = line.store.segments(&line.tenant, &line.session, next, Order::Asc, 10_000).await.unwrap();
    let mut head = archived.head();
    for (meta, (sequence, hash)) in more.iter().zip(&told) {
        assert_eq!(
            (meta.first.get(), meta.prev_hash),
            (head.sequence.get() + 1, head.hash),
            "{what}: one line"
        );
        assert_eq!((meta.first.get(), meta.last_hash), (*sequence, *hash), "{what}: as it was told");
        head = meta.head();
    }
    assert_eq!(more.len(), told.len(), "{what}: what was acknowledged and nothing else");
    line.metas.extend(more);
    line.check(&what).await;
    line.append(false, line.small()).await;
    line.check(&what).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_items_and_parts_expire_in_random_orders_under_writers() {
    let table = fresh_table(Emulator::dynoxide().url());
    let mut running = JoinSet::new();
    for seed in 0..6 {
        let table = table.clone();
        running.spawn(async move { random_order(&table, seed).await });
    }
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
}

/// A part that goes before its commit item: the segment cannot be read any more, and no read says otherwise; all else
/// is as it was.
#[tokio::test]
async fn p2_a_part_may_expire_before_its_commit_item() {
    let table = fresh_table(Emulator::dynoxide().url());
    let mut line = Line::begin(&table);
    line.append(true, line.small()).await;
    let large = sample_event(&line.session, "a", None, noisy_text(1, 520_000));
    line.append(true, vec![large]).await;
    line.append(true, line.small()).await;
    line.archive(2).await;
    line.expire(Item { segment: 1, part: 1 }).await;
    let first = line.metas[1].first;
    let body = line.store.body(&line.tenant, &line.session, first).await;
    assert!(body.is_err(), "a body without its part: {} bytes", body.unwrap().len());
    line.check("the part is gone").await;
    line.append(false, line.small()).await;
    line.expire(Item { segment: 1, part: 0 }).await;
    line.check("and then the segment").await;
}
