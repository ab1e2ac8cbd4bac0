//! What is said of a rule that compiles: it runs, and may not do what its author expects.

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan, Operator};
use datafusion::sql::sqlparser::ast::{self, GroupByExpr, SetExpr};
use tidewatch_model::rule::SEVERITY;
use tidewatch_model::table::{ColumnType, Table};
use tidewatch_model::{RuleShape, Severity};

use crate::compile::{Strategy, place_of_word};
use crate::fault::Fault;
use crate::reads::Reads;
use crate::rows_table::Source;
use crate::statement::WrittenAlert;

/// Things that run and may not do what their author expects.
pub fn remarks_on(alert: &WrittenAlert, reads: &Reads, plan: &LogicalPlan, shape: RuleShape) -> Vec<Fault> {
    let mut remarks = Vec::new();
    if let (RuleShape::Window(_), [Source::Window(..)], SetExpr::Select(select)) =
        (shape, reads.leaves.as_slice(), alert.query.body.as_ref())
        && let GroupByExpr::Expressions(groups, _) = &select.group_by
    {
        let names_window = groups.iter().any(|group| group.to_string().to_lowercase().starts_with("window_"));
        if !groups.is_empty() && !names_window {
            remarks.push(Fault::note(alert.at.clone(), "GROUP BY without window_start, window_end means them"));
        }
    }
    let _ = plan.apply_with_subqueries(|node| {
        for expression in node.expressions() {
            let _ = expression.apply(|part| {
                remarks.extend(remark_on_expression(alert, &reads.streams, part));
                Ok(TreeNodeRecursion::Continue)
            });
        }
        Ok(TreeNodeRecursion::Continue)
    });
    remarks.dedup();
    remarks
}

/// A join of everything with everything is seldom meant. One side of one row is: the mean of a fleet, beside each of its hosts.
pub fn remark_on_joins(alert: &WrittenAlert, strategy: &Strategy) -> Option<Fault> {
    let (Strategy::General(general) | Strategy::RowGeneral(general)) = strategy else { return None };
    let is_product = |node: &LogicalPlan| match node {
        LogicalPlan::Join(join) => {
            let is_one = |side: &LogicalPlan| side.max_rows() == Some(1);
            join.on.is_empty() && join.filter.is_none() && !is_one(&join.left) && !is_one(&join.right)
        }
        _ => false,
    };
    // The closure does not fail.
    let found = general.matching.exists(|node| Ok(is_product(node))).unwrap_or(false);
    let message = "it joins every row with every row: expected a condition, as in JOIN ... ON a.host = b.host";
    found.then(|| Fault::warning(alert.at.clone(), message))
}

/// A column `severity` says how urgent a row is: it must be a text, and words that are none of ours are warned of.
pub fn check_severity(alert: &WrittenAlert, plan: &LogicalPlan, key: &[String]) -> Result<Vec<Fault>, Fault> {
    let field = plan.schema().fields().iter().find(|field| field.name() == SEVERITY);
    let Some(field) = field.filter(|_| !key.iter().any(|column| column == SEVERITY)) else { return Ok(vec![]) };
    let at = place_of_word(alert, SEVERITY);
    if !matches!(field.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View) {
        let message =
            format!("the column severity is {}: expected a text, info, warning or critical", field.data_type());
        return Err(Fault::error(at, message));
    }
    let SetExpr::Select(select) = alert.query.body.as_ref() else { return Ok(vec![]) };
    let written = select.projection.iter().find_map(|item| match item {
        ast::SelectItem::ExprWithAlias { expr, alias } if alias.value.eq_ignore_ascii_case(SEVERITY) => Some(expr),
        _ => None,
    });
    let mut words = Vec::new();
    written.into_iter().for_each(|expression| words_of(expression, &mut words));
    let unknown = words.into_iter().filter(|word| word.trim().to_lowercase().parse::<Severity>().is_err());
    let message = |word: String| {
        format!("'{word}' is not one of info, warning, critical: such a row has the severity of the option")
    };
    Ok(unknown.map(|word| Fault::warning(at.clone(), message(word))).collect())
}

/// The texts that an expression may yield, where they are written out.
fn words_of(expression: &ast::Expr, words: &mut Vec<String>) {
    match expression {
        ast::Expr::Value(value) => {
            if let ast::Value::SingleQuotedString(word) = &value.value {
                words.push(word.clone());
            }
        }
        ast::Expr::Nested(inner) => words_of(inner, words),
        ast::Expr::Case { conditions, else_result, .. } => {
            conditions.iter().for_each(|when| words_of(&when.result, words));
            else_result.iter().for_each(|result| words_of(result, words));
        }
        _ => {}
    }
}

fn remark_on_expression(alert: &WrittenAlert, tables: &[&Table], expression: &Expr) -> Option<Fault> {
    let Expr::BinaryExpr(binary) = expression else { return None };
    match binary.op {
        Operator::Divide | Operator::Modulo if !matches!(binary.right.as_ref(), Expr::Literal(..)) => {
            let message = format!(
                "'{expression}' fails for the whole fleet when an integer divisor is zero: ratio(a, b) gives NULL instead"
            );
            Some(Fault::warning(alert.at.clone(), message))
        }
        Operator::Gt | Operator::GtEq => {
            let columns = binary.left.column_refs();
            let nan = columns.iter().find(|column| {
                let mut found = tables.iter().filter_map(|table| table.column(&column.name));
                found.any(|found| found.column_type == ColumnType::Float64WithNan)
            })?;
            let message = format!(
                "'{}' may hold NaN, and NaN > x is true: say isnan({}) or NOT isnan({}) too",
                nan.name, nan.name, nan.name
            );
            Some(Fault::warning(place_of_word(alert, &nan.name), message))
        }
        _ => None,
    }
}
