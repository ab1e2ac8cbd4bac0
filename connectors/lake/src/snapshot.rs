//! The lake as tables for SQL: settled files, and hot files that none of them covers.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use tidewatch_model::ports::{Scan, ScanError, ScanFile, Snapshot, Store};
use tidewatch_model::table;

use crate::parquet_files::from_bytes;
use crate::view::View;

/// The lake behind the scan port.
pub struct LakeScan {
    store: Arc<dyn Store>,
}

impl LakeScan {
    /// On a store.
    pub fn new(store: Arc<dyn Store>) -> Self {
        LakeScan { store }
    }

    fn view(&self) -> Result<View, ScanError> {
        let mut view = View::default();
        view.refresh(self.store.as_ref()).map_err(|error| ScanError::Unreadable(error.to_string()))?;
        Ok(view)
    }
}

impl Scan for LakeScan {
    fn tables(&self) -> Result<Vec<String>, ScanError> {
        let view = self.view()?;
        let hot = view.hot_files().map(|(_, file)| file.table.clone());
        let tables: BTreeSet<String> = hot.chain(view.settled().values().map(|file| file.table.clone())).collect();
        Ok(tables.into_iter().collect())
    }

    fn snapshot(&self, name: &str) -> Result<Snapshot, ScanError> {
        let view = self.view()?;
        let known = table::find(name).ok_or_else(|| ScanError::NoSuchTable(name.to_string()))?;
        let settled = view
            .settled()
            .into_values()
            .filter(|file| file.table == name)
            .map(|file| (file.path.clone(), file.rows, file.bytes, (file.min_ts, file.max_ts)));
        let hot = view
            .uncovered()
            .into_iter()
            .filter(|file| file.table == name)
            .map(|file| (file.path.clone(), file.rows, file.bytes, (file.min_ts, file.max_ts)));
        let mut snapshot = Snapshot { schema: known.schema(), files: vec![], batches: vec![] };
        for (path, rows, bytes, ts) in settled.chain(hot) {
            match self.store.local_path(&path) {
                Some(path) => snapshot.files.push(ScanFile { path, rows, bytes, ts }),
                None => snapshot.batches.extend(self.read(&path, &snapshot.schema)?),
            }
        }
        Ok(snapshot)
    }
}

impl LakeScan {
    /// A store that is no folder gives bytes.
    fn read(&self, path: &str, _: &SchemaRef) -> Result<Vec<arrow::array::RecordBatch>, ScanError> {
        let bytes = self.store.get(path).map_err(|error| ScanError::Unreadable(error.to_string()))?;
        from_bytes(path, bytes).map_err(|error| ScanError::Unreadable(error.to_string()))
    }
}
