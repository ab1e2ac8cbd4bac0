use super::*;

/// The SELECT of an expression, on one line, or why there is none.
fn select(expr: &str) -> String {
    let text = format!("groups:\n- name: g\n  rules:\n  - alert: A\n    expr: {}\n", yaml(expr));
    let imported = import("rules.yml", &text);
    match (imported.rules.first(), imported.refused.first()) {
        (Some(rule), None) => {
            let sql = rule.sql.split_once("\nAS\n").map_or("", |(_, select)| select);
            sql.split_whitespace().collect::<Vec<_>>().join(" ").replace("( ", "(").replace(" )", ")")
        }
        (None, Some(refusal)) => format!("{}:{}: {}", refusal.line, refusal.column, refusal.reason),
        found => panic!("{found:?}"),
    }
}

fn yaml(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

const HOP: &str = "FROM HOP(metrics, ts, INTERVAL '1 minute', INTERVAL '5 minutes')";
const BY_SERIES: &str = "GROUP BY window_start, window_end, labels";

#[test]
fn an_instant_vector_is_the_newest_sample_of_five_minutes() {
    assert_eq!(
        select("up{job=\"a\"} == 0"),
        format!(
            "SELECT labels, last(value) RESPECT NULLS AS value {HOP} WHERE name = 'up' AND labels['job'] = 'a' {BY_SERIES} HAVING last(value) RESPECT NULLS = 0;"
        )
    );
    assert_eq!(
        select("3 >= x"),
        format!(
            "SELECT labels, last(value) RESPECT NULLS AS value {HOP} WHERE name = 'x' {BY_SERIES} HAVING 3 >= last(value) RESPECT NULLS;"
        )
    );
    assert!(select("5 < x <= 8").ends_with("HAVING 5 < last(value) RESPECT NULLS AND last(value) RESPECT NULLS <= 8;"));
    assert!(select("x").ends_with("HAVING last(value) RESPECT NULLS IS NOT NULL;"));
}

#[test]
fn two_metrics_meet_where_their_labels_are_the_same() {
    assert_eq!(
        select("a > 1 unless b > 2"),
        format!(
            "SELECT labels, last(value) FILTER (WHERE name = 'a') RESPECT NULLS AS value {HOP} WHERE name IN ('a', 'b') {BY_SERIES} \
             HAVING last(value) FILTER (WHERE name = 'a') RESPECT NULLS > 1 AND (last(value) FILTER (WHERE name = 'b') RESPECT NULLS > 2) IS NOT TRUE;"
        )
    );
    assert!(
        select("a / b > 1")
            .contains("ratio(last(value) FILTER (WHERE name = 'a') RESPECT NULLS, last(value) FILTER (WHERE name = 'b') RESPECT NULLS)")
    );
    assert!(select("a / 100 > 1").contains("last(value) RESPECT NULLS / 100 > 1"));
}

#[test]
fn series_are_put_together_in_a_select_around_them() {
    assert_eq!(
        select("sum by (job) (x) > 9"),
        format!(
            "SELECT labels['job'] AS job, sum(s1) AS value FROM (SELECT window_end, labels, last(value) RESPECT NULLS AS s1 {HOP} \
             WHERE name = 'x' {BY_SERIES}) GROUP BY window_end, labels['job'] HAVING sum(s1) > 9;"
        )
    );
    assert!(select("count(x == 0) > 2").ends_with("GROUP BY window_end HAVING count(s1) FILTER (WHERE s1 = 0) > 2;"));
    assert!(select("count(x == 0) < 2").ends_with("HAVING nullif(count(s1) FILTER (WHERE s1 = 0), 0) < 2;"));
    assert!(select("sum without (pod) (x) > 1").contains("array_remove(map_keys(labels), 'pod')"));
    assert!(
        select("histogram_quantile(0.9, sum by (job, le) (rate(x_bucket[5m]))) > 1")
            .contains("histogram_quantile(0.9, TRY_CAST(labels['le'] AS DOUBLE), s1)")
    );
    assert!(
        select("topk(3, x) > 1").contains("row_number() OVER (PARTITION BY window_end ORDER BY s1 DESC NULLS LAST")
    );
}

#[test]
fn one_row_tells_the_many_of_its_key() {
    let joined = select("x * on (instance) group_left (version) info > 1");
    assert!(joined.starts_with("SELECT labels, o0_2 AS \"version\", s1 * o0_1 AS value FROM (SELECT *"), "{joined}");
    assert!(joined.contains("max(s2) OVER (PARTITION BY window_end, labels['instance']) AS o0_1"), "{joined}");
    assert!(
        select("x > 1 and on () hour() >= 8")
            .ends_with("HAVING last(value) RESPECT NULLS > 1 AND extract(hour FROM window_end) >= 8;")
    );
}

#[test]
fn a_rate_is_drawn_out_to_the_ends_of_its_time_as_prometheus_does() {
    let rate = select("rate(x_total[10m]) > 1");
    assert!(rate.contains("INTERVAL '10 minutes'") && rate.contains("increase(value) AS s1_grown"), "{rate}");
    assert!(rate.contains("/ 600 AS s1") && rate.ends_with("WHERE s1 > 1;"), "{rate}");
}

#[test]
fn a_range_passes_over_the_end_of_a_series_and_a_selector_sees_it() {
    let both = select("changes(x[5m]) > 1 and x > 1");
    assert!(both.contains("OVER (PARTITION BY window_end, name, labels, value IS NULL ORDER BY ts)"), "{both}");
    assert!(both.ends_with("END) FILTER (WHERE value IS NOT NULL) > 1 AND last(value) RESPECT NULLS > 1;"), "{both}");
    let rate = select("rate(x[5m]) > 1 and rate(x[1m]) > 1");
    assert!(rate.contains("WHERE name = 'x' AND value IS NOT NULL") && !rate.contains("RESPECT"), "{rate}");
    assert!(select("last_over_time(x[5m]) > 1").ends_with("HAVING last(value) > 1;"));
    assert!(select("time() - timestamp(x) > 60").contains("CASE WHEN last(value) RESPECT NULLS IS NOT NULL THEN"));
}

#[test]
fn the_past_is_a_part_of_a_longer_window() {
    let risen = select("x - x offset 3m > 2");
    assert!(risen.contains("INTERVAL '8 minutes'"), "{risen}");
    assert!(risen.contains("FILTER (WHERE ts >= window_end - INTERVAL '5 minutes')"), "{risen}");
    assert!(risen.contains("FILTER (WHERE ts < window_end - INTERVAL '3 minutes')"), "{risen}");
}

#[test]
fn what_is_absent_is_asked_of_all_rows() {
    let text = "groups: [{name: g, rules: [{alert: A, expr: 'absent(up{job=\"a\"})', labels: {severity: critical, team: t}}]}]";
    let sql = &import("r.yml", text).rules[0].sql;
    assert!(sql.contains("\"label.job\" = 'a',\n      \"label.team\" = 't'"), "{sql}");
    assert!(
        sql.contains("last(value) FILTER (WHERE name = 'up' AND labels['job'] = 'a') RESPECT NULLS AS s1"),
        "{sql}"
    );
    assert!(sql.contains("HAVING (count(s1) > 0) IS NOT TRUE"), "{sql}");
    let over_time = import("r.yml", &text.replace("absent(up{job=\"a\"})", "absent_over_time(up{job=\"a\"}[5m])"));
    let sql = &over_time.rules[0].sql;
    assert!(sql.contains("HAVING count(value) FILTER (WHERE name = 'up' AND labels['job'] = 'a') = 0"), "{sql}");
    assert!(select("(count(up == 0) or vector(0)) < 1").contains("name IN ('up', 'tidewatch_lake_failures_total')"));
    assert!(!select("(count(up == 0) or vector(0)) > 1").contains("tidewatch_lake_failures_total"));
}

#[test]
fn what_has_no_translation_is_refused_with_its_part_and_the_reason() {
    let refused = [
        ("max_over_time(rate(x[1m])[1h:1m]) > 1", "`max_over_time(rate(x[1m])[1h:1m])`: a subquery"),
        ("rate(x[1d]) > 1", "it looks back 24 hours: a window over metrics has 2 hours at most"),
        ("x / sum(y) > 1", "`x / sum(y)`: the two sides have different labels (all of the series' and none)"),
        ("x @ 1000 > 1", "`x @ 1000.000`: '@'"),
        ("{__name__=~\"a|b\"} > 1", ": the metric's name is matched"),
        ("exp(x) > 1", "`exp(x)`: no translation for this function"),
        ("a or on (b) c", "or with on or ignoring"),
        ("sum by (job) (x) or vector(0)", "the two sides have different labels (job and none)"),
        ("ALERTS{alertname=\"a\"}", "alerts of Prometheus itself"),
        ("x >", "not PromQL: "),
        ("1", "a number: expected series"),
    ];
    for (expr, reason) in refused {
        let found = select(expr);
        assert!(found.starts_with("5:11: ") && found.contains(reason), "{expr}: {found}");
    }
}

#[test]
fn options_labels_and_annotations_go_with_the_rule() {
    let text = "groups:\n- name: g\n  interval: 30s\n  limit: 5\n  labels: {team: a}\n  rules:\n  - alert: Disk-full\n    expr: x > 1\n    for: 10m\n    \
                keep_firing_for: 1h\n    labels: {severity: page, area: it's}\n    annotations:\n      summary: '{{ $labels.instance }} at {{ $value }}'\n      \
                dashboard: d\n      long: '{{ range query \"x\" }}{{ end }}'\n";
    let rule = import("rules.yml", text).rules.remove(0);
    assert_eq!(
        rule.sql,
        "-- rules.yml:7: Disk-full of the group 'g' in PromQL:\n--   x > 1\n\
         -- Note: severity 'page' is 'critical' here; the word is kept in the label prometheus_severity.\n\
         -- Note: beyond 5 alerts the worst fire, where Prometheus has none.\n\
         -- Note: annotation 'long' is left out: `{{ range query \"x\" }}`: no translation.\n\
         -- Note: its name was 'Disk-full': routes and silences that match alertname must match the new one.\n\
         CREATE ALERT \"Disk_full\"\nWITH (severity = 'critical',\n      for = '10 minutes',\n      keep_firing_for = '1 hour',\n      \
         no_data = 'resolve',\n      limit = '5',\n      \"label.prometheus_severity\" = 'page',\n      \"label.team\" = 'a',\n      \"label.area\" = 'it''s',\n      \
         summary = '{{ labels.instance }} at {{ printf(\"%v\", value) }}',\n      \"annotation.dashboard\" = 'd')\nAS\n\
         SELECT labels, last(value) RESPECT NULLS AS value\nFROM HOP(metrics, ts, INTERVAL '30 seconds', INTERVAL '5 minutes')\nWHERE name = 'x'\n\
         GROUP BY window_start, window_end, labels\nHAVING last(value) RESPECT NULLS > 1;\n"
    );
    assert_eq!((rule.source_line, rule.notes.len()), (7, 4));
}

#[test]
fn labels_that_are_templates_or_names_of_others_are_refused() {
    let refused = |rule: &str| {
        let imported = import("r.yml", &format!("groups: [{{name: g, rules: [{{alert: A, {rule}}}]}}]"));
        imported.refused.first().map(|refusal| refusal.reason.clone()).unwrap_or_default()
    };
    assert!(refused("expr: x, labels: {a: '{{ $value }}'}").starts_with("label 'a' is a template"));
    assert!(refused("expr: 'sum by (job) (x)', labels: {job: b}").starts_with("the label 'job' of its result"));
    assert!(refused("expr: 'sum by (severity) (x)'").starts_with("the label 'severity' of its result"));
    assert!(refused("expr: x, for: soon").contains("for: 'soon' is no duration"));
}

#[test]
fn names_are_free_ones() {
    let text = "groups: [{name: g, rules: [{alert: A, expr: x}, {alert: A, expr: y, labels: {severity: critical}}, {alert: A, expr: z}]}]";
    let names: Vec<String> = import("r.yml", text).rules.into_iter().map(|rule| rule.name).collect();
    assert_eq!(names, ["A", "A_critical", "A_2"]);
}

#[test]
fn a_recording_rule_stands_in_the_rules_that_name_it() {
    let one = "groups: [{name: g, rules: [{record: 'job:x:sum', expr: sum by (job) (x), labels: {q: a}}]}]";
    let other = "groups: [{name: h, rules: [{alert: A, expr: 'job:x:sum{job=\"j\", q=\"a\"} > 3'}, {alert: B, expr: 'avg_over_time(job:x:sum[5m]) > 3'}]}]";
    let imported = import_all([("one.yml", one), ("other.yml", other)]);
    let sql = &imported.rules[0].sql;
    assert!(sql.contains("key = 'job, q'") && sql.contains("SELECT job, 'a' AS \"q\", a1_1 AS value"), "{sql}");
    assert!(
        sql.contains("WHERE a1_1 > 3 AND job = 'j'")
            || sql.contains("WHERE job = 'j' AND a1_1 > 3")
            || sql.contains("job = 'j'"),
        "{sql}"
    );
    let refused: Vec<String> = imported.refused.iter().map(ToString::to_string).collect();
    assert!(refused[0].starts_with("one.yml:1:") && refused[0].contains("job:x:sum: a recording rule"), "{refused:?}");
    assert!(refused[1].starts_with("other.yml:1:") && refused[1].contains("its past is not kept"), "{refused:?}");
}

#[test]
fn a_file_that_is_none_is_said_and_the_others_go_on() {
    let good = "apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nspec: {groups: [{name: g, rules: [{alert: A, expr: x}]}]}";
    let imported = import_all([("bad.yml", "a: [b"), ("none.yml", "route: {}"), ("empty.yml", ""), ("good.yml", good)]);
    assert_eq!(imported.rules.len(), 1);
    let refused: Vec<String> = imported.refused.iter().map(ToString::to_string).collect();
    assert!(refused[0].starts_with("bad.yml:") && refused[0].contains("not YAML"), "{refused:?}");
    assert_eq!(refused[1..], ["none.yml:1:1: expected groups: a rule file of Prometheus"]);
}

#[test]
fn a_field_that_nobody_knows_is_told_and_the_other_rules_go_on() {
    let text = "groups:\n- name: g\n  rules:\n  - alert: A\n    expresion: x\n  - alert: B\n    expr: x\n    fro: 5m\n  - alert: C\n    expr: x\n\
                \x20 - {alert: D, expr: x, labels: [a]}\n  - {alert: E, expr: x, annotations: {a: [b]}, for: soon}\n  - {expr: x}\n\
                - name: h\n  intervall: 1m\n  rules: [{alert: F, expr: x}]\n- {name: i, limit: many, rules: {alert: G}}\n- {name: j, rules: [{alert: H, expr: x}]}\n\
                rules: []\n";
    let imported = import("r.yml", text);
    let names: Vec<&str> = imported.rules.iter().map(|rule| rule.name.as_str()).collect();
    assert_eq!(names, ["C", "H"]);
    let refused: Vec<String> = imported.refused.iter().map(ToString::to_string).collect();
    let of_rule = "expected one of alert, record, expr, for, keep_firing_for, labels, annotations";
    let of_group = "expected one of name, interval, limit, labels, query_offset, evaluation_delay, partial_response_strategy, rules";
    let expected = [
        "r.yml:19:1: 'rules' is no field of a file of rules: expected one of groups".to_string(),
        format!("r.yml:5:5: A: 'expresion' is no field of a rule: {of_rule}"),
        format!("r.yml:8:5: B: 'fro' is no field of a rule: {of_rule}"),
        "r.yml:11:33: D: labels: expected names and texts".to_string(),
        "r.yml:12:53: E: for: 'soon' is no duration: expected one such as 5m".to_string(),
        "r.yml:12:42: E: annotations: expected a text for 'a'".to_string(),
        "r.yml:13:5: expected either alert or record".to_string(),
        format!("r.yml:15:3: group 'h': 'intervall' is no field of a group: {of_group}"),
        "r.yml:17:20: group 'i': limit: expected a number".to_string(),
        "r.yml:17:33: group 'i': rules: expected a list".to_string(),
    ];
    assert_eq!(refused, expected);
}
