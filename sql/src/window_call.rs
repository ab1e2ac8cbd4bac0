//! `HOP(table, ts, slide, size)`, `TUMBLE(table, ts, size)`, `LAST_SEEN(table, ts)` and `STALLED(table, ts, column)` in FROM, positional or
//! with named arguments.

use datafusion::sql::sqlparser::ast::Spanned;
use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, Ident, Interval, ObjectName, TableAlias, TableFactor, Value, ValueWithSpan,
};
use datafusion::sql::sqlparser::tokenizer::Location as ParserLocation;
use tidewatch_model::limits::{LONG_WINDOW_SIZE, WINDOW_OVERLAP, WINDOW_SIZE};
use tidewatch_model::table::{self, TABLES, TIME_COLUMN, TableKind};
use tidewatch_model::{Span, WindowSpec};

use crate::fault::suggestion;
use crate::presence::PRESENCE;
use crate::stall::schema_of;

/// A window function in FROM, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowCall {
    /// The table that it windows.
    pub table: String,
    /// Slide and size.
    pub spec: WindowSpec,
    /// Which function it is.
    pub kind: CallKind,
    /// The alias given to it, if any.
    pub alias: Option<TableAlias>,
}

/// The kinds of window functions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallKind {
    /// `HOP` and `TUMBLE`.
    Window,
    /// `LAST_SEEN`.
    LastSeen,
    /// `STALLED` of a column.
    Stalled(String),
}

/// What is wrong with a window function, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallFault {
    /// Where.
    pub at: ParserLocation,
    /// What.
    pub message: String,
}

/// Names of the arguments in order, for HOP and for TUMBLE.
const HOP_ARGUMENTS: [&str; 4] = ["table", "time", "slide", "size"];
const TUMBLE_ARGUMENTS: [&str; 3] = ["table", "time", "size"];
const LAST_SEEN_ARGUMENTS: [&str; 2] = ["table", "time"];
const LAST_SEEN: &str = "LAST_SEEN";
const STALLED_ARGUMENTS: [&str; 3] = ["table", "time", "column"];
const STALLED: &str = "STALLED";

/// Reads a FROM item: `None` when it is no window function at all.
pub fn window_call(relation: &TableFactor) -> Option<Result<WindowCall, CallFault>> {
    let (name, arguments, alias) = match relation {
        TableFactor::Table { name, args: Some(arguments), alias, .. } => (name, &arguments.args, alias),
        TableFactor::Function { name, args, alias, .. } => (name, args, alias),
        _ => return None,
    };
    let function = name.to_string().to_uppercase();
    let names: &[&str] = match function.as_str() {
        "HOP" => &HOP_ARGUMENTS,
        "TUMBLE" => &TUMBLE_ARGUMENTS,
        LAST_SEEN => &LAST_SEEN_ARGUMENTS,
        STALLED => &STALLED_ARGUMENTS,
        _ => return None,
    };
    let at = name.span().start;
    let call = read_call(&function, names, arguments, at);
    Some(call.map(|(table, spec, kind)| WindowCall { table, spec, kind, alias: alias.clone() }))
}

fn read_call(
    function: &str,
    names: &[&str],
    arguments: &[FunctionArg],
    at: ParserLocation,
) -> Result<(String, WindowSpec, CallKind), CallFault> {
    let usage = || match function {
        "HOP" => "HOP(table, ts, INTERVAL '10 seconds', INTERVAL '1 minute'): slide, then size",
        LAST_SEEN => "LAST_SEEN(table, ts)",
        STALLED => "STALLED(table, ts, column)",
        _ => "TUMBLE(table, ts, INTERVAL '1 minute')",
    };
    let wrong = |message: String| CallFault { at, message };
    let mut slots: Vec<Option<&Expr>> = vec![None; names.len()];
    for (position, argument) in arguments.iter().enumerate() {
        let (slot, expression) = match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expression)) => (Some(position), expression),
            FunctionArg::Named { name: Ident { value, .. }, arg: FunctionArgExpr::Expr(expression), .. } => {
                (named_slot(names, value), expression)
            }
            FunctionArg::ExprNamed { name, arg: FunctionArgExpr::Expr(expression), .. } => {
                (named_slot(names, &name.to_string()), expression)
            }
            other => return Err(wrong(format!("{function}: '{other}' is no argument: expected {}", usage()))),
        };
        let Some(slot) = slot.filter(|slot| *slot < names.len()) else {
            return Err(wrong(format!("{function}: unexpected argument '{argument}': expected {}", usage())));
        };
        if slots[slot].replace(expression).is_some() {
            return Err(wrong(format!("{function}: argument '{}' is given twice", names[slot])));
        }
    }
    if let Some(missing) = slots.iter().position(Option::is_none) {
        return Err(wrong(format!("{function}: argument '{}' is missing: expected {}", names[missing], usage())));
    }
    let given: Vec<&Expr> = slots.into_iter().flatten().collect();
    let table = name_of(given[0]).ok_or_else(|| wrong(format!("{function}: '{}' is not a table's name", given[0])))?;
    check_time_column(function, given[1]).map_err(wrong)?;
    if function == LAST_SEEN {
        return Ok((table, PRESENCE, CallKind::LastSeen));
    }
    if function == STALLED {
        let column =
            name_of(given[2]).ok_or_else(|| wrong(format!("STALLED: '{}' is not a column's name", given[2])))?;
        if let Some(found) = table::find(&table).filter(|found| schema_of(found, &column).is_none()) {
            let known = found.columns.iter().filter(|known| !known.identity).map(|known| known.name);
            let near = suggestion(&column, known);
            return Err(wrong(format!(
                "STALLED: '{column}' is no column of '{table}' that can stall: expected one that is no part of the identity{near}"
            )));
        }
        return Ok((table, PRESENCE, CallKind::Stalled(column)));
    }
    let size = interval(given[given.len() - 1]).map_err(|message| wrong(format!("{function}: size: {message}")))?;
    let slide = match function {
        "HOP" => interval(given[2]).map_err(|message| wrong(format!("{function}: slide: {message}")))?,
        _ => size,
    };
    check_spec(WindowSpec { slide, size }, longest(&table))
        .map_err(|message| wrong(format!("{function}: {message}")))
        .map(|spec| (table, spec, CallKind::Window))
}

