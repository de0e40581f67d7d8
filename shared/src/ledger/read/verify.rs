//! The check of one session as it stands in the store: every hash, every link, every derived attribute.

use bytes::Bytes;

use crate::chain::ChainCheck;
use crate::event::{Content, EventRef};
use crate::ids::{EventHash, EventId, Seq, SessionId, TenantId};
use crate::ledger::Ledger;
use crate::limits;
use crate::segment::{Head, SegmentMeta, SegmentView};
use crate::store::{Order, StoreError};
use crate::summary::Summary;

use super::{Place, READ_AHEAD, ReadError, ReadStats, open};

/// What a check of a session found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionVerdict {
    /// Everything that the store holds of the session is right, up to the head that the store names. That nothing
    /// was cut off together with that head, only a receipt or a checkpoint kept elsewhere can show.
    Verified {
        /// How many events.
        events: u64,
        /// The last of them.
        head: Head,
        /// Hash of the first.
        first_hash: EventHash,
    },
    /// Something is wrong.
    Broken {
        /// The first bad place.
        sequence: Seq,
        /// The id of what stands there, if it can be told.
        event_id: Option<EventId>,
        /// What is wrong.
        reason: String,
    },
    /// There is no event: nothing that could be valid.
    Empty,
}

impl Ledger {
    /// Walks a session from its first event to its head and recomputes everything.
    ///
    /// # Errors
    /// `Store` if it could not be read. What cannot be decoded is a verdict, not an error.
    pub async fn verify_session(
        &self,
        tenant: &TenantId,
        session: &SessionId,
    ) -> Result<SessionVerdict, ReadError> {
        let mut walk = Walk::new(tenant, session);
        match self.walk(&mut walk).await {
            Ok(()) => Ok(walk.verdict()),
            Err(Stop::Broken(verdict)) => Ok(verdict),
            Err(Stop::Failed(error)) => Err(error),
        }
    }

    async fn walk(&self, walk: &mut Walk<'_>) -> Result<(), Stop> {
        let (tenant, session) = (walk.tenant, walk.session);
        // Named before the walk, so that what is appended meanwhile does no harm.
        let head = self.store.head(tenant, session).await.map_err(|e| walk.stop(e))?;
        let record = self.store.session(tenant, session).await.map_err(|e| walk.stop(e))?;
        let heads = [head, record.as_ref().map(|r| r.head)];
        loop {
            let from = walk.next();
            let metas = self.store.segments(tenant, session, from, Order::Asc, READ_AHEAD).await;
            let metas = metas.map_err(|e| walk.stop(e))?;
            if metas.first().is_none_or(|meta| meta.first > from) {
                let pointer = self.archived_at(tenant, session, from).await.map_err(|e| walk.unread(e))?;
                if let Some(pointer) = pointer {
                    let at_once = (limits::PAGE_EVENTS_MAX, limits::PAGE_BYTES_MAX);
                    let stats = &mut ReadStats::default();
                    let page =
                        self.archived_events(tenant, &pointer, (from, Order::Asc), at_once, stats).await;
                    for event in page.map_err(|e| walk.unread(e))?.events {
                        walk.event(&event.as_ref(), &heads)?;
                    }
                    continue;
                }
            }
            let mut whole = metas.len() < READ_AHEAD;
            for (nth, meta) in metas.iter().enumerate() {
                // What expired between two that have not, or since they were listed, is archived.
                if nth > 0 && meta.first > walk.next() {
                    whole = false;
                    break;
                }
                walk.begin(meta)?;
                let place = walk.place(meta);
                let Some(body) = self.body(place).await.map_err(|e| walk.unread(e))? else {
                    whole = false;
                    break;
                };
                walk.segment(place, meta, &body, heads)?;
                // Hashing is work without a pause; let others have the thread in between.
                tokio::task::yield_now().await;
            }
            // Segments expire in any order: what is above the last that is hot may be archived.
            let goes_on = !metas.is_empty() && head.is_some_and(|head| head.sequence >= walk.next());
            if whole && !goes_on {
                break;
            }
        }
        for named in [head, record.map(|record| record.head)].into_iter().flatten() {
            if walk.check.count() <= named.sequence.get() {
                let why = format!("the session ends before event {}, which its head names", named.sequence);
                return Err(walk.broken(None, why));
            }
        }
        Ok(())
    }
}

/// Why a walk ended early.
enum Stop {
    Broken(SessionVerdict),
    Failed(ReadError),
}

struct Walk<'a> {
    tenant: &'a TenantId,
    session: &'a SessionId,
    check: ChainCheck,
    first_hash: EventHash,
}

impl<'a> Walk<'a> {
    fn new(tenant: &'a TenantId, session: &'a SessionId) -> Self {
        Self { tenant, session, check: ChainCheck::new(tenant, session), first_hash: EventHash::ZERO }
    }

