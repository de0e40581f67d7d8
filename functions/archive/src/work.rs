//! What wakes the archiver on AWS, and what it does then.

use std::sync::Arc;

use async_trait::async_trait;
use quipu_core::archive::{Archiver, Close, RunError, RunReport};
use quipu_core::ids::TenantId;
use quipu_core::ledger::Ledger;
use quipu_core::store::StoreError;
use quipu_core::time::Micros;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::metrics;

/// How long one invocation may go on beginning batches, ms: 10 of Lambda's 15 minutes (service quota); a batch takes
/// seconds.
const RUN_MS: i64 = 10 * 60 * 1000;

/// What came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The schedule (an EventBridge event): look for work.
    Schedule,
    /// Messages of the queue: a tenant each.
    Messages(Vec<Message>),
    /// Somebody asks for it now, for one tenant or for all.
    Now(Option<TenantId>),
}

/// A message of the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The queue's id for it.
    pub id: String,
    /// Whose segments to archive; what the message says instead, if it names no tenant.
    pub tenant: Result<TenantId, String>,
}

/// The body of a message.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    tenant: String,
}

impl Event {
    /// Reads what Lambda hands over.
    ///
    /// # Errors
    /// If it is none of these.
    pub fn read(event: &Value) -> Result<Self, String> {
        if let Some(records) = event.get("Records").and_then(Value::as_array) {
            let message = |record: &Value| {
                let id = record.get("messageId").and_then(Value::as_str)?;
                let body = record.get("body").and_then(Value::as_str)?;
                Some(Message { id: id.to_owned(), tenant: read_body(body) })
            };
            let messages: Option<Vec<_>> = records.iter().map(message).collect();
            return messages.map(Self::Messages).ok_or_else(|| "a record that is no message".to_owned());
        }
        if let Some("now") = event.get("archive").and_then(Value::as_str) {
            let tenant = match event.get("tenant") {
                None | Some(Value::Null) => None,
                Some(Value::String(name)) => {
                    Some(TenantId::parse(name.as_str()).map_err(|why| format!("tenant {why}"))?)
                }
                Some(_) => return Err("tenant must be a string".to_owned()),
            };
            return Ok(Self::Now(tenant));
        }
        let scheduled = ["aws.events", "aws.scheduler"];
        match event.get("source").and_then(Value::as_str) {
            Some(source) if scheduled.contains(&source) => Ok(Self::Schedule),
            _ => Err("neither a schedule, nor messages, nor {\"archive\":\"now\"}".to_owned()),
        }
    }
}

fn read_body(body: &str) -> Result<TenantId, String> {
    let body: Body = serde_json::from_str(body).map_err(|e| e.to_string())?;
    TenantId::parse(body.tenant).map_err(|why| format!("tenant {why}"))
}

/// Where the messages go.
#[async_trait]
pub trait Dispatch: Send + Sync + 'static {
    /// Sends messages, all of them.
    ///
    /// # Errors
    /// If any could not be sent; the schedule comes again.
    async fn send(&self, bodies: Vec<String>) -> Result<(), String>;
}

/// What a run did for a tenant.
#[derive(Debug, Clone)]
pub struct TenantRun {
    /// Whose.
    pub tenant: TenantId,
    /// What was done.
    pub report: RunReport,
}

impl TenantRun {
    /// For people and their scripts.
    pub fn to_json(&self) -> Value {
        let batches: Vec<_> = self
            .report
            .batches
            .iter()
            .map(|closed| {
                json!({
                    "batch": closed.batch,
                    "events": closed.events,
                    "bytes": closed.bytes,
                    "tree_size": closed.tree_size,
                })
            })
            .collect();
        let broken: Vec<_> = self
            .report
            .broken
            .iter()
            .map(|chain| {
                json!({
                    "session_id": chain.session_id.as_str(),
                    "sequence": chain.first.get(),
                    "why": chain.why,
                })
            })
            .collect();
        json!({ "tenant": self.tenant.as_str(), "batches": batches, "broken": broken })
    }
}

