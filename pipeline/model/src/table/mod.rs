//! The tables: name, kind, columns with their types, units, sources and the meaning of NULL. Collectors, rules, the lake
//! and the documentation all read this registry; `tidewatch tables` prints it.
//!
//! Every table has `ts` as its first column: the time at which the row was collected or the event happened.

mod dimension;
mod registry;

use std::sync::{Arc, LazyLock, PoisonError, RwLock};

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
        matches!(self.name, "alert_event" | "notice_event" | "silence_event")
    }

    /// Partitions of its topic on a cluster (contracts.md, Wire and log). What the engine writes itself has one.
    pub fn cluster_partitions(&self) -> u32 {
        match self.name {
            "gpu" | "host" => 12,
            _ if self.is_own() => 1,
            // One for each share that makes a stream.
            name if TABLES.iter().all(|table| table.name != name) => 12,
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

/// Tables that rules make: streams, in the order in which they were made known. They are as lasting as those of the registry.
static STREAMS: RwLock<Vec<&'static Table>> = RwLock::new(Vec::new());

/// Names whose topics the engine keeps for itself.
const RESERVED: [&str; 4] = ["alert_state", "notice_state", "tick", "engine"];

/// Why a stream can't have its name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameTaken {
    /// This process knows it with other columns.
    #[error("'{0}' is known with other columns: expected another name, or a new start")]
    OtherColumns(String),
    /// Its topic is the engine's own.
    #[error("'{0}' is a name that Tidewatch keeps for itself: expected another")]
    Reserved(String),
}

/// Makes a stream known: rows of windows that are no longer aggregated again, as a table of samples. Its columns after `ts` are given by
/// name, type and whether they identify a row. The same stream may be made known again.
///
/// # Errors
/// The name is taken by a table with other columns, or kept.
pub fn register(
    name: &str,
    interval: Span,
    columns: &[(String, ColumnType, bool)],
) -> Result<&'static Table, NameTaken> {
    if RESERVED.contains(&name) {
        return Err(NameTaken::Reserved(name.to_string()));
    }
    let mut streams = STREAMS.write().unwrap_or_else(PoisonError::into_inner);
    let known = TABLES.iter().chain(streams.iter().copied()).find(|table| table.name == name);
    if let Some(known) = known {
        let same = known
            .columns
            .iter()
            .map(|column| (column.name, column.column_type, column.identity))
            .eq(columns.iter().map(|(name, column_type, identity)| (name.as_str(), *column_type, *identity)));
        return if same { Ok(known) } else { Err(NameTaken::OtherColumns(name.to_string())) };
    }
    let leak = |text: &str| -> &'static str { Box::leak(text.to_string().into_boxed_str()) };
    let columns: Vec<Column> = columns
        .iter()
        .map(|(name, column_type, identity)| Column {
            name: leak(name),
            column_type: *column_type,
            identity: *identity,
            unit: "",
            source: "CREATE STREAM",
            null_means: "the SELECT's value is NULL",
        })
        .collect();
    let table = Table {
        name: leak(name),
        meaning: "one group of one window of a stream; ts is the window's end",
        kind: TableKind::Sample,
        interval,
        columns: Vec::leak(columns),
    };
    let table: &'static Table = Box::leak(Box::new(table));
    streams.push(table);
    Ok(table)
}

/// Every table: those of the registry, and the streams that are known by now.
pub fn all() -> Vec<&'static Table> {
    let streams = STREAMS.read().unwrap_or_else(PoisonError::into_inner);
    TABLES.iter().chain(streams.iter().copied()).collect()
}

/// A table by name.
///
/// ```
/// let gpu = tidewatch_model::table::find("gpu").unwrap();
/// assert_eq!(gpu.identity().collect::<Vec<_>>(), ["host", "gpu_uuid", "mig_uuid"]);
/// ```
pub fn find(name: &str) -> Option<&'static Table> {
    let of_registry = TABLES.iter().find(|table| table.name == name);
    of_registry.or_else(|| {
        let streams = STREAMS.read().unwrap_or_else(PoisonError::into_inner);
        streams.iter().copied().find(|table| table.name == name)
    })
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
