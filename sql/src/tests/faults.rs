//! Every fault names its place, says what was expected and suggests.

use super::load;
use crate::Level;

/// The errors of a file, each as it is printed.
fn check(text: &str, expected: &[&str]) {
    let loaded = load(text);
    let found: Vec<String> =
        loaded.faults.iter().filter(|fault| fault.level == Level::Error).map(ToString::to_string).collect();
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected) || found.contains(expected), "found    {found}\nexpected {expected}");
    }
}

const GOOD_SELECT: &str =
    "SELECT host, avg(power_watts) AS p FROM HOP(gpu, ts, INTERVAL '10 s', INTERVAL '1 minute') GROUP BY host";

#[test]
fn grammar() {
    check("CREATE ALRT x AS SELECT 1", &["rules.sql:1:8: error: expected ALERT, STREAM or VIEW, found 'ALRT'"]);
    check("CREATE ALERT 9x AS SELECT 1", &["rules.sql:1:14: error: expected the name of the alert, found '9'"]);
    check(
        "CREATE ALERT x\nWITH (severity 'info') AS SELECT 1",
        &["rules.sql:2:16: error: expected '=', found ''info''"],
    );
    check("CREATE ALERT x AS SELEC host FROM gpu", &["rules.sql:1:19: error: expected: SELECT"]);
    check("CREATE ALERT x AS SELECT host FROM gpu WHERE", &["rules.sql:1:45: error: expected: an expression"]);
    check("CREATE ALERT x AS SELECT 'open FROM gpu", &["rules.sql:1:26: error: Unterminated string literal"]);
}

#[test]
fn options() {
    let with = |options: &str| format!("CREATE ALERT x WITH ({options}) AS {GOOD_SELECT}");
    check(
        &with("serverity = 'info'"),
        &[
            "unknown option 'serverity': expected one of severity, for, for_evaluations, keep_firing_for, recover_when, no_data, limit, flap_detection, delay, key, every, over, summary, description, runbook_url, \"label.x\", \"annotation.x\"; did you mean 'severity'? [x]",
        ],
    );
    check(&with("severity = 'page'"), &["severity: 'page' is not one of info, warning, critical"]);
    check(&with("for = '2 parsecs'"), &["for: '2 parsecs' is not a duration: expected a number and a unit"]);
    check(
        &with("backfill = '1h', notify = 'ops'"),
        &[
            "option 'backfill' is not supported by this version yet",
            "option 'notify' is not supported by this version yet",
        ],
    );
    check(&with("\"label.alertname\" = 'y'"), &["label 'alertname' is set by Tidewatch"]);
    check(&with("for = 10s, for = 20s"), &["option 'for' is given twice"]);
}

#[test]
fn names_are_found_and_suggested() {
    check(
        "CREATE ALERT x AS\nSELECT host, avg(temprature_celsius) AS t\nFROM HOP(gpu, ts, INTERVAL '10 s', INTERVAL '1 m') GROUP BY host",
        &[
            "rules.sql:2:18: error: unknown column 'temprature_celsius' in table 'gpu'; did you mean 'temperature_celsius'?",
        ],
    );
    check(
        "CREATE ALERT x AS SELECT host FROM gpus",
        &["rules.sql:1:36: error: unknown table 'gpus'; did you mean 'gpu'?"],
    );
    check(
        "CREATE ALERT x AS SELECT host, averag(power_watts) FROM TUMBLE(gpu, ts, '1m') GROUP BY host",
        &["rules.sql:1:32: error: invalid function 'averag'"],
    );
    check("CREATE ALERT x AS SELECT host FROM HOPP(gpu, ts, '1m', '1m')", &["unknown table function 'HOPP'"]);
}

/// What a function finds out when rows come is found out before.
#[test]
fn constants_that_no_function_takes() {
    let of =
        |call: &str, from: &str| format!("CREATE ALERT x AS SELECT g.host, {call} AS a FROM {from} GROUP BY g.host");
    let window = "HOP(gpu, ts, '10s', '1m') g";
    let joined = "HOP(gpu, ts, '10s', '1m') g JOIN HOP(host, ts, '10s', '1m') h ON h.host = g.host";
    for share in ["1.5", "power_watts"] {
        check(
            &format!(
                "CREATE ALERT x AS\nSELECT host, ewma(power_watts, {share}) OVER (ORDER BY ts ROWS 5 PRECEDING) AS a FROM gpu QUALIFY a > 1"
            ),
            &["rules.sql:2:14: error: 'ewma': expected ewma(x, 0.2, ts) with a number above 0 and at most 1"],
        );
    }
    for from in [window, joined] {
        for (call, expected) in [
            ("ewma(g.power_watts, 3, g.ts)", "a number above 0 and at most 1"),
            ("ewma(g.power_watts, g.power_watts, g.ts)", "a number above 0 and at most 1"),
            ("approx_percentile(g.power_watts, 99)", "a constant between 0 and 1"),
        ] {
            check(&of(call, from), &[expected]);
        }
        check(&of("ewma(g.power_watts, 1.0 / 4, g.ts)", from), &[]);
        check(&of("approx_percentile(g.power_watts, 0.9 + 0.09)", from), &[]);
    }
}

