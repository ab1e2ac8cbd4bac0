//! `tidewatch query`: SQL over everything committed.

use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;

use clap::ValueEnum;
use tidewatch_sql::{History, QueryError};

use super::prompt;
use crate::answer_file::AnswerFile;
use crate::config::Config;
use crate::dimension_files;
use crate::failure::Failure;
use crate::lake_access;
use crate::output::{BatchPrinter, Format, format_or_default};
use crate::progress::WatchedScan;
use crate::rule_watch;

/// What to ask.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tidewatch query \"SELECT * FROM alert_event ORDER BY ts\"\n  tidewatch query \"SELECT host, avg(cpu_utilization_ratio) FROM host GROUP BY host\" --format csv\n  tidewatch query \"SELECT * FROM gpu WHERE ts >= '2026-03-02'\" --format parquet --out gpu.parquet\n  tidewatch query \"EXPLAIN ANALYZE SELECT count(*) FROM gpu\"\n  tidewatch query                                  a prompt, with \\d, \\timing and \\?\n\nWorks while 'up' runs and when it does not; sees what is committed."
)]
pub struct Args {
    /// One read-only SQL statement; '-' reads it from standard input. Without one there is a prompt on a terminal.
    sql: Option<String>,
    /// The rules that 'up' was given so: their streams are tables; repeatable.
    #[arg(long)]
    rules: Vec<PathBuf>,
    /// How to print; by default a table on a terminal and JSON in a pipe.
    #[arg(long, value_enum)]
    format: Option<AnswerFormat>,
    /// Write into a file instead of to standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AnswerFormat {
    /// Aligned columns for people.
    Table,
    /// One JSON object per line.
    Json,
    /// Comma separated values with a header.
    Csv,
    /// A Parquet file; with --out, or into a pipe.
    Parquet,
    /// An Arrow IPC stream; with --out, or into a pipe.
    Arrow,
}

/// The history, and how far a question has read.
pub struct Asking {
    /// What is asked.
    pub history: History,
    /// Its reading.
    pub progress: Arc<WatchedScan>,
}

/// Runs the command.
pub fn run(args: &Args, config: &Config) -> Result<(), Failure> {
    let dimensions = dimension_files::load(&config.tables_files).map_err(Failure::usage)?;
    let progress = Arc::new(WatchedScan::new(Arc::new(lake_access::open_scan(config)?)));
    // Rules make streams known, which are tables too, and have views. What is wrong with the rules is no matter here.
    let mut with_rules = config.clone();
    with_rules.rules_paths.extend(args.rules.iter().cloned());
    let loaded = rule_watch::load(&with_rules, &dimensions);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut history = History::new(progress.clone(), threads).map_err(failure)?.with_dimensions(dimensions);
    if let Ok(loaded) = &loaded {
        history = history.with_views(loaded.views());
    }
    let asking = Asking { history, progress };
    let sql = match args.sql.as_deref() {
        None if std::io::stdin().is_terminal() && args.out.is_none() => return prompt::run(&asking),
        None | Some("-") => std::io::read_to_string(std::io::stdin()).map_err(Failure::usage)?,
        Some(sql) => sql.to_string(),
    };
    let to_terminal = args.out.is_none() && std::io::stdout().is_terminal();
    let place = |error: std::io::Error| {
        Failure::usage(format!("{}: {error}", args.out.as_deref().unwrap_or("standard output".as_ref()).display()))
    };
    let out = || -> Result<Box<dyn Write + Send>, Failure> {
        Ok(match &args.out {
            Some(file) => Box::new(BufWriter::new(File::create(file).map_err(place)?)),
            None => Box::new(std::io::stdout()),
        })
    };
    let format = match args.format {
        Some(AnswerFormat::Parquet | AnswerFormat::Arrow) if to_terminal => {
            return Err(Failure::usage(
                "--format parquet and arrow are not for a terminal: expected --out FILE, or a pipe",
            ));
        }
        Some(format @ (AnswerFormat::Parquet | AnswerFormat::Arrow)) => {
            let mut file: Option<AnswerFile> = None;
            let answer = asking.history.query(&sql, |batch| {
                asking.progress.clear();
                let file = match &mut file {
                    Some(file) => file,
                    None => {
                        let out = out().map_err(|failure| QueryError::failed(failure.message))?;
                        let begun = AnswerFile::begin(format == AnswerFormat::Parquet, out, &batch.schema());
                        file.insert(begun.map_err(QueryError::failed)?)
                    }
                };
                file.write(&batch).map_err(QueryError::failed)
            });
            answer.map_err(failure)?;
            return file.map_or(Ok(()), AnswerFile::finish).map_err(Failure::no);
        }
        Some(AnswerFormat::Table) => Format::Table,
        Some(AnswerFormat::Json) => Format::Json,
        Some(AnswerFormat::Csv) => Format::Csv,
        None if args.out.is_some() => Format::Json,
        None => format_or_default(None),
    };
    let mut printer = BatchPrinter::new(format, out()?);
    print(&asking, &sql, format, &mut printer)?;
    printer.finish()
}

/// Prints an answer, all but what the printer holds back.
///
/// # Errors
/// A wrong question, a lake that can't be read, or an output that can't be written.
pub fn print<W: Write>(
    asking: &Asking,
    sql: &str,
    format: Format,
    printer: &mut BatchPrinter<W>,
) -> Result<(), Failure> {
    let mut is_first = true;
    let answer = asking.history.query(sql, |batch| {
        if batch.num_rows() > 0 {
            asking.progress.clear();
        }
        // The first, empty batch is the header: JSON has none.
        let is_header = std::mem::take(&mut is_first) && batch.num_rows() == 0;
        if format == Format::Json && is_header {
            return Ok(());
        }
        printer.print(batch).map_err(|failure| QueryError::failed(failure.message))
    });
    asking.progress.clear();
    answer.map_err(failure)
}

fn failure(error: QueryError) -> Failure {
    match error {
        QueryError::Question(..) => Failure::usage(error),
        QueryError::Lake(_) | QueryError::Failed(..) => Failure::no(error),
    }
}
