//! A windowed aggregate taken apart, so that rules can share what is alike in them.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, Result};
use datafusion::execution::context::ExecutionProps;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::expr::{AggregateFunction, AggregateFunctionParams};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::aggregate::LoweredAggregateBuilder;
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};
use tidewatch_model::table::Table;

use super::cube::{Aggregate, Cube};
use super::growth::{FloatCounter, Growth, IntegerCounter};
use super::kernel::{Bools, Count, Ends, Exact, Extremes, Floats, IntegerSum, Integers, Kernel, Texts};
use super::over::{OverCall, over_call};
use super::stock::Stock;
use crate::calls::check_constant;
use crate::ends::{End, end_of};
use crate::exact::ExactSum;
use crate::flat::{column, flatten, over_name, table_columns};
use crate::increase::growth_question;
use crate::moments::{Moments, Question};
use crate::percentile::{APPROX_PERCENTILE, quantile};
use crate::rows_table::{WINDOW_END, WINDOW_START, windowed_schema};
use crate::shape::{ROW_TIME, RulePlan};
use crate::sketch::Sketch;

/// A rule of the form `SELECT .. FROM HOP(..) WHERE .. GROUP BY .. HAVING ..`, all of whose aggregates have kernels.
///
/// Row expressions name the table's columns, without qualifier. What comes after the aggregation names the columns of
/// `schema`: `group_0` and so on, `aggregate_0` and so on, and the window's bounds.
#[derive(Debug, Clone)]
pub struct SharedPlan {
    /// Conditions on identity columns that are group columns too: about groups, not about rows. Over `schema`.
    pub of_groups: Option<Expr>,
    /// Other conditions on identity columns: rows that do not pass them do not exist for the rule.
    pub labels: Vec<Expr>,
    /// Conditions on values: rows that do not pass them exist, and are not aggregated.
    pub values: Vec<Expr>,
    /// The group list without the window's bounds.
    pub groups: Vec<Expr>,
    /// Whether the group list consists of identity columns.
    pub by_identity: bool,
    /// The aggregates: states, and what is asked of them.
    pub aggregates: Vec<(Call, Question)>,
    /// HAVING, over `schema`.
    pub having: Option<Expr>,
    /// The SELECT list with the names of its columns, over `schema`.
    pub outputs: Vec<(Expr, String)>,
    /// Columns after the aggregation.
    pub schema: SchemaRef,
}

/// A rule without a window. All expressions are over the table's columns, those of the SELECT list over the OVERs' too.
#[derive(Debug, Clone)]
pub struct RowPlan {
    /// Conditions on identity columns: rows that do not pass them do not exist for the rule.
    pub labels: Vec<Expr>,
    /// Conditions on values.
    pub values: Vec<Expr>,
    /// The SELECT list and the row's time.
    pub matching: Vec<(Expr, String)>,
    /// Its key columns and the row's time.
    pub present: Vec<(Expr, String)>,
    /// Its OVERs.
    pub overs: Vec<OverCall>,
    /// Conditions on their results.
    pub after: Vec<Expr>,
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Function::Own(states) => states.fmt(f),
            Function::Stock(stock) => f.write_str(stock.name()),
        }
    }
}

impl fmt::Display for States {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            States::Count => "count",
            States::IntegerSum | States::FloatSum => "sum",
            States::Spread => "spread",
            States::Percentile => "percentile",
            States::Extreme { largest: true, .. } => "max",
            States::Extreme { largest: false, .. } => "min",
            States::End { end: End { last: true, nulls: false }, .. } => "last",
            States::End { end: End { last: false, nulls: false }, .. } => "first",
            States::End { end: End { last: true, nulls: true }, .. } => "last RESPECT NULLS",
            States::End { end: End { last: false, nulls: true }, .. } => "first RESPECT NULLS",
            States::Growth { .. } => "increase",
        })
    }
}

