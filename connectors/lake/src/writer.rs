//! The writer: rows of each partition are held, written to hot files, and committed.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Schema, TimestampMicrosecondType};
use sha2::{Digest, Sha256};
use tidewatch_model::alert::hex;
use tidewatch_model::limits::{HOT_BYTES, SETTLED_WINDOW};
use tidewatch_model::ports::{Random, Store};
use tidewatch_model::table::{TIME_COLUMN, schema_fingerprint};
use tidewatch_model::{Span, Timestamp};

use crate::chain::{self, Counts, Entry, HotFile, SourceSeq};
use crate::claim::VERSION;
use crate::error::LakeError;
use crate::kept::KeptRows;
use crate::layout;
use crate::parquet_files::{Form, Rows, time_range, to_bytes};
use crate::size::bytes_of;

/// How the writer works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LakeOptions {
    /// Length of the event-time windows of public files: none spans two.
    pub window: Span,
    /// Longest time that rows wait in memory.
    pub flush_interval: Span,
    /// Most bytes of Arrow that wait in memory per partition.
    pub flush_bytes: usize,
}

impl LakeOptions {
    /// Length of the windows of hot and settled files. Rows that are read again within the hour are sorted and small by then; and a
    /// public file of a day needs no day's rows to be sorted at once.
    fn settled_window(&self) -> Span {
        if self.window.0 % SETTLED_WINDOW.0 == 0 { SETTLED_WINDOW } else { self.window }
    }
}

