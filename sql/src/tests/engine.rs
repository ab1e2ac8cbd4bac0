//! What the engine yields, by example.

use tidewatch_model::wire::json::{TimeUnitChoice, decode_lines};
use tidewatch_model::{Evaluation, Key, Outcome, RuleShape, Span, Timestamp, WindowSpec};

use super::{Everything, GpuRow, SECOND, advance, advance_until, compile, gpu_batch, load, push, row, show};
use crate::{Engine, Feed, Listener, Watched};

const HOT: &str = "CREATE ALERT hot AS SELECT host, avg(temperature_celsius) AS t
    FROM HOP(gpu, ts, INTERVAL '10 seconds', INTERVAL '20 seconds') GROUP BY window_start, window_end, host HAVING avg(temperature_celsius) > 80";

#[test]
fn memory_is_kept_within_its_bound() {
    let median = "CREATE ALERT mid WITH (every = '10s', over = '1h') AS SELECT host, median(power_watts) AS m FROM gpu GROUP BY host HAVING median(power_watts) > 1e9;";
    let mut engine = Engine::new(load(&format!("{HOT};{median}")).rules).unwrap();
    push(&mut engine, &gpu_batch(&[row(5, "n1", 90.0)]), Feed::Live);
    advance(&mut engine, Timestamp(12 * SECOND), false);
    let held = engine.keep_within(1 << 30)["gpu"];
    assert!(held > 0);
    // One byte short: what is known goes on, what is new is counted, and rows that are held as they are go.
    assert_eq!(engine.counts("gpu").held_rows, 1);
    engine.keep_within(held - 1);
    assert_eq!((engine.counts("gpu").held_rows, engine.counts("gpu").overflow_rows), (0, 1));
    push(&mut engine, &gpu_batch(&[row(19, "n1", 90.0), row(19, "n2", 90.0)]), Feed::Live);
    let shown = show(&advance(&mut engine, Timestamp(22 * SECOND), false));
    assert!(shown.contains(&"20: n1 firing t=90".to_string()), "{shown:?}");
    assert!(!shown.iter().any(|line| line.contains("n2 firing")), "{shown:?}");
    assert!(engine.counts("gpu").overflow_rows > 1, "{:?}", engine.counts("gpu"));
    // With room again, it is watched.
    engine.keep_within(1 << 30);
    push(&mut engine, &gpu_batch(&[row(25, "n2", 90.0)]), Feed::Live);
    let shown = show(&advance(&mut engine, Timestamp(32 * SECOND), false));
    assert!(shown.contains(&"30: n2 firing t=90".to_string()), "{shown:?}");
}

#[test]
fn firing_clear_no_data_and_unknown() {
    let mut engine = Engine::new(vec![compile(HOT)]).unwrap();
    let rows = [row(5, "n1", 90.0), row(5, "n2", 50.0), row(15, "n1", 90.0), row(25, "n2", 85.0)];
    push(&mut engine, &gpu_batch(&rows), Feed::Live);
    let closed = advance(&mut engine, Timestamp(42 * SECOND), false);
    assert_eq!(
        show(&closed),
        [
            "10: n1 firing t=90",
            "10: n2 clear",
            "20: n1 firing t=90",
            "20: n2 clear",
            "30: n1 firing t=90",
            "30: n2 firing t=85",
            "40: n1 no data",
            "40: n2 firing t=85"
        ]
    );
    assert_eq!(show(&advance(&mut engine, Timestamp(52 * SECOND), true)), ["50: n1 unknown", "50: n2 unknown"]);
    assert_eq!(show(&advance(&mut engine, Timestamp(52 * SECOND), true)), [""; 0]);
}

