//! Samples (time, bits of a value) as the state of an aggregate that needs all of them, in order.

use arrow::array::{ArrayRef, AsArray};
use datafusion::common::{DataFusionError, Result, ScalarValue};

use crate::robust::Sample;

/// Bytes of a sample in a state.
pub const SAMPLE_BYTES: usize = 16;

/// The state: sixteen bytes for each.
pub fn state_of(samples: &[Sample]) -> Vec<ScalarValue> {
    let bytes = samples.iter().flat_map(|(ts, value)| [ts.to_le_bytes(), value.to_le_bytes()].concat());
    vec![ScalarValue::Binary(Some(bytes.collect()))]
}

/// Adds what other states hold.
///
/// # Errors
/// A state that is no whole number of samples.
pub fn merge(samples: &mut Vec<Sample>, states: &[ArrayRef]) -> Result<()> {
    let damaged = || DataFusionError::Internal("damaged state of samples".to_string());
    for bytes in states[0].as_binary::<i32>().iter().flatten() {
        for sample in bytes.chunks(SAMPLE_BYTES) {
            let (ts, value) = sample.split_at_checked(8).ok_or_else(damaged)?;
            let number = |bytes: &[u8]| bytes.try_into().map(i64::from_le_bytes).map_err(|_| damaged());
            samples.push((number(ts)?, number(value)?));
        }
    }
    Ok(())
}