impl<F: fmt::Display> fmt::Display for Call<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arguments: Vec<String> = self.arguments.iter().map(ToString::to_string).collect();
        let arguments = if arguments.is_empty() { "*".to_string() } else { arguments.join(", ") };
        let function = self.function.to_string();
        match function.split_once(' ') {
            Some((name, treatment)) => write!(f, "{name}({arguments}) {treatment}")?,
            None => write!(f, "{function}({arguments})")?,
        }
        match &self.filter {
            Some(filter) => write!(f, " FILTER (WHERE {filter})"),
            None => Ok(()),
        }
    }
}

/// One aggregate call: rules with equal ones share a cube.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Call<F = Function> {
    /// The function.
    pub function: F,
    /// Its arguments.
    pub arguments: Vec<Expr>,
    /// FILTER.
    pub filter: Option<Expr>,
}

/// An aggregate function.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Function {
    /// With a kernel of ours.
    Own(States),
    /// Any other, by DataFusion's own accumulators.
    Stock(Stock),
}

/// The states that have kernels.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum States {
    /// `count`.
    Count,
    /// `sum` over Int64.
    IntegerSum,
    /// `sum` and `avg` over Float64.
    FloatSum,
    /// Variance and standard deviation over Float64.
    Spread,
    /// `approx_percentile`.
    Percentile,
    /// `min`, `max`, `bool_and`, `bool_or`.
    Extreme {
        /// Whether it is the largest.
        largest: bool,
        /// Of which type.
        data_type: DataType,
    },
    /// `first` and `last`.
    End {
        /// Which of them, and of which rows.
        end: End,
        /// Of which type.
        data_type: DataType,
    },
    /// `increase` and `rate`.
    Growth {
        /// Whether the counter is an Int64.
        integer: bool,
    },
}

/// Makes something of a kernel, whichever it is.
pub trait Make {
    /// What is made.
    type Made;
    /// Makes it.
    fn make<K: Kernel>(self, kernel: K) -> Self::Made;
}

struct MakeCube;

impl Make for MakeCube {
    type Made = Box<dyn Cube>;
    fn make<K: Kernel>(self, kernel: K) -> Box<dyn Cube> {
        Box::new(Aggregate::new(kernel))
    }
}

/// How the columns after the aggregation are called.
pub fn group_name(index: usize) -> String {
    format!("group_{index}")
}

/// The same for aggregates.
pub fn aggregate_name(index: usize) -> String {
    format!("aggregate_{index}")
}

impl Function {
    /// An empty cube.
    pub fn cube(&self) -> Box<dyn Cube> {
        match self {
            Function::Own(states) => states.with(MakeCube),
            Function::Stock(stock) => stock.cube(),
        }
    }
}

impl States {
    /// Makes something of their kernel.
    pub fn with<M: Make>(&self, maker: M) -> M::Made {
        match self {
            States::Count => maker.make(Count),
            States::IntegerSum => maker.make(IntegerSum),
            States::FloatSum => maker.make(Exact::<ExactSum>::default()),
            States::Spread => maker.make(Exact::<Moments>::default()),
            States::Percentile => maker.make(Exact::<Sketch>::default()),
            States::End { end, data_type } => match data_type {
                DataType::Float64 => maker.make(Ends::<Floats>::new(*end, data_type)),
                DataType::Utf8 => maker.make(Ends::<Texts>::new(*end, data_type)),
                DataType::Boolean => maker.make(Ends::<Bools>::new(*end, data_type)),
                _ => maker.make(Ends::<Integers>::new(*end, data_type)),
            },
            States::Extreme { largest, data_type } => match data_type {
                DataType::Float64 => maker.make(Extremes::<Floats>::new(*largest, data_type)),
                DataType::Utf8 => maker.make(Extremes::<Texts>::new(*largest, data_type)),
                DataType::Boolean => maker.make(Extremes::<Bools>::new(*largest, data_type)),
                _ => maker.make(Extremes::<Integers>::new(*largest, data_type)),
            },
            States::Growth { integer: true } => maker.make(Growth::<IntegerCounter>::default()),
            States::Growth { integer: false } => maker.make(Growth::<FloatCounter>::default()),
        }
    }

