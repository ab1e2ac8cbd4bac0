//! The spool: what an agent has collected and not sent yet, on its own disk.
//!
//! Frames are appended to a local log and shipped from there in order, a topic at a time. How far a topic was sent is
//! written down after each append that the target acknowledged, so a crash sends one batch again, and the receiver knows
//! it by its numbers; a batch never spans two starts of the agent, since the receiver remembers the newest only. Beyond
//! its bound the oldest frames go, and their rows are counted.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tidewatch_model::ports::{Log, LogError, ReadBatch, Record, TopicOptions, partition_of};
use tidewatch_model::wire::read_header;
use tidewatch_model::{Span, Timestamp};

use crate::local::{LocalLog, LocalLogOptions};

/// How much a spool keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpoolOptions {
    /// Bytes on disk, besides the newest segment of each topic.
    pub bytes: u64,
    /// Age of a frame by its newest row.
    pub age: Span,
    /// A segment is closed, and can be deleted, beyond this many bytes.
    pub segment_bytes: u64,
}

impl Default for SpoolOptions {
    fn default() -> Self {
        SpoolOptions { bytes: 256 << 20, age: Span::hours(24), segment_bytes: 1 << 20 }
    }
}

/// Frames that wait to be sent.
pub struct Spool {
    log: LocalLog,
    root: PathBuf,
    options: SpoolOptions,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Its topics, which are files on the disk and do not change there.
    topics: BTreeSet<String>,
    /// Up to where each topic was sent, or dropped.
    sent: BTreeMap<String, u64>,
    /// Up to where a topic is being sent just now: it is not dropped.
    sending: BTreeMap<String, u64>,
    /// Rows dropped since the last look, by topic.
    dropped: BTreeMap<String, u64>,
    /// Topics that may have frames to send.
    waiting: BTreeSet<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SentFile {
    version: u32,
    sent: BTreeMap<String, u64>,
}

const SENT_FILE: &str = "sent.json";
/// Bytes that are sent, or dropped, at once.
const BATCH_BYTES: usize = 1 << 20;

impl Spool {
    /// Opens the spool in a folder.
    ///
    /// # Errors
    /// A folder that can't be used, or positions that can't be read.
    pub fn open(root: &Path, options: SpoolOptions) -> Result<Spool, LogError> {
        let local = LocalLogOptions { segment_bytes: options.segment_bytes, ..LocalLogOptions::default() };
        let log = LocalLog::open(root, local)?;
        let path = root.join(SENT_FILE);
        let damaged = |message: String| LogError::Damaged { path: path.display().to_string(), message };
        let sent = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(source) => return Err(LogError::Io { path: path.display().to_string(), source }),
            Ok(bytes) => {
                let file: SentFile = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
                if file.version != 1 {
                    return Err(damaged(format!("version {}: expected 1", file.version)));
                }
                file.sent
            }
        };
        let topics: BTreeSet<String> = log.topics()?.into_iter().collect();
        let state = Mutex::new(State { sent, waiting: topics.clone(), topics, ..State::default() });
        Ok(Spool { log, root: root.to_path_buf(), options, state })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a batch of each topic that has any. Returns how many records were sent: none when all is sent.
    ///
    /// # Errors
    /// The target's: what was not acknowledged stays, and is sent again.
    pub fn ship(&self, target: &dyn Log) -> Result<usize, LogError> {
        let waiting = std::mem::take(&mut self.state().waiting);
        let mut moved = BTreeMap::new();
        let mut outcome = Ok(0);
        for topic in &waiting {
            // After a refusal the others wait for the next time.
            let Ok(count) = &mut outcome else {
                self.state().waiting.insert(topic.clone());
                continue;
            };
            match self.ship_topic(target, topic) {
                Ok(None) => {}
                Ok(Some((sent, next))) => {
                    *count += sent;
                    moved.insert(topic.clone(), next);
                    self.state().waiting.insert(topic.clone());
                }
                Err(error) => {
                    self.state().waiting.insert(topic.clone());
                    outcome = Err(error);
                }
            }
        }
        // What went is written down whatever became of the others.
        self.advance(moved).and(outcome)
    }

    /// Sends a batch of a topic; returns how many records, and the offset after them.
    fn ship_topic(&self, target: &dyn Log, topic: &str) -> Result<Option<(usize, u64)>, LogError> {
        let from = self.unsent(topic)?.start;
        let read = self.log.read(topic, 0, from, BATCH_BYTES)?;
        let (records, next) = one_start(read);
        if next == from {
            return Ok(None);
        }
        self.state().sending.insert(topic.to_string(), next);
        let sent = send(target, topic, &records);
        self.state().sending.remove(topic);
        sent.map(|()| Some((records.len(), next)))
    }

