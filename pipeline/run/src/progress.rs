//! Progress of long work, on a terminal only.

use std::io::{IsTerminal, Write};

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
