//! `sum`, `avg`, variances and standard deviations over Float64 as DataFusion aggregates, exact and whatever the order. Every
//! other type, and DISTINCT, goes to DataFusion's own, which is exact for integers and decimals.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Float64Array};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::functions_aggregate::average::avg_udaf;
use datafusion::functions_aggregate::stddev::{stddev_pop_udaf, stddev_udaf};
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::functions_aggregate::variance::{var_pop_udaf, var_samp_udaf};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature};

use crate::exact::ExactSum;
use crate::moments::{ExactState, Moments, Question};

/// An aggregate that stands in for a stock one where its argument is Float64.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ExactAggregate {
    stock: Arc<AggregateUDF>,
    question: Question,
}

/// The exact aggregates, to be registered under the names of the stock ones.
pub fn exact_aggregates() -> [AggregateUDF; 6] {
    let spread = |sample, root| Question::Spread { sample, root };
    [
        (sum_udaf(), Question::Plain),
        (avg_udaf(), Question::Mean),
        (var_samp_udaf(), spread(true, false)),
        (var_pop_udaf(), spread(false, false)),
        (stddev_udaf(), spread(true, true)),
        (stddev_pop_udaf(), spread(false, true)),
    ]
    .map(|(stock, question)| AggregateUDF::new_from_impl(ExactAggregate { stock, question }))
}

fn is_ours(argument: &DataType, distinct: bool) -> bool {
    *argument == DataType::Float64 && !distinct
}

fn ours(arguments: &AccumulatorArgs) -> bool {
    arguments.expr_fields.first().is_some_and(|field| is_ours(field.data_type(), arguments.is_distinct))
}

impl AggregateUDFImpl for ExactAggregate {
    fn name(&self) -> &str {
        self.stock.name()
    }

    fn aliases(&self) -> &[String] {
        self.stock.aliases()
    }

    fn signature(&self) -> &Signature {
        self.stock.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.stock.return_type(arguments)
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        self.stock.coerce_types(arguments)
    }

    fn accumulator(&self, arguments: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if ours(&arguments) {
            return Ok(match self.question {
                Question::Spread { .. } => Box::new(One { state: Moments::default(), question: self.question }),
                question => Box::new(One { state: ExactSum::default(), question }),
            });
        }
        self.stock.accumulator(arguments)
    }

    fn create_sliding_accumulator(&self, arguments: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if ours(&arguments) {
            return self.accumulator(arguments);
        }
        self.stock.create_sliding_accumulator(arguments)
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn state_fields(&self, arguments: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let exact =
            arguments.input_fields.first().is_some_and(|field| is_ours(field.data_type(), arguments.is_distinct));
        if exact {
            return Ok(vec![Arc::new(Field::new(format!("{}[exact]", arguments.name), DataType::Binary, true))]);
        }
        self.stock.state_fields(arguments)
    }

    fn groups_accumulator_supported(&self, arguments: AccumulatorArgs) -> bool {
        ours(&arguments) || self.stock.groups_accumulator_supported(arguments)
    }

    fn create_groups_accumulator(&self, arguments: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        if ours(&arguments) {
            return Ok(match self.question {
                Question::Spread { .. } => Box::new(Groups::<Moments> { states: vec![], question: self.question }),
                question => Box::new(Groups::<ExactSum> { states: vec![], question }),
            });
        }
        self.stock.create_groups_accumulator(arguments)
    }
}

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
