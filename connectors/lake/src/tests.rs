//! The protocol under crashes: whatever put fails, before or after it was applied, a restarted writer and settler end with
//! every row once, in the snapshot and in a plain listing of the public files.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::datatypes::{Float64Type, TimestampMicrosecondType};
use proptest::prelude::*;
use tidewatch_model::ports::Store;
use tidewatch_model::scripted::SeededRandom;
use tidewatch_model::table;
use tidewatch_model::{Span, Timestamp};

use crate::parquet_files::from_bytes;
use crate::*;

const TOPIC: &str = "tidewatch.host";

/// Rows of `host`: (ts in seconds, host); load1 is the row's number.
pub fn batch(rows: &[(i64, usize)], first: usize) -> RecordBatch {
    let schema = table::find("host").unwrap().schema();
    let columns = schema.fields().iter().map(|field| -> ArrayRef {
        match field.name().as_str() {
            "ts" => Arc::new(
                TimestampMicrosecondArray::from_iter_values(rows.iter().map(|(ts, _)| ts * 1_000_000))
                    .with_timezone("UTC"),
            ),
            "host" => Arc::new(StringArray::from_iter_values(rows.iter().map(|(_, host)| format!("n{host}")))),
            "load1" => {
                Arc::new(Float64Array::from_iter_values((first..first + rows.len()).map(|number| number as f64)))
            }
            _ => new_null_array(field.data_type(), rows.len()),
        }
    });
    RecordBatch::try_new(schema.clone(), columns.collect()).unwrap()
}

/// The log: one record per batch.
pub type Log = Vec<Vec<(i64, usize)>>;

/// The numbers that the log's rows carry.
pub fn all_numbers(log: &Log) -> Vec<usize> {
    (0..log.iter().map(Vec::len).sum()).collect()
}

/// The numbers of rows.
pub fn numbers(batches: &[RecordBatch]) -> Vec<usize> {
    let columns = batches
        .iter()
        .flat_map(|batch| batch.column_by_name("load1").unwrap().as_primitive::<Float64Type>().values().iter());
    let mut found: Vec<usize> = columns.map(|number| *number as usize).collect();
    found.sort_unstable();
    found
}

fn options() -> LakeOptions {
    LakeOptions { window: Span::minutes(5), ..LakeOptions::default() }
}

/// One life of a process: reads the log from the committed position, commits every few records and settles; ends at the
/// first failure, as after a crash.
pub fn live(store: &Arc<impl Store + 'static>, log: &Log, every: usize, seed: u64) -> Result<(), LakeError> {
    let mut writer = LakeWriter::new(store.clone(), Arc::new(SeededRandom::new(seed)), options());
    let mut settler = Settler::new(store.clone(), SettleOptions::default());
    let start = writer.position(TOPIC, 0)? as usize;
    for (offset, rows) in log.iter().enumerate().skip(start) {
        let first: usize = log[..offset].iter().map(Vec::len).sum();
        writer.rows(TOPIC, 0, "host", &batch(rows, first))?;
        let counts = Counts { records: 1, ..Counts::default() };
        let now = Timestamp(0);
        writer.advance(TOPIC, 0, &Progress { next: offset as u64 + 1, counts, sources: vec![] }, now)?;
        if (offset + 1) % every == 0 {
            writer.flush(now)?;
            settler.run(now, false)?;
        }
    }
    writer.flush(Timestamp(0))?;
    settler.run(Timestamp(0), true)?;
    Ok(())
}

/// The numbers of a table's rows.
pub fn snapshot_numbers(store: &Arc<impl Store + 'static>) -> Vec<usize> {
    numbers(&LakeScan::new(store.clone()).rows("host").unwrap())
}

/// The numbers of the rows in public files.
pub fn glob_numbers(store: &Arc<impl Store>) -> Vec<usize> {
    let files = store.list("lake/").unwrap();
    let batches: Vec<RecordBatch> =
        files.iter().flat_map(|(path, _)| from_bytes(path, store.get(path).unwrap()).unwrap()).collect();
    numbers(&batches)
}

