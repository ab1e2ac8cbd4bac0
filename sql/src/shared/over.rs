//! One OVER: a frame that ends at each row, or before it, and what is asked of the rows in it.

use std::fmt;
use std::hash::Hash;

use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{AggregateFunction, AggregateFunctionParams, WindowFunction};
use datafusion::logical_expr::{Expr, ExprSchemable, WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition};
use tidewatch_model::Span;
use tidewatch_model::limits::{OVER_ROWS_BACK, WINDOW_SIZE};
use tidewatch_model::table::TIME_COLUMN;

use super::held::OfFrame;
use super::plan::{Call, Function, States, call_of, simplified};
use crate::calls::check_constant;
use crate::moments::Question;
use crate::robust::Decay;
use crate::smoothing::{EWMA, MAD};

/// An OVER: rules with equal ones share it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OverCall {
    /// What is asked of the rows of the frame.
    pub asked: Asked,
    /// PARTITION BY.
    pub partition: Vec<Expr>,
    /// The frame.
    pub frame: Frame,
    /// The type of the answer.
    pub data_type: DataType,
}

/// What is asked of the rows of a frame.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Asked {
    /// An aggregate with a kernel.
    Aggregate(Call<States>, Question),
    /// A function that needs their values themselves.
    Held {
        /// Which.
        function: OfFrame,
        /// Of what.
        arguments: Vec<Expr>,
        /// FILTER.
        filter: Option<Expr>,
    },
    /// The value of one of them.
    Value {
        /// Of what.
        argument: Expr,
        /// Which row: so many from the frame's start, or the last.
        place: Place,
        /// The answer where there is no such row.
        default: ScalarValue,
    },
}

/// A row of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// So many after the first.
    FromStart(u64),
    /// The last.
    Last,
}

/// Which rows belong to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Frame {
    /// Those from so much earlier to so much earlier: RANGE. Rows of the same time are in it together.
    Range {
        /// Its start.
        from: Span,
        /// Its end.
        to: Span,
    },
    /// Those from so many rows before to so many rows before: ROWS; as far back as [`OVER_ROWS_BACK`].
    Rows {
        /// Its start.
        from: u64,
        /// Its end.
        to: u64,
    },
}

impl Frame {
    /// How far back it can reach.
    pub fn reach(&self) -> Span {
        match self {
            Frame::Range { from, .. } => *from,
            Frame::Rows { .. } => OVER_ROWS_BACK,
        }
    }
}

impl fmt::Display for OverCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.asked {
            Asked::Aggregate(call, _) => write!(f, "{call}")?,
            Asked::Held { function, arguments, filter } => {
                write!(f, "{function}({})", arguments[0])?;
                filter.iter().try_for_each(|filter| write!(f, " FILTER (WHERE {filter})"))?;
            }
            Asked::Value { argument, place: Place::FromStart(0), .. } => write!(f, "first_value({argument})")?,
            Asked::Value { argument, place: Place::FromStart(rows), .. } => {
                write!(f, "nth_value({argument}, {})", rows + 1)?
            }
            Asked::Value { argument, place: Place::Last, .. } => write!(f, "last_value({argument})")?,
        }
        let partition: Vec<String> = self.partition.iter().map(ToString::to_string).collect();
        let by = if partition.is_empty() { String::new() } else { format!("PARTITION BY {} ", partition.join(", ")) };
        match self.frame {
            Frame::Range { from, to } => write!(f, " OVER ({by}RANGE {from} to {to} before)"),
            Frame::Rows { from, to } => write!(f, " OVER ({by}ROWS {from} to {to} before)"),
        }
    }
}

