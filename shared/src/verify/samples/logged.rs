//! A bundle whose log key was rotated, with a checkpoint and proofs; and every way to tamper with those.

use serde_json::{Map, Value, json};

use super::tamper::Tampered;
use super::{DEPLOYMENT, SESSIONS, Sample, Signers, sample, session, tenant, time};
use crate::bundle::{self, ProofRecord};
use crate::ids::{EventHash, Seq, TenantId};
use crate::log::checkpoint::{Checkpoint, origin};
use crate::log::merkle::{self, Frontier, Hash};
use crate::note::NoteSigner;
use crate::statement::{self, Says, Standing};
use crate::verify::{Code, Verdict};

/// A good bundle, and the log that it is about: nine leaves in two batches, of which three are other sessions'. The
/// keys changed after the first batch, of four. The last event of the first session is not archived yet.
#[derive(Debug, Clone)]
pub struct Logged {
    /// The bundle.
    pub sample: Sample,
    /// Entries of the log: hashes of events.
    pub entries: Vec<Hash>,
}

// Where the records stand.
const ROTATION: usize = 1;
const CHECKPOINT: usize = 2;
const A: usize = 3;
const PROOF: usize = 8;
const PROOF_2: usize = 9;
const HEAD: usize = 10;
const B: usize = 11;
const PROOF_B: usize = 14;
const END: usize = 19;

/// Size of the log when the keys changed.
const ROTATED_AT: u64 = 4;

/// Where the events stand in the log: session, first sequence, count, leaf.
const PLACES: [(usize, u64, u64, u64); 3] = [(0, 0, 2, 1), (0, 2, 1, 7), (1, 0, 2, 4)];

/// The root of the leaves of some entries.
fn root(entries: &[Hash]) -> Hash {
    let mut tree = Frontier::new();
    for entry in entries {
        tree.push(merkle::leaf_hash(entry));
    }
    tree.root()
}

impl Logged {
    fn proof(&self, first: u64, count: u64, leaf: u64, size: u64) -> ProofRecord {
        let ranges = merkle::range_ranges(leaf, count, size);
        let hashes = ranges.into_iter().map(|r| root(&self.entries[r.start as usize..r.end as usize]));
        ProofRecord { first: Seq::new(first).expect("small"), count, leaf, hashes: hashes.collect() }
    }

    /// The note of a checkpoint of the log at a size, by one of the log keys.
    pub fn checkpoint(&self, size: u64, key: &NoteSigner) -> String {
        sign(&tenant(), size, root(&self.entries[..size as usize]), key)
    }

    fn size(&self) -> u64 {
        self.entries.len() as u64
    }
}

fn sign(tenant: &TenantId, tree_size: u64, root: Hash, key: &NoteSigner) -> String {
    let checkpoint = Checkpoint { origin: origin(DEPLOYMENT, tenant), tree_size, root };
    key.renamed(&checkpoint.origin).expect("an origin is a key's name").sign(&checkpoint.text())
}

/// A good bundle with a rotation, a checkpoint and proofs, of a seed.
pub fn logged(seed: u8) -> Logged {
    let signers = Signers::new(seed);
    let plain = sample(seed, &tenant());
    let mut entries: Vec<Hash> = (0..9).map(|n| [n ^ seed; 32]).collect();
    // Lines of the plain sample: bundle, session, 4 events, head, session, 2 events, head, end.
    for (session, first, count, leaf) in PLACES {
        for n in 0..count {
            let line = &plain.lines[[2, 8][session] + (first + n) as usize];
            let event: Map<String, Value> = serde_json::from_str(line).expect("the line of an event");
            let hash = event["hash"].as_str().and_then(EventHash::from_hex).expect("its hash");
            entries[(leaf + n) as usize] = hash.0;
        }
    }
    let mut this = Logged { sample: plain.clone(), entries };
    let certificates = [
        signers.certificate(),
        statement::certify(&signers.next_log, DEPLOYMENT, signers.receipt.verifier(), time(3_000_000)),
    ];
    let header = bundle::Header {
        deployment: DEPLOYMENT,
        tenant: &tenant(),
        created_at: time(10_000_000),
        log_key: signers.next_log.verifier(),
        certificates: &certificates,
    };
    let line = |push: &dyn Fn(&mut String)| {
        let mut line = String::new();
        push(&mut line);
        line
    };
    let size = this.size();
    let proof = |(_, first, count, leaf)| {
        let proof = this.proof(first, count, leaf, size);
        line(&|out| bundle::push_proof(out, &proof))
    };
    let lines = [
        vec![
            line(&|out| bundle::push_header(out, &header)),
            line(&|out| bundle::push_rotation(out, &signers.rotate(vec![(tenant(), ROTATED_AT)]))),
            line(&|out| bundle::push_checkpoint(out, &this.checkpoint(size, &signers.next_log))),
        ],
        plain.lines[1..6].to_vec(),
        vec![proof(PLACES[0]), proof(PLACES[1]), plain.lines[6].clone()],
        plain.lines[7..10].to_vec(),
        vec![proof(PLACES[2])],
        plain.lines[10..].to_vec(),
    ];
    this.sample.lines = lines.concat();
    this.sample.key = format!("{}\n", signers.log.verifier());
    this
}