fn log() -> impl Strategy<Value = Log> {
    prop::collection::vec(prop::collection::vec((0i64..1500, 0usize..4), 0..6), 1..20)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn every_row_once_whatever_fails(log in log(), every in 1usize..6, crashes in prop::collection::vec((0u32..25, any::<bool>()), 0..6)) {
        let store = Arc::new(ScriptedStore::default());
        let mut lives = 0;
        for (after, applied) in crashes {
            store.fail_put(after, if applied { Fault::After } else { Fault::Before });
            lives += 1;
            let ended = live(&store, &log, every, lives);
            if let Err(error) = ended {
                prop_assert!(matches!(error, LakeError::Store(_)), "{error}");
            }
            let report = verify(store.as_ref()).unwrap();
            prop_assert_eq!(&report.problems, &Vec::<String>::new());
        }
        store.fail_put(u32::MAX, Fault::Before);
        live(&store, &log, every, 99).unwrap();
        let expected = all_numbers(&log);
        prop_assert_eq!(snapshot_numbers(&store), expected.clone());
        prop_assert_eq!(glob_numbers(&store), expected);
        let report = verify(store.as_ref()).unwrap();
        prop_assert_eq!(report.problems, Vec::<String>::new());
        prop_assert_eq!(report.public_rows, report.rows);
    }
}

fn a_lake() -> (Arc<ScriptedStore>, Log) {
    let store = Arc::new(ScriptedStore::default());
    let log = vec![vec![(10, 1), (5, 2)], vec![(400, 1)], vec![(20, 0)], vec![(500, 1), (30, 3)]];
    live(&store, &log, 2, 1).unwrap();
    (store, log)
}

#[test]
fn files_are_sorted_and_say_what_they_are() {
    let (store, log) = a_lake();
    assert_eq!(glob_numbers(&store), all_numbers(&log));
    let files: Vec<String> = store.list("lake/").unwrap().into_iter().map(|(path, _)| path).collect();
    assert!(files[0].starts_with("lake/host/dt=1970-01-01/host-19700101T000000Z-5m-g01-000-"), "{files:?}");
    let rows = from_bytes(&files[0], store.get(&files[0]).unwrap()).unwrap();
    let hosts: Vec<&str> = rows[0].column_by_name("host").unwrap().as_string::<i32>().iter().flatten().collect();
    let mut sorted = hosts.clone();
    sorted.sort_unstable();
    assert_eq!(hosts, sorted);
    assert_eq!(rows[0].schema(), table::find("host").unwrap().schema(), "types are the registry's");
}

#[test]
fn late_rows_become_a_new_generation() {
    let (store, mut log) = a_lake();
    let before: Vec<(String, u64)> = store.list("lake/").unwrap();
    log.push(vec![(15, 2)]);
    live(&store, &log, 1, 2).unwrap();
    let after = store.list("lake/").unwrap();
    assert!(before.iter().all(|file| after.contains(file)), "a settled file is never rewritten");
    assert!(after.iter().any(|(path, _)| path.contains("-g02-")));
    assert_eq!(glob_numbers(&store), all_numbers(&log));
}

#[test]
fn a_window_waits_for_its_rows_or_the_clock() {
    let store = Arc::new(ScriptedStore::default());
    let mut writer = LakeWriter::new(store.clone(), Arc::new(SeededRandom::new(1)), options());
    let mut settler = Settler::new(store.clone(), SettleOptions::default());
    let mut push = |offset: u64, second: i64| {
        writer.rows(TOPIC, 0, "host", &batch(&[(second, 1)], 0)).unwrap();
        let counts = Counts { records: 1, ..Counts::default() };
        writer.advance(TOPIC, 0, &Progress { next: offset + 1, counts, sources: vec![] }, Timestamp(0)).unwrap();
        writer.flush(Timestamp(0)).unwrap();
    };
    push(0, 10);
    push(1, 329);
    assert_eq!(settler.run(Timestamp::from_seconds(419), false).unwrap().public_files, 0);
    push(2, 330);
    assert_eq!(settler.run(Timestamp::from_seconds(331), false).unwrap().public_files, 1);
    assert_eq!(
        settler.run(Timestamp::from_seconds(720), false).unwrap().public_files,
        1,
        "two minutes after its end by the clock"
    );
}

#[test]
fn two_writers_fence_each_other() {
    let (store, log) = a_lake();
    let mut first = LakeWriter::new(store.clone(), Arc::new(SeededRandom::new(5)), options());
    let mut second = LakeWriter::new(store.clone(), Arc::new(SeededRandom::new(6)), options());
    let next = log.len() as u64;
    for writer in [&mut first, &mut second] {
        assert_eq!(writer.position(TOPIC, 0).unwrap(), next);
        writer.rows(TOPIC, 0, "host", &batch(&[(1, 1)], 6)).unwrap();
        let counts = Counts { records: 1, ..Counts::default() };
        writer.advance(TOPIC, 0, &Progress { next: next + 1, counts, sources: vec![] }, Timestamp(0)).unwrap();
    }
    assert_eq!(first.flush(Timestamp(0)).unwrap().rows, 1);
    assert!(matches!(second.flush(Timestamp(0)), Err(LakeError::Fenced { .. })));
    assert_eq!(snapshot_numbers(&store), (0..7).collect::<Vec<_>>());
}

