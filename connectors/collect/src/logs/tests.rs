//! Through the pump and a log that refuses, over restarts, and with a program that stands for journalctl.

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use tempfile::TempDir;
use tidewatch_log::ScriptedLog;
use tidewatch_model::ports::{Log, TopicOptions};
use tidewatch_model::wire::decode;

use super::*;
use crate::pump::Pump;

const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

fn append(path: &Path, text: &str) {
    use std::io::Write;
    std::fs::File::options().create(true).append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

fn options(text: &str) -> LogOptions {
    file::read("logs.toml", text, &|_| None).unwrap()
}

fn train(folder: &TempDir, more: &str) -> LogOptions {
    let path = folder.path().display();
    options(&format!(
        "[[source]]\nname = \"train\"\npaths = [\"{path}/*.log\"]\nfrom = \"start\"\nmultiline = \"none\"\nlabels = {{ job = \"j\" }}\n{more}"
    ))
}

fn log() -> Arc<ScriptedLog> {
    let log = Arc::new(ScriptedLog::default());
    for table in ["log", "train_step", "collector"] {
        let options = TopicOptions { partitions: 1, compacted: false, retention: None, retention_bytes: None };
        log.create_topic(&format!("tidewatch.{table}"), &options).unwrap();
    }
    log
}

fn batches(log: &ScriptedLog, table: &str) -> Vec<RecordBatch> {
    let read = log.read(&format!("tidewatch.{table}"), 0, 0, usize::MAX).unwrap();
    read.records.iter().map(|(_, record)| decode(record).unwrap().1).collect()
}

/// Messages and times of all rows of `log`.
fn told(batches: &[RecordBatch]) -> Vec<(String, i64)> {
    let of = |batch: &RecordBatch| {
        let times = batch.column(0).as_primitive::<TimestampMicrosecondType>().values().to_vec();
        let texts = batch.column_by_name("message").unwrap().as_string::<i32>();
        texts.iter().map(|text| text.unwrap().to_string()).zip(times).collect::<Vec<_>>()
    };
    batches.iter().flat_map(of).collect()
}

fn texts(batches: &[RecordBatch]) -> Vec<String> {
    told(batches).into_iter().map(|(text, _)| text).collect()
}

#[test]
fn rows_that_the_log_refuses_are_given_again_and_nothing_is_read_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let log = log();
    let path = folder.path().join("a.log");
    append(&path, "iteration 1/ 9 | lm loss: 1.0 |\n");
    let extract = "[[source.extract]]\npreset = \"megatron\"\n";
    let collector = LogCollector::new(train(&folder, extract), "n1", Some(folder.path().to_path_buf()));
    let mut pump = Pump::new(vec![Box::new(collector)], "n1".to_string(), "i".to_string(), log.clone());
    // Both tables are refused, then one of them once more.
    log.fail_appends([ErrorKind::StorageFull; 2]);
    let mut now = pump.tick(NOW);
    append(&path, "iteration 2/ 9 | lm loss: 2.0 |\n");
    log.fail_appends([ErrorKind::StorageFull]);
    for _ in 0..3 {
        now = pump.tick(now);
    }
    let lines = texts(&batches(&log, "log"));
    assert_eq!(lines.len(), 2, "{lines:?}");
    let steps = batches(&log, "train_step");
    let steps: Vec<i64> = steps
        .iter()
        .flat_map(|batch| batch.column_by_name("step").unwrap().as_primitive::<Int64Type>().values().to_vec())
        .collect();
    assert_eq!(steps, [1, 2]);
    for _ in 0..10 {
        now = pump.tick(now);
    }
    let health = batches(&log, "collector");
    let last = health.last().unwrap();
    let of = |name: &str| last.column_by_name(name).unwrap().as_primitive::<Int64Type>().value(0);
    assert_eq!((of("dropped_rows_total"), of("errors_total")), (0, 3), "they waited, none was lost");
}

#[test]
fn an_orderly_end_tells_nothing_twice_and_a_crash_the_same_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.log");
    let start = || LogCollector::new(train(&folder, ""), "n1", Some(folder.path().to_path_buf()));
    let batches = |collected: Collected| collected.more.into_iter().map(|(_, batch)| batch).collect::<Vec<_>>();
    let mut collector = start();
    append(&path, "1\n");
    assert_eq!(texts(&batches(collector.collect(NOW))), ["1"]);
    collector.taken(&[]);
    drop(collector);
    append(&path, "2\n");
    let mut collector = start();
    let first = told(&batches(collector.collect(NOW + Span::seconds(1))));
    assert_eq!(first.len(), 1, "{first:?}");
    // The log may have it, and nobody wrote that down.
    std::mem::forget(collector);
    let mut collector = start();
    assert_eq!(told(&batches(collector.collect(NOW + Span::seconds(9)))), first, "the same row, also its time");
    collector.taken(&[0]);
    assert_eq!(told(&batches(collector.collect(NOW + Span::seconds(10)))), first);
    // What was not taken is not written down as taken.
    drop(collector);
    let mut collector = start();
    assert_eq!(told(&batches(collector.collect(NOW + Span::seconds(20)))), first);
    assert!(folder.path().join("logs-train.state").exists());
}

