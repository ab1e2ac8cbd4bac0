//! What others send, as rows.

use std::sync::Arc;

use arrow::array::{Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::error::ArrowError;
use tidewatch_ingest::otlp::LogLine;
use tidewatch_ingest::{Point, Series};

use crate::alert_rows::{map_array, rows_of};

/// Series as rows of `metrics`: one for each point.
///
/// # Errors
/// A bug.
pub fn series_rows(series: &[Series]) -> Result<RecordBatch, ArrowError> {
    // Arrow wants to know how many there are.
    let flat = series.iter().flat_map(|series| series.points.iter().map(move |point| (series, point)));
    let flat: Vec<(&Series, &Point)> = flat.collect();
    let points = || flat.iter();
    rows_of("metrics", |column| {
        Ok(match column {
            "ts" => {
                let times = TimestampMicrosecondArray::from_iter_values(points().map(|(_, point)| point.ts.0));
                Arc::new(times.with_timezone("UTC"))
            }
            "name" => Arc::new(StringArray::from_iter_values(points().map(|(series, _)| &series.name))),
            "labels" => map_array(points().map(|(series, _)| series.labels.iter()))?,
            "value" => Arc::new(points().map(|(_, point)| point.value).collect::<Float64Array>()),
            other => return Err(ArrowError::SchemaError(format!("metrics has an unknown column '{other}'"))),
        })
    })
}

/// Lines as rows of `log`.
///
/// # Errors
/// A bug.
pub fn line_rows(lines: &[LogLine]) -> Result<RecordBatch, ArrowError> {
    rows_of("log", |column| {
        Ok(match column {
            "ts" => {
                let times = TimestampMicrosecondArray::from_iter_values(lines.iter().map(|line| line.ts.0));
                Arc::new(times.with_timezone("UTC"))
            }
            "host" => {
                let host = |line: &'_ LogLine| Some(line.host.clone()).filter(|host| !host.is_empty());
                Arc::new(lines.iter().map(host).collect::<StringArray>())
            }
            "source" => Arc::new(StringArray::from_iter_values(lines.iter().map(|line| &line.source))),
            "level" => Arc::new(lines.iter().map(|line| line.level.as_deref()).collect::<StringArray>()),
            "message" => Arc::new(StringArray::from_iter_values(lines.iter().map(|line| &line.message))),
            "fields" => map_array(lines.iter().map(|line| line.fields.iter()))?,
            other => return Err(ArrowError::SchemaError(format!("log has an unknown column '{other}'"))),
        })
    })
}
