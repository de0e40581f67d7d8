//! What the ledger itself consumes: batches through `Ledger` and `DynamoStore`, then archived as the archiver does it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use anyhow::{Context as _, ensure};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use quipu_core::auth::{Scope, Scopes, TokenRecord};
use quipu_core::aws::Connection;
use quipu_core::clock::Clock;
use quipu_core::config::AwsConfig;
use quipu_core::dialect::{intake, native};
use quipu_core::event::NewEvent;
use quipu_core::ids::{Seq, SessionId, TenantId};
use quipu_core::ledger::{IdempotencyKey, Ledger};
use quipu_core::segment::SegmentMeta;
use quipu_core::store::dynamo::DynamoStore;
use quipu_core::store::{Order, Pointer, SessionRecord, Store as _};
use quipu_core::time::Micros;

use super::dynamo::{Dynamo, Units};
use crate::sample::{Mode, SampleConfig, generate};

/// The bench's seed: the same bytes on every machine.
pub(super) const SEED: u64 = 7;

/// First event's time; a fixed day, so that runs are alike.
const START_US: i64 = 1_767_600_000_000_000;

/// Events that a session adds between two runs of the archiver, which writes its pointer once for all of them: one
/// every nine seconds for 15 minutes, the pace of the sample's sessions. A busier session makes pointers cheaper.
pub(super) const RUN_EVENTS: usize = 100;

/// When segments expire, s since 1970; any time does, all have ten digits.
pub(super) const EXPIRES_AT: i64 = 1_768_204_800;

/// Open segments that the archiver reads at once.
const OPEN_PAGE: usize = 1_000;

/// Time as the events tell it, so that two runs write the same bytes but for random ones.
struct EventClock(AtomicI64);

impl Clock for EventClock {
    fn now(&self) -> Micros {
        Micros::new(self.0.load(Ordering::SeqCst)).unwrap_or(Micros::MAX)
    }
}

/// A ledger in a table of its own.
pub(super) struct Ours {
    clock: Arc<EventClock>,
    pub(super) ledger: Ledger,
    pub(super) store: DynamoStore,
    pub(super) tenant: TenantId,
}

/// A segment as it was written.
pub(super) struct Written {
    pub(super) session: SessionId,
    pub(super) meta: SegmentMeta,
    pub(super) body: Vec<u8>,
}

/// What batches of one size consume, on average.
pub(super) struct Measured {
    pub(super) batch: usize,
    pub(super) events: usize,
    /// Of the sample, as sent: JSON.
    pub(super) sent_bytes: usize,
    pub(super) append: Units,
    pub(super) archive: Units,
    pub(super) pointer: Units,
    /// The archiver's reading: what is open, then its sessions' pointers, attributes and bodies.
    pub(super) archive_reads: Units,
    pub(super) segments: Vec<Written>,
}

impl Measured {
    /// Write units of a batch, from its append to its expiry.
    pub(super) fn write(&self) -> f64 {
        self.append.write() + self.archive.write() + self.pointer.write()
    }
}

/// Events in batches of a size, and the bytes of JSON that they were.
pub(super) fn batches(events: usize, batch: usize) -> anyhow::Result<(Vec<Vec<NewEvent>>, usize)> {
    let config = SampleConfig { seed: SEED, events, mode: Mode::Bench, start_us: START_US };
    let lines: Vec<String> = generate(&config).map(|event| event.json).collect();
    let sent_bytes = lines.iter().map(String::len).sum();
    let read = |chunk: &[String]| {
        intake::read_lines(&chunk.join("\n"), &native::NAMES).map_err(|e| anyhow::anyhow!("the sample: {e}"))
    };
    Ok((lines.chunks(batch).map(read).collect::<anyhow::Result<_>>()?, sent_bytes))
}