#[test]
fn spellings_mean_the_same_window() {
    let spec = |slide, size| RuleShape::Window(WindowSpec { slide: Span::seconds(slide), size: Span::seconds(size) });
    for (call, expected) in [
        ("HOP(gpu, ts, INTERVAL '10 seconds', INTERVAL '1 minute')", spec(10, 60)),
        ("hop(gpu, ts, INTERVAL '10' SECOND, INTERVAL '1' MINUTE)", spec(10, 60)),
        ("HOP(gpu, ts, size => INTERVAL '1 minute', slide => INTERVAL '10 seconds')", spec(10, 60)),
        ("HOP(gpu, ts, '7s', '20s')", spec(7, 20)),
        ("TUMBLE(gpu, ts, INTERVAL '1 minute')", spec(60, 60)),
        ("TUMBLE(gpu, ts, size => '1 minute') AS w", spec(60, 60)),
        ("TABLE(HOP(TABLE gpu, DESCRIPTOR(ts), INTERVAL '10' SECOND, INTERVAL '1' MINUTE))", spec(10, 60)),
        ("HOP(DATA => TABLE gpu, TIMECOL => DESCRIPTOR(ts), SLIDE => '10s', SIZE => '60s')", spec(10, 60)),
        ("TABLE(TUMBLE(TABLE gpu, DESCRIPTOR(ts), INTERVAL '1 minute')) AS w", spec(60, 60)),
    ] {
        let rule = compile(&format!("CREATE ALERT x AS SELECT host, count(*) AS c FROM {call} GROUP BY host")).rule;
        assert_eq!(rule.shape, expected, "{call}");
        assert_eq!(rule.key, ["host"]);
    }
    for (group, expected) in [
        ("hop(ts, INTERVAL '10 seconds', INTERVAL '1 minute')", spec(10, 60)),
        ("TUMBLE(ts, INTERVAL '1' MINUTE)", spec(60, 60)),
    ] {
        let rule =
            compile(&format!("CREATE ALERT x AS SELECT host, count(*) AS c FROM gpu GROUP BY {group}, host")).rule;
        assert_eq!(rule.shape, expected, "{group}");
        assert_eq!(rule.key, ["host"]);
        let written = format!(
            "CREATE ALERT x AS SELECT hop_end(ts, '10s', '1m') AS till, g.host, count(*) AS c FROM gpu AS g GROUP BY g.host, {group}"
        );
        assert_eq!(compile(&written).rule.shape, expected, "{written}");
    }
}

#[test]
fn a_row_rule_answers_at_once_and_by_time() {
    let text = "CREATE ALERT hot AS SELECT host, gpu_uuid, temperature_celsius AS t FROM gpu WHERE temperature_celsius > 80 AND host <> 'spare'";
    let mut engine = Engine::new(vec![compile(text)]).unwrap();
    let rows = [row(2, "n1", 70.0), row(1, "n1", 90.0), row(1, "n2", 60.0), row(1, "spare", 99.0)];
    let found = push(&mut engine, &gpu_batch(&rows), Feed::Live);
    assert_eq!(show(&found), ["1: g0,n1 firing t=90", "1: g0,n2 clear", "2: g0,n1 clear"]);
    assert!(push(&mut engine, &gpu_batch(&rows), Feed::Replay).is_empty());
}

/// Conditions on labels are evaluated once for a series: also those that DataFusion must write otherwise before they run.
#[test]
fn labels_are_filtered_by_any_expression() {
    for condition in
        ["coalesce(host, 'none') <> 'spare'", "nullif(host, 'spare') IS NOT NULL", "nvl(host, '') <> 'spare'"]
    {
        let text = format!(
            "CREATE ALERT x AS SELECT host, avg(temperature_celsius) AS t FROM TUMBLE(gpu, ts, '10s') WHERE {condition} GROUP BY host"
        );
        let mut engine = Engine::new(vec![compile(&text)]).unwrap();
        push(&mut engine, &gpu_batch(&[row(1, "n1", 90.0), row(1, "spare", 99.0)]), Feed::Live);
        assert_eq!(show(&advance(&mut engine, Timestamp(12 * SECOND), false)), ["10: n1 firing t=90"], "{condition}");
    }
}

#[test]
fn an_aggregate_without_groups_is_one_alert() {
    let text = "CREATE ALERT many AS SELECT count(*) AS c FROM TUMBLE(gpu, ts, '10s') HAVING count(*) > 1";
    let mut engine = Engine::new(vec![compile(text)]).unwrap();
    push(&mut engine, &gpu_batch(&[row(1, "n1", 1.0), row(2, "n2", 1.0), row(11, "n1", 1.0)]), Feed::Live);
    let closed = advance(&mut engine, Timestamp(32 * SECOND), false);
    assert_eq!(show(&closed), ["10:  firing c=2", "20:  clear", "30:  no data"]);
}

