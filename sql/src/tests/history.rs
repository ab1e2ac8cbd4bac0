//! History: files behind the port give what the same rows give in memory, whatever is asked, and what the manifests rule out is
//! not opened.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array};
use arrow::compute::concat_batches;
use arrow::util::pretty::pretty_format_batches;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::prelude::SessionContext;
use proptest::prelude::*;
use tidewatch_model::Timestamp;
use tidewatch_model::ports::{Scan, ScanError, ScanFile, Snapshot};
use tidewatch_model::table;

use crate::history::History;

/// One table, in files and in memory; remembers which files were opened.
struct Shelf {
    files: BTreeMap<String, (Vec<u8>, ScanFile)>,
    batches: Vec<RecordBatch>,
    opened: Mutex<BTreeSet<String>>,
}

impl Scan for Shelf {
    fn snapshot(&self, tables: &[String]) -> Result<BTreeMap<String, Snapshot>, ScanError> {
        let schema = table::find("host").unwrap().schema();
        let files = self.files.values().map(|(_, file)| file.clone()).collect();
        let snapshot = Snapshot { schema, files, batches: self.batches.clone() };
        Ok(tables.iter().filter(|name| *name == "host").map(|name| (name.clone(), snapshot.clone())).collect())
    }

    fn read(&self, path: &str, ranges: &[Range<u64>]) -> Result<Vec<Vec<u8>>, ScanError> {
        self.opened.lock().unwrap().insert(path.to_string());
        let (bytes, _) = self.files.get(path).ok_or_else(|| ScanError::Unreadable(path.to_string()))?;
        Ok(ranges.iter().map(|range| bytes[range.start as usize..range.end as usize].to_vec()).collect())
    }
}

/// Rows of `host`: seconds, hosts and loads.
fn rows(rows: &[(i64, u8, Option<i8>)]) -> RecordBatch {
    let schema = table::find("host").unwrap().schema();
    let columns = schema.fields().iter().map(|field| -> ArrayRef {
        match field.name().as_str() {
            "ts" => {
                let times = rows.iter().map(|(ts, ..)| ts * 1_000_000);
                Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))
            }
            "host" => Arc::new(StringArray::from_iter_values(rows.iter().map(|(_, host, _)| format!("n{host}")))),
            "load1" => Arc::new(Float64Array::from_iter(rows.iter().map(|(.., load)| load.map(f64::from)))),
            _ => new_null_array(field.data_type(), rows.len()),
        }
    });
    RecordBatch::try_new(schema.clone(), columns.collect()).unwrap()
}

/// Each lot in a file of its own, the last in memory; files of every other lot lack the columns at the end.
fn shelf(lots: &[Vec<(i64, u8, Option<i8>)>]) -> Shelf {
    let (last, files) = lots.split_last().unwrap();
    let file = |(place, lot): (usize, &Vec<(i64, u8, Option<i8>)>)| {
        let mut batch = rows(lot);
        if place % 2 == 1 {
            let columns = batch.num_columns() - 1;
            batch = batch.project(&(0..columns).collect::<Vec<_>>()).unwrap();
        }
        let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        let bytes = writer.into_inner().unwrap();
        let ts = |second: &i64| Timestamp::from_seconds(*second);
        let times = lot.iter().map(|(second, ..)| second);
        let path = format!("lake/host/dt=1970-01-01/{place} ö.parquet");
        let file = ScanFile {
            path: path.clone(),
            rows: lot.len() as u64,
            bytes: bytes.len() as u64,
            ts: (ts(times.clone().min().unwrap()), ts(times.max().unwrap())),
        };
        (path, (bytes, file))
    };
    let files = files.iter().filter(|lot| !lot.is_empty()).enumerate().map(file).collect();
    let batches = if last.is_empty() { vec![] } else { vec![rows(last)] };
    Shelf { files, batches, opened: Mutex::default() }
}

fn answer(history: &History, sql: &str) -> String {
    let mut batches = Vec::new();
    history
        .query(sql, |batch| {
            batches.push(batch);
            Ok(())
        })
        .unwrap();
    pretty_format_batches(&batches).unwrap().to_string()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn files_give_what_rows_in_memory_give(
        lots in prop::collection::vec(prop::collection::vec((0i64..1_000, 0u8..4, prop::option::of(any::<i8>())), 0..20), 1..6),
        from in 0i64..1_000, length in 0i64..600, host in 0u8..5, load in any::<i8>(),
    ) {
        let all = concat_batches(&table::find("host").unwrap().schema(), &lots.iter().map(|lot| rows(lot)).collect::<Vec<_>>()).unwrap();
        let in_memory = Shelf { files: BTreeMap::new(), batches: vec![all], opened: Mutex::default() };
        let (files, memory) = (History::new(Arc::new(shelf(&lots)), 2).unwrap(), History::new(Arc::new(in_memory), 1).unwrap());
        let between = format!("ts >= to_timestamp({from}) AND ts < to_timestamp({})", from + length);
        for sql in [
            "SELECT count(*), min(ts), max(ts), count(load1) FROM host".to_string(),
            format!("SELECT count(*), sum(load1) FROM host WHERE {between}"),
            format!("SELECT ts, host, load1, boot_id FROM host WHERE {between} AND host = 'n{host}' ORDER BY ts, host, load1"),
            format!("SELECT host, max(load1) FROM host WHERE load1 > {load} OR ts = to_timestamp({from}) GROUP BY host ORDER BY host"),
            "SELECT date_trunc('minute', ts) AS minute, host, avg(load1) FROM host GROUP BY 1, 2 ORDER BY 1, 2".to_string(),
            format!("SELECT count(*) FROM (SELECT * FROM host WHERE load1 IS NULL LIMIT {})", host + 1),
        ] {
            prop_assert_eq!(answer(&files, &sql), answer(&memory, &sql), "{}", sql);
        }
    }
}

