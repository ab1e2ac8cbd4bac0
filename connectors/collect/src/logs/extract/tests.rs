use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type};
use tidewatch_model::Span;

use super::super::file;
use super::*;

const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

/// Rows of lines, by what a source's file says of it.
fn made(source: &str, lines: &[&str]) -> (BTreeMap<&'static str, RecordBatch>, Vec<String>) {
    let text = format!("[[source]]\nname = \"s\"\npaths = [\"/s\"]\nzone = \"UTC\"\n{source}");
    let options = file::read("logs.toml", &text, &|_| None).unwrap();
    let mut maker = Maker::new(options.sources[0].clone(), "n1".to_string());
    let mut state = State::default();
    let labels = [("rank".to_string(), "3".to_string())];
    for line in lines {
        let message =
            Message { source: "/s", labels: &labels, text: line, transient: false, read_at: NOW, known: None };
        maker.add(message, &mut state).unwrap();
    }
    (maker.finish().unwrap().into_iter().collect(), maker.remarks.take())
}

/// One column as text.
fn column(batch: &RecordBatch, name: &str) -> Vec<String> {
    let options = arrow::util::display::FormatOptions::default().with_null("-");
    let array = batch.column_by_name(name).unwrap();
    let shown = arrow::util::display::ArrayFormatter::try_new(array.as_ref(), &options).unwrap();
    (0..batch.num_rows()).map(|row| shown.value(row).to_string()).collect()
}

#[test]
fn lines_as_text_and_as_objects() {
    let (rows, remarks) = made(
        "labels = { job = \"j\" }",
        &[
            "2027-01-15 08:00:01,5 - WARNING - slow",
            "",
            r#"{"time": 1799999999.25, "level": "error", "msg": "boom\n", "code": 7, "at": {"x": 1}, "none": null}"#,
            r#"{"value": NaN, "note": "a \"NaN\" b", "low": -Infinity}"#,
            "{not an object}",
        ],
    );
    let log = &rows["log"];
    let times: Vec<String> = column(log, "ts");
    assert_eq!(
        times,
        ["2027-01-15T08:00:01.500Z", "2027-01-15T07:59:59.250Z", "2027-01-15T08:00:00Z", "2027-01-15T08:00:00Z"]
    );
    assert_eq!(column(log, "level"), ["warning", "error", "-", "-"]);
    assert_eq!(column(log, "message")[1..2], ["boom"]);
    assert_eq!(column(log, "source")[0], "/s");
    assert_eq!(
        column(log, "fields"),
        [
            "{job: j, rank: 3}",
            "{at: {\"x\":1}, code: 7, job: j, rank: 3}",
            "{job: j, low: -Infinity, note: a \"NaN\" b, rank: 3, value: NaN}",
            "{job: j, rank: 3}",
        ]
    );
    assert_eq!(remarks, Vec::<String>::new());
    assert_eq!(log.schema(), table::find("log").unwrap().schema());
}

#[test]
fn a_pattern_says_what_is_what() {
    let source = r"line = '^(?P<ts>\S+ \S+)\|(?P<level>\w+)\|(?P<worker>\d+)\|(?P<message>.*)$'
time_format = '%d.%m.%Y %H:%M:%S'";
    let (rows, _) = made(source, &["15.01.2027 07:30:00|ERR|12|gone", "another line"]);
    let log = &rows["log"];
    assert_eq!(column(log, "ts"), ["2027-01-15T07:30:00Z", "2027-01-15T08:00:00Z"]);
    assert_eq!(column(log, "level"), ["error", "-"]);
    assert_eq!(column(log, "message"), ["gone", "another line"]);
    assert_eq!(column(log, "fields"), ["{rank: 3, worker: 12}", "{rank: 3}"]);
}

