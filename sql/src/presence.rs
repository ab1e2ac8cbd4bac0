//! `LAST_SEEN(table, ts)`: one row per series that was ever seen, with when it was seen last and for how long it has been silent.
//!
//! What was seen last is asked at an instant of event time, while rows of later times may have come already: newest times
//! are kept in panes until the instant has passed, so a replay in other batches gives the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, IntervalMonthDayNanoArray, RecordBatch, TimestampMicrosecondArray,
};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, FieldRef, IntervalMonthDayNano, IntervalUnit, Schema, SchemaRef, TimeUnit};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, Result, ScalarValue, plan_err};
use datafusion::logical_expr::{Expr, LogicalPlan};
use tidewatch_model::limits::{GONE_AFTER, PRESENCE_SLIDE, RULE_GROUPS};
use tidewatch_model::table::Table;
use tidewatch_model::{Span, Timestamp, WindowSpec};

use crate::panes::times;
use crate::rows_table::windowed_schema;
use crate::shared::{Grouping, NO_GROUP};
use crate::stall::Stall;

/// Rules about silence are judged like windows of this slide and size.
pub const PRESENCE: WindowSpec = WindowSpec { slide: PRESENCE_SLIDE, size: PRESENCE_SLIDE };

/// The columns of `LAST_SEEN(table, ts)`: the table's identity, `last_ts`, `silence`, `silence_seconds`, and the window's bounds.
pub fn schema_of(table: &Table) -> SchemaRef {
    windowed_schema(&Schema::new(fields_of(table)))
}

/// The same columns without the window's.
pub fn fields_of(table: &Table) -> Vec<FieldRef> {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let schema = table.schema();
    let identity = table.identity().filter_map(|name| schema.field_with_name(name).ok().cloned());
    let own = [
        Field::new("last_ts", time, false),
        Field::new("silence", DataType::Interval(IntervalUnit::MonthDayNano), false),
        Field::new("silence_seconds", DataType::Float64, false),
    ];
    identity.chain(own).map(Arc::new).collect()
}

/// Intervals are compared unit by unit, so that a day and 24 hours differ: all are brought to one unit.
pub fn with_plain_intervals(plan: &LogicalPlan) -> Result<LogicalPlan> {
    let plain = plan.clone().transform_up(|node| {
        node.map_expressions(|expression| {
            expression.transform_up(|part| match part {
                Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), metadata) => {
                    if interval.months != 0 {
                        return plan_err!("a month is no fixed time: expected an interval in days or less");
                    }
                    let day = 86_400_000_000_000;
                    let nanoseconds = i64::from(interval.days) * day + interval.nanoseconds;
                    let plain = IntervalMonthDayNano::new(0, 0, nanoseconds);
                    Ok(Transformed::yes(Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(plain)), metadata)))
                }
                other => Ok(Transformed::no(other)),
            })
        })
    })?;
    Ok(plain.data)
}

/// The longest interval that a plan names: how long something may be silent before it matters.
pub fn longest_interval(plan: &LogicalPlan) -> Span {
    let mut longest = Span::ZERO;
    // Neither closure fails.
    let _ = plan.apply(|node| {
        for expression in node.expressions() {
            let _ = expression.apply(|part| {
                if let Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _) = part {
                    longest = longest.max(Span(interval.nanoseconds / 1_000));
                }
                if let Expr::BinaryExpr(binary) = part {
                    for (column, number) in [(&binary.left, &binary.right), (&binary.right, &binary.left)] {
                        longest = longest.max(seconds_asked(column, number));
                    }
                }
                Ok(TreeNodeRecursion::Continue)
            });
        }
        Ok(TreeNodeRecursion::Continue)
    });
    longest
}

/// What a comparison such as `silence_seconds > 120` names.
fn seconds_asked(column: &Expr, number: &Expr) -> Span {
    let is_of_time = |column: &Column| column.name == "silence_seconds" || column.name == "stalled_seconds";
    match (column, number) {
        (Expr::Column(column), Expr::Literal(value, _)) if is_of_time(column) => {
            match value.cast_to(&DataType::Float64) {
                Ok(ScalarValue::Float64(Some(seconds))) => Span((seconds * 1e6) as i64),
                _ => Span::ZERO,
            }
        }
        _ => Span::ZERO,
    }
}

/// The series of one table.
#[derive(Debug)]
pub struct Presence {
    grouping: Grouping,
    keys: Vec<usize>,
    schema: SchemaRef,
    /// By series: the newest row before all panes.
    last: Vec<i64>,
    /// By start of a pane, then by series: the newest row.
    panes: BTreeMap<Timestamp, Vec<i64>>,
    /// Columns of which it is known since when they have their values.
    stalls: Vec<Stall>,
}

impl Presence {
    /// No series yet; `stalled` are the columns that `STALLED` looks at.
    pub fn new(table: &Table, stalled: &BTreeSet<String>) -> Result<Presence> {
        let schema = table.schema();
        let keys = table.identity().map(|name| schema.index_of(name)).collect::<std::result::Result<Vec<_>, _>>()?;
        let types: Vec<DataType> = keys.iter().map(|key| schema.field(*key).data_type().clone()).collect();
        let grouping = Grouping::new(&types, RULE_GROUPS)?;
        let stalls = stalled.iter().map(|column| Stall::new(table, column)).collect::<Result<Vec<_>>>()?;
        Ok(Presence { grouping, keys, schema: schema_of(table), last: vec![], panes: BTreeMap::new(), stalls })
    }

