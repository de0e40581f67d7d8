use bytes::Bytes;

use super::{conflict, create, fresh_prefix, noise, not_found, ok, read};
use crate::objects::{Condition, ObjectStore, Tag};

/// What was written is read back at once: whole, by length, and with the tag that the write gave.
///
/// # Panics
/// If not.
pub async fn what_is_written_is_read(store: &dyn ObjectStore) {
    let prefix = fresh_prefix();
    for (name, length) in [("one", 1), ("small", 1000), ("folder/in/a/folder", 100_000)] {
        let (key, bytes) = (format!("{prefix}{name}"), noise(1, length));
        not_found(store.get(&key).await, &key, "get before");
        not_found(store.size(&key).await, &key, "size before");
        not_found(store.get_range(&key, 0..1).await, &key, "get_range before");
        not_found(store.get_range(&key, 1..1).await, &key, "get_range of nothing before");
        let tag = create(store, &key, bytes.clone()).await;
        let object = read(store, &key).await;
        assert!(object.bytes == bytes, "{name}: other bytes");
        assert_eq!(object.tag, tag, "{name}: another tag");
        assert_eq!(ok(store.size(&key).await, "size"), length as u64);
    }
}

/// `Absent` never replaces. `Matches` replaces what has the tag, and nothing else; what is not there has none. A
/// write that conflicts changes nothing. The tag changes with the bytes.
///
/// # Panics
/// If not.
pub async fn conditions_hold(store: &dyn ObjectStore) {
    let key = format!("{}object", fresh_prefix());
    let put = |text: &'static str, condition| store.put(&key, Bytes::from_static(text.as_bytes()), condition);
    let stranger = create(store, &format!("{key}-of-another"), "other").await;
    conflict(put("a", Condition::Matches(stranger.clone())).await, &key, "a match of nothing");
    not_found(store.get(&key).await, &key, "get after a match of nothing");
    let first = ok(put("first", Condition::Absent).await, "the first write");
    conflict(put("b", Condition::Absent).await, &key, "absent, and there");
    conflict(put("first", Condition::Absent).await, &key, "absent, and there with these bytes");
    conflict(put("c", Condition::Matches(stranger)).await, &key, "the tag of another");
    assert_eq!(read(store, &key).await.bytes, "first", "a write that conflicts took effect");
    let second = ok(put("second", Condition::Matches(first.clone())).await, "a match");
    assert_ne!(first, second, "the tag is the old one");
    let object = read(store, &key).await;
    assert_eq!((&object.bytes[..], &object.tag), (&b"second"[..], &second));
    conflict(put("d", Condition::Matches(first)).await, &key, "a tag that is past");
    let third = ok(put("third", Condition::Matches(second.clone())).await, "another match");
    assert!(third != second && read(store, &key).await.bytes == "third");
}

/// An object may have no byte; it is there all the same.
///
/// # Panics
/// If not.
pub async fn an_empty_object_is_one(store: &dyn ObjectStore) {
    let prefix = fresh_prefix();
    let key = format!("{prefix}empty");
    let tag = create(store, &key, "").await;
    let object = read(store, &key).await;
    assert_eq!((object.bytes.len(), &object.tag), (0, &tag));
    assert_eq!(ok(store.size(&key).await, "size"), 0);
    for range in [0..0, 0..1, 0..u64::MAX, 5..9] {
        assert_eq!(ok(store.get_range(&key, range).await, "get_range"), "");
    }
    conflict(store.put(&key, "x".into(), Condition::Absent).await, &key, "absent, and there");
    ok(store.put(&key, "x".into(), Condition::Matches(tag)).await, "a match of an empty object");
    assert_eq!(read(store, &key).await.bytes, "x");
}

/// An object of `length` bytes is written and read whole and in parts.
///
/// # Panics
/// If not.
pub async fn a_large_object(store: &dyn ObjectStore, length: usize) {
    let key = format!("{}large", fresh_prefix());
    let bytes = noise(2, length);
    let tag = create(store, &key, bytes.clone()).await;
    let object = read(store, &key).await;
    assert!(object.bytes == bytes, "other bytes: {} of {length}", object.bytes.len());
    assert_eq!(object.tag, tag);
    assert_eq!(ok(store.size(&key).await, "size"), length as u64);
    for range in [1..length - 1, length / 2..length, length - 7..length + 7] {
        let part = ok(store.get_range(&key, range.start as u64..range.end as u64).await, "get_range");
        assert!(part == bytes[range.start..range.end.min(length)], "{range:?}: other bytes");
    }
}

/// A range is what it says; it is cut where the object ends, and may lie beyond it, or be empty.
///
/// # Panics
/// If not.
pub async fn ranges(store: &dyn ObjectStore) {
    let key = format!("{}digits", fresh_prefix());
    create(store, &key, "0123456789").await;
    let cases = [
        (0..10, "0123456789"),
        (0..1, "0"),
        (9..10, "9"),
        (3..7, "3456"),
        (0..11, "0123456789"),
        (5..u64::MAX, "56789"),
        (9..1000, "9"),
        (10..11, ""),
        (1000..2000, ""),
        (0..0, ""),
        (4..4, ""),
        (1000..1000, ""),
    ];
    for (range, expected) in cases {
        let part = ok(store.get_range(&key, range.clone()).await, "get_range");
        assert_eq!(part, expected, "{range:?}");
    }
}

