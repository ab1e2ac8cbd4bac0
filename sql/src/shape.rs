//! What kind of rule a plan is, what identifies its alerts, and which part of its WHERE is about labels.

use std::collections::HashSet;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, Result};
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, LogicalPlanBuilder, Volatility, lit};
use tidewatch_model::table::{TIME_COLUMN, Table};

use crate::rows_table::{WINDOW_END, WINDOW_START};

/// The extra column that carries a row's ts out of a row rule.
pub const ROW_TIME: &str = "__tidewatch_ts";

/// A plan that this version can evaluate, taken apart.
#[derive(Debug)]
pub struct RulePlan {
    /// Yields the rows that fire.
    pub matching: LogicalPlan,
    /// Yields the identities that had rows at all, whether they match or not.
    pub present: LogicalPlan,
    /// The identity columns, as the SELECT names them.
    pub key: Vec<String>,
}

/// Says why a plan can't be a rule, or `None` when its nodes are all of the few kinds that this version evaluates.
pub fn refusal(plan: &LogicalPlan) -> Option<String> {
    let mut reason = None;
    let _ = plan.apply(|node| {
        reason = match node {
            LogicalPlan::Projection(_)
            | LogicalPlan::Filter(_)
            | LogicalPlan::Aggregate(_)
            | LogicalPlan::TableScan(_)
            | LogicalPlan::SubqueryAlias(_) => expression_refusal(node),
            LogicalPlan::Window(_) => Some("OVER is not supported by this version yet".to_string()),
            LogicalPlan::Join(_) => Some(later("a join")),
            LogicalPlan::Union(_) | LogicalPlan::Distinct(_) => Some(later("UNION or DISTINCT")),
            LogicalPlan::Sort(_) | LogicalPlan::Limit(_) => {
                Some("ORDER BY and LIMIT have no meaning in a rule: every row is an alert".to_string())
            }
            other => Some(later(&format!("{}", other.display()))),
        };
        Ok(if reason.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    reason
}

fn later(what: &str) -> String {
    format!("{what} needs the general path (options 'every' and 'over'), which this version does not have yet")
}

fn expression_refusal(node: &LogicalPlan) -> Option<String> {
    let mut reason = None;
    for expression in node.expressions() {
        let _ = expression.apply(|part| {
            reason = match part {
                Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_) => Some(later("a subquery")),
                Expr::ScalarFunction(call) if call.func.signature().volatility != Volatility::Immutable => Some(format!(
                    "{}() is not deterministic: a replay would give other alerts; use {WINDOW_END} or {TIME_COLUMN}",
                    call.func.name()
                )),
                _ => None,
            };
            Ok(if reason.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        });
        if reason.is_some() {
            break;
        }
    }
    reason
}

/// The one aggregation of a plan, if it has one.
pub fn aggregate_of(plan: &LogicalPlan) -> Option<&Aggregate> {
    match plan {
        LogicalPlan::Aggregate(aggregate) => Some(aggregate),
        _ => plan.inputs().first().and_then(|input| aggregate_of(input)),
    }
}

/// Takes a windowed rule apart. `chosen` is the option `key`.
pub fn windowed(
    plan: &LogicalPlan,
    table: &Table,
    chosen: Option<&[String]>,
) -> Result<std::result::Result<RulePlan, String>> {
    match aggregate_of(plan) {
        Some(aggregate) => aggregated(plan, aggregate, table, chosen),
        None => each_row(plan, table, chosen, false),
    }
}

/// Takes a row rule apart.
pub fn row(
    plan: &LogicalPlan,
    table: &Table,
    chosen: Option<&[String]>,
) -> Result<std::result::Result<RulePlan, String>> {
    each_row(plan, table, chosen, true)
}

fn aggregated(
    plan: &LogicalPlan,
    aggregate: &Aggregate,
    table: &Table,
    chosen: Option<&[String]>,
) -> Result<std::result::Result<RulePlan, String>> {
    let LogicalPlan::Projection(projection) = plan else {
        return Ok(Err("expected a plain SELECT list above GROUP BY".to_string()));
    };
    let mut key = Vec::new();
    let mut present = Vec::new();
    for (group, field) in aggregate.group_expr.iter().zip(aggregate.schema.columns()) {
        if is_window_column(&field) {
            continue;
        }
        let selected =
            projection.expr.iter().zip(projection.schema.fields()).find(|(expression, _)| selects(expression, &field));
        let Some((_, output)) = selected else {
            let name = field.name();
            return Ok(Err(format!(
                "GROUP BY column '{name}' is part of the alert's identity: expected it in the SELECT list too"
            )));
        };
        key.push(output.name().clone());
        present.push(group.clone().alias(output.name()));
    }
    if let Some(chosen) = chosen.filter(|chosen| chosen.iter().collect::<HashSet<_>>() != key.iter().collect()) {
        return Ok(Err(format!(
            "key: '{}' differs from the GROUP BY columns '{}', which identify the alerts of an aggregate",
            chosen.join(", "),
            key.join(", ")
        )));
    }
    let input = only_label_filters(aggregate.input.as_ref(), table)?;
    let builder = LogicalPlanBuilder::from(input);
    let present = match present.is_empty() {
        true => builder.project(vec![lit(true)])?.limit(0, Some(1))?,
        false => builder.project(present)?.distinct()?,
    };
    Ok(Ok(RulePlan { matching: grouped_by_window(plan)?, present: present.build()?, key }))
}

/// SQL's aggregate without GROUP BY yields a row even over nothing; one over windows has a window to group by, and over
/// nothing there is no window.
fn grouped_by_window(plan: &LogicalPlan) -> Result<LogicalPlan> {
    let grouped = plan.clone().transform_up(|node| match node {
        LogicalPlan::Aggregate(aggregate) if aggregate.group_expr.is_empty() => {
            let window = aggregate.input.schema().columns().into_iter().filter(|column| column.name == WINDOW_START);
            let groups: Vec<Expr> = window.map(Expr::Column).collect();
            let input = LogicalPlanBuilder::from(aggregate.input.as_ref().clone());
            Ok(Transformed::yes(input.aggregate(groups, aggregate.aggr_expr.clone())?.build()?))
        }
        other => Ok(Transformed::yes(other.recompute_schema()?)),
    })?;
    Ok(grouped.data)
}

/// Rules without aggregation: each row is an instance, identified by the table's identity columns that the SELECT keeps.
fn each_row(
    plan: &LogicalPlan,
    table: &Table,
    chosen: Option<&[String]>,
    with_time: bool,
) -> Result<std::result::Result<RulePlan, String>> {
    let LogicalPlan::Projection(projection) = plan else {
        return Ok(Err("expected a plain SELECT list".to_string()));
    };
    let names: Vec<&String> = projection.schema.fields().iter().map(|field| field.name()).collect();
    let key: Vec<String> = match chosen {
        Some(chosen) => chosen.to_vec(),
        None => kept_identity(&projection.expr, &names, table),
    };
    if let Some(missing) = key.iter().find(|column| !names.contains(column)) {
        return Ok(Err(format!("key: the SELECT has no column '{missing}': expected one of {}", join(&names))));
    }
    if key.is_empty() {
        let identity: Vec<&str> = table.identity().collect();
        return Ok(Err(format!(
            "nothing identifies the alerts: expected one of the identity columns of '{}' ({}) in the SELECT list, or the option key",
            table.name,
            identity.join(", ")
        )));
    }
    let time = || time_column(projection.input.as_ref()).alias(ROW_TIME);
    let mut matching = projection.expr.clone();
    let mut present: Vec<Expr> = projection
        .expr
        .iter()
        .zip(&names)
        .filter(|(_, name)| key.contains(name))
        .map(|(expression, name)| expression.clone().unalias().alias(name.as_str()))
        .collect();
    if with_time {
        matching.push(time());
        present.push(time());
    }
    let matching = LogicalPlanBuilder::from(projection.input.as_ref().clone()).project(matching)?.build()?;
    let labelled = only_label_filters(projection.input.as_ref(), table)?;
    let present = LogicalPlanBuilder::from(labelled).project(present)?.distinct()?.build()?;
    Ok(Ok(RulePlan { matching, present, key }))
}

fn kept_identity(expressions: &[Expr], names: &[&String], table: &Table) -> Vec<String> {
    let identity: HashSet<&str> = table.identity().collect();
    let kept = expressions.iter().zip(names).filter(|(expression, _)| {
        matches!(expression_without_alias(expression), Expr::Column(column) if identity.contains(column.name.as_str()))
    });
    kept.map(|(_, name)| name.to_string()).collect()
}

fn expression_without_alias(expression: &Expr) -> &Expr {
    match expression {
        Expr::Alias(alias) => expression_without_alias(&alias.expr),
        other => other,
    }
}

fn selects(expression: &Expr, group: &Column) -> bool {
    matches!(expression_without_alias(expression), Expr::Column(column) if column == group)
}

/// `window_start` and `window_end` of the table itself; an expression that merely is called so is an identity.
fn is_window_column(column: &Column) -> bool {
    column.name == WINDOW_START || column.name == WINDOW_END
}

fn time_column(input: &LogicalPlan) -> Expr {
    let found = input.schema().columns().into_iter().find(|column| column.name == TIME_COLUMN);
    Expr::Column(found.unwrap_or_else(|| Column::new_unqualified(TIME_COLUMN)))
}

/// The same input with WHERE reduced to the conditions that are about identity columns only: rows that pass these exist
/// for the rule, whether or not their values make it fire.
fn only_label_filters(input: &LogicalPlan, table: &Table) -> Result<LogicalPlan> {
    let identity: HashSet<&str> = table.identity().collect();
    let reduced = input.clone().transform_up(|node| {
        let LogicalPlan::Filter(filter) = node else { return Ok(Transformed::no(node)) };
        let labels = split_conjunction(&filter.predicate)
            .into_iter()
            .filter(|part| part.column_refs().iter().all(|column| identity.contains(column.name.as_str())))
            .cloned();
        match conjunction(labels) {
            Some(predicate) => {
                let input = filter.input.as_ref().clone();
                Ok(Transformed::yes(LogicalPlanBuilder::from(input).filter(predicate)?.build()?))
            }
            None => Ok(Transformed::yes(filter.input.as_ref().clone())),
        }
    })?;
    Ok(reduced.data)
}

fn join(names: &[&String]) -> String {
    names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ")
}
