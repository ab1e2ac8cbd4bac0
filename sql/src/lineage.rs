//! Where a column of a plan comes from: which columns of which tables have its value in every row.

use std::collections::BTreeMap;

use datafusion::common::Column;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Distinct, Expr, Join, JoinType, LogicalPlan, Operator};

use crate::rows_table::{Source, source_of};

/// A column of a leaf of the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Which leaf, counted from the left.
    pub leaf: usize,
    /// What it reads.
    pub source: Source,
    /// The column there.
    pub column: String,
}

/// The leaves that know the identity of a rule's alerts, each with the key columns that it knows and its own names for them.
pub type Knowing = BTreeMap<usize, (Source, Vec<(String, String)>)>;

/// Which leaves of rows over time know these output columns.
pub fn knowing(plan: &LogicalPlan, key: &[String]) -> Knowing {
    let mut leaves = Knowing::new();
    for (index, field) in plan.schema().fields().iter().enumerate().filter(|(_, field)| key.contains(field.name())) {
        for origin in origins(plan, index).into_iter().filter(|origin| origin.source.stream().is_some()) {
            let (_, columns) = leaves.entry(origin.leaf).or_insert((origin.source, vec![]));
            if columns.iter().all(|(name, _)| name != field.name()) {
                columns.push((field.name().clone(), origin.column));
            }
        }
    }
    leaves
}

/// The first of these output columns that can't be followed to a column of any table.
pub fn unfollowed(plan: &LogicalPlan, key: &[String]) -> Option<String> {
    let fields = plan.schema().fields().iter().enumerate();
    let mut of_key = fields.filter(|(_, field)| key.contains(field.name()));
    of_key.find(|(index, _)| origins(plan, *index).is_empty()).map(|(_, field)| field.name().clone())
}

/// The columns whose value an output column has.
pub fn origins(plan: &LogicalPlan, index: usize) -> Vec<Origin> {
    let mut found = Vec::new();
    trace(plan, index, 0, &mut found);
    found
}

fn trace(plan: &LogicalPlan, index: usize, base: usize, found: &mut Vec<Origin>) {
    match plan {
        LogicalPlan::TableScan(scan) => {
            let column = scan.projected_schema.field(index).name().clone();
            let Some(source) = source_of(scan) else { return };
            let origin = Origin { leaf: base, source, column };
            if !found.contains(&origin) {
                found.push(origin);
            }
        }
        LogicalPlan::Projection(projection) => {
            if let Some(below) = place(&projection.expr[index], &projection.input) {
                trace(&projection.input, below, base, found);
            }
        }
        LogicalPlan::Aggregate(aggregate) => {
            let group = aggregate.group_expr.get(index);
            if let Some(below) = group.and_then(|group| place(group, &aggregate.input)) {
                trace(&aggregate.input, below, base, found);
            }
        }
        LogicalPlan::Filter(filter) => {
            trace(&filter.input, index, base, found);
            for (left, right) in equal_columns(&[&filter.predicate]) {
                if let Some(below) = other_side(&filter.input, index, &left, &right) {
                    trace(&filter.input, below, base, found);
                }
            }
        }
        LogicalPlan::Window(window) if index < window.input.schema().fields().len() => {
            trace(&window.input, index, base, found);
        }
        LogicalPlan::SubqueryAlias(alias) => trace(&alias.input, index, base, found),
        LogicalPlan::Sort(sort) => trace(&sort.input, index, base, found),
        LogicalPlan::Limit(limit) => trace(&limit.input, index, base, found),
        LogicalPlan::Distinct(Distinct::All(input)) => trace(input, index, base, found),
        LogicalPlan::Join(join) => trace_join(join, index, base, found),
        LogicalPlan::Union(union) => {
            // A row of a union is of one of its inputs: what all say is so.
            let of_inputs: Vec<Vec<Origin>> = union.inputs.iter().map(|input| origins(input, index)).collect();
            let plain =
                |origins: &[Origin]| origins.first().map(|origin| (origin.source.clone(), origin.column.clone()));
            let first = of_inputs.first().and_then(|origins| plain(origins));
            if let Some((source, column)) =
                first.filter(|first| of_inputs.iter().all(|each| plain(each).as_ref() == Some(first)))
            {
                found.push(Origin { leaf: base, source, column });
            }
        }
        _ => {}
    }
}

fn trace_join(join: &Join, index: usize, base: usize, found: &mut Vec<Origin>) {
    let left_width = join.left.schema().fields().len();
    let of_right = matches!(join.join_type, JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark);
    let right_base = base + leaves(&join.left);
    let (from_left, below) = match of_right {
        true => (false, index),
        false if index < left_width => (true, index),
        false => (false, index - left_width),
    };
    let (near, near_base, far, far_base) = match from_left {
        true => (&join.left, base, &join.right, right_base),
        false => (&join.right, right_base, &join.left, base),
    };
    if below >= near.schema().fields().len() {
        return;
    }
    trace(near, below, near_base, found);
    // The other side has an equal column in every row, where a row without its partner does not come through.
    let both = match join.join_type {
        JoinType::Inner | JoinType::LeftSemi | JoinType::RightSemi => true,
        JoinType::Left => !from_left,
        JoinType::Right => from_left,
        _ => false,
    };
    if !both {
        return;
    }
    let on = join.on.iter().filter_map(|(left, right)| Some((left.try_as_col()?.clone(), right.try_as_col()?.clone())));
    let filters: Vec<&Expr> = join.filter.iter().collect();
    for (left, right) in on.chain(equal_columns(&filters)) {
        for (mine, theirs) in [(&left, &right), (&right, &left)] {
            if near.schema().maybe_index_of_column(mine) == Some(below)
                && let Some(there) = far.schema().maybe_index_of_column(theirs)
            {
                trace(far, there, far_base, found);
            }
        }
    }
}

/// The column of the input that an expression is.
fn place(expression: &Expr, input: &LogicalPlan) -> Option<usize> {
    match expression {
        Expr::Alias(alias) => place(&alias.expr, input),
        Expr::Column(column) => input.schema().maybe_index_of_column(column),
        _ => None,
    }
}

/// Pairs of columns that conditions hold equal.
fn equal_columns(conditions: &[&Expr]) -> Vec<(Column, Column)> {
    let parts = conditions.iter().flat_map(|condition| split_conjunction(condition));
    let pairs = parts.filter_map(|part| match part {
        Expr::BinaryExpr(binary) if binary.op == Operator::Eq => {
            Some((binary.left.try_as_col()?.clone(), binary.right.try_as_col()?.clone()))
        }
        _ => None,
    });
    pairs.collect()
}

/// The columns of an input that are equal to one of it.
fn other_side(input: &LogicalPlan, index: usize, left: &Column, right: &Column) -> Option<usize> {
    let schema = input.schema();
    let (left, right) = (schema.maybe_index_of_column(left)?, schema.maybe_index_of_column(right)?);
    match index {
        _ if index == left => Some(right),
        _ if index == right => Some(left),
        _ => None,
    }
}

fn leaves(plan: &LogicalPlan) -> usize {
    let mut count = 0;
    // The closure does not fail.
    let _ = plan.apply(|node| {
        count += usize::from(matches!(node, LogicalPlan::TableScan(_)));
        Ok(TreeNodeRecursion::Continue)
    });
    count
}