impl Default for LakeOptions {
    fn default() -> Self {
        LakeOptions { window: Span::hours(1), flush_interval: Span::seconds(15), flush_bytes: HOT_BYTES }
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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flushed {
    /// Entries committed.
    pub entries: u64,
    /// Rows in them.
    pub rows: u64,
    /// Bytes of hot files.
    pub bytes: u64,
    /// Up to where each partition is committed now.
    pub positions: Vec<(String, u32, u64)>,
}

/// Holds rows until they are written to hot files and committed.
pub struct LakeWriter {
    store: Arc<dyn Store>,
    random: Arc<dyn Random>,
    options: LakeOptions,
    writer: String,
    partitions: BTreeMap<(String, u32), Partition>,
    kept: Option<KeptRows>,
    /// Entries that did not succeed, and since when: nothing else of their partitions is written before them.
    unfinished: Option<(Flush, Timestamp)>,
    /// Rows of the flush that was handed out.
    rows_out: Option<usize>,
    /// Their bytes.
    bytes_out: usize,
}

/// One partition: what was handed out to be committed, and what waits.
#[derive(Default)]
struct Partition {
    seq: u64,
    begun: u64,
    next: u64,
    counts: Counts,
    last_seq: BTreeMap<String, SourceSeq>,
    waiting: Waiting,
    bytes: usize,
    since: Option<Timestamp>,
}

/// Rows of each table and window.
type Waiting = BTreeMap<(String, Timestamp), Vec<RecordBatch>>;

/// Rows on their way: to be carried out on any thread, and to be given back to its writer.
pub struct Flush {
    store: Arc<dyn Store>,
    random: Arc<dyn Random>,
    window: Span,
    public_window: Span,
    writer: String,
    kept: Option<KeptRows>,
    portions: Vec<Portion>,
    flushed: Flushed,
}

/// The next entry of one partition.
struct Portion {
    topic: String,
    partition: u32,
    seq: u64,
    from: u64,
    to: u64,
    counts: Counts,
    last_seq: BTreeMap<String, SourceSeq>,
    waiting: Waiting,
    /// Files that are written, and their rows.
    written: Vec<(HotFile, Vec<RecordBatch>)>,
    bytes: usize,
    /// The entry, once its files are written. It may have been committed without an answer, so nothing else takes its place.
    attempt: Option<Attempt>,
}

/// An entry, and the rows of each of its files.
struct Attempt {
    entry: Entry,
    rows: Vec<Vec<RecordBatch>>,
}

impl Flush {
    /// Writes the files of every partition and commits them. What fails is done when this is called again: a file under a new
    /// name, an entry that may be there already as it was.
    ///
    /// # Errors
    /// The first failure; partitions after it are tried all the same.
    pub fn carry_out(&mut self, now: Timestamp) -> Result<(), LakeError> {
        let mut failure = None;
        let mut left = Vec::new();
        for mut portion in std::mem::take(&mut self.portions) {
            match self.commit(&mut portion, now) {
                Ok(Attempt { entry, rows }) => {
                    if let Some(kept) = &self.kept {
                        entry.files.iter().zip(rows).for_each(|(file, rows)| kept.keep(&file.path, rows));
                    }
                    self.flushed.entries += 1;
                    self.flushed.rows += entry.counts.rows;
                    self.flushed.bytes += entry.files.iter().map(|file| file.bytes).sum::<u64>();
                    self.flushed.positions.push((entry.topic, entry.partition, entry.to));
                }
                Err(error) => {
                    failure.get_or_insert(error);
                    left.push(portion);
                }
            }
        }
        self.portions = left;
        failure.map_or(Ok(()), Err)
    }

    fn commit(&self, portion: &mut Portion, now: Timestamp) -> Result<Attempt, LakeError> {
        let attempt = match portion.attempt.take() {
            Some(attempt) => attempt,
            None => self.prepare(portion, now)?,
        };
        match chain::append(self.store.as_ref(), &attempt.entry) {
            Ok(()) => Ok(attempt),
            Err(error) => {
                portion.attempt = Some(attempt);
                Err(error)
            }
        }
    }

    fn rows(&self) -> usize {
        let waiting = self.portions.iter().flat_map(|portion| portion.waiting.values());
        let written = self.portions.iter().flat_map(|portion| portion.written.iter().map(|(_, rows)| rows));
        let attempts =
            self.portions.iter().flat_map(|portion| portion.attempt.iter().flat_map(|attempt| &attempt.rows));
        waiting.chain(written).chain(attempts).flatten().map(RecordBatch::num_rows).sum()
    }

    fn bytes(&self) -> usize {
        self.portions.iter().map(|portion| portion.bytes).sum()
    }
}

impl LakeWriter {
    /// A writer with an identity of its own.
    pub fn new(store: Arc<dyn Store>, random: Arc<dyn Random>, options: LakeOptions) -> Self {
        let writer = format!("{:016x}{:016x}", random.next_u64(), random.next_u64());
        LakeWriter {
            store,
            random,
            options,
            writer,
            partitions: BTreeMap::new(),
            kept: None,
            unfinished: None,
            rows_out: None,
            bytes_out: 0,
        }
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
        let held = self.partition(topic, partition)?;
        if held.seq == 0 && held.next == 0 {
            (held.begun, held.next, held.seq) = (offset, offset, 1);
            let portion = held.portion(topic, partition, offset);
            let mut flush = self.flush_of(vec![portion]);
            let carried_out = flush.carry_out(now);
            self.keep_unfinished(flush, now);
            return carried_out;
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
                begun: entry.to,
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
        let window = self.options.settled_window();
        let parts = by_window(table, rows, window)?;
        let held = self.partition(topic, partition)?;
        held.bytes += bytes_of(rows);
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

    /// Whether rows wait long enough, or are enough, to be written, and nothing is on its way. What failed is not tried again before
    /// the next interval: a full disk is not asked at every row.
    pub fn due(&self, now: Timestamp) -> bool {
        let is_due = |held: &Partition| {
            held.bytes >= self.options.flush_bytes
                || held.since.is_some_and(|since| now - since >= self.options.flush_interval)
        };
        let again = self.unfinished.as_ref().is_some_and(|(_, since)| now - *since >= self.options.flush_interval);
        self.rows_out.is_none()
            && (again || self.partitions.iter().any(|(key, held)| !self.is_unfinished(key) && is_due(held)))
    }

    /// Whether an entry did not succeed and waits to be tried again.
    pub fn is_failing(&self) -> bool {
        self.unfinished.is_some()
    }

    /// Whether an entry of a partition is unfinished: the next waits for it.
    fn is_unfinished(&self, (topic, partition): &(String, u32)) -> bool {
        let portions = self.unfinished.iter().flat_map(|(flush, _)| &flush.portions);
        portions.into_iter().any(|portion| (&portion.topic, portion.partition) == (topic, *partition))
    }

    /// Rows that are not committed yet, of all partitions.
    pub fn waiting_rows(&self) -> usize {
        let batches = self.partitions.values().flat_map(|held| held.waiting.values().flatten());
        let unfinished = self.unfinished.as_ref().map_or(0, |(flush, _)| flush.rows());
        batches.map(RecordBatch::num_rows).sum::<usize>() + unfinished + self.rows_out.unwrap_or(0)
    }

    /// Bytes of the rows that are not committed yet.
    pub fn waiting_bytes(&self) -> usize {
        let unfinished = self.unfinished.as_ref().map_or(0, |(flush, _)| flush.bytes());
        self.partitions.values().map(|held| held.bytes).sum::<usize>() + unfinished + self.bytes_out
    }

    /// Hands out what waits, to be carried out and given back; of a partition of which an entry failed, that entry. Nothing when
    /// nothing waits, or when another flush is still out.
    pub fn begin_flush(&mut self) -> Option<Flush> {
        if self.rows_out.is_some() {
            return None;
        }
        let keys: Vec<(String, u32)> = self.partitions.keys().filter(|key| !self.is_unfinished(key)).cloned().collect();
        let mut portions = self.unfinished.take().map_or(vec![], |(flush, _)| flush.portions);
        for key in keys {
            if let Some(held) = self.partitions.get_mut(&key).filter(|held| held.next > held.begun) {
                held.seq += 1;
                let from = std::mem::replace(&mut held.begun, held.next);
                portions.push(held.portion(&key.0, key.1, from));
            }
        }
        if portions.is_empty() {
            return None;
        }
        let flush = self.flush_of(portions);
        (self.rows_out, self.bytes_out) = (Some(flush.rows()), flush.bytes());
        Some(flush)
    }

    fn flush_of(&self, portions: Vec<Portion>) -> Flush {
        Flush {
            store: self.store.clone(),
            random: self.random.clone(),
            window: self.options.settled_window(),
            public_window: self.options.window,
            writer: self.writer.clone(),
            kept: self.kept.clone(),
            portions,
            flushed: Flushed::default(),
        }
    }

    /// Takes back what was handed out, and says what it did since then.
    pub fn end_flush(&mut self, mut flush: Flush, now: Timestamp) -> Flushed {
        (self.rows_out, self.bytes_out) = (None, 0);
        let flushed = std::mem::take(&mut flush.flushed);
        self.keep_unfinished(flush, now);
        flushed
    }

    fn keep_unfinished(&mut self, flush: Flush, now: Timestamp) {
        match &mut self.unfinished {
            Some((unfinished, _)) => unfinished.portions.extend(flush.portions),
            None if flush.portions.is_empty() => {}
            None => self.unfinished = Some((flush, now)),
        }
    }

    /// Writes and commits everything that waits, now.
    ///
    /// # Errors
    /// The first failure; what failed is kept and tried again at the next flush.
    pub fn flush(&mut self, now: Timestamp) -> Result<Flushed, LakeError> {
        let mut sum = Flushed::default();
        while let Some(mut flush) = self.begin_flush() {
            let carried_out = flush.carry_out(now);
            let Flushed { entries, rows, bytes, positions } = self.end_flush(flush, now);
            sum.entries += entries;
            sum.rows += rows;
            sum.bytes += bytes;
            sum.positions.extend(positions);
            carried_out?;
        }
        Ok(sum)
    }
}

impl Partition {
    /// Everything that waits, as the next entry.
    fn portion(&mut self, topic: &str, partition: u32, from: u64) -> Portion {
        self.since = None;
        Portion {
            topic: topic.to_string(),
            partition,
            seq: self.seq,
            from,
            to: self.next,
            counts: std::mem::take(&mut self.counts),
            last_seq: self.last_seq.clone(),
            waiting: std::mem::take(&mut self.waiting),
            written: vec![],
            bytes: std::mem::take(&mut self.bytes),
            attempt: None,
        }
    }
}

impl Flush {
    /// Writes the files of the next entry.
    fn prepare(&self, portion: &mut Portion, now: Timestamp) -> Result<Attempt, LakeError> {
        while let Some(((table, start), batches)) = portion.waiting.first_key_value() {
            let written = self.hot_file(portion, table, *start, batches)?;
            portion.waiting.pop_first();
            portion.written.push(written);
        }
        let (files, kept): (Vec<HotFile>, Vec<Vec<RecordBatch>>) =
            std::mem::take(&mut portion.written).into_iter().unzip();
        let counts = Counts { rows: files.iter().map(|file| file.rows).sum(), ..portion.counts };
        let entry = Entry {
            version: VERSION,
            topic: portion.topic.clone(),
            partition: portion.partition,
            seq: portion.seq,
            from: portion.from,
            to: portion.to,
            files,
            counts,
            last_seq: portion.last_seq.clone(),
            writer: self.writer.clone(),
            committed_at: now,
        };
        Ok(Attempt { entry, rows: kept })
    }

    fn hot_file(
        &self,
        portion: &Portion,
        table: &str,
        start: Timestamp,
        batches: &[RecordBatch],
    ) -> Result<(HotFile, Vec<RecordBatch>), LakeError> {
        let Written { chunks, rows, schema, bytes } = hot_bytes(table, batches)?;
        self.register_schema(table, &schema, &rows.schema)?;
        let path =
            layout::hot_file(table, &portion.topic, portion.partition, portion.seq, start, self.random.next_u64());
        self.store.create(&path, &bytes)?;
        let (min_ts, max_ts) = rows.time_range()?;
        let file = HotFile {
            path,
            table: table.to_string(),
            window_start: start,
            window: self.window,
            public_window: self.public_window,
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

/// Rows as a hot file has them.
pub struct Written {
    chunks: Vec<RecordBatch>,
    rows: Rows,
    schema: String,
    /// The file.
    pub bytes: Vec<u8>,
}

/// What a hot file of these batches is: a function of the batches, in their order.
pub fn hot_bytes(table: &str, batches: &[RecordBatch]) -> Result<Written, LakeError> {
    // Thousands of small batches are few large ones from here on.
    let chunks = Rows::new(table, batches)?.as_they_came().collect::<Result<Vec<_>, _>>()?;
    let rows = Rows::new(table, &chunks)?;
    let schema = schema_fingerprint(&rows.schema);
    let facts = [("table", table.to_string()), ("schema", schema.clone()), ("rows", rows.count().to_string())];
    let bytes = to_bytes(&rows, Form::Hot, &facts)?;
    Ok(Written { chunks, rows, schema, bytes })
}

/// The rows of each window.
pub fn by_window(table: &str, rows: &RecordBatch, window: Span) -> Result<Vec<(Timestamp, RecordBatch)>, LakeError> {
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
