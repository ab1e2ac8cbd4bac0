//! `/api/v1/rows/TABLE`: rows that somebody posts. They are acknowledged when the log has them, and what is no row is told line by line.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::{filter_record_batch, is_not_null};
use arrow::datatypes::TimestampMicrosecondType;
use serde_json::json;
use tidewatch_collect::append_frames;
use tidewatch_ingest::Times;
use tidewatch_model::Timestamp;
use tidewatch_model::limits::{FUTURE_SKEW, LATE_ROWS};
use tidewatch_model::ports::{Clock, Log, Random};
use tidewatch_model::table::{self, TABLES, TIME_COLUMN, Table};
use tidewatch_model::wire::json::{JsonOptions, TimeUnitChoice, decode_lines_with};
use tidewatch_model::wire::{Origin, decode_payload, encode_split};
use tidewatch_serve::{Answer, ApiRequest};
use tidewatch_sql::suggestion;

use crate::mapping;

/// Posts that are written at once, each as a source of its own: one waits for the log.
const LANES: usize = 4;
/// Posts that wait for them; more are told to come again.
const WAITING: usize = 32;
/// Rows of one post.
const LINES: usize = 20_000;
/// Lines that are named in an answer.
const NAMED: usize = 10;
/// Seconds after which to come again.
const AGAIN: u32 = 1;

/// Takes rows.
pub struct RowsInbox {
    log: Arc<dyn Log>,
    lanes: Vec<Mutex<BTreeMap<&'static str, Origin>>>,
    pub(super) clock: Arc<dyn Clock>,
    incarnation: String,
    next: AtomicUsize,
    under_way: AtomicUsize,
    taken: Mutex<BTreeMap<String, u64>>,
    rejected: AtomicU64,
}

impl RowsInbox {
    /// Into this log.
    pub fn new(log: Arc<dyn Log>, random: &dyn Random, clock: Arc<dyn Clock>) -> RowsInbox {
        RowsInbox {
            log,
            clock,
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
        let found = table::find(name);
        if found.is_some_and(Table::is_own) {
            return Answer::refused(403, &format!("Tidewatch itself writes '{name}': expected another table"));
        }
        let Some(table) = found else {
            let near = suggestion(name, TABLES.iter().filter(|table| !table.is_own()).map(|table| table.name));
            return Answer::refused(404, &format!("unknown table '{name}'{near}"));
        };
        match self.place() {
            Ok(_place) => self.take(table, request),
            Err(answer) => answer,
        }
    }

    fn take(&self, table: &'static Table, request: &ApiRequest) -> Answer {
        let unit = match request.query.iter().find(|(name, _)| name == "ts").map(|(_, unit)| unit.as_str()) {
            None | Some("s") => TimeUnitChoice::Seconds,
            Some("ms") => TimeUnitChoice::Millis,
            Some("us") => TimeUnitChoice::Micros,
            Some(other) => return Answer::refused(400, &format!("ts: '{other}' is not one of s, ms, us")),
        };
        if let Some((name, _)) = request.query.iter().find(|(name, _)| name != "ts") {
            return Answer::refused(400, &format!("unknown parameter '{name}': expected ts"));
        }
        // Decoded rows are larger than their text: as many posts are decoded at once as are written.
        let mut lane = self.lane(self.next.fetch_add(1, Ordering::SeqCst));
        let read = match request.kind.starts_with("application/vnd.apache.arrow.stream") {
            true => arrow_rows(table, &request.body),
            false => json_rows(table, &request.body, unit),
        };
        let read = read.and_then(|read| read.of_these_days(table, self.times())?.of_somebody(table));
        let Read { rows: batch, count, problems, unknown } = match read {
            Ok(read) => read,
            Err(problem) => {
                self.reject(1);
                return Answer::refused(400, &problem);
            }
        };
        self.reject(count);
        let rows = batch.num_rows();
        if let Err(problem) = self.append(&mut lane, table.name, &batch) {
            return problem.answer();
        }
        if count == 0 {
            return Answer::ok(json!({"status": "success", "data": {"rows": rows, "unknown_fields": unknown}}));
        }
        // As with Prometheus' remote write: what is good is taken, and what is not is the sender's to mend.
        let error = format!("{count} lines are no rows, {rows} rows were taken; {}", problems.join("; "));
        Answer::refused(400, &error)
    }
}

/// A source of rows: what is written as it goes one after the other.
pub(super) struct Lane<'a> {
    source: String,
    origins: MutexGuard<'a, BTreeMap<&'static str, Origin>>,
}

/// Why rows were not written.
pub(super) enum NotWritten {
    /// No record can hold them: another try is of no use.
    TooLarge(String),
    /// The log does not take them now.
    Log(String),
}

impl NotWritten {
    /// As an answer of ours.
    pub(super) fn answer(&self) -> Answer {
        match self {
            NotWritten::TooLarge(problem) => Answer::refused(413, problem),
            NotWritten::Log(problem) => again(503, problem),
        }
    }
}

