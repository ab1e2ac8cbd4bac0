//! Cleaning: what an impossible value, a copy of a row, or a value in another unit becomes. Each change has a reason and is counted.
//!
//! A decision about a row depends on the rows of its series before it in the same partition, and on nothing else: the same rows give
//! the same result. What is remembered of them is bounded, and begins anew with each start: then the first row of a series is
//! believed. Forgetting never changes a row, it only lets one pass.

mod memory;
mod rule;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimestampMicrosecondType};
use arrow::error::ArrowError;
use std::sync::Arc;
use tidewatch_model::table::{ColumnType, Table};

use memory::{Memory, hashes};
pub use rule::{Action, ColumnRule, Range, Rules, Unit};

/// A NaN in a column where it is a fault became NULL.
pub const NAN: &str = "nan";
/// An infinity in a column where NaN is a fault became NULL.
pub const INFINITE: &str = "infinite";
/// It was brought to the registry's unit.
pub const UNIT: &str = "unit";
/// It lay outside of what is possible.
pub const RANGE: &str = "range";
/// It changed faster than is possible.
pub const JUMP: &str = "jump";
/// The row is a copy of one of the last of its series.
pub const DUPLICATE: &str = "duplicate";

/// How many values were changed, by column and reason.
pub type Cleaned = BTreeMap<(&'static str, &'static str), u64>;

/// Units of columns whose meaning the registry does not know.
const OF_OTHERS: [&str; 2] = ["the metric's", "the rule's"];

/// Rows that are not taken, as they came, and the column and reason why.
#[derive(Debug, Clone, PartialEq)]
pub struct Refused {
    /// The rows.
    pub rows: RecordBatch,
    /// The column; empty where it is the row.
    pub column: &'static str,
    /// Why.
    pub reason: &'static str,
}

/// The rules of one table at work.
#[derive(Debug)]
pub struct Cleaner {
    table: &'static Table,
    rules: Rules,
    /// Which of the columns have a limit of their change, by their place among the rules.
    jumps: Vec<usize>,
    memory: Memory,
}

/// What becomes of one value.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Verdict {
    Keep,
    Null,
    Set(f64),
    Drop,
}

/// Why rows are refused: by row, the column and the reason.
type Marks = Vec<Option<(&'static str, &'static str)>>;

/// What was changed: column, reason and rows. Those of rows that are refused in the end are not counted.
type Changes = Vec<(&'static str, &'static str, Vec<usize>)>;

impl Cleaner {
    /// With these rules for a table.
    pub fn new(table: &'static Table, rules: Rules) -> Cleaner {
        let has_limit = |place: &usize| rules.columns[*place].jump.is_some();
        let jumps: Vec<usize> = (0..rules.columns.len()).filter(has_limit).collect();
        Cleaner { table, rules, jumps, memory: Memory::default() }
    }

    /// With the same rules, and nothing remembered.
    pub fn anew(&self) -> Cleaner {
        Cleaner::new(self.table, self.rules.clone())
    }

    /// Whether what becomes of a row depends on rows before it.
    pub fn remembers(&self) -> bool {
        self.rules.duplicates || !self.jumps.is_empty()
    }

    /// Cleans rows of the table's schema. What is remembered of them counts once [`Cleaner::keep`] is called; a call without it before
    /// is as if it had not been.
    ///
    /// # Errors
    /// Arrow's, over rows of another schema.
    pub fn clean(
        &mut self,
        rows: RecordBatch,
        cleaned: &mut Cleaned,
    ) -> Result<(RecordBatch, Vec<Refused>), ArrowError> {
        self.memory.forget_staged();
        if rows.num_rows() == 0 {
            return Ok((rows, vec![]));
        }
        let mut columns = rows.columns().to_vec();
        let mut marks: Marks = vec![None; rows.num_rows()];
        let series = if self.remembers() { self.series_of(&rows) } else { vec![] };
        if self.rules.duplicates {
            self.mark_copies(&rows, &series, &mut marks);
        }
        let mut changes = only_numbers(self.table, &rows, &mut columns);
        for rule in &self.rules.columns {
            let place = rows.schema().index_of(rule.column)?;
            apply(rule, &mut columns[place], &mut marks, &mut changes);
        }
        self.apply_jumps(&rows, &series, &mut columns, &mut marks, &mut changes)?;
        for (column, reason, changed) in changes {
            let taken = changed.iter().filter(|row| marks[**row].is_none()).count() as u64;
            if taken > 0 {
                *cleaned.entry((column, reason)).or_default() += taken;
            }
        }
        if marks.iter().all(Option::is_none) {
            return Ok((RecordBatch::try_new(rows.schema(), columns)?, vec![]));
        }
        let kept: BooleanArray = marks.iter().map(|mark| Some(mark.is_none())).collect();
        let good = filter_record_batch(&RecordBatch::try_new(rows.schema(), columns)?, &kept)?;
        Ok((good, refused(&rows, &marks)?))
    }