#[test]
fn rows_of_other_tables_and_what_is_kept() {
    let extract = r#"
[[source.extract]]
table = "train_step"
regex = 'step (?P<step>\S+) loss (?P<loss>\S+) in (?P<step_seconds>\S+)ms'
scale = { step_seconds = 0.001 }
[[source.extract]]
table = "train_step"
json = true
rename = { "metrics.loss" = "loss", iter = "step" }
"#;
    let lines = [
        "2027-01-15 08:00:01 step 1,200 loss nan in 250ms",
        "step ten loss 0.5 in 1ms",
        r#"{"ts": "2027-01-15T08:00:02Z", "iter": 7, "metrics": {"loss": 0.25}, "rank": 9, "tokens": "4096"}"#,
        r#"prefix {"iter": 8, "loss": Infinity}"#,
        r#"{"rank": 1, "host": "n9"}"#,
        "ERROR nothing",
    ];
    let (rows, remarks) = made(&format!("labels = {{ job = \"j\" }}\nkeep = \"extracted\"\n{extract}"), &lines);
    let steps = &rows["train_step"];
    assert_eq!(column(steps, "ts")[..3], ["2027-01-15T08:00:01Z", "2027-01-15T08:00:00Z", "2027-01-15T08:00:02Z"]);
    assert_eq!(column(steps, "step"), ["1200", "-", "7", "8"]);
    assert_eq!(column(steps, "rank"), ["3", "3", "9", "3"]);
    assert_eq!(column(steps, "job"), ["j", "j", "j", "j"]);
    assert_eq!(column(steps, "host"), ["n1"; 4]);
    let loss = steps.column_by_name("loss").unwrap().as_primitive::<Float64Type>();
    assert!(loss.value(0).is_nan() && loss.value(3).is_infinite() && !loss.is_null(0));
    assert_eq!(column(steps, "step_seconds")[..2], ["0.25", "0.001"]);
    assert_eq!(steps.column_by_name("tokens").unwrap().as_primitive::<Int64Type>().value(2), 4096);
    assert_eq!(remarks, ["1 values did not fit their columns, such as 'ten' for train_step.step"]);
    assert_eq!(rows["log"].num_rows(), 4);
    for (keep, kept) in [("all", 6), ("none", 0), ("level >= error", 1)] {
        let (rows, _) = made(&format!("labels = {{ job = \"j\" }}\nkeep = \"{keep}\"\n{extract}"), &lines);
        assert_eq!(rows.get("log").map_or(0, RecordBatch::num_rows), kept, "{keep}");
    }
}

#[test]
fn presets_know_the_job_by_a_label() {
    let source = "labels = { job = \"j\" }\n[[source.extract]]\npreset = \"megatron\"\n";
    let line = " [2027-01-15 07:59:58.5] iteration 5/ 9 | elapsed time per iteration (ms): 500.0 | lm loss: 1.5E+00 | loss scale: 1.0 |";
    let (rows, _) = made(source, &[line]);
    let steps = &rows["train_step"];
    let of = |name: &str| column(steps, name)[0].clone();
    assert_eq!([of("ts"), of("job"), of("rank"), of("step")], ["2027-01-15T07:59:58.500Z", "j", "3", "5"]);
    assert_eq!([of("loss"), of("step_seconds"), of("tokens")], ["1.5", "0.5", "-"]);
    assert_eq!(column(&rows["log"], "message")[0], line);
}

#[test]
fn times_that_cannot_be_are_told() {
    let (rows, remarks) =
        made("", &["2027-01-15 09:00:00 ahead", "2027-01-14 07:59:59 yesterday", "2027-01-14 08:00:01 just"]);
    assert_eq!(column(&rows["log"], "ts"), ["2027-01-15T08:00:00Z", "2027-01-14T08:00:01Z"]);
    assert_eq!(remarks.len(), 2, "{remarks:?}");
    assert!(remarks.iter().any(|remark| remark.starts_with("1 lines are from the future (is zone right?)")));
    assert!(remarks.iter().any(|remark| remark.starts_with("1 lines are older than a day, and not taken")));
}

#[test]
fn what_a_journal_knows_comes_with_the_line() {
    let options = file::read("l", "[[source]]\nname = \"s\"\njournal = {}\n", &|_| None).unwrap();
    let mut maker = Maker::new(options.sources[0].clone(), "n1".to_string());
    let ts = NOW.saturating_sub(Span::seconds(5));
    for (text, level) in [("plain", Level::Notice), ("ERROR it says", Level::Info)] {
        let known = Known { ts: Some(ts), level: Some(level), fields: vec![("pid".to_string(), "7".to_string())] };
        let message =
            Message { source: "u.service", labels: &[], text, transient: false, read_at: NOW, known: Some(known) };
        maker.add(message, &mut State::default()).unwrap();
    }
    let rows: BTreeMap<_, _> = maker.finish().unwrap().into_iter().collect();
    assert_eq!(column(&rows["log"], "level"), ["notice", "error"], "a program knows its own line better");
    assert_eq!(column(&rows["log"], "ts"), [ts.to_string(), ts.to_string()]);
    assert_eq!(column(&rows["log"], "fields"), ["{pid: 7}", "{pid: 7}"]);
}
