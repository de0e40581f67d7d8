//! What is not archived: a sparse index that a segment enters with its commit and leaves with
//! [`crate::store::Store::mark_archived`]. Eventually consistent.

use futures_util::future::try_join_all;

use super::DynamoStore;
use super::item::{Item, binary, corrupt, get_binary, get_number, get_text, text};
use crate::ids::TenantId;
use crate::limits::FEED_SHARDS;
use crate::store::keys::dynamo as keys;
use crate::store::{FeedPosition, OpenEntry, StoreError};

/// The index's name.
pub(super) const INDEX: &str = "open";

fn read(tenant: &TenantId, item: &Item) -> Result<OpenEntry, StoreError> {
    let place =
        keys::read_feed(get_binary(item, "c")?).ok_or_else(|| corrupt(item, "no place in the feed"))?;
    if get_text(item, "pk")? != keys::session(tenant, &place.session_id) {
        return Err(corrupt(item, "its place in the feed is another segment's"));
    }
    let bytes = u64::try_from(get_number(item, "z")?).map_err(|_| corrupt(item, "z is no length"))?;
    Ok(OpenEntry { position: place, bytes })
}

/// See [`crate::store::Store::open_segments`].
pub(super) async fn after(
    store: &DynamoStore,
    tenant: &TenantId,
    after: Option<&FeedPosition>,
    limit: usize,
) -> Result<Vec<OpenEntry>, StoreError> {
    let shards = (0..FEED_SHARDS).map(async |shard| {
        let query = store
            .query()
            .index_name(INDEX)
            .projection_expression("pk, sk, c, z")
            .expression_attribute_values(":o", text(keys::open(tenant, shard)));
        let query = match after {
            None => query.key_condition_expression("o = :o"),
            Some(at) => query
                .key_condition_expression("o = :o AND c > :c")
                .expression_attribute_values(":c", binary(keys::feed(at.commit_id, &at.session_id))),
        };
        let items = store.items(query, limit).await?;
        items.iter().map(|item| read(tenant, item)).collect::<Result<Vec<_>, _>>()
    });
    let mut merged = try_join_all(shards).await?.concat();
    merged.sort_by(|a, b| a.position.cmp(&b.position));
    merged.truncate(limit);
    Ok(merged)
}
