//! The feed: one ordered list made of a few shards of the index. Eventually consistent, and a hint: an entry stays
//! until the table deletes its segment, which may be days after it expired. The index does not know a segment's
//! expiry, or it would be paid for once more when that is set; the segment itself does, and says so when it is read.

use std::collections::VecDeque;

use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use futures_util::future::try_join_all;

use super::DynamoStore;
use super::item::{self, Item, binary, text};
use crate::ids::{CommitId, TenantId};
use crate::store::keys::dynamo as keys;
use crate::store::{FeedEntry, FeedPosition, Order, StoreError};

/// The index's name.
pub(super) const INDEX: &str = "feed";

/// Entries in a page of a feed that is read to its end: about as many as the service's 1 MB holds.
pub(super) const PAGE: usize = 2_000;

/// An entry's place in the feed.
pub(super) fn position(entry: &FeedEntry) -> FeedPosition {
    FeedPosition { commit_id: entry.meta.commit_id, session_id: entry.session_id.clone() }
}

/// Where a reading of a shard starts, its own place not included.
#[derive(Debug, Clone)]
pub(super) enum From {
    /// At the end of the shard that comes first in this order.
    End,
    /// Beyond a key of the feed.
    Beyond(Vec<u8>),
}

/// A partition of the index, or a part of it, in order.
pub(super) fn partition(store: &DynamoStore, name: String, order: Order, from: &From) -> QueryFluentBuilder {
    let query = store
        .query()
        .index_name(INDEX)
        .projection_expression("pk, sk, c, m")
        .expression_attribute_values(":f", text(name))
        .scan_index_forward(order == Order::Asc);
    match from {
        From::End => query.key_condition_expression("f = :f"),
        From::Beyond(key) => {
            let query = query.expression_attribute_values(":c", binary(key.clone()));
            query.key_condition_expression(match order {
                Order::Asc => "f = :f AND c > :c",
                Order::Desc => "f = :f AND c < :c",
            })
        }
    }
}

pub(super) fn entries(tenant: &TenantId, items: &[Item]) -> Result<Vec<FeedEntry>, StoreError> {
    items.iter().map(|item| item::entry(tenant, item)).collect()
}

/// See [`crate::store::Store::feed`].
pub(super) async fn after(
    store: &DynamoStore,
    tenant: &TenantId,
    after: Option<&FeedPosition>,
    limit: usize,
) -> Result<Vec<FeedEntry>, StoreError> {
    let from = after.map_or(From::End, |at| From::Beyond(keys::feed(at.commit_id, &at.session_id)));
    let shards = (0..=keys::STRAY_SHARD).map(async |number| {
        let shard = partition(store, keys::feed_shard(tenant, number), Order::Asc, &from);
        let items = store.items(shard, limit).await?;
        entries(tenant, &items)
    });
    let mut merged = try_join_all(shards).await?.concat();
    merged.sort_by_cached_key(position);
    merged.truncate(limit);
    Ok(merged)
}

/// See [`crate::store::Store::feed_commit`].
pub(super) async fn of_commit(
    store: &DynamoStore,
    tenant: &TenantId,
    commit: CommitId,
) -> Result<Vec<FeedEntry>, StoreError> {
    let shards = (0..=keys::STRAY_SHARD).map(async |number| {
        let query = store
            .query()
            .index_name(INDEX)
            .projection_expression("pk, sk, c, m")
            .key_condition_expression("f = :f AND begins_with(c, :c)")
            .expression_attribute_values(":f", text(keys::feed_shard(tenant, number)))
            .expression_attribute_values(":c", binary(commit.to_bytes()));
        entries(tenant, &store.items(query, usize::MAX).await?)
    });
    let mut merged = try_join_all(shards).await?.concat();
    merged.sort_by_cached_key(position);
    Ok(merged)
}

/// Several shards as one ordered list, read as far as it is asked for.
pub(super) struct Reader<'s> {
    store: &'s DynamoStore,
    tenant: &'s TenantId,
    order: Order,
    page: usize,
    shards: Vec<Shard>,
}

struct Shard {
    number: usize,
    /// Where to go on; `None` at its end.
    from: Option<From>,
    read: VecDeque<FeedEntry>,
}

impl<'s> Reader<'s> {
    /// Reads `shards` in order; pages of `page` entries of each.
    pub(super) fn new(
        store: &'s DynamoStore,
        tenant: &'s TenantId,
        shards: impl IntoIterator<Item = usize>,
        order: Order,
        from: &From,
        page: usize,
    ) -> Self {
        let shard = |number| Shard { number, from: Some(from.clone()), read: VecDeque::new() };
        Self {
            store,
            tenant,
            order,
            page: page.clamp(1, PAGE),
            shards: shards.into_iter().map(shard).collect(),
        }
    }

    /// All shards to their ends.
    pub(super) fn whole(store: &'s DynamoStore, tenant: &'s TenantId, order: Order, from: &From) -> Self {
        Self::new(store, tenant, 0..=keys::STRAY_SHARD, order, from, PAGE)
    }

    /// Reads on in every shard of which nothing is left; at once, since any of them may come next.
    async fn fill(&mut self) -> Result<(), StoreError> {
        let (store, tenant, order, page) = (self.store, self.tenant, self.order, self.page);
        let empty = self.shards.iter_mut().filter(|shard| shard.read.is_empty());
        try_join_all(empty.map(async |this| {
            let Some(from) = this.from.take() else { return Ok(()) };
            let shard = partition(store, keys::feed_shard(tenant, this.number), order, &from);
            let items = store.items(shard, page).await?;
            let found = entries(tenant, &items)?;
            if found.len() == page
                && let Some(last) = found.last()
            {
                this.from = Some(From::Beyond(keys::feed(last.meta.commit_id, &last.session_id)));
            }
            this.read.extend(found);
            Ok::<_, StoreError>(())
        }))
        .await?;
        Ok(())
    }

    fn first(&self) -> Option<usize> {
        let places = self.shards.iter().enumerate().filter_map(|(i, s)| Some((position(s.read.front()?), i)));
        match self.order {
            Order::Asc => places.min(),
            Order::Desc => places.max(),
        }
        .map(|(_, index)| index)
    }

    /// The next entry, left where it is.
    pub(super) async fn peek(&mut self) -> Result<Option<&FeedEntry>, StoreError> {
        self.fill().await?;
        Ok(self.first().and_then(|index| self.shards[index].read.front()))
    }

    /// The next entry.
    pub(super) async fn next(&mut self) -> Result<Option<FeedEntry>, StoreError> {
        self.fill().await?;
        Ok(self.first().and_then(|index| self.shards[index].read.pop_front()))
    }
}