impl RowsInbox {
    /// One of the lanes, once it is free.
    pub(super) fn lane(&self, number: usize) -> Lane<'_> {
        let number = number % LANES;
        let origins = self.lanes[number].lock().unwrap_or_else(PoisonError::into_inner);
        Lane { source: format!("http-{number}"), origins }
    }

    /// Writes rows of a table; when this returns, the log has them.
    pub(super) fn append(
        &self,
        lane: &mut Lane<'_>,
        table: &'static str,
        batch: &RecordBatch,
    ) -> Result<(), NotWritten> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let source = lane.source.clone();
        let origin = lane.origins.entry(table).or_insert_with(|| Origin {
            source: source.clone(),
            incarnation: self.incarnation.clone(),
            seq: 0,
        });
        let records =
            encode_split(table, origin, batch).map_err(|problem| NotWritten::TooLarge(problem.to_string()))?;
        append_frames(self.log.as_ref(), table, &source, &records)
            .map_err(|problem| NotWritten::Log(format!("the log does not take rows: {problem}")))?;
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner).entry(table.to_string()).or_default() +=
            batch.num_rows() as u64;
        Ok(())
    }

    /// A place among the posts that are under way, unless there are too many.
    pub(super) fn place(&self) -> Result<Place<'_>, Answer> {
        let place = Place::of(&self.under_way);
        match place.0.load(Ordering::SeqCst) > LANES + WAITING {
            true => Err(again(429, "too many posts at once")),
            false => Ok(place),
        }
    }

    /// Counts what was no row.
    pub(super) fn reject(&self, count: u64) {
        self.rejected.fetch_add(count, Ordering::SeqCst);
    }

    /// Between which times rows are taken: the engine would make dead letters of others, after they were acknowledged.
    pub(super) fn times(&self) -> Times {
        let now = self.clock.now();
        Times { oldest: now.saturating_sub(LATE_ROWS), newest: now.saturating_add(FUTURE_SKEW) }
    }
}

/// One of the posts that are under way, until it is answered, however that ends.
pub(super) struct Place<'a>(&'a AtomicUsize);

impl Place<'_> {
    fn of(count: &AtomicUsize) -> Place<'_> {
        count.fetch_add(1, Ordering::SeqCst);
        Place(count)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// To be asked again in a moment.
pub(super) fn again(status: u16, message: &str) -> Answer {
    Answer::refused(status, message).again_after(AGAIN)
}

/// What was posted.
struct Read {
    rows: RecordBatch,
    /// Lines that are no rows, and the first of them with the reason.
    count: u64,
    problems: Vec<String>,
    /// Fields that the table has no place for, and how often they came.
    unknown: BTreeMap<String, u64>,
}

impl Read {
    /// Without rows whose time is odd: the engine would make dead letters of them, after they were acknowledged.
    fn of_these_days(self, table: &Table, wanted: Times) -> Result<Read, String> {
        let times = self
            .rows
            .column_by_name(TIME_COLUMN)
            .and_then(|times| times.as_primitive_opt::<TimestampMicrosecondType>());
        let times = times.ok_or_else(|| format!("table '{}': column '{TIME_COLUMN}' is no time", table.name))?;
        let good = times.iter().map(|ts| Some(ts.is_some_and(|ts| wanted.contains(Timestamp(ts))))).collect();
        self.keep(
            &good,
            "are more than 24h behind or 5m ahead of the clock, or have no time (is ts in seconds? ?ts=ms or ?ts=us say otherwise)",
        )
    }

    /// Without rows that do not say whose they are.
    fn of_somebody(self, table: &Table) -> Result<Read, String> {
        let Some(column) = table.identity().next() else { return Ok(self) };
        let named = self.rows.column_by_name(column).and_then(|names| is_not_null(names).ok());
        let named = named.ok_or_else(|| format!("table '{}': no column '{column}'", table.name))?;
        self.keep(&named, &format!("have no {column}: expected whose they are"))
    }

    /// Keeps good rows, and says what the others are.
    fn keep(mut self, good: &BooleanArray, problem: &str) -> Result<Read, String> {
        let odd = good.len() - good.true_count();
        if odd > 0 {
            self.count += odd as u64;
            self.problems.push(format!("{odd} rows {problem}"));
            self.rows = filter_record_batch(&self.rows, good).map_err(|error| error.to_string())?;
        }
        Ok(self)
    }
}

fn json_rows(table: &'static Table, body: &[u8], unit: TimeUnitChoice) -> Result<Read, String> {
    // A short line may be a row of fifty columns.
    let lines = body.iter().filter(|byte| **byte == b'\n').count() + 1;
    if lines > LINES {
        return Err(format!("{lines} lines: expected at most {LINES} in one post"));
    }
    let (rows, report) = decode_lines_with(table, body, &JsonOptions { unit, ..JsonOptions::default() });
    let named = report.rejected.iter().take(NAMED).map(|line| format!("line {}: {}", line.line, line.reason));
    Ok(Read { rows, count: report.rejected_count, problems: named.collect(), unknown: report.unknown_fields })
}

/// Columns by name, of our types or such that a value can be brought to them.
fn arrow_rows(table: &'static Table, body: &[u8]) -> Result<Read, String> {
    let batch = decode_payload(body).map_err(|error| error.to_string())?;
    if batch.num_rows() > LINES {
        return Err(format!("{} rows: expected at most {LINES} in one post", batch.num_rows()));
    }
    let schema = table.schema();
    let others = batch.schema();
    let others = others.fields().iter().filter(|field| schema.field_with_name(field.name()).is_err());
    let unknown = others.map(|field| (field.name().clone(), batch.num_rows() as u64)).collect();
    Ok(Read { rows: mapping::conform(table, &batch, &BTreeMap::new())?, count: 0, problems: vec![], unknown })
}
