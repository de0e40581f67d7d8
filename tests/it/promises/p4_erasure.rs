//! P4 and P1 of erasure: what is erased is in no byte of hot tier or archive, everything else is as it was, both verifiers
//! say so; content that went without a true tombstone is INVALID. And the steps of an erasure × lost, applied but
//! errored, applied late, crashed before and after, run twice, woken late after another has done it all.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quipu_core::archive::BatchReader;
use quipu_core::erasure::{Request, session_of};
use quipu_core::event::{NewEvent, OwnedContent};
use quipu_core::ids::{EventId, EventType, Seq, SessionId, TenantId};
use quipu_core::ledger::{Ledger, SessionVerdict};
use quipu_core::log::header::BatchHeader;
use quipu_core::log::paths;
use quipu_core::objects::faulty::{self as faulty_objects, Faulty as FaultyObjects, Op as ObjectOp};
use quipu_core::objects::{Condition, ObjectError, ObjectStore};
use quipu_core::segment;
use quipu_core::store::faulty::{Fault, Faulty, Gate, Op};
use quipu_core::store::{ErasureRecord, Order, StoreError};
use quipu_core::verify::{Code, Options, Report, Verdict, verify_archive, verify_data_dir};
use quipu_tests::archiving::{Ground, append, note};
use quipu_tests::{python, repository};
use serde_json::Value;
use tokio::runtime::Handle;

/// Events of [`prepared`], and the tombstones of the two that are erased.
const EVENTS: u64 = 11;
const TOMBSTONES: u64 = 2;

fn tenant() -> TenantId {
    TenantId::default_tenant()
}

fn session(name: &str) -> SessionId {
    SessionId::parse(name).unwrap()
}

/// Text that is in nothing else.
fn planted() -> String {
    quipu_core::ids::hex(&quipu_core::random::bytes::<48>())
}

/// Where a ledger and its archive lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Directory,
    Aws,
}

/// A ledger with one batch in its archive, more in its hot tier, and two events that are to be erased.
struct World {
    ground: Ground,
    dir: Option<tempfile::TempDir>,
    /// A start whose agent's name and tag are planted, archived; and an event that is not archived yet.
    events: [EventId; 2],
    /// What was planted, and the stored bytes that held it.
    planted: Vec<String>,
    old: Vec<Bytes>,
    headers: Vec<Bytes>,
}

/// A start of a session that names its agent.
fn start(name: &str, agent_name: &str, tag: &str) -> NewEvent {
    let payload = serde_json::json!({ "agentName": agent_name, "tags": [tag] }).to_string();
    NewEvent { event_type: EventType::parse("session_started").unwrap(), payload, ..note(name, "") }
}

async fn prepared(kind: Kind) -> World {
    let (ground, dir) = match kind {
        Kind::Directory => {
            let dir = tempfile::tempdir().unwrap();
            (Ground::directory(dir.path()), Some(dir))
        }
        Kind::Aws => (Ground::aws().await, None),
    };
    let planted: Vec<String> = (0..3).map(|_| planted()).collect();
    let ledger = ground.ledger();
    ledger.ensure_default_tenant().await.unwrap();
    let first = vec![start("s1", &planted[0], &planted[1]), note("s1", "stays"), note("s1", "stays too")];
    let first = ledger.append(&tenant(), first, None).await.unwrap();
    append(&ledger, &tenant(), "s2", "before", 2).await;
    assert_eq!(ground.archive(&tenant()).await.unwrap().batches.len(), 1);
    append(&ledger, &tenant(), "s1", "after", 2).await;
    let second = vec![note("s2", "stays"), note("s2", &planted[2]), note("s2", "stays"), note("s3", "stays")];
    let second = ledger.append(&tenant(), second, None).await.unwrap();
    let events = [first.events[0].1.event_id, second.events[1].1.event_id];
    let mut old = Vec::new();
    for (name, at) in [("s1", 0), ("s2", 2)] {
        let stored =
            ground.store.stored_body(&tenant(), &session(name), Seq::new(at).unwrap()).await.unwrap();
        old.push(stored.unwrap().body);
    }
    let header = ground.objects.get(&paths::header(&tenant(), 1)).await.unwrap().bytes;
    let object = BatchHeader::parse(&header).unwrap().key;
    old.push(ground.objects.get(&object).await.unwrap().bytes);
    World { ground, dir, events, planted, old, headers: vec![header] }
}

