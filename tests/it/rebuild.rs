//! A store that is lost is made again from its archive: what the archiver had written is there again, no session gets
//! a second line of history (P2), and nothing is built on an archive that is not right.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use quipu_core::archive::{RebuildError, RebuildOptions, rebuild};
use quipu_core::clock::{Clock as _, SystemClock};
use quipu_core::ids::{AgentId, SessionId, TenantId};
use quipu_core::ledger::Ledger;
use quipu_core::log::paths;
use quipu_core::objects::faulty::{Fault as ObjectFault, Faulty as FaultyObjects, Op as ObjectOp};
use quipu_core::segment::Head;
use quipu_core::store::faulty::{Fault, Faulty, Op};
use quipu_core::store::{AgentRecord, BatchRecord, Pointer, SessionRecord, Store};
use quipu_core::time::Micros;
use quipu_core::verify::{Options, Survey, Verdict, verify_data_dir};
use quipu_tests::archiving::{Ground, append, note};
use quipu_tests::{Emulator, Server, binary, fresh_store};

fn tenants() -> [TenantId; 2] {
    [TenantId::default_tenant(), TenantId::parse("acme").unwrap()]
}

/// Appends to sessions of a tenant: events of two agents, some of which count for tools, tokens and money.
async fn fill(ledger: &Ledger, tenant: &TenantId, sessions: &[&str], text: &str) {
    for session in sessions {
        append(ledger, tenant, session, text, 3).await;
        let mut call = note(session, text);
        call.agent_id = AgentId::parse(format!("agent of {session}")).unwrap();
        call.event_type = quipu_core::ids::EventType::parse("llm_response").unwrap();
        call.payload = r#"{"usage":{"inputTokens":3,"outputTokens":4},"costUsd":0.0000000000015}"#.to_owned();
        ledger.append(tenant, vec![call, note(session, text)], None).await.unwrap();
    }
}

/// Makes the tenants, fills and archives: `rounds` batches of each tenant, with one session more each time.
async fn prepare(ground: &Ground, rounds: usize) {
    let ledger = ground.ledger();
    ledger.ensure_default_tenant().await.unwrap();
    let [default, acme] = tenants();
    if ground.store.tenant(&acme).await.unwrap().is_none() {
        let created_at = ground.clock.now();
        ground
            .store
            .create_tenant(&quipu_core::store::TenantRecord { tenant: acme.clone(), created_at })
            .await
            .unwrap();
    }
    for round in 1..=rounds {
        for tenant in [&default, &acme] {
            fill(
                &ledger,
                tenant,
                &["s1", "lauf ü 🪢", "s3", "s4"][..=round.min(3)],
                &format!("round {round}"),
            )
            .await;
            assert_eq!(ground.archive(tenant).await.unwrap().batches.len(), 1);
        }
    }
}

/// What a store knows of a tenant's archive and sessions.
#[derive(Debug, PartialEq)]
struct Known {
    batches: Vec<BatchRecord>,
    sessions: Vec<SessionRecord>,
    pointers: Vec<Option<Pointer>>,
    heads: Vec<Option<Head>>,
    /// With their sessions and events. When they were first and last seen is known by the session alone.
    agents: Vec<(AgentId, u64, u64)>,
}

async fn known(store: &dyn Store) -> Vec<Known> {
    let mut all = Vec::new();
    for tenant in &tenants() {
        let sessions = store.sessions(tenant, None, None, 100).await.unwrap();
        let (mut pointers, mut heads) = (Vec::new(), Vec::new());
        for session in &sessions {
            pointers.push(store.pointer(tenant, &session.session_id).await.unwrap());
            heads.push(store.head(tenant, &session.session_id).await.unwrap());
        }
        let mut batches = store.batches(tenant, 0, 100).await.unwrap();
        // A store that is made again does not know until when a batch is hot, and reads it from the archive.
        batches.iter_mut().for_each(|batch| batch.hot_until = Micros::MIN);
        let agents = store.agents(tenant, None, 100).await.unwrap();
        let counts = |agent: AgentRecord| (agent.agent_id, agent.session_count, agent.event_count);
        let agents = agents.into_iter().map(counts).collect();
        all.push(Known { batches, sessions, pointers, heads, agents });
    }
    all
}

fn quipu(args: &[&str]) -> Output {
    let mut command = Command::new(binary());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("QUIPU_")) {
        command.env_remove(name);
    }
    command.args(args).stdin(Stdio::null()).output().unwrap()
}

