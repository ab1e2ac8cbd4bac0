//! The accumulators of exact states over Float64, for DataFusion: sums, spreads, percentiles.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Float64Array};
use arrow::datatypes::Float64Type;
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};

use crate::moments::{ExactState, Question};

fn decode<S: ExactState>(bytes: &[u8]) -> Result<S> {
    S::from_bytes(bytes).ok_or_else(|| DataFusionError::Internal("damaged state of an exact aggregate".to_string()))
}

/// Of everything, for aggregates without groups.
#[derive(Debug)]
pub struct One<S> {
    /// The state.
    pub state: S,
    /// What is asked of it.
    pub question: Question,
}

impl<S: ExactState> Accumulator for One<S> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        values[0].as_primitive::<Float64Type>().iter().flatten().for_each(|value| self.state.add(value));
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Float64(self.state.answer(self.question)))
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let mut gone = S::default();
        values[0].as_primitive::<Float64Type>().iter().flatten().for_each(|value| gone.add(value));
        self.state.subtract(&gone);
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.state.heap_bytes()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::Binary(Some(self.state.to_bytes()))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for bytes in states[0].as_binary::<i32>().iter().flatten() {
            self.state.merge(&decode(bytes)?);
        }
        Ok(())
    }
}

/// One state per group.
#[derive(Debug)]
pub struct Groups<S> {
    /// The states.
    pub states: Vec<S>,
    /// What is asked of them.
    pub question: Question,
}

impl<S: ExactState> GroupsAccumulator for Groups<S> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.states.resize_with(total_num_groups, S::default);
        let values = values[0].as_primitive::<Float64Type>();
        let kept = |row: usize| filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
        for (row, group) in group_indices.iter().enumerate() {
            if values.is_valid(row) && kept(row) {
                self.states[*group].add(values.value(row));
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let states = emit_to.take_needed(&mut self.states);
        Ok(Arc::new(states.iter().map(|state| state.answer(self.question)).collect::<Float64Array>()))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let states = emit_to.take_needed(&mut self.states);
        Ok(vec![Arc::new(BinaryArray::from_iter_values(states.iter().map(S::to_bytes)))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.states.resize_with(total_num_groups, S::default);
        for (bytes, group) in states[0].as_binary::<i32>().iter().zip(group_indices) {
            if let Some(bytes) = bytes {
                self.states[*group].merge(&decode(bytes)?);
            }
        }
        Ok(())
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let values = values[0].as_primitive::<Float64Type>();
        let states = (0..values.len()).map(|row| {
            let mut state = S::default();
            if values.is_valid(row) && filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row)) {
                state.add(values.value(row));
            }
            state.to_bytes()
        });
        Ok(vec![Arc::new(BinaryArray::from_iter_values(states))])
    }

    fn size(&self) -> usize {
        self.states.capacity() * size_of::<S>() + self.states.iter().map(S::heap_bytes).sum::<usize>()
    }
}
