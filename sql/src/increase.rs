//! `increase(counter, ts)`: by how much a counter grew, over its resets.
//!
//! Between two neighbours in time the growth is their difference, or the later value where that is smaller: the counter
//! began anew at zero. This is Prometheus' rule for resets, without its extrapolation to the window's ends: the result is
//! what was counted between the first and the last row, and an integer counter stays an integer.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType};
use datafusion::common::{DataFusionError, Result, ScalarValue, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};

/// The name in SQL. In a rule `ts` may be left out.
pub const INCREASE: &str = "increase";

/// `increase(counter, ts)` as a DataFusion aggregate: Int64 for integers, else Float64; NULL below two values.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Increase {
    signature: Signature,
}

/// The aggregate, to be registered.
pub fn increase() -> AggregateUDF {
    AggregateUDF::new_from_impl(Increase { signature: Signature::user_defined(Volatility::Immutable) })
}

impl AggregateUDFImpl for Increase {
    fn name(&self) -> &str {
        INCREASE
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        match arguments {
            [counter, DataType::Timestamp(_, _)] if counter.is_integer() => Ok(vec![DataType::Int64, time]),
            [counter, DataType::Timestamp(_, _)] if counter.is_numeric() || counter.is_null() => {
                Ok(vec![DataType::Float64, time])
            }
            _ => plan_err!("increase expects a counter and a time: increase(oom_kills_total, ts)"),
        }
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(arguments[0].clone())
    }

    fn accumulator(&self, arguments: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let integer = *arguments.return_field.data_type() == DataType::Int64;
        Ok(Box::new(Counter { integer, samples: vec![] }))
    }

    fn state_fields(&self, arguments: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new(format!("{}[samples]", arguments.name), DataType::Binary, true))])
    }
}

/// What was seen of a counter, in any order; integers as they are, floats as their bits.
#[derive(Debug)]
struct Counter {
    integer: bool,
    samples: Vec<(i64, i64)>,
}

/// Bytes of a sample in a state.
const SAMPLE_BYTES: usize = 16;

impl Accumulator for Counter {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let times = values[1].as_primitive::<TimestampMicrosecondType>();
        let seen = |row: usize| values[0].is_valid(row) && times.is_valid(row);
        if self.integer {
            let counts = values[0].as_primitive::<Int64Type>();
            self.samples
                .extend((0..counts.len()).filter(|row| seen(*row)).map(|row| (times.value(row), counts.value(row))));
        } else {
            let counts = values[0].as_primitive::<Float64Type>();
            let bits = |row: usize| counts.value(row).to_bits() as i64;
            self.samples.extend((0..counts.len()).filter(|row| seen(*row)).map(|row| (times.value(row), bits(row))));
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.samples.sort_unstable();
        let pairs = self.samples.windows(2).map(|pair| (pair[0].1, pair[1].1));
        let enough = self.samples.len() > 1;
        if self.integer {
            let growth =
                |(before, after): (i64, i64)| if after < before { after } else { after.saturating_sub(before) };
            let sum = pairs.map(growth).fold(0, i64::saturating_add);
            return Ok(ScalarValue::Int64(enough.then_some(sum)));
        }
        let float = |bits: i64| f64::from_bits(bits as u64);
        let growth = |(before, after): (i64, i64)| match (float(before), float(after)) {
            (before, after) if after < before => after,
            (before, after) => after - before,
        };
        let sum = pairs.map(growth).sum();
        Ok(ScalarValue::Float64(enough.then_some(sum)))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.samples.capacity() * SAMPLE_BYTES
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let bytes = self.samples.iter().flat_map(|(ts, value)| [ts.to_le_bytes(), value.to_le_bytes()].concat());
        Ok(vec![ScalarValue::Binary(Some(bytes.collect()))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let damaged = || DataFusionError::Internal("damaged state of increase".to_string());
        for bytes in states[0].as_binary::<i32>().iter().flatten() {
            for sample in bytes.chunks(SAMPLE_BYTES) {
                let (ts, value) = sample.split_at_checked(8).ok_or_else(damaged)?;
                let number = |bytes: &[u8]| bytes.try_into().map(i64::from_le_bytes).map_err(|_| damaged());
                self.samples.push((number(ts)?, number(value)?));
            }
        }
        Ok(())
    }
}
