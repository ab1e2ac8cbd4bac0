//! The wire: one message per table and tick, a self-contained, uncompressed Arrow IPC stream with headers that say what
//! it is, where it comes from and whether it arrived whole.
//!
//! Arrow IPC has no checksum: of the single-bit flips of a valid message more than half decode to other rows. So a
//! CRC32C covers headers, key and payload, and a [guard](guard()) bounds the payload before Arrow sees it. The record's
//! timestamp is the carrier's: Kafka keeps it to the millisecond, or sets its own.

mod error;
mod guard;
pub mod json;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::buffer::Buffer;
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType};
use arrow::ipc::reader::{StreamDecoder, read_record_batch};
use arrow::ipc::root_as_message;
use arrow::ipc::writer::StreamWriter;

pub use error::WireError;
pub use guard::guard;
use guard::{Shape, guard_after};

use crate::limits::RECORD_BYTES;
use crate::ports::Record;
use crate::table::{ColumnType, TIME_COLUMN, schema_fingerprint};
use crate::time::Timestamp;

/// The version that this code writes, and the only one that it reads.
pub const VERSION: u16 = 1;

const CRC: &str = "tidewatch-crc32c";
const NAMES: [&str; 9] = [
    "tidewatch-version",
    "tidewatch-table",
    "tidewatch-schema",
    "tidewatch-source",
    "tidewatch-incarnation",
    "tidewatch-seq",
    "tidewatch-rows",
    "tidewatch-min-ts",
    "tidewatch-max-ts",
];

/// Who sends, and how many frames came before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The source: one collector process. Key of its records, so all of them are in one partition.
    pub source: String,
    /// New at every start of the source; spooled frames keep theirs.
    pub incarnation: String,
    /// Number of the next frame of this incarnation and table.
    pub seq: u64,
}

/// What the headers of a frame say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Version of the format.
    pub version: u16,
    /// The table of the rows.
    pub table: String,
    /// Fingerprint of their schema.
    pub schema_fingerprint: String,
    /// Who sent it.
    pub source: String,
    /// Which start of the source.
    pub incarnation: String,
    /// Which frame of that start and table.
    pub seq: u64,
    /// Number of rows.
    pub rows: u64,
    /// Smallest ts.
    pub min_ts: Timestamp,
    /// Largest ts.
    pub max_ts: Timestamp,
}

/// Makes a record of a batch with at least one row.
///
/// ```
/// use std::sync::Arc;
/// use arrow::array::{RecordBatch, StringArray, TimestampMicrosecondArray};
/// use tidewatch_model::wire::{Origin, decode, encode};
/// let ts = TimestampMicrosecondArray::from(vec![1_000_000]).with_timezone("UTC");
/// let host = StringArray::from(vec!["n1"]);
/// let batch = RecordBatch::try_from_iter([("ts", Arc::new(ts) as _), ("host", Arc::new(host) as _)]).unwrap();
/// let origin = Origin { source: "n1".into(), incarnation: "a".into(), seq: 7 };
/// let record = encode("host", &origin, &batch).unwrap();
/// let (header, same) = decode(&record).unwrap();
/// assert_eq!((header.seq, header.rows, same), (7, 1, batch));
/// ```
///
/// # Errors
/// [`WireError::TooLarge`] over the limit of a record; [`WireError::Decode`] without rows or without `ts`.
pub fn encode(table: &str, origin: &Origin, batch: &RecordBatch) -> Result<Record, WireError> {
    let (min_ts, max_ts) = time_range(batch)?;
    let unwritable = |error: arrow::error::ArrowError| WireError::Decode(error.to_string());
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).map_err(unwritable)?;
    writer.write(batch).map_err(unwritable)?;
    let payload = writer.into_inner().map_err(unwritable)?;
    let values = [
        VERSION.to_string(),
        table.to_string(),
        schema_fingerprint(&batch.schema()),
        origin.source.clone(),
        origin.incarnation.clone(),
        origin.seq.to_string(),
        batch.num_rows().to_string(),
        min_ts.0.to_string(),
        max_ts.0.to_string(),
    ];
    let headers = NAMES.iter().zip(values).map(|(name, value)| (name.to_string(), value.into_bytes())).collect();
    let mut record =
        Record { key: origin.source.as_bytes().to_vec(), headers, value: Some(payload), timestamp: max_ts };
    let crc = format!("{:08x}", checksum(&record));
    record.headers.push((CRC.to_string(), crc.into_bytes()));
    match size(&record) {
        bytes if bytes > RECORD_BYTES => Err(WireError::TooLarge { bytes, limit: RECORD_BYTES }),
        _ => Ok(record),
    }
}

/// Like [`encode`], in as many records as the limit asks for; `origin.seq` moves on by that many.
///
/// # Errors
/// As [`encode`], when a single row is over the limit.
pub fn encode_split(table: &str, origin: &mut Origin, batch: &RecordBatch) -> Result<Vec<Record>, WireError> {
    match encode(table, origin, batch) {
        Ok(record) => {
            origin.seq += 1;
            Ok(vec![record])
        }
        Err(WireError::TooLarge { .. }) if batch.num_rows() > 1 => {
            let half = batch.num_rows() / 2;
            let mut records = encode_split(table, origin, &batch.slice(0, half))?;
            records.extend(encode_split(table, origin, &batch.slice(half, batch.num_rows() - half))?);
            Ok(records)
        }
        Err(error) => Err(error),
    }
}

