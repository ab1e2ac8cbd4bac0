//! The journey of a row: log -> rules -> Parquet, as `tidewatch up` runs it, beside the bare cost of reading the same log
//! and decoding Arrow, and of writing the same rows into one Parquet file.
//!
//! `cargo build --release && cargo run --release -p tidewatch-benches --bin journey -- [GPUS] [DURATION]`

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Stdio};

use arrow::array::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use tidewatch_benches::{TOPICS, cost_of, measure, print_line, print_machine, program};
use tidewatch_log::{LocalLog, LocalLogOptions};
use tidewatch_model::ports::Log;
use tidewatch_model::wire::decode;

/// Reads and decodes everything; the batches of the largest topic are kept when asked for.
fn read(folder: &Path, keep: bool) -> (u64, Vec<RecordBatch>) {
    let log = LocalLog::open(folder, LocalLogOptions::default()).unwrap();
    let (mut rows, mut kept) = (0, Vec::new());
    for topic in TOPICS {
        let mut range = log.range(topic, 0).unwrap();
        while range.start < range.end {
            let read = log.read(topic, 0, range.start, 1 << 20).unwrap();
            for (_, record) in read.records {
                let (header, batch) = decode(&record).unwrap();
                rows += header.rows;
                if keep && topic == TOPICS[0] {
                    kept.push(batch);
                }
            }
            range.start = read.next;
        }
    }
    (rows, kept)
}

fn write(batches: &[RecordBatch], path: &Path) -> u64 {
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
    let file = std::fs::File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batches[0].schema(), Some(properties)).unwrap();
    for batch in batches {
        writer.write(batch).unwrap();
    }
    writer.close().unwrap();
    batches.iter().map(|batch| batch.num_rows() as u64).sum()
}

/// CPU seconds that `up` takes for everything in the log: rows committed, windows closed.
fn up(data: &Path, more: &[&str], rows: u64) -> f64 {
    for left in ["internal", "lake"] {
        drop(std::fs::remove_dir_all(data.join(left)));
    }
    for entry in std::fs::read_dir(data.join("log")).unwrap() {
        let path = entry.unwrap().path();
        if !TOPICS.iter().any(|topic| path.ends_with(topic)) {
            std::fs::remove_dir_all(path).unwrap();
        }
    }
    let mut command = Command::new(program());
    command.args(["up", "--no-collect", "--plain", "--http", "127.0.0.1:0", "--data"]).arg(data).args(more);
    cost_of(command, rows)
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let gpus = arguments.next().unwrap_or_else(|| "256".to_string());
    let duration = arguments.next().unwrap_or_else(|| "30m".to_string());
    print_machine();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let made = Command::new(program())
        .args(["simulate", "--noise", "high", "--gpus", &gpus, "--duration", &duration, "--data"])
        .arg(&data)
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(made.success());
    println!("{gpus} GPUs for {duration} at 1 s");
    let log = data.join("log");
    let (bare, (rows, _)) = measure(|| read(&log, false)).unwrap();
    print_line("read the log, decode Arrow", rows, bare, bare);
    let (_, batches) = read(&log, true);
    let path = folder.path().join("bare.parquet");
    let (seconds, written) = measure(|| write(&batches, &path)).unwrap();
    print_line("write one Parquet file (zstd)", written, seconds, bare);
    drop(batches);
    std::fs::create_dir(folder.path().join("none")).unwrap();
    let none = folder.path().join("none").display().to_string();
    let seconds = up(&data, &["--no-bundled-rules", "--rules", &none], rows);
    print_line("up without rules: log -> Parquet", rows, seconds, bare);
    let seconds = up(&data, &[], rows);
    print_line("up with the bundled rules", rows, seconds, bare);
}