/// A partition that somebody else has taken holds up no other.
#[test]
fn a_partition_that_fails_holds_up_no_other() {
    let store = Arc::new(ScriptedStore::default());
    let mut first = LakeWriter::new(store.clone(), Arc::new(SeededRandom::new(1)), options());
    let mut second = LakeWriter::new(store.clone(), Arc::new(SeededRandom::new(2)), options());
    let push = |writer: &mut LakeWriter, partition: u32, offset: u64| {
        writer.rows(TOPIC, partition, "host", &batch(&[(1, 1)], offset as usize)).unwrap();
        let counts = Counts { records: 1, ..Counts::default() };
        let progress = Progress { next: offset + 1, counts, sources: vec![] };
        writer.advance(TOPIC, partition, &progress, Timestamp(0)).unwrap();
    };
    push(&mut first, 0, 0);
    push(&mut first, 1, 10);
    push(&mut second, 0, 0);
    second.flush(Timestamp(0)).unwrap();
    for offset in 11..14 {
        push(&mut first, 1, offset);
        assert!(matches!(first.flush(Timestamp(0)), Err(LakeError::Fenced { .. })));
    }
    assert_eq!(snapshot_numbers(&store), [0, 10, 11, 12, 13]);
    assert_eq!(first.waiting_rows(), 1, "the rows of the other writer's partition");
}

#[test]
fn a_failed_flush_is_tried_again() {
    let store = Arc::new(ScriptedStore::default());
    let mut writer = LakeWriter::new(store.clone(), Arc::new(SeededRandom::new(1)), options());
    writer.position(TOPIC, 0).unwrap();
    writer.rows(TOPIC, 0, "host", &batch(&[(1, 1), (2, 2)], 0)).unwrap();
    let source = ("n1".to_string(), SourceSeq { incarnation: "a".to_string(), seq: 4 });
    let counts = Counts { records: 1, ..Counts::default() };
    writer.advance(TOPIC, 0, &Progress { next: 1, counts, sources: vec![source.clone()] }, Timestamp(0)).unwrap();
    store.fail_put(1, Fault::Before);
    assert!(writer.flush(Timestamp(0)).is_err());
    assert_eq!(writer.waiting_rows(), 2);
    assert!(!writer.due(Timestamp(1)) && writer.due(Timestamp::from_seconds(15)));
    assert_eq!(writer.flush(Timestamp(0)).unwrap().rows, 2);
    assert_eq!(writer.flush(Timestamp(0)).unwrap(), Flushed::default(), "nothing waits, nothing is written");
    let mut again = LakeWriter::new(store.clone(), Arc::new(SeededRandom::new(2)), options());
    assert_eq!(again.last_seqs(TOPIC, 0).unwrap(), [source].into());
    assert_eq!(snapshot_numbers(&store), [0, 1]);
}

