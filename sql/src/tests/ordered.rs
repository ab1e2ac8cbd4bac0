//! Rules with OVER: by example, against joins and OVERs of plain DataFusion, and over restarts.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::BooleanArray;
use arrow::compute::filter_record_batch;
use datafusion::datasource::MemTable;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use proptest::prelude::*;
use tidewatch_model::{Timestamp, table};

use super::oracle::{Fired, Journey, cases, close, rows, same};
use super::{GpuRow, SECOND, advance, compile, gpu_batch, load, push, row, show};
use crate::calls::write_out;
use crate::panes::times;
use crate::session::history_session;
use crate::values::result_rows;
use crate::{Engine, Feed};

const FAST: &str = "CREATE ALERT fast AS SELECT host, gpu_uuid, temperature_celsius - lag(temperature_celsius) OVER (PARTITION BY host, gpu_uuid ORDER BY ts) AS rise
    FROM gpu QUALIFY rise > 10";

#[test]
fn a_row_is_judged_with_those_before_it() {
    let mut engine = Engine::new(vec![compile(FAST)]).unwrap();
    // In any order: rows pass when no earlier one can come.
    let rows = [row(3, "n1", 45.0), row(1, "n1", 30.0), row(2, "n1", 31.0), row(2, "n2", 80.0), row(4, "n1", 46.0)];
    assert!(push(&mut engine, &gpu_batch(&rows), Feed::Live).is_empty());
    assert_eq!(
        show(&advance(&mut engine, Timestamp(6 * SECOND), false)),
        // A row without one before it decides nothing.
        ["2: g0,n1 clear", "3: g0,n1 firing rise=14"]
    );
    push(&mut engine, &gpu_batch(&[row(1, "n1", 0.0), row(7, "n2", 95.0)]), Feed::Live);
    assert_eq!(engine.counts("gpu").late_rows, 1);
    assert_eq!(
        show(&advance(&mut engine, Timestamp(20 * SECOND), false)),
        ["4: g0,n1 clear", "7: g0,n2 firing rise=15"]
    );
    let text = engine.explain().next().unwrap().to_string();
    assert!(text.contains("row by row, in the order of their times"), "{text}");
    assert!(
        text.contains("first_value(temperature_celsius) OVER (PARTITION BY host, gpu_uuid ROWS 1 to 1 before): 1 rule"),
        "{text}"
    );
}

#[test]
fn several_frames_in_one_select() {
    let text = "CREATE ALERT drift AS SELECT host, gpu_uuid, short, long FROM (
        SELECT ts, host, gpu_uuid,
            avg(power_watts) OVER (PARTITION BY gpu_uuid ORDER BY ts RANGE BETWEEN INTERVAL '2 seconds' PRECEDING AND CURRENT ROW) AS short,
            avg(power_watts) OVER (PARTITION BY host ORDER BY ts ROWS BETWEEN 3 PRECEDING AND 1 PRECEDING) AS long
        FROM gpu WHERE power_watts > 0)
        WHERE short > 2 * long";
    let power = |second: i64, watts: f64| GpuRow { power: Some(watts), ..row(second, "n1", 1.0) };
    let mut engine = Engine::new(vec![compile(text)]).unwrap();
    let rows = [power(1, 10.0), power(2, 20.0), power(3, -1.0), power(4, 60.0), power(9, 90.0)];
    push(&mut engine, &gpu_batch(&rows), Feed::Live);
    assert_eq!(
        show(&advance(&mut engine, Timestamp(20 * SECOND), false)),
        [
            "2: g0,n1 clear",
            // The third has no OVERs: it exists, and does not count.
            "3: g0,n1 clear",
            "4: g0,n1 firing short=40 long=15",
            "9: g0,n1 firing short=90 long=30",
        ]
    );
}

#[test]
fn a_silent_series_is_noticed() {
    let mut engine = Engine::new(vec![compile(FAST)]).unwrap();
    push(&mut engine, &gpu_batch(&[row(1, "n1", 1.0), row(2, "n1", 90.0)]), Feed::Live);
    assert_eq!(
        show(&advance(&mut engine, Timestamp(400 * SECOND), false)),
        ["2: g0,n1 firing rise=89", "360: g0,n1 no data"]
    );
}

