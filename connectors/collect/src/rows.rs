//! Building a batch of a registry table from rows of named cells. The registry decides the order and the types of the
//! columns; a column that a row does not name is NULL.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Float64Builder, Int64Builder, MapBuilder, MapFieldNames, RecordBatch, StringBuilder,
    TimestampMicrosecondBuilder,
};
use arrow::datatypes::SchemaRef;
use tidewatch_model::Timestamp;
use tidewatch_model::table::{self, ColumnType, Table};
use tidewatch_model::wire::json::sorted_map;

/// One typed value.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// Not known; fits every column but `ts`.
    Null,
    /// For Int64 columns.
    Int(i64),
    /// For Float64 columns.
    Float(f64),
    /// For Utf8 columns.
    Text(String),
    /// For Bool columns.
    Bool(bool),
    /// For Timestamp columns.
    Time(Timestamp),
    /// For Map columns: names, each once, with their values.
    Map(Vec<(String, String)>),
}

/// Why rows could not become a batch: each is a mistake in a collector, not in what it read.
#[derive(Debug, thiserror::Error)]
pub enum RowsError {
    /// The registry has no such table.
    #[error("no table '{0}'")]
    NoSuchTable(String),
    /// The table has no such column.
    #[error("table '{table}' has no column '{column}'")]
    NoSuchColumn {
        /// The table.
        table: &'static str,
        /// The name given.
        column: String,
    },
    /// The cell is of another type than the column.
    #[error("{table}.{column} is {column_type:?}, not {cell}")]
    WrongType {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// What the registry says.
        column_type: ColumnType,
        /// What was given.
        cell: String,
    },
    /// Arrow refused the columns.
    #[error("{table}: {source}")]
    Arrow {
        /// The table.
        table: &'static str,
        /// What Arrow said.
        source: arrow::error::ArrowError,
    },
}

/// Rows of one table under construction.
///
/// ```
/// use tidewatch_collect::rows::Rows;
/// use tidewatch_model::Timestamp;
/// let mut rows = Rows::of("host").unwrap();
/// rows.push(Timestamp::from_seconds(1), [("host", "node-1".into()), ("load1", 0.5.into())]).unwrap();
/// let batch = rows.finish().unwrap().unwrap();
/// assert_eq!((batch.num_rows(), batch.schema().field(1).name().as_str()), (1, "host"));
/// ```
pub struct Rows {
    table: &'static Table,
    schema: SchemaRef,
    times: TimestampMicrosecondBuilder,
    columns: Vec<ColumnBuilder>,
    row: Vec<Cell>,
    count: usize,
}

impl Rows {
    /// An empty table by its registry name.
    pub fn of(name: &str) -> Result<Rows, RowsError> {
        let table = table::find(name).ok_or_else(|| RowsError::NoSuchTable(name.to_string()))?;
        Ok(Rows {
            table,
            schema: table.schema(),
            times: TimestampMicrosecondBuilder::new().with_timezone("UTC"),
            columns: table.columns.iter().map(|column| ColumnBuilder::new(column.column_type)).collect(),
            row: vec![],
            count: 0,
        })
    }

    /// Adds one row. Cells may come in any order; those in registry order are found fastest. When this fails, the row
    /// is not added.
    pub fn push<'a>(
        &mut self,
        ts: Timestamp,
        cells: impl IntoIterator<Item = (&'a str, Cell)>,
    ) -> Result<(), RowsError> {
        self.row.clear();
        self.row.resize(self.table.columns.len(), Cell::Null);
        let mut next = 0;
        for (name, cell) in cells {
            let index = self.index_of(name, next)?;
            self.check(index, &cell)?;
            self.row[index] = cell;
            next = index + 1;
        }
        self.times.append_value(ts.0);
        for (builder, cell) in self.columns.iter_mut().zip(self.row.drain(..)) {
            builder.append(cell);
        }
        self.count += 1;
        Ok(())
    }

    /// The number of rows so far.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is no row yet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The batch; `None` when there is no row.
    pub fn finish(mut self) -> Result<Option<RecordBatch>, RowsError> {
        if self.is_empty() {
            return Ok(None);
        }
        let mut arrays: Vec<ArrayRef> = vec![Arc::new(self.times.finish())];
        arrays.extend(self.columns.into_iter().map(ColumnBuilder::finish));
        let batch = RecordBatch::try_new(self.schema, arrays);
        batch.map(Some).map_err(|source| RowsError::Arrow { table: self.table.name, source })
    }

    fn index_of(&self, name: &str, hint: usize) -> Result<usize, RowsError> {
        let columns = self.table.columns;
        if columns.get(hint).is_some_and(|column| column.name == name) {
            return Ok(hint);
        }
        columns
            .iter()
            .position(|column| column.name == name)
            .ok_or_else(|| RowsError::NoSuchColumn { table: self.table.name, column: name.to_string() })
    }