    /// Drops the oldest frames while there are more than the bound, or while they are too old.
    ///
    /// # Errors
    /// The disk's.
    pub fn enforce(&self, now: Timestamp) -> Result<(), LogError> {
        loop {
            let Some((topic, oldest)) = self.oldest()? else { return Ok(()) };
            if self.bytes()? <= self.options.bytes && now - oldest <= self.options.age {
                return Ok(());
            }
            if !self.drop_batch(&topic)? {
                return Ok(());
            }
        }
    }

    /// Bytes on disk.
    ///
    /// # Errors
    /// The disk's.
    pub fn bytes(&self) -> Result<u64, LogError> {
        self.topics()?.iter().map(|topic| self.log.bytes(topic, 0)).sum()
    }

    /// Rows dropped since the last call, by topic.
    pub fn take_dropped(&self) -> BTreeMap<String, u64> {
        std::mem::take(&mut self.state().dropped)
    }

    /// The offsets of a topic that were not sent yet.
    fn unsent(&self, topic: &str) -> Result<Range<u64>, LogError> {
        let range = self.log.range(topic, 0)?;
        let sent = self.state().sent.get(topic).copied().unwrap_or(0);
        // A spool that was emptied by hand begins anew.
        Ok(if sent > range.end { range } else { sent.max(range.start)..range.end })
    }

    /// The topic whose next frame is the oldest, and that frame's time.
    fn oldest(&self) -> Result<Option<(String, Timestamp)>, LogError> {
        let mut oldest: Option<(String, Timestamp)> = None;
        for topic in self.topics()? {
            // Most of the time everything was sent, and there is nothing to look at.
            if self.unsent(&topic)?.is_empty() {
                continue;
            }
            let from = self.droppable(&topic)?;
            let first = self.log.read(&topic, 0, from, 1)?.records.into_iter().next();
            if let Some((_, record)) = first
                && oldest.as_ref().is_none_or(|(_, ts)| record.timestamp < *ts)
            {
                oldest = Some((topic, record.timestamp));
            }
        }
        Ok(oldest)
    }

    fn droppable(&self, topic: &str) -> Result<u64, LogError> {
        let unsent = self.unsent(topic)?;
        Ok(self.state().sending.get(topic).copied().unwrap_or(0).max(unsent.start).min(unsent.end))
    }

    /// Drops the oldest batch of a topic; false when it has none.
    fn drop_batch(&self, topic: &str) -> Result<bool, LogError> {
        let from = self.droppable(topic)?;
        let read = self.log.read(topic, 0, from, BATCH_BYTES.min(self.options.segment_bytes as usize))?;
        if read.next == from {
            return Ok(false);
        }
        let rows = |record: &Record| read_header(record).map_or(1, |header| header.rows);
        let rows: u64 = read.records.iter().map(|(_, record)| rows(record)).sum();
        *self.state().dropped.entry(topic.to_string()).or_default() += rows;
        self.advance([(topic.to_string(), read.next)].into())?;
        Ok(true)
    }

    /// Writes down how far topics were sent, and deletes what that frees.
    fn advance(&self, moved: BTreeMap<String, u64>) -> Result<(), LogError> {
        if moved.is_empty() {
            return Ok(());
        }
        let bytes = {
            let mut state = self.state();
            for (topic, next) in &moved {
                let sent = state.sent.entry(topic.clone()).or_default();
                *sent = (*sent).max(*next);
            }
            serde_json::to_vec(&SentFile { version: 1, sent: state.sent.clone() }).unwrap_or_default()
        };
        for (topic, next) in &moved {
            self.log.trim(topic, 0, *next)?;
        }
        let (staged, path) = (self.root.join("sent.json.tmp"), self.root.join(SENT_FILE));
        let written = std::fs::write(&staged, bytes).and_then(|()| std::fs::rename(&staged, &path));
        written.map_err(|source| LogError::Io { path: path.display().to_string(), source })
    }

