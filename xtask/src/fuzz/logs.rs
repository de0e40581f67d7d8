//! Seeds and words of what is in a log.

use anyhow::Context as _;
use quipu_core::ids::{CommitId, EventHash, Seq, SessionId, TenantId};
use quipu_core::log::bloom::Bloom;
use quipu_core::log::checkpoint::{Checkpoint, origin};
use quipu_core::log::header::{BatchHeader, Blooms, Run};
use quipu_core::log::identity::IdentityFile;
use quipu_core::log::keys::Rotation;
use quipu_core::log::paths;
use quipu_core::log::proof::LogProof;
use quipu_core::log::tiles::all_tiles;
use quipu_core::note::NoteSigner;
use quipu_core::statement::{certify, log_key_name, receipt_key_name};
use quipu_core::time::Micros;

/// The deployment of the seeds, as `fuzz/src/note.rs` knows it.
const DEPLOYMENT: &str = "fuzz";

pub(super) const TOKENS: &[&str] = &[
    "\"batch\":",
    "\"first_leaf\":",
    "\"count\":",
    "\"tree_size\":",
    "\"runs\":[",
    "\"first\":",
    "\"last\":",
    "\"blooms\":{",
    "\"rotations\":[",
    "null",
    "9223372036854775807",
    "9223372036854775808",
    "0",
    "01",
    "extra AA==\n",
    "index ",
    "c2sp.org/tlog-proof@v1\n",
    "quipu.rotation.v1\n",
    "fuzz/default\n",
    "default 7\n",
    "log/",
    "tile/",
    "entries/",
    "x001/",
    ".p/",
    "255",
    "256",
    "000",
    "events/tenant=",
    "/dt=",
    "\n",
    "\n\n",
    "=",
    "+",
];

fn header(tenant: &TenantId) -> anyhow::Result<BatchHeader> {
    let sequence = |value| Seq::new(value).context("a sequence");
    let run = |name: &str, first, last| -> anyhow::Result<Run> {
        let (first, last) = (sequence(first)?, sequence(last)?);
        Ok(Run { session_id: SessionId::parse(name)?, first, last, hash: EventHash([5; 32]) })
    };
    let commit = CommitId::mint(1_770_000_000_000, [7; 10]);
    Ok(BatchHeader {
        deployment: DEPLOYMENT.into(),
        tenant: tenant.clone(),
        batch: 2,
        prev: [1; 32],
        first_leaf: 100,
        count: 13,
        tree_size: 113,
        root: [2; 32],
        claimed_at: Micros::MAX,
        commits: (commit, commit),
        times: (Micros::MIN, Micros::MAX),
        key: paths::object(tenant, &paths::day(commit), 2),
        bytes: 4096,
        sha256: [3; 32],
        staging: "staging/1".into(),
        runs: vec![run("one", 5, 9)?, run("a session — 2", 0, 7)?],
        blooms: Blooms {
            sessions: Bloom::of(["one", "a session — 2"].into_iter()),
            agents: Bloom::of(["agent"].into_iter()),
            types: Bloom::of([].into_iter()),
        },
    })
}

pub(super) fn seeds() -> anyhow::Result<Vec<Vec<u8>>> {
    let tenant = TenantId::default_tenant();
    let (log_name, receipt_name) = (log_key_name(DEPLOYMENT), receipt_key_name(DEPLOYMENT));
    let log = NoteSigner::from_seed(&log_name, &[1; 32])?;
    let next = NoteSigner::from_seed(&log_name, &[4; 32])?;
    let receipt = NoteSigner::from_seed(&receipt_name, &[2; 32])?;
    let checkpoint = Checkpoint { origin: origin(DEPLOYMENT, &tenant), tree_size: 5, root: [9; 32] };
    let note = log.renamed(&checkpoint.origin)?.sign(&checkpoint.text());
    let proof = LogProof { extra: None, index: 4, hashes: vec![[6; 32], [7; 32]], checkpoint: note };
    let rotation = Rotation {
        deployment: DEPLOYMENT.into(),
        old: log.verifier().clone(),
        new: next.verifier().clone(),
        time: Micros::MAX,
        sizes: vec![(TenantId::parse("acme")?, 1), (tenant.clone(), 7)],
    };
    let text = rotation.text();
    let identity = |key: &NoteSigner, rotations| IdentityFile {
        deployment: DEPLOYMENT.into(),
        log_key: key.verifier().clone(),
        certificates: vec![certify(&log, DEPLOYMENT, receipt.verifier(), Micros::MIN)],
        rotations,
    };
    let rotated = rotation.join(&log.sign(&text), &next.sign(&text))?;
    let mut seeds = vec![
        [b"0", &header(&tenant)?.to_bytes()[..]].concat(),
        format!("1{}", checkpoint.text()).into_bytes(),
        format!("2{}", proof.text()).into_bytes(),
        format!("2{}", LogProof { extra: Some(vec![1, 2]), ..proof }.text()).into_bytes(),
        [b"3", &identity(&log, Vec::new()).to_bytes()[..]].concat(),
        [b"3", &identity(&next, vec![rotated]).to_bytes()[..]].concat(),
        format!("5{text}").into_bytes(),
    ];
    let keys = [
        paths::IDENTITY.to_owned(),
        paths::header(&tenant, 1),
        paths::header_signature(&tenant, 2),
        paths::checkpoint_at(&tenant, 3),
        paths::checkpoint(&tenant),
        paths::object(&tenant, "2026-02-08", 4),
        "tile/7/000.p/127".to_owned(),
        "tile/entries/x001/x234/067".to_owned(),
    ];
    let tiles = all_tiles(600).flat_map(|tile| [tile.path(), paths::tile(&tenant, &tile)]);
    seeds.extend(keys.into_iter().chain(tiles).map(|key| format!("4{key}").into_bytes()));
    Ok(seeds)
}