#[test]
fn a_metrics_file_that_is_read_on_from_its_middle_still_has_its_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.log");
    let extract = "keep = \"none\"\n[[source.extract]]\npreset = \"lightning\"\n";
    let start = || LogCollector::new(train(&folder, extract), "n1", Some(folder.path().to_path_buf()));
    append(&path, "epoch,step,train_loss\n0,1,0.5\n");
    let mut collector = start();
    assert_eq!(collector.collect(NOW).more.len(), 1);
    collector.taken(&[]);
    drop(collector);
    append(&path, "0,2,0.25\n");
    let collected = start().collect(NOW + Span::seconds(1));
    let (table, batch) = &collected.more[0];
    assert_eq!((*table, batch.num_rows()), ("train_step", 1));
    assert_eq!(batch.column_by_name("step").unwrap().as_primitive::<Int64Type>().value(0), 2);
}

#[test]
fn metrics_of_a_container_have_their_names_after_a_restart() {
    let time = "2027-01-15T08:00:00.5Z";
    let cri = |stream: &str, tag: &str, text: &str| format!("{time} {stream} {tag} {text}\n");
    let docker =
        |stream: &str, text: &str| format!("{{\"log\":\"{text}\\n\",\"stream\":\"{stream}\",\"time\":\"{time}\"}}\n");
    let of_cri = [
        cri("stderr", "F", "WARN first") + &cri("stdout", "P", "epoch,st") + &cri("stdout", "F", "ep,train_loss"),
        cri("stdout", "F", "0,1,0.5"),
        cri("stdout", "F", "0,2,0.25") + &cri("stderr", "F", "0,3,0.125"),
    ];
    let of_docker = [
        docker("stderr", "WARN first") + &docker("stdout", "epoch,step,train_loss"),
        docker("stdout", "0,1,0.5"),
        docker("stdout", "0,2,0.25") + &docker("stderr", "0,3,0.125"),
    ];
    for (container, [head, before, behind]) in [("cri", of_cri), ("docker", of_docker)] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        let more =
            format!("container = \"{container}\"\nkeep = \"none\"\n[[source.extract]]\npreset = \"lightning\"\n");
        let start = || LogCollector::new(train(&folder, &more), "n1", Some(folder.path().to_path_buf()));
        let steps = |collected: Collected| -> Vec<i64> {
            let of = |(_, batch): &(&str, RecordBatch)| {
                batch.column_by_name("step").unwrap().as_primitive::<Int64Type>().values().to_vec()
            };
            collected.more.iter().flat_map(of).collect()
        };
        append(&path, &(head + &before));
        let mut collector = start();
        assert_eq!(steps(collector.collect(NOW)), [1], "{container}");
        collector.taken(&[]);
        drop(collector);
        append(&path, &behind);
        assert_eq!(steps(start().collect(NOW + Span::seconds(1))), [2], "{container}: stderr has no such names");
    }
}

#[test]
fn odd_lines_are_counted_and_make_nobody_ill() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.log"), [b"a\xFFb\n".as_slice(), &[b'x'; 70 << 10], b"\n"].concat()).unwrap();
    let collected = LogCollector::new(train(&folder, ""), "n1", None).collect(NOW);
    let shown: Vec<(&str, FaultKind)> =
        collected.faults.iter().map(|fault| (fault.reason.as_str(), fault.kind)).collect();
    assert_eq!(
        shown,
        [("train: 1 lines were cut at 64 KiB", FaultKind::Remark), ("train: 1 lines are not UTF-8", FaultKind::Remark)]
    );
    assert_eq!(texts(&[collected.more[0].1.clone()])[0], "a\u{FFFD}b");
}

