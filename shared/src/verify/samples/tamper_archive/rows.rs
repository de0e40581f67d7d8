//! Changes of the files of batches: their rows, and files that are no batch.

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::super::archived::{Archive, Objects};
use super::super::parquet::{Change, changed};
use super::{Cases, LONG, nothing, tenant};
use crate::log::header::BatchHeader;
use crate::log::paths;
use crate::verify::Code;

impl Cases {
    /// One batch's rows changed, at each level.
    pub(super) fn rows(&mut self) {
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
    pub(super) fn files(&mut self) {
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
}
