//! The idioms of docs/promql.md: each is a rule that compiles and runs over rows of its table.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    new_null_array,
};
use arrow::datatypes::DataType;
use tidewatch_model::table::{self, TIME_COLUMN, Table};
use tidewatch_model::{Outcome, RuleShape, Timestamp};

use super::{Everything, SECOND, compile};
use crate::{Engine, Feed};

/// Rows of any table: two series, one row each every ten seconds, values that grow.
fn rows(table: &Table, ticks: i64) -> RecordBatch {
    let schema = table.schema();
    let count = 2 * ticks;
    let columns = schema.fields().iter().map(|field| -> ArrayRef {
        match field.data_type() {
            _ if field.name() == TIME_COLUMN => Arc::new(
                TimestampMicrosecondArray::from_iter_values((0..count).map(|row| row / 2 * 10 * SECOND))
                    .with_timezone("UTC"),
            ),
            DataType::Utf8 => Arc::new(StringArray::from_iter_values((0..count).map(|row| format!("gpu-{}", row % 2)))),
            DataType::Int64 => Arc::new(Int64Array::from_iter_values((0..count).map(|row| row * 3))),
            DataType::Float64 => Arc::new(Float64Array::from_iter_values((0..count).map(|row| row as f64 * 1.5))),
            DataType::Boolean => Arc::new(BooleanArray::from_iter((0..count).map(|row| Some(row % 3 == 0)))),
            other => new_null_array(other, count as usize),
        }
    });
    RecordBatch::try_new(schema.clone(), columns.collect()).unwrap()
}

#[test]
fn every_idiom_runs() {
    let page = include_str!("../../../docs/promql.md");
    let idioms: Vec<&str> =
        page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | `")?.1.strip_suffix("` |")).collect();
    assert!(idioms.len() >= 45, "{}", idioms.len());
    for select in idioms {
        let as_select = if select.starts_with("WITH (") { "" } else { "AS " };
        let compiled = compile(&format!("CREATE ALERT x {as_select}{select}"));
        let tables: Vec<&Table> = compiled.rule.tables().filter_map(table::find).collect();
        let compiled_shape = compiled.rule.shape;
        let mut engine = Engine::new(vec![compiled]).unwrap();
        let mut listener = Everything { evaluations: vec![], until: Timestamp::MIN };
        for table in &tables {
            engine.push(table.name, &rows(table, 400), Feed::Live, &mut listener).unwrap();
        }
        for table in &tables {
            engine.advance(table.name, Timestamp(4_000 * SECOND), false, &mut listener);
        }
        let failed = listener.evaluations.iter().find(|evaluation| matches!(evaluation.outcome, Outcome::Failed(_)));
        assert!(failed.is_none(), "{select}: {failed:?}");
        let is_row_rule = compiled_shape == RuleShape::Row;
        assert!(is_row_rule || listener.evaluations.len() > 60, "{select}: {} evaluations", listener.evaluations.len());
    }
}