/// A stream has no alerts that could end because data went missing.
#[test]
fn a_stream_may_be_grouped_by_what_is_no_column() {
    let select = "SELECT labels['job'] AS job, avg(value) AS v FROM HOP(metrics, ts, '10s', '1m') m GROUP BY window_start, window_end, labels['job']";
    check(&format!("CREATE STREAM by_job AS {select}"), &[]);
    let joined = "SELECT coalesce(g.job, 'none') AS job, count(*) AS n FROM HOP(gpu, ts, '10s', '1m') g JOIN HOP(host, ts, '10s', '1m') h ON h.host = g.host GROUP BY 1";
    check(&format!("CREATE STREAM by_its_job AS {joined}"), &[]);
    check(
        &format!("CREATE ALERT by_its_job AS {joined}"),
        &["'job' identifies its alerts and is no column of a table"],
    );
}

#[test]
fn windows() {
    let from = |call: &str| format!("CREATE ALERT x AS SELECT host, count(*) AS c FROM {call} GROUP BY host");
    check(&from("gpu"), &["no window bound: an aggregate over 'gpu' would never end; expected FROM HOP(gpu, ts, "]);
    check(
        &from("HOP(gpu, ts, INTERVAL '10 s')"),
        &["HOP: argument 'size' is missing: expected HOP(table, ts, INTERVAL '10 seconds', INTERVAL '1 minute')"],
    );
    check(&from("HOP(gpu, time, '10 s', '1 m')"), &["'time' is not the time column: every table's is 'ts'"]);
    check(&from("HOP(gpu, ts, '1 m', '10 s')"), &["the slide 1m is longer than the size 10s"]);
    check(
        &from("TUMBLE(gpu, ts, '9 h')"),
        &["a window of 9h is over the limit of 2h; a stream may be windowed over 24h"],
    );
    check(&from("TUMBLE(gpu_event, ts, '25 h')"), &["a window of 1d1h is over the limit of 1d"]);
    check(&from("HOP(gpu_event, ts, '1 m', '24 h')"), &[]);
    check(&from("TUMBLE(gpu, ts, '0 s')"), &["'0 s' is not longer than zero"]);
}

#[test]
fn a_rule_does_not_feed_itself() {
    check(
        "CREATE ALERT x AS SELECT rule FROM alert_event WHERE to_state = 'firing'",
        &["rules.sql:1:36: error: a rule can't read 'alert_event': the alerts that it makes are rows there"],
    );
    check("CREATE ALERT x AS SELECT increase(load1, 2, 3) FROM TUMBLE(host, ts, '1m')", &["increase"]);
    let long = format!("CREATE ALERT x WITH (summary = '{}') AS SELECT host FROM host", "x".repeat(40_000));
    check(&long, &["bytes: expected 32768 at most"]);
}

#[test]
fn what_has_no_bound_is_refused() {
    check(
        "CREATE ALERT x AS SELECT g.host FROM gpu g JOIN host h ON g.host = h.host",
        &[
            "no window bound: it reads several tables of rows over time; expected HOP or TUMBLE with one slide and one size on each, or the options every",
        ],
    );
    check(
        "CREATE ALERT x AS SELECT host FROM gpu WHERE host IN (SELECT host FROM host)",
        &["no window bound: it reads several tables"],
    );
    check(
        "CREATE ALERT x AS SELECT h.host FROM HOP(gpu, ts, '10s', '1m') g JOIN TUMBLE(host, ts, '1m') h ON g.host = h.host",
        &["no window bound: it reads several tables"],
    );
    check("CREATE ALERT x AS SELECT DISTINCT host FROM gpu", &["no window bound: DISTINCT over 'gpu' would never end"]);
    check(
        "CREATE ALERT x AS SELECT host, avg(power_watts) OVER (PARTITION BY host) AS a FROM gpu",
        &["OVER of avg: expected ORDER BY ts; or a bound for any query"],
    );
    check(
        "CREATE ALERT x AS SELECT host FROM gpu UNION ALL SELECT host FROM expected",
        &["no window bound: a UNION over 'gpu'"],
    );
    check("CREATE ALERT x AS SELECT host FROM expected", &["it reads no table of rows over time"]);
    check(
        "CREATE ALERT x WITH (every = '10s') AS SELECT host FROM gpu",
        &["rules.sql:1:22: error: every needs the option over"],
    );
    check(
        "CREATE ALERT x WITH (every = '1m', over = '10s') AS SELECT host FROM gpu",
        &["every, over: the slide 1m is longer than the size 10s"],
    );
    check(
        "CREATE ALERT x WITH (every = '10s', over = '30s') AS SELECT host FROM TUMBLE(gpu, ts, '1m')",
        &["a window of 1m does not fit in over = '30s'"],
    );
    check("CREATE ALERT x AS SELECT host FROM gpu WHERE ts < now()", &["now() is not deterministic"]);
    check("CREATE ALERT x AS SELECT host FROM gpu ORDER BY host", &["ORDER BY and LIMIT have no meaning in a rule"]);
    check(
        "CREATE ALERT x AS WITH RECURSIVE a AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM a) SELECT host FROM gpu, a",
        &["WITH RECURSIVE may never end"],
    );
    check("CREATE ALERT x AS SELECT host FROM HOP(expected, ts, '10s', '1m')", &["'expected' is a dimension table"]);
    check(
        "CREATE ALERT x AS SELECT host FROM gpu WHERE host IN (SELECT host FROM expcted)",
        &["did you mean 'expected'?"],
    );
    check(
        "CREATE ALERT x WITH (every = '10s', over = '1m') AS SELECT h.load1 + g.power_watts AS n FROM gpu g JOIN host h ON g.host = h.host",
        &[
            "nothing identifies the alerts: expected an identity column of a table in the SELECT list, or the option key with some of n",
        ],
    );
}

