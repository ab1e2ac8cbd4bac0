//! JSON lines: one object per row, field names are column names.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Float64Builder, Int64Builder, MapArray, MapBuilder, MapFieldNames, RecordBatch,
    StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::datatypes::DataType;
use serde_json::{Map, Value};

use crate::table::{Column, ColumnType, TIME_COLUMN, Table};
use crate::time::Timestamp;

/// Unit of a ts that is a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TimeUnitChoice {
    /// Seconds since the epoch.
    #[default]
    Seconds,
    /// Milliseconds since the epoch.
    Millis,
    /// Microseconds since the epoch.
    Micros,
}

/// A line that was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedLine {
    /// Its number, from one.
    pub line: usize,
    /// Why.
    pub reason: String,
}

/// What became of the lines that are not rows, and of the fields that are not columns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JsonReport {
    /// The first hundred lines that were not taken.
    pub rejected: Vec<RejectedLine>,
    /// How many there were in all.
    pub rejected_count: u64,
    /// The numbers of all of them.
    pub rejected_lines: Vec<usize>,
    /// Fields that the table has no place for, and how often they came.
    pub unknown_fields: BTreeMap<String, u64>,
}

/// How lines are read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JsonOptions {
    /// The unit of a ts that is a number.
    pub unit: TimeUnitChoice,
    /// Names of fields, and the columns that they are.
    pub renames: BTreeMap<String, String>,
    /// The ts of a row that has none; without it such a row is rejected.
    pub default_ts: Option<Timestamp>,
}

/// Rejected lines that a report names.
const NAMED_LINES: usize = 100;

/// Reads lines as rows of a table. `ts` is RFC 3339 or a number in `unit`; fields that are no columns go to the table's
/// `labels` or `fields` column, when it has one, else they are counted. Blank lines are skipped.
///
/// ```
/// use tidewatch_model::{table, wire::json::{TimeUnitChoice, decode_lines}};
/// let lines = b"{\"ts\": 1.5, \"host\": \"n1\", \"load1\": 2}\n{\"ts\": \"never\"}\n";
/// let (rows, report) = decode_lines(table::find("host").unwrap(), lines, TimeUnitChoice::Seconds);
/// assert_eq!((rows.num_rows(), report.rejected[0].line), (1, 2));
/// ```
pub fn decode_lines(table: &Table, bytes: &[u8], unit: TimeUnitChoice) -> (RecordBatch, JsonReport) {
    decode_lines_with(table, bytes, &JsonOptions { unit, ..JsonOptions::default() })
}

/// As [`decode_lines`], with names of other people.
pub fn decode_lines_with(table: &Table, bytes: &[u8], options: &JsonOptions) -> (RecordBatch, JsonReport) {
    let mut report = JsonReport::default();
    let residual = table
        .columns
        .iter()
        .find(|column| column.column_type == ColumnType::Map && ["labels", "fields"].contains(&column.name));
    let mut rows: Vec<(Timestamp, Map<String, Value>)> = Vec::new();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        match read_line(table, residual, line, options, &mut report.unknown_fields) {
            Ok(row) => rows.push(row),
            Err(reason) => {
                report.rejected_count += 1;
                report.rejected_lines.push(index + 1);
                if report.rejected.len() < NAMED_LINES {
                    report.rejected.push(RejectedLine { line: index + 1, reason });
                }
            }
        }
    }
    (to_batch(table, &rows), report)
}

fn read_line(
    table: &Table,
    residual: Option<&Column>,
    line: &[u8],
    options: &JsonOptions,
    unknown: &mut BTreeMap<String, u64>,
) -> Result<(Timestamp, Map<String, Value>), String> {
    let mut object = match serde_json::from_slice(line) {
        Ok(Value::Object(object)) => object,
        Ok(other) => return Err(format!("expected a JSON object, found {}", kind_of(&other))),
        Err(error) => return Err(format!("not JSON: {error}")),
    };
    for (from, to) in &options.renames {
        if let Some(value) = object.remove(from) {
            object.insert(to.clone(), value);
        }
    }
    let ts = match (object.remove(TIME_COLUMN), options.default_ts) {
        (None, Some(ts)) => ts,
        (found, _) => instant(found.as_ref(), options.unit)?,
    };
    let mut row = Map::new();
    let mut rest = Map::new();
    for (name, value) in object {
        match table.column(&name) {
            Some(column) => {
                check(column, &value)
                    .map_err(|expected| format!("field '{name}': expected {expected}, found {}", kind_of(&value)))?;
                row.insert(name, value);
            }
            None if residual.is_some() => {
                rest.insert(name, value);
            }
            None => *unknown.entry(name).or_default() += 1,
        }
    }
    if let Some(residual) = residual.filter(|_| !rest.is_empty()) {
        let entry = row.entry(residual.name).or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(labels) = entry {
            rest.append(labels);
            *labels = rest;
        } else {
            *entry = Value::Object(rest);
        }
    }
    Ok((ts, row))
}

fn instant(value: Option<&Value>, unit: TimeUnitChoice) -> Result<Timestamp, String> {
    let scale = match unit {
        TimeUnitChoice::Seconds => 1_000_000,
        TimeUnitChoice::Millis => 1_000,
        TimeUnitChoice::Micros => 1,
    };
    match value {
        Some(Value::String(text)) => {
            text.parse().map_err(|error: crate::time::TimeError| format!("field 'ts': {error}"))
        }
        Some(Value::Number(number)) => {
            let whole = number.as_i64().and_then(|whole| whole.checked_mul(scale));
            // Fractions of a second are common; a Float64 holds microseconds of our century exactly.
            let micros = whole.or_else(|| {
                number
                    .as_f64()
                    .map(|value| value * scale as f64)
                    .filter(|value| value.abs() < 9e15)
                    .map(|value| value.round() as i64)
            });
            micros.map(Timestamp).ok_or_else(|| format!("field 'ts': {number} is out of range"))
        }
        Some(other) => Err(format!("field 'ts': expected RFC 3339 or a number, found {}", kind_of(other))),
        None => Err("field 'ts' is missing".to_string()),
    }
}