#[test]
fn what_a_container_writes_is_judged_by_what_is_in_the_envelope() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pods/ml_llama-0_6e5a1b2c-0d3f-4a5b-8c9d-0e1f2a3b4c5d/trainer");
    std::fs::create_dir_all(&path).unwrap();
    let text = format!(
        "[[source]]\nname = \"pods\"\npaths = [\"{}/pods/*/*/*.log\"]\ncontainer = \"cri\"\nfrom = \"start\"\n\
         path_regex = '_(?P<job>[a-z]+)-'\n[[source.extract]]\npreset = \"megatron\"\n",
        folder.path().display()
    );
    let options = options(&text);
    let time = "2027-01-15T08:00:00.5";
    let lines = [
        format!("{time}00000001Z stdout P  iteration 1/ 9 | lm lo"),
        format!("{time}00000002Z stderr F ERROR could not save"),
        format!("{time}00000003Z stdout F ss: 1.0 |"),
        format!("{time}00000004Z stderr F Traceback (most recent call last):"),
        format!("{time}00000005Z stdout F {{\"level\":\"warn\",\"msg\":\"hot\",\"node\":\"n\"}}"),
        format!("{time}00000006Z stderr F OSError: no space"),
        "no envelope".to_string(),
    ];
    append(&path.join("0.log"), &(lines.join("\n") + "\n"));
    let mut collector = LogCollector::new(options, "n1", None);
    let mut found: Vec<(&'static str, RecordBatch)> = Vec::new();
    let mut faults = Vec::new();
    for second in 0..3 {
        let collected = collector.collect(NOW + Span::seconds(second));
        collector.taken(&[]);
        found.extend(collected.more);
        faults.extend(collected.faults);
    }
    let of = |table: &str| {
        let batches: Vec<&RecordBatch> =
            found.iter().filter(|(name, _)| *name == table).map(|(_, batch)| batch).collect();
        arrow::compute::concat_batches(&batches[0].schema(), batches).unwrap()
    };
    let steps = of("train_step");
    let loss = steps.column_by_name("loss").unwrap().as_primitive::<arrow::datatypes::Float64Type>().value(0);
    assert_eq!((steps.num_rows(), loss), (1, 1.0));
    assert_eq!(steps.column_by_name("job").unwrap().as_string::<i32>().value(0), "llama");
    let logs = of("log");
    let mut rows: Vec<String> = (0..logs.num_rows())
        .map(|row| {
            let text = |name: &str| {
                let column = logs.column_by_name(name).unwrap();
                arrow::util::display::array_value_to_string(column, row).unwrap()
            };
            format!("{} {} {} {}", text("ts"), text("level"), text("message").replace('\n', "/"), text("fields"))
        })
        .collect();
    rows.sort();
    let fields = |more: &str| format!("{{container: trainer, job: llama, namespace: ml, {more}}}");
    let at = "2027-01-15T08:00:00.500Z";
    let error = "ERROR could not save/Traceback (most recent call last):/OSError: no space";
    let expected = [
        format!("{at}   iteration 1/ 9 | lm loss: 1.0 | {}", fields("pod: llama-0, stream: stdout")),
        format!("{at} error {error} {}", fields("pod: llama-0, stream: stderr")),
        format!("{at} warning hot {}", fields("node: n, pod: llama-0, stream: stdout")),
        format!("2027-01-15T08:00:01Z  no envelope {}", fields("pod: llama-0")),
    ];
    assert_eq!(rows, expected);
    let reasons: Vec<&str> = faults.iter().map(|fault| fault.reason.as_str()).collect();
    assert_eq!(reasons, ["pods: 1 lines have no envelope of container = \"cri\", and are taken as they are"]);
}

#[test]
fn a_place_that_cannot_be_written_to_is_told() {
    let folder = tempfile::tempdir().unwrap();
    append(&folder.path().join("a.log"), "1\n");
    let nowhere = folder.path().join("nowhere");
    let collected = LogCollector::new(train(&folder, ""), "n1", Some(nowhere)).collect(NOW);
    assert_eq!(collected.more.len(), 1, "the rows go on");
    assert!(collected.faults[0].reason.contains("logs-train.state"), "{:?}", collected.faults);
    assert_eq!(collected.faults[0].kind, FaultKind::Failed);
}

/// A program that writes down how it was called, says these lines, and then what `end` says.
fn journalctl(folder: &Path, lines: &[String], end: &str) -> LogOptions {
    let program = folder.join("journalctl");
    std::fs::write(folder.join("lines"), lines.concat()).unwrap();
    let script = format!("#!/bin/sh\necho \"$@\" >> {0}/calls\ncat {0}/lines\n{end}\n", folder.display());
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    options(&format!(
        "[[source]]\nname = \"units\"\nfrom = \"start\"\njournal = {{ program = \"{}\", units = [\"a.service\"], arguments = [\"--merge\"] }}\n",
        program.display()
    ))
}

fn entry(number: i64, more: &str) -> String {
    let micros = NOW.0 + number * 1_000_000;
    format!("{{\"__CURSOR\":\"c{number}\",\"__REALTIME_TIMESTAMP\":\"{micros}\",{more}}}\n")
}

