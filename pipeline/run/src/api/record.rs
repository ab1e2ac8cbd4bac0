//! What people say, as rows of the history: written where it is said, besides the topic that keeps it.

use std::sync::{Arc, Mutex, PoisonError};

use tidewatch_flow::alerting::Silence;
use tidewatch_model::ports::{Log, Random};
use tidewatch_model::table::TOPIC_PREFIX;
use tidewatch_model::wire::{Origin, encode_split};
use tidewatch_model::{Timestamp, Transition};

use crate::alert_rows::{silence_batch, transition_batch};

/// Writes rows.
pub struct Writer {
    log: Arc<dyn Log>,
    origin: Mutex<Origin>,
}

impl Writer {
    /// To this log.
    pub fn new(log: Arc<dyn Log>, random: &dyn Random) -> Writer {
        let incarnation = format!("{:016x}", random.next_u64());
        Writer { log, origin: Mutex::new(Origin { source: format!("api:{incarnation}"), incarnation, seq: 0 }) }
    }

    /// A change of an alert.
    ///
    /// # Errors
    /// The log's.
    pub fn transition(&self, transition: &Transition, now: Timestamp) -> Result<(), String> {
        let rows = transition_batch(std::slice::from_ref(transition), now).map_err(|error| error.to_string())?;
        self.append("alert_event", &rows)
    }

    /// A silence that was made, changed or ended, and by whom.
    ///
    /// # Errors
    /// The log's.
    pub fn silence(&self, silence: &Silence, action: &str, by: &str, now: Timestamp) -> Result<(), String> {
        let rows = silence_batch(silence, action, by, now).map_err(|error| error.to_string())?;
        self.append("silence_event", &rows)
    }

    fn append(&self, table: &str, rows: &arrow::array::RecordBatch) -> Result<(), String> {
        let mut origin = self.origin.lock().unwrap_or_else(PoisonError::into_inner);
        let records = encode_split(table, &mut origin, rows).map_err(|error| error.to_string())?;
        self.log.append(&format!("{TOPIC_PREFIX}{table}"), 0, &records).map(drop).map_err(|error| error.to_string())
    }
}
