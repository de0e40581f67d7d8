//! The item of the deployment's identity; what is in it is [`crate::aws::KmsIdentity`]'s.

use aws_sdk_dynamodb::types::AttributeValue;

use super::DynamoStore;
use super::commit::{ABSENT, refused};
use super::item::{Item, key, text};
use crate::aws::{Again, CallError, retried};
use crate::store::StoreError;
use crate::store::keys::dynamo as keys;

impl DynamoStore {
    /// The item, strongly consistent.
    pub(crate) async fn identity(&self) -> Result<Option<Item>, StoreError> {
        self.get(key(keys::IDENTITY.0, keys::IDENTITY.1), None).await
    }

    /// Writes it if there is none; one that is there stays.
    pub(crate) async fn put_identity(
        &self,
        attributes: Vec<(&str, AttributeValue)>,
    ) -> Result<(), StoreError> {
        let mut item = key(keys::IDENTITY.0, keys::IDENTITY.1);
        item.extend(attributes.into_iter().map(|(name, value)| (name.to_owned(), value)));
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

    /// Replaces the log key, if it is still `old`, and adds the note that says so.
    pub(crate) async fn replace_log_key(&self, old: &str, new: &str, note: &str) -> Result<(), StoreError> {
        let request = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(key(keys::IDENTITY.0, keys::IDENTITY.1)))
            .update_expression(
                "SET log_key = :n, rotations = list_append(if_not_exists(rotations, :none), :note)",
            )
            .condition_expression("log_key = :o")
            .expression_attribute_values(":o", text(old))
            .expression_attribute_values(":n", text(new))
            .expression_attribute_values(":none", AttributeValue::L(Vec::new()))
            .expression_attribute_values(":note", AttributeValue::L(vec![text(note)]));
        // Sent once: a second time would find the condition broken by the first.
        match request.send().await.map_err(CallError::from) {
            Ok(_) => Ok(()),
            Err(CallError::Condition(_)) => {
                Err(StoreError::Unavailable { why: "the log key was replaced by somebody else".into() })
            }
            Err(error) => Err(refused(error)),
        }
    }
}
