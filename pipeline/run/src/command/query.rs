//! `tidewatch query`: SQL over everything committed.

use std::path::PathBuf;
use std::sync::Arc;

use tidewatch_sql::{History, QueryError};

use crate::config::Config;
use crate::dimension_files;
use crate::failure::Failure;
use crate::lake_access;
use crate::output::{BatchPrinter, Format, format_or_default};
use crate::rule_watch;

/// What to ask.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tidewatch query \"SELECT * FROM alert_event ORDER BY ts\"\n  tidewatch query \"SELECT host, avg(cpu_utilization_ratio) FROM host GROUP BY host\" --format csv\n\nWorks while 'up' runs and when it does not; sees what is committed."
)]
pub struct Args {
    /// One read-only SQL statement; '-' reads it from standard input.
    sql: String,
    /// The rules that 'up' was given so: their streams are tables; repeatable.
    #[arg(long)]
    rules: Vec<PathBuf>,
    /// How to print.
    #[arg(long, value_enum)]
    format: Option<Format>,
}

/// Runs the command.
pub fn run(args: &Args, config: &Config) -> Result<(), Failure> {
    let sql = match args.sql.as_str() {
        "-" => std::io::read_to_string(std::io::stdin()).map_err(Failure::usage)?,
        sql => sql.to_string(),
    };
    let dimensions = dimension_files::load(&config.tables_files).map_err(Failure::usage)?;
    let scan = Arc::new(lake_access::open_scan(config)?);
    // Rules make streams known, which are tables too. What is wrong with the rules is no matter here.
    let mut with_rules = config.clone();
    with_rules.rules_paths.extend(args.rules.iter().cloned());
    drop(rule_watch::load(&with_rules, &dimensions));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let history = History::new(scan, threads).map_err(failure)?.with_dimensions(dimensions);
    let format = format_or_default(args.format);
    let mut printer = BatchPrinter::new(format, std::io::stdout().lock());
    let mut rows_seen = false;
    let answer = history.query(&sql, |batch| {
        // The first, empty batch is the header: JSON has none.
        if format == Format::Json && batch.num_rows() == 0 && !rows_seen {
            return Ok(());
        }
        rows_seen = true;
        printer.print(batch).map_err(|failure| QueryError::Failed(failure.message))
    });
    answer.map_err(failure)?;
    printer.finish()
}

fn failure(error: QueryError) -> Failure {
    match error {
        QueryError::Question(_) => Failure::usage(error),
        QueryError::Lake(_) | QueryError::Failed(_) => Failure::no(error),
    }
}