#[test]
fn a_value_filter_does_not_make_a_group_vanish() {
    let text = "CREATE ALERT spikes AS SELECT host, count(*) AS c FROM TUMBLE(gpu, ts, '10s')
        WHERE temperature_celsius > 80 AND host = 'n1' GROUP BY host HAVING count(*) > 1";
    let mut engine = Engine::new(vec![compile(text)]).unwrap();
    push(&mut engine, &gpu_batch(&[row(1, "n1", 1.0), row(2, "n2", 99.0)]), Feed::Live);
    assert_eq!(show(&advance(&mut engine, Timestamp(12 * SECOND), false)), ["10: n1 clear"]);
}

#[test]
fn an_emitted_window_is_never_reopened() {
    let mut engine = Engine::new(vec![compile(HOT)]).unwrap();
    push(&mut engine, &gpu_batch(&[row(5, "n1", 90.0), row(33, "n1", 90.0)]), Feed::Live);
    assert_eq!(advance(&mut engine, Timestamp(33 * SECOND), false).len(), 3);
    push(&mut engine, &gpu_batch(&[row(6, "n1", 90.0), row(19, "n1", 20.0), row(21, "n1", 20.0)]), Feed::Live);
    assert_eq!(engine.counts("gpu").late_rows, 2);
    assert_eq!(show(&advance(&mut engine, Timestamp(42 * SECOND), false)), ["40: n1 clear"]);
}

#[test]
fn a_failing_evaluation_says_so_and_the_next_one_is_tried() {
    let text = "CREATE ALERT broken AS SELECT host, sum(gpu_index) AS s FROM TUMBLE(gpu, ts, '10s') GROUP BY host HAVING 1 / sum(gpu_index) > 0";
    let mut engine = Engine::new(vec![compile(text)]).unwrap();
    push(&mut engine, &gpu_batch(&[row(1, "n1", 1.0)]), Feed::Live);
    let closed = advance(&mut engine, Timestamp(12 * SECOND), false);
    assert!(
        matches!(&closed[0].outcome, Outcome::Failed(error) if error.to_lowercase().contains("divide by zero")),
        "{closed:?}"
    );
}

#[test]
fn a_restored_engine_goes_on_where_it_stood() {
    let rows = [row(5, "n1", 90.0), row(15, "n1", 90.0), row(25, "n1", 90.0)];
    let mut whole = Engine::new(vec![compile(HOT)]).unwrap();
    push(&mut whole, &gpu_batch(&rows), Feed::Live);
    let all = advance(&mut whole, Timestamp(42 * SECOND), false);
    let mut restored = Engine::new(vec![compile(HOT)]).unwrap();
    restored.restore("hot", Timestamp(20 * SECOND), []);
    assert_eq!(restored.replay_from("gpu"), Some(Timestamp(10 * SECOND)));
    push(&mut restored, &gpu_batch(&rows), Feed::Replay);
    let rest = advance(&mut restored, Timestamp(42 * SECOND), false);
    assert_eq!(rest, all[2..], "{:?}", show(&rest));
}

#[test]
fn a_gap_of_a_day_costs_a_few_evaluations() {
    const DAY: i64 = 86_400;
    let rows = [row(5, "n1", 90.0), row(DAY + 5, "n1", 90.0)];
    let mut every = Engine::new(vec![compile(HOT)]).unwrap();
    let mut few = Engine::new(vec![compile(HOT)]).unwrap();
    for engine in [&mut every, &mut few] {
        push(engine, &gpu_batch(&rows), Feed::Live);
    }
    let watermark = Timestamp((2 * DAY + 2) * SECOND);
    let all = advance(&mut every, watermark, false);
    assert_eq!(all.len() as i64, 2 * DAY / 10);
    let some = advance_until(&mut few, watermark, false, Timestamp::MAX);
    assert_eq!(
        show(&some),
        [
            "10: n1 firing t=90",
            "20: n1 firing t=90",
            "30: n1 no data",
            "86410: n1 firing t=90",
            "86420: n1 firing t=90",
            "86430: n1 no data"
        ]
    );
    let next = [row(2 * DAY + 5, "n1", 90.0), row(2 * DAY + 40, "n1", 90.0)];
    for engine in [&mut every, &mut few] {
        push(engine, &gpu_batch(&next), Feed::Live);
    }
    let watermark = Timestamp((2 * DAY + 42) * SECOND);
    assert_eq!(
        advance(&mut few, watermark, false),
        advance(&mut every, watermark, false),
        "both stand where they stood"
    );
}

