//! Rows from files: Parquet, CSV and JSON lines, brought to a registry table's schema. What `backtest` reads.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, new_null_array};
use arrow::compute::{cast, concat_batches};
use arrow::csv::ReaderBuilder;
use arrow::csv::reader::Format as CsvFormat;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tidewatch_model::table::{self, TABLES, TIME_COLUMN, Table};
use tidewatch_model::wire::json::{TimeUnitChoice, decode_lines};
use tidewatch_sql::suggestion;

use crate::failure::Failure;

/// `--input table=GLOB`, checked.
#[derive(Debug, Clone)]
pub struct Input {
    /// The table that the rows belong to.
    pub table: &'static Table,
    /// The files, sorted.
    pub files: Vec<PathBuf>,
}

/// `--map [table.]from=to`: names of columns in the files, and what they are called here.
#[derive(Debug, Clone, Default)]
pub struct Mapping(HashMap<(Option<String>, String), String>);

impl Mapping {
    /// Reads the flags.
    ///
    /// # Errors
    /// One that is not of the form.
    pub fn parse(flags: &[String]) -> Result<Mapping, Failure> {
        let mut mapping = Mapping::default();
        for flag in flags {
            let (from, to) = flag
                .split_once('=')
                .ok_or_else(|| Failure::usage(format!("--map {flag}: expected [table.]from=to")))?;
            let (of_table, from) = match from.split_once('.') {
                Some((of_table, column)) if table::find(of_table).is_some() => (Some(of_table.to_string()), column),
                _ => (None, from),
            };
            mapping.0.insert((of_table, from.to_string()), to.to_string());
        }
        Ok(mapping)
    }

    fn name(&self, table: &Table, column: &str) -> String {
        let own = self.0.get(&(Some(table.name.to_string()), column.to_string()));
        own.or_else(|| self.0.get(&(None, column.to_string()))).cloned().unwrap_or_else(|| column.to_string())
    }
}

impl Input {
    /// Reads one flag.
    ///
    /// # Errors
    /// No such table, or no file of that name.
    pub fn parse(flag: &str) -> Result<Input, Failure> {
        let (name, pattern) = flag
            .split_once('=')
            .ok_or_else(|| Failure::usage(format!("--input {flag}: expected table=FILE_OR_GLOB")))?;
        let table = table::find(name).ok_or_else(|| {
            let near = suggestion(name, TABLES.iter().map(|table| table.name));
            Failure::usage(format!("--input {flag}: unknown table '{name}'{near}"))
        })?;
        let files = files_of(Path::new(pattern)).map_err(|error| Failure::usage(format!("--input {flag}: {error}")))?;
        if files.is_empty() {
            return Err(Failure::usage(format!("--input {flag}: no such file")));
        }
        Ok(Input { table, files })
    }

    /// All rows in one batch of the table's schema, sorted by ts, and the names of columns that the table does not have.
    ///
    /// # Errors
    /// A file that can't be read, or holds values of the wrong type.
    pub fn read(&self, mapping: &Mapping, unit: TimeUnitChoice) -> Result<(RecordBatch, Vec<String>), Failure> {
        let mut batches = Vec::new();
        let mut unknown = Vec::new();
        for file in &self.files {
            let wrong = |message: String| Failure::usage(format!("{}: {message}", file.display()));
            for batch in read_file(file, self.table, unit).map_err(wrong)? {
                batches.push(to_table(&batch, self.table, mapping, unit, &mut unknown).map_err(wrong)?);
            }
        }
        unknown.sort();
        unknown.dedup();
        let whole = concat_batches(&self.table.schema(), &batches).map_err(Failure::no)?;
        let times = whole.column(0).clone();
        let order = arrow::compute::sort_to_indices(&times, None, None).map_err(Failure::no)?;
        let sorted = arrow::compute::take_record_batch(&whole, &order).map_err(Failure::no)?;
        Ok((sorted, unknown))
    }
}

/// The files that a path names; `*` and `?` match within a folder's name, `**` any number of folders.
fn files_of(pattern: &Path) -> Result<Vec<PathBuf>, std::io::Error> {
    let mut found = vec![PathBuf::from(if pattern.is_absolute() { "/" } else { "" })];
    for part in pattern.components().filter(|part| !matches!(part, std::path::Component::RootDir)) {
        let name = part.as_os_str().to_string_lossy().into_owned();
        let mut next = Vec::new();
        for base in found {
            match name.as_str() {
                "**" => descend(&base, &mut next)?,
                name if name.contains(['*', '?']) => {
                    let matching = children(&base)?.into_iter().filter(|child| {
                        child.file_name().is_some_and(|file| wild(name.as_bytes(), file.to_string_lossy().as_bytes()))
                    });
                    next.extend(matching);
                }
                name => next.extend(Some(base.join(name)).filter(|path| path.exists())),
            }
        }
        found = next;
    }
    found.retain(|path| path.is_file());
    found.sort();
    Ok(found)
}

fn children(base: &Path) -> Result<Vec<PathBuf>, std::io::Error> {
    let folder = if base.as_os_str().is_empty() { Path::new(".") } else { base };
    if !folder.is_dir() {
        return Ok(vec![]);
    }
    std::fs::read_dir(folder)?.map(|entry| Ok(base.join(entry?.file_name()))).collect()
}

fn descend(base: &Path, found: &mut Vec<PathBuf>) -> Result<(), std::io::Error> {
    found.push(base.to_path_buf());
    for child in children(base)? {
        if child.is_dir() {
            descend(&child, found)?;
        }
    }
    Ok(())
}