#[test]
fn a_row_that_can_not_be_evaluated_takes_nothing_from_others() {
    let text =
        "CREATE ALERT odd AS SELECT host, gpu_uuid, count(*) OVER (PARTITION BY host ORDER BY ts ROWS 5 PRECEDING) AS n
        FROM gpu WHERE 10 / CAST(temperature_celsius AS BIGINT) > 0 QUALIFY n > 2";
    let mut engine = Engine::new(vec![compile(text)]).unwrap();
    push(
        &mut engine,
        &gpu_batch(&[row(1, "n1", 1.0), row(2, "n1", 2.0), row(3, "n1", 0.0), row(4, "n1", 3.0)]),
        Feed::Live,
    );
    let shown = show(&advance(&mut engine, Timestamp(12 * SECOND), false));
    assert_eq!(shown[..4], ["1: g0,n1 clear", "2: g0,n1 clear", "3: g0,n1 clear", "4: g0,n1 firing n=3"]);
    assert!(shown[4].contains("failed") && shown[4].to_lowercase().contains("divide by zero"), "{shown:?}");
}

#[test]
fn rows_are_seen_an_hour_back() {
    let mut engine = Engine::new(vec![compile(FAST)]).unwrap();
    push(&mut engine, &gpu_batch(&[row(1, "n1", 10.0), row(3_601, "n1", 30.0), row(7_300, "n1", 90.0)]), Feed::Live);
    let shown = show(&advance(&mut engine, Timestamp(7_400 * SECOND), false));
    let told: Vec<&String> = shown.iter().filter(|line| !line.ends_with("no data")).collect();
    assert_eq!(told, ["3601: g0,n1 firing rise=20"]);
}

#[test]
fn rules_share_their_overs() {
    let rule = |name: &str, least: i64| {
        format!(
            "CREATE ALERT {name} AS SELECT host, gpu_uuid, max(temperature_celsius) OVER (PARTITION BY host ORDER BY ts RANGE BETWEEN INTERVAL '1 minute' PRECEDING AND CURRENT ROW) AS t
             FROM gpu QUALIFY t > {least};"
        )
    };
    let engine = Engine::new(load(&(rule("a", 1) + &rule("b", 2))).rules).unwrap();
    assert!(engine.explain().all(|found| found.overs.len() == 1 && found.overs[0].rules == 2));
}

#[test]
fn what_can_not_run_as_rows_come_is_refused() {
    for (over, expected) in [
        ("avg(power_watts) OVER (PARTITION BY host ORDER BY ts)", "its frame has no bound"),
        ("avg(power_watts) OVER (ORDER BY ts ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING)", "reaches into the future"),
        ("lead(power_watts) OVER (ORDER BY ts)", "it looks into the future"),
        ("row_number() OVER (ORDER BY ts ROWS 5 PRECEDING)", "row_number: it is not kept as rows come"),
        ("avg(power_watts) OVER (ORDER BY ts DESC ROWS 5 PRECEDING)", "expected ORDER BY ts, ascending"),
        ("corr(power_watts, temperature_celsius) OVER (ORDER BY ts ROWS 5 PRECEDING)", "it has no kernel"),
        (
            "median(CAST(power_watts AS REAL)) OVER (ORDER BY ts ROWS 5 PRECEDING)",
            "over Float32: expected CAST(x AS DOUBLE)",
        ),
        ("hampel(power_watts, 3) OVER (ORDER BY ts)", "its frame has no bound"),
        (
            "avg(power_watts) OVER (ORDER BY ts RANGE BETWEEN INTERVAL '1 day' PRECEDING AND CURRENT ROW)",
            "a frame of 1d is over the limit of 2h",
        ),
    ] {
        let loaded = load(&format!("CREATE ALERT x AS SELECT host, {over} AS a FROM gpu QUALIFY a > 1"));
        let found: Vec<String> = loaded.faults.iter().map(ToString::to_string).collect();
        assert!(
            found.iter().any(|fault| fault.contains(expected) && fault.contains("every = '10 seconds'")),
            "{over}: {found:?}"
        );
    }
}

/// A generated OVER.
#[derive(Debug, Clone)]
struct Written {
    call: &'static str,
    partition: &'static str,
    /// RANGE in seconds, from and to; or ROWS.
    frame: Result<(i64, i64), (u64, u64)>,
    condition: &'static str,
    comparison: &'static str,
    threshold: f64,
    nested: bool,
}

impl Written {
    fn over(&self) -> String {
        let bound = |seconds: i64| format!("INTERVAL '{seconds} seconds' PRECEDING");
        let frame = match self.frame {
            Ok((from, to)) => {
                format!("RANGE BETWEEN {} AND {}", bound(from), if to == 0 { "CURRENT ROW".into() } else { bound(to) })
            }
            Err((from, to)) => format!("ROWS BETWEEN {from} PRECEDING AND {to} PRECEDING"),
        };
        let by = if self.partition.is_empty() { String::new() } else { format!("PARTITION BY {} ", self.partition) };
        format!("{} OVER ({by}ORDER BY ts {frame})", self.call)
    }

