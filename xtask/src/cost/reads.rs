//! What the reads cost that are answered from the feed, as it grows (docs/adr/0007).

use quipu_core::ids::SessionId;
use quipu_core::ledger::{EventFilter, ListQuery};
use quipu_core::store::{Order, Store as _};

use super::dynamo::Dynamo;
use super::ours::{Ours, batches};

/// Events in a segment.
const BATCH: usize = 10;

/// Segments in a session, of twenty sessions that write in turn.
const SESSION_SEGMENTS: usize = 10;
const LIVE_SESSIONS: usize = 20;

/// What was asked, and the read units that it took with each size of the feed.
pub(super) struct Reads {
    pub(super) segments: usize,
    pub(super) rows: Vec<(&'static str, f64)>,
    /// Bytes of a segment's attributes, on average.
    pub(super) attributes: usize,
}

/// Fills a feed to each size in turn, and asks.
pub(super) async fn measure(dynamo: &Dynamo, sizes: &[usize]) -> anyhow::Result<Vec<Reads>> {
    let ours = Ours::new(dynamo, "reads")?;
    let most = sizes.iter().max().copied().unwrap_or(0);
    let mut list = batches(most * BATCH, BATCH)?.0.into_iter().enumerate();
    let mut measured = Vec::new();
    let mut filled = 0;
    for &size in sizes {
        for (number, mut events) in list.by_ref().take(size - filled) {
            let round = number / (LIVE_SESSIONS * SESSION_SEGMENTS);
            let name = format!("ses_{:026}", round * LIVE_SESSIONS + number % LIVE_SESSIONS);
            let session = SessionId::parse(name).map_err(|e| anyhow::anyhow!("{e}"))?;
            events.iter_mut().for_each(|event| event.session_id = session.clone());
            ours.append(events, None).await?;
        }
        filled = size;
        dynamo.consumed();
        measured.push(ask(dynamo, &ours, size).await?);
    }
    Ok(measured)
}

async fn ask(dynamo: &Dynamo, ours: &Ours, segments: usize) -> anyhow::Result<Reads> {
    let (store, tenant) = (&ours.store, &ours.tenant);
    let mut rows = Vec::new();

    store.open_segments(tenant, None, segments + 1).await?;
    rows.push(("all that is not archived (the archiver's walk)", dynamo.consumed().read));

    let feed = ours.feed().await?;
    rows.push(("the whole feed", dynamo.consumed().read));
    let attributes = feed.iter().map(|(_, meta)| meta.encode().len()).sum::<usize>() / feed.len().max(1);

    store.by_time(tenant, Order::Desc, None, None, 100).await?;
    rows.push(("the newest 100 segments by time", dynamo.consumed().read));

    let filter = EventFilter {
        session: None,
        agents: Vec::new(),
        event_types: Vec::new(),
        severities: Vec::new(),
        from: None,
        to: None,
        search: None,
    };
    let query =
        ListQuery { filter, order: Order::Desc, after: None, skip: 0, limit: 100, count_total: false };
    ours.ledger.list(tenant, &query).await?;
    rows.push(("the newest 100 events by time, bodies too", dynamo.consumed().read));

    let sessions = store.sessions(tenant, None, None, 20).await?;
    rows.push(("the newest 20 sessions", dynamo.consumed().read));
    if let Some(record) = sessions.first() {
        store.session(tenant, &record.session_id).await?;
        rows.push(("one session of 10 segments", dynamo.consumed().read));
    }
    let agents = store.agents(tenant, None, 100).await?;
    rows.push(("all agents", dynamo.consumed().read));
    if let Some(record) = agents.first() {
        store.agent(tenant, &record.agent_id).await?;
        rows.push(("one agent", dynamo.consumed().read));
        store.sessions(tenant, Some(&record.agent_id), None, 20).await?;
        rows.push(("the newest 20 sessions of one agent", dynamo.consumed().read));
    }
    Ok(Reads { segments, rows, attributes })
}
