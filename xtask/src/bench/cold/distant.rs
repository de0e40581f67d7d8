//! An archive that is further away.

use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use quipu_core::objects::{Condition, Directory, Listed, Object, ObjectError, ObjectStore, Purged, Tag};

/// A directory whose ranged reads take longer.
pub(super) struct Distant {
    pub(super) inner: Directory,
    /// By so much.
    pub(super) by: Duration,
}

#[async_trait]
impl ObjectStore for Distant {
    async fn get(&self, key: &str) -> Result<Object, ObjectError> {
        self.inner.get(key).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, ObjectError> {
        if !self.by.is_zero() {
            tokio::time::sleep(self.by).await;
        }
        self.inner.get_range(key, range).await
    }

    async fn size(&self, key: &str) -> Result<u64, ObjectError> {
        self.inner.size(key).await
    }

    async fn put(&self, key: &str, bytes: Bytes, condition: Condition) -> Result<Tag, ObjectError> {
        self.inner.put(key, bytes, condition).await
    }

    async fn put_absent(&self, objects: Vec<(String, Bytes)>) -> Result<Vec<String>, ObjectError> {
        self.inner.put_absent(objects).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Listed>, ObjectError> {
        self.inner.list(prefix, after, limit).await
    }

    async fn delete(&self, key: &str) -> Result<(), ObjectError> {
        self.inner.delete(key).await
    }

    async fn purge(&self, key: &str) -> Result<Purged, ObjectError> {
        self.inner.purge(key).await
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}
