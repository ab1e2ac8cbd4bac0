//! The tables: name, kind, columns with their types, units, sources and the meaning of NULL. Collectors, rules, the lake
//! and the documentation all read this registry; `tidewatch tables` prints it.
//!
//! Every table has `ts` as its first column: the time at which the row was collected or the event happened.

mod dimension;
mod registry;

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use serde::{Deserialize, Serialize};

pub use dimension::{DIMENSIONS, Dimension, XIDS, find_dimension};
pub use registry::TABLES;

use crate::time::Span;

/// The name of the time column of every table.
pub const TIME_COLUMN: &str = "ts";

/// What one row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TableKind {
    /// The state of something at a moment, taken again and again.
    Sample,
    /// Something that happened.
    Event,
}

/// The types that cross a border.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ColumnType {
    /// Timestamp(us, "UTC").
    Timestamp,
    /// Int64.
    Int64,
    /// Float64 in which NaN is a fault: admit makes it NULL and counts it.
    Float64,
    /// Float64 in which NaN is data (a loss).
    Float64WithNan,
    /// Utf8.
    Utf8,
    /// Bool.
    Bool,
    /// Map<Utf8, Utf8>, keys sorted at admit.
    Map,
}

/// One column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Column {
    /// Its name; the unit ends it.
    pub name: &'static str,
    /// Its type.
    pub column_type: ColumnType,
    /// Part of the identity of the row's series.
    pub identity: bool,
    /// The unit in words; empty for names and states.
    pub unit: &'static str,
    /// Where the value comes from.
    pub source: &'static str,
    /// What NULL means; empty where NULL is not allowed.
    pub null_means: &'static str,
}

/// One table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Table {
    /// Its name; its topic is `tidewatch.<name>`.
    pub name: &'static str,
    /// What one row is, in a sentence.
    pub meaning: &'static str,
    /// Samples or events.
    pub kind: TableKind,
    /// Default time between two rows of one series; zero for events.
    #[serde(skip)]
    pub interval: Span,
    /// The columns after `ts`.
    pub columns: &'static [Column],
}

impl ColumnType {
    /// The Arrow type on every border.
    pub fn arrow(self) -> DataType {
        match self {
            ColumnType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            ColumnType::Int64 => DataType::Int64,
            ColumnType::Float64 | ColumnType::Float64WithNan => DataType::Float64,
            ColumnType::Utf8 => DataType::Utf8,
            ColumnType::Bool => DataType::Boolean,
            ColumnType::Map => {
                let entries = DataType::Struct(
                    vec![Field::new("keys", DataType::Utf8, false), Field::new("values", DataType::Utf8, true)].into(),
                );
                DataType::Map(Arc::new(Field::new("entries", entries, false)), true)
            }
        }
    }
}

impl Table {
    /// The Arrow schema: `ts` first, not nullable; every other column nullable, in registry order.
    pub fn schema(&self) -> SchemaRef {
        let time = Field::new(TIME_COLUMN, ColumnType::Timestamp.arrow(), false);
        let rest = self.columns.iter().map(|column| Field::new(column.name, column.column_type.arrow(), true));
        Arc::new(Schema::new(std::iter::once(time).chain(rest).collect::<Vec<_>>()))
    }

    /// The identity columns, in registry order.
    pub fn identity(&self) -> impl Iterator<Item = &'static str> {
        self.columns.iter().filter(|column| column.identity).map(|column| column.name)
    }

    /// A column by name; `ts` is not among them.
    pub fn column(&self, name: &str) -> Option<&'static Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Whether the engine itself writes the table, about alerts: a rule over it would feed itself.
    pub fn is_own(&self) -> bool {
        matches!(self.name, "alert_event" | "notice_event")
    }

    /// Partitions of its topic on a cluster (contracts.md, Wire and log). What the engine writes itself has one.
    pub fn cluster_partitions(&self) -> u32 {
        match self.name {
            "gpu" | "host" => 12,
            _ if self.is_own() => 1,
            _ => 3,
        }
    }

    /// The topic that carries the table.
    pub fn topic(&self) -> String {
        format!("{TOPIC_PREFIX}{}", self.name)
    }
}

/// What every topic name begins with.
pub const TOPIC_PREFIX: &str = "tidewatch.";

/// A table by name.
///
/// ```
/// let gpu = tidewatch_model::table::find("gpu").unwrap();
/// assert_eq!(gpu.identity().collect::<Vec<_>>(), ["host", "gpu_uuid", "mig_uuid"]);
/// ```
pub fn find(name: &str) -> Option<&'static Table> {
    TABLES.iter().find(|table| table.name == name)
}

/// The table that a topic carries.
pub fn of_topic(topic: &str) -> Option<&'static Table> {
    find(topic.strip_prefix(TOPIC_PREFIX)?)
}

/// A fingerprint of a schema: FNV-1a 64 over column names and types in order, as 16 hex digits. Part of every frame.
pub fn schema_fingerprint(schema: &Schema) -> String {
    let text: Vec<String> =
        schema.fields().iter().map(|field| format!("{}:{}", field.name(), field.data_type())).collect();
    let labels = [("schema".to_string(), text.join(","))].into();
    crate::alert::fingerprint(&labels)
}

/// The schemas of all tables, made once.
pub static SCHEMAS: LazyLock<Vec<(&'static str, SchemaRef)>> =
    LazyLock::new(|| TABLES.iter().map(|table| (table.name, table.schema())).collect());
