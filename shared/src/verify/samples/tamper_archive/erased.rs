//! Content that is gone: with its tombstone and its record it was erased, without them deleted.

use std::ops::ControlFlow;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::super::archived::{Archive, Batch, History, Objects};
use super::super::parquet::{Change, changed};
use super::super::{DEPLOYMENT, Signers};
use super::{Cases, acme, nothing, tenant};
use crate::archive::{BatchReader, BatchWriter, Row};
use crate::chain::content_digest;
use crate::erasure::Tombstone;
use crate::event::{Content, EventRef};
use crate::ids::{CommitId, EventHash, EventId, Seq, SessionId, TenantId};
use crate::log::header::hash_of;
use crate::log::paths;
use crate::log::record::ObjectRecord;
use crate::note::NoteSigner;
use crate::verify::Code;

/// The rows of batch 1 that are erased: of `run 1`, sequences 1 and 3.
const ROWS: [usize; 2] = [1, 3];

/// What somebody changes, in words.
type Named<'e, T> = (&'e str, &'e dyn Fn(&mut T));

fn event_of<'r>(row: &Row<'r>, before: Option<EventHash>) -> EventRef<'r> {
    row.event(before.filter(|_| row.prev_hash.is_none())).expect("a row of the sample")
}

/// What the tombstones of some rows say.
fn tombstones(object: &Bytes, rows: &[usize]) -> Vec<Tombstone> {
    let (mut found, mut before, mut at) = (Vec::new(), None, 0);
    let each = |row: &Row<'_>| {
        let event = event_of(row, before);
        before = Some(event.hash);
        if rows.contains(&at)
            && let Content::Kept { salt, payload, metadata } = event.content
        {
            found.push(Tombstone {
                event_id: event.event_id,
                session_id: SessionId::parse(row.session_id).expect("a session"),
                sequence: event.sequence,
                hash: event.hash,
                content_digest: content_digest(&salt, payload, metadata),
                token_id: None,
                reason: Some("asked for".to_owned()),
            });
        }
        at += 1;
        ControlFlow::<()>::Continue(())
    };
    BatchReader::open(object.clone()).expect("a file").rows(each).expect("rows");
    found
}

/// The object without the contents of some rows.
fn without(tenant: &TenantId, object: &Bytes, rows: &[usize]) -> Bytes {
    let mut writer = BatchWriter::new(tenant);
    let (mut before, mut at) = (None, 0);
    let each = |row: &Row<'_>| {
        let mut event = event_of(row, before);
        before = Some(event.hash);
        if rows.contains(&at)
            && let Content::Kept { salt, payload, metadata } = event.content
        {
            event.content = Content::Erased { digest: content_digest(&salt, payload, metadata) };
        }
        at += 1;
        let session = SessionId::parse(row.session_id).expect("a session");
        let written = writer.push(&session, event.event_id.commit(), &event, row.prev_hash.is_some());
        written.expect("a row is written");
        ControlFlow::<()>::Continue(())
    };
    BatchReader::open(object.clone()).expect("a file").rows(each).expect("rows");
    writer.finish().expect("a file is written")
}

/// The sample with a fourth batch of tombstones.
struct Buried {
    batches: Vec<Batch>,
    said: Vec<Tombstone>,
    /// The events of these tombstones.
    ids: Vec<EventId>,
}

impl Buried {
    fn new(edit: impl Fn(&mut Tombstone)) -> Self {
        let mut history = History::new("acme", 1);
        let (mut batches, _) = acme(1);
        // Time goes on as it did for the batches that are there.
        for _ in 0..3 {
            history.batch(&[("elsewhere", 1)]);
        }
        let said = tombstones(&batches[0].object, &ROWS);
        let mut edited = said.clone();
        edited.iter_mut().for_each(edit);
        let tombs = history.bury(&edited);
        let mut ids = Vec::new();
        let mut before = None;
        BatchReader::open(tombs.object.clone())
            .expect("a file")
            .rows(|row| {
                let event = event_of(row, before);
                before = Some(event.hash);
                ids.push(event.event_id);
                ControlFlow::<()>::Continue(())
            })
            .expect("rows");
        batches.push(tombs);
        Self { batches, said, ids }
    }

    /// What a record says of the first `count` of the events.
    fn pairs(&self, count: usize) -> Vec<(EventId, EventId)> {
        // Sessions of tombstones stand in the order of the events that they are named after.
        let mut pairs: Vec<_> =
            self.said.iter().map(|said| said.event_id).zip(self.ids.iter().copied()).collect();
        pairs.sort_unstable();
        pairs.truncate(count);
        pairs
    }
}

fn record(
    batch: u64,
    revision: u64,
    prev: [u8; 32],
    object: &Bytes,
    erased: Vec<(EventId, EventId)>,
) -> ObjectRecord {
    ObjectRecord {
        deployment: DEPLOYMENT.to_owned(),
        tenant: tenant("acme"),
        batch,
        revision,
        prev,
        bytes: object.len() as u64,
        sha256: Sha256::digest(object).into(),
        erased,
    }
}