/// Days go in two steps: nobody reads them from the word on, and their files stay for those who had begun to.
#[test]
fn days_that_are_not_kept_go_in_two_steps() {
    let store = Arc::new(ScriptedStore::default());
    const DAY: i64 = 86_400;
    let log: Log = (0..6).map(|day| vec![(day * DAY + 10, 1), (day * DAY + 50_000, 2)]).collect();
    live(&store, &log, 1, 1).unwrap();
    let options = |retention| JanitorOptions { grace: Span::hours(2), retention };
    let hour = |hour: i64| Timestamp::from_seconds(6 * DAY + hour * 3_600);
    let all = all_numbers(&log);
    let mut keeps_all = Janitor::new(store.clone(), options(None));
    for round in 0..5 {
        keeps_all.run(hour(3 * round)).unwrap();
    }
    assert_eq!((snapshot_numbers(&store), glob_numbers(&store)), (all.clone(), all.clone()));
    assert_eq!(store.list("internal/hot/").unwrap(), []);
    assert!(store.list("internal/manifest/host/").unwrap().len() >= 5, "claims became manifests");
    // A clock that has jumped to 2033 makes nothing go.
    Janitor::new(store.clone(), options(Some(Span::days(3)))).run(Timestamp::from_seconds(2_000_000_000)).unwrap();
    assert_eq!(snapshot_numbers(&store), all);
    // On day 6 at 20 o'clock, three days back is day 3.
    let mut janitor = Janitor::new(store.clone(), options(Some(Span::days(3))));
    assert_eq!(janitor.run(hour(20)).unwrap().expired_files, 0);
    assert_eq!((snapshot_numbers(&store), glob_numbers(&store)), (all[6..].to_vec(), all.clone()));
    assert_eq!(janitor.run(hour(21)).unwrap().expired_files, 0, "a question may have begun at the last moment");
    assert_eq!(verify(store.as_ref()).unwrap().problems, Vec::<String>::new());
    assert_eq!(janitor.run(hour(23)).unwrap().expired_files, 6);
    assert_eq!((snapshot_numbers(&store), glob_numbers(&store)), (all[6..].to_vec(), all[6..].to_vec()));
    let days: Vec<String> = store.list("internal/manifest/host/").unwrap().into_iter().map(|(path, _)| path).collect();
    assert!(days.iter().all(|path| path.as_str() > "internal/manifest/host/1970-01-04"), "{days:?}");
    assert_eq!(verify(store.as_ref()).unwrap().problems, Vec::<String>::new());
    // A row of a day that is gone is committed, and settled nowhere.
    let mut late = log.clone();
    late.push(vec![(10, 3)]);
    live(&store, &late, 1, 2).unwrap();
    assert_eq!((snapshot_numbers(&store), glob_numbers(&store)), (all[6..].to_vec(), all[6..].to_vec()));
    for round in 0..4 {
        janitor.run(hour(26 + 3 * round)).unwrap();
    }
    assert_eq!(store.list("internal/hot/").unwrap(), []);
    assert_eq!(verify(store.as_ref()).unwrap().problems, Vec::<String>::new());
}

#[test]
fn a_damaged_file_holds_up_its_own_window_only() {
    let store = Arc::new(ScriptedStore::default());
    let mut writer = LakeWriter::new(store.clone(), Arc::new(SeededRandom::new(1)), options());
    let mut settler = Settler::new(store.clone(), SettleOptions::default());
    for (offset, second) in [(0, 10), (1, 310), (2, 610), (3, 910)] {
        writer.rows(TOPIC, 0, "host", &batch(&[(second, 1)], offset)).unwrap();
        let counts = Counts { records: 1, ..Counts::default() };
        let next = offset as u64 + 1;
        writer.advance(TOPIC, 0, &Progress { next, counts, sources: vec![] }, Timestamp(0)).unwrap();
        writer.flush(Timestamp(0)).unwrap();
    }
    let hot: Vec<String> = store.list("internal/hot/").unwrap().into_iter().map(|(path, _)| path).collect();
    store.tamper(&hot[0], |bytes| bytes[40] ^= 1);
    for _ in 0..2 {
        let report = settler.run(Timestamp::from_seconds(2_000), false).unwrap();
        assert_eq!(report.problems.len(), 1, "{report:?}");
        assert!(report.problems[0].contains(&hot[0]) && report.problems[0].contains("the window stays unsettled"));
    }
    assert_eq!(store.list("lake/").unwrap().len(), 3);
    assert_eq!(settler.open_entries(), 1, "what is settled is let go of");
    store.tamper(&hot[0], |bytes| bytes[40] ^= 1);
    let report = settler.run(Timestamp::from_seconds(2_000), false).unwrap();
    assert_eq!((report.public_files, report.problems.len()), (1, 0));
    assert_eq!(settler.open_entries(), 0);
    assert_eq!(verify(store.as_ref()).unwrap().problems, Vec::<String>::new());
}

