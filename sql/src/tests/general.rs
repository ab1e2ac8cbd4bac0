//! Rules that read more than one table, by example and against plain DataFusion.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array,
};
use tidewatch_model::table::{self, find_dimension};
use tidewatch_model::{Evaluation, Outcome, RuleShape, Span, Timestamp, WindowSpec};

use super::{Everything, SECOND, compile, gpu_batch, row, show};
use crate::{Compiler, Dimensions, Engine, Feed, Loaded};

/// Rows of `host`: second, name, load1.
fn host_batch(rows: &[(i64, &str, f64)]) -> RecordBatch {
    let schema = table::find("host").unwrap().schema();
    let columns = schema.fields().iter().map(|field| -> ArrayRef {
        match field.name().as_str() {
            "ts" => {
                let times = rows.iter().map(|row| row.0 * SECOND);
                Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))
            }
            "host" => Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.1))),
            "load1" => Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row.2))),
            _ => new_null_array(field.data_type(), rows.len()),
        }
    });
    RecordBatch::try_new(schema.clone(), columns.collect()).unwrap()
}

/// What machines should have: name, GPUs.
fn expected(rows: &[(&str, i64)]) -> Dimensions {
    let schema = find_dimension("expected").unwrap().schema();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.1))),
        new_null_array(schema.field(2).data_type(), rows.len()),
        new_null_array(schema.field(3).data_type(), rows.len()),
    ];
    let mut dimensions = Dimensions::default();
    dimensions.set("expected", RecordBatch::try_new(schema, columns).unwrap()).unwrap();
    dimensions
}

fn engine(text: &str) -> Engine {
    Engine::new(vec![compile(text)]).unwrap()
}

fn push(engine: &mut Engine, table: &str, batch: &RecordBatch) -> Vec<Evaluation> {
    let mut listener = Everything { evaluations: vec![], until: Timestamp::MIN };
    engine.push(table, batch, Feed::Live, &mut listener).unwrap();
    listener.evaluations
}

fn advance(engine: &mut Engine, table: &str, second: i64, lagging: bool) -> Vec<String> {
    let mut listener = Everything { evaluations: vec![], until: Timestamp::MIN };
    engine.advance(table, Timestamp(second * SECOND), lagging, &mut listener);
    show(&listener.evaluations)
}

#[test]
fn two_tables_are_judged_when_both_have_come_so_far() {
    let text = "CREATE ALERT hot_and_busy AS
        SELECT g.host, max(g.temperature_celsius) AS t, max(h.load1) AS load
        FROM TUMBLE(gpu, ts, '10s') g JOIN TUMBLE(host, ts, '10s') h ON g.host = h.host AND g.window_end = h.window_end
        GROUP BY g.host HAVING max(g.temperature_celsius) > 80 AND max(h.load1) > 5";
    assert_eq!(
        compile(text).rule.shape,
        RuleShape::Window(WindowSpec { slide: Span::seconds(10), size: Span::seconds(10) })
    );
    assert_eq!(compile(text).rule.tables().collect::<Vec<_>>(), ["gpu", "host"]);
    let mut engine = engine(text);
    push(
        &mut engine,
        "gpu",
        &gpu_batch(&[row(1, "n1", 90.0), row(2, "n2", 90.0), row(12, "n1", 90.0), row(12, "n2", 10.0)]),
    );
    assert!(advance(&mut engine, "gpu", 32, false).is_empty(), "host has not come so far");
    push(&mut engine, "host", &host_batch(&[(3, "n1", 6.0), (3, "n2", 1.0), (11, "n2", 9.0)]));
    assert_eq!(
        advance(&mut engine, "host", 22, false),
        // In the second window n1's row of host is missing: that is no recovery.
        ["10: n1 firing t=90 load=6", "20: n1 no data"]
    );
    push(&mut engine, "host", &host_batch(&[(23, "n1", 1.0)]));
    push(&mut engine, "gpu", &gpu_batch(&[row(35, "n1", 1.0)]));
    assert_eq!(advance(&mut engine, "host", 32, false), ["30: n1 no data"]);
    push(&mut engine, "host", &host_batch(&[(33, "n1", 1.0)]));
    assert_eq!(advance(&mut engine, "host", 42, true), [""; 0]);
    assert_eq!(advance(&mut engine, "gpu", 42, false), ["40: n1 unknown"], "one of its inputs lags");
    push(&mut engine, "host", &host_batch(&[(43, "n1", 1.0)]));
    push(&mut engine, "gpu", &gpu_batch(&[row(45, "n1", 1.0)]));
    advance(&mut engine, "gpu", 52, false);
    assert_eq!(advance(&mut engine, "host", 52, false), ["50: n1 clear"]);
}

