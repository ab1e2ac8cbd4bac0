//! `recover_when`, severity as a column, and two rows of one identity.

use tidewatch_model::Timestamp;

use super::{SECOND, advance, compile, gpu_batch, load, push, row, show};
use crate::{Engine, Feed};

const WINDOW: &str = "FROM HOP(gpu, ts, INTERVAL '10 seconds', INTERVAL '10 seconds') GROUP BY host";

/// The states of n1 at these temperatures, one every ten seconds.
fn states(rule: &str, temperatures: &[f64]) -> Vec<String> {
    let mut engine = Engine::new(vec![compile(rule)]).unwrap();
    let mut shown = Vec::new();
    for (at, temperature) in temperatures.iter().enumerate() {
        let now = at as i64 * 10;
        shown.extend(show(&push(&mut engine, &gpu_batch(&[row(now + 1, "n1", *temperature)]), Feed::Live)));
        shown.extend(show(&advance(&mut engine, Timestamp((now + 12) * SECOND), false)));
    }
    let state = |line: String| line.split_once(": ").map(|(_, state)| state.to_string()).unwrap_or(line);
    shown.into_iter().map(state).collect()
}

#[test]
fn a_group_fires_has_not_recovered_or_is_well() {
    let expected = ["n1 clear", "n1 firing t=90", "n1 held", "n1 held", "n1 clear"];
    let temperatures = [70.0, 90.0, 82.0, 76.0, 74.0];
    for rule in [
        format!(
            "CREATE ALERT a WITH (recover_when = 't < 75') AS SELECT host, max(temperature_celsius) AS t {WINDOW} HAVING t > 85"
        ),
        format!(
            "CREATE ALERT a WITH (recover_when = 'max(temperature_celsius) < 75') AS SELECT host, max(temperature_celsius) AS t {WINDOW} HAVING max(temperature_celsius) > 85"
        ),
        // Another query's form, whose plan is run.
        "CREATE ALERT a WITH (every = '10s', over = '10s', recover_when = 't < 75') AS SELECT host, max(temperature_celsius) AS t FROM gpu GROUP BY host HAVING t > 85".to_string(),
    ] {
        assert_eq!(states(&rule, &temperatures), expected, "{rule}");
    }
}

#[test]
fn rows_recover_too_and_labels_stay_labels() {
    let rule = "CREATE ALERT a WITH (recover_when = 'temperature_celsius < 75') AS SELECT host, temperature_celsius AS t FROM gpu
        WHERE host <> 'n9' AND temperature_celsius > 85";
    assert_eq!(
        states(rule, &[70.0, 90.0, 82.0, 74.0, 80.0]),
        ["n1 clear", "n1 firing t=90", "n1 held", "n1 clear", "n1 held"]
    );
    let mut engine = Engine::new(vec![compile(rule)]).unwrap();
    let rows = gpu_batch(&[row(1, "n9", 99.0), row(2, "n9", 80.0)]);
    assert_eq!(show(&push(&mut engine, &rows, Feed::Live)), [""; 0], "n9 is none of its hosts");
    let over = "CREATE ALERT a WITH (recover_when = 'temperature_celsius < 75') AS SELECT host, gpu_uuid, temperature_celsius,
        lag(temperature_celsius) OVER (PARTITION BY host, gpu_uuid ORDER BY ts) AS before FROM gpu QUALIFY temperature_celsius > before + 10";
    let found = states(over, &[70.0, 90.0, 92.0, 74.0]);
    let short: Vec<&str> = found.iter().map(|line| line.split(' ').nth(1).unwrap()).collect();
    // The first row has none before it: whether the condition holds nobody can say, and it is no recovery.
    assert_eq!(short, ["firing", "held", "clear"], "{found:?}");
    let null = "CREATE ALERT a WITH (recover_when = 'max(power_watts) < 75') AS SELECT host, max(temperature_celsius) AS t
        FROM HOP(gpu, ts, INTERVAL '10 seconds', INTERVAL '10 seconds') GROUP BY host HAVING max(temperature_celsius) > 85";
    assert_eq!(states(null, &[90.0, 70.0]), ["n1 firing t=90", "n1 held"], "power is NULL: that is no recovery");
    let general = null
        .replace("WITH (", "WITH (every = '10s', over = '10s', ")
        .replace("HOP(gpu, ts, INTERVAL '10 seconds', INTERVAL '10 seconds')", "gpu");
    assert_eq!(states(&general, &[90.0, 70.0]), ["n1 firing t=90", "n1 held"]);
}

