//! Changes of the headers of batches, and of what the log key says of them.

use super::super::{DEPLOYMENT, Signers, session};
use super::{Cases, tenant};
use crate::ids::Seq;
use crate::log::header::BatchHeader;
use crate::log::paths;
use crate::time::Micros;
use crate::verify::Code;

impl Cases {
    pub(super) fn headers(&mut self) {
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
            ("another session in a run", Box::new(|h| h.runs[0].session_id = session("x")), Some(Header)),
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
}
