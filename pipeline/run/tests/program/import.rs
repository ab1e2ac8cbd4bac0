//! Rules of Prometheus, translated: the real promtool finds the same alerts, with the same labels, at the same minutes, over random
//! series with gaps, ends, resets and labels that are missing; and it prints the same annotations.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tidewatch_model::Timestamp;

use super::process::{bad, good, tidewatch};

const RULES: &str = include_str!("import.yml");
/// Samples of a series.
const SAMPLES: usize = 57;
/// Seconds between two: they never meet a minute, where the two take the ends of a range for different sides.
const STEP: i64 = 17;
const MINUTES: i64 = 15;
const START: i64 = 1_767_225_600;

type Labels = BTreeMap<String, String>;

/// What a series has at one of its times.
#[derive(Clone, Copy)]
enum Sample {
    Value(f64),
    /// The row that says that it has ended.
    Ended,
    Missing,
}

impl Sample {
    fn plus(self, more: f64) -> Sample {
        match self {
            Sample::Value(value) => Sample::Value(value + more),
            other => other,
        }
    }
}

/// Numbers that are the same for the same seed (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: i64) -> i64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % limit as u64) as i64
    }

    fn between(&mut self, low: i64, high: i64) -> i64 {
        low + self.below(high - low + 1)
    }

    /// The first sample is missing, so that no range begins with one, and so are some others: because the series had ended, or was not
    /// heard of.
    fn with_gaps(&mut self, values: Vec<i64>) -> Vec<Sample> {
        let mut values: Vec<Sample> = values.into_iter().map(|value| Sample::Value(value as f64)).collect();
        values[0] = Sample::Missing;
        for _ in 0..self.below(3) {
            let from = self.between(1, SAMPLES as i64 - 1) as usize;
            let lasts = [1, 2, 5, 12, 30][self.below(5) as usize];
            values.iter_mut().skip(from).take(lasts).for_each(|value| *value = Sample::Missing);
            if self.below(2) == 0 {
                values[from] = Sample::Ended;
            }
        }
        values
    }

    fn gauge(&mut self, low: i64, high: i64) -> Vec<Sample> {
        let mut value = self.between(low, high);
        let values = (0..SAMPLES).map(|_| {
            if self.below(10) < 3 {
                value = (value + self.between(-3, 3)).clamp(low, high);
            }
            value
        });
        let values = values.collect();
        self.with_gaps(values)
    }

    fn counter(&mut self) -> Vec<Sample> {
        let mut value = [0, 0, 1, 50][self.below(4) as usize];
        let mut pace = [0, 1, 3, 9][self.below(4) as usize];
        let values = (0..SAMPLES).map(|_| {
            if self.below(20) < 3 {
                pace = [0, 0, 1, 3, 9][self.below(5) as usize];
            }
            if self.below(33) == 0 {
                value = 0;
            }
            value += self.between(0, pace);
            value
        });
        let values = values.collect();
        self.with_gaps(values)
    }
}

struct Series {
    name: &'static str,
    labels: Vec<(&'static str, &'static str)>,
    values: Vec<Sample>,
}