    /// Remembers the rows of the last call.
    pub fn keep(&mut self) {
        self.memory.keep();
    }

    /// Which series each row is of.
    fn series_of(&self, rows: &RecordBatch) -> Vec<u128> {
        let identity = self.table.identity().filter_map(|name| rows.column_by_name(name));
        hashes(identity, rows.num_rows())
    }

    fn mark_copies(&mut self, rows: &RecordBatch, series: &[u128], marks: &mut Marks) {
        let wholes = hashes(rows.columns().iter(), rows.num_rows());
        for ((series, whole), mark) in series.iter().zip(wholes).zip(marks) {
            if !self.memory.series(*series, self.jumps.len()).see(whole) {
                *mark = Some(("", DUPLICATE));
            }
        }
    }

    /// Row by row: a value that is not believed is none that the next is compared with.
    fn apply_jumps(
        &mut self,
        rows: &RecordBatch,
        series: &[u128],
        columns: &mut [ArrayRef],
        marks: &mut Marks,
        changes: &mut Changes,
    ) -> Result<(), ArrowError> {
        if self.jumps.is_empty() {
            return Ok(());
        }
        let rules: Vec<&ColumnRule> = self.jumps.iter().map(|place| &self.rules.columns[*place]).collect();
        let schema = rows.schema();
        let places = rules.iter().map(|rule| schema.index_of(rule.column)).collect::<Result<Vec<_>, _>>()?;
        let values: Vec<Vec<Option<f64>>> = places.iter().map(|place| numbers(&columns[*place])).collect();
        let times = rows.column(0).as_primitive::<TimestampMicrosecondType>().values();
        let mut verdicts: Vec<Vec<Verdict>> = vec![vec![Verdict::Keep; rows.num_rows()]; rules.len()];
        for row in 0..rows.num_rows() {
            if marks[row].is_some() {
                continue;
            }
            let known = self.memory.series(series[row], rules.len());
            let mut believed: Vec<Option<(i64, f64)>> = Vec::with_capacity(rules.len());
            for (index, rule) in rules.iter().enumerate() {
                let verdict = values[index][row]
                    .map_or(Verdict::Keep, |value| rule.judge_jump(known.last(index), (times[row], value)));
                verdicts[index][row] = verdict;
                believed.push(match verdict {
                    Verdict::Keep => values[index][row].map(|value| (times[row], value)),
                    Verdict::Set(value) => Some((times[row], value)),
                    Verdict::Null | Verdict::Drop => None,
                });
                if verdict == Verdict::Drop && marks[row].is_none() {
                    marks[row] = Some((rule.column, JUMP));
                }
            }
            if marks[row].is_none() {
                known.believe(&believed);
            }
        }
        for ((place, rule), verdicts) in places.iter().zip(&rules).zip(&verdicts) {
            changes.push((rule.column, JUMP, change(&mut columns[*place], verdicts)));
        }
        Ok(())
    }
}