    /// The states that a call needs and what it asks of them, when there is a kernel for this type of argument.
    fn of(call: &AggregateFunction, argument: &DataType) -> Option<(States, Question)> {
        let params = &call.params;
        let end = end_of(&call.func);
        // It is part of the function where that has it.
        if params.distinct || !params.order_by.is_empty() || params.null_treatment.is_some() && end.is_none() {
            return None;
        }
        let ordered = matches!(
            argument,
            DataType::Float64 | DataType::Int64 | DataType::Utf8 | DataType::Boolean | DataType::Timestamp(_, _)
        );
        let is_float = *argument == DataType::Float64;
        let is_integer = *argument == DataType::Int64;
        let spread = |sample, root| is_float.then_some((States::Spread, Question::Spread { sample, root }));
        let extreme =
            |largest| ordered.then(|| (States::Extreme { largest, data_type: argument.clone() }, Question::Plain));
        match (call.func.name(), params.args.len()) {
            ("count", 1) => Some((States::Count, Question::Plain)),
            ("sum", 1) if is_integer => Some((States::IntegerSum, Question::Plain)),
            ("sum", 1) if is_float => Some((States::FloatSum, Question::Plain)),
            ("avg", 1) if is_float => Some((States::FloatSum, Question::Mean)),
            ("var", 1) => spread(true, false),
            ("var_pop", 1) => spread(false, false),
            ("stddev", 1) => spread(true, true),
            ("stddev_pop", 1) => spread(false, true),
            ("min" | "bool_and", 1) => extreme(false),
            ("max" | "bool_or", 1) => extreme(true),
            (APPROX_PERCENTILE, 2) => match &params.args[1] {
                Expr::Literal(share, _) => Some((States::Percentile, quantile(share)?)),
                _ => None,
            },
            (name, 2) => match (end, growth_question(name)) {
                (Some(end), _) if ordered => Some((States::End { end, data_type: argument.clone() }, Question::Plain)),
                (_, Some(question)) if is_integer || is_float => {
                    Some((States::Growth { integer: is_integer }, question))
                }
                _ => None,
            },
            _ => None,
        }
    }
}