#[test]
fn windows_that_would_change_something_are_not_left_out() {
    let mut engine = Engine::new(vec![compile(HOT)]).unwrap();
    push(&mut engine, &gpu_batch(&[row(5, "n1", 90.0)]), Feed::Live);
    let until = Timestamp(995 * SECOND);
    let closed = advance_until(&mut engine, Timestamp(1_022 * SECOND), false, until);
    let ends: Vec<i64> = closed.iter().map(|evaluation| evaluation.window_end.0 / SECOND).collect();
    assert_eq!(ends, [10, 20, 30, 1_000, 1_010, 1_020]);
}

#[test]
fn a_row_rule_notices_that_a_series_is_silent() {
    let text =
        "CREATE ALERT hot AS SELECT host, gpu_uuid, temperature_celsius AS t FROM gpu WHERE temperature_celsius > 80";
    let mut engine = Engine::new(vec![compile(text)]).unwrap();
    push(&mut engine, &gpu_batch(&[row(10, "n1", 90.0), row(10, "n2", 50.0)]), Feed::Live);
    assert!(advance(&mut engine, Timestamp(300 * SECOND), false).is_empty());
    push(&mut engine, &gpu_batch(&[row(305, "n2", 50.0)]), Feed::Live);
    let silent = advance(&mut engine, Timestamp(482 * SECOND), false);
    assert_eq!(show(&silent), ["360: g0,n1 no data", "420: g0,n1 no data", "480: g0,n1 no data"], "n2 never fired");
    assert!(advance_until(&mut engine, Timestamp(9_000 * SECOND), false, Timestamp::MAX).len() <= 1);
    let again = push(&mut engine, &gpu_batch(&[row(9_001, "n1", 95.0)]), Feed::Live);
    assert_eq!(show(&again), ["9001: g0,n1 firing t=95"]);
    assert!(advance(&mut engine, Timestamp(9_100 * SECOND), false).is_empty());
    let unknown = advance(&mut engine, Timestamp(9_362 * SECOND), true);
    assert_eq!(show(&unknown), ["9360: g0,n1 unknown"]);
    assert_eq!(show(&advance(&mut engine, Timestamp(9_422 * SECOND), false)), ["9420: g0,n1 no data"]);
}

#[test]
fn increase_counts_over_resets_in_any_order_of_arrival() {
    let text = "CREATE ALERT grew AS SELECT host, increase(temperature_celsius) AS t, increase(gpu_index) AS i,
        increase(temperature_celsius, ts) AS same FROM TUMBLE(gpu, ts, '1m') GROUP BY host";
    let values = [(1, 5.0), (11, 7.5), (21, 1.0), (31, 1.0), (41, 4.0)];
    let mut orders = vec![values.to_vec(), values.to_vec(), values.to_vec()];
    orders[1].reverse();
    orders[2].swap(0, 3);
    for order in orders {
        let mut engine = Engine::new(vec![compile(text)]).unwrap();
        for (second, value) in order {
            push(&mut engine, &gpu_batch(&[row(second, "n1", value)]), Feed::Live);
        }
        // 2.5 up, begun anew at 1, nothing, 3 up.
        assert_eq!(show(&advance(&mut engine, Timestamp(62 * SECOND), false)), ["60: n1 firing t=6.5 i=0 same=6.5"]);
    }
    let mut engine = Engine::new(vec![compile(text)]).unwrap();
    push(&mut engine, &gpu_batch(&[row(1, "n1", 5.0)]), Feed::Live);
    assert_eq!(show(&advance(&mut engine, Timestamp(62 * SECOND), false)), ["60: n1 firing t= i= same="]);
}

