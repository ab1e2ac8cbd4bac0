//! `STALLED(table, ts, column)`: one row per series with the value that the column has now, and for how long it has had it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float64Array, IntervalMonthDayNanoArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, IntervalMonthDayNano, IntervalUnit, Schema, SchemaRef};
use arrow::row::{RowConverter, SortField};
use datafusion::common::Result;
use tidewatch_model::Timestamp;
use tidewatch_model::limits::PRESENCE_SLIDE;
use tidewatch_model::table::{ColumnType, Table};

use crate::presence;
use crate::rows_table::windowed_schema;
use crate::shared::NO_GROUP;

/// The columns of `STALLED(table, ts, column)`: those of `LAST_SEEN`, the column, `changed_ts`, `stalled`, `stalled_seconds`, and the
/// window's bounds. `None` when the table has no such column, or one of which it can't be said when it changed.
pub fn schema_of(table: &Table, column: &str) -> Option<SchemaRef> {
    let watched = table.column(column).filter(|found| !found.identity && found.column_type != ColumnType::Map)?;
    let base = presence::fields_of(table);
    let own = [
        Arc::new(Field::new(column, watched.column_type.arrow(), true)),
        Arc::new(Field::new("changed_ts", ColumnType::Timestamp.arrow(), true)),
        Arc::new(Field::new("stalled", DataType::Interval(IntervalUnit::MonthDayNano), true)),
        Arc::new(Field::new("stalled_seconds", DataType::Float64, true)),
    ];
    Some(windowed_schema(&Schema::new(base.into_iter().chain(own).collect::<Vec<_>>())))
}

/// The values of one column, by series.
#[derive(Debug)]
pub struct Stall {
    /// The column.
    pub column: String,
    converter: RowConverter,
    /// By series: what it has before all panes.
    known: Vec<Option<Holding>>,
    /// By start of a pane: the rows with a value.
    panes: BTreeMap<Timestamp, Vec<Seen>>,
}

/// A value, and since when a series has had it.
#[derive(Debug, Clone)]
struct Holding {
    value: Arc<[u8]>,
    since: i64,
    /// The newest row with it.
    newest: i64,
}

/// One row: series, time, value.
type Seen = (u32, i64, Arc<[u8]>);

impl Stall {
    /// No series yet.
    pub fn new(table: &Table, column: &str) -> Result<Stall> {
        let data_type = table.schema().field_with_name(column)?.data_type().clone();
        let converter = RowConverter::new(vec![SortField::new(data_type)])?;
        Ok(Stall { column: column.to_string(), converter, known: vec![], panes: BTreeMap::new() })
    }

    /// Takes the values of rows, with their series and times. NULL says nothing.
    pub fn push(&mut self, series: &[u32], times: &[i64], values: &ArrayRef) -> Result<()> {
        let rows = self.converter.convert_columns(std::slice::from_ref(values))?;
        // Sources repeat themselves: the bytes of the last row of a series mostly do for the next.
        let mut last: Option<Arc<[u8]>> = None;
        for (row, (series, ts)) in series.iter().zip(times).enumerate() {
            if *series == NO_GROUP || values.is_null(row) {
                continue;
            }
            let row = rows.row(row);
            let value = match last.take() {
                Some(value) if value.as_ref() == row.as_ref() => value,
                _ => Arc::from(row.as_ref()),
            };
            last = Some(value.clone());
            self.panes.entry(Timestamp(*ts).floor(PRESENCE_SLIDE)).or_default().push((*series, *ts, value));
        }
        Ok(())
    }

    /// Rows before this will not be asked about one by one any more.
    pub fn settle_before(&mut self, floor: Timestamp) {
        while let Some(entry) = self.panes.first_entry() {
            if *entry.key() + PRESENCE_SLIDE > floor {
                break;
            }
            fold(&mut self.known, entry.remove());
        }
    }

    /// By series, of which there are so many: the value, since when, and for how long at an instant.
    pub fn columns(&self, at: Timestamp, series: usize) -> Result<Vec<ArrayRef>> {
        let mut known = self.known.clone();
        for (_, pane) in self.panes.range(..at) {
            fold(&mut known, pane.clone());
        }
        known.resize(series, None);
        let parser = self.converter.parser();
        let null = self.converter.convert_columns(&[arrow::array::new_null_array(&self.data_type()?, 1)])?;
        let rows = known.iter().map(|holding| match holding {
            Some(holding) => parser.parse(&holding.value),
            None => null.row(0),
        });
        let mut columns = self.converter.convert_rows(rows)?;
        let since: Vec<Option<i64>> =
            known.iter().map(|holding| holding.as_ref().map(|holding| holding.since)).collect();
        let stalled = since.iter().map(|since| since.map(|since| at.0.saturating_sub(since)));
        let intervals =
            stalled.clone().map(|span| span.map(|span| IntervalMonthDayNano::new(0, 0, span.saturating_mul(1_000))));
        let intervals: IntervalMonthDayNanoArray = intervals.collect();
        let seconds: Float64Array = stalled.map(|span| span.map(|span| span as f64 / 1e6)).collect();
        columns.push(Arc::new(TimestampMicrosecondArray::from(since).with_timezone("UTC")));
        columns.push(Arc::new(intervals));
        columns.push(Arc::new(seconds));
        Ok(columns)
    }

    /// Bytes held, about.
    pub fn bytes(&self) -> usize {
        let rows: usize = self.panes.values().map(Vec::len).sum();
        self.known.capacity() * size_of::<Option<Holding>>() + rows * size_of::<Seen>()
    }

    fn data_type(&self) -> Result<DataType> {
        let none: [arrow::row::Row<'_>; 0] = [];
        Ok(self.converter.convert_rows(none)?[0].data_type().clone())
    }
}

/// Takes rows into account in order of time, those of one time in order of value. One that comes late, before what is known, says nothing.
fn fold(known: &mut Vec<Option<Holding>>, mut rows: Vec<Seen>) {
    rows.sort_unstable();
    for (series, ts, value) in rows {
        let series = series as usize;
        if known.len() <= series {
            known.resize(series + 1, None);
        }
        match &mut known[series] {
            Some(holding) if ts < holding.newest => {}
            Some(holding) if holding.value == value => holding.newest = ts,
            holding => *holding = Some(Holding { value, since: ts, newest: ts }),
        }
    }
}
