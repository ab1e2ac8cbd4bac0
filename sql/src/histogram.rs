//! `histogram_quantile(q, upper_bound, count)`: a quantile of a histogram whose buckets are rows, as Prometheus computes it
//! (`bucketQuantile` in its promql package).

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use datafusion::common::{DataFusionError, Result, ScalarValue, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};

/// The aggregate. Counts are cumulative: each bucket counts all observations up to its bound, and that of the bound infinity all of them.
/// Buckets of one bound are added, so that several instances, or the growth of several counters, are one histogram. The answer lies on the line between a
/// bucket's bounds, from nought where the lowest bound is positive; beyond the highest finite bound it is that bound. NULL without observations,
/// without a bucket up to infinity, or with that one alone.
#[derive(Debug, PartialEq, Eq, Hash)]
struct HistogramQuantile(Signature);

/// To be registered.
pub fn histogram_quantile() -> AggregateUDF {
    AggregateUDF::new_from_impl(HistogramQuantile(Signature::user_defined(Volatility::Immutable)))
}

impl AggregateUDFImpl for HistogramQuantile {
    fn name(&self) -> &str {
        "histogram_quantile"
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let is_number = |kind: &DataType| kind.is_numeric() || kind.is_null();
        match arguments {
            [_, _, _] if arguments.iter().all(is_number) => Ok(vec![DataType::Float64; 3]),
            _ => plan_err!("histogram_quantile expects three numbers: histogram_quantile(0.99, upper_bound, count)"),
        }
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn accumulator(&self, _arguments: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Buckets::default()))
    }

    fn state_fields(&self, arguments: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let numbers = |name: &str| {
            let item = Arc::new(Field::new_list_field(DataType::Float64, true));
            Arc::new(Field::new(format!("{}[{name}]", arguments.name), DataType::List(item), true))
        };
        let quantile = Arc::new(Field::new(format!("{}[quantile]", arguments.name), DataType::Float64, true));
        Ok(vec![quantile, numbers("bounds"), numbers("counts")])
    }
}

/// A float as a key in the order of its value (IEEE 754, totalOrder).
#[derive(Debug, Clone, Copy, PartialEq)]
struct Bound(f64);

impl Eq for Bound {}

impl PartialOrd for Bound {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Bound {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

#[derive(Debug, Default)]
struct Buckets {
    quantile: Option<f64>,
    counts: BTreeMap<Bound, f64>,
}

impl Buckets {
    fn add(&mut self, bounds: &Float64Array, counts: &Float64Array) {
        for (bound, count) in bounds.iter().zip(counts.iter()) {
            let (Some(bound), Some(count)) = (bound, count) else { continue };
            if !bound.is_nan() && !count.is_nan() {
                // -0 and 0 are one bound.
                *self.counts.entry(Bound(bound + 0.0)).or_default() += count;
            }
        }
    }