fn request() -> Request {
    Request { token_id: Some("tok_erase".into()), reason: Some("asked for by its owner".into()) }
}

/// What is in every file below a directory.
fn every_byte(path: &Path, out: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            every_byte(&entry.path(), out);
        } else {
            out.push((entry.path().display().to_string(), std::fs::read(entry.path()).unwrap()));
        }
    }
}

impl World {
    async fn objects(&self) -> Vec<(String, Vec<u8>)> {
        let mut all = Vec::new();
        for (name, objects) in [("archive", &self.ground.objects), ("staging", &self.ground.staging)] {
            for listed in objects.list("", None, 1000).await.unwrap() {
                let bytes = objects.get(&listed.key).await.unwrap().bytes.to_vec();
                all.push((format!("{name}/{}", listed.key), bytes));
            }
        }
        all
    }

    /// Nothing of what was planted is anywhere: neither as text, nor as any run of the bytes that held it (compressed,
    /// it does not show as text) but those that other events have too.
    async fn assert_gone(&self, what: &str) {
        let mut files = self.objects().await;
        if let Some(dir) = &self.dir {
            every_byte(dir.path(), &mut files);
        }
        // What is in a body or an object as it is now was not what was erased.
        let mut now: Vec<Bytes> = Vec::new();
        for (name, at) in [("s1", 0), ("s2", 2)] {
            let at = Seq::new(at).unwrap();
            let stored = self.ground.store.stored_body(&tenant(), &session(name), at).await.unwrap();
            now.extend(stored.map(|stored| stored.body));
        }
        for (key, bytes) in &files {
            if key.contains("/events/") && key.starts_with("archive/") {
                now.push(bytes.clone().into());
            }
        }
        const RUN: usize = 20;
        // Runs of few different bytes (levels of Parquet, zeros) are in any file.
        let is_own = |run: &&[u8]| run.iter().collect::<HashSet<_>>().len() > 12;
        let mut runs: HashSet<&[u8]> =
            self.old.iter().flat_map(|old| old.windows(RUN)).filter(is_own).collect();
        // Nor is one that reaches into what stays: hashes stand in heads and pointers too, and the byte behind one is the
        // same by chance once in 256.
        const PART: usize = 8;
        let mut hashes = Vec::new();
        for session in ["s1", "s2"].map(session) {
            let page =
                self.ground.ledger().session_events(&tenant(), &session, Seq::ZERO, Order::Asc, 1000).await;
            hashes.extend(page.unwrap().events.iter().map(|event| event.hash));
        }
        let stays: HashSet<&[u8]> = now
            .iter()
            .flat_map(|body| body.windows(PART))
            .chain(hashes.iter().flat_map(|hash| hash.0.windows(PART)))
            .collect();
        runs.retain(|run| !run.windows(PART).any(|part| stays.contains(part)));
        assert!(runs.len() > 100, "{what}: the bytes are nearly the same: this shows nothing");
        for (name, bytes) in &files {
            for text in &self.planted {
                let found = bytes.windows(text.len()).any(|window| window == text.as_bytes());
                assert!(!found, "{what}: planted text is in {name}");
            }
            let found = bytes.windows(RUN).position(|window| runs.contains(window));
            let around =
                found.map(|at| bytes[at.saturating_sub(RUN)..bytes.len().min(at + 2 * RUN)].escape_ascii());
            assert!(
                found.is_none(),
                "{what}: {name} has a run of what was erased at {found:?}, amid {}",
                around.unwrap()
            );
        }
    }

