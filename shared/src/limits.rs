//! Every cap of the system, with its unit and its reason. Nothing else in the repository may hold a cap.
//!
//! A refused request names the limit by the name of the constant, in lower case, and its value.

/// Most events in one batch. AgentLens page: 1 to 1000.
pub const BATCH_EVENTS_MAX: usize = 1000;

/// Largest request body as received, bytes. Lambda takes 6 MiB of synchronous payload (service quota), and a
/// binary body arrives in base64: 4 MiB × 4/3 = 5.34 MiB.
pub const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Largest request body after gzip is undone, bytes. Bounds what a small compressed body can cost.
pub const BODY_UNPACKED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Deepest nesting of arrays and objects in any JSON document. Python's json and most others manage it; serde_json
/// stops at 127 unless told otherwise.
pub const JSON_DEPTH_MAX: usize = 128;

/// Largest payload of an event, bytes of compact JSON.
pub const PAYLOAD_BYTES_MAX: usize = 1024 * 1024;

/// Largest metadata of an event, bytes of compact JSON.
pub const METADATA_BYTES_MAX: usize = 64 * 1024;

/// Longest tenant name, bytes: a DNS label (RFC 1035), so that it may become a host name.
pub const TENANT_BYTES_MAX: usize = 63;

/// Longest session id, bytes. DynamoDB partition keys hold 2048 (service quota).
pub const SESSION_ID_BYTES_MAX: usize = 256;

/// Longest agent id, bytes.
pub const AGENT_ID_BYTES_MAX: usize = 256;

/// Longest event type, bytes.
pub const EVENT_TYPE_BYTES_MAX: usize = 128;

/// Longest source id, bytes.
pub const SOURCE_ID_BYTES_MAX: usize = 256;

/// Longest compliance tag, bytes.
pub const COMPLIANCE_TAG_BYTES_MAX: usize = 64;

/// Most PII kinds an event can be flagged with.
pub const PII_TYPES_MAX: usize = 32;

/// Longest name of a PII kind, bytes.
pub const PII_TYPE_BYTES_MAX: usize = 32;

/// Most types and most agents that a segment's attributes name; beyond it they say `many`.
pub const SUMMARY_NAMES_MAX: usize = 32;

/// Most tags that a session's summary keeps.
pub const SUMMARY_TAGS_MAX: usize = 32;

/// Longest tag kept in a summary, bytes.
pub const SUMMARY_TAG_BYTES_MAX: usize = 128;

/// Largest single stored item, bytes of body. DynamoDB's item limit is 400 KB (409,600 bytes, service quota);
/// the rest is room for keys and attributes.
pub const ITEM_BODY_BYTES_MAX: usize = 380 * 1000;

/// Most bytes that the segments of one batch may encode to, their attributes included. A DynamoDB transaction takes
/// 4 MB (service quota); the rest is room for a hundred keys of at most 1 KB.
pub const COMMIT_BYTES_MAX: usize = 3_500_000;

/// Most store actions of one batch: items, parts of items, and one for an idempotency key. DynamoDB takes 100
/// actions in a transaction (service quota).
pub const COMMIT_ACTIONS_MAX: usize = 100;

/// Largest columns block of a segment after decompression, bytes: a hostile segment cannot ask for more.
pub const SEGMENT_COLUMNS_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Longest reason of an erasure, bytes: it stands in the tombstone for ever.
pub const ERASURE_REASON_BYTES_MAX: usize = 1024;

/// Events that one object record names at most. Each takes 74 bytes of a note, which holds a million.
pub const OBJECT_RECORD_EVENTS_MAX: usize = 10_000;

/// Erasures of a tenant that one run looks at, at most: the rest is for the next one.
pub const ERASURES_AT_ONCE: usize = 1000;

/// How long point-in-time backups of the table keep what was there, ms: 35 days (service quota of DynamoDB).
pub const TABLE_BACKUP_MS: i64 = 35 * 24 * 60 * 60 * 1000;

/// Largest signed note, bytes (c2sp.org/signed-note advises a limit).
pub const NOTE_BYTES_MAX: usize = 1_000_000;

/// Most signature lines that a note may have (c2sp.org/signed-note: at least 16).
pub const NOTE_SIGNATURES_MAX: usize = 16;

/// Longest line of an evidence bundle, bytes: an event whose payload is all escapes is six times its size.
pub const BUNDLE_LINE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Longest `Idempotency-Key`, bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 256;