    fn answer(&self) -> Option<f64> {
        let quantile = self.quantile?;
        let (Bound(highest), _) = self.counts.last_key_value()?;
        if *highest != f64::INFINITY || self.counts.len() < 2 || quantile.is_nan() {
            return None;
        }
        // Counters of one histogram are not read in one instant: none is below the one before it.
        let mut most = 0.0_f64;
        let buckets = self.counts.iter().map(|(Bound(bound), count)| {
            most = most.max(*count);
            (*bound, most)
        });
        let buckets: Vec<(f64, f64)> = buckets.collect();
        let all = most;
        if all == 0.0 {
            return None;
        }
        if !(0.0..=1.0).contains(&quantile) {
            return Some(if quantile < 0.0 { f64::NEG_INFINITY } else { f64::INFINITY });
        }
        let finite = &buckets[..buckets.len() - 1];
        let rank = quantile * all;
        let Some(place) = finite.iter().position(|(_, count)| *count >= rank) else {
            return finite.last().map(|(bound, _)| *bound);
        };
        let (end, count) = finite[place];
        if place == 0 && end <= 0.0 {
            return Some(end);
        }
        let (start, before) = if place == 0 { (0.0, 0.0) } else { finite[place - 1] };
        Some(start + (end - start) * ((rank - before) / (count - before)))
    }
}

impl Accumulator for Buckets {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let [quantiles, bounds, counts] = [0, 1, 2].map(|at| values[at].as_primitive::<Float64Type>());
        if let Some(quantile) = quantiles.iter().flatten().next() {
            self.quantile.get_or_insert(quantile);
        }
        self.add(bounds, counts);
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Float64(self.answer()))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.counts.len() * 4 * size_of::<f64>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let list = |numbers: Vec<f64>| {
            let values: Vec<ScalarValue> = numbers.into_iter().map(ScalarValue::from).collect();
            ScalarValue::List(ScalarValue::new_list_nullable(&values, &DataType::Float64))
        };
        let bounds = self.counts.keys().map(|Bound(bound)| *bound).collect();
        let counts = self.counts.values().copied().collect();
        Ok(vec![ScalarValue::Float64(self.quantile), list(bounds), list(counts)])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let damaged = || DataFusionError::Internal("damaged state of a histogram".to_string());
        let quantiles = states[0].as_primitive::<Float64Type>();
        let (bounds, counts) = (states[1].as_list::<i32>(), states[2].as_list::<i32>());
        for row in 0..quantiles.len() {
            if quantiles.is_valid(row) {
                self.quantile.get_or_insert(quantiles.value(row));
            }
            let (bounds, counts) = (bounds.value(row), counts.value(row));
            let bounds = bounds.as_primitive_opt::<Float64Type>().ok_or_else(damaged)?;
            self.add(bounds, counts.as_primitive_opt::<Float64Type>().ok_or_else(damaged)?);
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn quantile(quantile: f64, buckets: &[(f64, f64)]) -> Option<f64> {
        let mut all = Buckets { quantile: Some(quantile), counts: BTreeMap::new() };
        let (bounds, counts): (Vec<f64>, Vec<f64>) = buckets.iter().copied().unzip();
        all.add(&bounds.into(), &counts.into());
        // What comes of two halves is what comes of the whole.
        let mut merged = Buckets::default();
        let state: Vec<ArrayRef> = all.state().unwrap().iter().map(|value| value.to_array().unwrap()).collect();
        merged.merge_batch(&state).unwrap();
        assert_eq!(merged.answer(), all.answer());
        all.answer()
    }

    /// The values of `histogram_quantile` in Prometheus' own tests (promql/promqltest/testdata/histograms.test): buckets of testhistogram.
    #[test]
    fn quantiles_are_those_of_prometheus() {
        let buckets = [(0.1, 50.0), (0.2, 70.0), (1.0, 110.0), (f64::INFINITY, 110.0)];
        assert_eq!(quantile(0.5, &buckets), Some(0.1 + 0.1 * 0.25));
        assert_eq!(quantile(0.0, &buckets), Some(0.0));
        assert_eq!(quantile(1.0, &buckets), Some(1.0));
        assert_eq!(quantile(-0.1, &buckets), Some(f64::NEG_INFINITY));
        assert_eq!(quantile(1.01, &buckets), Some(f64::INFINITY));
        let open = [(0.1, 2.0), (f64::INFINITY, 4.0)];
        assert_eq!(quantile(0.9, &open), Some(0.1), "beyond the highest finite bound");
        let negative = [(-0.2, 1.0), (0.3, 2.0), (f64::INFINITY, 2.0)];
        assert_eq!(quantile(0.4, &negative), Some(-0.2));
        assert_eq!(quantile(0.75, &negative), Some(-0.2 + 0.5 * 0.5));
    }

    #[test]
    fn what_is_no_histogram_has_none() {
        assert_eq!(quantile(0.5, &[(1.0, 5.0)]), None, "no bucket up to infinity");
        assert_eq!(quantile(0.5, &[(f64::INFINITY, 5.0)]), None);
        assert_eq!(quantile(0.5, &[(1.0, 0.0), (f64::INFINITY, 0.0)]), None, "no observations");
        assert_eq!(quantile(0.5, &[]), None);
        // Two instances, and a counter that was read before another.
        let both = [(1.0, 1.0), (1.0, 2.0), (2.0, 2.5), (f64::INFINITY, 3.0)];
        assert_eq!(quantile(0.5, &both), Some(0.5));
    }
}
