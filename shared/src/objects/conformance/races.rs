use std::cell::Cell;

use bytes::Bytes;
use futures_util::future::join_all;

use super::{create, fresh_prefix, ok, read};
use crate::objects::{Condition, Object, ObjectError, ObjectStore};

/// Of many who write an object that is absent, one wins; all others meet a conflict, and what is there is the
/// winner's. So also when they write several at once. Who never hears what became of a write has neither won nor
/// lost: gives how often that was so, for the store's own test to judge.
///
/// # Panics
/// If not.
pub async fn absent_is_won_once(store: &dyn ObjectStore, racers: usize) -> usize {
    let prefix = fresh_prefix();
    let key = format!("{prefix}new/folder/object");
    let race = (0..racers).map(|i| store.put(&key, Bytes::from(format!("racer {i}")), Condition::Absent));
    let (mut winner, mut unheard) = (None, Vec::new());
    for (i, outcome) in join_all(race).await.into_iter().enumerate() {
        match outcome {
            Ok(tag) => assert_eq!(winner.replace((i, tag)).map(|(i, _)| i), None, "a second winner"),
            Err(ObjectError::Conflict { .. }) => {}
            Err(ObjectError::Unknown { .. }) => unheard.push(i),
            Err(error) => panic!("racer {i}: {error}"),
        }
    }
    let object = read(store, &key).await;
    match winner {
        Some((i, tag)) => assert_eq!((object.bytes, object.tag), (format!("racer {i}").into(), tag)),
        None => assert!(unheard.contains(&owner(&object)), "{:?} of {unheard:?}", object.bytes),
    }
    let mut unknown = unheard.len();

    let keys: Vec<String> = (0..10).map(|n| format!("{prefix}several/{n}")).collect();
    let race = (0..racers).map(|i| {
        let bytes = Bytes::from(format!("racer {i}"));
        store.put_absent(keys.iter().map(|key| (key.clone(), bytes.clone())).collect())
    });
    let mut heard = Vec::new();
    for (i, outcome) in join_all(race).await.into_iter().enumerate() {
        match outcome {
            Ok(lost) => heard.push((i, lost)),
            Err(ObjectError::Unknown { .. }) => unknown += 1,
            Err(error) => panic!("racer {i}: {error}"),
        }
    }
    for key in &keys {
        let owner = owner(&read(store, key).await);
        for (i, lost) in &heard {
            assert_eq!(lost.contains(key), *i != owner, "{key} is racer {owner}'s, says racer {i}");
        }
    }
    unknown
}

/// The racer who wrote an object.
fn owner(object: &Object) -> usize {
    let text = std::str::from_utf8(&object.bytes).ok().and_then(|text| text.strip_prefix("racer "));
    text.and_then(|number| number.parse().ok()).expect("a racer's object")
}

/// Compare-and-swap: many who read, add a line and write on condition that nothing has changed, lose no line, and
/// write none twice. Gives how many outcomes were not known, as [`absent_is_won_once`] does.
///
/// # Panics
/// If not.
pub async fn matches_is_compare_and_swap(store: &dyn ObjectStore, racers: usize) -> usize {
    let key = format!("{}lines", fresh_prefix());
    create(store, &key, "").await;
    let unknown = Cell::new(0);
    let race = (0..racers).map(|i| {
        let (key, unknown) = (&key, &unknown);
        async move {
            let line = format!("racer {i}\n");
            loop {
                let object = read(store, key).await;
                let mut text = String::from_utf8(object.bytes.to_vec()).expect("text");
                // A write whose outcome was not known, and which came through.
                if text.split_inclusive('\n').any(|written| written == line) {
                    return;
                }
                text.push_str(&line);
                match store.put(key, text.into(), Condition::Matches(object.tag)).await {
                    Ok(_) => return,
                    Err(ObjectError::Conflict { .. }) => {}
                    Err(ObjectError::Unknown { .. }) => unknown.set(unknown.get() + 1),
                    Err(error) => panic!("racer {i}: {error}"),
                }
            }
        }
    });
    join_all(race).await;
    let text = String::from_utf8(read(store, &key).await.bytes.to_vec()).expect("text");
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    let mut expected: Vec<String> = (0..racers).map(|i| format!("racer {i}")).collect();
    expected.sort_unstable();
    assert_eq!(lines, expected);
    unknown.get()
}

/// Who reads while an object is replaced reads the old or the new one, whole and with its own tag. It is replaced
/// `rounds` times by one of up to `bytes_max` bytes.
///
/// # Panics
/// If not.
pub async fn readers_see_whole_objects(store: &dyn ObjectStore, rounds: u32, bytes_max: usize) {
    const READERS: usize = 4;
    let key = format!("{}replaced", fresh_prefix());
    // Each state says its number in every one of its words, and its length follows from it.
    let state = |round: u32| {
        let words = bytes_max / 4 - (round as usize * 7919) % (bytes_max / 8);
        Bytes::from(round.to_le_bytes().repeat(words))
    };
    let first = create(store, &key, state(0)).await;
    let done = std::sync::atomic::AtomicBool::new(false);
    let tags = std::sync::Mutex::new(vec![first.clone()]);
    let write = async {
        let mut tag = first;
        for round in 1..=rounds {
            tag = ok(store.put(&key, state(round), Condition::Matches(tag)).await, "put");
            tags.lock().expect("no reader panicked").push(tag.clone());
        }
        done.store(true, std::sync::atomic::Ordering::SeqCst);
    };
    let reader = || async {
        let mut seen = Vec::new();
        let mut last = 0;
        while !done.load(std::sync::atomic::Ordering::SeqCst) {
            let object = read(store, &key).await;
            let round =
                object.bytes.first_chunk::<4>().map(|word| u32::from_le_bytes(*word)).expect("a word");
            assert!(round <= rounds && object.bytes == state(round), "half an object, of round {round}");
            assert!(round >= last, "round {round} after round {last}");
            last = round;
            seen.push((round, object.tag));
        }
        seen
    };
    let (_, seen) = futures_util::future::join(write, join_all((0..READERS).map(|_| reader()))).await;
    let tags = tags.into_inner().expect("no reader panicked");
    for (round, tag) in seen.into_iter().flatten() {
        assert_eq!(tags[round as usize], tag, "the tag of another state than {round}");
    }
    assert!(read(store, &key).await.bytes == state(rounds));
}
