//! What the lake holds, read once: chains, claims, and which public files exist.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use tidewatch_model::ports::Store;
use tidewatch_model::{Span, Timestamp};

use crate::chain::{Entry, HotFile, read_entry};
use crate::error::LakeError;
use crate::layout;

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

/// Size and hash of a settled file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Its bytes.
    pub bytes: u64,
    /// SHA-256 of its content.
    pub sha256: String,
}

/// A window of a table.
pub type WindowKey = (String, Timestamp, Span);

/// The lake at a moment.
#[derive(Debug, Default)]
pub struct View {
    /// Entries by path, hence by partition and number.
    pub entries: BTreeMap<String, Entry>,
    /// Claims by path.
    pub claims: BTreeMap<String, Claim>,
    /// Public files and their sizes.
    pub public: BTreeMap<String, u64>,
    /// The last entry read of each chain, by its folder: entries come in order, and those before it are not read again.
    read_to: BTreeMap<String, String>,
    /// Newest row of each table in each chain.
    newest: HashMap<String, BTreeMap<String, Timestamp>>,
}

impl View {
    /// Reads what is new since the last time; entries and claims never change. What depends on another is listed before
    /// it, so that a view taken beside a writer and a settler is consistent: the claims of every public file, and the
    /// entries of every claim.
    ///
    /// # Errors
    /// The store's, or a damaged file.
    pub fn refresh(&mut self, store: &dyn Store) -> Result<(), LakeError> {
        self.public = store.list(layout::PUBLIC)?.into_iter().collect();
        for (path, _) in store.list(layout::SETTLE)? {
            if path.ends_with(".json") && !self.claims.contains_key(&path) {
                let claim = read_claim(store, &path)?;
                self.claims.insert(path, claim);
            }
        }
        for (path, _) in store.list(layout::LOG)? {
            let chain = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            if self.read_to.get(chain).is_some_and(|last| path <= *last) {
                continue;
            }
            let entry = read_entry(store, &path)?;
            for file in &entry.files {
                let of_table = self.newest.entry(file.table.clone()).or_default();
                let newest = of_table.entry(chain.to_string()).or_insert(file.max_ts);
                *newest = (*newest).max(file.max_ts);
            }
            self.read_to.insert(chain.to_string(), path.clone());
            self.entries.insert(path, entry);
        }
        Ok(())
    }

    /// The oldest of the chains' newest rows of a table: all of them have come that far.
    pub fn reached(&self, table: &str) -> Option<Timestamp> {
        self.newest.get(table)?.values().min().copied()
    }

    /// Lets go of what settled claims have taken in: a settler that runs for months remembers what is open.
    pub fn forget_settled(&mut self) {
        for claim in self.claims.values_mut().filter(|claim| self.public.contains_key(&claim.output)) {
            for input in std::mem::take(&mut claim.inputs) {
                let path = layout::chain_entry(&input.topic, input.partition, input.seq);
                if let Some(entry) = self.entries.get_mut(&path) {
                    entry.files.retain(|file| {
                        (&file.table, file.window_start, file.window)
                            != (&claim.table, claim.window_start, claim.window)
                    });
                }
            }
        }
        self.entries.retain(|_, entry| {
            entry.last_seq.clear();
            !entry.files.is_empty()
        });
    }

    /// Inputs of each window that some claim already has.
    pub fn claimed(&self) -> HashMap<WindowKey, BTreeSet<&Input>> {
        let mut claimed: HashMap<WindowKey, BTreeSet<&Input>> = HashMap::new();
        for claim in self.claims.values() {
            let key = (claim.table.clone(), claim.window_start, claim.window);
            claimed.entry(key).or_default().extend(&claim.inputs);
        }
        claimed
    }

    /// Committed hot files with their inputs, in order of the chains.
    pub fn hot_files(&self) -> impl Iterator<Item = (Input, &HotFile)> {
        self.entries.values().flat_map(|entry| {
            let input = Input { topic: entry.topic.clone(), partition: entry.partition, seq: entry.seq };
            entry.files.iter().map(move |file| (input.clone(), file))
        })
    }

    /// Claims whose output is there.
    pub fn settled(&self) -> impl Iterator<Item = &Claim> {
        self.claims.values().filter(|claim| self.public.contains_key(&claim.output))
    }

    /// Hot files that no settled output covers.
    pub fn uncovered(&self) -> Vec<&HotFile> {
        let mut covered: HashMap<WindowKey, BTreeSet<&Input>> = HashMap::new();
        for claim in self.settled() {
            covered.entry((claim.table.clone(), claim.window_start, claim.window)).or_default().extend(&claim.inputs);
        }
        let is_covered = |input: &Input, file: &HotFile| {
            covered
                .get(&(file.table.clone(), file.window_start, file.window))
                .is_some_and(|inputs| inputs.contains(input))
        };
        self.hot_files().filter(|(input, file)| !is_covered(input, file)).map(|(_, file)| file).collect()
    }
}

/// Reads a claim.
pub fn read_claim(store: &dyn Store, path: &str) -> Result<Claim, LakeError> {
    let damaged = |problem: String| LakeError::Damaged { path: path.to_string(), problem };
    let claim: Claim =
        serde_json::from_slice(&store.get(path)?).map_err(|error| damaged(format!("not a claim: {error}")))?;
    if claim.version != 1 {
        return Err(damaged(format!("version {}: expected 1", claim.version)));
    }
    Ok(claim)
}
