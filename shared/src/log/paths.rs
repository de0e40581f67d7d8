//! Keys of the archive's objects (docs/format.md, section 8), and what a key names.

use super::tiles::Tile;
use crate::ids::{CommitId, TenantId};
use crate::time::Micros;

/// Key of the identity.
pub const IDENTITY: &str = "log/_identity.json";

/// What all keys of logs begin with.
pub const LOG: &str = "log/";

/// What all keys of events begin with.
pub const EVENTS: &str = "events/";

/// What all keys of a tenant's log begin with.
pub fn log(tenant: &TenantId) -> String {
    format!("{LOG}{tenant}/")
}

/// Key of the header of a batch.
pub fn header(tenant: &TenantId, batch: u64) -> String {
    format!("{LOG}{tenant}/batch/{batch:020}.json")
}

/// Key of the log key's word for that header.
pub fn header_signature(tenant: &TenantId, batch: u64) -> String {
    format!("{LOG}{tenant}/batch/{batch:020}.sig")
}

/// What the keys of a tenant's object records begin with.
pub fn object_records(tenant: &TenantId) -> String {
    format!("{LOG}{tenant}/object/")
}

/// What the keys of a batch's object records begin with.
pub fn object_records_of(tenant: &TenantId, batch: u64) -> String {
    format!("{LOG}{tenant}/object/{batch:020}-")
}

/// Key of an object record of a batch.
pub fn object_record(tenant: &TenantId, batch: u64, revision: u64) -> String {
    format!("{LOG}{tenant}/object/{batch:020}-{revision:06}")
}

/// Key of the checkpoint after a batch.
pub fn checkpoint_at(tenant: &TenantId, batch: u64) -> String {
    format!("{LOG}{tenant}/checkpoints/{batch:020}")
}

/// Key of the newest checkpoint.
pub fn checkpoint(tenant: &TenantId) -> String {
    format!("{LOG}{tenant}/checkpoint")
}

/// Key of a tile or an entry bundle.
pub fn tile(tenant: &TenantId, tile: &Tile) -> String {
    format!("{LOG}{tenant}/{tile}")
}

/// The day of a commit, UTC: `2026-02-08`.
pub fn day(commit: CommitId) -> String {
    let time = Micros::from_unix_ms(i64::try_from(commit.unix_ms()).unwrap_or(i64::MAX));
    time.encode(&mut [0; 27])[..10].to_owned()
}

/// Key of the events of a batch; `day` is that of its highest commit ([`day`]).
pub fn object(tenant: &TenantId, day: &str, batch: u64) -> String {
    format!("{EVENTS}tenant={tenant}/dt={day}/batch-{batch:020}.parquet")
}

/// What a key names. Whatever is a key here is what the functions above write, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// [`IDENTITY`].
    Identity,
    /// [`header`].
    Header(TenantId, u64),
    /// [`header_signature`].
    HeaderSignature(TenantId, u64),
    /// [`object_record`].
    ObjectRecord(TenantId, u64, u64),
    /// [`checkpoint_at`].
    CheckpointAt(TenantId, u64),
    /// [`checkpoint`].
    Checkpoint(TenantId),
    /// [`tile`].
    Tile(TenantId, Tile),
    /// [`object`].
    Object {
        /// Whose.
        tenant: TenantId,
        /// The day in its name: one that there is.
        day: String,
        /// Number of the batch.
        batch: u64,
    },
}

impl Named {
    /// What a key names, if anything.
    pub fn parse(key: &str) -> Option<Self> {
        if key == IDENTITY {
            return Some(Self::Identity);
        }
        if let Some(rest) = key.strip_prefix(EVENTS) {
            return object_named(rest);
        }
        let (tenant, rest) = key.strip_prefix(LOG)?.split_once('/')?;
        let tenant = TenantId::parse(tenant).ok()?;
        if rest == "checkpoint" {
            return Some(Self::Checkpoint(tenant));
        }
        if let Some(place) = rest.strip_prefix("object/") {
            let (number, revision) = place.split_once('-')?;
            let digits = revision.len() == 6 && revision.bytes().all(|b| b.is_ascii_digit());
            let revision = revision.parse().ok().filter(|revision| digits && *revision > 0)?;
            return Some(Self::ObjectRecord(tenant, batch(number)?, revision));
        }
        if let Some(number) = rest.strip_prefix("checkpoints/") {
            return Some(Self::CheckpointAt(tenant, batch(number)?));
        }
        if let Some(file) = rest.strip_prefix("batch/") {
            return match file.split_once('.')? {
                (number, "json") => Some(Self::Header(tenant, batch(number)?)),
                (number, "sig") => Some(Self::HeaderSignature(tenant, batch(number)?)),
                _ => None,
            };
        }
        Some(Self::Tile(tenant, Tile::parse(rest)?))
    }
}

