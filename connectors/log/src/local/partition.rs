//! One partition: its segments, and the right to write them when this process has it.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use tidewatch_model::Timestamp;
use tidewatch_model::limits::RECORD_BYTES;
use tidewatch_model::ports::{LogError, ReadBatch, Record, TopicOptions};

use super::frame::{LEAST_FRAME_BYTES, encode, segment_header};
use super::segment::{FRAME_LIMIT, Segment, file_name, io};
use super::{FsyncPolicy, LocalLogOptions};
use crate::files::{Files, Lock};

/// A partition as one process sees it.
pub struct Partition {
    /// Topic and number, for messages.
    pub name: (String, u32),
    folder: PathBuf,
    options: TopicOptions,
    segments: Vec<Segment>,
    names_synced: bool,
    writer: Option<Writer>,
}

/// The right to write, and where.
struct Writer {
    _lock: Lock,
    next: u64,
    /// Whether the newest segment takes more records; a suspect one is left as it is.
    open: bool,
}

impl Partition {
    /// A partition in a folder; nothing is read yet.
    pub fn new(name: (String, u32), folder: PathBuf, options: TopicOptions) -> Self {
        Partition { name, folder, options, segments: vec![], names_synced: false, writer: None }
    }

    /// Looks for new segments and new records in the newest.
    fn refresh(&mut self, files: &dyn Files) -> Result<(), LogError> {
        if self.writer.is_some() && !self.segments.is_empty() {
            // Nobody else writes here, and our own appends were noted.
            return Ok(());
        }
        let names = files.list(&self.folder).map_err(|error| io(&self.folder, error))?;
        let mut bases: Vec<u64> = names.iter().filter_map(|name| name.strip_suffix(".seg")?.parse().ok()).collect();
        bases.sort_unstable();
        // The writer may have begun any number of segments since: what was the newest then may have grown before that.
        let newest_known = self.segments.last().map_or(0, |segment| segment.base);
        self.segments.retain(|segment| bases.contains(&segment.base));
        for base in &bases {
            let known = self.segments.iter().position(|segment| segment.base == *base);
            let at = known.unwrap_or_else(|| {
                let place = self.segments.partition_point(|segment| segment.base < *base);
                self.segments.insert(place, Segment::new(&self.folder, *base));
                place
            });
            // Closed segments change only by compaction, which rewrites the first: look when it became another file.
            if *base >= newest_known || known.is_none() || self.options.compacted {
                self.segments[at].refresh(files)?;
            }
        }
        self.drop_superseded();
        Ok(())
    }

    /// After compaction was cut off, segments may remain whose records the compacted one already has.
    fn drop_superseded(&mut self) {
        let mut next = 0;
        self.segments.retain(|segment| {
            let keep = segment.base >= next;
            if keep {
                next = segment.next.max(segment.base);
            }
            keep
        });
    }

    /// First offset kept, and the one after the last.
    pub fn range(&mut self, files: &dyn Files) -> Result<Range<u64>, LogError> {
        self.refresh(files)?;
        let first = self.segments.first().map_or(0, |segment| segment.base);
        let last = self.segments.last().map_or(0, |segment| segment.next);
        Ok(first..last.max(self.writer.as_ref().map_or(0, |writer| writer.next)))
    }

    /// Records from an offset on.
    pub fn read(&mut self, files: &dyn Files, from: u64, most: usize) -> Result<ReadBatch, LogError> {
        let available = self.range(files)?;
        if from < available.start || from > available.end {
            let (topic, partition) = self.name.clone();
            return Err(LogError::OutOfRange { topic, partition, offset: from, available });
        }
        let first = self.segments.partition_point(|segment| segment.next <= from);
        for segment in &self.segments[first..] {
            let start = from.max(segment.base);
            let records = segment.read(files, start, most)?;
            let next = records.last().map_or(segment.next.max(start), |(offset, _)| offset + 1);
            let corrupt: Vec<u64> =
                segment.corrupt.iter().copied().filter(|offset| *offset >= start && *offset < next).collect();
            if !records.is_empty() || !corrupt.is_empty() {
                return Ok(ReadBatch { records, next, end: available.end, corrupt });
            }
        }
        Ok(ReadBatch { next: available.end, end: available.end, ..ReadBatch::default() })
    }

    /// An offset at or before every record with this timestamp or a later one.
    pub fn offset_for_time(&mut self, files: &dyn Files, ts: Timestamp) -> Result<u64, LogError> {
        let available = self.range(files)?;
        let found = self.segments.iter().find(|segment| segment.newest >= ts);
        Ok(found.map_or(available.end, |segment| segment.base))
    }

