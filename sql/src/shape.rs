//! What kind of rule a plan is, what identifies its alerts, and which part of its WHERE is about labels.

use std::collections::HashSet;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, Result};
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, LogicalPlanBuilder, Projection, Volatility, lit};
use tidewatch_model::RuleShape;
use tidewatch_model::table::{self, TIME_COLUMN, Table};

use crate::compile::Present;
use crate::lineage::{Origin, knowing, origins};
use crate::reads::Reads;
use crate::rows_table::{Source, WINDOW_END, WINDOW_START};

/// The extra column that carries a row's ts out of a row rule.
pub const ROW_TIME: &str = "__tidewatch_ts";

/// A rule's plan, taken apart.
#[derive(Debug)]
pub struct RulePlan {
    /// Yields the rows that fire.
    pub matching: LogicalPlan,
    /// Yields the identities that had rows at all, whether they match or not.
    pub present: Present,
    /// The identity columns, as the SELECT names them.
    pub key: Vec<String>,
}

/// Says why a plan can't be a rule, whatever bounds it.
pub fn refusal(plan: &LogicalPlan) -> Option<String> {
    let mut reason = None;
    // The closure does not fail.
    let _ = plan.apply_with_subqueries(|node| {
        reason = match node {
            LogicalPlan::RecursiveQuery(_) => {
                Some("WITH RECURSIVE may never end: expected a query without it".to_string())
            }
            LogicalPlan::Dml(_) | LogicalPlan::Ddl(_) | LogicalPlan::Copy(_) | LogicalPlan::Statement(_) => {
                Some("expected a SELECT".to_string())
            }
            node => expression_refusal(node),
        };
        Ok(if reason.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    reason
}

fn expression_refusal(node: &LogicalPlan) -> Option<String> {
    let mut reason = None;
    for expression in node.expressions() {
        let _ = expression.apply(|part| {
            reason = match part {
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
fn aggregate_of(plan: &LogicalPlan) -> Option<&Aggregate> {
    match plan {
        LogicalPlan::Aggregate(aggregate) => Some(aggregate),
        _ => plan.inputs().first().and_then(|input| aggregate_of(input)),
    }
}

/// Takes a rule apart. `chosen` is the option `key`.
pub fn take_apart(
    plan: &LogicalPlan,
    reads: &Reads,
    shape: RuleShape,
    chosen: Option<&[String]>,
) -> Result<std::result::Result<RulePlan, String>> {
    let with_time = shape == RuleShape::Row;
    match (is_simple(plan) && reads.is_alone(), aggregate_of(plan)) {
        (true, Some(aggregate)) => aggregated(plan, aggregate, reads.streams[0], chosen),
        (true, None) => each_row(plan, reads.streams[0], chosen, with_time),
        (false, _) if with_time => match identity_of(plan, chosen)? {
            Ok(key) => each_row(plan, reads.streams[0], Some(&key), true),
            Err(reason) => Ok(Err(reason)),
        },
        (false, _) => Ok(identity_of(plan, chosen)?.map(|key| {
            let present = Present::Leaves(knowing(plan, &key));
            RulePlan { matching: plan.clone(), present, key }
        })),
    }
}

/// Whether a plan is a SELECT from one place, with at most one aggregation, and nothing else.
fn is_simple(plan: &LogicalPlan) -> bool {
    let (mut plain, mut aggregates, mut projections) = (true, 0, 0);
    // The closure does not fail.
    let _ = plan.apply_with_subqueries(|node| {
        match node {
            LogicalPlan::Aggregate(_) => aggregates += 1,
            LogicalPlan::Projection(_) => projections += 1,
            LogicalPlan::Filter(_) | LogicalPlan::TableScan(_) | LogicalPlan::SubqueryAlias(_) => {}
            _ => plain = false,
        }
        Ok(TreeNodeRecursion::Continue)
    });
    plain && aggregates <= 1 && projections == 1
}

/// What identifies the alerts of any query: the option `key`, else the columns of the outermost GROUP BY, else those selected columns
/// that are identity columns of the tables that they come from.
fn identity_of(plan: &LogicalPlan, chosen: Option<&[String]>) -> Result<std::result::Result<Vec<String>, String>> {
    let names: Vec<&String> = plan.schema().fields().iter().map(|field| field.name()).collect();
    if let Some(chosen) = chosen {
        return Ok(match chosen.iter().find(|column| !names.contains(column)) {
            Some(missing) => Err(no_such_key(missing, &names)),
            None => Ok(chosen.to_vec()),
        });
    }
    if let LogicalPlan::Projection(projection) = plan {
        let below = match projection.input.as_ref() {
            LogicalPlan::Filter(filter) => filter.input.as_ref(),
            other => other,
        };
        if let LogicalPlan::Aggregate(aggregate) = below {
            return Ok(
                grouped_key(projection, aggregate).map(|pairs| pairs.into_iter().map(|(name, _)| name).collect())
            );
        }
    }
    let is_identity = |origin: &Origin| match &origin.source {
        Source::Dimension(name) => table::find_dimension(name)
            .is_some_and(|found| found.columns.iter().any(|column| column.identity && column.name == origin.column)),
        Source::Rows(name) | Source::Window(name, _) | Source::Presence(name) | Source::Stalled(name, _) => {
            table::find(name).is_some_and(|found| found.identity().any(|column| column == origin.column))
        }
    };
    let known = names.iter().enumerate().filter(|(index, _)| origins(plan, *index).iter().any(is_identity));
    let key: Vec<String> = known.map(|(_, name)| name.to_string()).collect();
    Ok(match key.is_empty() {
        true => Err(format!(
            "nothing identifies the alerts: expected an identity column of a table in the SELECT list, or the option key with some of {}",
            join(&names)
        )),
        false => Ok(key),
    })
}

fn no_such_key(missing: &str, names: &[&String]) -> String {
    format!("key: the SELECT has no column '{missing}': expected one of {}", join(names))
}

/// The GROUP BY columns but the window's, as the SELECT names them.
fn grouped_key(projection: &Projection, aggregate: &Aggregate) -> std::result::Result<Vec<(String, Expr)>, String> {
    let mut key = Vec::new();
    for (group, field) in aggregate.group_expr.iter().zip(aggregate.schema.columns()) {
        if is_window_column(&field) {
            continue;
        }
        let selected =
            projection.expr.iter().zip(projection.schema.fields()).find(|(expression, _)| selects(expression, &field));
        let Some((_, output)) = selected else {
            let name = field.name();
            return Err(format!(
                "GROUP BY column '{name}' is part of the alert's identity: expected it in the SELECT list too"
            ));
        };
        key.push((output.name().clone(), group.clone()));
    }
    Ok(key)
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
    let pairs = match grouped_key(projection, aggregate) {
        Ok(pairs) => pairs,
        Err(reason) => return Ok(Err(reason)),
    };
    let key: Vec<String> = pairs.iter().map(|(name, _)| name.clone()).collect();
    let present: Vec<Expr> = pairs.into_iter().map(|(name, group)| group.alias(name)).collect();
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
    Ok(Ok(RulePlan { matching: grouped_by_window(plan)?, present: Present::Plan(present.build()?), key }))
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
        return Ok(Err(no_such_key(missing, &names)));
    }
    if key.is_empty() {
        let identity: Vec<&str> = table.identity().collect();
        return Ok(Err(format!(
            "nothing identifies the alerts: expected one of the identity columns of '{}' ({}) in the SELECT list, or the option key",
            table.name,
            identity.join(", ")
        )));
    }
    let time = time_column(projection.input.as_ref()).map(|time| time.alias(ROW_TIME));
    if with_time && time.is_none() {
        return Ok(Err(format!(
            "a row's time is not known: expected {TIME_COLUMN} in the SELECT list of the subquery in FROM"
        )));
    }
    let mut matching = projection.expr.clone();
    let mut present: Vec<Expr> = projection
        .expr
        .iter()
        .zip(&names)
        .filter(|(_, name)| key.contains(name))
        .map(|(expression, name)| expression.clone().unalias().alias(name.as_str()))
        .collect();
    if let Some(time) = time.filter(|_| with_time) {
        matching.push(time.clone());
        present.push(time);
    }
    let matching = LogicalPlanBuilder::from(projection.input.as_ref().clone()).project(matching)?.build()?;
    let labelled = only_label_filters(projection.input.as_ref(), table)?;
    let present = LogicalPlanBuilder::from(labelled).project(present)?.distinct()?.build()?;
    Ok(Ok(RulePlan { matching, present: Present::Plan(present), key }))
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

/// The time of the rows over time among the columns.
fn time_column(input: &LogicalPlan) -> Option<Expr> {
    let columns = input.schema().columns();
    let is_time = |index: usize| {
        origins(input, index).iter().any(|origin| origin.source.stream().is_some() && origin.column == TIME_COLUMN)
    };
    let index = (0..columns.len()).find(|index| is_time(*index))?;
    Some(Expr::Column(columns[index].clone()))
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