fn object_named(rest: &str) -> Option<Named> {
    let mut parts = rest.split('/');
    let (tenant, date, file) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let tenant = TenantId::parse(tenant.strip_prefix("tenant=")?).ok()?;
    let day = date.strip_prefix("dt=").filter(|day| is_day(day))?.to_owned();
    let batch = batch(file.strip_prefix("batch-")?.strip_suffix(".parquet")?)?;
    Some(Named::Object { tenant, day, batch })
}

fn is_day(text: &str) -> bool {
    text.len() == 10 && Micros::parse(&format!("{text}T00:00:00Z")).is_ok()
}

/// A batch number of 20 digits, from 1.
fn batch(text: &str) -> Option<u64> {
    let digits = text.len() == 20 && text.bytes().all(|b| b.is_ascii_digit());
    if digits { text.parse().ok().filter(|number| *number > 0) } else { None }
}

#[cfg(test)]
mod tests {
    use super::super::tiles::Level;
    use super::*;

    #[test]
    fn keys_are_read_as_they_are_written() {
        let acme = TenantId::parse("acme").unwrap();
        let commit = CommitId::mint(1_770_544_800_000, [0xff; 10]);
        assert_eq!(day(commit), "2026-02-08");
        assert_eq!(day(CommitId::mint(u64::MAX >> 16, [0; 10])), "9999-12-31");
        let entries = Tile { level: Level::Entries, index: 1_234_067, width: 7 };
        let object_key = object(&acme, "2026-02-08", 12);
        assert_eq!(object_key, "events/tenant=acme/dt=2026-02-08/batch-00000000000000000012.parquet");
        for (key, named) in [
            (IDENTITY.to_owned(), Named::Identity),
            (header(&acme, 1), Named::Header(acme.clone(), 1)),
            (header_signature(&acme, u64::MAX), Named::HeaderSignature(acme.clone(), u64::MAX)),
            (checkpoint_at(&acme, 3), Named::CheckpointAt(acme.clone(), 3)),
            (checkpoint(&acme), Named::Checkpoint(acme.clone())),
            (tile(&acme, &entries), Named::Tile(acme.clone(), entries)),
            (object_key, Named::Object { tenant: acme.clone(), day: "2026-02-08".into(), batch: 12 }),
        ] {
            assert_eq!(Named::parse(&key), Some(named), "{key}");
            assert!(key.starts_with(EVENTS) || key == IDENTITY || key.starts_with(&log(&acme)), "{key}");
        }
        for bad in [
            "",
            "log/acme",
            "log/acme/",
            "log/_identity.json/",
            "log/Acme/checkpoint",
            "log/acme/checkpoint/",
            "log/acme/checkpoints/1",
            "log/acme/checkpoints/00000000000000000000",
            "log/acme/checkpoints/99999999999999999999",
            "log/acme/checkpoints/+0000000000000000001",
            "log/acme/batch/00000000000000000001",
            "log/acme/batch/00000000000000000001.json.json",
            "log/acme/batch/00000000000000000001.JSON",
            "log/acme/tile/0/1",
            "events/tenant=acme/dt=2026-02-30/batch-00000000000000000001.parquet",
            "events/tenant=acme/dt=2026-2-08/batch-00000000000000000001.parquet",
            "events/tenant=acme/dt=2026-02-08/batch-1.parquet",
            "events/tenant=acme/dt=2026-02-08/batch-00000000000000000001.parquet/",
            "events/tenant=acme/batch-00000000000000000001.parquet",
        ] {
            assert_eq!(Named::parse(bad), None, "{bad}");
        }
    }
}
