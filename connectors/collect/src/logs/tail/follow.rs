//! One file: how far it was read, and what of it is under way.

use std::fs::{File, Metadata};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tidewatch_model::{Span, Timestamp};

use super::OddLines;
use crate::logs::container::{Container, STREAMS, Stream};
use crate::logs::join::{Entry, Join};
use crate::logs::kept::{Ahead, FileId, KeptFile, Mark, TRAIL_BYTES, bytes_at};
use crate::logs::lanes::{Lanes, Spot, Spots};
use crate::logs::lines::{LINE_BYTES, Lines};
use crate::logs::presets::State;

/// How long a file that left its name is read on after its last line.
pub const ROTATED_WAIT: Span = Span::seconds(5);

/// One file that is followed.
pub struct Follow {
    pub(super) id: FileId,
    pub(super) path: PathBuf,
    /// Its name in rows: the one that it had first.
    pub source: String,
    /// Labels that its name tells, once they were looked for.
    pub labels: Option<Vec<(String, String)>>,
    /// What the lines before say about the next, by stream.
    pub states: [State; STREAMS.len()],
    pub(super) file: Option<File>,
    pub(super) head: Mark,
    /// The last bytes that were read.
    pub(super) trail: Vec<u8>,
    pub(super) lines: Lines,
    pub(super) lanes: Lanes,
    /// The log has all before.
    pub(super) done: Place,
    /// Rows were made of all before.
    pub(super) given: Place,
    pub(super) ahead: Option<Ahead>,
    /// Size and time of change when it was read last.
    pub(super) seen: Option<(u64, SystemTime)>,
    pub(super) grew: Timestamp,
    /// It has left its name, or no pattern fits it any more.
    pub(super) is_gone: bool,
    pub(super) is_ended: bool,
}

/// How far a file was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Each stream of a container has its own place.
    pub spots: Spots,
    /// What is just before the first of them.
    trail: Mark,
}

impl Place {
    /// From where on the file has to be read.
    fn offset(&self) -> u64 {
        self.spots.iter().map(|spot| spot.from).min().unwrap_or(0)
    }

    /// Behind the last of what is before it.
    pub(super) fn until(&self) -> u64 {
        self.spots.iter().map(|spot| spot.start).max().unwrap_or(0)
    }
}

impl Follow {
    pub(super) fn new(
        id: FileId,
        path: PathBuf,
        file: File,
        (start, skip): (u64, bool),
        container: Option<Container>,
        now: Timestamp,
    ) -> Follow {
        let trail = bytes_at(&file, start.saturating_sub(TRAIL_BYTES), start.min(TRAIL_BYTES));
        let place = Place { spots: STREAMS.map(|_| Spot::at(start)), trail: Mark::of_bytes(&trail) };
        Follow {
            id,
            source: path.display().to_string(),
            path,
            labels: None,
            states: Default::default(),
            head: Mark::head(&file, start),
            file: Some(file),
            trail,
            lines: lines_at((start, skip), container),
            lanes: Lanes::new(container, place.spots),
            done: place,
            given: place,
            ahead: None,
            seen: None,
            grew: now,
            is_gone: false,
            is_ended: false,
        }
    }

    pub(super) fn again(
        kept: KeptFile,
        id: FileId,
        path: PathBuf,
        file: File,
        container: Option<Container>,
        now: Timestamp,
    ) -> Follow {
        let mut follow = Follow::new(id, path, file, (kept.offset, false), container, now);
        if let Some(spots) = kept.spots.filter(|_| container.is_some()) {
            follow.lanes = Lanes::new(container, spots);
            (follow.done.spots, follow.given.spots) = (spots, spots);
        }
        (follow.source, follow.ahead) = (kept.source, kept.ahead);
        follow
    }

    pub(super) fn kept(&self) -> KeptFile {
        let offset = self.done.offset();
        KeptFile {
            id: self.id,
            path: self.path.clone(),
            source: self.source.clone(),
            offset,
            head: self.head,
            trail: self.done.trail,
            ahead: self.ahead,
            // What was given last may not be in the log yet.
            ended: self.is_ended && self.done == self.given,
            spots: Some(self.done.spots).filter(|spots| *spots != STREAMS.map(|_| Spot::at(offset))),
        }
    }

    /// The first line of each stream, if it is near the beginning.
    pub fn first_lines(&self) -> Vec<Entry> {
        let bytes = self.file.as_ref().map(|file| bytes_at(file, 0, LINE_BYTES as u64)).unwrap_or_default();
        let (mut lines, mut entries) = (Vec::new(), Vec::new());
        lines_at((0, false), self.lanes.container()).feed(&bytes, self.grew, &mut lines);
        let mut lanes = Lanes::new(self.lanes.container(), Spots::default());
        for line in lines {
            lanes.push(&Join::Never, line, self.grew, &mut OddLines::default(), &mut entries);
        }
        let first = |stream: Stream| entries.iter().find(|entry| entry.stream == stream).cloned();
        STREAMS.into_iter().filter_map(first).collect()
    }

