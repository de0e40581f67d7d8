//! Objects in a bucket of S3, or of what speaks like it.
//!
//! Conditions are S3's own (`If-None-Match: *`, `If-Match`), tags are its ETags. A write of which no answer came is
//! not sent again: the answer to the second one would not tell whether the first was applied. Every upload carries a
//! checksum (the SDK's CRC-32, beside the signature's SHA-256), so that one that was damaged is refused.
//!
//! Needs `s3:GetObject`, `s3:PutObject`, `s3:DeleteObject`, and `s3:ListBucket`: without the last, S3 answers 403
//! where it should say that there is no such object. Erasure needs `s3:ListBucketVersions`, `s3:DeleteObjectVersion` and
//! `s3:GetObjectRetention` besides, and `s3:BypassGovernanceRetention` where `events/` is locked so.

mod call;
mod lock;
#[cfg(test)]
mod tests;
mod versions;

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

pub use self::lock::{Lock, Mode};

use self::call::{Failure, Unmet, failure, in_time, read_error, write_error};
use super::{Condition, Listed, Object, ObjectError, ObjectStore, Purged, Tag, checked};
use crate::aws::{Again, CallError, Connection, retried};
use crate::clock::Clock;
use crate::limits::{OBJECT_PART_BYTES, OBJECT_REQUESTS_MAX};

/// Most keys in one answer of ListObjectsV2 (service quota).
const PAGE_KEYS_MAX: usize = 1000;

/// How often an object that is replaced while it is read is read from the start.
const READS_MAX: usize = 5;

const DAY_SECONDS: i64 = 24 * 60 * 60;

/// A bucket.
#[derive(Clone)]
pub struct S3Bucket {
    client: Client,
    bucket: String,
    lock: Option<(Lock, Arc<dyn Clock>)>,
}

impl std::fmt::Debug for S3Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lock = self.lock.as_ref().map(|(lock, _)| lock);
        f.debug_struct("S3Bucket").field("bucket", &self.bucket).field("lock", &lock).finish_non_exhaustive()
    }
}

/// Part of an object.
struct Part {
    bytes: Bytes,
    /// Length of the object, bytes.
    total: u64,
    tag: Tag,
}

impl S3Bucket {
    /// A bucket that is there. Asks nothing yet.
    pub fn new(connection: &Connection, bucket: &str) -> Self {
        Self { client: connection.s3(), bucket: bucket.to_owned(), lock: None }
    }

    /// The same, which locks what it writes from now on. The clock says from when.
    #[must_use]
    pub fn with_lock(mut self, lock: Lock, clock: Arc<dyn Clock>) -> Self {
        self.lock = Some((lock, clock));
        self
    }

    async fn write(
        &self,
        again: Again,
        key: &str,
        bytes: &Bytes,
        condition: &Condition,
    ) -> Result<Tag, Failure> {
        let put = || async {
            let request = self.client.put_object().bucket(&self.bucket).key(key);
            let mut request = match condition {
                Condition::Absent => request.if_none_match("*"),
                Condition::Matches(tag) => request.if_match(&tag.0),
            };
            if let Some((lock, clock)) = &self.lock
                && let Some(mode) = lock.of(key).on_wire()
            {
                // A second begun counts: not a moment less than was asked for.
                let now = clock.now().get().div_euclid(1_000_000) + 1;
                let until = DateTime::from_secs(now + i64::from(lock.days) * DAY_SECONDS);
                request = request.object_lock_mode(mode).object_lock_retain_until_date(until);
            }
            let output = request.body(ByteStream::from(bytes.clone())).send().await.map_err(failure)?;
            let no_tag = || CallError::Unknown("S3 took it, and gave no ETag".into());
            output.e_tag.map(Tag).ok_or_else(no_tag)
        };
        retried(again, || in_time(bytes.len() as u64, put())).await
    }

    /// Part of an object, if it is not replaced meanwhile.
    async fn part(&self, key: &str, range: Range<u64>, matches: Option<&Tag>) -> Result<Part, Failure> {
        let wanted = range.end - range.start;
        let get = || async {
            let request = self.client.get_object().bucket(&self.bucket).key(key);
            let request = request.range(format!("bytes={}-{}", range.start, range.end - 1));
            let request = request.set_if_match(matches.map(|tag| tag.0.clone()));
            received(request.send().await.map_err(failure)?, Some(&range)).await
        };
        retried(Again::IfUnknown, || in_time(wanted, get())).await
    }