fn put(objects: &mut Objects, at: (u64, u64), record: &ObjectRecord, key: &NoteSigner) {
    objects.insert(paths::object_record(&tenant("acme"), at.0, at.1), key.sign(&record.text()).into());
}

impl Cases {
    /// Erased by the rules, and in every way against them.
    pub(super) fn erasures(&mut self) {
        let buried = Buried::new(|_| {});
        let object = self.object(1);
        let whole = self.laid(&buried.batches, &nothing);
        let header = hash_of(&whole[&paths::header(&tenant("acme"), 1)]);
        let [one, both] = [1, 2].map(|count| without(&tenant("acme"), &whole[&object], &ROWS[..count]));
        let first = record(1, 1, header, &one, buried.pairs(1));
        let second = record(1, 2, first.hash(), &both, buried.pairs(2)[1..].to_vec());
        let key = Signers::new(1).log;
        let with = |records: &[&ObjectRecord], there: &Bytes| {
            let mut objects = whole.clone();
            for record in records {
                put(&mut objects, (record.batch, record.revision), record, &key);
            }
            objects.insert(object.clone(), there.clone());
            objects
        };
        let good = with(&[&first, &second], &both);
        self.add("erased twice", good.clone(), None);
        self.add("erased once", with(&[&first], &one), None);
        self.add("a rewrite not begun", with(&[&first], &whole[&object]), None);
        self.add("a second rewrite not begun", with(&[&first, &second], &one), None);
        self.add("a rewrite undone", with(&[&first, &second], &whole[&object]), None);
        let nobody = with(&[&first, &second], &both);
        self.add("erased, no key given", nobody, Some(Code::NoKey)).key = None;

        self.add("erased without a record", with(&[], &one), Some(Code::Object));
        self.add("erased further than recorded", with(&[&first], &both), Some(Code::Object));
        let mut gap = good.clone();
        gap.remove(&paths::object_record(&tenant("acme"), 1, 1));
        self.add("the first record gone", gap, Some(Code::Object));
        let mut gone = good.clone();
        gone.remove(&object);
        self.add("erased, and the object gone", gone, Some(Code::Object));
        for (name, batch, revision) in [("a batch that is not there", 9, 1), ("another batch", 2, 1)] {
            let mut objects = whole.clone();
            put(&mut objects, (batch, revision), &first, &key);
            self.add(format!("a record of {name}"), objects, Some(Code::Object));
        }
        let other = Signers::new(9).log;
        let mut objects = with(&[], &one);
        put(&mut objects, (1, 1), &first, &other);
        self.add("a record by another key", objects, Some(Code::Object));
        let edits: [Named<'_, ObjectRecord>; 7] = [
            ("deployment", &|r| r.deployment = "other.example".into()),
            ("tenant", &|r| r.tenant = tenant("beta")),
            ("batch", &|r| r.batch = 2),
            ("number", &|r| r.revision = 2),
            ("record before", &|r| r.prev = [7; 32]),
            ("length", &|r| r.bytes += 1),
            ("hash", &|r| r.sha256 = [7; 32]),
        ];
        for (name, edit) in edits {
            let mut edited = first.clone();
            edit(&mut edited);
            let mut objects = with(&[], &one);
            put(&mut objects, (1, 1), &edited, &key);
            self.add(format!("a record with another {name}"), objects, Some(Code::Object));
        }
        let text =
            String::from_utf8(good[&paths::object_record(&tenant("acme"), 1, 1)].to_vec()).expect("text");
        for (name, note) in [
            ("that is nothing", String::new()),
            ("that is cut", text[..text.len() / 2].to_owned()),
            (
                "whose length has a zero in front",
                key.sign(&first.text().replacen("\n1\n1\n", "\n1\n01\n", 1)),
            ),
            ("without events but with a space", key.sign(&format!("{} \n", first.text().trim_end()))),
        ] {
            let mut objects = with(&[], &one);
            objects.insert(paths::object_record(&tenant("acme"), 1, 1), note.into());
            self.add(format!("a record {name}"), objects, Some(Code::Object));
        }
        let mut passed = good.clone();
        for name in ["object/00000000000000000001-1", "object/1-000001", "object/00000000000000000001-000000"]
        {
            passed.insert(format!("log/acme/{name}"), "x".into());
        }
        self.add("names that are no records", passed, None);

        // What a record says of events.
        let nameless = record(1, 1, header, &one, Vec::new());
        self.add("a record that names nobody", with(&[&nameless], &one), None);
        let more = record(1, 1, header, &one, buried.pairs(2));
        self.add("a record of an event that is there", with(&[&more], &one), Some(Code::Erased));
        let mut pairs = buried.pairs(1);
        pairs[0].1 = buried.ids[1];
        let crossed = record(1, 1, header, &one, pairs);
        self.add("a record of another tombstone", with(&[&crossed], &one), Some(Code::Erased));
        let foreign = vec![(CommitId::mint(7, [7; 10]).event(1), buried.ids[0])];
        let foreign = record(1, 1, header, &one, foreign);
        self.add("a record of an event of no batch", with(&[&foreign], &one), Some(Code::Erased));

        // Rows of which something is left.
        for (name, change, code) in [
            ("a tool's name", Change::Text("tool_name", ROWS[0], Some("grep")), Code::Derived),
            ("a payload", Change::Text("payload", ROWS[0], Some("{}")), Code::Syntax),
            ("a salt", Change::Bytes("salt", ROWS[0], Some(vec![1; 16])), Code::Syntax),
            ("another digest", Change::Bytes("content_digest", ROWS[0], Some(vec![1; 32])), Code::Hash),
            ("no digest", Change::Bytes("content_digest", ROWS[0], None), Code::Syntax),
        ] {
            let left = changed(&one, &[change]);
            let said = record(1, 1, header, &left, buried.pairs(1));
            self.add(format!("erased but for {name}"), with(&[&said], &left), Some(code));
        }
        self.tombs();
    }

