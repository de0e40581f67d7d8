//! The item of the deployment's identity; what is in it is [`crate::aws::KmsIdentity`]'s.

use aws_sdk_dynamodb::types::AttributeValue;

use super::DynamoStore;
use super::commit::{ABSENT, refused};
use super::item::{Item, key};
use crate::aws::{Again, CallError, retried};
use crate::store::StoreError;
use crate::store::keys::dynamo as keys;

impl DynamoStore {
    /// The item, strongly consistent.
    pub(crate) async fn identity(&self) -> Result<Option<Item>, StoreError> {
        self.get(key(keys::IDENTITY.0, keys::IDENTITY.1), None).await
    }

    /// Writes it if there is none; one that is there stays.
    pub(crate) async fn put_identity<const N: usize>(
        &self,
        attributes: [(&str, AttributeValue); N],
    ) -> Result<(), StoreError> {
        let mut item = key(keys::IDENTITY.0, keys::IDENTITY.1);
        item.extend(attributes.map(|(name, value)| (name.to_owned(), value)));
        let done = retried(Again::IfUnknown, || {
            let request = self.client.put_item().table_name(&self.table).set_item(Some(item.clone()));
            let request = request.condition_expression(ABSENT);
            async { request.send().await.map_err(CallError::from) }
        });
        match done.await {
            Ok(_) | Err(CallError::Condition(_)) => Ok(()),
            Err(error) => Err(refused(error)),
        }
    }
}
