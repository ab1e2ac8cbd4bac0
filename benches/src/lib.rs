//! What the benchmarks share: CPU time as the kernel counts it, and how a row of a result is printed.
//!
//! CPU seconds, not wall seconds: they say what a fleet pays, and another process on the machine disturbs them less.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use arrow::array::RecordBatch;
use arrow::compute::{SortColumn, concat_batches, lexsort_to_indices, take_record_batch};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// CPU seconds that a process and its threads have used, from `/proc/PID/stat` (proc(5): fields 14 and 15, in ticks of
/// 1/100 s on every Linux that Rust supports).
///
/// # Errors
/// The process is gone, or there is no `/proc`.
pub fn cpu_seconds(pid: u32) -> io::Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name of the program stands in brackets and may hold blanks.
    let fields: Vec<&str> = text.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok());
    match (ticks(11), ticks(12)) {
        (Some(user), Some(system)) => Ok((user + system) / 100.0),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat: {text}"))),
    }
}

/// What a piece of work cost this process, in CPU seconds, and what it returned.
///
/// # Errors
/// As [`cpu_seconds`].
pub fn measure<T>(work: impl FnOnce() -> T) -> io::Result<(f64, T)> {
    let begun = cpu_seconds(std::process::id())?;
    let result = work();
    Ok((cpu_seconds(std::process::id())? - begun, result))
}

/// The same for work of this thread alone, to the nanosecond: `/proc/thread-self/schedstat`, whose first field is the time on
/// a CPU (Documentation/scheduler/sched-stats.rst).
///
/// # Errors
/// The kernel keeps no such figures.
pub fn measure_thread<T>(work: impl FnOnce() -> T) -> io::Result<(f64, T)> {
    let nanoseconds = || -> io::Result<f64> {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
        let first = text.split_whitespace().next().and_then(|field| field.parse().ok());
        first.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, text))
    };
    let begun = nanoseconds()?;
    let result = work();
    Ok(((nanoseconds()? - begun) / 1e9, result))
}

/// Prints the machine, so that a result can be read later.
pub fn print_machine() {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split(": ").nth(1));
    let cores = cpu.lines().filter(|line| line.starts_with("processor")).count();
    println!("machine: {cores} x {}; load {}", model.unwrap_or("CPU of unknown model"), read("/proc/loadavg").trim());
}

/// Prints one line of a result: `rows` in `seconds` of CPU, and how that compares with `bare`.
pub fn print_line(name: &str, rows: u64, seconds: f64, bare: f64) {
    let per_second = rows as f64 / seconds.max(0.01);
    println!("{name:<44} {rows:>10} rows {seconds:>8.2} CPU s {per_second:>12.0} rows/CPU s {:>7.2} x", seconds / bare);
}

/// Topics that `simulate` fills.
pub const TOPICS: [&str; 4] = ["tidewatch.gpu", "tidewatch.gpu_event", "tidewatch.train_step", "tidewatch.job_event"];

/// A process that ends with this value.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended already is fine.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The program, which cargo puts beside the benchmark.
///
/// # Panics
/// The system does not say where this process's file is.
pub fn program() -> PathBuf {
    std::env::current_exe().unwrap().with_file_name("tidewatch")
}

/// CPU seconds that a station's process takes from its start until so many rows were admitted, and on to the end of its clean
/// stop: a stop flushes and settles, which is part of the way.
///
/// # Panics
/// The process does not start, does not answer or does not stop cleanly.
pub fn cost_of(mut command: Command, rows: u64) -> f64 {
    let mut running = Running(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap());
    let child = &mut running.0;
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    let url = said.find_map(|line| line.unwrap().split("http://").nth(1).map(|rest| format!("http://{rest}"))).unwrap();
    // The pipe must not fill up.
    std::thread::spawn(move || said.for_each(drop));
    loop {
        std::thread::sleep(Duration::from_millis(200));
        let text = ureq::get(&url).call().unwrap().body_mut().read_to_string().unwrap();
        let admitted: f64 = text
            .lines()
            .filter(|line| line.starts_with("tidewatch_rows_total"))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum();
        if admitted >= rows as f64 {
            break;
        }
    }
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    // Read after the end: a child that has ended and was not waited for still has its figures.
    let state = format!("/proc/{}/stat", child.id());
    while !std::fs::read_to_string(&state).unwrap().contains(") Z ") {
        std::thread::sleep(Duration::from_millis(50));
    }
    let seconds = cpu_seconds(child.id()).unwrap();
    assert!(child.wait().unwrap().success());
    seconds
}

/// Sorts rows of `gpu` as the lake does, and writes them into one Parquet file: the least that a history costs.
pub fn write_sorted(batches: Vec<RecordBatch>, path: &Path) {
    let whole = concat_batches(&batches[0].schema(), &batches).unwrap();
    drop(batches);
    let columns = ["host", "gpu_uuid", "ts"]
        .map(|name| SortColumn { values: whole.column_by_name(name).unwrap().clone(), options: None });
    let sorted = take_record_batch(&whole, &lexsort_to_indices(&columns, None).unwrap()).unwrap();
    let zstd = Compression::ZSTD(ZstdLevel::try_new(3).unwrap());
    let properties = WriterProperties::builder().set_compression(zstd).build();
    let file = std::fs::File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, sorted.schema(), Some(properties)).unwrap();
    writer.write(&sorted).unwrap();
    writer.close().unwrap();
}
