//! The writer: rows of each partition are held, written to hot files, and committed.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Schema, TimestampMicrosecondType};
use sha2::{Digest, Sha256};
use tidewatch_model::alert::hex;
use tidewatch_model::limits::HOT_BYTES;
use tidewatch_model::ports::{Random, Store};
use tidewatch_model::table::{TIME_COLUMN, schema_fingerprint};
use tidewatch_model::{Span, Timestamp};

use crate::chain::{self, Counts, Entry, HotFile, SourceSeq};
use crate::error::LakeError;
use crate::kept::KeptRows;
use crate::layout;
use crate::parquet_files::{Form, Rows, time_range, to_bytes};

/// How the writer works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LakeOptions {
    /// Length of event-time windows: a file never spans two.
    pub window: Span,
    /// Longest time that rows wait in memory.
    pub flush_interval: Span,
    /// Most bytes of Arrow that wait in memory per partition.
    pub flush_bytes: usize,
}

impl Default for LakeOptions {
    fn default() -> Self {
        LakeOptions { window: Span::minutes(5), flush_interval: Span::seconds(15), flush_bytes: HOT_BYTES }
    }
}

/// How far a partition was read, and what became of the records since the last call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// The offset after the last record read.
    pub next: u64,
    /// What became of them; rows are counted by the writer.
    pub counts: Counts,
    /// Sources whose last frame moved.
    pub sources: Vec<(String, SourceSeq)>,
}

/// What a flush did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flushed {
    /// Entries committed.
    pub entries: u64,
    /// Rows in them.
    pub rows: u64,
    /// Bytes of hot files.
    pub bytes: u64,
}

/// Writes hot files and commits them.
pub struct LakeWriter {
    store: Arc<dyn Store>,
    random: Arc<dyn Random>,
    options: LakeOptions,
    writer: String,
    partitions: BTreeMap<(String, u32), Partition>,
    kept: Option<KeptRows>,
}

/// One partition: what is committed, and what waits.
#[derive(Default)]
struct Partition {
    seq: u64,
    committed: u64,
    next: u64,
    counts: Counts,
    last_seq: BTreeMap<String, SourceSeq>,
    waiting: BTreeMap<(String, Timestamp), Vec<RecordBatch>>,
    bytes: usize,
    since: Option<Timestamp>,
    /// An entry whose files are written and whose commit got no answer: it may be there, so nothing else may take its place.
    attempt: Option<Attempt>,
}

/// An entry, and the rows of each of its files.
struct Attempt {
    entry: Entry,
    rows: Vec<Vec<RecordBatch>>,
}

impl Partition {
    /// Commits what is under way and then what waits, and hands on what was committed.
    fn commit(
        &mut self,
        (topic, partition): (&str, u32),
        by: &Committer,
        now: Timestamp,
        mut done: impl FnMut(Attempt),
    ) -> Result<(), LakeError> {
        loop {
            if self.attempt.is_none() && self.next > self.committed {
                self.attempt = Some(by.prepare(topic, partition, self, now)?);
                (self.counts, self.bytes, self.since) = (Counts::default(), 0, None);
                self.waiting.clear();
            }
            let Some(attempt) = self.attempt.take() else { return Ok(()) };
            if let Err(error) = chain::append(by.store, &attempt.entry) {
                self.attempt = Some(attempt);
                return Err(error);
            }
            (self.seq, self.committed) = (attempt.entry.seq, attempt.entry.to);
            done(attempt);
        }
    }
}

impl LakeWriter {
    /// A writer with an identity of its own.
    pub fn new(store: Arc<dyn Store>, random: Arc<dyn Random>, options: LakeOptions) -> Self {
        let writer = format!("{:016x}{:016x}", random.next_u64(), random.next_u64());
        LakeWriter { store, random, options, writer, partitions: BTreeMap::new(), kept: None }
    }

    /// The same; rows that it commits are kept there, for a settler of the same process.
    #[must_use]
    pub fn with_kept(self, kept: Option<KeptRows>) -> Self {
        LakeWriter { kept, ..self }
    }

    /// Where a partition is to be read from: after everything committed.
    ///
    /// # Errors
    /// The store's, or a damaged chain.
    pub fn position(&mut self, topic: &str, partition: u32) -> Result<u64, LakeError> {
        Ok(self.partition(topic, partition)?.next)
    }

    /// Whether nothing of a partition was ever committed, nor begun here.
    ///
    /// # Errors
    /// The store's, or a damaged chain.
    pub fn is_new(&mut self, topic: &str, partition: u32) -> Result<bool, LakeError> {
        let held = self.partition(topic, partition)?;
        Ok(held.seq == 0 && held.next == 0)
    }