#[test]
fn verify_notices_what_is_done_to_a_lake() {
    let paths = |store: &ScriptedStore, prefix: &str| {
        store.list(prefix).unwrap().into_iter().map(|(path, _)| path).collect::<Vec<_>>()
    };
    let check = |harm: &dyn Fn(&ScriptedStore), expected: &str| {
        let (store, _) = a_lake();
        assert_eq!(verify(store.as_ref()).unwrap().problems, Vec::<String>::new());
        harm(&store);
        let problems = verify(store.as_ref()).unwrap().problems;
        assert!(problems.iter().any(|problem| problem.contains(expected)), "{expected}: {problems:?}");
    };
    let flip = |bytes: &mut Vec<u8>| bytes[40] ^= 1;
    check(&|store| store.tamper(&paths(store, "lake/")[0], flip), "is not what was settled");
    let unsettle = |store: &ScriptedStore| {
        let receipts = paths(store, "internal/settle/");
        store.delete(receipts.iter().find(|path| path.ends_with(".done")).unwrap()).unwrap();
    };
    check(
        &|store| {
            // Of what is settled it harms nobody.
            store.tamper(&paths(store, "internal/hot/")[0], flip);
            let report = verify(store).unwrap();
            assert_eq!((report.problems, report.orphans.len()), (vec![], 1));
            unsettle(store);
        },
        "is not what was committed",
    );
    check(&|store| store.delete(&paths(store, "lake/")[0]).unwrap(), "was settled and is missing");
    check(
        &|store| {
            // Of what is settled nothing is missed.
            store.delete(&paths(store, "internal/hot/")[0]).unwrap();
            assert_eq!(verify(store).unwrap().problems, Vec::<String>::new());
            unsettle(store);
        },
        "is committed and missing",
    );
    check(&|store| assert!(store.create("lake/host/x.parquet", b"x").is_ok()), "no compaction has this file");
    check(&|store| store.delete(&paths(store, "internal/log/")[0]).unwrap(), "entry 1 is missing before it");
    check(
        &|store| store.tamper(&paths(store, "internal/log/")[0], flip),
        "internal/log/tidewatch.host-00000/00000000000000000001.json: ",
    );
    check(
        &|store| {
            let claim = paths(store, "internal/settle/").into_iter().find(|path| path.ends_with("g0001.json")).unwrap();
            let text = String::from_utf8(store.get(&claim).unwrap()).unwrap().replace("-g01-", "-g09-");
            assert!(store.create(&claim.replace("g0001", "g0009"), text.as_bytes()).is_ok());
        },
        "is in another claim too",
    );
}

#[test]
fn ls_names_each_row_once() {
    let (store, mut log) = a_lake();
    log.push(vec![(700, 1)]);
    let mut writer = LakeWriter::new(store.clone(), Arc::new(SeededRandom::new(9)), options());
    writer.position(TOPIC, 0).unwrap();
    writer.rows(TOPIC, 0, "host", &batch(&log[4], 6)).unwrap();
    let counts = Counts { records: 1, ..Counts::default() };
    writer.advance(TOPIC, 0, &Progress { next: 5, counts, sources: vec![] }, Timestamp(0)).unwrap();
    writer.flush(Timestamp(0)).unwrap();
    let rows = |fresh| {
        ls(store.as_ref(), Some("host"), None, None, fresh).unwrap().iter().map(|entry| entry.rows).sum::<u64>()
    };
    assert_eq!((rows(false), rows(true)), (6, 7));
    let late = ls(store.as_ref(), None, Some(Timestamp::from_seconds(600)), None, true).unwrap();
    assert_eq!(late.len(), 1);
    assert_eq!(late[0].kind, FileKind::Hot);
    let times: Vec<i64> = from_bytes("x", store.get(&late[0].path).unwrap()).unwrap()[0]
        .column(0)
        .as_primitive::<TimestampMicrosecondType>()
        .values()
        .to_vec();
    assert_eq!(times, [700_000_000]);
}