    /// Appends records; returns the offset of the first.
    pub fn append(
        &mut self,
        files: &dyn Files,
        options: &LocalLogOptions,
        records: &[Record],
    ) -> Result<u64, LogError> {
        for record in records {
            let bytes = record.value.as_ref().map_or(0, Vec::len) + record.key.len();
            if bytes > RECORD_BYTES {
                let (topic, partition) = self.name.clone();
                return Err(LogError::TooLarge { topic, partition, bytes, limit: RECORD_BYTES });
            }
        }
        let first = self.take_writer(files)?;
        let mut from = 0;
        while from < records.len() {
            from += self.append_to_segment(files, options, &records[from..])?;
        }
        Ok(first)
    }

    /// Appends as many records as the newest segment takes, at least one; returns how many.
    fn append_to_segment(
        &mut self,
        files: &dyn Files,
        options: &LocalLogOptions,
        records: &[Record],
    ) -> Result<usize, LogError> {
        let first = self.take_writer(files)?;
        let full = self.segments.last().is_none_or(|segment| segment.walked >= options.segment_bytes);
        if full || !self.writer.as_ref().is_some_and(|writer| writer.open) {
            self.roll(files, first)?;
        }
        let Some(segment) = self.segments.last() else { return Ok(0) };
        let (path, start) = (segment.path.clone(), segment.walked);
        let mut bytes = Vec::new();
        let mut count = 0;
        for record in records {
            if count > 0 && start + bytes.len() as u64 >= options.segment_bytes {
                break;
            }
            encode(first + count as u64, record, &mut bytes);
            count += 1;
        }
        if let Err(error) = files.append(&path, &bytes) {
            self.undo(files, &path, start);
            return Err(io(&path, error));
        }
        let written = self.segments.last_mut().map_or(Ok(0), |segment| segment.refresh(files));
        if let Some(writer) = &mut self.writer {
            writer.next = first + count as u64;
        }
        written?;
        if options.fsync == FsyncPolicy::EveryAppend {
            self.sync(files)?;
        }
        Ok(count)
    }

    /// What a failed append left is cut off; where that fails too, the segment takes no more.
    fn undo(&mut self, files: &dyn Files, path: &Path, length: u64) {
        let cut = files.truncate(path, length).is_ok();
        if let Some(writer) = self.writer.as_mut().filter(|_| !cut) {
            // Offsets that may stand in the damaged tail are not given out again.
            writer.next += 1 + (files.len(path).unwrap_or(length).saturating_sub(length)) / LEAST_FRAME_BYTES as u64;
            writer.open = false;
        }
    }

    /// Makes everything that this process appended or has seen survive a loss of power. A segment that can't be synced
    /// is said so once and takes no more: asking again would be answered well though the bytes are gone.
    pub fn sync(&mut self, files: &dyn Files) -> Result<(), LogError> {
        self.refresh(files)?;
        if !self.names_synced && !self.segments.is_empty() {
            files.sync_dir(&self.folder).map_err(|error| io(&self.folder, error))?;
            self.names_synced = true;
        }
        for segment in self.segments.iter_mut().filter(|segment| segment.synced < segment.walked) {
            segment.synced = segment.walked;
            if let Err(error) = files.sync(&segment.path) {
                if let Some(writer) = &mut self.writer {
                    writer.open = false;
                }
                return Err(io(&segment.path, error));
            }
        }
        Ok(())
    }

    /// Becomes the writer, unless another process is; returns the next offset.
    fn take_writer(&mut self, files: &dyn Files) -> Result<u64, LogError> {
        if let Some(writer) = &self.writer {
            return Ok(writer.next);
        }
        let path = self.folder.join("writer.lock");
        let lock = files.lock(&path).map_err(|error| io(&path, error))?.ok_or_else(|| LogError::Locked {
            topic: self.name.0.clone(),
            partition: self.name.1,
            path: path.display().to_string(),
        })?;
        self.segments.clear();
        self.refresh(files)?;
        let (next, open) = self.recover(files)?;
        self.writer = Some(Writer { _lock: lock, next, open });
        Ok(next)
    }

    /// Removes what compaction left, and says where to go on and whether the newest segment is whole.
    fn recover(&mut self, files: &dyn Files) -> Result<(u64, bool), LogError> {
        for name in files.list(&self.folder).map_err(|error| io(&self.folder, error))? {
            let base: Option<u64> = name.strip_suffix(".seg").and_then(|base| base.parse().ok());
            let superseded = base.is_some_and(|base| self.segments.iter().all(|segment| segment.base != base));
            if superseded || name.ends_with(".tmp") {
                let path = self.folder.join(&name);
                files.remove(&path).map_err(|error| io(&path, error))?;
            }
        }
        let Some(segment) = self.segments.last_mut() else { return Ok((0, false)) };
        let left = segment.refresh(files)?;
        if left == 0 {
            return Ok((segment.next, segment.walked > 0));
        }
        // The torn bytes may have been acknowledged records that a loss of power damaged: their offsets are gone. They are
        // cut once a newer segment has written down from where it goes on.
        let lost = 1 + left / LEAST_FRAME_BYTES as u64;
        Ok((segment.next + lost, false))
    }