#[test]
fn what_can_be_no_recovery_is_refused() {
    for (option, select, problem) in [
        ("t <", "SELECT host, max(temperature_celsius) AS t {} HAVING t > 85", "is no condition"),
        ("t < 75", "SELECT host, max(temperature_celsius) AS t {}", "expected a rule with a condition"),
        ("u < 75", "SELECT host, max(temperature_celsius) AS t {} HAVING t > 85", "recover_when: unknown column 'u'"),
        (
            "t < 75",
            "SELECT host, max(temperature_celsius) AS t {} HAVING host IN (SELECT host FROM expected)",
            "expected no subquery",
        ),
        (
            "t < 75",
            "SELECT host, max(temperature_celsius) AS t FROM HOP(gpu, ts, INTERVAL '10 seconds', INTERVAL '10 seconds') WHERE host <> 'x' AND power_watts > 9 GROUP BY host HAVING t > 85",
            "'power_watts > 9' in WHERE",
        ),
        ("message = 'x'", "SELECT host, message FROM gpu_event WHERE message = 'y'", "expected a rule over samples"),
        ("t < 75", "SELECT host FROM gpu WHERE host = 'n1'", "expected a rule with a condition"),
    ] {
        let text = format!(
            "CREATE ALERT a WITH (recover_when = '{}') AS {};",
            option.replace('\'', "''"),
            select.replace("{}", WINDOW)
        );
        let loaded = load_any(&text);
        assert!(loaded.iter().any(|fault| fault.contains(problem)), "{text}: {loaded:?}");
    }
    let flaps = load_any(
        "CREATE ALERT a WITH (flap_detection = true, for_evaluations = 0, limit = 'x') AS SELECT host FROM gpu WHERE temperature_celsius > 1;",
    );
    assert_eq!(flaps.len(), 3, "{flaps:?}");
}

#[test]
fn a_column_of_severity_is_looked_at() {
    let of = |expression: &str| load_any(&format!("CREATE ALERT a AS SELECT host, {expression} AS severity {WINDOW};"));
    let case =
        "CASE WHEN max(temperature_celsius) > 95 THEN 'Critical' WHEN host = 'page' THEN 'page' ELSE 'warning' END";
    let found = of(case);
    assert!(found.iter().any(|fault| fault.contains("warning: 'page' is not one of info")), "{found:?}");
    assert_eq!(found.iter().filter(|fault| fault.contains("is not one of")).count(), 1, "{found:?}");
    assert!(of("avg(temperature_celsius)").iter().any(|fault| fault.contains("the column severity is Float64")));
}

fn load_any(text: &str) -> Vec<String> {
    let mut loaded = crate::Loaded::default();
    crate::Compiler::new().unwrap().load("r.sql", text, &mut loaded);
    loaded.faults.iter().map(ToString::to_string).collect()
}

#[test]
fn of_two_rows_of_one_identity_the_worst_speaks_and_the_other_is_counted() {
    let rule = |compare: &str| {
        format!(
            "CREATE ALERT a WITH (every = '10s', over = '10s', key = 'host') AS SELECT host, gpu_uuid, temperature_celsius AS t FROM gpu WHERE temperature_celsius {compare}"
        )
    };
    for (compare, expected) in [("> 80", "90"), ("< 95", "85")] {
        let mut engine = Engine::new(load(&rule(compare)).rules).unwrap();
        let rows: Vec<_> = [85.0, 90.0, 87.0].iter().enumerate().map(|(at, t)| row(at as i64 + 1, "n1", *t)).collect();
        push(&mut engine, &gpu_batch(&rows), Feed::Live);
        let shown = show(&advance(&mut engine, Timestamp(12 * SECOND), false));
        assert!(shown[0].ends_with(&format!("t={expected}")), "{compare}: {shown:?}");
        assert_eq!(engine.repeated_rows().collect::<Vec<_>>(), [("a", 2)]);
    }
}
