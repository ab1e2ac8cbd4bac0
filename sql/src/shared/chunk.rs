//! Rows on their way into panes: filtered, numbered, evaluated.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, new_null_array};
use arrow::compute::{concat, filter_record_batch};
use datafusion::common::Result;
use datafusion::logical_expr::Expr;
use datafusion::physical_expr::PhysicalExpr;
use tidewatch_model::{Span, Timestamp};

use crate::guarded::{is_broken, values_of};
use crate::panes::times;
use crate::values::truths;

/// The rows of a chunk that pass a stream's conditions.
pub struct Chunk {
    batch: RecordBatch,
    /// Their times.
    pub times: Vec<i64>,
    /// The values of the stream's inputs.
    pub inputs: Vec<ArrayRef>,
    /// By grouping: the group of each row.
    pub groups: HashMap<usize, Vec<u32>>,
    /// Inputs that could not be evaluated: which, in which row, and why.
    pub input_faults: Vec<(usize, usize, String)>,
    /// Times of rows whose condition could not be evaluated.
    pub condition_faults: Vec<(i64, String)>,
}

impl Chunk {
    /// All rows of a batch.
    pub fn new(batch: RecordBatch) -> Chunk {
        let times = times(&batch).map(|times| times.values().to_vec()).unwrap_or_default();
        Chunk { batch, times, inputs: vec![], groups: HashMap::new(), input_faults: vec![], condition_faults: vec![] }
    }

    /// The rows that pass a condition, with their groups.
    pub fn filtered(&self, condition: &Arc<dyn PhysicalExpr>) -> Result<Chunk> {
        let (passes, faults) = evaluate(condition, &self.batch)?;
        let passes = truths(&passes);
        let mut chunk = Chunk::new(filter_record_batch(&self.batch, &passes)?);
        for (grouping, groups) in &self.groups {
            let groups = groups.iter().zip(passes.values().iter()).filter(|(_, passes)| *passes);
            chunk.groups.insert(*grouping, groups.map(|(group, _)| *group).collect());
        }
        chunk.condition_faults.clone_from(&self.condition_faults);
        chunk.condition_faults.extend(faults.into_iter().map(|(row, message)| (self.times[row], message)));
        Ok(chunk)
    }

    /// Evaluates the stream's inputs.
    pub fn evaluate(&mut self, inputs: &[(Expr, Arc<dyn PhysicalExpr>)]) -> Result<()> {
        for (index, (_, expression)) in inputs.iter().enumerate() {
            let (values, faults) = evaluate(expression, &self.batch)?;
            self.inputs.push(values);
            self.input_faults.extend(faults.into_iter().map(|(row, message)| (index, row, message)));
        }
        Ok(())
    }
}

/// The values of an expression, and the rows where it fails, with why: NULL stands there.
pub fn evaluate(expression: &Arc<dyn PhysicalExpr>, batch: &RecordBatch) -> Result<(ArrayRef, Vec<(usize, String)>)> {
    let whole = |batch: &RecordBatch| values_of(expression, batch);
    let data_type = expression.data_type(batch.schema_ref())?;
    match whole(batch) {
        Ok(values) => return Ok((values, vec![])),
        Err(error) if is_broken(&error) => {
            let why = error.strip_backtrace();
            let faults = (0..batch.num_rows()).map(|row| (row, why.clone())).collect();
            return Ok((new_null_array(&data_type, batch.num_rows()), faults));
        }
        Err(_) => {}
    }
    let null = new_null_array(&data_type, 1);
    let mut faults = Vec::new();
    let mut values: Vec<ArrayRef> = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        match whole(&batch.slice(row, 1)) {
            Ok(value) => values.push(value),
            Err(error) => {
                values.push(null.clone());
                faults.push((row, error.strip_backtrace()));
            }
        }
    }
    let values: Vec<&dyn Array> = values.iter().map(AsRef::as_ref).collect();
    Ok((concat(&values)?, faults))
}

/// Rows that follow each other in one pane.
pub fn runs(times: &[i64], width: Span) -> impl Iterator<Item = (Timestamp, Range<usize>)> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let first = times.get(start)?;
        let pane = Timestamp(*first).floor(width);
        let (low, high) = (pane.0, pane.0 + width.0);
        let length = times[start..].iter().position(|ts| !(low..high).contains(ts)).unwrap_or(times.len() - start);
        let rows = start..start + length;
        start += length;
        Some((pane, rows))
    })
}
