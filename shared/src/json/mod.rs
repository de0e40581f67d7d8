//! A strict JSON reader that keeps the writer's bytes.
//!
//! RFC 8259, with what a ledger must refuse: duplicate member names (compared after escapes), lone surrogates,
//! nesting past [`JSON_DEPTH_MAX`]. Values are not converted: [`Reader::compact`] copies them byte for byte and
//! drops only white space between tokens, so that integers past 2^53, `-0` and `1.0` come back as sent (P7).
//!
//! Every error names the path in the document (`events.3.payload.toolName`). It is a pull reader: the caller asks
//! for what it expects. It does not build trees; readers of content use serde_json.

mod compact;
mod reader;

pub use compact::{Members, check_compact};
pub use reader::{Kind, Reader};

use crate::limits::JSON_DEPTH_MAX;

/// What is wrong with a document, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{}{problem} (byte {at})", .path, if .path.is_empty() { "" } else { ": " })]
pub struct JsonError {
    /// Members and indexes joined by dots; empty at the top.
    pub path: String,
    /// Byte offset in the document.
    pub at: usize,
    /// What is wrong.
    pub problem: Problem,
}

/// The kinds of error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Not JSON; the text says what was expected.
    #[error("invalid JSON: expected {0}")]
    Syntax(&'static str),
    /// A member name came twice in one object.
    #[error("duplicate key {0:?}")]
    DuplicateKey(String),
    /// Half of a surrogate pair in a `\u` escape.
    #[error("lone surrogate in a string")]
    LoneSurrogate,
    /// Nested past the limit.
    #[error("nested deeper than json_depth_max {JSON_DEPTH_MAX}")]
    TooDeep,
    /// A value of another kind than the reader wants.
    #[error("expected {expected}, found {found}")]
    Type {
        /// What the caller asked for.
        expected: &'static str,
        /// What stands there.
        found: &'static str,
    },
    /// Refused by the caller, in the caller's words.
    #[error("{0}")]
    Refused(String),
}
