//! Transitions and notices as rows of `alert_event` and `notice_event`, and as JSON with the same names.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Array, Int64Array, MapBuilder, MapFieldNames, RecordBatch, StringArray, StringBuilder,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Schema};
use arrow::error::ArrowError;
use serde_json::{Map, Value, json};
use tidewatch_flow::alerting::Silence;
use tidewatch_model::limits::{VALUE_BYTES, VALUES_BYTES};
use tidewatch_model::notice::Notice;
use tidewatch_model::table;
use tidewatch_model::value::{cut, headline};
use tidewatch_model::{Timestamp, Transition};

/// What happened to a notice in the end.
#[derive(Debug, Clone, PartialEq)]
pub struct NoticeOutcome {
    /// The notice.
    pub notice: Notice,
    /// `delivered` or `gave_up`.
    pub outcome: &'static str,
    /// Attempts made.
    pub attempts: i64,
    /// The last error, when there was one.
    pub error: Option<String>,
}

/// A transition as JSON: the columns of `alert_event`, in order. `processed_at` is left out of replays, which have none.
pub fn transition_object(transition: &Transition, processed_at: Option<Timestamp>) -> Map<String, Value> {
    let alert = &transition.alert;
    let mut object = Map::new();
    let mut put = |name: &str, value: Value| object.insert(name.to_string(), value);
    put("ts", json!(transition.ts));
    put("event_id", json!(transition.event_id));
    put("rule", json!(alert.rule));
    put("rule_version", json!(alert.rule_version));
    put("fingerprint", json!(alert.fingerprint()));
    put("labels", json!(alert.labels));
    put("severity", json!(alert.severity));
    put("from_state", json!(transition.from_state));
    put("to_state", json!(transition.to_state));
    put("reason", json!(transition.reason));
    put("value", json!(headline(&alert.values)));
    put(
        "values",
        Value::Object(alert.values.iter().map(|(name, value)| (name.clone(), json!(value.to_string()))).collect()),
    );
    put("window_start", json!(transition.window_start));
    put("window_end", json!(transition.window_end));
    if let Some(processed_at) = processed_at {
        put("processed_at", json!(processed_at));
    }
    object
}

/// Transitions as rows of `alert_event`.
///
/// # Errors
/// None that a correct registry allows.
pub fn transition_batch(transitions: &[Transition], processed_at: Timestamp) -> Result<RecordBatch, ArrowError> {
    let text = |value: fn(&Transition) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(transitions.iter().map(value)))
    };
    let time = |value: fn(&Transition) -> Timestamp| -> ArrayRef {
        Arc::new(
            TimestampMicrosecondArray::from_iter_values(transitions.iter().map(|row| value(row).0))
                .with_timezone("UTC"),
        )
    };
    rows_of("alert_event", |column| {
        Ok(match column {
            "ts" => time(|row| row.ts),
            "event_id" => text(|row| row.event_id.clone()),
            "rule" => text(|row| row.alert.rule.clone()),
            "rule_version" => text(|row| row.alert.rule_version.clone()),
            "fingerprint" => text(|row| row.alert.fingerprint()),
            "severity" => text(|row| row.alert.severity.to_string()),
            "from_state" => text(|row| row.from_state.to_string()),
            "to_state" => text(|row| row.to_state.to_string()),
            "reason" => text(|row| row.reason.to_string()),
            "window_start" => time(|row| row.window_start),
            "window_end" => time(|row| row.window_end),
            "value" => Arc::new(transitions.iter().map(|row| headline(&row.alert.values)).collect::<Float64Array>()),
            "labels" => map_array(transitions.iter().map(|row| row.alert.labels.iter()))?,
            "values" => map_array(transitions.iter().map(|row| {
                let mut pairs: Vec<(String, String)> =
                    row.alert.values.iter().map(|(name, value)| (name.clone(), value.to_string())).collect();
                pairs.sort();
                pairs
            }))?,
            "processed_at" => {
                let instants = transitions.iter().map(|_| processed_at.0);
                Arc::new(TimestampMicrosecondArray::from_iter_values(instants).with_timezone("UTC"))
            }
            other => return Err(ArrowError::SchemaError(format!("alert_event has an unknown column '{other}'"))),
        })
    })
}