type Object = Map<String, Value>;

struct Cases {
    good: Logged,
    signers: Signers,
    all: Vec<Tampered>,
}

/// The bundle of [`logged`], tampered with in every way that concerns its rotation, checkpoint and proofs.
pub fn tampered_logged_bundles(seed: u8) -> Vec<Tampered> {
    let mut cases = Cases { good: logged(seed), signers: Signers::new(seed), all: Vec::new() };
    assert_eq!(cases.good.sample.lines.len(), END + 1, "the sample has the layout that the cases count on");
    cases.harmless();
    cases.rotations(seed);
    cases.checkpoints(seed);
    cases.proofs();
    cases.order();
    cases.given();
    cases.all
}

impl Cases {
    fn add(&mut self, name: impl Into<String>, bundle: String, code: Option<Code>) -> &mut Tampered {
        let verdict = match code {
            None => Verdict::Valid,
            Some(Code::NoKey | Code::CheckpointNotCovered | Code::ReceiptNotCovered | Code::Unreadable) => {
                Verdict::Incomplete
            }
            Some(_) => Verdict::Invalid,
        };
        self.all.push(Tampered {
            name: format!("log: {}", name.into()),
            bundle: bundle.into_bytes(),
            key: Some(self.good.sample.key.clone()),
            receipts: Vec::new(),
            checkpoints: Vec::new(),
            verdict,
            code,
        });
        self.all.last_mut().expect("one was just added")
    }

    fn text(&self) -> String {
        self.good.sample.text()
    }

    fn with(&self, index: usize, line: &str) -> String {
        let mut lines = self.good.sample.lines.clone();
        line.clone_into(&mut lines[index]);
        lines.concat()
    }

    fn edit(&self, index: usize, edit: impl FnOnce(&mut Object)) -> String {
        let mut object: Object =
            serde_json::from_str(&self.good.sample.lines[index]).expect("a line of a good bundle");
        edit(&mut object);
        self.with(index, &format!("{}\n", Value::Object(object)))
    }

    fn set(&self, index: usize, member: &str, value: Value) -> String {
        self.edit(index, |object| drop(object.insert(member.to_owned(), value)))
    }

    fn note(&self, index: usize) -> String {
        let object: Object =
            serde_json::from_str(&self.good.sample.lines[index]).expect("a line of a good bundle");
        object["note"].as_str().expect("a note").to_owned()
    }

    fn without(&self, gone: &[usize]) -> String {
        let lines = self.good.sample.lines.iter().enumerate();
        lines.filter(|(index, _)| !gone.contains(index)).map(|(_, line)| line.as_str()).collect()
    }

    fn harmless(&mut self) {
        let good = self.text();
        self.add("untouched", good.clone(), None);
        let new = format!("{}\n", self.signers.next_log.verifier());
        self.add("the newer key given", good, None).key = Some(new);
        self.add("no proofs", self.without(&[PROOF, PROOF_2, PROOF_B]), None);
        let bare = self.without(&[CHECKPOINT, PROOF, PROOF_2, PROOF_B]);
        self.add("neither checkpoint nor proofs", bare, None);
        let one = self.good.proof(1, 1, 2, self.good.size());
        let mut line = String::new();
        bundle::push_proof(&mut line, &one);
        self.add("a proof of less", self.with(PROOF, &line), None);
    }

