//! The suite over a directory, and what only a directory can do wrong: links, leftovers, strangers' files.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::time::Instant;

use super::*;

/// A directory that goes when it is dropped.
fn directory() -> (tempfile::TempDir, Directory) {
    let dir = tempfile::tempdir().unwrap();
    let objects = Directory::open(dir.path()).unwrap();
    (dir, objects)
}

async fn keys(store: &Directory, prefix: &str) -> Vec<String> {
    store.list(prefix, None, 100).await.unwrap().into_iter().map(|listed| listed.key).collect()
}

async fn put(store: &Directory, key: &str, bytes: &'static str) -> Tag {
    store.put(key, bytes.into(), Condition::Absent).await.unwrap()
}

fn is_unavailable<T>(result: &Result<T, ObjectError>) -> bool {
    matches!(result, Err(ObjectError::Unavailable { .. }))
}

#[cfg(feature = "testing")]
mod suite {
    use super::directory;
    use crate::objects::conformance as suite;

    #[tokio::test]
    async fn writes() {
        let (_dir, store) = directory();
        suite::what_is_written_is_read(&store).await;
        suite::conditions_hold(&store).await;
        suite::an_empty_object_is_one(&store).await;
        suite::a_large_object(&store, 20_000_000).await;
        suite::ranges(&store).await;
        suite::odd_keys(&store).await;
        suite::delete(&store).await;
    }

    #[tokio::test]
    async fn several() {
        let (_dir, store) = directory();
        suite::several_at_once(&store).await;
        suite::many_at_once(&store, 2000).await;
    }

    #[tokio::test]
    async fn lists() {
        let (_dir, store) = directory();
        suite::lists_are_in_order(&store).await;
        suite::lists_by_prefix_and_after(&store).await;
        suite::lists_in_pages(&store, 500, &[1, 2, 7, 100, 499, 500, 501]).await;
        suite::lists_see_what_was_just_written(&store).await;
    }

    #[tokio::test]
    async fn races() {
        let (_dir, store) = directory();
        assert_eq!(suite::absent_is_won_once(&store, 50).await, 0, "a directory always answers");
        assert_eq!(suite::matches_is_compare_and_swap(&store, 50).await, 0, "a directory always answers");
        suite::readers_see_whole_objects(&store, 100, 300_000).await;
    }
}

