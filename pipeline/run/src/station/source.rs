//! Reading one partition of one table: decode, admit, judge, keep.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use arrow::array::RecordBatch;
use tidewatch_flow::admit::{Admit, AdmitCounts, Admitted, newest};
use tidewatch_flow::clean::{DUPLICATE, JUMP, Refused};
use tidewatch_lake::{Counts, Progress, SourceSeq};
use tidewatch_model::Timestamp;
use tidewatch_model::limits::READ_BYTES;
use tidewatch_model::ports::{Log, LogError, Record};
use tidewatch_model::table::Table;
use tidewatch_model::wire::{self, Header};
use tidewatch_sql::Feed;

use super::letters::dead_letter;
use super::{Station, StationError};
use crate::cleaning::Cleaning;
use crate::mapping::Mapping;

/// A partition, and how far it was read.
pub struct Source {
    /// The table that its topic carries.
    pub table: &'static Table,
    /// The topic.
    pub topic: String,
    /// How others write it; `None` for frames of ours.
    pub mapping: Option<Arc<Mapping>>,
    /// Its number in the table's watermark.
    pub lane: u32,
    /// The partition.
    pub partition: u32,
    /// The next offset to read.
    pub next: u64,
    /// Whether its rows are stored here; elsewhere, if not.
    pub stored: bool,
    /// From here on rows are not in the lake yet.
    pub lake_from: u64,
    /// From here on rows were not judged before the restart.
    pub judge_from: u64,
    /// Records not yet read.
    pub lag: u64,
    /// Whether the last try to read it failed: nobody knows what it has.
    pub unread: bool,
    /// Admission, and the last frame of each source of rows.
    pub admit: Admit,
    /// Reads its frames.
    pub decoder: wire::Decoder,
    /// Whether `admit` remembers what the lake has committed; not while reading again what came before.
    pub caught_up: bool,
    /// The last record that was read, in few bytes.
    pub last: Option<(u64, u64)>,
    /// The log ended before our position: the topic may have been made anew, and `last` must be seen again before reading
    /// goes on.
    pub doubted: bool,
}

impl Source {
    /// A partition of a table's topic, or of one that others write, of which nothing was read.
    pub fn new(table: &'static Table, mapping: Option<Arc<Mapping>>, partition: u32, cleaning: &Cleaning) -> Source {
        Source {
            table,
            topic: mapping.as_ref().map_or_else(|| table.topic(), |mapping| mapping.topic.clone()),
            mapping,
            lane: partition,
            partition,
            next: 0,
            stored: false,
            lake_from: 0,
            judge_from: 0,
            lag: 0,
            unread: false,
            admit: Admit::with(table, cleaning.rules(table)),
            decoder: wire::Decoder::default(),
            caught_up: false,
            last: None,
            doubted: false,
        }
    }
}

/// What one record turned out to be.
pub enum Taken {
    /// Rows.
    Rows {
        /// Those that can be taken.
        rows: RecordBatch,
        /// Parts of it that can't be taken, as records, with the reason.
        rejected: Vec<(Record, String)>,
        /// What was turned away or changed.
        counts: AdmitCounts,
    },
    /// It was read before.
    Duplicate,
    /// It can't be read.
    Dead(String),
}

impl Station {
    /// Reads what a source has, up to a limit. Returns whether there is more.
    pub(super) fn read_source(&mut self, index: usize, now: Timestamp) -> Result<bool, StationError> {
        let log: Arc<dyn Log> = self.log.clone();
        self.settle_doubt(index)?;
        let source = &mut self.sources[index];
        let read = match log.read(&source.topic, source.partition, source.next, READ_BYTES) {
            Err(LogError::OutOfRange { available, .. }) if source.next < available.start => {
                return self.skip_missing(index, available.start, now).map(|()| true);
            }
            Err(error @ LogError::OutOfRange { .. }) => {
                source.doubted = true;
                return Err(error.into());
            }
            read => read?,
        };
        for (offset, record) in &read.records {
            self.take(index, *offset, record, now)?;
        }
        if let Some((offset, record)) = read.records.last() {
            self.sources[index].last = Some((*offset, in_few_bytes(record)));
        }
        if self.sources[index].next < read.next {
            self.skip_missing(index, read.next, now)?;
        }
        let source = &mut self.sources[index];
        source.lag = read.end.saturating_sub(source.next);
        if let Some(watermark) = self.watermarks.get_mut(source.table.name) {
            watermark.behind(source.lane, source.lag > 0, now);
        }
        Ok(source.lag > 0)
    }

