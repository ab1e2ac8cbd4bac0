//! A log in memory that fails when it is told to.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tidewatch_model::Timestamp;
use tidewatch_model::limits::RECORD_BYTES;
use tidewatch_model::ports::{Log, LogError, ReadBatch, Record, TopicOptions};

/// A log for tests and simulations.
#[derive(Debug, Default)]
pub struct ScriptedLog {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    topics: BTreeMap<String, Vec<Vec<Record>>>,
    failures: VecDeque<std::io::ErrorKind>,
    slow_reads: u32,
    unreachable: Option<String>,
}

impl ScriptedLog {
    /// The next appends fail like this, one after the other.
    pub fn fail_appends(&self, kinds: impl IntoIterator<Item = std::io::ErrorKind>) {
        self.state().failures.extend(kinds);
    }

    /// The next reads of something that is there give nothing, as a network that is slow.
    pub fn slow_reads(&self, count: u32) {
        self.state().slow_reads = count;
    }

    /// Nobody answers for a topic; `None` ends it. Reads give nothing, and what is asked fails.
    pub fn lose(&self, topic: Option<&str>) {
        self.state().unreachable = topic.map(ToString::to_string);
    }

    /// A topic is deleted and made anew: its offsets begin at 0 again.
    pub fn make_anew(&self, topic: &str) {
        self.state().topics.get_mut(topic).into_iter().flatten().for_each(Vec::clear);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(
        &self,
        topic: &str,
        partition: u32,
        work: impl FnOnce(&mut Vec<Record>) -> Result<T, LogError>,
    ) -> Result<T, LogError> {
        let mut state = self.state();
        let records = state.topics.get_mut(topic).and_then(|partitions| partitions.get_mut(partition as usize));
        work(records.ok_or_else(|| LogError::NoSuchPartition { topic: topic.to_string(), partition })?)
    }
}

impl Log for ScriptedLog {
    fn create_topic(&self, topic: &str, options: &TopicOptions) -> Result<(), LogError> {
        self.state().topics.entry(topic.to_string()).or_insert_with(|| vec![vec![]; options.partitions as usize]);
        Ok(())
    }

    fn topics(&self) -> Result<Vec<String>, LogError> {
        Ok(self.state().topics.keys().cloned().collect())
    }

    fn partitions(&self, topic: &str) -> Result<u32, LogError> {
        let missing = || LogError::NoSuchPartition { topic: topic.to_string(), partition: 0 };
        self.state().topics.get(topic).map(|partitions| partitions.len() as u32).ok_or_else(missing)
    }

    fn append(&self, topic: &str, partition: u32, records: &[Record]) -> Result<u64, LogError> {
        if let Some(kind) = self.state().failures.pop_front() {
            return Err(LogError::Io { path: topic.to_string(), source: kind.into() });
        }
        if let Some(large) = records.iter().find(|record| record.value.as_ref().map_or(0, Vec::len) > RECORD_BYTES) {
            let bytes = large.value.as_ref().map_or(0, Vec::len);
            return Err(LogError::TooLarge { topic: topic.to_string(), partition, bytes, limit: RECORD_BYTES });
        }
        self.with(topic, partition, |log| {
            let first = log.len() as u64;
            log.extend_from_slice(records);
            Ok(first)
        })
    }

    fn read(&self, topic: &str, partition: u32, from: u64, max_bytes: usize) -> Result<ReadBatch, LogError> {
        if self.state().unreachable.as_deref() == Some(topic) {
            return Ok(ReadBatch { next: from, end: from, ..ReadBatch::default() });
        }
        let end = self.range(topic, partition)?.end;
        let mut state = self.state();
        if from < end && state.slow_reads > 0 {
            state.slow_reads -= 1;
            return Ok(ReadBatch { next: from, end, ..ReadBatch::default() });
        }
        drop(state);
        self.with(topic, partition, |log| {
            if from > log.len() as u64 {
                return Err(LogError::OutOfRange {
                    topic: topic.to_string(),
                    partition,
                    offset: from,
                    available: 0..log.len() as u64,
                });
            }
            let mut batch = ReadBatch { next: from, end: log.len() as u64, ..ReadBatch::default() };
            let mut bytes = 0;
            for (index, record) in log.iter().enumerate().skip(from as usize) {
                if !batch.records.is_empty() && bytes >= max_bytes {
                    break;
                }
                bytes += record.value.as_ref().map_or(0, Vec::len);
                batch.records.push((index as u64, record.clone()));
                batch.next = index as u64 + 1;
            }
            Ok(batch)
        })
    }

    fn range(&self, topic: &str, partition: u32) -> Result<Range<u64>, LogError> {
        if self.state().unreachable.as_deref() == Some(topic) {
            return Err(LogError::Io { path: topic.to_string(), source: std::io::ErrorKind::TimedOut.into() });
        }
        self.with(topic, partition, |log| Ok(0..log.len() as u64))
    }

    fn offset_for_time(&self, topic: &str, partition: u32, ts: Timestamp) -> Result<u64, LogError> {
        self.with(topic, partition, |log| {
            Ok(log.iter().position(|record| record.timestamp >= ts).unwrap_or(log.len()) as u64)
        })
    }

    fn sync(&self) -> Result<(), LogError> {
        Ok(())
    }
}
