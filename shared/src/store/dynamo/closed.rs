//! The note that the ledger is closed.

use super::DynamoStore;
use super::commit::{put_once, refused};
use super::item::{get_time, key, number};
use crate::aws::{Again, CallError, retried};
use crate::store::keys::dynamo as keys;
use crate::store::{Conflict, StoreError};
use crate::time::Micros;

/// See [`crate::store::Store::closed`].
pub(super) async fn get(store: &DynamoStore) -> Result<Option<Micros>, StoreError> {
    let item = store.get(key(keys::CLOSED.0, keys::CLOSED.1), None).await?;
    item.map(|item| get_time(&item, "t")).transpose()
}

/// See [`crate::store::Store::set_closed`].
pub(super) async fn set(store: &DynamoStore, since: Option<Micros>) -> Result<(), StoreError> {
    let mut item = key(keys::CLOSED.0, keys::CLOSED.1);
    if let Some(since) = since {
        item.insert("t".into(), number(since.get()));
        return match put_once(store, item, Conflict::Exists).await {
            Ok(()) | Err(StoreError::Conflict(_)) => Ok(()),
            Err(error) => Err(error),
        };
    }
    let done = retried(Again::IfUnknown, || {
        let request = store.client.delete_item().table_name(&store.table).set_key(Some(item.clone()));
        async { request.send().await.map_err(CallError::from) }
    });
    done.await.map(drop).map_err(refused)
}