/// Reads a record: headers, checksum, guard, Arrow, and then whether headers and rows agree. [`Decoder`] does the same at less
/// cost where many are read.
///
/// # Errors
/// Everything that is not exactly what [`encode`] makes; never a panic, whatever the bytes are.
pub fn decode(record: &Record) -> Result<(Header, RecordBatch), WireError> {
    Decoder::default().decode(record)
}

/// Reads records, most of which begin with the schema of one before: its bytes were walked and read then.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Schemas as they were found last, the newest first.
    known: Vec<Known>,
}

/// The beginning of a payload, and what it means.
#[derive(Debug)]
struct Known {
    /// The first message.
    prefix: Vec<u8>,
    shape: Shape,
    schema: SchemaRef,
    fingerprint: String,
}

/// Agents of this many versions may write one topic before their schemas are read again and again.
const KNOWN: usize = 4;

impl Decoder {
    /// Reads a record.
    ///
    /// # Errors
    /// As [`decode`].
    pub fn decode(&mut self, record: &Record) -> Result<(Header, RecordBatch), WireError> {
        let header = read_header(record)?;
        let found = text(record, CRC)?;
        let found =
            u32::from_str_radix(found, 16).ok().filter(|_| found.len() == 8 && !found.starts_with('+')).ok_or_else(
                || WireError::Header { name: CRC, problem: format!("'{found}' is not a checksum of 8 hex digits") },
            )?;
        let expected = checksum(record);
        if found != expected {
            return Err(WireError::Checksum { expected, found });
        }
        let payload = record.value.as_deref().unwrap_or_default();
        let (batch, fingerprint) = match self.known.iter().position(|known| payload.starts_with(&known.prefix)) {
            Some(at) => {
                self.known[..=at].rotate_right(1);
                let known = &self.known[0];
                (decode_after(payload, known)?, known.fingerprint.clone())
            }
            None => self.decode_whole(payload)?,
        };
        agree("rows", header.rows, batch.num_rows() as u64)?;
        agree("schema fingerprint", header.schema_fingerprint.as_str(), fingerprint.as_str())?;
        let (min_ts, max_ts) = time_range(&batch)?;
        agree("smallest ts", header.min_ts, min_ts)?;
        agree("largest ts", header.max_ts, max_ts)?;
        Ok((header, batch))
    }

    /// Reads a payload whose schema was not seen before, and remembers it.
    fn decode_whole(&mut self, payload: &[u8]) -> Result<(RecordBatch, String), WireError> {
        let shape = guard(payload)?;
        let mut batches = decode_guarded(payload)?;
        let batch = match (batches.pop(), batches.len()) {
            (Some(batch), 0) => batch,
            (None, _) => return Err(WireError::Decode("no record batch".to_string())),
            (_, more) => return Err(WireError::Decode(format!("{} record batches: expected one", more + 1))),
        };
        let fingerprint = schema_fingerprint(&batch.schema());
        // Dictionaries stand between schema and batch: such frames are read whole each time.
        if let Some(shape) = shape {
            let prefix = payload[..shape.end].to_vec();
            let known = Known { prefix, shape, schema: batch.schema(), fingerprint: fingerprint.clone() };
            self.known.insert(0, known);
            self.known.truncate(KNOWN);
        }
        Ok((batch, fingerprint))
    }
}

/// Reads what follows a known schema.
fn decode_after(payload: &[u8], known: &Known) -> Result<RecordBatch, WireError> {
    let (metadata, body) = guard_after(payload, &known.shape)?;
    let decoded = catch_unwind(AssertUnwindSafe(|| {
        let message = root_as_message(metadata).map_err(|error| error.to_string())?;
        let batch = message.header_as_record_batch().ok_or("the record batch is missing")?;
        let (none, version) = (HashMap::new(), message.version());
        read_record_batch(&Buffer::from(body), batch, known.schema.clone(), &none, None, &version)
            .map_err(|error| error.to_string())
    }));
    match decoded {
        Ok(decoded) => decoded.map_err(WireError::Decode),
        Err(_) => Err(WireError::Decode("the decoder panicked".to_string())),
    }
}

/// Reads an Arrow IPC stream that others wrote, without our headers: guard, then Arrow; all its batches as one.
///
/// # Errors
/// What the guard or Arrow's decoder does not take; never a panic.
pub fn decode_payload(payload: &[u8]) -> Result<RecordBatch, WireError> {
    guard(payload)?;
    let batches = decode_guarded(payload)?;
    let first = batches.first().ok_or_else(|| WireError::Decode("no record batch".to_string()))?;
    arrow::compute::concat_batches(&first.schema(), &batches).map_err(|error| WireError::Decode(error.to_string()))
}

