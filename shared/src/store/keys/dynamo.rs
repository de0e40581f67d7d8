//! The keys of the DynamoDB table: what stands where, and why (DESIGN section 4).
//!
//! | item | `pk` | `sk` |
//! |---|---|---|
//! | segment: the commit item | `S#tenant#session` | `E#` first sequence, 20 digits |
//! | further parts of its body | `S#tenant#session` | `B#` first sequence `#` commit id `#` part, 3 digits |
//! | session pointer | `S#tenant#session` | `Z` |
//! | that a session's chain is broken | `H#tenant` | session `#` first sequence of the segment, 20 digits |
//! | catalogue of batches | `B#tenant` | batch, 20 digits |
//! | erasure | `X#tenant` | `0#` (not done) or `1#` (done), event id |
//! | idempotency key | `I#tenant#` HMAC, hex | `I` |
//! | token, by the hash of its text | `T#h#` SHA-256, hex | `T` |
//! | token, by tenant | `T#t#tenant` | token id |
//! | tenant registry | `N#` | tenant |
//! | that a first token was made | `N#first` | `N` |
//! | the deployment's identity | `K#` | `K` |
//! | that the ledger is closed | `K#` | `closed` |
//!
//! A tenant's name holds no `#`, so that no two of them can run into each other; a session's may, and comes last.
//! `B#` < `E#` < `Z`: the parts lie below every commit item and the pointer above, so that a descending query of two
//! items gives the pointer and the last segment. What else is known of a session stands in partitions of its own.
//!
//! The index `feed` has the partition key `F#tenant#shard` and the sort key commit id (16 bytes), session: the order
//! of the feed itself. Each tenant has [`SHARDS`] shards by the hash of the session, and one more, [`STRAY_SHARD`],
//! for segments whose events' timestamps are far from their commit's: the others are then ordered by time to within
//! [`TIME_BEFORE_MS`] and [`TIME_AFTER_MS`], and "the newest hundred" does not read them whole. The pointers stand
//! there too, in the partition `L#tenant`, each at the place of its session's first segment: the list of sessions
//! outlives the segments.
//!
//! The index `open` holds the segments that are not archived: partition key `O#tenant#shard`, by the session alone,
//! and the sort key of `feed`.

use sha2::{Digest as _, Sha256};

use crate::ids::{CommitId, EventId, Seq, SessionId, TenantId};
use crate::limits::{self, FEED_SHARDS as SHARDS};
use crate::segment::SegmentMeta;
use crate::store::FeedPosition;
use crate::time::Micros;

/// The shard of segments whose timestamps stray from the time of their commit.
pub const STRAY_SHARD: usize = SHARDS;

/// How far before its commit an event's timestamp may lie in the ordinary shards, ms.
pub const TIME_BEFORE_MS: i64 = limits::FEED_TIME_BEFORE_MS;

/// How far after its commit an event's timestamp may lie in the ordinary shards, ms.
pub const TIME_AFTER_MS: i64 = limits::FEED_TIME_AFTER_MS;

/// First of all commit items of a session.
pub const SEGMENT_FIRST: &str = "E#";

/// The pointer's sort key, above every segment.
pub const POINTER: &str = "Z";

/// The partition of a session.
pub fn session(tenant: &TenantId, session: &SessionId) -> String {
    format!("S#{tenant}#{session}")
}

/// The sort key of the commit item with this first sequence.
pub fn segment(first: Seq) -> String {
    format!("{SEGMENT_FIRST}{:020}", first.get())
}

/// The inverse of [`segment`].
pub fn read_segment(key: &str) -> Option<Seq> {
    let digits = key.strip_prefix(SEGMENT_FIRST).filter(|digits| digits.len() == 20)?;
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Seq::new(digits.parse().ok()?)
}

/// The partition of a tenant's erasures.
pub fn erasures(tenant: &TenantId) -> String {
    format!("X#{tenant}")
}

/// The sort key of an erasure. Those that are not done come first, so that who looks for work reads no other.
pub fn erasure(done: bool, event: EventId) -> String {
    format!("{}#{event}", u8::from(done))
}

/// The inverse of [`erasure`].
pub fn read_erasure(key: &str) -> Option<EventId> {
    let id = key.strip_prefix("0#").or_else(|| key.strip_prefix("1#"))?;
    EventId::parse(id).ok().filter(|event| event.to_string() == id)
}

