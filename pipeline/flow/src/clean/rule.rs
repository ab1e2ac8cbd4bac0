//! What is checked of a table's rows.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use tidewatch_model::table::{Column, ColumnType, TABLES, Table};

use super::Verdict;

/// What becomes of an impossible value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Action {
    /// It becomes NULL: the value is not known.
    #[default]
    Null,
    /// It becomes the nearest possible one.
    Clamp,
    /// Its row is refused, and goes to the dead letters.
    Drop,
}

/// What is possible; the bounds are. Infinite ones are none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    /// The least.
    pub least: f64,
    /// The most.
    pub most: f64,
}

/// A unit in which values come that is not the registry's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Hundredths of a ratio.
    Percent,
    /// Degrees Fahrenheit.
    Fahrenheit,
    /// Kelvin.
    Kelvin,
    /// Thousandths.
    Milli,
    /// Millionths.
    Micro,
    /// Billionths.
    Nano,
    /// Thousands.
    Kilo,
    /// Millions.
    Mega,
    /// Billions.
    Giga,
    /// Times 1024.
    Kibi,
    /// Times 1024 squared.
    Mebi,
    /// Times 1024 cubed.
    Gibi,
}

/// What is checked of one column, in this order: unit, range, jump.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnRule {
    /// The column, of numbers.
    pub column: &'static str,
    /// Whether they are whole numbers.
    pub whole: bool,
    /// The unit in which its values come.
    pub unit: Option<Unit>,
    /// What is possible, in the registry's unit.
    pub range: Option<Range>,
    /// How much it can change within a second, in the registry's unit.
    pub jump: Option<f64>,
    /// What becomes of a value that is impossible.
    pub action: Action,
}

/// What is checked of a table's rows.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rules {
    /// By column.
    pub columns: Vec<ColumnRule>,
    /// Whether a row that is the same in every column as one of the last of its series is refused.
    pub duplicates: bool,
}

/// What a thermometer on a chip can't say: silicon that works is within -60 to 150 degrees.
const CELSIUS: Range = Range { least: -60.0, most: 150.0 };
/// A share of something is at most all of it. Differences of counters that are read one after the other are a little off, and a fan may
/// turn faster than its full speed.
const RATIO: Range = Range { least: -0.1, most: 2.0 };
/// Counters count from zero.
const COUNTER: Range = Range { least: 0.0, most: f64::INFINITY };

impl Range {
    /// Whether a value is possible; of NaN nothing is said here.
    pub fn holds(&self, value: f64) -> bool {
        !(value < self.least || value > self.most)
    }

    /// The nearest possible value; a whole one where the column has no others.
    fn nearest(&self, value: f64, whole: bool) -> f64 {
        match whole {
            true => value.max(self.least.ceil()).min(self.most.floor()),
            false => value.max(self.least).min(self.most),
        }
    }

    /// Whether everything is possible.
    pub fn is_open(&self) -> bool {
        self.least == f64::NEG_INFINITY && self.most == f64::INFINITY
    }
}

impl Rules {
    /// Those that hold where nothing is configured: what the registry's units make impossible becomes NULL.
    pub fn of(table: &Table) -> Rules {
        // What the engine wrote itself, streams among it, is not judged.
        if table.is_own() || !TABLES.iter().any(|known| known.name == table.name) {
            return Rules::default();
        }
        let columns = table.columns.iter().filter_map(|column| Some(ColumnRule::new(column, Some(range_of(column)?))));
        Rules { columns: columns.collect(), duplicates: false }
    }

    /// The same with one column's rule replaced. What the rule does not say of the range stays as it was.
    pub fn set(&mut self, rule: ColumnRule) {
        match self.columns.iter_mut().find(|known| known.column == rule.column) {
            Some(known) => {
                let range = rule.range.or(known.range);
                *known = ColumnRule { range, ..rule };
            }
            None => self.columns.push(rule),
        }
    }
}

fn range_of(column: &Column) -> Option<Range> {
    match (column.unit, column.column_type) {
        _ if column.identity => None,
        ("degrees Celsius", ColumnType::Float64) => Some(CELSIUS),
        ("ratio 0..1", ColumnType::Float64) => Some(RATIO),
        (_, ColumnType::Float64 | ColumnType::Int64) if column.name.ends_with("_total") => Some(COUNTER),
        _ => None,
    }
}

