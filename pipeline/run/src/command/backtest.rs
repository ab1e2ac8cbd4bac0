//! `tidewatch backtest`: rules over rows from files, through the very same engine and lifecycle as `up`.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use clap::ValueEnum;
use tidewatch_flow::admit::Admit;
use tidewatch_model::table::Table;
use tidewatch_model::wire::json::TimeUnitChoice;
use tidewatch_model::{Span, Timestamp, Transition};
use tidewatch_sql::{Feed, Level};

use crate::alert_rows::transition_object;
use crate::cleaning::Cleaning;
use crate::dimension_files::TableFlags;
use crate::failure::Failure;
use crate::input::{Input, Mapping};
use crate::judge::Judge;
use crate::output::{Format, format_or_default, print_objects};
use crate::rule_files::{self, Bundled};

/// What to run over what.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tidewatch backtest --input gpu=fleet.parquet\n  tidewatch backtest --rules rules/ --input 'gpu=lake/gpu/**/*.parquet' --from 2026-11-24T00:00:00Z\n  tidewatch backtest --rules hot.sql --input gpu=old.csv --map temp_c=temperature_celsius --ts-unit seconds\n  tidewatch backtest --rules rules/ --input gpu=fleet.parquet --expect transitions.jsonl\n\nPrints one JSON object per transition, sorted by (ts, rule, fingerprint), field names as in alert_event.\nExit code: 1 when --expect differs."
)]
pub struct Args {
    /// The bundled rules of sql/pack too.
    #[arg(long)]
    all_rules: bool,
    /// Rule files or folders; the bundled rules when none is given.
    #[arg(long)]
    rules: Vec<PathBuf>,
    /// Rows of a table: table=FILE_OR_GLOB (.parquet, .csv, .json, .jsonl, .ndjson). Repeatable.
    #[arg(long, required = true)]
    input: Vec<String>,
    /// A column's name in the files and here: [table.]from=to. Repeatable.
    #[arg(long)]
    map: Vec<String>,
    /// What is checked of rows from elsewhere, as in clean.rules, such as 'gpu.power_watts jump=2000/s'. Rows of our lake were checked when
    /// they came. Repeatable.
    #[arg(long)]
    clean: Vec<String>,
    /// Leave out rows before this instant (RFC 3339).
    #[arg(long)]
    from: Option<Timestamp>,
    /// Leave out rows at or after this instant (RFC 3339).
    #[arg(long)]
    to: Option<Timestamp>,
    /// Unit of ts where it is a number.
    #[arg(long, value_enum, default_value = "micros")]
    ts_unit: EpochUnit,
    /// Compare with a file of transitions instead of printing; exit 1 on a difference.
    #[arg(long)]
    expect: Option<PathBuf>,
    /// How to print; JSON lines unless asked otherwise.
    #[arg(long, value_enum)]
    format: Option<Format>,
    #[command(flatten)]
    tables: TableFlags,
}

/// Units of an epoch number.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum EpochUnit {
    /// Seconds since 1970.
    Seconds,
    /// Milliseconds since 1970.
    Millis,
    /// Microseconds since 1970.
    Micros,
}

/// Event time that is fed at once. Within it tables are fed one after the other; windows over several close at its end.
const STEP: Span = Span::seconds(10);

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let dimensions = args.tables.load()?;
    let loaded = rule_files::load(&args.rules, Bundled::unless(&args.rules, args.all_rules), &dimensions)?;
    for fault in loaded.faults.iter().filter(|fault| fault.level != Level::Note) {
        eprintln!("{fault}");
    }
    if loaded.has_errors() {
        return Err(Failure::no("the rules have errors: nothing was run"));
    }
    let tables = read_inputs(args)?;
    let mut judge = Judge::new(loaded.rules).map_err(Failure::no)?;
    judge.set_dimensions(&dimensions);
    let (transitions, failures) = replay(judge, &tables)?;
    let objects: Vec<_> = transitions.iter().map(|transition| transition_object(transition, None)).collect();
    match &args.expect {
        Some(file) => compare(file, &objects),
        None => print_objects(
            args.format.unwrap_or_else(|| match format_or_default(None) {
                Format::Csv | Format::Json => Format::Json,
                Format::Table => Format::Table,
            }),
            &objects,
        ),
    }?;
    match failures {
        0 => Ok(()),
        _ => Err(Failure::no("rules could not be evaluated: what they would have said is missing")),
    }
}