/// What the sort keys of the further parts of a session's segments that begin between two sequences lie between.
pub fn parts_between(first: Seq, last: Seq) -> (String, String) {
    (format!("B#{:020}#", first.get()), format!("B#{:020}$", last.get()))
}

/// The inverse of [`part`]: first sequence and commit.
pub fn read_part(key: &str) -> Option<(Seq, CommitId)> {
    let mut words = key.strip_prefix("B#")?.split('#');
    let first = Seq::new(words.next()?.parse().ok()?)?;
    let commit = crate::ids::decode_hex::<16>(words.next()?).and_then(CommitId::from_bytes)?;
    Some((first, commit))
}

/// What the sort keys of a segment's further parts begin with. They name the commit, so that what is left of an
/// expired segment can never be taken for a part of another that begins at the same sequence.
pub fn parts(first: Seq, commit: CommitId) -> String {
    format!("B#{:020}#{}#", first.get(), crate::ids::hex(&commit.to_bytes()))
}

/// The sort key of a further part, from 1, of the body that a segment was written with.
pub fn part(first: Seq, commit: CommitId, number: usize) -> String {
    format!("{}{number:03}", parts(first, commit))
}

/// What the sort keys of the further parts of one of a segment's bodies begin with. A body that replaces another has
/// parts of its own names, so that no reader can mix the two.
pub fn parts_of(first: Seq, commit: CommitId, revision: u64) -> String {
    match revision {
        0 => parts(first, commit),
        revision => format!("{}v{revision:06}#", parts(first, commit)),
    }
}

/// The sort key of a further part, from 1, of one of a segment's bodies.
pub fn part_of(first: Seq, commit: CommitId, revision: u64, number: usize) -> String {
    format!("{}{number:03}", parts_of(first, commit, revision))
}

/// The shard of the feed in which a segment stands.
pub fn shard(session: &SessionId, meta: &SegmentMeta) -> usize {
    let committed = Micros::from_unix_ms(meta.commit_id.unix_ms() as i64);
    let strays = meta.summary.time_min < committed.plus_ms(-TIME_BEFORE_MS)
        || meta.summary.time_max > committed.plus_ms(TIME_AFTER_MS);
    if strays { STRAY_SHARD } else { open_shard(session) }
}

/// The shard in which a session's segments stand while they are open, below [`SHARDS`].
pub fn open_shard(session: &SessionId) -> usize {
    usize::from(Sha256::digest(session.as_str().as_bytes())[0]) % SHARDS
}

/// The partition of a shard of the feed.
pub fn feed_shard(tenant: &TenantId, shard: usize) -> String {
    format!("F#{tenant}#{shard}")
}

/// The partition of the index `feed` that holds the pointers.
pub fn pointers(tenant: &TenantId) -> String {
    format!("L#{tenant}")
}

/// The partition of a shard of what is not archived.
pub fn open(tenant: &TenantId, shard: usize) -> String {
    format!("O#{tenant}#{shard}")
}

/// The partition of a tenant's batches.
pub fn batches(tenant: &TenantId) -> String {
    format!("B#{tenant}")
}

/// The sort key of a batch.
pub fn batch(number: u64) -> String {
    format!("{number:020}")
}

/// The inverse of [`batch`].
pub fn read_batch(key: &str) -> Option<u64> {
    let number = key.parse().ok()?;
    (batch(number) == key).then_some(number)
}

/// The note that a session's chain is broken at the segment with this first sequence.
pub fn broken(tenant: &TenantId, session: &SessionId, first: Seq) -> (String, String) {
    (format!("H#{tenant}"), format!("{session}#{:020}", first.get()))
}

/// A segment's place in the feed.
pub fn feed(commit: CommitId, session: &SessionId) -> Vec<u8> {
    let mut key = commit.to_bytes().to_vec();
    key.extend_from_slice(session.as_str().as_bytes());
    key
}

/// The inverse of [`feed`].
pub fn read_feed(key: &[u8]) -> Option<FeedPosition> {
    let (commit, session) = key.split_first_chunk::<16>()?;
    let session_id = SessionId::parse(std::str::from_utf8(session).ok()?).ok()?;
    Some(FeedPosition { commit_id: CommitId::from_bytes(*commit)?, session_id })
}

/// An idempotency key.
pub fn idempotency(tenant: &TenantId, hmac: &[u8; 32]) -> String {
    format!("I#{tenant}#{}", crate::ids::hex(hmac))
}

/// The sort key of an idempotency key.
pub const IDEMPOTENCY: &str = "I";