#[test]
fn what_a_rule_selects_is_cut_to_size() {
    let text = "CREATE ALERT long AS SELECT repeat(host, 400000) AS h
        FROM TUMBLE(gpu, ts, '10s') GROUP BY repeat(host, 400000)";
    let mut engine = Engine::new(vec![compile(text)]).unwrap();
    push(&mut engine, &gpu_batch(&[row(1, "n1", 5.0), row(1, "n2", 5.0)]), Feed::Live);
    let closed = advance(&mut engine, Timestamp(12 * SECOND), false);
    let Outcome::Groups(findings) = &closed[0].outcome else { panic!("{closed:?}") };
    assert_eq!(findings.len(), 2, "two long labels stay two");
    assert!(findings.iter().all(|finding| finding.key["h"].len() <= 1_024));
    let text = "CREATE ALERT long AS SELECT host, string_agg(repeat(gpu_uuid, 400000), ',') AS all_of_them
        FROM TUMBLE(gpu, ts, '10s') GROUP BY host";
    let mut engine = Engine::new(vec![compile(text)]).unwrap();
    push(&mut engine, &gpu_batch(&[row(1, "n1", 5.0)]), Feed::Live);
    let closed = advance(&mut engine, Timestamp(12 * SECOND), false);
    assert_eq!(show(&closed)[0].len(), "10: n1 firing all_of_them=".len() + 4_096);
}

/// Rows of three GPUs; the sum of one's divisor is zero.
const DIVISORS: [(&str, f64); 3] = [("n1", 2.0), ("n2", 0.0), ("n3", 4.0)];

#[test]
fn a_row_that_can_not_be_evaluated_fails_those_who_read_it_and_nobody_else() {
    let rule = |name: &str, aggregate: &str, condition: &str| {
        format!(
            "CREATE ALERT {name} AS SELECT host, {aggregate} AS a FROM TUMBLE(gpu, ts, '10s') {condition} GROUP BY host;"
        )
    };
    let division = "sum(100 / CAST(temperature_celsius AS BIGINT))";
    let text = [
        rule("a_reads_it", division, ""),
        rule("b_other_column", "avg(power_watts)", ""),
        rule("c_other_host", division, "WHERE host <> 'n2'"),
        rule("d_this_host", division, "WHERE host = 'n2'"),
        rule("e_left_out", division, "WHERE temperature_celsius > 1"),
        rule("f_in_condition", "count(*)", "WHERE 100 / CAST(temperature_celsius AS BIGINT) > 30"),
        rule("g_in_filter", "count(*) FILTER (WHERE 100 / CAST(temperature_celsius AS BIGINT) > 30)", ""),
    ]
    .concat();
    let mut engine = Engine::new(load(&text).rules).unwrap();
    let rows: Vec<GpuRow> = DIVISORS.iter().map(|(host, value)| row(5, host, *value)).collect();
    push(&mut engine, &gpu_batch(&rows), Feed::Live);
    // The window after has no such row.
    push(&mut engine, &gpu_batch(&[row(15, "n2", 5.0)]), Feed::Live);
    let closed = advance(&mut engine, Timestamp(22 * SECOND), false);
    let shown: Vec<String> = closed
        .iter()
        .map(|evaluation| {
            let lines = show(std::slice::from_ref(evaluation));
            format!("{} {}", evaluation.rule, lines.join("; "))
        })
        .collect();
    let failed = "failed Arrow error: Divide by zero error";
    assert_eq!(
        shown,
        [
            format!("a_reads_it 10: {failed}"),
            "b_other_column 10: n1 firing a=; 10: n2 firing a=; 10: n3 firing a=".to_string(),
            "c_other_host 10: n1 firing a=50; 10: n3 firing a=25".to_string(),
            format!("d_this_host 10: {failed}"),
            "e_left_out 10: n1 firing a=50; 10: n2 clear; 10: n3 firing a=25".to_string(),
            format!("f_in_condition 10: {failed}"),
            format!("g_in_filter 10: {failed}"),
            "a_reads_it 20: n1 no data; 20: n2 firing a=20; 20: n3 no data".to_string(),
            "b_other_column 20: n1 no data; 20: n2 firing a=; 20: n3 no data".to_string(),
            "c_other_host 20: n1 no data; 20: n3 no data".to_string(),
            "d_this_host 20: n2 firing a=20".to_string(),
            "e_left_out 20: n1 no data; 20: n2 firing a=20; 20: n3 no data".to_string(),
            "f_in_condition 20: n1 no data; 20: n2 clear; 20: n3 no data".to_string(),
            "g_in_filter 20: n1 no data; 20: n2 firing a=0; 20: n3 no data".to_string(),
        ]
    );
}

