//! Other people's topics as tables: what their messages hold, and from where they are read.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{Field, Schema};
use tidewatch_ingest::otlp::{self, Lines};
use tidewatch_ingest::remote_write::{self, Version};
use tidewatch_ingest::{Decoded, Encoding, IngestError, Times, unpack};
use tidewatch_model::Timestamp;
use tidewatch_model::ports::Record;
use tidewatch_model::table::{self, TABLES, TIME_COLUMN, Table};
use tidewatch_model::wire;
use tidewatch_model::wire::json::{JsonOptions, TimeUnitChoice, decode_lines_with};
use tidewatch_sql::suggestion;

use crate::input_rows::{line_rows, series_rows};

/// Where a partition is begun that the lake has nothing of yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum From {
    /// With the oldest record that the log has.
    #[default]
    Earliest,
    /// With what comes from now on.
    Latest,
    /// With the first record of this time or later.
    Time(Timestamp),
}

/// How a message holds rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// JSON objects, one a line.
    Json,
    /// An Arrow IPC stream, uncompressed, with the types that cross a border: microseconds UTC, Int64, Float64, Utf8.
    Arrow,
    /// Prometheus' remote write, 1.0 or 2.0, packed with snappy or not: rows of `metrics`.
    RemoteWrite,
    /// OTLP's metrics, protobuf or JSON, as OpenTelemetry's collector writes them: rows of `metrics`.
    OtlpMetrics,
    /// OTLP's logs: rows of `log`.
    OtlpLogs,
}

impl Format {
    const NAMES: [(&'static str, Format); 5] = [
        ("json", Format::Json),
        ("arrow", Format::Arrow),
        ("remote_write", Format::RemoteWrite),
        ("otlp_metrics", Format::OtlpMetrics),
        ("otlp_logs", Format::OtlpLogs),
    ];

    fn name(self) -> &'static str {
        Format::NAMES.iter().find(|(_, format)| *format == self).map_or("", |(name, _)| name)
    }

    /// The table whose rows a message always holds, where its format says that.
    fn table(self) -> Option<&'static str> {
        match self {
            Format::Json | Format::Arrow => None,
            Format::RemoteWrite | Format::OtlpMetrics => Some("metrics"),
            Format::OtlpLogs => Some("log"),
        }
    }
}

/// A topic and the table that its messages are rows of.
///
/// Written as words: `TOPIC table=TABLE [format=json|arrow|remote_write|otlp_metrics|otlp_logs] [ts=s|ms|us|record] [from=earliest|latest|TIME] [map=FROM:TO]...`.
#[derive(Debug, Clone, PartialEq)]
pub struct Mapping {
    /// The topic's name on the cluster; no prefix goes before it.
    pub topic: String,
    /// The table.
    pub table: &'static Table,
    /// How rows are written.
    pub format: Format,
    /// The unit of a ts that is a number.
    pub unit: TimeUnitChoice,
    /// Rows without a ts have the record's.
    pub record_time: bool,
    /// Where reading begins.
    pub from: From,
    /// Names in the messages, and the columns that they are.
    pub renames: BTreeMap<String, String>,
}

/// What a message gave.
pub struct Taken {
    /// The good rows.
    pub rows: RecordBatch,
    /// What could not be read, as a message of its own, and why.
    pub rejected: Option<(Record, String)>,
}

impl FromStr for From {
    type Err = String;
    fn from_str(text: &str) -> Result<From, String> {
        match text {
            "earliest" => Ok(From::Earliest),
            "latest" => Ok(From::Latest),
            time => time
                .parse()
                .map(From::Time)
                .map_err(|_| format!("'{time}' is not earliest, latest or a time such as 2026-01-31T12:00:00Z")),
        }
    }
}

impl fmt::Display for From {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            From::Earliest => f.write_str("earliest"),
            From::Latest => f.write_str("latest"),
            From::Time(ts) => ts.fmt(f),
        }
    }
}

