//! Dimension tables: small tables besides the rows over time, that rules may join.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, SchemaRef};
use tidewatch_model::limits::DIMENSION_ROWS;
use tidewatch_model::table::{self, DIMENSIONS, XIDS};

use crate::settings;

/// Why rows are not taken as a dimension table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DimensionError {
    /// The name is a table's of rows over time.
    #[error("'{0}' is a table of rows over time: expected another name for a dimension table")]
    Taken(String),
    /// It has other columns than before, or than rules expect.
    #[error("table '{name}' has the columns {found}: expected {expected}")]
    Columns {
        /// The table.
        name: String,
        /// What came.
        found: String,
        /// What it must have.
        expected: String,
    },
    /// It is too long.
    #[error("table '{name}' has {rows} rows: expected {DIMENSION_ROWS} at most")]
    Long {
        /// The table.
        name: String,
        /// Its rows.
        rows: usize,
    },
}

/// The dimension tables and their rows, each in one batch.
///
/// ```
/// let dimensions = tidewatch_sql::Dimensions::default();
/// let names: Vec<&str> = dimensions.tables().map(|(name, _)| name).collect();
/// assert_eq!(names, ["expected", "maintenance", "settings", "xid_catalog"]);
/// ```
#[derive(Debug, Clone)]
pub struct Dimensions {
    tables: BTreeMap<String, RecordBatch>,
}

impl Default for Dimensions {
    /// Those whose columns are known, without rows, but `xid_catalog` and `settings`.
    fn default() -> Self {
        let empty = |dimension: &table::Dimension| RecordBatch::new_empty(dimension.schema());
        let mut tables: BTreeMap<String, RecordBatch> =
            DIMENSIONS.iter().map(|dimension| (dimension.name.to_string(), empty(dimension))).collect();
        if let Some(catalog) = tables.get_mut("xid_catalog") {
            let text = |of: fn(&(i64, &'static str, &'static str, &'static str)) -> &'static str| {
                Arc::new(StringArray::from_iter_values(XIDS.iter().map(of)))
            };
            let codes = Arc::new(Int64Array::from_iter_values(XIDS.iter().map(|xid| xid.0)));
            let columns = vec![codes as _, text(|xid| xid.1) as _, text(|xid| xid.2) as _, text(|xid| xid.3) as _];
            // The schema is that of the registry, column by column; a test reads the rows back.
            if let Ok(rows) = RecordBatch::try_new(catalog.schema(), columns) {
                *catalog = rows;
            }
        }
        if let Some(rows) = settings::rows() {
            tables.insert(settings::TABLE.to_string(), rows);
        }
        Dimensions { tables }
    }
}

impl Dimensions {
    /// Gives a table its rows: a new one, or one that is known, whose columns must be the same.
    ///
    /// # Errors
    /// Another table's name, other columns, too many rows.
    pub fn set(&mut self, name: &str, rows: RecordBatch) -> Result<(), DimensionError> {
        if table::find(name).is_some() {
            return Err(DimensionError::Taken(name.to_string()));
        }
        if rows.num_rows() > DIMENSION_ROWS {
            return Err(DimensionError::Long { name: name.to_string(), rows: rows.num_rows() });
        }
        if let Some(known) = self.tables.get(name)
            && columns(&known.schema()) != columns(&rows.schema())
        {
            let [found, expected] = [rows.schema(), known.schema()].map(|schema| columns(&schema).join(", "));
            return Err(DimensionError::Columns { name: name.to_string(), found, expected });
        }
        // Its columns are those of the bundled ones: that they fit together was seen above.
        let rows = if name == settings::TABLE { settings::in_force(&rows).unwrap_or(rows) } else { rows };
        self.tables.insert(name.to_string(), rows);
        Ok(())
    }

    /// The tables by name.
    pub fn tables(&self) -> impl Iterator<Item = (&str, &RecordBatch)> {
        self.tables.iter().map(|(name, rows)| (name.as_str(), rows))
    }

    /// A table's rows.
    pub fn rows(&self, name: &str) -> Option<&RecordBatch> {
        self.tables.get(name)
    }
}

fn columns(schema: &SchemaRef) -> Vec<String> {
    let name = |data_type: &DataType| data_type.to_string();
    schema.fields().iter().map(|field| format!("{} {}", field.name(), name(field.data_type()))).collect()
}
