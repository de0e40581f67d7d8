//! Items: their attributes, reading one, and reading a run of them to its end.
//!
//! Names of attributes count in an item's size, so they are one letter each:
//!
//! | | |
//! |---|---|
//! | `m` | a segment's attributes ([`SegmentMeta::encode`]) or a pointer's record ([`crate::store::Pointer::encode`]); projected into the index `feed` |
//! | `b` | a body, or a part of one |
//! | `n` | how many further parts a body has, if any |
//! | `f`, `c` | a place in the feed: shard; commit and session |
//! | `o`, `z` | of a segment that is not archived: its shard of the index `open`; unpacked bytes, projected into it |
//! | `a` | the batch that a segment was archived in |
//! | `q` | a pointer's sequence, which its condition compares |
//! | `p` | a record: of a batch, of an idempotency key, of an erasure |
//! | `v` | how often a segment's body was replaced, if it was |
//! | `e` | how often a pointer was scrubbed, if it was |
//! | `r` | there once a batch is recorded |
//! | `ttl` | when the table may drop the item, s since 1970 |

use std::collections::HashMap;

use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;

use super::DynamoStore;
use crate::aws::{Again, CallError, retried};
use crate::ids::{SessionId, TenantId};
use crate::segment::SegmentMeta;
use crate::store::keys::dynamo as keys;
use crate::store::{FeedEntry, StoreError};
use crate::time::Micros;

/// An item as the SDK has it.
pub(super) type Item = HashMap<String, AttributeValue>;

pub(super) fn text(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

pub(super) fn binary(value: impl Into<Vec<u8>>) -> AttributeValue {
    AttributeValue::B(Blob::new(value.into()))
}

pub(super) fn number(value: impl ToString) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

/// A key's two attributes.
pub(super) fn key(pk: impl Into<String>, sk: impl Into<String>) -> Item {
    HashMap::from([("pk".to_owned(), text(pk)), ("sk".to_owned(), text(sk))])
}

/// What an item is called in an error.
fn name(item: &Item) -> String {
    let part = |name| item.get(name).and_then(|v| v.as_s().ok()).map_or("?", String::as_str);
    format!("{} {}", part("pk"), part("sk"))
}

/// An item that cannot be what was written.
pub(super) fn corrupt(item: &Item, why: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt { key: name(item), why: why.to_string() }
}

pub(super) fn get_text<'i>(item: &'i Item, name: &str) -> Result<&'i str, StoreError> {
    let value = item.get(name).and_then(|v| v.as_s().ok());
    value.map(String::as_str).ok_or_else(|| corrupt(item, format_args!("no text {name}")))
}

pub(super) fn get_binary<'i>(item: &'i Item, name: &str) -> Result<&'i [u8], StoreError> {
    let value = item.get(name).and_then(|v| v.as_b().ok());
    value.map(AsRef::as_ref).ok_or_else(|| corrupt(item, format_args!("no binary {name}")))
}

/// A number that may be absent.
pub(super) fn find_number(item: &Item, name: &str) -> Result<Option<i64>, StoreError> {
    let Some(value) = item.get(name) else { return Ok(None) };
    let value = value.as_n().ok().and_then(|digits| digits.parse().ok());
    value.map(Some).ok_or_else(|| corrupt(item, format_args!("{name} is no number")))
}

pub(super) fn get_number(item: &Item, name: &str) -> Result<i64, StoreError> {
    find_number(item, name)?.ok_or_else(|| corrupt(item, format_args!("no number {name}")))
}

/// A time in µs that may be absent.
pub(super) fn find_time(item: &Item, name: &str) -> Result<Option<Micros>, StoreError> {
    let outside = || corrupt(item, format_args!("{name} is outside of all times"));
    find_number(item, name)?.map(|value| Micros::new(value).ok_or_else(outside)).transpose()
}

pub(super) fn get_time(item: &Item, name: &str) -> Result<Micros, StoreError> {
    find_time(item, name)?.ok_or_else(|| corrupt(item, format_args!("no time {name}")))
}

/// The attributes of a commit item, checked against its key.
pub(super) fn segment(item: &Item) -> Result<SegmentMeta, StoreError> {
    let meta = SegmentMeta::decode(get_binary(item, "m")?).map_err(|e| corrupt(item, e))?;
    if keys::read_segment(get_text(item, "sk")?) == Some(meta.first) {
        Ok(meta)
    } else {
        Err(corrupt(item, "its attributes name another first sequence"))
    }
}

/// An entry of the feed, from the index.
pub(super) fn entry(tenant: &TenantId, item: &Item) -> Result<FeedEntry, StoreError> {
    let meta = segment(item)?;
    let place =
        keys::read_feed(get_binary(item, "c")?).ok_or_else(|| corrupt(item, "no place in the feed"))?;
    let of = |session: &SessionId| {
        Some(keys::session(tenant, session)) == get_text(item, "pk").ok().map(str::to_owned)
    };
    if place.commit_id != meta.commit_id || !of(&place.session_id) {
        return Err(corrupt(item, "its place in the feed is another segment's"));
    }
    Ok(FeedEntry { session_id: place.session_id, meta })
}

impl DynamoStore {
    /// Reads one item, strongly consistent.
    pub(super) async fn get(&self, key: Item, attributes: Option<&str>) -> Result<Option<Item>, StoreError> {
        let output = retried(Again::IfUnknown, || {
            let request = self.client.get_item().table_name(&self.table).set_key(Some(key.clone()));
            let mut request =
                request.consistent_read(true).set_projection_expression(attributes.map(str::to_owned));
            // A reserved word.
            if attributes.is_some_and(|attributes| attributes.contains("#ttl")) {
                request = request.expression_attribute_names("#ttl", "ttl");
            }
            async { request.send().await.map_err(CallError::from) }
        });
        Ok(output.await.map_err(CallError::into_store)?.item)
    }

    /// A query of this table.
    pub(super) fn query(&self) -> QueryFluentBuilder {
        self.client.query().table_name(&self.table)
    }

    /// Runs one page of a query.
    pub(super) async fn page(
        &self,
        query: &QueryFluentBuilder,
    ) -> Result<(Vec<Item>, Option<Item>), StoreError> {
        let output = retried(Again::IfUnknown, || {
            let request = query.clone();
            async { request.send().await.map_err(CallError::from) }
        });
        let output = output.await.map_err(CallError::into_store)?;
        // An empty map stands for none in some implementations of the API.
        let next = output.last_evaluated_key.filter(|key| !key.is_empty());
        Ok((output.items.unwrap_or_default(), next))
    }

    /// Runs a query until it has `limit` items or there are no more. A page of the service ends at 1 MB, with
    /// however many items that were, none included.
    pub(super) async fn items(
        &self,
        query: QueryFluentBuilder,
        limit: usize,
    ) -> Result<Vec<Item>, StoreError> {
        let mut items: Vec<Item> = Vec::new();
        let mut from = None;
        while items.len() < limit {
            // The service takes limits up to 2^31.
            let most = i32::try_from(limit - items.len()).ok();
            let query = query.clone().set_limit(most).set_exclusive_start_key(from.take());
            let (page, next) = self.page(&query).await?;
            items.extend(page);
            from = next;
            if from.is_none() {
                break;
            }
        }
        Ok(items)
    }
}