/// `ts => ts`, `slide => ...`; `data` and `timecol` are the standard's names for the first two.
fn named_slot(names: &[&str], written: &str) -> Option<usize> {
    let written = written.to_lowercase();
    let standard = match written.as_str() {
        "data" => "table",
        "timecol" | "ts" => "time",
        other => other,
    };
    names.iter().position(|name| *name == standard)
}

fn name_of(expression: &Expr) -> Option<String> {
    match expression {
        Expr::Identifier(Ident { value, quote_style: None, .. }) => Some(value.to_lowercase()),
        Expr::Identifier(Ident { value, .. }) => Some(value.clone()),
        _ => None,
    }
}

fn check_time_column(function: &str, expression: &Expr) -> Result<(), String> {
    match name_of(expression) {
        Some(name) if name == TIME_COLUMN => Ok(()),
        Some(name) => {
            let near = suggestion(&name, [TIME_COLUMN]);
            Err(format!("{function}: '{name}' is not the time column: every table's is '{TIME_COLUMN}'{near}"))
        }
        None => Err(format!("{function}: '{expression}' is not the time column: every table's is '{TIME_COLUMN}'")),
    }
}

/// `INTERVAL '10 seconds'`, `INTERVAL '10' SECOND`, `INTERVAL 10 SECOND`, or a bare `'10 seconds'`.
fn interval(expression: &Expr) -> Result<Span, String> {
    let text = match expression {
        Expr::Interval(Interval { value, leading_field, last_field: None, .. }) => {
            let number = literal(value).ok_or_else(|| format!("'{expression}' is not a constant interval"))?;
            match leading_field {
                Some(unit) => format!("{number} {unit}"),
                None => number,
            }
        }
        other => {
            literal(other).ok_or_else(|| format!("'{expression}' is not an interval such as INTERVAL '10 seconds'"))?
        }
    };
    let span: Span = text.parse().map_err(|error: tidewatch_model::time::TimeError| error.to_string())?;
    if span.0 > 0 { Ok(span) } else { Err(format!("'{text}' is not longer than zero")) }
}

fn literal(expression: &Expr) -> Option<String> {
    match expression {
        Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text) | Value::Number(text, _), .. }) => {
            Some(text.clone())
        }
        _ => None,
    }
}

/// The longest window over a table. A name that is no table's may be a view's, whose table is asked for later.
fn longest(table: &str) -> Span {
    match TABLES.iter().find(|known| known.name == table) {
        Some(known) if known.kind == TableKind::Sample => WINDOW_SIZE,
        _ => LONG_WINDOW_SIZE,
    }
}

/// Whether windows of this slide and size can be held.
pub fn check_spec(spec: WindowSpec, longest: Span) -> Result<WindowSpec, String> {
    if spec.size > longest {
        let more = if longest < LONG_WINDOW_SIZE { "; a stream may be windowed over 24h" } else { "" };
        return Err(format!("a window of {} is over the limit of {longest}{more}", spec.size));
    }
    if spec.slide > spec.size {
        return Err(format!(
            "the slide {} is longer than the size {}: rows between two windows would be seen by none",
            spec.slide, spec.size
        ));
    }
    let overlap = spec.size.0 / spec.slide.0;
    if overlap > WINDOW_OVERLAP {
        return Err(format!(
            "size {} / slide {} is {overlap}, over the limit of {WINDOW_OVERLAP}",
            spec.size, spec.slide
        ));
    }
    Ok(spec)
}

/// The text of a name as SQL folds it.
pub fn table_name(name: &ObjectName) -> Option<String> {
    match name.0.as_slice() {
        [part] => part.as_ident().map(|ident| match ident.quote_style {
            Some(_) => ident.value.clone(),
            None => ident.value.to_lowercase(),
        }),
        _ => None,
    }
}