/// Nothing of it is shared but the files, as between processes: each has the lock by a descriptor of its own.
#[tokio::test]
async fn compare_and_swap_holds_between_processes() {
    const ROUNDS: usize = 20;
    let (dir, store) = directory();
    put(&store, "count", "0").await;
    let racers = (0..4).map(|_| {
        let store = Directory::open(dir.path()).unwrap();
        async move {
            let mut done = 0;
            while done < ROUNDS {
                let object = store.get("count").await.unwrap();
                let count: usize = std::str::from_utf8(&object.bytes).unwrap().parse().unwrap();
                let next = (count + 1).to_string().into();
                match store.put("count", next, Condition::Matches(object.tag)).await {
                    Ok(_) => done += 1,
                    Err(ObjectError::Conflict { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    });
    futures_util::future::join_all(racers).await;
    assert_eq!(store.get("count").await.unwrap().bytes, (4 * ROUNDS).to_string());
}

#[tokio::test]
async fn a_lock_that_is_kept_is_not_waited_for_for_ever() {
    let (dir, store) = directory();
    let tag = put(&store, "a", "1").await;
    let lock = File::open(dir.path().join(".lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    put(&store, "b", "2").await;
    let began = Instant::now();
    let swap = store.put("a", "3".into(), Condition::Matches(tag.clone())).await;
    assert!(is_unavailable(&swap), "{swap:?}");
    assert!(began.elapsed() >= std::time::Duration::from_secs(4), "it was not waited for at all");
    drop(lock);
    store.put("a", "3".into(), Condition::Matches(tag)).await.unwrap();
}

#[tokio::test]
async fn what_dead_writers_left_is_swept_and_what_living_ones_write_is_not() {
    let (dir, store) = directory();
    let temporary = dir.path().join(".tmp");
    let names = || {
        let mut names: Vec<String> = fs::read_dir(&temporary)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort_unstable();
        names
    };
    assert_eq!(names().len(), 1, "the lock of the one writer");
    let living = store.0.writer.as_ref().unwrap().write(b"half", false).unwrap();
    // A process that was killed: its lock is free. One whose lock is gone, and a stranger's file.
    for name in
        ["00000000deadbeef.lock", "00000000deadbeef.0", "00000000deadbeef.17", "0123456789abcdef.3", "notes"]
    {
        fs::write(temporary.join(name), "half").unwrap();
    }
    assert!(keys(&store, "").await.is_empty(), "what is half written is listed");
    let second = Directory::open(dir.path()).unwrap();
    let left = names();
    assert_eq!(left.len(), 4, "{left:?}");
    assert!(left.contains(&"notes".to_owned()) && !left.iter().any(|name| name.contains("dead")), "{left:?}");
    assert!(living.place(&store.0.root, "whole").unwrap());
    assert_eq!(second.get("whole").await.unwrap().bytes, "half");
    drop(store);
    drop(second);
    assert_eq!(names(), ["notes"], "a writer that ends cleans up");
}

#[tokio::test]
async fn a_write_that_fails_leaves_nothing() {
    let (dir, store) = directory();
    let tag = put(&store, "a", "1").await;
    // `a` is a file: nothing can be below it.
    assert!(is_unavailable(&store.put("a/b", "2".into(), Condition::Absent).await));
    assert!(store.put("a", "2".into(), Condition::Absent).await.is_err());
    assert!(store.put("a", "2".into(), Condition::Matches(Tag("other".into()))).await.is_err());
    let many: Vec<_> = (0..20).map(|i| (format!("c/{i}"), Bytes::new())).collect();
    let bad = many.iter().cloned().chain([("a/b".to_owned(), Bytes::new())]).collect();
    assert!(is_unavailable(&store.put_absent(bad).await));
    assert_eq!(keys(&store, "").await, ["a"]);
    assert_eq!(fs::read_dir(dir.path().join(".tmp")).unwrap().count(), 1, "leftovers");
    assert_eq!(store.get("a").await.unwrap().tag, tag);
    assert!(matches!(store.get("a/b").await, Err(ObjectError::NotFound { .. })));
    assert!(store.delete("a/b").await.is_ok());
}

#[tokio::test]
async fn a_folder_is_no_object() {
    let (_dir, store) = directory();
    put(&store, "a/b/c", "1").await;
    for key in ["a", "a/b"] {
        assert!(matches!(store.get(key).await, Err(ObjectError::NotFound { .. })));
        assert!(matches!(store.size(key).await, Err(ObjectError::NotFound { .. })));
        store.delete(key).await.unwrap();
    }
    assert_eq!(keys(&store, "").await, ["a/b/c"]);
    let empty = store.list("a/b/c/", None, 10).await.unwrap();
    assert!(empty.is_empty());
}

#[tokio::test]
async fn links_are_listed_and_not_followed() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "secret").unwrap();
    let (dir, store) = directory();
    put(&store, "log/a", "1").await;
    symlink(outside.path(), dir.path().join("log/folder")).unwrap();
    symlink(outside.path().join("secret"), dir.path().join("log/file")).unwrap();
    symlink(outside.path().join("none"), dir.path().join("log/dangling")).unwrap();
    symlink("a", dir.path().join("log/inside")).unwrap();
    assert_eq!(keys(&store, "").await, ["log/a", "log/dangling", "log/file", "log/folder", "log/inside"]);
    assert!(is_unavailable(&store.list("log/folder/", None, 10).await));
    for key in ["log/file", "log/folder", "log/folder/secret", "log/dangling", "log/inside"] {
        assert!(is_unavailable(&store.get(key).await), "{key}");
        assert!(is_unavailable(&store.size(key).await), "{key}");
        assert!(store.put(key, "x".into(), Condition::Absent).await.is_err(), "{key}");
    }
    assert!(is_unavailable(&store.put("log/folder/new", "x".into(), Condition::Absent).await));
    assert!(is_unavailable(&store.delete("log/folder/secret").await));
    assert!(is_unavailable(&store.put_absent(vec![("log/folder/new".into(), Bytes::new())]).await));
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    assert_eq!(fs::read(outside.path().join("secret")).unwrap(), b"secret");
    store.delete("log/file").await.unwrap();
    assert_eq!(fs::read(outside.path().join("secret")).unwrap(), b"secret", "the link, not what it leads to");
}

#[tokio::test]
async fn what_strangers_put_there_is_listed() {
    use std::os::unix::ffi::OsStrExt as _;
    let (dir, store) = directory();
    put(&store, "events/a", "1").await;
    fs::write(dir.path().join("events/with space"), "x").unwrap();
    fs::write(dir.path().join("events/naïve"), "x").unwrap();
    fs::write(dir.path().join("events").join(std::ffi::OsStr::from_bytes(b"\xff\xfe")), "x").unwrap();
    fs::create_dir(dir.path().join("events/empty")).unwrap();
    fs::write(dir.path().join(".DS_Store"), "x").unwrap();
    let pipe = dir.path().join("events/pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
        .unwrap();
    let expected =
        ["events/a", "events/naïve", "events/pipe", "events/with space", "events/\u{fffd}\u{fffd}"];
    assert_eq!(keys(&store, "events/").await, expected);
    for i in 0..expected.len() {
        let after = (i > 0).then(|| expected[i - 1]);
        assert_eq!(store.list("", after, 1).await.unwrap()[0].key, expected[i], "a page of one");
    }
    assert!(is_unavailable(&store.get("events/pipe").await), "a pipe has no bytes to wait for");
    for hidden in [".tmp/", ".", "../", "events//", "events/../", "/"] {
        assert!(keys(&store, hidden).await.is_empty(), "{hidden}");
    }
}

#[tokio::test]
async fn empty_folders_do_not_end_a_page() {
    let (dir, store) = directory();
    for i in 0..50 {
        fs::create_dir_all(dir.path().join(format!("log/{i:02}/deep/er"))).unwrap();
    }
    put(&store, "log/49/deep/er/a", "1").await;
    put(&store, "log/z", "2").await;
    for limit in 1..4 {
        let listed = store.list("log/", None, limit).await.unwrap();
        assert_eq!(listed.len(), limit.min(2), "limit {limit}");
        assert_eq!(listed[0].key, "log/49/deep/er/a");
    }
}

#[tokio::test]
async fn reading_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    assert!(Directory::open_to_read(&dir.path().join("none")).is_err());
    fs::create_dir(dir.path().join("log")).unwrap();
    fs::write(dir.path().join("log/a"), "1").unwrap();
    let store = Directory::open_to_read(dir.path()).unwrap();
    assert_eq!(store.get("log/a").await.unwrap().bytes, "1");
    assert_eq!(keys(&store, "").await, ["log/a"]);
    let tag = store.get("log/a").await.unwrap().tag;
    assert!(is_unavailable(&store.put("log/b", "1".into(), Condition::Absent).await));
    assert!(is_unavailable(&store.put("log/a", "1".into(), Condition::Matches(tag)).await));
    assert!(is_unavailable(&store.put_absent(vec![("log/b".into(), Bytes::new())]).await));
    assert!(is_unavailable(&store.delete("log/a").await));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "something was made");
}

#[tokio::test]
async fn it_is_made_where_there_is_nothing_and_is_its_owners_alone() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("new/archive");
    let store = Directory::open(&root).unwrap();
    put(&store, "log/a", "1").await;
    store.put_absent(vec![("log/b/c".into(), Bytes::new())]).await.unwrap();
    let mode = |path: &str| fs::metadata(root.join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!([mode(""), mode("log"), mode("log/b")], [0o700; 3]);
    assert_eq!([mode("log/a"), mode("log/b/c")], [0o600; 2]);
    assert_eq!(store.describe(), root.display().to_string());
    // The root itself may be reached by a link.
    symlink(&root, dir.path().join("link")).unwrap();
    let linked = Directory::open(&dir.path().join("link")).unwrap();
    assert_eq!(linked.get("log/a").await.unwrap().bytes, "1");
}

#[tokio::test]
#[should_panic(expected = "is no key")]
async fn a_key_that_leads_out_ends_the_program() {
    let (_dir, store) = directory();
    let _ = store.get("log/../../etc/passwd").await;
}

/// 100,000 names in one folder, page by page: `cargo test -p quipu-core … -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "needs half a minute"]
async fn a_folder_of_a_hundred_thousand() {
    const COUNT: usize = 100_000;
    let (dir, store) = directory();
    fs::create_dir_all(dir.path().join("log/a/batch")).unwrap();
    for i in 0..COUNT {
        fs::write(dir.path().join(format!("log/a/batch/{i:020}.json")), "x").unwrap();
    }
    for page in [1000, 10_000] {
        let began = Instant::now();
        let (mut count, mut after) = (0, None::<String>);
        loop {
            let listed = store.list("log/a/batch/", after.as_deref(), page).await.unwrap();
            let Some(last) = listed.last() else { break };
            count += listed.len();
            after = Some(last.key.clone());
        }
        assert_eq!(count, COUNT);
        println!("{COUNT} names in pages of {page}: {:?}", began.elapsed());
    }
    let began = Instant::now();
    let objects =
        (0..2000).map(|i| (format!("tile/{:03}/{:03}", i / 256, i % 256), Bytes::from(vec![7; 8192])));
    store.put_absent(objects.collect()).await.unwrap();
    println!("put_absent of 2,000 objects of 8 KiB: {:?}", began.elapsed());
}
