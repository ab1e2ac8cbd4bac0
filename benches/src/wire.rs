//! Encoding and decoding of frames, beside Arrow's own IPC stream without headers, checksum and guard.
//!
//! `cargo run --release -p tidewatch-benches --bin wire`

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::buffer::Buffer;
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::writer::StreamWriter;
use tidewatch_benches::{measure, print_line, print_machine};
use tidewatch_model::wire::{Origin, decode, encode};

/// Rows of eight GPUs, thirty columns of figures: what one machine sends per second.
fn frame_of(rows: usize) -> RecordBatch {
    let ts = TimestampMicrosecondArray::from_iter_values((0..rows as i64).map(|row| 1_767_225_600_000_000 + row));
    let name = |prefix: &str| {
        Arc::new(StringArray::from_iter_values((0..rows).map(|row| format!("{prefix}{row}")))) as ArrayRef
    };
    let mut columns = vec![
        ("ts".to_string(), Arc::new(ts.with_timezone("UTC")) as ArrayRef),
        ("host".to_string(), Arc::new(StringArray::from(vec!["node-1"; rows])) as ArrayRef),
        ("gpu_uuid".to_string(), name("GPU-00000000-0000-0000-0000-00000000000")),
    ];
    for column in 0..30 {
        let values = Float64Array::from_iter_values((0..rows).map(|row| (row * 7 + column) as f64 / 3.0));
        columns.push((format!("value_{column}"), Arc::new(values)));
    }
    RecordBatch::try_from_iter(columns).unwrap()
}

fn main() {
    print_machine();
    let origin = Origin { source: "node-1".to_string(), incarnation: "a".to_string(), seq: 0 };
    for rows in [8, 64, 1_024] {
        let batch = frame_of(rows);
        let repeats = 8_000_000 / rows.max(32);
        let total = (repeats * rows) as u64;
        let bare_encode = || {
            let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
            writer.write(&batch).unwrap();
            writer.into_inner().unwrap()
        };
        let payload = bare_encode();
        let bare_decode = || {
            let mut decoder = StreamDecoder::new();
            decoder.decode(&mut Buffer::from(payload.as_slice())).unwrap().unwrap()
        };
        let record = encode("gpu", &origin, &batch).unwrap();
        let repeat = |work: &dyn Fn() -> usize| measure(|| (0..repeats).map(|_| work()).sum::<usize>()).unwrap();
        println!("{rows} rows a frame, {} columns, {} bytes", batch.num_columns(), payload.len());
        let (bare, _) = repeat(&|| bare_encode().len());
        print_line("  arrow's stream writer", total, bare, bare);
        let (seconds, _) = repeat(&|| encode("gpu", &origin, &batch).unwrap().headers.len());
        print_line("  encode", total, seconds, bare);
        let (bare, _) = repeat(&|| bare_decode().num_rows());
        print_line("  arrow's stream decoder", total, bare, bare);
        let (seconds, _) = repeat(&|| decode(&record).unwrap().1.num_rows());
        print_line("  decode", total, seconds, bare);
    }
}
