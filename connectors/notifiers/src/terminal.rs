//! The terminal: one line per alert.

use std::io::Write;
use std::sync::{Mutex, PoisonError};

use tidewatch_model::ports::{Delivery, Notify};
use tidewatch_model::{AlertState, Notice, Severity};

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
    fn target(&self) -> &str {
        "terminal"
    }

    fn notify(&self, notice: &Notice) -> Delivery {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        for alert in &notice.alerts {
            let (status, colour) = match (alert.state, alert.stale_since, alert.severity) {
                (AlertState::Resolved, _, _) => ("RESOLVED", "32"),
                (_, Some(_), _) => ("STALE", "35"),
                (_, None, Severity::Critical) => ("FIRING", "1;31"),
                (_, None, Severity::Warning) => ("FIRING", "33"),
                (_, None, Severity::Info) => ("FIRING", "36"),
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

    fn preview(&self, notice: &Notice) -> String {
        notice.alerts.iter().map(|alert| line(alert, &alert.state.to_string(), notice.ts) + "\n").collect()
    }
}
