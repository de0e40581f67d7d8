//! Every way to tamper with an archive, by what whoever does it can do: (a) change bytes; (b) fix the header besides;
//! (c) sign again with the deployment's own log key; (d) sign with another. What (c) does cleanly is found only with
//! what was kept outside.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::archived::{Archive, Batch, Edit, History, Objects, checkpoint, write};
use super::parquet::{Change, changed};
use super::{DEPLOYMENT, Signers, receipt};
use crate::ids::{Seq, TenantId};
use crate::log::header::BatchHeader;
use crate::log::merkle::{Frontier, Hash, leaf_hash};
use crate::log::paths;
use crate::log::tiles::{Level, Tile};
use crate::statement::Standing;
use crate::time::Micros;
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

    /// One batch's rows changed, at each level.
    fn rows(&mut self) {
        use Change::{Add, Bytes as Raw, Flip, Null, Rows, Text};
        use Code::{Derived, Hash as BadHash, Header, Syntax};
        let count = self.acme[1].entries.len();
        let all: Vec<usize> = (0..count).collect();
        let but = |gone: usize| Rows(all.iter().copied().filter(|row| *row != gone).collect());
        let mut twice = all.clone();
        twice.insert(7, 7);
        let mut swapped = all.clone();
        swapped.swap(7, 8);
        let mut runs_swapped = all[LONG as usize..].to_vec();
        runs_swapped.extend(0..LONG as usize);
        let cases: Vec<(&str, Vec<Change>, Code)> = vec![
            (
                "a payload",
                vec![Text("payload", 7, Some(r#"{"n":8,"toolName":"grep","callId":"c-7"}"#))],
                BadHash,
            ),
            ("a payload that is no JSON", vec![Text("payload", 7, Some("{"))], Syntax),
            ("metadata", vec![Text("metadata", 7, Some("{}"))], BadHash),
            ("a timestamp", vec![Add("timestamp", 7, 1), Add("timestamp_us", 7, 1)], BadHash),
            ("one spelling of a timestamp", vec![Add("timestamp_us", 7, 1)], Syntax),
            ("the other spelling of a timestamp", vec![Add("timestamp", 7, 1)], Syntax),
            ("one spelling of received_at", vec![Add("received_at", 7, 1)], Syntax),
            ("an agent", vec![Text("agent_id", 7, Some("agent/3"))], BadHash),
            ("an agent to nothing", vec![Text("agent_id", 7, Some(""))], Syntax),
            ("a type", vec![Text("event_type", 7, Some("other"))], BadHash),
            ("a severity", vec![Text("severity", 7, Some("warn"))], BadHash),
            ("a severity that is none", vec![Text("severity", 7, Some("fatal"))], Syntax),
            ("a source", vec![Text("source_id", 7, Some("s"))], BadHash),
            ("a redaction count", vec![Add("redaction_count", 7, 1)], BadHash),
            ("a negative redaction count", vec![Add("redaction_count", 7, -1)], Syntax),
            ("a policy", vec![Raw("redaction_policy", 7, Some(vec![1; 32]))], BadHash),
            ("a salt", vec![Raw("salt", 7, Some(vec![1; 16]))], BadHash),
            ("a salt of another length", vec![Raw("salt", 7, Some(vec![1; 15]))], Syntax),
            ("a salt to null", vec![Raw("salt", 7, None)], Syntax),
            ("a payload to null", vec![Text("payload", 7, None)], Syntax),
            ("a digest beside the content", vec![Raw("content_digest", 7, Some(vec![1; 32]))], Syntax),
            ("a hash", vec![Raw("hash", 7, Some(vec![1; 32]))], BadHash),
            ("a hash of another length", vec![Raw("hash", 7, Some(vec![1; 31]))], Syntax),
            ("a run's prev_hash to null", vec![Raw("prev_hash", LONG as usize, None)], Syntax),
            ("a run's prev_hash", vec![Raw("prev_hash", LONG as usize, Some(vec![1; 32]))], BadHash),
            (
                "the first prev_hash of a session",
                vec![Raw("prev_hash", 0, Some(vec![1; 32]))],
                Code::PrevHash,
            ),
            ("a prev_hash within a run", vec![Raw("prev_hash", 7, Some(vec![1; 32]))], Syntax),
            ("an event id", vec![Text("event_id", 7, Some("019c3c1e-0000-7000-8000-0000000000ff"))], Syntax),
            ("a commit id", vec![Text("commit_id", 7, Some("019c3c1e-0000-7000-8000-000000000000"))], Syntax),
            ("a session", vec![Text("session_id", 7, Some("other"))], Header),
            ("a sequence", vec![Add("sequence", 7, 1)], Header),
            ("a derived tool", vec![Text("tool_name", 7, Some("ls"))], Derived),
            ("a derived tool to null", vec![Text("tool_name", 7, None)], Derived),
            ("a derived trace", vec![Text("trace_id", 7, Some("t2"))], Derived),
            ("a derived span", vec![Text("span_id", 8, None)], Derived),
            ("a derived call", vec![Text("call_id", 7, Some("c-8"))], Derived),
            ("a derived provider", vec![Text("provider", 7, Some("p"))], Derived),
            ("a derived model", vec![Text("model", 6, Some("m-2"))], Derived),
            ("derived tokens", vec![Add("input_tokens", 6, 1)], Derived),
            ("derived tokens to null", vec![Null("output_tokens", 6)], Derived),
            ("derived tokens in all", vec![Add("total_tokens", 6, 1)], Derived),
            ("a derived cost", vec![Add("cost_usd", 6, 1)], Derived),
            ("a derived duration", vec![Flip("duration_ms", 6)], Derived),
            ("a derived success", vec![Flip("success", 8)], Derived),
            ("a row dropped", vec![but(7)], Header),
            ("the first row dropped", vec![but(0)], Header),
            ("the last row dropped", vec![but(count - 1)], Header),
            ("a row doubled", vec![Rows(twice)], Header),
            ("the last row doubled", vec![Rows([&all[..], &[count - 1]].concat())], Header),
            ("rows swapped", vec![Rows(swapped)], Header),
            ("rows reversed", vec![Rows(all.iter().rev().copied().collect())], Header),
            ("runs swapped", vec![Rows(runs_swapped)], Header),
            (
                "a hash column that may be null",
                vec![Change::Optional("hash"), Raw("hash", 7, None)],
                Code::Object,
            ),
            ("a column that may be null", vec![Change::Optional("agent_id")], Code::Object),
            ("a column more", vec![Change::More], Code::Object),
            ("a column renamed", vec![Change::Renamed("salt", "pepper")], Code::Object),
            ("columns in another order", vec![Change::Swapped], Code::Object),
        ];
        let key = self.object(2);
        let written_again = changed(&self.acme[1].object, &[]);
        let mut batches = self.acme.clone();
        batches[1].object = written_again;
        let objects = self.laid(&batches, &nothing);
        self.add("rows written again by another writer, signed", objects, None);
        for (name, changes, code) in cases {
            let object = changed(&self.acme[1].object, &changes);
            let plain = self.edited(|o| drop(o.insert(key.clone(), object.clone())));
            self.add(format!("{name} changed"), plain, Some(Code::Object));
            // The header says so, but nobody signed it.
            let fixed = self.edited(|objects| {
                let at = paths::header(&tenant("acme"), 2);
                let mut header = BatchHeader::parse(&objects[&at]).expect("a header");
                (header.bytes, header.sha256) = (object.len() as u64, Sha256::digest(&object).into());
                objects.insert(at, header.to_bytes().into());
                objects.insert(key.clone(), object.clone());
            });
            self.add(format!("{name} changed, the header fixed"), fixed, Some(Code::Signature));
            let mut batches = self.acme.clone();
            batches[1].object = object;
            let signed = self.laid(&batches, &nothing);
            self.add(format!("{name} changed, signed again"), signed, Some(code));
        }
    }

    /// Objects that are no batch, or too many.
    fn files(&mut self) {
        let key = self.object(2);
        let good = self.acme[1].object.clone();
        for (name, object) in [
            ("truncated", good.slice(..good.len() / 2)),
            ("truncated by a byte", good.slice(..good.len() - 1)),
            ("without its beginning", good.slice(4..)),
            ("empty", Bytes::new()),
            ("rubbish", Bytes::from_static(b"PAR1 rubbish PAR1")),
        ] {
            let plain = self.edited(|o| drop(o.insert(key.clone(), object.clone())));
            self.add(format!("an object {name}"), plain, Some(Code::Object));
            let mut batches = self.acme.clone();
            batches[1].object = object;
            let signed = self.laid(&batches, &nothing);
            self.add(format!("an object {name}, signed again"), signed, Some(Code::Object));
        }
        self.add("an object deleted", self.without(&[&key]), Some(Code::Object));
        let day = key.rsplit_once('/').expect("a key").0.to_owned();
        for (name, more) in [
            ("a second file in a partition", format!("{day}/batch-00000000000000000009.parquet")),
            ("a copy in a partition", format!("{day}/copy.parquet")),
            ("the same batch on another day", paths::object(&tenant("acme"), "2026-01-01", 2)),
            ("a file of a tenant without a log", paths::object(&tenant("gamma"), "2026-01-01", 1)),
            ("a file beside the tenants", "events/file".to_owned()),
        ] {
            let objects = self.edited(|o| drop(o.insert(more, good.clone())));
            self.add(name, objects, Some(Code::Object));
        }
        // Two tenants' batches, each in the place of the other.
        let beta = {
            let commits = self.beta[0].header.commits;
            paths::object(&tenant("beta"), &paths::day(commits.1), 1)
        };
        let mine = self.object(1);
        let objects = self.edited(|objects| {
            let (a, b) = (objects[&mine].clone(), objects[&beta].clone());
            objects.insert(mine.clone(), b);
            objects.insert(beta.clone(), a);
        });
        self.add("two tenants' objects swapped", objects, Some(Code::Object));
        let renamed: Objects = self
            .good
            .iter()
            .map(|(key, bytes)| {
                let key = key.replace("acme", "\0").replace("beta", "acme").replace('\0', "beta");
                (key, bytes.clone())
            })
            .collect();
        self.add("two tenants' archives swapped", renamed, Some(Code::Object));
        let mut archive = Archive::new(&self.signers, None);
        archive.lay(&tenant("acme"), &self.beta, &nothing);
        archive.lay(&tenant("beta"), &self.acme, &nothing);
        let objects = archive.objects;
        self.add("two tenants' batches swapped, signed again", objects, Some(Code::Hash));
    }

    fn headers(&mut self) {
        use Code::{Header, Log, Object, Signature};
        let second = paths::header(&tenant("acme"), 2);
        let text = String::from_utf8(self.good[&second].to_vec()).expect("text");
        for (name, from, to, code) in [
            ("edited", "\"count\":303", "\"count\":304", Header),
            ("with another claim", "\"claimed_at\":\"2026", "\"claimed_at\":\"2025", Signature),
            ("with white space", "\"batch\":2,", "\"batch\": 2,", Signature),
            ("with a member more", "{", "{\"more\":1,", Header),
            ("with a member twice", "{", "{\"batch\":2,", Header),
            ("of another version", "batch.v1", "batch.v2", Header),
            ("of another deployment", DEPLOYMENT, "other.example", Header),
            ("of another tenant", "\"tenant\":\"acme\"", "\"tenant\":\"beta\"", Header),
            ("that names another object", "tenant=acme", "tenant=beta", Object),
        ] {
            assert!(text.contains(from), "{name}");
            let bytes = text.replacen(from, to, 1);
            let objects = self.edited(|o| drop(o.insert(second.clone(), bytes.into())));
            self.add(format!("a header {name}"), objects, Some(code));
        }
        let day = |header: &BatchHeader| paths::day(header.commits.1);
        type Edits = Vec<(&'static str, Box<dyn Fn(&mut BatchHeader)>, Option<Code>)>;
        let later = |time: Micros| Micros::new(time.get() + 1).expect("this century");
        let edits: Edits = vec![
            ("another claim", Box::new(move |h| h.claimed_at = later(h.claimed_at)), None),
            ("another time_min", Box::new(move |h| h.times.0 = later(h.times.0)), Some(Header)),
            ("another time_max", Box::new(move |h| h.times.1 = later(h.times.1)), Some(Header)),
            ("another commit_first", Box::new(|h| h.commits.0 = h.commits.1), Some(Header)),
            ("another root", Box::new(|h| h.root = [7; 32]), Some(Header)),
            ("another prev", Box::new(|h| h.prev = [7; 32]), Some(Log)),
            ("another SHA-256", Box::new(|h| h.sha256 = [7; 32]), Some(Object)),
            ("another length", Box::new(|h| h.bytes += 1), Some(Object)),
            (
                "another first leaf",
                Box::new(|h| (h.first_leaf, h.tree_size) = (h.first_leaf + 1, h.tree_size + 1)),
                Some(Header),
            ),
            ("another hash of a run", Box::new(|h| h.runs[0].hash.0[0] ^= 1), Some(Header)),
            (
                "another session in a run",
                Box::new(|h| h.runs[0].session_id = super::session("x")),
                Some(Header),
            ),
            (
                "a run of one row less",
                Box::new(|h| {
                    h.runs[1].last = Seq::new(h.runs[1].last.get() - 1).expect("small");
                    (h.count, h.tree_size) = (h.count - 1, h.tree_size - 1);
                }),
                Some(Header),
            ),
            (
                "a bloom filter without a value",
                Box::new(|h| {
                    h.blooms.agents = crate::log::bloom::Bloom::of(["x"].into_iter());
                }),
                Some(Header),
            ),
            (
                "a longer bloom filter",
                Box::new(|h| {
                    let bytes = [h.blooms.types.as_bytes(), &[0]].concat();
                    h.blooms.types = crate::log::bloom::Bloom::from_bytes(bytes).expect("long enough");
                }),
                Some(Header),
            ),
            (
                "the key of another day",
                Box::new(move |h| h.key = h.key.replace(&day(h), "2026-01-01")),
                Some(Header),
            ),
        ];
        for (name, edit, code) in edits {
            let objects = self.laid(&self.acme, &|header| {
                if header.batch == 2 && header.tenant.as_str() == "acme" {
                    edit(header);
                }
            });
            self.add(format!("a header with {name}, signed again"), objects, code);
        }
        let other = Signers::new(9).log;
        let sig = paths::header_signature(&tenant("acme"), 2);
        let said = String::from_utf8(self.good[&sig].to_vec()).expect("text");
        let said = said[..=said.find("\n\n").expect("a note")].to_owned();
        for (name, note) in [
            ("by another key", other.sign(&said)),
            ("by the receipt key", self.signers.receipt.sign(&said)),
            (
                "of the header before",
                String::from_utf8(self.good[&paths::header_signature(&tenant("acme"), 1)].to_vec())
                    .expect("text"),
            ),
            ("of another tenant", self.signers.log.sign(&said.replace("\nacme\n", "\nbeta\n"))),
            ("that is rubbish", "rubbish".to_owned()),
        ] {
            let objects = self.edited(|o| drop(o.insert(sig.clone(), note.into())));
            self.add(format!("a signature {name}"), objects, Some(Signature));
        }
        self.add("a signature deleted", self.without(&[&sig]), Some(Signature));
        let objects = self.edited(|objects| {
            let (a, b) = (paths::header(&tenant("acme"), 2), paths::header(&tenant("acme"), 3));
            let (two, three) = (objects[&a].clone(), objects[&b].clone());
            objects.insert(a, three);
            objects.insert(b, two);
        });
        self.add("two headers swapped", objects, Some(Object));
    }

    /// What belongs to acme's batch.
    fn parts(&self, batch: u64) -> Vec<String> {
        let acme = tenant("acme");
        vec![
            paths::header(&acme, batch),
            paths::header_signature(&acme, batch),
            paths::checkpoint_at(&acme, batch),
            self.object(batch),
        ]
    }

    fn deletions(&mut self) {
        use Code::{Checkpoint, Key, Log, Object};
        let keys = |parts: &[String]| parts.to_vec();
        let second = self.parts(2);
        let last = self.parts(3);
        let gone = |this: &Self, parts: &[String]| {
            this.without(&parts.iter().map(String::as_str).collect::<Vec<_>>())
        };
        self.add("a header deleted", gone(self, &second[..1]), Some(Object));
        self.add("a batch deleted", gone(self, &keys(&second)), Some(Log));
        self.add("the first batch deleted", gone(self, &self.parts(1)), Some(Log));
        self.add(
            "the last header and object deleted",
            gone(self, &[last[0].clone(), last[3].clone()]),
            Some(Log),
        );
        self.add("the last batch deleted", gone(self, &last), Some(Code::Tile));
        self.add("the last signature deleted", gone(self, &last[1..2]), Some(Code::Signature));
        self.add("the last numbered checkpoint deleted", gone(self, &last[2..3]), Some(Checkpoint));
        let newest = at("checkpoint");
        self.add("the newest checkpoint deleted", self.without(&[&newest]), Some(Checkpoint));
        self.add("the identity deleted", self.without(&[paths::IDENTITY]), Some(Key));
        let events: Vec<String> = (1..=3).map(|n| self.object(n)).collect();
        self.add("all events deleted", gone(self, &events), Some(Object));
        let log: Objects = self
            .good
            .iter()
            .filter(|(k, _)| !k.starts_with("log/acme/"))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        self.add("a whole log deleted, its events left", log, Some(Object));
        // A tenant gone without a trace: nothing in the archive speaks of it.
        let mut archive = Archive::new(&self.signers, None);
        archive.lay(&tenant("beta"), &self.beta, &nothing);
        let objects = archive.objects;
        self.add("a tenant gone without a trace", objects.clone(), None);
        let kept = self.kept(1);
        let case = self.add(
            "a tenant gone without a trace, held against a checkpoint",
            objects.clone(),
            Some(Code::Rollback),
        );
        case.checkpoints = kept;
        let receipts = self.receipt("gone", 0);
        let case = self.add(
            "a tenant gone without a trace, held against a receipt",
            objects,
            Some(Code::ReceiptNotCovered),
        );
        case.receipts = receipts;
        let mut nothing_left = Archive::new(&self.signers, None).objects;
        self.add("everything gone but the identity", nothing_left.clone(), Some(Code::Empty));
        nothing_left.clear();
        nothing_left.insert("log/file".to_owned(), Bytes::new());
        self.add("everything gone", nothing_left, Some(Key));
    }

    fn unfinished(&mut self) {
        use Code::Unfinished;
        let acme = tenant("acme");
        let before = {
            let at = paths::checkpoint_at(&acme, 2);
            self.good[&at].clone()
        };
        let newest = at("checkpoint");
        let last = self.parts(3);
        for (name, gone) in [
            ("without its newest checkpoint", &[][..]),
            ("without its checkpoints", &last[2..3]),
            ("without its checkpoints and signature", &last[1..3]),
            ("of a header alone", &last[1..4]),
        ] {
            let objects = self.edited(|objects| {
                objects.insert(newest.clone(), before.clone());
                for key in gone {
                    objects.remove(key);
                }
            });
            self.add(format!("a last batch {name}"), objects.clone(), Some(Unfinished));
            let kept = self.kept(2);
            let case = self.add(
                format!("a last batch {name}, held against the one before"),
                objects.clone(),
                Some(Unfinished),
            );
            case.checkpoints = kept;
            let kept = self.kept(3);
            let case = self.add(
                format!("a last batch {name}, held against its checkpoint"),
                objects,
                Some(Code::Rollback),
            );
            case.checkpoints = kept;
        }
        let objects = self.edited(|objects| {
            objects.insert(newest.clone(), before);
            objects.remove(&last[1]);
        });
        self.add("a last batch without its signature, with its checkpoint", objects, Some(Code::Signature));
        let mut archive = Archive::new(&self.signers, None);
        archive.lay(&acme, &self.acme[..1], &nothing);
        archive.objects.remove(&at("checkpoint"));
        let objects = archive.objects;
        self.add("a first batch without its newest checkpoint", objects, Some(Unfinished));
    }

    /// Histories that are right in themselves, signed by the deployment's own key.
    fn histories(&mut self) {
        use Code::{Receipt, Rollback, Sequence};
        let rolled_back = self.laid(&self.acme[..2], &nothing);
        self.add("rolled back", rolled_back.clone(), None);
        for (batches, code) in [(1, None), (2, None), (3, Some(Rollback))] {
            let kept = self.kept(batches);
            let name = format!("rolled back, held against checkpoint {batches}");
            self.add(name, rolled_back.clone(), code).checkpoints = kept;
        }
        let receipts = self.receipt("run 1", 9);
        let case =
            self.add("rolled back, held against a later receipt", rolled_back, Some(Code::ReceiptNotCovered));
        case.receipts = receipts;

        let (fork, _) = acme(2);
        let forked = self.laid(&fork, &nothing);
        self.add("another history", forked.clone(), None);
        let kept = self.kept(2);
        self.add("another history, held against a checkpoint", forked.clone(), Some(Rollback)).checkpoints =
            kept;
        let receipts = self.receipt("run 1", 0);
        self.add("another history, held against a receipt", forked, Some(Receipt)).receipts = receipts;
        let half = [&self.acme[..1], &fork[1..]].concat();
        let objects = self.laid(&half, &nothing);
        self.add("another history from batch 2 on", objects, Some(Code::PrevHash));

        // A session gone, and the end of one, as if they had never been.
        let mut history = History::new("acme", 1);
        let without = vec![
            history.batch(&[("run 1", 5), ("lauf ü 🪢", 4)]),
            history.batch(&[("long", LONG), ("run 1", 3)]),
            history.batch(&[("run 1", 2), ("lauf ü 🪢", 2)]),
        ];
        let objects = self.laid(&without, &nothing);
        self.add("a session gone without a trace", objects.clone(), None);
        let receipts = self.receipt("gone", 1);
        let case = self.add(
            "a session gone without a trace, held against a receipt",
            objects.clone(),
            Some(Receipt),
        );
        case.receipts = receipts;
        let kept = self.kept(1);
        let case =
            self.add("a session gone without a trace, held against a checkpoint", objects, Some(Rollback));
        case.checkpoints = kept;
        let mut history = History::new("acme", 1);
        let cut = vec![
            history.batch(&[("run 1", 5), ("lauf ü 🪢", 4), ("gone", 1)]),
            history.batch(&[("long", LONG), ("run 1", 3)]),
            history.batch(&[("run 1", 2), ("lauf ü 🪢", 2)]),
        ];
        let objects = self.laid(&cut, &nothing);
        self.add("a cut tail", objects.clone(), None);
        let receipts = self.receipt("gone", 1);
        self.add("a cut tail, held against a receipt", objects, Some(Receipt)).receipts = receipts;

        let twice = [&self.acme[..2], &self.acme[1..]].concat();
        let objects = self.laid(&twice, &nothing);
        self.add("a batch twice, signed again", objects, Some(Sequence));
        let dropped = [&self.acme[..1], &self.acme[2..]].concat();
        let objects = self.laid(&dropped, &nothing);
        self.add("a batch dropped, signed again", objects, Some(Sequence));
        let objects = self.laid(&self.acme[1..], &nothing);
        self.add("the first batch dropped, signed again", objects, Some(Sequence));
        // Batches in another order: each session's runs may still be sorted, so only what is kept shows it.
        let reversed: Vec<Batch> = self.acme.iter().rev().cloned().collect();
        let objects = self.laid(&reversed, &nothing);
        self.add("batches in another order, signed again", objects.clone(), None);
        let kept = self.kept(1);
        let case = self.add("batches in another order, held against a checkpoint", objects, Some(Rollback));
        case.checkpoints = kept;
    }

    fn keys(&mut self) {
        use Code::{Checkpoint, Key, NoKey, Signature};
        let stranger = Signers::new(9);
        let mut archive = Archive::new(&stranger, None);
        archive.lay(&tenant("acme"), &self.acme, &nothing);
        archive.lay(&tenant("beta"), &self.beta, &nothing);
        let mut objects = archive.objects;
        self.add("all of it by another key", objects.clone(), Some(Key));
        self.add("all of it by another key, none given", objects.clone(), Some(NoKey)).key = None;
        let mine = self.good[paths::IDENTITY].clone();
        objects.insert(paths::IDENTITY.to_owned(), mine);
        self.add("all of it by another key under the old identity", objects, Some(Signature));
        let identity = String::from_utf8(self.good[paths::IDENTITY].to_vec()).expect("text");
        for (name, from, to) in [
            ("of another version", "identity.v1", "identity.v2"),
            (
                "of another deployment",
                "\"deployment\":\"ledger.example\"",
                "\"deployment\":\"other.example\"",
            ),
            ("with a member more", "{", "{\"more\":1,"),
            ("with a member twice", "{", "{\"rotations\":[],"),
            ("with a rotation that is none", "\"rotations\":[]", "\"rotations\":[\"x\"]"),
            ("with a certificate that is none", "\"certificates\":[", "\"certificates\":[\"x\","),
            ("with an edited certificate", "quipu.key.v1", "quipu.key.v2"),
        ] {
            assert!(identity.contains(from), "{name}");
            let bytes = identity.replacen(from, to, 1);
            let objects = self.edited(|o| drop(o.insert(paths::IDENTITY.to_owned(), bytes.into())));
            self.add(format!("an identity {name}"), objects, Some(Key));
        }
        // The log key replaced after the second batch of acme and the first of beta.
        let (size, _) = tree(&self.acme[..2]);
        let (beta_size, _) = tree(&self.beta[..1]);
        let sizes = vec![(tenant("acme"), size), (tenant("beta"), beta_size)];
        let rotated = |sizes: Vec<(TenantId, u64)>| {
            let mut archive = Archive::new(&self.signers, Some(sizes));
            archive.lay(&tenant("acme"), &self.acme, &nothing);
            archive.lay(&tenant("beta"), &self.beta, &nothing);
            archive.objects
        };
        let good = rotated(sizes.clone());
        let later = rotated(vec![(tenant("acme"), size + 4), (tenant("beta"), beta_size + 1)]);
        let identity = paths::IDENTITY.to_owned();
        let mut older = later.clone();
        older.insert(identity.clone(), good[&identity].clone());
        let mut newer = good.clone();
        newer.insert(identity.clone(), later[&identity].clone());
        let mut without = good.clone();
        without.insert(identity, self.good[paths::IDENTITY].clone());
        let mut wrong_checkpoint = good.clone();
        let third = paths::checkpoint_at(&tenant("acme"), 3);
        wrong_checkpoint.insert(third.clone(), later[&third].clone());
        wrong_checkpoint.insert(at("checkpoint"), later[&third].clone());
        let new_key = format!("{}\n", self.signers.next_log.verifier());
        let kept = self.kept(2);
        self.add("a log key that was replaced", good.clone(), None);
        self.add("a log key that was replaced, the newer one given", good.clone(), None).key = Some(new_key);
        self.add("a log key that was replaced, held against a checkpoint of before", good, None)
            .checkpoints = kept;
        self.add("the older key after it was replaced", older, Some(Signature));
        self.add("the newer key before it held", newer, Some(Signature));
        self.add("a rotation dropped from the identity", without, Some(Signature));
        self.add("a checkpoint of the older key after it was replaced", wrong_checkpoint, Some(Checkpoint));
    }

    fn tiles(&mut self) {
        use Code::Tile as BadTile;
        for tile in
            ["tile/0/000", "tile/entries/000", "tile/0/001.p/62", "tile/entries/001.p/62", "tile/1/000.p/1"]
        {
            let key = at(tile);
            let name = tile.replace('/', " ");
            self.add(format!("{name} changed"), self.flipped(&key), Some(BadTile));
            self.add(format!("{name} deleted"), self.without(&[&key]), Some(BadTile));
            let longer = self.edited(|objects| {
                let bytes = [&objects[&key][..], &[0]].concat();
                objects.insert(key.clone(), bytes.into());
            });
            self.add(format!("{name} longer"), longer, Some(BadTile));
        }
        let leaves: Vec<Hash> = self.acme[0].entries.iter().map(leaf_hash).collect();
        for (name, tile, hashes) in [
            (
                "a wrong partial tile of a smaller tree",
                Tile { level: Level::Hashes(0), index: 0, width: 10 },
                &leaves[1..],
            ),
            ("a tile beyond the end", Tile { level: Level::Hashes(0), index: 2, width: 11 }, &leaves[..]),
            (
                "a wider tile at the end",
                Tile { level: Level::Hashes(0), index: 1, width: 63 },
                &[[0; 32]; 63],
            ),
        ] {
            let key = paths::tile(&tenant("acme"), &tile);
            let objects = self.edited(|o| drop(o.insert(key, tile.encode(hashes))));
            self.add(name, objects, Some(BadTile));
        }
    }

    fn checkpoints(&mut self) {
        use Code::Checkpoint as BadCheckpoint;
        let acme = tenant("acme");
        let (size, root) = tree(&self.acme[..2]);
        let key = paths::checkpoint_at(&acme, 2);
        let other = Signers::new(9).log;
        for (name, note) in [
            ("of another root", checkpoint(&acme, size, [7; 32], &self.signers.log)),
            ("of another size", checkpoint(&acme, size + 1, root, &self.signers.log)),
            ("of another tenant", checkpoint(&tenant("beta"), size, root, &self.signers.log)),
            ("by another key", checkpoint(&acme, size, root, &other)),
            ("by the receipt key", checkpoint(&acme, size, root, &self.signers.receipt)),
            ("that is rubbish", "rubbish".to_owned()),
            ("that is nothing", String::new()),
        ] {
            let objects = self.edited(|o| drop(o.insert(key.clone(), note.into())));
            self.add(format!("a checkpoint {name}"), objects, Some(BadCheckpoint));
        }
        self.add("a checkpoint deleted", self.without(&[&key]), Some(BadCheckpoint));
        let first = self.good[&paths::checkpoint_at(&acme, 1)].clone();
        let objects = self.edited(|o| drop(o.insert(at("checkpoint"), first)));
        self.add("the newest checkpoint from long ago", objects, Some(BadCheckpoint));
        let (all, root) = tree(&self.acme);
        let again = format!("{}— witness AAAAAAA=\n", checkpoint(&acme, all, root, &self.signers.log));
        let objects = self.edited(|o| drop(o.insert(at("checkpoint"), again.clone().into())));
        self.add("the newest checkpoint with a cosignature of its own", objects, Some(BadCheckpoint));
        let objects = self.edited(|objects| {
            objects.insert(at("checkpoint"), again.clone().into());
            objects.insert(paths::checkpoint_at(&acme, 3), again.into());
        });
        self.add("a cosigned checkpoint", objects, None);
        let objects = self.edited(|objects| {
            let newest = objects[&at("checkpoint")].clone();
            objects.insert(paths::checkpoint_at(&acme, 4), newest);
        });
        self.add("a checkpoint of a batch that is not there", objects, Some(BadCheckpoint));
    }

    /// What is given from outside and cannot be true.
    fn given(&mut self) {
        use Code::{Receipt, ReceiptNotCovered, Rollback};
        let good = self.good.clone();
        let (size, root) = tree(&self.acme);
        let acme = tenant("acme");
        let other = Signers::new(9);
        for (name, note) in [
            ("of a larger tree", checkpoint(&acme, size + 1, root, &self.signers.log)),
            ("of another root", checkpoint(&acme, size, [7; 32], &self.signers.log)),
            ("of another root of a tree between batches", checkpoint(&acme, 100, [7; 32], &self.signers.log)),
            ("of a tenant without a log", checkpoint(&tenant("gamma"), 1, root, &self.signers.log)),
            ("by another key", checkpoint(&acme, size, root, &other.log)),
            ("that is rubbish", "rubbish".to_owned()),
        ] {
            self.add(format!("a checkpoint given {name}"), good.clone(), Some(Rollback)).checkpoints =
                vec![note];
        }
        let mut part = Frontier::new();
        let entries = self.acme.iter().flat_map(|batch| &batch.entries);
        for entry in entries.take(100) {
            part.push(leaf_hash(entry));
        }
        let between = checkpoint(&acme, 100, part.root(), &self.signers.log);
        self.add("a checkpoint given of a tree between batches", good.clone(), None).checkpoints =
            vec![between];
        let last = self.standings.last().expect("events").clone();
        let claimed = self.acme[2].header.claimed_at.get();
        let at_time = |micros: i64| Micros::new(micros).expect("this century");
        let next = Standing {
            sequence: Seq::new(last.sequence.get() + 1).expect("small"),
            time: at_time(claimed - 24 * 3_600_000_000),
            ..last.clone()
        };
        let late = Standing { time: at_time(claimed - 24 * 3_600_000_000 - 1), ..next.clone() };
        let wrong = Standing { hash: crate::ids::EventHash([7; 32]), ..last.clone() };
        let absent = Standing { session_id: super::session("absent"), ..late.clone() };
        let stranger = Standing { tenant: tenant("gamma"), ..late.clone() };
        let (mine, log, stranger_key) = (Signers::new(1).receipt, Signers::new(1).log, &other.receipt);
        for (name, standing, key, code) in [
            ("of an event that is not archived yet", &next, &mine, ReceiptNotCovered),
            ("of an event that should be archived", &late, &mine, Receipt),
            ("of a session that should be archived", &absent, &mine, Receipt),
            ("of a tenant without a log", &stranger, &mine, ReceiptNotCovered),
            ("with another hash", &wrong, &mine, Receipt),
            ("by another key", &last, stranger_key, Receipt),
            ("by the log key", &last, &log, Receipt),
        ] {
            let (receipts, objects) = (vec![receipt(standing, key)], good.clone());
            self.add(format!("a receipt given {name}"), objects, Some(code)).receipts = receipts;
        }
    }
}