#[test]
fn every_and_over_bound_any_query() {
    let text = "CREATE ALERT few WITH (every = '10s', over = '20s') AS
        WITH seen AS (SELECT host, count(DISTINCT gpu_uuid) AS gpus FROM gpu GROUP BY host)
        SELECT e.host, coalesce(s.gpus, 0) AS gpus, e.gpus AS expected FROM expected e LEFT JOIN seen s ON s.host = e.host
        WHERE coalesce(s.gpus, 0) < e.gpus";
    let mut engine = engine(text);
    engine.set_dimensions(&expected(&[("n1", 1), ("n2", 2), ("n3", 1)]));
    push(&mut engine, "gpu", &gpu_batch(&[row(1, "n1", 1.0), row(1, "n2", 1.0)]));
    // n3 is in the table of what should be: it is known without any row.
    assert_eq!(
        advance(&mut engine, "gpu", 12, false),
        ["10: n2 firing gpus=1 expected=2", "10: n3 firing gpus=0 expected=1"]
    );
    engine.set_dimensions(&expected(&[("n1", 1), ("n2", 1)]));
    push(&mut engine, "gpu", &gpu_batch(&[row(11, "n1", 1.0), row(11, "n2", 1.0)]));
    assert_eq!(advance(&mut engine, "gpu", 22, false), ["20: n2 clear", "20: n3 clear"]);
    // Nobody at all was heard: nothing is said.
    assert_eq!(
        advance(&mut engine, "gpu", 42, false),
        ["30: n2 clear", "30: n3 clear", "40: n2 no data", "40: n3 no data"]
    );
    let over = "CREATE ALERT newest WITH (every = '10s', over = '1m') AS SELECT host, gpu_uuid, temperature_celsius AS t FROM gpu
        QUALIFY row_number() OVER (PARTITION BY host ORDER BY ts DESC) = 1";
    let mut engine = self::engine(over);
    push(&mut engine, "gpu", &gpu_batch(&[row(1, "n1", 1.0), row(5, "n1", 5.0), row(5, "n2", 7.0)]));
    assert_eq!(advance(&mut engine, "gpu", 12, false), ["10: g0,n1 firing t=5", "10: g0,n2 firing t=7"]);
    let within = "CREATE ALERT trend WITH (every = '20s', over = '20s', key = 'host') AS
        SELECT a.host, a.t AS earlier, b.t AS later FROM
        (SELECT window_end, host, max(temperature_celsius) AS t FROM TUMBLE(gpu, ts, '10s') GROUP BY window_end, host) a
        JOIN (SELECT window_start, host, max(temperature_celsius) AS t FROM TUMBLE(gpu, ts, '10s') GROUP BY window_start, host) b
        ON a.host = b.host AND a.window_end = b.window_start WHERE b.t > a.t";
    let mut engine = self::engine(within);
    push(
        &mut engine,
        "gpu",
        &gpu_batch(&[row(1, "n1", 1.0), row(15, "n1", 5.0), row(1, "n2", 2.0), row(15, "n2", 1.0)]),
    );
    assert_eq!(advance(&mut engine, "gpu", 22, false), ["20: n1 firing earlier=1 later=5"]);
}

#[test]
fn a_row_is_judged_on_arrival_with_what_is_known_of_it() {
    let text = "CREATE ALERT known AS SELECT g.host, g.gpu_uuid, e.gpus FROM gpu g JOIN expected e ON e.host = g.host WHERE g.temperature_celsius > 80 AND e.gpus > 1";
    assert_eq!(compile(text).rule.shape, RuleShape::Row);
    let mut engine = engine(text);
    engine.set_dimensions(&expected(&[("n1", 2), ("n2", 1)]));
    let rows = [row(1, "n1", 90.0), row(1, "n2", 90.0), row(1, "n3", 90.0), row(2, "n1", 10.0)];
    assert_eq!(
        show(&push(&mut engine, "gpu", &gpu_batch(&rows))),
        ["1: g0,n1 firing gpus=2", "1: g0,n2 clear", "2: g0,n1 clear"]
    );
    let not_in = "CREATE ALERT rest AS SELECT host, gpu_uuid FROM gpu WHERE host NOT IN (SELECT host FROM expected)";
    let mut engine = self::engine(not_in);
    engine.set_dimensions(&expected(&[("n1", 2), ("n2", 1)]));
    assert_eq!(show(&push(&mut engine, "gpu", &gpu_batch(&rows)))[0], "1: g0,n3 firing ");
}