fn kind_of(value: &Value) -> String {
    match value {
        Value::Null => "null".to_string(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => format!("'{}'", text.chars().take(60).collect::<String>()),
        Value::Array(_) => "an array".to_string(),
        Value::Object(_) => "an object".to_string(),
    }
}

/// Whether a value fits a column; the error is what was expected.
fn check(column: &Column, value: &Value) -> Result<(), &'static str> {
    let good = match (column.column_type, value) {
        (_, Value::Null) => true,
        (ColumnType::Int64, value) => value.as_i64().is_some(),
        (ColumnType::Float64 | ColumnType::Float64WithNan, value) => float(value).is_some(),
        (ColumnType::Bool, value) => value.is_boolean(),
        (ColumnType::Utf8, value) => value.is_string(),
        (ColumnType::Timestamp, value) => instant(Some(value), TimeUnitChoice::Micros).is_ok(),
        (ColumnType::Map, value) => value.is_object(),
    };
    let expected = match column.column_type {
        ColumnType::Int64 => "a whole number",
        ColumnType::Float64 | ColumnType::Float64WithNan => "a number",
        ColumnType::Bool => "true or false",
        ColumnType::Utf8 => "a string",
        ColumnType::Timestamp => "RFC 3339 or microseconds",
        ColumnType::Map => "an object",
    };
    if good { Ok(()) } else { Err(expected) }
}

/// JSON has no NaN: the usual words for it and for the infinities are taken.
fn float(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => match text.to_ascii_lowercase().as_str() {
            "nan" => Some(f64::NAN),
            "+inf" | "inf" | "infinity" | "+infinity" => Some(f64::INFINITY),
            "-inf" | "-infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    }
}

fn to_batch(table: &Table, rows: &[(Timestamp, Map<String, Value>)]) -> RecordBatch {
    let mut times = TimestampMicrosecondBuilder::with_capacity(rows.len()).with_timezone("UTC");
    rows.iter().for_each(|(ts, _)| times.append_value(ts.0));
    let mut columns: Vec<ArrayRef> = vec![Arc::new(times.finish())];
    columns.extend(table.columns.iter().map(|column| column_of(column, rows)));
    // The columns were built by the same registry that makes the schema: they can't disagree.
    RecordBatch::try_new(table.schema(), columns).unwrap_or_else(|_| RecordBatch::new_empty(table.schema()))
}

fn column_of(column: &Column, rows: &[(Timestamp, Map<String, Value>)]) -> ArrayRef {
    let values = rows.iter().map(|(_, row)| row.get(column.name).unwrap_or(&Value::Null));
    match column.column_type {
        ColumnType::Int64 => {
            let mut builder = Int64Builder::with_capacity(rows.len());
            values.for_each(|value| builder.append_option(value.as_i64()));
            Arc::new(builder.finish())
        }
        ColumnType::Float64 | ColumnType::Float64WithNan => {
            let mut builder = Float64Builder::with_capacity(rows.len());
            values.for_each(|value| builder.append_option(float(value)));
            Arc::new(builder.finish())
        }
        ColumnType::Bool => {
            let mut builder = BooleanBuilder::with_capacity(rows.len());
            values.for_each(|value| builder.append_option(value.as_bool()));
            Arc::new(builder.finish())
        }
        ColumnType::Utf8 => {
            let mut builder = StringBuilder::new();
            values.for_each(|value| builder.append_option(value.as_str()));
            Arc::new(builder.finish())
        }
        ColumnType::Timestamp => {
            let mut builder = TimestampMicrosecondBuilder::with_capacity(rows.len()).with_timezone("UTC");
            values.for_each(|value| {
                builder.append_option(instant(Some(value), TimeUnitChoice::Micros).ok().map(|ts| ts.0))
            });
            Arc::new(builder.finish())
        }
        ColumnType::Map => map_of(values),
    }
}

/// Objects as sorted pairs of text.
fn map_of<'a>(values: impl Iterator<Item = &'a Value>) -> ArrayRef {
    let names = MapFieldNames { entry: "entries".into(), key: "keys".into(), value: "values".into() };
    let mut builder = MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new());
    for value in values {
        let pairs: BTreeMap<&String, &Value> = value.as_object().into_iter().flatten().collect();
        for (name, value) in &pairs {
            builder.keys().append_value(name);
            match value {
                Value::Null => builder.values().append_null(),
                Value::String(text) => builder.values().append_value(text),
                other => builder.values().append_value(other.to_string()),
            }
        }
        // Keys and values were appended in pairs, so this can't fail.
        drop(builder.append(value.is_object()));
    }
    sorted_map(builder.finish())
}

/// The same map with the registry's type, which says that keys are sorted.
pub fn sorted_map(map: MapArray) -> ArrayRef {
    let (_, offsets, entries, nulls, _) = map.into_parts();
    match ColumnType::Map.arrow() {
        DataType::Map(field, sorted) => Arc::new(MapArray::new(field, offsets, entries, nulls, sorted)),
        _ => Arc::new(entries),
    }
}
