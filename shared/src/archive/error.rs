//! Why a batch cannot be written or read.

/// Why a batch cannot be written or read. All of it is for a person; what matters to a verifier is that the object
/// is not a batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    /// Not a Parquet file, or a broken one.
    #[error("not a sound Parquet file: {0}")]
    Parquet(String),
    /// A Parquet file with other columns than docs/format.md, section 8, has.
    #[error("not the columns of a batch: {0}")]
    Columns(String),
    /// Asks for more than a batch of ours ever needs.
    #[error("over a limit of the archive: {what} is {actual}, at most {limit}")]
    TooLarge {
        /// Of what.
        what: &'static str,
        /// How much there may be.
        limit: u64,
        /// How much there is.
        actual: u64,
    },
}

impl From<parquet::errors::ParquetError> for ArchiveError {
    fn from(error: parquet::errors::ParquetError) -> Self {
        Self::Parquet(error.to_string())
    }
}

impl From<arrow_schema::ArrowError> for ArchiveError {
    fn from(error: arrow_schema::ArrowError) -> Self {
        Self::Parquet(error.to_string())
    }
}
