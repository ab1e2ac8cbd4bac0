//! The local log: a folder per topic, a folder per partition, segments of frames.
//!
//! Any process may read a partition; one writes it, by a lock that ends with the process. What was acknowledged survives
//! the process; it survives a loss of power once it was synced. A torn tail is cut when a writer opens the partition;
//! damage in the middle is skipped and counted.

mod frame;
#[cfg(test)]
mod model_tests;
mod partition;
mod segment;

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tidewatch_model::limits::SEGMENT_BYTES;
use tidewatch_model::ports::{Log, LogError, ReadBatch, Record, TopicOptions};
use tidewatch_model::{Span, Timestamp};

use crate::files::{Files, RealFiles};
use partition::Partition;
use segment::io;

/// When appended records are made to survive a loss of power. They survive the process in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FsyncPolicy {
    /// Before each append returns.
    EveryAppend,
    /// When the owner calls [`Log::sync`], at least every [`tidewatch_model::limits::SYNC_INTERVAL`].
    OnSync,
}

/// How a local log works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalLogOptions {
    /// A segment is closed once it has this many bytes.
    pub segment_bytes: u64,
    /// When to sync.
    pub fsync: FsyncPolicy,
    /// Which partition of a topic this process writes, where there are so many.
    pub lane: u32,
}

impl Default for LocalLogOptions {
    fn default() -> Self {
        LocalLogOptions { segment_bytes: SEGMENT_BYTES, fsync: FsyncPolicy::OnSync, lane: 0 }
    }
}

/// A log in a folder.
pub struct LocalLog {
    root: PathBuf,
    files: Arc<dyn Files>,
    options: LocalLogOptions,
    partitions: Mutex<HashMap<(String, u32), Arc<Mutex<Partition>>>>,
}

/// A topic's description, as it is kept.
#[derive(Debug, Serialize, Deserialize)]
struct TopicFile {
    version: u32,
    partitions: u32,
    compacted: bool,
    retention: Option<Span>,
    retention_bytes: Option<u64>,
}

const TOPIC_FILE: &str = "topic.json";

impl LocalLog {
    /// Opens the log in a folder, making the folder when it is not there.
    ///
    /// # Errors
    /// A folder that can't be made or read.
    pub fn open(root: &Path, options: LocalLogOptions) -> Result<LocalLog, LogError> {
        Self::with_files(root, options, Arc::new(RealFiles))
    }

    /// The same on another file system.
    ///
    /// # Errors
    /// A folder that can't be made or read.
    pub fn with_files(root: &Path, options: LocalLogOptions, files: Arc<dyn Files>) -> Result<LocalLog, LogError> {
        files.create_dir(root).and_then(|()| files.list(root).map(drop)).map_err(|error| io(root, error))?;
        Ok(LocalLog { root: root.to_path_buf(), files, options, partitions: Mutex::default() })
    }

    /// Deletes whole segments beyond each topic's retention, in the partitions that this process writes. Returns how many.
    ///
    /// # Errors
    /// The disk's.
    pub fn retain(&self, now: Timestamp) -> Result<usize, LogError> {
        let mut deleted = 0;
        for partition in self.opened() {
            deleted += lock(&partition).retain(self.files.as_ref(), now)?;
        }
        Ok(deleted)
    }

    /// Deletes whole segments of which nothing lies at or after an offset, never the newest. Only the writer may.
    ///
    /// # Errors
    /// The disk's.
    pub fn trim(&self, topic: &str, partition: u32, before: u64) -> Result<(), LogError> {
        let partition = self.partition(topic, partition)?;
        lock(&partition).trim(self.files.as_ref(), before)
    }

    /// Bytes that a partition has on disk.
    ///
    /// # Errors
    /// The disk's.
    pub fn bytes(&self, topic: &str, partition: u32) -> Result<u64, LogError> {
        let partition = self.partition(topic, partition)?;
        lock(&partition).bytes(self.files.as_ref())
    }

    /// Damaged frames that were skipped, in the partitions that this process has read.
    pub fn corrupt_frames(&self) -> u64 {
        self.opened().iter().map(|partition| lock(partition).corrupt_frames()).sum()
    }

    fn opened(&self) -> Vec<Arc<Mutex<Partition>>> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn partition(&self, topic: &str, partition: u32) -> Result<Arc<Mutex<Partition>>, LogError> {
        let key = (topic.to_string(), partition);
        let mut partitions = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = partitions.get(&key) {
            return Ok(found.clone());
        }
        let missing = || LogError::NoSuchPartition { topic: topic.to_string(), partition };
        let description = self.read_topic(topic)?.ok_or_else(missing)?;
        if partition >= description.partitions {
            return Err(missing());
        }
        let folder = self.root.join(topic).join(format!("{partition:05}"));
        let options = TopicOptions {
            partitions: description.partitions,
            compacted: description.compacted,
            retention: description.retention,
            retention_bytes: description.retention_bytes,
        };
        let made = Arc::new(Mutex::new(Partition::new(key.clone(), folder, options)));
        partitions.insert(key, made.clone());
        Ok(made)
    }

