//! What is written down about files that replace others. Settled files: claims before they exist, receipts when they do. Public
//! files: compactions and their receipts likewise, and manifests once all these are gone.

use std::collections::BTreeSet;

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

/// The version of all these forms.
pub const VERSION: u32 = 2;

/// A claim: these inputs of this window become this settled file, and nothing else ever does.
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
    /// Length of the window of the public file that takes in what comes out: it is the claim that decides.
    pub public_window: Span,
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

    /// The window of the public file that takes in what comes out.
    pub fn public_key(&self) -> WindowKey {
        (self.table.clone(), self.window_start.floor(self.public_window), self.public_window)
    }
}

/// A file that replaces others and never changes: a settled one, which is private, or a public one.
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
    /// Which lot of the window's files.
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
    /// Fingerprint of its schema.
    pub schema: String,
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

/// A compaction: these settled files of a public window become these public files, and nothing else ever does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compaction {
    /// Version of this form.
    pub version: u32,
    /// The table.
    pub table: String,
    /// Start of the public window.
    pub window_start: Timestamp,
    /// Its length.
    pub window: Span,
    /// 1 for the first, then one more for each lot of settled files that comes later.
    pub generation: u32,
    /// What comes out, and of what, in the order of time.
    pub outputs: Vec<Output>,
}

/// A public file to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Where it will lie in the store.
    pub path: String,
    /// What goes in.
    pub inputs: Vec<SettledFile>,
}

impl Output {
    /// Rows of its inputs.
    pub fn rows(&self) -> u64 {
        self.inputs.iter().map(|input| input.rows).sum()
    }
}

impl Compaction {
    /// Its window.
    pub fn key(&self) -> WindowKey {
        (self.table.clone(), self.window_start, self.window)
    }

    /// All settled files that it takes in.
    pub fn inputs(&self) -> impl Iterator<Item = &SettledFile> {
        self.outputs.iter().flat_map(|output| &output.inputs)
    }
}

/// Says that all outputs of a compaction lie there whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompactionReceipt {
    /// Version of this form.
    pub version: u32,
    /// When, by the settler's clock.
    pub compacted_at: Timestamp,
    /// The outputs.
    pub files: Vec<SettledFile>,
}

/// Public files of a table's day whose compactions are gone. The one with the largest number holds what all before it held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this form.
    pub version: u32,
    /// The files, in order of their paths.
    pub files: Vec<SettledFile>,
    /// The settled files that they took in, and whose claims are gone: nothing is made in their place.
    pub taken: BTreeSet<Taken>,
}

/// A settled file that is gone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Taken {
    /// Start of its window.
    pub window_start: Timestamp,
    /// Length of its window.
    pub window: Span,
    /// Which lot of the window's files.
    pub generation: u32,
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
    if version != VERSION {
        return Err(damaged(format!("version {version}: expected {VERSION}")));
    }
    serde_json::from_slice(&bytes).map_err(|error| damaged(format!("not what its name says: {error}")))
}

/// Creates one where there is none. Whoever's lies there is what counts; only when none does has the put failed.
pub fn create<T: Serialize + DeserializeOwned>(store: &dyn Store, path: &str, value: &T) -> Result<(), LakeError> {
    let answer = store.create(path, &bytes(path, value)?);
    match (read::<T>(store, path), answer) {
        (Ok(_), _) => Ok(()),
        (Err(_), Err(error)) => Err(error.into()),
        (Err(error), Ok(_)) => Err(error),
    }
}

/// Its bytes.
pub fn bytes<T: Serialize>(path: &str, value: &T) -> Result<Vec<u8>, LakeError> {
    serde_json::to_vec_pretty(value)
        .map_err(|error| LakeError::Damaged { path: path.to_string(), problem: error.to_string() })
}
