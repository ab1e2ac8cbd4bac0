//! The accumulators of `min` and `max` over Float64, for DataFusion, with NaN above every number.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array};
use arrow::datatypes::Float64Type;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};

use crate::shared::{order_floats, plain_nan};

fn take(found: &mut Option<f64>, value: f64, better: Ordering) {
    if found.is_none_or(|known| order_floats(&value, &known) == better) {
        *found = Some(plain_nan(value));
    }
}

/// Of everything.
#[derive(Debug)]
pub struct One {
    /// The best so far.
    pub found: Option<f64>,
    /// How a value must stand to it to replace it.
    pub better: Ordering,
}

impl Accumulator for One {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let values = values[0].as_primitive::<Float64Type>().iter().flatten();
        values.for_each(|value| take(&mut self.found, value, self.better));
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Float64(self.found))
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::Float64(self.found)])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }
}

/// One per group.
#[derive(Debug)]
pub struct Groups {
    /// The best so far.
    pub found: Vec<Option<f64>>,
    /// How a value must stand to it to replace it.
    pub better: Ordering,
}

impl GroupsAccumulator for Groups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.found.resize(total_num_groups, None);
        let values = values[0].as_primitive::<Float64Type>();
        let kept = |row: usize| filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
        for (row, group) in group_indices.iter().enumerate() {
            if values.is_valid(row) && kept(row) {
                take(&mut self.found[*group], values.value(row), self.better);
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        Ok(Arc::new(emit_to.take_needed(&mut self.found).into_iter().collect::<Float64Array>()))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.evaluate(emit_to)?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.update_batch(states, group_indices, None, total_num_groups)
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let values = values[0].as_primitive::<Float64Type>();
        let kept = |row: usize| filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
        let states = (0..values.len()).map(|row| (values.is_valid(row) && kept(row)).then(|| values.value(row)));
        Ok(vec![Arc::new(states.collect::<Float64Array>())])
    }

    fn size(&self) -> usize {
        self.found.capacity() * size_of::<Option<f64>>()
    }
}