    /// The sequence that comes next. Sequences end at 2^63, so the last of all stands for itself.
    fn next(&self) -> Seq {
        Seq::new(self.check.count()).unwrap_or(Seq::MAX)
    }

    fn place(&self, meta: &SegmentMeta) -> Place<'a> {
        Place::new(self.tenant, self.session, meta)
    }

    fn broken(&self, event_id: Option<EventId>, reason: impl ToString) -> Stop {
        Stop::Broken(SessionVerdict::Broken { sequence: self.next(), event_id, reason: reason.to_string() })
    }

    /// A store that finds its own bytes corrupt has found the bad place; other failures are no verdict.
    fn stop(&self, error: StoreError) -> Stop {
        match error {
            StoreError::Corrupt { why, .. } => self.broken(None, why),
            other => Stop::Failed(other.into()),
        }
    }

    /// The same of what is read by way of the ledger.
    fn unread(&self, error: ReadError) -> Stop {
        match error {
            ReadError::Corrupt { why, .. } => self.broken(None, why),
            other => Stop::Failed(other),
        }
    }

    /// What a segment's attributes say of its place.
    fn begin(&self, meta: &SegmentMeta) -> Result<(), Stop> {
        if meta.first != self.next() {
            let why = format!("expected event {}, the next segment begins at {}", self.next(), meta.first);
            return Err(self.broken(None, why));
        }
        if meta.prev_hash != self.check.head() {
            let (expected, found) = (self.check.head(), meta.prev_hash);
            let why = format!("the segment's attributes follow {found}, the event before has {expected}");
            return Err(self.broken(None, why));
        }
        Ok(())
    }

    /// What a segment holds, and whether its attributes are those of its events.
    fn segment(
        &mut self,
        place: Place<'_>,
        meta: &SegmentMeta,
        body: &Bytes,
        heads: [Option<Head>; 2],
    ) -> Result<(), Stop> {
        let walked = open(place, body, |view| Ok(self.events(view, &heads)));
        let summary = match walked {
            Ok(walked) => walked?,
            Err(ReadError::Corrupt { why, .. }) => return Err(self.broken(None, why)),
            Err(error) => return Err(Stop::Failed(error)),
        };
        let held = (meta.last.get() + 1, meta.last_hash, meta.body_bytes);
        let same = held == (self.check.count(), self.check.head(), body.len() as u64)
            && summary.is_none_or(|summary| summary == meta.summary);
        if same { Ok(()) } else { Err(self.attributes_differ(meta)) }
    }

    fn attributes_differ(&self, meta: &SegmentMeta) -> Stop {
        Stop::Broken(SessionVerdict::Broken {
            sequence: meta.first,
            event_id: None,
            reason: "the segment's attributes are not those of its events".to_owned(),
        })
    }

    /// Checks an event.
    fn event(&mut self, event: &EventRef<'_>, heads: &[Option<Head>; 2]) -> Result<(), Stop> {
        self.check.push(event).map_err(|e| self.broken(Some(event.event_id), e))?;
        if event.sequence == Seq::ZERO {
            self.first_hash = event.hash;
        }
        for head in heads.iter().flatten().filter(|head| head.sequence == event.sequence) {
            if head.hash != event.hash {
                let why = format!("the session's head names {}, the event has {}", head.hash, event.hash);
                return Err(Stop::Broken(SessionVerdict::Broken {
                    sequence: event.sequence,
                    event_id: Some(event.event_id),
                    reason: why,
                }));
            }
        }
        Ok(())
    }

    /// Checks every event. Gives what they count, unless content was erased that once counted.
    fn events(&mut self, view: SegmentView<'_>, heads: &[Option<Head>; 2]) -> Result<Option<Summary>, Stop> {
        let mut summary: Option<Summary> = None;
        let mut erased = false;
        for event in view.events() {
            let event = event.map_err(|e| self.broken(None, e))?;
            if event.received_at != view.received_at() || event.event_id.commit() != view.commit_id() {
                return Err(
                    self.broken(Some(event.event_id), "the event is of another commit than its segment")
                );
            }
            self.event(&event, heads)?;
            erased |= matches!(event.content, Content::Erased { .. });
            match &mut summary {
                Some(summary) => summary.push(&event),
                None => summary = Some(Summary::of(&event)),
            }
        }
        Ok(summary.filter(|_| !erased))
    }

    fn verdict(&self) -> SessionVerdict {
        match self.check.count().checked_sub(1).and_then(Seq::new) {
            None => SessionVerdict::Empty,
            Some(sequence) => SessionVerdict::Verified {
                events: self.check.count(),
                head: Head { sequence, hash: self.check.head() },
                first_hash: self.first_hash,
            },
        }
    }
}
