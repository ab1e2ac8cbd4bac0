//! The history of a fleet: what a row costs to write and to keep, and what five questions cost, beside DuckDB over the same files.
//!
//! `cargo build --release --workspace && target/release/lake [GPUS [DURATION [low|high [WINDOW]]]]`

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{Array, RecordBatch};
use tidewatch_benches::{Running, cpu_seconds, measure_thread, print_line, print_machine, program, write_sorted};
use tidewatch_collect::simulate::{Fleet, FleetOptions, Noise};
use tidewatch_lake::{
    Counts, Janitor, JanitorOptions, KeptRows, LakeOptions, LakeWriter, LocalStore, Progress, SettleOptions, Settler,
    ls,
};
use tidewatch_model::limits::SETTLED_WINDOW;
use tidewatch_model::scripted::SeededRandom;
use tidewatch_model::{Span, Timestamp};
use tidewatch_tests::peers::python;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const START: &str = "2026-03-02T00:00:00Z";
/// What `up` takes by default.
const FLUSH: Span = Span::seconds(15);

fn main() {
    let mut arguments = std::env::args().skip(1);
    let gpus: usize = arguments.next().map_or(1_000, |text| text.parse().unwrap());
    let duration: Span = arguments.next().map_or(Span::hours(24), |text| text.parse().unwrap());
    let noise = if arguments.next().as_deref() == Some("high") { Noise::High } else { Noise::Low };
    let window: Span = arguments.next().map_or(LakeOptions::default().window, |text| text.parse().unwrap());
    print_machine();
    println!("{gpus} GPUs for {duration} at 1 s, noise {noise:?}, windows of {window}");
    let folder =
        tempfile::tempdir_in(std::env::var("TIDEWATCH_BENCH_DIR").unwrap_or_else(|_| ".".to_string())).unwrap();
    let (settled, minutes) = (folder.path().join("settled"), folder.path().join("minutes"));
    write(&settled, gpus, duration, noise, window);
    // A lake whose windows are never settled is what one has who writes a file a minute.
    write_minutes(&settled, &minutes);
    ask(&settled, &minutes);
}

/// Fills a lake, and prints what that cost beside one sorted file every five minutes.
fn write(root: &Path, gpus: usize, duration: Span, noise: Noise, window: Span) {
    let start: Timestamp = START.parse().unwrap();
    let options = FleetOptions {
        gpus,
        gpus_per_host: 8,
        interval: Span::seconds(1),
        duration,
        start,
        seed: 1,
        noise,
        incidents: Some(vec![]),
    };
    let mut fleet = Fleet::new(options).unwrap();
    let store = Arc::new(LocalStore::open(root).unwrap());
    let kept = Some(KeptRows::default());
    let lake = LakeOptions { window, flush_interval: FLUSH, ..LakeOptions::default() };
    let mut writer = LakeWriter::new(store.clone(), Arc::new(SeededRandom::new(1)), lake).with_kept(kept.clone());
    let mut settler = Settler::new(store.clone(), SettleOptions::default()).with_kept(kept);
    let mut janitor = Janitor::new(store.clone(), JanitorOptions::default());
    let (mut hot, mut settle, mut bare, mut rows, mut samples) = (0.0, 0.0, 0.0, 0, 0);
    let (mut offset, mut waiting, mut bare_rows) = (0, Vec::new(), 0);
    let file = root.join("bare.parquet");
    while let Some(tick) = fleet.next_tick() {
        let now = tick.ts;
        for (table, batch) in tick.batches.iter().filter(|(table, _)| *table == "gpu") {
            rows += batch.num_rows() as u64;
            samples += samples_of(batch);
            offset += 1;
            hot += measure_thread(|| {
                writer.rows("tidewatch.gpu", 0, table, batch).unwrap();
                let counts = Counts { records: 1, ..Counts::default() };
                let progress = Progress { next: offset, counts, sources: vec![] };
                writer.advance("tidewatch.gpu", 0, &progress, now).unwrap();
                if writer.due(now) {
                    writer.flush(now).unwrap();
                }
            })
            .unwrap()
            .0;
            // The peer writes the first hour: enough to compare.
            if now - start < Span::hours(1) {
                waiting.push(batch.clone());
            }
        }
        if (now + Span::seconds(1)).floor(SETTLED_WINDOW) == now + Span::seconds(1) {
            let round = measure_thread(|| {
                settler.run(now, false).unwrap();
                janitor.run(now).unwrap()
            });
            settle += round.unwrap().0;
            if !waiting.is_empty() {
                bare_rows += waiting.iter().map(RecordBatch::num_rows).sum::<usize>() as u64;
                bare += measure_thread(|| write_sorted(std::mem::take(&mut waiting), &file)).unwrap().0;
            }
        }
    }
    hot += measure_thread(|| writer.flush(start + duration).unwrap()).unwrap().0;
    settle += measure_thread(|| settler.run(start + duration, true).unwrap()).unwrap().0;
    drop(std::fs::remove_file(file));
    let bytes: u64 = ls(store.as_ref(), None, None, None, false).unwrap().iter().map(|file| file.bytes).sum();
    let per_row = bare / bare_rows.max(1) as f64 * rows as f64;
    print_line("  sorted, one bare Parquet file every five minutes", bare_rows, bare, bare);
    print_line("  the lake: hot, settled and public", rows, hot + settle, per_row);
    println!(
        "  of which hot {hot:.2} s, settled, made public and cleaned {settle:.2} s; {:.2} bytes a row, {:.3} bytes a sample ({:.1} samples a row)",
        bytes as f64 / rows as f64,
        bytes as f64 / samples as f64,
        samples as f64 / rows as f64
    );
}