    fn select(&self, table: &str) -> String {
        let (over, comparison, threshold) = (self.over(), self.comparison, self.threshold);
        let inner = format!("SELECT ts, host, gpu_uuid, {over} AS a FROM {table} {}", self.condition);
        format!(
            "SELECT {}host, gpu_uuid, a FROM ({inner}) WHERE a {comparison} {threshold}",
            if table == "gpu" { "" } else { "ts, " }
        )
    }

    fn alert(&self, name: &str) -> String {
        let select = match self.nested {
            true => self.select("gpu"),
            false => format!(
                "SELECT host, gpu_uuid, {} AS a FROM gpu {} QUALIFY a {} {}",
                self.over(),
                self.condition,
                self.comparison,
                self.threshold
            ),
        };
        format!("CREATE ALERT {name} WITH (delay = '2s') AS {select};")
    }

    /// The same by a join of each row with those of its frame, without any OVER; for RANGE.
    fn joined(&self, (from, to): (i64, i64)) -> String {
        let same = match self.partition {
            "" => "true".to_string(),
            columns => {
                columns.split(", ").map(|column| format!("a.{column} = b.{column}")).collect::<Vec<_>>().join(" AND ")
            }
        };
        let rows = format!("SELECT * FROM rows {}", self.condition);
        format!(
            "SELECT ts, host, gpu_uuid, a FROM (
                SELECT a.ts, a.host, a.gpu_uuid, {} AS a
                FROM (SELECT DISTINCT ts, host, gpu_uuid FROM ({rows})) a
                LEFT JOIN ({rows}) b ON {same} AND b.ts >= a.ts - INTERVAL '{from} seconds' AND b.ts <= a.ts - INTERVAL '{to} seconds'
                GROUP BY a.ts, a.host, a.gpu_uuid) WHERE a {} {}",
            self.call.replace("temperature_celsius", "b.temperature_celsius").replace("power_watts", "b.power_watts")
                .replace(", ts", ", b.ts").replace("count(*)", "count(b.ts)"),
            self.comparison, self.threshold
        )
    }
}

fn written() -> impl Strategy<Value = Written> {
    let aggregates = prop::sample::select(vec![
        "avg(temperature_celsius)",
        "sum(temperature_celsius)",
        "count(*)",
        "count(power_watts)",
        "min(power_watts)",
        "max(temperature_celsius)",
        "stddev(temperature_celsius)",
        "var_pop(power_watts)",
        "count(*) FILTER (WHERE temperature_celsius > 50)",
        "increase(power_watts, ts)",
        "approx_percentile(temperature_celsius, 0.9)",
        "first(power_watts, ts)",
        "last(temperature_celsius, ts)",
        "last(power_watts, ts) RESPECT NULLS",
        "median(temperature_celsius)",
        "median(CASE WHEN temperature_celsius > 20 THEN 7 WHEN temperature_celsius <= 20 THEN -4 END)",
        "mad(power_watts)",
        "mad(temperature_celsius) FILTER (WHERE power_watts > 20)",
        "ewma(temperature_celsius, 0.3, ts)",
        "ewma(power_watts, INTERVAL '7 seconds', ts)",
    ]);
    let by_rows = prop::sample::select(vec![
        "avg(temperature_celsius)",
        "sum(power_watts)",
        "count(*)",
        "count(power_watts)",
        "stddev_pop(temperature_celsius)",
        "first_value(power_watts)",
        "last_value(temperature_celsius)",
        "nth_value(temperature_celsius, 2)",
        "lag(temperature_celsius)",
        "lag(power_watts, 3)",
        "lag(power_watts, 2, 77.5)",
        "median(temperature_celsius)",
        "mad(power_watts)",
        "ewma(temperature_celsius, 0.3, ts)",
        "ewma(power_watts, INTERVAL '7 seconds', ts)",
        "hampel(temperature_celsius, 1.5)",
        "clamp(median(power_watts) OVER (PARTITION BY host ORDER BY ts ROWS 3 PRECEDING), 5, 60) + median(power_watts)",
    ]);
    let range = (aggregates, (0..40i64, 0..40i64))
        .prop_map(|(call, (one, other))| (call, Ok((one.max(other), one.min(other)))));
    let counted =
        (by_rows, (0..6u64, 0..6u64)).prop_map(|(call, (one, other))| (call, Err((one.max(other), one.min(other)))));
    let partitions = prop::sample::select(vec!["host", "host, gpu_uuid", "gpu_uuid", ""]);
    let conditions = prop::sample::select(vec![
        "",
        "WHERE host = 'n1'",
        "WHERE temperature_celsius > 40",
        "WHERE host <> 'n2' AND power_watts IS NOT NULL",
    ]);
    let comparisons = prop::sample::select(vec![">", "<"]);
    (prop_oneof![range, counted], partitions, conditions, comparisons, -20i32..90, any::<bool>()).prop_map(
        |((call, frame), partition, condition, comparison, threshold, nested)| Written {
            call,
            partition,
            frame,
            condition,
            comparison,
            threshold: f64::from(threshold) + 0.123_456_7,
            nested,
        },
    )
}

