//! The rows of one table that some open window may still need, kept once for all rules on that table.
//!
//! Rows are cut into panes by event time. A pane is sorted when it is first read, by ts and then by every other column,
//! so what a rule sees does not depend on the order in which rows arrived.

use std::collections::BTreeMap;

use arrow::array::{AsArray, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, filter_record_batch, take_record_batch};
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use tidewatch_model::limits::WINDOW_ROWS;
use tidewatch_model::table::TIME_COLUMN;
use tidewatch_model::{Span, Timestamp};

/// Length of a pane. Long enough that a window is a handful of batches, short enough that the newest pane, which is
/// sorted again whenever it grew, stays small.
const PANE: Span = Span::seconds(10);

#[derive(Debug, Default)]
struct Pane {
    /// Sorted, except for what is in `arrived`.
    sorted: Option<RecordBatch>,
    arrived: Vec<RecordBatch>,
}

/// The open rows of one table.
#[derive(Debug)]
pub struct Panes {
    columns: Vec<String>,
    identity: Vec<String>,
    panes: BTreeMap<Timestamp, Pane>,
    rows: usize,
    /// Rows dropped because the table held too many.
    pub overflow_rows: u64,
    /// See [`Panes::whole_from`].
    whole_from: Timestamp,
}

/// The `ts` column of a batch of a registry table.
pub fn times(batch: &RecordBatch) -> Option<&arrow::array::TimestampMicrosecondArray> {
    batch.column_by_name(TIME_COLUMN)?.as_primitive_opt::<TimestampMicrosecondType>()
}

impl Panes {
    /// Keeps these columns of each row; `ts` and `identity`, which orders rows of one time, must be among them.
    pub fn new(columns: Vec<String>, identity: Vec<String>) -> Self {
        Panes { columns, identity, panes: BTreeMap::new(), rows: 0, overflow_rows: 0, whole_from: Timestamp::MIN }
    }

    /// Takes the rows that are at or after `floor`, the start of the earliest open window; older ones are late.
    pub fn push(&mut self, batch: &RecordBatch, floor: Timestamp) -> Result<(), ArrowError> {
        let Some(times) = times(batch) else {
            return Err(ArrowError::SchemaError(format!("column '{TIME_COLUMN}' is missing or is no timestamp")));
        };
        let kept = self.columns.iter().map(|name| batch.schema().index_of(name)).collect::<Result<Vec<_>, _>>()?;
        let narrow = batch.project(&kept)?;
        let mut starts: Vec<Timestamp> = times.values().iter().map(|ts| Timestamp(*ts).floor(PANE)).collect();
        starts.sort_unstable();
        starts.dedup();
        for start in starts {
            let (from, to) = (start.0.max(floor.0), start.0 + PANE.0);
            let inside: BooleanArray = times.values().iter().map(|ts| Some(*ts >= from && *ts < to)).collect();
            let part = match inside.true_count() {
                0 => continue,
                all if all == narrow.num_rows() => narrow.clone(),
                _ => filter_record_batch(&narrow, &inside)?,
            };
            self.rows += part.num_rows();
            self.panes.entry(start).or_default().arrived.push(part);
        }
        self.enforce_limit();
        Ok(())
    }

    /// The rows with `start <= ts < end`, in canonical order.
    pub fn between(&mut self, start: Timestamp, end: Timestamp) -> Result<Vec<RecordBatch>, ArrowError> {
        let mut batches = Vec::new();
        for pane in self.panes.range_mut(start.floor(PANE)..end).map(|(_, pane)| pane) {
            let sorted = pane.sorted(&self.identity)?;
            let Some(times) = times(sorted) else { continue };
            let from = times.values().partition_point(|ts| *ts < start.0);
            let to = times.values().partition_point(|ts| *ts < end.0);
            if from < to {
                batches.push(sorted.slice(from, to - from));
            }
        }
        Ok(batches)
    }

    /// Forgets panes that end at or before `floor`.
    pub fn forget_before(&mut self, floor: Timestamp) {
        while let Some(entry) = self.panes.first_entry() {
            if *entry.key() + PANE > floor {
                break;
            }
            self.rows -= entry.get().rows();
            entry.remove();
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.panes.values().map(Pane::bytes).sum()
    }

    /// Start of the oldest pane.
    pub fn oldest(&self) -> Option<Timestamp> {
        self.panes.first_key_value().map(|(start, _)| *start)
    }

    /// Gives up the oldest pane, whose rows are counted; how many bytes it had.
    pub fn give_up(&mut self) -> usize {
        let Some((start, pane)) = self.panes.pop_first() else { return 0 };
        self.rows -= pane.rows();
        self.overflow_rows += pane.rows() as u64;
        self.whole_from = self.whole_from.max(start + PANE);
        pane.bytes()
    }

    /// Rows before this may have been given up.
    pub fn whole_from(&self) -> Timestamp {
        self.whole_from
    }

    /// Rows held now.
    pub fn rows(&self) -> usize {
        self.rows
    }

    fn enforce_limit(&mut self) {
        while self.rows > WINDOW_ROWS {
            self.give_up();
        }
    }
}

/// Bytes of the rows of a batch: what they share with others of the message that brought them is not theirs.
pub fn bytes_of(batch: &RecordBatch) -> usize {
    let of_column = |column: &arrow::array::ArrayRef| column.to_data().get_slice_memory_size().unwrap_or_default();
    batch.columns().iter().map(of_column).sum()
}

impl Pane {
    fn bytes(&self) -> usize {
        self.sorted.iter().chain(&self.arrived).map(bytes_of).sum()
    }

    fn rows(&self) -> usize {
        self.sorted.iter().chain(&self.arrived).map(RecordBatch::num_rows).sum()
    }

    fn sorted(&mut self, identity: &[String]) -> Result<&RecordBatch, ArrowError> {
        if !self.arrived.is_empty() || self.sorted.is_none() {
            let parts: Vec<RecordBatch> = self.sorted.take().into_iter().chain(self.arrived.drain(..)).collect();
            let whole = concat_batches(&parts[0].schema(), &parts)?;
            self.sorted = Some(canonical(&whole, identity)?);
        }
        self.sorted.as_ref().ok_or_else(|| ArrowError::ComputeError("empty pane".to_string()))
    }
}

/// Sorted by ts, then by these columns, then by every other, so that what else is kept matters little; maps can't be compared and keep their
/// order of arrival.
pub fn canonical(batch: &RecordBatch, identity: &[String]) -> Result<RecordBatch, ArrowError> {
    let schema = batch.schema();
    let time = schema.index_of(TIME_COLUMN)?;
    let is_ordered = |index: &usize| *index != time && !matches!(schema.field(*index).data_type(), DataType::Map(_, _));
    let first: Vec<usize> = identity.iter().filter_map(|name| schema.index_of(name).ok()).filter(is_ordered).collect();
    let others = (0..batch.num_columns()).filter(is_ordered).filter(|index| !first.contains(index));
    let order: Vec<usize> = std::iter::once(time).chain(first.iter().copied()).chain(others).collect();
    let fields = order.iter().map(|index| SortField::new(schema.field(*index).data_type().clone())).collect();
    let columns: Vec<_> = order.iter().map(|index| batch.column(*index).clone()).collect();
    let rows = RowConverter::new(fields)?.convert_columns(&columns)?;
    let mut indices: Vec<u32> = (0..batch.num_rows() as u32).collect();
    indices.sort_by(|left, right| rows.row(*left as usize).cmp(&rows.row(*right as usize)));
    take_record_batch(batch, &UInt32Array::from(indices))
}
