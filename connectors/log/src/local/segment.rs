//! What a process knows of one segment: how far it was walked, and a sparse index into it.

use std::path::{Path, PathBuf};

use tidewatch_model::Timestamp;
use tidewatch_model::ports::{LogError, Record};

use super::frame::{HEADER_BYTES, MAGIC, Step, step};
use crate::files::Files;

/// Bytes between two entries of the index.
const INDEX_BYTES: u64 = 64 << 10;
/// Frames may be larger than records by their framing.
pub const FRAME_LIMIT: usize = tidewatch_model::limits::RECORD_BYTES + (64 << 10);

/// One segment.
#[derive(Debug, Clone)]
pub struct Segment {
    /// Its file.
    pub path: PathBuf,
    /// Offset of its first record; part of its name.
    pub base: u64,
    /// Bytes walked: up to the end of the last good frame.
    pub walked: u64,
    /// Bytes known to survive a loss of power.
    pub synced: u64,
    /// Offset after the last record walked.
    pub next: u64,
    /// Largest timestamp walked.
    pub newest: Timestamp,
    /// Offsets at which damage was skipped.
    pub corrupt: Vec<u64>,
    index: Vec<(u64, u64)>,
}

/// The name of a segment's file.
pub fn file_name(base: u64) -> String {
    format!("{base:020}.seg")
}

impl Segment {
    /// A segment of which nothing was walked yet.
    pub fn new(folder: &Path, base: u64) -> Self {
        let path = folder.join(file_name(base));
        Segment { path, base, walked: 0, synced: 0, next: base, newest: Timestamp::MIN, corrupt: vec![], index: vec![] }
    }

    /// Walks what was appended since the last time. A file that became shorter, because its writer cut a torn tail, is
    /// walked again from its beginning. Returns the bytes left over behind the last good frame.
    pub fn refresh(&mut self, files: &dyn Files) -> Result<u64, LogError> {
        let length = files.len(&self.path).map_err(|error| io(&self.path, error))?;
        if length < self.walked {
            *self = Segment { path: std::mem::take(&mut self.path), ..Segment::new(Path::new(""), self.base) };
        }
        if self.walked == 0 {
            if length < HEADER_BYTES as u64 {
                return Ok(length);
            }
            self.check_header(files)?;
            self.walked = HEADER_BYTES as u64;
        }
        if length == self.walked {
            return Ok(0);
        }
        let bytes = files
            .read(&self.path, self.walked, (length - self.walked) as usize)
            .map_err(|error| io(&self.path, error))?;
        let start = self.walked;
        let mut at = 0;
        loop {
            match step(&bytes, at, self.next, FRAME_LIMIT) {
                Step::Record { at: begin, end, offset, record } => {
                    self.note(start + begin as u64, offset, &record);
                    at = end;
                    self.walked = start + end as u64;
                }
                Step::Damage { end } => {
                    self.corrupt.push(self.next);
                    at = end;
                }
                Step::End { left } => return Ok(left as u64),
            }
        }
    }

    fn note(&mut self, position: u64, offset: u64, record: &Record) {
        if self.index.last().is_none_or(|(_, last)| position - last >= INDEX_BYTES) {
            self.index.push((offset, position));
        }
        self.next = offset + 1;
        self.newest = self.newest.max(record.timestamp);
    }

    fn check_header(&self, files: &dyn Files) -> Result<(), LogError> {
        let header = files.read(&self.path, 0, HEADER_BYTES).map_err(|error| io(&self.path, error))?;
        if header[..8] == MAGIC && header[8..] == self.base.to_le_bytes() {
            return Ok(());
        }
        let message = if header[..7] == MAGIC[..7] && header[7] != MAGIC[7] {
            format!("format version {}: expected {}", header[7], MAGIC[7])
        } else {
            "expected the header of a log segment whose base is in its name".to_string()
        };
        Err(LogError::Damaged { path: self.path.display().to_string(), message })
    }

    /// Records from an offset on, up to about `most` bytes but at least one.
    pub fn read(&self, files: &dyn Files, from: u64, most: usize) -> Result<Vec<(u64, Record)>, LogError> {
        let entry = self.index.partition_point(|(offset, _)| *offset <= from);
        let Some((_, position)) = self.index.get(entry.saturating_sub(1)) else { return Ok(vec![]) };
        let bytes = files
            .read(&self.path, *position, (self.walked - position) as usize)
            .map_err(|error| io(&self.path, error))?;
        let mut records = Vec::new();
        let (mut at, mut expected, mut taken) = (0, 0, 0);
        while at < bytes.len() && (taken < most || records.is_empty()) {
            match step(&bytes, at, expected, FRAME_LIMIT) {
                Step::Record { at: begin, end, offset, record } => {
                    expected = offset + 1;
                    at = end;
                    if offset >= from {
                        taken += end - begin;
                        records.push((offset, record));
                    }
                }
                Step::Damage { end } => at = end,
                Step::End { .. } => break,
            }
        }
        Ok(records)
    }
}

/// An error of the system, with the file that it is about.
pub fn io(path: &Path, source: std::io::Error) -> LogError {
    LogError::Io { path: path.display().to_string(), source }
}
