//! `tidewatch tables`: what can be asked.

use arrow::datatypes::DataType;
use serde_json::{Map, Value, json};
use tidewatch_model::table::{self, Column, ColumnType, TABLES, Table, find_dimension};
use tidewatch_sql::bundled::{RuleFile, VIEWS};
use tidewatch_sql::{Compiler, suggestion};

use crate::failure::Failure;
use crate::output::{Format, format_or_default, print_objects, table_text};

/// Which tables.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tidewatch tables              every table, and the bundled views\n  tidewatch tables gpu          the columns of one, with unit, source and meaning of NULL\n  tidewatch tables --format json | jq ."
)]
pub struct Args {
    /// The table whose columns are printed.
    table: Option<String>,
    /// How to print.
    #[arg(long, value_enum)]
    format: Option<Format>,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    print_objects(format_or_default(args.format), &objects(args.table.as_deref())?)
}

/// All tables and bundled views, or the columns of one, aligned for people.
///
/// # Errors
/// No such table.
pub fn text(table: Option<&str>) -> Result<String, Failure> {
    Ok(table_text(&objects(table)?))
}

fn objects(table: Option<&str>) -> Result<Vec<Map<String, Value>>, Failure> {
    let compiler = Compiler::new().map_err(Failure::no)?;
    let Some(name) = table else {
        let views = VIEWS.iter().map(|view| view_summary(&compiler, view));
        return TABLES.iter().map(|table| Ok(summary(table))).chain(views).collect();
    };
    if let Some(found) = find_dimension(name) {
        return Ok(described(found.columns).collect());
    }
    if let Some(columns) = compiler.columns_of_view(name).map_err(Failure::no)? {
        return Ok(columns.into_iter().map(of_view).collect());
    }
    let unknown = || {
        let views = VIEWS.iter().map(RuleFile::rule_name);
        let near = suggestion(name, TABLES.iter().map(|table| table.name).chain(views));
        Failure::usage(format!("unknown table '{name}'{near}"))
    };
    Ok(columns(table::find(name).ok_or_else(unknown)?))
}

fn summary(table: &Table) -> Map<String, Value> {
    let identity: Vec<&str> = table.identity().collect();
    object([
        ("table", json!(table.name)),
        ("kind", json!(table.kind)),
        ("interval", json!(if table.interval.0 > 0 { table.interval.to_string() } else { String::new() })),
        ("identity", json!(identity.join(", "))),
        ("columns", json!(table.columns.len() + 1)),
        ("meaning", json!(format!("one row is {}", table.meaning))),
    ])
}

fn view_summary(compiler: &Compiler, view: &RuleFile) -> Result<Map<String, Value>, Failure> {
    let columns = compiler.columns_of_view(view.rule_name()).map_err(Failure::no)?.unwrap_or_default();
    Ok(object([
        ("table", json!(view.rule_name())),
        ("kind", json!("view")),
        ("interval", json!("")),
        ("identity", json!("")),
        ("columns", json!(columns.len())),
        ("meaning", json!(view.meaning())),
    ]))
}

/// A view's column: the types are known, and what its table's columns mean is told there.
fn of_view((name, data_type): (String, DataType)) -> Map<String, Value> {
    let kind = match data_type {
        DataType::Timestamp(..) => type_name(ColumnType::Timestamp).to_string(),
        DataType::Utf8View | DataType::LargeUtf8 => type_name(ColumnType::Utf8).to_string(),
        DataType::Boolean => type_name(ColumnType::Bool).to_string(),
        other => other.to_string(),
    };
    object([
        ("column", json!(name)),
        ("type", json!(kind)),
        ("identity", json!("")),
        ("unit", json!("")),
        ("source", json!("the view")),
        ("null", json!("")),
    ])
}

fn columns(table: &Table) -> Vec<Map<String, Value>> {
    let time = object([
        ("column", json!("ts")),
        ("type", json!(type_name(ColumnType::Timestamp))),
        ("identity", json!("")),
        ("unit", json!("microseconds since the epoch, UTC")),
        ("source", json!("when the row was collected, or the event happened")),
        ("null", json!("never")),
    ]);
    std::iter::once(time).chain(described(table.columns)).collect()
}

fn described(columns: &[Column]) -> impl Iterator<Item = Map<String, Value>> {
    columns.iter().map(|column| {
        object([
            ("column", json!(column.name)),
            ("type", json!(type_name(column.column_type))),
            ("identity", json!(if column.identity { "identity" } else { "" })),
            ("unit", json!(column.unit)),
            ("source", json!(column.source)),
            ("null", json!(column.null_means)),
        ])
    })
}

fn type_name(kind: ColumnType) -> &'static str {
    match kind {
        ColumnType::Timestamp => "Timestamp(us, UTC)",
        ColumnType::Int64 => "Int64",
        ColumnType::Float64 | ColumnType::Float64WithNan => "Float64",
        ColumnType::Utf8 => "Utf8",
        ColumnType::Bool => "Bool",
        ColumnType::Map => "Map<Utf8, Utf8>",
    }
}

fn object<const N: usize>(pairs: [(&str, Value); N]) -> Map<String, Value> {
    pairs.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use tidewatch_model::table::DIMENSIONS;

    use super::*;

    /// docs/tables.md is what the registry says.
    #[test]
    fn the_page_of_all_tables_is_true() {
        let mut page = "# Tables\n\nEvery table, as `tidewatch tables` has them. A test writes this page: TIDEWATCH_WRITE_DOCS=1.\n".to_string();
        let mut add = |name: &str, head: String, columns: Vec<Map<String, Value>>| {
            page += &format!(
                "\n## {name}\n\n{head}\n\n| Column | Type | Unit | Source | NULL means |\n|---|---|---|---|---|\n"
            );
            for column in columns {
                let text = |name: &str| column[name].as_str().unwrap_or_default().replace('|', "\\|");
                let mark = if text("identity").is_empty() { "" } else { " *" };
                let cells = [text("type"), text("unit"), text("source"), text("null")].join(" | ");
                page += &format!("| `{}`{mark} | {cells} |\n", text("column"));
            }
        };
        for table in TABLES {
            let every = if table.interval.0 > 0 { format!(", every {}", table.interval) } else { String::new() };
            let kind = json!(table.kind).as_str().unwrap_or_default().to_string();
            add(
                table.name,
                format!("One row is {} ({kind}{every}). Columns with * identify a series.", table.meaning),
                columns(table),
            );
        }
        for dimension in DIMENSIONS {
            let head = format!("A dimension table: one row is {}.", dimension.meaning);
            add(dimension.name, head, described(dimension.columns).collect());
        }
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/tables.md");
        if std::env::var_os("TIDEWATCH_WRITE_DOCS").is_some() {
            std::fs::write(&path, &page).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(found == page, "docs/tables.md is not what the tables are: run this test with TIDEWATCH_WRITE_DOCS=1");
    }
}