/// Shards of a tenant's feed. DynamoDB writes 1,000 units a second to a partition (service quota), and a segment
/// takes one of the index: four thousand segments a second for a tenant.
pub const FEED_SHARDS: usize = 4;

/// How far before its commit an event's timestamp may lie without its segment counting as a stray, ms: 5 min, for
/// agents that send what they gathered.
pub const FEED_TIME_BEFORE_MS: i64 = 5 * 60 * 1000;

/// How far after its commit an event's timestamp may lie without its segment counting as a stray, ms: 10 s, for
/// clocks that run ahead. Whoever asks for the newest events reads what was committed in that time.
pub const FEED_TIME_AFTER_MS: i64 = 10 * 1000;

/// How long an idempotency key is remembered, ms: 24 h.
pub const IDEMPOTENCY_LIFE_MS: i64 = 24 * 60 * 60 * 1000;

/// How long a session's head may be cached by a writer, ms by the wall clock: 60 s.
pub const HEAD_CACHE_MS: i64 = 60 * 1000;

/// How long a writer may go on believing that the ledger is open, ms: 30 s.
pub const OPEN_SEEN_MS: i64 = 30 * 1000;

/// How long after a ledger was closed nothing is appended any more, and no writer holds a head of before, ms: 75 s. Who
/// looked just before it was closed may believe so for [`OPEN_SEEN_MS`] and begin an append then.
pub const CLOSING_MS: i64 = 75 * 1000;

/// Shortest hot retention, ms: one day. A cached head must never outlive the segment it names.
pub const HOT_RETENTION_MS_MIN: i64 = 24 * 60 * 60 * 1000;

/// Most sessions whose head one process keeps: about 200 bytes each.
pub const HEAD_CACHE_SESSIONS_MAX: usize = 100_000;

/// How long a token may be cached before it is read again, ms: 30 s.
pub const TOKEN_CACHE_MS: i64 = 30 * 1000;

/// How often the last use of a token is written, ms: hourly.
pub const TOKEN_LAST_USE_MS: i64 = 60 * 60 * 1000;

/// Most tokens of one tenant.
pub const TOKENS_MAX: usize = 10_000;

/// Longest name of a token, bytes.
pub const TOKEN_NAME_BYTES_MAX: usize = 128;

/// Deadline of one store write, ms: a commit id older than this is minted again.
pub const COMMIT_DEADLINE_MS: i64 = 5 * 1000;

/// How long one call to a remote store may take before its outcome counts as unknown, ms. Below
/// [`COMMIT_DEADLINE_MS`], so that there is time to read what came of it.
pub const REMOTE_CALL_MS: u64 = 2 * 1000;

/// How long a call to a remote store is tried again when it is throttled, or when a read fails, ms.
pub const REMOTE_RETRY_MS: u64 = 4 * 1000;

/// How long an append tries again after lost races before it gives up with 503, ms. API Gateway ends at 29 s.
pub const APPEND_DEADLINE_MS: i64 = 20 * 1000;

/// How long a by-id read of an id minted this recently tries again before 404, ms.
pub const BY_ID_RETRY_MS: i64 = 2 * 1000;

/// Events in a page of the native API: default and most.
pub const PAGE_EVENTS_DEFAULT: usize = 100;
/// See [`PAGE_EVENTS_DEFAULT`].
pub const PAGE_EVENTS_MAX: usize = 1000;

/// Most sessions in one page of what an export of a range is about: ids of 256 bytes at most make 2.6 MB.
pub const PLAN_SESSIONS_MAX: usize = 10_000;

/// Most bytes of payload and metadata in one page of events; a page ends early rather than pass it. A Lambda
/// answers with at most 6,291,556 bytes (service quota), and the answer is a string in JSON: what is all quotes and
/// backslashes doubles. 2.5 MiB × 2 leaves 1 MB for the other fields of 1000 events.
pub const PAGE_BYTES_MAX: usize = 5 * 1024 * 1024 / 2;