    fn rotations(&mut self, seed: u8) {
        use Code::{Checkpoint as BadCheckpoint, Key, Syntax};
        self.add("the rotation dropped", self.without(&[ROTATION]), Some(Key));
        let old = self.signers.log.verifier().to_string();
        self.add("the older key as log_key", self.set(0, "log_key", json!(old)), Some(Key));
        let stranger = Signers::new(seed ^ 0x40);
        let theirs = format!("{}\n", stranger.log.verifier());
        self.add("a key given that is not in the chain", self.text(), Some(Key)).key = Some(theirs);
        let note = self.note(ROTATION);
        let (text, signatures) = note.split_at(note.find("\n\n").expect("a note") + 1);
        let lines: Vec<&str> = signatures[1..].split_inclusive('\n').collect();
        let signers = Signers::new(seed);
        let both = |text: &str| {
            let (by_old, by_new) = (signers.log.sign(text), signers.next_log.sign(text));
            format!("{by_old}{}", &by_new[text.len() + 1..])
        };
        let swapped = {
            let (old, new) = (self.signers.log.verifier(), self.signers.next_log.verifier());
            let text = text.replace(&old.to_string(), "\0");
            both(&text.replace(&new.to_string(), &old.to_string()).replace('\0', &new.to_string()))
        };
        let mut cases = vec![
            ("not signed by the older key", format!("{text}\n{}", lines[1]), Key),
            ("not signed by the newer key", format!("{text}\n{}", lines[0]), Key),
            ("edited", note.replace("acme 4", "acme 5"), Key),
            ("of another deployment", both(&text.replacen("ledger.example\n", "other.example\n", 1)), Key),
            ("of another version", both(&text.replace("rotation.v1", "rotation.v2")), Key),
            ("that goes back", swapped, Key),
            ("with a tenant twice", both(&format!("{text}acme 4\n")), Key),
            ("with tenants out of order", both(&format!("{text}aaa 4\n")), Key),
            ("with a size that has a leading zero", both(&text.replace("acme 4", "acme 04")), Key),
            ("without its time", both(&text.replace("1770544803000000\n", "")), Key),
            ("at a later size", both(&text.replace("acme 4", "acme 9")), BadCheckpoint),
        ];
        let other = stranger.rotate(vec![(tenant(), ROTATED_AT)]);
        cases.push(("of other keys", other, Key));
        for (name, note, code) in cases {
            let bundle = self.set(ROTATION, "note", json!(note));
            self.add(format!("a rotation {name}"), bundle, Some(code));
        }
        // What the rotation does not name had no leaves: the checkpoint is the newer key's.
        let unnamed = self.set(ROTATION, "note", json!(both(&text.replace("acme 4\n", ""))));
        self.add("a rotation without this tenant", unnamed, None);
        let lines = &self.good.sample.lines;
        let twice = [&lines[..=ROTATION], &lines[ROTATION..]].concat().concat();
        self.add("the rotation twice", twice, Some(Key));
        let more = self.edit(ROTATION, |object| drop(object.insert("more".into(), json!(1))));
        self.add("a rotation with a member more", more, Some(Syntax));
        let none = self.edit(ROTATION, |object| drop(object.remove("note")));
        self.add("a rotation without its note", none, Some(Syntax));
        let first = self.set(0, "certificates", json!([self.signers.certificate()]));
        self.add("only the certificate of the older key", first, None);
    }

    fn checkpoints(&mut self, seed: u8) {
        use Code::{Checkpoint as BadCheckpoint, Proof};
        let (old, new) = (&self.signers.log, &self.signers.next_log);
        let stranger = Signers::new(seed ^ 0x40);
        let size = self.good.size();
        let right = root(&self.good.entries);
        let other = TenantId::parse("other").expect("a tenant's name");
        let good = self.good.checkpoint(size, new);
        let text = &good[..=good.find("\n\n").expect("a note")];
        let renamed = new.renamed(&origin(DEPLOYMENT, &tenant())).expect("a key's name");
        let cases = [
            ("by the older key, above its size", self.good.checkpoint(size, old), Some(BadCheckpoint)),
            ("by another key", self.good.checkpoint(size, &stranger.log), Some(BadCheckpoint)),
            ("by the newer key, below its size", self.good.checkpoint(4, new), Some(BadCheckpoint)),
            ("of another tenant", sign(&other, size, right, new), Some(BadCheckpoint)),
            ("under the key's own name", new.sign(text), Some(BadCheckpoint)),
            ("unsigned", text.to_owned(), Some(BadCheckpoint)),
            ("edited", good.replace("\n9\n", "\n8\n"), Some(BadCheckpoint)),
            ("with an extension line", renamed.sign(&format!("{text}more\n")), Some(BadCheckpoint)),
            ("with a leading zero", renamed.sign(&text.replace("\n9\n", "\n09\n")), Some(BadCheckpoint)),
            (
                "with a size past 63 bits",
                renamed.sign(&text.replace("\n9\n", "\n9223372036854775808\n")),
                Some(BadCheckpoint),
            ),
            ("of another deployment", sign_as("other.example/acme", size, right, new), Some(BadCheckpoint)),
            ("with another root", sign(&tenant(), size, [7; 32], new), Some(Proof)),
            ("of a smaller tree", self.good.checkpoint(8, new), Some(Proof)),
            ("of a larger tree", sign(&tenant(), 17, right, new), Some(Proof)),
            ("of the older key's tree", self.good.checkpoint(ROTATED_AT, old), Some(Proof)),
            (
                "with a cosignature, passed over",
                format!("{good}{}", signature_line(&stranger.receipt.sign("something else\n"))),
                None,
            ),
            (
                "with a second signature of its key that is bad",
                format!("{good}{}", signature_line(&renamed.sign("something else\n"))),
                Some(BadCheckpoint),
            ),
        ];
        for (name, note, code) in cases {
            let bundle = self.set(CHECKPOINT, "note", json!(note));
            self.add(format!("a checkpoint {name}"), bundle, code);
        }
        self.add("the checkpoint dropped", self.without(&[CHECKPOINT]), Some(Proof));
    }

