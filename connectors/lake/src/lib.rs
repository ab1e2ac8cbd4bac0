//! The lake: Parquet that anybody can read, each row once.
//!
//! Rows go to private hot files first; one create-only commit chain per partition of the log says which of them count,
//! and is the only place where offsets are kept. A settler then sorts the hot files of every few minutes into one settled file,
//! and gathers those of each event-time window in immutable public files. A crash at any point leaves orphans that nobody reads, never a lost or doubled row.

mod chain;
mod claim;
mod compact;
mod error;
mod janitor;
mod kept;
mod layout;
mod local_store;
mod ls;
mod merge;
mod parquet_files;
mod ranking;
mod repair;
mod s3_store;
mod scripted_store;
mod settle;
mod size;
mod snapshot;
mod verify;
mod view;
mod writer;

#[doc(hidden)]
pub mod contract;

pub use chain::{Counts, Entry, HotFile, SourceSeq};
pub use claim::SettledFile;
pub use error::LakeError;
pub use janitor::{Janitor, JanitorOptions, JanitorReport};
pub use kept::KeptRows;
pub use local_store::LocalStore;
pub use ls::{FileKind, LS_COLUMNS, LsEntry, ls};
pub use repair::{Hurt, hurt};
pub use s3_store::S3Store;
pub use scripted_store::{Fault, ScriptedStore};
pub use settle::{SettleOptions, SettleReport, Settler};
pub use snapshot::LakeScan;
pub use verify::{VerifyReport, verify};
pub use writer::{Flush, Flushed, LakeOptions, LakeWriter, Progress};

#[cfg(test)]
mod s3_tests;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