    async fn assert_erased(&self, ledger: &Ledger, what: &str) {
        for event in self.events {
            let found = ledger.event(&tenant(), event).await.unwrap().unwrap();
            assert!(matches!(found.content, OwnedContent::Erased { .. }), "{what}: {found:?}");
            let record = ledger.erasure(&tenant(), event).await.unwrap().unwrap();
            assert!(record.is_done(), "{what}: {record:?}");
            // One tombstone, for ever.
            let head = self.ground.store.head(&tenant(), &session_of(event)).await.unwrap().unwrap();
            assert_eq!(head.sequence, Seq::ZERO, "{what}");
        }
        assert_eq!(ledger.erasures(&tenant(), false, None, 9).await.unwrap(), [], "{what}");
        // Names that only an erased start gave.
        let record = self.ground.store.session(&tenant(), &session("s1")).await.unwrap().unwrap();
        assert_eq!((record.summary.agent_name, record.summary.tags), (None, vec![]), "{what}");
        let pointer = self.ground.store.pointer(&tenant(), &session("s1")).await.unwrap().unwrap();
        assert_eq!(pointer.archived.summary.agent_name, None, "{what}");
        // The log is as it was; rows are erased in the objects.
        let header = self.ground.objects.get(&paths::header(&tenant(), 1)).await.unwrap().bytes;
        assert_eq!(header, self.headers[0], "{what}");
        let mut erased = Vec::new();
        for listed in self.ground.objects.list("events/", None, 99).await.unwrap() {
            let bytes = self.ground.objects.get(&listed.key).await.unwrap().bytes;
            BatchReader::open(bytes)
                .unwrap()
                .rows::<()>(|row| {
                    if row.content_digest.is_some() {
                        assert_eq!((row.payload, row.salt, &row.derived.model), (None, None, &None));
                        erased.push(EventId::parse(row.event_id).unwrap());
                    }
                    std::ops::ControlFlow::Continue(())
                })
                .unwrap();
        }
        erased.sort();
        assert_eq!(erased, self.events, "{what}: rows without content");
    }

    /// The offline verifiers' word on the whole.
    async fn verify(self) -> Report {
        let options = Options { pinned_key: Some(self.ground.log_key()), ..Options::default() };
        match self.dir {
            Some(dir) => {
                let archive = verify(&self.ground.objects, &options);
                assert_eq!(
                    (archive.verdict, archive.events),
                    (Verdict::Valid, EVENTS + TOMBSTONES),
                    "{archive}"
                );
                drop(self.ground);
                verify_data_dir(dir.path(), &Options::default(), &|_| {})
            }
            None => verify(&self.ground.objects, &options),
        }
    }
}

fn verify(objects: &Arc<dyn ObjectStore>, options: &Options) -> Report {
    // The verifier keeps to the thread that it was begun on.
    tokio::task::block_in_place(|| Handle::current().block_on(verify_archive(&**objects, options, &|_| {})))
}

