//! The ports: what Tidewatch asks of the outside. Each has a real implementation in `connectors/` and a scripted one for
//! tests, and both pass the same contract suite.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::limits::READ_BYTES;
use crate::notice::Notice;
use crate::time::{Span, Timestamp};

/// What time it is.
pub trait Clock: Send + Sync {
    /// The current instant.
    fn now(&self) -> Timestamp;
}

/// Random bits, for names that must not collide. Never for anything that decides.
pub trait Random: Send + Sync {
    /// Sixty-four random bits.
    fn next_u64(&self) -> u64;
}

/// One record of a log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// Decides the partition, and what a compacted topic keeps.
    pub key: Vec<u8>,
    /// Names and values, in order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The payload; `None` is a tombstone: a compacted topic forgets the key.
    pub value: Option<Vec<u8>>,
    /// Event time of the record's newest row; retention by age goes by it. After 1970, and kept to the millisecond.
    pub timestamp: Timestamp,
}

/// What a read returned.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReadBatch {
    /// Records with their offsets, ascending. Offsets may have gaps (compaction, skipped frames).
    pub records: Vec<(u64, Record)>,
    /// Where to read on.
    pub next: u64,
    /// The offset that the next record appended to the log gets, as far as is known: behind it nothing waits.
    pub end: u64,
    /// Frames that were there and could not be read, as offsets: counted, reported, never retried for ever.
    pub corrupt: Vec<u64>,
}

/// How a topic is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicOptions {
    /// Number of partitions; the local log has one.
    pub partitions: u32,
    /// Keep only the newest record of each key.
    pub compacted: bool,
    /// Delete whole segments whose newest record is older than this.
    pub retention: Option<Span>,
    /// Delete the oldest segments while a partition is larger than this.
    pub retention_bytes: Option<u64>,
}

/// Why a log could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The topic or partition does not exist.
    #[error("topic {topic} has no partition {partition}")]
    NoSuchPartition {
        /// The topic.
        topic: String,
        /// The partition asked for.
        partition: u32,
    },
    /// The offset was deleted by retention, or lies beyond the end.
    #[error("{topic}/{partition}: offset {offset} is outside of {}..{}", available.start, available.end)]
    OutOfRange {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// The offset asked for.
        offset: u64,
        /// What there is.
        available: Range<u64>,
    },
    /// The record is larger than a log takes.
    #[error("{topic}/{partition}: a record of {bytes} bytes is over the limit of {limit}")]
    TooLarge {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Another process writes this partition.
    #[error("{topic}/{partition}: another process is writing here ({path})")]
    Locked {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// The lock file.
        path: String,
    },
    /// The topic's files are of a format that this version does not know, or its description is damaged.
    #[error("{path}: {message}")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong.
        message: String,
    },
    /// The disk or the network said no.
    #[error("{path}: {source}")]
    Io {
        /// What was touched.
        path: String,
        /// What the system answered.
        source: std::io::Error,
    },
}

impl LogError {
    /// The log has records and does not give them in time.
    pub fn slow(topic: &str, partition: u32) -> LogError {
        let waited = std::io::Error::new(std::io::ErrorKind::TimedOut, "the log does not give its records in time");
        LogError::Io { path: format!("{topic}/{partition}"), source: waited }
    }
}

