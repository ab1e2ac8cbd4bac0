//! From Arrow columns to the values that leave the engine.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::recovery::holds;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, MapArray, RecordBatch, RecordBatchOptions, StringArray};
use arrow::compute::{cast, prep_null_mask_filter};
use arrow::datatypes::{
    DataType, Float64Type, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, SchemaRef,
    TimeUnit, TimestampMicrosecondType,
};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use tidewatch_model::limits::{VALUE_BYTES, VALUES_BYTES};
use tidewatch_model::value::{cut, cut_label, map_text};
use tidewatch_model::{Key, Rule, Span, Timestamp, Value, Values};

/// One row of a rule's result.
#[derive(Debug, Clone, PartialEq)]
pub struct ResultRow {
    /// Event time, for row rules.
    pub ts: Option<Timestamp>,
    /// The identity.
    pub key: Key,
    /// The other columns, in SELECT order.
    pub values: Values,
}

/// Takes results apart: `key` names the identity columns, `time` an extra column that is neither.
pub fn result_rows(batches: &[RecordBatch], key: &[String], time: Option<&str>) -> Result<Vec<ResultRow>, ArrowError> {
    let mut rows = Vec::with_capacity(batches.iter().map(RecordBatch::num_rows).sum());
    for batch in batches {
        let columns =
            batch.columns().iter().map(|column| Column::new(column.as_ref())).collect::<Result<Vec<_>, _>>()?;
        let schema = batch.schema();
        let per_value = VALUE_BYTES.min(VALUES_BYTES / columns.len().max(1));
        for row in 0..batch.num_rows() {
            let mut result = ResultRow { ts: None, key: Key::new(), values: Values::new() };
            for (field, column) in schema.fields().iter().zip(&columns) {
                if let (Column::Map(maps), true) = (column, key.contains(field.name())) {
                    // Not cut: it is no label, its entries are.
                    result.key.extend(maps.text(row).map(|text| (field.name().clone(), text)));
                    continue;
                }
                let value = bounded(column.value(row), per_value);
                if time == Some(field.name()) {
                    result.ts = column.instant(row);
                } else if !key.contains(field.name()) {
                    result.values.push((field.name().clone(), value));
                } else if value != Value::Null {
                    result.key.insert(field.name().clone(), cut_label(value.to_string()));
                }
            }
            rows.push(result);
        }
    }
    Ok(rows)
}

/// One row for each identity, the worst, of those that a rule yields at one time; and how many others there were.
pub fn worst<K: Ord>(rule: &Rule, rows: impl Iterator<Item = (K, Values)>) -> (BTreeMap<K, Values>, u64) {
    let (mut found, mut repeated) = (BTreeMap::new(), 0);
    for (key, values) in rows {
        match found.entry(key) {
            Entry::Vacant(free) => drop(free.insert(values)),
            Entry::Occupied(mut known) => {
                repeated += 1;
                // Of equals the newest, which comes last.
                let by_condition = holds(&values).cmp(&holds(known.get()));
                if by_condition.then_with(|| rule.compare(&values, known.get())).is_ge() {
                    known.insert(values);
                }
            }
        }
    }
    (found, repeated)
}

/// A batch of so many rows; the number must be said where there are no columns.
pub fn batch_of(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch, ArrowError> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options)
}

/// A condition over rows, with NULL as false.
pub fn truths(condition: &dyn Array) -> BooleanArray {
    let condition = condition.as_boolean();
    match condition.null_count() {
        0 => condition.clone(),
        _ => prep_null_mask_filter(condition),
    }
}

/// An alert, its notices and its history must fit a record, whatever a rule selects.
fn bounded(value: Value, bytes: usize) -> Value {
    match value {
        Value::Text(text) => Value::Text(cut(text, bytes)),
        other => other,
    }
}

/// A column, brought to one of the few types that values have.
enum Column {
    Bool(BooleanArray),
    Int(arrow::array::Int64Array),
    Float(arrow::array::Float64Array),
    Time(arrow::array::TimestampMicrosecondArray),
    Text(Vec<Option<String>>),
    Map(Box<Maps>),
}

