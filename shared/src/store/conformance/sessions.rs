//! Sessions and agents: what is known of them as a whole.

use std::time::Duration;

use super::{
    Batch, agent, check_line, eventually, fresh_tenant, now, ok, same, sample_event, session, session_of,
};
use crate::event::NewEvent;
use crate::ids::{AgentId, EventType, SessionId, Severity, TenantId};
use crate::segment::Head;
use crate::store::{FeedPosition, SessionRecord, Store};
use crate::time::Micros;

fn event(session: &SessionId, agent: &str, event_type: &str, at: Micros, payload: &str) -> NewEvent {
    let mut event = sample_event(session, agent, Some(at), payload.to_owned());
    event.event_type = EventType::parse(event_type).expect("an event type");
    event
}

/// Reads the list of sessions to its end in pages.
async fn list(
    store: &dyn Store,
    tenant: &TenantId,
    agent: Option<&AgentId>,
    limit: usize,
) -> Result<Vec<SessionRecord>, String> {
    let mut records: Vec<SessionRecord> = Vec::new();
    loop {
        let after = records
            .last()
            .map(|r| FeedPosition { commit_id: r.first_commit, session_id: r.session_id.clone() });
        let page = ok(store.sessions(tenant, agent, after.as_ref(), limit).await, "sessions");
        if page.len() > limit {
            return Err(format!("{} sessions in a page of {limit}", page.len()));
        }
        if page.is_empty() {
            return Ok(records);
        }
        if page.iter().any(|new| records.iter().any(|old| old.session_id == new.session_id)) {
            return Err(format!("a session comes again after {after:?}"));
        }
        records.extend(page);
    }
}

