//! Rules about silence, by example.

use tidewatch_model::Timestamp;

use super::{GpuRow, SECOND, advance, compile, gpu_batch, load, push, row, show};
use crate::{Engine, Feed, Series};

#[test]
fn a_rule_about_silence_looks_at_all_series() {
    let text = "CREATE ALERT silent AS SELECT host, gpu_uuid, last_ts, silence, silence_seconds AS s
        FROM LAST_SEEN(gpu, ts) WHERE silence > INTERVAL '25 seconds' AND host <> 'n3'";
    let mut engine = Engine::new(vec![compile(text)]).unwrap();
    // A row of a later time is no presence before.
    let rows = [row(5, "n1", 1.0), row(5, "n2", 1.0), row(5, "n3", 1.0), row(39, "n2", 1.0), row(41, "n1", 1.0)];
    push(&mut engine, &gpu_batch(&rows), Feed::Live);
    assert_eq!(
        show(&advance(&mut engine, Timestamp(52 * SECOND), false)),
        [
            "10: g0,n1 clear",
            "10: g0,n2 clear",
            "20: g0,n1 clear",
            "20: g0,n2 clear",
            // Between 20 and 30 nobody was heard.
            "40: g0,n1 firing last_ts=1970-01-01T00:00:05Z silence=35s s=35",
            "40: g0,n2 clear",
            "50: g0,n1 clear",
            "50: g0,n2 clear",
        ]
    );
    // A day is 24 hours.
    let day = 86_400;
    let text = text.replace("25 seconds", "1 day").replace("last_ts, silence, ", "");
    let mut engine = Engine::new(vec![compile(&text)]).unwrap();
    engine.restore("silent", Timestamp((day + 20) * SECOND), []);
    engine.remember("gpu", &gpu_batch(&[row(38, "n1", 1.0), row(50, "n2", 1.0)])).unwrap();
    // The clock moves in small steps; in one step, all of it would be time in which nobody listened.
    let shown: Vec<String> = [32, 42, 52]
        .iter()
        .flat_map(|second| show(&advance(&mut engine, Timestamp((day + second) * SECOND), false)))
        .collect();
    let expected = [
        "30: n1 clear",
        "30: n2 clear",
        "40: n1 firing s=86402",
        "40: n2 clear",
        "50: n1 firing s=86412",
        "50: n2 clear",
    ];
    assert_eq!(shown, expected.map(|line| format!("864{}", line.replace("n1", "g0,n1").replace("n2", "g0,n2"))));
    // While our own input lags nobody is absent.
    let lagging = show(&advance(&mut engine, Timestamp((day + 62) * SECOND), true));
    assert_eq!(lagging, ["86460: g0,n1 unknown", "86460: g0,n2 unknown"]);
}

#[test]
fn what_was_seen_before_the_start_is_remembered() {
    let text =
        "CREATE ALERT silent AS SELECT host, gpu_uuid FROM LAST_SEEN(gpu, ts) WHERE silence > INTERVAL '25 seconds'";
    let mut engine = Engine::new(vec![compile(text)]).unwrap();
    engine.restore("silent", Timestamp(30 * SECOND), []);
    assert_eq!(
        engine.wants_series().collect::<Vec<_>>(),
        [Series {
            table: "gpu",
            from: Timestamp((30 - 3_600) * SECOND),
            before: Timestamp(30 * SECOND),
            stalled: vec![]
        }]
    );
    engine.remember("gpu", &gpu_batch(&[row(20, "n1", 1.0), row(29, "n2", 1.0)])).unwrap();
    push(&mut engine, &gpu_batch(&[row(35, "n2", 1.0)]), Feed::Live);
    assert_eq!(
        show(&advance(&mut engine, Timestamp(52 * SECOND), false)),
        ["40: g0,n1 clear", "40: g0,n2 clear", "50: g0,n1 firing ", "50: g0,n2 clear"]
    );
}

#[test]
fn time_in_which_nobody_listened_is_no_silence() {
    let text = "CREATE ALERT silent AS SELECT host, gpu_uuid, silence_seconds AS s FROM LAST_SEEN(gpu, ts) WHERE silence > INTERVAL '2 minutes'";
    let mut engine = Engine::new(vec![compile(text)]).unwrap();
    push(&mut engine, &gpu_batch(&[row(5, "n1", 1.0), row(5, "n2", 1.0)]), Feed::Live);
    advance(&mut engine, Timestamp(5 * SECOND), false);
    // Switched off over a weekend: one machine is back and the other is not.
    push(&mut engine, &gpu_batch(&[row(200_005, "n1", 1.0)]), Feed::Live);
    let shown = show(&advance(&mut engine, Timestamp(200_012 * SECOND), false));
    let expected = ["10: g0,n1 clear", "10: g0,n2 clear", "20: g0,n1 clear", "20: g0,n2 clear", "200010: g0,n1 clear"];
    assert_eq!(shown, [&expected.map(String::from)[..], &["200010: g0,n2 firing s=200005".to_string()]].concat());
}