/// What an invocation answers.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// Messages were sent for so many tenants.
    Dispatched(usize),
    /// Of the messages, these failed and are to come again.
    Failed(Vec<String>),
    /// What was done at once.
    Done(Vec<TenantRun>),
}

impl Outcome {
    /// The answer to Lambda: for messages, what SQS reads as a partial failure.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Dispatched(tenants) => json!({ "dispatched": tenants }),
            Self::Failed(ids) => {
                let failures: Vec<_> = ids.iter().map(|id| json!({ "itemIdentifier": id })).collect();
                json!({ "batchItemFailures": failures })
            }
            Self::Done(runs) => json!({ "tenants": runs.iter().map(TenantRun::to_json).collect::<Vec<_>>() }),
        }
    }
}

/// Does what events ask for.
pub struct Worker {
    archiver: Arc<Archiver>,
    dispatch: Arc<dyn Dispatch>,
}

impl Worker {
    /// A worker of the archiver's ledger.
    pub fn new(archiver: Arc<Archiver>, dispatch: Arc<dyn Dispatch>) -> Self {
        Self { archiver, dispatch }
    }

    fn ledger(&self) -> &Ledger {
        self.archiver.ledger()
    }

    /// Does what an event asks for.
    ///
    /// # Errors
    /// If it could not be done; Lambda tells whoever asked, and its alarm counts it.
    pub async fn run(&self, event: Event) -> Result<Outcome, String> {
        match event {
            Event::Schedule => self.dispatch().await.map(Outcome::Dispatched),
            Event::Messages(messages) => Ok(Outcome::Failed(self.messages(messages).await)),
            Event::Now(tenant) => self.now(tenant).await.map(Outcome::Done),
        }
    }

    /// One message for each tenant that has something which is not archived. A tenant that cannot be asked keeps no
    /// other from its turn.
    async fn dispatch(&self) -> Result<usize, String> {
        let mut bodies = Vec::new();
        let (mut lag, mut behind) = (0, None);
        let mut failed = None;
        for record in self.ledger().store().tenants().await.map_err(|e| e.to_string())? {
            let tenant = record.tenant;
            match self.waiting(&tenant).await {
                Ok(None) => {}
                Ok(Some(seconds)) => {
                    bodies.push(json!(Body { tenant: tenant.to_string() }).to_string());
                    if seconds > lag {
                        (lag, behind) = (seconds, Some(tenant));
                    }
                }
                Err(error) => failed = Some(format!("{tenant}: {error}")),
            }
        }
        metrics::lag(lag, behind.as_ref());
        let count = bodies.len();
        self.dispatch.send(bodies).await?;
        failed.map_or(Ok(count), Err)
    }

    /// How long a tenant's oldest open segment has waited, s; `None` if there is nothing to do for it.
    async fn waiting(&self, tenant: &TenantId) -> Result<Option<i64>, StoreError> {
        let store = self.ledger().store();
        if let Some(oldest) = store.open_segments(tenant, None, 1).await?.first() {
            let committed = i64::try_from(oldest.position.commit_id.unix_ms()).unwrap_or(i64::MAX);
            return Ok(Some(seconds_since(committed, self.ledger().clock().now())));
        }
        // Only the last word of a run is missing, or an erasure is not done.
        let unfinished = store.last_batch(tenant).await?.is_some_and(|batch| !batch.recorded);
        let is_erasing = !store.erasures(tenant, false, None, 1).await?.is_empty();
        Ok((unfinished || is_erasing).then_some(0))
    }