    /// Opens it unless nothing has changed. `false` where there is nothing to read.
    pub(super) fn open(&mut self) -> Result<bool, String> {
        if self.file.is_some() {
            return Ok(true);
        }
        let state = |path: &Path| std::fs::metadata(path).ok().filter(|metadata| FileId::of(metadata) == self.id);
        let moved = || self.id.find_beside(&self.path);
        let found = state(&self.path).map(|metadata| (self.path.clone(), metadata));
        let found = found.or_else(|| moved().and_then(|path| state(&path).map(|metadata| (path, metadata))));
        let Some((path, metadata)) = found else {
            self.is_gone = true;
            return Ok(false);
        };
        self.path = path;
        if self.seen.is_some() && self.seen == changed(&metadata) {
            return Ok(false);
        }
        let file = File::open(&self.path).map_err(|error| error.to_string())?;
        if FileId::of(&file.metadata().map_err(|error| error.to_string())?) == self.id {
            self.file = Some(file);
        }
        Ok(self.file.is_some())
    }

    /// Whether what was read is no longer there.
    pub(super) fn was_emptied(&mut self) -> Result<bool, String> {
        let Some(file) = &self.file else { return Ok(false) };
        let metadata = file.metadata().map_err(|error| error.to_string())?;
        let place = self.lines.position();
        let state = changed(&metadata);
        if metadata.len() < place {
            return Ok(true);
        }
        let is_same = || self.head.is_head_of(file) && Mark::of_bytes(&self.trail).is_before(file, place);
        let other = state != self.seen && !is_same();
        self.seen = state;
        Ok(other)
    }

    /// After a crash first what was read before it, in a pass of its own, so that its rows are the same again: how much of it is left.
    pub(super) fn room(&self) -> Option<usize> {
        let position = self.lines.position();
        self.ahead.filter(|ahead| ahead.until > position).map(|ahead| (ahead.until - position) as usize)
    }

    pub(super) fn read_chunk(
        &mut self,
        size: usize,
        now: Timestamp,
        join: &Join,
        odd: &mut OddLines,
        entries: &mut Vec<Entry>,
    ) -> Result<usize, String> {
        let Some(file) = &self.file else { return Ok(0) };
        let mut chunk = vec![0; size];
        let count = file.read_at(&mut chunk, self.lines.position()).map_err(|error| error.to_string())?;
        if count == 0 {
            return Ok(0);
        }
        self.grew = now;
        self.trail.extend_from_slice(&chunk[..count]);
        self.trail.drain(..self.trail.len().saturating_sub(TRAIL_BYTES as usize));
        let mut lines = Vec::new();
        self.lines.feed(&chunk[..count], now, &mut lines);
        for line in lines {
            self.lanes.push(join, line, now, odd, entries);
        }
        Ok(count)
    }

    /// What has waited long enough, where there is no more to read. A file that left its name and is quiet has ended.
    pub(super) fn end_when_quiet(&mut self, join: &Join, now: Timestamp, odd: &mut OddLines, entries: &mut Vec<Entry>) {
        if self.is_gone && now - self.grew >= ROTATED_WAIT {
            if let Some(line) = self.lines.flush() {
                self.lanes.push(join, line, now, odd, entries);
            }
            self.lanes.flush(join, now, odd, entries);
            self.is_ended = true;
            return;
        }
        if let Some(line) = self.lines.overdue(now) {
            self.lanes.push(join, line, now, odd, entries);
        }
        self.lanes.overdue(join, now, odd, entries);
    }

    /// After a pass: what was given in it.
    pub(super) fn remember(&mut self, now: Timestamp) {
        let position = self.lines.position();
        if let Some(file) = self.file.as_ref().filter(|_| self.head.is_short_of(position)) {
            self.head = Mark::head(file, position);
        }
        let spots = self.lanes.spots(self.lines.start());
        if spots == self.given.spots {
            return;
        }
        let mut given = Place { spots, ..self.given };
        let place = given.offset();
        given.trail = match &self.file {
            _ if place == position => Mark::of_bytes(&self.trail),
            Some(file) => Mark::trail(file, place),
            None => return,
        };
        self.given = given;
        let until = given.until();
        if self.ahead.is_none_or(|ahead| ahead.until < until) {
            self.ahead = Some(Ahead { until, at: now });
        }
    }
}

fn lines_at((start, skip): (u64, bool), container: Option<Container>) -> Lines {
    let lines = Lines::at(start, skip);
    if container.is_some() { lines.wrapped() } else { lines }
}

fn changed(metadata: &Metadata) -> Option<(u64, SystemTime)> {
    Some((metadata.len(), metadata.modified().ok()?))
}
