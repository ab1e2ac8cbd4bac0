//! Views, by example: a rule over a view is the rule over what the view says.

use tidewatch_model::Timestamp;

use super::{SECOND, advance, gpu_batch, load, push, row, show};
use crate::{Compiler, Engine, Feed, Level, bundled};

const VIEWS: &str = "CREATE VIEW clean AS SELECT ts, host, gpu_uuid, temperature_celsius * 1.8 + 32 AS fahrenheit, power_watts FROM gpu AS g WHERE temperature_celsius BETWEEN 0 AND 200;
    CREATE OR REPLACE VIEW warm AS SELECT ts, host, fahrenheit FROM clean WHERE fahrenheit > 100;";

fn engine(rule: &str) -> Engine {
    let loaded = load(&format!("{VIEWS} {rule}"));
    let errors: Vec<String> =
        loaded.faults.iter().filter(|fault| fault.level == Level::Error).map(ToString::to_string).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    Engine::new(loaded.rules).unwrap()
}

fn strategy(engine: &Engine) -> &'static str {
    engine.explain().next().unwrap().strategy
}

#[test]
fn windows_over_views_are_shared() {
    let rule = "CREATE ALERT hot AS SELECT host, avg(fahrenheit) AS f FROM HOP(clean, ts, '10s', '20s') GROUP BY host HAVING avg(fahrenheit) > 100";
    let mut engine = engine(rule);
    assert_eq!(strategy(&engine), "shared");
    // 999 degrees is no measurement.
    let rows = [row(5, "n1", 50.0), row(6, "n1", 999.0), row(7, "n2", 10.0)];
    push(&mut engine, &gpu_batch(&rows), Feed::Live);
    assert_eq!(show(&advance(&mut engine, Timestamp(12 * SECOND), false)), ["10: n1 firing f=122", "10: n2 clear"]);
    let nested = "CREATE ALERT hot AS SELECT w.host, count(*) AS n FROM TUMBLE(data => warm, timecol => ts, size => '10s') AS w GROUP BY w.host, w.window_end HAVING count(*) > 1";
    let mut engine = self::engine(nested);
    assert_eq!(strategy(&engine), "shared");
    push(
        &mut engine,
        &gpu_batch(&[row(5, "n1", 50.0), row(6, "n1", 60.0), row(7, "n1", 10.0), row(7, "n2", 50.0)]),
        Feed::Live,
    );
    assert_eq!(show(&advance(&mut engine, Timestamp(12 * SECOND), false)), ["10: n1 firing n=2", "10: n2 clear"]);
    let flink = "CREATE ALERT hot AS SELECT host, max(fahrenheit) AS f FROM clean GROUP BY tumble(ts, INTERVAL '10 seconds'), host HAVING max(fahrenheit) > 100";
    assert_eq!(strategy(&self::engine(flink)), "shared");
}

#[test]
fn rows_of_views_are_judged_on_arrival() {
    let mut engine = engine("CREATE ALERT hot AS SELECT host, gpu_uuid, fahrenheit FROM clean WHERE fahrenheit > 100");
    assert_eq!(strategy(&engine), "row");
    let found =
        push(&mut engine, &gpu_batch(&[row(5, "n1", 50.0), row(6, "n2", 10.0), row(7, "n1", 500.0)]), Feed::Live);
    assert_eq!(show(&found), ["5: g0,n1 firing fahrenheit=122", "6: g0,n2 clear", "7: g0,n1 clear"]);
    let rise = "CREATE ALERT rise AS SELECT host, gpu_uuid, fahrenheit - lag(fahrenheit) OVER (PARTITION BY host, gpu_uuid ORDER BY ts) AS rise FROM clean QUALIFY rise > 9";
    let mut engine = self::engine(rise);
    assert_eq!(strategy(&engine), "ordered");
    push(&mut engine, &gpu_batch(&[row(1, "n1", 50.0), row(2, "n1", 500.0), row(3, "n1", 60.0)]), Feed::Live);
    assert_eq!(
        show(&advance(&mut engine, Timestamp(12 * SECOND), false)),
        ["2: g0,n1 clear", "3: g0,n1 firing rise=18"]
    );
}