/// Rows of an hour are settled every five minutes, and public in one file when the hour is over: of small files the rows are sorted
/// anew, of large ones row groups are taken as they are. What is enough does not wait, and no file is larger than it should be.
#[test]
fn settled_files_of_an_hour_become_public_together() {
    let make = |rows_each: i64, public_bytes: u64, every: u64| {
        let store: Arc<ScriptedStore> = Arc::default();
        let lake = LakeOptions { window: Span::hours(1), ..LakeOptions::default() };
        let mut writer = LakeWriter::new(store.clone(), Arc::new(SeededRandom::new(1)), lake);
        let mut settler = Settler::new(store.clone(), SettleOptions { public_bytes, ..SettleOptions::default() });
        let mut counts = Vec::new();
        for part in 0..13u64 {
            let rows: Vec<(i64, usize)> =
                (0..rows_each).map(|row| (part as i64 * 300 + row * 299 / rows_each, row as usize % 5)).collect();
            writer.rows(TOPIC, 0, "host", &batch(&rows, part as usize * rows_each as usize)).unwrap();
            let counted = Counts { records: 1, ..Counts::default() };
            let progress = Progress { next: part + 1, counts: counted, sources: vec![] };
            writer.advance(TOPIC, 0, &progress, Timestamp(0)).unwrap();
            writer.flush(Timestamp(0)).unwrap();
            if (part + 1) % every != 0 {
                continue;
            }
            let report = settler.run(Timestamp(0), false).unwrap();
            assert_eq!(report.problems, Vec::<String>::new());
            counts.push((report.settled_files, report.public_files));
            let all: Vec<usize> = (0..(part as usize + 1) * rows_each as usize).collect();
            assert_eq!(snapshot_numbers(&store), all);
            assert_eq!(verify(store.as_ref()).unwrap().problems, Vec::<String>::new());
        }
        (store, counts)
    };
    let is_sorted = |rows: &[RecordBatch]| {
        let keys: Vec<(String, i64)> = rows
            .iter()
            .flat_map(|batch| {
                let hosts = batch.column_by_name("host").unwrap().as_string::<i32>();
                let times = batch.column(0).as_primitive::<TimestampMicrosecondType>();
                hosts.iter().map(|host| host.unwrap().to_string()).zip(times.values().to_vec()).collect::<Vec<_>>()
            })
            .collect();
        keys.is_sorted()
    };
    for (rows_each, is_small) in [(100, true), (66_000, false)] {
        let (store, counts) = make(rows_each, u64::MAX, 1);
        // Row 3600 is the first beyond the hour; a window waits for rows half a minute beyond it.
        assert_eq!(
            counts[..12],
            [vec![(0, 0)], vec![(1, 0); 11]].concat(),
            "a file every five minutes, none of them public"
        );
        assert_eq!(counts[12], (1, 1));
        let public = store.list("lake/").unwrap();
        assert_eq!(public.len(), 1, "{public:?}");
        assert!(public[0].0.starts_with("lake/host/dt=1970-01-01/host-19700101T000000Z-1h-g01-000-"), "{public:?}");
        let bytes = store.get(&public[0].0).unwrap();
        let rows = from_bytes("x", bytes.clone()).unwrap();
        assert_eq!(numbers(&rows), (0..12 * rows_each as usize).collect::<Vec<_>>());
        assert_eq!(is_sorted(&rows), is_small, "large ones are sorted within each five minutes");
        assert_eq!(rows[0].schema(), table::find("host").unwrap().schema());
        let metadata = parquet::file::metadata::ParquetMetaDataReader::new()
            .with_page_index_policy(parquet::file::metadata::PageIndexPolicy::Required)
            .parse_and_finish(&bytes::Bytes::from(bytes))
            .unwrap();
        assert!(metadata.row_groups().iter().all(|group| group.sorting_columns().is_some_and(|by| by.len() == 2)));
        let facts = metadata.file_metadata().key_value_metadata().unwrap();
        let sources = facts.iter().find(|fact| fact.key == "tidewatch.sources").and_then(|fact| fact.value.clone());
        assert!(sources.unwrap().starts_with("tidewatch.host/0@1-1,tidewatch.host/0@2-2,"));
    }
    let (store, counts) = make(66_000, 100_000, 1);
    let public = store.list("lake/").unwrap();
    assert!(counts[..12].iter().filter(|(_, public)| *public == 1).count() >= 2, "{counts:?}");
    assert!(public.iter().all(|(_, bytes)| (40_000..80_000).contains(bytes)), "{public:?}");
    let (store, counts) = make(66_000, 60_000, 13);
    let public = store.list("lake/").unwrap();
    assert_eq!(counts, [(12, public.len() as u64)]);
    let numbered = (0..public.len()).all(|number| public[number].0.contains(&format!("-1h-g01-{number:03}-")));
    assert!(public.len() > 2 && numbered && public.iter().all(|(_, bytes)| *bytes < 80_000), "{public:?}");
}

/// One settled file that is damaged stays where it is; the others of its hour become public, and it too once it is whole again.
#[test]
fn a_damaged_settled_file_holds_up_no_other() {
    let store = Arc::new(ScriptedStore::default());
    let lake = LakeOptions { window: Span::hours(1), ..LakeOptions::default() };
    let mut writer = LakeWriter::new(store.clone(), Arc::new(SeededRandom::new(1)), lake);
    let mut settler = Settler::new(store.clone(), SettleOptions::default());
    for (offset, second) in [(0u64, 10i64), (1, 310), (2, 610), (3, 900)] {
        writer.rows(TOPIC, 0, "host", &batch(&[(second, 1)], offset as usize)).unwrap();
        let counts = Counts { records: 1, ..Counts::default() };
        writer.advance(TOPIC, 0, &Progress { next: offset + 1, counts, sources: vec![] }, Timestamp(0)).unwrap();
        writer.flush(Timestamp(0)).unwrap();
    }
    assert_eq!(settler.run(Timestamp(0), false).unwrap().settled_files, 2);
    let settled: Vec<String> = store.list("internal/settled/").unwrap().into_iter().map(|(path, _)| path).collect();
    store.tamper(&settled[0], |bytes| bytes[40] ^= 1);
    let now = Timestamp::from_seconds(4_000);
    let report = settler.run(now, false).unwrap();
    assert!(report.public_files == 1 && report.problems[0].contains(&settled[0]), "{report:?}");
    assert_eq!(glob_numbers(&store), [1, 2, 3]);
    assert_eq!(verify(store.as_ref()).unwrap().problems.len(), 1);
    store.tamper(&settled[0], |bytes| bytes[40] ^= 1);
    settler.run(now + Span::hours(2), false).unwrap();
    assert_eq!(glob_numbers(&store), [0, 1, 2, 3]);
    assert_eq!(verify(store.as_ref()).unwrap().problems, Vec::<String>::new());
}