    /// Begins a partition of which nothing was ever committed at an offset: what lies before it is not asked for. It is
    /// committed at once, so that whoever comes next begins there too.
    ///
    /// # Errors
    /// The store's, or a damaged chain.
    pub fn begin_at(&mut self, topic: &str, partition: u32, offset: u64, now: Timestamp) -> Result<(), LakeError> {
        let (store, random) = (self.store.clone(), self.random.clone());
        let (window, writer) = (self.options.window, self.writer.clone());
        let held = self.partition(topic, partition)?;
        if held.seq == 0 && held.next == 0 {
            (held.committed, held.next) = (offset, offset);
            let committer = Committer { store: store.as_ref(), random: random.as_ref(), window, writer: &writer };
            held.attempt = Some(committer.prepare(topic, partition, held, now)?);
            held.commit((topic, partition), &committer, now, drop)?;
        }
        Ok(())
    }

    /// The last committed frame of each source of a partition, to know duplicates by.
    ///
    /// # Errors
    /// The store's, or a damaged chain.
    pub fn last_seqs(&mut self, topic: &str, partition: u32) -> Result<BTreeMap<String, SourceSeq>, LakeError> {
        Ok(self.partition(topic, partition)?.last_seq.clone())
    }

    fn partition(&mut self, topic: &str, partition: u32) -> Result<&mut Partition, LakeError> {
        let key = (topic.to_string(), partition);
        if !self.partitions.contains_key(&key) {
            let newest = chain::newest(self.store.as_ref(), topic, partition)?;
            let known = newest.map_or_else(Partition::default, |entry| Partition {
                seq: entry.seq,
                committed: entry.to,
                next: entry.to,
                last_seq: entry.last_seq,
                ..Partition::default()
            });
            self.partitions.insert(key.clone(), known);
        }
        Ok(self.partitions.entry(key).or_default())
    }

    /// Takes rows of a table, read from a partition. They count once [`LakeWriter::advance`] was told how far was read.
    ///
    /// # Errors
    /// Rows without a ts.
    pub fn rows(&mut self, topic: &str, partition: u32, table: &str, rows: &RecordBatch) -> Result<(), LakeError> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let window = self.options.window;
        let parts = by_window(table, rows, window)?;
        let held = self.partition(topic, partition)?;
        held.bytes += rows.get_array_memory_size();
        for (start, part) in parts {
            held.waiting.entry((table.to_string(), start)).or_default().push(part);
        }
        Ok(())
    }

    /// Says how far a partition was read.
    ///
    /// # Errors
    /// The store's, when the partition was not known yet.
    pub fn advance(
        &mut self,
        topic: &str,
        partition: u32,
        progress: &Progress,
        now: Timestamp,
    ) -> Result<(), LakeError> {
        let held = self.partition(topic, partition)?;
        held.next = progress.next;
        held.since.get_or_insert(now);
        let (sum, more) = (&mut held.counts, &progress.counts);
        sum.records += more.records;
        sum.dead_letters += more.dead_letters;
        sum.duplicates += more.duplicates;
        sum.missing += more.missing;
        held.last_seq.extend(progress.sources.iter().cloned());
        Ok(())
    }

    /// Whether rows wait long enough, or are enough, to be written.
    pub fn due(&self, now: Timestamp) -> bool {
        self.partitions.values().any(|held| {
            held.bytes >= self.options.flush_bytes
                || held.since.is_some_and(|since| now - since >= self.options.flush_interval)
        })
    }

    /// Rows that wait, of all partitions.
    pub fn waiting_rows(&self) -> usize {
        let waiting = self.partitions.values().flat_map(|held| held.waiting.values());
        let attempts = self.partitions.values().flat_map(|held| held.attempt.iter().flat_map(|attempt| &attempt.rows));
        waiting.chain(attempts).flatten().map(RecordBatch::num_rows).sum()
    }

    /// Writes and commits everything that waits. What fails is kept and tried again at the next flush: files under new names, an
    /// entry that may be there already as it was.
    ///
    /// # Errors
    /// The first failure; partitions after it are tried all the same.
    pub fn flush(&mut self, now: Timestamp) -> Result<Flushed, LakeError> {
        let mut flushed = Flushed::default();
        let mut failure = None;
        for ((topic, partition), held) in &mut self.partitions {
            let committer = Committer {
                store: self.store.as_ref(),
                random: self.random.as_ref(),
                window: self.options.window,
                writer: &self.writer,
            };
            let committed = held.commit((topic, *partition), &committer, now, |Attempt { entry, rows }| {
                if let Some(kept) = &self.kept {
                    entry.files.iter().zip(rows).for_each(|(file, rows)| kept.keep(&file.path, rows));
                }
                flushed.entries += 1;
                flushed.rows += entry.counts.rows;
                flushed.bytes += entry.files.iter().map(|file| file.bytes).sum::<u64>();
            });
            if let Err(error) = committed {
                // Not before the next interval: a full disk is not asked again at every row.
                held.since = Some(now);
                failure.get_or_insert(error);
            }
        }
        match failure {
            Some(error) => Err(error),
            None => Ok(flushed),
        }
    }
}