#[test]
fn a_rule_changes_when_its_view_does() {
    let rule = "CREATE ALERT hot AS SELECT host, gpu_uuid FROM v WHERE t > 1";
    let version = |factor: i64| {
        let text =
            format!("CREATE VIEW v AS SELECT ts, host, gpu_uuid, temperature_celsius * {factor} AS t FROM gpu; {rule}");
        load(&text).rules.remove(0).rule.version
    };
    assert_eq!(version(1), version(1));
    assert_ne!(version(1), version(2));
}

#[test]
fn a_name_that_with_gives_is_nearer_than_a_view() {
    let rule = "CREATE ALERT hot WITH (every = '10s', over = '10s') AS WITH warm AS (SELECT host, max(power_watts) AS w FROM gpu GROUP BY host) SELECT host, w FROM warm WHERE w > 1";
    let loaded = load(&format!("{VIEWS} {rule}"));
    assert_eq!(loaded.rules.len(), 1, "{:?}", loaded.faults);
    assert_eq!(loaded.rules[0].outputs, ["host", "w"]);
}

#[test]
fn wrong_views_are_named() {
    for (text, expected) in [
        (
            "CREATE VIEW gpu AS SELECT ts, host FROM host",
            "rules.sql:1:13: error: 'gpu' is a table: expected another name",
        ),
        ("CREATE VIEW v AS SELECT host FROM host", "view 'v': expected ts in its SELECT list"),
        (
            "CREATE VIEW v AS SELECT ts, count(*) AS n FROM host GROUP BY ts",
            "view 'v': expected SELECT ... FROM table WHERE",
        ),
        ("CREATE VIEW v AS SELECT ts, hots FROM host", "unknown column 'hots' in table 'host'; did you mean 'host'?"),
        ("CREATE VIEW v AS SELECT ts, host FROM hosts", "unknown table 'hosts'; did you mean 'host'?"),
        ("CREATE VIEW v AS SELECT ts, host FROM w; CREATE VIEW w AS SELECT ts, host FROM host", "unknown table 'w'"),
        (
            "CREATE VIEW v AS SELECT ts, host FROM host; CREATE VIEW v AS SELECT ts, host FROM host",
            "view 'v' is defined twice: first at rules.sql:1:13",
        ),
        (
            "CREATE VIEW v AS SELECT ts, host FROM host; CREATE ALERT x AS SELECT host FROM LAST_SEEN(v, ts)",
            "'v' is a view: LAST_SEEN and STALLED read tables",
        ),
        (
            "CREATE VIEW v AS SELECT ts, host AS machine FROM host; CREATE ALERT x AS SELECT host FROM v",
            "unknown column 'host'",
        ),
    ] {
        let found: Vec<String> = load(text).faults.iter().map(ToString::to_string).collect();
        assert!(found.iter().any(|fault| fault.contains(expected)), "{text}: {found:#?}");
    }
}

#[test]
fn views_may_look_back() {
    let text = "CREATE VIEW calm AS SELECT ts, host, gpu_uuid, median(temperature_celsius) OVER w AS middle, hampel(temperature_celsius, 3) OVER w AS kept,
            ewma(temperature_celsius, 0.5) OVER w AS mean
        FROM gpu WINDOW w AS (PARTITION BY host, gpu_uuid ORDER BY ts ROWS BETWEEN 2 PRECEDING AND CURRENT ROW);
        CREATE ALERT x AS SELECT host, gpu_uuid, middle, kept, mean FROM calm WHERE middle > 10";
    let loaded = load(text);
    assert!(!loaded.has_errors(), "{:?}", loaded.faults);
    let mut engine = Engine::new(loaded.rules).unwrap();
    let rows = [row(1, "n1", 5.0), row(2, "n1", 90.0), row(3, "n1", 7.0), row(4, "n1", 80.0), row(5, "n1", 20.0)];
    push(&mut engine, &gpu_batch(&rows), Feed::Live);
    assert_eq!(
        show(&advance(&mut engine, Timestamp(20 * SECOND), false)),
        [
            "1: g0,n1 clear",
            // 5 and 90: 42.5 each from the middle, and within 3 * 1.4826 * 42.5.
            "2: g0,n1 firing middle=47.5 kept=90 mean=61.666666666666664",
            "3: g0,n1 clear",
            "4: g0,n1 firing middle=80 kept=80 mean=60.57142857142857",
            // 7, 80 and 20: the middle is 20.
            "5: g0,n1 firing middle=20 kept=20 mean=35.285714285714285",
        ]
    );
}