fn fleet(numbers: &mut Numbers) -> Vec<Series> {
    let machines: [&[(&str, &str)]; 5] = [
        &[("job", "a"), ("instance", "i1"), ("zone", "z1")],
        &[("job", "a"), ("instance", "i2"), ("zone", "z2"), ("rack", "r1")],
        &[("job", "a"), ("instance", "i3"), ("rack", "r3")],
        &[("job", "b"), ("instance", "i4"), ("zone", "z1"), ("rack", "r2")],
        &[("job", "b"), ("instance", "i5"), ("zone", "z2")],
    ];
    let mut all = Vec::new();
    for (index, machine) in machines.into_iter().enumerate() {
        let (short, own) = (machine[..2].to_vec(), machine.to_vec());
        let with = |labels: &[(&'static str, &'static str)], label, value| [labels, &[(label, value)]].concat();
        let mut add = |name, labels: &[(&'static str, &'static str)], values| {
            all.push(Series { name, labels: labels.to_vec(), values });
        };
        add("load", &own, numbers.gauge(0, 10));
        add("capacity", &own, numbers.gauge(10, 18));
        add("free", &own, numbers.gauge(0, 3));
        // No two are equal, among which topk may take either.
        let unequal = numbers.gauge(0, 10).into_iter().map(|value| value.plus(index as f64 / 8.0));
        add("unequal", &own, unequal.collect());
        add("up", &short, numbers.gauge(0, 1));
        let version = if numbers.below(2) == 0 { "v1" } else { "v2" };
        add("info", &[machine[1], ("version", version)], numbers.with_gaps(vec![1; SAMPLES]));
        add("requests_total", &with(&own, "code", "200"), numbers.counter());
        add("requests_total", &with(&own, "code", "500"), numbers.counter());
        add("errors", &with(&short, "kind", "k1"), numbers.gauge(0, 9));
        add("handled", &short, numbers.gauge(0, 5));
        add("treated", &short, numbers.gauge(0, 5));
        add("treated", &with(&short, "kind", "odd"), numbers.gauge(0, 5));
        let fast = numbers.counter();
        let slower = |factor: usize| {
            let add = |(index, value): (usize, &Sample)| value.plus((index * factor) as f64);
            fast.iter().enumerate().map(add).collect::<Vec<_>>()
        };
        for (bound, values) in [("0.1", slower(0)), ("0.5", slower(1)), ("+Inf", slower(3))] {
            add("latency_bucket", &with(&short, "le", bound), values);
        }
    }
    let ends = numbers.between(5, SAMPLES as i64) as usize;
    let values = (0..SAMPLES).map(|index| match index {
        0 => Sample::Missing,
        index if index < ends => Sample::Value(1.0),
        index if index == ends && numbers.below(2) == 0 => Sample::Ended,
        _ => Sample::Missing,
    });
    let values = values.collect();
    all.push(Series { name: "gone", labels: vec![("job", "a"), ("instance", "i1")], values });
    all.push(Series { name: "tick", labels: vec![("job", "t")], values: vec![Sample::Value(1.0); SAMPLES] });
    all
}

/// The names of the alerts, with their severity where they have one.
fn alerts() -> Vec<(&'static str, bool)> {
    let written = RULES.lines().filter_map(|line| line.split_once("{alert: "));
    written.map(|(_, rest)| (rest.split(',').next().unwrap(), rest.contains("severity: critical"))).collect()
}

/// By alert: the labels of what fires after each minute.
fn ours(folder: &Path, series: &[Series]) -> BTreeMap<(String, i64), Vec<Labels>> {
    let mut rows: Vec<(i64, String)> = Vec::new();
    for Series { name, labels, values } in series {
        let labels: Labels = labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        for (index, value) in values.iter().enumerate() {
            let value = match value {
                Sample::Value(value) => Some(value),
                Sample::Ended => None,
                Sample::Missing => continue,
            };
            let ts = (START + index as i64 * STEP) * 1_000_000;
            rows.push((ts, serde_json::json!({"ts": ts, "name": name, "labels": labels, "value": value}).to_string()));
        }
    }
    rows.sort_by_key(|(ts, _)| *ts);
    let lines: String = rows.into_iter().map(|(_, line)| line + "\n").collect();
    std::fs::write(folder.join("metrics.jsonl"), lines).unwrap();
    let printed = good(folder, &["backtest", "--rules", "imported", "--input", "metrics=metrics.jsonl"]);
    let mut changes: BTreeMap<(String, Labels), Vec<(i64, bool)>> = BTreeMap::new();
    for line in printed.lines() {
        let change: Value = serde_json::from_str(line).unwrap();
        let mut labels: Labels = serde_json::from_value(change["labels"].clone()).unwrap();
        let name = labels.remove("alertname").unwrap();
        let ts: Timestamp = change["ts"].as_str().unwrap().parse().unwrap();
        let fires = change["to_state"] == "firing";
        changes.entry((name, labels)).or_default().push((ts.0 / 1_000_000 - START, fires));
    }
    let mut firing: BTreeMap<(String, i64), Vec<Labels>> = BTreeMap::new();
    for ((name, labels), changes) in changes {
        for minute in 1..=MINUTES {
            if changes.iter().rev().find(|(at, _)| *at <= minute * 60).is_some_and(|(_, fires)| *fires) {
                firing.entry((name.clone(), minute)).or_default().push(labels.clone());
            }
        }
    }
    firing
}

