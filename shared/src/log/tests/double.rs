//! An archive in memory.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;

use crate::objects::{Condition, Listed, Object, ObjectError, ObjectStore, Purged, Tag};

/// What is read from it; written only by the tests themselves.
#[derive(Default)]
pub(super) struct Memory(pub(super) Mutex<BTreeMap<String, Bytes>>);

#[async_trait]
impl ObjectStore for Memory {
    async fn get(&self, key: &str) -> Result<Object, ObjectError> {
        let bytes = self.0.lock().unwrap().get(key).cloned();
        let bytes = bytes.ok_or(ObjectError::NotFound { key: key.to_owned() })?;
        let tag = Tag(format!("{:x?}", &bytes[..bytes.len().min(8)]));
        Ok(Object { bytes, tag })
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, ObjectError> {
        let bytes = self.get(key).await?.bytes;
        let end = (range.end as usize).min(bytes.len());
        Ok(bytes.slice((range.start as usize).min(end)..end))
    }

    async fn size(&self, key: &str) -> Result<u64, ObjectError> {
        Ok(self.get(key).await?.bytes.len() as u64)
    }

    async fn put(&self, _: &str, _: Bytes, _: Condition) -> Result<Tag, ObjectError> {
        Err(ObjectError::Unavailable { why: "it is only read".to_owned() })
    }

    async fn put_absent(&self, _: Vec<(String, Bytes)>) -> Result<Vec<String>, ObjectError> {
        Err(ObjectError::Unavailable { why: "it is only read".to_owned() })
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Listed>, ObjectError> {
        let objects = self.0.lock().unwrap();
        let fits = objects.iter().filter(|(key, _)| key.starts_with(prefix));
        let fits = fits.filter(|(key, _)| after.is_none_or(|after| key.as_str() > after));
        Ok(fits.map(|(k, b)| Listed { key: k.clone(), bytes: b.len() as u64 }).take(limit).collect())
    }

    async fn delete(&self, key: &str) -> Result<(), ObjectError> {
        self.0.lock().unwrap().remove(key);
        Ok(())
    }

    async fn purge(&self, _: &str) -> Result<Purged, ObjectError> {
        Ok(Purged::default())
    }

    fn describe(&self) -> String {
        "memory".to_owned()
    }
}