#[test]
fn bundled_views_are_there_and_can_be_replaced() {
    let mut loaded = crate::Loaded::default();
    let files = bundled::VIEWS.iter().map(|file| (file.path, file.sql));
    Compiler::new().unwrap().load_files(files, &mut loaded);
    assert!(loaded.faults.is_empty(), "{:?}", loaded.faults);
    assert_eq!(loaded.views().len(), bundled::VIEWS.len());
    for file in bundled::VIEWS {
        let name = file.rule_name();
        let loaded = load(&format!("CREATE ALERT x AS SELECT * FROM {name} WHERE ts > '2030-01-01T00:00:00Z'"));
        assert_eq!(loaded.rules.len(), 1, "{name}: {:?}", loaded.faults);
    }
    let own = "CREATE VIEW gpu_smooth AS SELECT ts, host, power_watts AS smooth FROM gpu;
        CREATE ALERT x AS SELECT host, smooth FROM gpu_smooth WHERE smooth > 1";
    let loaded = load(own);
    assert!(loaded.faults.is_empty(), "{:?}", loaded.faults);
    assert_eq!(loaded.views().iter().filter(|view| view.name == "gpu_smooth").count(), 1);
}

#[test]
fn streams_are_tables_of_samples() {
    let loaded = load(
        "CREATE STREAM test_heat WITH (delay = '1s') AS SELECT host, gpu_index, avg(temperature_celsius) AS heat, count(*) AS n, window_end
            FROM HOP(gpu, ts, '10s', '1m') GROUP BY window_end, host, gpu_index;
         CREATE STREAM test_heat_of_fleet AS SELECT host, max(heat) AS heat FROM TUMBLE(test_heat, ts, '1m') GROUP BY host;
         CREATE ALERT hot AS SELECT host, heat FROM test_heat_of_fleet WHERE heat > 80;",
    );
    let faults: Vec<String> =
        loaded.faults.iter().filter(|fault| fault.level == Level::Error).map(ToString::to_string).collect();
    assert!(faults.is_empty(), "{faults:#?}");
    let names: Vec<(&str, bool)> =
        loaded.rules.iter().map(|rule| (rule.rule.name.as_str(), rule.rule.stream)).collect();
    assert_eq!(names, [("test_heat", true), ("test_heat_of_fleet", true), ("hot", false)]);
    let table = tidewatch_model::table::find("test_heat").unwrap();
    let columns: Vec<(&str, bool)> = table.columns.iter().map(|column| (column.name, column.identity)).collect();
    assert_eq!(columns, [("host", true), ("gpu_index", true), ("heat", false), ("n", false)]);
    assert_eq!(table.interval, tidewatch_model::Span::seconds(10));
    for (text, expected) in [
        ("CREATE STREAM s AS SELECT host FROM gpu WHERE power_watts > 1", "a stream has one row per group and window"),
        (
            "CREATE STREAM s WITH (severity = 'info') AS SELECT host, count(*) AS n FROM TUMBLE(gpu, ts, '1m') GROUP BY host",
            "a stream has no option 'severity'",
        ),
        ("CREATE STREAM s AS SELECT count(*) AS n FROM TUMBLE(gpu, ts, '1m')", "nothing identifies its rows"),
        (
            "CREATE STREAM gpu AS SELECT host, count(*) AS n FROM TUMBLE(gpu, ts, '1m') GROUP BY host",
            "'gpu' is known with other columns",
        ),
        ("CREATE STREAM s AS SELECT host, count(*) AS n FROM TUMBLE(s, ts, '1m') GROUP BY host", "unknown table 's'"),
        (
            "CREATE STREAM tick AS SELECT host, count(*) AS n FROM TUMBLE(gpu, ts, '1m') GROUP BY host",
            "'tick' is a name that Tidewatch keeps",
        ),
    ] {
        let found: Vec<String> = load(text).faults.iter().map(ToString::to_string).collect();
        assert!(found.iter().any(|fault| fault.contains(expected)), "{text}: {found:#?}");
    }
}