/// Maps whose keys and values are texts, whatever Arrow calls them.
struct Maps {
    map: MapArray,
    names: StringArray,
    values: StringArray,
}

impl Maps {
    fn new(map: &MapArray) -> Result<Maps, ArrowError> {
        let text = |array: &ArrayRef| Ok::<_, ArrowError>(cast(array, &DataType::Utf8)?.as_string::<i32>().clone());
        Ok(Maps { names: text(map.keys())?, values: text(map.values())?, map: map.clone() })
    }

    /// A map as text, unless it is NULL.
    fn text(&self, row: usize) -> Option<String> {
        let offsets = self.map.value_offsets();
        let entries = (offsets[row] as usize..offsets[row + 1] as usize)
            .filter(|at| self.names.is_valid(*at) && self.values.is_valid(*at))
            .map(|at| (self.names.value(at), self.values.value(at)));
        self.map.is_valid(row).then(|| map_text(entries))
    }
}

impl Column {
    fn new(array: &dyn Array) -> Result<Column, ArrowError> {
        let column = match array.data_type() {
            DataType::Boolean => Column::Bool(array.as_boolean().clone()),
            DataType::Int64 => Column::Int(array.as_primitive::<Int64Type>().clone()),
            DataType::Int8
            | DataType::Int16
            | DataType::Int32
            | DataType::UInt8
            | DataType::UInt16
            | DataType::UInt32
            | DataType::UInt64 => Column::Int(cast(array, &DataType::Int64)?.as_primitive::<Int64Type>().clone()),
            DataType::Float64 => Column::Float(array.as_primitive::<Float64Type>().clone()),
            DataType::Float16 | DataType::Float32 => {
                Column::Float(cast(array, &DataType::Float64)?.as_primitive::<Float64Type>().clone())
            }
            DataType::Timestamp(_, zone) => {
                let micros = cast(array, &DataType::Timestamp(TimeUnit::Microsecond, zone.clone()))?;
                Column::Time(micros.as_primitive::<TimestampMicrosecondType>().clone())
            }
            DataType::Interval(IntervalUnit::MonthDayNano) => {
                let intervals = array.as_primitive::<IntervalMonthDayNanoType>().iter();
                let day = Span::days(1).0;
                let span = |interval: IntervalMonthDayNano| {
                    Span(
                        i64::from(interval.months) * 30 * day
                            + i64::from(interval.days) * day
                            + interval.nanoseconds / 1_000,
                    )
                };
                Column::Text(intervals.map(|interval| interval.map(|interval| span(interval).to_string())).collect())
            }
            DataType::Map(..) => Column::Map(Box::new(Maps::new(array.as_map())?)),
            _ => {
                let formatter = ArrayFormatter::try_new(array, &FormatOptions::default())?;
                let text = (0..array.len()).map(|row| array.is_valid(row).then(|| formatter.value(row).to_string()));
                Column::Text(text.collect())
            }
        };
        Ok(column)
    }

    fn value(&self, row: usize) -> Value {
        match self {
            Column::Bool(array) if array.is_valid(row) => Value::Bool(array.value(row)),
            Column::Int(array) if array.is_valid(row) => Value::Int(array.value(row)),
            Column::Float(array) if array.is_valid(row) => Value::Float(array.value(row)),
            Column::Time(array) if array.is_valid(row) => Timestamp(array.value(row)).into(),
            Column::Text(text) => text[row].clone().map_or(Value::Null, Value::Text),
            Column::Map(maps) => maps.text(row).map_or(Value::Null, Value::Text),
            _ => Value::Null,
        }
    }

    fn instant(&self, row: usize) -> Option<Timestamp> {
        match self {
            Column::Time(array) if array.is_valid(row) => Some(Timestamp(array.value(row))),
            _ => None,
        }
    }
}