/// Passes until so many rows came, or for two seconds.
fn collect(collector: &mut LogCollector, wanted: usize) -> (Vec<RecordBatch>, Vec<Fault>) {
    let (mut batches, mut faults) = (Vec::new(), Vec::new());
    for pass in 0..1_000 {
        let collected = collector.collect(NOW + Span::millis(100 * pass));
        faults.extend(collected.faults);
        batches.extend(collected.more.into_iter().map(|(_, batch)| batch));
        collector.taken(&[]);
        if texts(&batches).len() >= wanted {
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    (batches, faults)
}

#[test]
fn a_journal_is_read_on_from_its_cursor() {
    let folder = tempfile::tempdir().unwrap();
    let lines = [
        entry(1, r#""MESSAGE":"up","PRIORITY":"6","_SYSTEMD_UNIT":"a.service","_PID":"42""#),
        "no JSON\n".to_string(),
        entry(2, r#""MESSAGE":[104,105,255],"PRIORITY":"3","SYSLOG_IDENTIFIER":"kernel""#),
        entry(3, r#""MESSAGE":null,"PRIORITY":"3""#),
        entry(4, r#""MESSAGE":["one","two"],"PRIORITY":"2""#),
    ];
    let options = journalctl(folder.path(), &lines, "sleep 60");
    let state = Some(folder.path().to_path_buf());
    let mut collector = LogCollector::new(options.clone(), "n1", state.clone());
    let (batches, faults) = collect(&mut collector, 3);
    assert_eq!(texts(&batches), ["up", "hi\u{FFFD}", "one"]);
    assert_eq!(told(&batches)[1].1, NOW.0 + 2_000_000);
    let all = arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap();
    let of = |name: &str| all.column_by_name(name).unwrap().as_string::<i32>().iter().flatten().collect::<Vec<_>>();
    assert_eq!(of("level"), ["info", "error", "critical"]);
    assert_eq!(of("source"), ["a.service", "kernel", "journal"]);
    assert!(faults.iter().any(|fault| fault.reason.contains("1 entries are over 1 MiB or no JSON")), "{faults:?}");
    drop(collector);
    let mut collector = LogCollector::new(options, "n1", state);
    collect(&mut collector, 3);
    let calls = std::fs::read_to_string(folder.path().join("calls")).unwrap();
    assert_eq!(
        calls.lines().collect::<Vec<_>>(),
        [
            "--output=json --follow --all --quiet --boot=all --no-tail --unit=a.service --merge",
            "--output=json --follow --all --quiet --boot=all --no-tail --after-cursor=c4 --unit=a.service --merge",
        ]
    );
}

#[test]
fn a_journal_that_ends_is_started_again_after_a_rest() {
    let folder = tempfile::tempdir().unwrap();
    let lines = [entry(1, r#""MESSAGE":"up""#)];
    let options = journalctl(folder.path(), &lines, "echo no journal here >&2; exit 1");
    let mut collector = LogCollector::new(options, "n1", None);
    let (_, faults) = collect(&mut collector, 3);
    let reason = faults.iter().map(|fault| fault.reason.as_str()).find(|reason| reason.contains("ended")).unwrap();
    assert!(reason.ends_with("journalctl ended with exit status: 1: no journal here"), "{reason}");
    let calls = std::fs::read_to_string(folder.path().join("calls")).unwrap();
    assert!((3..10).contains(&calls.lines().count()), "{calls}");
    assert!(calls.lines().nth(1).unwrap().contains("--boot=all --no-tail --after-cursor=c1"));
    // One that ends without a word may be too old for what it was told.
    let folder = tempfile::tempdir().unwrap();
    let options = journalctl(folder.path(), &[], "case \"$*\" in *--boot=all*) exit 1;; esac; sleep 60");
    collect(&mut LogCollector::new(options, "n1", None), 1);
    let calls = std::fs::read_to_string(folder.path().join("calls")).unwrap();
    let told: Vec<bool> = calls.lines().map(|line| line.contains("--boot=all")).collect();
    assert_eq!(told, [true, false], "{calls}");
}

#[test]
fn at_first_only_what_comes_is_told_and_a_machine_without_a_journal_is_well() {
    let folder = tempfile::tempdir().unwrap();
    // One that was there before, and one that came since.
    let lines = [entry(-60, r#""MESSAGE":"old""#), entry(60, r#""MESSAGE":"new""#)];
    let mut options = journalctl(folder.path(), &lines, "sleep 60");
    options.sources[0].from = options::From::End;
    let mut collector = LogCollector::new(options.clone(), "n1", None);
    assert_eq!(texts(&collect(&mut collector, 1).0), ["new"]);
    assert!(std::fs::read_to_string(folder.path().join("calls")).unwrap().contains("--lines=1 "));
    std::fs::remove_file(folder.path().join("journalctl")).unwrap();
    let mut collector = LogCollector::new(options, "n1", None);
    let faults: Vec<Fault> = (0..9).flat_map(|second| collector.collect(NOW + Span::seconds(second)).faults).collect();
    assert_eq!((faults.len(), faults[0].kind), (1, FaultKind::Absent), "{faults:?}");
}