/// Values that are there, without the columns that say whose they are and when.
fn samples_of(batch: &RecordBatch) -> u64 {
    let schema = batch.schema();
    let is_value = |name: &str| {
        !["ts", "host", "gpu_uuid", "mig_uuid", "gpu_index", "gpu_model", "pci_bus_id", "job"].contains(&name)
    };
    let columns = schema.fields().iter().zip(batch.columns()).filter(|(field, _)| is_value(field.name()));
    columns.map(|(_, column)| (column.len() - column.null_count()) as u64).sum()
}

/// The same rows in one file a minute, unsorted between minutes, as they lie before they are settled.
fn write_minutes(settled: &Path, minutes: &Path) {
    std::fs::create_dir_all(minutes).unwrap();
    let python = python("duckdb").unwrap();
    let copy = format!(
        "import duckdb\nduckdb.execute(\"SET threads=2; SET memory_limit='6GB'; SET preserve_insertion_order=false\")\nfor hour in range(24):\n  duckdb.execute(f\"\"\"COPY (SELECT *, date_trunc('minute', ts) AS minute FROM read_parquet('{}/lake/gpu/*/*.parquet') WHERE ts >= TIMESTAMPTZ '2026-03-02 00:00:00+00' + INTERVAL ({{hour}}) HOUR AND ts < TIMESTAMPTZ '2026-03-02 00:00:00+00' + INTERVAL ({{hour}} + 1) HOUR) TO '{}' (FORMAT parquet, COMPRESSION zstd, PARTITION_BY (minute), OVERWRITE_OR_IGNORE, FILENAME_PATTERN 'm{{{{i}}}}h{{hour}}')\"\"\")",
        settled.display(),
        minutes.display()
    );
    assert!(Command::new(python).args(["-c", &copy]).stdout(Stdio::null()).status().unwrap().success());
}

