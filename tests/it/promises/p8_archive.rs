//! P1 and P8 of the archiver: every step of its protocol × lost, applied but errored, applied late, crashed before and
//! after, run twice, woken late after another run. Whatever happened, the next run heals it: every event is in exactly
//! one batch, nothing lies where SQL would count it twice, and the whole verifies.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use quipu_core::archive::{ArchiveSettings, Close};
use quipu_core::ids::TenantId;
use quipu_core::log::header::BatchHeader;
use quipu_core::log::paths;
use quipu_core::objects::faulty::{self as faulty_objects, Faulty as FaultyObjects, Op as ObjectOp};
use quipu_core::objects::{ObjectError, ObjectStore};
use quipu_core::store::StoreError;
use quipu_core::store::faulty::{Chances, Fault, Faulty, Gate, Op};
use quipu_core::time::Micros;
use quipu_core::verify::{Options, Report, Verdict, verify_archive, verify_data_dir};
use quipu_tests::archiving::{Ground, append};
use tokio::runtime::Handle;

const SESSIONS: [&str; 3] = ["s1", "s2", "s3"];
/// Of `s1` and `s2` once, then of all three.
const BEFORE: usize = 2;
const AFTER: usize = 3;
const EVENTS: u64 = ((2 * BEFORE) + (3 * AFTER)) as u64;

fn tenant() -> TenantId {
    TenantId::default_tenant()
}

/// Where a ledger and its archive lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A data directory.
    Directory,
    /// A DynamoDB table and two buckets of S3.
    Aws,
}

/// A fresh ground, and what it lies in.
struct World {
    ground: Ground,
    dir: Option<tempfile::TempDir>,
}

impl World {
    async fn fresh(kind: Kind) -> Self {
        match kind {
            Kind::Directory => {
                let dir = tempfile::tempdir().unwrap();
                Self { ground: Ground::directory(dir.path()), dir: Some(dir) }
            }
            Kind::Aws => Self { ground: Ground::aws().await, dir: None },
        }
    }

    /// The offline verifier's word on the whole.
    async fn verify(self) -> Report {
        match self.dir {
            Some(dir) => {
                // The store is closed before its file is looked at.
                drop(self.ground);
                verify_data_dir(dir.path(), &Options::default(), &|_| {})
            }
            None => {
                let pinned_key = Some(self.ground.log_key());
                let options = Options { pinned_key, ..Options::default() };
                // The verifier keeps to the thread that it was begun on.
                let objects = self.ground.objects.as_ref();
                tokio::task::block_in_place(|| {
                    Handle::current().block_on(verify_archive(objects, &options, &|_| {}))
                })
            }
        }
    }
}

/// A ledger with one batch in its archive and the makings of another in its hot tier.
async fn prepared(kind: Kind) -> World {
    let world = World::fresh(kind).await;
    let ground = &world.ground;
    let ledger = ground.ledger();
    ledger.ensure_default_tenant().await.unwrap();
    for session in &SESSIONS[..2] {
        append(&ledger, &tenant(), session, "before", BEFORE).await;
    }
    assert_eq!(ground.archive(&tenant()).await.unwrap().batches.len(), 1);
    for session in SESSIONS {
        append(&ledger, &tenant(), session, "after", AFTER).await;
    }
    world
}

/// The next run heals whatever was left; then everything is as if nothing had gone wrong.
async fn healed(world: World, what: &str) {
    let ground = &world.ground;
    let again = ground.archive(&tenant()).await;
    again.unwrap_or_else(|e| panic!("{what}: the next run: {e}"));
    let idle = ground.archive(&tenant()).await.unwrap();
    assert!(idle.batches.is_empty() && idle.oldest_open.is_none(), "{what}: something was left: {idle:?}");
    whole(ground.objects.as_ref(), EVENTS, what).await;
    assert!(ground.staging.list("", None, 10).await.unwrap().is_empty(), "{what}: something is still staged");
    let report = world.verify().await;
    assert_eq!((report.verdict, report.events), (Verdict::Valid, EVENTS), "{what}: {report}");
}

