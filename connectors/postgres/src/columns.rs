//! Rows on the wire: what each Arrow type is to PostgreSQL, and its text and binary forms.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Date32Array, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Schema, TimeUnit, TimestampMicrosecondType};
use arrow::error::ArrowError;
use bytes::{BufMut, BytesMut};
use pgwire::api::Type;
use pgwire::api::portal::Format;
use pgwire::api::results::{FieldFormat, FieldInfo};
use pgwire::messages::data::DataRow;

/// Microseconds from 1970 to 2000-01-01T00:00:00Z, from which PostgreSQL counts (src/include/datatype/timestamp.h,
/// `POSTGRES_EPOCH_JDATE`).
pub const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// Days between the same.
const EPOCH_DAYS: i32 = 10_957;

/// The type of a column on the wire, and the Arrow type to which it is brought before it is written.
pub fn wire_type(arrow: &DataType) -> (Type, DataType) {
    let micros = |zone: Option<Arc<str>>| DataType::Timestamp(TimeUnit::Microsecond, zone);
    match arrow {
        DataType::Boolean => (Type::BOOL, DataType::Boolean),
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => (Type::INT2, DataType::Int64),
        DataType::Int32 | DataType::UInt16 => (Type::INT4, DataType::Int64),
        DataType::Int64 | DataType::UInt32 | DataType::UInt64 => (Type::INT8, DataType::Int64),
        DataType::Float16 | DataType::Float32 | DataType::Float64 => (Type::FLOAT8, DataType::Float64),
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => {
            (Type::NUMERIC, DataType::Utf8)
        }
        DataType::Date32 | DataType::Date64 => (Type::DATE, DataType::Date32),
        DataType::Timestamp(_, None) => (Type::TIMESTAMP, micros(None)),
        DataType::Timestamp(_, Some(zone)) => (Type::TIMESTAMPTZ, micros(Some(zone.clone()))),
        DataType::Dictionary(_, value) => wire_type(value),
        nested if nested.is_nested() => (Type::JSON, DataType::Utf8),
        _ => (Type::TEXT, DataType::Utf8),
    }
}

/// The columns of an answer, each in the format that the client asked for.
pub fn fields(schema: &Schema, format: &Format) -> Vec<FieldInfo> {
    let field = |(index, field): (usize, &Arc<arrow::datatypes::Field>)| {
        let (wire, _) = wire_type(field.data_type());
        let size = match wire {
            Type::BOOL => 1,
            Type::INT2 => 2,
            Type::INT4 | Type::DATE => 4,
            Type::INT8 | Type::FLOAT8 | Type::TIMESTAMP | Type::TIMESTAMPTZ => 8,
            _ => -1,
        };
        let format = match format {
            // Fewer formats than columns: the rest is text.
            Format::Individual(all) if index >= all.len() => FieldFormat::Text,
            other => other.format_for(index),
        };
        FieldInfo::new(field.name().clone(), None, None, wire, format).with_type_size(size)
    };
    schema.fields().iter().enumerate().map(field).collect()
}

/// The columns of a batch, ready to be written.
pub struct Rows {
    fields: Arc<Vec<FieldInfo>>,
    columns: Vec<Column>,
    count: usize,
}

enum Column {
    Bool(BooleanArray),
    Int(Int64Array),
    Float(Float64Array),
    Date(Date32Array),
    Time(TimestampMicrosecondArray),
    Text(StringArray),
}

impl Rows {
    /// Of a batch.
    ///
    /// # Errors
    /// A value that its type on the wire has no room for.
    pub fn new(fields: Arc<Vec<FieldInfo>>, batch: &RecordBatch) -> Result<Rows, ArrowError> {
        let strictly = CastOptions { safe: false, ..CastOptions::default() };
        let column = |(array, field): (&ArrayRef, &Arc<arrow::datatypes::Field>)| {
            let (wire, plain_type) = wire_type(field.data_type());
            let plain = match wire {
                Type::JSON => json_texts(array)?,
                _ => cast_with_options(array, &plain_type, &strictly)?,
            };
            Ok(match plain_type {
                DataType::Boolean => Column::Bool(plain.as_boolean().clone()),
                DataType::Int64 => Column::Int(plain.as_primitive().clone()),
                DataType::Float64 => Column::Float(plain.as_primitive().clone()),
                DataType::Date32 => Column::Date(plain.as_primitive().clone()),
                DataType::Timestamp(..) => Column::Time(plain.as_primitive::<TimestampMicrosecondType>().clone()),
                _ => Column::Text(plain.as_string::<i32>().clone()),
            })
        };
        let columns = batch.columns().iter().zip(batch.schema_ref().fields()).map(column);
        Ok(Rows { fields, columns: columns.collect::<Result<_, ArrowError>>()?, count: batch.num_rows() })
    }

