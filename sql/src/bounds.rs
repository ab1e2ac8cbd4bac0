//! What a question from outside may contain. Short SELECTs can take all memory, never end or overflow a stack: this turns away those that
//! are known to, with a message; what comes through runs in a process that can be killed.

use std::ops::ControlFlow;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::scalar::ScalarValue;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{Expr as SqlExpr, FunctionArg, Query, TableFactor, Visit, Visitor};

/// Bytes of one statement.
const SQL_BYTES: usize = 256 << 10;
/// Parts of all its expressions. Planning takes time with their square: 2 KB of `1+1+1...` took seconds elsewhere.
const EXPRESSIONS: usize = 2_000;
/// Nodes of its plan.
const OPERATORS: usize = 500;
/// Values of one IN list.
const LISTED: usize = 1_000;
/// Times that a function may repeat a text or an element, and how far it may widen one.
const REPEATED: u64 = 10_000;
/// Tables, subqueries and functions in all FROMs, and names of WITH: planning time and stacks grow with them.
const RELATIONS: usize = 50;

/// Functions whose answer's size is a number that they are given, by the place of that number.
const SIZED: [(&str, usize); 9] = [
    ("repeat", 1),
    ("lpad", 1),
    ("rpad", 1),
    ("array_repeat", 1),
    ("list_repeat", 1),
    ("array_resize", 1),
    ("list_resize", 1),
    ("generate_series", 1),
    ("range", 1),
];

/// Refuses a text before it is parsed.
pub fn check_text(sql: &str) -> Result<(), String> {
    if sql.len() > SQL_BYTES {
        return Err(format!("expected at most {} KiB of SQL, found {}", SQL_BYTES >> 10, sql.len() >> 10));
    }
    Ok(())
}

/// Refuses a statement before it is planned.
pub fn check_statement(statement: &Statement) -> Result<(), String> {
    match inner(statement) {
        Some(statement) => match statement.visit(&mut Look { parts: 0, relations: 0 }) {
            ControlFlow::Break(problem) => Err(problem),
            ControlFlow::Continue(()) => Ok(()),
        },
        None => Err("expected SELECT or EXPLAIN".to_string()),
    }
}

fn inner(statement: &Statement) -> Option<&datafusion::sql::sqlparser::ast::Statement> {
    match statement {
        Statement::Statement(statement) => Some(statement),
        Statement::Explain(explain) => inner(&explain.statement),
        _ => None,
    }
}

/// Ends at what is not allowed.
struct Look {
    parts: usize,
    relations: usize,
}

impl Look {
    fn count_relations(&mut self, more: usize) -> ControlFlow<String> {
        self.relations += more;
        if self.relations > RELATIONS {
            return ControlFlow::Break(format!("expected at most {RELATIONS} tables and subqueries"));
        }
        ControlFlow::Continue(())
    }
}

impl Visitor for Look {
    type Break = String;

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<String> {
        let (name, arguments) = match factor {
            TableFactor::Table { name, args: Some(call), .. } => (name.to_string(), &call.args[..]),
            TableFactor::Function { name, args, .. } => (name.to_string(), &args[..]),
            TableFactor::TableFunction { expr, .. } => (expr.to_string(), &[][..]),
            _ => return self.count_relations(1),
        };
        // What catalogs are asked with: few numbers, or the bounds of an array.
        let is_few = |argument: &FunctionArg| {
            let text = argument.to_string();
            text.parse::<i64>().is_ok_and(|number| number.unsigned_abs() <= REPEATED) || text.starts_with("array_")
        };
        let is_known = ["generate_series", "pg_get_keywords"].iter().any(|known| name.ends_with(known));
        if is_known && arguments.iter().all(is_few) {
            return self.count_relations(1);
        }
        ControlFlow::Break(format!("'{name}' in FROM: expected a table"))
    }

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<String> {
        self.count_relations(query.with.as_ref().map_or(0, |with| with.cte_tables.len()))
    }

