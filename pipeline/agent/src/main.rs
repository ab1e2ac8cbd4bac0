//! `tidewatch-agent`: collects a machine's metrics into a durable log on its own disk. It links no SQL engine and no web
//! framework, and it never listens.

// A program's work is to print; its library crates may not.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use tidewatch_collect::{Pump, Roots, host_collectors, host_name};
use tidewatch_log::{LocalLog, LocalLogOptions};
use tidewatch_model::limits::{LOG_RETENTION, LOG_RETENTION_BYTES, SYNC_INTERVAL};
use tidewatch_model::ports::{Clock, Log, TopicOptions};
use tidewatch_model::table::TABLES;
use tidewatch_model::time::SystemClock;
use tidewatch_model::{Span, Timestamp};
use tokio::signal::unix::{SignalKind, signal};

/// Collects this machine's metrics into a log on its disk.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Examples:\n  tidewatch-agent --data /var/lib/tidewatch-agent\n  tidewatch-agent --once                    one row per table, and exit\n  tidewatch-agent --once --format json | jq .\n\nStops at SIGINT and SIGTERM with everything synced. Exit codes: 0 done, 1 it failed, 2 it can't be asked like this."
)]
struct Cli {
    /// The folder of the log.
    #[arg(long, default_value = "tidewatch-agent-data", env = "TIDEWATCH_AGENT_DATA")]
    data: PathBuf,
    /// Name of this machine in its rows; by default the kernel's.
    #[arg(long)]
    host: Option<String>,
    /// Root of /proc.
    #[arg(long = "path.procfs", default_value = "/proc")]
    procfs: PathBuf,
    /// Root of /sys.
    #[arg(long = "path.sysfs", default_value = "/sys")]
    sysfs: PathBuf,
    /// Collect twice, a second apart, print what came, and exit.
    #[arg(long)]
    once: bool,
    /// How --once prints.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

/// How rows are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Aligned columns.
    Table,
    /// One JSON object per row.
    Json,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let roots = Roots { proc: cli.procfs.clone(), sys: cli.sysfs.clone() };
    let host = cli.host.clone().or_else(|| host_name(&roots)).unwrap_or_else(|| "localhost".to_string());
    let done = if cli.once { once(&roots, &host, cli.format) } else { run(&cli, &roots, host) };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli, roots: &Roots, host: String) -> Result<(), String> {
    let log = Arc::new(LocalLog::open(&cli.data, LocalLogOptions::default()).map_err(|error| error.to_string())?);
    let options = TopicOptions {
        partitions: 1,
        compacted: false,
        retention: Some(LOG_RETENTION),
        retention_bytes: Some(LOG_RETENTION_BYTES),
    };
    for table in TABLES {
        log.create_topic(&table.topic(), &options).map_err(|error| error.to_string())?;
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    // A start is told from another by its instant: two of one host in one microsecond there are not.
    let incarnation = format!("{:016x}", SystemClock.now().0);
    let mut pump = Pump::new(host_collectors(roots, &host), host, incarnation, log.clone());
    let ended = runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut synced = Timestamp::MIN;
        loop {
            let now = SystemClock.now();
            let next = pump.tick(now);
            if now - synced.max(Timestamp(0)) >= SYNC_INTERVAL {
                synced = now;
                // A disk that says no is said on standard error; the pump counts what the log does not take.
                let kept = log.sync().and_then(|()| log.retain(now));
                kept.map(drop).unwrap_or_else(|error| eprintln!("error: {error}"));
            }
            let wait = (next - SystemClock.now()).to_std().max(Duration::from_millis(1));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = interrupt.recv() => break,
                _ = terminate.recv() => break,
            }
        }
        Ok::<(), std::io::Error>(())
    });
    ended.map_err(|error| error.to_string())?;
    log.sync().map_err(|error| error.to_string())
}

/// Ratios are differences, so everything is read twice.
fn once(roots: &Roots, host: &str, format: Format) -> Result<(), String> {
    let mut collectors = host_collectors(roots, host);
    let first = SystemClock.now();
    for collector in &mut collectors {
        drop(collector.collect(first));
    }
    std::thread::sleep(Span::seconds(1).to_std());
    let now = SystemClock.now();
    for collector in &mut collectors {
        let collected = collector.collect(now);
        for fault in &collected.faults {
            eprintln!("{}: {}: {}", collector.table(), fault.column, fault.reason);
        }
        let Some(batch) = collected.batch else { continue };
        let printed = match format {
            Format::Json => {
                let mut writer = arrow::json::LineDelimitedWriter::new(std::io::stdout().lock());
                writer.write(&batch).and_then(|()| writer.finish())
            }
            Format::Table => arrow::util::pretty::pretty_format_batches(&[batch])
                .map(|text| println!("{}\n{text}", collector.table())),
        };
        printed.map_err(|error| error.to_string())?;
    }
    Ok(())
}
