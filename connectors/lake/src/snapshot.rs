//! The lake as tables for SQL: public files, and settled and hot ones that no other has taken in.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use tidewatch_model::ports::{Scan, ScanError, ScanFile, Snapshot, Store};
use tidewatch_model::table;

use crate::error::LakeError;
use crate::ls::{LsEntry, entries};
use crate::parquet_files::from_bytes;
use crate::view::View;

/// The lake behind the scan port. What it has read once it does not read again.
pub struct LakeScan {
    store: Arc<dyn Store>,
    view: Mutex<View>,
}

impl LakeScan {
    /// On a store.
    pub fn new(store: Arc<dyn Store>) -> Self {
        LakeScan { store, view: Mutex::default() }
    }

    /// All rows of a table, in memory: for tests.
    ///
    /// # Errors
    /// A lake that can't be read.
    #[doc(hidden)]
    pub fn rows(&self, table: &str) -> Result<Vec<RecordBatch>, LakeError> {
        let snapshots = self.snapshot(&[table.to_string()]);
        let damaged = |problem: ScanError| LakeError::Damaged { path: table.to_string(), problem: problem.to_string() };
        let files = snapshots.map_err(damaged)?.remove(table).map_or(vec![], |snapshot| snapshot.files);
        let read = files.iter().map(|file| from_bytes(&file.path, self.store.get(&file.path)?));
        Ok(read.collect::<Result<Vec<_>, _>>()?.concat())
    }
}

impl Scan for LakeScan {
    fn snapshot(&self, tables: &[String]) -> Result<BTreeMap<String, Snapshot>, ScanError> {
        let mut view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        view.refresh(self.store.as_ref()).map_err(|error| ScanError::Unreadable(error.to_string()))?;
        let mut files: BTreeMap<String, Vec<ScanFile>> = BTreeMap::new();
        for LsEntry { table, path, rows, bytes, min_ts, max_ts, .. } in entries(&view, true) {
            files.entry(table).or_default().push(ScanFile { path, rows, bytes, ts: (min_ts, max_ts) });
        }
        let known =
            tables.iter().filter_map(|name| Some((name.clone(), table::find(name)?, files.remove(name.as_str())?)));
        let snapshots =
            known.map(|(name, table, files)| (name, Snapshot { schema: table.schema(), files, batches: vec![] }));
        Ok(snapshots.collect())
    }

    fn read(&self, path: &str, ranges: &[Range<u64>]) -> Result<Vec<Vec<u8>>, ScanError> {
        self.store.get_ranges(path, ranges).map_err(|error| ScanError::Unreadable(error.to_string()))
    }
}