#[test]
fn silence_is_joined_with_maintenance() {
    let text = "CREATE ALERT silent AS SELECT s.host FROM LAST_SEEN(host, ts) s LEFT JOIN expected e ON e.host = s.host
        WHERE s.silence > INTERVAL '15 seconds' AND e.host IS NULL";
    let mut engine = engine(text);
    engine.set_dimensions(&expected(&[("n2", 1)]));
    push(&mut engine, "host", &host_batch(&[(1, "n1", 1.0), (1, "n2", 1.0), (9, "n3", 1.0), (19, "n3", 1.0)]));
    assert_eq!(advance(&mut engine, "host", 22, false), ["20: n1 firing "]);
}

#[test]
fn a_rule_that_takes_too_much_is_alone_with_it() {
    let mut text: String = (0..500)
        .map(|index| {
            format!("CREATE ALERT r{index} AS SELECT host, max(temperature_celsius) AS t FROM TUMBLE(gpu, ts, '10s') GROUP BY host HAVING max(temperature_celsius) > {index};")
        })
        .collect();
    text += "CREATE ALERT cross WITH (every = '10s', over = '10s') AS
        SELECT a.host, count(*) AS n FROM gpu a, gpu b, gpu c WHERE a.temperature_celsius + b.temperature_celsius < c.temperature_celsius GROUP BY a.host HAVING count(*) > 0;
        CREATE ALERT pairs WITH (every = '10s', over = '10s') AS
        SELECT a.host FROM gpu a JOIN gpu b ON a.temperature_celsius > b.temperature_celsius + 1000000";
    let mut loaded = Loaded::default();
    Compiler::new().unwrap().load("rules.sql", &text, &mut loaded);
    assert_eq!(loaded.rules.len(), 502, "{:?}", loaded.faults);
    let mut engine = Engine::new(loaded.rules).unwrap();
    let mut failures = vec![];
    for slide in 0..12 {
        let rows: Vec<_> =
            (0..6_000).map(|at| row(slide * 10 + at % 10, ["n1", "n2"][at as usize % 2], (at % 90) as f64)).collect();
        push(&mut engine, "gpu", &gpu_batch(&rows));
        let mut listener = Everything { evaluations: vec![], until: Timestamp::MIN };
        engine.advance("gpu", Timestamp((slide * 10 + 12) * SECOND), false, &mut listener);
        let is_failed = |evaluation: &Evaluation| matches!(evaluation.outcome, Outcome::Failed(_));
        assert_eq!(listener.evaluations.len(), 502);
        let firing = show(&listener.evaluations).iter().filter(|line| line.contains("firing")).count();
        assert_eq!(firing, 89 + 88, "the others do not notice");
        failures.push(listener.evaluations.into_iter().filter(is_failed).collect::<Vec<_>>());
    }
    let said = |slide: usize, rule: &str| {
        let found = failures[slide].iter().find(|evaluation| evaluation.rule == rule);
        found.map(|evaluation| evaluation.outcome.clone())
    };
    for rule in ["cross", "pairs"] {
        for (slide, expected) in [
            (0, "over its budget: more than 10000000 rows"),
            (1, "it rests for 8 slides: over"),
            (8, "it rests for 1 slides"),
            (9, "over its budget"),
            (10, "it rests for 16 slides"),
        ] {
            let Some(Outcome::Failed(message)) = said(slide, rule) else { panic!("{rule} in slide {slide}") };
            assert!(message.contains(expected), "{rule} in slide {slide}: {message}");
        }
    }
}

#[test]
fn what_is_missing_while_input_lags_is_not_told() {
    let text = "CREATE ALERT few WITH (every = '10s', over = '20s') AS
        SELECT e.host, e.gpus FROM expected e LEFT JOIN gpu g ON g.host = e.host WHERE g.host IS NULL";
    let mut engine = engine(text);
    engine.set_dimensions(&expected(&[("n1", 1), ("n2", 2)]));
    push(&mut engine, "gpu", &gpu_batch(&[row(1, "n1", 1.0)]));
    assert_eq!(advance(&mut engine, "gpu", 12, true), [""; 0], "n2's rows may be on their way");
    push(&mut engine, "gpu", &gpu_batch(&[row(11, "n1", 1.0)]));
    assert_eq!(advance(&mut engine, "gpu", 22, false), ["20: n2 firing gpus=2"]);
    assert_eq!(advance(&mut engine, "gpu", 32, true), ["30: n2 unknown"]);
}