    /// On a full disk the oldest frames make room: what happens now matters more.
    fn append_making_room(&self, topic: &str, partition: u32, records: &[Record]) -> Result<u64, LogError> {
        loop {
            match self.log.append(topic, partition, records) {
                Err(LogError::Io { source, path }) if source.kind() == std::io::ErrorKind::StorageFull => {
                    let made_room = match self.oldest()? {
                        Some((oldest, _)) => self.drop_batch(&oldest)?,
                        None => false,
                    };
                    if !made_room {
                        return Err(LogError::Io { path, source });
                    }
                }
                appended => return appended,
            }
        }
    }
}

/// The records of the first start of the agent among those read, and the offset after them.
fn one_start(read: ReadBatch) -> (Vec<Record>, u64) {
    let start = |record: &Record| read_header(record).ok().map(|header| header.incarnation);
    let Some((_, first)) = read.records.first() else { return (vec![], read.next) };
    let first = start(first);
    let cut = read.records.iter().position(|(_, record)| start(record) != first);
    let next = cut.map_or(read.next, |cut| read.records[cut].0);
    let records = read.records.into_iter().take(cut.unwrap_or(usize::MAX)).map(|(_, record)| record).collect();
    (records, next)
}

/// Appends records to the partitions of their keys, in order.
fn send(target: &dyn Log, topic: &str, records: &[Record]) -> Result<(), LogError> {
    if records.is_empty() {
        return Ok(());
    }
    let partitions = target.partitions(topic)?.max(1);
    let mut by_partition: BTreeMap<u32, Vec<Record>> = BTreeMap::new();
    for record in records {
        by_partition.entry(partition_of(&record.key, partitions)).or_default().push(record.clone());
    }
    for (partition, records) in by_partition {
        target.append(topic, partition, &records)?;
    }
    Ok(())
}

impl Log for Spool {
    fn create_topic(&self, topic: &str, _: &TopicOptions) -> Result<(), LogError> {
        let options = TopicOptions { partitions: 1, compacted: false, retention: None, retention_bytes: None };
        self.log.create_topic(topic, &options)?;
        self.state().topics.insert(topic.to_string());
        Ok(())
    }

    fn topics(&self) -> Result<Vec<String>, LogError> {
        Ok(self.state().topics.iter().cloned().collect())
    }

    fn partitions(&self, topic: &str) -> Result<u32, LogError> {
        self.log.partitions(topic)
    }

    fn append(&self, topic: &str, partition: u32, records: &[Record]) -> Result<u64, LogError> {
        let appended = self.append_making_room(topic, partition, records)?;
        self.state().waiting.insert(topic.to_string());
        Ok(appended)
    }

    fn read(&self, topic: &str, partition: u32, from: u64, max_bytes: usize) -> Result<ReadBatch, LogError> {
        self.log.read(topic, partition, from, max_bytes)
    }

    fn range(&self, topic: &str, partition: u32) -> Result<Range<u64>, LogError> {
        self.log.range(topic, partition)
    }

    fn offset_for_time(&self, topic: &str, partition: u32, ts: Timestamp) -> Result<u64, LogError> {
        self.log.offset_for_time(topic, partition, ts)
    }

    fn sync(&self) -> Result<(), LogError> {
        self.log.sync()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, RecordBatch, TimestampMicrosecondArray};
    use tidewatch_model::ports::Random;
    use tidewatch_model::scripted::SeededRandom;
    use tidewatch_model::wire::{Origin, decode, encode};

    use super::*;
    use crate::ScriptedLog;

    const TOPICS: [&str; 2] = ["tidewatch.host", "tidewatch.cpu"];

    fn frame(origin: &mut Origin, second: i64) -> Record {
        let ts = TimestampMicrosecondArray::from(vec![second * 1_000_000; 3]).with_timezone("UTC");
        let number = Int64Array::from(vec![second; 3]);
        let batch = RecordBatch::try_from_iter([("ts", Arc::new(ts) as _), ("n", Arc::new(number) as _)]).unwrap();
        let record = encode("host", origin, &batch).unwrap();
        origin.seq += 1;
        record
    }

    fn options() -> TopicOptions {
        TopicOptions { partitions: 1, compacted: false, retention: None, retention_bytes: None }
    }

    fn target() -> ScriptedLog {
        let target = ScriptedLog::default();
        TOPICS
            .iter()
            .for_each(|topic| target.create_topic(topic, &TopicOptions { partitions: 3, ..options() }).unwrap());
        target
    }

    /// What a receiver takes that remembers the last number of the newest start, as the engine does: seconds, in order.
    fn received(target: &ScriptedLog, topic: &str) -> Vec<i64> {
        let mut last: Option<(String, u64)> = None;
        let mut seconds = Vec::new();
        for partition in 0..3 {
            for (_, record) in target.read(topic, partition, 0, usize::MAX).unwrap().records {
                let (header, _) = decode(&record).unwrap();
                let seen = last.as_ref().is_some_and(|(start, seq)| *start == header.incarnation && header.seq <= *seq);
                if !seen {
                    seconds.push(header.min_ts.0 / 1_000_000);
                    last = Some((header.incarnation, header.seq));
                }
            }
        }
        seconds
    }

