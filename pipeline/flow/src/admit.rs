//! Admission: rows as they arrived become rows of a registry table, or are turned away with a reason.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, MapArray, RecordBatch, StructArray, UInt32Array, new_null_array,
};
use arrow::compute::{cast, filter_record_batch, not, take};
use arrow::datatypes::{DataType, SchemaRef, TimestampMicrosecondType};
use arrow::error::ArrowError;
use tidewatch_model::Timestamp;
use tidewatch_model::limits::{FUTURE_SKEW, LATE_ROWS};
use tidewatch_model::table::{TIME_COLUMN, Table};

use crate::clean::{Cleaned, Cleaner, Refused, Rules};

/// The row's ts is too far ahead of the clock.
pub const FUTURE: &str = "future";
/// The row's ts is too far behind the clock.
pub const LATE: &str = "late";

/// Why a whole frame was turned away: a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdmitError {
    /// A column has another type than the table's.
    #[error("table {table}, column '{column}': expected {expected}, found {found}")]
    ColumnType {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// The registry's type.
        expected: String,
        /// The frame's.
        found: String,
    },
    /// The rows can't be brought to the table's form.
    #[error("table {table}: {message}")]
    Rows {
        /// The table.
        table: String,
        /// What Arrow says.
        message: String,
    },
}

/// What was turned away or changed, by reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AdmitCounts {
    /// Values that were changed.
    pub cleaned: Cleaned,
    /// Rows that were not taken.
    pub refused: BTreeMap<&'static str, u64>,
    /// Columns that the table does not have.
    pub unknown_columns: Vec<String>,
}

/// The result of admission.
#[derive(Debug, Clone, PartialEq)]
pub struct Admitted {
    /// The good rows, in the table's schema.
    pub rows: RecordBatch,
    /// Rows with an impossible time, as they would have been, if there are any.
    pub rejected: Option<RecordBatch>,
    /// Rows that cleaning did not take, as they would have been.
    pub refused: Vec<Refused>,
    /// What was counted.
    pub counts: AdmitCounts,
}

/// Admission to one table, and what it remembers of each source.
#[derive(Debug)]
pub struct Admit {
    table: &'static Table,
    schema: SchemaRef,
    last: HashMap<String, (String, u64)>,
    cleaner: Cleaner,
}

impl Admit {
    /// To this table, with the rules of cleaning that hold where nothing is configured.
    pub fn new(table: &'static Table) -> Self {
        Admit::with(table, Rules::of(table))
    }

    /// To this table, with these rules of cleaning.
    pub fn with(table: &'static Table, rules: Rules) -> Self {
        Admit { table, schema: table.schema(), last: HashMap::new(), cleaner: Cleaner::new(table, rules) }
    }

    /// The same, and nothing remembered.
    pub fn anew(&self) -> Admit {
        Admit { table: self.table, schema: self.schema.clone(), last: HashMap::new(), cleaner: self.cleaner.anew() }
    }

    /// Whether what becomes of a row depends on rows before it.
    pub fn remembers(&self) -> bool {
        self.cleaner.remembers()
    }

    /// Remembers the rows of the last call of [`Admit::admit`], once all that is to be done with them is done; without it the next call
    /// is as if that one had not been.
    pub fn keep(&mut self) {
        self.cleaner.keep();
    }

    /// Remembers the last frame of each source, as committed before a restart.
    pub fn restore(&mut self, last: impl IntoIterator<Item = (String, (String, u64))>) {
        self.last.extend(last);
    }

    /// Whether this frame was seen before: the same start of the source, and not a later number.
    pub fn is_duplicate(&self, source: &str, incarnation: &str, seq: u64) -> bool {
        self.last.get(source).is_some_and(|(known, last)| known == incarnation && seq <= *last)
    }

    /// Remembers a frame as the last one of its source, once all that is to be done with it is done.
    pub fn remember(&mut self, source: String, incarnation: String, seq: u64) {
        self.last.insert(source, (incarnation, seq));
    }