/// What Python says of an archive or a bundle.
fn theirs(path: &Path, key: &Path) -> Value {
    let script = repository().join("tests/verifier/quipu_verify.py");
    let mut command = Command::new(python());
    command.arg(script).arg(path).arg("--json").arg("--key").arg(key);
    serde_json::from_slice(&command.output().unwrap().stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn p4_erased_content_is_in_no_byte_and_all_else_is_as_it_was() {
    let world = prepared(Kind::Directory).await;
    let ground = world.ground.clone();
    let ledger = ground.ledger();
    for (event, left) in world.events.iter().zip(["archive", "archive"]) {
        let record = ledger.erase(&tenant(), *event, &request()).await.unwrap();
        assert!(record.progress.tombstone.is_some() && record.progress.hot_at.is_some(), "{record:?}");
        let now = ground.clock.now();
        let places: Vec<_> =
            quipu_core::erasure::left(&record, now, false).iter().map(|left| left.place).collect();
        assert_eq!(places, [left]);
        let found = ledger.event(&tenant(), *event).await.unwrap().unwrap();
        assert!(matches!(found.content, OwnedContent::Erased { .. }));
        // Idempotent: the same erasure, whoever asks and why.
        assert_eq!(ledger.erase(&tenant(), *event, &Request::default()).await.unwrap(), record);
        // A chain of which something was erased still verifies.
        let verdict = ledger.verify_session(&tenant(), &found.session_id).await.unwrap();
        assert!(matches!(verdict, SessionVerdict::Verified { .. }), "{verdict:?}");
    }
    // The hot tier is without it before any archiver came by, and the directory is sound.
    let copy = tempfile::tempdir().unwrap();
    copy_dir(world.dir.as_ref().unwrap().path(), copy.path());
    let report = verify_data_dir(copy.path(), &Options::default(), &|_| {});
    assert_eq!(report.verdict, Verdict::Valid, "{report}");
    assert!(report.to_string().contains("erased, by event"), "{report}");

    let report = ground.archive(&tenant()).await.unwrap();
    assert_eq!((report.batches.len(), report.erased), (1, 2), "{report:?}");
    world.assert_erased(&ledger, "after one run").await;
    world.assert_gone("after one run").await;
    let idle = ground.archive(&tenant()).await.unwrap();
    assert_eq!((idle.batches.len(), idle.erased), (0, 0));
    let catalogue = ground.store.batches(&tenant(), 0, 9).await.unwrap();
    let revisions: Vec<u64> = catalogue.iter().map(|batch| batch.revision).collect();
    assert_eq!(revisions, [1, 0], "the second batch was made without it");

    let dir = world.dir.as_ref().unwrap().path().to_owned();
    let theirs = theirs(&dir.join("archive"), &dir.join("keys/log.pub"));
    assert_eq!(
        (&theirs["verdict"], &theirs["events"]),
        (&"VALID".into(), &(EVENTS + TOMBSTONES).into()),
        "{theirs}"
    );
    drop((ledger, ground));
    let report = world.verify().await;
    assert_eq!((report.verdict, report.events), (Verdict::Valid, EVENTS + TOMBSTONES), "{report}");
    let notes = report.notes.join("\n");
    assert_eq!(notes.matches("erased, by event").count(), 2, "{notes}");
}

fn copy_dir(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-r").arg(from.join(".")).arg(to).status().unwrap();
    assert!(done.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn p4_what_goes_without_a_tombstone_is_found() {
    // In the hot tier: an insider with the store's own means.
    let world = prepared(Kind::Directory).await;
    let store = &world.ground.store;
    let stored = store.stored_body(&tenant(), &session("s2"), Seq::new(2).unwrap()).await.unwrap().unwrap();
    let (meta, body) =
        segment::erase(&stored.meta, &stored.body, |id| id == world.events[1]).unwrap().unwrap();
    store.replace_body(&tenant(), &session("s2"), &stored, &meta, body.into()).await.unwrap();
    // And nobody covers it with a tombstone afterwards.
    let late = world.ground.ledger().erase(&tenant(), world.events[1], &request()).await;
    assert!(late.is_err(), "{late:?}");
    let dir = world.dir.unwrap();
    drop((world.ground, late));
    let report = verify_data_dir(dir.path(), &Options::default(), &|_| {});
    let finding = report.finding.clone().unwrap();
    assert_eq!((report.verdict, finding.code), (Verdict::Invalid, Code::Erased), "{report}");
    assert_eq!((finding.session_id, finding.sequence), (Some(session("s2")), Some(3)));

    // In the archive: the object of an erasure, put where no erasure was.
    let world = prepared(Kind::Directory).await;
    let ledger = world.ground.ledger();
    ledger.erase(&tenant(), world.events[0], &request()).await.unwrap();
    let before = world.ground.objects.get(&paths::header(&tenant(), 1)).await.unwrap().bytes;
    let key = BatchHeader::parse(&before).unwrap().key;
    let whole = world.ground.objects.get(&key).await.unwrap();
    world.ground.archive(&tenant()).await.unwrap();
    let erased = world.ground.objects.get(&key).await.unwrap();
    assert_ne!(whole.bytes, erased.bytes);
    // The old object again: nothing of the evidence is wrong, and it is told that it is not the newest.
    world.ground.objects.put(&key, whole.bytes, Condition::Matches(erased.tag)).await.unwrap();
    let options = Options { pinned_key: Some(world.ground.log_key()), ..Options::default() };
    let report = verify(&world.ground.objects, &options);
    assert_eq!(report.verdict, Verdict::Valid, "{report}");
    assert!(report.notes.join(" ").contains("written anew"), "{report}");
    // Without the record the erased object is none of the batch's.
    let back = world.ground.objects.get(&key).await.unwrap();
    world.ground.objects.put(&key, erased.bytes, Condition::Matches(back.tag)).await.unwrap();
    world.ground.objects.delete(&paths::object_record(&tenant(), 1, 1)).await.unwrap();
    let report = verify(&world.ground.objects, &options);
    assert_eq!(report.finding.map(|finding| finding.code), Some(Code::Object));
}

#[tokio::test(flavor = "multi_thread")]
async fn p4_a_bundle_brings_the_tombstones_of_what_it_lacks() {
    let world = prepared(Kind::Directory).await;
    let ledger = world.ground.ledger();
    for event in world.events {
        ledger.erase(&tenant(), event, &request()).await.unwrap();
    }
    let mut export = ledger.export(&tenant(), &[session("s1"), session("s2")]).await.unwrap();
    let mut bundle = String::new();
    while let Some(chunk) = export.next_chunk().await.unwrap() {
        bundle.push_str(&chunk);
    }
    let dir = world.dir.as_ref().unwrap().path();
    let key = dir.join("keys/log.pub");
    let options = Options { pinned_key: Some(world.ground.log_key()), ..Options::default() };
    let path = dir.join("bundle.ndjson");
    let judge = |text: &str| {
        std::fs::write(&path, text).unwrap();
        let ours = quipu_core::verify::verify_bundle_file(&path, &options, &|_| {});
        let theirs = theirs(&path, &key);
        let code = ours.finding.as_ref().map(|finding| finding.code.as_str());
        assert_eq!(theirs["verdict"], ours.verdict.as_str(), "{ours} {theirs}");
        assert_eq!(theirs["code"], serde_json::json!(code), "{ours} {theirs}");
        let place = ours.finding.as_ref().map(|f| (f.session_id.clone(), f.sequence, f.line));
        let place = place.unwrap_or_default();
        assert_eq!(theirs["session_id"], serde_json::json!(place.0), "{ours} {theirs}");
        assert_eq!(theirs["sequence"], serde_json::json!(place.1), "{ours} {theirs}");
        assert_eq!(theirs["line"], serde_json::json!(place.2), "{ours} {theirs}");
        (ours.verdict, code, ours)
    };
    let (verdict, _, report) = judge(&bundle);
    assert_eq!((verdict, report.sessions, report.events), (Verdict::Valid, 4, 11 - 1 + 2), "{report}");
    assert_eq!(report.notes.iter().filter(|note| note.contains("erased, by event")).count(), 2, "{report}");

    // Without one of them it cannot be told whether somebody deleted the content.
    let name = session_of(world.events[0]);
    let mut lines: Vec<&str> = bundle.lines().collect();
    let at =
        lines.iter().position(|line| line.contains(r#""kind":"session""#) && line.contains(name.as_str()));
    let at = at.unwrap();
    let gone = lines[at..].iter().position(|line| line.contains(r#""kind":"head""#)).unwrap() + 1;
    lines.drain(at..at + gone);
    let end = format!(r#"{{"kind":"end","sessions":3,"events":{}}}"#, 11 - 1 + 1);
    *lines.last_mut().unwrap() = &end;
    let (verdict, code, _) = judge(&format!("{}\n", lines.join("\n")));
    assert_eq!((verdict, code), (Verdict::Incomplete, Some("tombstone_not_covered")));
}

/// A session whose start named the agent, of which everything has expired: the pointer alone knows the name.
#[tokio::test(flavor = "multi_thread")]
async fn p4_a_name_in_a_pointer_goes_when_its_segments_have_gone() {
    let world = prepared(Kind::Directory).await;
    let ground = &world.ground;
    let ledger = ground.ledger();
    let record = ledger.erase(&tenant(), world.events[0], &request()).await.unwrap();
    assert!(!record.is_done());
    let pointer = ground.store.pointer(&tenant(), &session("s1")).await.unwrap().unwrap();
    assert_eq!((pointer.archived.summary.agent_name, pointer.scrubbed), (None, 1));
    let named = ground.store.agents(&tenant(), None, 9).await.unwrap();
    assert!(named.iter().all(|agent| agent.name.is_none()), "{named:?}");
}

// ------------------------------------------------------------------- faults

/// One place where something goes wrong.
#[derive(Debug, Clone, Copy)]
enum Step {
    Store(Op, usize),
    Archive(ObjectOp, usize),
    Staging(ObjectOp, usize),
}

impl Step {
    fn is_write(&self) -> bool {
        match self {
            Self::Store(op, _) => matches!(
                op,
                Op::PutErasure
                    | Op::Commit
                    | Op::UpdateErasure
                    | Op::ReplaceBody
                    | Op::ReplacePointer
                    | Op::ResizeBatch
                    | Op::Scrub
            ),
            Self::Archive(op, _) | Self::Staging(op, _) => ObjectOp::WRITES.contains(op),
        }
    }
}

/// Asks for both erasures and archives: what fails is asked for again by [`healed`].
async fn erase_all(ground: &Ground, events: [EventId; 2]) -> Vec<Result<ErasureRecord, String>> {
    let ledger = ground.ledger();
    let mut asked = Vec::new();
    for event in events {
        asked.push(ledger.erase(&tenant(), event, &request()).await.map_err(|e| e.to_string()));
    }
    let _ = ground.archive(&tenant()).await;
    asked
}

/// Every call that two erasures and a run without faults make.
async fn steps(kind: Kind) -> Vec<Step> {
    let world = prepared(kind).await;
    let mut ground = world.ground.clone();
    let store = Arc::new(Faulty::new(ground.store.clone()));
    let objects = Arc::new(FaultyObjects::new(ground.objects.clone()));
    let staging = Arc::new(FaultyObjects::new(ground.staging.clone()));
    (ground.store, ground.objects, ground.staging) = (store.clone(), objects.clone(), staging.clone());
    for asked in erase_all(&ground, world.events).await {
        asked.unwrap();
    }
    let mut steps = Vec::new();
    for op in Op::ALL {
        steps.extend((1..=store.calls(op)).map(|nth| Step::Store(op, nth)));
    }
    for op in ObjectOp::ALL {
        steps.extend((1..=objects.calls(op)).map(|nth| Step::Archive(op, nth)));
        steps.extend((1..=staging.calls(op)).map(|nth| Step::Staging(op, nth)));
    }
    let of = |wanted: Op| steps.iter().any(|step| matches!(step, Step::Store(op, _) if *op == wanted));
    for op in [Op::PutErasure, Op::UpdateErasure, Op::ReplaceBody, Op::ResizeBatch, Op::Scrub] {
        assert!(of(op), "{op:?} is not among {steps:?}");
    }
    steps
}

/// What goes wrong there.
#[derive(Debug, Clone)]
enum Wrong {
    Lost,
    AppliedThenErrored,
    AppliedLate,
    Unavailable,
    CrashedBefore,
    CrashedAfter,
    SleepsBefore(Gate),
}

/// How late is late.
const LATE: Duration = Duration::from_millis(20);

impl Wrong {
    const ALL: [Self; 6] = [
        Self::Lost,
        Self::AppliedThenErrored,
        Self::AppliedLate,
        Self::Unavailable,
        Self::CrashedBefore,
        Self::CrashedAfter,
    ];

    fn of_store(self) -> Fault {
        match self {
            Self::Lost => Fault::Lose,
            Self::AppliedThenErrored => Fault::ApplyThenError,
            Self::AppliedLate => Fault::ApplyLate(LATE),
            Self::Unavailable => Fault::Refuse(StoreError::Unavailable { why: "test".into() }),
            Self::CrashedBefore => Fault::Crash { applied: false },
            Self::CrashedAfter => Fault::Crash { applied: true },
            Self::SleepsBefore(gate) => Fault::Hold(gate),
        }
    }

    fn of_objects(self) -> faulty_objects::Fault {
        use faulty_objects::Fault;
        match self {
            Self::Lost => Fault::Lose,
            Self::AppliedThenErrored => Fault::ApplyThenError,
            Self::AppliedLate => Fault::ApplyLate(LATE),
            Self::Unavailable => Fault::Refuse(ObjectError::Unavailable { why: "test".into() }),
            Self::CrashedBefore => Fault::Crash { applied: false },
            Self::CrashedAfter => Fault::Crash { applied: true },
            Self::SleepsBefore(gate) => Fault::Hold(gate),
        }
    }
}

/// A ground with a fault at one step, and what to wait for.
struct Disturbed {
    ground: Ground,
    store: Arc<Faulty>,
    objects: [Arc<FaultyObjects>; 2],
}

impl Disturbed {
    fn new(ground: &Ground, step: Step, wrong: Wrong) -> Self {
        let store = Faulty::new(ground.store.clone());
        let objects = FaultyObjects::new(ground.objects.clone());
        let staging = FaultyObjects::new(ground.staging.clone());
        match step {
            Step::Store(op, nth) => store.plan(op, nth, wrong.of_store()),
            Step::Archive(op, nth) => objects.plan(op, nth, wrong.of_objects()),
            Step::Staging(op, nth) => staging.plan(op, nth, wrong.of_objects()),
        }
        let (store, objects, staging) = (Arc::new(store), Arc::new(objects), Arc::new(staging));
        let disturbed = Ground {
            store: store.clone(),
            objects: objects.clone(),
            staging: staging.clone(),
            ..ground.clone()
        };
        Self { ground: disturbed, store, objects: [objects, staging] }
    }

    /// True if the fault happened.
    async fn settle(self) -> bool {
        drop(self.ground);
        self.store.settle().await;
        let mut done = self.store.is_plan_done();
        for objects in self.objects {
            objects.settle().await;
            done &= objects.is_plan_done();
        }
        done
    }
}

/// Asked for again and archived again, everything is as if nothing had gone wrong.
async fn healed(world: World, what: &str) {
    let ground = world.ground.clone();
    let ledger = ground.ledger();
    for event in world.events {
        ledger.erase(&tenant(), event, &request()).await.unwrap_or_else(|e| panic!("{what}: again: {e}"));
    }
    for _ in 0..2 {
        ground.archive(&tenant()).await.unwrap_or_else(|e| panic!("{what}: the next run: {e}"));
    }
    world.assert_erased(&ledger, what).await;
    world.assert_gone(what).await;
    assert!(ground.staging.list("", None, 10).await.unwrap().is_empty(), "{what}: something is still staged");
    drop((ledger, ground));
    let report = world.verify().await;
    assert_eq!((report.verdict, report.events), (Verdict::Valid, EVENTS + TOMBSTONES), "{what}: {report}");
}

/// Between the fault and what heals it, the evidence holds too.
fn holds(report: &Report, what: &str) {
    assert_ne!(report.verdict, Verdict::Invalid, "{what}, before it is healed: {report}");
}

/// Cases that run at once: two cores.
const AT_ONCE: usize = 4;

async fn every_step(kind: Kind, cases: Vec<(Step, Wrong)>, twice: bool) {
    let places = Arc::new(tokio::sync::Semaphore::new(AT_ONCE));
    let mut running = tokio::task::JoinSet::new();
    for (step, wrong) in cases {
        let places = places.clone();
        running.spawn(async move {
            let _place = places.acquire().await.unwrap();
            let what = format!("{step:?} {wrong:?}");
            let world = prepared(kind).await;
            let faulty = Disturbed::new(&world.ground, step, wrong);
            let run = erase_all(&faulty.ground, world.events);
            let run = tokio::time::timeout(Duration::from_secs(120), run).await;
            assert!(run.is_ok(), "{what}: it does not end");
            if twice {
                erase_all(&faulty.ground, world.events).await;
            }
            assert!(faulty.settle().await, "{what}: the fault never happened");
            let options = Options { pinned_key: Some(world.ground.log_key()), ..Options::default() };
            holds(&verify(&world.ground.objects, &options), &what);
            if let Some(dir) = &world.dir {
                let copy = tempfile::tempdir().unwrap();
                copy_dir(dir.path(), copy.path());
                let report = tokio::task::block_in_place(|| {
                    verify_data_dir(copy.path(), &Options::default(), &|_| {})
                });
                holds(&report, &what);
            }
            healed(world, &what).await;
        });
    }
    while let Some(done) = running.join_next().await {
        done.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p1_p4_every_write_of_an_erasure_with_every_fault() {
    let cases = steps(Kind::Directory).await.into_iter().filter(Step::is_write);
    let cases = cases.flat_map(|step| Wrong::ALL.map(|wrong| (step, wrong)));
    every_step(Kind::Directory, cases.collect(), false).await;
}

/// A read that fails, and a process that dies there.
#[tokio::test(flavor = "multi_thread")]
async fn p1_p4_every_read_of_an_erasure_that_fails() {
    let cases = steps(Kind::Directory).await.into_iter().filter(|step| !step.is_write());
    let cases = cases.flat_map(|step| [Wrong::Unavailable, Wrong::CrashedBefore].map(|wrong| (step, wrong)));
    every_step(Kind::Directory, cases.collect(), false).await;
}

/// The process is not restarted: the same one comes again.
#[tokio::test(flavor = "multi_thread")]
async fn p1_p4_an_erasure_run_twice() {
    let writes = steps(Kind::Directory).await.into_iter().filter(Step::is_write);
    let cases = writes.flat_map(|step| [(step, Wrong::Lost), (step, Wrong::AppliedThenErrored)]);
    every_step(Kind::Directory, cases.collect(), true).await;
}

/// On DynamoDB and S3, where a call costs milliseconds: the steps that change something.
#[tokio::test(flavor = "multi_thread")]
async fn p1_p4_every_write_of_an_erasure_with_faults_on_aws() {
    let writes = steps(Kind::Aws).await.into_iter().filter(Step::is_write);
    let cases = writes.flat_map(|step| {
        [Wrong::Lost, Wrong::AppliedThenErrored, Wrong::AppliedLate, Wrong::CrashedAfter].map(|w| (step, w))
    });
    every_step(Kind::Aws, cases.collect(), false).await;
}

/// A process sleeps before one of its steps; others erase and archive everything meanwhile, and more; then it wakes and
/// goes on as if nothing had been.
#[tokio::test(flavor = "multi_thread")]
async fn p1_p4_an_erasure_woken_late_after_another() {
    for step in steps(Kind::Directory).await.into_iter().filter(Step::is_write) {
        let what = format!("{step:?} woken late");
        let world = prepared(Kind::Directory).await;
        let ground = world.ground.clone();
        let gate = Gate::default();
        let sleeper = Disturbed::new(&ground, step, Wrong::SleepsBefore(gate.clone()));
        let (asleep, events) = (sleeper.ground.clone(), world.events);
        let late = tokio::spawn(async move { erase_all(&asleep, events).await });
        tokio::time::timeout(Duration::from_secs(60), gate.reached())
            .await
            .unwrap_or_else(|_| panic!("{what}"));
        for asked in erase_all(&ground, events).await {
            asked.unwrap_or_else(|e| panic!("{what}: the other: {e}"));
        }
        gate.open();
        let _ = late.await.unwrap();
        sleeper.settle().await;
        drop(ground);
        healed(world, &what).await;
    }
}