/// What is known of a session is what its segments' summaries merge to, in order: counts, times, status, name, tags,
/// the head, first and last commit. It keeps up with every commit, within `lag`, also past 32 agents.
///
/// # Panics
/// If the store breaks it.
pub async fn session_is_its_segments_merged(store: &dyn Store, lag: Duration) {
    let tenant = fresh_tenant();
    let name = session("merged / é");
    let start = now();
    let mut head: Option<Head> = None;
    let batches: Vec<Vec<NewEvent>> = vec![
        vec![event(&name, "ann", "session_started", start, r#"{"agentName":"Ann","tags":["x","y"]}"#)],
        vec![
            event(&name, "ann", "tool_call", start.plus_ms(-90_000), r#"{"toolName":"grep"}"#),
            event(&name, "bob", "tool_error", start.plus_ms(70_000), r#"{"error":"no"}"#),
        ],
        vec![event(
            &name,
            "ann",
            "llm_response",
            start.plus_ms(5),
            r#"{"usage":{"inputTokens":9007199254740993,"outputTokens":7,"totalTokens":9007199254741000},"costUsd":0.25}"#,
        )],
        vec![event(&name, "bob", "session_ended", start.plus_ms(6), r#"{"reason":"error"}"#)],
        vec![event(&name, "cy", "session_started", start.plus_ms(7), r#"{"agentName":"Cy"}"#)],
        (0..20).map(|n| event(&name, &format!("crowd-{n}"), "x.y", start, "1")).collect(),
        (20..40).map(|n| event(&name, &format!("crowd-{n}"), "x.y", start, "1")).collect(),
        vec![event(&name, "ann", "conformance.last", start.plus_ms(8), "{}")],
    ];
    for (round, events) in batches.into_iter().enumerate() {
        let at = start.plus_ms(round as i64);
        let commit = Batch::at(&tenant, at).events(&name, head, events).done();
        ok(store.commit(commit.clone()).await, "commit");
        head = Some(commit.segments[0].meta.head());
        let expected = session_of(&name, &check_line(store, &tenant, &name, 100).await);
        eventually(lag, "a session's record", || async {
            same("session", &ok(store.session(&tenant, &name).await, "session"), &expected)
        })
        .await;
    }
}

/// Sessions are listed newest first by the commit of their first event, whatever came later, in pages of any size,
/// each once; with an agent, those that hold an event of it, in whichever segment. Each within `lag`.
///
/// # Panics
/// If the store breaks it.
pub async fn sessions_are_listed_newest_first(store: &dyn Store, lag: Duration) {
    let tenant = fresh_tenant();
    let start = now();
    let mut expected: Vec<(SessionId, Vec<&str>)> = Vec::new();
    // Names that do not sort as their commits do.
    for (n, name) in ["m", "b", "z", "a", "mm", "Z", "é", "0", "m/"].into_iter().enumerate() {
        let name = session(name);
        let agents = if n % 3 == 0 { vec!["odd", "all"] } else { vec!["all"] };
        let events = agents.iter().map(|a| event(&name, a, "x.y", start, "1")).collect();
        let commit = Batch::at(&tenant, start.plus_ms(n as i64 * 10)).events(&name, None, events).done();
        ok(store.commit(commit.clone()).await, "commit");
        // A later commit changes the record and not the place; an agent may come in with it.
        if n % 2 == 0 {
            let late = event(&name, "late", "x.y", start, "2");
            let at = start.plus_ms(1000 - n as i64);
            let head = Some(commit.segments[0].meta.head());
            ok(store.commit(Batch::at(&tenant, at).events(&name, head, vec![late]).done()).await, "commit");
            expected.insert(0, (name, [agents, vec!["late"]].concat()));
        } else {
            expected.insert(0, (name, agents));
        }
    }
    for filter in [None, Some("all"), Some("odd"), Some("late"), Some("nobody"), Some("al"), Some("all ")] {
        let filter = filter.map(agent);
        let holds = |agents: &[&str]| filter.as_ref().is_none_or(|f| agents.contains(&f.as_str()));
        let mut records = Vec::new();
        for (name, agents) in &expected {
            if holds(agents) {
                let line = check_line(store, &tenant, name, 10).await;
                records.extend(session_of(name, &line));
            }
        }
        for limit in [1, 2, 4, 100] {
            eventually(lag, "the list of sessions in pages", || async {
                let what = format!("sessions of {filter:?} in pages of {limit}");
                same(&what, &list(store, &tenant, filter.as_ref(), limit).await?, &records)
            })
            .await;
        }
    }
}

/// Sessions that begin in one commit are all listed, each once, in pages of any size.
///
/// # Panics
/// If the store breaks it.
pub async fn sessions_of_one_commit_are_listed(store: &dyn Store, lag: Duration) {
    let tenant = fresh_tenant();
    let names: Vec<_> = (0..7).map(|n| session(&format!("same {n}"))).collect();
    let start = now();
    let mut batch = Batch::at(&tenant, start);
    for name in &names {
        batch = batch.sample(name, None, 1);
    }
    let older = Batch::at(&tenant, start.plus_ms(-10)).sample(&session("older"), None, 1).done();
    ok(store.commit(batch.done()).await, "commit");
    ok(store.commit(older).await, "commit");
    for limit in [1, 2, 3, 100] {
        eventually(lag, "sessions of one commit", || async {
            let mut found: Vec<_> =
                list(store, &tenant, None, limit).await?.into_iter().map(|r| r.session_id).collect();
            same("oldest session", &found.pop().map(|s| s.to_string()), &Some("older".to_owned()))?;
            found.sort();
            same("sessions of one commit", &found, &names)
        })
        .await;
    }
}

/// Agents are listed by id, in pages of any size, and found by id: how many sessions hold an event of each, how many
/// events, first and last timestamp, and the name that the last start gave. Within `lag`.
///
/// # Panics
/// If the store breaks it.
pub async fn agents_are_counted(store: &dyn Store, lag: Duration) {
    let tenant = fresh_tenant();
    let start = now();
    let times = |from: i64, to: i64| (start.plus_ms(from), start.plus_ms(to));
    let mut heads: Vec<(SessionId, Option<Head>)> =
        ["one", "two", "three"].map(|name| (session(name), None)).into();
    // Which session, then the events: agent, type, time, payload. One agent in a segment: its times are exact.
    let write = vec![
        (0, vec![("ann", "session_started", 0, r#"{"agentName":"Ann"}"#), ("ann", "x.y", 9, "1")]),
        (0, vec![("ann", "x.y", -50, "1")]),
        (1, vec![("ann", "x.y", 700, "1"), ("ann", "x.y", 20, "1")]),
        (1, vec![("bob", "x.y", 3, "1")]),
        (2, vec![("a", "x.y", 1, "1")]),
        (2, vec![("an n", "x.y", 2, "1")]),
        (0, vec![("ann", "session_started", 30, r#"{"agentName":"Anna"}"#)]),
        (1, vec![("bob", "x.y", 4, "1"), ("bob", "x.y", 3, "1")]),
    ];
    for (round, (which, events)) in write.into_iter().enumerate() {
        let (name, head) = &mut heads[which];
        let events =
            events.into_iter().map(|(a, t, ms, p)| event(name, a, t, start.plus_ms(ms), p)).collect();
        let at = start.plus_ms(round as i64 * 10);
        let commit = Batch::at(&tenant, at).events(name, *head, events).done();
        ok(store.commit(commit.clone()).await, "commit");
        *head = Some(commit.segments[0].meta.head());
    }
    // Agent, sessions, events, times, name; by id.
    let expected = vec![
        ("a", 1, 1, times(1, 1), None),
        ("an n", 1, 1, times(2, 2), None),
        ("ann", 2, 6, times(-50, 700), Some("Anna")),
        ("bob", 1, 3, times(3, 4), None),
    ];
    for limit in [1, 2, 3, 100] {
        eventually(lag, "agents in pages", || async {
            let mut found = Vec::new();
            loop {
                let after = found.last().map(|(a, ..): &(String, _, _, _, _)| agent(a));
                let page = ok(store.agents(&tenant, after.as_ref(), limit).await, "agents");
                if page.is_empty() {
                    break;
                }
                if page.len() > limit || found.len() > expected.len() {
                    return Err(format!("too many agents in pages of {limit}: {page:?}"));
                }
                for record in page {
                    let alone = ok(store.agent(&tenant, &record.agent_id).await, "agent");
                    same("the agent by id", &alone, &Some(record.clone()))?;
                    let seen = (record.first_seen_at, record.last_seen_at);
                    let id = record.agent_id.to_string();
                    found.push((id, record.session_count, record.event_count, seen, record.name));
                }
            }
            let found: Vec<_> =
                found.iter().map(|(a, s, e, t, n)| (a.as_str(), *s, *e, *t, n.as_deref())).collect();
            same("agents", &found, &expected)
        })
        .await;
    }
    for nobody in ["an", "annn", "Ann", "A"] {
        assert_eq!(ok(store.agent(&tenant, &agent(nobody)).await, "agent"), None, "agent {nobody}");
    }
}

/// An agent that shares segments with others is counted in every session that holds an event of it.
///
/// # Panics
/// If the store breaks it.
pub async fn agents_that_share_segments(store: &dyn Store, lag: Duration) {
    let tenant = fresh_tenant();
    let start = now();
    for n in 0..6usize {
        let name = session(&format!("shared {n}"));
        let mut events = vec![
            sample_event(&name, "everywhere", Some(start), "1".into()),
            sample_event(&name, &format!("only-{n}"), Some(start), "1".into()),
        ];
        if n % 2 == 0 {
            events.extend((0..3).map(|_| sample_event(&name, "even", Some(start), "1".into())));
        }
        ok(store.commit(Batch::new(&tenant).events(&name, None, events).done()).await, "commit");
    }
    let mut severe = sample_event(&session("shared 1"), "even", Some(start), "1".into());
    severe.severity = Severity::Critical;
    let line = check_line(store, &tenant, &session("shared 1"), 10).await;
    let head = line.last().map(|m| m.head());
    ok(
        store.commit(Batch::new(&tenant).events(&session("shared 1"), head, vec![severe]).done()).await,
        "commit",
    );
    eventually(lag, "agents that share segments", || async {
        for (id, sessions, events) in [("everywhere", 6, 6), ("only-3", 1, 1), ("even", 4, 10)] {
            let record = ok(store.agent(&tenant, &agent(id)).await, "agent");
            let counts = record.map(|r| (r.session_count, r.event_count));
            same(id, &counts, &Some((sessions, events)))?;
            let listed = list(store, &tenant, Some(&agent(id)), 2).await?;
            same("sessions listed", &(listed.len() as u64), &sessions)?;
        }
        Ok(())
    })
    .await;
}