impl Ours {
    pub(super) fn new(dynamo: &Dynamo, table: &str) -> anyhow::Result<Self> {
        dynamo.table(table)?;
        let credentials =
            SharedCredentialsProvider::new(Credentials::new("test", "test", None, None, "test"));
        let connection = Connection::at("us-east-1".into(), credentials, Some(dynamo.endpoint()), None);
        let clock = Arc::new(EventClock(AtomicI64::new(START_US)));
        // Nothing is signed here, so the key is never asked for.
        let seal_key = "alias/none".into();
        let (log_key, bootstrap_secret, archive_bucket) = (None, None, None);
        let config = AwsConfig { table: table.into(), seal_key, log_key, bootstrap_secret, archive_bucket };
        let ledger = config.ledger(&connection, clock.clone());
        let store = DynamoStore::new(&connection, table).with_clock(clock.clone());
        Ok(Self { clock, ledger, store, tenant: TenantId::default_tenant() })
    }

    /// Appends a batch a moment after its last event.
    pub(super) async fn append(
        &self,
        events: Vec<NewEvent>,
        key: Option<&IdempotencyKey>,
    ) -> anyhow::Result<()> {
        let last = events.iter().filter_map(|event| event.timestamp).max();
        let now = last.context("the sample has times")?.plus_ms(200);
        self.clock.0.fetch_max(now.get(), Ordering::SeqCst);
        self.ledger.append(&self.tenant, events, key).await?;
        Ok(())
    }

    /// Sessions that have something open, in the order in which they were first seen, and how much is open.
    async fn open(&self) -> anyhow::Result<(Vec<SessionId>, usize)> {
        let (mut sessions, mut count, mut after) = (Vec::new(), 0, None);
        loop {
            let page = self.store.open_segments(&self.tenant, after.as_ref(), OPEN_PAGE).await?;
            for entry in &page {
                if !sessions.contains(&entry.position.session_id) {
                    sessions.push(entry.position.session_id.clone());
                }
            }
            count += page.len();
            match page.last() {
                Some(last) => after = Some(last.position.clone()),
                None => return Ok((sessions, count)),
            }
        }
    }

    /// Everything that is in the feed.
    pub(super) async fn feed(&self) -> anyhow::Result<Vec<(SessionId, SegmentMeta)>> {
        let entries = self.store.feed(&self.tenant, None, usize::MAX >> 1).await?;
        Ok(entries.into_iter().map(|entry| (entry.session_id, entry.meta)).collect())
    }
}

/// Appends `events` in batches and archives them.
pub(super) async fn measure(dynamo: &Dynamo, batch: usize, events: usize) -> anyhow::Result<Measured> {
    let ours = Ours::new(dynamo, &format!("ours-{batch}-{events}"))?;
    let (list, sent_bytes) = batches(events, batch)?;
    let count = list.len();

    // A cold head is read once by a process, not for each batch: it is counted apart (`reads.rs`).
    let mut heads = Units::default();
    let mut append = Units::default();
    for events in list {
        ours.append(events, None).await?;
        let consumed = dynamo.consumed();
        heads.read += consumed.read;
        append += Units { read: 0.0, ..consumed };
    }
    ensure!(heads.read > 0.0, "a cold head must have been read");

    let (sessions, open) = ours.open().await?;
    ensure!(open == count, "{open} open segments of {count} batches");
    let mut segments = Vec::with_capacity(count);
    for session in sessions {
        ensure!(ours.store.pointer(&ours.tenant, &session).await?.is_none(), "{session} has a pointer");
        let metas = ours.store.segments(&ours.tenant, &session, Seq::ZERO, Order::Asc, count).await?;
        for meta in metas {
            let body = ours.store.body(&ours.tenant, &session, meta.first).await?.to_vec();
            segments.push(Written { session: session.clone(), meta, body });
        }
    }
    ensure!(segments.len() == count, "{} segments of {count} batches", segments.len());
    let archive_reads = dynamo.consumed();

    let (mut archive, mut pointer) = (Units::default(), Units::default());
    let mut record: Option<SessionRecord> = None;
    let expires_at = Micros::from_unix_ms(EXPIRES_AT * 1000);
    for run in segments.chunk_by(|a, b| a.session == b.session).flat_map(|s| s.chunks(run_batches(batch))) {
        let moved = archived(record.take(), run);
        ours.store.advance_pointer(&ours.tenant, &moved).await?;
        pointer += dynamo.consumed();
        for Written { session, meta, .. } in run {
            let batch = moved.last_batch;
            ours.store.mark_archived(&ours.tenant, session, meta, batch, Some(expires_at)).await?;
        }
        archive += dynamo.consumed();
        record = Some(moved.archived);
    }
    ensure!(ours.open().await?.1 == 0, "something archived is open");
    dynamo.consumed();

    let (append, archive, pointer) = (append.by(count), archive.by(count), pointer.by(count));
    let archive_reads = archive_reads.by(count);
    Ok(Measured { batch, events, sent_bytes, append, archive, pointer, archive_reads, segments })
}

