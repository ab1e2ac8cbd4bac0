//! The oracle: for any rule and any arrival of the rows within the allowed delay, what the engine says fires is what
//! plain DataFusion, with its own functions, selects from the rows with their windows expanded.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{RecordBatch, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::Schema;
use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;
use proptest::prelude::*;
use tidewatch_model::{GroupState, Key, Outcome, Span, Timestamp, Value, Values, WindowSpec};

use super::{GpuRow, advance_until, compile, gpu_batch, push};
use crate::rows_table::windowed_schema;
use crate::values::result_rows;
use crate::{Engine, Feed};

const SECOND: i64 = 1_000_000;
/// Rules wait two seconds for stragglers.
const DELAY: i64 = 2 * SECOND;

/// A rule of the generated kind.
#[derive(Debug, Clone)]
struct Written {
    spec: WindowSpec,
    keys: &'static [&'static str],
    aggregate: &'static str,
    condition: &'static str,
    threshold: f64,
}

impl Written {
    /// The SELECT over some FROM item; `window` puts the window's columns into the groups.
    fn select(&self, from: &str, window: bool) -> String {
        let mut groups: Vec<&str> = self.keys.to_vec();
        if window {
            groups.extend(["window_start", "window_end"]);
        }
        let keys: String = groups.iter().map(|key| format!("{key}, ")).collect();
        let group_by = if groups.is_empty() { String::new() } else { format!("GROUP BY {}", groups.join(", ")) };
        let (aggregate, threshold) = (self.aggregate, self.threshold);
        format!(
            "SELECT {keys}{aggregate} AS a, count(*) AS n FROM {from} {} {group_by} HAVING {aggregate} > {threshold}",
            self.condition
        )
    }

    fn alert(&self) -> String {
        let micros = |span: Span| format!("INTERVAL '{} us'", span.0);
        let from = format!("HOP(gpu, ts, {}, {})", micros(self.spec.slide), micros(self.spec.size));
        // Both spellings: with the window's columns in GROUP BY, and without.
        format!(
            "CREATE ALERT x WITH (delay = '2s') AS {}",
            self.select(&from, self.threshold > 30.0 && !self.keys.is_empty())
        )
    }
}

fn written() -> impl Strategy<Value = Written> {
    let specs = prop::sample::select(vec![(10, 10), (10, 30), (7, 20), (1, 5), (5, 60), (3, 4)]);
    let keys = prop::sample::select(vec![&["host"][..], &["host", "gpu_uuid"], &["gpu_uuid"], &[]]);
    let aggregates = prop::sample::select(vec![
        "avg(temperature_celsius)",
        "sum(temperature_celsius)",
        "min(temperature_celsius)",
        "max(power_watts)",
        "count(*)",
        "count(power_watts)",
        "stddev(temperature_celsius)",
        "var_pop(power_watts)",
        "avg(power_watts) - min(power_watts)",
        "count(*) FILTER (WHERE temperature_celsius > 50)",
        "median(temperature_celsius)",
        "sum(gpu_index + 3)",
        "sum(temperature_celsius) FILTER (WHERE power_watts > 20)",
        "count(DISTINCT host)",
        "avg(DISTINCT temperature_celsius)",
    ]);
    let conditions = prop::sample::select(vec![
        "",
        "WHERE host = 'n1'",
        "WHERE temperature_celsius > 40",
        "WHERE host <> 'n2' AND power_watts IS NOT NULL",
        "WHERE host = 'n1' OR power_watts > 50",
    ]);
    // Thresholds with an odd fraction: no generated value ties with one.
    (specs, keys, aggregates, conditions, -20i32..90).prop_map(
        |((slide, size), keys, aggregate, condition, threshold)| Written {
            spec: WindowSpec { slide: Span::seconds(slide), size: Span::seconds(size) },
            keys,
            aggregate,
            condition,
            threshold: f64::from(threshold) + 0.123_456_7,
        },
    )
}

/// Rows with their delay on the way, in microseconds.
fn rows() -> impl Strategy<Value = Vec<(GpuRow, i64)>> {
    let value = || prop::option::weighted(0.9, prop_oneof![-50.0..150.0f64, Just(1e-12), Just(1e12), Just(0.1)]);
    let row = (
        0..90 * SECOND,
        prop::sample::select(vec!["n1", "n2", "n3"]),
        prop::sample::select(vec!["g0", "g1"]),
        value(),
        value(),
        0..DELAY,
    )
        .prop_map(|(ts, host, gpu, temperature, power, late)| (GpuRow { ts, host, gpu, temperature, power }, late));
    prop::collection::vec(row, 1..60)
}

type Fired = BTreeMap<(Timestamp, Key), Values>;