    fn proofs(&mut self) {
        use Code::{Proof, Syntax};
        let object: Object = serde_json::from_str(&self.good.sample.lines[PROOF]).expect("a proof");
        let hashes = object["hashes"].as_array().expect("hashes").clone();
        let swapped: Vec<Value> = [&[hashes[1].clone(), hashes[0].clone()], &hashes[2..]].concat();
        let more = [&hashes[..], &[json!("00".repeat(32))]].concat();
        let mut wrong = hashes.clone();
        wrong[0] = json!("00".repeat(32));
        for (name, member, value, code) in [
            ("wrong leaf", "leaf", json!(2), Proof),
            ("leaf of another session", "leaf", json!(4), Proof),
            ("leaf past the end", "leaf", json!(8), Proof),
            ("leaf far past the end", "leaf", json!(i64::MAX), Proof),
            ("swapped hashes", "hashes", json!(swapped), Proof),
            ("missing hash", "hashes", json!(hashes[1..]), Proof),
            ("no hashes", "hashes", json!([]), Proof),
            ("extra hash", "hashes", json!(more), Proof),
            ("wrong hash", "hashes", json!(wrong), Proof),
            ("count of nothing", "count", json!(0), Proof),
            ("count too low", "count", json!(1), Proof),
            ("count too high", "count", json!(3), Proof),
            ("count past the session's end", "count", json!(5), Proof),
            ("count as far as numbers go", "count", json!(i64::MAX), Proof),
            ("first too high", "first", json!(1), Proof),
            ("first past the session's end", "first", json!(4), Proof),
            ("leaf past 63 bits", "leaf", json!(1u64 << 63), Syntax),
            ("leaf below zero", "leaf", json!(-1), Syntax),
            ("leaf as text", "leaf", json!("1"), Syntax),
            ("first as a fraction", "first", json!(0.0), Syntax),
            ("hash too short", "hashes", json!(["00"]), Syntax),
            ("hash in capitals", "hashes", json!(["AB".repeat(32)]), Syntax),
            ("hashes as text", "hashes", json!("00".repeat(32)), Syntax),
            ("member more", "more", json!(1), Syntax),
        ] {
            let bundle = self.set(PROOF, member, value);
            self.add(format!("a proof with a {name}"), bundle, Some(code));
        }
        let less = self.edit(PROOF, |object| drop(object.remove("leaf")));
        self.add("a proof without a leaf", less, Some(Syntax));
        let lines = self.good.sample.lines.clone();
        let bundle = self.with(PROOF_B, &lines[PROOF]);
        self.add("a proof of another session", bundle, Some(Proof));
        let twice = [&lines[..=PROOF], &lines[PROOF..]].concat().concat();
        self.add("a proof twice", twice, Some(Proof));
        let mut out_of_order = lines;
        out_of_order.swap(PROOF, PROOF_2);
        self.add("proofs out of order", out_of_order.concat(), Some(Proof));
    }

    /// Records out of their places.
    fn order(&mut self) {
        use Code::{Proof, Syntax};
        for (name, index, to, code) in [
            ("the checkpoint before the rotation", CHECKPOINT, ROTATION, Code::Key),
            ("the checkpoint after a session", CHECKPOINT, B - 1, Proof),
            ("the checkpoint before the last session's events", CHECKPOINT, B, Proof),
            ("the checkpoint in a session", CHECKPOINT, A, Syntax),
            ("the rotation after a session", ROTATION, B - 1, Code::Key),
            ("the rotation first", ROTATION, 0, Syntax),
            ("a proof before the last event", PROOF, PROOF - 1, Syntax),
            ("a proof before its session", PROOF, A, Syntax),
            ("a proof before the first event", PROOF, A + 1, Syntax),
            ("a proof after the head", PROOF_2, HEAD, Syntax),
            ("a proof after the end", PROOF, END, Code::Truncated),
        ] {
            let mut lines = self.good.sample.lines.clone();
            let line = lines.remove(index);
            lines.insert(to, line);
            self.add(name, lines.concat(), Some(code));
        }
        let lines = self.good.sample.lines.clone();
        let twice = [&lines[..=CHECKPOINT], &lines[CHECKPOINT..]].concat().concat();
        self.add("the checkpoint twice", twice, Some(Syntax));
        self.add("the head dropped after proofs", self.without(&[HEAD]), Some(Syntax));
        // The events that a proof is of must stand before it, as must the checkpoint.
        let gone = self.without(&[CHECKPOINT, PROOF_B]);
        self.add("proofs of one session without a checkpoint", gone, Some(Proof));
    }