/// Batches of a session that one run of the archiver takes.
fn run_batches(batch: usize) -> usize {
    (RUN_EVENTS / batch).max(1)
}

/// The pointer once a run of a session is archived.
fn archived(before: Option<SessionRecord>, run: &[Written]) -> Pointer {
    let (first, last) = (&run[0], &run[run.len() - 1]);
    let before = before.filter(|record| record.session_id == first.session);
    let mut summary = before.as_ref().map(|record| record.summary.clone());
    for Written { meta, .. } in run {
        match &mut summary {
            Some(summary) => summary.merge(&meta.summary),
            None => summary = Some(meta.summary.clone()),
        }
    }
    let archived = SessionRecord {
        session_id: first.session.clone(),
        first_commit: before.map_or(first.meta.commit_id, |record| record.first_commit),
        last_commit: last.meta.commit_id,
        updated_at: last.meta.received_at,
        head: last.meta.head(),
        summary: summary.unwrap_or_else(|| last.meta.summary.clone()),
    };
    // A year of runs, a batch each.
    Pointer { archived, first_batch: 1, last_batch: 35_000, scrubbed: 0 }
}

/// What the first request of a process reads, and what an `Idempotency-Key` adds; after batches of one size.
pub(super) struct Extras {
    /// Read units of the head of a session whose last segment is such a batch.
    pub(super) head: f64,
    /// Read units of a token.
    pub(super) token: f64,
    /// Append with an `Idempotency-Key`.
    pub(super) keyed: Units,
    /// Append of such a batch over ten sessions (fewer, if it has fewer events).
    pub(super) spread: Units,
}

/// Measures [`Extras`].
pub(super) async fn extras(dynamo: &Dynamo, batch: usize) -> anyhow::Result<Extras> {
    let ours = Ours::new(dynamo, &format!("extras-{batch}"))?;
    let mut list = batches(batch * 3, batch)?.0.into_iter();
    let mut next = || list.next().context("three batches");
    let events = next()?;
    let session = events[0].session_id.clone();
    ours.append(events, None).await?;
    let (_, meta) = ours.feed().await?.pop().context("what was appended")?;
    let written = Written { session: session.clone(), meta, body: Vec::new() };
    ours.store.advance_pointer(&ours.tenant, &archived(None, &[written])).await?;
    dynamo.consumed();

    ours.store.head(&ours.tenant, &session).await?;
    let head = dynamo.consumed().read;

    let token = TokenRecord {
        id: format!("00000000-0000-0000-0000-{batch:012}"),
        tenant: ours.tenant.clone(),
        name: "ingest of the fleet".into(),
        scopes: [Scope::EventsWrite].into_iter().collect::<Scopes>(),
        hash: [7; 32],
        created_at: ours.clock.now(),
        expires_at: None,
        revoked_at: None,
        last_used_at: None,
    };
    ours.store.create_token(&token, false).await?;
    dynamo.consumed();
    ours.store.token_by_hash(&token.hash).await?;
    let token = dynamo.consumed().read;

    let key = IdempotencyKey::new("token", "/v1/events", "key", b"body");
    ours.append(next()?, Some(&key)).await?;
    let keyed = dynamo.consumed();

    let mut events = next()?;
    for (index, event) in events.iter_mut().enumerate() {
        let name = format!("{}-{}", event.session_id, index % 10);
        event.session_id = SessionId::parse(name).map_err(|e| anyhow::anyhow!("{e}"))?;
    }
    ours.append(events, None).await?;
    Ok(Extras { head, token, keyed, spread: dynamo.consumed() })
}