/// A partitioned, append-only log: Kafka, or the local one.
pub trait Log: Send + Sync {
    /// Makes a topic; does nothing when it exists.
    fn create_topic(&self, topic: &str, options: &TopicOptions) -> Result<(), LogError>;
    /// The topics that exist, sorted.
    fn topics(&self) -> Result<Vec<String>, LogError>;
    /// How many partitions a topic has.
    fn partitions(&self, topic: &str) -> Result<u32, LogError>;
    /// Appends all records in order and returns the offset of the first. They are acknowledged when this returns: a
    /// killed process loses none of them; a machine that loses power loses at most what the fsync policy allows.
    fn append(&self, topic: &str, partition: u32, records: &[Record]) -> Result<u64, LogError>;
    /// Reads from `from` on, at least one record if there is one, then up to about `max_bytes`. A log across a network that
    /// is slow may give none now: then the batch's `end` lies behind its `next`.
    fn read(&self, topic: &str, partition: u32, from: u64, max_bytes: usize) -> Result<ReadBatch, LogError>;
    /// First offset kept, and the one that the next record gets.
    fn range(&self, topic: &str, partition: u32) -> Result<Range<u64>, LogError>;
    /// An offset at or before every record whose timestamp is `ts` or later; the end when there is none.
    fn offset_for_time(&self, topic: &str, partition: u32, ts: Timestamp) -> Result<u64, LogError>;
    /// The partition that this process writes, of topics that have so many, where a partition is one process's; `None` where each source finds
    /// its own ([`partition_of`]).
    fn lane(&self) -> Option<u32> {
        None
    }
    /// Makes everything acknowledged so far survive a loss of power.
    fn sync(&self) -> Result<(), LogError>;
    /// Tells the log's own tools how far each partition was read and stored (topic, partition, next offset), so that people
    /// see the lag there too. Nothing is ever decided by it, and what fails is not said.
    fn tell_progress(&self, _positions: &[(String, u32, u64)]) {}
}

/// Hands over every record of a partition, from an offset to what is its end now.
///
/// # Errors
/// The log's; and a log that does not give what it has within its time, so that nobody takes the half for the whole.
pub fn read_to_end(
    log: &dyn Log,
    topic: &str,
    partition: u32,
    from: u64,
    take: &mut dyn FnMut(u64, Record),
) -> Result<(), LogError> {
    let mut next = from;
    loop {
        let read = log.read(topic, partition, next, READ_BYTES)?;
        read.records.into_iter().for_each(|(offset, record)| take(offset, record));
        if read.next == next {
            return if read.end > next { Err(LogError::slow(topic, partition)) } else { Ok(()) };
        }
        next = read.next;
    }
}

/// What became of a member's part in a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// These partitions are the member's from now on.
    Given(Vec<u32>),
    /// These are asked back: the member ends its work on them and then calls [`Membership::give_back`].
    AskedBack(Vec<u32>),
    /// These were taken while the member did not answer: somebody else may be at them already.
    Taken(Vec<u32>),
}

/// A group of processes that divide the partitions of one topic among them.
pub trait Membership: Send {
    /// What changed since the last call. Called often: a member that does not is taken for dead.
    ///
    /// # Errors
    /// The group can't be reached; what the member has stays its own until it is told otherwise.
    fn poll(&mut self) -> Result<Vec<Change>, LogError>;
    /// Lets partitions go that were asked back.
    ///
    /// # Errors
    /// As for `poll`.
    fn give_back(&mut self, partitions: &[u32]) -> Result<(), LogError>;
}

/// The partition of a key: Kafka's own choice (murmur2 of the key, its sign dropped, modulo the partitions), so that other
/// producers of the same keys agree with ours.
///
/// ```
/// use tidewatch_model::ports::partition_of;
/// assert_eq!(partition_of(b"n1", 1), 0);
/// assert!(partition_of(b"n1", 12) < 12);
/// ```
///
/// # Panics
/// Without partitions.
pub fn partition_of(key: &[u8], partitions: u32) -> u32 {
    (murmur2(key) & 0x7fff_ffff) % partitions
}

/// The partition into which a source of a topic is written.
///
/// # Errors
/// The log's.
pub fn partition_for(log: &dyn Log, topic: &str, source: &str) -> Result<u32, LogError> {
    let partitions = log.partitions(topic)?.max(1);
    Ok(match log.lane() {
        Some(lane) => lane.min(partitions - 1),
        None => partition_of(source.as_bytes(), partitions),
    })
}

