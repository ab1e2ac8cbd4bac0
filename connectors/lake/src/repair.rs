//! Hot files that are missing or damaged, written anew from the log: an entry says which offsets its rows came from, and what a
//! writer makes of the same records is the same file, byte for byte. What comes out otherwise is not taken.

use std::collections::{BTreeMap, HashSet};

use arrow::array::RecordBatch;
use sha2::{Digest, Sha256};
use tidewatch_model::alert::hex;
use tidewatch_model::ports::Store;

use crate::chain::{Entry, HotFile, SourceSeq};
use crate::error::LakeError;
use crate::layout;
use crate::view::View;
use crate::writer::{by_window, hot_bytes};

/// An entry of which hot files are missing or are not what was committed, and whose rows are in no other file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hurt {
    /// The entry.
    pub entry: Entry,
    /// Which of its files.
    pub files: Vec<HotFile>,
    /// The last frame of each source before the entry, by which duplicates are known.
    pub before: BTreeMap<String, SourceSeq>,
}

/// All of them, in order of the chains.
///
/// # Errors
/// The store's, or a damaged chain: there is no repair of what says where rows came from.
pub fn hurt(store: &dyn Store) -> Result<Vec<Hurt>, LakeError> {
    let mut view = View::default();
    view.refresh(store)?;
    let needed: HashSet<&str> = view.uncovered().into_iter().map(|file| file.path.as_str()).collect();
    let mut found = Vec::new();
    for entry in view.entries.values() {
        let mut files = Vec::new();
        for file in entry.files.iter().filter(|file| needed.contains(file.path.as_str())) {
            // A disk that can't read one sector reads the others.
            let is_whole = store.get(&file.path).is_ok_and(|bytes| hex(&Sha256::digest(bytes)) == file.sha256);
            if !is_whole {
                files.push(file.clone());
            }
        }
        if !files.is_empty() {
            let before = layout::chain_entry(&entry.topic, entry.partition, entry.seq - 1);
            let before = view.entries.get(&before).map_or_else(BTreeMap::new, |before| before.last_seq.clone());
            found.push(Hurt { entry: entry.clone(), files, before });
        }
    }
    Ok(found)
}

impl Hurt {
    /// Writes its files anew from the rows of the entry's records, in the order of their offsets.
    ///
    /// # Errors
    /// The store's, or rows that make other files than those that were committed.
    pub fn mend(&self, store: &dyn Store, rows: &[RecordBatch]) -> Result<(), LakeError> {
        for file in &self.files {
            let mut batches = Vec::new();
            for batch in rows {
                let parts = by_window(&file.table, batch, file.window)?.into_iter();
                batches.extend(parts.filter(|(start, _)| *start == file.window_start).map(|(_, part)| part));
            }
            let count: usize = batches.iter().map(RecordBatch::num_rows).sum();
            let made = if batches.is_empty() { None } else { Some(hot_bytes(&file.table, &batches)?.bytes) };
            let Some(bytes) = made.filter(|bytes| hex(&Sha256::digest(bytes)) == file.sha256) else {
                let problem = format!(
                    "the log's records make another file, of {count} rows and not {}: it stays as it is",
                    file.rows
                );
                return Err(LakeError::Damaged { path: file.path.clone(), problem });
            };
            store.delete(&file.path)?;
            store.create(&file.path, &bytes)?;
        }
        Ok(())
    }
}
