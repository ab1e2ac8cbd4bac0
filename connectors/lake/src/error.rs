//! Why the lake could not do its work.

use tidewatch_model::ports::StoreError;

/// An error of the lake; the variant says who must act.
#[derive(Debug, thiserror::Error)]
pub enum LakeError {
    /// The disk or the object store: the operator, or time. What was not committed is kept and tried again.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another writer committed in our place: this process must stop writing the partition.
    #[error(
        "{topic}/{partition}: entry {seq} of the commit chain was written by {writer}: another process writes this lake"
    )]
    Fenced {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// The entry in question.
        seq: u64,
        /// Who wrote it.
        writer: String,
    },
    /// A file of the lake is not what it must be: `lake verify` tells more.
    #[error("{path}: {problem}")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// Rows that can't be written as Parquet: a bug, since admit lets none through.
    #[error("table {table}: {problem}")]
    Rows {
        /// The table.
        table: String,
        /// What is wrong.
        problem: String,
    },
}
