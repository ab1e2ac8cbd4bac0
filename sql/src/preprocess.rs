//! Functions that bring one value into bounds or to a scale: `clamp`, `minmax`, `zscore` and `hampel`. Like `ratio`, none of them fails: what
//! has no answer is NULL, so that one odd row takes nothing from the rest of the fleet.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, PrimitiveArray};
use arrow::datatypes::{DataType, Float64Type};
use datafusion::common::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

/// What makes the median absolute deviation of a normal distribution its standard deviation: 1 over the normal quantile of 3/4.
pub const HAMPEL_SCALE: f64 = 1.4826;

/// The filter, by name; with OVER it takes two arguments, see [`crate::calls`].
pub const HAMPEL: &str = "hampel";

/// All of them: name, number of arguments, and the answer for arguments that are not NULL.
type Meaning = fn(&[f64]) -> Option<f64>;
const FUNCTIONS: [(&str, usize, Meaning); 4] =
    [("clamp", 3, clamp), ("minmax", 3, minmax), ("zscore", 3, zscore), (HAMPEL, 4, hampel)];

/// `clamp(x, least, most)`: the nearest value from `least` to `most`; NULL where they are not in this order. NaN stays NaN.
fn clamp(values: &[f64]) -> Option<f64> {
    let (x, least, most) = (values[0], values[1], values[2]);
    if least > most || least.is_nan() || most.is_nan() {
        return None;
    }
    Some(if x < least {
        least
    } else if x > most {
        most
    } else {
        x
    })
}

/// `minmax(x, least, most)`: where x lies between them, 0 at `least` and 1 at `most`, and beyond outside of them; NULL where there is
/// nothing between.
fn minmax(values: &[f64]) -> Option<f64> {
    let (x, least, most) = (values[0], values[1], values[2]);
    (least < most).then(|| (x - least) / (most - least))
}

/// `zscore(x, mean, stddev)`: how many standard deviations x is above the mean; NULL where nothing deviates.
fn zscore(values: &[f64]) -> Option<f64> {
    let (x, mean, deviation) = (values[0], values[1], values[2]);
    (deviation > 0.0).then(|| (x - mean) / deviation)
}

/// `hampel(x, median, mad, n)`: x, or the median where x is further from it than n times 1.4826 MAD (Hampel, 1974). NaN is no
/// measurement: the median stands for it.
fn hampel(values: &[f64]) -> Option<f64> {
    let (x, median, mad, limit) = (values[0], values[1], values[2], values[3]);
    let is_near = (x - median).abs() <= limit * HAMPEL_SCALE * mad;
    Some(if is_near || x == median { x } else { median })
}

/// One of them as a DataFusion function.
#[derive(Debug, PartialEq, Eq, Hash)]
struct OfNumbers {
    /// Its place among [`FUNCTIONS`].
    place: usize,
    signature: Signature,
}

/// The functions, to be registered.
pub fn of_numbers() -> Vec<ScalarUDF> {
    let of = |(place, (_, count, _)): (usize, &(&str, usize, Meaning))| {
        let signature = Signature::exact(vec![DataType::Float64; *count], Volatility::Immutable);
        ScalarUDF::new_from_impl(OfNumbers { place, signature })
    };
    FUNCTIONS.iter().enumerate().map(of).collect()
}

impl ScalarUDFImpl for OfNumbers {
    fn name(&self) -> &str {
        FUNCTIONS[self.place].0
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = ColumnarValue::values_to_arrays(&arguments.args)?;
        let columns: Vec<&PrimitiveArray<Float64Type>> =
            columns.iter().map(|column| column.as_primitive::<Float64Type>()).collect();
        let meaning = FUNCTIONS[self.place].2;
        let mut values = vec![0.0; columns.len()];
        let answers: Float64Array = (0..columns[0].len())
            .map(|row| {
                if columns.iter().any(|column| column.is_null(row)) {
                    return None;
                }
                values.iter_mut().zip(&columns).for_each(|(value, column)| *value = column.value(row));
                meaning(&values)
            })
            .collect();
        Ok(ColumnarValue::Array(Arc::new(answers) as ArrayRef))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_answer_is_null() {
        assert_eq!(clamp(&[5.0, 0.0, 3.0]), Some(3.0));
        assert_eq!(clamp(&[-5.0, 0.0, 3.0]), Some(0.0));
        assert_eq!(clamp(&[1.0, 3.0, 0.0]), None);
        assert!(clamp(&[f64::NAN, 0.0, 3.0]).is_some_and(f64::is_nan));
        assert_eq!(minmax(&[5.0, 0.0, 10.0]), Some(0.5));
        assert_eq!(minmax(&[15.0, 0.0, 10.0]), Some(1.5));
        assert_eq!(minmax(&[5.0, 5.0, 5.0]), None);
        assert_eq!(zscore(&[13.0, 10.0, 1.5]), Some(2.0));
        assert_eq!(zscore(&[13.0, 10.0, 0.0]), None);
    }

    #[test]
    fn an_outlier_is_the_median() {
        // 3 * 1.4826 * 2 = 8.8956
        assert_eq!(hampel(&[58.8, 50.0, 2.0, 3.0]), Some(58.8));
        assert_eq!(hampel(&[58.9, 50.0, 2.0, 3.0]), Some(50.0));
        assert_eq!(hampel(&[50.0, 50.0, 0.0, 3.0]), Some(50.0));
        assert_eq!(hampel(&[50.1, 50.0, 0.0, 3.0]), Some(50.0), "where nothing deviates everything else is an outlier");
        assert_eq!(hampel(&[f64::NAN, 50.0, 2.0, 3.0]), Some(50.0));
    }
}