    /// An object without bytes: S3 refuses any range of it.
    async fn empty(&self, key: &str) -> Result<Part, Failure> {
        let get = || async {
            let request = self.client.get_object().bucket(&self.bucket).key(key);
            received(request.send().await.map_err(failure)?, None).await
        };
        retried(Again::IfUnknown, || in_time(0, get())).await
    }

    /// A part of any length: one request, and at once as many more as it takes. Nothing of an object that ends before.
    async fn fetch(&self, key: &str, range: Range<u64>) -> Result<Option<Part>, ObjectError> {
        for _ in 0..READS_MAX {
            let first_end = range.end.min(range.start.saturating_add(OBJECT_PART_BYTES));
            let first = match self.part(key, range.start..first_end, None).await {
                Err(CallError::Condition(Unmet::Range)) => return Ok(None),
                other => other.map_err(|e| read_error(key, e))?,
            };
            let end = range.end.min(first.total);
            if end <= first_end {
                return Ok(Some(first));
            }
            let rest = (first_end..end).step_by(OBJECT_PART_BYTES as usize).map(|start| {
                let part = start..end.min(start + OBJECT_PART_BYTES);
                self.part(key, part, Some(&first.tag))
            });
            let rest: Vec<_> = rest.collect();
            let rest = stream::iter(rest).buffered(OBJECT_REQUESTS_MAX).try_collect::<Vec<Part>>().await;
            match rest {
                Ok(rest) => {
                    let length = usize::try_from(end - range.start).unwrap_or(0);
                    let mut bytes = BytesMut::with_capacity(length);
                    bytes.extend_from_slice(&first.bytes);
                    rest.iter().for_each(|part| bytes.extend_from_slice(&part.bytes));
                    return Ok(Some(Part { bytes: bytes.freeze(), ..first }));
                }
                Err(CallError::Condition(_)) => {}
                Err(error) => return Err(read_error(key, error)),
            }
        }
        Err(ObjectError::Unavailable { why: format!("{key}: replaced while it was read, {READS_MAX} times") })
    }
}

/// The whole of an answer. What is not as long as it must be was cut on its way.
async fn received(output: GetObjectOutput, range: Option<&Range<u64>>) -> Result<Part, Failure> {
    let unknown = |why: &str| CallError::Unknown(why.to_owned());
    let tag = output.e_tag.map(Tag).ok_or_else(|| unknown("S3 gave an object without ETag"))?;
    let content_range = output.content_range;
    let body =
        output.body.collect().await.map_err(|e| CallError::Unknown(format!("an answer broke off: {e}")))?;
    let bytes = body.into_bytes();
    match (range, content_range) {
        (Some(range), Some(content_range)) => {
            // bytes 0-9/120 (RFC 9110, section 14.4)
            let total = content_range.rsplit_once('/').and_then(|(_, total)| total.parse::<u64>().ok());
            let total = total.ok_or_else(|| unknown("S3 gave a range of an object without its length"))?;
            let wanted = range.end.min(total).saturating_sub(range.start);
            if bytes.len() as u64 != wanted || !content_range.starts_with(&format!("bytes {}-", range.start))
            {
                return Err(unknown("S3 gave another range than it was asked for"));
            }
            Ok(Part { bytes, total, tag })
        }
        (Some(_), None) => Err(unknown("S3 gave a whole object where a range was asked for")),
        (None, _) => Ok(Part { total: bytes.len() as u64, bytes, tag }),
    }
}