/// Reads an OVER over rows of this schema; why not, where it can't run as rows come.
pub fn over_call(over: &WindowFunction, rows: &DFSchema) -> Result<std::result::Result<OverCall, String>> {
    let params = &over.params;
    let whole = over.fun.name().to_string();
    let no = |reason: &str| Ok(Err(format!("OVER of {whole}: {reason}")));
    let [order] = params.order_by.as_slice() else {
        return no("expected ORDER BY ts");
    };
    if !order.asc || !matches!(&order.expr, Expr::Column(column) if column.name == TIME_COLUMN) {
        return no("expected ORDER BY ts, ascending");
    }
    if params.distinct {
        return no("DISTINCT is not kept as rows come");
    }
    if params
        .null_treatment
        .is_some_and(|treatment| treatment == datafusion::logical_expr::expr::NullTreatment::IgnoreNulls)
    {
        return no("IGNORE NULLS is not kept as rows come: last(x) skips NULL");
    }
    if over.fun.name() == "lead" {
        return no("it looks into the future: lag looks back");
    }
    let data_type = Expr::from(over.clone()).get_type(rows)?;
    let partition = params.partition_by.clone();
    let frame =
        match frame_of(params.window_frame.units, &params.window_frame.start_bound, &params.window_frame.end_bound) {
            Ok(frame) => frame,
            Err(reason) if over.fun.name() != "lag" => return no(&reason),
            Err(_) => Frame::Rows { from: 0, to: 0 },
        };
    let value = |argument: &Expr, place, frame, default| {
        Ok(Ok(OverCall {
            asked: Asked::Value { argument: argument.clone(), place, default },
            partition: partition.clone(),
            frame,
            data_type: data_type.clone(),
        }))
    };
    let null = ScalarValue::try_from(&data_type)?;
    let number = |index: usize| match params.args.get(index) {
        None => Some(1),
        Some(Expr::Literal(value, _)) => whole_number(value),
        Some(_) => None,
    };
    match (over.fun.name(), params.args.first()) {
        ("lag", Some(argument)) => {
            let (Some(rows), default) = (number(1), params.args.get(2)) else {
                return no("expected a constant number of rows");
            };
            let default = match default {
                None => null,
                Some(Expr::Literal(value, _)) => value.cast_to(&data_type)?,
                Some(_) => return no("expected a constant default"),
            };
            value(argument, Place::FromStart(0), Frame::Rows { from: rows, to: rows }, default)
        }
        ("first_value", Some(argument)) => value(argument, Place::FromStart(0), frame, null),
        ("last_value", Some(argument)) => value(argument, Place::Last, frame, null),
        ("nth_value", Some(argument)) => match number(1) {
            Some(rows @ 1..) => value(argument, Place::FromStart(rows - 1), frame, null),
            _ => no("expected a constant number of rows, from 1"),
        },
        _ => {
            let WindowFunctionDefinition::AggregateUDF(function) = &over.fun else {
                return no("it is not kept as rows come");
            };
            if let Some(held) = held_call(over, rows)? {
                return match held {
                    Ok(asked) => Ok(Ok(OverCall { asked, partition, frame, data_type })),
                    Err(reason) => no(&reason),
                };
            }
            let (args, filter) = (params.args.clone(), params.filter.clone());
            let params =
                AggregateFunctionParams { args, distinct: false, filter, order_by: vec![], null_treatment: None };
            let call = AggregateFunction { func: function.clone(), params };
            let (call, question) = match call_of(&call, &whole, rows)? {
                Ok((Call { function: Function::Own(function), arguments, filter }, question)) => {
                    (Call { function, arguments, filter }, question)
                }
                Ok(_) => return no("it has no kernel"),
                Err(reason) => return no(&reason),
            };
            Ok(Ok(OverCall { asked: Asked::Aggregate(call, question), partition, frame, data_type }))
        }
    }
}

