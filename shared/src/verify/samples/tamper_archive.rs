//! Every way to tamper with an archive, by what whoever does it can do: (a) change bytes; (b) fix the header besides;
//! (c) sign again with the deployment's own log key; (d) sign with another. What (c) does cleanly is found only with
//! what was kept outside.

mod erased;
mod gone;
mod headers;
mod rows;
mod signed;
mod tree;

use std::io;
use std::path::{Path, PathBuf};

use super::archived::{Archive, Batch, Edit, History, Objects, checkpoint, write};
use super::{Signers, receipt};
use crate::ids::{Seq, TenantId};
use crate::log::header::BatchHeader;
use crate::log::merkle::{Frontier, Hash, leaf_hash};
use crate::log::paths;
use crate::statement::Standing;
use crate::verify::{Code, Verdict};

/// An archive in a directory with what it is held against, and what a verifier must say.
#[derive(Debug, Clone)]
pub struct TamperedArchive {
    /// What was done, in words that fit a file name.
    pub name: String,
    /// Where it lies.
    pub path: PathBuf,
    /// Content of the key file, if one is given.
    pub key: Option<String>,
    /// Contents of files of receipts.
    pub receipts: Vec<String>,
    /// Contents of files of checkpoints.
    pub checkpoints: Vec<String>,
    /// The verdict.
    pub verdict: Verdict,
    /// Its code, unless it is VALID.
    pub code: Option<Code>,
}

/// Writes archives below a directory: a good one, tampered with in every way; and some changes that must not matter.
///
/// # Errors
/// The file system's.
pub fn tampered_archives(directory: &Path) -> io::Result<Vec<TamperedArchive>> {
    let mut cases = Cases::new();
    cases.harmless();
    cases.rows();
    cases.files();
    cases.headers();
    cases.deletions();
    cases.unfinished();
    cases.histories();
    cases.keys();
    cases.tiles();
    cases.checkpoints();
    cases.given();
    cases.erasures();
    for (number, (objects, case)) in cases.all.iter_mut().enumerate() {
        case.path = directory.join(format!("{number:03}"));
        write(objects, &case.path)?;
    }
    Ok(cases.all.into_iter().map(|(_, case)| case).collect())
}

/// Rows of batch 2 of the sample: 300 of one session, then 3 of another.
const LONG: u64 = 300;

struct Cases {
    signers: Signers,
    acme: Vec<Batch>,
    standings: Vec<Standing>,
    beta: Vec<Batch>,
    good: Objects,
    all: Vec<(Objects, TamperedArchive)>,
}

fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).expect("a tenant's name")
}

/// The batches of the sample's first tenant.
fn acme(salt: u8) -> (Vec<Batch>, Vec<Standing>) {
    let mut history = History::new("acme", salt);
    let batches = vec![
        history.batch(&[("run 1", 5), ("lauf ü 🪢", 4), ("gone", 2)]),
        history.batch(&[("long", LONG), ("run 1", 3)]),
        history.batch(&[("run 1", 2), ("lauf ü 🪢", 2)]),
    ];
    (batches, history.standings)
}

fn tree(batches: &[Batch]) -> (u64, Hash) {
    let mut tree = Frontier::new();
    for entry in batches.iter().flat_map(|batch| &batch.entries) {
        tree.push(leaf_hash(entry));
    }
    (tree.size(), tree.root())
}

fn nothing(_: &mut BatchHeader) {}

/// A key of acme's log.
fn at(rest: &str) -> String {
    format!("log/acme/{rest}")
}

impl Cases {
    fn new() -> Self {
        let signers = Signers::new(1);
        let (acme, standings) = acme(1);
        let mut history = History::new("beta", 1);
        let beta = vec![history.batch(&[("run 1", 5), ("lauf ü 🪢", 4)]), history.batch(&[("run 1", 1)])];
        let mut this = Self { signers, acme, standings, beta, good: Objects::new(), all: Vec::new() };
        this.good = this.laid(&this.acme, &nothing);
        this
    }

    /// The archive with these batches of acme, signed by the deployment's key.
    fn laid(&self, batches: &[Batch], edit: Edit<'_>) -> Objects {
        let mut archive = Archive::new(&self.signers, None);
        archive.lay(&tenant("acme"), batches, edit);
        archive.lay(&tenant("beta"), &self.beta, &nothing);
        archive.objects
    }

    fn add(&mut self, name: impl Into<String>, objects: Objects, code: Option<Code>) -> &mut TamperedArchive {
        let case = TamperedArchive {
            name: format!("archive: {}", name.into()),
            path: PathBuf::new(),
            key: Some(format!("{}\n", self.signers.log.verifier())),
            receipts: Vec::new(),
            checkpoints: Vec::new(),
            verdict: crate::verify::archive::verdict(code),
            code,
        };
        self.all.push((objects, case));
        &mut self.all.last_mut().expect("one was just added").1
    }

    fn edited(&self, edit: impl FnOnce(&mut Objects)) -> Objects {
        let mut objects = self.good.clone();
        edit(&mut objects);
        objects
    }

    /// With the objects of these keys flipped in one bit, somewhere in the middle.
    fn flipped(&self, key: &str) -> Objects {
        self.edited(|objects| {
            let mut bytes = objects[key].to_vec();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            objects.insert(key.to_owned(), bytes.into());
        })
    }

    fn without(&self, keys: &[&str]) -> Objects {
        self.edited(|objects| {
            for key in keys {
                objects.remove(*key).expect("it is there");
            }
        })
    }

    /// Key of the object of acme's batch.
    fn object(&self, batch: u64) -> String {
        let commits = self.acme[batch as usize - 1].header.commits;
        paths::object(&tenant("acme"), &paths::day(commits.1), batch)
    }

    fn receipt(&self, session: &str, sequence: u64) -> Vec<String> {
        let standing = self
            .standings
            .iter()
            .find(|s| s.session_id.as_str() == session && Seq::new(sequence) == Some(s.sequence));
        vec![receipt(standing.expect("an event of the sample"), &self.signers.receipt)]
    }

    /// Acme's checkpoint after so many batches, of the true history.
    fn kept(&self, batches: usize) -> Vec<String> {
        let (size, root) = tree(&self.acme[..batches]);
        vec![checkpoint(&tenant("acme"), size, root, &self.signers.log)]
    }

    fn harmless(&mut self) {
        let good = self.good.clone();
        self.add("untouched", good.clone(), None);
        for batches in 1..=3 {
            let kept = self.kept(batches);
            self.add(format!("held against checkpoint {batches}"), good.clone(), None).checkpoints = kept;
        }
        let receipts = self.standings.iter().map(|s| receipt(s, &self.signers.receipt)).collect();
        self.add("held against every receipt", good.clone(), None).receipts = receipts;
        self.add("no key given", good, Some(Code::NoKey)).key = None;
        // What a smaller tree left behind may go.
        let objects = self.without(&[&at("tile/0/000.p/11"), &at("tile/entries/000.p/11")]);
        self.add("the partial tiles of a smaller tree gone", objects, None);
        let objects = self.laid(&self.acme, &|header| "elsewhere".clone_into(&mut header.staging));
        self.add("another staging key, which nothing else says", objects, None);
    }
}