    #[test]
    fn everything_arrives_once_and_in_order_whatever_fails() {
        for seed in 0..20 {
            println!("seed {seed}");
            let random = SeededRandom::new(seed);
            let folder = tempfile::tempdir().unwrap();
            let target = target();
            let mut second = 0;
            for life in 0..6 {
                let spool =
                    Spool::open(folder.path(), SpoolOptions { segment_bytes: 2_000, ..SpoolOptions::default() })
                        .unwrap();
                TOPICS.iter().for_each(|topic| spool.create_topic(topic, &options()).unwrap());
                let origin = Origin { source: "n1".into(), incarnation: format!("start-{life}"), seq: 0 };
                let mut origins = [origin.clone(), origin];
                for _ in 0..random.next_u64() % 30 {
                    second += 1;
                    for (topic, origin) in TOPICS.iter().zip(&mut origins) {
                        let record = frame(origin, second);
                        spool.append(topic, 0, &[record]).unwrap();
                    }
                    if random.unit() < 0.4 {
                        target.fail_appends([std::io::ErrorKind::TimedOut]);
                    }
                    if random.unit() < 0.5 {
                        drop(spool.ship(&target));
                    }
                }
            }
            let spool = Spool::open(folder.path(), SpoolOptions::default()).unwrap();
            let mut left = 200;
            while !matches!(spool.ship(&target), Ok(0)) {
                left -= 1;
                assert!(left > 0);
            }
            for topic in TOPICS {
                assert_eq!(received(&target, topic), (1..=second).collect::<Vec<_>>(), "seed {seed}: {topic}");
            }
            assert!(spool.take_dropped().is_empty());
        }
    }

    #[test]
    fn a_batch_that_arrived_and_was_not_noted_arrives_once() {
        let folder = tempfile::tempdir().unwrap();
        let target = target();
        for life in 0..2 {
            let spool = Spool::open(folder.path(), SpoolOptions::default()).unwrap();
            spool.create_topic(TOPICS[0], &options()).unwrap();
            let mut origin = Origin { source: "n1".into(), incarnation: format!("start-{life}"), seq: 0 };
            for second in 1..=10 {
                spool.append(TOPICS[0], 0, &[frame(&mut origin, life * 10 + second)]).unwrap();
            }
        }
        let noted = |spool: &Spool| spool.ship(&target).unwrap();
        let spool = Spool::open(folder.path(), SpoolOptions::default()).unwrap();
        assert_eq!(noted(&spool), 10, "one start at a time");
        let file = std::fs::read(folder.path().join(SENT_FILE)).unwrap();
        assert_eq!(noted(&spool), 10);
        // The crash comes between the target's word and ours.
        std::fs::write(folder.path().join(SENT_FILE), file).unwrap();
        drop(spool);
        let spool = Spool::open(folder.path(), SpoolOptions::default()).unwrap();
        assert_eq!((noted(&spool), noted(&spool)), (10, 0));
        assert_eq!(received(&target, TOPICS[0]), (1..=20).collect::<Vec<_>>());
    }

    #[test]
    fn beyond_the_bound_the_oldest_go_and_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let options_of = SpoolOptions { bytes: 20_000, segment_bytes: 2_000, ..SpoolOptions::default() };
        let spool = Spool::open(folder.path(), options_of).unwrap();
        spool.create_topic(TOPICS[0], &options()).unwrap();
        let mut origin = Origin { source: "n1".into(), incarnation: "a".into(), seq: 0 };
        for second in 1..=100 {
            spool.append(TOPICS[0], 0, &[frame(&mut origin, second)]).unwrap();
            spool.enforce(Timestamp::from_seconds(second)).unwrap();
        }
        assert!(spool.bytes().unwrap() <= 24_000, "{}", spool.bytes().unwrap());
        let target = target();
        while spool.ship(&target).unwrap() > 0 {}
        let arrived = received(&target, TOPICS[0]);
        let dropped = spool.take_dropped()[TOPICS[0]];
        assert_eq!(
            arrived,
            (dropped as i64 / 3 + 1..=100).collect::<Vec<_>>(),
            "the newest are kept, and rows are counted"
        );
        assert!(dropped > 0);
        spool.append(TOPICS[0], 0, &[frame(&mut origin, 101)]).unwrap();
        spool.enforce(Timestamp::from_seconds(101 + 86_401)).unwrap();
        assert_eq!(spool.take_dropped()[TOPICS[0]], 3, "too old");
        assert_eq!(spool.ship(&target).unwrap(), 0);
    }
}
