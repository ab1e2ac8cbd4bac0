//! `ratio(a, b)`: a division that can't fail.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array};
use arrow::datatypes::{DataType, Float64Type};
use datafusion::common::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

/// `ratio(a, b)` as a DataFusion function.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Ratio {
    signature: Signature,
}

/// `ratio(a, b)`: `a / b` as Float64, NULL where `b` is zero or either is NULL. A plain `/` by an integer zero is an
/// error, and one GPU whose limit reads zero would silence the rule for the whole fleet.
pub fn ratio() -> ScalarUDF {
    let signature = Signature::exact(vec![DataType::Float64, DataType::Float64], Volatility::Immutable);
    ScalarUDF::new_from_impl(Ratio { signature })
}

impl ScalarUDFImpl for Ratio {
    fn name(&self) -> &str {
        "ratio"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = ColumnarValue::values_to_arrays(&arguments.args)?;
        let pairs = columns[0].as_primitive::<Float64Type>().iter().zip(columns[1].as_primitive::<Float64Type>());
        let quotients: Float64Array = pairs
            .map(|(dividend, divisor)| match (dividend, divisor) {
                (Some(dividend), Some(divisor)) if divisor != 0.0 => Some(dividend / divisor),
                _ => None,
            })
            .collect();
        Ok(ColumnarValue::Array(Arc::new(quotients) as ArrayRef))
    }
}
