//! Evidence bundles: the lines of docs/format.md, section 5, written and read.
//!
//! The writer appends one line to a text; no tree is built on the way. The reader ([`parse`]) takes one line and is as
//! strict as the page: exactly the members listed, none twice, every value with its syntax. What it leaves to the
//! chain ([`crate::chain::check_syntax`]) is the syntax of an event's texts; the order of the records, hashes and
//! signatures are [`crate::verify`]'s.

mod read;
pub(crate) mod values;
mod write;

#[cfg(test)]
mod tests;

pub use read::{BundleRecord, EventRecord, ProofRecord, Record, RecordError, parse};
pub use write::{
    Header, push_checkpoint, push_end, push_event, push_head, push_header, push_proof, push_rotation,
    push_session,
};

/// The only format there is.
pub const FORMAT: &str = "quipu.bundle.v1";
