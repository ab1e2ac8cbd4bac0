//! `mad(x)` and `ewma(x, decay, ts)` as DataFusion aggregates; [`crate::robust`] says what they mean.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type, IntervalUnit, TimeUnit, TimestampMicrosecondType};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};
use datafusion::physical_expr::expressions::Literal;

use crate::robust::{Decay, Sample, deviation, key, smoothed};
use crate::samples::{SAMPLE_BYTES, merge, state_of};

/// The median absolute deviation, by name.
pub const MAD: &str = "mad";
/// The smoothed mean. In a rule `ts` may be left out.
pub const EWMA: &str = "ewma";

/// What the second argument of `ewma` may be.
pub const DECAY: &str =
    "expected ewma(x, 0.2, ts) with a number above 0 and at most 1, or ewma(x, INTERVAL '1 minute', ts)";

/// One of the two.
#[derive(Debug, PartialEq, Eq, Hash)]
struct OfValues {
    name: &'static str,
    signature: Signature,
}

/// The aggregates, to be registered.
pub fn of_values() -> [AggregateUDF; 2] {
    [MAD, EWMA].map(|name| {
        let signature = Signature::user_defined(Volatility::Immutable);
        AggregateUDF::new_from_impl(OfValues { name, signature })
    })
}

impl AggregateUDFImpl for OfValues {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let is_number = |data_type: &DataType| data_type.is_numeric() || data_type.is_null();
        let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        match arguments {
            [value] if self.name == MAD && is_number(value) => Ok(vec![DataType::Float64]),
            [value, decay, DataType::Timestamp(_, _)] if self.name == EWMA && is_number(value) => match decay {
                DataType::Interval(_) => {
                    Ok(vec![DataType::Float64, DataType::Interval(IntervalUnit::MonthDayNano), time])
                }
                decay if decay.is_numeric() => Ok(vec![DataType::Float64, DataType::Float64, time]),
                _ => plan_err!("{DECAY}"),
            },
            _ if self.name == MAD => plan_err!("mad expects a number: mad(power_watts)"),
            _ => plan_err!("{DECAY}"),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn accumulator(&self, arguments: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if self.name == MAD {
            return Ok(Box::new(Samples { decay: None, samples: vec![] }));
        }
        let constant = arguments.exprs.get(1).and_then(|expression| expression.downcast_ref::<Literal>());
        match constant.and_then(|constant| Decay::of(constant.value())) {
            Some(decay) => Ok(Box::new(Samples { decay: Some(decay), samples: vec![] })),
            None => plan_err!("{DECAY}"),
        }
    }

    fn state_fields(&self, arguments: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new(format!("{}[samples]", arguments.name), DataType::Binary, true))])
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

/// What was seen, in any order; times only where they matter.
#[derive(Debug)]
struct Samples {
    /// Of `ewma`; `mad` without.
    decay: Option<Decay>,
    samples: Vec<Sample>,
}

impl Samples {
    fn of(&self, values: &[ArrayRef]) -> Vec<Sample> {
        let numbers = values[0].as_primitive::<Float64Type>();
        if self.decay.is_none() {
            return numbers.iter().flatten().map(|value| (0, key(value))).collect();
        }
        let times = values[2].as_primitive::<TimestampMicrosecondType>();
        let seen = |row: &usize| numbers.is_valid(*row) && times.is_valid(*row);
        (0..numbers.len()).filter(seen).map(|row| (times.value(row), key(numbers.value(row)))).collect()
    }
}

impl Accumulator for Samples {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let seen = self.of(values);
        self.samples.extend(seen);
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let mut gone: HashMap<Sample, usize> = HashMap::new();
        for sample in self.of(values) {
            *gone.entry(sample).or_default() += 1;
        }
        self.samples.retain(|sample| match gone.get_mut(sample) {
            Some(count @ 1..) => {
                *count -= 1;
                false
            }
            _ => true,
        });
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        // After a frame has moved most of them still are in order.
        self.samples.sort();
        Ok(ScalarValue::Float64(match self.decay {
            Some(decay) => smoothed(&self.samples, decay),
            None => deviation(&self.samples.iter().map(|(_, value)| *value).collect::<Vec<_>>()),
        }))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.samples.capacity() * SAMPLE_BYTES
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(state_of(&self.samples))
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        merge(&mut self.samples, states)
    }
}