#[test]
fn silence_can_be_counted() {
    let text = "CREATE ALERT rack AS SELECT count(*) AS n FROM LAST_SEEN(gpu, ts) WHERE silence > INTERVAL '15 seconds' HAVING count(*) >= 2";
    let mut engine = Engine::new(vec![compile(text)]).unwrap();
    push(&mut engine, &gpu_batch(&[row(5, "n1", 1.0), row(9, "n2", 1.0), row(29, "n3", 1.0)]), Feed::Live);
    assert_eq!(
        show(&advance(&mut engine, Timestamp(32 * SECOND), false)),
        ["10:  clear", "20:  clear", "30:  firing n=2"]
    );
}

#[test]
fn a_value_that_does_not_change_is_noticed() {
    let text = "CREATE ALERT stuck AS SELECT host, gpu_uuid, temperature_celsius AS t, changed_ts, stalled_seconds AS s, silence_seconds AS quiet
        FROM STALLED(gpu, ts, temperature_celsius) WHERE stalled > INTERVAL '15 seconds'";
    let mut engine = Engine::new(vec![compile(text)]).unwrap();
    // NULL says nothing; a row that comes later may be earlier.
    let none = GpuRow { temperature: None, ..row(8, "n1", 0.0) };
    let rows = [row(1, "n1", 5.0), none, row(9, "n1", 5.0), row(3, "n2", 7.0), row(12, "n2", 8.0), row(11, "n1", 5.0)];
    push(&mut engine, &gpu_batch(&rows), Feed::Live);
    push(&mut engine, &gpu_batch(&[row(5, "n2", 8.0), row(13, "n1", 5.0), row(13, "n2", 8.0)]), Feed::Live);
    let shown = show(&advance(&mut engine, Timestamp(22 * SECOND), false));
    let expected = [
        "10: g0,n1 clear",
        "10: g0,n2 clear",
        "20: g0,n1 firing t=5 changed_ts=1970-01-01T00:00:01Z s=19 quiet=7",
        "20: g0,n2 clear",
    ];
    assert_eq!(shown, expected);
    push(&mut engine, &gpu_batch(&[row(24, "n1", 6.0), row(24, "n2", 8.0)]), Feed::Live);
    let shown = show(&advance(&mut engine, Timestamp(32 * SECOND), false));
    assert_eq!(shown, ["30: g0,n1 clear", "30: g0,n2 firing t=8 changed_ts=1970-01-01T00:00:05Z s=25 quiet=6"]);
    // After a restart what changed before is remembered.
    let mut engine = Engine::new(vec![compile(text)]).unwrap();
    engine.restore("stuck", Timestamp(30 * SECOND), []);
    assert_eq!(engine.wants_series().next().unwrap().stalled, ["temperature_celsius"]);
    engine.remember("gpu", &gpu_batch(&[row(5, "n2", 8.0)])).unwrap();
    push(&mut engine, &gpu_batch(&[row(34, "n2", 8.0)]), Feed::Live);
    let shown = show(&advance(&mut engine, Timestamp(42 * SECOND), false));
    assert_eq!(shown, ["40: g0,n2 firing t=8 changed_ts=1970-01-01T00:00:05Z s=35 quiet=6"]);
    // What comes late, before what is known, says nothing.
    push(&mut engine, &gpu_batch(&[row(2, "n2", 7.0), row(44, "n2", 8.0)]), Feed::Live);
    let shown = show(&advance(&mut engine, Timestamp(52 * SECOND), false));
    assert_eq!(shown, ["50: g0,n2 firing t=8 changed_ts=1970-01-01T00:00:05Z s=45 quiet=6"]);
    // A number of seconds is a time that it asks for, too.
    let seconds = text.replace("stalled > INTERVAL '15 seconds'", "stalled_seconds > 7200");
    let mut engine = Engine::new(vec![compile(&seconds)]).unwrap();
    engine.restore("stuck", Timestamp(100_000 * SECOND), []);
    assert_eq!(engine.wants_series().next().unwrap().from, Timestamp((100_000 - 2 * 7_200) * SECOND));
    let loaded = load("CREATE ALERT x AS SELECT host FROM STALLED(gpu, ts, host)");
    assert!(loaded.faults[0].message.contains("'host' is no column of 'gpu' that can stall"), "{}", loaded.faults[0]);
}