    /// Begins a segment whose first record gets this offset.
    fn roll(&mut self, files: &dyn Files, base: u64) -> Result<(), LogError> {
        if self.segments.last().is_some_and(|segment| segment.base == base) {
            // The newest segment has no record: it is begun anew.
            let empty = self.segments.pop();
            if let Some(empty) = empty {
                files.remove(&empty.path).map_err(|error| io(&empty.path, error))?;
            }
        }
        // What the closed segment holds must not be lost behind a newer one that survives.
        self.sync(files).or_else(|error| {
            if self.writer.as_ref().is_some_and(|writer| writer.open) { Err(error) } else { Ok(()) }
        })?;
        let path = self.folder.join(file_name(base));
        let made = files.append(&path, &segment_header(base)).and_then(|()| files.sync_dir(&self.folder));
        if let Err(error) = made {
            drop(files.remove(&path));
            return Err(io(&path, error));
        }
        if let Some(closed) = self.segments.last().filter(|closed| closed.walked > 0) {
            files.truncate(&closed.path, closed.walked).map_err(|error| io(&closed.path, error))?;
        }
        let mut segment = Segment::new(&self.folder, base);
        segment.refresh(files)?;
        self.segments.push(segment);
        if let Some(writer) = &mut self.writer {
            writer.open = true;
        }
        if self.options.compacted && self.segments.len() > 2 {
            self.compact(files)?;
        }
        Ok(())
    }

    /// Rewrites the closed segments of a compacted topic as one that has only each key's newest record.
    pub fn compact(&mut self, files: &dyn Files) -> Result<(), LogError> {
        let closed = self.segments.len().saturating_sub(1);
        if !self.options.compacted || closed < 2 {
            return Ok(());
        }
        // A record that supersedes another must survive what the other would have survived.
        self.sync(files)?;
        let mut newest: HashMap<Vec<u8>, u64> = HashMap::new();
        let mut all = Vec::new();
        for (index, segment) in self.segments.iter().enumerate() {
            for (offset, record) in segment.read(files, segment.base, usize::MAX)? {
                newest.insert(record.key.clone(), offset);
                if index < closed {
                    all.push((offset, record));
                }
            }
        }
        // Nothing older than these segments exists, so a tombstone has nothing left to hide.
        all.retain(|(offset, record)| newest.get(&record.key) == Some(offset) && record.value.is_some());
        let base = self.segments[0].base;
        let mut bytes = segment_header(base);
        all.iter().for_each(|(offset, record)| encode(*offset, record, &mut bytes));
        let staged = self.folder.join(format!("{base:020}.tmp"));
        files.remove(&staged).map_err(|error| io(&staged, error))?;
        let path = self.segments[0].path.clone();
        let replaced = files
            .append(&staged, &bytes)
            .and_then(|()| files.sync(&staged))
            .and_then(|()| files.rename(&staged, &path))
            .and_then(|()| files.sync_dir(&self.folder));
        replaced.map_err(|error| io(&staged, error))?;
        let mut compacted = Segment::new(&self.folder, base);
        compacted.refresh(files)?;
        for old in self.segments.splice(0..closed, [compacted]).skip(1) {
            files.remove(&old.path).map_err(|error| io(&old.path, error))?;
        }
        Ok(())
    }

    /// Deletes whole segments that are too old or too much, never the newest. Returns how many.
    pub fn retain(&mut self, files: &dyn Files, now: Timestamp) -> Result<usize, LogError> {
        if self.options.compacted || self.writer.is_none() {
            return Ok(0);
        }
        let mut deleted = 0;
        while self.segments.len() > 1 {
            let oldest = &self.segments[0];
            let total: u64 = self.segments.iter().map(|segment| segment.walked).sum();
            let too_old = self.options.retention.is_some_and(|keep| oldest.newest < now.saturating_sub(keep));
            let too_much = self.options.retention_bytes.is_some_and(|most| total > most);
            if !too_old && !too_much {
                break;
            }
            files.remove(&oldest.path).map_err(|error| io(&oldest.path, error))?;
            self.segments.remove(0);
            deleted += 1;
        }
        Ok(deleted)
    }

    /// Deletes whole segments of which nothing lies at or after an offset, never the newest.
    pub fn trim(&mut self, files: &dyn Files, before: u64) -> Result<(), LogError> {
        self.refresh(files)?;
        while self.segments.len() > 1 && self.segments[1].base <= before {
            files.remove(&self.segments[0].path).map_err(|error| io(&self.segments[0].path, error))?;
            self.segments.remove(0);
        }
        Ok(())
    }

    /// Bytes on disk.
    pub fn bytes(&mut self, files: &dyn Files) -> Result<u64, LogError> {
        self.refresh(files)?;
        Ok(self.segments.iter().map(|segment| segment.walked).sum())
    }

    /// Frames skipped because they were damaged, as far as this process has read.
    pub fn corrupt_frames(&self) -> u64 {
        self.segments.iter().map(|segment| segment.corrupt.len() as u64).sum()
    }
}

const _: () = assert!(FRAME_LIMIT > RECORD_BYTES);
