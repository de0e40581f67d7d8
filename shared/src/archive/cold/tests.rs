//! Reads by ranges give what a walk over the whole file gives, and broken files give errors.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use proptest::prelude::*;

use super::{ColdError, ColdFile, ColdStats, Cost};
use crate::archive::writer::Sizes;
use crate::archive::{BatchReader, BatchWriter};
use crate::chain::Hasher;
use crate::event::{Event, OwnedContent, Redactions};
use crate::ids::{CommitId, EventHash, EventId, Seq, SessionId, Severity, TenantId};
use crate::ledger::{Budget, EventFilter, EventPosition};
use crate::limits;
use crate::objects::{Condition, Listed, Object, ObjectError, ObjectStore, Purged, Tag};
use crate::store::Order;
use crate::time::Micros;

/// A store of one object, which can only be read by ranges.
struct One(Bytes);

#[async_trait]
impl ObjectStore for One {
    async fn get_range(&self, _: &str, range: Range<u64>) -> Result<Bytes, ObjectError> {
        let end = (range.end as usize).min(self.0.len());
        Ok(self.0.slice((range.start as usize).min(end)..end))
    }
    async fn get(&self, _: &str) -> Result<Object, ObjectError> {
        panic!("never a whole object")
    }
    async fn size(&self, _: &str) -> Result<u64, ObjectError> {
        panic!("the length is known")
    }
    async fn put(&self, _: &str, _: Bytes, _: Condition) -> Result<Tag, ObjectError> {
        panic!("nothing is written")
    }
    async fn put_absent(&self, _: Vec<(String, Bytes)>) -> Result<Vec<String>, ObjectError> {
        panic!("nothing is written")
    }
    async fn list(&self, _: &str, _: Option<&str>, _: usize) -> Result<Vec<Listed>, ObjectError> {
        panic!("nothing is listed")
    }
    async fn delete(&self, _: &str) -> Result<(), ObjectError> {
        panic!("nothing is deleted")
    }
    async fn purge(&self, _: &str) -> Result<Purged, ObjectError> {
        panic!("nothing is purged")
    }
    fn describe(&self) -> String {
        "a test".to_owned()
    }
}

