//! Archives in a bucket: the suite of the object stores, locks that nobody can take off, and a wire that fails.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::error::ProvideErrorMetadata as _;
use aws_sdk_s3::types::{BucketVersioningStatus, VersioningConfiguration};
use bytes::Bytes;
use quipu_core::clock::{Clock as _, SystemClock};
use quipu_core::objects::conformance as suite;
use quipu_core::objects::{Condition, Lock, Mode, ObjectError, ObjectStore as _, Purged, S3Bucket, Tag};
use quipu_tests::{Emulator, FaultProxy, WireFault, connection};

/// A bucket of its own on ministack.
struct Bucket {
    client: Client,
    name: String,
}

impl Bucket {
    async fn make(with_lock: bool) -> Self {
        let client = connection(Emulator::ministack().url(), None).s3();
        let name = format!("quipu-{:016x}", RandomState::new().build_hasher().finish());
        let create = client.create_bucket().bucket(&name).object_lock_enabled_for_bucket(with_lock);
        create.send().await.unwrap();
        if with_lock {
            // AWS turns it on with the lock; an emulator may have to be told.
            let enabled = BucketVersioningStatus::Enabled;
            let versioning = VersioningConfiguration::builder().status(enabled).build();
            let put = client.put_bucket_versioning().bucket(&name).versioning_configuration(versioning);
            put.send().await.unwrap();
        }
        Self { client, name }
    }

    fn at(&self, url: &str) -> S3Bucket {
        S3Bucket::new(&connection(url, None), &self.name)
    }

    fn store(&self) -> S3Bucket {
        self.at(Emulator::ministack().url())
    }
}

async fn fresh() -> S3Bucket {
    Bucket::make(false).await.store()
}

#[tokio::test]
async fn writes() {
    let store = &fresh().await;
    suite::what_is_written_is_read(store).await;
    suite::conditions_hold(store).await;
    suite::an_empty_object_is_one(store).await;
    suite::ranges(store).await;
    suite::odd_keys(store).await;
    suite::delete(store).await;
    suite::a_large_object(store, 20_000_000).await;
}

#[tokio::test]
async fn several() {
    let store = &fresh().await;
    suite::several_at_once(store).await;
    suite::many_at_once(store, 2000).await;
}

#[tokio::test]
async fn lists() {
    let store = &fresh().await;
    suite::lists_are_in_order(store).await;
    suite::lists_by_prefix_and_after(store).await;
    suite::lists_see_what_was_just_written(store).await;
    // More than one answer of the service.
    suite::lists_in_pages(store, 1200, &[7, 1000, 1200, 2500]).await;
}

#[tokio::test]
async fn races() {
    let store = &fresh().await;
    // Some may wait longer for the emulator than their deadline allows.
    suite::absent_is_won_once(store, 50).await;
    suite::matches_is_compare_and_swap(store, 50).await;
    // In three parts.
    suite::readers_see_whole_objects(store, 5, 20_000_000).await;
}

#[tokio::test]
async fn what_is_locked_is_kept_as_asked() {
    let bucket = Bucket::make(true).await;
    let lock = Lock { days: 30, log: Mode::Compliance, events: Mode::Governance };
    let store = bucket.store().with_lock(lock, Arc::new(SystemClock));
    let before = SystemClock.now().get() / 1_000_000;
    let cases = [
        ("log/_identity.json", Some("COMPLIANCE")),
        ("log/a/batch/00000000000000000001.json", Some("COMPLIANCE")),
        ("events/tenant=a/dt=2026-01-01/batch-00000000000000000001.parquet", Some("GOVERNANCE")),
        ("log/a/checkpoint", None),
        ("staging/a/1", None),
    ];
    for (key, mode) in cases {
        store.put(key, "kept".into(), Condition::Absent).await.unwrap();
        let head = bucket.client.head_object().bucket(&bucket.name).key(key).send().await.unwrap();
        assert_eq!(head.object_lock_mode().map(|mode| mode.as_str()), mode, "{key}");
        let until = head.object_lock_retain_until_date().map(|date| date.secs());
        let least = before + 30 * 24 * 60 * 60;
        match until {
            Some(until) => assert!((least..least + 60).contains(&until), "{key}: until {until}, not {least}"),
            None => assert_eq!(mode, None, "{key}: for ever is not what was asked"),
        }
        let version = head.version_id().expect("the bucket keeps versions");
        let delete = bucket.client.delete_object().bucket(&bucket.name).key(key).version_id(version);
        let deleted = delete.send().await;
        match mode {
            Some(_) => {
                assert_eq!(deleted.unwrap_err().code(), Some("AccessDenied"), "{key} was deleted");
                assert_eq!(store.get(key).await.unwrap().bytes, "kept");
            }
            None => {
                deleted.unwrap();
                assert!(matches!(store.get(key).await, Err(ObjectError::NotFound { .. })), "{key}");
            }
        }
    }
}