/// NaN and infinities become NULL where NaN is a fault.
fn only_numbers(table: &Table, rows: &RecordBatch, columns: &mut [ArrayRef]) -> Changes {
    let schema = rows.schema();
    let mut changes = Changes::new();
    for column in table.columns.iter().filter(|column| column.column_type == ColumnType::Float64) {
        let Ok(place) = schema.index_of(column.name) else { continue };
        let values = columns[place].as_primitive::<Float64Type>();
        // The last bucket of a histogram is that up to infinity, and what others measure may be infinite.
        let may_be_infinite = column.identity || OF_OTHERS.contains(&column.unit);
        let is_number = |value: f64| value.is_finite() || (may_be_infinite && !value.is_nan());
        if values.values().iter().all(|value| is_number(*value)) {
            continue;
        }
        for (reason, is_wrong) in [(NAN, f64::is_nan as fn(f64) -> bool), (INFINITE, f64::is_infinite)] {
            let is_changed = |value: f64| is_wrong(value) && !is_number(value);
            let found = (0..values.len()).filter(|row| values.is_valid(*row) && is_changed(values.value(*row)));
            changes.push((column.name, reason, found.collect()));
        }
        let numbers = values.iter().map(|value| value.filter(|value| is_number(*value)));
        columns[place] = Arc::new(numbers.collect::<Float64Array>());
    }
    changes
}

/// The unit and the range of one column.
fn apply(rule: &ColumnRule, column: &mut ArrayRef, marks: &mut Marks, changes: &mut Changes) {
    if let Some(unit) = rule.unit {
        changes.push((rule.column, UNIT, (0..column.len()).filter(|row| column.is_valid(*row)).collect()));
        *column = unit.convert(column);
    }
    let Some(range) = rule.range else { return };
    let all_inside = match column.data_type() {
        DataType::Float64 => column.as_primitive::<Float64Type>().values().iter().all(|value| range.holds(*value)),
        _ => column.as_primitive::<Int64Type>().values().iter().all(|value| range.holds(*value as f64)),
    };
    if all_inside {
        return;
    }
    let judge = |value: Option<f64>| value.map_or(Verdict::Keep, |value| rule.judge(range, value));
    let verdicts: Vec<Verdict> = numbers(column).into_iter().map(judge).collect();
    for (verdict, mark) in verdicts.iter().zip(marks.iter_mut()) {
        if *verdict == Verdict::Drop && mark.is_none() {
            *mark = Some((rule.column, RANGE));
        }
    }
    changes.push((rule.column, RANGE, change(column, &verdicts)));
}

/// Changes a column as was decided; which rows.
fn change(column: &mut ArrayRef, verdicts: &[Verdict]) -> Vec<usize> {
    let is_change = |row: &usize| matches!(verdicts[*row], Verdict::Null | Verdict::Set(_));
    let changed: Vec<usize> = (0..verdicts.len()).filter(is_change).collect();
    if changed.is_empty() {
        return changed;
    }
    *column = match column.data_type() {
        DataType::Float64 => {
            let values = column.as_primitive::<Float64Type>().iter().zip(verdicts);
            let changed = values.map(|(value, verdict)| match verdict {
                Verdict::Null => None,
                Verdict::Set(set) => Some(*set),
                Verdict::Keep | Verdict::Drop => value,
            });
            Arc::new(changed.collect::<Float64Array>())
        }
        _ => {
            let values = column.as_primitive::<Int64Type>().iter().zip(verdicts);
            let changed = values.map(|(value, verdict)| match verdict {
                Verdict::Null => None,
                Verdict::Set(set) => Some(*set as i64),
                Verdict::Keep | Verdict::Drop => value,
            });
            Arc::new(changed.collect::<Int64Array>())
        }
    };
    changed
}

fn numbers(column: &ArrayRef) -> Vec<Option<f64>> {
    match column.data_type() {
        DataType::Float64 => column.as_primitive::<Float64Type>().iter().collect(),
        _ => column.as_primitive::<Int64Type>().iter().map(|value| value.map(|value| value as f64)).collect(),
    }
}

/// The rows that are refused, by column and reason.
fn refused(rows: &RecordBatch, marks: &Marks) -> Result<Vec<Refused>, ArrowError> {
    let mut why: Vec<(&'static str, &'static str)> = marks.iter().flatten().copied().collect();
    why.sort_unstable();
    why.dedup();
    let of = |(column, reason): (&'static str, &'static str)| {
        let mask: BooleanArray = marks.iter().map(|mark| Some(*mark == Some((column, reason)))).collect();
        Ok(Refused { rows: filter_record_batch(rows, &mask)?, column, reason })
    };
    why.into_iter().map(of).collect()
}
