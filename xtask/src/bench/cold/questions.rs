//! What is asked, and what it took.

use std::time::Instant;

use anyhow::ensure;
use quipu_core::ids::{EventId, Seq, SessionId, TenantId};
use quipu_core::ledger::{EventFilter, Ledger, ListQuery, ReadStats};
use quipu_core::store::Order;

use super::fill::Filled;

/// Events of a page.
const PAGE_EVENTS: usize = 100;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// A type that few events have: a page of them is a search.
const SELDOM: &str = "tool_error";

/// The kinds of questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    ById,
    Session,
    Agent,
    Type,
    Text,
    CountAll,
    CountType,
}

impl Kind {
    pub(super) const ALL: [Self; 7] =
        [Self::ById, Self::Session, Self::Agent, Self::Type, Self::Text, Self::CountAll, Self::CountType];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ById => "by id",
            Self::Session => "session, page of 100",
            Self::Agent => "an agent's newest 100",
            Self::Type => "newest 100 `tool_error` of a day",
            Self::Text => "full text over a day, a call's id",
            Self::CountAll => "count of a day",
            Self::CountType => "count of `tool_error` of a day",
        }
    }

    /// How many ranged reads it should take at most.
    pub(super) fn aim(self) -> Option<u64> {
        match self {
            Self::ById => Some(4),
            Self::Session => Some(6),
            _ => None,
        }
    }

    /// How often it is asked: the last ones read a day.
    fn times(self) -> usize {
        match self {
            Self::ById | Self::Session => 200,
            Self::Agent => 100,
            Self::Type => 50,
            Self::CountAll | Self::CountType => 20,
            Self::Text => 5,
        }
    }

    pub(super) fn questions(self, filled: &Filled) -> anyhow::Result<Vec<Question>> {
        (0..self.times()).map(|nth| self.question(filled, nth)).collect()
    }

    fn question(self, filled: &Filled, nth: usize) -> anyhow::Result<Question> {
        // A large odd step visits places without a pattern that a cache could like.
        fn one<T>(of: &[T], nth: usize) -> anyhow::Result<&T> {
            of.get(nth.wrapping_mul(104_729) % of.len().max(1))
                .ok_or_else(|| anyhow::anyhow!("too few events"))
        }
        let tenant = filled.tenant.clone();
        let (start, end) = filled.times();
        // A day that begins somewhere in the first two.
        let from = start.plus_ms((nth as i64 * 7_919_000) % (2 * DAY_MS)).min(end);
        let day = EventFilter { from: Some(from), to: Some(from.plus_ms(DAY_MS)), ..EventFilter::default() };
        let what = match self {
            Self::ById => What::ById(*one(&filled.ids, nth)?),
            Self::Session => {
                let pages = filled.session_events / PAGE_EVENTS;
                let first = Seq::new((nth % pages * PAGE_EVENTS) as u64);
                What::Session(one(&filled.sessions, nth)?.clone(), first.unwrap_or(Seq::ZERO))
            }
            Self::Agent => {
                What::List(EventFilter { agents: vec![Filled::agent(nth * 7)], ..EventFilter::default() })
            }
            Self::Type => What::List(EventFilter { event_types: vec![SELDOM.to_owned()], ..day }),
            Self::Text => {
                let (text, at) = one(&filled.texts, nth)?;
                let from = at.plus_ms(-DAY_MS / 2);
                let to = from.plus_ms(DAY_MS);
                What::List(EventFilter { from: Some(from), to: Some(to), search: Some(text.clone()), ..day })
            }
            Self::CountAll => What::Count(day),
            Self::CountType => What::Count(EventFilter { event_types: vec![SELDOM.to_owned()], ..day }),
        };
        Ok(Question { tenant, what })
    }
}

/// A question, ready to be asked.
pub(super) struct Question {
    tenant: TenantId,
    what: What,
}

enum What {
    ById(EventId),
    Session(SessionId, Seq),
    /// The newest first, until the page is full or there is no more.
    List(EventFilter),
    Count(EventFilter),
}

/// What an answer took.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) requests: u64,
    pub(super) bytes: u64,
    pub(super) ms: f64,
    /// Pages that it took.
    pub(super) pages: u64,
    /// Events that were given, or counted.
    pub(super) answer: u64,
}

impl Question {
    pub(super) async fn ask(&self, ledger: &Ledger) -> anyhow::Result<Asked> {
        let (tenant, mut stats) = (&self.tenant, ReadStats::default());
        let started = Instant::now();
        let mut asked = Asked { requests: 0, bytes: 0, ms: 0.0, pages: 1, answer: 1 };
        match &self.what {
            What::ById(id) => {
                let found = ledger.event_with_stats(tenant, *id, &mut stats).await?;
                ensure!(found.is_some_and(|event| event.event_id == *id), "{id} is there");
                asked.add(&stats)?;
            }
            What::Session(session, from) => {
                let page = ledger
                    .session_events_with_stats(tenant, session, (*from, Order::Asc), PAGE_EVENTS, &mut stats)
                    .await?;
                ensure!(page.events.len() == PAGE_EVENTS, "a whole page of {session}");
                asked.answer = page.events.len() as u64;
                asked.add(&stats)?;
            }
            What::List(filter) => {
                let mut query = query(filter, PAGE_EVENTS);
                (asked.pages, asked.answer) = (0, 0);
                loop {
                    let page = ledger.list(tenant, &query).await?;
                    (asked.pages, asked.answer) = (asked.pages + 1, asked.answer + page.events.len() as u64);
                    asked.add(&page.stats)?;
                    query.limit -= page.events.len();
                    if query.limit == 0 || page.next.is_none() {
                        break;
                    }
                    query.after = page.next;
                }
                ensure!(asked.answer > 0, "somebody did something: {filter:?} {asked:?}");
            }
            What::Count(filter) => {
                let page = ledger.list(tenant, &ListQuery { count_total: true, ..query(filter, 0) }).await?;
                asked.answer = page.total.unwrap_or(0);
                ensure!(asked.answer > 0, "something was counted");
                asked.add(&page.stats)?;
            }
        }
        asked.ms = started.elapsed().as_secs_f64() * 1e3;
        Ok(asked)
    }
}

impl Asked {
    fn add(&mut self, stats: &ReadStats) -> anyhow::Result<()> {
        ensure!(stats.segments_read == 0, "nothing is hot");
        self.requests += stats.cold.requests;
        self.bytes += stats.cold.bytes_read;
        Ok(())
    }
}

fn query(filter: &EventFilter, limit: usize) -> ListQuery {
    ListQuery { filter: filter.clone(), order: Order::Desc, after: None, skip: 0, limit, count_total: false }
}
