//! `recover_when`: a second condition that must hold before an alert resolves.
//!
//! A rule with one asks its tables for more: its condition becomes `condition OR recovery IS NOT TRUE`, and a hidden column says whether it was the
//! condition. So a group is of three kinds: it fires; it has not recovered, which keeps an alert that fires as it is; or it is
//! not in the result, and well. Everything that rules share is shared as before.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, GroupByExpr, Ident, Query, Select, SelectItem, SetExpr, VisitMut, VisitorMut,
    visit_expressions,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use tidewatch_model::{GroupState, Value, Values};

use crate::fault::Fault;
use crate::reads::Reads;
use crate::statement::WrittenOption;

/// The hidden column, the last of a result: whether the condition held.
const CONDITION: &str = "__condition";

/// Whether the condition held for a row of a result.
pub fn holds(values: &Values) -> bool {
    values.last().is_none_or(|(name, holds)| name != CONDITION || *holds == Value::Bool(true))
}

/// What a row of a result says of its group.
pub fn state_of(mut values: Values) -> GroupState {
    let holds = holds(&values);
    values.pop_if(|(name, _)| name == CONDITION);
    if holds { GroupState::Firing(values) } else { GroupState::Held }
}

/// Which clause of a SELECT is its condition.
enum Clause {
    Where,
    Having,
    Qualify,
}

/// Rewrites a query, which reads these tables.
pub fn put_in(query: &mut Query, option: &WrittenOption, reads: &Reads) -> Result<(), Fault> {
    let wrong = |message: String| Fault::error(option.at.clone(), format!("recover_when: {message}"));
    let parsed = Parser::new(&GenericDialect {}).try_with_sql(&option.value).and_then(|mut parser| {
        let recovery = parser.parse_expr()?;
        parser.expect_token(&datafusion::sql::sqlparser::tokenizer::Token::EOF)?;
        Ok(recovery)
    });
    let mut recovery = parsed.map_err(|error| wrong(format!("'{}' is no condition: {error}", option.value)))?;
    let SetExpr::Select(select) = query.body.as_mut() else {
        return Err(wrong("expected a rule that is one SELECT".to_string()));
    };
    let nothing = || wrong("expected a rule with a condition, in WHERE, HAVING or QUALIFY".to_string());
    let clause = clause_of(select);
    let written = match clause {
        Clause::Where => &select.selection,
        Clause::Having => &select.having,
        Clause::Qualify => &select.qualify,
    };
    let mut condition = written.clone().ok_or_else(nothing)?;
    if !matches!(clause, Clause::Where) {
        let before = select.selection.clone().map(conjuncts).unwrap_or_default();
        if let Some(of_values) = before.iter().find(|part| !is_of_series(part, reads)) {
            // Rows that it leaves out would be taken for recovery.
            return Err(wrong(format!(
                "'{of_values}' in WHERE says of values which rows count: expected it in HAVING or in QUALIFY"
            )));
        }
        if matches!(clause, Clause::Qualify) && select.having.is_some() {
            return Err(wrong("expected either HAVING or QUALIFY".to_string()));
        }
    }
    let mut labels = None;
    if matches!(clause, Clause::Where) {
        // What only says of which series the rule speaks stays as it is.
        let (of_series, of_values): (Vec<Expr>, Vec<Expr>) =
            conjuncts(condition).into_iter().partition(|part| is_of_series(part, reads));
        labels = joined(of_series);
        condition = joined(of_values).ok_or_else(nothing)?;
    }
    let has_subquery = |condition: &Expr| {
        let found = visit_expressions(condition, |expression| match expression {
            Expr::Exists { .. } | Expr::InSubquery { .. } | Expr::Subquery(_) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        });
        found.is_break()
    };
    if has_subquery(&condition) || has_subquery(&recovery) {
        return Err(wrong("expected no subquery in the rule's condition, nor here: a join says the same".to_string()));
    }
    let mut names = Names { select: select.projection.clone(), reads, within_call: 0 };
    let _ = recovery.visit(&mut names);
    if !matches!(clause, Clause::Where) {
        let _ = condition.visit(&mut names);
    }
    // NULL is no recovery: what can't be seen is not well.
    let not_recovered = Expr::IsNotTrue(Box::new(nested(recovery)));
    let wider = nested(binary(nested(condition.clone()), BinaryOperator::Or, not_recovered));
    let wider = match labels {
        Some(labels) => binary(labels, BinaryOperator::And, wider),
        None => wider,
    };
    match clause {
        Clause::Where => select.selection = Some(wider),
        Clause::Having => select.having = Some(wider),
        Clause::Qualify => select.qualify = Some(wider),
    }
    select.projection.push(SelectItem::ExprWithAlias { expr: condition, alias: Ident::new(CONDITION) });
    Ok(())
}

