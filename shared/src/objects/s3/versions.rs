//! Older versions of an object, which a bucket with versioning keeps: erasure deletes them.

use crate::aws::{Again, CallError, retried};
use crate::objects::{ObjectError, Purged};
use crate::time::Micros;

use super::call::{Unmet, failure, in_time, read_error, write_error};
use super::lock::Mode;
use super::{PAGE_KEYS_MAX, S3Bucket};

impl S3Bucket {
    /// See [`crate::objects::ObjectStore::purge`]. Versions under governance mode are deleted with its bypass, if this
    /// bucket was opened to lock them so; whether that is allowed, S3 decides.
    pub(super) async fn purge_versions(&self, key: &str) -> Result<Purged, ObjectError> {
        let mut purged = Purged::default();
        for version in self.older_versions(key).await? {
            match self.delete_version(key, &version).await {
                Ok(()) => {}
                Err(CallError::Refused(why)) => {
                    let until = self.locked_until(key, &version).await?;
                    // Not a lock: somebody must look.
                    let Some(until) = until else {
                        return Err(ObjectError::Unavailable {
                            why: format!("{key}, version {version}: {why}"),
                        });
                    };
                    purged.kept += 1;
                    purged.until = purged.until.max(Some(until));
                }
                Err(error) => return Err(write_error(key, error)),
            }
        }
        Ok(purged)
    }

    /// Ids of all versions but the present one, delete markers among them.
    async fn older_versions(&self, key: &str) -> Result<Vec<String>, ObjectError> {
        let mut older = Vec::new();
        let (mut after_key, mut after_version) = (None::<String>, None::<String>);
        loop {
            let list = || async {
                let request = self.client.list_object_versions().bucket(&self.bucket).prefix(key);
                let request = request.set_key_marker(after_key.clone());
                let request = request.set_version_id_marker(after_version.clone());
                request.max_keys(PAGE_KEYS_MAX as i32).send().await.map_err(failure)
            };
            let page = retried(Again::IfUnknown, || in_time(0, list())).await;
            let page = page.map_err(|e| read_error(key, e))?;
            // The prefix is that of longer keys too.
            for version in page.versions.unwrap_or_default() {
                if version.key.as_deref() == Some(key) && version.is_latest != Some(true) {
                    older.extend(version.version_id);
                }
            }
            for marker in page.delete_markers.unwrap_or_default() {
                if marker.key.as_deref() == Some(key) && marker.is_latest != Some(true) {
                    older.extend(marker.version_id);
                }
            }
            let next = (page.next_key_marker, page.next_version_id_marker);
            if page.is_truncated != Some(true) || next == (after_key.clone(), after_version.clone()) {
                return Ok(older);
            }
            (after_key, after_version) = next;
        }
    }

    async fn delete_version(&self, key: &str, version: &str) -> Result<(), super::Failure> {
        let mode = self.lock.as_ref().map_or(Mode::None, |(lock, _)| lock.of(key));
        let bypass = (mode == Mode::Governance).then_some(true);
        let delete = || async {
            let request = self.client.delete_object().bucket(&self.bucket).key(key).version_id(version);
            request.set_bypass_governance_retention(bypass).send().await.map_err(failure)
        };
        match retried(Again::IfUnknown, || in_time(0, delete())).await {
            Ok(_) | Err(CallError::Condition(Unmet::Exists)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Until when a version is locked; `None` if it is not, or not any more.
    async fn locked_until(&self, key: &str, version: &str) -> Result<Option<Micros>, ObjectError> {
        let get = || async {
            let request = self.client.get_object_retention().bucket(&self.bucket).key(key);
            request.version_id(version).send().await.map_err(failure)
        };
        match retried(Again::IfUnknown, || in_time(0, get())).await {
            Ok(output) => {
                let until = output.retention.and_then(|retention| retention.retain_until_date);
                Ok(until.and_then(|until| Micros::new(until.secs().saturating_mul(1_000_000))))
            }
            // A bucket without locks refuses the question.
            Err(CallError::Condition(_) | CallError::Refused(_)) => Ok(None),
            Err(error) => Err(read_error(key, error)),
        }
    }
}