    /// A log that ended before our position and has grown beyond it since may be another one, whose records before our position
    /// nobody would ever read. Only the record that was read last, at its place, says that it is not.
    fn settle_doubt(&mut self, index: usize) -> Result<(), StationError> {
        let log: Arc<dyn Log> = self.log.clone();
        let source = &mut self.sources[index];
        let Some((offset, known)) = source.last.filter(|_| source.doubted) else { return Ok(()) };
        let found = match log.read(&source.topic, source.partition, offset, 1) {
            Ok(read) => read.records.into_iter().next(),
            // Retention took it: nothing can be said any more.
            Err(LogError::OutOfRange { available, .. }) if offset < available.start => {
                source.doubted = false;
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        match found {
            Some((at, record)) if (at, in_few_bytes(&record)) == (offset, known) => {
                source.doubted = false;
                Ok(())
            }
            None => Err(LogError::slow(&source.topic, source.partition).into()),
            Some(_) => {
                Err(StationError::OtherTopic { topic: source.topic.clone(), partition: source.partition, offset })
            }
        }
    }

    /// Offsets that the log does not have: damaged frames, or deleted before they were read. They are counted.
    fn skip_missing(&mut self, index: usize, to: u64, now: Timestamp) -> Result<(), StationError> {
        let source = &mut self.sources[index];
        let from = source.next.max(source.lake_from);
        source.next = to;
        if to > from && source.stored {
            let counts = Counts { missing: to - from, ..Counts::default() };
            self.stats.missing += to - from;
            let progress = Progress { next: to, counts, sources: vec![] };
            self.lake.advance(&source.topic, source.partition, &progress, now)?;
        }
        Ok(())
    }

    fn take(&mut self, index: usize, offset: u64, record: &Record, now: Timestamp) -> Result<(), StationError> {
        if self.sources[index].next < offset {
            self.skip_missing(index, offset, now)?;
        }
        self.compare(index, offset, record)?;
        self.catch_up(index, offset)?;
        let source = &mut self.sources[index];
        let for_lake = source.stored && offset >= source.lake_from;
        let feed = if offset >= source.judge_from { Feed::Live } else { Feed::Replay };
        let mut progress =
            Progress { next: offset + 1, counts: Counts { records: 1, ..Counts::default() }, sources: vec![] };
        let (header, taken) = read_record(source, record, now);
        if let Some(header) = &header {
            let seq = SourceSeq { incarnation: header.incarnation.clone(), seq: header.seq };
            progress.sources.push((header.source.clone(), seq));
        }
        match taken {
            Taken::Rows { rows, rejected, counts } => {
                for (letter, reason) in rejected.iter().filter(|_| for_lake) {
                    dead_letter(self.log.as_ref(), &source.topic, source.partition, offset, letter, reason)?;
                    progress.counts.dead_letters = 1;
                }
                if for_lake {
                    self.stats.count(source.table.name, &counts);
                }
                let lane = source.lane;
                let (topic, partition, table) = (source.topic.clone(), source.partition, source.table.name);
                if for_lake {
                    self.lake.rows(&topic, partition, table, &rows)?;
                    *self.stats.rows.entry(table.to_string()).or_default() += rows.num_rows() as u64;
                }
                self.judge_rows(table, lane, &rows, feed, now)?;
            }
            Taken::Duplicate => {
                progress.counts.duplicates = 1;
                self.stats.duplicates += u64::from(for_lake);
            }
            Taken::Dead(reason) if for_lake => {
                dead_letter(self.log.as_ref(), &source.topic, source.partition, offset, record, &reason)?;
                progress.counts.dead_letters = 1;
                *self.stats.dead_letters.entry(source.topic.clone()).or_default() += 1;
            }
            Taken::Dead(_) => {}
        }
        let source = &mut self.sources[index];
        source.next = offset + 1;
        // Only now: what failed above is tried again, and must not be taken for a duplicate then.
        if let Some(header) = header {
            source.admit.remember(header.source, header.incarnation, header.seq);
        }
        source.admit.keep();
        if for_lake {
            self.lake.advance(&source.topic, source.partition, &progress, now)?;
        }
        Ok(())
    }

    /// The last record that was stored must still be the one at its offset: a topic that was deleted and made anew may have
    /// grown beyond our position, and its rows would be taken for rows that were stored.
    fn compare(&mut self, index: usize, offset: u64, record: &Record) -> Result<(), StationError> {
        let source = &self.sources[index];
        if !source.stored || offset + 1 != source.lake_from {
            return Ok(());
        }
        // What is no frame of this table went to the dead letters, and says nothing.
        let Some((header, _)) = wire::decode(record).ok().filter(|(header, _)| header.table == source.table.name)
        else {
            return Ok(());
        };
        let last = self.lake.last_seqs(&source.topic, source.partition)?;
        if last.is_empty() {
            // Nothing of it was stored: reading was to begin here.
            return Ok(());
        }
        let is_known = last
            .get(&header.source)
            .is_some_and(|last| last.incarnation == header.incarnation && header.seq <= last.seq);
        match is_known {
            true => Ok(()),
            false => Err(StationError::OtherTopic { topic: source.topic.clone(), partition: source.partition, offset }),
        }
    }

    /// When reading again reaches what is new, admission remembers what was committed.
    fn catch_up(&mut self, index: usize, offset: u64) -> Result<(), StationError> {
        let source = &mut self.sources[index];
        if source.caught_up || offset < source.lake_from {
            return Ok(());
        }
        source.caught_up = true;
        let last = self.lake.last_seqs(&source.topic, source.partition)?;
        source.admit.restore(last.into_iter().map(|(name, seq)| (name, (seq.incarnation, seq.seq))));
        Ok(())
    }

    /// After each record event time moves on, so that what is late does not depend on how much is read at once.
    fn judge_rows(
        &mut self,
        table: &'static str,
        lane: u32,
        rows: &RecordBatch,
        feed: Feed,
        now: Timestamp,
    ) -> Result<(), StationError> {
        let Some(newest) = newest(rows) else { return Ok(()) };
        self.pending.extend(self.judge.push(table, rows, feed)?);
        let Some(watermark) = self.watermarks.get_mut(table) else { return Ok(()) };
        watermark.observe(lane, newest, now);
        if let Some(tick) = watermark.advance(None) {
            self.pending.extend(self.judge.advance(table, tick.watermark, false));
        }
        Ok(())
    }
}

/// What a record is, and its header when that can be read and the frame was not seen before.
pub fn read_record(source: &mut Source, record: &Record, now: Timestamp) -> (Option<Header>, Taken) {
    if let Some(mapping) = source.mapping.clone() {
        return (None, read_mapped(source, &mapping, record, now));
    }
    let (header, batch) = match source.decoder.decode(record) {
        Ok(decoded) => decoded,
        Err(error) => return (None, Taken::Dead(error.to_string())),
    };
    if header.table != source.table.name {
        let reason = format!("rows of table '{}' on topic {}", header.table, source.topic);
        return (None, Taken::Dead(reason));
    }
    if source.admit.is_duplicate(&header.source, &header.incarnation, header.seq) {
        return (None, Taken::Duplicate);
    }
    // What we wrote ourselves is not judged by its age: it may tell of an alert that ended long ago.
    let clock = (!source.table.is_own()).then_some(now);
    let admitted = match source.admit.admit(&batch, clock) {
        Ok(admitted) => admitted,
        Err(error) => return (Some(header), Taken::Dead(error.to_string())),
    };
    let origin =
        wire::Origin { source: header.source.clone(), incarnation: header.incarnation.clone(), seq: header.seq };
    let letter = |rows: RecordBatch| wire::encode(source.table.name, &origin, &rows).unwrap_or_else(|_| record.clone());
    let Admitted { rows, rejected, refused, counts } = admitted;
    let rejected = left_out(rejected, refused).map(|(rows, reason)| (letter(rows), reason)).collect();
    (Some(header), Taken::Rows { rows, rejected, counts })
}

/// Tells one record from another.
fn in_few_bytes(record: &Record) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&record.key, &record.value, &record.headers, record.timestamp.0).hash(&mut hasher);
    hasher.finish()
}

