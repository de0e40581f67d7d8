//! The archive: batches of events as Parquet, and the archiver that makes them (docs/format.md, section 8).

#[allow(clippy::single_range_in_vec_init, reason = "lists of ranges are what it is about")]
mod cold;
mod derived;
mod error;
mod pages;
mod reader;
mod rebuild;
mod row;
mod run;
mod schema;
mod settled;
#[cfg(test)]
mod tests;
mod writer;

pub use cold::{
    Batch, Batches, Candidate, Catalogue, ColdError, ColdFile, ColdSession, ColdStats, Cost, HotRanges, Scan,
};
pub use derived::Derived;
pub use error::ArchiveError;
pub use reader::BatchReader;
pub use rebuild::{RebuildError, RebuildOptions, Rebuilt, rebuild};
pub use row::Row;
pub use run::{ArchiveSettings, Archiver, BrokenChain, Close, ClosedBatch, RunError, RunReport};
pub use schema::{hive_columns, message_type};
pub use settled::{UnsettledError, settled_sizes};
pub use writer::BatchWriter;

/// Key of a file's metadata that names its format, and what it says.
const FORMAT_KEY: &str = "quipu.format";
const FORMAT_VALUE: &str = "quipu.events.v1";
/// Key of a file's metadata that names the tenant.
const TENANT_KEY: &str = "quipu.tenant";