impl FromStr for Mapping {
    type Err = String;
    fn from_str(text: &str) -> Result<Mapping, String> {
        let mut words = text.split_whitespace();
        let topic = words.next().filter(|word| !word.contains('=')).ok_or("expected a topic's name first")?;
        if topic.starts_with(table::TOPIC_PREFIX) {
            return Err(format!("'{topic}' is a topic of ours: expected another's"));
        }
        let (mut found, mut unit) = (None, None);
        let mut mapping = Mapping {
            topic: topic.to_string(),
            table: &TABLES[0],
            format: Format::Json,
            unit: TimeUnitChoice::Seconds,
            record_time: false,
            from: From::default(),
            renames: BTreeMap::new(),
        };
        for word in words {
            let (name, value) = word.split_once('=').ok_or_else(|| format!("'{word}': expected name=value"))?;
            if name == "ts" {
                unit = Some(value);
            }
            match (name, value) {
                ("table", name) => {
                    let known = table::find(name).filter(|table| !table.is_own());
                    found = Some(known.ok_or_else(|| {
                        format!("unknown table '{name}'{}", suggestion(name, TABLES.iter().map(|table| table.name)))
                    })?);
                }
                ("format", name) => {
                    let known = Format::NAMES.iter().find(|(known, _)| *known == name);
                    let names: Vec<&str> = Format::NAMES.iter().map(|(name, _)| *name).collect();
                    let expected = || format!("{word}: expected one of {}", names.join(", "));
                    mapping.format = known.ok_or_else(expected)?.1;
                }
                ("ts", "s") => mapping.unit = TimeUnitChoice::Seconds,
                ("ts", "ms") => mapping.unit = TimeUnitChoice::Millis,
                ("ts", "us") => mapping.unit = TimeUnitChoice::Micros,
                ("ts", "record") => mapping.record_time = true,
                ("from", time) => mapping.from = time.parse()?,
                ("map", pair) => {
                    let (from, to) = pair.split_once(':').ok_or_else(|| format!("map={pair}: expected from:to"))?;
                    mapping.renames.insert(from.to_string(), to.to_string());
                }
                ("ts", _) => return Err(format!("{word}: expected s, ms, us or record")),
                _ => return Err(format!("'{name}' is not one of table, format, ts, from, map")),
            }
        }
        mapping.table = found.ok_or("expected table=NAME")?;
        if mapping.format != Format::Json && unit.is_some() {
            return Err("ts= is for json: times of other formats have a type".to_string());
        }
        if let Some(table) = mapping.format.table()
            && (mapping.table.name != table || !mapping.renames.is_empty())
        {
            return Err(format!("format={}: expected table={table}, and no map=", mapping.format.name()));
        }
        for to in mapping.renames.values().filter(|to| *to != TIME_COLUMN) {
            if mapping.table.column(to).is_none() {
                let near = suggestion(to, mapping.table.columns.iter().map(|column| column.name));
                return Err(format!("unknown column '{to}' in table '{}'{near}", mapping.table.name));
            }
        }
        Ok(mapping)
    }
}

impl fmt::Display for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let format = self.format.name();
        let unit = match (self.record_time, self.unit) {
            (true, _) => "record",
            (_, TimeUnitChoice::Seconds) => "s",
            (_, TimeUnitChoice::Millis) => "ms",
            (_, TimeUnitChoice::Micros) => "us",
        };
        write!(f, "{} table={} format={format}", self.topic, self.table.name)?;
        if self.format == Format::Json {
            write!(f, " ts={unit}")?;
        }
        write!(f, " from={}", self.from)?;
        self.renames.iter().try_for_each(|(from, to)| write!(f, " map={from}:{to}"))
    }
}