    /// Brings rows to the table's schema: columns by name, missing ones NULL, dictionaries as plain text, map keys
    /// sorted. With `now`, rows that are too far ahead or behind are taken out. The others are cleaned: NaN is NULL where it is a fault,
    /// and what the rules say.
    ///
    /// # Errors
    /// A column of another type.
    pub fn admit(&mut self, batch: &RecordBatch, now: Option<Timestamp>) -> Result<Admitted, AdmitError> {
        let mut counts = AdmitCounts::default();
        let schema = self.schema.clone();
        let unknown = batch
            .schema()
            .fields()
            .iter()
            .filter(|field| schema.index_of(field.name()).is_err())
            .map(|field| field.name().clone())
            .collect();
        counts.unknown_columns = unknown;
        let mut columns = Vec::with_capacity(schema.fields().len());
        for field in schema.fields() {
            let column = match batch.column_by_name(field.name()) {
                None => new_null_array(field.data_type(), batch.num_rows()),
                Some(found) => self.column(field.name(), field.data_type(), found)?,
            };
            columns.push(column);
        }
        let rows = RecordBatch::try_new(schema, columns).map_err(|error| self.wrong(&error))?;
        let (rows, rejected) = self.by_time(rows, now, &mut counts)?;
        let wrong =
            |error: ArrowError| AdmitError::Rows { table: self.table.name.to_string(), message: error.to_string() };
        let (rows, refused) = self.cleaner.clean(rows, &mut counts.cleaned).map_err(wrong)?;
        for part in &refused {
            *counts.refused.entry(part.reason).or_default() += part.rows.num_rows() as u64;
        }
        Ok(Admitted { rows, rejected, refused, counts })
    }

    fn column(&self, name: &str, wanted: &DataType, found: &ArrayRef) -> Result<ArrayRef, AdmitError> {
        match found.data_type() {
            DataType::Dictionary(_, value) if value.as_ref() == wanted => {
                cast(found, wanted).map_err(|error| self.wrong(&error))
            }
            DataType::Map(_, _) if matches!(wanted, DataType::Map(_, _)) => {
                sort_keys(found.as_map(), wanted).map_err(|error| self.wrong(&error))
            }
            kind if kind == wanted => Ok(found.clone()),
            kind => Err(AdmitError::ColumnType {
                table: self.table.name.to_string(),
                column: name.to_string(),
                expected: wanted.to_string(),
                found: kind.to_string(),
            }),
        }
    }

    fn by_time(
        &self,
        rows: RecordBatch,
        now: Option<Timestamp>,
        counts: &mut AdmitCounts,
    ) -> Result<(RecordBatch, Option<RecordBatch>), AdmitError> {
        let Some(now) = now else { return Ok((rows, None)) };
        let (oldest, newest) = (now.saturating_sub(LATE_ROWS).0, now.saturating_add(FUTURE_SKEW).0);
        let times = rows.column(0).as_primitive::<TimestampMicrosecondType>();
        let late = times.values().iter().filter(|ts| **ts < oldest).count() as u64;
        let future = times.values().iter().filter(|ts| **ts > newest).count() as u64;
        if late + future == 0 {
            return Ok((rows, None));
        }
        counts.refused.extend([(LATE, late), (FUTURE, future)].into_iter().filter(|(_, rows)| *rows > 0));
        let good: BooleanArray = times.values().iter().map(|ts| Some(*ts >= oldest && *ts <= newest)).collect();
        let kept = filter_record_batch(&rows, &good).map_err(|error| self.wrong(&error))?;
        let bad = not(&good).map_err(|error| self.wrong(&error))?;
        let rejected = filter_record_batch(&rows, &bad).map_err(|error| self.wrong(&error))?;
        Ok((kept, Some(rejected)))
    }

    fn wrong(&self, error: &ArrowError) -> AdmitError {
        AdmitError::Rows { table: self.table.name.to_string(), message: error.to_string() }
    }
}

/// The same map with each row's keys in order, in the registry's type.
fn sort_keys(map: &MapArray, wanted: &DataType) -> Result<ArrayRef, ArrowError> {
    let DataType::Map(field, sorted) = wanted else { return Err(ArrowError::SchemaError("not a map".to_string())) };
    let DataType::Struct(fields) = field.data_type() else {
        return Err(ArrowError::SchemaError("not a map of pairs".to_string()));
    };
    let keys = cast(map.keys(), &DataType::Utf8)?;
    let names = keys.as_string::<i32>();
    let mut order: Vec<u32> = (0..names.len() as u32).collect();
    for pair in map.value_offsets().windows(2) {
        order[pair[0] as usize..pair[1] as usize].sort_by_key(|index| names.value(*index as usize));
    }
    let order = UInt32Array::from(order);
    let values = cast(map.values(), &DataType::Utf8)?;
    let entries =
        StructArray::try_new(fields.clone(), vec![take(&keys, &order, None)?, take(&values, &order, None)?], None)?;
    let result = MapArray::try_new(field.clone(), map.offsets().clone(), entries, map.nulls().cloned(), *sorted)?;
    Ok(Arc::new(result))
}

