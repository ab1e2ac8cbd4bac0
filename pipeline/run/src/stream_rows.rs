//! What a stream yields, as rows of its table.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use tidewatch_model::table;
use tidewatch_model::{Evaluation, GroupState, Key, Outcome, Timestamp, Value, Values};

/// Rows of a stream: those of one window.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamRows {
    /// The stream, which is its table's name.
    pub stream: String,
    /// Of which form of it: a hash of its SELECT.
    pub version: String,
    /// The window's end, which is `ts` of all rows.
    pub end: Timestamp,
    /// The rows.
    pub rows: RecordBatch,
}

impl StreamRows {
    /// Those of an evaluation; `None` where it has none.
    ///
    /// # Errors
    /// Values that are not of the table's types: a bug.
    pub fn of(evaluation: &Evaluation, version: &str) -> Result<Option<StreamRows>, ArrowError> {
        let (Outcome::Groups(findings), Some(found)) = (&evaluation.outcome, table::find(&evaluation.rule)) else {
            return Ok(None);
        };
        let groups: Vec<(&Key, &Values)> = findings
            .iter()
            .filter_map(|finding| match &finding.state {
                GroupState::Firing(values) => Some((&finding.key, values)),
                _ => None,
            })
            .collect();
        if groups.is_empty() {
            return Ok(None);
        }
        let schema = found.schema();
        let columns = schema.fields().iter().map(|field| match found.column(field.name()) {
            None => times(&vec![Some(evaluation.window_end); groups.len()]),
            Some(column) if column.identity => of_key(&groups, column.name, field.data_type()),
            Some(column) => {
                let of_group = |(_, values): &(&Key, &Values)| {
                    values.iter().find(|(name, _)| name == column.name).map_or(Value::Null, |(_, value)| value.clone())
                };
                of_values(&groups.iter().map(of_group).collect::<Vec<_>>(), field.data_type())
            }
        });
        let rows = RecordBatch::try_new(schema.clone(), columns.collect())?;
        let (stream, version, end) = (evaluation.rule.clone(), version.to_string(), evaluation.window_end);
        Ok(Some(StreamRows { stream, version, end, rows }))
    }
}

fn times(instants: &[Option<Timestamp>]) -> ArrayRef {
    let micros = instants.iter().map(|instant| instant.map(|instant| instant.0));
    Arc::new(micros.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
}

fn of_key(groups: &[(&Key, &Values)], name: &str, data_type: &DataType) -> ArrayRef {
    let texts = groups.iter().map(|(key, _)| key.get(name).map(String::as_str));
    match data_type {
        DataType::Int64 => Arc::new(texts.map(|text| text?.parse().ok()).collect::<Int64Array>()),
        DataType::Float64 => Arc::new(texts.map(|text| text?.parse().ok()).collect::<Float64Array>()),
        DataType::Boolean => Arc::new(texts.map(|text| text?.parse().ok()).collect::<BooleanArray>()),
        _ => Arc::new(texts.collect::<StringArray>()),
    }
}

fn of_values(values: &[Value], data_type: &DataType) -> ArrayRef {
    let integer = |value: &Value| if let Value::Int(number) = value { Some(*number) } else { None };
    let flag = |value: &Value| if let Value::Bool(flag) = value { Some(*flag) } else { None };
    match data_type {
        DataType::Int64 => Arc::new(values.iter().map(integer).collect::<Int64Array>()),
        DataType::Float64 => Arc::new(values.iter().map(Value::as_f64).collect::<Float64Array>()),
        DataType::Boolean => Arc::new(values.iter().map(flag).collect::<BooleanArray>()),
        DataType::Timestamp(..) => {
            let instant = |value: &Value| if let Value::Text(text) = value { text.parse().ok() } else { None };
            times(&values.iter().map(instant).collect::<Vec<_>>())
        }
        _ => {
            let text = |value: &Value| if *value == Value::Null { None } else { Some(value.to_string()) };
            Arc::new(values.iter().map(text).collect::<StringArray>())
        }
    }
}
