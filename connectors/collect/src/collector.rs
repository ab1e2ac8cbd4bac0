//! What a collector is.

use arrow::array::RecordBatch;
use tidewatch_model::{Span, Timestamp};

use crate::fault::Fault;

/// One source of rows of one table.
pub trait Collector: Send {
    /// The table.
    fn table(&self) -> &'static str;
    /// How often it is asked; by default the table's interval.
    fn interval(&self) -> Span {
        tidewatch_model::table::find(self.table()).map_or(Span::seconds(10), |table| table.interval)
    }
    /// Reads everything once.
    fn collect(&mut self, now: Timestamp) -> Collected;
    /// Told after each pass that gave rows which of its batches the log refused, by their place: its own first, then those of `more`. It answers whether those are given again: only otherwise are
    /// they lost.
    fn taken(&mut self, refused: &[usize]) -> bool {
        refused.is_empty()
    }
    /// How long something that it asked has not answered, beyond what is usual.
    fn stuck(&self) -> Option<Span> {
        None
    }
}

/// What one pass gave.
#[derive(Debug, Default)]
pub struct Collected {
    /// The rows; none when there is nothing of the kind.
    pub batch: Option<RecordBatch>,
    /// Rows of other tables that came with them.
    pub more: Vec<(&'static str, RecordBatch)>,
    /// What could not be read.
    pub faults: Vec<Fault>,
}