/// The largest ts of admitted rows.
pub fn newest(rows: &RecordBatch) -> Option<Timestamp> {
    let times = rows.column_by_name(TIME_COLUMN)?.as_primitive_opt::<TimestampMicrosecondType>()?;
    times.values().iter().max().map(|ts| Timestamp(*ts))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use arrow::array::{DictionaryArray, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray};
    use arrow::datatypes::{Float64Type, Int32Type};
    use tidewatch_model::Span;
    use tidewatch_model::table;
    use tidewatch_model::wire::json::{TimeUnitChoice, decode_lines};

    use super::*;

    fn batch(ts: &[i64]) -> RecordBatch {
        let times = TimestampMicrosecondArray::from(ts.to_vec()).with_timezone("UTC");
        let host: DictionaryArray<Int32Type> = ts.iter().map(|_| Some("n1")).collect();
        let load = Float64Array::from_iter_values(ts.iter().map(|ts| if ts % 2 == 0 { f64::NAN } else { 1.0 }));
        let odd = Int64Array::from(vec![1; ts.len()]);
        RecordBatch::try_from_iter([
            ("host", Arc::new(host) as ArrayRef),
            ("load1", Arc::new(load)),
            ("ts", Arc::new(times)),
            ("odd", Arc::new(odd)),
        ])
        .unwrap()
    }

    #[test]
    fn rows_take_the_tables_form() {
        let mut admit = Admit::new(table::find("host").unwrap());
        let admitted = admit.admit(&batch(&[1, 2]), None).unwrap();
        assert_eq!(admitted.rows.schema(), table::find("host").unwrap().schema());
        assert_eq!(admitted.rows.column_by_name("host").unwrap().as_string::<i32>().value(0), "n1");
        assert_eq!(admitted.rows.column_by_name("load1").unwrap().null_count(), 1);
        assert_eq!(admitted.counts.cleaned, BTreeMap::from([(("load1", "nan"), 1)]));
        assert_eq!(admitted.counts.unknown_columns, ["odd".to_string()]);
    }

    #[test]
    fn nan_stays_where_it_is_data() {
        let steps = table::find("train_step").unwrap();
        let (rows, _) =
            decode_lines(steps, b"{\"ts\":1,\"job\":\"a\",\"rank\":0,\"loss\":\"NaN\"}", TimeUnitChoice::Micros);
        let admitted = Admit::new(steps).admit(&rows, None).unwrap();
        assert!(admitted.rows.column_by_name("loss").unwrap().as_primitive::<Float64Type>().value(0).is_nan());
        assert!(admitted.counts.cleaned.is_empty());
    }

    #[test]
    fn impossible_times_are_set_apart() {
        let now = Timestamp(0) + Span::days(100);
        let times = [now.0, (now + Span::minutes(6)).0, (now - Span::hours(25)).0, (now - Span::hours(23)).0];
        let admitted = Admit::new(table::find("host").unwrap()).admit(&batch(&times), Some(now)).unwrap();
        assert_eq!((admitted.rows.num_rows(), admitted.rejected.map(|rows| rows.num_rows())), (2, Some(2)));
        assert_eq!(admitted.counts.refused, BTreeMap::from([(FUTURE, 1), (LATE, 1)]));
    }

    #[test]
    fn another_type_is_an_error_that_names_it() {
        let ts = TimestampMicrosecondArray::from(vec![1]).with_timezone("UTC");
        let rows = RecordBatch::try_from_iter([
            ("ts", Arc::new(ts) as ArrayRef),
            ("load1", Arc::new(StringArray::from(vec!["x"]))),
        ])
        .unwrap();
        let error = Admit::new(table::find("host").unwrap()).admit(&rows, None).unwrap_err();
        assert_eq!(error.to_string(), "table host, column 'load1': expected Float64, found Utf8");
    }

    #[test]
    fn frames_are_taken_once() {
        let mut admit = Admit::new(table::find("host").unwrap());
        let seen: Vec<bool> = [("a", 0), ("a", 1), ("a", 1), ("a", 0), ("b", 0), ("b", 1)]
            .iter()
            .map(|(incarnation, seq)| {
                let seen = admit.is_duplicate("n1", incarnation, *seq);
                admit.remember("n1".to_string(), incarnation.to_string(), *seq);
                seen
            })
            .collect();
        assert_eq!(seen, [false, false, true, true, false, false]);
        assert!(!admit.is_duplicate("n2", "b", 0));
    }
}