/// What is locked may be written anew: as a version beside the one that stays.
#[tokio::test]
async fn what_is_locked_can_be_replaced_and_not_lost() {
    let bucket = Bucket::make(true).await;
    let lock = Lock { days: 1, log: Mode::Compliance, events: Mode::None };
    let store = bucket.store().with_lock(lock, Arc::new(SystemClock));
    let key = "log/_identity.json";
    let first = store.put(key, "first".into(), Condition::Absent).await.unwrap();
    let head = bucket.client.head_object().bucket(&bucket.name).key(key).send().await.unwrap();
    let version = head.version_id().unwrap().to_owned();
    store.put(key, "second".into(), Condition::Matches(first)).await.unwrap();
    assert_eq!(store.get(key).await.unwrap().bytes, "second");
    store.delete(key).await.unwrap();
    assert!(matches!(store.get(key).await, Err(ObjectError::NotFound { .. })));
    let old = bucket.client.get_object().bucket(&bucket.name).key(key).version_id(version).send();
    let old = old.await.unwrap().body.collect().await.unwrap().into_bytes();
    assert_eq!(old, "first");
    store.put(key, "third".into(), Condition::Absent).await.unwrap();
}

/// A bucket, and the proxy before it.
struct Bench {
    proxy: FaultProxy,
    /// Through the proxy.
    store: S3Bucket,
    /// Past it.
    direct: S3Bucket,
}

impl Bench {
    async fn new() -> Self {
        let bucket = Bucket::make(false).await;
        let proxy = FaultProxy::start(Emulator::ministack().url());
        Self { store: bucket.at(proxy.url()), direct: bucket.store(), proxy }
    }

    async fn put(&self, key: &str, text: &'static str, condition: Condition) -> Result<Tag, ObjectError> {
        self.store.put(key, text.into(), condition).await
    }
}

