//! Where things lie in the data folder: the log in `log`, the lake beside it.

use std::path::PathBuf;
use std::sync::Arc;

use tidewatch_lake::{LakeScan, LocalStore};

use crate::config::Config;
use crate::failure::Failure;

/// The local log's folder.
pub fn log_folder(config: &Config) -> PathBuf {
    config.data_dir.join("log")
}

/// The lake, to read.
///
/// # Errors
/// A data folder that is not there or can't be read.
pub fn open_store(config: &Config) -> Result<Arc<LocalStore>, Failure> {
    let store = LocalStore::open_to_read(&config.data_dir);
    let store = store.map_err(|error| {
        Failure::usage(format!("no data to read: {error}; --data names the folder that 'up' writes"))
    })?;
    Ok(Arc::new(store))
}

/// The lake as tables.
///
/// # Errors
/// As [`open_store`].
pub fn open_scan(config: &Config) -> Result<LakeScan, Failure> {
    Ok(LakeScan::new(open_store(config)?))
}