    fn pre_visit_expr(&mut self, expression: &SqlExpr) -> ControlFlow<String> {
        self.parts += 1;
        if let SqlExpr::InList { list, .. } = expression
            && list.len() > LISTED
        {
            return ControlFlow::Break(format!("expected at most {LISTED} values in IN, found {}", list.len()));
        }
        if self.parts > EXPRESSIONS {
            return ControlFlow::Break(format!("expected at most {EXPRESSIONS} parts of expressions"));
        }
        ControlFlow::Continue(())
    }
}

/// Refuses a plan by what is in it: only what reads is allowed, by name, so that what a new version brings is not.
pub fn check_plan(plan: &LogicalPlan) -> Result<(), String> {
    let (mut operators, mut fault) = (0, None);
    let walked = plan.apply_with_subqueries(|node| {
        operators += 1;
        fault = fault.take().or_else(|| unreadable(node));
        if operators > OPERATORS {
            fault = Some(format!("expected at most {OPERATORS} operators"));
        }
        node.apply_expressions(|expression| {
            expression.apply(|expression| {
                fault = fault.take().or_else(|| oversized(expression));
                Ok(TreeNodeRecursion::Continue)
            })
        })?;
        Ok(if fault.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    walked.map_err(|error| error.strip_backtrace())?;
    fault.map_or(Ok(()), Err)
}

fn unreadable(node: &LogicalPlan) -> Option<String> {
    match node {
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::Window(_)
        | LogicalPlan::Aggregate(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Join(_)
        | LogicalPlan::Repartition(_)
        | LogicalPlan::Union(_)
        | LogicalPlan::TableScan(_)
        | LogicalPlan::EmptyRelation(_)
        | LogicalPlan::Subquery(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Limit(_)
        | LogicalPlan::Values(_)
        | LogicalPlan::Explain(_)
        | LogicalPlan::Analyze(_)
        | LogicalPlan::Distinct(_)
        | LogicalPlan::DescribeTable(_)
        | LogicalPlan::Unnest(_) => None,
        LogicalPlan::RecursiveQuery(_) => Some("WITH RECURSIVE is not possible here".to_string()),
        other => Some(format!("only reading is possible here, not {}", other.display())),
    }
}

fn oversized(expression: &Expr) -> Option<String> {
    match expression {
        Expr::Cast(cast) if matches!(cast.field.data_type(), DataType::FixedSizeList(_, _)) => {
            Some("a list of a fixed size is not possible here".to_string())
        }
        Expr::ScalarFunction(call) if call.name() == "arrow_cast" => Some("expected CAST, not arrow_cast".to_string()),
        Expr::ScalarFunction(call) => {
            let (name, place) = *SIZED.iter().find(|(name, _)| *name == call.name())?;
            // Of a range both ends count; with one argument it begins at nought.
            let from = if ["range", "generate_series"].contains(&name) { 0 } else { place };
            let sizes = call.args.iter().take(place + 1).skip(from);
            let is_small = |size: &Expr| whole(size).is_some_and(|size| size.unsigned_abs() <= REPEATED);
            let small = sizes.clone().count() > 0 && sizes.clone().all(is_small);
            (!small).then(|| format!("{name}: expected a number of at most {REPEATED} as it stands there"))
        }
        _ => None,
    }
}

/// A whole number that is written down, also behind a cast that the planner put there.
fn whole(expression: &Expr) -> Option<i64> {
    match expression {
        Expr::Literal(value, _) => match value {
            ScalarValue::Int64(value) => *value,
            ScalarValue::UInt64(value) => i64::try_from((*value)?).ok(),
            ScalarValue::Int32(value) => value.map(i64::from),
            _ => None,
        },
        Expr::Cast(cast) => whole(&cast.expr),
        Expr::Negative(inner) => whole(inner).and_then(i64::checked_neg),
        _ => None,
    }
}