/// A token by the SHA-256 of its text.
pub fn token(hash: &[u8; 32]) -> String {
    format!("T#h#{}", crate::ids::hex(hash))
}

/// The sort key of a token by its hash.
pub const TOKEN: &str = "T";

/// The partition of a tenant's tokens; the sort key is the token's id.
pub fn tokens(tenant: &TenantId) -> String {
    format!("T#t#{tenant}")
}

/// The partition of all tenants; the sort key is the tenant's name.
pub const TENANTS: &str = "N#";

/// The key of the note that a first token was made.
pub const FIRST_TOKEN: (&str, &str) = ("N#first", "N");

/// The key of the deployment's identity.
pub const IDENTITY: (&str, &str) = ("K#", "K");

/// The key of the note that the ledger is closed: beside the identity, which whoever appends may read.
pub const CLOSED: (&str, &str) = ("K#", "closed");

#[cfg(test)]
mod tests {
    use super::*;

    /// A key that changes makes every table unreadable: these may change only with an ADR.
    #[test]
    fn golden() {
        let tenant = TenantId::parse("acme").unwrap();
        let name = SessionId::parse("s#1 é").unwrap();
        let commit = CommitId::mint(0x0102_0304_0506, [0xff; 10]);
        let first = Seq::new(258).unwrap();
        assert_eq!(session(&tenant, &name), "S#acme#s#1 é");
        assert_eq!(segment(first), "E#00000000000000000258");
        assert_eq!(part(first, commit, 2), "B#00000000000000000258#0102030405067fffbffffffffffffc00#002");
        assert_eq!(feed_shard(&tenant, STRAY_SHARD), "F#acme#4");
        assert_eq!((open_shard(&name), open(&tenant, 3)), (1, "O#acme#3".into()));
        assert_eq!(pointers(&tenant), "L#acme");
        assert_eq!((batches(&tenant), batch(42)), ("B#acme".into(), "00000000000000000042".into()));
        let noted = ("H#acme".into(), "s#1 é#00000000000000000258".into());
        assert_eq!(broken(&tenant, &name, first), noted);
        assert_eq!(
            crate::ids::hex(&feed(commit, &name)),
            "0102030405067fffbffffffffffffc00732331 20c3a9".replace(' ', "")
        );
        assert_eq!(idempotency(&tenant, &[0xaa; 32]), format!("I#acme#{}", "aa".repeat(32)));
        assert_eq!(token(&[0xaa; 32]), format!("T#h#{}", "aa".repeat(32)));
        assert_eq!(tokens(&tenant), "T#t#acme");
    }

    #[test]
    fn the_pointer_is_above_every_segment_and_the_parts_are_below() {
        let commit = CommitId::mint(7, [0; 10]);
        let highest = segment(Seq::new((1 << 63) - 1).unwrap());
        assert!(highest.as_str() < POINTER && segment(Seq::ZERO) < highest);
        assert!(part(Seq::new((1 << 63) - 1).unwrap(), commit, 999) < segment(Seq::ZERO));
        assert_eq!(read_segment(&highest).map(Seq::get), Some((1 << 63) - 1));
        for bad in ["", "E#", "E#1", "Z", "E#0000000000000000000x", "E#99999999999999999999"] {
            assert_eq!(read_segment(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_batch_reads_back_in_its_only_spelling() {
        for number in [0, 1, 42, u64::MAX] {
            assert_eq!(read_batch(&batch(number)), Some(number));
        }
        assert!(batch(9) < batch(10) && batch(u64::MAX - 1) < batch(u64::MAX));
        for bad in ["", "1", "+0000000000000000001", "0000000000000000001x", "99999999999999999999"] {
            assert_eq!(read_batch(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_place_in_the_feed_reads_back_and_sorts_as_positions_do() {
        let position = |ms, name: &str| FeedPosition {
            commit_id: CommitId::mint(ms, [7; 10]),
            session_id: SessionId::parse(name).unwrap(),
        };
        let places = [position(1, "b"), position(1, "é"), position(2, "a")];
        let keys: Vec<_> = places.iter().map(|p| feed(p.commit_id, &p.session_id)).collect();
        assert!(keys.is_sorted() && places.is_sorted());
        for (key, place) in keys.iter().zip(&places) {
            assert_eq!(read_feed(key).as_ref(), Some(place));
        }
        assert_eq!(read_feed(&keys[0][..16]), None);
    }
}