fn wild(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.first(), name.first()) {
        (None, None) => true,
        (Some(b'*'), _) => wild(&pattern[1..], name) || (!name.is_empty() && wild(pattern, &name[1..])),
        (Some(b'?'), Some(_)) => wild(&pattern[1..], &name[1..]),
        (Some(left), Some(right)) if left == right => wild(&pattern[1..], &name[1..]),
        _ => false,
    }
}

fn read_file(file: &Path, table: &Table, unit: TimeUnitChoice) -> Result<Vec<RecordBatch>, String> {
    let extension = file.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    match extension.as_str() {
        "parquet" => read_parquet(file),
        "csv" => read_csv(file),
        "json" | "jsonl" | "ndjson" => read_json(file, table, unit),
        other => {
            Err(format!("files of kind '{other}' are not read: expected .parquet, .csv, .json, .jsonl or .ndjson"))
        }
    }
}

/// The rows of a Parquet file.
pub fn read_parquet(file: &Path) -> Result<Vec<RecordBatch>, String> {
    let opened = File::open(file).map_err(|error| error.to_string())?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(opened)
        .and_then(|builder| builder.build())
        .map_err(|error| error.to_string())?;
    reader.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())
}

/// Every column as text; the registry says later what it is.
fn read_csv(file: &Path) -> Result<Vec<RecordBatch>, String> {
    let mut opened = File::open(file).map_err(|error| error.to_string())?;
    let format = CsvFormat::default().with_header(true);
    let (found, _) = format.infer_schema(&mut opened, Some(1)).map_err(|error| error.to_string())?;
    let texts: Vec<Field> =
        found.fields().iter().map(|field| Field::new(field.name().trim(), DataType::Utf8, true)).collect();
    let opened = File::open(file).map_err(|error| error.to_string())?;
    let reader = ReaderBuilder::new(Arc::new(Schema::new(texts)))
        .with_format(format)
        .build(opened)
        .map_err(|error| error.to_string())?;
    reader.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())
}

fn read_json(file: &Path, table: &Table, unit: TimeUnitChoice) -> Result<Vec<RecordBatch>, String> {
    let bytes = std::fs::read(file).map_err(|error| error.to_string())?;
    let (batch, report) = decode_lines(table, &bytes, unit);
    match report.rejected.first() {
        Some(first) => {
            Err(format!("line {}: {} ({} lines can't be read)", first.line, first.reason, report.rejected_count))
        }
        None => Ok(vec![batch]),
    }
}

/// The same rows with the table's columns, in its order and types; columns that are not there are NULL.
fn to_table(
    batch: &RecordBatch,
    table: &Table,
    mapping: &Mapping,
    unit: TimeUnitChoice,
    unknown: &mut Vec<String>,
) -> Result<RecordBatch, String> {
    let schema = table.schema();
    let renamed: HashMap<String, &ArrayRef> = batch
        .schema()
        .fields()
        .iter()
        .zip(batch.columns())
        .map(|(field, column)| (mapping.name(table, field.name()), column))
        .collect();
    unknown.extend(renamed.keys().filter(|name| schema.index_of(name).is_err()).cloned());
    let columns = schema.fields().iter().map(|field| match renamed.get(field.name()) {
        Some(column) if field.name() == TIME_COLUMN => time_column(column, unit),
        Some(column) => {
            let converted =
                cast(column, field.data_type()).map_err(|error| format!("column '{}': {error}", field.name()))?;
            if converted.null_count() > column.logical_null_count() && !is_blank_text(column, &converted) {
                let row =
                    (0..column.len()).find(|row| column.is_valid(*row) && converted.is_null(*row)).unwrap_or_default();
                return Err(format!("column '{}', row {}: expected {}", field.name(), row + 1, field.data_type()));
            }
            Ok(converted)
        }
        None if field.name() == TIME_COLUMN => {
            Err(format!("no column '{TIME_COLUMN}': name it with --map NAME={TIME_COLUMN}"))
        }
        None => Ok(new_null_array(field.data_type(), batch.num_rows())),
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    RecordBatch::try_new(schema, columns).map_err(|error| error.to_string())
}

/// Empty fields of a CSV are NULL in columns that are not text.
fn is_blank_text(column: &ArrayRef, converted: &ArrayRef) -> bool {
    let Some(texts) = column.as_string_opt::<i32>() else { return false };
    (0..texts.len()).all(|row| texts.is_null(row) || converted.is_valid(row) || texts.value(row).trim().is_empty())
}

fn time_column(column: &ArrayRef, unit: TimeUnitChoice) -> Result<ArrayRef, String> {
    let wanted = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let from_epoch = |numbers: &ArrayRef| {
        let unit = match unit {
            TimeUnitChoice::Seconds => TimeUnit::Second,
            TimeUnitChoice::Millis => TimeUnit::Millisecond,
            TimeUnitChoice::Micros => TimeUnit::Microsecond,
        };
        let integers = cast(numbers, &DataType::Int64)?;
        cast(&integers, &DataType::Timestamp(unit, Some("UTC".into())))
    };
    let instants = match column.data_type() {
        DataType::Utf8 => {
            let texts = column.as_string::<i32>();
            let numeric = texts.iter().flatten().next().is_some_and(|text| text.trim().parse::<i64>().is_ok());
            if numeric { from_epoch(column) } else { cast(column, &wanted) }
        }
        kind if kind.is_integer() => from_epoch(column),
        _ => Ok(column.clone()),
    };
    let instants = instants
        .and_then(|instants| cast(&instants, &wanted))
        .map_err(|error| format!("column '{TIME_COLUMN}': {error}"))?;
    match (0..instants.len()).find(|row| instants.is_null(*row)) {
        Some(row) => {
            Err(format!("column '{TIME_COLUMN}', row {}: expected an instant such as 2026-11-24T05:00:00Z", row + 1))
        }
        None => Ok(instants),
    }
}