#[test]
fn identity() {
    check(
        "CREATE ALERT x AS SELECT power_watts FROM gpu WHERE power_watts > 1",
        &["nothing identifies the alerts: expected one of the identity columns of 'gpu' (host, gpu_uuid, mig_uuid)"],
    );
    check(
        "CREATE ALERT x AS SELECT count(*) AS c FROM TUMBLE(gpu, ts, '1m') GROUP BY host",
        &["GROUP BY column 'host' is part of the alert's identity"],
    );
    check(
        "CREATE ALERT x WITH (key = 'nothing') AS SELECT host FROM gpu",
        &["key: the SELECT has no column 'nothing': expected one of host"],
    );
}

#[test]
fn a_label_does_not_hide_a_key_column() {
    check(
        &format!("CREATE ALERT x WITH (\"label.host\" = 'a') AS {GOOD_SELECT}"),
        &["label 'host' would hide the key column of that name"],
    );
}

#[test]
fn one_broken_rule_leaves_the_others() {
    let loaded = load(&format!(
        "CREATE ALERT a AS {GOOD_SELECT};\nCREATE ALERT b AS SELECT;\nCREATE ALERT c AS {GOOD_SELECT};\nCREATE ALERT a AS {GOOD_SELECT}"
    ));
    let names: Vec<&str> = loaded.rules.iter().map(|rule| rule.rule.name.as_str()).collect();
    assert_eq!(names, ["a", "c"]);
    let errors: Vec<&crate::Fault> = loaded.faults.iter().filter(|fault| fault.level == Level::Error).collect();
    assert_eq!(errors.len(), 2);
    assert!(errors[1].message.contains("defined twice: first at rules.sql:1:14"), "{}", errors[1]);
}

#[test]
fn remarks() {
    let remarks = |text: &str| -> Vec<String> { load(text).faults.iter().map(ToString::to_string).collect() };
    let found = remarks(
        "CREATE ALERT x AS SELECT host, power_watts / power_limit_watts AS share FROM gpu WHERE power_watts / power_limit_watts > 0.9",
    );
    assert!(found.iter().any(|remark| remark.contains("ratio(a, b) gives NULL instead")), "{found:?}");
    let found = remarks("CREATE ALERT x AS SELECT job, rank, loss FROM train_step WHERE loss > 10");
    assert!(found.iter().any(|remark| remark.contains("'loss' may hold NaN")), "{found:?}");
    let found = remarks(&format!("CREATE ALERT x AS {GOOD_SELECT}"));
    assert!(
        found.iter().any(|remark| remark.contains("GROUP BY without window_start, window_end means them")),
        "{found:?}"
    );
    let joined = |rest: &str| {
        let rule = "CREATE ALERT x WITH (every = '10s', over = '1m') AS SELECT g.host, g.gpu_uuid FROM gpu g";
        remarks(&format!("{rule} {rest}")).iter().any(|remark| remark.contains("joins every row with every row"))
    };
    assert!(joined("CROSS JOIN host h"));
    assert!(joined("JOIN host h ON h.load1 > 3"));
    assert!(!joined("JOIN host h ON h.host = g.host"));
    assert!(!joined(", host h WHERE h.host = g.host"));
    assert!(!joined("JOIN host h ON h.load1 > g.power_watts"));
    assert!(!joined("CROSS JOIN (SELECT avg(load1) AS mean FROM host) h WHERE h.mean < g.power_watts"));
}