/// Arrow's decoder on a payload that the guard let through; what still panics in it becomes an error.
fn decode_guarded(payload: &[u8]) -> Result<Vec<RecordBatch>, WireError> {
    let decoded = catch_unwind(AssertUnwindSafe(|| {
        let mut buffer = Buffer::from(payload);
        let mut decoder = StreamDecoder::new();
        let mut found = Vec::new();
        while !buffer.is_empty() {
            if let Some(batch) = decoder.decode(&mut buffer)? {
                found.push(batch);
            }
        }
        decoder.finish()?;
        Ok::<_, arrow::error::ArrowError>(found)
    }));
    match decoded {
        Ok(Ok(batches)) => Ok(batches),
        Ok(Err(error)) => Err(WireError::Decode(error.to_string())),
        Err(_) => Err(WireError::Decode("the decoder panicked".to_string())),
    }
}

/// Reads the headers of a record, and nothing of its payload.
///
/// # Errors
/// A header that is missing or is not what [`encode`] writes.
pub fn read_header(record: &Record) -> Result<Header, WireError> {
    let version: u16 = number(record, "tidewatch-version")?;
    if version != VERSION {
        return Err(WireError::Header { name: NAMES[0], problem: format!("version {version}: expected {VERSION}") });
    }
    if record.headers.len() != NAMES.len() + 1 {
        let problem = format!("{} headers: expected {}", record.headers.len(), NAMES.len() + 1);
        return Err(WireError::Header { name: NAMES[0], problem });
    }
    Ok(Header {
        version,
        table: text(record, "tidewatch-table")?.to_string(),
        schema_fingerprint: text(record, "tidewatch-schema")?.to_string(),
        source: text(record, "tidewatch-source")?.to_string(),
        incarnation: text(record, "tidewatch-incarnation")?.to_string(),
        seq: number(record, "tidewatch-seq")?,
        rows: number(record, "tidewatch-rows")?,
        min_ts: Timestamp(number(record, "tidewatch-min-ts")?),
        max_ts: Timestamp(number(record, "tidewatch-max-ts")?),
    })
}

fn text<'a>(record: &'a Record, name: &'static str) -> Result<&'a str, WireError> {
    let wrong = |problem: &str| WireError::Header { name, problem: problem.to_string() };
    let mut found = record.headers.iter().filter(|(other, _)| other == name);
    let (_, value) = found.next().ok_or_else(|| wrong("is missing"))?;
    if found.next().is_some() {
        return Err(wrong("is there twice"));
    }
    std::str::from_utf8(value).map_err(|_| wrong("is not UTF-8"))
}

fn number<T: std::str::FromStr>(record: &Record, name: &'static str) -> Result<T, WireError> {
    let written = text(record, name)?;
    written.parse().map_err(|_| WireError::Header { name, problem: format!("'{written}' is not a number of its kind") })
}

fn agree<T: PartialEq + std::fmt::Display>(what: &'static str, header: T, payload: T) -> Result<(), WireError> {
    if header == payload {
        return Ok(());
    }
    Err(WireError::Disagreement { what, header: header.to_string(), payload: payload.to_string() })
}

/// CRC32C over every header but itself (name 0xFF value 0xFF), the key and the payload.
fn checksum(record: &Record) -> u32 {
    let mut crc = 0;
    for (name, value) in record.headers.iter().filter(|(name, _)| name != CRC) {
        crc = crc32c::crc32c_append(crc, name.as_bytes());
        crc = crc32c::crc32c_append(crc, &[0xFF]);
        crc = crc32c::crc32c_append(crc, value);
        crc = crc32c::crc32c_append(crc, &[0xFF]);
    }
    crc = crc32c::crc32c_append(crc, &record.key);
    crc = crc32c::crc32c_append(crc, &[0xFF]);
    crc32c::crc32c_append(crc, record.value.as_deref().unwrap_or_default())
}

fn size(record: &Record) -> usize {
    let headers: usize = record.headers.iter().map(|(name, value)| name.len() + value.len() + 8).sum();
    headers + record.key.len() + record.value.as_ref().map_or(0, Vec::len) + 64
}

/// Smallest and largest ts of a batch; a frame without rows carries nothing and is not made.
fn time_range(batch: &RecordBatch) -> Result<(Timestamp, Timestamp), WireError> {
    let wrong = |problem: &str| WireError::Decode(format!("column '{TIME_COLUMN}' {problem}"));
    let column = batch.column_by_name(TIME_COLUMN).ok_or_else(|| wrong("is missing"))?;
    if *column.data_type() != ColumnType::Timestamp.arrow() {
        return Err(wrong(&format!("is of type {}: expected microseconds, UTC", column.data_type())));
    }
    let times = column.as_primitive::<TimestampMicrosecondType>();
    if times.null_count() > 0 {
        return Err(wrong("has NULLs"));
    }
    match (times.values().iter().min(), times.values().iter().max()) {
        (Some(min), Some(max)) => Ok((Timestamp(*min), Timestamp(*max))),
        _ => Err(WireError::Decode("no rows".to_string())),
    }
}

#[cfg(test)]
mod tests;