/// A stream may have other columns after a new start: files of one hour have the schema of their rows, and none loses a column.
#[test]
fn no_column_is_lost_where_schemas_differ() {
    let store = Arc::new(ScriptedStore::default());
    let lake = LakeOptions { window: Span::hours(1), ..LakeOptions::default() };
    let mut writer = LakeWriter::new(store.clone(), Arc::new(SeededRandom::new(1)), lake);
    let mut settler = Settler::new(store.clone(), SettleOptions::default());
    let named = |name: &str, second: i64, number: usize| {
        let rows = batch(&[(second, 1)], number);
        let kept = rows.project(&[0, 1]).unwrap();
        let mut fields: Vec<_> = kept.schema().fields().iter().cloned().collect();
        fields.push(Arc::new(arrow::datatypes::Field::new(name, arrow::datatypes::DataType::Float64, true)));
        let mut columns = kept.columns().to_vec();
        columns.push(rows.column_by_name("load1").unwrap().clone());
        RecordBatch::try_new(Arc::new(arrow::datatypes::Schema::new(fields)), columns).unwrap()
    };
    // The third is of the same five minutes as the second.
    for (offset, (name, second)) in
        [("load1", 10), ("load1", 310), ("mean", 320), ("mean", 610)].into_iter().enumerate()
    {
        writer.rows(TOPIC, 0, "host", &named(name, second, offset)).unwrap();
        let counts = Counts { records: 1, ..Counts::default() };
        let next = offset as u64 + 1;
        writer.advance(TOPIC, 0, &Progress { next, counts, sources: vec![] }, Timestamp(0)).unwrap();
        writer.flush(Timestamp(0)).unwrap();
    }
    let report = settler.run(Timestamp(0), true).unwrap();
    assert_eq!((report.problems, report.public_rows, report.public_files), (vec![], 4, 3));
    let mut found = Vec::new();
    for (path, _) in store.list("lake/").unwrap() {
        for rows in from_bytes(&path, store.get(&path).unwrap()).unwrap() {
            for name in ["load1", "mean"] {
                let column =
                    rows.column_by_name(name).map(|column| column.as_primitive::<Float64Type>().iter().flatten());
                found.extend(column.into_iter().flatten().map(|value| (name, value as usize)));
            }
        }
    }
    found.sort_unstable();
    assert_eq!(found, [("load1", 0), ("load1", 1), ("mean", 2), ("mean", 3)]);
    assert_eq!(verify(store.as_ref()).unwrap().problems, Vec::<String>::new());
}

/// What comes late for a public window waits an hour for more of its kind.
#[test]
fn late_files_become_public_together() {
    let store = Arc::new(ScriptedStore::default());
    let mut writer = LakeWriter::new(store.clone(), Arc::new(SeededRandom::new(1)), options());
    let mut settler = Settler::new(store.clone(), SettleOptions::default());
    let mut run = |offset: u64, second: i64, minute: i64| {
        let now = Timestamp::from_seconds(minute * 60);
        writer.rows(TOPIC, 0, "host", &batch(&[(second, 1)], offset as usize)).unwrap();
        let counts = Counts { records: 1, ..Counts::default() };
        writer.advance(TOPIC, 0, &Progress { next: offset + 1, counts, sources: vec![] }, now).unwrap();
        writer.flush(now).unwrap();
        let report = settler.run(now, false).unwrap();
        (report.settled_files, report.public_files)
    };
    assert_eq!(run(0, 10, 10), (1, 1));
    assert_eq!(run(1, 11, 20), (1, 0));
    assert_eq!(run(2, 12, 70), (1, 0));
    assert_eq!(run(3, 900_000, 80), (0, 1));
    assert_eq!(glob_numbers(&store), [0, 1, 2]);
    assert_eq!(snapshot_numbers(&store), [0, 1, 2, 3]);
    assert_eq!(verify(store.as_ref()).unwrap().problems, Vec::<String>::new());
}