/// Finished notices as rows of `notice_event`.
///
/// # Errors
/// None that a correct registry allows.
pub fn notice_batch(outcomes: &[NoticeOutcome], processed_at: Timestamp) -> Result<RecordBatch, ArrowError> {
    let text = |value: fn(&NoticeOutcome) -> Option<String>| -> ArrayRef {
        Arc::new(outcomes.iter().map(value).collect::<StringArray>())
    };
    let time = |value: &dyn Fn(&NoticeOutcome) -> Timestamp| -> ArrayRef {
        Arc::new(
            TimestampMicrosecondArray::from_iter_values(outcomes.iter().map(|row| value(row).0)).with_timezone("UTC"),
        )
    };
    rows_of("notice_event", |column| {
        Ok(match column {
            "ts" => time(&|row| row.notice.ts),
            "notice_id" => text(|row| Some(row.notice.notice_id.clone())),
            "receiver" => text(|row| Some(row.notice.target.clone())),
            "group_key" => text(|row| Some(row.notice.group_key.clone())),
            "status" => text(|row| serde_json::to_value(row.notice.status).ok()?.as_str().map(str::to_string)),
            "reason" => text(|row| Some(row.notice.reason.clone())),
            "outcome" => text(|row| Some(row.outcome.to_string())),
            "attempts" => Arc::new(Int64Array::from_iter_values(outcomes.iter().map(|row| row.attempts))),
            "alerts" => {
                Arc::new(Int64Array::from_iter_values(outcomes.iter().map(|row| row.notice.alerts.len() as i64)))
            }
            "error" => text(|row| row.error.clone()),
            "processed_at" => time(&|_| processed_at),
            "fingerprints" => text(|row| {
                let alerts = row.notice.alerts.iter().take(FINGERPRINTS);
                Some(alerts.map(|alert| alert.fingerprint()).collect::<Vec<_>>().join(" "))
            }),
            other => return Err(ArrowError::SchemaError(format!("notice_event has an unknown column '{other}'"))),
        })
    })
}

/// Fingerprints that a row of `notice_event` names, at most: with more it would not fit a record.
const FINGERPRINTS: usize = 20_000;

/// What was done to a silence, as a row of `silence_event`.
///
/// # Errors
/// None that a correct registry allows.
pub fn silence_batch(silence: &Silence, action: &str, by: &str, now: Timestamp) -> Result<RecordBatch, ArrowError> {
    let text = |text: &str| -> ArrayRef { Arc::new(StringArray::from_iter_values([text])) };
    let time = |ts: Timestamp| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from_iter_values([ts.0]).with_timezone("UTC"))
    };
    let matchers: Vec<String> = silence.matchers.iter().map(ToString::to_string).collect();
    rows_of("silence_event", |column| {
        Ok(match column {
            "ts" => time(now),
            "silence" => text(&silence.id),
            "action" => text(action),
            "matchers" => text(&cut(matchers.join(" "), VALUES_BYTES)),
            "starts_at" => time(silence.starts_at),
            "ends_at" => time(silence.ends_at),
            "by" => text(&cut(by.to_string(), VALUE_BYTES)),
            "created_by" => text(&cut(silence.created_by.clone(), VALUE_BYTES)),
            "comment" => text(&cut(silence.comment.clone(), VALUE_BYTES)),
            other => return Err(ArrowError::SchemaError(format!("silence_event has an unknown column '{other}'"))),
        })
    })
}

/// Figures as rows of `metrics`: each with its time, its name, one label, and its value; `part` is another label where it is not empty.
///
/// # Errors
/// A bug.
pub fn figure_rows(figures: &[(Timestamp, String, &str, String, f64)], part: &str) -> Result<RecordBatch, ArrowError> {
    rows_of("metrics", |column| {
        Ok(match column {
            "ts" => {
                let times = TimestampMicrosecondArray::from_iter_values(figures.iter().map(|figure| figure.0.0));
                Arc::new(times.with_timezone("UTC"))
            }
            "name" => Arc::new(StringArray::from_iter_values(figures.iter().map(|figure| &figure.1))),
            "labels" => map_array(figures.iter().map(|(_, _, label, of, _)| {
                let mut pairs = vec![(label.to_string(), of.clone())];
                if !part.is_empty() {
                    pairs.push(("part".to_string(), part.trim_end_matches('/').to_string()));
                }
                pairs.sort();
                pairs
            }))?,
            "value" => Arc::new(Float64Array::from_iter_values(figures.iter().map(|figure| figure.4))),
            other => return Err(ArrowError::SchemaError(format!("metrics has an unknown column '{other}'"))),
        })
    })
}

/// A batch of a registry table, by the array of each column.
///
/// # Errors
/// What a column's array says, or one that does not fit.
pub fn rows_of(name: &str, column: impl Fn(&str) -> Result<ArrayRef, ArrowError>) -> Result<RecordBatch, ArrowError> {
    let schema = table::find(name).map_or_else(|| Arc::new(Schema::empty()), |table| table.schema());
    let columns = schema.fields().iter().map(|field| column(field.name())).collect::<Result<Vec<_>, _>>()?;
    RecordBatch::try_new(schema, columns)
}

/// Sorted pairs as the registry's Map type.
///
/// # Errors
/// A bug.
pub fn map_array<K: AsRef<str>, V: AsRef<str>>(
    rows: impl Iterator<Item = impl IntoIterator<Item = (K, V)>>,
) -> Result<ArrayRef, ArrowError> {
    let names = MapFieldNames { entry: "entries".into(), key: "keys".into(), value: "values".into() };
    let mut builder = MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new());
    for pairs in rows {
        for (key, value) in pairs {
            builder.keys().append_value(key);
            builder.values().append_value(value);
        }
        builder.append(true)?;
    }
    let built = builder.finish();
    let (_, offsets, entries, nulls, _) = built.into_parts();
    let DataType::Map(field, sorted) = table::ColumnType::Map.arrow() else {
        return Err(ArrowError::SchemaError("the registry's map type is no map".to_string()));
    };
    Ok(Arc::new(arrow::array::MapArray::try_new(field, offsets, entries, nulls, sorted)?))
}
