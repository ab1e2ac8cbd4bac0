//! `tidewatch`: the one program of the engine's side. This crate chooses and wires the parts; what they do stands in
//! theirs.

// A command's work is to print; its library crates may not.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod alert_rows;
mod alerting_file;
mod answer_file;
mod api;
mod cleaning;
mod client;
mod command;
mod config;
mod dimension_files;
mod failure;
mod feeds;
mod fresh;
mod group;
mod heartbeat;
#[cfg(test)]
mod history_tests;
mod input;
mod input_rows;
mod judge;
mod lake_access;
mod log_choice;
mod mapping;
mod output;
mod postgres;
mod progress;
mod randomness;
mod repair;
mod rule_files;
mod rule_test;
mod rule_watch;
mod said;
mod screen;
mod self_metrics;
mod sql_worker;
mod sql_workers;
mod station;
mod stream_rows;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::Config;
use crate::failure::Failure;

/// Batches of a few rows have thousands of small arrays, which live until their windows close: the system's allocator takes a third
/// of an engine's time for them (benches/README.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Watches AI infrastructure: alert rules in SQL over sliding windows, and an open history in Parquet.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Examples:\n  tidewatch up\n  tidewatch query \"SELECT * FROM alert_event ORDER BY ts\"\n  tidewatch check rules/ && tidewatch test rules/\n  tidewatch simulate --gpus 64 --duration 1h --out fleet.parquet\n  tidewatch backtest --input gpu=fleet.parquet --input gpu_event=fleet.gpu_event.parquet\n\nEnvironment: TIDEWATCH_SECTION__KEY sets a key of the configuration, TIDEWATCH_CONFIG names its file.\nExit codes: 0 done, 1 the answer is no, 2 it can't be asked like this."
)]
struct Cli {
    /// The configuration file; tidewatch.toml in the current folder when it is there.
    #[arg(long, global = true, env = "TIDEWATCH_CONFIG")]
    config: Option<PathBuf>,
    /// The data folder: log, lake and state.
    #[arg(long, global = true)]
    data: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything on this machine: collect, judge, tell, store.
    Up(command::up::Args),
    /// Judge, tell and store what agents write into Kafka.
    Engine(command::up::Args),
    /// Check rules: errors, warnings and what was assumed, with file, line and column.
    Check(command::check::Args),
    /// Explain how rules are evaluated: what they share, and what that costs.
    Explain(command::explain::Args),
    /// Run the unit tests of rules.
    Test(command::test::Args),
    /// Run rules over rows from files and print every change of an alert.
    Backtest(command::backtest::Args),
    /// Ask the history in SQL.
    Query(command::query::Args),
    /// Print the tables that can be asked and collected.
    Tables(command::tables::Args),
    /// List rules, add and drop them, suspend and resume them, while 'up' runs.
    Rules(command::rules::Args),
    /// Look at what could not be read, and try it again.
    #[command(subcommand)]
    Dlq(command::dlq::Command),
    /// Alerts that fire in a running Tidewatch.
    Alerts(command::alerts::Args),
    /// Show what receivers would get; nothing is sent.
    Render(command::render::Args),
    /// Silences of a running Tidewatch.
    #[command(subcommand)]
    Silence(command::silence::Command),
    /// Look at the files of the history.
    #[command(subcommand)]
    Lake(command::lake::Command),
    /// Make rows of a synthetic GPU fleet with known incidents.
    Simulate(command::simulate::Args),
    /// Serve the history over PostgreSQL's wire protocol.
    ServeSql(command::serve_sql::Args),
    /// Print the configuration in force, and check the files that it names.
    Config,
    /// Answer questions on standard input, for a process that may end this one.
    #[command(hide = true)]
    SqlWorker(command::sql_worker::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                // Whoever reads it may have gone.
                drop(writeln!(std::io::stderr(), "error: {failure}"));
            }
            ExitCode::from(failure.code)
        }
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    match &cli.command {
        Command::Check(args) => return command::check::run(args),
        Command::Explain(args) => return command::explain::run(args),
        Command::Test(args) => return command::test::run(args),
        Command::Backtest(args) => return command::backtest::run(args),
        Command::Tables(args) => return command::tables::run(args),
        Command::Alerts(args) => return command::alerts::run(args, || configuration(&cli)),
        Command::Render(args) => return command::render::run(args),
        Command::Silence(command) => return command::silence::run(command, || configuration(&cli)),
        Command::SqlWorker(args) => return command::sql_worker::run(args, cli.data.clone()),
        Command::Simulate(args) => return command::simulate::run(args, cli.data.as_deref()),
        Command::Up(_)
        | Command::Engine(_)
        | Command::Query(_)
        | Command::ServeSql(_)
        | Command::Rules(_)
        | Command::Dlq(_)
        | Command::Lake(_)
        | Command::Config => {}
    }
    let mut config = configuration(&cli)?;
    match &cli.command {
        Command::Up(args) => {
            command::up::configure(args, &mut config)?;
            command::up::run(args, &config)
        }
        Command::Engine(args) => {
            command::up::configure(args, &mut config)?;
            command::up::run_engine(args, config)
        }
        Command::Query(args) => command::query::run(args, &config),
        Command::ServeSql(args) => command::serve_sql::run(args, &config),
        Command::Rules(args) => command::rules::run(args, config),
        Command::Dlq(command) => command::dlq::run(command, config),
        Command::Lake(command) => command::lake::run(command, &config),
        _ => command::config::run(&config),
    }
}

/// File, then environment, then flags.
fn configuration(cli: &Cli) -> Result<Config, Failure> {
    let default = PathBuf::from("tidewatch.toml");
    let file = cli.config.clone().or_else(|| default.exists().then_some(default));
    let mut config = config::load(file.as_deref(), std::env::vars()).map_err(|faults| {
        let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
        Failure::usage(format!("the configuration has {} faults:\n{}", lines.len(), lines.join("\n")))
    })?;
    if let Some(data) = &cli.data {
        config.data_dir = data.clone();
    }
    Ok(config)
}