/// Watches one group.
struct One {
    evaluations: Vec<Evaluation>,
    watched: Vec<Key>,
}

impl Listener for One {
    fn watched(&self, _: &str) -> Watched {
        Watched::Keys(self.watched.clone())
    }

    fn take(&mut self, evaluation: Evaluation) -> Timestamp {
        self.evaluations.push(evaluation);
        Timestamp::MIN
    }
}

#[test]
fn only_what_fires_and_what_is_watched_is_told() {
    let key = |host: &str| Key::from([("host".to_string(), host.to_string())]);
    let silent = HOT.replace("ALERT hot AS", "ALERT silent WITH (no_data = 'alert') AS");
    let general = HOT
        .replace("ALERT hot AS", "ALERT general AS")
        .replace("HAVING", "HAVING array_agg(gpu_uuid ORDER BY ts) IS NOT NULL AND");
    let mut engine = Engine::new(load(&format!("{HOT};{silent};{general}")).rules).unwrap();
    let strategies: Vec<&str> = engine.explain().map(|explanation| explanation.strategy).collect();
    assert_eq!(strategies, ["general", "shared", "shared"]);
    let mut listener = One { evaluations: vec![], watched: vec![key("n2"), key("n9")] };
    let rows = [row(5, "n1", 90.0), row(5, "n2", 50.0), row(5, "n3", 50.0), row(25, "n1", 50.0), row(25, "n3", 50.0)];
    engine.push("gpu", &gpu_batch(&rows), Feed::Live, &mut listener).unwrap();
    engine.advance("gpu", Timestamp(42 * SECOND), false, &mut listener);
    let of = |rule: &str| {
        let evaluations: Vec<Evaluation> =
            listener.evaluations.iter().filter(|evaluation| evaluation.rule == rule).cloned().collect();
        show(&evaluations)
    };
    let shown = [
        "10: n1 firing t=90",
        "10: n2 clear",
        "10: n9 no data",
        "20: n1 firing t=90",
        "20: n2 clear",
        "20: n9 no data",
        "30: n2 no data",
        "30: n9 no data",
        "40: n2 no data",
        "40: n9 no data",
    ];
    assert_eq!(of("hot"), shown);
    assert_eq!(of("general"), shown.iter().filter(|line| !line.contains("n9")).copied().collect::<Vec<_>>());
    // n2 is known to be silent; n9 was never seen here, and whoever watches it knows why.
    assert_eq!(of("silent"), shown);
}

#[test]
fn late_rows_count_in_the_windows_that_are_still_open() {
    let text = |aggregate: &str| {
        format!("CREATE ALERT x AS SELECT host, {aggregate} AS a FROM HOP(gpu, ts, '10s', '30s') GROUP BY host")
    };
    for (aggregate, on_time, late) in
        [("max(temperature_celsius)", "70", "99"), ("sum(temperature_celsius)", "140", "239")]
    {
        let mut engine = Engine::new(vec![compile(&text(aggregate))]).unwrap();
        push(&mut engine, &gpu_batch(&[row(5, "n1", 70.0), row(12, "n1", 70.0)]), Feed::Live);
        let closed = advance(&mut engine, Timestamp(22 * SECOND), false);
        assert_eq!(show(&closed).last().unwrap(), &format!("20: n1 firing a={on_time}"));
        // Too late for the windows that ended at 10 and 20.
        push(&mut engine, &gpu_batch(&[row(7, "n1", 99.0)]), Feed::Live);
        assert_eq!(engine.counts("gpu").late_rows, 0);
        let closed = advance(&mut engine, Timestamp(32 * SECOND), false);
        assert_eq!(show(&closed), [format!("30: n1 firing a={late}")]);
        let closed = advance(&mut engine, Timestamp(42 * SECOND), false);
        assert_eq!(show(&closed), ["40: n1 firing a=70"]);
    }
}

