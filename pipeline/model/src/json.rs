//! Rows as lines of JSON, as everybody who prints or sends them writes them.

use std::io::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrowPrimitiveType, AsArray, PrimitiveArray};
use arrow::datatypes::{DataType, FieldRef, Float32Type, Float64Type};
use arrow::error::ArrowError;
use arrow::json::writer::{LineDelimited, NullableEncoder};
use arrow::json::{Encoder, EncoderFactory, EncoderOptions, Writer, WriterBuilder};
use serde::Serialize;

/// Writes batches as one object a line. JSON has no number that is none: such a value is the text `"NaN"`, `"Infinity"` or
/// `"-Infinity"`, as PostgreSQL's `row_to_json` and protobuf's JSON have it, and as rows that are posted may have it.
///
/// With `nulls` a column without a value is `null`; else it is left out.
///
/// ```
/// use std::sync::Arc;
/// use arrow::array::{ArrayRef, Float64Array, RecordBatch};
/// let loss: ArrayRef = Arc::new(Float64Array::from(vec![Some(0.5), Some(f64::NAN), None]));
/// let mut lines = Vec::new();
/// let mut writer = tidewatch_model::json::lines(&mut lines, true);
/// writer.write(&RecordBatch::try_from_iter([("loss", loss)]).unwrap()).unwrap();
/// writer.finish().unwrap();
/// drop(writer);
/// assert_eq!(lines, b"{\"loss\":0.5}\n{\"loss\":\"NaN\"}\n{\"loss\":null}\n");
/// ```
pub fn lines<W: Write>(out: W, nulls: bool) -> Writer<W, LineDelimited> {
    WriterBuilder::new().with_explicit_nulls(nulls).with_encoder_factory(Arc::new(NoNumbers)).build(out)
}

/// Makes encoders of columns in which a value is no number; arrow's own are taken for all others.
#[derive(Debug)]
struct NoNumbers;

impl EncoderFactory for NoNumbers {
    fn make_default_encoder<'a>(
        &self,
        _: &'a FieldRef,
        array: &'a dyn Array,
        _: &'a EncoderOptions,
    ) -> Result<Option<NullableEncoder<'a>>, ArrowError> {
        let encoder = match array.data_type() {
            DataType::Float64 => odd(array.as_primitive::<Float64Type>()),
            DataType::Float32 => odd(array.as_primitive::<Float32Type>()),
            _ => None,
        };
        Ok(encoder.map(|encoder| NullableEncoder::new(encoder, array.nulls().cloned())))
    }
}

/// An encoder, when a value is no number.
fn odd<T>(values: &PrimitiveArray<T>) -> Option<Box<dyn Encoder + '_>>
where
    T: ArrowPrimitiveType<Native: Into<f64> + Serialize>,
{
    let is_number = |value: &T::Native| -> bool { (*value).into().is_finite() };
    if values.values().iter().all(is_number) { None } else { Some(Box::new(Floats(values))) }
}

/// Values of which some are no numbers.
struct Floats<'a, T: ArrowPrimitiveType>(&'a PrimitiveArray<T>);

impl<T> Encoder for Floats<'_, T>
where
    T: ArrowPrimitiveType<Native: Into<f64> + Serialize>,
{
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        let value = self.0.value(row);
        let text = match value.into() {
            wide if wide.is_nan() => "\"NaN\"".to_string(),
            f64::INFINITY => "\"Infinity\"".to_string(),
            f64::NEG_INFINITY => "\"-Infinity\"".to_string(),
            // A number has a text.
            _ => serde_json::to_string(&value).unwrap_or_default(),
        };
        out.extend_from_slice(text.as_bytes());
    }
}