    fn read_topic(&self, topic: &str) -> Result<Option<TopicFile>, LogError> {
        let path = self.root.join(topic).join(TOPIC_FILE);
        let damaged = |message: String| LogError::Damaged { path: path.display().to_string(), message };
        if !is_topic_name(topic) {
            return Ok(None);
        }
        let names = self.files.list(&self.root.join(topic)).map_err(|error| io(&path, error))?;
        if !names.iter().any(|name| name == TOPIC_FILE) {
            return Ok(None);
        }
        let bytes = self.files.read(&path, 0, 1 << 16).map_err(|error| io(&path, error))?;
        let description: TopicFile = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        if description.version != 1 {
            return Err(damaged(format!("version {}: expected 1", description.version)));
        }
        Ok(Some(description))
    }
}

/// Topic names are folder names.
fn is_topic_name(topic: &str) -> bool {
    let good = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || "._-".contains(letter);
    topic.starts_with(|first: char| first.is_ascii_lowercase()) && topic.len() <= 120 && topic.chars().all(good)
}

fn lock(partition: &Mutex<Partition>) -> std::sync::MutexGuard<'_, Partition> {
    partition.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Log for LocalLog {
    fn create_topic(&self, topic: &str, options: &TopicOptions) -> Result<(), LogError> {
        if !is_topic_name(topic) {
            let message = format!("'{topic}' is not a topic's name: expected small letters, digits, '.', '_' and '-'");
            return Err(LogError::Damaged { path: self.root.display().to_string(), message });
        }
        if self.read_topic(topic)?.is_some() {
            return Ok(());
        }
        let folder = self.root.join(topic);
        for partition in 0..options.partitions {
            let path = folder.join(format!("{partition:05}"));
            self.files.create_dir(&path).map_err(|error| io(&path, error))?;
        }
        let description = TopicFile {
            version: 1,
            partitions: options.partitions,
            compacted: options.compacted,
            retention: options.retention,
            retention_bytes: options.retention_bytes,
        };
        let bytes = serde_json::to_vec(&description).unwrap_or_default();
        // Another process may make the same topic at the same time: each stages under its own name.
        let staged = folder.join(format!("{TOPIC_FILE}.{}.tmp", std::process::id()));
        let path = folder.join(TOPIC_FILE);
        let made = self
            .files
            .remove(&staged)
            .and_then(|()| self.files.append(&staged, &bytes))
            .and_then(|()| self.files.sync(&staged))
            .and_then(|()| self.files.rename(&staged, &path))
            .and_then(|()| self.files.sync_dir(&folder))
            .and_then(|()| self.files.sync_dir(&self.root));
        made.map_err(|error| io(&path, error))
    }

    fn topics(&self) -> Result<Vec<String>, LogError> {
        let mut topics = self.files.list(&self.root).map_err(|error| io(&self.root, error))?;
        topics.retain(|topic| matches!(self.read_topic(topic), Ok(Some(_))));
        topics.sort();
        Ok(topics)
    }

    fn partitions(&self, topic: &str) -> Result<u32, LogError> {
        let missing = || LogError::NoSuchPartition { topic: topic.to_string(), partition: 0 };
        Ok(self.read_topic(topic)?.ok_or_else(missing)?.partitions)
    }

    fn append(&self, topic: &str, partition: u32, records: &[Record]) -> Result<u64, LogError> {
        let partition = self.partition(topic, partition)?;
        lock(&partition).append(self.files.as_ref(), &self.options, records)
    }

    fn read(&self, topic: &str, partition: u32, from: u64, max_bytes: usize) -> Result<ReadBatch, LogError> {
        let partition = self.partition(topic, partition)?;
        lock(&partition).read(self.files.as_ref(), from, max_bytes)
    }

    fn range(&self, topic: &str, partition: u32) -> Result<Range<u64>, LogError> {
        let partition = self.partition(topic, partition)?;
        lock(&partition).range(self.files.as_ref())
    }

    fn offset_for_time(&self, topic: &str, partition: u32, ts: Timestamp) -> Result<u64, LogError> {
        let partition = self.partition(topic, partition)?;
        lock(&partition).offset_for_time(self.files.as_ref(), ts)
    }

    fn lane(&self) -> Option<u32> {
        Some(self.options.lane)
    }

    fn sync(&self) -> Result<(), LogError> {
        for partition in self.opened() {
            lock(&partition).sync(self.files.as_ref())?;
        }
        Ok(())
    }
}