    /// Takes rows of the table.
    pub fn push(&mut self, batch: &RecordBatch) -> Result<()> {
        let keys: Vec<ArrayRef> = self.keys.iter().map(|key| batch.column(*key).clone()).collect();
        let times = times(batch).map(|times| times.values().to_vec()).unwrap_or_default();
        self.take(&keys, &times, batch)
    }

    /// The columns that `STALLED` looks at.
    pub fn stalled(&self) -> impl Iterator<Item = &str> {
        self.stalls.iter().map(|stall| stall.column.as_str())
    }

    /// Takes series that were seen before the start: the identity columns by name, and `ts`; a column that `STALLED` looks at, with
    /// the rows where it changed.
    pub fn remember(&mut self, table: &Table, seen: &RecordBatch) -> Result<()> {
        let keys = table.identity().map(|name| Ok(seen.column(seen.schema().index_of(name)?).clone()));
        let keys = keys.collect::<Result<Vec<_>>>()?;
        let times = times(seen).map(|times| times.values().to_vec()).unwrap_or_default();
        self.take(&keys, &times, seen)
    }

    fn take(&mut self, keys: &[ArrayRef], times: &[i64], rows: &RecordBatch) -> Result<()> {
        let series = self.grouping.number(keys, times)?;
        for stall in &mut self.stalls {
            if let Some(values) = rows.column_by_name(&stall.column) {
                stall.push(&series, times, values)?;
            }
        }
        let count = self.grouping.len();
        for (series, ts) in series.into_iter().zip(times).filter(|(series, _)| *series != NO_GROUP) {
            let pane = self.panes.entry(Timestamp(*ts).floor(PRESENCE_SLIDE)).or_default();
            if pane.len() < count {
                pane.resize(count, i64::MIN);
            }
            let newest = &mut pane[series as usize];
            *newest = (*newest).max(*ts);
        }
        Ok(())
    }

    /// Rows before this will not be asked about one by one any more.
    pub fn settle_before(&mut self, floor: Timestamp) {
        while let Some(entry) = self.panes.first_entry() {
            if *entry.key() + PRESENCE_SLIDE > floor {
                break;
            }
            newest_of(&mut self.last, &entry.remove());
        }
        self.stalls.iter_mut().for_each(|stall| stall.settle_before(floor));
    }

    /// All series as they stand at an instant, a multiple of [`PRESENCE`]'s slide.
    pub fn rows(&mut self, at: Timestamp) -> Result<RecordBatch> {
        let schema = self.schema.clone();
        self.rows_with(at, &schema, |_| Ok(vec![]))
    }

    /// The same with what `STALLED` says of a column of the table.
    pub fn stalled_rows(&mut self, at: Timestamp, table: &Table, column: &str) -> Result<RecordBatch> {
        let stall = self.stalls.iter().position(|stall| stall.column == column);
        let (Some(stall), Some(schema)) = (stall, crate::stall::schema_of(table, column)) else {
            return plan_err!("STALLED of '{column}' is not kept");
        };
        self.rows_with(at, &schema, |presence| presence.stalls[stall].columns(at, presence.grouping.len()))
    }

    fn rows_with(
        &mut self,
        at: Timestamp,
        schema: &SchemaRef,
        more: impl Fn(&Presence) -> Result<Vec<ArrayRef>>,
    ) -> Result<RecordBatch> {
        let mut last = self.last.clone();
        for (_, pane) in self.panes.range(..at) {
            newest_of(&mut last, pane);
        }
        let count = self.grouping.len();
        last.resize(count, i64::MIN);
        let silence: Vec<i64> = last.iter().map(|last| at.0.saturating_sub(*last)).collect();
        let mut columns = self.grouping.columns()?.to_vec();
        columns.push(Arc::new(TimestampMicrosecondArray::from(last).with_timezone("UTC")));
        let intervals = silence.iter().map(|silence| IntervalMonthDayNano::new(0, 0, silence.saturating_mul(1_000)));
        columns.push(Arc::new(IntervalMonthDayNanoArray::from_iter_values(intervals)));
        columns.push(Arc::new(Float64Array::from_iter_values(silence.iter().map(|silence| *silence as f64 / 1e6))));
        columns.extend(more(self)?);
        for bound in [at - PRESENCE_SLIDE, at] {
            columns.push(Arc::new(TimestampMicrosecondArray::from_value(bound.0, count).with_timezone("UTC")));
        }
        let known: BooleanArray = silence.iter().map(|silence| Some(*silence < GONE_AFTER.0)).collect();
        Ok(filter_record_batch(&RecordBatch::try_new(schema.clone(), columns)?, &known)?)
    }

    /// Takes no new series any more, or takes them again.
    pub fn close(&mut self, closed: bool) {
        self.grouping.close(closed);
    }

    /// Bytes held, about.
    pub fn bytes(&self) -> usize {
        let panes: usize = self.panes.values().map(Vec::len).sum();
        let stalls: usize = self.stalls.iter().map(Stall::bytes).sum();
        self.grouping.bytes() + (self.last.len() + panes) * size_of::<i64>() + stalls
    }

    /// Rows of series that are not watched because there are too many.
    pub fn overflow_rows(&self) -> u64 {
        self.grouping.overflow_rows
    }
}

fn newest_of(into: &mut Vec<i64>, pane: &[i64]) {
    if into.len() < pane.len() {
        into.resize(pane.len(), i64::MIN);
    }
    into.iter_mut().zip(pane).for_each(|(into, newest)| *into = (*into).max(*newest));
}