impl Mapping {
    /// Reads a message.
    ///
    /// # Errors
    /// Nothing of it can be read.
    pub fn read(&self, record: &Record) -> Result<Taken, String> {
        let payload = record.value.as_deref().ok_or("no payload")?;
        match self.format {
            Format::Json => self.read_json(payload, record),
            Format::Arrow => {
                let batch = wire::decode_payload(payload).map_err(|error| error.to_string())?;
                Ok(Taken { rows: conform(self.table, &batch, &self.renames)?, rejected: None })
            }
            Format::RemoteWrite | Format::OtlpMetrics => {
                let read =
                    if self.format == Format::RemoteWrite { remote_write(payload) } else { otlp_metrics(payload) };
                let Decoded { series, rejected, problems, .. } = read.map_err(|error| error.to_string())?;
                taken(series_rows(&series).map_err(|error| error.to_string())?, rejected, &problems, record)
            }
            Format::OtlpLogs => {
                let read = otlp::decode_logs(payload, format_of(payload), Times::ANY, record.timestamp);
                let Lines { lines, rejected, problems } = read.map_err(|error| error.to_string())?;
                taken(line_rows(&lines).map_err(|error| error.to_string())?, rejected, &problems, record)
            }
        }
    }

    fn read_json(&self, payload: &[u8], record: &Record) -> Result<Taken, String> {
        let default_ts = self.record_time.then_some(record.timestamp);
        let options = JsonOptions { unit: self.unit, renames: self.renames.clone(), default_ts };
        let (rows, report) = decode_lines_with(self.table, payload, &options);
        let Some(first) = report.rejected.first() else {
            return match rows.num_rows() {
                0 => Err("no row".to_string()),
                _ => Ok(Taken { rows, rejected: None }),
            };
        };
        let reason = format!("{} lines are no rows; line {}: {}", report.rejected_count, first.line, first.reason);
        if rows.num_rows() == 0 {
            return Err(reason);
        }
        // The good lines are taken; the letter has the others alone, so that it can be put back when it was mended.
        let lines: Vec<&[u8]> = payload.split(|byte| *byte == b'\n').collect();
        let bad: Vec<&[u8]> = report.rejected_lines.iter().filter_map(|line| lines.get(line - 1).copied()).collect();
        let letter = Record { value: Some(bad.join(&b'\n')), ..record.clone() };
        Ok(Taken { rows, rejected: Some((letter, reason)) })
    }

    /// Rows as a message of this topic's format.
    pub fn write(&self, rows: &RecordBatch, record: &Record) -> Record {
        let value = match self.format {
            Format::Json => {
                let mut writer = tidewatch_model::json::lines(Vec::new(), false);
                writer.write(rows).and_then(|()| writer.finish()).map(|()| writer.into_inner()).ok()
            }
            Format::Arrow => {
                let origin = wire::Origin { source: String::new(), incarnation: String::new(), seq: 0 };
                wire::encode(self.table.name, &origin, rows).ok().and_then(|frame| frame.value)
            }
            // Of these the whole message is kept.
            Format::RemoteWrite | Format::OtlpMetrics | Format::OtlpLogs => None,
        };
        Record { value: value.or_else(|| record.value.clone()), ..record.clone() }
    }
}

/// Version 1.0 or 2.0: a message of the one is empty when it is read as the other.
fn remote_write(payload: &[u8]) -> Result<Decoded, IngestError> {
    let unpacked = unpack(payload, Encoding::Snappy);
    let body = unpacked.as_deref().unwrap_or(payload);
    let decoded = remote_write::decode(body, Version::One, Times::ANY)?;
    match decoded == Decoded::default() {
        true => remote_write::decode(body, Version::Two, Times::ANY),
        false => Ok(decoded),
    }
}

fn otlp_metrics(payload: &[u8]) -> Result<Decoded, IngestError> {
    otlp::decode_metrics(payload, format_of(payload), Times::ANY)
}

/// A message that begins as JSON does is no protobuf of OTLP's: that begins with the key of its first field, a line feed.
fn format_of(payload: &[u8]) -> otlp::Format {
    if payload.first() == Some(&b'{') { otlp::Format::Json } else { otlp::Format::Protobuf }
}

/// The rows of a message; with what could not be taken its letter has the whole message, since parts of it can't be cut out.
fn taken(rows: RecordBatch, rejected: u64, problems: &[String], record: &Record) -> Result<Taken, String> {
    let reason = format!("{rejected} values were not taken: {}", problems.join("; "));
    match (rows.num_rows(), rejected) {
        (0, 1..) => Err(reason),
        // None at all is fine: Prometheus sends what metrics mean without a value.
        (_, 0) => Ok(Taken { rows, rejected: None }),
        (count, _) => {
            Ok(Taken { rows, rejected: Some((record.clone(), format!("{reason}; the {count} others were"))) })
        }
    }
}