/// MurmurHash2, 32 bits, with Kafka's seed (`org.apache.kafka.common.utils.Utils.murmur2`).
fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    let mut hash = SEED ^ data.len() as u32;
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k = (k ^ (k >> 24)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    if !rest.is_empty() {
        for (index, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// Whether a create-only put wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// The object did not exist; it does now, whole and durable.
    Now,
    /// Something was there already; nothing was changed.
    Exists,
}

/// Why a store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No such object.
    #[error("{0}: not found")]
    NotFound(String),
    /// The path leaves the store, or is not of the accepted form.
    #[error("{0}: not a path within the store")]
    BadPath(String),
    /// The disk or the network said no.
    #[error("{path}: {source}")]
    Io {
        /// The object.
        path: String,
        /// What the system answered.
        source: std::io::Error,
    },
}

/// An object store with create-only puts: all that the lake's commit protocol needs.
pub trait Store: Send + Sync {
    /// Writes an object that must not exist yet; atomic and durable.
    fn create(&self, path: &str, bytes: &[u8]) -> Result<Created, StoreError>;
    /// Reads an object whole.
    fn get(&self, path: &str) -> Result<Vec<u8>, StoreError>;
    /// Paths and sizes of all objects under a prefix (a folder path ending in `/`), sorted by path.
    fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, StoreError>;
    /// Deletes an object; fine when it is gone already.
    fn delete(&self, path: &str) -> Result<(), StoreError>;
    /// Where the object lies as a file, when the store is a local folder.
    fn local_path(&self, path: &str) -> Option<PathBuf>;
    /// Parts of an object, each by its first byte and the one after its last.
    fn get_ranges(&self, path: &str, ranges: &[Range<u64>]) -> Result<Vec<Vec<u8>>, StoreError> {
        let bytes = self.get(path)?;
        let part = |range: &Range<u64>| bytes.get(range.start as usize..range.end as usize).map(<[u8]>::to_vec);
        let parts = ranges.iter().map(part).collect::<Option<Vec<_>>>();
        parts.ok_or_else(|| StoreError::Io {
            path: path.to_string(),
            source: std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "shorter than what is asked for"),
        })
    }
}

/// A Parquet file of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanFile {
    /// Where it is, for [`Scan::read`].
    pub path: String,
    /// Rows in it.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
    /// Smallest and largest ts in it.
    pub ts: (Timestamp, Timestamp),
}

/// A table at one moment: files, and rows that are in memory only.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The table's schema; files may lack trailing columns.
    pub schema: SchemaRef,
    /// The files, each row in exactly one.
    pub files: Vec<ScanFile>,
    /// Rows that are in no file yet.
    pub batches: Vec<RecordBatch>,
}

/// Why a scan could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// No such table.
    #[error("no table '{0}'")]
    NoSuchTable(String),
    /// The store said no, or holds something damaged.
    #[error("{0}")]
    Unreadable(String),
}

/// History as tables: the lake's side of SQL.
pub trait Scan: Send + Sync {
    /// Everything committed in those of these tables that have rows, at one moment.
    fn snapshot(&self, tables: &[String]) -> Result<BTreeMap<String, Snapshot>, ScanError>;
    /// Parts of a file, each by its first byte and the one after its last.
    fn read(&self, path: &str, ranges: &[Range<u64>]) -> Result<Vec<Vec<u8>>, ScanError>;
}

/// How an attempt to tell somebody ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// They have it.
    Delivered,
    /// Not now; perhaps later, not before `after`.
    Retry {
        /// What the other side asked us to wait.
        after: Option<Span>,
        /// What went wrong, without secrets.
        error: String,
        /// Whether they may have it all the same: it was sent, and no answer came.
        perhaps: bool,
    },
    /// Never: the other side will not take it.
    GiveUp {
        /// What went wrong, without secrets.
        error: String,
    },
}

/// A channel to people.
pub trait Notify: Send + Sync {
    /// The target's name, which no other has.
    fn target(&self) -> &str;
    /// One attempt; bounded in time by the implementation.
    fn notify(&self, notice: &Notice) -> Delivery;
    /// What would be sent, for people to look at, without secrets.
    fn preview(&self, notice: &Notice) -> String;
}

#[cfg(test)]
mod tests {
    #[test]
    fn murmur2_is_kafkas() {
        // From Kafka's own test of it (UtilsTest.testMurmur2).
        let cases: [(&[u8], i32); 6] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
        ];
        for (data, expected) in cases {
            assert_eq!(super::murmur2(data) as i32, expected, "{data:?}");
        }
    }
}
