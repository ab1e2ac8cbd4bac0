//! `tidewatch lake`: the files of the history.

use serde_json::{Map, Value, json};
use tidewatch_lake::{LS_COLUMNS, ls, verify};
use tidewatch_model::time::TimeError;
use tidewatch_model::{Timestamp, table};
use tidewatch_sql::suggestion;

use crate::config::Config;
use crate::failure::Failure;
use crate::lake_access::{open_store, open_store_to_read, place_of};
use crate::log_choice::LogChoice;
use crate::output::{Format, format_or_default, print_objects};
use crate::repair::repair;

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List the files of the history.
    #[command(
        after_help = "Examples:\n  tidewatch lake ls --table gpu\n  tidewatch lake ls --fresh --format csv      the exact list for DuckDB's read_parquet([...]), newest rows included"
    )]
    Ls(LsArgs),
    /// Write damaged and missing hot files anew from the log. What was settled or is public can't be mended so.
    #[command(
        after_help = "Examples:\n  tidewatch lake repair --kafka 127.0.0.1:9092\n  tidewatch lake repair      from the log in the data folder, while no 'up' runs\n\nExit code: 0 when nothing is damaged any more, 1 when something stays so."
    )]
    Repair {
        /// Kafka's brokers, host:port, comma separated, instead of the log in the data folder.
        #[arg(long, value_name = "HOST:PORT")]
        kafka: Option<String>,
        /// How to print.
        #[arg(long, value_enum)]
        format: Option<Format>,
    },
    /// Read everything and check it: chains, counts, claims, hashes, stray files.
    #[command(after_help = "Exit code: 0 when all is well, 1 when there are problems.")]
    Verify {
        /// How to print.
        #[arg(long, value_enum)]
        format: Option<Format>,
    },
}

/// Which files.
#[derive(Debug, clap::Args)]
pub struct LsArgs {
    /// Only this table.
    #[arg(long)]
    table: Option<String>,
    /// Only files with rows at or after this instant, such as 2026-03-02T05:00:00Z or 2026-03-02.
    #[arg(long, value_parser = instant)]
    from: Option<Timestamp>,
    /// Only files with rows before this instant.
    #[arg(long, value_parser = instant)]
    to: Option<Timestamp>,
    /// Committed hot files too, which are not in the public folder yet.
    #[arg(long)]
    fresh: bool,
    /// How to print.
    #[arg(long, value_enum)]
    format: Option<Format>,
}

/// An instant, or the beginning of a day in UTC.
fn instant(text: &str) -> Result<Timestamp, String> {
    let day = format!("{text}T00:00:00Z").parse();
    text.parse().or(day).map_err(|error: TimeError| format!("{error}, or a day such as 2026-03-02"))
}

/// Runs the command.
pub fn run(command: &Command, config: &Config) -> Result<(), Failure> {
    let store = open_store_to_read(config)?;
    match command {
        Command::Ls(args) => {
            let entries =
                ls(store.as_ref(), args.table.as_deref(), args.from, args.to, args.fresh).map_err(Failure::no)?;
            let format = format_or_default(args.format);
            if entries.is_empty() {
                if let Some(name) = args.table.as_deref().filter(|name| table::find(name).is_none()) {
                    let near = suggestion(name, table::all().into_iter().map(|table| table.name));
                    return Err(Failure::usage(format!("unknown table '{name}'{near}")));
                }
                if format == Format::Csv {
                    println!("{}", LS_COLUMNS.join(","));
                }
            }
            let objects: Vec<Map<String, Value>> = entries
                .iter()
                .filter_map(|entry| {
                    let mut object = serde_json::to_value(entry).ok()?.as_object()?.clone();
                    object.insert("path".to_string(), json!(place_of(config, &entry.path)));
                    Some(object)
                })
                .collect();
            print_objects(format, &objects)
        }
        Command::Repair { kafka, format } => {
            let mut config = config.clone();
            if kafka.is_some() {
                config.kafka_brokers.clone_from(kafka);
            }
            let log = LogChoice::open(&config)?.log();
            let store = open_store(&config, false).map_err(Failure::usage)?;
            let repaired = repair(store.as_ref(), log.as_ref(), &config).map_err(Failure::no)?;
            let summary = json!({"files": repaired.files, "rows": repaired.rows, "problems": repaired.problems.len()});
            print_objects(format_or_default(*format), &[summary.as_object().cloned().unwrap_or_default()])?;
            if repaired.problems.is_empty() { Ok(()) } else { Err(Failure::no(repaired.problems.join("\n"))) }
        }
        Command::Verify { format } => {
            let report = verify(store.as_ref()).map_err(Failure::no)?;
            let summary = json!({
                "partitions": report.partitions, "entries": report.entries, "records": report.records, "rows": report.rows,
                "public_rows": report.public_rows, "public_files": report.public_files, "settled_files": report.settled_files,
                "hot_files": report.hot_files,
                "orphans": report.orphans.len(), "problems": report.problems.len(),
            });
            print_objects(format_or_default(*format), &[summary.as_object().cloned().unwrap_or_default()])?;
            if report.problems.is_empty() { Ok(()) } else { Err(Failure::no(report.problems.join("\n"))) }
        }
    }
}
