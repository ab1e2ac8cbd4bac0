//! What is written down about settled files: claims before they exist, receipts when they do, and manifests once their claims
//! are gone.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tidewatch_model::ports::Store;
use tidewatch_model::{Span, Timestamp};

use crate::error::LakeError;

/// An entry of a chain, by which inputs of a claim are known.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Input {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The entry.
    pub seq: u64,
}

/// A window of a table.
pub type WindowKey = (String, Timestamp, Span);

/// A claim: these inputs of this window become this file, and nothing else ever does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Version of this form.
    pub version: u32,
    /// The table.
    pub table: String,
    /// Start of the window.
    pub window_start: Timestamp,
    /// Its length.
    pub window: Span,
    /// 1 for the first, then one more for each lot of late rows.
    pub generation: u32,
    /// What goes in.
    pub inputs: Vec<Input>,
    /// What comes out.
    pub output: String,
    /// Rows of the inputs.
    pub rows: u64,
    /// Smallest ts.
    pub min_ts: Timestamp,
    /// Largest ts.
    pub max_ts: Timestamp,
}

impl Claim {
    /// Its window.
    pub fn key(&self) -> WindowKey {
        (self.table.clone(), self.window_start, self.window)
    }
}

/// A settled file: public, and never changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettledFile {
    /// Where it lies in the store.
    pub path: String,
    /// The table.
    pub table: String,
    /// Start of its window.
    pub window_start: Timestamp,
    /// Length of its window.
    pub window: Span,
    /// Which lot of the window's rows.
    pub generation: u32,
    /// Rows.
    pub rows: u64,
    /// Bytes.
    pub bytes: u64,
    /// Smallest ts.
    pub min_ts: Timestamp,
    /// Largest ts.
    pub max_ts: Timestamp,
    /// SHA-256 of its content, hexadecimal.
    pub sha256: String,
}

impl SettledFile {
    /// Its window.
    pub fn key(&self) -> WindowKey {
        (self.table.clone(), self.window_start, self.window)
    }
}

/// Says that a claim's output lies there whole: from then on readers take it instead of the inputs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Version of this form.
    pub version: u32,
    /// When, by the settler's clock.
    pub settled_at: Timestamp,
    /// The output.
    pub file: SettledFile,
}

/// Settled files of a table's day whose claims are gone. The one with the largest number holds what all before it held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this form.
    pub version: u32,
    /// The files, in order of their paths.
    pub files: Vec<SettledFile>,
}

/// That days of a table before one are not kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// Version of this form.
    pub version: u32,
    /// The first day that is kept.
    pub first_kept: String,
}

/// Reads one of these.
pub fn read<T: DeserializeOwned>(store: &dyn Store, path: &str) -> Result<T, LakeError> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let bytes = store.get(path)?;
    let damaged = |problem: String| LakeError::Damaged { path: path.to_string(), problem };
    let Version { version } = serde_json::from_slice(&bytes).map_err(|error| damaged(format!("not ours: {error}")))?;
    if version != 1 {
        return Err(damaged(format!("version {version}: expected 1")));
    }
    serde_json::from_slice(&bytes).map_err(|error| damaged(format!("not what its name says: {error}")))
}

/// Its bytes.
pub fn bytes<T: Serialize>(path: &str, value: &T) -> Result<Vec<u8>, LakeError> {
    serde_json::to_vec_pretty(value)
        .map_err(|error| LakeError::Damaged { path: path.to_string(), problem: error.to_string() })
}