#[test]
fn what_the_manifests_rule_out_is_not_opened() {
    let lots: Vec<Vec<(i64, u8, Option<i8>)>> =
        (0..6).map(|lot| (0..10).map(|row| (lot * 100 + row, row as u8 % 3, Some(row as i8))).collect()).collect();
    let shelf = Arc::new(shelf(&[lots, vec![vec![]]].concat()));
    let history = History::new(shelf.clone(), 2).unwrap();
    let opened = |sql: &str| {
        shelf.opened.lock().unwrap().clear();
        answer(&history, sql);
        shelf.opened.lock().unwrap().len()
    };
    assert_eq!(opened("SELECT avg(load1) FROM host"), 6);
    assert_eq!(
        opened("SELECT avg(load1) FROM host WHERE ts >= '1970-01-01T00:03:20Z' AND ts < '1970-01-01T00:05:00Z'"),
        1
    );
    assert_eq!(
        opened("SELECT avg(load1) FROM host WHERE ts < '1970-01-01T00:01:00Z' OR ts > '1970-01-01T00:08:00Z'"),
        2
    );
    assert_eq!(opened("SELECT * FROM host WHERE ts > now()"), 0);
    assert_eq!(opened("SELECT count(*), min(ts), max(ts) FROM host"), 0, "the manifests know");
}

#[test]
fn questions_may_name_views() {
    let mut loaded = crate::Loaded::default();
    let text = "CREATE VIEW busy AS SELECT ts, host, load1, ewma(load1, 0.5) OVER (PARTITION BY host ORDER BY ts ROWS 3 PRECEDING) AS mean FROM host WHERE load1 >= 0;";
    crate::Compiler::new().unwrap().load("rules.sql", text, &mut loaded);
    let times =
        [(0, 1, Some(2)), (1, 1, Some(4)), (2, 1, Some(100)), (3, 1, Some(3)), (4, 1, Some(5)), (5, 1, Some(-1))];
    let history = History::new(Arc::new(shelf(&[times.to_vec()])), 1).unwrap();
    let unknown = history.query("SELECT count(*) FROM busy", |_| Ok(())).unwrap_err();
    assert_eq!(unknown.to_string(), "unknown table 'busy'");
    let history = history.with_views(loaded.views());
    assert!(answer(&history, "SELECT count(*) AS n FROM busy").contains("| 5 |"));
    assert!(answer(&history, "SELECT round(mean, 3) FROM busy ORDER BY ts LIMIT 2").contains("3.333"));
    assert!(answer(&history, "EXPLAIN SELECT count(*) FROM busy AS b WHERE b.load1 > 3").contains("load1"));
    let spike = "SELECT max(calm) AS n FROM (SELECT hampel(load1, 3) OVER (PARTITION BY host ORDER BY ts ROWS BETWEEN 2 PRECEDING AND 2 FOLLOWING) AS calm FROM busy)";
    assert!(answer(&history, spike).contains("| 5.0 |"), "{}", answer(&history, spike));
    let near = history.query("SELECT count(*) FROM bussy", |_| Ok(())).unwrap_err();
    assert_eq!(near.to_string(), "unknown table 'bussy'; did you mean 'busy'?");
    // The bundled ones need nobody to name them.
    let bare = History::new(Arc::new(shelf(&[vec![]])), 1).unwrap();
    assert!(answer(&bare, "SELECT count(power_median_watts) AS n FROM gpu_smooth").contains("| 0 |"));
}

/// What DataFusion says itself, in a session where nothing is rewritten.
#[test]
fn truncated_times_are_those_of_the_calendar() {
    let times: Vec<(i64, u8, Option<i8>)> =
        (-40..40).map(|step| (step * 86_399 * 11 + step * step * 7_919, 0, None)).collect();
    let history = History::new(Arc::new(shelf(std::slice::from_ref(&times))), 1).unwrap();
    let context = SessionContext::new();
    context.register_batch("host", rows(&times)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for part in ["second", "minute", "hour", "day", "week", "month", "quarter", "year", "HOUR"] {
        let sql = format!("SELECT ts, date_trunc('{part}', ts) AS start FROM host ORDER BY ts");
        let plain = runtime.block_on(async { context.sql(&sql).await.unwrap().collect().await.unwrap() });
        let plain = pretty_format_batches(&plain).unwrap().to_string();
        assert_eq!(answer(&history, &sql), plain, "{part}");
    }
    let mut plan = answer(&history, "EXPLAIN SELECT date_trunc('hour', ts) FROM host");
    plan.retain(|letter| !letter.is_whitespace());
    assert!(plan.contains("date_bin("), "{plan}");
}