/// What a settler makes of rows that were kept is what it makes of the files, byte for byte; what was given up is read.
#[test]
fn kept_rows_are_those_of_the_files() {
    let rows =
        |second: i64| -> Vec<(i64, usize)> { (0..1_500).map(|row| (second + row % 7, row as usize % 5)).collect() };
    let settled = |kept: Option<usize>, memory: usize| {
        let store: Arc<ScriptedStore> = Arc::default();
        let mut writer = LakeWriter::new(store.clone(), Arc::new(SeededRandom::new(1)), options());
        let own = kept.map(KeptRows::within);
        writer = writer.with_kept(own.clone());
        let mut settler = Settler::new(store.clone(), SettleOptions { memory, ..SettleOptions::default() });
        settler = settler.with_kept(own.clone());
        for offset in 0..20 {
            writer.rows(TOPIC, 0, "host", &batch(&rows(offset as i64 * 30), offset as usize * 1_500)).unwrap();
            let counts = Counts { records: 1, ..Counts::default() };
            writer.advance(TOPIC, 0, &Progress { next: offset + 1, counts, sources: vec![] }, Timestamp(0)).unwrap();
            if offset % 3 == 0 {
                writer.flush(Timestamp(0)).unwrap();
            }
        }
        writer.flush(Timestamp(0)).unwrap();
        let report = settler.run(Timestamp(0), true).unwrap();
        assert_eq!((report.public_rows, report.problems), (30_000, vec![]));
        let files: Vec<(String, Vec<u8>)> = store
            .list("lake/")
            .unwrap()
            .into_iter()
            .map(|(path, _)| (path.clone(), store.get(&path).unwrap()))
            .collect();
        assert!(files.len() >= 2);
        (files, own.is_none_or(|kept| kept.is_empty()))
    };
    let read = settled(None, usize::MAX);
    for limit in [usize::MAX, 1_200_000, 0] {
        // Chunks are of 8,192 rows: what is sorted at once is at least that.
        for memory in [usize::MAX, 0] {
            let found = settled(Some(limit), memory);
            assert_eq!(found, read, "{limit}, {memory}: the same files, and nothing is kept once it is settled");
        }
    }
}

/// A damaged or missing hot file is written anew from what the log has, and only if that is the same file.
#[test]
fn hot_files_are_mended_from_the_log() {
    let store = Arc::new(ScriptedStore::default());
    let mut writer = LakeWriter::new(store.clone(), Arc::new(SeededRandom::new(1)), options());
    let records: Vec<RecordBatch> =
        (0..4).map(|record| batch(&[(record * 200, 1), (record * 200 + 1, 2)], record as usize * 2)).collect();
    for (offset, rows) in records.iter().enumerate() {
        writer.rows(TOPIC, 0, "host", rows).unwrap();
        let counts = Counts { records: 1, ..Counts::default() };
        let progress = Progress { next: offset as u64 + 1, counts, sources: vec![] };
        writer.advance(TOPIC, 0, &progress, Timestamp(0)).unwrap();
        if offset % 2 == 1 {
            writer.flush(Timestamp(0)).unwrap();
        }
    }
    assert_eq!(hurt(store.as_ref()).unwrap(), []);
    let hot: Vec<String> = store.list("internal/hot/").unwrap().into_iter().map(|(path, _)| path).collect();
    store.tamper(&hot[0], |bytes| bytes[40] ^= 1);
    store.delete(&hot[2]).unwrap();
    let found = hurt(store.as_ref()).unwrap();
    assert_eq!(found.iter().map(|hurt| (hurt.entry.from, hurt.entry.to)).collect::<Vec<_>>(), [(0, 2), (2, 4)]);
    assert_eq!(found.iter().map(|hurt| hurt.files.len()).collect::<Vec<_>>(), [1, 1]);
    let error = found[0].mend(store.as_ref(), &records[1..2]).unwrap_err().to_string();
    assert!(error.contains(&hot[0]) && error.contains("another file"), "{error}");
    assert_eq!(hurt(store.as_ref()).unwrap(), found, "nothing was touched");
    for hurt in &found {
        hurt.mend(store.as_ref(), &records[hurt.entry.from as usize..hurt.entry.to as usize]).unwrap();
    }
    assert_eq!(hurt(store.as_ref()).unwrap(), []);
    assert_eq!(verify(store.as_ref()).unwrap().problems, Vec::<String>::new());
    assert_eq!(snapshot_numbers(&store), (0..8).collect::<Vec<_>>());
}