/// Every event is in one batch, and every object under `events/` is a batch's.
async fn whole(objects: &dyn ObjectStore, events: u64, what: &str) {
    let mut named = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut count = 0;
    for number in 1.. {
        let bytes = match objects.get(&paths::header(&tenant(), number)).await {
            Ok(object) => object.bytes,
            Err(ObjectError::NotFound { .. }) => break,
            Err(error) => panic!("{what}: {error}"),
        };
        let header = BatchHeader::parse(&bytes).unwrap();
        for run in &header.runs {
            for sequence in run.first.get()..=run.last.get() {
                assert!(seen.insert((run.session_id.clone(), sequence)), "{what}: {run:?} is there twice");
            }
        }
        count += header.count;
        named.insert(header.key);
    }
    assert_eq!((count, seen.len() as u64), (events, events), "{what}");
    let there: BTreeSet<_> =
        objects.list("events/", None, 1000).await.unwrap().into_iter().map(|listed| listed.key).collect();
    assert_eq!(there, named, "{what}: what SQL would read");
}

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
            Self::Store(op, _) => {
                matches!(op, Op::AdvancePointer | Op::MarkArchived | Op::PutBatch | Op::MarkRecorded)
            }
            Self::Archive(op, _) | Self::Staging(op, _) => ObjectOp::WRITES.contains(op),
        }
    }
}

/// Every call that a run without faults makes.
async fn steps(kind: Kind) -> Vec<Step> {
    let world = prepared(kind).await;
    let mut ground = world.ground.clone();
    let store = Arc::new(Faulty::new(ground.store.clone()));
    let objects = Arc::new(FaultyObjects::new(ground.objects.clone()));
    let staging = Arc::new(FaultyObjects::new(ground.staging.clone()));
    (ground.store, ground.objects, ground.staging) = (store.clone(), objects.clone(), staging.clone());
    ground.archive(&tenant()).await.unwrap();
    let mut steps = Vec::new();
    for op in Op::ALL {
        steps.extend((1..=store.calls(op)).map(|nth| Step::Store(op, nth)));
    }
    for op in ObjectOp::ALL {
        steps.extend((1..=objects.calls(op)).map(|nth| Step::Archive(op, nth)));
        steps.extend((1..=staging.calls(op)).map(|nth| Step::Staging(op, nth)));
    }
    let claims = steps.iter().filter(|step| matches!(step, Step::Archive(ObjectOp::Put, _))).count();
    assert!(claims >= 5, "header, object, signature, two checkpoints: {steps:?}");
    steps
}

/// What goes wrong there.
#[derive(Debug, Clone)]
enum Wrong {
    Lost,
    AppliedThenErrored,
    AppliedLate,
    /// Of several objects that are written together, one.
    AppliedInPart,
    Unavailable,
    CrashedBefore,
    CrashedAfter,
    CrashedHalfWay,
    SleepsBefore(Gate),
}

/// How late is late.
const LATE: Duration = Duration::from_millis(20);

impl Wrong {
    fn of_store(self) -> Fault {
        match self {
            Self::Lost => Fault::Lose,
            Self::AppliedThenErrored | Self::AppliedInPart => Fault::ApplyThenError,
            Self::AppliedLate => Fault::ApplyLate(LATE),
            Self::Unavailable => Fault::Refuse(StoreError::Unavailable { why: "test".into() }),
            Self::CrashedBefore => Fault::Crash { applied: false },
            Self::CrashedAfter | Self::CrashedHalfWay => Fault::Crash { applied: true },
            Self::SleepsBefore(gate) => Fault::Hold(gate),
        }
    }

    fn of_objects(self) -> faulty_objects::Fault {
        use faulty_objects::Fault;
        match self {
            Self::Lost => Fault::Lose,
            Self::AppliedThenErrored => Fault::ApplyThenError,
            Self::AppliedLate => Fault::ApplyLate(LATE),
            Self::AppliedInPart => Fault::ApplyPart(1),
            Self::Unavailable => Fault::Refuse(ObjectError::Unavailable { why: "test".into() }),
            Self::CrashedBefore => Fault::Crash { applied: false },
            Self::CrashedAfter => Fault::Crash { applied: true },
            Self::CrashedHalfWay => Fault::CrashPart(1),
            Self::SleepsBefore(gate) => Fault::Hold(gate),
        }
    }

    /// What is tried at a step.
    fn at(step: Step) -> Vec<Self> {
        let mut all = vec![
            Self::Lost,
            Self::AppliedThenErrored,
            Self::AppliedLate,
            Self::Unavailable,
            Self::CrashedBefore,
            Self::CrashedAfter,
        ];
        if matches!(step, Step::Archive(ObjectOp::PutAbsent, _)) {
            all.extend([Self::AppliedInPart, Self::CrashedHalfWay]);
        }
        all
    }
}

