//! `sum` and `avg` over Float64 as DataFusion aggregates, on [`ExactSum`]. Every other type, and DISTINCT, goes to
//! DataFusion's own, which is exact for integers and decimals.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Float64Array};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::functions_aggregate::{average::avg_udaf, sum::sum_udaf};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature};

use crate::exact::ExactSum;

/// What is asked of the sum at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Answer {
    Sum,
    Mean,
}

/// An aggregate that stands in for a stock one where its argument is Float64.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ExactAggregate {
    stock: Arc<AggregateUDF>,
    answer: Answer,
}

/// The exact `sum` and `avg`, to be registered under those names.
pub fn exact_aggregates() -> [AggregateUDF; 2] {
    [(sum_udaf(), Answer::Sum), (avg_udaf(), Answer::Mean)]
        .map(|(stock, answer)| AggregateUDF::new_from_impl(ExactAggregate { stock, answer }))
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
            return Ok(Box::new(OneSum { sum: ExactSum::default(), answer: self.answer }));
        }
        self.stock.accumulator(arguments)
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
            return Ok(Box::new(GroupSums { sums: vec![], answer: self.answer }));
        }
        self.stock.create_groups_accumulator(arguments)
    }
}

fn answer_of(sum: &ExactSum, answer: Answer) -> Option<f64> {
    match answer {
        Answer::Sum => sum.sum(),
        Answer::Mean => sum.mean(),
    }
}

fn decode(bytes: &[u8]) -> Result<ExactSum> {
    ExactSum::from_bytes(bytes).ok_or_else(|| DataFusionError::Internal("damaged state of an exact sum".to_string()))
}

/// The sum of everything, for aggregates without groups.
#[derive(Debug)]
struct OneSum {
    sum: ExactSum,
    answer: Answer,
}

impl Accumulator for OneSum {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        values[0].as_primitive::<Float64Type>().iter().flatten().for_each(|value| self.sum.add(value));
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Float64(answer_of(&self.sum, self.answer)))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.sum.heap_bytes()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::Binary(Some(self.sum.to_bytes()))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for bytes in states[0].as_binary::<i32>().iter().flatten() {
            self.sum.merge(&decode(bytes)?);
        }
        Ok(())
    }
}

/// One sum per group.
#[derive(Debug)]
struct GroupSums {
    sums: Vec<ExactSum>,
    answer: Answer,
}

impl GroupSums {
    fn take(&mut self, emit_to: EmitTo) -> Vec<ExactSum> {
        emit_to.take_needed(&mut self.sums)
    }
}

impl GroupsAccumulator for GroupSums {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.sums.resize_with(total_num_groups, ExactSum::default);
        let values = values[0].as_primitive::<Float64Type>();
        let kept = |row: usize| filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
        for (row, group) in group_indices.iter().enumerate() {
            if values.is_valid(row) && kept(row) {
                self.sums[*group].add(values.value(row));
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let sums = self.take(emit_to);
        Ok(Arc::new(sums.iter().map(|sum| answer_of(sum, self.answer)).collect::<Float64Array>()))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let sums = self.take(emit_to);
        Ok(vec![Arc::new(BinaryArray::from_iter_values(sums.iter().map(ExactSum::to_bytes)))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.sums.resize_with(total_num_groups, ExactSum::default);
        for (bytes, group) in states[0].as_binary::<i32>().iter().zip(group_indices) {
            if let Some(bytes) = bytes {
                self.sums[*group].merge(&decode(bytes)?);
            }
        }
        Ok(())
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let values = values[0].as_primitive::<Float64Type>();
        let states = (0..values.len()).map(|row| {
            let mut sum = ExactSum::default();
            if values.is_valid(row) && filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row)) {
                sum.add(values.value(row));
            }
            sum.to_bytes()
        });
        Ok(vec![Arc::new(BinaryArray::from_iter_values(states))])
    }

    fn size(&self) -> usize {
        self.sums.capacity() * size_of::<ExactSum>() + self.sums.iter().map(ExactSum::heap_bytes).sum::<usize>()
    }
}
