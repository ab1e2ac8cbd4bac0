//! SELECTs within SELECTs as one: each column as an expression over the columns of the innermost source, and all conditions together.

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, Result};
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Expr, LogicalPlan};

use crate::rows_table::source_of;

/// A chain of projections, filters and OVERs over one source.
#[derive(Debug)]
pub struct Flat {
    /// What each column of the result is, over the columns of the source and those of the OVERs.
    pub columns: Vec<Expr>,
    /// Conditions that rows of the source must pass, in the order in which they were written: one may guard the next.
    pub conditions: Vec<Expr>,
    /// The OVERs over the rows that pass. The column of each is called by [`over_name`].
    pub overs: Vec<WindowFunction>,
    /// Conditions on the results of OVERs.
    pub after: Vec<Expr>,
}

impl Flat {
    /// An expression over the result, which has this schema, as one over the source.
    pub fn over_source(&self, expression: &Expr, schema: &DFSchema) -> Result<Expr> {
        substituted(expression, schema, &self.columns)
    }
}

/// How the column of an OVER is called.
pub fn over_name(index: usize) -> String {
    format!("over_{index}")
}

/// An unqualified column.
pub fn column(name: &str) -> Expr {
    Expr::Column(Column::new_unqualified(name))
}

/// The columns of a table that is read whole, named as the table names them.
pub fn table_columns(plan: &LogicalPlan) -> Option<Vec<Expr>> {
    match plan {
        LogicalPlan::TableScan(scan)
            if scan.filters.is_empty()
                && scan.projection.is_none()
                && scan.fetch.is_none()
                && source_of(scan).is_some() =>
        {
            Some(scan.projected_schema.fields().iter().map(|field| column(field.name())).collect())
        }
        _ => None,
    }
}

/// Flattens a plan down to what `leaf` knows the columns of; says why not where there is more between.
pub fn flatten(
    plan: &LogicalPlan,
    leaf: &dyn Fn(&LogicalPlan) -> Option<Vec<Expr>>,
) -> Result<std::result::Result<Flat, String>> {
    if let Some(columns) = leaf(plan) {
        return Ok(Ok(Flat { columns, conditions: vec![], overs: vec![], after: vec![] }));
    }
    let below = match plan {
        LogicalPlan::Projection(projection) => &projection.input,
        LogicalPlan::Filter(filter) => &filter.input,
        LogicalPlan::SubqueryAlias(alias) => &alias.input,
        LogicalPlan::Window(window) => &window.input,
        LogicalPlan::Aggregate(_) => return Ok(Err("it aggregates what was aggregated".to_string())),
        other => return Ok(Err(format!("it has {}", other.display()))),
    };
    let mut flat = match flatten(below, leaf)? {
        Ok(flat) => flat,
        Err(reason) => return Ok(Err(reason)),
    };
    let schema = below.schema();
    let is_subquery = |part: &Expr| {
        Ok(matches!(part, Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_)))
    };
    for expression in plan.expressions() {
        if expression.exists(is_subquery)? {
            return Ok(Err("it has a subquery".to_string()));
        }
    }
    match plan {
        LogicalPlan::Projection(projection) => {
            let columns = projection.expr.iter().map(|expression| substituted(expression, schema, &flat.columns));
            flat.columns = columns.collect::<Result<_>>()?;
        }
        LogicalPlan::Filter(filter) => {
            for part in split_conjunction(&filter.predicate) {
                let part = substituted(part, schema, &flat.columns)?;
                if flat.overs.is_empty() { &mut flat.conditions } else { &mut flat.after }.push(part);
            }
        }
        LogicalPlan::Window(window) => {
            if !flat.after.is_empty() {
                return Ok(Err("an OVER over what another OVER chose".to_string()));
            }
            let known = flat.overs.len();
            for expression in &window.window_expr {
                let Expr::WindowFunction(over) = substituted(expression, schema, &flat.columns)? else {
                    return Ok(Err(format!("{expression} is no plain OVER")));
                };
                flat.overs.push(*over);
            }
            let nested = flat.overs[known..].iter().any(|over| {
                let read = Expr::from(over.clone())
                    .column_refs()
                    .into_iter()
                    .map(|column| column.name.clone())
                    .collect::<Vec<_>>();
                (0..known).any(|other| read.contains(&over_name(other)))
            });
            if nested {
                return Ok(Err("an OVER over another OVER".to_string()));
            }
            flat.columns.extend((known..flat.overs.len()).map(|index| column(&over_name(index))));
        }
        _ => {}
    }
    Ok(Ok(flat))
}

/// The expression with each column replaced by what it is below.
fn substituted(expression: &Expr, schema: &DFSchema, columns: &[Expr]) -> Result<Expr> {
    let replaced = expression.clone().unalias_nested().data.transform_up(|part| match part {
        Expr::Column(column) => Ok(Transformed::yes(columns[schema.index_of_column(&column)?].clone())),
        other => Ok(Transformed::no(other)),
    })?;
    Ok(replaced.data)
}
