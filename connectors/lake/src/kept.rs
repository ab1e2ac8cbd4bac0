//! Rows that were just written, kept for whoever settles them in the same process: reading them back costs more than writing them did.
//! What is kept is what the hot file holds, under its name, which no other file ever has.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use tidewatch_model::limits::KEPT_ROWS_BYTES;

use crate::size::bytes_of;

/// The rows of hot files, by path. Clones are the same rows.
#[derive(Debug, Clone)]
pub struct KeptRows {
    state: Arc<Mutex<State>>,
    limit: usize,
}

#[derive(Debug, Default)]
struct State {
    rows: HashMap<String, (Vec<RecordBatch>, usize)>,
    order: VecDeque<String>,
    bytes: usize,
}

impl Default for KeptRows {
    fn default() -> Self {
        KeptRows::within(KEPT_ROWS_BYTES)
    }
}

impl KeptRows {
    /// At most so many bytes; the oldest go first.
    pub fn within(limit: usize) -> KeptRows {
        KeptRows { state: Arc::default(), limit }
    }

    /// Keeps the rows of a file that was committed.
    pub fn keep(&self, path: &str, rows: Vec<RecordBatch>) {
        let bytes = rows.iter().map(bytes_of).sum();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.bytes += bytes;
        state.order.push_back(path.to_string());
        state.rows.insert(path.to_string(), (rows, bytes));
        while state.bytes > self.limit {
            let Some(oldest) = state.order.pop_front() else { break };
            state.forget(&oldest);
        }
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).rows.is_empty()
    }

    /// Hands over the rows of a file, if they are here; they are not afterwards.
    pub fn take(&self, path: &str) -> Option<Vec<RecordBatch>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).forget(path)
    }
}

impl State {
    fn forget(&mut self, path: &str) -> Option<Vec<RecordBatch>> {
        let (rows, bytes) = self.rows.remove(path)?;
        self.bytes -= bytes;
        // Names of what was taken go when they are most of them.
        if self.order.len() > 2 * self.rows.len() + 64 {
            self.order.retain(|path| self.rows.contains_key(path));
        }
        Some(rows)
    }
}
