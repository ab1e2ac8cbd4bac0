//! Where the answers of a window lie, and whether a condition can hold for any of them: most rules fire for no group, and then
//! one look at the smallest and the largest answer says so for all groups at once.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::{max, min};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, Operator};

/// Integers up to here are exact as Float64.
const EXACT: i64 = 1 << 53;

/// The range of an array's values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bounds {
    /// No value at all.
    Nothing,
    /// All values, NaN apart, are in between.
    Between {
        /// The smallest.
        low: f64,
        /// The largest.
        high: f64,
        /// Whether there is a NaN: it is above everything.
        nan: bool,
    },
    /// Nothing is known.
    Unknown,
}

impl Bounds {
    /// Of an array.
    pub fn of(values: &ArrayRef) -> Bounds {
        if values.null_count() == values.len() {
            return Bounds::Nothing;
        }
        match values.data_type() {
            DataType::Float64 => {
                let (mut low, mut high, mut nan, mut signed) = (f64::INFINITY, f64::NEG_INFINITY, false, false);
                let values = values.as_primitive::<Float64Type>();
                let mut take = |value: f64| {
                    low = low.min(value);
                    high = high.max(value);
                    nan |= value.is_nan();
                    signed |= value.is_nan() && value.is_sign_negative();
                };
                match values.nulls() {
                    None => values.values().iter().for_each(|value| take(*value)),
                    Some(_) => values.iter().flatten().for_each(take),
                }
                // DataFusion's own accumulators give these, and it puts them below everything; ours do not.
                if signed { Bounds::Unknown } else { Bounds::Between { low, high, nan } }
            }
            DataType::Int64 => {
                let values = values.as_primitive::<Int64Type>();
                match (min(values), max(values)) {
                    (Some(low), Some(high)) if -EXACT < low && high < EXACT => {
                        Bounds::Between { low: low as f64, high: high as f64, nan: false }
                    }
                    _ => Bounds::Unknown,
                }
            }
            _ => Bounds::Unknown,
        }
    }
}

/// What is needed to see that a condition can't hold: comparisons of aggregates with constants.
#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// An aggregate, by its number, against a constant.
    Compare(usize, Operator, f64),
    /// All must hold.
    And(Box<Test>, Box<Test>),
    /// One must.
    Or(Box<Test>, Box<Test>),
    /// Can't be told.
    Perhaps,
}

impl Test {
    /// Of a condition; `aggregate` says which aggregate a column is.
    pub fn of(condition: &Expr, aggregate: &dyn Fn(&str) -> Option<usize>) -> Test {
        let Expr::BinaryExpr(binary) = condition else { return Test::Perhaps };
        let both = || (Box::new(Test::of(&binary.left, aggregate)), Box::new(Test::of(&binary.right, aggregate)));
        match binary.op {
            Operator::And => {
                let (left, right) = both();
                Test::And(left, right)
            }
            Operator::Or => {
                let (left, right) = both();
                Test::Or(left, right)
            }
            op => {
                let column = |side: &Expr| match side {
                    Expr::Column(column) => aggregate(&column.name),
                    // Int64 below 2^53, as `Bounds` has them, stay what they are.
                    Expr::Cast(cast) if *cast.field.data_type() == DataType::Float64 => match cast.expr.as_ref() {
                        Expr::Column(column) => aggregate(&column.name),
                        _ => None,
                    },
                    _ => None,
                };
                let found = match (column(&binary.left), constant(&binary.right)) {
                    (Some(aggregate), Some(value)) => Some((aggregate, Some(op), value)),
                    _ => match (constant(&binary.left), column(&binary.right)) {
                        (Some(value), Some(aggregate)) => Some((aggregate, op.swap(), value)),
                        _ => None,
                    },
                };
                let plain = [Operator::Gt, Operator::GtEq, Operator::Lt, Operator::LtEq, Operator::Eq];
                match found {
                    Some((aggregate, Some(op), value)) if plain.contains(&op) => Test::Compare(aggregate, op, value),
                    _ => Test::Perhaps,
                }
            }
        }
    }

    /// Whether the condition may hold for some group, given where the aggregates lie.
    pub fn can_hold<E>(&self, bounds: &mut dyn FnMut(usize) -> Result<Bounds, E>) -> Result<bool, E> {
        match self {
            Test::Perhaps => Ok(true),
            Test::And(left, right) => Ok(left.can_hold(bounds)? && right.can_hold(bounds)?),
            Test::Or(left, right) => Ok(left.can_hold(bounds)? || right.can_hold(bounds)?),
            Test::Compare(aggregate, op, value) => Ok(match bounds(*aggregate)? {
                Bounds::Nothing => false,
                Bounds::Unknown => true,
                Bounds::Between { low, high, nan } => match op {
                    Operator::Gt => nan || high > *value,
                    Operator::GtEq => nan || high >= *value,
                    Operator::Lt => low < *value,
                    Operator::LtEq => low <= *value,
                    Operator::Eq => nan || (low <= *value && *value <= high),
                    _ => true,
                },
            }),
        }
    }
}

/// A constant that is a number; NaN, which is above everything, is not told apart.
fn constant(expression: &Expr) -> Option<f64> {
    match expression {
        Expr::Literal(ScalarValue::Float64(Some(value)), _) if !value.is_nan() => Some(*value),
        Expr::Literal(ScalarValue::Int64(Some(value)), _) if (-EXACT..EXACT).contains(value) => Some(*value as f64),
        _ => None,
    }
}