fn is_unknown<T>(result: &Result<T, ObjectError>) -> bool {
    matches!(result, Err(ObjectError::Unknown { .. }))
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_is_unknown_and_a_read_tells() {
    let bench = Bench::new().await;
    for (i, fault) in [WireFault::DropReply, WireFault::Status500AfterApply].into_iter().enumerate() {
        let key = format!("applied/{i}");
        bench.proxy.fail("PutObject", 1, fault);
        assert!(is_unknown(&bench.put(&key, "1", Condition::Absent).await), "{fault:?}");
        let object = bench.store.get(&key).await.unwrap();
        assert_eq!(object.bytes, "1", "{fault:?}");
        // So also one that replaces.
        bench.proxy.fail("PutObject", 1, fault);
        assert!(is_unknown(&bench.put(&key, "2", Condition::Matches(object.tag.clone())).await), "{fault:?}");
        let next = bench.store.get(&key).await.unwrap();
        assert!(next.bytes == "2" && next.tag != object.tag, "{fault:?}");
        let stale = bench.put(&key, "3", Condition::Matches(object.tag)).await;
        assert!(matches!(stale, Err(ObjectError::Conflict { .. })), "{stale:?}");
    }
    for (i, fault) in [WireFault::DropRequest, WireFault::Status500].into_iter().enumerate() {
        let key = format!("lost/{i}");
        bench.proxy.fail("PutObject", 1, fault);
        assert!(is_unknown(&bench.put(&key, "1", Condition::Absent).await), "{fault:?}");
        assert!(matches!(bench.store.get(&key).await, Err(ObjectError::NotFound { .. })), "{fault:?}");
    }
    assert_eq!(bench.proxy.calls("PutObject"), 8, "a write of which nothing is known was sent again");
    bench.proxy.fail("DeleteObject", 1, WireFault::DropReply);
    assert!(is_unknown(&bench.store.delete("applied/0").await));
    assert!(matches!(bench.store.get("applied/0").await, Err(ObjectError::NotFound { .. })));
    assert_eq!((bench.proxy.pending(), bench.proxy.calls("DeleteObject")), (0, 1));
}

#[tokio::test]
async fn a_write_that_comes_too_late_meets_its_condition() {
    let bench = Bench::new().await;
    let late = Duration::from_millis(quipu_core::limits::REMOTE_CALL_MS + 500);
    bench.proxy.fail("PutObject", 1, WireFault::Slow(late));
    assert!(is_unknown(&bench.put("a", "late", Condition::Absent).await));
    bench.direct.put("a", "in time".into(), Condition::Absent).await.unwrap();
    while bench.proxy.under_way() > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(bench.direct.get("a").await.unwrap().bytes, "in time");
}

#[tokio::test]
async fn who_is_asked_for_patience_comes_again() {
    let bench = Bench::new().await;
    let operations = ["PutObject", "GetObject", "HeadObject", "ListObjectsV2", "DeleteObject"];
    for operation in operations {
        bench.proxy.fail(operation, 1, WireFault::Throttle);
        bench.proxy.fail(operation, 2, WireFault::Throttle);
    }
    bench.put("a", "1", Condition::Absent).await.unwrap();
    assert_eq!(bench.store.get("a").await.unwrap().bytes, "1");
    assert_eq!(bench.store.size("a").await.unwrap(), 1);
    assert_eq!(bench.store.list("", None, 10).await.unwrap().len(), 1);
    bench.store.delete("a").await.unwrap();
    assert_eq!(bench.proxy.pending(), 0);
    for operation in operations {
        assert_eq!(bench.proxy.calls(operation), 3, "{operation}");
    }
}

#[tokio::test]
async fn reads_are_asked_again_whatever_became_of_them() {
    let bench = Bench::new().await;
    bench.put("a", "1", Condition::Absent).await.unwrap();
    for operation in ["GetObject", "HeadObject", "ListObjectsV2"] {
        bench.proxy.fail(operation, 1, WireFault::DropReply);
        bench.proxy.fail(operation, 2, WireFault::Status500);
    }
    assert_eq!(bench.store.get("a").await.unwrap().bytes, "1");
    assert_eq!(bench.store.size("a").await.unwrap(), 1);
    assert_eq!(bench.store.list("", None, 10).await.unwrap().len(), 1);
    assert_eq!(bench.proxy.pending(), 0);
}

#[tokio::test]
async fn several_at_once_end_well_on_a_bad_wire() {
    let bench = Bench::new().await;
    bench.proxy.fail_randomly(
        7,
        &[(0.05, WireFault::DropReply), (0.05, WireFault::DropRequest), (0.1, WireFault::Throttle)],
    );
    let objects: Vec<_> = (0..200).map(|i| (format!("{i:03}"), Bytes::from(format!("object {i}")))).collect();
    let existing = bench.store.put_absent(objects.clone()).await.unwrap();
    assert!(bench.proxy.faults() > 10, "{} faults", bench.proxy.faults());
    assert!(!existing.is_empty() && existing.len() < 30, "those whose answers were lost: {existing:?}");
    assert_eq!(bench.direct.list("", None, 1000).await.unwrap().len(), objects.len());
    for (key, bytes) in objects {
        assert_eq!(bench.direct.get(&key).await.unwrap().bytes, bytes);
    }
}

#[tokio::test]
async fn a_bucket_that_is_not_there_is_no_unknown_outcome() {
    let store = S3Bucket::new(&connection(Emulator::ministack().url(), None), "quipu-no-such-bucket");
    for outcome in
        [store.put("a", "1".into(), Condition::Absent).await.map(|_| ()), store.get("a").await.map(|_| ())]
    {
        let Err(ObjectError::Unavailable { why }) = outcome else { panic!("{outcome:?}") };
        assert!(why.contains("the bucket is not there: check its name"), "{why}");
    }
    assert_eq!(store.describe(), "s3://quipu-no-such-bucket");
}

/// What erasure needs: older versions go, the present one stays; what a lock keeps is told with its time.
#[tokio::test]
async fn older_versions_are_purged() {
    let bucket = Bucket::make(true).await;
    let versions = async |key: &str| {
        let listed =
            bucket.client.list_object_versions().bucket(&bucket.name).prefix(key).send().await.unwrap();
        listed.versions.unwrap_or_default().iter().filter(|version| version.key() == Some(key)).count()
    };
    let store = bucket.store();
    let (key, longer) = ("events/tenant=a/dt=2026-01-01/b", "events/tenant=a/dt=2026-01-01/bc");
    let mut tag = store.put(key, Bytes::from_static(b"one"), Condition::Absent).await.unwrap();
    for next in ["two", "three"] {
        tag = store.put(key, next.into(), Condition::Matches(tag)).await.unwrap();
    }
    let other = store.put(longer, Bytes::from_static(b"one"), Condition::Absent).await.unwrap();
    store.put(longer, Bytes::from_static(b"two"), Condition::Matches(other)).await.unwrap();
    assert_eq!((versions(key).await, versions(longer).await), (3, 2));
    assert_eq!(store.purge(key).await.unwrap(), Purged::default());
    assert_eq!((versions(key).await, versions(longer).await), (1, 2));
    assert_eq!(store.get(key).await.unwrap().bytes, "three");
    assert_eq!(store.purge(key).await.unwrap(), Purged::default());
    assert_eq!(store.purge("events/none").await.unwrap(), Purged::default());

    // In governance mode the versions go with the bypass, in compliance mode they stay, and it is told until when.
    for (events, left) in [(Mode::Governance, 1), (Mode::Compliance, 2)] {
        let lock = Lock { days: 1, log: Mode::None, events };
        let locked = bucket.store().with_lock(lock, Arc::new(SystemClock));
        let key = format!("events/tenant=a/dt=2026-01-01/{events:?}");
        let tag = locked.put(&key, Bytes::from_static(b"one"), Condition::Absent).await.unwrap();
        locked.put(&key, Bytes::from_static(b"two"), Condition::Matches(tag)).await.unwrap();
        let purged = locked.purge(&key).await.unwrap();
        assert_eq!((purged.kept, versions(&key).await), (left - 1, left), "{events:?}");
        if left > 1 {
            let day = i64::from(lock.days) * 24 * 60 * 60 * 1_000_000;
            let until = purged.until.unwrap().get() - SystemClock.now().get();
            assert!((day - 60_000_000..=day + 2_000_000).contains(&until), "{until}");
        }
    }
}