/// Most bytes of segments that one query reads before it answers with what it has and a cursor: 256 MiB.
pub const QUERY_READ_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Most bytes of payload and metadata in an answer that a dialect must give whole (a session's timeline), bytes.
pub const WHOLE_ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Longest `search` text, bytes.
pub const SEARCH_BYTES_MAX: usize = 1024;

/// How long before its time an archived segment counts as expired, ms: clocks differ, and a store that deletes by itself
/// may be that early. 60 s.
pub const EXPIRY_MARGIN_MS: i64 = 60 * 1000;

/// A batch is closed once its oldest segment is this old, ms: 15 min (DESIGN section 5).
pub const ARCHIVE_MAX_AGE_MS: i64 = 15 * 60 * 1000;

/// A batch is closed at this many bytes of events before compression: 64 MB (DESIGN section 5).
pub const ARCHIVE_MAX_BYTES: u64 = 64 * 1000 * 1000;

/// Most segments in one batch: their attributes (about 500 bytes each) are held while it is made, and its header has
/// a line for each of its sessions.
pub const ARCHIVE_SEGMENTS_MAX: usize = 20_000;

/// Rows that the writer of a batch gathers before it hands them to the encoders, at most.
pub const ARCHIVE_CHUNK_ROWS: usize = 1024;

/// Bytes of rows that the writer of a batch gathers before it hands them to the encoders, and one row more.
pub const ARCHIVE_CHUNK_BYTES: usize = 1024 * 1024;

/// Bytes of rows before encoding after which a row group ends.
pub const ARCHIVE_GROUP_BYTES: usize = 32 * 1024 * 1024;

/// Bytes after which a page of a column ends, before compression; one value more may stand in it.
pub const ARCHIVE_PAGE_BYTES: usize = 2 * 1024 * 1024;

/// Bytes after which a column's dictionary is given up for a row group.
pub const ARCHIVE_DICTIONARY_BYTES: usize = 256 * 1024;

/// Distinct values that a bloom filter of a row group is made for, at most; it shrinks to what is there.
pub const ARCHIVE_BLOOM_VALUES_MAX: u64 = 1 << 17;

/// Largest page that is read back, bytes after decompression: a hostile file cannot ask for more.
pub const ARCHIVE_PAGE_READ_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Most values of a page that is read back. Parquet's writers end a page at 20,000.
pub const ARCHIVE_PAGE_VALUES_MAX: u64 = 1 << 16;

/// Largest footer of a batch that is read back, bytes: a row group of 34 columns takes 4 KB.
pub const ARCHIVE_FOOTER_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Rows that are read back at once, at most.
pub const ARCHIVE_READ_ROWS: usize = 1024;

/// Rows that are checked together: enough to fill the lanes of the hashes, few enough to stay in a cache (about 600
/// bytes each).
pub const ARCHIVE_ROWS_TOGETHER: usize = 128;

/// Bytes of columns that the rows read back at once should take, besides the pages they begin and end in.
pub const ARCHIVE_READ_BYTES: usize = 16 * 1024 * 1024;

/// Memory for the runs of an archive's batches while they are verified, bytes: 64 MiB, about 300,000 runs. What is more
/// goes to temporary files.
pub const VERIFY_RUNS_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Temporary files that a verifier has open at once; each buffers 64 KiB.
pub const VERIFY_RUN_FILES_MAX: usize = 128;

/// Largest object of a batch that a verifier reads, bytes: 1 GiB. A batch is closed at [`ARCHIVE_MAX_BYTES`] before
/// compression, which may be set up to 1 GB.
pub const VERIFY_OBJECT_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Objects that a verifier reads at once, tiles and small notes: a bucket answers each after some 20 ms.
pub const VERIFY_READS_AT_ONCE: usize = 32;

/// Most leaves of a log: a number of leaves is kept as a signed 64-bit number by some readers (SQL, Java).
pub const TREE_SIZE_MAX: u64 = i64::MAX as u64;

/// Largest header of a batch, bytes: 64 MiB. A run takes about 180 bytes of it, so some 350,000 sessions in one batch.
pub const HEADER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Largest identity of an archive, bytes: room for sixteen rotations of the largest size.
pub const IDENTITY_BYTES_MAX: usize = 16 * NOTE_BYTES_MAX;

/// Tiles that a reader of a log keeps: 256 of 8 KiB are 2 MiB.
pub const LOG_TILES_KEPT: usize = 256;

/// Tiles that a reader of a log fetches at once.
pub const LOG_READS_AT_ONCE: usize = 16;

/// Slowest way to an archive that counts as one, bytes a millisecond: 1 MB/s, a poor uplink of an office. By it a call
/// that carries an object has more time than [`REMOTE_CALL_MS`].
pub const OBJECT_BYTES_PER_MS_MIN: u64 = 1000;

/// Largest part of an object that one request fetches, bytes: 8 MiB. A longer object is fetched in several at once, as
/// S3's performance guide advises (8 to 16 MB), and no answer is so long that its loss costs much.
pub const OBJECT_PART_BYTES: u64 = 8 * 1024 * 1024;

/// Most requests under way at once for one call of an archive: connections of one host that a small machine and a
/// Lambda function (1,024 files, service quota) can have several times over.
pub const OBJECT_REQUESTS_MAX: usize = 16;

/// Bytes of a batch's end that are read first: footer, page index and bloom filters.
pub const COLD_TAIL_BYTES: u64 = 192 * 1024;

/// Bytes of catalogue records and their bloom filters that a process keeps: some 10,000 batches. More of one tenant
/// alone are kept all the same.
pub const COLD_CATALOGUE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Bytes of opened batches (page indexes, footers) that a process keeps: some hundred batches, or a thousand small ones.
pub const COLD_FILES_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes of one batch that a question keeps from one read to the next, so as not to ask for them again: half of the largest
/// batch.
pub const COLD_KEPT_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Bytes of short columns that are read with those that find a row, before it is known which row it is.
pub const COLD_SHORT_BYTES: u64 = 4 * 1024 * 1024;

/// Bytes between two parts of a batch that are read rather than asked around.
pub const COLD_GAP_BYTES: u64 = 1024 * 1024;

/// Longest page index of a batch that is read, bytes: a page takes about 100.
pub const COLD_INDEX_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Longest bloom filter of a row group that is read, bytes: [`ARCHIVE_BLOOM_VALUES_MAX`] values at a byte each would
/// take 128 KiB.
pub const COLD_BLOOM_BYTES_MAX: u64 = 1024 * 1024;

/// Pages of payloads and metadata that are read together at most: with one value more in each, 24 MiB.
pub const COLD_STEP_PAGES: usize = 8;

/// Most bytes that the pages of a row group that are read together may unpack to. All pages of ours take less: a row
/// group ends at [`ARCHIVE_GROUP_BYTES`], for which short texts count half at worst.
pub const COLD_UNPACKED_BYTES_MAX: u64 = 4 * ARCHIVE_GROUP_BYTES as u64;

const _: () = {
    assert!(ARCHIVE_PAGE_BYTES + PAYLOAD_BYTES_MAX < ARCHIVE_PAGE_READ_BYTES_MAX);
    assert!(ARCHIVE_DICTIONARY_BYTES + METADATA_BYTES_MAX < ARCHIVE_PAGE_READ_BYTES_MAX);
    assert!(HEAD_CACHE_MS + EXPIRY_MARGIN_MS < HOT_RETENTION_MS_MIN);
    assert!(
        OPEN_SEEN_MS + APPEND_DEADLINE_MS + COMMIT_DEADLINE_MS < CLOSING_MS && HEAD_CACHE_MS < CLOSING_MS
    );
    assert!(HEAD_CACHE_MS < HOT_RETENTION_MS_MIN, "a cached head must not outlive what it names");
    assert!(BODY_BYTES_MAX <= BODY_UNPACKED_BYTES_MAX);
    assert!(PAYLOAD_BYTES_MAX + METADATA_BYTES_MAX < BODY_BYTES_MAX);
    assert!(BODY_UNPACKED_BYTES_MAX < SEGMENT_COLUMNS_BYTES_MAX);
    assert!(COMMIT_BYTES_MAX < 4 * 1000 * 1000);
    assert!(COMMIT_BYTES_MAX.div_ceil(ITEM_BODY_BYTES_MAX) < COMMIT_ACTIONS_MAX);
    assert!(BATCH_EVENTS_MAX < 1 << crate::ids::EVENT_NUMBER_BITS);
    assert!((PAYLOAD_BYTES_MAX + METADATA_BYTES_MAX) * 6 < BUNDLE_LINE_BYTES_MAX);
    assert!(COMMIT_DEADLINE_MS < APPEND_DEADLINE_MS);
    assert!((REMOTE_CALL_MS as i64) < COMMIT_DEADLINE_MS);
    assert!((REMOTE_RETRY_MS as i64) < COMMIT_DEADLINE_MS);
};
