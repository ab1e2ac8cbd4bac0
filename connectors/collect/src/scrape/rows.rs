//! Rows of `metrics` in the making.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Builder, MapBuilder, MapFieldNames, RecordBatch, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::error::ArrowError;
use tidewatch_model::Timestamp;
use tidewatch_model::table::find;
use tidewatch_model::wire::json::sorted_map;

/// Labels of a row, by name.
pub type Labels<'a> = BTreeMap<Cow<'a, str>, &'a str>;

/// A batch under construction.
pub struct Rows {
    times: TimestampMicrosecondBuilder,
    names: StringBuilder,
    labels: MapBuilder<StringBuilder, StringBuilder>,
    values: Float64Builder,
    count: usize,
}

impl Default for Rows {
    fn default() -> Self {
        let names = MapFieldNames { entry: "entries".into(), key: "keys".into(), value: "values".into() };
        Rows {
            times: TimestampMicrosecondBuilder::new().with_timezone("UTC"),
            names: StringBuilder::new(),
            labels: MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new()),
            values: Float64Builder::new(),
            count: 0,
        }
    }
}

impl Rows {
    /// Adds a row. NaN is NULL: from here on the series has no number, because it has none or because it has ended.
    pub fn push(&mut self, ts: Timestamp, name: &str, labels: &Labels<'_>, value: f64) {
        self.times.append_value(ts.0);
        self.names.append_value(name);
        for (name, value) in labels {
            self.labels.keys().append_value(name);
            self.labels.values().append_value(value);
        }
        // Keys and values were appended in pairs, so this can't fail.
        drop(self.labels.append(true));
        self.values.append_option(Some(value).filter(|value| !value.is_nan()));
        self.count += 1;
    }

    /// The batch; `None` when there is no row.
    ///
    /// # Errors
    /// The columns do not fit the table, which is a mistake here.
    pub fn finish(mut self) -> Result<Option<RecordBatch>, ArrowError> {
        let Some(table) = find("metrics").filter(|_| self.count > 0) else { return Ok(None) };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.times.finish()),
            Arc::new(self.names.finish()),
            sorted_map(self.labels.finish()),
            Arc::new(self.values.finish()),
        ];
        RecordBatch::try_new(table.schema(), columns).map(Some)
    }
}
