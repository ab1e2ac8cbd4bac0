//! The journey of a row: log -> rules -> Parquet, as `tidewatch up` runs it, beside the bare cost of reading the same log
//! and decoding Arrow, and of sorting the same rows and writing them into one Parquet file.
//!
//! `cargo build --release && cargo run --release -p tidewatch-benches --bin journey -- [GPUS] [DURATION]`

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Stdio};

use arrow::array::RecordBatch;
use tidewatch_benches::{TOPICS, cost_of, measure, print_line, print_machine, program, write_sorted};
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

/// So many rules over one minute every ten seconds, by GPU: ten functions of ten columns; none fires.
fn rules() -> String {
    let columns = [
        "utilization_ratio",
        "memory_controller_ratio",
        "memory_used_bytes",
        "temperature_celsius",
        "memory_temperature_celsius",
        "power_watts",
        "fan_ratio",
        "energy_joules_total",
        "sm_clock_mhz",
        "memory_clock_mhz",
    ];
    let functions = ["avg", "sum", "min", "max", "count", "stddev", "var_pop", "stddev_pop", "var_samp", "increase"];
    let one = |column: &str, function: &str| {
        let call = format!("{function}(CAST({column} AS DOUBLE))");
        format!(
            "CREATE ALERT {function}_{column} AS SELECT host, gpu_uuid, {call} AS a FROM HOP(gpu, ts, '10s', '1m')
             GROUP BY host, gpu_uuid HAVING {call} < -1e18;"
        )
    };
    columns.iter().flat_map(|column| functions.iter().map(move |function| one(column, function))).collect()
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
    let path = folder.path().join("bare.parquet");
    let (bare, ()) = measure(|| write_sorted(read(&log, true).1, &path)).unwrap();
    print_line("read, decode, sort, one Parquet file", rows, bare, bare);
    std::fs::create_dir(folder.path().join("none")).unwrap();
    let none = folder.path().join("none").display().to_string();
    let seconds = up(&data, &["--no-bundled-rules", "--rules", &none], rows);
    print_line("up without rules: log -> Parquet", rows, seconds, bare);
    let seconds = up(&data, &[], rows);
    print_line("up with the bundled rules", rows, seconds, bare);
    let hundred = folder.path().join("hundred.sql");
    std::fs::write(&hundred, rules()).unwrap();
    let seconds = up(&data, &["--no-bundled-rules", "--rules", &hundred.display().to_string()], rows);
    print_line("up with 100 rules", rows, seconds, bare);
}
