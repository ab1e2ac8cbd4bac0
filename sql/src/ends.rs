//! `first(x, ts)` and `last(x, ts)` as DataFusion aggregates: the value that is not NULL with the earliest or the latest time; with
//! RESPECT NULLS the value of the earliest or latest row, even if it is NULL. Of several at the same time the smallest, or the largest,
//! NULL below all: the order of arrival does not matter.

use std::any::Any;
use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit, TimestampMicrosecondType};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::expr::NullTreatment;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawAggregateExpr, RawWindowExpr};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility, WindowFunctionDefinition,
};

/// The two, by name, and whether the later one is meant. In a rule `ts` may be left out.
const ENDS: [(&str, bool); 2] = [("first", false), ("last", true)];

/// Whether a function of this name asks for the later end; `None` when it is none of the two.
pub fn is_last(name: &str) -> Option<bool> {
    ENDS.iter().find(|(known, _)| *known == name).map(|(_, last)| *last)
}

/// One of the two.
#[derive(Debug, PartialEq, Eq, Hash)]
struct EndUdaf {
    name: &'static str,
    end: End,
    signature: Signature,
}

/// What is asked of one of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct End {
    /// Whether the later end is meant.
    pub last: bool,
    /// Whether rows count whose value is NULL.
    pub nulls: bool,
}

/// The aggregates, to be registered.
pub fn ends() -> [AggregateUDF; 2] {
    ENDS.map(|(name, last)| end_udaf(name, End { last, nulls: false }))
}

fn end_udaf(name: &'static str, end: End) -> AggregateUDF {
    AggregateUDF::new_from_impl(EndUdaf { name, end, signature: Signature::user_defined(Volatility::Immutable) })
}

/// What is asked, when a function is one of the two.
pub fn end_of(function: &AggregateUDF) -> Option<End> {
    (function.inner().as_ref() as &dyn Any).downcast_ref::<EndUdaf>().map(|udaf| udaf.end)
}

/// Reads RESPECT NULLS, which accumulators are not told of, into the function itself. IGNORE NULLS says what holds without it.
#[derive(Debug)]
pub struct NullsOfEnds;

impl NullsOfEnds {
    fn read(function: &mut Arc<AggregateUDF>, treatment: &mut Option<NullTreatment>) {
        let udaf = (function.inner().as_ref() as &dyn Any).downcast_ref::<EndUdaf>();
        match (udaf.map(|udaf| (udaf.name, udaf.end)), *treatment) {
            (Some((name, end)), Some(NullTreatment::RespectNulls)) => {
                *function = Arc::new(end_udaf(name, End { nulls: true, ..end }));
            }
            (Some(_), Some(NullTreatment::IgnoreNulls)) => *treatment = None,
            _ => {}
        }
    }
}

impl ExprPlanner for NullsOfEnds {
    fn plan_aggregate(&self, mut call: RawAggregateExpr) -> Result<PlannerResult<RawAggregateExpr>> {
        NullsOfEnds::read(&mut call.func, &mut call.null_treatment);
        Ok(PlannerResult::Original(call))
    }

    fn plan_window(&self, mut call: RawWindowExpr) -> Result<PlannerResult<RawWindowExpr>> {
        if let WindowFunctionDefinition::AggregateUDF(function) = &mut call.func_def {
            NullsOfEnds::read(function, &mut call.null_treatment);
        }
        Ok(PlannerResult::Original(call))
    }
}

fn time() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

impl AggregateUDFImpl for EndUdaf {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        match arguments {
            [value, DataType::Timestamp(_, _)] => Ok(vec![value.clone(), time()]),
            _ => plan_err!("{0} expects a value and a time: {0}(temperature_celsius, ts)", self.name),
        }
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(arguments[0].clone())
    }

    fn accumulator(&self, arguments: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let null = ScalarValue::try_from(arguments.return_field.data_type())?;
        let better = if self.end.last { Ordering::Greater } else { Ordering::Less };
        Ok(Box::new(Best { found: None, null, better, nulls: self.end.nulls }))
    }

    fn state_fields(&self, arguments: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let value = arguments.input_fields[0].data_type().clone();
        Ok(vec![
            Arc::new(Field::new(format!("{}[value]", arguments.name), value, true)),
            Arc::new(Field::new(format!("{}[time]", arguments.name), time(), true)),
        ])
    }

    fn supports_null_handling_clause(&self) -> bool {
        true
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

/// The best so far.
#[derive(Debug)]
struct Best {
    found: Option<(i64, ScalarValue)>,
    null: ScalarValue,
    better: Ordering,
    nulls: bool,
}

impl Accumulator for Best {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let times = values[1].as_primitive::<TimestampMicrosecondType>();
        let counts = |row: &usize| times.is_valid(*row) && (self.nulls || values[0].is_valid(*row));
        for row in (0..values[0].len()).filter(counts) {
            let ts = times.value(row);
            if self.found.as_ref().is_some_and(|(known, _)| ts.cmp(known) == self.better.reverse()) {
                continue;
            }
            let value = ScalarValue::try_from_array(&values[0], row)?;
            let is_better = self.found.as_ref().is_none_or(|(known, other)| {
                ts.cmp(known).then(value.partial_cmp(other).unwrap_or(Ordering::Equal)) == self.better
            });
            if is_better {
                self.found = Some((ts, value));
            }
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(self.found.as_ref().map_or_else(|| self.null.clone(), |(_, value)| value.clone()))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.found.as_ref().map_or(0, |(_, value)| value.size())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let ts = self.found.as_ref().map(|(ts, _)| *ts);
        Ok(vec![self.evaluate()?, ScalarValue::TimestampMicrosecond(ts, Some("UTC".into()))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }
}
