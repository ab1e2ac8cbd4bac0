//! Progress of long work, on a terminal only.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tidewatch_model::ports::{Scan, ScanError, Snapshot};

/// A percentage on standard error that overwrites itself; silent when that is no terminal.
pub struct Progress {
    name: &'static str,
    total: u64,
    shown: Option<u64>,
    terminal: bool,
}

impl Progress {
    /// Of `total` units.
    pub fn new(name: &'static str, total: u64) -> Self {
        Progress { name, total, shown: None, terminal: std::io::stderr().is_terminal() }
    }

    /// So many are done.
    pub fn set(&mut self, done: u64) {
        let percent = (done.min(self.total) * 100).checked_div(self.total).unwrap_or(100);
        if self.terminal && self.shown != Some(percent) {
            self.shown = Some(percent);
            let mut out = std::io::stderr().lock();
            let written = write!(out, "\r{}: {percent} %", self.name).and_then(|()| out.flush());
            drop(written);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown.is_some() {
            let written = write!(std::io::stderr().lock(), "\r\x1b[K");
            drop(written);
        }
    }
}

/// A scan that says on a terminal how much a long question has read.
pub struct WatchedScan {
    inner: Arc<dyn Scan>,
    reading: Mutex<Reading>,
    terminal: bool,
}

struct Reading {
    begun: Instant,
    shown: Option<Instant>,
    bytes: u64,
    /// Of all files of the tables that are asked: columns and files that are not wanted are not read.
    of: u64,
}

/// How long a question is awaited in silence, and how often it is said then how far it is.
const PATIENCE: Duration = Duration::from_secs(1);
const SHOW: Duration = Duration::from_millis(250);

impl WatchedScan {
    /// Watches this one.
    pub fn new(inner: Arc<dyn Scan>) -> WatchedScan {
        let reading = Reading { begun: Instant::now(), shown: None, bytes: 0, of: 0 };
        WatchedScan { inner, reading: Mutex::new(reading), terminal: std::io::stderr().is_terminal() }
    }

    /// Takes away what is shown: an answer comes.
    pub fn clear(&self) {
        let mut reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        if reading.shown.take().is_some() {
            drop(write!(std::io::stderr().lock(), "\r\x1b[K"));
        }
    }
}

impl Scan for WatchedScan {
    fn snapshot(&self, tables: &[String]) -> Result<BTreeMap<String, Snapshot>, ScanError> {
        let snapshots = self.inner.snapshot(tables)?;
        let of = snapshots.values().flat_map(|snapshot| &snapshot.files).map(|file| file.bytes).sum();
        let mut reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        *reading = Reading { begun: Instant::now(), shown: None, bytes: 0, of };
        Ok(snapshots)
    }

    fn read(&self, path: &str, ranges: &[Range<u64>]) -> Result<Vec<Vec<u8>>, ScanError> {
        let read = self.inner.read(path, ranges)?;
        let mut reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        reading.bytes += read.iter().map(|part| part.len() as u64).sum::<u64>();
        let is_due = reading.shown.is_none_or(|shown| shown.elapsed() >= SHOW);
        if self.terminal && is_due && reading.begun.elapsed() >= PATIENCE {
            reading.shown = Some(Instant::now());
            let (seconds, mib) = (reading.begun.elapsed().as_secs(), |bytes: u64| bytes >> 20);
            let mut out = std::io::stderr().lock();
            let (read, of) = (mib(reading.bytes), mib(reading.of));
            drop(write!(out, "\r{read} of {of} MiB read, {seconds} s\x1b[K").and_then(|()| out.flush()));
        }
        Ok(read)
    }
}