#[async_trait]
impl ObjectStore for S3Bucket {
    async fn get(&self, key: &str) -> Result<Object, ObjectError> {
        checked(key);
        for _ in 0..READS_MAX {
            if let Some(part) = self.fetch(key, 0..u64::MAX).await? {
                return Ok(Object { bytes: part.bytes, tag: part.tag });
            }
            let part = self.empty(key).await.map_err(|e| read_error(key, e))?;
            // It may have been replaced by a longer one.
            if part.bytes.is_empty() {
                return Ok(Object { bytes: part.bytes, tag: part.tag });
            }
        }
        Err(ObjectError::Unavailable { why: format!("{key}: replaced while it was read, {READS_MAX} times") })
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, ObjectError> {
        if range.is_empty() {
            return self.size(key).await.map(|_| Bytes::new());
        }
        Ok(self.fetch(checked(key), range).await?.map(|part| part.bytes).unwrap_or_default())
    }

    async fn size(&self, key: &str) -> Result<u64, ObjectError> {
        checked(key);
        let head = || async {
            let request = self.client.head_object().bucket(&self.bucket).key(key);
            let output = request.send().await.map_err(failure)?;
            let length = output.content_length.and_then(|length| u64::try_from(length).ok());
            length.ok_or_else(|| CallError::Unknown("S3 gave no length".into()))
        };
        retried(Again::IfUnknown, || in_time(0, head())).await.map_err(|e| read_error(key, e))
    }

    async fn put(&self, key: &str, bytes: Bytes, condition: Condition) -> Result<Tag, ObjectError> {
        let written = self.write(Again::IfBusy, checked(key), &bytes, &condition).await;
        written.map_err(|e| match write_error(key, e) {
            // Nothing is there, so nothing that matches.
            ObjectError::NotFound { key } => ObjectError::Conflict { key },
            other => other,
        })
    }

    /// Those of which no answer came are sent again: the second time they are there, which the answer says.
    async fn put_absent(&self, objects: Vec<(String, Bytes)>) -> Result<Vec<String>, ObjectError> {
        for (key, _) in &objects {
            checked(key);
        }
        let puts = objects.into_iter().map(|(key, bytes)| async move {
            match self.write(Again::IfUnknown, &key, &bytes, &Condition::Absent).await {
                Ok(_) => Ok(None),
                Err(CallError::Condition(Unmet::Precondition)) => Ok(Some(key)),
                Err(e) => Err(write_error(&key, e)),
            }
        });
        let existing = stream::iter(puts).buffered(OBJECT_REQUESTS_MAX).try_collect::<Vec<_>>().await;
        existing.map(|existing| existing.into_iter().flatten().collect())
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Listed>, ObjectError> {
        let mut found: Vec<Listed> = Vec::new();
        let mut after = after.filter(|after| !after.is_empty()).map(str::to_owned);
        while found.len() < limit {
            let wanted = (limit - found.len()).min(PAGE_KEYS_MAX);
            let list = || async {
                let request = self.client.list_objects_v2().bucket(&self.bucket).prefix(prefix);
                let request = request.set_start_after(after.clone()).max_keys(wanted as i32);
                request.send().await.map_err(failure)
            };
            let page = retried(Again::IfUnknown, || in_time(0, list())).await;
            let page = page.map_err(|e| read_error(prefix, e))?;
            for object in page.contents.unwrap_or_default() {
                let bytes = object.size.and_then(|bytes| u64::try_from(bytes).ok());
                let (Some(key), Some(bytes)) = (object.key, bytes) else {
                    let why = format!("{prefix}: S3 listed an object without key or length");
                    return Err(ObjectError::Unavailable { why });
                };
                found.push(Listed { key, bytes });
            }
            if page.is_truncated != Some(true) {
                break;
            }
            let last = found.last().map(|listed| listed.key.clone());
            if last == after {
                let why = format!("{prefix}: S3 says that there is more, and lists nothing");
                return Err(ObjectError::Unavailable { why });
            }
            after = last;
        }
        Ok(found)
    }

    async fn delete(&self, key: &str) -> Result<(), ObjectError> {
        checked(key);
        let delete = || async {
            self.client.delete_object().bucket(&self.bucket).key(key).send().await.map_err(failure)
        };
        match retried(Again::IfBusy, || in_time(0, delete())).await {
            Ok(_) | Err(CallError::Condition(Unmet::Exists)) => Ok(()),
            Err(e) => Err(write_error(key, e)),
        }
    }

    async fn purge(&self, key: &str) -> Result<Purged, ObjectError> {
        self.purge_versions(checked(key)).await
    }

    fn describe(&self) -> String {
        format!("s3://{}", self.bucket)
    }
}