/// Whether a query's condition asks for less than something: then lower numbers are worse.
pub fn asks_for_less(query: &Query) -> bool {
    let SetExpr::Select(select) = query.body.as_ref() else { return false };
    let condition = match clause_of(select) {
        Clause::Where => &select.selection,
        Clause::Having => &select.having,
        Clause::Qualify => &select.qualify,
    };
    let Some(condition) = condition else { return false };
    let found = visit_expressions(condition, |expression| {
        let Expr::BinaryOp { left, op, .. } = expression else { return ControlFlow::Continue(()) };
        let is_constant = matches!(left.as_ref(), Expr::Value(_) | Expr::Interval(_));
        match op {
            BinaryOperator::Lt | BinaryOperator::LtEq => ControlFlow::Break(!is_constant),
            BinaryOperator::Gt | BinaryOperator::GtEq => ControlFlow::Break(is_constant),
            _ => ControlFlow::Continue(()),
        }
    });
    found == ControlFlow::Break(true)
}

fn clause_of(select: &Select) -> Clause {
    let groups = !matches!(&select.group_by, GroupByExpr::Expressions(groups, _) if groups.is_empty());
    if select.qualify.is_some() {
        Clause::Qualify
    } else if select.having.is_some() || groups {
        Clause::Having
    } else {
        Clause::Where
    }
}

fn binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) }
}

fn nested(expression: Expr) -> Expr {
    Expr::Nested(Box::new(expression))
}

/// The parts that a condition joins by AND.
fn conjuncts(condition: Expr) -> Vec<Expr> {
    match condition {
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            conjuncts(*left).into_iter().chain(conjuncts(*right)).collect()
        }
        other => vec![other],
    }
}

fn joined(parts: Vec<Expr>) -> Option<Expr> {
    parts.into_iter().reduce(|left, right| binary(left, BinaryOperator::And, right))
}

/// Whether a condition speaks of identity columns only.
fn is_of_series(condition: &Expr, reads: &Reads) -> bool {
    let found = visit_expressions(condition, |expression| {
        let name = match expression {
            Expr::Identifier(name) => Some(name),
            Expr::CompoundIdentifier(names) => names.last(),
            Expr::Exists { .. } | Expr::InSubquery { .. } | Expr::Subquery(_) => return ControlFlow::Break(()),
            _ => None,
        };
        let is_identity = |name: &Ident| {
            reads.streams.iter().any(|table| table.identity().any(|column| column.eq_ignore_ascii_case(&name.value)))
        };
        if name.is_none_or(is_identity) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    found.is_continue()
}

/// Puts the expressions of a SELECT list in the place of their names.
struct Names<'a> {
    select: Vec<SelectItem>,
    reads: &'a Reads,
    within_call: usize,
}

impl VisitorMut for Names<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expression: &mut Expr) -> ControlFlow<()> {
        self.within_call += usize::from(matches!(expression, Expr::Function(_)));
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expression: &mut Expr) -> ControlFlow<()> {
        match expression {
            Expr::Function(_) => self.within_call -= 1,
            Expr::Identifier(name) => {
                let is_column = || self.reads.streams.iter().any(|table| table.column(&name.value).is_some());
                let named = self.select.iter().find_map(|item| match item {
                    SelectItem::ExprWithAlias { expr, alias } if alias.value.eq_ignore_ascii_case(&name.value) => {
                        Some(expr.clone())
                    }
                    _ => None,
                });
                // `max(t) AS t`: within max(t) it is the column.
                if let Some(named) = named.filter(|_| self.within_call == 0 || !is_column()) {
                    *expression = nested(named);
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}