    /// All of them.
    pub fn all(self) -> impl Iterator<Item = DataRow> {
        (0..self.count).map(move |row| self.row(row))
    }

    fn row(&self, row: usize) -> DataRow {
        let mut out = BytesMut::with_capacity(self.columns.len() * 12);
        for (column, field) in self.columns.iter().zip(self.fields.iter()) {
            let at = out.len();
            out.put_i32(-1);
            if column.write(row, field, &mut out) {
                let length = (out.len() - at - 4) as i32;
                out[at..at + 4].copy_from_slice(&length.to_be_bytes());
            }
        }
        DataRow::new(out, self.columns.len() as i16)
    }
}

impl Column {
    /// Writes a value, unless it is NULL.
    fn write(&self, row: usize, field: &FieldInfo, out: &mut BytesMut) -> bool {
        let binary = field.format() == FieldFormat::Binary;
        let array: &dyn Array = match self {
            Column::Bool(array) => array,
            Column::Int(array) => array,
            Column::Float(array) => array,
            Column::Date(array) => array,
            Column::Time(array) => array,
            Column::Text(array) => array,
        };
        if array.is_null(row) {
            return false;
        }
        match self {
            Column::Bool(array) if binary => out.put_u8(array.value(row).into()),
            Column::Bool(array) => out.put_u8(if array.value(row) { b't' } else { b'f' }),
            Column::Int(array) => match (binary, field.datatype()) {
                (false, _) => out.put_slice(array.value(row).to_string().as_bytes()),
                // The cast came from a type that has no others.
                (true, &Type::INT2) => out.put_i16(array.value(row) as i16),
                (true, &Type::INT4) => out.put_i32(array.value(row) as i32),
                (true, _) => out.put_i64(array.value(row)),
            },
            Column::Float(array) if binary => out.put_f64(array.value(row)),
            Column::Float(array) => out.put_slice(float_text(array.value(row)).as_bytes()),
            Column::Time(array) if binary => out.put_i64(array.value(row).saturating_sub(EPOCH_MICROS)),
            Column::Time(array) => {
                out.put_slice(time_text(array.value(row), *field.datatype() == Type::TIMESTAMPTZ).as_bytes());
            }
            Column::Date(array) if binary => out.put_i32(array.value(row).saturating_sub(EPOCH_DAYS)),
            Column::Date(array) => out.put_slice(date_text(array.value(row)).as_bytes()),
            Column::Text(array) if binary && *field.datatype() == Type::NUMERIC => numeric(array.value(row), out),
            Column::Text(array) => out.put_slice(array.value(row).as_bytes()),
        }
        true
    }
}

fn float_text(value: f64) -> String {
    match value {
        value if value.is_nan() => "NaN".to_string(),
        value if value.is_infinite() => if value > 0.0 { "Infinity" } else { "-Infinity" }.to_string(),
        value => value.to_string(),
    }
}

fn date_text(days: i32) -> String {
    let date = chrono::DateTime::from_timestamp(i64::from(days) * 86_400, 0);
    date.map_or_else(
        || if days > 0 { "infinity" } else { "-infinity" }.to_string(),
        |date| date.format("%Y-%m-%d").to_string(),
    )
}

