//! Rows as lines of JSON, as everybody who prints or sends them writes them.

use std::io::Write;
use std::sync::Arc;

use arrow::array::{Array, AsArray, Float64Array};
use arrow::datatypes::{DataType, FieldRef, Float64Type};
use arrow::error::ArrowError;
use arrow::json::writer::{LineDelimited, NullableEncoder};
use arrow::json::{Encoder, EncoderFactory, EncoderOptions, Writer, WriterBuilder};

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
        if *array.data_type() != DataType::Float64 {
            return Ok(None);
        }
        let values = array.as_primitive::<Float64Type>();
        if values.values().iter().all(|value| value.is_finite()) {
            return Ok(None);
        }
        Ok(Some(NullableEncoder::new(Box::new(Floats(values)), array.nulls().cloned())))
    }
}

/// Values of which some are no numbers.
struct Floats<'a>(&'a Float64Array);

impl Encoder for Floats<'_> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        let text = match self.0.value(row) {
            value if value.is_nan() => "\"NaN\"".to_string(),
            f64::INFINITY => "\"Infinity\"".to_string(),
            f64::NEG_INFINITY => "\"-Infinity\"".to_string(),
            value => serde_json::Value::from(value).to_string(),
        };
        out.extend_from_slice(text.as_bytes());
    }
}
