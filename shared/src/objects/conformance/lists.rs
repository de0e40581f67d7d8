use bytes::Bytes;

use super::{create, fresh_prefix, ok};
use crate::objects::ObjectStore;

async fn keys(store: &dyn ObjectStore, prefix: &str, after: Option<&str>, limit: usize) -> Vec<String> {
    let listed = ok(store.list(prefix, after, limit).await, "list");
    listed.into_iter().map(|listed| listed.key).collect()
}

/// A list is in the order of the keys' bytes, which is not that of folders and names, and gives lengths.
///
/// # Panics
/// If not.
pub async fn lists_are_in_order(store: &dyn ObjectStore) {
    let prefix = fresh_prefix();
    // `-` and `.` come before `/`, digits after it.
    let names =
        ["a-b/x", "a-b/y", "a.b", "a/x", "a/x-y", "a/y/z", "a/y0", "a0", "a0b/c", "b", "b-/c", "b.p/5"];
    let reversed = names.iter().rev().enumerate();
    for (i, name) in reversed {
        create(store, &format!("{prefix}{name}"), "x".repeat(i)).await;
    }
    let listed = ok(store.list(&prefix, None, 100).await, "list");
    let found: Vec<(&str, u64)> = listed.iter().map(|l| (&l.key[prefix.len()..], l.bytes)).collect();
    let expected: Vec<(&str, u64)> =
        names.iter().enumerate().map(|(i, name)| (*name, (names.len() - 1 - i) as u64)).collect();
    assert_eq!(found, expected);
}

/// A prefix is one of the text, wherever a name begins; `after` need not be a key that is there, and is not in the
/// list; a list has no more than `limit`.
///
/// # Panics
/// If not.
pub async fn lists_by_prefix_and_after(store: &dyn ObjectStore) {
    let prefix = fresh_prefix();
    let names =
        ["a-b/x", "a-b/y", "a.b", "a/x", "a/x-y", "a/y/z", "a/y0", "a0", "a0b/c", "b", "b-/c", "b.p/5"];
    for name in names {
        create(store, &format!("{prefix}{name}"), "x").await;
    }
    let prefixes =
        ["", "a", "a/", "a/x", "a/y", "a/y/", "a/y/z", "a-b", "b", "b/", "c", "a/x/", "a//", "b.p/5/6"];
    let afters =
        ["", "A", "a", "a-b", "a-b/x", "a.", "a.b", "a/", "a/x", "a/y", "a/y/z", "a/z", "a0b/d", "b", "c"];
    for begin in prefixes {
        for after in afters {
            for limit in [0, 1, 2, 5, 100] {
                let full = |name: &str| format!("{prefix}{name}");
                let mut expected: Vec<String> = names.iter().map(|name| full(name)).collect();
                expected.retain(|key| key.starts_with(&full(begin)) && *key > full(after));
                expected.truncate(limit);
                let found = keys(store, &full(begin), Some(&full(after)), limit).await;
                assert_eq!(found, expected, "prefix {begin:?} after {after:?} limit {limit}");
            }
        }
        let found = keys(store, &format!("{prefix}{begin}"), None, 100).await;
        let count = names.iter().filter(|name| name.starts_with(begin)).count();
        assert_eq!(found.len(), count, "prefix {begin:?}");
    }
    let begin = prefix.trim_end_matches('/');
    assert_eq!(keys(store, begin, None, 100).await.len(), names.len(), "a prefix that ends within a name");
    assert_eq!(keys(store, "", Some(begin), 3).await.len(), 3, "no prefix");
}

/// Page after page, whatever their size, `count` keys are listed, each once.
///
/// # Panics
/// If not.
pub async fn lists_in_pages(store: &dyn ObjectStore, count: usize, page_sizes: &[usize]) {
    let prefix = fresh_prefix();
    let mut expected: Vec<String> =
        (0..count).map(|i| format!("{prefix}{}{i}", ["", "a/", "a/b/", "a.p/"][i % 4])).collect();
    let objects = expected.iter().map(|key| (key.clone(), Bytes::from_static(b"x"))).collect();
    ok(store.put_absent(objects).await, "put_absent");
    expected.sort_unstable();
    for &size in page_sizes {
        let mut found: Vec<String> = Vec::new();
        loop {
            let page = keys(store, &prefix, found.last().map(String::as_str), size).await;
            assert!(page.len() <= size, "{} in a page of {size}", page.len());
            let is_last = page.len() < size;
            found.extend(page);
            if is_last {
                break;
            }
        }
        assert_eq!(found, expected, "pages of {size}");
    }
}

/// What a write made durable is in the next list, in the midst of a listing too.
///
/// # Panics
/// If not.
pub async fn lists_see_what_was_just_written(store: &dyn ObjectStore) {
    let prefix = fresh_prefix();
    let key = |i: usize| format!("{prefix}{i:03}");
    let mut expected = Vec::new();
    for i in (0..40).step_by(2) {
        create(store, &key(i), "x").await;
        expected.push(key(i));
        assert_eq!(keys(store, &prefix, None, 100).await, expected);
    }
    let page = keys(store, &prefix, None, 5).await;
    let after = page.last().expect("a full page");
    create(store, &key(9), "x").await;
    assert_eq!(keys(store, &prefix, Some(after), 1).await, [key(9)]);
    ok(store.delete(&key(9)).await, "delete");
    assert_eq!(keys(store, &prefix, Some(after), 1).await, [key(10)]);
}