    fn check(&self, index: usize, cell: &Cell) -> Result<(), RowsError> {
        let column = &self.table.columns[index];
        let fits = match cell {
            Cell::Null => true,
            Cell::Int(_) => column.column_type == ColumnType::Int64,
            Cell::Float(_) => matches!(column.column_type, ColumnType::Float64 | ColumnType::Float64WithNan),
            Cell::Text(_) => column.column_type == ColumnType::Utf8,
            Cell::Bool(_) => column.column_type == ColumnType::Bool,
            Cell::Time(_) => column.column_type == ColumnType::Timestamp,
            Cell::Map(_) => column.column_type == ColumnType::Map,
        };
        if fits {
            return Ok(());
        }
        let wrong = format!("{cell:?}");
        let (table, column_type) = (self.table.name, column.column_type);
        Err(RowsError::WrongType { table, column: column.name, column_type, cell: wrong })
    }
}

enum ColumnBuilder {
    Int(Int64Builder),
    Float(Float64Builder),
    Text(StringBuilder),
    Bool(BooleanBuilder),
    Time(TimestampMicrosecondBuilder),
    Map(Box<MapBuilder<StringBuilder, StringBuilder>>),
}

impl ColumnBuilder {
    fn new(column_type: ColumnType) -> Self {
        match column_type {
            ColumnType::Int64 => ColumnBuilder::Int(Int64Builder::new()),
            ColumnType::Float64 | ColumnType::Float64WithNan => ColumnBuilder::Float(Float64Builder::new()),
            ColumnType::Utf8 => ColumnBuilder::Text(StringBuilder::new()),
            ColumnType::Bool => ColumnBuilder::Bool(BooleanBuilder::new()),
            ColumnType::Timestamp => ColumnBuilder::Time(TimestampMicrosecondBuilder::new().with_timezone("UTC")),
            ColumnType::Map => {
                let names = MapFieldNames { entry: "entries".into(), key: "keys".into(), value: "values".into() };
                let (keys, values) = (StringBuilder::new(), StringBuilder::new());
                ColumnBuilder::Map(Box::new(MapBuilder::new(Some(names), keys, values)))
            }
        }
    }

    /// Appends a cell that was checked; one that does not fit is NULL.
    fn append(&mut self, cell: Cell) {
        match (self, cell) {
            (ColumnBuilder::Int(builder), Cell::Int(value)) => builder.append_value(value),
            (ColumnBuilder::Float(builder), Cell::Float(value)) => builder.append_value(value),
            (ColumnBuilder::Text(builder), Cell::Text(value)) => builder.append_value(value),
            (ColumnBuilder::Bool(builder), Cell::Bool(value)) => builder.append_value(value),
            (ColumnBuilder::Time(builder), Cell::Time(value)) => builder.append_value(value.0),
            (ColumnBuilder::Map(builder), Cell::Map(mut pairs)) => {
                pairs.sort();
                for (name, value) in pairs {
                    builder.keys().append_value(name);
                    builder.values().append_value(value);
                }
                // Keys and values were appended in pairs, so this can't fail.
                drop(builder.append(true));
            }
            (ColumnBuilder::Map(builder), _) => drop(builder.append(false)),
            (ColumnBuilder::Int(builder), _) => builder.append_null(),
            (ColumnBuilder::Float(builder), _) => builder.append_null(),
            (ColumnBuilder::Text(builder), _) => builder.append_null(),
            (ColumnBuilder::Bool(builder), _) => builder.append_null(),
            (ColumnBuilder::Time(builder), _) => builder.append_null(),
        }
    }

    fn finish(self) -> ArrayRef {
        match self {
            ColumnBuilder::Int(mut builder) => Arc::new(builder.finish()),
            ColumnBuilder::Float(mut builder) => Arc::new(builder.finish()),
            ColumnBuilder::Text(mut builder) => Arc::new(builder.finish()),
            ColumnBuilder::Bool(mut builder) => Arc::new(builder.finish()),
            ColumnBuilder::Time(mut builder) => Arc::new(builder.finish()),
            ColumnBuilder::Map(mut builder) => sorted_map(builder.finish()),
        }
    }
}

impl From<i64> for Cell {
    fn from(value: i64) -> Self {
        Cell::Int(value)
    }
}

impl From<f64> for Cell {
    fn from(value: f64) -> Self {
        Cell::Float(value)
    }
}

impl From<bool> for Cell {
    fn from(value: bool) -> Self {
        Cell::Bool(value)
    }
}

impl From<&str> for Cell {
    fn from(value: &str) -> Self {
        Cell::Text(value.to_string())
    }
}

impl From<String> for Cell {
    fn from(value: String) -> Self {
        Cell::Text(value)
    }
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Cell::Null, Into::into)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_named() {
        let mut rows = Rows::of("cpu").unwrap();
        let ts = Timestamp(0);
        assert!(Rows::of("nothing").is_err());
        assert_eq!(
            rows.push(ts, [("nothing", Cell::Null)]).unwrap_err().to_string(),
            "table 'cpu' has no column 'nothing'"
        );
        assert_eq!(
            rows.push(ts, [("core", "x".into())]).unwrap_err().to_string(),
            "cpu.core is Int64, not Text(\"x\")"
        );
        assert!(rows.finish().unwrap().is_none());
    }
}