#[test]
fn what_nobody_asks_for_is_not_kept() {
    let text = "CREATE ALERT hot AS SELECT host, avg(temperature_celsius) AS t, max(temperature_celsius) AS m, sum(power_watts) AS p
        FROM HOP(gpu, ts, '10s', '1m') GROUP BY host HAVING avg(temperature_celsius) > 80";
    let mut engine = Engine::new(vec![compile(text)]).unwrap();
    let mut listener = One { evaluations: vec![], watched: vec![] };
    let mut held = vec![];
    for second in 0..4_000 {
        // It fires once, at the beginning: only then are the other two aggregates asked for.
        let temperature = if second < 100 { 90.0 } else { 50.0 };
        engine.push("gpu", &gpu_batch(&[row(second, "n1", temperature)]), Feed::Live, &mut listener).unwrap();
        engine.advance("gpu", Timestamp(second * SECOND), false, &mut listener);
        held.push(engine.counts("gpu").shared_bytes);
    }
    assert!(
        listener
            .evaluations
            .iter()
            .any(|evaluation| matches!(&evaluation.outcome, Outcome::Groups(found) if !found.is_empty()))
    );
    assert!(held[3_999] <= held[300] * 2, "{} bytes, then {}", held[300], held[3_999]);
}

#[test]
fn conditions_guard_each_other_as_written() {
    let of = |rows: &[GpuRow], condition: &str| {
        let text = format!(
            "CREATE ALERT x AS SELECT host, count(*) AS n FROM TUMBLE(gpu, ts, '10s') WHERE {condition} GROUP BY host"
        );
        let mut engine = Engine::new(vec![compile(&text)]).unwrap();
        push(&mut engine, &gpu_batch(rows), Feed::Live);
        show(&advance(&mut engine, Timestamp(42 * SECOND), false))
    };
    let values = [row(1, "n1", 0.0), row(1, "n2", 5.0)];
    let guarded = "temperature_celsius <> 0 AND 100 / CAST(temperature_celsius AS BIGINT) > 2";
    assert_eq!(of(&values, guarded)[..2], ["10: n1 clear", "10: n2 firing n=1"]);
    // A name that is no number fails the windows in which it has rows, and no others.
    let names = [row(1, "n1", 1.0), row(1, "x", 1.0), row(11, "n1", 1.0)];
    let numbered = of(&names, "CAST(replace(host, 'n', '') AS BIGINT) < 8");
    assert!(numbered[0].starts_with("10: failed") && numbered[0].contains("'x'"), "{numbered:?}");
    assert_eq!(numbered[1], "20: n1 firing n=1");
}

#[test]
fn a_group_that_the_rule_does_not_look_at_any_more_has_no_data() {
    let key = |host: &str| Key::from([("host".to_string(), host.to_string())]);
    let text = "CREATE ALERT x AS SELECT host, count(*) AS n FROM TUMBLE(gpu, ts, '10s') WHERE host = 'n2' GROUP BY host HAVING count(*) > 5";
    let mut engine = Engine::new(vec![compile(text)]).unwrap();
    let mut listener = One { evaluations: vec![], watched: vec![key("n1"), key("n2")] };
    engine.push("gpu", &gpu_batch(&[row(1, "n1", 1.0), row(1, "n2", 1.0)]), Feed::Live, &mut listener).unwrap();
    engine.advance("gpu", Timestamp(12 * SECOND), false, &mut listener);
    assert_eq!(show(&listener.evaluations), ["10: n1 no data", "10: n2 clear"]);
}

