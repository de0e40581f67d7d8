//! Other layouts, with the same events and the same index, in items of the same sizes: what they would consume.
//!
//! The stand-in is called directly; only sizes matter, so nothing here is a store.

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use quipu_core::segment::unpacked_bytes;
use quipu_core::store::keys::dynamo as keys;
use serde_json::{Map, Value, json};

use super::dynamo::{Dynamo, Units};
use super::ours::{EXPIRES_AT, Measured, RUN_EVENTS, SEED, Written};
use crate::sample::{Mode, SampleConfig, generate};

/// Write units of a batch in the parts from which layouts are made.
pub(super) struct Parts {
    /// The commit item, without a body: put, and later given its expiry and taken out of what is open.
    pub(super) commit_put: f64,
    pub(super) commit_update: f64,
    /// The body in an item of its own: put, and later given its expiry.
    pub(super) body_put: f64,
    pub(super) body_update: f64,
    /// Both in one transaction.
    pub(super) both_put: f64,
    /// One item as today, never updated: with an attribute that names the week of its expiry.
    pub(super) single_put: f64,
    /// One item as today, of a leaner encoding: put and updated ([`Lean`]).
    pub(super) lean: f64,
}

/// Bytes of a batch's item, on average.
pub(super) struct Lean {
    /// The body as it is.
    pub(super) body: f64,
    /// Salts and hashes, which do not compress.
    pub(super) salts: f64,
    pub(super) hashes: f64,
    /// The frame at zstd level 3 (as it is), 9 and 19.
    pub(super) frames: [f64; 3],
    /// The attributes: in the table and in the index.
    pub(super) attributes: f64,
    /// A body with a seed for its salts, 4 bytes of each hash, and level 9.
    pub(super) lean_body: f64,
}

/// The levels of [`Lean::frames`].
pub(super) const LEVELS: [i32; 3] = [3, 9, 19];

fn key(pk: &str, sk: &str) -> Map<String, Value> {
    let Value::Object(key) = json!({"pk": {"S": pk}, "sk": {"S": sk}}) else { return Map::new() };
    key
}

fn binary(bytes: &[u8]) -> Value {
    json!({"B": BASE64.encode(bytes)})
}

/// The attributes that the indexes project or are keyed by.
fn small(written: &Written, pk: &str) -> Map<String, Value> {
    let Written { session, meta, .. } = written;
    let tenant = quipu_core::ids::TenantId::default_tenant();
    let mut item = key(pk, &keys::segment(meta.first));
    item.insert("m".into(), binary(&meta.encode()));
    item.insert("f".into(), json!({"S": keys::feed_shard(&tenant, keys::shard(session, meta))}));
    item.insert("c".into(), binary(&keys::feed(meta.commit_id, session)));
    item.insert("o".into(), json!({"S": keys::open(&tenant, keys::open_shard(session))}));
    item.insert("z".into(), json!({"N": unpacked_bytes(&written.body).to_string()}));
    item
}

fn put(table: &str, item: &Map<String, Value>) -> Value {
    json!({"TableName": table, "Item": item, "ConditionExpression": "attribute_not_exists(pk)"})
}

/// The archiver's update: its expiry, and out of an index if it is in one by these attributes.
fn update(table: &str, item: &Map<String, Value>, index: Option<&str>) -> Value {
    let key: Map<_, _> = ["pk", "sk"].into_iter().map(|name| (name.to_owned(), item[name].clone())).collect();
    let (expression, values) = match index {
        Some(index) => {
            let values = json!({":ttl": {"N": EXPIRES_AT.to_string()}, ":a": {"N": "35000"}});
            (format!("SET a = :a, #ttl = :ttl REMOVE {index}"), values)
        }
        None => ("SET #ttl = :ttl".into(), json!({":ttl": {"N": EXPIRES_AT.to_string()}})),
    };
    json!({
        "TableName": table, "Key": key, "UpdateExpression": expression, "ExpressionAttributeValues": values,
        "ExpressionAttributeNames": {"#ttl": "ttl"},
    })
}

/// What keeps an item in the index `open`, and in `feed`.
const OPEN: Option<&str> = Some("o, z");
const FEED: Option<&str> = Some("f, c");

