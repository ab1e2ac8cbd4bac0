//! The commit chain of one partition of the log: the only place where its offsets are kept.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use tidewatch_model::ports::{Created, Store, StoreError};
use tidewatch_model::{Span, Timestamp};

use crate::claim::{self, WindowKey};
use crate::error::LakeError;
use crate::layout;

/// A hot file that an entry commits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HotFile {
    /// Where it lies in the store.
    pub path: String,
    /// The table of its rows.
    pub table: String,
    /// Start of the event-time window of all its rows.
    pub window_start: Timestamp,
    /// Length of that window.
    pub window: Span,
    /// Length of the window of the public file that its rows are meant for: a multiple of the other.
    pub public_window: Span,
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

impl HotFile {
    /// The window of its rows.
    pub fn key(&self) -> WindowKey {
        (self.table.clone(), self.window_start, self.window)
    }
}

/// What became of the records of an entry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Records read from the log.
    pub records: u64,
    /// Rows in the files.
    pub rows: u64,
    /// Records, or rows of them, that went to the dead-letter topic.
    pub dead_letters: u64,
    /// Records that had been read before.
    pub duplicates: u64,
    /// Offsets that the log could not give: damaged frames, or deleted by retention.
    pub missing: u64,
}

/// The last frame that was taken of a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceSeq {
    /// Which start of the source.
    pub incarnation: String,
    /// Which frame.
    pub seq: u64,
}

/// One commit: everything up to `to` is durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Version of this form.
    pub version: u32,
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// Number of the entry; the first is 1.
    pub seq: u64,
    /// First offset that it covers.
    pub from: u64,
    /// The offset after the last.
    pub to: u64,
    /// Files with its rows.
    pub files: Vec<HotFile>,
    /// What became of its records.
    pub counts: Counts,
    /// The last frame of each source so far.
    pub last_seq: BTreeMap<String, SourceSeq>,
    /// Who wrote it: new at every start of a writer.
    pub writer: String,
    /// When, by the writer's clock.
    pub committed_at: Timestamp,
}

/// Where a chain begins: entries up to `seq` are no part of it, whether they still lie there or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Floor {
    /// Version of this form.
    pub version: u32,
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The last entry that is no part of the chain.
    pub seq: u64,
    /// The offset after that entry's last.
    pub to: u64,
}

/// Reads an entry.
pub fn read_entry(store: &dyn Store, path: &str) -> Result<Entry, LakeError> {
    let entry: Entry = claim::read(store, path)?;
    if layout::chain_entry(&entry.topic, entry.partition, entry.seq) != path {
        let problem = format!("holds entry {} of {}/{}", entry.seq, entry.topic, entry.partition);
        return Err(LakeError::Damaged { path: path.to_string(), problem });
    }
    Ok(entry)
}

/// The newest entry of a chain, if it has any. It is never deleted: a floor lies below it.
pub fn newest(store: &dyn Store, topic: &str, partition: u32) -> Result<Option<Entry>, LakeError> {
    let chain = layout::chain_folder(topic, partition);
    for _ in 0..MOST_LOOKS {
        let listed = store.list(&chain)?;
        let floor = floor_among(&listed);
        let entries = listed.iter().filter(|(path, _)| !layout::is_floor(path));
        match entries.filter_map(|(path, _)| Some((layout::number(path)?, path))).max() {
            Some((seq, path)) if seq > floor => match read_entry(store, path) {
                // It was the newest, and is old and gone: whoever asks has slept.
                Err(LakeError::Store(StoreError::NotFound(_))) => {}
                entry => return entry.map(Some),
            },
            _ if floor > 0 => {
                let problem = "the chain has no entry after its floor".to_string();
                return Err(LakeError::Damaged { path: layout::floor(&chain, floor), problem });
            }
            _ => return Ok(None),
        }
    }
    Err(LakeError::Damaged { path: chain, problem: "the newest entry is deleted whenever it is read".to_string() })
}

/// How often something is looked for that is replaced meanwhile.
pub const MOST_LOOKS: usize = 10;

/// The floor of a chain: the number of the last entry that is no part of it, or 0.
pub fn floor(store: &dyn Store, chain: &str) -> Result<u64, LakeError> {
    Ok(floor_among(&store.list(&layout::floor_folder(chain))?))
}

/// The floor among the files of one chain.
pub fn floor_among(listed: &[(String, u64)]) -> u64 {
    floors_among(listed).into_values().max().unwrap_or(0)
}

/// The floors of chains, by their folders.
pub fn floors_among(listed: &[(String, u64)]) -> HashMap<String, u64> {
    let mut floors: HashMap<String, u64> = HashMap::new();
    for (path, _) in listed.iter().filter(|(path, _)| layout::is_floor(path)) {
        let floor = floors.entry(layout::chain_of(path).to_string()).or_default();
        *floor = (*floor).max(layout::number(path).unwrap_or(0));
    }
    floors
}

/// Appends an entry. Whatever a put answers, what lies there decides: ours, somebody else's, or nothing. An entry that lies
/// below the chain's floor is one that nobody sees: it fills the place of one that was deleted while its writer slept.
pub fn append(store: &dyn Store, entry: &Entry) -> Result<(), LakeError> {
    put(store, entry)?;
    let floor = floor(store, &layout::chain_folder(&entry.topic, entry.partition))?;
    if floor < entry.seq { Ok(()) } else { Err(fenced(entry, "others, and has been deleted since")) }
}

fn fenced(entry: &Entry, writer: &str) -> LakeError {
    let (topic, writer) = (entry.topic.clone(), writer.to_string());
    LakeError::Fenced { topic, partition: entry.partition, seq: entry.seq, writer }
}

fn put(store: &dyn Store, entry: &Entry) -> Result<(), LakeError> {
    let path = layout::chain_entry(&entry.topic, entry.partition, entry.seq);
    let bytes = claim::bytes(&path, entry)?;
    let answer = store.create(&path, &bytes);
    if matches!(answer, Ok(Created::Now)) {
        return Ok(());
    }
    match (store.get(&path), answer) {
        (Ok(found), _) if found == bytes => Ok(()),
        (Ok(_), _) => {
            let writer = read_entry(store, &path).map(|found| found.writer);
            Err(fenced(entry, writer.as_deref().unwrap_or("an unreadable entry")))
        }
        (Err(StoreError::NotFound(_)), Ok(_)) => Err(fenced(entry, "others, and has been deleted since")),
        (Err(StoreError::NotFound(_)), Err(error)) => Err(error.into()),
        (Err(error), _) => Err(error.into()),
    }
}