/// Columns under a table's names and of its types, where a value can be brought to them without loss of meaning.
///
/// # Errors
/// A value that can't be, or no time.
pub fn conform(table: &Table, batch: &RecordBatch, renames: &BTreeMap<String, String>) -> Result<RecordBatch, String> {
    let schema = table.schema();
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let mut columns: Vec<(Field, ArrayRef)> = Vec::new();
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        let name = renames.get(field.name()).unwrap_or(field.name());
        let Ok(wanted) = schema.field_with_name(name) else { continue };
        let cast = cast_with_options(column, wanted.data_type(), &strict)
            .map_err(|error| format!("column '{}': {error}", field.name()))?;
        columns.push((Field::new(name, wanted.data_type().clone(), true), cast));
    }
    if !columns.iter().any(|(field, _)| field.name() == TIME_COLUMN) {
        return Err(format!("no column '{TIME_COLUMN}'"));
    }
    let (fields, columns): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(|error| error.to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use arrow::array::{Array, AsArray, Int64Array, TimestampMicrosecondArray};
    use arrow::datatypes::{Float64Type, TimestampMicrosecondType};

    use super::*;

    fn mapping(text: &str) -> Mapping {
        text.parse().unwrap()
    }

    fn message(text: &str) -> Record {
        let timestamp = Timestamp::from_seconds(7);
        Record { value: Some(text.as_bytes().to_vec()), timestamp, ..Record::default() }
    }

    #[test]
    fn what_is_written_is_read() {
        let text = "fleet.temps table=gpu format=json ts=ms from=2026-01-31T12:00:00Z map=temp:temperature_celsius";
        assert_eq!(mapping(text).to_string(), text);
        assert_eq!(mapping("x table=host").to_string(), "x table=host format=json ts=s from=earliest");
        for (text, expected) in [
            ("", "expected a topic's name first"),
            ("x", "expected table=NAME"),
            ("x table=gpus", "unknown table 'gpus'; did you mean 'gpu'?"),
            ("x table=gpu ts=ns", "ts=ns: expected s, ms, us or record"),
            (
                "x table=gpu from=yesterday",
                "'yesterday' is not earliest, latest or a time such as 2026-01-31T12:00:00Z",
            ),
            (
                "x table=gpu map=a:temperatur_celsius",
                "unknown column 'temperatur_celsius' in table 'gpu'; did you mean 'temperature_celsius'?",
            ),
            ("tidewatch.gpu table=gpu", "'tidewatch.gpu' is a topic of ours: expected another's"),
        ] {
            assert_eq!(text.parse::<Mapping>().unwrap_err(), expected, "{text}");
        }
    }

    #[test]
    fn good_lines_are_taken_and_bad_ones_stand_alone_in_the_letter() {
        let mapping = mapping("t table=host ts=ms map=time:ts map=load:load1");
        let taken =
            mapping.read(&message("{\"time\":1500,\"host\":\"a\",\"load\":2}\nnonsense\n{\"host\":\"b\"}")).unwrap();
        assert_eq!(taken.rows.num_rows(), 1);
        assert_eq!(taken.rows.column(0).as_primitive::<TimestampMicrosecondType>().value(0), 1_500_000);
        assert_eq!(taken.rows.column_by_name("load1").unwrap().as_primitive::<Float64Type>().value(0), 2.0);
        let (letter, reason) = taken.rejected.unwrap();
        assert_eq!(letter.value.as_deref(), Some(&b"nonsense\n{\"host\":\"b\"}"[..]));
        assert!(reason.starts_with("2 lines are no rows; line 2: not JSON"), "{reason}");
        assert!(mapping.read(&message("\n")).is_err());
    }

    #[test]
    fn the_records_time_can_stand_for_a_rows() {
        let taken = mapping("t table=host ts=record").read(&message("{\"host\":\"a\"}")).unwrap();
        assert_eq!(taken.rows.column(0).as_primitive::<TimestampMicrosecondType>().value(0), 7_000_000);
    }

    #[test]
    fn what_other_systems_write_into_kafka_is_read() {
        let otlp = mapping("t table=metrics format=otlp_metrics");
        assert_eq!(otlp.to_string(), "t table=metrics format=otlp_metrics from=earliest");
        let json = |name: &str| {
            format!(
                r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"name":"load","gauge":{{"dataPoints":[{{"timeUnixNano":"5000","asInt":1}}]}}}},{{"name":"{name}","gauge":{{"dataPoints":[{{"timeUnixNano":"5000","asInt":1}}]}}}}]}}]}}]}}"#
            )
        };
        assert_eq!(otlp.read(&message(&json("x"))).unwrap().rows.num_rows(), 3);
        let half = otlp.read(&message(&json(""))).unwrap();
        let (letter, reason) = half.rejected.unwrap();
        assert_eq!((half.rows.num_rows(), letter.value), (2, message(&json("")).value));
        assert_eq!(reason, "1 values were not taken: a metric without a name; the 2 others were");
        // A series `up` of remote write 1.0, plain and packed.
        let label = [&b"\x0a\x0e\x0a\x08__name__\x12\x02up"[..]].concat();
        let sample = [&b"\x12\x0b\x09"[..], &1f64.to_le_bytes(), b"\x10\x05"].concat();
        let body = [&[0x0a, (label.len() + sample.len()) as u8][..], &label, &sample].concat();
        let packed = snap::raw::Encoder::new().compress_vec(&body).unwrap();
        let prometheus = mapping("t table=metrics format=remote_write");
        for body in [body, packed] {
            let record = Record { value: Some(body), ..Record::default() };
            let rows = prometheus.read(&record).unwrap().rows;
            assert_eq!(rows.column(0).as_primitive::<TimestampMicrosecondType>().value(0), 5_000);
            assert_eq!(prometheus.write(&rows, &record).value, record.value);
        }
        assert!(prometheus.read(&message("nonsense")).is_err());
        let logs = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"hm"}}]}]}]}"#;
        let rows = mapping("t table=log format=otlp_logs").read(&message(logs)).unwrap().rows;
        assert_eq!(rows.column(0).as_primitive::<TimestampMicrosecondType>().value(0), 7_000_000, "the record's");
        for (text, expected) in [
            ("t table=gpu format=otlp_metrics", "format=otlp_metrics: expected table=metrics, and no map="),
            ("t table=log format=otlp_logs map=a:level", "format=otlp_logs: expected table=log, and no map="),
            ("t table=metrics format=remote_write ts=ms", "ts= is for json: times of other formats have a type"),
            (
                "t table=metrics format=avro",
                "format=avro: expected one of json, arrow, remote_write, otlp_metrics, otlp_logs",
            ),
        ] {
            assert_eq!(text.parse::<Mapping>().unwrap_err(), expected, "{text}");
        }
    }

    #[test]
    fn arrow_of_other_types_is_brought_to_ours() {
        let ts: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![1_500]).with_timezone("UTC"));
        let load: ArrayRef = Arc::new(Int64Array::from(vec![2]));
        let batch = RecordBatch::try_from_iter([("time", ts), ("load", load)]).unwrap();
        let mut writer = arrow::ipc::writer::StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
        writer.write(&batch).unwrap();
        let record = Record { value: Some(writer.into_inner().unwrap()), ..Record::default() };
        let taken = mapping("t table=host format=arrow map=time:ts map=load:load1").read(&record).unwrap();
        assert_eq!(taken.rows.column_by_name("load1").unwrap().as_primitive::<Float64Type>().value(0), 2.0);
        assert!(mapping("t table=host format=arrow").read(&record).err().unwrap().contains("no column 'ts'"));
        assert!(mapping("t table=host format=arrow").read(&message("no Arrow")).is_err());
        let again = mapping("t table=host format=arrow").write(&taken.rows, &record);
        assert_eq!(mapping("t table=host format=arrow").read(&again).unwrap().rows.column(0).null_count(), 0);
    }
}