/// What a commit needs besides the rows.
struct Committer<'a> {
    store: &'a dyn Store,
    random: &'a dyn Random,
    window: Span,
    writer: &'a str,
}

impl Committer<'_> {
    /// Writes the files of the next entry.
    fn prepare(&self, topic: &str, partition: u32, held: &Partition, now: Timestamp) -> Result<Attempt, LakeError> {
        let seq = held.seq + 1;
        let (mut files, mut kept) = (Vec::new(), Vec::new());
        for ((table, start), batches) in &held.waiting {
            let (file, rows) = self.hot_file(topic, partition, seq, table, *start, batches)?;
            files.push(file);
            kept.push(rows);
        }
        let counts = Counts { rows: files.iter().map(|file| file.rows).sum(), ..held.counts };
        let entry = Entry {
            version: 1,
            topic: topic.to_string(),
            partition,
            seq,
            from: held.committed,
            to: held.next,
            files,
            counts,
            last_seq: held.last_seq.clone(),
            writer: self.writer.to_string(),
            committed_at: now,
        };
        Ok(Attempt { entry, rows: kept })
    }

    fn hot_file(
        &self,
        topic: &str,
        partition: u32,
        seq: u64,
        table: &str,
        start: Timestamp,
        batches: &[RecordBatch],
    ) -> Result<(HotFile, Vec<RecordBatch>), LakeError> {
        // Thousands of small batches are few large ones from here on.
        let chunks = Rows::new(table, batches)?.as_they_came().collect::<Result<Vec<_>, _>>()?;
        let rows = Rows::new(table, &chunks)?;
        let schema = schema_fingerprint(&rows.schema);
        self.register_schema(table, &schema, &rows.schema)?;
        let facts = [("table", table.to_string()), ("schema", schema.clone()), ("rows", rows.count().to_string())];
        let bytes = to_bytes(&rows, Form::Hot, &facts)?;
        let path = layout::hot_file(table, topic, partition, seq, start, self.random.next_u64());
        self.store.create(&path, &bytes)?;
        let (min_ts, max_ts) = rows.time_range()?;
        let file = HotFile {
            path,
            table: table.to_string(),
            window_start: start,
            window: self.window,
            rows: rows.count() as u64,
            bytes: bytes.len() as u64,
            min_ts,
            max_ts,
            sha256: hex(&Sha256::digest(&bytes)),
            schema,
        };
        Ok((file, chunks))
    }

    /// Writes down what a fingerprint stands for, the first time that it is used.
    fn register_schema(&self, table: &str, fingerprint: &str, schema: &Schema) -> Result<(), LakeError> {
        let path = layout::schema_file(table, fingerprint);
        if self.store.get(&path).is_ok() {
            return Ok(());
        }
        let fields = schema
            .fields()
            .iter()
            .map(|field| serde_json::json!({"name": field.name(), "type": field.data_type().to_string()}));
        let text = serde_json::json!({"version": 1, "table": table, "fields": fields.collect::<Vec<_>>()});
        self.store.create(&path, text.to_string().as_bytes())?;
        Ok(())
    }
}

/// The rows of each window.
fn by_window(table: &str, rows: &RecordBatch, window: Span) -> Result<Vec<(Timestamp, RecordBatch)>, LakeError> {
    let (min, max) = time_range(table, rows)?;
    if min.floor(window) == max.floor(window) {
        return Ok(vec![(min.floor(window), rows.clone())]);
    }
    let Some(times) =
        rows.column_by_name(TIME_COLUMN).and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>())
    else {
        return Ok(vec![]);
    };
    let mut starts: Vec<Timestamp> = times.values().iter().map(|ts| Timestamp(*ts).floor(window)).collect();
    starts.sort_unstable();
    starts.dedup();
    let part = |start: Timestamp| {
        let inside: BooleanArray =
            times.values().iter().map(|ts| Some(Timestamp(*ts).floor(window) == start)).collect();
        let kept = filter_record_batch(rows, &inside)
            .map_err(|error| LakeError::Rows { table: table.to_string(), problem: error.to_string() })?;
        Ok((start, kept))
    };
    starts.into_iter().map(part).collect()
}
