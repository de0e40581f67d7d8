//! What is gone: deleted, or left undone by a crash.

use bytes::Bytes;

use super::super::archived::{Archive, Objects};
use super::{Cases, at, nothing, tenant};
use crate::log::paths;
use crate::verify::Code;

impl Cases {
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

    pub(super) fn deletions(&mut self) {
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

    pub(super) fn unfinished(&mut self) {
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
}