/// A function that needs the values of its frame; `None` when it is none.
fn held_call(over: &WindowFunction, rows: &DFSchema) -> Result<Option<std::result::Result<Asked, String>>> {
    let params = &over.params;
    let name = over.fun.name();
    if !["median", MAD, EWMA].contains(&name) {
        return Ok(None);
    }
    let arguments =
        params.args.iter().map(|argument| simplified(argument.clone(), rows)).collect::<Result<Vec<_>>>()?;
    let filter = params.filter.as_deref().map(|filter| simplified(filter.clone(), rows)).transpose()?;
    let Some(value) = arguments.first() else { return Ok(None) };
    check_constant(name, &arguments)?;
    let (function, arguments) = match (name, value.get_type(rows)?, arguments.get(1)) {
        ("median", DataType::Float64, _) => (OfFrame::Median { whole: false }, arguments),
        ("median", DataType::Int64, _) => (OfFrame::Median { whole: true }, arguments),
        (MAD, DataType::Float64, _) => (OfFrame::Deviation, arguments),
        (EWMA, DataType::Float64, Some(Expr::Literal(decay, _))) if let Some(decay) = Decay::of(decay) => {
            (OfFrame::Smoothed(decay), vec![value.clone(), arguments[2].clone()])
        }
        (_, other, _) => return Ok(Some(Err(format!("over {other}: expected CAST(x AS DOUBLE)")))),
    };
    Ok(Some(Ok(Asked::Held { function, arguments, filter })))
}

fn whole_number(value: &ScalarValue) -> Option<u64> {
    match value.cast_to(&DataType::UInt64) {
        Ok(ScalarValue::UInt64(number)) => number,
        _ => None,
    }
}

fn frame_of(
    units: WindowFrameUnits,
    start: &WindowFrameBound,
    end: &WindowFrameBound,
) -> std::result::Result<Frame, String> {
    let unbounded = "its frame has no bound: expected RANGE BETWEEN INTERVAL '10 minutes' PRECEDING AND CURRENT ROW, \
                     or ROWS BETWEEN 10 PRECEDING AND CURRENT ROW";
    let future = "its frame reaches into the future: expected one that ends at CURRENT ROW or before";
    let rows = |bound: &WindowFrameBound| match bound {
        WindowFrameBound::CurrentRow => Ok(0),
        WindowFrameBound::Preceding(value) => whole_number(value).ok_or_else(|| unbounded.to_string()),
        WindowFrameBound::Following(_) => Err(future.to_string()),
    };
    let time = |bound: &WindowFrameBound| match bound {
        WindowFrameBound::CurrentRow => Ok(Span::ZERO),
        WindowFrameBound::Preceding(value) if value.is_null() => Err(unbounded.to_string()),
        WindowFrameBound::Preceding(value) => span_of(value),
        WindowFrameBound::Following(_) => Err(future.to_string()),
    };
    match units {
        WindowFrameUnits::Rows => Ok(Frame::Rows { from: rows(start)?, to: rows(end)? }),
        WindowFrameUnits::Range => {
            let (from, to) = (time(start)?, time(end)?);
            match from <= WINDOW_SIZE {
                true => Ok(Frame::Range { from, to }),
                false => Err(format!("a frame of {from} is over the limit of {WINDOW_SIZE}")),
            }
        }
        WindowFrameUnits::Groups => Err("GROUPS is not kept as rows come: expected RANGE or ROWS".to_string()),
    }
}

fn span_of(value: &ScalarValue) -> std::result::Result<Span, String> {
    match value {
        ScalarValue::IntervalMonthDayNano(Some(interval)) if interval.months == 0 => {
            Ok(Span(i64::from(interval.days) * Span::days(1).0 + interval.nanoseconds / 1_000))
        }
        other => Err(format!("its frame begins '{other}' before: expected an interval in days or less")),
    }
}

impl OverCall {
    /// The expressions of which it takes the values.
    pub fn arguments(&self) -> &[Expr] {
        match &self.asked {
            Asked::Aggregate(call, _) => &call.arguments,
            Asked::Held { arguments, .. } => arguments,
            Asked::Value { argument, .. } => std::slice::from_ref(argument),
        }
    }

    /// Its FILTER.
    pub fn filter(&self) -> Option<&Expr> {
        match &self.asked {
            Asked::Aggregate(call, _) => call.filter.as_ref(),
            Asked::Held { filter, .. } => filter.as_ref(),
            Asked::Value { .. } => None,
        }
    }
}