#[test]
fn who_is_well_is_not_silent() {
    let text = "CREATE ALERT hot WITH (no_data = 'alert') AS SELECT g.host FROM TUMBLE(gpu, ts, '10s') g JOIN TUMBLE(host, ts, '10s') h ON h.host = g.host
        GROUP BY g.host HAVING max(g.temperature_celsius) > 80";
    let mut engine = engine(text);
    let mut tick = |second: i64, temperature: f64| {
        push(&mut engine, "gpu", &gpu_batch(&[row(second, "n1", temperature)]));
        push(&mut engine, "host", &host_batch(&[(second, "n1", 1.0)]));
        let mut listener = Nobody { evaluations: vec![] };
        for table in ["gpu", "host"] {
            engine.advance(table, Timestamp((second + 9) * SECOND), false, &mut listener);
        }
        show(&listener.evaluations)
    };
    assert_eq!(tick(5, 90.0), ["10: n1 firing "]);
    // Nobody asks for it, and it is not silent either.
    assert_eq!(tick(15, 10.0), [""; 0]);
    assert_eq!(tick(25, 10.0), [""; 0]);
}

/// Watches no group.
struct Nobody {
    evaluations: Vec<Evaluation>,
}

impl crate::Listener for Nobody {
    fn watched(&self, _: &str) -> crate::Watched {
        crate::Watched::Keys(vec![])
    }

    fn take(&mut self, evaluation: Evaluation) -> Timestamp {
        self.evaluations.push(evaluation);
        Timestamp::MIN
    }
}

#[test]
fn a_group_has_rows_where_every_table_that_knows_it_has() {
    // IN becomes a join: rows of gpu that are missing are no recovery.
    let text = "CREATE ALERT both AS SELECT h.host FROM TUMBLE(host, ts, '10s') h
        WHERE h.host IN (SELECT host FROM TUMBLE(gpu, ts, '10s') WHERE temperature_celsius > 80) AND h.load1 > 5";
    let mut engine = engine(text);
    push(&mut engine, "host", &host_batch(&[(1, "n1", 9.0), (11, "n1", 9.0), (11, "n2", 1.0)]));
    push(&mut engine, "gpu", &gpu_batch(&[row(1, "n1", 90.0), row(11, "n2", 10.0)]));
    advance(&mut engine, "gpu", 22, false);
    assert_eq!(advance(&mut engine, "host", 22, false), ["10: n1 firing ", "20: n1 no data"]);
    let loaded = super::load(
        "CREATE ALERT x WITH (every = '10s', over = '1m') AS SELECT lower(g.host) AS h, count(*) AS n FROM gpu g JOIN host h ON h.host = g.host GROUP BY lower(g.host)",
    );
    assert!(
        loaded
            .faults
            .iter()
            .any(|fault| fault.message.contains("'h' identifies its alerts and is no column of a table")),
        "{:?}",
        loaded.faults
    );
    let resolves = "CREATE ALERT x WITH (every = '10s', over = '1m', no_data = 'resolve') AS SELECT lower(g.host) AS h, count(*) AS n FROM gpu g JOIN host h ON h.host = g.host GROUP BY lower(g.host)";
    assert_eq!(compile(resolves).rule.key, ["h"]);
}

#[test]
fn keys_that_are_no_columns_of_rows_harm_nobody() {
    let text = "CREATE ALERT odd AS SELECT s.host, s.silence_seconds, count(*) AS n FROM LAST_SEEN(host, ts) s LEFT JOIN maintenance m ON m.host = s.host
        GROUP BY s.host, s.silence_seconds HAVING s.silence_seconds > 5";
    let mut engine = engine(text);
    push(&mut engine, "host", &host_batch(&[(1, "n1", 1.0), (9, "n2", 1.0)]));
    assert_eq!(advance(&mut engine, "host", 12, false), ["10: n1,9 firing n=1"]);
    let windows = "CREATE ALERT each WITH (key = 'host, window_end') AS SELECT g.host, g.window_end FROM TUMBLE(gpu, ts, '10s') g JOIN TUMBLE(host, ts, '10s') h ON h.host = g.host";
    let mut engine = self::engine(windows);
    push(&mut engine, "host", &host_batch(&[(1, "n1", 1.0)]));
    push(&mut engine, "gpu", &gpu_batch(&[row(1, "n1", 1.0)]));
    advance(&mut engine, "gpu", 12, false);
    assert_eq!(advance(&mut engine, "host", 12, false), ["10: n1,1970-01-01T00:00:10Z firing "]);
}

#[test]
fn a_table_that_nobody_writes_holds_nothing_back() {
    let text = "CREATE ALERT alone AS SELECT h.host FROM TUMBLE(host, ts, '10s') h LEFT JOIN TUMBLE(gpu, ts, '10s') g ON g.host = h.host WHERE g.host IS NULL";
    let mut engine = engine(text);
    push(&mut engine, "host", &host_batch(&[(1, "n1", 9.0)]));
    assert!(advance(&mut engine, "host", 12, false).is_empty());
    let mut listener = Everything { evaluations: vec![], until: Timestamp::MIN };
    engine.advance_joined("gpu", Timestamp(12 * SECOND), &mut listener);
    assert_eq!(show(&listener.evaluations), ["10: n1 firing "]);
}
