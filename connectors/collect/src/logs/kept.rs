//! What is remembered over restarts: how far each file was read, and by what it is known again.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::{DirEntryExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tidewatch_model::Timestamp;

use super::lanes::Spots;

/// Bytes at the beginning of a file by which it is known again.
const HEAD_BYTES: u64 = 256;
/// Bytes before the place that was read to.
pub const TRAIL_BYTES: u64 = 64;
/// Names of a folder that are looked through for a file that was moved.
const FOLDER_NAMES: usize = 10_000;

/// A file on a machine, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FileId {
    /// The device.
    pub device: u64,
    /// The file on it.
    pub inode: u64,
}

impl FileId {
    /// Of what was asked of a file.
    pub fn of(metadata: &std::fs::Metadata) -> FileId {
        FileId { device: metadata.dev(), inode: metadata.ino() }
    }

    /// Its name in the folder of a file that it was, if it has one there; where that is a link, in the folder that it leads to.
    pub fn find_beside(self, path: &Path) -> Option<PathBuf> {
        let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        let entries = std::fs::read_dir(real.parent()?).ok()?.take(FOLDER_NAMES).flatten();
        let mut paths = entries.filter(|entry| entry.ino() == self.inode).map(|entry| entry.path());
        paths.find(|path| std::fs::metadata(path).is_ok_and(|found| FileId::of(&found) == self))
    }
}

/// Some bytes of a file, by a hash of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    length: u64,
    hash: u64,
}

impl Mark {
    /// Of the first bytes, at most to this place.
    pub fn head(file: &File, until: u64) -> Mark {
        Mark::of_bytes(&bytes_at(file, 0, until.min(HEAD_BYTES)))
    }

    /// Of the bytes before a place.
    pub fn trail(file: &File, place: u64) -> Mark {
        let length = place.min(TRAIL_BYTES);
        Mark::of_bytes(&bytes_at(file, place - length, length))
    }

    /// Of these bytes: FNV-1a.
    pub fn of_bytes(bytes: &[u8]) -> Mark {
        let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        Mark { length: bytes.len() as u64, hash: bytes.iter().fold(0xcbf2_9ce4_8422_2325, step) }
    }

    /// Whether nothing is known again by it.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Whether the bytes before a place would make a better mark of a file's beginning.
    pub fn is_short_of(&self, place: u64) -> bool {
        self.length < place.min(HEAD_BYTES)
    }

    /// Whether a file begins like this.
    pub fn is_head_of(&self, file: &File) -> bool {
        Mark::head(file, self.length) == *self
    }

    /// Whether this is before a place of a file.
    pub fn is_before(&self, file: &File, place: u64) -> bool {
        self.length <= place && Mark::of_bytes(&bytes_at(file, place - self.length, self.length)) == *self
    }
}

/// As many of these bytes as there are.
pub fn bytes_at(file: &File, place: u64, length: u64) -> Vec<u8> {
    let mut bytes = vec![0; length as usize];
    let mut read = 0;
    while read < bytes.len() {
        match file.read_at(&mut bytes[read..], place + read as u64) {
            Ok(0) => break,
            Ok(count) => read += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    bytes.truncate(read);
    bytes
}

/// How far a file was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptFile {
    /// Which.
    pub id: FileId,
    /// Where it was seen last.
    pub path: PathBuf,
    /// Its name in rows.
    pub source: String,
    /// The log has all before.
    pub offset: u64,
    /// How it begins.
    pub head: Mark,
    /// What is before that place.
    pub trail: Mark,
    /// What is before this place was read once already, then: it may be in the log.
    pub ahead: Option<Ahead>,
    /// It was read to its end, and had left its name.
    pub ended: bool,
    /// What the log has of each stream of a container, where it is not all just that before `offset`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spots: Option<Spots>,
}

/// Until where a file was read, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ahead {
    /// Until where.
    pub until: u64,
    /// When.
    pub at: Timestamp,
}

impl KeptFile {
    /// Whether this is that file, with what was read of it still there.
    pub fn is(&self, file: &File) -> bool {
        self.head.is_head_of(file) && self.trail.is_before(file, self.offset)
    }
}

/// Everything that one source remembers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Files.
    #[serde(default)]
    pub files: Vec<KeptFile>,
    /// A journal's place, and what was read beyond it.
    #[serde(default)]
    pub cursor: Option<String>,
}

/// Reads what was remembered; `None` at the very first start.
///
/// # Errors
/// What is there is damaged.
pub fn read(path: &Path) -> Result<Option<Kept>, String> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("{}: {error}", path.display())),
    };
    serde_json::from_str(&text).map(Some).map_err(|error| format!("{}: {error}", path.display()))
}

/// Writes it down, all or nothing.
///
/// # Errors
/// The disk's.
pub fn write(path: &Path, text: &str) -> Result<(), String> {
    let staged = path.with_extension("new");
    // It must not be empty after a loss of power: whoever reads it would begin at the end of each file.
    let written = File::create(&staged)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&staged, path))
        .and_then(|()| path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all()));
    written.map_err(|error| format!("{}: {error}", path.display()))
}