fn read_inputs(args: &Args) -> Result<Vec<(&'static str, RecordBatch)>, Failure> {
    let mapping = Mapping::parse(&args.map)?;
    let unit = match args.ts_unit {
        EpochUnit::Seconds => TimeUnitChoice::Seconds,
        EpochUnit::Millis => TimeUnitChoice::Millis,
        EpochUnit::Micros => TimeUnitChoice::Micros,
    };
    let cleaning: Cleaning =
        args.clean.join(",").parse().map_err(|error: String| Failure::usage(format!("--clean: {error}")))?;
    let mut tables = Vec::new();
    let mut seen = BTreeSet::new();
    for flag in &args.input {
        let input = Input::parse(flag)?;
        if !seen.insert(input.table.name) {
            return Err(Failure::usage(format!(
                "--input {flag}: table '{}' is given twice: use a glob",
                input.table.name
            )));
        }
        let (rows, unknown) = input.read(&mapping, unit)?;
        if !unknown.is_empty() {
            eprintln!("{flag}: columns that the table does not have are left out: {}", unknown.join(", "));
        }
        let rows = cleaned(input.table, &rows, &cleaning)?;
        let times = times(&rows);
        let from = args.from.map_or(0, |from| times.partition_point(|ts| *ts < from.0));
        let to = args.to.map_or(times.len(), |to| times.partition_point(|ts| *ts < to.0));
        tables.push((input.table.name, rows.slice(from, to.saturating_sub(from))));
    }
    Ok(tables)
}

/// The rows as admission takes them: the same as live, but for the clock. What it did is said.
fn cleaned(table: &'static Table, rows: &RecordBatch, cleaning: &Cleaning) -> Result<RecordBatch, Failure> {
    let admitted = Admit::with(table, cleaning.rules(table)).admit(rows, None).map_err(Failure::no)?;
    for ((column, reason), values) in &admitted.counts.cleaned {
        eprintln!("{}.{column}: {values} values were cleaned: {reason}", table.name);
    }
    for (reason, rows) in &admitted.counts.refused {
        eprintln!("{}: {rows} rows were left out: {reason}", table.name);
    }
    Ok(admitted.rows)
}

fn times(rows: &RecordBatch) -> &[i64] {
    rows.column(0).as_primitive::<TimestampMicrosecondType>().values()
}

/// Feeds all tables in order of event time; ends with the last window that the data closes. The changes, and how many errors there were.
fn replay(mut judge: Judge, tables: &[(&'static str, RecordBatch)]) -> Result<(Vec<Transition>, usize), Failure> {
    let first = tables.iter().filter_map(|(_, rows)| times(rows).first()).min();
    let last = tables.iter().filter_map(|(_, rows)| times(rows).last()).max();
    let (Some(first), Some(last)) = (first, last) else { return Ok((vec![], 0)) };
    let mut positions = vec![0; tables.len()];
    let joined: BTreeSet<String> = judge
        .rules()
        .filter(|rule| !rule.joined.is_empty())
        .flat_map(|rule| rule.tables().map(str::to_string).collect::<Vec<_>>())
        .collect();
    let mut transitions = Vec::new();
    let mut until = Timestamp(*first).floor(STEP) + STEP;
    let mut progress = crate::progress::Progress::new("backtest", (*last - *first) as u64);
    while until.0 - STEP.0 <= *last {
        for ((table, rows), position) in tables.iter().zip(&mut positions) {
            let end = times(rows).partition_point(|ts| *ts < until.0);
            if end > *position {
                let part = rows.slice(*position, end - *position);
                transitions.extend(judge.push(table, &part, Feed::Live).map_err(Failure::no)?);
                transitions.extend(judge.advance(table, Timestamp(times(rows)[end - 1]), false));
                transitions.extend(judge.feed_streams().map_err(Failure::no)?);
                *position = end;
            }
        }
        // A table without rows of late holds no window over several tables back.
        let reached = tables.iter().zip(&positions).filter(|(_, position)| **position > 0);
        if let Some(reached) = reached.map(|((_, rows), position)| times(rows)[position - 1]).max() {
            for table in &joined {
                transitions.extend(judge.advance_joined(table, Timestamp(reached)));
            }
            transitions.extend(judge.feed_streams().map_err(Failure::no)?);
        }
        progress.set((until.0 - *first) as u64);
        until = until + STEP;
    }
    drop(progress);
    let failed: BTreeSet<(String, String)> = judge.take_failures().into_iter().collect();
    for (rule, error) in &failed {
        eprintln!("{rule}: evaluation failed: {error}");
    }
    let order =
        |transition: &Transition| (transition.ts, transition.alert.rule.clone(), transition.alert.fingerprint());
    transitions.sort_by_key(order);
    Ok((transitions, failed.len()))
}

fn compare(file: &PathBuf, objects: &[serde_json::Map<String, serde_json::Value>]) -> Result<(), Failure> {
    let text = std::fs::read_to_string(file).map_err(|error| Failure::usage(format!("{}: {error}", file.display())))?;
    let found: Vec<String> =
        objects.iter().map(|object| serde_json::Value::Object(object.clone()).to_string()).collect();
    let expected: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let missing: Vec<&&str> = expected.iter().filter(|line| !found.iter().any(|other| other == **line)).collect();
    let added: Vec<&String> = found.iter().filter(|line| !expected.contains(&line.as_str())).collect();
    let mut out = std::io::stdout().lock();
    for line in &missing {
        writeln!(out, "-{line}").map_err(Failure::output)?;
    }
    for line in &added {
        writeln!(out, "+{line}").map_err(Failure::output)?;
    }
    if missing.is_empty() && added.is_empty() && found.len() == expected.len() {
        return Ok(());
    }
    Err(Failure::no(format!("{}: {} transitions are missing, {} are new", file.display(), missing.len(), added.len())))
}