/// Rows of which no two have the same time: else the order of ROWS is anybody's.
fn apart(rows: Vec<(GpuRow, i64)>) -> Vec<(GpuRow, i64)> {
    let mut seen = HashSet::new();
    rows.into_iter().filter(|(row, _)| seen.insert(row.ts)).collect()
}

fn from_engine(text: &str, rows: Vec<(GpuRow, i64)>, batch: usize) -> Fired {
    let mut engine = Engine::new(vec![compile(text)]).unwrap();
    Journey::new(rows, batch).feed(&mut engine, 0).remove("x").unwrap_or_default()
}

fn from_datafusion(sql: &str, rows: &[(GpuRow, i64)]) -> Fired {
    let mut plain: Vec<GpuRow> = rows.iter().map(|(row, _)| row.clone()).collect();
    plain.sort_by_key(|row| row.ts);
    let batch = gpu_batch(&plain);
    let context = history_session(1, None).unwrap();
    let table = MemTable::try_new(batch.schema(), vec![vec![batch]]).unwrap();
    context.register_table("rows", Arc::new(table)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut parsed = Parser::parse_sql(&GenericDialect {}, sql).unwrap();
    write_out(&mut parsed[0]);
    let sql = parsed[0].to_string();
    let batches = runtime.block_on(async { context.sql(&sql).await.unwrap().collect().await.unwrap() });
    let identity: Vec<String> = table::find("gpu").unwrap().identity().map(str::to_string).collect();
    let found = result_rows(&batches, &identity, Some("ts")).unwrap();
    found.into_iter().map(|row| ((row.ts.unwrap(), row.key), row.values)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(200), ..ProptestConfig::default() })]

    #[test]
    fn overs_equal_plain_datafusion(rule in written(), rows in rows(false), batch in 1usize..20) {
        // Which of two samples of one time comes first is the order of their values to the aggregate, of their identities to OVER.
        let rows = if rule.frame.is_ok() && !rule.call.starts_with("increase") { rows } else { apart(rows) };
        let sql = match rule.frame {
            Ok(frame) => rule.joined(frame),
            Err(_) => rule.select("rows"),
        };
        let expected = from_datafusion(&sql, &rows);
        let found = from_engine(&rule.alert("x"), rows.clone(), batch);
        let keys = |fired: &Fired| fired.keys().cloned().collect::<Vec<_>>();
        prop_assert_eq!(keys(&found), keys(&expected), "{}\n{}", rule.alert("x"), sql);
        for (key, values) in &expected {
            let (expected, found) = (&values[0].1, &found[key][0].1);
            prop_assert!(close(expected, found), "{key:?}: {found:?}, expected {expected:?} in {}", rule.alert("x"));
        }
        // Other batches, the same bits.
        prop_assert!(same(&from_engine(&rule.alert("x"), rows, batch % 7 + 1), &found));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(60), ..ProptestConfig::default() })]

    #[test]
    fn a_restart_changes_no_answer(
        rules in prop::collection::vec(written(), 1..4),
        rows in rows(true),
        batch in 1usize..20,
        killed in 0usize..60,
    ) {
        let names: Vec<String> = (0..rules.len()).map(|index| format!("r{index}")).collect();
        let text: String = rules.iter().zip(&names).map(|(rule, name)| rule.alert(name)).collect();
        let journey = Journey::new(apart(rows), batch);
        let killed = killed % (journey.batches.len() + 1);
        let whole = journey.feed(&mut Engine::new(load(&text).rules).unwrap(), 0);
        let found = journey.feed_with_restart(&text, killed, |from, batch| {
            // What is not asked for is not there.
            let needed: BooleanArray =
                times(batch).unwrap().values().iter().map(|ts| Some(from.is_some_and(|from| *ts >= from.0))).collect();
            filter_record_batch(batch, &needed).unwrap()
        });
        for name in &names {
            let (found, expected) = (found.get(name).cloned(), whole.get(name).cloned());
            prop_assert!(same(&found.unwrap_or_default(), &expected.unwrap_or_default()), "{name} after {killed} of {text}");
        }
    }
}
