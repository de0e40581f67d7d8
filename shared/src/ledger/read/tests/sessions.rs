//! Sessions: their events by sequence, and their list.

use proptest::prelude::*;

use super::fixture::{Fixture, Spec, batches, run, session};
use super::in_memory;
use crate::event::Event;
use crate::ids::{AgentId, Seq, SessionId};
use crate::ledger::ReadError;
use crate::ledger::read::SessionQuery;
use crate::store::Order;
use crate::summary::Status;
use crate::time::Micros;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_session_is_read_in_runs_of_any_size(
        batches in batches(), limit in 1usize..9, from in 0u64..40, downwards: bool,
    ) {
        run(async {
            let (mut fixture, _) = in_memory(4);
            for batch in &batches {
                fixture.append(batch).await;
            }
            let order = if downwards { Order::Desc } else { Order::Asc };
            for number in 0..4 {
                let expected = of_session(&fixture, &session(number), from, order);
                let mut next = Seq::new(from);
                let mut seen = Vec::new();
                while let Some(from) = next {
                    let (tenant, session) = (&fixture.tenant, session(number));
                    let run = fixture.ledger.session_events(tenant, &session, from, order, limit).await.unwrap();
                    prop_assert!(run.events.len() <= limit);
                    prop_assert!(run.next.is_none() || run.events.len() == limit);
                    seen.extend(run.events);
                    next = run.next;
                }
                prop_assert_eq!(seen, expected);
            }
            Ok(())
        })?;
    }

    #[test]
    fn the_list_of_sessions_agrees_with_a_plain_filter(
        batches in batches(), agent in prop::option::of(0u8..4), from in prop::option::of(-5i64..30),
        to in prop::option::of(-5i64..30), limit in 1usize..4, skip in 0u64..3,
    ) {
        run(async {
            let (mut fixture, _) = in_memory(4);
            for batch in &batches {
                fixture.append(batch).await;
            }
            let agent = agent.map(|number| AgentId::parse(super::fixture::agent(number)).unwrap());
            let (from, to) = (from.and_then(Micros::new), to.and_then(Micros::new));
            let expected = sessions_of(&fixture, agent.as_ref(), from, to);
            let base = SessionQuery { agent, from, to, limit, count_total: true, ..SessionQuery::default() };
            let mut query = base.clone();
            let mut seen = Vec::new();
            loop {
                let page = fixture.ledger.sessions(&fixture.tenant, &query).await.unwrap();
                prop_assert_eq!(page.total, Some(expected.len() as u64));
                prop_assert!(page.next.is_none() || page.sessions.len() == limit);
                seen.extend(page.sessions.into_iter().map(|record| record.session_id));
                let Some(next) = page.next else { break };
                query.after = Some(next);
                query.count_total = query.count_total && seen.len() % 2 == 0;
                if !query.count_total {
                    let uncounted = fixture.ledger.sessions(&fixture.tenant, &query).await.unwrap();
                    prop_assert_eq!(uncounted.total, None);
                    query.count_total = true;
                }
            }
            prop_assert_eq!(&seen, &expected);
            let skipped = SessionQuery { skip, ..base };
            let page = fixture.ledger.sessions(&fixture.tenant, &skipped).await.unwrap();
            let ids = page.sessions.into_iter().map(|record| record.session_id).collect::<Vec<_>>();
            prop_assert_eq!(ids, expected.into_iter().skip(skip as usize).take(limit).collect::<Vec<_>>());
            Ok(())
        })?;
    }
}

fn of_session(fixture: &Fixture, session: &SessionId, from: u64, order: Order) -> Vec<Event> {
    let mut events: Vec<Event> =
        fixture.written.iter().filter(|event| event.session_id == *session).cloned().collect();
    match order {
        Order::Asc => events.retain(|event| event.sequence.get() >= from),
        Order::Desc => {
            events.retain(|event| event.sequence.get() <= from);
            events.reverse();
        }
    }
    events
}

/// Sessions with an event of the agent whose first event is in the range, newest first.
fn sessions_of(
    fixture: &Fixture,
    agent: Option<&AgentId>,
    from: Option<Micros>,
    to: Option<Micros>,
) -> Vec<SessionId> {
    let firsts = fixture.written.iter().filter(|event| event.sequence == Seq::ZERO);
    let mut firsts: Vec<&Event> = firsts
        .filter(|first| from.is_none_or(|t| first.timestamp >= t) && to.is_none_or(|t| first.timestamp <= t))
        .filter(|first| {
            let mut events = fixture.written.iter().filter(|event| event.session_id == first.session_id);
            agent.is_none_or(|agent| events.any(|event| event.agent_id == agent.as_str()))
        })
        .collect();
    firsts.sort_by_key(|first| std::cmp::Reverse((first.event_id.commit(), first.session_id.clone())));
    firsts.into_iter().map(|first| first.session_id.clone()).collect()
}

#[test]
fn a_session_without_a_start_is_active_and_bears_no_tag() {
    run(async {
        let (mut fixture, _) = in_memory(4);
        fixture
            .append(&[Spec { session: 1, agent: 0, kind: 0, severity: 1, micros: 5, text: String::new() }])
            .await;
        let with = |statuses: Vec<Status>, tags: Vec<String>| SessionQuery {
            statuses,
            tags,
            limit: 10,
            ..SessionQuery::default()
        };
        for (query, count) in [
            (with(vec![], vec![]), 1),
            (with(vec![Status::Active], vec![]), 1),
            (with(vec![Status::Completed, Status::Error], vec![]), 0),
            (with(vec![], vec!["tag".to_owned()]), 0),
        ] {
            let page = fixture.ledger.sessions(&fixture.tenant, &query).await.unwrap();
            assert_eq!(page.sessions.len(), count, "{query:?}");
        }
        let record = fixture.ledger.session(&fixture.tenant, &session(1)).await.unwrap();
        assert_eq!(record.map(|record| record.summary.events), Some(1));
        assert_eq!(fixture.ledger.session(&fixture.tenant, &session(2)).await.unwrap(), None);
    });
}

#[test]
fn a_list_of_sessions_past_its_budget_goes_on_later_or_says_so() {
    run(async {
        let (mut fixture, _) = in_memory(4);
        for number in 0..200u8 {
            for _ in 0..2 {
                let spec =
                    Spec { session: number, agent: 0, kind: 0, severity: 1, micros: 5, text: String::new() };
                fixture.append(&[spec]).await;
            }
        }
        for number in 200..=255u8 {
            let spec =
                Spec { session: number, agent: 1, kind: 0, severity: 1, micros: 5, text: String::new() };
            fixture.append(&[spec]).await;
        }
        let tags = vec!["none".to_owned()];
        let query = SessionQuery { tags, limit: 10, ..SessionQuery::default() };
        let page = fixture.ledger.sessions_within(&fixture.tenant, &query, 1000).await.unwrap();
        assert!(page.partial && page.next.is_some() && page.sessions.is_empty());
        let rest = SessionQuery { after: page.next, ..query.clone() };
        let page = fixture.ledger.sessions_within(&fixture.tenant, &rest, 1000).await.unwrap();
        assert!(!page.partial && page.next.is_none());
        let total = SessionQuery { count_total: true, ..query };
        let refused = fixture.ledger.sessions_within(&fixture.tenant, &total, 1000).await;
        assert!(matches!(refused, Err(ReadError::TooBroad { .. })));
    });
}
