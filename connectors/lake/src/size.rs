//! How much memory rows hold. Arrow's own figure counts a buffer as often as an array has a part of it, and the arrays of a
//! decoded message are all parts of one: it is too large by as many as the message has columns.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::DataType;

/// Bytes of a batch's values, without what tells which are NULL; maps and lists by Arrow's own count.
pub fn bytes_of(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(|column| bytes_of_column(column.as_ref())).sum()
}

fn bytes_of_column(column: &dyn Array) -> usize {
    let rows = column.len();
    match column.data_type() {
        DataType::Utf8 => {
            let offsets = column.as_string::<i32>().value_offsets();
            let texts = offsets.last().zip(offsets.first()).map_or(0, |(last, first)| (last - first) as usize);
            rows * 4 + texts
        }
        DataType::Boolean => rows.div_ceil(8),
        DataType::Null => 0,
        DataType::Dictionary(keys, _) => rows * keys.primitive_width().unwrap_or(4),
        kind => kind.primitive_width().map_or_else(
            || column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size()),
            |width| rows * width,
        ),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tidewatch_model::wire::{Origin, decode, encode};

    use super::*;
    use crate::tests::batch;

    #[test]
    fn a_message_counts_once() {
        let rows = batch(&(0..1_000).map(|row| (row, row as usize % 7)).collect::<Vec<_>>(), 0);
        let origin = Origin { source: "n1".to_string(), incarnation: "a".to_string(), seq: 1 };
        let record = encode("host", &origin, &rows).unwrap();
        let (_, decoded) = decode(&record).unwrap();
        let (own, message) = (bytes_of(&decoded), record.value.as_ref().map_or(0, Vec::len));
        assert!(own * 10 > message * 8 && own < message * 2, "{own} of {message}");
        assert!(decoded.get_array_memory_size() > 4 * message, "what is counted is no longer too much");
        assert_eq!(bytes_of(&decoded.slice(0, 8)) + bytes_of(&decoded.slice(8, 992)), own);
    }
}
