//! `absent(..)`: an alert because there are no series. A window needs rows to be there at all: it has those of all metrics, of which
//! Tidewatch writes its own every ten seconds.

use std::time::Duration;

use promql_parser::parser::token::{T_EQLC, T_GTR};
use promql_parser::parser::{Expr, MatrixSelector};

use crate::leaf::LOOKBACK;
use crate::query::hop;
use crate::read::{offset, part, unwrapped};
use crate::recorded::Recorded;
use crate::select::check_window;
use crate::selector::Selector;

/// A rule about what is not there.
pub struct Absent {
    /// The SELECT.
    pub sql: String,
    /// The labels of its one alert.
    pub labels: Vec<(String, String)>,
}

/// Reads a whole expression as `absent(..)`, or `absent(..) == 1`; `None` when it is something else.
pub fn absent(expr: &Expr, slide: Duration, recorded: &Recorded) -> Option<Result<Absent, String>> {
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
        ("absent", Expr::VectorSelector(selector)) => (selector, LOOKBACK),
        ("absent_over_time", Expr::MatrixSelector(MatrixSelector { vs, range })) => (vs, *range),
        _ => return None,
    };
    let read = || {
        if offset(selector.offset.as_ref(), selector.at.as_ref())? > Duration::ZERO {
            return Err(String::from("absent with an offset"));
        }
        let read = Selector::read(selector.name.as_deref(), &selector.matchers)?;
        if recorded.has(&read.name) {
            return Err(format!("'{}' is a recording rule of these files", read.name));
        }
        let size = range.max(slide);
        check_window(size, slide)?;
        let within = if range < size {
            format!(" AND ts >= window_end - {}", crate::text::interval(range))
        } else {
            String::new()
        };
        let sql = format!(
            "SELECT 1 AS value\nFROM {}\nGROUP BY window_start, window_end\nHAVING count(value) FILTER (WHERE {}{within}) = 0",
            hop(slide, size),
            read.conditions().join(" AND ")
        );
        // A label with two matchers is not known.
        let once = |label: &str| selector.matchers.matchers.iter().filter(|matcher| matcher.name == label).count() == 1;
        let labels = read.equal.into_iter().filter(|(label, _)| once(label)).collect();
        Ok(Absent { sql, labels })
    };
    Some(read().map_err(|reason| part(expr, &reason)))
}