/// What the engine says, rows arriving in order of ts + delay in batches of `batch` rows.
fn from_engine(rule: &Written, mut rows: Vec<(GpuRow, i64)>, batch: usize) -> Fired {
    rows.sort_by_key(|(row, late)| row.ts + late);
    let mut engine = Engine::new(vec![compile(&rule.alert())]).unwrap();
    let mut fired = Fired::new();
    let mut newest = i64::MIN;
    let mut take = |evaluations: Vec<tidewatch_model::Evaluation>| {
        for evaluation in evaluations {
            let Outcome::Groups(findings) = evaluation.outcome else { panic!("{:?}", evaluation.outcome) };
            for finding in findings {
                if let GroupState::Firing(values) = finding.state {
                    fired.insert((evaluation.window_end, finding.key), values);
                }
            }
        }
    };
    for part in rows.chunks(batch) {
        let part: Vec<GpuRow> = part.iter().map(|(row, _)| row.clone()).collect();
        newest = newest.max(part.iter().map(|row| row.ts).max().unwrap());
        take(push(&mut engine, &gpu_batch(&part), Feed::Live));
        take(advance_until(&mut engine, Timestamp(newest), false, Timestamp::MAX));
    }
    take(advance_until(&mut engine, Timestamp(newest + 200 * SECOND), false, Timestamp::MAX));
    fired
}

/// What plain DataFusion says over the expanded rows.
fn from_datafusion(rule: &Written, rows: &[(GpuRow, i64)]) -> Fired {
    let batch = expanded(rule.spec, &rows.iter().map(|(row, _)| row.clone()).collect::<Vec<_>>());
    let context = SessionContext::new();
    let table = MemTable::try_new(batch.schema(), vec![vec![batch]]).unwrap();
    context.register_table("expanded", Arc::new(table)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let sql = rule.select("expanded", true);
    let batches = runtime.block_on(async { context.sql(&sql).await.unwrap().collect().await.unwrap() });
    let mut keys: Vec<String> = rule.keys.iter().map(ToString::to_string).collect();
    keys.push("window_start".to_string());
    let rows = result_rows(&batches, &keys, Some("window_end")).unwrap();
    rows.into_iter()
        .map(|mut row| {
            row.key.remove("window_start");
            ((row.ts.unwrap(), row.key), row.values)
        })
        .collect()
}

/// Each row once per window that holds it.
fn expanded(spec: WindowSpec, rows: &[GpuRow]) -> RecordBatch {
    let batch = gpu_batch(rows);
    let windows: Vec<(u32, Timestamp)> = rows
        .iter()
        .enumerate()
        .flat_map(|(index, row)| spec.starts_of(Timestamp(row.ts)).map(move |start| (index as u32, start)))
        .collect();
    let copies =
        take_record_batch(&batch, &UInt32Array::from_iter_values(windows.iter().map(|(index, _)| *index))).unwrap();
    let starts =
        TimestampMicrosecondArray::from_iter_values(windows.iter().map(|(_, start)| start.0)).with_timezone("UTC");
    let ends = TimestampMicrosecondArray::from_iter_values(windows.iter().map(|(_, start)| spec.end_of(*start).0))
        .with_timezone("UTC");
    let schema: Arc<Schema> = windowed_schema(&batch.schema());
    let columns = copies.columns().iter().cloned().chain([Arc::new(starts) as _, Arc::new(ends) as _]).collect();
    RecordBatch::try_new(schema, columns).unwrap()
}

/// Equal to 1e-9 of the larger of the two and of the data's own scale (plain float sums cancel).
fn close(left: &Value, right: &Value) -> bool {
    match (left.as_f64(), right.as_f64()) {
        (Some(left), Some(right)) => (left - right).abs() <= 1e-9 * left.abs().max(right.abs()).max(1e5),
        _ => left == right,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn the_engine_equals_plain_datafusion(rule in written(), rows in rows(), batch in 1usize..20) {
        let expected = from_datafusion(&rule, &rows);
        let found = from_engine(&rule, rows.clone(), batch);
        let keys = |fired: &Fired| fired.keys().cloned().collect::<Vec<_>>();
        prop_assert_eq!(keys(&found), keys(&expected), "{}", rule.alert());
        for (key, values) in &expected {
            for (name, expected) in values {
                let (_, found) = found[key].iter().find(|(column, _)| column == name).unwrap();
                prop_assert!(close(expected, found), "{key:?} {name}: {found:?}, expected {expected:?} in {}", rule.alert());
            }
        }
        // Other batches, the same bits.
        prop_assert_eq!(from_engine(&rule, rows, batch % 7 + 1), found);
    }
}