fn rebuilds(dir: &Path) -> String {
    let output = quipu(&["rebuild", "--data", dir.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    String::from_utf8(output.stdout).unwrap()
}

fn refused(dir: &Path, args: &[&str]) -> String {
    let output = quipu(&[args, &["--data", dir.to_str().unwrap()]].concat());
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
    assert!(output.stdout.is_empty(), "{args:?}");
    said
}

/// The sessions of the tenant `default`, as a client sees them.
fn listed(server: &Server) -> serde_json::Value {
    let agent: ureq::Agent = ureq::Agent::config_builder().proxy(None).build().into();
    let mut answer = agent.get(format!("{}/v1/sessions", server.url)).call().unwrap();
    serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap()
}

fn is_valid(dir: &Path, events: u64) {
    let report = verify_data_dir(dir, &Options::default(), &|_| {});
    assert_eq!((report.verdict, report.events), (Verdict::Valid, events), "{report}");
}

/// Sessions go on where they ended, for one line, and the archive takes what follows.
async fn goes_on(ground: &Ground, before: &[Known]) {
    let ledger = ground.ledger();
    for (tenant, known) in tenants().iter().zip(before) {
        for (session, head) in known.sessions.iter().zip(&known.heads) {
            let head = head.unwrap();
            let appended = append(&ledger, tenant, session.session_id.as_str(), "after", 1).await;
            assert_eq!(appended.standings[0].sequence.get(), head.sequence.get() + 1);
            let next = head.sequence.checked_add(1).unwrap();
            let metas = ground
                .store
                .segments(tenant, &session.session_id, next, quipu_core::store::Order::Asc, 9)
                .await;
            assert_eq!(metas.unwrap()[0].prev_hash, head.hash);
        }
        let fresh = append(&ledger, tenant, "new", "after", 1).await;
        assert_eq!(fresh.standings[0].sequence.get(), 0);
        let batches = ground.archive(tenant).await.unwrap().batches;
        let last = known.batches.last().unwrap();
        assert_eq!(batches.iter().map(|b| b.batch).collect::<Vec<_>>(), [last.batch + 1]);
        assert_eq!(batches[0].events, known.sessions.len() as u64 + 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_a_lost_store_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let ground = Ground::directory(dir);
    prepare(&ground, 3).await;
    let before = known(ground.store.as_ref()).await;
    // Not archived, and so gone with the store.
    append(&ground.ledger(), &tenants()[0], "s1", "lost", 2).await;
    append(&ground.ledger(), &tenants()[0], "lost", "lost", 2).await;
    drop(ground);
    let sessions = listed(&Server::start(dir, &[]));
    assert_eq!(sessions["sessions"].as_array().unwrap().len(), before[0].sessions.len() + 1);
    fs::remove_file(dir.join("ledger.redb")).unwrap();

    let said = refused(dir, &["serve", "--listen", "127.0.0.1:0"]);
    assert!(said.contains("does not start again empty") && said.contains("quipu rebuild"), "{said}");
    let said = rebuilds(dir);
    assert!(said.starts_with("rebuilt: 2 tenants, 6 batches,") && said.contains("ledger is open"), "{said}");
    let events: u64 = before.iter().flat_map(|known| &known.batches).map(|batch| batch.count).sum();
    is_valid(dir, events);

    let ground = Ground::directory(dir);
    assert_eq!(known(ground.store.as_ref()).await, before);
    for tenant in &tenants() {
        let batches = ground.store.batches(tenant, 0, 100).await.unwrap();
        assert!(batches.iter().all(|batch| batch.hot_until == Micros::MIN), "nothing is hot: {batches:?}");
    }
    assert_eq!(ground.store.closed().await.unwrap(), None);
    goes_on(&ground, &before).await;
    drop(ground);
    let added: u64 = before.iter().map(|known| known.sessions.len() as u64 + 1).sum();
    is_valid(dir, events + added);

    // Again, with all of it there: nothing changes, and nothing is lost.
    let ground = Ground::directory(dir);
    let now = known(ground.store.as_ref()).await;
    drop(ground);
    rebuilds(dir);
    let ground = Ground::directory(dir);
    assert_eq!(known(ground.store.as_ref()).await, now);
    drop(ground);
    is_valid(dir, events + added);
    let server = Server::start(dir, &[]);
    assert_eq!(listed(&server)["sessions"].as_array().unwrap().len(), before[0].sessions.len() + 1);
}

/// What was lost moves to another machine: a new directory that gets the archive, and the keys.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_directory_takes_an_archive_over() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [old, new] = [dirs[0].path(), dirs[1].path()];
    let ground = Ground::directory(old);
    prepare(&ground, 2).await;
    let before = known(ground.store.as_ref()).await;
    drop(ground);
    let copy = |name: &str| {
        assert!(Command::new("cp").arg("-rp").arg(old.join(name)).arg(new).status().unwrap().success());
    };
    let said = refused(new, &["rebuild"]);
    assert!(said.contains("put the archive there"), "{said}");
    copy("archive");
    let said = refused(new, &["rebuild"]);
    assert!(said.contains("keys are not whole") && said.contains("quipu verify"), "{said}");
    copy("keys");
    fs::write(new.join("cat.png"), "").unwrap();
    let said = refused(new, &["rebuild"]);
    assert!(said.contains("cat.png"), "{said}");
    fs::remove_file(new.join("cat.png")).unwrap();
    rebuilds(new);
    let ground = Ground::directory(new);
    assert_eq!(known(ground.store.as_ref()).await, before);
    goes_on(&ground, &before).await;

    // Without the private log key all is made again, and said what is missing.
    let dir = tempfile::tempdir().unwrap();
    for name in ["archive", "keys"] {
        assert!(
            Command::new("cp").arg("-rp").arg(old.join(name)).arg(dir.path()).status().unwrap().success()
        );
    }
    fs::remove_file(dir.path().join("keys/log.key")).unwrap();
    let output = quipu(&["rebuild", "--data", dir.path().to_str().unwrap()]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains("log.key") && said.contains("read and"), "{said}");
}

/// A directory whose store is one of an earlier time: with what is archived since, and without.
async fn earlier_store(dir: &Path) -> Vec<Known> {
    let ground = Ground::directory(dir);
    prepare(&ground, 1).await;
    let ledger = ground.ledger();
    for tenant in &tenants() {
        fill(&ledger, tenant, &["s1", "s3"], "open").await;
    }
    drop((ground, ledger));
    fs::copy(dir.join("ledger.redb"), dir.join("earlier")).unwrap();
    let ground = Ground::directory(dir);
    for tenant in &tenants() {
        assert_eq!(ground.archive(tenant).await.unwrap().batches.len(), 1);
        fill(&ground.ledger(), tenant, &["s1", "s4"], "later").await;
        assert_eq!(ground.archive(tenant).await.unwrap().batches.len(), 1);
    }
    let before = known(ground.store.as_ref()).await;
    drop(ground);
    fs::rename(dir.join("earlier"), dir.join("ledger.redb")).unwrap();
    before
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_an_earlier_store_catches_up() {
    let dir = tempfile::tempdir().unwrap();
    let before = earlier_store(dir.path()).await;
    let said = rebuilds(dir.path());
    // Of each tenant two sessions are whole, of two segments each; of `s1` what was archived last is missing behind four.
    assert!(said.contains("8 segments of them still hot"), "{said}");
    let ground = Ground::directory(dir.path());
    assert_eq!(known(ground.store.as_ref()).await, before);
    for tenant in &tenants() {
        assert!(ground.store.open_segments(tenant, None, 9).await.unwrap().is_empty());
    }
    goes_on(&ground, &before).await;
    drop(ground);
    let events: u64 = before.iter().flat_map(|known| &known.batches).map(|batch| batch.count).sum();
    let added: u64 = before.iter().map(|known| known.sessions.len() as u64 + 1).sum();
    is_valid(dir.path(), events + added);
}

/// A store that went on by itself has another history: which one is right is for people to say.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_history_is_refused_and_named() {
    for (session, sequence) in [("s1", 10), ("s4", 0)] {
        let dir = tempfile::tempdir().unwrap();
        earlier_store(dir.path()).await;
        let ground = Ground::directory(dir.path());
        append(&ground.ledger(), &tenants()[1], session, "fork", 1).await;
        let before = known(ground.store.as_ref()).await;
        drop(ground);
        let said = refused(dir.path(), &["rebuild"]);
        let place = format!("tenant acme, batch 3, session {session:?}, sequence {sequence}");
        assert!(said.contains(&place) && said.contains("open as it was"), "{said}");
        let ground = Ground::directory(dir.path());
        assert_eq!(known(ground.store.as_ref()).await, before, "nothing was written");
        assert_eq!(ground.store.closed().await.unwrap(), None);
    }
}

/// An archive that was cut is not the truth.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_that_is_not_right_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let ground = Ground::directory(dir);
    prepare(&ground, 2).await;
    drop(ground);
    let store = fs::read(dir.join("ledger.redb")).unwrap();
    fs::remove_file(dir.join("ledger.redb")).unwrap();
    let archive = dir.join("archive");
    let acme = &tenants()[1];
    let flip = |key: &str| {
        let path = archive.join(key);
        let whole = fs::read(&path).unwrap();
        let mut bytes = whole.clone();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        let mut permissions = fs::metadata(&path).unwrap().permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o644);
        fs::set_permissions(&path, permissions).unwrap();
        fs::write(&path, bytes).unwrap();
        whole
    };
    let header = fs::read(archive.join(paths::header(acme, 1))).unwrap();
    let object = quipu_core::log::header::BatchHeader::parse(&header).unwrap().key;
    let keys =
        [object, paths::header(acme, 2), paths::header_signature(acme, 1), paths::checkpoint_at(acme, 1)];
    for (key, batch) in keys.iter().zip([1, 2, 1, 1]) {
        let whole = flip(key);
        let said = refused(dir, &["rebuild"]);
        assert!(said.contains(&format!("tenant acme, batch {batch}")), "{key}: {said}");
        assert!(said.contains("stays closed"), "{key}: {said}");
        fs::write(archive.join(key), whole).unwrap();
        // What was begun takes nothing in.
        let said = refused(dir, &["serve", "--listen", "127.0.0.1:0"]);
        assert!(said.contains("closed") && said.contains("quipu rebuild"), "{said}");
    }
    // One that is shorter than what was kept outside.
    let kept = dir.parent().unwrap().join(format!("{}.checkpoint", dir.file_name().unwrap().display()));
    let newest = archive.join(paths::checkpoint(acme));
    fs::copy(&newest, &kept).unwrap();
    let cut = |number| {
        let header = fs::read(archive.join(paths::header(acme, number))).unwrap();
        let object = quipu_core::log::header::BatchHeader::parse(&header).unwrap().key;
        for key in [
            object,
            paths::header(acme, number),
            paths::header_signature(acme, number),
            paths::checkpoint_at(acme, number),
        ] {
            fs::remove_file(archive.join(key)).unwrap();
        }
        fs::copy(archive.join(paths::checkpoint_at(acme, number - 1)), &newest).unwrap();
    };
    cut(2);
    let said = refused(dir, &["rebuild", "--checkpoint", kept.to_str().unwrap()]);
    assert!(said.contains("rollback") || said.contains("tile"), "{said}");
    fs::remove_file(&kept).unwrap();
    // The store of before knows of more.
    fs::write(dir.join("ledger.redb"), store).unwrap();
    let tiles = quipu(&["rebuild", "--data", dir.to_str().unwrap()]);
    assert_eq!(tiles.status.code(), Some(1), "{}", String::from_utf8_lossy(&tiles.stderr));
}

/// A crash between claim and signature, and the loss of the store: what was staged is published and signed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_was_begun_is_finished() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let ground = Ground::directory(dir);
    prepare(&ground, 1).await;
    let tenant = &tenants()[1];
    fill(&ground.ledger(), tenant, &["s1"], "claimed").await;
    // The first write of a run to the archive is its claim.
    let crash = ObjectFault::Crash { applied: true };
    let crashing = Arc::new(FaultyObjects::new(ground.objects.clone()).on(ObjectOp::Put, 1, crash));
    let cut = Ground { objects: crashing.clone(), ..ground.clone() };
    cut.archive(tenant).await.unwrap_err();
    assert!(crashing.is_plan_done());
    let before = ground.store.head(tenant, &SessionId::parse("s1").unwrap()).await.unwrap();
    drop((ground, cut, crashing));
    fs::remove_file(dir.join("ledger.redb")).unwrap();
    let said = rebuilds(dir);
    assert!(said.starts_with("rebuilt: 2 tenants, 3 batches"), "{said}");
    let ground = Ground::directory(dir);
    assert_eq!(ground.store.head(tenant, &SessionId::parse("s1").unwrap()).await.unwrap(), before);
    append(&ground.ledger(), tenant, "s1", "after", 1).await;
    assert_eq!(ground.archive(tenant).await.unwrap().batches.len(), 1);
    drop(ground);
    // Of each tenant one batch of two sessions, each of five events; what was claimed; what came after.
    is_valid(dir, 2 * 10 + 5 + 1);
}

