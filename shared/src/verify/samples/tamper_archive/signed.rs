//! What is signed: other histories, by the deployment's own key, and other keys.

use super::super::Signers;
use super::super::archived::{Archive, Batch, History};
use super::{Cases, LONG, acme, at, nothing, tenant, tree};
use crate::ids::TenantId;
use crate::log::paths;
use crate::verify::Code;

impl Cases {
    /// Histories that are right in themselves, signed by the deployment's own key.
    pub(super) fn histories(&mut self) {
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

    pub(super) fn keys(&mut self) {
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
}