#[test]
fn a_condition_that_is_null_is_no_recovery() {
    let key = |host: &str| Key::from([("host".to_string(), host.to_string())]);
    let text = "CREATE ALERT grows AS SELECT host, rate(power_watts) AS r FROM HOP(gpu, ts, '10s', '20s') GROUP BY host HAVING rate(power_watts) > 0";
    let mut engine = Engine::new(vec![compile(text)]).unwrap();
    let mut listener = One { evaluations: vec![], watched: vec![key("n1"), key("n2")] };
    let power = |second: i64, host: &'static str, watts: f64| GpuRow { power: Some(watts), ..row(second, host, 1.0) };
    let rows = [
        power(1, "n1", 1.0),
        power(9, "n1", 2.0),
        power(1, "n2", 1.0),
        power(9, "n2", 1.0),
        power(11, "n2", 1.0),
        power(12, "n1", 3.0),
        power(31, "n2", 2.0),
    ];
    engine.push("gpu", &gpu_batch(&rows), Feed::Live, &mut listener).unwrap();
    engine.advance("gpu", Timestamp(42 * SECOND), false, &mut listener);
    assert_eq!(
        show(&listener.evaluations),
        [
            "10: n1 firing r=0.125",
            "10: n2 clear",
            "20: n1 firing r=0.18181818181818182",
            "20: n2 clear",
            // One row has no rate: nobody can say.
            "30: n1 no data",
            "30: n2 no data",
            "40: n1 no data",
            "40: n2 no data",
        ]
    );
    // A row that has no value says nothing either.
    let text = "CREATE ALERT hot AS SELECT host, gpu_uuid FROM gpu WHERE temperature_celsius > 80";
    let mut engine = Engine::new(vec![compile(text)]).unwrap();
    let none = GpuRow { temperature: None, ..row(2, "n1", 0.0) };
    let found = push(&mut engine, &gpu_batch(&[row(1, "n1", 90.0), none, row(3, "n1", 10.0)]), Feed::Live);
    assert_eq!(show(&found), ["1: g0,n1 firing ", "3: g0,n1 clear"]);
}

/// Functions of maps, over the table that has one. One that panics (DataFusion's map_entries does, over maps whose entries are called
/// keys and values) is that rule's failure.
#[test]
fn maps_are_taken_apart_and_who_panics_fails_alone() {
    let table = tidewatch_model::table::find("metrics").unwrap();
    let line = br#"{"ts": 1, "name": "up", "labels": {"job": "a", "instance": "b"}, "value": 1}"#;
    let (rows, _) = decode_lines(table, line, TimeUnitChoice::Seconds);
    for (expression, expected) in [
        ("cardinality(labels)", "1: up firing v=2"),
        ("array_length(map_keys(labels))", "1: up firing v=2"),
        ("labels['job']", "1: up firing v=a"),
        ("map_entries(labels)", "1: failed External error: it broke: "),
    ] {
        let of_rows = format!("CREATE ALERT x AS SELECT name, {expression} AS v FROM metrics WHERE value > 0");
        let of_windows = format!(
            "CREATE ALERT y AS SELECT name, count({expression}) AS v FROM TUMBLE(metrics, ts, '10s') GROUP BY name"
        );
        let good = "CREATE ALERT z AS SELECT name, max(value) AS v FROM TUMBLE(metrics, ts, '10s') GROUP BY name";
        let mut engine = Engine::new(vec![compile(&of_rows), compile(good), compile(&of_windows)]).unwrap();
        let mut listener = Everything { evaluations: vec![], until: Timestamp::MIN };
        engine.push("metrics", &rows, Feed::Live, &mut listener).unwrap();
        let found = show(&listener.evaluations);
        assert!(found.len() == 1 && found[0].starts_with(expected), "{expression}: {found:?}");
        listener.evaluations.clear();
        engine.advance("metrics", Timestamp(12 * SECOND), false, &mut listener);
        let of = |rule: &str| -> Vec<Evaluation> {
            listener.evaluations.iter().filter(|one| one.rule == rule).cloned().collect()
        };
        assert_eq!(show(&of("z")), ["10: up firing v=1"], "{expression}");
        let failed = show(&of("y")).iter().any(|line| line.contains("it broke"));
        assert_eq!(failed, expression.starts_with("map_entries"), "{expression}: {:?}", show(&of("y")));
    }
}