/// Takes a plan apart; says why not when it has parts that only DataFusion knows.
pub fn take_apart(
    state: &SessionState,
    plan: &LogicalPlan,
    table: &Table,
) -> Result<std::result::Result<SharedPlan, String>> {
    let no = |reason: &str| Ok(Err(reason.to_string()));
    let plan = state.analyzer().execute_and_check(plan.clone(), state.config_options(), |_, _| {})?;
    let Some(aggregate) = topmost_aggregate(&plan) else { return no("it has no aggregate") };
    let rows = DFSchema::try_from(windowed_schema(&table.schema()))?;
    let below = match flatten(&aggregate.input, &table_columns)? {
        Ok(below) if below.overs.is_empty() => below,
        Ok(_) => return no("it has OVER below its aggregate"),
        Err(reason) => return Ok(Err(reason)),
    };
    let over_rows = |expression: &Expr| below.over_source(expression, aggregate.input.schema());
    let mut names = Vec::new();
    let mut fields = Vec::new();
    let mut groups = Vec::new();
    for group in &aggregate.group_expr {
        let group = over_rows(group)?;
        if let Expr::Column(column) = &group
            && (column.name == WINDOW_START || column.name == WINDOW_END)
        {
            names.push(column.name.clone());
            continue;
        }
        if matches!(group, Expr::GroupingSet(_)) || reads_window(&group) {
            return no(&format!("it groups by {group}"));
        }
        let name = group_name(groups.len());
        fields.push(Field::new(&name, group.get_type(&rows)?, true));
        names.push(name);
        groups.push(group);
    }
    let mut aggregates = Vec::new();
    for call in &aggregate.aggr_expr {
        let whole = call.to_string();
        let Expr::AggregateFunction(call) = over_rows(call)? else {
            return no(&format!("{whole} is no plain call"));
        };
        match call_of(&call, &whole, &rows)? {
            Ok(call) => aggregates.push(call),
            Err(reason) => return Ok(Err(reason)),
        }
        names.push(aggregate_name(aggregates.len() - 1));
    }
    for (name, field) in names.iter().zip(aggregate.schema.fields()) {
        if name.starts_with("aggregate_") {
            fields.push(Field::new(name, field.data_type().clone(), true));
        }
    }
    let schema = windowed_schema(&Schema::new(fields));
    let results = DFSchema::try_from(schema.clone())?;
    let of_aggregate = |plan: &LogicalPlan| {
        matches!(plan, LogicalPlan::Aggregate(_)).then(|| names.iter().map(|name| column(name)).collect::<Vec<_>>())
    };
    let above = match flatten(&plan, &of_aggregate)? {
        Ok(above) if above.overs.is_empty() => above,
        Ok(_) => return no("it has OVER above its aggregate"),
        Err(reason) => return Ok(Err(reason)),
    };
    let having = conjunction(above.conditions).map(|condition| simplified(condition, &results)).transpose()?;
    let outputs = above
        .columns
        .into_iter()
        .zip(plan.schema().fields())
        .map(|(expression, field)| Ok((simplified(expression, &results)?, field.name().clone())))
        .collect::<Result<Vec<_>>>()?;
    let identity: HashSet<&str> = table.identity().collect();
    let column_of = |group: &Expr| match group {
        Expr::Column(column) => Some(column.name.clone()),
        _ => None,
    };
    let by_identity = groups.iter().all(|group| column_of(group).is_some_and(|name| identity.contains(name.as_str())));
    let (mut of_groups, mut labels, mut values) = (vec![], vec![], vec![]);
    for part in below.conditions {
        if reads_window(&part) {
            return no(&format!("{part} reads the window's bounds"));
        }
        let on_groups = part
            .column_refs()
            .iter()
            .all(|column| groups.iter().any(|group| column_of(group).as_ref() == Some(&column.name)));
        match (is_label(&part, &identity), on_groups && by_identity && !groups.is_empty()) {
            (true, true) => of_groups.push(on_group_columns(&simplified(part, &rows)?, &groups)?),
            (true, false) => labels.push(simplified(part, &rows)?),
            (false, _) => values.push(simplified(part, &rows)?),
        }
    }
    // In the order in which they were written: one may guard the next.
    let of_groups = conjunction(of_groups);
    Ok(Ok(SharedPlan { of_groups, labels, values, groups, by_identity, aggregates, having, outputs, schema }))
}

/// The aggregation that is met first from the top, below projections and filters.
fn topmost_aggregate(plan: &LogicalPlan) -> Option<&datafusion::logical_expr::Aggregate> {
    match plan {
        LogicalPlan::Aggregate(aggregate) => Some(aggregate),
        LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::SubqueryAlias(_) => {
            plan.inputs().first().and_then(|input| topmost_aggregate(input))
        }
        _ => None,
    }
}

/// Whether a condition is about identity columns only.
fn is_label(condition: &Expr, identity: &HashSet<&str>) -> bool {
    condition.column_refs().iter().all(|column| identity.contains(column.name.as_str()))
}

pub(super) fn simplified(expression: Expr, schema: &DFSchema) -> Result<Expr> {
    let context = SimplifyContext::builder().with_schema(Arc::new(schema.clone())).build();
    ExprSimplifier::new(context).simplify(expression)
}

/// A call that DataFusion's own accumulators answer.
fn stock_of(call: &AggregateFunction, arguments: &[Expr], rows: &DFSchema) -> Result<Option<Stock>> {
    if !call.params.order_by.is_empty() || call.params.null_treatment.is_some() {
        return Ok(None);
    }
    check_constant(call.func.name(), arguments)?;
    let types = arguments.iter().map(|argument| argument.get_type(rows)).collect::<Result<Vec<_>>>()?;
    let params = AggregateFunctionParams { args: arguments.to_vec(), filter: None, ..call.params.clone() };
    let call = Expr::AggregateFunction(AggregateFunction { func: call.func.clone(), params });
    let (props, context) = (ExecutionProps::new(), PhysicalPlanningContext::default());
    let lowered = LoweredAggregateBuilder::new(&call, rows, rows.as_arrow(), &props, &context).build()?;
    Ok(Stock::of(lowered.aggregate, &types))
}