/// A decimal number as PostgreSQL's `numeric_send` writes it: digits of base 10,000, the weight of the first, the sign, and how many
/// decimals are shown.
fn numeric(text: &str, out: &mut BytesMut) {
    let (sign, digits) = text.strip_prefix('-').map_or((0, text), |digits| (0x4000, digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let whole = whole.trim_start_matches('0');
    let before = whole.len().div_ceil(4);
    let padded = format!(
        "{}{whole}{fraction}{}",
        "0".repeat(before * 4 - whole.len()),
        "0".repeat((4 - fraction.len() % 4) % 4)
    );
    let groups =
        padded.as_bytes().chunks(4).map(|group| group.iter().fold(0, |sum, digit| sum * 10 + i16::from(digit - b'0')));
    let groups: Vec<i16> = groups.collect();
    let first = groups.iter().position(|group| *group != 0).unwrap_or(groups.len());
    let last = groups.iter().rposition(|group| *group != 0).map_or(first, |last| last + 1);
    out.put_i16((last - first) as i16);
    out.put_i16(if first == last { 0 } else { before as i16 - 1 - first as i16 });
    out.put_u16(if first == last { 0 } else { sign });
    out.put_u16(fraction.len() as u16);
    groups[first..last].iter().for_each(|group| out.put_i16(*group));
}

fn time_text(micros: i64, is_zoned: bool) -> String {
    match chrono::DateTime::from_timestamp_micros(micros) {
        Some(time) => format!("{}{}", time.format("%Y-%m-%d %H:%M:%S%.f"), if is_zoned { "+00" } else { "" }),
        None => if micros > 0 { "infinity" } else { "-infinity" }.to_string(),
    }
}

/// Maps, lists and structs as one JSON text each.
fn json_texts(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let batch = RecordBatch::try_from_iter_with_nullable([("value", array.clone(), true)])?;
    let mut lines = Vec::new();
    let builder = arrow::json::WriterBuilder::new().with_explicit_nulls(true);
    let mut writer = builder.build::<_, arrow::json::writer::LineDelimited>(&mut lines);
    writer.write(&batch)?;
    writer.finish()?;
    drop(writer);
    let text = |(row, line): (usize, &[u8])| {
        let mut value: serde_json::Value =
            serde_json::from_slice(line).map_err(|error| ArrowError::JsonError(error.to_string()))?;
        Ok(array.is_valid(row).then(|| value["value"].take().to_string()))
    };
    let texts = lines.split(|byte| *byte == b'\n').take(array.len()).enumerate().map(text);
    Ok(Arc::new(texts.collect::<Result<StringArray, ArrowError>>()?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// What PostgreSQL 16 prints and sends for the same values.
    #[test]
    fn values_look_as_postgresql_writes_them() {
        assert_eq!(float_text(0.1), "0.1");
        assert_eq!(float_text(f64::NEG_INFINITY), "-Infinity");
        assert_eq!(time_text(EPOCH_MICROS, true), "2000-01-01 00:00:00+00");
        assert_eq!(time_text(1_780_000_000_123_456, true), "2026-05-28 20:26:40.123456+00");
        assert_eq!(time_text(i64::MAX, false), "infinity");
    }

    /// What PostgreSQL 16 sends: `SELECT numeric_send(x)`.
    #[test]
    fn decimals_are_sent_as_postgresql_sends_them() {
        let sent = |text: &str| {
            let mut out = BytesMut::new();
            numeric(text, &mut out);
            out.chunks(2).map(|two| i16::from_be_bytes([two[0], two[1]])).collect::<Vec<_>>()
        };
        assert_eq!(sent("0"), [0, 0, 0, 0]);
        assert_eq!(sent("0.00"), [0, 0, 0, 2]);
        assert_eq!(sent("12345.67"), [3, 1, 0, 2, 1, 2345, 6700]);
        assert_eq!(sent("-0.0001"), [1, -1, 0x4000, 4, 1]);
        assert_eq!(sent("-100000000"), [1, 2, 0x4000, 0, 1]);
        assert_eq!(date_text(EPOCH_DAYS), "2000-01-01");
    }

    #[test]
    fn a_number_that_has_no_room_is_an_error_and_not_another_number() {
        let batch =
            RecordBatch::try_from_iter([("n", Arc::new(arrow::array::UInt64Array::from(vec![u64::MAX])) as ArrayRef)])
                .unwrap();
        let fields = Arc::new(fields(batch.schema_ref(), &Format::UnifiedBinary));
        assert!(Rows::new(fields, &batch).is_err());
    }

    #[test]
    fn a_row_has_a_length_before_each_value_and_nulls_have_none() {
        let columns: [(&str, ArrayRef, bool); 3] = [
            ("a", Arc::new(Int64Array::from(vec![Some(7)])), true),
            ("b", Arc::new(Float64Array::from(vec![None])), true),
            ("c", Arc::new(BooleanArray::from(vec![Some(true)])), true),
        ];
        let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
        let bytes = |format: &Format| {
            let fields = Arc::new(fields(batch.schema_ref(), format));
            Rows::new(fields, &batch).unwrap().all().next().unwrap().data.to_vec()
        };
        let null = [255, 255, 255, 255];
        assert_eq!(bytes(&Format::UnifiedText), [&[0, 0, 0, 1, b'7'], &null[..], &[0, 0, 0, 1, b't']].concat());
        let seven = [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 7];
        assert_eq!(bytes(&Format::UnifiedBinary), [&seven[..], &null, &[0, 0, 0, 1, 1]].concat());
    }
}
