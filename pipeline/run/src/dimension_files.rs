//! Dimension tables from files: CSV with a header, JSON lines, Parquet. A file is read again when it changed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, new_null_array};
use arrow::compute::{cast, concat_batches};
use arrow::csv::reader::Format as CsvFormat;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::json::reader::infer_json_schema;
use tidewatch_model::table::{ColumnType, find_dimension};
use tidewatch_sql::{Dimensions, suggestion};

use crate::failure::Failure;
use crate::input::read_parquet;

/// Which file a dimension table is in: `name=FILE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableFile {
    /// The table.
    pub name: String,
    /// The file.
    pub path: PathBuf,
}

/// The flag that commands share.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct TableFlags {
    /// A dimension table and its file (.csv, .jsonl, .parquet); repeatable.
    #[arg(long = "table", value_name = "NAME=FILE")]
    tables: Vec<TableFile>,
}

impl TableFlags {
    /// The tables with their rows.
    ///
    /// # Errors
    /// A file that can't be read.
    pub fn load(&self) -> Result<Dimensions, Failure> {
        load(&self.tables).map_err(Failure::usage)
    }
}

impl std::str::FromStr for TableFile {
    type Err = String;
    fn from_str(text: &str) -> Result<TableFile, String> {
        let (name, path) = text.split_once('=').ok_or_else(|| format!("'{text}' is not name=FILE"))?;
        let good = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_';
        if name.is_empty() || !name.chars().all(good) || name.starts_with(|letter: char| letter.is_ascii_digit()) {
            return Err(format!("'{name}' is no table's name: expected small letters, digits and '_'"));
        }
        if path.is_empty() {
            return Err(format!("'{text}': expected a file after '='"));
        }
        Ok(TableFile { name: name.to_string(), path: PathBuf::from(path) })
    }
}

impl std::fmt::Display for TableFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={}", self.name, self.path.display())
    }
}

/// Reads all files.
///
/// # Errors
/// One that can't be read, in words that name it.
pub fn load(files: &[TableFile]) -> Result<Dimensions, String> {
    let mut dimensions = Dimensions::default();
    for file in files {
        set(&mut dimensions, file)?;
    }
    Ok(dimensions)
}

fn set(dimensions: &mut Dimensions, file: &TableFile) -> Result<(), String> {
    let wrong = |message: String| format!("{}: {message}", file.path.display());
    let rows = read(&file.path, &file.name).map_err(wrong)?;
    dimensions.set(&file.name, rows).map_err(|error| wrong(error.to_string()))
}

/// Files that are looked at now and then.
pub struct Watched {
    files: Vec<TableFile>,
    dimensions: Dimensions,
    seen: BTreeMap<PathBuf, Option<(SystemTime, u64)>>,
}

impl Watched {
    /// As they are now, with their rows.
    ///
    /// # Errors
    /// One that can't be read.
    pub fn load(files: &[TableFile]) -> Result<Watched, String> {
        // Before they are read: what changes meanwhile is seen.
        let seen = files.iter().map(|file| (file.path.clone(), state(&file.path))).collect();
        Ok(Watched { files: files.to_vec(), dimensions: load(files)?, seen })
    }

    /// The tables as they were read last.
    pub fn dimensions(&self) -> &Dimensions {
        &self.dimensions
    }

    /// Reads those that changed. The tables, where any did; and what is wrong with files that can't be read, whose tables stay as
    /// they were.
    pub fn look(&mut self) -> (Option<Dimensions>, Vec<String>) {
        let (mut changed, mut problems) = (false, vec![]);
        for file in &self.files {
            let now = state(&file.path);
            if self.seen.insert(file.path.clone(), now) == Some(now) {
                continue;
            }
            match set(&mut self.dimensions, file) {
                Ok(()) => changed = true,
                Err(problem) => problems.push(format!("table '{}' stays as it was: {problem}", file.name)),
            }
        }
        (changed.then(|| self.dimensions.clone()), problems)
    }
}

/// When a file was changed last, and its length.
pub fn state(path: &Path) -> Option<(SystemTime, u64)> {
    let about = std::fs::metadata(path).ok()?;
    Some((about.modified().ok()?, about.len()))
}

