//! The table `collector`: how the collectors themselves are.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use tidewatch_model::{Span, Timestamp};

use crate::fault::{Fault, FaultKind};
use crate::rows::{Rows, RowsError};

/// What is known of one collector since the start.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Health {
    ok: bool,
    duration: Span,
    stuck: Option<Span>,
    rows: i64,
    errors: i64,
    dropped: i64,
    message: Option<String>,
}

/// All collectors, by table.
#[derive(Debug, Default)]
pub struct HealthBook {
    collectors: BTreeMap<&'static str, Health>,
    spool_bytes: Option<i64>,
}

impl HealthBook {
    /// A pass ended. A source that this machine does not have is said once and makes nobody ill.
    pub fn ran(&mut self, table: &'static str, duration: Span, rows: usize, faults: &[Fault]) {
        let health = self.collectors.entry(table).or_default();
        health.duration = duration;
        health.rows += rows as i64;
        health.errors += faults.len() as i64;
        let failed = faults.iter().find(|fault| fault.kind == FaultKind::Failed);
        health.ok = failed.is_none();
        if let Some(fault) = failed.or(faults.first()) {
            let column = if fault.column.is_empty() { String::new() } else { format!("{}: ", fault.column) };
            health.message = Some(format!("{column}{}", fault.reason));
        }
    }

    /// How long something that a collector asked has not answered.
    pub fn stuck(&mut self, table: &'static str, stuck: Option<Span>) {
        let health = self.collectors.entry(table).or_default();
        health.stuck = stuck;
        if let Some(stuck) = stuck {
            health.ok = false;
            health.message = Some(format!("a call has not returned for {stuck}"));
        }
    }

    /// A pass panicked, or its rows could not be made: a bug of the collector.
    pub fn broke(&mut self, table: &'static str, message: String) {
        let health = self.collectors.entry(table).or_default();
        health.ok = false;
        health.errors += 1;
        health.message = Some(message);
    }

    /// The log did not take rows.
    pub fn dropped(&mut self, table: &'static str, rows: usize, message: String) {
        let health = self.collectors.entry(table).or_default();
        health.ok = false;
        health.dropped += rows as i64;
        health.message = Some(message);
    }

    /// The log did not take rows, which are given again.
    pub fn waits(&mut self, table: &'static str, message: String) {
        let health = self.collectors.entry(table).or_default();
        health.ok = false;
        health.errors += 1;
        health.message = Some(message);
    }

    /// What waits on disk to be sent.
    pub fn spool(&mut self, bytes: u64) {
        self.spool_bytes = Some(bytes as i64);
    }

    /// One row for each collector.
    pub fn batch(&self, host: &str, now: Timestamp) -> Result<Option<RecordBatch>, RowsError> {
        let mut rows = Rows::of("collector")?;
        for (collector, health) in &self.collectors {
            rows.push(
                now,
                [
                    ("host", host.into()),
                    ("collector", (*collector).into()),
                    ("ok", health.ok.into()),
                    ("duration_seconds", health.duration.as_seconds().into()),
                    ("stuck_seconds", health.stuck.map(Span::as_seconds).into()),
                    ("rows_total", health.rows.into()),
                    ("errors_total", health.errors.into()),
                    ("dropped_rows_total", health.dropped.into()),
                    ("spool_bytes", self.spool_bytes.into()),
                    ("message", health.message.as_deref().into()),
                ],
            )?;
        }
        rows.finish()
    }
}
