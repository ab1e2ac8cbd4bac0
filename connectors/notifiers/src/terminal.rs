//! The terminal: one line per alert.

use std::io::Write;
use std::sync::{Mutex, PoisonError};

use tidewatch_model::ports::{Delivery, Notify};
use tidewatch_model::{Notice, NoticeStatus, Severity};

use crate::payload::line;

/// Writes a line per alert, in colour when asked to.
pub struct TerminalNotifier {
    out: Mutex<Box<dyn Write + Send>>,
    colour: bool,
}

impl TerminalNotifier {
    /// Writes to `out`.
    pub fn new(out: Box<dyn Write + Send>, colour: bool) -> Self {
        TerminalNotifier { out: Mutex::new(out), colour }
    }
}

impl Notify for TerminalNotifier {
    fn receiver(&self) -> &str {
        "terminal"
    }

    fn notify(&self, notice: &Notice) -> Delivery {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        for alert in &notice.alerts {
            let (status, colour) = match (notice.status, notice.reason.as_str(), alert.severity) {
                (NoticeStatus::Resolved, _, _) => ("RESOLVED", "32"),
                (NoticeStatus::Firing, "stale", _) => ("STALE", "35"),
                (NoticeStatus::Firing, _, Severity::Critical) => ("FIRING", "1;31"),
                (NoticeStatus::Firing, _, Severity::Warning) => ("FIRING", "33"),
                (NoticeStatus::Firing, _, Severity::Info) => ("FIRING", "36"),
            };
            let text = line(alert, status, notice.ts);
            let written =
                if self.colour { writeln!(out, "\x1b[{colour}m{text}\x1b[0m") } else { writeln!(out, "{text}") };
            if let Err(error) = written.and_then(|()| out.flush()) {
                return Delivery::GiveUp { error: format!("terminal: {error}") };
            }
        }
        Delivery::Delivered
    }
}
