//! Calls that say less than the functions take, written out: `increase(counter)` means `increase(counter, ts)`, and `hampel(x, 3) OVER w`
//! means `hampel(x, median(x) OVER w, mad(x) OVER w, 3)`. And constants that no function would take, found before rows come.

use std::ops::ControlFlow;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::expr::{AggregateFunction, WindowFunction};
use datafusion::logical_expr::{Expr as PlannedExpr, LogicalPlan};
use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, ObjectNamePart, VisitMut,
    visit_expressions_mut,
};
use tidewatch_model::table::TIME_COLUMN;

use crate::ends::is_last;
use crate::increase::growth_question;
use crate::percentile::{APPROX_PERCENTILE, SHARE, quantile};
use crate::preprocess::HAMPEL;
use crate::robust::Decay;
use crate::smoothing::{DECAY, EWMA, MAD};

/// Gives the time to the functions that need it.
pub fn add_time(query: &mut impl VisitMut) {
    let _ = visit_expressions_mut(query, |expression| {
        if let Expr::Function(call) = expression
            && let name = call.name.to_string().to_lowercase()
            && let FunctionArguments::List(list) = &mut call.args
            && given_without_time(&name) == Some(list.args.len())
        {
            let time = Expr::Identifier(Ident::new(TIME_COLUMN));
            list.args.push(FunctionArg::Unnamed(FunctionArgExpr::Expr(time)));
        }
        ControlFlow::<()>::Continue(())
    });
}

/// How many arguments a function that needs the time has without it.
fn given_without_time(function: &str) -> Option<usize> {
    match function {
        EWMA => Some(2),
        name => (growth_question(name).is_some() || is_last(name).is_some()).then_some(1),
    }
}

/// Writes the filter over a frame as what it is made of.
pub fn write_out(query: &mut impl VisitMut) {
    let _ = visit_expressions_mut(query, |expression| {
        if let Expr::Function(call) = expression
            && let Some(written) = filter_over(call)
        {
            *call = written;
        }
        ControlFlow::<()>::Continue(())
    });
}

fn filter_over(call: &Function) -> Option<Function> {
    let FunctionArguments::List(list) = &call.args else { return None };
    let [value, limit] = list.args.as_slice() else { return None };
    if call.over.is_none() || !call.name.to_string().eq_ignore_ascii_case(HAMPEL) {
        return None;
    }
    let with = |args: Vec<FunctionArg>| {
        let mut list = list.clone();
        list.args = args;
        FunctionArguments::List(list)
    };
    let over_frame = |name: &str| {
        let name = ObjectName(vec![ObjectNamePart::Identifier(Ident::new(name))]);
        let call = Function { name, args: with(vec![value.clone()]), ..call.clone() };
        FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Function(call)))
    };
    let args = with(vec![value.clone(), over_frame("median"), over_frame(MAD), limit.clone()]);
    Some(Function { args, over: None, filter: None, null_treatment: None, ..call.clone() })
}

/// Refuses a plan with a call whose constant is none that the function takes. Its expressions must be simplified.
///
/// # Errors
/// What the function expects.
pub fn check_constants(plan: &LogicalPlan) -> Result<()> {
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expression| {
            expression.apply(|part| {
                match part {
                    PlannedExpr::AggregateFunction(AggregateFunction { func, params }) => {
                        check_constant(func.name(), &params.args)?;
                    }
                    PlannedExpr::WindowFunction(over) => {
                        let WindowFunction { fun, params } = over.as_ref();
                        check_constant(fun.name(), &params.args)?;
                    }
                    _ => {}
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(())
}

/// Refuses a call whose constant is none that the function takes.
///
/// # Errors
/// What the function expects.
pub fn check_constant(function: &str, arguments: &[PlannedExpr]) -> Result<()> {
    let constant = match arguments.get(1) {
        Some(PlannedExpr::Literal(value, _)) => Some(value),
        _ => None,
    };
    match function {
        // Whoever tells of it looks for the word in quotes.
        EWMA if constant.and_then(Decay::of).is_none() => plan_err!("'{EWMA}': {DECAY}"),
        APPROX_PERCENTILE if constant.and_then(quantile).is_none() => plan_err!("'{APPROX_PERCENTILE}': {SHARE}"),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use datafusion::sql::sqlparser::dialect::GenericDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    use super::*;

    #[test]
    fn calls_are_written_out() {
        for (text, expected) in [
            (
                "SELECT increase(a), last(b, t), ewma(c, 0.2), ewma(c, 0.2, t) FROM x",
                "SELECT increase(a, ts), last(b, t), ewma(c, 0.2, ts), ewma(c, 0.2, t) FROM x",
            ),
            (
                "SELECT Hampel(a + 1, 3) OVER w FROM x WINDOW w AS (ORDER BY ts)",
                "SELECT Hampel(a + 1, median(a + 1) OVER w, mad(a + 1) OVER w, 3) FROM x WINDOW w AS (ORDER BY ts)",
            ),
            (
                "SELECT hampel(a, 3) FILTER (WHERE b) OVER (ORDER BY ts) FROM x",
                "SELECT hampel(a, median(a) FILTER (WHERE b) OVER (ORDER BY ts), mad(a) FILTER (WHERE b) OVER (ORDER BY ts), 3) FROM x",
            ),
            ("SELECT hampel(a, m, d, 3), hampel(a, 3) FROM x", "SELECT hampel(a, m, d, 3), hampel(a, 3) FROM x"),
        ] {
            let mut parsed = Parser::parse_sql(&GenericDialect {}, text).unwrap();
            add_time(&mut parsed[0]);
            write_out(&mut parsed[0]);
            assert_eq!(parsed[0].to_string(), expected);
        }
    }
}
