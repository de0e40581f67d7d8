//! Object records: that the object of a batch was written anew, because content in it was erased (docs/format.md,
//! section 8).

use sha2::{Digest as _, Sha256};

use crate::ids::{self, EventId, TenantId, decode_hex};
use crate::limits;
use crate::statement::is_deployment_name;

/// First line of a record.
const DOMAIN: &str = "quipu.object.v1";

/// Why a text is no object record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an object record: {0}")]
pub struct NoRecord(&'static str);

/// What the log key says of an object that was written anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectRecord {
    /// The deployment's name.
    pub deployment: String,
    /// Whose.
    pub tenant: TenantId,
    /// Number of the batch.
    pub batch: u64,
    /// Number of the record in the batch, from 1.
    pub revision: u64,
    /// SHA-256 of the text of the record before; of the first one, of the header's bytes.
    pub prev: [u8; 32],
    /// Length of the object, bytes.
    pub bytes: u64,
    /// SHA-256 of the object.
    pub sha256: [u8; 32],
    /// What was erased, by event: each with its tombstone. Sorted.
    pub erased: Vec<(EventId, EventId)>,
}

impl ObjectRecord {
    /// The text that is signed.
    pub fn text(&self) -> String {
        let Self { deployment, tenant, batch, revision, prev, bytes, sha256, erased } = self;
        let (prev, sha256) = (ids::hex(prev), ids::hex(sha256));
        let mut text =
            format!("{DOMAIN}\n{deployment}\n{tenant}\n{batch}\n{revision}\n{prev}\n{bytes}\n{sha256}\n");
        for (event, tombstone) in erased {
            text.push_str(&format!("{event} {tombstone}\n"));
        }
        text
    }

    /// SHA-256 of its text: what the next one names.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.text()).into()
    }

    /// Reads a text.
    ///
    /// # Errors
    /// If it is anything but what [`ObjectRecord::text`] writes.
    pub fn parse(text: &str) -> Result<Self, NoRecord> {
        let body = text.strip_suffix('\n').ok_or(NoRecord("no newline at its end"))?;
        let mut lines = body.split('\n');
        let mut next = || lines.next().ok_or(NoRecord("expected at least eight lines"));
        let (domain, deployment, tenant, batch) = (next()?, next()?, next()?, next()?);
        let (revision, prev, bytes, sha256) = (next()?, next()?, next()?, next()?);
        if domain != DOMAIN {
            return Err(NoRecord("another kind of statement"));
        }
        if !is_deployment_name(deployment) {
            return Err(NoRecord("a deployment's name"));
        }
        let hash = |text| decode_hex(text).ok_or(NoRecord("a hash"));
        let count = |text| number(text).filter(|number| *number > 0).ok_or(NoRecord("a number"));
        let mut erased: Vec<(EventId, EventId)> = Vec::new();
        for line in lines {
            if erased.len() == limits::OBJECT_RECORD_EVENTS_MAX {
                return Err(NoRecord("more events than a record names"));
            }
            let pair = line.split_once(' ').and_then(|(event, tombstone)| Some((id(event)?, id(tombstone)?)));
            let pair = pair.ok_or(NoRecord("expected an event and its tombstone"))?;
            if erased.last().is_some_and(|before| before.0 >= pair.0) {
                return Err(NoRecord("events are sorted, none twice"));
            }
            erased.push(pair);
        }
        Ok(Self {
            deployment: deployment.to_owned(),
            tenant: TenantId::parse(tenant).map_err(|_| NoRecord("a tenant"))?,
            batch: count(batch)?,
            revision: count(revision)?,
            prev: hash(prev)?,
            bytes: number(bytes).ok_or(NoRecord("a length"))?,
            sha256: hash(sha256)?,
            erased,
        })
    }
}

/// A number in its one spelling.
fn number(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text && number <= i64::MAX as u64).then_some(number)
}

/// An id in its one spelling.
fn id(text: &str) -> Option<EventId> {
    EventId::parse(text).ok().filter(|id| id.encode(&mut [0; 36]) == text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::CommitId;
    use proptest::prelude::*;

    fn a_record(events: usize, batch: u64, hashes: ([u8; 32], [u8; 32])) -> ObjectRecord {
        let id = |n: usize| CommitId::mint(7, [9; 10]).event(n as u16);
        ObjectRecord {
            deployment: "quipu.example".to_owned(),
            tenant: TenantId::parse("acme").unwrap(),
            batch,
            revision: 3,
            prev: hashes.0,
            bytes: 77,
            sha256: hashes.1,
            erased: (1..=events).map(|n| (id(n), id(900 + n))).collect(),
        }
    }

    proptest! {
        #[test]
        fn records(events in 0usize..9, batch in 1u64..1 << 40, hashes: ([u8; 32], [u8; 32])) {
            let record = a_record(events, batch, hashes);
            let text = record.text();
            prop_assert_eq!(ObjectRecord::parse(&text), Ok(record.clone()));
            // Cut behind a line of an event it is another record, which its signature holds.
            for end in 0..text.len() {
                if let Ok(other) = ObjectRecord::parse(&text[..end]) {
                    prop_assert!(other.erased.len() < events && other.text() == text[..end]);
                }
            }
            if events > 0 {
                prop_assert_ne!(record.hash(), a_record(events - 1, batch, hashes).hash());
            }
        }

        #[test]
        fn what_is_read_is_what_is_written(text in "[a-z0-9 .\n-]{0,300}") {
            if let Ok(record) = ObjectRecord::parse(&text) {
                prop_assert_eq!(record.text(), text);
            }
        }
    }

    #[test]
    fn spellings_that_are_not_taken() {
        let text = a_record(2, 5, ([1; 32], [2; 32])).text();
        let lines: Vec<&str> = text.lines().collect();
        let with = |at: usize, line: &str| {
            let mut lines = lines.clone();
            lines[at] = line;
            format!("{}\n", lines.join("\n"))
        };
        assert!(ObjectRecord::parse(&with(3, "5")).is_ok());
        let upper = lines[5].to_uppercase();
        let twice = lines[8];
        for wrong in [
            with(0, "quipu.object.v2"),
            with(1, "A"),
            with(2, "Acme"),
            with(3, "05"),
            with(3, "0"),
            with(4, "0"),
            with(4, "+3"),
            with(6, "-1"),
            with(5, &upper.replace('0', "G")),
            with(8, "x y"),
            with(9, twice),
            text.trim_end().to_owned(),
            format!("{text}\n"),
        ] {
            assert!(ObjectRecord::parse(&wrong).is_err(), "{wrong}");
        }
    }
}