    /// The ids of those that failed.
    async fn messages(&self, messages: Vec<Message>) -> Vec<String> {
        let mut failed = Vec::new();
        for message in messages {
            let done = match &message.tenant {
                Ok(tenant) => match self.ledger().store().tenant(tenant).await {
                    Ok(Some(_)) => self.tenant(tenant, Close::WhenDue).await.map(|_| ()),
                    Ok(None) => Err("no such tenant".to_owned()),
                    Err(error) => Err(error.to_string()),
                },
                Err(why) => Err(why.clone()),
            };
            if let Err(why) = done {
                tracing::error!(message = message.id, why, "a message failed");
                failed.push(message.id);
            }
        }
        failed
    }

    async fn now(&self, tenant: Option<TenantId>) -> Result<Vec<TenantRun>, String> {
        let store = self.ledger().store();
        let known = store.tenants().await.map_err(|e: StoreError| e.to_string())?;
        let wanted: Vec<_> = known
            .into_iter()
            .map(|record| record.tenant)
            .filter(|known| tenant.as_ref().is_none_or(|tenant| tenant == known))
            .collect();
        if wanted.is_empty() && tenant.is_some() {
            return Err("no such tenant".to_owned());
        }
        let mut runs = Vec::with_capacity(wanted.len());
        let mut failed = None;
        for tenant in wanted {
            match self.tenant(&tenant, Close::Now).await {
                Ok(report) => runs.push(TenantRun { tenant, report }),
                Err(why) => failed = Some(format!("{tenant}: {why}")),
            }
        }
        failed.map_or(Ok(runs), Err)
    }

    async fn tenant(&self, tenant: &TenantId, close: Close) -> Result<RunReport, String> {
        let started = self.ledger().clock().now();
        let run = self.archiver.run(tenant, close, started.plus_ms(RUN_MS)).await;
        match &run {
            Ok(report) => metrics::chains_broken(tenant, report.broken.len()),
            Err(RunError::Damaged { .. }) => metrics::log_damaged(tenant),
            Err(_) => {}
        }
        run.map_err(|error| error.to_string())
    }
}

fn seconds_since(unix_ms: i64, now: Micros) -> i64 {
    (now.unix_ms().saturating_sub(unix_ms) / 1000).max(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lambda_hands_over_is_told_apart() {
        let schedule = json!({"version": "0", "source": "aws.events", "detail-type": "Scheduled Event"});
        assert_eq!(Event::read(&schedule), Ok(Event::Schedule));
        let messages = json!({"Records": [
            {"messageId": "a", "eventSource": "aws:sqs", "body": "{\"tenant\":\"acme\"}"},
            {"messageId": "b", "eventSource": "aws:sqs", "body": "{\"tenant\":\"A b\"}"},
        ]});
        let Ok(Event::Messages(messages)) = Event::read(&messages) else { panic!("messages") };
        assert_eq!(messages[0].tenant, Ok(TenantId::parse("acme").unwrap()));
        assert!(messages[1].tenant.as_ref().is_err_and(|why| why.contains("a-z")));
        let now = json!({"archive": "now", "tenant": "acme"});
        assert_eq!(Event::read(&now), Ok(Event::Now(Some(TenantId::parse("acme").unwrap()))));
        assert_eq!(Event::read(&json!({"archive": "now"})), Ok(Event::Now(None)));
        for other in [json!({}), json!({"archive": "later"}), json!({"Records": [{}]}), json!(1)] {
            assert!(Event::read(&other).is_err(), "{other}");
        }
    }

    #[test]
    fn a_failed_message_is_named_as_sqs_wants_it() {
        let answer = Outcome::Failed(vec!["b".into()]).to_json();
        assert_eq!(answer, json!({"batchItemFailures": [{"itemIdentifier": "b"}]}));
    }

    #[test]
    fn the_lag_is_never_below_zero() {
        let now = Micros::from_unix_ms(5_000);
        assert_eq!(seconds_since(2_000, now), 3);
        assert_eq!(seconds_since(2_001, now), 2);
        assert_eq!(seconds_since(9_000, now), 0);
        assert_eq!(seconds_since(i64::MAX, now), 0);
    }
}
