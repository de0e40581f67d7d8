//! `docs/cost.md`, and the one figure that is read back from it.

use std::fmt::Write as _;

use super::layouts::{LEVELS, Lean, Naive, Parts};
use super::ours::{Extras, Measured, RUN_EVENTS, SEED};
use super::prices::{self, of_objects, of_reads, of_writes};
use super::reads::Reads;

/// US dollars for a million events in batches of 100, at most.
const DOLLARS_AIM: f64 = 0.25;

/// How many times the naive design must cost.
const NAIVE_AIM: f64 = 5.0;

/// Everything that was measured for one size of batch.
pub(super) struct Row {
    pub(super) ours: Measured,
    pub(super) extras: Extras,
    pub(super) parts: Parts,
    pub(super) bytes: Lean,
    pub(super) naive: Naive,
}

/// What stands around the figure that the check reads.
const GUARD: (&str, &str) = ("fails if a batch of 100 costs more than ", " write units");

/// The figure of the check, from a page.
pub(super) fn recorded(page: &str) -> Option<f64> {
    page.split_once(GUARD.0)?.1.split_once(GUARD.1)?.0.parse().ok()
}

/// The page.
pub(super) fn write(rows: &[Row], reads: &[Reads], guard: f64, guard_events: usize) -> String {
    let mut out = String::from(INTRODUCTION);
    prices(&mut out);
    ours(&mut out, rows);
    aims(&mut out, rows);
    layouts(&mut out, rows);
    bytes(&mut out, rows);
    ingestion_reads(&mut out, rows);
    feed_reads(&mut out, reads);
    let (before, after) = GUARD;
    let _ = writeln!(
        out,
        "\n## The check\n\n`cargo xtask cost --check`, part of the tests, {before}{guard:.2}{after} from append to \
         expiry ({guard_events} events of seed {SEED})."
    );
    out
}

const INTRODUCTION: &str = "# Cost

The last run of `cargo xtask cost --write`. Counted, not estimated: the ledger's own code writes to a stand-in that \
reports consumed capacity as DynamoDB does (dynoxide), and every request is asked for it. Sizes follow from the \
sample's seed, so the figures are the same on every machine.

In them: the append, the archiver's update of each segment (its expiry; out of what is open), and the session's \
pointer with its place in the list of sessions. Deletion by expiry is free. Not in them: storage ($0.25 for a GB and month), Lambda, API Gateway, KMS, \
point-in-time recovery, and what the archive itself costs on S3.
";

fn prices(out: &mut String) {
    let _ = write!(
        out,
        "\n## Prices\n\nus-east-1, on demand, November 2026.\n\n| | $ | source |\n|---|---|---|\n\
         | a million write units | {} | <https://aws.amazon.com/dynamodb/pricing/on-demand/> |\n\
         | a million read units | {} | the same |\n\
         | a thousand PUTs of S3 | {} | <https://aws.amazon.com/s3/pricing/> |\n\
         | a thousand GETs of S3 | {} | the same |\n",
        prices::WRITE_UNITS_MILLION,
        prices::READ_UNITS_MILLION,
        prices::S3_PUTS_THOUSAND,
        prices::S3_GETS_THOUSAND,
    );
}

fn ours(out: &mut String, rows: &[Row]) {
    let sent: usize = rows.iter().map(|row| row.ours.sent_bytes).sum();
    let events: usize = rows.iter().map(|row| row.ours.events).sum();
    let _ = write!(
        out,
        "\n## What a batch costs\n\nOne session a batch, warm head, no `Idempotency-Key`. Events of {} bytes of JSON \
         (the bench mode of `cargo xtask sample`, seed {SEED}). A session adds {RUN_EVENTS} events between two runs \
         of the archiver (one every nine seconds, 15 minutes), which moves its pointer once for all of them.\n\n\
         | events in a batch | measured | bytes an event, stored | append: table + indexes | archive: table + index \
         | pointer | write units | $ a million events | archiver's reads: units | $ |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
        sent / events,
    );
    for Row { ours, bytes, .. } in rows {
        let batch = ours.batch;
        let stored = bytes.body + bytes.attributes;
        let _ = writeln!(
            out,
            "| {batch} | {} | {:.0} | {:.2} + {:.2} | {:.2} + {:.2} | {:.2} | {:.2} | {:.4} | {:.2} | {:.4} |",
            ours.events,
            stored / batch as f64,
            ours.append.table_write,
            ours.append.index_write,
            ours.archive.table_write,
            ours.archive.index_write,
            ours.pointer.write(),
            ours.write(),
            of_writes(ours.write(), batch),
            ours.archive_reads.read,
            of_reads(ours.archive_reads.read, batch),
        );
    }
}

fn aims(out: &mut String, rows: &[Row]) {
    let met = |yes: bool| if yes { "met" } else { "**missed**" };
    let _ = write!(out, "\n## Aims\n\n| aim | measured | |\n|---|---|---|\n");
    for Row { ours, naive, .. } in rows.iter().filter(|row| row.ours.batch == 100) {
        let dollars = of_writes(ours.write(), 100) + of_reads(ours.archive_reads.read, 100);
        let _ = writeln!(
            out,
            "| at most ${DOLLARS_AIM} a million events at batches of 100, the archiver's reads included | \
             ${dollars:.4} | {} |",
            met(dollars <= DOLLARS_AIM)
        );
        let times = naive.write() / ours.write();
        let _ = writeln!(
            out,
            "| at least {NAIVE_AIM} times below the naive design, at batches of 100 | {times:.1} times | {} |",
            met(times >= NAIVE_AIM)
        );
    }
}

