//! Where things lie: the log in `log` below the data folder, the lake beside it or in a bucket.

use std::path::PathBuf;
use std::sync::Arc;

use tidewatch_lake::{LakeScan, LocalStore, S3Store};
use tidewatch_model::ports::{Store, StoreError};

use crate::config::Config;
use crate::failure::Failure;

/// The local log's folder.
pub fn log_folder(config: &Config) -> PathBuf {
    config.data_dir.join("log")
}

/// The lake, to write; `alone` when no other process writes it now, so that what is staged there was left by one that is gone.
///
/// # Errors
/// A data folder that can't be written, or wrong settings of a bucket.
pub fn open_store(config: &Config, alone: bool) -> Result<Arc<dyn Store>, StoreError> {
    if let Some(url) = &config.lake_url {
        return Ok(Arc::new(S3Store::open(url, std::env::vars())?));
    }
    let store = LocalStore::open(&config.data_dir)?;
    if alone {
        store.clean_staging()?;
    }
    Ok(Arc::new(store))
}

/// The lake, to read.
///
/// # Errors
/// A data folder that is not there or can't be read, or wrong settings of a bucket.
pub fn open_store_to_read(config: &Config) -> Result<Arc<dyn Store>, Failure> {
    if config.lake_url.is_some() {
        return open_store(config, false).map_err(Failure::usage);
    }
    let store = LocalStore::open_to_read(&config.data_dir);
    let store = store.map_err(|error| {
        Failure::usage(format!("no data to read: {error}; --data names the folder that 'up' writes"))
    })?;
    Ok(Arc::new(store))
}

/// Where others find a file of the lake: an absolute path, or a URL.
pub fn place_of(config: &Config, path: &str) -> String {
    match &config.lake_url {
        Some(url) => format!("{url}/{path}"),
        None => config.data_dir.join(path).display().to_string(),
    }
}

/// The lake as tables.
///
/// # Errors
/// As [`open_store_to_read`].
pub fn open_scan(config: &Config) -> Result<LakeScan, Failure> {
    Ok(LakeScan::new(open_store_to_read(config)?))
}
