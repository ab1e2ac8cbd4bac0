//! What commands print: tables with colour for a terminal, JSON lines or CSV for a pipe.

use std::io::{IsTerminal, Write};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use arrow::util::pretty::pretty_format_batches_with_options;
use clap::ValueEnum;

use crate::failure::Failure;

/// How rows are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns for people; the default on a terminal.
    Table,
    /// One JSON object per line; the default in a pipe.
    Json,
    /// Comma separated values with a header.
    Csv,
}

/// The format asked for, or the one that fits where the output goes.
pub fn format_or_default(asked: Option<Format>) -> Format {
    asked.unwrap_or(if std::io::stdout().is_terminal() { Format::Table } else { Format::Json })
}

/// Whether colour may be used on this stream: only on a terminal, and not when `NO_COLOR` says no.
pub fn colour(terminal: bool) -> bool {
    terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Prints batches of one schema; the first one may be empty and gives the header.
pub struct BatchPrinter<W: Write> {
    format: Format,
    out: W,
    pending: Vec<RecordBatch>,
    csv_header: bool,
}

/// Rows that a terminal table holds back to align its columns; beyond it a new table begins.
const TABLE_ROWS: usize = 10_000;

impl<W: Write> BatchPrinter<W> {
    /// Prints to `out`.
    pub fn new(format: Format, out: W) -> Self {
        BatchPrinter { format, out, pending: vec![], csv_header: true }
    }

    /// Takes one batch.
    pub fn print(&mut self, batch: RecordBatch) -> Result<(), Failure> {
        match self.format {
            Format::Table => {
                self.pending.push(batch);
                if self.pending.iter().map(RecordBatch::num_rows).sum::<usize>() >= TABLE_ROWS {
                    self.finish()?;
                }
            }
            Format::Json => {
                let mut writer = tidewatch_model::json::lines(&mut self.out, true);
                writer.write(&batch).and_then(|()| writer.finish()).map_err(Failure::output)?;
            }
            Format::Csv => {
                let batch = without_nesting(&batch).map_err(Failure::output)?;
                let mut writer = arrow::csv::WriterBuilder::new().with_header(self.csv_header).build(&mut self.out);
                writer.write(&batch).map_err(Failure::output)?;
                self.csv_header = false;
            }
        }
        Ok(())
    }

    /// Prints what was held back.
    pub fn finish(&mut self) -> Result<(), Failure> {
        if !self.pending.is_empty() {
            let options = FormatOptions::default().with_timestamp_tz_format(Some("%Y-%m-%dT%H:%M:%S%.6fZ"));
            let text = pretty_format_batches_with_options(&self.pending, &options).map_err(Failure::output)?;
            let rows: usize = self.pending.drain(..).map(|batch| batch.num_rows()).sum();
            writeln!(self.out, "{text}\n{rows} rows").map_err(Failure::output)?;
        }
        self.out.flush().map_err(Failure::output)
    }
}

/// Maps and lists as text, which CSV has no other form for.
fn without_nesting(batch: &RecordBatch) -> Result<RecordBatch, arrow::error::ArrowError> {
    let schema = batch.schema();
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    for (field, column) in schema.fields().iter().zip(batch.columns()) {
        if field.data_type().is_nested() {
            let formatter = ArrayFormatter::try_new(column, &FormatOptions::default())?;
            let text = (0..batch.num_rows()).map(|row| column.is_valid(row).then(|| formatter.value(row).to_string()));
            fields.push(Field::new(field.name(), DataType::Utf8, true));
            columns.push(Arc::new(text.collect::<StringArray>()) as ArrayRef);
        } else {
            fields.push(field.as_ref().clone());
            columns.push(column.clone());
        }
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
}

/// Prints a list of objects: each a JSON object whose keys are the columns, in order.
pub fn print_objects(format: Format, objects: &[serde_json::Map<String, serde_json::Value>]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match format {
        Format::Json => {
            for object in objects {
                writeln!(out, "{}", serde_json::Value::Object(object.clone())).map_err(Failure::output)?;
            }
        }
        Format::Csv => {
            let quote = |field: String| {
                if field.contains([',', '"', '\n']) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field }
            };
            if let Some(first) = objects.first() {
                let header: Vec<String> = first.keys().cloned().map(quote).collect();
                writeln!(out, "{}", header.join(",")).map_err(Failure::output)?;
            }
            for object in objects {
                let fields: Vec<String> = object.values().map(|value| quote(text(value))).collect();
                writeln!(out, "{}", fields.join(",")).map_err(Failure::output)?;
            }
        }
        Format::Table => {
            write!(out, "{}", table_text(objects)).map_err(Failure::output)?;
        }
    }
    out.flush().map_err(Failure::output)
}

fn text(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Objects as a table for people: a line of their keys, and one for each.
pub fn table_text(objects: &[serde_json::Map<String, serde_json::Value>]) -> String {
    let Some(first) = objects.first() else { return String::new() };
    let mut rows = vec![first.keys().cloned().collect::<Vec<String>>()];
    rows.extend(objects.iter().map(|object| object.values().map(text).collect()));
    aligned(&rows)
}

/// Rows of text as columns of equal width, two spaces apart.
pub fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
    }
    text
}