    /// The tombstones themselves.
    fn tombs(&mut self) {
        let tomb = |batches: &[Batch], this: &Self| {
            let mut objects = this.laid(batches, &nothing);
            let header = hash_of(&objects[&paths::header(&tenant("acme"), 1)]);
            let one = without(&tenant("acme"), &objects[&this.object(1)], &ROWS[..1]);
            let said = record(1, 1, header, &one, Vec::new());
            put(&mut objects, (1, 1), &said, &this.signers.log);
            objects.insert(this.object(1), one);
            objects
        };
        let none = tomb(&self.acme, self);
        self.add("erased without a tombstone", none, Some(Code::Erased));
        let edits: [Named<'_, Tombstone>; 5] = [
            ("session", &|t| t.session_id = SessionId::parse("run 2").expect("a session")),
            ("sequence", &|t| t.sequence = Seq::new(7).expect("small")),
            ("hash", &|t| t.hash = EventHash([7; 32])),
            ("digest", &|t| t.content_digest = [7; 32]),
            ("event", &|t| t.event_id = CommitId::mint(8, [7; 10]).event(1 + t.sequence.get() as u16)),
        ];
        for (name, edit) in edits {
            let objects = tomb(&Buried::new(edit).batches, self);
            self.add(format!("a tombstone with another {name}"), objects, Some(Code::Erased));
        }
        // In the log of another tenant it is nobody's.
        let mut objects = tomb(&self.acme, self);
        let mut beta = History::new("beta", 1);
        let said = tombstones(&self.acme[0].object, &ROWS);
        let tombs = vec![
            beta.batch(&[("run 1", 5), ("lauf ü 🪢", 4)]),
            beta.batch(&[("run 1", 1)]),
            beta.bury(&said),
        ];
        let mut archive = Archive::new(&self.signers, None);
        archive.lay(&tenant("beta"), &tombs, &nothing);
        objects.extend(archive.objects);
        self.add("a tombstone in another tenant's log", objects, Some(Code::Erased));

        // A batch that was without it from the beginning.
        let mut buried = Buried::new(|_| {});
        buried.batches[0].object = without(&tenant("acme"), &buried.batches[0].object, &ROWS);
        let objects = self.laid(&buried.batches, &nothing);
        self.add("erased before it was archived", objects, None);
        let objects = self.laid(&buried.batches[..3], &nothing);
        self.add("erased before it was archived, without tombstones", objects, Some(Code::Erased));
        // Nobody erases a tombstone.
        buried.batches[3].object = without(&tenant("acme"), &buried.batches[3].object, &[0]);
        let objects = self.laid(&buried.batches, &nothing);
        self.add("a tombstone erased", objects, Some(Code::Erased));

        // The key of before a rotation may sign a record after it.
        let buried = Buried::new(|_| {});
        let sizes = vec![(tenant("acme"), 4)];
        for old in [true, false] {
            let mut archive = Archive::new(&self.signers, Some(sizes.clone()));
            archive.lay(&tenant("acme"), &buried.batches, &nothing);
            let mut objects = archive.objects;
            let header = hash_of(&objects[&paths::header(&tenant("acme"), 1)]);
            let one = without(&tenant("acme"), &objects[&self.object(1)], &ROWS[..1]);
            let said = record(1, 1, header, &one, buried.pairs(1));
            let key = if old { &self.signers.log } else { &self.signers.next_log };
            put(&mut objects, (1, 1), &said, key);
            objects.insert(self.object(1), one);
            let name = if old { "old" } else { "new" };
            self.add(format!("a record by the {name} key of a chain"), objects, None);
        }
    }
}