fn session_key(written: &Written) -> String {
    keys::session(&quipu_core::ids::TenantId::default_tenant(), &written.session)
}

/// Measures [`Parts`] with the segments that the ledger wrote.
pub(super) fn parts(dynamo: &Dynamo, measured: &Measured) -> anyhow::Result<Parts> {
    let table = &format!("parts-{}", measured.batch);
    dynamo.table(table)?;
    let mut sums = [0.0; 7];
    let mut compressor = Compressor::new(LEVELS[1])?;
    let mut run = |slot: usize, operation: &str, input: Value| -> anyhow::Result<()> {
        dynamo.call(operation, input)?;
        sums[slot] += dynamo.consumed().write();
        Ok(())
    };
    for written in &measured.segments {
        let meta = &written.meta;
        let own = session_key(written);
        // Partitions of different names, so that every layout has its own items; of one length, so that sizes agree.
        let name = |digit: char| format!("{}{digit}", &own[..own.len() - 1]);
        let body_of = |pk: &str| {
            let mut item = key(pk, &keys::part(meta.first, meta.commit_id, 0));
            item.insert("b".into(), binary(&written.body));
            item
        };
        let single_of = |pk: &str, body: &[u8]| {
            let mut item = small(written, pk);
            item.insert("b".into(), binary(body));
            item
        };
        let (commit, body) = (small(written, &name('A')), body_of(&name('A')));
        run(0, "PutItem", put(table, &commit))?;
        run(1, "UpdateItem", update(table, &commit, OPEN))?;
        run(2, "PutItem", put(table, &body))?;
        run(3, "UpdateItem", update(table, &body, None))?;

        let both =
            [small(written, &name('B')), body_of(&name('B'))].map(|item| json!({"Put": put(table, &item)}));
        run(4, "TransactWriteItems", json!({"TransactItems": both}))?;

        let mut single = single_of(&name('C'), &written.body);
        single.insert("x2952".into(), json!({"N": EXPIRES_AT.to_string()}));
        run(5, "PutItem", put(table, &single))?;

        let lean =
            single_of(&name('D'), &vec![0; lean_bytes(written, frame_bytes(written, &mut compressor)?)?]);
        run(6, "PutItem", put(table, &lean))?;
        run(6, "UpdateItem", update(table, &lean, OPEN))?;
    }
    let [commit_put, commit_update, body_put, body_update, both_put, single_put, lean] =
        sums.map(|sum| sum / measured.segments.len() as f64);
    Ok(Parts { commit_put, commit_update, body_put, body_update, both_put, single_put, lean })
}

/// The frame of a body, which is its rest (docs/format.md, section 6), and the bytes before it.
fn frame(written: &Written) -> anyhow::Result<(usize, &[u8])> {
    let incompressible = 48 * written.meta.summary.events as usize;
    // RFC 8878: a frame begins with 0xFD2FB528, little-endian. What stands before salts and hashes is at most 73
    // bytes, and the length of the columns at most 5.
    let magic = [0x28, 0xb5, 0x2f, 0xfd];
    let from = written.body.get(incompressible + 50..).context("a body of salts and hashes")?;
    let at = from.windows(4).take(40).position(|window| window == magic).context("a zstd frame")?;
    Ok((incompressible + 50 + at, &from[at..]))
}

/// A level's context takes long to make.
type Compressor = zstd::bulk::Compressor<'static>;

fn frame_bytes(written: &Written, compressor: &mut Compressor) -> anyhow::Result<usize> {
    let columns = zstd::decode_all(frame(written)?.1)?;
    Ok(compressor.compress(&columns)?.len())
}

/// Salts of a segment drawn from one secret of 32 bytes, 4 bytes of each hash kept to find the first bad event.
fn lean_bytes(written: &Written, frame_bytes: usize) -> anyhow::Result<usize> {
    let (before, _) = frame(written)?;
    let events = written.meta.summary.events as usize;
    Ok(before - 16 * events + 32 - 28 * events + frame_bytes)
}