/// What promtool says to the same; `None` without it.
fn promtool(
    folder: &Path,
    series: &[Series],
    firing: &BTreeMap<(String, i64), Vec<Labels>>,
) -> Option<Result<(), String>> {
    let mut tests =
        format!("rule_files: [import.yml]\nevaluation_interval: 1m\ntests:\n- interval: {STEP}s\n  input_series:\n");
    for Series { name, labels, values } in series {
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
        let values = values.iter().map(|value| match value {
            Sample::Value(value) => value.to_string(),
            Sample::Ended => "stale".to_string(),
            Sample::Missing => "_".to_string(),
        });
        let values: Vec<String> = values.collect();
        writeln!(tests, "  - {{series: '{name}{{{}}}', values: '{}'}}", labels.join(","), values.join(" ")).unwrap();
    }
    tests.push_str("  alert_rule_test:\n");
    for (name, critical) in alerts() {
        for minute in 1..=MINUTES {
            let expected = firing.get(&(name.to_string(), minute)).into_iter().flatten().map(|labels| {
                let mut labels = labels.clone();
                if critical {
                    labels.insert("severity".to_string(), "critical".to_string());
                }
                serde_json::json!({"exp_labels": labels}).to_string()
            });
            let expected: Vec<String> = expected.collect();
            writeln!(tests, "  - {{eval_time: {minute}m, alertname: {name}, exp_alerts: [{}]}}", expected.join(", "))
                .unwrap();
        }
    }
    std::fs::write(folder.join("tests.yml"), tests).unwrap();
    tested(folder)
}

/// What promtool says to the tests in a folder; `None` without it.
fn tested(folder: &Path) -> Option<Result<(), String>> {
    match Command::new("promtool").args(["test", "rules", "tests.yml"]).current_dir(folder).output() {
        Ok(output) if output.status.success() => Some(Ok(())),
        Ok(output) => Some(Err(String::from_utf8_lossy(&output.stderr).into_owned())),
        Err(_) => {
            assert!(std::env::var_os("CI").is_none(), "promtool is not there: .ci/install brings it");
            println!("promtool is not there: this test did not run");
            None
        }
    }
}

/// Annotations as Prometheus has them. Texts have no comma behind a quote, by which they are told apart below.
const ANNOTATIONS: [&str; 20] = [
    "{{ $labels.n }} is at {{ $value }}%",
    "[{{- .Value -}}] {{ $labels.nosuch }}",
    "{{ $value | humanize }}",
    "{{ humanize1024 $value }}",
    "{{ $value | humanizeDuration }}",
    "{{ $value | humanizePercentage }}",
    "{{ $value | humanizeTimestamp }}",
    "{{ $value | printf `%.2f` }}",
    "{{ printf `%.1f%%` $value }}",
    "{{ printf `%f %.0f` $value $value }}",
    "{{ printf `%e %g` $value $value }}",
    "{{ printf `%.3g` $value }}",
    "{{ printf `%v of %s` $value $labels.n }}",
    "{{ printf `%8.1f %-8.1f %+.1f %08.2f` $value $value $value $value }}",
    "{{ printf `%5d %s` 3 (humanize $value) }}",
    "{{ $labels.word | title }} {{ $labels.word | toUpper }} {{ toLower $labels.word }}",
    "{{ if gt $value 1.0 }}more{{ else if eq $labels.n `0` }}none{{ else }}less{{ end }}",
    "{{ print $value }} {{ `12345.678` | humanize }}",
    "{{ index $labels `n` }}{{/* nothing */}}",
    "{{ lt $value 100.0 }}",
];

/// Values of which some have an exponent, many digits, or a sign.
const VALUES: [f64; 26] = [
    0.0,
    1.0,
    79.0,
    79.5,
    -3.0,
    1e6,
    999_999.0,
    999_999.5,
    123_456_789.0,
    3e9,
    1e7,
    1e-4,
    1.234e-5,
    -1.23e-4,
    0.1234567891,
    1_767_225_600.5,
    3_661.0,
    86_400.0,
    90_061.9,
    12_345.678_9,
    1_048_576.0,
    2.5,
    0.25,
    1_023.99,
    91.199_999_999,
    1e-7,
];

/// By the label `n`: the annotations that promtool found in the place of none.
fn annotations_of(said: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let entries = |text: &str| -> BTreeMap<String, String> {
        let inner =
            text.trim().trim_end_matches(',').trim_end_matches(']').trim_start_matches('{').trim_end_matches('}');
        let parts = inner.split("\", ").filter_map(|part| part.split_once("=\""));
        parts.map(|(name, text)| (name.to_string(), text.trim_end_matches('"').to_string())).collect()
    };
    let mut found = BTreeMap::new();
    let mut lines = said.lines().map(str::trim);
    while let Some(line) = lines.next() {
        if let Some(labels) = line.strip_prefix("Labels:") {
            let annotations = lines.next().and_then(|line| line.strip_prefix("Annotations:")).unwrap();
            found.insert(entries(labels)["n"].clone(), entries(annotations));
        }
    }
    found
}