/// Everything that a key may hold stands for itself.
///
/// # Panics
/// If not.
pub async fn odd_keys(store: &dyn ObjectStore) {
    let prefix = fresh_prefix();
    let names = [
        "tenant=a/dt=2026-01-01/batch-00000000000000000001.parquet",
        "log/_identity.json",
        "log/a/tile/0/x001/234.p/5",
        "log/a/tile/0/x001/234",
        "+plus&and?what#hash%25;,:@!$'()*~`^|\"<>[]{}",
        "...",
        ".hidden/..two",
        "-",
        "UPPER/lower",
        "upper/lower",
        &"n".repeat(255),
        // With the prefix, a key of the greatest length.
        &["0123456"; 125].join("/")[..1024 - prefix.len()],
    ];
    for (i, name) in names.iter().enumerate() {
        create(store, &format!("{prefix}{name}"), format!("object {i}")).await;
    }
    for (i, name) in names.iter().enumerate() {
        assert_eq!(read(store, &format!("{prefix}{name}")).await.bytes, format!("object {i}"), "{name}");
    }
    let mut expected: Vec<String> = names.iter().map(|name| format!("{prefix}{name}")).collect();
    expected.sort_unstable();
    let listed = ok(store.list(&prefix, None, 100).await, "list");
    assert_eq!(listed.into_iter().map(|l| l.key).collect::<Vec<_>>(), expected);
}

/// What is deleted is gone, from lists too, and may be written anew. What is not there may be deleted; a tag of what
/// was there matches nothing.
///
/// # Panics
/// If not.
pub async fn delete(store: &dyn ObjectStore) {
    let prefix = fresh_prefix();
    let (key, other) = (format!("{prefix}a/object"), format!("{prefix}a/other"));
    ok(store.delete(&key).await, "delete of nothing");
    let tag = create(store, &key, "1").await;
    create(store, &other, "2").await;
    ok(store.delete(&key).await, "delete");
    not_found(store.get(&key).await, &key, "get");
    not_found(store.size(&key).await, &key, "size");
    let left = ok(store.list(&prefix, None, 10).await, "list");
    assert_eq!(left.iter().map(|l| &*l.key).collect::<Vec<_>>(), [&*other]);
    conflict(store.put(&key, "3".into(), Condition::Matches(tag)).await, &key, "a match of what is gone");
    ok(store.delete(&key).await, "delete of what is gone");
    create(store, &key, "4").await;
    assert_eq!(read(store, &key).await.bytes, "4");
    assert_eq!(read(store, &other).await.bytes, "2", "another one was touched");
}

/// `put_absent` writes those that are not there, leaves the others as they are and names them, and them alone.
///
/// # Panics
/// If not.
pub async fn several_at_once(store: &dyn ObjectStore) {
    let prefix = fresh_prefix();
    let key = |i: usize| format!("{prefix}{}/{i}", i % 3);
    // Few and many: a backend may do them differently.
    for (from, count) in [(0, 4), (100, 40)] {
        let (mut tags, mut expected): (Vec<Tag>, Vec<String>) = Default::default();
        for i in (from..from + count).filter(|i| i % 4 == 1) {
            tags.push(create(store, &key(i), format!("old {i}")).await);
            expected.push(key(i));
        }
        let objects = (from..from + count).map(|i| (key(i), Bytes::from(format!("new {i}")))).collect();
        let mut existing = ok(store.put_absent(objects).await, "put_absent");
        existing.sort_unstable();
        expected.sort_unstable();
        assert_eq!(existing, expected, "named as existing");
        let mut tags = tags.into_iter();
        for i in from..from + count {
            let object = read(store, &key(i)).await;
            if i % 4 == 1 {
                assert_eq!((object.bytes, Some(object.tag)), (format!("old {i}").into(), tags.next()));
            } else {
                assert_eq!(object.bytes, format!("new {i}"));
            }
        }
        let again = (from..from + count).map(|i| (key(i), Bytes::from_static(b"again"))).collect();
        assert_eq!(ok(store.put_absent(again).await, "put_absent again").len(), count);
        assert_ne!(read(store, &key(from)).await.bytes, "again");
    }
    assert_eq!(ok(store.put_absent(Vec::new()).await, "put_absent of nothing"), Vec::<String>::new());
}

/// `put_absent` of `count` objects: all are there when it returns.
///
/// # Panics
/// If not.
pub async fn many_at_once(store: &dyn ObjectStore, count: usize) {
    let prefix = fresh_prefix();
    let key = |i: usize| format!("{prefix}tile/{:03}/{:03}", i / 256, i % 256);
    let bytes = |i: usize| noise(i as u64, 100 + i % 1000);
    let objects = (0..count).map(|i| (key(i), bytes(i))).collect();
    assert_eq!(ok(store.put_absent(objects).await, "put_absent"), Vec::<String>::new());
    let listed = ok(store.list(&prefix, None, count + 1).await, "list");
    assert_eq!(listed.len(), count);
    for (i, listed) in listed.iter().enumerate() {
        assert_eq!((&listed.key, listed.bytes), (&key(i), bytes(i).len() as u64));
    }
    for i in (0..count).step_by(97) {
        assert!(read(store, &key(i)).await.bytes == bytes(i), "{i}: other bytes");
    }
}
