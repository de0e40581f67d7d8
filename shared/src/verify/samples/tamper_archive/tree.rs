//! Changes of the tree's tiles and checkpoints, and what is given from outside and cannot be true.

use super::super::archived::checkpoint;
use super::super::{Signers, receipt, session};
use super::{Cases, at, tenant, tree};
use crate::ids::Seq;
use crate::log::merkle::{Frontier, Hash, leaf_hash};
use crate::log::paths;
use crate::log::tiles::{Level, Tile};
use crate::statement::Standing;
use crate::time::Micros;
use crate::verify::Code;

impl Cases {
    pub(super) fn tiles(&mut self) {
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

    pub(super) fn checkpoints(&mut self) {
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
    pub(super) fn given(&mut self) {
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
        let absent = Standing { session_id: session("absent"), ..late.clone() };
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
