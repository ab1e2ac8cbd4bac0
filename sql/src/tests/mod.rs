//! What rules mean, by example and against plain DataFusion.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod engine;
mod faults;
mod general;
mod history;
mod oracle;
mod ordered;
mod presence;
mod promql;
mod recovery;
mod views;

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array,
};
use tidewatch_model::table;
use tidewatch_model::{Evaluation, GroupState, Outcome, Timestamp};

use crate::{CompiledRule, Compiler, Engine, Feed, Listener, Loaded, Watched};

/// One row of the table `gpu`, in the columns that tests use.
#[derive(Debug, Clone, PartialEq)]
struct GpuRow {
    /// Microseconds since the epoch.
    ts: i64,
    host: &'static str,
    gpu: &'static str,
    temperature: Option<f64>,
    power: Option<f64>,
}

fn gpu_batch(rows: &[GpuRow]) -> RecordBatch {
    let schema = table::find("gpu").unwrap().schema();
    let columns = schema.fields().iter().map(|field| -> ArrayRef {
        match field.name().as_str() {
            "ts" => Arc::new(
                TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.ts)).with_timezone("UTC"),
            ),
            "host" => Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.host))),
            "gpu_uuid" => Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.gpu))),
            "temperature_celsius" => Arc::new(rows.iter().map(|row| row.temperature).collect::<Float64Array>()),
            "power_watts" => Arc::new(rows.iter().map(|row| row.power).collect::<Float64Array>()),
            "gpu_index" => Arc::new(Int64Array::from_iter_values(rows.iter().map(|_| 0))),
            _ => new_null_array(field.data_type(), rows.len()),
        }
    });
    RecordBatch::try_new(schema.clone(), columns.collect()).unwrap()
}

fn load(text: &str) -> Loaded {
    let mut loaded = Loaded::default();
    Compiler::new().unwrap().load("rules.sql", text, &mut loaded);
    loaded
}

fn compile(text: &str) -> CompiledRule {
    let mut loaded = load(text);
    let errors: Vec<String> = loaded.faults.iter().map(ToString::to_string).collect();
    assert_eq!(loaded.rules.len(), 1, "{errors:#?}");
    loaded.rules.remove(0)
}

/// Takes every evaluation, and asks for every group; windows without rows that end before `until` may be left out.
struct Everything {
    evaluations: Vec<Evaluation>,
    until: Timestamp,
}

impl Listener for Everything {
    fn watched(&self, _: &str) -> Watched {
        Watched::All
    }

    fn take(&mut self, evaluation: Evaluation) -> Timestamp {
        self.evaluations.push(evaluation);
        self.until
    }
}

/// Moves the watermark of `gpu`; every window is evaluated.
fn advance(engine: &mut Engine, watermark: Timestamp, lagging: bool) -> Vec<Evaluation> {
    advance_until(engine, watermark, lagging, Timestamp::MIN)
}

/// The same; windows without rows that end before `until` may be left out.
fn advance_until(engine: &mut Engine, watermark: Timestamp, lagging: bool, until: Timestamp) -> Vec<Evaluation> {
    let mut listener = Everything { evaluations: vec![], until };
    engine.advance("gpu", watermark, lagging, &mut listener);
    listener.evaluations
}

/// Pushes rows of `gpu`.
fn push(engine: &mut Engine, batch: &RecordBatch, feed: Feed) -> Vec<Evaluation> {
    let mut listener = Everything { evaluations: vec![], until: Timestamp::MIN };
    engine.push("gpu", batch, feed, &mut listener).unwrap();
    listener.evaluations
}

/// In microseconds.
const SECOND: i64 = 1_000_000;

/// A row of `gpu`.
fn row(second: i64, host: &'static str, temperature: f64) -> GpuRow {
    GpuRow { ts: second * SECOND, host, gpu: "g0", temperature: Some(temperature), power: None }
}

/// `end: key=state` per group, in seconds.
fn show(evaluations: &[Evaluation]) -> Vec<String> {
    let mut lines = Vec::new();
    for evaluation in evaluations {
        let end = evaluation.window_end.0 / SECOND;
        match &evaluation.outcome {
            Outcome::Failed(error) => lines.push(format!("{end}: failed {error}")),
            Outcome::Groups(findings) => lines.extend(findings.iter().map(|finding| {
                let key: Vec<&str> = finding.key.values().map(String::as_str).collect();
                let state = match &finding.state {
                    GroupState::Firing(values) => {
                        let values: Vec<String> =
                            values.iter().map(|(name, value)| format!("{name}={value}")).collect();
                        format!("firing {}", values.join(" "))
                    }
                    GroupState::Clear => "clear".to_string(),
                    GroupState::Held => "held".to_string(),
                    GroupState::NoData => "no data".to_string(),
                    GroupState::Unknown => "unknown".to_string(),
                };
                format!("{end}: {} {state}", key.join(","))
            })),
        }
    }
    lines
}