    /// Checkpoints kept outside.
    fn given(&mut self) {
        use Code::{CheckpointNotCovered, NoKey, Receipt, Rollback};
        let size = self.good.size();
        let (old, new) = (&self.signers.log, &self.signers.next_log);
        let good = self.good.checkpoint(size, new);
        let other = TenantId::parse("other").expect("a tenant's name");
        let stranger = &Signers::new(0x7e).log;
        let cases = [
            ("the same", vec![good.clone()], None),
            ("the same by the older key", vec![self.good.checkpoint(size, old)], None),
            ("of another size", vec![self.good.checkpoint(5, new)], Some(CheckpointNotCovered)),
            ("of another tenant", vec![sign(&other, size, [7; 32], new)], Some(CheckpointNotCovered)),
            ("with another root", vec![sign(&tenant(), size, [7; 32], new)], Some(Rollback)),
            ("with another root by the older key", vec![sign(&tenant(), size, [7; 32], old)], Some(Rollback)),
            ("by another key", vec![self.good.checkpoint(size, stranger)], Some(Rollback)),
            (
                "of another deployment",
                vec![sign_as("other.example/acme", size, [7; 32], new)],
                Some(Rollback),
            ),
            ("unsigned", vec![good[..=good.find("\n\n").expect("a note")].to_owned()], Some(Rollback)),
            ("that is rubbish", vec!["rubbish".to_owned()], Some(Rollback)),
            ("that is nothing", vec![String::new()], Some(Rollback)),
            (
                "of another size, and one with another root",
                vec![self.good.checkpoint(5, new), sign(&tenant(), size, [7; 32], new)],
                Some(Rollback),
            ),
        ];
        for (name, checkpoints, code) in cases {
            let bundle = self.text();
            self.add(format!("a checkpoint given: {name}"), bundle, code).checkpoints = checkpoints;
        }
        let bare = self.without(&[CHECKPOINT, PROOF, PROOF_2, PROOF_B]);
        let code = Some(CheckpointNotCovered);
        self.add("a checkpoint given, none in the bundle", bare, code).checkpoints = vec![good.clone()];
        let text = self.text();
        let small = self.good.checkpoint(5, &self.signers.next_log);
        let case = self.add("a checkpoint of another size given, no key", text.clone(), Some(NoKey));
        (case.key, case.checkpoints) = (None, vec![small.clone()]);
        let wrong = Standing {
            tenant: tenant(),
            session_id: session(SESSIONS[0].0),
            sequence: Seq::ZERO,
            hash: EventHash([7; 32]),
            time: time(2_000_000),
        };
        let receipt = wrong.sign(Says::Receipt, &self.signers.receipt);
        let fork = sign(&tenant(), size, [7; 32], &self.signers.next_log);
        let case = self.add("a wrong checkpoint and a wrong receipt given", text.clone(), Some(Rollback));
        (case.receipts, case.checkpoints) = (vec![receipt.clone()], vec![fork]);
        let case = self.add("a right checkpoint and a wrong receipt given", text.clone(), Some(Receipt));
        (case.receipts, case.checkpoints) = (vec![receipt], vec![good]);
        let absent = Standing { session_id: session("absent"), ..wrong };
        let receipt = absent.sign(Says::Receipt, &self.signers.receipt);
        let case = self.add("neither checkpoint nor receipt covered", text, Some(CheckpointNotCovered));
        (case.receipts, case.checkpoints) = (vec![receipt], vec![small]);
    }
}

fn sign_as(origin: &str, tree_size: u64, root: Hash, key: &NoteSigner) -> String {
    let checkpoint = Checkpoint { origin: origin.to_owned(), tree_size, root };
    key.renamed(origin).expect("an origin is a key's name").sign(&checkpoint.text())
}

fn signature_line(note: &str) -> &str {
    &note[note.find('—').expect("a signature")..]
}
