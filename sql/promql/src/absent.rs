//! `absent(..)`: an alert because there are no series. A window needs rows to be there at all: it has those of all metrics, of which
//! Tidewatch writes its own every ten seconds.

use std::time::Duration;

use promql_parser::parser::token::{T_EQLC, T_GTR};
use promql_parser::parser::{Expr, MatrixSelector, VectorSelector};

use crate::node::{Aggregation, Key, Node, both};
use crate::query::hop;
use crate::read::{Reader, grouped, offset, part, unwrapped};
use crate::select::{check_window, select};
use crate::selector::Selector;
use crate::text::interval;

/// A rule about what is not there.
pub struct Absent {
    /// The SELECT.
    pub sql: String,
    /// The labels of its one alert.
    pub labels: Vec<(String, String)>,
}

/// Reads a whole expression as `absent(..)`, or `absent(..) == 1`; `None` when it is something else.
pub fn absent(expr: &Expr, slide: Duration, reader: &mut Reader) -> Option<Result<Absent, String>> {
    let call = match unwrapped(expr) {
        Expr::Binary(binary) => {
            let number = match unwrapped(&binary.rhs) {
                Expr::NumberLiteral(number) => number.val,
                _ => return None,
            };
            match (binary.op.id(), number) {
                (T_EQLC, 1.0) | (T_GTR, 0.0) => unwrapped(&binary.lhs),
                _ => return None,
            }
        }
        expr => expr,
    };
    let Expr::Call(call) = call else { return None };
    let [argument] = call.args.args.as_slice() else { return None };
    let (selector, range) = match (call.func.name, unwrapped(argument)) {
        ("absent", Expr::VectorSelector(selector)) => (selector, None),
        ("absent_over_time", Expr::MatrixSelector(MatrixSelector { vs, range })) => (vs, Some(*range)),
        _ => return None,
    };
    let mut read = || {
        let found = Selector::read(selector.name.as_deref(), &selector.matchers)?;
        let sql = match range {
            None => of_series(argument, slide, reader)?,
            Some(range) => of_rows(selector, &found, range, slide, reader)?,
        };
        // A label with two matchers is not known.
        let once = |label: &str| selector.matchers.matchers.iter().filter(|matcher| matcher.name == label).count() == 1;
        let labels = found.equal.into_iter().filter(|(label, _)| once(label)).collect();
        Ok(Absent { sql, labels })
    };
    Some(read().map_err(|reason: String| part(expr, &reason)))
}

/// There is no series, or all of them have ended.
fn of_series(selector: &Expr, slide: Duration, reader: &mut Reader) -> Result<String, String> {
    let there = grouped(reader.read(selector)?, Aggregation::Count, Key::By(vec![]))?;
    let absent = there.with(|there| {
        let (one, there) = both(Node::Number(1.0), there);
        Node::Unless(one, there)
    });
    Ok(select(&absent, slide)?.sql)
}

/// There is no sample within a range.
fn of_rows(
    selector: &VectorSelector,
    found: &Selector,
    range: Duration,
    slide: Duration,
    reader: &Reader,
) -> Result<String, String> {
    if offset(selector.offset.as_ref(), selector.at.as_ref())? > Duration::ZERO {
        return Err("absent_over_time with an offset".to_string());
    }
    if reader.records(&found.name) {
        return Err(format!("'{}' is a recording rule of these files: its past is not kept", found.name));
    }
    let size = range.max(slide);
    check_window(size, slide)?;
    let within = if range < size { format!(" AND ts >= window_end - {}", interval(range)) } else { String::new() };
    Ok(format!(
        "SELECT 1 AS value\nFROM {}\nGROUP BY window_start, window_end\nHAVING count(value) FILTER (WHERE {}{within}) = 0",
        hop(slide, size),
        found.conditions().join(" AND ")
    ))
}
