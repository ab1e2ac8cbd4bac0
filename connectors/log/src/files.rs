//! The few things that the local log asks of a file system, so that a model of one that crashes can stand in for it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Error, ErrorKind, Read, Result, Seek, SeekFrom, Write};
use std::path::Path;

/// A lock that ends when it is dropped, or when its process does.
pub type Lock = Box<dyn Send>;

/// A file system, by path.
pub trait Files: Send + Sync {
    /// Makes a folder and those above it.
    fn create_dir(&self, path: &Path) -> Result<()>;
    /// Names in a folder; empty when there is no such folder.
    fn list(&self, path: &Path) -> Result<Vec<String>>;
    /// Length of a file.
    fn len(&self, path: &Path) -> Result<u64>;
    /// Bytes of a file from `from` on, at most `most`.
    fn read(&self, path: &Path, from: u64, most: usize) -> Result<Vec<u8>>;
    /// Appends, making the file when it is not there. What was written before an error may stay.
    fn append(&self, path: &Path, bytes: &[u8]) -> Result<()>;
    /// Cuts a file.
    fn truncate(&self, path: &Path, length: u64) -> Result<()>;
    /// Makes a file's content survive a loss of power.
    fn sync(&self, path: &Path) -> Result<()>;
    /// Makes the names in a folder survive a loss of power.
    fn sync_dir(&self, path: &Path) -> Result<()>;
    /// Puts a file in the place of another.
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;
    /// Removes a file; fine when it is gone.
    fn remove(&self, path: &Path) -> Result<()>;
    /// Locks a file, if nobody else has.
    fn lock(&self, path: &Path) -> Result<Option<Lock>>;
}

/// The machine's own.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealFiles;

impl Files for RealFiles {
    fn create_dir(&self, path: &Path) -> Result<()> {
        std::fs::create_dir_all(path)
    }

    fn list(&self, path: &Path) -> Result<Vec<String>> {
        let entries = match std::fs::read_dir(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(vec![]),
            entries => entries?,
        };
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn len(&self, path: &Path) -> Result<u64> {
        Ok(std::fs::metadata(path)?.len())
    }

    fn read(&self, path: &Path, from: u64, most: usize) -> Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let left = file.metadata()?.len().saturating_sub(from);
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::with_capacity(most.min(left as usize));
        file.take(most as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        OpenOptions::new().create(true).append(true).open(path)?.write_all(bytes)
    }

    fn truncate(&self, path: &Path, length: u64) -> Result<()> {
        OpenOptions::new().write(true).open(path)?.set_len(length)
    }

    fn sync(&self, path: &Path) -> Result<()> {
        File::open(path)?.sync_all()
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        File::open(path)?.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    fn lock(&self, path: &Path) -> Result<Option<Lock>> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(Error::new(error.kind(), error)),
        }
    }
}
