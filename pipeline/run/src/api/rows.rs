//! `/api/v1/rows/TABLE`: rows that somebody posts. They are acknowledged when the log has them, and what is no row is told line by line.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::ipc::reader::StreamReader;
use serde_json::json;
use tidewatch_collect::append_frames;
use tidewatch_model::ports::{Log, Random};
use tidewatch_model::table::{self, TABLES, Table};
use tidewatch_model::wire::json::{JsonOptions, TimeUnitChoice, decode_lines_with};
use tidewatch_model::wire::{Origin, encode_split};
use tidewatch_serve::{Answer, ApiRequest};
use tidewatch_sql::suggestion;

use super::own::refused;
use crate::mapping;

/// Posts that are written at once, each as a source of its own: one waits for the log.
const LANES: usize = 4;
/// Posts that wait for them; more are told to come again.
const WAITING: usize = 32;
/// Lines that are named in an answer.
const NAMED: usize = 10;
/// Seconds after which to come again.
const AGAIN: u32 = 1;

/// Takes rows.
pub struct RowsInbox {
    log: Arc<dyn Log>,
    lanes: Vec<Mutex<BTreeMap<&'static str, Origin>>>,
    incarnation: String,
    next: AtomicUsize,
    under_way: AtomicUsize,
    taken: Mutex<BTreeMap<String, u64>>,
    rejected: AtomicU64,
}

impl RowsInbox {
    /// Into this log.
    pub fn new(log: Arc<dyn Log>, random: &dyn Random) -> RowsInbox {
        RowsInbox {
            log,
            lanes: (0..LANES).map(|_| Mutex::default()).collect(),
            incarnation: format!("{:016x}", random.next_u64()),
            next: AtomicUsize::new(0),
            under_way: AtomicUsize::new(0),
            taken: Mutex::default(),
            rejected: AtomicU64::new(0),
        }
    }

    /// Rows taken so far, by table.
    pub fn taken(&self) -> BTreeMap<String, u64> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lines that were no rows.
    pub fn rejected(&self) -> u64 {
        self.rejected.load(Ordering::SeqCst)
    }

    /// Takes the rows of a request.
    pub fn post(&self, name: &str, request: &ApiRequest) -> Answer {
        let Some(table) = table::find(name).filter(|table| !table.is_own()) else {
            let near = suggestion(name, TABLES.iter().filter(|table| !table.is_own()).map(|table| table.name));
            return refused(404, &format!("unknown table '{name}'{near}"));
        };
        if self.under_way.fetch_add(1, Ordering::SeqCst) >= LANES + WAITING {
            self.under_way.fetch_sub(1, Ordering::SeqCst);
            return again(429, "too many posts at once");
        }
        let answer = self.take(table, request);
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        answer
    }

    fn take(&self, table: &'static Table, request: &ApiRequest) -> Answer {
        let unit = match request.query.iter().find(|(name, _)| name == "ts").map(|(_, unit)| unit.as_str()) {
            None | Some("s") => TimeUnitChoice::Seconds,
            Some("ms") => TimeUnitChoice::Millis,
            Some("us") => TimeUnitChoice::Micros,
            Some(other) => return refused(400, &format!("ts: '{other}' is not one of s, ms, us")),
        };
        if let Some((name, _)) = request.query.iter().find(|(name, _)| name != "ts") {
            return refused(400, &format!("unknown parameter '{name}': expected ts"));
        }
        let read = match request.kind.starts_with("application/vnd.apache.arrow.stream") {
            true => arrow_rows(table, &request.body),
            false => Ok(json_rows(table, &request.body, unit)),
        };
        let Read { batches, count, problems, unknown } = match read {
            Ok(read) => read,
            Err(problem) => {
                self.rejected.fetch_add(1, Ordering::SeqCst);
                return refused(400, &problem);
            }
        };
        self.rejected.fetch_add(count, Ordering::SeqCst);
        let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        if let Err(problem) = self.append(table.name, &batches) {
            return again(503, &format!("the log does not take rows: {problem}"));
        }
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner).entry(table.name.to_string()).or_default() +=
            rows as u64;
        if count == 0 {
            return Answer::ok(json!({"status": "success", "data": {"rows": rows, "unknown_fields": unknown}}));
        }
        // As with Prometheus' remote write: what is good is taken, and what is not is the sender's to mend.
        let error = format!("{count} lines are no rows, {rows} rows were taken; {}", problems.join("; "));
        refused(400, &error)
    }

    fn append(&self, table: &'static str, batches: &[RecordBatch]) -> Result<(), String> {
        let lane = self.next.fetch_add(1, Ordering::SeqCst) % LANES;
        let source = format!("http:{}-{lane}", self.incarnation);
        let mut origins = self.lanes[lane].lock().unwrap_or_else(PoisonError::into_inner);
        let origin = origins.entry(table).or_insert_with(|| Origin {
            source: source.clone(),
            incarnation: self.incarnation.clone(),
            seq: 0,
        });
        for batch in batches.iter().filter(|batch| batch.num_rows() > 0) {
            let records = encode_split(table, origin, batch).map_err(|error| error.to_string())?;
            append_frames(self.log.as_ref(), table, &source, &records).map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

fn again(status: u16, message: &str) -> Answer {
    Answer { retry_after: Some(AGAIN), ..refused(status, message) }
}

/// What was posted.
struct Read {
    batches: Vec<RecordBatch>,
    /// Lines that are no rows, and the first of them with the reason.
    count: u64,
    problems: Vec<String>,
    /// Fields that the table has no place for, and how often they came.
    unknown: BTreeMap<String, u64>,
}

fn json_rows(table: &'static Table, body: &[u8], unit: TimeUnitChoice) -> Read {
    let (rows, report) = decode_lines_with(table, body, &JsonOptions { unit, ..JsonOptions::default() });
    let named = report.rejected.iter().take(NAMED).map(|line| format!("line {}: {}", line.line, line.reason));
    Read {
        batches: vec![rows],
        count: report.rejected_count,
        problems: named.collect(),
        unknown: report.unknown_fields,
    }
}

/// Columns by name, of our types or such that a value can be brought to them.
fn arrow_rows(table: &'static Table, body: &[u8]) -> Result<Read, String> {
    let stream = StreamReader::try_new(body, None).map_err(|error| format!("not an Arrow stream: {error}"))?;
    let mut unknown = BTreeMap::new();
    let mut batches = Vec::new();
    for batch in stream {
        let batch = batch.map_err(|error| format!("not an Arrow stream: {error}"))?;
        for field in
            batch.schema().fields().iter().filter(|field| table.schema().field_with_name(field.name()).is_err())
        {
            *unknown.entry(field.name().clone()).or_default() += batch.num_rows() as u64;
        }
        batches.push(mapping::conform(table, &batch, &BTreeMap::new())?);
    }
    Ok(Read { batches, count: 0, problems: vec![], unknown })
}