/// A layout: its name, and its dollars for a million events.
type Layout = (&'static str, fn(&Row) -> f64);

const LAYOUTS: [Layout; 9] = [
    ("naive: an item for each event and the head, in transactions", |r| writes(r, r.naive.write())),
    ("**as it is**: one item", |r| writes(r, r.ours.write())),
    ("one item, leaner encoding", |r| writes(r, r.parts.lean + pointer(r))),
    ("split, in a transaction; both updated", |r| {
        writes(r, r.parts.both_put + r.parts.commit_update + r.parts.body_update + pointer(r))
    }),
    ("split, in a transaction; the body's expiry written with it", |r| {
        writes(r, r.parts.both_put + r.parts.commit_update + pointer(r))
    }),
    ("split, body first; both updated", |r| {
        writes(r, split_puts(r) + r.parts.commit_update + r.parts.body_update + pointer(r))
    }),
    ("split, body first; the body's expiry written with it", |r| {
        writes(r, split_puts(r) + r.parts.commit_update + pointer(r))
    }),
    ("one item, never updated", |r| writes(r, r.parts.single_put + pointer(r))),
    ("split, body first, on S3; the commit item updated", |r| {
        writes(r, r.parts.commit_put + r.parts.commit_update + pointer(r)) + of_objects(r.ours.batch)
    }),
];

fn writes(row: &Row, units: f64) -> f64 {
    of_writes(units, row.ours.batch)
}

fn pointer(row: &Row) -> f64 {
    row.ours.pointer.write()
}

fn split_puts(row: &Row) -> f64 {
    row.parts.commit_put + row.parts.body_put
}

fn layouts(out: &mut String, rows: &[Row]) {
    out.push_str(
        "\n## Other layouts\n\nThe same events, indexes and pointer; writes only, $ a million events. What each would \
         mean stands in [ADR 6](adr/0006-one-item-for-each-segment.md).\n\n| layout |",
    );
    for row in rows {
        let _ = write!(out, " batches of {} |", row.ours.batch);
    }
    out.push_str("\n|---|");
    out.push_str(&"---|".repeat(rows.len()));
    out.push('\n');
    for (name, dollars) in LAYOUTS {
        let _ = write!(out, "| {name} |");
        for row in rows {
            let _ = write!(out, " {:.4} |", dollars(row));
        }
        out.push('\n');
    }
    for Row { ours, naive, .. } in rows.iter().take(1) {
        let _ = writeln!(
            out,
            "\nThe naive design: events as JSON, one index that an event leaves when it is archived, at most 100 actions a transaction (a batch of 100 and the head are \
             two), {} events measured for each size; {:.2} write units for a batch of {}.",
            naive.events,
            naive.write(),
            ours.batch
        );
    }
}

fn bytes(out: &mut String, rows: &[Row]) {
    let _ = write!(
        out,
        "\n## Where the bytes of an item go\n\nBytes a batch. *Leaner*: salts from one secret of the segment, 4 bytes \
         of each hash, zstd level {}.\n\n| events in a batch | body | salts | hashes | columns at zstd {} | at {} \
         | at {} | attributes (index too) | leaner body |\n|---|---|---|---|---|---|---|---|---|\n",
        LEVELS[1], LEVELS[0], LEVELS[1], LEVELS[2],
    );
    for Row { ours, bytes, .. } in rows {
        let [as_is, more, most] = bytes.frames;
        let _ = writeln!(
            out,
            "| {} | {:.0} | {:.0} | {:.0} | {as_is:.0} | {more:.0} | {most:.0} | {:.0} | {:.0} |",
            ours.batch, bytes.body, bytes.salts, bytes.hashes, bytes.attributes, bytes.lean_body,
        );
    }
}

fn ingestion_reads(out: &mut String, rows: &[Row]) {
    out.push_str(
        "\n## What ingestion reads, and what costs more\n\nA warm append reads nothing. A session that a process has \
         not written for 60 s costs a read of its head, which is by the size of the last segment; a token is read \
         at most every 30 s. Write units of the append alone with an `Idempotency-Key`, and spread over ten sessions \
         (one event each at batches of 10): both are transactions, at twice the price.\n\n\
         | events in a batch | head, read units | token, read units | append | with a key | over ten sessions |\n\
         |---|---|---|---|---|---|\n",
    );
    for Row { ours, extras, .. } in rows {
        let _ = writeln!(
            out,
            "| {} | {:.1} | {:.1} | {:.2} | {:.0} | {:.0} |",
            ours.batch,
            extras.head,
            extras.token,
            ours.append.write(),
            extras.keyed.write(),
            extras.spread.write(),
        );
    }
}

fn feed_reads(out: &mut String, reads: &[Reads]) {
    let Some(first) = reads.first() else { return };
    let _ = write!(
        out,
        "\n## What reading from the feed costs\n\nRead units, with so many segments in it, none archived yet (10 events \
         each, attributes of {} bytes, 20 sessions at a time of 10 segments each): \
         [ADR 7](adr/0007-derived-reads-from-the-feed.md).\n\n| |",
        first.attributes
    );
    for each in reads {
        let _ = write!(out, " {} segments | $ a thousand times |", each.segments);
    }
    out.push_str("\n|---|");
    out.push_str(&"---|---|".repeat(reads.len()));
    out.push('\n');
    for (index, (name, _)) in first.rows.iter().enumerate() {
        let _ = write!(out, "| {name} |");
        for units in reads.iter().filter_map(|each| each.rows.get(index)).map(|row| row.1) {
            let _ = write!(out, " {units:.1} | {:.4} |", units * 1e3 * prices::READ_UNITS_MILLION / 1e6);
        }
        out.push('\n');
    }
}