impl ColumnRule {
    /// With this range and no more.
    pub fn new(column: &Column, range: Option<Range>) -> ColumnRule {
        let whole = column.column_type == ColumnType::Int64;
        ColumnRule { column: column.name, whole, unit: None, range, jump: None, action: Action::Null }
    }

    /// A value where these are possible.
    pub(super) fn judge(&self, possible: Range, value: f64) -> Verdict {
        match (possible.holds(value), self.action) {
            (true, _) => Verdict::Keep,
            (false, Action::Null) => Verdict::Null,
            (false, Action::Clamp) => match possible.nearest(value, self.whole) {
                nearest if possible.holds(nearest) => Verdict::Set(nearest),
                // Between its bounds there is no whole number.
                _ => Verdict::Null,
            },
            (false, Action::Drop) => Verdict::Drop,
        }
    }

    /// A value after the last that was believed, each with its time in microseconds. Of one that is not later nothing is said. The longer
    /// ago the last one is, the more is possible: a level that stays is believed sooner or later.
    pub(super) fn judge_jump(&self, last: Option<(i64, f64)>, (ts, value): (i64, f64)) -> Verdict {
        let (Some(limit), Some((before, known))) = (self.jump, last) else { return Verdict::Keep };
        if ts <= before || value.is_nan() {
            return Verdict::Keep;
        }
        let most = limit * ((ts - before) as f64 / 1e6);
        self.judge(Range { least: known - most, most: known + most }, value)
    }
}

impl Unit {
    /// All of them, by the names that they have in the configuration.
    pub const ALL: [(&'static str, Unit); 12] = [
        ("percent", Unit::Percent),
        ("fahrenheit", Unit::Fahrenheit),
        ("kelvin", Unit::Kelvin),
        ("milli", Unit::Milli),
        ("micro", Unit::Micro),
        ("nano", Unit::Nano),
        ("kilo", Unit::Kilo),
        ("mega", Unit::Mega),
        ("giga", Unit::Giga),
        ("kibi", Unit::Kibi),
        ("mebi", Unit::Mebi),
        ("gibi", Unit::Gibi),
    ];

    /// Whether values of a column can come in it: whole numbers stay whole, and degrees are degrees.
    pub fn fits(self, column: &Column) -> bool {
        let is_float = matches!(column.column_type, ColumnType::Float64 | ColumnType::Float64WithNan);
        match self {
            Unit::Percent => column.unit == "ratio 0..1",
            Unit::Fahrenheit | Unit::Kelvin => column.unit == "degrees Celsius",
            Unit::Milli | Unit::Micro | Unit::Nano => is_float,
            _ => is_float || column.column_type == ColumnType::Int64,
        }
    }

    /// One value in the registry's unit.
    fn of(self, value: f64) -> f64 {
        match self {
            Unit::Percent => value / 100.0,
            Unit::Fahrenheit => (value - 32.0) * 5.0 / 9.0,
            Unit::Kelvin => value - 273.15,
            Unit::Milli => value / 1e3,
            Unit::Micro => value / 1e6,
            Unit::Nano => value / 1e9,
            other => value * other.times() as f64,
        }
    }

    fn times(self) -> i64 {
        match self {
            Unit::Kilo => 1_000,
            Unit::Mega => 1_000_000,
            Unit::Giga => 1_000_000_000,
            Unit::Kibi => 1 << 10,
            Unit::Mebi => 1 << 20,
            Unit::Gibi => 1 << 30,
            _ => 1,
        }
    }

    /// The values in the registry's unit. A whole number that has no room there is the largest that has.
    pub(super) fn convert(self, column: &ArrayRef) -> ArrayRef {
        match column.data_type() {
            DataType::Float64 => {
                let values = column.as_primitive::<Float64Type>().iter();
                Arc::new(values.map(|value| value.map(|value| self.of(value))).collect::<Float64Array>())
            }
            _ => {
                let values = column.as_primitive::<Int64Type>().iter();
                let times = self.times();
                Arc::new(values.map(|value| value.map(|value| value.saturating_mul(times))).collect::<Int64Array>())
            }
        }
    }
}
