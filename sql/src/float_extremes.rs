//! `min` and `max` over Float64 as DataFusion aggregates, with NaN above every number. DataFusion's own depend on the order of
//! the rows where a value is NaN; every other type goes to them.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array};
use arrow::datatypes::{DataType, FieldRef, Float64Type};
use datafusion::common::{Result, ScalarValue};
use datafusion::functions_aggregate::min_max::{max_udaf, min_udaf};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, StatisticsArgs,
};

use crate::shared::{order_floats, plain_nan};

/// An aggregate that stands in for a stock one where its argument is Float64.
#[derive(Debug, PartialEq, Eq, Hash)]
struct FloatExtreme {
    stock: Arc<AggregateUDF>,
    largest: bool,
}

/// The two, to be registered under their names.
pub fn float_extremes() -> [AggregateUDF; 2] {
    [(min_udaf(), false), (max_udaf(), true)]
        .map(|(stock, largest)| AggregateUDF::new_from_impl(FloatExtreme { stock, largest }))
}

fn ours(arguments: &AccumulatorArgs) -> bool {
    arguments.expr_fields.first().is_some_and(|field| *field.data_type() == DataType::Float64)
}

impl FloatExtreme {
    fn better(&self) -> Ordering {
        if self.largest { Ordering::Greater } else { Ordering::Less }
    }
}

impl AggregateUDFImpl for FloatExtreme {
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
            return Ok(Box::new(One { found: None, better: self.better() }));
        }
        self.stock.accumulator(arguments)
    }

    fn state_fields(&self, arguments: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.stock.state_fields(arguments)
    }

    fn groups_accumulator_supported(&self, arguments: AccumulatorArgs) -> bool {
        ours(&arguments) || self.stock.groups_accumulator_supported(arguments)
    }

    fn create_groups_accumulator(&self, arguments: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        if ours(&arguments) {
            return Ok(Box::new(Groups { found: vec![], better: self.better() }));
        }
        self.stock.create_groups_accumulator(arguments)
    }

    fn create_sliding_accumulator(&self, arguments: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.stock.create_sliding_accumulator(arguments)
    }

    fn is_descending(&self) -> Option<bool> {
        self.stock.is_descending()
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.stock.order_sensitivity()
    }

    fn value_from_stats(&self, arguments: &StatisticsArgs) -> Option<ScalarValue> {
        // Statistics leave NaN out.
        let is_float = *arguments.return_type == DataType::Float64;
        if is_float { None } else { self.stock.value_from_stats(arguments) }
    }
}

fn take(found: &mut Option<f64>, value: f64, better: Ordering) {
    if found.is_none_or(|known| order_floats(&value, &known) == better) {
        *found = Some(plain_nan(value));
    }
}

/// Of everything.
#[derive(Debug)]
struct One {
    found: Option<f64>,
    better: Ordering,
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
struct Groups {
    found: Vec<Option<f64>>,
    better: Ordering,
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