/// The rows of one file: with the columns that a known table has, else with those of the file.
fn read(path: &Path, name: &str) -> Result<RecordBatch, String> {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    let known = find_dimension(name).map(|dimension| dimension.schema());
    // Whoever writes a file anew empties it first.
    if std::fs::metadata(path).map_err(|error| error.to_string())?.len() == 0 {
        return Err("the file is empty: expected at least the names of its columns".to_string());
    }
    let rows = match extension.as_str() {
        "csv" => read_csv(path, known.is_some())?,
        "json" | "jsonl" | "ndjson" => read_json(path)?,
        "parquet" => read_parquet(path)?,
        other => {
            return Err(format!(
                "files of kind '{other}' are not read: expected .csv, .json, .jsonl, .ndjson or .parquet"
            ));
        }
    };
    let found = rows.first().map_or_else(|| Arc::new(Schema::empty()), RecordBatch::schema);
    let whole = concat_batches(&found, &rows).map_err(|error| error.to_string())?;
    let schema = match known {
        Some(schema) => schema,
        None => plain_schema(&whole.schema())?,
    };
    if let Some(unknown) = whole.schema().fields().iter().find(|field| schema.index_of(field.name()).is_err()) {
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let near = suggestion(unknown.name(), names.iter().copied());
        return Err(format!("column '{}': expected some of {}{near}", unknown.name(), names.join(", ")));
    }
    let columns = schema.fields().iter().map(|field| match whole.column_by_name(field.name()) {
        Some(column) => converted(column, field),
        None => Ok(new_null_array(field.data_type(), whole.num_rows())),
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    RecordBatch::try_new(schema, columns).map_err(|error| error.to_string())
}

/// The same columns in the types that cross a border.
fn plain_schema(found: &Schema) -> Result<SchemaRef, String> {
    let plain = found.fields().iter().map(|field| {
        let data_type = match field.data_type() {
            DataType::Boolean => DataType::Boolean,
            data_type if data_type.is_integer() => DataType::Int64,
            data_type if data_type.is_floating() || matches!(data_type, DataType::Decimal128(..)) => DataType::Float64,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Dictionary(..) | DataType::Null => {
                DataType::Utf8
            }
            DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => {
                DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
            }
            other => {
                return Err(format!(
                    "column '{}' is {other}: expected a number, a text, a time or true and false",
                    field.name()
                ));
            }
        };
        Ok(Field::new(field.name().trim(), data_type, true))
    });
    Ok(Arc::new(Schema::new(plain.collect::<Result<Vec<_>, _>>()?)))
}

fn converted(column: &ArrayRef, field: &Field) -> Result<ArrayRef, String> {
    // A time without a zone is in UTC.
    let result = cast(column, field.data_type()).map_err(|error| format!("column '{}': {error}", field.name()))?;
    let text = column.as_string_opt::<i32>();
    let is_blank = |row: usize| text.is_some_and(|text| text.value(row).trim().is_empty());
    let lost = (0..column.len()).find(|row| column.is_valid(*row) && result.is_null(*row) && !is_blank(*row));
    match lost {
        Some(row) => {
            Err(format!("column '{}', row {}: expected {}", field.name(), row + 1, type_name(field.data_type())))
        }
        None => Ok(result),
    }
}

fn type_name(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::Int64 => "a whole number",
        DataType::Float64 => "a number",
        DataType::Boolean => "true or false",
        data_type if *data_type == ColumnType::Timestamp.arrow() => "a time such as 2026-01-31T12:00:00Z",
        _ => "a text",
    }
}

/// Every column as text where the table says what it is, else as what it looks like.
fn read_csv(path: &Path, as_text: bool) -> Result<Vec<RecordBatch>, String> {
    let wrong = |error: arrow::error::ArrowError| error.to_string();
    let mut file = File::open(path).map_err(|error| error.to_string())?;
    let format = CsvFormat::default().with_header(true);
    let (found, _) = format.infer_schema(&mut file, as_text.then_some(1)).map_err(wrong)?;
    let fields = found.fields().iter().map(|field| {
        let data_type = if as_text { DataType::Utf8 } else { field.data_type().clone() };
        Field::new(field.name().trim(), data_type, true)
    });
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    file.rewind().map_err(|error| error.to_string())?;
    let reader = arrow::csv::ReaderBuilder::new(schema.clone()).with_format(format).build(file).map_err(wrong)?;
    let mut rows = reader.collect::<Result<Vec<_>, _>>().map_err(wrong)?;
    rows.push(RecordBatch::new_empty(schema));
    Ok(rows)
}

fn read_json(path: &Path) -> Result<Vec<RecordBatch>, String> {
    let wrong = |error: arrow::error::ArrowError| error.to_string();
    let mut file = BufReader::new(File::open(path).map_err(|error| error.to_string())?);
    let (schema, _) = infer_json_schema(&mut file, None).map_err(wrong)?;
    file.rewind().map_err(|error| error.to_string())?;
    let schema = Arc::new(schema);
    let reader = arrow::json::ReaderBuilder::new(schema.clone()).build(file).map_err(wrong)?;
    let mut rows = reader.collect::<Result<Vec<_>, _>>().map_err(wrong)?;
    rows.push(RecordBatch::new_empty(schema));
    Ok(rows)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::output::{BatchPrinter, Format};

    fn rows(name: &str, file: &str, text: &str) -> Result<Vec<String>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(file);
        std::fs::write(&path, text).unwrap();
        let dimensions = load(&[TableFile { name: name.to_string(), path: path.clone() }]);
        let dimensions = dimensions.map_err(|message| message.replace(&path.display().to_string(), file))?;
        let mut out = Vec::new();
        BatchPrinter::new(Format::Json, &mut out).print(dimensions.rows(name).unwrap().clone()).unwrap();
        Ok(String::from_utf8(out).unwrap().lines().map(str::to_string).collect())
    }

    #[test]
    fn known_tables_have_their_columns_and_others_those_of_the_file() {
        assert_eq!(
            rows("expected", "a.csv", "host,gpus\nn1,8\nn2,\n").unwrap(),
            [
                r#"{"host":"n1","gpus":8,"ib_ports":null,"ib_rate_gigabits_per_second":null}"#,
                r#"{"host":"n2","gpus":null,"ib_ports":null,"ib_rate_gigabits_per_second":null}"#
            ]
        );
        let maintenance = "host,from_ts,to_ts\nn1,2026-01-01T00:00:00Z,2026-01-01 02:00:00\n";
        assert_eq!(
            rows("maintenance", "m.csv", maintenance).unwrap(),
            [r#"{"host":"n1","from_ts":"2026-01-01T00:00:00Z","to_ts":"2026-01-01T02:00:00Z","note":null}"#]
        );
        assert_eq!(
            rows("racks", "r.jsonl", "{\"host\":\"n1\",\"rack\":7,\"share\":0.5,\"spare\":true}\n").unwrap(),
            [r#"{"host":"n1","rack":7,"share":0.5,"spare":true}"#]
        );
        assert_eq!(rows("racks", "r.csv", "host,rack\nn1,7\n").unwrap(), [r#"{"host":"n1","rack":7}"#]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let said = |name: &str, file: &str, text: &str| rows(name, file, text).unwrap_err();
        assert_eq!(
            said("expected", "a.csv", "host,gpus\nn1,eight\n"),
            "a.csv: column 'gpus', row 1: expected a whole number"
        );
        assert_eq!(
            said("expected", "a.csv", "host,gpu\nn1,8\n"),
            "a.csv: column 'gpu': expected some of host, gpus, ib_ports, ib_rate_gigabits_per_second; did you mean 'gpus'?"
        );
        assert!(said("expected", "a.csv", "").contains("the file is empty"));
        assert!(said("expected", "a.txt", "x").contains("files of kind 'txt' are not read"));
        assert!(said("gpu", "a.csv", "host\nn1\n").contains("'gpu' is a table of rows over time"));
        assert!(
            "=x".parse::<TableFile>().is_err()
                && "Racks=x".parse::<TableFile>().is_err()
                && "racks=".parse::<TableFile>().is_err()
        );
    }

    #[test]
    fn a_file_is_read_again_when_it_changed() {
        let folder = tempfile::tempdir().unwrap();
        let file = TableFile { name: "racks".to_string(), path: folder.path().join("racks.csv") };
        std::fs::write(&file.path, "host,rack\nn1,7\n").unwrap();
        let mut watched = Watched::load(std::slice::from_ref(&file)).unwrap();
        assert!(matches!(watched.look(), (None, problems) if problems.is_empty()));
        std::fs::write(&file.path, "host,rack\nn1,7\nn2,8\n").unwrap();
        let (changed, problems) = watched.look();
        assert_eq!((changed.unwrap().rows("racks").unwrap().num_rows(), problems.len()), (2, 0));
        std::fs::write(&file.path, "host,row\nn1,7\n").unwrap();
        let (changed, problems) = watched.look();
        assert!(
            changed.is_none()
                && problems[0].contains("table 'racks' stays as it was")
                && problems[0].contains("has the columns host Utf8, row Int64"),
            "{problems:?}"
        );
        std::fs::remove_file(&file.path).unwrap();
        assert_eq!(watched.look().1.len(), 1);
        assert!(watched.look().1.is_empty(), "said once");
    }
}