fn tenant() -> TenantId {
    TenantId::parse("acme").unwrap()
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

/// A batch in small parts: every question crosses pages and row groups.
#[derive(Debug, Clone)]
struct Made {
    file: Bytes,
    /// Its events, in the order of its rows.
    events: Vec<Event>,
}

/// Numbers that look random; the same for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

fn make(seed: u64, runs: &[u64], sizes: Sizes) -> Made {
    let mut dice = Dice(seed);
    let mut writer = BatchWriter::with_sizes(&tenant(), sizes);
    let mut events = Vec::new();
    for (run, count) in runs.iter().enumerate() {
        let session_id = SessionId::parse(format!("session {run:03}")).unwrap();
        let mut hasher = Hasher::new(&tenant(), &session_id);
        let first = if dice.roll(2) == 0 { 0 } else { dice.roll(1000) };
        let mut prev_hash = EventHash([run as u8; 32]);
        for at in 0..*count {
            let commit = CommitId::mint(1_770_000_000_000 + dice.roll(500), [dice.roll(250) as u8; 10]);
            let word = ["alpha", "beta", "gamma", "delta"][dice.roll(4) as usize];
            let filler = "x".repeat(if dice.roll(12) == 0 { dice.roll(5000) as usize } else { 0 });
            let content = match dice.roll(6) {
                0 => OwnedContent::Erased { digest: [at as u8; 32] },
                _ => OwnedContent::Kept {
                    salt: [dice.roll(256) as u8; 16],
                    payload: format!(r#"{{"toolName":"{word}","filler":"{filler}"}}"#),
                    metadata: format!(r#"{{"n":{}}}"#, dice.roll(9)),
                },
            };
            let mut event = Event {
                tenant: tenant(),
                session_id: session_id.clone(),
                sequence: Seq::new(first + at).unwrap(),
                event_id: commit.event((events.len() % 1000) as u16 + 1),
                // Few, so that many events have the same.
                timestamp: Micros::new(1_770_000_000_000_000 + 1000 * dice.roll(40) as i64).unwrap(),
                received_at: Micros::new(1_770_000_000_123_456).unwrap(),
                agent_id: format!("agent {}", (run as u64 + dice.roll(2)) % 5),
                event_type: ["tool_call", "tool_response", "llm.call"][dice.roll(3) as usize].to_owned(),
                severity: Severity::from_number(dice.roll(5) as u8).unwrap(),
                source_id: (dice.roll(3) == 0).then(|| format!("source {at}")),
                compliance_tag: "none".to_owned(),
                pii_types: String::new(),
                redactions: Redactions::default(),
                content,
                prev_hash,
                hash: EventHash::ZERO,
            };
            event.hash = hasher.hash(&event.as_ref());
            prev_hash = event.hash;
            writer.push(&session_id, commit, &event.as_ref(), at == 0).unwrap();
            events.push(event);
        }
    }
    Made { file: writer.finish().unwrap(), events }
}

impl Made {
    fn reads<T>(
        &self,
        read: impl AsyncFnOnce(&ColdFile, &mut Cost<'_>) -> T,
    ) -> Result<(T, ColdStats), ColdError> {
        open(&self.file, END, read)
    }

    /// What a walk over the whole file finds.
    fn matching(&self, filter: &EventFilter) -> Vec<(EventPosition, usize)> {
        let (mut found, mut before, mut at) = (Vec::new(), None, 0);
        let reader = BatchReader::open(self.file.clone()).unwrap();
        let walked = reader.rows::<()>(|row| {
            let event = row.event(before.filter(|_| row.prev_hash.is_none())).unwrap();
            before = Some(event.hash);
            if filter.session.as_ref().is_none_or(|s| s.as_str() == row.session_id) && filter.matches(&event)
            {
                found.push((EventPosition { timestamp: event.timestamp, event_id: event.event_id }, at));
            }
            at += 1;
            ControlFlow::Continue(())
        });
        assert_eq!((walked, at), (Ok(None), self.events.len()));
        found
    }
}

/// Bytes of a file's end that are read first: of so small files little, so that the rest is read by ranges.
const END: u64 = 64;

fn open<T>(
    file: &Bytes,
    end: u64,
    read: impl AsyncFnOnce(&ColdFile, &mut Cost<'_>) -> T,
) -> Result<(T, ColdStats), ColdError> {
    let objects = Arc::new(One(file.clone()));
    let (budget, mut stats) = (Budget::new(u64::MAX), ColdStats::default());
    block_on(async {
        let mut cost = Cost { budget: &budget, stats: &mut stats };
        let length = file.len() as u64;
        let end = length.saturating_sub(end)..length;
        let cold = ColdFile::open_from(objects, &tenant(), "batch", end, &mut cost).await?;
        let value = read(&cold, &mut cost).await;
        Ok((value, stats))
    })
}

fn sizes() -> impl Strategy<Value = Sizes> {
    (3usize..24, 1usize..30_000, 16usize..3000).prop_map(|(chunk_rows, group_bytes, page_bytes)| Sizes {
        chunk_rows,
        group_bytes,
        page_bytes,
    })
}

fn some<T: Clone + std::fmt::Debug + 'static>(of: Vec<T>) -> impl Strategy<Value = Vec<T>> {
    let most = of.len() - 1;
    prop_oneof![2 => Just(Vec::new()), 1 => proptest::sample::subsequence(of, 1..=most)]
}

fn filters() -> impl Strategy<Value = EventFilter> {
    let texts = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    let agents = texts(&["agent 0", "agent 1", "agent 2", "agent 4", "nobody"]);
    let types = texts(&["tool_call", "tool_response", "llm.call", "none.such"]);
    let time = || proptest::option::weighted(0.3, -2i64..42);
    let search = proptest::sample::select(texts(&["ALPHA", "beta", "xxxxx", "no such text", "\"", ""]));
    let (session, search) =
        (proptest::option::weighted(0.3, 0u8..8), proptest::option::weighted(0.3, search));
    (session, some(agents), some(types), some(Severity::ALL.to_vec()), time(), time(), search).prop_map(
        |(session, agents, event_types, severities, from, to, search)| {
            let time = |t: i64| Micros::new(1_770_000_000_000_000 + 1000 * t).unwrap();
            EventFilter {
                session: session.map(|s| SessionId::parse(format!("session {s:03}")).unwrap()),
                agents,
                event_types,
                severities,
                from: from.map(time),
                to: to.map(time),
                search,
            }
        },
    )
}

fn orders() -> impl Strategy<Value = Order> {
    prop_oneof![Just(Order::Asc), Just(Order::Desc)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 48 } else { 500 }))]

    #[test]
    fn a_list_is_that_of_a_walk(
        seed: u64, runs in proptest::collection::vec(1u64..40, 1..8), sizes in sizes(), filter in filters(),
        order in orders(), limit in 0usize..60, after in proptest::option::weighted(0.4, 0usize..200),
    ) {
        let made = make(seed, &runs, sizes);
        let after = after.map(|at| made.events[at % made.events.len()].as_ref());
        let after = after.map(|e| EventPosition { timestamp: e.timestamp, event_id: e.event_id });
        let mut expected = made.matching(&filter);
        expected.sort_unstable();
        if order == Order::Desc {
            expected.reverse();
        }
        expected.retain(|(at, _)| after.is_none_or(|after| if order == Order::Asc { *at > after } else { *at < after }));
        let more = expected.len() > limit;
        expected.truncate(limit);
        let ((scan, events), stats) = made.reads(async |cold, cost| {
            assert_eq!(cold.row_count(), made.events.len() as u64);
            let scan = cold.scan(&filter, (order, after, limit), cost).await.unwrap();
            let rows: Vec<u64> = scan.candidates.iter().map(|candidate| candidate.row).collect();
            let events = cold.events(&rows, usize::MAX, cost).await.unwrap();
            (scan, events)
        }).unwrap();
        let found: Vec<_> = scan.candidates.iter().map(|c| (c.position, c.row as usize)).collect();
        prop_assert_eq!(&found, &expected);
        prop_assert_eq!(scan.more, more);
        let whole: Vec<_> = expected.iter().map(|(_, row)| made.events[*row].clone()).collect();
        prop_assert_eq!(events, whole);
        prop_assert_eq!(stats.rows_returned, found.len() as u64);
        prop_assert!(stats.rows_scanned <= 2 * made.events.len() as u64);
    }

    #[test]
    fn a_session_is_that_of_a_walk(
        seed: u64, runs in proptest::collection::vec(1u64..40, 1..8), sizes in sizes(), session in 0u8..9,
        from in 0u64..1100, near: bool, order in orders(), limit in 0usize..60, bytes_max in 0usize..20_000,
    ) {
        let made = make(seed, &runs, sizes);
        let session = SessionId::parse(format!("session {session:03}")).unwrap();
        let of_it = made.events.iter().filter(|e| e.session_id == session);
        // Mostly inside the run.
        let from = match of_it.clone().nth((from % 40) as usize) {
            Some(event) if near => event.sequence,
            _ => Seq::new(from).unwrap(),
        };
        let held = of_it.clone().next().zip(of_it.clone().next_back());
        let held = held.map(|(first, last)| first.sequence..=last.sequence);
        // Who begins outside asks another batch.
        let here = held.as_ref().is_some_and(|held| held.contains(&from));
        let mut expected: Vec<&Event> = match order {
            _ if !here => Vec::new(),
            Order::Asc => of_it.filter(|e| e.sequence >= from).collect(),
            Order::Desc => of_it.rev().filter(|e| e.sequence <= from).collect(),
        };
        let mut bytes = 0;
        let fits = expected.iter().take(limit).enumerate().take_while(|(at, event)| {
            bytes += event.as_ref().content.bytes();
            *at == 0 || bytes <= bytes_max
        });
        let fits = fits.count();
        let next = expected.get(fits).map(|event| event.sequence);
        expected.truncate(fits);
        let (page, _) = made.reads(async |cold, cost| {
            cold.session(&session, (from, order), (limit, bytes_max), cost).await.unwrap()
        }).unwrap();
        prop_assert_eq!(page.events.iter().collect::<Vec<_>>(), expected);
        prop_assert_eq!((page.next, page.held), (next, held));
    }

    #[test]
    fn an_id_leads_to_its_event(
        seed: u64, runs in proptest::collection::vec(1u64..40, 1..8), sizes in sizes(), at in 0usize..300,
        other in 0u64..1000,
    ) {
        let made = make(seed, &runs, sizes);
        let event = &made.events[at % made.events.len()];
        let other = CommitId::mint(1_770_000_000_000 + other, [251; 10]).event(7);
        let (found, _) = made.reads(async |cold, cost| {
            (cold.by_id(event.event_id, cost).await.unwrap(), cold.by_id(other, cost).await.unwrap())
        }).unwrap();
        prop_assert_eq!(found, (Some(event.clone()), None));
    }
}

/// Everything that can be asked of a batch; every event that comes is one that was written.
fn ask(file: &Bytes, events: &[Event], id: EventId, session: &SessionId) -> Result<usize, ColdError> {
    let asked = open(file, END, async |cold, cost| {
        let filter = EventFilter { search: Some("alpha".to_owned()), ..EventFilter::default() };
        let scan = cold.scan(&filter, (Order::Desc, None, 1000), cost).await?;
        let rows: Vec<u64> = scan.candidates.iter().map(|candidate| candidate.row).collect();
        let mut found = cold.events(&rows, usize::MAX, cost).await?;
        found.extend(cold.by_id(id, cost).await?);
        found.extend(cold.session(session, (Seq::ZERO, Order::Asc), (1000, usize::MAX), cost).await?.events);
        Ok::<_, ColdError>(found)
    });
    let found = asked?.0?;
    for event in &found {
        assert!(events.contains(event), "an event that nobody wrote: {event:?}");
    }
    Ok(found.len())
}

const SMALL: Sizes = Sizes { chunk_rows: 8, group_bytes: 9000, page_bytes: 300 };

#[test]
fn no_flipped_bit_shows_a_wrong_event() {
    let made = make(7, &[20, 30, 15], SMALL);
    let (id, session) = (made.events[25].event_id, made.events[25].session_id.clone());
    let whole = ask(&made.file, &made.events, id, &session).unwrap();
    assert!(whole > 40, "{whole}");
    let (mut refused, mut fewer, mut same) = (0, 0, 0);
    let step = if cfg!(debug_assertions) { 37 } else { 1 };
    for at in (0..made.file.len()).step_by(step) {
        let mut bytes = made.file.to_vec();
        bytes[at] ^= 1 << (at % 8);
        match ask(&bytes.into(), &made.events, id, &session) {
            Err(ColdError::Corrupt { .. }) => refused += 1,
            Err(other) => panic!("byte {at}: {other}"),
            // What statistics and filters say is believed: a lie hides a page.
            Ok(found) if found < whole => fewer += 1,
            Ok(_) => same += 1,
        }
    }
    assert!(refused > 500 / step && same > 500 / step, "{refused} {fewer} {same}");
}

#[test]
fn a_cut_file_is_refused() {
    let made = make(8, &[20, 30], SMALL);
    let (id, session) = (made.events[25].event_id, made.events[25].session_id.clone());
    let step = if cfg!(debug_assertions) { 41 } else { 1 };
    for length in (0..made.file.len()).step_by(step) {
        let cut = ask(&made.file.slice(..length), &made.events, id, &session);
        assert!(matches!(cut, Err(ColdError::Corrupt { .. })), "cut at {length}: {cut:?}");
    }
}

#[test]
fn an_event_of_another_tenant_is_corrupt() {
    let made = make(9, &[5], SMALL);
    let (budget, mut stats) = (Budget::new(u64::MAX), ColdStats::default());
    let found = block_on(async {
        let mut cost = Cost { budget: &budget, stats: &mut stats };
        let other = TenantId::parse("other").unwrap();
        let objects = Arc::new(One(made.file.clone()));
        let cold = ColdFile::open(objects, &other, "batch", made.file.len() as u64, &mut cost).await?;
        cold.by_id(made.events[2].event_id, &mut cost).await
    });
    let Err(ColdError::Corrupt { why, .. }) = found else { panic!("{found:?}") };
    assert!(why.contains("row 2: hash"), "{why}");
}

#[test]
fn a_budget_stops_before_the_read() {
    let made = make(10, &[400; 30], Sizes { chunk_rows: 1024, group_bytes: 1 << 20, page_bytes: 4096 });
    let filter = EventFilter { search: Some("alpha".to_owned()), ..EventFilter::default() };
    let read = |limit: u64| {
        let (budget, mut stats) = (Budget::new(limit), ColdStats::default());
        let read = block_on(async {
            let mut cost = Cost { budget: &budget, stats: &mut stats };
            let objects = Arc::new(One(made.file.clone()));
            let length = made.file.len() as u64;
            let end = length - END..length;
            let cold = ColdFile::open_from(objects, &tenant(), "batch", end, &mut cost).await?;
            cold.scan(&filter, (Order::Asc, None, 10), &mut cost).await
        });
        (read, stats)
    };
    let (whole, all) = read(u64::MAX);
    assert_eq!(whole.unwrap().candidates.len(), 10);
    let limit = all.bytes_read - 1;
    let (stopped, stats) = read(limit);
    assert!(matches!(stopped, Err(ColdError::Budget)), "{stopped:?}");
    assert!(stats.bytes_read <= limit && stats.bytes_read > 0, "{stats:?}");
}

/// Events as agents send them, some 700 bytes each, in sessions that ran at the same time.
fn busy(sessions: u64, each: u64) -> Made {
    const WORDS: [&str; 16] = [
        "search", "the", "ledger", "error", "customer", "order", "total", "retry", "model", "answer", "of",
        "is", "not", "found", "invoice", "because",
    ];
    let mut dice = Dice(11);
    let mut writer = BatchWriter::new(&tenant());
    let mut events = Vec::new();
    for run in 0..sessions {
        let session_id = SessionId::parse(format!("sess-{run:06}-{:08x}", dice.roll(1 << 31))).unwrap();
        let mut hasher = Hasher::new(&tenant(), &session_id);
        let mut prev_hash = EventHash::ZERO;
        for at in 0..each {
            let mut random = [0u8; 10];
            random.iter_mut().for_each(|byte| *byte = dice.roll(256) as u8);
            let ms = 1_770_000_000_000 + at * 900_000 / each + dice.roll(5000);
            let commit = CommitId::mint(ms, random);
            let words: Vec<&str> = (0..70).map(|_| WORDS[dice.roll(16) as usize]).collect();
            let id = format!("{:08x}{:08x}", dice.roll(1 << 31), dice.roll(1 << 31));
            let payload = format!(
                r#"{{"toolName":"{}","callId":"call_{id}","text":"{}","usage":{{"inputTokens":{}}}}}"#,
                WORDS[dice.roll(16) as usize],
                words.join(" "),
                dice.roll(9000),
            );
            let mut salt = [0u8; 16];
            salt.iter_mut().for_each(|byte| *byte = dice.roll(256) as u8);
            let mut event = Event {
                tenant: tenant(),
                session_id: session_id.clone(),
                sequence: Seq::new(at).unwrap(),
                event_id: commit.event(1),
                timestamp: Micros::new(ms as i64 * 1000 - dice.roll(100_000) as i64).unwrap(),
                received_at: Micros::new(ms as i64 * 1000).unwrap(),
                agent_id: format!("agent-{}", run % 50),
                event_type: ["tool_call", "tool_response", "llm.call"][dice.roll(3) as usize].to_owned(),
                severity: Severity::Info,
                source_id: Some(format!("span-{id}")),
                compliance_tag: "default".to_owned(),
                pii_types: String::new(),
                redactions: Redactions::default(),
                content: OwnedContent::Kept {
                    salt,
                    payload,
                    metadata: format!(r#"{{"traceId":"{id}{id}"}}"#),
                },
                prev_hash,
                hash: EventHash::ZERO,
            };
            event.hash = hasher.hash(&event.as_ref());
            prev_hash = event.hash;
            writer.push(&session_id, commit, &event.as_ref(), at == 0).unwrap();
            events.push(event);
        }
    }
    Made { file: writer.finish().unwrap(), events }
}

/// A batch of 64 MB of events as sent; without optimization, which makes that slow, an eighth of it.
#[test]
fn requests_are_few() {
    const TAIL: u64 = limits::COLD_TAIL_BYTES;
    let share = if cfg!(debug_assertions) { 8 } else { 1 };
    let made = busy(920 / share, 100);
    let length = made.file.len() as u64;
    let ((), open_only) = open(&made.file, TAIL, async |_, _| ()).unwrap();
    assert_eq!(open_only.requests, 1);
    let mut most = [(0, 0); 3];
    for at in (0..made.events.len()).step_by(made.events.len() / 12) {
        let event = &made.events[at];
        let (found, by_id) =
            open(&made.file, TAIL, async |cold, cost| cold.by_id(event.event_id, cost).await.unwrap())
                .unwrap();
        assert_eq!(found.as_ref(), Some(event));
        let (page, session) = open(&made.file, TAIL, async |cold, cost| {
            let page = (100, usize::MAX);
            cold.session(&event.session_id, (Seq::ZERO, Order::Asc), page, cost).await.unwrap()
        })
        .unwrap();
        assert_eq!(page.events.len(), 100);
        let from = Some(event.timestamp);
        let filter = EventFilter { from, agents: vec![event.agent_id.clone()], ..EventFilter::default() };
        let (list, listed) = open(&made.file, TAIL, async |cold, cost| {
            let scan = cold.scan(&filter, (Order::Asc, None, 100), cost).await.unwrap();
            let rows: Vec<u64> = scan.candidates.iter().map(|candidate| candidate.row).collect();
            cold.events(&rows, usize::MAX, cost).await.unwrap()
        })
        .unwrap();
        assert!(list.iter().all(|e| e.agent_id == event.agent_id && e.timestamp >= event.timestamp));
        for (most, stats) in most.iter_mut().zip([by_id, session, listed]) {
            *most = (stats.requests.max(most.0), stats.bytes_read.max(most.1));
        }
    }
    println!(
        "{length} bytes, {} rows: open {open_only:?}, most by id, session, list {most:?}",
        made.events.len()
    );
    let [(by_id, by_id_bytes), (session, session_bytes), _] = most;
    assert!(by_id <= 4 && session <= 6, "{most:?}");
    // A thinned batch is hardly longer than what is read rather than asked around.
    if !cfg!(debug_assertions) {
        assert!(by_id_bytes.max(session_bytes) < length / 2, "{most:?} of {length}");
    }
}