fn options(without_gaps: bool) -> RebuildOptions {
    RebuildOptions { hot_retention_ms: None, without_gaps, now: SystemClock.now() }
}

async fn survey(ground: &Ground) -> Survey {
    let options = Options { pinned_key: Some(ground.log_key()), ..Options::default() };
    let objects = ground.objects.clone();
    // The verifier keeps to the thread that it was begun on.
    tokio::task::block_in_place(|| {
        let read = async { Survey::read(objects.as_ref(), &options, &|_| {}).await };
        tokio::runtime::Handle::current().block_on(read).map_err(|finding| finding.to_string()).unwrap()
    })
}

/// Whatever is lost, refused or cut off on the way, the next rebuild ends as one that nothing happened to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_a_rebuild_may_be_cut_off_anywhere() {
    let dir = tempfile::tempdir().unwrap();
    let before = earlier_store(dir.path()).await;
    let earlier = fs::read(dir.path().join("ledger.redb")).unwrap();
    let attempt = |faulty: &Arc<Faulty>, ground: &Ground, survey: Arc<Survey>| {
        let (faulty, objects) = (faulty.clone(), ground.objects.clone());
        async move { rebuild(faulty.as_ref(), &objects, &survey, options(true)).await }
    };
    // How often each call is made, on the way from the earlier store and from none.
    for empty in [false, true] {
        let fresh = || {
            fs::write(dir.path().join("ledger.redb"), &earlier).unwrap();
            let mut ground = Ground::directory(dir.path());
            let lost = tempfile::tempdir().unwrap();
            if empty {
                let path = lost.path().join("ledger.redb");
                let options = quipu_core::store::embedded::EmbeddedOptions::default();
                ground.store =
                    Arc::new(quipu_core::store::embedded::EmbeddedStore::open(&path, &options).unwrap());
            }
            (ground, lost)
        };
        let (ground, _lost) = fresh();
        let survey = Arc::new(survey(&ground).await);
        let whole = Arc::new(Faulty::new(ground.store.clone()));
        attempt(&whole, &ground, survey.clone()).await.unwrap();
        assert_eq!(known(ground.store.as_ref()).await, before);
        let mut tried = 0;
        let counts: Vec<(Op, usize)> = Op::ALL.map(|op| (op, whole.calls(op))).to_vec();
        drop((ground, whole));
        for (op, calls) in counts {
            for nth in [1, calls / 2, calls].into_iter().filter(|nth| (1..=calls).contains(nth)) {
                for fault in [
                    Fault::Lose,
                    Fault::ApplyThenError,
                    Fault::Crash { applied: false },
                    Fault::Crash { applied: true },
                ] {
                    let what = format!("{op:?} {nth} {fault:?}, from nothing: {empty}");
                    let (ground, _lost) = fresh();
                    let faulty = Arc::new(Faulty::new(ground.store.clone()).on(op, nth, fault));
                    let cut = attempt(&faulty, &ground, survey.clone()).await;
                    assert!(matches!(cut, Err(RebuildError::Store(_))), "{what}: {cut:?}");
                    assert!(faulty.is_plan_done(), "{what}");
                    let again = Arc::new(Faulty::new(ground.store.clone()));
                    attempt(&again, &ground, survey.clone()).await.unwrap_or_else(|e| panic!("{what}: {e}"));
                    assert_eq!(known(ground.store.as_ref()).await, before, "{what}");
                    tried += 1;
                }
            }
        }
        assert!(tried > 50, "{tried}");
    }
}

/// A new table gets what the old one knew, and goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_a_lost_table_is_made_again() {
    let mut ground = Ground::aws().await;
    prepare(&ground, 2).await;
    let before = known(ground.store.as_ref()).await;
    ground.store = fresh_store(Emulator::dynoxide());
    let survey = survey(&ground).await;
    for _ in 0..2 {
        rebuild(ground.store.as_ref(), &ground.objects, &survey, options(false)).await.unwrap();
        let after = known(ground.store.as_ref()).await;
        for (after, before) in after.iter().zip(&before) {
            assert_eq!(after.batches, before.batches);
            assert_eq!(after.sessions, before.sessions);
            assert_eq!(after.pointers, before.pointers);
            assert_eq!(after.heads, before.heads);
        }
    }
    goes_on(&ground, &before).await;
}