/// What a process takes until its end: CPU seconds, wall seconds, and what it printed.
fn cost(mut command: Command) -> (f64, f64, String) {
    let begun = Instant::now();
    let out = tempfile::NamedTempFile::new().unwrap();
    let child = command.stdout(out.reopen().unwrap()).spawn().unwrap();
    let mut running = Running(child);
    let state = format!("/proc/{}/stat", running.0.id());
    while !std::fs::read_to_string(&state).unwrap().contains(") Z ") {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let (seconds, wall) = (cpu_seconds(running.0.id()).unwrap(), begun.elapsed().as_secs_f64());
    assert!(running.0.wait().unwrap().success());
    (seconds, wall, std::fs::read_to_string(out.path()).unwrap())
}

/// Name, question; `FROM` takes the place of the table.
const QUESTIONS: [(&str, &str); 5] = [
    (
        "p99 temperature per host and hour",
        "SELECT count(*), round(sum(p99)) FROM (SELECT host, date_trunc('hour', ts) AS hour, approx_percentile_cont(temperature_celsius, 0.99) AS p99 FROM gpu GROUP BY 1, 2)",
    ),
    (
        "ten hottest GPUs of the day",
        "SELECT count(*), round(sum(hottest), 3) FROM (SELECT gpu_uuid, max(temperature_celsius) AS hottest FROM gpu GROUP BY gpu_uuid ORDER BY hottest DESC LIMIT 10)",
    ),
    (
        "one GPU, one hour",
        "SELECT count(*), round(avg(power_watts), 3) FROM gpu WHERE gpu_uuid = 'GPU' AND ts >= '2026-03-02T05:00:00Z' AND ts < '2026-03-02T06:00:00Z'",
    ),
    (
        "corr(power, utilisation) per GPU",
        "SELECT count(*), round(sum(c), 3) FROM (SELECT gpu_uuid, corr(power_watts, utilization_ratio) AS c FROM gpu GROUP BY gpu_uuid)",
    ),
    (
        "hourly rollup of the fleet",
        "SELECT count(*), round(sum(a), 1), round(sum(m), 1) FROM (SELECT host, date_trunc('hour', ts) AS hour, avg(power_watts) AS a, max(temperature_celsius) AS m FROM gpu GROUP BY 1, 2)",
    ),
];

fn ask(settled: &Path, minutes: &Path) {
    let python = python("duckdb").unwrap();
    let files = format!("read_parquet('{}/lake/gpu/*/*.parquet')", settled.display());
    let one = format!("import duckdb\nprint(duckdb.execute(\"SELECT min(gpu_uuid) FROM {files}\").fetchone()[0])");
    let gpu = String::from_utf8(Command::new(&python).args(["-c", &one]).output().unwrap().stdout).unwrap();
    println!(
        "{:<36} {:>16} {:>16} {:>7} {:>16} {:>16}",
        "CPU s (wall s)", "DuckDB", "query", "ratio", "DuckDB, minutes", "answers"
    );
    let by_minute = format!("read_parquet('{}/**/*.parquet')", minutes.display());
    for (name, question) in QUESTIONS {
        let question = question.replace("'GPU'", &format!("'{}'", gpu.trim()));
        let duckdb = |files: &str| {
            let sql = question.replace("FROM gpu", &format!("FROM {files}"));
            let sql = sql.replace(
                "approx_percentile_cont(temperature_celsius, 0.99)",
                "approx_quantile(temperature_celsius, 0.99)",
            );
            let ask = "import duckdb, sys\nduckdb.execute(\"SET threads=2; SET enable_progress_bar=false; SET TimeZone='UTC'\")\nprint(*duckdb.execute(sys.argv[1]).fetchone(), sep=',')";
            let mut command = Command::new(&python);
            command.args(["-c", ask, &sql]);
            cost(command)
        };
        let best = |ask: &dyn Fn() -> (f64, f64, String)| {
            (0..3).map(|_| ask()).min_by(|one, other| one.0.total_cmp(&other.0)).unwrap()
        };
        let theirs = best(&|| duckdb(&files));
        let ours = best(&|| {
            let mut command = Command::new(program());
            command.arg("--data").arg(settled).args(["query", &question, "--format", "csv"]).env("RUST_BACKTRACE", "0");
            cost(command)
        });
        let small = duckdb(&by_minute);
        let figure = |(cpu, wall, _): &(f64, f64, String)| format!("{cpu:.2} ({wall:.2})");
        let answers = (ours.2.lines().nth(1).unwrap_or_default(), theirs.2.trim());
        println!(
            "{name:<36} {:>16} {:>16} {:>7.2} {:>16} {:>16}",
            figure(&theirs),
            figure(&ours),
            ours.0 / theirs.0,
            figure(&small),
            if answers.0 == answers.1 { "equal".to_string() } else { format!("{} / {}", answers.0, answers.1) }
        );
    }
}