/// A call over rows as states and what is asked of them; why not, when there is no kernel for it.
pub fn call_of(
    call: &AggregateFunction,
    whole: &str,
    rows: &DFSchema,
) -> Result<std::result::Result<(Call, Question), String>> {
    let arguments =
        call.params.args.iter().map(|argument| simplified(argument.clone(), rows)).collect::<Result<Vec<_>>>()?;
    let filter = call.params.filter.as_deref().map(|filter| simplified(filter.clone(), rows)).transpose()?;
    let Some(first) = arguments.first() else { return Ok(Err(format!("{whole} has no argument"))) };
    let (function, question) = match States::of(call, &first.get_type(rows)?) {
        Some((states, question)) => (Function::Own(states), question),
        None => match stock_of(call, &arguments, rows)? {
            Some(stock) => (Function::Stock(stock), Question::Plain),
            None => return Ok(Err(format!("{whole} depends on the order of its rows"))),
        },
    };
    if arguments.iter().chain(&filter).any(reads_window) {
        return Ok(Err(format!("{whole} reads the window's bounds")));
    }
    let is_constant = |argument: &Expr| matches!(argument, Expr::Literal(value, _) if !value.is_null());
    let arguments = match function {
        Function::Own(States::Count) if is_constant(first) => vec![],
        Function::Own(States::Percentile) => vec![first.clone()],
        _ => arguments,
    };
    Ok(Ok((Call { function, arguments, filter }, question)))
}

/// Takes a rule without a window apart; says why not when it has parts that only DataFusion knows.
pub fn take_row_apart(
    state: &SessionState,
    parts: &RulePlan,
    table: &Table,
) -> Result<std::result::Result<RowPlan, String>> {
    let plan = state.analyzer().execute_and_check(parts.matching.clone(), state.config_options(), |_, _| {})?;
    let flat = match flatten(&plan, &table_columns)? {
        Ok(flat) => flat,
        Err(reason) => return Ok(Err(reason)),
    };
    let rows = DFSchema::try_from(table.schema())?;
    let mut overs = Vec::new();
    for over in &flat.overs {
        match over_call(over, &rows)? {
            Ok(call) => overs.push(call),
            Err(reason) => return Ok(Err(reason)),
        }
    }
    let identity: HashSet<&str> = table.identity().collect();
    let (labels, values) = flat.conditions.into_iter().partition(|part| is_label(part, &identity));
    let names = plan.schema().fields().iter().map(|field| field.name().clone());
    let matching: Vec<(Expr, String)> = flat.columns.into_iter().zip(names).collect();
    let is_present = |name: &String| parts.key.contains(name) || name == ROW_TIME;
    let present: Vec<(Expr, String)> = matching.iter().filter(|(_, name)| is_present(name)).cloned().collect();
    let is_over = |column: &Column| (0..overs.len()).any(|index| column.name == over_name(index));
    if let Some((key, _)) = present.iter().find(|(key, _)| key.column_refs().into_iter().any(&is_over)) {
        return Ok(Err(format!("an OVER, {key}, identifies its alerts")));
    }
    Ok(Ok(RowPlan { labels, values, matching, present, overs, after: flat.after }))
}

fn reads_window(expression: &Expr) -> bool {
    expression.column_refs().iter().any(|column| column.name == WINDOW_START || column.name == WINDOW_END)
}

fn on_group_columns(condition: &Expr, groups: &[Expr]) -> Result<Expr> {
    let renamed = condition.clone().transform_up(|part| {
        let index = groups.iter().position(|group| *group == part);
        Ok(index.map_or(Transformed::no(part), |index| {
            Transformed::yes(Expr::Column(Column::new_unqualified(group_name(index))))
        }))
    })?;
    Ok(renamed.data)
}

/// An expression, ready to be evaluated over batches of a schema.
pub fn physical(expression: &Expr, schema: &Schema) -> Result<Arc<dyn PhysicalExpr>> {
    let schema = DFSchema::try_from(schema.clone())?;
    create_physical_expr(expression, &schema, &ExecutionProps::new(), &PhysicalPlanningContext::default())
}