#[test]
fn promtool_prints_the_same_annotations() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let mut rules = "groups: [{name: g, rules: [{alert: A, expr: x > -1e30, annotations: {".to_string();
    for (index, text) in ANNOTATIONS.iter().enumerate() {
        write!(rules, "a{index:02}: '{text}', ").unwrap();
    }
    rules.push_str("}}]}]\n");
    std::fs::write(here.join("import.yml"), rules).unwrap();
    let mut tests =
        "rule_files: [import.yml]\nevaluation_interval: 1m\ntests:\n- interval: 1m\n  input_series:\n".to_string();
    for (index, value) in VALUES.iter().enumerate() {
        writeln!(tests, "  - {{series: 'x{{n=\"{index}\",word=\"an oDD wORD\"}}', values: '{value}'}}").unwrap();
    }
    tests.push_str("  alert_rule_test: [{eval_time: 1m, alertname: A, exp_alerts: []}]\n");
    std::fs::write(here.join("tests.yml"), tests).unwrap();
    let Some(said) = tested(here) else { return };
    let found = annotations_of(&said.unwrap_err());
    assert_eq!(found.len(), VALUES.len());
    assert!(found.values().all(|annotations| annotations.len() == ANNOTATIONS.len()), "{found:?}");

    good(here, &["rules", "import", "import.yml", "--out", "imported"]);
    let sql = std::fs::read_to_string(here.join("imported/A.sql")).unwrap();
    assert!(!sql.contains("Note:"), "{sql}");
    let rows = VALUES.iter().enumerate().map(|(index, value)| {
        let labels = serde_json::json!({"n": index.to_string(), "word": "an oDD wORD"});
        serde_json::json!({"table": "metrics", "at": "0s", "name": "x", "labels": labels, "value": value})
    });
    let rows: Vec<Value> = rows.collect();
    let alerts = found.iter().map(|(n, annotations)| {
        serde_json::json!({"exp_labels": {"n": n, "word": "an oDD wORD"}, "exp_annotations": annotations})
    });
    let alerts: Vec<Value> = alerts.collect();
    let expected = serde_json::json!([{"alertname": "A", "eval_time": "1m", "exp_alerts": alerts}]);
    let tests = serde_json::json!({
        "rule_files": ["imported/A.sql"],
        "tests": [{"input_rows": rows, "alert_rule_test": expected}],
    });
    std::fs::write(here.join("A.test.yaml"), tests.to_string()).unwrap();
    good(here, &["test", "A.test.yaml"]);
}

#[test]
fn promtool_agrees_on_every_shape_of_a_rule() {
    let seed = std::env::var("TIDEWATCH_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("TIDEWATCH_SEED={seed}");
    let mut numbers = Numbers(seed);
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    std::fs::write(here.join("import.yml"), RULES).unwrap();
    let imported = tidewatch(here, &["rules", "import", "import.yml", "--out", "imported"]);
    let said = String::from_utf8(imported.stderr).unwrap();
    // The recording rule, and nothing else.
    assert_eq!(imported.status.code(), Some(1), "{said}");
    assert_eq!(said.lines().filter(|line| line.starts_with("import.yml:")).count(), 1, "{said}");
    for round in 0..3 {
        let series = fleet(&mut numbers);
        let firing = ours(here, &series);
        let fired = firing.values().map(Vec::len).sum::<usize>();
        assert!(fired > 500, "round {round}: {fired}");
        if let Some(agrees) = promtool(here, &series, &firing) {
            assert_eq!(agrees, Ok(()), "round {round}");
        }
    }
}

#[test]
fn what_was_changed_since_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let rules = "groups: [{name: g, rules: [{alert: Down, expr: up == 0}, {alert: Other, expr: x > 1}]}]";
    std::fs::write(here.join("rules.yml"), rules).unwrap();
    let import = ["rules", "import", "rules.yml", "--out", "imported"];
    assert!(good(here, &import).is_empty());
    good(here, &import);
    good(here, &["check", "imported"]);
    std::fs::write(here.join("imported/Down.sql"), "-- mine").unwrap();
    let (code, said) = bad(here, &import);
    assert_eq!(code, 2);
    assert!(said.contains("Down.sql") && said.contains("--force"), "{said}");
    good(here, &[&import[..], &["--force"]].concat());
    assert!(good(here, &["rules", "import", "rules.yml"]).contains("CREATE ALERT \"Down\""));
    std::fs::write(here.join("none.yml"), "route: {}").unwrap();
    assert_eq!(bad(here, &["rules", "import", "none.yml"]).0, 2);
    assert_eq!(bad(here, &["rules", "import", "nowhere.yml"]).0, 2);
}
