//! A folder as a store: staged, synced, linked into place, and the folder synced.
//!
//! object_store's local puts never sync and stage beside the target, where a left-over breaks every reader of the folder
//! (docs/decisions/0003-own-local-put.md).

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use tidewatch_model::ports::{Created, Store, StoreError};

/// Where files are staged; on the same file system as everything else.
const STAGING: &str = "_staging";

/// How often a folder is listed in which files are deleted meanwhile.
const MOST_LOOKS: u32 = 100;

/// A store in a folder.
#[derive(Debug)]
pub struct LocalStore {
    root: PathBuf,
    count: AtomicU64,
}

impl LocalStore {
    /// Opens a folder, making it when it is not there.
    ///
    /// # Errors
    /// A folder that can't be made, read or written.
    pub fn open(root: &Path) -> Result<LocalStore, StoreError> {
        let staging = root.join(STAGING);
        let failed = |source| StoreError::Io { path: staging.display().to_string(), source };
        std::fs::create_dir_all(&staging).map_err(failed)?;
        let root = std::path::absolute(root).map_err(failed)?;
        Ok(LocalStore { root, count: AtomicU64::new(0) })
    }

    /// Opens a folder only to read it: nothing is made.
    ///
    /// # Errors
    /// No such folder, or one that can't be read.
    pub fn open_to_read(root: &Path) -> Result<LocalStore, StoreError> {
        let failed = |source| StoreError::Io { path: root.display().to_string(), source };
        std::fs::read_dir(root).map_err(failed)?;
        Ok(LocalStore { root: std::path::absolute(root).map_err(failed)?, count: AtomicU64::new(0) })
    }

    /// Removes what a process that is gone has staged. Only for the one process that writes.
    ///
    /// # Errors
    /// The disk's.
    pub fn clean_staging(&self) -> Result<(), StoreError> {
        let staging = self.root.join(STAGING);
        let failed = |source| StoreError::Io { path: staging.display().to_string(), source };
        for entry in std::fs::read_dir(&staging).map_err(failed)? {
            std::fs::remove_file(entry.map_err(failed)?.path()).map_err(failed)?;
        }
        Ok(())
    }

    fn full(&self, path: &str) -> Result<PathBuf, StoreError> {
        let plain = !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
        if plain { Ok(self.root.join(path)) } else { Err(StoreError::BadPath(path.to_string())) }
    }

    /// Makes the folders above a file, each synced into the one above it.
    fn make_folder(&self, folder: &Path) -> std::io::Result<()> {
        if folder.is_dir() {
            return Ok(());
        }
        if let Some(above) = folder.parent() {
            self.make_folder(above)?;
            match std::fs::create_dir(folder) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                made => made?,
            }
            File::open(above)?.sync_all()?;
        }
        Ok(())
    }

    fn place(&self, staged: &Path, target: &Path, bytes: &[u8]) -> std::io::Result<Created> {
        let folder = target.parent().unwrap_or(&self.root);
        self.make_folder(folder)?;
        let mut file = OpenOptions::new().write(true).create_new(true).open(staged)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        // A hard link never replaces what is there, and appears whole.
        let linked = match std::fs::hard_link(staged, target) {
            Ok(()) => Created::Now,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Created::Exists,
            Err(error) => return Err(error),
        };
        File::open(folder)?.sync_all()?;
        Ok(linked)
    }
}

impl Store for LocalStore {
    fn create(&self, path: &str, bytes: &[u8]) -> Result<Created, StoreError> {
        let target = self.full(path)?;
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let staged = self.root.join(STAGING).join(format!("{}-{number}", std::process::id()));
        let placed = self.place(&staged, &target, bytes);
        let removed = std::fs::remove_file(&staged);
        drop(removed);
        placed.map_err(|source| StoreError::Io { path: path.to_string(), source })
    }

    fn get(&self, path: &str) -> Result<Vec<u8>, StoreError> {
        std::fs::read(self.full(path)?).map_err(|source| failure(path, source))
    }

    fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, StoreError> {
        let folder = self.full(prefix.trim_end_matches('/'))?;
        let mut looks = 0;
        loop {
            let mut found = Vec::new();
            match walk(&folder, prefix.trim_end_matches('/'), &mut found) {
                Ok(()) => {
                    found.sort();
                    return Ok(found);
                }
                // Something was deleted meanwhile. What was made in its place may not have been seen: all of it again.
                Err(source) if source.kind() == ErrorKind::NotFound && looks < MOST_LOOKS => looks += 1,
                Err(source) => return Err(StoreError::Io { path: prefix.to_string(), source }),
            }
        }
    }

    fn delete(&self, path: &str) -> Result<(), StoreError> {
        match std::fs::remove_file(self.full(path)?) {
            Err(source) if source.kind() != ErrorKind::NotFound => {
                Err(StoreError::Io { path: path.to_string(), source })
            }
            _ => Ok(()),
        }
    }

    fn local_path(&self, path: &str) -> Option<PathBuf> {
        self.full(path).ok()
    }

    fn get_ranges(&self, path: &str, ranges: &[Range<u64>]) -> Result<Vec<Vec<u8>>, StoreError> {
        let full = self.full(path)?;
        let read = || -> std::io::Result<Vec<Vec<u8>>> {
            let file = File::open(full)?;
            let part = |range: &Range<u64>| {
                let mut bytes = vec![0; range.end.saturating_sub(range.start) as usize];
                file.read_exact_at(&mut bytes, range.start).map(|()| bytes)
            };
            ranges.iter().map(part).collect()
        };
        read().map_err(|source| failure(path, source))
    }
}

fn failure(path: &str, source: std::io::Error) -> StoreError {
    match source.kind() {
        ErrorKind::NotFound => StoreError::NotFound(path.to_string()),
        _ => StoreError::Io { path: path.to_string(), source },
    }
}

fn walk(folder: &Path, name: &str, found: &mut Vec<(String, u64)>) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let inside = format!("{name}/{}", entry.file_name().to_string_lossy());
        let about = entry.metadata()?;
        if about.is_dir() {
            walk(&entry.path(), &inside, found)?;
        } else {
            found.push((inside, about.len()));
        }
    }
    Ok(())
}