/// The same ground, with a fault at one step.
fn with_fault(ground: &Ground, step: Step, wrong: Wrong) -> (Ground, Vec<Settle>) {
    let store = Faulty::new(ground.store.clone());
    let objects = FaultyObjects::new(ground.objects.clone());
    let staging = FaultyObjects::new(ground.staging.clone());
    match step {
        Step::Store(op, nth) => store.plan(op, nth, wrong.of_store()),
        Step::Archive(op, nth) => objects.plan(op, nth, wrong.of_objects()),
        Step::Staging(op, nth) => staging.plan(op, nth, wrong.of_objects()),
    }
    let (store, objects, staging) = (Arc::new(store), Arc::new(objects), Arc::new(staging));
    let settle = vec![
        Settle::Store(store.clone()),
        Settle::Objects(objects.clone()),
        Settle::Objects(staging.clone()),
    ];
    (Ground { store, objects, staging, ..ground.clone() }, settle)
}

/// What may still apply something late.
enum Settle {
    Store(Arc<Faulty>),
    Objects(Arc<FaultyObjects>),
}

async fn settle(settles: Vec<Settle>) -> bool {
    let mut done = true;
    for settle in settles {
        match settle {
            Settle::Store(store) => {
                store.settle().await;
                done &= store.is_plan_done();
            }
            Settle::Objects(objects) => {
                objects.settle().await;
                done &= objects.is_plan_done();
            }
        }
    }
    done
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
            let (faulty, settles) = with_fault(&world.ground, step, wrong);
            // It may end well or not: a fault of a read that is asked again is no failure.
            let run = tokio::time::timeout(Duration::from_secs(60), faulty.archive(&tenant())).await;
            assert!(run.is_ok(), "{what}: a run that does not end");
            if twice {
                let _ = faulty.archive(&tenant()).await;
            }
            drop(faulty);
            assert!(settle(settles).await, "{what}: the fault never happened");
            healed(world, &what).await;
        });
    }
    while let Some(done) = running.join_next().await {
        done.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p1_p8_every_step_with_every_fault() {
    let cases = steps(Kind::Directory).await.into_iter();
    let cases = cases.flat_map(|step| Wrong::at(step).into_iter().map(move |wrong| (step, wrong)));
    every_step(Kind::Directory, cases.collect(), false).await;
}

/// The process is not restarted: the same archiver comes again.
#[tokio::test(flavor = "multi_thread")]
async fn p1_p8_run_twice() {
    let writes = steps(Kind::Directory).await.into_iter().filter(Step::is_write);
    let cases = writes.flat_map(|step| [(step, Wrong::Lost), (step, Wrong::AppliedThenErrored)]);
    every_step(Kind::Directory, cases.collect(), true).await;
}

/// On DynamoDB and S3, where a call costs milliseconds: the steps that change something.
#[tokio::test(flavor = "multi_thread")]
async fn p1_p8_every_write_with_faults_on_aws() {
    let writes = steps(Kind::Aws).await.into_iter().filter(Step::is_write);
    let cases = writes.flat_map(|step| {
        let wrongs = [Wrong::Lost, Wrong::AppliedThenErrored, Wrong::AppliedLate, Wrong::CrashedAfter];
        wrongs.map(|wrong| (step, wrong))
    });
    every_step(Kind::Aws, cases.collect(), false).await;
}

/// A process sleeps before one of its steps; others archive everything meanwhile, and more; then it wakes and goes on
/// as if nothing had been. It must harm nothing.
#[tokio::test(flavor = "multi_thread")]
async fn p1_p8_woken_late_after_another_run() {
    for step in steps(Kind::Directory).await {
        let what = format!("{step:?} woken late");
        let world = prepared(Kind::Directory).await;
        let ground = world.ground.clone();
        let gate = Gate::default();
        let (sleeper, settles) = with_fault(&ground, step, Wrong::SleepsBefore(gate.clone()));
        let late = tokio::spawn(async move { sleeper.archive(&tenant()).await });
        tokio::time::timeout(Duration::from_secs(60), gate.reached())
            .await
            .unwrap_or_else(|_| panic!("{what}"));
        // Another archiver does it all, and then the next batch.
        ground.archive(&tenant()).await.unwrap_or_else(|e| panic!("{what}: the other run: {e}"));
        append(&ground.ledger(), &tenant(), "s1", "meanwhile", 1).await;
        ground.archive(&tenant()).await.unwrap_or_else(|e| panic!("{what}: the run after: {e}"));
        gate.open();
        let _ = late.await.unwrap();
        settle(settles).await;
        ground.archive(&tenant()).await.unwrap_or_else(|e| panic!("{what}: the last run: {e}"));
        whole(ground.objects.as_ref(), EVENTS + 1, &what).await;
        drop(ground);
        let report = world.verify().await;
        assert_eq!((report.verdict, report.events), (Verdict::Valid, EVENTS + 1), "{what}: {report}");
    }
}

/// Two archivers and four writers at once, on stores that fail now and then, with hints that come up to 30 s late
/// (here: as much later as the whole test lasts).
#[tokio::test(flavor = "multi_thread")]
async fn p1_p8_two_archivers_and_four_writers() {
    const ROUNDS: usize = 40;
    for seed in [1, 2] {
        let dir = tempfile::tempdir().unwrap();
        let ground = Ground::directory(dir.path());
        ground.ledger().ensure_default_tenant().await.unwrap();
        // A run makes a hundred calls and more: some shall end well.
        let chances = Chances {
            lose: 0.001,
            apply_then_error: 0.002,
            apply_late: 0.001,
            throttle: 0.001,
            unavailable: 0.001,
            delay: 0.02,
            duration_max: Duration::from_millis(20),
        };
        let mut archivers = Vec::new();
        let done = Arc::new(AtomicBool::new(false));
        for number in 0..2 {
            let store = Faulty::new(ground.store.clone()).random(seed * 10 + number, chances);
            let store = Arc::new(store.hide_feed(Duration::from_millis(300)));
            let of_objects = faulty_objects::Chances {
                lose: 0.002,
                apply_then_error: 0.004,
                apply_late: 0.002,
                apply_part: 0.02,
                unavailable: 0.002,
                delay: 0.02,
                duration_max: Duration::from_millis(20),
                part_max: 8,
            };
            let objects = FaultyObjects::new(ground.objects.clone()).random(seed * 10 + number, of_objects);
            let objects = Arc::new(objects);
            let own = Ground { store: store.clone(), objects: objects.clone(), ..ground.clone() };
            let done = done.clone();
            let settles = vec![Settle::Store(store), Settle::Objects(objects)];
            archivers.push(tokio::spawn(async move {
                let archiver =
                    own.archiver(ArchiveSettings { max_bytes: 2000, ..ArchiveSettings::default() });
                let (mut ended_well, mut ended) = (0, 0);
                while !done.load(Ordering::SeqCst) {
                    ended += 1;
                    if archiver.run(&tenant(), Close::Now, Micros::MAX).await.is_ok() {
                        ended_well += 1;
                    }
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                drop(archiver);
                drop(own);
                settle(settles).await;
                (ended_well, ended)
            }));
        }
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..4 {
            let ledger = ground.ledger();
            writers.spawn(async move {
                for round in 0..ROUNDS {
                    let session = format!("s{}", (writer + round) % 6);
                    append(&ledger, &tenant(), &session, &format!("w{writer} r{round}"), 1 + round % 3).await;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            });
        }
        while let Some(writer) = writers.join_next().await {
            writer.unwrap();
        }
        done.store(true, Ordering::SeqCst);
        let (mut ended_well, mut ended) = (0, 0);
        for archiver in archivers {
            let (well, all) = archiver.await.unwrap();
            (ended_well, ended) = (ended_well + well, ended + all);
        }
        let batches = ground.store.last_batch(&tenant()).await.unwrap().map_or(0, |batch| batch.batch);
        assert!(ended_well > 0 && ended_well < ended, "{ended_well} of {ended} runs ended well");
        assert!(batches > 5, "{batches} batches");
        let events = 4 * (0..ROUNDS).map(|round| 1 + round as u64 % 3).sum::<u64>();
        let what = format!("seed {seed}");
        ground.archive(&tenant()).await.unwrap();
        whole(ground.objects.as_ref(), events, &what).await;
        drop(ground);
        let report = verify_data_dir(dir.path(), &Options::default(), &|_| {});
        assert_eq!((report.verdict, report.events), (Verdict::Valid, events), "{what}: {report}");
    }
}