/// The rows that are kept as dead letters, with the reason. A copy of a row that was taken is not.
fn left_out(odd: Option<RecordBatch>, refused: Vec<Refused>) -> impl Iterator<Item = (RecordBatch, String)> {
    let of_time = odd.map(|rows| {
        let reason = format!("{} rows are more than 24h behind or 5m ahead of the clock", rows.num_rows());
        (rows, reason)
    });
    let impossible =
        refused.into_iter().filter(|part| part.reason != DUPLICATE).map(|Refused { rows, column, reason }| {
            let what = if reason == JUMP { "changes faster than" } else { "is outside of what" };
            let reason = format!("{} rows whose {column} {what} clean.rules allows", rows.num_rows());
            (rows, reason)
        });
    of_time.into_iter().chain(impossible)
}

/// What a message of other people is.
fn read_mapped(source: &mut Source, mapping: &Mapping, record: &Record, now: Timestamp) -> Taken {
    let taken = match mapping.read(record) {
        Ok(taken) => taken,
        Err(reason) => return Taken::Dead(reason),
    };
    let admitted = match source.admit.admit(&taken.rows, Some(now)) {
        Ok(admitted) => admitted,
        Err(error) => return Taken::Dead(error.to_string()),
    };
    let mut rejected: Vec<(Record, String)> = taken.rejected.into_iter().collect();
    let left_out = left_out(admitted.rejected, admitted.refused);
    rejected.extend(left_out.map(|(rows, reason)| (mapping.write(&rows, record), reason)));
    Taken::Rows { rows: admitted.rows, rejected, counts: admitted.counts }
}