/// Where the bytes of an item go.
pub(super) fn bytes(measured: &Measured) -> anyhow::Result<Lean> {
    let [as_is, more, most] = LEVELS.map(Compressor::new);
    let mut compressors = [as_is?, more?, most?];
    let count = measured.segments.len() as f64;
    let events = measured.events as f64 / count;
    let mut lean = Lean {
        body: 0.0,
        salts: 16.0 * events,
        hashes: 32.0 * events,
        frames: [0.0; 3],
        attributes: 0.0,
        lean_body: 0.0,
    };
    for written in &measured.segments {
        lean.body += written.body.len() as f64 / count;
        lean.attributes += written.meta.encode().len() as f64 / count;
        let mut sizes = [0; 3];
        for (size, compressor) in sizes.iter_mut().zip(&mut compressors) {
            *size = frame_bytes(written, compressor)?;
        }
        lean.lean_body += lean_bytes(written, sizes[1])? as f64 / count;
        lean.frames.iter_mut().zip(sizes).for_each(|(sum, size)| *sum += size as f64 / count);
    }
    Ok(lean)
}

/// Most actions of a transaction (service quota).
const ACTIONS_MAX: usize = 100;

/// Write units of a batch in the naive design, and what they are of.
pub(super) struct Naive {
    pub(super) append: f64,
    pub(super) archive: f64,
    pub(super) pointer: f64,
    pub(super) events: usize,
}

impl Naive {
    pub(super) fn write(&self) -> f64 {
        self.append + self.archive + self.pointer
    }
}

/// One item for each event, as sent, and the session's head beside it, in transactions of at most 100 actions; the
/// archiver sets each event's expiry and takes it out of the one index that it is in.
pub(super) fn naive(dynamo: &Dynamo, batch: usize, events: usize) -> anyhow::Result<Naive> {
    let table = &format!("naive-{batch}");
    dynamo.table(table)?;
    let config = SampleConfig { seed: SEED, events, mode: Mode::Bench, start_us: 1_767_600_000_000_000 };
    let sample: Vec<_> = generate(&config).collect();
    let (mut append, mut archive) = (Units::default(), Units::default());
    for (number, chunk) in sample.chunks(batch).enumerate() {
        let mut items = Vec::with_capacity(chunk.len());
        for (index, event) in chunk.iter().enumerate() {
            let sequence = number * batch + index;
            let pk = format!("S#default#{}", event.session_id);
            let mut item = key(&pk, &format!("E#{sequence:020}"));
            // Event id, salt, hash and the hash before it: as much as the chain needs.
            item.insert("m".into(), binary(&[0x5a; 16 + 16 + 32 + 32]));
            item.insert("b".into(), json!({"S": event.json}));
            item.insert("f".into(), json!({"S": "F#default#0"}));
            let mut place = format!("{sequence:016}").into_bytes();
            place.extend_from_slice(event.session_id.as_bytes());
            item.insert("c".into(), binary(&place));
            items.push(item);
        }
        for (index, part) in items.chunks(ACTIONS_MAX - 1).enumerate() {
            let head = json!({"Update": {
                "TableName": table, "Key": {"pk": part[0]["pk"], "sk": {"S": "H"}},
                "UpdateExpression": "SET q = :q, h = :h",
                "ConditionExpression": "attribute_not_exists(pk) OR q < :q",
                "ExpressionAttributeValues": {
                    ":q": {"N": (number * batch + index * (ACTIONS_MAX - 1) + part.len()).to_string()},
                    ":h": binary(&[0x5a; 32]),
                },
            }});
            let puts = part.iter().map(|item| json!({"Put": put(table, item)}));
            let actions: Vec<Value> = std::iter::once(head).chain(puts).collect();
            dynamo.call("TransactWriteItems", json!({"TransactItems": actions}))?;
        }
        append += dynamo.consumed();
        for item in &items {
            dynamo.call("UpdateItem", update(table, item, FEED))?;
        }
        archive += dynamo.consumed();
    }
    let count = sample.len().div_ceil(batch);
    // Its pointer would be ours: a small item for each run of each session.
    let pointer = 1.0 / (RUN_EVENTS / batch).max(1) as f64;
    Ok(Naive { append: append.by(count).write(), archive: archive.by(count).write(), pointer, events })
}
